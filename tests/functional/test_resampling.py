from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf
from torch.fx.experimental.proxy_tensor import make_fx

from specutils_blase.functional import (
    FWHM_PER_SIGMA,
    SPEED_OF_LIGHT,
    apply,
    pixel_edges,
    pixel_overlap,
    pixel_response,
    velocity_grid,
)


def tensor(values):
    return torch.as_tensor(values, dtype=torch.float64)


def order(n_pix=60, width=0.06, gap=True):
    """Edges of an echelle order with pixels of growing width and a gap in the middle, and a grid around them."""
    centers = 8500.0 + width * np.cumsum(1.0 + 0.2 * np.arange(n_pix) / n_pix)
    if gap:
        centers[n_pix // 2 :] += 1.0
    edges = pixel_edges(tensor(centers))
    return edges, velocity_grid(edges.min().item() - 2.0, edges.max().item() + 2.0, 0.5)


def observe(matrix, flux, edges):
    return apply(*matrix, flux, n_pix=len(edges))


class TestPixelResponse:
    @pytest.mark.parametrize("line_sigma", [0.05, 0.1])
    @pytest.mark.parametrize("resolving_power", [20_000.0, 55_000.0, 120_000.0])
    def test_gaussian_line_in_closed_form(self, resolving_power, line_sigma):
        edges, grid = order()
        a, b = edges.numpy().T
        sigma = 0.5 * (a + b) / (FWHM_PER_SIGMA * resolving_power * np.linspace(0.9, 1.1, len(edges)))
        center = edges[10].mean().item() + 0.013
        flux = 1.0 - 0.7 * torch.exp(-0.5 * ((grid - center) / line_sigma) ** 2)
        out = observe(pixel_response(grid, edges, tensor(sigma)), flux, edges).numpy()
        total = np.sqrt(2.0) * np.hypot(line_sigma, sigma)
        area = 0.7 * line_sigma * np.sqrt(2.0 * np.pi)
        expected = 1.0 - area * 0.5 * (erf((b - center) / total) - erf((a - center) / total)) / (b - a)
        np.testing.assert_allclose(out, expected, atol=1e-9)

    def test_line_inside_the_gap_reaches_the_pixels_beside_it_through_the_wings_only(self):
        edges, grid = order()
        center = 0.5 * (edges[29, 1] + edges[30, 0])
        flux = 1.0 - torch.exp(-0.5 * ((grid - center) / 0.02) ** 2)
        out = observe(pixel_response(grid, edges, tensor([0.06])), flux, edges)
        np.testing.assert_allclose(out.numpy(), 1.0, atol=1e-8)

    # In units of the grid spacing: the documented lower limit, and where the sum is exact to 1e-8.
    @pytest.mark.parametrize(("spacings", "tolerance"), [(0.81, 2e-6), (1.0, 1e-8), (3.0, 1e-9), (20.0, 1e-9)])
    def test_flat_stays_flat(self, spacings, tolerance):
        edges, grid = order()
        sigma = spacings * edges.mean(dim=1) * 0.5 / SPEED_OF_LIGHT
        out = observe(pixel_response(grid, edges, sigma), torch.full_like(grid, 2.0), edges)
        np.testing.assert_allclose(out.numpy(), 2.0, rtol=tolerance)

    def test_spectrum_continues_with_its_end_values(self):
        edges, wide = order(gap=False)
        grid = velocity_grid(edges.min().item(), edges.max().item(), 0.5)
        short = observe(pixel_response(grid, edges, tensor([0.1])), grid - 8500.0, edges)
        extended = wide.clamp(grid[0], grid[-1]) - 8500.0
        # The kink at the end of the grid falls between the points of the other grid.
        np.testing.assert_allclose(
            short.numpy(), observe(pixel_response(wide, edges, tensor([0.1])), extended, edges), atol=1e-3
        )
        flat = observe(pixel_response(grid, edges, tensor([0.1])), torch.ones_like(grid), edges)
        np.testing.assert_allclose(flat.numpy(), 1.0, atol=1e-9)

    def test_narrow_response_approaches_the_overlap(self):
        edges, grid = order()
        flux = 1.0 - 0.5 * torch.exp(-0.5 * ((grid - 8501.0) / 0.3) ** 2)
        spacing = 8500.0 * 0.5 / SPEED_OF_LIGHT
        narrow = observe(pixel_response(grid, edges, tensor([spacing])), flux, edges)
        sharp = observe(pixel_overlap(grid, edges), flux, edges)
        # Blurring changes the flux by sigma^2 / 2 times its curvature of 0.5 / 0.3^2.
        np.testing.assert_allclose(narrow.numpy(), sharp.numpy(), atol=0.6 * spacing**2 * 0.5 / 0.3**2)

    def test_gradcheck_in_sigma(self):
        edges, grid = order(n_pix=4, gap=False)
        flux = torch.sin(grid)
        sigma = tensor([0.05, 0.06, 0.07, 0.08]).requires_grad_()
        assert torch.autograd.gradcheck(lambda s: observe(pixel_response(grid, edges, s), flux, edges), sigma)

    def test_undersampled_response_is_refused(self):
        edges, grid = order()
        with pytest.raises(ValueError, match="sigma must be at least 0.8 grid spacings.*smaller step"):
            pixel_response(grid, edges, tensor([0.5 * 8500.0 * 0.5 / SPEED_OF_LIGHT]))

    @pytest.mark.parametrize("sigma", [float("nan"), -0.1, 9000.0])
    def test_bad_sigma(self, sigma):
        edges, grid = order()
        with pytest.raises(ValueError, match="sigma"):
            pixel_response(grid, edges, tensor([sigma]))


class TestPixelOverlap:
    @settings(max_examples=100, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        cuts=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=8, unique=True),
    )
    def test_exact_integral_of_the_broken_line(self, seed, cuts):
        rng = np.random.default_rng(seed)
        grid = np.cumsum(rng.uniform(0.1, 2.0, size=12))
        flux = rng.normal(size=12)
        cuts = np.minimum(grid[0] + np.sort(cuts) * (grid[-1] - grid[0]), grid[-1])
        cuts = cuts[np.concatenate([[True], np.diff(cuts) > 1e-6])]
        if len(cuts) < 2:
            return
        edges = np.stack([cuts[:-1], cuts[1:]], axis=1)
        out = apply(*pixel_overlap(tensor(grid), tensor(edges)), tensor(flux), n_pix=len(edges)).numpy()
        for (a, b), got in zip(edges, out, strict=True):
            knots = np.concatenate([[a], grid[(grid > a) & (grid < b)], [b]])
            expected = np.trapezoid(np.interp(knots, grid, flux), knots) / (b - a)
            # Rounding of a difference of wavelengths over the width of the pixel.
            assert got == pytest.approx(expected, abs=1e-13 * grid[-1] / (b - a))

    def test_exact_to_rounding_on_a_real_grid(self):
        edges, grid = order()
        flux = np.random.default_rng(7).uniform(0.5, 1.5, size=len(grid))
        out = observe(pixel_overlap(grid, edges), tensor(flux), edges).numpy()
        x, y = grid.numpy().astype(np.longdouble), flux.astype(np.longdouble)
        for (a, b), got in zip(edges.numpy().astype(np.longdouble), out, strict=True):
            knots = np.concatenate([[a], x[(x > a) & (x < b)], [b]])
            left = np.searchsorted(x, knots, side="right") - 1
            at_knots = y[left] + (y[left + 1] - y[left]) * (knots - x[left]) / (x[left + 1] - x[left])
            expected = (np.diff(knots) * (at_knots[1:] + at_knots[:-1])).sum() / 2 / (b - a)
            assert got == pytest.approx(float(expected), rel=4e-15)

    def test_pixels_up_to_the_ends_of_the_grid_and_inside_one_cell(self):
        grid, flux = tensor([1.0, 2.0, 4.0]), tensor([0.0, 1.0, 5.0])
        edges = tensor([[1.0, 4.0], [1.0, 2.0], [2.0, 4.0], [2.5, 3.5], [1.25, 1.5]])
        out = observe(pixel_overlap(grid, edges), flux, edges)
        np.testing.assert_allclose(out.numpy(), [6.5 / 3.0, 0.5, 3.0, 3.0, 0.375], rtol=1e-15)

    def test_no_pixels(self):
        grid, edges = tensor([1.0, 2.0, 4.0]), torch.zeros(0, 2, dtype=torch.float64)
        assert observe(pixel_overlap(grid, edges), grid, edges).shape == (0,)

    def test_touching_pixels_conserve_the_total(self):
        grid = np.linspace(10.0, 20.0, 37)
        flux = np.random.default_rng(3).uniform(size=37)
        cuts = np.linspace(10.0, 20.0, 8)
        edges = np.stack([cuts[:-1], cuts[1:]], axis=1)
        out = apply(*pixel_overlap(tensor(grid), tensor(edges)), tensor(flux), n_pix=7).numpy()
        assert (out * np.diff(cuts)).sum() == pytest.approx(np.trapezoid(flux, grid), rel=1e-13)

    def test_pixels_beside_a_gap_do_not_see_it(self):
        edges, grid = order()
        flux = torch.where((grid > edges[29, 1] + 0.02) & (grid < edges[30, 0] - 0.02), 100.0, 1.0).double()
        out = observe(pixel_overlap(grid, edges), flux, edges)
        np.testing.assert_allclose(out.numpy(), 1.0, rtol=1e-12)

    def test_straight_line_gives_the_value_at_the_centre(self):
        edges, grid = order()
        out = observe(pixel_overlap(grid, edges), grid, edges)
        np.testing.assert_allclose(out.numpy(), edges.mean(dim=1).numpy(), rtol=1e-13)

    def test_weights_are_positive_and_sum_to_one(self):
        edges, grid = order()
        rows, _, values = pixel_overlap(grid, edges)
        assert (values >= 0.0).all()
        sums = torch.zeros(len(edges), dtype=torch.float64).index_add(0, rows, values)
        np.testing.assert_allclose(sums.numpy(), 1.0, rtol=1e-12)


