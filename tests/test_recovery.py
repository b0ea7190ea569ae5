"""injection_recovery: it finds nothing where there is nothing to find, and what is wrong where it is."""

import warnings
from dataclasses import replace

import astropy.units as u
import matplotlib
import numpy as np
import pytest
from astropy.nddata import InverseVariance, StdDevUncertainty
from astropy.table import QTable
from matplotlib import pyplot as plt
from scipy.integrate import quad
from specutils import Spectrum, SpectrumCollection, SpectrumList

from specutils_blase import BlaseWarning, SpectrumFit, fit_spectrum, injection_recovery, recovery
from specutils_blase.plotting import plot_pulls
from specutils_blase.priors import GaussianPrior, L1Prior
from specutils_blase.simulation import simulate_star, simulate_telluric

from .test_fitting import COVERAGE, KMS, LOWER, LSF, N_PIX, UPPER, fit_near, make_template, observe

matplotlib.use("agg")


@pytest.fixture(scope="module")
def star():
    low, high = COVERAGE * u.AA
    return make_template(simulate_star(5, lower=low, upper=high, n_lines=90).model)


@pytest.fixture(scope="module")
def sky():
    low, high = COVERAGE * u.AA
    return make_template(simulate_telluric(6, lower=low, upper=high, n_lines=16).model, frame="observatory")


@pytest.fixture(scope="module")
def order(star, sky):
    return observe(star, sky).spectrum


@pytest.fixture(scope="module")
def held(order, star, sky):
    """A fit without free lines, which is fast."""
    return fit_near(order, star, sky, lsf=LSF, free=())


