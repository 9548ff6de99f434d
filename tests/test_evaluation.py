"""What a model is worth, the best constant, and what an activation costs."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search.activation import Activation
from search.tasks import TASKS
from search.tasks.task import Split, Splits, Task
from search.training.constant import constant_loss
from search.training.evaluation import EVALUATION_BATCH, evaluate
from search.training.step_cost import WARM_UP, kept_bytes, measure_step_cost
from tests.loop_cases import SPLITS
from tests.toy_task import TASK

# --- evaluation ----------------------------------------------------------------------------------


def test_evaluation_is_the_mean_over_all_samples():
    random = torch.Generator().manual_seed(0)
    count = 2 * EVALUATION_BATCH + 345
    split = Split(
        torch.randn(count, 2, generator=random), torch.randint(2, (count,), generator=random)
    )
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    loss, score = evaluate(TASK, model, split)
    with torch.no_grad():
        outputs = model.eval()(split.inputs)
    assert loss == pytest.approx(F.cross_entropy(outputs, split.targets).item(), rel=1e-5)
    assert score == (outputs.argmax(1) == split.targets).sum().item() / count


def test_a_score_may_be_the_loss_or_a_function_of_the_means():
    model = nn.Linear(2, 2)
    by_loss = replace(TASK, metric="loss", maximize=False)
    loss, score = evaluate(by_loss, model, SPLITS.validation)
    assert loss == score
    squared = replace(TASK, score=lambda means: means["accuracy"].item() ** 2)
    plain = evaluate(TASK, model, SPLITS.validation)[1]
    assert evaluate(squared, model, SPLITS.validation)[1] == plain**2


# --- what a run is compared with -----------------------------------------------------------------


def regression(values: Tensor, loss: Any) -> tuple[Task, Splits]:
    """A task whose targets are the values, in training as in validation."""
    part = Split(torch.zeros(len(values), 1), values)
    return replace(TASK, loss=loss), Splits(part, part, part, outputs=1)


def test_the_best_constant_of_classes_is_their_frequency():
    targets = torch.tensor([0] * 30 + [1] * 10)
    part = Split(torch.zeros(40, 1), targets)
    loss = constant_loss(TASK, Splits(part, part, part, outputs=3))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert loss == pytest.approx(entropy, abs=0.02)
    assert constant_loss(TASK, SPLITS) == pytest.approx(math.log(2), abs=1e-6)


def test_the_best_constant_of_numbers_follows_the_loss():
    values = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
    mean = regression(values, lambda outputs, targets, smoothing: F.mse_loss(outputs, targets))
    assert constant_loss(*mean) == pytest.approx(12.5, rel=1e-6)  # at the mean, 3
    near = regression(values, lambda outputs, targets, smoothing: F.huber_loss(outputs, targets))
    scan = min(
        F.huber_loss(torch.full_like(values, c), values).item()
        for c in torch.linspace(0, 3, 301).tolist()
    )
    assert constant_loss(*near) == pytest.approx(scan, abs=1e-3)


def test_the_best_constant_is_judged_where_runs_are():
    task = TASKS["extrapolation"]
    splits = task.load(None, function="square")
    expected = (splits.validation.targets - splits.train.targets.mean(0)).square().mean().item()
    assert constant_loss(task, splits) == pytest.approx(expected, rel=1e-4)
    text = TASKS["text"]
    assert 3 < constant_loss(text, text.load(None, context=64)) < 3.5


def test_the_cost_of_a_step_is_measured_side_by_side():
    calls = {"fused": 0, "composed": 0}

    class Watched(nn.Module):
        def __init__(self, name: str):
            super().__init__()
            self.name = name

        def forward(self, x: Tensor) -> Tensor:
            calls[self.name] += self.training
            for _ in range(2000 if self.name == "composed" else 200):
                x = x.relu()
            return x

    cost = measure_step_cost(
        TASK,
        SPLITS,
        TASK.options,
        TASK.recipe,
        lambda: Watched("fused"),
        lambda: Watched("composed"),
        steps=6,
    )
    assert calls == {"fused": WARM_UP + 7, "composed": WARM_UP + 7}  # one more for the memory
    assert cost.relative > 1 and 0 < cost.share < cost.composed_share < 1
    assert cost.memory > 10


@pytest.mark.parametrize(
    ("make", "kept"),
    [(nn.Identity, 1), (nn.ReLU, 1), (nn.GELU, 2), (partial(Activation, "x * sigmoid(x)"), 2)],
)
def test_what_a_step_keeps_for_its_backward_pass_is_counted_once(make: Any, kept: int):
    model = nn.Sequential(nn.Linear(3, 8), make(), nn.Linear(8, 2, bias=False))
    assert kept_bytes(model, torch.randn(16, 3)) == kept * 16 * 8 * 4
