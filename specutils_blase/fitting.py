"""fit_spectrum: a template is warped to an observed spectrum and its lines are learned anew."""

import time
import warnings
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from astropy import units as u
from astropy.table import QTable
from specutils import Spectrum

from specutils_blase import plotting
from specutils_blase.adapters import misread_wavelengths, quantity_value, resolve_device
from specutils_blase.coverage import covered
from specutils_blase.errors import BlaseWarning, explain
from specutils_blase.functional.constants import SPEED_OF_LIGHT
from specutils_blase.hindsight import doubt, warn_of_double_use, warn_of_errors
from specutils_blase.instrument import BandedLSF, MeasuredLSF, as_lsf
from specutils_blase.io.files import read_asdf, write_asdf
from specutils_blase.line_input import free_rows
from specutils_blase.new_lines import fitted_twice, with_new_lines
from specutils_blase.orders import motion, one_of, read_orders
from specutils_blase.page import write_page
from specutils_blase.preparation import Setup, fewest_pixels, model_lines, prior_widths
from specutils_blase.priors import checked_priors
from specutils_blase.progress import reporter
from specutils_blase.quality import order_table
from specutils_blase.results import Result
from specutils_blase.search import velocity_and_rotation
from specutils_blase.solvers.levenberg_marquardt import CONVERGED
from specutils_blase.solvers.observed import LARGEST_VSINI
from specutils_blase.solvers.posterior import posterior_mean
from specutils_blase.solvers.scene import added_velocities, relativistic_factor
from specutils_blase.solvers.smooth import solved
from specutils_blase.template import NO_COVARIANCE, LineTemplate

__all__ = ["fit_spectrum", "SpectrumFit"]

