"""Checks of a user's values: a rule gives the value back, converted, or says what it expected.

A rule raises ValueError with the words that follow "expected": `a whole number ≥ 1`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from search.errors import near_miss, shortened, shown

Rule = Callable[[Any], Any]


def truth(value: Any) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def text(value: Any) -> str:
    """Any text."""
    if not isinstance(value, str):
        raise ValueError("text")
    return value


def anything(value: Any) -> Any:
    """Whatever it is."""
    return value


def whole(low: int | None = None) -> Rule:
    """A whole number, at least `low`."""

    def rule(value: Any) -> int:
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or (low is not None and value < low)
        ):
            raise ValueError("a whole number" + ("" if low is None else f" ≥ {low}"))
        return value

    return rule


def number(low: float = -math.inf, high: float = math.inf, *, above: bool = False) -> Rule:
    """A finite number in [low, high), or (low, high) when it must lie `above` low.

    Text that spells a number is taken: YAML 1.1 reads `1e-4` (no point) as text.
    """

    def rule(value: Any) -> float:
        try:
            result = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            result = math.nan
        if not (low <= result < high and math.isfinite(result)) or (above and result == low):
            raise ValueError(_range(low, high, above))
        return result

    return rule


def _range(low: float, high: float, above: bool) -> str:
    """The words for a range: `a number > 0`, `a number in [0, 1)`."""
    if math.isinf(low):
        return "a finite number"
    if math.isinf(high):
        return f"a number {'>' if above else '≥'} {low:g}"
    return f"a number in {'(' if above else '['}{low:g}, {high:g})"


def one_of(*words: str) -> Rule:
    """One of the words."""

    def rule(value: Any) -> str:
        if isinstance(value, str) and value in words:
            return value
        close = near_miss(value, words) if isinstance(value, str) else ""
        expected = " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
        raise ValueError(expected + (close if "did you mean" in close else ""))

    return rule


def switch(*words: str) -> Rule:
    """off, or one of the words. (YAML 1.1 reads a bare `off` as false.)"""
    rule = one_of("off", *words)
    return lambda value: rule("off" if value is False else value)


def optional(rule: Rule) -> Rule:
    """null, or what the rule takes."""

    def either(value: Any) -> Any:
        if value is None:
            return None
        try:
            return rule(value)
        except ValueError as error:
            raise ValueError(f"null or {error}") from None

    return either


def several(rule: Rule, length: int | None = None) -> Rule:
    """A list whose items the rule takes, as a tuple."""

    def each(value: Any) -> tuple[Any, ...]:
        count = "a list" if length is None else f"a list of {length}"
        if not isinstance(value, (list, tuple)) or length not in (None, len(value)):
            raise ValueError(f"{count}, in square brackets")
        try:
            return tuple(rule(item) for item in value)
        except ValueError as error:
            raise ValueError(f"{count}, each {error}") from None

    return each


def like(default: Any) -> Rule:
    """The rule for an option with this default.

    Same kind as the default; a whole number whose default is positive must stay positive, one
    whose default is 0 (the usual "all" or "none") must not be negative. A default of None takes
    anything.
    """
    match default:
        case bool():
            return truth
        case int():
            return whole(None if default < 0 else min(default, 1))
        case float():
            return number()
        case str():
            return text
        case [first, *_]:
            return several(like(first))
        case _:
            return anything


def check(place: str, rules: Mapping[str, Rule], values: Mapping[str, Any]) -> Iterable[tuple]:
    """For each value `(name, converted, problem)`; the problem is "" where the value is good."""
    for name, value in values.items():
        rule = rules.get(name)
        if rule is None:
            yield (
                name,
                None,
                f"{place}.{shortened(name)}: unknown name{near_miss(str(name), rules)}",
            )
            continue
        try:
            yield name, rule(value), ""
        except ValueError as error:
            yield name, None, f"{place}.{name}: got {shown(value)}; expected {error}"
