"""The Triton rendering's text where channels matter: memory seen as [outer, channels, inner].

Any dense tensor is that, whatever the order of its dimensions; channels matter to parameters per
channel and to statistics over features. `last` (inner = 1: channels are the
columns of a tile) and `first` (a tile is of one channel, its parameters are scalars) differ in
where a tile lies. Both carry the sums of the parameters' gradients through a loop over tiles, so
that a launch has a few programs a processor however large the tensor is. `across` has its
gradients in a second form too, `gradients_in_turn`, for fewer registers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from textwrap import indent

from search.kernels.program import Lowered, Program
from search.kernels.triton_code import (
    arguments_text,
    assemble,
    function_text,
    loads,
    masked,
    slopes_target,
    stores,
)
from search.kernels.triton_turns import wait


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a tile lies in memory."""

    sizes: str
    """The kernel's arguments that say the tensor's shape."""
    channel: str
    """The channels of every tile of a program, given `tile`; then `tile` counts on."""
    place: str
    """start, lane, inside of the tile `tile`."""
    parameter: str
    """A parameter per channel, broadcast against a tile."""
    reduced: str
    """A sum over a tile that keeps the channels."""
    kept: str
    """Where that sum goes: an index and a mask."""
    each: str
    """The side of a tile along which memory runs; EACH of its elements are one access."""
    few: str
    """The shape of a tile's sums over EACH elements."""
    fewer: str
    """Those sums, within a thread, of a tile or of one of {1} parts of it."""


LAST = Layout(
    sizes="rows, channels",
    channel="""\
across = tl.cdiv(channels, COLS)
tiles = tl.cdiv(rows, ROWS)
column = (program % across) * COLS + tl.arange(0, COLS)
existing = column < channels
first = program // across
step_size = tl.num_programs(0) // across
""",
    place="""\
start = (wide + tile) * ROWS * channels
row = tl.arange(0, ROWS)
lane = row[:, None] * channels + column[None, :]
inside = ((tile * ROWS + row) < rows)[:, None] & existing[None, :]
""",
    parameter="tl.load({0}_ptr + column, mask=existing, other=0.0).to(tl.float32)[None, :]",
    reduced="tl.sum({0}, axis=0)",
    kept="column, {0}, mask=existing",
    each="COLS",
    few="[ROWS, COLS // EACH]",
    fewer="tl.sum(tl.reshape({0}, [ROWS, COLS // EACH, EACH // {1}]), axis=2)",
)
FIRST = Layout(
    sizes="outer, channels, inner",
    channel="""\
across = tl.cdiv(inner, COLS)
tiles = tl.cdiv(outer, ROWS) * across
column = program % channels
first = program // channels
step_size = tl.num_programs(0) // channels
""",
    place="""\
row = (tile // across) * ROWS + tl.arange(0, ROWS)
place = (tile % across) * COLS + tl.arange(0, COLS)
start = (wide + column) * inner
lane = ((wide + row) * channels * inner)[:, None] + place[None, :]
inside = (row < outer)[:, None] & (place < inner)[None, :]
""",
    parameter="tl.load({0}_ptr + column).to(tl.float32)",
    reduced="tl.sum({0})",
    kept="column, {0}",
    each=LAST.each,
    few=LAST.few,
    fewer=LAST.fewer,
)
# A tile holds all the channels of its rows, so that a statistic over them is a sum along a row:
# `last` with columns for every channel does where channels are innermost, this one elsewhere.
ACROSS = replace(
    LAST,
    sizes="outer, channels, inner",
    channel="""\
across = tl.cdiv(inner, ROWS)
tiles = outer * across
column = tl.arange(0, COLS)
existing = column < channels
first = program
step_size = tl.num_programs(0)
""",
    place="""\
row = (tile % across) * ROWS + tl.arange(0, ROWS)
start = (wide + tile // across) * channels * inner
lane = row[:, None] + column[None, :] * inner
inside = (row < inner)[:, None] & existing[None, :]
""",
    each="ROWS",
    few="[ROWS // EACH, COLS]",
    fewer="tl.sum(tl.reshape({0}, [ROWS // EACH, EACH // {1}, COLS]), axis=1)",
)
LAYOUTS = {"last": LAST, "first": FIRST, "across": ACROSS}

