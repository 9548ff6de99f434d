"""Samplers of whole derivations on real Optuna studies, and what they are made of."""

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
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from search.language.catalog import CATALOG
from search.language.derivative import derivative
from search.language.evaluate import evaluate
from search.language.expression import Expression, X
from search.language.fingerprint import fingerprint
from search.language.parser import parse
from search.samplers import build_sampler
from search.samplers.behaviour import observations, predicted_costs, thinned, warped
from search.samplers.derivations import below, crossed, drawn, expansions, mutated, rule_of
from search.samplers.features import BLOCKS, SPREADS, behaviour, quantiles
from search.samplers.history import Outcome, Past
from search.samplers.surrogate import Setting, predict, settings
from search.space import Grammar, parse_grammar
from tests.cases import CASES, expression

DEEP = {
    "F": ["x * G", "x * G * SCALE", "(1 - b) * x * G + b * x where b = 0 per layer"],
    "G": ["gompertz(ARG)", "sigmoid(ARG)", "(1 + 2 * k) * G - k where k = 0 per layer", "G * G"],
    "ARG": ["x", "s * x where s in log[0.5, 2]", "-s * x where s in {1, 1/3, -2}"],
    "SCALE": ["1 + g * tanh(m * std(x)) where g in [0, 0.3], m = 0.9 fixed"],
}
FINITE = {
    "F": ["x * G", "(1 - b) * x * G + b * x where b in {-0.3, 0.1, 0.3, 0.6}"],
    "G": [
        "gompertz(ARG)",
        "sigmoid(ARG)",
        "arctan_gate(ARG)",
        "normal_cdf(ARG)",
        "1 - gompertz(-(ARG))",
        "exp(-(ARG) ** 2)",
    ],
    "ARG": ["s * x where s in {0.5, 1, 2, 4}", "s * x + t where s in {0.5, 1, 2}, t in {-1, 1}"],
}
OURS = ("evolution", "behaviour")


@pytest.fixture
def deep() -> Grammar:
    return parse_grammar(DEEP, 5)


# --- derivations ---------------------------------------------------------------------------------


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


# --- features ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CASES))
def test_features_are_finite_and_repeat(name: str):
    found = behaviour(expression(name))
    assert len(found.blocks) == len(BLOCKS)
    assert all(np.isfinite(block).all() for block in found.blocks)
    again = behaviour.__wrapped__(expression(name))
    assert all(map(np.array_equal, found.blocks, again.blocks))


def block(text: str, name: str) -> np.ndarray:
    return behaviour(parse(text)).blocks[BLOCKS.index(name)].astype(np.float64)


@pytest.mark.parametrize("name", ["gelu", "golu", "mish", "silu", "tanh"])
def test_slopes_are_the_derivatives(name: str):
    expression = CATALOG[name].expression
    x = SPREADS[:, None] * quantiles()
    exact = evaluate(derivative(expression, X), {"x": x}, expression.initial)
    found = np.sinh(behaviour(expression).blocks[BLOCKS.index("slopes")].reshape(x.shape))
    np.testing.assert_allclose(found, exact, atol=1e-6)  # 1e-4 squared, and float32


def test_moments_of_relu():
    mean, mixed, second, gradient = block("relu(x)", "moments").reshape(len(SPREADS), 4).T
    # E f = s / sqrt(2 pi), E f² = s² / 2, E f f' = E f, E f'² = 1/2, all of f / s; 48 points
    np.testing.assert_allclose(np.sinh(mean), 1 / np.sqrt(2 * np.pi), rtol=0.02)
    np.testing.assert_allclose(np.sinh(mixed), 1 / np.sqrt(2 * np.pi), rtol=0.02)
    np.testing.assert_allclose(np.exp(second), 0.5, rtol=0.05)
    np.testing.assert_allclose(np.exp(gradient), 0.5, rtol=1e-4)


def test_degrees_of_hermite_polynomials():
    np.testing.assert_allclose(block("3 * x", "degrees")[:3], [0, 1, 0], atol=1e-6)
    even, odd = block("x ** 2 - 1", "degrees"), block("x ** 3 - 3 * x", "degrees")
    assert np.argmax(np.abs(even)) == 2 and np.abs(even[1::2]).max() < 1e-6
    assert np.argmax(np.abs(odd)) == 3 and np.abs(odd[::2]).max() < 1e-6
    # relu: 1/sqrt(2 pi), 1/2, 1/(2 sqrt(pi)), each by sqrt(E f²) = sqrt(1/2); 48 points
    exact = np.array([1 / np.sqrt(2 * np.pi), 1 / 2, 1 / (2 * np.sqrt(np.pi))]) * np.sqrt(2)
    np.testing.assert_allclose(block("relu(x)", "degrees")[:3], exact, rtol=0.08)


