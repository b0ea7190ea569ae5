"""The line spread function and the pixels as one sparse matrix."""

from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from scipy.sparse import coo_array, csr_array

from ..functional import pixel_overlap, pixel_response
from ..functional.compiled import FAST

__all__ = ["Response", "build_response", "banded_response", "joined"]


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
        _multiply(self.start, self.pointer, self.values, flux, out)
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
        _multiply_adjoint(self.start, self.pointer, self.values, pixels, out)
        return out


@njit(**FAST)
def _multiply(start, pointer, values, flux, out):
    for p in range(start.size):
        own, total = values[pointer[p] : pointer[p + 1]], 0.0
        seen = flux[start[p] : start[p] + own.size]
        for i in range(own.size):
            total += own[i] * seen[i]
        out[p] = total


@njit(**FAST)
def _multiply_adjoint(start, pointer, values, pixels, out):
    for p in range(start.size):
        own = values[pointer[p] : pointer[p + 1]]
        for i in range(own.size):
            out[start[p] + i] += own[i] * pixels[p]


def build_response(grid, edges, sigma):
    """Pixels' `Response` to the grid for a Gaussian of standard deviation sigma (n_pix,) [Angstrom], or None."""
    grid, edges = torch.from_numpy(grid), torch.from_numpy(edges)
    triplets = pixel_overlap(grid, edges) if sigma is None else pixel_response(grid, edges, torch.from_numpy(sigma))
    return Response.from_triplets(*(t.numpy() for t in triplets), len(edges))


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
