"""Errors beside a limit, against the posterior integrated by brute force."""

from dataclasses import replace

import numpy as np
import pytest
from astropy import units as u

from specutils_blase.instrument import ResolvingPower
from specutils_blase.lines import line_table
from specutils_blase.modeling import VoigtForest1D
from specutils_blase.orders import read_orders
from specutils_blase.preparation import Setup
from specutils_blase.priors import GaussianPrior
from specutils_blase.simulation import simulate_order
from specutils_blase.solvers.levenberg_marquardt import levenberg_marquardt
from specutils_blase.solvers.limits import one_sided
from specutils_blase.solvers.lines import STRENGTH, Lines
from specutils_blase.solvers.observed import SMALLEST_VSINI
from specutils_blase.template import LineTemplate

CENTERS = np.linspace(10590.4, 10609.6, 9)


def make_problem(vsini, seed):
    sigma, gamma = np.full(CENTERS.size, 0.05), np.full(CENTERS.size, 0.01)
    lines = Lines(CENTERS, np.full(CENTERS.size, 0.08), sigma, gamma)
    lengths = (CENTERS, lines.strength, 2.3548 * sigma, 2 * gamma)
    model = VoigtForest1D(*(values * u.AA for values in lengths))
    zero = np.zeros(CENTERS.size, dtype=int)
    table = line_table(lines, np.zeros((CENTERS.size, 4, 4)), index=zero, flags=zero)
    template = LineTemplate(model, table, meta={"coverage": [10580.0, 10620.0]})
    order = simulate_order(model, seed=seed, lower=10589 * u.AA, upper=10611 * u.AA, n_pix=350, snr=150, bad_pixels=0,
                           resolving_power=50_000, vsini=vsini * u.km / u.s, continuum=(1.0,))  # fmt: skip
    setup = Setup.build(read_orders(order.spectrum), template, [], ResolvingPower(50_000, free=True), 0.6, 0)
    free = {"star": (STRENGTH,), "telluric": ()}
    return setup.problem(0.0, 2.0, free, [GaussianPrior(strength=0.3)])


class Held:
    """The problem with one parameter held: for `levenberg_marquardt`, which calls nothing else."""

    def __init__(self, problem, k):
        self.problem, self.k = problem, k

    def __getattr__(self, name):
        return getattr(self.problem, name)

    def blocked(self, theta, gradient):
        return self.problem.blocked(theta, gradient) | (np.arange(theta.size) == self.k)


@pytest.fixture(scope="module")
def ended():
    """A problem whose rotation ended at its limit, and where."""
    for seed in range(20):
        problem = make_problem(1.0, seed)
        theta = levenberg_marquardt(problem, problem.start(), rtol=1e-9).theta
        k = problem.shape[0] + problem.names.index("vsini")
        if theta[k] == SMALLEST_VSINI**2:
            return problem, theta, k
    raise AssertionError("no rotation ended at its limit")


def test_resolving_power_beside_a_rotation_at_its_limit(ended):
    problem, theta, k = ended
    j = problem.shape[0] + problem.names.index("resolving_power")
    squares = np.linspace(SMALLEST_VSINI**2, 60.0, 41)
    cost, power, own = [], [], []
    start = theta
    for square in squares:
        start = start.copy()
        start[k] = square
        start = levenberg_marquardt(Held(problem, k), start, rtol=1e-9).theta
        inverse = np.linalg.inv(np.delete(np.delete(problem.linearize(start)[1].dense(), k, 0), k, 1))
        cost.append(problem.cost(start).sum())
        power.append(start[j])
        own.append(inverse[j - (j > k), j - (j > k)])
    cost, power = np.array(cost), np.array(power)
    weight = np.exp(cost[0] - cost)
    assert weight[-1] < 1e-2
    expected = np.sqrt(np.sum(weight * ((power - power[0]) ** 2 + own)) / np.sum(weight))
    matrix = problem.linearize(theta)[1]
    found = np.sqrt(np.linalg.inv(one_sided(problem, theta, matrix).dense())[j, j])
    assert abs(found / expected - 1) < 0.2
    assert found > 3 * np.sqrt(own[0])  # as if the rotation were known
    assert np.sqrt(np.linalg.inv(matrix.dense())[j, j]) > 3 * found  # the curvature at the limit


def test_nothing_changes_inside_the_limits():
    problem = make_problem(8.0, 0)
    theta = levenberg_marquardt(problem, problem.start()).theta
    matrix = problem.linearize(theta)[1]
    assert one_sided(problem, theta, matrix) is matrix


@pytest.mark.parametrize(("slope", "curvature"), [(0.0, 1.0), (3.0, 0.0), (1.0, 2.0)])
def test_against_the_truncated_normal(slope, curvature):
    """One parameter alone, at its limit: half a normal, an exponential, and one between."""

    class Parabola:
        shape = (0, 0, 1)

        def cost(self, theta):
            return np.array([slope * theta[0] + 0.5 * curvature * theta[0] ** 2])

        def gradient(self, theta):
            return np.array([slope + curvature * theta[0]])

        def blocked(self, theta, gradient):
            return np.array([True])

        def move(self, theta, step):
            return np.maximum(theta + step, 0.0)

    problem, x = Parabola(), np.linspace(0, 20, 200_001)
    order = make_problem(8.0, 0)
    matrix = order.linearize(order.start())[1]
    corner = np.array([[curvature + 1e-9]])
    matrix = replace(matrix, tiles=matrix.tiles[:0], start=np.zeros(1, dtype=np.int64), border=np.zeros((0, 1)),
                     corner=corner, n_common=None)  # fmt: skip
    density = np.exp(-slope * x - 0.5 * curvature * x**2)
    expected = np.sum(density * x**2) / np.sum(density)
    assert 1 / one_sided(problem, np.zeros(1), matrix).corner[0, 0] == pytest.approx(expected, rel=0.03)
