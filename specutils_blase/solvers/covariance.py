"""Covariances of line parameters, from the factor of the normal equations: of one line, of any two, of sums."""

from dataclasses import replace

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from .banded import Factor
from .levenberg_marquardt import FENCE
from .lines import CENTER, STRENGTH

__all__ = ["LineCovariance", "StoredCovariance", "definite_factor", "felt_lines", "fenced"]

# Strengths that correlate by more than this are not known apart; of three equal lines no two do by more than a half,
# but each overlaps the others as much as can be.
CORRELATED = 0.7
# Right-hand sides that are solved for at a time; sums times global parameters that are worked on at a time.
CHUNK, SUMS = 64, 2**22


class StoredCovariance:
    """
    As much of a `LineCovariance` as `between` needs, and files hold.

    Parameters
    ----------
    factor : Factor
    parts : list of (ndarray of int, ndarray), shape (n_lines, 4) each
        Numbers of the solver that make the parameters (-1: none), and the derivatives with respect to them.
    scale : ndarray, shape (n_lines,)
    """

    def __init__(self, factor, parts, scale):
        self.factor, self.parts, self.scale = factor, parts, scale

    def arrays(self):
        """What `from_arrays` needs, by name."""
        place, unit = (np.stack(arrays) for arrays in zip(*self.parts, strict=True))
        return {**self.factor.arrays(), "place": place, "unit": unit, "scale": np.array(self.scale)}

    @classmethod
    def from_arrays(cls, place, unit, scale, **factor):
        """A covariance from its `arrays`; ValueError if they do not fit together."""
        known = Factor.from_arrays(**factor)
        if not (place.shape == unit.shape == (len(place), len(scale), 4) and place.min(initial=-1) >= -1
                and place.max(initial=-1) < sum(known.border.shape)):  # fmt: skip
            raise ValueError("the lines of a covariance are not those of its matrix")
        return cls(known, list(zip(place, unit, strict=True)), scale)

    def between(self, gradient, index):
        """
        The covariance of one quantity of each of some lines, exact however far apart they are.

        Parameters
        ----------
        gradient : ndarray, shape (n_lines, 4)
            Derivatives of every line's quantity.
        index : ndarray of int, shape (k,)

        Returns
        -------
        ndarray, shape (k, k)
        """
        size = sum(self.factor.border.shape)
        terms = [(place[index], unit[index] * gradient[index]) for place, unit in self.parts]
        out = np.zeros((len(index), len(index)))
        for start in range(0, len(index), CHUNK):
            part = slice(start, start + CHUNK)
            rhs = np.zeros((size, len(index[part])))
            for place, weight in terms:
                line, parameter = np.nonzero(place[part] >= 0)
                np.add.at(rhs, (place[part][line, parameter], line), weight[part][line, parameter])
            solved = self.factor.solve(rhs)
            for place, weight in terms:
                out[:, part] += np.einsum("ja,jak->jk", np.where(place >= 0, weight, 0.0), solved[place])
        return out * self.scale[index] * self.scale[index][:, None]


