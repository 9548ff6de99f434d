"""Rankings of tables, and `python -m search.bench samplers replay`."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from search.benchmarks.contest import compare
from search.benchmarks.ranking import best_rates, spearman, split_half, top_count, values
from search.benchmarks.replay import Conditions, Ground, replay
from search.benchmarks.replay_table import as_json, table
from search.benchmarks.standings import Interval, bootstrap, contest, ratio
from search.benchmarks.table import header_line, row_line, write_table
from search.errors import StudyError
from search.figures.replay import draw_replay, replay_info
from search.records import Run
from search.space.space import load_space
from search.training.rates import best_rate, mean_scores
from tests.table_cases import header, known_table

ROOT = Path(__file__).resolve().parent.parent
TRUTH = np.random.default_rng(5).permutation(60) / 60.0


# --- rankings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_best_rates_and_values_follow_the_rules_of_a_sweep(metric: str):
    rates, draw = (0.01, 0.03, 0.1, 0.3), np.random.default_rng(1)
    about = header(3, rates, metric, default=0.03)
    scores = draw.integers(0, 3, (300, 4, 3)).astype(float)  # few values: many ties
    scores[draw.random(scores.shape) < 0.15] = np.nan
    places, found = best_rates(scores.mean(-1), about), values(scores, about)
    for k, own in enumerate(scores):
        runs = [
            Run(rate, seed, "diverged" if np.isnan(v) else "complete", score=float(v))
            for rate, row in zip(rates, own, strict=True)
            for seed, v in enumerate(row)
        ]
        wanted = best_rate(runs, metric == "accuracy", 0.03)
        assert (None if places[k] < 0 else rates[places[k]]) == wanted
        expected = math.nan if wanted is None else mean_scores(runs)[wanted]
        assert found[k] == pytest.approx(expected, nan_ok=True)
    assert np.isnan(found).any()


@pytest.mark.parametrize(("noise", "seeds"), [(0.5, 4), (1.0, 8), (3.0, 16)])
def test_split_half_finds_a_known_reliability(noise: float, seeds: int):
    draw = np.random.default_rng(2)
    truth = draw.standard_normal((4000, 1, 1))
    scores = truth + noise * draw.standard_normal((4000, 1, seeds))
    found = split_half(scores, header(seeds), splits=20)
    pearson = 1 / (1 + noise**2 / (seeds // 2))  # of the means of two halves
    expected = 6 / math.pi * math.asin(pearson / 2)  # Spearman's, of a normal pair
    # Its standard error with 4,000 functions is at most 0.016.
    assert found.mean == pytest.approx(expected, abs=0.032)
    assert found.low <= found.mean <= found.high
    assert (found.half, found.functions, found.splits) == (seeds // 2, 4000, 20)


def test_noise_alone_ranks_nothing_and_one_seed_cannot_be_split():
    noise = np.random.default_rng(3).standard_normal((2000, 1, 6))
    assert abs(split_half(noise, header(6), splits=20).mean) < 0.06
    assert math.isnan(split_half(noise[..., :1], header(1)).mean)
    assert spearman(np.ones(4), np.arange(4.0)) == 0.0


def test_spearman_is_scipys():
    a, b = np.random.default_rng(4).integers(0, 9, (2, 50)).astype(float)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b)[0], abs=1e-12)


# --- one search ----------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_search_and_another_one_another():
    ground = Ground(known_table(TRUTH, noise=0.05))
    for sampler in ("random", "tpe"):
        one, two, other = (replay(ground, sampler, s, Conditions(25)) for s in (0, 0, 1))
        assert replace(one, seconds=0.0) == replace(two, seconds=0.0)
        assert one.regrets != other.regrets
        assert len(one.regrets) == 25


def test_a_search_without_noise_keeps_the_best_it_has_seen_and_ends_with_the_space():
    trace = replay(Ground(known_table(TRUTH)), "random", 0, Conditions(100))
    assert len(trace.regrets) == 100, "the last value stands for what is left of the budget"
    assert trace.regrets[-1] == 0.0 and math.isfinite(trace.reached)
    assert list(trace.regrets) == sorted(trace.regrets, reverse=True)
    first = int(trace.reached)
    assert trace.regrets[first - 1] == 0.0 and (first == 1 or trace.regrets[first - 2] > 0)


def test_random_search_reaches_the_top_as_chance_has_it():
    """Without replacement, 20 of 60 have the best among them in a third of the searches."""
    ground = Ground(known_table(TRUTH))
    assert len(ground.top) == top_count(60) == 1
    traces = [replay(ground, "random", seed, Conditions(20)) for seed in range(60)]
    hits = sum(math.isfinite(trace.reached) for trace in traces)
    assert stats.binomtest(hits, 60, 20 / 60).pvalue > 0.001
    assert hits == sum(trace.regrets[-1] == 0.0 for trace in traces)


def test_what_a_gate_refused_costs_no_trial_and_what_diverged_does():
    refused = {3: "finite: f(9) is inf", 4: "training: no better than a constant"}
    ground = Ground(known_table(TRUTH, rejected=refused, diverged=(7, 8)))
    trace = replay(ground, "random", 0, Conditions(60, seen=3))
    assert len(ground.truth) == 58
    assert trace.reached <= 58 and trace.refused >= 2
    assert trace.regrets[57] == trace.regrets[-1] == 0.0
    # Without an eligible rate over all seeds, the truth is as bad as the worst.
    assert ground.truth[ground.places[ground.table.rows[7].fingerprint]] == ground.truth.max()


def test_parallel_trials_wait_for_each_other():
    ground = Ground(known_table(TRUTH, noise=0.05))
    alone, four = (replay(ground, "tpe", 0, Conditions(30, parallel=w)) for w in (1, 4))
    assert len(four.regrets) == 30
    # The start is quasi-random either way; the model's proposals then know less.
    assert alone.regrets[:10] == four.regrets[:10] and alone.regrets != four.regrets


def test_a_search_sees_the_mean_of_few_seeds_and_regret_is_of_all():
    ground = Ground(known_table(TRUTH, noise=0.2))
    observed, rates = ground.seen(Conditions(1, seen=2), seed=3)
    pairs = [values(ground.scores[:, :, [a, b]], ground.header) for a in range(8) for b in range(a)]
    assert sum(np.allclose(observed, pair) for pair in pairs) == 1
    assert (rates == 0).all()
    truth = ground.scores.mean((1, 2))
    np.testing.assert_allclose(ground.truth, truth.max() - truth, atol=1e-12)


# --- many searches -------------------------------------------------------------------------------


def test_the_bootstrap_is_scipys():
    sample = np.random.default_rng(6).exponential(1.0, 80)
    ours = bootstrap(lambda x: np.mean(x, -1), sample)
    theirs = stats.bootstrap(
        (sample,), np.mean, method="percentile", n_resamples=20_000, rng=0
    ).confidence_interval
    error = sample.std() / math.sqrt(80)
    assert ours.value == sample.mean()
    # Both quantiles come from finitely many draws: a few per cent of the standard error.
    assert ours.low == pytest.approx(theirs.low, abs=0.15 * error)
    assert ours.high == pytest.approx(theirs.high, abs=0.15 * error)


def test_what_was_never_reached_is_neither_a_number_nor_nan():
    median = bootstrap(lambda x: np.median(x, -1), np.array([3.0] * 5 + [math.inf] * 4))
    assert (median.value, median.low, median.high) == (3.0, 3.0, math.inf)
    own, peer = np.array([4.0] * 9), np.array([math.inf] * 9)
    assert ratio(own, 2 * own) == Interval(0.5, 0.5, 0.5)
    assert ratio(own, peer) == Interval(0.0, 0.0, 0.0)
    assert ratio(peer, peer) is None


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    known = known_table(TRUTH, noise=0.05)
    path = tmp_path_factory.mktemp("tables") / "known.jsonl.gz"
    write_table(path, [header_line(known.header), *map(row_line, known.rows)])
    return path


def test_the_command_prints_a_table_and_draws_it_without_ray(path: Path):
    blocked = {"ray", "triton"}
    code = (
        "import sys\n"
        "class Wall:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {blocked!r}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Wall())\n"
        "from search.bench import main\n"
        "if __name__ == '__main__':\n"
        "    main()\n"
    )
    script = path.parent / "walled.py"
    script.write_text(code, encoding="utf-8")
    words = f"samplers replay {path} --samplers random tpe --seeds 4 --trials 12 --workers 1 -o out"
    run = subprocess.run(
        [sys.executable, str(script), *words.split()],
        capture_output=True,
        text=True,
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, run.stderr
    assert "known: 60 functions, top 1 % are 1; 4 searches by 12 trials; they see 2" in run.stdout
    text = (path.parent / "out" / "replay.json").read_text(encoding="utf-8")
    assert (path.parent / "out" / "replay.png").read_bytes().startswith(b"\x89PNG")
    again = compare([path], ["random", "tpe"], 4, Conditions(12), workers=1)
    assert _timeless(json.loads(text)) == _timeless(json.loads(as_json(again)))
    (panel,) = replay_info(text)
    assert [line.sampler for line in panel.lines] == ["random", "tpe"]
    first = again[0].standings[0]
    assert panel.lines[0].regret == pytest.approx([at.value for at in first.regret], rel=1e-5)
    assert draw_replay(text).axes[0].get_title(loc="left") == "known: 60 functions"


def _timeless(data: dict) -> list[dict]:
    for found in data["contests"]:
        for row in found["standings"]:
            del row["seconds"]
    return data["contests"]


def test_ratios_are_told_where_there_is_something_to_compare():
    ground = Ground(known_table(TRUTH))
    conditions = Conditions(60)
    traces = {s: [replay(ground, s, k, conditions) for k in range(2)] for s in ("random", "qmc")}
    found = contest("known.jsonl.gz", ground, traces, conditions)
    lines = table([found]).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["sampler", "random", "qmc"]
    medians = {s: np.median([t.reached for t in traces[s]]) for s in traces}
    own = found.standings[1].ratios["random"]
    assert own is not None and own.value == medians["qmc"] / medians["random"]
    assert found.standings[0].ratios == {} and found.reliability == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("samplers", "seeds", "conditions", "said"),
    [
        (["tqe"], 1, Conditions(5), "--samplers: unknown sampler 'tqe'; did you mean 'tpe'?"),
        (["tpe"], 0, Conditions(5), "--seeds: got 0; expected a whole number ≥ 1"),
        (["tpe"], 1, Conditions(0), "--trials: got 0; expected a whole number ≥ 1"),
        (["tpe"], 1, Conditions(5, parallel=0), "--parallel: got 0; expected a whole number ≥ 1"),
        (["tpe"], 1, Conditions(5, seen=9), "--seen: got 9; expected at most the 8 seeds of "),
    ],
)
def test_what_cannot_be_replayed_is_refused_in_one_line(
    path: Path, samplers: list[str], seeds: int, conditions: Conditions, said: str
):
    with pytest.raises(StudyError) as caught:
        compare([path], samplers, seeds, conditions, workers=1)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def test_a_table_of_another_space_is_refused(path: Path):
    space = load_space(ROOT / "spaces" / "gated_table.yaml")
    with pytest.raises(StudyError) as caught:
        compare([path], ["random"], 1, Conditions(5), workers=1, space=space)
    assert "not a table of" in str(caught.value) and "activation" in str(caught.value)