_KERNEL = """\
@triton.jit
def {name}({arguments}, {sizes}, {constants}):
    program = tl.program_id(0)
    wide = tl.full((), 0, tl.int64)
{channel}
{parameters}
    count = channels + 0.0
{before}
    for tile in range(first, tiles, step_size):
{place}
{body}
{after}"""


def render_channels(
    lowered: Lowered, title: str, layout: str, channels: Collection[str], in_turn: bool = True
) -> str:
    """The file's text.

    channels: the names of the parameters per channel.
    in_turn: with the gradients' second form, for a launcher that chooses between the two.
    """
    place, parameters = LAYOUTS[layout], lowered.forward.parameters
    second = in_turn and layout == "across"
    halves = [_gradients(lowered, place, channels, 2)] if second else []
    return assemble(
        title,
        [
            function_text("value", lowered.forward),
            function_text("slopes", lowered.backward),
            _forward(lowered, place, channels),
            _gradients(lowered, place, channels),
            *halves,
            *([finish_text(parameters, channels)] if parameters else []),
        ],
    )


def _forward(lowered: Lowered, layout: Layout, channels: Collection[str]) -> str:
    call = f"y = value({arguments_text(lowered.forward)})"
    body = [*loads(lowered.forward), call, *stores(["y"], False)]
    return _kernel("forward", lowered.forward, ["y"], layout, channels, body, [], [])


def _gradients(lowered: Lowered, layout: Layout, channels: Collection[str], parts: int = 1) -> str:
    """dx and du where their pointers are, and the parameters' partial sums where theirs is.

    parts: 1, or 2 for a tile whose second half of rows waits for the first (`gradients_in_turn`).
    """
    program, names = lowered.backward, lowered.backward.parameters
    wanted = [f"d{name}" for name in lowered.forward.inputs]
    call = f"{slopes_target(lowered)} = slopes({arguments_text(program)})"
    # Of a sum that keeps channels, where memory runs along them, a thread's are apart.
    full = {p for p in names if p in channels and layout is LAST}
    shares = {p: _share(layout, p, p in full) for p in names}
    middle = _in_halves(lowered, layout) if parts > 1 else [call]
    body = [*loads(program), *middle, *stores(wanted, True)]
    body += [f"s_{p} += {share}" for p, share in shares.items() if parts == 1]
    before = [
        "VECTOR: tl.constexpr = 128 // x_ptr.dtype.element_ty.primitive_bitwidth",
        f"EACH: tl.constexpr = VECTOR if {layout.each} > VECTOR else {layout.each}",
    ]
    after = ["if partials_ptr is not None:"] if names else []
    for k, p in enumerate(names):
        shape = "[ROWS, COLS]" if p in full else layout.few
        before.append(f"s_{p} = tl.zeros({shape}, tl.float32)")
        part = f"partials_ptr + {k} * step_size * channels"
        if p in channels:
            kept = layout.kept.format(layout.reduced.format(f"s_{p}"))
            after.append(f"    tl.store({part} + first * channels + {kept})")
        else:
            after.append(f"    tl.store({part} + program, tl.sum(s_{p}))")
    outputs, name = [*wanted, "partials"], "gradients_in_turn" if parts > 1 else "gradients"
    return _kernel(name, program, outputs, layout, channels, body, before, after)


def _share(layout: Layout, p: str, full: bool, part: str = "", parts: int = 1) -> str:
    """What a tile adds to the sums of a parameter, or a part of it.

    One number of a thread's neighbours in memory: each their own would be 8 registers a parameter,
    and 128 of PolyNorm's backward instead of 80.
    """
    inside = f"tl.where(inside{part}, g_{p}, 0.0)"
    return inside if full else layout.fewer.format(inside, parts)


