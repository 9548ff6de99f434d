"""What identifies a study: its space's definition, by which it is named, and its objectives."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from difflib import unified_diff
from typing import Any, Literal

import optuna
import yaml

from search.space.settings import Space

Direction = Literal["minimize", "maximize"]


def study_name(space: Space) -> str:
    """The name and a hash of what identifies the study."""
    return definition_name(space.definition())


def definition_name(definition: Mapping[str, Any]) -> str:
    """`study_name` of the space with this definition."""
    text = json.dumps(definition, sort_keys=True)
    return f"{definition['name']}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def directions(objectives: tuple[str, ...], maximize: bool) -> list[Direction]:
    """Optuna's directions of the objectives.

    >>> directions(("score", "cost"), maximize=True)
    ['maximize', 'minimize']
    """
    return ["maximize" if each == "score" and maximize else "minimize" for each in objectives]


def directions_of(study: optuna.Study) -> list[Direction]:
    """Optuna's directions of a study that there is."""
    return ["maximize" if each.name == "MAXIMIZE" else "minimize" for each in study.directions]


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The lines that differ between two definitions, as YAML, with their neighbours."""
    before, after = (
        yaml.safe_dump(dict(each), sort_keys=False, allow_unicode=True, width=100).splitlines()
        for each in (old, new)
    )
    return list(unified_diff(before, after, "the study", "the space", lineterm="", n=1))


def differences(
    here: Mapping[str, Any], there: Mapping[str, Any], within: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Every key with two values, in the order of the first: the deepest that holds a value.

    >>> list(differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}))
    [('b.c', 2, 3)]
    """
    for key in dict.fromkeys([*here, *there]):
        a, b = here.get(key), there.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from differences(a, b, f"{within}{key}.")
        elif a != b:
            yield f"{within}{key}", a, b
