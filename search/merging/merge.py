"""`python -m search.run --merge results/a results/b -o results/ab`: several studies as one.

Only studies of one space are merged: their scores mean the same. The name, the seed of the search
and its sampler may differ, and all that is no part of a definition: budget, finalists, machines.
Nothing in the folders that are merged is changed; each is read from a copy of its database.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from search.database.opening import existing_database
from search.decisions import LOG
from search.errors import StudyError, shown
from search.integrity.audit import problems
from search.merging.joining import Joining, joined
from search.merging.sources import Source, read_source, refuse_another_space
from search.merging.writing import budget_of, space_file, write_beside, write_study
from search.space.settings import STUDY_NAME

REMARKS = 20
"""Lines that are said; log.jsonl has them all."""

Say = Callable[[str], None]


def merge_studies(folders: Sequence[Path], output: Path, say: Say) -> int:
    """Write the studies in `folders` as one into `output`; the exit code, 0.

    Raises:
        StudyError: they are not of one space, one of them is being written or damaged, or there is
            something in `output` already.
    """
    _check_places(folders, output)
    sources = [read_source(i, folder) for i, folder in enumerate(folders)]
    first = sources[0]
    for other in sources[1:]:
        refuse_another_space(first, other)
    default = float(first.definition["learning_rate"]["default"])
    found = joined([each.trials for each in sources], first.directions[0] == "maximize", default)
    definition = first.definition | {"name": output.name}
    draft = output.with_name(f".{output.name}.merging")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        write_study(draft, definition, sources, found)
        write_beside(draft, output, definition, sources, found)
        _check_written(draft)
        output.parent.mkdir(parents=True, exist_ok=True)
        draft.rename(output)
    except OSError as error:
        raise StudyError(f"{output}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    _sum_up(output, sources, found, say)
    return 0


def _check_places(folders: Sequence[Path], output: Path) -> None:
    if not STUDY_NAME.fullmatch(output.name):
        raise StudyError(
            f"{shown(str(output))}: expected a folder whose name can be a study's: 1 to 64 letters,"
            " digits, '_', '-' or '.'"
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise StudyError(f"{output}: is there already; expected a new folder")
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise StudyError("--merge: expected two folders or more, each once")


def _check_written(draft: Path) -> None:
    """What was written is what `--check` takes."""
    with existing_database(draft) as database:
        wrong = [each.told for each in problems(database, driven=False)]
    if wrong:
        raise StudyError(f"{draft}: the merged study would be wrong: {wrong[0]}")


def _sum_up(output: Path, sources: Sequence[Source], found: Joining, say: Say) -> None:
    for line in found.remarks[:REMARKS]:
        say(line)
    if len(found.remarks) > REMARKS:
        say(f"and {len(found.remarks) - REMARKS} more such lines in {output / LOG}")
    trials = [each.trial for each in found.trials]
    candidates = sum(trial.origin == "search" and trial.state == "complete" for trial in trials)
    baselines = sum(trial.origin == "baseline" for trial in trials)
    finalists = sum(trial.origin == "finalist" for trial in trials)
    runs = sum(len(trial.runs) for trial in trials)
    say(
        f"{output}: {len(sources)} studies, {found.shared} functions in several of them;"
        f" {len(trials)} trials: {candidates} complete candidates, {baselines} baselines,"
        f" {finalists} finalists; {runs} runs"
    )
    say(f"go on with: {shlex.join(_again(output, sources, found))}")


def _again(output: Path, sources: Sequence[Source], found: Joining) -> list[str]:
    file = space_file(output, sources)
    words = ["python", "-m", "search.run", str(file), "--results", str(output.parent)]
    if file.parent != output:
        words += ["--set", f"name={output.name}", "--trials", str(budget_of(found, sources))]
    return words
