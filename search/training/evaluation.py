"""What a model is worth on a split: mean loss and score, in evaluation mode."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from search.tasks.task import Split, Task
from search.training.precision import precision_of
from search.training.shards import ALONE, Shards

EVALUATION_BATCH = 1000
"""Samples evaluated at once: no figure depends on it, memory does."""


@torch.no_grad()
def evaluate(
    task: Task,
    model: nn.Module,
    split: Split,
    amp: str | None = None,
    shards: Shards = ALONE,
) -> tuple[float, float]:
    """Mean loss and score of a model on a split, in evaluation mode."""
    model.eval()
    count, shards = len(split.targets), shards if len(split.targets) >= shards.world else ALONE
    shards.agree(model)
    split = shards.of_split(split) if shards.world > 1 else split
    precision = precision_of(amp, split.inputs.device)
    sums = MetricSums(task)
    batches = (part.split(EVALUATION_BATCH) for part in (split.inputs, split.targets))
    for inputs, targets in zip(*batches, strict=True):
        with precision():
            outputs = model(inputs)
        sums.add(outputs.float() if amp else outputs, targets)
    for value in sums.sums.values():
        shards.total(value)
    return sums.means(count)


class MetricSums:
    """A task's loss and metrics, summed over the batches of a split."""

    def __init__(self, task: Task):
        self.task = task
        self.sums: dict[str, Tensor] = {}

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch's outputs."""
        loss = self.task.loss(outputs, targets, 0.0) * len(targets)
        for name, value in {"loss": loss, **self.task.metrics(outputs, targets)}.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def means(self, count: int) -> tuple[float, float]:
        """The mean loss and the score of `count` samples."""
        means = {name: value.cpu().double() / count for name, value in self.sums.items()}
        score = self.task.score(means) if self.task.score else means[self.task.metric].item()
        return means["loss"].item(), score


def score_problem(loss: float, score: float, task: Task, step: int) -> str:
    """Why what was found on the validation part ends a run as diverged, or nothing."""
    if math.isfinite(loss) and math.isfinite(score):
        return ""
    return f"step {step}: validation loss is {loss}, {task.metric} {score}"


def test_problem(score: float, task: Task, step: int) -> str:
    """Why a score on the test part cannot be used, or nothing."""
    return "" if math.isfinite(score) else f"step {step}: test {task.metric} is {score}"
