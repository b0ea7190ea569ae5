"""The compiled kernels against scipy, mpmath and the torch reference."""

import os
import re
import subprocess
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import voigt_profile, wofz

from specutils_blase.functional import compiled, multilevel, voigt_derivatives
from specutils_blase.functional import half_width as torch_half_width
from specutils_blase.functional import optical_depth as torch_optical_depth
from specutils_blase.functional import product_transmission as torch_product_transmission
from specutils_blase.functional.forest import line_pixel_pairs

pytestmark = pytest.mark.usefixtures("every_target")

# sigma for which x = wave - center and y = gamma
UNIT_SIGMA = np.sqrt(0.5)
X = np.concatenate([np.logspace(-6, 5, 300), np.linspace(0.0, 25.0, 801), [10.0 - 1e-12, 10.0 + 1e-12]])
X = np.unique(np.concatenate([-X, X]))
Y = np.concatenate([[0.0], np.logspace(-15, 4, 96), [9.999999999, 10.0, 10.000000001]])
positive = st.floats(-4.0, 1.0).map(lambda x: 10.0**x)


def terms_over(x, y, strength=1.0):
    """line_terms of one line per y, all of them over all x; shape (4, n_y, n_x)."""
    n, ones = len(y), np.ones(len(y))
    lo, hi = np.zeros(n, dtype=np.int64), np.full(n, len(x), dtype=np.int64)
    offset, terms = compiled.line_terms(x, 0.0 * ones, strength * ones, UNIT_SIGMA * ones, np.array(y), lo, hi)
    return terms[:, offset[:, None] + np.arange(len(x))]


def exact_terms(x, y):
    """V and its derivatives by (ln strength, ln sigma, ln gamma, center) at UNIT_SIGMA, from 60 digits."""
    with mpmath.workdps(60):
        z = mpmath.mpc(x, y)
        if abs(z) < 20:
            w = mpmath.exp(-z * z) * mpmath.erfc(-1j * z)
        else:
            terms = [mpmath.fac2(2 * k - 1) / (2 * z * z) ** k for k in range(1, 20)]
            w = 1j / (mpmath.sqrt(mpmath.pi) * z) * (1 + mpmath.fsum(terms))
        w1 = -2 * z * w + 2j / mpmath.sqrt(mpmath.pi)
        w2 = -2 * w - 2 * z * w1
        norm = 1 / mpmath.sqrt(mpmath.pi)
        return [float(norm * v) for v in (w.real, w2.real / 2, -y * w1.imag, -w1.real)]


def draw_lines(seed, n_lines=12):
    rng = np.random.default_rng(seed)
    return {
        "center": np.sort(rng.uniform(4995.0, 5015.0, n_lines)),
        "strength": 10.0 ** rng.uniform(-4.0, 0.5, n_lines) * rng.choice([-1.0, 1.0], n_lines),
        "sigma": 10.0 ** rng.uniform(-2.0, -0.5, n_lines),
        "gamma": 10.0 ** rng.uniform(-5.0, -0.5, n_lines),
    }


def dense_depths(lines, wave):
    """Every line at every pixel with scipy, shape (n_lines, n_pix)."""
    delta = wave[None] - lines["center"][:, None]
    return lines["strength"][:, None] * voigt_profile(delta, lines["sigma"][:, None], lines["gamma"][:, None])


def peak_sum(lines):
    """Sum of the optical depths at the lines' centres."""
    return np.sum(np.abs(lines["strength"]) * voigt_profile(0.0, lines["sigma"], lines["gamma"]))


def torch_arguments(lines, wave, tolerance):
    t = {name: torch.from_numpy(np.array(value)) for name, value in lines.items()}
    reach = torch_half_width(t["strength"].abs(), t["sigma"], t["gamma"], tolerance)
    return {
        "center": t["center"], "log_strength": t["strength"].abs().log(), "log_sigma": t["sigma"].log(),
        "log_gamma": t["gamma"].log(), "sign": t["strength"].sign(),
        "pairs": line_pixel_pairs(torch.from_numpy(wave), t["center"], reach),
    }  # fmt: skip


