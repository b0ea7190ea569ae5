"""Normal equations of many local lines and a few global parameters: a banded matrix with a border.

Lines sorted by wavelength couple only to their neighbours, so the Gauss-Newton matrix of their parameters is banded;
parameters that every pixel feels (velocity, continuum, ...) form a narrow dense border::

    H = [ A   B ]      A (n, n) banded, positive definite;  B (n, m);  C (m, m)
        [ B'  C ]

The band is as wide as the lines overlap, place by place.  It is stored in tiles of 4 by 4, one column of tiles after
the other, each from the diagonal to the last row that it or any column before it reaches: Cholesky factors and what is
computed of the inverse fill the same tiles, and tiles fit the registers of a processor.  Numbers beyond n, in the last
tiles, belong to a unit matrix.

Everything here is unit-free numpy; the factor and the selected inverse cost O(n reach^2).
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from ..functional.compiled import FAST, INNER

__all__ = ["BorderedBanded", "Factor", "TILE"]

TILE = 4
# Rows of the border that are multiplied at a time.
GRAM_ROWS = 1024


@dataclass(frozen=True)
class BorderedBanded:
    """A symmetric bordered banded matrix.

    Attributes
    ----------
    tiles : ndarray, shape (start[-1], 4, 4)
        ``tiles[start[j // 4] + i // 4 - j // 4, j % 4, i % 4] = A[i, j]`` for i >= j.
    start : ndarray of int, shape (n_columns + 1,)
        Where the columns of tiles start; no column ends above the one before it.
    border : ndarray, shape (n, m)
    corner : ndarray, shape (m, m)
    """

    tiles: np.ndarray
    start: np.ndarray
    border: np.ndarray
    corner: np.ndarray

    @classmethod
    def empty(cls, end, border, corner):
        """A matrix with zeros in column j from row j to row end[j] (exclusive, not decreasing); end has shape (n,)."""
        n = len(end)
        last = np.minimum(np.arange(TILE - 1, n + TILE - 1, TILE), max(n - 1, 0))  # column of A in each column of tiles
        column = np.arange(len(last))
        start = np.concatenate([[0], np.cumsum((end[last] - 1) // TILE + 1 - column)]).astype(np.int64)
        tiles = np.zeros((start[-1], TILE, TILE))
        beyond = np.arange(n % TILE, TILE) if n % TILE else np.zeros(0, dtype=int)
        tiles[start[-2 if n else -1] + np.zeros_like(beyond), beyond, beyond] = 1.0
        return cls(tiles, start, border, corner)

    @property
    def reach(self):
        """No element is stored further below the diagonal than this."""
        return TILE * int(np.max(np.diff(self.start), initial=1)) - 1

    @property
    def local_diagonal(self):
        """The diagonal of A, shape (n,)."""
        columns = [self.tiles[self.start[:-1], k, k] for k in range(TILE)]
        return np.stack(columns, axis=1).ravel()[: len(self.border)]

    @property
    def diagonal(self):
        """The diagonal, shape (n + m,)."""
        return np.concatenate([self.local_diagonal, np.diag(self.corner)])

    def stored(self, column, distance):
        """Whether A[column + distance, column] has a place in the tiles, for an array of columns."""
        row = column + distance
        tile = self.start[column // TILE] + row // TILE - column // TILE
        return (tile < self.start[column // TILE + 1]) & (row < len(self.border))

    def below(self, column, distance):
        """Elements A[column + distance, column] for an array of columns; 0 where none is stored."""
        row, column = column + distance, np.asarray(column)
        tile = self.start[column // TILE] + row // TILE - column // TILE
        stored = self.stored(column, distance)
        return np.where(stored, self.tiles[np.where(stored, tile, 0), column % TILE, row % TILE], 0.0)

    def add_to_diagonal(self, values):
        """Add values (n,) to the diagonal of A, in place."""
        for k, some in enumerate(padded(values).reshape(-1, TILE).T):
            self.tiles[self.start[:-1], k, k] += some

    def dense(self):
        """The full matrix, shape (n + m, n + m): for tests and small problems."""
        n = len(self.border)
        lower = np.zeros((n, n))
        for d in range(n):
            column = np.arange(n - d)
            lower[column + d, column] = self.below(column, d)
        full = lower + np.tril(lower, -1).T
        return np.block([[full, self.border], [self.border.T, self.corner]])

    def __matmul__(self, vector):
        """Product with a vector (n + m,)."""
        n = len(self.border)
        local, glob = vector[:n], vector[n:]
        out = np.zeros(TILE * (len(self.start) - 1))
        multiply(self.tiles, self.start, padded(local), out)
        return np.concatenate([out[:n] + self.border @ glob, self.border.T @ local + self.corner @ glob])

    def factor(self, damping=0.0):
        """Cholesky factor with `damping` (n + m,) added to the diagonal; None if that is not positive definite."""
        n, m = self.border.shape
        damping = np.broadcast_to(damping, (n + m,))
        matrix = BorderedBanded(self.tiles.copy(), self.start, self.border, self.corner)
        matrix.add_to_diagonal(damping[:n])
        if not banded_cholesky(matrix.tiles, self.start):
            return None
        border = padded(self.border)
        forward_substitute(matrix.tiles, self.start, border)
        try:
            schur = cho_factor(self.corner + np.diag(damping[n:]) - gram(border), lower=True) if m else None
        except (np.linalg.LinAlgError, ValueError):  # not definite, or not finite
            return None
        return Factor(matrix.tiles, self.start, border[:n], schur)


def gram(border):
    """border' border: columns that are zero for long stretches, those of single echelle orders, cost only where not."""
    out = np.zeros((border.shape[1],) * 2)
    for k in range(0, len(border), GRAM_ROWS):
        rows = border[k : k + GRAM_ROWS]
        active = np.flatnonzero(rows.any(axis=0))
        if active.size < out.shape[0]:
            rows = np.ascontiguousarray(rows[:, active])
            out[np.ix_(active, active)] += rows.T @ rows
        else:
            out += rows.T @ rows
    return out


def padded(rows):
    """A copy of (n, ...) with rows of zeros that fill the last tile."""
    out = np.zeros((-(-len(rows) // TILE) * TILE, *rows.shape[1:]))
    out[: len(rows)] = rows
    return out


@dataclass(frozen=True)
class Factor:
    """Cholesky factor of a `BorderedBanded` matrix::

        M = [ L   0 ]      L L' = A,  L W = B,  S S' = C - W' W,  M M' = H
            [ W'  S ]

    ``tiles`` and ``start`` hold L as a `BorderedBanded` holds A; ``border`` is W and ``schur`` is S as scipy's
    `cho_factor` gives it.
    """

    tiles: np.ndarray
    start: np.ndarray
    border: np.ndarray
    schur: tuple | None

    def solve(self, rhs):
        """Solution of H x = rhs, shape (n + m,) or (n + m, k)."""
        n = len(self.border)
        columns = rhs if rhs.ndim == 2 else rhs[:, None]
        local, glob = padded(columns[:n]), columns[n:]
        forward_substitute(self.tiles, self.start, local)
        if self.schur is not None:
            glob = cho_solve(self.schur, glob - self.border.T @ local[:n])
            local[:n] -= self.border @ glob
        back_substitute(self.tiles, self.start, local)
        return np.concatenate([local[:n], glob]).reshape(rhs.shape)

    def root(self, white):
        """M'^-1 @ white, shape (n + m, k): white noise becomes noise whose covariance is the inverse of H."""
        n = len(self.border)
        local, glob = padded(white[:n]), np.zeros((0, white.shape[1]))
        if self.schur is not None:
            glob = solve_triangular(self.schur[0], white[n:], lower=True, trans="T")
            local[:n] -= self.border @ glob
        back_substitute(self.tiles, self.start, local)
        return np.concatenate([local[:n], glob])

    def inverse(self):
        """The inverse near the band, its border and its corner, as a `BorderedBanded` (exact, not an approximation).

        Takahashi's recursion gives the inverse of A in the tiles of its Cholesky factor; the border adds a correction
        of rank m.
        """
        n, m = self.border.shape
        tiles = np.zeros_like(self.tiles)
        selected_inverse(self.tiles, self.start, tiles)
        if m == 0:
            return BorderedBanded(tiles, self.start, self.border, np.zeros((0, 0)))
        corner, solved = cho_solve(self.schur, np.eye(m)), padded(self.border)
        back_substitute(self.tiles, self.start, solved)  # A^-1 B
        border = -solved @ corner
        subtract_products(tiles, self.start, border, solved)
        return BorderedBanded(tiles, self.start, border[:n], corner)

    def condition(self):
        """Ratio of the factor's largest to smallest squared diagonal: a lower bound of the condition number."""
        parts = [BorderedBanded(self.tiles, self.start, self.border, None).local_diagonal]
        if self.schur is not None:
            parts.append(np.diag(self.schur[0]))
        diagonal = np.concatenate(parts)
        return float((diagonal.max() / diagonal.min()) ** 2) if diagonal.size else 1.0


@njit(**FAST)
def multiply(tiles, start, vector, out):
    """out += A vector."""
    for j in range(start.size - 1):
        own = tiles[start[j] : start[j + 1]]
        for d in range(len(own)):
            for c in range(TILE):
                column, total = TILE * j + c, 0.0
                for r in range(c if d == 0 else 0, TILE):
                    row = TILE * (j + d) + r
                    out[row] += own[d, c, r] * vector[column]
                    if row != column:
                        total += own[d, c, r] * vector[row]
                out[column] += total


@njit(**INNER)
def _factor_tile(t):
    """Cholesky factor of one tile in place; False if it is not positive definite.  What lies above is not used."""
    for c in range(TILE):
        if not t[c, c] > 0.0:
            return False
        t[c, c] = np.sqrt(t[c, c])
        inv = 1.0 / t[c, c]
        for r in range(c + 1, TILE):
            t[c, r] *= inv
        for k in range(c + 1, TILE):
            for r in range(k, TILE):
                t[k, r] -= t[c, r] * t[c, k]
    return True


@njit(**INNER)
def _divide_tiles(tiles, lower):
    """Every tile t becomes t lower'^-1."""
    i0, i1, i2, i3 = 1.0 / lower[0, 0], 1.0 / lower[1, 1], 1.0 / lower[2, 2], 1.0 / lower[3, 3]
    l10, l20, l30, l21, l31, l32 = lower[0, 1], lower[0, 2], lower[0, 3], lower[1, 2], lower[1, 3], lower[2, 3]
    for d in range(len(tiles)):
        t = tiles[d]
        for r in range(TILE):
            x0 = t[0, r] * i0
            x1 = (t[1, r] - x0 * l10) * i1
            x2 = (t[2, r] - x0 * l20 - x1 * l21) * i2
            x3 = (t[3, r] - x0 * l30 - x1 * l31 - x2 * l32) * i3
            t[0, r], t[1, r], t[2, r], t[3, r] = x0, x1, x2, x3


@njit(**INNER)
def _subtract_product(flat, t, a, b):
    """t -= a b' for tiles that begin at these places; a is held in registers."""
    a0, a1, a2, a3 = flat[a], flat[a + 1], flat[a + 2], flat[a + 3]
    a4, a5, a6, a7 = flat[a + 4], flat[a + 5], flat[a + 6], flat[a + 7]
    a8, a9, a10, a11 = flat[a + 8], flat[a + 9], flat[a + 10], flat[a + 11]
    a12, a13, a14, a15 = flat[a + 12], flat[a + 13], flat[a + 14], flat[a + 15]
    for c in range(TILE):
        b0, b1, b2, b3, k = flat[b + c], flat[b + c + 4], flat[b + c + 8], flat[b + c + 12], t + TILE * c
        t0 = flat[k] - (a0 * b0 + a4 * b1 + a8 * b2 + a12 * b3)
        t1 = flat[k + 1] - (a1 * b0 + a5 * b1 + a9 * b2 + a13 * b3)
        t2 = flat[k + 2] - (a2 * b0 + a6 * b1 + a10 * b2 + a14 * b3)
        t3 = flat[k + 3] - (a3 * b0 + a7 * b1 + a11 * b2 + a15 * b3)
        flat[k], flat[k + 1], flat[k + 2], flat[k + 3] = t0, t1, t2, t3


@njit(**FAST)
def banded_cholesky(tiles, start):
    """Cholesky factor in place; False if A is not positive definite.

    (LAPACK's dpbtrf pays for the full band, and its threads make it slower at these sizes.)
    """
    flat, size = tiles.reshape(-1), TILE * TILE
    for j in range(start.size - 1):
        first, count = start[j], start[j + 1] - start[j]
        if not _factor_tile(tiles[first]):
            return False
        _divide_tiles(tiles[first + 1 : first + count], tiles[first])
        for d in range(1, count):
            for e in range(d, count):
                _subtract_product(flat, size * (start[j + d] + e - d), size * (first + e), size * (first + d))
    return True


@njit(**FAST)
def forward_substitute(tiles, start, rhs):
    """Replace rhs, whose rows fill the tiles, by L^-1 rhs."""
    for j in range(start.size - 1):
        t, x = tiles[start[j]], rhs[TILE * j : TILE * (j + 1)]
        for k in range(rhs.shape[1]):
            x0 = x[0, k] / t[0, 0]
            x1 = (x[1, k] - t[0, 1] * x0) / t[1, 1]
            x2 = (x[2, k] - t[0, 2] * x0 - t[1, 2] * x1) / t[2, 2]
            x3 = (x[3, k] - t[0, 3] * x0 - t[1, 3] * x1 - t[2, 3] * x2) / t[3, 3]
            x[0, k], x[1, k], x[2, k], x[3, k] = x0, x1, x2, x3
        for d in range(1, start[j + 1] - start[j]):
            t = tiles[start[j] + d]
            for r in range(TILE):
                row = TILE * (j + d) + r
                for k in range(rhs.shape[1]):
                    rhs[row, k] -= t[0, r] * x[0, k] + t[1, r] * x[1, k] + t[2, r] * x[2, k] + t[3, r] * x[3, k]


@njit(**FAST)
def back_substitute(tiles, start, rhs):
    """Replace rhs, whose rows fill the tiles, by L'^-1 rhs."""
    for j in range(start.size - 2, -1, -1):
        x = rhs[TILE * j : TILE * (j + 1)]
        for d in range(1, start[j + 1] - start[j]):
            t, y = tiles[start[j] + d], rhs[TILE * (j + d) : TILE * (j + d + 1)]
            for c in range(TILE):
                for k in range(rhs.shape[1]):
                    x[c, k] -= t[c, 0] * y[0, k] + t[c, 1] * y[1, k] + t[c, 2] * y[2, k] + t[c, 3] * y[3, k]
        t = tiles[start[j]]
        for k in range(rhs.shape[1]):
            x3 = x[3, k] / t[3, 3]
            x2 = (x[2, k] - t[2, 3] * x3) / t[2, 2]
            x1 = (x[1, k] - t[1, 2] * x2 - t[1, 3] * x3) / t[1, 1]
            x0 = (x[0, k] - t[0, 1] * x1 - t[0, 2] * x2 - t[0, 3] * x3) / t[0, 0]
            x[0, k], x[1, k], x[2, k], x[3, k] = x0, x1, x2, x3


@njit(**INNER)
def _inverse_tile(lower, out):
    """out = lower'^-1 lower^-1, both triangles."""
    inv = np.zeros((TILE, TILE))  # [column, row] of lower^-1
    for c in range(TILE):
        inv[c, c] = 1.0 / lower[c, c]
        for r in range(c + 1, TILE):
            total = 0.0
            for k in range(c, r):
                total += lower[k, r] * inv[c, k]
            inv[c, r] = -total / lower[r, r]
    for c in range(TILE):
        for r in range(TILE):
            total = 0.0
            for k in range(max(c, r), TILE):
                total += inv[c, k] * inv[r, k]
            out[c, r] = total


@njit(**FAST)
def selected_inverse(tiles, start, out):
    """Elements of (L L')^-1 in the tiles of L (Takahashi's recursion, tile by tile)."""
    n = start.size - 1
    widest = 0
    for j in range(n):
        widest = max(widest, start[j + 1] - start[j])
    right = np.empty((widest, TILE, TILE))  # L_ij L_jj^-1, [column, row]
    for j in range(n - 1, -1, -1):
        first, count = start[j], start[j + 1] - start[j]
        lower, diagonal = tiles[first], out[first]
        _inverse_tile(lower, diagonal)
        for d in range(1, count):
            for r in range(TILE):
                x3 = tiles[first + d, 3, r] / lower[3, 3]
                x2 = (tiles[first + d, 2, r] - x3 * lower[2, 3]) / lower[2, 2]
                x1 = (tiles[first + d, 1, r] - x2 * lower[1, 2] - x3 * lower[1, 3]) / lower[1, 1]
                x0 = tiles[first + d, 0, r] - x1 * lower[0, 1] - x2 * lower[0, 2] - x3 * lower[0, 3]
                right[d, 0, r], right[d, 1, r], right[d, 2, r], right[d, 3, r] = x0 / lower[0, 0], x1, x2, x3
        for d in range(1, count):
            own = out[first + d]
            for e in range(1, count):
                for c in range(TILE):
                    for r in range(TILE):
                        total = 0.0
                        for k in range(TILE):
                            # of the symmetric inverse only the lower half is kept
                            other = out[start[j + e] + d - e, k, r] if d >= e else out[start[j + d] + e - d, r, k]
                            total += other * right[e, c, k]
                        own[c, r] -= total
        for d in range(1, count):
            for c in range(TILE):
                for r in range(TILE):
                    total = 0.0
                    for k in range(TILE):
                        total += right[d, r, k] * out[first + d, c, k]
                    diagonal[c, r] -= total
        # the recursion damps errors as long as they are symmetric, and can amplify others without limit
        for c in range(TILE):
            for r in range(c):
                diagonal[c, r] = diagonal[r, c] = 0.5 * (diagonal[c, r] + diagonal[r, c])


@njit(**FAST)
def subtract_products(tiles, start, left, right):
    """Subtract left right' from the tiles; their rows (n, m) fill the tiles."""
    for j in range(start.size - 1):
        for d in range(start[j + 1] - start[j]):
            for c in range(TILE):
                for r in range(TILE):
                    total = 0.0
                    for k in range(left.shape[1]):
                        total += left[TILE * (j + d) + r, k] * right[TILE * j + c, k]
                    tiles[start[j] + d, c, r] -= total
