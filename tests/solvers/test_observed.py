"""The transfer fit's residual, gradient and normal matrix against finite differences, dense matrices and quadrature."""

from dataclasses import replace

import numpy as np
import pytest

from specutils_blase import instrument
from specutils_blase.instrument import BandedLSF
from specutils_blase.solvers import observed
from specutils_blase.solvers.lines import CENTER, GAMMA, SIGMA, STRENGTH, LineLayout, Lines, QuadraticPenalty
from specutils_blase.solvers.observed import ObservedLines
from specutils_blase.solvers.response import banded_response
from specutils_blase.solvers.scene import STAR, Globals, Scene, convolve, correlate, uniform_grid

pytestmark = pytest.mark.usefixtures("every_target")

C = 299792.458
ALL = (STRENGTH, SIGMA, GAMMA, CENTER)
STEP = 0.25
N_PIX = 70
EDGES = np.stack([10600.0 + 0.06 * np.arange(N_PIX), 10600.06 + 0.06 * np.arange(N_PIX)], axis=1)
GRID = uniform_grid(10600 * (1 - 100 / C), 10604.2 * (1 + 100 / C), STEP)
MIDDLE = EDGES.mean(axis=1)
VELOCITY = -23.0


def compiled_depth(grid, lines, form):
    """`line_depth` whose windows cut nothing that a finite difference could see."""
    lines = lines.sorted()
    if form == "opacity" or len(lines) == 0:
        return observed.compiled.optical_depth(grid, *lines, 1e-12) if len(lines) else np.zeros(grid.size)
    return -np.log(observed.compiled.product_transmission(grid, *lines, 1e-12))


@pytest.fixture
def uncut(monkeypatch):
    """Windows so wide that the model is smooth in all parameters."""
    monkeypatch.setattr(observed, "line_depth", compiled_depth)
    monkeypatch.setattr(observed, "DERIVATIVE_TOLERANCE", 1e-9)


def make_problem(free=ALL, *, form="opacity", n_species=2, star=True, power=50_000.0, free_scale=True, matrix=None,
                 vsini=6.0, penalty=True, emission=True, orders=False, veil=None, hermite=None):  # fmt: skip
    """Four star lines and two of each species, overlapping, one in emission, seen with noise."""
    rng = np.random.default_rng(8)
    seen = rng.uniform(10600.4, 10603.8, 4 * star + 2 * n_species)
    species = np.concatenate([np.full(4 * star, STAR), np.repeat(np.arange(n_species), 2)])
    order = np.argsort(seen)
    seen, species = seen[order], species[order]
    rest = seen / np.where(species == STAR, np.sqrt((1 + VELOCITY / C) / (1 - VELOCITY / C)), 1.0)
    strength = rng.uniform(0.01, 0.05, seen.size)
    if emission:
        strength[1] *= -0.5
    lines = Lines(rest, strength, rng.uniform(0.04, 0.07, seen.size), rng.uniform(0.01, 0.04, seen.size))
    layout = LineLayout(lines, free, np.full(4, -np.inf), np.full(4, np.inf))
    x = 2 * (MIDDLE - EDGES[0, 0]) / (EDGES[-1, 1] - EDGES[0, 0]) - 1
    weight = rng.uniform(50, 150, N_PIX)
    weight[[7, 30, 31]] = 0.0
    scene = Scene(
        grid=GRID, step=STEP, edges=EDGES, resolving_power=None if power is None else np.full(N_PIX, power),
        matrix=matrix, basis=np.stack([np.ones(N_PIX), x, 1.5 * x**2 - 0.5], axis=1),
        data=0.9 + 0.05 * rng.standard_normal(N_PIX), weight=weight, species=species, n_species=n_species,
        form=(form,) * (n_species + 1), limb_darkening=0.6,
    )  # fmt: skip
    start = Globals(VELOCITY, vsini, 0.05, np.full(n_species, 0.2), np.array([1.0, 0.05, -0.1]))
    if orders:
        scene, start = as_orders(scene, start)
    if veil is not None:
        x = np.linspace(-1, 1, GRID.size)
        basis = np.ones((GRID.size, 1)) if len(veil) == 1 else np.stack([1 - x, 1 + x], axis=1) / 2
        scene = replace(scene, veil_basis=basis)
        start = replace(start, veil=np.array(veil))
    if hermite is not None:
        scene = replace(scene, hermite=np.zeros((len(scene.edges), 2)), free_hermite=True)
        start = replace(start, hermite=np.array(hermite))
    prior = None
    if penalty and free:
        shape = (seen.size, len(free))
        prior = QuadraticPenalty(layout.pack() + 0.1, rng.uniform(1, 9, shape))
    return ObservedLines(scene, layout, start, free_scale=free_scale and power is not None, penalty=prior)


