"""Two passes: `simplify` keeps every value, `canonical` gives equal formulas one shape.

`simplify` folds constants and drops neutral elements, and never reorders: what it returns is safe
to run. `canonical` orders commutative arguments and collects equal terms; it is for display,
structural keys and comparison, not for kernels (a reordered Mish overflows at w·x/(w+2)).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from search.language.evaluate import CONSTANT_VALUES, evaluate
from search.language.expression import (
    Call,
    Constant,
    Expression,
    Input,
    Node,
    Number,
    Parameter,
    map_nodes,
    text,
)

ZERO, ONE = Number(0.0), Number(1.0)


def simplify(node: Node) -> Node:
    """Constants folded, neutral elements dropped; the same value to the last bit or nearly so."""
    return fold(node, {})


def build(function: str, *arguments: Node) -> Node:
    """`Call(function, arguments)` after the local rules; 0 * x is kept, so that NaN stays NaN."""
    if all(isinstance(a, Number) for a in arguments):
        folded = float(evaluate(Call(function, arguments), {}))
        if math.isfinite(folded):
            return Number(folded)
    match function, arguments:
        case "add", (Number(0.0), other):
            return other
        case (("add" | "sub"), (other, Number(0.0))):
            return other
        case "sub", (Number(0.0), other):
            return build("neg", other)
        case "mul", (Number(1.0), other):
            return other
        case (("mul" | "div" | "pow"), (other, Number(1.0))):
            return other
        case "mul", (Number(-1.0), other):
            return build("neg", other)
        case (("mul" | "div"), (other, Number(-1.0))):
            return build("neg", other)
        case "mul", (Call("neg", (left,)), Call("neg", (right,))):
            return build("mul", left, right)
        case "mul", (Call("neg", (left,)), right):
            return build("neg", build("mul", left, right))
        case "mul", (left, Call("neg", (right,))):
            return build("neg", build("mul", left, right))
        case "add", (left, Call("neg", (right,))):
            return build("sub", left, right)
        case "sub", (left, Call("neg", (right,))):
            return build("add", left, right)
        case "neg", (Call("neg", (inner,)),):
            return inner
        case "neg", (Call("sub", (left, right)),):
            return build("sub", right, left)
        case "max", (other, Number(0.0)):
            return Call("relu", (other,))
        case "max", (Number(0.0), other):
            return Call("relu", (other,))
        case "select", (Number(condition), left, right):
            return left if condition else right
        case "select", (_, left, right) if left == right:
            return left
    return Call(function, arguments)


def fold_fixed(expression: Expression) -> Expression:
    """The expression with its `fixed` parameters written as numbers."""
    numbers: dict[Node, Node] = {
        Parameter(p.name): Number(p.initial) for p in expression.parameters if p.scope == "fixed"
    }
    penalty = fold(expression.penalty, numbers) if expression.penalty else None
    return Expression(fold(expression.body, numbers), expression.trainable, penalty)


def fold_constants(node: Node) -> Node:
    """The formula with `pi` and `e` written as numbers."""
    return fold(node, {Constant(name): Number(value) for name, value in CONSTANT_VALUES.items()})


def fold(node: Node, numbers: Mapping[Node, Node]) -> Node:
    """`simplify` with some leaves replaced by numbers on the way."""

    def step(node: Node) -> Node:
        node = numbers.get(node, node)
        return build(node.function, *node.arguments) if isinstance(node, Call) else node

    return map_nodes(node, step)


# --- canonical form ----------------------------------------------------------------------------


def canonical(node: Node) -> Node:
    """One shape for formulas that differ in order, grouping or repeated terms.

    Sums become `c1*t1 + c2*t2 + …`, products `c * f1**n1 * f2**n2 …`, sorted by their text.
    """
    return map_nodes(simplify(node), _canonical_step)


def canonical_expression(expression: Expression) -> Expression:
    """`canonical` body with the fixed parameters folded, the others kept as declared."""
    folded = fold_fixed(expression)
    penalty = canonical(folded.penalty) if folded.penalty else None
    return Expression(canonical(folded.body), folded.parameters, penalty)


def _canonical_step(node: Node) -> Node:
    match node:
        case Call("add" | "sub" | "neg"):
            return _rebuild_sum(_terms(node, 1.0)) or node
        case Call("mul" | "div" | "pow"):
            return _rebuild_product(_factors(node, 1.0)) or node
        case Call("max" | "min" as function, arguments):
            return Call(function, tuple(sorted(arguments, key=text)))
        case _:
            return node


def _terms(node: Node, sign: float) -> list[tuple[float, Node]]:
    """The node as a sum of (coefficient, term)."""
    match node:
        case Call("add", (left, right)):
            return _terms(left, sign) + _terms(right, sign)
        case Call("sub", (left, right)):
            return _terms(left, sign) + _terms(right, -sign)
        case Call("neg", (inner,)):
            return _terms(inner, -sign)
        case Number(value):
            return [(sign * value, ONE)]
        case Call("mul", (Number(value), inner)):
            return [(sign * value * c, t) for c, t in _terms(inner, 1.0)]
        case _:
            return [(sign, node)]


def _rebuild_sum(terms: list[tuple[float, Node]]) -> Node | None:
    """The sum with equal terms collected; None when a coefficient overflows."""
    collected: dict[Node, float] = {}
    for coefficient, term in terms:
        collected[term] = collected.get(term, 0.0) + coefficient
    if not all(map(math.isfinite, collected.values())):
        return None
    ordered = sorted(((t, c) for t, c in collected.items() if c != 0), key=lambda p: _order(p[0]))
    total: Node = ZERO
    for term, coefficient in ordered:
        piece = build("mul", Number(abs(coefficient)), term)
        total = build("add" if coefficient > 0 else "sub", total, piece)
    return total


def _order(term: Node) -> tuple[bool, str]:
    """Constants last, the others by their text."""
    return (term == ONE, text(term))


def _factors(node: Node, power: float) -> list[tuple[float, Node]]:
    """The node as a product of (power, base); a literal is a base of power ±1."""
    match node:
        case Call("mul", (left, right)):
            return _factors(left, power) + _factors(right, power)
        case Call("div", (left, right)):
            return _factors(left, power) + _factors(right, -power)
        case Call("neg", (inner,)):
            return [(power, Number(-1.0)), *_factors(inner, power)]
        # (a**m)**n is a**(m*n) for whole numbers only: sqrt(x**2) is |x|.
        case Call("pow", (base, Number(exponent))) if _is_whole(exponent, power):
            return _factors(base, power * exponent)
        case _:
            return [(power, node)]


def _is_whole(*exponents: float) -> bool:
    return all(n == int(n) and abs(n) <= 1e6 for n in exponents)


def _rebuild_product(factors: list[tuple[float, Node]]) -> Node | None:
    """The product with equal bases collected; None when its literals over- or underflow."""
    coefficient, powers = 1.0, dict[Node, float]()
    for power, base in factors:
        if isinstance(base, Number) and base.value != 0:
            with np.errstate(all="ignore"):
                coefficient *= float(np.float64(base.value) ** power)
        else:
            powers[base] = powers.get(base, 0.0) + power
    if not math.isfinite(coefficient) or coefficient == 0:
        return None
    above = [_power(b, p) for b, p in sorted(powers.items(), key=_factor_order) if p > 0]
    below = [_power(b, -p) for b, p in sorted(powers.items(), key=_factor_order) if p < 0]
    scaled = build("mul", Number(coefficient), _product(above))
    return build("div", scaled, _product(below)) if below else scaled


def _factor_order(item: tuple[Node, float]) -> tuple[int, str]:
    """Parameters, then the inputs, then functions: `alpha * x * gompertz(x)`."""
    base = item[0]
    rank = 0 if isinstance(base, Parameter) else 1 if isinstance(base, Input) else 2
    return rank, text(base)


def _power(base: Node, exponent: float) -> Node:
    return build("pow", base, Number(exponent))


def _product(factors: list[Node]) -> Node:
    product: Node = ONE
    for factor in factors:
        product = build("mul", product, factor)
    return product


def same_shape(left: Expression, right: Expression) -> bool:
    """Whether two expressions have one canonical form."""
    a, b = canonical_expression(left), canonical_expression(right)
    return (a.body, a.parameters, a.penalty) == (b.body, b.parameters, b.penalty)
