"""The text of an exported file: two templates, filled with the formula's programs."""

from __future__ import annotations

import json
import keyword
import re
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from search.exporting.programs import TritonText, torch_text, triton_text
from search.kernels.program import penalty_expression
from search.language.evaluate import evaluate
from search.language.expression import Expression, Node, Statistic, text, walk

LINE = 98
_TAKEN = (
    *("Any", "Callable", "Check", "F", "Formula", "NamedTuple", "Penalty", "Sequence", "Tensor"),
    "Tiles",
)
_POINTS = ((-3.0, -1.5, -0.5, -0.1), (0.1, 0.5, 1.5, 3.0))
_IMPORTS = "# imports of the standard library"
_LONG = r"^(?=.{101})( *)(def \w+|return [\w.]+|[\w, ]+ = \w+)\((.*)\)((?: -> .*)?:|)$"
_MODULES = ("inspect", "math", "os", "sys")
_FROM = {
    "collections.abc": ("Callable", "Sequence"),
    "contextlib": ("nullcontext",),
    "functools": ("cache",),
    "typing": ("Any", "NamedTuple"),
}


def class_name(path: Path) -> str:
    """The class in a file: its name in capitals.

    >>> class_name(Path("my_activation.py"))
    'MyActivation'
    """
    words = re.findall(r"[A-Za-z0-9]+", path.stem)
    name = "".join(word[0].upper() + word[1:] for word in words)
    if not name or not name.isidentifier() or keyword.iskeyword(name) or name in _TAKEN:
        return f"Activation{name}"
    return name


def module_text(expression: Expression, path: Path, docstring: str) -> str:
    """The whole file. `docstring` may hold backslashes, and no three quotes in a row."""
    values = _values(expression, path) | {"docstring": docstring.replace('"""', "'''")}
    templates = ("module.py.jinja", "self_test.py.jinja")
    body = "\n\n\n".join(_template(template).render(values) for template in templates)
    body = re.sub(r"[ \t]+$", "", body, flags=re.MULTILINE)
    body = re.sub(_LONG, _in_lines, body, flags=re.MULTILINE)
    body = re.sub(r"\n{4,}", "\n\n\n", body).strip("\n") + "\n"
    return body.replace(_IMPORTS, "\n".join(_imports(body.partition(_IMPORTS)[2])))


@cache
def _template(name: str) -> Any:
    return Environment(
        loader=PackageLoader("search", "exporting"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)


def _values(expression: Expression, path: Path) -> dict[str, Any]:
    torch, triton = torch_text(expression), triton_text(expression)
    penalty = penalty_expression(expression)
    parameters = expression.trainable
    channels = any(p.scope == "channel" for p in parameters)
    features = "features" in torch.dimensions
    tiled = triton is not None and triton.layout == "tiled"
    inputs = list(expression.inputs)
    return {
        "name": class_name(path),
        "file": path.name,
        "formula_text": _formula_text(str(expression)),
        "body": textwrap.fill(text(expression.body), LINE - 20, subsequent_indent=" " * 8),
        "sources": torch.sources,
        "dimensions": torch.dimensions,
        "operations": torch.operations,
        "features": features,
        "uses_functional": any(re.search(r"\bF\.", source) for source in torch.sources),
        "triton": triton,
        "global_lines": _global_lines(triton),
        "inputs": inputs,
        "quoted": [json.dumps(name) for name in inputs],
        "labels": f"({', '.join(json.dumps(each) for each in _labels(inputs))})",
        "pair": len(inputs) == 2,
        "parameters": [
            {"name": p.name, "scope": p.scope, "initial": repr(p.initial)} for p in parameters
        ],
        "channels": channels,
        "channel_dim_used": channels or features,
        "tiled": tiled,
        "placed": features or tiled,
        "leading": ["channel_dim"] if features or tiled else [],
        "penalty_leading": ["channel_dim"] if features else [],
        "given": [p.name if p.scope == "channel" else f"self.{p.name}" for p in parameters],
        "penalty": penalty is not None,
        "penalty_inputs": list(penalty.inputs) if penalty else [],
        "statistics": _has(expression.body),
        "detached": _has(expression.body, detach=True),
        **_exact(expression, penalty),
    }


def _in_lines(found: re.Match[str]) -> str:
    """A long definition or call, its arguments below it."""
    inner = found[1] + " " * 4
    arguments = textwrap.fill(
        found[3].replace(": ", ":\N{NO-BREAK SPACE}"),  # an annotation stays with its name
        LINE + 2,
        initial_indent=inner,
        subsequent_indent=inner,
        break_long_words=False,
        break_on_hyphens=False,
    ).replace("\N{NO-BREAK SPACE}", " ")
    return f"{found[1]}{found[2]}(\n{arguments}\n{found[1]}){found[4]}"


def _formula_text(formula: str) -> str:
    """A string literal, in lines where it is long."""
    lines = textwrap.wrap(formula, LINE - 12, drop_whitespace=False, break_long_words=False)
    if len(lines) == 1:
        return json.dumps(formula)
    return "(\n" + "".join(f"    {json.dumps(line)}\n" for line in lines) + ")"


def _labels(inputs: list[str]) -> list[str]:
    return ["f", *(f"df/d{name}" for name in inputs)]


def _has(node: Node, detach: bool = False) -> bool:
    found = [n for n in walk(node) if isinstance(n, Statistic)]
    return any(n.detach for n in found) if detach else bool(found)


def _global_lines(triton: TritonText | None) -> list[str]:
    lines = [] if triton is None else textwrap.wrap(", ".join(triton.names), LINE - 12)
    return [line.rstrip(",") for line in lines]


def _exact(expression: Expression, penalty: Expression | None) -> dict[str, str]:
    """Points and the language's own float64 values there, as text."""
    rows = list(_POINTS)
    if not _has(expression.body) and penalty is None:
        rows.append((float("nan"), 0.0, -8.0, 8.0))
    x = np.asarray(rows)
    inputs = {"x": x, "u": x[:, ::-1]}
    # A module's parameters are float32.
    values = {name: float(np.float32(value)) for name, value in expression.initial.items()}
    values |= {p.name: p.initial for p in expression.parameters if p.scope == "fixed"}
    found = {
        "points": x,
        "values": np.broadcast_to(evaluate(expression.body, inputs, values), x.shape),
    }
    if penalty is not None:
        value = evaluate(penalty.body, inputs, values)
        found["penalty_value"] = np.broadcast_to(value, x.shape).mean()
    return {name: _literal(value.tolist()) for name, value in found.items()}


def _literal(value: Any) -> str:
    """Nested lists of numbers as Python text, one row a line."""
    if isinstance(value, float):
        special = {"nan": "math.nan", "inf": "math.inf", "-inf": "-math.inf"}
        return special.get(repr(value), repr(value))
    if isinstance(value[0], float):
        return f"({', '.join(map(_literal, value))})"
    return "(\n" + "".join(f"    {_literal(row)},\n" for row in value) + ")"


def _imports(body: str) -> list[str]:
    """What the text needs of the standard library."""
    lines = [f"import {name}" for name in _MODULES if re.search(rf"\b{name}\.", body)]
    for module, names in _FROM.items():
        used = [name for name in names if re.search(rf"\b{name}\b", body)]
        if used:
            lines.append(f"from {module} import {', '.join(used)}")
    return lines
