"""Emission lines of the night sky: the wavelengths of an echelle checked against them, and a sky fibre subtracted."""

import warnings
from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.table import QTable
from scipy.ndimage import binary_dilation, median_filter
from specutils import Spectrum, SpectrumCollection, SpectrumList

from specutils_blase.errors import BlaseWarning, check_whole, explain
from specutils_blase.instrument import BandedLSF, MeasuredLSF, ResolvingPower, as_lsf
from specutils_blase.line_input import line_centers
from specutils_blase.orders import listed, read_orders
from specutils_blase.plotting import plot_airglow
from specutils_blase.solvers.emission import EmissionLines, fit_emission
from specutils_blase.solvers.lines import continuum_columns

__all__ = ["AirglowFit", "fit_airglow", "subtract_sky"]

# Lines closer than this part of a resolution element are one component with the ratio of the list.
UNRESOLVED = 0.7
# Signal-to-noise ratio of the flux from which on a line is seen, lines that are needed for each coefficient, and how
# far apart they are to lie for a slope, of 2 for the whole order.
SEEN, NEEDED, SPREAD = 5.0, 3, 1.0
# Lines that are further off than this in units of their errors are not where the list has them.
FAR = 6.0
# Sky lines stand out from a running median over so many pixels by this many standard deviations, and have flanks of so
# many pixels.  Iterations of their ratio, each of which gains a digit or more.
RUNNING, STANDS_OUT, FLANK, YORK = 61, 10.0, 2, 20
# Throughput of the object's fibre over that of the sky, at most: what is measured beyond is no sky.
LARGEST_SCALE = 5.0
KMS = u.km / u.s


@dataclass(frozen=True, eq=False)
class AirglowFit:
    """
    What `fit_airglow` found.

    Attributes
    ----------
    orders : QTable
        A row for each order: ``offset`` and ``slope``, what its wavelengths lack, as a velocity: the wavelength of a
        pixel is that of the file times ``1 + (offset + slope * x) / c``, where x goes from -1 at its ``lower`` end
        to 1 at its ``upper`` (both in vacuum); ``resolving_power``; each with ``_err``; ``n_seen``, the number of lines
        whose flux is more than five times its error; ``scatter``, the standard deviation (from the median absolute
        one) of the velocities of those lines about the fit; and ``chi2``, reduced.  NaN where an order has too few.
    lines : QTable
        A row for each line or unresolved group: ``line_center`` (vacuum, of the list), ``order``, ``flux``,
        ``velocity`` at which it is seen in the wavelengths of the file when fitted alone, each with ``_err``;
        ``n_members``; ``seen``; ``apart``, lines that lie elsewhere than the list says and have no part in the offset.
    model_spectrum, residual : Spectrum, SpectrumList or SpectrumCollection
        As given.

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
    >>> offset, error, scatter = fit.orders["offset", "offset_err", "scatter"][0]
    >>> print(f"{offset:.2f} +- {error:.2f}, scatter of {len(fit.lines)} lines {scatter:.2f}")
    -0.50 km / s +- 0.01 km / s, scatter of 6 lines 0.04 km / s

    The wavelengths that the file should have had:

    >>> x = 2 * (wave - wave.mean()) / np.ptp(wave)
    >>> lacking = offset + fit.orders["slope"][0] * x
    >>> right = sky.spectral_axis * (1 + (lacking / (299792.458 * u.km / u.s)).value)
    >>> print((right - sky.spectral_axis)[600].round(3))
    -0.017 Angstrom
    """

    orders: QTable
    lines: QTable
    model_spectrum: Spectrum | SpectrumList | SpectrumCollection
    residual: Spectrum | SpectrumList | SpectrumCollection

    def __repr__(self):
        offset = self.orders["offset"].value
        known = np.isfinite(offset)
        middle = f", median offset {np.median(offset[known]):.3f} km / s" if known.any() else ""
        return f"<AirglowFit: {known.sum()} of {len(offset)} orders, {self.lines['seen'].sum()} lines{middle}>"

    def plot(self, ax=None):
        """Draw the velocities of the lines that are seen, and the fit of every order; an Axes."""
        return plot_airglow(self, ax)


