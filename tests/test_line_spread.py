"""Fits with line spread functions that are not Gaussian: known ones recovered, and one description against another."""

import numpy as np
import pytest
from astropy import units as u
from specutils import SpectrumList

from specutils_blase import LineTemplate, MeasuredLSF, ResolvingPower, fit_spectrum
from specutils_blase.lines import line_table
from specutils_blase.preparation import model_lines
from specutils_blase.simulation import scatter_lines, simulate_order, simulate_star, simulate_telluric

KMS = u.km / u.s
C = 299792.458
VELOCITY, VSINI, POWER, H3, H4 = -31.0, 4.0, 50_000.0, 0.08, 0.05
SIGMA = C / POWER / 2.3548200450309493
SAMPLES = np.linspace(-6.5, 6.5, 1301)


def template_of(model, frame):
    lines = model_lines(model)
    table = line_table(lines, np.zeros((len(lines), 4, 4)), index=np.zeros(len(lines), dtype=int),
                       flags=np.zeros(len(lines), dtype=int))  # fmt: skip
    meta = {"coverage": [10490.0, 10540.0], "wavelength_medium": "vacuum", "frame": frame}
    return LineTemplate(model=model, lines=table, fit_info={}, meta=meta)


@pytest.fixture(scope="module")
def star():
    return template_of(simulate_star(5, lower=10490 * u.AA, upper=10540 * u.AA, n_lines=70).model, "rest")


@pytest.fixture(scope="module")
def sky():
    return template_of(simulate_telluric(6, lower=10490 * u.AA, upper=10540 * u.AA, n_lines=35).model, "observatory")


def observe(star, sky, seed=0, lower=10500.0, upper=10525.0, h3=H3, h4=H4, model=None, **kwargs):
    options = {"radial_velocity": VELOCITY * KMS, "vsini": VSINI * KMS, "resolving_power": POWER, "n_pix": 400,
               "bad_pixels": 0, "snr": 300.0}  # fmt: skip
    return simulate_order(model or star.model, sky.model, seed=seed, lower=lower * u.AA, upper=upper * u.AA, h3=h3,
                          h4=h4, **{**options, **kwargs}).spectrum  # fmt: skip


def fit_near(observed, star, sky, lsf, **kwargs):
    options = {"radial_velocity": -30 * KMS, "vsini": 5 * KMS, "free": (), "progress": False}
    return fit_spectrum(observed, star, sky, lsf=lsf, **{**options, **kwargs})


def found(fit):
    return {row["name"]: (row["value"], row["std"]) for row in fit.parameters}


def gauss_hermite(w, h3, h4):
    """As van der Marel & Franx (1993) print it."""
    third = (2 * np.sqrt(2) * w**3 - 3 * np.sqrt(2) * w) / np.sqrt(6)
    fourth = (4 * w**4 - 12 * w**2 + 3) / np.sqrt(24)
    return np.exp(-0.5 * w**2) * (1 + h3 * third + h4 * fourth)


class TestSimulation:
    def test_order_is_that_of_the_convolution(self, star, sky):
        """One with h3 and h4, against the noiseless narrow one convolved with the printed profile."""
        step = 0.1  # km/s
        edges = 10500.0 * np.exp(np.arange(4001) * step / C)
        options = {"seed": 0, "lower": 10500 * u.AA, "upper": 10514 * u.AA, "n_pix": 200, "continuum": (1.0,),
                   "vsini": 6 * KMS}  # fmt: skip
        order = simulate_order(star.model, sky.model, resolving_power=POWER, h3=0.2, h4=-0.1, **options)
        sharp = simulate_order(star.model, sky.model, resolving_power=2e7, **{**options, "n_pix": 20_000})
        wave = np.log(sharp.noiseless.spectral_axis.to_value(u.AA))
        fine = np.interp(np.log(edges), wave, sharp.noiseless.flux.value)
        offset = np.arange(-200, 201) * step
        kernel = gauss_hermite(offset / SIGMA, 0.2, -0.1)
        # the convolution is a sum over light that comes from shorter wavelengths by the offset
        blurred = sum(k * np.interp(np.log(edges) - v / C, np.log(edges), fine)
                      for k, v in zip(kernel / kernel.sum(), offset, strict=True))  # fmt: skip
        bins = order.noiseless.spectral_axis.bin_edges.to_value(u.AA)
        inside = (bins[:-1] > edges[300]) & (bins[1:] < edges[-300])
        for k in np.flatnonzero(inside):
            points = np.linspace(bins[k], bins[k + 1], 41)
            mean = np.trapezoid(np.interp(points, edges, blurred), points) / (bins[k + 1] - bins[k])
            assert order.noiseless.flux.value[k] == pytest.approx(mean, rel=3e-4)
        assert (order.truth["h3"], order.truth["h4"]) == (0.2, -0.1)


