"""fit_spectrum: a template is warped to an observed spectrum and its lines are learned anew."""

import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from astropy import units as u
from astropy.table import QTable, vstack
from specutils import Spectrum

from specutils_blase import plotting
from specutils_blase.adapters import misread_wavelengths, quantity_value, read_spectrum, resolve_device
from specutils_blase.errors import BlaseWarning, explain
from specutils_blase.flags import AT_BOUND, BLENDED, OUTSIDE_WINDOW, PRIOR_DOMINATED
from specutils_blase.functional.constants import SPEED_OF_LIGHT
from specutils_blase.hindsight import doubt
from specutils_blase.instrument import as_lsf
from specutils_blase.io.files import read_asdf, write_asdf
from specutils_blase.lines import line_table, original_index
from specutils_blase.preparation import Setup, model_lines, velocity_and_rotation
from specutils_blase.progress import reporter
from specutils_blase.solvers.levenberg_marquardt import CONVERGED, levenberg_marquardt
from specutils_blase.solvers.lines import (
    CENTER,
    STRENGTH,
    Lines,
    blended_lines,
    definite_factor,
    line_covariance,
    strength_variances,
)
from specutils_blase.solvers.observed import LARGEST_VSINI, SMALLEST_VSINI, STAR
from specutils_blase.solvers.posterior import posterior_mean
from specutils_blase.template import LineTemplate

__all__ = ["fit_spectrum", "SpectrumFit", "GaussianPrior", "L1Prior"]

FREE_NAMES = ("strength", "fwhm", "x_0")
MAX_ITERATIONS = 60
# Half of chi-square has converged when a step lowers it by less than this, absolute plus relative.
CONVERGED_CHI2, CONVERGED_SHARE = 0.01, 1e-5
ERRORS = "standard deviations from the flux uncertainties and the prior"
ERRORS_SCALED = "the spectrum has no uncertainties: standard deviations from the scatter of the residual, and the prior"


@dataclass(frozen=True)
class GaussianPrior:
    """
    Gaussian prior that holds lines near their template.

    Parameters
    ----------
    strength : float
        Standard deviation of ln(strength).
    fwhm : float
        Standard deviation of ln(fwhm), for both widths.
    x_0 : Quantity
        Standard deviation of the centres, a velocity.
    """

    strength: float = 0.3
    fwhm: float = 0.3
    x_0: u.Quantity = 0.5 * u.km / u.s

    quadratic = True

    def __post_init__(self):
        _check_scales(self.strength, self.fwhm, self.x_0)


@dataclass(frozen=True)
class L1Prior:
    """
    The prior of Gully-Santiago & Morley (2022): the sum of (absolute change)/scale over the free line parameters.

    Parameters
    ----------
    strength, fwhm : float
        Scales of the absolute changes of ln(strength) and ln(fwhm).
    x_0 : Quantity
        Scale of the change of the centres, a velocity.
    """

    strength: float = 0.3
    fwhm: float = 0.3
    x_0: u.Quantity = 0.5 * u.km / u.s

    quadratic = False

    def __post_init__(self):
        _check_scales(self.strength, self.fwhm, self.x_0)


def _check_scales(strength, fwhm, x_0):
    for name, value in (("strength", strength), ("fwhm", fwhm)):
        if not (np.isscalar(value) and np.isreal(value) and value > 0 and np.isfinite(value)):
            raise ValueError(explain(name, "be a positive number", repr(value), "0.3 is the default"))
    quantity_value(x_0, u.km / u.s, "x_0", positive=True)


