"""What a comparison on fresh seeds shows, one sentence a candidate."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search.figures.notation import Scale, count_text, p_text
from search.statistics.calibration import PlaceboShare, ShrinkageSummary
from search.statistics.comparison import Claim, Comparison, Effect


@dataclass(frozen=True, slots=True)
class Conclusion:
    """One candidate against one baseline."""

    label: str
    claim: Claim
    text: str
    """`#12 is better than GELU by 0.40 ± 0.10 points on 10 seeds, p = 0.0039 after Holm over 5.`"""
    notes: tuple[str, ...]
    """Seeds that were left out, and why."""


def conclusions(
    found: Comparison, scale: Scale, costs: Mapping[str, float] | None = None
) -> tuple[Conclusion, ...]:
    """One a candidate, in the order of the comparison.

    `costs` are step times relative to the baseline's, by label; a candidate may lack one.
    """
    fitted, costs = gain_scale(found, scale), costs or {}
    return tuple(conclusion(e, found, fitted, costs.get(e.label)) for e in found.effects)


def gain_scale(found: Comparison, scale: Scale) -> Scale:
    """`scale` with decimals that give a typical standard error two digits; percent keeps two."""
    errors = [e.standard_error for e in found.effects if e.size is not None and e.standard_error]
    if scale.percent or not errors:
        return scale
    digits = 1 - math.floor(math.log10(statistics.median(errors)))
    return Scale(False, min(8, max(0, digits)))


def conclusion(
    effect: Effect, found: Comparison, scale: Scale, cost: float | None = None
) -> Conclusion:
    """The sentence and its notes. It claims no more than `search.statistics.comparison` does."""
    write = {"better": _claimed, "worse": _claimed, "undecided": _undecided, "untested": _untested}
    text = write[effect.claim](effect, found, scale)
    price = "" if cost is None else f"; {cost:.2f}× its cost"
    return Conclusion(
        effect.label, effect.claim, f"{text}{price}.", left_out(effect, found.baseline)
    )


def _claimed(effect: Effect, found: Comparison, scale: Scale) -> str:
    size = _points(abs(effect.mean or 0.0), effect, scale)
    seeds = count_text(effect.n, "seed")
    return (
        f"{effect.label} is {effect.claim} than {found.baseline} by {size} on {seeds}, "
        f"{_p(effect, found)}{_too_small(effect, found, scale)}"
    )


def _too_small(effect: Effect, found: Comparison, scale: Scale) -> str:
    least = found.smallest_gain
    if least is None or abs(effect.mean or 0.0) >= least:
        return ""
    return f", which is less than the {scale.points(least)} that matter"


def _undecided(effect: Effect, found: Comparison, scale: Scale) -> str:
    seen = _points(effect.mean or 0.0, effect, scale, sign=True)
    seeds = count_text(effect.n, "seed")
    text = f"{effect.label} is not distinguishable from {found.baseline} with {seeds} ({seen})"
    if _too_few(effect, found):
        return f"{text}: {effect.reason}; {_wanted(effect, found, scale)}"
    if (
        effect.adjusted_p is not None
        and effect.adjusted_p > found.level
        and effect.size is not None
    ):
        return f"{text}, {_p(effect, found)}; {_wanted(effect, found, scale)}"
    return f"{text}: {effect.reason}"


def _too_few(effect: Effect, found: Comparison) -> bool:
    """No outcome of these pairs would have been significant: the p value says nothing."""
    spread = effect.size is not None or effect.n == 1
    return spread and found.family * effect.least_p > found.level


def _untested(effect: Effect, found: Comparison, scale: Scale) -> str:
    return f"{effect.label} cannot be compared with {found.baseline}: {effect.reason}"


def _wanted(effect: Effect, found: Comparison, scale: Scale) -> str:
    size = f"an effect of {effect.wanted:.2g} sd"
    if found.smallest_gain is not None and effect.size is not None:
        size = f"a gain of {scale.points(found.smallest_gain)}"
    if effect.needed is None:
        return f"no feasible number of seeds would find {size}"
    if effect.n >= effect.needed:
        return f"{effect.needed} seeds find {size} four times out of five"
    return f"{effect.needed} would be needed for {size}"


def _points(value: float, effect: Effect, scale: Scale, sign: bool = False) -> str:
    return scale.pair(value, effect.standard_error, sign) + (" points" if scale.percent else "")


def _p(effect: Effect, found: Comparison) -> str:
    p = effect.p if effect.adjusted_p is None else effect.adjusted_p
    after = f" after Holm over {found.family}" if found.family > 1 else ""
    return p_text(1.0 if p is None else p) + after


def left_out(effect: Effect, baseline: str) -> tuple[str, ...]:
    """The seeds that do not count, one note a cause."""
    pairs = effect.pairs
    causes = (
        (f"{effect.label} diverged on", pairs.diverged),
        (f"{baseline} diverged on", pairs.baseline_diverged),
        (f"only one of {effect.label} and {baseline} was trained with", pairs.unmatched),
    )
    return tuple(f"{cause} {_seeds(seeds)}." for cause, seeds in causes if seeds)


def _seeds(seeds: Sequence[int]) -> str:
    shown = ", ".join(str(seed) for seed in seeds[:12]) + (", …" if len(seeds) > 12 else "")
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {shown}"


def shrinkage_text(found: ShrinkageSummary, scale: Scale) -> str:
    """What the finalists' scores lost between the search and the fresh seeds."""
    if found.candidate_loss is None:
        return "No finalist has both a search score and a fresh one."
    count = count_text(len(found.candidates), "finalist")
    text = f"Shrinkage: {count} {_moved(found.candidate_loss, scale)} on fresh seeds"
    if found.baseline_loss is None or found.curse is None:
        return f"{text}."
    known = count_text(len(found.baselines), "baseline")
    text = f"{text}, {known} {_moved(found.baseline_loss, scale)}"
    if found.curse <= 0:
        return f"{text}: no sign of the luck of being selected."
    points = " points" if scale.percent else ""
    return f"{text}: {scale.text(found.curse)}{points} were the luck of being selected."


def _moved(loss: float, scale: Scale) -> str:
    points = " points" if scale.percent else ""
    return f"{'lost' if loss >= 0 else 'gained'} {scale.text(abs(loss))}{points}"


def placebo_text(found: PlaceboShare) -> str:
    """The false-discovery share, and how little few placebos show."""
    if found.share is None:
        return "No placebo was entered: how often this study finds what is not there is unknown."
    text = (
        f"{found.declared} of {count_text(found.placebos, 'placebo')} declared better than ReLU "
        f"({found.share:.0%}; 95 % interval {found.low:.0%} to {found.high:.0%})"
    )
    if found.within:
        return f"{text}, as a level of {found.level:.0%} allows."
    return (
        f"{text}: more than the {found.allowed} that a level of {found.level:.0%} allows. "
        "Do not trust this study's claims."
    )
