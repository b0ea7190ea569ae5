"""Components that move to galaxies: the normal prior against scipy and numpy, and galaxies that a model lacks."""

import numpy as np
import pytest
import torch
from scipy import stats

from specutils_blase.functional import SPEED_OF_LIGHT, pixel_edges
from specutils_blase.nn import Instrument
from specutils_blase.nn.latent_space import LatentSpace
from specutils_blase.nn.observation import Observation
from specutils_blase.solvers import fine_tuning
from specutils_blase.solvers.survey import Camera

FIRST, STEP, N_TABLE, K, L = 4000.0, 70.0, 500, 3, 2


def test_changes_and_their_probability_are_those_of_a_normal_prior():
    random = np.random.default_rng(0)
    features, ivar, left = random.normal(size=(6, K)), random.uniform(0.5, 3.0, 6), random.normal(size=6)
    matrix, vector = (torch.from_numpy(x)[None] for x in (
        np.einsum("n,nk,nl->kl", ivar, features, features), np.einsum("n,nk,n->k", ivar, features, left)))  # fmt: skip
    logs = []
    for mean, others in ((0.0, 0.0), (0.3, 0.0), (0.0, 0.5), (0.7, 0.2)):
        prior = np.diag([mean, others, others]) ** 2
        covariance = np.diag(1.0 / ivar) + features @ prior @ features.T
        change, reduction, volume = fine_tuning._solved(matrix, vector, mean, others)
        np.testing.assert_allclose(change[0], prior @ features.T @ np.linalg.solve(covariance, left), atol=1e-12)
        logs.append((float((reduction - volume)[0]) / 2, stats.multivariate_normal.logpdf(left, cov=covariance)))
    ours, exact = np.array(logs).T
    np.testing.assert_allclose(ours - ours[0], exact - exact[0], atol=1e-10)


@pytest.mark.parametrize("true", [(0.0, 0.0), (0.03, 0.0), (0.0, 0.03), (0.1, 0.01)])
def test_deviations_that_are_most_likely_are_the_true_ones(true):
    random = np.random.default_rng(1)
    n, n_table, ivar = 8, 3000, 400.0
    features = np.column_stack([np.ones(n), random.normal(size=(n, K - 1))])
    changes = random.normal(size=(K, n_table)) * np.array([true[0], true[1], true[1]])[:, None]
    left = features @ changes + random.normal(size=(n, n_table)) * ivar**-0.5
    matrix = torch.from_numpy(ivar * features.T @ features).expand(n_table, K, K)
    found = fine_tuning._most_likely(matrix, torch.from_numpy(ivar * (features.T @ left).T))
    # Seven samples decide: the next one of the values that are tried is as likely now and then.
    for values, exact in zip(found, true, strict=True):
        assert values.median() == pytest.approx(exact, abs=3e-3)
        assert (values.mean() < 6e-3) if exact == 0.0 else (0.5 < values.mean() / exact < 1.5)


def test_deviations_are_those_of_each_wavelength():
    random = np.random.default_rng(2)
    features, ivar = np.column_stack([np.ones(5), random.normal(size=(5, K - 1))]), 400.0
    changes = np.zeros((K, 3000))
    changes[0, 1000:1100] = 0.2 * random.normal(size=100)
    left = features @ changes + random.normal(size=(5, 3000)) * ivar**-0.5
    matrix = torch.from_numpy(ivar * features.T @ features).expand(3000, K, K)
    mean, _ = fine_tuning._most_likely(matrix, torch.from_numpy(ivar * (features.T @ left).T))
    assert mean[1010:1090].min() >= 0.03
    assert max(mean[:980].median(), mean[1120:].median()) <= 3e-3


def space():
    """A linear model: the mean, a slope and a wave."""
    torch.manual_seed(0)
    model = LatentSpace(K - 1, L, first=FIRST, step=STEP, n_table=N_TABLE, hidden=8)
    x = torch.linspace(-1.0, 1.0, N_TABLE)
    model.components.copy_(torch.stack([torch.ones(N_TABLE), 0.3 * x, 0.2 * torch.cos(6.0 * x)]))
    with torch.no_grad():
        for network in (model.encoder, model.decoder):
            network[-1].weight.zero_()
            network[-1].bias.zero_()
    return model.requires_grad_(False)


