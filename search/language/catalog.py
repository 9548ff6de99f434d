"""The published activations, as data in the language: `CATALOG["golu"]`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

import yaml

from search.errors import ExpressionError, near_miss, shortened
from search.language.expression import Expression
from search.language.fingerprint import fingerprint
from search.language.parser import parse


@dataclass(frozen=True)
class Published:
    """One activation of the literature."""

    name: str
    """Its key in the catalogue."""
    title: str
    """Its name in print: `GoLU`."""
    formula: str
    paper: str
    arxiv: str = ""
    aliases: tuple[str, ...] = ()
    notes: str = ""

    @cached_property
    def expression(self) -> Expression:
        """The formula, parsed."""
        return parse(self.formula, f"catalogue: {self.name}")


class _Catalog(Mapping[str, Published]):
    """A read-only mapping, filled from catalog.yaml when first used."""

    def __getitem__(self, name: str) -> Published:
        rows = _rows()
        return rows[_aliases().get(name, name)]

    def __contains__(self, name: object) -> bool:
        return name in _rows() or name in _aliases()

    def __iter__(self) -> Iterator[str]:
        return iter(_rows())

    def __len__(self) -> int:
        return len(_rows())


CATALOG: Mapping[str, Published] = _Catalog()


@cache
def _document() -> dict[str, dict]:
    text = files("search.language").joinpath("catalog.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


@cache
def _rows() -> dict[str, Published]:
    return {
        name: Published(name=name, **{**row, "aliases": tuple(row.get("aliases", ()))})
        for name, row in _document()["activations"].items()
    }


@cache
def _aliases() -> dict[str, str]:
    return {alias: row.name for row in _rows().values() for alias in row.aliases}


@cache
def _by_fingerprint() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for row in _rows().values():
        key = fingerprint(row.expression)
        found[key] = (*found.get(key, ()), row.name)
    return found


def pending() -> dict[str, str]:
    """Published activations that are not functions of the input alone, and why they must wait."""
    return dict(_document()["pending"])


def find_published(name: str, place: str = "catalogue") -> Published:
    """The row of a name or alias; ExpressionError with a near miss when there is none."""
    if name in CATALOG:
        return CATALOG[name]
    if name in pending():
        raise ExpressionError(f"{place}: '{name}' is not available yet: {pending()[name]}")
    hint = near_miss(name, [*CATALOG, *_aliases()])
    raise ExpressionError(f"{place}: unknown activation '{shortened(name)}'{hint}")


def equals(expression: Expression) -> tuple[str, ...]:
    """The catalogue's names of this function, by fingerprint."""
    return _by_fingerprint().get(fingerprint(expression), ())


def read_activation(text: str, place: str = "activation") -> Expression:
    """An expression from a catalogue name or a formula."""
    word = text.strip()
    if re.fullmatch(r"[\w\-]+", word) and word not in ("x", "u"):
        return find_published(word, place).expression
    return parse(text, place)
