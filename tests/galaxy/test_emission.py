"""add_emission_lines: what is put on a continuum is found there by integration; gradients against differences."""

import numpy as np
import pytest
import torch
from astropy import units as u
from astropy.cosmology import FlatLambdaCDM
from astropy.nddata import InverseVariance, StdDevUncertainty
from scipy.integrate import quad
from scipy.stats import norm
from specutils import Spectrum, SpectrumList

from specutils_blase import BlaseWarning, functional
from specutils_blase.galaxy import add_emission_lines, top_hat_continuum
from specutils_blase.galaxy.line_predictor import LINES

UNIT = u.Unit("1e-17 erg / (s cm2 AA)")
KMS = u.km / u.s
WAVE = np.arange(3450.0, 8000.0, 1.5)
# What goes to the line itself, and not to its neighbours, of lines that stand alone.
ALONE = ("OII_DOUBLET", "HGAMMA", "HBETA", "OIII_4959", "OIII_5007")


def continuum(wave=WAVE, unit=UNIT, **options):
    flux = (5.0 * (wave / 5500.0) ** -0.7 + 0.2 * np.sin(wave / 700.0)) * UNIT
    return Spectrum(flux=flux.to(unit, u.spectral_density(wave * u.AA)), spectral_axis=wave * u.AA, **options)


def level(wave, redshift):
    """The continuum at lines, from the formula."""
    at = wave * (1 + redshift)
    return 5.0 * (at / 5500.0) ** -0.7 + 0.2 * np.sin(at / 700.0)


@pytest.mark.parametrize("redshift", [0.02, 0.13])
@pytest.mark.parametrize("unit", [UNIT, u.Jy, u.Unit("W / (m2 um)")])
def test_equivalent_widths_are_those_predicted(predictor, redshift, unit):
    spectrum = continuum(unit=unit)
    predicted = predictor.predict(spectrum, redshift)
    galaxy = add_emission_lines(spectrum, predictor, redshift, 100 * KMS)
    assert galaxy.flux.unit == unit
    added = (galaxy.flux - spectrum.flux).to_value(UNIT, u.spectral_density(WAVE * u.AA))
    for name in ALONE:
        wave = LINES[name]
        near = np.abs(WAVE / (1 + redshift) / wave - 1) < 1100 / 299792.458
        width = 1.5 * added[near].sum() / level(wave, redshift) / (1 + redshift)
        assert width == pytest.approx(predicted[name][0].value, rel=4e-3), name
    # the lines of [N II] and H alpha, and of [S II], together
    for low, high in ((6500.0, 6640.0), (6660.0, 6790.0)):
        names = [name for name, wave in LINES.items() if low < wave < high]
        near = (WAVE / (1 + redshift) > low) & (WAVE / (1 + redshift) < high)
        expected = sum(predicted[name][0].value * level(LINES[name], redshift) for name in names)
        assert 1.5 * added[near].sum() / (1 + redshift) == pytest.approx(expected, rel=4e-3)


def test_profile_of_a_line_is_a_gaussian_in_velocity(predictor):
    redshift, sigma = 0.1, 200.0
    spectrum = continuum(wave := np.arange(3700.0, 8000.0, 0.25))
    added = (add_emission_lines(spectrum, predictor, redshift, sigma * KMS).flux - spectrum.flux).value
    center = 4862.71 * (1 + redshift)
    near = np.abs(wave / center - 1) < 900 / 299792.458
    total = added[near].sum()
    assert (added * wave)[near].sum() / total == pytest.approx(center, abs=1e-3)
    spread = np.sqrt((added * (wave - center) ** 2)[near].sum() / total - 0.25**2 / 12)
    assert spread / center * 299792.458 == pytest.approx(sigma, rel=1e-3)


def test_oii_is_two_lines(predictor):
    wave = np.arange(3650.0, 8000.0, 0.2)
    added = (add_emission_lines(continuum(wave), predictor, 0.1, 30 * KMS).flux - continuum(wave).flux).value
    fluxes = [added[np.abs(wave / 1.1 - center) < 1.3].sum() for center in (3727.10, 3729.86)]
    assert fluxes[1] / fluxes[0] == pytest.approx(1.41, rel=5e-3)


@pytest.mark.parametrize("dispersion", [0.1, 5.0, 60.0])
def test_flux_of_lines_narrower_than_a_pixel_is_conserved(predictor, dispersion):
    spectrum = continuum(np.arange(3700.0, 8000.0, 4.0))
    galaxy = add_emission_lines(spectrum, predictor, 0.1, dispersion * KMS)
    table = galaxy.meta["emission_lines"]
    total = sum(table[f"{name}_flux"][0].value for name in LINES)
    assert (galaxy.flux - spectrum.flux).value.sum() * 4.0 == pytest.approx(total, rel=1e-9)


