"""Every mistake of a space file is told with its line, all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.errors import SpaceError
from search.space import load_space
from tests.space_cases import GOOD, load, problems

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
    ("device: cpu", "kernel: cc", 15, "kernel: unknown kernel 'cc'; did you mean 'c'?"),
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
