"""Pictures of templates and fits; matplotlib is imported when the first one is drawn."""

import io
from pathlib import Path

import numpy as np
from astropy import constants
from astropy import units as u

from specutils_blase.drawing import (
    CONTINUUM,
    DATA,
    MODEL,
    NATIVE,
    OUTSIDE,
    SHADE,
    TELLURIC,
    axis_label,
    component,
    draw_airglow,
    draw_page,
    draw_pulls,
    draw_telluric,
    fit_title,
    label_flux,
    lit_continuum,
    mark_beyond,
    parameter,
)
from specutils_blase.errors import check_whole, explain
from specutils_blase.io.whole import written_whole
from specutils_blase.quality import autocorrelation, order_parts, order_table, scaled_residual, standard_deviation

__all__ = ["plot_airglow", "plot_autocorrelation", "plot_comparison", "plot_fit", "plot_pulls", "plot_template",
           "save_figure"]  # fmt: skip

DARKER = "0.74"
# Pixels of a fit, and widths of a line of a template, in a zoom.
ZOOM_PIXELS, ZOOM_WIDTHS = 220, 150
MAX_SAMPLES = 400_000
# A continuum is in the panel unless it rises above this many times the data.
FAR_UP = 2.0
# Lines whose centres are marked in a zoom are at least this deep.
MARKED_DEPTH = 0.01


def plot_template(template, ax=None):
    """
    Draw the flux of a template with its continuum.

    Parameters
    ----------
    template : LineTemplate
    ax : `matplotlib.axes.Axes`, optional
        Where to draw. None makes a figure, with a second panel that shows the richest part with its lines marked.

    Returns
    -------
    Axes
        The panel of the whole range.

    Examples
    --------
    >>> from astropy import units as u
    >>> from specutils_blase import clone_spectrum
    >>> from specutils_blase.plotting import plot_template
    >>> from specutils_blase.simulation import simulate_star
    >>> star = simulate_star(1, n_lines=60, lower=10500 * u.AA, upper=10512 * u.AA)
    >>> template = clone_spectrum(star.spectrum, continuum_degree=2)
    >>> ax = plot_template(template)
    >>> print(ax.get_title(loc="left"))
    22 lines, rms of the clone 0.0424 %, frame: rest

    In a panel of your own, which can be changed further:

    >>> from matplotlib import pyplot as plt
    >>> plt.close(ax.figure)
    >>> figure, own = plt.subplots()
    >>> plot_template(template, ax=own) is own
    True
    >>> lower, upper = own.set_xlim(10506, 10508)
    >>> plt.close(figure)
    """
    from matplotlib import pyplot as plt

    low, high = template.coverage.to_value(u.AA)
    _, _, gauss, lorentz = _line_parameters(template.model)
    width = float(np.median(np.hypot(gauss, lorentz)))
    wave = np.linspace(low, high, int(np.clip(6 * (high - low) / width, 2000, MAX_SAMPLES)))
    if ax is not None:
        _draw_template(ax, template, wave)
        return ax
    figure, (ax, zoom) = plt.subplots(2, 1, figsize=(11, 6.5), layout="constrained")
    _draw_template(ax, template, wave)
    ax.legend(**OUTSIDE, ncols=2)
    ax.set_title(_template_title(template), loc="left", fontsize="medium")
    first, last = _zoom_range(wave, template, min(ZOOM_WIDTHS * width, high - low))
    _draw_template(zoom, template, np.linspace(first, last, 4000))
    zoom.set_xlim(first, last)
    _leave_room_for_marks(zoom)
    _mark_lines(zoom, template.lines, 1.0, DATA)
    return ax