def test_a_gap_takes_the_part_of_a_line_that_falls_into_it(predictor):
    wave = WAVE[np.abs(WAVE - 5350.0) > 2.0]  # within H beta
    spectrum = continuum(wave)
    galaxy = add_emission_lines(spectrum, predictor, 0.1, 150 * KMS)
    row = galaxy.meta["emission_lines"][0]
    center = 4862.71 * 1.1
    bounds = (galaxy.flux - spectrum.flux).value[np.abs(wave - center) < 40].sum() * 1.5
    sigma = center * 150 / 299792.458
    edges = wave[np.searchsorted(wave, 5350.0) - 1] + 0.75, wave[np.searchsorted(wave, 5350.0)] - 0.75
    missing = quad(norm(center, sigma).pdf, *edges)[0]
    assert bounds == pytest.approx(row["HBETA_flux"].value * (1 - missing), rel=1e-6)


def test_lines_outside_are_left_out_and_none_at_redshift_zero_is_moved(predictor):
    spectrum = continuum(np.arange(3390.0, 7100.0, 1.0))
    table = add_emission_lines(spectrum, predictor, 0.0, 100 * KMS).meta["emission_lines"]
    assert all(np.isfinite(table[name]) for name in LINES)
    red = continuum(np.arange(6400.0, 14500.0, 2.0))  # [O II] at 7128
    table = add_emission_lines(red, predictor, 0.9, 100 * KMS).meta["emission_lines"]
    assert np.isfinite(table["OII_DOUBLET"][0]) and table["HALPHA_flux"][0] > 0
    short = continuum(np.arange(3390.0, 6600.0, 1.0))
    with pytest.warns(BlaseWarning, match="do not cover all bins"):
        same = add_emission_lines(short, predictor, 0.0, 100 * KMS)
    np.testing.assert_array_equal(same.flux, short.flux)
    assert np.isnan(same.meta["emission_lines"]["HALPHA"]).all()


def test_a_line_on_no_continuum_is_left_out_of_the_table_too(predictor):
    flux = continuum().flux.copy()
    flux[(WAVE > 5450.0) & (WAVE < 5560.0)] = -0.2 * UNIT
    spectrum = Spectrum(flux=flux, spectral_axis=WAVE * u.AA)
    galaxy = add_emission_lines(spectrum, predictor, 0.1, 100 * KMS)
    table = galaxy.meta["emission_lines"]
    assert np.isnan(table["OIII_5007"][0]) and np.isnan(table["OIII_5007_flux"][0])
    added = 1.5 * (galaxy.flux - flux).value.sum()
    known = [table[f"{name}_flux"][0].value for name in LINES if name != "OIII_5007"]
    assert added == pytest.approx(np.nansum(known), rel=1e-3) and table["OIII_4959_flux"][0] > 0


def test_what_the_spectrum_has_is_kept(predictor):
    flux = continuum().flux
    mask, sigma = np.zeros(WAVE.size, dtype=bool), np.full(WAVE.size, 0.1)
    mask[700:720] = True
    for axis, order in ((WAVE * u.AA, 1), (WAVE[::-1] * u.AA, -1), ((WAVE * u.AA).to(u.um), 1)):
        spectrum = Spectrum(flux=flux[::order], spectral_axis=axis, uncertainty=StdDevUncertainty(sigma, unit=UNIT),
                            mask=mask[::order], meta={"name": "one"})  # fmt: skip
        galaxy = add_emission_lines(spectrum, predictor, 0.1, 100 * KMS)
        assert galaxy.spectral_axis.unit == spectrum.spectral_axis.unit and galaxy.meta["name"] == "one"
        assert "emission_lines" not in spectrum.meta and spectrum.flux[0] == flux[::order][0]
        np.testing.assert_array_equal(galaxy.mask, spectrum.mask)
        np.testing.assert_array_equal(galaxy.uncertainty.array, sigma)
        expected = add_emission_lines(continuum(mask=mask), predictor, 0.1, 100 * KMS).flux[::order]
        np.testing.assert_allclose(galaxy.flux.value, expected.value, rtol=1e-9)


def test_rows_are_as_one_by_one(predictor):
    flux = np.stack([continuum().flux.value, 2 * continuum().flux.value[::-1]]) * UNIT
    ivar = np.ones((2, WAVE.size))
    rows = Spectrum(flux=flux, spectral_axis=WAVE * u.AA, uncertainty=InverseVariance(ivar))
    z, dispersion = [0.05, 0.12], [80.0, 150.0] * KMS
    galaxies = add_emission_lines(rows, predictor, z, dispersion)
    assert galaxies.flux.shape == flux.shape and len(galaxies.meta["emission_lines"]) == 2
    for k in range(2):
        alone = add_emission_lines(Spectrum(flux=flux[k], spectral_axis=WAVE * u.AA), predictor, z[k], dispersion[k])
        np.testing.assert_allclose(galaxies.flux[k].value, alone.flux.value, rtol=1e-6)
    ivar[1] = 0.0
    rows = Spectrum(flux=flux, spectral_axis=WAVE * u.AA, uncertainty=InverseVariance(ivar))
    with pytest.warns(BlaseWarning, match="1 of 2 galaxies do not cover"):
        galaxies = add_emission_lines(rows, predictor, z, dispersion)
    np.testing.assert_array_equal(galaxies.flux[1], flux[1])


