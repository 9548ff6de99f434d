"""Whatever a user writes is read, or refused in lines of the project's own, soon, and nothing of it
is executed. `counting.py` says what is asked of each kind of input."""

from __future__ import annotations

import pytest
from counting import KINDS

DAILY = {"spaces": 2_200, "formulas": 2_300, "settings": 500, "commands": 100}
ONCE = {"spaces": 6_000, "formulas": 6_000, "settings": 1_000, "commands": 300}


@pytest.mark.parametrize("kind", DAILY)
def test_inputs_are_read_or_refused(kind: str):
    found = KINDS[kind](DAILY[kind], 0)
    assert found.total >= DAILY[kind]
    assert found.counts["read"] > 0.03 * found.total, "too few are good to try anything"
    assert found.counts["read"] < 0.97 * found.total, "too few are spoilt to try anything"


@pytest.mark.slow
@pytest.mark.parametrize("own_seed", range(100, 108))
@pytest.mark.parametrize("kind", ONCE)
def test_more_inputs_are_read_or_refused(kind: str, own_seed: int):
    assert KINDS[kind](ONCE[kind], own_seed).total >= ONCE[kind]
