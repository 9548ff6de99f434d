"""What can still be read of a damaged `study.db`, as a new one.

SQLite refuses a file from its first broken page on; here every row is asked for by its number, and
those that cannot be read, or mean nothing, are left out. A trial whose own row is lost but whose
attributes are there gets a row again.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from optuna.distributions import json_to_distribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import URL

from search.database.attributes import launched
from search.database.opening import SUFFIX
from search.database.storage import DATABASE
from search.errors import StudyError, shortened
from search.records import run_from_json, trial_from_json

TABLES = (
    "studies",
    "study_directions",
    "study_user_attributes",
    "study_system_attributes",
    "trials",
    "trial_user_attributes",
    "trial_system_attributes",
    "trial_params",
    "trial_values",
    "trial_intermediate_values",
)
BESIDE = ("-wal", "-shm")
"""SQLite's own files beside a database that was not closed."""
PATIENCE = 2000
"""Rows in a row that may be missing before a table is taken for read, where its end is unknown."""
LONGEST = 200
"""Characters of what SQLite says."""
UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What reading a damaged file raises; the latter where SQLite's own words quote it."""

Row = dict[str, Any]


def damage(path: Path) -> str:
    """What SQLite finds wrong with a file; empty where it is whole."""
    try:
        with _opened(path) as connection:
            ((told,), *_) = connection.execute("PRAGMA integrity_check(1)").fetchall()
    except UNREADABLE as error:
        return shortened(error, LONGEST)
    return "" if told == "ok" else shortened(told, LONGEST)


def _opened(path: Path) -> closing[sqlite3.Connection]:
    """A file whose text, names of tables among it, may be no text any more."""
    connection = sqlite3.connect(path, timeout=30)
    connection.text_factory = lambda data: data.decode(errors="replace")
    return closing(connection)


def missing_rows(path: Path) -> str:
    """Which trials' own rows are missing; empty where every record has its trial, and the numbers
    count up. Optuna sees nothing of a trial without a row, and gives a number twice after a gap."""
    with _opened(path) as connection:
        connection.execute("begin")  # both of one moment: a driver may be writing
        ((lost,),) = connection.execute(
            "select count(distinct trial_id) from trial_user_attributes"
            " where trial_id not in (select trial_id from trials)"
        )
        ((gaps,),) = connection.execute(
            "select coalesce(sum(top - n), 0) from"
            " (select max(number) + 1 top, count(*) n from trials group by study_id)"
        )
    if lost or gaps:
        return f"{max(lost, gaps)} trials have lost their own rows, {lost} of them have records"
    return ""


def keep_copy(folder: Path) -> Path:
    """Copy the database, as it is, to the first free `study.db.1`, `study.db.2`, …

    Raises:
        StudyError: there is no room for it.
    """
    path = folder / DATABASE
    kept = next(each for n in count(1) if not (each := folder / f"{DATABASE}.{n}").exists())
    try:
        shutil.copy2(path, kept)
        for suffix in BESIDE[:1]:
            with suppress(FileNotFoundError):
                shutil.copy2(f"{path}{suffix}", f"{kept}{suffix}")
    except OSError as error:
        raise StudyError(f"{kept}: cannot be written: {error.strerror or error}") from None
    return kept


def salvage(folder: Path, kept: Path) -> str:
    """Replace the database of a folder by what can be read of its copy `kept`; says how much.

    Raises:
        StudyError: not even the names of its studies can be read.
    """
    path, new = folder / DATABASE, folder / f".{DATABASE}.salvaged"
    new.unlink(missing_ok=True)
    try:
        told = _salvaged(kept, new)
        os.replace(new, path)
    finally:
        for suffix in ("", *BESIDE):
            Path(f"{new}{suffix}").unlink(missing_ok=True)
    for suffix in BESIDE:
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    return told


def _salvaged(kept: Path, new: Path) -> str:
    backend = RDBStorage(URL.create("sqlite", database=str(new)).render_as_string())
    backend.remove_session()
    backend.engine.dispose()
    with _opened(kept) as old, closing(sqlite3.connect(new)) as fresh:
        # Else a file that was cut off is not read at all.
        old.execute("pragma writable_schema = on")
        read = {table: list(_rows(old, table)) for table in TABLES}
        if len(read["studies"]) != 2:
            raise StudyError(f"{kept.parent / DATABASE}: no study can be read in it any more")
        _restore_directions(read)
        lost = _restore_trials(read)
        for table, rows in read.items():
            for row in rows:
                names, marks = ", ".join(row), ", ".join("?" * len(row))
                statement = f"insert or ignore into {table} ({names}) values ({marks})"
                fresh.execute(statement, tuple(row.values()))
        fresh.commit()
    return f"{len(read['trials'])} trials can be read; {lost} of them had lost their own row"


