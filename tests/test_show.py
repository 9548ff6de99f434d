"""`python -m search.show`: the facts it prints, and the picture it draws."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.special

from search.language.catalog import CATALOG
from search.language.facts import facts
from search.language.parser import parse
from search.show import describe


def show(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "search.show", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_golu_has_the_published_facts():
    found = facts(CATALOG["golu"].expression)
    w = float(scipy.special.lambertw(1).real)
    assert found.minimum == pytest.approx((-w, -0.09726013122763941), abs=1e-7)
    assert found.slope_at_zero == pytest.approx(np.exp(-1), abs=1e-15)
    assert (found.mean, found.variance) == pytest.approx((0.2588561227807771, 0.25262786074980514))
    assert found.monotonic == "no" and found.kinks == ()


def test_kinks_are_where_a_slope_jumps_and_nowhere_else():
    assert facts(parse("clip(x, -1, 2)")).kinks == (-1, 2)
    assert facts(parse("relu(x)**3")).kinks == ()
    assert facts(parse("select(x > 0.5, x, 0.1 * x)")).kinks == (0.5,)
    assert facts(parse("max(x, sin(x))")).kinks == ()


def test_monotonicity_and_moments():
    assert facts(parse("softplus(x)")).monotonic == "increasing"
    assert facts(parse("cos(x) - x")).monotonic == "decreasing"
    relu = facts(parse("relu(x)"))
    assert relu.mean == pytest.approx((2 * np.pi) ** -0.5, abs=1e-10)
    assert relu.variance == pytest.approx(0.5 - 1 / (2 * np.pi), abs=1e-10)
    assert relu.minimum is None or relu.minimum[1] == 0


def test_a_statistic_within_a_statistic_is_that_of_a_normal_row():
    """rms(x - mean(x)) is 1 under N(0, 1), whatever points are asked for."""
    found = facts(parse("x * rms(x - mean(x))"))
    assert (found.mean, found.variance) == pytest.approx((0, 1), abs=1e-3)
    assert found.slope_at_zero == pytest.approx(1, abs=1e-3)


def test_the_lines_name_derivatives_twins_and_parameters():
    lines = dict(describe(parse("x * sigmoid(s * x) where s = 1 per layer")))
    assert lines["d/ds"] == "x ** 2 * sigmoid(-(s * x)) * sigmoid(s * x)"
    assert "swish" in lines["catalogue"]
    assert dict(describe(parse("x * gompertz(2 * x)")))["catalogue"].startswith("new")


def test_the_command_prints_and_draws(tmp_path: Path):
    picture = tmp_path / "golu.png"
    run = show("golu", "-o", str(picture))
    assert run.returncode == 0, run.stderr
    assert "-0.5671432904" in run.stdout and "gompertz(x) + x * gumbel_pdf(x)" in run.stdout
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize(
    "text, message",
    [
        ("gulo", "activation: unknown activation 'gulo'; did you mean 'golu'?"),
        ("x * sigmiod(x)", "activation: unknown primitive 'sigmiod'; did you mean 'sigmoid'?"),
        ("__import__('os')", "activation: unexpected character"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(text: str, message: str):
    run = show(text, "--no-picture")
    assert run.returncode == 2
    assert run.stderr.startswith(message) and run.stderr.count("\n") == 1
