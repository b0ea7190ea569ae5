"""The solver and its sampled problem against finite differences and scipy.optimize."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from scipy.special import huber, voigt_profile

from specutils_blase.solvers.banded import BorderedBanded
from specutils_blase.solvers.covariance import LineCovariance, definite_factor, felt_lines
from specutils_blase.solvers.levenberg_marquardt import CONVERGED, NOT_CONVERGED, STALLED, _share, levenberg_marquardt
from specutils_blase.solvers.lines import (
    CENTER,
    GAMMA,
    SIGMA,
    STRENGTH,
    AbsolutePenalty,
    LineLayout,
    Lines,
    QuadraticPenalty,
    RunningDepth,
    SampledLines,
)

ALL = (STRENGTH, SIGMA, GAMMA, CENTER)
WIDE = np.array([-30.0, -30.0, -30.0, -np.inf]), np.array([10.0, 10.0, 10.0, np.inf])
WAVE = np.linspace(5000.0, 5012.0, 601)
# a smooth curve that has nothing to do with the package's own basis
BASIS = np.stack([np.ones(WAVE.size), (WAVE - 5006.0) / 6.0], axis=1)
COEFFICIENTS = np.array([1.1, -0.2])
ROUNDING = 0.5 * WAVE.size * 1e-12**2
TRUE = Lines(np.array([5002.0, 5003.1, 5006.0, 5009.5]), np.array([0.15, 0.05, 0.4, 0.02]),
             np.array([0.12, 0.08, 0.15, 0.1]), np.array([0.05, 0.1, 0.08, 0.02]))  # fmt: skip


def flat_model(lines, form="opacity"):
    depth = lines.strength[:, None] * voigt_profile(WAVE - lines.center[:, None], lines.sigma[:, None],
                                                    lines.gamma[:, None])  # fmt: skip
    return np.exp(-depth.sum(axis=0)) if form == "opacity" else np.prod(1.0 - depth, axis=0)


def with_changes(lines, seed, size=0.2):
    rng = np.random.default_rng(seed)
    a, s, g = (v * np.exp(rng.normal(0, size, len(lines))) for v in (lines.strength, lines.sigma, lines.gamma))
    return Lines(lines.center + rng.normal(0, 0.1 * size, len(lines)), a, s, g)


def make_problem(start=None, *, free=ALL, form="opacity", truth=TRUE, limits=WIDE, noise=0.0, continuum="free",
                 derivative_tolerance=1e-12, **options):  # fmt: skip
    """The lines `truth` on a sloping continuum, seen from `start`; a tolerance so small that windows cut nothing."""
    data = flat_model(truth, form) * (BASIS @ COEFFICIENTS)
    data = data + np.random.default_rng(5).normal(0, 1.0, WAVE.size) * noise
    weight = np.full(WAVE.size, 1.0 / noise if noise else 1.0)
    layout = LineLayout(with_changes(truth, 1) if start is None else start, free, *limits)
    glob = {"basis": BASIS, "coefficients": COEFFICIENTS * 0.97}
    if continuum == "fixed":
        glob = {"basis": BASIS[:, :0], "continuum": BASIS @ COEFFICIENTS}
    return SampledLines(WAVE, data, weight, glob.pop("basis"), layout, form=form, tolerance=1e-13,
                        derivative_tolerance=derivative_tolerance, **glob, **options)  # fmt: skip


def numeric_gradient(problem, theta, step=1e-5):
    out = np.empty(theta.size)
    for k in range(theta.size):
        d = np.zeros(theta.size)
        d[k] = step
        values = [problem.cost(theta + m * d).sum() for m in (-2, -1, 1, 2)]
        out[k] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    return out


EMISSION = Lines(TRUE.center, TRUE.strength * [1, -1, 1, -1], TRUE.sigma, TRUE.gamma)
WEAK = Lines(TRUE.center, TRUE.strength * 0.3, TRUE.sigma, TRUE.gamma)


class TestLinearize:
    @pytest.mark.parametrize("options", [
        {}, {"form": "product", "truth": WEAK}, {"truth": EMISSION}, {"free": (STRENGTH,)},
        {"free": (SIGMA, CENTER)}, {"free": (STRENGTH, GAMMA)}, {"continuum": "fixed"},
        {"continuum": "fixed", "free": (CENTER,), "form": "product", "truth": WEAK}, {"neighbours": 2},
    ], ids=["plain", "product", "emission", "strength", "sigma+center", "strength+gamma", "fixed continuum",
            "product+center", "neighbours"])  # fmt: skip
    def test_gradient_is_that_of_the_cost(self, options):
        problem = make_problem(**options)
        theta = problem.start()
        gradient, _ = problem.linearize(theta)
        assert gradient.shape == theta.shape == (problem.shape[0] * problem.shape[1] + problem.shape[2],)
        expected = numeric_gradient(problem, theta)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max())

    @pytest.mark.parametrize("kind", [QuadraticPenalty, partial(QuadraticPenalty, tail=0.5), AbsolutePenalty])
    def test_gradient_with_a_penalty(self, kind):
        local = LineLayout(with_changes(TRUE, 1), ALL, *WIDE).pack()
        rng = np.random.default_rng(0)
        penalty = kind(local + rng.normal(0, 0.3, local.shape), rng.uniform(0, 5, local.shape))
        with_it, without = make_problem(penalty=penalty), make_problem()
        theta = with_it.start()
        gradient, matrix = with_it.linearize(theta)
        expected = numeric_gradient(with_it, theta)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max())
        plain_gradient, plain = without.linearize(theta)
        assert np.abs(gradient - plain_gradient).max() > 0.1
        extra = matrix.dense() - plain.dense()
        np.testing.assert_allclose(np.diag(np.diag(extra)), extra, atol=1e-12)
        assert (np.diag(extra)[: local.size] >= 0).all()
        assert with_it.cost(theta).sum() > without.cost(theta).sum()

    def test_penalties_are_what_they_say(self):
        theta, mean, precision = np.array([[0.0, 2.0, -1.0]]), np.zeros((1, 3)), np.array([[1.0, 4.0, 3.0]])
        np.testing.assert_allclose(QuadraticPenalty(mean, precision).cost(theta), [[0.0, 8.0, 1.5]])
        np.testing.assert_allclose(AbsolutePenalty(mean, precision).cost(theta), [[0.0, 8.0, 3.0]], atol=0.02)

    @settings(max_examples=100, deadline=None)
    @given(st.floats(-30, 30), st.floats(-30, 30), st.floats(0.01, 100), st.floats(0.1, 5))
    def test_tails_of_a_quadratic_penalty(self, theta, mean, precision, tail):
        point, penalty = np.array([[theta]]), QuadraticPenalty(np.array([[mean]]), np.array([[precision]]), tail)
        expected = huber(tail, np.sqrt(precision) * (theta - mean))
        assert penalty.cost(point)[0, 0] == pytest.approx(expected, rel=1e-12, abs=1e-12)
        assert penalty.gradient(point)[0, 0] == pytest.approx(
            np.sqrt(precision) * np.clip(np.sqrt(precision) * (theta - mean), -tail, tail), rel=1e-12)
        # the parabola of the reweighted squares touches it here and lies above it everywhere
        steps = np.linspace(-10, 10, 201)[:, None]
        parabola = penalty.cost(point) + penalty.gradient(point) * steps + 0.5 * penalty.curvature(point) * steps**2
        assert np.all(parabola >= penalty.cost(point + steps) - 1e-9 * (1 + np.abs(parabola)))

    def test_no_precision_no_penalty(self):
        penalty = QuadraticPenalty(np.zeros((1, 2)), np.array([[0.0, 1.0]]), 1.0)
        theta = np.array([[1e3, 1e3]])
        assert penalty.cost(theta)[0, 0] == penalty.gradient(theta)[0, 0] == penalty.curvature(theta)[0, 0] == 0.0

    @pytest.mark.parametrize("form", ["opacity", "product"])
    def test_matrix_is_the_jacobian_squared(self, form):
        problem = make_problem(form=form, truth=WEAK)
        theta = problem.start()
        jacobian = np.empty((WAVE.size, theta.size))
        for k in range(theta.size):
            d = np.zeros(theta.size)
            d[k] = 1e-5
            jacobian[:, k] = (problem.evaluate(theta + d)[-1] - problem.evaluate(theta - d)[-1]) / 2e-5
        expected = jacobian.T @ jacobian
        np.testing.assert_allclose(problem.linearize(theta)[1].dense(), expected, rtol=1e-5,
                                   atol=1e-6 * np.diag(expected).max())  # fmt: skip

    def test_cost_is_half_the_weighted_sum_of_squares(self):
        problem = make_problem(noise=0.01)
        theta = problem.start()
        lines = problem.layout.unpack(problem.split(theta)[0])
        model = flat_model(lines) * (BASIS @ (0.97 * COEFFICIENTS))
        expected = 0.5 * np.sum(((model - problem.data) / 0.01) ** 2)
        assert problem.cost(theta).sum() == pytest.approx(expected, rel=1e-9)

    def test_groups_cover_every_pixel_once(self):
        many = Lines(np.linspace(5000.5, 5011.5, 37), np.full(37, 0.02), np.full(37, 0.05), np.full(37, 0.02))
        problem = make_problem(many, truth=with_changes(many, 3))
        costs, theta = problem.cost(problem.start()), problem.start()
        assert len(costs) == problem.group.max() + 1 > 1
        assert (np.diff(problem.group) >= 0).all()
        assert costs.sum() == pytest.approx(0.5 * np.sum(problem.evaluate(theta)[-1] ** 2), rel=1e-12)

    def test_pixels_of_weight_zero_do_not_count(self):
        problem = make_problem()
        spoiled = make_problem()
        for p in (problem, spoiled):
            p.weight = np.where((WAVE > 5002) & (WAVE < 5002.3), 0.0, 1.0)
        spoiled.data = np.where(problem.weight == 0, 50.0, problem.data)
        theta = problem.start()
        assert problem.cost(theta).sum() == spoiled.cost(theta).sum()
        for a, b in zip(problem.linearize(theta), spoiled.linearize(theta), strict=True):
            a, b = (v.dense() if isinstance(v, BorderedBanded) else v for v in (a, b))
            np.testing.assert_array_equal(a, b)


class TestLayout:
    def test_pack_and_unpack_are_inverse(self):
        for free in (ALL, (STRENGTH,), (SIGMA, GAMMA)):
            layout = LineLayout(EMISSION, free, *WIDE)
            assert layout.pack().shape == layout.shape == (4, len(free))
            for name in ("center", "strength", "sigma", "gamma"):
                back = getattr(layout.unpack(layout.pack()), name)
                np.testing.assert_allclose(back, getattr(EMISSION, name), rtol=1e-14)

    def test_theta_is_logarithms_and_shifts_in_widths(self):
        layout = LineLayout(TRUE, ALL, *WIDE)
        lines = layout.unpack(layout.pack() + np.array([0.1, 0.2, -0.3, 0.4]))
        np.testing.assert_allclose(lines.strength, TRUE.strength * np.exp(0.1))
        np.testing.assert_allclose(lines.sigma, TRUE.sigma * np.exp(0.2))
        np.testing.assert_allclose(lines.gamma, TRUE.gamma * np.exp(-0.3))
        np.testing.assert_allclose(lines.center, TRUE.center + 0.4 * (TRUE.sigma + TRUE.gamma))

    def test_moves_stay_within_the_limits(self):
        lower, upper = np.log([0.1, 0.05, 0.05, 1.0]), np.log([0.2, 0.2, 0.2, 1.0])
        lower[CENTER], upper[CENTER] = -0.1, 0.2
        layout = LineLayout(TRUE, ALL, lower, upper)
        theta = np.clip(layout.pack(), lower, upper)
        for step in (-100.0, 100.0, 0.03):
            moved = layout.move(theta, np.full((4, 4), step))
            assert (moved >= lower).all() and (moved <= upper).all()
        assert layout.at_bound(layout.move(theta, np.full((4, 4), 100.0))).all()

    def test_blocked_only_when_descending_out(self):
        layout = LineLayout(TRUE, (STRENGTH,), np.full(4, -1.0), np.full(4, 1.0))
        theta = np.array([[-1.0], [-1.0], [1.0], [1.0]])
        blocked = layout.blocked(theta, np.array([[1.0], [-1.0], [1.0], [-1.0]]))
        assert blocked.ravel().tolist() == [True, False, False, True]


class TestConvergence:
    @pytest.mark.parametrize("options", [
        {}, {"form": "product", "truth": WEAK}, {"truth": EMISSION}, {"continuum": "fixed"},
    ], ids=["plain", "product", "emission", "fixed continuum"])  # fmt: skip
    def test_recovers_exactly_representable_data(self, options):
        problem = make_problem(**options)
        # data without noise: what rounding leaves is told to the solver as an absolute tolerance
        solution = levenberg_marquardt(problem, problem.start(), rtol=1e-6, atol=ROUNDING, max_iterations=100)
        assert solution.status == CONVERGED
        truth = options.get("truth", TRUE)
        found = problem.layout.unpack(problem.split(solution.theta)[0])
        assert np.sqrt(2 * solution.cost / WAVE.size) < 1e-6
        for name in ("center", "strength", "sigma", "gamma"):
            np.testing.assert_allclose(getattr(found, name), getattr(truth, name), rtol=2e-3)
        np.testing.assert_allclose(found.center, truth.center, atol=1e-5)

    def test_same_minimum_as_scipy(self):
        problem = make_problem(noise=0.003)
        ours = levenberg_marquardt(problem, problem.start(), rtol=1e-9, max_iterations=200)

        def residual(theta):
            a, s, g, shift = theta[:16].reshape(4, 4).T
            width = problem.layout.start.width
            lines = Lines(problem.layout.start.center + shift * width, np.exp(a), np.exp(s), np.exp(g))
            return (flat_model(lines) * (BASIS @ theta[16:]) - problem.data) / 0.003

        theirs = least_squares(residual, problem.start(), x_scale="jac", xtol=1e-13, ftol=1e-13, gtol=1e-13)
        assert ours.cost == pytest.approx(theirs.cost, rel=1e-6)
        covariance = np.linalg.inv(theirs.jac.T @ theirs.jac)
        std = np.sqrt(np.diag(covariance))
        assert np.abs((ours.theta - theirs.x) / std).max() < 0.02
        # the errors of the bordered banded inverse are those of the dense one
        matrix = problem.linearize(ours.theta)[1]
        factor = definite_factor(matrix, 0.0)
        np.testing.assert_allclose(np.sqrt(factor.inverse().diagonal), std, rtol=1e-2)
        local = LineCovariance(factor, problem.layout, matrix=matrix).blocks()
        width = problem.layout.start.width
        for j in range(4):
            block = covariance[4 * j : 4 * j + 4, 4 * j : 4 * j + 4].copy()
            block[CENTER] *= width[j]
            block[:, CENTER] *= width[j]
            scale = np.sqrt(np.outer(np.diag(block), np.diag(block)))
            np.testing.assert_allclose(local[j] / scale, block / scale, atol=0.03)

    def test_same_minimum_as_scipy_with_a_quadratic_penalty(self):
        mean = LineLayout(TRUE, ALL, *WIDE).pack() + 0.1
        mean[:, CENTER] = 0.05
        precision = np.full(mean.shape, 400.0)
        problem = make_problem(noise=0.01, penalty=QuadraticPenalty(mean, precision), continuum="fixed")
        ours = levenberg_marquardt(problem, problem.start(), rtol=1e-9, max_iterations=200)

        def residual(theta):
            a, s, g, shift = theta.reshape(4, 4).T
            lines = Lines(problem.layout.start.center + shift * problem.layout.start.width, *map(np.exp, (a, s, g)))
            data = (flat_model(lines) * (BASIS @ COEFFICIENTS) - problem.data) / 0.01
            return np.concatenate([data, 20.0 * (theta - mean.ravel())])

        theirs = least_squares(residual, problem.start(), xtol=1e-13, ftol=1e-13, gtol=1e-13)
        assert ours.cost == pytest.approx(theirs.cost, rel=1e-6)
        std = np.sqrt(np.diag(np.linalg.inv(theirs.jac.T @ theirs.jac)))
        assert np.abs((ours.theta - theirs.x) / std).max() < 0.02

    def test_limits_are_respected_and_the_rest_is_still_the_minimum(self):
        lower, upper = (np.array(limit) for limit in WIDE)
        upper[STRENGTH] = np.log(0.39)  # the strongest line has 0.4
        start = with_changes(TRUE, 1)
        start.strength[2] = 0.2
        problem = make_problem(start, limits=(lower, upper), noise=0.003, continuum="fixed")
        solution = levenberg_marquardt(problem, problem.start(), rtol=1e-9, max_iterations=200)
        local, _, _ = problem.split(solution.theta)
        assert (local <= upper).all()
        assert problem.layout.at_bound(local).tolist() == [False, False, True, False]

        def residual(theta):
            a, s, g, shift = theta.reshape(4, 4).T
            lines = Lines(problem.layout.start.center + shift * problem.layout.start.width, *map(np.exp, (a, s, g)))
            return (flat_model(lines) * (BASIS @ COEFFICIENTS) - problem.data) / 0.003

        bounds = np.full(16, -np.inf), np.tile(upper, 4)
        theirs = least_squares(residual, problem.start(), bounds=bounds, xtol=1e-12, ftol=1e-12, gtol=1e-12)
        assert solution.cost == pytest.approx(theirs.cost, rel=1e-4)

    def test_the_cost_never_rises(self):
        seen = []
        problem = make_problem(with_changes(TRUE, 4, 0.6), noise=0.005)
        solution = levenberg_marquardt(problem, problem.start(), callback=lambda i, c: seen.append((i, c)))
        numbers, costs = zip(*seen, strict=True)
        assert numbers == tuple(range(1, len(seen) + 1))
        assert (np.diff([problem.cost(problem.start()).sum(), *costs]) < 0).all()
        assert solution.cost == pytest.approx(costs[-1])
        assert solution.cost == pytest.approx(problem.cost(solution.theta).sum(), rel=1e-12)


class TestStatus:
    def test_too_few_iterations(self):
        problem = make_problem(noise=0.003)
        solution = levenberg_marquardt(problem, problem.start(), max_iterations=1, rtol=1e-9)
        assert (solution.status, solution.n_iterations) == (NOT_CONVERGED, 1)
        assert "1 iteration" in solution.message
        assert solution.cost < problem.cost(problem.start()).sum()

    def test_at_the_exact_minimum_already(self):
        problem = make_problem(TRUE, continuum="fixed")
        solution = levenberg_marquardt(problem, problem.start(), atol=ROUNDING)
        assert solution.status == CONVERGED
        np.testing.assert_allclose(solution.theta, problem.start(), atol=1e-6)

    def test_a_wrong_derivative_is_not_called_convergence(self):
        problem = make_problem()
        right = problem.linearize
        problem.linearize = lambda theta: (-right(theta)[0], right(theta)[1])
        solution = levenberg_marquardt(problem, problem.start())
        assert solution.status == STALLED
        np.testing.assert_array_equal(solution.theta, problem.start())

    def test_keyboard_interrupt_of_the_callback_gets_out(self):
        problem = make_problem()

        def stop(iteration, cost):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            levenberg_marquardt(problem, problem.start(), callback=stop)

    def test_line_that_no_datum_feels_stays_and_says_so(self):
        outside = TRUE.join(Lines(np.array([5100.0]), np.array([0.1]), np.array([0.01]), np.array([0.001])))
        problem = make_problem(outside, truth=TRUE, noise=0.003, continuum="fixed", derivative_tolerance=1e-3)
        solution = levenberg_marquardt(problem, problem.start(), rtol=1e-8)
        local, _, _ = problem.split(solution.theta)
        np.testing.assert_array_equal(local[4], problem.layout.pack()[4])
        _, matrix = problem.linearize(solution.theta)
        felt = felt_lines(matrix, problem.layout)
        assert felt.tolist() == [True] * 4 + [False]
        covariance = LineCovariance(definite_factor(matrix, 0.0), problem.layout, matrix=matrix)
        assert np.isfinite(covariance.blocks()[felt]).all()

    def test_only_lines_that_no_datum_feels(self):
        far = Lines(np.array([5100.0, 5200.0]), np.full(2, 0.1), np.full(2, 0.01), np.full(2, 0.001))
        problem = make_problem(far, truth=TRUE, noise=0.003, derivative_tolerance=1e-3)
        solution = levenberg_marquardt(problem, problem.start(), rtol=1e-8)
        np.testing.assert_array_equal(problem.split(solution.theta)[0], problem.layout.pack())
        expected = np.linalg.lstsq(BASIS, problem.data, rcond=None)[0]
        np.testing.assert_allclose(problem.split(solution.theta)[1], expected, rtol=1e-4)


class TestRunningDepth:
    """Against the sum over all lines; `calls` tells how many were computed."""

    WAVE = np.linspace(5000.0, 5010.0, 500)

    def running(self):
        calls = []

        def compute(lines):
            calls.append(len(lines))
            return self.plain(lines)

        return RunningDepth(compute), calls

    def plain(self, lines):
        return (lines.strength * voigt_profile(self.WAVE[:, None] - lines.center, lines.sigma, lines.gamma)).sum(axis=1)

    def lines(self, n=20):
        rng = np.random.default_rng(3)
        return Lines(np.sort(rng.uniform(5000, 5010, n)), rng.uniform(-0.1, 0.2, n), rng.uniform(0.03, 0.1, n),
                     rng.uniform(0.01, 0.1, n))  # fmt: skip

    @pytest.mark.parametrize("row", range(4))
    def test_few_changes_cost_few_lines(self, row):
        running, calls = self.running()
        lines = self.lines()
        running(lines)
        changed = Lines(*(np.where(np.isin(np.arange(20), [3, 11]) & (k == row), 1.01 * a, a)
                          for k, a in enumerate(lines)))  # fmt: skip
        np.testing.assert_allclose(running(changed), self.plain(changed), rtol=0, atol=1e-13)
        assert calls == [20, 2, 2]
        np.testing.assert_allclose(running(lines), self.plain(lines), rtol=0, atol=1e-13)

    def test_many_changes_and_other_lines_cost_all(self):
        running, calls = self.running()
        lines = self.lines()
        running(lines)
        for other in (Lines(*(1.0001 * a for a in lines)), lines.take(np.arange(5))):
            np.testing.assert_array_equal(running(other), self.plain(other))
        assert calls == [20, 20, 5]

    def test_nan_does_not_stay(self):
        running, _ = self.running()
        lines = self.lines()
        spoiled = Lines(lines.center, np.where(np.arange(20) == 4, np.nan, lines.strength), lines.sigma, lines.gamma)
        running(lines)
        assert np.isnan(running(spoiled)).all()
        np.testing.assert_array_equal(running(lines), self.plain(lines))


def test_a_harmful_step_is_shortened_to_the_lowest_point_of_its_parabola():
    # two groups of one parameter: cost 1 - 2 t + 3 t^2 along the step of the first, falling along that of the second
    damping = SimpleNamespace(n_lines=2, q=1, group=np.array([0, 1]))
    share = _share(damping, np.array([2.0, 1.0]), np.array([-1.0, -3.0]), np.array([1.0, -2.0]))
    np.testing.assert_allclose(share, [1.0 / 3.0, 1.0])