@dataclass(eq=False, repr=False)
class SpectrumFit:
    """
    What `fit_spectrum` found.

    Attributes
    ----------
    observed : Spectrum
        The input.
    template : LineTemplate or None
        The semi-empirical star at native resolution: the template with the fitted lines.
    telluric : LineTemplate, list of LineTemplate, or None
        The tellurics with the fitted lines, the column scale in their strengths (not for the product form).
    parameters : QTable
        ``name``, ``value``, ``std``, ``unit``, ``fixed`` of every global parameter; ``meta["at_bound"]`` names those
        that ended at a limit, where the error is none.
    lines : QTable
        Every line of the fit, star and telluric, with ``_err`` columns and ``flags``; see ``lines.meta``.
    model_spectrum, residual : Spectrum
        The model and data minus model on the observed pixels; NaN outside the fitted range, and in the residual where
        a pixel was ignored.
    components : dict of Spectrum
        "continuum", "star" and "telluric" on the observed pixels; the last two without continuum.
    fit_info : dict
        status, message, rms, chi2, dof, n_lines, n_pixels, n_ignored, n_iterations, condition, wall_time, device, ...
    """

    observed: Spectrum
    template: LineTemplate | None
    telluric: LineTemplate | list | None
    parameters: QTable
    lines: QTable
    model_spectrum: Spectrum
    residual: Spectrum
    components: dict = field(default_factory=dict)
    fit_info: dict = field(default_factory=dict)

    def __repr__(self):
        info = self.fit_info
        return (f"<SpectrumFit: {info.get('status')}, {len(self.lines)} lines, rms {info.get('rms', np.nan):.3%}, "
                f"chi2/dof {info.get('chi2', np.nan) / max(info.get('dof', 1), 1):.3g}>")  # fmt: skip

    def plot(self, ax=None):
        """Data, model and residual; returns the Axes."""
        return plotting.plot_fit(self, ax=ax)

    def write(self, path, overwrite=False):
        """Write everything to an ASDF file, atomically."""
        write_asdf(path, self, overwrite=overwrite)

    @classmethod
    def read(cls, path):
        """Read a file that `write` made."""
        return read_asdf(path, cls)


