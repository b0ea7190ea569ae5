"""`specutils.fitting.fit_lines` of thousands of blended Voigt lines: time, chi2 and pulls, with and without specutils,
and beside the fitter of astropy on as many `Voigt1D` as that can bear."""

import argparse
import time

import astropy.units as u
import numpy as np
from astropy.modeling.fitting import TRFLSQFitter
from astropy.modeling.models import Const1D, Voigt1D
from astropy.nddata import StdDevUncertainty
from common import peak_memory, show
from specutils import SpectralRegion, Spectrum
from specutils.fitting import fit_lines

from specutils_blase import SparseLineFitter, VoigtForest1D

NOISE = 0.002
DENSITY, SAMPLING = 0.1475, 0.01  # one line so often, one sample so often [Angstrom]
NAMES = ("strength", "fwhm_G", "fwhm_L", "x_0")
# errors of the starts: ln strength, ln of both widths, centres [Angstrom]
STARTS = {"strengths 20 % off": (0.2, 0.0, 0.0), "all 20 % off, centres 0.02 A": (0.2, 0.2, 0.02),
          "strengths 60, widths 40 %": (0.6, 0.4, 0.0)}  # fmt: skip


def make(n_lines, strength, fwhm, x_0, seed):
    """(spectrum, true model, starting model) of a forest."""
    rng = np.random.default_rng(seed)
    wave = np.arange(8000.0, 8010.0 + n_lines * DENSITY, SAMPLING)
    center = np.sort(rng.uniform(8005.0, wave[-1] - 5.0, n_lines))
    truth = VoigtForest1D(center * u.AA, rng.lognormal(-4.5, 0.7, n_lines) * u.AA,
                          rng.uniform(0.05, 0.15, n_lines) * u.AA, rng.uniform(0.02, 0.1, n_lines) * u.AA)  # fmt: skip
    flux = truth(wave * u.AA) + rng.normal(0.0, NOISE, wave.size)
    start = truth.copy()
    for name, scatter in zip(NAMES[:3], (strength, fwhm, fwhm), strict=True):
        setattr(start, name, getattr(truth, name).quantity * rng.lognormal(0.0, scatter, n_lines))
    start.x_0 = center * u.AA + rng.normal(0.0, x_0, n_lines) * u.AA
    uncertainty = StdDevUncertainty(np.full(wave.size, NOISE))
    return Spectrum(flux=flux, spectral_axis=wave * u.AA, uncertainty=uncertainty), truth, start


def timed(function, *arguments, **options):
    """(value, seconds)."""
    start = time.perf_counter()
    value = function(*arguments, **options)
    return value, time.perf_counter() - start


def width(fitted, truth, name):
    """Robust standard deviation of the pulls of a parameter."""
    value, true = (getattr(model, name).quantity.to_value(u.AA) for model in (fitted, truth))
    pull = (value - true) / getattr(fitted, name).std
    return 1.4826 * np.median(np.abs(pull - np.median(pull)))


def forests(n_lines, seeds):
    """The scenarios of starts; every forest is fitted through specutils, and by the fitter alone."""
    rows = []
    for label, starts in STARTS.items():
        for seed in seeds:
            spectrum, truth, start = make(n_lines, *starts, seed)
            regions, fitter = [SpectralRegion(8100 * u.AA, 8101 * u.AA)], SparseLineFitter()
            fitted, seconds = timed(fit_lines, spectrum, start, fitter=fitter, weights="unc", exclude_regions=regions,
                                    get_fit_info=True)  # fmt: skip
            weights = np.where(regions[0].lower > spectrum.spectral_axis, 1.0, 0.0)
            weights = (weights + (spectrum.spectral_axis > regions[0].upper)) / NOISE
            _, alone = timed(fitter, start, spectrum.spectral_axis, spectrum.flux, weights=weights)
            residual = (spectrum.flux - fitted(spectrum.spectral_axis)).value[weights > 0] / NOISE
            rows.append((label, f"{seconds:.1f}", f"{seconds / alone:.2f}", fitter.fit_info["n_iterations"],
                         f"{np.mean(residual**2):.3f}", *(f"{width(fitted, truth, name):.2f}" for name in NAMES),
                         fitter.fit_info["status"]))  # fmt: skip
    show(f"{n_lines:,} lines, all parameters free, {len(spectrum.flux):,} samples, S/N {1 / NOISE:.0f}, "
         f"{peak_memory():.2f} GB",
         ("starts", "seconds", "over the fitter alone", "steps", "chi2", *(f"pulls of {n}" for n in NAMES), "status"),
         rows)  # fmt: skip


def beside_astropy(counts):
    """Forests of few lines, and the same lines as a sum of `Voigt1D` with the fitter of astropy."""
    rows = []
    for n_lines in counts:
        spectrum, truth, start = make(n_lines, 0.2, 0.0, 0.0, 1)
        fitter = SparseLineFitter()
        ours, seconds = timed(fit_lines, spectrum, start, fitter=fitter, weights="unc")
        model = Const1D(1.0, fixed={"amplitude": True})
        for k in range(n_lines):
            strength, fwhm_G, fwhm_L, x_0 = (getattr(start, name).value[k] for name in NAMES)
            positive = {"fwhm_L": (1e-3, None), "fwhm_G": (1e-3, None)}  # without bounds it ends in an error
            model = model - Voigt1D(x_0, 2 * strength / (np.pi * fwhm_L), fwhm_L, fwhm_G, bounds=positive)
        weights = np.full(len(spectrum.flux), 1 / NOISE)
        wave = spectrum.spectral_axis.value
        depth = -np.log(np.clip(spectrum.flux.value, 0.05, None))  # a sum of lines is an optical depth
        theirs, longer = timed(TRFLSQFitter(), model, wave, 1.0 - depth, weights=weights * np.exp(-depth), maxiter=2000)
        chi2 = [np.mean(((spectrum.flux.value - flux) / NOISE) ** 2)
                for flux in (ours(spectrum.spectral_axis).value, np.exp(theirs(wave) - 1.0))]  # fmt: skip
        rows.append((n_lines, f"{seconds:.2f}", f"{chi2[0]:.3f}", f"{longer:.1f}", f"{chi2[1]:.3f}",
                     f"{longer / seconds:.0f}"))  # fmt: skip
    show("all parameters free, beside TRFLSQFitter on Voigt1D",
         ("lines", "seconds", "chi2", "TRFLSQFitter", "chi2", "ratio"), rows)  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=4000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[4])
    parser.add_argument("--voigt1d", type=int, nargs="*", default=[50, 100], help="numbers of lines beside astropy")
    options = parser.parse_args()
    forests(options.lines, options.seeds)
    beside_astropy(options.voigt1d)
