"""dy goes once into the factor that a backward's outputs share, and is lost nowhere."""

from __future__ import annotations

import math

import torch

from search.kernels.c_fusion import fuse
from search.kernels.c_upstream import share_upstream
from search.kernels.formula import load_formula
from search.kernels.program import lower
from search.language.expression import DY, Call, Input, Parameter
from search.language.parser import parse

FORMULA = (
    "x * sigmoid(a * (arctan(b * x) + arcsin(clip(c * x, -1, 1)))) "
    "where a = 1.5 per layer, b = 0.7 per layer, c = 0.25 fixed"
)


def test_an_upstream_gradient_meets_a_shared_factor_once():
    backward = lower(parse(FORMULA), fuse).backward
    with_dy = [op for op in backward.operations if "dy" in op.arguments]
    assert sorted(op.function for op in with_dy) == ["mul", "mul"]  # of x, and of the sigmoid
    assert not set(backward.outputs) & {op.target for op in with_dy}


def test_a_choice_alone_does_not_carry_it():
    """kept_inside gives 0 outside, whatever its factor is: a NaN in dy must come out."""
    x, a = Input("x"), Parameter("a")
    factor = Call("mul", (x, Call("exp", (x,))))
    kept = Call("kept_inside", (factor, x, a, a))
    outputs = (Call("mul", (DY, kept)), Call("mul", (DY, factor)))
    assert share_upstream(outputs) == outputs


def test_gradients_are_the_reference_and_nan_reaches_all():
    formula = load_formula(parse(FORMULA), "auto")
    x = torch.linspace(-9, 9, 1000, dtype=torch.float64)
    dy = torch.cos(x)
    tensors = [x, torch.tensor(1.5, dtype=x.dtype), torch.tensor(0.7, dtype=x.dtype)]
    got = formula.rendering(x).backward(dy, tensors, -1, [True] * 3)
    wanted = formula.reference.backward(dy, tensors, -1, [True] * 3)
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours is not None and theirs is not None
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13)
    dy[0] = math.nan  # beyond the clip, where a slope is 0
    assert all(
        g is not None and g.isnan().any()
        for g in formula.rendering(x).backward(dy, tensors, -1, [True] * 3)
    )
