"""The formula's programs as functions of an exported file: renamed, with what they use and no more.

The texts are those of `search.kernels`: nothing is rendered a second way.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from textwrap import indent

from search.kernels.program import Lowered, lower, penalty_expression
from search.kernels.torch_code import render as render_torch
from search.kernels.torch_rendering import lower_torch
from search.kernels.triton_channels import render_channels
from search.kernels.triton_code import render as render_triton
from search.kernels.triton_fusion import fuse
from search.language.expression import Expression, Statistic, walk

DIMENSIONS = ("features", "sample", "tensor")
REMARKS = {
    "flat": """\
# A kernel walks memory in order; a tile is unmasked unless it is the last, so that tensors of any
# size keep their 128-bit accesses.""",
    "tiled": """\
# Memory is seen as rows of channels, or as the places of a channel; a tile is [ROWS, COLS] of it.
# One kernel walks tensors whose channels are innermost, the other every other order of the
# dimensions, as N, C, H, W.""",
}


@dataclass(frozen=True, slots=True)
class TorchText:
    """Functions of torch operations, `<name>_value` and `<name>_slopes` for each formula."""

    sources: tuple[str, ...]
    """Of the activation, then of its penalty if it has one."""
    dimensions: tuple[str, ...]
    """The keyword arguments that all of them take: what statistics reduce."""
    operations: int
    """Of the activation's backward."""


@dataclass(frozen=True, slots=True)
class TritonText:
    """Kernels, as functions inside a function that makes them global."""

    source: str
    names: tuple[str, ...]
    """Everything that the text defines."""
    layout: str
    """How its kernels walk memory, and which template launches them: flat or tiled."""

    @property
    def remark(self) -> str:
        """A comment on that."""
        return REMARKS[self.layout]


def torch_text(expression: Expression) -> TorchText:
    """The torch programs of a formula and of its penalty."""
    penalty = penalty_expression(expression)
    named = {"formula": lower_torch(expression)}
    named |= {"penalty": lower_torch(penalty)} if penalty else {}
    reduced = {over for lowered in named.values() for over in _reduced(lowered)}
    dimensions = tuple(over for over in DIMENSIONS if over in reduced)
    sources = tuple(_renamed(lowered, name, dimensions) for name, lowered in named.items())
    return TorchText(sources, dimensions, len(named["formula"].backward.operations))


def _renamed(lowered: Lowered, name: str, dimensions: tuple[str, ...]) -> str:
    keywords = f", *, {', '.join(dimensions)}" if dimensions else ""
    texts = _functions(render_torch(lowered, name))
    renamed = "\n\n\n".join(
        re.sub(
            r"def \w+\((.*), \*, features, sample, tensor\):",
            lambda found, suffix=suffix: f"def {name}_{suffix}({found[1]}{keywords}):",
            text,
        )
        for text, suffix in zip(texts, ("value", "slopes"), strict=True)
    )
    return re.sub(r"return \((.*, .*),\)", r"return \1", renamed)


def triton_text(expression: Expression) -> TritonText | None:
    """The kernels of a formula, unless it has statistics over samples or the tensor."""
    over = {str(node.over) for node in walk(expression.body) if isinstance(node, Statistic)}
    channels = [p.name for p in expression.trainable if p.scope == "channel"]
    lowered = lower(expression, fuse)
    if over - {"features"}:
        return None
    if not over and not channels:
        return _triton_text("flat", _kernels_of(render_triton(lowered, "", in_turn=False)))
    last, other = "last", "across" if over else "first"
    texts = {
        each: _kernels_of(render_channels(lowered, "", each, channels, in_turn=False))
        for each in (last, other)
    }
    walks = [f for f in _jitted(texts[other]) if re.search(r"def (forward|gradients)\(", f)]
    source = "\n\n".join([_suffixed(texts[last], last), *(_suffixed(f, other) for f in walks)])
    return _triton_text("tiled", source)


def _kernels_of(file: str) -> str:
    """What stands in a generated file below its imports."""
    return file.partition("import triton.language as tl")[2].strip("\n")


def _triton_text(layout: str, source: str) -> TritonText:
    names = tuple(_defined(source))
    return TritonText(indent(re.sub(r"\n{3,}", "\n\n", source), "    "), names, layout)


def _suffixed(source: str, layout: str) -> str:
    """The kernels that walk a layout, named after it."""
    return re.sub(r"def (forward|gradients)\(", rf"def \1_{layout}(", source)


def _jitted(source: str) -> list[str]:
    """The text of every function, with its decorator, in order."""
    return [f"@triton.jit\n{function}" for function in _functions(source)]


def _reduced(lowered: Lowered) -> set[str]:
    operations = (*lowered.forward.operations, *lowered.backward.operations)
    return {str(operation.over) for operation in operations if operation.over}


def _functions(source: str) -> list[str]:
    """The text of every function, in order."""
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    return [ast.get_source_segment(source, node) or "" for node in nodes]


def _defined(source: str) -> list[str]:
    """Top-level functions and constants, in order."""
    found = list[str]()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            found.append(node.name)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found.append(node.targets[0].id)
    return found
