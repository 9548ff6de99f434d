"""The study: the single truth about a search, in an Optuna storage that only the driver writes.

`results/<name>/study.db` holds two Optuna studies. `<name>-<hash of the definition>` has the
candidates, and the baselines that the grammar can express, as points that the sampler learns
from. `…/baselines` has the other baselines: without parameters, they would empty the search space
that samplers infer from what all finished trials share.

Every run is written when it ends, every trial's record just before Optuna is told; so a driver
killed at any moment loses no finished run. Its unfinished trials are told FAIL when the study is
opened again, and each goes on in a new trial with the same choices and the runs it has.

What Optuna is told is what happened: COMPLETE only with finite values of a whole sweep, PRUNED
when a scheduler stopped it, FAIL otherwise, with the record's own state and reason.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from difflib import unified_diff
from pathlib import Path
from typing import Any, Literal

import optuna
import yaml
from optuna.exceptions import OptunaError
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import RDBStorage, get_storage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL, event
from sqlalchemy.exc import SQLAlchemyError

from search.errors import StudyError
from search.language.fingerprint import fingerprint
from search.records import Point, Run, Trial, run_from_json, to_json, trial_from_json
from search.space.grammar import Candidate
from search.space.settings import Space

DATABASE = "study.db"
ATTEMPTS = 3
"""How often a trial may be cut off without finishing one more run before it is given up."""
ALIKE = 3
"""So many failures with one reason, before anything worked, end the search: the task is wrong."""
TRAINED = ("complete", "pruned", "diverged", "failed")
"""States that count against the budget."""

_UNFINISHED = (TrialState.RUNNING, TrialState.WAITING)


@dataclass(frozen=True, slots=True)
class Launch:
    """A candidate that is to be trained now."""

    number: int
    """Of its record; see `record_number`."""
    expression: str
    origin: Literal["search", "baseline"]
    name: str = ""
    runs: tuple[Run, ...] = ()
    """Runs that an earlier driver saw the end of."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a sampler proposed, with its handle in Optuna; it is to be launched or refused."""

    asked: optuna.Trial
    candidate: Candidate
    fingerprint: str
    by: str


def record_number(baselines: bool, number: int) -> int:
    """One number for both Optuna studies: their own in the search, -1, -2, … in the baselines.

    >>> record_number(False, 3), record_number(True, 0)
    (3, -1)
    """
    return -1 - number if baselines else number


