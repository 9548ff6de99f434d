"""Records as a study leaves them, made by a deterministic generator: every state and oddity.

Nothing here was trained: scores are a smooth function of the rate with an optimum and a height
drawn per activation, plus seed noise, in the range of a small classifier.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from search.figures.settings import ReportSettings
from search.finalists import chosen, fresh_seeds, other_rates
from search.records import Point, Run, Trial

GRID = (0.001, 0.003, 0.01, 0.03, 0.1)
DEFAULT_RATE = 0.01
BASELINES = {
    "relu": "relu(x)",
    "gelu": "x * normal_cdf(x)",
    "silu": "x * sigmoid(x)",
    "mish": "x * tanh(softplus(x))",
    "golu": "x * gompertz(x)",
    "elu": "select(x > 0, x, expm1(x))",
    "swish": "x * sigmoid(b * x) where b = 1 per layer",
}
HEIGHTS = (0.962, 0.9701, 0.9685, 0.9692, 0.9722, 0.9645, 0.969)
OPTIMA = (0.03, 0.01, 0.03, 0.02, 0.012, 0.3, 0.02)
GATES = (
    "gompertz({})",
    "sigmoid({})",
    "normal_cdf({})",
    "(0.5 + arctan({}) / pi)",
    "tanh(softplus({}))",
)
ARGUMENTS = ("x", "s * x", "(x + s * x ** 3)", "asinh(s * x)")
TAILS = ("", " * (1 + g * tanh(0.9 * std(x)))", " - k * x * exp(-x ** 2)")


def settings(**changes: Any) -> ReportSettings:
    """The settings of the made-up study."""
    basis = ReportSettings(
        name="gated",
        task="digits",
        default_rate=DEFAULT_RATE,
        grid=GRID,
        seeds=(0, 1),
        sampler="tpe",
        budget=40,
        options={"model": "mlp", "depth": 2, "width": 128},
        recipe={"optimizer": "sgd", "momentum": 0.9, "epochs": 8, "batch_size": 64},
        environment={
            "metric": "accuracy",
            "maximize": True,
            "python": "3.12.4",
            "versions": {"torch": "2.11.0", "ray": "2.60.0", "optuna": "5.0.0"},
            "cpu": "2 cores",
            "gpu": None,
            "commit": "cbfb400",
            "sessions": [{"seconds": 300.0}, {"seconds": 12.4}],
            "seconds": 312.4,
        },
        space_text="name: gated\ntask: digits\nactivation:\n  F:\n    - x * G\n",
    )
    return replace(basis, **changes)


def run(
    rate: float, seed: int, score: float | None, *, steps: int = 160, bound: float = 20.0
) -> Run:
    """One training that ended with `score`, or diverged at a third of its steps."""
    end = 0.985 if score is None else score
    curve = tuple(_point(step, steps, end) for step in range(steps // 8, steps + 1, steps // 8))
    if score is None:
        reason = f"step {steps // 3}: loss is nan"
        kept = tuple(point for point in curve if point.step <= steps // 3)
        return Run(rate, seed, "diverged", reason, curve=kept, steps=steps // 3, seconds=0.2)
    return Run(
        rate, seed, "complete", score=score, loss=curve[-1].loss, curve=curve, steps=steps,
        seconds=0.6,
    )  # fmt: skip


def _point(step: int, steps: int, end: float) -> Point:
    done = step / steps
    score = end - 0.25 * math.exp(-6 * done) * (1 - done)
    loss = 3.2 * (1 - score) + 0.02
    return Point(step=step, train_loss=0.8 * loss, loss=loss, score=score)


def swept(
    number: int,
    height: float,
    optimum: float,
    *,
    grid: tuple[float, ...] = GRID,
    seeds: tuple[int, ...] = (0, 1),
    unstable: float = math.inf,
    noise: float = 0.002,
    **fields: Any,
) -> Trial:
    """A trial whose score falls off with the distance of log10(rate) from log10(optimum).

    Above the rate `unstable` the odd seeds diverge; above 3 × `unstable` all of them.
    """
    draw = random.Random(f"{number}/{height}/{optimum}")
    runs = []
    for rate in grid:
        distance = math.log10(rate) - math.log10(optimum)
        for seed in seeds:
            score = height - 0.03 * distance**2 - 0.04 * max(0.0, -distance) ** 3
            score = min(1.0, max(0.1, score + draw.gauss(0, noise)))
            diverges = rate > 3 * unstable or (rate > unstable and seed % 2 == 1)
            runs.append(run(rate, seed, None if diverges else round(score, 6)))
    best = _best(runs, grid)
    return Trial(
        number=number,
        runs=tuple(runs),
        state="complete" if best else "diverged",
        reason="" if best else f"all {len(runs)} runs diverged",
        score=best[0] if best else None,
        best_rate=best[1] if best else None,
        seconds=sum(r.seconds for r in runs),
        **{"origin": "search", "name": "", "fingerprint": f"{number:016x}", **fields},
    )


def _best(runs: list[Run], grid: tuple[float, ...]) -> tuple[float, float] | None:
    means = []
    for rate in grid:
        here = [r.score for r in runs if r.learning_rate == rate]
        scores = [score for score in here if score is not None]
        if scores and len(scores) == len(here):
            means.append((sum(scores) / len(scores), rate))
    return max(means, default=None)


def formula(draw: random.Random) -> tuple[str, dict[str, Any]]:
    """A candidate's formula and the choices that derived it."""
    gate, argument, tail = draw.choice(GATES), draw.choice(ARGUMENTS), draw.choice(TAILS)
    choices: dict[str, Any] = {"F": TAILS.index(tail), "F.G": gate, "F.G.ARG": argument}
    body, clauses = f"x * {gate.format(argument)}{tail}", []
    if "s" in argument.replace("asinh", ""):
        choices["F.G.ARG.s"] = round(math.exp(draw.uniform(math.log(0.5), math.log(2))), 6)
        clauses.append(f"s = {choices['F.G.ARG.s']} fixed")
    for name, top in (("g", 0.3), ("k", 0.5)):
        if f"{name} *" in tail:
            choices[f"F.{name}"] = round(draw.uniform(0, top), 6)
            clauses.append(f"{name} = {choices[f'F.{name}']} per layer")
    return body + (f" where {', '.join(clauses)}" if clauses else ""), choices