def plot_fit(fit, ax=None, order=None):
    """
    Draw a fit: the data with the model and its parts, and the residual.

    Of several orders there is a page, each order over its continuum with its number, wavelengths, rms and photon noise
    (in bold where the rms is more than 1.5 times that), and the residual below, in which pixels beyond the panel are
    marked at its edge.  It is empty where the continuum is below a tenth of its median: there is no light to compare
    with.  At its foot are the orders that were skipped.

    Parameters
    ----------
    fit : SpectrumFit
        Of one spectrum, or of several orders.
    ax : `matplotlib.axes.Axes`, optional
        Where to draw the data and the model of one spectrum or order, nothing else. None makes a figure with the
        residual and a zoom below, or the page.
    order : int, optional
        Which of several orders; None draws them all.

    Returns
    -------
    Axes, or ndarray of Axes, shape (3,) or (n_orders, 2)
        The array (data, residual, zoom) when ``ax`` is None; of several orders (flux, residual) of each that was
        fitted, by wavelength.

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

    Three panels, or data and model alone in a panel of your own:

    >>> from matplotlib import pyplot as plt
    >>> from specutils_blase.plotting import plot_fit
    >>> data, residual, zoom = plot_fit(fit)
    >>> print(data.get_legend_handles_labels()[1])
    ['data', 'continuum', 'model']
    >>> plt.close(data.figure)
    >>> figure, own = plt.subplots()
    >>> plot_fit(fit, ax=own) is own
    True
    >>> plt.close(figure)
    """
    from matplotlib import pyplot as plt

    if order is None and not _is_single(fit):
        if ax is not None:
            raise ValueError(explain("ax", "be None for a page of orders", "Axes", "choose one with order=number"))
        return draw_page(plt.figure(), fit)
    title, fit = _chosen(fit, order)
    if ax is not None:
        _draw_fit(ax, fit)
        ax.set_xlabel(axis_label(fit.observed))
        return ax
    figure, axes = plt.subplots(3, 1, figsize=(11, 8.5), layout="constrained", height_ratios=(3, 1.3, 3))
    top, middle, zoom = axes
    _draw_fit(top, fit)
    top.legend(**OUTSIDE, ncols=5)
    top.set_title(title, loc="left", fontsize="medium", pad=18)  # above the legend
    _draw_residual(middle, fit)
    middle.sharex(top)
    top.tick_params(labelbottom=False)
    _draw_zoom(zoom, fit)
    top.axvspan(*zoom.get_xlim(), color=NATIVE, alpha=0.12, lw=0, zorder=-3)
    for panel in (middle, zoom):
        panel.set_xlabel(axis_label(fit.observed))
    return axes


def plot_autocorrelation(fit, ax=None, order=None, lags=30):
    r"""
    Draw the autocorrelation of the residual, in units of its noise.

    White noise stays within the band of two standard deviations, :math:`2 / \sqrt{n}`; residuals of a model that is
    wrong are correlated over the pixels of a resolution element, those of a continuum that is wrong over many more.

    Parameters
    ----------
    fit : SpectrumFit
    ax : `matplotlib.axes.Axes`, optional
        Where to draw. None makes a figure.
    order : int, optional
        Which of several orders; None draws them all (thin) and their mean (thick).
    lags : int
        The largest lag in pixels.

    Returns
    -------
    Axes

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
    >>> from matplotlib import pyplot as plt
    >>> from specutils_blase.plotting import plot_autocorrelation
    >>> ax = plot_autocorrelation(fit, lags=15)
    >>> print(ax.get_xlabel(), ax.get_xlim()[1])
    Lag [pixels] 15.0
    >>> plt.close(ax.figure)
    """
    from matplotlib import pyplot as plt

    check_whole("lags", lags, 1, "30 is the default")
    parts = order_parts(fit) if order is None else [(order, fit.order(order))]
    found = [autocorrelation(values, lags, run) for values, run in (scaled_residual(part) for _, part in parts)
             if np.isfinite(values).any()]  # fmt: skip
    if not found:
        raise ValueError(explain("order", "be one that was fitted", f"{order}, which was skipped", "choose another"))
    if ax is None:
        ax = plt.subplots(figsize=(8, 4.5), layout="constrained")[1]
    curves, n_pairs = (np.array(pieces) for pieces in zip(*found, strict=True))
    lag = np.arange(lags + 1)
    with np.errstate(divide="ignore"):
        band = 2.0 / np.sqrt(np.median(n_pairs, axis=0))
    ax.fill_between(lag, -band, band, color=SHADE, lw=0.0, label="white noise, 2 $\\sigma$, one order")
    if len(curves) > 1:
        ax.plot(lag, curves.T, color=TELLURIC, lw=0.6, alpha=0.6)
        ax.lines[-1].set_label("each order")
        band /= np.sqrt(len(curves))
        ax.fill_between(lag, -band, band, color=DARKER, lw=0.0,
                        label=f"white noise, 2 $\\sigma$, mean of {len(curves)}")  # fmt: skip
    ax.plot(lag, np.nanmean(curves, axis=0), color=MODEL, lw=2.2, label="mean" if len(curves) > 1 else "residual")
    ax.axhline(0.0, color=DATA, lw=0.6)
    ax.set_xlim(0, lags)
    ax.set_xlabel("Lag [pixels]")
    ax.set_ylabel("Autocorrelation of residual / noise")
    ax.legend(frameon=False, fontsize="small")
    return ax


