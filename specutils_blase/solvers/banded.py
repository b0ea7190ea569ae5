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
from scipy.linalg import cho_solve, cholesky, solve_triangular

from ..functional.compiled import kernels

__all__ = ["BorderedBanded", "Factor", "TILE"]

TILE = kernels.TILE
# Elements below this share of the diagonal's are nothing, to rounding and less.
NOTHING = 1e-18


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
    n_common : int, optional
        The global parameters from this one on are felt by parts of the pixels, one part after the other: they too are
        banded once the others are eliminated.  None: all are felt everywhere.
    """

    tiles: np.ndarray
    start: np.ndarray
    border: np.ndarray
    corner: np.ndarray
    n_common: int | None = None

    @classmethod
    def empty(cls, end, border, corner, n_common=None):
        """A matrix with zeros in column j from row j to row end[j] (exclusive, not decreasing); end has shape (n,)."""
        n = len(end)
        last = np.minimum(np.arange(TILE - 1, n + TILE - 1, TILE), max(n - 1, 0))  # column of A in each column of tiles
        column = np.arange(len(last))
        start = np.concatenate([[0], np.cumsum((end[last] - 1) // TILE + 1 - column)]).astype(np.int64)
        tiles = np.zeros((start[-1], TILE, TILE))
        beyond = np.arange(n % TILE, TILE) if n % TILE else np.zeros(0, dtype=int)
        tiles[start[-2 if n else -1] + np.zeros_like(beyond), beyond, beyond] = 1.0
        return cls(tiles, start, border, corner, n_common)

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
        kernels.multiply(self.tiles, self.start, padded(local), out)
        return np.concatenate([out[:n] + self.border @ glob, self.border.T @ local + self.corner @ glob])

    def sheared(self, index, rows):
        """T' H T, where T adds rows (k, n) times the global parameters `index` to the local ones; in place.

        A matrix that was put together without what these parameters do through the local ones gets it back, so that
        directions in which the two cancel are flat to rounding, whatever couplings the band leaves out.
        """
        for glob, row in zip(index, rows, strict=True):
            through = np.zeros(TILE * (len(self.start) - 1))
            kernels.multiply(self.tiles, self.start, padded(row), through)
            through = through[: len(row)]
            crossed = self.border.T @ row  # with all global parameters, those of the rows before it included
            self.corner[glob] += crossed
            self.corner[:, glob] += crossed
            self.corner[glob, glob] += row @ through
            self.border[:, glob] += through
        return self

    def factor(self, damping=0.0):
        """Cholesky factor with `damping` (n + m,) added to the diagonal; None if that is not positive definite."""
        n, m = self.border.shape
        damping = np.broadcast_to(damping, (n + m,))
        matrix = BorderedBanded(self.tiles.copy(), self.start, self.border, self.corner)
        matrix.add_to_diagonal(damping[:n])
        if not kernels.banded_cholesky(matrix.tiles, self.start):
            return None
        border = padded(self.border)
        kernels.forward_substitute(matrix.tiles, self.start, border)
        if m == 0:
            return Factor(matrix.tiles, self.start, border[:n], None)
        corner = self.corner + np.diag(damping[n:]) - gram(border)
        kind = DenseCorner if self.n_common in (None, m) else BandedCorner
        schur = kind.build(corner, self.n_common) if np.isfinite(corner).all() else None
        return None if schur is None else Factor(matrix.tiles, self.start, border[:n], schur)


def gram(border):
    """border' border, not by BLAS, whose threads wait for each other where a machine has other work."""
    out = np.zeros((border.shape[1],) * 2)
    kernels.gram_rows(border, out)
    return out


