"""top_hat_continuum against brute force, and what must leave it alone."""

import numpy as np
import pytest
from astropy import constants
from astropy import units as u
from astropy.nddata import InverseVariance
from astropy.table import MaskedColumn
from astropy.utils.masked import Masked
from hypothesis import given
from hypothesis import strategies as st
from specutils import Spectrum, SpectrumList

from specutils_blase.errors import NoPixelsError
from specutils_blase.galaxy import top_hat_continuum
from specutils_blase.galaxy.continuum import BINS, EMISSION_LINES

UNIT = u.Unit("1e-17 erg / (s cm2 AA)")
HALF = 800.0 / constants.c.to_value("km/s")
WAVE = np.geomspace(3500.0, 9500.0, 4000)


def galaxy(flux=None, wave=WAVE, unit=UNIT, **options):
    flux = 2.0 + np.sin(wave / 300.0) if flux is None else flux
    return Spectrum(flux=flux * unit, spectral_axis=wave * u.AA, **options)


def in_windows(rest):
    return (np.abs(rest[:, None] / EMISSION_LINES - 1.0) < HALF).any(axis=1)


def brute_force(edges, flux, redshift, good=None):
    """The mean of what 200,000 points of each bin find, outside the windows."""
    good = np.ones(flux.size, dtype=bool) if good is None else good
    means = []
    for low, high in zip(BINS[:-1], BINS[1:], strict=True):
        rest = low + (np.arange(200_000) + 0.5) / 200_000 * (high - low)
        pixel = np.searchsorted(edges, rest * (1 + redshift)) - 1
        use = ~in_windows(rest)
        use[use] = good[pixel[use]]
        means.append(flux[pixel[use]].mean())
    return np.array(means)


@pytest.mark.parametrize("redshift", [0.05, 0.1234, 0.3])
def test_mean_of_the_parts_of_pixels_in_a_bin(redshift):
    edges = np.linspace(3400.0, 9400.0, 1501)
    flux = np.random.default_rng(1).normal(3.0, 1.0, 1500)
    good = np.random.default_rng(2).uniform(size=1500) > 0.1
    spectrum = galaxy(flux, (edges[1:] + edges[:-1]) / 2, mask=~good)
    ours = top_hat_continuum(spectrum, redshift)
    assert ours.shape == (1, 12) and ours.unit == UNIT
    np.testing.assert_allclose(ours.value[0], brute_force(edges, flux, redshift, good), rtol=2e-4)


@given(redshift=st.floats(0.03, 0.34), level=st.floats(1e-3, 1e3))
def test_a_constant_is_its_own_mean(redshift, level):
    np.testing.assert_allclose(top_hat_continuum(galaxy(np.full(WAVE.size, level)), redshift).value, level, rtol=1e-9)


def test_emission_lines_are_left_out():
    redshift, flux = 0.1, 2.0 + np.sin(WAVE / 300.0)
    lines = sum(50.0 * np.exp(-0.5 * ((WAVE / (1 + redshift) / line - 1) / (HALF / 5)) ** 2) for line in EMISSION_LINES)
    bare, bright = (top_hat_continuum(galaxy(values), redshift).value for values in (flux, flux + lines))
    np.testing.assert_allclose(bright, bare, rtol=2e-3)


def test_kinds_of_axis_flux_and_container():
    spectrum, z = galaxy(), 0.1
    expected = top_hat_continuum(spectrum, z).value[0]
    wave = spectrum.spectral_axis
    for other in (
        Spectrum(flux=spectrum.flux[::-1], spectral_axis=wave[::-1]),
        Spectrum(flux=spectrum.flux, spectral_axis=wave.to(u.nm)),
        Spectrum(flux=spectrum.flux.to(u.Jy, u.spectral_density(u.Quantity(wave))), spectral_axis=wave),
        Spectrum(flux=spectrum.flux.to("W / (m2 um)"), spectral_axis=wave),
    ):
        np.testing.assert_allclose(top_hat_continuum(other, z).value[0], expected, rtol=1e-9)
    rows = Spectrum(flux=np.stack([spectrum.flux, 2 * spectrum.flux]), spectral_axis=wave)
    for several in (rows, SpectrumList([spectrum, galaxy(2 * spectrum.flux.value)])):
        ours = top_hat_continuum(several, [z, z])
        np.testing.assert_allclose(ours.value, [expected, 2 * expected], rtol=1e-9)
    np.testing.assert_allclose(top_hat_continuum(rows, [z, 0.2]).value[0], expected)


def test_bins_that_are_not_covered_are_nan():
    assert np.isnan(top_hat_continuum(galaxy(), 0.0).value[0]).tolist() == [True] + [False] * 11
    assert np.isnan(top_hat_continuum(galaxy(), 0.4).value[0]).tolist() == [False] * 11 + [True]
    for share, is_nan in ((0.3, False), (0.6, True)):
        rest = WAVE / 1.1
        mask = (rest > 5200) & (rest < 5200 + share * 300)
        known = np.isfinite(top_hat_continuum(galaxy(mask=mask), 0.1).value[0])
        assert known.tolist() == [k != 6 or not is_nan for k in range(12)]


