"""Formulas, good and spoilt, drawn by Hypothesis.

A formula is a short program for a stack: a leaf pushes, a function wraps the top, an operator joins
the upper two. So one list of whole numbers is a formula, and a shorter list a shorter one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from search.language.parser import FUNCTIONS
from search.language.primitives import ABBREVIATIONS, PRIMITIVES

Pieces = tuple[str, ...]

LEAVES = ("x", "x", "x", "a", "b", "u", "1", "0.5", "-2", "pi", "1e-3", "1/3")
RULES = ("G", "ARG", "H", "LATE_GATE")
UNARY = (*(name for name in FUNCTIONS if PRIMITIVES[name].arity == 1), *ABBREVIATIONS)
STATISTICS = ("std({})", "mean({}, over=sample)", "rms({}, detach)", "var({}, over=tensor, detach)")
BINARY = ("{} + {}", "{} * {}", "{} - {}", "{} / {}", "({}) ** ({})", "min({}, {})", "max({}, {})")
CODES = len(LEAVES) + len(RULES) + len(UNARY) + len(STATISTICS) + len(BINARY) + 2
CLAUSES = (
    "{} = 1 per layer",
    "{} = 1/3 per channel",
    "{} = sqrt(2/pi) fixed",
    "{} in [0, 1]",
    "{} in log[0.5, 2]",
    "{} in {{1, 2, 1/3}}",
    "{} in [2, 1]",
    "{} in log[-1, 1]",
    "{} in [1, 2, 3]",
    "{} in {{}}",
    "{} in {{1, 1}}",
    "{} in [0, inf]",
    "{} = nan per layer",
    "{} = x per layer",
    "{} per layer",
    "{} = 1",
    "",
)
PIECES = (
    *(
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        "=",
        ":",
        " ",
        "+",
        "-",
        "*",
        "**",
        "/",
        "<",
        ">",
        ".",
        "#",
    ),
    *(
        " where ",
        " penalty ",
        " per layer",
        " per channel",
        " fixed",
        " in ",
        "detach",
        "over=",
        "\\",
    ),
    *(
        "lambda: ",
        "if",
        "not ",
        "await ",
        "__import__('os')",
        ".__class__",
        "[0]",
        ":=",
        "True",
        "x x",
    ),
    *("1e999", "-1e999", "nan", "inf", "9**9**9", "0x1F", "1_0", "1j", "007", "1e-320", "9" * 400),
    *("\x00", "\x1b[2J", "\r", "\n", "\t", "\x7f", "\x85", "\u2028", "\ufeff", "\u202e", "\ud800"),
    *(
        "é",
        "х",
        "π",
        "٣",
        "²",
        "𝑥",
        "（",
        "A",
        "GG",
        "Gate",
        "silu(",
        "hard_sigmoid(",
        "select(x > 0, ",
    ),
    *(
        "(" * 120,
        "-" * 120,
        "sin(" * 120,
        "x**" * 120,
        "silu(" * 30,
        " " * 3000,
        "a" * 3000,
        "x+" * 2500,
    ),
)


def built(program: Sequence[int], rules: bool) -> str:
    """The formula of a program; CAPITALS of a space's rules only where there are some."""
    stack: list[str] = []
    for code in program:
        _step(code, stack, rules)
    return " + ".join(stack) or "x"


def _step(code: int, stack: list[str], rules: bool) -> None:
    for kinds in (LEAVES, RULES, UNARY, STATISTICS, BINARY):
        if code < len(kinds):
            break
        code -= len(kinds)
    else:
        kinds = ()
    top: Callable[[], str] = lambda: stack.pop() if stack else "x"  # noqa: E731
    if kinds is LEAVES or kinds is RULES:
        stack.append(kinds[code] if kinds is LEAVES or rules else "x")
    elif kinds is UNARY:
        stack.append(f"{UNARY[code]}({top()})")
    elif kinds is STATISTICS:
        stack.append(STATISTICS[code].format(top()))
    elif kinds is BINARY:
        stack.append(BINARY[code].format(top(), top()))
    else:
        stack.append(f"({top()})" if code else f"select({top()} > 0, {top()}, {top()})")


def spoilt(text: str, changes: Sequence[tuple[int, int, int]], pieces: Pieces) -> str:
    """The text after every change: a piece put in, a span cut out, replaced or written twice."""
    for kind, at, piece in changes:
        at %= len(text) + 1
        length = 1 + piece % 7
        inside = text[at : at + length]
        new = (pieces[piece % len(pieces)], "", pieces[piece % len(pieces)], inside * 2)[kind % 4]
        text = text[:at] + new + text[at + (0 if kind % 4 == 0 else length) :]
    return text


SMALL = st.integers(0, 255)
CHANGES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4_000), SMALL), max_size=3)


@st.composite
def formulas(draw: st.DrawFn, rules: bool = False) -> str:
    """A formula with its clauses; about half of them are spoilt somewhere."""
    program = draw(st.lists(st.integers(0, CODES - 1), max_size=12))
    known = len(CLAUSES) if draw(st.booleans()) else 6 if rules else 3
    clauses = draw(st.lists(st.integers(0, known - 1), max_size=2))
    text = built(program, rules)
    used = [name for code, name in ((3, "a"), (4, "b")) if code in program]
    names = used if draw(st.integers(0, 7)) != 5 else ["b", "a"]
    declared = zip(names, [*clauses, 0, 1], strict=False)
    where = ", ".join(CLAUSES[clause].format(name) for name, clause in declared)
    text += f" where {where}" if where else ""
    text += " penalty std(x)" if len(program) % 7 == 6 else ""
    return spoilt(text, draw(CHANGES) if draw(st.booleans()) else (), PIECES)