class LineCovariance(StoredCovariance):
    """
    Covariances of (ln |strength|, ln sigma, ln gamma, centre [Angstrom]) of lines.

    Each of them is the sum of a number of the solver that is the line's own and of one that it shares with others (the
    column of a telluric species, a tie), or of none.

    Parameters
    ----------
    factor : Factor
        Of the normal matrix.
    layout : LineLayout
    matrix : BorderedBanded
        The normal matrix itself.
    inverse : BorderedBanded, optional
        ``factor.inverse()`` where that is there already.
    held : ndarray of bool, shape (n_lines, q), optional
        Free parameters of the layout that do not move in these lines.
    shared : ndarray of int, shape (n_lines, 4), optional
        Which of the global parameters acts on this one; -1: none.
    shared_unit : ndarray, shape (n_lines, 4), optional
        Derivatives with respect to these global parameters, default 1.
    given : sequence of int
        Global parameters that are taken as known where lines are compared: with the column of a species all its
        strengths move together, and are reported with it.
    scale : float or ndarray, shape (n_lines,)
        What the standard deviations are multiplied by.
    """

    def __init__(self, factor, layout, *, matrix, inverse=None, held=None, shared=None, shared_unit=None, given=(),
                 scale=1.0):  # fmt: skip
        n, q = layout.shape
        self.matrix, self.inverse = matrix, factor.inverse() if inverse is None else inverse
        self.n_local = n * q
        self.given = list(given)
        own = np.full((n, 4), -1)
        own[:, list(layout.free)] = np.arange(n * q).reshape(n, q)
        if held is not None:
            own[:, list(layout.free)] = np.where(held, -1, own[:, list(layout.free)])
        unit = np.ones((n, 4))
        unit[:, CENTER] = layout.start.width
        parts = [(own, unit)]
        if shared is not None:
            place = np.where(shared >= 0, shared + self.n_local, -1)
            parts.append((place, np.ones((n, 4)) if shared_unit is None else shared_unit))
        super().__init__(factor, parts, np.broadcast_to(scale, n))

    def blocks(self):
        """The covariance of every line's own parameters, shape (n_lines, 4, 4); zero for those that are not free."""
        out = np.zeros((len(self.scale), 4, 4))
        for first, unit in self.parts:
            for second, other in self.parts:
                for a in range(4):
                    for b in range(4):
                        out[:, a, b] += self._elements(first[:, a], second[:, b]) * unit[:, a] * other[:, b]
        return out * np.square(self.scale)[:, None, None]

    def _elements(self, row, column):
        """Elements of the inverse; 0 where an index is negative or where none is stored."""
        n, inverse = self.n_local, self.inverse
        low, high = np.minimum(row, column), np.maximum(row, column)
        out = np.zeros(low.shape)
        band, border, corner = (low >= 0) & (high < n), (low >= 0) & (low < n) & (high >= n), low >= n
        out[band] = inverse.below(low[band], (high - low)[band])
        out[border] = inverse.border[low[border], high[border] - n]
        out[corner] = inverse.corner[low[corner] - n, high[corner] - n]
        return out

    def strength_variances(self):
        """Variances of the lines' own ln |strength| where the global parameters `given` are known, (n_lines,).

        Not scaled; and what is known through them, as border (n_lines, k) and precision (k, k).
        """
        place = self.parts[0][0][:, STRENGTH]
        border = np.where(place[:, None] >= 0, self.inverse.border[place][:, self.given], 0.0)
        precision = np.linalg.pinv(self.inverse.corner[np.ix_(self.given, self.given)], hermitian=True)
        known = np.einsum("ja,ab,jb->j", border, precision, border)
        return np.maximum(self._elements(place, place) - known, 0.0), border, precision

    def correlated(self):
        """Pairs of lines that are not known apart, shape (2, n_pairs).

        Their strengths correlate, or the derivatives with respect to them overlap, by more than `CORRELATED`.
        """
        place = self.parts[0][0][:, STRENGTH]
        n, q = len(place), self.n_local // max(len(place), 1)
        if q == 0:
            return np.zeros((2, 0), dtype=np.int64)
        variance, border, precision = self.strength_variances()
        std, known = np.sqrt(variance), border @ precision
        felt = np.where(place >= 0, np.sqrt(np.maximum(self.matrix.local_diagonal[place], 0.0)), np.inf)
        pairs = [np.zeros((2, 0), dtype=np.int64)]
        for d in range(1, min(n, self.inverse.reach // q + 1)):
            stored = self._elements(place[:-d], place[d:])  # zero where two lines do not overlap
            own = stored - np.sum(known[:-d] * border[d:], axis=1)
            strong = (stored != 0) & (np.abs(own) > CORRELATED * std[:-d] * std[d:])
            near = np.minimum(place[:-d], place[d:]) >= 0
            overlap = self.matrix.below(np.where(near, place[:-d], 0), np.where(near, place[d:] - place[:-d], 0))
            strong |= near & (np.abs(overlap) > CORRELATED * felt[:-d] * felt[d:])
            pairs.append(np.flatnonzero(strong) + np.array([[0], [d]]))
        return np.concatenate(pairs, axis=1)

    def blends(self):
        """The blend of every line: the lines that correlate, directly or through others; -1 for none, (n_lines,)."""
        pairs, n = self.correlated(), len(self.scale)
        label = connected_components(coo_matrix((np.ones(pairs.shape[1]), pairs), shape=(n, n)), directed=False)[1]
        blended = np.bincount(label, minlength=n)[label] > 1
        out = np.full(n, -1)
        out[blended] = np.unique(label[blended], return_inverse=True)[1]
        return out

    def sums(self, gradient, label):
        """Variances of the sums of a quantity over the lines of every label (-1: none), shape (max(label) + 1,)."""
        out = np.zeros(int(label.max(initial=-1)) + 1)
        line = np.argsort(label, kind="stable")
        line = line[label[line] >= 0]
        (own, unit), *others = self.parts
        weight = gradient * self.scale[:, None]
        row = own[line]
        is_own = (row >= 0) & (gradient != 0.0).any(axis=0)
        group = np.broadcast_to(label[line][:, None], row.shape)[is_own]
        row, local = row[is_own], (weight * unit)[line][is_own]
        m = len(self.inverse.corner)
        count = max(SUMS // max(m, 1), 1)
        for start in range(0, len(out), count):
            begin, end = np.searchsorted(group, (start, start + count))
            shared = np.zeros((min(count, len(out) - start), m))
            mine = line[slice(*np.searchsorted(label[line], (start, start + count)))]
            for place, factor in others:
                member, parameter = np.nonzero(place[mine] >= 0)
                np.add.at(shared, (label[mine][member] - start, place[mine][member, parameter] - self.n_local),
                          (weight * factor)[mine][member, parameter])  # fmt: skip
            felt, first = np.unique(group[begin:end], return_index=True)
            pointer = np.append(first, end - begin)
            some = slice(start, start + len(shared))
            out[some] = np.einsum("gm,gm->g", shared @ self.inverse.corner, shared)
            out[felt] = self.factor.group_variances(self.inverse, row[begin:end], local[begin:end], pointer,
                                                    shared[felt - start])  # fmt: skip
        return out


def felt_lines(matrix, layout):
    """False for lines of which no datum knows, shape (n_lines,)."""
    return matrix.local_diagonal.reshape(layout.shape).any(axis=1) if layout.free else np.ones(layout.shape[0], bool)


def fenced(matrix, blocked):
    """The matrix with an enormous curvature of those global parameters (m,) that are at a limit: they do not move."""
    return replace(matrix, corner=matrix.corner + np.diag(np.where(blocked, FENCE * np.diag(matrix.corner), 0.0)))


def definite_factor(matrix, ridge):
    """The factor of a semi-definite matrix with the first of ridge, 10 ridge, ... that makes it definite."""
    factor = matrix.factor(ridge)
    while factor is None:
        ridge = max(10.0 * ridge, 1e-14 * float(matrix.diagonal.max()))
        factor = matrix.factor(ridge)
    return factor
