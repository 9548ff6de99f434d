"""Every kernel of an expression compiled ahead of time, as training would launch it.

    compile_all([(name, dtype, target), …]) → Compiled: one `Machine` a kernel, forward and backward

Shapes are the usual ones: n of any size, channels and inner sizes that 16 divides. Equal kernels
of different formulas are compiled once (1,128 of the catalogue's are 930), and the machine code of
a batch is read together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from search.kernels.program import Lowered, lower
from search.kernels.triton_build import (
    REGISTERS,
    Binary,
    asked,
    compile_ahead,
    load_triton_source,
    warp_size,
)
from search.kernels.triton_channels import render_channels
from search.kernels.triton_code import header, render
from search.kernels.triton_fusion import fuse
from search.kernels.triton_machine import Machine, read_machines
from search.kernels.triton_statistics import cut, render_statistics
from search.language.catalog import read_activation
from search.language.expression import Expression, Statistic, walk

DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
WARPS, ELEMENTS = 4, 8
_BATCH = 24  # kernels of a worker's task: their machine code is read in 0.3 s, be it one or all


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch."""

    name: str
    layout: str
    """flat, last, first, across or groups."""
    machine: Machine

    @property
    def backward(self) -> bool:
        return not self.name.startswith("forward")


@dataclass(frozen=True, slots=True)
class Compiled:
    """An expression on a target; `problem` says why it has no kernels of its own."""

    name: str
    dtype: str
    target: str
    kernels: tuple[Kernel, ...]
    saved: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Unit:
    """One kernel to compile; equal units are one."""

    text: str
    """Its file."""
    kernel: str
    layout: str
    dtype: str
    target: str


def compile_all(jobs: Iterable[tuple[str, str, str]], workers: int) -> list[Compiled]:
    """Many (formula or catalogue name, dtype of DTYPES, target) at once, in their order."""
    jobs = list(jobs)
    problems = {name: _problem(read_activation(name)) for name, _, _ in jobs}
    kernels = {name: [] if problem else _kernels(name) for name, problem in problems.items()}
    units = [
        [_unit(text, kernel, layout, dtype, target) for layout, kernel, text in kernels[name]]
        for name, dtype, target in jobs
    ]
    machines = _compile_units({unit: None for group in units for unit in group}, workers)
    found = []
    for (name, dtype, target), group in zip(jobs, units, strict=True):
        expression = read_activation(name)
        saved = (*expression.inputs, *(p.name for p in expression.trainable))
        made = tuple(Kernel(u.kernel, u.layout, machines[u]) for u in group)
        found.append(Compiled(name, dtype, target, made, saved, problems[name]))
    return found


def _compile_units(units: Iterable[Unit], workers: int) -> dict[Unit, Machine]:
    """Units of one target side by side, so that their code is read at once."""
    units = sorted(units, key=lambda unit: unit.target)
    if workers <= 1:
        return dict(zip(units, _compile_batch(units), strict=True))
    batches = [units[i : i + _BATCH] for i in range(0, len(units), _BATCH)]
    with ProcessPoolExecutor(workers) as pool:
        machines = [machine for batch in pool.map(_compile_batch, batches) for machine in batch]
    return dict(zip(units, machines, strict=True))


def _compile_batch(units: Sequence[Unit]) -> list[Machine]:
    """As a launch does: once more within the registers promised, kept if nothing spills.

    Then, where the kernel has a form for fewer registers, in that form.
    """
    machines = read_machines([_compile(unit, _asked(unit)) for unit in units])
    spilt = [i for i, unit in enumerate(units) if machines[i].spills and _asked(unit)]
    for i in spilt:
        (machines[i],) = read_machines([_compile(units[i])])
    for suffix in ("", "_in_turn"):
        others = [replace(unit, kernel=unit.kernel + suffix) for unit in units]
        many = [i for i, u in enumerate(others) if _over(u, machines[i]) and _is_there(u)]
        again = read_machines([_compile(others[i], REGISTERS[units[i].layout]) for i in many])
        for i, machine in zip(many, again, strict=True):
            machines[i] = machines[i] if machine.spills else machine
    return machines


def _is_there(unit: Unit) -> bool:
    return hasattr(load_triton_source(unit.text), _function(unit.kernel))


def _asked(unit: Unit) -> int:
    if _finishes(unit.kernel):
        return 0
    module: Any = load_triton_source(unit.text)
    return asked(getattr(module, _function(unit.kernel)), unit.target.startswith("gfx"))


