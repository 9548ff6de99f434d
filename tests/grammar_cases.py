"""Grammars that the tests share."""

from __future__ import annotations

import optuna

GATED = {
    "F": [
        "x * G",
        "x * G * SCALE",
        "(alpha - beta) * x * G + beta * x   where alpha = 1 per layer, beta = 0 per layer",
    ],
    "G": [
        "gompertz(ARG)",
        "sigmoid(ARG)",
        "normal_cdf(-ARG)",
        "(1 + 2 * k) * G - k where k = 0 per layer",
        "G * G",
    ],
    "ARG": [
        "x",
        "s * x where s in log[0.5, 2]",
        "-s * x where s in {1, 1/3, -2}",
        "s * x where s = 1 per channel",
    ],
    "SCALE": ["1 + g * tanh(m * std(x)) where g in [0, 0.3], m = 0.9 fixed"],
}
FINITE = {
    "F": ["x * G", "G + G * x", "min(H, x)"],
    "G": ["sigmoid(ARG)", "(1 + k) * G where k = 0 per layer", "tanh(H)"],
    "H": ["s * x where s in {1, 2, 3}", "-x", "H + G"],
    "ARG": ["x", "a * x + b where a in {1, 2}, b in {0, 1, -1}"],
}


def random_study(seed: int = 0) -> optuna.Study:
    """A real in-memory study; quiet."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
