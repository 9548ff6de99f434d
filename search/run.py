"""Search a space of activation functions, or go on with a search.

The same command goes on after Ctrl-C, a crash or a larger `--trials`; when all is done it writes
the report anew.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from search.errors import run_cli
from search.stopping import sigterm_raises

WIDTH = 120
"""Characters of a line where there is no terminal: formulas are long."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    words = argparse.ArgumentParser(prog="python -m search.run", description=__doc__)
    words.add_argument(
        "space", type=Path, nargs="?", help="a space file, such as spaces/gated.yaml"
    )
    words.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=C",
        help="override a key of the space file, such as search.sampler=random; may be repeated",
    )
    words.add_argument("--trials", type=int, metavar="N", help="train N candidates in all")
    words.add_argument(
        "--fresh",
        action="store_true",
        help="begin a new study; the results of the old one are renamed, never deleted",
    )
    words.add_argument(
        "--dry-run", action="store_true", help="train one run to time it, and print the plan"
    )
    words.add_argument(
        "--check",
        type=Path,
        metavar="FOLDER",
        help="verify the study in a folder, such as results/gated, and repair what can be, a copy"
        " first; with --dry-run repair nothing. Exits with 1 where a problem is left",
    )
    words.add_argument(
        "--merge",
        type=Path,
        nargs="+",
        metavar="FOLDER",
        help="join the studies in these folders, of one space, into a new one in the folder that"
        " --output names; nothing in them is changed",
    )
    words.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="of --merge")
    words.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="where studies are kept, each in a folder of its name (default: results)",
    )
    words.add_argument(
        "--address",
        metavar="ADDRESS",
        help="train on the Ray cluster at this address; auto: the one this machine is a part of",
    )
    return words


def run(given: argparse.Namespace) -> None:
    """Search, or print the plan."""
    # Here, as torch and the rest take seconds to import, and `--help` needs none of it.
    from rich.console import Console

    from search.driver import drive, print_plan
    from search.results import lasting
    from search.space.space import load_space

    trials = [] if given.trials is None else [f"search.trials={given.trials}"]
    space = load_space(given.space, [*given.set, *trials])
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    if given.dry_run:
        print_plan(space, lasting(given.results), console, given.address)
    else:
        drive(space, lasting(given.results), given.fresh, console, given.address)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 130 when stopped by Ctrl-C (143 by SIGTERM)."""
    given = parser().parse_args(argv)
    if given.check is not None:
        from search.integrity.checking import check_study

        return check_study(given.check, not given.dry_run, print)
    if given.merge is not None:
        if given.output is None:
            parser().error("--merge: expected -o FOLDER, where the merged study is to be")
        from search.merging import merge_studies

        return merge_studies(given.merge, given.output, print)
    if given.space is None:
        parser().error("the following arguments are required: space")
    try:
        with sigterm_raises():
            run(given)
    except KeyboardInterrupt as stop:
        words = [word for word in (argv or sys.argv[1:]) if word != "--fresh"]
        again = shlex.join(["python", "-m", "search.run", *words])
        print(f"stopped; what has ended is kept, go on with: {again}", file=sys.stderr)
        return getattr(stop, "code", 130)
    return 0


if __name__ == "__main__":
    run_cli(main)
