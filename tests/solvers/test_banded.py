"""Bordered banded matrices against dense linear algebra."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specutils_blase.solvers.banded import BorderedBanded, assemble, bandwidth, near_windows, project

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
    band = np.zeros((n, width + 1))
    for j in range(n):
        for d in range(min(width + 1, n - j)):
            band[j, d] = full[j + d, j]
    return BorderedBanded(band, full[:n, n:].copy(), full[n:, n:].copy()), full


class TestFactor:
    def test_dense_is_the_matrix(self):
        matrix, full = random_matrix(0, 11, 3, 2)
        np.testing.assert_array_equal(matrix.dense(), full)
        np.testing.assert_array_equal(matrix.diagonal, np.diag(full))

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
        n, width, m = shape
        matrix, full = random_matrix(seed, *shape, ragged=ragged)
        factor, expected = matrix.factor(), np.linalg.inv(full)
        inverse = factor.inverse()
        tolerance = 1e-12 * np.linalg.cond(full) * np.abs(expected).max()
        np.testing.assert_allclose(inverse.corner, expected[n:, n:], rtol=0, atol=tolerance)
        np.testing.assert_allclose(inverse.border, expected[:n, n:], rtol=0, atol=tolerance)
        np.testing.assert_allclose(inverse.diagonal, np.diag(expected), rtol=0, atol=tolerance)
        # within the matrix' own pattern every element is that of the exact inverse
        for j in range(n):
            for d in range(min(width + 1, n - j)):
                if matrix.band[j, d] != 0.0:
                    assert inverse.band[j, d] == pytest.approx(expected[j + d, j], rel=0, abs=tolerance)

    def test_envelope_that_jumps_between_narrow_and_wide(self):
        # columns without neighbours, then one that reaches far over them, then none again
        full = np.diag(np.full(12, 4.0))
        for i, j in ((5, 2), (9, 3), (4, 3), (11, 10)):
            full[i, j] = full[j, i] = 1.0
        band = np.zeros((12, 7))
        for j in range(12):
            for d in range(min(7, 12 - j)):
                band[j, d] = full[j + d, j]
        matrix = BorderedBanded(band, np.zeros((12, 0)), np.zeros((0, 0)))
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
        matrix = BorderedBanded(np.zeros((0, 1)), np.zeros((0, 2)), corner)
        np.testing.assert_allclose(matrix.factor().solve(np.array([1.0, 2.0])), np.linalg.solve(corner, [1.0, 2.0]),
                                   atol=1e-14)  # fmt: skip
        np.testing.assert_allclose(matrix.factor().inverse().corner, np.linalg.inv(corner))

    @pytest.mark.parametrize("change", ["band", "corner", "nan_band", "nan_corner"])
    def test_not_positive_definite_is_none(self, change):
        matrix, full = random_matrix(4, 8, 2, 2)
        assert np.linalg.eigvalsh(full).min() > 0
        part, value = {"band": (matrix.band, -1e-3), "corner": (matrix.corner, -1.0), "nan_band": (matrix.band, np.nan),
                       "nan_corner": (matrix.corner, np.nan)}[change]  # fmt: skip
        part[(5, 0) if "band" in change else (1, 1)] = value
        assert matrix.factor() is None

    @settings(max_examples=60, deadline=None)
    @given(shape=shapes, seed=st.integers(0, 10_000))
    def test_root_is_a_root_of_the_inverse(self, shape, seed):
        matrix, full = random_matrix(seed, *shape, shift=0.1)
        root = matrix.factor().root(np.eye(len(full)))
        np.testing.assert_allclose(root @ root.T @ full, np.eye(len(full)), rtol=0, atol=1e-9)

    def test_indefinite_only_through_the_border_is_none(self):
        # both blocks are positive definite, the whole is not
        matrix = BorderedBanded(np.ones((2, 1)), np.full((2, 1), 2.0), np.array([[1.0]]))
        assert np.linalg.eigvalsh(matrix.dense()).min() < 0
        assert matrix.factor() is None
        assert matrix.factor(np.array([0.0, 0.0, 8.0])) is not None

    def test_condition_is_a_lower_bound(self):
        for seed in range(5):
            matrix, full = random_matrix(seed, 12, 3, 2)
            condition = matrix.factor().condition()
            assert 1.0 <= condition <= np.linalg.cond(full) * (1 + 1e-6)
        matrix = BorderedBanded(np.array([[1.0], [1e-8]]), np.zeros((2, 0)), np.zeros((0, 0)))
        assert matrix.factor().condition() == pytest.approx(1e8)


def random_columns(seed, q, n_lines, n_pix, m):
    """Flat columns on random windows of lines sorted by centre, and the dense Jacobian (n_pix, n_lines q + m)."""
    rng = np.random.default_rng(seed)
    center = np.sort(rng.uniform(0, n_pix, n_lines))
    reach = rng.exponential(4.0, n_lines) * rng.choice([1.0, 1.0, 6.0], n_lines)
    grid = np.arange(n_pix)
    lo, hi = np.searchsorted(grid, center - reach), np.searchsorted(grid, center + reach, side="right")
    offset = np.concatenate([[0], np.cumsum(hi - lo)])
    terms = rng.normal(size=(q, offset[-1]))
    dense = rng.normal(size=(m, n_pix))
    jacobian = np.zeros((n_pix, n_lines * q + m))
    for j in range(n_lines):
        jacobian[lo[j] : hi[j], j * q : (j + 1) * q] = terms[:, offset[j] : offset[j + 1]].T
    jacobian[:, n_lines * q :] = dense.T
    return terms, offset, lo, hi, dense, jacobian


def near_part(jacobian, q, lo, hi, near_lo, near_hi):
    """The Jacobian with every line's columns cut to its near window, and the far rest of them."""
    pixel = np.arange(len(jacobian))[:, None]
    n = len(lo) * q
    inside = (pixel >= np.repeat(near_lo, q)) & (pixel < np.repeat(near_hi, q))
    near = jacobian.copy()
    near[:, :n] *= inside
    return near, jacobian - near