class TestValue:
    def test_contract_over_the_whole_plane(self):
        value = terms_over(X, Y)[0]
        z = X[None] + 1j * Y[:, None]
        expected, peak = wofz(z).real / np.sqrt(np.pi), wofz(1j * Y[:, None]).real / np.sqrt(np.pi)
        assert (np.abs(value - expected) <= np.maximum(1e-9 * expected, 1e-12 * peak)).all()

    def test_the_two_value_kernels_keep_the_same_contract(self):
        # optical_depth and product_transmission have a kernel of their own, without derivatives
        for y in Y[1::6]:
            line = {"center": np.zeros(1), "sigma": np.array([UNIT_SIGMA]), "gamma": np.array([y])}
            expected, peak = wofz(X + 1j * y).real / np.sqrt(np.pi), wofz(1j * y).real / np.sqrt(np.pi)
            allowed = np.maximum(1e-9 * expected, 1e-12 * peak)
            tau = compiled.optical_depth(X, strength=np.ones(1), **line, tolerance=1e-30)
            assert (np.abs(tau - expected) <= allowed).all(), y
            flat = compiled.product_transmission(X, strength=np.array([0.1]), **line, tolerance=1e-30)
            assert (np.abs(flat - (1.0 - 0.1 * expected)) <= 0.1 * allowed + 2e-16).all(), y

    @settings(max_examples=300, deadline=None)
    @given(x=st.floats(-1e5, 1e5), log_y=st.floats(-20.0, 4.0))
    def test_any_point(self, x, log_y):
        y = 10.0**log_y
        value = terms_over(np.array([x]), [y])[0, 0, 0]
        expected, peak = wofz(x + 1j * y).real / np.sqrt(np.pi), wofz(1j * y).real / np.sqrt(np.pi)
        assert abs(value - expected) <= max(1e-9 * expected, 1e-12 * peak)

    @pytest.mark.parametrize("sigma", [1e-3, 0.03, 20.0])
    @pytest.mark.parametrize("ratio", [1e-5, 0.1, 1.0, 1e3])
    def test_any_unit_of_width(self, sigma, ratio):
        wave = 5000.0 + sigma * np.linspace(-60.0, 60.0, 501)
        one = np.ones(1)
        tau = compiled.optical_depth(wave, 5000.0 * one, 0.3 * one, sigma * one, sigma * ratio * one, 1e-30)
        expected = 0.3 * voigt_profile(wave - 5000.0, sigma, sigma * ratio)
        np.testing.assert_allclose(tau, expected, rtol=1e-9, atol=1e-12 * expected.max())


class TestDerivatives:
    @pytest.mark.parametrize("y", [0.0, 1e-12, 1e-5, 1e-3, 0.1, 1.0, 5.0, 9.9999, 10.0001, 300.0, 1e4])
    def test_against_the_torch_reference(self, y):
        x = X[np.abs(X) < 1e5]
        ours = terms_over(x, [y], strength=2.0)[:, 0]
        one = torch.ones(1, dtype=torch.float64)
        value, d_delta, d_sigma, d_gamma = voigt_derivatives(torch.from_numpy(x), sigma=UNIT_SIGMA * one, gamma=y * one)
        reference = [2.0 * value, 2.0 * UNIT_SIGMA * d_sigma, 2.0 * y * d_gamma, -2.0 * d_delta]
        for row, expected in zip(ours, reference, strict=True):
            expected = expected.numpy()
            scale = np.abs(expected).max() if y else np.abs(reference[0].numpy()).max()
            np.testing.assert_allclose(row, expected, rtol=1e-8, atol=1e-10 * scale)

    @pytest.mark.parametrize("x", [0.0, 0.7, -2.3, 5.5, 9.99, 10.01, -37.0, 900.0, -1e5])
    @pytest.mark.parametrize("y", [1e-6, 1e-2, 1.0, 9.9, 11.0, 1e4])
    def test_against_sixty_digits(self, x, y):
        ours, expected = terms_over(np.array([x]), [y])[:, 0, 0], exact_terms(x, y)
        # largest |dV/d ...| of a line with this y, for the absolute part
        scale = [max(abs(exact_terms(point, y)[a]) for point in (0.0, 0.5, 1.0, 2.0, y)) for a in range(4)]
        for row, value, largest in zip(ours, expected, scale, strict=True):
            assert row == pytest.approx(value, rel=1e-8, abs=1e-10 * largest)

    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_against_finite_differences_of_the_value(self, sign):
        wave = np.linspace(4990.0, 5010.0, 401)
        log = np.log([0.4, 0.11, 0.07])
        lo, hi = np.zeros(1, dtype=np.int64), np.full(1, wave.size, dtype=np.int64)

        def depth(parameters):
            a, s, g = np.exp(parameters[:3])
            return sign * a * voigt_profile(wave - parameters[3], s, g)

        point = np.array([*log, 5000.013])
        a, s, g = np.exp(log)
        _, terms = compiled.line_terms(wave, *(np.array([v]) for v in (point[3], sign * a, s, g)), lo, hi)
        terms = terms[:, : wave.size]
        for k, row in enumerate(terms):
            step = np.zeros(4)
            step[k] = 1e-5
            numeric = (depth(point + step) - depth(point - step)) / 2e-5
            np.testing.assert_allclose(row, numeric, rtol=1e-6, atol=1e-7 * np.abs(numeric).max())
        assert terms[0].sum() * sign > 0.0


