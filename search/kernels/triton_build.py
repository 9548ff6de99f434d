"""Triton kernels as files of the cache, and compiled ahead of time without a GPU.

    load_triton_source(text) → module        compile_ahead(kernel, …) → Machine

`Machine` is what the machine code says: instructions on the way of a whole tile, registers, spills,
the width of the global accesses. It needs the tools that Triton's own wheel carries.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from search.errors import KernelError
from search.kernels.build import load_source

TARGETS: Mapping[str, tuple[str, int | str, int]] = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "gfx942": ("hip", "gfx942", 64),
}
"""Name → Triton's backend, its architecture, threads of a warp."""
OPTIONS: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": True}
"""Of every launch; fused multiply-adds are asked for, as Triton's default differs by version."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One compiled kernel."""

    instructions: int
    """On the shortest way through every wide access: a whole tile, each loop once."""
    registers: int
    spills: int
    """Bytes spilled to local memory by a thread."""
    widths: tuple[int, ...]
    """Bits of each access to global memory on that way, in order."""
    doubles: int
    """Instructions on 64-bit floating-point numbers, anywhere."""
    code: str
    """The machine code."""


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
) -> Machine:
    """Compile for a target of `TARGETS` without a GPU.

    types: argument → Triton's type ("*bf16", "i32"); constants: argument → value; aligned: integer
    arguments that 16 divides. Pointers are taken as aligned to 16 bytes, as torch's are.
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
    compiled = triton.compile(
        source, target=GPUTarget(*TARGETS[target]), options=OPTIONS | {"num_warps": warps}
    )
    asm: Any = compiled.asm
    return read_isa(asm["amdgcn"]) if "amdgcn" in asm else read_cubin(asm["cubin"], asm["ptx"])


# --- machine code ------------------------------------------------------------------------------


@dataclass(slots=True)
class Block:
    """A run of instructions without a branch inside, and where it may go."""

    instructions: list[str]
    label: str = ""
    jumps: tuple[str, ...] = ()
    falls: bool = True


_WIDTHS = {"ubyte": 8, "ushort": 16, "short": 16, "dword": 32}


def read_isa(text: str) -> Machine:
    """What AMD's assembly says."""
    body = text[: text.index("s_endpgm")] + text[text.index("s_endpgm") :].split(".section")[0]
    way = shortest_way(_blocks(body.splitlines(), r"^\.?(\w+):", r"^s_c?branch\w*\s+\.?(\w+)"))

    def count(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", text)
        return int(found[1]) if found else 0

    return Machine(
        instructions=len(way),
        registers=count("vgpr_count"),
        spills=4 * (count("vgpr_spill_count") + count("sgpr_spill_count")),
        widths=tuple(width for line in way if (width := access_width(line))),
        doubles=len(re.findall(r"^\s*v_\w+_f64", text, flags=re.MULTILINE)),
        code=body,
    )


def read_cubin(cubin: bytes, ptx: str) -> Machine:
    """What the SASS says."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        text = _run_tool("nvdisasm", "-c", str(path))
        usage = _run_tool("cuobjdump", "--dump-resource-usage", str(path))
    body = re.sub(r"/\*[0-9a-f]{4,}\*/", "", text)
    way = shortest_way(_blocks(body.splitlines(), r"^\.(L_x_\d+):", r"BRA.*\(\.(L_x_\d+)\)"))
    registers = re.search(r"REG:(\d+)", usage)
    # A stack is a spill, or the scratch of an exact sine's reduction: only the assembler knows.
    spilled = _spilled_bytes(ptx) if re.search(r"\b(STL|LDL)", body) else 0
    return Machine(
        instructions=len(way),
        registers=int(registers[1]) if registers else 0,
        spills=spilled,
        widths=tuple(width for line in way if (width := access_width(line))),
        doubles=len(re.findall(r"\b(?:D(?:ADD|MUL|FMA|SETP)|F2F\.F64\S*)\b", body)),
        code=body,
    )


def access_width(line: str) -> int:
    """Bits a thread moves by one access to global memory; 0 for any other instruction."""
    sass = re.search(r"\b(?:LDG|STG)\.E(?:\.\w+)*", line)
    if sass:
        wide = re.search(r"\.(U8|S8|U16|S16|64|128)\b", sass[0])
        return int(wide[1].lstrip("US")) if wide else 32
    isa = re.match(r"(?:global|buffer)_(?:load|store)_(ubyte|ushort|short|dword)(?:x(\d))?", line)
    return _WIDTHS[isa[1]] * int(isa[2] or 1) if isa else 0


def _blocks(lines: Iterable[str], label: str, branch: str) -> list[Block]:
    blocks = [Block([])]
    for raw in lines:
        line = re.split(r"\s;|;|//", raw.strip())[0].strip()
        found = re.match(label, line)
        if found:
            blocks.append(Block([], found[1]))
            continue
        if not re.match(r"^(?:@!?U?P\w+\s+)?[A-Za-z]\w+", line) or line.startswith("NOP"):
            continue
        blocks[-1].instructions.append(line)
        jump = re.search(branch, line)
        ends = re.match(r"^(?:EXIT|s_endpgm|BRA|s_branch)\b", line) is not None
        if jump or ends:
            blocks[-1].jumps = (jump[1],) if jump else ()
            blocks[-1].falls = not ends
            blocks.append(Block([]))
    return blocks


def shortest_way(blocks: list[Block]) -> list[str]:
    """The instructions from the entry to an exit, by way of every block with 128-bit accesses."""
    places = {block.label: i for i, block in enumerate(blocks) if block.label}
    after = [
        [*(places[j] for j in block.jumps if j in places), *([i + 1] if block.falls else [])]
        for i, block in enumerate(blocks)
    ]
    wide = [i for i, b in enumerate(blocks) if any(access_width(x) == 128 for x in b.instructions)]
    way, here = [0], 0
    for goal in (*(i for i in wide if i != 0), None):
        step = _route(blocks, after, here, goal)
        if step:
            way, here = way + step, step[-1]
    return [line for i in way for line in blocks[i].instructions]


def _route(blocks: list[Block], after: list[list[int]], start: int, goal: int | None) -> list[int]:
    """Blocks after `start` up to `goal` (None: any exit), fewest instructions first."""
    queue: list[tuple[int, list[int]]] = [(0, [start])]
    done: set[int] = set()
    while queue:
        queue.sort(key=lambda item: item[0])
        cost, way = queue.pop(0)
        here = way[-1]
        leaves = not after[here] and any(
            "EXIT" in x or "endpgm" in x for x in blocks[here].instructions
        )
        if (goal is None and leaves) or (here == goal and len(way) > 1):
            return way[1:]
        if here in done:
            continue
        done.add(here)
        for there in after[here]:
            if there < len(blocks):
                queue.append((cost + len(blocks[there].instructions), [*way, there]))
    return []


def _spilled_bytes(ptx: str) -> int:
    target = re.search(r"\.target (\w+)", ptx)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        arch = f"--gpu-name={target[1] if target else 'sm_90'}"
        said = _run_tool("ptxas", "-v", arch, str(path), "-o", str(path.with_suffix(".o")))
    return sum(int(n) for n in re.findall(r"(\d+) bytes spill", said))


def _run_tool(name: str, *arguments: str) -> str:
    """What a tool of Triton's wheel says. Raises KernelError where the wheel has none."""
    import triton

    tool = Path(str(triton.__file__)).parent / "backends" / "nvidia" / "bin" / name
    if not tool.is_file():
        raise KernelError(f"{tool}: not there; this Triton cannot show its machine code")
    run = subprocess.run([str(tool), *arguments], capture_output=True, text=True)
    if run.returncode:
        raise KernelError(f"{name}: {run.stderr.strip()[:300]}")
    return run.stdout + run.stderr
