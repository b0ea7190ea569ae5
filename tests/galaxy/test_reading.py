"""Galaxies in every form that spectra come in, as the same arrays; and back."""

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import InverseVariance, StdDevUncertainty, UnknownUncertainty, VarianceUncertainty
from specutils import Spectrum, SpectrumCollection, SpectrumList
from specutils.utils.wcs_utils import vac_to_air

from specutils_blase import BandedLSF, GaussianLSF, ResolvingPower
from specutils_blase.errors import NoPixelsError
from specutils_blase.galaxy.reading import FEWEST, pixels_of, read_galaxies

UNIT = u.Unit("1e-17 erg / (s cm2 AA)")
WAVE = 4000.0 * 1.0003 ** np.arange(300)
N = 3


def arrays(seed=0):
    random = np.random.default_rng(seed)
    flux = random.normal(5.0, 1.0, (N, WAVE.size))
    ivar = random.uniform(0.5, 2.0, (N, WAVE.size))
    mask = random.random((N, WAVE.size)) < 0.05
    return flux, ivar, mask


FLUX, IVAR, MASK = arrays()
GOOD = ~MASK


def rows(flux=FLUX, ivar=IVAR, mask=MASK, wave=WAVE * u.AA, unit=UNIT, **keywords):
    return Spectrum(flux=flux * unit, spectral_axis=wave, uncertainty=InverseVariance(ivar, unit=unit**-2), mask=mask,
                    **keywords)  # fmt: skip


def one(k=0, **keywords):
    return rows(FLUX[k], IVAR[k], MASK[k], **keywords)


def only(galaxies):
    (group,) = galaxies.groups
    (camera,) = group.cameras
    return camera


def check(camera, chosen=slice(None), rtol=1e-12):
    np.testing.assert_allclose(camera.flux, np.where(MASK, 0.0, FLUX)[chosen], rtol=rtol)
    np.testing.assert_allclose(camera.ivar, np.where(MASK, 0.0, IVAR)[chosen], rtol=rtol)
    np.testing.assert_allclose(np.sqrt(camera.edges.prod(axis=1)), WAVE, rtol=1e-6)
    assert (camera.edges[1:, 0] == camera.edges[:-1, 1]).all()


def test_rows():
    galaxies = read_galaxies(rows())
    assert (galaxies.n, galaxies.kind) == (N, "rows")
    check(only(galaxies))
    assert only(galaxies).power is None and only(galaxies).bands is None


def test_one():
    galaxies = read_galaxies(one(1))
    assert (galaxies.n, galaxies.kind) == (1, "one")
    check(only(galaxies), slice(1, 2))


@pytest.mark.parametrize("kind", [list, tuple, SpectrumList])
def test_list(kind):
    galaxies = read_galaxies(kind([one(k) for k in range(N)]))
    assert (galaxies.n, galaxies.kind) == (N, "list")
    np.testing.assert_array_equal(galaxies.groups[0].numbers, np.arange(N))
    check(only(galaxies))


def test_collection():
    collection = SpectrumCollection(FLUX * UNIT, spectral_axis=np.tile(WAVE, (N, 1)) * u.AA,
                                    uncertainty=InverseVariance(IVAR, unit=UNIT**-2), mask=MASK)  # fmt: skip
    galaxies = read_galaxies(collection)
    assert galaxies.n == N
    check(only(galaxies))


def test_list_of_different_pixels():
    other = Spectrum(flux=FLUX[1, :200] * UNIT, spectral_axis=WAVE[:200] * u.AA,
                     uncertainty=InverseVariance(IVAR[1, :200]))  # fmt: skip
    galaxies = read_galaxies([one(0), other, one(2)])
    assert sorted(tuple(group.numbers) for group in galaxies.groups) == [(0, 2), (1,)]
    out = galaxies.spectra([[(camera.flux, camera.ivar == 0) for camera in group.cameras]
                            for group in galaxies.groups])  # fmt: skip
    assert type(out) is SpectrumList and [len(spectrum.flux) for spectrum in out] == [300, 200, 300]
    for k, some in enumerate(out):
        good = ~some.mask
        np.testing.assert_allclose(some.flux.value[good], FLUX[k, : len(good)][good], rtol=1e-12)


def test_cameras():
    red = rows(wave=WAVE * 1.08 * u.AA)
    galaxies = read_galaxies([rows(), red])
    assert (galaxies.n, galaxies.kind) == (N, "cameras")
    (group,) = galaxies.groups
    blue, red_arrays = group.cameras
    check(blue)
    np.testing.assert_allclose(red_arrays.edges, blue.edges * 1.08)
    out = galaxies.spectra([[(camera.flux, camera.ivar == 0) for camera in group.cameras]])
    assert type(out) is SpectrumList and [some.flux.shape for some in out] == [(N, 300)] * 2


