"""fit_spectrum against injected truth, against the torch modules of the same chain, and against bad input."""

import warnings

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.nddata import InverseVariance, StdDevUncertainty
from specutils import SpectralRegion, Spectrum

from specutils_blase import CoverageError, LineTemplate, SpectrumFit, clone_spectrum, fit_spectrum, fitting
from specutils_blase.errors import BlaseWarning
from specutils_blase.flags import BLENDED, OUTSIDE_WINDOW, PRIOR_DOMINATED
from specutils_blase.functional import FWHM_PER_SIGMA
from specutils_blase.instrument import BandedLSF, GaussianLSF, ResolvingPower, as_lsf
from specutils_blase.lines import line_table
from specutils_blase.modeling import VoigtForest1D
from specutils_blase.nn import ForwardModel, Instrument, LineForest
from specutils_blase.orders import read_orders
from specutils_blase.preparation import Setup
from specutils_blase.priors import GaussianPrior, L1Prior
from specutils_blase.report import describe_fit
from specutils_blase.simulation import equivalent_width, scatter_lines, simulate_order, simulate_star, simulate_telluric
from specutils_blase.solvers import observed
from specutils_blase.solvers.lines import Lines

KMS = u.km / u.s
C = 299792.458
COVERAGE = (10580.0, 10620.0)
LOWER, UPPER, N_PIX = 10592.0, 10608.0, 260
LSF = 55_000.0
VELOCITY, VSINI, COLUMN = -23.4, 5.0, 1.3


def make_template(model, frame="rest", coverage=COVERAGE):
    """A template of a forest, as if cloned without error."""
    values = [getattr(model, name).quantity.to_value(u.AA) for name in model.param_names[:4]]
    lines = Lines(values[0], values[1], values[2] / FWHM_PER_SIGMA, values[3] / 2)
    zero = np.zeros(len(lines), dtype=int)
    component = "star" if frame == "rest" else "telluric"
    table = line_table(lines, np.zeros((len(lines), 4, 4)), index=zero, flags=zero, component=component,
                       form=model.form)  # fmt: skip
    return LineTemplate(model, table, meta={"coverage": list(coverage), "frame": frame})


@pytest.fixture(scope="module")
def star():
    low, high = COVERAGE * u.AA
    return make_template(simulate_star(5, lower=low, upper=high, n_lines=90).model)


@pytest.fixture(scope="module")
def sky():
    low, high = COVERAGE * u.AA
    return make_template(simulate_telluric(6, lower=low, upper=high, n_lines=16).model, frame="observatory")


def observe(star, sky, seed=1, **kwargs):
    """A simulated order of templates or forests, without bad pixels unless asked for."""
    models = (getattr(item, "model", item) for item in (star, sky))
    options = {"radial_velocity": VELOCITY * KMS, "vsini": VSINI * KMS, "telluric_scale": COLUMN,
               "lower": LOWER * u.AA, "upper": UPPER * u.AA, "n_pix": N_PIX, "bad_pixels": 0,
               "resolving_power": LSF}  # fmt: skip
    return simulate_order(*models, seed=seed, **{**options, **kwargs})


def fit_near(spectrum, template, telluric=None, **kwargs):
    """A fit that starts near the default truth, so that nothing is searched for."""
    start = {"radial_velocity": -20 * KMS, "vsini": 4 * KMS, "progress": False}
    return fit_spectrum(spectrum, template, telluric, **{**start, **kwargs})


def parameter(fit, name):
    """(value, std) of a global parameter."""
    row = fit.parameters[fit.parameters["name"] == name]
    assert len(row) == 1, f"no parameter {name}"
    return float(row["value"][0]), float(row["std"][0])


def values(fit):
    return dict(zip(fit.parameters["name"], fit.parameters["value"], strict=True))


def assert_recovered(fit, truth, sigmas=4.0):
    """Every free global parameter lies within so many standard deviations of the truth."""
    truth = {**truth, **{f"continuum_{k}": c for k, c in enumerate(truth["continuum"])}}
    free = fit.parameters[~fit.parameters["fixed"]]
    assert len(free) >= 3
    for name, value, std in free.iterrows("name", "value", "std"):
        assert 0 < std < np.inf
        assert abs(value - truth[name]) < sigmas * std, f"{name} is {value} +- {std}, truth {truth[name]}"


@pytest.fixture(scope="module")
def order(star, sky):
    return observe(star, sky)


@pytest.fixture(scope="module")
def fit(order, star, sky):
    return fit_near(order.spectrum, star, sky, free={"star": ("strength", "fwhm", "x_0"), "telluric": ("strength",)})


@pytest.mark.parametrize("speed", [4e5, -3e5])
def test_faster_than_light_is_refused(order, star, speed):
    with pytest.raises(ValueError, match="radial_velocity must be slower than light, got .*; check its unit"):
        fit_spectrum(order.spectrum, star, radial_velocity=speed * KMS)


@pytest.mark.parametrize("free", [None, {"star": None}, 3])
def test_free_that_holds_no_names_is_refused(order, star, free):
    with pytest.raises(ValueError, match=r"free must hold names among .*; write e\.g\."):
        fit_spectrum(order.spectrum, star, free=free)


def test_rotation_at_its_limit_is_named(star):
    still = observe(star, None, vsini=0 * KMS, seed=4, snr=2000)
    fits = [fit_near(o.spectrum, star, free=(), vsini=1 * KMS) for o in (still, observe(star, None))]
    for fit in fits:
        at_limit = parameter(fit, "vsini")[0] <= 0.05
        assert fit.parameters.meta["at_bound"] == ["vsini"] * at_limit
        assert ("at its limit" in describe_fit(fit)) == at_limit
        assert np.isnan(parameter(fit, "vsini")[1]) == at_limit
    assert parameter(fits[1], "vsini")[0] > 1


def test_recovers_what_was_injected(order, star, sky):
    fit = fit_near(order.spectrum, star, sky, free=())
    assert fit.fit_info["status"] == "converged"
    assert_recovered(fit, order.truth)
    assert fit.fit_info["chi2"] / fit.fit_info["dof"] == pytest.approx(1, abs=4 * np.sqrt(2 / N_PIX))
    assert not np.any(star_lines(fit)["strength_err"] > 0)
    # the tellurics' strengths hold the column scale, and so do their errors
    lines = fit.lines[np.asarray(fit.lines["component"]) == "telluric"]
    scale, std = parameter(fit, "telluric_scale")
    np.testing.assert_allclose((lines["strength_err"] / lines["strength"]).value, std / scale, rtol=1e-6)


def test_free_lines_recover_too(fit, order):
    assert fit.fit_info["status"] == "converged"
    assert_recovered(fit, order.truth)


