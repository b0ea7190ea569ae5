"""SparseLineFitter: the fitter of a ``VoigtForest1D``, for `specutils.fitting.fit_lines` and for direct calls.

astropy loads this module through an entry point at the end of importing `astropy.modeling.fitting`: it imports that
module and numpy only, and everything else inside the call.
"""

import functools
import warnings

import numpy as np
from astropy.modeling.fitting import Fitter, NonFiniteValueError, UnsupportedConstraintError, fitter_unit_support

__all__ = ["SparseLineFitter"]

# parameter of the model -> rows of the solver's layout
_ROWS = {"strength": (0,), "fwhm_G": (1,), "fwhm_L": (2,), "x_0": (3,)}
# Among fewer pixels than these half may be alike by chance.
MOST_ALIKE = 10
# Standard deviations of the weakest prior that keeps what the data do not know where it started.
_WEAK = np.array([2.0, 1.0, 1.0, 1.0])


def _checked(fit):
    """The model is looked at before astropy takes the units off it, which not every compound model lets it do."""

    @functools.wraps(fit)
    def wrapper(self, model, *args, **kwargs):
        _check(model)
        return fit(self, model, *args, **kwargs)

    return wrapper


class SparseLineFitter(Fitter):
    """
    Levenberg-Marquardt fit of all lines of a ``VoigtForest1D`` at once, in time proportional to their number.

    After a fit every free parameter has its ``std``, and ``fit_info`` holds ``status``, ``message``, ``chi2``,
    ``dof`` (pixels less the parameters that the data, not the prior, determine), ``n_pixels``, ``n_iterations``,
    ``n_lines`` and ``start_scatter``.  Strengths and widths are fitted as logarithms: they keep their sign.

    What the data do not know stays where it started, held by a Gaussian prior.  For a few lines it is so weak that
    this is least squares: standard deviations of 2 in ln strength, 1 in ln of the widths, half the sum of the widths
    for the centre.  Where ten lines and more can tell, it is twice as wide as their starting values are found to
    scatter about the truth, and at least 0.3; errors are root mean square errors, of noise and of what is left of the
    errors of the starts (Hoerl & Kennard 1970, Technometrics 12, 55, equation 4.3).  ``start_scatter`` has these
    standard deviations, of logarithms and of the centre in units of half the sum of the widths, for the parameters of
    which they were learned.  Starting values that were found from the same data, as by a first fit, are recognised
    where they have hardly moved; then, as with few lines, errors are those of the prior and the data.

    Parameters
    ----------
    calc_uncertainties : True
        As fitters of astropy have it; here errors are always computed.

    Examples
    --------
    >>> import numpy as np, astropy.units as u
    >>> from specutils import Spectrum
    >>> from specutils.fitting import fit_lines
    >>> from specutils_blase import SparseLineFitter, VoigtForest1D
    >>> truth = VoigtForest1D(x_0=[5000, 5001] * u.AA, strength=[0.05, 0.02] * u.AA,
    ...                       fwhm_G=[0.1, 0.1] * u.AA, fwhm_L=[0.03, 0.03] * u.AA)
    >>> wave = np.linspace(4998, 5003, 501) * u.AA
    >>> guess = truth.copy()
    >>> guess.strength = [0.04, 0.03] * u.AA
    >>> fitted = fit_lines(Spectrum(flux=truth(wave), spectral_axis=wave), guess, fitter=SparseLineFitter())
    >>> fitted.strength.quantity.round(5)  # doctest: +FLOAT_CMP
    <Quantity [0.05, 0.02] Angstrom>
    """

    supported_constraints = ["fixed", "bounds"]

    def __init__(self, calc_uncertainties=True):
        if not calc_uncertainties:
            raise ValueError("calc_uncertainties must be True, got False; errors come with the fit at no cost")
        self.fit_info = {}

    @_checked
    @fitter_unit_support
    def __call__(self, model, x, y, z=None, weights=None, *, free_lines=None, maxiter=100, acc=1e-5,
                 filter_non_finite=True, inplace=False):  # fmt: skip
        """
        Fit a `~specutils_blase.modeling.VoigtForest1D` to data.

        Parameters
        ----------
        model : VoigtForest1D
            Starting values; ``fixed`` and ``bounds`` of its parameters are respected.
        x, y : array-like or `~astropy.units.Quantity`, shape (n_pix,)
        z : None
            Not used: the model has one input.
        weights : array-like, shape (n_pix,), optional
            1/sigma; pixels with weight 0 are ignored.  Without weights the errors are scaled by the residual.
        free_lines : array-like of bool, shape (n_lines,), optional
            Lines that are fitted, in the order of the model; the others stay as they are, with ``std`` zero.
        maxiter : int
            Of one round; where the prior has to become wider another one follows, four at most.
        acc : float
            The fit has converged when the sum of squares falls by less than this fraction.
        filter_non_finite : bool
            Ignore pixels where ``x``, ``y`` or ``weights`` are not finite, without a warning; False: they are a
            `~astropy.modeling.fitting.NonFiniteValueError`.
        inplace : bool
            Change ``model`` itself instead of a copy.

        Returns
        -------
        VoigtForest1D
        """
        from specutils_blase.errors import BlaseWarning
        from specutils_blase.solvers.levenberg_marquardt import CONVERGED
        from specutils_blase.solvers.starts import expected_error, fit_from_starts

        if z is not None:
            raise ValueError("z must be None: the model has one input")
        _check_start(model)
        model = model if inplace else model.copy()
        lines = _free_lines(free_lines, model.n_lines)
        data, level = _scaled(*_data(x, y, weights, filter_non_finite), weights is not None)
        problem, order, unit = _problem(model, lines, *data, level, weights is not None)
        started = fit_from_starts(problem, _WEAK[list(problem.layout.free)], unit=unit, max_iterations=maxiter,
                                  rtol=acc, atol=_floor(problem, weights))  # fmt: skip
        solution = started.solution
        residual, n_pixels = problem.evaluate(solution.theta)[3], int(np.count_nonzero(problem.weight))
        matrix, factor, error, n_parameters = expected_error(problem, solution.theta, started, unit)
        self.fit_info = {
            "status": solution.status, "message": solution.message,
            "chi2": float(residual @ residual) * (1.0 if weights is not None else float(level) ** 2),
            "dof": float(n_pixels - n_parameters), "n_pixels": n_pixels, "n_iterations": solution.n_iterations,
            "n_lines": model.n_lines, "start_scatter": _scatter(problem, started),
        }  # fmt: skip
        if solution.status != CONVERGED:
            warnings.warn(f"SparseLineFitter did not converge: {solution.message}; raise maxiter or start closer",
                          BlaseWarning, stacklevel=2)  # fmt: skip
        scale = 1.0 if weights is not None else float(residual @ residual) / max(self.fit_info["dof"], 1.0)
        _store(model, problem, solution.theta, order, scale, level, (matrix, factor, error))
        return model


