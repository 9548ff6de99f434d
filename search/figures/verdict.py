"""What a study shows, in plain language, and how far to believe it."""

from __future__ import annotations

from dataclasses import dataclass

from search.errors import ExpressionError
from search.figures.finals import FinalsInfo, finals_info, statements
from search.figures.leaderboard import LeaderboardInfo, Row
from search.figures.notation import Scale, count_text, rate_text
from search.figures.settings import ReportSettings
from search.language.catalog import CATALOG, equals
from search.language.parser import parse
from search.statistics import expected_maximum, pooled_error


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence, its numbers, and what must be said beside them."""

    headline: str
    detail: str
    notes: tuple[str, ...]
    statements: tuple[str, ...] = ()
    """What the finalists show, a sentence each."""


@dataclass(frozen=True, slots=True)
class Luck:
    """How far the best of `candidates` equal candidates would stand out by chance."""

    candidates: int
    errors: float
    """In standard errors of a score."""
    score: float | None
    """In the units of the score; None without a standard error."""


def luck_info(board: LeaderboardInfo) -> Luck:
    """Expected luck of the best candidate: the winner's curse, PROTOCOL 1.5."""
    candidates = len(board.candidates())
    error = pooled_error(row.best for row in board.ranked if row.best is not None)
    errors = expected_maximum(candidates)
    return Luck(candidates, errors, None if error is None else errors * error)


def verdict(board: LeaderboardInfo, settings: ReportSettings) -> Verdict:
    """The headline and the notes of a report; it claims no more than the seeds can show."""
    scale = settings.scale.fitted(row.score for row in board.ranked)
    finals = finals_info(board, settings)
    notes = [
        _luck_note(board, scale) if finals is None else _order_note(board),
        _tie_note(board),
        _equals_note(board),
        _default_note(board, settings, scale),
        _edge_note(board),
        _diverged_note(board),
        _unfinished_note(board, settings),
    ]
    kept = tuple(note for note in notes if note)
    if finals is None:
        return Verdict(*_headline(board, settings, scale), kept)
    headline, detail = _finals_headline(finals), _finals_detail(board, finals, scale)
    return Verdict(headline, detail, kept, statements(finals, settings))


def _finals_headline(finals: FinalsInfo) -> str:
    """The claim of the one finalist that has one, or how many have."""
    if finals.reference is None:
        return "The finalists have no baseline with a fresh score to be compared with."
    better = [each for each in finals.conclusions if each.claim == "better"]
    where = f"{finals.reference.label} on {count_text(finals.seeds, 'fresh seed')}"
    if len(better) == 1:
        return better[0].text
    if better:
        count = f"{len(better)} of {count_text(len(finals.conclusions), 'finalist')}"
        return f"{count} are better than {where} and the test split."
    if not finals.conclusions:
        return f"No finalist was trained again to be compared with {where}."
    return f"No finalist is shown to be better than {where} and the test split."


def _finals_detail(board: LeaderboardInfo, finals: FinalsInfo, scale: Scale) -> str:
    rows = [board.ranked[0]] if board.ranked and board.ranked[0].fresh is not None else []
    if finals.reference is not None and finals.reference not in rows:
        rows.append(finals.reference)
    told = "; ".join(_finally(row, scale) for row in rows)
    return f"On fresh seeds and the test split: {told}." if told else ""


def _finally(row: Row, scale: Scale) -> str:
    final = row.final
    if final is None or final.score is None:
        lost = "no score" if final is None or not final.diverged else f"{final.diverged} diverged"
        return f"{row.label}: {lost}"
    seeds = count_text(final.n, "seed")
    score = f"{scale.pair(final.score, final.standard_error)}{scale.unit}"
    return f"{row.label} {score} ({seeds}; in the search {scale.text(row.score)}{scale.unit})"


def _order_note(board: LeaderboardInfo) -> str:
    seeds = max((row.n for row in board.ranked), default=0)
    return (
        "Fresh scores come first: the mean over seeds that the search never used, on the test "
        "split, at the rate frozen from the search. They speak of other seeds, not of other data. "
        f"The rest follow by search score: the mean over {count_text(seeds, 'seed')} on the "
        "validation split at each activation's own best rate."
    )


def _headline(board: LeaderboardInfo, settings: ReportSettings, scale: Scale) -> tuple[str, str]:
    candidate, baseline = board.best_candidate, board.best_baseline
    if not board.ranked:
        states = ", ".join(f"{count} {state}" for state, count in board.states().most_common())
        return "No trial has a score yet: nothing to compare.", f"So far: {states or 'no trial'}."
    if candidate is None:
        return _ablation_headline(board, settings, scale)
    found = f"Best candidate: {_described(candidate, scale)}."
    if baseline is None:
        count = count_text(len(board.candidates()), "candidate")
        return f"{count} so far, and no baseline to compare them with.", found
    reference = f"Best baseline: {_described(baseline, scale)}."
    return (
        _comparison(board, candidate),
        f"{found} {reference} {_difference_text(candidate, scale)}",
    )


def _ablation_headline(
    board: LeaderboardInfo, settings: ReportSettings, scale: Scale
) -> tuple[str, str]:
    first, *others = board.ranked
    count = count_text(len(board.ranked), "published activation")
    task = f" on {settings.task}" if settings.task else ""
    headline = f"{first.label} scored best of {count}{task}"
    if not others:
        return f"{first.label} is the only activation with a score{task}.", _described(first, scale)
    found = others[0].difference
    if found is None or found.mean is None or found.standard_error is None:
        headline += ", on a single seed"
    elif abs(found.mean) <= 2 * found.standard_error:
        headline += f", not clearly ahead of {others[0].label}"
    detail = f"{_described(first, scale)}; next {_described(others[0], scale)}."
    return f"{headline}.", f"{detail} {_difference_text(others[0], scale)}"


