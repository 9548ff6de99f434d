"""Command lines with garbage in them, run in this process as a shell would run them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from formula_texts import formulas
from hypothesis import strategies as st
from space_texts import SETTINGS, space_files

import search.driver
import search.figures.report
import search.integrity.checking
import search.report
import search.run
import search.show
import search.status
import search.watching
from search.errors import SearchError, run_cli

MAINS = {
    "run": search.run.main,
    "check": search.run.main,
    "show": search.show.main,
    "status": search.status.main,
    "report": search.report.main,
}
BESIDE = ("study.db", "space.yaml", "environment.json", "storage.json", "log.jsonl", "study.lock")
NEVER = "nosuchkey=1"
"""Of a `--set`: what is garbage may be good by chance, and a search begins only of a good file."""


@dataclass(frozen=True, slots=True)
class Command:
    """What is called with what."""

    module: str
    text: str = ""
    """A formula, or what stands behind `--set`."""
    files: tuple[tuple[str, bytes], ...] = ()
    """In the folder of a study, or the space file."""


BYTES = st.one_of(
    st.binary(max_size=40),
    space_files(),
    st.sampled_from(
        (
            b"SQLite format 3\x00" + b"\x00" * 84,
            b"{}",
            b"[]",
            b'{"storage": "sqlite://", "study": "a"}',
            b'{"storage": "postgresql://me:${NO}@h/d", "study": []}',
            b'{"storage": "x", "study": "\\u001b[2J"}',
            b"[" * 5000,
            b'{"sessions": 3, "environment": [[]]}',
            b"name: [x]\ntask: 3\nsearch: 1\nlearning_rate: {grid: x}\nfinalists: []",
        )
    ),
)


@st.composite
def commands(draw: st.DrawFn) -> Command:
    """One of the command lines that read what a user has."""
    module = draw(st.sampled_from([*MAINS]))
    if module == "show":
        return Command(module, draw(formulas()))
    if module == "run":
        return Command(module, draw(SETTINGS), (("s.yaml", draw(space_files())),))
    names = draw(st.lists(st.sampled_from(BESIDE), max_size=3, unique=True))
    return Command(module, files=tuple((name, draw(BYTES)) for name in names))


def prepared(command: Command, place: Path) -> list[str]:
    """The arguments of a command whose files are written."""
    folder = place / "results"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in command.files:
        (folder / name).write_bytes(content)
    if command.module == "show":
        return ["--no-picture", "--", command.text]
    if command.module == "run":
        file = str(folder / "s.yaml")
        return [file, f"--set={command.text}", f"--set={NEVER}", "--results", str(folder)]
    return ["--check", str(folder)] if command.module == "check" else [str(folder)]


def ran(module: str, arguments: Sequence[str]) -> str:
    """What a command prints.

    Raises:
        SearchError: with the lines of a command that ends with 2.
    """
    out, errors = StringIO(), StringIO()
    code: object = None
    with redirect_stdout(out), redirect_stderr(errors):
        try:
            run_cli(lambda: MAINS[module](arguments))
        except SystemExit as end:
            code = end.code
    assert code in (0, 1, 2), code
    if code == 2:
        raise SearchError(*errors.getvalue().rstrip("\n").split("\n"))
    assert not errors.getvalue() and out.getvalue().replace("\n", "").isprintable()
    return out.getvalue()
