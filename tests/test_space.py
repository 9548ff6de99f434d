"""Space files: what they mean, and that every mistake is told with its line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from search.errors import SpaceError
from search.language.catalog import CATALOG
from search.language.fingerprint import fingerprint
from search.language.parser import parse
from search.space import Count, LearningRates, Resources, SearchSettings, Space, load_space

SPACES = Path(__file__).parent.parent / "spaces"
SHIPPED = sorted(SPACES.glob("*.yaml"))

GOOD = """\
name: small
task: {name: digits, depth: 1}
recipe: {epochs: 2}
activation:
  F: [x * G, x]
  G:
    - sigmoid(s * x) where s in [0.5, 2]
    - gompertz(x)
baselines: [relu]
learning_rate: {grid: [0.1, 1e-3], default: 0.1, extend: no}
seeds: [3, 1]
search: {sampler: random, trials: 7, seed: 2, objectives: [accuracy, cost], stopping: asha}
resources: {cpu: 2, gpu: 0.25, max_concurrent: 3}
gates: off
device: cpu
data_root: ~/data
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "s.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str, *overrides: str) -> Space:
    return load_space(write(folder, text), overrides)


def problems(folder: Path, text: str, *overrides: str) -> list[str]:
    """Every line that loading `text` is answered with, the file's name cut to `s.yaml`."""
    path = write(folder, text)
    with pytest.raises(SpaceError) as error:
        load_space(path, overrides)
    assert all("\n" not in line for line in error.value.problems)
    return [line.replace(str(path), "s.yaml") for line in error.value.problems]


# --- what a file means --------------------------------------------------------------------------


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


# --- resolved and definition --------------------------------------------------------------------


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


# --- overrides ----------------------------------------------------------------------------------


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


# --- mistakes -----------------------------------------------------------------------------------

