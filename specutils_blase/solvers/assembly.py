"""The normal equations of flat columns: Gauss-Newton matrix and gradient without a Jacobian.

The columns of the Jacobian that belong to a line are known on the line's own pixels; what the whole spectrum feels has
dense columns.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from ..functional.compiled import FAST, INNER, chunked
from .banded import TILE, BorderedBanded

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
        sums = [np.bincount(self.part, row * vector, minlength=self.n_parts) for row in self.values]
        return np.stack(sums, axis=1).ravel() if sums else np.zeros(0)

    def corner(self, dense):
        """The Gauss-Newton matrix of the columns of `dense` (m, n_pix) and of these, (m + n_parts * d,) squared."""
        m, d = len(dense), len(self.values)
        out = np.zeros((m + self.n_parts * d,) * 2)
        out[:m, :m] = _products(dense)
        for g, row in enumerate(dense):
            out[g, m:] = out[m:, g] = self.project(row)
        blocks = np.stack([self.project(row) for row in self.values]) if d else np.zeros((0, 0))
        place = m + d * np.arange(self.n_parts)
        for a in range(d):
            for b in range(d):
                out[place + a, place + b] = blocks[a, b::d]
        return out


def last_coupled(lo, hi):
    """The last line that every line's windows lo..hi couple with, directly or between its neighbours, shape (n,).

    Lines are sorted by centre, windows are not.
    """
    first = np.minimum.accumulate(lo[::-1])[::-1]  # of all lines from here on
    last = np.maximum(np.searchsorted(first, hi, side="left") - 1, np.arange(len(lo)))
    return np.maximum.accumulate(last)


@njit(**INNER)
def _four_products(a, b, c, d):
    """Sums of a c, a d, b c, b d."""
    ac, ad, bc, bd = 0.0, 0.0, 0.0, 0.0
    for i in range(a.size):
        ac += a[i] * c[i]
        ad += a[i] * d[i]
        bc += b[i] * c[i]
        bd += b[i] * d[i]
    return ac, ad, bc, bd


@njit(**FAST)
def _products(rows):
    """rows rows': not by BLAS, whose idle threads would go on spinning beside the compiled kernels."""
    m = rows.shape[0]
    out = np.empty((m + 1, m + 1))
    for a in range(0, m, 2):
        for b in range(0, a + 1, 2):
            a1, b1 = min(a + 1, m - 1), min(b + 1, m - 1)
            out[a, b], out[a, b + 1], out[a + 1, b], out[a + 1, b + 1] = _four_products(
                rows[a], rows[a1], rows[b], rows[b1])
    for a in range(m):
        for b in range(a):
            out[b, a] = out[a, b]
    return out[:m, :m].copy()


@njit(**FAST)
def _gram_columns(terms, offset, lo, hi, near_lo, near_hi, last_near, first, last, start, tiles):
    q = terms.shape[0]
    block = np.empty((q + 1, q + 1))
    for j in range(first, last):
        for k in range(j, last_near[j] + 1):
            begin, stop = max(near_lo[j], near_lo[k]), min(near_hi[j], near_hi[k])
            if k == j:
                begin, stop = lo[j], hi[j]
            if begin >= stop:
                continue
            pj, pk, m = offset[j] + begin - lo[j], offset[k] + begin - lo[k], stop - begin
            for a in range(0, q, 2):
                for b in range(0, q, 2):  # two parameters at a time; an odd one goes with itself
                    a1, b1 = min(a + 1, q - 1), min(b + 1, q - 1)
                    block[a, b], block[a, b + 1], block[a + 1, b], block[a + 1, b + 1] = _four_products(
                        terms[a, pj : pj + m], terms[a1, pj : pj + m], terms[b, pk : pk + m], terms[b1, pk : pk + m])
            for a in range(q):
                column = j * q + a
                for b in range(a if k == j else 0, q):
                    row = k * q + b
                    tile = start[column // TILE] + row // TILE - column // TILE
                    tiles[tile, column % TILE, row % TILE] = block[a, b]


@njit(**FAST)
def _project_columns(terms, offset, lo, hi, vector, first, last, out):
    q = terms.shape[0]
    for j in range(first, last):
        n = hi[j] - lo[j]
        rest = vector[lo[j] : hi[j]]
        for a in range(q):
            column = terms[a, offset[j] : offset[j] + n]
            total = 0.0
            for i in range(n):
                total += column[i] * rest[i]
            out[j * q + a] = total


def project(terms, offset, lo, hi, vector):
    """J' vector for the flat columns of `assemble`, shape (n_lines * q,); vector has shape (n_pix,)."""
    out = np.empty(terms.shape[0] * len(lo))
    chunked(lambda a, b: _project_columns(terms, offset, lo, hi, vector, a, b, out), hi - lo)
    return out


@njit(**FAST)
def _border_columns(terms, offset, lo, near_lo, near_hi, dense, first, last, border):
    q, m = terms.shape[0], dense.shape[0]
    for j in range(first, last):
        start, stop = offset[j] + near_lo[j] - lo[j], offset[j] + near_hi[j] - lo[j]
        for a in range(0, q, 2):
            a1 = min(a + 1, q - 1)
            for g in range(0, m, 2):
                g1 = min(g + 1, m - 1)
                border[j * q + a, g], border[j * q + a, g1], border[j * q + a1, g], border[j * q + a1, g1] = (
                    _four_products(terms[a, start:stop], terms[a1, start:stop],
                                   dense[g, near_lo[j] : near_hi[j]], dense[g1, near_lo[j] : near_hi[j]]))


@njit(**FAST)
def _part_border(terms, offset, lo, near_lo, near_hi, values, part, first, last, border):
    q, d = terms.shape[0], values.shape[0]
    for j in range(first, last):
        for p in range(near_lo[j], near_hi[j]):
            place, column = offset[j] + p - lo[j], part[p] * d
            for a in range(q):
                for k in range(d):
                    border[j * q + a, column + k] += terms[a, place] * values[k, p]


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
    matrix = BorderedBanded.empty(end, np.zeros((n * q, len(corner))), corner)

    def work(first, last):
        _gram_columns(terms, offset, lo, hi, near_lo, near_hi, last_near, first, last, matrix.start, matrix.tiles)
        _border_columns(terms, offset, lo, near_lo, near_hi, dense, first, last, matrix.border)
        if own is not None:
            _part_border(terms, offset, lo, near_lo, near_hi, own.values, own.part, first, last, matrix.border[:, m:])

    if n and q:
        chunked(work, hi - lo)
    return matrix
