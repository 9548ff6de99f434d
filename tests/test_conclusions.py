"""What is said about a comparison, the numbers behind its two figures, and that they are drawn."""

from __future__ import annotations

import io
import math
import random

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread

from search.figures import style
from search.figures.conclusions import conclusions, placebo_text, shrinkage_text
from search.figures.critical_difference import critical_difference_info, draw_critical_difference
from search.figures.effects import draw_effects, effects_info
from search.figures.notation import Scale
from search.statistics.calibration import placebo_share, shrinkage
from search.statistics.comparison import Comparison, Outcomes, compare
from search.statistics.ranks import RankComparison, compare_ranks
from tests.records_cases import settings

SEEDS = range(10)
BASE = {seed: 0.97 + 0.002 * math.sin(seed) for seed in SEEDS}
PERCENT = Scale(percent=True)


def shifted(gain: float, spread: float, lost: tuple[int, ...] = ()) -> dict[int, float | None]:
    """The baseline's scores plus a gain and noise; None on the seeds that diverged."""
    draw = random.Random(f"{gain} {spread}")
    gains = {seed: draw.gauss(gain, spread) for seed in SEEDS}
    return {s: None if s in lost else BASE[s] + gains[s] for s in SEEDS}


def against(candidates: dict[str, Outcomes], **options) -> Comparison:
    return compare(candidates, BASE, "GELU", **options)


def said(own: Outcomes, scale: Scale = PERCENT, cost: float | None = None, **options) -> str:
    costs = {} if cost is None else {"#12": cost}
    (found,) = conclusions(against({"#12": own}, **options), scale, costs)
    return " ".join((found.text, *found.notes))


EVERY: dict[str, Outcomes] = {
    "#12": shifted(0.004, 0.001),
    "#40": shifted(-0.006, 0.001),
    "#31": shifted(0.0, 0.003),
    "#43": dict(BASE),
    "#42": dict.fromkeys(SEEDS),
    "#44": {seed: BASE[seed] + 0.001 * seed for seed in range(4)},
}


# --- sentences -----------------------------------------------------------------------------------


def test_a_gain_is_said_with_its_error_its_p_and_its_cost():
    exact = {seed: BASE[seed] + 0.004 + 0.001 * (-1) ** seed for seed in SEEDS}
    text = "#12 is better than GELU by 0.40 ± 0.03 points on 10 seeds, p = 0.002"
    assert said(exact, cost=1.02) == f"{text}; 1.02× its cost."
    assert said(exact, maximize=False) == f"{text.replace('better', 'worse')}."
    assert "by 0.00400 ± 0.00033 on" in said(exact, Scale(percent=False))


def test_holm_is_mentioned_with_the_size_of_its_family():
    texts = [found.text for found in conclusions(against(EVERY), PERCENT)]
    assert "points on 10 seeds, p = 0.012 after Holm over 6." in texts[0]
    assert texts[1].startswith("#40 is worse than GELU by 0.6")


def test_no_difference_is_said_with_the_seeds_that_it_would_take():
    text = said(shifted(0.0, 0.003))
    assert text.startswith("#12 is not distinguishable from GELU with 10 seeds (")
    assert text.endswith("; 34 would be needed for an effect of 0.5 sd.")
    small = said(shifted(0.0, 0.003), smallest_gain=1e-6)
    assert "no feasible number of seeds would find a gain of 0.00 points" in small
    assert "6 seeds find a gain of 3.00 points" in said(shifted(0.0, 0.003), smallest_gain=0.03)


def test_a_gain_that_does_not_matter_is_said_to_be_so():
    own = shifted(0.004, 0.001)
    assert "which is less than the 1.00 points that matter" in said(own, smallest_gain=0.01)
    assert "that matter" not in said(own, smallest_gain=0.001)


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({0: 0.99}, "with 1 seed (+2.00 points): one seed shows nothing; 34 would be needed"),
        (EVERY["#44"], "the least p that 4 seeds, 1 of them tied, can give is 0.25"),
        (EVERY["#43"], "(+0.00 ± 0.00 points): the scores are equal on all 10 seeds"),
        (EVERY["#42"], "#12 cannot be compared with GELU: #12 diverged on 10 seeds."),
        ({11: 0.5}, "no seed was trained with both"),
        (shifted(0.004, 0.001, (3,)), "but diverged on 1 seed. #12 diverged on seed 3."),
    ],
)
def test_what_cannot_be_known_says_why(own: Outcomes, words: str):
    text = said(own)
    assert words in text
    assert "better" not in text and "nan" not in text.lower()


def test_seeds_left_out_are_named():
    (found,) = conclusions(against({"#12": {**shifted(0.0, 0.01, (1, 2)), 20: 0.9}}), PERCENT)
    assert found.notes == (
        "#12 diverged on seeds 1, 2.",
        "only one of #12 and GELU was trained with seed 20.",
    )


