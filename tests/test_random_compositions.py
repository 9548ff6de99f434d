"""Random compositions of all primitives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from search.language.derivative import derivative
from search.language.evaluate import evaluate
from search.language.expression import (
    COMPARISONS,
    STATISTICS,
    Call,
    Constant,
    Declaration,
    Expression,
    Node,
    Number,
    Parameter,
    Statistic,
    U,
    X,
    children,
    leaves,
    walk,
)
from search.language.fingerprint import family, fingerprint
from search.language.latex import latex
from search.language.parser import (
    FUNCTIONS,
    LONGEST_TEXT,
    negative,
    parse_node,
)
from search.language.primitives import PRIMITIVES
from search.language.simplify import (
    canonical,
    canonical_expression,
    simplify,
)
from tests.cases import (
    sample_inputs,
)
from tests.language_cases import is_condition, readable, variables

SMALL = settings(
    derandomize=True,
    deadline=None,
    max_examples=150,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TAME = st.sampled_from([-2.0, -1.0, -0.5, 0.25, 0.5, 1.0, 2.0, 3.0, 0.1])
ANY = st.floats(allow_nan=False, allow_infinity=False)
FUNCTION_NAMES = [f for f in FUNCTIONS if PRIMITIVES[f].arity == 1]


def compositions(numbers: st.SearchStrategy[float], statistics: bool) -> st.SearchStrategy[Node]:
    """Formulas as the parser builds them, from every row of the table."""
    leaf = st.one_of(
        st.just(X),
        st.just(X),
        st.sampled_from([U, Parameter("a"), Parameter("b"), Constant("pi"), Constant("e")]),
        numbers.map(Number),
    )

    def extend(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        binary = st.sampled_from(["add", "sub", "mul", "mul", "div", "max", "min", "pow"])
        comparison = st.builds(
            lambda f, a, b: Call(f, (a, b)), st.sampled_from([*COMPARISONS]), inner, inner
        )
        options = [
            st.builds(lambda f, a: Call(f, (a,)), st.sampled_from(FUNCTION_NAMES), inner),
            st.builds(lambda f, a, b: Call(f, (a, b)), binary, inner, inner),
            st.builds(
                lambda a, n: Call("pow", (a, Number(n))), inner, st.sampled_from([2.0, 3.0, -1.0])
            ),
            inner.map(negative),
            st.builds(lambda c, a, b: Call("select", (c, a, b)), comparison, inner, inner),
            st.builds(lambda a, b, c: Call("clip", (a, b, c)), inner, inner, inner),
        ]
        if statistics:
            options.append(
                st.builds(
                    lambda kind, a, over, detach: Statistic(
                        kind, Call("mul", (X, a)), over, detach
                    ),
                    st.sampled_from(STATISTICS),
                    inner,
                    st.sampled_from(["features", "sample", "tensor"]),
                    st.booleans(),
                )
            )
        return st.one_of(options)

    return st.recursive(leaf, extend, max_leaves=10)


def as_expression(node: Node) -> Expression:
    """The node with its parameters declared, and x added where it has no input."""
    if not any(leaf in (X, U) for leaf in leaves(node)):
        node = Call("add", (X, node))
    names = dict.fromkeys(leaf.name for leaf in leaves(node) if isinstance(leaf, Parameter))
    scopes = {"a": Declaration("a", 0.75, "layer"), "b": Declaration("b", -0.5, "channel")}
    return Expression(node, tuple(scopes[name] for name in names))


@SMALL
@given(compositions(ANY, statistics=True))
def test_any_composition_parses_back(node: Node):
    assert parse_node(str(node), ("a", "b")) == node


@SMALL
@given(compositions(TAME, statistics=True))
def test_no_pass_fails_on_any_composition(node: Node):
    e = as_expression(node)
    for leaf in variables(e):
        slope = derivative(e, leaf)
        assert len(str(slope)) > LONGEST_TEXT or parse_node(str(slope), ("a", "b")) == slope
    form = canonical_expression(e)
    assert parse_node(str(form.body), ("a", "b")) == form.body
    assert len(fingerprint(e)) == len(family(e)) == 16
    assert latex(e).count("{") == latex(e).count("}")


@settings(SMALL, max_examples=60)
@given(compositions(TAME, statistics=False))
def test_matplotlib_reads_any_composition(node: Node):
    readable(latex(node))


@SMALL
@given(compositions(TAME, statistics=True))
def test_simplify_keeps_every_bit_of_any_composition(node: Node):
    names = {**sample_inputs(), "a": 0.75, "b": -0.5}
    given_ = np.broadcast_to(evaluate(simplify(node), names), (2, 3, 5))
    np.testing.assert_array_equal(given_, np.broadcast_to(evaluate(node, names), (2, 3, 5)))


@settings(SMALL, max_examples=300)
@given(compositions(TAME, statistics=False))
def test_canonical_keeps_the_value_of_any_composition(node: Node):
    """Where nothing cancels, jumps or grows; a wrong rule is wrong by far more than 1e-9."""
    names = {**sample_inputs((40,)), "a": 0.75, "b": -0.5}
    tame, largest = tame_points(node, names)
    form = canonical(node)
    given_ = np.broadcast_to(evaluate(form, names), 40)[tame]
    wanted = np.broadcast_to(evaluate(node, names), 40)[tame]
    assert np.abs(given_ - wanted).max(initial=0.0) <= 1e-9 * largest
    again = np.broadcast_to(evaluate(canonical(form), names), 40)[tame]
    assert np.abs(again - wanted).max(initial=0.0) <= 1e-9 * largest


def tame_points(node: Node, names: dict) -> tuple[NDArray[np.bool_], float]:
    """Where every part is finite, at most 1e3, off its jumps and not what a cancellation left."""
    tame = np.ones(40, dtype=bool)
    largest = 1.0
    for part in walk(node):
        if is_condition(part):
            continue
        value = np.broadcast_to(evaluate(part, names), 40)
        tame &= np.isfinite(value) & (np.abs(value) < 1e3)
        for distance, scale in hazards(part, names):
            tame &= np.broadcast_to(np.abs(distance) > 1e-4 * scale, 40)
    for part in walk(node):
        if not is_condition(part) and tame.any():
            largest = max(largest, np.abs(np.broadcast_to(evaluate(part, names), 40)[tame]).max())
    return tame, float(largest)


def hazards(part: Node, names: dict) -> Iterator[tuple[NDArray, NDArray]]:
    """Differences that must not be small against their operands."""
    if not isinstance(part, Call):
        return
    values = [evaluate(c, names) for c in children(part) if not is_condition(c)]
    match part.function:
        case "add":
            yield values[0] + values[1], np.abs(values[0]) + np.abs(values[1])
        case "sub":
            yield values[0] - values[1], np.abs(values[0]) + np.abs(values[1])
        case "step" | "sign" | "div" | "log" | "sqrt" | "rsqrt" | "pow":
            yield values[-1 if part.function == "div" else 0], np.ones(())
        case "log1p":
            yield 1 + values[0], np.ones(())
        case "select":
            a, b = (evaluate(c, names) for c in children(part.arguments[0]))
            yield a - b, np.ones(())
