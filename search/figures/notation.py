"""How numbers, rates and formulas are written in every table and figure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

MINUS = "−"


@dataclass(frozen=True, slots=True)
class Scale:
    """How a score is written: accuracies in percent with two decimals, losses with five digits.

    >>> Scale(percent=True).pair(0.9731, 0.0012)
    '97.31 ± 0.12'
    >>> Scale(percent=False, decimals=3).text(0.51234)
    '0.512'
    """

    percent: bool
    decimals: int | None = None
    """Digits after the point; None asks for two in percent, else for five significant digits."""

    @property
    def unit(self) -> str:
        """` %` or nothing."""
        return " %" if self.percent else ""

    @property
    def factor(self) -> float:
        """What scores are multiplied by when shown."""
        return 100.0 if self.percent else 1.0

    def text(self, value: float | None, sign: bool = False) -> str:
        """One score; `sign` asks for a + before a gain. A dash stands for no score."""
        if value is None or not math.isfinite(value):
            return "–" if value is None else str(value)
        value = value * self.factor
        if self.percent or self.decimals is not None:
            written = (
                f"{value:{'+' if sign else ''}.{2 if self.decimals is None else self.decimals}f}"
            )
        else:
            written = f"{value:{'+' if sign else ''}.5g}"
        return written.replace("-", MINUS)

    def pair(self, value: float | None, error: float | None, sign: bool = False) -> str:
        """`mean ± standard error`; the mean alone when there is no error."""
        written = self.text(value, sign)
        return written if value is None or error is None else f"{written} ± {self.text(error)}"

    def points(self, gain: float) -> str:
        """A gain, in percentage points where scores are percentages.

        >>> Scale(percent=True).points(0.002), Scale(percent=False, decimals=3).points(0.01)
        ('0.20 points', '0.010')
        """
        return self.text(gain) + (" points" if self.percent else "")

    def fitted(self, values: Iterable[float | None]) -> Scale:
        """The same scale with as many decimals as give `values` five significant digits."""
        sizes = [abs(v) for v in values if v is not None and math.isfinite(v) and v != 0]
        if self.percent or not sizes:
            return self
        typical = sorted(sizes)[len(sizes) // 2]
        return Scale(False, min(8, max(0, 4 - math.floor(math.log10(typical)))))


def rate_text(rate: float | None) -> str:
    """A learning rate as people write it.

    >>> rate_text(0.003), rate_text(3.16228e-05)
    ('0.003', '3.16e-5')
    """
    if rate is None:
        return "–"
    if 1e-4 <= abs(rate) < 1e4:
        return f"{rate:.4g}"
    return f"{rate:.3g}".replace("e-0", "e-").replace("e+0", "e")


def short(text: str, width: int) -> str:
    """`text` in at most `width` characters, an ellipsis for what was cut.

    >>> short("x * sigmoid(b * x)", 12)
    'x * sigmoid…'
    """
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def one_line(text: str, width: int) -> str:
    """`text` without its line breaks, in at most `width` characters."""
    return short(" ".join(text.split()), width)


def duration_text(seconds: float) -> str:
    """A wall time: `48 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count_text(number: int, word: str, plural: str = "") -> str:
    """`1 trial`, `3 trials`, `2 activations of the search`."""
    return f"{number:,} {word if number == 1 else plural or word + 's'}"


def p_text(p: float) -> str:
    """A p value with two digits, never as 0.

    >>> p_text(0.00391), p_text(0.5), p_text(1e-6)
    ('p = 0.0039', 'p = 0.5', 'p < 0.0001')
    """
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"
