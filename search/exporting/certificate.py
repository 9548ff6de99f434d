"""The docstring of an exported file: how to use it, and what is certified of it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from search.exporting.source import Rows, Source
from search.language.expression import Expression, number_text
from search.language.latex import latex

WIDTH = 98
LABEL = 13
DTYPES = ("float32", "bfloat16", "float16")


class Check(Protocol):
    """A line of an exported file's self-test."""

    what: str
    error: float
    share: float
    note: str


def docstring(
    name: str, module: str, source: Source, triton: bool, measured: Rows, date: str
) -> str:
    """The text between the quotes of a raw docstring.

    name: the class; module: what to import it from; measured: label and text of each measurement.
    """
    expression = source.expression
    rows = [
        ("formula", str(expression)),
        ("LaTeX", latex(expression)),
        *_parameter_rows(expression, bool(source.cost is not None or _is_study(source))),
        ("source", source.origin),
        *source.facts,
        *measured,
        ("kernel", _kernel_text(triton)),
    ]
    return "\n".join(
        [
            f"{name}: an activation function in one file that needs torch alone.",
            "",
            *textwrap.wrap(
                str(expression), WIDTH - 4, initial_indent=" " * 4, subsequent_indent=" " * 8
            ),
            "",
            "Use it like any module:",
            "",
            *(f"    {line}" for line in usage(name, module, expression)),
            "",
            f"Check it anywhere: `python {module}.py` exits with 1 if a number is wrong.",
            "",
            "Certificate",
            "",
            *(line for row in rows for line in _row(*row)),
            "",
            f"Written by activation-search {_version()}, {date}. Licensed under the Apache",
            "License, Version 2.0: http://www.apache.org/licenses/LICENSE-2.0",
            "",
        ]
    )


def usage(name: str, module: str, expression: Expression) -> list[str]:
    """Five lines of code."""
    channels = "channels=128" if any(p.scope == "channel" for p in expression.trainable) else ""
    made = f"{name}({channels})"
    pair = len(expression.inputs) == 2
    lines = ["import torch", f"from {module} import {name}", f"activation = {made}"]
    drawn = "x, u = torch.randn(2, 32, 128)" if pair else "x = torch.randn(32, 128)"
    lines += [drawn, f"y = activation({'x, u' if pair else 'x'})"]
    if expression.penalty is not None:
        lines.append("loss = y.square().mean() + 0.1 * activation.penalty()")
    return lines


def error_rows(place: str, checks: Iterable[Check]) -> Rows:
    """One line a dtype: worst errors of values, slopes and parameter gradients at a place."""
    checks = list(checks)
    rows = [("errors", f"worst |error| / max(1, |exact|) against float64, {place}")]
    for dtype in DTYPES:
        mine = [check for check in checks if check.what.endswith(dtype)]
        kinds = {
            "f": [c for c in mine if c.what.startswith("f at")],
            "slopes": [c for c in mine if c.what.startswith("df/d") and " at " in c.what],
            "parameter gradients": [c for c in mine if " over " in c.what],
        }
        parts = [f"{kind} {_worst(found)}" for kind, found in kinds.items() if found]
        rows.append((f"  {dtype}", ", ".join(parts)))
    notes = [f"{c.what}: {c.note}" for c in checks if "inf" in c.note or "float32" in c.note]
    rows += [("  note", note) for note in notes]
    failed = [check.what for check in checks if not check.share <= 1]
    rows.append(("  in all", f"FAILS: {'; '.join(failed)}" if failed else "every check holds"))
    return tuple(rows)


def _worst(checks: Sequence[Check]) -> str:
    error, share = max(c.error for c in checks), max(c.share for c in checks)
    return f"{error:.1e} ({share:.0%} of what is allowed)"


def _is_study(source: Source) -> bool:
    return any(label == "study" for label, _ in source.facts)


def _parameter_rows(expression: Expression, trained: bool) -> list[tuple[str, str]]:
    rows = []
    for k, p in enumerate(expression.parameters):
        value = number_text(p.initial)
        if p.scope == "fixed":
            told = f"{p.name} = {value}, fixed"
        else:
            shape = "()" if p.scope == "layer" else "(channels,)"
            started = ", as in every run of the study" if trained else ""
            told = f"{p.name} per {p.scope}, shape {shape}, trained from {value}{started}"
        rows.append(("" if k else "parameters", told))
    return rows or [("parameters", "none")]


def _kernel_text(triton: bool) -> str:
    if triton:
        return (
            "fused forward and backward in Triton for float32, bfloat16 and float16 on CUDA and"
            " ROCm, loaded at the first CUDA tensor; torch's operations elsewhere, for float64,"
            " without Triton, and under torch.compile and torch.func. The errors above are of the"
            " devices that they name: the self-test measures those at hand, and the kernels on a"
            " CPU with TRITON_INTERPRET=1"
        )
    return (
        "torch's operations on every device: a formula with statistics over samples or the tensor"
        " has its Triton kernels in activation-search only; torch.compile fuses these"
    )


def _row(label: str, told: str) -> list[str]:
    return textwrap.wrap(
        told,
        WIDTH - 4,
        initial_indent=f"    {label:<{LABEL}} ",
        subsequent_indent=" " * (LABEL + 5),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _version() -> str:
    try:
        return version("activation-search")
    except PackageNotFoundError:
        return "(not installed)"
