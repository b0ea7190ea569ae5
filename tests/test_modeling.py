"""VoigtForest1D: an ordinary astropy model that is right."""

import copy
import pickle

import numpy as np
import pytest
from astropy import constants
from astropy import units as u
from astropy.modeling import models
from astropy.modeling.fitting import TRFLSQFitter
from scipy.special import voigt_profile, wofz
from specutils import Spectrum
from specutils.fitting import fit_lines
from specutils.manipulation import spectrum_from_model

import specutils_blase
from specutils_blase import VoigtForest1D

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
CENTER, STRENGTH = np.array([5001.0, 5004.0, 5006.5]), np.array([0.1, -0.03, 0.4])
FWHM_G, FWHM_L = np.array([0.1, 0.2, 0.15]), np.array([0.05, 0.02, 0.3])
WAVE = np.linspace(4998.0, 5010.0, 400)


def make(unit=u.AA, **changes):
    lines = {"x_0": CENTER * u.AA, "strength": STRENGTH * u.AA, "fwhm_G": FWHM_G * u.AA, "fwhm_L": FWHM_L * u.AA}
    lines = {name: q.to(unit) if unit else q.value for name, q in lines.items()}
    return VoigtForest1D(**{"tolerance": 1e-12, **lines, **changes})


def depths(wave=WAVE):
    return STRENGTH * voigt_profile(np.asarray(wave)[..., None] - CENTER, FWHM_G / FWHM_PER_SIGMA, FWHM_L / 2)


def flat(wave=WAVE):
    return np.exp(-depths(wave).sum(axis=-1))