def test_without_noise_the_truth_comes_back(star, sky):
    order = observe(star, sky)
    fit = fit_near(order.noiseless, star, sky, free=())
    assert abs(parameter(fit, "radial_velocity")[0] - VELOCITY) < 1e-3
    assert parameter(fit, "vsini")[0] == pytest.approx(VSINI, rel=1e-3)
    assert parameter(fit, "telluric_scale")[0] == pytest.approx(COLUMN, rel=1e-4)
    relative = fit.residual.flux / fit.components["continuum"].flux
    assert np.max(np.abs(relative.value)) < 3e-5


@pytest.mark.parametrize("velocity", [-80.0, 11.0, 80.0])
def test_velocity_and_rotation_are_found(star, sky, velocity):
    order = observe(star, sky, seed=2, radial_velocity=velocity * KMS, vsini=9 * KMS)
    fit = fit_spectrum(order.spectrum, star, sky, progress=False)
    assert_recovered(fit, order.truth)


def test_rotation_is_found_at_a_given_velocity(star):
    order = observe(star, None, vsini=30 * KMS, radial_velocity=5 * KMS)
    fit = fit_spectrum(order.spectrum, star, radial_velocity=5 * KMS, free=(), progress=False)
    assert_recovered(fit, order.truth)


def line_forest(model, tolerance=1e-6):
    center, strength, gauss, lorentz = (getattr(model, name).quantity.to_value(u.AA) for name in model.param_names[:4])
    return LineForest(center, strength, gauss / FWHM_PER_SIGMA, lorentz / 2, tolerance=tolerance)


def module_of(fit, spectrum, star, sky):
    """The `ForwardModel` with the parameters of a fit, in the flux unit of the spectrum, on a grid of its own."""
    found = values(fit)
    edges = torch.from_numpy(read_orders(spectrum).arrays[0].edges)
    continuum = [value for name, value in found.items() if name.startswith("continuum")]
    instrument = Instrument(edges, resolving_power=LSF, step=0.25)
    model = ForwardModel(star, instrument, telluric=sky, radial_velocity=found["radial_velocity"],
                         vsini=found["vsini"], continuum=continuum)  # fmt: skip
    model.telluric_log_scale.data[:] = np.log(found["telluric_scale"])
    return model


def relative_difference(fit, module):
    off = module().detach().numpy() - fit.model_spectrum.flux.value
    return np.max(np.abs(off / fit.components["continuum"].flux.value))


def test_model_is_that_of_the_modules(order, star, sky):
    fit = fit_near(order.spectrum, star, sky, free={"star": ("strength", "fwhm", "x_0")})
    module = module_of(fit, order.spectrum, line_forest(fit.template.model), line_forest(sky.model))
    # every line is cut where its optical depth is 1e-6, the two grids lie differently
    assert relative_difference(fit, module) < 2e-5


def test_model_is_exactly_that_of_the_modules_with_the_same_lines_and_grid(order, star, sky, monkeypatch):
    def uncut(grid, lines, form):
        lines = lines.sorted()
        return observed.compiled.optical_depth(grid, *lines, 1e-14) if len(lines) else np.zeros(grid.size)

    monkeypatch.setattr(observed, "line_depth", uncut)
    fit = fit_near(order.spectrum, star, sky, free={"star": ("strength", "fwhm", "x_0")})
    parts = []
    for component in ("star", "telluric"):
        lines = fit.lines[np.asarray(fit.lines["component"]) == component]
        columns = (lines[n].value for n in ("line_center", "strength", "fwhm_gauss", "fwhm_lorentz"))
        model = VoigtForest1D(*(column * u.AA for column in columns))
        parts.append(line_forest(model, tolerance=1e-14))
    module = module_of(fit, order.spectrum, *parts)
    module.telluric_log_scale.data[:] = 0.0  # it is in the strengths
    scene = Setup.build(read_orders(order.spectrum), star, [sky], as_lsf(LSF), 0.6, 3).scene
    module.instrument.wave, module.instrument.step = torch.from_numpy(scene.grid), scene.step
    assert relative_difference(fit, module) < 1e-9


def test_torch_finds_no_better_point(order, star, sky):
    fit = fit_near(order.spectrum, star, sky, free=())
    model = module_of(fit, order.spectrum, line_forest(fit.template.model), line_forest(sky.model))
    spectrum = order.spectrum
    flux, sigma = (torch.from_numpy(np.array(a, dtype=float)) for a in (spectrum.flux.value,
                                                                         spectrum.uncertainty.array))  # fmt: skip
    chi2 = (((model() - flux) / sigma) ** 2).sum()
    chi2.backward()
    assert chi2.item() == pytest.approx(fit.fit_info["chi2"], abs=0.05)
    for name, gradient, change in [
        ("radial_velocity", model.radial_velocity.grad.item(), 1.0),
        ("vsini", model.log_vsini.grad.item(), 1 / parameter(fit, "vsini")[0]),
        ("telluric_scale", model.telluric_log_scale.grad[0].item(), 1 / COLUMN),
        ("continuum_0", model.continuum.grad[0].item(), 1.0),
    ]:
        # in units of the standard deviation, a step along the gradient would gain half its square
        assert abs(gradient * change * parameter(fit, name)[1]) / 2 < 0.15, name


def test_widths_and_centres_within_their_errors(star, sky):
    truth = scatter_lines(star.model, 11, strength=0.3, fwhm=0.2)
    speed = np.random.default_rng(3).normal(0, 0.4, truth.n_lines)
    truth.x_0 = truth.x_0.quantity * (1 + speed / C)
    order = observe(truth, sky, snr=600)
    fit = fit_near(order.spectrum, star, sky, free={"star": ("strength", "fwhm", "x_0")},
                   prior=GaussianPrior(strength=0.3, fwhm=0.2, x_0=0.4 * KMS))  # fmt: skip
    assert_recovered(fit, order.truth)
    lines = star_lines(fit)
    index = np.abs(truth.x_0.value[:, None] - lines["line_center"].value).argmin(axis=0)
    clear = np.abs(truth.x_0.value[index] - lines["line_center"].value) < 0.03
    clear &= (lines["flags"] & (OUTSIDE_WINDOW | BLENDED)) == 0
    assert clear.sum() > 10
    for name, column in (("x_0", "line_center"), ("strength", "strength"), ("fwhm_G", "fwhm_gauss")):
        pull = (lines[column] - getattr(truth, name).quantity[index])[clear] / lines[f"{column}_err"][clear]
        assert np.max(np.abs(pull)) < 5, name
        assert np.std(pull) < 1.6, name


def star_lines(fit):
    return fit.lines[np.asarray(fit.lines["component"]) == "star"]


def test_equivalent_widths_of_changed_lines(star, sky):
    truth = scatter_lines(star.model, 4, strength=0.3)
    order = observe(truth, sky)
    fit = fit_near(order.spectrum, star, sky, free={"star": "strength"})
    lines = star_lines(fit)
    index = np.searchsorted(truth.x_0.value, lines["line_center"].value - 1e-6)
    shape = (getattr(truth, name).value[index] for name in ("strength", "fwhm_G", "fwhm_L"))
    seen = ((lines["flags"] & OUTSIDE_WINDOW) == 0) & (lines["equivalent_width"] > 3 * lines["equivalent_width_err"])
    pull = (lines["equivalent_width"].value - equivalent_width(*shape)) / lines["equivalent_width_err"].value
    assert seen.sum() > 10
    assert np.max(np.abs(pull[seen])) < 4.5
    assert np.std(pull[seen]) == pytest.approx(1, abs=4 / np.sqrt(2 * seen.sum()))


