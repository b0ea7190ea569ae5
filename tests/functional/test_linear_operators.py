"""What every linear stage of the forward chain must satisfy, whichever it is."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specutils_blase.functional import (
    SPEED_OF_LIGHT,
    apply,
    kernel_half_size,
    pixel_edges,
    pixel_overlap,
    pixel_response,
    rotation_kernel,
    rotational_broadening,
    velocity_grid,
)

EDGES = pixel_edges(torch.cat([torch.arange(8500.0, 8502.0, 0.07), torch.arange(8503.0, 8505.0, 0.07)]).double())
GRID = velocity_grid(8499.0, 8506.0, 0.5)


def rotation(vsini):
    kernel = rotation_kernel(vsini, 0.6, 0.5, kernel_half_size(vsini, 0.5))
    return lambda flux: rotational_broadening(flux, kernel)


def matrix(rows, cols, values):
    return lambda flux: apply(rows, cols, values, flux, n_pix=len(EDGES))


OPERATORS = {
    "no rotation": rotation(0.0),
    "slow rotation": rotation(2.2),
    "fast rotation": rotation(60.0),
    "overlap": matrix(*pixel_overlap(GRID, EDGES)),
    "response": matrix(*pixel_response(GRID, EDGES, torch.linspace(0.05, 0.08, len(EDGES)).double())),
}
every_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())


def random_flux(seed):
    return torch.as_tensor(np.random.default_rng(seed).normal(size=len(GRID)))


def as_dense(operator):
    return operator(torch.eye(len(GRID), dtype=torch.float64)).T


@every_operator
def test_linear(operator):
    x, y = random_flux(1), random_flux(2)
    torch.testing.assert_close(operator(2.0 * x - 3.0 * y), 2.0 * operator(x) - 3.0 * operator(y), atol=1e-12, rtol=0.0)


@every_operator
def test_adjoint_is_the_transpose(operator):
    dense = as_dense(operator)
    x, y = random_flux(3), random_flux(4)[: len(dense)]
    value, adjoint = torch.autograd.functional.vjp(operator, x, y)
    torch.testing.assert_close(value, dense @ x, atol=1e-12, rtol=0.0)
    torch.testing.assert_close(adjoint, dense.T @ y, atol=1e-12, rtol=0.0)
    assert (value @ y).item() == pytest.approx((x @ adjoint).item(), rel=1e-10)


def inner(a, b):
    return (a * b).sum().item()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.sampled_from([(), (1,), (3,), (2, 2)]),
    n_grid=st.integers(60, 3000),  # the convolution works in blocks of 2048 samples
    size=st.floats(0.01, 1.0),
)
def test_adjoint_of_every_operator_for_any_geometry_and_batch(seed, batch, n_grid, size):
    rng = np.random.default_rng(seed)
    grid = velocity_grid(8500.0, 8500.0 * np.exp(0.5 * (n_grid - 1) / SPEED_OF_LIGHT), 0.5)
    kernel = rotation_kernel(200.0 * size, rng.uniform(), 0.5, kernel_half_size(200.0 * size, 0.5))
    # Pixels of any width and order, which overlap and leave gaps.
    span = torch.as_tensor(np.sort(rng.uniform(size=(7, 2)), axis=1)) * size
    edges = grid[0] + (grid[-1] - grid[0]) * span
    sigma = torch.as_tensor(rng.uniform(0.02, 0.3, size=7))
    x = torch.as_tensor(rng.normal(size=(*batch, len(grid))))
    for operator in (
        lambda flux: rotational_broadening(flux, kernel),
        lambda flux: apply(*pixel_overlap(grid, edges), flux, n_pix=7),
        lambda flux: apply(*pixel_response(grid, edges, sigma), flux, n_pix=7),
    ):
        y = torch.as_tensor(rng.normal(size=operator(x).shape))
        value, adjoint = torch.autograd.functional.vjp(operator, x, y)
        scale = (value.norm() * y.norm()).item()
        assert inner(value, y) == pytest.approx(inner(x, adjoint), abs=1e-12 * scale)


@every_operator
def test_flat_spectrum_stays_flat(operator):
    out = operator(torch.full_like(GRID, 5.0))
    np.testing.assert_allclose(out.numpy(), 5.0, rtol=1e-9)
