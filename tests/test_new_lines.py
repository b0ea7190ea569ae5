"""Lines that templates lack: the statistic against brute force, its false alarms, what is found, and bad input."""

import warnings
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable
from scipy.ndimage import gaussian_filter1d

from specutils_blase import BlaseWarning, L1Prior, LineTemplate, SpectrumFit, find_new_lines, fit_spectrum
from specutils_blase.functional import FWHM_PER_SIGMA
from specutils_blase.lines import line_table
from specutils_blase.modeling import VoigtForest1D
from specutils_blase.preparation import model_lines
from specutils_blase.simulation import scatter_lines, simulate_order, simulate_star, simulate_telluric
from specutils_blase.solvers.covariance import definite_factor
from specutils_blase.solvers.detection import chance, search
from specutils_blase.solvers.exposures import Epoch, Exposure, element, extended
from specutils_blase.solvers.lines import Lines, peak_profile
from specutils_blase.solvers.scene import STAR

KMS = u.km / u.s
COVERAGE = (10580.0, 10626.0)
LOWER, UPPER, N_PIX = 10590.0, 10614.0, 400
VELOCITIES = (-20.0, 0.0)
# What the templates lack: centre, strength in units that a S/N of about ten has.
STAR_LINES, SKY_LINES = np.array([10595.3, 10604.1, 10609.2]), np.array([10598.2, 10606.6])
STRENGTH = 0.008


def template_of(model, frame="rest"):
    lines, zero = model_lines(model), np.zeros(model.n_lines, dtype=int)
    table = line_table(lines, np.zeros((len(lines), 4, 4)), index=zero, flags=zero, form=model.form)
    return LineTemplate(model, table, meta={"coverage": list(COVERAGE), "frame": frame})


def with_lines(model, center, strength=STRENGTH):
    """A forest with more lines of median widths."""
    lines = model_lines(model)
    size = np.ones(len(center))
    joint = lines.join(Lines(center, strength * size, np.median(lines.sigma) * size, np.median(lines.gamma) * size))
    values = (joint.center, joint.strength, joint.sigma * FWHM_PER_SIGMA, 2.0 * joint.gamma)
    return VoigtForest1D(*(value * u.AA for value in values), form=model.form)


STAR_MODEL = simulate_star(5, lower=COVERAGE[0] * u.AA, upper=COVERAGE[1] * u.AA, n_lines=140).model
SKY_MODEL = simulate_telluric(6, lower=COVERAGE[0] * u.AA, upper=COVERAGE[1] * u.AA, n_lines=20).model
TEMPLATE, TELLURIC = template_of(STAR_MODEL), template_of(SKY_MODEL, "observatory")
FULL_STAR, FULL_SKY = with_lines(STAR_MODEL, STAR_LINES), with_lines(SKY_MODEL, SKY_LINES)


def observe(star, sky, seed, velocity=VELOCITIES[0], **options):
    options = {"lower": LOWER * u.AA, "upper": UPPER * u.AA, "n_pix": N_PIX, "bad_pixels": 0, "vsini": 4 * KMS,
               **options}  # fmt: skip
    return simulate_order(star, sky, seed=seed, radial_velocity=velocity * KMS, **options).spectrum


def fitted(spectrum, velocity=VELOCITIES[0], template=TEMPLATE, telluric=TELLURIC, **options):
    options = {"radial_velocity": velocity * KMS, "vsini": 4 * KMS, "progress": False, **options}
    return fit_spectrum(spectrum, template, telluric, **options)


@pytest.fixture(scope="module")
def complete():
    """A fit in which nothing is missing."""
    return fitted(observe(STAR_MODEL, SKY_MODEL, 1))


@pytest.fixture(scope="module")
def epochs():
    """Two exposures with missing lines, the second through 1.4 times as much air."""
    return [fitted(observe(FULL_STAR, FULL_SKY, k, v, telluric_scale=1.4 ** (k - 2)), v)
            for k, v in enumerate(VELOCITIES, start=2)]  # fmt: skip


