"""Every kernel of an expression compiled ahead of time, as training would launch it.

    compile_expression(text, dtype, target) → Compiled: one `Machine` a kernel, forward and backward

Shapes are the usual ones: n of any size, channels and inner sizes that 16 divides.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from search.kernels.program import lower
from search.kernels.triton_build import Machine, compile_ahead, load_triton_source, warp_size
from search.kernels.triton_channels import render_channels
from search.kernels.triton_code import render
from search.kernels.triton_fusion import fuse
from search.language.catalog import read_activation
from search.language.expression import Expression, Statistic, walk

DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
WARPS, ELEMENTS = 4, 8


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch."""

    name: str
    layout: str
    """flat, last, first or across."""
    machine: Machine

    @property
    def backward(self) -> bool:
        return self.name != "forward"


@dataclass(frozen=True, slots=True)
class Compiled:
    """An expression on a target; `problem` says why it has no kernels of its own."""

    name: str
    dtype: str
    target: str
    kernels: tuple[Kernel, ...]
    saved: tuple[str, ...]
    problem: str = ""


def compile_expression(name: str, dtype: str, target: str) -> Compiled:
    """The kernels of a formula or a catalogue name; `dtype` one of DTYPES."""
    expression = read_activation(name)
    saved = (*expression.inputs, *(p.name for p in expression.trainable))
    overs = {node.over for node in walk(expression.body) if isinstance(node, Statistic)}
    if overs - {"features"}:
        problem = "statistics over a sample or the tensor run in the torch rendering"
        return Compiled(name, dtype, target, (), saved, problem)
    kernels = tuple(
        Kernel(kernel, layout, _compile(function, kernel, layout, expression, dtype, target))
        for layout, kernel, function in _functions(expression)
    )
    return Compiled(name, dtype, target, kernels, saved)


def compile_all(jobs: Iterable[tuple[str, str, str]], workers: int) -> list[Compiled]:
    """Many (name, dtype, target) at once, in processes, in their order."""
    jobs = list(jobs)
    if workers <= 1:
        return [compile_expression(*job) for job in jobs]
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(_compile_job, jobs, chunksize=4))


def _compile_job(job: tuple[str, str, str]) -> Compiled:
    return compile_expression(*job)


def _functions(expression: Expression) -> list[tuple[str, str, Any]]:
    """Layout, name and Triton function of every launch of a training step."""
    lowered, title = lower(expression, fuse), str(expression)
    channels = [p.name for p in expression.trainable if p.scope == "channel"]
    statistics = any(isinstance(node, Statistic) for node in walk(expression.body))
    if not channels and not statistics:
        module = load_triton_source(render(lowered, title))
        names = ["gradients", "finish"] if expression.trainable else ["input_gradients"]
        return [("flat", name, getattr(module, name)) for name in ("forward", *names)]
    found = []
    names = ["forward", "gradients", *(["finish"] if expression.trainable else [])]
    for layout in ("last", "across" if statistics else "first"):
        module = load_triton_source(render_channels(lowered, title, layout, channels))
        found += [(layout, name, getattr(module, name)) for name in names]
    return found


def _compile(
    function: Any, name: str, layout: str, expression: Expression, dtype: str, target: str
) -> Machine:
    block = warp_size(target) * WARPS * ELEMENTS
    warps = WARPS
    vector = 4 if dtype == "float32" else 8
    if name == "finish":
        constants = {"BLOCK": 1024} if layout == "flat" else {"ROWS": 16, "COLS": 64}
    elif layout == "flat":
        constants = {"BLOCK": block, "TAIL": block // vector}
    elif layout == "across":
        constants, warps = {"ROWS": 16, "COLS": 256}, 4 * WARPS * 32 // warp_size(target)
    else:
        columns = block if layout == "first" else 256
        constants = {"ROWS": block // columns, "COLS": columns}
    types = {a: _type(a, DTYPES[dtype]) for a in function.arg_names}
    aligned = () if layout == "flat" else ("channels", "inner")
    return compile_ahead(function, types, constants, target, aligned, warps)


def _type(argument: str, dtype: str) -> str:
    if not argument.endswith("_ptr"):
        return "i32"
    wide = argument.startswith(("p_", "g_")) or argument == "partials_ptr"
    return "*fp32" if wide else f"*{dtype}"
