"""The Triton rendering's text for statistics over samples or the whole tensor.

Memory is [groups, length], a group the elements that one statistic reduces. A program with
statistics within statistics is cut into stages: every stage but the last adds up the arguments of
some means (moments), `average` finishes them, the last stage writes the outputs. A backward
program is cut the same way, its sums of dy * df/ds being means too. A variance is two means, of z
and of (z - mean z)**2, so that nothing cancels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from textwrap import indent

from search.kernels.program import Lowered, Operation, Program, needed
from search.kernels.triton_code import (
    assemble,
    finish_text,
    function_text,
    loads,
    masked,
    parameter_loads,
    slopes_target,
    stores,
)


@dataclass(frozen=True, slots=True)
class Stage:
    """One pass over the tensors: a pointwise program whose last arguments are known means."""

    program: Program
    known: tuple[str, ...]
    means: tuple[str, ...]
    """The names of the means whose arguments the program returns; none in the last stage."""


def render_statistics(lowered: Lowered, title: str) -> str:
    """The file's text: forward_0 …, backward_0 …, average, finish."""
    forward = cut(lowered.forward)
    kernels = [_stage("forward", k, stage, ["y"], False) for k, stage in enumerate(forward)]
    wanted = [f"d{name}" for name in lowered.forward.inputs]
    slopes = slopes_target(lowered).split(", ")
    for k, stage in enumerate(cut(lowered.backward)):
        kernels.append(_stage("backward", k, stage, slopes, True, len(wanted)))
    parameters = lowered.forward.parameters
    finish = [finish_text(parameters)] if parameters else []
    return assemble(title, [*kernels, _AVERAGE, *finish])


@cache
def cut(program: Program) -> tuple[Stage, ...]:
    """The stages of a program, each with the operations that its values need."""
    operations = _means_only(program.operations)
    level: dict[str, int] = {}
    for operation in operations:
        below = max((level.get(str(a), 0) for a in operation.arguments), default=0)
        level[operation.target] = below + (operation.over is not None)
    stages: list[Stage] = []
    known: tuple[str, ...] = ()
    for k in range(max(level.values(), default=0) + 1):
        means = [o for o in operations if o.over and level[o.target] == k + 1]
        pointwise = tuple(o for o in operations if not o.over and level[o.target] <= k)
        outputs = tuple(o.arguments[0] for o in means) or program.outputs
        part = replace(program, operations=needed(pointwise, outputs), outputs=outputs)
        stages.append(Stage(part, known, tuple(o.target for o in means)))
        known += stages[-1].means  # in the order in which they are kept in memory
    return tuple(stages)


def _means_only(operations: tuple[Operation, ...]) -> list[Operation]:
    found: list[Operation] = []
    for o in operations:
        name, z = o.target, o.arguments[0]
        if o.function in ("var", "std") and o.over:
            found.append(Operation(f"{name}_m", "mean", (z,), o.over))
            found.append(Operation(f"{name}_c", "sub", (z, f"{name}_m")))
            z = f"{name}_c"
        if o.function in ("var", "std", "rms") and o.over:
            root = o.function != "var"
            found.append(Operation(f"{name}_s", "mul", (z, z)))
            found.append(Operation(f"{name}_v" if root else name, "mean", (f"{name}_s",), o.over))
            found += [Operation(name, "sqrt", (f"{name}_v",))] if root else []
        else:
            found.append(o)
    return found


_KERNEL = """\
@triton.jit
def {name}({pointers}, statistics_ptr, partials_ptr, groups, length, BLOCK: tl.constexpr):
    program = tl.program_id(0)
    group = program % groups
    first = program // groups
    programs = tl.num_programs(0) // groups
    wide = tl.full((), 0, tl.int64)
{parameters}
{known}
{zeros}
    for tile in range(first, tl.cdiv(length, BLOCK), programs):
        start = (wide + group) * length + (wide + tile) * BLOCK
        lane = tl.arange(0, BLOCK)
        inside = lane < length - (wide + tile) * BLOCK
{body}
{partials}"""


def _stage(
    kind: str, k: int, stage: Stage, outputs: list[str], optional: bool, written: int = 1
) -> str:
    """A stage's device function and its kernel; sums are its means, or parameters' gradients."""
    program, function = stage.program, f"{kind}_values_{k}"
    wanted = [] if stage.means else outputs[:written]
    results = [f"m_{name}" for name in stage.means] or outputs
    sums = results if stage.means else outputs[written:]
    arguments = [*program.inputs, *(f"p_{p}" for p in program.parameters), *stage.known]
    body = [*loads(program), f"{', '.join(results)} = {function}({', '.join(arguments)})"]
    body += [*stores(wanted, optional), *(f"s_{n} += tl.where(inside, {n}, 0.0)" for n in sums)]
    pointers = [*program.inputs, *(f"p_{p}" for p in program.parameters), *wanted]
    place = "partials_ptr + ({0} * groups + group) * programs + first"
    partials = [f"tl.store({place.format(i)}, tl.sum(s_{n}))" for i, n in enumerate(sums)]
    if not stage.means and partials:
        partials = ["if partials_ptr is not None:", *(f"    {line}" for line in partials)]
    text = _KERNEL.format(
        name=f"{kind}_{k}",
        pointers=", ".join(f"{p}_ptr" for p in pointers),
        parameters=parameter_loads(program),
        known="\n".join(
            f"    {name} = tl.load(statistics_ptr + {i} * groups + group)"
            for i, name in enumerate(stage.known)
        ),
        zeros="\n".join(f"    s_{n} = tl.zeros([BLOCK], tl.float32)" for n in sums),
        body=indent("\n".join(masked(body)), " " * 8),
        partials=indent("\n".join(partials), " " * 4),
    )
    kernel = "\n".join(line for line in text.splitlines() if line.strip())
    return f"{function_text(function, program, stage.known)}\n\n\n{kernel}"


_AVERAGE = """\
@triton.jit
def average(
    partials_ptr, statistics_ptr, offset, programs, groups, length, BLOCK: tl.constexpr
):
    row = tl.program_id(0) * groups + tl.program_id(1)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, programs, BLOCK):
        lane = start + tl.arange(0, BLOCK)
        total += tl.load(partials_ptr + row * programs + lane, mask=lane < programs, other=0.0)
    tl.store(statistics_ptr + offset * groups + row, tl.sum(total) / length)"""
