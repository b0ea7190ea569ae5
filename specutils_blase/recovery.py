"""injection_recovery: are the values and the errors of a fit right?  Spectra whose truth is known are fitted again."""

import warnings

import numpy as np
from astropy import units as u
from astropy.table import QTable
from scipy.special import ndtr, ndtri
from specutils import Spectrum, SpectrumList

from specutils_blase.errors import BlaseWarning, CoverageError, check_whole, explain
from specutils_blase.fitting import SpectrumFit, fit_spectrum
from specutils_blase.flags import AT_BOUND, BLENDED, OUTSIDE_WINDOW, PRIOR_DOMINATED
from specutils_blase.functional.constants import FWHM_PER_SIGMA, SPEED_OF_LIGHT
from specutils_blase.progress import reporter
from specutils_blase.results import with_columns
from specutils_blase.solvers.levenberg_marquardt import CONVERGED
from specutils_blase.solvers.lines import CENTER, GAMMA, SIGMA, STRENGTH
from specutils_blase.template import new_rows

__all__ = ["injection_recovery"]

# How the parameters of lines are called: column of the line table, name of what is compared, its unit.
LINES = {STRENGTH: ("strength", "ln strength", ""), SIGMA: ("fwhm_gauss", "ln fwhm_gauss", ""),
         GAMMA: ("fwhm_lorentz", "ln fwhm_lorentz", ""), CENTER: ("line_center", "x_0", "km / s")}  # fmt: skip
GROUPS = ("unblended", "blended", "held by the prior")
COLUMNS = {
    "name": "of the parameter, or of a group of line parameters",
    "unit": "of injected, bias and bias_err",
    "number": "of pulls",
    "injected": "mean of the true values",
    "bias": "mean of recovered minus true",
    "bias_err": "standard error of bias",
    "pull": "mean of (recovered minus true) / standard deviation of the fit",
    "pull_err": "standard error of pull",
    "width": "standard deviation of the pulls: 1 if the errors are right",
    "width_err": "standard error of width",
}


