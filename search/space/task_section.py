"""The keys `task` and `recipe` of a space file, judged by the task itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import TaskError
from search.space.fields import Fields

if TYPE_CHECKING:
    from search.tasks.task import Task


def read_task(
    fields: Fields, path: Path
) -> tuple[str | None, dict[str, Any], dict[str, Any], Task | None]:
    """Name or path of the task, overrides of its options and recipe, and the task itself."""
    below, recipe = fields.below("task"), fields.below("recipe")
    if "task" not in fields.values:
        fields.missing("task", "a task such as digits, or ./my_task.py beside this file")
    elif "name" not in below.values and not isinstance(fields.values["task"].data, list):
        below.missing("name", "a task such as digits, or ./my_task.py beside this file")
    if value := recipe.values.get("learning_rate"):
        line = "recipe.learning_rate: the sweep sets it; expected learning_rate.default"
        recipe.problems.add(value.place, line)
    options = {key: value.plain() for key, value in below.values.items() if key != "name"}
    overrides = {key: v.plain() for key, v in recipe.values.items() if key != "learning_rate"}
    name = below.text("name")
    task = _find_task(name, below, path) if name else None
    _check_overrides(task, options, overrides, below, recipe)
    return name, options, overrides, task


def _find_task(name: str, fields: Fields, path: Path) -> Task | None:
    from search.tasks.task import find_task  # here, since a task imports torch

    try:
        return find_task(name, path.parent)
    except TaskError as error:
        fields.problems.add(fields.values["name"].place, *error.problems)
        return None


def _check_overrides(
    task: Task | None,
    options: Mapping[str, Any],
    recipe: Mapping[str, Any],
    option_fields: Fields,
    recipe_fields: Fields,
) -> None:
    """Note what the task refuses; a recipe has the same names whatever the task is."""
    from search.tasks.task import Recipe, options_with, recipe_with

    try:
        recipe_with(task.recipe if task else Recipe(), recipe)
    except TaskError as error:
        _tell(error, "recipe.", recipe_fields)
    try:
        if task is not None:
            options_with(task, options)
    except TaskError as error:
        _tell(error, "options.", option_fields)


def _tell(error: TaskError, prefix: str, fields: Fields) -> None:
    """The task's problems (`options.width: …`), each at the line of its key."""
    for line in error.problems:
        key = line.removeprefix(prefix).partition(":")[0].split(" ")[0]
        value = fields.values.get(key)
        told = fields.name + line.removeprefix(prefix) if line.startswith(prefix) else line
        fields.problems.add(value.place if value else fields.place, told)
