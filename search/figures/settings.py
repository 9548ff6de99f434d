"""What a report must know about a study besides its trials, and where it is written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from search.errors import StudyError, shortened
from search.figures.notation import Scale, rate_text

MOST_SEEDS = 10_000
"""A space has no more."""


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """One study, as its report describes it. Everything but the name may be unknown."""

    name: str
    task: str = ""
    metric: str = "accuracy"
    maximize: bool = True
    percent: bool = True
    """Show scores times 100, with a % sign."""
    default_rate: float | None = None
    grid: tuple[float, ...] = ()
    seeds: tuple[int, ...] = ()
    sampler: str = ""
    budget: int | None = None
    """Trials asked for."""
    objectives: tuple[str, ...] = ("score",)
    stopping: str = ""
    halving: str = ""
    places: int | None = None
    """Candidates that are trained again after the search; None: nothing is."""
    fresh_seeds: int = 0
    further_tasks: tuple[str, ...] = ()
    smallest_gain: float | None = None
    """The smallest gain that matters, in units of the score."""
    placebos: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    space_text: str = ""

    @property
    def scale(self) -> Scale:
        """How scores are written."""
        return Scale(percent=self.percent)

    def rows(self) -> list[tuple[str, str]]:
        """The settings as (word, value) for a table; what is unknown is left out."""
        better = "higher is better" if self.maximize else "lower is better"
        grid = ", ".join(rate_text(rate) for rate in self.grid)
        default = "" if self.default_rate is None else f" (default {rate_text(self.default_rate)})"
        rows = [
            ("task", ": ".join(filter(None, (self.task, self.environment.get("title", ""))))),
            ("score", f"{self.metric} on the validation split, {better}"),
            ("model and data", _listed(self.options)),
            ("recipe", _listed(self.recipe)),
            ("learning rates", grid + default),
            ("seeds", ", ".join(str(seed) for seed in self.seeds)),
            ("sampler", self.sampler),
            ("budget", "" if self.budget is None else f"{self.budget} trials"),
            ("objectives", ", ".join(self.objectives)),
            ("early stopping", self.stopping),
            ("halving of the rates", self.halving),
            ("finalists", self._finalists()),
            ("placebos", str(self.placebos or "")),
        ]
        return [(word, value) for word, value in rows if value]

    def _finalists(self) -> str:
        if self.places is None:
            return ""
        kept = f"the best {self.places} and every baseline"
        further = "".join(f", on {task} too" for task in self.further_tasks)
        matters = ""
        if self.smallest_gain is not None:
            matters = f"; gains from {self.scale.points(self.smallest_gain)} matter"
        seeds = f"{self.fresh_seeds} fresh seeds, {self.metric} on the test split"
        return f"{kept}, {seeds}{further}{matters}"


def settings_from_folder(folder: Path) -> ReportSettings:
    """The settings of the study in `folder`, from its space.yaml and environment.json.

    Raises:
        StudyError: the folder, or one of the two files, is missing or cannot be read.
    """
    if not folder.is_dir():
        raise StudyError(
            f"{folder}: no such folder; expected the results of a study, such as results/gated"
        )
    text = _read(folder / "space.yaml", "the resolved space of a study")
    environment = _read(folder / "environment.json", "what a study writes about its machine")
    return _settings(
        folder,
        text,
        _parsed(folder / "space.yaml", yaml.safe_load, text),
        _parsed(folder / "environment.json", json.loads, environment),
    )


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StudyError(f"{path}: no such file; expected {what}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: cannot be read: {error}") from None


def _parsed(path: Path, parse: Any, text: str) -> dict[str, Any]:
    try:
        data = parse(text)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise StudyError(f"{path}: cannot be read: {shortened(error, 200)}") from None
    if not isinstance(data, dict):
        raise StudyError(f"{path}: expected keys and values; found {type(data).__name__}")
    return data


def _settings(folder: Path, text: str, space: dict, environment: dict) -> ReportSettings:
    task = _mapping(space.get("task")) or {"name": space.get("task")}
    rates, search = _mapping(space.get("learning_rate")), _mapping(space.get("search"))
    finalists = _mapping(space.get("finalists"))
    metric = str(environment.get("metric", "accuracy"))
    default = rates.get("default", environment.get("default_rate"))
    trials = search.get("trials") if space.get("activation") else None  # an ablation proposes none
    options = {key: value for key, value in task.items() if key != "name"}
    try:
        return ReportSettings(
            name=str(space.get("name", folder.name)),
            task=str(task.get("name") or ""),
            metric=metric,
            maximize=bool(environment.get("maximize", True)),
            percent=bool(environment.get("percent", "accuracy" in metric)),
            default_rate=None if default is None else float(default),
            grid=tuple(float(rate) for rate in rates.get("grid") or ()),
            seeds=_seeds(space.get("seeds")),
            sampler=str(search.get("sampler") or "") if space.get("activation") else "",
            budget=None if trials is None else int(trials),
            objectives=tuple(str(name) for name in search.get("objectives") or ("score",)),
            stopping=str(search.get("stopping") or ""),
            halving=_listed(_mapping(rates.get("halving"))),
            places=int(finalists.get("k", 0)) if finalists else None,
            fresh_seeds=int(finalists.get("seeds", 0)),
            further_tasks=tuple(str(task) for task in finalists.get("tasks") or ()),
            smallest_gain=float(finalists.get("smallest_gain") or 0) or None,
            placebos=int(space.get("placebos") or 0),
            options=_mapping(environment.get("options") or options),
            recipe=_mapping(environment.get("recipe") or space.get("recipe")),
            environment=environment,
            space_text=text,
        )
    except (TypeError, ValueError, OverflowError) as error:
        told = f"not a resolved space: {shortened(error, 200)}"
        raise StudyError(f"{folder / 'space.yaml'}: {told}") from None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _seeds(value: Any) -> tuple[int, ...]:
    if isinstance(value, int) and value > MOST_SEEDS:
        raise ValueError(f"{shortened(value)} seeds")
    return tuple(range(value)) if isinstance(value, int) else tuple(int(s) for s in value or ())


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)
