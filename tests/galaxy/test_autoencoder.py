"""The autoencoder of galaxies, with galaxies by formula: noiseless spectra in any pixels are known in closed form."""

import copy
import pickle

import numpy as np
import pytest
import torch
from astropy import units as u
from astropy.nddata import InverseVariance
from matplotlib import pyplot as plt
from scipy.special import erf
from specutils import Spectrum, SpectrumCollection, SpectrumList

from specutils_blase import BandedLSF, BlaseWarning, CoverageError
from specutils_blase.errors import NoPixelsError
from specutils_blase.galaxy import SpectrumAutoencoder, plot_reconstructions, train_autoencoder
from specutils_blase.galaxy.reading import read_surveys
from specutils_blase.solvers.galaxies import GalaxyModel

C, UNIT = 299792.458, u.Unit("1e-17 erg / (s cm2 AA)")
POWER, DISPERSION, SNR = 1500.0, 150.0, 20.0
WAVE = 4300.0 * 10 ** (2e-4 * np.arange(900))  # to 6500 Angstrom
BLUE, RED = 4000.0 + 1.5 * np.arange(900), 5300.0 + 1.5 * np.arange(900)
# Rest wavelength, equivalent width, and how it depends on the three numbers that a galaxy is.
LINES = np.array([
    (3934.8, -6.0, 0.0, 0.5, 0.0), (3969.6, -5.0, 0.0, 0.5, 0.0), (4305.6, -4.0, 0.0, 0.4, 0.0),
    (5176.6, -5.0, 0.0, 0.4, 0.0), (3728.5, 8.0, 0.7, 0.0, 0.0), (4862.7, 4.0, 0.7, 0.0, 0.0),
    (4960.3, 2.0, 0.7, 0.0, 0.8), (5008.2, 6.0, 0.7, 0.0, 0.8), (4341.7, 2.0, 0.7, 0.0, 0.0)])  # fmt: skip


def seen(s, z, edges, power):
    """Mean flux of the pixels: a power law and Gaussian lines behind a Gaussian line spread function, all exact."""
    s, z = np.atleast_2d(s), np.atleast_1d(z)[:, None, None]
    lower, upper = (edges[:, k] / (1.0 + z[..., 0]) for k in (0, 1))
    slope = -0.5 + 1.2 * s[:, 1:2]
    integral = lambda wave: 4500.0 * (wave / 4500.0) ** (slope + 1) / (slope + 1)  # noqa: E731
    flux = (integral(upper) - integral(lower)) / (upper - lower)
    sigma = np.sqrt(DISPERSION**2 + (C / 2.3548200450309493 / power) ** 2) / C
    for wave, width, *how in LINES:
        area = width * np.exp(s @ how)[:, None] * (wave / 4500.0) ** slope
        flux += area * 0.5 * (erf((upper / wave - 1) / sigma / 2**0.5) - erf((lower / wave - 1) / sigma / 2**0.5)) / (
            upper - lower)  # fmt: skip
    return flux


def pixel_edges(wave):
    middle = 0.5 * (wave[1:] + wave[:-1])
    return np.stack([np.r_[2 * wave[0] - middle[0], middle], np.r_[middle, 2 * wave[-1] - middle[-1]]], axis=1)


def draw(n, seed, lower=0.0, upper=0.3):
    random = np.random.default_rng(seed)
    s = random.standard_normal((n, 3)).clip(-2.5, 2.5) * [0.8, 0.5, 0.6]
    return s, random.uniform(lower, upper, n), random


def noisy(flux, wave, random, snr=SNR, level=None, **keywords):
    """A spectrum with bad pixels, of galaxies whose brightness differs by factors."""
    level = np.exp(random.normal(1.0, 0.7, (len(flux), 1))) if level is None else level
    sigma = level / snr * (1.0 + (np.abs(wave - 5577.0) < 6.0) * 5.0)
    mask = random.random(flux.shape) < 0.01
    values = level * flux + sigma * random.standard_normal(flux.shape)
    values[mask] = 1e4
    ivar = InverseVariance(np.broadcast_to(sigma**-2.0, flux.shape))
    return Spectrum(flux=values * UNIT, spectral_axis=wave * u.AA, mask=mask, uncertainty=ivar, **keywords), level


def bands(wave):
    """A resolution matrix in the layout of DESI: a Gaussian of 1.6 Angstrom, which loses light at the ends."""
    offset = np.arange(5, -6, -1)[:, None]
    found = np.exp(-0.5 * (offset * 1.5 / 1.6) ** 2) * np.ones(len(wave))
    return found / found.sum(axis=0)


def sdss(n, seed, snr=SNR, **keywords):
    s, z, random = draw(n, seed, **keywords)
    clean = seen(s, z, pixel_edges(WAVE), POWER)
    spectrum, level = noisy(clean, WAVE, random, snr)
    return spectrum, z, level * clean, s


def desi(n, seed, snr=SNR):
    s, z, random = draw(n, seed)
    cameras, clean = [], []
    level = np.exp(random.normal(1.0, 0.7, (n, 1)))
    for wave in (BLUE, RED):
        rows, cols, values = BandedLSF(bands(wave)).triplets()
        matrix = np.zeros((len(wave), len(wave)))
        matrix[rows, cols] = values
        flux = seen(s, z, pixel_edges(wave), 1e9) @ matrix.T
        meta = {"resolution_data": np.broadcast_to(bands(wave), (n, 11, len(wave)))}
        cameras.append(noisy(flux, wave, random, snr, level, meta=meta)[0])
        clean.append(level * flux)
    return SpectrumList(cameras), z, clean, s


def train(**keywords):
    first, second = sdss(260, 0), desi(50, 1)
    options = {"n_latents": 3, "n_components": 12, "epochs": 500, "seed": 0, **keywords}
    return train_autoencoder([first[0], second[0]], [first[1], second[1]], lsf=[POWER, None], **options)


@pytest.fixture(scope="module")
def model():
    return train()


@pytest.fixture(scope="module")
def galaxies():
    return sdss(40, 7)


def row(spectrum, k, **changes):
    return Spectrum(**{"flux": spectrum.flux[k], "spectral_axis": spectrum.spectral_axis, "mask": spectrum.mask[k],
                       "uncertainty": InverseVariance(spectrum.uncertainty.array[k]), **changes})  # fmt: skip


