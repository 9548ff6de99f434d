"""What the fuzzing has found, each fault with the input that showed it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from outcomes import bounded, told

from search.errors import ExpressionError, SearchError, SpaceError, StudyError
from search.figures.settings import settings_from_folder
from search.language.facts import facts
from search.language.fingerprint import fingerprint
from search.language.parser import parse
from search.run import main
from search.space import Space, load_space

HEAD = "name: fuzz\ntask: digits\nlearning_rate: {grid: [0.1], default: 0.1}\n"


def loaded(folder: Path, text: str, *overrides: str) -> Space:
    path = folder / "s.yaml"
    path.write_text(text, encoding="utf-8")
    with bounded():
        return load_space(path, overrides)


@pytest.mark.parametrize(
    "text",
    [
        "x where\ufeff a = 1 per layer",
        "a * x where a = \x1b[2J per layer",
        "x where \u202ea = 1 per layer",
        "x where a\u200b = 1 per layer",
    ],
)
def test_nothing_in_a_message_moves_a_cursor(text: str):
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    told(caught.value.problems)


@pytest.mark.parametrize("setting", ["\x1b", "\x1b[2J=1", "a=\x1b[2J", "\u2028", "n" * 5_000])
def test_an_override_is_told_on_a_line_that_can_be_read(setting: str, tmp_path: Path):
    with pytest.raises(SpaceError) as caught:
        loaded(tmp_path, HEAD + "baselines: [relu]\n", setting)
    told(caught.value.problems)


@pytest.mark.parametrize(
    "line",
    [
        "task: " + "digits " * 900,
        "task: {name: digits, model: " + "m" * 5_000 + "}",
        "task: {name: digits, " + "k" * 900 + ": 1}",
        "recipe: {optimizer: " + "o" * 5_000 + "}",
        "recipe: {epochs: [" + "1, " * 2_000 + "1]}",
        "baselines: [" + "b" * 5_000 + "]",
        "activation: {F: [x * s where s in [0, 1], " + "z" * 3_000 + " = 1 per layer]}",
        "activation: {F: ['x where " + "z" * 3_000 + " in [0, 1]']}",
        "activation: {" + "f" * 3_000 + ": x}",
    ],
)
def test_no_word_makes_a_long_line(line: str, tmp_path: Path):
    kept = "".join(f"{each}\n" for each in HEAD.splitlines() if each.split(":")[0] not in line)
    with pytest.raises(SpaceError) as caught:
        loaded(tmp_path, kept + line)
    told(caught.value.problems)


@pytest.mark.parametrize("unit", ["[", "{", "[{", "!t [", "{a: ", "? [", "- ", "\n "])
@pytest.mark.parametrize("times", [60, 300, 3_000, 30_000])
def test_brackets_in_brackets_take_no_time(unit: str, times: int, tmp_path: Path):
    with pytest.raises(SpaceError):
        loaded(tmp_path, HEAD + "baselines: " + unit * times)


def test_a_space_file_has_an_end(tmp_path: Path):
    with pytest.raises(SpaceError, match=r"200,\d+ characters; expected at most 100,000"):
        loaded(tmp_path, HEAD + "baselines: [relu]\n" + "#" * 200_000)


def test_a_thousand_rules_and_a_thousand_formulas_are_read_within_their_second(tmp_path: Path):
    ends = "".join(f"  F{i}: [x * F{i + 1}, x]\n" for i in range(1_000)) + "  F1000: x\n"
    assert loaded(tmp_path, f"{HEAD}depth: 32\nactivation:\n{ends}")
    many = "".join(f"    - x * sigmoid(x + {i})\n" for i in range(1_000))
    assert loaded(tmp_path, f"{HEAD}activation:\n  F:\n{many}")
    endless = "".join(f"  F{i}: [x * F{(i + 1) % 1_000}]\n" for i in range(1_000))
    with pytest.raises(SpaceError) as caught:
        loaded(tmp_path, f"{HEAD}depth: 32\nactivation:\n{endless}")
    assert len(caught.value.problems) == 1_000
    assert all("never ends" in line for line in caught.value.problems)


@pytest.mark.parametrize("text", ["x + arcsin(arcsin(1))", "x * 9**9**9", "G penalty 1/0"])
def test_a_rule_has_finite_constants_as_any_formula_has(text: str, tmp_path: Path):
    with pytest.raises(SpaceError, match="expected a finite number"):
        loaded(tmp_path, f"{HEAD}activation:\n  F: ['{text}', G]\n  G: x\n")


def test_values_near_the_end_of_float64_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(fingerprint(parse("x * 1.7e308 / 8"))) == 16
        assert len(fingerprint(parse("x ** 341"))) == 16


@pytest.mark.parametrize("text", ["arcsin(x)", "log(x)", "x / x", "1e300 * x ** 9", "u / (x - x)"])
def test_the_facts_of_a_function_that_is_not_finite_warn_of_nothing(text: str):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert facts(parse(text)) is not None


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 5_000,
        b'{"storage": "", "study": ""}',
        b'{"storage": "://", "study": "a"}',
        b'{"storage": 3, "study": []}',
        b"\xff\xfe",
        b"null",
    ],
)
def test_a_damaged_pointer_is_told(content: bytes, tmp_path: Path):
    (tmp_path / "storage.json").write_bytes(content)
    with pytest.raises(SearchError) as caught:
        main(["--check", str(tmp_path)])
    told(caught.value.problems)


@pytest.mark.parametrize(
    "text",
    ["seeds: 100000000000000", "seeds: .inf", "placebos: .inf", "[" * 400, "? [a]: 1", "a: \x00"],
)
def test_damaged_settings_are_told(text: str, tmp_path: Path):
    (tmp_path / "space.yaml").write_text(text)
    (tmp_path / "environment.json").write_text(json.dumps({}))
    with bounded(), pytest.raises(StudyError) as caught:
        settings_from_folder(tmp_path)
    told(caught.value.problems)


def test_names_of_rules_in_a_list_of_known_ones_are_printable(tmp_path: Path):
    rules = '  F: [x * G]\n  "\\x1b[2J": [sigmoid(x)]\n'
    with pytest.raises(SpaceError) as caught:
        loaded(tmp_path, f"{HEAD}activation:\n{rules}")
    assert all(line.isprintable() for line in str(caught.value).splitlines())
    assert "undefined rule 'G'; known: F, \\x1b[2J" in str(caught.value)


def test_names_of_rules_in_places_are_printable(tmp_path: Path):
    with pytest.raises(SpaceError) as caught:
        loaded(tmp_path, f'{HEAD}activation:\n  "\\x1b[2J": [x * tanh(x), x * tanh(x)]\n')
    assert "\\x1b[2J[1]: the same alternative" in str(caught.value)
    assert all(line.isprintable() for line in str(caught.value).splitlines())