class Study:
    """An open study: what is known of its trials, and what is told about them.

    `trials` mirrors the storage, by number; only the methods below change either.
    """

    def __init__(self, space: Space, storage: Any, search: optuna.Study, baselines: optuna.Study):
        self.space = space
        self.name = search.study_name
        self._storage = storage
        self._optuna = (search, baselines)
        self._asked: dict[int, optuna.Trial] = {}
        self._curves: dict[int, dict[tuple[float, int], list[Point]]] = {}
        self._held: dict[int, Trial] = {}
        self.release(counted=True)
        self._enqueue_baselines()
        self.trials = {trial.number: trial for trial in _records(*self._optuna)}

    # --- what is known -----------------------------------------------------------------------

    def counts(self) -> Counter[str]:
        """Trials of the search by state; baselines are not counted."""
        return Counter(t.state for t in self.trials.values() if t.origin == "search")

    def trained(self) -> int:
        """Candidates of the search that were trained: what the budget counts."""
        counts = self.counts()
        return sum(counts[state] for state in TRAINED)

    def running(self, origin: str = "") -> int:
        """Trials that have not ended."""
        return sum(t.state == "running" and origin in ("", t.origin) for t in self.trials.values())

    def seen(self) -> dict[str, int]:
        """The first trial of every function that was ever launched or refused."""
        numbers: dict[str, int] = {}
        for trial in self.trials.values():
            if trial.state != "duplicate":
                numbers.setdefault(trial.fingerprint, trial.number)
        return numbers

    # --- what comes next ---------------------------------------------------------------------

    def next_waiting(self) -> Launch | None:
        """A baseline, or a trial to go on with: what needs no sampler."""
        for baselines, study in reversed(list(enumerate(self._optuna))):
            while study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                launch = self._pop(bool(baselines), study)
                if launch is not None:
                    return launch
        return None

    def _pop(self, baselines: bool, study: optuna.Study) -> Launch | None:
        study.sampler = RandomSampler(seed=0)  # never draws: every choice is given
        asked = study.ask()
        kept = asked.user_attrs["candidate"]
        if not baselines:
            assert self.space.grammar is not None, "only a grammar's points wait in its study"
            self.space.grammar.sample(asked)
        return self._launched(record_number(baselines, asked.number), asked, kept)

    def _launched(self, number: int, asked: optuna.Trial, kept: dict[str, Any]) -> Launch:
        runs = _runs(asked.user_attrs)
        self._asked[number] = asked
        self.trials[number] = Trial(
            number=number,
            origin=kept["origin"],
            name=kept["name"],
            expression=kept["expression"],
            fingerprint=kept["fingerprint"],
            state="running",
            choices=asked.params,
            runs=runs,
        )
        return Launch(number, kept["expression"], kept["origin"], kept["name"], runs)

    def propose(self, sampler: BaseSampler, by: str) -> Proposal:
        """Ask a sampler for a candidate."""
        self._search.sampler = sampler
        return self._proposal(self._search.ask(), by)

    def propose_choices(self, choices: Mapping[str, Any], by: str) -> Proposal:
        """Propose the candidate that these choices derive."""
        self._search.enqueue_trial(dict(choices))
        return self._proposal(self._search.ask(), by)

    def _proposal(self, asked: optuna.Trial, by: str) -> Proposal:
        assert self.space.grammar is not None, "there is nothing to propose without a grammar"
        candidate = self.space.grammar.sample(asked)
        return Proposal(asked, candidate, fingerprint(candidate.expression), by)

    def launch(self, proposal: Proposal) -> Launch:
        """Take a proposal: it is written, and runs from now on."""
        kept = _candidate(
            "search", "", str(proposal.candidate.expression), proposal.fingerprint, proposal.by
        )
        proposal.asked.set_user_attr("candidate", kept)
        return self._launched(proposal.asked.number, proposal.asked, kept)

    def refuse(
        self,
        proposal: Proposal,
        state: Literal["rejected", "duplicate"],
        reason: str,
        duplicate_of: int | None = None,
    ) -> Trial:
        """Turn a proposal down before training."""
        self.launch(proposal)
        return self._end(
            proposal.asked.number, state=state, reason=reason, duplicate_of=duplicate_of
        )

    # --- what is told ------------------------------------------------------------------------

    def add_run(self, number: int, run: Run) -> None:
        """Write a run that ended."""
        self._asked[number].set_user_attr(f"run {run.learning_rate!r} {run.seed}", to_json(run))
        trial = self.trials[number]
        self.trials[number] = replace(trial, runs=(*trial.runs, run))

    def add_epoch(
        self, number: int, epoch: int, value: float, points: Mapping[tuple[float, int], Point]
    ) -> None:
        """Write the value of a trial after an epoch; Optuna keeps it, a pruned trial's last one
        is what the sampler learns from."""
        curves = self._curves.setdefault(number, {})
        for key, point in points.items():
            curves.setdefault(key, []).append(point)
        if math.isfinite(value) and len(self.space.search.objectives) == 1:
            self._asked[number].report(value, epoch)

    def prune(self, number: int, epoch: int, by: str) -> Trial:
        """A scheduler stopped the trial after `epoch`: its unfinished runs are kept as pruned."""
        reason = f"stopped by {by} after epoch {epoch}"
        finished = {(run.learning_rate, run.seed) for run in self.trials[number].runs}
        for (rate, seed), curve in self._curves.get(number, {}).items():
            if (rate, seed) not in finished:
                steps = curve[-1].step
                self.add_run(
                    number, Run(rate, seed, "pruned", reason, curve=tuple(curve), steps=steps)
                )
        return self._end(number, state="pruned", reason=reason)

    def finish(self, number: int, **outcome: Any) -> Trial:
        """A trial ended as `outcome` says (fields of its record).

        A failure before anything worked is held back: when `ALIKE` of them give one reason, it is
        the task that is wrong, and the trials are not used up.

        Raises:
            StudyError: that many trials failed alike, and none worked.
        """
        if outcome["state"] == "failed" and not self._anything_worked():
            self._held[number] = replace(self.trials[number], **outcome)
            reasons = Counter(trial.reason for trial in self._held.values())
            reason, times = reasons.most_common(1)[0]
            if times >= ALIKE:
                raise StudyError(f"{self.name}: the first {times} trials failed alike: {reason}")
            return self._held[number]
        trial = self._end(number, **outcome)
        if trial.state != "failed":
            self.accept_failures()
        return trial

    def accept_failures(self) -> None:
        """Tell the failures that were held back, as something worked or nothing is left to try."""
        for number, trial in list(self._held.items()):
            del self._held[number]
            self._end(number, state="failed", reason=trial.reason, seconds=trial.seconds)

    def _anything_worked(self) -> bool:
        return any(t.state in ("complete", "pruned", "diverged") for t in self.trials.values())

    def _end(self, number: int, **outcome: Any) -> Trial:
        trial = checked(replace(self.trials[number], **outcome), self.space.search.objectives)
        asked = self._asked.pop(number)
        # The record first: told without it, a trial would be finished and empty.
        asked.set_user_attr("record", _without_runs(trial))
        self._tell(number < 0, asked.number, trial)
        self.trials[number] = trial
        self._curves.pop(number, None)
        return trial

    def _tell(self, baselines: bool, number: int, trial: Trial) -> None:
        study = self._optuna[baselines]
        if trial.state == "complete":
            study.tell(number, values_of(trial, self.space.search.objectives))
        else:
            state = TrialState.PRUNED if trial.state == "pruned" else TrialState.FAIL
            study.tell(number, state=state)

    # --- beginning and end -------------------------------------------------------------------

    @property
    def _search(self) -> optuna.Study:
        return self._optuna[0]

    def release(self, counted: bool) -> None:
        """Let go of all trials that have not ended: each waits as a new trial, with its runs.

        Args:
            counted: whether this counts as an attempt (a driver that was killed, by a candidate
                perhaps), and not when a user asked for the end.
        """
        for baselines, study in enumerate(self._optuna):
            for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                self._release(bool(baselines), study, frozen, counted)
        self._asked.clear()

    def _release(
        self, baselines: bool, study: optuna.Study, frozen: FrozenTrial, counted: bool
    ) -> None:
        kept, record = frozen.user_attrs.get("candidate"), frozen.user_attrs.get("record")
        if kept is None:  # asked for, never launched
            study.tell(frozen.number, state=TrialState.FAIL)
            return
        if record is not None:  # ended, not yet told
            trial = trial_from_json({**record, "runs": [], "choices": {}})
            self._tell(baselines, frozen.number, trial)
            return
        runs = {key: run for key, run in frozen.user_attrs.items() if key.startswith("run ")}
        attempt = (kept["attempt"] if len(runs) == kept["carried"] else 0) + counted
        if attempt < ATTEMPTS:
            reason = "driver stopped; goes on in a later trial"
            again = kept | {"attempt": attempt, "carried": len(runs), "continues": frozen.number}
            if not _continued(study, frozen.number):
                study.enqueue_trial(frozen.params, user_attrs={"candidate": again, **runs})
            self._storage.set_trial_user_attr(frozen._trial_id, "continued", True)
        else:
            reason = f"driver stopped {ATTEMPTS} times while it ran, and no run finished meanwhile"
        trial = Trial(
            number=record_number(baselines, frozen.number),
            state="failed",
            reason=reason,
            **{key: kept[key] for key in ("origin", "name", "expression", "fingerprint")},
        )
        self._storage.set_trial_user_attr(frozen._trial_id, "record", _without_runs(trial))
        self._tell(baselines, frozen.number, trial)

    def _enqueue_baselines(self) -> None:
        """Let every baseline wait that is not in the study yet."""
        known = {
            trial.user_attrs["candidate"]["name"]
            for study in self._optuna
            for trial in study.get_trials(deepcopy=False)
            if "candidate" in trial.user_attrs
        }
        for name in self.space.baselines:
            if name in known:
                continue
            expression = self.space.baseline(name)
            choices = self.space.grammar.find(expression) if self.space.grammar else None
            kept = _candidate(
                "baseline", name, str(expression), fingerprint(expression), "baseline"
            )
            study = self._optuna[choices is None]
            study.enqueue_trial(choices or {}, user_attrs={"candidate": kept})

    def close(self) -> None:
        """Write everything back into the one file."""
        self._storage.remove_session()
        _engine(self._storage).dispose()


