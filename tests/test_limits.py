"""Torch operations and programs at infinity, where IEEE arithmetic alone gives 0 * inf."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from search.kernels.formula import load_formula
from search.kernels.limits import held_at, hold_limits
from search.kernels.program import Origin, Program, lower
from search.kernels.torch_rendering import load_torch
from search.kernels.triton_fusion import fuse
from search.language.catalog import CATALOG
from search.language.expression import Expression, Node, walk
from search.language.parser import parse
from tests.cases import LIMITS, has_statistics

ENDS = torch.tensor([-math.inf, math.inf])
# Whether they have a limit at -inf a parameter says, which torch operations do not ask; the parts
# of pau's ratio overflow.
DECIDED_BY_PARAMETERS = {
    *("swish", "aglu", "xatlu", "xgelu", "xsilu", "dyn_mish", "dyn_glu", "pau"),
    *("xatglu_order2", "xgeglu_order2", "xswiglu_order2"),
}


# Waves have none; x * asinh(x)**2 grows as its slope, pau's parts overflow, and in xatglu_order2 a
# parameter decides on the slope of u by the same gate.
WITHOUT_SLOPES = {
    *("sin", "gcu", "sinlu", "snake", "cos_minus_x", "min_x_sin"),
    *("x_asinh2", "pau", "xatglu_order2"),
}


def at_the_ends(e: Expression, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """y and dx at -inf and inf, by torch operations."""
    x = ENDS.to(dtype)[:, None]
    others = [torch.full_like(x, 0.75) for _ in e.inputs[1:]]
    own = [torch.full((1,) if p.scope == "channel" else (), p.initial) for p in e.trainable]
    tensors = [x, *others, *(p.to(dtype) for p in own)]
    rendering, dy = load_torch(e), torch.ones_like(x)
    dx = rendering.backward(dy, tensors, -1, [True] * len(tensors))[0]
    assert dx is not None
    return rendering.forward(tensors, -1).flatten(), dx.flatten()


@pytest.mark.parametrize("text", list(LIMITS))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_torch_operations_give_the_limit(text: str, dtype: torch.dtype):
    wanted = torch.tensor(LIMITS[text]).to(dtype)
    got = torch.cat(at_the_ends(parse(text), dtype))
    torch.testing.assert_close(got, wanted, equal_nan=True, atol=1e-6, rtol=1e-3)


def test_the_rows_of_the_catalogue_without_their_limits_are_known():
    """Against 64 bits and finite numbers: what x = ±1e12 and ±3e12 agree on is the limit."""
    lost = set[str]()
    far = torch.tensor([-1e12, 1e12, -3e12, 3e12], dtype=torch.float64)[:, None]
    for name, row in CATALOG.items():
        e = row.expression
        if has_statistics(e):
            continue
        own = [torch.full((1,) if p.scope == "channel" else (), p.initial) for p in e.trainable]
        tensors = [far, *(torch.full_like(far, 0.75) for _ in e.inputs[1:])]
        tensors += [p.double() for p in own]
        exact = load_torch(e).forward(tensors, -1).flatten()
        y, _ = at_the_ends(e)
        for k in (0, 1):
            first, second = exact[k].item(), exact[k + 2].item()
            if math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-6):
                if y[k].isnan():
                    lost.add(name)
                else:
                    assert y[k].item() == pytest.approx(first, abs=1e-5), name
            elif abs(first) > 1e9 and abs(second) > 2 * abs(first):
                lost |= {name} if y[k].isnan() else set()
                assert y[k].isnan() or y[k] == math.copysign(math.inf, first), name
    assert lost == DECIDED_BY_PARAMETERS


def test_every_slope_of_the_catalogue_has_its_limits():
    """At the parameters that training starts from, but for those known."""
    lost = set[str]()
    for name, row in CATALOG.items():
        if has_statistics(row.expression):
            continue
        (_, dx), (_, wide) = (
            at_the_ends(row.expression, d) for d in (torch.float32, torch.float64)
        )
        both = ~(dx.isnan() | wide.isnan())
        torch.testing.assert_close(dx[both].double(), wide[both], atol=1e-6, rtol=1e-5)
        lost |= {name} if dx.isnan().any() else set()
    assert lost == WITHOUT_SLOPES


def bounds(program: Program) -> set[float]:
    """The numbers that x is held to."""
    named = ("within", "max", "min", "clip")
    return {
        abs(a)
        for o in program.operations
        if o.function in named and o.arguments[0] == "x"
        for a in o.arguments[1:]
        if isinstance(a, float)
    }


@pytest.mark.parametrize(
    ("text", "forward", "backward"),
    [
        ("x * sigmoid(x)", {80.0}, {80.0}),
        ("mish(x)", {40.0}, {40.0}),  # it squares e**x
        ("x * arctan_gate(x)", {1e18}, {1e18}),  # comes to its limit as 1 / x does
        ("x * sigmoid(0.01 * x)", {1e18}, {1e18}),
        ("x * exp(-(x - 200)**2)", {1e18}, {1e18}),  # a bump far out
        ("x * sigmoid(x) + exp(-(x + 5007.7)**2)", {1e18}, {1e18}),
        ("b * x * sigmoid(x) where b = 1 per layer", {80.0}, {80.0}),
        ("x * sigmoid(b * x) where b = 1 per layer", set(), {1e18}),
        ("relu(x)", set(), set()),
        ("tanh(x)", set(), set()),
        ("x * sin(x)", set(), set()),
    ],
)
def test_x_is_held_where_the_function_has_come_to_its_limit(
    text: str, forward: set[float], backward: set[float]
):
    lowered = lower(parse(text), fuse)
    assert bounds(lowered.forward) == forward
    assert bounds(lowered.backward) == backward


@pytest.mark.parametrize("text", list(LIMITS))
def test_no_function_is_taken_twice(text: str):
    cheap = {"add", "sub", "mul", "neg", "max", "min", "clip"}
    plain, held = (lower(parse(text), rewrite) for rewrite in (None, hold_limits))
    for a, b in ((plain.forward, held.forward), (plain.backward, held.backward)):
        counts = [sum(o.function not in cheap for o in p.operations) for p in (a, b)]
        assert counts[1] <= counts[0]


def test_an_infinite_sum_is_never_a_number():
    """A loss scaler skips a step by it."""
    e = parse("(a - b) * mish(x) + b * x where a = 1 per layer, b = 0.1 per layer")
    for rewrite in (hold_limits, fuse):
        held = lower(e, rewrite).backward
        assert "x" in {a for o in held.operations for a in o.arguments}
    x = torch.tensor([1.0, math.inf])
    tensors, dy = [x, torch.tensor(1.0), torch.tensor(0.1)], torch.ones(2)
    _, da, db = load_torch(e).backward(dy, tensors, -1, [True] * 3)
    assert da is not None and da == math.inf
    assert db is not None and not db.isfinite()


def test_a_formula_is_lowered_whatever_mode_is_on():
    text = "x * sigmoid(1.25 * x) * tanh(x)"
    with FakeTensorMode(), torch.device("meta"):
        load_torch.cache_clear()
        inside = lower(parse(text), hold_limits)
    assert inside == lower(parse(text), hold_limits)
    torch.set_default_dtype(torch.float64)
    try:
        assert inside == lower(parse(text), hold_limits)
    finally:
        torch.set_default_dtype(torch.float32)
    assert load_formula(parse(text), "torch").reference.forward([ENDS], -1).isfinite().tolist() == [
        True,
        False,
    ]


def test_what_holds_x_is_known():
    (held,) = hold_limits((parse("x * sigmoid(x)").body,), Origin(1, {}))
    found: list[Node] = [n for n in walk(held) if held_at(n)]
    assert [held_at(n) for n in found] == [(-1e18, math.inf)]
