"""Recipes and options: good values, and all mistakes together."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest

from search.tasks import TASKS
from search.tasks.task import Recipe, options_with, recipe_with
from tests.task_cases import problems


def test_a_recipe_takes_good_values_and_converts_them():
    changed = {"weight_decay": "1e-4", "betas": [0.8, 0.9], "max_steps": None, "clip_norm": 1}
    recipe = recipe_with(Recipe(), changed)
    assert recipe == replace(Recipe(), weight_decay=1e-4, betas=(0.8, 0.9), clip_norm=1.0)


def test_every_field_of_a_recipe_can_be_set_to_its_default():
    defaults = {item.name: getattr(Recipe(), item.name) for item in fields(Recipe)}
    assert recipe_with(Recipe(epochs=77), defaults) == Recipe()


def test_all_mistakes_of_a_recipe_come_together():
    wrong = {
        "optimzer": "sgd",
        "optimizer": "adam",
        "epochs": 0,
        "momentum": 1,
        "nesterov": "yes",
        "betas": [0.9],
        "augmentation": ["flip", "corp"],
        "clip_norm": 0,
        "amp": "float32",
        "weight_decay": "much",
        "batch_size": True,
        "loss_bound": math.inf,
    }
    assert problems(lambda: recipe_with(Recipe(), wrong)) == [
        "recipe.optimzer: unknown name; did you mean 'optimizer'?",
        "recipe.optimizer: got 'adam'; expected sgd or adamw; did you mean 'adamw'?",
        "recipe.epochs: got 0; expected a whole number ≥ 1",
        "recipe.momentum: got 1; expected a number in [0, 1)",
        "recipe.nesterov: got 'yes'; expected true or false",
        "recipe.betas: got [0.9]; expected a list of 2, in square brackets",
        "recipe.augmentation: got ['flip', 'corp']; expected a list, each flip or crop; "
        "did you mean 'crop'?",
        "recipe.clip_norm: got 0; expected null or a number > 0",
        "recipe.amp: got 'float32'; expected null or bfloat16 or float16; did you mean 'float16'?",
        "recipe.weight_decay: got 'much'; expected a number ≥ 0",
        "recipe.batch_size: got True; expected a whole number ≥ 1",
        "recipe.loss_bound: got inf; expected a number > 0",
    ]


def test_nesterov_needs_momentum():
    (line,) = problems(lambda: recipe_with(Recipe(), {"nesterov": True, "momentum": 0}))
    assert line == "recipe.nesterov: got true with momentum 0; expected a momentum > 0"


@pytest.mark.parametrize("name", TASKS)
def test_a_task_accepts_its_own_defaults(name: str):
    task = TASKS[name]
    assert task.name == name and task.title
    assert options_with(task, {}) == task.options
    assert options_with(task, task.options) == task.options
    assert task.recipe == recipe_with(task.recipe, {})


def test_options_follow_the_model():
    digits, cifar = TASKS["digits"], TASKS["cifar10"]
    assert options_with(digits, {"width": 32})["width"] == 32
    assert options_with(digits, {"model": "cnn"}) == {
        "model": "cnn",
        "train_size": 0,
        "width": 8,
        "norm": "batchnorm",
    }
    assert options_with(cifar, {"model": "torchvision:resnet18"})["image_size"] == 0
    assert options_with(cifar, {"model": "mlp"})["width"] == 512


def test_all_mistakes_of_the_options_come_together():
    wrong = {"depht": 2, "width": 0, "norm": "layer_norm", "train_size": -1, "depth": 1.5}
    assert problems(lambda: options_with(TASKS["digits"], wrong)) == [
        "options.depht: unknown name; did you mean 'depth'?",
        "options.width: got 0; expected a whole number ≥ 1",
        "options.norm: got 'layer_norm'; expected none, layernorm or batchnorm; "
        "did you mean 'layernorm'?",
        "options.train_size: got -1; expected a whole number ≥ 0",
        "options.depth: got 1.5; expected a whole number ≥ 1",
    ]


@pytest.mark.parametrize(
    ("task", "options", "line"),
    [
        ("cifar10", {"model": "resnet20", "depth": 3}, "options.depth: unknown name"),
        ("cifar10", {"model": "resnet2O"}, "options.model: unknown model 'resnet2O'; did you mean"),
        ("cifar10", {"model": 20}, "options.model: unknown model '20'"),
        ("digits", {"model": "torchvision:resnet18"}, "options.model: unknown model"),
        (
            "mnist",
            {"model": "torchvision:resnet19"},
            "options.model: unknown torchvision classifier 'resnet19'; did you mean 'resnet1",
        ),
        (
            "text",
            {"width": 30},
            "options.width: got 30 for 4 heads; expected a multiple of heads",
        ),
        (
            "extrapolation",
            {"function": "sinus"},
            "options.function: got 'sinus'; expected all, absolute, square, cubic, sine",
        ),
    ],
)
def test_options_that_do_not_fit(task: str, options: dict, line: str):
    (found,) = problems(lambda: options_with(TASKS[task], options))
    assert found.startswith(line)


def test_an_option_of_another_model_names_its_owner():
    (line,) = problems(lambda: options_with(TASKS["cifar10"], {"depth": 3}))
    assert line.endswith("; it is an option of mlp")
