"""The errors of the tables: against dense linear algebra, and against the scatter of many draws."""

from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import StdDevUncertainty
from scipy.special import voigt_profile
from specutils import Spectrum

from specutils_blase import GaussianPrior, LineTemplate, VoigtForest1D, clone_spectrum, fit_spectrum
from specutils_blase.lines import QUANTITIES, line_table
from specutils_blase.simulation import simulate_order
from specutils_blase.solvers import smooth
from specutils_blase.solvers.covariance import LineCovariance
from specutils_blase.solvers.levenberg_marquardt import levenberg_marquardt
from specutils_blase.solvers.lines import LineLayout, Lines, SampledLines
from specutils_blase.solvers.observed import ObservedLines

N_DRAWS = 300  # a standard deviation is known to 4 per cent
FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))


@pytest.mark.parametrize("form", ["opacity", "product"])
@pytest.mark.parametrize("seed", range(4))
def test_selected_inverse_is_the_dense_inverse(form, seed):
    # narrow lines that couple with few others, broad ones that couple with all, and the continuum as border
    rng, n = np.random.default_rng(seed), 14
    wave, width = np.linspace(5000.0, 5010.0, 800), rng.choice([0.03, 0.06, 0.5], n)
    lines = Lines(np.sort(rng.uniform(5000.5, 5009.5, n)), rng.uniform(0.3, 0.9, n) * width, width, 0.3 * width)
    limit = np.full(4, 30.0)
    layout = LineLayout(lines, (0, 1, 2, 3), -limit, limit)
    basis = np.polynomial.legendre.legvander((wave - 5005.0) / 5.0, 2)
    data = np.exp(-np.sum(lines.strength * voigt_profile(wave[:, None] - lines.center, width, 0.3 * width), axis=1))
    problem = SampledLines(wave, data, np.full(wave.size, 300.0), basis, layout, form=form,
                           coefficients=np.array([1.0, 0.05, -0.02]))  # fmt: skip
    matrix = problem.linearize(problem.start())[1]
    matrix.add_to_diagonal(np.full(4 * n, 25.0))  # a prior, without which blends are singular
    dense = matrix.dense()
    scale = 1.0 / np.sqrt(np.diag(dense))
    exact = np.linalg.inv(dense * np.outer(scale, scale)) * np.outer(scale, scale)
    allowed = 1e-10 * np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    inverse, q = matrix.factor().inverse(), 4 * n
    assert (np.abs(inverse.corner - exact[q:, q:]) <= allowed[q:, q:]).all()
    assert (np.abs(inverse.border - exact[:q, q:]) <= allowed[:q, q:]).all()
    compared = []
    for distance in range(q):
        column = np.arange(q - distance)
        found = inverse.below(column, distance)
        known = found != 0
        error = np.abs(found - exact[column + distance, column])
        assert (error <= allowed[column + distance, column])[known].all()
        compared.append(known.sum())
    assert compared[0] == q and 0 < sum(compared) < q * (q + 1) // 2  # some lines couple, some do not
    block = exact[:q, :q].reshape(n, 4, n, 4)[np.arange(n), :, np.arange(n)]
    units = np.stack([np.ones(n)] * 3 + [lines.width], axis=1)
    covariance = LineCovariance(matrix.factor(), layout, matrix=matrix).blocks() / (units[:, :, None] * units[:, None])
    error = np.sqrt(np.einsum("jaa->ja", block))
    np.testing.assert_array_less(np.abs(covariance - block) / (error[:, :, None] * error[:, None]), 1e-10)


def assert_calibrated(deviations, errors, within=0.1):
    """Deviations from the truth have the root mean square that the errors say, shapes (n_draws, n_quantities)."""
    ratio = np.sqrt(np.mean(np.square(deviations), axis=0) / np.mean(np.square(errors), axis=0))
    np.testing.assert_allclose(ratio, 1.0, atol=within)


