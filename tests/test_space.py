"""Space files: what they mean, resolved, overridden, and those that are shipped."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from search.language.catalog import CATALOG
from search.language.fingerprint import fingerprint
from search.language.parser import parse
from search.space import Count, LearningRates, Resources, SearchSettings, Space, load_space
from tests.space_cases import GOOD, load, problems

SPACES = Path(__file__).parent.parent / "spaces"
SHIPPED = sorted(SPACES.glob("*.yaml"))


# --- what a file means ---------------------------------------------------------------------------


def test_every_key_arrives(tmp_path: Path) -> None:
    space = load(tmp_path, GOOD)
    assert space.grammar is not None
    assert space == Space(
        name="small",
        task="digits",
        learning_rate=LearningRates((0.001, 0.1), 0.1, extend=False),
        grammar=space.grammar,
        baselines=("relu",),
        options={"depth": 1},
        recipe={"epochs": 2},
        seeds=(3, 1),
        search=SearchSettings("random", 7, 2, ("score", "cost"), "asha"),
        resources=Resources(2.0, 0.25, 3),
        gates=False,
        device="cpu",
        data_root="~/data",
    )
    assert space.source == tmp_path / "s.yaml"
    assert (space.grammar.start, space.grammar.depth) == ("F", 2)
    assert space.grammar.count() == Count(3, 1)


def test_defaults(tmp_path: Path) -> None:
    text = "name: s\ntask: digits\nbaselines: relu\nlearning_rate: {grid: 0.1, default: 0.1}\n"
    space = load(tmp_path, text)
    assert space.grammar is None
    assert space.seeds == (0, 1)
    assert space.search == SearchSettings(trials=0)
    assert (space.resources, space.gates, space.device) == (Resources(1.0, 0.0, None), True, "auto")
    assert load(tmp_path, text + "seeds: 3\n").seeds == (0, 1, 2)


def test_numbers_and_words_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    text = GOOD.replace("[0.1, 1e-3]", "[1e-1, 1E-3, .5, 010]").replace("name: small", "name: on")
    space = load(tmp_path, text.replace("device: cpu\n", "").replace("gates: off", "gates: TRUE"))
    assert space.learning_rate.grid == (0.001, 0.1, 0.5, 10.0)
    assert (space.name, space.gates) == ("on", True)


def test_baselines_are_names_formulas_or_both(tmp_path: Path) -> None:
    listed = "[GELU_tanh, 'x * sigmoid(2 * x)', {wide: 'x * sigmoid(x / 2)'}]".replace(
        "GELU_tanh", "gelu_tanh"
    )
    space = load(tmp_path, GOOD.replace("[relu]", listed))
    assert space.baselines == ("gelu_tanh", "x * sigmoid(2 * x)", "wide")
    assert space.baseline("gelu_tanh") == CATALOG["gelu_tanh"].expression
    assert space.baseline("wide") == parse("x * sigmoid(x / 2)")
    assert space.baseline("x * sigmoid(2 * x)") == parse("x * sigmoid(2 * x)")


def test_a_task_of_ones_own_lies_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "my_task.py").write_text(
        "from search.tasks.task import Task\n"
        "def load(data_root, *, size): ...\n"
        "def build(make_activation, splits, *, size): ...\n"
        "TASK = Task(name='mine', load=load, build=build, options={'size': 3}, metric='recall')\n"
    )
    text = GOOD.replace("{name: digits, depth: 1}", "./my_task.py")
    assert load(tmp_path, text.replace("accuracy", "recall")).task == "./my_task.py"
    assert problems(tmp_path, text) == [
        "s.yaml:12: search.objectives: expected one of recall, score, loss, cost, got 'accuracy'"
    ]
    (line,) = problems(tmp_path, text.replace("my_task", "your_task").replace("accuracy", "score"))
    assert line.startswith("s.yaml:2: ") and "your_task.py: no such file" in line


def test_the_room_needs_no_torch_until_there_is_a_task() -> None:
    """The package itself re-exports modules of torch: it is replaced by an empty one here."""
    code = (
        "import sys, types; p = types.ModuleType('search'); p.__path__ = [sys.argv[1]];"
        "sys.modules['search'] = p; import search.space as s;"
        "s.parse_grammar({'F': ['x * sigmoid(x)']}).count();"
        "print(*sorted({'torch', 'ray', 'optuna', 'triton', 'matplotlib'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(SPACES.parent / "search")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.stdout.strip(), run.returncode) == ("", 0), run.stderr


# --- resolved and definition ---------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_resolved_space_loads_to_an_equal_one(path: Path, tmp_path: Path) -> None:
    space = load_space(path)
    text = yaml.safe_dump(space.resolved(), sort_keys=False)
    again = load(tmp_path, text)
    assert again == space
    assert json.loads(json.dumps(again.resolved())) == space.resolved()
    assert json.loads(json.dumps(again.definition())) == space.definition()


def test_a_resolved_space_keeps_what_is_not_the_default(tmp_path: Path) -> None:
    text = GOOD.replace("[relu]", "[relu, 'x * tanh(x)', {wide: 'x * sigmoid(x / 2)'}]")
    text = text.replace("{epochs: 2}", "{milestones: [0.5, 1e-1], clip_norm: null}")
    space = load(tmp_path, text)
    assert load(tmp_path, yaml.safe_dump(space.resolved(), sort_keys=False)) == space


@pytest.mark.parametrize(
    "change",
    [
        "search.trials=99",
        "resources={cpu: 1, gpu: 1, max_concurrent: 8}",
        "device=cuda",
        "kernel=torch",
        "timeout=60",
        "data_root=/tmp",
    ],
)
def test_the_budget_and_the_machine_are_no_part_of_the_definition(
    change: str, tmp_path: Path
) -> None:
    space, changed = load(tmp_path, GOOD), load(tmp_path, GOOD, change)
    assert changed != space
    assert changed.definition() == space.definition()


@pytest.mark.parametrize(
    "change",
    [
        "name=other",
        "task.depth=2",
        "recipe.epochs=3",
        "activation.G=[gompertz(x)]",
        "depth=3",
        "baselines=[gelu]",
        "learning_rate.extend=true",
        "seeds=[1, 3]",
        "search.seed=3",
        "search.sampler=tpe",
        "search.objectives=[accuracy]",
        "gates=on",
    ],
)
def test_everything_else_is_part_of_the_definition(change: str, tmp_path: Path) -> None:
    assert load(tmp_path, GOOD, change).definition() != load(tmp_path, GOOD).definition()


def test_another_start_is_another_definition(tmp_path: Path) -> None:
    text = "  F: [x * G, x]\n  G: [sin(F), cos(x)]\n"
    first, *rest = text.splitlines(keepends=True)
    head = "name: s\ntask: digits\nlearning_rate: {grid: [0.1], default: 0.1}\ndepth: 3\n"
    a = load(tmp_path, f"{head}activation:\n{text}")
    b = load(tmp_path, f"{head}activation:\n{''.join(rest)}{first}")
    assert a.definition() != b.definition()


# --- overrides -----------------------------------------------------------------------------------


def test_overrides_are_read_as_yaml_and_the_last_one_wins(tmp_path: Path) -> None:
    space = load(
        tmp_path,
        GOOD,
        "search.trials=3",
        "search.trials=5",
        "learning_rate={grid: [1e-2, 1e-4], default: 1e-4}",
        "recipe.weight_decay=5e-4",
        "activation.G=[sin(x), 'cos(x)']",
    )
    assert space.search.trials == 5
    assert space.learning_rate == LearningRates((0.0001, 0.01), 0.0001)
    assert space.recipe == {"epochs": 2, "weight_decay": 0.0005}
    assert space.grammar is not None and space.grammar.text()["G"] == ["sin(x)", "cos(x)"]


def test_a_task_given_as_one_word_keeps_the_options(tmp_path: Path) -> None:
    for setting in ("task=mnist", "task.name=mnist"):
        space = load(tmp_path, GOOD, "task.model=mlp", setting)
        assert (space.task, space.options) == ("mnist", {"depth": 1, "model": "mlp"})
    space = load(tmp_path, GOOD, "task={name: mnist}")
    assert (space.task, space.options) == ("mnist", {})
    space = load(tmp_path, GOOD.replace("{name: digits, depth: 1}", "digits"), "task.depth=3")
    assert (space.task, space.options) == ("digits", {"depth": 3})


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("serach.trials=3", "unknown key 'serach'; did you mean 'search'?"),
        ("search.trails=3", "unknown key 'search.trails'; did you mean 'trials'?"),
        ("trials=3", "unknown key 'trials'; did you mean 'search.trials'?"),
        ("search.trials=many", "search.trials: expected a whole number ≥ 0, got 'many'"),
        ("search.trials", "expected key=value, such as --set search.trials=10"),
        ("search..trials=3", "expected key=value, such as --set search.trials=10"),
        ("name.first=a", "no key 'first' here: it is one value"),
        ("seeds.0=5", "no key '0' here: it is a list; set it whole, such as [0, 1]"),
        (
            "task=digit",
            "task: unknown task 'digit'; did you mean 'digits'?; or a path that ends in .py",
        ),
        ("task.dpth=3", "task.dpth: unknown name; did you mean 'depth'?"),
        ("activation.G=[sigmiod(x)]", "G[0]: unknown primitive 'sigmiod'; did you mean 'sigmoid'?"),
        ("gates=!!python/none", "tag '!!python/none' is not allowed; expected plain data"),
    ],
)
def test_a_mistake_in_an_override_names_the_override(
    setting: str, line: str, tmp_path: Path
) -> None:
    assert f"--set {setting}: {line}" in problems(tmp_path, GOOD, setting)


# --- the files that are shipped ------------------------------------------------------------------


SIZES = {
    "core_units": Count(12 * 24 * 25 * (1 + 12 * 24 * 25), 0),
    "fashion": Count(192, 4),
    "gated": Count(192, 4),
    "gated_table": Count(560, 0),
    "golu_paper": None,
}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_files_load(path: Path) -> None:
    space = load_space(path)
    assert space.name == path.stem
    assert (space.grammar.count() if space.grammar else None) == SIZES[space.name]


@pytest.mark.parametrize("name", ["gated", "fashion"])
def test_the_gated_space_expresses_the_gated_baselines(name: str) -> None:
    space = load_space(SPACES / f"{name}.yaml")
    assert space.grammar is not None
    found = {b: space.grammar.find(space.baseline(b)) for b in space.baselines}
    assert {b for b, choices in found.items() if choices} == {
        "gelu",
        "silu",
        "mish",
        "golu",
        "dyn_mish",
    }
    for baseline, choices in found.items():
        if choices:
            derived = space.grammar.derive(choices).expression
            assert fingerprint(derived) == fingerprint(space.baseline(baseline))


def test_core_units_hold_the_functions_that_were_found_with_them() -> None:
    space = load_space(SPACES / "core_units.yaml")
    assert space.grammar is not None
    for name in ("swish_per_channel", "relu", "max_sigmoid"):
        assert space.grammar.find(space.baseline(name)) is not None
    one = replace(space.grammar, depth=3)
    assert one.count() == Count(12 * 24 * 25, 0)


def test_the_golu_study_runs_on_any_task_with_its_own_model() -> None:
    path = SPACES / "golu_paper.yaml"
    space = load_space(path)
    assert space.learning_rate.grid == (0.0001, 0.001, 0.01, 0.1)
    assert (len(space.baselines), space.seeds) == (7, (0, 1, 2))
    for task in ("digits", "mnist", "cifar10"):
        other = load_space(path, [f"task={task}"])
        assert (other.task, other.options) == (task, space.options)
        assert other.recipe == space.recipe


def test_the_two_gated_files_search_the_same_space() -> None:
    gated, fashion = (load_space(SPACES / f"{name}.yaml").grammar for name in ("gated", "fashion"))
    assert gated == fashion
