"""YAML with places: every value knows the line on which it stands.

Only data is read: plain mappings, lists and scalars. Tags, anchors and aliases are refused, so
that a file can neither run code nor unfold into more than it says. Scalars follow YAML 1.2, not
PyYAML's 1.1: `1e-3` is a number, `on`, `yes` and `no` are words, `010` is ten.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from search.errors import SpaceError, printable, shortened, shown

AFTER_THE_FILE = 10**9
"""The line of a `--set` override, so that its mistakes are told after those of the file."""

LONGEST_FILE = 100_000
"""Characters: ten times the longest file of ours; what is in one is read in less than a second."""
DEEPEST_NESTING = 50
"""Brackets in brackets: a space file has four."""

_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {_TAG + kind for kind in ("str", "int", "float", "bool", "null", "map", "seq")} | {
    _TAG + "timestamp",
    _TAG + "merge",
    _TAG + "value",
}
_INTEGER = re.compile(r"[-+]?[0-9]{1,400}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | float | None] = (
    dict.fromkeys(("", "~", "null", "Null", "NULL"))
    | dict.fromkeys(("true", "True", "TRUE"), True)
    | dict.fromkeys(("false", "False", "FALSE"), False)
    | {".nan": math.nan, ".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf}
)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something stands: `spaces/gated.yaml:14`, or `--set a.b=c`. Ordered by line."""

    line: int
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a file. In a mapping its place is the line of its key."""

    data: bool | int | float | str | list[Value] | dict[str, Value] | None
    place: Place
    text: str = ""
    """A scalar exactly as written (`1e-3`), for names and formulas."""

    def plain(self) -> Any:
        """The value as Python data without places."""
        if isinstance(self.data, dict):
            return {key: item.plain() for key, item in self.data.items()}
        if isinstance(self.data, list):
            return [item.plain() for item in self.data]
        return self.data


class Problems(list[tuple[Place, str]]):
    """The mistakes found so far; told together, in the order of the file."""

    def add(self, place: Place, *lines: str) -> None:
        """Note mistakes that stand at `place`."""
        self.extend((place, line) for line in lines)

    def lines(self) -> list[str]:
        """`spaces/gated.yaml:14: what was wrong`, each once, in the order of the file."""
        told = sorted(self, key=lambda problem: problem[0].line)
        lines = dict.fromkeys(f"{place}: {line}" for place, line in told)
        return [printable(line) for line in lines]  # a place has the names of keys

    def stop(self) -> None:
        """Raise everything that was found, if anything.

        Raises:
            SpaceError: one line a mistake.
        """
        if self:
            raise SpaceError(*self.lines())


def read_document(path: Path, problems: Problems) -> Value:
    """The YAML file at `path`.

    Raises:
        SpaceError: the file cannot be read, or is not YAML; duplicate keys, tags and aliases are
            noted in `problems` instead, so that the rest of the file is checked too.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpaceError(f"{path}: byte {error.start} is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpaceError(f"{path}: cannot read the space file: {reason}") from None
    return parse_document(text, str(path), problems)


def parse_document(text: str, name: str, problems: Problems) -> Value:
    """The YAML `text`, whose places are `name:line`. Raises as `read_document` does."""
    if len(text) > LONGEST_FILE:
        raise SpaceError(f"{name}: {len(text):,} characters; expected at most {LONGEST_FILE:,}")
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            return Value(None, Place(1, f"{name}:1"))
        return _value(node, name, _place(node, name), set(), problems)
    except yaml.MarkedYAMLError as error:
        raise SpaceError(_syntax_problem(error, name)) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the latter two: "\\UFFFFFFFF"
        raise SpaceError(f"{name}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise SpaceError(f"{name}: nested too deeply for a space file") from None


class _Loader(yaml.SafeLoader):
    """Refuses brackets nested too deeply where they open: looking ahead for the ends of a thousand
    of them took the scanner 1.5 s."""

    def fetch_flow_collection_start(self, TokenClass: type[yaml.Token]) -> None:  # noqa: N803
        if self.flow_level >= DEEPEST_NESTING:
            raise RecursionError
        super().fetch_flow_collection_start(TokenClass)


def _syntax_problem(error: yaml.MarkedYAMLError, name: str) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"{name}:{mark.line + 1}" if mark else name
    what = " ".join((error.problem or error.context or "not YAML").split())
    hint = (
        "quote a formula that begins with * or &, holds ': ', or holds brackets or ',' in a [list]"
    )
    return f"{place}: not YAML: {what}; {hint}"


def _place(node: yaml.Node, name: str) -> Place:
    line = node.start_mark.line + 1
    return Place(line, f"{name}:{line}")


def _value(node: yaml.Node, name: str, place: Place, seen: set[int], problems: Problems) -> Value:
    if node.tag not in _PLAIN_TAGS:
        problems.add(
            place, f"tag {shown(node.tag.replace(_TAG, '!!'))} is not allowed; expected plain data"
        )
        return Value(None, place)
    if id(node) in seen:
        problems.add(place, "an alias (*name) is not allowed; expected the value written out")
        return Value(None, place)
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        data = _scalar(node.value) if node.style is None else node.value
        return Value(data, place, node.value)
    if isinstance(node, yaml.SequenceNode):
        items = [_value(item, name, _place(item, name), seen, problems) for item in node.value]
        return Value(items, place)
    return Value(_mapping(node, name, seen, problems), place)


def _mapping(node: yaml.Node, name: str, seen: set[int], problems: Problems) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for key, item in node.value:
        place = _place(key, name)
        if not isinstance(key, yaml.ScalarNode):
            problems.add(place, "a key must be one word; quote a formula that begins with [ or {")
        elif key.value in found:
            first = found[key.value].place
            problems.add(place, f"key {shown(key.value)} stands twice; the first is at {first}")
        else:
            found[key.value] = _value(item, name, place, seen, problems)
    return found


def _scalar(text: str) -> bool | int | float | str | None:
    """An unquoted scalar by the rules of YAML 1.2.

    >>> [_scalar(text) for text in ("1e-3", "010", "yes", "True", "~", "x * G")]
    [0.001, 10, 'yes', True, None, 'x * G']
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def override(
    root: Value, setting: str, problems: Problems, short: Mapping[str, str] = MappingProxyType({})
) -> Value:
    """`root` with one `--set a.b=c` applied; `c` is read as YAML.

    A key that does not exist yet is added, and judged with the rest of the file. `short` names
    mappings for which one value stands for one of their keys.
    """
    place = Place(AFTER_THE_FILE, f"--set {shortened(setting, 100)}")
    path, equals, text = setting.partition("=")
    keys = tuple(part.strip() for part in path.split("."))
    if not equals or not all(keys):
        problems.add(place, "expected key=value, such as --set search.trials=10")
        return root
    found = Problems()
    try:
        value = _moved(parse_document(text, "value", found), place)
    except SpaceError as error:
        problems.add(place, *(line.split(": ", 1)[-1] for line in error.problems))
        return root
    problems.add(place, *(line for _, line in found))
    if len(keys) == 1 and keys[0] in short and not isinstance(value.data, dict):
        keys = (keys[0], short[keys[0]])
    return _put(root, keys, value, place, problems)


def _moved(value: Value, place: Place) -> Value:
    """`value` with every place in it set to `place`."""
    if isinstance(value.data, dict):
        data = {key: _moved(item, place) for key, item in value.data.items()}
        return replace(value, data=data, place=place)
    if isinstance(value.data, list):
        return replace(value, data=[_moved(item, place) for item in value.data], place=place)
    return replace(value, place=place)


def _put(at: Value, keys: tuple[str, ...], value: Value, place: Place, problems: Problems) -> Value:
    if not keys:
        return value
    if at.data is None:
        at = Value({}, place)
    if not isinstance(at.data, dict):
        kind = "a list; set it whole, such as [0, 1]" if isinstance(at.data, list) else "one value"
        problems.add(place, f"no key {shown(keys[0])} here: it is {kind}")
        return at
    below = at.data.get(keys[0], Value(None, place))
    return replace(at, data=at.data | {keys[0]: _put(below, keys[1:], value, place, problems)})