class TestForest:
    @settings(max_examples=60, deadline=None)
    @given(seed=st.integers(0, 2**32 - 1), log_tolerance=st.floats(-9.0, -3.0))
    def test_windowed_is_dense_to_the_tolerance(self, seed, log_tolerance):
        lines, wave, tolerance = draw_lines(seed), np.linspace(5000.0, 5010.0, 301), 10.0**log_tolerance
        tau = compiled.optical_depth(wave, **lines, tolerance=tolerance)
        dense = dense_depths(lines, wave)
        left_out = (np.abs(dense) < tolerance).sum(axis=0)
        allowed = left_out * tolerance + 1e-9 * np.abs(dense).sum(axis=0) + 1e-12 * peak_sum(lines)
        assert (np.abs(tau - dense.sum(axis=0)) <= allowed).all()

    @settings(max_examples=60, deadline=None)
    @given(seed=st.integers(0, 2**32 - 1), log_tolerance=st.floats(-9.0, -3.0))
    def test_same_numbers_as_torch(self, seed, log_tolerance):
        lines, wave, tolerance = draw_lines(seed), np.linspace(5000.0, 5010.0, 301), 10.0**log_tolerance
        arguments = torch_arguments(lines, wave, tolerance)
        scale = np.abs(dense_depths(lines, wave)).sum(axis=0)
        tau = torch_optical_depth(torch.from_numpy(wave), **arguments).numpy()
        ours = compiled.optical_depth(wave, **lines, tolerance=tolerance)
        assert (np.abs(ours - tau) <= 1e-9 * scale + 1e-12 * peak_sum(lines)).all()
        flat = torch_product_transmission(torch.from_numpy(wave), **arguments).numpy()
        ours = compiled.product_transmission(wave, **lines, tolerance=tolerance)
        # where a factor passes through zero its error is absolute
        np.testing.assert_allclose(ours, flat, rtol=1e-8 * (1.0 + scale.max()), atol=1e-12 * (1.0 + scale.max()))

    @settings(max_examples=100, deadline=None)
    @given(strength=positive, sigma=positive, gamma=positive, log_tolerance=st.floats(-9.0, -3.0))
    def test_depth_outside_the_window_is_below_the_tolerance(self, strength, sigma, gamma, log_tolerance):
        tolerance = 10.0**log_tolerance
        width = compiled.half_width(strength, sigma, gamma, tolerance)
        assert strength * voigt_profile(width, sigma, gamma) <= tolerance * (1.0 + 1e-9)
        assert compiled.half_width(-strength, sigma, gamma, tolerance) == width

    def test_half_width_is_that_of_torch(self):
        lines = draw_lines(5, 40)
        reach = compiled.half_width(lines["strength"], lines["sigma"], lines["gamma"], 1e-6)
        t = [torch.from_numpy(np.abs(lines[k])) for k in ("strength", "sigma", "gamma")]
        np.testing.assert_allclose(reach, torch_half_width(*t, 1e-6).numpy(), rtol=1e-12)

    def test_windows_hold_both_ends(self):
        wave = np.arange(10.0)
        lo, hi = compiled.line_windows(wave, np.array([4.0, -5.0, 20.0, 9.4]), np.array([2.0, 1.0, 1.0, 1.0]))
        assert list(zip(lo.tolist(), hi.tolist(), strict=True)) == [(2, 7), (0, 0), (10, 10), (9, 10)]

    def test_many_lines_in_threads_are_the_sum_of_single_ones(self):
        lines, wave = draw_lines(8, 300), np.linspace(4990.0, 5020.0, 700)
        lines["strength"] *= 0.02
        one_by_one = [{k: v[j : j + 1] for k, v in lines.items()} for j in range(300)]
        tau = compiled.optical_depth(wave, **lines, tolerance=1e-6)
        np.testing.assert_allclose(tau, sum(compiled.optical_depth(wave, **o, tolerance=1e-6) for o in one_by_one),
                                   rtol=0, atol=1e-12)  # fmt: skip
        flat = compiled.product_transmission(wave, **lines, tolerance=1e-6)
        parts = [compiled.product_transmission(wave, **o, tolerance=1e-6) for o in one_by_one]
        np.testing.assert_allclose(flat, np.prod(parts, axis=0), rtol=1e-11, atol=1e-14)
        lo, hi = compiled.line_windows(wave, lines["center"], np.full(300, 1.5))
        offset, terms = compiled.line_terms(wave, *lines.values(), lo, hi)
        assert terms.shape[0] == 4 and (np.diff(offset) >= (hi - lo)[:-1]).all()
        dense = dense_depths(lines, wave)
        for j in range(300):
            own = dense[j, lo[j] : hi[j]]
            found = terms[0, offset[j] : offset[j] + hi[j] - lo[j]]
            np.testing.assert_allclose(found, own, rtol=1e-9, atol=1e-12 * np.abs(own).max())

    @pytest.mark.parametrize("n_lines", [3, 300])
    def test_projections_are_the_terms_times_the_vector(self, n_lines):
        lines, wave = draw_lines(8, n_lines), np.linspace(4990.0, 5020.0, 700)
        lines["strength"] *= 0.02
        rng = np.random.default_rng(1)
        vector, product = rng.standard_normal(700), rng.random(n_lines) < 0.5
        lo, hi = compiled.line_windows(wave, lines["center"], rng.uniform(0, 3, n_lines))
        offset, terms = compiled.line_terms(wave, *lines.values(), lo, hi)
        sums = compiled.line_projections(wave, *lines.values(), lo, hi, vector, product)
        for j in range(n_lines):
            own = terms[:, offset[j] : offset[j] + hi[j] - lo[j]]
            weight = vector[lo[j] : hi[j]] / (1.0 - own[0] if product[j] else 1.0)
            np.testing.assert_allclose(sums[:, j], own @ weight, rtol=1e-11, atol=1e-12)

    def test_unsorted_lines_give_the_same(self):
        lines, wave = draw_lines(9, 100), np.linspace(4990.0, 5020.0, 300)
        mixed = np.random.default_rng(0).permutation(100)
        shuffled = {k: v[mixed] for k, v in lines.items()}
        ours, expected = (compiled.optical_depth(wave, **each, tolerance=1e-6) for each in (shuffled, lines))
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-13)

    def test_product_is_the_product_and_never_negative(self):
        lines, wave = draw_lines(3), np.linspace(5000.0, 5010.0, 301)
        lines["center"][5], lines["strength"][5] = 5004.0, 4.0 * lines["sigma"][5]
        dense = dense_depths(lines, wave)
        assert dense.max() > 1.0, "the example must clip"
        flat = compiled.product_transmission(wave, **lines, tolerance=1e-12)
        np.testing.assert_allclose(flat, np.prod(np.maximum(1.0 - dense, 0.0), axis=0), rtol=1e-9, atol=1e-12)
        assert (flat >= 0.0).all() and (flat == 0.0).any()

    def test_emission_is_minus_absorption(self):
        line = {"center": np.array([5.0]), "sigma": np.array([0.3]), "gamma": np.array([0.1])}
        wave = np.linspace(0.0, 10.0, 101)
        absorbed = compiled.optical_depth(wave, strength=np.array([0.2]), **line, tolerance=1e-6)
        emitted = compiled.optical_depth(wave, strength=np.array([-0.2]), **line, tolerance=1e-6)
        np.testing.assert_array_equal(emitted, -absorbed)
        assert absorbed.max() == pytest.approx(0.2 * voigt_profile(0.0, 0.3, 0.1), rel=1e-9)


