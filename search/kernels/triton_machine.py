"""What machine code says of a kernel: instructions, registers, spills, the width of accesses.

    read_machines(binaries) → Machine, one a binary, in order

The instructions are those on the way of a whole tile. NVIDIA's needs the tools that Triton's own
wheel carries.
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from search.errors import KernelError
from search.kernels.triton_build import Binary


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


def read_machines(binaries: Sequence[Binary]) -> list[Machine]:
    """Of any targets; those of one target are read together."""
    found: dict[int, Machine] = {}
    for target in {binary.target for binary in binaries}:
        places = [i for i, binary in enumerate(binaries) if binary.target == target]
        group = [binaries[i] for i in places]
        read = read_cubins(group) if group[0].cubin else [read_isa(b.asm) for b in group]
        found |= dict(zip(places, read, strict=True))
    return [found[i] for i in range(len(binaries))]


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


def read_cubins(binaries: Sequence[Binary]) -> list[Machine]:
    """What the SASS of kernels for one target says.

    nvdisasm takes 0.25 s to start and 0.1 ms a kernel: it reads all of them as one run of
    instructions. Raises KernelError where Triton's wheel lacks the tools.
    """
    if not binaries:
        return []
    codes = [_text_section(binary) for binary in binaries]
    target = re.search(r"\.target sm_(\w+)", binaries[0].asm)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.bin"
        path.write_bytes(b"".join(codes))
        arch = f"SM{target[1] if target else binaries[0].target.removeprefix('sm_')}"
        text = _run_tool("nvdisasm", "-c", "--binary", arch, str(path))
    lines = re.findall(r"^\s*/\*([0-9a-f]{4,})\*/\s+(.*)$", text, flags=re.MULTILINE)
    found, start, given = [], 0, [(int(address, 16), line) for address, line in lines]
    for binary, code in zip(binaries, codes, strict=True):
        end = start + len(code)
        body = _with_labels([(at, line) for at, line in given if start <= at < end])
        found.append(_read_sass(body, binary))
        start = end
    return found


def _read_sass(body: str, binary: Binary) -> Machine:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(binary.cubin)
        usage = _run_tool("cuobjdump", "--dump-resource-usage", str(path))
    way = shortest_way(_blocks(body.splitlines(), r"^\.(L_\w+):", r"BRA.*\(\.(L_\w+)\)"))
    registers = re.search(r"REG:(\d+)", usage)
    # A stack is a spill, or the scratch of an exact sine's reduction: only the assembler knows.
    spilled = _spilled_bytes(binary.asm) if re.search(r"\b(STL|LDL)", body) else 0
    return Machine(
        instructions=len(way),
        registers=int(registers[1]) if registers else 0,
        spills=spilled,
        widths=tuple(width for line in way if (width := access_width(line))),
        doubles=len(re.findall(r"\b(?:D(?:ADD|MUL|FMA|SETP)|F2F\.F64\S*)\b", body)),
        code=body,
    )


def _with_labels(lines: Sequence[tuple[int, str]]) -> str:
    """Instructions at addresses, their branches to addresses as branches to labels."""
    targets = {
        int(a, 16) for _, line in lines for a in re.findall(r"\bBRA\b.*?(0x[0-9a-f]+)", line)
    }
    text = []
    for address, line in lines:
        if address in targets:
            text.append(f".L_{address:x}:")
        text.append(re.sub(r"(\bBRA\b.*?)0x([0-9a-f]+)", r"\1`(.L_\2)", line))
    return "\n".join(text)


def _text_section(binary: Binary) -> bytes:
    """The instructions of a cubin, a 64-bit ELF file."""
    cubin = binary.cubin
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", cubin, table + i * size) for i in range(count)]
    strings = sections[names][4]
    for name, _, _, _, offset, length in sections:
        if cubin[strings + name :].startswith(f".text.{binary.name}\0".encode()):
            return cubin[offset : offset + length]
    raise KernelError(f"{binary.name}: its binary has no section of instructions")


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
    arch = f"--gpu-name={target[1] if target else 'sm_90'}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        arguments = ("-v", arch, str(path), "-o", str(path.with_suffix(".o")))
        try:
            said = _run_tool("ptxas", *arguments)
        except KernelError:  # of PTX newer than it: Triton's other assembler made the binary
            said = _run_tool("ptxas-blackwell", *arguments)
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
