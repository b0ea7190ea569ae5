"""The line spread function and the pixels as one sparse matrix."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.special import erf

from ..functional import pixel_overlap
from ..functional.compiled import chunked, kernels
from ..functional.resampling import REACH

__all__ = ["Response", "build_response", "banded_response", "joined"]

# The error function from a table: nodes per unit, terms, and where it is 1 to rounding.
ERF_NODES, ERF_TERMS, ERF_END = kernels.ERF_NODES, kernels.ERF_TERMS, kernels.ERF_END


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
    log_step = np.log(grid[-1] / grid[0]) / (len(grid) - 1)
    lower, upper = np.ascontiguousarray(edges.T)
    first = np.ceil(np.log((lower - REACH * sigma) / grid[0]) / log_step).astype(np.int64)
    last = np.floor(np.log((upper + REACH * sigma) / grid[0]) / log_step).astype(np.int64)
    start = np.clip(first, 0, len(grid) - 1)
    length = np.clip(last, 0, len(grid) - 1) + 1 - start
    pointer = np.concatenate([[0], np.cumsum(length)])
    values, table = np.zeros(pointer[-1]), _erf_table()

    def work(a, b):
        kernels.gaussian_pixels(grid, log_step, lower, upper, sigma, first, last, start, pointer, table, a, b, values)

    chunked(work, length)
    return Response(start, pointer, values)


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