class TestEdges:
    def test_no_lines(self):
        wave, none = np.linspace(1.0, 2.0, 5), np.zeros(0)
        assert compiled.optical_depth(wave, none, none, none, none, 1e-6).tolist() == [0.0] * 5
        assert compiled.product_transmission(wave, none, none, none, none, 1e-6).tolist() == [1.0] * 5
        lo, hi = compiled.line_windows(wave, none, none)
        offset, terms = compiled.line_terms(wave, none, none, none, none, lo, hi)
        assert offset.tolist() == [] and terms.shape == (4, 0)

    def test_one_pixel(self):
        one = np.ones(1)
        for x in (5000.0, 5000.1, 5003.0):
            tau = compiled.optical_depth(np.array([x]), 5000.0 * one, 0.1 * one, 0.05 * one, 0.02 * one, 1e-9)
            assert tau.shape == (1,)
            assert tau[0] == pytest.approx(0.1 * voigt_profile(x - 5000.0, 0.05, 0.02), rel=1e-9)

    def test_no_pixels(self):
        one = np.ones(1)
        assert compiled.optical_depth(np.zeros(0), 5.0 * one, one, one, one, 1e-6).shape == (0,)

    @pytest.mark.parametrize("name", ["center", "strength", "sigma", "gamma"])
    def test_nan_in_terms_out(self, name):
        line = {"center": 5.0, "strength": 0.1, "sigma": 0.3, "gamma": 0.1, name: np.nan}
        wave = np.linspace(0.0, 10.0, 11)
        lo, hi = np.zeros(1, dtype=np.int64), np.full(1, 11, dtype=np.int64)
        _, terms = compiled.line_terms(wave, *(np.array([v]) for v in line.values()), lo, hi)
        assert np.isnan(terms[0, :11]).all()

    @pytest.mark.parametrize("name", ["center", "strength", "sigma", "gamma"])
    @pytest.mark.parametrize("function", [compiled.optical_depth, compiled.product_transmission])
    def test_nan_line_is_not_silently_left_out(self, function, name):
        line = {"center": 5.0, "strength": 0.1, "sigma": 0.3, "gamma": 0.1, name: np.nan}
        out = function(np.linspace(4.0, 6.0, 11), **{k: np.array([v]) for k, v in line.items()}, tolerance=1e-6)
        assert np.isnan(out).any()