def injection_recovery(fit, n=20, *, draw_lines=True, seed=0, progress=None, **changes):
    r"""
    Measure the bias and the honesty of the errors of a fit: inject its model, with noise, and recover it.

    The fitted model is the truth.  Noise is drawn from the uncertainties that the fit used (with the jitter that it
    found; of a spectrum without uncertainties from the scatter of its residual) in the very pixels that were used,
    and the spectrum is fitted as the first one was, with the same templates, masks, starts and settings.

    The errors of a fit are those of a posterior.  Of lines that the data hardly know they are the width of the prior,
    and "right" has a meaning only for truths that scatter as the prior says (Cook, Gelman & Rubin 2006, J. Comput.
    Graph. Stat. 15, 675): for fixed lines the values would be pulled towards the templates by the same amount in
    every draw.  Every draw therefore has its own lines, drawn from the prior about the templates; those that
    were added (``new``) and parameters without a prior keep the values of the fit.  Then mean pulls of 0 and widths of
    1 are expected for every group of lines, also for one that is chosen by what came out.  ``draw_lines=False`` asks
    something else, how far *this* star would come out wrong: it keeps the fitted lines, pulls of lines that the prior
    holds mean little, and biases include what the prior does.

    The pixels are computed with the forward model of the fit, so that what the model itself lacks (lines, a line
    spread function of another shape, cosmic rays) is not tested, unless ``changes`` bring it in.

    Parameters
    ----------
    fit : SpectrumFit or dict
        What `fit_spectrum` returned, of one spectrum or several orders; or arguments for it, ``observed`` and
        ``template`` among them, with which the spectrum is fitted first. A fit that was read from a file knows its
        ``lsf`` and templates, but not how it was made: give the arguments.
    n : int
        Number of draws, 2 or more; the standard error of a mean pull is :math:`1/\sqrt{n}`.
    draw_lines : bool
        Whether the lines of every draw are drawn from the prior; see above.
    seed : int
        Of the draws: more draws begin with the same ones.
    progress : bool or callable, optional
        As in `fit_spectrum`.
    **changes
        Arguments of `fit_spectrum` in which the fits differ from the first one, to see what a wrong assumption does:
        ``lsf=50_000`` for data of 55,000, another prior, ``continuum_degree``.

    Returns
    -------
    QTable
        A row for each free parameter: ``name``, ``unit``, ``number`` of pulls, mean ``injected`` value, ``bias`` (mean
        of recovered minus injected, in ``unit``), the mean ``pull`` (bias in standard deviations of the fit), the
        ``width`` of the pulls, and the standard errors ``bias_err``, ``pull_err``, ``width_err``; draws, not pulls,
        are taken as independent.  What every order has for itself is one row for all orders.  Parameters of lines are
        rows for star and telluric: "unblended" and "blended", which the data have measured, and "held by the
        prior"; ln strength and ln fwhm, centres in km/s from the template.  Lines at a limit or outside the pixels
        are left out.  ``meta`` has ``pulls`` (name -> array, for `plotting.plot_pulls`), ``n`` (draws done),
        ``not_converged`` (share of the fits, which are left out), ``draw_lines`` and ``seed``.  An interruption
        leaves the table of the draws that are done.

    Raises
    ------
    ValueError
        If the fit was read from a file or is one of several orders, which does not know how it was made.

    Examples
    --------
    >>> from astropy import units as u
    >>> from specutils_blase import clone_spectrum, fit_spectrum, injection_recovery
    >>> from specutils_blase.simulation import simulate_order, simulate_star
    >>> star = simulate_star(1, n_lines=60, lower=10500 * u.AA, upper=10512 * u.AA)
    >>> template = clone_spectrum(star.spectrum, continuum_degree=2)
    >>> order = simulate_order(star.model, seed=2, n_pix=150, lower=10502 * u.AA, upper=10510 * u.AA, bad_pixels=0)
    >>> fit = fit_spectrum(order.spectrum, template, vsini=5 * u.km / u.s)
    >>> table = injection_recovery(fit, n=3)
    >>> print(table["name", "number"][:2])
          name      number
    --------------- ------
    radial_velocity      3
              vsini      3
    """
    fit = fit_spectrum(**fit) if isinstance(fit, dict) else fit
    origin = _checked(fit, n, draw_lines, seed, changes)
    show, done, n_failed = reporter(progress), [], 0
    try:
        for k in range(n):
            show(f"injection_recovery: draw {k + 1} of {n}")
            pulls = _draw(fit, origin, np.random.default_rng([seed, k]), draw_lines, changes)
            n_failed += pulls is None
            done.append(pulls)
    except KeyboardInterrupt:
        if len(done) - n_failed < 2:
            raise
        warnings.warn(f"injection_recovery was interrupted: the table is of {len(done)} draws instead of {n}",
                      BlaseWarning, stacklevel=2)  # fmt: skip
    finally:
        show("")
    if len(done) - n_failed < 2:
        raise ValueError(explain("fit", "be one that converges again", f"{n_failed} of {len(done)} draws that did not",
                                 "give it better starts, or draw_lines=False"))  # fmt: skip
    table = _summary([draw for draw in done if draw is not None])
    table.meta.update(n=len(done), not_converged=n_failed / len(done), draw_lines=bool(draw_lines), seed=int(seed))
    return table


def _checked(fit, n, draw_lines, seed, changes):
    """The `Origin` of the fit, or an error."""
    if not isinstance(fit, SpectrumFit):
        raise TypeError(explain("fit", "be a SpectrumFit, or a dict of arguments of fit_spectrum", type(fit).__name__,
                                "fit the spectrum first"))  # fmt: skip
    if fit.origin is None:
        raise ValueError(explain("fit", "be what fit_spectrum returned", "one of a file or of a part of the orders",
                                 "give the arguments of fit_spectrum as a dict"))  # fmt: skip
    for name, value, least in (("n", n, 2), ("seed", seed, 0)):
        check_whole(name, value, least, f"write {name}={least} or more")
    if not isinstance(draw_lines, bool | np.bool_):
        raise TypeError(explain("draw_lines", "be True or False", repr(draw_lines), "True is the default"))
    known = set(fit.origin.arguments) - {"observed", "progress"}
    if unknown := sorted(set(changes) - known):
        raise TypeError(explain("changes", "be arguments of fit_spectrum", unknown[0], f"choose among {sorted(known)}"))
    return fit.origin


