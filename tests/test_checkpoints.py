"""What was cut off goes on with the numbers that it would have had, bit for bit."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search.activation import Activation
from search.records import Run
from search.tasks.digits import TASK as DIGITS
from search.tasks.task import Recipe, Split, Splits, Task, find_task, options_with
from search.training.batched import run_together
from search.training.candidate import train_candidate
from search.training.checkpoints import (
    Checkpoints,
    Directory,
    Keeping,
    Paused,
    State,
    ask_to_pause,
    tidy,
)
from search.training.job import Job, Training
from search.training.loop import run_epochs
from search.training.rates import Grid
from search.training.sweep import drain

TOY = find_task("toy_task.py", Path(__file__).parent)
KEYS = ((0.01, 0), (0.03, 0), (0.03, 7))
GATED = "(a - b) * x * sigmoid(s * x) + b * x where a = 1 per layer, b = 0 per layer, s = 1 {}"


def digits() -> Splits:
    """Random numbers in the shape of digits."""
    random = torch.Generator().manual_seed(0)

    def part(size: int) -> Split:
        inputs = torch.randn(size, 1, 8, 8, generator=random)
        return Split(inputs, torch.randint(10, (size,), generator=random))

    return Splits(part(80), part(40), part(20), outputs=10)


def dropping(make: Callable[[], nn.Module], splits: Splits, **_: Any) -> nn.Module:
    first = [nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), make(), nn.Dropout(0.5)]
    return nn.Sequential(*first, nn.Linear(16, splits.outputs), make())


class Counting(nn.Module):
    """A buffer that no state dict has, and dropout by torch's own generator."""

    calls: Tensor

    def __init__(self, make: Callable[[], nn.Module]):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), make(), nn.Dropout2d(0.3))
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layers(x[:, :, None])[..., 0] / self.calls if x.ndim == 2 else self._images(x)

    def _images(self, x: Tensor) -> Tensor:
        return self.layers[:3](x) * (1 + 1 / self.calls)


DROPPING = Task("dropping", lambda root: digits(), dropping)
COUNTING = Task("counting", lambda root: digits(), lambda make, splits: Counting(make))

# name: task, options, activation, recipe; five steps an epoch.
CASES: dict[str, tuple[Task, dict[str, Any], str, Recipe]] = {
    "momentum, cosine, dropout, BatchNorm": (
        DROPPING,
        {},
        GATED.format("per channel"),
        Recipe(batch_size=16, epochs=3, schedule="cosine", warmup=0.3, nesterov=True),
    ),
    "AdamW, multistep, clipping, augmentation": (
        DIGITS,
        options_with(DIGITS, {"model": "cnn"}),
        "gelu",
        Recipe(
            optimizer="adamw",
            batch_size=16,
            epochs=3,
            schedule="multistep",
            weight_decay=0.1,
            clip_norm=0.5,
            augmentation=("flip", "crop"),
            label_smoothing=0.1,
        ),
    ),
    "a penalty, no momentum, cut within an epoch": (
        DROPPING,
        {},
        "velu",
        Recipe(batch_size=16, epochs=4, momentum=0.0, weight_decay=0.1, max_steps=13),
    ),
    "a buffer that is not kept": (COUNTING, {}, "mish", Recipe(batch_size=16, epochs=2)),
    "bfloat16": (DROPPING, {}, "silu", Recipe(batch_size=16, epochs=2, amp="bfloat16")),
}


class Every:
    """A folder that keeps a copy of itself after every write: where a kill may leave it."""

    def __init__(self, path: Path):
        self.now, self.copies = Directory(path / "now"), path / "copies"

    def names(self) -> list[str]:
        return self.now.names()

    def read(self, name: str) -> State | None:
        return self.now.read(name)

    def write(self, name: str, state: State) -> None:
        self.now.write(name, state)
        number = len(list(self.copies.glob("*")))
        shutil.copytree(self.now.path, self.copies / f"{number:03d}")

    def each(self) -> Iterator[Directory]:
        return map(Directory, sorted(self.copies.iterdir()))


