"""The nodes of a formula: frozen, hashable values, and their text.

A formula is a tree of six kinds of node. Every pass over it (derivative, simplification, LaTeX,
evaluation, lowering) is a function with `match` in a file of its own. The text of a node parses
back to an equal node: `parse(str(e)) == e`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

Scope = Literal["layer", "channel", "fixed"]
Over = Literal["features", "sample", "tensor"]

STATISTICS = ("mean", "var", "std", "rms")
OVER: tuple[Over, ...] = ("features", "sample", "tensor")


@dataclass(frozen=True, slots=True)
class Number:
    """A literal."""

    value: float

    def __str__(self) -> str:
        return text(self)


@dataclass(frozen=True, slots=True)
class Constant:
    """A named constant: `pi` or `e`."""

    name: str

    def __str__(self) -> str:
        return text(self)


@dataclass(frozen=True, slots=True)
class Input:
    """`x`, the second input `u` of a gated pair, or `dy` in a backward formula."""

    name: str

    def __str__(self) -> str:
        return text(self)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A name declared in `where`."""

    name: str

    def __str__(self) -> str:
        return text(self)


@dataclass(frozen=True, slots=True)
class Call:
    """A primitive of the table applied to nodes; `a + b` is the primitive `add`."""

    function: str
    arguments: tuple[Node, ...]
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Kept, so that a dictionary look-up in a deep formula costs one step and not the tree.
        object.__setattr__(self, "_hash", hash((self.function, self.arguments)))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[Call], tuple[Any, ...]]:
        return Call, (self.function, self.arguments)  # a hash of text is its own process's

    def __str__(self) -> str:
        return text(self)


@dataclass(frozen=True, slots=True)
class Statistic:
    """`mean`, `var`, `std` (population) or `rms` of a node over a part of the tensor.

    `features` reduces the channel dimension, `sample` everything but the batch dimension, `tensor`
    everything. With `detach` it is a constant to the derivative.
    """

    kind: str
    argument: Node
    over: Over = "features"
    detach: bool = False
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.kind, self.argument, self.over, self.detach)))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[Statistic], tuple[Any, ...]]:
        return Statistic, (self.kind, self.argument, self.over, self.detach)

    def __str__(self) -> str:
        return text(self)


Node = Number | Constant | Input | Parameter | Call | Statistic


@dataclass(frozen=True, slots=True)
class Declaration:
    """`alpha = 1 per layer`: a trainable number per layer or per channel, or a named constant."""

    name: str
    initial: float
    scope: Scope

    def __str__(self) -> str:
        suffix = "fixed" if self.scope == "fixed" else f"per {self.scope}"
        return f"{self.name} = {number_text(self.initial)} {suffix}"


@dataclass(frozen=True)
class Expression:
    """One complete activation: body, declared parameters in order, and an optional penalty.

    The penalty is a formula whose value, averaged over the tensor, a training loop adds to its
    loss (VeLU's Wasserstein-2 term).
    """

    body: Node
    parameters: tuple[Declaration, ...] = ()
    penalty: Node | None = None

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """`("x",)`, or `("x", "u")` for a gated pair."""
        used = {node.name for node in leaves(self.body) if isinstance(node, Input)}
        return ("x", "u") if "u" in used else ("x",)

    @cached_property
    def trainable(self) -> tuple[Declaration, ...]:
        """The declarations that a model learns."""
        return tuple(p for p in self.parameters if p.scope != "fixed")

    @cached_property
    def initial(self) -> dict[str, float]:
        """Every declared name with its initial value."""
        return {p.name: p.initial for p in self.parameters}

    def __str__(self) -> str:
        clauses = ", ".join(str(p) for p in self.parameters)
        where = f" where {clauses}" if clauses else ""
        return f"{self.body}{where}" + (f" penalty {self.penalty}" if self.penalty else "")


X, U, DY = Input("x"), Input("u"), Input("dy")


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below."""
    match node:
        case Call(arguments=arguments):
            return arguments
        case Statistic(argument=argument):
            return (argument,)
        case _:
            return ()


def walk(node: Node) -> Iterator[Node]:
    """Every distinct node of the formula, children before parents."""
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(node, False)]
    while stack:
        current, expanded = stack.pop()
        if expanded:
            if current not in seen:
                seen.add(current)
                yield current
        elif current not in seen:
            stack.append((current, True))
            stack.extend((child, False) for child in reversed(children(current)))


def leaves(node: Node) -> Iterator[Node]:
    """The inputs and parameters of the formula, in order of first appearance."""
    return (n for n in walk(node) if isinstance(n, Input | Parameter))


def map_nodes(node: Node, replace: Callable[[Node], Node]) -> Node:
    """The formula rebuilt from the leaves up with every node passed through `replace`."""
    rebuilt: dict[Node, Node] = {}
    for old in walk(node):
        match old:
            case Call(function, arguments):
                new: Node = Call(function, tuple(rebuilt[a] for a in arguments))
            case Statistic(kind, argument, over, detach):
                new = Statistic(kind, rebuilt[argument], over, detach)
            case _:
                new = old
        rebuilt[old] = replace(new)
    return rebuilt[node]


def substitute(node: Node, replacement: Mapping[Node, Node]) -> Node:
    """The formula with every occurrence of a key replaced by its value."""
    return map_nodes(node, lambda n: replacement.get(n, n))


# --- text --------------------------------------------------------------------------------------

INFIX = {"add": ("+", 2), "sub": ("-", 2), "mul": ("*", 3), "div": ("/", 3), "pow": ("**", 5)}
COMPARISONS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_UNARY, _ATOM = 4, 9


def number_text(value: float) -> str:
    """The shortest text that reads back as the same number; whole numbers without a point."""
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return repr(value)


def text(node: Node) -> str:
    """The node in the language."""
    return _text(node)[0]


def _text(node: Node) -> tuple[str, int]:
    """Text and precedence."""
    match node:
        case Number(value):
            return number_text(value), _UNARY if value < 0 else _ATOM
        case Constant(name) | Input(name) | Parameter(name):
            return name, _ATOM
        case Statistic(kind, argument, over, detach):
            options = ("" if over == "features" else f", over={over}") + (
                ", detach=True" if detach else ""
            )
            return f"{kind}({text(argument)}{options})", _ATOM
        case Call("neg", (operand,)):
            return f"-{_wrapped(operand, _UNARY)}", _UNARY
        case Call(function, (left, right)) if function in INFIX:
            return _infix(function, left, right)
        case Call(function, (left, right)) if function in COMPARISONS:
            return f"{text(left)} {COMPARISONS[function]} {text(right)}", 1
        case Call(function, arguments):
            return f"{function}({', '.join(text(a) for a in arguments)})", _ATOM


def _infix(function: str, left: Node, right: Node) -> tuple[str, int]:
    symbol, precedence = INFIX[function]
    if function == "pow":  # binds to the right, and tighter than a sign on its left
        return f"{_wrapped(left, _ATOM)} {symbol} {_wrapped(right, _UNARY)}", precedence
    return f"{_wrapped(left, precedence)} {symbol} {_wrapped(right, precedence + 1)}", precedence


def _wrapped(node: Node, least: int) -> str:
    inner, precedence = _text(node)
    return inner if precedence >= least else f"({inner})"