def fit_airglow(observed, lines, lsf=55_000, *, wavelength_degree=1, continuum_degree=4, weights="unc", window=None,
                exclude_regions=None, wavelength_medium=None):  # fmt: skip
    """
    Measure the wavelengths of echelle orders with emission lines of the night sky.

    In every order for itself: lines without a width of their own, at the wavelengths of the list moved by one velocity
    that may change along the order, seen through a Gaussian line spread function and the pixels, on a polynomial.
    Their fluxes are free, but for lines that are not resolved, whose ratio is that of the list.  Lines that the list
    lacks and cosmic rays pull with bounded force, lines that it has at a wrong place not at all.

    Parameters
    ----------
    observed : Spectrum, SpectrumList, SpectrumCollection, or list of Spectrum
        A spectrum of the sky; see `fit_spectrum`.
    lines : Table
        With ``line_center`` and, where lines lie closer than the resolution, ``intensity``; see
        `specutils_blase.io.read_airglow`.
    lsf : float, ResolvingPower or GaussianLSF
        Gaussian.  Where ``ResolvingPower(free=True)``, each order has a resolving power of its own.
    wavelength_degree : int
        0 or 1: an offset of every order, or an offset and a slope.  An order with fewer than three lines for each, or
        whose lines are all in one half of it, has the offset alone, or none.
    continuum_degree : int
        Of the background.
    weights, window, exclude_regions, wavelength_medium
        As in `fit_spectrum`.

    Returns
    -------
    AirglowFit
        Errors are multiplied by the square root of the reduced chi-square where that is above 1, or where the spectrum
        has no uncertainties.

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
    >>> print(f"{fit_airglow(sky, listed, lsf=53_000).orders['offset'][0]:.2f}")
    -0.50 km / s
    """
    if wavelength_degree not in (0, 1) or isinstance(wavelength_degree, bool):
        raise ValueError(explain("wavelength_degree", "be 0 or 1", repr(wavelength_degree), "1 is the default"))
    check_whole("continuum_degree", continuum_degree, 0, "4 is the default")
    lsf = as_lsf(lsf)
    if lsf is None or isinstance(lsf, BandedLSF | MeasuredLSF):
        raise TypeError(explain("lsf", "be a resolving power or a width", type(lsf).__name__, "give e.g. 55_000"))
    if not getattr(lsf, "is_gaussian", True):
        raise ValueError(explain("lsf", "be Gaussian for lines of the sky", "h3, h4 or free_shape", "leave them out"))
    orders = read_orders(observed, "observed", window=window, exclude_regions=exclude_regions, weights=weights,
                         wavelength_medium=wavelength_medium)  # fmt: skip
    center, intensity = _listed_lines(lines)
    rows, tables, models = [], [], []
    for number, arrays in enumerate(orders.arrays):
        row, table, model = _fit_order(arrays, number, center, intensity, lsf, wavelength_degree, continuum_degree)
        rows.append(row)
        tables.append(table)
        models.append(model)
    residuals = [None if model is None else np.where(arrays.good, arrays.flux - model, np.nan)
                 for arrays, model in zip(orders.arrays, models, strict=True)]  # fmt: skip
    found = _tables(rows, tables, next(a.flux_unit for a in orders.arrays if a is not None))
    if few := [row["order"] for row in rows if not np.isfinite(row["offset"])]:
        warnings.warn(f"fit_airglow: {len(few)} of {len(rows)} orders have fewer than {NEEDED} lines that are seen, "
                      f"and no offset (numbers {listed(few)})", BlaseWarning, stacklevel=2)  # fmt: skip
    return AirglowFit(*found, orders.collect(models), orders.collect(residuals))


def _listed_lines(lines):
    """Vacuum wavelengths [Angstrom], increasing, and intensities."""
    center = line_centers(lines)
    intensity = np.ones(len(center))
    if "intensity" in lines.colnames:
        intensity = np.asarray(getattr(lines["intensity"], "value", lines["intensity"]), dtype=float)
        if not (np.isfinite(intensity) & (intensity > 0)).all():
            raise ValueError(explain('lines["intensity"]', "be finite and positive", "others", "drop those lines"))
    order = np.argsort(center)
    return center[order], intensity[order]


