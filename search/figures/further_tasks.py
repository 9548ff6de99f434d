"""The finalists on further tasks: what may be claimed on each, and over all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from search.figures.conclusions import conclusions
from search.figures.critical_difference import CriticalDifferenceInfo, critical_difference_info
from search.figures.leaderboard import Row
from search.figures.notation import Scale, count_text
from search.figures.settings import ReportSettings
from search.finalists import final_of
from search.statistics import mean
from search.statistics.aggregates import Aggregate, Scores, probability_of_improvement
from search.statistics.comparison import Comparison, Outcomes, compare
from search.statistics.ranks import RankComparison, compare_ranks


@dataclass(frozen=True, slots=True)
class TaskFinals:
    """One task's fresh scores."""

    task: str
    metric: str
    maximize: bool
    outcomes: Mapping[str, Outcomes]
    """Test score by seed, by label."""
    comparison: Comparison | None
    """The candidates with the study's best baseline; None where that was not trained here."""

    @property
    def scale(self) -> Scale:
        """How its scores are written."""
        return Scale(percent="accuracy" in self.metric)


@dataclass(frozen=True, slots=True)
class TasksInfo:
    """All tasks, the search's own first."""

    tasks: tuple[TaskFinals, ...]
    improvements: tuple[tuple[str, Aggregate], ...]
    """Of each candidate: the chance that a run of it beats one of the best baseline."""
    ranks: RankComparison


def tasks_info(
    rows: Sequence[Row], own: Comparison, budget: float, settings: ReportSettings
) -> TasksInfo | None:
    """None without a further task. `rows` have finalists, `own` compares them on the own task."""
    names = dict.fromkeys(f.task for row in rows for f in row.trial.finals if f.budget == budget)
    further = [name for name in names if name]
    if not further:
        return None
    compared = [effect.label for effect in own.effects]
    kept = [row for row in rows if row.label in (own.baseline, *compared)]
    first = TaskFinals(
        settings.task, settings.metric, settings.maximize, _outcomes(kept, budget, ""), own
    )
    tasks = (first, *(_task(name, kept, own.baseline, budget) for name in further))
    return TasksInfo(
        tasks=tasks,
        improvements=tuple(
            (label, probability_of_improvement(_scores(tasks, label), _scores(tasks, own.baseline)))
            for label in compared
        ),
        ranks=compare_ranks({row.label: _means(tasks, row.label) for row in kept}),
    )


def _task(name: str, rows: Sequence[Row], baseline: str, budget: float) -> TaskFinals:
    finals = (f for row in rows for f in row.trial.finals if f.task == name and f.environment)
    known = next((f.environment for f in finals if "metric" in f.environment), {})
    maximize, outcomes = bool(known.get("maximize", True)), _outcomes(rows, budget, name)
    others = {label: found for label, found in outcomes.items() if label != baseline}
    found = None
    if baseline in outcomes:
        found = compare(others, outcomes[baseline], baseline, maximize=maximize)
    return TaskFinals(name, str(known.get("metric", "score")), maximize, outcomes, found)


def _outcomes(rows: Sequence[Row], budget: float, task: str) -> dict[str, Outcomes]:
    found = ((row.label, final_of(row.trial, budget, task)) for row in rows)
    return {label: final.outcomes for label, final in found if final and final.outcomes}


def _scores(tasks: Sequence[TaskFinals], label: str) -> Scores:
    """By task, the better the higher."""
    return {
        each.task: [
            None if score is None else score * (1 if each.maximize else -1)
            for score in each.outcomes[label].values()
        ]
        for each in tasks
        if label in each.outcomes
    }


def _means(tasks: Sequence[TaskFinals], label: str) -> dict[str, float | None]:
    """None on a task where a seed diverged."""
    scores = _scores(tasks, label)
    known = {task: [score for score in row if score is not None] for task, row in scores.items()}
    return {task: mean(known[task]) if None not in row else None for task, row in scores.items()}


def task_statements(found: TasksInfo) -> Iterator[str]:
    """What holds on each further task, and over all."""
    for each in found.tasks[1:]:
        if each.comparison is None:
            yield f"On {each.task}: the best baseline of the search has no fresh score there."
            continue
        for conclusion in conclusions(each.comparison, each.scale):
            yield f"On {each.task} ({each.metric}): {conclusion.text}"
    many = count_text(len(found.tasks), "task")
    baseline = found.tasks[0].comparison.baseline if found.tasks[0].comparison else "the baseline"
    for label, chance in found.improvements:
        yield f"Over {many} a run of {label} {_chance(chance, baseline)}."
    ranks = ", ".join(f"{label} {rank:.2f}" for label, rank in found.ranks.ranks)
    reason = f"; {found.ranks.reason}" if found.ranks.reason else ""
    yield f"Average ranks: {ranks or 'none'}{reason}."


def _chance(found: Aggregate, baseline: str) -> str:
    if found.value is None:
        return f"is not compared with {baseline}: {found.reason}"
    low, high = found.interval.low, found.interval.high
    if low is None or high is None:
        return f"beats one of {baseline} {found.value:.0%} of the time ({found.interval.reason})"
    shares = f"{found.value:.0%} of the time (95 % interval {low:.0%} to {high:.0%})"
    return f"beats one of {baseline} {shares}"


def ranks_info(found: TasksInfo | None) -> CriticalDifferenceInfo | None:
    """The numbers of the critical-difference diagram, where the tasks earn one."""
    return critical_difference_info(found.ranks) if found else None
