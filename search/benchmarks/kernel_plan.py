"""What `bench kernels` is asked to measure, read with every mistake at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from search.benchmarks.goals import TYPES
from search.benchmarks.measured import DIRECTIONS, PEERS
from search.errors import ExpressionError, KernelError, near_miss
from search.kernels import KERNELS
from search.language.catalog import CATALOG, read_activation
from search.language.expression import Expression

DTYPES = ("float32", "bfloat16", "float16", "float64")
SIZES = {"cpu": (2**14, 2**18, 2**22), "cuda": (2**24, 2**26)}
DTYPES_OF = {"cpu": ("float32",), "cuda": ("float32", "bfloat16")}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured."""

    formulas: tuple[tuple[str, Expression], ...]
    """Name (or formula) and expression."""
    sizes: tuple[int, ...]
    dtypes: tuple[str, ...]
    directions: tuple[str, ...]
    peers: tuple[str, ...]
    rounds: int
    threads: int
    device: str
    kernel: str

    @property
    def cases(self) -> int:
        """How many rows the table will have."""
        return len(self.formulas) * len(self.sizes) * len(self.dtypes) * len(self.directions)


def make_plan(
    names: Sequence[str] = (),
    expressions: Sequence[str] = (),
    sizes: Sequence[str] = (),
    dtypes: Sequence[str] = (),
    directions: Sequence[str] | None = None,
    peers: Sequence[str] | None = None,
    rounds: int = 7,
    thread_count: int = 1,
    device: str = "auto",
    kernel: str = "auto",
) -> Plan:
    """Read what was asked for; nothing asked: the catalogue, and the device's sizes and dtypes.

    Raises KernelError with every mistake, one a line.
    """
    problems: list[str] = []
    kind = _device(device, problems)
    formulas = _formulas(names, expressions, problems)
    counts = tuple(_size(text, problems) for text in sizes) or SIZES[kind]
    dtypes = tuple(dtypes) or DTYPES_OF[kind]
    directions = tuple(directions or DIRECTIONS)
    peers = PEERS if peers is None else tuple(peers)
    for option, given, known in (
        ("dtypes", dtypes, DTYPES),
        ("passes", directions, DIRECTIONS),
        ("against", peers, PEERS),
        ("kernel", (kernel,), KERNELS),
    ):
        problems += [
            f"--{option}: unknown '{g}'{near_miss(g, known)}" for g in given if g not in known
        ]
    for option, count in (("rounds", rounds), ("threads", thread_count)):
        if count < 1:
            problems.append(f"--{option}: expected at least 1, got {count}")
    if problems:
        raise KernelError(*problems)
    kept = tuple(peer for peer in PEERS if peer in peers)
    return Plan(formulas, counts, dtypes, directions, kept, rounds, thread_count, kind, kernel)


def _formulas(
    names: Sequence[str], expressions: Sequence[str], problems: list[str]
) -> tuple[tuple[str, Expression], ...]:
    found = []
    for text in [*names, *expressions] or list(CATALOG):
        try:
            found.append((text, read_activation(TYPES.get(text, text), "kernels")))
        except ExpressionError as error:
            problems += error.problems
    return tuple(found)


def _size(text: str, problems: list[str]) -> int:
    """A number of elements, written out or as a power: `4194304`, `2^22`."""
    base, _, exponent = text.partition("^")
    try:
        size = int(base) ** int(exponent) if exponent else int(base)
    except ValueError:
        size = 0
    if size <= 0 or not isinstance(size, int):
        problems.append(f"--sizes: expected numbers above 0 like 4194304 or 2^22, got '{text}'")
    return size


def _device(device: str, problems: list[str]) -> str:
    there = torch.cuda.is_available()
    if device not in ("auto", "cpu", "cuda"):
        problems.append(f"--device: unknown '{device}'{near_miss(device, ('auto', 'cpu', 'cuda'))}")
    elif device == "cuda" and not there:
        problems.append("--device: no CUDA or ROCm device is at hand; expected auto or cpu")
    return "cuda" if there and device != "cpu" else "cpu"
