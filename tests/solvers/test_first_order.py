import numpy as np
import pytest
import torch
from torch import nn

from specutils_blase.solvers.first_order import minimize

RNG = np.random.default_rng(11)
DESIGN = torch.as_tensor(RNG.normal(size=(30, 3)))
SIGMA = torch.as_tensor(RNG.uniform(0.5, 2.0, size=30))
FLUX = DESIGN @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) + SIGMA * torch.as_tensor(RNG.normal(size=30))


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.coefficients = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.offset = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self):
        return DESIGN @ self.coefficients + self.offset


def lbfgs(parameters, lr):
    return torch.optim.LBFGS(parameters, lr=lr, max_iter=20, line_search_fn="strong_wolfe")


def normal_equations(precision=0.0, keep=slice(None)):
    weighted = (DESIGN / SIGMA[:, None])[keep].numpy()
    return np.linalg.solve(weighted.T @ weighted + precision * np.eye(3), weighted.T @ (FLUX / SIGMA)[keep].numpy())


def test_weighted_least_squares():
    model = Linear()
    losses = minimize(model, FLUX, SIGMA, steps=10, lr=1.0, optimizer=lbfgs, parameters=[model.coefficients])
    expected = normal_equations()
    np.testing.assert_allclose(model.coefficients.detach().numpy(), expected, rtol=1e-6)
    pulls = (FLUX.numpy() - DESIGN.numpy() @ expected) / SIGMA.numpy()
    assert losses[-1] == pytest.approx(0.5 * (pulls**2).sum(), rel=1e-9)
    assert losses[0] == pytest.approx(0.5 * ((FLUX / SIGMA) ** 2).sum().item(), rel=1e-12)


def test_default_optimizer_gets_there_too():
    model = Linear()
    minimize(model, FLUX, SIGMA, steps=600, lr=0.05, parameters=[model.coefficients])
    np.testing.assert_allclose(model.coefficients.detach().numpy(), normal_equations(), rtol=1e-3)


def test_penalty_is_minus_the_logarithm_of_a_prior():
    model = Linear()

    def ridge(model):
        return 0.5 * 40.0 * (model.coefficients**2).sum()

    minimize(model, FLUX, SIGMA, steps=10, lr=1.0, optimizer=lbfgs, parameters=[model.coefficients], penalty=ridge)
    np.testing.assert_allclose(model.coefficients.detach().numpy(), normal_equations(40.0), rtol=1e-6)


def test_bad_pixels_are_as_if_removed():
    flux, sigma = FLUX.clone(), SIGMA.clone()
    flux[3], flux[4], sigma[5], sigma[6], sigma[7], sigma[8] = (
        float(x) for x in ("nan", "inf", "nan", "inf", "0", "-1")
    )
    model = Linear()
    minimize(model, flux, sigma, steps=10, lr=1.0, optimizer=lbfgs, parameters=[model.coefficients])
    keep = np.delete(np.arange(30), range(3, 9))
    np.testing.assert_allclose(model.coefficients.detach().numpy(), normal_equations(keep=keep), rtol=1e-5)


def test_only_the_chosen_parameters_move():
    model = Linear()
    minimize(model, FLUX, SIGMA, steps=3, parameters=[model.offset])
    assert (model.coefficients == 0.0).all()
    assert model.coefficients.grad is None
    assert model.offset.item() != 0.0


def test_frozen_parameters_stay_by_default():
    model = Linear()
    model.offset.requires_grad_(False)
    minimize(model, FLUX, SIGMA, steps=3)
    assert model.offset.item() == 0.0
    assert (model.coefficients != 0.0).all()


def test_progress_sees_every_step():
    seen = []
    losses = minimize(Linear(), FLUX, SIGMA, steps=4, progress=lambda step, loss: seen.append((step, loss)))
    assert seen == list(enumerate(losses))
    assert len(losses) == 4


def test_divergence_is_said():
    with pytest.raises(FloatingPointError, match="smaller lr"):
        minimize(Linear(), FLUX, SIGMA, steps=500, lr=1e6, optimizer=torch.optim.SGD)


@pytest.mark.parametrize(("flux", "sigma"), [(float("nan"), 1.0), (1.0, float("inf")), (1.0, 0.0)])
def test_nothing_to_fit(flux, sigma):
    with pytest.raises(ValueError, match="at least one pixel"):
        minimize(Linear(), torch.full_like(FLUX, flux), torch.full_like(SIGMA, sigma))