MAX_ITERATIONS = 200
CONTINUA = ("polynomial", "spline")
# Half of chi-square has converged when a step lowers it by less than this, absolute plus relative.
CONVERGED_CHI2, CONVERGED_SHARE = 0.01, 1e-5


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
        that ended at a limit, which have no standard deviation: it is NaN.
    lines : QTable
        Every line of the fit, star and telluric, with ``_err`` columns and ``flags``; see ``lines.meta``.
    new_lines : QTable
        The rows of `lines` that were not in the templates, those with ``new``.
    model_spectrum, residual : Spectrum
        The model and data minus model on the observed pixels; NaN outside the fitted range, and in the residual where
        a pixel was ignored.
    components : dict of Spectrum
        "continuum", "star" and "telluric" on the observed pixels, the last two without continuum; "veiling" (r) if it
        is fitted; of a spectrum without uncertainties also "noise", the standard deviation that the fit estimates from
        differences between neighbouring pixels (narrow lines, where there are many, are taken for noise).
    fit_info : dict
        status, message, rms, chi2, dof, n_lines, n_pixels, n_ignored, n_iterations, condition, wall_time, device, ...
        ``rms`` is that of the residual over the continuum, as in `orders`.
    lsf : LSF object, list of them, or None
        The line spread function as it was given, for the next fit; what is fitted of it is in `parameters`.
    line_covariance : TableCovariance or None
        What `covariance` works with.
    exposure : Exposure or None
        What `find_new_lines` works with; not in files.
    origin : Origin or None
        How the fit was made, which `injection_recovery` repeats; not in files.
    orders : QTable
        How good every order that was fitted is: ``order`` (its number in `observed`), ``wavelength_min`` and
        ``wavelength_max`` (vacuum) of its ``n_pixels`` used pixels, ``rms`` of the residual over the continuum,
        ``noise`` (that of the uncertainties: the photon noise; without, that in `components`), their ``ratio``, the
        share of the pixels that are ``saturated`` (the tellurics transmit less than 0.05), ``autocorrelation`` (of the
        residual in units of its noise, between neighbouring pixels), ``chi2`` per pixel, and a ``remark`` that says
        what a ratio above 1.5 is due to, as far as the residual tells, and of a spline continuum that is worth more
        than 0.9 of its coefficients that it wants more freedom than its knots have (not in that of a single `order`).
        Numbers relative to the continuum are those of pixels in which it is at least a tenth of its median over the
        used pixels of the order: elsewhere, at the ends of a blaze, there is no light.  A fit of one spectrum has one
        row.

    Examples
    --------
    >>> from astropy import units as u
    >>> from specutils_blase import SpectrumFit, clone_spectrum, fit_spectrum
    >>> from specutils_blase.simulation import simulate_order, simulate_star
    >>> star = simulate_star(1, n_lines=60, lower=10500 * u.AA, upper=10512 * u.AA)
    >>> order = simulate_order(star.model, seed=2, vsini=5 * u.km / u.s, bad_pixels=0,
    ...                        lower=10502 * u.AA, upper=10510 * u.AA, n_pix=150)
    >>> template = clone_spectrum(star.spectrum, continuum_degree=2)
    >>> fit = fit_spectrum(order.spectrum, template, vsini=4 * u.km / u.s)
    >>> fit.parameters["name"][:3].tolist()
    ['radial_velocity', 'vsini', 'limb_darkening']
    >>> deepest = fit.lines[fit.lines["depth"].argmax()]
    >>> width, error = deepest["equivalent_width"].to(u.mAA), deepest["equivalent_width_err"].to(u.mAA)
    >>> print(f"{deepest['line_center']:.1f}: {width:.0f} +- {error:.1f}")
    10507.1 Angstrom: 69 mAngstrom +- 0.8 mAngstrom
    >>> print(fit.residual.flux.unit, fit.orders["n_pixels"].tolist(), fit.orders["ratio"].round(1).tolist())
    electron [150] [0.9]

    Pictures and files:

    >>> import tempfile
    >>> from pathlib import Path
    >>> from matplotlib import pyplot as plt
    >>> axes = fit.plot()
    >>> plt.close(axes[0].figure)
    >>> path = Path(tempfile.mkdtemp()) / "fit.asdf"
    >>> fit.write(path)
    >>> SpectrumFit.read(path).fit_info["status"]
    'converged'
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
    lsf: object = None
    line_covariance: object = None
    exposure: object = None
    origin: object = None

    def __repr__(self):
        info = self.fit_info
        return (f"<SpectrumFit: {info.get('status')}, {len(self.lines)} lines, rms {info.get('rms', np.nan):.3%}, "
                f"chi2/dof {info.get('chi2', np.nan) / max(info.get('dof', 1), 1):.3g}>")  # fmt: skip

    @property
    def orders(self):
        """How good every order that was fitted is, a ``QTable``; computed from the residual when it is asked for."""
        return order_table(self)

    @property
    def new_lines(self):
        """See the class."""
        return self.lines[self.lines["new"]]

    def order(self, number):
        """
        The part of a fit of several orders that belongs to one of them.

        Parameters
        ----------
        number : int
            Of the order, as in `observed`; negative numbers count from the end.

        Returns
        -------
        SpectrumFit
            Its spectra are those of the order, its `lines` those that it sees best, and the ``continuum_k``, ... of its
            `parameters` its own; templates and `fit_info` are those of the whole, which `covariance` and
            `find_new_lines` need.

        Examples
        --------
        >>> from astropy import units as u
        >>> from specutils_blase import clone_spectrum, fit_spectrum
        >>> from specutils_blase.simulation import simulate_order, simulate_star
        >>> star = simulate_star(1, n_lines=60, lower=10500 * u.AA, upper=10512 * u.AA)
        >>> def observed(first, seed):
        ...     return simulate_order(star.model, seed=seed, lower=first, upper=first + 4.5 * u.AA, n_pix=90,
        ...                           bad_pixels=0).spectrum
        >>> orders = [observed(10502 * u.AA, 0), observed(10506 * u.AA, 1)]
        >>> template = clone_spectrum(star.spectrum, continuum_degree=2)
        >>> fit = fit_spectrum(orders, template, vsini=4 * u.km / u.s)
        >>> print(fit.parameters["name"][-1], fit.order(1).parameters["name"][-1])
        order_1_continuum_3 continuum_3
        >>> print(len(fit.lines), [len(fit.order(k).lines) for k in (0, 1)])
        22 [10, 12]
        """
        if isinstance(self.observed, Spectrum) and self.observed.flux.ndim == 1:
            raise ValueError(explain("order", "be taken of a fit of several", "that of one", "use the fit as it is"))
        count = len(self.observed.flux) if isinstance(self.observed, Spectrum) else len(self.observed)
        if not (isinstance(number, int | np.integer) and -count <= number < count):
            raise IndexError(explain("number", f"be an order, 0 to {count - 1}", repr(number), "choose one of them"))
        number = int(number) % count
        prefix = f"order_{number}_"
        own = np.array([not name.startswith("order_") or name.startswith(prefix) for name in self.parameters["name"]])
        parameters = self.parameters[own]
        parameters["name"] = [name.removeprefix(prefix) for name in parameters["name"]]
        return SpectrumFit(
            one_of(self.observed, number), self.template, self.telluric, parameters,
            self.lines[self.lines["order"] == number], one_of(self.model_spectrum, number),
            one_of(self.residual, number),
            {name: one_of(spectra, number) for name, spectra in self.components.items()}, self.fit_info,
            self.lsf[number] if isinstance(self.lsf, list) else self.lsf,
        )  # fmt: skip

    def plot(self, ax=None, order=None):
        """
        Data, model and residual; of several orders all of them, or one with a zoom.

        Parameters
        ----------
        ax : Axes, optional
            Where to draw the data and the model alone.
        order : int, optional
            Which of several orders.

        Returns
        -------
        Axes or ndarray of Axes
        """
        return plotting.plot_fit(self, ax=ax, order=order)

    def covariance(self, lines, quantity="equivalent_width"):
        """
        The covariance matrix of a quantity of some lines, exact however far apart they are.

        The variance of their sum, of a blend say, is the sum of its elements.

        Parameters
        ----------
        lines : int, array of int or bool, slice, or QTable
            Rows of `lines`, star and telluric.
        quantity : str
            "equivalent_width", "strength", "fwhm_gauss", "fwhm_lorentz", "depth" or "line_center".

        Returns
        -------
        Quantity, shape (k, k)
            In the squared unit of the column; its diagonal holds the squares of the ``_err`` column.

        Raises
        ------
        ValueError
            If the fit was read from a file that was written without the covariances.

        Examples
        --------
        >>> from astropy import units as u
        >>> from specutils_blase import clone_spectrum, fit_spectrum
        >>> from specutils_blase.simulation import simulate_order, simulate_star
        >>> star = simulate_star(1, n_lines=60, lower=10500 * u.AA, upper=10512 * u.AA)
        >>> order = simulate_order(star.model, seed=2, vsini=5 * u.km / u.s, bad_pixels=0,
        ...                        lower=10502 * u.AA, upper=10510 * u.AA, n_pix=150)
        >>> template = clone_spectrum(star.spectrum, continuum_degree=2)
        >>> fit = fit_spectrum(order.spectrum, template, vsini=4 * u.km / u.s)
        >>> pair = abs(fit.lines["line_center"] - 10503.7 * u.AA) < 0.1 * u.AA
        >>> matrix = fit.covariance(pair)
        >>> print(matrix.shape, matrix.unit, bool(matrix[0, 1] < 0))
        (2, 2) Angstrom2 True

        What one line gains the other loses: their sum is better known than if they were independent.

        >>> together = matrix.sum() ** 0.5
        >>> apart = (fit.lines["equivalent_width_err"][pair] ** 2).sum() ** 0.5
        >>> bool(together < apart)
        True
        """
        if self.line_covariance is None:
            raise ValueError(NO_COVARIANCE)
        return self.line_covariance(self.lines, lines, quantity)

    def write(self, path, overwrite=False, covariance=False):
        """Write the fit to an ASDF file, atomically; the covariances between lines only with ``covariance=True``."""
        write_asdf(path, self if covariance else replace(self, line_covariance=None), overwrite=overwrite)

    def report(self, path, overwrite=False):
        """
        Write a report to read in a browser: one page of HTML that holds its figures and needs no network.

        Summary, parameters, figures, orders, worst residuals, lines with flags, new lines, and where all comes from.

        Parameters
        ----------
        path : str or path-like
            Name of the file, by custom ending in ``.html``. It appears when it is complete.
        overwrite : bool
            Whether an existing file is replaced.

        Examples
        --------
        >>> from astropy import units as u
        >>> from specutils_blase import clone_spectrum, fit_spectrum
        >>> from specutils_blase.simulation import simulate_order, simulate_star
        >>> star = simulate_star(1, n_lines=60, lower=10500 * u.AA, upper=10512 * u.AA)
        >>> order = simulate_order(star.model, seed=2, vsini=5 * u.km / u.s, bad_pixels=0,
        ...                        lower=10502 * u.AA, upper=10510 * u.AA, n_pix=150)
        >>> template = clone_spectrum(star.spectrum, continuum_degree=2)
        >>> fit = fit_spectrum(order.spectrum, template, vsini=4 * u.km / u.s)

        The page holds all that it shows:

        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp()) / "fit.html"
        >>> fit.report(path)
        >>> "http://" in path.read_text(), "<script" in path.read_text()
        (False, False)
        """
        write_page(self, path, overwrite)

    @classmethod
    def read(cls, path):
        """Read a file that `write` made."""
        return read_asdf(path, cls)


