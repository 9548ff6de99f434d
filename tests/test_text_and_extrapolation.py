"""The tasks of text and of extrapolation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from search.tasks import TASKS
from search.tasks.extrapolation import BANDS, FUNCTIONS
from tests.task_cases import problems


def test_the_standard_text_needs_no_file():
    splits = TASKS["text"].load(None, path="", context=32)
    assert splits.train.inputs.shape[1] == 32 and len(splits.train.inputs) > 5000
    assert 60 < splits.outputs < 400


def test_a_text_is_cut_in_three_and_shifted_by_one(tmp_path: Path):
    text = "".join(chr(ord("a") + (n * n) % 7) for n in range(1000))
    (tmp_path / "text.txt").write_text(text)
    splits = TASKS["text"].load(None, path=str(tmp_path / "text.txt"), context=16)
    letters = sorted(set(text))
    start = 0
    for part, length in ((splits.train, 800), (splits.validation, 100), (splits.test, 100)):
        read = "".join(letters[n] for n in part.inputs.flatten())
        assert read == text[start : start + (length - 1) // 16 * 16]
        assert torch.equal(part.inputs[:, 1:], part.targets[:, :-1])
        assert torch.equal(part.inputs.flatten()[1:], part.targets.flatten()[:-1])
        start += length
    assert splits.outputs == len(letters)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "text.txt: No such file or directory; expected a text file"),
        (b"\xff\xfe\xfa", "text.txt: it is not UTF-8; expected a text file"),
        (b"too short", "has 9 characters; expected more than 650 for context 64"),
    ],
)
def test_a_text_that_cannot_be_used(tmp_path: Path, content: bytes | None, words: str):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    (line,) = problems(lambda: TASKS["text"].load(None, path=str(path), context=64))
    assert line.startswith("options.path: ") and words in line


def test_extrapolation_holds_out_what_lies_outside():
    splits = TASKS["extrapolation"].load(None)
    parts = (splits.train, splits.validation, splits.test)
    for part, (low, high) in zip(parts, BANDS, strict=True):
        radius = part.inputs.abs().amax(1)
        assert low < radius.min() and radius.max() <= high
        assert radius.max() - radius.min() > 0.9 * (high - low)
    assert splits.train.targets.shape == (1024, len(FUNCTIONS)) and splits.outputs == 8
    assert torch.allclose(splits.train.targets.mean(0), torch.zeros(8), atol=1e-5)
    assert torch.allclose(splits.train.targets.std(0, correction=0), torch.ones(8), atol=1e-5)


def test_one_function_alone_is_that_function():
    splits = TASKS["extrapolation"].load(None, function="kinetic")
    a, b, c = splits.validation.inputs.double().T
    exact = a * (b**2 + c**2) / 2
    scale = np.polyfit(exact, splits.validation.targets[:, 0].double(), 1)
    error = np.polyval(scale, exact) - splits.validation.targets[:, 0].numpy()
    assert splits.validation.targets.shape == (512, 1)
    assert np.abs(error).max() < 1e-4


def test_the_error_of_extrapolation_is_the_mean_of_the_functions_own():
    task = TASKS["extrapolation"]
    outputs, targets = torch.zeros(4, 2), torch.tensor([[3.0, 0.0]] * 2 + [[-3.0, 1.0]] * 2)
    means = {name: value / 4 for name, value in task.metrics(outputs, targets).items()}
    assert task.score is not None
    assert task.score(means) == pytest.approx((3 + math.sqrt(0.5)) / 2)
    assert not task.maximize
