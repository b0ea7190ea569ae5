"""The resampler against brute-force integration and inside specutils."""

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import InverseVariance, StdDevUncertainty
from specutils import SpectralAxis, Spectrum
from specutils.analysis.correlation import template_logwl_resample
from specutils.manipulation import FluxConservingResampler

from specutils_blase import ExactOverlapResampler

WAVE = 5000.0 * np.exp(np.arange(4000) * 2e-6)
FLUX = 1.0 + 0.3 * np.sin(WAVE * 3.0) + 0.1 * np.random.default_rng(0).normal(size=WAVE.size)
PIXELS = np.linspace(5001.0, 5035.0, 300)


def fine(**options):
    return Spectrum(flux=FLUX * u.Jy, spectral_axis=WAVE * u.AA, **options)


def brute(values, centers):
    """The mean over each pixel by sums over two thousand points in it."""
    edges = SpectralAxis(centers * u.AA).bin_edges.value
    share, pairs = (np.arange(2000) + 0.5) / 2000, zip(edges, edges[1:], strict=False)
    return np.array([np.interp(a + (b - a) * share, WAVE, values).mean() for a, b in pairs])


def test_means_are_those_of_brute_force():
    out = ExactOverlapResampler()(fine(), PIXELS * u.AA)
    np.testing.assert_allclose(out.flux.value, brute(FLUX, PIXELS), atol=2e-6)
    assert out.flux.unit == u.Jy
    np.testing.assert_array_equal(out.spectral_axis.value, PIXELS)


def test_a_straight_line_is_exact_and_the_area_is_kept():
    line = Spectrum(flux=(WAVE - 5000.0) * u.Jy, spectral_axis=WAVE * u.AA)
    out = ExactOverlapResampler()(line, PIXELS * u.AA)
    np.testing.assert_allclose(out.flux.value, PIXELS - 5000.0, rtol=1e-10)


@pytest.mark.parametrize("turned", ["input", "output", "both"])
def test_direction_and_unit_do_not_matter(turned):
    expected = ExactOverlapResampler()(fine(), PIXELS * u.AA).flux.value
    given, axis, step = fine(), PIXELS * u.AA, 1
    if turned != "output":
        given = Spectrum(flux=FLUX[::-1] * u.Jy, spectral_axis=(WAVE[::-1] / 10) * u.nm)
    if turned != "input":
        axis, step = PIXELS[::-1] * u.AA, -1
    np.testing.assert_allclose(ExactOverlapResampler()(given, axis).flux.value[::step], expected, rtol=1e-9)


def test_frequencies():
    given = Spectrum(flux=np.ones(WAVE.size) * u.Jy, spectral_axis=(WAVE * u.AA).to(u.GHz, u.spectral()))
    out = ExactOverlapResampler()(given, PIXELS * u.AA)
    np.testing.assert_allclose(out.flux.value, 1.0, rtol=1e-12)


@pytest.mark.parametrize("kind", [StdDevUncertainty, InverseVariance])
def test_uncertainties_against_draws(kind):
    given = fine(uncertainty=StdDevUncertainty(np.full(WAVE.size, 0.1)).represent_as(kind))
    out = ExactOverlapResampler()(given, PIXELS * u.AA)
    assert type(out.uncertainty) is kind
    rng = np.random.default_rng(1)
    draws = [ExactOverlapResampler()(Spectrum(flux=rng.normal(0, 0.1, WAVE.size) * u.Jy, spectral_axis=WAVE * u.AA),
                                     PIXELS * u.AA).flux.value for _ in range(200)]  # fmt: skip
    found = out.uncertainty.represent_as(StdDevUncertainty).array
    assert np.mean(np.std(draws, axis=0) / found) == pytest.approx(1.0, abs=0.02)