def sigmas(latents):
    return np.sqrt(np.diagonal(latents.covariance, axis1=1, axis2=2))


def test_model(model):
    assert isinstance(model, SpectrumAutoencoder) and model.n_latents == 3
    wave = model.spectral_axis.to_value("AA")
    assert 3100 < wave[0] < 3300 and 6400 < wave[-1] < 6700
    np.testing.assert_allclose(np.diff(np.log(wave)), np.log(wave[1] / wave[0]), rtol=1e-9)
    assert model.fit_info["n_galaxies"] == 310 and "3 latents" in repr(model)
    assert model.fit_info["validation"][-1] < model.fit_info["validation"][0]


def test_reconstructions_are_closer_to_the_truth_than_the_data(model, galaxies):
    spectrum, z, clean, _ = galaxies
    out = model.reconstruct(spectrum, z, lsf=POWER)
    assert out.flux.shape == spectrum.flux.shape and out.flux.unit == UNIT
    good = ~out.mask
    assert good.mean() > 0.97 and np.isfinite(out.flux.value[good]).all()
    pull = (out.flux.value - clean) * np.sqrt(spectrum.uncertainty.array)
    assert np.sqrt((pull[good] ** 2).mean()) < 0.3
    chi2 = out.meta["chi2"] / out.meta["n_pixels"]
    assert np.median(chi2) == pytest.approx(1.0, abs=0.1)
    assert out.meta["latents"].shape == (40, 3)
    np.testing.assert_array_equal(out.meta["redshift"], z)
    # chi2 is that of the pixels that are shown, with the reconstruction as it is.
    seen = good & ~spectrum.mask
    residual = (spectrum.flux.value - out.flux.value)[3] * np.sqrt(spectrum.uncertainty.array[3])
    assert out.meta["n_pixels"][3] == seen[3].sum()
    assert out.meta["chi2"][3] == pytest.approx((residual[seen[3]] ** 2).sum(), rel=1e-3)


def test_better_than_principal_components(model, galaxies):
    """As many components as latents, of spectra interpolated to the rest frame, zeros where nothing is known."""
    spectrum, z, clean, _ = galaxies
    train_set, zs, _, _ = sdss(260, 0)
    table = model.spectral_axis.value

    def rest(some, redshift):
        flux = np.where(some.mask, np.nan, some.flux.value)
        flux /= np.nanmedian(flux, axis=1, keepdims=True)
        good = np.isfinite(flux)
        return np.array([np.interp(table * (1 + one), WAVE[there], values[there], left=np.nan, right=np.nan)
                         for one, values, there in zip(redshift, flux, good, strict=True)])  # fmt: skip

    rows = rest(train_set, zs)
    known = np.flatnonzero(np.isfinite(rows).sum(axis=0) > 20)
    table, rows = table[known], rows[:, known]
    mean = np.nanmean(rows, axis=0)
    basis = np.linalg.svd(np.nan_to_num(rows - mean), full_matrices=False)[2][:3]
    pulls = []
    for k in range(40):
        design = np.vstack([mean, basis]).T
        place = WAVE / (1 + z[k])
        inside = (place > table[0]) & (place < table[-1]) & ~spectrum.mask[k]
        seen = np.array([np.interp(place[inside], table, one) for one in design.T]).T
        root = np.sqrt(spectrum.uncertainty.array[k][inside])
        found = np.linalg.lstsq(root[:, None] * seen, root * spectrum.flux.value[k][inside], rcond=None)[0]
        pulls.append(root * (seen @ found - clean[k][inside]))
    out = model.reconstruct(spectrum, z, lsf=POWER)
    mine = ((out.flux.value - clean) * np.sqrt(spectrum.uncertainty.array))[~out.mask]
    assert np.sqrt((mine**2).mean()) < 0.7 * np.sqrt((np.concatenate(pulls) ** 2).mean())


def test_all_batches_give_the_same_latents(model, galaxies):
    spectrum, z = galaxies[0][:4], galaxies[1][:4]
    wanted = model.encode(spectrum, z, lsf=POWER)
    assert wanted.shape == (4, 3) and wanted.covariance.shape == (4, 3, 3) and wanted.coverage.shape == (4, 3)
    np.testing.assert_array_equal(wanted.redshift, z)
    each = [row(spectrum, k) for k in range(4)]
    collection = SpectrumCollection(spectrum.flux, spectral_axis=np.tile(WAVE, (4, 1)) * u.AA, mask=spectrum.mask,
                                    uncertainty=InverseVariance(spectrum.uncertainty.array))  # fmt: skip
    jansky = spectrum.flux.to(u.mJy, u.spectral_density(WAVE * u.AA))
    factor = (jansky / spectrum.flux).value
    frequency = Spectrum(flux=jansky, spectral_axis=WAVE * u.AA, mask=spectrum.mask,
                         uncertainty=InverseVariance(spectrum.uncertainty.array / factor**2))  # fmt: skip
    turned = Spectrum(flux=spectrum.flux[:, ::-1], spectral_axis=WAVE[::-1] * u.AA, mask=spectrum.mask[:, ::-1],
                      uncertainty=InverseVariance(spectrum.uncertainty.array[:, ::-1]))  # fmt: skip
    micron = Spectrum(flux=spectrum.flux, spectral_axis=WAVE * 1e-4 * u.um, mask=spectrum.mask,
                      uncertainty=spectrum.uncertainty)  # fmt: skip
    for same in (each, SpectrumList(each), collection, frequency, turned, micron, [spectrum]):
        np.testing.assert_allclose(model.encode(same, z, lsf=POWER), wanted, atol=2e-3 * sigmas(wanted).min())
    for k in range(4):
        alone = model.encode(each[k], z[k], lsf=POWER)
        np.testing.assert_allclose(alone[0], wanted[k], atol=2e-3 * sigmas(wanted).min())
    # Parts forget what was known of the whole, copies do not.
    assert wanted[:2].covariance is None and (wanted * 2).coverage is None
    for same in (wanted.copy(), copy.copy(wanted), copy.deepcopy(wanted), pickle.loads(pickle.dumps(wanted))):
        assert type(same) is type(wanted) and same is not wanted and np.array_equal(same, wanted)
        for name in ("covariance", "coverage", "redshift"):
            assert np.array_equal(getattr(same, name), getattr(wanted, name))
            assert getattr(same, name) is not getattr(wanted, name)