def test_an_exploding_network_has_the_larger_fisher_trace():
    # At the gain that keeps E f², the gradient grows with E f'² / E f²: 1 for a line, 4 for sin(2x)
    # … over three layers.
    assert block("sin(4 * x)", "fisher")[-1] > block("x", "fisher")[-1] + 1


def test_the_learned_numbers_are_seen():
    plain = behaviour(parse("x * sigmoid(x)"))
    layer = behaviour(parse("x * sigmoid(b * x) where b = 1 per layer"))
    channel = behaviour(parse("x * sigmoid(b * x) where b = 1 per channel"))
    np.testing.assert_array_equal(plain.blocks[0], layer.blocks[0])
    learning = [found.blocks[BLOCKS.index("learning")] for found in (plain, layer, channel)]
    assert not learning[0].any() and not np.array_equal(learning[1], learning[2])
    strength = block("x * sigmoid(b * x) where b = 1 per layer", "learning").reshape(2, -1)
    x = (SPREADS[:, None] * quantiles()).ravel()
    s = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(np.sinh(strength[0]), np.abs(x * x * s * (1 - s)), atol=1e-3)
    assert not strength[1].any()


def test_a_statistic_is_no_constant_and_equal_functions_are_equal():
    assert np.abs(block("x * std(x)", "values") - block("x", "values")).max() > 0.5
    for name in BLOCKS[:-1]:  # the last one counts operations
        one, other = block("sin(x)**2 + cos(x)**2 + x", name), block("1 + x", name)
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert not behaviour(parse("x * exp(x ** 4)")).finite


# --- the surrogate -------------------------------------------------------------------------------


def test_the_gaussian_process_is_scikit_learns():
    """At one setting of the grid, mean and deviation agree with an independent package's."""
    rng = np.random.default_rng(4)
    points, wanted = rng.standard_normal((1, 30, 3)), rng.standard_normal((1, 20, 3))
    values = np.sin(points[0]).sum(axis=1)
    values -= values.mean()
    setting = Setting(length=2.0, noise=0.03, amplitude=1.7, weight=1.0)
    kernel = ConstantKernel(1.7) * Matern(2.0, nu=2.5)
    peer = GaussianProcessRegressor(kernel, alpha=0.03 * 1.7, optimizer=None)  # pyright: ignore[reportArgumentType]
    peer.fit(points[0], values)
    mean, deviation = predict(points, values, points[:, :0], wanted, [setting])
    expected = peer.predict(wanted[0], return_std=True)
    np.testing.assert_allclose(mean, expected[0], atol=1e-5)  # float32
    np.testing.assert_allclose(deviation, expected[1], rtol=1e-4)


def test_the_grid_finds_length_and_noise():
    rng = np.random.default_rng(5)
    points = rng.uniform(-3, 3, (1, 80, 1))
    smooth = np.sin(points[0, :, 0])
    clean = settings(points, smooth - smooth.mean())
    noisy = smooth + rng.standard_normal(80)
    loud = settings(points, noisy - noisy.mean())
    assert clean[0].noise < 0.02 and loud[0].noise >= 0.3
    assert sum(s.weight for s in loud) == pytest.approx(1)


def test_what_runs_is_believed():
    rng = np.random.default_rng(6)
    points, running, wanted = (rng.standard_normal((2, n, 2)) for n in (12, 3, 9))
    values = rng.standard_normal(12)
    grid = settings(points, values)
    alone = predict(points, values, running[:, :0], wanted, grid)
    beside = predict(points, values, running, wanted, grid)
    np.testing.assert_allclose(alone[0], beside[0], atol=1e-6)
    assert (beside[1] < alone[1]).all()
    at_running = predict(points, values, running, running, grid)[1]
    assert (at_running < predict(points, values, running[:, :0], running, grid)[1]).all()


def test_a_warp_keeps_the_order_and_tames_an_outlier():
    values = np.array([0.1, 0.5, 0.52, 0.6, 0.61, -1e9])
    found = warped(values)
    assert (np.argsort(found) == np.argsort(values)).all()
    assert np.ptp(found) < 40
    assert (warped(np.full(5, 0.3)) == 0).all()


def test_the_best_of_many_trials_are_all_kept():
    values = np.random.default_rng(7).permutation(np.arange(1000.0))
    kept = thinned(values, 100)
    assert len(set(kept.tolist())) == 100
    assert set(values[kept]) >= set(range(950, 1000)) and values[kept].min() == 0


# --- searches ------------------------------------------------------------------------------------


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
