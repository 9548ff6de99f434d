"""How an exported file is made and run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from search import Activation
from search.exporting.module_text import module_text
from search.exporting.writing import load_file
from search.language.catalog import read_activation

FLAT = "(alpha - beta) * mish(x) + beta * x where alpha = 1 per layer, beta = 0.1 per layer"
PAIR = "u * (sigmoid(x) * (1 + 2 * a) - a) where a = 0.1 per layer"
CHANNEL = "(a + b * tanh(2 * x)) * x where a = 1/3 per layer, b = 0.5 per channel"
STATISTIC = "x * (1 + g * tanh(0.9 * std(x))) + mean(x, over=sample) where g = 0.1 per channel"
FEATURES = (
    "x * normal_cdf(s * x) * (1 + g * tanh(std(x))) where s = 1 per channel, g = 0.1 per layer"
)
PENALTY = (
    "lam * x where lam = 1 per layer, c = 1 per layer penalty (std(c * x, over=tensor) - 1)**2"
)
FORMULAS = [FLAT, PAIR, CHANNEL, FEATURES, STATISTIC, PENALTY, "golu", "swiglu", "velu"]
_ALONE = """
import runpy, sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Wall())
runpy.run_path({path!r}, run_name="__main__")
"""


def rendered(formula: str, folder: Path, name: str = "my_activation") -> tuple[Path, ModuleType]:
    path = folder / f"{name}.py"
    path.write_text(module_text(read_activation(formula), path, "A test."), encoding="utf-8")
    return path, load_file(path)


def both(formula: str, folder: Path, channels: int) -> tuple[Any, Any]:
    """The file's module and the project's, with the same parameters off their initial values."""
    _, module = rendered(formula, folder)
    given = (
        {"channels": channels}
        if "channels: int" in (folder / "my_activation.py").read_text()
        else {}
    )
    mine = module.MyActivation(**given)
    theirs = Activation(formula, channels=channels, kernel="torch")
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(0.1 * torch.rand(p.shape, generator=draw))
    mine.load_state_dict(theirs.state_dict())
    return mine, theirs


def alone(path: Path, blocked: set[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """The file's self-test, isolated, in an empty folder, where some packages are not there."""
    code = _ALONE.format(blocked=blocked, path=str(path))
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=path.parent,
        env=kept | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
    )
