"""Clones of noisy spectra: the lines that are there, no others, and errors that are calibrated."""

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import StdDevUncertainty
from scipy.special import voigt_profile
from specutils import Spectrum

from specutils_blase import clone_spectrum

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
ALONE = 4002.0 + 3.0 * np.arange(12)
AXIS = np.arange(4000.0, 4038.0, 0.02)


def simulated(center, noise, rng, strongest):
    """(spectrum, strengths) of lines with full widths of 0.19 and 0.07 Angstrom."""
    strength = rng.uniform(0.1 * strongest, strongest, center.size)
    depth = strength * voigt_profile(AXIS[:, None] - center, 0.08, 0.035)
    flux = np.exp(-depth.sum(axis=1)) + noise * rng.normal(size=AXIS.size)
    error = StdDevUncertainty(np.full(AXIS.size, noise))
    return Spectrum(flux=flux * u.Jy, spectral_axis=AXIS * u.AA, uncertainty=error), strength


def test_isolated_lines_and_no_others():
    pulls = {"strength": [], "fwhm_gauss": [], "fwhm_lorentz": [], "line_center": []}
    for seed in range(15):
        source, strength = simulated(ALONE, 0.004, np.random.default_rng(seed), 0.3)
        table = clone_spectrum(source, prominence=0.02, continuum_degree=0).lines
        assert len(table) == ALONE.size, seed
        truth = {"strength": strength, "fwhm_gauss": 0.08 * FWHM_PER_SIGMA, "fwhm_lorentz": 0.07,
                 "line_center": ALONE}  # fmt: skip
        for name, value in truth.items():
            pulls[name].extend((table[name].value - value) / table[f"{name}_err"].value)
    for name, pull in pulls.items():  # 180 numbers each
        assert abs(np.mean(pull)) < 4 / np.sqrt(len(pull)), name
        assert np.std(pull) == pytest.approx(1.0, abs=4 / np.sqrt(2 * len(pull))), name


def test_noise_alone_has_no_lines():
    source, _ = simulated(np.zeros(0), 0.01, np.random.default_rng(1), 0.3)
    with pytest.raises(ValueError, match="prominence must find at least one line, got 0.01, which finds none"):
        clone_spectrum(source, continuum_degree=0)


def test_what_noise_made_is_dropped_and_close_pairs_are_not(monkeypatch):
    center = np.sort(np.concatenate([ALONE, ALONE[::2] + 0.45]))
    found, needed = [], []
    for seed in range(6):
        source, _ = simulated(center, 0.02, np.random.default_rng(100 + seed), 1.0)
        template = clone_spectrum(source, prominence=0.02, continuum_degree=0)
        with monkeypatch.context() as patch:
            patch.setattr("specutils_blase.cloning.MAX_DROPS", 0)
            undropped = clone_spectrum(source, prominence=0.02, continuum_degree=0)
        found.append(len(undropped.lines) - len(template.lines))
        near = np.abs(template.lines["line_center"].value[:, None] - center).min(axis=0)
        needed.append(np.count_nonzero(near < 0.1) == center.size == len(template.lines))
        residual = (template.evaluate(AXIS * u.AA).flux.value - source.flux.value) / 0.02
        assert np.mean(residual**2) == pytest.approx(1.0, abs=4 * np.sqrt(2 / residual.size))
    assert all(needed), needed
    # without the dropping there is more
    assert min(found) >= 0 and sum(found) >= 2, found


def test_lines_that_are_needed_come_back():
    # their strengths are not known apart, but with one line in the place of two the spectrum is not described
    center = np.sort(np.concatenate([ALONE, ALONE[::2] + 0.22]))
    for seed in (200, 201):
        source, _ = simulated(center, 0.003, np.random.default_rng(seed), 0.5)
        template = clone_spectrum(source, prominence=0.015, continuum_degree=0)
        assert template.fit_info["rms"] / 0.003 < 1.03
        near = np.abs(template.lines["line_center"].value[:, None] - center).min(axis=0)
        assert (near < 0.1).all() and len(template.lines) <= center.size + 1
