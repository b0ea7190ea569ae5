"""Sums over the pixels of galaxies, against dense matrices; spectra in the rest frame, against numpy."""

import math

import numpy as np
import pytest
import torch

from specutils_blase import BandedLSF
from specutils_blase.functional import SPEED_OF_LIGHT, pixel_edges
from specutils_blase.nn import Instrument
from specutils_blase.nn.observation import Observation
from specutils_blase.solvers.survey import Camera, Statistics, rest_frame_rows, statistics, statistics_of_each

FIRST, STEP, N_TABLE, N, K = 3800.0, 60.0, 700, 19, 4
SPACING = STEP / SPEED_OF_LIGHT


def dense(edges, power, bands, redshift):
    """The matrix from table to pixels, of Lagrange's polynomials, the response and the bands, and pixels it covers."""
    instrument = Instrument(edges, resolving_power=power, step=STEP, margin=1500.0)
    rows, cols, values = (x.detach().numpy() for x in instrument.response())
    response = np.zeros((len(edges), len(instrument.wave)))
    np.add.at(response, (rows, cols), values)
    place = (np.log(instrument.wave.numpy() / FIRST) - np.log1p(redshift)) / SPACING
    shift = np.zeros((len(place), N_TABLE))
    for i, where in enumerate(place):
        nodes = np.floor(where) + np.arange(-1, 3)
        for a in nodes:
            others = nodes[nodes != a]
            shift[i, int(np.clip(a, 0, N_TABLE - 1))] += np.prod((where - others) / (a - others))
    matrix = response @ shift
    if bands is not None:
        rows, cols, values = BandedLSF(bands).triplets()
        banded = np.zeros((len(edges), len(edges)))
        banded[rows, cols] = values
        matrix = banded @ matrix
    return matrix


def cameras():
    random = torch.Generator().manual_seed(0)
    blue = pixel_edges(torch.arange(3800.0, 4100.0, 1.2, dtype=torch.float64))
    red = pixel_edges(torch.arange(4080.0, 4300.0, 0.9, dtype=torch.float64))
    found = []
    for edges, power, n_diag in ((blue, 1700.0, 0), (red, None, 5)):
        instrument = Instrument(edges, resolving_power=power, step=STEP, margin=1500.0)
        n_pix = len(edges)
        flux = torch.randn(N, n_pix, dtype=torch.float64, generator=random)
        ivar = torch.rand(N, n_pix, dtype=torch.float64, generator=random)
        ivar[ivar < 0.2] = 0.0
        bands = torch.rand(N, n_diag, n_pix, dtype=torch.float64, generator=random) if n_diag else None
        found.append((edges, power, Camera(torch.log(edges).mean(1), flux, ivar,
                                           Observation(instrument, FIRST, torch.float64), bands)))  # fmt: skip
    return found


@pytest.fixture(scope="module")
def survey():
    random = torch.Generator().manual_seed(1)
    components = torch.randn(K, N_TABLE, dtype=torch.float64, generator=random)
    redshift = torch.rand(N, dtype=torch.float64, generator=random) * 0.08
    some = cameras()
    return some, redshift, components, statistics([camera for _, _, camera in some], redshift, components)


