"""Errors of the model: against dense marginal likelihoods, and injected in simulated orders."""

import numpy as np
import pytest
from astropy import units as u
from scipy.optimize import minimize_scalar
from specutils import Spectrum, SpectrumList

from specutils_blase import VoigtForest1D
from specutils_blase.simulation import simulate_star
from specutils_blase.solvers.jitter import jitter_errors, jitter_fit
from tests.solvers.test_smooth import N_PIX as N_SMOOTH
from tests.solvers.test_smooth import X, make_problem
from tests.test_orders import COLUMN, N_PIX, VELOCITY, fit_near, found, narrow, observe, orders, sky, star, template_of

__all__ = ["orders", "sky", "star"]  # fixtures

LEVELS = (0.004, 0.02, 0.0, 0.008)


def with_errors(orders, seed, levels=LEVELS):
    """The orders with errors that their uncertainties do not know: shares of their level."""
    rng = np.random.default_rng([seed, 77])
    return SpectrumList([
        Spectrum(flux=o.flux * (1 + level * rng.normal(size=o.flux.size)), spectral_axis=o.spectral_axis,
                 uncertainty=o.uncertainty)
        for o, level in zip(orders, levels, strict=True)])  # fmt: skip


def log_evidence(problem, noise, level, log_jitter):
    """Of the jitter of one part, the coefficients of its continuum integrated out, but for a constant."""
    variance = noise**2 + np.exp(2.0 * log_jitter) * level**2
    columns, data = problem.scene.basis, problem.scene.data
    normal = columns.T @ (columns / variance[:, None])
    best = np.linalg.solve(normal, columns.T @ (data / variance))
    cost = np.sum((columns @ best - data) ** 2 / variance)
    return -0.5 * (np.log(variance).sum() + np.linalg.slogdet(normal)[1] + cost)


@pytest.mark.parametrize(("noise", "jitter"), [(1e-3, 0.01), (0.01, 0.01), (0.02, 0.01)])
def test_is_where_the_marginal_likelihood_is_largest(noise, jitter):
    rng = np.random.default_rng(3)
    sigma = noise * rng.uniform(0.5, 1.5, N_SMOOTH)
    flux = 1.0 + 0.3 * X + rng.normal(0.0, 1.0, N_SMOOTH) * np.hypot(sigma, jitter * (1.0 + 0.3 * X))
    problem = make_problem(flux, sigma, strength=1e-9, n_intervals=60)
    found, solution = jitter_fit(problem, problem.start(), np.ones(N_SMOOTH, dtype=bool))
    level = problem.evaluate(solution.theta).continuum
    best = minimize_scalar(lambda x: -log_evidence(problem, sigma, level, x), bounds=(-8.0, -2.0), method="bounded").x
    (error,) = jitter_errors(found, solution.theta, np.ones(N_SMOOTH, dtype=bool))
    assert abs(found.jitter[0] - np.exp(best)) < 0.2 * error
    curvature = -(log_evidence(problem, sigma, level, best + 0.1) + log_evidence(problem, sigma, level, best - 0.1)
                  - 2.0 * log_evidence(problem, sigma, level, best)) / 0.01  # fmt: skip
    # 63 of 600 pixels are taken by the continuum, of which the error knows nothing
    assert error / found.jitter[0] * np.sqrt(curvature) == pytest.approx(1.0, abs=0.12)


def test_is_found_in_every_order(orders, star, sky):
    fit = fit_near(with_errors(orders, 0), star, sky, jitter=True)
    assert fit.fit_info["status"] == "converged"
    for k, level in enumerate(LEVELS):
        value, std = found(fit)[f"order_{k}_jitter"]
        assert abs(value - level) < 4 * std and std < 0.1 * level + 1.2e-3, k
    assert fit.fit_info["chi2"] == pytest.approx(fit.fit_info["dof"], rel=0.1)
    assert fit.order(1).parameters["name"][-1] == "jitter"
    one = fit_near(with_errors(orders, 0)[1], star, sky, jitter=True)
    assert found(one)["jitter"][0] == pytest.approx(0.02, rel=0.2)


