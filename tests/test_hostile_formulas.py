"""Text that is not a formula: refused with one line, at once, and never executed."""

from __future__ import annotations

import warnings

import pytest

from search.errors import ExpressionError
from search.language.catalog import read_activation
from search.language.derivative import derivative
from search.language.expression import X
from search.language.fingerprint import fingerprint
from search.language.latex import latex
from search.language.parser import (
    LONGEST_TEXT,
    parse,
    parse_constant,
    parse_declaration,
    parse_node,
    split_where,
)
from search.language.simplify import canonical_expression
from tests.hostile_cases import refusal

pytestmark = pytest.mark.usefixtures("no_hang")


CODE = [
    "__import__('os')",
    "__import__('os').system('true')",
    "open('/etc/passwd').read()",
    "().__class__.__bases__[0].__subclasses__()",
    "x.__class__",
    "sin.__globals__",
    "x.real",
    "(1).bit_length()",
    "x[0]",
    "x[::2]",
    "x[x > 0]",
    "[x, x]",
    "(x, x)",
    "x,",
    "{x: x}",
    "{x}",
    "[x for x in (1, 2)]",
    "sum(x for x in (1, 2))",
    "lambda: x",
    "(lambda x: x)(x)",
    "sin(lambda: x)",
    "(y := x)",
    "x := 1",
    "x = 1",
    "x == x",
    "x != 0",
    "x is x",
    "x in x",
    "not x",
    "x and x",
    "x or exp(x)",
    "x if x > 0 else -x",
    "x // 2",
    "x % 2",
    "x @ x",
    "x & 1",
    "x | 1",
    "x ^ 2",
    "~x",
    "x << 2",
    "x >> 2",
    "await x",
    "yield x",
    "(yield x)",
    "f'{x}'",
    "'x'",
    '"x" * 3',
    "b'x'",
    "'x' 'y'",
    "x # comment",
    "x; import os",
    "x\nimport os",
    "import os",
    "del x",
    "print(x)",
    "exec(x)",
    "eval(x)",
    "compile(x)",
    "getattr(x, u)",
    "globals()",
    "exit()",
    "sin()()",
    "sin(x)(x)",
    "(sin)(x)(x)",
    "x(x)",
    "2(x)",
    "...",
    "None",
    "True",
    "False * x",
    "x * True",
    "@x",
    "$x",
    "x?",
    "x!",
    "`x`",
    "\\x",
    "x \\\n + 1",
]


@pytest.mark.parametrize("text", CODE)
def test_code_is_refused(text: str):
    refusal(text)
    refusal(f"x + ({text})")
    refusal(f"sin({text}, {text})")


def test_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refusal("__import__('pathlib').Path('made').touch()")
    refusal("x + open('made', 'w').close()")
    refusal("x where a = __import__('pathlib').Path('made').touch() per layer")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("depth", [101, 150, 500, 1_500, 3_900, 10_000])
@pytest.mark.parametrize(
    "opening, closing",
    [
        ("-", ""),
        ("~", ""),
        ("not ", ""),
        ("sin(", ")"),
        ("std(", ")"),
        ("[", "]"),
        ("x**", ""),
        ("x+", ""),
        ("(x+", ")"),
        ("x-(", ")"),
        ("silu(", ")"),
        ("hard_sigmoid(", ")"),
        ("x if x else ", ""),
        ("lambda:", ""),
        ("select(x > 0, x, ", ")"),
        ("select(", " > 0, x, x)"),
        ("mean(x, over=-", ")"),
        ("x.", "x"),
        ("x[", "]"),
        ("x ** -", ""),
    ],
)
def test_deep_nesting_is_refused(opening: str, closing: str, depth: int):
    text = opening * depth + "x" + closing * depth
    refusal(text)
    refusal(f"x where a = {text} per layer")
    refusal(f"x penalty {text}")


@pytest.mark.parametrize("opening, closing", [("(", ")"), ("+", "")])
def test_brackets_and_signs_without_a_node(opening: str, closing: str):
    assert parse(opening * 50 + "x" + closing * 50) == parse("x")
    for depth in (201, 1_500, 10_000):
        refusal(opening * depth + "x" + closing * depth)


@pytest.mark.parametrize("name", ["silu", "mish", "gelu", "golu", "elu", "leaky_relu", "swish"])
def test_abbreviations_do_not_explode(name: str):
    """Each writes its argument down twice or more: 30 of them are a text of 2**30 characters."""
    for depth in (12, 30, 60, 90):
        message = refusal(f"{name}(" * depth + "x" + ")" * depth)
        assert "characters written out" in message or "nested more than" in message
    assert parse(f"{name}({name}(x))")


@pytest.mark.parametrize("depth", range(28, 101, 4))
def test_what_is_accepted_can_be_written_and_read(depth: int):
    """At the edge of the bounds, where a text with abbreviations grows as it is written out."""
    for text in (
        "hard_sigmoid(" * depth + "x" + ")" * depth,
        "sin(" * depth + "x" + ")" * depth,
        "-" * depth + "x",
        "x - (" * depth + "x" + ")" * depth,
        "x ** -" * depth + "x",
        "sin(-1 * " * depth + "x" + ")" * depth,
    ):
        try:
            e = parse(text)
        except ExpressionError:
            continue
        assert parse(str(e)) == e