def test_bad_samples_spoil_the_pixels_that_they_touch():
    mask = np.zeros(WAVE.size, dtype=bool)
    mask[1000] = True
    flux = FLUX.copy()
    flux[2000] = np.nan
    out = ExactOverlapResampler()(Spectrum(flux=flux * u.Jy, spectral_axis=WAVE * u.AA, mask=mask), PIXELS * u.AA)
    bad = np.isnan(out.flux.value)
    assert 2 <= np.count_nonzero(bad) <= 4
    np.testing.assert_array_equal(out.mask, bad)
    clean = ExactOverlapResampler()(fine(), PIXELS * u.AA).flux.value
    np.testing.assert_allclose(out.flux.value[~bad], clean[~bad], rtol=1e-12)


@pytest.mark.parametrize(("treatment", "size", "outer"), [("nan_fill", 5, np.nan), ("zero_fill", 5, 0.0),
                                                          ("truncate", 3, None)])  # fmt: skip
def test_beyond_the_samples(treatment, size, outer):
    axis = np.array([4999.9, 5010.0, 5020.0, 5030.0, 5060.0]) * u.AA
    given = fine(uncertainty=StdDevUncertainty(np.ones(WAVE.size)))
    out = ExactOverlapResampler(treatment)(given, SpectralAxis(axis[[0, 1, 2, 3, 4]]))
    ours = ExactOverlapResampler("nan_fill")(given, axis)
    assert out.flux.size == np.count_nonzero(np.isfinite(ours.flux.value)) if treatment == "truncate" else size
    if outer is not None:
        np.testing.assert_array_equal(out.flux.value[0], outer)


def test_several_rows():
    flux = np.stack([FLUX, 2 * FLUX])
    out = ExactOverlapResampler()(Spectrum(flux=flux * u.Jy, spectral_axis=WAVE * u.AA), PIXELS * u.AA)
    one = ExactOverlapResampler()(fine(), PIXELS * u.AA)
    np.testing.assert_allclose(out.flux.value, np.stack([one.flux.value, 2 * one.flux.value]), rtol=1e-12)


def test_beside_the_one_of_specutils():
    """Where samples are many in a pixel, means of straight lines and of steps are alike."""
    smooth = Spectrum(flux=np.sin(WAVE) * u.Jy, spectral_axis=WAVE * u.AA)
    theirs = FluxConservingResampler()(smooth, PIXELS * u.AA).flux.value
    np.testing.assert_allclose(ExactOverlapResampler()(smooth, PIXELS * u.AA).flux.value, theirs, atol=1e-3)


def test_meta_and_edges_are_kept():
    edges = np.array([5001.0, 5001.2, 5001.3, 5001.9])
    axis = SpectralAxis(edges * u.AA, bin_specification="edges")
    out = ExactOverlapResampler()(fine(meta={"object": "x"}), axis)
    assert out.meta["object"] == "x"
    share = (np.arange(2000) + 0.5) / 2000
    expected = [np.interp(a + (b - a) * share, WAVE, FLUX).mean() for a, b in zip(edges, edges[1:], strict=False)]
    np.testing.assert_allclose(out.flux.value, expected, atol=2e-6)


def test_as_the_resampler_of_a_correlation():
    seen = ExactOverlapResampler()(fine(uncertainty=StdDevUncertainty(np.full(WAVE.size, 0.01))), PIXELS * u.AA)
    spectrum, template = template_logwl_resample(seen, fine(), resampler=ExactOverlapResampler())
    steps = np.diff(np.log(spectrum.spectral_axis.value))
    assert spectrum.flux.size == template.flux.size and np.ptp(steps) < 1e-3 * steps[0]
    inside = (spectrum.spectral_axis.value > 5002) & (spectrum.spectral_axis.value < 5034)
    expected = brute(FLUX, template.spectral_axis.value)
    np.testing.assert_allclose(template.flux.value[inside], expected[inside], atol=2e-6)


def test_one_pixel_is_refused():
    with pytest.raises(ValueError, match="fin_spec_axis must have at least two pixels, got 1"):
        ExactOverlapResampler()(fine(), [5001.0] * u.AA)
