"""Any text at all is a formula that reads back, or is refused with one line."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from search.errors import ExpressionError
from search.language.catalog import CATALOG
from search.language.derivative import derivative
from search.language.expression import Expression, X
from search.language.fingerprint import fingerprint
from search.language.latex import latex
from search.language.parser import FUNCTIONS, parse
from search.language.simplify import canonical_expression
from tests.cases import WRITTEN

PIECES = st.sampled_from(
    [
        *("x", "u", "a", "b", "pi", "e", "dy", "1", "0.5", "1e3", "-1", "1e999", "2", "0"),
        *("+", "-", "*", "/", "**", ">", "<=", "(", ")", ",", " ", "=", ".", "[", "]", "'", "\n"),
        *(f"{name}(" for name in (*FUNCTIONS, "silu", "mean", "std", "select")),
        *(
            " where ",
            " penalty ",
            " per layer",
            " per channel",
            " fixed",
            "a = 1",
            "over=",
            "detach",
        ),
        *("lambda", "if", "else", "for", "in", "not", ":", ":=", "\x00", "é", "{", "}", "#", "\\"),
    ]
)

pytestmark = pytest.mark.usefixtures("no_hang")

QUIET = settings(derandomize=True, deadline=None, database=None, max_examples=400)


def read_or_refuse(text: str) -> Expression | None:
    """A formula whose text reads back, or one line of refusal; nothing else may happen."""
    try:
        e = parse(text, "fuzz")
    except ExpressionError as error:
        assert len(error.problems) == 1
        assert "\n" not in str(error) and len(str(error)) < 400
        return None
    assert parse(str(e)) == e
    return e


@QUIET
@given(st.lists(PIECES, max_size=14).map("".join))
@example("x where a = 1 fixed penalty")
def test_any_sequence_of_pieces(text: str):
    read_or_refuse(text)


@QUIET
@given(st.text(max_size=60))
def test_any_text(text: str):
    read_or_refuse(text)


@QUIET
@given(
    st.sampled_from([*WRITTEN.values(), *(row.formula for row in CATALOG.values())]),
    st.integers(0, 10_000),
    st.integers(0, 3),
    st.lists(PIECES, max_size=2).map("".join),
)
def test_any_formula_with_one_place_spoilt(text: str, start: int, length: int, piece: str):
    start %= len(text)
    e = read_or_refuse(text[:start] + piece + text[start + length :])
    if e is not None and len(str(e)) < 300:
        assert fingerprint(e) and latex(e) and derivative(e, X)
        canonical_expression(e)
