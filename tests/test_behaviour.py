"""What a candidate does, and the model that learns from it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, RationalQuadratic

from search.language.catalog import CATALOG
from search.language.derivative import derivative
from search.language.evaluate import evaluate
from search.language.expression import X
from search.language.parser import parse
from search.samplers.behaviour import thinned, warped
from search.samplers.features import BLOCKS, SPREADS, behaviour, quantiles
from search.samplers.surrogate import (
    SHARED,
    Points,
    Setting,
    kernel,
    likeness,
    predict,
    settings,
)
from tests.cases import CASES, expression

# --- features -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(CASES))
def test_features_are_finite_and_repeat(name: str):
    found = behaviour(expression(name))
    assert len(found.blocks) == len(BLOCKS)
    assert all(np.isfinite(block).all() for block in found.blocks)
    again = behaviour.__wrapped__(expression(name))
    assert all(map(np.array_equal, found.blocks, again.blocks))


def block(text: str, name: str) -> np.ndarray:
    return behaviour(parse(text)).blocks[BLOCKS.index(name)].astype(np.float64)


@pytest.mark.parametrize("name", ["gelu", "golu", "mish", "silu", "tanh"])
def test_slopes_are_the_derivatives(name: str):
    expression = CATALOG[name].expression
    x = SPREADS[:, None] * quantiles()
    exact = evaluate(derivative(expression, X), {"x": x}, expression.initial)
    found = np.sinh(behaviour(expression).blocks[BLOCKS.index("slopes")].reshape(x.shape))
    np.testing.assert_allclose(found, exact, atol=1e-6)  # 1e-4 squared, and float32


def test_moments_of_relu():
    mean, mixed, second, gradient = block("relu(x)", "moments").reshape(len(SPREADS), 4).T
    # E f = s / sqrt(2 pi), E f² = s² / 2, E f f' = E f, E f'² = 1/2, all of f / s; 48 points
    np.testing.assert_allclose(np.sinh(mean), 1 / np.sqrt(2 * np.pi), rtol=0.02)
    np.testing.assert_allclose(np.sinh(mixed), 1 / np.sqrt(2 * np.pi), rtol=0.02)
    np.testing.assert_allclose(np.exp(second), 0.5, rtol=0.05)
    np.testing.assert_allclose(np.exp(gradient), 0.5, rtol=1e-4)


def test_degrees_of_hermite_polynomials():
    np.testing.assert_allclose(block("3 * x", "degrees")[:3], [0, 1, 0], atol=1e-6)
    even, odd = block("x ** 2 - 1", "degrees"), block("x ** 3 - 3 * x", "degrees")
    assert np.argmax(np.abs(even)) == 2 and np.abs(even[1::2]).max() < 1e-6
    assert np.argmax(np.abs(odd)) == 3 and np.abs(odd[::2]).max() < 1e-6
    # relu: 1/sqrt(2 pi), 1/2, 1/(2 sqrt(pi)), each by sqrt(E f²) = sqrt(1/2); 48 points
    exact = np.array([1 / np.sqrt(2 * np.pi), 1 / 2, 1 / (2 * np.sqrt(np.pi))]) * np.sqrt(2)
    np.testing.assert_allclose(block("relu(x)", "degrees")[:3], exact, rtol=0.08)


def test_an_exploding_network_has_the_larger_fisher_trace():
    # At the gain that keeps E f², the gradient grows with E f'² / E f²: 1 for a line, 4 for sin(2x)
    # … over three layers.
    assert block("sin(4 * x)", "fisher")[-1] > block("x", "fisher")[-1] + 1


def test_the_learned_numbers_are_seen():
    plain = behaviour(parse("x * sigmoid(x)"))
    layer = behaviour(parse("x * sigmoid(b * x) where b = 1 per layer"))
    channel = behaviour(parse("x * sigmoid(b * x) where b = 1 per channel"))
    np.testing.assert_array_equal(plain.blocks[0], layer.blocks[0])
    learning = [found.blocks[BLOCKS.index("learning")] for found in (plain, layer, channel)]
    assert not learning[0].any() and not np.array_equal(learning[1], learning[2])
    strength = block("x * sigmoid(b * x) where b = 1 per layer", "learning").reshape(2, -1)
    x = (SPREADS[:, None] * quantiles()).ravel()
    s = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(np.sinh(strength[0]), np.abs(x * x * s * (1 - s)), atol=1e-3)
    assert not strength[1].any()


def test_a_statistic_is_no_constant_and_equal_functions_are_equal():
    assert np.abs(block("x * std(x)", "values") - block("x", "values")).max() > 0.5
    for name in BLOCKS[:-1]:  # the last one counts operations
        one, other = block("sin(x)**2 + cos(x)**2 + x", name), block("1 + x", name)
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert not behaviour(parse("x * exp(x ** 4)")).finite


# --- the surrogate --------------------------------------------------------------------------------


def at(axes: np.ndarray) -> Points:
    """(groups, n, axes); all candidates chose the same numbers."""
    return Points(axes, np.ones((axes.shape[1], 1)))


def test_the_gaussian_process_is_scikit_learns():
    """At one setting of the grid, mean and deviation agree with an independent package's."""
    rng = np.random.default_rng(4)
    points, wanted = rng.standard_normal((1, 30, 3)), rng.standard_normal((1, 20, 3))
    values = np.sin(points[0]).sum(axis=1)
    values -= values.mean()
    setting = Setting(length=2.0, noise=0.03, amplitude=1.7, weight=1.0)
    theirs = ConstantKernel(1.7) * RationalQuadratic(2.0, alpha=1.0)
    peer = GaussianProcessRegressor(theirs, alpha=0.03 * 1.7, optimizer=None)  # pyright: ignore[reportArgumentType]
    peer.fit(points[0], values)
    mean, deviation = predict(at(points), values, at(points[:, :0]), at(wanted), [setting])
    expected = peer.predict(wanted[0], return_std=True)
    np.testing.assert_allclose(mean, expected[0], atol=1e-5)  # float32
    np.testing.assert_allclose(deviation, expected[1], rtol=1e-4)


