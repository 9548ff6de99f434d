"""A formula in LaTeX's math mode, also readable by matplotlib's mathtext."""

from __future__ import annotations

import re

from search.language.expression import (
    Call,
    Constant,
    Expression,
    Input,
    Node,
    Number,
    Parameter,
    Statistic,
    number_text,
)
from search.language.primitives import PRIMITIVES

_GREEK = {
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "kappa", "lambda"),
    *("mu", "nu", "xi", "rho", "sigma", "tau", "phi", "chi", "psi", "omega"),
}
_SPELLED = {"lam": "lambda", "eps": "epsilon"}
_SUM, _PRODUCT, _SIGN, _POWER, _ATOM = 2, 3, 4, 5, 9


def latex(expression: Expression | Node) -> str:
    """The body in LaTeX, without dollar signs."""
    node = expression.body if isinstance(expression, Expression) else expression
    return _latex(node)[0]


def latex_name(name: str) -> str:
    """`beta1` → `\\beta_{1}`, `lam` → `\\lambda`, `w0` → `w_{0}`."""
    letters, digits = re.fullmatch(r"(.*?)_?(\d*)", name).groups()  # type: ignore[union-attr]
    letters = _SPELLED.get(letters, letters)
    if letters in _GREEK:
        symbol = f"\\{letters}"
    elif len(letters) == 1:
        symbol = letters
    else:
        symbol = "\\mathrm{" + letters.replace("_", "\\_") + "}"
    return f"{symbol}_{{{digits}}}" if digits else symbol


def latex_number(value: float) -> str:
    """`2.5`, `10^{-6}`, `3 \\cdot 10^{8}`; six significant digits."""
    rounded = float(f"{value:.6g}")
    digits = number_text(rounded)
    if "e" not in digits:
        return digits
    mantissa, exponent = digits.split("e")
    power = f"10^{{{int(exponent)}}}"
    return power if mantissa == "1" else f"{mantissa} \\cdot {power}"


def _latex(node: Node) -> tuple[str, int]:
    match node:
        case Number(value):
            return _number(value)
        case Constant(name):
            return ("\\pi" if name == "pi" else name), _ATOM
        case Input("dy"):
            return "\\mathrm{dy}", _ATOM
        case Input(name):
            return name, _ATOM
        case Parameter(name):
            return latex_name(name), _ATOM
        case Statistic(kind, argument, over):
            below = "" if over == "features" else f"_{{\\mathrm{{{over}}}}}"
            return f"\\mathrm{{{kind}}}{below}\\left({_latex(argument)[0]}\\right)", _ATOM
        case Call("add" | "sub" as function, (left, right)):
            symbol = "+" if function == "add" else "-"
            return f"{_wrapped(left, _SUM)} {symbol} {_wrapped(right, _SUM + 1, True)}", _SUM
        case Call("mul", (left, right)):
            return _product(_wrapped(left, _PRODUCT), _wrapped(right, _PRODUCT, True)), _PRODUCT
        case Call("div", (left, right)):
            return f"\\frac{{{_latex(left)[0]}}}{{{_latex(right)[0]}}}", _POWER
        case Call("neg", (operand,)):
            return f"-{_wrapped(operand, _PRODUCT, True)}", _SUM
        case Call("pow", (base, exponent)):
            return f"{_wrapped(base, _ATOM)}^{{{_latex(exponent)[0]}}}", _POWER
        case Call("exp" | "exp2" | "rsqrt" as function, (argument,)):
            return PRIMITIVES[function].latex.format(_latex(argument)[0]), _POWER
        case Call(function, arguments):
            inner = (_latex(argument)[0] for argument in arguments)
            return PRIMITIVES[function].latex.format(*inner), _ATOM


def _number(value: float) -> tuple[str, int]:
    text = latex_number(value)
    if value < 0:
        return text, _SIGN
    return text, _PRODUCT if "\\cdot" in text else _POWER if "^" in text else _ATOM


def _product(left: str, right: str) -> str:
    """A thin space, or a dot where two numbers would read as one."""
    return f"{left} \\cdot {right}" if right[0].isdigit() else f"{left} \\, {right}"


def _wrapped(node: Node, least: int, after_sign: bool = False) -> str:
    """In brackets when it binds less tightly than its place, or begins with a second sign."""
    inner, precedence = _latex(node)
    bare = precedence >= least and not (after_sign and inner.startswith("-"))
    return inner if bare else f"\\left({inner}\\right)"