def _rows(old: sqlite3.Connection, table: str) -> Iterator[Row]:
    """Every row that can be read and means something."""
    for row in _readable(old, table):
        known = all(means(row[key]) for key, means in MEANINGS.items() if key in row)
        if known and (table != "trial_user_attributes" or _is_ours(row)):
            if table == "trials" and row["state"] not in TrialState.__members__:
                row["state"] = "RUNNING"  # its record tells, if it has one
            unknown = [key for key in TIMES if not _means(datetime.fromisoformat, row.get(key))]
            yield row | {key: None for key in unknown if key in row}


def _readable(old: sqlite3.Connection, table: str) -> Iterator[Row]:
    last, missing, number = _last(old, table), 0, 0
    while missing < PATIENCE and (last is None or number < last):
        number += 1
        row = _row(old, table, number)
        missing = 0 if row is not None or last is not None else missing + 1
        if row is not None:
            yield row


def _row(old: sqlite3.Connection, table: str, number: int) -> Row | None:
    try:
        found = old.execute(f"select * from {table} where rowid = ?", (number,))
        values = found.fetchone()
    except UNREADABLE:
        return None
    names = [column[0] for column in found.description]
    return None if values is None else dict(zip(names, values, strict=True))


def _last(old: sqlite3.Connection, table: str) -> int | None:
    try:
        return old.execute(f"select max(rowid) from {table}").fetchone()[0] or 0
    except UNREADABLE:
        return None


def _means(read: Callable[[Any], object], text: Any) -> bool:
    try:
        read(text)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        return False
    return True


def _is_ours(row: Row) -> bool:
    """Whether a record is one, as far as it must be to be read; what its hash says of it, the
    check tells."""
    return _means(READS.get(row["key"].partition(" ")[0], json.loads), row["value_json"])


READS: dict[str, Callable[[str], object]] = {
    "record": lambda text: trial_from_json(json.loads(text) | {"runs": ()}),
    "run": lambda text: run_from_json(json.loads(text)),
    "candidate": lambda text: launched(0, json.loads(text)),
}
"""By the first word of an attribute's key."""
MEANINGS: dict[str, Callable[[Any], bool]] = {
    "value_json": partial(_means, json.loads),
    "distribution_json": partial(_means, json_to_distribution),
    "value_type": {"FINITE", "INF_POS", "INF_NEG"}.__contains__,
    "intermediate_value_type": {"FINITE", "INF_POS", "INF_NEG", "NAN"}.__contains__,
    "direction": {"NOT_SET", "MINIMIZE", "MAXIMIZE"}.__contains__,
}
"""Whether what stands in such a column means anything."""
TIMES = ("datetime_start", "datetime_complete")
"""Of a trial, which may do without."""


def _restore_directions(read: dict[str, list[Row]]) -> None:
    """Of a study that lost its own: both are searched in the same directions."""
    known = read["study_directions"]
    own = {
        each["study_id"]: [row for row in known if row["study_id"] == each["study_id"]]
        for each in read["studies"]
    }
    longest = max(own.values(), key=len)
    read["study_directions"] = [
        {
            "study_direction_id": None,
            "direction": row["direction"],
            "study_id": study,
            "objective": row["objective"],
        }
        for study in own
        for row in longest
    ]


def _restore_trials(read: dict[str, list[Row]]) -> int:
    """Give trials without a row one again, as running: what they are, their records tell; how many.

    Numbers count up within each of the two studies, in the order of the rows; Optuna counts on
    that, so a row of which nothing is left is given too where a number is missing.
    """
    baselines = {row["study_name"].endswith(SUFFIX): row["study_id"] for row in read["studies"]}
    trials = {row["trial_id"]: row for row in read["trials"]}
    written: dict[int, Row] = {}
    for row in read["trial_user_attributes"]:
        if row["key"] in ("record", "candidate"):
            written.setdefault(row["trial_id"], {})[row["key"]] = json.loads(row["value_json"])
    following = dict.fromkeys(baselines.values(), 0)
    lost = 0
    for own in range(1, max([*trials, *written], default=0) + 1):
        if own not in trials:
            study = _study_of(own, written.get(own, {}), trials, baselines, following)
            if study is None:
                continue
            lost += 1
            trials[own] = {"trial_id": own, "number": following[study], "study_id": study}
            trials[own]["state"] = "RUNNING"
        following[trials[own]["study_id"]] = trials[own]["number"] + 1
    read["trials"] = [trials[own] for own in sorted(trials)]
    return lost


def _study_of(
    own: int,
    written: Row,
    trials: dict[int, Row],
    baselines: dict[bool, int],
    following: dict[int, int],
) -> int | None:
    """Which study a lost trial was of: by its record, else the one that lacks a number there."""
    record, candidate = written.get("record"), written.get("candidate")
    if record is not None:
        return baselines[record["number"] < 0]
    later = [trials[number] for number in sorted(trials) if number > own]
    for study in baselines.values():
        first = next((row["number"] for row in later if row["study_id"] == study), None)
        if first is not None and first > following[study]:
            return study
    return baselines[not candidate["choices"]] if candidate is not None else None