@pytest.mark.parametrize("unit", ["erg / (s cm2 AA)", "W / (m2 um)", "Jy", "nJy", "erg / (s cm2 Hz)"])
def test_units_of_flux(unit):
    unit = u.Unit(unit)
    factor = (1.0 * UNIT).to_value(unit, u.spectral_density(WAVE * u.AA))
    galaxies = read_galaxies(rows(FLUX * factor, IVAR / factor**2, unit=unit))
    check(only(galaxies), rtol=1e-9)
    out = galaxies.spectra([[(only(galaxies).flux, MASK)]])
    assert out.flux.unit == unit
    np.testing.assert_allclose(out.flux.value[GOOD], (FLUX * factor)[GOOD], rtol=1e-9)


@pytest.mark.parametrize("kind", [StdDevUncertainty, VarianceUncertainty, InverseVariance])
@pytest.mark.parametrize("factor", [1.0, 1e-3])
def test_uncertainties_of_every_kind_and_unit(kind, factor):
    power = {StdDevUncertainty: 1, VarianceUncertainty: 2, InverseVariance: -2}[kind]
    values = IVAR ** (-power / 2)
    unit = (UNIT / factor) ** power
    uncertainty = kind(values * factor**power, unit=unit)
    spectrum = Spectrum(flux=FLUX * UNIT, spectral_axis=WAVE * u.AA, uncertainty=uncertainty, mask=MASK)
    check(only(read_galaxies(spectrum)), rtol=1e-9)


def test_descending_axis():
    galaxies = read_galaxies(rows(FLUX[:, ::-1], IVAR[:, ::-1], MASK[:, ::-1], WAVE[::-1] * u.AA))
    check(only(galaxies))
    out = galaxies.spectra([[(FLUX, MASK)]])
    np.testing.assert_array_equal(out.spectral_axis.value, WAVE[::-1])
    np.testing.assert_allclose(out.flux.value, FLUX[:, ::-1])
    np.testing.assert_array_equal(out.mask, MASK[:, ::-1])


@pytest.mark.parametrize("axis", [WAVE * 1e-4 * u.um, (WAVE * u.AA).to(u.nm), (WAVE * u.AA).to(u.THz, u.spectral())])
def test_units_of_the_axis(axis):
    check(only(read_galaxies(rows(wave=axis))))
    edges, wave, (is_reversed, _) = pixels_of(rows(wave=axis))
    np.testing.assert_allclose(wave, WAVE)
    assert edges.shape == (300, 2) and not is_reversed


def test_air():
    air = vac_to_air(WAVE * u.AA, method="Ciddor1996")
    galaxies = read_galaxies(rows(wave=air, meta={"wavelength_medium": "air"}))
    camera = only(galaxies)
    np.testing.assert_allclose(camera.edges.mean(axis=1), WAVE, rtol=2e-7)
    check(camera)
    assert galaxies.spectra([[(FLUX, MASK)]]).meta["wavelength_medium"] == "air"


def test_pixels_that_cannot_be_used():
    flux, ivar = FLUX.copy(), IVAR.copy()
    flux[0, 3], ivar[0, 4], ivar[0, 5], ivar[0, 6] = np.nan, np.nan, np.inf, 0.0
    camera = only(read_galaxies(rows(flux, ivar)))
    assert (camera.ivar[0, 3:7] == 0).all() and np.isfinite(camera.flux).all() and np.isfinite(camera.ivar).all()
    np.testing.assert_array_equal(camera.ivar[1:] > 0, GOOD[1:])
    sigma = StdDevUncertainty(np.where(np.arange(300) == 7, 0.0, IVAR**-0.5))
    camera = only(read_galaxies(Spectrum(flux=FLUX * UNIT, spectral_axis=WAVE * u.AA, uncertainty=sigma)))
    assert (camera.ivar[:, 7] == 0).all() and (np.delete(camera.ivar, 7, axis=1) > 0).all()


def test_line_spread_functions():
    assert only(read_galaxies(rows(), ResolvingPower(1500.0))).power == pytest.approx(np.full(300, 1500.0))
    assert only(read_galaxies(rows(), 1800.0)).power == pytest.approx(np.full(300, 1800.0))
    curve = only(read_galaxies(rows(), GaussianLSF(fwhm=1.0 * u.AA))).power
    np.testing.assert_allclose(curve, WAVE / 1.0, rtol=1e-9)
    bands = np.random.default_rng(1).random((5, 300))
    camera = only(read_galaxies(rows(), BandedLSF(bands)))
    assert camera.power is None and camera.bands.shape == (N, 5, 300)
    np.testing.assert_array_equal(camera.bands[2], bands)


