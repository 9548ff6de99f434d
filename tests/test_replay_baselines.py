"""Replays that begin with the table's baselines, as a study does."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from search.benchmarks import sampler_steps
from search.benchmarks.contest import compare
from search.benchmarks.replay import Conditions, Ground, replay
from search.benchmarks.replay_table import as_json
from search.benchmarks.replay_table import table as printed
from search.benchmarks.standings import bootstrap
from search.benchmarks.table import Row, Table, header_line, row_line, write_table
from search.errors import StudyError
from search.figures.replay import draw_replay, replay_info
from search.language.fingerprint import fingerprint
from search.language.parser import parse
from search.proposals import Proposals
from search.samplers import build_sampler
from tests.study_cases import MakeSpace, opened, trained
from tests.table_cases import known_table

TRUTH = np.random.default_rng(5).permutation(60) / 60.0
BEST = int(TRUTH.argmax())


def told_table(noise: float = 0.0) -> Table:
    """With two baselines: the best function of the space, and one that is none of it."""
    known = known_table(TRUTH, noise=noise)
    relu = parse("relu(x)")
    own, scores = fingerprint(relu), np.full((1, 8, 1), 0.4)
    other = Row("relu(x)", own, {}, "complete", "", scores, -scores, cost=1.0, baseline="relu")
    baselines = {"relu": own, "best": known.rows[BEST].fingerprint}
    return Table(replace(known.header, baselines=baselines), known.rows, (other,))


def command(*words: str) -> None:
    """`bench samplers` with these words."""
    parser = ArgumentParser()
    sampler_steps.add_arguments(parser)
    sampler_steps.take(parser.parse_args(words))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    known = told_table(0.05)
    path = tmp_path_factory.mktemp("tables") / "told.jsonl.gz"
    rows = map(row_line, (*known.rows, *known.others))
    write_table(path, [header_line(known.header), *rows])
    return path


def test_a_baseline_is_nobodys_goal():
    ground = Ground(told_table())
    assert ground.top == {int(np.argsort(-TRUTH)[1])}
    assert Ground(known_table(TRUTH)).top == {BEST}


def test_baselines_cost_no_trial_and_are_not_trained_again():
    """The 59 candidates that are left end the space, one of them is the best of those."""
    ground = Ground(told_table())
    first = replay(ground, "random", 0, Conditions(60, baselines=True, finalists=1))
    without = replay(ground, "random", 0, Conditions(60, finalists=1))
    assert len(first.regrets) == len(without.regrets) == 60
    assert without.regrets[-1] == 0.0 and first.regrets[-1] == pytest.approx(1 / 60)
    assert 1 <= first.reached <= 59


def test_behaviour_needs_no_start_where_baselines_are_enough():
    """Two are told here, and four values are asked for: two trials are drawn instead of four."""
    ground = Ground(told_table(0.05))
    drawn = [replay(ground, "qmc", 3, Conditions(16, baselines=told)) for told in (True, False)]
    found = [replay(ground, "behaviour", 3, Conditions(16, baselines=t)) for t in (True, False)]
    assert found[1].regrets[:4] == drawn[1].regrets[:4]
    assert found[0].regrets[:2] == drawn[0].regrets[:2]
    again = replay(ground, "behaviour", 3, Conditions(16, baselines=True))
    assert replace(again, seconds=0.0) == replace(found[0], seconds=0.0)


def test_a_study_shows_its_sampler_the_baselines_beside_the_grammar(make_space: MakeSpace):
    """ReLU is none of its functions. Placebos lie beside it, and nobody learns from those."""
    space = make_space(sampler="behaviour", trials=16)
    study = opened(replace(space, placebos=1))
    while launch := study.next_waiting():
        trained(study, launch, 0.8)
    assert space.grammar is not None
    sampler = build_sampler("behaviour", 3, 0, 16, space.grammar, study.baselines)
    blind = build_sampler("behaviour", 3, 0, 16, space.grammar)
    read = [each.history.read(study._database.search, 99) for each in (sampler, blind)]  # pyright: ignore[reportAttributeAccessIssue]
    assert [past.expression for past in read[0]] == [parse("relu(x)"), parse("x * sigmoid(x)")]
    assert [past.number for past in read[0]] == [-1, 0]
    assert [past.values for past in read[0]] == [(0.8,), (0.8,)]
    assert read[0][1:] == read[1]


def test_a_study_of_four_baselines_begins_with_the_model(make_space: MakeSpace):
    """Three of them are no functions of the grammar."""
    space = make_space(sampler="behaviour", trials=16)
    study = opened(replace(space, baselines=("relu", "tanh", "elu", "silu")))
    proposals = Proposals(study, None)
    for score in (0.5, 0.6, 0.7, 0.8):
        launch = proposals.next()
        assert launch is not None and launch.origin == "baseline"
        trained(study, launch, score)
    launch = proposals.next()
    assert launch is not None and launch.origin == "search"
    (asked,) = [t for t in study._database.search.get_trials() if "proposal" in t.user_attrs]
    assert asked.user_attrs["proposal"]["by"] == "behaviour"


def test_searches_that_see_the_same_are_no_independent_evidence():
    """Ten values, each of them twenty times: the interval is that of ten."""
    sample = np.random.default_rng(6).standard_normal(10)
    copies, groups = np.tile(sample, 20), tuple(range(10)) * 20
    alone = bootstrap(lambda x: np.mean(x, -1), sample)
    naive = bootstrap(lambda x: np.mean(x, -1), copies)
    honest = bootstrap(lambda x: np.mean(x, -1), copies, groups)
    widths = [each.high - each.low for each in (alone, honest, naive)]
    assert widths[1] == pytest.approx(widths[0], rel=0.05)
    assert widths[2] < 0.4 * widths[0]


def test_both_modes_are_one_picture_with_what_rungs_spare(
    path: Path, capsys: pytest.CaptureFixture[str]
):
    words = f"replay {path} --samplers random tpe --seeds 3 --trials 9 --workers 1"
    command(*words.split(), "--promotion", "-o", str(path.parent / "out"))
    shown = capsys.readouterr().out
    assert "3 searches by 9 trials; 2 baselines first; they see 2 seeds, 3 different" in shown
    assert "and if the baselines were counted" in shown and "promotion: none" in shown
    text = (path.parent / "out" / "replay.json").read_text(encoding="utf-8")
    first, without = json.loads(text)["contests"]
    assert (first["baselines"], without["baselines"]) == (["relu", "best"], [])
    assert first["conditions"]["baselines"] and not without["conditions"]["baselines"]
    (panel,) = replay_info(text)
    assert panel.baselines == 2 and panel.promotion == "too few checkpoints for rungs"
    for line, row, other in zip(panel.lines, first["standings"], without["standings"], strict=True):
        assert line.without is not None
        values = [
            np.inf if r["median"]["value"] is None else r["median"]["value"] for r in (row, other)
        ]
        assert [line.reached.value, line.without.value] == values
    figure = draw_replay(text)
    assert figure.axes[0].get_xlabel() == "trials, after 2 baselines"
    assert "○ without them" in figure.axes[1].get_xlabel()


def test_ratios_that_count_the_baselines_are_nearer_to_one(path: Path):
    (found,) = compare([path], ["random", "qmc"], 5, Conditions(60, baselines=True), workers=1)
    own = found.standings[1]
    plain, counted = own.ratios["random"], own.counted["random"]
    medians = [np.median(each.reached) for each in found.standings]
    assert plain is not None and plain.value == medians[1] / medians[0]
    assert counted is not None and counted.value == (medians[1] + 2) / (medians[0] + 2)
    assert json.loads(as_json([found]))["contests"][0]["draws"] <= 5
    assert printed([found]).count("if the baselines were counted") == 1


def test_baselines_that_no_table_has_are_asked_for_in_vain(tmp_path: Path):
    known = known_table(TRUTH)
    path = tmp_path / "known.jsonl.gz"
    write_table(path, [header_line(known.header), *map(row_line, known.rows)])
    with pytest.raises(StudyError, match="--baselines: first, and no table has any; expected"):
        command("replay", str(path), "--baselines", "first", "--workers", "1")
