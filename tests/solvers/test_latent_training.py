"""The training of latents: exact resume, early stopping, seeds, and that something is learned."""

import numpy as np
import pytest
import torch

from specutils_blase.nn.latent_space import LatentSpace
from specutils_blase.solvers import latent_training
from specutils_blase.solvers.latent_training import train_latent_space
from specutils_blase.solvers.survey import Statistics

N, N_PIX, K, L = 640, 80, 5, 2
IDENTITY = {"seed": "0", "data": "these"}


def quiet(done, merit):
    pass


def sums_of(components, flux, weight):
    return Statistics(torch.einsum("kp,np,lp->nkl", components, weight, components),
                      torch.einsum("kp,np->nk", components, weight * flux), (weight * flux**2).sum(1),
                      (weight > 0).sum(1).float())  # fmt: skip


@pytest.fixture(scope="module")
def spectra():
    """A curved surface of two latents in five components, and noise: components, fluxes and weights."""
    random = torch.Generator().manual_seed(0)
    x = torch.linspace(0, 1, N_PIX)
    components = torch.stack([1.0 + 0.2 * x, *(0.3 * torch.cos(3 * (k + 1) * x) for k in range(K))])
    s = torch.randn(N, L, generator=random)
    v = torch.cat([torch.ones(N, 1), s, 0.5 * s**2 - 0.5, 0.5 * (s[:, :1] * s[:, 1:])], 1)
    weight = torch.full((N, N_PIX), 400.0)
    return components, v @ components + torch.randn(N, N_PIX, generator=random) / weight.sqrt(), weight


@pytest.fixture(scope="module")
def galaxies(spectra):
    sums = sums_of(*spectra)
    return spectra[0], sums.rows(slice(0, 512)), sums.rows(slice(512, None))


def fresh(components):
    torch.manual_seed(3)
    space = LatentSpace(K, L, first=4000.0, step=60.0, n_table=N_PIX, hidden=32)
    space.components.copy_(components)
    return space


def train(galaxies, *, epochs=60, seed=0, checkpoint=None, identity=IDENTITY, report=quiet, part=None):
    components, seen, kept = galaxies
    with torch.random.fork_rng(devices=[]):
        space = fresh(components)
        info = train_latent_space(space, seen, part or seen, kept, epochs=epochs, seed=seed, report=report,
                                  checkpoint=checkpoint, identity=identity)  # fmt: skip
    return space, info


@pytest.fixture(scope="module")
def trained(galaxies):
    return train(galaxies)


