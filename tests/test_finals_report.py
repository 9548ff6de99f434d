"""Finalists on the leaderboard, in files and on the terminal."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from search.figures.finals import finals_info, statements
from search.figures.leaderboard import leaderboard_info
from search.figures.report import write_report
from search.records import Trial
from search.statistics import mean, standard_error
from search.summary import print_summary
from tests.finals_cases import (
    BASE,
    FIRST,
    FRESH,
    GELU,
    RELU,
    SECOND,
    SETTINGS,
    THIRD,
    again,
    around,
    found,
    said,
    searched,
)

# --- the leaderboard ------------------------------------------------------------------------------


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


# --- placebos -------------------------------------------------------------------------------------


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


# --- files and terminal ---------------------------------------------------------------------------


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
