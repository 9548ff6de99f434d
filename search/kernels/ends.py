"""What the parts of a formula do as x goes to infinity, by computing them there and far out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from search.kernels.build import load_source
from search.kernels.program import Origin
from search.kernels.torch_code import render_primitives
from search.language.expression import Call, Input, Node, Number, Parameter, X, walk

Sides = tuple[bool, bool]
"""Something of -inf, and of inf."""
BOTH = (0, 1)
LARGE = 1e9
"""What is beyond it where |x| is 1e18 grows without end."""
AGREE = 1e-6
"""How near values far out are that have one limit, of max(1, their size)."""
_DRAWS, _POINTS = 8, 8


@dataclass(frozen=True, slots=True)
class Ends:
    """One part's behaviour as x goes to -inf, and to inf, for all the parameters that are tried."""

    finite: Sides
    """It has a limit for all of them."""
    endless: Sides
    """It grows without end for all of them."""
    lost: Sides
    """Finite or endless, and NaN to float32 at the infinite x."""
    mixed: Sides
    """It has a limit, which is lost, for some of them alone, those of training's start included."""

    @staticmethod
    def of(nodes: Sequence[Node], origin: Origin) -> dict[Node, Ends]:
        found = dict[Node, Ends]()
        limits = map(limits_of, values_at(nodes, far(), torch.float64, origin))
        there = values_at(nodes, infinite(), torch.float32, origin)
        for node, limit, value in zip(nodes, limits, there, strict=True):
            drawn = limit[:_DRAWS]
            finite, endless = drawn.isfinite().all(0), drawn.isinf().all(0)
            lost = (finite | endless) & value[:_DRAWS].isnan().any(0)
            mixed = ~finite & (limit.isfinite() & value.isnan()).any(0)
            found[node] = Ends(*map(_sides, (finite, endless, lost, mixed)))
        return found


def _sides(both: Tensor) -> Sides:
    low, high = both.tolist()
    return low, high


def infinite() -> Tensor:
    """-inf and inf."""
    return torch.tensor([-torch.inf, torch.inf], dtype=torch.float32, device="cpu")


def far() -> Tensor:
    """Points of about -1e18, then as many of about 1e18."""
    points = 1e18 * (1 - 0.053 * torch.arange(_POINTS, dtype=torch.float64, device="cpu"))
    return torch.cat([-points, points])


def limits_of(values: Tensor) -> Tensor:
    """(draws, 2) of (draws, far points): a common value, ±inf of those that grow, or NaN."""
    sides = values.unflatten(1, (2, _POINTS))
    low, high = sides.amin(-1), sides.amax(-1)  # NaN of NaN
    size = torch.maximum(low.abs(), high.abs())
    agree = (high - low) <= AGREE * size.clamp_min(1.0)
    common = torch.where(agree & (size < LARGE), sides[..., 0], torch.nan)
    return torch.where(low >= LARGE, torch.inf, torch.where(high <= -LARGE, -torch.inf, common))


def values_at(nodes: Sequence[Node], x: Tensor, dtype: torch.dtype, origin: Origin) -> list[Tensor]:
    """(draws, points) of every node: dy and u are 1, each draw has parameters of its own, the last
    those that training starts from."""
    draws = _draws(origin)
    values: dict[Node, Tensor] = {}
    with torch.no_grad():
        for node in dict.fromkeys(n for output in nodes for n in walk(output)):
            match node:
                case Number(value):
                    values[node] = torch.tensor(value, dtype=dtype, device="cpu")
                case Parameter(name):
                    values[node] = draws[name].to(dtype)
                case Input():
                    values[node] = x.to(dtype) if node == X else torch.ones_like(x, dtype=dtype)
                case Call(function, arguments):
                    row = getattr(_functions_of_torch(), function)
                    values[node] = row(*(values[a] for a in arguments))
    rows = _DRAWS + 1 if draws else 1
    return [values[node].to(dtype).expand(rows, len(x)) for node in nodes]  # a condition is a Bool


@cache
def _functions_of_torch() -> ModuleType:
    return load_source(render_primitives())


def _draws(origin: Origin) -> dict[str, Tensor]:
    """(draws, 1) of every parameter."""
    found, seed = dict[str, Tensor](), torch.Generator("cpu").manual_seed(0)
    for name, initial in origin.initial.items():
        drawn = torch.randn(_DRAWS, 1, generator=seed, dtype=torch.float32, device="cpu")
        found[name] = torch.cat([drawn, torch.full_like(drawn[:1], initial)])
    return found
