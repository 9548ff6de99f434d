"""Lowering: an expression becomes straight-line programs, one forward and one backward.

    expression → gradients (reverse mode, table rules) → peepholes → value numbering → Program

A program is a list of operations on named values; equal subformulas are one value. It says nothing
of torch, C or Triton: each rendering (`torch_code.py`, …) is a table column plus a template. The
backward recomputes what it needs from the inputs and parameters, the only values ever saved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from search.language.derivative import gradients, input_leaves, parameter_leaves
from search.language.expression import (
    DY,
    Call,
    Expression,
    Input,
    Node,
    Number,
    Over,
    Parameter,
    Statistic,
    map_nodes,
    walk,
)
from search.language.simplify import ONE, ZERO, build, fold_constants, fold_fixed

Value = str | float
"""The name of a value, or a literal."""


@dataclass(frozen=True, slots=True)
class Operation:
    """`target = function(*arguments)`; a statistic also says over what it reduces."""

    target: str
    function: str
    arguments: tuple[Value, ...]
    over: Over | None = None
    detach: bool = field(default=False, repr=False)
    """Whether a statistic is a constant to torch's own derivative too, as it is to ours."""


@dataclass(frozen=True, slots=True)
class Program:
    """Operations in order, each using inputs, parameters and earlier targets."""

    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Lowered:
    """The two programs of an activation.

    forward: inputs (x[, u]) → one output. backward: inputs (dy, x[, u]) → the gradient of every
    input, then of every trainable parameter (elementwise: a rendering reduces it to the
    parameter's shape).
    """

    forward: Program
    backward: Program
    key: str = field(compare=False)
    """A hash of both programs; names everything that is built from them."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What the outputs of a program are."""

    tensors: int
    """How many, the first, have a value an element; the others are summed."""
    initial: Mapping[str, float]
    """Parameter → the number that training starts from."""


Rewrite = Callable[[tuple[Node, ...], Origin], tuple[Node, ...]]


def lower(expression: Expression, rewrite: Rewrite | None = None) -> Lowered:
    """Both programs of an expression; its penalty is an expression of its own.

    rewrite: a rendering's own pass over the outputs of a program, after the peepholes; it may call
    functions that only that rendering knows.
    """
    folded = fold_fixed(expression)
    inputs, parameters = input_leaves(folded), parameter_leaves(folded)
    slopes, initial = _gradients(folded, (*inputs, *parameters)), folded.initial
    declared = tuple(p.name for p in parameters if isinstance(p, Parameter))
    value, slope = (
        _optimised(outputs, rewrite, Origin(tensors, initial))
        for outputs, tensors in (((folded.body,), 1), (slopes, len(inputs)))
    )
    forward = numbered(value, expression.inputs, declared)
    backward = numbered(slope, ("dy", *expression.inputs), declared)
    key = hashlib.sha256(repr((forward, backward)).encode()).hexdigest()[:16]
    return Lowered(forward, backward, key)


def _gradients(expression: Expression, leaves: tuple[Node, ...]) -> tuple[Node, ...]:
    """One gradient a leaf; dy comes in once, at the end, unless it goes through a statistic."""
    if any(isinstance(node, Statistic) and not node.detach for node in walk(expression.body)):
        slopes = gradients(expression, leaves)
        return tuple(slopes[leaf] for leaf in leaves)
    slopes = gradients(expression, leaves, ONE)
    return tuple(s if s == ZERO else build("mul", DY, s) for s in map(slopes.get, leaves) if s)


def penalty_expression(expression: Expression) -> Expression | None:
    """The penalty as an expression that uses the same trainable parameters, or None."""
    if expression.penalty is None:
        return None
    return Expression(expression.penalty, expression.parameters)


def _optimised(
    outputs: tuple[Node, ...], rewrite: Rewrite | None, origin: Origin
) -> tuple[Node, ...]:
    optimised = tuple(peepholes(fold_constants(output)) for output in outputs)
    return rewrite(optimised, origin) if rewrite else optimised


def numbered(
    outputs: tuple[Node, ...], inputs: tuple[str, ...], parameters: tuple[str, ...]
) -> Program:
    """The program of some formulas: one operation for every distinct part of them."""
    names: dict[Node, Value] = {}
    operations: list[Operation] = []
    for output in outputs:
        for node in walk(output):
            if node not in names:
                names[node] = _number_value(node, names, operations, parameters)
    return Program(inputs, parameters, tuple(operations), tuple(names[o] for o in outputs))


def _number_value(
    node: Node,
    names: dict[Node, Value],
    operations: list[Operation],
    parameters: tuple[str, ...],
) -> Value:
    """The value of a node whose children have theirs; appends the operation that makes it."""
    target = f"t{len(operations)}"
    while target in parameters:  # a parameter may be called t3
        target += "_"
    match node:
        case Number(value):
            return value
        case Input(name) | Parameter(name):
            return name
        case Statistic(kind, argument, over, detach):
            operations.append(Operation(target, kind, (names[argument],), over, detach))
            return target
        case Call(function, arguments):
            values = tuple(names[a] for a in arguments)
            operations.append(Operation(target, function, values))
            return target
    raise AssertionError(f"{node} should have been folded")


def needed(operations: tuple[Operation, ...], outputs: tuple[Value, ...]) -> tuple[Operation, ...]:
    """Those operations, in their order, that the outputs come of."""
    used, kept = set(map(str, outputs)), list[Operation]()
    for operation in reversed(operations):
        if operation.target in used:
            used.update(map(str, operation.arguments))
            kept.append(operation)
    return tuple(reversed(kept))


# --- peepholes ---------------------------------------------------------------------------------

_LARGEST_PRODUCT = 8  # x**8 is three multiplications; beyond, torch.pow is as quick


def peepholes(node: Node) -> Node:
    """Local rewrites that keep values: whole powers as products, literals as second operands."""
    return map_nodes(node, _peephole)


def _peephole(node: Node) -> Node:
    match node:
        case Call("pow", (base, Number(2.0))):
            return Call("mul", (base, base))
        case Call("pow", (base, Number(exponent))) if _is_small_whole(exponent):
            half = _peephole(Call("pow", (base, Number(float(exponent // 2)))))
            square = Call("mul", (half, half))
            return square if exponent % 2 == 0 else Call("mul", (square, base))
        case Call("pow", (base, Number(1.0))):
            return base
        case Call("pow", (base, Number(0.5))):
            return Call("sqrt", (base,))
        case Call("pow", (base, Number(-0.5))):
            return Call("rsqrt", (base,))
        case Call("pow", (base, Number(-1.0))):
            return build("div", Number(1.0), base)
        case Call("div", (Number(1.0), Call("sqrt", (argument,)))):
            return Call("rsqrt", (argument,))
        case Call("max" | "min" as function, (Number() as literal, other)):
            return Call(function, (other, literal))
        case _:
            return node


def _is_small_whole(exponent: float) -> bool:
    return exponent == int(exponent) and 3 <= exponent <= _LARGEST_PRODUCT
