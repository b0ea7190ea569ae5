"""The mean of the posterior against importance sampling of the exact posterior."""

from dataclasses import replace

import numpy as np
from astropy import units as u

from specutils_blase.instrument import as_lsf
from specutils_blase.lines import line_table
from specutils_blase.modeling import VoigtForest1D
from specutils_blase.orders import read_orders
from specutils_blase.preparation import Setup
from specutils_blase.priors import GaussianPrior
from specutils_blase.simulation import simulate_order
from specutils_blase.solvers import posterior
from specutils_blase.solvers.levenberg_marquardt import levenberg_marquardt
from specutils_blase.solvers.lines import STRENGTH, Lines
from specutils_blase.solvers.observed import SMALLEST_VSINI
from specutils_blase.solvers.posterior import posterior_mean
from specutils_blase.template import LineTemplate

COVERAGE = (10590.0, 10610.0)
CENTERS = np.array([10598.3, 10598.9, 10599.3, 10600.0, 10600.25, 10600.9, 10601.4])
LSF = 55_000.0


def make_problem(strength, snr, free=(STRENGTH,), prior=0.3, vsini=12.0, power=LSF, start=12.0):
    sigma, gamma = np.full(CENTERS.size, 0.05), np.full(CENTERS.size, 0.01)
    lines = Lines(CENTERS, np.full(CENTERS.size, strength), sigma, gamma)
    zero = np.zeros(CENTERS.size, dtype=int)
    model = VoigtForest1D(CENTERS * u.AA, lines.strength * u.AA, 0.1177 * u.AA * np.ones(7), 0.02 * u.AA * np.ones(7))
    table = line_table(lines, np.zeros((CENTERS.size, 4, 4)), index=zero, flags=zero)
    template = LineTemplate(model, table, meta={"coverage": list(COVERAGE)})
    order = simulate_order(model, seed=3, lower=10597 * u.AA, upper=10603 * u.AA, n_pix=100, snr=snr, bad_pixels=0,
                           resolving_power=power, vsini=vsini * u.km / u.s, continuum=(1.0,))  # fmt: skip
    setup = Setup.build(read_orders(order.spectrum), template, [], as_lsf(LSF), 0.6, 0)
    return setup.problem(0.0, start, {"star": free, "telluric": ()}, [GaussianPrior(strength=prior)])


