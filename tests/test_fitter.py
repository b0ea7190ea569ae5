"""SparseLineFitter, by itself and inside specutils.fitting.fit_lines."""

import numpy as np
import pytest
from astropy import units as u
from astropy.modeling import fitting, models
from astropy.modeling.fitting import NonFiniteValueError, UnsupportedConstraintError
from astropy.nddata import StdDevUncertainty
from scipy.optimize import least_squares
from scipy.special import voigt_profile
from specutils import SpectralRegion, Spectrum
from specutils.fitting import fit_lines

from specutils_blase import BlaseWarning, SparseLineFitter, VoigtForest1D
from specutils_blase.flags import AT_BOUND

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
FLUX = u.Unit("erg / (s cm2 AA)")
CENTER, STRENGTH = np.array([5002.0, 5005.0, 5008.0, 5011.0]), np.array([0.06, -0.03, 0.2, 0.01])
FWHM_G, FWHM_L = np.array([0.2, 0.25, 0.3, 0.2]), np.array([0.1, 0.05, 0.15, 0.08])
WAVE = np.linspace(5000.0, 5013.0, 800)
NOISE = 0.003


def make(unit=u.AA, strength=STRENGTH, **changes):
    lines = {"x_0": CENTER * u.AA, "strength": strength * u.AA, "fwhm_G": FWHM_G * u.AA, "fwhm_L": FWHM_L * u.AA}
    return VoigtForest1D(**{**{k: q.to(unit) if unit else q.value for k, q in lines.items()}, **changes})


def truth_flux():
    """With scipy, not with the package."""
    depth = STRENGTH * voigt_profile(WAVE[:, None] - CENTER, FWHM_G / FWHM_PER_SIGMA, FWHM_L / 2)
    return np.exp(-depth.sum(axis=1))


def start(unit=u.AA, **changes):
    model = make(unit, STRENGTH * [1.2, 0.85, 0.9, 1.15], **changes)
    shift = np.array([0.02, -0.03, 0.02, -0.01])
    model.x_0 = model.x_0.value + shift if unit is None else model.x_0.quantity + shift * u.AA
    return model


def spectrum(scale=1.0, unit=u.dimensionless_unscaled, noise=0.0, seed=0, axis=WAVE * u.AA, **options):
    flux = truth_flux() + noise * np.random.default_rng(seed).normal(size=WAVE.size)
    if noise:
        options["uncertainty"] = StdDevUncertainty(np.full(WAVE.size, scale * noise), unit=unit)
    return Spectrum(flux=scale * flux * unit, spectral_axis=axis, **options)


def assert_true(model, rtol=2e-3):
    np.testing.assert_allclose(model.x_0.quantity.to_value(u.AA), CENTER, atol=rtol * 0.3)
    np.testing.assert_allclose(model.strength.quantity.to_value(u.AA), STRENGTH, rtol=rtol)
    np.testing.assert_allclose(model.fwhm_G.quantity.to_value(u.AA), FWHM_G, rtol=rtol)
    np.testing.assert_allclose(model.fwhm_L.quantity.to_value(u.AA), FWHM_L, rtol=2 * rtol)


