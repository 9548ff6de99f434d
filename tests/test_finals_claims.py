"""What cannot be claimed, and further tasks."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from search.figures.finals import finals_info
from search.figures.leaderboard import leaderboard_info
from search.figures.page import index_page
from search.figures.report import write_report
from search.figures.settings import ReportSettings
from search.figures.tables import leaderboard_csv, leaderboard_markdown
from search.records import Run, Trial
from search.summary import print_summary
from tests.finals_cases import (
    BASE,
    FIRST,
    GELU,
    RELU,
    SECOND,
    SETTINGS,
    THIRD,
    again,
    around,
    found,
    said,
)
from tests.records_cases import swept

# --- what cannot be claimed -----------------------------------------------------------------------


FLAT: list[float | None] = [0.97] * 10
CASES: dict[str, tuple[list[Trial], ReportSettings, tuple[str, ...]]] = {
    "fewer candidates than places": (
        [*BASE, again(FIRST, around(0.96))],
        replace(SETTINGS, places=3),
        ("3 finalists asked for, and only 1 candidate has a score.",),
    ),
    "no candidate": (
        BASE,
        SETTINGS,
        ("No candidate has a score: the baselines alone were trained again.",),
    ),
    "one seed": (
        [again(GELU, [0.96]), again(FIRST, [0.99])],
        SETTINGS,
        ("with 1 seed (+3.00 points): one seed shows nothing",),
    ),
    "too few seeds": (
        [again(GELU, around(0.96, seeds=4)), again(FIRST, around(0.99, seeds=4))],
        SETTINGS,
        ("the least p that 4 seeds can give is 0.125",),
    ),
    "no spread": (
        [again(GELU, FLAT), again(FIRST, FLAT), again(SECOND, [0.98] * 10)],
        SETTINGS,
        ("the scores are equal on all 10 seeds", "the difference is the same on all 10 seeds"),
    ),
    "a tie at the cut": (
        [*BASE, again(FIRST, around(0.97)), again(SECOND, FLAT), replace(THIRD, score=0.98)],
        SETTINGS,
        ("#2, #3 share the last finalist's search score; the lower numbers went on.",),
    ),
    "baselines that are equal in the search": (
        [replace(BASE[0], score=0.97), BASE[1], again(FIRST, around(0.97))],
        SETTINGS,
        ("ReLU, GELU share the best baseline's search score; ReLU is the first by number.",),
    ),
    "a baseline that diverged everywhere in the search": (
        [*BASE, swept(9, 0.9, 0.01, unstable=0.0, origin="baseline", name="elu",
                      expression="x", noise=0.0), again(FIRST, around(0.97))],
        SETTINGS,
        ("ELU was not trained again: all 10 runs diverged.",),
    ),
    "the best baseline diverged on every fresh seed": (
        [BASE[0], again(GELU, [None] * 10), again(FIRST, around(0.97))],
        SETTINGS,
        (
            "#1 is better than ReLU",
            "GELU scored better in the search than ReLU, but trained to the end with no fresh seed",
        ),
    ),
    "every baseline diverged on every fresh seed": (
        [again(RELU, [None] * 10), again(GELU, [None] * 10), again(FIRST, around(0.97))],
        SETTINGS,
        (
            "The finalists have no baseline with a fresh score to be compared with.",
            "Nothing can be claimed of the finalists: no baseline has a fresh score.",
        ),
    ),
    "no baseline": (
        [again(FIRST, around(0.97)), again(SECOND, around(0.96))],
        SETTINGS,
        ("Nothing can be claimed of the finalists: there is no baseline.",),
    ),
    "a finalist that diverged on some seeds": (
        [*BASE, again(FIRST, [None, *around(0.99, seeds=9)])],
        SETTINGS,
        ("but diverged on 1 seed", "#1 diverged on seed 1000."),
    ),
    "a finalist that failed": (
        [*BASE, again(FIRST, [], state="failed", reason="ValueError: no (task.py:3)")],
        SETTINGS,
        ("#1 failed when it was trained again: ValueError: no (task.py:3).",),
    ),
    "finalists that are not done": (
        [*BASE, again(FIRST, around(0.97, seeds=3), state="running"), again(SECOND, [],
                                                                            state="running")],
        SETTINGS,
        ("2 finalists not yet done: #1, #2.",),
    ),
    "a longer training": (
        [
            replace(t, finals=tuple(replace(f, budget=2.0) for f in t.finals))
            for t in [*BASE, again(FIRST, around(0.97))]
        ],
        SETTINGS,
        ("Finalists trained 2 times as long as in the search",),
    ),
    "a loss": (
        [*BASE, again(FIRST, around(0.955))],
        replace(SETTINGS, metric="loss", percent=False, maximize=False),
        ("#1 is better than ReLU by 0.00",),
    ),
}  # fmt: skip


class Text(HTMLParser):
    """The visible text of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.parts: list[str] = []
        self.skipped = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.skipped = tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        self.parts += [] if self.skipped else [data]


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_known_is_said_in_words(case: str, tmp_path: Path):
    trials, own, words = CASES[case]
    text = said(trials, own)
    board = leaderboard_info(trials, own)
    finals = finals_info(board, own)
    shown = " ".join(Text(index_page(trials, board, own, ())).parts)
    tables = leaderboard_csv(board, finals), leaderboard_markdown(board, own, finals)
    console = Console(record=True, file=io.StringIO(), width=160)
    print_summary(console, trials, own, tmp_path)
    for word in words:
        assert word in text
        assert word in shown
    for written in (text, shown, console.export_text(), *tables):
        assert not re.search(r"\bnan\b|\binf\b|\bNone\b", written)


