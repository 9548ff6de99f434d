"""What a report says of finalists: its numbers are the runs', and what cannot be claimed is not."""

from __future__ import annotations

import csv
import io
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from search.figures.finals import finals_info, statements
from search.figures.leaderboard import leaderboard_info
from search.figures.page import index_page
from search.figures.report import write_report
from search.figures.settings import ReportSettings
from search.figures.tables import leaderboard_csv, leaderboard_markdown
from search.figures.verdict import Verdict, verdict
from search.finalists import APART
from search.records import Origin, Run, Trial
from search.statistics import mean, standard_error
from search.summary import print_summary
from tests.records_cases import settings, swept

FRESH = range(1000, 1010)
SETTINGS = settings(places=2, fresh_seeds=10, seeds=(0, 1))


def around(center: float, spread: float = 0.001, seeds: int = 10) -> list[float | None]:
    """Scores of the fresh seeds."""
    draw = random.Random(f"{center} {spread}")
    return [round(center + draw.gauss(0, spread), 6) for _ in range(seeds)]


def searched(number: int, score: float, origin: Origin = "search", name: str = "") -> Trial:
    text = {"relu": "relu(x)", "gelu": "x * normal_cdf(x)"}.get(name, f"x * sigmoid({number} * x)")
    trial = swept(
        number, score, 0.01, noise=0.0005, origin=origin, name=name, expression=text, cost=1.5
    )
    return replace(trial, score=score)


def again(trial: Trial, scores: Sequence[float | None], **more: object) -> Trial:
    """The trial with a finalist of these test scores."""
    shift = APART * int(trial.name.split()[-1]) if trial.origin == "placebo" else 0
    rate = trial.best_rate or 0.01
    runs = [
        Run(rate, seed + shift, "diverged", "step 9: loss is 4e3, above the bound 1e3")
        if score is None
        else Run(rate, seed + shift, "complete", score=0.98, test=score)
        for seed, score in zip(FRESH, scores, strict=False)
    ]
    values = {"state": "complete", "reason": "", "score": None} | more
    final = replace(
        trial,
        number=-100 - trial.number,
        origin="finalist",
        of=trial.number,
        runs=tuple(runs),
        seeds=tuple(run.seed for run in runs),
    )
    return replace(trial, finals=(replace(final, **values),))  # type: ignore[arg-type]


RELU, GELU = searched(-1, 0.965, "baseline", "relu"), searched(0, 0.97, "baseline", "gelu")
BASE = [again(RELU, around(0.96)), again(GELU, around(0.962))]
FIRST, SECOND, THIRD = searched(1, 0.985), searched(2, 0.98), searched(3, 0.979)


def found(trials: Sequence[Trial], own: ReportSettings = SETTINGS) -> Verdict:
    return verdict(leaderboard_info(trials, own), own)


def said(trials: Sequence[Trial], own: ReportSettings = SETTINGS) -> str:
    told = found(trials, own)
    return "\n".join((told.headline, told.detail, *told.statements, *told.notes))


# --- the leaderboard -----------------------------------------------------------------------------

STUDY = [*BASE, again(FIRST, around(0.955)), again(SECOND, around(0.97)), THIRD]


def test_fresh_scores_rank_first_and_are_the_runs():
    board = leaderboard_info(STUDY, SETTINGS)
    assert [row.label for row in board.ranked] == ["#2", "GELU", "ReLU", "#1", "#3"]
    for row in board.ranked[:4]:
        tests = [r.test for f in row.trial.finals for r in f.runs if r.test is not None]
        assert row.final is not None and row.final.n == 10
        assert row.fresh == mean(tests) and row.final.standard_error == standard_error(tests)
        assert row.shrinkage == pytest.approx((row.score or 0) - (row.fresh or 0))
    assert (board.ranked[4].fresh, board.ranked[4].shrinkage) == (None, None)
    assert board.best_candidate is board.ranked[0]
    losses = leaderboard_info(STUDY, replace(SETTINGS, maximize=False))
    assert [row.label for row in losses.ranked] == ["#1", "ReLU", "GELU", "#2", "#3"]


def test_candidates_are_compared_with_the_baseline_that_was_best_in_the_search():
    better_later = [again(RELU, around(0.99)), again(GELU, around(0.962)), *STUDY[2:]]
    info = finals_info(leaderboard_info(better_later, SETTINGS), SETTINGS)
    assert info is not None and info.reference is not None and info.comparison is not None
    assert info.reference.label == "GELU" == info.comparison.baseline
    assert [e.label for e in info.comparison.effects] == ["#1", "#2"]
    assert [c.label for c in info.conclusions] == ["#2", "#1"]
    assert [c.claim for c in info.conclusions] == ["better", "worse"]
    pairs = zip(better_later[3].finals[0].runs, better_later[1].finals[0].runs, strict=True)
    gains = [(own.test or 0) - (other.test or 0) for own, other in pairs]
    assert info.comparison.effects[1].mean == pytest.approx(mean(gains))


