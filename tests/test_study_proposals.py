"""What a study is searched with: its budget, duplicates, gates, and every sampler."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from search.language.fingerprint import fingerprint
from search.language.parser import parse
from search.proposals import HOPELESS, PATIENCE, Proposals
from search.protocol import Rejection
from search.samplers import SAMPLERS, build_sampler, scrambled_van_der_corput
from search.study import Launch
from tests.study_cases import (
    CHOICE,
    PATIENT,
    MakeSpace,
    baselines_trained,
    opened,
    optunas,
    reread,
    trained,
)

# --- proposals -----------------------------------------------------------------------------------


def test_the_budget_counts_what_was_trained(make_space: MakeSpace):
    study = opened(make_space(trials=3))
    baselines_trained(study)
    proposals = Proposals(study, None, PATIENT)
    launches = [proposals.next() for _ in range(4)]
    assert launches[3] is None and not proposals.ended  # three run: wait
    assert launches[0] and launches[1] and launches[2]
    study.finish(launches[0].number, state="rejected", reason="training: no")
    fourth = proposals.next()
    assert fourth is not None
    for launch in (launches[1], launches[2], fourth):
        trained(study, launch)
    assert proposals.next() is None and proposals.ended == "all 3 trials are done"
    assert study.is_complete()
    more = opened(make_space(trials=4))
    assert not more.is_complete()
    assert Proposals(more, None, PATIENT).next() is not None


def test_duplicates_are_caught_before_launch_baselines_included(make_space: MakeSpace):
    study = opened(make_space(scaled=CHOICE, trials=30))
    baselines_trained(study)
    silu = next(t for t in study.trials.values() if t.name == "silu")
    proposals = Proposals(study, None, PATIENT)
    found: list[Launch] = []
    while launch := proposals.next():
        found.append(launch)
        trained(study, launch)
    seen = [fingerprint(parse(launch.expression)) for launch in found]
    assert len(set(seen)) == len(seen)
    # 2 gates × 3 arguments × 2 forms + sin, less SiLU: every one of them, though the budget is 30
    assert len(found) == 2 * 3 * 2 + 1 - 1
    assert proposals.ended == "none of the space's 13 candidates is left untried"
    twice = [t for t in reread(study) if t.state == "duplicate"]
    assert twice and all(t.reason == f"the same function as trial {t.duplicate_of}" for t in twice)
    numbers = {t.duplicate_of for t in twice if t.fingerprint == silu.fingerprint}
    assert numbers <= {silu.number}
    assert all(optunas(study)[t.number].state == TrialState.FAIL for t in twice)


def test_an_exhausted_space_stays_complete(make_space: MakeSpace):
    space = make_space(scaled=CHOICE, trials=30)
    study = opened(space)
    proposals = Proposals(study, None, PATIENT)
    while launch := proposals.next():
        trained(study, launch)
    study = opened(space)
    assert study.is_complete() and "left untried" in study.exhausted


def test_a_sampler_that_repeats_itself_gets_candidates_from_elsewhere(make_space: MakeSpace):
    study = opened(make_space(scaled=CHOICE, trials=30))
    baselines_trained(study)
    proposals = Proposals(study, None, PATIENT)
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        proposals.sampler = optuna.samplers.PartialFixedSampler(
            {"F": "sin(x)"}, optuna.samplers.RandomSampler(seed=0)
        )
    found = []
    while launch := proposals.next():
        found.append(launch.expression)
        trained(study, launch)
    assert found[0] == "sin(x)" and len(found) == 12
    twice = [t for t in study.trials.values() if t.state == "duplicate"]
    assert len(twice) == PATIENCE * 12
    by = {t.user_attrs["candidate"]["by"] for t in optunas(study)}
    assert by == {"baseline", "random", "enumeration"}


def test_rejections_are_counted_and_do_not_count(make_space: MakeSpace):
    study = opened(make_space(trials=4))
    baselines_trained(study)

    def gate(expression: object) -> Rejection | None:
        return Rejection("shape", "it has a gompertz") if "gompertz" in str(expression) else None

    proposals = Proposals(study, gate, PATIENT)
    while launch := proposals.next():
        trained(study, launch)
    counts = study.counts()
    assert counts["complete"] == 4 and counts["rejected"] > 0
    rejected = [t for t in reread(study) if t.state == "rejected"]
    assert {t.reason for t in rejected} == {"shape: it has a gompertz"}


def test_a_search_in_which_nothing_passes_ends(make_space: MakeSpace):
    study = opened(make_space(trials=4))
    baselines_trained(study)
    proposals = Proposals(study, lambda _: Rejection("shape", "no"), PATIENT)
    assert proposals.next() is None
    assert str(HOPELESS) in proposals.ended
    assert study.trained() == 0


# --- samplers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_searches_the_grammar(make_space: MakeSpace, name: str):
    space = make_space(scaled=CHOICE, sampler=name if name != "cmaes" else "tpe", trials=8)
    study = opened(space)
    proposals = Proposals(study, None, PATIENT)
    proposals.sampler = build_sampler(name, 0, 0, 8, space.grammar)
    while launch := proposals.next():
        trained(study, launch, 0.5 + 0.1 * ("gompertz" in launch.expression))
    assert study.trained() == 8


def test_a_search_that_goes_on_does_not_draw_the_same_again(make_space: MakeSpace):
    def drawn(sampler: optuna.samplers.BaseSampler) -> list[float]:
        study = optuna.create_study(sampler=sampler)
        return [study.ask().suggest_float("s", 0, 1) for _ in range(3)]

    assert drawn(build_sampler("random", 0, 0, 8)) == drawn(build_sampler("random", 0, 0, 8))
    assert drawn(build_sampler("random", 0, 0, 8)) != drawn(build_sampler("random", 0, 3, 8))


@pytest.mark.parametrize("seed", [0, 1])
def test_quasi_random_points_are_even_alone_and_together(seed: int):
    points = [
        [scrambled_van_der_corput(i, seed, name) for i in range(256)] for name in ("F", "F/G")
    ]
    for column in points:
        for m in (2, 4, 8):
            for start in range(0, 256, 2**m):
                cells = {int(u * 2**m) for u in column[start : start + 2**m]}
                assert len(cells) == 2**m
    pairs = [(int(4 * a), int(4 * b)) for a, b in zip(*points, strict=True)]
    counts = [pairs.count(pair) for pair in set(pairs)]
    assert len(counts) == 16 and max(counts) <= 2.5 * min(counts)
