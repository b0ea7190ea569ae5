"""What other packages tripped over, through the public functions; the parts are tested with the modules."""

import copy
import pickle

import numpy as np
import pytest
from astropy import units as u
from astropy.modeling.models import RedshiftScaleFactor
from astropy.nddata import InverseVariance, StdDevUncertainty
from scipy.special import voigt_profile, wofz
from specutils import Spectrum, SpectrumList
from specutils.fitting import fit_lines

from specutils_blase import BlaseWarning, SparseLineFitter, VoigtForest1D, clone_spectrum, find_lines, fit_spectrum
from specutils_blase.functional.constants import FWHM_PER_SIGMA
from specutils_blase.functional.profiles import faddeeva
from specutils_blase.simulation import simulate_order, simulate_star

KMS = u.km / u.s
RANGES = ((10_503, 10_509), (10_511, 10_517))


class EchelleSpectrum(Spectrum):
    """As packages for one instrument define theirs: arguments of its own, by which nobody else can make one."""

    def __init__(self, *args, file=None, order=19, cached_hdus=None, **kwargs):
        self.order, self.cached_hdus = order, cached_hdus
        super().__init__(*args, **kwargs)

    @property
    def snr(self):
        return self.flux / self.uncertainty.quantity


class EchelleSpectrumList(SpectrumList):
    """A list with a method more."""

    def normalize(self):
        return [spectrum / np.nanmedian(spectrum.flux) for spectrum in self]


def big_endian_float32(array):
    return array.astype(">f4")


def strided(array):
    wide = np.zeros((array.size, 3), array.dtype)
    wide[:, 1] = array
    return wide[:, 1]


def read_only(array):
    array = strided(array)
    array.setflags(write=False)
    return array


@pytest.fixture(scope="module")
def source():
    return simulate_star(1, n_lines=60, lower=10_500 * u.AA, upper=10_520 * u.AA)


@pytest.fixture(scope="module")
def template(source):
    return clone_spectrum(source.spectrum, progress=False)


@pytest.fixture(scope="module")
def arrays(source):
    """Wavelength, flux, inverse variance and mask of two orders, flux and variance such as float32 holds exactly."""
    out = []
    for seed, (lower, upper) in enumerate(RANGES):
        spectrum = simulate_order(source.model, None, seed=seed, lower=lower * u.AA, upper=upper * u.AA, n_pix=160,
                                  radial_velocity=5 * KMS, vsini=5 * KMS, bad_pixels=0).spectrum  # fmt: skip
        flux, sigma = spectrum.flux.value.astype("f4"), spectrum.uncertainty.array
        out.append((spectrum.spectral_axis.value, flux, (sigma**-2).astype("f4"), np.arange(160) == 40))
    return out


def fit(orders, template):
    with pytest.warns(BlaseWarning, match="ignored"):
        return fit_spectrum(orders, template, radial_velocity=5 * KMS, vsini=5 * KMS, progress=False)


@pytest.mark.parametrize("store", [big_endian_float32, strided, read_only])
def test_orders_of_an_instrument_package_in_any_storage(arrays, template, store):
    plain = fit([Spectrum(spectral_axis=wave * u.AA, flux=flux.astype(float) * u.ct, mask=mask,
                          uncertainty=InverseVariance(ivar.astype(float))) for wave, flux, ivar, mask in arrays],
                template)  # fmt: skip
    theirs = EchelleSpectrumList(
        EchelleSpectrum(
            spectral_axis=u.Quantity(strided(wave).astype(">f8"), u.AA, copy=False), order=k,
            flux=u.Quantity(store(flux), u.ct, copy=False, dtype=None), mask=strided(mask.astype(int)),
            uncertainty=InverseVariance(store(ivar), copy=False))
        for k, (wave, flux, ivar, mask) in enumerate(arrays))  # fmt: skip
    found = fit(theirs, template)
    np.testing.assert_allclose(found.parameters["value"], plain.parameters["value"], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found.parameters["std"], plain.parameters["std"], rtol=1e-8, atol=1e-12)
    assert [np.flatnonzero(np.isnan(r.flux)).tolist() for r in found.residual] == [[40], [40]]
    assert all(type(r) is Spectrum for r in found.residual)


def test_one_spectrum_of_an_instrument_package(source):
    theirs = EchelleSpectrum(spectral_axis=source.spectrum.spectral_axis, flux=source.spectrum.flux)
    for verb in (find_lines, clone_spectrum):
        ours, same = verb(source.spectrum), verb(theirs)
        ours, same = (getattr(result, "lines", result) for result in (ours, same))
        np.testing.assert_array_equal(ours["line_center"], same["line_center"])


def test_rows_and_columns(arrays, template):
    wave, flux, ivar, mask = arrays[0]
    rows = Spectrum(spectral_axis=wave * u.AA, flux=np.stack([flux, flux + 1]) * u.ct, mask=np.stack([mask, mask]),
                    uncertainty=InverseVariance(np.stack([ivar, ivar])))  # fmt: skip
    columns = Spectrum(spectral_axis=wave * u.AA, flux=rows.flux.T, mask=rows.mask.T, spectral_axis_index=0,
                       uncertainty=InverseVariance(rows.uncertainty.array.T))  # fmt: skip
    with pytest.raises(ValueError, match="spectral axis last, got it first; transpose"):
        fit_spectrum(columns, template, progress=False)
    assert fit(rows, template).residual.flux.shape == (2, 160)


# ------------------------------------------------------------------------------------------------------------ forests

CENTER, STRENGTH = np.array([5001.0, 5002.0, 5002.6]), np.array([0.05, 0.3, 0.1])
FWHM_G, FWHM_L = np.full(3, 0.2), np.full(3, 0.08)


