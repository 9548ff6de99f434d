"""One run in several processes, and a batch in several parts: the numbers of the plain run."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import FileStore  # pyright: ignore[reportPrivateImportUsage]
from torch.multiprocessing.spawn import spawn

from search.activation import Activation
from search.errors import SpaceError, StudyError
from search.plan import slots
from search.records import Point, Run
from search.space.settings import Resources
from search.space.space import load_space
from search.tasks.task import Recipe, Split
from search.training.batched import BatchingError, run_together
from search.training.candidate import train_candidate
from search.training.checkpoints import Checkpoints, Keeping, ask_to_pause, run_checkpoint
from search.training.checkpoints.shared import ASKS
from search.training.from_space import training_of
from search.training.job import Job, Outcome, Training
from search.training.loop import run_epochs, train
from search.training.planner import planned
from search.training.rates import Grid
from search.training.shards import ALONE, Shards
from search.tuner.capacity import Node, most_at_once, part_of
from search.tuner.parallel import bundles
from tests import toy_task

TESTS = Path(__file__).parent
FORMULA = "x * sigmoid(b * x) where b = 1 per channel"
RECIPE = replace(toy_task.TASK.recipe, clip_norm=1.0, max_steps=20)
EPS = torch.finfo(torch.float32).eps


def plain(recipe: Recipe) -> Run:
    splits = toy_task.load(None)
    make = partial(Activation, FORMULA)
    shared = {"options": {"width": 16}, "learning_rate": 0.1, "seed": 3}
    return train(toy_task.TASK, splits, make, recipe=recipe, **shared)


def agree(first: Run, second: Run) -> None:
    """Up to what rounding the sums of a batch differently leads to in 20 steps."""
    assert (first.state, first.steps) == (second.state, second.steps)
    for one, other in zip(first.curve, second.curve, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=64 * EPS)
        assert one.loss == pytest.approx(other.loss, rel=64 * EPS)
        assert one.score == other.score


@pytest.mark.parametrize("parts", [2, 3, 64])
def test_a_batch_in_parts_has_the_gradients_of_the_whole(parts: int):
    agree(plain(replace(RECIPE, accumulate=parts)), plain(RECIPE))


def test_one_part_is_the_plain_run_bit_by_bit():
    assert plain(replace(RECIPE, accumulate=1)).curve == plain(RECIPE).curve


def test_a_batch_in_parts_is_not_batched():
    with pytest.raises(BatchingError, match=r"recipe\.accumulate"):
        next(
            run_together(
                toy_task.TASK,
                toy_task.load(None),
                partial(Activation, FORMULA),
                options={"width": 16},
                recipe=replace(RECIPE, accumulate=2),
                keys=[(0.1, 0), (0.1, 1)],
            )
        )


def training(workers: int) -> Training:
    grid = Grid((0.03, 0.1), 0.1, (0,), extend=False)
    recipe = {"max_steps": 20, "clip_norm": 1.0}
    return Training("toy_task.py", TESTS, {}, recipe, None, grid, workers=workers)


def _process(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = FileStore(f"{folder}/store", world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    runs: list[Run] = []
    outcome = train_candidate(
        training(world), Job(FORMULA, True), runs.append, shards=Shards(rank, world)
    )
    dist.destroy_process_group()
    torch.save((outcome, runs), f"{folder}/{rank}.pt")


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_share_a_run_and_agree_on_its_numbers(tmp_path: Path, world: int):
    spawn(_process, (world, str(tmp_path)), nprocs=world)
    told: list[tuple[Outcome, list[Run]]] = [
        torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(world)
    ]
    alone: list[Run] = []
    outcome = train_candidate(training(1), Job(FORMULA, True), alone.append)
    for other, runs in told:
        assert (other.state, other.best_rate) == ("complete", outcome.best_rate)
        for run, expected in zip(runs, alone, strict=True):
            agree(run, expected)
    first, *others = [[run.curve for run in runs] for _, runs in told]
    assert all(curves == first for curves in others)  # the same decisions everywhere


def _until(rank: int, world: int, folder: str, points: int | None, steps: int | None = 3) -> None:
    """A run with a checkpoint after every `steps`; left after so many points, or ended."""
    torch.set_num_threads(1)
    store = FileStore(f"{folder}/store_{points}", world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    shards, keeping = Shards(rank, world), Keeping(Path(folder), steps, seconds=None)
    kept = Checkpoints(keeping.of_trial("trial_1"), keeping, "the same")
    found = run_checkpoint(kept, 0.1, 3, shards).read()
    begun = 0 if found is None else found["step"] + len(found["losses"])
    epochs = run_epochs(
        toy_task.TASK,
        toy_task.load(None),
        partial(Activation, FORMULA),
        options={"width": 16},
        recipe=RECIPE,
        learning_rate=0.1,
        seed=3,
        checkpoint=run_checkpoint(kept, 0.1, 3, shards),
        shards=shards,
    )
    if points is not None:
        _ = [next(epochs) for _ in range(points)]
        epochs.close()
    else:
        torch.save((result(epochs), begun), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


LEFT = 15
"""The last third step of the two epochs after which a run is left."""


def result(epochs: Generator[Point, str | None, Run]) -> Run:
    """The run at the end of its points."""
    while True:
        try:
            next(epochs)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize(
    "lost",
    [
        "latest of one",
        pytest.param("", marks=pytest.mark.slow),
        pytest.param("all of one", marks=pytest.mark.slow),
    ],
)
def test_a_run_of_two_processes_goes_on_from_the_set_that_both_have(tmp_path: Path, lost: str):
    folders = [tmp_path / name for name in ("whole", "cut")]
    for folder in folders:
        folder.mkdir()
    spawn(_until, (2, str(folders[0]), None), nprocs=2)
    spawn(_until, (2, str(folders[1]), 2), nprocs=2)
    sets = sorted((folders[1] / "trial_1").glob("*_1.pt"), key=lambda path: path.stat().st_mtime_ns)
    assert len(sets) == 2
    for path in {"": [], "latest of one": sets[1:], "all of one": sets}[lost]:
        path.unlink()
    spawn(_until, (2, str(folders[1]), None), nprocs=2)
    told = [torch.load(f / f"{r}.pt", weights_only=False) for f in folders for r in (0, 1)]
    runs, begun = zip(*told, strict=True)
    assert all(run.curve == runs[0].curve for run in runs)
    assert all((run.state, run.steps) == ("complete", 20) for run in runs)
    assert begun == (0, 0, *[{"": LEFT, "latest of one": LEFT - 3, "all of one": 0}[lost]] * 2)


def test_a_wish_to_pause_is_written_down_once_by_all(tmp_path: Path):
    assert ask_to_pause(tmp_path)
    spawn(_until, (2, str(tmp_path), 2, None), nprocs=2)
    files = sorted((tmp_path / "trial_1").glob("*.pt"))
    assert [path.stem[-4:] for path in files] == ["_0_0", "_0_1"]
    states = [torch.load(path, weights_only=True) for path in files]
    assert [state["step"] + len(state["losses"]) for state in states] == [ASKS, ASKS]


def test_a_share_is_of_samples():
    batch = torch.arange(10)
    shares = [Shards(rank, 4).part(batch) for rank in range(4)]
    assert torch.cat(shares).equal(batch) and {len(share) for share in shares} == {2, 3}
    split = Split(torch.zeros(5, 2), torch.zeros(5))
    assert len(Shards(1, 2).of_split(split).targets) == 2
    assert ALONE.part(batch).equal(batch) and ALONE.synchronised(nn.Identity(), torch.device("cpu"))


# --- resources -----------------------------------------------------------------------------------

YAML = f"""
name: shared
task: {TESTS / "toy_task.py"}
baselines: [relu]
learning_rate: {{grid: [0.03, 0.3], default: 0.3}}
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "shared.yaml"
    path.write_text(YAML, encoding="utf-8")
    return path


