"""The README's own examples, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from search import CATALOG, Activation, load_space, parse
from search.language.expression import STATISTICS
from search.language.parser import FUNCTIONS
from search.language.primitives import ABBREVIATIONS
from search.tasks.task import find_task, options_with
from search.training.loop import train

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def block(marker: str) -> str:
    """The fenced block after `<!-- marker -->`."""
    found = re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", README, flags=re.DOTALL)
    assert found is not None
    return found[1]


def test_the_task_of_ones_own_has_under_30_lines_and_learns(tmp_path: Path):
    text = block("task")
    assert len([line for line in text.splitlines() if line.strip()]) < 30
    (tmp_path / "my_task.py").write_text(text)
    task = find_task("./my_task.py", tmp_path)
    options = options_with(task, {})
    run = train(
        task,
        task.load(None, **options),
        lambda: Activation("golu"),
        options=options,
        recipe=task.recipe,
        learning_rate=0.03,
        seed=0,
    )
    assert run.state == "complete" and run.score is not None and run.score > 0.9


def test_a_space_may_use_it(tmp_path: Path):
    (tmp_path / "my_task.py").write_text(block("task"))
    space = tmp_path / "mine.yaml"
    space.write_text(
        "name: mine\ntask: ./my_task.py\nbaselines: [relu]\n"
        "learning_rate: {grid: [0.01, 0.03], default: 0.01}\nrecipe: {epochs: 2}\n"
    )
    assert load_space(space).task == "./my_task.py"


def test_the_formulas_shown_are_in_the_language():
    section = README[README.index("## The language") : README.index("## Writing a space")]
    formulas = section.split("```")[1].strip().splitlines()
    assert len(formulas) == 5
    for formula in formulas:
        parse(formula)
    named = {word for names in re.findall(r"`([\w\s]+)`", section) for word in names.split()}
    assert {*FUNCTIONS, *ABBREVIATIONS, *STATISTICS} <= named
    assert len(CATALOG) >= 70


def test_the_model_example_runs():
    section = README[README.index("## Activations in your own model") :]
    code = section.split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)  # our own text, as a reader would paste it
    assert names["model"](torch.zeros(2, 3, 32, 32)).shape == (2, 10)