# (text of GOOD, what stands there instead, line of the file, what is told)
MISTAKES = [
    (
        "name: small\n",
        "",
        1,
        "name is missing; expected the name of the study and of the folder of its results",
    ),
    (
        "name: small",
        "name: a/b",
        1,
        "name: expected 1 to 64 letters, digits, '_', '-' or '.', beginning with a letter or digit,"
        " got 'a/b'",
    ),
    ("name: small", "name: [a]", 1, "name: expected text, got a list"),
    ("name: small", "nmae: small", 1, "unknown key 'nmae'; did you mean 'name'?"),
    ("gates: off", "on: 3", 14, "unknown key 'on'"),
    ("gates: off", "depth: 0", 14, "depth: expected a whole number 1 … 32, got 0"),
    (
        "{name: digits, depth: 1}",
        "digts",
        2,
        "task: unknown task 'digts'; did you mean 'digits'?",
    ),
    (
        "{name: digits, depth: 1}",
        "{depth: 1}",
        2,
        "task.name is missing; expected a task such as digits, or ./my_task.py beside this file",
    ),
    (
        "{name: digits, depth: 1}",
        "[digits]",
        2,
        "task: expected a mapping of keys and values, got a list",
    ),
    ("depth: 1}", "dept: 1}", 2, "task.dept: unknown name; did you mean 'depth'?"),
    ("depth: 1}", "depth: deep}", 2, "task.depth: got 'deep'; expected a whole number ≥ 1"),
    ("epochs: 2", "epoch: 2", 3, "recipe.epoch: unknown name; did you mean 'epochs'?"),
    ("epochs: 2", "epochs: 0", 3, "recipe.epochs: got 0; expected a whole number ≥ 1"),
    (
        "epochs: 2",
        "learning_rate: 2",
        3,
        "recipe.learning_rate: the sweep sets it; expected learning_rate.default",
    ),
    ("  F: [x * G, x]\n", "  F: []\n", 5, "rule F is empty; expected at least one formula"),
    ("  F: [x * G, x]\n", "  F: [x * H]\n", 5, "F[0]: undefined rule 'H'; known: F, G"),
    ("  F: [x * G, x]\n", "  F: [x]\n", 6, "rule G cannot be reached from the start rule F"),
    (
        "    - gompertz(x)\n",
        "    - gomperz(x)\n",
        8,
        "G[1]: unknown primitive 'gomperz'; did you mean 'gompertz'?",
    ),
    (
        "    - gompertz(x)\n",
        "    - a: b\n",
        8,
        "G[1]: expected a formula, got a mapping; quote it if it holds ': '",
    ),
    (
        "    - gompertz(x)\n",
        "    - G + x\n",
        4,
        "depth is missing; expected a bound, since G leads back to itself",
    ),
    (
        "[0.5, 2]",
        "[2, 0.5]",
        7,
        "G[0]: range of 's': `low <= high` must hold, but got (low=2, high=0.5)",
    ),
    ("[relu]", "[rleu]", 9, "baselines: unknown activation 'rleu'; did you mean 'relu'?"),
    ("[relu]", "[relu, relu]", 9, "baselines: 'relu' stands twice"),
    ("[relu]", "[relu, 'max(0, x)']", 9, "baselines: 'max(0, x)' is the same function as 'relu'"),
    ("[relu]", "[{gelu: x}]", 9, "baselines: 'gelu' is published; choose another name"),
    (
        "[relu]",
        "[{a: x, b: x}]",
        9,
        "baselines: 2 keys; expected a published activation, a formula, or one `name: formula`",
    ),
    (
        "[relu]",
        "{a: x}",
        9,
        "baselines: expected a list of activations, such as [relu, gelu], got a mapping",
    ),
    ("[0.1, 1e-3]", "[]", 10, "learning_rate.grid is empty; expected at least one rate"),
    ("[0.1, 1e-3]", "[0.1, 0]", 10, "learning_rate.grid: expected a number > 0, got 0"),
    ("[0.1, 1e-3]", "[0.1, -1e-3]", 10, "learning_rate.grid: expected a number > 0, got -1e-3"),
    ("[0.1, 1e-3]", "[0.1, .inf]", 10, "learning_rate.grid: expected a number > 0, got .inf"),
    ("[0.1, 1e-3]", "[0.1, 0.10]", 10, "learning_rate.grid: 0.1 stands twice"),
    (
        "default: 0.1",
        "default: 0.2",
        10,
        "learning_rate.default: expected a rate of the grid (0.001, 0.1), got 0.2",
    ),
    ("default: 0.1, ", "", 10, "learning_rate.default is missing; expected one rate of the grid"),
    (
        "extend: no",
        "extend: maybe",
        10,
        "learning_rate.extend: expected true or false, got 'maybe'",
    ),
    ("extend: no", "etxend: no", 10, "unknown key 'learning_rate.etxend'; did you mean 'extend'?"),
    ("[3, 1]", "[3, 3]", 11, "seeds: 3 stands twice"),
    ("[3, 1]", "[3, -1]", 11, "seeds: expected a whole number 0 … 4294967295, got -1"),
    ("[3, 1]", "0", 11, "seeds: expected a list such as [0, 1], or how many (1 … 10000), got 0"),
    (
        "sampler: random",
        "sampler: tpee",
        12,
        "search.sampler: unknown sampler 'tpee'; did you mean 'tpe'?",
    ),
    (
        "sampler: random",
        "sampler: cmaes",
        12,
        "search.sampler: cmaes takes one objective; several are served by tpe, random, qmc, gp,"
        " nsgaii, bruteforce",
    ),
    (
        "sampler: random",
        "sampler: cmaes",
        12,
        "search.sampler: cmaes moves numbers only, and this grammar has 3 shapes and 1 ranges;"
        " expected one shape with two ranges or more, or another sampler (tpe, gp)",
    ),
    (
        "sampler: random",
        "sampler: bruteforce",
        12,
        "search.sampler: bruteforce needs a finite space, and this grammar has ranges; expected"
        " {a, b, c} instead of [a, b], or another sampler",
    ),
    ("trials: 7", "trials: -7", 12, "search.trials: expected a whole number ≥ 0, got -7"),
    ("trials: 7", "trials: 7.5", 12, "search.trials: expected a whole number ≥ 0, got 7.5"),
    ("trials: 7", "trials: true", 12, "search.trials: expected a whole number ≥ 0, got true"),
    (
        "seed: 2",
        "seed: 4294967296",
        12,
        "search.seed: expected a whole number ≤ 4294967295, got 4294967296",
    ),
    (
        "[accuracy, cost]",
        "[speed]",
        12,
        "search.objectives: expected one of accuracy, score, loss, cost, got 'speed'",
    ),
    (
        "[accuracy, cost]",
        "[loss, accuracy]",
        12,
        "search.objectives: accuracy or loss; the report shows both",
    ),
    ("[accuracy, cost]", "[accuracy, score]", 12, "search.objectives: 'score' stands twice"),
    (
        "stopping: asha",
        "stopping: soon",
        12,
        "search.stopping: unknown stopping 'soon'; known: asha, median",
    ),
    ("cpu: 2", "cpu: 0", 13, "resources.cpu: expected a number > 0, got 0"),
    ("gpu: 0.25", "gpu: -1", 13, "resources.gpu: expected a number ≥ 0, got -1"),
    (
        "max_concurrent: 3",
        "max_concurrent: 0",
        13,
        "resources.max_concurrent: expected a whole number ≥ 1, got 0",
    ),
    (
        "max_concurrent: 3",
        "max_parallel: 3",
        13,
        "unknown key 'resources.max_parallel'; known: cpu, gpu, max_concurrent",
    ),
    ("gates: off", "timeout: 0", 14, "timeout: expected a number > 0, got 0"),
    ("gates: off", "timeout: long", 14, "timeout: expected a number > 0, got 'long'"),
    ("gates: off", "timout: 60", 14, "unknown key 'timout'; did you mean 'timeout'?"),
    ("gates: off", "gates: of", 14, "gates: expected true or false, got 'of'"),
    ("device: cpu", "device: gpu", 15, "device: unknown device 'gpu'; did you mean 'cpu'?"),
    ("device: cpu", "name: other", 15, "key 'name' stands twice; the first is at s.yaml:1"),
    (
        "device: cpu",
        "device: !!python/name:os.system x",
        15,
        "tag '!!python/name:os.system' is not allowed; expected plain data",
    ),
    (
        "[3, 1]",
        "&a [3, 1]\ndepth: *a",
        12,
        "an alias (*name) is not allowed; expected the value written out",
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "line", "told"), MISTAKES, ids=[m[3][:44] for m in MISTAKES]
)
def test_a_mistake_is_told_with_its_line(
    old: str, new: str, line: int, told: str, tmp_path: Path
) -> None:
    assert GOOD.count(old) >= 1
    found = problems(tmp_path, GOOD.replace(old, new, 1))
    assert any(p.startswith(f"s.yaml:{line}: {told}") for p in found), found


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
name: my study
task: {name: digits, model: cnnn}
serach: {trials: 3}
activation:
  F:
    - x * G
    - x * sigmiod(x)
  G: ['tanh(s * x) where s in [2, 1]', x]