def test_scores_are_those_of_dense_algebra(complete):
    exposure = complete.exposure
    problem, theta = exposure.problem, exposure.theta
    n = problem.shape[0] * problem.shape[1]
    residual = problem.evaluate(theta).residual.copy()
    jacobian = []
    for k, value in enumerate(theta):
        step = 1e-4 if k < n else 1e-3 * max(abs(value), 0.1)
        sides = [problem.evaluate(np.where(np.arange(theta.size) == k, theta + s * step, theta)).residual.copy()
                 for s in (1.0, -1.0)]  # fmt: skip
        jacobian.append((sides[0] - sides[1]) / (2.0 * step))
    jacobian = np.array(jacobian).T
    prior = np.concatenate([problem.penalty.curvature(problem.split(theta)[0]).ravel(), np.zeros(theta.size - n)])
    gradient = jacobian.T @ residual
    gradient[:n] += problem.penalty.gradient(problem.split(theta)[0]).ravel()
    normal = jacobian.T @ jacobian + np.diag(prior)
    for is_star, center in ((True, 10602.35), (False, 10601.4)):
        width = np.array([0.05]), np.array([0.01])
        unit = 1e-4
        line = Lines(np.array([center]), np.array([unit]), *width)
        species = np.array([STAR if is_star else 0])
        other, point, _ = extended(problem, theta, line, species)
        column = (other.evaluate(point).residual - residual) / unit  # by the model itself
        if not is_star:  # strengths are as seen, with the column
            column /= np.exp(problem.globals(theta).column[0])
        line = Lines(np.array([center]), 1.0 / peak_profile(*width), *width)
        score, information, seen, _ = Epoch(exposure, exposure).scores(line, np.array([is_star]))
        absorbed = np.linalg.solve(normal, jacobian.T @ column)
        np.testing.assert_allclose(seen, column @ column, rtol=2e-3)
        np.testing.assert_allclose(information, column @ column - column @ jacobian @ absorbed, rtol=5e-3)
        expected = column @ residual - absorbed @ gradient
        np.testing.assert_allclose(score, expected, atol=0.01 * np.sqrt(information[0]))


def test_chance_is_that_of_a_smooth_process():
    """White noise that is smoothed with sigma correlates as exp(-x^2/4 sigma^2): L is the range over sqrt(2) sigma."""
    rng, sigma, n = np.random.default_rng(1), 8.0, 1200
    noise = gaussian_filter1d(rng.standard_normal((3000, n + 200)), sigma, axis=1)[:, 100:-100]
    highest = (noise / noise.std()).max(axis=1)
    for level in (2.5, 3.0, 3.5):
        expected = chance(level, n / (np.sqrt(2.0) * sigma))
        assert abs(np.mean(highest > level) - expected) < 0.1 * expected + 3.0 * np.sqrt(expected / len(highest))


def test_false_alarms_are_as_many_as_asked_for():
    fit = fitted(observe(STAR_MODEL, SKY_MODEL, 1), free=())
    problem, theta = fit.exposure.problem, fit.exposure.theta
    state, scene = problem.evaluate(theta), problem.scene
    rng, count, n = np.random.default_rng(2), 0, 80
    for _ in range(n):
        data = state.pixels * state.continuum + rng.standard_normal(scene.data.size) / scene.weight
        drawn = problem.reweighted(scene.weight)
        drawn.scene = replace(scene, data=data)
        count += len(search([Exposure.kept(drawn, theta)], 0.1)[0]) > 0
    assert 0.01 * n < count < 0.21 * n


def test_nothing_is_found_where_nothing_is_missing(complete):
    table = find_new_lines(complete)
    assert len(table) == 0 and table.meta["false_alarm"] == 0.01 and 3.5 < table.meta["threshold"] < 4.5
    assert table.meta["n_places"] > 50 and np.shape(table.meta["noise_scale"]) == (1, 1)
    assert len(complete.new_lines) == 0 and not complete.lines["new"].any()


def assert_found(rows, center, strength=STRENGTH, sigmas=4.0):
    """Every row is a line that was left out, and none is missing."""
    assert len(rows) == len(center)
    pulls = (rows["line_center"].value - center) / rows["line_center_err"].value
    assert np.all(np.abs(pulls) < sigmas), pulls
    assert np.all(rows["line_center_err"].value < 0.05)
    pulls = (rows["strength"].value - strength) / rows["strength_err"].value
    assert np.all(np.abs(pulls) < sigmas), pulls
    assert np.all(rows["strength_err"].value < 0.25 * strength)
    assert np.all(rows["false_alarm"] < 0.01)


