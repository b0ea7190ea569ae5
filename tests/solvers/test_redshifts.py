"""Redshifts against brute force: least squares at every shift, a fine scan of chi2, galaxies of known redshifts."""

import math

import numpy as np
import pytest
import torch

from specutils_blase.functional import SPEED_OF_LIGHT, pixel_edges
from specutils_blase.nn import Instrument
from specutils_blase.nn.latent_space import LatentSpace
from specutils_blase.nn.observation import Observation
from specutils_blase.solvers.redshifts import Scanner, refine
from specutils_blase.solvers.survey import Camera, rest_frame_rows, statistics

FIRST, STEP, N_TABLE, K, L = 3500.0, 50.0, 3600, 5, 3
WAVE = FIRST * np.exp(np.arange(N_TABLE) * STEP / SPEED_OF_LIGHT)  # to 6378 Angstrom
EDGES = pixel_edges(torch.arange(4200.0, 5600.0, 1.4, dtype=torch.float64))


def bump(center, width=140.0):
    return np.exp(-0.5 * (SPEED_OF_LIGHT * np.log(WAVE / center) / width) ** 2)


@pytest.fixture(scope="module")
def space():
    """Emission, absorption, and a continuum that the latents tilt."""
    torch.manual_seed(0)
    found = LatentSpace(K, L, first=FIRST, step=STEP, n_table=N_TABLE, hidden=16)
    tilt = np.log(WAVE / 4700.0)
    mean = 1.0 + 0.3 * bump(3728.5) + 0.2 * bump(5008.2) - 0.3 * bump(3969.6) - 0.3 * bump(3934.8)
    rows = [mean, 0.3 * bump(3728.5) + 0.1 * bump(4862.7), 0.7 * tilt, 0.1 * bump(3969.6) + 0.2 * bump(5176.6),
            0.1 * bump(5008.2) + 0.03 * bump(4960.3), 0.1 * tilt**2]  # fmt: skip
    found.components.copy_(torch.tensor(np.array(rows)))
    with torch.no_grad():
        found.encoder[-1].weight.zero_()
        found.encoder[-1].bias.zero_()
        found.decoder[-1].weight.mul_(5.0)
    return found


@pytest.fixture(scope="module")
def observation():
    return Observation(Instrument(EDGES, resolving_power=1700.0, step=STEP, margin=1500.0), FIRST)


def galaxies(space, observation, n=24, snr=15.0, seed=1, lower=0.05, upper=0.19):
    random = torch.Generator().manual_seed(seed)
    z = lower + (upper - lower) * torch.rand(n, dtype=torch.float64, generator=random)
    latents = torch.randn(n, L, generator=random) * space.variance.sqrt()
    with torch.no_grad():
        flux = observation(space(latents), z)
    ivar = torch.full_like(flux, float(snr) ** 2) * (torch.rand(flux.shape, generator=random) > 0.03)
    flux = flux + torch.randn(flux.shape, generator=random) / snr
    camera = Camera(torch.log(EDGES).mean(1), torch.where(ivar > 0, flux, 0.0), ivar, observation)
    return z.numpy(), latents, camera


@pytest.fixture(scope="module")
def survey(space, observation):
    return galaxies(space, observation)


