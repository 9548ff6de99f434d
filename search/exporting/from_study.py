"""What is to be exported of a study: a place on its leaderboard, with what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from search.database.reading import read_trials
from search.errors import StudyError
from search.exporting.source import Source
from search.figures.leaderboard import LeaderboardInfo, Row, leaderboard_info
from search.figures.notation import count_text, rate_text
from search.figures.settings import ReportSettings, settings_from_folder
from search.figures.verdict import verdict
from search.language.parser import parse
from search.statistics import rate_key


def read_ranked(folder: Path, rank: int) -> Source:
    """The activation at a place of a study's leaderboard, from 1, and what the study says of it.

    Raises:
        StudyError: no study in the folder, or no such rank in it.
    """
    settings = settings_from_folder(folder)
    board = leaderboard_info(read_trials(folder), settings)
    ranked = board.ranked
    if not 1 <= rank <= len(ranked):
        raise StudyError(
            f"{folder}: no rank {rank}; expected 1 to {len(ranked)}"
            if ranked
            else f"{folder}: no rank {rank}; no trial of this study has a score yet"
        )
    row = ranked[rank - 1]
    expression = parse(row.trial.expression, str(folder))
    origin = f"{row.label}, rank {rank} of {len(ranked)} in the study {settings.name}"
    return Source(expression, origin, tuple(_facts(row, board, settings)), row.trial.cost)


def _facts(row: Row, board: LeaderboardInfo, settings: ReportSettings) -> list[tuple[str, str]]:
    environment = settings.environment
    versions = environment.get("versions") or {}
    kind = "baseline" if row.trial.origin == "baseline" else "candidate of the search"
    rows = [
        ("study", f"{settings.name}, {environment.get('study', '')}".rstrip(", ")),
        ("task", ": ".join(filter(None, (settings.task, str(environment.get("title", "")))))),
        ("rank", f"{row.rank} of {len(board.ranked)} ({row.label}, a {kind})"),
        ("score", _score(row, settings)),
        ("seeds", ", ".join(map(str, _seeds(row)))),
        ("rate", _rate(row, settings)),
        ("difference", _difference(row, board, settings)),
        ("fresh score", _fresh(row, settings)),
        ("verdict", verdict(board, settings).headline),
        ("trained on", ", ".join(filter(None, (environment.get("gpu"), environment.get("cpu"))))),
        ("trained with", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("trained by", f"commit {environment['commit']}" if environment.get("commit") else ""),
        ("trained until", str(environment.get("ended", ""))),
    ]
    return [(label, text) for label, text in rows if text]


def _score(row: Row, settings: ReportSettings) -> str:
    scale = settings.scale.fitted([row.score])
    error = "" if row.standard_error is not None else ", no standard error"
    better = "higher is better" if settings.maximize else "lower is better"
    return (
        f"{scale.pair(row.score, row.standard_error)}{scale.unit} {settings.metric} on the"
        f" validation split, mean ± s.e. over {count_text(row.n, 'seed')}{error}; {better}"
    )


def _fresh(row: Row, settings: ReportSettings) -> str:
    """Of a finalist; with its claim against the best baseline the verdict follows."""
    final = row.final
    if final is None or final.score is None:
        return ""
    scale = settings.scale.fitted([final.score])
    length = "" if final.budget == 1 else f", trained {final.budget:g} times as long"
    return (
        f"{scale.pair(final.score, final.standard_error)}{scale.unit} {settings.metric} on the test"
        f" split, mean ± s.e. over {count_text(final.n, 'seed')} that the search never used"
        f"{length}; shrinkage {scale.text(row.shrinkage, sign=True)}"
    )


def _seeds(row: Row) -> Sequence[int]:
    """The seeds behind the score."""
    rate = row.trial.best_rate
    runs = (run for run in row.trial.runs if run.state == "complete")
    if rate is None:
        return ()
    return sorted({run.seed for run in runs if rate_key(run.learning_rate) == rate_key(rate)})


def _rate(row: Row, settings: ReportSettings) -> str:
    tried = ", ".join(rate_text(summary.learning_rate) for summary in row.summaries)
    edge = f", at the {row.edge} tried: the optimum may lie beyond" if row.edge else ""
    return f"{rate_text(row.trial.best_rate)}, the best of {tried}{edge}"


def _difference(row: Row, board: LeaderboardInfo, settings: ReportSettings) -> str:
    found, baseline = row.difference, board.best_baseline
    if baseline is None:
        return "the study has no baseline with a score"
    if found is None or found.mean is None:
        return "none: this is the best baseline" if baseline is row else ""
    scale = settings.scale.fitted([row.score])
    points = " points" if scale.percent else ""
    paired = f"paired over {count_text(found.n, 'seed')}" if found.n else "seeds not paired"
    text = scale.pair(found.mean, found.standard_error, sign=True)
    return f"{text}{points} to the best baseline, {baseline.label}, {paired}"
