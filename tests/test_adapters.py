"""The boundary: every way of holding the same spectrum gives the same arrays, and bad input is told apart and named.

The truth is the arrays below and the textbook relations between wavelength, frequency, energy and velocity, not the
conversions of astropy.
"""

import inspect
import time
import warnings

import numpy as np
import pytest
import torch
from astropy import units as u
from astropy.io import fits
from astropy.nddata import InverseVariance, StdDevUncertainty, UnknownUncertainty, VarianceUncertainty
from astropy.table import QTable
from astropy.utils.exceptions import AstropyDeprecationWarning
from astropy.utils.masked import Masked
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from specutils import SpectralAxis, SpectralRegion, Spectrum, Spectrum1D, SpectrumList
from specutils.manipulation import extract_region

from specutils_blase.adapters import (
    misread_wavelengths,
    quantity_value,
    read_spectrum,
    region_mask,
    resolve_device,
    spectrum_from_wave,
    wavelength_values,
)
from specutils_blase.conf import conf
from specutils_blase.errors import BlaseWarning

RTOL = 1e-12
N_PIX = 40
# Steps of 1/16 and 1/8 Angstrom: exact in float32, and not uniform, so that an error of order shows.
WAVE = 8600.0 + np.cumsum(np.where(np.arange(N_PIX) < 25, 1 / 16, 5 / 64))
FLUX = 3.0 + np.arange(N_PIX) / 8
SIGMA = 0.25 + np.arange(N_PIX) / 64

C_ANGSTROM_THZ = 2_997_924.58  # c = 299 792 458 m/s
HC_EV_ANGSTROM = 12_398.419_843_320_026  # h c / e, exact constants of the SI
SPEED_OF_LIGHT = 299_792.458  # km/s


def midpoint_edges(wave):
    """Edges by the definition, one pixel at a time."""
    edges = np.empty((len(wave), 2))
    for i in range(len(wave)):
        edges[i, 0] = (wave[i - 1] + wave[i]) / 2 if i else wave[0] - (wave[1] - wave[0]) / 2
        edges[i, 1] = (wave[i] + wave[i + 1]) / 2 if i < len(wave) - 1 else wave[-1] + (wave[-1] - wave[-2]) / 2
    return edges


def assert_is_truth(arrays, rtol=RTOL):
    np.testing.assert_allclose(arrays.wave, WAVE, rtol=rtol)
    np.testing.assert_allclose(arrays.edges, midpoint_edges(WAVE), rtol=rtol)
    np.testing.assert_allclose(arrays.flux, FLUX, rtol=rtol)
    np.testing.assert_allclose(arrays.sigma, SIGMA, rtol=rtol)
    assert arrays.good.all()
    assert arrays.n_ignored == 0


def make(axis=WAVE * u.AA, flux=FLUX * u.Jy, uncertainty=None, **kwargs):
    return Spectrum(spectral_axis=axis, flux=flux, uncertainty=uncertainty, **kwargs)


# name, values of the axis for increasing wavelength, unit, whether the axis then runs upwards
AXES = {
    "Angstrom": (lambda w: w, u.AA, True),
    "nm": (lambda w: w / 10, u.nm, True),
    "micron": (lambda w: w / 1e4, u.um, True),
    "THz": (lambda w: C_ANGSTROM_THZ / w, u.THz, False),
    "eV": (lambda w: HC_EV_ANGSTROM / w, u.eV, False),
    "1/cm": (lambda w: 1e8 / w, 1 / u.cm, False),
}


# ---------------------------------------------------------------------------------------------------- the same answer


@pytest.mark.parametrize("is_decreasing", [False, True], ids=["up", "down"])
@pytest.mark.parametrize("name", AXES)
def test_any_unit_and_direction(name, is_decreasing):
    convert, unit, runs_up = AXES[name]
    is_flipped = runs_up == is_decreasing
    order = slice(None, None, -1 if is_flipped else 1)
    spectrum = make(convert(WAVE[order]) * unit, FLUX[order] * u.Jy, StdDevUncertainty(SIGMA[order]))
    arrays = read_spectrum(spectrum)
    assert_is_truth(arrays)
    assert arrays.is_reversed == is_flipped
    assert (arrays.flux_unit, arrays.medium, arrays.source) == (u.Jy, "vacuum", spectrum)


@pytest.mark.parametrize("is_decreasing", [False, True], ids=["up", "down"])
@pytest.mark.parametrize("name", AXES)
def test_given_edges_are_used(name, is_decreasing):
    rng = np.random.default_rng(1)
    bounds = 8600 + np.cumsum(rng.uniform(0.5, 2.0, N_PIX + 1))  # pixels of widely different width
    convert, unit, runs_up = AXES[name]
    order = slice(None, None, -1 if runs_up == is_decreasing else 1)
    spectrum = make(convert(bounds[order]) * unit, FLUX[order] * u.Jy, StdDevUncertainty(SIGMA[order]))
    arrays = read_spectrum(spectrum)
    np.testing.assert_allclose(arrays.edges[:, 0], bounds[:-1], rtol=RTOL)
    np.testing.assert_allclose(arrays.edges[:, 1], bounds[1:], rtol=RTOL)
    np.testing.assert_allclose(arrays.wave, (bounds[1:] + bounds[:-1]) / 2, rtol=RTOL)
    np.testing.assert_array_equal(arrays.flux, FLUX)
    if name == "Angstrom":
        np.testing.assert_array_equal(arrays.edges[:, 1], bounds[1:])  # to the last bit


def test_edges_as_numbers_beside_a_unit():
    bounds = np.linspace(860, 861, N_PIX + 1)
    axis = SpectralAxis(bounds, unit=u.nm, bin_specification="edges")  # keeps its edges as a bare array
    np.testing.assert_allclose(read_spectrum(make(axis)).edges[:, 0], bounds[:-1] * 10, rtol=RTOL)


def test_single_pixel_with_edges():
    arrays = read_spectrum(Spectrum(flux=[2.0] * u.Jy, spectral_axis=[8602.0, 8601.0] * u.AA))
    np.testing.assert_array_equal(arrays.edges, [[8601.0, 8602.0]])
    np.testing.assert_array_equal(arrays.wave, [8601.5])


