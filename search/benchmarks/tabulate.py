"""`python -m search.bench samplers tabulate`: every function of a finite space, trained.

What is finished stands in `FILE.part`, a line a function, as soon as it is finished; the same
command goes on from there. When none is left, the lines become FILE. The space's baselines come
last; a table without some of them gets those that it lacks.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from search.benchmarks.table import (
    EMPTY,
    Header,
    Row,
    Table,
    curves_of_runs,
    header_line,
    identifying,
    part_of,
    read_header,
    read_row,
    read_table,
    row_line,
    write_table,
)
from search.environment import environment
from search.errors import SpaceError, StudyError
from search.kernels.abreast import forms_abreast
from search.kernels.formula import compile_batch
from search.language.fingerprint import fingerprint
from search.language.parser import parse
from search.progress import duration
from search.protocol import gate_before_training
from search.records import Run
from search.results import write_whole
from search.space.grammar import Candidate
from search.space.settings import Space
from search.stopping import SIGNALS, Stopped, stop_signals
from search.tasks.task import Recipe, find_task
from search.training.candidates import groups_of, train_candidates
from search.training.from_space import training_of
from search.training.job import Job, Outcome, Training
from search.training.prepared import prepare
from search.trials.failures import refuse_alike

LARGEST = 20_000
"""The most derivations of a space that is tabulated."""
CHUNK = 32
"""Candidates compiled together (25 ms each; alone 150) and then trained."""
EVERY = 15.0
"""Seconds between two lines about the progress."""


@dataclass(frozen=True, slots=True)
class Work:
    """What all rows of a table share."""

    training: Training
    header: Header
    gates: bool
    baselines: bool = False
    """Whether the functions are baselines beside those of the space, by name."""


def tabulate(
    space: Space, path: Path, workers: int, tell: Callable[[str], None] = lambda line: None
) -> Table:
    """The table of `space` in `path`: begun, gone on with, or read when it is whole.

    Raises:
        SpaceError: the space is not finite, or too large.
        StudyError: the file is of another space, or cannot be written; or every training fails.
        TaskError: the data are missing.
        Stopped: by Ctrl-C or SIGTERM; what had ended is kept.
    """
    if path.suffixes[-2:] != [".jsonl", ".gz"]:
        raise StudyError(f"{path}: expected a name that ends in .jsonl.gz")
    check_finite(space)
    training = _training(space)
    header = header_of(space, training)
    named = {name: fingerprint(space.baseline(name)) for name in space.baselines}
    if path.exists():
        table = _same(header, read_table(path), path)
        if named.keys() <= table.header.baselines.keys():
            return table
        header = replace(table.header, baselines={**table.header.baselines, **named})
        _reopened(table, part_of(path))
    found = candidates(space)
    tell(f"{header.derivations} derivations, {len(found)} distinct functions")
    header = replace(header, distinct=len(found), baselines=header.baselines or named)
    rows = _kept(header, part_of(path))
    work = Work(training, header, space.gates)
    _train(work, found, rows, path, workers, tell)
    others = _others(space, header, rows)
    _train(replace(work, gates=False, baselines=True), others, rows, path, workers, tell)
    lines = [row_line(rows[key]) for key in (*found, *others)]
    write_table(path, [header_line(header), *lines])
    part_of(path).unlink()
    return read_table(path)


def _train(
    work: Work,
    found: Mapping[str, Candidate],
    rows: dict[str, Row],
    path: Path,
    workers: int,
    tell: Callable[[str], None],
) -> None:
    """The rows of `found` that are not there yet; each is written as it comes."""
    missing = [key for key in found if key not in rows]
    new = _rows_to_come(work, found, missing, workers)
    with stop_signals() as asked, closing(new):
        _follow(new, part_of(path), rows, len(rows) + len(missing), asked, tell)


def check_finite(space: Space) -> None:
    """Refuses a space that cannot be listed.

    Raises:
        SpaceError: it has no grammar, a range of numbers, or too many derivations.
    """
    place = f"{space.source}: activation"
    if space.grammar is None:
        raise SpaceError(f"{place}: missing; expected rules with a finite number of functions")
    size = space.grammar.count()
    if size.continuous:
        raise SpaceError(
            f"{place}: has ranges of numbers, so its functions cannot be listed; expected sets"
            " such as `s in {0.5, 1, 2}`"
        )
    if size.derivations > LARGEST:
        raise SpaceError(f"{place}: {size.derivations:,} derivations; expected at most {LARGEST:,}")
    if space.learning_rate.extend:
        raise SpaceError(
            f"{space.source}: learning_rate.extend is true; expected false: every row of a table"
            " has the same rates"
        )


def _training(space: Space) -> Training:
    """As in a search, scored by the metric: the loss is kept beside it in any case."""
    task = find_task(space.task, space.source.parent)
    at_once = space.batching or len(space.learning_rate.grid) * len(space.seeds)
    training = training_of(space, task)
    return replace(training, at_once=at_once, by_loss=False)


def header_of(space: Space, training: Training) -> Header:
    """The header of the space's table; `distinct` is as yet the number of derivations."""
    assert space.grammar is not None, "checked before"
    prepared = prepare(training)
    size = space.grammar.count().derivations
    epochs = prepared.recipe.epochs
    per_epoch = max(1, len(prepared.splits.train.targets) // prepared.recipe.batch_size)
    steps = {min(per_epoch * (epoch + 1), prepared.steps) for epoch in range(epochs)}
    return Header(
        name=space.name,
        space=identifying(space),
        metric=prepared.task.metric,
        maximize=training.grid.maximize,
        options=prepared.options,
        recipe=_recipe(prepared.recipe),
        rates=training.grid.rates,
        seeds=training.grid.seeds,
        checkpoints=tuple(sorted(steps)),
        derivations=size,
        distinct=size,
        environment=environment() | {"device": prepared.device, "threads": training.threads},
    )


def _recipe(recipe: Recipe) -> dict[str, Any]:
    """Every key but the rate, which the rows have, as JSON values."""
    kept = {key: value for key, value in asdict(recipe).items() if key != "learning_rate"}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in kept.items()}