def test_copies_of_a_model_give_the_same(model, galaxies):
    spectrum, z = galaxies[0][:2], galaxies[1][:2]
    wanted = model.encode(spectrum, z, lsf=POWER)
    for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(same.encode(spectrum, z, lsf=POWER), wanted)
        assert same.fit_info == model.fit_info and same.fit_info is not model.fit_info
        assert len(pickle.dumps(same)) < 1.1 * len(pickle.dumps((model.space, model.density, model.fit_info)))


def test_each_of_a_list_keeps_what_it_is(model, galaxies):
    """Galaxies with the same pixels, in several units and orders, each with its own meta."""
    spectrum, z = galaxies[0][:3], galaxies[1][:3]
    first, second, third = (row(spectrum, k) for k in range(3))
    factor = u.spectral_density(WAVE * u.AA)
    jansky = second.flux.to(u.mJy, factor)
    ivar = second.uncertainty.array / (jansky / second.flux).value ** 2
    other = Spectrum(flux=jansky, spectral_axis=second.spectral_axis, mask=second.mask, meta={"name": "b"},
                     uncertainty=InverseVariance(ivar))  # fmt: skip
    turned = Spectrum(flux=third.flux[::-1], spectral_axis=third.spectral_axis[::-1], mask=third.mask[::-1],
                      uncertainty=InverseVariance(third.uncertainty.array[::-1]), meta={"name": "c"})  # fmt: skip
    first.meta["name"] = "a"
    out = model.reconstruct([first, other, turned], z, lsf=POWER)
    wanted = model.reconstruct(spectrum, z, lsf=POWER).flux
    assert [one.meta["name"] for one in out] == ["a", "b", "c"]
    assert [one.flux.unit for one in out] == [UNIT, u.mJy, UNIT]
    np.testing.assert_allclose(out[1].flux.to_value(UNIT, factor), wanted[1].value, rtol=1e-5)
    np.testing.assert_array_equal(out[2].spectral_axis, turned.spectral_axis)
    np.testing.assert_allclose(out[2].flux.value[::-1], wanted[2].value, rtol=1e-5)


def test_a_collection_comes_back_as_one(model, galaxies):
    spectrum, z = galaxies[0][:2], galaxies[1][:2]
    axis = np.stack([WAVE, np.where(np.arange(900) < 800, WAVE, np.nan)])
    collection = SpectrumCollection(spectrum.flux, spectral_axis=axis * u.AA, mask=spectrum.mask,
                                    uncertainty=InverseVariance(spectrum.uncertainty.array),
                                    meta={"wavelength_medium": "vacuum", "name": "a"})  # fmt: skip
    out = model.reconstruct(collection, z, lsf=POWER)
    assert type(out) is SpectrumCollection and out.meta["chi2"].shape == (2,)
    assert out.meta["wavelength_medium"] == "vacuum" and out.meta["name"] == "a"
    axes = plot_reconstructions(collection, out)
    assert [ax.get_title(loc="left")[:11] for ax in axes] == [f"z = {value:.5f}" for value in z]
    assert [len(ax.lines[0].get_xdata()) for ax in axes] == [900, 800]
    plt.close(axes[0].figure)
    np.testing.assert_allclose(out.flux[0], model.reconstruct(spectrum, z, lsf=POWER).flux[0], rtol=1e-5)
    assert np.isnan(out.flux[1, 800:]).all() and out.mask[1, 800:].all() and np.isfinite(out.flux[1, :800]).all()


def test_a_square_of_galaxies_is_read_along_its_axis(model, galaxies):
    """As many galaxies as pixels."""
    spectrum, z = galaxies[0][:150], galaxies[1][:150]
    flux, mask, ivar = spectrum.flux[:, 400:550], spectrum.mask[:, 400:550], spectrum.uncertainty.array[:, 400:550]
    square = Spectrum(flux=flux, spectral_axis=WAVE[400:550] * u.AA, spectral_axis_index=1, mask=mask,
                      uncertainty=InverseVariance(ivar))  # fmt: skip
    wanted = model.encode([row(square, k) for k in range(3)], z[:3], lsf=POWER)
    np.testing.assert_allclose(model.encode(square, z, lsf=POWER)[:3], wanted, atol=2e-3 * sigmas(wanted).min())
    assert model.reconstruct(square, z, lsf=POWER).spectral_axis_index == 1
    first = Spectrum(flux=flux.T, spectral_axis=WAVE[400:550] * u.AA, spectral_axis_index=0, mask=mask.T,
                     uncertainty=InverseVariance(ivar.T))  # fmt: skip
    for call in (model.encode, model.reconstruct, model.fine_tune):
        with pytest.raises(ValueError, match="must have the spectral axis last, got it first; transpose"):
            call(first, z, lsf=POWER)


def test_reconstructions_come_as_the_spectra_came(model, galaxies):
    spectrum, z = galaxies[0][:3], galaxies[1][:3]
    wanted = model.reconstruct(spectrum, z, lsf=POWER)
    one = model.reconstruct(row(spectrum, 1), z[1], lsf=POWER)
    assert one.flux.shape == (900,)
    np.testing.assert_allclose(one.flux[~one.mask], wanted.flux[1][~one.mask], rtol=1e-4)
    some = model.reconstruct([row(spectrum, k) for k in range(3)], z, lsf=POWER)
    assert isinstance(some, SpectrumList) and [part.meta["redshift"] for part in some] == list(z)
    np.testing.assert_allclose(some[2].flux[~one.mask], wanted.flux[2][~one.mask], rtol=1e-4)
    jansky = row(spectrum, 0, flux=spectrum.flux[0].to(u.Jy, u.spectral_density(WAVE * u.AA)), uncertainty=None)
    jansky.uncertainty = InverseVariance(
        spectrum.uncertainty.array[0] * ((spectrum.flux[0] / jansky.flux).value) ** 2)  # fmt: skip
    out = model.reconstruct(jansky, z[0], lsf=POWER)
    assert out.flux.unit == u.Jy
    back = out.flux.to_value(UNIT, u.spectral_density(WAVE * u.AA))
    np.testing.assert_allclose(back[~out.mask], wanted.flux.value[0][~out.mask], rtol=1e-4)


