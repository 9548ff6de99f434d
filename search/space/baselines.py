"""The key `baselines` of a space file: published names, formulas, or `name: formula`."""

from __future__ import annotations

from search.errors import ExpressionError
from search.language.catalog import CATALOG, find_published
from search.language.fingerprint import fingerprint
from search.language.parser import parse
from search.space.document import Value, shown
from search.space.fields import Fields, said
from search.space.settings import STUDY_NAME


def read_baselines(fields: Fields) -> tuple[tuple[str, ...], dict[str, str]]:
    """Names, and the formulas of those that are not in the catalogue."""
    formulas: dict[str, str] = {}
    by_function: dict[str, str] = {}
    names: list[str] = []
    for item in fields.items("baselines", "a list of activations, such as [relu, gelu]") or []:
        try:
            name, formula = _baseline(item)
            published = find_published(name) if not formula else None
            expression = published.expression if published else parse(formula, "baselines")
        except ExpressionError as error:
            fields.problems.add(item.place, *error.problems)
            continue
        first = by_function.setdefault(fingerprint(expression), name)
        if first != name or name in names:
            twice = "stands twice" if first == name else f"is the same function as {shown(first)}"
            fields.problems.add(item.place, f"baselines: {shown(name)} {twice}")
            continue
        names.append(name)
        if formula:
            formulas[name] = formula
    return tuple(names), formulas


def _baseline(item: Value) -> tuple[str, str]:
    """Name and formula of an item; the formula is empty for a name of the catalogue.

    Raises:
        ExpressionError: neither a name, a formula nor `name: formula`.
    """
    expected = "expected a published activation, a formula, or one `name: formula`"
    if isinstance(item.data, dict):
        if len(item.data) != 1:
            raise ExpressionError(f"baselines: {len(item.data)} keys; {expected}")
        ((name, value),) = item.data.items()
        if not STUDY_NAME.fullmatch(name) or isinstance(value.data, dict | list) or not value.text:
            raise ExpressionError(f"baselines: {shown(name)} has no formula; {expected}")
        if name in CATALOG:
            raise ExpressionError(f"baselines: {shown(name)} is published; choose another name")
        return name, " ".join(value.text.split())
    text = " ".join(item.text.split())
    if isinstance(item.data, list) or not text:
        raise ExpressionError(f"baselines: got {said(item)}; {expected}")
    if text.isidentifier() and text not in ("x", "u"):
        return find_published(text, "baselines").name, ""
    return text, text
