"""clone_spectrum: a precomputed spectrum becomes a template of Voigt lines."""

import time
import warnings
from dataclasses import dataclass

import numpy as np
from astropy import units as u

from specutils_blase import __version__
from specutils_blase.adapters import quantity_value, read_spectrum, resolve_device
from specutils_blase.errors import BlaseWarning, explain
from specutils_blase.flags import AT_BOUND, BLENDED, OUTSIDE_WINDOW
from specutils_blase.functional.constants import FWHM_PER_SIGMA
from specutils_blase.lines import (
    check_prominence,
    fit_envelope,
    line_table,
    no_line_message,
    original_index,
    pick,
    starting_lines,
)
from specutils_blase.modeling import FORMS, WINDOW_TOLERANCE, VoigtForest1D
from specutils_blase.progress import reporter
from specutils_blase.solvers.levenberg_marquardt import CONVERGED, levenberg_marquardt
from specutils_blase.solvers.lines import (
    CENTER,
    GAMMA,
    SIGMA,
    STRENGTH,
    LineLayout,
    Lines,
    SampledLines,
    blended_lines,
    definite_factor,
    line_covariance,
)
from specutils_blase.template import LineTemplate

__all__ = ["clone_spectrum"]

ALL = (STRENGTH, SIGMA, GAMMA, CENTER)
# Prominence of further passes over the residual, as a share of the first one: falling, then constant.
LATER_PROMINENCE = (0.5, 0.4, 0.3)
# A line whose optical depth peaks below this share of the last prominence is dropped.
NEGLIGIBLE = 0.1
# Lines couple in the solver with this many neighbours on either side.
NEIGHBOURS = 12
# Intermediate passes stop early: the next pass changes the problem anyway.
RTOL_PASS, RTOL_LAST = 2e-2, 5e-3
MAX_ITERATIONS = 15
MAX_ITERATIONS_LAST = 60
# In noisy spectra a new line must stand out by this many standard deviations.
SIGNIFICANCE = 5.0


def clone_spectrum(spectrum, prominence=0.01, teff=None, continuum_degree=5, form="opacity", passes=4, window=None,
                   exclude_regions=None, device=None, progress=None, *, wavelength_medium=None):  # fmt: skip
    """
    Clone a spectrum into a template of Voigt lines.

    Lines are found by their prominence, then all their strengths, widths and centres and the continuum are fitted
    together; every further pass adds the lines that the residual shows to be missing.

    Parameters
    ----------
    spectrum : Spectrum
        A synthetic stellar spectrum or a telluric transmission at native resolution, one-dimensional.
    prominence : float
        Smallest prominence of a line, as a fraction of the continuum.
    teff : Quantity, optional
        Effective temperature [K]: the continuum is a blackbody times a polynomial.  None: the polynomial alone, as
        for a transmission.
    continuum_degree : int
        Degree of the Legendre polynomial.
    form : {"opacity", "product"}
        exp(-sum of optical depths), or the product of (1 - line) (Gully-Santiago & Morley 2022, eq. 2).
    passes : int
        Number of passes; the first fits the lines of the spectrum, the others those of the residual.
    window, exclude_regions : SpectralRegion, optional
        As in `specutils.fitting.fit_lines`.
    device : str, optional
        See `specutils_blase.conf`; this version clones on the CPU.
    progress : bool or callable, optional
        None: on in a terminal or a notebook.
    wavelength_medium : "vacuum", "air" or None
        What the spectral axis measures; None: what the metadata say, else vacuum.  The template is in vacuum.

    Returns
    -------
    LineTemplate
        Its ``_err`` columns say how well the template's own lines are determined: for a spectrum without
        uncertainties they are scaled by the rms of the residual near each line.

    Raises
    ------
    ValueError
        If no line is found, or an argument is out of range.

    Examples
    --------
    >>> import numpy as np, astropy.units as u
    >>> from specutils import Spectrum
    >>> from specutils_blase import clone_spectrum
    >>> wave = np.arange(10500, 10510, 0.01) * u.AA
    >>> flux = np.exp(-0.5 * np.exp(-0.5 * ((wave.value - 10505) / 0.1)**2)) * u.Jy
    >>> template = clone_spectrum(Spectrum(flux=flux, spectral_axis=wave), continuum_degree=0)
    >>> print(template.lines["line_center"][0].round(3), template.fit_info["status"])
    10505.0 Angstrom converged
    """
    started = time.perf_counter()
    check_prominence(prominence)
    if form not in FORMS:
        raise ValueError(explain("form", f"be one of {FORMS}", repr(form), '"opacity" is the default'))
    if not (isinstance(passes, int | np.integer) and passes >= 1):
        raise ValueError(explain("passes", "be a whole number of at least 1", repr(passes), "4 is the default"))
    teff = quantity_value(teff, u.K, "teff", positive=True, allow_none=True)
    device = resolve_device(device)
    arrays = read_spectrum(spectrum, window=window, exclude_regions=exclude_regions,
                           wavelength_medium=wavelength_medium)  # fmt: skip
    job = _Clone.start(arrays, prominence, teff, continuum_degree, form)
    show = reporter(progress)
    for number in range(passes):
        job.add_lines(prominence if number == 0 else prominence * LATER_PROMINENCE[min(number, 3) - 1], number == 0)
        job.fit(number == passes - 1,
                lambda i, cost, n=number: show(f"clone: pass {n + 1}/{passes}, {len(job.lines)} lines, step {i}, "
                                               f"rms {job.rms(cost):.3%}"))  # fmt: skip
        job.drop_lines(prominence * LATER_PROMINENCE[-1] * NEGLIGIBLE)
    show("")
    template = job.template()
    template.fit_info.update(wall_time=time.perf_counter() - started, device=str(device))
    rms = template.fit_info["rms"]
    if not job.noisy and rms > prominence:
        warnings.warn(f"the clone differs from the spectrum by {rms:.2g} of the continuum (rms), more than the "
                      f"prominence of {prominence:g}: lines on this continuum do not describe it; check teff, "
                      "continuum_degree and window", BlaseWarning, stacklevel=2)  # fmt: skip
    if job.solution.status != CONVERGED:
        warnings.warn(f"clone_spectrum did not converge ({job.solution.message}); the template is usable but not the "
                      "best, call it again with more passes", BlaseWarning, stacklevel=2)  # fmt: skip
    return template


