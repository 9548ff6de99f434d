"""Files of a study that were cut off, flipped or zeroed: every command takes what is whole, or
refuses in lines of its own; a record that is not what was written is never passed over."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from search.errors import SearchError
from search.figures.leaderboard import leaderboard_info
from search.figures.settings import settings_from_folder
from search.figures.verdict import verdict
from search.integrity.audit import altered_line
from search.records import Trial
from search.run import main
from search.status import main as status
from search.study import read_trials
from tests.test_merging import built, opened_again

__all__ = ["built"]

FILES = ("study.db", "study.db", "study.db", "space.yaml", "environment.json", "log.jsonl")
PAGE = 4096


def damaged(content: bytes, chance: random.Random) -> tuple[str, bytes]:
    """What was done to a file's bytes."""
    at = chance.randrange(len(content))
    kind = chance.choice(("cut off", "bits flipped", "page zeroed", "one bit flipped"))
    if kind == "cut off":
        return kind, content[:at]
    if kind == "page zeroed":
        start = at // PAGE * PAGE
        zeros = b"\0" * len(content[start : start + PAGE])
        return kind, content[:start] + zeros + content[start + PAGE :]
    found = bytearray(content)
    for _ in range(1 if kind == "one bit flipped" else 20):
        found[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return kind, bytes(found)


def told_by(work: Callable[[], object]) -> str:
    """`done`, or `refused` where it ends with lines that a terminal can show; nothing else."""
    out = StringIO()
    try:
        with redirect_stdout(out):
            work()
    except SearchError as error:
        assert error.problems
        assert all("\n" not in line and line.isprintable() for line in error.problems)
        return "refused"
    assert "Traceback" not in out.getvalue()
    return "done"


def reported(folder: Path) -> None:
    """What a report says, without drawing it."""
    settings, trials = settings_from_folder(folder), read_trials(folder)
    verdict(leaderboard_info(trials, settings), settings)


def ended(folder: Path) -> dict[tuple[int, int], Trial]:
    """What is claimed of every trial that has ended, without the settings of its proposal."""
    found: dict[tuple[int, int], Trial] = {}
    for trial in read_trials(folder):
        for each in (trial, *trial.finals):
            if each.state != "running":
                found[each.number, each.of or 0] = replace(each, finals=(), choices={})
    return found


def outcome(built: Path, folder: Path, chance: random.Random) -> str:
    """Damage one file of a copy of a study, and let every command have it; what they said."""
    shutil.copytree(built / "a", folder)
    before, name = ended(folder), chance.choice(FILES)
    kind, content = damaged((folder / name).read_bytes(), chance)
    (folder / name).write_bytes(content)
    said = {
        "status": told_by(lambda: status([str(folder)])),
        "report": told_by(lambda: reported(folder)),
    }
    clean = _says_well(folder, "--dry-run")
    _nothing_wrong_is_passed_over(folder, before, clean)
    said["--check"] = told_by(lambda: main(["--check", str(folder)]))
    said["run"] = told_by(lambda: opened_again(folder, built, "finalists=null").close())
    if said["--check"] == "done" and _says_well(folder):
        _nothing_wrong_is_passed_over(folder, before, clean=True)
    told = ", ".join(f"{command} {what}" for command, what in said.items())
    return f"{name}, {kind}: {'nothing found' if clean else 'found'}; {told}"


def _says_well(folder: Path, *more: str) -> bool:
    out = StringIO()
    try:
        with redirect_stdout(out):
            return main(["--check", str(folder), *more]) == 0
    except SearchError:
        return False


def _nothing_wrong_is_passed_over(
    folder: Path, before: dict[tuple[int, int], Trial], clean: bool
) -> None:
    try:
        now, line = ended(folder), altered_line(folder)
    except SearchError:
        return
    wrong = [key for key in now if key in before and now[key] != before[key]]
    assert not wrong or line or not clean, f"{folder}: {wrong} changed, and nobody says so"


def counted(built: Path, place: Path, seeds: range) -> Counter[str]:
    """What became of so many damages."""
    return Counter(outcome(built, place / str(seed), random.Random(seed)) for seed in seeds)


def test_damaged_files_are_refused_or_told(built: Path, tmp_path: Path):
    assert counted(built, tmp_path, range(12)).total() == 12


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 1100, 25))
def test_a_hundred_damages(first: int, built: Path, tmp_path: Path):
    found = counted(built, tmp_path, range(first, first + 25))
    assert found.total() == 25
    print(*(f"{number:3} {what}" for what, number in sorted(found.items())), sep="\n")
