"""find_new_lines: lines that the templates of a fit lack; and templates with such lines added."""

import warnings
from dataclasses import replace

import numpy as np
from astropy import units as u
from astropy.table import QTable, Table, vstack

from specutils_blase.errors import BlaseWarning, explain
from specutils_blase.functional.constants import FWHM_PER_SIGMA, SPEED_OF_LIGHT
from specutils_blase.lines import line_table
from specutils_blase.modeling import VoigtForest1D
from specutils_blase.solvers.detection import search
from specutils_blase.solvers.exposures import element
from specutils_blase.solvers.lines import Lines

__all__ = ["find_new_lines"]

COMPONENTS = ("star", "telluric", "unknown")
LENGTHS = ("line_center", "strength", "fwhm_gauss", "fwhm_lorentz")


def find_new_lines(fit, *others, false_alarm=0.01):
    r"""
    Absorption lines that the templates of a fit lack, from its residual.

    At trial wavelengths, three in a resolution element, the score test asks for the strength of a line there, seen as
    every line is (rotation, line spread function, pixels, continuum), with the median widths of the template's lines
    near.  All free parameters of the fit may follow: at a line that is there and free, one more is found only if its
    strength is off by much more than its prior allows, and hardly any where that line is strong.  Noise alone exceeds
    a signal-to-noise ratio u anywhere with the probability :math:`1 - \Phi(u) \exp(-L e^{-u^2/2} / 2\pi)`, with L
    from the correlation of neighbouring trials (Hotelling 1939, Am. J. Math. 61, 440; Davies 1987, Biometrika 74, 33).
    What is found is fitted, with everything else, and the search repeated, four times at most.  Lines within a
    resolution element of one that was seen better are one with it, and those whose strength comes out below three
    standard deviations are none: both are fitted once more without.

    The noise of every order is that of the uncertainties times the spread of the statistic itself (from the median of
    its absolute values) where that is above one: errors of the model that are everywhere do not pass for lines, those
    that are in few places, such as lines of wrong width, do.

    With several exposures of one star the statistic adds up twice, at rest wavelengths of the star and of the
    observatory, and a line belongs where it is the more likely.

    Parameters
    ----------
    fit : SpectrumFit
        Of `fit_spectrum`, for one exposure.
    *others : SpectrumFit
        Other exposures of the same star with another velocity of the Earth, all fitted with a template of the star.
    false_alarm : float
        Probability that noise alone gives one line or more.

    Returns
    -------
    QTable
        One row for each line, by increasing ``line_center`` (vacuum, at rest in the star or, for tellurics, at the
        observatory), with

        - ``line_center_err``;
        - ``component``: "star", "telluric", or "unknown" with one exposure or where ``log_odds`` is
          within 3 of zero; the wavelength of such a line is that of the star if there is one;
        - ``strength``, ``strength_err``: integrated optical depth as seen in ``fit``, with all else free in the fits;
        - ``fwhm_gauss``, ``fwhm_lorentz``: given, not measured;
        - ``snr``: of the statistic that found it;
        - ``false_alarm``: probability that noise alone has a peak as high anywhere;
        - ``log_odds``: ln of the likelihood ratio star : telluric, NaN with one exposure;
        - ``n_epochs``: in how many exposures the place was searched.

        ``meta`` holds ``false_alarm``, ``threshold`` (of ``snr``), ``n_places`` (number of independent places with the
        same probability), and ``noise_scale`` (for every fit the factor on the noise of every order, NaN where it was
        not fitted).

    Raises
    ------
    ValueError
        If a fit was read from a file, or if the exposures are less than a resolution element apart.
    """
    if not (np.isscalar(false_alarm) and np.isreal(false_alarm) and 0 < false_alarm < 1):
        raise ValueError(explain("false_alarm", "be a probability between 0 and 1", repr(false_alarm),
                                 "0.01 is the default"))  # fmt: skip
    fits = [fit, *others]
    for k, item in enumerate(fits):
        name = f"others[{k - 1}]" if k else "fit"
        if not hasattr(item, "exposure"):
            raise TypeError(explain(name, "be a SpectrumFit", type(item).__name__, "fit the spectrum first"))
        if item.exposure is None:
            raise ValueError(explain(name, "be what fit_spectrum returned", "one of a file or of a part of the orders",
                                     "fit the spectrum again"))  # fmt: skip
    exposures = [item.exposure for item in fits]
    if others:
        _check_apart(fits, exposures)
    found, errors, info = search(exposures, float(false_alarm))
    order = np.argsort(found.lines.center, kind="stable")
    lines, several = found.lines.take(order), len(fits) > 1
    table = QTable()
    table["line_center"], table["line_center_err"] = lines.center * u.AA, errors[1][order] * u.AA
    component = np.where(found.is_star, "star", "telluric")[order]
    table["component"] = np.where(found.is_decided[order], component, "unknown").astype("U8")
    table["strength"], table["strength_err"] = lines.strength * u.AA, errors[0][order] * u.AA
    table["fwhm_gauss"], table["fwhm_lorentz"] = lines.sigma * FWHM_PER_SIGMA * u.AA, 2.0 * lines.gamma * u.AA
    table["snr"], table["false_alarm"] = found.snr[order], info["chance"](found.snr[order])
    table["log_odds"] = found.log_odds[order] if several else np.full(len(order), np.nan)
    table["n_epochs"] = found.n_epochs[order]
    table.meta.update(wavelength_medium="vacuum", false_alarm=float(false_alarm), threshold=info["threshold"],
                      n_places=info["n_places"],
                      noise_scale=[item.exposure.spread(scale).tolist()
                                   for item, scale in zip(fits, info["scale"], strict=True)])  # fmt: skip
    return table