def _draw(fit, origin, rng, draw_lines, changes):
    """{name: (unit, true, recovered, std)} of one spectrum, arrays; None if its fit did not converge."""
    theta = _true_theta(origin, rng) if draw_lines else origin.theta
    spectrum = _with_flux(fit.observed, _noisy(fit, origin, theta, rng), origin.setup.medium)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BlaseWarning)  # that of the first fit was heard
        try:
            again = fit_spectrum(**{**origin.arguments, **changes, "observed": spectrum, "progress": False})
        except CoverageError:  # the velocity went astray
            return None
    if again.fit_info["status"] != CONVERGED:
        return None
    return {**_of_parameters(fit.parameters, again.parameters), **_of_lines(origin, theta, again)}


def _true_theta(origin, rng):
    """theta with lines drawn from the prior."""
    problem, setup, layout = origin.problem, origin.setup, origin.problem.layout
    local, glob = problem.split(origin.theta)
    if not local.size:
        return origin.theta
    penalty = problem.penalty
    added = new_rows([setup.template, *setup.tellurics], problem.scene.species, setup.rows)
    drawn = ~problem.held & (penalty.precision > 0.0) & ~added[:, None]
    scale = np.divide(1.0, penalty.precision, out=np.zeros(local.shape), where=drawn)
    if hasattr(penalty, "tail"):
        step = np.sqrt(scale) * _with_tail(rng, np.broadcast_to(penalty.tail, local.shape))
    else:
        step = scale * rng.laplace(size=local.shape)
    free = list(layout.free)
    true = np.clip(penalty.mean + step, layout.lower[..., free], layout.upper[..., free])
    return np.concatenate([np.where(drawn, true, local).ravel(), glob])


def _with_tail(rng, tail):
    """Numbers that are standard normal within +-tail and fall exponentially beyond, as Huber's least favourable."""
    core = np.sqrt(2.0 * np.pi) * (1.0 - 2.0 * ndtr(-tail))
    beyond = np.where(np.isfinite(tail), 2.0 * np.exp(-0.5 * tail**2) / tail, 0.0)
    far = rng.random(tail.shape) < beyond / (core + beyond)
    near = ndtri(rng.uniform(ndtr(-tail), ndtr(tail)))
    length = np.where(np.isfinite(tail), tail, 0.0) + rng.exponential(size=tail.shape) / tail
    return np.where(far, np.where(rng.random(tail.shape) < 0.5, -length, length), near)


def _noisy(fit, origin, theta, rng):
    """Model and noise on the user's pixels, NaN where no pixel was used."""
    problem, setup = origin.problem, origin.setup
    state, weight = problem.evaluate(theta), setup.weight
    variance = np.divide(1.0, weight**2, out=np.full(weight.shape, np.nan), where=weight > 0)
    if not setup.has_sigma:
        variance = variance * fit.fit_info["chi2"] / max(fit.fit_info["dof"], 1.0)
    if problem.jitter is not None:
        extra = np.nan_to_num(problem.jitter)[setup.scene.part] * state.continuum
        variance = variance + np.where(setup.noisy, extra**2, 0.0)
    values = state.pixels * state.continuum + np.sqrt(variance) * rng.standard_normal(weight.size)
    return setup.orders.collect(setup.spread(values * setup.scale[setup.scene.part]))


def _with_flux(observed, drawn, medium):
    """The observed spectra, of the same kind, with the drawn flux where it is not NaN."""
    if isinstance(observed, list | tuple):
        return SpectrumList([_with_flux(*pair, medium) for pair in zip(observed, drawn, strict=True)])
    flux = np.where(np.isfinite(drawn.flux.value), drawn.flux.value, observed.flux.to_value(drawn.flux.unit))
    kind = Spectrum if isinstance(observed, Spectrum) else type(observed)
    # the axis itself, because copies of it lose the bin edges it was given
    return kind(flux=flux * drawn.flux.unit, spectral_axis=observed.spectral_axis, uncertainty=observed.uncertainty,
                mask=observed.mask, meta={**(observed.meta or {}), "wavelength_medium": medium})  # fmt: skip


def _of_parameters(first, again):
    """What became of the global parameters, and of those that every order has."""
    true, out = dict(zip(first["name"], first["value"], strict=True)), {}
    for name, value, std, unit, fixed in again.iterrows("name", "value", "std", "unit", "fixed"):
        if fixed or name not in true or not std > 0.0:
            continue
        kind = f"{name.split('_', 2)[2]} of the orders" if name.startswith("order_") else name
        values = out.setdefault(kind, (unit, [], [], []))
        for place, number in enumerate((true[name], value, std), 1):
            values[place].append(number)
    return {kind: (unit, *map(np.array, rest)) for kind, (unit, *rest) in out.items()}