class TestValues:
    def test_is_the_sum_of_voigt1d_of_astropy(self):
        peak = STRENGTH * 2.0 / (np.pi * FWHM_L)  # amplitude_L of a Lorentzian with this area
        tau = sum(models.Voigt1D(*p, method="wofz")(WAVE) for p in zip(CENTER, peak, FWHM_L, FWHM_G, strict=True))
        np.testing.assert_allclose(-np.log(make(unit=None)(WAVE)), tau, rtol=1e-7, atol=1e-10)

    @pytest.mark.parametrize("sigma", [0.003, 0.03, 0.3])
    @pytest.mark.parametrize("ratio", [1e-5, 1e-3, 0.1, 1.0, 10.0, 1e3])
    def test_exact_wherever_the_depth_matters(self, sigma, ratio):
        x = np.logspace(-3, 2, 200)
        x = np.concatenate([-x[::-1], x])
        value = wofz((x + 1j * sigma * ratio) / (sigma * np.sqrt(2))).real / (sigma * np.sqrt(2 * np.pi))
        strength = 0.1 / value.max()
        model = VoigtForest1D(x_0=[6000.0] * u.AA, strength=[strength] * u.AA, fwhm_G=[sigma * FWHM_PER_SIGMA] * u.AA,
                              fwhm_L=[2 * sigma * ratio] * u.AA)  # fmt: skip
        # the coordinate that the model sees: 6000 + x rounds to 1e-12 Angstrom
        rounded = (6000.0 + x) - 6000.0
        value = wofz((rounded + 1j * sigma * ratio) / (sigma * np.sqrt(2))).real / (sigma * np.sqrt(2 * np.pi))
        tau = -np.log(u.Quantity(model((6000.0 + x) * u.AA)).value)
        keep = strength * value > 1e-6
        assert keep.sum() > 50
        np.testing.assert_allclose(tau[keep], strength * value[keep], rtol=1e-7, atol=3e-16)

    def test_opacity_and_product(self):
        np.testing.assert_allclose(make()(WAVE * u.AA).value, flat(), rtol=1e-9)
        product = make(form="product", strength=0.1 * STRENGTH * u.AA)
        np.testing.assert_allclose(product(WAVE * u.AA).value, np.prod(1.0 - 0.1 * depths(), axis=1), rtol=1e-9)

    @pytest.mark.parametrize("unit", ["AA", "nm", "um", "m", "THz", "Hz", "eV", "1/cm"])
    def test_any_axis_unit(self, unit):
        axis = (WAVE * u.AA).to(unit, u.spectral())
        result = make()(axis)
        assert result.unit == u.dimensionless_unscaled
        np.testing.assert_allclose(result.value, flat(), rtol=1e-7)

    @pytest.mark.parametrize("unit", ["nm", "um", "m"])
    def test_any_unit_of_the_lines(self, unit):
        np.testing.assert_allclose(make(unit=u.Unit(unit))(WAVE * u.AA).value, flat(), rtol=1e-7)

    def test_mixed_units_of_the_lines(self):
        model = make(x_0=CENTER / 10 * u.nm, fwhm_G=FWHM_G * 1e-4 * u.um)
        np.testing.assert_allclose(model(WAVE * u.AA).value, flat(), rtol=1e-7)

    def test_without_units(self):
        result = make(unit=None)(WAVE)
        assert type(result) is np.ndarray
        np.testing.assert_allclose(result, flat(), rtol=1e-9)

    def test_shapes_of_x(self):
        model = make()
        assert np.ndim(model(5001.0 * u.AA)) == 0
        assert model(5001.0 * u.AA).value == pytest.approx(flat(np.array(5001.0)).item(), rel=1e-9)
        three = np.array([5000.9, 5001.0, 5004.1])  # as many pixels as lines
        np.testing.assert_allclose(model(three * u.AA).value, flat(three), rtol=1e-9)
        square = WAVE.reshape(20, 20)
        np.testing.assert_allclose(model(square * u.AA).value, flat(square), rtol=1e-9)
        nine = WAVE[:9].reshape(3, 3)
        np.testing.assert_allclose(model(nine * u.AA).value, flat(nine), rtol=1e-9)
        assert model(np.zeros(0) * u.AA).shape == (0,)

    def test_unsorted_x(self):
        mixed = np.random.default_rng(0).permutation(WAVE.size)
        np.testing.assert_array_equal(make()(WAVE[mixed] * u.AA), make()(WAVE * u.AA)[mixed])

    def test_unsorted_lines(self):
        order = [2, 0, 1]
        model = make(x_0=CENTER[order] * u.AA, strength=STRENGTH[order] * u.AA, fwhm_G=FWHM_G[order] * u.AA,
                     fwhm_L=FWHM_L[order] * u.AA)  # fmt: skip
        np.testing.assert_allclose(model(WAVE * u.AA).value, flat(), rtol=1e-9)
        np.testing.assert_array_equal(model.x_0.value, CENTER[order])

    @pytest.mark.parametrize("wrap", [np.atleast_1d, float], ids=["array", "scalar"])
    def test_one_line(self, wrap):
        model = VoigtForest1D(*(wrap(v) for v in (5004.0, 0.2, 0.2, 0.1)), tolerance=1e-12)
        assert model.n_lines == 1
        expected = np.exp(-0.2 * voigt_profile(WAVE - 5004.0, 0.2 / FWHM_PER_SIGMA, 0.05))
        np.testing.assert_allclose(model(WAVE), expected, rtol=1e-9)
        assert np.ndim(model(5004.0)) == 0
        assert model(np.array([5004.0])).shape == (1,)

    def test_nan_in_nan_out(self):
        wave = np.array([5001.0, np.nan, 5003.0, 5004.0])
        result = make()(wave * u.AA).value
        assert np.isnan(result).tolist() == [False, True, False, False]
        np.testing.assert_allclose(result[[0, 2, 3]], flat(wave[[0, 2, 3]]), rtol=1e-9)

    def test_big_endian_and_read_only_input(self):
        wave = WAVE.astype(">f8")
        wave.flags.writeable = False
        np.testing.assert_array_equal(make(unit=None)(wave), make(unit=None)(WAVE))

    def test_input_is_not_changed(self):
        wave = WAVE[::-1].copy()
        make(unit=None)(wave)
        np.testing.assert_array_equal(wave, WAVE[::-1])

    def test_tolerance_is_kept(self):
        tau = depths().sum(axis=1)
        coarse = -np.log(make(tolerance=1e-3)(WAVE * u.AA).value)
        assert 1e-6 < np.abs(coarse - tau).max() < 3e-3


