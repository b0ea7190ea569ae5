"""Parameters that many lines share: their columns of the Jacobian, and the solution, against scipy."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from specutils_blase.solvers.banded import BorderedBanded
from specutils_blase.solvers.levenberg_marquardt import CONVERGED, levenberg_marquardt
from specutils_blase.solvers.lines import CENTER, GAMMA, SIGMA, STRENGTH, LineLayout, Lines, SampledLines
from specutils_blase.solvers.ties import LONGEST, Ties

pytestmark = pytest.mark.usefixtures("every_target")

C = 299792.458
WAVE = np.linspace(5000.0, 5012.0, 601)
WEIGHT = 200.0 + 50.0 * np.sin(WAVE)
BASIS = np.stack([np.ones(WAVE.size), (WAVE - 5006.0) / 6.0], axis=1)
COEFFICIENTS = np.array([1.1, 0.2])
LINES = Lines(np.array([5001.5, 5003.0, 5003.2, 5006.0, 5008.3, 5010.2]),
              np.array([0.05, 0.1, 0.04, -0.03, 0.08, 0.02]), np.full(6, 0.1), np.full(6, 0.04))  # fmt: skip
LIMITS = np.array([-30.0, -30.0, -30.0, -np.inf]), np.array([10.0, 10.0, 10.0, np.inf])
# strengths in two groups, Gaussian widths of all, Lorentzian widths of some, centres of some
MEMBER = np.full((6, 4), -1)
MEMBER[:, STRENGTH] = [0, 1, 0, 1, 0, -1]
MEMBER[:, SIGMA] = 2
MEMBER[1:4, GAMMA] = 3
MEMBER[:5, CENTER] = [4, 5, 4, 5, 4]


def only(*parameters):
    """`MEMBER` with these parameters alone, numbered from 0."""
    member = np.where(np.isin(np.arange(4), parameters), MEMBER, -1)
    kept = np.unique(member[member >= 0])
    return np.where(member >= 0, np.searchsorted(kept, member), -1)


def make(member, free, form="opacity", data=None, derivative_tolerance=1e-9):
    layout = LineLayout(LINES, free, *LIMITS)
    data = np.ones(WAVE.size) if data is None else data
    return SampledLines(WAVE, data, WEIGHT, BASIS, layout, form=form, coefficients=COEFFICIENTS, ties=Ties(member),
                        tolerance=1e-13, derivative_tolerance=derivative_tolerance)  # fmt: skip


def dense_jacobian(problem, theta):
    """Of the weighted residual by central differences, shape (n_pix, n)."""
    steps, velocities = np.full(theta.size, 1e-5), np.unique(problem.ties.member[:, CENTER])
    steps[theta.size - len(problem.ties) + velocities[velocities >= 0]] = 3e-3  # [km/s]
    columns = []
    for k, step in enumerate(steps):
        ends = [problem.evaluate(theta + sign * step * (np.arange(theta.size) == k))[-1] for sign in (1.0, -1.0)]
        columns.append((ends[0] - ends[1]) / (2.0 * step))
    return np.stack(columns, axis=1)


def start_off(problem, seed=1):
    return problem.start() + 0.05 * np.random.default_rng(seed).normal(size=problem.start().size)


class TestTies:
    def test_what_they_do_to_lines(self):
        ties, values = Ties(MEMBER), np.array([0.1, -0.2, 0.3, -0.4, 10.0, -5.0])
        lines = ties.apply(LINES, values)
        assert len(ties) == 6 and ties.rows == (STRENGTH, SIGMA, GAMMA, CENTER)
        np.testing.assert_allclose(lines.strength / LINES.strength, np.exp([0.1, -0.2, 0.1, -0.2, 0.1, 0.0]))
        np.testing.assert_allclose(lines.sigma / LINES.sigma, np.exp(0.3))
        np.testing.assert_allclose(lines.gamma / LINES.gamma, np.exp([0, -0.4, -0.4, -0.4, 0, 0]))
        speed = (lines.center / LINES.center - 1) * C
        np.testing.assert_allclose(speed, [10, -5, 10, -5, 10, 0], atol=1e-9)
        for ours, before in zip(ties.apply(LINES, np.zeros(6)), LINES, strict=True):
            np.testing.assert_array_equal(ours, before)

    def test_rows_are_those_that_are_tied(self):
        assert Ties(only(SIGMA, CENTER)).rows == (SIGMA, CENTER)
        assert Ties(np.full((3, 4), -1)).rows == () and len(Ties(np.full((3, 4), -1))) == 0

    def test_steps_are_shortened(self):
        moved = Ties.move(np.array([1.0, 2.0, 3.0]), np.array([0.5, 7.0, -9.0]))
        np.testing.assert_array_equal(moved, [1.5, 2.0 + LONGEST, 3.0 - LONGEST])


class TestDerivatives:
    @pytest.mark.parametrize("form", ["opacity", "product"])
    @pytest.mark.parametrize(("tied", "free"), [
        ((STRENGTH,), ()), ((STRENGTH, SIGMA, GAMMA, CENTER), ()), ((STRENGTH, CENTER), (SIGMA, GAMMA)),
        ((SIGMA, GAMMA), (STRENGTH, CENTER)), ((STRENGTH, SIGMA, GAMMA), (CENTER,)), ((CENTER,), (STRENGTH,)),
    ])  # fmt: skip
    def test_gradient_and_matrix(self, form, tied, free):
        problem = make(only(*tied), free, form)
        theta = start_off(problem)
        jacobian = dense_jacobian(problem, theta)
        gradient, matrix = problem.linearize(theta)
        assert isinstance(matrix, BorderedBanded)
        residual = problem.evaluate(theta)[-1]
        expected = jacobian.T @ residual
        np.testing.assert_allclose(gradient, expected, atol=1e-6 * np.abs(expected).max())
        scale = np.sqrt(np.diag(jacobian.T @ jacobian))
        np.testing.assert_allclose(matrix.dense() / np.outer(scale, scale),
                                   jacobian.T @ jacobian / np.outer(scale, scale), atol=1e-6)  # fmt: skip

    def test_columns_are_sums_over_members(self):
        ties = Ties(only(STRENGTH, SIGMA))
        rng = np.random.default_rng(2)
        lo, count = np.array([0, 3, 5, 5, 9, 12]), np.array([4, 4, 0, 6, 2, 3])
        offset = np.concatenate([[0], np.cumsum(count)])
        terms = rng.normal(size=(2, offset[-1]))
        expected = np.zeros((3, 15))
        for j in range(6):
            for row, parameter in enumerate((STRENGTH, SIGMA)):
                if (member := ties.member[j, parameter]) >= 0:
                    expected[member, lo[j] : lo[j] + count[j]] += terms[row, offset[j] : offset[j + 1]]
        np.testing.assert_allclose(ties.columns(terms, offset, lo, lo + count, 15), expected, rtol=1e-13)


class TestSolution:
    @pytest.mark.parametrize("form", ["opacity", "product"])
    @pytest.mark.parametrize(("tied", "free"), [
        ((STRENGTH, SIGMA, GAMMA, CENTER), ()), ((SIGMA, GAMMA), (STRENGTH, CENTER)),
        ((STRENGTH, CENTER), (SIGMA, GAMMA)),
    ])  # fmt: skip
    def test_is_that_of_scipy(self, form, tied, free):
        member = only(*tied)
        noise = np.random.default_rng(3).normal(size=WAVE.size) / WEIGHT
        clean = make(member, free, form)
        data = clean.transmission(clean.lines(start_off(clean))) * (BASIS @ COEFFICIENTS) + noise
        problem = make(member, free, form, data)
        ours = levenberg_marquardt(problem, problem.start(), rtol=1e-10, max_iterations=200)
        assert ours.status == CONVERGED
        theirs = least_squares(lambda p: problem.evaluate(p.copy())[-1], problem.start(), jac="3-point", xtol=1e-13,
                               ftol=1e-13, gtol=1e-12)  # fmt: skip
        assert ours.cost == pytest.approx(theirs.cost, rel=1e-7)
        std = np.sqrt(np.diag(np.linalg.inv(theirs.jac.T @ theirs.jac)))
        assert np.max(np.abs(ours.theta - theirs.x) / std) < 0.01

    def test_ties_far_from_the_start_are_reached(self):
        member = np.full((6, 4), -1)
        member[:, STRENGTH] = 0
        clean = make(member, ())
        data = clean.transmission(Ties(member).apply(LINES, np.array([-6.0]))) * (BASIS @ COEFFICIENTS)
        problem = make(member, (), data=data)
        solution = levenberg_marquardt(problem, problem.start(), rtol=1e-12)
        assert problem.split(solution.theta)[2] == pytest.approx(-6.0, abs=1e-5)
