"""Samplers of whole derivations, and the searches they make."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from search.language.evaluate import evaluate
from search.language.expression import Expression
from search.language.fingerprint import fingerprint
from search.language.parser import parse
from search.samplers import build_sampler
from search.samplers.behaviour import BehaviourModel, observations, predicted_costs
from search.samplers.derivations import below, crossed, drawn, expansions, mutated, rule_of
from search.samplers.features import behaviour
from search.samplers.history import Outcome, Past
from search.space import Grammar, parse_grammar
from tests.sampler_cases import DEEP, FINITE, OURS


@pytest.fixture
def deep() -> Grammar:
    return parse_grammar(DEEP, 5)


# --- derivations ----------------------------------------------------------------------------------


def test_what_is_drawn_mutated_or_crossed_is_of_the_grammar(deep: Grammar):
    rng = np.random.default_rng(0)
    first, changed = drawn(deep, rng), 0
    for _ in range(300):
        second = drawn(deep, rng)
        child = mutated(deep, first.choices, rng)
        both = crossed(deep, child.choices, second.choices, rng)
        for candidate in (second, child, *([both] if both else [])):
            again = deep.derive(candidate.choices)  # refuses what is missing, left over, off range
            assert again.expression == candidate.expression
        changed += child.choices != first.choices
        first = both or child
    assert changed == 300


def test_a_mutation_keeps_what_is_not_below_the_choice_it_changes(deep: Grammar):
    rng, structural = np.random.default_rng(1), 0
    for _ in range(200):
        parent = drawn(deep, rng)
        child = mutated(deep, parent.choices, rng)
        other = [p for p in parent.choices if child.choices.get(p) != parent.choices[p]]
        # The highest choice that differs is the one that was changed.
        top = min(other, key=len)
        assert all(below(path, top) or path == top for path in other)
        structural += isinstance(parent.choices[top], str)
    assert 50 < structural < 190  # and the others numbers


def test_a_number_takes_a_local_step_inside_its_range():
    grammar = parse_grammar({"F": ["sin(s * x) where s in log[0.01, 100]"]}, 1)
    rng = np.random.default_rng(2)
    path = "F[0].s"
    steps = [
        np.log(mutated(grammar, {path: 1.0}, rng).choices[path]) / np.log(1e4) for _ in range(400)
    ]
    assert abs(np.mean(steps)) < 0.03 and 0.12 < np.std(steps) < 0.18
    ends = [mutated(grammar, {path: 100.0}, rng).choices[path] for _ in range(100)]
    assert max(ends) <= 100 and min(ends) >= 0.01


def test_a_crossing_takes_a_subtree_of_the_same_rule():
    grammar = parse_grammar(FINITE, 3)
    scaled: dict[str, Any] = {"F/G/ARG": "s * x where s in {0.5, 1, 2, 4}", "F/G/ARG[0].s": 4.0}
    first = {"F": "x * G", "F/G": "sigmoid(ARG)", **scaled}
    second = {**first, "F/G": "gompertz(ARG)", "F/G/ARG[0].s": 0.5}
    rng = np.random.default_rng(3)
    children = [crossed(grammar, first, second, rng) for _ in range(40)]
    found = {str(child.expression) for child in children if child}
    assert found == {"x * gompertz(0.5 * x)", "x * sigmoid(0.5 * x)"}
    assert expansions(first) == ["F", "F/G", "F/G/ARG"]
    assert [rule_of(path) for path in ("F/G#2/ARG", "F/G#2")] == ["ARG", "G"]


# --- searches -------------------------------------------------------------------------------------


@dataclass
class Target:
    """A score that is smooth in what a candidate does, with noise of its own: known optimum."""

    grammar: Grammar
    text: str = "0.8 * x * sigmoid(1.9 * x + 0.3) + 0.2 * x"

    def __post_init__(self) -> None:
        x = np.linspace(-3, 3, 41)
        wanted = evaluate(parse(self.text).body, {"x": x})
        rng = np.random.default_rng(8)
        self.scores: dict[str, float] = {}
        self.truth: dict[str, float] = {}
        for candidate in self.grammar.candidates():
            found = evaluate(candidate.expression.body, {"x": x}, candidate.expression.initial)
            key = fingerprint(candidate.expression)
            self.truth[key] = -float(np.abs(found - wanted).mean())
            self.scores[key] = self.truth[key] + 0.01 * rng.standard_normal()
        self.top = set(sorted(self.truth, key=lambda key: -self.truth[key])[:5])


@pytest.fixture(scope="module")
def target() -> Target:
    return Target(parse_grammar(FINITE, 3))


def new_study(sampler: optuna.samplers.BaseSampler, maximize: bool = True) -> optuna.Study:
    """A real study in memory; quiet."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    direction = "maximize" if maximize else "minimize"
    return optuna.create_study(direction=direction, sampler=sampler)


