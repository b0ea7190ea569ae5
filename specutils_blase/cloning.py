"""clone_spectrum: a precomputed spectrum becomes a template of Voigt lines."""

import time
import warnings
from dataclasses import dataclass, replace

import numpy as np
from astropy import units as u
from scipy.special import voigt_profile

from specutils_blase import __version__
from specutils_blase.adapters import quantity_value, read_spectrum, resolve_device
from specutils_blase.covariance import TableCovariance
from specutils_blase.errors import BlaseWarning, check_whole, explain
from specutils_blase.flags import AT_BOUND, BLENDED, OUTSIDE_WINDOW
from specutils_blase.functional.constants import FWHM_PER_SIGMA
from specutils_blase.hindsight import clone_doubts
from specutils_blase.line_input import GivenLines, free_rows, given_lines
from specutils_blase.lines import (
    blended_widths,
    check_prominence,
    fit_envelope,
    has_data,
    line_table,
    local_rms,
    no_line_message,
    original_index,
    pick,
    pick_ends,
    starting_lines,
)
from specutils_blase.modeling import FORMS, WINDOW_TOLERANCE, VoigtForest1D
from specutils_blase.progress import reporter
from specutils_blase.solvers.covariance import LineCovariance, definite_factor
from specutils_blase.solvers.levenberg_marquardt import CONVERGED, levenberg_marquardt
from specutils_blase.solvers.lines import (
    CENTER,
    COUPLED,
    DERIVATIVE_TOLERANCE,
    GAMMA,
    SIGMA,
    STRENGTH,
    LineLayout,
    Lines,
    SampledLines,
)
from specutils_blase.template import LineTemplate

__all__ = ["clone_spectrum"]

ALL = (STRENGTH, SIGMA, GAMMA, CENTER)
# Prominence of further passes over the residual, as a share of the first one: falling, then constant.
LATER_PROMINENCE = (0.5, 0.4, 0.3)
# A line whose optical depth peaks below this share of the last prominence is dropped.
NEGLIGIBLE = 0.1
# Lines couple with this many others while a spectrum is searched: enough to descend.  For errors, for given lines,
# which may be crowded, and at the end of a noisy clone all couplings count.
NEIGHBOURS, FORMAL = 12, 64
# Optical depth at which derivatives are cut where there is noise: as a share of it, between these limits.
CUT, FINEST = 0.03, 1e-5
# Intermediate passes stop early: the next pass changes the problem anyway.
RTOL_PASS, RTOL_LAST = 1e-1, 1e-2
MAX_ITERATIONS = 15, 60
MAX_POLISH = 60
# Where the rms residual is above this share of the prominence, difficult places hide what the others still gain.
ORDINARY, RTOL_DIFFICULT, MAX_ITERATIONS_DIFFICULT = 0.05, 1e-3, 150
# In noisy spectra a new line must stand out by this many standard deviations.
SIGNIFICANCE = 5.0
# A change of the cost by that of this rms residual means nothing.
ROUNDING = 1e-5
# In a noisy spectrum chi-square cannot fall below the noise.
RTOL_PASS_NOISY, RTOL_LAST_NOISY = 1e-3, 1e-4
# Standard deviation of any parameter about which the spectrum says nothing.
LOOSE = 1e3
# Widest line at an end of the spectrum, in those of the others.
WIDEST_AT_END = 4.0
# From this share of emission lines on, passes over the residual look for more of them.
EMISSION_SHARE = 0.05
# Share of the spectrum's flux below which a model is too dark to learn from it; most light that weakened lines pass.
TOO_DARK, BRIGHT = 0.1, 0.99
# Rounds in which lines of a noisy spectrum are dropped, and their neighbourhood in widths.
MAX_DROPS, NEIGHBOURHOOD = 20, 4.0