def as_orders(scene, start):
    """Two orders that overlap, the second with wider pixels, and each with all that an order can have for itself."""
    wide = np.stack([10602.0 + 0.09 * np.arange(24), 10602.09 + 0.09 * np.arange(24)], axis=1)
    edges = np.concatenate([EDGES[:50], wide])
    part = np.repeat([0, 1], [50, 24])
    place = np.argsort(edges.mean(axis=1))
    x = np.concatenate([np.linspace(-1, 1, 50), np.linspace(-1, 1, 24)])
    columns = np.stack([np.ones(74), x, 1.5 * x**2 - 0.5], axis=1)
    power = scene.resolving_power
    scene = replace(
        scene, edges=edges[place], basis=columns[place], part=part[place], n_parts=2,
        weight=np.resize(scene.weight, 74), data=np.resize(scene.data, 74),
        resolving_power=np.where(part[place], 45_000.0, 55_000.0),
        power_basis=columns[place, :2], shift_basis=columns[place, :2], own_power=power is not None,
    )  # fmt: skip
    continuum = np.array([[1.0, 0.05, -0.1], [0.8, -0.1, 0.02]])
    return scene, replace(start, log_scale=np.array([0.05, 0.02]), continuum=continuum, power=np.array([0.03, -0.04]),
                          shift=np.array([[0.3, -0.2], [-0.5, 0.1]]))  # fmt: skip


def jacobian(problem, theta, steps):
    """Derivatives of the weighted residual by central differences, shape (n_pix, n_theta)."""

    def difference(i, factor):
        up, down = theta.copy(), theta.copy()
        up[i] += factor * steps[i]
        down[i] -= factor * steps[i]
        return (problem.evaluate(up).residual - problem.evaluate(down).residual) / (2 * factor * steps[i])

    n_local = problem.shape[0] * problem.shape[1]
    columns = [difference(i, 1) if i < n_local else (4 * difference(i, 1) - difference(i, 2)) / 3
               for i in range(theta.size)]  # fmt: skip
    return np.stack(columns, axis=1)


def finite_steps(problem):
    """A step for every parameter that is small against what changes the model."""
    n, q, m = problem.shape
    named = {"radial_velocity": 0.02, "vsini": 0.5, "resolving_power": 1e-2, "resolving_power_1": 1e-2, "veiling": 1e-2,
             "veiling_1": 1e-2, "h3": 1e-2, "h4": 1e-2}
    glob = [named[name] for name in problem.names]
    scene = problem.scene
    own = [1e-3] * scene.basis.shape[1] + [1e-2] * scene.own_power + [0.02] * scene.shift_basis.shape[1]
    return np.array([2e-3] * (n * q) + glob + [1e-3] * scene.n_species + own * scene.n_parts)


CASES = {
    "everything": {},
    "strengths": {"free": (STRENGTH,)},
    "widths": {"free": (SIGMA, GAMMA)},
    "centres": {"free": (CENTER,)},
    "star alone": {"n_species": 0},
    "tellurics alone": {"star": False},
    "pixels alone": {"power": None},
    "fixed resolution": {"free_scale": False},
    "slow rotation": {"vsini": 1.5},
    "product form": {"form": "product", "emission": False},
    "orders": {"orders": True},
    "veiling": {"veil": (0.3,)},
    "veiling of products": {"veil": (0.3,), "form": "product", "emission": False},
    "veiling with a slope": {"veil": (0.2, 0.6), "free": (STRENGTH, SIGMA)},
    "veiling of an order": {"veil": (0.5, 0.2), "orders": True},
    "profile": {"hermite": (0.1, 0.07)},
    "profile alone": {"hermite": (-0.12, -0.2), "free_scale": False, "free": (STRENGTH,)},
    "profile of orders": {"hermite": (0.05, -0.08), "veil": (0.3,), "orders": True},
    "orders without lines": {"orders": True, "free": ()},
}


