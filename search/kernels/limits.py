"""Limits at infinity: x is held to finite numbers where a formula is 0 * inf and has a limit.

At -inf, x * gompertz(x) is -inf * 0 to IEEE arithmetic, NaN, where the function goes to 0; its
slope is NaN at both ends. Read as max(x, -B) there, the formula gives the limit, and changes no
other number if it has come to that limit at -B. Whether it has is measured, not derived: every part
of the formula is computed with |x| about 1e18 (float64) and infinite (float32), for parameters of
either sign.

    a part that has a limit     reads the held x, and so do all of its own parts
    one that grows without end  reads x itself; its parts that do not grow, the held one
    one with neither            as before, but for its parts

The result is compared with the formula as it was and dropped where any number is worse. Where
parameters decide whether there is a limit (the value of swish, by the sign of its beta; that of
dynActivation, whose beta starts at 0) a rendering may ask them at each call: its x is held if the
part is small at 1e18. NaN stays where the function has no limit (x * sin(x)), where float32
overflows on the way (a ratio of polynomials), and where u is infinite. A formula with statistics is
left alone: the mean of an infinite element is infinite.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from search.kernels.ends import (
    AGREE,
    BOTH,
    LARGE,
    Ends,
    Sides,
    far,
    infinite,
    limits_of,
    values_at,
)
from search.kernels.products import factor_inputs
from search.kernels.program import Origin
from search.language.expression import (
    Call,
    Input,
    Node,
    Number,
    Statistic,
    X,
    children,
    map_nodes,
    walk,
)

FAR = (1e18, 1e9)
"""Where x is held, whatever the parameters are; the second is for formulas whose x**3 overflows."""


def hold_limits(outputs: tuple[Node, ...], origin: Origin) -> tuple[Node, ...]:
    """The outputs of one program, with the limits at ±inf that their functions have.

    Of the outputs that are summed those that have a limit at one end alone stay NaN there: a clamp
    that others do not share would be for a sum with an infinite x.
    """
    return hold_limits_near(outputs, origin, (), asked=False)


def hold_limits_near(
    outputs: tuple[Node, ...], origin: Origin, near: tuple[float, ...], asked: bool = True
) -> tuple[Node, ...]:
    """The same, held at the first of the bounds `near` that serves, or at one of FAR.

    They are for parts of the formula without parameters, where all have come to their limits, and
    save a rendering the clamps that it would need otherwise.
    asked: whether what has a limit for some parameters alone asks them at each call (a few
    operations on numbers, before those on tensors).
    """
    factored = (map_nodes(output, factor_inputs) for output in outputs[: origin.tensors])
    outputs = *factored, *outputs[origin.tensors :]  # sums have products in common
    nodes = list(dict.fromkeys(n for output in outputs for n in walk(output)))
    if X not in nodes or any(isinstance(n, Statistic) for n in nodes):
        return outputs
    with ThreadPoolExecutor(1) as pool:  # where no mode of the caller's (fake tensors, meta) is on
        return pool.submit(_best, outputs, origin, (*near, *FAR), asked).result()


def _best(
    outputs: tuple[Node, ...], origin: Origin, bounds: tuple[float, ...], asked: bool
) -> tuple[Node, ...]:
    """Of all ways to hold x the first that gains the most."""
    ends = Ends.of(list(dict.fromkeys(n for output in outputs for n in walk(output))), origin)
    best, most = outputs, 0
    for asks in (True, False) if asked else (False,):
        lost = [any(p.lost[k] or (asks and p.mixed[k]) for p in ends.values()) for k in BOTH]
        for low, high in ((True, True), (True, False), (False, True)):
            if (low and not lost[0]) or (high and not lost[1]):
                continue
            for bound in bounds:
                held = _held(outputs, origin, _Holding(ends, (low, high), bound, False, asks))
                if bound not in FAR and not _has_settled(held, bound, origin):
                    continue
                if (gained := _gained(held, outputs, origin, bound)) > most:
                    best, most = held, gained
                if gained:
                    break
    return best


def _held(outputs: tuple[Node, ...], origin: Origin, holding: _Holding) -> tuple[Node, ...]:
    of_sums = replace(holding, whole=True, asks=False, _done={})
    return (
        *map(holding.held, outputs[: origin.tensors]),
        *map(of_sums.held, outputs[origin.tensors :]),
    )


def _functions(outputs: tuple[Node, ...]) -> int:
    """The values of every element that take more than a multiplication, and what they are of (sin
    and cos share the reduction of one angle): a rewrite should take none twice."""
    nodes = {n for output in outputs for n in walk(output) if isinstance(n, Call)}
    dear = [n for n in nodes if n.function not in _CHEAP and X in walk(n)]
    return len(dear) + len({node.arguments for node in dear})


_CHEAP = ("add", "sub", "mul", "neg", "max", "min", "clip")


# --- holding -----------------------------------------------------------------------------------

Bounds = tuple[Node | None, Node | None]
"""The least and the most that a part takes for x; None: x itself."""


@dataclass(frozen=True, slots=True)
class _Holding:
    """One way to hold x: at which ends, and where."""

    ends: dict[Node, Ends]
    sides: Sides
    bound: float
    whole: bool
    """Hold x at all of these ends or at none."""
    asks: bool
    """Hold it by what the parameters are, where they decide."""
    _done: dict[tuple[Node, Bounds], Node] = field(default_factory=dict)

    def held(self, node: Node, given: Bounds = (None, None)) -> Node:
        """A part of which the one above it asks for the held x, where it gives bounds."""
        low, high = (self._bound(node, given[k], k) if self.sides[k] else None for k in BOTH)
        if self.whole and any(self.sides[k] and not (low, high)[k] for k in BOTH):
            low = high = None
        key = node, (low, high)
        if key not in self._done:
            self._done[key] = node
            if node == X:
                self._done[key] = _held_x(low, high)
            elif isinstance(node, Call):
                arguments = tuple(self._argument(node, a, (low, high)) for a in node.arguments)
                self._done[key] = Call(node.function, arguments)
        return self._done[key]

    def _bound(self, node: Node, given: Node | None, side: int) -> Node | None:
        part, own = self.ends[node], Number((-self.bound, self.bound)[side])
        if part.finite[side]:
            return given if given and not part.lost[side] else own
        if given or not (self.asks and part.mixed[side]) or _is_tied(node):
            return given
        return _asked_of_parameters(node, side)

    def _argument(self, above: Node, node: Node, bounds: Bounds) -> Node:
        """A part of `above`; what that has lost while it grows without end is of what does not
        grow, the sine of x + sin(x), which reads the held x."""
        if not self.whole:
            ends, part = self.ends[node], self.ends[above]
            low, high = (
                Number((-self.bound, self.bound)[k])
                if not bounds[k] and part.endless[k] and part.lost[k] and not ends.endless[k]
                else bounds[k]
                for k in BOTH
            )
            bounds = low, high
        return self.held(node, bounds)


def _held_x(low: Node | None, high: Node | None) -> Node:
    if isinstance(low, Number) and isinstance(high, Number):
        return Call("clip", (X, low, high))
    least = Call("max", (X, low)) if low else X
    return Call("min", (least, high)) if high else least


def _is_tied(node: Node) -> bool:
    """Whether a part is of u or dy too."""
    return any(isinstance(n, Input) and n != X for n in walk(node))


def _asked_of_parameters(node: Node, side: int) -> Node:
    """Where to hold the x of a part: far out if it is small there, else nowhere."""
    held, nowhere = (Number(size * (-1, 1)[side]) for size in (FAR[0], torch.inf))
    there = map_nodes(node, lambda n: held if n == X else n)
    small = Call("lt", (Call("abs", (there,)), Number(LARGE)))
    return Call("select", (small, held, nowhere))


def held_at(node: Node) -> tuple[float, float] | None:
    """The least and most that a node of `hold_limits` gives, or None for any other node."""
    match node:
        case Call("clip", (Input("x"), Number(least), Number(most))):
            return least, most
        case Call("max", (Input("x"), Number(least))):
            return least, torch.inf
        case Call("min", (Input("x"), Number(most))):
            return -torch.inf, most
        case _:
            return None


# --- what came of it ---------------------------------------------------------------------------


def _gained(held: tuple[Node, ...], outputs: tuple[Node, ...], origin: Origin, bound: float) -> int:
    """How many NaN of tensors became limits; 0 where a function is taken twice or any number is
    worse, but that a sum may be infinite instead of NaN."""
    if _functions(held) > _functions(outputs):
        return 0
    limits = [limits_of(values) for values in values_at(outputs, far(), torch.float64, origin)]
    there, before = (values_at(n, infinite(), torch.float32, origin) for n in (held, outputs))
    gained = 0
    for k, (value, old, limit) in enumerate(zip(there, before, limits, strict=True)):
        near = (value - limit).abs() <= AGREE * limit.abs().clamp_min(1.0)
        right = near | (value == limit) | (value == old) | (value.isnan() & old.isnan())
        endless = ~value.isfinite() & ~old.isfinite() & (k >= origin.tensors)
        if not bool((right | endless).all()):
            return 0
        gained += int((old.isnan() & ~value.isnan()).sum()) if k < origin.tensors else 0
    return gained if _is_as_good(held, outputs, origin, _sizes(bound)[::8]) else 0


def _is_as_good(
    held: tuple[Node, ...], outputs: tuple[Node, ...], origin: Origin, sizes: Tensor
) -> bool:
    """Whether float32 gives at finite numbers that are held what it gave before."""
    x = torch.cat([-sizes, sizes])
    new, old = (values_at(n, x, torch.float32, origin) for n in (held, outputs))
    right = values_at(outputs, x, torch.float64, origin)
    for value, before, exact in zip(new, old, right, strict=True):
        error, own = (value - exact).abs(), (before - exact).abs()
        allowed = AGREE * exact.abs().clamp_min(1.0) + 2 * own + _SETTLED * x.abs()
        if bool((own.isfinite() & ~(error <= allowed)).any()):
            return False
    return True


def _spread(low: int, high: int, points: int) -> Tensor:
    return torch.logspace(low, high, points, dtype=torch.float64, device="cpu")


def _sizes(bound: float) -> Tensor:
    """Numbers beyond a bound, 0.3 % apart up to a million."""
    sizes = torch.cat([_spread(1, 6, 4096), _spread(6, 20, 64)])
    return sizes[sizes > bound]


_SETTLED = 1e-12
_MODERATE = 32.0
"""The largest literal of a part held near: what it could do at 5,000 would be too narrow to see."""


def _has_settled(held: tuple[Node, ...], bound: float, origin: Origin) -> bool:
    """Whether the largest parts without parameters give what they would of x itself."""
    beyond = _sizes(bound)
    beyond = beyond[beyond < FAR[0]]
    x = torch.cat([-beyond, beyond])
    if not (parts := _alone(held, bound)):
        return True
    literals = {abs(n.value) for part in parts for n in walk(part) if isinstance(n, Number)}
    if max(literals - {bound}, default=0.0) > _MODERATE:
        return False
    free = [map_nodes(part, lambda n: X if _is_held(n, bound) else n) for part in parts]
    pairs = zip(*(values_at(n, x, torch.float64, origin) for n in (parts, free)), strict=True)
    allowed = _SETTLED * x.abs()
    return all(bool(((a - b).abs() <= allowed).all()) for a, b in pairs)


def _is_held(node: Node, bound: float) -> bool:
    return bound in map(abs, held_at(node) or ())


def _alone(outputs: tuple[Node, ...], bound: float) -> list[Node]:
    """The largest parts that read the held x, and no parameter, u or dy."""
    alone, found = dict[Node, bool](), dict[Node, None]()
    for output in outputs:
        for node in walk(output):
            below = children(node)
            alone[node] = node == X or isinstance(node, Number) or _all_of(below, alone)
            if not alone[node]:
                found |= dict.fromkeys(n for n in below if alone[n])
        if alone[output]:
            found[output] = None
    return [node for node in found if any(_is_held(n, bound) for n in walk(node))]


def _all_of(nodes: tuple[Node, ...], alone: dict[Node, bool]) -> bool:
    return bool(nodes) and all(alone[node] for node in nodes)
