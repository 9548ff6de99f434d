"""A candidate goes on after a pause; what cannot be read or written is told in a line."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from search.records import Run
from search.tasks.task import Recipe
from search.training.candidate import train_candidate
from search.training.checkpoints import Directory, Keeping, Paused, State, ask_to_pause, tidy
from search.training.job import Job, Training
from search.training.loop import run_epochs
from search.training.rates import Grid
from search.training.sweep import drain
from tests.batched_cases import TOY
from tests.checkpoint_cases import Every, kept, same


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


def test_where_nothing_can_be_written_training_goes_on_and_says_so_once(tmp_path: Path):
    (tmp_path / "taken").touch()  # a file where the folder should be stops the superuser too
    runs, lines = trained(training(tmp_path / "taken"))
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
