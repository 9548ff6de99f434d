"""The settings of a study: one frozen value, read once from a YAML file.

Below this value no dictionary travels. `load_space` (search/space/space.py) makes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from search.language.catalog import CATALOG
from search.language.expression import Expression
from search.language.parser import parse
from search.space.grammar import Grammar

STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
SAMPLERS = (
    "tpe",
    "random",
    "qmc",
    "gp",
    "cmaes",
    "nsgaii",
    "bruteforce",
    "evolution",
    "behaviour",
)
ONE_OBJECTIVE = ("cmaes",)
"""Samplers that refuse several objectives (Optuna 5.0)."""
OBJECTIVES = ("score", "loss", "cost")
STOPPING = ("asha", "median")
DEFAULT_SEEDS = (0, 1)
STRATEGIES = ("ddp",)
DEVICES = ("auto", "cpu", "cuda")
_NO_PART = (
    "finalists",
    "placebos",
    "resources",
    "device",
    "kernel",
    "batching",
    "timeout",
    "checkpoints",
    "data_root",
    "storage",
)
"""Keys that may change from one driver of a study to the next."""
_NO_PART_WITHIN = (
    ("search", "trials", True),
    ("search", "promotion", False),
    ("recipe", "compile", True),
    ("learning_rate", "halving", False),
)
"""Likewise, within another key: always, or where there is none, as before there was such a key."""


@dataclass(frozen=True, slots=True)
class Halving:
    """At which of a run's epochs the worst rates of a grid leave (`search.training.rungs`)."""

    keep: float = 0.5
    """The share of the rates that goes on after a rung."""
    rungs: int = 2


@dataclass(frozen=True, slots=True)
class LearningRates:
    """The grid that every candidate and baseline is trained on."""

    grid: tuple[float, ...]
    """Ascending."""
    default: float
    """One of the grid: the rate that one would take without tuning."""
    extend: bool = True
    """Whether to train beyond an end of the grid when the best rate stands there."""
    halving: Halving | None = None
    """None: every rate is trained to the end."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """At which of a run's epochs candidates wait until they are among the best there
    (`search.promotion`)."""

    first: float = 0.25
    """The first rung, as a share of a run."""
    eta: float = 2.0
    """The best 1/eta of a rung go on, and the next rung is eta times as far."""


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How candidates are proposed."""

    sampler: str = "tpe"
    trials: int = 40
    """Candidates of the search; baselines come on top."""
    seed: int = 0
    objectives: tuple[str, ...] = ("score",)
    """`score` (the task's metric) or `loss` (the validation loss in its place), and `cost`
    (seconds of a step relative to ReLU)."""
    stopping: str | None = None
    """`asha` or `median` stops runs early; None trains every run to its end."""
    promotion: Promotion | None = None
    """None: no candidate waits."""


@dataclass(frozen=True, slots=True)
class Finalists:
    """What is trained again after the search, with fresh seeds, and scored on the test split."""

    k: int = 3
    """The best candidates of the search; every baseline and every placebo comes on top."""
    seeds: int = 10
    """How many; never one of the search's."""
    budget: float = 1.0
    """How many times as long as in the search a run is."""
    tasks: tuple[str, ...] = ()
    """Further tasks that candidates and baselines are trained on, with their own default options;
    the rate is chosen there by a sweep with the search's first seed, then frozen."""
    sweep: bool = False
    """Whether they are trained at the other rates of the grid too, for a heatmap of fresh seeds."""
    smallest_gain: float | None = None
    """The smallest gain that matters, in units of the score: a smaller one is said to be so, and
    the seeds that a claim would take are counted for it."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What one trial takes."""

    cpu: float = 1.0
    gpu: float = 0.0
    max_concurrent: int | None = None
    strategy: str | None = None
    """`ddp`: a run is trained by several processes that share its batches; None: by one."""
    workers: int = 1
    """So many; each has its part of `cpu` and `gpu`."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """When a training is written down, to go on after an interruption."""

    seconds: float | None = 60.0
    """After so many since the last time, or since it began: shorter ones are never written."""
    steps: int | None = None
    """After every so many."""
    folder: str = "checkpoints"
    """Relative to the study's."""


