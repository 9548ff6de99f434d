"""The C rendering's text: a program as kernels over blocks, one per stage.

A statistic needs the whole tensor before the first value can be written, so a program is cut into
stages at its statistics: every stage but the last computes the arguments of some statistics, the
last the outputs. A kernel is one loop that a compiler turns into vector code; layouts, dtypes,
sums and threads are the business of `c_blocks.c`, which is compiled once a machine.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from search.kernels.c_fusion import FUSED
from search.kernels.c_loops import Loop, split_loops
from search.kernels.program import Lowered, Operation, Program, Value
from search.language.primitives import PRIMITIVES

EMITTER = 4  # raise when the emitted text changes for the same program
LANES = 16  # a kernel's length is a multiple of it, so that a loop needs no tail
LONGEST = 4096  # and at most this: LARGEST_BLOCK of c_blocks.c

Pattern = Literal["one", "channel", "features", "sample"]
"""Which elements share a value: all, those of a channel, a row of features, a sample."""
PATTERNS: tuple[Pattern, ...] = ("one", "channel", "features", "sample")
FINISHES = ("sum", "mean", "var", "std", "rms")
"""What becomes of a sum over the elements that share a value."""
_PATTERN_OF_OVER: dict[str, Pattern] = {
    "features": "features",
    "sample": "sample",
    "tensor": "one",
}


@dataclass(frozen=True, slots=True)
class Sum:
    """A value of every element that is summed over those that share `name`."""

    name: str
    value: Value
    pattern: Pattern
    finish: str


@dataclass(frozen=True, slots=True)
class Stage:
    """One pass over the tensors."""

    streams: tuple[str, ...]
    """Inputs read: x, u, dy."""
    scalars: tuple[str, ...]
    """Parameters per layer."""
    vectors: tuple[tuple[str, Pattern], ...]
    """Parameters per channel and statistics of earlier stages."""
    operations: tuple[Operation, ...]
    written: tuple[Value, ...]
    sums: tuple[Sum, ...]


def split_stages(
    program: Program, per_channel: Collection[str], *, backward: bool
) -> tuple[Stage, ...]:
    """The program's stages, in order.

    A forward writes its one output; a backward writes the inputs' gradients and sums the
    parameters'.
    """
    levels = _levels(program)
    statistics = [op for op in program.operations if op.over is not None]
    stages = []
    for level in range(1, max(levels.values(), default=0) + 1):
        sums = tuple(
            Sum(op.target, op.arguments[0], _PATTERN_OF_OVER[str(op.over)], op.function)
            for op in statistics
            if levels[op.target] == level
        )
        stages.append(_stage(program, per_channel, (), sums))
    inputs = len(program.inputs) - 1 if backward else 1
    sums = tuple(
        Sum(name, value, "channel" if name in per_channel else "one", "sum")
        for name, value in zip(program.parameters, program.outputs[inputs:], strict=False)
    )
    return (*stages, _stage(program, per_channel, program.outputs[:inputs], sums))


def _levels(program: Program) -> dict[Value, int]:
    """How many statistics lie on the longest way to a value; only values above 0 are named."""
    levels: dict[Value, int] = {}
    for op in program.operations:
        level = max((levels.get(a, 0) for a in op.arguments), default=0)
        levels[op.target] = level + (op.over is not None)
    return levels


def _stage(
    program: Program,
    per_channel: Collection[str],
    written: tuple[Value, ...],
    sums: tuple[Sum, ...],
) -> Stage:
    operations, leaves = _needed(program, (*written, *(s.value for s in sums)))
    statistics = {op.target: op for op in program.operations if op.over is not None}
    vectors: list[tuple[str, Pattern]] = []
    for name in program.parameters:
        if name in leaves and name in per_channel:
            vectors.append((name, "channel"))
    for name, operation in statistics.items():
        if name in leaves:
            vectors.append((name, _PATTERN_OF_OVER[str(operation.over)]))
    return Stage(
        tuple(name for name in program.inputs if name in leaves),
        tuple(n for n in program.parameters if n in leaves and n not in per_channel),
        tuple(vectors),
        operations,
        written,
        sums,
    )


def _needed(
    program: Program, wanted: Iterable[Value]
) -> tuple[tuple[Operation, ...], frozenset[Value]]:
    """The operations that make `wanted`, and the leaves (with statistics) that they start at."""
    names = set(wanted)
    kept: list[Operation] = []
    for op in reversed(program.operations):
        if op.target in names and op.over is None:
            kept.append(op)
            names.update(op.arguments)
    made = {op.target for op in kept}
    return tuple(reversed(kept)), frozenset(n for n in names if n not in made)


# --- text --------------------------------------------------------------------------------------


@cache
def read_source(name: str) -> str:
    """The text of a C file of this package."""
    return files("search.kernels").joinpath(name).read_text(encoding="utf-8")


def definitions(precision: str, *, libmvec: bool) -> str:
    """What a text must begin with: the precision it is compiled for."""
    single = precision == "float32"
    real = "float" if single else "double"
    return f"#define REAL {real}\n#define SINGLE {int(single)}\n#define LIBMVEC {int(libmvec)}\n"


def kernel_name(lowered: Lowered, per_channel: Collection[str], backward: bool, stage: int) -> str:
    """The C function of a stage of a program.

    Parameters per channel are part of it: one library may hold both forms of a program, as a
    batch of runs asks for (see `search.kernels.abreast`).
    """
    channels = "".join(f"_{name}" for name in sorted(per_channel) if name.isascii())
    return f"{'backward' if backward else 'forward'}{stage}_{lowered.key}{channels}"


def render(lowered: Lowered, per_channel: Collection[str]) -> str:
    """The kernels of both programs."""
    parts = []
    for backward, program in enumerate((lowered.forward, lowered.backward)):
        stages = split_stages(program, per_channel, backward=bool(backward))
        parts += [
            render_stage(stage, kernel_name(lowered, per_channel, bool(backward), k))
            for k, stage in enumerate(stages)
        ]
    return "\n".join(parts)


def render_stage(stage: Stage, name: str) -> str:
    """One kernel: `n` elements, `n` a multiple of LANES and at most LONGEST."""
    vectors = [*stage.streams, *(v for v, _ in stage.vectors)]
    # Leaves get a name of their own, apart from C's words and from the operations' targets.
    leaves = {n: f"v_{n}" for n in (*vectors, *stage.scalars)}
    inputs = [leaves[n] for n in vectors]
    outputs = (*stage.written, *(s.value for s in stage.sums))
    before, inside = _split_invariant(stage)
    bounds = _bounds(inside, name)
    split = split_loops(inside, outputs)
    loops, places = _with_ends(split, stage, outputs, leaves), _places(split)
    lines = [
        *(f"BOUND({bound}, {literal!r})" for literal, bound in bounds.items()),
        f"int {name}(long n, const REAL *const *in, const REAL *scalars, REAL *const *out) {{",
        *(f"  const REAL *restrict in_{n} = in[{k}];" for k, n in enumerate(inputs)),
        *(f"  const REAL {leaves[n]} = scalars[{k}];" for k, n in enumerate(stage.scalars)),
        *(f"  REAL *restrict out_{k} = out[{k}];" for k in range(len(outputs))),
        *(f"  const __auto_type {op.target} = {_operation(op, leaves, {})};" for op in before),
        f"  n &= ~{LANES - 1}L;",
        *_room_lines(places, range(len(stage.written), len(outputs))),
        "  Bits most = 0;",
        *(line for loop in loops for line in _loop_lines(loop, inputs, leaves, bounds, places)),
        "  return most > size_bits(FAR);",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _places(loops: Sequence[Loop]) -> dict[str, int]:
    """The arrays of what loops keep, see ROOM of c_math.h for where they lie.

    A value's array is given on after its last loop, which may write the next value where it reads
    this one.
    """
    held = dict[str, int]()
    for k, loop in enumerate(loops):
        taken = {held[name] for later in loops[k + 1 :] for name in later.read if name in held}
        for name in loop.kept:
            held[name] = next(n for n in range(len(held) + 1) if n not in taken)
            taken.add(held[name])
    return held


def _room_lines(places: Mapping[str, int], sums: Sequence[int]) -> list[str]:
    """The arrays: first those that the last loop writes what is summed into, which are no tensors,
    and then others."""
    count = max(places.values(), default=-1) + 1
    own = sums[:count]
    lines = [f"  REAL *kept_{k} = out_{output};" for k, output in enumerate(own)]
    if more := count - len(own):
        lines += [
            f"  ALIGNED REAL space[ROOM({more}, {LONGEST})];",
            "  REAL *const room = beside(space, in[0]);",
        ]
    rest = enumerate(range(len(own), count))
    return lines + [f"  REAL *restrict kept_{k} = room + KEPT({n}, n);" for n, k in rest]


def _with_ends(
    loops: Sequence[Loop], stage: Stage, outputs: Iterable[Value], leaves: Mapping[str, str]
) -> list[tuple[Loop, list[str]]]:
    """Loops with what each does at last: the last one writes, one looks how large x is."""
    ends = [list[str]() for _ in loops]
    ends[-1] += [f"out_{k}[i] = {_value(value, leaves)};" for k, value in enumerate(outputs)]
    if "x" in stage.streams:
        # Where x is at hand and registers are: it takes 2 cycles of 16 elements elsewhere.
        reading = (k for k, loop in enumerate(loops) if loop.reads("x") and not loop.calls)
        size = f"size_bits({leaves['x']})"
        ends[next(reading, -1)].append(f"most = most > {size} ? most : {size};")
    return list(zip(loops, ends, strict=True))


def _loop_lines(
    loop_and_end: tuple[Loop, list[str]],
    inputs: Iterable[str],
    leaves: Mapping[str, str],
    bounds: Mapping[float, str],
    places: Mapping[str, int],
) -> list[str]:
    """One loop over the elements; a compiler drops the inputs that it does not use."""
    loop, end = loop_and_end
    sizes = " reduction(max: most)" if any(line.startswith("most") for line in end) else ""
    return [
        f'  _Pragma("omp simd{sizes}")',
        "  for (long i = 0; i < n; i++) {",
        *(f"    const REAL {n} = in_{n}[i];" for n in inputs),
        *(f"    const REAL {n} = kept_{places[n]}[i];" for n in loop.read),
        *(
            f"    const __auto_type {op.target} = {_operation(op, leaves, bounds)};"
            for op in loop.operations
        ),
        *(f"    kept_{places[n]}[i] = {n};" for n in loop.kept),
        *(f"    {line}" for line in end),
        "  }",
    ]


def _split_invariant(stage: Stage) -> tuple[list[Operation], list[Operation]]:
    """The operations on parameters per layer alone, computed once, and those of the loop."""
    known: set[Value] = set(stage.scalars)
    before, inside = [], []
    for op in stage.operations:
        if all(isinstance(a, float) or a in known for a in op.arguments):
            known.add(op.target)
            before.append(op)
        else:
            inside.append(op)
    return before, inside


def _bounds(operations: Iterable[Operation], kernel: str) -> dict[float, str]:
    """The literals that values are held against, as variables that a compiler does not know.

    See BOUND of c_math.h: a clip costs two instructions so, where each literal costs two and gcc
    computes what follows once for inside and once for every end.
    """
    found: dict[float, str] = {}
    for op in operations:
        for literal in op.arguments[1:] if _is_of_numbers(op) else ():
            found.setdefault(float(literal), f"bound{len(found)}_{kernel}")
    return found


def _is_of_numbers(operation: Operation) -> bool:
    """Whether an operation has a text of its own for literals, and nothing else, to come second."""
    row = PRIMITIVES.get(operation.function)
    second = operation.arguments[1:]
    return bool(row and row.c_number) and all(isinstance(value, float) for value in second)


def _operation(operation: Operation, leaves: Mapping[str, str], bounds: Mapping[float, str]) -> str:
    name, arguments = operation.function, operation.arguments
    texts = [_value(value, leaves) for value in arguments]
    if _is_of_numbers(operation):
        texts = [texts[0], *(bounds.get(float(a), _value(a, leaves)) for a in arguments[1:])]
        return PRIMITIVES[name].c_number.format(*texts)
    text = FUSED[name] if name in FUSED else PRIMITIVES[name].c
    return text.format(*texts)


def _value(value: Value, leaves: Mapping[str, str]) -> str:
    return leaves.get(value, value) if isinstance(value, str) else f"R({value!r})"
