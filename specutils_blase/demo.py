"""Injection and recovery: a made-up star and sky are cloned, an order of them is fitted and compared with the truth."""

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.table import QTable

from specutils_blase.cloning import clone_spectrum
from specutils_blase.fitting import SpectrumFit, fit_spectrum
from specutils_blase.flags import BLENDED
from specutils_blase.modeling import VoigtForest1D
from specutils_blase.priors import GaussianPrior
from specutils_blase.simulation import (
    SimulatedOrder,
    SimulatedSource,
    equivalent_width,
    scatter_lines,
    simulate_order,
    simulate_star,
    simulate_telluric,
)
from specutils_blase.template import LineTemplate

__all__ = [
    "Cloned",
    "Recovery",
    "clone_sources",
    "describe_clones",
    "line_rows",
    "parameter_rows",
    "pull_rows",
    "recover",
]

TEFF = 4700 * u.K
RESOLVING_POWER = 55_000.0
# How far the true stars are from their template, and how far the fit believes they are.
PRIOR = GaussianPrior(strength=0.3)
# Pulls of equivalent widths are counted for lines that are stronger than this.
STRONG_WIDTH = 10e-3 * u.AA
# The table of lines shows this many.
SHOWN_LINES = 12


@dataclass(frozen=True, eq=False)
class Cloned:
    """A native spectrum and its template."""

    source: SimulatedSource
    template: LineTemplate


@dataclass(frozen=True, eq=False)
class Recovery:
    """
    One simulated order, its fit, and how they compare.

    Attributes
    ----------
    order : SimulatedOrder
    star : VoigtForest1D
        The true lines.
    fit : SpectrumFit
    parameters : QTable
        ``name``, ``injected``, ``recovered``, ``std``, ``pull``, ``unit``.
    lines : QTable
        The star's lines inside the order: the table of the fit with ``injected_width`` (true equivalent width),
        ``width_pull`` and ``log_strength_pull``.
    """

    order: SimulatedOrder
    star: VoigtForest1D
    fit: SpectrumFit
    parameters: QTable
    lines: QTable


def clone_sources(seed, progress=None):
    """
    Simulate a star and a sky and clone both.

    Parameters
    ----------
    seed : int
    progress : bool or callable, optional
        As in `clone_spectrum`.

    Returns
    -------
    star, sky : Cloned
    """
    star, sky = simulate_star([seed, 1], teff=TEFF), simulate_telluric([seed, 2])
    star_template = clone_spectrum(star.spectrum, teff=TEFF, continuum_degree=3, progress=progress)
    sky_template = clone_spectrum(sky.spectrum, continuum_degree=1, progress=progress)
    return Cloned(star, star_template), Cloned(sky, sky_template)


def recover(star, sky, seed, progress=None):
    """
    Simulate an order of a star that resembles a template, and fit the template to it.

    Velocity, rotation, water column and the strength of every line of the star are drawn at random, the strengths
    about those of the template as the prior of the fit says.

    Parameters
    ----------
    star, sky : LineTemplate
    seed : int or sequence of int
        Of the star, the order and its noise.
    progress : bool or callable, optional
        As in `fit_spectrum`.

    Returns
    -------
    Recovery
    """
    rng = np.random.default_rng(seed)
    true_star = scatter_lines(star.model, rng, strength=PRIOR.strength)
    order = simulate_order(
        true_star,
        sky.model,
        seed=rng,
        radial_velocity=rng.uniform(-80.0, 80.0) * u.km / u.s,
        vsini=rng.uniform(3.0, 9.0) * u.km / u.s,
        telluric_scale=rng.lognormal(0.0, 0.3),
        resolving_power=RESOLVING_POWER,
    )
    fit = fit_spectrum(
        order.spectrum,
        star,
        telluric=sky,
        lsf=RESOLVING_POWER,
        continuum_degree=len(order.truth["continuum"]) - 1,
        free={"star": ("strength",), "telluric": ()},
        prior=PRIOR,
        progress=progress,
    )
    return Recovery(order, true_star, fit, _compare_parameters(fit, order.truth), _compare_lines(fit, true_star))


def describe_clones(star, sky):
    """
    How well the clones reproduce the native spectra.

    Parameters
    ----------
    star, sky : Cloned

    Returns
    -------
    dict of str
        Text for each.
    """
    return {name: _describe_clone(cloned) for name, cloned in (("star", star), ("sky", sky))}


def parameter_rows(recovery):
    """
    Injected and recovered parameters.

    Parameters
    ----------
    recovery : Recovery

    Returns
    -------
    list of tuple of str
        With a heading, for `report.format_table`.
    """
    rows = [("parameter", "injected", "recovered", "error", "pull", "unit")]
    for row in recovery.parameters:
        values = (f"{row['injected']:.6g}", f"{row['recovered']:.6g}", f"{row['std']:.2g}", f"{row['pull']:+.2f}")
        rows.append((row["name"], *values, row["unit"]))
    return rows


