"""One mapping of a file, read key by key: a good value, or its default and a noted mistake."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search.errors import near_miss
from search.space.document import Place, Problems, Value, shown


def said(value: Value) -> str:
    """What stands there, for a message: `-3`, `'many'`, `nothing`, `a list`."""
    match value.data:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list(items):
            return "a list" if items else "an empty list"
        case str(word):
            return shown(word)
        case _:
            return value.text[:40]


@dataclass(frozen=True, slots=True)
class Fields:
    """The keys of one mapping. Every method notes what is wrong and gives the default instead."""

    values: Mapping[str, Value]
    place: Place
    """Where a missing key is told."""
    name: str
    """The mapping's own key and a point, `search.`; empty for the whole file."""
    problems: Problems

    def wrong(self, key: str, expected: str) -> None:
        """Note that the value of `key` is not what was expected."""
        value = self.values[key]
        self.problems.add(value.place, f"{self.name}{key}: expected {expected}, got {said(value)}")

    def missing(self, key: str, expected: str) -> None:
        """Note that a required key is not there."""
        self.problems.add(self.place, f"{self.name}{key} is missing; expected {expected}")

    def only(self, known: Sequence[str], elsewhere: Mapping[str, str] | None = None) -> None:
        """Note keys that are not known; `elsewhere` tells where a key of that name belongs."""
        for key, value in self.values.items():
            if key in known:
                continue
            home = (elsewhere or {}).get(key)
            hint = f"; did you mean '{home}'?" if home else near_miss(key, known)
            self.problems.add(value.place, f"unknown key {shown(self.name + key)}{hint}")

    def is_null(self, key: str) -> bool:
        """Whether `key` is there with nothing, or null, behind it."""
        return key in self.values and self.values[key].data is None

    def below(self, key: str) -> Fields:
        """The mapping under `key`; an empty one when it is not there, or is not a mapping."""
        value = self.values.get(key)
        name = f"{self.name}{key}."
        if value is None or not isinstance(value.data, dict):
            if value is not None and value.data is not None:
                self.wrong(key, "a mapping of keys and values")
            return Fields({}, value.place if value else self.place, name, self.problems)
        return Fields(value.data, value.place, name, self.problems)

    def text(self, key: str, default: str | None = None) -> str | None:
        """A scalar as it is written."""
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value.data, dict | list) or not value.text.strip():
            self.wrong(key, "text")
            return default
        return value.text.strip()

    def word(self, key: str, words: Sequence[str], default: str) -> str:
        """One of a few words."""
        value = self.values.get(key)
        if value is None:
            return default
        if value.data in words and isinstance(value.data, str):
            return value.data
        if isinstance(value.data, str):
            hint = near_miss(value.data, words)
            self.problems.add(
                value.place, f"{self.name}{key}: unknown {key} {shown(value.data)}{hint}"
            )
        else:
            self.wrong(key, f"one of {', '.join(words)}")
        return default

    def truth(self, key: str, default: bool) -> bool:
        """true or false; yes, no, on and off are understood too."""
        value = self.values.get(key)
        words = {"yes": True, "on": True, "no": False, "off": False}
        if value is None:
            return default
        if isinstance(value.data, bool):
            return value.data
        if value.text.lower() not in words:
            self.wrong(key, "true or false")
            return default
        return words[value.text.lower()]

    def whole(self, key: str, default: int, low: int, high: int = 10**9) -> int:
        """A whole number, low … high."""
        value = self.values.get(key)
        if value is None:
            return default
        if is_whole(value) and isinstance(value.data, int) and low <= value.data <= high:
            return value.data
        too_large = is_whole(value) and isinstance(value.data, int) and value.data > high
        self.wrong(key, f"a whole number ≤ {high}" if too_large else f"a whole number ≥ {low}")
        return default

    def number(self, key: str, default: float, low: float, *, above: bool = False) -> float:
        """A finite number, at least (or, with `above`, more than) `low`."""
        value = self.values.get(key)
        if value is None:
            return default
        number = as_number(value)
        if number is None or number < low or (above and number == low):
            self.wrong(key, f"a number {'>' if above else '≥'} {low:g}")
            return default
        return number

    def items(self, key: str, expected: str) -> list[Value] | None:
        """The items of a list; one value alone counts as a list of one. None if it is not there."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value.data, list):
            return value.data
        if value.data is None or isinstance(value.data, dict):
            self.wrong(key, expected)
            return None
        return [value]


def is_whole(value: Value) -> bool:
    """Whether a whole number stands there (true is none)."""
    return isinstance(value.data, int) and not isinstance(value.data, bool)


def as_number(value: Value) -> float | None:
    """The finite number that stands there, if one does."""
    if isinstance(value.data, bool) or not isinstance(value.data, int | float):
        return None
    try:
        number = float(value.data)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
