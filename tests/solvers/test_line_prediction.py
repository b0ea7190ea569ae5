"""The compiled network against the torch reference, in double precision, on each kind of processor that this one is."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specutils_blase.functional import widths
from specutils_blase.nn.line_network import LineNetwork
from specutils_blase.solvers.line_prediction import quantiles

pytestmark = pytest.mark.usefixtures("every_target")
Z = (0.0, -1.0, 0.3, 2.5)


def wild(seed, n_inputs, n_lines, ties, width):
    """A network whose numbers reach all of their limits."""
    torch.manual_seed(seed)
    network = LineNetwork(n_inputs, n_lines, ties=ties, width=width)
    with torch.no_grad():
        for weight, bias in zip(network.weights, network.biases, strict=True):
            weight.mul_(2.0), bias.normal_()
        network.weights[-1].mul_(10.0)
        network.center.normal_()
        network.spread.uniform_(0.5, 2.0)
        network.scale.uniform_(0.01, 30.0)
        network.strength.copy_(torch.stack([torch.randn(n_lines), torch.rand(n_lines) + 0.3]))
        network.correction.normal_(0.0, 0.5)
        # a tied line has the strength and the shape of its partner
        network.strength[:] = network.strength[:, network.says]
    return network


def reference(network, inputs, z):
    """Of `LineNetwork` and `functional.widths`, in double precision."""
    with torch.no_grad():
        parameters = network.double()(torch.as_tensor(inputs, dtype=torch.float64))[0]
        return torch.stack([torch.exp(widths.log_width(parameters, value)) for value in z], -1).numpy()


@given(seed=st.integers(0, 1000), n=st.integers(1, 200), width=st.sampled_from([1, 4, 8, 11, 24, 64]),
       n_lines=st.integers(2, 5), tied=st.booleans())  # fmt: skip
def test_compiled_is_the_reference(seed, n, width, n_lines, tied):
    network = wild(seed, 6, n_lines, [(0, n_lines - 1, 2.98)] if tied else [], width)
    inputs = np.random.default_rng(seed).normal(0.0, 3.0, (n, 6)).astype(np.float32)
    found = quantiles(network, inputs, Z)
    assert found.shape == (n, n_lines, len(Z)) and found.dtype == np.float32
    expected = reference(network, inputs, Z)
    # what single precision leaves of sums of such numbers
    np.testing.assert_allclose(*(np.log(np.clip(v, 1e-35, 1e35)) for v in (found, expected)), rtol=1e-4, atol=1e-3)
    assert n < 50 or width < 8 or np.ptp(np.log(expected)) > 1.0


@pytest.mark.parametrize("n", [1, 63, 64, 65, 29_999, 30_001])
def test_each_galaxy_is_itself(n):
    """However many there are beside it, and whichever thread it falls to."""
    network = wild(3, 13, 10, [(3, 4, 2.98), (5, 7, 2.96)], 64)
    inputs = np.random.default_rng(4).normal(0.0, 2.0, (n, 13))
    found = quantiles(network, inputs, Z)
    some = np.unique(np.linspace(0, n - 1, 7).astype(int))
    for row in some:
        np.testing.assert_allclose(found[row], quantiles(network, inputs[row : row + 1], Z)[0], rtol=1e-6)
    expected = reference(network, inputs[some], Z)
    np.testing.assert_allclose(*(np.clip(v, 1e-35, 1e35) for v in (found[some], expected)), rtol=5e-3)
    np.testing.assert_allclose(found[:, 3] * 2.98, found[:, 4], rtol=1e-6)


def test_none():
    network = wild(0, 3, 2, [], 8)
    assert quantiles(network, np.zeros((0, 3)), Z).shape == (0, 2, 4)
    assert quantiles(network, np.zeros((5, 3)), ()).shape == (5, 2, 0)


def test_other_inputs_are_refused():
    with pytest.raises(ValueError, match=r"inputs must have the shape \(n, 3\), got \(5, 4\)"):
        quantiles(wild(0, 3, 2, [], 8), np.zeros((5, 4)), Z)
