"""How good every order of a fit is: rms against photon noise, autocorrelation of the residual, and what spoils it."""

import numpy as np
from astropy import constants
from astropy import units as u
from astropy.table import QTable
from specutils import Spectrum

from specutils_blase.adapters import gaps_between, wavelength_values

__all__ = ["autocorrelation", "has_light", "noise_of", "order_parts", "order_table", "scaled_residual",
           "standard_deviation"]  # fmt: skip

# Numbers relative to the continuum are of pixels where it is at least this share of its median over the order: at the
# ends of a blaze, where it may be zero, they say nothing.
LEAST_LIGHT = 0.1
# A continuum that is worth more than this share of its coefficients has used them up.
USED_UP = 0.9
# An order whose rms is this many times its photon noise gets a remark.
REMARKABLE = 1.5
# The core of a telluric line is saturated where less than this is transmitted.
SATURATED = 0.05
# Saturated pixels are remarked on that carry a tenth of chi2, and at least twice their share.
SATURATED_CHI2, SATURATED_EXCESS = 0.1, 2.0
# Few pixels far off: at most this share of them is beyond so many sigma, and carries at least that share of chi2.
FEW, FAR_OFF, CARRIED = 0.01, 5.0, 0.5
# An order with less than this share of its pixels within the template is not well covered.
WELL_COVERED = 0.95
# A template without lines in an order leaves ones, to the rounding of the response.
NO_LINES = 1e-8
# An autocorrelation of white noise is below this many standard deviations, 1 / sqrt(n) each.
WHITE = 5.0
# As far as the length of a correlation is looked for [pixels].
LONGEST = 100

COLUMNS = {
    "order": (None, "number, as in observed"),
    "wavelength_min": (".2f", "of the used pixels, vacuum"),
    "wavelength_max": (".2f", "of the used pixels, vacuum"),
    "n_pixels": (None, "used pixels"),
    "rms": ("{:.3%}", f"root mean square of the residual over the continuum, where that is above {LEAST_LIGHT} of its "
            "median"),
    "noise": ("{:.3%}", "the same of the uncertainties: the photon noise; without uncertainties, of the noise that the "
              "fit estimates from neighbouring pixels"),
    "ratio": (".2f", "rms over noise"),
    "saturated": ("{:.1%}", f"share of the pixels in which the tellurics transmit less than {SATURATED}"),
    "autocorrelation": (".2f", "of the residual in units of its noise, between neighbouring pixels"),
    "chi2": (".2f", "per pixel"),
    "remark": (None, f"what a ratio above {REMARKABLE} is due to, as far as the residual tells, and whether a spline "
               "continuum is at the end of its freedom"),
}  # fmt: skip


def order_table(fit):
    """
    The quality of every order that was fitted.

    Parameters
    ----------
    fit : SpectrumFit

    Returns
    -------
    QTable
        See `SpectrumFit.orders`.
    """
    rows, medium = [], fit.fit_info.get("wavelength_medium", "vacuum")
    fitted = [(k, part) for k, part in order_parts(fit) if np.isfinite(part.residual.flux.value).any()]
    worth = fit.fit_info.get("continuum_parameters", [])
    if len(worth) != len(fitted):  # polynomials, or one order of several, which does not know its place among them
        worth = [0.0] * len(fitted)
    for (number, part), n_worth in zip(fitted, worth, strict=True):
        *measured, remark = _measured(part, np.isfinite(part.residual.flux.value), medium)
        rows.append((number, *measured, "; ".join(filter(None, [remark, _used_up(part, n_worth)]))))
    table = QTable(rows=rows, names=tuple(COLUMNS))
    for name, (form, description) in COLUMNS.items():
        if name.startswith("wavelength"):
            table[name] = table[name] * u.AA
        table[name].info.description = description
        table[name].info.format = form
    return table


def order_parts(fit):
    """
    Every order of a fit, those that were skipped among them: list of (number, SpectrumFit).

    Parameters
    ----------
    fit : SpectrumFit
        One of a single spectrum is its order 0.
    """
    if isinstance(fit.observed, Spectrum) and fit.observed.flux.ndim == 1:
        return [(0, fit)]
    count = len(fit.residual.flux) if hasattr(fit.residual, "flux") else len(fit.residual)
    return [(k, fit.order(k)) for k in range(count)]