@pytest.mark.parametrize("operator", [pixel_overlap, lambda grid, edges: pixel_response(grid, edges, tensor([0.06]))])
class TestBoth:
    def test_a_line_keeps_its_area_and_its_place(self, operator):
        edges, grid = order(gap=False)
        center, sigma = edges[25].mean() + 0.02, 0.08
        line = torch.exp(-0.5 * ((grid - center) / sigma) ** 2)
        weight = observe(operator(grid, edges), line, edges) * edges.diff().squeeze(1)
        assert weight.sum().item() == pytest.approx(sigma * np.sqrt(2.0 * np.pi), rel=1e-6)
        shift = (weight * (edges.mean(dim=1) - center)).sum() / weight.sum()
        # The growing width of the pixels moves a centre of gravity by this much at most.
        assert abs(shift.item()) < 1e-4

    def test_gradcheck_in_the_edges(self, operator):
        edges, grid = order(n_pix=4, gap=False)
        flux = torch.sin(3.0 * grid)
        edges.requires_grad_()
        assert torch.autograd.gradcheck(lambda e: observe(operator(grid, e), flux, e), edges)

    def test_rows_are_sorted_int64(self, operator):
        edges, grid = order()
        rows, cols, _ = operator(grid, edges)
        assert rows.dtype == cols.dtype == torch.int64
        assert (rows.diff() >= 0).all()
        assert torch.equal(rows.unique(), torch.arange(len(edges)))

    @pytest.mark.parametrize(
        ("edges", "message"),
        [
            ([[8000.0, 8001.0]], "inside the grid.*margin"),
            ([[8501.0, 9000.0]], "inside the grid.*margin"),
            ([[8501.1, 8501.0]], "lower < upper"),
            ([8501.0, 8502.0], "shape"),
            ([[8501.0, float("nan")]], "lower < upper"),
        ],
    )
    def test_bad_edges(self, operator, edges, message):
        _, grid = order()
        with pytest.raises(ValueError, match=message):
            operator(grid, tensor(edges))


