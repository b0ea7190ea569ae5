"""Finding lines, and the line table: columns, equivalent widths, errors, flags."""

import numpy as np
from astropy import units as u
from astropy.table import QTable
from scipy.signal import find_peaks, peak_widths
from scipy.special import erfcx

from specutils_blase.adapters import quantity_value, read_spectrum
from specutils_blase.errors import check_whole, explain
from specutils_blase.flags import AT_BOUND, BLENDED, FLAG_MEANING, OUTSIDE_WINDOW, PRIOR_DOMINATED
from specutils_blase.functional import equivalent_widths
from specutils_blase.functional.constants import FWHM_PER_SIGMA
from specutils_blase.solvers.lines import CENTER, GAMMA, SIGMA, STRENGTH, Lines, continuum_columns, peak_profile

__all__ = ["find_lines", "AT_BOUND", "BLENDED", "PRIOR_DOMINATED", "OUTSIDE_WINDOW"]

# Shares of the full width of a peak with which the Gaussian and the Lorentzian FWHM start.
GAUSSIAN_SHARE, LORENTZIAN_SHARE = 0.6, 0.3
# Bins this many standard deviations, and this share of the continuum, above the majority are taken for emission.
OUTLYING, NOTICEABLE = 5.0, 0.005
# In a spectrum of emission lines the medians of the bins lie below this share of the way from their faintest to their
# brightest pixels, and follow the continuum within this share of it.
LOW_MEDIAN, SMOOTH = 0.25, 0.1
# Samples within this share of a curve lie on it; so many of all are many, and this share of those is hardly any.
ON_CURVE, MANY, HARDLY_ANY = 0.005, 0.1, 0.05
# Highest effective temperature [K], of a neutron star.
HOTTEST = 1e7
# A continuum that starts below this share of its maximum anywhere is not one.
LEAST = 0.02
# Deepest start: the optical depth of a black line cannot be read from its depth.
DEEPEST = 1.0 - 1e-4


