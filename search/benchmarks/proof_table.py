"""What `bench proof` is asked for, and what it found: a line a proof, JSON, a conclusion."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import torch

from search.benchmarks.goals import TYPES
from search.benchmarks.proof import Proof, Unproven, Worst
from search.errors import KernelError, near_miss
from search.kernels.c_build import find_compiler
from search.kernels.triton_rendering import interpreted
from search.language.catalog import CATALOG, read_activation
from search.language.expression import Expression

DTYPES = ("float32", "bfloat16", "float16")
PROVEN = ("c", "triton", "torch")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be proved."""

    formulas: tuple[tuple[str, Expression], ...]
    dtypes: tuple[str, ...]
    kernel: str
    device: str


def asked(names: Sequence[str], dtypes: Sequence[str], kernel: str, device: str) -> Asked:
    """Read what is to be proved; no names: the catalogue and the goals' types.

    kernel: "auto" is c on a CPU, triton on a GPU.

    Raises:
        KernelError: a dtype, kernel or device that is unknown, or not here.
        ExpressionError: a name that is unknown, a formula with a mistake.
    """
    kind = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    chosen = kernel if kernel != "auto" else "triton" if kind == "cuda" else "c"
    problems = [f"--dtypes: unknown '{d}'{near_miss(d, DTYPES)}" for d in dtypes if d not in DTYPES]
    if kind not in ("cpu", "cuda"):
        problems.append(f"--device: unknown '{kind}'{near_miss(kind, ('auto', 'cpu', 'cuda'))}")
    elif kind == "cuda" and not torch.cuda.is_available():
        problems.append("--device cuda: there is none here")
    if chosen not in PROVEN:
        problems.append(f"--kernel: unknown '{kernel}'{near_miss(kernel, ('auto', *PROVEN))}")
    elif chosen == "c" and (kind == "cuda" or find_compiler() is None):
        problems.append("--kernel c: expected --device cpu, and gcc or clang on the path")
    elif chosen == "triton" and kind == "cpu" and not interpreted():
        problems.append("--kernel triton on a cpu: expected TRITON_INTERPRET=1 in the environment")
    if problems:
        raise KernelError(*problems)
    wanted = list(names) or [*CATALOG, *TYPES]
    formulas = tuple((name, read_activation(TYPES.get(name, name))) for name in wanted)
    return Asked(formulas, tuple(dtypes) or DTYPES, chosen, kind)


HEAD = (
    f"{'formula':<20} {'dtype':<8} {'kernel':<6} {'f':>5} {'at x':>10} {'slope':>5} {'at x':>10}"
    f" {'sums':>5}  {'NaN':<5} {'f(-inf)':>8} {'f(inf)':>8}  bits"
)
"""Errors are shares of what is allowed: `proof.py` says how much that is."""


def line(found: Proof | Unproven) -> str:
    """One line of the table."""
    begin = f"{found.name[:20]:<20} {found.dtype:<8} {found.kernel:<6}"
    if isinstance(found, Unproven):
        return f"{begin} could not run: {found.problem}"
    nan = "kept" if not found.masked else f"{found.masked}!"
    low, high = (f"{value:.3g}" for value in found.limits)
    sums = f"{found.sums.share:.2f}" if found.sums else "-"
    ends = f"{low:>8} {high:>8}{'!' if found.astray else ' '}"
    bits = "same" if found.repeats else "DIFFER"
    return (
        f"{begin} {_worst(found.value)} {_worst(found.slope)} {sums:>5}  {nan:<5}"
        f" {ends} {bits}{'' if found.holds else '  FAILS'}"
    )


def _worst(worst: Worst) -> str:
    return f"{worst.share:>5.2f} {worst.x:>10.3g}"


def conclusion(found: Iterable[Proof | Unproven]) -> list[str]:
    """A line a dtype: how many hold, and the worst of all."""
    lines, found = [], list(found)
    for dtype in dict.fromkeys(each.dtype for each in found):
        mine = [each for each in found if each.dtype == dtype]
        proofs = [each for each in mine if isinstance(each, Proof)]
        held = sum(each.holds for each in proofs)
        told = f"{dtype}: {held} of {len(mine)} hold"
        for what in ("value", "slope", "sums"):
            shares = [(w.share, each.name) for each in proofs if (w := getattr(each, what))]
            if shares:
                share, name = max(shares)
                told += f"; {what} {share:.2f} of what is allowed ({name})"
        lines.append(told)
    return lines


def as_json(found: Iterable[Proof | Unproven]) -> str:
    """Every figure, with what it was measured on."""
    from search.environment import environment

    found = list(found)
    proofs = [asdict(each) for each in found]
    for each in proofs:
        if "limits" in each:  # JSON has no infinity
            each["limits"] = [f"{value:g}" for value in each["limits"]]
    return json.dumps(
        {"proofs": proofs, "conclusion": conclusion(found), **environment()}, indent=1
    )
