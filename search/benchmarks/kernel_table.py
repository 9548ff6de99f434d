"""What `bench kernels` measured as a table, as JSON and as files."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from search.benchmarks.goals import batch_verdict, goal_lines, verdicts
from search.benchmarks.kernel_plan import Plan
from search.benchmarks.measured import COMPILED, COPY, OURS, Measurement, Timed
from search.errors import KernelError


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything that one run measured."""

    plan: Plan
    measurements: tuple[Measurement, ...]
    batch_seconds: Mapping[str, float | None]
    """Seconds of the C compiler a formula when all are built at once, by dtype."""
    compiler_start: float | None
    """Seconds of torch.compile's first compilation, of a formula that is not measured."""
    problems: tuple[str, ...]
    """Lines about what could not be measured at all."""


def goals(bench: Bench) -> list[str]:
    """What was to be reached and was measured, a goal a line."""
    found = verdicts(bench.measurements, bench.plan.device)
    found += [batch_verdict(seconds) for seconds in bench.batch_seconds.values() if seconds]
    return goal_lines(found)


def head(peers: Sequence[str]) -> str:
    """The table's first line: times are medians in µs; a ratio is ours over that peer's time."""
    cells = "".join(f" {peer:>9} {'ours/it':>7}" for peer in peers)
    compiled = f" {'compile s':>9}" if COMPILED in peers else ""
    copied = f" {'of copy':>7}" if COPY in peers else ""
    return (
        f"{'formula':<20} {'dtype':<8} {'elements':>9} {'pass':<8} {'by':<6} {'ours µs':>9}"
        f" {'quartiles':>17}{cells} {'GB/s':>6}{copied} {'first s':>7}{compiled}"
    )


def lines(measured: Measurement, peers: Sequence[str]) -> list[str]:
    """One case as a line of the table, and a line a contestant that could not run."""
    ours = measured.times[OURS].microseconds
    quartiles = " to ".join(map(_number, ours.quartiles)) if ours else "-"
    cells = "".join(_cell(measured, peer) for peer in peers)
    rate, copied = measured.rate(OURS), measured.ratio(COPY)
    first = f"{measured.first.seconds:.3f}" if measured.first else "-"
    end = f" {f'{rate:.1f}' if rate else '-':>6}"
    if COPY in peers:
        end += f" {f'{100 / copied.median:.0f} %' if copied else '-':>7}"
    end += f" {first:>7}"
    if COMPILED in peers:
        compiled = measured.times.get(COMPILED, Timed(None)).compile_seconds
        end += f" {f'{compiled:.2f}' if compiled else '-':>9}"
    row = (
        f"{measured.name[:20]:<20} {measured.dtype:<8} {measured.elements:>9}"
        f" {measured.direction:<8} {measured.rendering or '-':<6}"
        f" {_number(ours.median) if ours else '-':>9} {quartiles:>17}{cells}{end}"
    )
    failed = [f"  {name}: {t.problem}" for name, t in measured.times.items() if t.problem]
    return [row, *failed]


def _cell(measured: Measurement, peer: str) -> str:
    timed, ratio = measured.times.get(peer), measured.ratio(peer)
    time_text = _number(timed.microseconds.median) if timed and timed.microseconds else "-"
    return f" {time_text:>9} {f'{ratio.median:.3f}' if ratio else '-':>7}"


def _number(value: float) -> str:
    """Three digits or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def as_json(bench: Bench) -> str:
    """Every figure, with what it was measured on."""
    from search.environment import environment, worker_environment

    plan = asdict(replace(bench.plan, formulas=()))
    del plan["formulas"]
    device = worker_environment(plan["device"])["device"]
    whole: dict[str, Any] = {
        "settings": {**plan, "device_name": device},
        "measurements": [measured.as_json() for measured in bench.measurements],
        "batch_compile_seconds_a_formula": dict(bench.batch_seconds),
        "compiler_start_seconds": bench.compiler_start,
        "goals": goals(bench),
        "problems": bench.problems,
        **environment(),
    }
    return json.dumps(whole, indent=1)


def make_folder(folder: Path) -> None:
    """Before anything is measured. Raises KernelError when it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from None


def write(bench: Bench, folder: Path) -> list[str]:
    """kernels.json, kernels.png and kernels.pdf; the lines that say where, or what is missing.

    Raises KernelError when one cannot be written.
    """
    try:
        written = [_written(folder / "kernels.json", as_json(bench).encode())]
        return written + _pictures(bench, folder)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> KernelError:
    return KernelError(f"{folder}: cannot be written: {error.strerror or error}")


def _pictures(bench: Bench, folder: Path) -> list[str]:
    try:
        from search.figures import roofline
        from search.figures.style import pdf_bytes, png_bytes
    except ModuleNotFoundError as error:
        missing = (error.name or "matplotlib").partition(".")[0]
        return [f"no picture: {missing} is not installed"]
    info = roofline.roofline_info(bench.measurements)
    if info is None:
        return ["no picture: it compares with the copy, which was not measured"]
    figure = roofline.draw_roofline(info)
    png = _written(folder / "kernels.png", png_bytes(figure))
    return [png, _written(folder / "kernels.pdf", pdf_bytes(figure))]


def _written(path: Path, content: bytes) -> str:
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return f"written: {path}"