def candidates(space: Space) -> dict[str, Candidate]:
    """The first derivation of every function, by fingerprint."""
    assert space.grammar is not None, "checked before"
    found: dict[str, Candidate] = {}
    for candidate in space.grammar.candidates():
        found.setdefault(fingerprint(candidate.expression), candidate)
    return found


def _others(space: Space, header: Header, rows: Mapping[str, Row]) -> dict[str, Candidate]:
    """The baselines by name that no function of the space stands for: a search trains them without
    gates, so one that a gate refused among the functions is trained too."""
    return {
        name: Candidate(parse(rows[name].expression) if name in rows else space.baseline(name), {})
        for name, key in header.baselines.items()
        if key not in rows or rows[key].state == "rejected"
    }


# --- what is there already -----------------------------------------------------------------------


def _reopened(table: Table, part: Path) -> None:
    """Go on with a whole table, unless that was begun already."""
    if not part.exists():
        lines = [header_line(table.header), *map(row_line, (*table.rows, *table.others))]
        write_whole(part, "".join(f"{line}\n" for line in lines))


def _same(wanted: Header, table: Table, path: Path) -> Table:
    _refuse_another(wanted, table.header, path)
    return table


def _refuse_another(wanted: Header, found: Header, path: Path) -> None:
    if wanted.identity == found.identity:
        return
    differing = [key for key in wanted.space if wanted.space[key] != found.space.get(key)]
    raise StudyError(
        f"{path}: a table of another space: {', '.join(differing)} differ; expected the space that"
        " it was begun with, or another file"
    )


def _kept(header: Header, part: Path) -> dict[str, Row]:
    """The rows of an unfinished table by fingerprint, failures left out; where there is none, one
    is begun. A last line that was cut off by a kill is dropped."""
    try:
        lines = part.read_text(encoding="utf-8").split("\n")[:-1] if part.exists() else []
        if lines:
            _refuse_another(header, read_header(lines[0], part), part)
        rows = [row for row in map(read_row, lines[1:]) if row.state != "failed"]
    except (ValueError, KeyError, TypeError):
        raise StudyError(f"{part}: damaged; remove it to begin anew") from None
    except OSError as error:
        raise StudyError(f"{part}: cannot be read: {error.strerror or error}") from None
    begun = [lines[0] if lines else header_line(header), *map(row_line, rows)]
    write_whole(part, "".join(f"{line}\n" for line in begun))
    return {row.key: row for row in rows}


# --- what is to come -----------------------------------------------------------------------------


