"""States of the original code: their conventions, and files that are none."""

import collections
import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from astropy import units as u
from astropy.table import QTable
from scipy.integrate import quad

from specutils_blase import CoverageError, clone_spectrum
from specutils_blase.functional import original_profile, original_transmission, voigt
from specutils_blase.io import blase_spectrum, read_blase_state

PRETRAINED = "stellar/blase_emulator_T4700g4p5_prom0p01_HPF.pt"


def published_flux(state, wave, form="product"):
    """The forward pass of the emulators in plain numpy: every line at every wavelength, constants as in that code."""
    amplitude, sigma, gamma = (np.exp(state[name]) for name in ("amplitudes", "sigma_widths", "gamma_widths"))
    f_g, f_l = 2.3548 * sigma, 2.0 * gamma
    powers = {5: 1.0, 4: 2.69269, 3: 2.42843, 2: 4.47163, 1: 0.07842, 0: 1.0}
    f = sum(factor * f_g**n * f_l ** (5 - n) for n, factor in powers.items()) ** 0.2
    eta = np.polyval([0.11116, -0.47719, 1.36603, 0.0], f_l / f)
    x = (wave - 10_500.0) / 2500.0
    polynomial = state.get("a_coeff", 1.0) + state.get("b_coeff", 0.0) * x + state.get("c_coeff", 0.0) * x**2
    out = []
    for one in wave:
        delta = one - state["lam_centers"]
        lorentzian = gamma / (gamma**2 + delta**2) / 3.141592654
        gaussian = np.exp(-0.5 * (delta / sigma) ** 2) / (2.5066 * sigma)
        line = amplitude * (eta * lorentzian + (1.0 - eta) * gaussian)
        out.append(np.exp(-line.sum()) if form == "opacity" else np.prod(1.0 - np.clip(line, 0.0, 0.999999999)))
    return np.array(out) * polynomial


def make_state(n=12, **changes):
    rng = np.random.default_rng(8)
    state = {
        "amplitudes": rng.uniform(-4.5, -1.5, n),
        "sigma_widths": rng.uniform(-4.0, -1.0, n),
        "gamma_widths": rng.uniform(-5.0, -1.5, n),
        "lam_centers": rng.permutation(np.linspace(10_480, 10_520, n)),
        "a_coeff": np.array(1.02), "b_coeff": np.array(-0.5), "c_coeff": np.array(3.0),
        "radial_velocity": np.array(12.5),
    }  # fmt: skip
    return {**state, **changes}


@pytest.fixture
def saved(tmp_path):
    def save(state):
        path = tmp_path / "state.pt"
        torch.save(collections.OrderedDict((k, torch.as_tensor(v)) for k, v in state.items()), path)
        return path

    return save


# ------------------------------------------------------------------------------------------------------ conventions


def test_pretrained_state_has_the_published_flux(shared_data):
    path = shared_data / PRETRAINED
    lines = read_blase_state(path)
    assert len(lines) == 9028
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = {name: value.numpy() for name, value in state.items()}
    wave = np.sort(np.random.default_rng(1).uniform(8069.0, 12_818.0, 400))
    wave = np.sort(np.append(wave, state["lam_centers"][::100]))
    flux = blase_spectrum(lines, wave * u.AA).flux
    assert flux.unit == u.one and flux.min() < 0.5 and flux.max() > 0.999
    np.testing.assert_allclose(flux.value, published_flux(state, wave), rtol=0, atol=1e-8)


def test_pretrained_state_becomes_a_template(shared_data):
    """Voigt profiles of the same widths are far off; those of a clone are not."""
    lines = read_blase_state(shared_data / PRETRAINED)
    star = blase_spectrum(lines, np.arange(8650.0, 8750.0, 0.02) * u.AA)
    template = clone_spectrum(star, progress=False)
    off = (template.evaluate(star.spectral_axis).flux - star.flux).value
    assert template.fit_info["status"] == "converged" and off.std() < 1e-3
    near = lines[(lines["line_center"] > 8600 * u.AA) & (lines["line_center"] < 8800 * u.AA)]
    same = [near[name].value for name in ("line_center", "strength", "fwhm_gauss", "fwhm_lorentz")]
    naive = template.model.transmission(star.spectral_axis.value, *same)
    assert (naive - star.flux.value).std() > 0.01


