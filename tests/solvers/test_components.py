"""Components of spectra, against those that the spectra were made of and against numpy's singular values."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d, uniform_filter1d

from specutils_blase.solvers.components import fit_components, sharpened

N, N_TABLE, K = 600, 300, 3


def population(seed=0, noise=(0.05, 0.5), missing=True):
    """Noiseless spectra, noisy ones and inverse variances; each shows a window of 60 to 100 % and has bad pixels."""
    random = np.random.default_rng(seed)
    x = np.linspace(0, 1, N_TABLE)
    mean = 1.0 + 0.4 * np.cos(3 * x) - 0.3 * np.exp(-0.5 * ((x - 0.4) / 0.01) ** 2)
    shapes = [0.3 * (x - 0.5), 0.4 * np.exp(-0.5 * ((x - 0.7) / 0.01) ** 2), 0.1 * np.sin(20 * x)]
    true = mean / mean.mean() + random.standard_normal((N, K)) @ np.array(shapes)
    sigma = np.exp(random.uniform(*np.log(noise), (N, 1))) * (1 + 4 * (random.random((N, N_TABLE)) < 0.1))
    seen = np.ones((N, N_TABLE), dtype=bool)
    if missing:
        length = random.uniform(0.6, 1.0, N)
        start = random.uniform(-0.1, 1.1, N) * (1 - length)
        seen = (x > start[:, None]) & (x < (start + length)[:, None]) & (random.random((N, N_TABLE)) > 0.03)
    flux = np.where(seen, true + sigma * random.standard_normal(true.shape), 0.0)
    return true, torch.tensor(flux), torch.tensor(np.where(seen, sigma**-2.0, 0.0))


def left_over(true, components):
    """Root mean square of the noiseless spectra that components cannot make."""
    basis = np.linalg.qr(np.asarray(components).T)[0]
    return (true - true @ basis @ basis.T).std()


def test_better_than_singular_values():
    true, flux, ivar = population()
    filled = np.where(ivar > 0, flux, np.nan)
    mean = np.nanmean(filled, axis=0)
    plain = np.linalg.svd(np.where(np.isnan(filled), 0.0, filled - mean), full_matrices=False)[2][:K]
    found = fit_components(flux.clone(), ivar.clone(), K, seed=0)
    assert found.shape == (1 + K, N_TABLE)
    assert float(found[0].mean()) == pytest.approx(1.0)
    error = left_over(true, found)
    assert error < 0.4 * left_over(true, np.vstack([mean, plain]))
    assert error < 0.02


def test_components_carry_the_variance_of_the_population():
    true, flux, ivar = population(noise=(0.01, 0.02), missing=False)
    found = fit_components(flux, ivar, K, seed=0).numpy()
    covariance = np.cov((true / true.mean(axis=1, keepdims=True)).T)
    values, vectors = np.linalg.eigh(covariance)
    # Coefficients have unit variance: the sum of the outer products is the covariance, the strongest comes first.
    np.testing.assert_allclose(found[1:].T @ found[1:], covariance, atol=0.1 * np.abs(covariance).max())
    norms = np.linalg.norm(found[1:], axis=1)
    assert (np.diff(norms) <= 0).all()
    assert norms[0] ** 2 == pytest.approx(values[-1], rel=0.15)


def test_one_spectrum_may_be_brighter_than_another():
    true, flux, ivar = population(noise=(0.02, 0.1))
    scale = torch.tensor(np.random.default_rng(5).uniform(0.7, 1.5, (N, 1)))
    plain = fit_components(flux.clone(), ivar.clone(), K, seed=0)
    scaled = fit_components(flux * scale, ivar / scale**2, K, seed=0)
    assert left_over(true, scaled) < 1.2 * left_over(true, plain) < 0.01
    assert np.linalg.norm(scaled[1:], axis=1) == pytest.approx(np.linalg.norm(plain[1:], axis=1), rel=0.2)


def test_the_unit_of_the_flux_does_not_matter():
    _, flux, ivar = population()
    plain = fit_components(flux.clone(), ivar.clone(), K, seed=0)
    for factor in (0.1, 30.0):
        scaled = fit_components(flux * factor, ivar / factor**2, K, seed=0)
        np.testing.assert_allclose(scaled[0], plain[0], atol=0.01)
        # Signs are arbitrary.
        np.testing.assert_allclose(scaled[1:].T @ scaled[1:], plain[1:].T @ plain[1:], atol=1e-3)


def test_seed_and_progress():
    _, flux, ivar = population()
    done = []
    first, again = (fit_components(flux.clone(), ivar.clone(), K, seed=3, report=done.append) for _ in range(2))
    assert torch.equal(first, again)
    assert done[-1] == 1.0 and all(np.diff(done[: len(done) // 2]) > 0)


def test_samples_that_no_spectrum_shows_are_finite():
    _, flux, ivar = population()
    ivar[:, :5] = 0.0
    flux[:, :5] = 0.0
    found = fit_components(flux, ivar, K, seed=0)
    assert bool(found.isfinite().all()) and float(found[:, :5].abs().max()) < 10.0


@pytest.mark.parametrize(("sigma", "width"), [(1.4, 0.0), (1.0, 1.5), (2.0, 0.0)])
def test_sharpened_inverts_a_blur(sigma, width):
    x = np.arange(600.0)
    signal = 1.0 + 0.001 * x + np.exp(-0.5 * ((x - 200) / 3.5) ** 2) - 0.5 * np.exp(-0.5 * ((x - 320) / 4.0) ** 2)
    fine = np.interp(np.arange(6000) / 10.0, x, signal) if width else None
    blurred = gaussian_filter1d(signal, sigma, mode="nearest", truncate=8)
    if width:
        fine = uniform_filter1d(fine, int(10 * width), mode="nearest", origin=0)
        blurred = gaussian_filter1d(np.interp(x, np.arange(6000) / 10.0 + (0.05 if (10 * width) % 2 == 0 else 0), fine),
                                    sigma, mode="nearest", truncate=8)  # fmt: skip
    # A pixel is as wide as a normal distribution of its variance.
    got = sharpened(torch.tensor(blurred)[None], (sigma**2 + width**2 / 12.0) ** 0.5)[0].numpy()
    inside = slice(20, -20)
    assert np.abs(got - signal)[inside].max() < 0.2 * np.abs(blurred - signal)[inside].max()
    # The centre of a line stays where it is.
    line = slice(180, 221)
    centroid = [(x[line] * (some[line] - 1 - 0.001 * x[line])).sum() / (some[line] - 1 - 0.001 * x[line]).sum()
                for some in (signal, got)]  # fmt: skip
    assert centroid[1] == pytest.approx(centroid[0], abs=0.01)


def test_sharpened_leaves_what_no_instrument_blurs():
    components = torch.randn(2, 100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(sharpened(components, 0.0), components, rtol=1e-9, atol=1e-12)