def weideman(order=32):
    """Weideman (1994), his table 1: the scale, and the coefficients from the highest power down."""
    size = 2 * order
    k = np.arange(-size + 1, size)
    scale = np.sqrt(order / np.sqrt(2.0))
    t = scale * np.tan(k * np.pi / size / 2)
    f = np.append(0.0, np.exp(-(t**2)) * (scale**2 + t**2))
    return scale, np.real(np.fft.fft(np.fft.fftshift(f)))[1 : order + 1][::-1] / (2 * size)


def test_the_numbers_of_the_core_are_those_of_the_paper():
    source = Path(__file__).parents[2].joinpath("specutils_blase", "kernels", "voigt.h").read_text()
    scale, coefficients = weideman()
    assert float(re.search(r"#define SCALE (\S+)", source)[1]) == pytest.approx(scale, rel=1e-15)
    table = re.search(r"double C\[32\] = \{(.*?)\}", source, re.DOTALL)[1]
    np.testing.assert_allclose([float(value) for value in table.split(",") if value.strip()], coefficients, atol=1e-15)


class TestCalls:
    """What the kernels are given is checked: a wrong array would be read as something that it is not."""

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (np.eye(2, dtype=np.float32), "float64 with up to three dimensions was expected, got format 'f', 2"),
            (np.eye(2, dtype=int), "float64 .* got format 'l', 2"),
            (np.zeros((2, 2, 2, 2)), "float64 .* got format 'd', 4"),
        ],
    )
    def test_wrong_kind(self, rows, message):
        with pytest.raises(TypeError, match=message):
            compiled.kernels.products(rows, np.zeros((2, 2)))

    def test_wrong_precision(self):
        single = np.zeros((1, 3), dtype=np.float32)
        with pytest.raises(TypeError, match="float32 .* got format 'd', 2"):
            compiled.kernels.line_widths(single.astype(float), *[single] * 18)
        with pytest.raises(ValueError, match="not C-contiguous"):
            compiled.kernels.line_widths(single, single[:, ::2], *[single] * 17)

    def test_not_contiguous(self):
        with pytest.raises(ValueError, match="not C-contiguous"):
            compiled.kernels.products(np.eye(4)[:, ::2], np.zeros((4, 4)))

    def test_read_only(self):
        out = np.zeros((2, 2))
        out.flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            compiled.kernels.products(np.eye(2), out)

    def test_not_an_array(self):
        with pytest.raises(TypeError, match="bytes-like"):
            compiled.kernels.products(3.0, np.zeros((2, 2)))

    def test_numbers(self):
        arguments = [np.zeros(6), np.zeros(6), 0.0, 1.0, 0, 0, np.zeros(1)]
        assert compiled.kernels.add_interpolated(*arguments) is True
        for place, wrong in ((2, "x"), (4, 1.5), (4, 2**70)):
            with pytest.raises((TypeError, OverflowError)):
                compiled.kernels.add_interpolated(*arguments[:place], wrong, *arguments[place + 1 :])

    def test_count(self):
        with pytest.raises(TypeError, match="products takes 2 arguments, got 1"):
            compiled.kernels.products(np.eye(2))

    def test_nothing_is_kept(self):
        rows, out = np.eye(2), np.zeros((2, 2))
        before = sys.getrefcount(rows), sys.getrefcount(out)
        for _ in range(10):
            compiled.kernels.products(rows, out)
            with pytest.raises(TypeError):
                compiled.kernels.products(rows, 3.0)
        assert (sys.getrefcount(rows), sys.getrefcount(out)) == before  # a buffer that is still held would be one

    def test_unknown_processor(self):
        with pytest.raises(ValueError, match="no kernels 'z80'"):
            compiled.kernels.select_target("z80")

    def test_name_of_another_kind(self):
        with pytest.raises(TypeError, match=r"name must be one of those in targets\(\), got 3"):
            compiled.kernels.select_target(3)


