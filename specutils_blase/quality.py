"""How good every order of a fit is: rms against photon noise, autocorrelation of the residual, and what spoils it."""

import numpy as np
from astropy import constants
from astropy import units as u
from astropy.table import QTable
from specutils import Spectrum

from specutils_blase.adapters import gaps_between, wavelength_values

__all__ = ["autocorrelation", "order_parts", "order_table", "scaled_residual", "standard_deviation"]

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
    "rms": ("{:.3%}", "root mean square of the residual over the continuum"),
    "noise": ("{:.3%}", "root mean square of the uncertainties over the continuum: the photon noise"),
    "ratio": (".2f", "rms over noise"),
    "saturated": ("{:.1%}", f"share of the pixels in which the tellurics transmit less than {SATURATED}"),
    "autocorrelation": (".2f", "of the residual in units of its noise, between neighbouring pixels"),
    "chi2": (".2f", "per pixel"),
    "remark": (None, f"what a ratio above {REMARKABLE} is due to, as far as the residual tells"),
}


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
    rows = []
    for number, part in order_parts(fit):
        used = np.isfinite(part.residual.flux.value)
        if used.any():
            rows.append((number, *_measured(part, used, fit.fit_info.get("wavelength_medium", "vacuum"))))
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


def scaled_residual(part):
    """
    The residual of one order in units of its noise, by increasing wavelength, for `autocorrelation`.

    Parameters
    ----------
    part : SpectrumFit
        Of one spectrum; without uncertainties the noise is taken to be the same share of the continuum everywhere.

    Returns
    -------
    values : ndarray, shape (n_pix,)
        NaN where a pixel is not used.
    run : ndarray of int, shape (n_pix,)
        Goes up by one at every gap, where pixels are missing that the spectrum does not have.
    """
    residual, scale = part.residual.flux.value, standard_deviation(part.observed)
    if scale is None:
        scale = part.components["continuum"].flux.to_value(part.observed.flux.unit)
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


def _measured(part, used, medium):
    """A row of the table of orders, from the wavelengths on."""
    unit = part.observed.flux.unit
    residual = part.residual.flux.to_value(unit)[used]
    level = part.components["continuum"].flux.to_value(unit)[used]
    wave = wavelength_values(part.observed.spectral_axis[used], wavelength_medium=medium)
    sigma = standard_deviation(part.observed)
    rms, noise, chi2 = float(np.sqrt(np.mean((residual / level) ** 2))), np.nan, np.full(residual.size, np.nan)
    if sigma is not None:
        noise, chi2 = float(np.sqrt(np.mean((sigma[used] / level) ** 2))), (residual / sigma[used]) ** 2
    telluric = part.components.get("telluric")
    saturated = np.zeros(residual.size, dtype=bool) if telluric is None else telluric.flux.value[used] < SATURATED
    values, run = scaled_residual(part)
    correlation, n_pairs = autocorrelation(values, LONGEST, run)
    covered = np.mean(_is_covered(part, wave))
    remark = _remark(part, used, covered, chi2, saturated, correlation, n_pairs) if rms > REMARKABLE * noise else ""
    return (wave.min(), wave.max(), residual.size, rms, noise, rms / noise, float(np.mean(saturated)),
            float(correlation[1]), float(np.mean(chi2)), remark)  # fmt: skip


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
        remarks.append("residuals are white: there is more noise than the uncertainties say")
    return "; ".join(remarks)


def _length(correlation):
    """The lag at which a correlation has fallen to half of that of neighbours, as text."""
    fallen = np.flatnonzero(~(correlation[1:] > 0.5 * correlation[1]))
    return str(fallen[0] + 1) if fallen.size else f"more than {correlation.size - 1}"


def _percent(share):
    """A share as text: whole per cent from ten on, two digits below."""
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.2g} %"