def _is_single(fit):
    return hasattr(fit.observed, "spectral_axis") and fit.observed.flux.ndim == 1


def _chosen(fit, order):
    """Title and fit of one spectrum, or of one of several orders."""
    if order is None:
        return fit_title(fit), fit
    part = fit.order(order)
    table = order_table(part)
    if not len(table):
        raise ValueError(explain("order", "be one that was fitted", f"{order}, which was skipped", "choose another"))
    table["order"] = [number for number, _ in order_parts(fit)][order]  # it may count from the end
    return fit_title(part, table[0]), part


def plot_airglow(fit, ax=None):
    """
    Draw the velocities of sky lines that are seen, with their errors, and the fit of every order.

    Parameters
    ----------
    fit : AirglowFit
    ax : `matplotlib.axes.Axes`, optional

    Returns
    -------
    Axes

    Examples
    --------
    >>> import numpy as np
    >>> from astropy import units as u
    >>> from astropy.table import QTable
    >>> from specutils import Spectrum
    >>> from specutils_blase import fit_airglow
    >>> wave = np.arange(10000.0, 10060.0, 0.05)
    >>> seen = np.array([10007.0, 10021.0, 10030.0, 10039.0, 10049.0, 10055.0])
    >>> flux = 0.1 + np.exp(-0.5 * ((wave[:, None] - seen) / 0.08) ** 2).sum(axis=1)
    >>> flux += 0.01 * np.random.default_rng(0).normal(size=wave.size)
    >>> sky = Spectrum(flux=flux * u.electron, spectral_axis=wave * u.AA)
    >>> listed = QTable({"line_center": seen / (1 + 0.5 / 299792.458) * u.AA})
    >>> fit = fit_airglow(sky, listed, lsf=53_000)
    >>> from matplotlib import pyplot as plt
    >>> from specutils_blase.plotting import plot_airglow
    >>> ax = plot_airglow(fit)
    >>> print(ax.get_xlabel())
    vacuum wavelength [Angstrom]
    >>> plt.close(ax.figure)
    """
    from matplotlib import pyplot as plt

    if ax is None:
        ax = plt.subplots(figsize=(11, 4.5), layout="constrained")[1]
    draw_airglow(ax, fit)
    return ax


def plot_comparison(first, second, ax=None, *, names=("first", "second"), window=2 * u.km / u.s):
    """
    Draw how the lines that two lists share compare.

    Lines are shared if they are nearest to each other and within the window.  Lines with ``flags`` in either list are
    light.

    Parameters
    ----------
    first, second : Table
        With ``line_center`` and ``equivalent_width`` and, if known, their ``_err``: two fits, or a fit and its clone.
    ax : `matplotlib.axes.Axes`, optional
        Where to draw the equivalent widths, nothing else. None makes a figure with all three panels.
    names : tuple of (str, str)
        For the axes.
    window : Quantity [speed]

    Returns
    -------
    Axes, or ndarray of Axes, shape (3,)
        The array when ``ax`` is None: equivalent widths of the second against those of the first; their differences in
        units of their errors with the unit Gaussian, in per cent of the mean where they are formal or not known;
        velocities of the second relative to the first against wavelength.

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

    The lines of the fit against those of the clone that it started from:

    >>> from matplotlib import pyplot as plt
    >>> from specutils_blase.plotting import plot_comparison
    >>> widths, differences, velocities = plot_comparison(template.lines, fit.lines, names=("clone", "fit"))
    >>> print(widths.figure.get_suptitle())
    22 lines in common, of 22 and 22
    >>> plt.close(widths.figure)
    """
    from matplotlib import pyplot as plt

    # matching lines takes modules that load torch, which templates do not need
    from specutils_blase.comparison import common_widths, draw_differences, draw_velocities, draw_widths

    common = common_widths(first, second, window)
    if ax is not None:
        draw_widths(ax, common, names)
        return ax
    figure, axes = plt.subplot_mosaic("ab;cc", figsize=(11, 8), layout="constrained", height_ratios=(1.6, 1))
    for draw, panel in zip((draw_widths, draw_differences, draw_velocities), axes.values(), strict=True):
        draw(panel, common, names)
    figure.suptitle(f"{common['wave'].size} lines in common, of {len(first)} and {len(second)}", fontsize="medium")
    return np.array(list(axes.values()))