class TestGaussHermite:
    def test_recovered_within_the_errors(self, star, sky):
        pulls, worse = [], []
        for seed in range(6):
            model = scatter_lines(star.model, seed, strength=0.3)
            observed = observe(star, sky, seed, model=model, snr=1000.0)
            fit = fit_near(observed, star, sky, ResolvingPower(POWER, free_shape=True), free={"star": "strength"})
            gaussian = fit_near(observed, star, sky, POWER, free={"star": "strength"})
            values = found(fit)
            assert fit.fit_info["status"] == "converged"
            assert fit.fit_info["chi2"] == pytest.approx(fit.fit_info["dof"], rel=0.25)
            pulls += [(values[name][0] - truth) / values[name][1] for name, truth in (("h3", H3), ("h4", H4))]
            worse.append(gaussian.fit_info["chi2"] - fit.fit_info["chi2"])
            assert values["h3"][1] < 0.01 and values["h4"][1] < 0.01
        assert min(worse) > 40
        assert np.max(np.abs(pulls)) < 4
        assert 0.4 < np.sqrt(np.mean(np.square(pulls))) < 1.7

    def test_with_everything_else_free(self, star, sky):
        orders = SpectrumList([observe(star, sky, 1), observe(star, sky, 2, 10513.0, 10537.0)])
        lsf = ResolvingPower(48_000, free=True, per_order=True, free_shape=True)
        fit = fit_near(orders, star, sky, lsf, wavelength_degree=0)
        values = found(fit)
        for name, truth in (("h3", H3), ("h4", H4), ("order_0_resolving_power", POWER)):
            assert abs(values[name][0] - truth) < 4 * values[name][1], name
        assert not fit.parameters["fixed"][fit.parameters["name"] == "h3"][0]
        assert fit.parameters.meta["at_bound"] == []
        assert {"h3", "h4", "resolving_power"} <= set(fit.order(1).parameters["name"])

    def test_given_ones_are_as_good_as_fitted_ones(self, star, sky):
        observed = observe(star, sky, 3)
        given = fit_near(observed, star, sky, ResolvingPower(POWER, h3=H3, h4=H4))
        fitted = fit_near(observed, star, sky, ResolvingPower(POWER, h3=-0.05, free_shape=True))
        assert -0.5 < given.fit_info["chi2"] - fitted.fit_info["chi2"] < 12
        row = given.parameters[given.parameters["name"] == "h3"]
        assert (row["value"][0], row["std"][0], row["fixed"][0]) == (pytest.approx(H3), 0.0, True)
        assert "h3" not in fit_near(observed, star, sky, POWER).parameters["name"]

    def test_a_list_has_one_for_each_order(self, star, sky):
        orders = [observe(star, sky, 4), observe(star, sky, 5, 10513.0, 10537.0, h3=-0.1, h4=0.0)]
        right = [ResolvingPower(POWER, h3=H3, h4=H4), ResolvingPower(POWER, h3=-0.1)]
        chi2 = [fit_near(orders, star, sky, lsf).fit_info["chi2"] for lsf in (right, right[::-1])]
        assert chi2[0] < 850 and chi2[1] > chi2[0] + 200

    def test_at_the_limit(self, star, sky):
        fit = fit_near(observe(star, sky, 6, h3=0.4), star, sky, ResolvingPower(POWER, free_shape=True))
        assert found(fit)["h3"][0] == 0.3
        assert fit.parameters.meta["at_bound"] == ["h3"]
        assert np.isnan(found(fit)["h3"][1]) and found(fit)["h4"][1] > 0


