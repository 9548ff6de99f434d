"""Ways to train the runs of a prepared task: one run, or several in one program."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial
from typing import Any

from search.records import Key, Member, Point, Run
from search.tasks.task import MakeActivation, Recipe
from search.training.batched import BatchingError, of_one, run_members
from search.training.batched.memory import in_batches
from search.training.checkpoints import Checkpoints, run_checkpoint
from search.training.loop import run_epochs
from search.training.prepared import Prepared
from search.training.sweep import AllTogether, Epochs, SharedEpochs, Together, in_step, one_by_one


def start_run(
    prepared: Prepared,
    make_activation: MakeActivation,
    recipe: Recipe,
    kept: Checkpoints | None,
    rate: float,
    seed: int,
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
        checkpoint=run_checkpoint(kept, rate, seed, prepared.shards) if kept else None,
        shards=prepared.shards,
    )


def together_or_plainly(
    prepared: Prepared,
    make_activation: MakeActivation,
    at_once: int,
    abreast: bool,
    told: dict[str, Any],
    kept: Checkpoints | None = None,
) -> Together:
    """Trains several runs of one candidate in one program, at most `at_once` of them together.

    What cannot be batched goes the plain way, and `told["batching"]` remembers why.
    """
    start = partial(start_run, prepared, make_activation, prepared.recipe, kept)
    plainly = partial(in_step if abreast else one_by_one, start)

    def together(keys: Sequence[Key]) -> Epochs:
        members = [(0, *key) for key in keys]
        begun = kept.begun(members) if kept else []
        if not begun and (len(keys) < 2 or at_once < 2):
            yield from plainly(keys)
            return
        told["batching"] = f"up to {max(at_once, *map(len, begun), 1)} runs at once"
        batch = batch_of(prepared, [make_activation], kept)
        left = [each for each in members if not any(each in part for part in begun)]
        try:
            yield from of_one(in_batches(batch, left, at_once, abreast=abreast, begun=begun))
        except BatchingError as error:
            told["batching"] = f"one by one: {error}"
            yield from plainly(keys)

    return together


def batch_of(
    prepared: Prepared, makes: Sequence[MakeActivation], kept: Checkpoints | None = None
) -> AllTogether:
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
            checkpoint=kept.batch(members) if kept else None,
        )

    return together
