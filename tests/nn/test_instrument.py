import numpy as np
import pytest
import torch
from scipy.special import erf

from specutils_blase import ResolvingPower
from specutils_blase.functional import FWHM_PER_SIGMA, SPEED_OF_LIGHT, pixel_edges
from specutils_blase.nn import Instrument

CENTERS = torch.cat([torch.arange(8500.0, 8502.0, 0.07), torch.arange(8503.0, 8505.0, 0.07)]).double()
EDGES = pixel_edges(CENTERS)


def line(wave, center=8501.0, sigma=0.08):
    return 1.0 - 0.7 * torch.exp(-0.5 * ((wave - center) / sigma) ** 2)


def observed_line(resolving_power, center=8501.0, sigma=0.08):
    a, b = EDGES.numpy().T
    total = np.sqrt(2.0) * np.hypot(sigma, 0.5 * (a + b) / (FWHM_PER_SIGMA * resolving_power))
    area = 0.7 * sigma * np.sqrt(2.0 * np.pi)
    return 1.0 - area * 0.5 * (erf((b - center) / total) - erf((a - center) / total)) / (b - a)


@pytest.mark.parametrize("resolving_power", [30_000.0, 1e5, np.linspace(3e4, 9e4, len(EDGES))])
def test_line_in_closed_form(resolving_power):
    value = torch.as_tensor(resolving_power)
    instrument = Instrument(EDGES, resolving_power=value if value.ndim else float(value))
    out = instrument(line(instrument.wave)).detach().numpy()
    np.testing.assert_allclose(out, observed_line(resolving_power), atol=1e-8)


def test_scale_multiplies_the_resolving_power():
    instrument = Instrument(EDGES, resolving_power=50_000.0)
    assert [name for name, _ in instrument.named_parameters()] == ["log_scale"]
    assert instrument.log_scale.item() == 0.0
    with torch.no_grad():
        instrument.log_scale += np.log(0.8)
    out = instrument(line(instrument.wave)).detach().numpy()
    np.testing.assert_allclose(out, observed_line(40_000.0), atol=1e-8)


def test_gradient_in_the_scale():
    instrument = Instrument(EDGES, resolving_power=50_000.0)
    flux = line(instrument.wave)
    instrument(flux)[14].backward()
    up, down = observed_line(50_000.0 * np.exp(1e-4))[14], observed_line(50_000.0 * np.exp(-1e-4))[14]
    assert instrument.log_scale.grad.item() == pytest.approx((up - down) / 2e-4, rel=1e-6)


def test_pixels_only():
    instrument = Instrument(EDGES)
    assert list(instrument.parameters()) == []
    assert instrument.sigma is None
    out = instrument(line(instrument.wave)).numpy()
    # The grid is interpolated linearly between samples 0.014 Angstrom apart.
    np.testing.assert_allclose(out, observed_line(np.inf), atol=0.7 / 8.0 * (0.0142 / 0.08) ** 2)
    np.testing.assert_allclose(instrument(torch.ones_like(instrument.wave)).numpy(), 1.0, rtol=1e-12)


def test_grid_covers_the_edges_and_the_margin():
    instrument = Instrument(EDGES, resolving_power=50_000.0, step=1.0, margin=40.0)
    wave, edges = instrument.wave, instrument.edges
    assert np.log(edges.min().item() / wave[0].item()) * SPEED_OF_LIGHT >= 40.0
    assert np.log(wave[-1].item() / edges.max().item()) * SPEED_OF_LIGHT >= 40.0
    np.testing.assert_allclose(np.diff(np.log(wave.numpy())) * SPEED_OF_LIGHT, 1.0, atol=1e-8)


def test_unsorted_pixels_keep_their_order():
    order = torch.randperm(len(EDGES), generator=torch.Generator().manual_seed(1))
    shuffled, sorted_ = (Instrument(e, resolving_power=5e4) for e in (EDGES[order], EDGES))
    flux = line(sorted_.wave)
    torch.testing.assert_close(shuffled(flux), sorted_(flux)[order], rtol=1e-14, atol=0.0)


@pytest.mark.parametrize("resolving_power", [None, 50_000.0])
def test_state_dict_round_trip(resolving_power):
    first = Instrument(EDGES, resolving_power=resolving_power)
    second = Instrument(EDGES * 1.001, resolving_power=None if resolving_power is None else 1e4)
    second.load_state_dict(first.state_dict(), strict=True)
    flux = line(first.wave)
    assert torch.equal(second(flux), first(flux))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edges": CENTERS}, r"edges must have shape \(n_pix, 2\)"),
        ({"edges": EDGES[:0]}, r"edges must have shape \(n_pix, 2\)"),
        ({"edges": EDGES.flip(1)}, "lower < upper"),
        ({"margin": -1.0}, "margin"),
        ({"step": 0.0}, "step"),
        ({"resolving_power": 0.0}, "resolving_power must be finite and positive"),
        ({"resolving_power": torch.ones(3)}, "resolving_power must be a number or have shape"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        Instrument(**{"edges": EDGES, **options})


def test_line_spread_functions_of_fits_are_refused():
    with pytest.raises(TypeError, match="that of a Gaussian line spread function, got ResolvingPower; take its number"):
        Instrument(EDGES, resolving_power=ResolvingPower(50_000, h3=0.1))


def test_resolving_power_too_high_for_the_grid_says_what_to_do():
    instrument = Instrument(EDGES, resolving_power=1e6, step=0.5)
    with pytest.raises(ValueError, match="smaller step"):
        instrument(torch.ones_like(instrument.wave))
