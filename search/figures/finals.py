"""The finalists' results in numbers and words: fresh seeds, the test split, what may be claimed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search.figures.conclusions import Conclusion, conclusions, placebo_text, shrinkage_text
from search.figures.critical_difference import CriticalDifferenceInfo
from search.figures.effects import EffectsInfo, effects_info
from search.figures.further_tasks import TasksInfo, ranks_info, task_statements, tasks_info
from search.figures.leaderboard import LeaderboardInfo, Row, leaderboard_info
from search.figures.notation import count_text
from search.figures.settings import ReportSettings
from search.records import Trial
from search.statistics.calibration import PlaceboShare, ShrinkageSummary, placebo_share, shrinkage
from search.statistics.comparison import Comparison, Effect, compare

Pairs = dict[str, tuple[float | None, float | None]]
"""Search score and fresh score by label."""


@dataclass(frozen=True, slots=True)
class FinalsInfo:
    """What the finalists show."""

    reference: Row | None
    """The baseline that was best in the search, of those with a fresh score."""
    comparison: Comparison | None
    """The candidates against it (of an ablation the other baselines); None without a reference."""
    conclusions: tuple[Conclusion, ...]
    """The largest gain first."""
    shrinkage: ShrinkageSummary
    placebos: PlaceboShare | None
    """None where none was entered."""
    seeds: int
    """Most fresh seeds behind a score."""
    budget: float
    notes: tuple[str, ...]
    """What must be said beside it."""
    tasks: TasksInfo | None = None
    """None where nothing was trained on another task."""

    def effect(self, row: Row) -> Effect | None:
        """Of one activation against the reference."""
        found = self.comparison.effects if self.comparison else ()
        return next((effect for effect in found if effect.label == row.label), None)


def finals_info(board: LeaderboardInfo, settings: ReportSettings) -> FinalsInfo | None:
    """None where nothing was trained again."""
    if not board.retested:
        return None
    ordered = [*board.by_search(), *board.unranked]
    rows = [row for row in ordered if row.final is not None]
    baselines = [row for row in rows if row.trial.origin == "baseline"]
    reference = next((row for row in baselines if row.final and row.final.n), None)
    found = None if reference is None else _compared(rows, reference, board.maximize, settings)
    lost = shrinkage(_pairs(rows, "search"), _pairs(rows, "baseline"), board.maximize)
    placebos = _placebos(rows, board.maximize)
    budget = next(row.final.budget for row in rows if row.final)
    notes = _notes(ordered, rows, reference, settings)
    return FinalsInfo(
        reference=reference,
        comparison=found,
        conclusions=_concluded(found, rows, reference, settings),
        shrinkage=lost,
        placebos=None if placebos is None else _share(placebos),
        seeds=max((row.final.n for row in rows if row.final), default=0),
        budget=budget,
        notes=tuple(filter(None, [_placebo_note(placebos), *notes])),
        tasks=tasks_info(rows, found, budget, settings) if found else None,
    )


def _compared(
    rows: Sequence[Row], reference: Row, maximize: bool, settings: ReportSettings
) -> Comparison:
    candidates = [row for row in rows if row.trial.origin == "search"]
    others = [row for row in rows if row.trial.origin == "baseline" and row is not reference]
    return compare(
        _outcomes(candidates or others), _outcomes([reference])[reference.label], reference.label,
        maximize=maximize, smallest_gain=settings.smallest_gain,
    )  # fmt: skip


def _outcomes(rows: Sequence[Row]) -> dict[str, Mapping[int, float | None]]:
    return {row.label: row.final.outcomes for row in rows if row.final and row.final.outcomes}


def _concluded(
    found: Comparison | None, rows: Sequence[Row], reference: Row | None, settings: ReportSettings
) -> tuple[Conclusion, ...]:
    if found is None or reference is None:
        return ()
    base = reference.trial.cost
    costs = {r.label: r.trial.cost / base for r in rows if base and r.trial.cost is not None}
    said = {each.label: each for each in conclusions(found, settings.scale, costs)}
    ordered = sorted(found.effects, key=lambda e: (e.mean is None, -(e.mean or 0.0)))
    return tuple(said[effect.label] for effect in ordered)


def _pairs(rows: Sequence[Row], origin: str) -> Pairs:
    return {row.label: (row.score, row.fresh) for row in rows if row.trial.origin == origin}


def _placebos(rows: Sequence[Row], maximize: bool) -> Comparison | None:
    """They are compared with ReLU as candidates are with the best baseline."""
    entered = [row for row in rows if row.trial.origin == "placebo"]
    relu = next((row for row in rows if row.trial.name == "relu"), None)
    if not entered or relu is None or relu.final is None:
        return None
    return compare(_outcomes(entered), relu.final.outcomes, "ReLU", maximize=maximize)


def _share(found: Comparison) -> PlaceboShare:
    return placebo_share(effect.claim == "better" for effect in found.effects)


def _placebo_note(found: Comparison | None) -> str:
    """Where no placebo could have been declared, none that was shows nothing."""
    if found is None or not found.effects:
        return ""
    least = min(effect.least_p for effect in found.effects)
    if found.family * least <= found.level:
        return ""
    seeds = count_text(max(effect.n for effect in found.effects), "seed")
    count = count_text(found.family, "placebo")
    return f"With {seeds} and {count} no placebo could have been declared better."


def _notes(
    ordered: Sequence[Row], rows: Sequence[Row], reference: Row | None, settings: ReportSettings
) -> list[str]:
    notes = [
        _reference_note(ordered, rows, reference),
        _places_note(ordered, settings),
        _cut_note(ordered, settings.places),
        _budget_note(rows),
    ]
    for row in ordered:
        if row.trial.origin == "baseline" and row.trial.state == "diverged":
            notes.append(f"{row.label} was not trained again: {row.trial.reason}.")
        if row.final and row.final.failure:
            notes.append(f"{row.label} failed when it was trained again: {row.final.failure}.")
    running = [row.label for row in rows if row.final and row.final.running]
    if running:
        notes.append(f"{count_text(len(running), 'finalist')} not yet done: {_listed(running)}.")
    return notes


def _reference_note(ordered: Sequence[Row], rows: Sequence[Row], reference: Row | None) -> str:
    baselines = [row for row in ordered if row.trial.origin == "baseline"]
    if reference is None:
        why = "no baseline has a fresh score" if baselines else "there is no baseline"
        return f"Nothing can be claimed of the finalists: {why}."
    passed = [row.label for row in rows if row.trial.origin == "baseline"]
    passed = passed[: passed.index(reference.label)]
    if not passed:
        tied = [row.label for row in baselines if row.score == reference.score]
        shared = f"{_listed(tied)} share the best baseline's search score"
        return f"{shared}; {reference.label} is the first by number." if len(tied) > 1 else ""
    why = "but trained to the end with no fresh seed"
    return f"{_listed(passed)} scored better in the search than {reference.label}, {why}."


def _places_note(ordered: Sequence[Row], settings: ReportSettings) -> str:
    places = settings.places
    there = sum(row.trial.origin == "search" and row.score is not None for row in ordered)
    if places is None or there >= places or not settings.sampler:
        return ""
    if not there:
        return "No candidate has a score: the baselines alone were trained again."
    verb = "has" if there == 1 else "have"
    asked = count_text(places, "finalist")
    return f"{asked} asked for, and only {count_text(there, 'candidate')} {verb} a score."


def _cut_note(ordered: Sequence[Row], places: int | None) -> str:
    """Equal scores on both sides of the cut: who was trained again, went by number."""
    found = [row for row in ordered if row.trial.origin == "search" and row.score is not None]
    if not places or len(found) <= places or found[places - 1].score != found[places].score:
        return ""
    tied = [row.label for row in found if row.score == found[places].score]
    return f"{_listed(tied)} share the last finalist's search score; the lower numbers went on."


def _budget_note(rows: Sequence[Row]) -> str:
    budget = next(row.final.budget for row in rows if row.final)
    if budget == 1:
        return ""
    return (
        f"Finalists trained {budget:g} times as long as in the search, which the shrinkage does not"
        " take apart from luck."
    )


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - 6} more" if len(labels) > 6 else ""
    return ", ".join(labels[:6]) + more


def statements(found: FinalsInfo, settings: ReportSettings) -> tuple[str, ...]:
    """Everything that the finalists show, a sentence each: claims, shrinkage, placebos."""
    said = [text for each in found.conclusions for text in (each.text, *each.notes)]
    said += task_statements(found.tasks) if found.tasks else ()
    said.append(shrinkage_text(found.shrinkage, settings.scale))
    if found.placebos is not None:
        said.append(placebo_text(found.placebos))
    return (*said, *found.notes)


def final_effects_info(trials: Sequence[Trial], settings: ReportSettings) -> EffectsInfo | None:
    """The candidates against the best baseline; None where nothing was trained again."""
    found = finals_info(leaderboard_info(trials, settings), settings)
    return effects_info(found.comparison, settings) if found and found.comparison else None


def final_ranks_info(
    trials: Sequence[Trial], settings: ReportSettings
) -> CriticalDifferenceInfo | None:
    """The finalists' ranks over tasks; None where the tasks are too few for a test."""
    found = finals_info(leaderboard_info(trials, settings), settings)
    return ranks_info(found.tasks) if found else None
