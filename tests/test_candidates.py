"""Candidates that are one program up to numbers: lifted, trained together, each as by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from search.activation import Activation
from search.errors import TaskError
from search.language.catalog import CATALOG
from search.language.evaluate import evaluate
from search.language.lifting import lift, shape_of
from search.language.parser import parse
from search.records import Key, Member, Run
from search.space.settings import Halving
from search.tasks.digits import TASK as DIGITS
from search.tasks.task import MakeActivation, Task
from search.training.alike import makers, shared_programs
from search.training.batched import run_members
from search.training.batched.stacked import stack_models
from search.training.candidate import train_candidate
from search.training.candidates import MOST, groups_of, train_candidates
from search.training.job import Job, Outcome, Training
from search.training.loop import initial_model
from search.training.rates import Grid
from tests.batched_cases import CLOSE, OWN, digits, distance, plain, settings, training

HERE = Path(__file__).parent
KEYS: tuple[Key, ...] = ((0.003, 0), (0.03, 7))

ALIKE = {
    "numbers": ("x * sigmoid(0.7 * x)", "x * sigmoid(1.3 * x)", "x * sigmoid(2.5 * x)"),
    "one number twice": ("x * sigmoid(2 * x) * (2 + x)", "x * sigmoid(3 * x) * (3 + x)"),
    "one of two": ("0.5 * x + 0.25 * tanh(x)", "0.5 * x + 0.75 * tanh(x)"),
    "fixed names": (
        "x * tanh(m * x) where m = 0.9 fixed",
        "x * tanh(m * x) where m = 0.4 fixed",
    ),
    "initial values": (
        "x * sigmoid(b * x) where b = 1 per layer",
        "x * sigmoid(b * x) where b = 2 per layer",
    ),
    "numbers and initial values per channel": (
        "x * sigmoid(0.5 * b * x) where b = 1 per channel",
        "x * sigmoid(0.25 * b * x) where b = 2 per channel",
    ),
    "a name that is taken": (
        "x * sigmoid(0.5 * n0 * x) where n0 = 1 per layer",
        "x * sigmoid(1.5 * n0 * x) where n0 = 1 per layer",
    ),
    "bounds and a choice": (
        "select(x > 0.1, x, 0.2 * clip(x, -1, 0.5))",
        "select(x > -0.1, x, 0.3 * clip(x, -2, 0.25))",
    ),
    "a power beside": ("x ** 2 * sigmoid(0.5 * x) / 4", "x ** 2 * sigmoid(1.5 * x) / 4"),
    "a penalty": (
        "a * relu(x) where a = 1 per layer penalty 0.5 * (a - 1) ** 2 + 0.1 * abs(x)",
        "a * relu(x) where a = 2 per layer penalty 0.25 * (a - 1) ** 2 + 0.2 * abs(x)",
    ),
    "a statistic": (
        "x * sigmoid(0.5 * x) * (1 + 0.1 * tanh(std(x)))",
        "x * sigmoid(1.5 * x) * (1 + 0.2 * tanh(std(x)))",
    ),
    "nothing": ("relu(x)", "relu(x)"),
}


# --- the formulas --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ALIKE)
def test_lifted_formulas_are_one_and_have_their_own_values(case: str):
    own = [parse(text) for text in ALIKE[case]]
    assert len({shape_of(expression) for expression in own}) == 1
    lifted = lift(own)
    assert len({each.body for each in lifted.each}) == 1
    x = np.linspace(-3, 3, 41)
    for before, after in zip(own, lifted.each, strict=True):
        for part, whole in ((before.body, after.body), (before.penalty, after.penalty)):
            if part and whole:
                expected = evaluate(part, {"x": x, **before.initial})
                np.testing.assert_allclose(evaluate(whole, {"x": x, **after.initial}), expected)
        assert set(before.trainable) <= set(after.trainable)
        assert {p.name for p in after.trainable} == {p.name for p in before.trainable} | {
            *lifted.held
        }


@pytest.mark.parametrize(
    ("case", "held"),
    [
        ("numbers", ("n0",)),
        ("one number twice", ("n0",)),
        ("one of two", ("n0",)),
        ("initial values", ()),
        ("a name that is taken", ("n1",)),
        ("nothing", ()),
    ],
)
def test_numbers_that_all_share_stay_and_equal_ones_share_a_name(case: str, held: tuple[str, ...]):
    assert lift([parse(text) for text in ALIKE[case]]).held == held


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("x ** 2 + 1", "x ** 3 + 1"),
        ("2 ** x", "3 ** x"),
        ("x * sigmoid(x)", "x * sigmoid(2 * x)"),
        ("a * x where a = 1 per layer", "a * x where a = 1 per channel"),
        ("mean(x) + x", "mean(x, over=tensor) + x"),
        ("sin(x)", "cos(x)"),
    ],
)
def test_other_formulas_have_another_shape(a: str, b: str):
    assert shape_of(parse(a)) != shape_of(parse(b))


def test_the_whole_catalogue_lifts_to_itself():
    for row in CATALOG.values():
        lifted = lift([row.expression] * 2)
        assert lifted.held == () and len(set(lifted.each)) == 1
        assert shape_of(lifted.each[0]) == shape_of(row.expression)


def test_formulas_whose_members_would_take_turns_are_together_only_with_equal_numbers():
    texts = [f"x * tanh({s} * x) * (1 + 0.1 * std(x, over=sample))" for s in (0.5, 0.7, 0.5)]
    texts += [f"x * tanh({s} * x) * (1 + 0.1 * std(x, over=tensor))" for s in (0.5, 0.7)]
    assert shared_programs([parse(text) for text in texts]) == [[0, 2], [1], [3, 4]]


# --- trained together ----------------------------------------------------------------------------


def together(
    task: Task, makes: list[MakeActivation], members: list[Member], **rest: Any
) -> dict[Member, Run]:
    epochs = run_members(task, digits(), makes, members=members, **rest)
    return {member: run for epoch in epochs for member, run in epoch.ended.items()}


def alike(texts: tuple[str, ...]) -> list[MakeActivation]:
    return makers(lift([parse(text) for text in texts]), "auto")


@pytest.mark.parametrize("case", ALIKE)
def test_every_candidate_follows_its_own_plain_run(case: str):
    rest = settings(DIGITS, {}, weight_decay=0.05, activation_weight_decay=0.01, clip_norm=1.0)
    members = [(c, *key) for c in range(len(ALIKE[case])) for key in KEYS]
    both = together(DIGITS, alike(ALIKE[case]), members, **rest)
    for c, text in enumerate(ALIKE[case]):
        for key, run in plain(DIGITS, digits(), partial(Activation, text), KEYS, **rest).items():
            assert (both[c, *key].state, both[c, *key].steps) == (run.state, run.steps)
            assert distance(run, both[c, *key]) < CLOSE


def test_under_vmap_too():
    rest = settings(DIGITS, {"model": "cnn"}, epochs=1)
    texts = ALIKE["numbers"][:2]
    both = together(DIGITS, alike(texts), [(c, *key) for c in (0, 1) for key in KEYS], **rest)
    for c, text in enumerate(texts):
        for key, run in plain(DIGITS, digits(), partial(Activation, text), KEYS, **rest).items():
            assert distance(run, both[c, *key]) < CLOSE


def test_another_number_would_be_noticed():
    rest = settings(DIGITS, {})
    texts = ("x * sigmoid(0.7 * x)", "x * sigmoid(0.75 * x)")
    runs = together(DIGITS, alike(texts), [(0, 0.01, 0), (1, 0.01, 0)], **rest)
    assert distance(*runs.values()) > 2 * CLOSE


@pytest.mark.parametrize("options", [{}, {"model": "cnn"}])
def test_a_candidate_that_diverges_leaves_the_others_bitwise_as_they_were(options: dict[str, Any]):
    rest = settings(DIGITS, options, epochs=1)
    members = [(c, *key) for c in (0, 1) for key in KEYS]
    wild, tame = (("0.5 * sin(x)", f"{number} * sin(x)") for number in ("1e38", "0.7"))
    with_wild, without = (together(DIGITS, alike(t), members, **rest) for t in (wild, tame))
    assert {with_wild[1, *key].state for key in KEYS} == {"diverged"}
    for key in KEYS:
        assert with_wild[0, *key].curve == without[0, *key].curve


def nodes(output: Tensor) -> Iterator[str]:
    """The names of the functions behind a tensor."""
    waiting, seen = [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield type(node).__name__
            waiting += [below for below, _ in node.next_functions]


@pytest.mark.parametrize("case", ["numbers", "initial values", "bounds and a choice"])
def test_one_call_of_the_kernel_takes_all_candidates(case: str):
    splits, options = digits(), settings(DIGITS, {})["options"]
    cpu = torch.device("cpu")
    models = [initial_model(DIGITS, splits, m, options, 0, cpu) for m in alike(ALIKE[case])]
    sites = sum(isinstance(module, Activation) for module in models[0].modules())
    stacked = stack_models(models, [0] * len(models), cpu)
    outputs, _ = stacked(splits.train.inputs[:4].expand(len(models), 4, 1, 8, 8))
    assert list(nodes(outputs)).count("_EagerBackward") == sites == 2


def test_lifted_numbers_are_not_trained():
    made = alike(ALIKE["numbers"])[1]()
    assert {name: p.requires_grad for name, p in made.named_parameters()} == {"n0": False}
    assert made.get_parameter("n0").item() == pytest.approx(1.3)


# --- the sweeps of several candidates ------------------------------------------------------------


def both_ways(how: Training, jobs: list[Job]) -> tuple[list[Outcome], list[dict[Key, Run]]]:
    """Train jobs together, and hold every outcome against that of the candidate alone."""
    found: list[dict[Key, Run]] = [{} for _ in jobs]

    def on_run(place: int, run: Run) -> None:
        key = run.learning_rate, run.seed
        assert key not in found[place]
        found[place][key] = run

    outcomes = train_candidates(how, jobs, on_run)
    for job, outcome, runs in zip(jobs, outcomes, found, strict=True):
        own: list[Run] = []
        alone = train_candidate(how, job, own.append)
        assert (outcome.state, outcome.best_rate) == (alone.state, alone.best_rate)
        assert (outcome.parameters, outcome.spared) == (alone.parameters, alone.spared)
        assert runs.keys() == {(r.learning_rate, r.seed) for r in own}
        for run in own:
            twin = runs[run.learning_rate, run.seed]
            assert (twin.state, twin.steps) == (run.state, run.steps)
            assert twin.score == pytest.approx(run.score, abs=2 / 128)
    return outcomes, found


def jobs_of(*texts: str, **more: Any) -> list[Job]:
    return [Job(text, **{"gated": True, **more}) for text in texts]


def test_candidates_of_one_program_train_together_and_end_as_alone():
    texts = [f"x * sigmoid({s} * x)" for s in (0.5, 1.5, 2.5)]
    outcomes, _ = both_ways(training(at_once=4), jobs_of(*texts, "relu(x)", "x * sigmoid(3.5 * x)"))
    told = [outcome.environment.get("together") for outcome in outcomes]
    assert told == [*["4 candidates in one program"] * 3, None, "4 candidates in one program"]
    assert all(outcome.cost and outcome.seconds > 0 for outcome in outcomes)


def test_halving_decides_for_each_candidate_by_itself():
    grid = Grid((0.003, 0.01, 0.03, 0.1, 0.3), 0.03, (0, 1), False, halving=Halving(0.5, 2))
    how = training(at_once=4, grid=grid, recipe={"epochs": 8})
    outcomes, found = both_ways(how, jobs_of("0.05 * sin(x)", "2 * sin(x)", "sin(0.5 * x)"))
    left = [{key for key, run in runs.items() if run.state == "pruned"} for runs in found]
    assert all(left) and left[0] != left[1]
    assert all(outcome.spared for outcome in outcomes)


def test_what_is_finished_is_not_repeated():
    jobs = jobs_of("x * tanh(0.5 * x)", "x * tanh(1.5 * x)")
    runs: list[Run] = []
    train_candidate(training(at_once=4), jobs[0], runs.append)
    jobs[0] = replace(jobs[0], finished=tuple(runs[:3]))
    told: list[tuple[int, Run]] = []
    train_candidates(training(at_once=4), jobs, lambda place, run: told.append((place, run)))
    of_first = {(r.learning_rate, r.seed) for place, r in told if place == 0}
    assert of_first == {(r.learning_rate, r.seed) for r in runs[3:]}


def test_finalists_of_one_formula_train_together_with_seeds_of_their_own():
    jobs = [Job("relu(x)", False, seeds=(s, s + 1), rate=rate) for s, rate in ((5, 0.1), (8, 0.3))]
    jobs.append(Job("relu(x)", False, seeds=(11,), rate=0.3, budget=2))
    assert groups_of(training(at_once=4), jobs) == [[0, 1], [2]]
    outcomes, found = both_ways(training(at_once=4), jobs)
    assert all(run.test is not None for runs in found for run in runs.values())
    assert [set(runs) for runs in found] == [
        {(0.1, 5), (0.1, 6)},
        {(0.3, 8), (0.3, 9)},
        {(0.3, 11)},
    ]
    assert [outcome.score is not None for outcome in outcomes] == [True] * 3


def test_a_program_of_many_candidates_trains_in_several_batches():
    jobs = jobs_of(*(f"x * tanh({1.5 + k} * x)" for k in range(MOST + 2)), "relu(x)")
    numbers = list(range(MOST + 3))
    assert groups_of(training(at_once=4), jobs) == [numbers[:MOST], numbers[MOST:-1], numbers[-1:]]


def test_one_that_diverges_or_is_rejected_leaves_the_others():
    jobs = jobs_of("2 * x", "1e38 * x", "0.5 * x", gated=False)
    outcomes = train_candidates(training(at_once=4), jobs)
    assert [o.state for o in outcomes] == ["complete", "diverged", "complete"]
    gated = training(at_once=4, grid=Grid((0.03, 0.3), 0.3, tuple(range(8))), recipe={"epochs": 20})
    outcomes = train_candidates(gated, jobs_of("0 * relu(x) + 1", "1e38 * x", "sin(x)"))
    assert [o.state for o in outcomes][1:] == ["rejected", "complete"]


def test_those_that_cannot_train_together_train_alone():
    for how in (training(at_once=1), training(at_once=4, in_step=True)):
        jobs = jobs_of("sin(0.5 * x)", "sin(1.5 * x)")
        assert groups_of(how, jobs) == [[0], [1]]
    jobs = jobs_of("u * sigmoid(0.5 * x)", "u * sigmoid(1.5 * x)", gated=False)
    outcomes = train_candidates(training(at_once=4), jobs)
    assert [o.state for o in outcomes] == ["failed", "failed"]
    assert "expects x and u" in outcomes[0].reason
    assert outcomes[0].environment["together"].startswith("candidate by candidate: ")


def test_a_model_that_cannot_be_batched_trains_one_by_one(tmp_path: Path):
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    outcomes, _ = both_ways(
        training(tmp_path, "own.py", at_once=4), jobs_of("sin(x)", "sin(2 * x)")
    )
    for outcome in outcomes:
        assert outcome.environment["batching"].startswith("one by one: layer 2 (Branching): ")


def test_an_error_of_the_task_is_raised():
    with pytest.raises(TaskError, match="unknown task"):
        train_candidates(training(task="digitz", at_once=4), jobs_of("sin(x)", "sin(2 * x)"))
