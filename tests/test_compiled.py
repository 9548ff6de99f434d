"""A step that is compiled: the numbers of the eager one, and what is said where it cannot be."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search.activation import Activation
from search.errors import SpaceError, StudyError, TaskError
from search.records import Run
from search.space.space import load_space
from search.tasks.task import MakeActivation, Recipe, Splits, Task, recipe_with
from search.training.batched import run_together
from search.training.batched.batch import Batch
from search.training.batched.compiled import CompileError, traced
from search.training.cuda_graph import Recorded
from search.training.from_space import training_of
from search.training.loop import run_epochs
from search.training.sweep import drain
from tests.batched_cases import CASES, CLOSE, TOY, digits, settings

KEYS = ((0.003, 0), (0.03, 7))
MEMBERS = tuple((0, *key) for key in KEYS)
FEW = ("mlp, AdamW", "mlp, BatchNorm", "cnn, BatchNorm")
"""With clipping, smoothing, buffers, augmentation, and vmap."""


def losses(runs: list[Run]) -> list[float]:
    return [number for run in runs for p in run.curve for number in (p.train_loss, p.loss)]


def batched(
    task: Task, splits: Splits, make: MakeActivation, keys: Any = KEYS, **rest: Any
) -> list[Run]:
    epochs = list(run_together(task, splits, make, keys=keys, **rest))
    return sorted((run for epoch in epochs for run in epoch.ended), key=lambda r: r.learning_rate)


def with_compile(rest: dict[str, Any], way: str) -> dict[str, Any]:
    return rest | {"recipe": replace(rest["recipe"], compile=way)}


@pytest.mark.parametrize("case", FEW)
def test_the_traced_step_has_the_gradients_of_the_eager_one(case: str):
    """Through all of torch.compile but its code generator, which takes half a minute."""
    task, splits, options, formula, recipe = CASES[case]
    rest = settings(task, options, **recipe)
    batch = Batch(
        task,
        splits,
        (partial(Activation, formula),),
        rest["options"],
        rest["recipe"],
        MEMBERS,
        torch.device("cpu"),
        False,
    )
    batch.update.stacked.model.train()
    batch.batches.begin()
    data = *batch.batches.take(0), batch.update.optimizer.weights
    program = traced(batch.update.stacked, batch.update.weighted, data, backend="aot_eager")
    with batch.update.stacked.untouched():
        wanted, gradients = batch.update.weighted(*data)
        buffers = [tensor.clone() for tensor in batch.update.stacked.constants]
    found, own = program(*data)
    torch.testing.assert_close(found, wanted, rtol=CLOSE, atol=0)
    largest = max(float(g.abs().max()) for g in gradients)  # that before BatchNorm is round-off
    for a, b in zip(own, gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=CLOSE, atol=CLOSE * largest)
    for a, b in zip(batch.update.stacked.constants, buffers, strict=True):
        torch.testing.assert_close(a, b, rtol=CLOSE, atol=CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["mlp, a penalty", "cnn, BatchNorm", "gpt, gated"])
def test_a_compiled_batch_follows_the_eager_one(case: str, caplog: pytest.LogCaptureFixture):
    task, splits, options, formula, recipe = CASES[case]
    rest, make = settings(task, options, **recipe), partial(Activation, formula)
    eager = losses(batched(task, splits, make, **rest))
    with caplog.at_level(logging.WARNING, "search.training"):
        found = losses(batched(task, splits, make, **with_compile(rest, "inductor")))
    assert not [r.message for r in caplog.records if r.name == "search.training"]
    assert found == pytest.approx(eager, rel=CLOSE)


@pytest.mark.slow
def test_a_compiled_plain_run_follows_the_eager_one():
    task, splits, options, formula, recipe = CASES["mlp, a parameter per channel"]
    rest, make = settings(task, options, **recipe), partial(Activation, formula)

    def run(**rest: Any) -> Run:
        return drain(run_epochs(task, splits, make, learning_rate=0.03, seed=1, **rest))

    assert losses([run(**with_compile(rest, "inductor"))]) == pytest.approx(
        losses([run(**rest)]), rel=CLOSE
    )


def test_dropout_runs_as_it_is_and_says_so(caplog: pytest.LogCaptureFixture):
    def build(make_activation: MakeActivation, splits: Splits, *, width: int) -> nn.Module:
        layers = (nn.Linear(2, width), nn.Dropout(0.3), make_activation())
        return nn.Sequential(*layers, nn.Linear(width, 2))

    task, make = replace(TOY, build=build), partial(Activation, "silu")
    rest = {"options": dict(TOY.options), "recipe": TOY.recipe}
    with caplog.at_level(logging.WARNING, "search.training"):
        found = batched(task, TOY.load(None), make, **with_compile(rest, "inductor"))
    assert caplog.messages == [
        "recipe.compile: layer 1 (Dropout): each member draws from a stream of its own;"
        " the step runs as it is"
    ]
    assert losses(found) == losses(batched(task, TOY.load(None), make, **rest))


def test_what_depends_on_values_cannot_be_traced():
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    rest = settings(CASES["mlp"][0], {})
    batch = Batch(
        CASES["mlp"][0],
        digits(),
        (partial(Activation, "silu"),),
        rest["options"],
        rest["recipe"],
        MEMBERS,
        torch.device("cpu"),
        False,
    )

    def branching(inputs: Tensor, targets: Tensor, weights: Tensor):
        return batch.update.weighted(Branching()(inputs), targets, weights)

    batch.batches.begin()
    data = *batch.batches.take(0), batch.update.optimizer.weights
    with pytest.raises(CompileError) as caught:
        traced(batch.update.stacked, branching, data, backend="aot_eager")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_factor_that_is_a_tensor_moves_the_parameters_alike(optimizer: str):
    """As in a CUDA graph, whose numbers lie in memory."""
    task, splits, *_ = CASES["mlp"]
    rest = settings(task, {}, optimizer=optimizer, weight_decay=0.1)
    found = []
    for kind in (float, torch.tensor):
        batch = Batch(
            task,
            splits,
            (partial(Activation, "silu"),),
            rest["options"],
            rest["recipe"],
            MEMBERS,
            torch.device("cpu"),
            False,
        )
        batch.update.stacked.model.train()
        batch.batches.begin()
        for number in range(3):
            batch.update.whole(*batch.batches.take(number), kind(0.7))
        found.append(batch.update.stacked.stored)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize(
    ("written", "expected"), [("off", "off"), (False, "off"), ("inductor", "inductor")]
)
def test_how_a_step_is_computed_is_part_of_the_recipe(written: Any, expected: str):
    assert recipe_with(Recipe(), {"compile": written}).compile == expected


def test_another_way_is_refused_in_one_line():
    with pytest.raises(TaskError) as caught:
        recipe_with(Recipe(), {"compile": "inducter"})
    assert str(caught.value) == (
        "recipe.compile: got 'inducter'; expected off, auto, inductor or cudagraphs;"
        " did you mean 'inductor'?"
    )


SPACE = """
name: study
task: digits
baselines: [relu]
learning_rate: {grid: [0.01, 0.1], default: 0.1}
"""


def test_a_study_may_go_on_compiled(tmp_path: Any):
    path = tmp_path / "study.yaml"
    path.write_text(SPACE, encoding="utf-8")
    compiled = load_space(path, ["recipe.compile=inductor"])
    assert compiled.definition() == load_space(path).definition()
    assert compiled.resolved()["recipe"] == {"compile": "inductor"}
    with pytest.raises(SpaceError):
        load_space(path, ["recipe.compile=yes"])


def test_a_cuda_graph_without_a_gpu_is_refused_in_one_line(tmp_path: Any):
    path = tmp_path / "study.yaml"
    path.write_text(SPACE, encoding="utf-8")
    space = load_space(path, ["recipe.compile=cudagraphs"])
    with pytest.raises(StudyError) as caught:
        training_of(space, CASES["mlp"][0])
    assert str(caught.value) == (
        "recipe.compile: cudagraphs needs a GPU, and trials run on the CPU; expected inductor,"
        " auto or off, or resources.gpu"
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device")
@pytest.mark.parametrize("case", CASES)
def test_a_recorded_batch_follows_the_eager_one(case: str):
    task, splits, options, formula, recipe = CASES[case]
    rest = settings(task, options, **recipe) | {"device": "cuda"}
    make = partial(Activation, formula)
    eager = losses(batched(task, splits, make, **rest))
    found = losses(batched(task, splits, make, **with_compile(rest, "cudagraphs")))
    assert found == pytest.approx(eager, rel=4 * CLOSE)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device")
@pytest.mark.parametrize("case", ["mlp", "mlp, AdamW", "cnn, BatchNorm"])
def test_a_recorded_plain_run_follows_the_eager_one(case: str):
    task, splits, options, formula, recipe = CASES[case]
    rest = settings(task, options, **recipe) | {"device": "cuda", "learning_rate": 0.03, "seed": 1}
    make = partial(Activation, formula)
    eager = drain(run_epochs(task, splits, make, **rest))
    found = drain(run_epochs(task, splits, make, **with_compile(rest, "cudagraphs")))
    assert losses([found]) == pytest.approx(losses([eager]), rel=4 * CLOSE)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device")
def test_a_recorded_step_is_recorded_once_and_takes_what_it_is_given():
    total, calls = torch.zeros(3, device="cuda"), []

    def step(inputs: Tensor, targets: Tensor, factor: Any) -> Tensor:
        calls.append(1)
        total.add_(inputs * factor)
        return total + targets

    once = Recorded(step)
    for k in range(1, 9):
        given = torch.full((3,), float(k), device="cuda")
        found = once(given, torch.zeros(3, device="cuda"), 0.5)
        assert found.tolist() == [k * (k + 1) / 4] * 3
    assert len(calls) == 4  # three as they are, one recorded
