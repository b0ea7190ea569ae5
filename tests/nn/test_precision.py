"""Single precision against double precision, as docs/performance.rst has it (benchmarks/parity.py, which is larger)."""

import numpy as np
import pytest
import torch

from specutils_blase import functional
from specutils_blase.nn import ForwardModel, Instrument, LineForest

# The published differences from float64, rounded up: of the flux, and of the gradient relative to its norm.
FLUX, GRADIENT = 5e-7, 1e-5
LINES = ("center", "log_strength", "log_sigma", "log_gamma")
DOUBLE, SINGLE = torch.float64, torch.float32


@pytest.fixture(scope="module")
def columns():
    """Centres, strengths, sigma, gamma of 400 lines [Angstrom]: weak, strong, and a few saturated ones."""
    rng = np.random.default_rng(6)
    center = np.sort(rng.uniform(10_000.0, 10_030.0, 400))
    values = (center, rng.lognormal(-5.0, 1.5, 400), rng.uniform(0.03, 0.08, 400), rng.lognormal(-5.0, 0.6, 400))
    return [torch.from_numpy(value) for value in values]


def transmission(columns, coordinates, rest):
    """Flux and {parameter: gradient for noise}; differences to a centre in the precision of the coordinates."""
    center, *others = columns
    wave = functional.velocity_grid(9_995.0, 10_035.0, 0.5)
    line, sample = functional.line_pixel_pairs(wave, center, functional.half_width(*others, 1e-6))
    leaves = [torch.nn.Parameter(values) for values in (center.to(coordinates), *(v.log().to(rest) for v in others))]
    center, strength, sigma, gamma = leaves
    delta = (wave.to(coordinates)[sample] - center[line]).to(rest)
    depth = strength.exp()[line] * functional.voigt(delta, sigma=sigma.exp()[line], gamma=gamma.exp()[line])
    flux = functional.transmission(torch.zeros(len(wave), dtype=rest).index_add(0, sample, depth))
    assert flux.dtype == rest
    flux.backward(torch.from_numpy(np.random.default_rng(0).normal(size=len(flux))).to(rest))
    return flux.detach().double(), {n: leaf.grad.double() for n, leaf in zip(LINES, leaves, strict=True)}


def observed(columns, coordinates, rest):
    """The same of a ForwardModel, whose instrument and velocity have the precision of the coordinates."""
    edges = functional.pixel_edges(torch.linspace(9_998.0, 10_032.0, 700, dtype=DOUBLE))
    model = ForwardModel(LineForest(*columns), Instrument(edges, resolving_power=55_000.0), radial_velocity=12.3,
                         vsini=4.0).to(coordinates)  # fmt: skip
    for name in LINES[1:]:
        setattr(model.star, name, torch.nn.Parameter(getattr(model.star, name).detach().to(rest)))
    flux = model()
    flux.backward(torch.from_numpy(np.random.default_rng(0).normal(size=len(flux))).to(flux.dtype))
    return flux.detach().double(), {name: p.grad.double() for name, p in model.named_parameters()}


def differences(ours, theirs):
    gradients = [((ours[1][name] - g).norm() / g.norm()).item() for name, g in theirs[1].items()]
    return (ours[0] - theirs[0]).abs().max().item(), max(gradients)


@pytest.mark.parametrize("compute", [transmission, observed])
def test_float32_with_coordinates_in_float64_is_as_good_as_published(columns, compute):
    flux, gradient = differences(compute(columns, DOUBLE, SINGLE), compute(columns, DOUBLE, DOUBLE))
    assert 0 < flux < FLUX and 0 < gradient < GRADIENT


@pytest.mark.parametrize("compute", [transmission, observed])
def test_coordinates_in_float32_are_seen(columns, compute):
    flux, gradient = differences(compute(columns, SINGLE, SINGLE), compute(columns, DOUBLE, DOUBLE))
    assert flux > 100 * FLUX and gradient > 100 * GRADIENT


def test_values_are_those_of_the_module(columns):
    """What is compared above is `LineForest`."""
    wave = functional.velocity_grid(9_995.0, 10_035.0, 0.5)
    flux = transmission(columns, DOUBLE, DOUBLE)[0]
    torch.testing.assert_close(flux, LineForest(*columns)(wave).detach(), rtol=1e-12, atol=1e-14)