@pytest.mark.parametrize("form", ["product", "opacity"])
def test_any_state_has_the_published_flux(form, saved):
    state = make_state()
    lines = read_blase_state(saved(state), form)
    wave = np.sort(np.random.default_rng(2).uniform(10_480, 10_520, 300))[::-1]
    flux = blase_spectrum(lines, wave * u.AA).flux.value
    np.testing.assert_allclose(flux, published_flux(state, wave, form), rtol=0, atol=1e-9)
    assert flux.min() < 0.5


def test_table_is_in_the_units_of_this_package(saved):
    state = make_state()
    lines = read_blase_state(saved(state))
    order = np.argsort(state["lam_centers"])
    assert np.array_equal(lines["line_center"].to_value(u.AA), state["lam_centers"][order])
    np.testing.assert_allclose(lines["strength"].to_value(u.AA), np.exp(state["amplitudes"][order]), rtol=1e-14)
    half = lines["fwhm_gauss"].to_value(u.AA) / 2
    np.testing.assert_allclose(np.exp(-0.5 * (half / np.exp(state["sigma_widths"][order])) ** 2), 0.5, rtol=1e-12)
    np.testing.assert_allclose(lines["fwhm_lorentz"].to_value(u.AA), 2 * np.exp(state["gamma_widths"][order]))
    alone = {name: state[name][order[:1]] for name in ("amplitudes", "sigma_widths", "gamma_widths", "lam_centers")}
    np.testing.assert_allclose(1 - lines["depth"][0], published_flux(alone, alone["lam_centers"])[0], rtol=1e-10)
    assert lines.meta["radial_velocity"] == 12.5 * u.km / u.s and lines.meta["wavelength_medium"] == "vacuum"
    assert lines.meta["source"] == "state.pt"


def test_state_without_continuum_and_velocity_is_read(saved):
    state = {name: value for name, value in make_state().items() if value.ndim}
    lines = read_blase_state(saved(state))
    assert lines.meta["continuum"] == [1.0, 0.0, 0.0] and lines.meta["radial_velocity"] == 0 * u.km / u.s


def test_strong_lines_are_cut_as_in_that_code(saved):
    state = make_state(1, amplitudes=np.array([1.0]), lam_centers=np.array([10_500.0]))
    lines = read_blase_state(saved({**state, "lam_centers": np.array([10_500.0])}))
    value = original_transmission([10_500.0], *(np.exp(state[n]) if n != "lam_centers" else state[n] for n in (
        "lam_centers", "amplitudes", "sigma_widths", "gamma_widths")))  # fmt: skip
    assert value.item() == pytest.approx(1e-9, rel=1e-3) and lines["depth"][0] == 1.0


def test_other_axes_and_media(saved):
    lines = read_blase_state(saved(make_state()))
    wave = np.linspace(10_485, 10_515, 50) * u.AA
    flux = blase_spectrum(lines, wave).flux.value
    np.testing.assert_allclose(blase_spectrum(lines, wave.to(u.THz, u.spectral())).flux.value, flux, atol=1e-9)
    air = blase_spectrum(lines, wave, medium="air")
    assert air.meta["wavelength_medium"] == "air" and np.abs(air.flux.value - flux).max() > 0.01
    with pytest.raises(CoverageError, match="10480 to 10520 Angstrom, got 10470 to 10500"):
        blase_spectrum(lines, [10_470, 10_500] * u.AA)
    with pytest.raises(ValueError, match='medium must be "vacuum" or "air"'):
        blase_spectrum(lines, wave, medium="water")
    with pytest.raises(ValueError, match="shape"):
        blase_spectrum(lines, wave[:, None])
    with pytest.raises(ValueError, match="lines must be what read_blase_state returned, got a QTable"):
        blase_spectrum(QTable(), wave)