def test_errors_of_a_noisy_clone_are_the_scatter_of_many_draws():
    wave, noise = 5000.0 + np.arange(6 * 64) / 64.0, 1e-3
    center, strength = np.array([5001.5, 5003.3, 5003.75]), np.array([0.15, 0.25, 0.12])
    sigma, gamma = np.array([0.06, 0.08, 0.07]), np.array([0.03, 0.05, 0.03])
    truth = Lines(center, strength, sigma, gamma)
    flux = np.exp(-np.sum(strength * voigt_profile(wave[:, None] - center, sigma, gamma), axis=1))
    zero = np.zeros(3, dtype=int)
    expected = line_table(truth, np.zeros((3, 4, 4)), index=zero, flags=zero)
    names = list(QUANTITIES)
    rng, deviations, errors = np.random.default_rng(0), [], []
    for _ in range(N_DRAWS):
        source = Spectrum(flux=(flux + noise * rng.standard_normal(wave.size)) * u.one, spectral_axis=wave * u.AA,
                          uncertainty=StdDevUncertainty(np.full(wave.size, noise)))  # fmt: skip
        table = clone_spectrum(source, continuum_degree=0, passes=1, prominence=0.05, progress=False).lines
        assert len(table) == 3
        deviations.append([u.Quantity(table[name] - expected[name]).value for name in names])
        errors.append([u.Quantity(table[f"{name}_err"]).value for name in names])
    assert_calibrated(np.reshape(deviations, (N_DRAWS, -1)), np.reshape(errors, (N_DRAWS, -1)))


@pytest.mark.parametrize("component", ["star", "telluric"])
def test_errors_of_a_fit_are_the_scatter_of_many_draws(component, monkeypatch):
    center, strength = np.array([10595.0, 10596.5, 10596.8]), np.array([0.12, 0.08, 0.05])
    sigma, gamma, zero = np.full(3, 0.05), np.full(3, 0.025), np.zeros(3, dtype=int)
    model = VoigtForest1D(center * u.AA, strength * u.AA, sigma * FWHM_PER_SIGMA * u.AA, 2.0 * gamma * u.AA)
    table = line_table(Lines(center, strength, sigma, gamma), np.zeros((3, 4, 4)), index=zero, flags=zero)
    is_star, sigma_prior, speed = component == "star", 0.1, u.km / u.s
    meta = {"coverage": [10585.0, 10605.0], "frame": "rest" if is_star else "observatory"}
    template = LineTemplate(model, table, meta=meta)
    order = simulate_order(*((model, None) if is_star else (None, model)), seed=1, bad_pixels=0, vsini=8 * speed,
                           lower=10593 * u.AA, upper=10599 * u.AA, n_pix=96, snr=300,
                           continuum=(1.0, 0.05))  # fmt: skip
    seen = []

    def solve(problem, theta, **options):
        seen.append(problem)
        return levenberg_marquardt(problem, theta, **options)

    monkeypatch.setattr(smooth, "levenberg_marquardt", solve)
    start = {"radial_velocity": 0 * speed, "vsini": 8 * speed} if is_star else {}
    fit = fit_spectrum(order.noiseless, *((template, None) if is_star else (None, template)), progress=False,
                       prior=GaussianPrior(strength=sigma_prior), continuum_degree=1, **start)  # fmt: skip
    std = dict(zip(fit.parameters["name"], fit.parameters["std"], strict=True))
    continuum = np.array([std["continuum_0"], std["continuum_1"]]) / order.truth["continuum"][0]
    errors = [*((std["radial_velocity"], std["vsini"]) if is_star else ()),
              *(fit.lines["strength_err"] / fit.lines["strength"]).value, *continuum]  # fmt: skip

    given, rng, deviations = seen[0], np.random.default_rng(0), []
    best = levenberg_marquardt(given, given.start(), max_iterations=20).theta

    def quantities(problem, theta):
        local, values = problem.split(theta)[0][:, 0], problem.globals(theta)
        level = problem.globals(best).continuum[0, 0]
        moved = (values.velocity, values.vsini) if is_star else ()
        return np.array([*moved, *(local + (0.0 if is_star else values.column[0])), *(values.continuum[0] / level)])

    # fewer draws, because a fit takes longer, know the errors less well
    n_draws, within = (N_DRAWS // 2, 0.15) if is_star else (N_DRAWS // 4, 0.2)
    for _ in range(n_draws):
        truth = best.copy()
        truth[:3] += sigma_prior * rng.standard_normal(3)  # of the prior, which the errors hold
        state, weight = given.evaluate(truth), given.scene.weight
        data = state.pixels * state.continuum + rng.standard_normal(weight.size) / weight
        problem = ObservedLines(replace(given.scene, data=data), given.layout, given.first, penalty=given.penalty)
        theta = levenberg_marquardt(problem, truth, max_iterations=20, rtol=1e-3, atol=1e-2).theta
        deviations.append(quantities(problem, theta) - quantities(given, truth))
    assert_calibrated(np.array(deviations), np.array([errors]), within)