def fit_spectrum(observed, template, telluric=None, lsf=55_000, radial_velocity=None, vsini=None, limb_darkening=0.6,
                 continuum_degree=3, free=("strength",), prior=None, weights="unc", window=None, exclude_regions=None,
                 device=None, progress=None, *, wavelength_medium=None, wavelength_degree=None,
                 barycentric_velocity=None, veiling=None, robust=False, on_missing=None,
                 continuum="polynomial", jitter=False, new_lines=None):  # fmt: skip
    """
    Fit a template to an observed spectrum.

    The model of a pixel is the continuum times the mean, over the pixel and the line spread function, of the star
    (shifted, rotationally broadened) times the tellurics.  Lines and global parameters are fitted together; the
    continuum of the template itself is not used, only its lines.  With a Gaussian prior the values are means of the
    posterior, whose mode is biased by the skewness of the line parameters; where it is too skewed for that, as with
    widths that the prior leaves loose, and with an L1 prior they are its mode.  ``fit_info["estimate"]`` says which.
    The errors are standard deviations.

    Parameters
    ----------
    observed : Spectrum, SpectrumList, SpectrumCollection, or list of Spectrum
        One echelle order, or several in any sequence, which may overlap (the rows of a two-dimensional Spectrum are
        orders too); bin edges, mask and uncertainty are used.  Several orders share the lines, velocity, rotation and
        columns; the continuum is each one's own.
    template : LineTemplate or None
        The star.  None fits tellurics alone.
    telluric : LineTemplate or list of LineTemplate, optional
        One for each species, each with a free factor on its optical depth, at rest in the frame of ``observed``.
    lsf : float, callable, LSF object, 2-D array, None, or a list of these
        Resolving power, a function of the wavelengths (a Quantity in vacuum Angstrom) that returns it, a
        `ResolvingPower` (``free=True`` fits it, ``free_shape=True`` its departure from a Gaussian), `GaussianLSF`,
        `MeasuredLSF` or `BandedLSF`; None for pixels alone.  A list has one for each order.
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
    prior : GaussianPrior, L1Prior, mapping, or "learned", optional
        Of the lines; a mapping with the keys "star" and "telluric" when they differ, the latter one prior or a list
        with one for each species.  Default ``GaussianPrior(tail=3)``: standard deviations of 0.3 in ln strength and ln
        widths and 0.5 km/s in the centres, with exponential tails beyond three times that: every line list has lines
        that are off by more.  "learned", with ``jitter``: its standard deviations are those for which the data are most
        likely, for each template and parameter of which the data determine at least ten lines; they are in
        ``fit_info["prior"]``.  The errors of the model have to be white for that: lines follow those that are not.
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
    wavelength_degree : int, optional
        Degree of a Legendre polynomial in every order by which its wavelengths are corrected: the shift in km/s that
        makes them longer.  Without tellurics it cannot be told from the velocity.
    barycentric_velocity : Quantity, optional
        What has to be added to a velocity measured on the ground to give the barycentric one: positive when the Earth
        moves towards the star.  None: ``meta["barycentric_velocity"]`` of ``observed``, if any.  Where
        ``meta["frame"]`` is "barycentric" (or ``SPECSYS`` of the header), the tellurics are moved by it, and the
        velocity that comes out is barycentric; elsewhere it is only listed among the parameters.
    veiling : int, optional
        Degree of a polynomial for ln(1 + r), between the first and the last wavelength of all orders.  The veiling r is
        light without lines, in units of the continuum of the star, that makes it (S + r) / (1 + r).  0 is one number
        for all; of others ``veiling`` is what the mean of ln(1 + r) comes to, and ``veiling_k`` are coefficients of
        Legendre polynomials.  With free strengths it is known through their prior and through saturated lines; how
        much is in the multiple correlation with the lines, ``parameters.meta["veiling_correlation"]``, and a warning
        tells when it is above 0.95.
    robust : bool
        Whether pixels more than three standard deviations off pull with bounded force, and beyond nine not at all
        (Hampel's loss): cosmic rays and hot pixels that are not masked.  ``fit_info["down_weighted"]`` lists them with
        the share of their weight that they keep.
    on_missing : {"skip", "raise", "telluric"}, optional
        What becomes of pixels that a template does not cover after the velocity: they are left out, and orders of which
        less than a quarter is covered are skipped, with a warning; a `CoverageError`; or the tellurics are fitted alone
        where there is no star, with a ``jitter`` there.  None raises for one spectrum, and skips among several.
    continuum : {"polynomial", "spline"}
        A spline has a knot every 64 pixels (at most 64 knots) and is as smooth as makes the data most likely, in every
        order for itself: for a blaze with ripples, or stars with broad lines.  ``fit_info["continuum_parameters"]`` has
        the number of parameters that it is worth; ``continuum_degree`` then is that of the start alone, where velocity
        and rotation are searched for, and 10 at least unless there are few pixels.
    jitter : bool
        Whether the model has an error of its own in every order, a share of its continuum that is added to the
        uncertainties in quadrature and makes the data most likely: where the signal is better than the templates, it
        gives them and the prior their weight, and the errors become honest.  Pixels for which ``on_missing="telluric"``
        leaves the star out always have one.
    new_lines : None, True or QTable
        Lines that the templates lack, as `find_new_lines` returns them: added to the templates that cover them, star
        and "unknown" ones to the star's if there is one, the others to the first telluric.  They are marked by the
        column ``new`` of ``lines``, and the templates of the fit have them.  The standard deviation of their ln
        strength is 2 or more before the fit: they start from a measurement, which would count twice as a prior.  True
        fits twice, the second time with the lines that `find_new_lines` has found in the first fit.

    Returns
    -------
    SpectrumFit

    Raises
    ------
    CoverageError
        If a template does not cover the data after the velocity.

    Examples
    --------
    An order with a star and a telluric absorber, both cloned from spectra at native resolution:

    >>> from astropy import units as u
    >>> from specutils_blase import clone_spectrum, fit_spectrum
    >>> from specutils_blase.simulation import simulate_order, simulate_star, simulate_telluric
    >>> kms = u.km / u.s
    >>> star = simulate_star(1, n_lines=60, lower=10500 * u.AA, upper=10512 * u.AA)
    >>> sky = simulate_telluric(2, n_lines=8, lower=10500 * u.AA, upper=10512 * u.AA)
    >>> order = simulate_order(star.model, sky.model, seed=7, radial_velocity=12 * kms, vsini=5 * kms,
    ...                        lower=10502 * u.AA, upper=10510 * u.AA, n_pix=150, bad_pixels=0)
    >>> template = clone_spectrum(star.spectrum, continuum_degree=2)
    >>> telluric = clone_spectrum(sky.spectrum, prominence=0.005, continuum_degree=1)
    >>> fit = fit_spectrum(order.spectrum, template, telluric, lsf=55_000, vsini=4 * kms)
    >>> print(fit.fit_info["status"], len(fit.lines))
    converged 30
    >>> for name, value, std, unit in fit.parameters["name", "value", "std", "unit"][:2]:
    ...     print(f"{name}: {value:.1f} +- {std:.2f} {unit}")
    radial_velocity: 12.0 +- 0.05 km / s
    vsini: 4.9 +- 0.14 km / s
    """
    arguments = dict(locals())
    if new_lines is True:
        return fitted_twice(fit_spectrum, arguments)
    started = time.perf_counter()
    device = resolve_device(device)
    _check_flags(robust=robust, jitter=jitter)
    orders = read_orders(observed, "observed", window=window, exclude_regions=exclude_regions, weights=weights,
                         wavelength_medium=wavelength_medium)  # fmt: skip
    lsf, free, (velocity, rotation) = _lsfs(lsf, orders), _free(free), _start(radial_velocity, vsini)
    template, tellurics = with_new_lines(template, _templates(template, telluric), new_lines)
    priors = checked_priors(prior, len(tellurics), jitter)
    earth = motion(orders, barycentric_velocity, tellurics)
    if earth.is_removed:  # on the ground the tellurics are at rest
        orders = orders.stretched(1.0 / relativistic_factor(earth.velocity))
        velocity = None if velocity is None else added_velocities(velocity, -earth.velocity)
    settings = (template, tellurics, lsf, _unit_interval(limb_darkening), continuum_degree,
                _degree("wavelength_degree", wavelength_degree), _degree("veiling", veiling), continuum)  # fmt: skip
    if veiling is not None and template is None:
        raise ValueError(explain("veiling", "be None without a template", repr(veiling), "give the star a template"))
    if continuum not in CONTINUA:
        raise ValueError(explain("continuum", f"be one of {CONTINUA}", repr(continuum), '"polynomial" is the default'))
    on_missing = _on_missing(on_missing, orders)
    fewest = fewest_pixels(lsf, wavelength_degree, continuum_degree, continuum)
    part = covered(orders, template, tellurics, velocity or 0.0, on_missing, fewest, trim=on_missing == "raise")
    setup = Setup.build(part, *settings)
    velocity, rotation = velocity_and_rotation(setup, velocity, rotation)
    if on_missing == "raise":
        setup.check_coverage(velocity)
    else:
        setup = Setup.build(covered(orders, template, tellurics, velocity, on_missing, fewest), *settings)
    problem = setup.problem(velocity, rotation, free, priors)
    show = reporter(progress)
    steps = {"max_iterations": MAX_ITERATIONS, "rtol": CONVERGED_SHARE, "atol": CONVERGED_CHI2,
             "callback": lambda i, cost: show(f"fit: step {i}, chi2 {2 * cost:.6g}")}  # fmt: skip
    setup.noisy = setup.pixels_with_jitter(velocity, everywhere=jitter)
    kind = setup.kind if isinstance(prior, str) and problem.penalty is not None else None
    warn_of_double_use(setup, problem)
    problem, solution, share = solved(problem, robust, setup.noisy, kind, **steps)
    setup.smoothness = problem.smoothness
    show("")
    if on_missing == "raise":
        setup.check_coverage(problem.globals(solution.theta).velocity)
    weighted = replace(setup, scene=problem.scene)
    if solution.status != CONVERGED:
        warnings.warn(f"fit_spectrum did not converge ({solution.message}); start it from a better radial_velocity or "
                      "vsini, free fewer line parameters or tighten the prior", BlaseWarning, stacklevel=2)  # fmt: skip
    elif text := doubt(weighted, _misread(weighted), problem, solution, free, priors,
                       is_searched=radial_velocity is None and vsini is None,
                       shift=earth.velocity if earth.is_removed else 0.0):  # fmt: skip
        warnings.warn(f"fit_spectrum converged, but {text}", BlaseWarning, stacklevel=2)
    theta = posterior_mean(problem, solution.theta) if priors[0].quadratic else solution.theta
    result = Result(setup, problem, solution, theta, template, tellurics, arguments, earth)
    fit = SpectrumFit(lsf=lsf, **result.pieces())
    warn_of_errors(fit)
    fit.fit_info.update({} if kind is None else {"prior": prior_widths(problem)})
    fit.fit_info.update({} if share is None else {"down_weighted": setup.down_weighted(share)})
    fit.fit_info.update(estimate="mode" if np.array_equal(theta, solution.theta) else "mean", device=str(device),
                        wall_time=time.perf_counter() - started)  # fmt: skip
    return fit