def test_profile_is_not_a_voigt_profile_but_has_unit_area():
    for ratio in (0.1, 1.0, 10.0):
        profile = lambda x, gamma=0.1 * ratio: original_profile(x, sigma=0.1, gamma=gamma).item()  # noqa: E731
        area = 2 * (quad(profile, 0, 1, limit=200)[0] + quad(profile, 1, np.inf, limit=200)[0])
        assert area == pytest.approx(1.0, abs=2e-5)
    one = torch.tensor(0.1, dtype=torch.float64)
    ratio = original_profile(0 * one, sigma=one, gamma=one) / voigt(0 * one, sigma=one, gamma=one)
    assert ratio.item() == pytest.approx(1.7, abs=0.1)


# ------------------------------------------------------------------------------------------------- files that are none


class Opens:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return (open, ("ran", "w"))


def garbage(path):
    path.write_bytes(b"not a state" * 100)


def evil(path):
    torch.save({"amplitudes": Opens()}, path)


def plain_pickle(path):
    path.write_bytes(pickle.dumps(Opens()))


def truncated(path):
    buffer = io.BytesIO()
    torch.save({k: torch.as_tensor(v) for k, v in make_state().items()}, buffer)
    path.write_bytes(buffer.getvalue()[:-400])


def archive(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "text")


@pytest.mark.parametrize("make", [garbage, evil, plain_pickle, truncated, archive], ids=lambda make: make.__name__)
def test_file_that_torch_does_not_read_safely(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pt"
    make(path)
    with pytest.raises(ValueError, match=r"state_dict of a module, got .*bad\.pt.*could run code; save model"):
        read_blase_state(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(3)], "with a list"),
        ({}, "with a dict"),
        ({"amplitudes": 3.0}, "'amplitudes' is no tensor of real numbers"),
        ({"amplitudes": torch.ones(3, dtype=torch.int64)}, "'amplitudes' is no tensor of real numbers"),
        ({"ln_vsini": torch.ones(())}, "without lam_centers, amplitudes, sigma_widths, gamma_widths.*hold no lines"),
    ],
)
def test_file_of_something_else(content, message, tmp_path):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=message):
        read_blase_state(tmp_path / "other.pt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"amplitudes": np.ones(5)}, r"one number for every line.*amplitudes: \(5,\)"),
        ({"lam_centers": np.ones((12, 1))}, "one number for every line"),
        ({name: np.ones(0) for name in ("amplitudes", "sigma_widths", "gamma_widths", "lam_centers")}, "shapes"),
        ({"a_coeff": np.ones(2)}, r"a_coeff: \(2,\)"),
        ({"sigma_widths": np.full(12, np.nan)}, "finite .*not in sigma_widths"),
        ({"gamma_widths": np.full(12, 800.0)}, "finite .*not in gamma_widths"),
        ({"lam_centers": np.linspace(-1, 1, 12)}, "positive wavelengths.*not in lam_centers"),
        ({"weights": np.ones(3)}, "which also holds weights"),
    ],
)
def test_state_that_is_not_one(changes, message, saved):
    with pytest.raises(ValueError, match=message):
        read_blase_state(saved(make_state(**changes)))


def test_names_and_forms(tmp_path, saved):
    with pytest.raises(FileNotFoundError, match="path must name a file that exists"):
        read_blase_state(tmp_path / "missing.pt")
    with pytest.raises(IsADirectoryError, match="path must name a file"):
        read_blase_state(tmp_path)
    with pytest.raises(TypeError, match="path must be the name of a file"):
        read_blase_state(3)
    with pytest.raises(ValueError, match="form must be one of"):
        read_blase_state(saved(make_state()), "log")