def _fit_order(arrays, number, center, intensity, lsf, degree, continuum_degree):
    """A row of the table of orders, the table of its lines or None, and its model or None."""
    row = {"order": number, "n_seen": 0, **dict.fromkeys(("lower", "upper", "offset", "offset_err", "slope",
           "slope_err", "resolving_power", "resolving_power_err", "scatter", "chi2"), np.nan)}  # fmt: skip
    if arrays is None:
        return row, None, None
    row.update(lower=arrays.edges.min(), upper=arrays.edges.max())
    inside = (center > arrays.edges[arrays.good].min()) & (center < arrays.edges[arrays.good].max())
    center, intensity = center[inside], intensity[inside]
    if not center.size:
        return row, None, None
    power = float(np.median(lsf.resolving_power(arrays.wave)))
    member = np.concatenate([[0], np.cumsum(np.diff(center) > UNRESOLVED * center[1:] / power)])
    share = intensity / np.bincount(member, intensity)[member]
    basis = continuum_columns(arrays.wave, continuum_degree)
    data, weight = np.where(arrays.good, arrays.flux, 0.0), arrays.good.astype(float)
    if arrays.sigma is not None:
        weight[arrays.good] /= arrays.sigma[arrays.good]
    else:  # differences of neighbours, of which few see a line
        noise = 1.4826 * np.median(np.abs(np.diff(data[arrays.good]))) / np.sqrt(2.0)
        weight /= max(noise, 1e-4 * np.ptp(data)) or 1.0
    free_power = isinstance(lsf, ResolvingPower) and lsf.free
    middle, held = np.bincount(member, share * center), np.full(member[-1] + 1, np.nan)
    while True:
        model = EmissionLines(arrays.edges, center, member, share, basis, degree, held)
        found = fit_emission(model, data, weight, power, free_power)
        expected = model.velocity(found.theta, middle)
        velocity = np.where(np.isnan(held), expected, held) + found.own
        seen, apart = found.flux > SEEN * found.flux_error, ~np.isnan(held)
        useful = seen & ~apart
        enough = useful.sum() >= NEEDED * (degree + 1) and np.ptp(model.scaled(middle[useful])) >= SPREAD
        if degree > 0 and not enough:
            degree -= 1
            continue
        more = seen & ~apart & _stands_apart(velocity, found.own_error, useful)
        if not more.any() or useful.sum() - more.sum() < NEEDED:
            break
        held = np.where(apart | more, velocity, np.nan)
    row.update(n_seen=int(seen.sum()), chi2=found.chi2)
    if useful.sum() >= NEEDED:
        error = np.sqrt(np.diag(found.theta_covariance))
        scatter = 1.4826 * np.median(np.abs(found.own[useful] - np.median(found.own[useful])))
        row.update(offset=-found.theta[0], offset_err=error[0], scatter=scatter,
                   slope=-found.theta[1] if degree else 0.0, slope_err=error[1] if degree else 0.0,
                   resolving_power=np.exp(found.theta[-1]),
                   resolving_power_err=np.exp(found.theta[-1]) * error[-1])  # fmt: skip
    table = {"line_center": middle, "order": np.full(len(middle), number), "flux": found.flux,
             "flux_err": found.flux_error, "velocity": velocity, "velocity_err": found.own_error,
             "n_members": np.bincount(member), "seen": seen, "apart": ~np.isnan(held)}  # fmt: skip
    return row, table, found.model


def _stands_apart(velocity, error, useful):
    """Lines whose velocity is far from the weighted median, in units of their errors and of the scatter of these."""
    order = np.flatnonzero(useful)[np.argsort(velocity[useful])]
    weight = np.cumsum(error[order] ** -2.0)
    middle = velocity[order[np.searchsorted(weight, 0.5 * weight[-1])]] if order.size else 0.0
    pull = np.abs(velocity - middle) / error
    return pull > FAR * max(1.0, 1.4826 * float(np.median(pull[useful])) if order.size else 1.0)


def _tables(rows, tables, flux_unit):
    """The tables of orders and of lines, with units."""
    orders = QTable(rows=rows)
    for name in ("lower", "upper"):
        orders[name] = orders[name] * u.AA
    for name in ("offset", "offset_err", "slope", "slope_err", "scatter"):
        orders[name] = orders[name] * KMS
    tables = [table for table in tables if table is not None]
    if not tables:
        raise ValueError(explain("lines", "have lines within the orders", "none", "check the units of both"))
    lines = QTable({name: np.concatenate([table[name] for table in tables]) for name in tables[0]})
    for name, unit in (("line_center", u.AA), ("flux", flux_unit * u.AA), ("velocity", KMS)):
        for column in (name, f"{name}_err"):
            if column in lines.colnames:
                lines[column] = lines[column] * unit
    lines.meta["wavelength_medium"] = "vacuum"
    return orders, lines


