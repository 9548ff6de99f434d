"""Text to formula, through Python's own grammar and an allow-list. Nothing is ever executed.

    x * gompertz(beta * x) where beta = 1 per channel

`ast.parse` reads the body in expression mode; the walk below accepts numbers, the operators
`+ - * / **`, one comparison inside `select`, names and calls of the table, and refuses the rest:
attributes, subscripts, strings, lambdas, comprehensions, keywords it does not know.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Collection
from functools import cache
from keyword import iskeyword

from search.errors import ExpressionError, near_miss, shortened
from search.language.expression import (
    OVER,
    STATISTICS,
    Call,
    Constant,
    Declaration,
    Expression,
    Input,
    Node,
    Number,
    Over,
    Parameter,
    Scope,
    Statistic,
    children,
    leaves,
    substitute,
    walk,
)
from search.language.primitives import ABBREVIATIONS, PRIMITIVES

LONGEST_TEXT = 4_000
DEEPEST_NESTING = 100
CONSTANTS = {"pi": math.pi, "e": math.e}
_OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.Pow: "pow",
}
_COMPARISONS: dict[type[ast.AST], str] = {
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.Lt: "lt",
    ast.LtE: "le",
}
_INTERNAL = {"add", "sub", "mul", "div", "pow", "neg", "gt", "ge", "lt", "le"}
FUNCTIONS = tuple(name for name in PRIMITIVES if name not in _INTERNAL)
RESERVED = frozenset(
    {"x", "u", "dy", "where", "per", "layer", "channel", "fixed", "penalty", "in", "detach", "over"}
    | {*CONSTANTS, *FUNCTIONS, *STATISTICS, *ABBREVIATIONS}
)
# Beyond Python's own grammar: plain ASCII without quotes, comments and escapes; decimal numbers.
_STRANGE = re.compile(r"""[^ -~]|["'#\\`]""")
_NUMERAL = re.compile(r"(?<![\w.])\.?\d(?:[\w.]|(?<=[eE])[+-])*")
_DECIMAL = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DECLARATION = re.compile(r"(?P<name>\w+)\s*=\s*(?P<initial>.+?)\s+(?P<scope>per\s+\w+|fixed)")


def parse(text: str, place: str = "formula") -> Expression:
    """The activation that `text` describes.

    Raises ExpressionError with one line per mistake, each starting with `place`.

    >>> str(parse("x*sigmoid(b*x) where b=1 per layer"))
    'x * sigmoid(b * x) where b = 1 per layer'
    """
    body_text, clauses, penalty_text = split_where(text, place)
    parameters = tuple(parse_declaration(clause, place) for clause in clauses)
    names = [p.name for p in parameters]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ExpressionError(f"{place}: '{shortened(twice[0])}' is declared twice")
    body = parse_node(body_text, names, place)
    penalty = parse_node(penalty_text, names, place) if penalty_text is not None else None
    expression = Expression(body, parameters, penalty)
    if (n := len(str(expression))) > LONGEST_TEXT:
        raise ExpressionError(f"{place}: {n:,} characters written out; at most {LONGEST_TEXT:,}")
    used = {n for part in (body, penalty) if part for n in leaves(part)}
    unused = [name for name in names if Parameter(name) not in used]
    if unused:
        raise ExpressionError(f"{place}: '{shortened(unused[0])}' is declared but never used")
    if not any(n in _INPUTS for n in leaves(body)):
        raise ExpressionError(f"{place}: the formula does not use its input x")
    for part in (body, penalty):
        _refuse_constant_statistics(part, place)
        refuse_overflow(part, place)
    return expression


_INPUTS = (Input("x"), Input("u"))


def _refuse_constant_statistics(node: Node | None, place: str) -> None:
    for part in walk(node) if node else ():
        if isinstance(part, Statistic) and not any(isinstance(n, Input) for n in leaves(part)):
            raise ExpressionError(f"{place}: '{shortened(str(part))}' is no statistic: it has no x")


