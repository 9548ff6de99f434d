"""The training step: penalty, decay, optimizer, schedule, clipping, mixed precision."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from search.activation import Activation
from search.tasks.task import Recipe
from search.training.evaluation import evaluate
from search.training.loop import initial_model
from search.training.optimizers import make_optimizer, parameter_groups, penalties
from search.training.schedules import rate_factor
from search.training.step import make_update
from tests.loop_cases import CPU, SPLITS, VELU, toy
from tests.toy_task import TASK, Slope


def test_the_loss_has_the_activations_penalty():
    made: list[Slope] = []

    def make() -> Slope:
        made.append(Slope())
        return made[-1]

    losses = [toy(make, penalty=weight, max_steps=1).curve[0].train_loss for weight in (0.0, 0.5)]
    assert losses[1] - losses[0] == pytest.approx(0.5, abs=1e-6)  # (1 - 2)² at the start
    toy(make, penalty=0.0)
    toy(make, penalty=10.0, rate=0.01)
    free, pulled = (slope.slope.item() for slope in made[-2:])
    assert abs(pulled - 2) < 0.1 < abs(free - 2)


def test_a_formulas_penalty_is_followed_and_one_without_is_not_asked():
    losses = [
        toy(lambda: Activation(VELU), penalty=weight, max_steps=1).curve[0].train_loss
        for weight in (0.0, 0.1)
    ]
    assert losses[1] - losses[0] == pytest.approx(0.4, abs=1e-6)
    model = nn.Sequential(Activation("relu"), Activation(VELU), nn.ReLU(), Slope())
    assert len(penalties(model)) == 2


def test_activation_parameters_do_not_decay_unless_asked():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), Slope(), nn.Linear(4, 2))
    model[3].bias.requires_grad_(False)

    def decays(recipe: Recipe) -> dict[str, float]:
        names = {id(p): name for name, p in model.named_parameters()}
        groups = parameter_groups(model, recipe)
        return {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}

    norms_and_biases = dict.fromkeys(("0.bias", "1.weight", "1.bias"), 0.0)
    matrices = {"0.weight": 0.1, "3.weight": 0.1, **norms_and_biases}
    everything = dict.fromkeys(matrices, 0.1)
    assert decays(Recipe(weight_decay=0.1)) == {**matrices, "2.slope": 0.0}
    assert decays(Recipe(weight_decay=0.1, decay="all")) == {**everything, "2.slope": 0.0}
    asked = Recipe(weight_decay=0.1, activation_weight_decay=0.2)
    assert decays(asked) == {**matrices, "2.slope": 0.2}


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_the_textbooks(nesterov: bool):
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)
    recipe = Recipe(momentum=0.5, nesterov=nesterov, weight_decay=0.25)
    optimizer = make_optimizer(model, recipe, 0.1)
    weight, velocity = 2.0, 0.0
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        gradient = 1 + 0.25 * weight
        velocity = 0.5 * velocity + gradient
        weight -= 0.1 * (gradient + 0.5 * velocity if nesterov else velocity)
    assert model.weight.item() == pytest.approx(weight, rel=1e-6)


def test_adamw_takes_the_recipes_betas():
    optimizer = make_optimizer(nn.Linear(2, 2), Recipe(optimizer="adamw", betas=(0.8, 0.9)), 0.1)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)


@pytest.mark.parametrize(
    ("recipe", "factors"),
    [
        (Recipe(schedule="constant"), [1, 1, 1, 1, 1, 1, 1, 1]),
        (Recipe(schedule="multistep"), [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]),
        (Recipe(schedule="multistep", gamma=0.5, milestones=(0.2,)), [1, 1] + [0.5] * 6),
        (Recipe(warmup=0.25), [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1]),
        (
            Recipe(schedule="cosine", warmup=0.5),
            [0.2, 0.4, 0.6, 0.8, 1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)],
        ),
    ],
)
def test_schedules(recipe: Recipe, factors: list[float]):
    assert [rate_factor(recipe, step, 8) for step in range(8)] == pytest.approx(factors)


def test_the_schedule_reaches_the_optimizer():
    model = initial_model(TASK, SPLITS, nn.ReLU, TASK.options, 0, CPU)
    recipe = replace(TASK.recipe, schedule="multistep", milestones=(0.5,), gamma=1e-9)
    update = make_update(TASK, model, recipe, 0.1, steps=10)
    batch = SPLITS.train.inputs[:32], SPLITS.train.targets[:32]
    weight = model.get_parameter("0.weight")
    moves = []
    for step in (0, 4, 5, 9):
        before = weight.detach().clone()
        update(step, *batch)
        moves.append((weight - before).abs().max().item())
    assert min(moves[:2]) > 1e-3 and max(moves[2:]) < 1e-6


def test_long_gradients_are_clipped():
    moves = []
    for norm in (None, 1e-3):
        model = initial_model(TASK, SPLITS, nn.ReLU, TASK.options, 0, CPU)
        before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
        update = make_update(TASK, model, replace(TASK.recipe, clip_norm=norm), 1.0, steps=1)
        update(0, SPLITS.train.inputs, SPLITS.train.targets)
        after = torch.cat([p.detach().flatten() for p in model.parameters()])
        moves.append((after - before).norm().item())
    assert moves[0] > 1e-2 and moves[1] == pytest.approx(1e-3, rel=1e-3)


def test_labels_are_smoothed_in_training_alone():
    plain, smooth = toy(max_steps=1), toy(max_steps=1, label_smoothing=0.5)
    assert plain.curve[0].train_loss != smooth.curve[0].train_loss
    model = nn.Linear(2, 2)
    with torch.no_grad():
        outputs = model(SPLITS.validation.inputs)
    expected = F.cross_entropy(outputs, SPLITS.validation.targets).item()
    assert evaluate(TASK, model, SPLITS.validation)[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("amp", ["bfloat16", "float16"])
def test_mixed_precision_is_near_full_precision(amp: Any):
    full, mixed = toy(), toy(amp=amp)
    assert mixed.state == "complete" and mixed.loss != full.loss
    assert mixed.loss == pytest.approx(full.loss, abs=0.05)
