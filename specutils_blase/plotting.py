"""Pictures of templates and fits; matplotlib is imported when the first one is drawn."""

from pathlib import Path

import numpy as np
from astropy import constants
from astropy import units as u

from specutils_blase.io.whole import written_whole
from specutils_blase.report import with_error

__all__ = ["plot_airglow", "plot_fit", "plot_template", "save_figure"]

# Okabe and Ito's palette, which colour-blind readers can tell apart.
DATA, MODEL, TELLURIC, CONTINUUM, NATIVE = "0.25", "#D55E00", "#0072B2", "#009E73", "#CC79A7"
SHADE = "0.88"
# Pixels of a fit, and widths of a line of a template, in a zoom.
ZOOM_PIXELS, ZOOM_WIDTHS = 220, 150
MAX_SAMPLES = 400_000
# Orders of an echelle in one column of panels.
ORDERS_PER_COLUMN = 12
# Sky lines are drawn whose velocity is known better than this [km/s].
CLEAR = 0.2
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
    ax.legend(**_OUTSIDE, ncols=2)
    ax.set_title(_template_title(template), loc="left", fontsize="medium")
    first, last = _zoom_range(wave, template, min(ZOOM_WIDTHS * width, high - low))
    _draw_template(zoom, template, np.linspace(first, last, 4000))
    zoom.set_xlim(first, last)
    _leave_room_for_marks(zoom)
    _mark_lines(zoom, template.lines, 1.0, DATA)
    return ax


def plot_fit(fit, ax=None):
    """
    Draw a fit: the data with the model and its parts, and the residual.

    Parameters
    ----------
    fit : SpectrumFit
        Of one spectrum, or of several orders.
    ax : `matplotlib.axes.Axes`, optional
        Where to draw the data and the model, nothing else. None makes a figure with the residual and a zoom below, or
        with a panel for each of several orders.

    Returns
    -------
    Axes, or ndarray of Axes, shape (3,)
        The array (data, residual, zoom) when `ax` is None; of several orders that of their panels.
    """
    from matplotlib import pyplot as plt

    if not hasattr(fit.observed, "spectral_axis") or fit.observed.flux.ndim == 2:
        return plot_orders(fit)
    if ax is not None:
        _draw_fit(ax, fit)
        ax.set_xlabel(_axis_label(fit.observed))
        return ax
    figure, axes = plt.subplots(3, 1, figsize=(11, 8.5), layout="constrained", height_ratios=(3, 1.3, 3))
    top, middle, zoom = axes
    _draw_fit(top, fit)
    top.legend(**_OUTSIDE, ncols=5)
    top.set_title(_fit_title(fit), loc="left", fontsize="medium")
    _draw_residual(middle, fit)
    middle.sharex(top)
    top.tick_params(labelbottom=False)
    _draw_zoom(zoom, fit)
    top.axvspan(*zoom.get_xlim(), color=NATIVE, alpha=0.12, lw=0, zorder=-3)
    for panel in (middle, zoom):
        panel.set_xlabel(_axis_label(fit.observed))
    return axes


def plot_orders(fit):
    """
    Draw all orders of a fit, each over its continuum: data, model, tellurics, and the residual below.

    Parameters
    ----------
    fit : SpectrumFit

    Returns
    -------
    ndarray of Axes
        A panel for each order that was fitted, by wavelength.
    """
    from matplotlib import pyplot as plt

    count = len(fit.residual.flux) if hasattr(fit.residual, "flux") else len(fit.residual)
    orders = [fit.order(k) for k in range(count)]
    seen = [(part.observed.spectral_axis.to_value(u.AA, u.spectral()).min(), k, part)
            for k, part in enumerate(orders) if np.isfinite(part.residual.flux.value).any()]  # fmt: skip
    columns = 1 if len(seen) <= ORDERS_PER_COLUMN else 2
    rows = -(-len(seen) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(11, max(1.3 * rows, 4.0)), layout="constrained", squeeze=False)
    panels = grid.T.ravel()
    for ax, (_, k, part) in zip(panels, sorted(seen, key=lambda item: item[0]), strict=False):
        _draw_order(ax, part, k)
    for ax in panels[len(seen) :]:
        ax.remove()
    figure.suptitle(_fit_title(fit), x=0.01, ha="left", fontsize="medium")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False, fontsize="small")
    figure.supxlabel(_axis_label(seen[0][2].observed), fontsize="medium")
    figure.supylabel("Flux over continuum; residual, off set", fontsize="medium")
    return panels[: len(seen)]


