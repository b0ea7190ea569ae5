import numpy as np
import pytest
import torch
from scipy.special import voigt_profile

from specutils_blase.nn import LineForest

CENTER, STRENGTH = [5000.0, 5001.0, 5001.3], [0.05, -0.02, 0.3]
SIGMA, GAMMA = [0.04, 0.05, 0.03], [0.003, 0.02, 1e-4]
WAVE = np.linspace(4998.0, 5004.0, 500)


def make_forest(**options):
    return LineForest(CENTER, STRENGTH, SIGMA, GAMMA, **options)


def tensor(values):
    return torch.as_tensor(values, dtype=torch.float64)


def depths(wave):
    return [a * voigt_profile(wave - c, s, g) for c, a, s, g in zip(CENTER, STRENGTH, SIGMA, GAMMA, strict=True)]


def test_opacity_form():
    forest = make_forest(tolerance=1e-9)
    tau = np.sum(depths(WAVE), axis=0)
    np.testing.assert_allclose(forest.optical_depth(tensor(WAVE)).detach().numpy(), tau, atol=3e-9)
    np.testing.assert_allclose(forest(tensor(WAVE)).detach().numpy(), np.exp(-tau), atol=3e-9)


def test_product_form():
    forest = make_forest(form="product", tolerance=1e-9)
    factors = [np.maximum(1.0 - depth, 0.0) for depth in depths(WAVE)]
    assert min(f.min() for f in factors) == 0.0
    np.testing.assert_allclose(forest(tensor(WAVE)).detach().numpy(), np.prod(factors, axis=0), atol=3e-9)


def test_windows_follow_the_wavelengths():
    forest = make_forest()
    shifted = forest(tensor(WAVE) + 2000.0)
    assert (shifted == 1.0).any()
    assert forest(tensor(WAVE)).min() < 0.1


def test_windows_follow_the_parameters():
    forest = LineForest([5000.0], [1e-4], [0.03], [1e-6])
    with torch.no_grad():
        forest.center += 1.0
        forest.log_gamma += 10.0
    gamma = 1e-6 * np.exp(10.0)
    expected = np.exp(-1e-4 * voigt_profile(WAVE - 5001.0, 0.03, gamma))
    np.testing.assert_allclose(forest(tensor(WAVE)).detach().numpy(), expected, atol=1e-6)


def test_parameters_and_buffers():
    forest = make_forest()
    assert {name for name, _ in forest.named_parameters()} == {"center", "log_strength", "log_sigma", "log_gamma"}
    assert all(p.dtype == torch.float64 for p in forest.parameters())
    assert forest.sign.tolist() == [1.0, -1.0, 1.0]
    np.testing.assert_allclose(forest.log_strength.detach().exp().numpy(), np.abs(STRENGTH))
    assert "n_lines=3" in repr(forest)


def test_does_not_share_memory_with_its_input():
    center = tensor([5000.0])
    forest = LineForest(center, [0.1], [0.1], [0.1])
    with torch.no_grad():
        forest.center += 1.0
    assert center.item() == 5000.0


def test_gradients_agree_with_finite_differences():
    forest = make_forest(tolerance=1e-12)
    wave = tensor(WAVE[::7])
    weight = torch.sin(torch.arange(len(wave)))
    (forest(wave) * weight).sum().backward()
    for parameter in forest.parameters():
        for j in range(3):
            values = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    parameter[j] += step
                    values.append((forest(wave) * weight).sum().item())
                    parameter[j] -= step
            assert parameter.grad[j].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-6)


def test_state_dict_round_trip():
    forest = make_forest()
    other = LineForest([1.0, 2.0, 3.0], [0.1] * 3, [0.1] * 3, [0.1] * 3)
    other.load_state_dict(forest.state_dict(), strict=True)
    assert torch.equal(other(tensor(WAVE)), forest(tensor(WAVE)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": "sum"}, "form must be one of"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"sigma": [0.1]}, "share one shape"),
        ({"center": [[5000.0]] * 3}, "share one shape"),
        ({"sigma": [0.1, 0.0, 0.1]}, "sigma must be finite and positive"),
        ({"gamma": [0.1, -0.1, 0.1]}, "gamma must be finite and positive"),
        ({"strength": [0.1, 0.0, 0.1]}, "strength must be finite and nonzero"),
        ({"strength": [0.1, float("nan"), 0.1]}, "strength must be finite and nonzero"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {"center": CENTER, "strength": STRENGTH, "sigma": SIGMA, "gamma": GAMMA}
    with pytest.raises(ValueError, match=message):
        LineForest(**{**arguments, **change})
