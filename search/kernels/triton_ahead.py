"""Every kernel of an expression compiled ahead of time, as training would launch it.

    compile_expression(text, dtype, target) → Compiled: one `Machine` a kernel, forward and backward

Shapes are the usual ones: n of any size, channels and inner sizes that 16 divides.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from search.kernels.program import Lowered, lower
from search.kernels.triton_build import Machine, compile_ahead, load_triton_source, warp_size
from search.kernels.triton_channels import render_channels
from search.kernels.triton_code import render
from search.kernels.triton_fusion import fuse
from search.kernels.triton_statistics import cut, render_statistics
from search.language.catalog import read_activation
from search.language.expression import Expression, Statistic, walk

DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
WARPS, ELEMENTS = 4, 8


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


def compile_expression(name: str, dtype: str, target: str) -> Compiled:
    """The kernels of a formula or a catalogue name; `dtype` one of DTYPES."""
    expression = read_activation(name)
    saved = (*expression.inputs, *(p.name for p in expression.trainable))
    overs = {node.over for node in walk(expression.body) if isinstance(node, Statistic)}
    per_channel = any(p.scope == "channel" for p in expression.trainable)
    if overs - {"features"} and (len(overs) > 1 or per_channel):
        problem = "runs in the torch rendering: statistics over samples or the tensor beside others"
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
    if any(isinstance(n, Statistic) and n.over != "features" for n in walk(expression.body)):
        return _grouped(lowered, title)
    names = ["forward", "gradients", *(["finish"] if expression.trainable else [])]
    for layout in ("last", "across" if statistics else "first"):
        module = load_triton_source(render_channels(lowered, title, layout, channels))
        found += [(layout, name, getattr(module, name)) for name in names]
    return found


def _grouped(lowered: Lowered, title: str) -> list[tuple[str, str, Any]]:
    """The launches of a step with statistics over samples or the tensor, in order."""
    module = load_triton_source(render_statistics(lowered, title))
    found: list[tuple[str, str, Any]] = []
    for kind, program in (("forward", lowered.forward), ("backward", lowered.backward)):
        for k, stage in enumerate(cut(program)):
            found.append(("groups", f"{kind}_{k}", getattr(module, f"{kind}_{k}")))
            if stage.means:
                found.append(("groups", f"{kind}_average", module.average))
    if lowered.forward.parameters:
        found.append(("groups", "finish", module.finish))
    return found


def _compile(
    function: Any, name: str, layout: str, expression: Expression, dtype: str, target: str
) -> Machine:
    block = warp_size(target) * WARPS * ELEMENTS
    warps = WARPS
    vector = 4 if dtype == "float32" else 8
    if name == "finish" or name.endswith("_average"):
        constants = {"BLOCK": 1024} if layout in ("flat", "groups") else {"ROWS": 16, "COLS": 64}
    elif layout == "flat":
        constants = {"BLOCK": block, "TAIL": block // vector}
    elif layout == "groups":
        constants = {"BLOCK": block}
    elif layout == "across":
        constants, warps = {"ROWS": 16, "COLS": 256}, 4 * WARPS * 32 // warp_size(target)
    else:
        columns = block if layout == "first" else 256
        constants = {"ROWS": block // columns, "COLS": columns}
    types = {a: _type(a, DTYPES[dtype]) for a in function.arg_names}
    aligned = () if layout == "flat" else ("channels", "inner", "length")
    return compile_ahead(function, types, constants, target, aligned, warps)


def _type(argument: str, dtype: str) -> str:
    if not argument.endswith("_ptr"):
        return "i32"
    wide = argument.startswith(("p_", "g_", "partials", "statistics"))
    return "*fp32" if wide else f"*{dtype}"