def _draw_order(ax, part, number):
    """One order over its continuum, and its residual below it on the same scale."""
    axis = part.observed.spectral_axis.value
    level = _component(part, "continuum")
    used = np.isfinite(part.residual.flux.value)
    flux = np.where(used, part.observed.flux.value, np.nan) / level
    residual = part.residual.flux.value / level
    model = part.model_spectrum.flux.to_value(part.observed.flux.unit) / level
    ax.plot(axis, flux, color=DATA, lw=0.7, label="data")
    if "telluric" in part.components and part.template is not None:
        ax.plot(axis, part.components["telluric"].flux.value, color=TELLURIC, lw=0.7, label="telluric", zorder=2)
    ax.plot(axis, model, color=MODEL, lw=0.6, label="model", zorder=4)
    bottom = min(np.nanmin(model), np.nanpercentile(flux, 0.5))
    spread = max(4.0 * np.nanstd(residual), 0.02)
    offset = bottom - spread
    ax.axhline(offset, color=MODEL, lw=0.6)
    ax.plot(axis, np.clip(residual, -spread, spread) + offset, ".", ms=1.2, color=DATA)
    ax.set_ylim(offset - 1.1 * spread, max(1.05, np.nanpercentile(flux, 99.9) + 0.02))
    ax.set_xlim(axis.min(), axis.max())
    ax.tick_params(labelsize="x-small")
    text = f"{number}: {100 * np.nanstd(residual):.2f} %"
    ax.text(1.004, 0.5, text, transform=ax.transAxes, fontsize="x-small", rotation=270, va="center")


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
    """
    from matplotlib import pyplot as plt

    if ax is None:
        ax = plt.subplots(figsize=(11, 4.5), layout="constrained")[1]
    lines = fit.lines[fit.lines["seen"] & ~fit.lines["apart"] & (fit.lines["velocity_err"].value < CLEAR)]
    ax.axhline(0.0, color="0.7", lw=0.8)
    for row in fit.orders:
        own = lines[lines["order"] == row["order"]]
        color = f"C{row['order'] % 10}"
        ax.errorbar(own["line_center"].value, own["velocity"].value, own["velocity_err"].value, fmt=".", color=color,
                    ms=5, lw=0.8, alpha=0.7)  # fmt: skip
        if np.isfinite(row["offset"]):
            ends = -row["offset"].value - row["slope"].value * np.array([-1.0, 1.0])
            ax.plot([row["lower"].value, row["upper"].value], ends, color=color, lw=1.6)
    known = np.abs(lines["velocity"].value[np.isfinite(lines["velocity"].value)])
    limit = max(0.5, 6.0 * float(np.median(known))) if known.size else 1.0
    ax.set_ylim(-limit, limit)
    beyond = int(np.count_nonzero(known > limit))
    ax.set_xlabel("vacuum wavelength [Angstrom]")
    ax.set_ylabel("velocity of sky lines [km / s]")
    ax.set_title(f"{len(lines)} lines of airglow, known to {CLEAR} km / s"
                 + (f"; {beyond} beyond the frame" if beyond else ""), loc="left", fontsize="medium")  # fmt: skip
    return ax


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
    """
    path = Path(path)
    kind = path.suffix[1:].lower()
    known = fig.canvas.get_supported_filetypes()
    if kind not in known:
        raise ValueError(f"path must end in one of {sorted(known)}, got {path.name!r}; .png is a good choice")
    with written_whole(path, overwrite) as part:
        fig.savefig(part, format=kind, dpi=150)
    return path


# Above the upper right corner of a panel, where no data are.
_OUTSIDE = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "frameon": False, "borderaxespad": 0.2,
            "fontsize": "small", "handlelength": 1.5, "columnspacing": 1.2}  # fmt: skip


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
    _label_flux(ax, flux.unit)


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
    continuum = _component(fit, "continuum")
    telluric = _component(fit, "telluric")
    if points:
        error = _standard_deviation(fit.observed)
        ax.errorbar(axis, flux, error, fmt=".", ms=4, lw=0.8, color=DATA, label="data", zorder=3)
    else:
        ax.plot(axis, flux, color=DATA, lw=0.9, label="data")
    if continuum is not None:
        ax.plot(axis, continuum, color=CONTINUUM, lw=1.0, ls="--", label="continuum", zorder=1)
    if telluric is not None and fit.template is not None:  # alone it is the model
        ax.plot(axis, telluric, color=TELLURIC, lw=0.9, label="telluric", zorder=2)
    ax.plot(axis, model, color=MODEL, lw=0.9, label="model", zorder=4)
    _shade_ignored(ax, axis, used)
    shown = np.concatenate([flux[used], model[np.isfinite(model)]])
    margin = 0.04 * np.ptp(shown)
    ax.set_ylim(shown.min() - margin, shown.max() + margin)
    ax.set_xlim(axis.min(), axis.max())
    _label_flux(ax, fit.observed.flux.unit)


def _draw_residual(ax, fit):
    axis, residual = fit.observed.spectral_axis.value, fit.residual.flux.value
    sigma = _standard_deviation(fit.observed)
    if sigma is not None:
        residual, label = residual / sigma, "Residual [$\\sigma$]"
    else:
        level = _component(fit, "continuum")
        residual = 100.0 * residual / (fit.model_spectrum.flux.value if level is None else level)
        label = "Residual [%]"
    used = np.isfinite(residual)
    ax.axhline(0.0, color=MODEL, lw=0.9)
    ax.plot(axis, residual, ".", ms=2, color=DATA)
    _shade_ignored(ax, axis, used)
    limit = 1.3 * np.percentile(np.abs(residual[used]), 99.5)
    ax.set_ylim(-limit, limit)
    ax.set_ylabel(label)
    _mark_beyond(ax, axis, residual, limit)