def test_no_pixel_swallows_a_gap():
    wave = np.concatenate([WAVE[:25], WAVE[:25] + 50])
    edges = read_spectrum(make(wave * u.AA, np.ones(50) * u.Jy)).edges
    np.testing.assert_allclose(np.diff(edges, axis=1)[:, 0], 1 / 16, rtol=1e-9)


def edges_from_centres(wave):
    """The definition in the docstring of the adapter, one spacing and one pixel at a time."""
    spacing = [right - left for left, right in zip(wave, wave[1:], strict=False)]
    end, n = len(spacing) - 1, len(wave)
    width, is_gap = list(spacing), [False] * len(spacing)
    for i, value in enumerate(spacing):
        before, after = spacing[max(i - 10, 0) : i], spacing[i + 1 : i + 11]
        before = before or spacing[1:4]  # the ends of the axis have one side only
        after = after or spacing[max(end - 3, 0) : end]
        if before and after:
            typical = max(min(before), min(after))
            is_gap[i] = value > 1.8 * typical
            width[i] = typical if is_gap[i] else value
    edges = np.empty((n, 2))
    for i, centre in enumerate(wave):
        left, right = max(i - 1, 0), min(i, end)  # the spacings on both sides of the pixel
        edges[i, 0] = centre - (width[right] if i > 0 and is_gap[left] else width[left]) / 2
        edges[i, 1] = centre + (width[left] if i < n - 1 and is_gap[right] else width[right]) / 2
    return edges


def read_edges(wave):
    return read_spectrum(make(wave * u.AA, np.ones(len(wave)) * u.Jy)).edges


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.sampled_from([0.5, 1.0, 1.5, 2.0, 20.0, 33.0]), st.integers(1, 14)), min_size=1, max_size=8)
)
def test_edges_are_those_of_the_definition(runs):
    wave = 5000 + np.append(0.0, np.cumsum(np.repeat([width for width, _ in runs], [count for _, count in runs])))
    np.testing.assert_allclose(read_edges(wave), edges_from_centres(wave), rtol=1e-14)


@pytest.mark.parametrize("is_missing", [lambda i: i % 2 == 1, lambda i: i % 3 == 1, lambda i: i % 4 >= 2], ids=range(3))
@pytest.mark.parametrize("side", [11, 12])
def test_pixels_removed_one_after_the_other_leave_the_others_as_wide_as_they_were(is_missing, side):
    """Up to ten spacings in a row show no true one; from there on it is another binning as well as it is gaps."""
    wave = 5000 + np.arange(side + 18 + side)
    kept = np.array([not (side <= i < side + 18 and is_missing(i - side)) for i in range(wave.size)])
    edges = read_edges(wave[kept])
    np.testing.assert_allclose(edges, np.stack([wave[kept] - 0.5, wave[kept] + 0.5], axis=1), rtol=1e-14)


def test_half_of_the_pixels_removed_at_random():
    wave = 5000 + np.arange(20_000)
    kept = wave[np.random.default_rng(0).random(wave.size) > 0.5]
    width = np.diff(read_edges(kept), axis=1)[:, 0]
    # for a wrong one all ten spacings must be wide on one of two sides of one of two edges
    assert np.mean(width != 1) < 4 * 2**-10


@pytest.mark.parametrize("ratio", [1.7, 3.0])
@pytest.mark.parametrize("is_flipped", [False, True])
def test_a_spacing_that_changes_for_good_is_no_gap(ratio, is_flipped):
    spacing = np.repeat([1.0, ratio], 20)
    edges = read_edges(5000 + np.cumsum(spacing[::-1] if is_flipped else spacing))
    np.testing.assert_array_equal(edges[1:, 0], edges[:-1, 1])


def test_the_coarsest_logarithmic_axis_has_no_gaps():
    edges = read_edges(np.geomspace(1000, 30_000, 30))
    np.testing.assert_array_equal(edges[1:, 0], edges[:-1, 1])


@pytest.mark.parametrize("wave", [[1.0, 3.0], [1.0, 2.0, 4.0], [1.0, 3.0, 4.0], [1.0, 2.0, 30.0, 31.0]])
def test_edges_of_the_smallest_spectra(wave):
    edges = read_edges(np.array(wave))
    smallest = min(np.diff(wave))
    np.testing.assert_array_equal(edges, np.stack([wave, wave], axis=1) + np.array([-0.5, 0.5]) * smallest)


@pytest.mark.parametrize(
    ("convention", "velocity"),
    [
        ("optical", lambda ratio: SPEED_OF_LIGHT * (ratio - 1)),
        ("radio", lambda ratio: SPEED_OF_LIGHT * (1 - 1 / ratio)),
        ("relativistic", lambda ratio: SPEED_OF_LIGHT * (ratio**2 - 1) / (ratio**2 + 1)),
    ],
)
def test_velocity_axis_with_rest_value(convention, velocity):
    axis = velocity(WAVE / 8601.0) * u.km / u.s
    spectrum = make(axis, uncertainty=StdDevUncertainty(SIGMA), rest_value=8601 * u.AA, velocity_convention=convention)
    assert_is_truth(read_spectrum(spectrum), rtol=1e-10)


def big_endian(array):
    return array.astype(">f8")


def float32(array):
    return array.astype(np.float32)


def big_endian_float32(array):
    return array.astype(">f4")


def read_only(array):
    array = array.copy()
    array.setflags(write=False)
    return array


def strided(array):
    return np.repeat(array, 3)[::3]


def reversed_view(array):
    return array[::-1].copy()[::-1]


@pytest.mark.parametrize("store", [big_endian, float32, big_endian_float32, read_only, strided, reversed_view])
def test_any_storage(store):
    flux = u.Quantity(store(FLUX), u.Jy, copy=False)
    spectrum = make(u.Quantity(store(WAVE), u.AA, copy=False), flux, StdDevUncertainty(store(SIGMA), copy=False))
    arrays = read_spectrum(spectrum)
    assert_is_truth(arrays)
    for array in (arrays.wave, arrays.edges, arrays.flux, arrays.sigma, arrays.good):
        assert torch.from_numpy(array).numel() == array.size  # native byte order, positive strides
        assert array.flags.writeable
        assert array.flags.c_contiguous


def test_broadcast_and_integer_flux():
    flux = u.Quantity(np.broadcast_to(7, N_PIX), u.ct, copy=False, dtype=None)
    np.testing.assert_array_equal(read_spectrum(make(flux=flux)).flux, np.full(N_PIX, 7.0))