@pytest.mark.parametrize("k", [0, 7, 18])
def test_sums_against_dense_matrices(survey, k):
    some, redshift, components, sums = survey
    design, flux, weight = [], [], []
    for edges, power, camera in some:
        bands = None if camera.bands is None else camera.bands[k].numpy()
        design.append(dense(edges, power, bands, float(redshift[k])) @ components.numpy().T)
        covered = camera.observation.covered(redshift[k : k + 1], N_TABLE, 1 if bands is None else len(bands))[0]
        flux.append(camera.flux[k].numpy())
        weight.append(np.where(covered, camera.ivar[k], 0.0))
    design, flux, weight = np.concatenate(design), np.concatenate(flux), np.concatenate(weight)
    assert sums.n_pix[k] == (weight > 0).sum() > 200
    np.testing.assert_allclose(sums.matrix[k], design.T @ (weight[:, None] * design), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(sums.vector[k], design.T @ (weight * flux), rtol=1e-9, atol=1e-9)
    assert float(sums.total[k]) == pytest.approx((weight * flux**2).sum())
    # So chi2 of any coefficients is known.
    v = np.array([1.0, -0.3, 0.8, 2.0])
    chi2 = (weight * (flux - design @ v) ** 2).sum()
    got = sums.total[k].numpy() - 2 * v @ sums.vector[k].numpy() + v @ sums.matrix[k].numpy() @ v
    assert got == pytest.approx(chi2)


def test_versions_are_what_each_is_alone(survey):
    some, redshift, components, sums = survey
    whole = [camera for _, _, camera in some]
    part = [Camera(camera.ln_wave, camera.flux, torch.where(camera.ln_wave > math.log(4150), camera.ivar, 0.0),
                   camera.observation, camera.bands) for camera in whole]  # fmt: skip
    both = statistics_of_each([whole, part], redshift, components)
    alone = statistics(part, redshift, components)
    for name in ("matrix", "vector", "total", "n_pix"):
        np.testing.assert_array_equal(getattr(both[0], name), getattr(sums, name))
        np.testing.assert_array_equal(getattr(both[1], name), getattr(alone, name))
    assert bool((alone.n_pix < sums.n_pix).all())


def test_some_galaxies_and_parts(survey):
    some, redshift, components, sums = survey
    chosen = torch.tensor([17, 3])
    few = statistics([camera.rows(chosen) for _, _, camera in some], redshift[chosen], components)
    joined = Statistics.joined([sums.rows(chosen), few])
    for name in ("matrix", "vector", "total", "n_pix"):
        both = getattr(joined, name)
        np.testing.assert_allclose(both[:2], both[2:], rtol=1e-12)


def test_pixels_beyond_the_table_do_not_count():
    (_, _, camera), _ = cameras()
    components = torch.ones(1, 200, dtype=torch.float64)  # 3800 to 3955 Angstrom
    sums = statistics([camera], torch.zeros(N, dtype=torch.float64), components)
    last = FIRST * math.exp(199 * SPACING)
    wave = torch.exp(camera.ln_wave)
    sure, never = (wave > FIRST + 12) & (wave < last - 12), (wave > last) | (wave < FIRST)
    assert bool((sums.n_pix >= (camera.ivar[:, sure] > 0).sum(1)).all())
    assert bool((sums.n_pix <= (camera.ivar[:, ~never] > 0).sum(1)).all())


def rest_frame(camera, redshift, n_table=N_TABLE):
    return next(rest_frame_rows(camera, torch.tensor([redshift], dtype=torch.float64), FIRST, SPACING, n_table))


def test_rest_frame_is_linear_interpolation():
    (_, _, camera), (_, _, red) = cameras()
    camera = Camera(camera.ln_wave, camera.flux, torch.ones_like(camera.ivar), camera.observation)
    flux, ivar = rest_frame([camera], 0.03)
    wave = np.log(FIRST) + SPACING * np.arange(N_TABLE) + math.log1p(0.03)
    known = (wave >= float(camera.ln_wave[0])) & (wave <= float(camera.ln_wave[-1]))
    np.testing.assert_allclose(flux[known], np.interp(wave[known], camera.ln_wave, camera.flux[0]), rtol=1e-9)
    np.testing.assert_array_equal(ivar.numpy() > 0, known)
    # Samples carry the weight of the pixels that they are made from.
    pixels = (camera.ln_wave >= wave[0]) & (camera.ln_wave <= wave[-1])
    assert float(ivar.sum()) == pytest.approx(int(pixels.sum()), rel=0.01)
    # Of two cameras the one that knows more counts more; each keeps its own pixels.
    other = Camera(camera.ln_wave, camera.flux + 5.0, 3.0 * camera.ivar, camera.observation)
    both, weight = rest_frame([camera, other], 0.03)
    np.testing.assert_allclose(both[known], flux[known] + 15.0 / 4.0, rtol=1e-9)
    np.testing.assert_allclose(weight, 4.0 * ivar, rtol=1e-9)


def test_rest_frame_bridges_neither_bad_pixels_nor_gaps():
    (_, _, camera), (_, _, red) = cameras()
    ivar = torch.ones_like(camera.ivar)
    ivar[:, 100] = 0.0
    flux = torch.where(ivar > 0, camera.flux, 1e6)
    _, weight = rest_frame([Camera(camera.ln_wave, flux, ivar, camera.observation)], 0.0)
    wave = FIRST * np.exp(SPACING * np.arange(N_TABLE))
    bad = (wave > 3800 + 99 * 1.2) & (wave < 3800 + 101 * 1.2)
    assert (weight.numpy()[bad] == 0).all() and (weight.numpy()[(wave > 3805) & (wave < 4095) & ~bad] > 0).all()
    keep = (camera.ln_wave < math.log(3900)) | (camera.ln_wave > math.log(3950))
    gap = Camera(camera.ln_wave[keep], flux[:, keep], torch.ones_like(flux)[:, keep], camera.observation)
    _, weight = rest_frame([gap], 0.0)
    assert (weight.numpy()[(wave > 3900) & (wave < 3949)] == 0).all()