def test_decode_is_what_was_encoded(model, galaxies):
    spectrum, z = galaxies[0][:5], galaxies[1][:5]
    latents = model.encode(spectrum, z, lsf=POWER)
    out = model.reconstruct(spectrum, z, lsf=POWER)
    inside = ~out.mask.any(axis=0)
    seen = model.decode(latents, z, WAVE[inside] * u.AA, POWER)
    assert seen.flux.unit == u.one and seen.flux.shape == (5, inside.sum())
    ratio = (out.flux.value[:, inside] / seen.flux.value)[:, 5:-5]
    np.testing.assert_allclose(ratio, np.median(ratio, axis=1, keepdims=True) * np.ones_like(ratio), rtol=1e-3)
    # Encoded again without noise, latents are the same.
    clean = Spectrum(flux=seen.flux.value * UNIT, spectral_axis=seen.spectral_axis,
                     uncertainty=InverseVariance(np.full(seen.flux.shape, 1e6)))  # fmt: skip
    again = model.encode(clean, z, lsf=POWER)
    np.testing.assert_allclose(again, np.asarray(latents), atol=0.02)
    # One galaxy, and an axis that runs down.
    np.testing.assert_allclose(model.decode(latents[1], z[1], WAVE[inside][::-1] * u.AA, POWER).flux[::-1],
                               seen.flux[1], rtol=1e-5)  # fmt: skip


def test_decode_through_a_resolution_matrix(model, galaxies):
    latents = model.encode(galaxies[0][:2], galaxies[1][:2], lsf=POWER)
    z, wave = [0.1, 0.12], BLUE[100:800]
    plain = model.decode(latents, z, wave * u.AA).flux.value
    rows, cols, values = BandedLSF(bands(wave)).triplets()
    matrix = np.zeros((len(wave), len(wave)))
    matrix[rows, cols] = values
    got = model.decode(latents, z, wave * u.AA, BandedLSF(bands(wave))).flux.value
    np.testing.assert_allclose(got, plain @ matrix.T, rtol=1e-5)


def test_rest_frame_beyond_the_pixels(model, galaxies):
    """A line that has left the pixels is recovered from what else is seen, much better than its population scatters."""
    spectrum, _, _, s = sdss(40, 9, lower=0.27, upper=0.3)
    z = sdss(40, 9, lower=0.27, upper=0.3)[1]
    assert WAVE[-1] / (1.27) < 5170  # Mg at 5176.6 is beyond; what it depends on is seen in the other lines
    rest = model.rest_frame(spectrum, z, lsf=POWER)
    table = rest.spectral_axis.to_value("AA")
    assert rest.flux.shape == (40, len(table)) and rest.flux.unit == UNIT

    def width(flux):
        line, side = np.abs(table - 5176.6) < 14, (np.abs(table - 5176.6) > 40) & (np.abs(table - 5176.6) < 90)
        return (1 - flux[:, line] / flux[:, side].mean(axis=1, keepdims=True)).sum(axis=1) * np.diff(table)[0]

    truth = 5.0 * np.exp(0.4 * s[:, 1])
    found = width(rest.flux.value)
    assert np.std(found - truth) < 0.6 * np.std(truth)
    one = model.rest_frame(row(spectrum, 2), z[2], lsf=POWER)
    np.testing.assert_allclose(one.flux, rest.flux[2], rtol=1e-3)


def test_one_galaxy_at_ten_redshifts(model):
    s = draw(6, 11)[0]
    population = np.sqrt(np.asarray(model._model.space.variance))
    spread = []
    for one in s:
        z = np.linspace(0.0, 0.3, 10)
        flux = seen(np.tile(one, (10, 1)), z, pixel_edges(WAVE), POWER)
        spectrum = Spectrum(flux=flux * UNIT, spectral_axis=WAVE * u.AA,
                            uncertainty=InverseVariance(np.full(flux.shape, SNR**2)))  # fmt: skip
        spread.append(np.asarray(model.encode(spectrum, z, lsf=POWER)).std(axis=0))
    spread = np.sqrt(np.mean(np.square(spread), axis=0))
    assert spread.max() < 0.15 * population.max() and (spread < 0.4 * population).all()


def test_two_surveys_agree(model):
    first, second = sdss(30, 21), desi(30, 21)
    np.testing.assert_array_equal(first[3], second[3])
    one, other = model.encode(first[0], first[1], lsf=POWER), model.encode(second[0], second[1])
    pull = (one - other) / np.sqrt(sigmas(one) ** 2 + sigmas(other) ** 2)
    # The middle 68 %, and the whole in parts of the population: rare galaxies, of which 310 have taught little, have
    # pulls of six to sixteen and decide a standard deviation, 1.7 to 2.9 with the seed of the training.
    low, high = np.quantile(pull, (0.16, 0.84))
    assert np.abs(np.median(pull, axis=0)).max() < 0.7 and (high - low) / 2 < 1.8
    assert np.linalg.norm(one - other) < 0.13 * np.linalg.norm(one)
    out = model.reconstruct(second[0], second[1])
    assert isinstance(out, SpectrumList) and [part.flux.shape for part in out] == [(30, 900), (30, 900)]
    for part, spectrum, clean in zip(out, second[0], second[2], strict=True):
        residual = ((part.flux.value - clean) * np.sqrt(spectrum.uncertainty.array))[~part.mask]
        assert np.sqrt((residual**2).mean()) < 0.5


def test_coverage_falls_with_the_window(model, galaxies):
    spectrum, z = galaxies[0][:6], galaxies[1][:6]
    before = np.ones(3)
    for last in (900, 500, 250, 120):
        mask = spectrum.mask | (np.arange(900) >= last)
        some = Spectrum(flux=spectrum.flux, spectral_axis=spectrum.spectral_axis, mask=mask,
                        uncertainty=spectrum.uncertainty)  # fmt: skip
        latents = model.encode(some, z, lsf=POWER)
        assert (latents.coverage.mean(axis=0) < before).all() and (latents.coverage >= 0).all()
        before = latents.coverage.mean(axis=0)
    assert (before < 0.4).all()


