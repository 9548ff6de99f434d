"""What is to be exported: a formula, a catalogue row, or a place on a study's leaderboard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from search.errors import ExpressionError, StudyError
from search.language.catalog import find_published
from search.language.expression import Expression
from search.language.parser import parse

Rows = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A formula and what is known of it."""

    expression: Expression
    origin: str
    """Where it is from, in a few words."""
    facts: Rows = ()
    """Label and text of every line that a certificate says about where it is from."""
    cost: float | None = None
    """Seconds of a training step relative to ReLU's, as a study measured it."""


def read_source(what: str | None, formula: str | None, rank: int | None) -> Source:
    """The source that a command line names.

    what: a study's folder, or a catalogue name. formula: given instead. rank: of a study, from 1.

    Raises:
        ExpressionError: neither or both, an unknown name, or a formula that is not one.
        StudyError: no study in the folder, or no such rank in it.
    """
    if (what is None) == (formula is None):
        raise ExpressionError(
            "export: expected either a study's folder or a catalogue name, or --expression"
        )
    folder = Path(what) if what is not None else None
    if folder is not None and (folder.is_dir() or folder.name != what):
        from search.exporting.from_study import read_ranked  # with Optuna: a formula needs none

        return read_ranked(folder, 1 if rank is None else rank)
    if rank is not None:
        raise StudyError(
            f"--rank {rank}: expected a study's folder beside it, got '{what or formula}'"
        )
    return _of_catalogue(what) if what is not None else _of_formula(formula or "")


def _of_formula(text: str) -> Source:
    return Source(parse(text, "--expression"), "a formula given on the command line")


def _of_catalogue(name: str) -> Source:
    row = find_published(name, "export")
    paper = f"{row.paper} (arXiv:{row.arxiv})" if row.arxiv else row.paper
    return Source(row.expression, f"{row.title}, of the catalogue", (("paper", paper),))
