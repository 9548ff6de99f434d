"""What `bench samplers replay` prints and writes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search.benchmarks.promotion_table import described
from search.benchmarks.standings import PEERS, Contest, Interval
from search.environment import environment
from search.errors import StudyError
from search.results import write_whole


def table(contests: Sequence[Contest]) -> str:
    """One block a table: trials to the top, ratios, regret, what proposals cost."""
    return "\n\n".join(_block(contest) for contest in contests)


def _block(contest: Contest) -> str:
    conditions = contest.conditions
    told = f"; {len(contest.baselines)} baselines first" if contest.baselines else ""
    at_a_time = f", {conditions.parallel} at a time" if conditions.parallel > 1 else ""
    lines = [
        f"{contest.table}: {contest.functions} functions, top 1 % are {contest.top};"
        f" {contest.seeds} searches by {conditions.trials} trials{at_a_time}{told}; they see"
        f" {conditions.seen} seeds, {contest.draws} different draws"
        f" (rank correlation with the truth {contest.reliability_seen:.2f}; halves of the table's"
        f" seeds {contest.reliability:.3f}); regret is of the best of {conditions.finalists}"
        " finalists",
        f"{'sampler':<11}{'trials to the top':>25}{'to random':>22}{'to tpe':>22}"
        f"{f'regret at {conditions.trials}':>28}{'refused':>9}{'s/trial':>9}",
    ]
    for row in contest.standings:
        ratios = [f"{_said(row.ratios.get(peer), '{:.2f}', '∞'):>22}" for peer in PEERS]
        cells = [f"{_said(row.median, '{:.0f}'):>25}", *ratios]
        regret = f"{_said(row.regret[-1], '{:.4f}'):>28}"
        cost = f"{row.refused:>8.0%} {row.seconds:>8.4f}"
        lines.append(f"{row.sampler:<11}{''.join(cells)}{regret}{cost}")
        if contest.baselines and row.counted:
            counted = [f"{_said(row.counted.get(peer), '{:.2f}', '∞'):>22}" for peer in PEERS]
            lines.append(f"{'  and if the baselines were counted':<36}{''.join(counted)}")
    if contest.promotion is not None:
        lines.append(described(contest.promotion, contest.objective))
    return "\n".join(lines)


def _said(interval: Interval | None, form: str, infinite: str = "never") -> str:
    """`23 (19 to 27)`; `never` where it was not reached within the trials.

    >>> _said(Interval(23, 19, math.inf), "{:.0f}")
    '23 (19 to never)'
    """
    if interval is None:
        return "–"
    low, value, high = (
        infinite if math.isinf(x) else form.format(x)
        for x in (interval.low, interval.value, interval.high)
    )
    return f"{value} ({low} to {high})"


def as_json(contests: Sequence[Contest]) -> str:
    """Every figure, with what it was made with; inf as null."""
    data = {"contests": [_plain(asdict(contest)) for contest in contests], **environment()}
    return json.dumps(data, indent=1)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return None if math.isinf(value) else float(f"{value:.6g}")
    return value


def write(contests: Sequence[Contest], folder: Path) -> list[str]:
    """Write `replay.json` and, where matplotlib is there, `replay.png`; what was written.

    Raises:
        StudyError: the folder cannot be written.
    """
    text = as_json(contests)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be made: {error.strerror or error}") from None
    write_whole(folder / "replay.json", text + "\n")
    written = [str(folder / "replay.json")]
    try:
        from search.figures.replay import draw_replay  # only who has matplotlib
        from search.figures.style import png_bytes
    except ModuleNotFoundError:
        return written
    (folder / "replay.png").write_bytes(png_bytes(draw_replay(text)))
    return [*written, str(folder / "replay.png")]