class TestContinuum:
    UNIT = u.Unit("erg / (s cm2 AA)")

    def planck(self, wave, teff):
        exponent = (constants.h * constants.c / constants.k_B / (teff * u.K)).to_value(u.AA)
        return 1 / (wave**5 * np.expm1(exponent / wave))

    @pytest.mark.parametrize("axis", ["AA", "nm", "THz"])
    @pytest.mark.parametrize("lines", ["AA", "nm"])
    def test_blackbody_and_polynomial(self, axis, lines):
        model = make(unit=u.Unit(lines), continuum=[2e-13, 3e-14, -1e-14] * self.UNIT,
                     continuum_domain=[4998, 5010] * u.AA, teff=4700 * u.K)  # fmt: skip
        result = model((WAVE * u.AA).to(axis, u.spectral()))
        x = (WAVE - 5004.0) / 6.0
        polynomial = np.polynomial.legendre.legval(x, [2e-13, 3e-14, -1e-14])
        assert result.unit == self.UNIT
        expected = flat() * polynomial * self.planck(WAVE, 4700) / self.planck(5004.0, 4700)
        np.testing.assert_allclose(result.value, expected, rtol=1e-7)

    def test_without_units(self):
        model = make(unit=None, continuum=[2.0, 0.5], continuum_domain=(4998.0, 5010.0))
        np.testing.assert_allclose(model(WAVE), flat() * (2.0 + 0.5 * (WAVE - 5004.0) / 6.0), rtol=1e-9)

    def test_constant(self):
        result = make(continuum=3.0 * u.Jy)(WAVE * u.AA)
        assert result.unit == u.Jy
        np.testing.assert_allclose(result.value, 3.0 * flat(), rtol=1e-9)

    def test_is_fixed_by_default_and_scalar_x_works(self):
        model = make(continuum=[2.0, 0.5] * u.Jy, continuum_domain=[4998, 5010] * u.AA)
        assert model.continuum.fixed and not model.strength.fixed
        assert model(5004.0 * u.AA).to_value(u.Jy) == pytest.approx(2.0 * flat(np.array(5004.0)).item(), rel=1e-9)


class TestAstropyModel:
    def test_names_and_order(self):
        assert VoigtForest1D.param_names == ("x_0", "strength", "fwhm_G", "fwhm_L", "continuum")
        assert make().n_lines == 3 and make().input_units == {"x": u.AA} and len(make()) == 1

    def full(self):
        model = make(continuum=[2.0, 0.5] * u.Jy, continuum_domain=[4998, 5010] * u.AA, teff=4000.0, form="product",
                     strength=0.1 * STRENGTH * u.AA, name="star", meta={"a": 1})  # fmt: skip
        model.x_0.fixed = True
        model.fwhm_G.bounds = (0.01, 1.0)
        return model

    @pytest.mark.parametrize("duplicate", [lambda m: m.copy(), lambda m: m.deepcopy(), copy.deepcopy, copy.copy,
                                           lambda m: pickle.loads(pickle.dumps(m))],
                             ids=["copy method", "deepcopy method", "deepcopy", "copy", "pickle"])  # fmt: skip
    def test_duplicates(self, duplicate):
        model = self.full()
        other = duplicate(model)
        assert type(other) is VoigtForest1D and other is not model
        np.testing.assert_array_equal(other(WAVE * u.AA), model(WAVE * u.AA))
        for name in ("form", "tolerance", "teff", "name", "fixed", "bounds", "n_lines"):
            assert getattr(other, name) == getattr(model, name), name

    def test_copies_are_independent(self):
        model = self.full()
        before = model(WAVE * u.AA)
        other = model.copy()
        other.strength = 2 * other.strength.quantity
        other.x_0.value[0] += 1.0
        np.testing.assert_array_equal(model(WAVE * u.AA), before)
        assert np.abs(other(WAVE * u.AA) - before).max() > 0.01 * u.Jy

    def test_parameters_can_be_set(self):
        model = make()
        model.strength = 2 * STRENGTH * u.AA
        np.testing.assert_allclose(model(WAVE * u.AA).value, flat() ** 2, rtol=1e-9)

    def test_redshift(self):
        # the observed wavelength is divided by 1 + z, then the forest is evaluated at rest
        z = 0.001
        shifted = models.RedshiftScaleFactor(z).inverse | make(unit=None)
        np.testing.assert_allclose(shifted(WAVE * (1 + z)), flat(), rtol=1e-6)

    def test_arithmetic_with_other_models(self):
        model = make(unit=None) * models.Const1D(3.0) + models.Const1D(1.0)
        np.testing.assert_allclose(model(WAVE), 3.0 * flat() + 1.0, rtol=1e-9)

    def test_spectrum_from_model(self):
        source = Spectrum(flux=np.ones(WAVE.size) * u.Jy, spectral_axis=WAVE * u.AA)
        spectrum = spectrum_from_model(make(continuum=2.0 * u.Jy), source)
        assert spectrum.flux.unit == u.Jy
        np.testing.assert_allclose(spectrum.flux.value, 2.0 * flat(), rtol=1e-9)

    def test_units_can_be_stripped_and_put_back(self):
        model = make(continuum=2.0 * u.Jy)
        bare = model.without_units_for_data(x=WAVE * u.AA, y=np.ones(WAVE.size) * u.Jy)
        np.testing.assert_allclose(bare(WAVE), 2.0 * flat(), rtol=1e-9)
        again = bare.with_units_from_data(x=WAVE * u.AA, y=np.ones(WAVE.size) * u.Jy)
        np.testing.assert_allclose(again(WAVE * u.AA).to_value(u.Jy), 2.0 * flat(), rtol=1e-9)

    def test_repr_and_str_hold_the_name(self):
        assert "VoigtForest1D" in repr(make()) and "VoigtForest1D" in str(make())

    def test_public_name(self):
        assert specutils_blase.VoigtForest1D is VoigtForest1D


