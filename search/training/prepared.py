"""A task with its data on the device, once per process."""

from __future__ import annotations

import json
import traceback
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from search.activation import Activation
from search.errors import TaskError
from search.language.expression import Expression
from search.tasks.task import (
    MakeActivation,
    Recipe,
    Splits,
    Task,
    find_task,
    options_with,
    recipe_with,
    scored_by_loss,
    splits_to,
)
from search.training.constant import constant_loss
from search.training.epochs import count_steps, full_batches
from search.training.job import Training
from search.training.loop import initial_model
from search.training.optimizers import activations_of
from search.training.shards import ALONE, Shards


@dataclass(frozen=True, slots=True)
class Prepared:
    """A task with its data on the device."""

    task: Task
    options: dict[str, Any]
    recipe: Recipe
    splits: Splits
    constant: float
    """The loss of the best prediction that ignores its input."""
    device: str
    testing: bool = False
    """Whether runs end with a look at the test part."""
    shards: Shards = ALONE
    """This process's part, where a run takes several."""
    kernel: str = "auto"
    """What activations run as."""

    @property
    def steps(self) -> int:
        """Steps of one run."""
        return count_steps(len(self.splits.train.targets), self.recipe)

    @property
    def epochs(self) -> int:
        """Epochs of one run, the last of which `max_steps` may cut."""
        return -(-self.steps // full_batches(len(self.splits.train.targets), self.recipe))

    @property
    def compiles(self) -> bool:
        """Whether C kernels will be asked for: several at once take 25 ms each, not 150."""
        return self.device == "cpu" and self.kernel in ("auto", "c")

    def maker(self, expression: Expression | str) -> partial[Activation]:
        """What makes a formula's activations."""
        return partial(Activation, expression, kernel=self.kernel)


def prepare(training: Training) -> Prepared:
    """Load the task and its data, once per process.

    Raises:
        TaskError: unknown task, option or recipe, or missing data.
    """
    found = prepared_task(
        training.task,
        training.folder,
        json.dumps([dict(training.options), dict(training.recipe)], sort_keys=True),
        training.data_root,
        training.device,
        training.by_loss,
    )
    return replace(found, kernel=training.kernel)


@lru_cache(maxsize=1)
def prepared_task(
    name: str, folder: Path, overrides: str, data_root: str | None, device: str, by_loss: bool
) -> Prepared:
    """The task called `name`; `overrides` are its options and its recipe, as JSON.

    Raises:
        TaskError: unknown task, option or recipe, or missing data.
    """
    task = find_task(name, folder)
    task = scored_by_loss(task) if by_loss else task
    options, recipe = json.loads(overrides)
    options = options_with(task, options)
    root = None if data_root is None else Path(data_root).expanduser()
    try:
        splits = task.load(root, **options)
    except TaskError:
        raise
    except Exception as error:
        raise TaskError(f"task {name}: load() failed: {error_line(error)}") from error
    return Prepared(
        task=task,
        options=options,
        recipe=recipe_with(task.recipe, recipe),
        splits=splits_to(splits, device),
        constant=constant_loss(task, splits),
        device=device,
    )


def error_line(error: BaseException) -> str:
    """The error's own line, and where it was raised."""
    told = traceback.format_exception_only(error)[-1].strip()
    frames = traceback.extract_tb(error.__traceback__)
    return f"{told} ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else told


def parameters_of(prepared: Prepared, make_activation: MakeActivation) -> int:
    """Trainable numbers in the activations of the task's model."""
    model = initial_model(
        prepared.task,
        prepared.splits,
        make_activation,
        prepared.options,
        seed=0,
        device=torch.device(prepared.device),
    )
    unique = {p for module in activations_of(model) for p in module.parameters()}
    return sum(parameter.numel() for parameter in unique)