def _difference_text(row: Row, scale: Scale) -> str:
    found = row.difference
    if found is None or found.mean is None:
        return ""
    points = " points" if scale.percent else ""
    paired = f", paired over {count_text(found.n, 'seed')}" if found.n else ", seeds not paired"
    return f"Difference: {scale.pair(found.mean, found.standard_error, sign=True)}{points}{paired}."


def _described(row: Row, scale: Scale) -> str:
    seeds = count_text(row.n, "seed")
    score = f"{scale.pair(row.score, row.standard_error)}{scale.unit}"
    return f"{row.label} with {score} at rate {rate_text(row.trial.best_rate)} ({seeds})"


def gain(board: LeaderboardInfo) -> float | None:
    """How much better the best candidate scored than the best baseline; negative if worse."""
    row = board.best_candidate
    if row is None or row.difference is None or row.difference.mean is None:
        return None
    return row.difference.mean if board.maximize else -row.difference.mean


def _comparison(board: LeaderboardInfo, candidate: Row) -> str:
    lead, luck = gain(board), luck_info(board)
    if lead is None or lead <= 0:
        return "No candidate scored above the best baseline."
    if candidate.standard_error is None or luck.score is None:
        return "A candidate is ahead of every baseline on a single seed, which shows nothing yet."
    if lead <= luck.score:
        return (
            "A candidate is ahead of every baseline, but by no more than luck gives the best of "
            f"{luck.candidates}."
        )
    return (
        f"A candidate is ahead of every baseline, by more than luck gives the best of "
        f"{luck.candidates} on average. Fresh seeds must confirm it."
    )


def _luck_note(board: LeaderboardInfo, scale: Scale) -> str:
    if not board.ranked:
        return ""
    seeds = max(row.n for row in board.ranked)
    note = (
        f"These are search scores: the mean over {count_text(seeds, 'seed')} on the validation "
        "split at each activation's own best rate, not re-tested on fresh seeds."
    )
    if seeds < 2:
        note += " With one seed there is no standard error, and small differences are noise."
    luck = luck_info(board)
    if luck.candidates > 1:
        shift = ""
        if luck.score is not None:
            points = " points" if scale.percent else ""
            shift = f", here about {scale.text(luck.score)}{points}"
        note += (
            f" Expect the winner to shrink (winner's curse): the best of {luck.candidates} equal "
            f"candidates stands out by {luck.errors:.1f} standard errors by luck alone{shift}."
        )
    return note


def _equals_note(board: LeaderboardInfo) -> str:
    """A search may find what is published under another name."""
    row = board.best_candidate
    if row is None:
        return ""
    try:
        names = equals(parse(row.trial.expression))
    except ExpressionError:
        return ""
    titles = ", ".join(CATALOG[name].title for name in names)
    return f"{row.label} equals a published activation: {titles}." if titles else ""


def _tie_note(board: LeaderboardInfo) -> str:
    """Small validation splits give equal scores: the first of them is first by its number only."""
    first = board.ranked[0] if board.ranked else None
    if first is None:
        return ""
    if first.fresh is not None:
        tied = [row.label for row in board.ranked if row.fresh == first.fresh]
    else:
        tied = [row.label for row in board.ranked if row.score == first.score]
    if len(tied) < 2:
        return ""
    more = f" and {len(tied) - 6} more" if len(tied) > 6 else ""
    return f"{len(tied)} share the best score: {', '.join(tied[:6])}{more}."


def _default_note(board: LeaderboardInfo, settings: ReportSettings, scale: Scale) -> str:
    winner = board.best_at_default
    if winner is None or winner.at_default is None or settings.default_rate is None:
        return ""
    score = scale.pair(winner.at_default.mean, winner.at_default.standard_error)
    where = f"At the default rate {rate_text(settings.default_rate)} the best is {winner.label}"
    if winner.trial.number == board.by_search()[0].trial.number:
        return f"{where} too, with {score}{scale.unit}."
    return f"{where} with {score}{scale.unit}: tuning the rate for each changes the winner."


def _edge_note(board: LeaderboardInfo) -> str:
    rows = [row for row in board.ranked if row.edge]
    if not rows:
        return ""
    named = ", ".join(f"{row.label} ({row.edge})" for row in rows[:6])
    more = f" and {len(rows) - 6} more" if len(rows) > 6 else ""
    verb = "has its" if len(rows) == 1 else "have their"
    return (
        f"{len(rows)} of {len(board.ranked)} {verb} best rate at the edge of the rates tried, so "
        f"the optimum may lie beyond: {named}{more}."
    )


def _diverged_note(board: LeaderboardInfo) -> str:
    rows = (*board.ranked, *board.unranked)
    runs, diverged = sum(row.runs for row in rows), sum(row.diverged for row in rows)
    return f"{diverged:,} of {count_text(runs, 'run')} diverged." if diverged else ""


TRAINED = ("complete", "pruned", "diverged", "failed")
"""States that count against a study's budget of trials."""


def _unfinished_note(board: LeaderboardInfo, settings: ReportSettings) -> str:
    rows = [row for row in (*board.ranked, *board.unranked) if row.trial.origin == "search"]
    done = sum(row.trial.state in TRAINED for row in rows)
    running = board.states()["running"]
    parts = []
    if running:
        verb = "is" if running == 1 else "are"
        parts.append(f"{count_text(running, 'trial')} {verb} running or {verb} to be continued.")
    if settings.budget is not None and done < settings.budget:
        parts.append(f"{done} of the {settings.budget} trials asked for have been trained.")
    return " ".join(parts)