def test_shrinkage_in_words():
    found = shrinkage({"#1": (0.98, 0.95), "#2": (0.97, 0.96)}, {"GELU": (0.95, 0.94)})
    assert shrinkage_text(found, PERCENT) == (
        "Shrinkage: 2 finalists lost 2.00 points on fresh seeds, 1 baseline lost 1.00 points: "
        "1.00 points were the luck of being selected."
    )
    alone = shrinkage({"#1": (0.5, 0.4)}, {})
    assert shrinkage_text(alone, Scale(percent=False)) == (
        "Shrinkage: 1 finalist lost 0.1 on fresh seeds."
    )
    assert shrinkage_text(shrinkage({}, {}), PERCENT).startswith("No finalist has both")


def test_placebos_in_words():
    assert placebo_text(placebo_share([False] * 5)) == (
        "0 of 5 placebos declared better than ReLU (0%; 95 % interval 0% to 52%), "
        "as a level of 5% allows."
    )
    assert "more than the 1 that" in placebo_text(placebo_share([True] * 2 + [False] * 3))
    assert placebo_text(placebo_share([])).startswith("No placebo was entered")


# --- figures -------------------------------------------------------------------------------------


def drawn_share(figure: Figure) -> float:
    pixels = imread(io.BytesIO(style.png_bytes(figure)))[..., :3]
    return float((pixels.min(axis=-1) < 0.98).mean())


def test_effects_are_ordered_and_hold_what_is_known():
    info = effects_info(against(EVERY), settings())
    assert info is not None
    assert [row.label for row in info.rows] == ["#12", "#44", "#43", "#31", "#40", "#42"]
    assert {row.label: row.claim for row in info.rows}["#40"] == "worse"
    first, last = info.rows[0], info.rows[-1]
    assert first.low is not None and first.mean is not None and first.high is not None
    assert 0 < first.low < first.mean < first.high
    assert (last.mean, last.low, last.text) == (None, None, "#42 diverged on 10 seeds")
    assert effects_info(against({}), settings()) is None
    few = effects_info(against(EVERY), settings(), top=2)
    assert few is not None and (len(few.rows), few.hidden, few.family) == (2, 4, 6)


def test_effects_are_drawn_filled_where_they_are_claimed():
    info = effects_info(against(EVERY), settings())
    assert info is not None
    figure = draw_effects(info)
    assert 0.01 < drawn_share(figure) < 0.9
    points = [
        line for line in figure.axes[0].lines if line.get_marker() == "o" and line.get_zorder() == 3
    ]
    faces = [to_hex(point.get_markerfacecolor()) for point in points]  # type: ignore[arg-type]
    assert faces == [style.BEST, style.PAPER, style.PAPER, style.PAPER, style.BAD]
    assert points[0].get_xdata()[0] == pytest.approx(100 * (info.rows[0].mean or 0))  # type: ignore[index]


def test_effects_of_a_loss_and_without_any_mean_are_drawn():
    loss = settings(metric="loss$", percent=False, maximize=False)
    for candidates in (EVERY, {"a$b": EVERY["#42"]}):
        info = effects_info(against(candidates, maximize=False), loss)
        assert info is not None
        assert drawn_share(draw_effects(info)) > 0.01


def ranked(tasks: int, methods: int, step: float = 0.5) -> RankComparison:
    draw = np.random.default_rng(1)
    scores = step * np.arange(methods) + draw.normal(size=(tasks, methods))
    names = [f"${k} method" for k in range(methods)]
    columns = zip(names, scores.T, strict=True)
    return compare_ranks({name: {str(t): float(v) for t, v in enumerate(c)} for name, c in columns})


def test_a_diagram_is_drawn_only_when_it_is_earned():
    assert critical_difference_info(ranked(7, 3)) is None
    info = critical_difference_info(ranked(14, 6))
    assert info is not None
    assert (info.tasks, len(info.ranks)) == (14, 6)
    assert "14 tasks, Wilcoxon tests with Holm over 15 pairs" in info.text
    figure = draw_critical_difference(info)
    assert 0.01 < drawn_share(figure) < 0.9
    names = [text.get_text() for text in figure.axes[0].texts]
    assert len(names) == 6 and all("method" in name for name in names)


def test_every_clique_has_a_bar_with_a_dot_a_member():
    for found in (ranked(14, 6), ranked(20, 2, 5.0), ranked(9, 3, 0.0)):
        info = critical_difference_info(found)
        assert info is not None
        lines = draw_critical_difference(info).axes[0].lines
        dots = [len(line.get_xdata()) for line in lines if line.get_marker() == "o"]  # type: ignore[arg-type]
        assert dots == [len(clique) for clique in info.cliques]
