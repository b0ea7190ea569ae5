"""Latents and spectra: minima against scipy, covariances against finite differences, sums against least squares."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from specutils_blase.nn.latent_space import LatentSpace

N, N_PIX, K, L = 12, 60, 6, 3


def latent_space(seed=0):
    """A decoder that bends: its network is not negligible."""
    torch.manual_seed(seed)
    space = LatentSpace(K, L, first=4000.0, step=60.0, n_table=N_PIX, hidden=16).double()
    x = torch.linspace(0, 1, N_PIX, dtype=torch.float64)
    space.components.copy_(torch.stack([1.0 + 0.3 * x, *(0.3 * torch.sin(4 * (k + 1) * x + k) for k in range(K))]))
    space.variance.copy_(torch.tensor([1.6, 1.0, 0.4]))
    with torch.no_grad():
        space.decoder[-1].weight.mul_(15.0)
        space.from_latents.weight.add_(0.2 * torch.randn(K, L))
    return space


def observed(space, noise=0.05, seed=1):
    """Latents and factors of galaxies, their fluxes and weights, and the sums over their pixels."""
    random = torch.Generator().manual_seed(seed)
    latents = torch.randn(N, L, dtype=torch.float64, generator=random) * space.variance.sqrt()
    factor = torch.exp(0.5 * torch.randn(N, 1, dtype=torch.float64, generator=random))
    weight = torch.rand(N, N_PIX, dtype=torch.float64, generator=random) / noise**2
    weight[weight < 0.2 / noise**2] = 0.0
    flux = (factor * space(latents)).detach()
    flux = flux + torch.randn(N, N_PIX, dtype=torch.float64, generator=random) / weight.clamp_min(1e-2).sqrt()
    design = space.components
    matrix = torch.einsum("kp,np,lp->nkl", design, weight, design)
    return latents, factor[:, 0], flux, weight, matrix, torch.einsum("kp,np->nk", design, weight * flux)


@pytest.fixture(scope="module")
def galaxies():
    space = latent_space()
    return space, *observed(space)


def merit(space, latents, flux, weight):
    """Chi2 at the best factor and the prior, from the pixels."""
    with torch.no_grad():
        model = space(torch.as_tensor(latents)[None])[0]
    factor = (weight * model * flux).sum() / (weight * model**2).sum()
    chi2 = (weight * (flux - factor * model) ** 2).sum() + (torch.as_tensor(latents) ** 2 / space.variance).sum()
    return float(chi2)


def test_factor_and_reduction_are_least_squares(galaxies):
    space, latents, _, flux, weight, matrix, vector = galaxies
    with torch.no_grad():
        factor, gain = space.factor(latents, matrix, vector), space.reduction(latents, matrix, vector)
        model = space(latents)
    for k in range(N):
        root = weight[k].sqrt().numpy()
        solved, left, _, _ = np.linalg.lstsq((root * model[k].numpy())[:, None], root * flux[k].numpy(), rcond=None)
        assert float(factor[k]) == pytest.approx(solved[0])
        assert float((weight[k] * flux[k] ** 2).sum() - gain[k]) == pytest.approx(left[0])


def test_spectra_are_sums_of_components(galaxies):
    space, latents = galaxies[:2]
    with torch.no_grad():
        some = space.coefficients(latents)
        assert bool((some[:, 0] == 1).all())
        network = space.decoder(latents) + latents @ space.from_latents.weight.T + space.from_latents.bias
        np.testing.assert_allclose(space(latents), space.components[0] + network @ space.components[1:], rtol=1e-12)


def test_guess_is_least_squares_with_the_prior_of_the_coefficients(galaxies):
    # With as many latents as components and no network, latents are the coefficients.
    _, _, _, flux, weight, matrix, vector = galaxies
    space = LatentSpace(K, K, first=4000.0, step=60.0, n_table=N_PIX).double()
    space.components.copy_(galaxies[0].components)
    with torch.no_grad():
        for layer in (space.encoder[-1], space.decoder[-1]):
            layer.weight.zero_()
            layer.bias.zero_()
        got = space.guess(matrix, vector)
    for k in range(N):
        level = abs(float(vector[k, 0] / matrix[k, 0, 0]))
        design = weight[k].sqrt()[:, None].numpy() * space.components.T.numpy()
        prior = np.eye(K + 1)[1:] / level
        rows = np.concatenate([design, prior])
        right = np.concatenate([(weight[k].sqrt() * flux[k]).numpy(), np.zeros(K)])
        solved = np.linalg.lstsq(rows, right, rcond=None)[0]
        np.testing.assert_allclose(got[k], solved[1:] / solved[0], atol=2e-3)


def test_fit_finds_the_minimum_that_scipy_finds(galaxies):
    space, truth, factor, flux, weight, matrix, vector = galaxies
    found, _, size = (x.detach() for x in space.fit(matrix, vector, steps=30))
    for k in range(0, N, 3):
        best = min((minimize(lambda s: merit(space, s, flux[k], weight[k]), start.numpy())  # noqa: B023
                    for start in (truth[k], found[k])), key=lambda some: some.fun)  # fmt: skip
        assert merit(space, found[k], flux[k], weight[k]) == pytest.approx(best.fun, abs=0.02)
        np.testing.assert_allclose(found[k], best.x, atol=0.01)
    np.testing.assert_allclose(size, factor, rtol=0.1)


def bent(s):
    """A prior that is not normal: to the second latent belongs a parabola of the first, and the third has a tail."""
    return torch.stack([s[:, 0] / 1.3, s[:, 1] - 0.5 * (s[:, 0] ** 2 - 1.6), torch.asinh(3.0 * s[:, 2])], 1)


def test_fit_with_another_prior_finds_the_minimum_that_scipy_finds():
    space = latent_space()
    truth, _, flux, weight, matrix, vector = observed(space, noise=0.5)  # the prior matters

    def value(s, k):
        normal = bent(torch.as_tensor(s)[None])
        return merit(space, s, flux[k], weight[k]) - float((torch.as_tensor(s) ** 2 / space.variance).sum()) + float(
            (normal**2).sum())  # fmt: skip

    found, covariance, _ = (x.detach() for x in space.fit(matrix, vector, bent, steps=60))
    plain = space.fit(matrix, vector, steps=60)[0].detach()
    for k in range(0, N, 2):
        best = min((minimize(value, start.numpy(), args=(k,)) for start in (truth[k], found[k])),
                   key=lambda some: some.fun)  # fmt: skip
        assert value(found[k], k) == pytest.approx(best.fun, abs=0.02)
    assert float((found - plain).abs().max()) > 0.3
    # Where nothing is seen, all is the prior: its centre, and its slopes there.
    nothing = torch.zeros_like(matrix[:1]), torch.zeros_like(vector[:1])
    center, covariance, _ = (x.detach() for x in space.fit(*nothing, bent, steps=60))
    np.testing.assert_allclose(center, [[0.0, -0.8, 0.0]], atol=1e-3)
    np.testing.assert_allclose(covariance[0], np.diag([1.69, 1.0, 1.0 / 9.0]), atol=1e-3)


def test_residuals_of_the_prior_and_their_slopes(galaxies):
    space, latents = galaxies[:2]
    values, slopes = space.whitened(latents, bent)
    assert not values.requires_grad and not slopes.requires_grad
    np.testing.assert_allclose(values, bent(latents))
    np.testing.assert_allclose(slopes, torch.func.vmap(torch.func.jacrev(lambda s: bent(s[None])[0]))(latents))
    with torch.no_grad():  # fits of galaxies keep no graph
        np.testing.assert_array_equal(space.whitened(latents, bent)[1], slopes)
    some = latents.clone().requires_grad_()
    (second,) = torch.autograd.grad(space.whitened(some, bent)[1][:, 1, 0].sum(), some)
    np.testing.assert_allclose(second, [[-1.0, 0.0, 0.0]] * N, atol=1e-12)
    values, slopes = space.whitened(latents)
    np.testing.assert_allclose(values, latents / space.variance.sqrt())
    np.testing.assert_allclose(slopes[3], torch.diag(space.variance**-0.5))


def test_few_steps_from_a_bad_start_only_improve(galaxies):
    # The encoder knows nothing of this decoder: every step is downhill or none.
    space, _, _, flux, weight, matrix, vector = galaxies
    before = None
    for steps in range(5):
        found = space.fit(matrix, vector, steps=steps)[0].detach()
        now = np.array([merit(space, found[k], flux[k], weight[k]) for k in range(N)])
        assert before is None or (now <= before + 1e-9).all()
        before = now


def test_covariance_against_finite_differences():
    # Without noise the residuals vanish, and Gauss-Newton has all of the curvature but that of the shifted minimum.
    space = latent_space()
    _, _, flux, weight, matrix, vector = observed(space, noise=1e-3)
    model = space(observed(space)[0]).detach()
    flux = 0.7 * model
    vector = torch.einsum("kp,np->nk", space.components, weight * flux)
    found, covariance, _ = (x.detach() for x in space.fit(matrix, vector, steps=40))
    h = 1e-4
    for k in range(4):
        value = lambda i, j, a, b: merit(  # noqa: E731
            space, found[k] + h * a * torch.eye(L).double()[i] + h * b * torch.eye(L).double()[j], flux[k], weight[k])  # noqa: B023  # fmt: skip
        half = np.array([[sum(a * b * value(i, j, a, b) for a in (-1, 1) for b in (-1, 1)) / (8 * h**2)
                          for j in range(L)] for i in range(L)])  # fmt: skip
        np.testing.assert_allclose(covariance[k], np.linalg.inv(half), rtol=5e-3, atol=1e-3 * covariance[k].max())


def test_errors_of_latents_are_right():
    space = latent_space()
    parts = [observed(space, noise=0.02, seed=seed) for seed in range(30)]
    truth, matrix, vector = (torch.cat([part[k] for part in parts]) for k in (0, 4, 5))
    found, covariance, _ = (x.detach() for x in space.fit(matrix, vector, steps=15))
    good = (found - truth).abs().max(1).values < 1.0  # some start in the valley of another minimum
    pulls = ((found - truth) / covariance.diagonal(dim1=1, dim2=2).sqrt())[good]
    assert len(pulls) > 0.8 * 30 * N
    assert float(pulls.std()) == pytest.approx(1.0, abs=0.1) and abs(float(pulls.mean())) < 0.15


def test_nothing_seen_leaves_the_prior():
    space = latent_space()
    zero = torch.zeros(2, K + 1, K + 1, dtype=torch.float64), torch.zeros(2, K + 1, dtype=torch.float64)
    found, covariance, factor = (x.detach() for x in space.fit(*zero, steps=10))
    assert bool(found.isfinite().all()) and bool(factor.isfinite().all())
    np.testing.assert_allclose(covariance[0], np.diag(space.variance), rtol=1e-6)


def test_normalize_changes_no_spectrum():
    space = latent_space()
    with torch.no_grad():
        space.to_latents.weight.copy_(torch.linalg.pinv(space.from_latents.weight))
    parts = [observed(space, seed=seed) for seed in range(30)]
    matrix, vector = (torch.cat([part[k] for part in parts]) for k in (4, 5))
    with torch.no_grad():
        before = space.guess(matrix, vector)
        spectra = space(before)
        space.normalize(before, matrix, vector)
        after = space.guess(matrix, vector)
        np.testing.assert_allclose(space(after), spectra, atol=1e-9)
        np.testing.assert_allclose(after.mean(0), 0.0, atol=1e-9)
        np.testing.assert_allclose(torch.cov(after.T), torch.diag(space.variance), atol=1e-9)
        assert float(space.variance.mean()) == pytest.approx(1.0)
        assert bool((space.variance.diff() <= 0).all())
        hessian = space._expansion(after, matrix, vector)[0] - torch.diag(1.0 / space.variance)
        mean = hessian.mean(0)
        np.testing.assert_allclose(mean / mean[0, 0], np.eye(L), atol=1e-7)


def test_config_and_weights_make_the_same_space(galaxies):
    space, latents = galaxies[:2]
    again = LatentSpace(**space.config).double()
    again.load_state_dict(space.state_dict())
    assert torch.equal(again(latents), space(latents))
    other = LatentSpace(**{**space.config, "n_latents": L + 1})
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_state_dict(space.state_dict())


@pytest.mark.parametrize("whiten", [None, bent])
def test_latents_have_gradients_by_the_pixels(galaxies, whiten):
    space, *_, matrix, vector = galaxies
    some = vector[:2].clone().requires_grad_()
    (slope,) = torch.autograd.grad(space.fit(matrix[:2], some, whiten, steps=12)[0][0, 0], some)
    step = torch.zeros_like(some)
    step[0, 2] = 1e-4 * some[0, 2].abs().detach()
    with torch.no_grad():
        up, down = (space.fit(matrix[:2], vector[:2] + sign * step, whiten, 12)[0][0, 0] for sign in (1, -1))
    assert float(slope[0, 2]) == pytest.approx(float((up - down) / (2 * step[0, 2])), rel=1e-2)
    assert float(slope[1].abs().max()) == 0.0