def test_the_grid_finds_length_and_noise():
    rng = np.random.default_rng(5)
    points = rng.uniform(-3, 3, (1, 80, 1))
    smooth = np.sin(points[0, :, 0])
    clean = settings(at(points), smooth - smooth.mean())
    noisy = smooth + rng.standard_normal(80)
    loud = settings(at(points), noisy - noisy.mean())
    assert clean[0].noise < 0.02 and loud[0].noise >= 0.3
    assert sum(s.weight for s in loud) == pytest.approx(1)


def test_what_runs_is_believed():
    rng = np.random.default_rng(6)
    points, running, wanted = (at(rng.standard_normal((2, n, 2))) for n in (12, 3, 9))
    nothing = running.at(slice(0, 0))
    values = rng.standard_normal(12)
    grid = settings(points, values)
    alone = predict(points, values, nothing, wanted, grid)
    beside = predict(points, values, running, wanted, grid)
    np.testing.assert_allclose(alone[0], beside[0], atol=1e-6)
    assert (beside[1] < alone[1]).all()
    at_running = predict(points, values, running, running, grid)[1]
    assert (at_running < predict(points, values, nothing, running, grid)[1]).all()


def test_candidates_with_other_numbers_are_less_alike():
    axes, numbers = np.zeros((1, 2, 1)), np.eye(2)
    alike = likeness(Points(axes, numbers), Points(axes, numbers))
    np.testing.assert_allclose(kernel(alike, 1.0), [[1, 1 - SHARED], [1 - SHARED, 1]])


def test_a_warp_keeps_the_order_and_tames_an_outlier():
    values = np.array([0.1, 0.5, 0.52, 0.6, 0.61, -1e9])
    found = warped(values)
    assert (np.argsort(found) == np.argsort(values)).all()
    assert np.ptp(found) < 40
    assert (warped(np.full(5, 0.3)) == 0).all()


def test_the_best_of_many_trials_are_all_kept():
    values = np.random.default_rng(7).permutation(np.arange(1000.0))
    kept = thinned(values, 100)
    assert len(set(kept.tolist())) == 100
    assert set(values[kept]) >= set(range(950, 1000)) and values[kept].min() == 0
