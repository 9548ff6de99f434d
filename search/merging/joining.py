"""Several studies of one space as one: which trials are the same, and what is kept of each.

The same function found twice is one trial: the record of the study in which it came furthest, with
the runs of the others at rates and seeds that it lacks, and its best rate chosen anew. A baseline
or a placebo is the same by its name. Finalists go with the trial whose activation they train, if
the rate at which they were frozen is still its best; a seed counts once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from optuna.trial import FrozenTrial

from search.errors import shortened
from search.finalists import Entered
from search.records import Run, Trial
from search.training.rates import best_rate, mean_scores

FURTHEST = ("complete", "pruned", "diverged", "rejected", "failed", "running", "duplicate")
"""Which record is kept of one function: the first of these states, then that of the first study."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A trial of one of the studies."""

    study: int
    """Its place among the studies."""
    place: str
    """What a joined trial remembers of it: `results/a/12`."""
    baselines: bool
    frozen: FrozenTrial
    trial: Trial
    """Its record with its runs; as it was launched, of one that has not ended."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A trial of the joined study. Its numbers are still those of its own."""

    kept: Kept
    """Whose record it is."""
    trial: Trial
    """That record, with what was joined to it."""
    members: tuple[Kept, ...]
    """All that are this one now; empty for a duplicate, which stands for another."""


@dataclass(slots=True)
class Joining:
    """What came of it."""

    trials: list[Joined] = field(default_factory=list)
    """Those of the search, then the finalists."""
    remarks: list[str] = field(default_factory=list)
    """A line for everything that contradicts, and for everything that is left out."""
    shared: int = 0
    """Functions that several of the studies have."""


def joined(studies: Sequence[Sequence[Kept]], maximize: bool, default: float) -> Joining:
    """The trials of all studies.

    Args:
        default: the rate that one would take without tuning, to which ties of the best rate go.
    """
    found, groups = Joining(), dict[tuple[object, ...], list[Kept]]()
    finalists: list[Kept] = []
    for kept in (each for study in studies for each in study):
        if kept.trial.origin == "finalist":
            finalists.append(kept)
        else:
            groups.setdefault(_identity(kept), []).append(kept)
    for members in groups.values():
        found.trials.append(_one(members, maximize, default, found.remarks))
        found.shared += len({member.study for member in members}) > 1
    parents: dict[tuple[int, int | None], Joined] = {
        (member.study, member.trial.number): each
        for each in found.trials
        for member in each.members
    }
    found.trials += _finalists(finalists, parents, found.remarks)
    return found


def _identity(kept: Kept) -> tuple[object, ...]:
    trial = kept.trial
    if trial.state == "duplicate":  # one that is told as such, with the trial that it repeats
        return trial.state, kept.study, trial.number
    return trial.origin, trial.fingerprint if trial.origin == "search" else trial.name


def _one(members: list[Kept], maximize: bool, default: float, remarks: list[str]) -> Joined:
    ordered = sorted(members, key=lambda kept: FURTHEST.index(kept.trial.state))
    first, *others = ordered
    trial = replace(first.trial, sources=tuple(member.place for member in members))
    for other in others:
        remarks += _contradictions(first, other)
        trial = replace(trial, runs=(*trial.runs, *_further_runs(trial, other.trial)))
    if trial.state == "complete" and len(trial.runs) > len(first.trial.runs):
        rate = best_rate(trial.runs, maximize, default)
        assert rate is not None, "the rate that was the best is still there"
        trial = replace(trial, best_rate=rate, score=mean_scores(trial.runs)[rate])
    return Joined(first, trial, () if trial.state == "duplicate" else tuple(members))


def _further_runs(trial: Trial, other: Trial) -> Iterator[Run]:
    """The runs of another that `trial` lacks; one that ended with less keeps what it ended with."""
    known = {(run.learning_rate, run.seed) for run in trial.runs}
    joins = trial.state == other.state == "complete" or trial.state == "running"
    for run in other.runs if joins else ():
        if (run.learning_rate, run.seed) not in known and run.state != "pruned":
            yield run


def _contradictions(first: Kept, other: Kept) -> Iterator[str]:
    """What two studies tell differently of one function."""
    trial, against = first.trial, other.trial
    what = shortened(trial.name or trial.expression, 80)
    ends = ("complete", "diverged", "rejected")
    if trial.state != against.state and trial.state in ends and against.state in ends:
        told = f"{trial.state} in {first.place}, {against.state} in {other.place}"
        yield f"{what}: {told}: the former is kept"
    known = {(run.learning_rate, run.seed): run for run in trial.runs}
    both = [(known[key], run) for run in against.runs if (key := _key(run)) in known]
    differ = [(a, b) for a, b in both if (a.state, a.score, a.test) != (b.state, b.score, b.test)]
    if differ:
        scores = ((a.score, b.score) for a, b in differ)
        gaps = [abs(a - b) for a, b in scores if a is not None and b is not None]
        most = f", by up to {max(gaps):.3g}" if gaps else ""
        told = f"{len(differ)} of {len(both)} runs differ{most}"
        yield f"{what}: {told}: those of {first.place} are kept, not of {other.place}"


def _key(run: Run) -> tuple[float, int]:
    return run.learning_rate, run.seed


def _finalists(
    finalists: Sequence[Kept],
    parents: Mapping[tuple[int, int | None], Joined],
    remarks: list[str],
) -> Iterator[Joined]:
    """The finalists of trials that are there, each seed once."""
    entered: dict[tuple[tuple[str, ...], Entered], dict[int, Kept]] = {}
    for kept in finalists:
        trial = kept.trial
        parent = parents.get((kept.study, trial.of))
        if parent is None or not (trial.task or trial.best_rate == parent.trial.best_rate):
            now = "its trial is lost" if parent is None else f"it is {parent.trial.best_rate} now"
            told = f"frozen at its best rate {trial.best_rate}, and {now}: left out"
            remarks.append(f"{kept.place}: a finalist of {shortened(trial.expression)} was {told}")
            continue
        own = Entered(0, trial.budget, trial.task, bool(trial.rates))
        known = entered.setdefault((parent.trial.sources, own), {})
        for other in {id(each): each for each in known.values()}.values():
            remarks += _contradictions(other, kept)
        new = tuple(seed for seed in trial.seeds if seed not in known)
        known |= dict.fromkeys(new, kept)
        if new or not trial.seeds:
            yield Joined(kept, _with_seeds(trial, new, kept.place), ())


def _with_seeds(trial: Trial, seeds: tuple[int, ...], place: str) -> Trial:
    """A finalist with these of its seeds, and with the runs that found its rate on another task."""
    left_out = set(trial.seeds) - set(seeds)
    trial = replace(trial, sources=(place,))
    if not left_out:
        return trial
    runs = tuple(run for run in trial.runs if run.seed not in left_out)
    tests = [run.test for run in runs if run.test is not None]
    score = fmean(tests) if trial.state == "complete" else trial.score
    return replace(trial, seeds=seeds, runs=runs, score=score)
