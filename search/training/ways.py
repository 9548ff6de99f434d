"""Ways to train the runs of a prepared task: one run, or several in one program."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial
from typing import Any

from search.records import Key, Member, Point, Run
from search.tasks.task import MakeActivation, Recipe
from search.training.batched import of_one, run_members
from search.training.loop import run_epochs
from search.training.memory import in_batches
from search.training.prepared import Prepared
from search.training.stacked import BatchingError
from search.training.sweep import (
    AllTogether,
    Epochs,
    SharedEpochs,
    Together,
    in_step,
    one_by_one,
)


def start_run(
    prepared: Prepared, make_activation: MakeActivation, recipe: Recipe, rate: float, seed: int
) -> Generator[Point, Any, Run]:
    """One run: its points, then the run."""
    return run_epochs(
        prepared.task,
        prepared.splits,
        make_activation,
        options=prepared.options,
        recipe=recipe,
        learning_rate=rate,
        seed=seed,
        device=prepared.device,
        testing=prepared.testing,
    )


def together_or_plainly(
    prepared: Prepared,
    make_activation: MakeActivation,
    at_once: int,
    abreast: bool,
    told: dict[str, Any],
) -> Together:
    """Trains several runs of one candidate in one program, at most `at_once` of them together.

    What cannot be batched goes the plain way, and `told["batching"]` remembers why.
    """
    start = partial(start_run, prepared, make_activation, prepared.recipe)
    plainly = partial(in_step if abreast else one_by_one, start)

    def together(keys: Sequence[Key]) -> Epochs:
        if len(keys) < 2:
            yield from plainly(keys)
            return
        told["batching"] = f"up to {at_once} runs at once"
        members = [(0, *key) for key in keys]
        batch = batch_of(prepared, [make_activation])
        try:
            yield from of_one(in_batches(batch, members, at_once, abreast=abreast))
        except BatchingError as error:
            told["batching"] = f"one by one: {error}"
            yield from plainly(keys)

    return together


def batch_of(prepared: Prepared, makes: Sequence[MakeActivation]) -> AllTogether:
    """Trains runs of candidates whose activations differ in their numbers alone."""

    def together(members: Sequence[Member]) -> SharedEpochs:
        return run_members(
            prepared.task,
            prepared.splits,
            makes,
            options=prepared.options,
            recipe=prepared.recipe,
            members=members,
            device=prepared.device,
            testing=prepared.testing,
        )

    return together
