"""A grammar counted, listed, sampled, replayed, found."""

from __future__ import annotations

import copy
import pickle
import warnings
from itertools import islice
from typing import Any

import optuna
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search.errors import SpaceError
from search.language.catalog import CATALOG
from search.language.fingerprint import fingerprint
from search.language.parser import parse
from search.samplers import build_sampler
from search.space import Count, parse_grammar
from search.space.settings import ONE_OBJECTIVE, SAMPLERS
from tests.grammar_cases import FINITE, GATED, random_study

# --- counting, listing ----------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_count_is_the_length_of_the_list(depth: int) -> None:
    grammar = parse_grammar(FINITE, depth)
    listed = [tuple(sorted(c.choices.items())) for c in grammar.candidates()]
    assert grammar.count() == Count(len(listed), 0)
    assert len(set(listed)) == len(listed)


def test_count_by_hand() -> None:
    # E(d) = 1 + E(d-1)**2: 1, 2, 5, 26, 677, …
    grammar = {"E": ["x", "E + E"]}
    found = [parse_grammar(grammar, d).count().derivations for d in (1, 2, 3, 4, 5)]
    assert found == [1, 2, 5, 26, 677]


def test_count_is_exact_where_no_list_could_be_made() -> None:
    unary = [f"{f}(E)" for f in ("sin", "cos", "tanh", "erf", "exp", "sigmoid", "relu", "abs")]
    grammar = parse_grammar({"E": ["x", *unary]}, 32)
    assert grammar.count() == Count((8**32 - 1) // 7, 0)


def test_continuous_ranges_are_counted_on_the_longest_derivation() -> None:
    assert parse_grammar(GATED, 4).count().continuous == 3  # G * G with a range each, and SCALE
    assert parse_grammar({"F": ["s * x where s in [2, 2]"]}).count() == Count(1, 0)


rule_line = st.sampled_from(
    [
        "x",
        "tanh(A)",
        "A + B",
        "B * B",
        "A * x",
        "s * x where s in {1, 2}",
        "-B",
        "k + B where k = 1 fixed",
    ]
)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    a=st.lists(rule_line, min_size=1, max_size=3, unique=True),
    b=st.lists(rule_line, min_size=1, max_size=3, unique=True),
    depth=st.integers(1, 4),
)
def test_count_is_the_length_of_the_list_of_any_grammar(
    a: list[str], b: list[str], depth: int
) -> None:
    try:
        grammar = parse_grammar({"A": a, "B": b}, depth)
    except SpaceError:
        assume(False)
        return
    size = grammar.count().derivations
    assume(size <= 3000)
    candidates = list(grammar.candidates())
    assert len(candidates) == size
    assert len({tuple(sorted(c.choices.items())) for c in candidates}) == size
    for candidate in candidates[::7]:
        assert grammar.derive(candidate.choices) == candidate


def test_candidates_come_lazily_and_lowest_first() -> None:
    grammar = parse_grammar({"E": ["E + E", "sin(E)", "x"]}, 6)
    assert grammar.count().derivations > 10**9
    first = [str(c.expression) for c in islice(grammar.candidates(), 4)]
    assert first == ["x", "x + x", "sin(x)", "x + x + (x + x)"]


def test_candidates_put_a_range_at_its_middle() -> None:
    grammar = parse_grammar({"F": ["a * x + b * x where a in log[0.5, 8], b in [0, 3]"]})
    (candidate,) = grammar.candidates()
    assert str(candidate.expression) == "2 * x + 1.5 * x"
    assert candidate.choices == {"F[0].a": 2.0, "F[0].b": 1.5}


# --- sampling and replaying -----------------------------------------------------------------------


def test_thousands_of_samples_replay_and_parse_back() -> None:
    """Optuna itself refuses a name whose choices change; the study is real."""
    grammar = parse_grammar(GATED, 5)
    study = random_study()
    names: set[str] = set()
    for _ in range(2000):
        trial = study.ask()
        candidate = grammar.sample(trial)
        assert candidate.choices == trial.params
        assert grammar.derive(trial.params) == candidate
        assert parse(str(candidate.expression)) == candidate.expression
        study.tell(trial, 0.0)
        names.update(trial.params)
    assert {"F", "F/G", "F/G/G#2/G/ARG", "F/SCALE[0].g", "F/G/ARG[1].s"} <= names