class TestMeasured:
    def test_gaussian(self, star, sky):
        observed = observe(star, sky, 7, h3=0.0, h4=0.0)
        lsf = MeasuredLSF(SAMPLES * SIGMA * KMS, np.exp(-0.5 * SAMPLES**2))
        fits = [fit_near(observed, star, sky, item) for item in (lsf, POWER)]
        np.testing.assert_allclose(*(fit.model_spectrum.flux.value for fit in fits), rtol=2e-6)
        for name, (value, std) in found(fits[0]).items():
            assert value == pytest.approx(found(fits[1])[name][0], abs=0.01 * std + 1e-4 * abs(value)), name

    def test_gauss_hermite(self, star, sky):
        observed = observe(star, sky, 8)
        lsf = MeasuredLSF(SAMPLES * SIGMA * KMS, gauss_hermite(SAMPLES, H3, H4))
        fits = [fit_near(observed, star, sky, item) for item in (lsf, ResolvingPower(POWER, h3=H3, h4=H4))]
        # the grids are not the same, because the half widths are not
        np.testing.assert_allclose(*(fit.model_spectrum.flux.value for fit in fits), rtol=1e-5)

    def test_mean_of_the_profile_moves_the_wavelengths(self, star, sky):
        observed = observe(star, sky, 9, h3=0.0, h4=0.0)
        velocity = []
        for mean in (0.0, 1.5):
            lsf = MeasuredLSF((SAMPLES * SIGMA + mean) * KMS, np.exp(-0.5 * SAMPLES**2))
            velocity.append(found(fit_near(observed, star, None, lsf))["radial_velocity"][0])
        assert velocity[1] - velocity[0] == pytest.approx(-1.5, abs=0.01)

    def test_of_every_order_with_their_wavelengths_free(self, star, sky):
        orders = [observe(star, sky, 10), observe(star, sky, 11, 10513.0, 10537.0, h3=0.0, h4=0.0)]
        lsf = [MeasuredLSF(SAMPLES * SIGMA * KMS, gauss_hermite(SAMPLES, *shape)) for shape in ((H3, H4), (0.0, 0.0))]
        fit = fit_near(orders, star, sky, lsf, wavelength_degree=0)
        assert fit.fit_info["chi2"] == pytest.approx(fit.fit_info["dof"], rel=0.2)
        values = found(fit)
        for k in range(2):
            shift, error = values[f"order_{k}_wavelength_shift_0"]
            assert abs(shift) < 4 * error

    def test_noise_of_the_profile(self, star, sky):
        rng = np.random.default_rng(1)
        samples = np.linspace(-5.0, 5.0, 41)
        noisy = gauss_hermite(samples, H3, H4) + 0.003 * rng.standard_normal(41)
        assert noisy.min() < 0
        observed = observe(star, sky, 12)
        fit = fit_near(observed, star, sky, MeasuredLSF(samples * SIGMA * KMS, noisy))
        gaussian = fit_near(observed, star, sky, POWER)
        assert fit.fit_info["chi2"] < 1.15 * fit.fit_info["dof"] and fit.fit_info["chi2"] < gaussian.fit_info["chi2"]


class TestBadInput:
    @pytest.mark.parametrize(
        "second",
        [
            MeasuredLSF([-9, 0, 9] * KMS, [0, 1, 0]),
            ResolvingPower(POWER, free_shape=True),
        ],
    )
    def test_orders_of_different_kinds(self, star, sky, second):
        orders = [observe(star, sky), observe(star, sky, 1, 10513.0, 10537.0)]
        with pytest.raises(ValueError, match="lsf must be of one kind in all orders"):
            fit_near(orders, star, sky, [POWER, second])

    def test_orders_that_start_from_different_shapes(self, star, sky):
        orders = [observe(star, sky), observe(star, sky, 1, 10513.0, 10537.0)]
        lsf = [ResolvingPower(POWER, h3=h3, free_shape=True) for h3 in (0.0, 0.1)]
        with pytest.raises(ValueError, match="of one kind .* the h3 and h4 that a free_shape starts from once"):
            fit_near(orders, star, sky, lsf)

    def test_profile_that_is_wider_than_the_data(self, star, sky):
        with pytest.raises(ValueError, match="lsf must have a resolving power between .* .two elements in the data"):
            fit_near(observe(star, sky), star, sky, MeasuredLSF([-900, 0, 900] * KMS, [0, 1, 0]))