def test_free_mapping_frees_only_what_it_names(order, star, sky):
    fit = fit_near(order.spectrum, star, sky, free={"star": ("fwhm",), "telluric": ("strength",)})
    for component, moved, held in (
        ("star", ("fwhm_gauss", "fwhm_lorentz"), ("strength", "line_center")),
        ("telluric", ("strength",), ("fwhm_gauss", "fwhm_lorentz", "line_center")),
    ):
        lines = fit.lines[np.asarray(fit.lines["component"]) == component]
        original = (star if component == "star" else sky).lines
        before = original[np.searchsorted(original["line_center"].value, lines["line_center"].value * (1 - 1e-12))]
        inside = (lines["flags"] & OUTSIDE_WINDOW) == 0
        for name in held:
            np.testing.assert_allclose(lines[name].value, before[name].value, rtol=1e-7)
            assert np.all(lines[f"{name}_err"].value < 1e-5)
        for name in moved:
            change = np.abs(np.log(lines[name] / before[name]).value[inside])
            assert change.max() > 1e-3
            assert np.all(lines[f"{name}_err"].value[inside] > 1e-6)


def isolated(model):
    """The three strongest lines within the order that have no other line of a tenth of their strength near them."""
    center, strength = model.x_0.value, model.strength.value
    near = (np.abs(center[:, None] - center) < 0.3) & (strength > 0.1 * strength[:, None])
    alone = (near.sum(axis=1) == 1) & (np.abs(center - 10600) < 6)
    assert alone.sum() >= 3
    return np.argsort(strength * alone)[-3:]


def test_a_tight_prior_holds_and_a_wide_one_lets_go(star):
    truth = star.model.copy()
    strongest = isolated(truth)
    strength = truth.strength.quantity.copy()
    strength[strongest] *= 1.8
    truth.strength = strength
    spectrum = observe(truth, None, snr=2000).spectrum
    center = truth.x_0.value[strongest]

    def changes(prior):
        lines = star_lines(fit_near(spectrum, star, prior=prior))
        rows = np.searchsorted(star.lines["line_center"].value, lines["line_center"].value - 1e-6)
        change = np.log((lines["strength"] / star.lines["strength"][rows]).value)
        special = np.isin(np.round(lines["line_center"].value, 6), np.round(center, 6))
        assert special.sum() == 3
        error = (lines["strength_err"] / lines["strength"]).value[special]
        return change[special], change[~special], error, (lines["flags"] & PRIOR_DOMINATED)[special]

    changed, _, error, flags = changes(GaussianPrior(strength=1e-4))
    assert np.max(np.abs(changed)) < 1e-2 and np.all(flags) and np.all(error < 1.001e-4)
    changed, wide, error, flags = changes(GaussianPrior(strength=1.0))
    assert np.max(np.abs(changed - np.log(1.8)) / error) < 4
    assert np.min(error) < 0.2 and not flags[np.argmin(error)]
    # the paper's prior lets few lines move: most stay where they were
    changed, sparse, _, _ = changes(L1Prior(strength=0.3))
    assert np.median(changed) > 0.4
    assert np.median(np.abs(sparse)) < 3e-3 < np.median(np.abs(wide))


def test_a_line_that_is_wrong_in_the_template_is_let_go(star):
    truth = star.model.copy()
    wrong = isolated(truth)[-1:]
    strength = truth.strength.quantity.copy()
    strength[wrong] *= 15.0
    truth.strength = strength
    spectrum = observe(truth, None, snr=100).spectrum
    center = truth.x_0.value[wrong]

    def change(**given):
        lines = star_lines(fit_near(spectrum, star, **given))
        row = np.argmin(np.abs(lines["line_center"].value - center))
        source = np.argmin(np.abs(star.lines["line_center"].value - center))
        return np.log((lines["strength"][row] / star.lines["strength"][source]).value), (
            lines["strength_err"][row] / lines["strength"][row]).value  # fmt: skip

    (held, _), (free, error), (default, _) = (
        change(prior=GaussianPrior(strength=0.3)), change(prior=GaussianPrior(strength=0.3, tail=3.0)), change())
    assert np.log(15.0) - free < 0.6 * (np.log(15.0) - held), (held, free, error)
    assert default == free
    assert abs(free - np.log(15.0)) < 4 * error


def test_free_resolving_power(star, sky):
    order = observe(star, sky, snr=600, vsini=3 * KMS)
    fit = fit_near(order.spectrum, star, sky, lsf=ResolvingPower(50_000.0, free=True), free=())
    assert_recovered(fit, order.truth)
    power, std = parameter(fit, "resolving_power")
    assert 100 < std < 4000
    assert abs(power - 50_000) > std
    fixed = fit_near(order.spectrum, star, sky, lsf=LSF, free=())
    assert parameter(fixed, "resolving_power") == (LSF, 0.0)
    assert parameter(fixed, "vsini")[1] < parameter(fit, "vsini")[1]


def test_a_line_spread_function_may_be_written_in_many_ways(order, star, sky):
    speed = (C / LSF) * KMS
    found = [values(fit_near(order.spectrum, star, sky, lsf=lsf, free=()))
             for lsf in (LSF, ResolvingPower(LSF), lambda wave: LSF + 0 * wave.value, GaussianLSF(speed))]  # fmt: skip
    for other in found[1:]:
        np.testing.assert_allclose(list(other.values()), list(found[0].values()), rtol=1e-8)


def test_resolving_power_may_change_along_the_order(star):
    def power(wave):
        return 40_000 + 2000 * (wave.to_value(u.AA) - 10592)

    model = ForwardModel(line_forest(star.model), Instrument(EDGES, resolving_power=torch.from_numpy(power(
        EDGES.numpy().mean(axis=1) * u.AA))), radial_velocity=VELOCITY, vsini=VSINI)  # fmt: skip
    spectrum = on_edges(model().detach().numpy(), 1e-4)
    right = fit_near(spectrum, star, lsf=power, free=())
    assert parameter(right, "vsini")[0] == pytest.approx(VSINI, abs=0.02)
    constant = fit_near(spectrum, star, lsf=40_000, free=())
    assert constant.fit_info["rms"] > 10 * right.fit_info["rms"]


WIDTH = 0.06
CENTERS = LOWER + WIDTH * (np.arange(N_PIX) + 0.5)
EDGES = torch.from_numpy(np.stack([CENTERS - WIDTH / 2, CENTERS + WIDTH / 2], axis=1))