def refuse_overflow(node: Node | None, place: str) -> None:
    """A constant part of a formula must be a finite number: no `9**9**9**9`, no `1/0`."""
    from search.language.evaluate import evaluate

    constant: set[Node] = set()
    for part in walk(node) if node else ():
        if isinstance(part, Number | Constant) or (
            isinstance(part, Call) and all(a in constant for a in part.arguments)
        ):
            constant.add(part)
            value = float(evaluate(part, {}))
            if not math.isfinite(value):
                text = shortened(str(part))
                raise ExpressionError(f"{place}: '{text}' is {value}; expected a finite number")


def split_where(text: str, place: str = "formula") -> tuple[str, list[str], str | None]:
    """`(body, where-clauses, penalty)` of a text, none of them parsed yet.

    >>> split_where("a * x where a = 1 per layer, s in [0, 1]")
    ('a * x', ['a = 1 per layer', 's in [0, 1]'], None)
    """
    if not isinstance(text, str) or not text.strip():
        got = shortened(repr(text)[:LONGEST_TEXT])
        raise ExpressionError(f"{place}: expected a formula such as 'x * sigmoid(x)', got {got}")
    if len(text) > LONGEST_TEXT:
        raise ExpressionError(f"{place}: {len(text):,} characters; at most {LONGEST_TEXT:,}")
    head, *rest = re.split(r"\bpenalty\b", text)
    body, *where = re.split(r"\bwhere\b", head)
    if len(rest) > 1 or len(where) > 1:
        word = "penalty" if len(rest) > 1 else "where"
        raise ExpressionError(f"{place}: '{word}' stands twice; once is enough")
    clauses = _split_commas(where[0]) if where else []
    if where and not all(clauses):
        raise ExpressionError(f"{place}: an empty clause after 'where'; expected 'a = 1 per layer'")
    return body.strip(), clauses, rest[0].strip() if rest else None