def forest():
    return VoigtForest1D(CENTER * u.AA, STRENGTH * u.AA, FWHM_G * u.AA, FWHM_L * u.AA)


def depth(wave):
    profile = voigt_profile(wave[:, None] - CENTER, FWHM_G / FWHM_PER_SIGMA, FWHM_L / 2)
    return STRENGTH * profile


def test_as_many_pixels_as_lines():
    wave = CENTER + [0.1, 0.0, -0.2]
    expected = np.exp(-depth(wave).sum(axis=1))
    moved = RedshiftScaleFactor(1e-4).inverse | forest()
    # fewer and more pixels as well: where parameters are broadcast with pixels it is three that pass by chance
    for n in (1, 2, 3):
        np.testing.assert_allclose(forest()(wave[:n] * u.AA).value, expected[:n], rtol=1e-6)
        np.testing.assert_allclose(moved(wave[:n] * (1 + 1e-4) * u.AA).value, expected[:n], rtol=1e-6)
    for shape in ((3, 1), (1, 3)):
        np.testing.assert_allclose(forest()(wave.reshape(shape) * u.AA).value, expected.reshape(shape), rtol=1e-6)
    assert forest()(wave[:1] * u.AA).shape == (1,)
    np.testing.assert_allclose(forest()(np.tile(wave, 2) * u.AA).value, np.tile(expected, 2), rtol=1e-6)
    spectrum = Spectrum(spectral_axis=np.sort(wave) * u.AA, flux=expected[np.argsort(wave)] * u.one,
                        uncertainty=StdDevUncertainty(np.full(3, 1e-3)))  # fmt: skip
    start = forest()
    start.strength = 1.05 * STRENGTH * u.AA
    for name in ("x_0", "fwhm_G", "fwhm_L"):
        start.fixed[name] = True
    fitted = fit_lines(spectrum, start, fitter=SparseLineFitter(), weights="unc")
    assert fitted.strength.std.shape == (3,)
    assert (np.abs(fitted.strength.value - STRENGTH) < 3 * fitted.strength.std).all()


def test_no_lines():
    nothing = forest().to_line_list()[:0]
    with pytest.raises(ValueError, match="lines must hold lines, got an empty table"):
        VoigtForest1D.from_line_list(nothing)
    with pytest.raises(ValueError, match="lines must have lines within"):
        clone_spectrum(Spectrum(spectral_axis=np.linspace(5000, 5004, 400) * u.AA, flux=np.ones(400) * u.one),
                       lines=nothing)  # fmt: skip


def test_equivalent_widths_and_their_errors():
    n, copies, noise, rng = 60, 80, 0.005, np.random.default_rng(5)
    fine = 5002.0 + 1e-3 * np.sinh(np.linspace(-19.0, 19.0, 400_001))  # as far as wings count
    expected = np.trapezoid(-np.expm1(-depth(fine)), fine, axis=0)
    # the lines many times, so far apart that they do not know of each other, make as many draws of a fit
    wave, away = np.arange(5000.0, 5004.0, 0.04), 20.0 * np.arange(copies)
    axis = np.add.outer(away, wave).ravel() * u.AA
    start = VoigtForest1D(np.add.outer(away, CENTER).ravel() * u.AA,
                          *(np.tile(values, copies) * u.AA for values in (STRENGTH, FWHM_G, FWHM_L)))  # fmt: skip
    start.fixed["x_0"] = start.fixed["fwhm_G"] = start.fixed["fwhm_L"] = True
    flux, widths, errors = np.tile(np.exp(-depth(wave).sum(axis=1)), copies), [], []
    for _ in range(n):
        data = flux + noise * rng.standard_normal(flux.size)
        fitted = SparseLineFitter()(start, axis, data * u.one, weights=np.full(flux.size, 1 / noise))
        table = fitted.to_line_list()
        widths.append(u.Quantity(table["equivalent_width"]).to_value(u.AA).reshape(copies, 3))
        errors.append(u.Quantity(table["equivalent_width_err"]).to_value(u.AA).reshape(copies, 3))
    widths, errors = np.reshape(widths, (-1, 3)), np.reshape(errors, (-1, 3))
    np.testing.assert_array_less(np.abs(widths.mean(axis=0) - expected), 4 * errors.mean(axis=0) / np.sqrt(n * copies))
    ratio = widths.std(axis=0) / errors.mean(axis=0)  # known to 1 %: errors that are 10 % off are seen
    np.testing.assert_allclose(ratio, 1.0, atol=0.05)


def test_a_fitted_model_is_plain_numbers():
    wave = np.arange(5000.0, 5004.0, 0.04)
    fitted = SparseLineFitter()(forest(), wave * u.AA, np.exp(-depth(wave).sum(axis=1)) * u.one)
    content = pickle.dumps(fitted)
    assert b"torch" not in content
    for other in (pickle.loads(content), copy.deepcopy(fitted)):
        np.testing.assert_array_equal(other(wave * u.AA), fitted(wave * u.AA))
        np.testing.assert_array_equal(other.strength.std, fitted.strength.std)


def test_faddeeva_function_far_out():
    import torch

    x, y = np.meshgrid(np.logspace(5, 7, 41), [0.0, 1e-30, 1e-8, 1e-3, 1.0, 1e4])
    re, im = faddeeva(torch.from_numpy(x), torch.from_numpy(y))
    expected = wofz(x + 1j * y)
    np.testing.assert_allclose(im.numpy(), expected.imag, rtol=1e-12)
    np.testing.assert_allclose(re.numpy(), expected.real, rtol=1e-9, atol=1e-20)