def on_edges(flux, sigma):
    """A spectrum on the regular pixels with edges, without noise."""
    edges = np.append(EDGES[:, 0].numpy(), EDGES[-1, 1].item())
    return Spectrum(flux=flux * u.Jy, spectral_axis=edges * u.AA, bin_specification="edges",
                    uncertainty=StdDevUncertainty(np.full(N_PIX, sigma)))  # fmt: skip


def test_no_line_spread_function_and_the_identity_matrix(star):
    model = ForwardModel(line_forest(star.model), Instrument(EDGES), radial_velocity=VELOCITY, vsini=VSINI)
    spectrum = on_edges(model().detach().numpy(), 1e-3)
    fits = [fit_near(spectrum, star, lsf=lsf, free=()) for lsf in (None, BandedLSF(np.ones((1, N_PIX))))]
    for fit in fits:
        assert "resolving_power" not in list(fit.parameters["name"])
        assert parameter(fit, "radial_velocity")[0] == pytest.approx(VELOCITY, abs=5e-3)
        assert fit.fit_info["rms"] < 1e-4
    np.testing.assert_allclose(list(values(fits[0]).values()), list(values(fits[1]).values()), rtol=1e-8)
    blurred = np.stack([np.full(N_PIX, w) for w in (0.25, 0.5, 0.25)])
    spectrum = on_edges(np.convolve(spectrum.flux.value, [0.25, 0.5, 0.25], mode="same"), 1e-3)
    inside = SpectralRegion(CENTERS[3] * u.AA, CENTERS[-4] * u.AA)
    fit = fit_near(spectrum, star, lsf=blurred, free=(), window=inside)
    assert parameter(fit, "radial_velocity")[0] == pytest.approx(VELOCITY, abs=5e-3)
    assert fit.fit_info["rms"] < 1e-4


def test_bin_edges_are_used(star):
    """Wide and narrow pixels in turn, whose centres alone look regular."""
    widths = np.where(np.arange(N_PIX) % 2 == 0, 0.04, 0.08)
    edges = np.concatenate([[LOWER], LOWER + np.cumsum(widths)])
    pairs = torch.from_numpy(np.stack([edges[:-1], edges[1:]], axis=1))
    module = ForwardModel(line_forest(star.model), Instrument(pairs, resolving_power=LSF, step=0.25),
                          radial_velocity=VELOCITY, vsini=VSINI)  # fmt: skip
    flux, error = module().detach().numpy() * u.Jy, StdDevUncertainty(np.full(N_PIX, 1e-4))
    known = Spectrum(flux=flux, spectral_axis=edges * u.AA, bin_specification="edges", uncertainty=error)
    guessed = Spectrum(flux=flux, spectral_axis=(edges[1:] + edges[:-1]) / 2 * u.AA, uncertainty=error)
    fits = [fit_near(spectrum, star, free=()) for spectrum in (known, guessed)]
    assert parameter(fits[0], "radial_velocity")[0] == pytest.approx(VELOCITY, abs=2e-3)
    assert fits[0].fit_info["rms"] < 1e-5
    assert fits[1].fit_info["rms"] > 20 * fits[0].fit_info["rms"]


@pytest.fixture(scope="module")
def regular(star, sky):
    """(flux, sigma) on regular pixels, with noise."""
    model = ForwardModel(line_forest(star.model), Instrument(EDGES, resolving_power=LSF),
                         telluric=line_forest(sky.model), radial_velocity=VELOCITY, vsini=VSINI)  # fmt: skip
    rng = np.random.default_rng(9)
    flux = model().detach().numpy()
    sigma = 0.003 * rng.uniform(0.7, 1.3, N_PIX)
    return flux + sigma * rng.standard_normal(N_PIX), sigma


BAD = np.array([4, 60, 61, 150, 200, 255])


def ruin(kind, flux, sigma):
    """(flux, uncertainty, mask) with bad pixels of one kind."""
    flux, sigma, mask = flux.copy(), sigma.copy(), None
    uncertainty = StdDevUncertainty
    if kind in ("nan", "inf"):
        flux[BAD] = float(kind)
        mask = np.zeros(N_PIX, dtype=bool)
    elif kind == "mask":
        flux[BAD] = 77.0
        mask = np.isin(np.arange(N_PIX), BAD)
    elif kind == "ivar 0":
        flux[BAD] = 77.0
        uncertainty, sigma = InverseVariance, 1 / sigma**2
        sigma[BAD] = 0.0
    else:
        flux[BAD] = 77.0
        sigma[BAD] = {"sigma 0": 0.0, "sigma nan": np.nan, "sigma inf": np.inf}[kind]
    return flux, uncertainty(sigma), mask


@pytest.mark.parametrize("kind", ["nan", "inf", "mask", "ivar 0", "sigma 0", "sigma nan", "sigma inf"])
def test_bad_pixels_are_as_if_they_were_not_there(regular, star, kind):
    flux, uncertainty, mask = ruin(kind, *regular)
    spectrum = Spectrum(flux=flux * u.Jy, spectral_axis=CENTERS * u.AA, uncertainty=uncertainty, mask=mask)
    with pytest.warns(BlaseWarning, match=f"observed: {BAD.size} of {N_PIX} pixels are ignored") as caught:
        fit = fit_near(spectrum, star)
    assert len(caught) == 1
    assert fit.fit_info["n_ignored"] == BAD.size
    assert fit.fit_info["n_pixels"] == N_PIX - BAD.size
    assert np.all(np.isnan(fit.residual.flux.value[BAD])) and np.isfinite(fit.residual.flux.value).sum() == N_PIX - 6
    assert np.all(np.isfinite(fit.model_spectrum.flux.value))
    keep = np.setdiff1d(np.arange(N_PIX), BAD)
    less = Spectrum(flux=regular[0][keep] * u.Jy, spectral_axis=CENTERS[keep] * u.AA,
                    uncertainty=StdDevUncertainty(regular[1][keep]))  # fmt: skip
    expected = fit_near(less, star)
    assert expected.fit_info["n_ignored"] == 0
    np.testing.assert_allclose(list(values(fit).values()), list(values(expected).values()), rtol=1e-7)
    np.testing.assert_allclose(fit.parameters["std"], expected.parameters["std"], rtol=1e-5)
    np.testing.assert_allclose(fit.lines["strength"].value, expected.lines["strength"].value, rtol=1e-6)


