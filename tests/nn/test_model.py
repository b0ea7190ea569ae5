import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import voigt_profile

from specutils_blase.functional import FWHM_PER_SIGMA, SPEED_OF_LIGHT, pixel_edges
from specutils_blase.nn import ForwardModel, Instrument, LineForest
from specutils_blase.solvers.first_order import minimize

CENTERS = torch.cat([torch.arange(8500.0, 8501.5, 0.07), torch.arange(8502.5, 8504.0, 0.07)]).double()
EDGES = pixel_edges(CENTERS)
STAR = {"center": [8500.4, 8501.1, 8503.0], "strength": [0.08, 0.12, -0.03]}
STAR |= {"sigma": [0.055, 0.06, 0.09], "gamma": [0.01, 0.003, 0.02]}
WATER = {"center": [8500.9, 8503.2], "strength": [0.1, 0.05], "sigma": [0.06, 0.07], "gamma": [0.02, 0.01]}
OXYGEN = {"center": [8501.2], "strength": [0.05], "sigma": [0.06], "gamma": [0.005]}
TRUTH = {"radial_velocity": -9.3, "vsini": 6.0, "scales": (1.3, 0.6), "resolving_power": 50_000.0}
CONTINUUM = (2.0, -0.3, 0.1)


def transmission(lines, wave):
    columns = zip(lines["center"], lines["strength"], lines["sigma"], lines["gamma"], strict=True)
    return np.exp(-sum(a * voigt_profile(wave - c, s, g) for c, a, s, g in columns))


def doppler(velocity):
    return np.sqrt((1.0 + velocity / SPEED_OF_LIGHT) / (1.0 - velocity / SPEED_OF_LIGHT))


def rotating_star(wave, radial_velocity, vsini, epsilon=0.6, n_nodes=60):
    """Sum over strips of the stellar disc, each with its own Doppler shift: no grid, no kernel."""
    angle = (np.arange(n_nodes) + 0.5) * np.pi / n_nodes - 0.5 * np.pi
    cosine = np.cos(angle)
    weight = (2.0 * (1.0 - epsilon) * cosine + 0.5 * np.pi * epsilon * cosine**2) * cosine
    weight /= weight.sum()
    star, strips = (doppler(v) for v in (radial_velocity, vsini * np.sin(angle)))
    return sum(w * transmission(STAR, wave / (star * strip)) for w, strip in zip(weight, strips, strict=True))


def dense_chain(radial_velocity, vsini, scales, resolving_power):
    """The physics of DESIGN.md written down once more, with numpy on a uniform fine grid and full matrices."""
    wave = np.arange(8498.5, 8505.5, 0.002)
    flux = rotating_star(wave, radial_velocity, vsini)
    flux = flux * transmission(WATER, wave) ** scales[0] * transmission(OXYGEN, wave) ** scales[1]
    out = []
    nodes, weights = np.polynomial.legendre.leggauss(8)
    for a, b in EDGES.numpy():
        points = 0.5 * (a + b) + 0.5 * (b - a) * nodes
        sigma = 0.5 * (a + b) / resolving_power / FWHM_PER_SIGMA
        kernel = np.exp(-0.5 * ((points[:, None] - wave) / sigma) ** 2)
        out.append(0.5 * weights @ (kernel @ flux / kernel.sum(axis=1)))
    x = (2.0 * EDGES.mean(dim=1).numpy() - EDGES.min().item() - EDGES.max().item()) / np.ptp(EDGES.numpy())
    return np.array(out) * np.polynomial.legendre.legval(x, CONTINUUM)


def make_model(**changes):
    truth = TRUTH | changes
    instrument = Instrument(EDGES, resolving_power=truth["resolving_power"], margin=60.0)
    model = ForwardModel(
        LineForest(**STAR, tolerance=1e-9),
        instrument,
        telluric=[LineForest(**WATER, tolerance=1e-9), LineForest(**OXYGEN, tolerance=1e-9)],
        radial_velocity=truth["radial_velocity"],
        vsini=truth["vsini"],
        continuum=CONTINUUM,
    )
    with torch.no_grad():
        model.telluric_log_scale.copy_(torch.tensor(truth["scales"]).log())
    return model


@pytest.fixture(scope="module")
def reference():
    return dense_chain(**TRUTH)


def test_equals_the_physics_written_down_once_more(reference):
    np.testing.assert_allclose(make_model()().detach().numpy(), reference, atol=1e-6)


