"""Kernels read from their machine code, without a GPU: what every formula costs on every target."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from search.errors import KernelError, near_miss
from search.kernels.triton_ahead import DTYPES, Compiled, Kernel, compile_all
from search.kernels.triton_build import TARGETS
from search.language.catalog import CATALOG, read_activation


@dataclass(frozen=True, slots=True)
class Row:
    """One kernel of one formula on one target."""

    name: str
    target: str
    dtype: str
    kernel: str
    layout: str
    instructions: int
    """Of a thread, for 8 elements: the whole-tile way through the kernel, each loop once."""
    registers: int
    spills: int
    """Bytes."""
    narrowest: int
    """Bits of the narrowest access to a tensor's elements on that way."""
    doubles: int
    """Instructions on 64-bit floating-point numbers."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """All kernels of one formula on one target in one dtype."""

    rows: tuple[Row, ...]
    forward_launches: int
    backward_launches: int
    saved: tuple[str, ...]
    """Tensors kept for the backward pass."""
    problem: str


def inspect(
    names: Sequence[str], targets: Sequence[str], dtypes: Sequence[str], workers: int | None = None
) -> list[Inspection]:
    """Compile and read every name (or formula; none: the catalogue) × target × dtype.

    Raises ExpressionError for an unknown name, KernelError for an unknown target or dtype.
    """
    names = list(names) or list(CATALOG)
    problems = [*_unknown("target", targets, TARGETS), *_unknown("dtype", dtypes, DTYPES)]
    if problems:
        raise KernelError(*problems)
    for name in names:
        read_activation(name)
    jobs = [(name, dtype, target) for name in names for target in targets for dtype in dtypes]
    count = min(len(jobs), workers or os.cpu_count() or 1)
    return [inspection(compiled) for compiled in compile_all(jobs, count)]


def inspection(compiled: Compiled) -> Inspection:
    """The figures of compiled kernels."""
    layouts = {kernel.layout for kernel in compiled.kernels}
    return Inspection(
        tuple(_row(compiled, kernel) for kernel in compiled.kernels),
        sum(not k.backward for k in compiled.kernels) // max(1, len(layouts)),
        sum(k.backward for k in compiled.kernels) // max(1, len(layouts)),
        compiled.saved,
        compiled.problem,
    )


def _row(compiled: Compiled, kernel: Kernel) -> Row:
    machine = kernel.machine
    return Row(
        compiled.name,
        compiled.target,
        compiled.dtype,
        kernel.name,
        kernel.layout,
        machine.instructions,
        machine.registers,
        machine.spills,
        narrowest(kernel),
        machine.doubles,
    )


def narrowest(kernel: Kernel) -> int:
    """Bits of the narrowest access to the elements of x, u, dy, y, dx or du.

    Parameters and partial sums, one number a program each, are the 32-bit accesses before the
    first and after the last wide one; the kernels that finish sums read only those.
    """
    widths = kernel.machine.widths
    wide = [i for i, width in enumerate(widths) if width == 128]
    if not wide:
        return min(widths, default=0)
    return min(widths[wide[0] : wide[-1] + 1])


def table(inspections: Iterable[Inspection]) -> str:
    """One line a kernel, for people."""
    head = f"{'formula':<28} {'target':<7} {'dtype':<9} {'kernel':<22}"
    lines = [
        f"{head} {'instr/8':>7} {'regs':>5} {'spills':>6} {'bits':>5} {'fp64':>5}  launches  saved"
    ]
    for found in inspections:
        launches = f"{found.forward_launches} + {found.backward_launches}"
        saved = ", ".join(found.saved)
        for row in found.rows:
            kernel = f"{row.kernel} ({row.layout})"
            lines.append(
                f"{row.name[:28]:<28} {row.target:<7} {row.dtype:<9} {kernel:<22}"
                f" {row.instructions:>7} {row.registers:>5} {row.spills:>6} {row.narrowest:>5}"
                f" {row.doubles:>5}  {launches:<8}  {saved}"
            )
        if found.problem:
            lines.append(f"  {found.problem} (saved: {saved})")
    return "\n".join(lines)


def as_json(inspections: Iterable[Inspection]) -> str:
    """The same figures for programs."""
    return json.dumps([asdict(found) for found in inspections], indent=1)


def budget(inspections: Iterable[Inspection]) -> dict[str, dict[str, list[int]]]:
    """`name dtype target` → `kernel layout` → instructions, registers, spills: not to grow."""
    found: dict[str, dict[str, list[int]]] = {}
    for inspection in inspections:
        for row in inspection.rows:
            kernels = found.setdefault(f"{row.name} {row.dtype} {row.target}", {})
            kernels[f"{row.kernel} {row.layout}"] = [row.instructions, row.registers, row.spills]
    return found


def write_budget(inspections: Iterable[Inspection], path: Path) -> None:
    """The figures as a file of the tests, with the version of Triton that they belong to."""
    lines = [f' "{key}": {json.dumps(value)}' for key, value in budget(inspections).items()]
    version = ".".join(metadata.version("triton").split(".")[:2])
    head = f'{{"triton": "{version}",\n"kernels": {{\n'
    path.write_text(head + ",\n".join(lines) + "\n}}\n", encoding="utf-8")


def _unknown(kind: str, given: Iterable[str], known: Iterable[str]) -> list[str]:
    known = list(known)
    return [f"{kind}: unknown '{g}'{near_miss(g, known)}" for g in given if g not in known]
