"""The plain loop: repeatable, paired by seed, and told why it diverged."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search.activation import Activation
from search.records import Run
from search.tasks import TASKS
from search.tasks.task import Splits
from search.training.epochs import train_epoch
from search.training.loop import initial_model, train
from search.training.step_cost import measure_step_cost
from tests.loop_cases import CPU, SPLITS, VELU, epochs, timeless, toy
from tests.toy_task import TASK, Slope

# --- a run ---------------------------------------------------------------------------------------


def test_a_run_learns_and_tells_what_it_did():
    run = toy()
    assert run.state == "complete" and run.reason == ""
    assert (run.learning_rate, run.seed, run.steps) == (0.1, 0, 24)
    assert [point.step for point in run.curve] == [8, 16, 24]
    assert (run.score, run.loss) == (run.curve[-1].score, run.curve[-1].loss)
    assert run.score is not None and run.score > 0.9
    assert run.curve[0].train_loss > run.curve[-1].train_loss
    assert run.seconds > 0


def test_the_digits_are_learned():
    task = TASKS["digits"]
    splits = task.load(None)
    arguments = {"options": task.options, "recipe": task.recipe, "seed": 0}
    good = train(task, splits, nn.ReLU, learning_rate=0.03, **arguments)
    slow = train(task, splits, nn.ReLU, learning_rate=0.001, **arguments)
    assert good.score is not None and slow.score is not None
    assert good.score > 0.955 and slow.score < 0.9


def test_the_same_seed_gives_the_same_run_bit_for_bit():
    assert timeless(toy(seed=3)) == timeless(toy(seed=3))
    assert timeless(toy(seed=3)) != timeless(toy(seed=4))


def test_a_run_leaves_the_callers_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    toy()
    assert torch.equal(torch.rand(3), expected)


class Noisy(nn.Module):
    """A ReLU behind dropout: it draws from torch's global generator."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return F.dropout(x.relu(), 0.3, self.training)


def test_runs_that_take_turns_do_not_disturb_each_other():
    alone = timeless(toy(Noisy))
    first, second = epochs(Noisy), epochs(Noisy)
    ends: list[Run] = []
    while len(ends) < 2:
        for run in (first, second):
            torch.rand(7)
            try:
                next(run)
            except StopIteration as end:
                ends.append(timeless(end.value))
    assert ends == [alone, alone]


def test_activations_start_from_the_same_weights():
    models = [
        initial_model(TASK, SPLITS, make, TASK.options, seed=2, device=CPU)
        for make in (
            nn.ReLU,
            Slope,
            lambda: Activation("x * sigmoid(b * x) where b = 1 per channel"),
        )
    ]
    first = [model.state_dict()["0.weight"] for model in models]
    assert torch.equal(first[0], first[1]) and torch.equal(first[0], first[2])
    other = initial_model(TASK, SPLITS, nn.ReLU, TASK.options, seed=3, device=CPU)
    assert not torch.equal(first[0], other.state_dict()["0.weight"])


