"""The simulator against closed forms, plain integrals over a disc and a detector, and conservation laws."""

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.modeling.models import Voigt1D
from scipy.special import erf

from specutils_blase.modeling import VoigtForest1D
from specutils_blase.nn import ForwardModel, Instrument, LineForest
from specutils_blase.simulation import equivalent_width, scatter_lines, simulate_order, simulate_star, simulate_telluric

C = 299792.458
FWHM_PER_SIGMA = 2 * np.sqrt(2 * np.log(2))
KMS = u.km / u.s
CENTER = 10600.0
TOLERANCE = 1e-14  # of the lines' windows: no wing is cut


def forest(strength=0.05, fwhm_gauss=0.1, fwhm_lorentz=0.02, center=CENTER):
    columns = np.atleast_1d(center), strength, fwhm_gauss, fwhm_lorentz
    center, strength, gauss, lorentz = (np.broadcast_to(c, np.shape(columns[0])) * u.AA for c in columns)
    return VoigtForest1D(x_0=center, strength=strength, fwhm_G=gauss, fwhm_L=lorentz, tolerance=TOLERANCE)


def line_forest(model):
    center, strength, gauss, lorentz = (getattr(model, name).value for name in model.param_names[:4])
    return LineForest(center, strength, sigma=gauss / FWHM_PER_SIGMA, gamma=lorentz / 2)


def flat_order(star, telluric=None, **kwargs):
    """Edges (n + 1,), pixel means (n,) of an order without noise whose continuum is 1."""
    options = {"seed": 0, "snr": 1.0, "continuum": (1.0,), "read_noise": 0.0, "vsini": 0 * KMS} | kwargs
    spectrum = simulate_order(star, telluric, **options).noiseless
    return spectrum.spectral_axis.bin_edges.to_value(u.AA), spectrum.flux.value


def shifted(velocity, center=CENTER):
    return center * np.sqrt((1 + velocity / C) / (1 - velocity / C))


@pytest.mark.parametrize("velocity", [-310.0, 0.0, 87.3])
def test_gaussian_line_through_the_line_spread_function(velocity):
    strength, fwhm, resolving_power = 1e-6, 0.1, 40_000.0
    star = forest(strength, fwhm, 1e-9)
    edges, flux = flat_order(star, radial_velocity=velocity * KMS, resolving_power=resolving_power)
    stretch = shifted(velocity) / CENTER
    sigma = np.hypot(fwhm * stretch, shifted(velocity) / resolving_power) / FWHM_PER_SIGMA
    cumulative = 0.5 * erf((edges - shifted(velocity)) / (np.sqrt(2) * sigma))
    expected = strength * stretch * np.diff(cumulative) / np.diff(edges)
    # a Gaussian in velocity is one in wavelength to first order in sigma / wavelength
    np.testing.assert_allclose(1 - flux, expected, atol=1e-4 * expected.max(), rtol=0)


@pytest.mark.parametrize("vsini", [0.0, 2.5, 40.0])
@pytest.mark.parametrize("resolving_power", [20_000.0, 120_000.0])
def test_equivalent_width_and_centroid_survive(vsini, resolving_power):
    # saturated, so that a chain acting on optical depths would change it; almost no wings to lose beyond the order
    strength, gauss, lorentz = 0.3, 0.1, 1e-6
    velocity = -42.0
    edges, flux = flat_order(
        forest(strength, gauss, lorentz),
        radial_velocity=velocity * KMS,
        vsini=vsini * KMS,
        resolving_power=resolving_power,
    )
    lost = (1 - flux) * np.diff(edges)
    stretch = shifted(velocity) / CENTER
    assert lost.sum() == pytest.approx(equivalent_width([strength], [gauss], [lorentz])[0] * stretch, rel=1e-6)
    centroid = np.average(0.5 * (edges[1:] + edges[:-1]), weights=lost)
    # a kernel that is symmetric in velocity moves the centroid in wavelength by 1.5 (width / c)^2
    assert (centroid / shifted(velocity) - 1) * C == pytest.approx(0, abs=2.5e-3)