def test_order_of_the_stages_matters(reference):
    # Telluric after the line spread function is the usual mistake; the test above would notice it.
    model = make_model()
    wrong = model.instrument(model.rotated_star()) * model.instrument(model.transmission())
    wrong = wrong * model.continuum_level()
    assert (wrong.detach() - torch.as_tensor(reference)).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("radial_velocity", lambda h: {"radial_velocity": TRUTH["radial_velocity"] + h}),
        ("log_vsini", lambda h: {"vsini": TRUTH["vsini"] * np.exp(h)}),
        ("instrument.log_scale", lambda h: {"resolving_power": TRUTH["resolving_power"] * np.exp(h)}),
        ("telluric_log_scale", lambda h: {"scales": (TRUTH["scales"][0] * np.exp(h), TRUTH["scales"][1])}),
    ],
)
def test_derivatives_agree_with_finite_differences_of_the_reference(name, change):
    model = make_model()
    parameter = model.get_parameter(name)
    probes = [4, 11, 18, 30, 40]
    out = model()
    slopes = [torch.autograd.grad(out[k], parameter, retain_graph=True)[0].flatten()[0].item() for k in probes]
    step = 0.01
    up, down = (dense_chain(**(TRUTH | change(h)))[probes] for h in (step, -step))
    scale = np.abs(up - down).max() / (2.0 * step)
    np.testing.assert_allclose(slopes, (up - down) / (2.0 * step), atol=1e-3 * scale)


def test_velocity_is_the_doppler_shift_of_a_spectrograph():
    # One isolated line, far shifted: the model finds it where special relativity puts it.
    instrument = Instrument(EDGES, resolving_power=50_000.0)
    velocity = 300.0
    star = LineForest([8503.0 / doppler(velocity)], [0.1], [0.06], [0.001])
    deficit = (1.0 - ForwardModel(star, instrument, radial_velocity=velocity)().detach()) * EDGES.diff().squeeze(1)
    assert ((deficit * CENTERS).sum() / deficit.sum()).item() == pytest.approx(8503.0, abs=2e-3)
    assert deficit.sum().item() > 0.05


def test_any_module_can_be_the_star():
    class Sawtooth(torch.nn.Module):
        def forward(self, wave_rest):
            return (wave_rest - 8500.0) / 10.0

    out = ForwardModel(Sawtooth(), Instrument(EDGES), radial_velocity=0.0)()
    np.testing.assert_allclose(out.detach().numpy(), (EDGES.mean(dim=1) - 8500.0).numpy() / 10.0, atol=1e-12)


def test_telluric_alone():
    instrument = Instrument(EDGES, resolving_power=5e4)
    model = ForwardModel(None, instrument, telluric=LineForest(**WATER))
    expected = instrument(torch.as_tensor(transmission(WATER, instrument.wave.numpy())))
    np.testing.assert_allclose(model().detach().numpy(), expected.detach().numpy(), atol=1e-5)


def test_saturated_telluric_has_a_finite_gradient():
    dark = LineForest([8503.0], [1e4], [0.06], [0.01])
    model = ForwardModel(None, Instrument(EDGES, resolving_power=5e4), telluric=dark)
    with torch.no_grad():
        model.telluric_log_scale -= 0.5  # a power below one has an infinite derivative at zero
    out = model()
    assert out.min() < 1e-9
    out.sum().backward()
    assert torch.isfinite(model.telluric_log_scale.grad)
    assert all(torch.isfinite(p.grad).all() for p in dark.parameters())


def test_parameters_by_name():
    names = {name for name, _ in make_model().named_parameters() if not name.startswith(("star.", "telluric."))}
    assert names == {"radial_velocity", "log_vsini", "telluric_log_scale", "continuum", "instrument.log_scale"}
    bare = ForwardModel(LineForest(**STAR), Instrument(EDGES))
    assert {name for name, _ in bare.named_parameters() if "." not in name} == {"radial_velocity", "continuum"}


def test_state_dict_round_trip():
    model = make_model()
    other = make_model(radial_velocity=0.0, vsini=1.0, scales=(1.0, 1.0), resolving_power=9e4)
    assert not torch.allclose(other(), model())
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(other(), model())


def test_global_parameters_are_recovered_by_training(reference):
    model = make_model(radial_velocity=-8.0, vsini=8.0, scales=(1.0, 1.0), resolving_power=55_000.0)
    free = [p for name, p in model.named_parameters() if not name.startswith(("star.", "telluric."))]
    flux, sigma = torch.as_tensor(reference), torch.full((len(EDGES),), 0.01, dtype=torch.float64)
    strength = model.star.log_strength.detach().clone()
    losses = minimize(model, flux, sigma, steps=6, lr=1.0, optimizer=lbfgs, parameters=free).loss
    assert losses[-1] < 1e-4 < 10.0 < losses[0]
    assert model.radial_velocity.item() == pytest.approx(TRUTH["radial_velocity"], abs=0.02)
    assert model.log_vsini.exp().item() == pytest.approx(TRUTH["vsini"], rel=0.01)
    np.testing.assert_allclose(model.telluric_log_scale.detach().exp().numpy(), TRUTH["scales"], rtol=0.01)
    np.testing.assert_allclose(model.continuum.detach().numpy(), CONTINUUM, atol=2e-3)
    assert torch.equal(model.star.log_strength, strength)