def test_a_galaxy_without_pixels():
    ivar = np.ones((2, WAVE.size))
    ivar[1] = 0.0
    rows = Spectrum(flux=np.ones((2, WAVE.size)) * UNIT, spectral_axis=WAVE * u.AA, uncertainty=InverseVariance(ivar))
    ours = top_hat_continuum(rows, 0.1)
    assert np.isfinite(ours[0]).all() and np.isnan(ours[1]).all()
    with pytest.raises(NoPixelsError):
        top_hat_continuum(galaxy(uncertainty=InverseVariance(ivar[1])), 0.1)


@pytest.mark.parametrize(("redshift", "error", "text"), [
    (None, TypeError, "redshift must be a number, or one for each galaxy, got None"),
    ("0.1", TypeError, "redshift must be a number"),
    (0.1 * u.km, TypeError, "redshift must be a number"),
    (-0.01, ValueError, "redshift must be finite and not negative, got -0.01"),
    (np.nan, ValueError, "redshift must be finite and not negative, got nan"),
    (np.ma.masked, ValueError, "redshift must be finite and not negative, got nan or a masked one"),
    (np.ma.array([0.1], mask=[True]), ValueError, "got nan or a masked one"),
    (MaskedColumn([0.1], mask=[True]), ValueError, "got nan or a masked one"),
    (Masked([0.1] * u.one, mask=[True]), ValueError, "got nan or a masked one"),
    (True, TypeError, "redshift must be a number"),
    (np.ma.array([True]), TypeError, "redshift must be a number"),
    (0.1 + 0j, TypeError, "redshift must be a number"),
    ([0.1, 0.2], ValueError, "redshift must have one value for each of 1 galaxies"),
])  # fmt: skip
def test_bad_redshifts(redshift, error, text):
    with pytest.raises(error, match=text):
        top_hat_continuum(galaxy(), redshift)


@pytest.mark.parametrize("redshift", [
    np.ma.array([0.1], mask=[False]), MaskedColumn([0.1]), MaskedColumn([10], unit="percent"), Masked([0.1] * u.one),
    np.float32(0.1), 0.1 * u.one, [0.1],
])  # fmt: skip
def test_kinds_of_redshifts(redshift):
    expected = top_hat_continuum(galaxy(), 0.1).value
    np.testing.assert_allclose(top_hat_continuum(galaxy(), redshift).value, expected, rtol=1e-5)


def test_cameras_of_galaxies_are_one_spectrum():
    """Two cameras that overlap, as those of DESI: each counts to the middle, in the middle of a pixel."""
    edges, z = np.linspace(3500.0, 8500.0, 2001), [0.05, 0.1]
    centers = (edges[1:] + edges[:-1]) / 2
    flux = 3.0 + np.random.default_rng(1).normal(size=(2, 2000))
    expected = top_hat_continuum(galaxy(flux, centers), z).value
    first, second = slice(0, 901), slice(800, 2000)  # 101 pixels overlap
    spoiled = flux.copy()
    spoiled[:, 800:850] = 1e6
    blue, red = galaxy(flux[:, first], centers[first]), galaxy(spoiled[:, second], centers[second])
    for cameras in ([blue, red], [red, blue], SpectrumList([blue, red])):
        np.testing.assert_allclose(top_hat_continuum(cameras, z).value, expected, rtol=1e-12)
    unlike = galaxy(flux[:, second] * 1e-3, centers[second], unit=UNIT * 1000)
    np.testing.assert_allclose(top_hat_continuum([blue, unlike], z).value, expected, rtol=1e-9)
    with pytest.raises(ValueError, match="spectrum must have the same galaxies in all cameras"):
        top_hat_continuum([blue, red[:1]], z)
    dark = galaxy(flux[:, second], centers[second], uncertainty=InverseVariance(np.zeros((2, 1200))))
    half = top_hat_continuum([blue, dark], z).value
    assert np.isfinite(half[:, :4]).all() and np.isnan(half[:, -1]).all()
    apart = top_hat_continuum([galaxy(flux[:, :900], centers[:900]), galaxy(flux[:, 1000:], centers[1000:])], z).value
    assert (np.isnan(apart).sum(axis=1) < 3).all()
    known = np.isfinite(apart)
    np.testing.assert_allclose(apart[known], expected[known], rtol=0.05)


@pytest.mark.parametrize("unit", [u.one, u.ct, u.erg / u.s, u.W / u.m**2])
def test_flux_must_be_a_density(unit):
    with pytest.raises(u.UnitsError, match="spectrum must have a flux density per wavelength or frequency"):
        top_hat_continuum(galaxy(unit=unit), 0.1)


def test_what_is_no_spectrum():
    with pytest.raises(TypeError, match="spectrum must be a Spectrum"):
        top_hat_continuum(np.ones(5), 0.1)


@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyWarning")
def test_a_real_galaxy(shared_data):
    spectrum = Spectrum.read(shared_data / "galaxy/sdss_firefly_spec-0266-51602-0001.fits", format="SDSS-III/IV spec")
    redshift = 0.021275
    ours = top_hat_continuum(spectrum, redshift).value[0]
    assert np.isnan(ours[0]) and np.isfinite(ours[2:]).all()
    rest, flux = spectrum.spectral_axis.to_value(u.AA) / (1 + redshift), spectrum.flux.to_value(UNIT)
    for k in range(2, 12):
        inside = (rest > BINS[k]) & (rest < BINS[k + 1]) & ~in_windows(rest)
        assert ours[k] == pytest.approx(flux[inside].mean(), rel=0.01)