def plot_pulls(table, ax=None):
    """
    Draw the pulls of an injection and recovery: a bar of their mean +- width, and the mean with three standard errors.

    The bar of a parameter whose values and errors are right fills the grey band from -1 to 1.

    Parameters
    ----------
    table : QTable
        Of `~specutils_blase.injection_recovery`, or some of its rows.
    ax : `matplotlib.axes.Axes`, optional

    Returns
    -------
    Axes

    Examples
    --------
    >>> from astropy import units as u
    >>> from specutils_blase import clone_spectrum, fit_spectrum
    >>> from specutils_blase.simulation import simulate_order, simulate_star
    >>> star = simulate_star(1, n_lines=60, lower=10500 * u.AA, upper=10512 * u.AA)
    >>> order = simulate_order(star.model, seed=2, vsini=5 * u.km / u.s, bad_pixels=0,
    ...                        lower=10502 * u.AA, upper=10510 * u.AA, n_pix=150)
    >>> template = clone_spectrum(star.spectrum, continuum_degree=2)
    >>> fit = fit_spectrum(order.spectrum, template, vsini=4 * u.km / u.s, free=())
    >>> from matplotlib import pyplot as plt
    >>> from specutils_blase import injection_recovery
    >>> from specutils_blase.plotting import plot_pulls
    >>> table = injection_recovery(fit, n=3)
    >>> ax = plot_pulls(table[:2])
    >>> print([label.get_text() for label in ax.get_yticklabels()])
    ['radial_velocity (3)', 'vsini (3)']
    >>> plt.close(ax.figure)
    """
    from matplotlib import pyplot as plt

    if not hasattr(table, "meta") or "pulls" not in table.meta:
        raise TypeError(explain("table", "be what injection_recovery returned", type(table).__name__, "give that"))
    if ax is None:
        ax = plt.subplots(figsize=(9.5, 1.3 + 0.34 * len(table)), layout="constrained")[1]
    draw_pulls(ax, table)
    return ax


def drawn_fit(fit, order=None):
    """The figure of `plot_fit` as the bytes of a PNG; no window is opened and no figure stays."""
    from matplotlib import pyplot as plt

    with plt.ioff():
        figure = np.ravel(plot_fit(fit, order=order))[0].figure
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    plt.close(figure)
    return stream.getvalue()


def save_figure(fig, path, overwrite=False):
    """
    Write a figure to a file, all of it or nothing.

    Parameters
    ----------
    fig : `matplotlib.figure.Figure`
    path : str or path-like
        The suffix chooses the format, e.g. ``.png`` or ``.pdf``.
    overwrite : bool
        Whether an existing file is replaced.

    Returns
    -------
    Path

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from matplotlib import pyplot as plt
    >>> from specutils_blase.plotting import save_figure
    >>> figure, ax = plt.subplots()
    >>> path = save_figure(figure, Path(tempfile.mkdtemp()) / "figure.png")
    >>> path.name, path.is_file()
    ('figure.png', True)
    >>> try:
    ...     save_figure(figure, path)
    ... except FileExistsError:
    ...     print("there is one already: overwrite=True replaces it")
    there is one already: overwrite=True replaces it
    >>> plt.close(figure)
    """
    path = Path(path)
    kind = path.suffix[1:].lower()
    known = fig.canvas.get_supported_filetypes()
    if kind not in known:
        raise ValueError(f"path must end in one of {sorted(known)}, got {path.name!r}; .png is a good choice")
    with written_whole(path, overwrite) as part:
        fig.savefig(part, format=kind, dpi=200)
    return path