def _of_lines(origin, theta, again):
    """What became of the free parameters of the lines, by how they are known."""
    first, problem, rows = origin.problem, again.origin.problem, again.line_covariance.rows
    if not problem.shape[0]:
        return {}
    known = {key: row for row, key in enumerate(_keys(first))}
    place = np.array([known.get(key, -1) for key in _keys(problem)])[rows]  # of every row of the new table
    true = with_columns(first.lines(theta), first, theta).take(place)
    start, flags = first.layout.start.take(place), np.asarray(again.lines["flags"])
    usable = (place >= 0) & ((flags & (AT_BOUND | OUTSIDE_WINDOW)) == 0)
    curvature = problem.penalty.curvature(problem.split(again.origin.theta)[0])[rows]
    component, out = np.asarray(again.lines["component"]), {}
    for column, parameter in enumerate(problem.layout.free):
        name, shown, unit = LINES[parameter]
        value, std = (again.lines[part].to_value(u.AA) for part in (name, f"{name}_err"))
        if parameter == CENTER:
            held = curvature[:, column] * (std / start.width) ** 2
            speed = SPEED_OF_LIGHT / start.center
            values = [speed * (true.center - start.center), speed * (value - start.center), speed * std]
        else:
            std = std / np.abs(value)
            held = curvature[:, column] * std**2
            of_truth = {STRENGTH: true.strength, SIGMA: FWHM_PER_SIGMA * true.sigma, GAMMA: 2.0 * true.gamma}[parameter]
            values = [np.log(np.abs(of_truth)), np.log(np.abs(value)), std]
        # the flag is about strengths, those of tellurics with their column
        held = (flags & PRIOR_DOMINATED) > 0 if parameter == STRENGTH else held > 0.5
        group = np.where(held, 2, np.where((flags & BLENDED) > 0, 1, 0))
        free = usable & ~problem.held[rows, column] & (std > 0.0) & np.isfinite(std)
        for kind in ("star", "telluric"):
            for k, text in enumerate(GROUPS):
                chosen = free & (component == kind) & (group == k)
                out[f"{kind} {shown}, {text}"] = unit, *(row[chosen] for row in values)
    return out


def _keys(problem):
    """(species, wavelength in the template) of the lines of a problem."""
    return list(zip(problem.scene.species.tolist(), problem.layout.start.center.tolist(), strict=True))


def _summary(draws):
    """The table of all draws."""
    rows, pulls = [], {}
    names = dict.fromkeys(name for draw in draws for name in draw)
    for name in names:
        found = [draw[name] for draw in draws if name in draw]
        number = [len(values[1]) for values in found]
        true, value, std = (np.concatenate([values[k] for values in found]) for k in (1, 2, 3))
        draw, pull = np.repeat(np.arange(len(found)), number), (value - true) / std
        if not pull.size:
            continue
        width = float(np.std(pull, ddof=1)) if len(pull) > 1 else np.nan
        rows.append((name, found[0][0], len(pull), true.mean(), (value - true).mean(), _error(value - true, draw),
                     pull.mean(), _error(pull, draw), width, _width_error(pull, draw, width)))  # fmt: skip
        pulls[name] = pull
    table = QTable(rows=rows, names=tuple(COLUMNS), meta={"pulls": pulls})
    for name, description in COLUMNS.items():
        table[name].info.description = description
        if name not in ("name", "unit", "number"):
            table[name].info.format = {"injected": ".6g", "bias": ".3g", "bias_err": ".2g"}.get(name, ".3f")
    return table


def _error(values, draw):
    """Standard error of the mean of values whose draws are independent (Liang & Zeger 1986, Biometrika 73, 13)."""
    sums, n = np.bincount(draw, values - values.mean()), np.unique(draw).size
    return float(np.sqrt(np.sum(sums**2) * n / (n - 1)) / values.size) if n > 1 else np.nan


def _width_error(pulls, draw, width):
    """Standard error of a standard deviation: that of independent normal pulls, or what the draws say if it is more."""
    if not width > 0.0:
        return np.nan
    return max(width / np.sqrt(2.0 * (pulls.size - 1)), _error((pulls - pulls.mean()) ** 2, draw) / (2.0 * width))
