"""Forests as tables and back, parts of them, lists of Voigt1D, and what specutils makes of them."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from astropy import units as u
from astropy.modeling.fitting import TRFLSQFitter
from astropy.modeling.models import Const1D, RedshiftScaleFactor, Voigt1D
from astropy.nddata import StdDevUncertainty
from astropy.table import QTable
from scipy.special import voigt_profile
from specutils import SpectralRegion, Spectrum
from specutils.analysis import template_correlate, template_match
from specutils.fitting import estimate_line_parameters, fit_lines
from specutils.manipulation import spectrum_from_model

from specutils_blase import SparseLineFitter, VoigtForest1D, clone_spectrum
from specutils_blase.flags import BLENDED

CENTER, STRENGTH = np.array([5008.0, 5002.0, 5005.0, 5005.28]), np.array([0.06, -0.03, 0.05, 0.04])
FWHM_G, FWHM_L = np.array([0.2, 0.25, 0.3, 0.2]), np.array([0.1, 0.05, 0.15, 0.08])
WAVE = np.linspace(5000.0, 5010.0, 900)
NOISE = 0.002


def forest(unit=u.AA, **options):
    lengths = (CENTER, STRENGTH, FWHM_G, FWHM_L)
    return VoigtForest1D(*((values * u.AA).to(unit) for values in lengths), **options)


def observed(seed=0):
    flux = forest()(WAVE * u.AA) + np.random.default_rng(seed).normal(0.0, NOISE, WAVE.size)
    return Spectrum(flux=flux, spectral_axis=WAVE * u.AA, uncertainty=StdDevUncertainty(np.full(WAVE.size, NOISE)))


@pytest.fixture(scope="module", params=[u.AA, u.nm], ids=str)
def fitted(request):
    return fit_lines(observed(), forest(request.param), fitter=SparseLineFitter(), weights="unc")


class TestTables:
    def test_there_and_back(self):
        table = forest().to_line_list()
        assert np.all(np.diff(table["line_center"].value) > 0)
        assert list(table["line_type"]) == ["emission", "absorption", "absorption", "absorption"]
        assert np.isnan(table["strength_err"]).all() and set(table["line_center_index"]) == {-1}
        again = VoigtForest1D.from_line_list(table)
        np.testing.assert_allclose(again(WAVE * u.AA).value, forest()(WAVE * u.AA).value, rtol=1e-12)

    def test_form_and_other_options(self):
        table = forest(form="product").to_line_list()
        assert VoigtForest1D.from_line_list(table).form == "product"
        again = VoigtForest1D.from_line_list(table, form="opacity", continuum=3 * u.Jy)
        assert again.form == "opacity" and again(WAVE[:2] * u.AA).unit == u.Jy

    def test_of_a_fit_against_draws(self, fitted):
        """Equivalent widths have the errors that a refit of other noise shows, correlations with widths included."""
        table = fitted.to_line_list()
        widths = [fit_lines(observed(seed), forest(), fitter=SparseLineFitter(), weights="unc").to_line_list()
                  for seed in range(1, 41)]  # fmt: skip
        seen = np.std([item["equivalent_width"].value for item in widths], axis=0, ddof=1)
        np.testing.assert_allclose(table["equivalent_width_err"].value, seen, rtol=0.4)
        total = np.array([item["equivalent_width"].value[1:3].sum() for item in widths])
        assert set(table["blend"][1:3]) == {0} and set(table["blend"][[0, 3]]) == {-1}
        assert table["blend_equivalent_width_err"][1].value == pytest.approx(np.std(total, ddof=1), rel=0.4)
        widths = table["equivalent_width"][1:3]
        np.testing.assert_allclose(table["blend_equivalent_width"][1], widths.sum(), rtol=1e-14)
        assert list(table["flags"] & BLENDED > 0) == [False, True, True, False]

    def test_errors_do_not_know_the_unit(self):
        tables = [fit_lines(observed(), forest(unit), fitter=SparseLineFitter(), weights="unc").to_line_list()
                  for unit in (u.AA, u.um)]  # fmt: skip
        for name in tables[0].colnames:
            if isinstance(tables[0][name], u.Quantity):
                np.testing.assert_allclose(tables[0][name].to_value(u.AA), tables[1][name].to_value(u.AA), rtol=1e-4)

    def test_pixels(self, fitted):
        for axis in (WAVE * u.AA, WAVE[::-1] * u.AA, (WAVE * u.AA).to(u.GHz, u.spectral())):
            table = fitted.to_line_list(axis)
            nearest = axis[table["line_center_index"]].to(u.AA, u.spectral())
            assert np.all(np.abs(nearest - table["line_center"]) < 0.006 * u.AA)

    def test_errors_survive_the_table(self, fitted):
        again = VoigtForest1D.from_line_list(fitted.to_line_list())
        order = np.argsort(CENTER)
        for name in ("x_0", "strength", "fwhm_G", "fwhm_L"):
            expected = u.Quantity(getattr(fitted, name).std, getattr(fitted, name).unit).to_value(u.AA)[order]
            np.testing.assert_allclose(getattr(again, name).std, expected, rtol=1e-6)
        table = again.to_line_list()  # independent now
        np.testing.assert_allclose(table["strength_err"].value, fitted.to_line_list()["strength_err"].value, rtol=1e-6)

    def test_regions_of_it(self, fitted):
        region = SpectralRegion.from_line_list(fitted.to_line_list(), width=0.5 * u.AA)
        assert len(region) == 4

    def test_a_table_of_a_clone(self):
        star = Spectrum(flux=forest()(WAVE * u.AA), spectral_axis=WAVE * u.AA)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            template = clone_spectrum(star, prominence=0.01, continuum_degree=0, progress=False)
        again = VoigtForest1D.from_line_list(template.lines)
        np.testing.assert_allclose(again.strength.value, template.model.strength.value, rtol=1e-12)

    def test_messages(self):
        table = forest().to_line_list()
        with pytest.raises(ValueError, match="lines must hold lines, got an empty table"):
            VoigtForest1D.from_line_list(table[:0])
        table.remove_column("fwhm_lorentz")
        with pytest.raises(ValueError, match=r"fwhm_lorentz.* must be known for every line, got 4 of 4 without"):
            VoigtForest1D.from_line_list(table)
        with pytest.raises(TypeError, match="lines must be a Table"):
            VoigtForest1D.from_line_list([1, 2])
        with pytest.raises(u.UnitsError, match="line_center"):
            VoigtForest1D.from_line_list(QTable({"line_center": [1.0]}))


class TestParts:
    @pytest.mark.parametrize("region", [SpectralRegion(5004 * u.AA, 5006 * u.AA), (500.4 * u.nm, 500.6 * u.nm),
                                        [5004, 5006] * u.AA])  # fmt: skip
    def test_select(self, fitted, region):
        part = fitted.select(region)
        assert part.n_lines == 2 and part.x_0.unit == fitted.x_0.unit
        np.testing.assert_array_equal(part.strength.value, fitted.strength.value[2:])
        np.testing.assert_array_equal(part.strength.std, fitted.strength.std[2:])
        whole = fitted.to_line_list()
        for name in ("equivalent_width", "equivalent_width_err", "blend_equivalent_width_err", "flags"):
            np.testing.assert_array_equal(part.to_line_list()[name], whole[name][1:3])

    def test_select_keeps_the_continuum_and_constraints(self):
        model = forest(continuum=[3.0, 0.1] * u.Jy, continuum_domain=(5000, 5010) * u.AA, form="product")
        model.fwhm_L.fixed = True
        model.strength.bounds = (1e-3, 1.0)
        part = model.select((5007, 5009) * u.AA)
        assert part.form == "product" and part.fwhm_L.fixed and part.strength.bounds == (1e-3, 1.0)
        assert part(5001 * u.AA).to_value(u.Jy) == pytest.approx(3 - 0.08, rel=1e-3)

    def test_select_nothing(self):
        with pytest.raises(ValueError, match="region must contain lines, got none; the model has 4 from 5002 to 5008"):
            forest().select((4000, 4001) * u.AA)

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)),
                                        lambda m: m.copy()])  # fmt: skip
    def test_copies_know_their_errors(self, fitted, copied):
        table, again = fitted.to_line_list(), copied(fitted).to_line_list()
        np.testing.assert_array_equal(table["equivalent_width_err"], again["equivalent_width_err"])

    def test_some_lines_are_free(self):
        start = forest()
        start.strength = STRENGTH * [1.2, 1.0, 1.0, 1.0] * u.AA
        free = CENTER > 5007
        fitter = SparseLineFitter()
        part = fit_lines(observed(), start, fitter=fitter, weights="unc", free_lines=free)
        for name in ("x_0", "strength", "fwhm_G", "fwhm_L"):
            np.testing.assert_array_equal(getattr(part, name).value[~free], getattr(start, name).value[~free])
            assert np.all(getattr(part, name).std[~free] == 0) and np.all(getattr(part, name).std[free] > 0)
        every = fit_lines(observed(), start, fitter=fitter, weights="unc")
        # the line stands alone: the others do not matter
        assert part.strength.value[0] == pytest.approx(every.strength.value[0], abs=0.1 * every.strength.std[0])
        assert part.strength.std[0] == pytest.approx(every.strength.std[0], rel=0.02)
        assert part.to_line_list()["equivalent_width_err"][:3].value.max() == 0

    def test_wings_of_held_lines_stay(self):
        """Of two lines in one blend the held one takes its share; with the true strength the free one is right."""
        start, free = forest(), np.array([False, False, True, False])
        start.strength = STRENGTH * [1.0, 1.0, 0.7, 1.0] * u.AA
        for options in ({}, {"form": "product"}):
            truth = forest(**options)
            flux = truth(WAVE * u.AA)
            model = forest(**options)
            model.strength = start.strength.quantity
            model.x_0.fixed = model.fwhm_G.fixed = model.fwhm_L.fixed = True
            found = SparseLineFitter()(model, WAVE * u.AA, flux, free_lines=free)
            assert found.strength.value[2] == pytest.approx(STRENGTH[2], rel=1e-4)

    def test_no_line_is_free(self):
        fitter = SparseLineFitter()
        found = fitter(forest(), WAVE * u.AA, observed().flux, free_lines=np.zeros(4, dtype=bool))
        np.testing.assert_array_equal(found.strength.value, STRENGTH)
        assert fitter.fit_info["dof"] == WAVE.size

    @pytest.mark.parametrize("mask", [[1, 0, 1, 0], [True], "all"])
    def test_masks_of_other_kinds(self, mask):
        with pytest.raises(ValueError, match="free_lines must be an array of 4 bool, one for each line"):
            SparseLineFitter()(forest(), WAVE * u.AA, observed().flux, free_lines=mask)


class TestVoigt1D:
    def test_there_and_back(self):
        models = forest().to_voigt1d()
        total = sum(model(WAVE * u.AA) for model in models)
        np.testing.assert_allclose(np.exp(-total.value), forest()(WAVE * u.AA).value, atol=1e-6)
        again = VoigtForest1D.from_voigt1d(models)
        for name in ("x_0", "strength", "fwhm_G", "fwhm_L"):
            np.testing.assert_allclose(getattr(again, name).quantity.to_value(u.AA),
                                       getattr(forest(), name).quantity.to_value(u.AA), rtol=1e-12)  # fmt: skip

    def test_plain_numbers_and_mixed_units(self):
        plain = VoigtForest1D.from_voigt1d([Voigt1D(5000.0, 0.3, 0.1, 0.2), Voigt1D(5001.0, -0.1, 0.1, 0.1)])
        assert plain.x_0.unit is None
        np.testing.assert_allclose(plain.strength.value, [0.3 * 0.1 * np.pi / 2, -0.1 * 0.1 * np.pi / 2])
        mixed = VoigtForest1D.from_voigt1d([Voigt1D(5000.0 * u.AA, 0.3, 0.1 * u.AA, 0.2 * u.AA),
                                            Voigt1D(500.1 * u.nm, 0.1, 0.01 * u.nm, 0.01 * u.nm)])  # fmt: skip
        np.testing.assert_allclose(mixed.x_0.quantity.to_value(u.AA), [5000, 5001])
        assert len(mixed.to_voigt1d()) == 2


    def test_errors_there_and_back(self, fitted):
        again = VoigtForest1D.from_voigt1d(fitted.to_voigt1d())
        for name in ("x_0", "strength", "fwhm_G", "fwhm_L"):
            ours, theirs = getattr(again, name), getattr(fitted, name)
            assert ours.unit == theirs.unit
            np.testing.assert_allclose(ours.std, theirs.std, rtol=1e-9)

    def test_errors_of_amplitudes_against_draws(self, fitted):
        """The third line, which is blended: amplitude and width are strongly correlated."""
        amplitude = [fit_lines(observed(seed), forest(), fitter=SparseLineFitter(), weights="unc").to_voigt1d()[0]
                     .amplitude_L.value for seed in range(1, 41)]  # fmt: skip
        voigt = fitted.to_voigt1d()[0]
        assert voigt.amplitude_L.std == pytest.approx(np.std(amplitude, ddof=1), rel=0.4)
        assert voigt.cov_matrix["amplitude_L", "fwhm_L"] < 0
        assert voigt.stds is None and voigt.x_0.std == pytest.approx(fitted.x_0.std[0])

    def test_errors_of_a_fit_by_astropy(self):
        truth = Voigt1D(500.5 * u.nm, 0.3, 0.01 * u.nm, 0.02 * u.nm)
        data = truth(WAVE * u.AA) + np.random.default_rng(1).normal(0.0, 0.0005, WAVE.size)
        fit = TRFLSQFitter(calc_uncertainties=True)(truth, WAVE * u.AA, data)
        other = Voigt1D(5001.0 * u.AA, 0.1, 0.1 * u.AA, 0.1 * u.AA)  # without errors
        model = VoigtForest1D.from_voigt1d([other, fit])
        assert model.x_0.unit == u.AA and np.isnan(model.strength.std[0])
        draws = np.random.default_rng(0).multivariate_normal(fit.parameters, fit.cov_matrix.cov_matrix, 40_000)
        area = draws[:, 1] * draws[:, 2] * np.pi / 2 * fit.fwhm_L.unit.to(u.AA)
        assert model.strength.std[1] == pytest.approx(area.std(), rel=0.03)
        assert model.x_0.std[1] == pytest.approx(fit.x_0.std * fit.x_0.unit.to(u.AA))

    def test_errors_that_are_independent_or_not_known(self):
        model = forest()
        assert model.to_voigt1d()[0].x_0.std is None and VoigtForest1D.from_voigt1d(model.to_voigt1d()).x_0.std is None
        model.strength.std, model.x_0.std = 0.1 * np.abs(STRENGTH), np.array([0.01, np.nan, np.inf, 0.02])
        assert model.to_voigt1d()[0].amplitude_L.std is None  # for that of the width is not known
        model.fwhm_L.std = 0.2 * FWHM_L
        voigts = model.to_voigt1d()
        assert voigts[0].amplitude_L.std == pytest.approx(voigts[0].amplitude_L.value * np.hypot(0.1, 0.2))
        assert [voigt.x_0.std for voigt in voigts] == [pytest.approx(0.01), None, None, pytest.approx(0.02)]
        again = VoigtForest1D.from_voigt1d(voigts)
        np.testing.assert_allclose(again.strength.std, model.strength.std)
        np.testing.assert_array_equal(np.isfinite(again.x_0.std), [True, False, False, True])
        assert again.fwhm_G.std is None

    @pytest.mark.parametrize("names,theirs", [(["x_0"], ["x_0"]), (["strength"], []), (["fwhm_L"], ["fwhm_L"]),
                                              (["strength", "fwhm_L"], ["amplitude_L", "fwhm_L"]),
                                              (["fwhm_G", "x_0"], ["fwhm_G", "x_0"])])  # fmt: skip
    def test_what_is_fixed(self, names, theirs):
        model = forest()
        for name in names:
            model.fixed[name] = True
        fitted = fit_lines(observed(), model, fitter=SparseLineFitter(), weights="unc")
        voigts = fitted.to_voigt1d()
        for voigt in voigts:
            assert {name for name, value in voigt.fixed.items() if value} == set(theirs)
            assert {name for name in voigt.param_names if getattr(voigt, name).std is None} == set(theirs)
        again = VoigtForest1D.from_voigt1d(voigts)
        expected = set() if names == ["strength"] else set(names)
        assert {name for name, value in again.fixed.items() if value} == expected | {"continuum"}

    def test_one_model_and_sums(self):
        one = VoigtForest1D.from_voigt1d(Voigt1D(5000.0, 0.3, 0.1, 0.2))
        assert one.n_lines == 1 and one.strength.value == pytest.approx(0.3 * 0.1 * np.pi / 2)
        both = VoigtForest1D.from_voigt1d(Voigt1D(5000.0, 0.3, 0.1, 0.2) + Voigt1D(5001.0, 0.3, 0.1, 0.2))
        np.testing.assert_array_equal(both.x_0.value, [5000, 5001])

    def test_messages(self):
        with pytest.raises(ValueError, match="models must hold lines, got an empty list; give one Voigt1D or more"):
            VoigtForest1D.from_voigt1d([])
        with pytest.raises(TypeError, match="models must be Voigt1D, got Const1D"):
            VoigtForest1D.from_voigt1d([Const1D(1.0)])
        voigts = forest().to_voigt1d()
        voigts[1].x_0.fixed = True
        with pytest.raises(ValueError, match="models must have x_0 fixed in all or in none, got 1 of 4; free it"):
            VoigtForest1D.from_voigt1d(voigts)


def test_a_forest_of_one_line():
    """astropy gives parameters of one value back as scalars."""
    one = VoigtForest1D([5008.0] * u.AA, [0.06] * u.AA, [0.2] * u.AA, [0.1] * u.AA)
    (voigt,) = one.to_voigt1d()
    assert voigt.x_0.quantity == 5008 * u.AA
    part = one.select((5007, 5009) * u.AA)
    assert part.n_lines == 1 and part(5008 * u.AA) == one(5008 * u.AA)
    fitted = fit_lines(observed(), forest(), fitter=SparseLineFitter(), weights="unc").select((5007, 5009) * u.AA)
    table = fitted.to_line_list()
    assert len(table) == 1 and table["equivalent_width_err"][0] > 0 * u.AA
    assert VoigtForest1D.from_line_list(table).select((5007, 5009) * u.AA).n_lines == 1
    again = SparseLineFitter()(fitted, WAVE * u.AA, observed().flux, free_lines=[True])
    assert np.size(again.strength.std) == 1


class TestSpecutils:
    def test_spectrum_from_model(self):
        spectrum = spectrum_from_model(forest(), observed())
        np.testing.assert_array_equal(spectrum.flux.value, forest()(WAVE * u.AA).value)

    def test_compound_models(self):
        moved = RedshiftScaleFactor(1e-3).inverse | forest()
        assert moved(5008 * 1.001 * u.AA).value == pytest.approx(forest()(5008 * u.AA).value)
        double = forest() * Const1D(2.0 * u.one)
        assert double(5008 * u.AA).value == pytest.approx(2 * forest()(5008 * u.AA).value)
        with pytest.raises(TypeError, match="model must be a VoigtForest1D, got CompoundModel"):
            SparseLineFitter()(forest() * Const1D(2.0 * u.one), WAVE * u.AA, observed().flux)

    def test_correlation_and_match_with_spectra_of_a_forest(self):
        wide = np.linspace(4990.0, 5020.0, 2700) * u.AA
        template = Spectrum(flux=forest()(wide) - 1.0, spectral_axis=wide)
        shifted = Spectrum(flux=observed().flux - 1.0, spectral_axis=WAVE * (1 + 20 / 299792.458) * u.AA,
                           uncertainty=observed().uncertainty)  # fmt: skip
        correlation, lag = template_correlate(shifted, template)
        assert abs(lag[np.argmax(correlation)].to_value("km/s") - 20) < 3
        other = Spectrum(flux=forest().select((5001, 5003) * u.AA)(wide) - 1.0, spectral_axis=wide)
        choice = [Spectrum(flux=s.flux + 1.0, spectral_axis=wide) for s in (other, template)]
        matched = template_match(observed(), choice)
        assert matched[2] == 1

    def test_estimate_of_a_line(self):
        estimate = estimate_line_parameters(Spectrum(flux=1 - observed().flux, spectral_axis=WAVE * u.AA),
                                            Voigt1D(5005, 0.1, 0.1, 0.1))  # fmt: skip
        assert isinstance(estimate, Voigt1D)


class TestEstimate:
    """estimate_line_parameters of specutils with a forest of one line."""

    AXIS = np.arange(5000.0, 5012.0, 0.02)

    def line(self, strength, level=1.0 * u.one, axis=None, noise=0.0, slope=0.0):
        axis = self.AXIS * u.AA if axis is None else axis
        flux = np.exp(-strength * voigt_profile(self.AXIS - 5006.3, 0.3 / 2.3548, 0.12))
        flux = flux * (1 + slope * (self.AXIS - 5006.3)) + np.random.default_rng(2).normal(0.0, noise, self.AXIS.size)
        return Spectrum(flux=flux * level, spectral_axis=axis)

    @pytest.mark.parametrize("strength", [0.02, 0.2, 3.0, -0.02, -0.2, -0.5])
    @pytest.mark.parametrize("level", [1.0 * u.one, 3e-13 * u.Unit("erg / (s cm2 AA)"), 4.0 * u.Jy], ids=str)
    def test_of_a_line(self, strength, level):
        estimate = estimate_line_parameters(self.line(strength, level), VoigtForest1D())
        assert isinstance(estimate, VoigtForest1D)
        assert abs(estimate.x_0.quantity - 5006.3 * u.AA) < 0.01 * u.AA
        assert u.isclose(estimate.continuum.quantity, level, rtol=0.02) and estimate.continuum.unit == level.unit
        ratio = estimate.strength.quantity.to_value(u.AA) / strength
        assert 0.5 < ratio < 1.5, ratio
        total = (estimate.fwhm_G.quantity + estimate.fwhm_L.quantity).to_value(u.AA)
        assert 0.25 < total < 1.2, total  # 0.54 in truth, more where the line is saturated

    def test_on_a_slope(self):
        straight, sloped = (estimate_line_parameters(self.line(0.05, slope=slope), VoigtForest1D())
                            for slope in (0.0, 0.1))  # fmt: skip
        for name, tolerance in (("x_0", 1e-5), ("strength", 0.05), ("fwhm_G", 0.1), ("continuum", 0.01)):
            assert getattr(sloped, name).value == pytest.approx(getattr(straight, name).value, rel=tolerance)

    def test_with_noise_in_a_region_it_starts_a_fit(self):
        spectrum = self.line(0.1, 2.0 * u.Jy, noise=0.01)
        region = SpectralRegion(5004 * u.AA, 5008.6 * u.AA)
        start = estimate_line_parameters(spectrum, VoigtForest1D(), region)
        start.continuum.fixed = False
        fitted = fit_lines(spectrum, start, fitter=SparseLineFitter(), window=region)
        assert abs(fitted.strength.quantity - 0.1 * u.AA) < 0.02 * u.AA
        assert abs(fitted.x_0.quantity - 5006.3 * u.AA) < 0.03 * u.AA

    def test_region_chooses_the_line(self):
        whole = estimate_line_parameters(observed(), VoigtForest1D())
        assert min(abs(whole.x_0.value - CENTER[[0, 2, 3]])) < 0.05
        region = SpectralRegion(5001 * u.AA, 5003 * u.AA)
        emission = estimate_line_parameters(observed(), VoigtForest1D(), region)
        assert abs(emission.x_0.value - 5002.0) < 0.05 and -0.04 < emission.strength.value < -0.02

    def test_units_of_the_axis(self):
        one = estimate_line_parameters(self.line(0.2), VoigtForest1D())
        for unit, own in ((u.nm, u.nm), (u.um, u.um), (u.THz, u.AA)):
            axis = (self.AXIS * u.AA).to(unit, u.spectral())
            other = estimate_line_parameters(self.line(0.2, axis=axis), VoigtForest1D())
            for name in ("x_0", "strength", "fwhm_G", "fwhm_L"):
                assert getattr(other, name).unit == own
                ours, theirs = (getattr(model, name).quantity.to_value(u.AA) for model in (one, other))
                assert theirs == pytest.approx(ours, rel=1e-6)

    def test_copies_can_be_estimated(self):
        for model in (VoigtForest1D().copy(), pickle.loads(pickle.dumps(VoigtForest1D())), copy.copy(VoigtForest1D())):
            assert abs(estimate_line_parameters(self.line(0.2), model).x_0.value - 5006.3) < 0.01

    def test_messages(self):
        with pytest.raises(ValueError, match="region must hold at least 5 usable pixels, got 4"):
            estimate_line_parameters(self.line(0.2), VoigtForest1D(), SpectralRegion(5006 * u.AA, 5006.07 * u.AA))
        flat = Spectrum(flux=np.ones(50) * u.Jy, spectral_axis=self.AXIS[:50] * u.AA)
        with pytest.raises(ValueError, match="region must hold a line with its continuum on both sides"):
            estimate_line_parameters(flat, VoigtForest1D())
        subtracted = Spectrum(flux=self.line(-0.2).flux - 1.05, spectral_axis=self.AXIS * u.AA)
        with pytest.raises(ValueError, match="spectrum must have a positive continuum on both sides of the line"):
            estimate_line_parameters(subtracted, VoigtForest1D())