def _over(unit: Unit, machine: Machine) -> bool:
    return machine.registers > REGISTERS[unit.layout]


def _problem(expression: Expression) -> str:
    """Why an expression has no kernels of its own; empty where it has."""
    overs = {node.over for node in walk(expression.body) if isinstance(node, Statistic)}
    per_channel = any(p.scope == "channel" for p in expression.trainable)
    if overs - {"features"} and (len(overs) > 1 or per_channel):
        return "runs in the torch rendering: statistics over samples or the tensor beside others"
    return ""


def _kernels(name: str) -> list[tuple[str, str, str]]:
    """Layout, kernel and text of every launch of a training step."""
    expression = read_activation(name)
    lowered = lower(expression, fuse)
    channels = [p.name for p in expression.trainable if p.scope == "channel"]
    statistics = any(isinstance(node, Statistic) for node in walk(expression.body))
    finish = ["finish"] if expression.trainable else []
    if not channels and not statistics:
        gradients = "gradients" if expression.trainable else "input_gradients"
        return [("flat", kernel, render(lowered, "")) for kernel in ("forward", gradients, *finish)]
    if any(isinstance(n, Statistic) and n.over != "features" for n in walk(expression.body)):
        return _grouped(lowered)
    layouts = {
        layout: render_channels(lowered, "", layout, channels)
        for layout in ("last", "across" if statistics else "first")
    }
    names = ("forward", "gradients", *finish)
    return [(layout, kernel, text) for layout, text in layouts.items() for kernel in names]


def _grouped(lowered: Lowered) -> list[tuple[str, str, str]]:
    """The launches of a step with statistics over samples or the tensor, in order."""
    text, found = render_statistics(lowered, ""), list[tuple[str, str, str]]()
    for kind, program in (("forward", lowered.forward), ("backward", lowered.backward)):
        for k, stage in enumerate(cut(program)):
            found.append(("groups", f"{kind}_{k}", text))
            if stage.means:
                found.append(("groups", f"{kind}_average", text))
    if lowered.forward.parameters:
        found.append(("groups", "finish", text))
    return found


def _unit(text: str, kernel: str, layout: str, dtype: str, target: str) -> Unit:
    """Kernels that finish sums see float32 alone, and no formula: those of one shape are one."""
    if not _finishes(kernel):
        return Unit(text, kernel, layout, dtype, target)
    name = _function(kernel)
    body = text[text.index(f"@triton.jit\ndef {name}(") :].split("\n\n\n")[0]
    for k, parameter in enumerate(dict.fromkeys(re.findall(r"\bg_\w+_ptr", body))):
        body = re.sub(rf"\b{parameter}\b", f"g_{k}_ptr", body)
    return Unit(f"{header('')}\n\n{body}\n", kernel, layout, "float32", target)


def _finishes(kernel: str) -> bool:
    return kernel == "finish" or kernel.endswith("_average")


def _function(kernel: str) -> str:
    return "average" if kernel.endswith("_average") else kernel


def _compile(unit: Unit, registers: int = 0) -> Binary:
    module: ModuleType = load_triton_source(unit.text)
    function: Any = getattr(module, _function(unit.kernel))
    layout, target = unit.layout, unit.target
    block = warp_size(target) * WARPS * ELEMENTS
    warps, in_turn = WARPS, "AMD" in function.arg_names
    if _finishes(unit.kernel):
        constants = {"BLOCK": 1024} if layout in ("flat", "groups") else {"ROWS": 16, "COLS": 64}
    elif layout == "flat":
        vector = 4 if unit.dtype == "float32" and not in_turn else ELEMENTS
        constants = {"BLOCK": block, "TAIL": block // vector}
    elif layout == "groups":
        constants = {"BLOCK": block}
    elif layout == "across":
        constants, warps = {"ROWS": 16, "COLS": 256}, 4 * WARPS * 32 // warp_size(target)
    else:
        columns = block if layout == "first" else 256
        constants = {"ROWS": block // columns, "COLS": columns}
    constants |= {"AMD": target.startswith("gfx")} if in_turn else {}
    types = {a: _type(a, DTYPES[unit.dtype]) for a in function.arg_names}
    aligned = () if layout == "flat" else ("channels", "inner", "length")
    return compile_ahead(function, types, constants, target, aligned, warps, registers)


def _type(argument: str, dtype: str) -> str:
    if not argument.endswith("_ptr"):
        return "i32"
    wide = argument.startswith(("p_", "g_", "partials", "statistics"))
    return "*fp32" if wide else f"*{dtype}"
