"""The walls between the rooms, the public surface, and what the README promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import search

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

_WITHOUT = """
import sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Wall())
import {module}
"""


def imports(module: str, blocked: set[str]) -> subprocess.CompletedProcess[str]:
    code = _WITHOUT.format(blocked=blocked, module=module)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize(
    "module",
    [
        "search",
        "search.activation",
        "search.kernels.operators",
        "search.training.loop",
        "search.show",
    ],
)
def test_kernels_and_training_need_neither_ray_nor_optuna(module: str):
    absent = {"ray", "optuna", "triton", "matplotlib", "rich", "jinja2", "sklearn", "torchvision"}
    run = imports(module, absent if module == "search.show" else {*absent, "scipy"})
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("module", ["search", "search.language.facts", "search.space.grammar"])
def test_the_language_half_needs_no_torch(module: str):
    run = imports(module, {"torch", "ray", "optuna", "triton", "matplotlib"})
    assert run.returncode == 0, run.stderr


def test_the_public_surface():
    assert sorted(search.__all__) == [
        "Activation",
        "CATALOG",
        "Expression",
        "Recipe",
        "SearchError",
        "Space",
        "Split",
        "Splits",
        "Task",
        "load_space",
        "parse",
        "replace_activations",
    ]
    assert all(hasattr(search, name) for name in search.__all__)


def test_every_command_line_appears_in_the_readme_and_has_help():
    commands = [
        path.stem
        for path in sorted((ROOT / "search").glob("*.py"))
        if "run_cli(main)" in path.read_text(encoding="utf-8")
    ]
    assert {"report", "run", "show"} <= set(commands)
    for command in commands:
        assert f"python -m search.{command}" in README
        run = subprocess.run(
            [sys.executable, "-m", f"search.{command}", "--help"],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert run.returncode == 0 and "usage:" in run.stdout


def test_every_file_in_the_readmes_tree_exists():
    tree = README[README.index("<!-- tree -->") : README.index("<!-- /tree -->")]
    named = re.findall(r"^(\S+\.(?:py|yaml|toml|jinja)|\S+/)\s", tree, flags=re.MULTILINE)
    assert len(named) > 20
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_the_readmes_two_one_line_commands_are_what_ci_runs():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "<!-- tests -->" in script and "<!-- tests -->" in README
    assert "<!-- search -->" in README


def test_spaces_named_in_the_readme_are_shipped():
    shipped = {path.name for path in (ROOT / "spaces").glob("*.yaml")}
    named = set(re.findall(r"spaces/(\w+\.yaml)", README))
    assert shipped <= named