def test_one_exposure(epochs):
    table = find_new_lines(epochs[0])
    assert set(table["component"]) == {"unknown"} and np.isnan(table["log_odds"]).all()
    # the star's rest frame is assumed
    shift = 1.0 - VELOCITIES[0] / 299792.458
    expected = np.sort(np.concatenate([STAR_LINES, SKY_LINES * shift]))
    assert len(table) == len(expected)
    np.testing.assert_allclose(table["line_center"].value, expected, atol=0.06)


def test_two_exposures_tell_star_from_air(epochs):
    table = find_new_lines(*epochs)
    for name, center in (("star", STAR_LINES), ("telluric", SKY_LINES)):
        assert_found(table[table["component"] == name], center)
    assert np.all((table["log_odds"] > 3.0) == (table["component"] == "star"))
    assert len(table) == 5 and set(table["n_epochs"]) == {2}


@pytest.mark.parametrize("free", [(), {"star": ("strength",), "telluric": ()}])
def test_two_exposures_of_which_lines_are_held(free):
    """The column is free, and lines that are held must not lose their part of it to those that are new."""
    fits = [fitted(observe(FULL_STAR, FULL_SKY, k, v), v, free=free) for k, v in enumerate(VELOCITIES, start=2)]
    table = find_new_lines(*fits)
    air = table[table["component"] == "telluric"]
    assert len(air) == len(SKY_LINES)
    np.testing.assert_allclose(air["line_center"].value, SKY_LINES, atol=0.03)
    assert np.all(np.abs(air["strength"].value - STRENGTH) < 4 * air["strength_err"].value)
    assert np.all(air["strength_err"].value < 0.15 * STRENGTH)


def test_fit_with_a_table_of_new_lines(epochs, complete):
    table = find_new_lines(*epochs)
    spectrum = observe(FULL_STAR, FULL_SKY, 2, VELOCITIES[0])
    fit = fitted(spectrum, new_lines=table)
    # as good as one in which nothing is missing, for the same number of parameters and these
    assert fit.fit_info["chi2"] / fit.fit_info["dof"] < 1.2 < epochs[0].fit_info["chi2"] / epochs[0].fit_info["dof"]
    assert len(fit.new_lines) == 5 and sorted(set(fit.new_lines["component"])) == ["star", "telluric"]
    assert fit.template.model.n_lines == STAR_MODEL.n_lines + 3
    assert fit.telluric.model.n_lines == SKY_MODEL.n_lines + 2
    assert "new" not in fit.template.lines.colnames and np.all(np.diff(fit.template.model.x_0.value) > 0)
    pulls = (fit.new_lines["strength"].value - STRENGTH) / fit.new_lines["strength_err"].value
    assert np.all(np.abs(pulls) < 4.0), pulls
    # of a line that starts from a measurement the prior says next to nothing: as without it in the search
    rows = fit.new_lines[fit.new_lines["component"] == "star"]
    np.testing.assert_allclose(rows["strength_err"].value, find_new_lines(epochs[0])["strength_err"].value[[0, 2, 4]],
                               rtol=0.12)  # fmt: skip
    # it predicts the other exposure
    other = observe(FULL_STAR, FULL_SKY, 3, VELOCITIES[1], telluric_scale=1.4)
    with_them = fitted(other, VELOCITIES[1], fit.template, fit.telluric, free=())
    without = fitted(other, VELOCITIES[1], epochs[0].template, epochs[0].telluric, free=())
    assert with_them.fit_info["chi2"] < 0.7 * without.fit_info["chi2"]


def test_fit_that_finds_its_new_lines(epochs, tmp_path):
    spectrum = observe(FULL_STAR, FULL_SKY, 2, VELOCITIES[0])
    fit = fitted(spectrum, new_lines=True)
    assert len(fit.new_lines) == 5 and set(fit.new_lines["component"]) == {"star"}
    assert fit.fit_info["chi2"] / fit.fit_info["dof"] < 1.2
    fit.write(tmp_path / "fit.asdf")
    back = SpectrumFit.read(tmp_path / "fit.asdf")
    np.testing.assert_array_equal(back.lines["new"], fit.lines["new"])
    with pytest.raises(ValueError, match="fit must be what fit_spectrum returned, got one of a file"):
        find_new_lines(back)


