"""Normal equations from flat columns against dense linear algebra."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specutils_blase.solvers.assembly import assemble, last_coupled, near_windows, project

pytestmark = pytest.mark.usefixtures("every_target")


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
        terms, offset, lo, hi, _, jacobian = random_columns(seed, *size)
        vector = np.random.default_rng(seed).normal(size=len(jacobian))
        n = len(lo) * len(terms)
        expected = jacobian[:, :n].T @ vector
        np.testing.assert_allclose(project(terms, offset, lo, hi, vector), expected, rtol=0, atol=1e-12 * len(jacobian))

    def test_nan_reaches_the_line_that_sees_it(self):
        terms, offset, lo, hi, _, _ = random_columns(2, 2, 5, 30, 1)
        vector = np.ones(30)
        vector[lo[2]] = np.nan
        is_nan = np.isnan(project(terms, offset, lo, hi, vector)).reshape(5, 2)
        np.testing.assert_array_equal(is_nan.all(axis=1), (lo <= lo[2]) & (lo[2] < hi))


class TestLastCoupled:
    @settings(max_examples=100, deadline=None)
    @given(windows=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 15)), min_size=0, max_size=12))
    def test_covers_every_overlap(self, windows):
        windows = sorted(windows)
        lo = np.array([a for a, _ in windows], dtype=np.int64)
        hi = lo + np.array([b for _, b in windows], dtype=np.int64)
        last = last_coupled(lo, hi)
        for j in range(len(lo)):
            overlaps = [k for k in range(j, len(lo)) if max(lo[j], lo[k]) < min(hi[j], hi[k])]
            assert max(overlaps, default=j) <= last[j] <= len(lo) - 1
        assert (np.diff(last) >= 0).all()

    def test_not_more_than_needed(self):
        lo = np.arange(0, 100, 10)
        for width, neighbours in ((10, 0), (11, 1), (35, 3)):
            np.testing.assert_array_equal(last_coupled(lo, lo + width), np.minimum(np.arange(10) + neighbours, 9))

    def test_one_wide_line_widens_the_band_where_it_is(self):
        lo = np.arange(0, 100, 10)
        hi = lo + 10
        hi[3] = 65
        assert last_coupled(lo, hi).tolist() == [0, 1, 2, 6, 6, 6, 6, 7, 8, 9]
