"""The keys `learning_rate`, `seeds`, `search`, `finalists`, `placebos` and `resources` of a space
file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from search.errors import TaskError
from search.space.document import shown
from search.space.fields import Fields, as_number, is_whole, said
from search.space.grammar import Grammar
from search.space.settings import (
    DEFAULT_SEEDS,
    OBJECTIVES,
    ONE_OBJECTIVE,
    SAMPLERS,
    STOPPING,
    STRATEGIES,
    Checkpoints,
    Finalists,
    Halving,
    LearningRates,
    Promotion,
    Resources,
    SearchSettings,
)

if TYPE_CHECKING:
    from search.tasks.task import Task

SEARCH_KEYS = ("sampler", "trials", "seed", "objectives", "stopping", "promotion")
PROMOTION_KEYS = ("first", "eta")
RATE_KEYS = ("grid", "default", "extend", "halving")
HALVING_KEYS = ("keep", "rungs")
MOST_RUNGS = 20
FINALIST_KEYS = ("k", "seeds", "budget", "tasks", "sweep", "smallest_gain")
CHECKPOINT_KEYS = ("seconds", "steps", "folder")
RESOURCE_KEYS = ("cpu", "gpu", "max_concurrent", "strategy", "workers")
MOST_WORKERS = 1024
LARGEST_SEED = 2**32 - 1
MOST_FRESH_SEEDS = 1000
MOST_PLACEBOS = 1000


def read_learning_rates(fields: Fields) -> LearningRates | None:
    """The grid in ascending order, or None when it or the default cannot be used."""
    if "learning_rate" not in fields.values:
        fields.missing("learning_rate", "{grid: [0.001, 0.01, 0.1], default: 0.01}")
        return None
    below = fields.below("learning_rate")
    if not isinstance(fields.values["learning_rate"].data, dict):
        if fields.is_null("learning_rate"):
            fields.wrong("learning_rate", "{grid: [0.001, 0.01, 0.1], default: 0.01}")
        return None
    below.only(RATE_KEYS)
    grid = _grid(below)
    extend = below.truth("extend", True)
    halving = _halving(below)
    if "default" not in below.values:
        below.missing("default", "one rate of the grid")
        return None
    default = below.number("default", math.nan, 0, above=True)
    if grid and not math.isnan(default) and default not in grid:
        rates = ", ".join(f"{rate:g}" for rate in grid)
        below.wrong("default", f"a rate of the grid ({rates})")
    return LearningRates(grid, default, extend, halving) if grid else None


def _halving(fields: Fields) -> Halving | None:
    """When the worst rates leave; None without the key, or with null or `off` behind it."""
    value = fields.values.get("halving")
    if value is None or value.data in (None, False, "off"):
        return None
    if value.data is True or value.data == "on":
        return Halving()
    below, default = fields.below("halving"), Halving()
    below.only(HALVING_KEYS)
    keep = below.number("keep", default.keep, 0, above=True)
    if keep >= 1:
        below.wrong("keep", "a number > 0 and < 1")
    return Halving(keep, below.whole("rungs", default.rungs, 1, MOST_RUNGS))


def _grid(fields: Fields) -> tuple[float, ...]:
    if "grid" not in fields.values:
        fields.missing("grid", "a list of rates, such as [0.001, 0.01, 0.1]")
        return ()
    items = fields.items("grid", "a list of rates, such as [0.001, 0.01, 0.1]")
    rates: list[float] = []
    for item in items or []:
        rate = as_number(item)
        if rate is None or rate <= 0:
            fields.problems.add(
                item.place, f"learning_rate.grid: expected a number > 0, got {said(item)}"
            )
        elif rate in rates:
            fields.problems.add(item.place, f"learning_rate.grid: {rate:g} stands twice")
        else:
            rates.append(rate)
    if items == []:
        fields.problems.add(
            fields.values["grid"].place, "learning_rate.grid is empty; expected at least one rate"
        )
    return tuple(sorted(rates))


def read_seeds(fields: Fields) -> tuple[int, ...]:
    """A list of seeds, or how many: 3 stands for 0, 1, 2."""
    value = fields.values.get("seeds")
    if value is None:
        return DEFAULT_SEEDS
    if is_whole(value) and isinstance(value.data, int) and 1 <= value.data <= 10_000:
        return tuple(range(value.data))
    if not isinstance(value.data, list) or not value.data:
        fields.wrong("seeds", "a list such as [0, 1], or how many (1 … 10000)")
        return ()
    seeds: list[int] = []
    for item in value.data:
        seed = item.data if is_whole(item) and isinstance(item.data, int) else -1
        if not 0 <= seed <= LARGEST_SEED:
            expected = f"expected a whole number 0 … {LARGEST_SEED}, got {said(item)}"
            fields.problems.add(item.place, f"seeds: {expected}")
        elif seed in seeds:
            fields.problems.add(item.place, f"seeds: {seed} stands twice")
        seeds.append(seed)
    return tuple(seeds)


def read_resources(fields: Fields) -> Resources:
    """What one trial takes."""
    below = fields.below("resources")
    below.only(RESOURCE_KEYS)
    most = None if below.is_null("max_concurrent") else below.whole("max_concurrent", 0, 1)
    strategy = None if below.is_null("strategy") else below.word("strategy", STRATEGIES, "")
    gpu = below.number("gpu", 0.0, 0)
    return Resources(
        cpu=below.number("cpu", 1.0, 0, above=True),
        gpu=gpu,
        max_concurrent=most or None,
        strategy=strategy or None,
        workers=_workers(below, gpu) if strategy else _no_workers(below),
    )


def _workers(fields: Fields, gpu: float) -> int:
    """How many processes share a run: as said, else one for each GPU."""
    default = int(gpu) if gpu >= 2 else 1
    found = fields.whole("workers", default, 1, MOST_WORKERS)
    if found < 2:
        key = "workers" if "workers" in fields.values else "strategy"
        fields.wrong(key, "2 workers or more for ddp, such as {gpu: 4, strategy: ddp}")
    elif gpu and gpu != found:
        fields.wrong("gpu", f"{found} of them, one for each of the {found} workers")
    return found


def _no_workers(fields: Fields) -> int:
    if fields.whole("workers", 1, 1, MOST_WORKERS) > 1:
        fields.wrong("workers", "1, or strategy: ddp beside it")
    return 1


def read_finalists(fields: Fields, own_task: str | None, folder: Path) -> Finalists | None:
    """What is trained again with fresh seeds; None without the key, or with null behind it.

    folder: that of the space file, for tasks that are files.
    """
    if "finalists" not in fields.values or fields.is_null("finalists"):
        return None
    below, default = fields.below("finalists"), Finalists()
    below.only(FINALIST_KEYS)
    return Finalists(
        k=below.whole("k", default.k, 0),
        seeds=below.whole("seeds", default.seeds, 1, MOST_FRESH_SEEDS),
        budget=below.number("budget", default.budget, 1),
        tasks=_further_tasks(below, own_task, folder),
        sweep=below.truth("sweep", default.sweep),
        smallest_gain=_smallest_gain(below),
    )


def _smallest_gain(fields: Fields) -> float | None:
    if "smallest_gain" not in fields.values or fields.is_null("smallest_gain"):
        return None
    return fields.number("smallest_gain", 0.0, 0, above=True) or None


def _further_tasks(fields: Fields, own_task: str | None, folder: Path) -> tuple[str, ...]:
    from search.tasks.task import find_task  # here, since a task imports torch

    names: list[str] = []
    for item in fields.items("tasks", "a list of tasks, such as [fashion_mnist]") or []:
        name = item.text.strip()
        if isinstance(item.data, dict | list) or not name:
            expected = f"finalists.tasks: expected a task, got {said(item)}"
            fields.problems.add(item.place, expected)
        elif name in (own_task, *names):
            what = "is the search's own" if name == own_task else "stands twice"
            fields.problems.add(item.place, f"finalists.tasks: {shown(name)} {what}")
        else:
            names.append(name)
            try:
                find_task(name, folder)
            except TaskError as error:
                fields.problems.add(item.place, *(f"finalists.{p}" for p in error.problems))
    return tuple(names)


def read_placebos(fields: Fields, baselines: Sequence[str], searches: bool) -> int:
    """How many renamed ReLUs are entered; they are compared with the baseline relu."""
    found = fields.whole("placebos", 0, 0, MOST_PLACEBOS)
    if found and not searches:
        fields.wrong("placebos", "0, since there is no activation to search")
    elif found and "relu" not in baselines:
        fields.wrong("placebos", "0, or relu among the baselines, with which they are compared")
    return found


def read_batching(fields: Fields) -> int | None:
    """`auto` (None), `off` (1), or how many runs may train in one program."""
    value = fields.values.get("batching")
    if value is None or value.data == "auto":
        return None
    if value.data is False or value.data == "off":
        return 1
    if is_whole(value) and isinstance(value.data, int) and value.data >= 1:
        return value.data
    fields.wrong("batching", "auto, off, or a whole number ≥ 1")
    return None


def read_storage(fields: Fields) -> str | None:
    """The URL of a database server; no message repeats it, as it may hold a password."""
    value = fields.values.get("storage")
    if value is None or value.data is None:
        return None
    from search.database.storage import url_problem  # here, since that needs Optuna

    text = value.text.strip() if not isinstance(value.data, dict | list) else ""
    if problem := url_problem(text):
        place = replace(value.place, text=value.place.text.partition("=")[0])  # of --set
        fields.problems.add(place, f"storage: {problem}")
        return None
    return text


def read_timeout(fields: Fields) -> float | None:
    """Seconds that a run may take; None without the key, or with null behind it."""
    if "timeout" not in fields.values or fields.is_null("timeout"):
        return None
    return fields.number("timeout", math.inf, 0, above=True)


def read_checkpoints(fields: Fields) -> Checkpoints | None:
    """`auto`, `off` (None), or how often and where a training is written down."""
    value, default = fields.values.get("checkpoints"), Checkpoints()
    if value is None or value.data in ("auto", None):
        return default
    if value.data is False or value.data == "off":
        return None
    if not isinstance(value.data, dict):
        fields.wrong("checkpoints", "auto, off, or such as {seconds: 60} or {steps: 500}")
        return default
    below = fields.below("checkpoints")
    below.only(CHECKPOINT_KEYS)
    steps = None if below.is_null("steps") else below.whole("steps", 0, 1) or None
    seconds = None if steps or below.is_null("seconds") else default.seconds
    if not below.is_null("seconds") and "seconds" in below.values:
        seconds = below.number("seconds", 1.0, 0, above=True)
    if seconds is None and steps is None:
        fields.wrong("checkpoints", "seconds or steps between two of them, or off")
    folder = below.text("folder", default.folder) or default.folder
    if "://" in folder:
        below.wrong("folder", "a folder that all machines share, no address")
    return Checkpoints(seconds, steps, folder)


def read_search(
    fields: Fields, searches: bool, grammar: Grammar | None, task: Task | None
) -> SearchSettings:
    """Sampler, budget and objectives, judged against the grammar and the task's metric."""
    below = fields.below("search")
    below.only(SEARCH_KEYS)
    default = SearchSettings()
    stopping = None if below.is_null("stopping") else below.word("stopping", STOPPING, "")
    found = SearchSettings(
        sampler=below.word("sampler", SAMPLERS, default.sampler),
        trials=below.whole("trials", default.trials if searches else 0, 0),
        seed=below.whole("seed", default.seed, 0, LARGEST_SEED),
        objectives=_objectives(below, task),
        stopping=stopping or None,
        promotion=_promotion(below),
    )
    _check_promotion(below, found)
    if found.trials and not searches:
        below.wrong("trials", "0, since there is no activation to search")
    _check_sampler(below, found, grammar)
    return found


