"""How the pictures of two line lists are drawn; matplotlib is not imported here."""

import numpy as np
from astropy import units as u

from specutils_blase.drawing import DATA, MODEL, OUTSIDE, TELLURIC
from specutils_blase.errors import explain
from specutils_blase.functional.constants import SPEED_OF_LIGHT
from specutils_blase.line_input import line_centers
from specutils_blase.matching import column_numbers, common_lines

__all__ = ["common_widths", "draw_differences", "draw_velocities", "draw_widths"]

FLAGGED = "0.72"
# Differences beyond this many standard deviations, or per cent, are counted at the edge of the histogram.
FAR = 6.0


def common_widths(first, second, window):
    """
    What is drawn of the lines that two tables share.

    Parameters
    ----------
    first, second : Table
        With ``line_center`` and ``equivalent_width``.
    window : Quantity [speed]

    Returns
    -------
    dict
        ``width`` and ``error`` (2, n) [milli-Angstrom], ``wave`` (n,) [Angstrom], ``velocity`` and ``velocity_error``
        (n,) [km/s], and ``flagged`` (n,); errors that are not known are NaN.  ``formal``: whether errors mean little,
        as those of clones of spectra without noise.
    """
    i, j, velocity = common_lines(first, second, window)
    if not i.size:
        raise ValueError(explain("second", f"share lines with first within {window}", "none",
                                 "check wavelength_medium in meta, or shift one of them"))  # fmt: skip
    pairs = ((first, i), (second, j))
    width, error = (np.stack([_values(table, name, u.mAA)[row] for table, row in pairs])
                    for name in ("equivalent_width", "equivalent_width_err"))  # fmt: skip
    if np.isnan(width).all(axis=1).any():
        name = "second" if np.isnan(width[1]).all() else "first"
        raise ValueError(explain(name, "have equivalent widths", "none", "compare tables of clones or fits"))
    center = [_values(table, "line_center")[row] for table, row in pairs]
    relative = [_values(table, "line_center_err")[row] / c for (table, row), c in zip(pairs, center, strict=True)]
    flagged = np.zeros(i.size, dtype=bool)
    for table, row in pairs:
        if "flags" in table.colnames:
            flagged |= np.asarray(table["flags"])[row] != 0
    formal = any("formal" in str(table.meta.get("errors", "")) for table in (first, second))
    return {"width": width, "error": error, "formal": formal, "wave": line_centers(first)[i], "velocity": velocity,
            "velocity_error": SPEED_OF_LIGHT * np.hypot(*relative), "flagged": flagged}  # fmt: skip


def draw_widths(ax, common, names):
    """Equivalent widths of the second list against those of the first, with the line of equality."""
    width, error = common["width"], common["error"]
    seen = (width > 0).all(axis=0)  # emission has no logarithm
    for chosen, color, label in _groups(common, seen):
        # an error that reaches below zero ends at the lower edge
        low, high = (np.nan_to_num(error[:, chosen]) for _ in range(2))
        low = np.minimum(low, 0.999 * width[:, chosen])
        ax.errorbar(*width[:, chosen], xerr=[low[0], high[0]], yerr=[low[1], high[1]], fmt=".", ms=4, lw=0.7,
                    color=color, label=label, zorder=2 if color == FLAGGED else 3)  # fmt: skip
    shown = width[:, seen]
    limits = (0.7 * shown.min(), 1.4 * shown.max()) if shown.size else (1.0, 100.0)
    ax.plot(limits, limits, color=MODEL, lw=1.0, label="equal")
    ax.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
    ax.set_xlabel(f"Equivalent width, {names[0]} [m$\\mathrm{{\\AA}}$]")
    ax.set_ylabel(f"Equivalent width, {names[1]} [m$\\mathrm{{\\AA}}$]")
    ax.legend(**OUTSIDE, ncols=3)