def test_coverage_is_the_part_of_a_change_that_pixels_see(model, galaxies):
    """By finite differences of decoded spectra, whose table reaches farther than the pixels."""
    spectrum, z = galaxies[0][:4], galaxies[1][:4]
    latents = model.encode(spectrum, z, lsf=POWER)
    table = model.spectral_axis.value
    edges = pixel_edges(WAVE)
    for k in range(4):
        pixel = np.searchsorted(edges[:, 1], table * (1 + z[k]))
        seen = (pixel < 900) & (table * (1 + z[k]) > edges[0, 0])
        seen[seen] = ~spectrum.mask[k][pixel[seen]]
        for j in range(3):
            step = 0.05 * np.eye(3)[j]
            both = model._model.rest(np.asarray(latents)[k] + [step, -step], np.ones(2))
            change = (both[0] - both[1]).astype(float) ** 2
            assert latents.coverage[k, j] == pytest.approx(change[seen].sum() / change.sum(), abs=0.01)


def test_redshifts(model, galaxies):
    spectrum, z = galaxies[0][:12], galaxies[1][:12]
    fit = model.fit_redshift(spectrum, lsf=POWER, bounds=(0.0, 0.35))
    assert (np.abs(fit.redshift - z) < 1e-3 * (1 + z)).all()
    pull = (fit.redshift - z) / fit.uncertainty
    assert 0.4 < np.std(pull) < 1.8 and np.abs(pull).max() < 5
    assert (fit.second > 9).all()
    assert fit.scan.colnames == ["redshift", "chi2"] and fit.scan["chi2"].shape == (len(fit.scan), 12)
    nearest = fit.scan["redshift"][np.argmin(fit.scan["chi2"], axis=0)]
    assert (np.abs(nearest - z) < 1e-3).all()
    one = model.fit_redshift(row(spectrum, 5), lsf=POWER, bounds=(0.0, 0.35))
    assert isinstance(one.redshift, float) and one.redshift == pytest.approx(fit.redshift[5], abs=1e-7)
    assert one.scan["chi2"].shape == (len(one.scan),)


def test_redshifts_of_cameras_and_lists(model, galaxies):
    cameras, z, _, _ = desi(3, 31)
    fit = model.fit_redshift(cameras, bounds=(0.0, 0.35))
    assert (np.abs(fit.redshift - z) < 1e-3).all()
    spectrum = galaxies[0]
    short = row(spectrum, 1)[:850]
    fit = model.fit_redshift([row(spectrum, 0), short, row(spectrum, 2)], lsf=POWER, bounds=(0.0, 0.35))
    assert (np.abs(fit.redshift - galaxies[1][:3]) < 1e-3).all()


def test_without_a_redshift_it_is_found(model, galaxies):
    spectrum, z = galaxies[0][:2], galaxies[1][:2]
    latents = model.encode(spectrum, lsf=POWER)
    assert (np.abs(latents.redshift - z) < 1e-3).all()
    np.testing.assert_array_equal(model.reconstruct(spectrum, lsf=POWER).meta["redshift"], latents.redshift)
    assert model.rest_frame(spectrum, lsf=POWER).flux.shape[0] == 2


def test_nearby_galaxies_do_not_approach(model):
    # At redshift zero half of all errors would be negative; what is found can be given to all methods.
    s, _, random = draw(10, 41)
    spectrum, _ = noisy(seen(s, np.zeros(10), pixel_edges(WAVE), POWER), WAVE, random)
    fit = model.fit_redshift(spectrum, lsf=POWER, bounds=(0.0, 0.1))
    assert 1 <= (fit.redshift == 0.0).sum() <= 9 and fit.redshift.max() < 5e-4
    np.testing.assert_array_equal(model.encode(spectrum, fit.redshift, lsf=POWER).redshift, fit.redshift)


def test_noise_is_ambiguous(model):
    random = np.random.default_rng(0)
    noise = Spectrum(flux=random.normal(1.0, 5.0, (2, 900)) * UNIT, spectral_axis=WAVE * u.AA,
                     uncertainty=InverseVariance(np.full((2, 900), 0.04)))  # fmt: skip
    with pytest.warns(BlaseWarning, match="of 2 redshifts are ambiguous"):
        model.fit_redshift(noise, lsf=POWER, bounds=(0.0, 0.3))


@pytest.mark.parametrize(("redshift", "error", "message"), [
    (-0.1, ValueError, "redshift must be finite and not negative, got -0.1"),
    (np.nan, ValueError, "redshift must be finite and not negative, got nan"),
    ("0.1 or so", TypeError, "redshift must be a number"),
    ([0.1, 0.2], ValueError, "redshift must have one value for each of 1 galaxies"),
    (3.0, CoverageError, r"redshift must bring 100 pixels onto the decoder's table, 3\d\d\d to 6\d\d\d Angstrom in the "
                         r"rest frame, got 3 for galaxy number 0, whose pixels are then at 107\d to 162\d Angstrom"),
])  # fmt: skip
def test_bad_redshifts(model, galaxies, redshift, error, message):
    for method in (model.encode, model.reconstruct, model.rest_frame):
        with pytest.raises(error, match=message):
            method(row(galaxies[0], 0), redshift, lsf=POWER)


def test_bad_spectra(model, galaxies):
    spectrum = galaxies[0]
    dark = row(spectrum, 0, uncertainty=InverseVariance(np.zeros(900)))
    none = row(spectrum, 0, uncertainty=None)
    kelvin = row(spectrum, 0, flux=np.ones(900) * u.K)
    far = row(spectrum, 0, spectral_axis=WAVE * 10 * u.AA)
    for some, error, message in ((dark, NoPixelsError, "at least 100 pixels .* got 0"),
                                 (none, ValueError, "must have uncertainties"),
                                 (kelvin, u.UnitsError, "flux density"),
                                 ("a name", TypeError, "must be a Spectrum")):  # fmt: skip
        for method in (model.encode, model.reconstruct, model.rest_frame):
            with pytest.raises(error, match=message):
                method(some, 0.1, lsf=POWER)
        with pytest.raises(error, match=message):
            model.fit_redshift(some, lsf=POWER)
    with pytest.raises(CoverageError, match="pixels are then at"):
        model.encode(far, 0.1, lsf=POWER)
    with pytest.raises(CoverageError, match=r"bounds must hold redshifts at which .*, got \(0.*with none for galaxy"):
        model.fit_redshift(far, lsf=POWER, bounds=(0.0, 0.3))


