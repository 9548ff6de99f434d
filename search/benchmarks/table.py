"""A table of a whole finite space: what every function of it scores, so that samplers can be
compared without training.

The file is gzip'd JSON, one value a line: a header (`Header`), then a row for every distinct
function (`Row`), then one for every baseline that is none of them. Scores are kept by rate, seed
and checkpoint, to five significant digits. What a function does (its values, slopes, moments …) is
not in it: that follows from its expression.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.errors import StudyError
from search.records import Run
from search.space.grammar import Grammar
from search.space.reading import parse_grammar
from search.space.settings import Space

FORMAT = 1
IDENTIFYING = ("task", "recipe", "activation", "depth", "learning_rate", "seeds", "gates")
"""The keys of a space that say what a table of it holds; how it is searched says nothing."""
EMPTY = np.empty((0, 0, 0))
"""The scores of a function that was not trained."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the rows of a table share."""

    name: str
    """Of the space."""
    space: Mapping[str, Any]
    """The `IDENTIFYING` keys, every default filled in; and `by_loss`."""
    metric: str
    """The task's."""
    maximize: bool
    """Whether more of the metric is better."""
    options: Mapping[str, Any]
    """Of the task, every one."""
    recipe: Mapping[str, Any]
    """Of its training, every key but the rate."""
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    checkpoints: tuple[int, ...]
    """Steps after which every run was evaluated; the last one ends it."""
    derivations: int
    distinct: int
    """Functions among them; as many rows has a whole table."""
    environment: Mapping[str, Any]
    """Versions and machine."""
    baselines: Mapping[str, str] = field(default_factory=dict)
    """Fingerprints by name: what a search of the space trains before it asks a sampler."""

    @property
    def identity(self) -> str:
        """16 hexadecimal digits of what the table is of."""
        text = json.dumps(self.space, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def objective(self) -> str:
        """What the space is searched for: the metric or, with `objectives: [loss]`, the loss."""
        return "loss" if self.space["by_loss"] else self.metric

    @property
    def larger_is_better(self) -> bool:
        """Of the objective."""
        return self.maximize and not self.space["by_loss"]

    @property
    def default_rate(self) -> float:
        """The rate that one would take without tuning: nearest to it, ties are broken."""
        return self.space["learning_rate"]["default"]

    @property
    def grammar(self) -> Grammar:
        """The space's own."""
        return parse_grammar(self.space["activation"], self.space["depth"])


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One function."""

    expression: str
    fingerprint: str
    choices: Mapping[str, Any]
    """Of its first derivation."""
    state: str
    """As a trial's: complete, diverged, rejected or failed."""
    reason: str
    scores: NDArray[np.float64]
    """The metric, (rates, seeds, checkpoints); NaN from where a run diverged. Empty when nothing
    was trained."""
    losses: NDArray[np.float64]
    """The validation loss, likewise."""
    cost: float | None = None
    """Seconds of a training step relative to the same model with ReLU."""
    share: float | None = None
    """Of a step's time, what is spent in activations."""
    parameters: int = 0
    seconds: float = 0.0
    """Wall time of the whole evaluation."""
    baseline: str = ""
    """The name of a baseline that has no row among the functions, or that a gate refused there."""

    @property
    def key(self) -> str:
        """What it is called in its table."""
        return self.baseline or self.fingerprint


@dataclass(frozen=True, slots=True)
class Table:
    """A table as read; `rows` by their place in the grammar's enumeration."""

    header: Header
    rows: tuple[Row, ...]
    others: tuple[Row, ...] = ()
    """The baselines that are no rows of the space; no gate was asked about them."""

    @property
    def baselines(self) -> dict[str, Row]:
        """The row of every baseline, by name."""
        others = {row.baseline: row for row in self.others}
        rows = {row.fingerprint: row for row in self.rows}
        named = self.header.baselines.items()
        return {name: others.get(name) or rows[key] for name, key in named}

    @property
    def trained(self) -> list[Row]:
        """The rows that have a score."""
        return [row for row in self.rows if row.state == "complete"]

    @property
    def curves(self) -> NDArray[np.float64]:
        """(functions, rates, seeds, checkpoints): the objective of every trained row."""
        by_loss = self.header.space["by_loss"]
        return np.stack([row.losses if by_loss else row.scores for row in self.trained])


def identifying(space: Space) -> dict[str, Any]:
    """What says which table a space makes, as JSON values."""
    assert space.grammar is not None, "a table is of a grammar"
    resolved = space.resolved()
    kept = {key: resolved[key] for key in IDENTIFYING}
    if space.learning_rate.halving is None:  # as it was before there was such a key
        del kept["learning_rate"]["halving"]
    # The order of the keys of a mapping is no part of an identity, and the first rule is the start.
    return kept | {"start": space.grammar.start, "by_loss": space.by_loss}


def curves_of_runs(
    header: Header, runs: Sequence[Run]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores and losses of a candidate's runs, each (rates, seeds, checkpoints)."""
    shape = len(header.rates), len(header.seeds), len(header.checkpoints)
    scores, losses = np.full(shape, np.nan), np.full(shape, np.nan)
    for run in runs:
        rate, seed = header.rates.index(run.learning_rate), header.seeds.index(run.seed)
        for point in run.curve:
            place = rate, seed, header.checkpoints.index(point.step)
            scores[place], losses[place] = point.score, point.loss
    return scores, losses


# --- the file ------------------------------------------------------------------------------------


def header_line(header: Header) -> str:
    """The header as a line of the file."""
    return _compact({"table": FORMAT, "identity": header.identity, **asdict(header)})


def row_line(row: Row) -> str:
    """A row as a line of the file."""
    fields = {name: getattr(row, name) for name in Row.__slots__}
    arrays = {name: _listed(fields[name]) for name in ("scores", "losses")}
    numbers = {name: _short(fields[name]) for name in ("cost", "share", "seconds")}
    return _compact({**fields, **arrays, **numbers})


def _compact(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _listed(values: NDArray[np.float64]) -> list[Any]:
    if values.ndim > 1:
        return [_listed(part) for part in values]
    return [_short(value) for value in values.tolist()]


def _short(value: float | None) -> float | None:
    """Five significant digits; None for what is not finite."""
    return None if value is None or not np.isfinite(value) else float(f"{value:.5g}")


def read_header(line: str, path: Path) -> Header:
    """The header from the file's first line.

    Raises:
        StudyError: it is none.
    """
    try:
        data = json.loads(line)
        if not isinstance(data, dict) or "table" not in data:
            raise StudyError(f"{path}: not a table; expected a file of `bench samplers tabulate`")
        if data.pop("table") != FORMAT:
            raise StudyError(f"{path}: another format than this version's; tabulate it again")
        identity = data.pop("identity")
        lists = {name: tuple(data[name]) for name in ("rates", "seeds", "checkpoints")}
        header = Header(**{**data, **lists})
    except (ValueError, KeyError, TypeError):
        told = f"{path}: not a table; expected a file of `bench samplers tabulate`"
        raise StudyError(told) from None
    if header.identity != identity:
        raise StudyError(f"{path}: its space was changed by hand: it does not have its own hash")
    return header


def read_row(line: str) -> Row:
    """A row from its line; raises ValueError, KeyError or TypeError when it is none."""
    data = json.loads(line)
    arrays = {
        name: np.array(data[name], np.float64) if data[name] else EMPTY
        for name in ("scores", "losses")
    }
    return Row(**{**data, **arrays})


def read_table(path: Path) -> Table:
    """The table in a file.

    Raises:
        StudyError: there is none, it is truncated, or it is no table.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        raise StudyError(f"{path}: no such file; expected a table{_begun(path)}") from None
    except (EOFError, zlib.error):
        raise StudyError(f"{path}: truncated; expected a whole table") from None
    except (OSError, UnicodeDecodeError) as error:
        told = getattr(error, "strerror", None) or error
        raise StudyError(f"{path}: cannot be read: {told}") from None
    header = read_header(lines[0] if lines else "", path)
    try:
        rows = tuple(read_row(line) for line in lines[1:])
    except (ValueError, KeyError, TypeError):
        raise StudyError(f"{path}: damaged; expected a row of a table in every line") from None
    functions, others = rows[: header.distinct], rows[header.distinct :]
    if len(functions) != header.distinct:
        raise StudyError(f"{path}: truncated: {len(rows)} of {header.distinct} functions")
    known = {row.baseline for row in others} | {row.fingerprint for row in functions}
    lost = [name for name, key in header.baselines.items() if not known & {name, key}]
    if lost:
        raise StudyError(f"{path}: truncated: it lacks the baselines {', '.join(lost)}")
    return Table(header, functions, others)


def _begun(path: Path) -> str:
    part = part_of(path)
    return f"; {part} is one that is not finished" if part.exists() else ""


def part_of(path: Path) -> Path:
    """Where the rows of an unfinished table are kept, as plain lines."""
    return path.with_name(path.name + ".part")


def write_table(path: Path, lines: Sequence[str]) -> None:
    """Replace the file in one step.

    Raises:
        StudyError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.draft")
    data = "".join(f"{line}\n" for line in lines).encode()
    try:
        # No time in it: the same table gives the same bytes.
        draft.write_bytes(gzip.compress(data, 9, mtime=0))
        os.replace(draft, path)
    except OSError as error:
        raise StudyError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)
