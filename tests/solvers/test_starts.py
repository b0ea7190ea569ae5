"""What starts are worth, against dense matrices, injected scatter and least squares."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from specutils_blase.functional.constants import FWHM_PER_SIGMA
from specutils_blase.modeling import VoigtForest1D
from specutils_blase.solvers.lines import CENTER, COUPLED, SIGMA, STRENGTH, LineLayout, Lines, SampledLines
from specutils_blase.solvers.starts import StartedFit, expected_error, fit_from_starts, start_scatter

NOISE = 0.002
WEAK = np.array([2.0, 1.0, 1.0, 1.0])
LOWER, UPPER = np.array([-50.0, -50.0, -50.0, -np.inf]), np.array([20.0, 20.0, 20.0, np.inf])


def forest(n, spacing=0.4, seed=0):
    rng = np.random.default_rng(seed)
    center = np.sort(rng.uniform(0.0, n * spacing, n)) + 5000.0
    return Lines(center, rng.lognormal(-4.0, 0.5, n), rng.uniform(0.03, 0.06, n), rng.uniform(0.01, 0.04, n))


def observe(lines, noise=NOISE, seed=1):
    wave = np.arange(lines.center[0] - 1.0, lines.center[-1] + 1.0, 0.02)
    model = VoigtForest1D(lines.center, lines.strength, lines.sigma * FWHM_PER_SIGMA, 2.0 * lines.gamma)
    return wave, model(wave) + np.random.default_rng(seed).normal(0.0, noise, wave.size)


def off(lines, scatter, seed=2):
    """Lines with errors of (ln strength, ln sigma, ln gamma, widths)."""
    error = np.random.default_rng(seed).normal(size=(4, len(lines))) * np.reshape(scatter, (4, 1))
    strength, sigma, gamma = (a * np.exp(e) for a, e in zip((lines.strength, lines.sigma, lines.gamma), error[:3],
                                                             strict=True))  # fmt: skip
    return Lines(lines.center + error[3] * lines.width, strength, sigma, gamma)


def make_problem(start, wave, data, noise=NOISE, free=(0, 1, 2, 3)):
    layout = LineLayout(start, free, LOWER, UPPER)
    one = np.ones(wave.size)
    return SampledLines(wave, data, one / noise, np.ones((wave.size, 1)), layout, coefficients=np.ones(1),
                        derivative_tolerance=1e-6, neighbours=COUPLED)  # fmt: skip


def position(problem, truth):
    """theta of the true lines."""
    start = problem.layout.start
    columns = [np.log(truth.strength), np.log(truth.sigma), np.log(truth.gamma),
               (truth.center - start.center) / start.width]  # fmt: skip
    return np.stack(columns, axis=1)[:, list(problem.layout.free)]


@pytest.fixture(scope="module")
def crowd():
    truth = forest(200)
    return truth, *observe(truth)


def test_errors_against_dense_matrices(crowd):
    truth, wave, data = crowd
    problem = make_problem(off(truth, (0.2, 0.1, 0.1, 0.1)), wave, data)
    fitted = fit_from_starts(problem, WEAK, rtol=1e-6)
    theta, scatter = fitted.solution.theta, np.array([0.2, 0.1, 0.0, 0.1])
    started = StartedFit(fitted.solution, fitted.prior, scatter, None)
    matrix, _, error, n_parameters = expected_error(problem, theta, started)
    full = matrix.dense()
    n = len(full) - 1
    prior = np.append(np.tile(fitted.prior**-2.0, len(truth)), 0.0)
    starts = np.append(np.tile(scatter**2, len(truth)), 0.0)
    inverse = np.linalg.inv(full)
    expected = inverse @ (full - np.diag(prior) + np.diag(prior**2 * starts)) @ inverse
    tolerance = 3e-4 * np.diag(inverse)  # the step of the derivative
    assert np.all(np.abs(error.diagonal - np.diag(expected)) <= tolerance)
    assert np.all(error.diagonal >= np.diag(expected) - 1e-12)  # larger, if anything
    row, column = np.arange(n - 2), np.arange(2, n)
    near = np.sqrt(tolerance[row] * tolerance[column])
    assert np.all(np.abs(error.below(row, column - row) - expected[row, column]) <= near)
    assert np.max(np.diag(inverse)[:n] / np.diag(expected)[:n]) > 3  # there is something to correct
    assert n_parameters == pytest.approx(np.trace(inverse @ (full - np.diag(prior))), rel=1e-6)


def test_starts_as_the_prior_says_leave_the_inverse(crowd):
    truth, wave, data = crowd
    problem = make_problem(truth, wave, data)
    fitted = fit_from_starts(problem, WEAK)
    same = StartedFit(fitted.solution, fitted.prior, fitted.prior, np.zeros(4, dtype=bool))
    _, factor, error, _ = expected_error(problem, fitted.solution.theta, same)
    np.testing.assert_array_equal(error.tiles, factor.inverse().tiles)


@pytest.mark.parametrize("scatter", [(0.2, 0.0, 0.0, 0.0), (0.2, 0.2, 0.2, 0.3), (0.7, 0.3, 0.4, 0.1)])
def test_scatter_is_learned(crowd, scatter):
    truth, wave, data = crowd
    problem = make_problem(off(truth, scatter), wave, data)
    fitted = fit_from_starts(problem, WEAK, rtol=1e-6)
    assert fitted.learned.all()
    np.testing.assert_allclose(fitted.scatter, scatter, rtol=0.2, atol=0.06)
    assert np.all(fitted.prior >= np.minimum(1.7 * np.array(scatter), WEAK))


def test_errors_are_calibrated_whatever_the_starts():
    """Over several forests and starts; the prior alone is wrong by a factor of two and more."""
    for scatter in ((0.2, 0.0, 0.0, 0.0), (0.1, 0.2, 0.2, 0.1)):
        pulls, bare = [], []
        for seed in range(4):
            truth = forest(150, seed=seed)
            problem = make_problem(off(truth, scatter, seed + 20), *observe(truth, seed=seed + 40))
            fitted = fit_from_starts(problem, WEAK, rtol=1e-6)
            theta = fitted.solution.theta
            _, factor, error, _ = expected_error(problem, theta, fitted)
            way = problem.split(theta)[0] - position(problem, truth)
            pulls.append(way / np.sqrt(error.local_diagonal.reshape(way.shape)))
            bare.append(way / np.sqrt(factor.inverse().local_diagonal.reshape(way.shape)))
        pulls, bare = np.concatenate(pulls), np.concatenate(bare)
        assert np.all(np.abs(np.mean(pulls[:, [STRENGTH, CENTER]], axis=0)) < 0.15)
        assert np.all(np.abs(np.std(pulls[:, [STRENGTH, CENTER]], axis=0) - 1.0) < 0.15)
        assert np.all((np.std(pulls, axis=0) > 0.7) & (np.std(pulls, axis=0) < 1.25))
        assert np.std(bare[:, STRENGTH]) < 0.85


def test_starts_that_have_seen_the_data_say_nothing(crowd):
    truth, wave, data = crowd
    first = make_problem(off(truth, (0.2, 0.1, 0.1, 0.1)), wave, data)
    lines = first.lines(fit_from_starts(first, WEAK).solution.theta)
    fitted = fit_from_starts(make_problem(lines, wave, data), WEAK)
    assert not fitted.learned.any()
    np.testing.assert_array_equal(fitted.scatter, fitted.prior)
    # of other data they say how well the first have determined them
    again = fit_from_starts(make_problem(lines, *observe(truth, seed=77)), WEAK)
    assert again.learned.all()
    assert np.all(again.scatter < 0.15)


def test_a_plainly_wrong_start_does_not_count(crowd):
    truth, wave, data = crowd
    start = off(truth, (0.1, 0.0, 0.0, 0.0))
    wrong = Lines(start.center, np.where(np.arange(200) % 20 == 7, 5.0, 1.0) * start.strength, start.sigma, start.gamma)
    problem = make_problem(wrong, wave, data, free=(STRENGTH,))
    fitted = fit_from_starts(problem, WEAK[:1])
    assert fitted.scatter[0] < 0.2  # their mean square is 0.36
    error = expected_error(problem, fitted.solution.theta, fitted)[2].local_diagonal
    way = (problem.split(fitted.solution.theta)[0] - position(problem, truth))[:, 0]
    assert np.max(np.abs(way / np.sqrt(error))[7::20]) < 3.5  # they moved by 1.6


def test_few_lines_are_least_squares():
    truth = forest(3, spacing=1.0)
    wave, data = observe(truth, noise=0.005)
    problem = make_problem(off(truth, (1.0, 0.0, 0.0, 0.0)), wave, data, noise=0.005, free=(STRENGTH, SIGMA))
    fitted = fit_from_starts(problem, WEAK[:2], rtol=1e-10)
    assert not fitted.learned.any()
    np.testing.assert_array_equal(fitted.prior, WEAK[:2])
    n = 6

    def residual(theta):
        return problem.evaluate(theta)[-1]

    plain = least_squares(residual, np.append(position(problem, truth).ravel(), 1.0), xtol=1e-12)
    std = np.sqrt(np.diag(np.linalg.inv(plain.jac.T @ plain.jac)))
    assert np.all(np.abs(fitted.solution.theta - plain.x) < 0.03 * std)
    error = expected_error(problem, fitted.solution.theta, fitted)[2]
    np.testing.assert_allclose(np.sqrt(error.diagonal)[:n], std[:n], rtol=0.03)


def test_scatter_without_enough_lines_is_not_claimed(crowd):
    truth, wave, data = crowd
    few = Lines(*(a[:8] for a in truth))
    wave, data = observe(few)
    problem = make_problem(few, wave, data)
    fitted = fit_from_starts(problem, WEAK)
    assert not start_scatter(problem, fitted.solution.theta, fitted.prior)[1].any()


@pytest.mark.parametrize("unit", [1e-6, 1e-30, 0.0])
def test_noise_of_any_size(unit):
    """Without weights the residual is in units of the data; exact data have no noise at all."""
    truth = forest(30)
    wave, data = observe(truth, noise=np.sqrt(unit))
    problem = make_problem(off(truth, (0.1, 0.0, 0.0, 0.0)), wave, data, noise=1.0, free=(STRENGTH, CENTER))
    fitted = fit_from_starts(problem, WEAK[[0, 3]], unit=unit, atol=1e-14 * float(data @ data))
    assert np.isfinite(fitted.scatter).all()
    error = expected_error(problem, fitted.solution.theta, fitted, unit)[2]
    assert np.all(np.isfinite(error.diagonal) & (error.diagonal > 0))
    if unit:
        assert abs(fitted.scatter[0] / 0.1 - 1) < 0.4


def test_nothing_is_free(crowd):
    truth, wave, data = crowd
    fitted = fit_from_starts(make_problem(truth, wave, data, free=()), np.zeros(0))
    assert fitted.scatter.shape == (0,)
    assert abs(fitted.solution.theta[0] - 1) < 1e-3
