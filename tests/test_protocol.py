"""The gates before training: what they refuse, in which words, and what they must let pass."""

from __future__ import annotations

import pytest

from search.language.parser import parse
from search.protocol import gate_before_training

PASSING = [
    "relu(x)",
    "gelu(x)",
    "silu(x)",
    "mish(x)",
    "golu(x)",
    "tanh(x)",
    "sin(x)",
    "elu(x)",
    "u * silu(x)",
    "u * x",
    "x * arctan_gate(x)",
    "x * arcsin_gate(0.3 * x)",
    "x * arcsin_gate(0.5286 * x)",  # its slope near the gate's end is as steep as float32 is coarse
    "x * gompertz(0.5 * x)",
    "select(x > 0, x, expm1(x))",
    "(a - b) * mish(x) + b * x where a = 1 per layer, b = 0 per layer",
    "x * sigmoid(x) * (1 + g * tanh(0.9 * std(x))) where g = 0 per layer",
    "a * x + b * silu(x) where a = 1 per layer, b = 0 per layer",
]
REFUSED = {
    "3 * x": ("shape", "f(x) = 3 x + 0 for every x"),
    "x - x + 1": ("shape", "f(x) = 1 for every x"),
    "a * x + b where a = 1 per layer, b = 0 per channel": ("shape", "f(x) = 1 x + 0 for every x"),
    "x ** 2": ("finite", "f(-1e+04) is inf in float16"),
    "exp(x)": ("finite", "f(89.13) is inf in float32"),
    "log(x)": ("finite", "f(-1e+04) is nan in float32"),
    "1 / x": ("finite", "f(0) is inf in float32"),
    "sqrt(relu(x))": ("finite", "f'(-1e+04) is nan in float32"),
    "(x + 1e6) - 1e6 + sin(x)": ("reference", "f is off by"),
    "sin(30 * x)": ("signal", "squared gradient norm changes by a factor"),
    "sigmoid(x)": ("signal", "variance changes by a factor"),
}


@pytest.mark.parametrize("text", PASSING)
def test_a_sound_function_passes(text: str):
    assert gate_before_training(parse(text)) is None


@pytest.mark.parametrize("text", REFUSED)
def test_a_hopeless_function_is_refused_with_its_reason(text: str):
    rejection = gate_before_training(parse(text))
    gate, reason = REFUSED[text]
    assert rejection is not None
    assert rejection.gate == gate
    assert reason in rejection.reason