def sampled_mean(problem, mode, n_samples):
    """Posterior mean and its sampling error by importance sampling from the Gaussian approximation."""
    _, matrix = problem.linearize(mode)
    root = np.linalg.cholesky(np.linalg.inv(matrix.dense()))
    half = np.random.default_rng(0).normal(size=(n_samples // 2, mode.size))
    normal = np.concatenate([half, -half])
    samples = mode + normal @ root.T
    lowest = problem.cost(mode).sum()
    allowed = samples[:, problem.shape[0] + 1] > 0  # vsini^2
    log_weight = np.full(n_samples, -np.inf)
    log_weight[allowed] = [lowest - problem.cost(s).sum() for s in samples[allowed]]
    log_weight += 0.5 * np.sum(normal**2, axis=1)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    mean = weight @ samples
    return mean, np.sqrt(np.maximum(weight**2 @ (samples - mean) ** 2, 0)), np.diag(root @ root.T) ** 0.5


def test_against_importance_sampling():
    problem = make_problem(strength=0.004, snr=300)
    mode = levenberg_marquardt(problem, problem.start(), atol=1e-10).theta
    mean, error, std = sampled_mean(problem, mode, 6000)
    strengths = slice(0, CENTERS.size)
    shift = ((posterior_mean(problem, mode) - mode) / std)[strengths]
    expected = ((mean - mode) / std)[strengths]
    assert np.max(error[strengths] / std[strengths]) < 0.06
    assert np.sqrt(np.mean(expected**2)) > 0.12  # there is something to correct
    # the skewness of vsini itself, ill determined by seven lines, is not treated
    assert np.sqrt(np.mean((shift - expected) ** 2)) < 0.6 * np.sqrt(np.mean(expected**2))


def test_well_measured_lines_stay_where_they_are():
    problem = make_problem(strength=0.05, snr=5000)
    mode = levenberg_marquardt(problem, problem.start(), atol=1e-10).theta
    std = np.sqrt(np.diag(np.linalg.inv(problem.linearize(mode)[1].dense())))
    assert np.max(np.abs(posterior_mean(problem, mode) - mode) / std) < 0.02


def test_lines_go_with_the_global_parameters_however_far_these_go(monkeypatch):
    """What is limited is a line's own way, not that along a valley: else lines that stay behind pull at the others."""
    problem = make_problem(strength=0.02, snr=300)
    mode, n = levenberg_marquardt(problem, problem.start(), atol=1e-10).theta, CENTERS.size
    monkeypatch.setattr(posterior, "LONGEST_STEP", 1e-9)
    step = posterior_mean(problem, mode) - mode
    matrix = problem.linearize(mode)[1].dense()
    driven = -np.linalg.solve(matrix[:n, :n], matrix[:n, n:] @ step[n:])
    assert np.max(np.abs(driven)) > 1e-4
    np.testing.assert_allclose(step[:n], driven, atol=1e-3 * np.max(np.abs(driven)))


class Without:
    """A problem that does not know of one of its global parameters, the i-th of all."""

    def __init__(self, problem, theta, i):
        self.problem, self.value, self.i, self.held = problem, theta[i], i, problem.held
        self.shape = (*problem.shape[:2], problem.shape[2] - 1)

    def full(self, theta):
        return np.insert(theta, self.i, self.value)

    def linearize(self, theta):
        gradient, matrix = self.problem.linearize(self.full(theta))
        k = self.i - self.shape[0] * self.shape[1]
        corner = np.delete(np.delete(matrix.corner, k, axis=0), k, axis=1)
        return np.delete(gradient, self.i), replace(matrix, border=np.delete(matrix.border, k, axis=1), corner=corner)

    def gradient(self, theta):
        return np.delete(self.problem.gradient(self.full(theta)), self.i)

    def cost(self, theta):
        return self.problem.cost(self.full(theta))

    def move(self, theta, step):
        return np.delete(self.problem.move(self.full(theta), np.insert(step, self.i, 0.0)), self.i)

    def blocked(self, theta, gradient):
        return np.zeros(theta.size, dtype=bool)


def test_a_global_parameter_at_its_limit_stays_there():
    problem = make_problem(strength=0.01, snr=300, vsini=0.0, power=65_000.0, start=3.0)  # lines narrower than the LSF
    i = problem.shape[0] + problem.names.index("vsini")
    mode = levenberg_marquardt(problem, problem.start(), atol=1e-10).theta
    assert mode[i] == SMALLEST_VSINI**2
    mean = posterior_mean(problem, mode)
    assert mean[i] == mode[i]
    step, rest = np.delete(mean - mode, i), np.delete(mode, i)
    expected = posterior_mean(Without(problem, mode, i), rest) - rest
    std = np.delete(np.sqrt(np.diag(np.linalg.inv(problem.linearize(mode)[1].dense()))), i)
    assert np.max(np.abs(step / std)) > 0.1
    np.testing.assert_allclose(step / std, expected / std, atol=0.05)  # other signs of the noise


def test_nothing_to_do_without_free_lines():
    problem = make_problem(strength=0.01, snr=200, free=())
    theta = problem.start()
    assert posterior_mean(problem, theta) is theta


def test_the_mode_where_no_gaussian_describes_the_posterior(monkeypatch):
    problem = make_problem(strength=0.1, snr=300, free=(0, 1, 2), prior=1.0)
    mode = levenberg_marquardt(problem, problem.start(), atol=1e-10).theta
    monkeypatch.setattr(posterior, "HIGHEST", 0.2)
    assert posterior_mean(problem, mode) is not mode
    monkeypatch.setattr(posterior, "HIGHEST", 0.02)  # the cost rises by 2.6
    assert posterior_mean(problem, mode) is mode