def test_input_is_never_touched():
    spectrum = make(WAVE[::-1] * u.AA, uncertainty=InverseVariance(np.zeros(N_PIX) + np.eye(N_PIX)[0]))
    with pytest.warns(BlaseWarning):
        arrays = read_spectrum(spectrum)
    for array in (arrays.wave, arrays.edges, arrays.flux, arrays.sigma, arrays.good):
        array[:] = 0
    np.testing.assert_array_equal(spectrum.spectral_axis.value, WAVE[::-1])
    np.testing.assert_array_equal(spectrum.flux.value, FLUX)
    np.testing.assert_array_equal(spectrum.uncertainty.array, np.eye(N_PIX)[0])
    assert spectrum.mask is None


class InstrumentSpectrum(Spectrum):
    """As packages for one instrument define them."""


def test_any_kind_of_spectrum():
    for kind in (InstrumentSpectrum, Spectrum1D):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyDeprecationWarning)  # Spectrum1D warns when it is made
            spectrum = kind(spectral_axis=WAVE * u.AA, flux=FLUX * u.Jy, uncertainty=StdDevUncertainty(SIGMA))
        arrays = read_spectrum(spectrum)
        assert_is_truth(arrays)
        assert type(arrays.to_spectrum(FLUX)) is Spectrum


def test_stored_redshift_is_not_applied():
    assert_is_truth(read_spectrum(make(uncertainty=StdDevUncertainty(SIGMA), redshift=0.1)))


# ------------------------------------------------------------------------------------------------------ uncertainties


@pytest.mark.parametrize("unit", [u.Jy, u.mJy, None], ids=str)
@pytest.mark.parametrize(
    ("kind", "power"),
    [(StdDevUncertainty, 1), (VarianceUncertainty, 2), (InverseVariance, -2)],
    ids=["std", "var", "ivar"],
)
def test_uncertainty_of_any_kind_and_unit(kind, power, unit):
    scale = 1.0 if unit is None else (1 * u.Jy).to_value(unit)
    spectrum = make(uncertainty=kind((SIGMA * scale) ** power, unit=None if unit is None else unit**power))
    assert_is_truth(read_spectrum(spectrum))


def test_dimensionless_flux():
    arrays = read_spectrum(make(flux=FLUX * u.one, uncertainty=InverseVariance(SIGMA**-2)))
    assert_is_truth(arrays)
    assert arrays.flux_unit == u.one


def test_unknown_uncertainty_is_not_used_and_told():
    spectrum = make(uncertainty=UnknownUncertainty(SIGMA))
    with pytest.warns(BlaseWarning, match="^star has an uncertainty of unknown type .* wrap it in"):
        arrays = read_spectrum(spectrum, "star")
    assert arrays.sigma is None
    assert arrays.good.all()
    assert read_spectrum(spectrum, weights=None).sigma is None  # nothing to tell: it was not asked for


def test_without_weights():
    assert read_spectrum(make()).sigma is None
    assert read_spectrum(make(uncertainty=StdDevUncertainty(SIGMA)), weights=None).sigma is None


@pytest.mark.parametrize(
    "weights", [1 / SIGMA, list(1 / SIGMA), 1e-3 / SIGMA / u.mJy], ids=["array", "list", "Quantity"]
)
def test_explicit_weights_are_inverse_sigma(weights):
    spectrum = make(uncertainty=StdDevUncertainty(np.full(N_PIX, 99.0)))
    assert_is_truth(read_spectrum(spectrum, weights=weights))


def test_explicit_weights_follow_the_order_of_the_input():
    spectrum = make(WAVE[::-1] * u.AA, FLUX[::-1] * u.Jy)
    assert_is_truth(read_spectrum(spectrum, weights=1 / SIGMA[::-1]))


# --------------------------------------------------------------------------------------------------------- bad pixels


def with_bad_pixels():
    """Every kind of bad pixel, once each, with the pixels they sit in."""
    flux, ivar, mask = FLUX.copy(), SIGMA**-2, np.zeros(N_PIX, dtype=int)
    flux[[2, 6, 10]] = np.nan, np.inf, -np.inf
    mask[[14, 18]] = 1, 2  # bits of a data quality flag
    ivar[[22, 26, 30, 34]] = 0.0, np.nan, np.inf, -1.0
    return flux, ivar, mask, [2, 6, 10, 14, 18, 22, 26, 30, 34]


@pytest.mark.parametrize("is_decreasing", [False, True], ids=["up", "down"])
def test_bad_pixels_are_ignored_counted_and_told_once(is_decreasing):
    order = slice(None, None, -1 if is_decreasing else 1)
    flux, ivar, mask, bad = with_bad_pixels()
    spectrum = make(
        WAVE[order] * u.AA, flux[order] * u.Jy, InverseVariance(ivar[order], unit=u.Jy**-2), mask=mask[order]
    )
    with pytest.warns() as record:
        arrays = read_spectrum(spectrum, "observed")
    assert [w.category for w in record] == [BlaseWarning]  # no RuntimeWarning of numpy either
    assert str(record[0].message).startswith("observed: 9 of 40 pixels are ignored (flux not finite: 3, masked: 2, ")
    assert "no finite positive uncertainty: 4" in str(record[0].message)
    np.testing.assert_array_equal(np.flatnonzero(~arrays.good), bad)
    assert arrays.n_ignored == 9
    assert np.isinf(arrays.sigma[bad]).all()
    np.testing.assert_allclose(arrays.sigma[arrays.good], SIGMA[arrays.good], rtol=RTOL)


def test_a_pixel_that_is_bad_in_many_ways_counts_once():
    flux, sigma, mask = FLUX.copy(), SIGMA.copy(), np.zeros(N_PIX, dtype=bool)
    flux[[3, 4]], sigma[[3, 4, 7]], mask[[4, 7, 9, 10]] = np.nan, np.nan, True
    with pytest.warns(BlaseWarning) as record:
        arrays = read_spectrum(make(flux=flux * u.Jy, uncertainty=StdDevUncertainty(sigma), mask=mask))
    counts = "5 of 40 pixels are ignored (flux not finite: 2, masked: 3, no finite positive uncertainty: 0)"
    assert counts in str(record[0].message)
    assert arrays.n_ignored == 5