def test_the_deepest_formula_passes_through_every_pass():
    e = parse("sin(" * 99 + "x" + ")" * 99)
    assert parse(str(canonical_expression(e))) == canonical_expression(e)
    assert len(fingerprint(e)) == 16
    assert latex(e).count("sin") == 99
    assert derivative(e, X)
    tower = parse("x**" * 99 + "x")
    assert derivative(tower, X) and fingerprint(tower)
    choices = parse("select(x > 0, x, " * 98 + "-x" + ")" * 98)
    assert derivative(choices, X) and fingerprint(choices)


@pytest.mark.parametrize(
    "text",
    [
        "1e999 * x",
        "-1e999 * x",
        "x + 9**9**9**9",
        "x * 9**9**9",
        "x * 10**400",
        "x * " + "9" * 400,
        "x * " + "9" * 3_900,
        "x ** (2**2**2**2**2)",
        "exp(1000) * x",
        "x + 1 / 0",
        "x + log(0)",
        "x + sqrt(-1)",
        "x + (-8) ** (1/3)",
        "x * (1e308 + 1e308)",
        "1e308 * 10 * x",
    ],
)
def test_numbers_that_are_none(text: str):
    message = refusal(text)
    assert "finite number" in message or "too large" in message or "cannot read" in message


@pytest.mark.parametrize(
    "numeral", ["0x10", "0b1", "0o7", "1_000", "1j", "1e5j", "1if", "2x", "1.2.3"]
)
def test_numerals_are_plain_decimals(numeral: str):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert numeral[:3] in refusal(f"x + {numeral}")


@pytest.mark.parametrize("numeral", ["1", "1.", ".5", "1e3", "1E-3", "1.5e+3", "00", "007"])
def test_decimals(numeral: str):
    if numeral == "007":
        refusal(f"x + {numeral}")
    else:
        assert parse(f"x + {numeral}")


@pytest.mark.parametrize(
    "text",
    [
        "х + 1",  # Cyrillic
        "ｘ + 1",  # full width; Python would read it as x
        "x × 2",
        "x − 1",  # minus sign
        "x²",
        "𝑥",
        "sin（x）",
        "ｓｉｎ(x)",
        "x * π",
        "x + ½",
        "x + ٣",  # Arabic-Indic digit
        "α * x where α = 1 per layer",
        "x\u200b + 1",
        "x\u202e + 1",
        "x\ufeff",
        "x \x00",
        "x\x00",
        "\x00",
        "x \x1b[31m",
        "x \x7f",
        "\ud800x",
    ],
)
def test_look_alikes_and_control_characters(text: str):
    refusal(text)
    refusal(f"x where a = {text} per layer")


@pytest.mark.parametrize(
    "text", [None, 3, 2.5, True, b"x", ["x"], {"x": 1}, object(), "", " ", "\n\t "]
)
def test_what_is_no_text(text: object):
    assert "expected a formula" in refusal(text)


@pytest.mark.parametrize("unit", ["x", "x+", " ", "(", "-", "a,", "\n", "'", "\x00", "where ", "é"])
def test_a_megabyte(unit: str):
    refusal(unit * (1_000_000 // len(unit)))
    refusal("x where a = " + unit * (1_000_000 // len(unit)) + " per layer")
    with pytest.raises(ExpressionError):
        parse_node(unit * (1_000_000 // len(unit)))


def test_white_space_in_declarations_is_linear():
    """A pattern with three greedy blanks in a row took minutes."""
    for gap in (" " * 3_900, "\t\n" * 1_900):
        refusal(f"a * x where a ={gap}1{gap[:20]}")
        refusal(f"a * x where a{gap}")
        refusal(f"a * x where a = 1 per{gap}")
    assert parse("a * x where a =" + " " * 3_900 + "1 per layer")


def test_the_other_readers_refuse_alike():
    for reader in (parse_node, parse_constant, parse_declaration, read_activation):
        for text in (
            "__import__('os')",
            "1e999 per layer",
            "x\x00",
            "(" * 300,
            "''",
            "a = 1e999 fixed",
        ):
            with pytest.raises(ExpressionError) as caught:
                reader(text)
            assert "\n" not in str(caught.value)
    for text in ("x where", "", "x where a where b"):
        with pytest.raises(ExpressionError):
            split_where(text)


def test_no_warning_is_raised_by_reading():
    """Python's own parser warns of some texts; a user must not see that."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for text in (r"'\d'", "1if x else 2", "0x1for x in x", "x is 1", "1()", "assert (x, 1)"):
            refusal(text)


def test_the_longest_text_is_a_formula():
    text = "x" + " " * (LONGEST_TEXT - 2) + "\n"
    assert parse(text) == parse("x")
    refusal(text + " ")