@pytest.mark.parametrize("function", [compiled.optical_depth, compiled.product_transmission, multilevel.optical_depth])
class TestColumns:
    """Lines whose columns have different lengths: numpy would stretch them, a kernel read beyond them."""

    def test_lengths(self, function):
        one = np.array([0.1])
        with pytest.raises(ValueError, match=r"one length, got \(3,\), \(1,\), \(1,\), \(1,\)"):
            function(np.linspace(10.0, 20.0, 1000), np.array([12.0, 15.0, 17.0]), one, one, one, 1e-6)

    def test_lists(self, function):
        wave = np.linspace(10.0, 20.0, 1000)
        columns = [[15.0, 12.0], [0.1, 0.2], [0.1, 0.1], [0.1, 0.3]]
        np.testing.assert_array_equal(function(wave, *columns, 1e-6),
                                      function(wave, *(np.array(c) for c in columns), 1e-6))  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_clones_and_fits():
    """Threads of the parent, torch's among them, are not there: a child must not wait for them."""
    code = """
import multiprocessing, warnings
import astropy.units as u
from specutils_blase import clone_spectrum, fit_spectrum
from specutils_blase.simulation import simulate_order, simulate_star
star = simulate_star(1, lower=10490 * u.AA, upper=10530 * u.AA, n_lines=300)
template = clone_spectrum(star.spectrum, teff=4700 * u.K)
order = simulate_order(star.model, None, seed=1, lower=10498 * u.AA, upper=10522 * u.AA, n_pix=300).spectrum
fit_spectrum(order, template, lsf=55_000)
def child():
    clone_spectrum(star.spectrum, teff=4700 * u.K)
    fit_spectrum(order, template, lsf=55_000)
process = multiprocessing.get_context("fork").Process(target=child)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads
    process.start()
process.join(100)
print("alive" if process.is_alive() else process.exitcode)
process.kill()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert run.stdout.strip() == "0", run.stdout + run.stderr
