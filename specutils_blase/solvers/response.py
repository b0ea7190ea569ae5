"""The line spread function and the pixels as one sparse matrix."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.special import erf

from ..functional import SPEED_OF_LIGHT, pixel_overlap
from ..functional.compiled import chunked, kernels
from ..functional.resampling import REACH

__all__ = ["Response", "build_response", "banded_response", "hermite_slopes", "hermite_terms", "joined",
           "measured_response", "pixel_means", "with_hermite"]  # fmt: skip

# The error function from a table: nodes per unit, terms, and where it is 1 to rounding.
ERF_NODES, ERF_TERMS, ERF_END = kernels.ERF_NODES, kernels.ERF_TERMS, kernels.ERF_END
# The integral of a Gaussian times the fourth Gauss-Hermite polynomial; that with the third is zero.
AREA_4 = np.sqrt(6.0) / 4.0


@dataclass(frozen=True)
class Response:
    """A sparse matrix from the grid to the pixels whose rows are contiguous.

    Attributes
    ----------
    start : ndarray of int, shape (n_pix,)
        First grid point of each row.
    pointer : ndarray of int, shape (n_pix + 1,)
        Row p owns values[pointer[p]:pointer[p + 1]].
    values : ndarray
    """

    start: np.ndarray
    pointer: np.ndarray
    values: np.ndarray

    @classmethod
    def from_triplets(cls, rows, cols, values, n_pix):
        """From coordinates sorted by row, then column; holes within a row are filled with zeros.

        A row without any element holds one zero.
        """
        first = np.searchsorted(rows, np.arange(n_pix))
        last = np.searchsorted(rows, np.arange(n_pix), side="right") - 1
        begin, end = np.zeros(n_pix, dtype=np.int64), np.zeros(n_pix, dtype=np.int64)
        filled = last >= first
        begin[filled], end[filled] = cols[first[filled]], cols[last[filled]]
        start, length = begin, end - begin + 1
        pointer = np.concatenate([[0], np.cumsum(length)])
        index = pointer[rows] + cols - start[rows]
        return cls(start, pointer, np.bincount(index, values, minlength=pointer[-1]))

    @property
    def stop(self):
        """One beyond the last grid point of each row."""
        return self.start + np.diff(self.pointer)

    def __matmul__(self, flux):
        out = np.empty(len(self.start))
        kernels.response_multiply(self.start, self.pointer, self.values, flux, out)
        return out

    def take(self, rows):
        """The `Response` of some pixels, in the sequence of `rows`."""
        length = np.diff(self.pointer)[rows]
        pointer = np.concatenate([[0], np.cumsum(length)])
        index = np.repeat(self.pointer[:-1][rows] - pointer[:-1], length) + np.arange(pointer[-1])
        return Response(self.start[rows], pointer, self.values[index])

    def adjoint(self, pixels, n_grid):
        """The transposed matrix times `pixels` (n_pix,), shape (n_grid,)."""
        out = np.zeros(n_grid)
        kernels.response_adjoint(self.start, self.pointer, self.values, pixels, out)
        return out


def build_response(grid, edges, sigma):
    """Pixels' `Response` to the grid for a Gaussian of standard deviation sigma (n_pix,) [Angstrom], or None.

    The compiled twin of `functional.pixel_response`: a resolving power or wavelengths that are free need it often.
    """
    if sigma is None:
        triplets = pixel_overlap(torch.from_numpy(grid), torch.from_numpy(edges))
        return Response.from_triplets(*(t.numpy() for t in triplets), len(edges))
    lower, upper = np.ascontiguousarray(edges.T)
    log_step, first, last, start, pointer = _layout(grid, lower - REACH * sigma, upper + REACH * sigma)
    values, table = np.zeros(pointer[-1]), _erf_table()

    def work(a, b):
        kernels.gaussian_pixels(grid, log_step, lower, upper, sigma, first, last, start, pointer, table, a, b, values)

    chunked(work, np.diff(pointer))
    return Response(start, pointer, values)


def _layout(grid, lower, upper):
    """Which grid points lie between two wavelengths (n_pix,) of every row, and where a `Response` keeps them.

    Step in ln(wavelength), first and last of them (beyond the ends they are virtual), `start` and `pointer`.
    """
    log_step = np.log(grid[-1] / grid[0]) / (len(grid) - 1)
    first = np.ceil(np.log(lower / grid[0]) / log_step).astype(np.int64)
    last = np.floor(np.log(upper / grid[0]) / log_step).astype(np.int64)
    start = np.clip(first, 0, len(grid) - 1)
    length = np.clip(last, 0, len(grid) - 1) + 1 - start
    return log_step, first, last, start, np.concatenate([[0], np.cumsum(length)])


def _summed(grid, edges, layout, areas):
    """Values (k, n) of rows with that layout whose light is ``areas(below, above, row)``, k arrays.

    That is the part of the light at a grid point that falls between the edges of pixel `row`, which lie at the offsets
    `below` and `above` from it.
    """
    log_step, first, last, start, pointer = layout
    count = last - first + 1
    row = np.repeat(np.arange(len(first)), count)
    k = np.arange(len(row)) + np.repeat(first - np.cumsum(count) + count, count)
    # grid points beyond the ends are virtual: they carry the flux of the end point
    at = np.clip(k, 0, len(grid) - 1)
    wave, beyond = grid[at], k != at
    wave[beyond] = grid[0] * np.exp(k[beyond] * log_step)
    lower, upper = edges.T
    factor, place = wave * (log_step / (upper - lower))[row], at + (pointer[:-1] - start)[row]
    return [np.bincount(place, area * factor, minlength=pointer[-1])
            for area in areas(lower[row] - wave, upper[row] - wave, row)]  # fmt: skip


def hermite_terms(grid, edges, sigma):
    r"""
    What h3 and h4 add to the values of `build_response`, two arrays in the same places.

    The profile of van der Marel & Franx (1993, ApJ 407, 525, eq. 9), with w the offset in units of sigma, to longer
    wavelengths positive, and phi the normal distribution::

        phi(w) [1 + h3 H3(w) + h4 H4(w)],   H3 = (2 w^3 - 3 w) / sqrt(3),   H4 = (4 w^4 - 12 w^2 + 3) / sqrt(24)

    has the integral 1 + (sqrt(6) / 4) h4, because their polynomials are orthogonal over phi^2, not over phi.  By it the
    line spread function is divided; h3 and h4 then multiply what the integrals have besides that of phi, as
    `with_hermite` does, and rows of these terms sum to zero.  The antiderivatives are::

        phi H3:  -phi (2 w^2 + 1) / sqrt(3),      phi (H4 - sqrt(6) / 4):  -phi w^3 sqrt(2 / 3)
    """

    def areas(below, above, row):
        scale = (1.0 / sigma)[row]
        ends = _hermite_integrals(below * scale), _hermite_integrals(above * scale)
        return [upper - lower for lower, upper in zip(*ends, strict=True)]

    lower, upper = edges.T
    return _summed(grid, edges, _layout(grid, lower - REACH * sigma, upper + REACH * sigma), areas)


def _hermite_integrals(w):
    """Antiderivatives of phi H3 and phi (H4 - sqrt(6) / 4)."""
    square = w * w
    density = np.exp(-0.5 * square) * (-1.0 / np.sqrt(2.0 * np.pi))
    return density * (2.0 * square + 1.0) / np.sqrt(3.0), density * square * w * np.sqrt(2.0 / 3.0)


def with_hermite(gaussian, terms, shape):
    """The `Response` for h3 and h4, `shape` (2,) or (n_pix, 2), from that of the Gaussian and `hermite_terms`."""
    h3, h4 = np.broadcast_to(shape, (len(gaussian.start), 2)).T
    length = np.diff(gaussian.pointer)
    by_h3, by_h4 = (np.repeat(h / (1.0 + AREA_4 * h4), length) for h in (h3, h4))
    return Response(gaussian.start, gaussian.pointer, gaussian.values + by_h3 * terms[0] + by_h4 * terms[1])


def hermite_slopes(gaussian, terms, shape):
    """Derivatives of `with_hermite` with respect to h3 and h4, `shape` (2,)."""
    h3, h4 = shape
    norm = 1.0 + AREA_4 * h4
    slopes = terms[0] / norm, (terms[1] - AREA_4 * h3 * terms[0]) / norm**2
    return [Response(gaussian.start, gaussian.pointer, slope) for slope in slopes]


def measured_response(grid, edges, part, profiles):
    """Pixels' `Response` for line spread functions that are given by samples.

    Parameters
    ----------
    grid, edges
        As in `build_response`.
    part : ndarray of int, shape (n_pix,)
        Which of the profiles each pixel has.
    profiles : sequence of (velocity [km/s], density), each of shape (n,)
        Linear between the samples, zero outside; velocities are those of the wavelength of the pixel.  Integral 1.
    """
    rows = [_measured_rows(grid, edges[part == p], *profile) for p, profile in enumerate(profiles)]
    return joined(rows).take(np.argsort(np.argsort(part, kind="stable"), kind="stable"))


def _measured_rows(grid, edges, velocity, density):
    unit = edges.mean(axis=1) / SPEED_OF_LIGHT
    steps = np.diff(velocity)
    slope = np.diff(density) / steps
    below = np.concatenate([[0.0], np.cumsum(0.5 * steps * (density[1:] + density[:-1]))])

    def integral(v):
        inside = np.clip(v, velocity[0], velocity[-1])
        k = np.minimum(np.searchsorted(velocity, inside, side="right") - 1, len(steps) - 1)
        d = inside - velocity[k]
        return below[k] + d * (density[k] + 0.5 * slope[k] * d)

    def areas(lower, upper, row):
        yield integral(upper / unit[row]) - integral(lower / unit[row])

    lower, upper = edges.T
    layout = _layout(grid, lower - velocity[-1] * unit, upper - velocity[0] * unit)
    values, (start, pointer) = _summed(grid, edges, layout, areas)[0], layout[3:]
    # the sum over the grid of what has corners misses a little of the integral: a constant stays a constant
    total = np.add.reduceat(values, pointer[:-1])
    return Response(start, pointer, values / np.repeat(total, np.diff(pointer)))


@cache
def _erf_table():
    """Taylor coefficients of the error function about nodes from -ERF_END to ERF_END, shape (n_nodes, ERF_TERMS)."""
    nodes = np.arange(-ERF_END * ERF_NODES, ERF_END * ERF_NODES + 1) / ERF_NODES
    table = np.empty((nodes.size, ERF_TERMS))
    table[:, 0] = erf(nodes)
    hermite, before = np.ones(nodes.size), np.zeros(nodes.size)
    for k in range(1, ERF_TERMS):
        table[:, k] = (-1.0) ** (k - 1) * hermite * 2.0 / np.sqrt(np.pi) * np.exp(-(nodes**2)) / math.factorial(k)
        hermite, before = 2.0 * nodes * hermite - 2.0 * (k - 1) * before, hermite
    return table


def joined(responses):
    """The `Response` of the pixels of all, one after the other."""
    pointers = [[0], *(np.diff(r.pointer) for r in responses)]
    return Response(np.concatenate([r.start for r in responses]), np.cumsum(np.concatenate(pointers)),
                    np.concatenate([r.values for r in responses]))  # fmt: skip


def banded_response(grid, edges, triplets, used):
    """`Response` of a resolution matrix that acts on pixel means; `edges` of all pixels, rows of the used ones."""
    inner = csr_array(_overlap(grid, edges))
    rows, cols, values = triplets
    outer = csr_array((values, (rows, cols)), shape=(len(edges), len(edges)))[used]
    product = (outer @ inner).tocoo()
    order = np.lexsort((product.col, product.row))
    return Response.from_triplets(product.row[order], product.col[order], product.data[order], product.shape[0])


def _overlap(grid, edges):
    # pixels beyond the grid belong to rows that are not used
    clipped = np.clip(edges, grid[0], grid[-1])
    inside = clipped[:, 1] > clipped[:, 0]
    rows, cols, values = (t.numpy() for t in pixel_overlap(torch.from_numpy(grid), torch.from_numpy(clipped[inside])))
    shape = (len(edges), len(grid))
    return coo_array((values, (np.flatnonzero(inside)[rows], cols)), shape=shape)


def pixel_means(points, edges, inside):
    """`functional.pixel_overlap` of samples (n,) and pixels (n_pix, 2), those `inside`, as a csr_array (n_pix, n)."""
    arrays = pixel_overlap(torch.from_numpy(points.astype(float)), torch.from_numpy(edges[inside]))
    rows, cols, values = (a.numpy() for a in arrays)
    return csr_array((values, (np.flatnonzero(inside)[rows], cols)), shape=(len(edges), len(points)))
