"""`python -m search.bench samplers replay`: samplers against tables, many searches of each.

Every sampler replays with the same seeds; a seed decides also which of the table's seeds the search
sees.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path

from search.benchmarks.replay import Conditions, Ground, Trace, replay
from search.benchmarks.standings import Contest, contest
from search.benchmarks.table import identifying, read_table
from search.errors import StudyError, near_miss
from search.samplers import SAMPLERS
from search.space.settings import Space

USUAL = tuple(name for name in SAMPLERS if name != "bruteforce")


def compare(
    paths: Sequence[Path],
    samplers: Sequence[str],
    seeds: int,
    conditions: Conditions,
    workers: int,
    space: Space | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Contest]:
    """All samplers on all tables; with baselines on those that have some.

    Raises:
        StudyError: an unknown sampler, an impossible number, or a table that cannot be used; or
            not one of `space`, where that is given.
    """
    check(samplers, seeds, conditions)
    grounds = [ground(path) for path in paths]
    for path, each in zip(paths, grounds, strict=True):
        _check_table(path, each, conditions, space)
    if conditions.baselines:
        paths = [path for path in paths if ground(path).baselines]
        grounds = [ground(path) for path in paths]
    traces = _traces(paths, samplers, seeds, conditions, workers, tell)
    return [
        contest(path.name, each, {s: traces[path, s] for s in samplers}, conditions)
        for path, each in zip(paths, grounds, strict=True)
    ]


def check(samplers: Sequence[str], seeds: int, conditions: Conditions) -> None:
    """Refuses what cannot be replayed.

    Raises:
        StudyError: unknown samplers or numbers below 1, each on a line.
    """
    problems = [
        f"--samplers: unknown sampler {name!r}{near_miss(name, SAMPLERS)}"
        for name in samplers
        if name not in SAMPLERS
    ]
    numbers = {"--seeds": seeds, "--trials": conditions.trials, "--parallel": conditions.parallel}
    numbers |= {"--seen": conditions.seen, "--finalists": conditions.finalists}
    for option, number in numbers.items():
        if number < 1:
            problems.append(f"{option}: got {number}; expected a whole number ≥ 1")
    if problems:
        raise StudyError(*problems)


def _check_table(path: Path, ground: Ground, conditions: Conditions, space: Space | None) -> None:
    header = ground.header
    if conditions.seen > len(header.seeds):
        raise StudyError(
            f"--seen: got {conditions.seen}; expected at most the {len(header.seeds)} seeds of"
            f" {path}"
        )
    if space is None:
        return
    wanted = identifying(space)
    differing = [key for key in wanted if wanted[key] != header.space.get(key)]
    if differing:
        raise StudyError(
            f"{path}: not a table of {space.source}: {', '.join(differing)} differ; expected the"
            " space that it was made of"
        )


@lru_cache(maxsize=8)
def ground(path: Path) -> Ground:
    """The table in a file, ready for replays; once per process."""
    table = read_table(path)
    if not table.trained:
        raise StudyError(f"{path}: none of its functions has a score; expected some")
    return Ground(table)


def replay_seeds(
    path: Path, sampler: str, seeds: Sequence[int], conditions: Conditions
) -> list[Trace]:
    """Several searches in a row. Runs in a worker process."""
    return [replay(ground(path), sampler, seed, conditions) for seed in seeds]


def _traces(
    paths: Sequence[Path],
    samplers: Sequence[str],
    seeds: int,
    conditions: Conditions,
    workers: int,
    tell: Callable[[str], None],
) -> dict[tuple[Path, str], list[Trace]]:
    """The searches of every table and sampler, by seed."""
    found: dict[tuple[Path, str], list[Trace]] = {}
    pairs = [(path, sampler) for sampler in samplers for path in paths]
    with _pool(workers) as submit:
        asked = [
            [submit(replay_seeds, *pair, part, conditions) for part in _parts(seeds)]
            for pair in pairs
        ]
        for pair, parts in zip(pairs, asked, strict=True):
            found[pair] = [trace for part in parts for trace in part()]
            tell(f"{pair[0].name}: {pair[1]}")
    return found


@contextmanager
def _pool(workers: int) -> Iterator[Callable[..., Callable[[], list[Trace]]]]:
    """`submit(function, …)` gives what gives the result: of another process, or of this one."""
    if workers < 2:
        yield partial
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield lambda *call: pool.submit(*call).result


def _parts(seeds: int) -> list[range]:
    """The seeds in parts of at most 10, so that no process waits long for another."""
    return [range(first, min(seeds, first + 10)) for first in range(0, seeds, 10)]