def kept(store: Any, folder: Path, say: list[str] | None = None, **every: Any) -> Checkpoints:
    keeping = Keeping(folder, **{"steps": None, "seconds": None, **every})
    return Checkpoints(store, keeping, "about", (say if say is not None else []).append)


def same(a: Run, b: Run) -> bool:
    """Equal in all but the time they took."""
    return replace(a, seconds=0.0) == replace(b, seconds=0.0)


def counted(task: Task) -> tuple[Task, list[int]]:
    """The task, and how often its loss was asked for in training."""
    calls: list[int] = []

    def loss(outputs: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        calls.extend([1] if outputs.requires_grad else [])
        return task.loss(outputs, targets, smoothing)

    return replace(task, loss=loss), calls


@pytest.mark.parametrize("case", CASES)
def test_a_plain_run_goes_on_from_any_checkpoint_bit_by_bit(case: str, tmp_path: Path):
    task, options, formula, recipe = CASES[case]
    task, calls = counted(task)
    run = partial(
        run_epochs,
        task,
        digits(),
        partial(Activation, formula),
        options=options,
        recipe=recipe,
        learning_rate=0.03,
        seed=3,
        testing=True,
    )
    whole = drain(run())
    steps, _ = len(calls), calls.clear()
    assert whole.state == "complete" and whole.test is not None
    every = Every(tmp_path)
    assert same(drain(run(checkpoint=kept(every, tmp_path, steps=2).run(0.03, 3))), whole)
    cuts = list(every.each())
    assert len(cuts) == steps // 2 + 1  # the last is what came of it
    for number, cut in enumerate(cuts):
        calls.clear()
        points: list[object] = []
        stream = run(checkpoint=kept(cut, tmp_path).run(0.03, 3))
        try:
            while True:
                points.append(next(stream))
        except StopIteration as end:
            assert same(end.value, whole)
        assert tuple(points) == whole.curve  # those of before come again
        assert len(calls) == max(0, steps - 2 * (number + 1)) if number < len(cuts) - 1 else True
    assert not calls


@pytest.mark.parametrize("case", CASES)
def test_a_batch_goes_on_from_any_checkpoint_bit_by_bit(case: str, tmp_path: Path):
    task, options, formula, recipe = CASES[case]
    wild = (1e30, 1)  # leaves on its way
    run = partial(
        run_together,
        task,
        digits(),
        partial(Activation, formula),
        options=options,
        recipe=recipe,
        testing=True,
    )
    keys = [*KEYS, wild]
    epochs = list(run(keys=keys))
    whole = {(r.learning_rate, r.seed): r for epoch in epochs for r in epoch.ended}
    assert {whole[key].state for key in KEYS} == {"complete"}
    every = Every(tmp_path)
    members = [(0, *key) for key in keys]
    list(run(keys=keys, checkpoint=kept(every, tmp_path, steps=3).batch(members)))
    cuts = list(every.each())
    assert len(cuts) == whole[KEYS[0]].steps // 3 + 1
    for cut in cuts:
        trial = kept(cut, tmp_path)
        assert [sorted(part) for part in trial.begun(members)] == [sorted(members)]
        again = list(run(keys=keys, checkpoint=trial.batch(members)))
        assert [epoch.points for epoch in again] == [epoch.points for epoch in epochs]
        for one, other in zip(again, epochs, strict=True):
            assert len(one.ended) == len(other.ended)
            assert all(same(a, b) for a, b in zip(one.ended, other.ended, strict=True))


def test_a_batch_goes_on_with_what_is_asked_of_it(tmp_path: Path):
    """Runs that the study has are not trained again, and the others do not notice."""
    _, options, formula, recipe = CASES["momentum, cosine, dropout, BatchNorm"]
    run = partial(
        run_together,
        DROPPING,
        digits(),
        partial(Activation, formula),
        options=options,
        recipe=recipe,
    )
    whole = {(r.learning_rate, r.seed): r for epoch in run(keys=KEYS) for r in epoch.ended}
    every = Every(tmp_path)
    members = [(0, *key) for key in KEYS]
    list(run(keys=KEYS, checkpoint=kept(every, tmp_path, steps=7).batch(members)))
    left = [members[2], (0, 0.1, 5)]
    for cut in every.each():
        trial = kept(cut, tmp_path)
        assert trial.begun(left) == [[members[2]]]
        epochs = run(keys=[KEYS[2]], checkpoint=trial.batch([members[2]]))
        (found,) = [r for epoch in epochs for r in epoch.ended]
        assert same(found, whole[KEYS[2]])


# --- a candidate ---------------------------------------------------------------------------------


def training(folder: Path, **changes: Any) -> Training:
    shared: dict[str, Any] = {
        "task": str(Path(__file__).parent / "toy_task.py"),
        "folder": Path(__file__).parent,
        "options": {},
        "recipe": {"epochs": 3},
        "data_root": None,
        "grid": Grid((0.03, 0.3), 0.3, (0, 1)),
        "checkpoints": Keeping(folder, steps=5, seconds=None),
    }
    return Training(**{**shared, **changes})


def trained(
    how: Training, told: list[Run] | None = None, **job: Any
) -> tuple[list[Run], list[str]]:
    runs: list[Run] = [] if told is None else told
    lines: list[str] = []
    wanted = Job("silu(x)", gated=True, checkpoints="trial_7", **job)
    outcome = train_candidate(how, wanted, runs.append, say=lines.append)
    assert outcome.state == "complete", outcome
    return sorted(runs, key=lambda run: (run.learning_rate, run.seed)), lines


class Impatient(Directory):
    """Asks for the end as soon as anything was written."""

    def write(self, name: str, state: State) -> None:
        super().write(name, state)
        ask_to_pause(self.path.parent)


class Impatience(Keeping):
    def of_trial(self, name: str) -> Directory:
        return Impatient(self.folder / name)


@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize("in_step", [False, True])
def test_a_candidate_that_is_asked_to_pause_goes_on_where_it_was(
    at_once: int, in_step: bool, tmp_path: Path
):
    how = training(tmp_path, at_once=at_once, in_step=in_step, checkpoints=None)
    whole, _ = trained(how)
    how = replace(how, checkpoints=Impatience(tmp_path, steps=5, seconds=None))
    told: list[Run] = []
    pauses = 0
    while True:
        try:
            trained(how, told=told, finished=tuple(told))
            break
        except Paused:
            tidy(tmp_path, {"trial_7"})
            pauses += 1
    assert pauses >= 4
    told.sort(key=lambda run: (run.learning_rate, run.seed))
    assert len(told) == len(whole)
    assert all(same(a, b) for a, b in zip(told, whole, strict=True))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half", "half", "bit"])
def test_what_cannot_be_read_is_left_aside_with_a_line(damage: bytes | str, tmp_path: Path):
    how = training(tmp_path)
    whole, lines = trained(how)
    assert not lines
    for path in (tmp_path / "trial_7").glob("*.pt"):
        content = bytearray(path.read_bytes())
        if damage == "bit":  # of the numbers: the archive has padding, which means nothing
            with zipfile.ZipFile(path) as archive:
                largest = max(archive.infolist(), key=lambda part: part.file_size)
                place = content.index(archive.read(largest)) + largest.file_size // 2
            content[place] ^= 4
        elif damage == "half":
            content = content[: len(content) // 2]
        path.write_bytes(damage if isinstance(damage, bytes) else content)
    runs, lines = trained(how)
    assert all(same(a, b) for a, b in zip(runs, whole, strict=True))
    assert len(lines) == len(whole)
    for line in lines:
        assert "cannot be read: " in line and line.endswith("; training begins anew")
        assert "\n" not in line


def test_a_checkpoint_of_another_training_is_left_aside_with_a_line(tmp_path: Path):
    trained(training(tmp_path))
    other = training(tmp_path, recipe={"epochs": 2})
    runs, lines = trained(other)
    assert {run.steps for run in runs} == {16}
    assert len(lines) == len(runs) and all("is of another training" in line for line in lines)


def test_a_model_that_has_changed_is_trained_from_the_start(tmp_path: Path):
    recipe = Recipe(batch_size=32, epochs=2)
    shared: dict[str, Any] = {"recipe": recipe, "learning_rate": 0.1, "seed": 0}
    splits = TOY.load(None)
    run = partial(run_epochs, TOY, splits, nn.ReLU, **shared)
    every = Every(tmp_path)
    drain(run(options={"width": 16}, checkpoint=kept(every, tmp_path, steps=9).run(0.1, 0)))
    lines: list[str] = []
    first = next(every.each())
    again = drain(run(options={"width": 8}, checkpoint=kept(first, tmp_path, lines).run(0.1, 0)))
    assert same(again, drain(run(options={"width": 8})))
    assert lines == [
        "checkpoint run_0.1_0: it is of another model; training begins anew",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_where_nothing_can_be_written_training_goes_on_and_says_so_once(tmp_path: Path):
    tmp_path.chmod(0o500)
    runs, lines = trained(training(tmp_path))
    tmp_path.chmod(0o700)
    assert len(runs) >= 4 and len(lines) == 1 and "cannot be written" in lines[0]


def test_a_full_disk_is_said_once(tmp_path: Path):
    class Full(Directory):
        def write(self, name: str, state: Mapping[str, Any]) -> None:
            raise OSError(28, "No space left on device")

    lines: list[str] = []
    trial = kept(Full(tmp_path), tmp_path, lines, steps=2)
    shared: dict[str, Any] = {"recipe": Recipe(batch_size=32, epochs=2), "options": {"width": 4}}
    run = partial(run_epochs, TOY, TOY.load(None), nn.ReLU, learning_rate=0.1, seed=0, **shared)
    assert same(drain(run(checkpoint=trial.run(0.1, 0))), drain(run()))
    assert lines == ["checkpoint run_0.1_0 cannot be written: No space left on device"]


def test_short_runs_write_nothing_by_default(tmp_path: Path):
    trained(training(tmp_path, checkpoints=Keeping(tmp_path)))
    assert not list(tmp_path.iterdir())


def test_a_half_written_file_is_never_seen(tmp_path: Path):
    store = Directory(tmp_path)
    store.write("a", {"x": torch.ones(3)})
    with pytest.raises(OSError):
        Directory(tmp_path / "a.pt").write("b", {})  # a file is no folder
    (tmp_path / ".b.123").write_bytes(b"half")
    assert store.names() == ["a"] and store.read("b") is None


def test_only_what_goes_on_is_kept(tmp_path: Path):
    for name in ("trial_3", "trial_-1", "trial_12"):
        Directory(tmp_path / "kept" / name).write("run", {})
    (tmp_path / "kept" / "trial_3" / ".run.77").touch()  # half-written
    (tmp_path / "kept" / "trial_-1" / "thesis.tex").touch()  # a folder of somebody's choice
    ask_to_pause(tmp_path / "kept")
    tidy(tmp_path / "kept", {"trial_12"})
    left = {path.relative_to(tmp_path / "kept") for path in (tmp_path / "kept").rglob("*.*")}
    assert left == {Path("trial_12/run.pt"), Path("trial_-1/thesis.tex")}
    (tmp_path / "kept" / "trial_-1" / "thesis.tex").unlink()
    tidy(tmp_path / "kept", set())
    assert not (tmp_path / "kept").exists()
    tidy(tmp_path / "kept", set())
