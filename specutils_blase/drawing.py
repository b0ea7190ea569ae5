"""What pictures have in common, and the page of all orders of a fit; matplotlib is not imported here."""

import numpy as np
from astropy import units as u

from specutils_blase.orders import listed
from specutils_blase.quality import REMARKABLE, has_light, noise_of, order_parts, standard_deviation
from specutils_blase.report import with_error

__all__ = ["axis_label", "component", "draw_airglow", "draw_page", "draw_pulls", "draw_telluric", "fit_title",
           "label_flux", "lit_continuum", "mark_beyond", "order_name", "parameter", "unit_text"]  # fmt: skip

# Okabe and Ito's palette, which colour-blind readers can tell apart.
DATA, MODEL, TELLURIC, CONTINUUM, NATIVE = "0.25", "#D55E00", "#0072B2", "#009E73", "#CC79A7"
SHADE = "0.88"
# Above the upper right corner of a panel, where no data are.
OUTSIDE = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "frameon": False, "borderaxespad": 0.2,
           "fontsize": "small", "handlelength": 1.5, "columnspacing": 1.2}  # fmt: skip

# The page of an echelle is one of A4, higher if there are many orders [inch].
PAGE = (11.7, 8.3)
LEFT, RIGHT, TOP, BOTTOM, BETWEEN = 0.5, 0.12, 0.35, 0.42, 0.28
HEADING, TICKS, LEAST_ROW = 0.16, 0.17, 0.95
# Orders up to which a page has one, two and three columns; beyond it has four.
COLUMNS = (3, 12, 21)
# Share of a panel's height that its residual has.
RESIDUAL = 0.32
TINY, SMALL = 5.5, 6.0
# Sky lines are drawn whose velocity is known better than this [km/s].
CLEAR = 0.2
# Pulls of a parameter that are drawn as dots.
MOST_DOTS = 300