@pytest.fixture(scope="module")
def orders(star, sky):
    ranges = ((LOWER, 0.5 * (LOWER + UPPER)), (0.5 * (LOWER + UPPER), UPPER))
    return [observe(star, sky, seed=k, lower=a * u.AA, upper=b * u.AA, n_pix=N_PIX // 2).spectrum
            for k, (a, b) in enumerate(ranges)]  # fmt: skip


def row(table, name):
    return table[table["name"] == name][0]


def test_a_fit_with_right_assumptions_is_calibrated(order, star, sky):
    fit = fit_near(order, star, sky, lsf=LSF)
    table = injection_recovery(fit, 8)
    assert table.meta["n"] == 8 and table.meta["not_converged"] == 0.0 and table.meta["draw_lines"]
    free = fit.parameters[~fit.parameters["fixed"]]
    assert table["name"][: len(free)].tolist() == free["name"].tolist()
    assert np.all(np.abs(table["pull"]) < 4 * table["pull_err"])
    known = row(table, "star ln strength, held by the prior")
    assert known["number"] > 200 and abs(known["width"] - 1) < 0.1 and abs(known["pull"]) < 0.15
    measured = row(table, "star ln strength, unblended")
    assert measured["number"] > 25 and abs(measured["width"] - 1) < 3 * measured["width_err"]
    for line in table[:6]:
        assert line["number"] == 8 and 0.4 < line["width"] < 1.8
        # one pull of a draw: the errors are those of independent numbers
        assert np.isclose(line["pull_err"], line["width"] / np.sqrt(8))
        assert line["width_err"] >= line["width"] / np.sqrt(14) * (1 - 1e-12)
    assert row(table, "vsini")["unit"] == "km / s"
    assert np.isclose(row(table, "vsini")["injected"], fit.parameters["value"][1])


def test_fixed_lines_that_the_prior_holds_hardly_move(order, star, sky):
    table = injection_recovery(fit_near(order, star, sky, lsf=LSF), 4, draw_lines=False)
    assert row(table, "star ln strength, held by the prior")["width"] < 0.5  # why lines are drawn


def test_a_wrong_resolving_power_is_seen(order, star, sky):
    sharp = observe(star, sky, snr=5000).spectrum
    fit = fit_near(sharp, star, sky, lsf=LSF, free=())
    right, wrong = injection_recovery(fit, 5), injection_recovery(fit, 5, lsf=0.9 * LSF)
    assert abs(row(right, "vsini")["pull"]) < 2.0
    assert row(wrong, "vsini")["pull"] < -8.0 and row(wrong, "vsini")["bias"] < -0.2  # rotation makes up for it


def test_noise_that_is_twice_what_is_said_is_seen(held, order):
    table = injection_recovery(held, 10, weights=2.0 / order.uncertainty.array)
    width = np.sqrt(np.mean(table["width"] ** 2))
    assert 1.6 < width < 2.4
    right = injection_recovery(held, 10)
    assert 0.8 < np.sqrt(np.mean(right["width"] ** 2)) < 1.2


def test_noise_is_that_of_the_pixels_and_masks_stay(star, sky, monkeypatch):
    spectrum = observe(star, sky, bad_pixels=6).spectrum
    with pytest.warns(BlaseWarning, match="6 of"):
        fit = fit_near(spectrum, star, sky, lsf=LSF, free=())
    seen = []

    def watched(**arguments):
        seen.append(arguments)
        return fit_spectrum(**arguments)

    monkeypatch.setattr(recovery, "fit_spectrum", watched)
    injection_recovery(fit, 12)
    used = np.isfinite(fit.residual.flux.value)
    for arguments in seen:
        again = arguments["observed"]
        assert np.array_equal(again.mask, spectrum.mask) and again.uncertainty is not None
        assert np.array_equal(again.spectral_axis.bin_edges, spectrum.spectral_axis.bin_edges)
        assert np.array_equal(again.flux[~used], spectrum.flux[~used], equal_nan=True)
        assert arguments["lsf"] == LSF and arguments["free"] == () and arguments["vsini"] == 4 * KMS
    flux = np.array([arguments["observed"].flux.value[used] for arguments in seen])
    scatter = (flux - fit.model_spectrum.flux.value[used]) / spectrum.uncertainty.array[used]
    assert abs(scatter.mean()) < 4 / np.sqrt(scatter.size) and abs(scatter.std() - 1) < 4 / np.sqrt(2 * scatter.size)
    assert abs(np.corrcoef(scatter[0], scatter[1])[0, 1]) < 0.3


def test_draws_depend_on_the_seed_alone(held):
    first, more, other = (injection_recovery(held, n, seed=seed) for n, seed in ((2, 1), (3, 1), (2, 2)))
    pulls = [table.meta["pulls"]["vsini"] for table in (first, more, other)]
    assert np.array_equal(pulls[0], pulls[1][:2]) and not np.array_equal(pulls[0], pulls[2])


@pytest.mark.parametrize("tail", [np.inf, 3.0, 0.8, 0.1])
def test_lines_scatter_as_the_prior_says(tail):
    drawn = recovery._with_tail(np.random.default_rng(1), np.full(200_000, tail))

    def density(z):
        return np.exp(-0.5 * z**2) if abs(z) < tail else np.exp(-tail * (abs(z) - 0.5 * tail))

    norm = 2 * quad(density, 0, 60, points=[min(tail, 59)])[0]
    for bound in (0.05, 0.5, 1.0, 2.5, 4.0):
        share = 2 * quad(density, 0, bound, points=[min(tail, 0.5 * bound)])[0] / norm
        assert abs(np.mean(np.abs(drawn) < bound) - share) < 5 * np.sqrt(share * (1 - share) / drawn.size) + 1e-4
    assert abs(np.mean(drawn > 0) - 0.5) < 0.005


@pytest.mark.parametrize("prior", [GaussianPrior(strength=0.2, fwhm=0.1, x_0=0.3 * KMS),
                                   L1Prior(strength=0.2, fwhm=0.1, x_0=0.3 * KMS)])  # fmt: skip
def test_true_lines_have_the_widths_of_the_prior(order, star, sky, prior):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BlaseWarning)
        fit = fit_near(order, star, sky, lsf=LSF, free={"star": ("strength", "fwhm", "x_0")}, prior=prior)
    origin, rng = fit.origin, np.random.default_rng(3)
    problem = origin.problem
    is_star = ~problem.held[:, 0]
    steps = []
    for _ in range(60):
        lines, start = problem.lines(recovery._true_theta(origin, rng)), problem.layout.start
        steps.append([np.log(lines.strength / start.strength), np.log(lines.sigma / start.sigma),
                      np.log(lines.gamma / start.gamma), 299792.458 * (lines.center / start.center - 1)])  # fmt: skip
    steps = np.array(steps).transpose(1, 0, 2)
    assert np.all(np.abs(steps[:, :, ~is_star]) < 1e-12)  # held tellurics stay
    spread = np.std(steps[:, :, is_star], axis=(1, 2))
    expected = np.array([0.2, 0.1, 0.1, 0.3]) * (1.0 if prior.quadratic else np.sqrt(2.0))
    assert np.allclose(spread, expected, rtol=0.06)


