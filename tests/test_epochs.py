"""Which batches an epoch has and in what order, and how they are augmented."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.nn import functional as F

from search.errors import TaskError
from search.tasks.task import Recipe
from search.training.augment import PADDING, augment, crop, flip
from search.training.epochs import count_steps, epoch_batches
from search.training.streams import generator, stream_seed
from tests.loop_cases import CPU, numbered, toy

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
