"""`python -m search.status results/gated`: where a search stands, from any shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from search.errors import run_cli

SECONDS = 2.0
"""Between two looks."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print where the study in a folder stands; with `--watch` until its driver ends."""
    parser = argparse.ArgumentParser(prog="python -m search.status", description=__doc__)
    parser.add_argument("folder", type=Path, help="a study's results, such as results/gated")
    parser.add_argument(
        "--watch", action="store_true", help="look again every two seconds, until the search ends"
    )
    given = parser.parse_args(argv)

    from search.watching import watched

    shown = 0
    try:
        for lines in watched(given.folder, SECONDS):
            if shown and sys.stdout.isatty():
                print(f"\x1b[{shown}A\x1b[J", end="")  # up, and clear what stood there
            print(*lines, sep="\n", flush=True)
            shown = len(lines)
            if not given.watch:
                break
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    run_cli(main)