def _split_commas(text: str) -> list[str]:
    """Split at the commas outside brackets."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


def parse_declaration(clause: str, place: str = "formula") -> Declaration:
    """`a = 1 per layer`, `s = 1/3 per channel`, `m = 0.9 fixed`; values are constant formulas."""
    clause = " ".join(clause.split())
    match = _DECLARATION.fullmatch(clause)
    if match is None:
        raise ExpressionError(
            f"{place}: cannot read '{shortened(clause)}'; expected 'name = value per layer',"
            " 'name = value per channel' or 'name = value fixed'"
        )
    scope = re.sub(r"^per\s+", "", match["scope"])
    if scope not in ("layer", "channel", "fixed"):
        hint = near_miss(scope, ["layer", "channel"])
        raise ExpressionError(f"{place}: unknown scope 'per {shortened(scope)}'{hint}")
    check_name(match["name"], place)
    value = parse_constant(match["initial"], place)
    return Declaration(match["name"], value, _scope(scope))


def _scope(word: str) -> Scope:
    return "layer" if word == "layer" else "channel" if word == "channel" else "fixed"


def check_name(name: str, place: str) -> None:
    """Refuse a parameter name that is not an identifier or that the language keeps for itself."""
    if not name.isidentifier() or iskeyword(name) or name.startswith("_") or not name.isascii():
        raise ExpressionError(f"{place}: '{shortened(name)}' cannot be the name of a parameter")
    if name in RESERVED:
        raise ExpressionError(f"{place}: '{name}' is a word of the language; choose another name")


def parse_constant(text: str, place: str = "formula") -> float:
    """The finite value of a formula without names: `1/3`, `sqrt(2/pi)`."""
    from search.language.evaluate import evaluate

    node = parse_node(text, (), place)
    if any(True for _ in leaves(node)):
        raise ExpressionError(
            f"{place}: '{shortened(text)}' must be a constant, without x or names"
        )
    value = float(evaluate(node, {}))
    if not math.isfinite(value):
        raise ExpressionError(f"{place}: '{shortened(text)}' is {value}; expected a finite number")
    return value


def parse_node(text: str, parameters: Collection[str] = (), place: str = "formula") -> Node:
    """The node of a body; names in `parameters` become `Parameter`, other unknown ones fail."""
    if len(text) > LONGEST_TEXT:
        raise ExpressionError(f"{place}: {len(text):,} characters; at most {LONGEST_TEXT:,}")
    # `detach` alone is the option's short form; Python wants a value for a keyword.
    text = re.sub(r"\bdetach\b(?!\s*=)", "detach=True", " ".join(text.split()))
    _refuse_strange(text, place)
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        column = f" at column {error.offset}" if error.offset else ""
        raise ExpressionError(f"{place}: '{shortened(text)}': {error.msg}{column}") from None
    except (RecursionError, MemoryError, ValueError):
        raise ExpressionError(
            f"{place}: '{shortened(text)}' is nested too deeply to read"
        ) from None
    node = _Reader(frozenset(parameters), place, text).read(tree.body, 0)
    _refuse_large(node, place)
    return node


def _refuse_strange(text: str, place: str) -> None:
    if strange := _STRANGE.search(text):
        column = strange.start() + 1
        raise ExpressionError(f"{place}: unexpected character {strange[0]!a} at column {column}")
    for numeral in _NUMERAL.finditer(text):
        if not _DECIMAL.fullmatch(numeral[0]):
            raise ExpressionError(f"{place}: cannot read the number '{shortened(numeral[0])}'")


def _refuse_large(node: Node, place: str) -> None:
    """Bounds that hold for the text of the node too, in which abbreviations are written out."""
    size: dict[Node, int] = {}
    depth: dict[Node, int] = {}
    for part in walk(node):
        below = children(part)
        size[part] = 1 + sum(size[n] for n in below)
        sign = isinstance(part, Number) and part.value < 0
        depth[part] = 1 + max(depth[n] for n in below) if below else int(sign)
    if depth[node] > DEEPEST_NESTING:
        raise ExpressionError(f"{place}: nested more than {DEEPEST_NESTING} deep")
    if size[node] > LONGEST_TEXT:
        raise ExpressionError(f"{place}: more than {LONGEST_TEXT:,} characters written out")


class _Reader:
    """The walk over the allow-list; holds what an error message needs."""

    def __init__(self, parameters: frozenset[str], place: str, text: str):
        self.parameters = parameters
        self.place = place
        self.text = text

    def fail(self, message: str) -> ExpressionError:
        return ExpressionError(f"{self.place}: {message}")

    def read(self, tree: ast.AST, depth: int) -> Node:
        if depth > DEEPEST_NESTING:
            raise self.fail(f"nested more than {DEEPEST_NESTING} deep")
        match tree:
            case ast.Constant(value=value):
                return self.number(value)
            case ast.Name(id=name):
                return self.name(name)
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.read(operand, depth + 1)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return negative(self.read(operand, depth + 1))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                arguments = (self.read(left, depth + 1), self.read(right, depth + 1))
                return Call(_OPERATORS[type(op)], arguments)
            case ast.Call(func=ast.Name(id=function)):
                return self.call(function, tree, depth)
            case ast.Compare():
                raise self.fail("a comparison belongs inside select(…): 'select(x > 0, a, b)'")
        raise self.fail(
            f"{self.kind(tree)} is not part of the language; it knows numbers, x, u, declared"
            " names, + - * / ** and the functions of its table"
        )

    def source(self, tree: ast.AST) -> str:
        """The text that was read; `ast.unparse` would recurse."""
        start, end = getattr(tree, "col_offset", 0), getattr(tree, "end_col_offset", None)
        return shortened(self.text[start:end])

    def kind(self, tree: ast.AST) -> str:
        names = {"Attribute": "an attribute ('a.b')", "Subscript": "a subscript ('a[b]')"}
        return names.get(type(tree).__name__, f"'{self.source(tree)}'")

    def number(self, value: object) -> Number:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(f"expected a number, got {shortened(repr(value))}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self.fail("a number is too large; expected at most 1.8e308")
        return Number(number)

    def name(self, name: str) -> Node:
        if name in self.parameters:
            return Parameter(name)
        if name in ("x", "u"):
            return Input(name)
        if name in CONSTANTS:
            return Constant(name)
        if name in FUNCTIONS or name in ABBREVIATIONS or name in STATISTICS:
            raise self.fail(f"'{name}' is a function; expected '{name}(…)'")
        known = ["x", "u", *CONSTANTS, *self.parameters]
        raise self.fail(f"unknown name '{shortened(name)}'{near_miss(name, known)}")

    def call(self, function: str, tree: ast.Call, depth: int) -> Node:
        if function in STATISTICS:
            return self.statistic(function, tree, depth)
        if tree.keywords:
            keyword = shortened(tree.keywords[0].arg or "**")
            raise self.fail(f"{shortened(function)}() takes no keyword '{keyword}'")
        if function in ABBREVIATIONS:
            (argument,) = self.arguments(function, tree, 1, depth)
            return substitute(abbreviation(function), {Parameter("a"): argument})
        if function not in FUNCTIONS:
            known = [*FUNCTIONS, *STATISTICS, *ABBREVIATIONS]
            hint = near_miss(function, known)
            raise self.fail(f"unknown primitive '{shortened(function)}'{hint}")
        arguments = self.arguments(function, tree, PRIMITIVES[function].arity, depth)
        return Call(function, arguments)

    def arguments(self, name: str, tree: ast.Call, n: int, depth: int) -> tuple[Node, ...]:
        if len(tree.args) != n:
            plural = "" if n == 1 else "s"
            raise self.fail(f"{name}() takes {n} argument{plural}, got {len(tree.args)}")
        if name == "select":
            rest = (self.read(argument, depth + 1) for argument in tree.args[1:])
            return (self.comparison(tree.args[0], depth + 1), *rest)
        return tuple(self.read(argument, depth + 1) for argument in tree.args)

    def comparison(self, tree: ast.AST, depth: int) -> Node:
        match tree:
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARISONS:
                arguments = (self.read(left, depth + 1), self.read(right, depth + 1))
                return Call(_COMPARISONS[type(op)], arguments)
        raise self.fail("select() begins with one comparison: > >= < or <=, as in 'x > 0'")

    def statistic(self, kind: str, tree: ast.Call, depth: int) -> Statistic:
        if len(tree.args) != 1:
            raise self.fail(f"{kind}() takes 1 argument, got {len(tree.args)}")
        argument = self.read(tree.args[0], depth + 1)
        # Over a parameter alone it comes up in derivatives; `parse` refuses it.
        if not any(True for _ in leaves(argument)):
            raise self.fail(f"{kind}() of something without x is no statistic")
        over, detach = OVER[0], False
        names = [option.arg for option in tree.keywords]
        if len(names) != len(set(names)):
            raise self.fail(f"{kind}() has an option that stands twice")
        for option in tree.keywords:
            if option.arg == "over":
                over = self.over(kind, option.value)
            elif option.arg == "detach":
                detach = self.flag(kind, option.value)
            else:
                name = shortened(option.arg or "**")
                hint = near_miss(name, ["over", "detach"])
                raise self.fail(f"{kind}() has no option '{name}'{hint}")
        return Statistic(kind, argument, over, detach)

    def over(self, kind: str, value: ast.AST) -> Over:
        word = self.source(value)
        for known in OVER:
            if word == known:
                return known
        raise self.fail(f"{kind}(…, over={word}){near_miss(word, OVER)}")

    def flag(self, kind: str, value: ast.AST) -> bool:
        word = self.source(value)
        if word not in ("True", "False"):
            raise self.fail(f"{kind}(…, detach={word}); expected True or False")
        return word == "True"


def negative(node: Node) -> Node:
    """`-node`; a literal takes the sign itself, so that text and node agree."""
    return Number(-node.value) if isinstance(node, Number) else Call("neg", (node,))


@cache
def abbreviation(name: str) -> Node:
    """The formula behind a published name, over the parameter `a`."""
    return parse_node(ABBREVIATIONS[name], ("a",), name)
