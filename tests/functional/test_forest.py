import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import voigt_profile

from specutils_blase.functional import (
    half_width,
    line_pixel_pairs,
    optical_depth,
    product_transmission,
    transmission,
)

positive = st.floats(-4.0, 1.0).map(lambda x: 10.0**x)
tolerances = st.floats(-9.0, -3.0).map(lambda x: 10.0**x)


def tensor(values):
    return torch.as_tensor(values, dtype=torch.float64)


def draw_lines(seed, n_lines=12):
    rng = np.random.default_rng(seed)
    return {
        "center": rng.uniform(4995.0, 5015.0, n_lines),
        "strength": 10.0 ** rng.uniform(-4.0, 0.5, n_lines),
        "sigma": 10.0 ** rng.uniform(-2.0, -0.5, n_lines),
        "gamma": 10.0 ** rng.uniform(-5.0, -0.5, n_lines),
        "sign": rng.choice([-1.0, 1.0], n_lines),
    }


def arguments(lines, wave, tolerance):
    center, strength, sigma, gamma, sign = (tensor(lines[k]) for k in ("center", "strength", "sigma", "gamma", "sign"))
    return {
        "center": center,
        "log_strength": strength.log(),
        "log_sigma": sigma.log(),
        "log_gamma": gamma.log(),
        "sign": sign,
        "pairs": line_pixel_pairs(wave, center, half_width(strength, sigma, gamma, tolerance)),
    }


def dense_depths(lines, wave):
    """Every line at every pixel, with scipy; shape (n_lines, n_pix)."""
    delta = wave[None] - lines["center"][:, None]
    profile = voigt_profile(delta, lines["sigma"][:, None], lines["gamma"][:, None])
    return (lines["sign"] * lines["strength"])[:, None] * profile


class TestHalfWidth:
    @settings(max_examples=300, deadline=None)
    @given(strength=positive, sigma=positive, gamma=positive, tolerance=tolerances)
    def test_optical_depth_is_below_the_tolerance_outside(self, strength, sigma, gamma, tolerance):
        width = half_width(tensor(strength), tensor(sigma), tensor(gamma), tolerance).item()
        assert strength * voigt_profile(width, sigma, gamma) <= tolerance * (1.0 + 1e-9)

    def test_not_wider_than_needed_in_the_pure_cases(self):
        gauss = half_width(tensor(0.1), tensor(0.05), tensor(1e-15), 1e-6).item()
        assert 0.1 * voigt_profile(gauss, 0.05, 0.0) == pytest.approx(1e-6, rel=1e-2)
        lorentz = half_width(tensor(0.1), tensor(1e-9), tensor(0.05), 1e-6).item()
        assert 0.1 * voigt_profile(lorentz, 0.0, 0.05) == pytest.approx(1e-6, rel=1e-2)

    def test_carries_no_gradient(self):
        strength = tensor([0.1]).requires_grad_()
        assert not half_width(strength, tensor([0.1]), tensor([0.1]), 1e-6).requires_grad


class TestPairs:
    @settings(max_examples=200, deadline=None)
    @given(
        wave=st.lists(st.floats(0.0, 10.0), min_size=0, max_size=20, unique=True),
        lines=st.lists(st.tuples(st.floats(-5.0, 15.0), st.floats(0.0, 8.0)), min_size=0, max_size=8),
    )
    def test_same_as_a_double_loop(self, wave, lines):
        wave = sorted(wave)
        expected = [(j, i) for j, (c, h) in enumerate(lines) for i, w in enumerate(wave) if c - h <= w <= c + h]
        columns = np.array(lines, dtype=float).reshape(-1, 2).T
        line, pixel = line_pixel_pairs(tensor(wave), tensor(columns[0]), tensor(columns[1]))
        assert line.dtype == pixel.dtype == torch.int64
        assert list(zip(line.tolist(), pixel.tolist(), strict=True)) == expected

    def test_both_ends_of_a_window_belong_to_it(self):
        wave = torch.arange(10.0).double()
        _, pixel = line_pixel_pairs(wave, tensor([4.0]), tensor([2.0]))
        assert pixel.tolist() == [2, 3, 4, 5, 6]

    def test_every_other_pixel(self):
        wave = torch.arange(10.0).double()[::2]
        _, pixel = line_pixel_pairs(wave, tensor([4.0]), tensor([2.0]))
        assert pixel.tolist() == [1, 2, 3]