def _floor(problem, weights):
    """Changes of the sum of squares that mean nothing: of a noise level, or without weights of rounding."""
    return 1e-3 if weights is not None else 1e-14 * float(problem.data @ problem.data)


def _check(model):
    from specutils_blase.modeling import VoigtForest1D

    if not isinstance(model, VoigtForest1D):
        raise TypeError(f"model must be a VoigtForest1D, got {type(model).__name__}; the fitters of astropy fit others")
    tied = [name for name, tie in model.tied.items() if tie]
    if tied:
        raise UnsupportedConstraintError(f"SparseLineFitter cannot tie parameters, got tied {tied}; remove the ties")


def _check_start(model):
    """Values must be numbers, and those that are fitted as logarithms have one."""
    from specutils_blase.errors import explain

    expected = {"x_0": "be finite", "strength": "be finite and not 0", "fwhm_G": "be finite and positive",
                "fwhm_L": "be finite and positive", "continuum": "be finite"}  # fmt: skip
    for name, kind in expected.items():
        value = np.ravel(getattr(model, name).value)
        good = np.isfinite(value) & (value != 0 if "not 0" in kind else value > 0 if "positive" in kind else True)
        if not good.all():
            got = f"{np.count_nonzero(~good)} of {value.size} that are not, the first {value[~good][0]:g}"
            raise ValueError(explain(name, f"{kind} at the start", got, "give them a value, which may be small and "
                                     "grows, or leave these lines out; the sign of a strength is kept"))  # fmt: skip


def _free_lines(free_lines, n_lines):
    if free_lines is None:
        return np.ones(n_lines, dtype=bool)
    free = np.asarray(free_lines)
    if free.dtype != bool or free.shape != (n_lines,):
        raise ValueError(f"free_lines must be an array of {n_lines} bool, one for each line of the model, got "
                         f"{free.dtype} of shape {free.shape}; write e.g. model.strength.value > 0.01")  # fmt: skip
    return free