def test_every_kind_of_parameter_of_lines(order, star, sky):
    prior = GaussianPrior(strength=0.1, fwhm=0.05, x_0=0.3 * KMS)
    fit = fit_near(order, star, sky, lsf=LSF, free={"star": ("strength", "fwhm", "x_0")}, prior=prior)
    table = injection_recovery(fit, 4)
    for kind in ("ln strength", "ln fwhm_gauss", "ln fwhm_lorentz", "x_0"):
        held = row(table, f"star {kind}, held by the prior")
        assert held["number"] > 60 and abs(held["width"] - 1) < 0.2 and abs(held["pull"]) < 0.3
    assert row(table, "star x_0, held by the prior")["unit"] == "km / s"
    widths = fit.lines["fwhm_gauss"].to_value(u.AA)[fit.lines["component"] == "star"]
    assert abs(row(table, "star ln fwhm_gauss, held by the prior")["injected"] - np.log(widths).mean()) < 0.1
    assert not any(name.startswith("telluric ln") for name in table["name"])


class TestKindsOfSpectra:
    @pytest.mark.parametrize("kind", ["list", "collection", "rows"])
    def test_orders(self, orders, star, sky, kind):
        given = SpectrumList(orders)
        if kind == "collection":
            given = SpectrumCollection(
                flux=np.array([order.flux.value for order in orders]) * u.electron,
                spectral_axis=np.array([order.spectral_axis.value for order in orders]) * u.AA,
                uncertainty=StdDevUncertainty([order.uncertainty.array for order in orders]))  # fmt: skip
        elif kind == "rows":
            given = Spectrum(flux=[orders[0].flux.value] * 2 * orders[0].flux.unit,
                             spectral_axis=orders[0].spectral_axis,
                             uncertainty=type(orders[0].uncertainty)([orders[0].uncertainty.array] * 2))  # fmt: skip
            given.flux[1] *= 1.0 + 1e-6
        table = injection_recovery(fit_near(given, star, sky, lsf=LSF, free=()), 6)
        own = row(table, "continuum_0 of the orders")
        assert own["number"] == 12 and abs(own["pull"]) < 4 * own["pull_err"]
        assert "order_0_continuum_0" not in table["name"] and row(table, "vsini")["number"] == 6

    def test_decreasing_frequencies_without_uncertainties(self, order, star, sky):
        axis = order.spectral_axis.to(u.GHz, u.spectral())
        spectrum = Spectrum(flux=order.flux, spectral_axis=axis)
        table = injection_recovery(fit_near(spectrum, star, sky, lsf=LSF, free=()), 8)
        assert 0.6 < np.sqrt(np.mean(table["width"] ** 2)) < 1.4

    def test_inverse_variances_and_air(self, order, star, sky):
        weight = InverseVariance(order.uncertainty.array**-2.0)
        spectrum = Spectrum(flux=order.flux, spectral_axis=order.spectral_axis, uncertainty=weight)
        fit = fit_near(spectrum, star, None, lsf=LSF, free=(), wavelength_medium="air", radial_velocity=60 * KMS)
        table = injection_recovery(fit, 4)
        assert abs(row(table, "radial_velocity")["bias"]) < 5 * row(table, "radial_velocity")["bias_err"] + 0.2


def test_jitter_is_injected(star, sky):
    order = observe(star, sky, snr=2000).spectrum
    rng = np.random.default_rng(1)
    order = Spectrum(flux=order.flux * (1 + 0.01 * rng.normal(size=order.flux.size)), spectral_axis=order.spectral_axis,
                     uncertainty=order.uncertainty)  # fmt: skip
    table = injection_recovery(fit_near(order, star, sky, lsf=LSF, free=(), jitter=True), 12)
    found = row(table, "jitter")
    assert 0.007 < found["injected"] < 0.013 and abs(found["pull"]) < 4 * found["pull_err"]
    assert 0.6 < row(table, "radial_velocity")["width"] < 1.6