def standard_deviation(spectrum):
    """
    Standard deviations of a spectrum in the unit of its flux, or None where its uncertainty has no meaning.

    Parameters
    ----------
    spectrum : Spectrum

    Returns
    -------
    ndarray, shape (n_pix,), or None
    """
    kind = {"std": 1.0, "var": 0.5, "ivar": -0.5}.get(getattr(spectrum.uncertainty, "uncertainty_type", None))
    if kind is None:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        return (spectrum.uncertainty.quantity**kind).to_value(spectrum.flux.unit)


def has_light(level, used):
    """
    Where a continuum is high enough for numbers relative to it.

    Parameters
    ----------
    level : ndarray, shape (n_pix,)
        The continuum of an order; NaN has no light.
    used : ndarray of bool, shape (n_pix,), or slice
        The pixels whose median it is compared with; one at least.

    Returns
    -------
    ndarray of bool, shape (n_pix,)
        Of all pixels, used or not.
    """
    middle = np.median(level[used])
    return level * middle >= LEAST_LIGHT * middle**2  # of the same sign


def noise_of(part):
    """
    Standard deviations of one order in the unit of its flux: its own, or what the fit has estimated without.

    Parameters
    ----------
    part : SpectrumFit
        Of one spectrum.

    Returns
    -------
    ndarray, shape (n_pix,), or None
        None where neither is known.
    """
    sigma = standard_deviation(part.observed)
    if sigma is None and "noise" in part.components:
        sigma = part.components["noise"].flux.to_value(part.observed.flux.unit)
    return sigma


def scaled_residual(part):
    """
    The residual of one order in units of its noise, by increasing wavelength, for `autocorrelation`.

    Parameters
    ----------
    part : SpectrumFit
        Of one spectrum; where no noise is known it is taken to be the same share of the continuum everywhere.

    Returns
    -------
    values : ndarray, shape (n_pix,)
        NaN where a pixel is not used.
    run : ndarray of int, shape (n_pix,)
        Goes up by one at every gap, where pixels are missing that the spectrum does not have.
    """
    residual, scale = part.residual.flux.value, noise_of(part)
    if scale is None:
        scale, used = part.components["continuum"].flux.to_value(part.observed.flux.unit), np.isfinite(residual)
        scale = np.where(used & has_light(scale, used), scale, np.nan) if used.any() else scale
    wave = wavelength_values(part.observed.spectral_axis)
    by_wave, run = np.argsort(wave), np.zeros(wave.size, dtype=int)
    run[gaps_between(wave[by_wave])[0] + 1] = 1
    return (residual / scale)[by_wave], np.cumsum(run)


def autocorrelation(values, n_lags, run=None):
    r"""
    The autocorrelation of a sequence with gaps.

    .. math:: \rho_k = \sum z_i z_{i+k} \Big/ \sqrt{\sum z_i^2 \sum z_{i+k}^2}

    over all pairs of which both are there, with no gap between them.  The mean is not subtracted: that of a residual is
    zero, or an error of the model.  Of white noise the standard deviation is :math:`1 / \sqrt{n}` for n pairs
    (Box & Jenkins, Time Series Analysis, 1970).

    Parameters
    ----------
    values : ndarray, shape (n,)
        NaN is not there; its place counts.
    n_lags : int
    run : ndarray of int, shape (n,), optional
        Pairs have the same number: it changes where a gap of unknown length is.

    Returns
    -------
    correlation : ndarray, shape (n_lags + 1,)
        From lag 0, which is 1; NaN without pairs.
    n_pairs : ndarray of int, shape (n_lags + 1,)
    """
    values = np.asarray(values, dtype=float)
    run = np.zeros(values.size, dtype=int) if run is None else np.asarray(run)
    correlation, n_pairs = np.full(n_lags + 1, np.nan), np.zeros(n_lags + 1, dtype=int)
    for lag in range(min(n_lags + 1, values.size)):
        first, second = values[: values.size - lag], values[lag:]
        both = np.isfinite(first) & np.isfinite(second) & (run[: values.size - lag] == run[lag:])
        first, second = first[both], second[both]
        n_pairs[lag] = first.size
        if (power := np.sum(first**2) * np.sum(second**2)) > 0:
            correlation[lag] = np.sum(first * second) / np.sqrt(power)
    return correlation, n_pairs


def vacuum_wavelengths(part, medium):
    """Of the pixels of one order of a fit [Angstrom], whose axis measures `medium`; shape (n_pix,)."""
    return wavelength_values(part.observed.spectral_axis, wavelength_medium=medium)