def _in_halves(lowered: Lowered, layout: Layout) -> list[str]:
    """Every second row of a tile, then the others, which wait for them; a thread holds both."""
    program, names = lowered.backward, lowered.forward.parameters
    wanted = [f"d{name}" for name in lowered.forward.inputs]
    lines = [f"{v}_0, {v}_1 = halves_of({v})" for v in (*program.inputs, "inside")]
    for k in range(2):
        inputs = [f"{v}_{k}" for v in program.inputs]
        arguments = [*inputs, *(f"p_{p}" for p in names), f"inside_{k}", "count"]
        results = [*(f"{v}_{k}" for v in wanted), *(f"g_{p}" for p in names)]
        lines += _second(inputs, [f"{v}_0" for v in wanted], names) if k else []
        lines.append(f"{', '.join(results)} = slopes({', '.join(arguments)})")
        lines += [f"s_{p} += {_share(layout, p, False, f'_{k}', 2)}" for p in names]
    return lines + [f"{v} = of_halves({v}_0, {v}_1)" for v in wanted]


def _second(inputs: list[str], done: list[str], names: Iterable[str]) -> list[str]:
    """The second half's inputs, there once the first half is in the outputs and in the sums."""
    seen = "tl.reshape({0}, [ROWS // EACH, EACH // 2, COLS])"  # as the sums are
    lines = [f"{v} = {seen.format(v)}" for v in inputs]
    lines += wait(inputs, [*map(seen.format, done), *(f"s_{p}[:, None, :]" for p in names)])
    return lines + [f"{v} = tl.reshape({v}, [ROWS // 2, COLS])" for v in inputs]


def _kernel(
    name: str,
    program: Program,
    outputs: Iterable[str],
    layout: Layout,
    channels: Collection[str],
    body: Iterable[str],
    before: Iterable[str],
    after: Iterable[str],
) -> str:
    pointers = [*program.inputs, *(f"p_{p}" for p in program.parameters), *outputs]
    values = [
        f"p_{p} = {layout.parameter.format(f'p_{p}')}"
        if p in channels
        else f"p_{p} = tl.load(p_{p}_ptr).to(tl.float32)"
        for p in program.parameters
    ]
    constants = ["ROWS", "COLS", *(["AMD"] if name.endswith("in_turn") else [])]
    text = _KERNEL.format(
        name=name,
        constants=", ".join(f"{c}: tl.constexpr" for c in constants),
        arguments=", ".join(f"{p}_ptr" for p in pointers),
        sizes=layout.sizes,
        channel=indent(layout.channel, " " * 4),
        parameters=indent("\n".join(values), " " * 4),
        before=indent("\n".join(before), " " * 4),
        place=indent(layout.place, " " * 8),
        body=indent("\n".join(masked(body)), " " * 8),
        after=indent("\n".join(after), " " * 4),
    )
    return "\n".join(line for line in text.splitlines() if line.strip())


_FINISH = """\
@triton.jit
def finish(
    partials_ptr, {pointers}, groups, channels, terms, ROWS: tl.constexpr, COLS: tl.constexpr
):
    parameter = tl.program_id(0)
    part = partials_ptr + parameter * groups * channels
"""
_FINISH_CHANNEL = """\
    if parameter == {k}:
        column = tl.program_id(1) * COLS + tl.arange(0, COLS)
        total = tl.zeros([ROWS, COLS], tl.float32)
        for start in range(0, groups, ROWS):
            row = start + tl.arange(0, ROWS)
            inside = (row < groups)[:, None] & (column < channels)[None, :]
            lane = row[:, None] * channels + column[None, :]
            total += tl.load(part + lane, mask=inside, other=0.0)
        tl.store(g_{p}_ptr + column, tl.sum(total, axis=0), mask=column < channels)
"""
_FINISH_LAYER = """\
    if (parameter == {k}) & (tl.program_id(1) == 0):
        whole = tl.zeros([ROWS * COLS], tl.float32)
        for start in range(0, terms, ROWS * COLS):
            lane = start + tl.arange(0, ROWS * COLS)
            whole += tl.load(part + lane, mask=lane < terms, other=0.0)
        tl.store(g_{p}_ptr, tl.sum(whole))
"""


def finish_text(parameters: tuple[str, ...], channels: Collection[str]) -> str:
    """The second stage. partials: [groups, channels] a parameter, or `terms` sums of a layer's."""
    text = _FINISH.format(pointers=", ".join(f"g_{p}_ptr" for p in parameters))
    for k, p in enumerate(parameters):
        text += (_FINISH_CHANNEL if p in channels else _FINISH_LAYER).format(k=k, p=p)
    return text.rstrip()
