"""The study: the single truth about a search. Only the driver writes it.

Every run is written when it ends, every trial's record just before Optuna is told; so a driver
killed at any moment loses no finished run. What it left unfinished is told FAIL when the study is
opened again, and goes on in a new trial with the same choices and the runs it has.

Optuna is told what happened: COMPLETE only with finite values of a whole sweep, PRUNED when a
scheduler stopped it, FAIL otherwise, with the record's own state and reason.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import TrialState

from search.database.attributes import (
    candidate_attribute,
    launched,
    record_attribute,
    record_number,
    run_key,
    runs_of,
)
from search.database.mirror import write_attributes
from search.database.opening import Database, open_database
from search.database.reading import count_waiting, read_trials, records
from search.database.rows import all_stays
from search.database.storage import Place, reading, storage_errors
from search.decisions import LOG, Decide, Log, run_summary, trial_summary, unlogged
from search.finalists import Entry
from search.integrity.sealing import sealed
from search.records import Origin, Point, Run, Trial, to_json, unfinished
from search.space.settings import Space
from search.trials import continuing, entering
from search.trials.continuing import Cause
from search.trials.failures import Failures
from search.trials.ladder import Ladder, promoted_to, taken_up
from search.trials.launches import Launch, Proposal, ended_as, launch_of, proposed
from search.trials.tally import Tally

__all__ = ["Launch", "Proposal", "Study", "open_study", "read_trials"]


class Study:
    """An open study: what is known of its trials, and what is told about them.

    `tally` has its trials; only the methods below change those or the storage.
    """

    def __init__(self, space: Space, database: Database, maximize: bool, log: Decide = unlogged):
        self.space = space
        self.log = log
        self.maximize = maximize
        self._database = database
        self._asked: dict[int, optuna.Trial] = {}
        self._curves: dict[int, dict[tuple[float, int], list[Point]]] = {}
        self._failures = Failures()
        self.release(counted=True)
        entering.enter_baselines(space, database)
        entering.enter_placebos(space, database)
        self._waiting = {kind: count_waiting(study) for kind, study in database.studies}
        self.tally = Tally(maximize, records(database))
        self.ladder = Ladder(space.search.promotion, maximize, database)
        for number in self.ladder.waiting:
            self._asked[number], self._curves[number] = taken_up(database, number)
        log("resumed" if self.trials else "opened", study=self.name, trials=len(self.trials))

    # --- what is known ---------------------------------------------------------------------------

    @property
    def trials(self) -> dict[int, Trial]:
        """By number; of those that have ended, without their runs, which the database has."""
        return self.tally.trials

    @property
    def name(self) -> str:
        """Optuna's name of the study."""
        return self._database.search.study_name

    @property
    def place(self) -> Place:
        """Of its database."""
        return self._database.place

    @property
    def baselines(self) -> optuna.Study:
        """Optuna's study of the baselines that the grammar cannot express."""
        return self._database.baselines

    def existing(self) -> int:
        """How many candidates were ever asked for, whatever became of them."""
        return len(self._database.search.get_trials(deepcopy=False))

    def counts(self) -> Counter[str]:
        """Trials of the search by state; baselines are not counted."""
        return self.tally.of("search")

    def trained(self) -> int:
        """Candidates of the search that were trained: what the budget counts."""
        held = sum(self.trials[number].origin == "search" for number in self._failures.held)
        return held + self.tally.count("search")

    def running(self, origin: Origin | None = None) -> list[Trial]:
        """Trials that have not ended."""
        held, found = self._failures.held, self.tally.running.values()
        return [t for t in found if t.number not in held and origin in (None, t.origin)]

    def active(self) -> list[Trial]:
        """Those that a worker has, or will have without a word from anybody."""
        return [trial for trial in self.running() if trial.number not in self.ladder.waiting]

    def checkpoints(self) -> set[str]:
        """The folders of checkpoints from which something may go on."""
        return continuing.going_on(self._database)

    def is_complete(self) -> bool:
        """Whether nothing is left to train: no sampler is asked to tell."""
        searches = self.space.grammar is not None and not self.exhausted
        wants = searches and self.trained() < self.space.search.trials
        wants = wants or any(self._waiting.values()) or bool(self.ladder.waiting)
        return not wants and not self._missing_finalists()

    @property
    def exhausted(self) -> str:
        """Why the space has no candidate left, whatever the budget; empty while it may have."""
        return self._database.search.user_attrs.get("exhausted", "")

    def exhaust(self, reason: str) -> None:
        """Remember that the whole space was tried."""
        self._database.search.set_user_attr("exhausted", reason)
        self.log("exhausted", reason=reason)

    def seen(self) -> dict[str, int]:
        """The first trial of every function that was ever launched or refused, by fingerprint."""
        return self.tally.firsts

    # --- what comes next -------------------------------------------------------------------------

    def next_waiting(self) -> Launch | None:
        """A baseline, or a trial to go on with: what needs no sampler."""
        for baselines, study in reversed(self._database.studies):
            while self._waiting[baselines]:
                self._waiting[baselines] -= 1
                launch = self._pop(baselines, study)
                if launch is not None:
                    return launch
        return None

    def _pop(self, baselines: bool, study: optuna.Study) -> Launch | None:
        study.sampler = RandomSampler(seed=0)  # draws nothing: every choice is given
        asked = study.ask()
        kept = asked.user_attrs.get("candidate")
        if kept is None:  # the driver was killed between enqueuing and launching it
            study.tell(asked.number, state=TrialState.FAIL)
            return None
        number = record_number(baselines, asked.number)
        derived = kept["fingerprint"] if baselines else self._proposal(asked, "").fingerprint
        launch = self._launch(number, asked, kept)
        self._log_launch(number, kept)
        if derived == kept["fingerprint"]:
            return launch
        reason = f"its choices now derive another function than {kept['expression']}"
        self._end(number, state="failed", reason=reason)
        return None

    def _launch(self, number: int, asked: optuna.Trial, kept: Mapping[str, Any]) -> Launch:
        attributes = self._database.storage.get_trial(asked._trial_id).user_attrs
        self._asked[number] = asked
        trial = replace(launched(number, kept), runs=runs_of(attributes))
        self.tally.put(trial)
        self.ladder.remember(number, attributes)
        return launch_of(
            trial, kept, continuing.checkpoints_of(number, kept), promoted_to(attributes)
        )

    def promote(self) -> Launch | None:
        """A candidate that waited at a rung and goes on."""
        if (number := self.ladder.next()) is None:
            return None
        asked = self._asked[number]
        epoch = self.ladder.go_on(asked, number)
        self.log("promoted", trial=number, epoch=epoch)
        launch = self._launch(number, asked, asked.user_attrs["candidate"])
        return replace(launch, told=epoch, seconds=self.ladder.seconds[number])

    def propose(self, sampler: BaseSampler, by: str) -> Proposal:
        """Ask a sampler for a candidate."""
        self._database.search.sampler = sampler
        return self._proposal(self._database.search.ask(), by)

    def propose_choices(self, choices: Mapping[str, Any], by: str) -> Proposal:
        """Propose the candidate that these choices derive."""
        self._database.search.enqueue_trial(dict(choices))
        return self._proposal(self._database.search.ask(), by)

    def _proposal(self, asked: optuna.Trial, by: str) -> Proposal:
        assert self.space.grammar is not None, "only a grammar's candidates are in the search"
        return proposed(self.space.grammar, asked, by)

    def launch(self, proposal: Proposal) -> Launch:
        """Take a proposal: it is written, and runs from now on."""
        launch = self._take(proposal)
        self._log_launch(launch.number, proposal.asked.user_attrs["candidate"])
        return launch

    def _log_launch(self, number: int, kept: Mapping[str, Any]) -> None:
        told = {key: kept.get(key) for key in ("by", "origin", "name", "continues", "of")}
        self.log("launched", trial=number, **told, expression=kept["expression"])

    def _take(self, proposal: Proposal) -> Launch:
        candidate = proposal.candidate
        text, own = str(candidate.expression), proposal.fingerprint
        kept = candidate_attribute("search", "", text, own, proposal.by, candidate.choices)
        proposal.asked.set_user_attr("candidate", kept)
        return self._launch(proposal.asked.number, proposal.asked, kept)

    def refuse(
        self,
        proposal: Proposal,
        state: Literal["rejected", "duplicate"],
        reason: str,
        duplicate_of: int | None = None,
    ) -> Trial:
        """Turn a proposal down before training."""
        number = self._take(proposal).number
        self.log(
            "refused", trial=number, by=proposal.by, expression=str(proposal.candidate.expression)
        )
        return self._end(number, state=state, reason=reason, duplicate_of=duplicate_of)

    # --- what is told ----------------------------------------------------------------------------

    def begin(self, number: int) -> None:
        """A worker has the candidate in its hands: from here on, a killed driver is an attempt."""
        self._asked[number].set_user_attr("begun", True)

    def add_run(self, number: int, run: Run) -> None:
        """Write a run that ended."""
        self.add_runs(number, [run])

    def add_runs(self, number: int, runs: Sequence[Run]) -> None:
        """Write runs that ended, all or none of them."""
        attributes = {run_key(run): sealed(to_json(run)) for run in runs}
        write_attributes(self._database.storage, self._asked[number]._trial_id, attributes)
        trial = self.trials[number]
        self.tally.put(replace(trial, runs=(*trial.runs, *runs)))
        for run in runs:
            self.log("run", trial=number, **run_summary(run))

    def add_epoch(
        self, number: int, epoch: int, value: float, points: Mapping[tuple[float, int], Point]
    ) -> None:
        """Write a trial's value after an epoch: the last one of a pruned trial is what samplers
        learn from it. The points are kept until the trial ends."""
        curves = self._curves.setdefault(number, {})
        for key, point in points.items():
            curves.setdefault(key, []).append(point)
        if math.isfinite(value) and len(self.space.search.objectives) == 1:
            self._asked[number].report(value, epoch)

    def reach(self, launch: Launch, epoch: int, value: float, seconds: float) -> bool:
        """A trial has its value at a rung; whether it waits there, after so many seconds."""
        number, curves = launch.number, self._curves.get(launch.number, {})
        waits = self.ladder.reach(self._asked[number], launch, epoch, value, curves, seconds)
        self.log("rung", trial=number, epoch=epoch, value=value, waits=waits)
        return waits

    def give_up(self) -> list[Trial]:
        """Prune those that wait at a rung, once nobody runs who could change who is promoted."""
        ended = []
        for number in [] if self.active() else sorted(self.ladder.waiting):
            epoch, reason = self.ladder.give_up(self._asked[number], number)
            ended.append(self.prune(number, epoch, reason, self.ladder.seconds[number]))
        return ended

    def prune(self, number: int, epoch: int, reason: str = "", seconds: float = 0.0) -> Trial:
        """A trial ends after `epoch`, stopped by a scheduler if no other reason is given: its
        unfinished runs are kept as pruned."""
        reason = reason or f"stopped by {self.space.search.stopping} after epoch {epoch}"
        known = self.trials[number].runs
        self.add_runs(number, unfinished(self._curves.get(number, {}), known, reason))
        return self._end(number, state="pruned", reason=reason, seconds=seconds)

    def finish(self, number: int, **outcome: Any) -> Trial:
        """A trial ended as `outcome` (fields of its record) says.

        A failure before anything worked is held back (`trials/failures.py`): when all give one
        reason, it is the task that is wrong, and no candidate is used up by that.

        Raises:
            StudyError: that many trials failed alike, and none worked.
        """
        if outcome["state"] != "failed" or self.tally.anything_worked():
            trial = self._end(number, **outcome)
            if self.tally.anything_worked():
                self.accept_failures()
            return trial
        self._failures.hold(self.space.name, number, outcome)
        return self.trials[number]

    def accept_failures(self) -> None:
        """Tell the failures that were held back: something worked, or nothing is left to try."""
        for number, outcome in self._failures.taken():
            self._end(number, **outcome)

    def _end(self, number: int, **outcome: Any) -> Trial:
        trial = ended_as(self.trials, number, outcome, self.space.search.objectives)
        asked = self._asked.pop(number)
        # The record first: told without it, a trial would be finished and empty.
        asked.set_user_attr("record", record_attribute(trial))
        told = self._database.baselines if number < 0 else self._database.search
        continuing.tell(told, trial, asked.number, self.space.search.objectives)
        self.tally.put(replace(trial, runs=()))
        self._curves.pop(number, None)
        self.log("ended", trial=number, **trial_summary(trial))
        return trial

    def lose(self, number: int, cause: Cause, told: str) -> Trial | None:
        """A trial's worker died: it waits as a new trial, with its runs.

        Returns:
            Its record where it was given up instead: it has failed, as `told`.
        """
        frozen = self._database.storage.get_trial(self._asked[number]._trial_id)
        if continuing.next_attempt(frozen.user_attrs, cause) is None:
            return self.finish(number, state="failed", reason=told)
        continuing.release(self._database, self.space.search.objectives, number < 0, frozen, cause)
        del self._asked[number]
        self.tally.drop(number)
        self.ladder.forget(number)
        self._curves.pop(number, None)
        self._waiting[number < 0] += 1
        self.log("lost", trial=number, cause=cause, reason=told)
        return None

    # --- beginning and end -----------------------------------------------------------------------

    def release(self, counted: bool = False) -> None:
        """Let go of all trials that have not ended: each waits as a new trial, with its runs.

        Args:
            counted: whether this was an attempt of what had begun: not when a user asked for the
                end, but when the driver was killed, by the candidate perhaps.
        """
        cause, objectives = "driver" if counted else "asked", self.space.search.objectives
        with self.storage_errors():
            continuing.release_all(self._database, objectives, cause)
        self._asked.clear()

    def enter_finalists(self, candidates: bool = True) -> int:
        """Let the finalists wait that are chosen by now and not in the study yet; how many. The
        longest come first, as the last ones keep other slots empty.

        candidates: whether they are chosen already; baselines and placebos are all taken.
        """
        missing = [e for e in self._missing_finalists() if candidates or e.trial.origin != "search"]
        missing.sort(key=lambda entry: -entry.trial.seconds)
        for entry in missing:
            entering.enter_finalist(entry, self._database)
        self._waiting[True] += len(missing)
        if missing:
            self.log("finalists", of=sorted({entry.trial.number for entry in missing}))
        return len(missing)

    def _missing_finalists(self) -> list[Entry]:
        known = self.trials.values()
        return entering.missing_finalists(self.space, self._database, known, self.maximize)

    def storage_errors(self) -> AbstractContextManager[None]:
        """In it, what the database refuses is a StudyError of one line."""
        return storage_errors(self._database.place)

    def close(self) -> None:
        """Leave one file behind."""
        self._database.close()


def open_study(folder: Path, space: Space, maximize: bool, fresh: bool = False) -> Study:
    """The study of `space` whose results are in `folder`, begun or gone on with.

    fresh: begin anew, where a server has such a study already.

    Raises:
        StudyError: the folder has another study, or its database cannot be used.
    """
    database = open_database(folder, space, maximize, fresh)
    with reading(database.place), all_stays():
        return Study(space, database, maximize, Log(folder / LOG))
