"""Bordered banded matrices against dense linear algebra."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specutils_blase.solvers.banded import BandedCorner, BorderedBanded, DenseCorner

pytestmark = pytest.mark.usefixtures("every_target")

# n, elements below the diagonal (fewer than n), m
shapes = st.tuples(st.integers(1, 25), st.integers(0, 8), st.integers(0, 4)).map(
    lambda s: (s[0], min(s[1], s[0] - 1), s[2])
)


def random_matrix(seed, n, width, m, *, ragged=True, shift=1e-3):
    """A positive definite bordered banded matrix and its dense twin, built independently of the class."""
    rng = np.random.default_rng(seed)
    full = np.zeros((n + m, n + m))
    for j in range(n):
        # an outer product over a stretch of neighbours and all of the border
        reach = int(rng.integers(0, width + 1)) if ragged else width
        stretch = np.arange(j, min(j + reach + 1, n))
        column = np.zeros(n + m)
        column[stretch] = rng.normal(size=stretch.size)
        column[n:] = rng.normal(size=m)
        full += np.outer(column, column)
    full += shift * np.eye(n + m)
    return packed(full, n), full


def packed(full, n):
    """A dense matrix whose first n rows and columns are banded."""
    end = np.maximum.accumulate([np.flatnonzero(full[:n, j]).max(initial=j) + 1 for j in range(n)]).astype(int)
    matrix = BorderedBanded.empty(end, full[:n, n:].copy(), full[n:, n:].copy())
    for j in range(n):
        for i in range(j, end[j]):
            matrix.tiles[matrix.start[j // 4] + i // 4 - j // 4, j % 4, i % 4] = full[i, j]
    return matrix


class TestFactor:
    @settings(max_examples=40, deadline=None)
    @given(shape=shapes, seed=st.integers(0, 10_000))
    def test_is_the_dense_matrix(self, shape, seed):
        matrix, full = random_matrix(seed, *shape)
        np.testing.assert_array_equal(matrix.dense(), full)
        np.testing.assert_array_equal(matrix.diagonal, np.diag(full))
        vector = np.random.default_rng(seed).normal(size=len(full))
        np.testing.assert_allclose(matrix @ vector, full @ vector, rtol=0, atol=1e-12 * np.abs(full).sum())
        values = np.arange(1.0, shape[0] + 1)
        matrix.add_to_diagonal(values)
        full[np.arange(shape[0]), np.arange(shape[0])] += values
        np.testing.assert_array_equal(matrix.dense(), full)

    @settings(max_examples=80, deadline=None)
    @given(shape=shapes, seed=st.integers(0, 10_000), ragged=st.booleans())
    def test_solve_is_that_of_numpy(self, shape, seed, ragged):
        matrix, full = random_matrix(seed, *shape, ragged=ragged)
        rhs = np.random.default_rng(seed + 1).normal(size=len(full))
        before, given_rhs = matrix.dense(), rhs.copy()
        solution = matrix.factor().solve(rhs)
        expected = np.linalg.solve(full, rhs)
        tolerance = 1e-13 * np.linalg.cond(full) * np.abs(expected).max() + 1e-13
        assert np.abs(solution - expected).max() <= tolerance
        np.testing.assert_array_equal(matrix.dense(), before)  # neither the matrix nor the right side is used up
        np.testing.assert_array_equal(rhs, given_rhs)

    @settings(max_examples=80, deadline=None)
    @given(shape=shapes, seed=st.integers(0, 10_000), ragged=st.booleans())
    def test_inverse_near_the_band_is_that_of_numpy(self, shape, seed, ragged):
        n = shape[0]
        matrix, full = random_matrix(seed, *shape, ragged=ragged)
        factor, expected = matrix.factor(), np.linalg.inv(full)
        inverse = factor.inverse()
        tolerance = 1e-12 * np.linalg.cond(full) * np.abs(expected).max()
        np.testing.assert_allclose(inverse.corner, expected[n:, n:], rtol=0, atol=tolerance)
        np.testing.assert_allclose(inverse.border, expected[:n, n:], rtol=0, atol=tolerance)
        np.testing.assert_allclose(inverse.diagonal, np.diag(expected), rtol=0, atol=tolerance)
        # within the matrix' own pattern every element is that of the exact inverse
        for d in range(n):
            column = np.arange(n - d)
            known, stored = inverse.below(column, d), matrix.below(column, d) != 0
            is_zero = known == 0
            assert not (is_zero & stored).any()
            np.testing.assert_allclose(known[~is_zero], expected[column + d, column][~is_zero], rtol=0, atol=tolerance)
        np.testing.assert_array_equal(inverse.below(np.arange(n), inverse.reach + 1), 0.0)
        np.testing.assert_array_equal(inverse.below(np.arange(n), 0), inverse.local_diagonal)
        # sums reach what is not stored too
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.choice(n, size=rng.integers(1, n + 1), replace=False))
        weights = rng.normal(size=rows.size)
        variance = factor.group_variances(inverse, rows, weights, np.array([0, rows.size]))
        exact = weights @ expected[np.ix_(rows, rows)] @ weights
        np.testing.assert_allclose(variance, exact, rtol=0, atol=10.0 * tolerance * np.abs(weights).sum() ** 2)

    def test_envelope_that_jumps_between_narrow_and_wide(self):
        # columns without neighbours, then one that reaches far over them, then none again
        full = np.diag(np.full(12, 4.0))
        for i, j in ((5, 2), (9, 3), (4, 3), (11, 10)):
            full[i, j] = full[j, i] = 1.0
        matrix = packed(full, 12)
        rhs = np.arange(12.0)
        np.testing.assert_allclose(matrix.factor().solve(rhs), np.linalg.solve(full, rhs), rtol=1e-12)
        np.testing.assert_allclose(matrix.factor().inverse().diagonal, np.diag(np.linalg.inv(full)), rtol=1e-12)

    def test_damping_is_added_to_the_diagonal(self):
        matrix, full = random_matrix(3, 9, 2, 3)
        damping = np.linspace(0.1, 2.0, 12)
        rhs = np.ones(12)
        np.testing.assert_allclose(matrix.factor(damping).solve(rhs), np.linalg.solve(full + np.diag(damping), rhs),
                                   rtol=1e-10)  # fmt: skip
        np.testing.assert_allclose(matrix.factor(0.7).solve(rhs), np.linalg.solve(full + 0.7 * np.eye(12), rhs),
                                   rtol=1e-10)  # fmt: skip

    def test_only_a_border(self):
        corner = np.array([[2.0, 0.5], [0.5, 1.0]])
        matrix = BorderedBanded.empty(np.zeros(0, dtype=int), np.zeros((0, 2)), corner)
        np.testing.assert_allclose(matrix.factor().solve(np.array([1.0, 2.0])), np.linalg.solve(corner, [1.0, 2.0]),
                                   atol=1e-14)  # fmt: skip
        np.testing.assert_allclose(matrix.factor().inverse().corner, np.linalg.inv(corner))

    @pytest.mark.parametrize("change", ["band", "corner", "nan_band", "nan_corner"])
    def test_not_positive_definite_is_none(self, change):
        matrix, full = random_matrix(4, 8, 2, 2)
        assert np.linalg.eigvalsh(full).min() > 0
        part, value = {"band": (matrix.tiles, -1e-3), "corner": (matrix.corner, -1.0),
                       "nan_band": (matrix.tiles, np.nan), "nan_corner": (matrix.corner, np.nan)}[change]  # fmt: skip
        part[(matrix.start[1], 1, 1) if "band" in change else (1, 1)] = value
        assert matrix.factor() is None

    @settings(max_examples=60, deadline=None)
    @given(shape=shapes, seed=st.integers(0, 10_000))
    def test_root_is_a_root_of_the_inverse(self, shape, seed):
        matrix, full = random_matrix(seed, *shape, shift=0.1)
        root = matrix.factor().root(np.eye(len(full)))
        np.testing.assert_allclose(root @ root.T @ full, np.eye(len(full)), rtol=0, atol=1e-9)

    def test_indefinite_only_through_the_border_is_none(self):
        # both blocks are positive definite, the whole is not
        matrix = packed(np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 2.0], [2.0, 2.0, 1.0]]), 2)
        assert np.linalg.eigvalsh(matrix.dense()).min() < 0
        assert matrix.factor() is None
        assert matrix.factor(np.array([0.0, 0.0, 8.0])) is not None

    def test_condition_is_a_lower_bound(self):
        for seed in range(5):
            matrix, full = random_matrix(seed, 12, 3, 2)
            condition = matrix.factor().condition()
            assert 1.0 <= condition <= np.linalg.cond(full) * (1 + 1e-6)
        matrix = packed(np.diag([1.0, 1e-8]), 2)
        assert matrix.factor().condition() == pytest.approx(1e8)


class TestCorners:
    """Global parameters of parts, one after the other: a band with those of all as its border."""

    @staticmethod
    def matrix(n_common, n_own, reach, seed=0):
        rng = np.random.default_rng(seed)
        root = rng.normal(size=(n_common + n_own,) * 2)
        own = root[n_common:, n_common:]
        own *= np.abs(np.subtract.outer(np.arange(n_own), np.arange(n_own))) <= reach
        root[:n_common, n_common:] = 0.0  # lower rows of a factor: the product is banded but for the first rows
        return root @ root.T + np.diag(np.full(len(root), 0.5))

    @pytest.mark.parametrize(("n_common", "n_own", "reach"), [(0, 7, 2), (3, 1, 0), (2, 33, 4), (5, 40, 39)])
    def test_as_dense(self, n_common, n_own, reach):
        matrix = self.matrix(n_common, n_own, reach)
        corner, dense = BandedCorner.build(matrix, n_common), DenseCorner.build(matrix)
        rhs = np.random.default_rng(1).normal(size=(len(matrix), 3))
        np.testing.assert_allclose(corner.solve(rhs), np.linalg.solve(matrix, rhs), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(dense.solve(rhs), np.linalg.solve(matrix, rhs), rtol=1e-9, atol=1e-12)
        assert np.prod(corner.diagonal**2) == pytest.approx(np.linalg.det(matrix), rel=1e-9)
        for one in (corner, dense):  # white noise becomes noise whose covariance is the inverse
            root = one.root(np.eye(len(matrix)))
            np.testing.assert_allclose(root @ root.T, np.linalg.inv(matrix), rtol=1e-8, atol=1e-11)
        assert corner.factor.tiles.size < 20 * n_own * (2 * reach + 9)

    def test_what_is_nothing_is_left_out(self):
        matrix = self.matrix(2, 60, 3)
        noise = 1e-20 * np.random.default_rng(2).normal(size=matrix.shape)
        corner = BandedCorner.build(matrix + noise + noise.T, 2)
        assert corner.factor.tiles.size == BandedCorner.build(matrix, 2).factor.tiles.size

    @pytest.mark.parametrize("kind", [BandedCorner, DenseCorner])
    def test_not_definite(self, kind):
        matrix = self.matrix(2, 9, 2)
        for place in (0, 4):
            wrong = matrix.copy()
            wrong[place, place] = -1.0
            assert kind.build(wrong, 2) is None
        singular = np.ones((5, 5))
        singular[0, 0] = 0.5
        assert kind.build(singular, 1) is None