class TestOpticalDepth:
    @settings(max_examples=60, deadline=None)
    @given(seed=st.integers(0, 2**32 - 1), tolerance=tolerances)
    def test_windowed_is_dense_to_the_tolerance(self, seed, tolerance):
        lines, wave = draw_lines(seed), np.linspace(5000.0, 5010.0, 301)
        tau = optical_depth(tensor(wave), **arguments(lines, tensor(wave), tolerance)).numpy()
        dense = dense_depths(lines, wave)
        left_out = (np.abs(dense) < tolerance).sum(axis=0)
        assert (np.abs(tau - dense.sum(axis=0)) <= left_out * tolerance + 1e-9 * np.abs(dense).sum(axis=0)).all()

    def test_every_pixel_where_a_line_matters_is_there(self):
        # One line on its own: wherever the tolerance is exceeded the value is the exact one.
        lines = {"center": [5004.98], "strength": [0.2], "sigma": [0.05], "gamma": [0.01], "sign": [1.0]}
        wave = np.linspace(5000.0, 5010.0, 2001)
        tau = optical_depth(tensor(wave), **arguments(lines, tensor(wave), 1e-4)).numpy()
        exact = 0.2 * voigt_profile(wave - 5004.98, 0.05, 0.01)
        inside = exact >= 1e-4
        np.testing.assert_allclose(tau[inside], exact[inside], rtol=1e-9)
        assert (tau == 0.0).sum() > 0

    def test_transmission_is_the_exponential(self):
        tau = tensor([-1.0, 0.0, 2.0, 800.0])
        np.testing.assert_array_equal(transmission(tau).numpy(), np.exp([1.0, 0.0, -2.0, -800.0]))

    def test_gradcheck_in_every_argument(self):
        lines, wave = draw_lines(7, n_lines=3), np.linspace(5000.0, 5010.0, 9)
        fixed = arguments(lines, tensor(wave), 1e-6)
        names = ("center", "log_strength", "log_sigma", "log_gamma")
        inputs = [tensor(wave).requires_grad_(), *(fixed[name].requires_grad_() for name in names)]

        def depth(wave, *parameters):
            moving = dict(zip(names, parameters, strict=True))
            return optical_depth(wave, **moving, sign=fixed["sign"], pairs=fixed["pairs"])

        assert torch.autograd.gradcheck(depth, inputs, rtol=1e-5)

    def test_no_lines(self):
        wave = tensor([1.0, 2.0])
        lines = {name: [] for name in ("center", "strength", "sigma", "gamma", "sign")}
        assert optical_depth(wave, **arguments(lines, wave, 1e-6)).tolist() == [0.0, 0.0]

    def test_dtype_and_device_follow(self, device):
        wave = torch.linspace(5000.0, 5010.0, 50, dtype=torch.float64, device=device)
        fixed = arguments(draw_lines(1), wave.cpu(), 1e-6)
        moved = {k: v.to(device) for k, v in fixed.items() if k != "pairs"}
        tau = optical_depth(wave, **moved, pairs=tuple(index.to(device) for index in fixed["pairs"]))
        assert tau.dtype == torch.float64
        assert tau.device.type == device.type


class TestProduct:
    def test_product_of_one_minus_the_depths(self):
        lines, wave = draw_lines(3), np.linspace(5000.0, 5010.0, 301)
        lines["strength"] *= 0.05 * lines["sigma"]
        result = product_transmission(tensor(wave), **arguments(lines, tensor(wave), 1e-12)).numpy()
        dense = dense_depths(lines, wave)
        assert dense.max() < 1.0
        np.testing.assert_allclose(result, np.prod(1.0 - dense, axis=0), rtol=1e-9)

    def test_negative_factors_are_cut_at_zero_without_nan(self):
        lines = {"center": [5.0, 5.1], "strength": [3.0, 0.1], "sigma": [0.1, 0.2], "gamma": [0.01, 0.01]}
        lines["sign"] = [1.0, 1.0]
        wave = tensor([4.0, 5.0, 6.0])
        given_lines = arguments(lines, wave, 1e-9)
        strength = given_lines.pop("log_strength").requires_grad_()
        result = product_transmission(wave, log_strength=strength, **given_lines)
        assert result[1].item() == pytest.approx(0.0, abs=1e-15)
        assert (result >= 0.0).all()
        result.sum().backward()
        assert torch.isfinite(strength.grad).all()

    def test_weak_lines_agree_with_the_opacity_form_to_second_order(self):
        lines, wave = draw_lines(4), np.linspace(5000.0, 5010.0, 101)
        lines["strength"] *= 1e-4 * lines["sigma"]
        given_lines = arguments(lines, tensor(wave), 1e-14)
        opacity = transmission(optical_depth(tensor(wave), **given_lines)).numpy()
        product = product_transmission(tensor(wave), **given_lines).numpy()
        bound = (dense_depths(lines, wave) ** 2).sum(axis=0)
        assert (np.abs(opacity - product) <= bound + 1e-12).all()