def _draw_template(ax, template, wave):
    model = template.model
    flux = model(wave * u.AA)
    ax.plot(wave, flux.value, color=TELLURIC, lw=0.6, label="template")
    lines = model.transmission(wave, *_line_parameters(model))
    with np.errstate(divide="ignore", invalid="ignore"):
        continuum = np.where(lines > 1e-6, flux.value / lines, np.nan)
    ax.plot(wave, continuum, color=MODEL, lw=0.9, ls="--", label="continuum")
    ax.set_xlim(wave[0], wave[-1])
    ax.set_ylim(bottom=min(0.0, float(flux.value.min())))
    ax.set_xlabel("Vacuum wavelength [$\\mathrm{\\AA}$]")
    label_flux(ax, flux.unit)


def _template_title(template):
    info, meta = template.fit_info, template.meta
    parts = [f"{len(template.lines)} lines", f"frame: {meta.get('frame', 'rest')}"]
    if np.isfinite(info.get("rms", np.nan)):
        parts.insert(1, f"rms of the clone {100 * info['rms']:.3g} %")
    return ", ".join(parts)


def _zoom_range(wave, template, span):
    """The part of length `span` [Angstrom] with the most structure."""
    lines = template.model.transmission(wave, *_line_parameters(template.model))
    first = wave[_richest(lines, int(span / (wave[1] - wave[0])))]
    return first, min(first + span, wave[-1])


def _richest(values, count):
    """Index at which the `count` values begin that go up and down the most."""
    travelled = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(np.nan_to_num(values))))])
    count = int(np.clip(count, 1, values.size)) - 1
    return int(np.argmax(travelled[count:] - travelled[: values.size - count]))


def _line_parameters(model):
    """Centre, strength and widths [Angstrom]."""
    parameters = (getattr(model, name) for name in ("x_0", "strength", "fwhm_G", "fwhm_L"))
    return [p.value if p.unit is None else p.quantity.to_value(u.AA) for p in parameters]


def _mark_lines(ax, lines, factor, color, unit=u.AA):
    """Ticks at the upper end of a panel where lines are, the longer the deeper; `factor` is the Doppler factor."""
    depth = np.abs(u.Quantity(lines["depth"]).value)
    center = lines["line_center"].to_value(u.AA) * factor
    position = (center * u.AA).to_value(unit, u.spectral())
    low, high = sorted(ax.get_xlim())
    seen = (depth >= MARKED_DEPTH) & (position >= low) & (position <= high)
    length = 0.02 + 0.08 * np.clip(depth[seen], 0.0, 1.0)
    ax.vlines(position[seen], 1.0 - length, 1.0, color=color, lw=0.8, transform=ax.get_xaxis_transform())


def _leave_room_for_marks(ax):
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, top + 0.12 * (top - bottom))


def _draw_fit(ax, fit, *, points=False):
    """Data, model, tellurics and continuum of a fit; ignored pixels shaded."""
    axis = fit.observed.spectral_axis.value
    used = np.isfinite(fit.residual.flux.value)
    flux = np.where(used, fit.observed.flux.value, np.nan)
    model = fit.model_spectrum.flux.to_value(fit.observed.flux.unit)
    continuum = component(fit, "continuum")
    telluric = component(fit, "telluric")
    if points:
        error = standard_deviation(fit.observed)
        ax.errorbar(axis, flux, error, fmt=".", ms=4, lw=0.8, color=DATA, label="data", zorder=3)
    else:
        ax.plot(axis, flux, color=DATA, lw=0.9, label="data")
    if continuum is not None:
        ax.plot(axis, continuum, color=CONTINUUM, lw=1.0, ls="--", label="continuum", zorder=2)
    if telluric is not None and fit.template is not None:  # alone it is the model
        draw_telluric(ax, axis, telluric, continuum, lw=0.9)
    ax.plot(axis, model, color=MODEL, lw=0.9, label="model", zorder=4)
    _shade_ignored(ax, axis, used)
    shown = np.concatenate([flux[used], model[np.isfinite(model)]])
    if continuum is not None and np.nanmax(continuum) < FAR_UP * shown.max():
        shown = np.append(shown, np.nanmax(continuum))
    margin = 0.04 * np.ptp(shown)
    ax.set_ylim(shown.min() - margin, shown.max() + margin)
    ax.set_xlim(axis.min(), axis.max())
    label_flux(ax, fit.observed.flux.unit)