def draw_page(figure, fit):
    """
    Draw all orders of a fit on one page: data, model, tellurics over the continuum, and the residual below.

    Parameters
    ----------
    figure : `matplotlib.figure.Figure`
        Empty; its size is set.
    fit : SpectrumFit
        Of several orders.

    Returns
    -------
    ndarray of Axes, shape (n_orders, 2)
        The panels of the flux and of the residual of every order that was fitted, by wavelength.
    """
    table, parts = fit.orders, dict(order_parts(fit))
    table = table[np.argsort(table["wavelength_min"])]
    n_columns = 1 + int(np.searchsorted(COLUMNS, len(table)))
    n_rows = -(-len(table) // n_columns)
    width, height = PAGE[0], max(PAGE[1], TOP + BOTTOM + n_rows * LEAST_ROW)
    figure.set_size_inches(width, height)
    cell = np.array([(width - LEFT - RIGHT + BETWEEN) / n_columns, (height - TOP - BOTTOM) / n_rows])
    panels = []
    for k, row in enumerate(table):
        corner = np.array([LEFT, height - TOP]) + cell * [k % n_columns, -(k // n_columns) - 1]
        panels.append(_draw_order(figure, parts[row["order"]], row, corner, cell))
    skipped = sorted(set(parts) - set(table["order"].tolist()))
    figure.text(0.01, 1.0 - 0.1 / height, fit_title(fit), va="top", fontsize="medium")
    shown = {}
    for ax in np.ravel(panels):
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    figure.legend(shown.values(), shown.keys(), loc="upper right", ncols=len(shown), frameon=False, fontsize="small",
                  borderaxespad=0.2, handlelength=1.5, columnspacing=1.2)  # fmt: skip
    figure.text(0.5, 0.08 / height, axis_label(parts[table["order"][0]].observed), ha="center", fontsize="small")
    figure.text(0.08 / width, 0.5, "Flux over continuum; below it the residual [% of the continuum]", rotation=90,
                va="center", fontsize="small")  # fmt: skip
    if skipped:
        figure.text(1.0 - RIGHT / width, 0.08 / height, f"skipped: {listed(skipped, most=30)}", ha="right",
                    fontsize="small")  # fmt: skip
    return np.array(panels)


def _draw_order(figure, part, row, corner, cell):
    """One order in a cell of the page; corner and cell are lower left and size [inch]."""
    page = figure.get_size_inches()
    inner = cell[1] - HEADING - TICKS
    sizes = np.array([[cell[0] - BETWEEN, (1.0 - RESIDUAL) * inner], [cell[0] - BETWEEN, RESIDUAL * inner]])
    lower = corner + np.array([[0.0, TICKS + RESIDUAL * inner], [0.0, TICKS]])
    ax, below = (figure.add_axes([*(place / page), *(size / page)])
                 for place, size in zip(lower, sizes, strict=True))  # fmt: skip
    below.sharex(ax)
    _draw_flux(ax, part)
    _draw_residual(below, part)
    axis = part.observed.spectral_axis.value[np.isfinite(part.residual.flux.value)]
    ax.set_xlim(axis.min(), axis.max())
    ax.xaxis.get_major_locator().set_params(nbins=7, prune="both")  # labels must not reach into the next panel
    ax.yaxis.get_major_locator().set_params(nbins=4)
    ax.tick_params(labelbottom=False, bottom=False)
    for panel in (ax, below):
        panel.tick_params(labelsize=TINY, length=2.0, width=0.5, pad=1.5)
        for spine in panel.spines.values():
            spine.set_linewidth(0.5)
    low, high = (row[f"wavelength_{end}"].value for end in ("min", "max"))
    heading = {"fontsize": SMALL, "pad": 2.0}
    ax.set_title(f"{order_name(part, row)}, {low:.0f} to {high:.0f} $\\mathrm{{\\AA}}$", loc="left", **heading)
    quality = f"rms {_percent(row['rms'])}"
    if np.isfinite(row["noise"]):
        quality += f", noise {_percent(row['noise'])}"
    ax.set_title(quality, loc="right", weight="bold" if row["ratio"] > REMARKABLE else "normal", **heading)
    return ax, below


def _draw_flux(ax, part):
    """Data, tellurics and model over the continuum, where it has light."""
    axis, level = part.observed.spectral_axis.value, lit_continuum(part)
    used = np.isfinite(part.residual.flux.value)
    flux = np.where(used, part.observed.flux.value, np.nan) / level
    model = part.model_spectrum.flux.to_value(part.observed.flux.unit) / level
    ax.plot(axis, flux, color=DATA, lw=0.8, label="data")
    telluric = component(part, "telluric")
    if telluric is not None and part.template is not None:  # alone it is the model
        draw_telluric(ax, axis, telluric / level, np.ones(axis.size), lw=0.4)
    ax.plot(axis, model, color=MODEL, lw=0.5, label="model", zorder=4)
    low = min(np.nanmin(model[used]), np.nanpercentile(flux, 0.1), 0.9)
    high = max(np.nanmax(model[used]), np.nanpercentile(flux, 99.9), 1.0)
    margin = 0.06 * (high - low)
    ax.set_ylim(low - margin, high + margin)
    mark_beyond(ax, axis, flux, size=2.5)


def _draw_residual(ax, part):
    """The residual over the continuum in per cent, and the noise; every pixel is in the panel or marked at its edge."""
    axis, level = part.observed.spectral_axis.value, lit_continuum(part)
    residual, sigma = 100.0 * part.residual.flux.value / level, noise_of(part)
    size = np.abs(residual[np.isfinite(residual)])
    limit = 1.3 * np.percentile(size, 99.0)
    if sigma is not None:
        noise = 100.0 * np.where(np.isfinite(residual), sigma, np.nan) / level
        kind = "estimated" if standard_deviation(part.observed) is None else "photon"
        for side, label in ((noise, f"{kind} noise, 1 $\\sigma$"), (-noise, "_")):
            ax.plot(axis, side, color=CONTINUUM, lw=0.6, zorder=5, label=label)
        limit = max(limit, 3.0 * np.nanmedian(noise))
    ax.axhline(0.0, color=MODEL, lw=0.5)
    ax.plot(axis, residual, color=DATA, lw=0.4)
    ax.set_ylim(-limit, limit)
    ax.set_yticks([-_round(limit), _round(limit)])
    mark_beyond(ax, axis, residual, size=2.5)


def _round(limit):
    """The largest number of one digit, 1, 2 or 5, up to 0.7 of the limit."""
    power = 10.0 ** np.floor(np.log10(0.7 * limit))
    return power * max(digit for digit in (1, 2, 5) if digit * power <= 0.7 * limit * (1.0 + 1e-9))


def _percent(share):
    """Two digits, as in 0.10 % and 12 %."""
    return f"{100.0 * share:#.2g} %" if share < 0.0995 else f"{100.0 * share:.0f} %"


def draw_telluric(ax, axis, transmitted, level, lw):
    """The tellurics as a line, and what they take from the level as a shade, which no line can hide."""
    ax.plot(axis, transmitted, color=TELLURIC, lw=lw, label="telluric", zorder=1.5)
    ax.fill_between(axis, transmitted, level, color=TELLURIC, alpha=0.25, lw=0.0, zorder=1)


def mark_beyond(ax, axis, values, size=5.0):
    """Triangles at the edges of a panel where points lie outside of it; a list of their artists."""
    handles, (low, high) = [], ax.get_ylim()
    margin = 0.03 * (high - low)
    for beyond, edge, marker in ((values > high, high - margin, "^"), (values < low, low + margin, "v")):
        if beyond.any():
            handles += ax.plot(axis[beyond], np.full(np.count_nonzero(beyond), edge), marker, ms=size, mew=0.0,
                               color=DATA, label="beyond the panel")  # fmt: skip
    return handles


def component(fit, name):
    """Values of a component in the unit of the data; transmissions are drawn from the continuum down."""
    spectrum = (fit.components or {}).get(name)
    if spectrum is None:
        return None
    unit = fit.observed.flux.unit
    values = spectrum.flux
    level = (fit.components or {}).get("continuum")
    if name != "continuum" and level is not None:
        values = values * level.flux
    return values.to_value(unit)


def lit_continuum(fit):
    """The continuum of one order in the unit of the data, NaN where numbers relative to it say nothing."""
    level = component(fit, "continuum")
    return np.where(has_light(level, np.isfinite(fit.residual.flux.value)), level, np.nan)


def parameter(fit, name):
    """(value, std, unit) of a parameter of the fit, or None."""
    for row in fit.parameters:
        if row["name"] == name:
            return float(row["value"]), float(row["std"]), str(row["unit"])
    return None


def order_name(part, row):
    """Its number in the fit, and in its file where that is another; `row` is that of the table of orders."""
    number, own = row["order"], part.observed.meta.get("order", row["order"])
    return f"order {number}" if own == number else f"order {number} ({own} of the file)"


def fit_title(fit, order=None):
    """What a fit found and how good it is, or one of its orders, a row of its table."""
    parts = [] if order is None else [order_name(fit, order)]
    for name, symbol in (("radial_velocity", "RV"), ("vsini", "$v\\,\\sin i$")):
        if (found := parameter(fit, name)) is not None:
            parts.append(f"{symbol} {with_error(*found[:2])} km/s".replace("-", "\N{MINUS SIGN}"))
    if order is not None:
        noise = f", noise {100 * order['noise']:.2f} %" if np.isfinite(order["noise"]) else ""
        return ", ".join(parts) + f", rms {100 * order['rms']:.2f} %{noise}"
    rms = fit.fit_info.get("rms")
    if rms is not None:
        parts.append(f"rms {100 * rms:.2f} %")
    if fit.fit_info.get("dof"):
        parts.append(f"$\\chi^2$/dof {fit.fit_info['chi2'] / fit.fit_info['dof']:.2f}")
    return ", ".join(parts)


def axis_label(spectrum):
    """Label of the axis of wavelengths, or of what it has instead."""
    axis = spectrum.spectral_axis
    text = unit_text(axis.unit)
    kind = str(axis.unit.physical_type).partition("/")[0]
    if kind == "length":
        return f"{str(spectrum.meta.get('wavelength_medium', 'vacuum')).capitalize()} wavelength [{text}]"
    return f"{kind.capitalize()} [{text}]"


def unit_text(unit):
    """A unit as matplotlib can draw it."""
    return unit.to_string("latex_inline")


def draw_airglow(ax, fit):
    """The velocities of sky lines of an `AirglowFit` that are seen, and the fit of every order."""
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


def draw_pulls(ax, table):
    """A bar of mean +- width for every row of a table of `injection_recovery`, among its pulls."""
    ax.axvspan(-1.0, 1.0, color=SHADE, lw=0.0, zorder=-2, label="expected of mean $\\pm$ width")
    ax.axvline(0.0, color=DATA, lw=0.6, zorder=-1)
    rng = np.random.default_rng(0)
    labels = {"dots": "pulls", "bar": "mean $\\pm$ width", "mean": "mean, 3 standard errors"}
    for place, (name, mean, error, width) in enumerate(table.iterrows("name", "pull", "pull_err", "width")):
        pulls = np.asarray(table.meta["pulls"][name])
        dots = rng.choice(pulls, min(pulls.size, MOST_DOTS), replace=False)
        ax.plot(dots, place + rng.uniform(-0.3, 0.3, dots.size), ".", ms=4.5, mew=0.0, color=DATA, alpha=0.6,
                label=labels.pop("dots", None))  # fmt: skip
        ax.barh(place, 2.0 * width, 0.5, mean - width, color=TELLURIC, alpha=0.4, label=labels.pop("bar", None))
        ax.errorbar(mean, place, xerr=3.0 * error, fmt="o", ms=4, color=MODEL, capsize=2,
                    label=labels.pop("mean", None))  # fmt: skip
    ax.set_yticks(np.arange(len(table)), [f"{name} ({n})" for name, n in table.iterrows("name", "number")])
    ax.set_ylim(len(table) - 0.4, -0.6)
    reach = 1.1 * np.nanmax(np.abs(table["pull"]) + table["width"], initial=3.2)
    ax.set_xlim(-reach, reach)
    ax.set_xlabel("(recovered $-$ injected) / standard deviation")
    lost = f", {table.meta['not_converged']:.0%} not converged" if table.meta["not_converged"] else ""
    ax.set_title(f"{table.meta['n']} draws{lost}", loc="left", fontsize="medium", pad=20)
    ax.legend(**OUTSIDE, ncols=4)


def label_flux(ax, unit):
    """Label of the flux axis, with a power of ten in it where the numbers would be long."""
    largest = np.max(np.abs(ax.get_ylim()))
    power = 0 if 0.1 <= largest < 1e4 else 3 * int(np.floor(np.log10(largest) / 3))
    ax.yaxis.set_major_formatter(lambda value, position: f"{value / 10.0**power:g}")
    factor = f"$10^{{{power}}}$ " if power else ""
    text = factor + ("" if unit == u.dimensionless_unscaled else unit_text(unit))
    ax.set_ylabel(f"Flux [{text.strip()}]" if text else "Flux")