def _data(x, y, weights, filter_non_finite):
    """Sorted coordinates, data and weights as float64, of the pixels that are finite and have a weight."""
    x, y = (np.ravel(np.asarray(a, dtype=float)) for a in (x, y))
    weights = np.ones_like(y) if weights is None else np.array(weights, dtype=float).ravel()
    if not x.shape == y.shape == weights.shape:
        raise ValueError(f"x, y and weights must have one shape, got {x.shape}, {y.shape}, {weights.shape}")
    finite = np.isfinite(x) & np.isfinite(y) & np.isfinite(weights)
    if not (filter_non_finite or finite.all()):
        raise NonFiniteValueError(f"x, y and weights must be finite, got {np.count_nonzero(~finite)} of {x.size} "
                                  "pixels that are not; filter_non_finite=True ignores them")  # fmt: skip
    keep = finite & (weights > 0)
    if not keep.any():
        raise ValueError("x, y and weights must hold at least one finite pixel with a weight, got none")
    x, y, weights = x[keep], y[keep], weights[keep]
    order = np.argsort(x, kind="stable")
    x, y, weights = x[order], y[order], weights[order]
    # Half of all at one place is what indices make of them; exposures of one pixel each would differ in y.
    middle = x.size // 2
    same = np.count_nonzero((x == x[middle]) & (y == y[middle]) & (weights == weights[middle]))
    if 2 * same >= x.size >= MOST_ALIKE:
        raise ValueError(f"x must hold different pixels, got one of them {same} times among {x.size}; make the mask of "
                         "the spectrum bool: fit_lines takes ~mask of integers for indices")  # fmt: skip
    return x, y, weights


def _scaled(x, y, weights, has_weights):
    """Data of order one, as the solver wants them whatever the unit of the flux, and what they were divided by."""
    size = np.abs(y[y != 0])
    # a power of two, which changes no digit
    level = 2.0 ** np.round(np.log2(np.median(size))) if size.size else 1.0
    return (x, y / level, weights * (level if has_weights else 1.0)), level


def _problem(model, free_lines, x, y, weights, level, has_weights):
    """The least-squares problem of a model without units, which of its lines that has, and the noise's variance."""
    from specutils_blase.forest_tables import forest_lines
    from specutils_blase.preparation import noise_level
    from specutils_blase.solvers.lines import COUPLED, LineLayout, SampledLines

    every = forest_lines(model)
    order = np.argsort(every.center, kind="stable")
    order = order[free_lines[order]]
    lines = every.take(order)
    free = tuple(row for name, rows in _ROWS.items() if not model.fixed[name] for row in rows) if len(lines) else ()
    layout = LineLayout(lines, tuple(sorted(free)), *_limits(model, lines, x[-1] - x[0]))
    continuum = model.continuum_basis(x)
    if not free_lines.all():
        values = (getattr(model, name).value[~free_lines] for name in ("x_0", "strength", "fwhm_G", "fwhm_L"))
        continuum = continuum * model.transmission(x, *values)[:, None]
    coefficients = np.ravel(model.continuum.value) / level
    fixed = bool(model.fixed["continuum"])
    # the matrix may be cut where lines are many: then it takes a few steps more, but to the same minimum
    problem = SampledLines(
        x, y, weights, continuum[:, :0] if fixed else continuum, layout, continuum=continuum @ coefficients,
        form=model.form, tolerance=model.tolerance, derivative_tolerance=float(np.clip(5e-7 * len(lines), 1e-6, 1e-4)),
        exact_gradient=True, neighbours=COUPLED,
        coefficients=None if fixed else coefficients,
    )  # fmt: skip
    # without weights the residuals are in units of the scaled data
    return problem, order, 1.0 if has_weights else noise_level(y) ** 2