@pytest.mark.parametrize("kwargs", [{"mask": WAVE == WAVE[3]}, {"uncertainty": UnknownUncertainty(SIGMA)}])
def test_warning_points_at_the_caller_of_the_verb(kwargs):
    def verb(spectrum):
        return read_spectrum(spectrum)

    with pytest.warns(BlaseWarning) as record:
        line = inspect.currentframe().f_lineno + 1
        verb(make(**kwargs))
    assert (record[0].filename, record[0].lineno) == (__file__, line)


def test_bad_pixels_are_the_same_as_removed_ones():
    wave = 8600 + np.arange(N_PIX) / 16
    flux, ivar, mask, bad = with_bad_pixels()
    with pytest.warns(BlaseWarning, match="9 of 40"):
        kept = read_spectrum(make(wave * u.AA, flux * u.Jy, InverseVariance(ivar), mask=mask))
    removed = read_spectrum(
        make(np.delete(wave, bad) * u.AA, np.delete(flux, bad) * u.Jy, InverseVariance(np.delete(ivar, bad)))
    )
    for name in ("wave", "edges", "flux", "sigma"):
        np.testing.assert_allclose(getattr(kept, name)[kept.good], getattr(removed, name), rtol=RTOL)


@pytest.mark.parametrize("kind", [StdDevUncertainty, VarianceUncertainty, InverseVariance])
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("weights", ["unc", None, "array"])
def test_useless_uncertainty_excludes_whatever_the_weights(kind, value, weights):
    values = np.ones(N_PIX)
    values[4] = value
    with pytest.warns(BlaseWarning, match="1 of 40 pixels"):
        arrays = read_spectrum(make(uncertainty=kind(values)), weights=1 / SIGMA if weights == "array" else weights)
    np.testing.assert_array_equal(np.flatnonzero(~arrays.good), [4])
    assert weights is None or np.isinf(arrays.sigma[4])


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -1.0])
def test_useless_weight_excludes(value):
    weights = 1 / SIGMA
    weights[4] = value
    with pytest.warns(BlaseWarning, match="1 of 40 pixels"):
        arrays = read_spectrum(make(), weights=weights)
    np.testing.assert_array_equal(np.flatnonzero(~arrays.good), [4])


def test_only_bad_pixels_of_the_window_count():
    flux, ivar, mask, _ = with_bad_pixels()
    spectrum = make(flux=flux * u.Jy, uncertainty=InverseVariance(ivar), mask=mask)
    with pytest.warns(BlaseWarning, match=r"2 of 5 pixels are ignored \(flux not finite: 0, masked: 2"):
        arrays = read_spectrum(spectrum, window=(WAVE[14] * u.AA, WAVE[18] * u.AA))
    assert arrays.n_ignored == 2
    np.testing.assert_array_equal(np.flatnonzero(arrays.good), [15, 16, 17])
    outside = SpectralRegion(WAVE[0] * u.AA, WAVE[35] * u.AA)
    assert read_spectrum(spectrum, exclude_regions=outside).n_ignored == 0  # no warning either


def test_masked_quantity_column():
    flux = Masked(FLUX * u.Jy, mask=np.arange(N_PIX) == 3)
    with pytest.warns(BlaseWarning, match="masked: 1"):
        arrays = read_spectrum(make(flux=flux))
    assert not arrays.good[3]


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"mask": np.ones(N_PIX, dtype=bool)}, "masked: 40"),
        ({"flux": np.full(N_PIX, np.nan) * u.Jy}, "flux not finite: 40"),
        ({"uncertainty": InverseVariance(np.zeros(N_PIX))}, "no finite positive uncertainty: 40"),
    ],
)
def test_nothing_left(kwargs, text):
    with pytest.raises(ValueError, match=f"^observed must have pixels to use, got 40 pixels .*{text}.*; check"):
        read_spectrum(make(**kwargs), "observed")


def test_real_echelle_order(shared_data):
    table = QTable.read(shared_data / "echelle" / "wasp69_hpf_order5.fits")
    flux, sigma = (np.ma.filled(table[name].data, np.nan) for name in ("flux", "uncertainty"))
    spectrum = Spectrum(flux=flux * u.one, spectral_axis=table["wavelength"], uncertainty=StdDevUncertainty(sigma))
    with pytest.warns(BlaseWarning, match="26 of 2048 pixels"):
        arrays = read_spectrum(spectrum)
    assert arrays.good.sum() == 2022
    width = np.diff(arrays.edges, axis=1)
    assert 0.02 < width.min() <= width.max() < 0.08


# ------------------------------------------------------------------------------------------- windows and exclusions

REGIONS = {
    "Angstrom": SpectralRegion(8600.49 * u.AA, 8601.51 * u.AA),
    "nm": SpectralRegion(860.049 * u.nm, 860.151 * u.nm),
    "THz": SpectralRegion(348.54 * u.THz, 348.57 * u.THz),
    "from a centre in THz": SpectralRegion.from_center(348.55 * u.THz, 0.03 * u.THz),  # upper bound first
    "two": SpectralRegion([(8600.2 * u.AA, 8600.6 * u.AA), (8601.3 * u.AA, 8602.01 * u.AA)]),
    "beyond the lower end": SpectralRegion(8000 * u.AA, 8600.6 * u.AA),
    "beyond the upper end": SpectralRegion(8601.33 * u.AA, 9000 * u.AA),
}


@pytest.mark.parametrize("axis", [WAVE * u.AA, WAVE[::-1] * u.AA, WAVE / 10 * u.nm, C_ANGSTROM_THZ / WAVE * u.THz])
@pytest.mark.parametrize("name", REGIONS)
def test_window_is_that_of_specutils(axis, name):
    spectrum = Spectrum(spectral_axis=axis, flux=np.arange(N_PIX) * u.Jy)
    extracted = extract_region(spectrum, REGIONS[name])
    parts = extracted if isinstance(extracted, list) else [extracted]
    expected = np.concatenate([part.flux.value for part in parts])
    arrays = read_spectrum(spectrum, window=REGIONS[name])
    assert 0 < len(expected) < N_PIX
    np.testing.assert_array_equal(np.sort(arrays.flux[arrays.good]), np.sort(expected))


