"""What a task is: data, a model, a loss, a metric and a recipe, all plain values and functions.

A task of one's own is a file that defines `TASK = Task(...)`; everything but `name`, `load` and
`build` has a default that fits classification.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search.errors import TaskError, near_miss
from search.tasks.checks import (
    Rule,
    anything,
    check,
    like,
    number,
    one_of,
    optional,
    several,
    switch,
    truth,
    whole,
)
from search.tasks.residence import too_large
from search.tasks.user_file import load_user_file

MakeActivation = Callable[[], nn.Module]
"""Called by a model once per activation site, so that every site has parameters of its own."""


@dataclass(frozen=True, slots=True)
class Split:
    """One part of a data set, whole, in memory: sample i is `inputs[i]`, `targets[i]`."""

    inputs: Tensor
    targets: Tensor


@dataclass(frozen=True, slots=True)
class Splits:
    """The three parts. The search trains on `train`, scores on `validation`, never sees `test`."""

    train: Split
    validation: Split
    test: Split
    outputs: int = 0
    """What a model must return for a sample: classes, characters or regressed values."""
    stream: bool | None = None
    """Whether `train` stays where it is and its batches are streamed to the device; None: where it
    takes more than a quarter of the device's memory. Its tensors may then be files'
    (`torch.from_file`)."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained. Fractions are of the whole run, so a shorter run keeps its shape."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.01
    """The default rate; a sweep replaces it."""
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    decay: Literal["matrices", "all"] = "matrices"
    """`matrices`: only weights of two or more dimensions decay (no biases, no norms), today's
    standard practice; `all`: every weight, as in He et al. 2015. Never activation parameters."""
    activation_weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "multistep"] = "constant"
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    warmup: float = 0.0
    batch_size: int = 128
    accumulate: int = 1
    """Parts that a batch is trained in, one after another, for models that leave no memory for a
    whole one; gradients are the batch's, up to round-off."""
    epochs: int = 10
    max_steps: int | None = None
    """Ends the run (and completes its schedule) at this step, even within an epoch."""
    augmentation: tuple[str, ...] = ()
    """Of `flip` (left-right) and `crop` (4 pixels of zero padding), for images (N, C, H, W)."""
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    amp: Literal["bfloat16", "float16"] | None = None
    penalty: float = 0.1
    """Weight of the activations' own penalties in the loss."""
    loss_bound: float = 1e3
    """A training loss above it ends the run as diverged."""
    compile: Literal["off", "auto", "inductor", "cudagraphs"] = "off"
    """How a step is computed (see `search.training.batched.compiled` and `cuda_graph`); no
    figure depends on it but by round-off. `auto`: compiled where a study's timing says that it
    pays."""