def _limits(model, lines, span):
    """Bounds of the model as limits of the layout, (n_lines, 4) each; a line broader than the data is none."""
    from specutils_blase.functional.constants import FWHM_PER_SIGMA

    lower, upper = np.full((len(lines), 4), -50.0), np.full((len(lines), 4), 20.0)
    lower[:, 3], upper[:, 3] = -np.inf, np.inf
    for row, start, factor in ((1, lines.sigma, 1.0 / FWHM_PER_SIGMA), (2, lines.gamma, 0.5)):
        upper[:, row] = np.log(np.maximum(factor * max(span, 1e-300), 2.0 * start))
    for name, row, factor in (("strength", 0, 1.0), ("fwhm_G", 1, 1.0 / FWHM_PER_SIGMA), ("fwhm_L", 2, 0.5)):
        low, high = model.bounds[name]
        if name == "strength" and (low is not None and low < 0 or high is not None and high <= 0):
            raise ValueError("bounds of strength must be positive: they limit its absolute value")
        if low:
            lower[:, row] = np.log(low * factor)
        if high is not None:
            upper[:, row] = np.log(high * factor)
    low, high = model.bounds["x_0"]
    if low is not None:
        lower[:, 3] = (low - lines.center) / lines.width
    if high is not None:
        upper[:, 3] = (high - lines.center) / lines.width
    return lower, upper


def _scatter(problem, started):
    """What was learned of the starts, {name of the parameter: standard deviation}."""
    names = {row: name for name, rows in _ROWS.items() for row in rows}
    rows = problem.layout.free
    return {names[row]: float(started.scatter[k]) for k, row in enumerate(rows) if started.learned[k]}


def _store(model, problem, theta, order, scale, level, known):
    """Write values and standard deviations into the model, in its own order of lines and the unit of its data."""
    from specutils_blase.functional.constants import FWHM_PER_SIGMA
    from specutils_blase.solvers.covariance import LineCovariance, felt_lines

    lines, coefficients, (matrix, factor, error) = problem.lines(theta), problem.split(theta)[1], known
    options = {"layout": problem.layout, "matrix": matrix, "scale": np.sqrt(scale)}
    covariance = LineCovariance(factor, inverse=error, **options).blocks()
    std = np.sqrt(np.einsum("jaa->ja", covariance))
    std[~felt_lines(matrix, problem.layout)] = np.inf
    values = {
        "strength": (lines.strength, np.abs(lines.strength) * std[:, 0]),
        "fwhm_G": (lines.sigma * FWHM_PER_SIGMA, lines.sigma * FWHM_PER_SIGMA * std[:, 1]),
        "fwhm_L": (2.0 * lines.gamma, 2.0 * lines.gamma * std[:, 2]),
        "x_0": (lines.center, std[:, 3]),
    }  # fmt: skip
    for name, (fitted, its_error) in values.items():
        parameter = getattr(model, name)
        if not model.fixed[name]:
            everywhere, errors = np.array(parameter.value, dtype=float).ravel(), np.zeros(model.n_lines)
            everywhere[order], errors[order] = fitted, its_error
            parameter.value, parameter.std = everywhere, errors
    if coefficients.size:
        model.continuum.value = level * coefficients[:, None]
        model.continuum.std = level * np.sqrt(scale * np.diag(error.corner))[:, None]
    model.line_errors = _line_errors(model, problem, theta, order, covariance, LineCovariance(factor, **options))


def _line_errors(model, problem, theta, order, covariance, posterior):
    """What the fit knows of the lines besides; blends are those of the posterior, the prior included."""
    from specutils_blase.flags import AT_BOUND, BLENDED, OUTSIDE_WINDOW, PRIOR_DOMINATED
    from specutils_blase.forest_tables import LineErrors
    from specutils_blase.lines import blended_widths, has_data
    from specutils_blase.solvers.lines import STRENGTH

    n, lines, local = model.n_lines, problem.lines(theta), problem.split(theta)[0]
    every = LineErrors(np.zeros((n, 4, 4)), np.zeros(n, dtype=int), np.full(n, -1), np.zeros(n), np.zeros(n))
    flags = OUTSIDE_WINDOW * ~has_data(problem.wave, lines)
    if problem.shape[0]:
        blends = blended_widths(lines, posterior, model.form)
        every.blend[order], every.blend_width[order], every.blend_error[order] = blends
        flags = flags + BLENDED * (blends[0] >= 0) + AT_BOUND * problem.layout.at_bound(local)
        if STRENGTH in problem.layout.free:
            held = problem.penalty.curvature(local)[:, problem.layout.free.index(STRENGTH)]
            variance = posterior.blocks()[:, STRENGTH, STRENGTH] / posterior.scale**2
            flags = flags + PRIOR_DOMINATED * (held * variance > 0.5)
        every.covariance[order] = covariance
    every.flags[order] = flags
    return every