sizes = st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 60), st.integers(0, 3))


class TestAssemble:
    @settings(max_examples=80, deadline=None)
    @given(size=sizes, seed=st.integers(0, 10_000))
    def test_is_the_product_of_the_jacobian_with_itself(self, size, seed):
        *arguments, jacobian = random_columns(seed, *size)
        matrix = assemble(*arguments)
        np.testing.assert_allclose(matrix.dense(), jacobian.T @ jacobian, rtol=0, atol=1e-12 * len(jacobian))

    @settings(max_examples=80, deadline=None)
    @given(size=sizes, seed=st.integers(0, 10_000), cut=st.floats(0.0, 10.0))
    def test_near_couples_only_near_parts(self, size, seed, cut):
        q, n_lines = size[:2]
        *arguments, jacobian = random_columns(seed, *size)
        _, _, lo, hi, _ = arguments
        middle = (lo + hi) // 2
        windows = near_windows(lo, hi, middle - int(cut), middle + int(cut) + 1)
        assert (lo <= windows[0]).all() and (windows[0] <= windows[1]).all()
        assert (windows[1] <= np.maximum(hi, lo)).all()
        matrix = assemble(*arguments, windows)
        near, far = near_part(jacobian, q, lo, hi, *windows)
        expected = near.T @ near
        for j in range(n_lines):
            block = slice(j * q, (j + 1) * q)
            expected[block, block] += far[:, block].T @ far[:, block]
        np.testing.assert_allclose(matrix.dense(), expected, rtol=0, atol=1e-12 * len(jacobian))
        smallest = np.linalg.eigvalsh(matrix.dense()).min()
        assert smallest >= -1e-11 * max(matrix.diagonal.max(), 1.0)

    def test_many_lines_in_threads(self):
        *arguments, jacobian = random_columns(1, 3, 200, 900, 2)
        np.testing.assert_allclose(assemble(*arguments).dense(), jacobian.T @ jacobian, rtol=0, atol=1e-10)

    def test_no_lines(self):
        dense = np.array([[1.0, 2.0, 3.0]])
        none = np.zeros(0, dtype=np.int64)
        matrix = assemble(np.zeros((4, 0)), np.zeros(1, dtype=np.int64), none, none, dense)
        assert matrix.dense().tolist() == [[14.0]]


class TestProject:
    @settings(max_examples=80, deadline=None)
    @given(size=sizes, seed=st.integers(0, 10_000))
    def test_is_the_transposed_jacobian(self, size, seed):
        terms, offset, lo, _, _, jacobian = random_columns(seed, *size)
        vector = np.random.default_rng(seed).normal(size=len(jacobian))
        n = len(lo) * len(terms)
        expected = jacobian[:, :n].T @ vector
        np.testing.assert_allclose(project(terms, offset, lo, vector), expected, rtol=0, atol=1e-12 * len(jacobian))

    def test_nan_reaches_the_line_that_sees_it(self):
        terms, offset, lo, hi, _, _ = random_columns(2, 2, 5, 30, 1)
        vector = np.ones(30)
        vector[lo[2]] = np.nan
        is_nan = np.isnan(project(terms, offset, lo, vector)).reshape(5, 2)
        np.testing.assert_array_equal(is_nan.all(axis=1), (lo <= lo[2]) & (lo[2] < hi))


class TestBandwidth:
    @settings(max_examples=100, deadline=None)
    @given(windows=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 15)), min_size=0, max_size=12))
    def test_covers_every_overlap(self, windows):
        windows = sorted(windows)
        lo = np.array([a for a, _ in windows], dtype=np.int64)
        hi = lo + np.array([b for _, b in windows], dtype=np.int64)
        overlaps = [k - j for j in range(len(lo)) for k in range(j, len(lo)) if max(lo[j], lo[k]) < min(hi[j], hi[k])]
        width = bandwidth(lo, hi)
        assert max(overlaps, default=0) <= width <= max(len(lo) - 1, 0)

    def test_not_larger_than_needed_for_windows_of_one_size(self):
        lo = np.arange(0, 100, 10)
        assert bandwidth(lo, lo + 10) == 0
        assert bandwidth(lo, lo + 11) == 1
        assert bandwidth(lo, lo + 35) == 3