@pytest.mark.parametrize("limb_darkening", [0.0, 0.6, 1.0])
def test_rotation_is_the_sum_over_a_disc(limb_darkening):
    vsini, resolving_power, strength = 25.0, 60_000.0, 1e-6
    edges, flux = flat_order(
        forest(strength, 0.15, 1e-9),
        vsini=vsini * KMS,
        limb_darkening=limb_darkening,
        resolving_power=resolving_power,
    )
    # the visible disc in a fine mesh of points; x towards the receding limb
    side = np.linspace(-1, 1, 2001)
    x, y = np.meshgrid(side, side)
    mu = np.sqrt(np.clip(1 - x**2 - y**2, 0, None))
    brightness = np.where(mu > 0, 1 - limb_darkening * (1 - mu), 0)
    strips = brightness.sum(axis=0) / brightness.sum()
    middle = 0.5 * (edges[1:] + edges[:-1])
    near = np.abs(middle / CENTER - 1) * C < 45
    sigma = np.hypot(0.15, CENTER / resolving_power) / FWHM_PER_SIGMA
    z = (edges[:, None] - shifted(vsini * side)) / (np.sqrt(2) * sigma)
    expected = strength * np.diff(0.5 * erf(z) @ strips) / np.diff(edges)
    np.testing.assert_allclose((1 - flux)[near], expected[near], atol=1e-3 * expected.max(), rtol=0)


def test_star_times_telluric_before_the_instrument():
    velocity, resolving_power, scale = 30.0, 50_000.0, 1.7
    star, sky = forest(0.2, center=CENTER), forest(0.3, 0.03, 0.1, center=shifted(30.0) + 0.08)
    edges, flux = flat_order(
        star, sky, radial_velocity=velocity * KMS, resolving_power=resolving_power, telluric_scale=scale
    )
    fine = np.linspace(CENTER - 20, CENTER + 20, 80_001)

    def tau(model, wave, stretch=1.0):
        line = Voigt1D(0, 1, fwhm_L=float(model.fwhm_L.value), fwhm_G=float(model.fwhm_G.value))
        area = 0.5 * np.pi * float(model.fwhm_L.value)  # of a Voigt1D of unit amplitude
        return float(model.strength.value) * line(wave / stretch - float(model.x_0.value)) / area

    native = np.exp(-tau(star, fine, shifted(velocity) / CENTER) - scale * tau(sky, fine))
    sigma = shifted(velocity) / resolving_power / FWHM_PER_SIGMA
    pixels = np.flatnonzero(np.abs(edges[:-1] - shifted(velocity)) < 0.6)
    expected = []
    for low, high in zip(edges[pixels], edges[pixels + 1], strict=True):
        share = 0.5 * (erf((high - fine) / (np.sqrt(2) * sigma)) - erf((low - fine) / (np.sqrt(2) * sigma)))
        expected.append(1 - np.trapezoid((1 - native) * share, fine) / (high - low))
    assert min(expected) < 0.55
    np.testing.assert_allclose(flux[pixels], expected, atol=2e-5)


def test_veiling_dilutes_the_star_and_not_the_sky():
    star, sky, amount = forest(0.2), forest(0.3, 0.03, 0.1, center=CENTER + 0.08), 0.4
    star_and_sky, sky_alone = flat_order(star, sky)[1], flat_order(None, sky)[1]
    veiled = flat_order(star, sky, veiling=amount)[1]
    np.testing.assert_allclose(veiled, (star_and_sky + amount * sky_alone) / (1 + amount), rtol=1e-9)


def test_species_add_their_optical_depths():
    water, oxygen = forest([0.1, 0.2], 0.05, 0.04, [CENTER - 5, CENTER]), forest(0.3, 0.03, 0.1, CENTER + 0.1)
    both = forest([0.15, 0.3, 0.24], [0.05, 0.05, 0.03], [0.04, 0.04, 0.1], [CENTER - 5, CENTER, CENTER + 0.1])
    apart = flat_order(None, [water, oxygen], telluric_scale=(1.5, 0.8))[1]
    np.testing.assert_allclose(apart, flat_order(None, both)[1], rtol=1e-9)


