"""Optical depths on several grids against the plain sum over lines, and their parts against the profile."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import voigt_profile

from specutils_blase.functional import compiled, multilevel
from specutils_blase.functional.compiled import kernels

pytestmark = pytest.mark.usefixtures("every_target")


def plain(wave, lines):
    """Every line everywhere, by scipy."""
    center, strength, sigma, gamma = (a[:, None] for a in lines)
    return np.sum(strength * voigt_profile(wave - center, sigma, gamma), axis=0)


def draw(seed, n_lines, lower=4990.0, upper=5020.0):
    rng = np.random.default_rng(seed)
    return (
        rng.uniform(lower, upper, n_lines), rng.choice([-0.3, 1.0], n_lines) * 10 ** rng.uniform(-5, 0.5, n_lines),
        10 ** rng.uniform(-3, 0, n_lines), 10 ** rng.uniform(-5, 0.5, n_lines),
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_lines=st.integers(1, 5),
    n_pix=st.sampled_from([200, 1000, 5000]),
    tolerance=st.sampled_from([1e-4, 1e-6, 1e-8]),
)
def test_is_the_plain_sum_to_the_tolerance(seed, n_lines, n_pix, tolerance):
    lines = draw(seed, n_lines)
    wave = np.linspace(5000.0, 5010.0, n_pix)
    tau = multilevel.optical_depth(wave, *lines, tolerance)
    # a line is cut where it is below the tolerance, and interpolated to a tenth of it
    np.testing.assert_allclose(tau, plain(wave, lines), rtol=1e-7, atol=1.2 * n_lines * tolerance)


@pytest.mark.parametrize("gamma", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("center", [5000.0, 5050.123, 5103.0])
def test_a_line_that_is_not_cut_is_exact_to_the_interpolation(gamma, center):
    wave = np.linspace(5000.0, 5100.0, 20_001)
    line = [np.array([value]) for value in (center, 0.3, 0.04, gamma)]
    tolerance = 1e-7
    tau, expected = multilevel.optical_depth(wave, *line, tolerance), plain(wave, line)
    inside = expected > 10 * tolerance  # not at the cut
    assert np.abs(tau - expected)[inside].max() < 3 * multilevel.SHARE * tolerance


def test_uneven_pixels_with_gaps():
    rng = np.random.default_rng(2)
    wave = np.sort(np.concatenate([rng.uniform(5000, 5003, 3000), rng.uniform(5007, 5008, 400), [5015.0, 5015.01]]))
    lines = draw(3, 40)
    tau = multilevel.optical_depth(wave, *lines, 1e-7)
    np.testing.assert_allclose(tau, plain(wave, lines), rtol=1e-7, atol=40 * 1.2e-7)


def test_many_lines_in_threads():
    lines = draw(5, 3000)
    lines = (lines[0], 1e-2 * lines[1], *lines[2:])
    wave = np.linspace(4990.0, 5020.0, 4000)
    tau = multilevel.optical_depth(wave, *lines, 1e-8)
    np.testing.assert_allclose(tau, plain(wave, lines), rtol=1e-7, atol=3000 * 1e-8)


@pytest.mark.parametrize("strength", [1e-3, 30.0])
def test_the_series_is_the_profile_far_from_the_centre(strength):
    series = np.empty(multilevel.POWERS)
    for sigma, gamma in ((0.05, 1e-4), (0.05, 0.05), (0.05, 1.0), (1e-4, 1.0)):
        # where the first term that is missing is below 1e-8: (13!!/2^6) |z|^-12 of the leading one
        head = 135135 / 64 * strength * gamma / np.pi / 1e-8
        far = max(36.0 * 2.0 * sigma**2, (2.0 * sigma**2) ** (6 / 7) * head ** (1 / 7))
        dx = np.sqrt(max(far - gamma**2, 0.0)) + 0.01 * np.arange(400)
        kernels.far_series(multilevel._SERIES, strength, sigma, gamma, series)
        out = np.sum(series[:, None] * (dx**2 + gamma**2) ** -np.arange(1.0, len(series) + 1)[:, None], axis=0)
        np.testing.assert_allclose(out, strength * voigt_profile(dx, sigma, gamma), rtol=1e-12, atol=1.1e-8)


def test_the_continuation_keeps_five_derivatives():
    series, polynomial = np.empty(multilevel.POWERS), np.empty(multilevel.DERIVATIVES)
    sigma, gamma, edge = 0.01, 0.02, 0.3
    kernels.far_series(multilevel._SERIES, 0.3, sigma, gamma, series)
    kernels.continuation(multilevel._BINOMIAL, series, edge**2 + gamma**2, polynomial)
    missing = []
    for h in (0.01, 0.005):
        inside = np.polynomial.Polynomial(polynomial)(1.0 - ((edge - h) ** 2 + gamma**2) / (edge**2 + gamma**2))
        missing.append(abs(inside - 0.3 * voigt_profile(edge - h, sigma, gamma)))
    assert 2**5.8 < missing[0] / missing[1] < 2**6.2  # the first term that is missing is the sixth


def test_pixels_without_lines_and_lines_without_pixels():
    wave, none, one = np.linspace(5000.0, 5010.0, 500), np.zeros(0), np.ones(1)
    assert not multilevel.optical_depth(wave, none, none, none, none, 1e-6).any()
    assert multilevel.optical_depth(np.zeros(0), 5000 * one, one, one, one, 1e-6).shape == (0,)
    for x in (5000.0, 5003.0):
        tau = multilevel.optical_depth(np.array([x]), 5000.0 * one, 0.1 * one, 0.05 * one, 0.02 * one, 1e-9)
        assert tau[0] == pytest.approx(0.1 * voigt_profile(x - 5000.0, 0.05, 0.02), rel=1e-9)
    assert not multilevel.optical_depth(wave, 7000.0 * one, 1e-3 * one, 0.05 * one, 1e-3 * one, 1e-6).any()


@pytest.mark.parametrize("place", range(4))
def test_nan_is_seen_everywhere(place):
    line = [np.array([value]) for value in (5004.0, 0.1, 0.05, 0.02)]
    line[place][0] = np.nan
    assert np.isnan(multilevel.optical_depth(np.linspace(5000.0, 5010.0, 500), *line, 1e-6)).all()


@pytest.mark.parametrize("offset", np.linspace(0.0, 1.0, 7))
def test_interpolation_is_exact_for_fifth_degrees(offset):
    polynomial = np.polynomial.Polynomial([0.3, -1.0, 0.5, 0.2, -0.1, 0.03])
    start, step = 2.0, 0.5
    points, out = np.array([start + (3 + offset) * step]), np.zeros(1)
    kernels.add_interpolated(points, polynomial(start + step * np.arange(9)), start, step, 0, 1, out)
    assert out[0] == pytest.approx(polynomial(points[0]), rel=1e-12)


def test_agrees_with_the_direct_sum_on_a_spectrum():
    lines = draw(7, 2000, 4900.0, 5100.0)
    lines = (lines[0], 1e-3 * np.abs(lines[1]), *lines[2:])
    wave = np.geomspace(4900.0, 5100.0, 20_000)
    direct = compiled.optical_depth(wave, *lines, 1e-9)
    np.testing.assert_allclose(multilevel.optical_depth(wave, *lines, 1e-9), direct, rtol=2e-8, atol=2e-8)


@pytest.mark.parametrize("exposures", [2, 7, 300])
@pytest.mark.parametrize("n_pix", [1, 2, 20, 700])
def test_exposures_may_share_wavelengths(exposures, n_pix):
    wave, lines = np.linspace(5000.0, 5010.0, n_pix), draw(4, 5)
    tau = multilevel.optical_depth(np.repeat(wave, exposures), *lines, 1e-6)
    expected = np.repeat(plain(wave, lines), exposures)
    np.testing.assert_allclose(tau, expected, atol=5 * 1.1e-6)