def observed(model, n, seed, snr=30.0, line=0.0):
    """Galaxies with a line that the model lacks, stronger where the first latent is; and their noiseless spectra."""
    random = torch.Generator().manual_seed(seed)
    edges = pixel_edges(torch.arange(4300.0, 4700.0, 1.4, dtype=torch.float64))
    instrument = Instrument(edges, resolving_power=1500.0, step=STEP, margin=1500.0)
    observation = Observation(instrument, FIRST)
    latents, z = torch.randn(n, L, generator=random), 0.04 * torch.rand(n, generator=random, dtype=torch.float64) + 0.03
    wave = FIRST * torch.exp(torch.arange(N_TABLE) * (STEP / SPEED_OF_LIGHT))
    profile = torch.exp(-0.5 * ((wave - 4300.0) / 3.0) ** 2)
    flux = observation(model(latents) + line * (1.0 + 0.5 * latents[:, :1]) * profile, z)
    ivar = torch.full_like(flux, snr**2)
    ivar[:, 40:50] = 0.0
    noisy = flux + torch.randn(flux.shape, generator=random) / snr
    level = 1.0 + torch.rand(n, 1, generator=random)
    return [Camera(torch.log(edges).mean(1), level * noisy, ivar / level**2, observation)], z, level * flux


def quiet(done):
    pass


def errors(model, galaxies):
    """Reconstructions by the truth, over the noise, root mean square."""
    cameras, z, truth = galaxies
    coefficients, left = fine_tuning._left(model, cameras, z)
    good = left[0].ivar > 0
    factor = (cameras[0].ivar[good] / left[0].ivar[good]) ** -0.5
    guess = cameras[0].flux[good] - factor * left[0].flux[good]
    return float((((guess - truth[good]) ** 2) * cameras[0].ivar[good]).mean() ** 0.5)


@pytest.mark.parametrize("n", [1, 5, 300])
def test_a_line_that_the_model_lacks_is_learned(n, monkeypatch):
    monkeypatch.setattr(fine_tuning, "BATCH", 64)
    model, others = space(), observed(space(), 60, 9, line=0.5)
    galaxies = observed(model, n, 1, line=0.5)
    components, deviations = fine_tuning.moved_components(model, [galaxies[:2]], seed=0, report=quiet)
    moved = space()
    moved.components.copy_(components)
    before, after = errors(model, galaxies), errors(moved, galaxies)
    assert after < (0.7 if n < 300 else 0.3) * before
    # Galaxies that have taught nothing.
    assert errors(moved, others) < {1: 1.0, 5: 0.7, 300: 0.35}[n] * errors(model, others)
    assert max(deviations) >= 0.01


def test_galaxies_that_the_model_describes_change_little():
    model, galaxies = space(), observed(space(), 100, 2)
    components, deviations = fine_tuning.moved_components(model, [galaxies[:2]], seed=0, report=quiet)
    moved = space()
    moved.components.copy_(components)
    assert max(deviations) <= 3e-3
    assert errors(moved, galaxies) < 1.2 * errors(model, galaxies)


def test_a_hopeless_galaxy_does_not_free_the_others():
    model, (cameras, z, truth) = space(), observed(space(), 8, 5)
    flux = cameras[0].flux.clone()
    flux[0] *= 0.2 + 2.8 * torch.rand(flux.shape[1], generator=torch.Generator().manual_seed(0))
    spoiled = [Camera(cameras[0].ln_wave, flux, cameras[0].ivar, cameras[0].observation)]
    moved = space()
    moved.components.copy_(fine_tuning.moved_components(model, [(spoiled, z)], seed=0, report=quiet)[0])
    good = [cameras[0].rows(slice(1, None))], z[1:], truth[1:]
    assert errors(moved, good) < 1.5 * errors(model, good)


def test_surveys_add_up_and_nothing_changes_where_nothing_is_seen():
    model = space()
    galaxies = observed(model, 40, 3, line=0.5)
    cameras, z, _ = galaxies
    parts = [([cameras[0].rows(rows)], z[rows]) for rows in (slice(0, 25), slice(25, 40))]
    torch.manual_seed(0)
    whole, _, spread = fine_tuning._sums(model, [galaxies[:2]], torch.zeros(K, N_TABLE), torch.Generator())
    both, _, _ = fine_tuning._sums(model, parts, torch.zeros(K, N_TABLE), torch.Generator())
    np.testing.assert_allclose(whole, both, rtol=1e-4, atol=1e-3 * float(whole.abs().max()))
    assert 0.3 < spread < 1.0
    components, _ = fine_tuning.moved_components(model, [galaxies[:2]], seed=0, report=quiet)
    unseen = whole[:, 0, 0] == 0.0
    assert 0 < unseen.sum() < N_TABLE / 2
    assert torch.equal(components[:, unseen], model.components[:, unseen])
    assert torch.equal(model.components, space().components)