def cross_entropy(outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy in nats; logits (N, …, classes) against class numbers (N, …)."""
    return F.cross_entropy(
        outputs.flatten(0, -2), targets.flatten(), label_smoothing=label_smoothing
    )


def correct(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """How many of the batch's classes are right: logits (N, classes) against numbers (N,)."""
    return {"accuracy": (outputs.argmax(-1) == targets).sum()}


def _no_problems(options: Mapping[str, Any]) -> Iterable[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Task:
    """A task; the defaults are those of classification by accuracy."""

    name: str
    load: Callable[..., Splits]
    """`load(data_root, **options)`; raises TaskError in one line when its data are missing."""
    build: Callable[..., nn.Module]
    """`build(make_activation, splits, **options)`, with `make_activation()` once per site."""
    title: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Every option of the data and of the default model, with its default."""
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The options that each choice of the option `model` has, with their defaults. A name that
    ends in `:` stands for all that begin so."""
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The values that an option of text may have, where they are few."""
    check: Callable[[Mapping[str, Any]], Iterable[str]] = _no_problems
    """What else is wrong with complete options, one line each: `options.width: …`."""
    loss: Callable[[Tensor, Tensor, float], Tensor] = cross_entropy
    """`loss(outputs, targets, label_smoothing)`: the mean over the batch."""
    metrics: Callable[[Tensor, Tensor], Mapping[str, Tensor]] = correct
    """`metrics(outputs, targets)`: *sums* over the batch's samples, of any shape."""
    metric: str = "accuracy"
    """What the score is: a key of `metrics`, or `loss`."""
    score: Callable[[Mapping[str, Tensor]], float] | None = None
    """The score from the metrics' means per sample; None: the mean called `metric`."""
    maximize: bool = True
    recipe: Recipe = field(default_factory=Recipe)


_RECIPE_RULES: dict[str, Rule] = {
    "optimizer": one_of("sgd", "adamw"),
    "learning_rate": number(0, above=True),
    "momentum": number(0, 1),
    "nesterov": truth,
    "betas": several(number(0, 1), length=2),
    "weight_decay": number(0),
    "decay": one_of("matrices", "all"),
    "activation_weight_decay": number(0),
    "schedule": one_of("constant", "cosine", "multistep"),
    "milestones": several(number(0, 1, above=True)),
    "gamma": number(0, above=True),
    "warmup": number(0, 1),
    "batch_size": whole(1),
    "accumulate": whole(1),
    "epochs": whole(1),
    "max_steps": optional(whole(1)),
    "augmentation": several(one_of("flip", "crop")),
    "label_smoothing": number(0, 1),
    "clip_norm": optional(number(0, above=True)),
    "amp": optional(one_of("bfloat16", "float16")),
    "penalty": number(0),
    "loss_bound": number(0, above=True),
    "compile": switch("auto", "inductor", "cudagraphs"),
}


def recipe_with(recipe: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe with some values replaced; raises TaskError with every mistake, one a line."""
    checked = list(check("recipe", _RECIPE_RULES, overrides))
    if problems := [problem for *_, problem in checked if problem]:
        raise TaskError(*problems)
    result = replace(recipe, **{name: value for name, value, _ in checked})
    if result.optimizer == "sgd" and result.nesterov and not result.momentum:
        raise TaskError("recipe.nesterov: got true with momentum 0; expected a momentum > 0")
    return result


def longer(recipe: Recipe, budget: float) -> Recipe:
    """The recipe with `budget` times the epochs, and the bound on steps likewise.

    >>> longer(Recipe(epochs=8), 2.5).epochs
    20
    """
    steps = None if recipe.max_steps is None else max(1, round(budget * recipe.max_steps))
    return replace(recipe, epochs=max(1, round(budget * recipe.epochs)), max_steps=steps)


def options_with(task: Task, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """All of a task's options, some replaced; raises TaskError with every mistake, one a line.

    Which options there are depends on the option `model`, where the task has several.
    """
    defaults, problems = _defaults(task, overrides)
    rules = {name: like(value) for name, value in defaults.items()}
    rules |= {name: one_of(*words) for name, words in task.choices.items() if name in defaults}
    if task.models:
        rules["model"] = anything  # judged by _defaults
    options = dict(defaults)
    for name, value, problem in check("options", rules, overrides):
        if problem:
            problems.append(problem if name in rules else problem + _owners(task, name))
        options[name] = value
    problems = problems or list(task.check(options))
    if problems:
        raise TaskError(*problems)
    return options


def _defaults(task: Task, overrides: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The options of the chosen model with their defaults, and what is wrong with the choice."""
    default = task.options.get("model", "")
    model = str(overrides.get("model", default))
    if not task.models or model == default:
        return dict(task.options), []
    family, colon, _ = model.partition(":")
    row = task.models.get(family + colon)
    if row is None:
        wrong = f"options.model: unknown model {model!r}{near_miss(model, task.models)}"
        every = {name: value for options in task.models.values() for name, value in options.items()}
        return {**every, **task.options}, [wrong]
    shared = {k: v for k, v in task.options.items() if k not in task.models[default]}
    return {**shared, **row}, []


def _owners(task: Task, name: str) -> str:
    """`; it is an option of mlp, cnn` for a name that other models know."""
    owners = [model for model, options in task.models.items() if name in options]
    return f"; it is an option of {', '.join(owners)}" if owners else ""


def splits_to(splits: Splits, device: torch.device | str) -> Splits:
    """The splits on a device, but for a training part that is streamed; parts that are there
    already are not copied."""
    stream = splits.stream
    if stream is None:
        stream = too_large((splits.train.inputs, splits.train.targets), torch.device(device))
    parts = {}
    for part in ("validation", "test") if stream else ("train", "validation", "test"):
        split: Split = getattr(splits, part)
        parts[part] = Split(split.inputs.to(device), split.targets.to(device))
    return replace(splits, stream=stream, **parts)


def find_task(name_or_path: str, relative_to: Path | None = None) -> Task:
    """A built-in task by name, or the `TASK` of a `.py` file (relative to a folder).

    Raises TaskError in one line: unknown name, no such file, no TASK in it, or the error that
    importing it raised.
    """
    # Imported here because the built-in tasks are themselves made of this file's classes.
    from search.tasks import TASKS

    if not str(name_or_path).endswith(".py"):
        if name_or_path in TASKS:
            return TASKS[name_or_path]
        close = near_miss(str(name_or_path), TASKS)
        raise TaskError(f"task: unknown task {name_or_path!r}{close}; or a path that ends in .py")
    path = (relative_to or Path()) / Path(name_or_path).expanduser()
    task = getattr(load_user_file(path), "TASK", None)
    if not isinstance(task, Task):
        found = "no TASK" if task is None else f"TASK is a {type(task).__name__}"
        raise TaskError(f"{path}: {found}; expected TASK = Task(name=…, load=…, build=…)")
    _takes_options(task, path)
    return task


def scored_by_loss(task: Task) -> Task:
    """The task with the validation loss as its score: lower is better."""
    return replace(task, metric="loss", maximize=False, score=None)


def _takes_options(task: Task, path: Path) -> None:
    """Raises TaskError unless `load` and `build` take every option by name."""
    for function, positional in ((task.load, 1), (task.build, 2)):
        try:
            signature(function).bind(*(None,) * positional, **task.options)
        except TypeError as error:
            place = f"{path}: {getattr(function, '__name__', function)}()"
            raise TaskError(f"{place}: {error}; expected to take every option of TASK") from error