def _promotion(fields: Fields) -> Promotion | None:
    """Where candidates wait; None without the key, or with null or `off` behind it."""
    value = fields.values.get("promotion")
    if value is None or value.data in (None, False, "off"):
        return None
    if value.data is True or value.data == "on":
        return Promotion()
    below, default = fields.below("promotion"), Promotion()
    below.only(PROMOTION_KEYS)
    found = Promotion(
        below.number("first", default.first, 0, above=True),
        below.number("eta", default.eta, 1, above=True),
    )
    if found.first >= 1:
        below.wrong("first", "a share of a run, > 0 and < 1")
    return found


def _check_promotion(fields: Fields, search: SearchSettings) -> None:
    """Note what cannot be had together."""
    if search.promotion is None:
        return
    place = fields.values["promotion"].place
    if search.stopping is not None:
        told = f"search.promotion: expected it or stopping: {search.stopping}, not both"
        fields.problems.add(place, told)
    if len(search.objectives) > 1:
        told = "search.promotion: rungs compare one objective, and here are "
        fields.problems.add(place, told + ", ".join(search.objectives))


def _objectives(fields: Fields, task: Task | None) -> tuple[str, ...]:
    """`score` or `loss`, and `cost`; the name of the task's metric is another word for `score`."""
    found: list[str] = []
    metric = task.metric if task else "accuracy"
    words = tuple(dict.fromkeys((metric, *OBJECTIVES)))
    items = fields.items("objectives", f"a list of {' and '.join(words)}")
    for item in items or []:
        word = item.data if isinstance(item.data, str) else ""
        name = "score" if word == metric else word
        if name not in OBJECTIVES:
            expected = f"search.objectives: expected one of {', '.join(words)}"
            fields.problems.add(item.place, f"{expected}, got {said(item)}")
        elif name in found:
            fields.problems.add(item.place, f"search.objectives: {shown(word)} stands twice")
        elif {name, *found} >= {"score", "loss"}:
            told = f"search.objectives: {metric} or loss; the report shows both"
            fields.problems.add(item.place, told)
        else:
            found.append(name)
    if items == []:
        fields.wrong("objectives", f"at least one of {', '.join(words)}")
    return tuple(found) or ("score",)


