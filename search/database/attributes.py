"""What is written of a trial, as user attributes of Optuna's.

candidate           what was launched: origin, name, expression, fingerprint, who proposed it;
                    of a finalist the trial, rate, budget, task, seeds and further rates,
                    of a placebo its seeds
run <rate> <seed>   the record of a run, written when the run ends
record              the trial's own record, written just before Optuna is told its end
continued           set when the trial goes on in a later one
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from optuna.trial import FrozenTrial

from search.integrity.sealing import sealed
from search.records import Run, Trial, run_from_json, to_json, trial_from_json

RUN = "run "
"""How the keys of runs begin."""


def recorded(frozen: FrozenTrial) -> Trial | None:
    """The record of a trial that has ended, without its runs and choices."""
    record = frozen.user_attrs.get("record")
    return None if record is None else trial_from_json({**record, "runs": [], "choices": {}})


def record_attribute(trial: Trial) -> dict[str, Any]:
    """A trial's record as its attribute; runs and choices are on the Optuna trial already."""
    kept = to_json(trial).items()
    told = {k: v for k, v in kept if k not in ("runs", "choices", "finals")}
    # How many they are, so that a lost one is missed.
    return sealed(told | ({"runs": len(trial.runs)} if trial.state == "complete" else {}))


def candidate_attribute(
    origin: str,
    name: str,
    expression: str,
    fingerprint: str,
    by: str,
    choices: Mapping[str, Any],
) -> dict[str, Any]:
    """What is known of a trial before it runs.

    `by` is who proposed it; `attempt` and `carried` count how often a killed driver cut it off
    since its last finished run, and how many runs it has from those.
    """
    return {
        "origin": origin,
        "name": name,
        "expression": expression,
        "fingerprint": fingerprint,
        "by": by,
        "choices": dict(choices),
        "attempt": 0,
        "carried": 0,
    }


def launched(number: int, candidate: Mapping[str, Any]) -> Trial:
    """The record of a trial that runs."""
    return Trial(
        number=number,
        origin=candidate["origin"],
        name=candidate["name"],
        expression=candidate["expression"],
        fingerprint=candidate["fingerprint"],
        state="running",
        choices=dict(candidate["choices"]),
        best_rate=candidate.get("rate"),
        of=candidate.get("of"),
        budget=candidate.get("budget", 1.0),
        task=candidate.get("task", ""),
        seeds=tuple(candidate.get("seeds", ())),
        rates=tuple(candidate.get("rates", ())),
        sources=tuple(candidate.get("sources", ())),
    )


def run_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The runs among a trial's attributes."""
    return {key: value for key, value in attributes.items() if key.startswith(RUN)}


def run_key(run: Run) -> str:
    """The attribute of a run.

    >>> run_key(Run(0.01, 0, "complete"))
    'run 0.01 0'
    """
    return f"{RUN}{run.learning_rate!r} {run.seed}"


def runs_of(attributes: Mapping[str, Any]) -> tuple[Run, ...]:
    """The runs of a trial by rate and seed."""
    runs = map(run_from_json, run_attributes(attributes).values())
    return tuple(sorted(runs, key=lambda run: (run.learning_rate, run.seed)))


def record_number(baselines: bool, number: int) -> int:
    """One number for both Optuna studies: their own in the search, -1, -2, … in the baselines.

    >>> record_number(False, 3), record_number(True, 0)
    (3, -1)
    """
    return -1 - number if baselines else number


def checked(trial: Trial, objectives: Sequence[str]) -> Trial:
    """The trial, as failed when it claims to be complete without finite values."""
    if trial.state != "complete" or all(map(math.isfinite, values_of(trial, objectives))):
        return trial
    found = zip(objectives, values_of(trial, objectives), strict=True)
    values = ", ".join(f"{name} is {value}" for name, value in found)
    return replace(trial, state="failed", reason=f"complete, yet {values}")


def values_of(trial: Trial, objectives: Sequence[str]) -> list[float]:
    """The objectives' values; NaN where there is none."""
    found = [trial.cost if objective == "cost" else trial.score for objective in objectives]
    return [math.nan if value is None else float(value) for value in found]