def _check_apart(fits, exposures):
    """Raise unless the exposures can tell star and air apart."""
    for k, item in enumerate(fits):
        if item.template is None:
            raise ValueError(explain("others", "be left out unless all fits have a template of the star",
                                     f"fit number {k} without", "give one fit alone"))  # fmt: skip
    shift = np.log([float(e.factor(True)) / float(e.factor(False)) for e in exposures]) * SPEED_OF_LIGHT
    width = max(element(e, False) for e in exposures)
    if np.ptp(shift) < width:
        raise ValueError(explain(
            "others", f"hold exposures in which the star moves by more than a resolution element, {width:.1f} km/s, "
            "against the air", f"{np.ptp(shift):.1f} km/s", "give exposures with another velocity of the Earth, and "
            "with their barycentric_velocity if the wavelengths are corrected for it",
        ))  # fmt: skip


def fitted_twice(fit_spectrum, arguments):
    """The fit with these arguments, and with the lines that its residual has."""
    first = fit_spectrum(**{**arguments, "new_lines": None})
    found = find_new_lines(first)
    return fit_spectrum(**{**arguments, "new_lines": found}) if len(found) else first


def with_new_lines(template, tellurics, table):
    """The templates with the lines of a table of new lines added, marked in the column ``new`` of their tables."""
    if table is None:
        return template, tellurics
    table = _checked(table)
    to_star = table["component"] == "star"
    if template is not None:
        to_star |= table["component"] == "unknown"
    out, waiting = [], np.ones(len(table), dtype=bool)
    for k, item in enumerate([template, *tellurics]):
        if item is None:
            out.append(None)
            continue
        lower, upper = item.coverage
        mine = waiting & (to_star == (k == 0)) & (table["line_center"] >= lower) & (table["line_center"] <= upper)
        out.append(_extended(item, table[mine], "star" if k == 0 else "telluric"))
        waiting &= ~mine
    if waiting.any():
        warnings.warn(f"new_lines: {np.count_nonzero(waiting)} of {len(table)} lines are left out, because no template "
                      "covers them; give templates of their component", BlaseWarning, stacklevel=3)  # fmt: skip
    return out[0], out[1:]


def _checked(table):
    """The lines as a QTable whose lengths are lengths."""
    if not isinstance(table, Table):
        raise TypeError(explain("new_lines", "be None, True or a table of find_new_lines", repr(table),
                                "None is the default"))  # fmt: skip
    table = QTable(table)
    if missing := sorted({*LENGTHS, "component"} - set(table.colnames)):
        raise ValueError(explain("new_lines", f"have the columns {sorted({*LENGTHS, 'component'})}",
                                 f"none of the name {missing[0]}", "see find_new_lines"))  # fmt: skip
    for name in LENGTHS:
        values = u.Quantity(table[name])
        if not (values.unit.is_equivalent(u.AA) and np.all(values.value > 0.0)):
            raise ValueError(explain(f'new_lines["{name}"]', "hold positive lengths", f"{values[:3]} ...",
                                     "give it a unit, e.g. Angstrom, and drop the other rows"))  # fmt: skip
    if strange := sorted(set(np.asarray(table["component"]).tolist()) - set(COMPONENTS)):
        raise ValueError(explain('new_lines["component"]', f"be among {COMPONENTS}", repr(strange[0]), "correct it"))
    return table


def _extended(template, table, component):
    """A template with the rows of a table of new lines."""
    values = [table[name].to_value(u.AA) for name in LENGTHS]
    count, model = len(table), template.model
    lines = Lines(values[0], values[1], values[2] / FWHM_PER_SIGMA, values[3] / 2.0)
    none = np.zeros(count, dtype=int)
    own = line_table(lines, np.zeros((count, 4, 4)), index=none - 1, flags=none, component=component, form=model.form)
    rows = QTable(template.lines, copy=True)
    for name in set(rows.colnames) - set(own.colnames):
        own[name] = _blank(rows[name], count)
    rows["new"], own["new"] = np.zeros(len(rows), dtype=bool), np.ones(count, dtype=bool)
    own = own[rows.colnames]
    order = np.argsort(np.concatenate([model.x_0.quantity.to_value(u.AA), values[0]]), kind="stable")
    joint = vstack([rows, own], metadata_conflicts="silent")[order]
    joint.meta = dict(rows.meta)
    names = ("x_0", "strength", "fwhm_G", "fwhm_L")
    parameters = [np.concatenate([getattr(model, name).quantity.to_value(u.AA), value])[order] * u.AA
                  for name, value in zip(names, values, strict=True)]  # fmt: skip
    continuum = model.continuum.value if model.continuum.unit is None else model.continuum.quantity
    other = VoigtForest1D(*parameters, continuum=continuum, continuum_domain=model.continuum_domain,
                          teff=model.teff, form=model.form, tolerance=model.tolerance)  # fmt: skip
    for name in names:
        std = getattr(model, name).std
        if std is not None:
            before = np.broadcast_to(np.asarray(std, dtype=float), model.n_lines)
            getattr(other, name).std = np.concatenate([before, np.full(count, np.nan)])[order]
    return replace(template, model=other, lines=joint, line_covariance=None)


def _blank(column, count):
    """A column of a table with nothing known."""
    values = np.zeros(count, dtype=column.dtype)
    if values.dtype.kind in "if":
        values[:] = -1 if values.dtype.kind == "i" else np.nan
    return u.Quantity(values, column.unit) if isinstance(column, u.Quantity) else values