@pytest.mark.parametrize("bounds", [(0.3, 0.1), (-1.0, 0.1), (0.0, np.nan), (0.1, 0.1)])
def test_bad_bounds(model, galaxies, bounds):
    with pytest.raises(ValueError, match="bounds must be"):
        model.fit_redshift(row(galaxies[0], 0), lsf=POWER, bounds=bounds)


@pytest.mark.parametrize(("latents", "redshift", "axis", "error", "message"), [
    (np.zeros(4), 0.1, WAVE * u.AA, ValueError, r"latents must be finite and have the shape \(n, 3\), got \(4,\)"),
    ([0.0, np.nan, 0.0], 0.1, WAVE * u.AA, ValueError, "latents must be finite"),
    (np.zeros((1, 1, 3)), 0.1, WAVE * u.AA, ValueError, "latents must be finite and have the shape"),
    (np.zeros(3), -0.1, WAVE * u.AA, ValueError, "redshift must be finite and not negative"),
    (np.zeros(3), 0.1, WAVE, TypeError, "spectral_axis"),
    (np.zeros(3), 0.1, WAVE * u.Jy, u.UnitsError, "spectral_axis"),
    (np.zeros(3), 0.9, WAVE * u.AA, CoverageError, "spectral_axis must lie within the decoder's table, 3"),
])  # fmt: skip
def test_bad_input_of_decode(model, latents, redshift, axis, error, message):
    with pytest.raises(error, match=message):
        model.decode(latents, redshift, axis, POWER)


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"n_latents": 0}, ValueError, "n_latents must be a whole number, 1 or more, got 0"),
    ({"n_latents": 2.0}, ValueError, "n_latents must be a whole number"),
    ({"n_latents": 13}, ValueError, "n_latents must be no more than n_components = 12"),
    ({"n_components": 50}, ValueError, "spectra must have at least 500 galaxies for 50 components, got 310"),
    ({"epochs": True}, ValueError, "epochs must be a whole number"),
    ({"seed": -1}, ValueError, "seed must be a whole number, 0 or more, got -1"),
    ({"seed": "a"}, ValueError, "seed must be a whole number"),
    ({"seed": 2**64}, ValueError, r"seed must be less than 2\*\*63"),
    ({"validation": 0.0}, ValueError, "validation must be a part between 0 and 0.9"),
])  # fmt: skip
def test_bad_input_of_the_training(change, error, message):
    with pytest.raises(error, match=message):
        train(**change)


def test_surveys_and_redshifts_go_together():
    first, second = sdss(30, 0), desi(30, 1)
    with pytest.raises(ValueError, match="redshift must be a list with one for each of 2 surveys"):
        train_autoencoder([first[0], second[0]], first[1], lsf=[POWER, None], n_components=3, n_latents=2)
    with pytest.raises(ValueError, match="lsf must be a list with one for each of 2 surveys"):
        train_autoencoder([first[0], second[0]], [first[1], second[1]], lsf=POWER, n_components=3, n_latents=2)
    with pytest.raises(ValueError, match="redshift must have one value for each of 30 galaxies"):
        train_autoencoder(first[0], first[1][:7], lsf=POWER, n_components=3, n_latents=2)
    with pytest.raises(ValueError, match="redshift must be finite and not negative, got nan"):
        train_autoencoder(first[0], np.where(np.arange(30) == 4, np.nan, first[1]), lsf=POWER, n_components=3)


def test_random_numbers_of_others_are_left_alone(model, tmp_path):
    model.write(tmp_path / "model.asdf")
    before = torch.random.get_rng_state()
    SpectrumAutoencoder.read(tmp_path / "model.asdf").sample(3)
    first = sdss(60, 0)
    small = train_autoencoder(first[0], first[1], lsf=POWER, n_latents=2, n_components=4, epochs=2, progress=False)
    small.fine_tune(first[0], first[1], lsf=POWER, progress=False)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_galaxy_at_many_redshifts(model):
    latents = model.sample(1)
    many = model.decode(latents, [0.05, 0.1, 0.2], WAVE[200:600] * u.AA, POWER)
    assert many.flux.shape == (3, 400)
    for k, z in enumerate((0.05, 0.1, 0.2)):
        one = model.decode(latents[0], z, WAVE[200:600] * u.AA, POWER)
        np.testing.assert_allclose(many.flux[k], one.flux, rtol=1e-5)


def test_interrupted_training_goes_on_to_the_same_weights(tmp_path):
    first = sdss(60, 0)
    options = {"lsf": POWER, "n_latents": 2, "n_components": 4, "epochs": 20}
    told = []
    whole = train_autoencoder(first[0], first[1], progress=told.append, **options)
    assert any("training" in str(text) for text in told)

    def killed(text):
        if "training: 50" in str(text):
            raise KeyboardInterrupt

    path = tmp_path / "training.pt"
    with pytest.raises(KeyboardInterrupt):
        train_autoencoder(first[0], first[1], checkpoint=path, progress=killed, **options)
    resumed = train_autoencoder(first[0], first[1], checkpoint=path, **options)
    wanted, got = whole._model.space.state_dict(), resumed._model.space.state_dict()
    assert all((wanted[name] == got[name]).all() for name in wanted)
    # What cannot be used is said before any work.
    early = []
    with pytest.raises(FileNotFoundError, match="checkpoint must lie in a folder that exists"):
        train_autoencoder(first[0], first[1], checkpoint=tmp_path / "no" / "t.pt", progress=early.append, **options)
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(ValueError, match="checkpoint must be a file that such a run wrote"):
        train_autoencoder(first[0], first[1], checkpoint=tmp_path / "junk.pt", progress=early.append, **options)
    assert early == []
    # Other galaxies, or another seed, are another training.
    for change in ({"seed": 1}, {"n_latents": 3}):
        with pytest.raises(ValueError, match="checkpoint must belong to this run"):
            train_autoencoder(first[0], first[1], checkpoint=path, **{**options, **change})
    for redshift, change in ((first[1] + 1e-3, {}), (first[1], {"lsf": 1.1 * POWER})):
        with pytest.raises(ValueError, match="checkpoint must belong to this run, .* data "):
            train_autoencoder(first[0], redshift, checkpoint=path, **{**options, **change})


