"""Candidates that are one program up to numbers, and the modules with which they train as one.

A number that differs from candidate to candidate becomes, in the one program, a parameter per layer
that is not trained: to the fused kernels the members' own values are what trained parameters per
layer are, read along the members' dimension, so that one launch takes all candidates.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial

from torch import nn

from search.activation import Activation
from search.kernels.abreast import forms_abreast
from search.language.expression import Expression
from search.language.lifting import Lifted, lift, shape_of
from search.language.simplify import fold_fixed
from search.tasks.task import MakeActivation


def shared_programs(expressions: Sequence[Expression]) -> list[list[int]]:
    """The places of the expressions in groups that can train as one, in order.

    Formulas that a kernel cannot take in one call once their numbers are lifted (with a statistic
    over a sample, whose members take turns) are together only where the numbers are equal.

    >>> from search.language.parser import parse
    >>> shared_programs([parse(f"x * tanh({s} * x)") for s in (0.7, 1.3)] + [parse("relu(x)")])
    [[0, 1], [2]]
    """
    found = []
    for group in _grouped(range(len(expressions)), [shape_of(e) for e in expressions]):
        lifted = lift([expressions[place] for place in group])
        if not lifted.held or forms_abreast(lifted.each[0]):
            found.append(group)
        else:
            found += _grouped(group, [_program(expressions[place]) for place in group])
    return sorted(found)


def _grouped(places: Sequence[int], keys: Sequence[Hashable]) -> list[list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for place, key in zip(places, keys, strict=True):
        groups.setdefault(key, []).append(place)
    return list(groups.values())


def _program(expression: Expression) -> Hashable:
    """The formula without initial values."""
    folded = fold_fixed(expression)
    return folded.body, folded.penalty, tuple((p.name, p.scope) for p in folded.parameters)


def makers(lifted: Lifted, kernel: str) -> list[MakeActivation]:
    """What makes each candidate's activation: modules that differ in their numbers alone."""
    return [partial(_made, own, lifted.held, kernel) for own in lifted.each]


def _made(expression: Expression, held: Sequence[str], kernel: str) -> nn.Module:
    module = Activation(expression, kernel=kernel)
    for name in held:
        module.get_parameter(name).requires_grad_(False)
    return module
