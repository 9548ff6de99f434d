"""Products in another order: what is the same for many elements apart from what is not."""

from __future__ import annotations

from functools import reduce

from search.language.expression import Call, Input, Node, Number, Parameter, Statistic, U, X, walk
from search.language.simplify import build


def factor_inputs(node: Node) -> Node:
    """a x + b x as x (a + b): one multiplication less, and none of 0 and inf where a goes to 0."""
    match node:
        case Call("add" | "sub" as function, (left, right)):
            for leaf in (X, U):
                a, b = _over(left, leaf), _over(right, leaf)
                if a is not None and b is not None:
                    return build("mul", leaf, build(function, a, b))
    return node


def _over(node: Node, leaf: Node) -> Node | None:
    """The other factors of a product that has the leaf among its own."""
    if node == leaf:
        return Number(1.0)
    match node:
        case Call("mul", (left, right)):
            if (rest := _over(left, leaf)) is not None:
                return build("mul", rest, right)
            if (rest := _over(right, leaf)) is not None:
                return build("mul", left, rest)
    return None


def parameters_apart(node: Node) -> Node:
    """In a product parameters first, whose own product is one number for all elements, then u and
    dy: the rest can have a limit as x goes to infinity."""
    match node:
        case Call("mul", (left, right)):
            pairs = zip(_split(left), _split(right), strict=True)
            return _product(*(_product(a, b) for a, b in pairs)) or node
        case _:
            return node


def _split(node: Node) -> tuple[Node | None, Node | None, Node | None]:
    """The factors of a product that has been put in order: of parameters, of u and dy, and the
    rest, literals too (2 x * 0.5 overflows where x does not)."""
    match node:
        case Call("mul", (left, right)) if not is_own(node) and is_own(left):
            return left, *_split(right)[1:]
        case Call("mul", (left, right)) if _is_of_others(left) and not _is_of_others(right):
            return None, left, right
        case _:
            if is_own(node):
                return node, None, None
            return (None, node, None) if _is_of_others(node) else (None, None, node)


def _is_of_others(node: Node) -> bool:
    """Whether a part is of u or dy and not of x."""
    found = list(walk(node))
    return X not in found and any(isinstance(n, Input) for n in found)


def is_own(node: Node) -> bool:
    """Whether a part is of parameters alone."""
    found = list(walk(node))
    tied = any(isinstance(n, Input | Statistic) for n in found)
    return not tied and any(isinstance(n, Parameter) for n in found)


def _product(*factors: Node | None) -> Node | None:
    """Of those that are there, the last two first."""
    there = [factor for factor in factors if factor is not None]
    return reduce(lambda right, left: build("mul", left, right), reversed(there)) if there else None
