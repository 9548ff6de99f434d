"""A good space file, and what tests of space files do with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.errors import SpaceError
from search.space import Space, load_space

GOOD = """\
name: small
task: {name: digits, depth: 1}
recipe: {epochs: 2}
activation:
  F: [x * G, x]
  G:
    - sigmoid(s * x) where s in [0.5, 2]
    - gompertz(x)
baselines: [relu]
learning_rate: {grid: [0.1, 1e-3], default: 0.1, extend: no}
seeds: [3, 1]
search: {sampler: random, trials: 7, seed: 2, objectives: [accuracy, cost], stopping: asha}
resources: {cpu: 2, gpu: 0.25, max_concurrent: 3}
gates: off
device: cpu
data_root: ~/data
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "s.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str, *overrides: str) -> Space:
    return load_space(write(folder, text), overrides)


def problems(folder: Path, text: str, *overrides: str) -> list[str]:
    """Every line that loading `text` is answered with, the file's name cut to `s.yaml`."""
    path = write(folder, text)
    with pytest.raises(SpaceError) as error:
        load_space(path, overrides)
    assert all("\n" not in line for line in error.value.problems)
    return [line.replace(str(path), "s.yaml") for line in error.value.problems]