@pytest.mark.filterwarnings("ignore:errors of redshifts of 4 galaxies")
def test_tables_of_two_surveys_are_not_two_cameras():
    first, second = sdss(40, 0), sdss(40, 1)
    options = {"n_latents": 2, "n_components": 4, "epochs": 5}
    model = train_autoencoder([first[0], second[0]], [first[1], second[1]], lsf=[POWER, POWER], **options)
    assert model.fit_info["n_galaxies"] == 80
    cameras = train_autoencoder([first[0], second[0]], first[1], lsf=[POWER, POWER], **options)
    assert cameras.fit_info["n_galaxies"] == 40


@pytest.mark.parametrize("level", [0.0, -1.0])
def test_spectra_without_light_are_finite(model, galaxies, level):
    spectrum, z = galaxies[0][:2], galaxies[1][:2]
    dark = Spectrum(flux=level * spectrum.flux, spectral_axis=spectrum.spectral_axis, mask=spectrum.mask,
                    uncertainty=spectrum.uncertainty)  # fmt: skip
    latents = model.encode(dark, z, lsf=POWER)
    assert np.isfinite(latents).all() and np.isfinite(latents.covariance).all()
    assert np.isfinite(model.reconstruct(dark, z, lsf=POWER).meta["chi2"]).all()
    if level == 0.0:  # nothing but the prior: its centre, and its widths there
        whiten = lambda s: model.density.whiten(torch.as_tensor(np.atleast_2d(s))).detach().numpy()  # noqa: E731
        np.testing.assert_allclose(whiten(latents), 0.0, atol=0.02)
        center, h = np.asarray(latents[0]), 0.02
        slopes = np.array([(whiten(center + step) - whiten(center - step))[0] / (2 * h) for step in h * np.eye(3)]).T
        np.testing.assert_allclose(latents.covariance[0], np.linalg.inv(slopes.T @ slopes), rtol=0.15, atol=0.05)
        with pytest.warns(BlaseWarning, match="2 of 2 redshifts are ambiguous"):
            found = model.fit_redshift(dark, lsf=POWER, bounds=(0.0, 0.3))
        assert np.isfinite(found.redshift).all() and (found.second < 9).all()
        both = Spectrum(flux=np.concatenate([dark.flux, galaxies[0].flux[2:40]]), mask=galaxies[0].mask[:40],
                        spectral_axis=spectrum.spectral_axis, uncertainty=galaxies[0].uncertainty[:40])  # fmt: skip
        alone = model.fine_tune(dark, z, lsf=POWER, progress=False)
        assert torch.equal(alone.space.components, model.space.components)
        better = model.fine_tune(both, galaxies[1][:40], lsf=POWER, progress=False)
        assert torch.isfinite(better.space.components).all()


def test_fine_tuning(model, tmp_path):
    """Simulated galaxies have taught the model; observed ones have stronger lines, and one that no model knows."""
    def real(n, seed):
        s, z, random = draw(n, seed)
        line = 0.4 * np.exp(-0.5 * ((WAVE / (1.0 + z[:, None]) - 4600.0) / 6.0) ** 2)
        return noisy(seen(1.3 * s, z, pixel_edges(WAVE), POWER) + line, WAVE, random)[0], z

    def quality(model, spectrum, z):
        found = model.reconstruct(spectrum, z, lsf=POWER).meta
        return np.mean(found["chi2"] / found["n_pixels"])

    (spectrum, z), others = real(40, 11), real(60, 12)
    space = {name: value.clone() for name, value in model.space.state_dict().items()}
    better = model.fine_tune(spectrum, z, lsf=POWER, progress=False)
    assert all(value.equal(space[name]) for name, value in model.space.state_dict().items())
    assert all(value.equal(space[name]) for name, value in better.space.state_dict().items() if name != "components")
    assert better.density is model.density
    (told,) = better.fit_info["fine_tuning"]
    before, after = told["chi2_per_pixel"]
    assert before == pytest.approx(quality(model, spectrum, z)) and after == pytest.approx(quality(better, spectrum, z))
    assert before > 1.5 and after - 1.0 < 0.25 * (before - 1.0)
    assert quality(better, *others) - 1.0 < 0.3 * (quality(model, *others) - 1.0)
    found = better.fit_redshift(others[0][:10], lsf=POWER)
    assert (np.abs(found.redshift - others[1][:10]) < 5e-4).all()
    better.write(tmp_path / "better.asdf")
    again = SpectrumAutoencoder.read(tmp_path / "better.asdf")
    assert again.fit_info == better.fit_info and again.space.components.equal(better.space.components)
    twice = again.fine_tune(others[0], others[1], lsf=POWER, seed=3, progress=False)
    assert [one["n_galaxies"] for one in twice.fit_info["fine_tuning"]] == [40, 60]


def test_fine_tuning_of_cameras_and_of_one_galaxy(model, galaxies):
    cameras, z, *_ = desi(3, 4)
    spectrum, redshift, *_ = galaxies
    both = model.fine_tune([cameras, spectrum[:2]], [z, redshift[:2]], lsf=[None, POWER], progress=False)
    assert both.fit_info["fine_tuning"][0]["n_galaxies"] == 5
    told = []
    one = model.fine_tune(row(spectrum, 0), redshift[0], lsf=POWER, progress=told.append)
    # Galaxies that the model describes ask for nothing.
    assert max(one.fit_info["fine_tuning"][0]["deviations"]) <= 0.01 and "fine-tuning: 100 %" in "".join(told)
    with pytest.raises(CoverageError, match="redshift must bring"):
        model.fine_tune(row(spectrum, 0), 4.0, lsf=POWER)
    with pytest.raises(ValueError, match="redshift must"):
        model.fine_tune(row(spectrum, 0), np.nan, lsf=POWER)
    for bounds in ("ab", (0, 1, 2), (0.2, 0.1), (0.0, np.nan), 0.3):
        with pytest.raises(ValueError, match=r"bounds must be \(lowest, highest\) redshift"):
            model.fit_redshift(row(spectrum, 0), lsf=POWER, bounds=bounds)
    with pytest.raises(ValueError, match="seed must be a whole number, 0 or more, got 'a'"):
        model.fine_tune(row(spectrum, 0), z[0], lsf=POWER, seed="a")


