"""Smooth continua against dense linear algebra: the penalty, the number of parameters, the marginal likelihood."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime

from specutils_blase.solvers.levenberg_marquardt import CONVERGED, levenberg_marquardt
from specutils_blase.solvers.lines import LineLayout, Lines
from specutils_blase.solvers.observed import ObservedLines
from specutils_blase.solvers.scene import Globals, Scene, uniform_grid
from specutils_blase.solvers.smooth import Smoothness, effective_continuum, smooth_fit, solved, spline_columns

N_PIX = 600
WAVE = 10_000.0 + 0.05 * np.arange(N_PIX)
X = np.linspace(0.0, 1.0, N_PIX)


def make_problem(data, sigma, strength, n_intervals=30, part=None):
    """Continua without any line."""
    none, part = np.zeros(0), np.zeros(N_PIX, dtype=np.int64) if part is None else part
    columns = np.empty((N_PIX, n_intervals + 3))
    for p in np.unique(part):
        mine = part == p
        columns[mine] = spline_columns(WAVE[mine], n_intervals, (WAVE[mine][0] - 0.03, WAVE[mine][-1] + 0.03))
    edges = np.stack([WAVE - 0.025, WAVE + 0.025], axis=1)
    n_parts = int(part.max()) + 1
    scene = Scene(
        grid=uniform_grid(9_999.0, 10_031.0, 1.0), step=1.0, edges=edges, resolving_power=None, matrix=None,
        basis=columns, data=data, weight=np.broadcast_to(1.0 / sigma, N_PIX), species=np.zeros(0, dtype=np.int64),
        n_species=0, form=("opacity",), limb_darkening=0.6, part=part, n_parts=n_parts,
    )  # fmt: skip
    layout = LineLayout(Lines(none, none, none, none), (), np.full(4, -np.inf), np.full(4, np.inf))
    start = Globals(0.0, 1.0, np.zeros(1), np.zeros(0), np.ones((n_parts, columns.shape[1])))
    return ObservedLines(scene, layout, start, smoothness=Smoothness(np.broadcast_to(strength, n_parts)))


def fitted(problem):
    """What `smooth_fit` makes of it, and the covariance matrix."""
    problem, solution = smooth_fit(problem, levenberg_marquardt(problem, problem.start(), rtol=1e-10))
    assert solution.status == CONVERGED
    return problem, solution, np.linalg.inv(problem.linearize(solution.theta)[1].corner)


def log_evidence(problem, strength):
    """Marginal likelihood of one continuum but for a constant: all coefficients integrated out."""
    scene = problem.scene
    columns, data = scene.basis * scene.weight[:, None], scene.data * scene.weight
    penalty = strength * Smoothness.matrix(columns.shape[1])
    normal = columns.T @ columns + penalty
    best = np.linalg.solve(normal, columns.T @ data)
    cost = np.sum((columns @ best - data) ** 2) + best @ penalty @ best
    return 0.5 * (columns.shape[1] - 4) * np.log(strength) - 0.5 * np.linalg.slogdet(normal)[1] - 0.5 * cost


class TestSplines:
    @settings(max_examples=50, deadline=None)
    @given(st.integers(1, 40), st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
    def test_sum_to_one_and_are_local(self, n_intervals, lower, span):
        wave = np.linspace(lower, lower + span, 101)
        columns = spline_columns(wave, n_intervals, (lower, lower + span))
        assert columns.shape == (101, n_intervals + 3) and np.all(columns >= 0)
        np.testing.assert_allclose(columns.sum(axis=1), 1.0, rtol=1e-12)
        assert np.count_nonzero(columns, axis=1).max() <= 4

    def test_hold_every_cubic(self):
        columns = spline_columns(X, 7, (0.0, 1.0))
        cubic = 1.0 - 2.0 * X + 3.0 * X**2 - 1.5 * X**3
        best = np.linalg.lstsq(columns, cubic, rcond=None)[0]
        np.testing.assert_allclose(columns @ best, cubic, atol=1e-12)


class TestPenalty:
    def test_gradient(self):
        rng = np.random.default_rng(1)
        penalty, point = Smoothness(np.array([3.0, 0.5])), rng.normal(size=(2, 9))
        numeric = approx_fprime(point.ravel(), lambda c: penalty.cost(c.reshape(2, 9)).sum(), 1e-6)
        np.testing.assert_allclose(penalty.gradient(point).ravel(), numeric, rtol=1e-5, atol=1e-4)

    def test_cubics_are_free(self):
        k = np.arange(12.0)
        cubic = 2.0 + 0.3 * k - 0.02 * k**2 + 0.001 * k**3
        assert Smoothness(np.array([1e6])).cost(cubic[None]).sum() < 1e-18

    def test_of_a_problem(self):
        part = np.repeat([0, 1], [250, 350])
        problem = make_problem(1.0 + 0.1 * X, 0.01, np.array([40.0, 900.0]), 8, part)
        theta = problem.start() + np.random.default_rng(2).normal(0, 0.1, problem.start().size)
        gradient, matrix = problem.linearize(theta)
        without = make_problem(1.0 + 0.1 * X, 0.01, 0.0, 8, part)
        plain_gradient, plain = without.linearize(theta)
        expected = np.zeros_like(matrix.corner)
        for p, strength in enumerate((40.0, 900.0)):
            own = slice(11 * p, 11 * p + 11)
            expected[own, own] = strength * Smoothness.matrix(11)
        np.testing.assert_allclose(matrix.corner - plain.corner, expected, atol=1e-8 * matrix.corner.max())
        np.testing.assert_allclose(gradient - plain_gradient, expected @ theta, atol=1e-9 * np.abs(gradient).max())
        assert problem.cost(theta).sum() - without.cost(theta).sum() == pytest.approx(0.5 * theta @ expected @ theta)


class TestSmoothFit:
    @pytest.mark.parametrize("start", [1e-1, 1e2, 1e4])
    @pytest.mark.parametrize("kind", ["ripple", "blaze", "walk"])
    def test_marginal_likelihood_is_largest(self, kind, start):
        rng = np.random.default_rng(5)
        level = {"ripple": 1.0 + 0.03 * np.sin(40.0 * X), "blaze": 1.0 - (X - 0.4) ** 2,
                 "walk": 1.0 + 0.02 * np.cumsum(np.cumsum(rng.normal(size=N_PIX))) / N_PIX}[kind]  # fmt: skip
        problem, solution, covariance = fitted(make_problem(level + 0.01 * rng.normal(size=N_PIX), 0.01, start))
        trials = np.geomspace(1e-2, 1e10, 400)
        evidence = [log_evidence(problem, trial) for trial in trials]
        assert log_evidence(problem, problem.smoothness.strength[0]) > max(evidence) - 0.02
        found = problem.evaluate(solution.theta).continuum
        assert np.std(found - level) < 0.005
        # and the errors of the continuum are right
        error = np.sqrt(np.einsum("pm,mn,pn->p", problem.scene.basis, covariance, problem.scene.basis))
        assert 0.5 < np.sqrt(np.mean(((found - level) / error) ** 2)) < 1.5

    def test_a_cubic_needs_four_parameters(self):
        data = 1.0 + 0.2 * X - 0.5 * X**3 + 0.01 * np.random.default_rng(3).normal(size=N_PIX)
        problem, _, covariance = fitted(make_problem(data, 0.01, 400.0))
        assert effective_continuum(problem, covariance)[0] < 5.0

    def test_number_of_parameters_is_the_trace_of_the_hat_matrix(self):
        data = 1.0 + 0.03 * np.sin(40.0 * X) + 0.01 * np.random.default_rng(4).normal(size=N_PIX)
        problem, _, covariance = fitted(make_problem(data, 0.01, 400.0))
        columns = problem.scene.basis / 0.01
        hat = columns @ covariance @ columns.T
        assert effective_continuum(problem, covariance)[0] == pytest.approx(np.trace(hat), rel=1e-8)
        assert 12 < np.trace(hat) < 33

    def test_every_order_has_its_own(self):
        part = np.repeat([0, 1], 300)
        level = np.where(part == 0, 1.0 + 0.03 * np.sin(40.0 * X), 0.8 + 0.1 * X)
        data = level + 0.01 * np.random.default_rng(6).normal(size=N_PIX)
        problem, _, covariance = fitted(make_problem(data, 0.01, 400.0, 15, part))
        rippled, straight = effective_continuum(problem, covariance)
        assert rippled > 8 and straight < 6

    def test_errors_of_the_model_are_not_followed(self):
        """Residuals three times as wide as their errors: as smooth as with right errors."""
        data = 1.0 + 0.03 * np.sin(40.0 * X) + 0.01 * np.random.default_rng(7).normal(size=N_PIX)
        numbers = []
        for sigma in (0.01, 0.01 / 3.0):
            problem, _, covariance = fitted(make_problem(data, sigma, 400.0))
            numbers.append(effective_continuum(problem, covariance)[0])
        assert numbers[1] == pytest.approx(numbers[0], abs=1.5)

    def test_with_cosmic_rays(self):
        rng = np.random.default_rng(8)
        level = 1.0 + 0.03 * np.sin(40.0 * X)
        data = level + 0.01 * rng.normal(size=N_PIX)
        hit = rng.choice(N_PIX, 12, replace=False)
        data[hit] += rng.uniform(0.2, 2.0, hit.size)
        problem, solution, share = solved(make_problem(data, 0.01, 400.0), True, rtol=1e-10)
        assert np.all(share[hit] < 0.1) and np.count_nonzero(share < 0.5) < 20
        assert np.std(problem.evaluate(solution.theta).continuum - level) < 0.005
