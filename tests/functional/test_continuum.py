import numpy as np
import pytest
import torch
from astropy import units as u
from astropy.modeling.physical_models import BlackBody

from specutils_blase.functional import blackbody, legendre, scaled_coordinate


def tensor(values):
    return torch.as_tensor(values, dtype=torch.float64)


class TestLegendre:
    @pytest.mark.parametrize("degree", [0, 1, 2, 7, 15])
    def test_agrees_with_numpy(self, degree):
        x = np.linspace(-1.0, 1.0, 31)
        basis = legendre(tensor(x), degree)
        np.testing.assert_allclose(basis.numpy(), np.polynomial.legendre.legvander(x, degree), atol=1e-14)

    def test_negative_degree(self):
        with pytest.raises(ValueError, match="degree"):
            legendre(tensor([0.0]), -1)

    def test_dtype_follows(self):
        assert legendre(torch.zeros(3), 2).dtype == torch.float32


class TestScaledCoordinate:
    def test_ends_and_middle(self):
        assert scaled_coordinate(tensor([8100.0, 8150.0, 8200.0]), 8100.0, 8200.0).tolist() == [-1.0, 0.0, 1.0]

    def test_empty_range(self):
        with pytest.raises(ValueError, match="lower"):
            scaled_coordinate(tensor([1.0]), 2.0, 2.0)


class TestBlackbody:
    @pytest.mark.parametrize("teff", [300.0, 2300.0, 4700.0, 10_000.0, 100_000.0])
    def test_shape_agrees_with_astropy(self, teff):
        wave = np.geomspace(3000.0, 300_000.0, 40)
        planck = BlackBody(temperature=teff * u.K, scale=1.0 * u.erg / u.s / u.cm**2 / u.AA / u.sr)
        expected = planck(wave * u.AA).value
        ratio = blackbody(tensor(wave), teff).numpy() / expected
        np.testing.assert_allclose(ratio, ratio[-1], rtol=1e-12)

    def test_one_constant_for_all_temperatures(self):
        cool, hot = (blackbody(tensor([20_000.0]), teff).item() for teff in (3000.0, 6000.0))
        planck = BlackBody(temperature=[3000.0, 6000.0] * u.K)(20_000.0 * u.AA).value
        assert hot / cool == pytest.approx(planck[1] / planck[0], rel=1e-9)

    def test_no_overflow_and_finite_gradient_far_in_the_wien_tail(self):
        teff = tensor(300.0).requires_grad_()
        value = blackbody(tensor([100.0, 1000.0, 1e7]), teff)
        value.sum().backward()
        assert torch.isfinite(value).all()
        assert torch.isfinite(teff.grad)
        assert (value >= 0.0).all()

    def test_gradcheck(self):
        wave, teff = tensor([5000.0, 20_000.0]).requires_grad_(), tensor(4700.0).requires_grad_()
        assert torch.autograd.gradcheck(blackbody, (wave, teff), eps=1e-2, atol=1e-11, rtol=1e-5)