def _draw_residual(ax, fit):
    axis, residual = fit.observed.spectral_axis.value, fit.residual.flux.value
    is_used, sigma = np.isfinite(residual), standard_deviation(fit.observed)
    if sigma is not None:
        residual, label = residual / sigma, "Residual [$\\sigma$]"
    else:
        has_continuum = component(fit, "continuum") is not None
        residual = 100.0 * residual / (lit_continuum(fit) if has_continuum else fit.model_spectrum.flux.value)
        label = "Residual [%]"
    used = np.isfinite(residual)
    ax.axhline(0.0, color=MODEL, lw=0.9)
    ax.plot(axis, residual, ".", ms=2, color=DATA)
    _shade_ignored(ax, axis, is_used)
    limit = 1.3 * np.percentile(np.abs(residual[used]), 99.5)
    ax.set_ylim(-limit, limit)
    ax.set_ylabel(label)
    if handles := mark_beyond(ax, axis, residual):
        ax.legend(handles=handles[:1], **OUTSIDE)


def _draw_zoom(ax, fit):
    """The richest part of a fit, with the star at its native resolution and the lines marked."""
    axis = fit.observed.spectral_axis
    _draw_fit(ax, fit, points=True)
    first, last = _richest_pixels(fit)
    part = slice(first, last + 1)
    ax.set_xlim(*sorted(axis[[first, last]].value))
    continuum = component(fit, "continuum")
    shown = [fit.observed.flux.value[part][np.isfinite(fit.residual.flux.value[part])]]
    if fit.template is not None:
        rest_factor = _doppler_factor(fit)
        fine = np.linspace(*axis[[first, last]].to_value(u.AA, u.spectral()), 4000)
        star = fit.template.model.transmission(fine / rest_factor, *_line_parameters(fit.template.model))
        position = (fine * u.AA).to_value(axis.unit, u.spectral())
        if continuum is not None:
            order = np.argsort(axis.value)
            star = star * np.interp(position, axis.value[order], continuum[order])
        label = "star at its native resolution"
        ax.legend(handles=ax.plot(position, star, color=NATIVE, lw=0.7, label=label, zorder=0), **OUTSIDE)
        shown.append(star)
    shown.append(fit.model_spectrum.flux.value[part])
    if continuum is not None and np.nanmax(continuum[part]) < FAR_UP * np.nanmax(shown[0]):
        shown.append(continuum[part])
    shown = np.concatenate(shown)
    shown = shown[np.isfinite(shown)]
    ax.set_ylim(shown.min() - 0.04 * np.ptp(shown), shown.max() + 0.04 * np.ptp(shown))
    _leave_room_for_marks(ax)
    for lines, factor, color in _marked(fit):
        _mark_lines(ax, lines, factor, color, unit=axis.unit)


def _marked(fit):
    """(lines, Doppler factor, colour) of the star and the tellurics."""
    component = np.asarray(fit.lines["component"])
    is_star = component == "star"
    at_rest = _doppler_factor(fit, "barycentric_velocity") if fit.fit_info.get("frame") == "barycentric" else 1.0
    return [(fit.lines[is_star], _doppler_factor(fit), DATA), (fit.lines[~is_star], at_rest, TELLURIC)]


def _richest_pixels(fit):
    """First and last pixel of the part with the most structure."""
    model = fit.model_spectrum.flux.value
    count = min(ZOOM_PIXELS, model.size)
    if component(fit, "continuum") is not None:
        level = lit_continuum(fit)
        model = np.where(np.isnan(level), 1.0, model / level)
    first = _richest(model, count)
    return first, first + count - 1


def _shade_ignored(ax, axis, used):
    inner = 0.5 * (axis[1:] + axis[:-1])
    edges = np.concatenate([[2.0 * axis[0] - inner[0]], inner, [2.0 * axis[-1] - inner[-1]]])
    steps = np.flatnonzero(np.diff(np.concatenate([[0], ~used, [0]])))
    for first, last in zip(edges[steps[::2]], edges[steps[1::2]], strict=True):
        ax.axvspan(first, last, color=SHADE, lw=0.5, zorder=-2)


def _doppler_factor(fit, name="radial_velocity"):
    velocity = parameter(fit, name)
    beta = 0.0 if velocity is None else velocity[0] / constants.c.to_value(u.km / u.s)
    return np.sqrt((1.0 + beta) / (1.0 - beta))