def _measured(part, used, medium):
    """A row of the table of orders, from the wavelengths on."""
    unit = part.observed.flux.unit
    residual = part.residual.flux.to_value(unit)[used]
    level = part.components["continuum"].flux.to_value(unit)[used]
    wave = wavelength_values(part.observed.spectral_axis[used], wavelength_medium=medium)
    lit, sigma = has_light(level, slice(None)), noise_of(part)
    rms, noise, chi2 = _rms(residual[lit] / level[lit]), np.nan, np.full(residual.size, np.nan)
    if sigma is not None:
        noise, chi2 = _rms(sigma[used][lit] / level[lit]), (residual / sigma[used]) ** 2
    telluric = part.components.get("telluric")
    saturated = np.zeros(residual.size, dtype=bool) if telluric is None else telluric.flux.value[used] < SATURATED
    values, run = scaled_residual(part)
    correlation, n_pairs = autocorrelation(values, LONGEST, run)
    covered = np.mean(_is_covered(part, wave))
    remark = _remark(part, used, covered, chi2, saturated, correlation, n_pairs) if rms > REMARKABLE * noise else ""
    return (wave.min(), wave.max(), residual.size, rms, noise, rms / noise, float(np.mean(saturated)),
            float(correlation[1]), float(np.mean(chi2)), remark)  # fmt: skip


def _rms(values):
    return float(np.sqrt(np.mean(values**2)))


def _is_covered(part, wave):
    """Whether the template of the star reaches vacuum wavelengths [Angstrom]."""
    if part.template is None or "coverage" not in part.template.meta:
        return np.ones(wave.size, dtype=bool)
    velocity = dict(zip(part.parameters["name"], part.parameters["value"], strict=True))["radial_velocity"]
    beta = velocity / constants.c.to_value(u.km / u.s)
    lower, upper = np.array(part.template.meta["coverage"]) * np.sqrt((1.0 + beta) / (1.0 - beta))
    return (wave > lower) & (wave < upper)


def _remark(part, used, covered, chi2, saturated, correlation, n_pairs):
    """Why an order is worse than its noise, from its chi2 (n_pix,), saturated pixels (n_pix,) and autocorrelation."""
    star, remarks, far = part.components.get("star"), [], chi2 > FAR_OFF**2
    without = star is not None and bool(np.all(np.abs(star.flux.value[used] - 1.0) < NO_LINES))
    if covered < WELL_COVERED:
        without = covered < 1.0 - WELL_COVERED
        remarks.append(f"the template of the star reaches {_percent(covered)} of the pixels" if covered else
                       "the template of the star does not reach it")  # fmt: skip
    elif without:
        remarks.append("the template of the star has no lines here")
    share, carried = np.mean(saturated), np.sum(chi2[saturated]) / np.sum(chi2)
    if carried > max(SATURATED_CHI2, SATURATED_EXCESS * share):
        remarks.append(f"{_percent(share)} of the pixels are saturated and carry {_percent(carried)} of chi2")
    beyond, carried = np.mean(far), np.sum(chi2[far]) / np.sum(chi2)
    limit = WHITE / np.sqrt(max(n_pairs[1], 1))
    if beyond <= FEW and carried >= CARRIED:
        remarks.append(f"few pixels far off ({_percent(beyond)} beyond {FAR_OFF:g} sigma carry {_percent(carried)} "
                       "of chi2)")  # fmt: skip
    elif without:
        pass  # what is correlated is the star
    elif correlation[1] > limit:
        remarks.append(f"errors of the model: residuals are correlated over {_length(correlation)} pixels")
    elif abs(correlation[1]) <= limit:
        said = "was estimated" if standard_deviation(part.observed) is None else "the uncertainties say"
        remarks.append(f"residuals are white: there is more noise than {said}")
    return "; ".join(remarks)


def _used_up(part, worth):
    """What there is to say of a spline continuum that is worth so many parameters."""
    size = sum(name.startswith("continuum_") for name in part.parameters["name"])
    if not worth > USED_UP * size:
        return ""
    used = np.flatnonzero(np.isfinite(part.residual.flux.value))
    every = (used[-1] + 1 - used[0]) / (size - 3)  # intervals of a cubic spline
    return f"the continuum wants more freedom than the knots of its spline have, one every {every:.0f} pixels"


def _length(correlation):
    """The lag at which a correlation has fallen to half of that of neighbours, as text."""
    fallen = np.flatnonzero(~(correlation[1:] > 0.5 * correlation[1]))
    return str(fallen[0] + 1) if fallen.size else f"more than {correlation.size - 1}"


def _percent(share):
    """A share as text: whole per cent from ten on, two digits below."""
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.2g} %"
