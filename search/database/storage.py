"""Where a study's trials are kept: `study.db` in its folder, or a database server by URL.

A URL is any that SQLAlchemy knows (`postgresql+psycopg://user@host/database`). `${NAME}` in it
stands for a variable of the driver's environment, and it never holds a password itself: it is
written into `space.yaml` and `storage.json`, and told in errors.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import OptunaError
from optuna.storages import RDBStorage
from sqlalchemy import URL, Connection, event, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from search.errors import StudyError, shortened

DATABASE = "study.db"
POINTER = "storage.json"
EXPECTED = "a database URL, such as postgresql+psycopg://user@host/database"
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_SECRETS = ("password", "passwd", "sslpassword")
"""Names under which drivers take a password behind the `?` of a URL."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the trials are."""

    file: Path | None = None
    written: str = ""
    """The URL as the space file has it, of a server."""

    def __str__(self) -> str:
        return str(self.file) if self.file else self.written

    @property
    def url(self) -> URL:
        """The URL that is connected to, with its password.

        Raises:
            StudyError: a variable that it names is not set.
        """
        if self.file is not None:
            return URL.create("sqlite", database=str(self.file))
        return expanded(self.written, os.environ)


def place_of(folder: Path, url: str | None) -> Place:
    """Where the study of a folder is, by the key `storage` of its space.

    Raises:
        StudyError: the folder's study was begun in a file, and now a URL is given; or the contrary.
    """
    file, pointer = folder / DATABASE, folder / POINTER
    if url is None and pointer.is_file():
        raise StudyError(
            f"{folder}: its study was begun with storage: {_pointed(pointer)[0]}; expected that, or"
            " --fresh, which sets the results aside and begins anew"
        )
    if url is not None and file.is_file():
        raise StudyError(
            f"{folder}: its study was begun in {DATABASE}, without the key storage; expected that,"
            " or --fresh, which sets the results aside and begins anew"
        )
    return Place(file) if url is None else Place(written=url)


def found_place(folder: Path) -> tuple[Place, str]:
    """Where the study in a folder is, and its name; without one when the database has only it.

    Raises:
        StudyError: there is no study in the folder.
    """
    file, pointer = folder / DATABASE, folder / POINTER
    if pointer.is_file():
        url, name = _pointed(pointer)
        return Place(written=url), name
    if not file.is_file():
        raise StudyError(f"{file}: no such file; expected the results of a study")
    return Place(file), ""


def has_study(folder: Path) -> bool:
    """Whether a study was begun in the folder."""
    return (folder / DATABASE).is_file() or (folder / POINTER).is_file()


def pointed_name(folder: Path) -> str:
    """The name of the folder's study on its server; empty where there is none."""
    pointer = folder / POINTER
    return _pointed(pointer)[1] if pointer.is_file() else ""