def find_lines(spectrum, prominence=0.01, *, teff=None, continuum_degree=5, window=None, exclude_regions=None,
               wavelength_medium=None):  # fmt: skip
    """
    Absorption and emission lines of a spectrum, found by the prominence of their peaks.

    The spectrum is divided by its continuum (blackbody times Legendre polynomial along the upper envelope).
    Absorption lines are local minima below it, emission lines local maxima above it.  A line's first strength and
    widths come from its own peak: with w the full width at half prominence, but on either side no further than to the
    valley before the next peak, fwhm_gauss = 0.6 w, fwhm_lorentz = 0.3 w, and the strength is the one whose Voigt
    profile has the optical depth -ln(1 - depth) at the centre.

    Parameters
    ----------
    spectrum : Spectrum
        One-dimensional; see `clone_spectrum`.
    prominence : float
        Smallest prominence, as a fraction of the continuum, between 0 and 1.
    teff : Quantity, optional
        Temperature of the blackbody in the continuum; None means no blackbody.
    continuum_degree : int
        Degree of the polynomial.
    window, exclude_regions : SpectralRegion, optional
        As in `specutils.fitting.fit_lines`.
    wavelength_medium : "vacuum", "air" or None
        What the spectral axis measures; None: what the metadata say, else vacuum.

    Returns
    -------
    QTable
        Columns ``line_center`` (vacuum), ``line_type``, ``line_center_index`` (pixel of the input), ``prominence``,
        ``depth``, ``strength``, ``fwhm_gauss``, ``fwhm_lorentz``, by increasing wavelength.

    Raises
    ------
    ValueError
        If no line has the prominence asked for.

    Examples
    --------
    >>> from astropy import units as u
    >>> from specutils_blase import find_lines
    >>> from specutils_blase.simulation import simulate_star
    >>> star = simulate_star(1, n_lines=60, lower=10500 * u.AA, upper=10512 * u.AA)
    >>> lines = find_lines(star.spectrum, prominence=0.05, teff=4700 * u.K)
    >>> for center, depth in lines.iterrows("line_center", "depth"):
    ...     print(f"{center:.1f}, depth {depth:.2f}")
    10501.7 Angstrom, depth 0.05
    10503.7 Angstrom, depth 0.10
    10507.1 Angstrom, depth 0.46
    10510.3 Angstrom, depth 0.15
    10511.6 Angstrom, depth 0.08
    """
    check_prominence(prominence)
    arrays = read_spectrum(spectrum, window=window, exclude_regions=exclude_regions,
                           wavelength_medium=wavelength_medium)  # fmt: skip
    teff = quantity_value(teff, u.K, "teff", positive=True, allow_none=True)
    wave, flux = arrays.wave[arrays.good], arrays.flux[arrays.good]
    basis, coefficients = fit_envelope(wave, flux, continuum_degree, teff)
    flat = flux / (basis @ coefficients)
    peaks = [(pick(wave, 1.0 - np.minimum(flat, 1.0), prominence), 1.0)]
    peaks.append((pick(wave, np.maximum(flat, 1.0) - 1.0, prominence), -1.0))
    lines = Lines(*(np.concatenate(a) for a in zip(*(starting_lines(p, sign) for p, sign in peaks), strict=True)))
    if len(lines) == 0:
        raise ValueError(no_line_message(prominence))
    index = np.concatenate([p["index"] for p, _ in peaks])
    order = np.argsort(lines.center, kind="stable")
    prominences = np.concatenate([p["prominence"] for p, _ in peaks])[order]
    depth = np.concatenate([p["height"] * sign for p, sign in peaks])[order]
    lines = lines.take(order)
    table = QTable(meta={"wavelength_medium": "vacuum", "prominence": prominence})
    _first_columns(table, lines, original_index(arrays, np.flatnonzero(arrays.good)[index[order]]))
    table["prominence"], table["depth"] = prominences, depth
    table["strength"] = lines.strength * u.AA
    table["fwhm_gauss"] = lines.sigma * FWHM_PER_SIGMA * u.AA
    table["fwhm_lorentz"] = 2.0 * lines.gamma * u.AA
    return table


def check_prominence(prominence):
    """Raise unless 0 < prominence < 1."""
    if not (np.isscalar(prominence) and np.isreal(prominence) and 0 < prominence < 1):
        raise ValueError(explain("prominence", "lie between 0 and 1 (a fraction of the continuum)", repr(prominence),
                                 "0.01 finds lines deeper than about one per cent"))  # fmt: skip


def no_line_message(prominence):
    """The text of the error when nothing was found."""
    return explain("prominence", "find at least one line", f"{prominence}, which finds none",
                   "lower it, or check that the spectrum has lines in the window")  # fmt: skip


def original_index(arrays, index):
    """Pixel numbers in the user's order."""
    return arrays.wave.size - 1 - index if arrays.is_reversed else index


