"""What a search would do and how long it would take, before it does anything."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, replace

import torch

from search.environment import available_cpus
from search.errors import StudyError
from search.language.fingerprint import fingerprint
from search.progress import duration
from search.space.grammar import Grammar
from search.space.settings import Resources, Space
from search.training.job import Training
from search.training.loop import run_epochs
from search.training.planner import Choice, planned
from search.training.prepared import prepare
from search.training.rungs import rungs_of, share_of_steps
from search.training.side_by_side import Room

COUNTED = 2000
"""A finite space up to this size is counted by function; a larger one by derivation."""
ENOUGH = 15.0
"""Seconds after which a timed run is not trained to its end."""
START, PER_TRIAL = 8.0, 0.1
"""Seconds that Ray takes to start, and to hand a worker its next candidate."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A search in numbers."""

    candidates: str
    trials: int
    """Candidates to train."""
    baselines: int
    rates: int
    seeds: int
    concurrent: int
    run_seconds: float
    """Of one run, timed now."""
    batching: Choice
    placebos: int = 0
    finalists: int = 0
    fresh_seeds: int = 0
    budget: float = 1.0
    """Length of a finalist's run, in runs of the search."""
    tasks: tuple[str, ...] = ()
    """Further ones that finalists are trained on."""
    share: float = 1.0
    """Of the steps of the search's grids, those that halving leaves."""
    swept: int = 0
    """Finalists that are trained at every rate."""

    @property
    def searched(self) -> int:
        """Trials of the search."""
        return self.trials + self.baselines + self.placebos

    @property
    def runs(self) -> int:
        """Of the search, without the rates that extend a grid."""
        return self.searched * self.rates * self.seeds

    @property
    def seconds(self) -> float:
        """Until the end, with one extended rate for every second trial."""
        runs = self.runs * self.share + 0.5 * self.searched * self.seeds
        runs += self._fresh_runs * self.budget
        trials = self.searched + self.finalists + self.swept
        run_seconds = self.run_seconds / self.batching.gain
        return START + (runs * run_seconds + trials * PER_TRIAL) / self.concurrent

    @property
    def _fresh_runs(self) -> int:
        return (self.finalists + self.swept * (self.rates - 1)) * self.fresh_seeds

    def lines(self) -> list[str]:
        """The plan in words."""
        sweep = f"{self.rates} learning rates × {self.seeds} seeds"
        placebos = f" and {self.placebos} placebos" if self.placebos else ""
        halved = f"; halving leaves {self.share:.0%} of the steps" if self.share < 1 else ""
        return [
            f"candidates   {self.candidates}",
            f"trials       {self.trials} candidates and {self.baselines} baselines{placebos}",
            f"runs         {self.runs}: every trial at {sweep}; more where the best rate is at an"
            f" end of the grid{halved}",
            f"finalists    {self._finalists()}",
            f"time         about {duration(self.seconds)}: {self.run_seconds:.2g} s a run (timed"
            f" now), {self.concurrent} trials at once",
            f"batching     {self.batching.words}",
        ]

    def _finalists(self) -> str:
        if not self.finalists:
            return "none: nothing is trained again on fresh seeds"
        further = f"; the time is as on this task for {', '.join(self.tasks)}, and a sweep there"
        length = "" if self.budget == 1 else f", {self.budget:g} times as long"
        other = f", {self.swept} of them at the other rates too" if self.swept else ""
        return (
            f"{self.finalists}, each with {self.fresh_seeds} fresh seeds at its own best"
            f" rate{other}{length}: {self._fresh_runs} runs, scored on the test split"
            f"{further if self.tasks else ''}"
        )


def make_plan(space: Space, training: Training, concurrent: int | None = None) -> Plan:
    """The plan of a space; trains one run to time it.

    concurrent: how many trials run at once; None: what this machine lets.

    Raises:
        StudyError: this machine cannot run a single trial.
        TaskError: the data are missing.
    """
    there = available_cpus(), torch.cuda.device_count()
    if concurrent is None:
        concurrency(space.resources, *there)  # before anything is timed
    room = room_of(space) if concurrent is None else None
    run_seconds = timed_run(training)
    training, choice = planned(training, space.batching, None, room)
    finalists, rates = space.finalists, len(space.learning_rate.grid)
    epochs = prepare(training).epochs
    rungs = rungs_of(space.learning_rate.halving, epochs, rates)
    return Plan(
        candidates=candidates(space.grammar),
        trials=_trials(space),
        baselines=len(space.baselines),
        rates=rates,
        seeds=len(space.seeds),
        concurrent=concurrent or side_by_side(space.resources, training.processes, *there)[0],
        run_seconds=run_seconds,
        batching=choice,
        placebos=space.placebos,
        finalists=most_finalists(space),
        fresh_seeds=finalists.seeds if finalists else 0,
        budget=finalists.budget if finalists else 1.0,
        tasks=finalists.tasks if finalists else (),
        swept=most_swept(space),
        share=share_of_steps(rungs, epochs, rates),
    )