def checked(trial: Trial, objectives: Sequence[str]) -> Trial:
    """The trial, as failed when it claims to be complete without finite values."""
    if trial.state != "complete" or all(map(math.isfinite, values_of(trial, objectives))):
        return trial
    values = ", ".join(f"{name} is {getattr(trial, name)}" for name in objectives)
    return replace(trial, state="failed", reason=f"complete, yet {values}")


def values_of(trial: Trial, objectives: Sequence[str]) -> list[float]:
    """The objectives' values; NaN where there is none."""
    found = [getattr(trial, objective) for objective in objectives]
    return [math.nan if value is None else float(value) for value in found]


def directions(objectives: Sequence[str], maximize: bool) -> list[str]:
    """Optuna's directions of the objectives.

    >>> directions(("score", "cost"), maximize=True)
    ['maximize', 'minimize']
    """
    up = {"score": maximize, "cost": False}
    return ["maximize" if up[objective] else "minimize" for objective in objectives]


def study_name(space: Space) -> str:
    """The name and a hash of what identifies the study."""
    text = json.dumps(space.definition(), sort_keys=True)
    return f"{space.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def open_study(folder: Path, space: Space, maximize: bool) -> Study:
    """The study of `space` in `folder`, begun if there is none.

    Raises:
        StudyError: the folder has another study, or its database cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / DATABASE
    with storage_errors(path):
        storage = _open_storage(path)
        name, wanted = study_name(space), directions(space.search.objectives, maximize)
        _refuse_another(folder, space, name, storage)
        pair = []
        for each in (name, f"{name}/baselines"):
            study = optuna.create_study(
                storage=storage, study_name=each, directions=wanted, load_if_exists=True
            )
            found = [direction.name.lower() for direction in study.directions]
            if found != wanted:
                raise StudyError(f"{path}: {each} has directions {found}; expected {wanted}")
            pair.append(study)
        if "definition" not in pair[0].user_attrs:
            pair[0].set_user_attr("definition", space.definition())
        return Study(space, storage, *pair)


def read_trials(folder: Path) -> list[Trial]:
    """All trials of the study in `folder`, by number: baselines outside the grammar come first.

    A trial that goes on in a later one is left out, as its runs are in that one; so is what was
    proposed but not launched.

    Raises:
        StudyError: there is no study, or it cannot be read.
    """
    path = folder / DATABASE
    if not path.is_file():
        raise StudyError(f"{path}: no such file; expected the results of a study")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with storage_errors(path):
        storage = _open_storage(path)
        names = optuna.get_all_study_names(storage)
        found = [name for name in names if f"{name}/baselines" in names]
        if len(found) != 1:
            raise StudyError(f"{path}: holds {len(found)} studies; expected one")
        pair = [
            optuna.load_study(study_name=name, storage=storage)
            for name in (found[0], f"{found[0]}/baselines")
        ]
        trials = _records(*pair)
        storage.remove_session()
        _engine(storage).dispose()
    return trials


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Tell what the database refuses in one line."""
    try:
        yield
    except (SQLAlchemyError, OptunaError, OSError) as error:
        cause = error.__cause__ or error
        told = getattr(cause, "orig", None) or cause
        raise StudyError(f"{path}: cannot be used: {' '.join(str(told).split())}") from error