def test_wavelengths_are_longer_than_said():
    coefficients, strength, fwhm, power = (0.4, -0.9), 1e-6, 0.1, 40_000.0
    edges, flux = flat_order(
        forest(strength, fwhm, 1e-9), wavelength_shift=coefficients, resolving_power=power, n_pix=512
    )
    assert edges[[0, -1]] == pytest.approx([10537, 10663])
    place = 2 * (edges - 10537) / 126 - 1
    true = edges * (1 + (coefficients[0] + coefficients[1] * place) / C)
    sigma = np.hypot(fwhm, CENTER / power) / FWHM_PER_SIGMA
    expected = strength * np.diff(0.5 * erf((true - CENTER) / (np.sqrt(2) * sigma))) / np.diff(true)
    np.testing.assert_allclose(1 - flux, expected, atol=1e-4 * expected.max(), rtol=0)


def test_continuum_noise_and_units():
    order = simulate_order(None, seed=5, snr=200.0, continuum=(1.0, 0.0, -0.3), read_noise=12.0, n_pix=4096)
    spectrum, electrons = order.spectrum, order.noiseless.flux
    assert electrons.unit == u.electron
    edges = spectrum.spectral_axis.bin_edges.to_value(u.AA)
    x = (edges[:-1] + edges[1:] - edges[0] - edges[-1]) / (edges[-1] - edges[0])
    np.testing.assert_allclose(electrons.value, 200**2 * (1 - 0.3 * (3 * x**2 - 1) / 2), rtol=1e-9)
    sigma = spectrum.uncertainty.array
    np.testing.assert_allclose(sigma**2, electrons.value + 144)
    good = np.isfinite(spectrum.flux.value) & ~spectrum.mask
    pull = ((spectrum.flux.value - electrons.value) / sigma)[good]
    assert abs(pull.mean()) < 4 / np.sqrt(4096)
    assert pull.std() == pytest.approx(1, abs=4 / np.sqrt(2 * 4096))
    assert np.diff(edges)[[0, -1]] @ [-4 / 3, 1] == pytest.approx(0, abs=1e-4)


def test_bad_pixels_are_nan_or_masked_never_both():
    spectrum = simulate_order(None, seed=1, bad_pixels=26).spectrum
    nan = np.isnan(spectrum.flux.value)
    assert (nan.sum(), spectrum.mask.sum(), (nan & spectrum.mask).sum()) == (13, 13, 0)
    wild = np.abs(spectrum.flux.value / simulate_order(None, seed=1).noiseless.flux.value - 1) > 0.5
    np.testing.assert_array_equal(wild, spectrum.mask)


def test_seeds():
    first, again, other = simulate_star(3, n_lines=50), simulate_star(3, n_lines=50), simulate_star(4, n_lines=50)
    np.testing.assert_array_equal(first.spectrum.flux, again.spectrum.flux)
    assert not np.array_equal(first.lines["strength"], other.lines["strength"])
    flux = [simulate_order(first.model, seed=seed).spectrum.flux.value for seed in (1, 1, 2)]
    np.testing.assert_array_equal(flux[0], flux[1])
    assert not np.array_equal(flux[0], flux[2], equal_nan=True)


