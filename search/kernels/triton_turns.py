"""The second form of the gradients over flat memory: fewer registers, launched where the first
takes more than its layout should.

A tile is eight of TAIL elements, a thread's one, that each wait for the one before. NVIDIA's
assembler keeps to that order: 48 registers of PAU's backward instead of 127, and 4 % fewer
instructions. AMD's starts all of them at once (132), unless what the next part starts from comes
out of an instruction, of no text, that wants the values of the last (56).

Whether an angle is too large for the short reduction is asked of a tile as a whole, before its
parts: `angles` computes what the angles of `slopes` are, `slopes_near` takes them reduced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from search.kernels.program import Lowered, Operation, Program, needed

_ANGLE = "reduced_angle"


def has_turns(lowered: Lowered) -> bool:
    """Whether a formula has this form; one of angles of angles has not."""
    return not any(o.function == _ANGLE for o in _angles(lowered.backward).operations)


def functions_in_turn(lowered: Lowered, write: Callable[[str, Program], str]) -> list[str]:
    """The device functions that it calls beside `slopes`."""
    program = _angles(lowered.backward)
    if not program.outputs:
        return []
    return [write("angles", program), write("slopes_near", _near(lowered.backward))]


def lines_in_turn(lowered: Lowered, wanted: list[str]) -> list[str]:
    """dx (and du) of a tile, given its inputs; its share of the parameters' sums."""
    program, own = lowered.backward, [f"p_{p}" for p in lowered.forward.parameters]
    sums, near = [f"s_{p}" for p in program.parameters], _near_names(program)
    lines = ["VECTOR: tl.constexpr = 128 // x_ptr.dtype.element_ty.primitive_bitwidth"]
    if near:
        lines.append(f"{', '.join(near)} = angles({', '.join([*program.inputs, *own])})")
        lines += [f"{name} = whole_turns_off({name})" for name in near]
    inputs, eight = [*program.inputs, *near], range(8)
    lines += [f"{', '.join(f'{v}_{k}' for k in eight)} = eighths_of({v}, VECTOR)" for v in inputs]
    for k in eight:
        given = [f"{v}_{k}" for v in inputs]
        if k:
            lines += wait(given, [*(f"{v}_{k - 1}" for v in wanted), *sums])
        results = [*(f"{v}_{k}" for v in wanted), *(f"g_{p}" for p in program.parameters)]
        call = f"{'slopes_near' if near else 'slopes'}({', '.join([*given, *own])})"
        lines.append(f"{', '.join(results)} = {call}")
        lines += [f"{s} += g_{p}" for s, p in zip(sums, program.parameters, strict=True)]
    return lines + [
        f"{v} = of_eighths({', '.join(f'{v}_{k}' for k in eight)}, VECTOR)" for v in wanted
    ]


def wait(given: list[str], done: list[str]) -> list[str]:
    """Values that are there once others are."""
    places = ["=v"] * len(given) + [str(i) for i in range(len(given))] + ["v"] * len(done)
    types = ", ".join(["tl.float32"] * len(given))
    asm = f'tl.inline_asm_elementwise("", "{",".join(places)}", [{", ".join(given + done)}]'
    return ["if AMD:", f"    {', '.join(given)} = {asm}, ({types}), True, 1)"]


def _reductions(program: Program) -> list[Operation]:
    return [o for o in program.operations if o.function == _ANGLE]


def _near_names(program: Program) -> list[str]:
    return [f"near_{k}" for k in range(len(_reductions(program)))]


def _angles(program: Program) -> Program:
    """What the angles are, before any is reduced."""
    outputs = tuple(o.arguments[0] for o in _reductions(program))
    return replace(program, operations=needed(program.operations, outputs), outputs=outputs)


def _near(program: Program) -> Program:
    """The same outputs, given the angles without their whole turns."""
    names = dict(zip((o.target for o in _reductions(program)), _near_names(program), strict=True))
    found = (
        replace(o, function="quarters_off", arguments=(names[o.target],))
        if o.target in names
        else o
        for o in program.operations
    )
    operations = needed(tuple(found), program.outputs)
    return replace(program, inputs=(*program.inputs, *names.values()), operations=operations)