def fit_envelope(wave, flux, degree, teff, *, n_bins_per_term=8, quantile=0.99, below=0.01):
    """Continuum along the upper envelope: an asymmetric least-squares fit to a high quantile of the flux in bins.

    Points below the curve count ``below`` times as much as points above it, so that bins full of lines do not pull.
    Bins that stand out above the majority hold emission lines and are left out.  If emission lines are everywhere,
    alone or between absorption lines, the continuum runs through the medians of the bins instead.

    Returns
    -------
    basis : ndarray, shape (n_pix, degree + 1)
    coefficients : ndarray, shape (degree + 1,)
    """
    check_whole("continuum_degree", degree, 0, "5 is usual")
    if wave.size < 4 * (degree + 1):
        expected = f"have at least {4 * (degree + 1)} usable pixels for a continuum of degree {degree}"
        raise ValueError(explain("spectrum", expected, wave.size, "lower continuum_degree or give more pixels"))
    basis = continuum_columns(wave, degree, teff)
    if teff is not None and not (teff <= HOTTEST and np.all(np.isfinite(basis)) and basis[:, 0].min() > 0):
        raise ValueError(explain("teff", "be the temperature of something that shines at these wavelengths",
                                 f"{teff:g} K", "check its unit, or leave it out"))  # fmt: skip
    n_bins = min(max(40, n_bins_per_term * (degree + 1)), wave.size // 3)
    bounds = np.linspace(0, wave.size, n_bins + 1).astype(int)
    ranges = list(zip(bounds[:-1], bounds[1:], strict=True))
    low, middle, index = (np.array([a + np.argsort(flux[a:b])[int(q * (b - a - 1))] for a, b in ranges])
                          for q in (1.0 - quantile, 0.5, quantile))  # fmt: skip
    # where little is free of lines only a simpler curve stays above zero: the continuum starts from that
    for n_terms in range(degree + 1, 0, -1):
        rows, coefficients = basis[:, :n_terms], np.zeros(degree + 1)
        start = _through_majority(rows[middle], flux[middle])
        if not _is_emission(flux[low], flux[middle], flux[index], rows[middle] @ start):
            top = index[~_stands_out(rows[index], flux[index])]
            upper = _reweighted(rows[top], flux[top], lambda excess: np.where(excess > 0, 1.0, below))
            if not _is_between(flux, rows @ start, rows @ upper):
                start = upper
        coefficients[:n_terms] = start
        curve = (basis @ coefficients) / basis[:, 0]  # the polynomial: a blackbody may fall as far as it likes
        if curve.min() > LEAST * curve.max():
            return basis, coefficients
    raise ValueError(explain("spectrum", "have a positive continuum", "an upper envelope that crosses zero",
                             "check how it was read, or use the window where there is flux"))  # fmt: skip


def _is_emission(low, middle, high, level):
    """Whether emission lines stand on a continuum: most medians of the bins lie low, and on a smooth curve."""
    spread = np.sum(high - low)
    rough = np.median(np.abs(middle - level))
    return np.sum(middle - low) < LOW_MEDIAN * spread and rough < SMOOTH * np.median(high - low)


def _is_between(flux, middle, upper):
    """Whether lines of both kinds stand on `middle`: many samples lie on it, and hardly any on the `upper` envelope."""
    noise = np.median(np.abs(np.diff(flux, 2))) / np.median(np.abs(flux))  # 1.65 standard deviations
    on_middle, on_upper = (np.mean(np.abs(flux - c) < (ON_CURVE + noise) * np.abs(c)) for c in (middle, upper))
    return on_middle > MANY and on_upper < HARDLY_ANY * on_middle


def _stands_out(rows, values):
    """Points far above the curve that runs through the majority, shape (n_bins,)."""
    level = np.median(np.abs(values))
    excess = values - rows @ _through_majority(rows, values)
    return excess > np.maximum(OUTLYING * 1.4826 * np.median(np.abs(excess)), NOTICEABLE * level)


def _through_majority(rows, values):
    """Coefficients of the curve with the least sum of absolute differences."""
    least = 1e-5 * np.median(np.abs(values)) or 1.0
    return _reweighted(rows, values, lambda excess: 1.0 / np.maximum(np.abs(excess), least))


def _reweighted(rows, values, weights, n_iterations=50):
    """Coefficients of a least-squares fit whose weights depend on values - fit."""
    weight = np.ones(len(values))
    for _ in range(n_iterations):
        root = np.sqrt(weight)
        coefficients = np.linalg.lstsq(rows * root[:, None], values * root, rcond=None)[0]
        new = weights(values - rows @ coefficients)
        if np.allclose(new, weight, rtol=1e-6, atol=0):
            break
        weight = new
    return coefficients


def pick(wave, height, prominence):
    """Peaks of `height` (n_pix,) above `prominence` (number or per pixel): dict of arrays.

    Returns
    -------
    dict
        index, center [Angstrom] (vertex of the parabola through the peak's three samples), height, prominence,
        width (full, at half prominence, on either side no further than to the valley [Angstrom]).
    """
    threshold = np.min(prominence)
    index, info = find_peaks(height, prominence=threshold)
    keep = info["prominences"] >= np.broadcast_to(prominence, height.shape)[index]
    index, info = index[keep], {k: v[keep] for k, v in info.items()}
    data = (info["prominences"], info["left_bases"], info["right_bases"])
    step = np.gradient(wave)[index] if wave.size > 1 else np.ones(index.size)
    first, last = peak_widths(height, index, rel_height=0.5, prominence_data=data)[2:]
    valley = _valleys(height, index)
    first[1:], last[:-1] = np.maximum(first[1:], valley), np.minimum(last[:-1], valley)
    width = (last - first) * step
    left, mid, right = (height[index + k] for k in (-1, 0, 1))
    curvature = left - 2 * mid + right
    shift = np.where(curvature < 0, 0.5 * (left - right) / np.where(curvature < 0, curvature, 1.0), 0.0)
    return {"index": index, "center": wave[index] + np.clip(shift, -0.5, 0.5) * step, "height": mid,
            "prominence": info["prominences"], "width": np.maximum(width, 2.0 * step)}  # fmt: skip


def _valleys(height, index):
    """Where the height is least between peaks at increasing indices (n,), shape (n - 1,)."""
    if index.size < 2:
        return index[:0]
    between = slice(index[0], index[-1])
    depth, peak = height[between], np.repeat(np.arange(index.size - 1), np.diff(index))
    least = np.minimum.reduceat(depth, index[:-1] - index[0])
    bottom = np.flatnonzero(depth == least[peak])
    return index[0] + bottom[np.unique(peak[bottom], return_index=True)[1]]


def pick_ends(wave, height, prominence, widest):
    """Peaks at the ends of which `pick` sees no other side, as it has them: lines whose centres lie there or outside.

    What rises to an end over more than half of `widest` (full width [Angstrom]) is no line but a continuum.
    """
    prominence = np.broadcast_to(prominence, height.shape)
    found = []
    for end in (1, -1):
        side, distance = height[::end], np.abs(wave[::end] - wave[::end][0])
        top = int(np.argmax(np.diff(side) < 0))
        falling = side[top:]
        falling = falling[: np.argmax(falling > falling[0]) or falling.size]
        rise = falling[0] - falling.min()
        width = 2.0 * (distance[top + np.argmax(falling < falling[0] - 0.5 * rise)] - distance[top])
        least = prominence[::end][top]
        if falling[0] - side[0] < least <= rise and width <= widest:
            index = top if end == 1 else height.size - 1 - top
            found.append((index, wave[index], height[index], rise, max(width, 2.0 * distance[1])))
    columns = zip(*found, strict=True) if found else [()] * 5
    kinds = {"index": int, "center": float, "height": float, "prominence": float, "width": float}
    return {name: np.array(column, dtype=kinds[name]) for name, column in zip(kinds, columns, strict=True)}


def starting_lines(peaks, sign=1.0, depth=None):
    """Lines with the strength and widths that `find_lines` documents, from `pick`'s dict."""
    depth = peaks["height"] if depth is None else depth
    sigma = GAUSSIAN_SHARE * peaks["width"] / FWHM_PER_SIGMA
    gamma = LORENTZIAN_SHARE * peaks["width"] / 2.0
    optical_depth = -np.log1p(-np.clip(depth, 1e-5, DEEPEST)) if sign > 0 else np.log1p(np.maximum(depth, 1e-5))
    return Lines(peaks["center"], sign * optical_depth / peak_profile(sigma, gamma), sigma, gamma)


def _first_columns(table, lines, index):
    table["line_center"] = lines.center * u.AA
    table["line_type"] = np.where(lines.strength < 0, "emission", "absorption")
    table["line_center_index"] = index


def equivalent_width(lines, form="opacity"):
    """Equivalent width of each line alone and its derivatives.

    Parameters
    ----------
    lines : Lines
    form : {"opacity", "product"}

    Returns
    -------
    width : ndarray, shape (n_lines,) [Angstrom]
        Integral of 1 - exp(-a V), in the product form of min(a V, 1): positive for absorption.
    gradient : ndarray, shape (n_lines, 3)
        Derivatives with respect to ln |strength|, ln sigma, ln gamma.
    """
    return equivalent_widths.equivalent_width(lines.strength, lines.sigma, lines.gamma, form)


def peak_depth(lines, form="opacity"):
    """1 - transmission at each line's own centre and its derivatives as in `equivalent_width`."""
    y = lines.gamma / (lines.sigma * np.sqrt(2.0))
    value = erfcx(y)
    tau = lines.strength * value / (lines.sigma * np.sqrt(2.0 * np.pi))
    slope = y * (2.0 * y - 2.0 / (np.sqrt(np.pi) * value))  # d ln erfcx(y)/d ln y
    logs = np.stack([np.ones_like(y), -1.0 - slope, slope], axis=1)
    if form == "product":  # a factor of the product is cut at zero
        return np.minimum(tau, 1.0), np.where(tau < 1.0, tau, 0.0)[:, None] * logs
    return -np.expm1(-tau), (np.exp(-tau) * tau)[:, None] * logs


QUANTITIES = ("line_center", "strength", "fwhm_gauss", "fwhm_lorentz", "depth", "equivalent_width")


def quantity(lines, name, form="opacity"):
    """
    A column of the line table.

    Parameters
    ----------
    lines : Lines
    name : str
        Among `QUANTITIES`.
    form : {"opacity", "product"}, or ndarray of str, shape (n_lines,)

    Returns
    -------
    value : ndarray, shape (n_lines,)
        In Angstrom, or without unit (depth).
    gradient : ndarray, shape (n_lines, 4)
        Derivatives with respect to ln |strength|, ln sigma, ln gamma and the centre [Angstrom].
    """
    n = len(lines)
    value, gradient = np.zeros(n), np.zeros((n, 4))
    if name in ("depth", "equivalent_width"):
        compute = peak_depth if name == "depth" else equivalent_width
        form = np.broadcast_to(form, n)
        for one in np.unique(form):
            value[form == one], gradient[form == one, :3] = compute(lines.take(form == one), one)
        return value, gradient
    if name == "line_center":
        gradient[:, CENTER] = 1.0
        return lines.center, gradient
    row, value = {"strength": (STRENGTH, lines.strength), "fwhm_gauss": (SIGMA, lines.sigma * FWHM_PER_SIGMA),
                  "fwhm_lorentz": (GAMMA, 2.0 * lines.gamma)}[name]  # fmt: skip
    gradient[:, row] = value
    return value, gradient


def blended_widths(lines, covariance, form="opacity"):
    """
    The blend of every line and the total equivalent width of its blend, which is known better than its parts.

    Parameters
    ----------
    lines : Lines
    covariance : LineCovariance
    form : as in `quantity`

    Returns
    -------
    blend : ndarray of int, shape (n_lines,)
        -1: the line is in none.
    width, error : ndarray, shape (n_lines,) [Angstrom]
        Sum over the blend and its standard deviation; NaN where the line is in none.
    """
    blend, (width, error) = covariance.blends(), np.full((2, len(lines)), np.nan)
    value, gradient = quantity(lines, "equivalent_width", form)
    inside = blend >= 0
    total, variance = np.bincount(blend[inside], value[inside]), covariance.sums(gradient, blend)
    width[inside], error[inside] = total[blend[inside]], np.sqrt(np.maximum(variance, 0.0))[blend[inside]]
    return blend, width, error


def line_table(lines, covariance, *, index, flags, blends=None, component="star", form="opacity", error_scale=""):
    """The package's line table.

    Parameters
    ----------
    lines : Lines
        Sorted by centre.
    covariance : ndarray, shape (n_lines, 4, 4)
        Of (ln |strength|, ln sigma, ln gamma, centre [Angstrom]) for every line.
    index : ndarray of int, shape (n_lines,)
        Pixel of the centre in the user's spectrum.
    flags : ndarray of int, shape (n_lines,)
    blends : tuple, optional
        What `blended_widths` returns; None: no line is in a blend.
    component : str
    form : {"opacity", "product"}
    error_scale : str
        What the ``_err`` columns mean, for the table's meta.

    Returns
    -------
    QTable
    """
    n = len(lines)
    table = QTable(meta={"wavelength_medium": "vacuum", "form": form, "flags": FLAG_MEANING, "errors": error_scale})
    _first_columns(table, lines, index)
    for name in QUANTITIES:
        unit = u.one if name == "depth" else u.AA
        value, gradient = quantity(lines, name, form)
        err = _rounded(np.sqrt(np.maximum(np.einsum("ja,jab,jb->j", gradient, covariance, gradient), 0.0)))
        if name == "line_center":
            table.add_column(err * unit, name="line_center_err", index=1)
        else:
            table[name], table[f"{name}_err"] = (value, err) if name == "depth" else (value * unit, err * unit)
    table["flags"] = np.asarray(flags, dtype=np.int64)
    blend, total, error = blends or np.full((3, n), -1.0)
    table["blend"] = np.asarray(blend, dtype=np.int64)
    for name, values in (("equivalent_width", total), ("equivalent_width_err", _rounded(error))):
        table[f"blend_{name}"] = np.where(table["blend"] < 0, table[name].value, values) * u.AA
    table["component"] = np.full(n, component, dtype="U16")
    for name, text in DESCRIPTIONS.items():
        table[name].info.description = text
    for name in QUANTITIES:
        table[f"{name}_err"].info.description = f"standard deviation of {name}; see errors in the table's meta"
    return table


def _rounded(error):
    """Standard deviations to 24 bits: the others say nothing, and files are a quarter smaller without them."""
    mantissa, exponent = np.frexp(error)
    return np.ldexp(np.round(mantissa * 2.0**24), exponent - 24)


DESCRIPTIONS = {
    "line_center": "vacuum wavelength of the line",
    "line_type": "absorption or emission",
    "line_center_index": "pixel of the centre in the input spectrum",
    "strength": "integrated optical depth, negative for emission",
    "fwhm_gauss": "full width at half maximum of the Gaussian part",
    "fwhm_lorentz": "full width at half maximum of the Lorentzian part",
    "depth": "1 - transmission of this line alone at its centre",
    "equivalent_width": "of this line alone, positive for absorption",
    "flags": "bit mask, see the table's meta",
    "blend": "number of the blend: lines whose strengths are not known apart; -1: none",
    "blend_equivalent_width": "sum of the equivalent widths over the blend; of this line if it is in none",
    "component": "which template the line belongs to",
}


def local_rms(wave, residual, lines):
    """Rms of the residual within two widths of every line (five pixels at least), shape (n_lines,)."""
    running = np.concatenate([[0.0], np.cumsum(residual**2)])
    lo = np.searchsorted(wave, lines.center - 2.0 * lines.width)
    hi = np.searchsorted(wave, lines.center + 2.0 * lines.width)
    middle = (lo + hi) // 2
    lo, hi = np.maximum(np.minimum(lo, middle - 2), 0), np.minimum(np.maximum(hi, middle + 3), wave.size)
    return np.sqrt(np.maximum(running[hi] - running[lo], 0.0) / np.maximum(hi - lo, 1))


def has_data(wave, lines):
    """True for lines with one of the usable points within their width or a typical step, shape (n_lines,)."""
    reach = lines.width + np.median(np.diff(wave))
    return np.searchsorted(wave, lines.center - reach) < np.searchsorted(wave, lines.center + reach, side="right")
