"""Finalists and placebos: who is chosen, and how they stand in a study."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from search.errors import SpaceError
from search.finalists import Entered, chosen, entries, final_of, fresh_seeds, own_seeds
from search.progress import Goal, line, standing
from search.proposals import Proposals
from search.records import Run, to_json, trial_from_json
from search.space.settings import Finalists
from search.space.space import load_space
from tests.rings import (
    PATIENT,
    TRIALS,
    a_run,
    opened,
    reread,
    searched,
    small,
    trained,
    trial,
    write,
)


def test_fresh_seeds_are_never_those_of_the_search():
    assert fresh_seeds(3, (0, 1)) == (2, 3, 4)
    assert fresh_seeds(3, (7, 2)) == (8, 9, 10)
    assert fresh_seeds(3, (2**32 - 1, 0)) == (1, 2, 3)


def test_the_best_and_every_baseline_and_placebo_with_a_score_are_chosen():
    assert [t.number for t in chosen(TRIALS, 2, True)] == [-1, 1, 2, -2]
    assert [t.number for t in chosen(TRIALS, 2, False)] == [-1, 0, 2, -2]
    assert [t.number for t in chosen(TRIALS, 0, True)] == [-1, -2]
    assert len(chosen(TRIALS, 99, True)) == 6  # fewer than there are places
    assert chosen([], 3, True) == []


def test_placebos_have_seeds_of_their_own():
    placebos = [trial(-n, 0.9, "placebo", name=f"placebo {n}") for n in range(1, 30)]
    seeds = [own_seeds(t, (0, 1, *fresh_seeds(10, (0, 1)))) for t in (*placebos, TRIALS[1])]
    assert len({seed for own in seeds for seed in own}) == 30 * 12
    assert seeds[-1][:3] == (0, 1, 2)


def test_only_what_is_missing_is_entered():
    wanted = Finalists(k=1, seeds=3)
    first = entries(TRIALS, wanted, (0, 1), {}, True)
    assert [(e.trial.number, e.seeds) for e in first[:2]] == [
        (-1, (2, 3, 4)),
        (1, (2, 3, 4)),
    ]
    entered = {Entered(e.trial.number, e.budget, e.task): e.seeds for e in first}
    assert entries(TRIALS, wanted, (0, 1), entered, True) == []
    more = entries(TRIALS, Finalists(k=2, seeds=4), (0, 1), entered, True)
    assert [(e.trial.number, len(e.seeds)) for e in more] == [(-1, 1), (1, 1), (2, 4), (-2, 1)]
    longer = entries(TRIALS, replace(wanted, budget=2.0), (0, 1), entered, True)
    assert [len(e.seeds) for e in longer] == [3, 3, 3]


def test_candidates_and_baselines_are_entered_on_further_tasks():
    found = entries(TRIALS, Finalists(k=1, seeds=2, tasks=("mnist",)), (0, 1), {}, True)
    assert [(e.task, e.trial.number) for e in found] == [
        ("", -1), ("", 1), ("", -2), ("mnist", -1), ("mnist", 1)
    ]  # fmt: skip


def test_the_other_rates_are_entered_for_a_heatmap_and_only_once():
    runs = tuple(Run(rate, 0, "complete", score=0.9) for rate in (0.3, 0.1, 0.03))
    trials = [replace(each, runs=runs) for each in TRIALS]
    wanted = Finalists(k=1, seeds=2, sweep=True)
    found = entries(trials, wanted, (0, 1), {}, True)
    assert [(e.trial.number, e.rates) for e in found if e.rates] == [
        (-1, (0.03, 0.3)), (1, (0.03, 0.3))
    ]  # fmt: skip
    plain = entries(trials, replace(wanted, sweep=False), (0, 1), {}, True)
    assert [e for e in found if not e.rates] == plain
    entered = {Entered(e.trial.number, e.budget, e.task): e.seeds for e in plain}
    assert all(e.rates for e in entries(trials, wanted, (0, 1), entered, True))
    entered |= {Entered(e.trial.number, e.budget, e.task, True): e.seeds for e in found if e.rates}
    assert entries(trials, wanted, (0, 1), entered, True) == []


def test_a_final_is_the_union_of_its_runs_under_common_seeds():
    placebo = TRIALS[0]
    own = own_seeds(placebo, (1000, 1001, 1002))
    runs = [Run(0.1, seed, "complete", score=0.5, test=0.9) for seed in own[:2]]
    lost = Run(0.1, own[2], "diverged", "nan")
    other = Run(0.1, own[0], "complete", test=0.1)
    parts = [
        trial(-5, 0.9, "finalist", of=-2, seeds=own[:2], runs=tuple(runs)),
        trial(-6, None, "finalist", of=-2, seeds=own[2:], runs=(lost,)),
        trial(-4, 0.1, "finalist", of=-2, seeds=own[:1], budget=2.0, runs=(other,)),
        trial(-7, 0.1, "finalist", of=-2, seeds=own[:1], task="mnist", runs=(other,)),
    ]
    final = final_of(replace(placebo, finals=tuple(parts)), 1.0)
    assert final is not None
    assert final.outcomes == {1000: 0.9, 1001: 0.9, 1002: None}
    assert (final.n, final.diverged, final.score, final.standard_error) == (2, 1, None, None)
    assert final_of(placebo, 1.0) is None
    kept = trial_from_json(to_json(replace(placebo, finals=tuple(parts))))
    assert final_of(kept, 1.0) == final


def test_finalists_follow_the_search_with_its_best_rates(tmp_path: Path):
    study = opened(small(tmp_path))
    launches = searched(study)
    assert [x.origin for x in launches] == ["baseline"] * 2 + ["search"] * 2 + ["finalist"] * 3
    assert {(x.rate, x.seeds, x.budget) for x in launches[4:]} == {(0.3, (2, 3, 4), 1.0)}
    found = reread(study.space)
    finals = {t.number: [r.seed for f in t.finals for r in f.runs] for t in found}
    best = max((t for t in found if t.origin == "search"), key=lambda t: t.score or 0)
    expected = {t.number for t in found if t.origin == "baseline"} | {best.number}
    assert finals == {t.number: [2, 3, 4] * (t.number in expected) for t in found}
    assert all(f.best_rate == 0.3 and f.of == t.number for t in found for f in t.finals)
    assert study.is_complete() and opened(study.space).is_complete()
    # No sampler learns from them.
    assert len(study._database.search.get_trials()) == 3
    assert {t.state for t in study._database.baselines.get_trials()} == {TrialState.COMPLETE}


def test_finalists_wait_until_every_score_is_known(tmp_path: Path):
    study = opened(small(tmp_path))
    proposals = Proposals(study, None, PATIENT)
    launches = [proposals.next() for _ in range(4)]
    for launch in launches[1:]:
        assert launch is not None
        trained(study, launch)
    assert proposals.next() is None and not proposals.ended  # the first one runs
    assert launches[0] is not None
    trained(study, launches[0])
    final = proposals.next()
    assert final is not None and final.origin == "finalist"


def test_finalists_may_be_added_and_raised_in_a_complete_study(tmp_path: Path):
    plain = load_space(write(tmp_path), ())
    searched(opened(plain))
    before = reread(plain)
    assert all(not t.finals for t in before)
    for settings, count in (
        ("finalists={k: 1, seeds: 3}", 3),
        ("finalists={k: 1, seeds: 3}", 0),
        ("finalists={k: 2, seeds: 3}", 1),
        ("finalists={k: 2, seeds: 5}", 4),
        ("finalists={k: 2, seeds: 5, budget: 2}", 4),
    ):
        study = opened(load_space(write(tmp_path), (settings,)))
        assert study.is_complete() == (count == 0)
        launches = searched(study)
        assert [x.origin for x in launches] == ["finalist"] * count
        assert [replace(t, finals=()) for t in reread(plain)] == before
    budgets = Counter(f.budget for t in reread(plain) for f in t.finals)
    assert budgets == {1.0: 8, 2.0: 4}


def test_a_killed_finalist_goes_on_with_its_runs(tmp_path: Path):
    space = small(tmp_path)
    study = opened(space)
    proposals = Proposals(study, None, PATIENT)
    for _ in range(4):
        launch = proposals.next()
        assert launch is not None
        trained(study, launch)
    launch = proposals.next()
    assert launch is not None and launch.rate == 0.3
    study.add_run(launch.number, a_run(2, 0.9, 0.3))
    for _ in range(2):  # killed twice
        study = opened(space)
    assert not study.is_complete()
    rest = searched(study)
    assert [x.origin for x in rest] == ["finalist"] * 3
    assert sorted(len(x.runs) for x in rest) == [0, 0, 1]
    seeds = [[r.seed for f in t.finals for r in f.runs] for t in reread(space) if t.finals]
    assert seeds == [[2, 3, 4]] * 3


def test_baselines_fill_the_slots_while_the_last_candidate_trains(tmp_path: Path):
    study = opened(small(tmp_path))
    proposals = Proposals(study, None, PATIENT)
    for _ in range(2):
        launch = proposals.next()
        assert launch is not None and launch.origin == "baseline"
        trained(study, launch)
    candidates = [proposals.next(), proposals.next()]
    assert candidates[0] and candidates[1]
    trained(study, candidates[0])
    early = [proposals.next(), proposals.next()]
    assert early[0] and early[1] and proposals.next() is None and not proposals.ended
    baselines = {t.number for t in study.trials.values() if t.origin == "baseline"}
    assert {study.trials[x.number].of for x in early if x} == baselines
    trained(study, early[0])
    trained(study, candidates[1])
    assert proposals.next() is None and not proposals.ended  # the other still runs
    trained(study, early[1])
    last = proposals.next()
    assert last is not None and study.trials[last.number].of not in baselines
    trained(study, last)
    assert proposals.next() is None and proposals.ended
    assert opened(small(tmp_path)).is_complete()


def test_placebos_are_candidates_that_only_the_duplicate_check_lets_pass(tmp_path: Path):
    study = opened(small(tmp_path, "placebos=2"))
    launches = searched(study)
    origins = Counter(x.origin for x in launches)
    assert origins == {"baseline": 2, "placebo": 2, "search": 2, "finalist": 5}
    placebos = [x for x in launches if x.origin == "placebo"]
    assert {x.expression for x in placebos} == {"relu(x)"}
    assert len({seed for x in placebos for seed in x.seeds} | {0, 1}) == 6
    assert study.trained() == 2  # the budget is the candidates'
    assert study.seen()[study.trials[placebos[0].number].fingerprint] == -1  # the baseline
    more = opened(small(tmp_path, "placebos=3"))
    assert Counter(x.origin for x in searched(more)) == {"placebo": 1, "finalist": 1}


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("finalists={k: -1}", "finalists.k: expected a whole number ≥ 0, got -1"),
        ("finalists={seeds: 0}", "finalists.seeds: expected a whole number ≥ 1, got 0"),
        ("finalists={budget: 0.5}", "finalists.budget: expected a number ≥ 1, got 0.5"),
        ("finalists={smallest_gain: 0}", "smallest_gain: expected a number > 0, got 0"),
        ("finalists={sweep: 2}", "finalists.sweep: expected true or false, got 2"),
        ("finalists={seed: 3}", "unknown key 'finalists.seed'; did you mean 'seeds'?"),
        ("finalists=many", "finalists: expected a mapping of keys and values, got 'many'"),
        (
            "finalists={tasks: [mnst]}",
            "task: unknown task 'mnst'; did you mean 'mnist'?; or a path that ends in .py",
        ),
        ("finalists={tasks: task.py}", "finalists.tasks: 'task.py' is the search's own"),
        ("placebos=-1", "placebos: expected a whole number ≥ 0, got -1"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, setting: str, told: str):
    with pytest.raises(SpaceError) as caught:
        load_space(write(tmp_path), (setting,))
    assert caught.value.problems[0].endswith(told)


def test_placebos_need_relu_to_be_compared_with(tmp_path: Path):
    with pytest.raises(SpaceError, match="relu among the baselines"):
        load_space(write(tmp_path), ("placebos=2", "baselines=[silu]"))


def test_neither_is_part_of_what_identifies_a_study(tmp_path: Path):
    plain = load_space(write(tmp_path), ())
    other = load_space(write(tmp_path), ("finalists={k: 9}", "placebos=2"))
    assert other.definition() == plain.definition()
    assert other.finalists == Finalists(9, 10, 1.0) and other.placebos == 2


def test_finalists_are_counted_as_they_are_shown():
    goal = Goal("rings", "accuracy", True, 2, 1, placebos=1, finalists=4)
    ended = [
        *TRIALS[:4],
        trial(-8, 0.955, "finalist", of=1, seconds=3.0),
        trial(-9, 0.95, "finalist", of=1, seconds=3.0),
    ]
    now = standing(ended, goal)
    assert (now.trained, now.baselines, now.placebos, now.finalists) == (2, 1, 1, 1)
    assert goal.trials == 8
    text = line(ended[-1], now, goal)
    assert text.startswith("finalist 1/4  95.00 % on the test split at rate 0.1  x * sigmoid(x)")
    other = replace(ended[-1], task="text", score=1.5, environment={"metric": "loss"})
    assert "loss 1.5 on the test split of text at rate 0.1" in line(other, now, goal)