def draw_differences(ax, common, names):
    """Histogram of the differences in units of their errors with the unit Gaussian; without true ones in per cent."""
    width, error = common["width"], np.sqrt(np.nansum(common["error"] ** 2, axis=0))
    in_sigma = (error > 0).any() and not common["formal"]
    with np.errstate(divide="ignore", invalid="ignore"):
        values = (width[1] - width[0]) / (error if in_sigma else 0.01 * np.abs(width).mean(axis=0))
    known = np.isfinite(values)
    far = FAR if in_sigma else max(FAR, 1.5 * float(np.percentile(np.abs(values[known]), 98))) if known.any() else FAR
    edges = np.linspace(-far, far, 41)
    groups = list(_groups(common, known))
    ax.hist([np.clip(values[chosen], -far, far) for chosen, _, _ in groups], edges, stacked=True,
            color=[color for _, color, _ in groups], label=[label for _, _, label in groups])  # fmt: skip
    unflagged = values[known & ~common["flagged"]]
    parts = []
    if unflagged.size:
        spread = 1.4826 * np.median(np.abs(unflagged - np.median(unflagged)))
        parts = [f"unflagged: median {np.median(unflagged):+.2f}, width {spread:.2f}"]
    if in_sigma:
        grid = np.linspace(-far, far, 200)
        height = np.count_nonzero(known) * (edges[1] - edges[0]) / np.sqrt(2.0 * np.pi)
        ax.plot(grid, height * np.exp(-0.5 * grid**2), color=MODEL, lw=1.2)
    if beyond := np.count_nonzero(np.abs(values[known]) > far):
        parts.append(f"{beyond} at the edges are beyond")
    ax.set_title("; ".join(parts), loc="left", fontsize="small")
    ax.set_xlim(-far, far)
    unit = "$\\sigma$" if in_sigma else "%"
    ax.set_xlabel(f"Equivalent width, {names[1]} - {names[0]} [{unit}]")
    ax.set_ylabel("Lines")


def draw_velocities(ax, common, names):
    """Velocity of the second list relative to the first against wavelength, with its median."""
    velocity, error = common["velocity"], common["velocity_error"]
    for chosen, color, label in _groups(common, np.isfinite(velocity)):
        bars = np.nan_to_num(error[chosen], posinf=0.0)
        ax.errorbar(common["wave"][chosen], velocity[chosen], bars, fmt=".", ms=4, lw=0.6, color=color, label=label,
                    zorder=2 if color == FLAGGED else 3)  # fmt: skip
    middle = float(np.median(velocity))
    ax.axhline(0.0, color=DATA, lw=0.6)
    ax.axhline(middle, color=TELLURIC, lw=1.0, ls="--", label=f"median {middle:+.3f} km / s")
    limit = 1.3 * max(float(np.percentile(np.abs(velocity), 98)), 1e-4)
    ax.set_ylim(-limit, limit)
    beyond = np.count_nonzero(np.abs(velocity) > limit)
    ax.set_title(f"{beyond} beyond the frame" if beyond else "", loc="left", fontsize="small")
    ax.set_xlabel("Vacuum wavelength [$\\mathrm{\\AA}$]")
    ax.set_ylabel(f"Velocity, {names[1]} - {names[0]} [km / s]")
    ax.legend(**OUTSIDE, ncols=3)


def _groups(common, seen):
    """Which lines, their colour and label: those without flags, and if there are any those with."""
    yield seen & ~common["flagged"], DATA, "lines"
    if (seen & common["flagged"]).any():
        yield seen & common["flagged"], FLAGGED, "flagged"


def _values(table, name, unit=None):
    """Numbers of a column, NaN where there is none."""
    if name not in table.colnames:
        return np.full(len(table), np.nan)
    values = column_numbers(table[name])
    if unit is None and name.endswith("_err"):  # in the unit of what it is the error of
        unit = table[name.removesuffix("_err")].unit
    return values if unit is None else (values * table[name].unit).to_value(unit)
