"""Derivatives of formulas, as formulas: reverse mode on the DAG with the table's rules.

A pointwise part is differentiated by the chain rule. A choice is differentiated branch by branch
(`select(c, a, b)' = select(c, a', b')`), so that an infinite slope in the branch not taken never
meets a zero. Through a statistic s = s(z) over a set of n elements the rule is the transposed one,

    mean:  dz =  G                 G = mean of dy * df/ds over the same set
    var:   dz =  2 (z - mean z) G
    std:   dz =  (z - mean z) / s * G
    rms:   dz =  z / s * G

which is again a formula of the language (a mean), so derivatives can be differentiated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

from search.language.expression import (
    DY,
    Call,
    Expression,
    Input,
    Node,
    Number,
    Parameter,
    Statistic,
    children,
    substitute,
    walk,
)
from search.language.parser import parse_node
from search.language.primitives import PRIMITIVES
from search.language.simplify import ONE, ZERO, build, fold_fixed, simplify

# Below this a standard deviation or rms is a constant row's: its gradient is 0, not 0/0. It is a
# normal float32 number, and small enough that no real row is touched.
_SMALLEST_SPREAD = 1e-30


def derivative(expression: Expression, leaf: Node, upstream: Node = ONE) -> Node:
    """d(sum of upstream * f)/d(leaf) for an input or a parameter, elementwise.

    For a pointwise formula and upstream 1 this is the ordinary derivative. For a parameter it is
    the summand: a kernel adds it up over the elements that share the parameter. Zero when the
    formula does not depend on the leaf.
    """
    return gradients(expression, (leaf,), upstream)[leaf]


def gradients(expression: Expression, wrt: Iterable[Node], upstream: Node = DY) -> dict[Node, Node]:
    """Every gradient of one backward pass: through the body, then through its statistics.

    Fixed parameters are folded into numbers first.
    """
    body = fold_fixed(expression).body
    wrt = tuple(wrt)
    statistics = [n for n in walk(body) if isinstance(n, Statistic) and not n.detach]
    through = _slopes(body, (*wrt, *statistics), upstream)
    for statistic in reversed(statistics):  # the outermost first: children come before parents
        if statistic not in through:
            continue
        upstream_of_argument = _transposed(statistic, through[statistic])
        slopes = _slopes(statistic.argument, (*wrt, *statistics), upstream_of_argument)
        for leaf, slope in slopes.items():
            through[leaf] = build("add", through[leaf], slope) if leaf in through else slope
    return {leaf: through.get(leaf, ZERO) for leaf in wrt}


def _transposed(statistic: Statistic, g: Node) -> Node:
    """The gradient that reaches the argument when `g` reaches the statistic."""
    z, over = statistic.argument, statistic.over
    mean_g = g if isinstance(g, Number) else Statistic("mean", g, over)
    centred = build("sub", z, Statistic("mean", z, over))
    spread = Call("max", (statistic, Number(_SMALLEST_SPREAD)))
    match statistic.kind:
        case "mean":
            return mean_g
        case "var":
            return build("mul", build("mul", Number(2.0), centred), mean_g)
        case "std":
            return build("mul", build("div", centred, spread), mean_g)
        case _:
            return build("mul", build("div", z, spread), mean_g)


def _slopes(body: Node, wrt: tuple[Node, ...], upstream: Node) -> dict[Node, Node]:
    """Pointwise reverse mode: upstream * d(body)/d(leaf); statistics are leaves."""
    if body in wrt:
        return {body: upstream}
    order = dict.fromkeys(_depends(body, frozenset(wrt)))
    adjoint: dict[Node, Node] = {body: upstream} if order else {}
    found: dict[Node, Node] = {}
    for node in reversed(order):
        if node not in adjoint:
            continue
        g = adjoint.pop(node)
        match node:
            case Call("select", (condition, left, right)):
                a, b = _slopes(left, wrt, g), _slopes(right, wrt, g)
                for leaf in dict.fromkeys((*a, *b)):
                    choice = (condition, a.get(leaf, ZERO), b.get(leaf, ZERO))
                    _add(found, leaf, build("select", *choice))
            case Call(function, arguments):
                for index, argument in enumerate(arguments):
                    if argument in wrt or argument in order:
                        rule = _rule(function, index, arguments)
                        if rule != ZERO:
                            target = found if argument in wrt else adjoint
                            _add(target, argument, _times(g, rule))
    return found


def _depends(body: Node, wrt: frozenset[Node]) -> Iterable[Node]:
    """The calls of `body` that depend on a leaf, children first, without branches of choices."""
    inside: dict[Node, bool] = {}

    def visit(node: Node) -> bool:
        if node in inside:
            return inside[node]
        if node in wrt:
            return True
        if not isinstance(node, Call):
            return False
        if node.function == "select":
            depends = any(_reaches(branch, wrt) for branch in node.arguments[1:])
        else:
            depends = any([visit(argument) for argument in node.arguments])
        inside[node] = depends
        return depends

    visit(body)
    return [node for node, depends in inside.items() if depends]


def _reaches(node: Node, wrt: frozenset[Node]) -> bool:
    return node in wrt or any(_reaches(child, wrt) for child in children_of_call(node))


def children_of_call(node: Node) -> tuple[Node, ...]:
    """The arguments of a call; a statistic is opaque to a pointwise pass."""
    return children(node) if isinstance(node, Call) else ()


def _add(table: dict[Node, Node], key: Node, term: Node) -> None:
    table[key] = build("add", table[key], term) if key in table else term


def _times(g: Node, rule: Node) -> Node:
    if g == ONE:
        return rule
    if rule == ONE:
        return g
    if isinstance(rule, Call) and rule.function == "div" and rule.arguments[0] == ONE:
        return build("div", g, rule.arguments[1])
    return build("mul", g, rule)


def _rule(function: str, index: int, arguments: tuple[Node, ...]) -> Node:
    names: Mapping[Node, Node] = dict(zip(_PLACES, arguments, strict=False))
    return simplify(substitute(rule_node(function, index), names))


_PLACES = (Parameter("a"), Parameter("b"), Parameter("c"))


@cache
def rule_node(function: str, index: int) -> Node:
    """The table's derivative rule of a primitive by its argument, over `a`, `b`, `c`."""
    text = PRIMITIVES[function].derivatives[index]
    return parse_node(text, ("a", "b", "c"), f"derivative of {function}")


def input_leaves(expression: Expression) -> tuple[Node, ...]:
    """The inputs of the expression as leaves: `(x,)` or `(x, u)`."""
    return tuple(Input(name) for name in expression.inputs)


def parameter_leaves(expression: Expression) -> tuple[Node, ...]:
    """The trainable parameters of the expression as leaves, in order of declaration."""
    return tuple(Parameter(p.name) for p in expression.trainable)