def lbfgs(parameters, lr):
    return torch.optim.LBFGS(parameters, lr=lr, max_iter=10, line_search_fn="strong_wolfe")


def test_line_strengths_are_recovered_by_training():
    flux = make_model()().detach()
    model = make_model()
    with torch.no_grad():
        model.star.log_strength += torch.tensor([0.3, -0.2, 0.1])
    sigma = torch.full_like(flux, 0.01)
    losses = minimize(model, flux, sigma, steps=2, lr=1.0, optimizer=lbfgs, parameters=[model.star.log_strength]).loss
    assert losses[-1] < 1e-3 * losses[0]
    np.testing.assert_allclose(model.star.log_strength.detach().exp().numpy(), np.abs(STAR["strength"]), rtol=1e-3)


@pytest.mark.parametrize("vsini", [0.0, -2.0, float("nan"), float("inf")])
def test_bad_vsini(vsini):
    with pytest.raises(ValueError, match="vsini must be positive"):
        ForwardModel(None, Instrument(EDGES), vsini=vsini)


MODEL = make_model()
WHOLE = MODEL().detach()


@settings(max_examples=20)
@given(st.lists(st.integers(0, len(EDGES) - 1), min_size=1, max_size=60))
def test_some_pixels_are_those_of_the_whole(pixels):
    pixels = torch.tensor(pixels)
    torch.testing.assert_close(MODEL(pixels).detach(), WHOLE[pixels], rtol=1e-13, atol=0.0)


@pytest.mark.parametrize("resolving_power", [None, 5e4])
def test_gradient_of_some_pixels_is_that_of_the_whole(resolving_power):
    instrument = Instrument(EDGES, resolving_power=resolving_power)
    model = ForwardModel(LineForest(**STAR), instrument, vsini=5.0, continuum=CONTINUUM)
    pixels, weights = torch.tensor([30, 4, 11]), torch.tensor([1.0, -2.0, 0.5])
    some = torch.autograd.grad((weights * model(pixels)).sum(), list(model.parameters()))
    whole = torch.autograd.grad((weights * model()[pixels]).sum(), list(model.parameters()))
    for one, other in zip(some, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)
    assert set(instrument.response(pixels)[0].tolist()) == {0, 1, 2}


class Veiling(torch.nn.Module):
    def __init__(self, amount):
        super().__init__()
        self.log_amount = torch.nn.Parameter(torch.tensor(amount, dtype=torch.float64).log())

    def forward(self, wave, flux):
        veil = self.log_amount.exp() * wave / 8500.0
        return (flux + veil) / (1.0 + veil)


class Absorption(torch.nn.Module):
    def __init__(self, lines):
        super().__init__()
        self.lines = lines

    def forward(self, wave, flux):
        return flux * torch.as_tensor(transmission(self.lines, wave.numpy()))


def veiled(amount):
    instrument = Instrument(EDGES, resolving_power=5e4)
    return ForwardModel(LineForest(**STAR), instrument, radial_velocity=-9.3, vsini=6.0, between=Veiling(amount))


def test_identity_between_star_and_instrument_changes_nothing():
    class Identity(torch.nn.Module):
        def forward(self, wave, flux):
            return flux

    model = make_model()
    before = model()
    model.between = Identity()
    assert torch.equal(model(), before)


def test_what_is_between_comes_before_the_line_spread_function():
    # lines that belong to neither: the same as a telluric, which is multiplied at the same place
    options = {"radial_velocity": -9.3, "vsini": 6.0}
    instrument = Instrument(EDGES, resolving_power=5e4)
    between = ForwardModel(LineForest(**STAR), instrument, between=Absorption(WATER), **options)
    telluric = ForwardModel(LineForest(**STAR), instrument, telluric=LineForest(**WATER, tolerance=1e-9), **options)
    np.testing.assert_allclose(between().detach().numpy(), telluric().detach().numpy(), atol=1e-7)


def test_veiling_in_closed_form(reference):
    # A veil that hardly changes within a line spread function can be added to the pixels just as well.
    bare, veil = make_model(scales=(1e-9, 1e-9)), 0.4 * EDGES.mean(dim=1) / 8500.0
    expected = (bare() / bare.continuum_level() + veil) / (1.0 + veil)
    np.testing.assert_allclose(veiled(0.4)().detach().numpy(), expected.detach().numpy(), atol=1e-6)


def test_gradient_flows_through_what_is_between():
    model, step = veiled(0.4), 1e-5
    slope = torch.autograd.grad(model()[11], model.between.log_amount)[0].item()
    up, down = (veiled(0.4 * np.exp(h))()[11].item() for h in (step, -step))
    assert slope == pytest.approx((up - down) / (2.0 * step), rel=1e-6)
    assert abs(slope) > 1e-2


def test_state_with_something_between():
    model, other = veiled(0.4), veiled(2.0)
    assert "between.log_amount" in model.state_dict()
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(other(), model())