def same(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def linear_chi2(sums):
    """Chi2 per pixel of the best plane of two dimensions in the coefficients: what a linear map can reach."""
    v = torch.linalg.solve(sums.matrix, sums.vector[..., None])[..., 0]
    c = v[:, 1:] / v[:, :1]
    mean = c.mean(0)
    plane = torch.linalg.svd(c - mean, full_matrices=False)[2][:L]
    near = torch.cat([torch.ones(len(c), 1), mean + (c - mean) @ plane.T @ plane], 1)
    gain = (near * sums.vector).sum(1) ** 2 / torch.einsum("nk,nkl,nl->n", near, sums.matrix, near)
    return float(((sums.total - gain) / sums.n_pix).mean())


def test_learns_what_no_plane_can(galaxies, trained):
    space, info = trained
    _, _, kept = galaxies
    with torch.no_grad():
        latents = space.fit(kept.matrix, kept.vector)[0]
        chi2 = (kept.total - space.reduction(latents, kept.matrix, kept.vector)) / kept.n_pix
    assert float(chi2.median()) < 0.3 * linear_chi2(kept)
    assert float(chi2.median()) < 2.0
    assert info["validation"][-1] < 0.5 * info["validation"][0]
    assert len(info["validation"]) == len(info["training"]) == info["epochs"] // latent_training.LOOK


def test_a_part_of_the_pixels_tells_the_whole(spectra, galaxies, trained):
    """Half of the pixels, of galaxies that were not learned from: their latents, and what they say of the others."""
    components, flux, weight = spectra
    half = torch.where(torch.arange(N_PIX) < N_PIX // 2, weight, 0.0)
    part, whole = sums_of(components, flux, half), galaxies[2]
    less = part.rows(slice(512, None))
    found = []
    for space in (trained[0], train(galaxies, part=part.rows(slice(0, 512)))[0]):
        with torch.no_grad():
            one, other = space.guess(whole.matrix, whole.vector), space.guess(less.matrix, less.vector)
            chi2 = (whole.total - space.reduction(other, whole.matrix, whole.vector)) / whole.n_pix
        found.append((float((one - other).std() / one.std()), float(chi2.median())))
    (scatter, chi2), (smaller, lower) = found
    assert smaller < 0.8 * scatter and lower < 0.8 * chi2


def test_latents_are_normalized(galaxies, trained):
    space, _ = trained
    _, seen, _ = galaxies
    with torch.no_grad():
        latents = space.guess(seen.matrix, seen.vector)
    np.testing.assert_allclose(torch.cov(latents.T), torch.diag(space.variance), atol=1e-3)
    assert float(space.variance.mean()) == pytest.approx(1.0, abs=1e-4)


def test_seed(galaxies, trained):
    torch.rand(5)  # the global state of random numbers does not matter
    assert same(train(galaxies)[0], trained[0])
    assert not same(train(galaxies, seed=1)[0], trained[0])


@pytest.mark.parametrize("look", [1, 7, 12])
def test_exact_resume(galaxies, trained, tmp_path, look):
    looks = []

    def killed(done, merit):
        looks.append(done)
        if len(looks) == look:
            raise KeyboardInterrupt

    path = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        train(galaxies, checkpoint=path, report=killed)
    torch.rand(7)  # whatever happens between the two
    looks, killed_at = [], look
    space, info = train(galaxies, checkpoint=path, report=lambda done, merit: looks.append(done))
    assert same(space, trained[0])
    assert info == trained[1]
    # It went on, and did not begin anew.
    assert len(looks) == 12 - killed_at
    # Of a finished run nothing is left to do.
    again = train(galaxies, checkpoint=path, report=lambda done, merit: pytest.fail("ran"))
    assert same(again[0], trained[0]) and again[1] == trained[1]


def test_a_look_is_in_the_checkpoint_before_it_is_told(galaxies, tmp_path):
    path = tmp_path / "run.pt"
    seen = []
    train(galaxies, epochs=10, checkpoint=path, report=lambda done, merit: seen.append(path.exists()))
    assert seen == [True, True]


def test_early_stopping_keeps_the_best(galaxies, monkeypatch):
    merits = iter([5.0, 3.0, 4.0, 4.0, 2.5, *[9.0] * 50])
    weights = []

    def validation(space, kept):
        weights.append({name: value.clone() for name, value in space.state_dict().items()})
        return next(merits)

    monkeypatch.setattr(latent_training, "_validation", validation)
    monkeypatch.setattr(LatentSpace, "normalize", lambda self, *sums: None)
    space, info = train(galaxies, epochs=300)
    assert info["validation"] == [5.0, 3.0, 4.0, 4.0, 2.5, *[9.0] * 6]
    assert len(weights) == 11 and info["epochs"] == 55
    assert all(torch.equal(value, weights[4][name]) for name, value in space.state_dict().items())


def test_resume_after_early_stopping(galaxies, monkeypatch, tmp_path):
    merits = iter([2.0, *[9.0] * 50])
    monkeypatch.setattr(latent_training, "_validation", lambda space, kept: next(merits))
    path = tmp_path / "run.pt"
    space, info = train(galaxies, epochs=300, checkpoint=path)
    again, same_info = train(galaxies, epochs=300, checkpoint=path)
    assert same(again, space) and same_info == info


def test_foreign_checkpoint(galaxies, tmp_path):
    path = tmp_path / "run.pt"
    train(galaxies, epochs=5, checkpoint=path)
    with pytest.raises(ValueError, match=r"checkpoint must belong to this run, .* data \(these in the file, those now"):
        train(galaxies, epochs=5, checkpoint=path, identity={**IDENTITY, "data": "those"})
    path.write_text("no checkpoint")
    with pytest.raises(ValueError, match="checkpoint must be a file"):
        train(galaxies, epochs=5, checkpoint=path)


def test_a_bad_galaxy_does_not_lead(galaxies, trained):
    components, seen, kept = galaxies
    wrong = Statistics(seen.matrix, seen.vector.clone(), seen.total.clone(), seen.n_pix)
    wrong.vector[::100] = -wrong.vector[::100].flip(1) * 30.0
    wrong.total[::100] *= 1e4
    space, info = train((components, wrong, kept))
    assert min(info["validation"]) < 1.5 * min(trained[1]["validation"])


def test_nothing_finite_is_an_error(galaxies):
    components, seen, kept = galaxies
    wrong = Statistics(kept.matrix, kept.vector, torch.full_like(kept.total, torch.inf), kept.n_pix)
    with pytest.raises(ValueError, match="training found no weights with a finite chi2"):
        train((components, seen, wrong), epochs=10)


@pytest.mark.parametrize("epochs", [1, 10, 11])
def test_fewer_galaxies_than_a_batch(galaxies, epochs):
    components, seen, kept = galaxies
    space, info = train((components, seen.rows(slice(0, 40)), kept), epochs=epochs)
    assert info["epochs"] == epochs and len(info["validation"]) == -(-epochs // 5)
    assert all(bool(value.isfinite().all()) for value in space.state_dict().values())