def test_a_strategy_names_its_workers_or_takes_one_a_gpu(written: Path):
    four = load_space(written, ["resources={gpu: 4, cpu: 8, strategy: ddp}"]).resources
    assert (four.workers, part_of(four)) == (4, replace(four, cpu=2, gpu=1))
    assert bundles(four).bundles == [{"CPU": 2.0, "GPU": 1.0}] * 4
    nodes = [Node("a", 8, 3), Node("b", 8, 3)]
    assert most_at_once(four, nodes) == 1 and slots(part_of(four), 8, 3) == 3
    two = load_space(written, ["resources={cpu: 2, strategy: ddp, workers: 2}"])
    assert (two.resources.workers, two.resources.strategy) == (2, "ddp")
    assert load_space(written).resources == Resources()
    own, choice = planned(training(2), 8, None)
    assert (own.at_once, choice.reason) == (1, "a run takes 2 processes")


@pytest.mark.parametrize(
    ("resources", "problem"),
    [
        ("{strategy: ddp}", "resources.strategy: expected 2 workers or more for ddp"),
        ("{strategy: fsdp, gpu: 2}", "resources.strategy: unknown strategy 'fsdp'"),
        ("{workers: 2}", "resources.workers: expected 1, or strategy: ddp beside it"),
        ("{gpu: 3, strategy: ddp, workers: 2}", "resources.gpu: expected 2 of them"),
        ("{strategy: ddp, workers: 1}", "resources.workers: expected 2 workers or more"),
    ],
)
def test_mistakes_in_resources_are_told(written: Path, resources: str, problem: str):
    with pytest.raises(SpaceError) as caught:
        load_space(written, [f"resources={resources}"])
    assert len(caught.value.problems) == 1 and problem in str(caught.value)


def test_a_step_of_several_processes_is_not_compiled(written: Path):
    space = load_space(
        written, ["resources={cpu: 2, strategy: ddp, workers: 2}", "recipe.compile=inductor"]
    )
    with pytest.raises(StudyError, match=r"recipe\.compile: inductor: a step that several"):
        training_of(space, toy_task.TASK)
