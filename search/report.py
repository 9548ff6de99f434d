"""`python -m search.report results/gated`: rebuild a study's report from its records."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from search.errors import run_cli


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m search.report", description=__doc__)
    parser.add_argument("folder", type=Path, help="a study's results, such as results/gated")
    parser.add_argument(
        "--tensorboard",
        type=Path,
        nargs="?",
        const=Path("tensorboard"),
        metavar="DIR",
        help="write event files for TensorBoard instead (default: tensorboard in the folder)",
    )
    parser.add_argument(
        "--mlflow", metavar="URI", help="write runs to MLflow instead, such as sqlite:///mlflow.db"
    )
    given = parser.parse_args(argv)
    folder = given.folder
    if given.tensorboard or given.mlflow:
        from search.tracking.targets import track

        for line in track(folder, given.tensorboard, given.mlflow):
            print(line)
    else:
        rebuild(folder)
    return 0


def rebuild(folder: Path) -> None:
    """Read the study in a folder and write its leaderboard, figures and page."""
    from search.figures.leaderboard import leaderboard_info
    from search.figures.report import write_report
    from search.figures.settings import settings_from_folder
    from search.figures.verdict import verdict
    from search.integrity.audit import altered_line
    from search.study import read_trials

    settings = settings_from_folder(folder)
    if line := altered_line(folder):
        print(line)
    trials = read_trials(folder)
    page = write_report(folder, trials, settings)
    found = verdict(leaderboard_info(trials, settings), settings)
    for line in (found.headline, *found.statements):
        print(line)
    print(f"report       {page}")
    print(f"leaderboard  {folder / 'leaderboard.md'}")
    print(f"heatmap      {folder / 'lr_heatmap.png'}")


if __name__ == "__main__":
    run_cli(main)