def most_finalists(space: Space) -> int:
    """How many finalists there are when every trial has a score."""
    if space.finalists is None:
        return 0
    own = min(space.finalists.k, _trials(space)) + len(space.baselines)
    return own * (1 + len(space.finalists.tasks)) + space.placebos


def most_swept(space: Space) -> int:
    """How many of them are trained at the other rates too."""
    if space.finalists is None or not space.finalists.sweep:
        return 0
    return min(space.finalists.k, _trials(space)) + len(space.baselines)


def concurrency(resources: Resources, cpus: float, gpus: float) -> int:
    """How many trials the resources let run at once.

    >>> concurrency(Resources(cpu=1, gpu=0.25), cpus=16, gpus=1)
    4

    Raises:
        StudyError: not even one.
    """
    wanted = (("cpu", resources.cpu, cpus), ("gpu", resources.gpu, gpus))
    problems = [
        f"resources.{name}: a trial asks for {asked:g}, and there are {there:g};"
        " expected at most that"
        for name, asked, there in wanted
        if asked > there
    ]
    if problems:
        raise StudyError(*problems)
    return int(min(slots(resources, cpus, gpus), resources.max_concurrent or math.inf))


def slots(resources: Resources, cpus: float, gpus: float) -> int:
    """How many trials fit on one node.

    A share of a GPU is of one GPU: two that have 0.4 left each take no third trial of 0.4.

    >>> slots(Resources(cpu=1, gpu=0.4), cpus=16, gpus=2)
    4
    """
    # A hair above, for 3 × 0.1 / 0.1 is 2.99….
    most = [math.floor(cpus / resources.cpu + 1e-9)]
    if 0 < resources.gpu < 1:
        most.append(math.floor(1 / resources.gpu + 1e-9) * math.floor(gpus))
    elif resources.gpu:
        most.append(math.floor(gpus / resources.gpu + 1e-9))
    return min(most)


def side_by_side(
    resources: Resources, processes: int | None, cpus: float, gpus: float
) -> tuple[int, float]:
    """How many trials run side by side, and the share of a GPU that each takes.

    processes: the planner's choice, for each GPU where there are some; None: as many as the
    resources let.

    >>> side_by_side(Resources(gpu=0.1), 3, cpus=16, gpus=2)
    (6, 0.3333)

    Raises:
        StudyError: not even one.
    """
    most = concurrency(resources, cpus, gpus)
    if processes is None:
        return most, resources.gpu
    if not resources.gpu:
        return min(most, processes), 0.0
    share = max(resources.gpu, math.floor(1e4 / processes) / 1e4)  # Ray counts in 1e-4
    return min(most, processes * max(1, int(gpus))), share


def room_of(space: Space, address: str | None = None) -> Room | None:
    """What the number of processes may be chosen from; None where the space file or a cluster
    settles it.

    address: of the cluster; None: RAY_ADDRESS, or this machine.
    """
    resources, cpus = space.resources, available_cpus()
    joined = address or os.environ.get("RAY_ADDRESS")
    if joined or resources.max_concurrent is not None or resources.workers > 1:
        return None
    try:
        most = concurrency(resources, cpus, min(1, torch.cuda.device_count()))
    except StudyError:
        return None
    trials = _trials(space) + len(space.baselines) + space.placebos
    return Room(most, cpus, trials * len(space.learning_rate.grid) * len(space.seeds))


def candidates(grammar: Grammar | None) -> str:
    """How many candidates a grammar has: by function where that is quickly told, else a bound."""
    if grammar is None:
        return "none: the baselines alone"
    size = grammar.count()
    if size.continuous:
        return (
            f"at most {size.derivations:,} shapes, with up to {size.continuous} ranges of numbers"
        )
    if size.derivations > COUNTED:
        return f"at most {size.derivations:,}"
    distinct = {fingerprint(candidate.expression) for candidate in grammar.candidates()}
    return f"{len(distinct):,} distinct, from {size.derivations:,} derivations"


def _trials(space: Space) -> int:
    if space.grammar is None:
        return 0
    size = space.grammar.count()
    return space.search.trials if size.continuous else min(space.search.trials, size.derivations)


def timed_run(training: Training) -> float:
    """Seconds of one run with ReLU at the default rate, on one worker's threads.

    A long run is stopped after its first epoch and the rest reckoned by steps.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(training.threads)
    try:
        prepared = prepare(training)
        began = time.perf_counter()
        run = run_epochs(
            prepared.task,
            prepared.splits,
            prepared.maker("relu(x)"),
            options=prepared.options,
            recipe=replace(prepared.recipe, compile="off"),
            learning_rate=training.grid.default,
            seed=training.grid.seeds[0],
            device=prepared.device,
        )
        done = prepared.steps
        for point in run:
            if time.perf_counter() - began > ENOUGH:
                done = point.step
                break
        return (time.perf_counter() - began) * prepared.steps / done
    finally:
        torch.set_num_threads(threads)