class TestFitLines:
    def test_recovers_exact_data(self):
        model = start()
        before = {name: getattr(model, name).value.copy() for name in model.param_names}
        fitted = fit_lines(spectrum(), model, fitter=SparseLineFitter())
        assert type(fitted) is VoigtForest1D and fitted is not model
        assert_true(fitted)
        for name, value in before.items():
            np.testing.assert_array_equal(getattr(model, name).value, value)

    @pytest.mark.parametrize("weights", ["unc", None])
    @pytest.mark.parametrize("scale", [3e-30, 1e-17, 1e-5, 7e6])
    def test_the_scale_of_the_flux_is_nothing_but_a_scale(self, scale, weights):
        results = []
        for s in (1.0, scale):
            model, fitter = start(continuum=0.9 * s * FLUX), SparseLineFitter()
            model.continuum.fixed = False
            fitted = fit_lines(spectrum(s, FLUX, NOISE), model, fitter=fitter, weights=weights)
            chi2 = fitter.fit_info["chi2"] / (1.0 if weights else s**2)
            continuum = np.ravel(fitted.continuum.value) / s, np.ravel(fitted.continuum.std) / s
            results.append([*continuum, fitted.strength.value, fitted.strength.std, [chi2, fitter.fit_info["dof"]]])
        for one, other in zip(*results, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-9)
        assert abs(results[1][0][0] - 1.0) < 0.01

    @pytest.mark.parametrize("offset", [0.005, 0.02, -0.01])
    def test_a_wrong_continuum_leads_to_the_same_minimum_as_scipy(self, offset):
        """Residuals are coherent then, and wings of lines that are cut off would add up."""
        center, x = np.array([5005, 5010, 5010.6, 5020, 5030.0]), np.arange(5000, 5040, 0.02)
        values = center, [0.2, 0.1, 0.05, 0.3, 0.08], np.full(5, 0.2), np.full(5, 0.08)
        y = VoigtForest1D(*values)(x) * (1 + offset) + 0.004 * np.random.default_rng(0).normal(size=x.size)
        fitter, begin = SparseLineFitter(), VoigtForest1D(values[0], 0.8 * np.array(values[1]), *values[2:])
        fitter(begin, x, y, weights=np.full(x.size, 250.0))
        assert fitter.fit_info["status"] == "converged"

        def residual(theta):
            strength, sigma, gamma = np.exp(np.minimum(theta[5:], 5.0).reshape(3, 5))
            tau = strength * voigt_profile(x[:, None] - theta[:5], sigma, gamma)
            return (np.exp(-tau.sum(axis=1)) - y) * 250.0

        logs = (begin.strength.value, begin.fwhm_G.value / FWHM_PER_SIGMA, begin.fwhm_L.value / 2)
        best = least_squares(residual, np.concatenate([center, *np.log(logs)]), x_scale="jac", xtol=1e-12, ftol=1e-12)
        # its widths may vanish, ours are held where they started by a weak prior
        assert fitter.fit_info["chi2"] < 1.002 * 2 * best.cost

    def test_a_line_broader_than_the_data_is_flagged(self):
        x = np.arange(5000, 5040, 0.02)
        y = (3 + 0.02 * (x - 5020)) * VoigtForest1D([5005, 5020], [0.2, 0.3], [0.2, 0.2], [0.08, 0.08])(x)
        start = VoigtForest1D([5005, 5020], [0.16, 0.24], [0.2, 0.2], [0.08, 0.08], continuum=3.0)
        start.continuum.fixed = False
        fitted = SparseLineFitter()(start, x, y + 0.004 * np.random.default_rng(0).normal(size=x.size),
                                    weights=np.full(x.size, 80.0))  # fmt: skip
        assert fitted.fwhm_L.value.max() < 40.0
        assert (fitted.to_line_list()["flags"] & AT_BOUND).tolist() == [AT_BOUND, 0]

    @pytest.mark.parametrize("scale", [1e-13, 1e6])
    def test_unit_and_scale_of_the_flux(self, scale):
        fitted = fit_lines(spectrum(scale, FLUX), start(continuum=scale * FLUX), fitter=SparseLineFitter())
        assert fitted.continuum.unit == FLUX
        assert_true(fitted)

    @pytest.mark.parametrize("unit,flux", [(u.AA, u.Jy), (None, u.Jy), (u.AA, FLUX)], ids=str)
    @pytest.mark.parametrize("continuum", [1.0, 1.0 * u.one, 1.0 * u.m], ids=str)
    def test_fixed_continuum_in_no_unit_of_the_flux(self, unit, flux, continuum):
        model = start(unit, continuum=continuum)
        with pytest.raises(u.UnitsError, match=r"continuum must be in a unit of the flux, '.*', where it is fixed, got "
                                               r"the unit '.*'; give continuum= with the unit, or let it"):  # fmt: skip
            fit_lines(spectrum(2.0, flux), model, fitter=SparseLineFitter())

    def test_fixed_continuum_in_another_unit_of_the_flux(self):
        fitted = fit_lines(spectrum(2.0, u.Jy), start(continuum=2000 * u.mJy), fitter=SparseLineFitter())
        assert fitted.continuum.quantity.to_value(u.Jy) == pytest.approx(2.0)
        assert_true(fitted)

    def test_free_continuum_without_a_unit(self):
        model = start()
        model.continuum.fixed = False
        fitted = fit_lines(spectrum(2.0, u.Jy, NOISE), model, fitter=SparseLineFitter(), weights="unc")
        assert fitted.continuum.quantity.to_value(u.Jy) == pytest.approx(2.0, rel=1e-3)

    @pytest.mark.parametrize("scale", [1e-13, 1e6])
    def test_scale_does_not_matter_with_uncertainties(self, scale):
        reference = fit_lines(spectrum(noise=NOISE), start(), fitter=SparseLineFitter(), weights="unc")
        scaled = fit_lines(spectrum(scale, FLUX, NOISE), start(continuum=scale * FLUX), fitter=SparseLineFitter(),
                           weights="unc")  # fmt: skip
        for name in ("x_0", "strength", "fwhm_G", "fwhm_L"):
            np.testing.assert_allclose(getattr(scaled, name).value, getattr(reference, name).value, rtol=1e-7)
            np.testing.assert_allclose(getattr(scaled, name).std, getattr(reference, name).std, rtol=1e-5)

    @pytest.mark.parametrize("unit", ["nm", "um"])
    def test_other_units_of_the_axis(self, unit):
        fitted = fit_lines(spectrum(noise=NOISE, axis=(WAVE * u.AA).to(unit)), start(), fitter=SparseLineFitter(),
                           weights="unc")  # fmt: skip
        reference = fit_lines(spectrum(noise=NOISE), start(), fitter=SparseLineFitter(), weights="unc")
        for name in ("x_0", "strength", "fwhm_G", "fwhm_L"):
            ours, theirs = getattr(fitted, name), getattr(reference, name)
            np.testing.assert_allclose(ours.quantity.to_value(u.AA), theirs.quantity.to_value(u.AA), rtol=1e-4)
            std = u.Quantity(ours.std, ours.unit).to_value(u.AA)
            np.testing.assert_allclose(std, theirs.std, rtol=1e-2)

    def test_frequency_axis(self):
        # increasing wavelength is decreasing frequency
        axis = (WAVE * u.AA).to(u.THz, u.spectral())
        fitted = fit_lines(spectrum(noise=NOISE, axis=axis), start(), fitter=SparseLineFitter(), weights="unc")
        reference = fit_lines(spectrum(noise=NOISE), start(), fitter=SparseLineFitter(), weights="unc")
        for name in ("x_0", "strength", "fwhm_G", "fwhm_L"):
            ours, theirs = getattr(fitted, name), getattr(reference, name)
            np.testing.assert_allclose(ours.quantity.to_value(u.AA), theirs.quantity.to_value(u.AA), rtol=1e-4)

    def test_decreasing_axis(self):
        source = spectrum(noise=NOISE)
        reverse = Spectrum(flux=source.flux[::-1], spectral_axis=source.spectral_axis[::-1],
                           uncertainty=StdDevUncertainty(np.full(WAVE.size, NOISE)))  # fmt: skip
        ours, theirs = (fit_lines(s, start(), fitter=SparseLineFitter(), weights="unc") for s in (reverse, source))
        np.testing.assert_allclose(ours.strength.value, theirs.strength.value, rtol=1e-9)

    def test_masked_pixels_do_not_count(self):
        spoiled = truth_flux()
        mask = np.zeros(WAVE.size, dtype=bool)
        mask[100:110] = mask[480:490] = True
        spoiled[mask] = 30.0
        fitted = fit_lines(Spectrum(flux=spoiled * u.dimensionless_unscaled, spectral_axis=WAVE * u.AA, mask=mask),
                           start(), fitter=SparseLineFitter(), weights=np.full(WAVE.size, 1 / NOISE))  # fmt: skip
        assert_true(fitted, rtol=0.01)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_pixels_that_are_not_finite_do_not_count(self, bad):
        y = truth_flux()
        keep = np.ones(WAVE.size, dtype=bool)
        keep[[3, 105, 480, 799]] = False
        spoiled = np.where(keep, y, bad)
        ours = SparseLineFitter()(start(None), WAVE, spoiled, weights=np.full(WAVE.size, 300.0))
        theirs = SparseLineFitter()(start(None), WAVE[keep], y[keep], weights=np.full(keep.sum(), 300.0))
        np.testing.assert_array_equal(ours.strength.value, theirs.strength.value)
        np.testing.assert_array_equal(ours.strength.std, theirs.strength.std)

    @pytest.mark.parametrize("masked", [(), (7,), range(100, 110), range(0, 800, 2), range(0, 798)], ids=len)
    def test_a_mask_of_integers_is_named(self, masked):
        mask = np.zeros(WAVE.size, dtype=int)
        mask[list(masked)] = 1
        with pytest.raises(ValueError, match=r"x must hold different pixels, got one of them \d+ times among 800; make "
                                             "the mask of the spectrum bool"):  # fmt: skip
            fit_lines(spectrum(noise=NOISE, mask=mask), start(), fitter=SparseLineFitter(), weights="unc")

    def test_a_mask_of_flags_is_named(self):
        mask = np.random.default_rng(0).choice([0, 1, 2, 16], p=[0.8, 0.1, 0.05, 0.05], size=WAVE.size)
        with pytest.raises(ValueError, match="x must hold different pixels"):
            fit_lines(spectrum(noise=NOISE, mask=mask), start(), fitter=SparseLineFitter(), weights="unc")

    def test_wavelengths_that_are_there_more_than_once_are_legal(self):
        # orders that overlap, many exposures of few pixels, and the same data twice
        fitted = SparseLineFitter()(start(None), np.tile(WAVE, 2), np.tile(truth_flux(), 2))
        np.testing.assert_allclose(fitted.strength.value, STRENGTH, rtol=0.01)
        few = slice(None, None, 40)
        y = np.tile(truth_flux()[few], 200) + np.random.default_rng(0).normal(0.0, NOISE, 4000)
        model = make(None)
        model.x_0.fixed = model.fwhm_G.fixed = model.fwhm_L.fixed = True
        SparseLineFitter()(model, np.tile(WAVE[few], 200), y, weights=np.full(4000, 1 / NOISE))
        one = VoigtForest1D(CENTER[0], STRENGTH[0], FWHM_G[0], FWHM_L[0])
        one.x_0.fixed = one.fwhm_G.fixed = one.fwhm_L.fixed = True
        pixel = np.argmin(np.abs(WAVE - CENTER[0]))
        y = truth_flux()[pixel] + np.random.default_rng(0).normal(0.0, NOISE, 500)
        fitted = SparseLineFitter()(one, np.full(500, WAVE[pixel]), y, weights=np.full(500, 1 / NOISE))
        assert fitted.strength.value == pytest.approx(STRENGTH[0], rel=0.01)

    def test_weights_zero_do_not_count(self):
        y, weights = truth_flux(), np.full(WAVE.size, 1 / NOISE)
        y[300:310], weights[300:310] = 7.0, 0.0
        fitter = SparseLineFitter()
        ours = fitter(start(None), WAVE, y, weights=weights)
        keep = weights > 0
        theirs = SparseLineFitter()(start(None), WAVE[keep], y[keep], weights=weights[keep])
        np.testing.assert_array_equal(ours.fwhm_L.value, theirs.fwhm_L.value)
        assert keep.sum() - 16 <= fitter.fit_info["dof"] < keep.sum() - 15  # the prior knows a little

    def test_window(self):
        # the last line lies outside, so nothing is learned about it
        far = truth_flux()
        far[WAVE > 5010] = 5.0
        source = Spectrum(flux=far * u.dimensionless_unscaled, spectral_axis=WAVE * u.AA,
                          uncertainty=StdDevUncertainty(np.full(WAVE.size, NOISE)))  # fmt: skip
        region = SpectralRegion(5000.5 * u.AA, 5009.5 * u.AA)
        fitted = fit_lines(source, start(), fitter=SparseLineFitter(), weights="unc", window=region)
        np.testing.assert_allclose(fitted.strength.value[:3], STRENGTH[:3], rtol=0.02)
        assert fitted.strength.value[3] == pytest.approx(STRENGTH[3] * 1.15, rel=0.05)
        assert fitted.strength.std[3] > 10 * fitted.strength.std[:3].max()

    def test_excluded_regions(self):
        spoiled = truth_flux()
        spoiled[(WAVE > 5006.0) & (WAVE < 5006.5)] = 0.1
        source = Spectrum(flux=spoiled * u.dimensionless_unscaled, spectral_axis=WAVE * u.AA,
                          uncertainty=StdDevUncertainty(np.full(WAVE.size, NOISE)))  # fmt: skip
        regions = [SpectralRegion(5005.95 * u.AA, 5006.55 * u.AA)]
        fitted = fit_lines(source, start(), fitter=SparseLineFitter(), weights="unc", exclude_regions=regions)
        assert_true(fitted, rtol=0.02)

    def test_get_fit_info(self):
        fitted = fit_lines(spectrum(noise=NOISE), start(), fitter=SparseLineFitter(), weights="unc", get_fit_info=True)
        info = fitted.meta["fit_info"]
        assert {"status", "message", "chi2", "dof", "n_iterations", "n_lines"} <= set(info)
        assert info["status"] == "converged" and info["n_lines"] == 4
        assert info["dof"] == pytest.approx(WAVE.size - 16, abs=0.5) and info["n_pixels"] == WAVE.size
        residual = (spectrum(noise=NOISE).flux - fitted(WAVE * u.AA)).value / NOISE
        assert info["chi2"] == pytest.approx(np.sum(residual**2), rel=1e-2)
        assert 0.85 < info["chi2"] / info["dof"] < 1.15

    def test_several_forests_at_once(self):
        source = spectrum(noise=NOISE)
        both = fit_lines(source, [start(), make()], fitter=SparseLineFitter(), weights="unc")
        np.testing.assert_allclose(both[0].strength.value, both[1].strength.value, rtol=2e-3)