def test_a_loss_is_better_when_it_is_lower():
    trials, own, _ = CASES["a loss"]
    info = finals_info(leaderboard_info(trials, own), own)
    assert info is not None and info.comparison is not None
    assert info.comparison.baseline == "ReLU"  # the lower one in the search
    assert info.comparison.effects[0].mean == pytest.approx(0.005, abs=0.001)


# --- further tasks --------------------------------------------------------------------------------


def elsewhere(trial: Trial, tasks: int, gain: float) -> Trial:
    """The trial with finalists on so many further tasks; on odd ones the score is a loss."""
    finals = list(trial.finals)
    for n in range(1, tasks + 1):
        loss = n % 2 == 1
        score = 0.5 - gain if loss else 0.5 + gain
        other = again(trial, around(score, 0.002 + 1e-5 * n)).finals[0]
        tuned = Run(0.01, 0, "complete", score=0.5)  # the sweep that found the rate
        known = {"metric": "loss" if loss else "accuracy", "maximize": not loss}
        number = other.number - 100 * n
        runs = (tuned, *other.runs)
        finals.append(replace(other, number=number, task=f"task{n}", environment=known, runs=runs))
    return replace(trial, finals=tuple(finals))


def test_further_tasks_are_compared_each_in_its_own_metric():
    trials = [elsewhere(BASE[1], 2, 0.0), elsewhere(again(FIRST, around(0.97)), 2, 0.02)]
    told = found(trials).statements
    assert any(re.match(r"On task1 \(loss\): #1 is better than GELU by 0\.0\d+ ±", t) for t in told)
    assert any(
        re.match(r"On task2 \(accuracy\): #1 is better than GELU by [12]\.", t) for t in told
    )
    assert any(t.startswith("Over 3 tasks a run of #1 beats one of GELU 100% of") for t in told)
    ranks = next(t for t in told if t.startswith("Average ranks: #1 1.00, GELU 2.00"))
    assert "ranks over 3 tasks are shown without a test: 8 tasks are the least" in ranks
    board = leaderboard_info(trials, SETTINGS)
    assert [row.final.n for row in board.ranked if row.final] == [10, 10]  # of the own task


def test_the_diagram_of_ranks_is_drawn_when_the_tasks_earn_it(tmp_path: Path):
    for tasks in (6, 7):
        trials = [
            elsewhere(BASE[1], tasks, 0.0),
            elsewhere(again(FIRST, around(0.97)), tasks, 0.02),
        ]
        write_report(tmp_path, trials, SETTINGS)
        drawn = (tmp_path / "report" / "critical_difference.png").is_file()
        assert drawn == (tasks == 7)


def test_a_task_without_the_baseline_is_said():
    trials = [BASE[1], elsewhere(again(FIRST, around(0.97)), 1, 0.02)]
    told = found(trials).statements
    assert "On task1: the best baseline of the search has no fresh score there." in told