def test_fits_that_do_not_converge_are_counted(held, monkeypatch):
    calls = []

    def sometimes(**arguments):
        fit = fit_spectrum(**arguments)
        calls.append(fit)
        if len(calls) % 2:
            fit.fit_info["status"] = "max_iterations"
        return fit

    monkeypatch.setattr(recovery, "fit_spectrum", sometimes)
    table = injection_recovery(held, 6)
    assert table.meta["not_converged"] == 0.5 and set(table["number"]) == {3}
    with pytest.raises(ValueError, match="fit must be one that converges again, got 2 of 3"):
        injection_recovery(held, 3)


def test_an_interruption_leaves_what_is_done(held, monkeypatch):
    said = []

    def progress(text):
        said.append(text)
        if "draw 4" in text:
            raise KeyboardInterrupt

    with pytest.warns(BlaseWarning, match="interrupted: the table is of 3 draws instead of 9"):
        table = injection_recovery(held, 9, progress=progress)
    assert table.meta["n"] == 3 and set(table["number"]) == {3}
    assert said[0] == "injection_recovery: draw 1 of 9" and said[-1] == ""

    def at_once(text):
        if text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        injection_recovery(held, 9, progress=at_once)


def test_a_setup_is_fitted_first(held):
    ours = injection_recovery({**held.origin.arguments, "progress": False}, n=2)
    theirs = injection_recovery(held, n=2)
    assert ours["name"].tolist() == theirs["name"].tolist()
    np.testing.assert_array_equal(ours["bias"], theirs["bias"])


def test_the_table_is_an_ordinary_one(held, tmp_path):
    table = injection_recovery(held, 2)
    table.write(tmp_path / "pulls.ecsv")
    again = QTable.read(tmp_path / "pulls.ecsv")
    assert np.array_equal(again.meta["pulls"]["vsini"], table.meta["pulls"]["vsini"])
    assert np.allclose(again["bias"], table["bias"])


def test_picture(held):
    table = injection_recovery(held, 5)
    ax = plot_pulls(table)
    assert [text.get_text() for text in ax.get_yticklabels()] == [f"{name} (5)" for name in table["name"]]
    bars = [patch for patch in ax.patches if 0 < patch.get_height() < 1]
    assert np.allclose([bar.get_width() for bar in bars], 2 * table["width"])
    assert np.allclose([bar.get_x() + 0.5 * bar.get_width() for bar in bars], table["pull"])
    low, high = ax.get_xlim()
    assert low <= min(bar.get_x() for bar in bars) and ax.get_title(loc="left") == "5 draws"
    other = plt.figure().add_subplot()
    assert plot_pulls(table[:1], ax=other) is other and len(other.get_yticks()) == 1
    with pytest.raises(TypeError, match="table must be what injection_recovery returned"):
        plot_pulls(held.parameters)
    plt.close("all")


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"n": 1}, ValueError, "n must be a whole number, 2 or more, got 1"),
        ({"n": 2.5}, ValueError, "n must be a whole number"),
        ({"seed": -1}, ValueError, "seed must be a whole number, 0 or more"),
        ({"draw_lines": "prior"}, TypeError, "draw_lines must be True or False"),
        ({"resolving_power": 5}, TypeError, "changes must be arguments of fit_spectrum, got resolving_power"),
        ({"observed": None}, TypeError, "changes must be arguments of fit_spectrum, got observed"),
    ],
)
def test_bad_input(held, arguments, error, text):
    with pytest.raises(error, match=text):
        injection_recovery(held, **arguments)


def test_what_is_no_fit_or_does_not_know_how_it_was_made(held, tmp_path):
    with pytest.raises(TypeError, match="fit must be a SpectrumFit, or a dict .*, got QTable"):
        injection_recovery(held.parameters)
    held.write(tmp_path / "fit.asdf")
    for fit in (SpectrumFit.read(tmp_path / "fit.asdf"), replace(held, origin=None)):
        with pytest.raises(ValueError, match="fit must be what fit_spectrum returned, got one of a file"):
            injection_recovery(fit)