def variants(regular):
    """The same order with the axis and the arrays in other forms."""
    flux, sigma = regular
    edges = np.append(EDGES[:, 0].numpy(), EDGES[-1, 1].item()) * u.AA
    plain = {"flux": flux * u.Jy, "spectral_axis": CENTERS * u.AA}
    locked = CENTERS.copy()
    locked.setflags(write=False)
    still = flux.copy()
    still.setflags(write=False)
    return {
        "plain": (plain, sigma),
        "decreasing": ({"flux": flux[::-1] * u.Jy, "spectral_axis": CENTERS[::-1] * u.AA}, sigma[::-1]),
        "nm": ({**plain, "spectral_axis": CENTERS / 10 * u.nm}, sigma),
        "THz": ({**plain, "spectral_axis": (CENTERS * u.AA).to(u.THz, u.spectral())}, sigma),
        "eV": ({**plain, "spectral_axis": (CENTERS * u.AA).to(u.eV, u.spectral())}, sigma),
        "edges": ({**plain, "spectral_axis": edges, "bin_specification": "edges"}, sigma),
        "edges in THz": ({**plain, "spectral_axis": edges.to(u.THz, u.spectral()), "bin_specification": "edges"},
                         sigma),
        "big-endian": ({"flux": flux.astype(">f8") * u.Jy, "spectral_axis": CENTERS.astype(">f8") * u.AA},
                       sigma.astype(">f8")),
        "read-only": ({"flux": u.Quantity(still, u.Jy, copy=False),
                       "spectral_axis": u.Quantity(locked, u.AA, copy=False)}, sigma),
        "mJy": ({"flux": flux * 1000 * u.mJy, "spectral_axis": CENTERS * u.AA}, sigma * 1000),
    }  # fmt: skip


@pytest.fixture(scope="module")
def plain_fit(regular, star, sky):
    arguments, sigma = variants(regular)["plain"]
    return fit_near(Spectrum(**arguments, uncertainty=StdDevUncertainty(sigma)), star, sky)


@pytest.mark.parametrize("form", ["decreasing", "nm", "THz", "eV", "edges", "edges in THz", "big-endian", "read-only",
                                  "mJy"])  # fmt: skip