@pytest.mark.parametrize(
    "window", [SpectralRegion(-15 * u.km / u.s, 20 * u.km / u.s), SpectralRegion(3.4 * u.pix, 7.2 * u.pix)]
)
@pytest.mark.parametrize("radial_velocity", [None, 8 * u.km / u.s], ids=str)
def test_window_in_velocity_and_pixels_is_that_of_specutils(window, radial_velocity):
    spectrum = Spectrum(
        spectral_axis=WAVE * u.AA,
        flux=np.arange(N_PIX) * u.Jy,
        rest_value=8601.03 * u.AA,
        velocity_convention="optical",
        radial_velocity=radial_velocity,
    )
    expected = extract_region(spectrum, window).flux.value
    arrays = read_spectrum(spectrum, window=window)
    assert 0 < len(expected) < N_PIX
    np.testing.assert_array_equal(arrays.flux[arrays.good], expected)


def test_window_in_velocity_on_a_velocity_axis_is_that_of_specutils():
    # the axis as it stands: the stored radial velocity is not added here
    axis = np.arange(N_PIX) * u.km / u.s
    rest = {"rest_value": 8600 * u.AA, "velocity_convention": "optical", "radial_velocity": 8 * u.km / u.s}
    spectrum = Spectrum(spectral_axis=axis, flux=np.arange(N_PIX) * u.Jy, **rest)
    window = SpectralRegion(4500 * u.m / u.s, 9500 * u.m / u.s)
    arrays = read_spectrum(spectrum, window=window)
    np.testing.assert_array_equal(arrays.flux[arrays.good], [5, 6, 7, 8, 9])
    np.testing.assert_array_equal(extract_region(spectrum, window).flux.value, [5, 6, 7, 8, 9])


@pytest.mark.parametrize(
    "window",
    [
        (WAVE[10] * u.AA, WAVE[20] * u.AA),
        [WAVE[10], WAVE[20]] * u.AA,
        (WAVE[20] * u.AA, WAVE[10] * u.AA),
        SpectralRegion(WAVE[10] * u.AA, WAVE[20] * u.AA),
        (WAVE[10] / 10 * u.nm, WAVE[20] * u.AA),
        SpectralRegion(C_ANGSTROM_THZ / WAVE[20] * u.THz, C_ANGSTROM_THZ / WAVE[10] * u.THz),
    ],
    ids=["tuple", "Quantity", "downwards", "SpectralRegion", "two units", "THz"],
)
@pytest.mark.parametrize("name", AXES)
def test_window_on_pixels_keeps_both_ends_in_any_unit(name, window):
    convert, unit, _ = AXES[name]
    arrays = read_spectrum(make(convert(WAVE) * unit), window=window)
    np.testing.assert_array_equal(np.flatnonzero(arrays.good), np.arange(10, 21))


@pytest.mark.parametrize("name", AXES)
def test_exclusion_on_pixels_drops_the_lower_end_only_in_any_unit(name):
    convert, unit, _ = AXES[name]
    spectrum = make(convert(WAVE) * unit)
    region = SpectralRegion(WAVE[10] * u.AA, WAVE[20] * u.AA)
    arrays = read_spectrum(spectrum, exclude_regions=region)
    np.testing.assert_array_equal(np.flatnonzero(~arrays.good), np.arange(10, 20))
    # the lower frequency is the longer wavelength
    region = SpectralRegion(C_ANGSTROM_THZ / WAVE[20] * u.THz, C_ANGSTROM_THZ / WAVE[10] * u.THz)
    arrays = read_spectrum(spectrum, exclude_regions=[region])
    np.testing.assert_array_equal(np.flatnonzero(~arrays.good), np.arange(11, 21))


def test_window_and_several_exclusions():
    exclude = [SpectralRegion(WAVE[3] * u.AA, WAVE[5] * u.AA), SpectralRegion(WAVE[8] / 10 * u.nm, 870 * u.nm)]
    arrays = read_spectrum(make(), window=(0 * u.AA, WAVE[30] * u.AA), exclude_regions=exclude)
    np.testing.assert_array_equal(np.flatnonzero(arrays.good), [0, 1, 2, 5, 6, 7])


@pytest.mark.parametrize("name", AXES)
def test_open_windows(name):
    convert, unit, _ = AXES[name]
    spectrum = make(convert(WAVE) * unit)
    for bottom in (0, -5, -np.inf):
        arrays = read_spectrum(spectrum, window=(bottom * u.AA, WAVE[5] * u.AA))
        np.testing.assert_array_equal(np.flatnonzero(arrays.good), np.arange(6))
    arrays = read_spectrum(spectrum, window=(WAVE[35] * u.AA, np.inf * u.AA))
    np.testing.assert_array_equal(np.flatnonzero(arrays.good), np.arange(35, N_PIX))


@settings(max_examples=40)
@given(
    pairs=st.lists(st.tuples(st.integers(-2, 42), st.integers(1, 9)), min_size=1, max_size=6),
    is_decreasing=st.booleans(),
)
def test_half_open_mask_is_contains_of_specutils(pairs, is_decreasing):
    axis = (np.arange(N_PIX)[::-1] if is_decreasing else np.arange(N_PIX)) * u.AA
    region = SpectralRegion([(low * u.AA, (low + width) * u.AA) for low, width in pairs])
    expected = [region.contains(value) for value in axis]
    np.testing.assert_array_equal(region_mask(axis, region, closed=False), expected)


def test_thousands_of_regions_at_once():
    wave = np.linspace(5000, 6000, 100_000)
    centers = np.linspace(5000, 6000, 3000)
    region = SpectralRegion([(c * u.AA, (c + 0.03) * u.AA) for c in centers])
    nearest = centers[np.searchsorted(centers, wave, side="right") - 1]
    start = time.process_time()
    mask = region_mask(wave * u.AA, region, closed=True)
    assert time.process_time() - start < 1.0
    distinct = np.abs(wave - nearest - 0.03) > 1e-9
    np.testing.assert_array_equal(mask[distinct], (wave - nearest <= 0.03)[distinct])


# --------------------------------------------------------------------------------------------------- air and vacuum


def vacuum_from_air(air):
    """Morton (2000, ApJS 130, 403) eq. 8, whose argument is the *vacuum* wavelength, inverted by iteration."""
    vacuum = np.array(air, dtype=float)
    for _ in range(10):
        s2 = (1e4 / vacuum) ** 2
        vacuum = air * (1 + 8.34254e-5 + 2.406147e-2 / (130 - s2) + 1.5998e-4 / (38.9 - s2))
    return vacuum