class TestConstraints:
    def test_fixed(self):
        model = start(None)
        model.x_0.fixed = True
        model.fwhm_L.fixed = True
        fitted = SparseLineFitter()(model, WAVE, truth_flux(), weights=np.full(WAVE.size, 300.0))
        np.testing.assert_array_equal(fitted.x_0.value, model.x_0.value)
        np.testing.assert_array_equal(fitted.fwhm_L.value, model.fwhm_L.value)
        assert (fitted.strength.value != model.strength.value).all()
        assert fitted.strength.std is not None and not np.any(fitted.x_0.std)

        def residual(p):
            depth = np.sign(STRENGTH) * np.exp(p[:4]) * voigt_profile(
                WAVE[:, None] - model.x_0.value, np.exp(p[4:]) / FWHM_PER_SIGMA, FWHM_L / 2)  # fmt: skip
            return 300.0 * (np.exp(-depth.sum(axis=1)) - truth_flux())

        theirs = least_squares(residual, np.log(np.concatenate([np.abs(STRENGTH), FWHM_G])), x_scale="jac")
        std = np.sqrt(np.diag(np.linalg.inv(theirs.jac.T @ theirs.jac)))
        found = np.log(np.concatenate([np.abs(fitted.strength.value), fitted.fwhm_G.value]))
        assert np.abs((found - theirs.x) / std).max() < 0.1
        np.testing.assert_allclose(fitted.strength.std / np.abs(fitted.strength.value), std[:4], rtol=0.05)

    def test_everything_fixed(self):
        model = start(None)
        for name in ("x_0", "strength", "fwhm_G", "fwhm_L"):
            getattr(model, name).fixed = True
        fitted = SparseLineFitter()(model, WAVE, truth_flux(), weights=np.full(WAVE.size, 300.0))
        for name in ("x_0", "strength", "fwhm_G", "fwhm_L"):
            np.testing.assert_array_equal(getattr(fitted, name).value, getattr(model, name).value)

    def test_only_the_continuum_is_free(self):
        model = make(None, continuum=[1.9])
        for name in ("x_0", "strength", "fwhm_G", "fwhm_L"):
            getattr(model, name).fixed = True
        model.continuum.fixed = False
        fitted = SparseLineFitter()(model, WAVE, 2.0 * truth_flux(), weights=np.full(WAVE.size, 300.0))
        assert np.ravel(fitted.continuum.value)[0] == pytest.approx(2.0, rel=1e-6)

    @pytest.mark.parametrize("name,low,high", [("strength", 0.02, 0.1), ("fwhm_G", 0.22, 0.27), ("fwhm_L", 0.09, 0.12)])
    def test_bounds(self, name, low, high):
        model = start(None)
        getattr(model, name).bounds = (low, high)
        fitted = SparseLineFitter()(model, WAVE, truth_flux(), weights=np.full(WAVE.size, 300.0))
        value = np.abs(getattr(fitted, name).value)
        assert (value >= low * (1 - 1e-12)).all() and (value <= high * (1 + 1e-12)).all()
        # lines on either side of the bounds in truth: some end at each of them
        true = np.abs({"strength": STRENGTH, "fwhm_G": FWHM_G, "fwhm_L": FWHM_L}[name])
        assert true.min() < low and true.max() > high
        assert (value.min(), value.max()) == pytest.approx((low, high), rel=1e-9)

    def test_bounds_with_units(self):
        model = start(u.nm)
        model.fwhm_G.bounds = (0.022, 0.027)
        fitted = fit_lines(spectrum(noise=NOISE), model, fitter=SparseLineFitter(), weights="unc")
        width = fitted.fwhm_G.quantity.to_value(u.nm)
        assert (width >= 0.022 * (1 - 1e-9)).all() and (width <= 0.027 * (1 + 1e-9)).all()

    def test_bounds_of_the_centre(self):
        model = start(None)
        model.x_0.bounds = (5001.0, 5010.99)
        model.x_0 = np.minimum(model.x_0.value, 5010.99)
        fitted = SparseLineFitter()(model, WAVE, truth_flux(), weights=np.full(WAVE.size, 300.0))
        assert fitted.x_0.value.max() <= 5010.99 * (1 + 1e-12)
        np.testing.assert_allclose(fitted.x_0.value[:3], CENTER[:3], atol=2e-3)

    @pytest.mark.parametrize("bounds", [(-0.1, 0.1), (None, 0.0), (None, -0.1)])
    def test_bounds_of_strength_that_make_no_sense(self, bounds):
        model = start(None)
        model.strength.bounds = bounds
        with pytest.raises(ValueError, match="bounds of strength must be positive"):
            SparseLineFitter()(model, WAVE, truth_flux())

    def test_tied_is_refused(self):
        model = start(None)
        model.fwhm_G.tied = lambda m: m.fwhm_L
        with pytest.raises(UnsupportedConstraintError, match="fwhm_G"):
            SparseLineFitter()(model, WAVE, truth_flux())

    @pytest.mark.parametrize("unit", [u.AA, None], ids=str)
    @pytest.mark.parametrize("name,factor,kind", [("strength", 0.0, "finite and not 0"), ("fwhm_G", -1, "positive"),
                                                  ("fwhm_L", 0.0, "positive"), ("x_0", np.nan, "finite"),
                                                  ("strength", np.nan, "finite"), ("fwhm_G", np.nan, "finite"),
                                                  ("fwhm_L", np.nan, "finite"), ("x_0", np.inf, "finite"),
                                                  ("strength", np.inf, "finite"), ("fwhm_G", np.inf, "finite"),
                                                  ("fwhm_L", np.inf, "finite")])  # fmt: skip
    def test_start_that_is_no_number_or_has_no_logarithm(self, name, factor, kind, unit):
        values = {"x_0": CENTER, "strength": STRENGTH, "fwhm_G": FWHM_G, "fwhm_L": FWHM_L}[name] * [1, factor, 1, 1]
        model = make(unit)
        getattr(model, name).value = values
        message = rf"{name} must be .*{kind}.* at the start, got 1 of 4 that are not, .*; give them a value"
        with pytest.raises(ValueError, match=message):
            fit_lines(spectrum(), model, fitter=SparseLineFitter())

    def test_continuum_that_is_no_number(self):
        with pytest.raises(ValueError, match="continuum must be finite at the start, got 1 of 1"):
            SparseLineFitter()(make(None, continuum=np.nan), WAVE, truth_flux())

    def test_free_continuum(self):
        x = (WAVE - 5006.5) / 6.5
        y = truth_flux() * (2.0 + 0.3 * x)
        model = start(None, continuum=[1.99, 0.29], continuum_domain=(5000.0, 5013.0))
        fixed = SparseLineFitter()(model, WAVE, y, weights=np.full(WAVE.size, 300.0))
        np.testing.assert_array_equal(np.ravel(fixed.continuum.value), [1.99, 0.29])
        model.continuum, model.continuum.fixed = [[1.9], [0.2]], False
        fitted = SparseLineFitter()(model, WAVE, y, weights=np.full(WAVE.size, 300.0))
        np.testing.assert_allclose(np.ravel(fitted.continuum.value), [2.0, 0.3], atol=2e-3)
        np.testing.assert_allclose(fitted.strength.value, STRENGTH, rtol=0.02)
        assert np.shape(fitted.continuum.std) == np.shape(fitted.continuum.value) and np.all(fitted.continuum.std > 0)

    def test_product_form(self):
        depth = 0.3 * STRENGTH * voigt_profile(WAVE[:, None] - CENTER, FWHM_G / FWHM_PER_SIGMA, FWHM_L / 2)
        y = np.prod(1.0 - depth, axis=1)
        model = make(None, strength=0.3 * STRENGTH * [1.2, 0.85, 0.9, 1.15], form="product")
        fitted = SparseLineFitter()(model, WAVE, y, weights=np.full(WAVE.size, 1e4))
        np.testing.assert_allclose(fitted.strength.value, 0.3 * STRENGTH, rtol=1e-3)


