"""The two Optuna studies of a study, and how their database is opened.

`study.db`, or a server (`storage.py`), holds both. `<name>-<hash of the definition>` has the
candidates, and the baselines that the grammar can express, as points that the sampler learns from.
`…/baselines` has the other baselines: without parameters, they would empty the search space that
samplers infer from what all finished trials share. The placebos and the finalists are there too,
as no sampler may learn from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from sqlalchemy import Connection

from search.database.attributes import RUN
from search.database.definitions import difference, directions, directions_of, study_name
from search.database.mirror import Mirror
from search.database.storage import (
    Place,
    claim,
    connected,
    disconnect,
    found_place,
    place_of,
    point,
    pointed_name,
)
from search.errors import StudyError
from search.space.settings import Space

SUFFIX = "/baselines"


class Database(NamedTuple):
    """An open database and its two Optuna studies."""

    place: Place
    storage: BaseStorage
    backend: RDBStorage | None
    """None in memory."""
    search: optuna.Study
    baselines: optuna.Study
    claimed: Connection | None = None
    """Holds a server's study for this driver."""

    @property
    def studies(self) -> tuple[tuple[bool, optuna.Study], ...]:
        """Each study, after whether it is the baselines'."""
        return (False, self.search), (True, self.baselines)

    def close(self) -> None:
        """Write a file's log back into it, let go of a server."""
        if self.claimed is not None:
            self.claimed.close()
        if self.backend is not None:
            disconnect(self.backend)


def open_database(folder: Path, space: Space, maximize: bool, fresh: bool = False) -> Database:
    """The database of `space`, whose results are in `folder`; begun if there is none.

    fresh: begin anew on a server that has such a study already. (A file was set aside.)

    Raises:
        StudyError: the folder has another study, or the database cannot be used.
    """
    place = place_of(folder, space.storage)
    with connected(place) as backend:
        storage, wanted = Mirror(backend, RUN), directions(space.search.objectives, maximize)
        name = _name_there(folder, place, space, storage, fresh)
        claimed = claim(backend, place, name)
        search, baselines = (
            optuna.create_study(
                storage=storage, study_name=each, directions=wanted, load_if_exists=True
            )
            for each in (name, name + SUFFIX)
        )
        for study in (search, baselines):
            found = directions_of(study)
            if found != wanted:
                raise StudyError(f"{place}: begun with directions {found}; expected {wanted}")
        if "definition" not in search.user_attrs:
            search.set_user_attr("definition", space.definition())
        point(folder, place, name)
        return Database(place, storage, backend, search, baselines, claimed)


def open_in_memory(space: Space, maximize: bool) -> Database:
    """A database that is gone with the process, for searches that train nothing."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage, wanted = InMemoryStorage(), directions(space.search.objectives, maximize)
    name = study_name(space)
    search, baselines = (
        optuna.create_study(storage=storage, study_name=each, directions=wanted)
        for each in (name, name + SUFFIX)
    )
    return Database(Place(written="sqlite://"), storage, None, search, baselines)


@contextmanager
def existing_database(folder: Path) -> Iterator[Database]:
    """The database of the study in `folder`, to be read, whether a driver writes to it or not.

    Raises:
        StudyError: there is no study, or it cannot be read.
    """
    place, name = found_place(folder)
    with connected(place) as backend:
        storage = Mirror(backend)
        names = optuna.get_all_study_names(storage)
        found = [each for each in names if each + SUFFIX in names and name in ("", each)]
        if len(found) != 1:
            which = f"no study {name}" if name else f"{len(found)} studies; expected one"
            raise StudyError(f"{place}: holds {which}")
        search, baselines = (
            optuna.load_study(study_name=each, storage=storage)
            for each in (found[0], found[0] + SUFFIX)
        )
        database = Database(place, storage, backend, search, baselines)
        try:
            yield database
        finally:
            database.close()


def _name_there(folder: Path, place: Place, space: Space, storage: BaseStorage, fresh: bool) -> str:
    """The name of the space's study in its database.

    A file has the one study of its folder. A server has many, of other people too: the folder's
    own is the one that was begun from it; a folder without one goes on with the latest of the
    space, `<name>-<hash>`, `<name>-<hash>.2`, …, and `fresh` begins the next of those.

    Raises:
        StudyError: the folder's study has another definition, or is not on this server.
    """
    name, names = study_name(space), optuna.get_all_study_names(storage)
    if place.file is not None:
        others = [each for each in names if not each.endswith(SUFFIX)]
        if name not in names and others:
            _refuse_another(folder, space, storage, others[0])
        return name
    series = [name, *(f"{name}.{number}" for number in range(2, len(names) + 3))]
    begun = [each for each in series if each in names]
    if fresh:
        return next(each for each in series if each not in names)
    kept = pointed_name(folder)
    if kept and kept not in names:
        raise StudyError(
            f"{place}: holds no study {kept}, which was begun from {folder}; expected the database"
            " that has it, or --fresh, which begins anew"
        )
    if kept and kept not in series:
        _refuse_another(folder, space, storage, kept)
    return kept or (begun[-1] if begun else name)


def _refuse_another(folder: Path, space: Space, storage: BaseStorage, name: str) -> None:
    """Raises StudyError with the difference to the definition of the study that is there."""
    kept = optuna.load_study(study_name=name, storage=storage).user_attrs.get("definition", {})
    raise StudyError(
        f"{space.source}: the space has changed since the study in {folder} was begun:",
        *difference(kept, space.definition()),
        "expected the space as it was; or another name in it; or --fresh, which sets the results"
        " aside and begins anew",
    )
