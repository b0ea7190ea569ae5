"""Lines whose wings cross the whole window, with other lines on them; lines at the ends of the window."""

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import StdDevUncertainty
from astropy.table import QTable
from scipy.special import voigt_profile
from specutils import Spectrum

from specutils_blase import BlaseWarning, clone_spectrum


def forest(wave, n_lines, seed=1):
    """Optical depth of narrow lines all over the window."""
    rng = np.random.default_rng(seed)
    center, strength = rng.uniform(wave[0], wave[-1], n_lines), 10.0 ** rng.uniform(-3.0, -1.3, n_lines)
    depth = np.zeros(wave.size)
    for c, a in zip(center, strength, strict=True):
        near = slice(*np.searchsorted(wave, [c - 30.0, c + 30.0]))
        depth[near] += a * voigt_profile(wave[near] - c, 0.034, 0.015)
    return depth


def damped(wave, centers, strengths, gamma):
    return sum(a * voigt_profile(wave - c, 0.05, gamma) for c, a in zip(centers, strengths, strict=True))


def power(wave, center, exponent):
    """A wing that is not a Lorentzian's."""
    return 1.2 * (1.0 + ((wave - center) / 1.5) ** 2) ** (-0.5 * exponent)


@pytest.mark.parametrize(("lower", "upper", "wing"), [
    (5840.0, 5950.0, lambda wave: damped(wave, (5891.58, 5897.56), (60.0, 30.0), 0.06)),
    (8450.0, 8720.0, lambda wave: damped(wave, (8500.35, 8544.44, 8664.52), (8.0, 40.0, 30.0), 0.08)),
    (6450.0, 6700.0, lambda wave: power(wave, 6564.6, 2.5)),
    (6450.0, 6700.0, lambda wave: power(wave, 6564.6, 1.5)),
], ids=["sodium", "calcium", "falls as the power 2.5", "falls as the power 1.5"])  # fmt: skip
def test_are_cloned_with_their_wings(lower, upper, wing):
    wave = np.arange(lower, upper, 0.02)
    truth = np.exp(-forest(wave, 150) - wing(wave))
    continuum = 1.0 + 0.1 * np.sin(3.0 * (wave - lower) / (upper - lower))
    template = clone_spectrum(Spectrum(flux=truth * continuum * u.Jy, spectral_axis=wave * u.AA), progress=False)
    residual = template.evaluate(wave * u.AA).flux.value / continuum - truth
    assert np.std(residual) < 1e-3
    assert np.percentile(np.abs(residual), 99) < 3e-3
    # the wings have not become continuum
    flat = template.model.continuum_basis(wave, u.AA) @ np.ravel(template.model.continuum.value) / continuum
    np.testing.assert_allclose(flat, 1.0, atol=0.01)


class TestEnds:
    WAVE = np.arange(8000.0, 8020.0, 0.02)

    def flux(self, offset):
        """Nine lines inside, and one about the first pixel."""
        depth = sum(0.08 * voigt_profile(self.WAVE - c, 0.08, 0.04) for c in 8002.0 + 2.0 * np.arange(9))
        return np.exp(-depth - 0.5 * voigt_profile(self.WAVE - 8000.0 - offset, 0.08, 0.04))

    @pytest.mark.parametrize("offset", [-0.3, -0.1, 0.0, 0.02, 0.1])
    @pytest.mark.parametrize("turned", [1, -1])
    @pytest.mark.parametrize("degree", [0, 5])
    def test_a_line_there_is_cloned(self, offset, turned, degree):
        flux = self.flux(offset)[::turned]
        template = clone_spectrum(Spectrum(flux=flux * u.Jy, spectral_axis=self.WAVE * u.AA), continuum_degree=degree,
                                  progress=False)  # fmt: skip
        residual = template.evaluate(self.WAVE * u.AA).flux.value - flux
        assert np.std(residual) < 5e-4 and np.abs(residual).max() < 5e-3
        assert len(template.lines) < 30

    @pytest.mark.parametrize("strength", [-0.2, -0.05, 0.1])
    def test_one_line_at_the_end_and_one_inside(self, strength):
        depth = strength * voigt_profile(self.WAVE - 8000.0, 0.085, 0.025)
        depth += 0.1 * voigt_profile(self.WAVE - 8010.0, 0.064, 0.01)
        template = clone_spectrum(Spectrum(flux=np.exp(-depth) * u.Jy, spectral_axis=self.WAVE * u.AA), progress=False)
        np.testing.assert_allclose(template.lines["strength"].to_value(u.AA), [strength, 0.1], rtol=1e-3)

    def test_emission_there_is_cloned(self):
        flux = 2.0 - self.flux(-0.05)
        template = clone_spectrum(Spectrum(flux=flux * u.Jy, spectral_axis=self.WAVE * u.AA), continuum_degree=0,
                                  progress=False)  # fmt: skip
        residual = template.evaluate(self.WAVE * u.AA).flux.value - flux
        assert np.std(residual) < 5e-4 and np.abs(residual).max() < 5e-3

    def test_what_rises_slowly_is_a_continuum(self):
        slope = np.exp(-0.4 * np.exp(-(self.WAVE - 8000.0) / 8.0))
        flux = slope * self.flux(1.0)
        template = clone_spectrum(Spectrum(flux=flux * u.Jy, spectral_axis=self.WAVE * u.AA), progress=False)
        continuum = template.model.continuum_basis(self.WAVE, u.AA) @ np.ravel(template.model.continuum.value)
        np.testing.assert_allclose(continuum, slope, rtol=2e-3)

    def test_a_given_line_just_outside_is_kept(self):
        spectrum = Spectrum(flux=self.flux(-0.1) * u.Jy, spectral_axis=self.WAVE * u.AA)
        lines = QTable({"line_center": [7999.9, *(8002.0 + 2.0 * np.arange(9))] * u.AA})
        template = clone_spectrum(spectrum, lines=lines, continuum_degree=0, progress=False)
        assert len(template.lines) == 10
        assert template.lines["strength"][0].to_value(u.AA) == pytest.approx(0.5, rel=0.02)

    def test_a_noisy_clone_that_does_not_fit_says_so(self):
        noise = 0.01 * np.random.default_rng(0).standard_normal(self.WAVE.size)
        spectrum = Spectrum(flux=(self.flux(1.0) + noise) * u.Jy, spectral_axis=self.WAVE * u.AA,
                            uncertainty=StdDevUncertainty(np.full(self.WAVE.size, 0.01)))  # fmt: skip
        with pytest.warns(BlaseWarning, match=r"differs from the spectrum by .* of its uncertainties"):
            clone_spectrum(spectrum, lines=QTable({"line_center": [8002.0] * u.AA}), continuum_degree=0, progress=False)