def _misread(setup):
    """What `doubt` wants to know: setups with the tellurics where other media put them, and what to do if so."""
    medium = {"vacuum": "air", "air": "vacuum"}[setup.medium]
    kinds = [(setup.medium, f"with the tellurics where they are if the wavelengths of the spectrum are in {medium}; "
              f'give wavelength_medium="{medium}" if so')]  # fmt: skip
    if setup.medium == "vacuum":  # else both move them the same way
        kinds.append(("air", "with the tellurics where they are if those of the template are in air; "
                      'clone it with wavelength_medium="air" if so'))  # fmt: skip
    out = []
    for taken_for, remedy in kinds if setup.tellurics else []:
        tellurics = []
        for template in setup.tellurics:
            model = template.model.copy()
            model.x_0 = misread_wavelengths(model.x_0.quantity.to_value(u.AA), taken_for) * u.AA
            tellurics.append(replace(template, model=model))
        out.append((replace(setup, tellurics=tellurics), remedy))
    return out


def _free(free):
    """{"star": rows, "telluric": rows} of the solver's layout."""
    given = dict(free) if hasattr(free, "keys") else {"star": free, "telluric": free}
    if not set(given) <= {"star", "telluric"}:
        raise ValueError(explain("free", 'have the keys "star" and "telluric"', list(given), "drop the others"))
    return {key: free_rows(given.get(key, ())) for key in ("star", "telluric")}