@pytest.mark.parametrize(("seed", "vsini"), [(1, 4), (3, 4), (6, 20)])
def test_every_row_is_a_line_of_its_own(seed, vsini):
    """Strong lines: what is found first in their wings or beside them is nothing when they are found themselves."""
    rng = np.random.default_rng(seed)
    center = np.array([10593.5, 10597.5, 10601.5, 10605.5, 10609.5]) + rng.uniform(-1.0, 1.0, 5)
    strength = rng.uniform(0.02, 0.06, 5)
    vsini = vsini * KMS
    fit = fitted(observe(with_lines(STAR_MODEL, center, strength), SKY_MODEL, seed, vsini=vsini), vsini=vsini)
    table = find_new_lines(fit)
    width = element(fit.exposure, True) / 299792.458 * center.mean()
    found, errors = (table[name].value for name in ("line_center", "line_center_err"))
    assert np.all(table["strength"] > 3.0 * table["strength_err"]) and np.all(errors < 0.2 * width)
    assert np.all(np.diff(found) > width)
    # one that the template has nearby may have taken their place
    row, line = np.nonzero(np.abs(found[:, None] - center) < 0.5 * width)
    assert len(row) >= 4
    pulls = (table["strength"][row].value - strength[line]) / table["strength_err"][row].value
    assert np.all(np.abs(pulls) < 3.0) and np.all(table["strength_err"][row].value < 0.1 * strength[line])


@pytest.mark.parametrize("options", [{"free": ()}, {"prior": L1Prior()}, {"free": ("strength", "fwhm")},
                                     {"continuum": "spline"}], ids=["held", "L1", "widths", "spline"])  # fmt: skip
def test_kinds_of_fits(options):
    fit = fitted(observe(FULL_STAR, FULL_SKY, 2, snr=600.0), **options)
    shift = 1.0 - VELOCITIES[0] / 299792.458
    center = find_new_lines(fit)["line_center"].value
    for expected in (*STAR_LINES, *SKY_LINES * shift):
        assert np.min(np.abs(center - expected)) < 0.08


def test_tellurics_alone():
    fit = fitted(observe(None, FULL_SKY, 4), template=None, radial_velocity=None, vsini=None, new_lines=True)
    assert set(fit.new_lines["component"]) == {"telluric"}
    np.testing.assert_allclose(fit.new_lines["line_center"].value, SKY_LINES, atol=0.05)


def test_stars_alone_in_two_exposures():
    """Lines of the air that no template has are found where there is no telluric either."""
    nothing = VoigtForest1D([10700, 10701] * u.AA, [1e-9, 1e-9] * u.AA, [0.1, 0.1] * u.AA, [0.1, 0.1] * u.AA)
    sky = with_lines(nothing, SKY_LINES)
    fits = [fitted(observe(FULL_STAR, sky, k, v), v, telluric=None) for k, v in enumerate(VELOCITIES, start=6)]
    table = find_new_lines(*fits)
    assert_found(table[table["component"] == "star"], STAR_LINES)
    np.testing.assert_allclose(table["line_center"][table["component"] == "telluric"].value, SKY_LINES, atol=0.05)
    with pytest.warns(BlaseWarning, match="new_lines: 2 of 5 lines are left out, because no template covers them"):
        fit = fitted(observe(FULL_STAR, None, 6), telluric=None, new_lines=table)
    assert len(fit.new_lines) == 3


def test_noise_of_every_order_is_its_own():
    star = scatter_lines(STAR_MODEL, 3, strength=0.2)
    orders = [observe(star, SKY_MODEL, 8, lower=lower * u.AA, upper=(lower + 13) * u.AA, n_pix=220)
              for lower in (10589.0, 10603.0)]  # fmt: skip
    orders[1].uncertainty.array /= 3.0
    table = find_new_lines(fitted(orders))
    quiet, loud = table.meta["noise_scale"][0]
    assert quiet < 1.4 and 2.2 < loud < 3.8 and len(table) == 0