def subtract_sky(observed, sky, scale=None):
    """
    Subtract the spectrum of a sky fibre.

    The sky is brought to the pixels of the object by exact overlap (its flux is taken as constant in a pixel) and
    multiplied by one number, the ratio of the two fibres' throughputs.  Unless given, that number is measured from the
    sky lines: the sums over each of what is above a running median in both spectra, on a line through zero with errors
    in both (York 1966, Can. J. Phys. 44, 1079), those of noise and, in the object, of its own lines.  Its error is
    multiplied by the square root of the reduced chi-square where that is above 1.

    Parameters
    ----------
    observed, sky : Spectrum, SpectrumList, SpectrumCollection, or list of Spectrum
        The same orders, with uncertainties.
    scale : float, optional

    Returns
    -------
    Spectrum, or SpectrumList for several orders
        Variances are those of both spectra added; that neighbouring pixels share sky pixels is left out.  Pixels that
        see a bad pixel of the sky, or none, are masked.  ``meta`` of every spectrum has ``sky_scale`` and, where it was
        measured, ``sky_scale_err``.

    Raises
    ------
    ValueError
        If no scale is given, and no line of the sky stands out, or the object seems to have them less than not at all
        or more than five times: its own lines, where it is bright, pass for them.

    Examples
    --------
    An object of 1000 electrons in a pixel, whose fibre sees 0.8 times what the sky fibre sees:

    >>> import numpy as np
    >>> from astropy import units as u
    >>> from astropy.nddata import StdDevUncertainty
    >>> from specutils import Spectrum
    >>> from specutils_blase import subtract_sky
    >>> wave, lines = np.arange(10000.0, 10060.0, 0.05), [10007.0, 10021.0, 10030.0, 10039.0, 10049.0]
    >>> airglow = 20 + 1000 * np.exp(-0.5 * ((wave[:, None] - lines) / 0.08) ** 2).sum(axis=1)
    >>> rng = np.random.default_rng(0)
    >>> def measured(flux):
    ...     return Spectrum(flux=rng.normal(flux, 5.0) * u.electron, spectral_axis=wave * u.AA,
    ...                     uncertainty=StdDevUncertainty(np.full(wave.size, 5.0)))
    >>> observed, sky = measured(1000 + 0.8 * airglow), measured(airglow)
    >>> left = subtract_sky(observed, sky)
    >>> print(f"{left.meta['sky_scale']:.2f} +- {left.meta['sky_scale_err']:.3f}, {left.flux.mean():.0f}")
    0.80 +- 0.003, 1000 electron
    """
    ours, theirs = read_orders(observed, "observed"), read_orders(sky, "sky")
    if len(ours) != len(theirs):
        raise ValueError(explain("sky", f"have {len(ours)} orders, as observed", len(theirs), "give the same ones"))
    pairs = [None if a is None or b is None else (a, *_brought(a, b))
             for a, b in zip(ours.arrays, theirs.arrays, strict=True)]  # fmt: skip
    units = {str(a.flux_unit) for a in (*ours.arrays, *theirs.arrays) if a is not None}
    if len(units) > 1:
        raise u.UnitsError(explain("sky", "have the flux unit of observed", " and ".join(sorted(units)),
                                   "convert one of the two"))  # fmt: skip
    if any(pair is not None and (pair[0].sigma is None or pair[2] is None) for pair in pairs):
        raise ValueError(explain("observed and sky", "have uncertainties", "none", "add them"))
    error = None
    if scale is None:
        scale, error = _sky_scale([pair for pair in pairs if pair is not None])
        if not -3.0 * error <= scale <= LARGEST_SCALE + 3.0 * error:
            raise ValueError(explain("observed", "show the lines of the sky fibre", f"{scale:.3g} +- {error:.2g} times "
                                     "them: lines of a bright star pass for them", "give scale, 1 for equal fibres"))
    elif not (np.isscalar(scale) and np.isreal(scale) and np.isfinite(scale) and scale >= 0):
        raise ValueError(explain("scale", "be a number, not negative", repr(scale), "None measures it"))
    out = []
    for arrays, member, pair in zip(ours.arrays, ours.members, pairs, strict=True):
        if arrays is None:  # it has no usable pixel
            out.append(member)
            continue
        flux, variance = (np.full(arrays.wave.size, np.nan),) * 2 if pair is None else pair[1:3]
        total = np.sqrt(arrays.sigma**2 + scale**2 * variance)
        bad = ~(arrays.good & np.isfinite(flux) & np.isfinite(total))
        left = arrays.to_spectrum(np.where(bad, np.nan, arrays.flux - scale * flux), np.where(bad, np.nan, total), bad)
        left.meta.update(sky_scale=float(scale), **({} if error is None else {"sky_scale_err": float(error)}))
        out.append(left)
    return out[0] if ours.is_single else SpectrumList(out)


