"""What the rules of a grammar say together: which of them end, how deep, how long, and of what."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from itertools import count
from typing import NamedTuple

from search.language.expression import Input, Node, Statistic, children, leaves, walk
from search.space.productions import Alternative, Rules


def heights(rules: Rules) -> dict[str, float]:
    """The fewest nested expansions that end each rule; infinite for a rule that never ends.

    Level by level, every occurrence looked at once: pass after pass over all rules, a chain of a
    thousand took 9 s.
    """
    found = dict.fromkeys(rules, math.inf)
    above: dict[str, list[tuple[str, int]]] = {rule: [] for rule in rules}
    missing: Counter[tuple[str, int]] = Counter()
    for rule, alternatives in rules.items():
        for i, alternative in enumerate(alternatives):
            below = {child.rule for child in alternative.children} & rules.keys()
            missing[rule, i] = len(below)
            for name in below:
                above[name].append((rule, i))
    ended = [rule for (rule, _), children in missing.items() if not children]
    for level in count(1):
        new = [rule for rule in dict.fromkeys(ended) if math.isinf(found[rule])]
        if not new:
            return found
        found |= dict.fromkeys(new, level)
        missing.subtract(each for rule in new for each in above[rule])
        ended = [each[0] for rule in new for each in above[rule] if not missing[each]]
    raise AssertionError("there are finitely many rules")


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
    from scipy.sparse import coo_array  # here: it takes 0.1 s, and formulas alone need none of it
    from scipy.sparse.csgraph import connected_components

    at = {rule: i for i, rule in enumerate(rules)}
    leads = {
        (at[rule], at[child.rule])
        for rule, alternatives in rules.items()
        for alternative in alternatives
        for child in alternative.children
        if child.rule in at
    }
    if not leads:
        return set()
    graph = coo_array(([1] * len(leads), tuple(zip(*leads, strict=True))), (len(at), len(at)))
    _, group = connected_components(graph, connection="strong")
    size = Counter(group.tolist())
    return {rule for rule, i in at.items() if size[group[i]] > 1 or (i, i) in leads}


def without_input(rules: Rules) -> set[str]:
    """The rules that can derive a formula in which neither x nor u stands."""
    free = {rule: tuple(a for a in those if not a.uses_input) for rule, those in rules.items()}
    return {rule for rule, least in heights(free).items() if math.isfinite(least)}


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
    own = {
        rule: [(height(a, known), _own_size(a)) for a in alternatives]
        for rule, alternatives in rules.items()
    }
    below = dict.fromkeys(rules, (0, 0))
    for level in range(1, depth + 1):
        now = {}
        for rule, alternatives in own.items():
            sizes = [_size(size, below) for least, size in alternatives if least <= level]
            characters = max((size[0] for size in sizes), default=0)
            now[rule] = characters, max((size[1] for size in sizes), default=0)
        below = now
    return below[start]


class _OwnSize(NamedTuple):
    """Of one alternative without those of the rules in it."""

    characters: int
    nesting: int
    children: tuple[tuple[str, int], ...]
    """Each rule with how often its expansion is written out."""


def _own_size(alternative: Alternative) -> _OwnSize:
    """The text of the tree counts, not the text as written: `mish(G)` prints its G twice."""
    text = f"{alternative.body} {alternative.penalty or ''}"
    times = Counter(re.findall(r"\w+", text))
    characters = len(text) + sum(len(str(d)) + 4 for d in alternative.declarations)
    characters += sum(12 * times[number.name] for number in alternative.ranges)
    children = tuple((child.rule, times[child.leaf.name]) for child in alternative.children)
    return _OwnSize(characters, _nesting(alternative.body), children)


def _size(own: _OwnSize, below: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    """Characters and nesting of one alternative, given those of the rules in it."""
    characters, nesting = own.characters, 0
    for rule, times in own.children:
        size, depth = below.get(rule, (0, 0))
        characters += (size + 2) * times
        nesting = max(nesting, depth)
    return characters, nesting + own.nesting


def _nesting(node: Node) -> int:
    return 1 + max((_nesting(child) for child in children(node)), default=0)