def test_columns_of_a_template_that_a_fit_does_not_know():
    lines = TEMPLATE.lines.copy()
    lines["list_row"], lines["species"] = np.arange(len(lines)), "Fe I"
    lines["log_gf"] = np.zeros(len(lines))
    table = QTable({"line_center": [1060.41] * u.nm, "strength": [8.0] * u.mAA, "fwhm_gauss": [0.1] * u.AA,
                    "fwhm_lorentz": [0.02] * u.AA, "component": ["unknown"]})  # fmt: skip
    fit = fitted(observe(FULL_STAR, SKY_MODEL, 2), template=replace(TEMPLATE, lines=lines), new_lines=table)
    row = fit.template.lines[np.argmin(np.abs(fit.template.lines["line_center"].value - 10604.1))]
    assert row["list_row"] == -1 and row["species"] == "" and np.isnan(row["log_gf"])
    assert np.count_nonzero(fit.template.lines["list_row"] >= 0) == len(lines)
    assert len(fit.new_lines) == 1 and abs(fit.new_lines["strength"][0].value - STRENGTH) < 0.004


def test_resolution_element_is_that_of_the_parts(complete):
    """Line spread function, pixel, rotation and thermal width add in quadrature."""
    c, problem = 299792.458, complete.exposure.problem
    lines = model_lines(SKY_MODEL)
    pixel = np.median(np.diff(problem.scene.edges, axis=1) / problem.scene.edges.mean()) * c / np.sqrt(12.0)
    thermal = np.median(lines.width / lines.center) * c
    expected = FWHM_PER_SIGMA * np.hypot(np.hypot(c / 55_000 / FWHM_PER_SIGMA, pixel), thermal)
    assert element(complete.exposure, False) == pytest.approx(expected, rel=0.03)
    assert element(complete.exposure, True) > c / 55_000


def test_linearised_search_leaves_the_fit_alone(epochs):
    exposure = epochs[0].exposure
    theta, n = exposure.theta.copy(), len(exposure.problem.layout.start)
    first, again = (find_new_lines(epochs[0]) for _ in range(2))
    np.testing.assert_array_equal(exposure.theta, theta)
    assert len(exposure.problem.layout.start) == n
    np.testing.assert_array_equal(first["strength"].value, again["strength"].value)
    assert definite_factor(exposure.problem.linearize(theta)[1], 0.0).condition() > 1.0


def test_bad_input(complete, epochs):
    for value in (0, 1, -0.1, "a", None):
        with pytest.raises(ValueError, match="false_alarm must be a probability between 0 and 1"):
            find_new_lines(complete, false_alarm=value)
    with pytest.raises(TypeError, match=r"others\[0\] must be a SpectrumFit, got QTable"):
        find_new_lines(complete, QTable())
    with pytest.raises(ValueError, match=r"others must hold exposures in which the star moves by more than a resol"):
        find_new_lines(epochs[0], complete)
    alone = fitted(observe(None, SKY_MODEL, 4), template=None, radial_velocity=None, vsini=None)
    with pytest.raises(ValueError, match="others must be left out unless all fits have a template"):
        find_new_lines(epochs[0], alone)
    good = QTable({"line_center": [10604.1] * u.AA, "strength": [0.008] * u.AA, "fwhm_gauss": [0.1] * u.AA,
                   "fwhm_lorentz": [0.02] * u.AA, "component": ["star"]})  # fmt: skip
    spectrum = observe(STAR_MODEL, SKY_MODEL, 1)
    bad = [(good["line_center", "component"], ValueError, "new_lines must have the columns"),
           (3.0, TypeError, "new_lines must be None, True or a table")]  # fmt: skip
    for name, value, text in (("component", ["sky"], "be among"), ("strength", [-1.0] * u.AA, "hold positive lengths"),
                              ("fwhm_gauss", [0.1] * u.s, "hold positive lengths")):  # fmt: skip
        wrong = good.copy()
        wrong[name] = value
        bad.append((wrong, ValueError, rf'new_lines\["{name}"\] must {text}'))
    for table, kind, text in bad:
        with pytest.raises(kind, match=text):
            fitted(spectrum, new_lines=table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(spectrum, new_lines=good)