def test_the_same_answer_in_every_form(regular, star, sky, plain_fit, form):
    arguments, sigma = variants(regular)[form]
    spectrum = Spectrum(**arguments, uncertainty=StdDevUncertainty(sigma))
    fit = fit_near(spectrum, star, sky)
    factor = np.where(fit.parameters["unit"] == "mJy", 1000.0, 1.0)
    np.testing.assert_allclose(fit.parameters["value"] / factor, plain_fit.parameters["value"], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(fit.lines["strength"].value, plain_fit.lines["strength"].value, rtol=1e-10)
    model = fit.model_spectrum.flux.to_value(u.Jy)
    np.testing.assert_allclose(model[::-1] if form == "decreasing" else model, plain_fit.model_spectrum.flux.value,
                               rtol=1e-10)  # fmt: skip
    assert fit.model_spectrum.spectral_axis.unit == spectrum.spectral_axis.unit
    np.testing.assert_array_equal(fit.residual.spectral_axis.value, spectrum.spectral_axis.value)


def test_float32_is_the_same_numbers(regular, star):
    flux = regular[0].astype("f4")
    results = [fit_near(Spectrum(flux=f * u.Jy, spectral_axis=CENTERS * u.AA,
                                 uncertainty=StdDevUncertainty(regular[1].astype("f4").astype(f.dtype))), star)
               for f in (flux, flux.astype("f8"))]  # fmt: skip
    np.testing.assert_allclose(list(values(results[0]).values()), list(values(results[1]).values()), rtol=1e-10)
    assert np.all(np.isfinite(list(values(results[0]).values())))


def test_air_wavelengths(star):
    # Morton (2000), as in VALD [1/um^2]
    inverse = (1e4 / CENTERS) ** 2
    air = CENTERS / (1 + 8.34254e-5 + 2.406147e-2 / (130 - inverse) + 1.5998e-4 / (38.9 - inverse))
    module = ForwardModel(line_forest(star.model), Instrument(EDGES, resolving_power=LSF), radial_velocity=VELOCITY,
                          vsini=VSINI)  # fmt: skip
    flux, error = module().detach().numpy() * u.Jy, StdDevUncertainty(np.full(N_PIX, 1e-3))

    def velocity(meta=None, **kwargs):
        spectrum = Spectrum(flux=flux, spectral_axis=air * u.AA, meta=meta, uncertainty=error)
        fit = fit_spectrum(spectrum, star, vsini=4 * KMS, progress=False, **kwargs)
        return parameter(fit, "radial_velocity")[0]

    assert velocity(wavelength_medium="air") == pytest.approx(VELOCITY, abs=0.01)
    assert velocity(meta={"wavelength_medium": "air"}) == pytest.approx(VELOCITY, abs=0.01)
    assert velocity() == pytest.approx(VELOCITY - 82.2, abs=0.2)


def test_without_uncertainties_the_residual_says_how_good(regular, star, sky, plain_fit):
    bare = Spectrum(flux=regular[0] * u.Jy, spectral_axis=CENTERS * u.AA)
    fit = fit_near(bare, star, sky)
    equal = fit_near(Spectrum(flux=bare.flux, spectral_axis=bare.spectral_axis,
                              uncertainty=StdDevUncertainty(np.full(N_PIX, 0.003))), star, sky)  # fmt: skip
    for name in ("radial_velocity", "vsini", "telluric_scale", "continuum_0"):
        (value, std), (other, expected) = parameter(fit, name), parameter(equal, name)
        assert std == pytest.approx(expected, rel=0.35), name
        assert abs(value - other) < 1.5 * expected, name
    assert "no uncertainties" in fit.parameters.meta["errors"] and "no uncertainties" in fit.lines.meta["errors"]
    assert "no uncertainties" not in plain_fit.parameters.meta["errors"]


def test_weights_none_and_array(regular, star):
    flux, sigma = regular
    spectrum = Spectrum(flux=flux * u.Jy, spectral_axis=CENTERS * u.AA, uncertainty=StdDevUncertainty(sigma))
    bare = Spectrum(flux=flux * u.Jy, spectral_axis=CENTERS * u.AA)
    by_unit = fit_near(spectrum, star, weights=None)
    assert values(by_unit) == values(fit_near(bare, star))
    by_array = fit_near(bare, star, weights=1 / sigma)
    np.testing.assert_allclose(list(values(by_array).values()), list(values(fit_near(spectrum, star)).values()),
                               rtol=1e-9)  # fmt: skip


def test_tellurics_alone(sky):
    order = observe(None, sky, seed=4, continuum=(1.0, 0.1))
    fit = fit_spectrum(order.spectrum, None, sky, free=(), continuum_degree=1, progress=False)
    assert fit.template is None and set(fit.components) == {"continuum", "telluric"}
    assert list(fit.parameters["name"]) == ["resolving_power", "telluric_scale", "continuum_0", "continuum_1"]
    assert_recovered(fit, {**order.truth})
    assert set(fit.lines["component"]) == {"telluric"}
    product = fit.components["continuum"].flux * fit.components["telluric"].flux
    np.testing.assert_allclose(product.value, fit.model_spectrum.flux.value, rtol=1e-12)


def test_one_column_for_each_species(star, sky):
    first, second = (make_template(part(sky.model, start), frame="observatory") for start in (0, 1))
    truth = sky.model.copy()
    factor = np.where(np.arange(truth.n_lines) % 2 == 0, 0.6, 1.9)
    truth.strength = truth.strength.quantity * factor
    order = observe(star, truth, telluric_scale=1.0)
    fit = fit_near(order.spectrum, star, [first, second], free=())
    for name, expected in (("telluric_scale_0", 0.6), ("telluric_scale_1", 1.9)):
        value, std = parameter(fit, name)
        assert 0 < std < 0.3
        assert abs(value - expected) < 4 * std
    assert isinstance(fit.telluric, list) and len(fit.telluric) == 2


@pytest.mark.parametrize("is_copy", [False, True])
def test_a_species_given_twice_is_refused(order, star, sky, is_copy):
    other = make_template(part(sky.model, 0), frame="observatory")
    again = make_template(sky.model.copy(), frame="observatory") if is_copy else sky
    with pytest.raises(ValueError, match="^telluric must hold every species once, got .* items 0 and 2; drop one"):
        fit_near(order.spectrum, star, [sky, other, again])


def test_more_pixels_than_global_parameters(star):
    order = observe(star, None)
    flux, sigma = order.spectrum.flux, order.spectrum.uncertainty.array
    start = 20 + np.argmin(order.noiseless.flux.value[22:-20])  # where there is a line to see

    def fit(n_pix, degree):
        part = slice(start, start + n_pix)
        spectrum = Spectrum(flux=flux[part], spectral_axis=order.spectrum.spectral_axis[part].value * u.AA,
                            uncertainty=StdDevUncertainty(sigma[part]))  # fmt: skip
        return fit_near(spectrum, star, lsf=None, continuum_degree=degree)

    with pytest.raises(ValueError, match=r"observed must have more usable pixels .* \(3 or more\), got 3; use more"):
        fit(3, 0)
    with pytest.raises(ValueError, match="continuum_degree must be at most 1 for 5 usable pixels and 2 other"):
        fit(5, 2)
    few = fit(5, 1)
    assert np.all(np.isfinite(few.parameters["value"])) and np.all(np.isfinite(few.parameters["std"]))
    assert few.fit_info["dof"] > 0


@pytest.mark.filterwarnings("ignore:fit_spectrum did not converge")
@pytest.mark.parametrize("kind", ["constant", "constant without errors", "lsf 1500", "lsf 5000"])
def test_hopeless_fits_have_finite_results(order, star, sky, kind):
    spectrum, lsf = order.spectrum, LSF
    if kind.startswith("constant"):
        error = StdDevUncertainty(np.full(N_PIX, 0.01)) if kind == "constant" else None
        spectrum = Spectrum(flux=np.full(N_PIX, 5.0) * u.Jy, spectral_axis=CENTERS * u.AA, uncertainty=error)
    else:
        lsf = float(kind.split()[1])
    fit = fit_near(spectrum, star, sky, lsf=lsf)
    at_bound = np.isin(fit.parameters["name"], fit.parameters.meta["at_bound"])
    assert np.all(np.isfinite(fit.parameters["value"]))
    np.testing.assert_array_equal(np.isnan(fit.parameters["std"]), at_bound)
    for name in ("strength", "strength_err", "equivalent_width", "equivalent_width_err"):
        assert np.all(np.isfinite(fit.lines[name].value))
    assert np.all(np.isfinite(fit.model_spectrum.flux.value))


def part(model, start):
    names = model.param_names[:4]
    return VoigtForest1D(**{name: getattr(model, name).quantity[start::2] for name in names})


def test_fitted_telluric_template_holds_its_column(order, star, sky):
    fit = fit_near(order.spectrum, star, sky, free=())
    axis = np.linspace(LOWER, UPPER, 4001) * u.AA
    scale = parameter(fit, "telluric_scale")[0]
    expected = sky.evaluate(axis).flux.value ** scale
    np.testing.assert_allclose(fit.telluric.evaluate(axis).flux.value, expected, atol=2e-5)


def test_fitted_template_and_lines_agree(fit, star):
    lines = star_lines(fit)
    assert fit.template.coverage[0] == star.coverage[0] and fit.template.coverage[1] == star.coverage[1]
    assert len(fit.template.lines) == len(star.lines) == fit.template.model.n_lines
    rows = np.array([np.argmin(np.abs(fit.template.model.x_0.value - c)) for c in lines["line_center"].value])
    assert np.unique(rows).size == len(lines)
    for name, column in (("x_0", "line_center"), ("strength", "strength"), ("fwhm_G", "fwhm_gauss"),
                         ("fwhm_L", "fwhm_lorentz")):  # fmt: skip
        own = getattr(fit.template.model, name)
        np.testing.assert_allclose(own.value[rows], lines[column].value, rtol=1e-12)
        np.testing.assert_allclose(np.asarray(own.std)[rows], lines[f"{column}_err"].value, rtol=1e-12)
        np.testing.assert_allclose(fit.template.lines[column].value, own.value, rtol=1e-12)
    assert np.all(np.diff(fit.template.model.x_0.value) >= 0)
    untouched = np.setdiff1d(np.arange(len(star.lines)), rows)
    np.testing.assert_array_equal(fit.template.model.strength.value[untouched], star.model.strength.value[untouched])


def test_input_templates_are_left_alone(order, star, sky):
    before = [np.array(t.model.parameters) for t in (star, sky)]
    fit_near(order.spectrum, star, sky, free=("strength", "fwhm", "x_0"))
    for template, old in zip((star, sky), before, strict=True):
        np.testing.assert_array_equal(template.model.parameters, old)


def test_components_make_the_model(fit, order):
    model, residual = fit.model_spectrum.flux.value, fit.residual.flux.value
    np.testing.assert_allclose(residual, order.spectrum.flux.value - model, rtol=1e-12, atol=1e-9)
    assert {type(s) for s in (fit.model_spectrum, fit.residual, *fit.components.values())} == {Spectrum}
    assert fit.model_spectrum.flux.unit == fit.residual.flux.unit == order.spectrum.flux.unit
    assert fit.components["star"].flux.unit == u.dimensionless_unscaled
    edges = order.spectrum.spectral_axis.bin_edges
    np.testing.assert_array_equal(fit.model_spectrum.spectral_axis.bin_edges.value, edges.value)
    continuum, star, sky = (fit.components[k].flux.value for k in ("continuum", "star", "telluric"))
    # the line spread function of a product is nearly the product where one of the two has no lines
    alone = np.abs(sky - 1) < 1e-4
    assert alone.sum() > 20
    np.testing.assert_allclose((continuum * star)[alone], model[alone], rtol=1e-4)
    x = (edges[1:] + edges[:-1] - edges[0] - edges[-1]).value / (edges[-1] - edges[0]).value
    coefficients = [value for name, value in values(fit).items() if name.startswith("continuum")]
    np.testing.assert_allclose(continuum, np.polynomial.legendre.legval(x, coefficients), rtol=1e-12)
    chi2 = np.sum((residual / order.spectrum.uncertainty.array) ** 2)
    assert chi2 == pytest.approx(fit.fit_info["chi2"], rel=1e-9)
    assert fit.fit_info["rms"] == pytest.approx(np.std(residual / continuum), rel=1e-6)


def test_star_alone_times_continuum_is_the_model(star):
    fit = fit_near(observe(star, None).spectrum, star)
    product = fit.components["continuum"].flux * fit.components["star"].flux
    np.testing.assert_allclose(product.value, fit.model_spectrum.flux.value, rtol=1e-12)
    assert set(fit.components) == {"continuum", "star"} and fit.telluric is None


def test_window_and_exclusions(regular, star):
    spectrum = on_edges(regular[0], 0.003)
    window = SpectralRegion(10594 * u.AA, 10605 * u.AA)
    excluded = SpectralRegion(10598 * u.AA, 10599 * u.AA)
    fit = fit_near(spectrum, star, window=window, exclude_regions=excluded, free=())
    inside = (CENTERS >= 10594) & (CENTERS <= 10605)
    used = inside & ~((CENTERS >= 10598) & (CENTERS < 10599))
    assert fit.fit_info["n_pixels"] == used.sum() and fit.fit_info["n_ignored"] == 0
    np.testing.assert_array_equal(np.isfinite(fit.residual.flux.value), used)
    np.testing.assert_array_equal(np.isfinite(fit.model_spectrum.flux.value), inside)
    wild = spectrum.flux.value.copy()
    wild[~used] = 55.0
    again = fit_near(on_edges(wild, 0.003), star, window=window, exclude_regions=excluded, free=())
    assert values(again) == values(fit)
    lines = fit_near(spectrum, star, window=window, free=("strength",)).lines
    outside = np.abs(lines["line_center"].value * (1 + VELOCITY / C) - 10599.5) > 6.5
    assert outside.sum() > 0
    assert np.all((lines["flags"][outside] & OUTSIDE_WINDOW) > 0)


def test_one_warning_and_a_status_without_convergence(order, star, sky, monkeypatch):
    monkeypatch.setattr(fitting, "MAX_ITERATIONS", 1)
    with pytest.warns(BlaseWarning, match="did not converge.*start it from a better") as caught:
        fit = fit_near(order.spectrum, star, sky)
    assert len(caught) == 1 and fit.fit_info["status"] == "not_converged" and fit.fit_info["n_iterations"] == 1
    assert len(fit.lines) > 0 and np.all(np.isfinite(fit.parameters["std"]))


def test_interrupt_goes_through_and_leaves_nothing_behind(order, star, sky, tmp_path):
    calls = []

    def interrupt(text):
        calls.append(text)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_near(order.spectrum, star, sky, progress=interrupt).write(tmp_path / "fit.asdf")
    assert len(calls) == 2 and list(tmp_path.iterdir()) == []
    first, second = (fit_near(order.spectrum, star, sky) for _ in range(2))
    assert values(first) == values(second)


def test_progress_is_told(order, star, sky, capsys):
    texts = []
    fit_near(order.spectrum, star, sky, free=(), progress=texts.append)
    assert texts[-1] == "" and all("chi2" in text for text in texts[:-1]) and len(texts) > 2
    fit_near(order.spectrum, star, sky, free=(), progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["star and sky", "sky list alone"])
def test_written_and_read(fit, order, sky, tmp_path, kind):
    if kind == "sky list alone":
        fit = fit_spectrum(observe(None, sky).spectrum, None, [sky], free=(), progress=False)
    with pytest.raises(FileNotFoundError, match="^path must name a file that exists, got .*fit.asdf; check"):
        SpectrumFit.read(tmp_path / "fit.asdf")
    fit.write(tmp_path / "fit.asdf")
    with pytest.raises(OSError, match="overwrite"):
        fit.write(tmp_path / "fit.asdf")
    back = SpectrumFit.read(tmp_path / "fit.asdf")
    assert back.fit_info == fit.fit_info
    for name in ("parameters", "lines"):
        mine, other = getattr(fit, name), getattr(back, name)
        assert mine.colnames == other.colnames
        for column in mine.colnames:
            np.testing.assert_array_equal(np.asarray(mine[column]), np.asarray(other[column]))
    for mine, other in [(fit.model_spectrum, back.model_spectrum), (fit.residual, back.residual),
                        *((fit.components[k], back.components[k]) for k in fit.components)]:  # fmt: skip
        np.testing.assert_array_equal(mine.flux.value, other.flux.value)
        assert mine.flux.unit == other.flux.unit
    assert type(back.telluric) is type(fit.telluric) and type(back.template) is type(fit.template)
    if fit.template is not None:
        np.testing.assert_array_equal(back.template.model.parameters, fit.template.model.parameters)


def test_repr_is_short(fit):
    assert repr(fit).startswith("<SpectrumFit: converged, ") and len(repr(fit)) < 100


def test_coverage_error_names_both_ranges(order, star, sky):
    short = make_template(star.model, coverage=(10595.0, 10612.0))
    with pytest.raises(CoverageError) as caught:
        fit_near(order.spectrum, short, sky)
    factor = np.sqrt((1 - 20 / C) / (1 + 20 / C))
    for text in ("template must cover", f"{LOWER / factor:.2f} to {UPPER / factor:.2f}", "10595.00 to 10612.00",
                 "clone a wider spectrum"):  # fmt: skip
        assert text in str(caught.value)
    # enough at rest, but not after the velocity
    tight = make_template(star.model, coverage=(LOWER - 0.5, UPPER + 0.5))
    with pytest.raises(CoverageError, match="at rest for -20.0 km/s"):
        fit_near(order.spectrum, tight, sky)
    short = make_template(sky.model, frame="observatory", coverage=(10595.0, 10612.0))
    with pytest.raises(CoverageError, match="telluric must cover the data, 10592.00 to 10608.00.*10595.00 to 10612.00"):
        fit_near(order.spectrum, star, short)
    window = SpectralRegion(10596 * u.AA, 10607 * u.AA)
    assert fit_near(order.spectrum, star, short, window=window, free=()).fit_info["status"] == "converged"


def test_no_coverage_at_any_velocity(star):
    order = observe(star, None)
    elsewhere = make_template(star.model, coverage=(9000.0, 9040.0))
    with pytest.raises(CoverageError, match="9000.00 to 9040.00"):
        fit_spectrum(order.spectrum, elsewhere, progress=False)


@pytest.mark.parametrize("velocity", [-3000.0, 3000.0])
def test_a_velocity_beyond_the_search(star, velocity):
    with pytest.raises(CoverageError, match=f"at rest for {velocity:.1f} km/s"):
        fit_spectrum(observe(star, None).spectrum, star, radial_velocity=velocity * KMS, progress=False)


def test_coverage_counts_at_the_velocity_where_the_fit_ends(star):
    """The template reaches to 5.6 km/s: the start is covered, the solution is not."""
    order = observe(star, None, radial_velocity=12 * KMS)
    short = make_template(star.model, coverage=(LOWER - 0.2, UPPER + 8))
    with pytest.raises(CoverageError, match="template must cover the data"):
        fit_near(order.spectrum, short, radial_velocity=4 * KMS, free=())


def test_a_velocity_beyond_the_coverage_is_not_replaced_by_a_wrong_one(star):
    """Where the cross-correlation cannot look, it must not settle for a chance alignment in silence."""
    order = observe(star, None, radial_velocity=80 * KMS)
    short = make_template(star.model, coverage=(LOWER - 0.2, UPPER + 8))
    with pytest.raises(CoverageError, match="template must cover the data"):
        fit_spectrum(order.spectrum, short, progress=False)


def all_masked(spectrum):
    return Spectrum(flux=spectrum.flux, spectral_axis=spectrum.spectral_axis, mask=np.ones(N_PIX, dtype=bool),
                    uncertainty=spectrum.uncertainty)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"observed": np.ones(5)}, TypeError, "observed must be a Spectrum, .* or a list of Spectrum, got ndarray"),
        ({"observed": Spectrum(flux=np.ones(9) * u.Jy)}, u.UnitsError, "observed must have a spectral axis"),
        ({"observed": all_masked}, ValueError, "observed must have pixels to use.*masked: 260"),
        ({"template": "star.asdf"}, TypeError, "template must be a LineTemplate, got str; make one with"),
        ({"template": None}, ValueError, "template must be a LineTemplate unless tellurics are given"),
        ({"telluric": [None]}, TypeError, "telluric must be a LineTemplate, got NoneType"),
        ({"lsf": -55_000}, ValueError, "lsf must be finite and positive, got -55000"),
        ({"lsf": 0}, ValueError, "lsf must be finite and positive, got 0; .*lsf=None for the pixels alone"),
        ({"lsf": lambda wave: "sharp"}, TypeError, "lsf as a function .* must return real numbers, got 'sharp'"),
        ({"lsf": np.ones((3, 100))}, ValueError, "lsf must have a column for each of the 260 pixels .*, got 100; give"),
        ({"lsf": "R"}, TypeError, "lsf must be one positive number"),
        ({"radial_velocity": -9.0}, TypeError, "radial_velocity must be a Quantity"),
        ({"radial_velocity": 3 * u.s}, u.UnitsError, "radial_velocity must have a unit like 'km / s', got 's'"),
        ({"radial_velocity": np.nan * KMS}, ValueError, "radial_velocity must be finite"),
        ({"vsini": 0 * KMS}, ValueError, "vsini must be finite and positive, got 0"),
        ({"vsini": -2 * KMS}, ValueError, "vsini must be finite and positive, got -2"),
        ({"vsini": 20_000 * KMS}, ValueError, "vsini must be at most 1000 km / s, got 20000"),
        ({"vsini": 2.2}, TypeError, "vsini must be a Quantity"),
        ({"limb_darkening": 1.2}, ValueError, "limb_darkening must lie between 0 and 1, got 1.2"),
        ({"continuum_degree": -1}, ValueError, "continuum_degree must be a whole number"),
        ({"continuum_degree": 2.5}, ValueError, "continuum_degree must be a whole number"),
        ({"continuum_degree": 257}, ValueError, "continuum_degree must be at most 256 for 260 usable pixels and 2 other"
         " global parameters, got 257; lower it, or use more pixels"),
        ({"free": ("gamma",)}, ValueError, "free must hold names among"),
        ({"free": {"moon": ()}}, ValueError, 'free must have the keys "star" and "telluric"'),
        ({"prior": 0.3}, TypeError, "prior must be a GaussianPrior, .* or None, got 0.3"),
        ({"weights": "sigma"}, ValueError, "weights must be"),
        ({"window": SpectralRegion(9000 * u.AA, 9010 * u.AA)}, ValueError, "window must .*10592"),
        ({"device": "cuda"}, ValueError, "device must be"),
        ({"wavelength_medium": "water"}, ValueError, 'wavelength_medium must be "vacuum" or "air"'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)  # fmt: skip