def reached(name: str, target: Target, seed: int, most: int = 80) -> int:
    """Trials until one of the top: known functions are told as failed, and not counted."""
    study = new_study(build_sampler(name, seed, 0, 100, target.grammar))
    seen: set[str] = set()
    while len(seen) < most:
        trial = study.ask()
        key = fingerprint(target.grammar.sample(trial).expression)
        if key in seen:
            study.tell(trial, state=TrialState.FAIL)
            continue
        seen.add(key)
        study.tell(trial, target.scores[key])
        if key in target.top:
            break
    return len(seen)


def test_both_find_the_top_sooner_than_random(target: Target):
    seeds = range(20)
    found = {name: [reached(name, target, s) for s in seeds] for name in (*OURS, "random")}
    medians = {name: np.median(trials) for name, trials in found.items()}
    assert medians["behaviour"] <= medians["random"] / 3, found
    assert medians["evolution"] <= medians["random"] / 1.3, found


def asked(
    study: optuna.Study, grammar: Grammar, sampler: optuna.samplers.BaseSampler
) -> tuple[optuna.Trial, Expression]:
    study.sampler = sampler
    trial = study.ask()
    return trial, grammar.sample(trial).expression


def searched(name: str, target: Target, trials: int, again: int = 10**9) -> list[str]:
    """The candidates of a search, whose sampler is built anew every `again` trials."""
    study = new_study(build_sampler(name, 5, 0, 40, target.grammar))
    found: list[str] = []
    for number in range(trials):
        fresh = number % again == 0
        sampler = build_sampler(name, 5, 0, 40, target.grammar) if fresh else study.sampler
        trial, expression = asked(study, target.grammar, sampler)
        study.tell(trial, target.scores[fingerprint(expression)])
        found.append(str(expression))
    return found


@pytest.mark.parametrize("name", OURS)
def test_a_restart_changes_nothing(target: Target, name: str):
    assert searched(name, target, 24, again=5) == searched(name, target, 24)


@pytest.mark.parametrize("name", OURS)
def test_a_larger_space_is_searched_alike_after_a_restart(deep: Grammar, name: str):
    """With ranges, recursion and a pool that changes with every trial."""

    def candidates(again: int) -> list[str]:
        study = new_study(build_sampler(name, 6, 0, 40, deep))
        found = []
        for number in range(14):
            fresh = number % again == 0
            sampler = build_sampler(name, 6, 0, 40, deep) if fresh else study.sampler
            trial, expression = asked(study, deep, sampler)
            study.tell(trial, -len(str(expression)))
            found.append(str(expression))
        return found

    whole = candidates(10**9)
    assert candidates(6) == whole
    assert len(set(whole[10:])) == 4


@pytest.mark.parametrize("name", OURS)
def test_minimizing_is_maximizing_the_negative(target: Target, name: str):
    found: list[list[str]] = []
    for maximize in (True, False):
        study = new_study(build_sampler(name, 7, 0, 40, target.grammar), maximize)
        sign = 1 if maximize else -1
        texts = []
        for _ in range(16):
            trial, expression = asked(study, target.grammar, study.sampler)
            study.tell(trial, sign * target.scores[fingerprint(expression)])
            texts.append(str(expression))
        found.append(texts)
    assert found[0] == found[1]


@pytest.mark.parametrize("name", OURS)
def test_parallel_trials_are_different_functions(target: Target, name: str):
    study = new_study(build_sampler(name, 8, 0, 100, target.grammar))
    seen: set[str] = set()
    for _ in range(12):
        trial, expression = asked(study, target.grammar, study.sampler)
        study.tell(trial, target.scores[fingerprint(expression)])
        seen.add(fingerprint(expression))
    at_once = [asked(study, target.grammar, study.sampler)[1] for _ in range(8)]
    fresh = {fingerprint(expression) for expression in at_once}
    assert len(fresh) == 8 and not fresh & seen


@pytest.mark.parametrize("name", OURS)
def test_what_is_refused_or_diverges_is_not_repeated(target: Target, name: str):
    """The worse half gets no value: nothing of it comes twice, once the sampler is at work."""
    study = new_study(build_sampler(name, 9, 0, 100, target.grammar))
    median = np.median(list(target.truth.values()))
    keys = []
    for _ in range(60):
        trial, expression = asked(study, target.grammar, study.sampler)
        keys.append(fingerprint(expression))
        if target.truth[keys[-1]] < median:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, target.scores[keys[-1]])
    assert len(set(keys[20:])) == 40 and not set(keys[20:]) & set(keys[:20])
    assert sum(target.truth[key] < median for key in keys[20:]) <= 13  # at random 20