def test_resolution_matrices_of_the_loader():
    bands = np.random.default_rng(1).random((N, 5, 300))
    galaxies = read_galaxies(rows(meta={"resolution_data": bands}))
    np.testing.assert_array_equal(only(galaxies).bands, bands)
    assert "resolution_data" not in galaxies.spectra([[(FLUX, MASK)]]).meta
    np.testing.assert_array_equal(only(read_galaxies(one(meta={"resolution_data": bands[0]}))).bands, bands[:1])
    listed = read_galaxies([one(k, meta={"resolution_data": bands[k]}) for k in range(N)])
    np.testing.assert_array_equal(only(listed).bands, bands)
    # What is given explicitly goes first.
    assert only(read_galaxies(rows(meta={"resolution_data": bands}), 2000.0)).bands is None


def test_resolution_matrices_run_with_the_wavelengths():
    # An axis that runs down: the columns of its matrix are those of its pixels.
    bands = np.random.default_rng(1).random((N, 5, 300))
    turned = rows(FLUX[:, ::-1], IVAR[:, ::-1], MASK[:, ::-1], WAVE[::-1] * u.AA,
                  meta={"resolution_data": bands[:, ::-1, ::-1]})  # fmt: skip
    np.testing.assert_array_equal(only(read_galaxies(turned)).bands, bands)


def test_one_lsf_for_each_camera():
    galaxies = read_galaxies([rows(), rows()], [1500.0, 2500.0])
    assert [camera.power[0] for camera in galaxies.groups[0].cameras] == [1500.0, 2500.0]
    with pytest.raises(ValueError, match="lsf must have one for each of 2 cameras, got 3"):
        read_galaxies([rows(), rows()], [1500.0, 2500.0, 3000.0])


@pytest.mark.parametrize(("spectrum", "error", "message"), [
    (Spectrum(flux=FLUX * UNIT, spectral_axis=WAVE * u.AA), ValueError, "spectrum must have uncertainties"),
    (Spectrum(flux=FLUX * UNIT, spectral_axis=WAVE * u.AA, uncertainty=UnknownUncertainty(IVAR)), ValueError,
     "spectrum must have uncertainties"),
    (rows(ivar=-IVAR), ValueError, "spectrum must have uncertainties that are not negative, got -"),
    (Spectrum(flux=FLUX * UNIT, spectral_axis=WAVE * u.AA, uncertainty=StdDevUncertainty(-FLUX)), ValueError,
     "spectrum must have uncertainties that are not negative, got -"),
    (rows(ivar=0.0 * IVAR), NoPixelsError, f"at least {FEWEST} pixels .* got 0 in galaxy number 0"),
    (rows(mask=np.arange(300) > np.array([[300], [50], [300]])), NoPixelsError, "got 51 in galaxy number 1"),
    (rows(unit=u.K), u.UnitsError, "flux density per wavelength or frequency, got the unit 'K'"),
    (rows(unit=u.erg / u.s / u.cm**2), u.UnitsError, "flux density per wavelength or frequency, got the unit 'erg"),
    (rows(unit=u.one), u.UnitsError, "flux density"),
    (rows(unit=u.erg / u.s / u.AA), u.UnitsError, "flux density"),
    (rows(wave=np.arange(300) * u.pix), u.UnitsError, "spectrum"),
    (FLUX, TypeError, "spectrum must be a Spectrum, a SpectrumCollection, a SpectrumList or a list of Spectrum"),
    ([], NoPixelsError, "hold spectra"),
    ([one(), "two"], TypeError, r"spectrum\[1\] must be a specutils Spectrum, got str"),
    ([one(), rows()], ValueError, r"spectrum\[1\] must have one dimension, or all of the list two"),
    ([rows(), rows(FLUX[:2], IVAR[:2], MASK[:2])], ValueError, r"the same galaxies in all cameras, got \[3, 2\] rows"),
    (rows(meta={"resolution_data": np.ones((N, 5, 299))}), ValueError, r"shape \(3, n_diag, 300\), got \(3, 5, 299\)"),
    (Spectrum(flux=np.ones((2, 2, 300)) * UNIT, spectral_axis=WAVE * u.AA,
              uncertainty=InverseVariance(np.ones((2, 2, 300)))), ValueError, "spectrum must have one or two"),
])  # fmt: skip
def test_bad_input(spectrum, error, message):
    with pytest.raises(error, match=message):
        read_galaxies(spectrum)


def test_a_matrix_for_other_pixels():
    with pytest.raises(ValueError, match="lsf must have 300 pixels, and the diagonals 2 to -2, got 299"):
        read_galaxies(rows(), BandedLSF(np.ones((5, 299))))


def test_the_name_is_that_of_the_argument():
    with pytest.raises(ValueError, match=r"spectra\[1\] must have uncertainties"):
        read_galaxies([one(), Spectrum(flux=FLUX[0] * UNIT, spectral_axis=WAVE * u.AA)], None, "spectra")
