"""Grammars and studies that the tests of samplers share."""

from __future__ import annotations

DEEP = {
    "F": ["x * G", "x * G * SCALE", "(1 - b) * x * G + b * x where b = 0 per layer"],
    "G": ["gompertz(ARG)", "sigmoid(ARG)", "(1 + 2 * k) * G - k where k = 0 per layer", "G * G"],
    "ARG": ["x", "s * x where s in log[0.5, 2]", "-s * x where s in {1, 1/3, -2}"],
    "SCALE": ["1 + g * tanh(m * std(x)) where g in [0, 0.3], m = 0.9 fixed"],
}
FINITE = {
    "F": ["x * G", "(1 - b) * x * G + b * x where b in {-0.3, 0.1, 0.3, 0.6}"],
    "G": [
        "gompertz(ARG)",
        "sigmoid(ARG)",
        "arctan_gate(ARG)",
        "normal_cdf(ARG)",
        "1 - gompertz(-(ARG))",
        "exp(-(ARG) ** 2)",
    ],
    "ARG": ["s * x where s in {0.5, 1, 2, 4}", "s * x + t where s in {0.5, 1, 2}, t in {-1, 1}"],
}
OURS = ("evolution", "behaviour")