def fit_spectrum(observed, template, telluric=None, lsf=55_000, radial_velocity=None, vsini=None, limb_darkening=0.6,
                 continuum_degree=3, free=("strength",), prior=None, weights="unc", window=None, exclude_regions=None,
                 device=None, progress=None, *, wavelength_medium=None):  # fmt: skip
    """
    Fit a template to an observed spectrum.

    The model of a pixel is the continuum times the mean, over the pixel and the line spread function, of the star
    (shifted, rotationally broadened) times the tellurics.  Lines and global parameters are fitted together; the
    continuum of the template itself is not used, only its lines.  With a Gaussian prior on
    strengths alone the values are means of the posterior, whose mode is biased by the skewness of the strengths;
    otherwise they are its mode.  ``fit_info["estimate"]`` says which.  The errors are standard deviations.

    Parameters
    ----------
    observed : Spectrum
        One echelle order, one-dimensional; bin edges, mask and uncertainty are used.
    template : LineTemplate or None
        The star.  None fits tellurics alone.
    telluric : LineTemplate or list of LineTemplate, optional
        One for each species, each with a free factor on its optical depth, at rest in the frame of `observed`.
    lsf : float, callable, LSF object, 2-D array or None
        Resolving power, a function of the wavelengths (a Quantity in vacuum Angstrom) that returns it, a
        `ResolvingPower` (``free=True`` fits it), `GaussianLSF` or `BandedLSF`; None for pixels alone.
    radial_velocity : Quantity, optional
        Where to start; None: from a cross-correlation.  Positive when receding.
    vsini : Quantity, optional
        Where to start; None: from a scan.
    limb_darkening : float
        Linear coefficient, fixed.
    continuum_degree : int
        Degree of the Legendre polynomial, whose coefficients have the flux unit.
    free : tuple of str, or mapping
        Line parameters that may move: "strength", "fwhm" (both widths), "x_0"; a mapping with the keys "star" and
        "telluric" when they differ.  ``()`` frees the global parameters only.
    prior : GaussianPrior or L1Prior, optional
        Default ``GaussianPrior()``: standard deviations 0.3 in ln strength and ln widths, 0.5 km/s in the centres.
    weights : "unc", array or None
        As in `specutils.fitting.fit_lines`: 1/sigma.
    window, exclude_regions : SpectralRegion, optional
        As in `specutils.fitting.fit_lines`.
    device : str, optional
        See `specutils_blase.conf`; this version fits on the CPU.
    progress : bool or callable, optional
        None: on in a terminal or a notebook.
    wavelength_medium : "vacuum", "air" or None
        What the spectral axis measures; None: what the metadata say, else vacuum.

    Returns
    -------
    SpectrumFit

    Raises
    ------
    CoverageError
        If a template does not cover the data after the velocity.
    """
    started = time.perf_counter()
    device = resolve_device(device)
    arrays = read_spectrum(observed, "observed", window=window, exclude_regions=exclude_regions, weights=weights,
                           wavelength_medium=wavelength_medium)  # fmt: skip
    lsf, free, prior = as_lsf(lsf), _free(free), _prior(prior)
    speed = u.km / u.s
    velocity = quantity_value(radial_velocity, speed, "radial_velocity", allow_none=True)
    if velocity is not None and abs(velocity) >= SPEED_OF_LIGHT:
        raise ValueError(explain("radial_velocity", "be slower than light", radial_velocity, "check its unit"))
    rotation = quantity_value(vsini, speed, "vsini", positive=True, allow_none=True)
    if rotation is not None and rotation > LARGEST_VSINI:
        raise ValueError(explain("vsini", f"be at most {LARGEST_VSINI:g} km / s", vsini, "check its unit"))
    tellurics = _templates(template, telluric)
    setup = Setup.build(arrays, template, tellurics, lsf, _unit_interval(limb_darkening), continuum_degree)
    velocity, rotation = velocity_and_rotation(setup, velocity, rotation)
    setup.check_coverage(velocity)
    problem = setup.problem(velocity, rotation, free, prior)
    show = reporter(progress)
    solution = levenberg_marquardt(
        problem, problem.start(), max_iterations=MAX_ITERATIONS, rtol=CONVERGED_SHARE, atol=CONVERGED_CHI2,
        callback=lambda i, cost: show(f"fit: step {i}, chi2 {2 * cost:.6g}"),
    )  # fmt: skip
    show("")
    setup.check_coverage(problem.globals(solution.theta).velocity)
    if solution.status != CONVERGED:
        warnings.warn(f"fit_spectrum did not converge ({solution.message}); start it from a better radial_velocity or "
                      "vsini, free fewer line parameters or tighten the prior", BlaseWarning, stacklevel=2)  # fmt: skip
    elif text := doubt(setup, _misread(setup), problem, solution, free, prior,
                       is_searched=radial_velocity is None and vsini is None):  # fmt: skip
        warnings.warn(f"fit_spectrum converged, but {text}", BlaseWarning, stacklevel=2)
    theta = posterior_mean(problem, solution.theta) if prior.quadratic else solution.theta
    fit = _Result(setup, problem, solution, theta, template, tellurics, telluric).fit()
    fit.fit_info["estimate"] = "mode" if np.array_equal(theta, solution.theta) else "mean"
    fit.fit_info.update(wall_time=time.perf_counter() - started, device=str(device))
    return fit


def _misread(setup):
    """The setup with the tellurics where they are seen if the medium of the spectrum is not what was declared."""
    tellurics = []
    for template in setup.tellurics:
        model = template.model.copy()
        model.x_0 = misread_wavelengths(model.x_0.quantity.to_value(u.AA), setup.arrays.medium) * u.AA
        tellurics.append(replace(template, model=model))
    return replace(setup, tellurics=tellurics)