AIR_DECLARATIONS = {
    "keyword": ({}, "air"),
    "meta": ({"wavelength_medium": "air"}, None),
    "header": ({"header": fits.Header({"CTYPE1": "AWAV"})}, None),
    "header as a dict": ({"header": {"CTYPE1": "LINEAR", "CTYPE3": "AWAV-LOG"}}, None),
    "keyword against meta": ({"wavelength_medium": "vacuum"}, "air"),
    "meta against nothing else": ({"wavelength_medium": "air", "header": {"CTYPE1": "WAVE"}}, None),
}


@pytest.mark.parametrize("name", AIR_DECLARATIONS)
@pytest.mark.parametrize("axis", [WAVE * u.AA, WAVE[::-1] / 10 * u.nm], ids=["Angstrom up", "nm down"])
def test_declared_air_is_converted_and_the_axis_of_the_user_kept(name, axis):
    meta, keyword = AIR_DECLARATIONS[name]
    spectrum = make(axis, meta=meta)
    arrays = read_spectrum(spectrum, wavelength_medium=keyword)
    assert arrays.medium == "air"
    np.testing.assert_allclose(arrays.wave, vacuum_from_air(WAVE), rtol=1e-11)
    back = arrays.to_spectrum(arrays.flux)
    np.testing.assert_array_equal(back.spectral_axis.value, axis.value)
    assert back.spectral_axis.unit == axis.unit
    assert back.meta["wavelength_medium"] == "air"
    np.testing.assert_array_equal(read_spectrum(back).wave, arrays.wave)


@pytest.mark.parametrize(
    "meta", [{}, {"wavelength_medium": "vacuum"}, {"header": {"CTYPE1": "WAVE"}}, {"header": "none"}]
)
def test_undeclared_air_is_vacuum(meta):
    arrays = read_spectrum(make(meta=meta))
    assert arrays.medium == "vacuum"
    np.testing.assert_array_equal(arrays.wave, WAVE)


def test_air_axis_of_a_fits_wcs():
    wcs = WCS(fits.Header({"CTYPE1": "AWAV", "CUNIT1": "Angstrom", "CRVAL1": 8600.0, "CDELT1": 0.25, "CRPIX1": 1.0}))
    arrays = read_spectrum(Spectrum(flux=np.ones(N_PIX) * u.Jy, wcs=wcs))
    np.testing.assert_allclose(arrays.wave, vacuum_from_air(8600 + 0.25 * np.arange(N_PIX)), rtol=1e-11)


def test_misread_wavelengths():
    air = np.array([2100.0, 5000.0, 10_600.0, 1e6])
    np.testing.assert_allclose(misread_wavelengths(vacuum_from_air(air), "vacuum"), air, rtol=1e-7)  # 30 m/s
    np.testing.assert_allclose(misread_wavelengths(air, "air"), vacuum_from_air(air), rtol=1e-7)
    for medium in ("vacuum", "air"):
        np.testing.assert_array_equal(misread_wavelengths([1000.0, 1999.0], medium), [1000.0, 1999.0])


def test_air_edges():
    bounds = np.linspace(8600, 8610, N_PIX + 1)
    arrays = read_spectrum(make(bounds * u.AA), wavelength_medium="air")
    np.testing.assert_allclose(arrays.edges[:, 1], vacuum_from_air(bounds[1:]), rtol=1e-11)


def test_air_lines_of_the_laboratory():
    air = [3968.4673, 5889.950954, 8542.0907] * u.AA  # Ca II H, Na I D2, Ca II: NIST, air
    vacuum = [3969.5901, 5891.583264, 8544.4378]
    np.testing.assert_allclose(wavelength_values(air, wavelength_medium="air"), vacuum, rtol=1e-7)


# ----------------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize("name", AXES)
def test_result_is_on_the_axis_of_the_input(name):
    convert, unit, runs_up = AXES[name]
    spectrum = make(convert(WAVE) * unit, meta={"target": "WASP-69"})
    sigma, mask = SIGMA.copy(), WAVE > WAVE[30]
    result = read_spectrum(spectrum).to_spectrum(FLUX + 1, sigma, mask)
    np.testing.assert_array_equal(result.spectral_axis.value, convert(WAVE))
    assert result.spectral_axis.unit == unit
    # WAVE increases along this axis whatever its unit, and so do the values that were given with it
    np.testing.assert_array_equal(result.flux, (FLUX + 1) * u.Jy)
    np.testing.assert_array_equal(result.uncertainty.array, SIGMA)
    assert isinstance(result.uncertainty, StdDevUncertainty)
    assert result.uncertainty.unit == u.Jy
    np.testing.assert_array_equal(result.mask, mask)
    assert result.meta == {"target": "WASP-69", "wavelength_medium": "vacuum"}
    assert spectrum.meta == {"target": "WASP-69"}


def test_result_follows_a_decreasing_axis():
    result = read_spectrum(make(WAVE[::-1] * u.AA)).to_spectrum(FLUX, SIGMA, WAVE > WAVE[30])
    np.testing.assert_array_equal(result.flux.value, FLUX[::-1])
    np.testing.assert_array_equal(result.uncertainty.array, SIGMA[::-1])
    np.testing.assert_array_equal(result.mask, WAVE[::-1] > WAVE[30])


@pytest.mark.parametrize("is_decreasing", [False, True], ids=["up", "down"])
def test_result_keeps_bin_edges(is_decreasing):
    bounds = 8600 + np.linspace(0, 9, N_PIX + 1) ** 2
    bounds = bounds[::-1] if is_decreasing else bounds
    arrays = read_spectrum(make(bounds * u.AA))
    result = arrays.to_spectrum(FLUX)
    np.testing.assert_array_equal(result.spectral_axis.bin_edges.value, bounds)
    np.testing.assert_array_equal(read_spectrum(result).edges, arrays.edges)


def test_result_masks_nan():
    values = FLUX.copy()
    values[3] = np.nan
    result = read_spectrum(make()).to_spectrum(values)
    np.testing.assert_array_equal(np.flatnonzero(result.mask), [3])
    assert result.uncertainty is None


