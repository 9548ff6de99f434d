"""The built-in tasks. A task of one's own needs no row here: see `search.tasks.task.find_task`."""

from __future__ import annotations

from search.tasks import (
    cifar10,
    cifar100,
    digits,
    extrapolation,
    fashion_mnist,
    mnist,
    text,
)
from search.tasks.task import Task

TASKS: dict[str, Task] = {
    "digits": digits.TASK,
    "mnist": mnist.TASK,
    "fashion_mnist": fashion_mnist.TASK,
    "cifar10": cifar10.TASK,
    "cifar100": cifar100.TASK,
    "text": text.TASK,
    "extrapolation": extrapolation.TASK,
}
