"""The study that the tests of figures share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from search.records import Trial
from tests.records_cases import run, settings, study_trials

STUDY = study_trials(40)
SETTINGS = settings()
LOSS = settings(metric="loss", maximize=False, percent=False)


def trial(number: int, scores: Mapping[float, Sequence[float | None]], **fields) -> Trial:
    """A trial with these scores by rate and seed; None is a diverged run."""
    runs = tuple(run(rate, seed, s) for rate, row in scores.items() for seed, s in enumerate(row))
    means = {
        rate: sum(filter(None, row)) / len(row) for rate, row in scores.items() if None not in row
    }
    best = max(means, key=lambda rate: means[rate], default=None)
    basis = {
        "origin": "search",
        "name": "",
        "expression": "x * sigmoid(x)",
        "fingerprint": f"{number:016x}",
        "state": "complete" if best else "diverged",
        "score": means[best] if best else None,
        "best_rate": best,
    }
    return Trial(number=number, runs=runs, **{**basis, **fields})


def baseline(
    number: int, scores: Mapping[float, Sequence[float | None]], name: str = "gelu"
) -> Trial:
    return trial(number, scores, origin="baseline", name=name, expression="x * normal_cdf(x)")