def test_draws(predictor):
    spectrum = continuum()
    first, again, other = (add_emission_lines(spectrum, predictor, 0.1, 100 * KMS, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.flux, again.flux)
    drawn = predictor.sample(spectrum, 0.1, seed=1)
    assert first.meta["emission_lines"]["HALPHA"][0] == drawn["HALPHA"][0, 0]
    assert first.meta["emission_lines"]["HALPHA"][0] != other.meta["emission_lines"]["HALPHA"][0]


def test_bins_of_a_spectrum_with_lines_are_those_without(predictor):
    spectrum = continuum()
    galaxy = add_emission_lines(spectrum, predictor, 0.1, 100 * KMS)
    bare, lit = (top_hat_continuum(s, 0.1).value for s in (spectrum, galaxy))
    np.testing.assert_allclose(lit, bare, rtol=1e-6)


@pytest.mark.parametrize(("change", "error", "text"), [
    ({"redshift": None}, TypeError, "redshift must be a number"),
    ({"redshift": -0.1}, ValueError, "redshift must be finite and not negative"),
    ({"redshift": np.nan}, ValueError, "redshift must be finite"),
    ({"velocity_dispersion": 100.0}, TypeError, "velocity_dispersion must be a Quantity in a unit like 'km / s'"),
    ({"velocity_dispersion": 2 * u.AA}, u.UnitsError, "velocity_dispersion must have a unit like 'km / s'"),
    ({"velocity_dispersion": 0 * KMS}, ValueError, "velocity_dispersion must be positive and less than 20000 km . s"),
    ({"velocity_dispersion": 1e6 * KMS}, ValueError, "velocity_dispersion must be positive and less than 20000"),
    ({"velocity_dispersion": [1, 2] * KMS}, ValueError, "have one value, or one for each of 1 galaxies"),
    ({"predictor": None}, TypeError, "predictor must be an EmissionLinePredictor, got NoneType"),
    ({"spectrum": np.ones(5)}, TypeError, "spectrum must be a specutils Spectrum, got ndarray"),
    ({"spectrum": SpectrumList([continuum()])}, TypeError, "spectrum must be a specutils Spectrum, got SpectrumList"),
    ({"spectrum": Spectrum(flux=np.ones(WAVE.size) * u.ct, spectral_axis=WAVE * u.AA)},
     u.UnitsError, "spectrum must have a flux density per wavelength or frequency"),
    ({"spectrum": Spectrum(flux=-np.ones(WAVE.size) * UNIT, spectral_axis=WAVE * u.AA)},
     ValueError, "continuum must be positive"),
])  # fmt: skip
def test_bad_input(predictor, change, error, text):
    given = {"spectrum": continuum(), "predictor": predictor, "redshift": 0.1, "velocity_dispersion": 100 * KMS}
    with pytest.raises(error, match=text):
        add_emission_lines(**(given | change))


# ------------------------------------------------------------------------------------------------------------ tensors


def tensors(n=2):
    edges = np.linspace(3600.0, 8000.0, 901)
    middle = (edges[1:] + edges[:-1]) / 2
    flux = np.stack([level(middle, 0.0) * (1 + 0.1 * k) for k in range(n)])
    good = np.ones(flux.shape, dtype=bool)
    good[0, 400:410] = False
    flux[0, 400:410] = np.nan
    values = flux, np.stack([edges[:-1], edges[1:]], axis=1), good, np.array([0.1, 0.07]), np.array([110.0, 160.0])
    return [torch.as_tensor(v if k == 1 else v[:n]) for k, v in enumerate(values)]


def test_gradients_are_finite_differences(predictor):
    flux, edges, good, z, dispersion = tensors()
    module = predictor.module().double()
    weight = torch.as_tensor(np.random.default_rng(5).normal(size=flux.shape)) * good

    def loss(flux, z, dispersion):
        return (torch.where(good, module(flux, edges, good, z, dispersion), 0.0) * weight).sum()

    inputs = [v.clone().requires_grad_() for v in (flux, z, dispersion)]
    gradients = torch.autograd.grad(loss(*inputs), inputs)
    assert all(g.isfinite().all() for g in gradients)
    rng = np.random.default_rng(6)
    for k, step in ((0, 1e-6), (1, 1e-8), (2, 1e-4)):
        direction = torch.as_tensor(rng.normal(size=inputs[k].shape))
        direction = torch.where(good, direction, 0.0) if k == 0 else direction
        ends = []
        for sign in (-1, 1):
            moved = [v.detach().clone() for v in inputs]
            moved[k] += sign * step * direction
            ends.append(loss(*moved).item())
        difference = (ends[1] - ends[0]) / (2 * step)
        assert difference == pytest.approx((gradients[k] * direction).sum().item(), rel=2e-5), k


def test_module_does_what_the_function_does(predictor):
    flux, edges, good, z, dispersion = tensors(1)
    flux = torch.where(good, flux, flux[~flux.isnan()].mean())
    middle = edges.mean(1).numpy()
    spectrum = Spectrum(flux=flux[0].numpy() * UNIT, spectral_axis=middle * u.AA, mask=~good[0].numpy())
    galaxy = add_emission_lines(spectrum, predictor, z.numpy(), dispersion.numpy() * KMS)
    with torch.no_grad():
        ours = predictor.module()(flux, edges, good, z, dispersion)[0]
    np.testing.assert_allclose(galaxy.flux.value, ours, rtol=1e-6)


def test_a_galaxy_that_is_not_covered_has_no_lines_and_gradients_of_one(predictor):
    flux, edges, good, z, dispersion = tensors()
    good[:], good[0, :500] = True, False
    flux = torch.nan_to_num(flux, nan=1.0).requires_grad_()
    z = z.requires_grad_()
    with_lines = predictor.module()(flux, edges, good, z, dispersion)
    assert torch.equal(with_lines[0], flux[0]) and (with_lines[1] > flux[1]).any()
    gradients = torch.autograd.grad(with_lines[0].sum(), (flux, z))
    assert torch.equal(gradients[0][0], torch.ones_like(flux[0])) and gradients[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("sigma", [0.01, 0.7, 5.0])
def test_mean_over_a_pixel_against_quadrature(sigma):
    edges = np.array([[4990.0, 4999.0], [4999.0, 5000.5], [5000.5, 5003.0], [5004.0, 5010.0]])
    center, strength = np.array([5000.2, 5003.5]), np.array([2.0, -0.5])
    tensors = [torch.as_tensor(v) for v in (edges, center, strength, np.array([sigma, sigma]))]
    pairs = functional.line_pixel_pairs(tensors[0].mean(1), tensors[1], torch.full((2,), 100.0, dtype=torch.float64))
    ours = functional.pixel_depth(tensors[0], center=tensors[1], strength=tensors[2], sigma=tensors[3], pairs=pairs)
    for (low, high), value in zip(edges, ours, strict=True):
        grid = np.linspace(low, high, 400_001)
        depth = sum(a * norm.pdf(grid, c, sigma) for a, c in zip(strength, center, strict=True))
        assert value == pytest.approx(np.trapezoid(depth, grid) / (high - low), abs=1e-8)


def test_level_is_robust_and_follows_slopes():
    edges = torch.linspace(4500.0, 5600.0, 1101, dtype=torch.float64)
    edges = torch.stack([edges[:-1], edges[1:]], dim=1)
    middle, z = edges.mean(1), torch.tensor(0.03, dtype=torch.float64)
    wave = torch.tensor([4862.71, 5008.24, 5400.0], dtype=torch.float64)
    flux = 1.0 + middle / 1000.0
    good = torch.ones(len(flux), dtype=torch.bool)
    expected = 1.0 + wave * 1.03 / 1000.0
    torch.testing.assert_close(functional.line_levels(flux, edges, good, z, wave), expected)
    spoiled = flux.clone()
    spoiled[::7] += 1e3  # cosmic rays
    spoiled -= 0.8 * torch.exp(-0.5 * ((middle - 4862.71 * 1.03) / 8.0) ** 2)  # absorption of stars
    spoiled += 30.0 * torch.exp(-0.5 * ((middle - 5008.24 * 1.03) / 3.0) ** 2)  # the line is there already
    torch.testing.assert_close(functional.line_levels(spoiled, edges, good, z, wave), expected, rtol=4e-3, atol=0)
    # with one side alone, and with no pixel that can be used
    one_side = functional.line_levels(flux, edges, middle > 4862.71 * 1.03 - 1, z, wave)[0]
    assert one_side == pytest.approx(expected[0].item(), rel=0.01)
    assert functional.line_levels(flux, edges, ~good, z, wave).isnan().all()


def test_luminosity_distance_against_astropy():
    z = np.geomspace(1e-6, 20.0, 200)
    expected = FlatLambdaCDM(H0=70, Om0=0.3).luminosity_distance(z).to_value(u.Mpc)
    np.testing.assert_allclose(functional.luminosity_distance(torch.as_tensor(z)), expected, rtol=1e-9)