@pytest.mark.parametrize("case", CASES)
def test_gradient_and_normal_matrix_are_those_of_the_residual(uncut, case):
    problem = make_problem(**CASES[case])
    theta = problem.start()
    gradient, matrix = problem.linearize(theta)
    residual = problem.evaluate(theta).residual
    slopes = jacobian(problem, theta, finite_steps(problem))
    n = problem.shape[0] * problem.shape[1]
    expected, normal = slopes.T @ residual, slopes.T @ slopes
    if problem.penalty is not None:
        local = problem.split(theta)[0]
        expected[:n] += (problem.penalty.precision * (local - problem.penalty.mean)).ravel()
        normal[np.arange(n), np.arange(n)] += problem.penalty.precision.ravel()
    size = np.linalg.norm(slopes, axis=0)
    names = [f"line {k}" for k in range(n)] + problem.names + ["column"] * problem.scene.n_species
    names += ["continuum"] * 3 if problem.scene.n_parts == 1 else [f"own {k}" for k in range(12)]
    wrong = np.abs(gradient - expected) / (size * np.linalg.norm(residual) + 1)
    assert wrong.max() < 2e-4, f"gradient of {names[wrong.argmax()]} is off by {wrong.max():.2g}"
    wrong = np.abs(matrix.dense() - normal) / np.sqrt(np.outer(normal.diagonal(), normal.diagonal()))
    worst = np.unravel_index(wrong.argmax(), wrong.shape)
    assert wrong.max() < 1e-3, f"curvature of {names[worst[0]]} and {names[worst[1]]} is off by {wrong.max():.2g}"


def test_columns_and_veiling_of_lines_of_which_some_are_held(uncut):
    """As of a template to which lines are added: what is held gives way to nothing, and its part is not lost."""
    problem = make_problem((STRENGTH, CENTER), veil=(0.3,), penalty=False)
    problem.held[[0, 3, 5], 0] = problem.held[[1, 2], 1] = True
    theta = problem.start()
    _, matrix = problem.linearize(theta)
    slopes = jacobian(problem, theta, finite_steps(problem))
    free = np.flatnonzero(np.append(~problem.held.ravel(), np.ones(problem.shape[2], dtype=bool)))
    normal = (slopes.T @ slopes)[np.ix_(free, free)]
    size = np.sqrt(normal.diagonal())
    assert np.max(np.abs(matrix.dense()[np.ix_(free, free)] - normal) / np.outer(size, size)) < 1e-3


@pytest.mark.parametrize("veil", [(0.4,), (0.3, 0.9)])
def test_veiling_and_weak_lines_make_up_for_each_other_along_a_straight_line(uncut, veil):
    for change in np.eye(len(veil)) * 0.5:
        problem = make_problem((STRENGTH,), n_species=0, veil=veil, penalty=False)
        theta, n = problem.start(), problem.shape[0]
        theta[:n] -= 8.0
        index, rows = problem.coupling(theta)
        assert [problem.names[i] for i in index] == problem.veils
        before, moved = 1 - problem.evaluate(theta).pixels, theta.copy()
        moved[:n] -= change @ rows
        moved[n + np.array(index)] += change
        # the slope of a veiling within a line is that of single lines, not of their strengths
        atol = (1e-3 if len(veil) == 1 else 3e-2) * np.abs(before).max()
        np.testing.assert_allclose(1 - problem.evaluate(moved).pixels, before, atol=atol, rtol=0)
        np.testing.assert_allclose(problem.globals(moved).veil, veil + change)


def test_windows_of_the_matrix_do_not_move_the_minimum():
    problem = make_problem()
    theta = problem.start()
    gradient, matrix = problem.linearize(theta)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observed, "DERIVATIVE_TOLERANCE", 1e-1)
        again, coarse = problem.linearize(theta)
    assert not np.allclose(coarse.diagonal, matrix.diagonal, rtol=1e-6)
    np.testing.assert_array_equal(again, gradient)
    np.testing.assert_allclose(problem.gradient(theta), gradient, rtol=1e-12)


def test_cost_is_that_of_the_groups():
    problem = make_problem()
    theta = problem.start() + 0.01
    residual, local = problem.evaluate(theta).residual, problem.split(theta)[0]
    penalty = 0.5 * problem.penalty.precision * (local - problem.penalty.mean) ** 2
    assert problem.cost(theta).sum() == pytest.approx(0.5 * residual @ residual + penalty.sum(), rel=1e-12)
    assert problem.cost(theta).size == problem.group.max() + 1