class TestErrors:
    def test_form(self):
        with pytest.raises(ValueError, match="form must be .*gauss"):
            make(form="gauss")

    @pytest.mark.parametrize("changes", [{"continuum": [1.0, 0.1]}, {"teff": 4000.0}], ids=str)
    def test_continuum_without_a_domain(self, changes):
        with pytest.raises(ValueError, match="continuum_domain is needed"):
            make(**changes)

    def test_wrong_unit_of_x(self):
        with pytest.raises(u.UnitsError):
            make()(WAVE * u.s)

    def test_x_without_unit(self):
        with pytest.raises(u.UnitsError):
            make()(WAVE)

    def test_parameters_of_different_length(self):
        with pytest.raises(ValueError):
            make(strength=[0.1, 0.2] * u.AA)(WAVE * u.AA)

    @pytest.mark.parametrize("name", ["x_0", "strength", "fwhm_G", "fwhm_L"])
    @pytest.mark.parametrize("unit", [u.Hz, u.km / u.s, u.one, u.pix, u.Jy], ids=str)
    def test_line_parameters_with_wrong_units(self, name, unit):
        with pytest.raises(u.UnitsError, match=f"{name} must be a length, got the unit '.*'; give wavelengths"):
            make(**{name: CENTER * unit})
        with pytest.raises(u.UnitsError, match=f"{name} must be a length"):
            VoigtForest1D(**{name: 5000.0 * unit})

    def test_a_fitter_of_astropy_on_one_line(self):
        truth = VoigtForest1D(5004.0, 0.2, 0.2, 0.1)
        start = VoigtForest1D(5004.02, 0.15, 0.25, 0.12)
        wave = np.linspace(5003.0, 5005.0, 81)
        fitted = TRFLSQFitter()(start, wave, truth(wave), acc=1e-12)
        found = [np.ravel(value)[0] for value in (fitted.x_0.value, fitted.strength.value)]
        np.testing.assert_allclose(found, [5004.0, 0.2], rtol=1e-4)


def test_fit_lines_of_specutils_takes_the_model():
    truth = make()
    spectrum = Spectrum(flux=truth(WAVE * u.AA), spectral_axis=WAVE * u.AA)
    start = truth.copy()
    start.strength = STRENGTH * [1.2, 0.9, 0.8] * u.AA
    fitted = fit_lines(spectrum, start, fitter=specutils_blase.SparseLineFitter())
    np.testing.assert_allclose(fitted.strength.quantity.to_value(u.AA), STRENGTH, rtol=1e-4)