class TestProduct:
    """`apply` on the CPU is compiled; the dense matrix is the reference, with torch's own derivatives."""

    ROWS, COLS = torch.tensor([0, 0, 1, 3, 3, 1, 3]), torch.tensor([0, 4, 2, 1, 4, 2, 0])  # sorted in part, one twice
    VALUES = tensor([0.5, -1.0, 2.0, 0.25, 3.0, 0.125, -0.75])

    @classmethod
    def ours(cls, values, flux):
        return apply(cls.ROWS, cls.COLS, values, flux, n_pix=4)

    @classmethod
    def dense(cls, values, flux):
        matrix = torch.zeros(4, 5, dtype=torch.float64).index_put((cls.ROWS, cls.COLS), values, accumulate=True)
        return flux @ matrix.T

    @staticmethod
    def flux(*shape, seed=11):
        return tensor(np.random.default_rng(seed).normal(size=shape))

    @pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (0, 5)])
    def test_value(self, shape):
        flux = self.flux(*shape)
        torch.testing.assert_close(self.ours(self.VALUES, flux), self.dense(self.VALUES, flux), atol=1e-15, rtol=1e-15)

    def test_views_are_read_in_their_own_order(self):
        flux, values = self.flux(5, 3).T, torch.stack([self.VALUES, self.VALUES], dim=1)[:, 0]
        torch.testing.assert_close(self.ours(values, flux), self.dense(values, flux), atol=1e-15, rtol=1e-15)

    def test_derivatives_of_both_orders(self):
        inputs = self.VALUES.clone().requires_grad_(), self.flux(2, 5).requires_grad_()
        assert torch.autograd.gradcheck(self.ours, inputs)
        assert torch.autograd.gradgradcheck(self.ours, inputs)

    # torch itself warns when its forward mode is first used.
    @pytest.mark.filterwarnings("ignore:.*torch.jit.script")
    @pytest.mark.parametrize("argnums", [0, 1, (0, 1)])
    @pytest.mark.parametrize("jacobian", [torch.func.jacfwd, torch.func.jacrev])
    def test_jacobians(self, jacobian, argnums):
        inputs = self.VALUES, self.flux(2, 5)
        ours, dense = (jacobian(function, argnums)(*inputs) for function in (self.ours, self.dense))
        torch.testing.assert_close(ours, dense, atol=1e-14, rtol=1e-14)

    @pytest.mark.parametrize("in_dims", [(0, None), (None, 0), (0, 0), (1, 1), (None, 2)])
    def test_vmap(self, in_dims):
        values = self.VALUES
        if in_dims[0] is not None:
            values = (values + torch.arange(3.0, dtype=torch.float64)[:, None]).movedim(0, in_dims[0])
        flux = self.flux(3, 2, 5).movedim(0, in_dims[1]) if in_dims[1] is not None else self.flux(2, 5)
        ours, dense = (torch.func.vmap(function, in_dims)(values, flux) for function in (self.ours, self.dense))
        torch.testing.assert_close(ours, dense, atol=1e-14, rtol=1e-14)

    # forward modes of a torch.autograd.Function lose the mixed term when they are nested
    @pytest.mark.filterwarnings("ignore:.*torch.jit.script")
    @pytest.mark.parametrize("outer", [torch.func.jacfwd, torch.func.jacrev])
    @pytest.mark.parametrize("inner", [torch.func.jacfwd, torch.func.jacrev])
    def test_nested_transforms(self, outer, inner):
        inputs = self.VALUES, self.flux(2, 5)
        ours, dense = (outer(inner(function, 0), 1)(*inputs) for function in (self.ours, self.dense))
        torch.testing.assert_close(ours, dense, atol=1e-14, rtol=1e-14)

    @pytest.mark.filterwarnings("ignore:.*torch.jit.script")
    @pytest.mark.parametrize("strategy", ["forward-mode", "reverse-mode"])
    def test_batched_gradients(self, strategy):
        options = {"vectorize": True, "strategy": strategy}
        ours, dense = (torch.autograd.functional.jacobian(partial(function, self.VALUES), self.flux(5), **options)
                       for function in (self.ours, self.dense))  # fmt: skip
        torch.testing.assert_close(ours, dense, atol=1e-14, rtol=1e-14)

    def test_vmap_over_the_places(self):
        rows = torch.stack([self.ROWS, self.ROWS.flip(0)])
        ours = torch.func.vmap(lambda r: apply(r, self.COLS, self.VALUES, self.flux(5), n_pix=4))(rows)
        each = [apply(r, self.COLS, self.VALUES, self.flux(5), n_pix=4) for r in rows]
        torch.testing.assert_close(ours, torch.stack(each), atol=1e-15, rtol=1e-15)

    def test_traced(self):
        traced = make_fx(lambda x: self.ours(self.VALUES, x))(torch.ones(5, dtype=torch.float64))
        torch.testing.assert_close(traced(self.flux(5)), self.dense(self.VALUES, self.flux(5)), atol=1e-15, rtol=1e-15)

    @pytest.mark.parametrize(("rows", "cols"), [([4], [0]), ([-1], [0]), ([0], [5]), ([0], [-1])])
    def test_an_index_outside_the_matrix(self, rows, cols):
        with pytest.raises(IndexError, match="4 rows and 5 columns"):
            apply(torch.tensor(rows), torch.tensor(cols), tensor([1.0]), self.flux(5), n_pix=4)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_bad_input(self, dtype):
        values, flux = self.VALUES.to(dtype), self.flux(5).to(dtype)
        with pytest.raises(ValueError, match="one shape"):
            apply(self.ROWS, self.COLS[:-1], values, flux, n_pix=4)
        with pytest.raises(TypeError, match="rows and cols must be whole numbers"):
            apply(self.ROWS.double(), self.COLS, values, flux, n_pix=4)
        with pytest.raises(ValueError, match="flux must have at least one dimension"):
            apply(self.ROWS, self.COLS, values, flux[0], n_pix=4)

    @pytest.mark.parametrize("shape", [(0,), (2, 0)])
    def test_empty_grid(self, shape):
        nothing = torch.zeros(0, dtype=torch.int64)
        out = apply(nothing, nothing, self.VALUES[:0], torch.zeros(shape, dtype=torch.float64), n_pix=3)
        torch.testing.assert_close(out, torch.zeros(*shape[:-1], 3, dtype=torch.float64))


def test_batch_is_a_loop():
    edges, grid = order()
    flux = tensor(np.random.default_rng(5).normal(size=(2, 3, len(grid))))
    matrix = pixel_response(grid, edges, tensor([0.06]))
    out = observe(matrix, flux, edges)
    assert out.shape == (2, 3, len(edges))
    torch.testing.assert_close(out[1, 2], observe(matrix, flux[1, 2], edges), rtol=1e-13, atol=1e-14)


def test_dtype_and_device_follow(device):
    edges, grid = (values.to(device) for values in order())
    for matrix in (pixel_overlap(grid, edges), pixel_response(grid, edges, tensor([0.06]).to(device))):
        out = observe(matrix, torch.ones(len(grid), device=device), edges)
        assert out.dtype == torch.float32
        assert out.device.type == device.type
        np.testing.assert_allclose(out.cpu().numpy(), 1.0, atol=1e-5)
