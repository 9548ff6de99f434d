"""Formulas that differ in their numbers alone as one formula whose numbers are declared.

    x * sigmoid(0.7 * x), x * sigmoid(1.3 * x)   →   x * sigmoid(n0 * x),  n0 = 0.7 and 1.3

Numbers that all of them share stay what they are, and numbers that are equal in every one of them
share a name, so that the one formula keeps their repeated parts. Exponents and bases of powers are
never lifted: `x ** 2` is a product, and the slope of `x ** n` is another formula.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

from search.language.expression import (
    Call,
    Declaration,
    Expression,
    Node,
    Number,
    Parameter,
    Statistic,
)
from search.language.simplify import fold_fixed


@dataclass(frozen=True, slots=True)
class Lifted:
    """Several formulas as one."""

    held: tuple[str, ...]
    """The names of lifted numbers: declared per layer, and not to be trained."""
    each: tuple[Expression, ...]
    """The one formula, with each one's own numbers as initial values."""


def shape_of(expression: Expression) -> Hashable:
    """Equal for formulas that differ in numbers and initial values alone.

    >>> from search.language.parser import parse
    >>> shape_of(parse("x * sigmoid(0.7 * x)")) == shape_of(parse("x * sigmoid(1.3 * x)"))
    True
    >>> shape_of(parse("x ** 2 + 1")) == shape_of(parse("x ** 3 + 1"))
    False
    """
    folded = fold_fixed(expression)
    declared = tuple((p.name, p.scope) for p in folded.parameters)
    return declared, *(part and _shape(part) for part in (folded.body, folded.penalty))


def lift(expressions: Sequence[Expression]) -> Lifted:
    """Formulas of one shape as one formula."""
    folded = [fold_fixed(expression) for expression in expressions]
    columns = list(zip(*map(_numbers_of, folded), strict=True))
    names = _names(folded[0], columns)
    held = tuple(dict.fromkeys(names[column] for column in columns if column in names))
    values = {name: column for column, name in names.items()}
    each = []
    for place, own in enumerate(folded):
        numbers = iter(columns)
        parts = [part and _rebuilt(part, numbers, names) for part in (own.body, own.penalty)]
        lifted = [Declaration(name, values[name][place], "layer") for name in held]
        each.append(
            replace(own, body=parts[0], penalty=parts[1], parameters=(*own.parameters, *lifted))
        )
    return Lifted(held, tuple(each))


def _names(expression: Expression, columns: Sequence[tuple[float, ...]]) -> dict[tuple, str]:
    """A name for every list of values that are not all equal, none of those declared."""
    taken = {p.name for p in expression.parameters}
    free = (name for k in count() if (name := f"n{k}") not in taken)
    differing = dict.fromkeys(column for column in columns if len(set(column)) > 1)
    return {column: next(free) for column in differing}


def _fixed(function: str, argument: Node) -> bool:
    """Whether an argument is a number that must stay one."""
    return function == "pow" and isinstance(argument, Number)


def _shape(node: Node) -> Hashable:
    match node:
        case Number():
            return "number"
        case Call(function, arguments):
            own = (a if _fixed(function, a) else _shape(a) for a in arguments)
            return function, *own
        case Statistic(kind, argument, over, detach):
            return kind, _shape(argument), over, detach
        case _:
            return node


def _numbers_of(expression: Expression) -> list[float]:
    """Every number that may be lifted, place by place."""
    parts = (expression.body, expression.penalty)
    return [number for part in parts if part for number in _numbers(part)]


def _numbers(node: Node) -> Iterator[float]:
    match node:
        case Number(value):
            yield value
        case Call(function, arguments):
            for argument in arguments:
                if not _fixed(function, argument):
                    yield from _numbers(argument)
        case Statistic(argument=argument):
            yield from _numbers(argument)


def _rebuilt(node: Node, numbers: Iterator[tuple[float, ...]], names: dict[tuple, str]) -> Node:
    """The formula with the numbers that have a name replaced by it."""
    match node:
        case Number():
            name = names.get(next(numbers))
            return node if name is None else Parameter(name)
        case Call(function, arguments):
            own = (a if _fixed(function, a) else _rebuilt(a, numbers, names) for a in arguments)
            return Call(function, tuple(own))
        case Statistic(kind, argument, over, detach):
            return Statistic(kind, _rebuilt(argument, numbers, names), over, detach)
        case _:
            return node
