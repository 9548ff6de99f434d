"""What the rules of a grammar say together: which of them end, how deep, how long, and of what."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from search.language.expression import Input, Node, Statistic, children, leaves, walk
from search.space.productions import Alternative, Rules


def heights(rules: Rules) -> dict[str, float]:
    """The fewest nested expansions that end each rule; infinite for a rule that never ends."""
    found = dict.fromkeys(rules, math.inf)
    for _ in rules:
        for rule, alternatives in rules.items():
            found[rule] = min((height(a, found) for a in alternatives), default=math.inf)
    return found


def height(alternative: Alternative, known: Mapping[str, float]) -> float:
    """1, plus the height of its tallest child; an undefined rule is told elsewhere, and ends."""
    return 1 + max((known.get(child.rule, 0) for child in alternative.children), default=0)


def reachable(rules: Rules, start: str) -> set[str]:
    """The rules that some derivation from `start` can use."""
    found, waiting = {start}, [start]
    while waiting:
        for alternative in rules.get(waiting.pop(), ()):
            new = {child.rule for child in alternative.children} - found
            found |= new
            waiting.extend(new)
    return found


def recursive(rules: Rules) -> set[str]:
    """The rules that can lead back to themselves."""
    return {
        rule
        for rule, alternatives in rules.items()
        if any(rule in reachable(rules, c.rule) for a in alternatives for c in a.children)
    }


def without_input(rules: Rules) -> set[str]:
    """The rules that can derive a formula in which neither x nor u stands."""
    found: set[str] = set()
    for _ in rules:
        found |= {
            rule
            for rule, alternatives in rules.items()
            if any(lacks_input(alternative, found) for alternative in alternatives)
        }
    return found


def lacks_input(alternative: Alternative, free: set[str]) -> bool:
    """Whether the alternative can end without x, given the rules that can."""
    return not alternative.uses_input and all(c.rule in free for c in alternative.children)


def constant_statistic(alternative: Alternative, free: set[str]) -> Statistic | None:
    """A statistic of the alternative that can end as one of something without x."""
    with_input = {child.leaf for child in alternative.children if child.rule not in free}
    for part in (alternative.body, alternative.penalty):
        for node in walk(part) if part else ():
            if isinstance(node, Statistic) and not any(
                isinstance(leaf, Input) or leaf in with_input for leaf in leaves(node)
            ):
                return node
    return None


def longest(rules: Rules, known: Mapping[str, float], depth: int, start: str) -> tuple[int, int]:
    """Upper bounds of the characters and of the nesting of any formula within `depth`."""
    below = dict.fromkeys(rules, (0, 0))
    for level in range(1, depth + 1):
        now = {}
        for rule, alternatives in rules.items():
            sizes = [_size(a, below) for a in alternatives if height(a, known) <= level]
            characters = max((size[0] for size in sizes), default=0)
            now[rule] = characters, max((size[1] for size in sizes), default=0)
        below = now
    return below[start]


def _size(alternative: Alternative, below: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    """Characters and nesting of one alternative, given those of the rules in it.

    The text of the tree counts, not the text as written: `mish(G)` prints its G twice.
    """
    text = f"{alternative.body} {alternative.penalty or ''}"
    characters = len(text) + sum(len(str(d)) + 4 for d in alternative.declarations)
    nesting = 0
    for number in alternative.ranges:
        characters += 12 * _times(number.name, text)
    for child in alternative.children:
        size, depth = below.get(child.rule, (0, 0))
        characters += (size + 2) * _times(child.leaf.name, text)
        nesting = max(nesting, depth)
    return characters, nesting + _nesting(alternative.body)


def _times(name: str, text: str) -> int:
    return len(re.findall(rf"\b{name}\b", text))


def _nesting(node: Node) -> int:
    return 1 + max((_nesting(child) for child in children(node)), default=0)