def _lsfs(lsf, orders):
    """The line spread function of all orders, or a list with that of each."""
    if orders.is_single or not isinstance(lsf, list | tuple):
        return as_lsf(lsf)
    if len(lsf) != len(orders):
        raise ValueError(explain("lsf", f"hold one for each of the {len(orders)} orders", len(lsf),
                                 "give them in the same sequence, or one for all"))  # fmt: skip
    each = [as_lsf(item, f"lsf[{k}]") for k, item in enumerate(lsf)]
    settings = ("free", "degree", "per_order", "free_shape")
    kinds = {(type(item) in (BandedLSF, MeasuredLSF) and type(item), item is None,
              (item.h3, item.h4) if getattr(item, "free_shape", False) else 0,  # a fit starts from one shape
              *(getattr(item, name, 0) for name in settings)) for item in each}  # fmt: skip
    if len(kinds) > 1:
        raise ValueError(explain("lsf", "be of one kind in all orders, and free in all or in none", "several",
                                 "give resolving powers, measured profiles or matrices throughout, and the h3 and h4 "
                                 "that a free_shape starts from once"))  # fmt: skip
    return each


def _start(radial_velocity, vsini):
    """Velocity and rotation where a fit starts [km/s], None for what is searched."""
    speed = u.km / u.s
    velocity = quantity_value(radial_velocity, speed, "radial_velocity", allow_none=True)
    if velocity is not None and abs(velocity) >= SPEED_OF_LIGHT:
        raise ValueError(explain("radial_velocity", "be slower than light", radial_velocity, "check its unit"))
    rotation = quantity_value(vsini, speed, "vsini", positive=True, allow_none=True)
    if rotation is not None and rotation > LARGEST_VSINI:
        raise ValueError(explain("vsini", f"be at most {LARGEST_VSINI:g} km / s", vsini, "check its unit"))
    return velocity, rotation


def _check_flags(**flags):
    for name, value in flags.items():
        if not isinstance(value, bool | np.bool_):
            raise TypeError(explain(name, "be True or False", repr(value), "False is the default"))


def _degree(name, value):
    if value is None or (isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError(explain(name, "be None or a whole number, not negative", repr(value), "0 is a constant"))


def _on_missing(value, orders):
    if value not in (None, "skip", "raise", "telluric"):
        raise ValueError(explain("on_missing", 'be "skip", "raise", "telluric" or None', repr(value),
                                 "None raises for one spectrum and skips among several"))  # fmt: skip
    return value or ("raise" if orders.is_single else "skip")


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
