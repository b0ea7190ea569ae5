"""The width of the prior from the lines: against the marginal likelihood of a dense linear model, and in fits."""

import numpy as np
import pytest
from astropy import units as u
from scipy.optimize import minimize_scalar

from specutils_blase import BlaseWarning, VoigtForest1D
from specutils_blase.fitter import _problem
from specutils_blase.simulation import scatter_lines, simulate_star, simulate_telluric
from specutils_blase.solvers.levenberg_marquardt import levenberg_marquardt
from specutils_blase.solvers.lines import QuadraticPenalty
from specutils_blase.solvers.spread import learnable, learned
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
    problem, *_ = _problem(start, np.ones(150, dtype=bool), x, y, np.full(x.size, 1.0 / noise), 1.0, True)
    problem.penalty = QuadraticPenalty(problem.layout.pack(), np.full(problem.layout.shape, 0.25))
    problem.held = np.zeros(problem.layout.shape, dtype=bool)
    theta, groups, believed = problem.start(), None, np.full(problem.layout.shape, np.inf)  # in nothing
    for _ in range(12):
        theta = levenberg_marquardt(problem, theta, rtol=1e-8, atol=1e-6).theta
        groups = learnable(problem, theta, np.zeros(150, dtype=int)) if groups is None else groups
        problem.penalty, change = learned(problem, theta, groups, believed)
    assert len(groups) == 1 and change < 0.01
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


@pytest.mark.parametrize("scatter", [(0.1, 0.5), (0.6, 0.1)])
def test_beside_a_jitter_every_template_has_its_own(scatter):
    ends = {"lower": 10490 * u.AA, "upper": 10575 * u.AA}
    models = simulate_star(5, n_lines=300, **ends).model, simulate_telluric(6, n_lines=200, **ends).model
    star, sky = (template_of(model, frame) for model, frame in zip(models, ("rest", "observatory"), strict=True))
    changed = [template_of(scatter_lines(model, [7, k], strength=width), "rest")
               for k, (model, width) in enumerate(zip(models, scatter, strict=True))]  # fmt: skip
    orders = observe(*changed, snr=1000.0)
    fit = fit_near(orders, star, sky, jitter=True, prior="learned")
    assert fit.fit_info["status"] == "converged"
    for component, width in zip(("star", "telluric"), scatter, strict=True):
        assert fit.fit_info["prior"][component]["strength"] == pytest.approx(width, rel=0.3), component
    assert abs(found(fit)["radial_velocity"][0] - VELOCITY) < 4 * found(fit)["radial_velocity"][1]
    assert "prior" not in fit_near(orders, star, sky, jitter=True).fit_info
    assert "prior" not in fit_near(orders, star, sky, jitter=True, prior="learned", free=()).fit_info


def test_a_template_that_was_learned_from_these_data():
    """Its lines have not moved, because they are where the data want them, which says nothing of how they scatter."""
    ends = {"lower": 10490 * u.AA, "upper": 10575 * u.AA}
    models = simulate_star(5, n_lines=300, **ends).model, simulate_telluric(6, n_lines=200, **ends).model
    star, sky = (template_of(model, frame) for model, frame in zip(models, ("rest", "observatory"), strict=True))
    changed = [template_of(scatter_lines(model, [7, k], strength=0.3), "rest") for k, model in enumerate(models)]
    orders, other = observe(*changed, snr=100.0), observe(*changed, snr=100.0, seed=1)
    first = fit_near(orders, star, sky, jitter=True, prior="learned")
    with pytest.warns(BlaseWarning, match=r"template and telluric\[0\] was learned from these data, which now count"):
        again = fit_near(orders, first.template, first.telluric, jitter=True, prior="learned")
    assert again.fit_info["prior"]["star"]["strength"] == 0.3  # as if nothing were known
    for error in (found(again)["radial_velocity"][1], found(again)["telluric_scale"][1]):
        assert error > 0
    fit_near(orders, first.template, first.telluric, free=())
    fit_near(other, first.template, first.telluric, jitter=True, prior="learned")  # other data
    assert set(first.template.meta["learned_from"]) == set(first.telluric.meta["learned_from"])
    assert "learned_from" not in fit_near(orders, star, sky, free=()).template.meta


@pytest.mark.parametrize("snr", [20.0, 60.0])
def test_lines_that_know_little_do_not_learn(snr):
    """Where the data hardly feel single lines no scatter at all is as likely, and errors would vanish with it."""
    ends = {"lower": 10490 * u.AA, "upper": 10575 * u.AA}
    model = simulate_star(5, n_lines=300, **ends).model
    sky = template_of(simulate_telluric(6, n_lines=5, **ends).model, "observatory")
    star, changed = template_of(model, "rest"), template_of(scatter_lines(model, 3, strength=0.3), "rest")
    for seed in range(3):
        fit = fit_near(observe(changed, sky, snr=snr, seed=seed), star, sky, jitter=True, prior="learned")
        assert fit.fit_info["prior"]["star"]["strength"] > 0.15