def clone_spectrum(spectrum, prominence=0.01, teff=None, continuum_degree=5, form="opacity", passes=4, window=None,
                   exclude_regions=None, device=None, progress=None, *, wavelength_medium=None, lines=None,
                   free=("strength", "fwhm", "x_0"), tied=None):  # fmt: skip
    """
    Clone a spectrum into a template of Voigt lines.

    Lines are found by their prominence, then all their strengths, widths and centres and the continuum are fitted
    together; every further pass adds the lines that the residual shows to be missing.  In a spectrum with uncertainties
    lines that it can do without are dropped again.  Or the lines are given: then none is searched for or dropped.

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
    lines : Table, optional
        Lines to start from instead of a search: ``line_center`` and any of ``strength``, ``fwhm_gauss``,
        ``fwhm_lorentz`` (lengths; NaN or no column: estimated from the spectrum, in emission only where that rises 5 %
        above its continuum), in vacuum unless
        ``meta["wavelength_medium"]`` is "air"; see `specutils_blase.io` for readers.  ``prominence`` and ``passes``
        have no effect.  The column ``list_row`` of the result says which row of this table a line is, and a column
        ``species`` is copied.
    free : tuple of str
        What moves of given lines: "strength", "fwhm" (both widths), "x_0".
    tied : mapping, optional
        What given lines move together: a name as in ``free``, and the column of ``lines`` whose equal values make a
        group, as in ``{"strength": "species", "fwhm": "species"}``.  Each group has a common factor on its strengths or
        widths, or a common velocity of its centres, which ``fit_info["tied"]`` lists with its standard deviation.

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
    check_whole("passes", passes, 1, "4 is the default")
    teff = quantity_value(teff, u.K, "teff", positive=True, allow_none=True)
    device = resolve_device(device)
    arrays = read_spectrum(spectrum, window=window, exclude_regions=exclude_regions,
                           wavelength_medium=wavelength_medium)  # fmt: skip
    job = _Clone.start(arrays, prominence, teff, continuum_degree, form)
    show = reporter(progress)

    def tell(stage):
        return lambda i, cost: show(f"clone: {stage}, {len(job.lines)} lines, step {i}, rms {job.rms(cost):.3%}")

    if lines is not None:
        job.give_lines(lines, free, tied)
        job.fit(True, tell("given lines"))
    elif tied is not None or free_rows(free) != free_rows(("strength", "fwhm", "x_0")):
        raise ValueError(explain("free and tied", "be given with lines alone", "no lines", "give lines, or drop them"))
    else:
        for number in range(passes):
            job.add_lines(prominence if number == 0 else prominence * LATER_PROMINENCE[min(number, 3) - 1], number == 0)
            job.fit(number == passes - 1, tell(f"pass {number + 1}/{passes}"))
            job.drop_lines(prominence * LATER_PROMINENCE[-1] * NEGLIGIBLE)
        job.drop_insignificant(tell("dropping lines"))
        if job.noisy:
            job.polish(tell("all couplings"))
        if not len(job.lines):
            raise ValueError(no_line_message(prominence))
    show("")
    template = job.template()
    template.fit_info.update(wall_time=time.perf_counter() - started, device=str(device))
    for doubt in clone_doubts(job, template.fit_info["rms"]):
        warnings.warn(doubt, BlaseWarning, stacklevel=2)
    if job.solution.status != CONVERGED:
        remedy = "call it again with more passes" if lines is None else "free less, tie more or start closer"
        warnings.warn(f"clone_spectrum did not converge ({job.solution.message}); the template is usable but not the "
                      f"best, {remedy}", BlaseWarning, stacklevel=2)  # fmt: skip
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
    envelope: np.ndarray
    coefficients: np.ndarray
    scale: float
    teff: float | None
    form: str
    prominence: float
    lines: Lines
    given: GivenLines | None = None
    tied: np.ndarray | None = None
    solution: object = None
    n_first: int = 0
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
        return cls(arrays, wave, flux / scale, weight, noisy, basis, basis @ coefficients, coefficients, scale, teff,
                   form, prominence, empty)  # fmt: skip

    def problem(self, *, exact=False, errors=False):
        """The least-squares problem of the present lines; `exact` as the last steps want it, or its errors."""
        given = self.given
        exact = exact or errors or given is not None
        # errors of a clone without noise are formal
        neighbours = NEIGHBOURS if not exact else COUPLED if self.noisy or given is not None else FORMAL
        cut = DERIVATIVE_TOLERANCE
        if self.noisy and errors:
            # of crowded lines only small differences are known
            cut = WINDOW_TOLERANCE
        elif self.noisy and exact:
            relative = 1.0 / np.median(self.weight * np.maximum(self.basis @ self.coefficients, 0.0))
            cut = float(np.clip(CUT * relative, FINEST, DERIVATIVE_TOLERANCE))
        layout = LineLayout(self.lines, ALL if given is None else given.free, *self.limits())
        return SampledLines(self.wave, self.data, self.weight, self.basis, layout, form=self.form,
                            tolerance=WINDOW_TOLERANCE, derivative_tolerance=cut,
                            neighbours=neighbours, coefficients=self.coefficients,
                            ties=None if given is None else given.ties)  # fmt: skip

    def limits(self):
        """Lower and upper limits of all lines, for `LineLayout`."""
        step, reach, n_lines = np.median(np.diff(self.wave)), self.wave[-1] - self.wave[0], len(self.lines)
        lower = np.tile([-20.0, np.log(0.1 * step), np.log(1e-3 * step), -np.inf], (n_lines, 1))
        upper = np.tile([5.0, *np.log([0.1 * reach, 0.1 * reach]), np.inf], (n_lines, 1))
        if self.given is None and n_lines:
            # of a line at an end half is seen at most: without limits it would become part of the continuum
            lines, widest = self.lines, 0.5 * WIDEST_AT_END * np.median(self.lines.width)
            inside = np.minimum(lines.center - self.wave[0], self.wave[-1] - lines.center)
            logs = np.log(np.stack([lines.sigma, lines.gamma], axis=1))
            at_end = inside[:, None] < 2.0 * widest
            narrow = np.clip(np.maximum(logs, np.log(widest)), None, upper[:, SIGMA:CENTER])
            upper[:, SIGMA:CENTER] = np.where(at_end, narrow, upper[:, SIGMA:CENTER])
            lower[:, CENTER] = np.minimum((self.wave[0] - widest - lines.center) / lines.width, 0.0)
            upper[:, CENTER] = np.maximum((self.wave[-1] + widest - lines.center) / lines.width, 0.0)
        return lower, upper

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
        if not first:
            self.lines = self.weakened(flat, transmission, threshold)
            transmission, _ = self.model()
        missing = np.minimum(transmission, 1.0) - np.minimum(flat, 1.0) if first else transmission - flat
        excess = np.maximum(flat, 1.0) - np.maximum(transmission, 1.0)
        kinds = [(missing, 1.0), (excess, -1.0)]
        # a few may be a continuum that is not smooth enough: it must not be taken for ever more of them
        if not first and np.count_nonzero(self.lines.strength < 0) <= EMISSION_SHARE * len(self.lines):
            kinds = kinds[:1]
        peaks = [pick(self.wave, height, threshold) for height, _ in kinds]
        width = np.concatenate([FWHM_PER_SIGMA * self.lines.width, *(p["width"] for p in peaks if first)])
        new = self.lines.take(slice(0, 0))
        for (height, sign), inner in zip(kinds, peaks, strict=True):
            widest = WIDEST_AT_END * np.median(width) if len(width) else 0.0
            ends = pick_ends(self.wave, height, threshold, widest)
            both = {name: np.concatenate([inner[name], ends[name]]) for name in inner}
            index = both["index"]
            depth = height[index] / np.maximum(transmission[index], 0.05)
            # in noise a low pixel beside a high one is prominent, but it does not reach beyond the model
            least = np.broadcast_to(threshold, height.shape)[index] if self.noisy else -np.inf
            new = new.join(starting_lines(both, sign, depth=depth).take(height[index] > least))
        if first and len(new) == 0:
            raise ValueError(no_line_message(prominence))
        self.lines = self.lines.join(new)
        self.n_first = len(self.lines) if first else self.n_first

    def weakened(self, flat, transmission, threshold):
        """The lines, weaker where the model is black and the spectrum is not: no small step changes a black model."""
        index = pick(self.wave, flat - transmission, threshold)["index"]
        index = index[transmission[index] < TOO_DARK * flat[index]]
        near = np.searchsorted(self.lines.center, self.wave[index])[:, None] + np.arange(-NEIGHBOURS, NEIGHBOURS)
        near = np.clip(near, 0, len(self.lines) - 1)
        lines = self.lines.take(near)
        depth = lines.strength * voigt_profile(self.wave[index, None] - lines.center, lines.sigma, lines.gamma)
        seen = -np.log(np.minimum(flat[index], BRIGHT))[:, None]
        share = np.ones(len(self.lines))
        np.minimum.at(share, near, seen / np.maximum(depth, seen))
        return replace(self.lines, strength=share * self.lines.strength)

    def give_lines(self, table, free, tied):
        """Start from the user's lines."""
        self.given = given_lines(table, free, tied, self.wave, self.data / (self.basis @ self.coefficients))
        self.lines = self.given.lines
        if self.given.n_outside:
            warnings.warn(f"{self.given.n_outside} of {len(table)} lines lie outside the spectrum and are left out",
                          BlaseWarning, stacklevel=3)  # fmt: skip

    def fit(self, last, callback):
        """Fit the present lines and the continuum; the last pass is the thorough one."""
        problem, only = self.problem(), self.solution is None and self.given is None
        rtol = (RTOL_PASS, RTOL_LAST) if not self.noisy else (RTOL_PASS_NOISY, RTOL_LAST_NOISY)
        self.solution = self.descend(problem, problem.start(), rtol[last], MAX_ITERATIONS[last], callback)
        # after a single pass it is lines that are missing
        if last and not (only or self.noisy) and self.rms(self.solution.cost) > ORDINARY * self.prominence:
            first = self.solution
            further = self.descend(problem, first.theta, RTOL_DIFFICULT, MAX_ITERATIONS_DIFFICULT, callback)
            if first.status == CONVERGED:  # it has done so all the more
                further = replace(first, theta=further.theta, cost=further.cost)
            self.solution = further
        self.accept(problem)

    def polish(self, callback):
        """The last steps of a noisy clone, with derivatives and couplings that leave nothing out."""
        problem, before = self.problem(exact=True), self.solution
        self.solution = self.descend(problem, problem.start(), RTOL_LAST_NOISY, MAX_POLISH, callback)
        if before.status == CONVERGED:  # it has done so all the more
            self.solution = replace(self.solution, status=CONVERGED, message=before.message)
        self.accept(problem)

    def accept(self, problem):
        """Take lines and continuum from the solution of the problem."""
        lines = problem.lines(self.solution.theta)
        order = np.argsort(lines.center, kind="stable")
        self.lines = lines.take(order)
        _, self.coefficients, self.tied = problem.split(self.solution.theta)
        if self.given is not None:
            self.given = self.given.take(order)

    def descend(self, problem, theta, rtol, max_iterations, callback):
        """Where the iteration ends that starts at theta."""
        atol = 0.0 if self.noisy else 0.5 * self.wave.size * ROUNDING**2
        solution = levenberg_marquardt(problem, theta, max_iterations=max_iterations, rtol=rtol, atol=atol,
                                       ridge=self.ridge, callback=callback)  # fmt: skip
        self.n_iterations += solution.n_iterations
        return solution

    @property
    def ridge(self):
        """A curvature far below that of any line that matters."""
        return 1e-8 * float(np.mean(self.weight**2))

    def drop_lines(self, negligible):
        """Forget lines that carry nothing."""
        self.lines = self.lines.take(np.abs(self.lines.peak) > negligible)

    def drop_insignificant(self, callback):
        """Forget lines whose strength is not known, as long as the spectrum can be described without them.

        Noise makes peaks out of the wings and the bottoms of lines, and each would take part of a real line with it.
        In each neighbourhood the least known line goes first; it comes back if chi-square rises by more than a line
        that is there would lower it.
        """
        needed = np.zeros((0, 2))
        for _ in range(MAX_DROPS if self.noisy else 0):
            problem, before = self.problem(), self.lines
            theta = problem.start()
            matrix = problem.linearize(theta)[1]
            covariance = LineCovariance(definite_factor(matrix, self.ridge), problem.layout, matrix=matrix)
            error = np.sqrt(covariance.blocks()[:, STRENGTH, STRENGTH])
            span = before.center[:, None] + before.width[:, None] * np.array([-NEIGHBOURHOOD, NEIGHBOURHOOD])
            least = least_known(error, before.center, span,
                                (error * SIGNIFICANCE > 1.0) & ~covered(before.center, needed))  # fmt: skip
            if not least.any():
                break
            running = self.running_chi2()
            self.lines = before.take(~least)
            self.fit(True, callback)
            rise = np.diff((self.running_chi2() - running)[np.searchsorted(self.wave, span[least])], axis=1)[:, 0]
            back = span[least][rise > SIGNIFICANCE**2]
            there = before.take(covered(before.center, back))
            self.lines = self.lines.take(~covered(self.lines.center, back)).join(there)
            needed = np.concatenate([needed, back])
        if len(needed):
            self.fit(True, callback)

    def running_chi2(self):
        """Chi-square of the pixels before each one, shape (n_pix + 1,)."""
        problem = self.problem()
        return np.concatenate([[0.0], np.cumsum(problem.evaluate(problem.start())[-1] ** 2)])

    def template(self):
        """The finished template with its errors."""
        problem = self.problem(errors=True)
        theta = problem.start()
        _, _, _, residual = problem.evaluate(theta)
        scale = 1.0 if self.noisy else local_rms(self.wave, residual, self.lines)
        # what is hardly felt, the logarithm of a width near zero, must have the error that belongs to it
        matrix = problem.linearize(theta)[1]
        factor = definite_factor(matrix, (np.median(scale) / LOOSE) ** 2)
        covariance = LineCovariance(factor, problem.layout, matrix=matrix, scale=scale, **self.shared())
        blends = blended_widths(self.lines, covariance, self.form)
        flags = BLENDED * (blends[0] >= 0) + OUTSIDE_WINDOW * ~has_data(self.wave, self.lines)
        if problem.shape[0]:
            flags += AT_BOUND * problem.layout.at_bound(problem.split(theta)[0])
        nearest = np.clip(np.searchsorted(self.arrays.wave, self.lines.center), 0, self.arrays.wave.size - 1)
        errors = ("standard deviations from the flux uncertainties" if self.noisy else
                  "the spectrum has no noise: formal errors scaled by the rms residual near each line")  # fmt: skip
        table = line_table(self.lines, covariance.blocks(), index=original_index(self.arrays, nearest), flags=flags,
                           blends=blends, form=self.form, error_scale=errors)  # fmt: skip
        if self.given is not None:
            self.given.describe(table)
        coverage = [float(self.arrays.edges[self.arrays.good].min()), float(self.arrays.edges[self.arrays.good].max())]
        meta = {"wavelength_medium": "vacuum", "frame": "rest", "coverage": coverage, "error_scale": errors,
                "package_version": __version__, "source_medium": self.arrays.medium}  # fmt: skip
        known = TableCovariance(covariance, self.lines, self.form, np.arange(len(self.lines)))
        info = self.fit_info(residual)
        if self.given is not None and self.given.ties is not None:
            std = np.sqrt(np.diag(covariance.inverse.corner)[self.basis.shape[1] :])
            info["tied"] = self.given.tied_table(self.tied, std * np.sqrt(np.mean(np.square(scale))))
        return LineTemplate(model=self.forest(table), lines=table, fit_info=info, meta=meta, line_covariance=known)

    def shared(self):
        """What lines share, for `LineCovariance`."""
        if self.given is None or self.given.ties is None:
            return {}
        member = self.given.ties.member
        return {"shared": np.where(member >= 0, member + self.basis.shape[1], -1),
                "shared_unit": self.given.ties.units(self.lines.center)}  # fmt: skip

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


def covered(center, spans):
    """True for increasing centres (n,) that lie in any of the spans (k, 2)."""
    lo, hi = np.searchsorted(center, spans[:, 0]), np.searchsorted(center, spans[:, 1], side="right")
    change = np.bincount(lo, minlength=len(center) + 1) - np.bincount(hi, minlength=len(center) + 1)
    return np.cumsum(change)[:-1] > 0


def least_known(error, center, span, candidates):
    """Candidates whose error is the largest in their span, none of them in the span of another; shape (n_lines,)."""
    lo, hi = np.searchsorted(center, span[:, 0]), np.searchsorted(center, span[:, 1], side="right")
    out, taken = np.zeros((2, len(center)), dtype=bool)
    index = np.flatnonzero(candidates)
    for k in index[np.argsort(-error[index], kind="stable")]:
        if not (taken[k] or out[lo[k] : hi[k]].any()):
            out[k], taken[lo[k] : hi[k]] = True, True
    return out
