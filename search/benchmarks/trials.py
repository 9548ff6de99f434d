"""Runs per minute of a search against the plain alternative, whole processes taking turns.

Both train the same grid: some published activations, on a space's task, rates and seeds, without
grid extension, gates and cost measurements left on for ours as in a real search. Start-up is
counted for both.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from search.errors import SearchError
from search.space.space import load_space

NAMES = ("relu", "gelu", "silu", "mish", "golu", "elu", "tanh", "hard_swish")


@dataclass(frozen=True, slots=True)
class Throughput:
    """One way of running the same trainings."""

    way: str
    runs: int
    seconds: tuple[float, ...]
    """Wall time of the whole process, by round."""

    @property
    def runs_per_minute(self) -> float:
        return 60 * self.runs / statistics.median(self.seconds)


def compare(space: Path, names: Sequence[str], rounds: int) -> tuple[Throughput, Throughput]:
    """Both ways in turn, `rounds` times."""
    overrides = [f"baselines=[{', '.join(names)}]", "learning_rate.extend=false"]
    ablation = _ablation(space)
    settings = [word for override in overrides for word in ("--set", override)]
    loaded = load_space(ablation, overrides)
    runs = len(names) * len(loaded.learning_rate.grid) * len(loaded.seeds)
    ours, plain = list[float](), list[float]()
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            ours.append(_seconds("search.run", str(ablation), *settings, "--results", folder))
        plain.append(_seconds("search.benchmarks.plain_tune", str(ablation), *settings))
    return Throughput("search", runs, tuple(ours)), Throughput("plain", runs, tuple(plain))


def _ablation(space: Path) -> Path:
    """A copy of the space without its grammar: the baselines alone."""
    import yaml

    data = yaml.safe_load(space.read_text(encoding="utf-8"))
    for key in ("activation", "depth", "search"):
        data.pop(key, None)
    path = Path(tempfile.mkdtemp()) / space.name
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def _seconds(module: str, *arguments: str) -> float:
    began = time.perf_counter()
    run = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True)
    if run.returncode:
        raise SearchError(f"{module}: {run.stderr.strip().splitlines()[-1]}")
    return time.perf_counter() - began


def table(ways: Sequence[Throughput]) -> str:
    """Runs per minute of each way, seconds as median (least to most), and the ratio."""
    lines = [f"{'way':<8} {'runs/min':>9} {'runs':>5} {'seconds':>22} {'n':>3}"]
    for way in ways:
        middle = statistics.median(way.seconds)
        spread = f"{middle:.1f} ({min(way.seconds):.1f} to {max(way.seconds):.1f})"
        lines.append(
            f"{way.way:<8} {way.runs_per_minute:>9.1f} {way.runs:>5} {spread:>22}"
            f" {len(way.seconds):>3}"
        )
    ratios = [b / a for a, b in zip(ways[0].seconds, ways[1].seconds, strict=True)]
    lines.append(
        f"ratio    {statistics.median(ratios):>9.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )
    return "\n".join(lines)


def as_json(ways: Sequence[Throughput]) -> str:
    """Every figure, with what it was measured on."""
    from search.environment import environment

    rows = [{**asdict(way), "runs_per_minute": way.runs_per_minute} for way in ways]
    return json.dumps({"ways": rows, **environment()}, indent=2)
