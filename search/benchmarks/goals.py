"""The ratios that the kernels are to reach, and whether measurements reach them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from search.benchmarks.measured import Measurement
from search.language.catalog import read_activation

ARCTAN_ARCSIN = (
    "x * sigmoid(a * (arctan(b * x) + arcsin(clip(c * x, -1, 1))))"
    " where a = 1 per layer, b = 1 per layer, c = 0.1 fixed"
)
"""VeLU's argument with two parameters that are trained: the dearest function of the goals."""
TYPES = {"arctan_arcsin": ARCTAN_ARCSIN}
"""Names that `bench kernels` knows besides the catalogue's."""
_MEMORY_BOUND = ("golu", "silu", "mish", "dyn_mish")
_ON_CPU = ("golu", "gelu", "arctan_arcsin", "dyn_mish")
_ANY = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class Goal:
    """Ours over a peer's median time, at most, for some formulas in some cases."""

    names: tuple[str, ...]
    device: str
    """cpu or cuda."""
    peer: str
    most: float
    elements: int
    """The goal holds from this size on."""
    directions: tuple[str, ...] = ("both",)
    dtypes: tuple[str, ...] = ("float32",)


_PASSES = ("forward", "backward")
GOALS: tuple[Goal, ...] = (
    Goal(("golu",), "cpu", "compile", 0.8, 2**22),
    Goal(("gelu",), "cpu", "compile", 1.0, 2**22),
    Goal(("arctan_arcsin",), "cpu", "compile", 0.3, 2**22),
    Goal(("dyn_mish",), "cpu", "compile", 0.15, 2**22),
    Goal(_ON_CPU, "cpu", "eager", 0.25, 2**22),
    Goal(_MEMORY_BOUND, "cuda", "copy", 1 / 0.9, 2**24, _PASSES, _ANY),
    Goal(("gelu", "silu", "mish"), "cuda", "native", 1.0, 2**24, _PASSES, _ANY),
    Goal(("golu", "gelu"), "cuda", "compile", 1.0, 2**24, _PASSES, _ANY),
    Goal(("mish", "dyn_mish"), "cuda", "compile", 0.75, 2**24, _PASSES, ("bfloat16",)),
    Goal((*_MEMORY_BOUND, "gelu"), "cuda", "eager", 0.35, 2**24, _PASSES, _ANY),
)
FIRST = {"cpu": 0.25, "cuda": 0.5}
"""Seconds to a new formula's first finished step."""
BATCH = 0.025
"""Seconds of the C compiler a formula, over a batch."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One goal against the measurement that is furthest from it."""

    goal: str
    worst: float
    met: bool


def verdicts(measurements: Sequence[Measurement], device: str) -> list[Verdict]:
    """Of every goal whose peer ran in a case that it is about; formulas one by one."""
    found = []
    for goal in GOALS:
        for name in goal.names if goal.device == device else ():
            ratios = list(_ratios(measurements, goal, name))
            if ratios:
                text = f"{name} against {goal.peer} <= {goal.most:.2f}"
                found.append(Verdict(text, max(ratios), max(ratios) <= goal.most))
    steps = [m.first.seconds for m in measurements if m.first]
    if steps:
        text = f"first step <= {FIRST[device]:.2f} s"
        found.append(Verdict(text, max(steps), max(steps) <= FIRST[device]))
    return found


def _ratios(measurements: Iterable[Measurement], goal: Goal, name: str) -> Iterable[float]:
    expression = str(read_activation(TYPES.get(name, name)))
    for measured in measurements:
        ratio = measured.ratio(goal.peer)
        if (
            ratio is not None
            and measured.expression == expression
            and measured.elements >= goal.elements
            and measured.direction in goal.directions
            and measured.dtype in goal.dtypes
        ):
            yield ratio.median


def batch_verdict(seconds: float) -> Verdict:
    """Of the compiler's time a formula."""
    text = f"C compiler, a formula of a batch <= {BATCH * 1e3:.0f} ms"
    return Verdict(text, seconds * 1e3, seconds <= BATCH)


def goal_lines(found: Iterable[Verdict]) -> list[str]:
    """`met  golu against compile <= 0.80: 0.76`."""
    return [f"{'met    ' if v.met else 'NOT MET'}  {v.goal}: {v.worst:.2f}" for v in found]