def test_makes_errors_honest(star, sky):
    """Pulls of velocity and column over draws; without the jitter they are three times too large."""
    pulls = {True: [], False: []}
    for seed in range(10):
        observed = with_errors(observe(star, sky, seed=200 + seed, snr=1000.0), seed, [0.006] * 4)
        for jitter, several in pulls.items():
            values = found(fit_near(observed, star, sky, free=(), jitter=jitter))
            several += [(values[name][0] - truth) / values[name][1]
                        for name, truth in (("radial_velocity", VELOCITY), ("telluric_scale", COLUMN))]  # fmt: skip
    n = len(pulls[True])
    assert np.std(pulls[True]) == pytest.approx(1.0, abs=3 / np.sqrt(2 * n))
    assert abs(np.mean(pulls[True])) < 3 / np.sqrt(n)
    assert np.std(pulls[False]) > 3.0


def test_is_not_made_of_rays(orders, star, sky):
    hit = with_errors(orders, 1, [0.005] * 4)
    for pixel in (40, 90, 150, 170):
        hit[2].flux[pixel] *= 1.5
    plain, robust = (fit_near(hit, star, sky, jitter=True, robust=robust) for robust in (False, True))
    assert found(plain)["order_2_jitter"][0] > 0.04
    value, std = found(robust)["order_2_jitter"]
    assert abs(value - 0.005) < 4 * std
    down = robust.fit_info["down_weighted"]
    lost = {p for k, p, share in zip(down["order"], down["pixel"], down["share"], strict=True) if share == 0}
    assert lost == {40, 90, 150, 170}


def test_of_orders_without_the_star(sky):
    """What is missing there does not move the column, which the errors of the other orders decide."""
    star = template_of(simulate_star(8, lower=10490 * u.AA, upper=10575 * u.AA, n_lines=900).model, "rest")
    orders = observe(star, sky, snr=2000.0)
    below = star.model.x_0.value < 10545.0
    lines = {name: getattr(star.model, name).quantity[below] for name in ("x_0", "strength", "fwhm_G", "fwhm_L")}
    fit = fit_near(orders, narrow(template_of(VoigtForest1D(**lines), "rest"), 10490.0, 10545.0), sky,
                   on_missing="telluric")  # fmt: skip
    values = found(fit)
    assert [name for name in values if "jitter" in name] == ["order_3_jitter"]
    spread = np.std(fit_near(orders, star, sky).components["star"][3].flux.value)
    assert 0.5 * spread < values["order_3_jitter"][0] < 1.1 * spread
    value, std = values["telluric_scale"]
    assert abs(value - COLUMN) < 4 * std
    # part of an order: its other pixels keep their weight
    partly = fit_near(orders, narrow(star, 10490.0, 10556.0), sky, on_missing="telluric")
    pull = (partly.residual[3].flux / orders[3].uncertainty.array).value
    inside = orders[3].spectral_axis.value < 10554.0
    assert np.sqrt(np.mean(pull[inside] ** 2)) < 1.5
    assert np.isfinite(found(partly)["order_3_jitter"][0]) and pull.size == N_PIX


def test_with_splines(orders, star, sky):
    fit = fit_near(with_errors(orders, 2), star, sky, jitter=True, continuum="spline")
    value, std = found(fit)["order_1_jitter"]
    assert abs(value - 0.02) < 4 * std
    assert all(3 < number < 15 for number in fit.fit_info["continuum_parameters"])


def test_is_a_flag(orders, star, sky):
    with pytest.raises(TypeError, match="jitter must be True or False, got 0.01; False is the default"):
        fit_near(orders, star, sky, jitter=0.01)


def test_hot_pixels_where_a_blaze_has_ended():
    """They are any number of times the continuum there, and no error of the model."""
    flux = 1.001 - X**2 + np.random.default_rng(9).normal(0.0, 0.003, N_SMOOTH)
    flux[[1, 2, -2]] += 0.3
    problem = make_problem(flux, np.full(N_SMOOTH, 0.003), strength=1e6, n_intervals=8)
    found, _ = jitter_fit(problem, problem.start(), np.ones(N_SMOOTH, dtype=bool))
    assert found.jitter[0] < 0.03  # the continuum follows them a little