def _brought(arrays, sky):
    """
    Mean flux of the sky over the pixels of `arrays`, NaN where it is bad or does not reach, and its variance.

    The second variance, which adds up over pixels to that of a sum, is larger: neighbours share pixels of the sky.
    """
    lower, upper = arrays.edges.T
    first = np.searchsorted(sky.edges[:, 1], lower, side="right")
    last = np.searchsorted(sky.edges[:, 0], upper)
    value = np.where(sky.good, sky.flux, np.nan)
    variance = None if sky.sigma is None else np.where(sky.good, sky.sigma, np.nan) ** 2
    mean, error, of_sums, seen = np.zeros((4, len(lower)))
    for k in range(int((last - first).max(initial=0))):
        pixel = np.minimum(first + k, len(value) - 1)
        part = np.minimum(upper, sky.edges[pixel, 1]) - np.maximum(lower, sky.edges[pixel, 0])
        share = np.where(first + k < last, part / (upper - lower), 0.0)
        mean += np.where(share > 0, share * value[pixel], 0.0)
        seen += share
        if variance is not None:
            error += np.where(share > 0, share**2 * variance[pixel], 0.0)
            of_sums += np.where(share > 0, share * variance[pixel], 0.0)
    mean[seen < 1.0 - 1e-6] = np.nan
    return mean, *((None, None) if variance is None else (error, of_sums))


def _sky_scale(pairs):
    """Ratio of the sky in the object to that in the sky fibre, and its standard deviation."""
    sums = np.concatenate([np.zeros((4, 0)), *(_line_sums(*pair) for pair in pairs)], axis=1)
    if not sums.size:
        raise ValueError(explain("scale", "be given where no line of the sky stands out", "None",
                                 "measure it in an exposure with airglow"))  # fmt: skip
    own, other, own_variance, variance = sums
    # a line through zero with errors in both (York 1966): least squares alone would lean towards zero
    scale = np.sum(own * other / own_variance) / np.sum(other**2 / own_variance)
    for _ in range(YORK):
        weight = 1.0 / (own_variance + scale**2 * variance)
        left = own - scale * other
        true = other + scale * weight * variance * left
        scale += np.sum(weight * true * left) / np.sum(weight * true * other)
    chi2 = np.sum(weight * left**2) / max(len(own) - 1, 1)
    return scale, np.sqrt(max(chi2, 1.0) / np.sum(weight * true**2))


def _line_sums(arrays, flux, variance, of_sums):
    """Of each line of the sky in an order its sums in object and sky, and the variances of both, shape (4, n_lines)."""
    used = arrays.good & np.isfinite(flux)
    if used.sum() < RUNNING:
        return np.zeros((4, 0))
    own, other, noise = arrays.flux[used], flux[used], np.sqrt(variance[used])
    # whole lines: pixels above a threshold are those to which noise has added
    line = binary_dilation(other - median_filter(other, RUNNING) > STANDS_OUT * noise, iterations=FLANK)
    if not line.any() or line.all():
        return np.zeros((4, 0))
    # left in, the lines would lift the median, the more the noisier the spectrum
    pixel = np.arange(len(line))
    own, other = (v - median_filter(np.interp(pixel, pixel[~line], v[~line]), RUNNING) for v in (own, other))
    own, other = (v - np.mean(v[~line]) for v in (own, other))
    first, last = np.flatnonzero(np.diff(np.pad(line, 1).astype(int))).reshape(-1, 2).T
    running = [np.append(0.0, np.cumsum(v)) for v in (own, other, arrays.sigma[used] ** 2, of_sums[used])]
    sums, size = np.array([row[last] - row[first] for row in running]), last - first
    # the object's own lines are noise here: squares of sums over as many pixels where no sky is
    own, free = np.where(line, 0.0, own), (~line).astype(float)
    for n in np.unique(size):
        squares, seen = np.convolve(own, np.ones(n), "valid") ** 2, np.convolve(free, np.ones(n), "valid")
        sums[2, size == n] = np.maximum(sums[2, size == n], n * np.sum(squares) / np.sum(seen))
    sums[2:] *= 1.0 + 0.5 * np.pi * size / RUNNING  # the median has noise, too
    return sums
