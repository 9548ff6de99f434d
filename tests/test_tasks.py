"""The tasks: what each has to offer, how its data are split, and those of a user's own."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from search.tasks import TASKS
from search.tasks.models import IMAGE_MODELS
from search.tasks.splitting import carve, fixed_permutation
from search.tasks.task import Task, find_task, splits_to
from tests.task_cases import problems

# --- finding a task ------------------------------------------------------------------------------


def test_built_in_tasks_are_found_by_name():
    assert find_task("digits") is TASKS["digits"]
    (line,) = problems(lambda: find_task("digit"))
    known = "task: unknown task 'digit'; did you mean 'digits'?; or a path that ends in .py"
    assert line == known


def test_a_task_of_ones_own_is_found_beside_the_file():
    task = find_task("toy_task.py", Path(__file__).parent)
    assert isinstance(task, Task) and task.name == "toy"


GOOD = """
from search.tasks.task import Split, Splits, Task
from beside_{n} import NAME

def load(data_root, size):
    return None

def build(make_activation, splits, size):
    return None

TASK = Task(name=NAME, load=load, build=build, options={{"size": 3}})
"""


def test_files_of_one_name_do_not_meet_and_may_import_their_neighbours(tmp_path: Path):
    for n in (1, 2):
        folder = tmp_path / str(n)
        folder.mkdir()
        (folder / f"beside_{n}.py").write_text(f"NAME = 'mine {n}'")
        (folder / "my_task.py").write_text(GOOD.format(n=n))
    names = [find_task("./my_task.py", tmp_path / str(n)).name for n in (1, 2)]
    assert names == ["mine 1", "mine 2"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x = 1", "my_task.py: no TASK; expected TASK = Task("),
        ("TASK = {}", "my_task.py: TASK is a dict; expected TASK = Task("),
        (
            "import os\n\nimport no_such_thing\n",
            "my_task.py:3: error while importing: ModuleNotFoundError: No module named",
        ),
        ("def f(:\n", "my_task.py:1: error while importing: SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "my_task.py:1: error while importing: SystemExit: 3"),
        (
            "from search.tasks.task import Task\n"
            "def load(data_root): ...\n"
            "def build(make_activation, splits): ...\n"
            "TASK = Task(name='mine', load=load, build=build, options={'size': 3})",
            "my_task.py: load(): got an unexpected keyword argument 'size'; "
            "expected to take every option of TASK",
        ),
    ],
)
def test_a_task_of_ones_own_that_is_wrong_gives_one_line(tmp_path: Path, source: str, words: str):
    (tmp_path / "my_task.py").write_text(source)
    (line,) = problems(lambda: find_task("my_task.py", tmp_path))
    assert words in line


def test_a_task_file_that_is_not_there(tmp_path: Path):
    (line,) = problems(lambda: find_task("./my_task.py", tmp_path))
    assert (
        line == f"{tmp_path / 'my_task.py'}: no such file; expected a Python file that defines TASK"
    )


# --- splits --------------------------------------------------------------------------------------


def test_the_permutation_is_the_same_for_ever():
    assert fixed_permutation(10).tolist() == [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]


def test_carved_parts_are_disjoint_and_nested():
    numbers = torch.arange(100)
    train, held = carve(numbers, numbers, validation_size=20, train_size=0)
    small, same = carve(numbers, numbers, validation_size=20, train_size=30)
    assert sorted(train.inputs.tolist() + held.inputs.tolist()) == list(range(100))
    assert torch.equal(held.targets, same.targets)
    assert torch.equal(small.inputs, train.inputs[:30])


@pytest.mark.parametrize(("held", "train"), [(20, 81), (100, 0), (120, 0)])
def test_more_samples_than_there_are(held: int, train: int):
    numbers = torch.arange(100)
    (line,) = problems(lambda: carve(numbers, numbers, validation_size=held, train_size=train))
    assert line.startswith("options.train_size: ") and "at most 100 samples together" in line


def test_digits_are_real_split_and_standardised():
    task = TASKS["digits"]
    splits = task.load(None, **task.options)
    again = task.load(None, **task.options)
    sizes = [len(part.targets) for part in (splits.train, splits.validation, splits.test)]
    assert sizes == [1077, 360, 360] and splits.outputs == 10
    assert splits.train.inputs.shape[1:] == (1, 8, 8)
    assert torch.equal(splits.test.inputs, again.test.inputs)
    assert abs(splits.train.inputs.mean().item()) < 1e-5
    assert abs(splits.train.inputs.std().item() - 1) < 1e-3
    assert splits.train.targets.bincount().min() > 80
    images = torch.cat([p.inputs for p in (splits.train, splits.validation, splits.test)])
    assert len(images.unique(dim=0)) == 1797


# --- text and extrapolation ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "text", "extrapolation"])
def test_a_task_builds_loses_and_measures(name: str):
    task = TASKS[name]
    splits = task.load(None, **task.options)
    model = task.build(nn.ReLU, splits, **task.options)
    inputs, targets = splits.train.inputs[:6], splits.train.targets[:6]
    outputs = model(inputs)
    loss = task.loss(outputs, targets, 0.0)
    assert loss.ndim == 0 and math.isfinite(loss.item())
    assert all(isinstance(value, Tensor) for value in task.metrics(outputs, targets).values())


def test_image_models_are_offered_by_every_image_task():
    for name in ("mnist", "fashion_mnist", "cifar10", "cifar100"):
        assert set(TASKS[name].models) == set(IMAGE_MODELS)


def test_splits_that_are_there_already_are_not_copied():
    splits = TASKS["extrapolation"].load(None)
    assert splits_to(splits, "cpu").train.inputs is splits.train.inputs
    assert splits_to(splits, "meta").test.targets.device.type == "meta"
