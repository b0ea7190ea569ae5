"""The normal equations of flat columns: Gauss-Newton matrix and gradient without a Jacobian.

The columns of the Jacobian that belong to a line are known on the line's own pixels; what the whole spectrum feels has
dense columns.
"""

from dataclasses import dataclass

import numpy as np

from ..functional.compiled import chunked, kernels
from .banded import BorderedBanded

__all__ = ["PartColumns", "assemble", "project", "near_windows"]


@dataclass(frozen=True)
class PartColumns:
    """Columns of global parameters that every part of the pixels (an echelle order) has for itself.

    Parameter k of part p is number ``p d + k`` of them; its column is ``values[k]`` on the pixels of p, zero elsewhere.

    Attributes
    ----------
    values : ndarray, shape (d, n_pix)
    part : ndarray of int, shape (n_pix,)
        The part of each pixel; parts may interleave.
    n_parts : int
    """

    values: np.ndarray
    part: np.ndarray
    n_parts: int

    def project(self, vector):
        """The products of all columns with a vector (n_pix,), shape (n_parts * d,)."""
        out = np.zeros((self.n_parts, len(self.values)))
        kernels.part_project(self.values, self.part, vector, out)
        return out.ravel()

    def corner(self, dense):
        """The Gauss-Newton matrix of the columns of `dense` (m, n_pix) and of these, (m + n_parts * d,) squared."""
        m, d = len(dense), len(self.values)
        out = np.zeros((m + self.n_parts * d,) * 2)
        out[:m, :m] = _products(dense)
        for g, row in enumerate(dense):
            out[g, m:] = out[m:, g] = self.project(row)
        blocks = np.zeros((self.n_parts, d, d))
        kernels.part_products(self.values, self.part, blocks)
        for p, block in enumerate(blocks):
            own = slice(m + p * d, m + (p + 1) * d)
            out[own, own] = block
        return out


def last_coupled(lo, hi):
    """The last line that every line's windows lo..hi couple with, directly or between its neighbours, shape (n,).

    Lines are sorted by centre, windows are not.
    """
    first = np.minimum.accumulate(lo[::-1])[::-1]  # of all lines from here on
    last = np.maximum(np.searchsorted(first, hi, side="left") - 1, np.arange(len(lo)))
    return np.maximum.accumulate(last)


def _products(rows):
    """rows rows', shape (m, m)."""
    out = np.empty((len(rows),) * 2)
    kernels.products(rows, out)
    return out


def project(terms, offset, lo, hi, vector):
    """J' vector for the flat columns of `assemble`, shape (n_lines * q,); vector has shape (n_pix,)."""
    out = np.empty(terms.shape[0] * len(lo))
    chunked(lambda a, b: kernels.project_columns(terms, offset, lo, hi, vector, a, b, out), hi - lo)
    return out


def near_windows(lo, hi, first_near, last_near):
    """Windows lo..hi cut to first_near..last_near, never turned inside out."""
    near_lo = np.clip(first_near, lo, hi)
    return near_lo, np.clip(last_near, near_lo, hi)


def assemble(terms, offset, lo, hi, dense, near=None, own=None):
    """Gauss-Newton matrix J'J straight from the flat columns, without forming a Jacobian.

    Where the columns of a few broad lines would couple everything with everything, `near` limits the couplings, those
    with the border included: the matrix is then J_near' J_near plus, for each line alone, the far part of its block.
    It stays positive semi-definite.

    Parameters
    ----------
    terms : ndarray, shape (q, n_pairs)
        Columns of the Jacobian: line j owns the columns from offset[j] on its pixels lo[j]:hi[j].
    offset, lo, hi : ndarray of int
    dense : ndarray, shape (m, n_pix)
        Columns of the global parameters that all pixels feel.
    own : PartColumns, optional
        Those that follow, of the parts.
    near : pair of ndarray of int, optional
        Parts of the windows in which lines couple to each other, see `near_windows`; default all of them.

    Returns
    -------
    BorderedBanded
    """
    q, n = terms.shape[0], len(lo)
    near_lo, near_hi = (lo, hi) if near is None else near
    last_near = last_coupled(near_lo, near_hi)
    end = np.repeat((last_near + 1) * q, q)
    m = len(dense)
    corner = _products(dense) if own is None else own.corner(dense)
    matrix = BorderedBanded.empty(end, np.zeros((n * q, len(corner))), corner, None if own is None else m)

    def work(first, last):
        kernels.gram_columns(terms, offset, lo, hi, near_lo, near_hi, last_near, first, last, matrix.start,
                             matrix.tiles)  # fmt: skip
        kernels.border_columns(terms, offset, lo, near_lo, near_hi, dense, first, last, matrix.border)
        if own is not None:
            kernels.part_border(terms, offset, lo, near_lo, near_hi, own.values, own.part, m, first, last,
                                matrix.border)  # fmt: skip

    if n and q:
        chunked(work, hi - lo)
    return matrix