def baseline_trials(seeds: tuple[int, ...] = (0, 1)) -> list[Trial]:
    """The published activations: one extends its grid, one diverges at the highest rate."""
    heights, optima = (dict(zip(BASELINES, drawn, strict=True)) for drawn in (HEIGHTS, OPTIMA))
    return [
        swept(
            number,
            heights[name],
            optima[name],
            seeds=seeds,
            grid=(*GRID, 0.3) if name == "elu" else GRID,
            unstable=0.05 if name == "mish" else math.inf,
            origin="baseline",
            name=name,
            expression=text,
            cost=1.0 + 0.06 * number,
            parameters=2 if name == "swish" else 0,
        )
        for number, (name, text) in enumerate(BASELINES.items())
    ]


def candidate(number: int, seeds: tuple[int, ...] = (0, 1)) -> Trial:
    """The candidate of the search with this number: its state depends on the number alone."""
    draw = random.Random(f"candidate {number}")
    text, choices = formula(draw)
    named: dict[str, Any] = {"expression": text, "choices": choices}
    kind = number % 10
    if kind == 3:
        reason = draw.choice(
            ("bounded: f(1e4) is inf in float16", "signal: variance grows 3.1e7 in 20 layers")
        )
        return _untrained(number, "rejected", reason, **named)
    if kind == 5:
        return _untrained(number, "duplicate", "equals baseline golu", duplicate_of=4, **named)
    height = 0.955 + 0.004 * GATES.index(choices["F.G"]) + draw.uniform(-0.003, 0.006)
    trial = swept(
        number,
        height,
        draw.choice((0.01, 0.02, 0.03, 0.2)),
        seeds=seeds,
        unstable=0.0001 if kind == 7 else draw.choice((0.02, 0.05, math.inf, math.inf)),
        cost=round(draw.uniform(1.0, 1.6), 3),
        parameters=2 * text.count("per layer"),
        **named,
    )
    if kind == 9 and number % 20 == 9:
        reason = "stopped by asha after epoch 3"
        return replace(trial, state="pruned", reason=reason, score=None, best_rate=None)
    if number % 23 == 4:
        error = "RuntimeError: worker was killed"
        return replace(trial, state="failed", reason=error, runs=(), score=None, best_rate=None)
    return trial


def _untrained(number: int, state: Any, reason: str, **fields: Any) -> Trial:
    return Trial(
        number=number, origin="search", name="", fingerprint=f"{number:016x}", state=state,
        reason=reason, **fields,
    )  # fmt: skip


def study_trials(candidates: int = 40, seeds: tuple[int, ...] = (0, 1)) -> list[Trial]:
    """A whole study: the baselines first, then the candidates, in order of number."""
    published = baseline_trials(seeds)
    first = len(published)
    return published + [candidate(first + index, seeds) for index in range(candidates)]


def retested(
    trials: Sequence[Trial], tasks: int = 0, k: int = 2, seeds: int = 10, swept: bool = False
) -> list[Trial]:
    """The study with its finalists, on further tasks too; fresh scores are a point lower."""
    finalists = chosen(trials, k, maximize=True)
    names = ("", *(f"task{n}" for n in range(tasks)))
    finals: dict[int, list[Trial]] = {}
    for count, (name, trial) in enumerate(product(names, finalists)):
        finals.setdefault(trial.number, []).append(_final(trial, -100 - count, name, seeds))
    for count, trial in enumerate(finalists if swept else ()):
        finals[trial.number].append(_final(trial, -900 - count, "", seeds, other_rates(trial)))
    return [replace(t, finals=tuple(finals.get(t.number, ()))) for t in trials]


def _final(
    trial: Trial, number: int, task: str, seeds: int, others: tuple[float, ...] = ()
) -> Trial:
    draw = random.Random(f"{trial.number} {task}")
    fresh = fresh_seeds(seeds, (0, 1))
    rates, base = others or (trial.best_rate or DEFAULT_RATE,), (trial.score or 0.0) - 0.01
    runs = [
        replace(run(rate, seed, base), test=round(base + draw.gauss(0, 0.002), 6))
        for rate, seed in product(rates, fresh)
    ]
    known = {"metric": "accuracy", "maximize": True} if task else {}
    return replace(
        trial, number=number, origin="finalist", of=trial.number, runs=tuple(runs), seeds=fresh,
        task=task, environment=known, rates=others,
    )  # fmt: skip