@pytest.mark.parametrize("unit", [u.one, ""])
def test_result_in_another_unit(unit):
    result = read_spectrum(make()).to_spectrum(FLUX, SIGMA, unit=unit)
    assert result.flux.unit == u.one
    assert result.uncertainty.unit == u.one


@pytest.mark.parametrize("name", ["values", "uncertainty", "mask"])
def test_result_of_wrong_shape(name):
    arrays = {"values": FLUX, "uncertainty": None, "mask": None} | {name: np.ones(3)}
    with pytest.raises(ValueError, match=rf"^{name} must have the shape \(40,\), got \(3,\)"):
        read_spectrum(make()).to_spectrum(**arrays)


def test_spectrum_from_wave():
    meta = {"name": "model"}
    result = spectrum_from_wave(WAVE, FLUX, u.Jy, uncertainty=SIGMA, mask=WAVE > 8601, meta=meta)
    arrays = read_spectrum(make(uncertainty=StdDevUncertainty(SIGMA)))
    np.testing.assert_array_equal(result.spectral_axis.to_value(u.AA), arrays.wave)
    np.testing.assert_array_equal(result.flux, FLUX * u.Jy)
    np.testing.assert_array_equal(result.uncertainty.array, SIGMA)
    np.testing.assert_array_equal(result.mask, WAVE > 8601)
    assert result.meta == {"name": "model", "wavelength_medium": "vacuum"}
    assert meta == {"name": "model"}


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "thing",
    [None, FLUX, FLUX * u.Jy, [make()], SpectrumList([make()]), QTable({"flux": FLUX})],
    ids=lambda t: type(t).__name__,
)
def test_not_a_spectrum(thing):
    text = rf"^observed must be a specutils Spectrum, got {type(thing).__name__}; make one with"
    with pytest.raises(TypeError, match=text):
        read_spectrum(thing, "observed")


TWO_D = Spectrum(flux=np.ones((3, N_PIX)) * u.Jy, spectral_axis=WAVE * u.AA)
EMPTY = Spectrum(flux=[] * u.Jy, spectral_axis=[] * u.AA)
PIXELS = Spectrum(flux=FLUX * u.Jy)
MAGNITUDES = make(flux=FLUX * u.mag)
VELOCITY = make((WAVE - 8601) * u.km / u.s)
VELOCITY_WITHOUT_CONVENTION = make((WAVE - 8601) * u.km / u.s, rest_value=8600 * u.AA)
REPEATED = make(np.repeat(WAVE[::2], 2) * u.AA)
REPEATED_EDGE = make(np.sort(np.append(WAVE, WAVE[7])) * u.AA)
ONE_PIXEL = Spectrum(flux=[1] * u.Jy, spectral_axis=[8600] * u.AA)


@pytest.mark.parametrize(
    ("spectrum", "error", "text"),
    [
        (
            TWO_D,
            ValueError,
            r"must be one-dimensional, got flux of shape \(3, 40\); take one spectrum, e.g. observed\[0\]",
        ),
        (EMPTY, ValueError, "must have pixels, got an empty spectrum; check"),
        (MAGNITUDES, u.UnitsError, "must have a linear flux unit, got 'mag'; convert magnitudes"),
        (make(flux=FLUX * 1j * u.Jy), TypeError, "must have real flux, got complex128; take"),
        (PIXELS, u.UnitsError, "must have a spectral axis of wavelength.*, got the unit 'pix'; give spectral_axis="),
        (VELOCITY, u.UnitsError, "must have .*, got velocities alone; give rest_value= and velocity_convention="),
        (VELOCITY_WITHOUT_CONVENTION, u.UnitsError, "got velocities alone; give rest_value= and velocity_convention="),
        (
            REPEATED,
            ValueError,
            "must have a different wavelength in every pixel, got 20 repeated, the first at 8600.0625 A",
        ),
        (
            REPEATED_EDGE,
            ValueError,
            "must have a different wavelength in every pixel, got 1 repeated, the first at 8600.5 A",
        ),
        (ONE_PIXEL, ValueError, "must have bin edges or at least two pixels, got one pixel; give"),
        (
            make((WAVE - 8601) * u.AA),
            ValueError,
            "must have finite positive spectral values, got 16 other, .* -0.9375 Ang",
        ),
        (
            make((WAVE - WAVE[0]) * u.THz),
            ValueError,
            "must have finite positive spectral values, got 1 other, .* 0.0 THz",
        ),
        (make(np.append(WAVE[:-1], np.inf) * u.AA), ValueError, "got 1 other, the first is inf Angstrom; remove"),
        (make(Masked(WAVE * u.AA, mask=WAVE == WAVE[4])), ValueError, "got 1 other, the first is 8600.3125 Angstrom"),
    ],
)
def test_spectrum_is_checked(spectrum, error, text):
    with pytest.raises(error, match="^observed must .*") as caught:
        read_spectrum(spectrum, "observed")
    assert caught.match(text)


def test_rounding_to_float32_that_merges_pixels_is_told():
    wave = (10_500 + np.arange(N_PIX) * 2e-4).astype(np.float32)
    with pytest.raises(ValueError, match="repeated, .*store the axis as float64 if rounding did it"):
        read_spectrum(make(u.Quantity(wave, u.AA)))


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"window": (5000 * u.AA, 5010 * u.AA)}, ValueError, r"got 5000 to 5010 Angstrom; choose a window inside"),
        (
            {"window": (5000 * u.AA, 5010 * u.AA)},
            ValueError,
            r"contain pixels of observed \(8600.0625 to 8602.734375 Ang",
        ),
        ({"window": (500 * u.THz, 501 * u.THz)}, ValueError, r"\(8600.0625 .* got 5983.8\d* to 5995.8\d* Angstrom"),
        ({"window": (90 * u.pix, 99 * u.pix)}, ValueError, r"\(0 to 39 pix\), got 90 to 99 pix"),
        ({"window": (8600.07 * u.AA, 8600.08 * u.AA)}, ValueError, "contain pixels"),
        ({"window": (8600, 8601)}, TypeError, r"two Quantities \(lower, upper\), got \(8600, 8601\); write"),
        ({"window": 8600 * u.AA}, TypeError, "two Quantities"),
        ({"window": [1, 2, 3] * u.AA}, TypeError, "two Quantities"),
        ({"window": "all"}, TypeError, "two Quantities"),
        ({"window": (np.nan * u.AA, 8601 * u.AA)}, ValueError, "bounds that are numbers, got nan; use inf"),
        ({"window": (1 * u.Jy, 2 * u.Jy)}, u.UnitsError, r"unit that fits the axis \(Angstrom\), got 'Jy'; convert"),
        ({"window": (1 * u.km / u.s, 2 * u.km / u.s)}, u.UnitsError, "got 'km / s'; .* rest_value= and velocity_conv"),
        (
            {"exclude_regions": (0 * u.AA, 1 * u.m)},
            ValueError,
            "leave pixels of observed to use, got none; exclude less",
        ),
        ({"exclude_regions": ["8600"]}, TypeError, "two Quantities"),
        ({"weights": "sigma"}, ValueError, "be \"unc\", None or 1/sigma, got 'sigma'; choose"),
        ({"weights": np.ones(7)}, ValueError, r"one value for each pixel, shape \(40,\), got \(7,\); do not cut"),
        ({"wavelength_medium": "water"}, ValueError, 'be "vacuum" or "air", got \'water\'; correct'),
    ],
)
def test_arguments_are_checked(kwargs, error, text):
    with pytest.raises(error, match=f"^{next(iter(kwargs))} must ") as caught:
        read_spectrum(make(), "observed", **kwargs)
    assert caught.match(text)