def line_rows(recovery):
    """
    Injected and recovered equivalent widths of the deepest lines that are not blended.

    Parameters
    ----------
    recovery : Recovery

    Returns
    -------
    list of tuple of str
        With a heading, for `report.format_table`.
    """
    lines = recovery.lines
    measured = lines["equivalent_width_err"] < 0.1 * lines["equivalent_width"]  # not so at the edges of the order
    lines = lines[measured & ((lines["flags"] & BLENDED) == 0)]
    lines = lines[np.argsort(-lines["depth"])[:SHOWN_LINES]]
    rows = [("rest line [Angstrom]", "depth", "injected", "recovered", "error", "pull")]
    for row in lines[np.argsort(lines["line_center"])]:
        widths = (row[n].to_value(u.AA) * 1e3 for n in ("injected_width", "equivalent_width", "equivalent_width_err"))
        texts = (f"{width:.2f}" for width in widths)
        center, depth = row["line_center"].to_value(u.AA), u.Quantity(row["depth"]).value
        rows.append((f"{center:.3f}", f"{depth:.2f}", *texts, f"{row['width_pull']:+.2f}"))
    return rows


def pull_rows(recoveries):
    """
    Mean and width of the pulls of each kind of quantity.

    Parameters
    ----------
    recoveries : list of Recovery

    Returns
    -------
    list of tuple of str
        With a heading, for `report.format_table`.
    """
    pulls = {}
    for recovery in recoveries:
        for name, pull in recovery.parameters.iterrows("name", "pull"):
            pulls.setdefault("continuum" if name.startswith("continuum") else name, []).append(pull)
        pulls.setdefault("ln strength, all lines", []).extend(recovery.lines["log_strength_pull"])
        # chosen by the truth: a choice by the result would favour lines that came out too strong
        strong = (recovery.lines["injected_width"] > STRONG_WIDTH) & ((recovery.lines["flags"] & BLENDED) == 0)
        name = f"equivalent width > {STRONG_WIDTH.to_value('mAA'):g} mA, not blended"
        pulls.setdefault(name, []).extend(recovery.lines["width_pull"][strong])
    rows = [("pulls of", "number", "mean", "width")]
    for name, values in pulls.items():
        width = f"{np.std(values):.2f}" if len(values) > 1 else "-"
        rows.append((name, len(values), f"{np.mean(values):+.2f}", width))
    return rows


def _describe_clone(cloned):
    source, template = cloned.source, cloned.template
    axis = source.spectrum.spectral_axis
    inside = (axis >= template.coverage[0]) & (axis <= template.coverage[1])
    difference = template.evaluate(axis[inside]).flux / source.spectrum.flux[inside] - 1
    visible = int(np.sum(source.lines["depth"] >= 0.01))
    return (
        f"{len(source.lines)} lines made ({visible} deeper than 1 %), {len(template.lines)} in the clone, "
        f"which differs by {100 * np.std(difference.value):.3f} % (rms)"
    )


def _compare_parameters(fit, truth):
    values = {**truth, **{f"continuum_{k}": c for k, c in enumerate(truth["continuum"])}}
    rows = []
    for name, value, std, unit, fixed in fit.parameters.iterrows("name", "value", "std", "unit", "fixed"):
        injected = values.get(name)
        if injected is not None and not fixed:
            rows.append((name, injected, value, std, (value - injected) / std, unit))
    return QTable(rows=rows, names=("name", "injected", "recovered", "std", "pull", "unit"))


def _compare_lines(fit, true_star):
    lines = fit.lines[np.asarray(fit.lines["component"]) == "star"]
    true = QTable({name: getattr(true_star, name).quantity for name in true_star.param_names[:4]})
    # the centres are fixed, so that the lines of the fit are those of the template
    index = np.abs(true["x_0"][:, None] - lines["line_center"][None, :]).argmin(axis=0)
    true = true[index]
    width = equivalent_width(*(true[name].to_value(u.AA) for name in ("strength", "fwhm_G", "fwhm_L")))
    lines["injected_width"] = width * u.AA
    lines["width_pull"] = ((lines["equivalent_width"] - lines["injected_width"]) / lines["equivalent_width_err"]).value
    change = np.log((lines["strength"] / true["strength"]).value)
    lines["log_strength_pull"] = change / (lines["strength_err"] / np.abs(lines["strength"])).value
    first, last = fit.observed.spectral_axis[[0, -1]]
    return lines[(lines["line_center"] > first) & (lines["line_center"] < last)]