def _rows_to_come(
    work: Work, found: Mapping[str, Candidate], missing: Sequence[str], workers: int
) -> Generator[Row, None, None]:
    """The missing rows, in the order in which they end."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, workers), context, initializer=_ends_with_parent) as pool:
        try:
            for groups in _chunks(in_one_program(work, {key: found[key] for key in missing})):
                if work.training.device == "cpu":
                    expressions = [c.expression for group in groups for c in group.values()]
                    compile_batch([f for e in expressions for f in (e, *forms_abreast(e))])
                for done in as_completed([_ask(pool, work, group) for group in groups]):
                    yield from done.result()
        except BrokenProcessPool:
            raise StudyError("a worker was killed, by a lack of memory perhaps") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def in_one_program(work: Work, missing: Mapping[str, Candidate]) -> list[dict[str, Candidate]]:
    """The functions by fingerprint, those side by side that train in one program."""
    keys = list(missing)
    jobs = [Job(str(candidate.expression), gated=work.gates) for candidate in missing.values()]
    groups = groups_of(work.training, jobs)
    return [{keys[place]: missing[keys[place]] for place in group} for group in groups]


def _chunks(groups: Sequence[dict[str, Candidate]]) -> Iterator[list[dict[str, Candidate]]]:
    """The groups, about `CHUNK` candidates of them at a time."""
    chunk: list[dict[str, Candidate]] = []
    for group in groups:
        chunk.append(group)
        if sum(map(len, chunk)) >= CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _ask(
    pool: ProcessPoolExecutor, work: Work, group: Mapping[str, Candidate]
) -> Future[list[Row]]:
    plain = {key: (str(one.expression), one.choices) for key, one in group.items()}
    return pool.submit(evaluate, work, plain)


def _ends_with_parent() -> None:
    """A worker leaves signals to its whole group to its parent, and does not outlive it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def evaluate(work: Work, group: Mapping[str, tuple[str, Mapping[str, Any]]]) -> list[Row]:
    """The rows of some functions, by key their formulas and choices, gated and trained as in a
    search; those that are one program up to numbers train together. Runs in a worker."""
    outcomes: dict[str, Outcome] = {}
    for key, (text, _) in group.items():
        if rejection := gate_before_training(parse(text)) if work.gates else None:
            outcomes[key] = Outcome("rejected", f"{rejection.gate}: {rejection.reason}")
    admitted = [key for key in group if key not in outcomes]
    runs: dict[str, list[Run]] = {key: [] for key in group}
    trained = train_candidates(
        work.training,
        [Job(group[key][0], gated=work.gates) for key in admitted],
        lambda place, run: runs[admitted[place]].append(run),
    )
    outcomes |= zip(admitted, trained, strict=True)
    return [_row(work, key, *group[key], outcomes[key], runs[key]) for key in group]


def _row(
    work: Work,
    key: str,
    text: str,
    choices: Mapping[str, Any],
    outcome: Outcome,
    runs: Sequence[Run],
) -> Row:
    scores, losses = curves_of_runs(work.header, runs) if runs else (EMPTY, EMPTY)
    return Row(
        expression=text,
        fingerprint=fingerprint(parse(text)) if work.baselines else key,
        choices=choices,
        state=outcome.state,
        reason=outcome.reason,
        scores=scores,
        losses=losses,
        cost=outcome.cost,
        share=outcome.share,
        parameters=outcome.parameters,
        seconds=outcome.seconds,
        baseline=key if work.baselines else "",
    )


def _follow(
    new: Iterator[Row],
    part: Path,
    rows: dict[str, Row],
    wanted: int,
    asked: Sequence[int],
    tell: Callable[[str], None],
) -> None:
    """Write every row as it comes, add it to `rows`, and tell how far it is.

    Raises:
        StudyError: training fails, whatever the function.
        Stopped: somebody asked for the end.
    """
    began, told, already = time.monotonic(), time.monotonic(), len(rows)
    with part.open("a", encoding="utf-8") as file:
        for row in new:
            file.write(row_line(row) + "\n")
            file.flush()
            rows[row.key] = row
            _refuse_failures(rows.values())
            now = time.monotonic()
            if now - told > EVERY or len(rows) == wanted:
                left = (wanted - len(rows)) * (now - began) / (len(rows) - already)
                tell(f"{len(rows)} of {wanted}: {_states(rows.values())}; {duration(left)} left")
                told = now
            if asked:
                raise Stopped(asked[0])


def _states(rows: Iterable[Row]) -> str:
    counts = Counter(row.state for row in rows)
    return ", ".join(f"{count} {state}" for state, count in counts.most_common())


def _refuse_failures(rows: Collection[Row]) -> None:
    if not any(row.state in ("complete", "diverged") for row in rows):
        failed = (row.reason for row in rows if row.state == "failed")
        refuse_alike(failed, "functions")