def _free(free):
    """{"star": rows, "telluric": rows} of the solver's layout."""
    given = dict(free) if hasattr(free, "keys") else {"star": free, "telluric": free}
    if not set(given) <= {"star", "telluric"}:
        raise ValueError(explain("free", 'have the keys "star" and "telluric"', list(given), "drop the others"))
    rows = {"strength": (0,), "fwhm": (1, 2), "x_0": (3,)}
    out = {}
    for key in ("star", "telluric"):
        names = given.get(key, ())
        names = (names,) if isinstance(names, str) or not isinstance(names, Iterable) else tuple(names)
        if not set(names) <= set(FREE_NAMES):
            raise ValueError(explain("free", f"hold names among {FREE_NAMES}", names,
                                     'write e.g. ("strength",), or () for none'))  # fmt: skip
        out[key] = tuple(row for name in FREE_NAMES if name in names for row in rows[name])
    return out


def _prior(prior):
    if prior is None:
        return GaussianPrior()
    if not isinstance(prior, GaussianPrior | L1Prior):
        raise TypeError(explain("prior", "be a GaussianPrior, an L1Prior or None", type(prior).__name__,
                                "write e.g. GaussianPrior(strength=0.5)"))  # fmt: skip
    return prior


def _unit_interval(value):
    if not (np.isscalar(value) and np.isreal(value) and 0 <= value <= 1):
        raise ValueError(explain("limb_darkening", "lie between 0 and 1", repr(value), "0.6 is usual"))
    return float(value)


def _templates(template, telluric):
    """The telluric templates as a list, all checked."""
    tellurics = [] if telluric is None else list(telluric) if isinstance(telluric, list | tuple) else [telluric]
    for name, item in [("template", template)] * (template is not None) + [("telluric", t) for t in tellurics]:
        if not isinstance(item, LineTemplate):
            raise TypeError(explain(name, "be a LineTemplate", type(item).__name__,
                                    "make one with clone_spectrum or LineTemplate.read"))  # fmt: skip
    if template is None and not tellurics:
        raise ValueError(explain("template", "be a LineTemplate unless tellurics are given", "None and no telluric",
                                 "give one of the two"))  # fmt: skip
    lines = [np.stack(tuple(model_lines(item.model))) for item in tellurics]
    for (i, first), (k, second) in combinations(enumerate(lines), 2):
        if np.array_equal(first, second):  # only the sum of their columns would be felt
            raise ValueError(explain("telluric", "hold every species once", f"the same lines as items {i} and {k}",
                                     "drop one of the two"))  # fmt: skip
    return tellurics