def test_a_path_always_offers_the_same_choices() -> None:
    grammar = parse_grammar(GATED, 5)
    study = random_study(1)
    offered: dict[str, Any] = {}
    for _ in range(500):
        trial = study.ask()
        grammar.sample(trial)
        for name, distribution in trial.distributions.items():
            assert offered.setdefault(name, distribution) == distribution


def test_bruteforce_visits_every_derivation_once() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(sampler=optuna.samplers.BruteForceSampler(seed=0))
    grammar = parse_grammar(FINITE, 3)
    seen: list[str] = []

    def objective(trial: optuna.Trial) -> float:
        seen.append(repr(sorted(grammar.sample(trial).choices.items())))
        return 0.0

    size = grammar.count().derivations
    study.optimize(objective, n_trials=size + 10)
    assert len(seen) == len(set(seen)) == size


def test_the_choices_are_the_text_of_the_file() -> None:
    grammar = parse_grammar(
        {"F": ["x * G", "x"], "G": ["sigmoid( s*x )   where s in [0.5,2]", "1"]}
    )
    choices = {"F": "x * G", "F/G": "sigmoid( s*x ) where s in [0.5,2]", "F/G[0].s": 1.5}
    assert str(grammar.derive(choices).expression) == "x * sigmoid(1.5 * x)"


def test_a_single_possibility_has_no_name() -> None:
    grammar = parse_grammar({"F": ["x * G"], "G": ["sigmoid(s * x) where s in {2}"]})
    trial = random_study().ask()
    assert str(grammar.sample(trial).expression) == "x * sigmoid(2 * x)"
    assert trial.params == {}


def test_where_the_depth_is_spent_only_what_ends_is_offered() -> None:
    grammar = parse_grammar({"F": ["x * G"], "G": ["sigmoid(x)", "G * G", "-G"]}, 3)
    trial = random_study(2).ask(
        {"F/G": optuna.distributions.CategoricalDistribution(grammar.text()["G"])}
    )
    grammar.sample(trial)
    assert set(trial.params) == {"F/G"}
    assert [a.text for _, a in grammar.available("G", 1)] == ["sigmoid(x)"]


def test_drawn_numbers_have_four_digits_and_stay_in_their_range() -> None:
    grammar = parse_grammar({"F": ["s * x where s in [1/3, 2/3]"]})
    assert str(grammar.derive({"F[0].s": 0.4123456789}).expression) == "0.4123 * x"
    at_the_end = grammar.derive({"F[0].s": 1 / 3})
    assert str(at_the_end.expression) == f"{1 / 3!r} * x"
    assert at_the_end.choices == {"F[0].s": 1 / 3}


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({}, "F: this choice is missing"),
        ({"F": "x * H"}, "F: 'x * H' is no choice here; did you mean 'x * G'?"),
        ({"F": "x", "F/G": "sigmoid(x)"}, "F/G: not a choice here; known: F"),
        ({"F": "x * G", "F/H": "1"}, "F/G: this choice is missing; did you mean 'F/H'?"),
        (
            {"F": "x * G", "F/G": "tanh(s * x) where s in [1, 2]", "F/G[1].s": 3},
            "F/G[1].s: `low <= value <= high` must hold, but got (low=1, value=3, high=2)",
        ),
        (
            {"F": "x * G", "F/G": "tanh(s * x) where s in [1, 2]", "F/G[1].s": "many"},
            "F/G[1].s: expected a number in [1, 2], got 'many'",
        ),
    ],
)
def test_choices_that_do_not_fit_are_refused(choices: dict[str, Any], message: str) -> None:
    rules = {"F": ["x * G", "x"], "G": ["sigmoid(x)", "tanh(s * x) where s in [1, 2]"]}
    with pytest.raises(SpaceError) as error:
        parse_grammar(rules).derive(choices)
    assert str(error.value) == message


# --- the formula that comes out -------------------------------------------------------------------


