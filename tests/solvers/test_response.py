"""The response matrix against dense matrices and quadrature."""

import numpy as np
import pytest
import torch
from scipy.special import erf

from specutils_blase.functional import pixel_response
from specutils_blase.instrument import BandedLSF
from specutils_blase.solvers.response import Response, banded_response, build_response
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