def test_theta_holds_the_globals():
    problem = make_problem()
    theta = problem.start()
    glob = problem.globals(theta)
    assert (glob.velocity, glob.vsini, glob.log_scale) == pytest.approx((VELOCITY, 6.0, 0.05))
    np.testing.assert_allclose(glob.column, 0.2)
    np.testing.assert_allclose(glob.continuum, [[1.0, 0.05, -0.1]])
    lines = problem.lines(theta)
    for got, expected in zip(lines, problem.layout.start, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-14)


def test_an_earlier_point_is_not_confused_with_a_later_one():
    problem = make_problem()
    theta = problem.start()
    gradient, _ = problem.linearize(theta)
    other = theta.copy()
    other[problem.shape[0] * 4 + problem.names.index("resolving_power")] += 0.3
    assert not np.allclose(problem.linearize(other)[0], gradient)
    np.testing.assert_array_equal(problem.linearize(theta)[0], gradient)


def test_moves_are_limited():
    problem = make_problem()
    theta = problem.start()
    huge = np.full(theta.size, 1e6)
    for step in (huge, -huge):
        glob = problem.globals(problem.move(theta, step))
        assert abs(glob.velocity - VELOCITY) <= observed.MAX_VELOCITY_STEP
        assert glob.vsini >= observed.SMALLEST_VSINI
        assert np.all(np.abs(glob.column - 0.2) <= observed.MAX_LOG_STEP + 1e-12)
    small = np.full(theta.size, 1e-3)
    np.testing.assert_allclose(problem.move(theta, small), theta + small)


def test_line_spread_function_stays_within_its_limits():
    problem = make_problem(hermite=(0.3, -0.3))
    theta, gradient = problem.start(), np.zeros(problem.start().size)
    i = problem.shape[0] * 4 + problem.names.index("h3")
    for sign in (1.0, -1.0):
        gradient[i : i + 2] = sign
        np.testing.assert_array_equal(problem.blocked(theta, gradient)[i : i + 2], [sign < 0, sign > 0])
        moved = problem.globals(problem.move(theta, 1e6 * gradient)).hermite
        np.testing.assert_allclose(moved, [0.3, -0.2] if sign > 0 else [0.2, -0.3])
    assert observed.LARGEST_HERMITE == instrument.LARGEST_HERMITE


def test_vsini_stays_at_its_limit():
    problem = make_problem(vsini=observed.SMALLEST_VSINI)
    theta, gradient = problem.start(), np.zeros(problem.start().size)
    i = problem.shape[0] * 4 + problem.names.index("vsini")
    for sign in (1.0, -1.0):
        gradient[i] = sign
        assert problem.blocked(theta, gradient)[i] == (sign > 0)


def test_banded_response_in_the_problem(uncut):
    kernel = np.exp(-0.5 * (np.arange(-4, 5) / 1.3) ** 2)
    bands = np.repeat((kernel / kernel.sum())[:, None], N_PIX, axis=1)
    matrix = banded_response(GRID, EDGES, BandedLSF(bands).triplets(), slice(0, N_PIX))
    problem = make_problem(power=None, matrix=matrix)
    theta = problem.start()
    gradient, _ = problem.linearize(theta)
    slopes = jacobian(problem, theta, finite_steps(problem))
    local = problem.split(theta)[0]
    expected = slopes.T @ problem.evaluate(theta).residual
    expected[: local.size] += problem.penalty.gradient(local).ravel()
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("taps", [1, 31, 201])
def test_correlation_is_the_adjoint_of_convolution(taps):
    rng = np.random.default_rng(taps)
    kernel = rng.uniform(0, 1, taps)
    kernel = kernel + kernel[::-1]
    inside = np.zeros(600)
    inside[100:500] = rng.standard_normal(400)  # the ends, which `convolve` continues, aside
    other = rng.standard_normal(600)
    assert correlate(other, kernel) @ inside == pytest.approx(other @ convolve(inside, kernel), rel=1e-11)


@pytest.mark.parametrize("taps", [1, 31, 201])
def test_convolution_is_the_plain_sum(taps):
    rng = np.random.default_rng(taps)
    flux, kernel = rng.uniform(0, 1, 400), rng.uniform(0, 1, taps)
    half = taps // 2
    padded = np.concatenate([np.full(half, flux[0]), flux, np.full(half, flux[-1])])
    expected = [padded[i : i + taps] @ kernel[::-1] for i in range(flux.size)]
    np.testing.assert_allclose(convolve(flux, kernel), expected, rtol=1e-12)