def test_bad_arguments(order, star, sky, arguments, error, message):
    given = {"observed": order.spectrum, "template": star, "telluric": None, **arguments}
    if given["observed"] is all_masked:
        given["observed"] = all_masked(order.spectrum)
    with pytest.raises(error, match=message):
        fit_spectrum(**{"radial_velocity": -20 * KMS, "vsini": 4 * KMS, "progress": False, **given})


@pytest.mark.parametrize("tail", [0.0, -1.0, np.nan, "2"])
def test_bad_tails(tail):
    with pytest.raises(ValueError, match="^tail must be a positive number or inf"):
        GaussianPrior(tail=tail)


@pytest.mark.parametrize("prior", [GaussianPrior, L1Prior])
@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"strength": 0}, ValueError), ({"fwhm": -0.1}, ValueError), ({"strength": np.inf}, ValueError),
     ({"x_0": 0.5}, TypeError), ({"x_0": 0 * KMS}, ValueError), ({"x_0": 1 * u.AA}, u.UnitsError)],
)  # fmt: skip
def test_bad_priors(prior, arguments, error):
    with pytest.raises(error, match=f"^{next(iter(arguments))} must"):
        prior(**arguments)


def test_the_source_is_given_back(fit, order):
    assert fit.observed is order.spectrum


