"""`python -m search.show FORMULA|NAME`: everything about one activation, and its picture."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from search.errors import run_cli
from search.language.catalog import equals, read_activation
from search.language.derivative import derivative, input_leaves, parameter_leaves
from search.language.expression import Expression
from search.language.facts import facts
from search.language.fingerprint import fingerprint
from search.language.latex import latex
from search.language.simplify import canonical, canonical_expression


def describe(expression: Expression) -> list[tuple[str, str]]:
    """Label and text of every line that the command prints."""
    found = facts(expression)
    lines = [
        ("formula", str(expression)),
        ("canonical", str(canonical_expression(expression))),
        ("LaTeX", latex(expression)),
    ]
    for leaf in (*input_leaves(expression), *parameter_leaves(expression)):
        lines.append((f"d/d{leaf}", str(canonical(derivative(expression, leaf)))))
    minimum = found.minimum
    lines += [
        ("minimum", f"f({minimum[0]:.10g}) = {minimum[1]:.10g}" if minimum else "none inside"),
        ("at 0", f"f(0) = {found.value_at_zero:.10g}, f'(0) = {found.slope_at_zero:.10g}"),
        ("under N(0,1)", f"mean {found.mean:.10g}, variance {found.variance:.10g}"),
        ("monotonic", f"{found.monotonic} (on [-10, 10])"),
        ("kinks", ", ".join(f"{x:.6g}" for x in found.kinks) or "none (on [-10, 10])"),
        ("catalogue", ", ".join(equals(expression)) or "new: equals no published activation"),
        ("fingerprint", fingerprint(expression)),
    ]
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m search.show", description=__doc__)
    parser.add_argument("activation", help="a formula ('x * gompertz(x)') or a name ('golu')")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("activation.png"), help="the picture's file"
    )
    parser.add_argument("--no-picture", action="store_true", help="print only")
    options = parser.parse_args(argv)
    expression = read_activation(options.activation, "activation")
    for label, text in describe(expression):
        print(f"{label:>13}  {text}")
    if not options.no_picture:
        from search.figures.shapes import draw_expression

        draw_expression(expression, options.output)
        print(f"{'picture':>13}  {options.output}")
    return 0


if __name__ == "__main__":
    run_cli(main)