@dataclass
class _Clone:
    """The state of a clone while its passes run; fluxes are divided by `scale`."""

    arrays: object
    wave: np.ndarray
    data: np.ndarray
    weight: np.ndarray
    noisy: bool
    basis: np.ndarray
    coefficients: np.ndarray
    scale: float
    teff: float | None
    form: str
    lines: Lines
    solution: object = None
    n_iterations: int = 0

    @classmethod
    def start(cls, arrays, prominence, teff, continuum_degree, form):
        """Scale the flux, find the continuum; no lines yet."""
        good = arrays.good
        wave, flux = arrays.wave[good], arrays.flux[good]
        scale = float(np.percentile(np.abs(flux), 95))
        if not scale > 0:
            raise ValueError(explain("spectrum", "have flux", "zero in almost every pixel", "check how it was read"))
        basis, coefficients = fit_envelope(wave, flux / scale, continuum_degree, teff)
        noisy = arrays.sigma is not None
        # without noise every pixel of the flattened spectrum counts the same
        weight = scale / arrays.sigma[good] if noisy else 1.0 / (basis @ coefficients)
        empty = Lines(*(np.zeros(0) for _ in range(4)))
        return cls(arrays, wave, flux / scale, weight, noisy, basis, coefficients, scale, teff, form, empty)

    def problem(self):
        """The least-squares problem of the present lines."""
        step = float(np.median(np.diff(self.wave)))
        reach = self.wave[-1] - self.wave[0]
        with np.errstate(divide="ignore"):
            lower = np.array([-20.0, np.log(0.1 * step), np.log(1e-3 * step), -np.inf])
            upper = np.array([5.0, *np.log([0.1 * reach, 0.1 * reach]), np.inf])
        layout = LineLayout(self.lines, ALL, lower, upper)
        return SampledLines(self.wave, self.data, self.weight, self.basis, layout, form=self.form,
                            tolerance=WINDOW_TOLERANCE, neighbours=NEIGHBOURS,
                            coefficients=self.coefficients)  # fmt: skip

    def model(self):
        """(transmission, continuum) of the present lines, each (n_pix,)."""
        return self.problem().transmission(self.lines), self.basis @ self.coefficients

    def rms(self, cost):
        """Rms residual as a fraction of the continuum (noisy spectra: in standard deviations)."""
        return np.sqrt(2.0 * cost / self.wave.size)

    def add_lines(self, prominence, first):
        """Seed lines where the flattened spectrum, or later the residual, has peaks."""
        transmission, continuum = self.model()
        flat = self.data / continuum
        threshold = prominence
        if self.noisy:
            threshold = np.maximum(prominence, SIGNIFICANCE / (self.weight * continuum))
        missing = np.minimum(transmission, 1.0) - np.minimum(flat, 1.0) if first else transmission - flat
        peaks = pick(self.wave, missing, threshold)
        new = starting_lines(peaks, depth=missing[peaks["index"]] / np.maximum(transmission[peaks["index"]], 0.05))
        # in noise a low pixel beside a high one is prominent, but it does not reach below the model
        least = np.broadcast_to(threshold, flat.shape)[peaks["index"]] if self.noisy else 0.0
        new = new.take(peaks["height"] > least)
        if first:
            peaks = pick(self.wave, np.maximum(flat, 1.0) - 1.0, threshold)
            new = new.join(starting_lines(peaks, -1.0))
            if len(new) == 0:
                raise ValueError(no_line_message(prominence))
        self.lines = self.lines.join(new)

    def fit(self, last, callback):
        """Fit the present lines and the continuum; the last pass is the thorough one."""
        problem = self.problem()
        self.solution = levenberg_marquardt(
            problem, problem.start(), max_iterations=MAX_ITERATIONS_LAST if last else MAX_ITERATIONS,
            rtol=RTOL_LAST if last else RTOL_PASS, ridge=self.ridge, callback=callback,
        )  # fmt: skip
        self.n_iterations += self.solution.n_iterations
        local, self.coefficients = problem.split(self.solution.theta)
        self.lines = problem.layout.unpack(local).sorted()

    @property
    def ridge(self):
        """A curvature far below that of any line that matters."""
        return 1e-8 * float(np.mean(self.weight**2))

    def drop_lines(self, negligible):
        """Forget lines that carry nothing."""
        self.lines = self.lines.take(np.abs(self.lines.peak) > negligible)

    def template(self):
        """The finished template with its errors."""
        problem = self.problem()
        theta = problem.start()
        _, _, _, residual = problem.evaluate(theta)
        inverse = definite_factor(problem.linearize(theta)[1], self.ridge).inverse()
        covariance, blended = line_covariance(inverse, problem.layout), blended_lines(inverse, problem.layout)
        scale = 1.0 if self.noisy else local_rms(self.wave, residual, self.lines)
        covariance *= np.reshape(scale**2, (-1, 1, 1))
        flags = AT_BOUND * problem.layout.at_bound(problem.split(theta)[0]) + BLENDED * blended
        flags += OUTSIDE_WINDOW * ~has_data(self.wave, self.lines)
        nearest = np.clip(np.searchsorted(self.arrays.wave, self.lines.center), 0, self.arrays.wave.size - 1)
        errors = ("standard deviations from the flux uncertainties" if self.noisy else
                  "the spectrum has no noise: formal errors scaled by the rms residual near each line")  # fmt: skip
        table = line_table(self.lines, covariance, index=original_index(self.arrays, nearest), flags=flags,
                           form=self.form, error_scale=errors)  # fmt: skip
        coverage = [float(self.arrays.edges[self.arrays.good].min()), float(self.arrays.edges[self.arrays.good].max())]
        meta = {"wavelength_medium": "vacuum", "frame": "rest", "coverage": coverage, "error_scale": errors,
                "package_version": __version__, "source_medium": self.arrays.medium}  # fmt: skip
        return LineTemplate(model=self.forest(table), lines=table, fit_info=self.fit_info(residual), meta=meta)

    def forest(self, table):
        """The astropy model, in Angstrom and the unit of the flux."""
        domain = None if self.basis.shape[1] == 1 and self.teff is None else self.wave[[0, -1]] * u.AA
        model = VoigtForest1D(
            x_0=self.lines.center * u.AA, strength=self.lines.strength * u.AA,
            fwhm_G=self.lines.sigma * FWHM_PER_SIGMA * u.AA, fwhm_L=2.0 * self.lines.gamma * u.AA,
            continuum=self.coefficients * self.scale * self.arrays.flux_unit, continuum_domain=domain,
            teff=self.teff, form=self.form, tolerance=WINDOW_TOLERANCE,
        )  # fmt: skip
        for name, column in (("x_0", "line_center"), ("strength", "strength"), ("fwhm_G", "fwhm_gauss"),
                             ("fwhm_L", "fwhm_lorentz")):  # fmt: skip
            getattr(model, name).std = table[f"{column}_err"].to_value(u.AA)
        return model

    def fit_info(self, residual):
        """How it went."""
        relative = residual if not self.noisy else residual / self.weight / (self.basis @ self.coefficients)
        return {
            "status": self.solution.status, "message": self.solution.message, "rms": float(np.std(relative)),
            "n_lines": len(self.lines), "n_pixels": int(self.wave.size), "n_ignored": self.arrays.n_ignored,
            "n_iterations": self.n_iterations,
        }  # fmt: skip


def local_rms(wave, residual, lines):
    """Rms of the residual within two widths of every line (five pixels at least), shape (n_lines,)."""
    running = np.concatenate([[0.0], np.cumsum(residual**2)])
    lo = np.searchsorted(wave, lines.center - 2.0 * lines.width)
    hi = np.searchsorted(wave, lines.center + 2.0 * lines.width)
    middle = (lo + hi) // 2
    lo, hi = np.maximum(np.minimum(lo, middle - 2), 0), np.minimum(np.maximum(hi, middle + 3), wave.size)
    return np.sqrt(np.maximum(running[hi] - running[lo], 0.0) / np.maximum(hi - lo, 1))


def has_data(wave, lines):
    """True for lines with one of the usable points within their width or a typical step, shape (n_lines,)."""
    reach = lines.width + np.median(np.diff(wave))
    return np.searchsorted(wave, lines.center - reach) < np.searchsorted(wave, lines.center + reach, side="right")
