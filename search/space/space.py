"""A space file to a `Space`, with every mistake in it told at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from search.errors import SpaceError
from search.kernels import KERNELS
from search.space.baselines import read_baselines
from search.space.document import Problems, Value, override, read_document
from search.space.fields import Fields
from search.space.grammar import Grammar
from search.space.reading import read_grammar
from search.space.sections import (
    RATE_KEYS,
    RESOURCE_KEYS,
    SEARCH_KEYS,
    read_batching,
    read_checkpoints,
    read_finalists,
    read_learning_rates,
    read_placebos,
    read_resources,
    read_search,
    read_seeds,
    read_storage,
    read_timeout,
)
from search.space.settings import DEVICES, STUDY_NAME, Space
from search.space.task_section import read_task

__all__ = ["KEYS", "Space", "load_space"]

KEYS = (
    "name",
    "task",
    "recipe",
    "data_root",
    "activation",
    "depth",
    "baselines",
    "learning_rate",
    "seeds",
    "search",
    "finalists",
    "placebos",
    "resources",
    "gates",
    "device",
    "kernel",
    "batching",
    "timeout",
    "checkpoints",
    "storage",
)
# Where a key belongs that stands at the top of the file by mistake.
_ELSEWHERE = (
    {key: f"search.{key}" for key in SEARCH_KEYS}
    | {key: f"learning_rate.{key}" for key in RATE_KEYS}
    | {key: f"resources.{key}" for key in RESOURCE_KEYS}
    | {key: f"recipe.{key}" for key in ("epochs", "batch_size", "optimizer", "schedule")}
    | {key: f"finalists.{key}" for key in ("k", "budget")}
    | {"model": "task.model", "rules": "activation", "grammar": "activation"}
)


def load_space(path: str | Path, overrides: Sequence[str] = ()) -> Space:
    """The space at `path`, after `overrides` such as `search.trials=10`.

    A task given as one word keeps the options of the file: `task=mnist` is `task.name=mnist`.

    Raises:
        SpaceError: every mistake of the file and of the overrides, one line each.
    """
    path = Path(path)
    problems = Problems()
    root = _task_as_mapping(read_document(path, problems))
    if root.data is not None and not isinstance(root.data, dict):
        raise SpaceError(f"{root.place}: expected keys and values such as 'name: gated'")
    for setting in overrides:
        root = override(root, setting, problems, short={"task": "name"})
    data = root.data if isinstance(root.data, dict) else {}
    space = _space(Fields(data, root.place, "", problems), path, problems)
    problems.stop()
    assert space is not None, "without a problem there is a space"
    return space


def _task_as_mapping(root: Value) -> Value:
    """`task: digits` is short for `task: {name: digits}`."""
    if not isinstance(root.data, dict) or "task" not in root.data:
        return root
    task = root.data["task"]
    if isinstance(task.data, dict | list) or task.data is None:
        return root
    return replace(root, data=root.data | {"task": Value({"name": task}, task.place)})


def _space(fields: Fields, path: Path, problems: Problems) -> Space | None:
    fields.only(KEYS, _ELSEWHERE)
    name = _name(fields)
    task_name, options, recipe, task = read_task(fields, path)
    rates = read_learning_rates(fields)
    grammar = _grammar(fields, problems)
    baselines, formulas = read_baselines(fields)
    searches = _searches(fields, problems)
    search = read_search(fields, searches, grammar, task)
    checkpoints = read_checkpoints(fields)
    if search.promotion is not None and checkpoints is None:
        fields.wrong("checkpoints", "other than off: search.promotion has candidates wait with one")
    settings = {
        "seeds": read_seeds(fields),
        "finalists": read_finalists(fields, task_name, path.parent),
        "placebos": read_placebos(fields, baselines, searches),
        "resources": read_resources(fields),
        "gates": fields.truth("gates", True),
        "device": fields.word("device", DEVICES, "auto"),
        "kernel": fields.word("kernel", KERNELS, "auto"),
        "batching": read_batching(fields),
        "timeout": read_timeout(fields),
        "checkpoints": checkpoints,
        "data_root": None if fields.is_null("data_root") else fields.text("data_root"),
        "storage": read_storage(fields),
    }
    if name is None or task_name is None or rates is None:
        return None
    return Space(
        name=name,
        task=task_name,
        learning_rate=rates,
        grammar=grammar,
        baselines=baselines,
        formulas=formulas,
        options=options,
        recipe=recipe,
        search=search,
        source=path,
        **settings,
    )


def _searches(fields: Fields, problems: Problems) -> bool:
    """Whether there are rules to search; a problem where there is nothing to compare either."""
    searches = "activation" in fields.values
    if not searches and "baselines" not in fields.values:
        fields.missing("activation", "rules to search, or baselines to compare, or both")
    elif not searches and fields.values["baselines"].data == []:
        place = fields.values["baselines"].place
        problems.add(place, "baselines is empty, and there is no activation to search")
    return searches


def _name(fields: Fields) -> str | None:
    if "name" not in fields.values:
        fields.missing("name", "the name of the study and of the folder of its results")
        return None
    name = fields.text("name")
    if name is not None and not STUDY_NAME.fullmatch(name):
        fields.wrong(
            "name", "1 to 64 letters, digits, '_', '-' or '.', beginning with a letter or digit"
        )
    return name


def _grammar(fields: Fields, problems: Problems) -> Grammar | None:
    depth = fields.values.get("depth")
    activation = fields.values.get("activation")
    if activation is None:
        if depth is not None:
            problems.add(depth.place, "depth has no use without activation; expected both or none")
        return None
    if not isinstance(activation.data, dict):
        fields.wrong("activation", "rules in capitals, such as F: [x * sigmoid(x)]")
        return None
    return read_grammar(activation.data, depth, activation.place, problems)