def test_scan_against_least_squares_at_every_shift(space, survey):
    _, _, camera = survey
    scanner = Scanner(space, [camera], 0.0, 0.25)
    chi2, share = scanner.scan([camera], 3)
    first = FIRST * math.exp(scanner.offset * scanner.spacing)
    here = torch.zeros(1, dtype=torch.float64)
    row = next(rest_frame_rows([camera.rows(slice(3, 4))], here, first, scanner.spacing, scanner.n_data))
    flux, weight = (x.double().numpy() for x in row)
    components = scanner._components(space, [camera]).double().numpy()
    level = (weight * flux).sum() / weight.sum()
    root = np.sqrt(weight)
    # what lies beyond the table is left to a running mean
    sums = [np.convolve(values, np.ones(101), "same") for values in (weight * flux, weight)]
    smooth = np.where(sums[1] > 0, sums[0] / np.maximum(sums[1], 1e-30), 0.0)
    left, outside, shares = [], [], []
    for shift in scanner.shifts.tolist():
        place = np.arange(scanner.n_data) + scanner.offset - shift
        on_table = (place >= 0) & (place < N_TABLE)
        design = np.where(on_table, components[:, place.clip(0, N_TABLE - 1)], 0.0).T * root[:, None]
        prior = np.eye(len(components)) / abs(level)
        prior[0, 0] = math.sqrt(1e-9 * weight.sum())
        # by normal equations, after a test that these are as good as least squares: there are many shifts
        rows, right = np.concatenate([design, prior]), np.concatenate([root * flux * on_table, np.zeros(len(prior))])
        solved = np.linalg.solve(rows.T @ rows, rows.T @ right)
        if shift % 100 == 0:
            np.testing.assert_allclose(rows @ solved, rows @ np.linalg.lstsq(rows, right, rcond=None)[0], atol=1e-6)
        left.append(((right - rows @ solved) ** 2).sum())
        outside.append((weight * (flux - smooth) ** 2)[~on_table].sum())
        shares.append((weight * on_table).sum() / weight.sum())
    left, outside, shares = (np.array(values) for values in (left, outside, shares))
    np.testing.assert_allclose(chi2.numpy(), left + outside, rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(share.numpy(), shares, atol=1e-6)


def test_grid_of_the_scan(space, survey):
    scanner = Scanner(space, [survey[2]], 0.01, 0.2)
    z = scanner.redshift.numpy()
    assert z[0] <= 0.01 and z[-1] >= 0.2
    np.testing.assert_allclose(np.diff(np.log1p(z)), STEP / SPEED_OF_LIGHT, rtol=1e-9)


def test_scan_finds_the_redshift(space, survey):
    truth, _, camera = survey
    scanner = Scanner(space, [camera], 0.0, 0.25)
    for k in range(len(truth)):
        candidates = scanner.candidates(*scanner.scan([camera], k))
        assert abs(candidates[0] - truth[k]) < 2 * STEP / SPEED_OF_LIGHT
        apart = np.abs(np.subtract.outer(np.log1p(candidates), np.log1p(candidates)))
        closest = apart[~np.eye(len(candidates), dtype=bool)].min(initial=math.inf)
        assert 1 <= len(candidates) <= 4 and closest * SPEED_OF_LIGHT > 1400


def test_candidates_need_a_share_of_the_pixels(space, survey):
    scanner = Scanner(space, [survey[2]], 0.0, 0.25)
    chi2 = torch.linspace(2.0, 1.0, len(scanner.redshift), dtype=torch.float64)
    share = torch.where(scanner.redshift < 0.1, 0.5, 0.2)
    found = scanner.candidates(chi2, share)
    assert max(found) == found[0] and 0.099 < found[0] < 0.1
    assert scanner.candidates(chi2, torch.zeros_like(share)) == []


def bent(s):
    """A prior in which the second latent follows the first."""
    return torch.stack([s[:, 0], 2.0 * (s[:, 1] - 0.4 * s[:, 0] ** 2), torch.asinh(2.0 * s[:, 2])], 1)


def profile(space, camera, k, redshifts, whiten):
    """Chi2 with the prior, least over latents and factor, at each redshift."""
    one = camera.rows(slice(k, k + 1)).rows(torch.zeros(len(redshifts), dtype=torch.int64))
    sums = statistics([one], torch.as_tensor(redshifts), space.components)
    matrix, vector = sums.matrix.double(), sums.vector.double()
    double = LatentSpace(**space.config).double()
    double.load_state_dict(space.state_dict())
    with torch.no_grad():
        latents = double.fit(matrix, vector, whiten, steps=20)[0]
        return sums.total.double() + double._merits(latents[None], matrix, vector, whiten)[0]


@pytest.mark.parametrize("whiten", [None, bent])
def test_refined_redshift_and_error_against_a_fine_scan(space, survey, whiten):
    truth, _, camera = survey
    for k in range(6):
        one = [camera.rows(slice(k, k + 1))]
        z, error, chi2, _, latents = refine(space, one, float(truth[k]) + 1e-4, whiten)
        assert latents.shape == (L,)
        trial = z + error * np.linspace(-2, 2, 41)
        values = profile(space, camera, k, trial, whiten).numpy()
        # At least two in chi2 above the minimum, at two standard deviations; and a parabola about it.
        curve = np.polyfit((trial - z) / error, values, 2)
        assert abs(-0.5 * curve[1] / curve[0]) < 0.1  # the minimum is where refine says
        assert curve[0] == pytest.approx(1.0, abs=0.12)  # one standard deviation is one in chi2
        assert chi2 == pytest.approx(values.min(), abs=0.03)


def test_a_line_beyond_the_table_is_left_unexplained(space, survey):
    """The chi2 of the other pixels does not depend on the model, and a line there is in it."""
    truth, _, camera = survey
    one = camera.rows(slice(2, 3))
    z = float(truth[2]) + 0.12  # where the bluest pixels lie beyond the table
    *_, outside, _ = refine(space, [one], z)
    flux = one.flux.clone()
    flux[0, :5] += 3.0
    changed = Camera(one.ln_wave, flux, one.ivar, one.observation)
    *_, more, _ = refine(space, [changed], z)
    assert more > outside + 0.5 * float((one.ivar[0, :5] * 9.0).sum())


def test_pulls(space, observation):
    truth, _, camera = galaxies(space, observation, n=60, snr=8.0, seed=3)
    pulls = []
    for k, z in enumerate(truth):
        found, error, *_ = refine(space, [camera.rows(slice(k, k + 1))], float(z) + 1e-4 * (-1) ** k)
        pulls.append((found - z) / error)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.25)
    assert abs(np.mean(pulls)) < 0.35  # 2.7 times its standard deviation


