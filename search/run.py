"""Search a space, or go on with a search: `python -m search.run spaces/gated.yaml`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from search.errors import run_cli
from search.figures.report import write_report
from search.figures.settings import settings_from_folder
from search.plan import make_plan
from search.progress import display
from search.protocol import gate_before_training
from search.results import claimed, session, set_aside
from search.space.space import load_space
from search.study import open_study, read_trials
from search.summary import print_summary
from search.tasks.task import find_task


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(prog="python -m search.run", description=__doc__)
    words.add_argument("space", type=Path, help="a space file, such as spaces/gated.yaml")
    words.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=C",
        help="override a key of the space file, such as search.sampler=random; may be repeated",
    )
    words.add_argument("--trials", type=int, metavar="N", help="train N candidates in all")
    words.add_argument(
        "--fresh", action="store_true", help="begin anew; earlier results are renamed, not deleted"
    )
    words.add_argument("--dry-run", action="store_true", help="print the plan and its time only")
    words.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="default: results"
    )
    return words


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 130 when stopped by Ctrl-C (143 by SIGTERM)."""
    given = parser().parse_args(argv)
    trials = [] if given.trials is None else [f"search.trials={given.trials}"]
    space = load_space(given.space, [*given.set, *trials])
    task = find_task(space.task, space.source.parent)
    folder, console = given.results / space.name, Console()

    from search.tuner import Stopped, run_search, training_of  # Ray: 2 s that a typo need not wait

    if given.dry_run:
        console.print(*make_plan(space, task, training_of(space, task)).lines(), sep="\n")
        return 0
    if given.fresh and (aside := set_aside(folder)):
        console.print(f"earlier results are now in {aside}", highlight=False)
    with claimed(folder):
        study = open_study(folder, space, task.maximize)
        try:
            with session(folder, space, task, study.name):
                why = run_search(
                    study, task, lambda goal: display(console, goal), gate_before_training
                )
            console.print(f"{space.name}: {why}", highlight=False)
        except KeyboardInterrupt as stop:
            done = len(study.trials)
            again = " ".join(["python -m search.run", *map(str, argv or sys.argv[1:])])
            console.print(f"stopped; {done} …; go on with: {again}", highlight=False)
            return stop.code if isinstance(stop, Stopped) else 130
        finally:
            study.close()
        records, settings = read_trials(folder), settings_from_folder(folder)
        print_summary(console, records, settings, write_report(folder, records, settings))
    return 0


if __name__ == "__main__":
    run_cli(main)