@pytest.fixture(scope="module")
def wasp69(shared_data):
    """(template, observed) of the real star."""
    from astropy.table import QTable

    def read(name):
        table = QTable.read(shared_data / name, hdu=1)
        error = StdDevUncertainty(np.asarray(table["uncertainty"], float)) if "uncertainty" in table.colnames else None
        return Spectrum(flux=u.Quantity(table["flux"], dtype=float), spectral_axis=u.Quantity(table["wavelength"]),
                        uncertainty=error)  # fmt: skip

    return clone_spectrum(read("stellar/wasp69_like.fits.gz"), teff=4715 * u.K, progress=False), read(
        "echelle/wasp69_hpf_order5.fits"
    )


def test_real_star(wasp69):
    template, observed = wasp69
    with pytest.warns(BlaseWarning, match="26 of 2048 pixels are ignored") as caught:
        fit = fit_spectrum(observed, template, lsf=55_000, vsini=2.2 * KMS, radial_velocity=-9 * KMS,
                           free=("strength", "fwhm"), progress=False)  # fmt: skip
    assert len(caught) == 1 and fit.fit_info["status"] == "converged" and fit.fit_info["n_ignored"] == 26
    residual = fit.residual.flux.value
    good = np.isfinite(residual)
    assert good.sum() == 2022
    assert residual[good].std() <= 0.006
    assert np.mean((residual[good] / observed.uncertainty.array[good]) ** 2) <= 7
    velocity, std = parameter(fit, "radial_velocity")
    assert -9.7 <= velocity <= -9.0 and 0 < std < 0.1
    assert fit.fit_info["wall_time"] < 60


def test_real_star_from_nowhere(wasp69):
    template, observed = wasp69
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BlaseWarning)
        fit = fit_spectrum(observed, template, lsf=55_000, progress=False)
    assert parameter(fit, "radial_velocity")[0] == pytest.approx(-9.4, abs=0.6)
    assert 0 < parameter(fit, "vsini")[0] < 5