def test_one_latent():
    spectrum, z, *_ = sdss(100, 3)
    model = train_autoencoder(spectrum, z, lsf=POWER, n_latents=1, n_components=3, epochs=10, progress=False)
    assert model.encode(spectrum[:4], z[:4], lsf=POWER).shape == (4, 1)
    assert model.log_probability(model.sample(5)).shape == (5,)


def test_whitened_latents_are_standard_normal(model):
    """The prior of `encode` is the density: by the change of variables, and of the galaxies that were learned from."""
    first, second = sdss(260, 0), desi(50, 1)
    latents = np.concatenate([model.encode(first[0], first[1], lsf=POWER), model.encode(second[0], second[1])])
    some = torch.as_tensor(latents, dtype=torch.float32)
    normal = model.density.whiten(some).detach()
    np.testing.assert_allclose(normal.mean(0), 0.0, atol=0.2)
    np.testing.assert_allclose(torch.cov(normal.T), np.eye(3), atol=0.3)
    slopes = torch.func.vmap(torch.func.jacrev(lambda s: model.density.whiten(s[None])[0]))(some[:20]).detach()
    volume = torch.linalg.slogdet(slopes)[1]
    wanted = -0.5 * (normal[:20] ** 2).sum(1) - 1.5 * np.log(2 * np.pi) + volume
    np.testing.assert_allclose(model.log_probability(latents[:20]), wanted, atol=1e-3)
    values, turn = model.space.whitened(some[:20], model.density.whiten)
    np.testing.assert_allclose(values, normal[:20], atol=1e-5)
    np.testing.assert_allclose(turn, slopes, rtol=1e-3, atol=1e-4)


def test_uncertainties_of_redshifts_are_those_of_other_galaxies(model, galaxies):
    spectrum = galaxies[0][:6]
    assert model.fit_info["redshift_factor"] >= 1.0
    assert model.fit_info["redshifts_compared"] == 31  # a tenth of the galaxies
    raw = SpectrumAutoencoder(model.space, model.density, {})  # as files before there was a factor
    more = SpectrumAutoencoder(model.space, model.density, {"redshift_factor": 2.5})
    one, other = more.fit_redshift(spectrum, lsf=POWER), raw.fit_redshift(spectrum, lsf=POWER)
    np.testing.assert_allclose(one.uncertainty, 2.5 * other.uncertainty, rtol=1e-9)
    np.testing.assert_array_equal(one.redshift, other.redshift)
    # Of forty others, 68 % are within one: to twice the standard error of that and of the factor.
    found = model.fit_redshift(galaxies[0], lsf=POWER)
    assert 0.65 < np.quantile(abs(found.redshift - galaxies[1]) / found.uncertainty, 0.68) < 1.5


def test_an_absurd_weight_is_refused(model, galaxies):
    spectrum = galaxies[0][:3]
    ivar = np.array(spectrum.uncertainty.array)
    ivar[1, 400] = 1e30
    wild = Spectrum(flux=spectrum.flux, spectral_axis=spectrum.spectral_axis, uncertainty=InverseVariance(ivar))
    with pytest.raises(ValueError, match=r"inverse variances .* got .*e\+\d\d times in galaxy number 1"):
        model.encode(wild, 0.1, lsf=POWER)
    ivar[1, 400] = 1e6 * np.median(ivar[1])  # that a pixel is known well is no error
    good = Spectrum(flux=spectrum.flux, spectral_axis=spectrum.spectral_axis, uncertainty=InverseVariance(ivar))
    assert np.isfinite(model.encode(good, 0.1, lsf=POWER)).all()


def test_no_galaxy_at_all(model, galaxies):
    none = galaxies[0][:0]
    for method in (lambda: model.encode(none, [], lsf=POWER), lambda: model.fit_redshift(none, lsf=POWER),
                   lambda: model.fine_tune(none, [], lsf=POWER)):  # fmt: skip
        with pytest.raises(ValueError, match="must have one galaxy at least, got none"):
            method()


def test_ambiguous_redshifts_that_encode_finds_are_told(model, galaxies):
    noise = Spectrum(flux=np.random.default_rng(0).normal(0.0, 1.0, (2, 900)) * UNIT, spectral_axis=WAVE * u.AA,
                     uncertainty=InverseVariance(np.ones((2, 900))))  # fmt: skip
    with pytest.warns(BlaseWarning, match="of 2 redshifts are ambiguous") as caught:
        model.encode(noise, lsf=POWER)
        model.reconstruct(noise, lsf=POWER)
        model.fit_redshift(noise, lsf=POWER)
    assert [one.filename for one in caught] == [__file__] * 3


def test_many_galaxies_are_fitted_in_pieces(model, galaxies, monkeypatch):
    spectrum, z = galaxies[0][:20], galaxies[1][:20]
    whole = model.encode(spectrum, z, lsf=POWER)
    with torch.inference_mode():
        again = model.encode(spectrum, z, lsf=POWER)
    monkeypatch.setattr("specutils_blase.solvers.galaxies.BATCH", 7)
    pieces = model.encode(spectrum, z, lsf=POWER)
    for same in (again, pieces):
        np.testing.assert_allclose(same, whole, atol=0.01 * sigmas(whole).min())
        np.testing.assert_allclose(same.covariance, whole.covariance, atol=0.01 * whole.covariance.max())


def test_a_survey_of_which_no_redshift_is_compared(model):
    """With resolution matrices, which are nobody's then."""
    cameras, z, *_ = desi(3, 4)
    spectrum, redshift, *_ = sdss(5, 6)
    groups, known = read_surveys([cameras, spectrum], [z, redshift], [None, POWER])
    fresh = GalaxyModel(model.space, model.density.whiten)
    factor, compared = fresh.redshift_factor(groups, known, np.array([4, 6]), lambda part: None)
    assert compared == 2 and factor >= 1.0


def test_a_catalogue_of_poor_redshifts_is_told():
    spectrum, z, *_ = sdss(200, 3)
    poor = np.abs(z + np.random.default_rng(0).normal(0.0, 3e-3, 200))
    with pytest.warns(BlaseWarning, match="errors of redshifts of 40 galaxies .* the known redshifts are not as good"):
        found = train_autoencoder(spectrum, poor, lsf=POWER, n_latents=3, n_components=6, epochs=10, validation=0.2)
    assert found.fit_info["redshift_factor"] > 5.0