baselines: [relu, gleu]
learning_rate:
  grid: [0.1, -1]
  default: 0.5
search: {sampler: tpee, trials: -1}
"""
    assert problems(tmp_path, text, "seeds=[]", "gates=perhaps") == [
        "s.yaml:1: name: expected 1 to 64 letters, digits, '_', '-' or '.', beginning with a letter"
        " or digit, got 'my study'",
        "s.yaml:2: task.model: unknown model 'cnnn'; did you mean 'cnn'?",
        "s.yaml:3: unknown key 'serach'; did you mean 'search'?",
        "s.yaml:7: F[1]: unknown primitive 'sigmiod'; did you mean 'sigmoid'?",
        "s.yaml:8: G[0]: range of 's': `low <= high` must hold, but got (low=2, high=1)",
        "s.yaml:9: baselines: unknown activation 'gleu'; did you mean 'gelu'?",
        "s.yaml:11: learning_rate.grid: expected a number > 0, got -1",
        "s.yaml:12: learning_rate.default: expected a rate of the grid (0.1), got 0.5",
        "s.yaml:13: search.sampler: unknown sampler 'tpee'; did you mean 'tpe'?",
        "s.yaml:13: search.trials: expected a whole number ≥ 0, got -1",
        "--set seeds=[]: seeds: expected a list such as [0, 1], or how many (1 … 10000),"
        " got an empty list",
        "--set gates=perhaps: gates: expected true or false, got 'perhaps'",
    ]


def test_without_activation_there_is_nothing_to_search(tmp_path: Path) -> None:
    head = "name: s\ntask: digits\nlearning_rate: {grid: [0.1], default: 0.1}\n"
    assert problems(tmp_path, head) == [
        "s.yaml:1: activation is missing; expected rules to search, or baselines to compare, or"
        " both"
    ]
    text = f"{head}baselines: []\nsearch: {{trials: 4}}\ndepth: 3\n"
    assert problems(tmp_path, text) == [
        "s.yaml:4: baselines is empty, and there is no activation to search",
        "s.yaml:5: search.trials: expected 0, since there is no activation to search, got 4",
        "s.yaml:6: depth has no use without activation; expected both or none",
    ]


def test_cmaes_and_bruteforce_are_taken_where_they_can_serve(tmp_path: Path) -> None:
    pytest.importorskip("cmaes")
    head = "name: s\ntask: digits\nlearning_rate: {grid: [0.1], default: 0.1}\n"
    shape = "activation: {F: ['a * tanh(b * x) where a in [1, 2], b in log[1, 2]']}\n"
    assert load(tmp_path, head + shape + "search: {sampler: cmaes}").search.sampler == "cmaes"
    shapes = "activation: {F: ['tanh(b * x) where b in {1, 2}', sin(x)]}\n"
    assert load(tmp_path, head + shapes + "search: {sampler: bruteforce}").search.trials == 40


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "s.yaml:1: name is missing"),
        (b"- a\n- b\n", "s.yaml:1: expected keys and values such as 'name: gated'"),
        (b"just words\n", "s.yaml:1: expected keys and values such as 'name: gated'"),
        (b"name: s\ntask: [digits\nseeds: 3\n", "s.yaml:3: not YAML: "),
        (b"name: s\n\ttask: digits\n", "s.yaml:2: not YAML: "),
        (b"name: s\nactivation: {F: [*x]}\n", "s.yaml:2: not YAML: found undefined alias 'x'"),
        (b"name: one\n---\nname: two\n", "s.yaml:2: not YAML: "),
        (b"name: \xff\xfe\n", "s.yaml: byte 6 is not UTF-8 text"),
        (b"name: a\x00b\n", "s.yaml: not YAML: unacceptable character"),
        (b'name: "\\UFFFFFFFF"\n', "s.yaml: not YAML: "),
        (b"name: " + b"[" * 20_000, "s.yaml: nested too deeply for a space file"),
        (b"? [a]\n: b\n", "s.yaml:1: a key must be one word"),
    ],
)
def test_what_is_no_space_file_is_told_in_one_line(
    content: bytes, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(content)
    with pytest.raises(SpaceError) as error:
        load_space(path)
    assert str(error.value).splitlines()[0].replace(str(path), "s.yaml").startswith(told)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "no", "No such file or directory")):
        with pytest.raises(SpaceError) as error:
            load_space(path)
        assert str(error.value) == f"{path}: cannot read the space file: {why}"


# --- the files that are shipped -----------------------------------------------------------------

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
