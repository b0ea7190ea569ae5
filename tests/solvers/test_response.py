"""The response matrix against dense matrices and quadrature."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import erf

from specutils_blase.functional import pixel_response
from specutils_blase.instrument import BandedLSF
from specutils_blase.solvers.response import (
    Response,
    banded_response,
    build_response,
    hermite_slopes,
    hermite_terms,
    measured_response,
    with_hermite,
)
from specutils_blase.solvers.scene import uniform_grid

pytestmark = pytest.mark.usefixtures("every_target")

C = 299792.458
STEP = 0.25
N_PIX = 70
EDGES = np.stack([10600.0 + 0.06 * np.arange(N_PIX), 10600.06 + 0.06 * np.arange(N_PIX)], axis=1)
GRID = uniform_grid(10600 * (1 - 100 / C), 10604.2 * (1 + 100 / C), STEP)


def dense(response, n_grid):
    """A `Response` as a full matrix."""
    full = np.zeros((response.start.size, n_grid))
    for p, first in enumerate(response.start):
        values = response.values[response.pointer[p] : response.pointer[p + 1]]
        full[p, first : first + values.size] = values
    return full


@pytest.mark.parametrize("width", [None, 0.09])
def test_response_is_its_dense_matrix(width):
    flux = np.random.default_rng(3).uniform(0.5, 1.5, GRID.size)
    sigma = None if width is None else np.linspace(width, 1.3 * width, N_PIX)
    response = build_response(GRID, EDGES, sigma)
    full = dense(response, GRID.size)
    np.testing.assert_allclose(response @ flux, full @ flux, rtol=1e-13)
    np.testing.assert_allclose(full.sum(axis=1), 1.0, rtol=1e-8)
    np.testing.assert_array_equal(response.stop, [np.flatnonzero(row)[-1] + 1 for row in full])
    if width is not None:
        low, high = ((EDGES[:, k, None] - GRID) / (np.sqrt(2) * sigma[:, None]) for k in (0, 1))
        share = 0.5 * (erf(high) - erf(low)) * (GRID * STEP / C) / np.diff(EDGES, axis=1)
        np.testing.assert_allclose(full, share, atol=1e-9)


def gauss_hermite(w, h3, h4):
    """The profile as van der Marel & Franx (1993) print it, not divided by its integral."""
    third = (2 * np.sqrt(2) * w**3 - 3 * np.sqrt(2) * w) / np.sqrt(6)
    fourth = (4 * w**4 - 12 * w**2 + 3) / np.sqrt(24)
    return np.exp(-0.5 * w**2) / np.sqrt(2 * np.pi) * (1 + h3 * third + h4 * fourth)


@pytest.mark.parametrize(("h3", "h4"), [(0.1, 0.0), (0.0, -0.2), (-0.3, 0.3)])
def test_gauss_hermite_response_is_that_of_quadrature(h3, h4):
    sigma = np.linspace(0.09, 0.12, N_PIX)
    shape = np.broadcast_to([h3, h4], (N_PIX, 2))
    gaussian = build_response(GRID, EDGES, sigma)
    full = dense(with_hermite(gaussian, hermite_terms(GRID, EDGES, sigma), shape), GRID.size)
    np.testing.assert_allclose(full.sum(axis=1), 1.0, rtol=1e-7)
    area = quad(gauss_hermite, -12, 12, (h3, h4), epsabs=1e-13)[0]
    assert area == pytest.approx(1 + np.sqrt(6) / 4 * h4, abs=1e-12)  # h4 changes it, h3 does not
    for p in (0, 33, 69):
        for i in np.flatnonzero(np.abs(GRID - EDGES[p, 0]) < 4 * sigma[p])[::5]:
            # light of grid point i is found at x: positive h3 is a tail to longer wavelengths
            ends = (EDGES[p] - GRID[i]) / sigma[p]
            expected = quad(gauss_hermite, *ends, (h3, h4))[0] / area * GRID[i] * STEP / C / np.diff(EDGES[p])[0]
            assert full[p, i] == pytest.approx(expected, abs=2e-8), (p, i)


def test_positive_h3_is_a_tail_to_longer_wavelengths():
    sigma = np.full(N_PIX, 0.1)
    gaussian, terms = build_response(GRID, EDGES, sigma), hermite_terms(GRID, EDGES, sigma)
    flux = np.exp(-0.5 * ((GRID - 10602.0) / 0.01) ** 2)
    seen = with_hermite(gaussian, terms, np.array([0.1, 0.0])) @ flux
    middle = EDGES.mean(axis=1)
    offset = middle - 10602.0
    assert (seen * offset**3).sum() > 0
    # the mean of the profile lies at sqrt(3) h3 / (1 + sqrt(6) / 4 h4) standard deviations
    assert (seen * offset).sum() / seen.sum() == pytest.approx(np.sqrt(3) * 0.1 * 0.1, abs=2e-4)
    assert seen[offset > 0.25].sum() > 0 > seen[offset < -0.25].sum()


def test_derivatives_by_h3_and_h4():
    sigma, shape, step = np.full(N_PIX, 0.1), np.array([0.1, -0.2]), 1e-6
    gaussian, terms = build_response(GRID, EDGES, sigma), hermite_terms(GRID, EDGES, sigma)
    for k, slope in enumerate(hermite_slopes(gaussian, terms, shape)):
        change = step * np.eye(2)[k]
        up, down = (with_hermite(gaussian, terms, shape + s * change).values for s in (1, -1))
        np.testing.assert_allclose(slope.values, (up - down) / (2 * step), atol=1e-9)


def test_measured_response_is_that_of_quadrature():
    # asymmetric, coarse, with a negative sample, and not zero at its ends; another one for a part of the pixels
    velocity, profile = np.array([-6.0, -2.5, -1.0, 0.5, 3.0, 7.0]), np.array([0.1, -0.05, 1.0, 1.2, 0.4, 0.2])
    profile = profile / np.trapezoid(profile, velocity)
    other = np.array([-3.0, 1.0, 4.0]), np.array([0.0, 2.0 / 7.0, 0.0])
    part = np.arange(N_PIX) % 2
    full = dense(measured_response(GRID, EDGES, part, [(velocity, profile), other]), GRID.size)
    np.testing.assert_allclose(full.sum(axis=1), 1.0, rtol=1e-12)
    for p in (0, 33, 34, 69):
        unit = EDGES[p].mean() / C
        v, density = ((velocity, profile), other)[part[p]]
        expected = np.zeros(GRID.size)
        for i in np.flatnonzero(np.abs(GRID - EDGES[p, 0]) < 0.4):
            ends = (EDGES[p] - GRID[i]) / unit
            inside = v[(v > ends[0]) & (v < ends[1])]
            share = quad(np.interp, *ends, (v, density, 0.0, 0.0), points=inside, limit=200)[0]
            expected[i] = share * GRID[i] * STEP / C / np.diff(EDGES[p])[0]
        assert expected.sum() == pytest.approx(1.0, abs=2e-3)
        np.testing.assert_allclose(full[p], expected / expected.sum(), atol=1e-9)


def test_measured_gaussian_is_the_gaussian():
    resolving_power = 50_000.0
    width = C / resolving_power / 2.3548200450309493
    velocity = np.linspace(-6.5 * width, 6.5 * width, 8001)
    profile = np.exp(-0.5 * (velocity / width) ** 2) / (width * np.sqrt(2 * np.pi))
    response = measured_response(GRID, EDGES, np.zeros(N_PIX, dtype=int), [(velocity, profile)])
    gaussian = build_response(GRID, EDGES, EDGES.mean(axis=1) * width / C)
    np.testing.assert_allclose(dense(response, GRID.size), dense(gaussian, GRID.size), atol=1e-7)
    flux = 1.0 - 0.9 * np.exp(-0.5 * ((GRID - 10602.0) / 0.04) ** 2)
    np.testing.assert_allclose(response @ flux, gaussian @ flux, atol=1e-6)


@pytest.mark.parametrize("kind", ["hermite", "measured"])
def test_other_profiles_beyond_the_grid_carry_its_end(kind):
    grid = GRID[394:-394]  # 1.5 km/s beyond the pixels
    sigma = np.full(N_PIX, 0.1)

    def response(grid):
        if kind == "hermite":
            return with_hermite(build_response(grid, EDGES, sigma), hermite_terms(grid, EDGES, sigma), (0.1, 0.1))
        profile = np.linspace(-9, 9, 19), np.hanning(19) / 9
        return measured_response(grid, EDGES, np.zeros(N_PIX, dtype=int), [profile])

    assert grid[0] < EDGES[0, 0] < EDGES[-1, 1] < grid[-1]
    flux = 1 + 0.3 * np.sin(grid * 9)
    np.testing.assert_allclose(response(grid) @ flux, response(GRID) @ np.pad(flux, 394, mode="edge"), atol=1e-9)
    np.testing.assert_allclose(response(grid) @ np.ones(grid.size), 1.0, rtol=1e-7)


@pytest.mark.parametrize("margin", [100.0, 1.0])  # with the second the response leaves the grid
def test_gaussian_response_is_that_of_the_torch_reference(margin):
    grid = uniform_grid(10600 * (1 - margin / C), 10604.2 * (1 + margin / C), STEP)
    sigma = np.linspace(0.09, 0.12, N_PIX)
    rows, cols, values = pixel_response(*map(torch.from_numpy, (grid, EDGES, sigma)))
    expected = np.zeros((N_PIX, grid.size))
    np.add.at(expected, (rows.numpy(), cols.numpy()), values.numpy())
    np.testing.assert_allclose(dense(build_response(grid, EDGES, sigma), grid.size), expected, atol=1e-13)


def test_rows_without_elements_are_zero():
    response = Response.from_triplets(np.array([0, 2]), np.array([1, 4]), np.array([2.0, 3.0]), 4)
    np.testing.assert_allclose(response @ np.array([1.0, 10.0, 100.0, 1e3, 1e4]), [20.0, 0.0, 3e4, 0.0])
    np.testing.assert_allclose(response.adjoint(np.ones(4), 5), [0.0, 2.0, 0.0, 0.0, 3.0])


def test_response_fills_holes():
    response = Response.from_triplets(np.array([0, 0, 1]), np.array([1, 4, 2]), np.array([2.0, 3.0, 5.0]), 2)
    np.testing.assert_allclose(response @ np.array([1.0, 10.0, 100.0, 1e3, 1e4, 1e5]), [30020.0, 500.0])


@pytest.mark.parametrize("used", [slice(0, N_PIX), slice(9, 50)])
def test_banded_response_is_the_matrix_times_pixel_means(used):
    rng = np.random.default_rng(5)
    lsf = BandedLSF(rng.uniform(0.05, 1.0, (7, N_PIX)))
    matrix = np.zeros((N_PIX, N_PIX))
    for offset, band in zip(lsf.offsets, lsf.bands, strict=True):
        for j in range(N_PIX):
            if 0 <= j - offset < N_PIX:
                matrix[j - offset, j] = band[j]
    flux = 1 + 0.3 * np.sin(GRID * 9) + 0.1 * rng.standard_normal(GRID.size)
    fine = np.linspace(EDGES[:, 0], EDGES[:, 1], 20_001, axis=1)
    means = np.trapezoid(np.interp(fine, GRID, flux), fine, axis=1) / np.diff(EDGES, axis=1)[:, 0]
    response = banded_response(GRID, EDGES, lsf.triplets(), used)
    np.testing.assert_allclose(response @ flux, (matrix @ means)[used], rtol=1e-6)


@pytest.mark.parametrize("width", [None, 0.09])
def test_adjoint_of_the_response(width):
    rng = np.random.default_rng(4)
    response = build_response(GRID, EDGES, None if width is None else np.full(N_PIX, width))
    flux, pixels = rng.standard_normal(GRID.size), rng.standard_normal(N_PIX)
    back = response.adjoint(pixels, GRID.size)
    assert back @ flux == pytest.approx(pixels @ (response @ flux), rel=1e-12, abs=1e-12)