def test_the_verdict_is_the_claim_of_the_finalist_that_has_one():
    told = found(STUDY)
    assert re.fullmatch(
        r"#2 is better than GELU by 0\.\d\d ± 0\.\d\d points on 10 seeds, p = 0\.0039 after Holm "
        r"over 2; 1\.00× its cost\.",
        told.headline,
    )
    assert told.detail.startswith("On fresh seeds and the test split: #2 96.")
    assert "#1 is worse than GELU" in told.statements[1]
    assert "Shrinkage: 2 finalists lost 2." in told.statements[2]
    assert "not re-tested" not in said(STUDY) and "Expect the winner" not in said(STUDY)
    two = found([*BASE, again(FIRST, around(0.98)), again(SECOND, around(0.97))])
    assert two.headline == (
        "2 of 2 finalists are better than GELU on 10 fresh seeds and the test split."
    )
    none = found([*BASE, again(FIRST, around(0.962, 0.003))])
    assert none.headline == (
        "No finalist is shown to be better than GELU on 10 fresh seeds and the test split."
    )
    assert "not distinguishable from GELU" in none.statements[0]


def test_an_ablation_compares_the_other_baselines():
    told = found(BASE, replace(SETTINGS, sampler="", budget=None))
    assert told.statements[0].startswith("ReLU is ") and "GELU" in told.statements[0]


# --- what cannot be claimed ----------------------------------------------------------------------

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


# --- further tasks -------------------------------------------------------------------------------


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


# --- placebos ------------------------------------------------------------------------------------


def placebo(number: int, scores: Sequence[float | None]) -> Trial:
    return again(searched(-1 - number, 0.96, "placebo", f"placebo {number}"), scores)


def test_placebos_are_compared_with_relu_and_counted():
    honest = [placebo(n, around(0.96 + 1e-9 * n)) for n in (1, 2, 3)]
    lucky = placebo(4, around(0.97))
    board = leaderboard_info([*STUDY, *honest, lucky], SETTINGS)
    info = finals_info(board, SETTINGS)
    assert info is not None and info.placebos is not None
    assert (info.placebos.declared, info.placebos.placebos, info.placebos.share) == (1, 4, 0.25)
    told = statements(info, SETTINGS)
    assert "1 of 4 placebos declared better than ReLU (25%; 95 % interval 1% to 81%)" in told[3]
    # They are neither candidates nor in their family.
    assert info.comparison is not None and info.comparison.family == 2
    assert board.best_candidate is not None and board.best_candidate.label == "#2"
    assert "placebo 4" in [row.label for row in board.ranked]


def test_placebos_that_could_not_have_been_declared_show_nothing():
    few = [
        again(RELU, around(0.96, seeds=6)),
        *(placebo(n, around(0.955 + 0.01 * n, seeds=6)) for n in (1, 2)),
    ]
    told = found(few).statements
    assert "With 6 seeds and 2 placebos no placebo could have been declared better." in told
    assert not any("no placebo could" in text for text in found([few[0], few[1]]).statements)


def test_without_placebos_nothing_is_said_of_them():
    info = finals_info(leaderboard_info(STUDY, SETTINGS), SETTINGS)
    assert info is not None and info.placebos is None
    assert not any("placebo" in text for text in statements(info, SETTINGS))


# --- files and terminal --------------------------------------------------------------------------


def test_the_tables_have_the_fresh_columns(tmp_path: Path):
    write_report(tmp_path, STUDY, SETTINGS)
    text = (tmp_path / "leaderboard.csv").read_text(encoding="utf-8")
    rows = {row["number"]: row for row in csv.DictReader(io.StringIO(text))}
    board = leaderboard_info(STUDY, SETTINGS)
    info = finals_info(board, SETTINGS)
    assert info is not None
    for row in board.ranked:
        written = rows[str(row.trial.number)]
        effect = info.effect(row)
        assert written["fresh_score"] == ("" if row.fresh is None else repr(row.fresh))
        assert written["claim"] == ("" if effect is None else effect.claim)
        assert written["p_after_holm"] == ("" if effect is None else repr(effect.adjusted_p))
    lines = (tmp_path / "leaderboard.md").read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert table[0].split(" | ")[5:9] == [
        "fresh score", "fresh n", "fresh gain over GELU", "shrinkage"
    ]  # fmt: skip
    assert "(better)" in table[2] and table[2].split(" | ")[1] == "#2"
    assert any(line.startswith("- #2 is better than GELU") for line in lines)
    assert (tmp_path / "report" / "effects.png").is_file()


def test_every_run_of_the_finalists_is_in_a_table(tmp_path: Path):
    write_report(tmp_path, STUDY, SETTINGS)
    text = (tmp_path / "report" / "finalists.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 40 and {row["seed"] for row in rows} == {str(seed) for seed in FRESH}
    for row in leaderboard_info(STUDY, SETTINGS).ranked[:4]:
        mine = [float(r["test"]) for r in rows if r["number"] == str(row.trial.number)]
        assert mean(mine) == row.fresh


def test_the_summary_leads_with_the_fresh_scores(tmp_path: Path):
    console = Console(record=True, file=io.StringIO(), width=160)
    print_summary(console, STUDY, SETTINGS, tmp_path)
    text = console.export_text()
    assert re.search(r"# ┃ +fresh ┃ +n ┃ +search ┃", text)
    assert "#2 is better than GELU" in text and "Shrinkage: " in text
