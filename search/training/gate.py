"""The last gate: some steps of training, before a candidate gets its whole sweep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from search.records import Run
from search.tasks.task import MakeActivation, Recipe
from search.training.prepared import Prepared
from search.training.rates import Grid
from search.training.sweep import drain
from search.training.ways import start_run

GATE_STEPS = 200
"""Steps of the gate's runs: enough for every published activation to beat a constant on every
built-in task, at one rate of the grid at least."""
WORTH = 10
"""A sweep shorter than this many gates is trained at once: it tells more for little more."""


def gate_problem(prepared: Prepared, make_activation: MakeActivation, grid: Grid) -> str:
    """Why the candidate does not learn, or nothing; sweeps too short for a gate are not gated."""
    if not worth_a_gate(prepared.steps, len(grid.rates) * len(grid.seeds)):
        return ""
    rates = dict.fromkeys((grid.default, grid.rates[0], grid.rates[-1]))

    def start(recipe: Recipe, rate: float) -> Run:
        return drain(start_run(prepared, make_activation, recipe, None, rate, grid.seeds[0]))

    short = replace(prepared.recipe, compile="off")  # a compiler takes longer
    return gate_in_training(start, short, tuple(rates), prepared.constant)


def gate_in_training(
    start: Callable[[Recipe, float], Run],
    recipe: Recipe,
    rates: Sequence[float],
    constant: float,
) -> str:
    """Why the candidate does not learn at all, or nothing when it does.

    `start(recipe, rate)` trains one run of a shortened recipe. A candidate passes as soon as it
    ends below `constant`, the loss of the best prediction that ignores its input, at one of the
    `rates`; so one that learns pays for one short run.
    """
    short = replace(recipe, max_steps=min(GATE_STEPS, recipe.max_steps or GATE_STEPS))
    told = []
    for rate in rates:
        run = start(short, rate)
        if run.state == "complete" and run.loss is not None and run.loss < constant:
            return ""
        ended = run.reason or f"validation loss {run.loss:.4g}"
        told.append(f"{ended} at rate {rate:g}")
    return f"no better than a constant ({constant:.4g}) after {short.max_steps} steps: {told[0]}"


def worth_a_gate(steps: int, runs: int) -> bool:
    """Whether a sweep of `runs` runs of `steps` steps is long enough to be gated.

    >>> worth_a_gate(steps=320, runs=10), worth_a_gate(steps=20, runs=10)
    (True, False)
    """
    return steps * runs >= WORTH * GATE_STEPS