class _Result:
    """Puts a solution into astropy objects."""

    def __init__(self, setup, problem, solution, theta, template, tellurics, telluric):
        self.setup, self.problem, self.solution, self.theta = setup, problem, solution, theta
        self.template, self.tellurics, self.given = template, tellurics, telluric
        self.arrays = setup.arrays
        self.state = problem.evaluate(theta)
        _, self.matrix = problem.linearize(theta)
        self.factor = definite_factor(self.matrix, 0.0)
        self.inverse = self.factor.inverse()
        self.chi2 = float(np.sum(self.state.residual**2))
        self.dof = np.count_nonzero(setup.weight) - self.effective_parameters()
        self.scale = 1.0 if setup.has_sigma else self.chi2 / max(self.dof, 1.0)

    def effective_parameters(self):
        """Number of parameters that the data, not the prior, determine: the trace of (data curvature x covariance)."""
        problem = self.problem
        held = 0.0
        if problem.penalty is not None and problem.shape[0]:
            curvature = problem.penalty.curvature(problem.split(self.theta)[0])
            held = float(np.sum(curvature.ravel() * self.inverse.local_diagonal))
        return problem.shape[0] * problem.shape[1] + problem.shape[2] - held

    def fit(self):
        """The `SpectrumFit`."""
        tables = self.line_tables()
        templates = enumerate([self.template, *self.tellurics], start=STAR)
        updated = [self.update(template, table, k) for (k, template), table in zip(templates, tables, strict=True)]
        star, tellurics = updated[0], updated[1:]
        many = isinstance(self.given, list | tuple)
        present = [table for table in tables if table is not None]
        lines = vstack(present, metadata_conflicts="silent") if len(present) > 1 else present[0]
        spectra = self.spectra()
        return SpectrumFit(
            observed=self.arrays.source, template=star, telluric=tellurics if many else (tellurics or [None])[0],
            parameters=self.parameters(), lines=lines, model_spectrum=spectra.pop("model"),
            residual=spectra.pop("residual"), components=spectra, fit_info=self.fit_info(len(lines)),
        )  # fmt: skip

    def spectra(self):
        """Model, residual and components on the user's pixels."""
        arrays, used, state = self.arrays, self.setup.used, self.state
        response, scale = self.problem._response, self.setup.scale

        def full(values):
            out = np.full(arrays.wave.size, np.nan)
            out[used] = values
            return out

        model = full(state.pixels * state.continuum * scale)
        residual = np.where(arrays.good, arrays.flux - model, np.nan)
        one = u.dimensionless_unscaled
        out = {"model": arrays.to_spectrum(model), "residual": arrays.to_spectrum(residual),
               "continuum": arrays.to_spectrum(full(state.continuum * scale))}  # fmt: skip
        if self.template is not None:
            out["star"] = arrays.to_spectrum(full(response @ state.rotated), unit=one)
        if self.tellurics:
            out["telluric"] = arrays.to_spectrum(full(response @ state.telluric), unit=one)
        return out

    def parameters(self):
        """The table of the global parameters."""
        problem, glob = self.problem, self.state.globals
        std = np.sqrt(np.maximum(np.diag(self.inverse.corner), 0.0) * self.scale)
        named = dict(zip(problem.names, std, strict=False))
        std_rest = std[len(problem.names) :]
        rows = []
        if self.template is not None:
            rows.append(("radial_velocity", glob.velocity, named["radial_velocity"], "km / s", False))
            rows.append(("vsini", glob.vsini, named["vsini"] / (2.0 * glob.vsini), "km / s", False))
            rows.append(("limb_darkening", self.setup.scene.limb_darkening, 0.0, "", True))
        if self.setup.scene.resolving_power is not None:
            power = float(np.mean(self.setup.scene.resolving_power) * np.exp(glob.log_scale))
            error = power * named.get("resolving_power", 0.0)
            rows.append(("resolving_power", power, error, "", not problem.free_scale))
        n_species = problem.scene.n_species
        for k, (value, error) in enumerate(zip(glob.column, std_rest, strict=False)):
            name = "telluric_scale" if n_species == 1 else f"telluric_scale_{k}"
            rows.append((name, np.exp(value), np.exp(value) * error, "", False))
        unit, scale = str(self.arrays.flux_unit), self.setup.scale
        for k, (value, error) in enumerate(zip(glob.continuum, std_rest[n_species:], strict=True)):
            rows.append((f"continuum_{k}", value * scale, error * scale, unit, False))
        table = QTable(rows=rows, names=("name", "value", "std", "unit", "fixed"),
                       dtype=(str, float, float, str, bool))  # fmt: skip
        table.meta["errors"] = ERRORS if self.setup.has_sigma else ERRORS_SCALED
        # an error bar about a limit says nothing
        inside = SMALLEST_VSINI < glob.vsini < LARGEST_VSINI
        table.meta["at_bound"] = [] if self.template is None or inside else ["vsini"]
        return table

    def line_tables(self):
        """One table for each of star and species (None without star)."""
        problem, theta = self.problem, self.theta
        lines, species = problem.lines(theta), problem.scene.species
        n = len(lines)
        covariance, flags = np.zeros((n, 4, 4)), np.zeros(n, dtype=np.int64)
        if problem.shape[0]:
            layout = problem.layout
            covariance = line_covariance(self.inverse, layout) * self.scale
            for column, parameter in enumerate(layout.free):
                covariance[problem.held[:, column], parameter] = 0.0
                covariance[problem.held[:, column], :, parameter] = 0.0
            local = problem.split(theta)[0]
            # the strengths are reported with the column, so that they need not be known without it
            columns = [len(problem.names) + k for k in range(problem.scene.n_species)
                       if problem.scene.form[k + 1] == "opacity"]  # fmt: skip
            flags |= AT_BOUND * layout.at_bound(local, problem.held)
            flags |= BLENDED * blended_lines(self.inverse, layout, given=columns)
            if STRENGTH in layout.free:
                place = layout.free.index(STRENGTH)
                curvature = np.where(problem.held[:, place], 0.0, problem.penalty.curvature(local)[:, place])
                variance = strength_variances(self.inverse, layout, columns)[0]
                flags |= PRIOR_DOMINATED * (variance * curvature > 0.5)
        lines, covariance = self.with_columns(lines, covariance)
        flags |= OUTSIDE_WINDOW * ~self.setup.has_data(self.state.observed)
        centers = self.state.observed.center
        nearest = np.clip(np.searchsorted(self.arrays.wave, centers), 1, self.arrays.wave.size - 1)
        nearest -= centers - self.arrays.wave[nearest - 1] < self.arrays.wave[nearest] - centers
        index = original_index(self.arrays, nearest)
        tables = []
        for k in range(STAR, problem.scene.n_species):
            mine = species == k
            if k == STAR and self.template is None:
                tables.append(None)
                continue
            tables.append(line_table(
                lines.take(mine), covariance[mine], index=index[mine], flags=flags[mine],
                component="star" if k == STAR else "telluric", form=problem.scene.form[k + 1],
                error_scale=ERRORS if self.setup.has_sigma else ERRORS_SCALED,
            ))  # fmt: skip
        return tables

    def with_columns(self, lines, covariance):
        """Telluric lines with the column scale in their strength, so that table and template are what was seen.

        ln strength' = ln strength + ln column; a product of lines to a power is no product, and stays without.
        """
        problem, q = self.problem, self.problem.shape[1]
        strength = lines.strength.copy()
        for k, log_column in enumerate(self.state.globals.column):
            mine = (problem.scene.species == k) & (problem.scene.form[k + 1] == "opacity")
            strength[mine] *= np.exp(log_column)
            place = len(problem.names) + k
            covariance[mine, STRENGTH, STRENGTH] += self.inverse.corner[place, place] * self.scale
            if not q:
                continue
            cross = np.zeros((len(lines), 4))
            cross[:, list(problem.layout.free)] = self.inverse.border[:, place].reshape(-1, q) * self.scale
            cross[:, CENTER] *= problem.layout.start.width
            covariance[mine, STRENGTH] += cross[mine]
            covariance[mine, :, STRENGTH] += cross[mine]
        return Lines(lines.center, strength, lines.sigma, lines.gamma), covariance

    def update(self, template, table, species):
        """The template with the fitted lines in the places of the old ones."""
        if template is None:
            return None
        rows = self.setup.rows[self.problem.scene.species == species]
        return self.setup.updated_template(template, table, rows, self.fit_info(len(table)))

    def fit_info(self, n_lines):
        """How it went."""
        state, setup, solution = self.state, self.setup, self.solution
        good = setup.weight > 0
        relative = (state.pixels * state.continuum - setup.scene.data)[good] / state.continuum[good]
        return {
            "status": solution.status, "message": solution.message, "rms": float(np.std(relative)),
            "chi2": self.chi2, "dof": float(self.dof), "condition": self.factor.condition(), "n_lines": n_lines,
            "n_pixels": int(np.count_nonzero(good)), "n_ignored": self.arrays.n_ignored,
            "n_iterations": solution.n_iterations, "wavelength_medium": self.arrays.medium,
        }  # fmt: skip