def past(number: int, text: str, outcome: Outcome, score: float = 0.0) -> Past:
    values = (score,) if outcome == "value" else ()
    return Past(number, {}, parse(text), fingerprint(parse(text)), outcome, values)


def test_the_model_learns_from_refusals():
    told = [past(k, f"x * sigmoid({k + 1} * x)", "value", k / 10) for k in range(5)]
    refused = past(5, "x * exp(-(x) ** 2)", "bad")
    twice = past(6, "x * sigmoid(x)", "bad")  # a duplicate of the first, told as failed
    running = past(7, "sin(x)", "running")
    data = observations([*told, refused, twice, running], np.arange(5) / 10)
    assert [trial.number for trial in data.trials] == [0, 1, 2, 3, 4, 5]
    assert data.values[5] < data.values[:5].min() and np.argmax(data.values) == 4
    assert [trial.number for trial in data.best] == [4, 3, 2, 1, 0]


def test_after_baselines_alone_the_least_known_candidates_come_first(target: Target):
    texts = ("relu(x)", "x * sigmoid(x)", "x * normal_cdf(x)", "x * tanh(softplus(x))")
    told = [past(-1 - k, text, "value", k / 10) for k, text in enumerate(texts)]
    model, known = BehaviourModel(target.grammar, 3), [replace(t, baseline=True) for t in told]
    refused, runs = past(4, "x * exp(x ** 4)", "bad"), past(5, "sin(x)", "running")
    for own, least_known in (
        ([], True),
        ([refused, runs], True),
        ([runs, past(6, "x", "value")], False),
    ):
        found = model.propose(7, [*known, *own])
        assert found is not None and found.why["least_known"] == least_known
        assert (found.why["acquisition"] == found.why["deviation"]) == least_known
    # Without baselines a start at random has the two behind it.
    found = model.propose(7, told)
    assert found is not None and not found.why["least_known"]


@pytest.mark.parametrize("name", OURS)
def test_every_proposal_is_logged_with_its_reason(target: Target, name: str):
    study = new_study(build_sampler(name, 10, 0, 40, target.grammar))
    for _ in range(14):
        trial, expression = asked(study, target.grammar, study.sampler)
        study.tell(trial, target.scores[fingerprint(expression)])
    logged = [trial.user_attrs["proposal"] for trial in study.trials]
    assert logged[0] == {"by": "quasi-random"} and logged[-1]["by"] == name
    why = {"evolution": {"parents", "tries"}, "behaviour": {"predicted", "acquisition", "pool"}}
    assert why[name] <= set(logged[-1])


@pytest.mark.parametrize("name", OURS)
def test_given_choices_are_taken_and_other_paths_drawn(target: Target, name: str):
    study = new_study(build_sampler(name, 11, 0, 40, target.grammar))
    for _ in range(12):
        trial, expression = asked(study, target.grammar, study.sampler)
        study.tell(trial, target.scores[fingerprint(expression)])
    given = {"F": "x * G", "F/G": "sigmoid(ARG)"}
    study.enqueue_trial(given)
    trial, expression = asked(study, target.grammar, study.sampler)
    assert "sigmoid" in str(expression) and "proposal" not in trial.user_attrs
    assert 0 <= study.ask().suggest_float("another", 0, 1) <= 1


@pytest.mark.parametrize("name", OURS)
def test_optuna_alone_optimizes_two_objectives(deep: Grammar, name: str):
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=build_sampler(name, 12, 0, 30, deep)
    )

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        size = len(str(deep.sample(trial).expression))
        return abs(size - 40), size

    study.optimize(objective, n_trials=30)
    assert len(study.best_trials) >= 2


def test_a_sampler_of_derivations_needs_a_grammar():
    with pytest.raises(ValueError, match="expected a grammar"):
        build_sampler("behaviour", 0, 0, 40)


def test_costs_are_learned_from_what_was_measured():
    texts = ("x", "sin(x)", "x * sin(x)", "x * std(x)", "sin(x) * sin(2 * x) * sin(3 * x) * x")
    told = [
        replace(past(k, text, "value"), cost=cost)
        for k, (text, cost) in enumerate(zip(texts, (1.0, 1.2, 1.3, 1.9, 2.0), strict=True))
    ]
    wanted = np.array([behaviour(parse(t)).blocks[-1] for t in ("2 * x", "x * std(sin(x)) + x")])
    plain, dear = predicted_costs(told, wanted)
    assert plain < 1.3 < 1.6 < dear <= 2.0
    assert (predicted_costs(told[:4], wanted) == 1).all()


def test_the_samplers_need_neither_ray_nor_torch():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('ray', 'torch', 'matplotlib')));"
        "import search.samplers"
    )
    root = Path(__file__).resolve().parent.parent
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert run.returncode == 0, run.stderr
