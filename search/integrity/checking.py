"""`python -m search.run --check results/gated`: what is wrong with a study, and mending it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import yaml

from search.database.attributes import run_attributes
from search.database.definitions import differences, directions_of
from search.database.opening import Database, existing_database
from search.database.reading import records
from search.database.storage import DAMAGED, found_place
from search.errors import StudyError, shortened, shown
from search.figures.settings import settings_from_folder
from search.integrity.audit import Problem, entries_of, problems, unhashed
from search.integrity.salvage import damage, keep_copy, missing_rows, salvage
from search.results import claimed, in_use
from search.space.settings import defining

ROUNDS = 4
"""What is mended may show what else is wrong: a row that was lost, then its trial's state."""

SPACE = "space.yaml"

Say = Callable[[str], None]


def check_study(folder: Path, repair: bool, say: Say) -> int:
    """Say a line for every problem, and what is left; the exit code: 1 where something is left.

    Args:
        repair: mend what can be mended, after the database was copied. Nothing is mended while a
            driver writes.

    Raises:
        StudyError: there is no study, or nothing of it can be read any more.
    """
    path, _ = found_place(folder)
    repair = repair and path.file is not None  # a server's administrator has the copies
    driven = in_use(folder)
    with ExitStack() as stack:
        if repair and not driven:
            stack.enter_context(claimed(folder))
        copies = Copies(folder, repair and not driven)
        if (told := _unreadable(folder)) and not copies.wanted:
            say(f"{path}: {told}")
            left: list[Problem] = [Problem(told)]
        else:
            if told:
                say(f"{path}: {told}; repaired: {salvage(folder, copies.kept())}")
            left = _mended(folder, copies, driven, say)
        _sum_up(folder, left, copies, driven, say)
    return 1 if left else 0


def beside(folder: Path, database: Database) -> Iterator[Problem]:
    """Settings beside the database that are not those of the study: a report shows them."""
    if not (folder / SPACE).is_file():
        return
    try:
        settings = settings_from_folder(folder)
        space = yaml.safe_load(settings.space_text)
    except StudyError as error:
        yield Problem(f"{error}; python -m search.run writes it anew")
        return
    definition = database.search.user_attrs.get("definition") or {}
    for key, there, here in differences(definition, defining(space)):
        told = "is missing" if here is None else f"is {shown(here)}"
        kept = f"it is {shown(there)}" if there is not None else "there is none"
        told = f"{shortened(key)} {told}, and in the study {kept}"
        yield Problem(f"{SPACE}: {told}; python -m search.run writes it anew")
    if settings.maximize != (directions_of(database.search)[0] == "maximize"):
        told = "maximize is not that of the study; python -m search.run writes it anew"
        yield Problem(f"environment.json: {told}")


class Copies:
    """The copy of the database that is made before anything in it is changed."""

    def __init__(self, folder: Path, wanted: bool):
        self.folder = folder
        self.wanted = wanted
        """Whether anything may be changed."""
        self.made: Path | None = None

    def kept(self) -> Path:
        """The copy, made now if there is none yet."""
        self.made = self.made or keep_copy(self.folder)
        return self.made


def _unreadable(folder: Path) -> str:
    """Why the database cannot be read as it is."""
    file = found_place(folder)[0].file
    if file is not None and (told := damage(file)):
        return told
    try:
        with existing_database(folder) as database:
            records(database)
    except StudyError as error:
        if not str(error).endswith(DAMAGED):
            raise
        return re.split("is damaged: |cannot be used: ", str(error))[-1].rpartition(";")[0]
    return missing_rows(file) if file is not None else ""


def _mended(folder: Path, copies: Copies, driven: bool, say: Say) -> list[Problem]:
    """The problems that are left."""
    found: list[Problem] = []
    for _ in range(ROUNDS):
        with existing_database(folder) as database:
            found = [*problems(database, driven), *beside(folder, database)]
            for problem in found if copies.wanted else []:
                if problem.mend is not None:
                    copies.kept()
                    say(f"{problem.told}; repaired: {problem.mend()}")
        if not copies.wanted or all(problem.mend is None for problem in found):
            break
    for problem in found:
        say(problem.told + ("; can be repaired" if problem.mend else ""))
    return found


def _sum_up(folder: Path, left: list[Problem], copies: Copies, driven: bool, say: Say) -> None:
    counted = ""
    if not (left and _unreadable(folder)):
        with existing_database(folder) as database:
            entries = entries_of(database)
        runs = sum(len(run_attributes(entry.attributes)) for entry in entries)
        without = unhashed(entries)
        counted = f"{len(entries)} trials, {runs} runs; "
        counted += f"{without} records unhashed; " if without else ""
    wrong = f"{len(left)} problem{'' if len(left) == 1 else 's'}" if left else "all is well"
    mended = f"; as it was: {copies.made}" if copies.made else ""
    writes = "; a search is writing here: nothing is repaired" if driven and left else ""
    say(f"{folder}: {counted}{wrong}{mended}{writes}")
