"""What the members of a batch are worth between two epochs, and which of them end there."""

from __future__ import annotations

import torch

from search.records import Member, Point
from search.tasks.task import Split
from search.training.batched.batch import Batch
from search.training.batched.members import Ended
from search.training.evaluation import EVALUATION_BATCH, MetricSums, score_problem, test_problem


@torch.no_grad()
def evaluate(batch: Batch) -> tuple[dict[Member, Point], Ended]:
    """The members' points after an epoch, and the runs that end here: diverged, or complete."""
    if not batch.members:
        return {}, {}
    points: dict[Member, Point] = {}
    gone: dict[int, tuple[int, str]] = {}
    means = _means(batch, batch.splits.validation)
    for place, (each, (loss, score)) in enumerate(zip(batch.members, means, strict=True)):
        if problem := score_problem(loss, score, batch.task, batch.step):
            gone[place] = (batch.step, problem)
            continue
        train_loss = sum(each.losses) / len(each.losses)
        each.losses.clear()
        each.curve.append(Point(batch.step, train_loss, loss, score))
        points[each.member] = each.curve[-1]
    ended = batch.leave(gone)
    if batch.step >= batch.steps:
        ended |= _tested(batch) if batch.testing and batch.members else {}
        ended |= batch.complete()
    return points, ended


def _tested(batch: Batch) -> Ended:
    """Look at the test part, once; the runs that have no score on it."""
    gone: dict[int, tuple[int, str]] = {}
    for place, (_, score) in enumerate(_means(batch, batch.splits.test)):
        batch.members[place].test = score
        if problem := test_problem(score, batch.task, batch.step):
            gone[place] = (batch.step, problem)
    return batch.leave(gone)


def _means(batch: Batch, split: Split) -> list[tuple[float, float]]:
    """Mean loss and score of every member on a split."""
    stacked, amp = batch.update.stacked, batch.recipe.amp
    stacked.model.eval()
    sums = [MetricSums(batch.task) for _ in batch.members]
    parts = (part.split(EVALUATION_BATCH) for part in (split.inputs, split.targets))
    for inputs, targets in zip(*parts, strict=True):
        with batch.update.precision():
            outputs, _ = stacked(inputs, shared=True)
        outputs = outputs.float() if amp else outputs
        for each, own in zip(sums, outputs, strict=True):
            each.add(own, targets)
    return [each.means(len(split.targets)) for each in sums]