def point(folder: Path, place: Place, name: str) -> None:
    """Write down where the study of the folder is, where that is not in the folder itself."""
    if place.file is None:
        content = {"storage": place.written, "study": name}
        (folder / POINTER).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _pointed(pointer: Path) -> tuple[str, str]:
    try:
        found = json.loads(pointer.read_text(encoding="utf-8"))
        make_url(str(found["storage"]))
        return str(found["storage"]), str(found["study"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ArgumentError) as error:
        raise StudyError(f"{pointer}: cannot be read: {shortened(error, 200)}") from None


# --- URLs ----------------------------------------------------------------------------------------


def url_problem(written: str) -> str:
    """What is wrong with a URL, never repeating it; empty where nothing is.

    >>> url_problem("postgresql+psycopg://me:secret@host/studies")
    'the URL holds a password; expected ${NAME} in its place, or PGPASSWORD, or a password file'
    """
    try:
        url = make_url(written)
        url.get_dialect()
    except NoSuchModuleError:
        return f"unknown kind of database; expected {EXPECTED}"
    except (ArgumentError, ValueError):
        return f"not a URL; expected {EXPECTED}"
    if _holds_password(url):
        return (
            "the URL holds a password; expected ${NAME} in its place, or PGPASSWORD, or a password"
            " file"
        )
    module = url.get_driver_name()
    if url.get_backend_name() == "postgresql" and module and find_spec(module) is None:
        return (
            f"it needs the package {module}; expected pip install 'activation-search[postgresql]'"
        )
    return ""


def _holds_password(url: URL) -> bool:
    """Whether any part of it is a password as it stands."""
    query = [str(url.query[name]) for name in _SECRETS if name in url.query]
    return any(not _VARIABLE.fullmatch(each) for each in (*_password(url), *query))


def _password(url: URL) -> tuple[str, ...]:
    return (str(url.password),) if url.password else ()


def expanded(written: str, environment: Mapping[str, str]) -> URL:
    """The URL with its variables filled in, each in its own part: a password may hold any sign.

    >>> url = expanded("postgresql://me:${PW}@host/studies", {"PW": "a/b@c"})
    >>> url.password, url.render_as_string()
    ('a/b@c', 'postgresql://me:***@host/studies')

    Raises:
        StudyError: a variable is not set.
    """

    def fill(part: str | None) -> str | None:
        return None if part is None else _VARIABLE.sub(value, part)

    def value(found: re.Match[str]) -> str:
        if found[1] not in environment:
            raise StudyError(f"storage: {written}: the variable {found[1]} is not set")
        return environment[found[1]]

    url = make_url(written)
    query = {
        name: fill(each) if isinstance(each, str) else each for name, each in url.query.items()
    }
    return url.set(
        username=fill(url.username),
        password=fill(str(url.password)) if url.password else None,
        host=fill(url.host),
        database=fill(url.database),
        query={name: each for name, each in query.items() if each is not None},
    )


# --- connections ---------------------------------------------------------------------------------


@contextmanager
def connected(place: Place) -> Iterator[RDBStorage]:
    """The storage; let go of after an error in it.

    Raises:
        StudyError: what the database refuses.
    """
    with reading(place):
        backend = _connect(place)
        try:
            yield backend
        except BaseException:
            disconnect(backend)
            raise


def disconnect(backend: RDBStorage) -> None:
    """Write a file's log back into it, let go of a server."""
    backend.remove_session()
    backend.engine.dispose()


def _connect(place: Place) -> RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = place.url
    lite = url.get_backend_name() == "sqlite"
    # A server, or what lies between, ends connections that were idle for hours.
    options: dict[str, Any] = {"pool_pre_ping": True}
    if lite:
        options = {"connect_args": {"timeout": 30}}
    backend = RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=options)
    if lite:
        # A write-ahead log survives a killed process as the default journal does, and commits
        # without waiting for the disk: a trial with ten runs costs 31 ms of the driver instead of
        # 87. (A power cut may lose the last second, and never what was written before it.)
        event.listen(backend.engine, "connect", _use_write_ahead_log)
        backend.engine.dispose()
    return backend


def _use_write_ahead_log(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def claim(backend: RDBStorage, place: Place, name: str) -> Connection | None:
    """Keep other drivers off a study on a PostgreSQL server until the connection is closed; it
    closes with this process. A file is kept by the lock of its folder, other servers not at all.

    Raises:
        StudyError: another driver writes there.
    """
    if backend.engine.dialect.name != "postgresql":
        return None
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    held = backend.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    if held.execute(text("select pg_try_advisory_lock(:key)"), {"key": key}).scalar():
        return held
    held.close()
    raise StudyError(f"{place}: another search writes study {name}; expected one at a time")


DAMAGED = "keeps what can be read"
"""Ends the line about a database that was damaged."""
_ADVICE = {
    "database or disk is full": "expected free space; nothing that ended is lost",
    "database is locked": "another process keeps it; expected that to end",
    "no such table": "expected the results of a study",
    "malformed": f"python -m search.run --check FOLDER {DAMAGED}",
    "Could not decode": f"python -m search.run --check FOLDER {DAMAGED}",
}
"""What is to be done about some of the databases' own words."""


@contextmanager
def storage_errors(place: Place) -> Iterator[None]:
    """Tell what the database refuses in one line, without its password."""
    try:
        yield
    except (SQLAlchemyError, OptunaError, OSError, ImportError) as error:
        cause = error.__cause__ or error
        told = shortened(getattr(cause, "orig", None) or cause, 400)
        for secret in () if place.file else _password(place.url):
            told = told.replace(secret, "***")
        advice = [f"; {text}" for words, text in _ADVICE.items() if words in told]
        raise StudyError(f"{place}: cannot be used: {told}{''.join(advice)}") from error


@contextmanager
def reading(place: Place) -> Iterator[None]:
    """Tell in one line, too, what is in a database and cannot be ours: it was damaged."""
    with storage_errors(place):
        try:
            yield
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            told = shortened(error, 200)
            folder = place.file.parent if place.file else "FOLDER"
            mend = f"python -m search.run --check {folder} {DAMAGED}"
            raise StudyError(f"{place}: is damaged: {told}; {mend}") from error


def same_file(place: Place) -> Callable[[], bool]:
    """Asks whether a study's file is still the one that it is now: SQLite goes on writing to one
    that was removed, and all of that would be lost. A server tells so itself."""

    def identity() -> tuple[int, int] | None:
        try:
            found = place.file.stat() if place.file else None
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if found else (0, 0)

    now = identity()
    return lambda: identity() == now
