"""A retested study."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from search.figures.leaderboard import leaderboard_info
from search.figures.settings import ReportSettings
from search.figures.verdict import Verdict, verdict
from search.finalists import APART
from search.records import Origin, Run, Trial
from tests.records_cases import settings, swept

FRESH = range(1000, 1010)
SETTINGS = settings(places=2, fresh_seeds=10, seeds=(0, 1))


def around(center: float, spread: float = 0.001, seeds: int = 10) -> list[float | None]:
    """Scores of the fresh seeds."""
    draw = random.Random(f"{center} {spread}")
    return [round(center + draw.gauss(0, spread), 6) for _ in range(seeds)]


def searched(number: int, score: float, origin: Origin = "search", name: str = "") -> Trial:
    text = {"relu": "relu(x)", "gelu": "x * normal_cdf(x)"}.get(name, f"x * sigmoid({number} * x)")
    trial = swept(
        number, score, 0.01, noise=0.0005, origin=origin, name=name, expression=text, cost=1.5
    )
    return replace(trial, score=score)


def again(trial: Trial, scores: Sequence[float | None], **more: object) -> Trial:
    """The trial with a finalist of these test scores."""
    shift = APART * int(trial.name.split()[-1]) if trial.origin == "placebo" else 0
    rate = trial.best_rate or 0.01
    runs = [
        Run(rate, seed + shift, "diverged", "step 9: loss is 4e3, above the bound 1e3")
        if score is None
        else Run(rate, seed + shift, "complete", score=0.98, test=score)
        for seed, score in zip(FRESH, scores, strict=False)
    ]
    values = {"state": "complete", "reason": "", "score": None} | more
    final = replace(
        trial,
        number=-100 - trial.number,
        origin="finalist",
        of=trial.number,
        runs=tuple(runs),
        seeds=tuple(run.seed for run in runs),
    )
    return replace(trial, finals=(replace(final, **values),))  # type: ignore[arg-type]


RELU, GELU = searched(-1, 0.965, "baseline", "relu"), searched(0, 0.97, "baseline", "gelu")
BASE = [again(RELU, around(0.96)), again(GELU, around(0.962))]
FIRST, SECOND, THIRD = searched(1, 0.985), searched(2, 0.98), searched(3, 0.979)


def found(trials: Sequence[Trial], own: ReportSettings = SETTINGS) -> Verdict:
    return verdict(leaderboard_info(trials, own), own)


def said(trials: Sequence[Trial], own: ReportSettings = SETTINGS) -> str:
    told = found(trials, own)
    return "\n".join((told.headline, told.detail, *told.statements, *told.notes))
