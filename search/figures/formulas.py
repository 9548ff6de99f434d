"""Formulas as LaTeX, and LaTeX as small SVG pictures that share their letters.

matplotlib's mathtext sets the formula; the outlines of its letters are written once for a whole
page (`<defs>`), each formula is then a list of `<use>`: about a kilobyte, crisp at any size, in the
colour of the text around it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from html import escape

import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path as Outline
from matplotlib.textpath import text_to_path
from numpy.typing import ArrayLike

from search.errors import ExpressionError
from search.figures.notation import short
from search.language.latex import latex
from search.language.parser import parse

FONT = "stix"
EM = 100.0
"""Units of a formula's picture per em: the size at which mathtext gives its outlines."""
WIDEST = 25.0
"""Ems; a wider formula would be shrunk until nobody can read it, and stays text."""


@lru_cache(maxsize=16384)
def latex_of(text: str) -> str | None:
    """LaTeX of a recorded formula, without $; None if this version's language cannot read it."""
    try:
        return latex(parse(text))
    except ExpressionError:
        return None


@dataclass(frozen=True, slots=True)
class FormulaSheet:
    """Pictures of formulas for one page."""

    definitions: str
    """One hidden SVG with every letter; it must stand on the page before the pictures."""
    pictures: dict[str, str]
    """SVG by formula text; formulas that mathtext cannot set are missing."""


def formula_sheet(texts: Iterable[str]) -> FormulaSheet:
    """Set every formula of `texts` that can be set."""
    letters: dict[str, str] = {}
    pictures: dict[str, str] = {}
    for text in dict.fromkeys(texts):
        source = latex_of(text)
        picture = None if source is None else _picture(source, text, letters)
        if picture is not None:
            pictures[text] = picture
    outlines = "".join(f'<path id="{name}" d="{path}"/>' for name, path in letters.items())
    return FormulaSheet(
        f'<svg width="0" height="0" aria-hidden="true" style="position:absolute"><defs>{outlines}'
        "</defs></svg>",
        pictures,
    )


def _picture(source: str, text: str, letters: dict[str, str]) -> str | None:
    """One formula as SVG; the outlines it needs are added to `letters`."""
    font = FontProperties(size=EM, math_fontfamily=FONT)
    source = source.replace("\\frac", "\\dfrac")
    try:
        # The parser that get_glyphs_mathtext asks too, which remembers: parsing is half the time.
        parsed = text_to_path.mathtext_parser.parse(f"${source}$", text_to_path.DPI, font)
        glyphs, outlines, bars = text_to_path.get_glyphs_mathtext(font, f"${source}$")
    except (ValueError, RuntimeError):
        return None
    width, height, depth = (float(size) for size in parsed[:3])
    if width > WIDEST * EM:
        return None
    for name, (vertices, codes) in outlines.items():
        letters.setdefault(_identifier(name), _outline(vertices, codes))
    uses = "".join(
        f'<use href="#{_identifier(name)}" transform="translate({x:.0f} {-y:.0f})'
        f'{"" if size == 1 else f" scale({size:.2f})"}"/>'
        for name, x, y, size in glyphs
    )
    rules = "".join(f'<path d="{_outline(vertices, codes)}"/>' for vertices, codes in bars)
    return (
        f'<svg class="formula" role="img" aria-label="{escape(text, quote=True)}" '
        f'viewBox="0 {depth - height:.0f} {width:.0f} {height:.0f}" '
        f'style="width:{width / EM:.2f}em;height:{height / EM:.2f}em;'
        f'vertical-align:{-depth / EM:.2f}em">{uses}{rules}</svg>'
    )


def _identifier(glyph: str) -> str:
    return "g-" + "".join(c if c.isalnum() else "-" for c in glyph)


def _outline(vertices: ArrayLike, codes: ArrayLike) -> str:
    """An outline as SVG path data, y downwards."""
    points_of, codes = np.asarray(vertices, dtype=float), np.asarray(codes, dtype=np.uint8)
    if not len(codes):
        return ""
    parts: list[str] = []
    for points, code in Outline(points_of, codes).iter_segments(simplify=False, curves=True):
        letter = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q"}.get(code, "C")
        if code == Outline.CLOSEPOLY:
            parts.append("Z")
            continue
        pairs = points.reshape(-1, 2)
        parts.append(letter + " ".join(f"{x:.1f} {-y:.1f}" for x, y in pairs))
    return "".join(parts)


def fitted_formula(text: str, width: float, size: float) -> str:
    """What a figure writes for a formula: mathtext if it is at most `width` points wide at type of
    `size` points, else the beginning of its text."""
    source = latex_of(text)
    if source is not None:
        try:
            font = FontProperties(size=size, math_fontfamily=FONT)
            if text_to_path.mathtext_parser.parse(f"${source}$", 72, font)[0] <= width:
                return f"${source}$"
        except (ValueError, RuntimeError):
            pass  # LaTeX that mathtext cannot set: the text can always be written
    return short(text, int(width / (0.58 * size))).replace("$", r"\$")
