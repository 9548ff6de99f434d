"""From a space to what all of its candidates share in training."""

from __future__ import annotations

from search.errors import StudyError
from search.space.settings import Space
from search.tasks.task import Task, find_task, scored_by_loss
from search.training.job import Training
from search.training.rates import Grid


def task_of(space: Space) -> Task:
    """The space's task, scored as the space wants it."""
    task = find_task(space.task, space.source.parent)
    return scored_by_loss(task) if space.by_loss else task


def training_of(space: Space, task: Task) -> Training:
    """What all candidates of a space share.

    Raises:
        StudyError: the device and the resources contradict each other.
    """
    rates, resources = space.learning_rate, space.resources
    if problem := _contradiction(space):
        raise StudyError(problem)
    return Training(
        task=space.task,
        folder=space.source.parent.resolve(),
        options=space.options,
        recipe=space.recipe,
        data_root=space.data_root,
        grid=Grid(
            rates.grid, rates.default, space.seeds, rates.extend, task.maximize, rates.halving
        ),
        by_loss=space.by_loss,
        device=_device(space),
        kernel=space.kernel,
        threads=max(1, int(resources.cpu / resources.workers)),
        workers=resources.workers,
        in_step=space.search.stopping is not None or space.search.promotion is not None,
        promotion=space.search.promotion,
    )


def _device(space: Space) -> str:
    return "cuda" if space.resources.gpu and space.device != "cpu" else "cpu"


def _contradiction(space: Space) -> str:
    """What the resources leave no room for; empty where there is nothing."""
    resources, compile = space.resources, space.recipe.get("compile")
    if space.device == "cuda" and not resources.gpu:
        return (
            "device: cuda, and resources.gpu is 0; expected a share of a GPU for each trial, such"
            " as 0.25 for four at once"
        )
    if resources.workers > 1 and space.search.promotion is not None:
        return (
            "resources.strategy: ddp, and search.promotion: a run of several processes cannot wait"
            " at a rung; expected one of the two"
        )
    if resources.workers > 1 and compile in ("inductor", "cudagraphs"):
        return (
            f"resources.strategy: ddp, and recipe.compile: {compile}: a step that several processes"
            " share is not compiled; expected one of the two"
        )
    if _device(space) == "cpu" and compile == "cudagraphs":
        return (
            "recipe.compile: cudagraphs needs a GPU, and trials run on the CPU; expected inductor,"
            " auto or off, or resources.gpu"
        )
    return ""