class TestFitter:
    def test_std_of_every_free_parameter(self):
        fitted = fit_lines(spectrum(noise=NOISE), start(), fitter=SparseLineFitter(), weights="unc")
        for name in ("x_0", "strength", "fwhm_G", "fwhm_L"):
            parameter = getattr(fitted, name)
            assert np.shape(parameter.std) == np.shape(parameter.value)
            assert np.all(np.asarray(parameter.std) > 0) and np.all(np.isfinite(parameter.std))

    @pytest.mark.parametrize("weighted", [True, False])
    def test_errors_are_calibrated(self, weighted):
        pulls = []
        for seed in range(40):
            y = truth_flux() + NOISE * np.random.default_rng(100 + seed).normal(size=WAVE.size)
            model = make(None)
            model.fwhm_L.fixed = True
            fitted = SparseLineFitter()(model, WAVE, y, weights=np.full(WAVE.size, 1 / NOISE) if weighted else None)
            pulls.append([(fitted.strength.value - STRENGTH) / fitted.strength.std,
                          (fitted.x_0.value - CENTER) / fitted.x_0.std])  # fmt: skip
        pulls = np.array(pulls).swapaxes(0, 1).reshape(2, -1)
        assert (np.abs(pulls.mean(axis=1)) < 0.3).all()
        assert ((0.8 < pulls.std(axis=1)) & (pulls.std(axis=1) < 1.2)).all(), pulls.std(axis=1)

    def test_without_weights_errors_come_from_the_residual(self):
        y = truth_flux() + NOISE * np.random.default_rng(0).normal(size=WAVE.size)
        with_weights = SparseLineFitter()(make(None), WAVE, y, weights=np.full(WAVE.size, 1 / NOISE))
        without = SparseLineFitter()(make(None), WAVE, y)
        np.testing.assert_allclose(without.strength.std, with_weights.strength.std, rtol=0.2)
        difference = (without.strength.value - with_weights.strength.value) / with_weights.strength.std
        assert np.abs(difference).max() < 0.3

    def test_inplace(self):
        model = start(None)
        assert SparseLineFitter()(model, WAVE, truth_flux(), weights=np.full(WAVE.size, 300.0), inplace=True) is model
        np.testing.assert_allclose(model.strength.value, STRENGTH, rtol=0.01)

    def test_order_of_lines_and_pixels_is_the_users(self):
        order, mixed = [2, 0, 3, 1], np.random.default_rng(0).permutation(WAVE.size)
        model = start(None)
        other = VoigtForest1D(*(getattr(model, n).value[order] for n in ("x_0", "strength", "fwhm_G", "fwhm_L")))
        weights = np.random.default_rng(1).uniform(200, 400, WAVE.size)
        y = truth_flux() + np.random.default_rng(2).normal(size=WAVE.size) / weights
        ours = SparseLineFitter()(other, WAVE[mixed], y[mixed], weights=weights[mixed])
        theirs = SparseLineFitter()(model, WAVE, y, weights=weights)
        for name in ("x_0", "strength", "fwhm_G", "fwhm_L"):
            np.testing.assert_allclose(getattr(ours, name).value, getattr(theirs, name).value[order], rtol=1e-9)
            np.testing.assert_allclose(getattr(ours, name).std, getattr(theirs, name).std[order], rtol=1e-9)

    def test_one_line_and_scalar_parameters(self):
        y = np.exp(-0.2 * voigt_profile(WAVE - 5006.0, 0.3 / FWHM_PER_SIGMA, 0.1))
        fitted = SparseLineFitter()(VoigtForest1D(5006.05, 0.15, 0.25, 0.25), WAVE, y, weights=np.full(WAVE.size, 1e4))
        found = [np.ravel(getattr(fitted, n).value)[0] for n in ("x_0", "strength", "fwhm_G", "fwhm_L")]
        np.testing.assert_allclose(found, [5006.0, 0.2, 0.3, 0.2], rtol=1e-3)
        assert np.size(fitted.strength.std) == 1 and np.ravel(fitted.strength.std)[0] > 0

    def test_line_outside_the_data_stays_and_is_unknown(self):
        model = VoigtForest1D(np.append(CENTER, 5400.0), np.append(STRENGTH * 1.1, 0.1), np.append(FWHM_G, 0.1),
                              np.append(FWHM_L, 0.001))  # fmt: skip
        fitted = SparseLineFitter()(model, WAVE, truth_flux(), weights=np.full(WAVE.size, 300.0))
        assert (fitted.x_0.value[4], fitted.strength.value[4]) == pytest.approx((5400.0, 0.1), rel=1e-9)
        assert not fitted.strength.std[4] < 0.05  # no datum knows of it
        np.testing.assert_allclose(fitted.strength.value[:4], STRENGTH, rtol=0.01)

    def test_all_lines_outside_the_data(self):
        model = VoigtForest1D([5400.0, 5500.0], [0.1, 0.1], [0.1, 0.1], [0.001, 0.001])
        fitted = SparseLineFitter()(model, WAVE, np.ones(WAVE.size), weights=np.full(WAVE.size, 300.0))
        np.testing.assert_allclose(fitted.strength.value, model.strength.value, rtol=1e-12)

    def test_start_at_the_solution(self):
        fitter = SparseLineFitter()
        weights = np.full(WAVE.size, 300.0)
        fitted = fitter(make(None), WAVE, truth_flux(), weights=weights)
        again = fitter(fitted, WAVE, truth_flux(), weights=weights)
        assert fitter.fit_info["status"] == "converged"
        np.testing.assert_allclose(again.strength.value, STRENGTH, rtol=1e-3)

    def test_not_converged_is_told_once(self):
        fitter = SparseLineFitter()
        with pytest.warns(BlaseWarning, match="did not converge.*maxiter") as caught:
            fitter(start(None), WAVE, truth_flux(), weights=np.full(WAVE.size, 300.0), maxiter=1)
        assert len(caught) == 1 and fitter.fit_info["status"] == "not_converged"

    def test_other_models_are_refused(self):
        with pytest.raises(TypeError, match="VoigtForest1D.*Gaussian1D"):
            SparseLineFitter()(models.Gaussian1D(), WAVE, truth_flux())

    @pytest.mark.parametrize("compound", [
        lambda: models.RedshiftScaleFactor(1e-4).inverse | start(), lambda: start() * models.Const1D(2.0 * u.one),
        lambda: start() + models.Linear1D(), lambda: models.Shift(1 * u.AA) | start()])  # fmt: skip
    def test_compound_models_are_refused(self, compound):
        with pytest.raises(TypeError, match="model must be a VoigtForest1D, got CompoundModel; the fitters of astropy"):
            fit_lines(spectrum(), compound(), fitter=SparseLineFitter())

    def test_z_is_refused(self):
        with pytest.raises(ValueError, match="z must be None"):
            SparseLineFitter()(make(None), WAVE, truth_flux(), truth_flux())

    def test_nothing_to_fit(self):
        with pytest.raises(ValueError, match="at least one finite pixel"):
            SparseLineFitter()(make(None), WAVE, np.full(WAVE.size, np.nan))
        with pytest.raises(ValueError, match="one shape"):
            SparseLineFitter()(make(None), WAVE, truth_flux()[:-1])

    def test_uncertainties_are_always_computed(self):
        fitted = SparseLineFitter(calc_uncertainties=True)(make(None), WAVE, truth_flux())
        assert (fitted.strength.std > 0).all()
        with pytest.raises(ValueError, match="calc_uncertainties must be True, got False"):
            SparseLineFitter(calc_uncertainties=False)

    @pytest.mark.parametrize("which", ["y", "weights"])
    def test_filter_non_finite_as_in_astropy(self, which):
        data = {"y": truth_flux(), "weights": np.full(WAVE.size, 300.0)}
        data[which][[5, 400]] = np.nan
        keep = np.isfinite(data[which])
        ours = fit_lines(Spectrum(flux=data["y"] * u.one, spectral_axis=WAVE * u.AA), start(),
                         fitter=SparseLineFitter(), weights=data["weights"], filter_non_finite=True)  # fmt: skip
        theirs = SparseLineFitter()(start(), WAVE[keep] * u.AA, data["y"][keep] * u.one,
                                    weights=data["weights"][keep])  # fmt: skip
        np.testing.assert_array_equal(ours.strength.value, theirs.strength.value)
        with pytest.raises(NonFiniteValueError, match="must be finite, got 2 of 800 pixels that are not; filter_non"):
            SparseLineFitter()(start(None), WAVE, **data, filter_non_finite=False)
        SparseLineFitter()(start(None), WAVE, truth_flux(), filter_non_finite=False)

    def test_is_known_to_astropy(self):
        assert fitting.SparseLineFitter is SparseLineFitter
