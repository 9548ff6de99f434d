"""`python -m search.bench samplers STEP`: the arguments of tabulate and replay.

What takes seconds to import is imported by the step that needs it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from search.errors import StudyError

if TYPE_CHECKING:
    from search.benchmarks.replay import Conditions
    from search.benchmarks.standings import Contest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The two commands under `samplers`."""
    steps = parser.add_subparsers(dest="step", required=True)
    for name, (summary, arguments, run) in STEPS.items():
        step = steps.add_parser(name, help=summary, description=summary)
        arguments(step)
        step.set_defaults(take=run)


def take(options: argparse.Namespace) -> None:
    """Run the one that was asked for."""
    options.take(options)


def _tabulate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("space", type=Path, help="a finite space, as spaces/gated_table.yaml")
    parser.add_argument("-o", "--output", type=Path, required=True, help="FILE.jsonl.gz")
    parser.add_argument("--seeds", type=int, help="so many in place of the space's own")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="as search.run")
    parser.add_argument("--workers", type=int, help="processes that train; default: all cores")


def tabulate(options: argparse.Namespace) -> None:
    """Make a table, or go on with it, and say how real its ranking is."""
    from search.benchmarks import ranking, tabulate
    from search.environment import available_cpus
    from search.space.space import load_space

    seeds = [] if options.seeds is None else [f"seeds={list(range(options.seeds))}"]
    space = load_space(options.space, [*options.set, *seeds])
    say = partial(print, file=sys.stderr, flush=True)
    try:
        table = tabulate.tabulate(space, options.output, options.workers or available_cpus(), say)
    except KeyboardInterrupt as stop:
        say("stopped; what has ended is kept, and the same command goes on")
        sys.exit(getattr(stop, "code", 130))
    print(ranking.describe(table))


def _replay_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tables", type=Path, nargs="+", help="files of tabulate")
    parser.add_argument("--samplers", nargs="+", help="names; default: all but bruteforce")
    parser.add_argument("--seeds", type=int, default=200, help="searches of every sampler")
    parser.add_argument("--trials", type=int, default=200, help="budget of a search")
    parser.add_argument("--parallel", type=int, default=1, help="trials that run at a time")
    parser.add_argument("--seen", type=int, default=2, help="of the table's seeds, by a search")
    parser.add_argument(
        "--finalists", type=int, default=3, help="best by what was seen; other seeds compare them"
    )
    parser.add_argument(
        "--baselines",
        choices=("first", "none", "both"),
        default="both",
        help="the table's baselines: trained before a sampler is asked, as in a study, or left out",
    )
    parser.add_argument(
        "--promotion", action="store_true", help="say what promotion of candidates would spare"
    )
    parser.add_argument("--space", type=Path, help="refuse tables of another space than this")
    parser.add_argument("--workers", type=int, help="processes; default: all cores")
    parser.add_argument("-o", "--output", type=Path, help="folder for replay.json and replay.png")


def replay(options: argparse.Namespace) -> None:
    """Let samplers search tables; print, write and draw how they did."""
    from search.benchmarks import replay_table

    found = [each for first in MODES[options.baselines] for each in _contests(options, first)]
    if not found:
        raise StudyError(
            "--baselines: first, and no table has any; expected none, or tables of a space with"
            " baselines (tabulate adds them to a table that it finds)"
        )
    order = [path.name for path in options.tables]
    found.sort(key=lambda each: order.index(each.file))
    if options.promotion:
        found = _with_promotion(options, found)
    print(replay_table.table(found))
    for line in replay_table.write(found, options.output) if options.output else ():
        print(line, file=sys.stderr)


MODES = {"first": (True,), "none": (False,), "both": (True, False)}
"""Whether baselines are trained first, by what `--baselines` says."""


def _conditions(options: argparse.Namespace, baselines: bool = False) -> Conditions:
    from search.benchmarks.replay import Conditions

    numbers = options.trials, options.parallel, options.seen, options.finalists
    return Conditions(*numbers, baselines=baselines)


def _contests(options: argparse.Namespace, baselines: bool) -> list[Contest]:
    """Of all tables; with baselines of those that have some."""
    from search.benchmarks import contest
    from search.environment import available_cpus
    from search.space.space import load_space

    return contest.compare(
        options.tables,
        options.samplers or contest.USUAL,
        options.seeds,
        _conditions(options, baselines),
        options.workers or available_cpus(),
        load_space(options.space) if options.space else None,
        partial(print, file=sys.stderr, flush=True),
    )


def _with_promotion(options: argparse.Namespace, found: Sequence[Contest]) -> list[Contest]:
    """With what promotion with its default rungs spares on each table."""
    from search.benchmarks.contest import ground
    from search.benchmarks.promotion_table import spared
    from search.space.settings import Promotion

    told = {
        path.name: spared(ground(path), _conditions(options), options.seeds, Promotion())
        for path in options.tables
    }
    return [replace(each, promotion=told[each.file]) for each in found]


Step = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], None]]
STEPS: dict[str, Step] = {
    "tabulate": (
        "train every function of a finite space into one file; the same command goes on",
        _tabulate_arguments,
        tabulate,
    ),
    "replay": (
        "let samplers search tables, where a training is looked up: regret and trials to the top",
        _replay_arguments,
        replay,
    ),
}