def test_without_noise_nothing_is_left(space, observation):
    truth, latents, camera = galaxies(space, observation, n=6, snr=300.0, seed=4)
    with torch.no_grad():
        clean = observation(space(latents), torch.from_numpy(truth))
    camera = Camera(camera.ln_wave, torch.where(camera.ivar > 0, clean, 0.0), camera.ivar, observation)
    for k, z in enumerate(truth):
        found, _, chi2, _, _ = refine(space, [camera.rows(slice(k, k + 1))], float(z) + 8e-5)
        assert SPEED_OF_LIGHT * abs(found - z) < 0.3  # a three-hundredth of a pixel


def test_pixels_at_the_end_of_the_table_do_not_hold_a_redshift(space, observation):
    # Pixels end beyond the table: steps change which ones are covered, chi2 must not jump with them.
    truth, _, camera = galaxies(space, observation, n=8, snr=15.0, seed=5, lower=0.215, upper=0.235)
    assert not bool(observation.covered(torch.from_numpy(truth), N_TABLE).all())
    for k, z in enumerate(truth):
        found = [refine(space, [camera.rows(slice(k, k + 1))], float(z) + start)[:2] for start in (-1.5e-4, 1.5e-4)]
        assert abs(found[0][0] - found[1][0]) < 0.15 * found[0][1]


def test_scaled_spectra_have_the_same_redshift(space, survey):
    truth, _, camera = survey
    scaled = Camera(camera.ln_wave, 40.0 * camera.flux, camera.ivar / 1600.0, camera.observation)
    one, other = (refine(space, [some.rows(slice(2, 3))], float(truth[2]) + 5e-5) for some in (camera, scaled))
    assert other[0] == pytest.approx(one[0], abs=0.02 * one[1]) and other[1] == pytest.approx(one[1], rel=1e-3)


def test_nothing_seen_stays_where_it_is(space, survey):
    _, _, camera = survey
    dark = Camera(camera.ln_wave, camera.flux, torch.zeros_like(camera.ivar), camera.observation)
    z, error, chi2, *_ = refine(space, [dark.rows(slice(0, 1))], 0.1)
    assert z == pytest.approx(0.1) and error > 1.0 and math.isfinite(chi2)


def test_what_never_overlaps_is_not_seen(space, survey):
    """Redshifts so far off that the period of the transforms would bring the pixels back onto the table."""
    _, _, camera = survey
    far = Camera(camera.ln_wave + math.log(12.0), camera.flux, camera.ivar, camera.observation)
    scanner = Scanner(space, [far], 0.0, 0.3)
    chi2, share = scanner.scan([far], 0)
    assert bool((share == 0).all()) and bool(chi2.isfinite().all())
    assert scanner.candidates(chi2, share) == []