def _open_storage(path: Path) -> Any:
    url = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 30}})
    # A write-ahead log survives a killed process as the default journal does and commits without
    # waiting for the disk: a trial with ten runs costs 31 ms of the driver instead of 87. (A power
    # cut may lose the last second, and never what was written before it.)
    event.listen(storage.engine, "connect", _use_write_ahead_log)
    storage.engine.dispose()
    return get_storage(storage)


def _use_write_ahead_log(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _engine(storage: Any) -> Any:
    return getattr(storage, "_backend", storage).engine


def _refuse_another(folder: Path, space: Space, name: str, storage: Any) -> None:
    """Raises StudyError, with the difference, when the folder has a study of another definition."""
    names = optuna.get_all_study_names(storage)
    others = [each for each in names if not each.endswith("/baselines") and each != name]
    if name in names or not others:
        return
    kept = optuna.load_study(study_name=others[0], storage=storage).user_attrs.get("definition", {})
    raise StudyError(
        f"{space.source}: the space has changed since the study in {folder} was begun:",
        *difference(kept, space.definition()),
        "expected the space as it was; or another name in it; or --fresh, which sets the old"
        f" results aside as {folder}.1",
    )


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The lines that differ between two definitions, as YAML, with their neighbours."""
    texts = [
        yaml.safe_dump(dict(each), sort_keys=False, allow_unicode=True, width=100).splitlines()
        for each in (old, new)
    ]
    return list(unified_diff(*texts, "the study", "the space", lineterm="", n=1))


def _candidate(
    origin: str, name: str, expression: str, fingerprint: str, by: str
) -> dict[str, Any]:
    return {
        "origin": origin,
        "name": name,
        "expression": expression,
        "fingerprint": fingerprint,
        "by": by,
        "attempt": 0,
        "carried": 0,
    }


def _continued(study: optuna.Study, number: int) -> bool:
    """Whether a later trial goes on with this one: a driver was killed while it arranged that."""
    return any(
        trial.user_attrs.get("candidate", {}).get("continues") == number
        for trial in study.get_trials(deepcopy=False)
    )


def _without_runs(trial: Trial) -> dict[str, Any]:
    """A trial's record; runs and choices are on the Optuna trial already."""
    return {k: v for k, v in to_json(trial).items() if k not in ("runs", "choices")}


def _runs(attributes: Mapping[str, Any]) -> tuple[Run, ...]:
    runs = [run_from_json(value) for key, value in attributes.items() if key.startswith("run ")]
    return tuple(sorted(runs, key=lambda run: (run.learning_rate, run.seed)))


def _records(search: optuna.Study, baselines: optuna.Study) -> list[Trial]:
    found = [
        _record(bool(kind), frozen)
        for kind, study in enumerate((search, baselines))
        for frozen in study.get_trials(deepcopy=False)
        if "candidate" in frozen.user_attrs
        and "continued" not in frozen.user_attrs
        and frozen.state != TrialState.WAITING
    ]
    return sorted(found, key=lambda trial: trial.number)


def _record(baselines: bool, frozen: FrozenTrial) -> Trial:
    attributes = frozen.user_attrs
    record = attributes.get("record")
    runs = _runs(attributes)
    if record is not None:
        return replace(
            trial_from_json({**record, "runs": [], "choices": {}}),
            choices=frozen.params,
            runs=runs,
        )
    kept = attributes["candidate"]
    return Trial(
        number=record_number(baselines, frozen.number),
        state="running",
        choices=frozen.params,
        runs=runs,
        **{key: kept[key] for key in ("origin", "name", "expression", "fingerprint")},
    )