def _mark_beyond(ax, axis, residual, limit):
    """Triangles at the edges of a panel where points lie outside of it."""
    handles = []
    for beyond, sign, marker in ((residual > limit, 1.0, "^"), (residual < -limit, -1.0, "v")):
        if beyond.any():
            edge = np.full(np.count_nonzero(beyond), 0.94 * sign * limit)
            handles += ax.plot(axis[beyond], edge, marker, ms=5, mew=0.0, color=DATA, label="beyond the panel")
    if handles:
        ax.legend(handles=handles[:1], **_OUTSIDE)


def _draw_zoom(ax, fit):
    """The richest part of a fit, with the star at its native resolution and the lines marked."""
    axis = fit.observed.spectral_axis
    _draw_fit(ax, fit, points=True)
    first, last = _richest_pixels(fit)
    part = slice(first, last + 1)
    ax.set_xlim(*sorted(axis[[first, last]].value))
    continuum = _component(fit, "continuum")
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
        ax.legend(handles=ax.plot(position, star, color=NATIVE, lw=0.7, label=label, zorder=0), **_OUTSIDE)
        shown.append(star)
    shown.append(fit.model_spectrum.flux.value[part])
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
    level = _component(fit, "continuum")
    model = fit.model_spectrum.flux.value
    count = min(ZOOM_PIXELS, model.size)
    first = _richest(model if level is None else model / level, count)
    return first, first + count - 1


def _component(fit, name):
    """Values of a component in the unit of the data; transmissions are drawn from the continuum down."""
    component = (fit.components or {}).get(name)
    if component is None:
        return None
    unit = fit.observed.flux.unit
    values = component.flux
    level = (fit.components or {}).get("continuum")
    if name != "continuum" and level is not None:
        values = values * level.flux
    return values.to_value(unit)


def _shade_ignored(ax, axis, used):
    inner = 0.5 * (axis[1:] + axis[:-1])
    edges = np.concatenate([[2.0 * axis[0] - inner[0]], inner, [2.0 * axis[-1] - inner[-1]]])
    steps = np.flatnonzero(np.diff(np.concatenate([[0], ~used, [0]])))
    for first, last in zip(edges[steps[::2]], edges[steps[1::2]], strict=True):
        ax.axvspan(first, last, color=SHADE, lw=0.5, zorder=-2)


def _standard_deviation(spectrum):
    """Standard deviations in the unit of the flux, or None."""
    kind = {"std": 1.0, "var": 0.5, "ivar": -0.5}.get(getattr(spectrum.uncertainty, "uncertainty_type", None))
    if kind is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        return (spectrum.uncertainty.quantity**kind).to_value(spectrum.flux.unit)


def _doppler_factor(fit, name="radial_velocity"):
    velocity = _parameter(fit, name)
    beta = 0.0 if velocity is None else velocity[0] / constants.c.to_value(u.km / u.s)
    return np.sqrt((1.0 + beta) / (1.0 - beta))


def _parameter(fit, name):
    """(value, std, unit) of a parameter of the fit, or None."""
    for row in fit.parameters:
        if row["name"] == name:
            return float(row["value"]), float(row["std"]), str(row["unit"])
    return None


def _fit_title(fit):
    parts = []
    for name, symbol in (("radial_velocity", "RV"), ("vsini", "$v\\,\\sin i$")):
        parameter = _parameter(fit, name)
        if parameter is not None:
            parts.append(f"{symbol} {with_error(*parameter[:2])} km/s".replace("-", "\N{MINUS SIGN}"))
    rms = fit.fit_info.get("rms")
    if rms is not None:
        parts.append(f"rms {100 * rms:.2f} %")
    if fit.fit_info.get("dof"):
        parts.append(f"$\\chi^2$/dof {fit.fit_info['chi2'] / fit.fit_info['dof']:.2f}")
    return ", ".join(parts)


def _axis_label(spectrum):
    axis = spectrum.spectral_axis
    unit = _unit_text(axis.unit)
    kind = str(axis.unit.physical_type).partition("/")[0]
    if kind == "length":
        return f"{str(spectrum.meta.get('wavelength_medium', 'vacuum')).capitalize()} wavelength [{unit}]"
    return f"{kind.capitalize()} [{unit}]"


def _label_flux(ax, unit):
    """Label of the flux axis, with a power of ten in it where the numbers would be long."""
    largest = np.max(np.abs(ax.get_ylim()))
    power = 0 if 0.1 <= largest < 1e4 else 3 * int(np.floor(np.log10(largest) / 3))
    ax.yaxis.set_major_formatter(lambda value, position: f"{value / 10.0**power:g}")
    factor = f"$10^{{{power}}}$ " if power else ""
    text = factor + ("" if unit == u.dimensionless_unscaled else _unit_text(unit))
    ax.set_ylabel(f"Flux [{text.strip()}]" if text else "Flux")


def _unit_text(unit):
    return unit.to_string("latex_inline")
