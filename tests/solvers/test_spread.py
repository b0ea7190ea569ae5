"""The width of the prior from the lines: against the marginal likelihood of a dense linear model, and in fits."""

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import StdDevUncertainty
from scipy.optimize import minimize_scalar
from specutils import Spectrum
from specutils.fitting import fit_lines

from specutils_blase import GaussianPrior, SparseLineFitter, VoigtForest1D
from specutils_blase.fitter import _problem
from specutils_blase.simulation import scatter_lines, simulate_star, simulate_telluric
from specutils_blase.solvers.spread import MANY, spread_fit
from tests.test_orders import VELOCITY, fit_near, found, observe, template_of


def forest(count, seed, width=0.15):
    """Weak lines, some of them blended, without a unit."""
    rng = np.random.default_rng(seed)
    center = np.sort(rng.uniform(2.0, 0.6 * count, count)) + 5000.0
    return VoigtForest1D(center, rng.uniform(0.002, 0.006, count), np.full(count, width), np.full(count, 0.05))


@pytest.mark.parametrize("scatter", [0.1, 0.4])
def test_is_where_the_marginal_likelihood_is_largest(scatter):
    """Of strengths alone, whose lines are weak: the model is as good as linear."""
    truth, rng = forest(150, 1), np.random.default_rng(2)
    x = np.arange(5000.0, 5095.0, 0.05)
    noise, start = 0.002, truth.copy()
    start.strength = truth.strength.value * np.exp(rng.normal(0.0, scatter, 150))
    y = truth(x) + rng.normal(0.0, noise, x.size)
    for name in ("x_0", "fwhm_G", "fwhm_L", "continuum"):
        getattr(start, name).fixed = True
    problem, _ = _problem(start, x, y, np.full(x.size, 1.0 / noise), True)
    spread_fit(problem, problem.start(), np.zeros(150, dtype=int), max_iterations=50, rtol=1e-8, atol=1e-6)
    derivatives = np.empty((x.size, 150))
    for k in range(150):
        change = np.where(np.arange(150) == k, np.exp(1e-3), 1.0)
        moved = [VoigtForest1D(truth.x_0.value, truth.strength.value * f, truth.fwhm_G.value, truth.fwhm_L.value)(x)
                 for f in (change, 1.0 / change)]  # fmt: skip
        derivatives[:, k] = (moved[0] - moved[1]) / 2e-3
    # about the truth: y - f(truth) = J (start - truth) + noise turned round
    offset = np.log(truth.strength.value / start.strength.value)
    values, vectors = np.linalg.eigh(derivatives.T @ derivatives / noise**2)
    residual = derivatives @ offset + y - truth(x)
    moments = vectors.T @ (derivatives.T @ residual) / noise**2

    def minus_log_evidence(log_scale):
        variance = np.exp(2.0 * log_scale)
        return 0.5 * np.sum(np.log1p(variance * values) - variance * moments**2 / (1.0 + variance * values))

    best = np.exp(minimize_scalar(minus_log_evidence, bounds=(-6.0, 1.0), method="bounded").x)
    assert problem.penalty.precision[0, 0] ** -0.5 == pytest.approx(best, rel=0.04)
    assert best == pytest.approx(scatter, rel=0.3)


def test_errors_of_blends_are_right():
    """Lines 0.15 apart and 0.15 wide, all free: what is known of each is little, and their start is 20 % off."""
    rng, count = np.random.default_rng(4), 800
    x = np.linspace(8000, 8120, 12_000) * u.AA
    center = np.sort(rng.uniform(8001, 8119, count)) * u.AA
    truth = VoigtForest1D(x_0=center, strength=rng.lognormal(-4.5, 0.7, count) * u.AA,
                          fwhm_G=rng.uniform(0.05, 0.15, count) * u.AA, fwhm_L=rng.uniform(0.02, 0.1, count) * u.AA)
    flux = np.asarray(truth(x)) + rng.normal(0.0, 0.002, x.size)
    spectrum = Spectrum(flux=flux * u.one, spectral_axis=x, uncertainty=StdDevUncertainty(np.full(x.size, 0.002)))
    guess = truth.copy()
    guess.strength = truth.strength.quantity * rng.lognormal(0.0, 0.2, count)
    guess.fwhm_G = truth.fwhm_G.quantity * rng.lognormal(0.0, 0.1, count)
    fitted = fit_lines(spectrum, guess, fitter=SparseLineFitter(), weights="unc")
    for name, most in (("strength", 0.1), ("fwhm_G", 0.08)):
        value, goal = getattr(fitted, name), getattr(truth, name).quantity.value
        log_error = value.std / value.value
        pull = np.log(value.value / goal) / log_error
        assert 1.4826 * np.median(np.abs(pull)) == pytest.approx(1.0, abs=0.13), name  # known to 0.03 to 0.05
        assert np.median(log_error) < most


def test_few_lines_are_held_weakly():
    """Fewer lines than can know how they scatter: the squares alone decide, though all start where they belong."""
    truth, rng = forest(MANY - 1, 3, width=0.1), np.random.default_rng(5)
    x = np.arange(5000.0, 5062.0, 0.05)
    y = truth(x) + rng.normal(0.0, 0.002, x.size)
    start = truth.copy()
    for name in ("x_0", "fwhm_G", "fwhm_L", "continuum"):
        getattr(start, name).fixed = True
    fitted = SparseLineFitter()(start, x, y, weights=np.full(x.size, 500.0))
    problem, _ = _problem(start, x, y, np.full(x.size, 500.0), True)
    _, matrix = problem.linearize(problem.start())
    free = 1.0 / (matrix.local_diagonal - 0.25) ** 0.5  # of lines that overlap none
    error = fitted.strength.std / fitted.strength.value
    alone = np.diff(truth.x_0.value, prepend=0.0, append=9e9)
    alone = (alone[:-1] > 1.0) & (alone[1:] > 1.0)
    np.testing.assert_allclose(error[alone], free[alone], rtol=0.35)


@pytest.mark.parametrize("scatter", [(0.1, 0.5), (0.6, 0.1)])
def test_beside_a_jitter_every_template_has_its_own(scatter):
    ends = {"lower": 10490 * u.AA, "upper": 10575 * u.AA}
    models = simulate_star(5, n_lines=300, **ends).model, simulate_telluric(6, n_lines=200, **ends).model
    star, sky = (template_of(model, frame) for model, frame in zip(models, ("rest", "observatory"), strict=True))
    changed = [template_of(scatter_lines(model, [7, k], strength=width), "rest")
               for k, (model, width) in enumerate(zip(models, scatter, strict=True))]  # fmt: skip
    orders = observe(*changed, snr=1000.0)
    fit = fit_near(orders, star, sky, jitter=True)
    assert fit.fit_info["status"] == "converged"
    for component, width in zip(("star", "telluric"), scatter, strict=True):
        assert fit.fit_info["prior"][component]["strength"] == pytest.approx(width, rel=0.3), component
    assert abs(found(fit)["radial_velocity"][0] - VELOCITY) < 4 * found(fit)["radial_velocity"][1]
    assert "prior" not in fit_near(orders, star, sky, jitter=True, prior=GaussianPrior(tail=3.0)).fit_info
    assert "prior" not in fit_near(orders, star, sky, jitter=True, free=()).fit_info
