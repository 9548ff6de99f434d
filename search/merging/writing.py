"""What is written of a merged study: its database, and what stands beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import TrialState

from search.database.attributes import record_attribute, record_number, run_key, values_of
from search.database.definitions import definition_name
from search.database.mirror import Mirror
from search.database.opening import SUFFIX
from search.database.storage import DATABASE, Place, connected, disconnect
from search.decisions import LOG, Log
from search.integrity.sealing import sealed
from search.merging.joining import Joined, Joining
from search.merging.sources import TRAINED, Source
from search.records import to_json
from search.results import write_whole
from search.trials.ladder import rung_attributes
from search.trials.launches import first_of_each


def write_study(
    draft: Path, definition: dict[str, Any], sources: Sequence[Source], found: Joining
) -> None:
    place = Place(draft / DATABASE)
    with connected(place) as backend:
        name, storage = definition_name(definition), Mirror(backend)
        studies = [
            optuna.create_study(storage=storage, study_name=each, directions=sources[0].directions)
            for each in (name, name + SUFFIX)
        ]
        studies[0].set_user_attr("definition", definition)
        if exhausted := next((each.exhausted for each in sources if each.exhausted), ""):
            studies[0].set_user_attr("exhausted", exhausted)
        _write_trials(studies, definition, sources, found)
        disconnect(backend)


def _write_trials(
    studies: Sequence[optuna.Study],
    definition: Mapping[str, Any],
    sources: Sequence[Source],
    found: Joining,
) -> None:
    """Every trial under its new number, which those that name it are told."""
    objectives = tuple(definition["search"].get("objectives", ("score",)))
    numbers, renumbered = _numbered(found.trials)
    orders = _orders(sources)
    firsts = first_of_each(
        replace(each.trial, number=number)
        for each, number in zip(found.trials, numbers, strict=True)
    )
    for each, number in zip(found.trials, numbers, strict=True):
        trial, own = replace(each.trial, number=number), each.kept.study
        if trial.of is not None:
            trial = replace(trial, of=renumbered[own, trial.of])
        if trial.state == "duplicate" and trial.fingerprint in firsts:
            first = firsts[trial.fingerprint]
            reason = f"the same function as trial {first}"
            trial = replace(trial, duplicate_of=first, reason=reason)
        added, study = replace(each, trial=trial), studies[each.kept.baselines]
        if trial.state == "running":
            _let_wait(study, added)
        else:
            _add(study, added, objectives, orders[own])


def _numbered(trials: Sequence[Joined]) -> tuple[list[int], dict[tuple[int, int], int]]:
    """The new number of every trial; and by the place of its study and the number it had there."""
    numbers: list[int] = []
    renumbered: dict[tuple[int, int], int] = {}
    counts = {False: 0, True: 0}
    for each in trials:
        numbers.append(record_number(each.kept.baselines, counts[each.kept.baselines]))
        counts[each.kept.baselines] += 1
        for member in each.members:
            renumbered[member.study, member.trial.number] = numbers[-1]
    return numbers, renumbered


def _orders(sources: Sequence[Source]) -> list[int]:
    """What is added to the order of each study's decisions at rungs, so that all count on."""
    found = [0]
    for source in sources:
        kept = (rung_attributes(each.frozen.user_attrs).values() for each in source.trials)
        found.append(found[-1] + max((each["order"] for some in kept for each in some), default=0))
    return found


def _candidate(each: Joined) -> dict[str, Any]:
    """What was launched, as it would be of a study that had it from the beginning."""
    kept = dict(each.kept.frozen.user_attrs["candidate"])
    for key in ("continues", "checkpoints", "deaths"):
        kept.pop(key, None)
    if each.trial.of is not None:
        kept |= {"of": each.trial.of, "seeds": list(each.trial.seeds)}
    kept |= {"attempt": 0, "carried": len(each.trial.runs)}
    return kept | {"sources": list(each.trial.sources)}


def _runs(each: Joined) -> dict[str, Any]:
    return {run_key(run): sealed(to_json(run)) for run in each.trial.runs}


def _let_wait(study: optuna.Study, each: Joined) -> None:
    """One that has not ended goes on with the runs it has."""
    attributes = {"candidate": _candidate(each), **_runs(each)}
    study.enqueue_trial(each.kept.trial.choices, user_attrs=attributes)


def _add(study: optuna.Study, each: Joined, objectives: tuple[str, ...], order: int) -> None:
    frozen, trial = deepcopy(each.kept.frozen), each.trial
    rungs = rung_attributes(frozen.user_attrs)
    frozen.user_attrs = {
        "candidate": _candidate(each),
        **_runs(each),
        **{key: kept | {"order": kept["order"] + order} for key, kept in rungs.items()},
        "record": record_attribute(trial),
    }
    frozen.system_attrs = {}
    if frozen.state == TrialState.COMPLETE:
        frozen.values = values_of(trial, objectives)
    study.add_trial(frozen)


def write_beside(
    draft: Path,
    output: Path,
    definition: Mapping[str, Any],
    sources: Sequence[Source],
    found: Joining,
) -> None:
    """space.yaml, environment.json and log.jsonl of the merged study."""
    first = sources[0]
    budget = budget_of(found, sources)
    finalists = next((s.space["finalists"] for s in sources if s.space.get("finalists")), None)
    placebos = max(int(each.space.get("placebos") or 0) for each in sources)
    space = {key: value for key, value in definition.items() if key != "start"}
    space |= {"search": {**definition["search"], "trials": budget}}
    space |= {"finalists": finalists, "placebos": placebos}
    text = yaml.safe_dump(space, sort_keys=False, allow_unicode=True, width=100)
    write_whole(draft / "space.yaml", text)
    sessions = [each for s in sources for each in s.environment.get("sessions") or ()]
    environment = {
        **first.environment,
        "maximize": first.directions[0] == "maximize",
        "study": definition_name(definition),
        "space": str(space_file(output, sources)),
        "sessions": sessions,
        "seconds": round(sum(float(each.get("seconds", 0)) for each in sessions), 1),
        "merged": [f"{each.folder}: {each.study}" for each in sources],
    }
    text = json.dumps(environment, indent=2, ensure_ascii=False) + "\n"
    write_whole(draft / "environment.json", text)
    Log(draft / LOG)(
        "merged",
        study=definition_name(definition),
        of=[{"folder": str(each.folder), "study": each.study} for each in sources],
        trials=len(found.trials),
        remarks=found.remarks,
    )


def budget_of(found: Joining, sources: Sequence[Source]) -> int:
    """Candidates that are trained, and those that the studies would still have trained."""
    search = [each.trial for each in found.trials if each.trial.origin == "search"]
    return sum(each.state in TRAINED for each in search) + sum(each.left for each in sources)


def space_file(output: Path, sources: Sequence[Source]) -> Path:
    """The file to go on with: the merged folder's own, unless its task lies beside another."""
    task = str(sources[0].definition["task"]["name"])
    if task.endswith(".py") and not Path(task).is_absolute():
        return Path(str(sources[0].environment.get("space", "SPACE.yaml")))
    return output / "space.yaml"