def test_star_is_physical():
    star = simulate_star(0)
    assert len(star.lines) == 3000
    assert star.spectrum.spectral_axis[[0, -1]].to_value(u.AA).tolist() == [10500, 10700]
    # thermal motion of carbon (the lightest) and FeH at 4700 K with 1 km/s of microturbulence
    doppler = (star.lines["fwhm_gauss"] / star.lines["line_center"]).value * C * np.sqrt(2) / FWHM_PER_SIGMA
    thermal = [np.sqrt(2 * 1.380649e-23 * 4700 / (m * 1.66053907e-27)) / 1e3 for m in (57, 12)]
    np.testing.assert_allclose([doppler.min(), doppler.max()], np.hypot(1, thermal), rtol=1e-6)
    # Stefan and Boltzmann, through the flux at one wavelength of a blackbody at the middle of the range
    exponent = 1.438776877e8 / (CENTER * 4700)
    planck = 2 * np.pi * 6.62607015e-27 * 2.99792458e10**2 / (CENTER * 1e-8) ** 5 / np.expm1(exponent) * 1e-8
    continuum = star.spectrum.flux.max().to_value("erg / (s cm2 AA)")
    assert continuum == pytest.approx(planck, rel=0.02)
    # lines everywhere, yet the continuum can be seen
    transmission = star.spectrum.flux.value / np.percentile(star.spectrum.flux.value, 99)
    assert 0.95 < np.median(transmission) < 0.999
    assert transmission.min() < 0.5
    assert 300 < np.sum(star.lines["depth"] > 0.01) < 1000


def test_line_tables_tell_the_truth():
    for source in (simulate_star(2, n_lines=400), simulate_telluric(2)):
        lines = source.lines
        strongest = int(np.argmax(lines["strength"]))
        row = lines[strongest]
        columns = (row[name].value for name in ("strength", "fwhm_gauss", "fwhm_lorentz", "line_center"))
        alone = forest(*columns)
        wave = np.linspace(-400, 400, 1_600_001) + row["line_center"].to_value(u.AA)
        absorbed = 1 - alone(wave * u.AA).value
        # the wings beyond 400 A, where tau = a gamma / (pi x^2)
        beyond = row["strength"].value * row["fwhm_lorentz"].value / np.pi / 400
        assert row["equivalent_width"].to_value(u.AA) == pytest.approx(np.trapezoid(absorbed, wave) + beyond, rel=1e-4)
        assert row["depth"].value == pytest.approx(absorbed.max(), rel=1e-4)
        assert row["depth"].value > 0.15


def test_equivalent_width_of_pure_limits():
    # weak: the strength itself; strong damping wings: 2 sqrt(a gamma) (Ladenburg and Reiche)
    assert equivalent_width([1e-7], [0.1], [0.02])[0] == pytest.approx(1e-7, rel=1e-5)
    assert equivalent_width([1e5], [1e-3], [0.2])[0] == pytest.approx(2 * np.sqrt(1e5 * 0.1), rel=1e-3)


def test_scatter_lines():
    model = simulate_star(7).model
    changed = scatter_lines(model, 1, strength=0.2, fwhm=0.05)
    for name, expected in {"strength": 0.2, "fwhm_G": 0.05, "fwhm_L": 0.05, "x_0": 0.0}.items():
        change = np.log(getattr(changed, name).value / getattr(model, name).value)
        assert change.std() == pytest.approx(expected, rel=0.06)
    assert not np.shares_memory(model.strength.value, changed.strength.value)
    assert changed.continuum_domain is not None and changed.teff == model.teff


def test_agrees_with_the_forward_model_of_the_package():
    # two chains that share the profiles alone: Fourier transforms and splines here, sparse matrices there
    star, sky = simulate_star(1).model, simulate_telluric(2).model
    velocity, vsini, scale = -20.0, 6.0, 1.3
    order = simulate_order(
        star, sky, seed=0, radial_velocity=velocity * KMS, vsini=vsini * KMS, telluric_scale=scale, n_pix=1024
    )
    edges = order.noiseless.spectral_axis.bin_edges.to_value(u.AA)
    instrument = Instrument(torch.tensor(np.stack([edges[:-1], edges[1:]], axis=1)), resolving_power=55_000.0)
    model = ForwardModel(
        line_forest(star),
        instrument,
        telluric=line_forest(sky),
        radial_velocity=velocity,
        vsini=vsini,
        continuum=order.truth["continuum"],
    )
    with torch.no_grad():
        model.telluric_log_scale.fill_(np.log(scale))
        flux = model().numpy()
    np.testing.assert_allclose(flux, order.noiseless.flux.value, rtol=3e-6)
