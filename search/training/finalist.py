"""A finalist: one rate, frozen, trained again with fresh seeds, and one look at the test part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

from search.records import Run
from search.tasks.task import longer
from search.training.job import Outcome, grid_of
from search.training.rates import best_rate, why_diverged
from search.training.work import Work


def train_again(work: Work, on_run: Callable[[Run], None]) -> Outcome:
    """Train a finalist at its rate; on another task than the search's, find that rate first."""
    prepared, job, grid = work.prepared, work.job, replace(work.training.grid, halving=None)
    if not len(prepared.splits.test.targets):
        reason = f"task {prepared.task.name} has no test split to score finalists on"
        return work.ended("failed", reason)
    work = replace(work, training=replace(work.training, in_step=False, grid=grid))
    rate = job.rate
    if rate is None:
        work.told.update(metric=prepared.task.metric, maximize=grid.maximize)
        tuned = work.sweep(grid, work.checkpoints(), on_run)
        rate = best_rate(tuned, grid.maximize, grid.default)
        if rate is None:
            return work.ended("diverged", why_diverged(tuned))
    recipe = longer(prepared.recipe, job.budget)
    final = replace(work, prepared=replace(prepared, recipe=recipe, testing=True))
    own = grid_of(work.training, replace(job, rate=rate))
    return _outcome(final, final.sweep(own, final.checkpoints(), on_run), rate)


def _outcome(work: Work, runs: Sequence[Run], rate: float) -> Outcome:
    scores = [run.test for run in runs if run.test is not None]
    if work.job.rates:  # cells of a heatmap: nothing is claimed of them but their mean
        score = fmean(scores) if scores else None
        return work.ended("complete" if scores else "diverged", score=score, best_rate=rate)
    if len(scores) < len(runs):
        return work.ended("diverged", _lost(runs), best_rate=rate)
    return work.ended("complete", score=fmean(scores), best_rate=rate)


def _lost(runs: Sequence[Run]) -> str:
    """How many of a finalist's runs diverged, and the first one's reason."""
    lost = [run for run in runs if run.state == "diverged"]
    return f"{len(lost)} of {len(runs)} fresh seeds; seed {lost[0].seed}: {lost[0].reason}"
