"""Widths of lines that are known from noisy measurements, against scipy and sums over fine grids."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats
from scipy.special import erfcx, log_ndtr

from specutils_blase.functional import widths

# m, g, e, d and ln of the noise factor.
SHAPES = ((1.0, 0.5, 0.0, 1.0, 0.1), (0.0, 0.3, -0.5, 1.3, 0.0), (1.0, 1.2, 0.3, 0.8, -0.3), (2.0, 1.0, 0.8, 0.7, 0.1),
          (1.0, 0.05, 0.0, 1.0, 0.0))  # fmt: skip
SIGNAL_TO_NOISE = (1e-3, 0.03, 0.1, 0.3, 0.7, 1.0, 1.5, 3.0, 10.0, 100.0, 1e3, 1e5)


def width_at(shape, z):
    m, g, e, d, _ = shape
    return np.exp(m + g * (np.sinh(d * (np.arcsinh(z) + e)) - np.sinh(d * e)) / (d * np.cosh(d * e)))


def z_of(shape, width):
    m, g, e, d, _ = shape
    inner = (np.log(width) - m) * d * np.cosh(d * e) / g + np.sinh(d * e)
    return np.sinh(np.arcsinh(inner) / d - e)


# Means of unit normal distributions before the cut at zero, and after: scipy's truncnorm is exact to 1e-8 from -20 on.
BEFORE = np.concatenate([-np.geomspace(20.0, 1e-3, 4000), np.linspace(0.0, 8.0, 2000)])
AFTER = BEFORE + np.sqrt(2.0 / np.pi) / erfcx(-BEFORE / np.sqrt(2.0))


def before_cut(mean):
    """And beyond them, what an exponential distribution of this mean would be: to 6 mean**4."""
    inside = np.interp(mean, AFTER, BEFORE)
    return np.where(mean > AFTER[-1], mean, np.where(mean < AFTER[0], 2 * mean - 1 / mean, inside))


def log_density(measured, true, noise):
    start, x = before_cut(true / noise), measured / noise
    tail = x * (start - x / 2) - np.log(erfcx(-np.minimum(start, 0.0) / np.sqrt(2.0)) / 2.0)
    return np.where(start < 0, tail, -0.5 * (x - start) ** 2 - log_ndtr(start)) - np.log(noise * np.sqrt(2 * np.pi))


def share_above(measured, true, noise):
    start, x = before_cut(true / noise), measured / noise
    low = np.minimum(start, 0.0)
    tail = np.exp(x * (low - x / 2)) * erfcx((x - low) / np.sqrt(2.0)) / erfcx(-low / np.sqrt(2.0))
    return np.where(start < 0, tail, np.exp(log_ndtr(start - x) - log_ndtr(start)))


def brute_force(shape, measured, noise):
    """-ln of the density of a measured width, and the share of smaller ones: sums over 16,000 true widths."""
    noise = noise * np.exp(shape[4])
    near = measured + noise * np.linspace(-12.0, 12.0, 8_001)
    z = np.sort(np.concatenate([np.linspace(-9.0, 9.0, 8_001), z_of(shape, near[near > 0])]))
    z = z[np.abs(z) < 10]
    true = width_at(shape, z)
    logs = log_density(measured, true, noise) + stats.norm.logpdf(z)
    density = np.log(np.trapezoid(np.exp(logs - logs.max()), z)) + logs.max()
    return -density, np.trapezoid((1.0 - share_above(measured, true, noise)) * stats.norm.pdf(z), z)


def cases(shape, dtype=torch.float64):
    """Measurements at all signal-to-noise ratios: parameters, widths, noise of one line."""
    measured, noise = [], []
    for ratio in SIGNAL_TO_NOISE:
        for z, part in ((-2.0, 0.9), (-0.7, 0.1), (0.0, 0.5), (1.0, 0.02), (2.5, 0.7)):
            true, sigma = width_at(shape, z), width_at(shape, 0.0) / ratio
            start = before_cut(true / sigma)
            deep = -np.log(part) * true
            drawn = sigma * (start - stats.norm.ppf(part * stats.norm.cdf(start)))
            measured.append(deep if start < -8 else drawn)
            noise.append(sigma)
    parameters = torch.tensor(shape, dtype=dtype).expand(len(noise), 1, 5).clone()
    return parameters, *(torch.tensor(values, dtype=dtype)[:, None] for values in (measured, noise))


@given(z=st.floats(-6, 6), m=st.floats(-5, 5), g=st.floats(0.05, 3), e=st.floats(-1.5, 1.5), d=st.floats(0.4, 2.4))
def test_score_is_the_inverse_of_log_width(z, m, g, e, d):
    shape = torch.tensor([m, g, e, d, 0.0], dtype=torch.float64)
    ln_width = widths.log_width(shape, z)
    assert ln_width.item() == pytest.approx(np.log(width_at(shape.numpy(), z)), rel=1e-9, abs=1e-9)
    back, log_slope = widths.score(shape, ln_width[None])
    assert back.item() == pytest.approx(z, abs=1e-6)
    step = 1e-5
    slope = (widths.log_width(shape, z + step) - widths.log_width(shape, z - step)) / (2 * step)
    assert log_slope.item() == pytest.approx(-np.log(slope.item()), abs=1e-5)


def test_z_is_standard_normal():
    """Without skewness and with tails of one the width is log-normal, by scipy."""
    z = torch.linspace(-4.0, 4.0, 17, dtype=torch.float64)
    shape = torch.tensor([0.7, 0.4, 0.0, 1.0, 0.0], dtype=torch.float64)
    expected = stats.lognorm.ppf(stats.norm.cdf(z), s=0.4, scale=np.exp(0.7))
    np.testing.assert_allclose(torch.exp(widths.log_width(shape, z)), expected, rtol=1e-9)


@pytest.mark.parametrize("mean", [0.06, 0.2, 0.5, 0.8, 1.0, 2.0, 5.0, 9.0, 30.0])
def test_mean_after_the_cut_is_the_true_width(mean):
    start = widths._cut(torch.tensor(mean, dtype=torch.float64))[0].item()
    assert stats.truncnorm.mean(-start, np.inf, loc=start) == pytest.approx(mean, rel=1e-5)
    exact = optimize.brentq(lambda x: stats.truncnorm.mean(-x, np.inf, loc=x) - mean, -20.0, 40.0)
    assert start == pytest.approx(exact, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("mean", [1e-4, 1e-3, 0.0199, 0.0201])
def test_mean_far_below_the_noise(mean):
    x = 1.0 / mean * np.linspace(0.0, 60 * mean**2, 200_001)[1:]  # sixty times the mean
    start = widths._cut(torch.tensor(mean, dtype=torch.float64))[0].item()
    density = np.exp(x * (start - x / 2))
    assert np.trapezoid(x * density, x) / np.trapezoid(density, x) == pytest.approx(mean, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_likelihood_and_probability_are_the_integrals(shape, dtype):
    parameters, measured, noise = cases(shape, dtype)
    density = widths.negative_log_likelihood(parameters, measured, noise)[:, 0]
    share = widths.measured_probability(parameters, measured, noise)[:, 0]
    for k in range(len(noise)):
        exact = brute_force(shape, measured[k].double().item(), noise[k].double().item())
        place = f"width / noise = {measured[k].item() / noise[k].item():g}"
        assert density[k].item() == pytest.approx(exact[0], abs=0.04, rel=0.01), place
        assert share[k].item() == pytest.approx(exact[1], abs=0.006), place


def test_a_width_far_out_is_as_unlikely_as_it_is():
    """Wide distributions and widths far above the median: few nodes of the one lie within the noise of the other."""
    for shape, z in (((1.0, 1.5, 0.3, 0.8, 0.0), 3.0), ((1.0, 3.0, 0.0, 1.0, 0.0), 2.5)):
        for ratio in (0.1, 0.5, 1.0):
            parameters = torch.tensor(shape, dtype=torch.float64)[None, None]
            measured, noise = width_at(shape, z), width_at(shape, 0.0) / ratio
            ours = widths.negative_log_likelihood(parameters, *(torch.tensor([[x]]) for x in (measured, noise)))
            assert ours.item() == pytest.approx(brute_force(shape, measured, noise)[0], abs=0.05)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_the_integrals(shape):
    parameters, measured, noise = cases(shape)
    parameters.requires_grad_(True)
    functions = widths.negative_log_likelihood, widths.measured_probability
    ours = [torch.autograd.grad(f(parameters, measured, noise).sum(), parameters)[0][:, 0] for f in functions]
    for k in range(0, len(noise), 2):
        for j, shift in enumerate(1e-3 * np.eye(5)):
            up, down = (brute_force(np.array(shape) + s, measured[k].item(), noise[k].item()) for s in (shift, -shift))
            for mine, a, b in zip(ours, up, down, strict=True):
                assert mine[k, j].item() == pytest.approx((a - b) / 2e-3, rel=0.12, abs=0.09), (k, j)


@pytest.mark.parametrize("shape", [*SHAPES, (1.0, 3.0, 0.0, 1.0, 0.25), (-10.0, 0.02, 1.5, 2.4, -1.5),
                                   (8.0, 3.3, -1.5, 0.4, 0.25)])  # fmt: skip
def test_gradients_are_finite_in_single_precision(shape):
    parameters, measured, noise = (torch.tensor(x, dtype=torch.float32) for x in (shape, 1.0, 1.0))
    ratio = torch.logspace(-5, 6, 60)
    measured = torch.logspace(-6, 6, 49)[:, None, None] * ratio * noise
    parameters = parameters.expand(*measured.shape, 5).clone().requires_grad_(True)
    for function in (widths.negative_log_likelihood, widths.measured_probability):
        values = function(parameters, measured, (measured / ratio).contiguous())
        (gradient,) = torch.autograd.grad(values.sum(), parameters)
        assert torch.isfinite(values).all() and torch.isfinite(gradient).all()


@pytest.mark.parametrize("ratio", [1e-3, 0.03, 0.12, 0.3, 1.0, 3.0, 50.0, 1e4])
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_draws_have_uniform_probabilities(shape, ratio):
    generator = torch.Generator().manual_seed(round(1e3 * ratio))
    n = 20_000
    parameters = torch.tensor(shape, dtype=torch.float32).expand(n, 1, 5)
    noise = torch.full((n, 1), float(width_at(shape, 0.0) / ratio))
    true = torch.exp(widths.log_width(parameters, torch.randn(n, 1, generator=generator)))
    measured = widths.measured_draws(true, noise * np.exp(shape[4]), torch.rand(n, 1, generator=generator).clamp(1e-7))
    assert (measured > 0).all()
    share = widths.measured_probability(parameters, measured, noise)[:, 0]
    assert stats.kstest(share.double().numpy(), "uniform").pvalue > 1e-4


@pytest.mark.parametrize("ratio", [0.01, 0.04, 0.06, 0.2, 1.0, 5.0])
def test_draws_have_the_true_mean(ratio):
    uniform = (torch.arange(100_000) + 0.5) / 100_000
    drawn = widths.measured_draws(torch.full_like(uniform, ratio), torch.ones_like(uniform), uniform)
    assert drawn.mean().item() == pytest.approx(ratio, rel=2e-3)
    if ratio > 0.03:
        start = before_cut(np.array(ratio))
        assert stats.kstest(drawn.double().numpy(), stats.truncnorm(-start, np.inf, loc=start).cdf).statistic < 0.003