def test_medium_in_meta_is_checked():
    with pytest.raises(ValueError, match=r'^star.meta\["wavelength_medium"\] must be "vacuum" or "air", got \'AIR!\''):
        read_spectrum(make(meta={"wavelength_medium": "AIR!"}), "star")


def test_only_wavelengths_can_be_in_air():
    with pytest.raises(ValueError, match="^star must have wavelengths to be in air, got the unit 'THz'; give"):
        read_spectrum(make(C_ANGSTROM_THZ / WAVE * u.THz), "star", wavelength_medium="air")
    with pytest.raises(
        ValueError, match="^star must lie above 2000 Angstrom to be in air, got 1720.0125 Angstrom; shorter"
    ):
        read_spectrum(make(WAVE / 5 * u.AA), "star", wavelength_medium="air")


# ----------------------------------------------------------------------------------------------- quantities, devices


@pytest.mark.parametrize("name", AXES)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_wavelength_values_keep_shape_and_order(name, shape):
    convert, unit, _ = AXES[name]
    wave = np.random.default_rng(2).uniform(4000, 9000, shape)
    values = wavelength_values(convert(wave) * unit)
    assert values.shape == shape
    np.testing.assert_allclose(values, wave, rtol=RTOL)


def test_wavelength_values_are_a_copy():
    axis = WAVE * u.AA
    wavelength_values(axis)[:] = 0
    np.testing.assert_array_equal(axis.value, WAVE)


def test_wavelength_values_need_a_unit():
    with pytest.raises(TypeError, match=r"^x must be a Quantity with a spectral unit, got ndarray; multiply"):
        wavelength_values(WAVE, "x")
    with pytest.raises(u.UnitsError, match="^x must have a spectral axis .* got the unit 'Jy'"):
        wavelength_values(WAVE * u.Jy, "x")


def test_quantity_value():
    assert quantity_value(-9500 * u.m / u.s, u.km / u.s, "radial_velocity") == -9.5
    assert quantity_value(4700 * u.K, "K", "teff", positive=True) == 4700.0
    assert quantity_value(1 * u.eV, u.AA, "line", equivalencies=u.spectral()) == pytest.approx(
        HC_EV_ANGSTROM, rel=1e-12
    )
    assert quantity_value(None, u.K, "teff", allow_none=True) is None
    assert type(quantity_value(np.float32(3) * u.K, u.K, "teff")) is float


@pytest.mark.parametrize(
    ("value", "kwargs", "error", "text"),
    [
        (4700, {}, TypeError, "be a Quantity in a unit like 'K', got 4700; write e.g. teff=number"),
        ("4700 K", {}, TypeError, "be a Quantity in a unit like 'K', got '4700 K'; write"),
        (None, {}, TypeError, "be a Quantity in a unit like 'K', got None; write"),
        (4700 * u.AA, {}, u.UnitsError, "have a unit like 'K', got 'Angstrom'; write"),
        ([1, 2] * u.K, {}, ValueError, r"be one value, got an array of shape \(2,\); choose"),
        (np.nan * u.K, {}, ValueError, "be finite, got nan K; correct"),
        (np.inf * u.K, {"positive": True}, ValueError, "be finite and positive, got inf K; correct"),
        (0 * u.K, {"positive": True}, ValueError, "be finite and positive, got 0.0 K; correct"),
        (-5 * u.K, {"positive": True}, ValueError, "be finite and positive, got -5.0 K; correct"),
    ],
)
def test_quantity_is_checked(value, kwargs, error, text):
    with pytest.raises(error, match=f"^teff must {text}"):
        quantity_value(value, u.K, "teff", **kwargs)


@pytest.mark.parametrize("device", [None, "auto", "cpu", torch.device("cpu")])
def test_device_is_the_cpu(device):
    assert resolve_device(device) == "cpu"


@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda"), "mps", "tpu"])
def test_other_devices_are_refused(device):
    with pytest.raises(ValueError, match=f"^device must be .*, got '{device}'; .*CPU only.*torch.optim"):
        resolve_device(device)


def test_device_of_the_settings():
    with conf.set_temp("device", "cuda"):
        with pytest.raises(ValueError, match="^specutils_blase.conf.device must be .*, got 'cuda'"):
            resolve_device(None)
        assert resolve_device("cpu") == "cpu"


# ------------------------------------------------------------------------------------------------------------- speed


def test_large_spectra_are_read_fast():
    n_pix = 338_651
    bounds = np.linspace(12_849, 8038, n_pix + 1)
    spectrum = Spectrum(
        flux=np.ones(n_pix, ">f4") * u.Jy,
        spectral_axis=bounds * u.AA,
        uncertainty=InverseVariance(np.ones(n_pix, ">f4")),
    )
    times = []
    for _ in range(5):
        start = time.process_time()
        read_spectrum(spectrum, window=(9000 * u.AA, 10_000 * u.AA))
        times.append(time.process_time() - start)
    assert min(times) < 0.1
