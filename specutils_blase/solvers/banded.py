"""Normal equations of many local lines and a few global parameters: a banded matrix with a border.

Lines sorted by wavelength couple only to their neighbours, so the Gauss-Newton matrix of their parameters is banded;
parameters that every pixel feels (velocity, continuum, ...) form a narrow dense border::

    H = [ A   B ]      A (n, n) banded, positive definite;  B (n, m);  C (m, m)
        [ B'  C ]

Everything here is unit-free numpy; the factor and the selected inverse cost O(n bandwidth^2).
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from ..functional.compiled import FAST, chunked

__all__ = ["BorderedBanded", "assemble", "project", "bandwidth", "near_windows"]


@dataclass(frozen=True)
class BorderedBanded:
    """A symmetric bordered banded matrix.

    Attributes
    ----------
    band : ndarray, shape (n, k + 1)
        ``band[j, d] = A[j + d, j]``: row j holds the diagonal element and the k below it.
    border : ndarray, shape (n, m)
    corner : ndarray, shape (m, m)
    """

    band: np.ndarray
    border: np.ndarray
    corner: np.ndarray

    @property
    def diagonal(self):
        """The diagonal, shape (n + m,)."""
        return np.concatenate([self.band[:, 0], np.diag(self.corner)])

    def dense(self):
        """The full matrix, shape (n + m, n + m): for tests and small problems."""
        n, width = self.band.shape
        full = np.zeros((n, n))
        for d in range(width):
            i = np.arange(n - d)
            full[i + d, i] = full[i, i + d] = self.band[: n - d, d]
        return np.block([[full, self.border], [self.border.T, self.corner]])

    def __matmul__(self, vector):
        """Product with a vector (n + m,)."""
        n = len(self.border)
        local, glob = vector[:n], vector[n:]
        out = self.band[:, 0] * local + self.border @ glob
        for d in range(1, self.band.shape[1]):
            out[d:] += self.band[: n - d, d] * local[: n - d]
            out[: n - d] += self.band[: n - d, d] * local[d:]
        return np.concatenate([out, self.border.T @ local + self.corner @ glob])

    def factor(self, damping=0.0):
        """Cholesky factor with `damping` (n + m,) added to the diagonal; None if that is not positive definite."""
        n, m = self.border.shape
        damping = np.broadcast_to(damping, (n + m,))
        chol = self.band.copy()
        chol[:, 0] += damping[:n]
        reach = np.empty(n, dtype=np.int64)
        if not banded_cholesky(chol, reach):
            return None
        border = self.border.copy()
        forward_substitute(chol, reach, border)
        try:
            schur = cho_factor(self.corner + np.diag(damping[n:]) - border.T @ border, lower=True) if m else None
        except (np.linalg.LinAlgError, ValueError):  # not definite, or not finite
            return None
        return Factor(chol, reach, border, schur)


@dataclass(frozen=True)
class Factor:
    """Cholesky factor of a `BorderedBanded` matrix::

        M = [ L   0 ]      L L' = A,  L W = B,  S S' = C - W' W,  M M' = H
            [ W'  S ]

    ``chol`` is L in the layout of the band; row j has no elements beyond ``reach[j]`` places below the diagonal.
    ``border`` is W and ``schur`` is S as scipy's `cho_factor` gives it.
    """

    chol: np.ndarray
    reach: np.ndarray
    border: np.ndarray
    schur: tuple | None

    def solve(self, rhs):
        """Solution of H x = rhs, shape (n + m,)."""
        n = len(self.border)
        local = rhs[:n, None].copy()
        forward_substitute(self.chol, self.reach, local)
        if self.schur is None:
            back_substitute(self.chol, self.reach, local)
            return local[:, 0]
        glob = cho_solve(self.schur, rhs[n:] - self.border.T @ local[:, 0])
        local[:, 0] -= self.border @ glob
        back_substitute(self.chol, self.reach, local)
        return np.concatenate([local[:, 0], glob])

    def root(self, white):
        """M'^-1 @ white, shape (n + m, k): white noise becomes noise whose covariance is the inverse of H."""
        n = len(self.border)
        local, glob = white[:n].copy(), np.zeros((0, white.shape[1]))
        if self.schur is not None:
            glob = solve_triangular(self.schur[0], white[n:], lower=True, trans="T")
            local -= self.border @ glob
        back_substitute(self.chol, self.reach, local)
        return np.concatenate([local, glob])

    def inverse(self):
        """The inverse near the band, its border and its corner, as a `BorderedBanded` (exact, not an approximation).

        Takahashi's recursion gives the inverse of A within the band from its Cholesky factor; the border adds a
        correction of rank m.
        """
        n, m = self.border.shape
        band = selected_inverse(self.chol, self.reach)
        if m == 0:
            return BorderedBanded(band, self.border, np.zeros((0, 0)))
        corner, solved = cho_solve(self.schur, np.eye(m)), self.border.copy()
        back_substitute(self.chol, self.reach, solved)  # A^-1 B
        border = -solved @ corner
        for d in range(band.shape[1]):
            band[: n - d, d] -= np.einsum("im,im->i", solved[: n - d], border[d:])
        return BorderedBanded(band, border, corner)

    def condition(self):
        """Ratio of the factor's largest to smallest squared diagonal: a lower bound of the condition number."""
        parts = [self.chol[:, 0]]
        if self.schur is not None:
            parts.append(np.diag(self.schur[0]))
        diagonal = np.concatenate(parts)
        return float((diagonal.max() / diagonal.min()) ** 2) if diagonal.size else 1.0


@njit(**FAST)
def banded_cholesky(band, column_reach):
    """Cholesky factor in place: A[j + d, j] in band[j, d] becomes L[j + d, j]; False if A is not positive definite.

    ``column_reach`` (n,) receives the number of elements below the diagonal in each column.

    Works within the envelope of the matrix: a line with two neighbours does not pay for one with twenty.  (LAPACK's
    dpbtrf pays for the full band, and its threads make it slower at these sizes.)
    """
    n, width = band.shape
    reach = 0  # rows below the diagonal that the factor fills in this column
    for j in range(n):
        reach = max(reach - 1, 0)
        for d in range(min(width, n - j) - 1, reach, -1):
            if band[j, d] != 0.0:
                reach = d
                break
        pivot = band[j, 0]
        if not pivot > 0.0:
            return False
        pivot = np.sqrt(pivot)
        band[j, 0] = pivot
        column_reach[j] = reach
        for d in range(1, reach + 1):
            band[j, d] /= pivot
        for d in range(1, reach + 1):
            f = band[j, d]
            if f != 0.0:
                for e in range(d, reach + 1):
                    band[j + d, e - d] -= f * band[j, e]
    return True


@njit(**FAST)
def forward_substitute(chol, reach, rhs):
    """Replace rhs (n, m) by L^-1 rhs."""
    n, m = rhs.shape
    for j in range(n):
        for k in range(m):
            rhs[j, k] /= chol[j, 0]
        for d in range(1, reach[j] + 1):
            f = chol[j, d]
            for k in range(m):
                rhs[j + d, k] -= f * rhs[j, k]


@njit(**FAST)
def back_substitute(chol, reach, rhs):
    """Replace rhs (n, m) by L'^-1 rhs."""
    n, m = rhs.shape
    for j in range(n - 1, -1, -1):
        for d in range(1, reach[j] + 1):
            f = chol[j, d]
            for k in range(m):
                rhs[j, k] -= f * rhs[j + d, k]
        for k in range(m):
            rhs[j, k] /= chol[j, 0]


@njit(**FAST)
def selected_inverse(chol, reach):
    """Elements of (L L')^-1 in the places where L has elements (Takahashi's recursion).

    Parameters
    ----------
    chol : ndarray, shape (n, k + 1)
        ``chol[j, d] = L[j + d, j]``.
    reach : ndarray of int, shape (n,)

    Returns
    -------
    ndarray, shape (n, k + 1)
        ``out[j, d] = inverse[j + d, j]``.
    """
    n, width = chol.shape
    out = np.zeros((n, width))
    for j in range(n - 1, -1, -1):
        inv = 1.0 / chol[j, 0]
        for d in range(reach[j], 0, -1):
            i = j + d
            total = 0.0
            for e in range(1, d + 1):
                total += chol[j, e] * out[j + e, d - e]
            for e in range(d + 1, reach[j] + 1):
                total += chol[j, e] * out[i, e - d]
            out[j, d] = -inv * total
        total = 0.0
        for e in range(1, reach[j] + 1):
            total += chol[j, e] * out[j, e]
        out[j, 0] = inv * (inv - total)
    return out


def bandwidth(lo, hi):
    """Largest number of following lines whose pixel windows overlap a line's own."""
    if len(lo) < 2:
        return 0
    # lines are sorted by centre, windows are not: the running minimum of the later starts bounds the overlap
    first = np.minimum.accumulate(lo[::-1])[::-1]
    last = np.searchsorted(first, hi, side="left") - 1
    return max(int(np.max(last - np.arange(len(lo)))), 0)


@njit(**FAST)
def _gram_columns(terms, offset, lo, hi, near_lo, near_hi, neighbours, first, last, band):
    q, n = terms.shape[0], lo.size
    for j in range(first, last):
        for k in range(j, min(j + neighbours + 1, n)):
            start, stop = max(near_lo[j], near_lo[k]), min(near_hi[j], near_hi[k])
            if k == j:
                start, stop = lo[j], hi[j]
            if start >= stop:
                continue
            pj, pk, m = offset[j] + start - lo[j], offset[k] + start - lo[k], stop - start
            for a in range(q):
                for b in range(q):
                    if k == j and b < a:
                        continue
                    left, right = terms[a, pj : pj + m], terms[b, pk : pk + m]
                    total = 0.0
                    for i in range(m):
                        total += left[i] * right[i]
                    band[j * q + a, (k - j) * q + b - a] = total


@njit(**FAST)
def _project_columns(terms, offset, lo, vector, first, last, out):
    q = terms.shape[0]
    for j in range(first, last):
        n = offset[j + 1] - offset[j]
        rest = vector[lo[j] : lo[j] + n]
        for a in range(q):
            column = terms[a, offset[j] : offset[j + 1]]
            total = 0.0
            for i in range(n):
                total += column[i] * rest[i]
            out[j * q + a] = total


def project(terms, offset, lo, vector):
    """J' vector for the flat columns of `assemble`, shape (n_lines * q,); vector has shape (n_pix,)."""
    out = np.empty(terms.shape[0] * len(lo))
    chunked(lambda a, b: _project_columns(terms, offset, lo, vector, a, b, out), np.diff(offset))
    return out


@njit(**FAST)
def _border_columns(terms, offset, lo, near_lo, near_hi, dense, first, last, border):
    q, m = terms.shape[0], dense.shape[0]
    for j in range(first, last):
        for a in range(q):
            column = terms[a, offset[j] + near_lo[j] - lo[j] : offset[j] + near_hi[j] - lo[j]]
            for g in range(m):
                other = dense[g, near_lo[j] : near_hi[j]]
                total = 0.0
                for i in range(column.size):
                    total += column[i] * other[i]
                border[j * q + a, g] = total


def near_windows(lo, hi, first_near, last_near):
    """Windows lo..hi cut to first_near..last_near, never turned inside out."""
    near_lo = np.clip(first_near, lo, hi)
    return near_lo, np.clip(last_near, near_lo, hi)


def assemble(terms, offset, lo, hi, dense, near=None):
    """Gauss-Newton matrix J'J straight from the flat columns, without forming a Jacobian.

    Where the columns of a few broad lines would couple everything with everything, `near` limits the couplings, those
    with the border included: the matrix is then J_near' J_near plus, for each line alone, the far part of its block.
    It stays positive semi-definite.

    Parameters
    ----------
    terms : ndarray, shape (q, n_pairs)
        Columns of the Jacobian: line j owns terms[:, offset[j]:offset[j + 1]] on its pixels lo[j]:hi[j].
    offset, lo, hi : ndarray of int
    dense : ndarray, shape (m, n_pix)
        Columns of the global parameters.
    near : pair of ndarray of int, optional
        Parts of the windows in which lines couple to each other, see `near_windows`; default all of them.

    Returns
    -------
    BorderedBanded
    """
    q, n = terms.shape[0], len(lo)
    near_lo, near_hi = (lo, hi) if near is None else near
    neighbours = bandwidth(near_lo, near_hi)
    band, border = np.zeros((n * q, (neighbours + 1) * q)), np.empty((n * q, dense.shape[0]))

    def work(first, last):
        _gram_columns(terms, offset, lo, hi, near_lo, near_hi, neighbours, first, last, band)
        _border_columns(terms, offset, lo, near_lo, near_hi, dense, first, last, border)

    if n and q:
        chunked(work, hi - lo)
    # einsum, not BLAS, whose idle threads would go on spinning beside the compiled kernels
    return BorderedBanded(band, border, np.einsum("ap,bp->ab", dense, dense))