def defining(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """What of a resolved space identifies the study; see `Space.definition`.

    >>> defining({"seeds": [0], "timeout": 5, "search": {"seed": 1, "trials": 9}})
    {'seeds': [0], 'search': {'seed': 1}, 'start': None}
    """
    kept = {key: value for key, value in resolved.items() if key not in _NO_PART}
    for within, key, always in _NO_PART_WITHIN:
        found = kept.get(within)
        if isinstance(found, Mapping) and (always or found.get(key) is None):
            kept[within] = {k: v for k, v in found.items() if k != key}
    rules = kept.get("activation")
    # The first rule is the start, and the order of keys is lost in a comparison of mappings.
    return kept | {"start": next(iter(rules)) if isinstance(rules, Mapping) and rules else None}


@dataclass(frozen=True, slots=True)
class Space:
    """Everything that a space file says."""

    name: str
    """The study's name and the folder of its results."""
    task: str
    """A built-in task, or a path to a `.py` file, relative to the space file."""
    learning_rate: LearningRates
    grammar: Grammar | None = None
    """None: no search, the baselines alone."""
    baselines: tuple[str, ...] = ()
    """Names; a formula without a name of its own is called by its text."""
    formulas: Mapping[str, str] = field(default_factory=dict)
    """The formulas of the baselines that are not in the catalogue, by name."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Overrides of the task's options."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Overrides of the task's recipe."""
    seeds: tuple[int, ...] = DEFAULT_SEEDS
    search: SearchSettings = field(default_factory=SearchSettings)
    resources: Resources = field(default_factory=Resources)
    finalists: Finalists | None = None
    """None: nothing is trained again."""
    placebos: int = 0
    """Renamed ReLUs that are entered as candidates."""
    gates: bool = True
    """Whether candidates must pass the gates before they are trained."""
    device: str = "auto"
    kernel: str = "auto"
    """What activations run as, one of `search.kernels.KERNELS`."""
    batching: int | None = None
    """At most how many runs train in one program; 1 is off, None chooses by measuring."""
    timeout: float | None = None
    """Seconds that a run may take; the candidate of one that takes longer has failed."""
    checkpoints: Checkpoints | None = Checkpoints()
    """None: an interrupted run begins anew."""
    data_root: str | None = None
    storage: str | None = None
    """The URL of the database server that keeps the trials; None: a file among the results."""
    source: Path = field(default=Path("space.yaml"), compare=False)
    """The file it was read from."""

    def baseline(self, name: str) -> Expression:
        """The expression of one of `baselines`."""
        if name in self.formulas:
            return parse(self.formulas[name], name)
        return CATALOG[name].expression

    @property
    def by_loss(self) -> bool:
        """Whether the validation loss is the score, in place of the task's own metric."""
        return "loss" in self.search.objectives

    def definition(self) -> dict[str, Any]:
        """What identifies the study, as JSON values: a change of it is another study.

        The number of trials, finalists, placebos, the resources, the device, the kernel, the
        batching, what is compiled, the time a run may take, the checkpoints, where the data lie and
        where the trials are kept are left out.
        """
        return defining(self.resolved())

    def resolved(self) -> dict[str, Any]:
        """Every setting, defaults filled in, in JSON values; as YAML it loads to an equal Space."""
        rules: dict[str, Any] = {}
        if self.grammar is not None:
            rules = {"activation": self.grammar.text(), "depth": self.grammar.depth}
        return {
            "name": self.name,
            "task": {"name": self.task, **_plain(self.options)},
            "recipe": _plain(self.recipe),
            **rules,
            "baselines": [self._written(name) for name in self.baselines],
            "learning_rate": _plain(asdict(self.learning_rate)),
            "seeds": list(self.seeds),
            "search": _plain(asdict(self.search)),
            "finalists": None if self.finalists is None else _plain(asdict(self.finalists)),
            "placebos": self.placebos,
            "resources": _plain(asdict(self.resources)),
            "gates": self.gates,
            "device": self.device,
            "kernel": self.kernel,
            "batching": {None: "auto", 1: "off"}.get(self.batching, self.batching),
            "timeout": self.timeout,
            "checkpoints": "off" if self.checkpoints is None else _plain(asdict(self.checkpoints)),
            "data_root": self.data_root,
            "storage": self.storage,
        }

    def _written(self, name: str) -> str | dict[str, str]:
        formula = self.formulas.get(name)
        return name if formula is None or formula == name else {name: formula}


def _plain(value: Any) -> Any:
    """Tuples as lists, mappings as dictionaries."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
