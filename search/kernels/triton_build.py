"""Triton kernels as files of the cache, and compiled ahead of time without a GPU.

load_triton_source(text) → module        compile_ahead(kernel, …) → Binary
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from search.kernels.build import load_source

TARGETS: Mapping[str, tuple[str, int | str, int]] = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "gfx942": ("hip", "gfx942", 64),
}
"""Name → Triton's backend, its architecture, threads of a warp."""
OPTIONS: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": True}
"""Of every launch; fused multiply-adds are asked for, as Triton's default differs by version."""
REGISTERS: Mapping[str, int] = {"flat": 64, "last": 96, "first": 96, "across": 96, "groups": 96}
"""Layout → registers of a thread that leave a processor enough threads to hide its memory."""


def capped(registers: int, hip: bool) -> dict[str, int]:
    """The options of a compiler told to make do with so many registers.

    Asked of a kernel that took more, and kept if it then spills nothing: ptxas made the backward
    of snake 96 instead of 122 for 0.5 % more instructions. Asked of every kernel, it would fill up
    what it is given: 2.6 % more instructions for a gated pair that needed 56.
    """
    return {"waves_per_eu": 512 // registers} if hip else {"maxnreg": registers}


def asked(kernel: Any, hip: bool) -> int:
    """Registers to tell a compiler of from the start, or 0; to be taken back where it then spills.

    Left to itself ptxas stops at 32 registers in a flat kernel of one input and computes again what
    it could keep: 7 of 8 exponentials of dynActivation(Mish). Told of 64 it takes 41 for the value,
    and 155 instructions instead of 182.
    """
    flat, one_input = "TAIL" in kernel.arg_names, "u_ptr" not in kernel.arg_names
    sums = "partials_ptr" in kernel.arg_names
    return REGISTERS["flat"] if flat and one_input and not sums and not hip else 0


@dataclass(frozen=True, slots=True)
class Binary:
    """One kernel as its compiler left it."""

    target: str
    name: str
    asm: str
    """AMD's assembly, or PTX."""
    cubin: bytes = b""


def load_triton_source(text: str) -> ModuleType:
    """The module of a rendered text, a file of the cache; Triton reads kernels from their file."""
    return load_source(text, "triton")


def warp_size(target: str) -> int:
    return TARGETS[target][2]


def compile_ahead(
    kernel: Any,
    types: Mapping[str, str],
    constants: Mapping[str, Any],
    target: str,
    aligned: Iterable[str] = (),
    warps: int = 4,
    registers: int = 0,
) -> Binary:
    """Compile for a target of `TARGETS` without a GPU.

    types: argument → Triton's type ("*bf16", "i32"); constants: argument → value; aligned: integer
    arguments that 16 divides; registers: the most a thread may take, if not 0. Pointers are taken
    as aligned to 16 bytes, as torch's are.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = list(kernel.arg_names)
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    multiples = [
        i
        for i, name in enumerate(names)
        if name not in constants and (types[name].startswith("*") or name in set(aligned))
    ]
    source = ASTSource(
        kernel,
        signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i in multiples},
    )
    backend = TARGETS[target][0]
    options = OPTIONS | {"num_warps": warps}
    options |= capped(registers, backend == "hip") if registers else {}
    compiled = triton.compile(source, target=GPUTarget(*TARGETS[target]), options=options)
    asm: Any = compiled.asm
    if "amdgcn" in asm:
        return Binary(target, kernel.__name__, asm["amdgcn"])
    return Binary(target, kernel.__name__, asm["ptx"], asm["cubin"])
