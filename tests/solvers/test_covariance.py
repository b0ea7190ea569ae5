"""Covariances of lines against a dense inverse of the same matrix."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specutils_blase.solvers import covariance
from specutils_blase.solvers.covariance import LineCovariance
from specutils_blase.solvers.lines import CENTER, GAMMA, SIGMA, STRENGTH, LineLayout, Lines, SampledLines

ALL = (STRENGTH, SIGMA, GAMMA, CENTER)
WAVE = np.linspace(5000.0, 5012.0, 601)
BASIS = np.stack([np.ones(WAVE.size), (WAVE - 5006.0) / 6.0], axis=1)
# a lone line, a close pair, a chain of three that only its middle holds together, a far one
LINES = Lines(np.array([5001.0, 5003.0, 5003.08, 5006.0, 5006.1, 5006.2, 5010.0]), np.full(7, 0.05),
              np.full(7, 0.1), np.full(7, 0.03))  # fmt: skip
LIMITS = np.array([-30.0, -30.0, -30.0, -np.inf]), np.array([10.0, 10.0, 10.0, np.inf])


def normal_matrix(free, lines=LINES):
    layout = LineLayout(lines, free, *LIMITS)
    problem = SampledLines(WAVE, np.ones(WAVE.size), np.full(WAVE.size, 300.0), BASIS, layout,
                           coefficients=np.array([1.0, 0.1]))  # fmt: skip
    return problem.linearize(problem.start())[1], layout


def dense_covariance(matrix, layout, shared=None, held=None):
    """Of all (n_lines, 4) parameters, from the dense inverse and a dense Jacobian."""
    n, q = layout.shape
    full = matrix.dense()
    jacobian = np.zeros((n, 4, len(full)))
    for j in range(n):
        for k, parameter in enumerate(layout.free):
            if held is None or not held[j, k]:
                jacobian[j, parameter, q * j + k] = layout.start.width[j] if parameter == CENTER else 1.0
        for parameter in range(4):
            if shared is not None and shared[j, parameter] >= 0:
                jacobian[j, parameter, n * q + shared[j, parameter]] += 1.0
    return np.einsum("jai,ik,lbk->jalb", jacobian, np.linalg.inv(full), jacobian)


class TestAgainstADenseInverse:
    @pytest.mark.parametrize("free", [ALL, (STRENGTH,), (STRENGTH, CENTER), (SIGMA, GAMMA)])
    @pytest.mark.parametrize("is_shared", [False, True])
    @pytest.mark.parametrize("is_held", [False, True])
    def test_blocks_pairs_and_sums(self, free, is_shared, is_held):
        matrix, layout = normal_matrix(free)
        shared = np.full((7, 4), -1)
        shared[2:5, STRENGTH] = 1
        shared = shared if is_shared else None
        held = np.zeros(layout.shape, dtype=bool)
        held[[0, 3]] = is_held
        ours = LineCovariance(matrix.factor(), layout, matrix=matrix, shared=shared, held=held, scale=2.0)
        dense = 4.0 * dense_covariance(matrix, layout, shared, held)
        size = np.abs(dense).max()
        np.testing.assert_allclose(ours.blocks(), np.einsum("jajb->jab", dense), atol=1e-10 * size)
        gradient = np.random.default_rng(1).normal(size=(7, 4))
        expected = np.einsum("ja,jalb,lb->jl", gradient, dense, gradient)
        index = np.array([6, 1, 2, 4])
        np.testing.assert_allclose(ours.between(gradient, index), expected[np.ix_(index, index)], atol=1e-10 * size)
        label = np.array([-1, 0, 0, 1, 1, 1, -1])
        sums = [expected[1:3, 1:3].sum(), expected[3:6, 3:6].sum()]
        np.testing.assert_allclose(ours.sums(gradient, label), sums, atol=1e-10 * size)

    def test_of_a_long_crowded_forest(self):
        # errors of rounding grew from line to line, to 1e50 times the variances
        n, rng = 150, np.random.default_rng(1)
        wave = np.arange(0.0, 62.0, 0.02)
        lines = Lines(np.sort(rng.uniform(1.0, 61.0, n)), rng.uniform(0.05, 0.2, n), rng.uniform(0.06, 0.1, n),
                      rng.uniform(0.03, 0.08, n))  # fmt: skip
        layout = LineLayout(lines, ALL, *LIMITS)
        problem = SampledLines(wave, np.ones(wave.size), np.full(wave.size, 300.0), np.ones((wave.size, 1)), layout,
                               coefficients=np.ones(1), neighbours=12)  # fmt: skip
        matrix = problem.linearize(problem.start())[1]
        expected = np.linalg.inv(matrix.dense() + 1e-3 * np.eye(4 * n + 1))
        factor = matrix.factor(1e-3)
        inverse = factor.inverse()
        np.testing.assert_allclose(inverse.diagonal, np.diag(expected), rtol=1e-4)
        # sums of two lines further and further apart, and one of all of them
        rows = np.concatenate([[[2, row] for row in range(6, 4 * n, 4)], [[0, 1]]]).ravel()
        pairs = expected[2, 2] + 2.0 * expected[2, 6:-1:4] + np.diag(expected)[6:-1:4]
        ours = factor.group_variances(inverse, rows, np.ones(rows.size), np.arange(0, rows.size + 1, 2))
        np.testing.assert_allclose(ours[:-1], pairs, rtol=1e-4)
        every = factor.group_variances(inverse, np.arange(4 * n), np.ones(4 * n), np.array([0, 4 * n]))
        np.testing.assert_allclose(every, expected[:-1, :-1].sum(), rtol=1e-4)

    @pytest.mark.parametrize("at_a_time", [1, 2**22])
    def test_sums_over_lines_that_are_far_apart(self, at_a_time, monkeypatch):
        monkeypatch.setattr(covariance, "SUMS", at_a_time)
        matrix, layout = normal_matrix(ALL)
        assert not matrix.stored(0, 4 * 6)
        ours = LineCovariance(matrix.factor(), layout, matrix=matrix)
        gradient = np.ones((7, 4))
        expected = np.einsum("jalb->jl", dense_covariance(matrix, layout))
        label = np.array([0, 1, 1, -1, -1, -1, 0])
        np.testing.assert_allclose(ours.sums(gradient, label),
                                   [expected[np.ix_(i, i)].sum() for i in ([0, 6], [1, 2])], rtol=1e-9)  # fmt: skip

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.sampled_from([ALL, (STRENGTH,), (STRENGTH, CENTER)]))
    def test_any_sums(self, seed, n, free):
        rng = np.random.default_rng(seed)
        lines = Lines(np.sort(rng.uniform(5000.5, 5011.5, n)), rng.uniform(0.01, 0.1, n), rng.uniform(0.05, 0.15, n),
                      np.full(n, 0.03))  # fmt: skip
        matrix, layout = normal_matrix(free, lines)
        matrix.add_to_diagonal(np.full(n * len(free), 10.0))
        shared = np.where(rng.random((n, 4)) < 0.2, rng.integers(0, 2, (n, 4)), -1) if rng.random() < 0.5 else None
        held = rng.random((n, len(free))) < 0.3
        scale = rng.uniform(0.5, 2.0, n)
        ours = LineCovariance(matrix.factor(), layout, matrix=matrix, shared=shared, held=held, scale=scale)
        gradient = rng.normal(size=(n, 4)) * rng.integers(0, 2, 4)
        # sums over neighbours, over lines anywhere, over many and over one
        label = np.unique(rng.integers(0, rng.integers(1, 20), n), return_inverse=True)[1]
        label = np.where(rng.random(n) < 0.2, -1, label)
        label[label >= 0] = np.unique(label[label >= 0], return_inverse=True)[1]
        scaled = dense_covariance(matrix, layout, shared, held) * scale[:, None, None, None] * scale[:, None]
        expected = np.einsum("ja,jalb,lb->jl", gradient, scaled, gradient)
        member = label == np.arange(label.max() + 1)[:, None]
        np.testing.assert_allclose(ours.sums(gradient, label), np.einsum("gj,jl,gl->g", member, expected, member),
                                   rtol=1e-9, atol=1e-12 * np.abs(expected).max(initial=0.0))  # fmt: skip

    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.floats(5000.5, 5011.5), min_size=2, max_size=90), st.integers(0, 99))
    def test_any_lines(self, centers, seed):
        n = len(centers)
        rng = np.random.default_rng(seed)
        lines = Lines(np.sort(centers), rng.uniform(0.01, 0.1, n), rng.uniform(0.05, 0.15, n), np.full(n, 0.03))
        matrix, layout = normal_matrix((STRENGTH,), lines)
        matrix.add_to_diagonal(np.full(n, 10.0))  # a prior: lines may coincide
        ours = LineCovariance(matrix.factor(), layout, matrix=matrix)
        dense = dense_covariance(matrix, layout)[:, 0, :, 0]
        gradient = np.zeros((n, 4))
        gradient[:, STRENGTH] = 1.0
        np.testing.assert_allclose(ours.between(gradient, np.arange(n)), dense, rtol=1e-8, atol=1e-10)
        blend = ours.blends()
        for first, second in ours.correlated().T:
            assert blend[first] == blend[second] >= 0


class TestBlends:
    def test_pair_and_chain(self):
        matrix, layout = normal_matrix((STRENGTH,))
        ours = LineCovariance(matrix.factor(), layout, matrix=matrix)
        dense = dense_covariance(matrix, layout)[:, 0, :, 0]
        correlation = dense / np.sqrt(np.outer(np.diag(dense), np.diag(dense)))
        normal = matrix.dense()[:7, :7]
        overlap = normal / np.sqrt(np.outer(np.diag(normal), np.diag(normal)))
        expected = np.argwhere(np.triu((np.abs(correlation) > 0.7) | (np.abs(overlap) > 0.7), 1))
        assert sorted(ours.correlated().T.tolist()) == expected.tolist()
        assert ours.blends().tolist() == [-1, 0, 0, 1, 1, 1, -1]

    def test_the_sum_of_a_blend_is_known_better_than_its_parts(self):
        matrix, layout = normal_matrix((STRENGTH,))
        ours = LineCovariance(matrix.factor(), layout, matrix=matrix)
        gradient = np.zeros((7, 4))
        gradient[:, STRENGTH] = LINES.strength
        parts = np.sqrt(np.diag(ours.between(gradient, np.arange(7))))
        total = np.sqrt(ours.sums(gradient, ours.blends()))
        assert total[0] < 0.6 * parts[1:3].min()
        assert total[1] < 0.6 * parts[3:6].min()

    @pytest.mark.parametrize("count", [2, 3, 5, 8])
    def test_equal_lines_are_one_blend(self, count):
        """No two of three equal lines correlate by more than a half, and still only their sum is known."""
        lines = LINES.take([0] + [3] * count)
        matrix, layout = normal_matrix((STRENGTH,), lines)
        matrix.add_to_diagonal(np.full(count + 1, 1e-3))
        ours = LineCovariance(matrix.factor(), layout, matrix=matrix)
        assert ours.blends().tolist() == [-1] + [0] * count
        gradient = np.zeros((count + 1, 4))
        gradient[:, STRENGTH] = lines.strength
        parts = np.sqrt(np.diag(ours.between(gradient, np.arange(count + 1))))
        assert np.sqrt(ours.sums(gradient, ours.blends())[0]) < 0.05 * parts[1:].min()

    def test_none(self):
        lines = LINES.take([0, 6])
        matrix, layout = normal_matrix((STRENGTH,), lines)
        ours = LineCovariance(matrix.factor(), layout, matrix=matrix)
        assert ours.blends().tolist() == [-1, -1]
        assert ours.sums(np.ones((2, 4)), ours.blends()).size == 0

    def test_lines_without_a_free_strength_have_none(self):
        matrix, layout = normal_matrix((SIGMA, GAMMA))
        assert LineCovariance(matrix.factor(), layout, matrix=matrix).blends().max() == -1