def _check_sampler(fields: Fields, search: SearchSettings, grammar: Grammar | None) -> None:
    """Note what the sampler cannot do with these objectives or this grammar."""
    value = fields.values.get("sampler")
    if value is None:
        return
    place, sampler = value.place, search.sampler
    if len(search.objectives) > 1 and sampler in ONE_OBJECTIVE:
        several = ", ".join(s for s in SAMPLERS if s not in ONE_OBJECTIVE)
        fields.problems.add(
            place, f"search.sampler: {sampler} takes one objective; several are served by {several}"
        )
    if sampler == "cmaes" and find_spec("cmaes") is None:
        fields.problems.add(
            place, "search.sampler: cmaes needs a package of that name; expected pip install cmaes"
        )
    if grammar is None:
        return
    size = grammar.count()
    if sampler == "bruteforce" and size.continuous:
        fields.problems.add(
            place,
            "search.sampler: bruteforce needs a finite space, and this grammar has ranges;"
            " expected {a, b, c} instead of [a, b], or another sampler",
        )
    if sampler == "cmaes" and (size.derivations > 1 or size.continuous < 2):
        fields.problems.add(
            place,
            f"search.sampler: cmaes moves numbers only, and this grammar has {size.derivations:,}"
            f" shapes and {size.continuous} ranges; expected one shape with two ranges or more,"
            " or another sampler (tpe, gp)",
        )