def test_the_seed_orders_the_data_and_every_epoch_draws_afresh():
    def watched(seed: int) -> tuple[list[Tensor], list[float]]:
        batches: list[Tensor] = []
        draws: list[float] = []

        class Watching(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                if self.training:
                    batches.append(x.detach())
                    draws.append(torch.rand(()).item())
                return x

        def build(make: Any, splits: Splits, **options: Any) -> nn.Module:
            return nn.Sequential(Watching(), TASK.build(make, splits, **options))

        toy(task=replace(TASK, build=build), seed=seed)
        return batches, draws

    batches, draws = watched(0)
    again, _ = watched(0)
    others, _ = watched(1)
    assert len(batches) == len(set(draws)) == 24
    assert torch.equal(torch.cat(batches), torch.cat(again))
    assert not torch.equal(batches[0], others[0])
    assert not torch.equal(batches[0], batches[8])


def test_whoever_watches_may_stop_a_run():
    run = epochs()
    next(run)
    point = run.send(None)
    with pytest.raises(StopIteration) as end:
        run.send("not among the best half at epoch 2")
    result = end.value.value
    assert (result.state, result.reason) == ("pruned", "not among the best half at epoch 2")
    assert result.curve[-1] == point and result.steps == 16
    assert result.score is None and result.loss is None


def test_per_channel_parameters_are_trained():
    made: list[Activation] = []

    def make() -> Activation:
        made.append(Activation("x * sigmoid(b * x) where b = 1 per channel"))
        return made[-1]

    toy(make)
    slopes = made[0].get_parameter("b")
    assert slopes.shape == (16,) and not torch.allclose(slopes, torch.ones(16), atol=1e-4)


# --- divergence ----------------------------------------------------------------------------------


def test_an_infinite_rate_diverges_at_once():
    run = toy(rate=1e30)
    assert run.state == "diverged" and run.curve == ()
    assert run.steps <= 3
    assert run.reason.startswith(f"step {run.steps}: loss is ")
    assert run.score is None and run.loss is None


def test_a_loss_above_the_bound_diverges():
    run = toy(loss_bound=0.1)
    assert (run.state, run.steps) == ("diverged", 1)
    assert run.reason.startswith("step 1: loss is 0.") and run.reason.endswith(
        "above the bound 0.1"
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_step_and_the_value_are_named(bad: float):
    losses = iter([1.0, 0.5, bad, 0.4])
    batches = [(torch.zeros(1), torch.zeros(1))] * 4
    found, problem = train_epoch(
        lambda step, x, y: torch.tensor(next(losses)), batches, 10, 1e3, CPU
    )
    assert len(found) == 3 and problem == f"step 13: loss is {bad}"


def test_a_gpu_looks_at_many_losses_together_and_still_names_the_step():
    losses = [1.0] * 40 + [math.nan] + [1.0] * 60
    batches = [(torch.zeros(1), torch.zeros(1))] * len(losses)
    seen: list[int] = []

    def update(step: int, x: Tensor, y: Tensor) -> Tensor:
        seen.append(step)
        return torch.tensor(losses[step])

    found, problem = train_epoch(update, batches, 0, 1e3, torch.device("cuda"))
    assert problem == "step 41: loss is nan" and len(found) == 41
    assert len(seen) == 64
    assert train_epoch(update, batches[:40], 0, 1e3, torch.device("cuda")) == ([1.0] * 40, "")


def test_a_validation_that_is_not_finite_diverges():
    class Ill(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if self.training else x * math.nan

    run = toy(Ill)
    assert (run.state, run.curve, run.steps) == ("diverged", (), 8)
    assert run.reason.startswith("step 8: validation loss is nan, accuracy ")


# --- on a GPU ------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA or ROCm device")
@pytest.mark.parametrize("amp", [None, "bfloat16", "float16"])
def test_a_gpu_trains_the_same_model(amp: Any):
    def on(device: str, rate: float = 0.1, **recipe: Any) -> Run:
        changed = replace(TASK.recipe, clip_norm=5.0, **recipe)
        arguments = {"options": TASK.options, "recipe": changed, "seed": 0, "device": device}
        return train(TASK, SPLITS, lambda: Activation(VELU), learning_rate=rate, **arguments)

    cpu, gpu = on("cpu"), on("cuda", amp=amp)
    assert gpu.state == "complete" and [p.step for p in gpu.curve] == [8, 16, 24]
    assert gpu.loss == pytest.approx(cpu.loss, abs=0.05 if amp else 1e-3)
    diverged = on("cuda", rate=1e30, amp=amp)
    assert diverged.state == "diverged" and diverged.reason.startswith("step ")
    cost = measure_step_cost(
        TASK, SPLITS, TASK.options, TASK.recipe, nn.GELU, nn.GELU, steps=3, device="cuda"
    )
    assert 0 < cost.relative < math.inf
