"""Tabulated spectra through an instrument, against the instrument itself and dense matrices."""

import math

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array

from specutils_blase import BandedLSF
from specutils_blase.functional import SPEED_OF_LIGHT, pixel_edges
from specutils_blase.nn import Instrument
from specutils_blase.nn.observation import Observation

FIRST, STEP, N_TABLE = 3500.0, 30.0, 2400
WAVE = FIRST * np.exp(np.arange(N_TABLE) * STEP / SPEED_OF_LIGHT)
EDGES = pixel_edges(torch.cat([torch.arange(4000.0, 4060.0, 0.9), torch.arange(4065.0, 4100.0, 1.3)]).double())
N_PIX = len(EDGES)
REDSHIFT = torch.tensor([0.0, 0.03, 0.0712345], dtype=torch.float64)


def galaxy(wave):
    """A smooth continuum, an emission and an absorption line of three samples in standard deviation."""
    line = sum(depth * np.exp(-0.5 * (SPEED_OF_LIGHT * np.log(wave / center) / 90.0) ** 2)
               for center, depth in [(3780.0, 2.0), (3930.0, -0.5), (4040.0, 1.0)])  # fmt: skip
    return torch.as_tensor((wave / 4000.0) ** 1.5 + line)


def instrument(power=1800.0):
    return Instrument(EDGES, resolving_power=power, step=STEP, margin=1500.0)


def bands(n_diag=5, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.rand(3, n_diag, N_PIX, dtype=torch.float64, generator=random)


@pytest.fixture(scope="module")
def observation():
    return Observation(instrument(), FIRST, torch.float64)


@pytest.mark.parametrize("power", [1800.0, None])
def test_against_the_instrument_on_the_shifted_galaxy(power):
    some = instrument(power)
    got = Observation(some, FIRST, torch.float64)(galaxy(WAVE).expand(3, -1), REDSHIFT)
    for k, z in enumerate(REDSHIFT.numpy()):
        wanted = some(galaxy(some.wave.numpy() / (1 + z))).detach()
        # The table is interpolated: 0.02 h^4 f'''' of a line of three samples.
        np.testing.assert_allclose(got[k], wanted, atol=2.0 * 0.023 * 3 / 3.0**4)
        assert float((got[k] - wanted).abs().mean()) < 1e-4


def test_redshift_zero_on_the_samples_is_the_instrument_alone():
    some = instrument()
    first = float(some.wave[0]) * math.exp(-20 * STEP / SPEED_OF_LIGHT)
    table = galaxy(first * np.exp(np.arange(len(some.wave) + 40) * STEP / SPEED_OF_LIGHT))
    got = Observation(some, first, torch.float64)(table, torch.zeros(1, dtype=torch.float64))[0]
    np.testing.assert_allclose(got, some(table[20 : 20 + len(some.wave)]).detach(), rtol=1e-9)


def test_batch_is_a_loop(observation):
    tables = torch.stack([galaxy(WAVE), galaxy(WAVE) ** 2, galaxy(WAVE).flip(0)])
    together = observation(tables, REDSHIFT, bands())
    for k in range(3):
        np.testing.assert_allclose(together[k], observation(tables[k], REDSHIFT[k : k + 1], bands()[k])[0], rtol=1e-12)


def test_resolution_matrix(observation):
    table = galaxy(WAVE).expand(3, -1)
    plain, got = observation(table, REDSHIFT), observation(table, REDSHIFT, bands())
    for k in range(3):
        rows, cols, values = BandedLSF(bands()[k].numpy()).triplets()
        matrix = coo_array((values, (rows, cols)), shape=(N_PIX, N_PIX))
        np.testing.assert_allclose(got[k], matrix @ plain[k].numpy(), rtol=1e-12)


@pytest.mark.parametrize("with_bands", [False, True])
def test_gradients(with_bands):
    some = Instrument(EDGES[:8], resolving_power=1500.0, step=80.0, margin=900.0)
    observation = Observation(some, 3950.0, torch.float64)
    random = torch.Generator().manual_seed(0)
    flux = torch.randn(2, 60, dtype=torch.float64, generator=random, requires_grad=True)
    z = torch.tensor([0.0012, 0.0071], dtype=torch.float64, requires_grad=True)
    matrices = bands(3)[:2, :, :8] if with_bands else None
    assert torch.autograd.gradcheck(lambda flux: observation(flux, z.detach(), matrices), (flux,))
    # A redshift is thousands of samples: the step is small against one of them.
    assert torch.autograd.gradcheck(lambda z: observation(flux.detach(), z, matrices), (z,), eps=1e-8, rtol=1e-4)


@pytest.mark.parametrize("power", [1800.0, None])
@pytest.mark.parametrize("n_diag", [1, 5])
def test_covered_by_brute_force(observation, n_diag, power):
    """What lies beyond the ends of short tables must not matter to pixels that are covered."""
    z = torch.linspace(0.0, 0.004, 23, dtype=torch.float64)
    matrices = None if n_diag == 1 else bands(n_diag)[0]
    here, before = (Observation(instrument(power), first, torch.float64)
                    for first in (3990.0, 3990.0 * math.exp(-50 * STEP / SPEED_OF_LIGHT)))  # fmt: skip
    for n_table in (100, 200, 300):
        covered = here.covered(z, n_table, n_diag)
        assert 0 < covered.sum() < covered.numel()
        table = torch.randn(n_table, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        longer = torch.cat([torch.full((50,), 1e3), table, torch.full((50,), -1e3)]).double()
        same = torch.isclose(here(table, z, matrices), before(longer, z, matrices), rtol=0, atol=1e-6)
        assert bool(same[covered].all())
        if n_diag == 1:  # not much is given away: wings without light, and a sample at each end
            assert (same & ~covered).sum() < 0.15 * same.sum()
    # At no end of a long table is anything lost.
    assert bool(observation.covered(REDSHIFT, N_TABLE, n_diag).all())


def test_blur_is_that_of_line_spread_function_and_pixel():
    sigma = 4040.0 / 2.3548 / 1800.0
    pixel = (EDGES[:, 1] - EDGES[:, 0]).pow(2).mean().sqrt() / math.sqrt(12.0)
    wanted = math.hypot(sigma, pixel) / 4040.0 * SPEED_OF_LIGHT / STEP
    assert Observation(instrument(), FIRST).blur == pytest.approx(wanted, rel=0.01)


def test_weights_hold_no_instrument(observation):
    assert observation.state_dict() == {}