def padded(rows):
    """A copy of (n, ...) with rows of zeros that fill the last tile."""
    out = np.zeros((-(-len(rows) // TILE) * TILE, *rows.shape[1:]))
    out[: len(rows)] = rows
    return out


@dataclass(frozen=True)
class DenseCorner:
    """Cholesky factor of a dense matrix."""

    matrix: np.ndarray
    lower: np.ndarray

    @classmethod
    def build(cls, matrix, _=None):
        """None if the matrix is not positive definite."""
        try:
            return cls(matrix, cholesky(matrix, lower=True, check_finite=False))
        except np.linalg.LinAlgError:
            return None

    @property
    def diagonal(self):
        """Of the factor."""
        return np.diag(self.lower)

    def solve(self, rhs):
        """Solution for a right-hand side (m, k)."""
        return cho_solve((self.lower, True), rhs, check_finite=False)

    def root(self, white):
        """White noise (m, k) as noise whose covariance is the inverse."""
        return solve_triangular(self.lower, white, lower=True, trans="T", check_finite=False)


@dataclass(frozen=True)
class BandedCorner:
    """The same for a matrix whose first `n_common` rows are dense, and the others banded but for what is nothing."""

    matrix: np.ndarray
    n_common: int
    factor: "Factor"

    @classmethod
    def build(cls, matrix, n_common):
        """None if the matrix is not positive definite."""
        own, diagonal = matrix[n_common:, n_common:], np.diag(matrix)[n_common:]
        if not (diagonal > 0.0).all():
            return None
        size = np.sqrt(diagonal)
        felt = np.abs(own) > NOTHING * size[:, None] * size
        end = np.maximum.accumulate(len(own) - np.argmax(felt[::-1], axis=0))
        banded = BorderedBanded.empty(end, matrix[n_common:, :n_common], matrix[:n_common, :n_common])
        column = np.repeat(np.arange(len(own)), end - np.arange(len(own)))
        row = np.arange(column.size) - np.searchsorted(column, column) + column
        tile = banded.start[column // TILE] + row // TILE - column // TILE
        banded.tiles[tile, column % TILE, row % TILE] = own[row, column]
        factor = banded.factor()
        return None if factor is None else cls(matrix, n_common, factor)

    @property
    def diagonal(self):
        """Of the factor."""
        return self.factor.diagonal

    def solve(self, rhs):
        """See `DenseCorner`."""
        return np.roll(self.factor.solve(np.roll(rhs, -self.n_common, axis=0)), self.n_common, axis=0)

    def root(self, white):
        """See `DenseCorner`."""
        return np.roll(self.factor.root(np.roll(white, -self.n_common, axis=0)), self.n_common, axis=0)


@dataclass(frozen=True)
class Factor:
    """Cholesky factor of a `BorderedBanded` matrix::

        M = [ L   0 ]      L L' = A,  L W = B,  S S' = C - W' W,  M M' = H
            [ W'  S ]

    ``tiles`` and ``start`` hold L as a `BorderedBanded` holds A; ``border`` is W and ``schur`` has S.
    """

    tiles: np.ndarray
    start: np.ndarray
    border: np.ndarray
    schur: DenseCorner | BandedCorner | None

    @property
    def diagonal(self):
        """Of L and of S."""
        local = BorderedBanded(self.tiles, self.start, self.border, None).local_diagonal
        return local if self.schur is None else np.concatenate([local, self.schur.diagonal])

    def solve(self, rhs):
        """Solution of H x = rhs, shape (n + m,) or (n + m, k)."""
        n = len(self.border)
        columns = rhs if rhs.ndim == 2 else rhs[:, None]
        local, glob = padded(columns[:n]), columns[n:]
        kernels.forward_substitute(self.tiles, self.start, local)
        if self.schur is not None:
            glob = self.schur.solve(glob - self.border.T @ local[:n])
            local[:n] -= self.border @ glob
        kernels.back_substitute(self.tiles, self.start, local)
        return np.concatenate([local[:n], glob]).reshape(rhs.shape)

    def arrays(self):
        """What `from_arrays` needs, by name."""
        corner, n_common = np.zeros((0, 0)), -1
        if self.schur is not None:
            corner, n_common = self.schur.matrix, getattr(self.schur, "n_common", -1)
        return {"tiles": self.tiles, "start": self.start, "border": self.border, "corner": corner,
                "n_common": n_common}  # fmt: skip

    @classmethod
    def from_arrays(cls, tiles, start, border, corner, n_common):
        """A factor from its `arrays`, of which ``corner`` is S S'; ValueError if they do not fit together."""
        ends = start[1:] - start[:-1] + np.arange(len(start) - 1)  # the kernels rely on all of this
        fits = (
            start[0] == 0 and start[-1] == len(tiles) and tiles.shape[1:] == (TILE, TILE)
            and len(ends) == -(-len(border) // TILE) and (np.diff(start) > 0).all() and (np.diff(ends) >= 0).all()
            and (ends <= len(ends)).all() and corner.shape == (border.shape[1],) * 2 and n_common < len(corner)
        )  # fmt: skip
        if not fits:
            raise ValueError("the arrays of a covariance do not fit together")
        schur = None
        if len(corner):
            schur = DenseCorner.build(corner) if n_common < 0 else BandedCorner.build(corner, n_common)
        return cls(tiles, start, border, schur)

    def root(self, white):
        """M'^-1 @ white, shape (n + m, k): white noise becomes noise whose covariance is the inverse of H."""
        n = len(self.border)
        local, glob = padded(white[:n]), np.zeros((0, white.shape[1]))
        if self.schur is not None:
            glob = self.schur.root(white[n:])
            local[:n] -= self.border @ glob
        kernels.back_substitute(self.tiles, self.start, local)
        return np.concatenate([local[:n], glob])

    def inverse(self):
        """The inverse near the band, its border and its corner, as a `BorderedBanded` (exact, not an approximation).

        Takahashi's recursion gives the inverse of A in the tiles of its Cholesky factor; the border adds a correction
        of rank m.
        """
        n, m = self.border.shape
        tiles = np.zeros_like(self.tiles)
        kernels.selected_inverse(self.tiles, self.start, tiles)
        if m == 0:
            return BorderedBanded(tiles, self.start, self.border, np.zeros((0, 0)))
        corner, solved = self.schur.solve(np.eye(m)), padded(self.border)
        kernels.back_substitute(self.tiles, self.start, solved)  # A^-1 B
        border = -solved @ corner
        kernels.subtract_products(tiles, self.start, border, solved)
        return BorderedBanded(tiles, self.start, border[:n], corner)

    def group_variances(self, inverse, rows, weights, pointer, shared=None):
        """Variances of weighted sums of numbers in groups, shape (n_groups,), also where the inverse lacks an element.

        Parameters
        ----------
        inverse : BorderedBanded
            ``self.inverse()``.
        rows : ndarray of int, shape (k,)
            Numbers below n, group after group, increasing in each; costs grow with what lies between the ends of one.
        weights : ndarray, shape (k,)
        pointer : ndarray of int, shape (n_groups + 1,)
            Where the groups start; none is empty.
        shared : ndarray, shape (n_groups, m), optional
            Weights of the numbers in the border.
        """
        n_groups, m = len(pointer) - 1, self.border.shape[1]
        sums, by_stretch, by_rest = np.empty(n_groups), np.zeros((n_groups, m)), np.zeros((n_groups, m))
        solved = padded(self.border)
        kernels.back_substitute(self.tiles, self.start, solved)
        kernels.group_sums(self.tiles, self.start, self.border, inverse.tiles, solved, rows, weights, pointer, sums,
                           by_stretch, by_rest)  # fmt: skip
        if m == 0:
            return sums
        # M^-1 (g, s) = (y, S^-1 (s - W' y)), and W' y of what is below the stretch is U' v
        rest = (0.0 if shared is None else shared) - by_stretch
        return sums + np.einsum("gm,gm->g", rest @ inverse.corner, rest - 2.0 * by_rest)

    def condition(self):
        """Ratio of the factor's largest to smallest squared diagonal: a lower bound of the condition number."""
        diagonal = self.diagonal
        return float((diagonal.max() / diagonal.min()) ** 2) if diagonal.size else 1.0