def only(rules: dict[str, Any], depth: int | None = None) -> str:
    """The text of the one formula of a grammar, which parses back to itself."""
    (candidate,) = parse_grammar(rules, depth).candidates()
    assert parse(str(candidate.expression)) == candidate.expression
    return str(candidate.expression)


def test_parameters_of_different_occurrences_are_their_own() -> None:
    rules = {
        "F": "k * x + G * G + C * C where k = 1 per layer",
        "G": "sigmoid(k * x) where k = 2 per channel",
    }
    rules["C"] = "c * x where c = 1/2 fixed"
    assert only(rules) == (
        "k * x + sigmoid(k2 * x) * sigmoid(k3 * x) + c * x * (c * x)"
        " where k = 1 per layer, k2 = 2 per channel, k3 = 2 per channel, c = 0.5 fixed"
    )


def test_fixed_names_of_different_values_are_told_apart() -> None:
    rules = {"F": "c * x + A where c = 1 fixed", "A": "c * x * c2 where c = 3 fixed, c2 = 5 fixed"}
    assert only(rules) == "c * x + c2 * x * c22 where c = 1 fixed, c2 = 3 fixed, c22 = 5 fixed"


def test_an_abbreviation_holds_one_expansion() -> None:
    rules = {"F": "mish(A)", "A": ["x", "-x"]}
    found = [str(c.expression) for c in parse_grammar(rules).candidates()]
    assert found == ["x * tanh(softplus(x))", "-x * tanh(softplus(-x))"]


def test_a_sign_before_a_number_becomes_part_of_it() -> None:
    assert (
        only({"F": "-s * x + abs(-t) * x where s in {2}, t in {-1/2}"}) == "-2 * x + abs(0.5) * x"
    )


def test_penalties_are_added() -> None:
    rules = {
        "F": "lam * A + A where lam = 1 per layer penalty (lam - 1) ** 2",
        "A": "b * x where b = 1 per layer penalty mean(b * x) ** 2",
    }
    assert only(rules) == (
        "lam * (b * x) + b2 * x where lam = 1 per layer, b = 1 per layer, b2 = 1 per layer"
        " penalty mean(b * x) ** 2 + mean(b2 * x) ** 2 + (lam - 1) ** 2"
    )


def test_a_grammar_travels() -> None:
    grammar = parse_grammar(GATED, 4)
    for copied in (pickle.loads(pickle.dumps(grammar)), copy.deepcopy(grammar)):
        assert copied == grammar
        assert copied.count() == grammar.count()
        assert next(copied.candidates()) == next(grammar.candidates())


# --- finding --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["golu", "silu", "swish"])
def test_find_gives_choices_of_the_same_function(name: str) -> None:
    grammar = parse_grammar({**GATED, "ARG": [*GATED["ARG"][:3], "s * x where s = 1 per layer"]}, 4)
    wanted = CATALOG[name].expression
    choices = grammar.find(wanted)
    assert choices is not None
    assert fingerprint(grammar.derive(choices).expression) == fingerprint(wanted)


def test_find_tells_what_is_not_there_and_keeps_its_limit() -> None:
    grammar = parse_grammar({"E": ["E + E", "sin(E)", "x"]}, 6)
    assert grammar.find(CATALOG["relu"].expression, limit=200) is None
    assert grammar.find(parse("sin(x)"), limit=2) is None
    assert grammar.find(parse("sin(x)"), limit=3) == {"E": "sin(E)", "E/E": "x"}


# --- samplers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLERS)
def test_which_samplers_take_two_objectives(name: str) -> None:
    """What the space file promises of a sampler, asked of the real one."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    rules = (
        FINITE if name != "cmaes" else {"F": ["a * x + sin(b * x) where a in [1, 2], b in [1, 2]"]}
    )
    grammar = parse_grammar(rules, 4)
    sampler = build_sampler(name, 0, 0, 15, grammar)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        size = len(str(grammar.sample(trial).expression))
        return 1 / size, size

    if name in ONE_OBJECTIVE:
        with pytest.raises(ValueError, match="multi-objective"):
            study.optimize(objective, n_trials=15)
    else:
        study.optimize(objective, n_trials=15)
        assert len(study.best_trials) >= 1
