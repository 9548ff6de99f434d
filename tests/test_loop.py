"""The training loop and its parts, on the toy task and on small arithmetic."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search.activation import Activation
from search.errors import TaskError
from search.records import Point, Run
from search.tasks import TASKS
from search.tasks.task import Recipe, Split, Splits, Task
from search.training.augment import PADDING, augment, crop, flip
from search.training.constant import constant_loss
from search.training.epochs import count_steps, epoch_batches, train_epoch
from search.training.evaluation import EVALUATION_BATCH, evaluate
from search.training.loop import initial_model, run_epochs, train
from search.training.optimizers import make_optimizer, parameter_groups, penalties
from search.training.schedules import rate_factor
from search.training.step import make_update
from search.training.step_cost import WARM_UP, kept_bytes, measure_step_cost
from search.training.streams import generator, stream_seed
from tests.toy_task import TASK, Slope

CPU = torch.device("cpu")
SPLITS = TASK.load(Path())
VELU = "x * sigmoid(lam * x) where lam = 1 per layer penalty (lam - 3) ** 2"


def toy(
    make: Any = nn.ReLU, task: Task = TASK, rate: float = 0.1, seed: int = 0, **recipe: Any
) -> Run:
    """A run of the toy task, with parts of its recipe replaced."""
    changed = replace(task.recipe, **recipe)
    return train(
        task, SPLITS, make, options=task.options, recipe=changed, learning_rate=rate, seed=seed
    )


def epochs(make: Any = nn.ReLU, **recipe: Any) -> Generator[Point, str | None, Run]:
    return run_epochs(
        TASK,
        SPLITS,
        make,
        options=TASK.options,
        recipe=replace(TASK.recipe, **recipe),
        learning_rate=0.1,
        seed=0,
    )


def timeless(run: Run) -> Run:
    return replace(run, seconds=0.0)


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


# --- the training step ---------------------------------------------------------------------------


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


# --- steps and batches ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "recipe", "steps"),
    [
        (256, Recipe(batch_size=32, epochs=3), 24),
        (255, Recipe(batch_size=32, epochs=3), 21),
        (10, Recipe(batch_size=32, epochs=3), 3),
        (256, Recipe(batch_size=32, epochs=3, max_steps=5), 5),
        (256, Recipe(batch_size=32, epochs=3, max_steps=500), 24),
    ],
)
def test_steps_are_counted(samples: int, recipe: Recipe, steps: int):
    assert count_steps(samples, recipe) == steps


def test_max_steps_ends_within_an_epoch():
    run = toy(max_steps=11)
    assert [point.step for point in run.curve] == [8, 11]
    assert (run.steps, run.state) == (11, "complete")


def numbered(count: int) -> Splits:
    part = Split(torch.arange(count), torch.arange(count))
    return Splits(part, part, part)


def test_an_epoch_shows_every_sample_once_in_a_fresh_order():
    splits = numbered(70)
    order, draws = generator(0, 1), generator(0, 2)
    recipe = Recipe(batch_size=10)
    shown = [
        [batch for batch, _ in epoch_batches(splits, recipe, order, draws, 99, CPU)]
        for _ in range(2)
    ]
    for batches in shown:
        assert sorted(torch.cat(batches).tolist()) == list(range(70))
    assert not torch.equal(shown[0][0], shown[1][0])


def test_the_last_small_batch_is_left_out_unless_it_is_the_only_one():
    streams = generator(0, 1), generator(0, 2)
    for size, lengths in ((10, [10, 10]), (30, [25])):
        batches = epoch_batches(numbered(25), Recipe(batch_size=size), *streams, 99, CPU)
        assert [len(batch) for batch, _ in batches] == lengths


def test_streams_differ_by_seed_stream_and_part():
    seeds = [stream_seed(*numbers) for numbers in product((-1, 0, 1), (0, 1), (0, 1))]
    assert len(set(seeds)) == 12 and all(0 <= seed < 2**63 for seed in seeds)


# --- augmentation --------------------------------------------------------------------------------


def test_flips_and_crops_are_those_of_a_plain_loop():
    random = torch.Generator().manual_seed(0)
    images = torch.randint(1, 256, (6, 3, 8, 10), generator=random, dtype=torch.uint8)
    chosen = torch.tensor([True, False, True, True, False, False])
    offsets = torch.randint(2 * PADDING + 1, (2, 6), generator=random)
    flipped, cropped = flip(images, chosen), crop(images, offsets)
    for n, (top, left) in enumerate(offsets.T.tolist()):
        assert torch.equal(flipped[n], images[n].flip(-1) if chosen[n] else images[n])
        padded = F.pad(images[n], (PADDING,) * 4)
        assert torch.equal(cropped[n], padded[:, top : top + 8, left : left + 10])
    assert cropped.dtype == torch.uint8
    still = torch.full((2, 6), PADDING)
    assert torch.equal(crop(images, still), images)


def test_augmentation_draws_from_its_generator():
    images = torch.rand(64, 1, 8, 8)
    first, again = (augment(images, ("flip", "crop"), generator(0, 2)) for _ in range(2))
    other = augment(images, ("flip", "crop"), generator(1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == images.shape
    assert augment(images, (), generator(0, 2)) is images


def test_augmentation_needs_images():
    with pytest.raises(TaskError) as caught:
        toy(augmentation=("flip",))
    line = "recipe.augmentation: got samples of shape (2,); expected (C, H, W)"
    assert caught.value.problems == (line,)


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
