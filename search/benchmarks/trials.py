"""Runs per minute of a search against other ways of doing the same, whole processes taking turns.

All train the same grid: some published activations, on a space's task, rates and seeds, without
grid extension, gates and cost measurements left on for ours as in a real search. Start-up is
counted for all.

    plain      one Ray Tune trial per (candidate, rate, seed)
    torch      the same search with activations as torch's operations
    composed   the same with formulas as one writes them, differentiated by autograd
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

from search.errors import SearchError, near_miss
from search.space.space import load_space

OURS = "search"
WAYS = ("plain", "torch", "composed")
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


def compare(
    space: Path, names: Sequence[str], rounds: int, against: Sequence[str] = ("plain",)
) -> tuple[Throughput, ...]:
    """The search and what it is held against in turn, `rounds` times.

    Raises:
        SearchError: a way is unknown, or a process failed.
    """
    if unknown := [way for way in against if way not in WAYS]:
        raise SearchError(*(f"--against: unknown '{w}'{near_miss(w, WAYS)}" for w in unknown))
    overrides = [f"baselines=[{', '.join(names)}]", "learning_rate.extend=false"]
    ablation = _ablation(space)
    settings = [word for override in overrides for word in ("--set", override)]
    loaded = load_space(ablation, overrides)
    runs = len(names) * len(loaded.learning_rate.grid) * len(loaded.seeds)
    seconds = {way: list[float]() for way in (OURS, *against)}
    for _ in range(rounds):
        for way, found in seconds.items():
            found.append(_seconds(way, [str(ablation), *settings]))
    return tuple(Throughput(way, runs, tuple(found)) for way, found in seconds.items())


def _ablation(space: Path) -> Path:
    """A copy of the space without its grammar: the baselines alone."""
    import yaml

    data = yaml.safe_load(space.read_text(encoding="utf-8"))
    for key in ("activation", "depth", "search"):
        data.pop(key, None)
    path = Path(tempfile.mkdtemp()) / space.name
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def _seconds(way: str, words: Sequence[str]) -> float:
    """Of one process."""
    module = "search.benchmarks.plain_tune" if way == "plain" else "search.run"
    kernel = [] if way in (OURS, "plain") else ["--set", f"kernel={way}"]
    with tempfile.TemporaryDirectory() as folder:
        results = [] if way == "plain" else ["--results", folder]
        began = time.perf_counter()
        command = [sys.executable, "-m", module, *words, *kernel, *results]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise SearchError(f"{way}: {run.stderr.strip().splitlines()[-1]}")
        return time.perf_counter() - began


def table(ways: Sequence[Throughput]) -> str:
    """Runs per minute of each way, seconds as median (least to most), and the ratios."""
    lines = [f"{'way':<8} {'runs/min':>9} {'runs':>5} {'seconds':>22} {'n':>3}"]
    for way in ways:
        middle = statistics.median(way.seconds)
        spread = f"{middle:.1f} ({min(way.seconds):.1f} to {max(way.seconds):.1f})"
        lines.append(
            f"{way.way:<8} {way.runs_per_minute:>9.1f} {way.runs:>5} {spread:>22}"
            f" {len(way.seconds):>3}"
        )
    for way in ways[1:]:
        ratios = [b / a for a, b in zip(ways[0].seconds, way.seconds, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"{OURS} against {way.way}: {spread} times as fast")
    return "\n".join(lines)


def as_json(ways: Sequence[Throughput]) -> str:
    """Every figure, with what it was measured on."""
    from search.environment import environment

    rows = [{**asdict(way), "runs_per_minute": way.runs_per_minute} for way in ways]
    return json.dumps({"ways": rows, **environment()}, indent=2)
