"""Which transitions of a native list the lines of a table are, and which lines two tables share."""

import numpy as np
from astropy import units as u
from astropy.table import MaskedColumn, QTable
from astropy.utils.masked import Masked
from scipy.optimize import minimize
from scipy.special import expit

from specutils_blase.adapters import misread_wavelengths, quantity_value
from specutils_blase.errors import explain
from specutils_blase.functional.constants import SPEED_OF_LIGHT
from specutils_blase.io.line_lists import log_strength
from specutils_blase.line_input import line_centers

__all__ = ["column_numbers", "common_lines", "match_lines"]

# Half length of the neighbourhood in which transitions are counted, in windows.
NEIGHBOURHOOD = 50.0
# What is known before the lines are seen: the scatter of the two lists is a tenth of the window, within a factor of
# about four; the share of lines that are in the list and the strength that is seen may be anything.
SCATTER, SCATTER_SPREAD, SHARE_SPREAD, FAINTEST_SPREAD = 0.1, 1.5, 2.0, 4.0
# Columns of a native list that describe the list's own measurement, not the transition.
NOT_OF_THE_TRANSITION = {"line_center", "equivalent_width", "strength"}


def match_lines(lines, native, *, radial_velocity=None, temperature=None, strength=None, window=5 * u.km / u.s,
                min_probability=0.5):  # fmt: skip
    r"""
    Find the transition of a native list that each line is, with its probability.

    For line :math:`i` all transitions :math:`j` within the window are candidates.  That it is number :math:`j` has the
    probability (Sutherland & Saunders 1992, MNRAS 259, 413, equation 5)

    .. math::

        P_{ij} = \frac{Q\, \pi_j f_{ij} / \rho_i}{1 - Q + \sum_k Q\, \pi_k f_{ik} / \rho_i}

    where :math:`f_{ij}` is a Gaussian in the separation, whose variance is that of the centre plus a scatter
    :math:`\sigma^2` of the two lists, and :math:`\rho_i` the sum of :math:`\pi` per km/s in the neighbourhood (50
    windows on either side), so that where transitions are crowded a chance coincidence is as likely as it is.
    Without strengths all :math:`\pi_j` are equal.  With expected strengths :math:`S` they are
    :math:`\pi_j = S_j / (S_0 + \sum_k S_k)`, the sum over the window about :math:`j`: the share of the blend that
    is due to :math:`j`, times the chance that the blend is strong enough to be seen.  :math:`\sigma`, the fraction
    :math:`Q` of lines that are in the list, and :math:`S_0` are those for which the separations of all lines are
    most likely, with weak priors.

    Parameters
    ----------
    lines : Table
        With ``line_center`` and, if known, ``line_center_err``: of a clone or a fit, or from `find_lines`.  In vacuum
        unless ``meta["wavelength_medium"]`` is "air".
    native : Table
        With ``line_center`` and ``species``; see `specutils_blase.io.read_vald` and the other readers.
    radial_velocity : Quantity [speed], optional
        At which the lines were measured; None: they are at rest, as those of templates are.
    temperature : Quantity [temperature], optional
        Strengths are proportional to gf exp(-E/kT), see `specutils_blase.io.relative_strength`.  That is the ratio of
        lines of one species; all species count as equally abundant.
    strength : str, optional
        Column of ``native`` with positive numbers proportional to the strengths, which may know abundances: e.g.
        "central_depth" of a stellar extract of VALD.
    window : Quantity [speed]
        Largest separation.
    min_probability : float
        Lines of which no transition is as probable as this are unmatched.

    Returns
    -------
    QTable
        The rows and columns of ``lines``, and of the most probable transition ``laboratory_wavelength`` (vacuum),
        ``laboratory_wavelength_air`` where the list was in air, the other columns of ``native`` (which replace those of
        the same name), ``native_row``, ``separation`` (positive if the line is redder), ``probability`` and
        ``share``, its part of the expected strength of all candidates that are not nearer to another line.  These are
        masked where a line is unmatched.
        ``n_candidates`` is the number of transitions within the window.  ``meta`` has ``match_scatter``
        (:math:`\sigma` in km/s) and ``match_fraction`` (:math:`Q`).

    Raises
    ------
    ValueError
        If no line has a candidate, or strengths are not usable.

    Examples
    --------
    >>> from astropy import units as u
    >>> from astropy.table import QTable
    >>> from specutils_blase import match_lines
    >>> native = QTable({"line_center": [6303.242, 6304.236] * u.AA, "species": ["Fe I", "Fe I"]})
    >>> lines = QTable({"line_center": [6303.245, 6303.9] * u.AA, "line_center_err": [0.002, 0.002] * u.AA})
    >>> matched = match_lines(lines, native)
    >>> print(matched["species"].tolist(), matched["separation"][0].round(2))
    ['Fe I', None] 0.14 km / s
    """
    width = quantity_value(window, u.km / u.s, "window", positive=True)
    velocity = quantity_value(radial_velocity, u.km / u.s, "radial_velocity", allow_none=True) or 0.0
    if not abs(velocity) < SPEED_OF_LIGHT:
        raise ValueError(explain("radial_velocity", "be below the speed of light", radial_velocity, "check its unit"))
    if not (np.isscalar(min_probability) and 0 <= min_probability <= 1):
        raise ValueError(explain("min_probability", "lie between 0 and 1", repr(min_probability), "0.5 is the default"))
    rest = line_centers(lines) / np.sqrt((1 + velocity / SPEED_OF_LIGHT) / (1 - velocity / SPEED_OF_LIGHT))
    center = line_centers(native)
    for name, found in (("lines", rest), ("native", center)):
        if not found.size:
            raise ValueError(explain(name, "hold lines", "an empty table", "check how it was selected"))
    if "species" not in native.colnames:
        raise ValueError(explain("native", "have a column species", native.colnames, "read it with specutils_blase.io"))
    expected = _expected(native, temperature, strength)
    order = np.argsort(center, kind="stable")
    pairs = _Pairs(rest, _center_errors(lines, width), center[order], None if expected is None else expected[order],
                   width)  # fmt: skip
    if not pairs.line.size:
        raise ValueError(explain("native", f"have transitions within {window} of a line", "none",
                                 "check radial_velocity, window and the wavelength media in meta"))  # fmt: skip
    scatter, fraction, probability = pairs.solve()
    best = pairs.best(probability)
    best = best[probability[best] >= min_probability]
    table = _matched(lines, native, order[pairs.native[best]], center, pairs.line[best])
    _add(table, pairs.line[best], separation=pairs.separation[best] * u.km / u.s, probability=probability[best],
         share=pairs.share()[best])  # fmt: skip
    table["n_candidates"] = np.bincount(pairs.line, minlength=len(rest))
    table.meta |= {"match_scatter": float(scatter), "match_fraction": float(fraction)}
    for name in DESCRIPTIONS.keys() & set(table.colnames):
        table[name].info.description = DESCRIPTIONS[name]
    return table


DESCRIPTIONS = {
    "laboratory_wavelength": "vacuum wavelength in the native list",
    "laboratory_wavelength_air": "wavelength in air of the native list, in vacuum up to 2000 Angstrom",
    "native_row": "row of the native list",
    "separation": "velocity of the line relative to the transition",
    "probability": "that the line is this transition",
    "share": "of the expected strength of the candidates that are not nearer to another line",
    "n_candidates": "number of transitions within the window",
}


def common_lines(first, second, window):
    """
    The lines that two tables share: those that are nearest to each other, within a window.

    Parameters
    ----------
    first, second : Table
        With ``line_center``.
    window : Quantity [speed]

    Returns
    -------
    i, j : ndarray of int, shape (n_common,)
        Rows in `first` and in `second`, by increasing wavelength.
    velocity : ndarray, shape (n_common,) [km/s]
        Of the second relative to the first.
    """
    width = quantity_value(window, u.km / u.s, "window", positive=True)
    a, b = line_centers(first), line_centers(second)
    if not (a.size and b.size):
        empty = np.zeros(0, dtype=int)
        return empty, empty, np.zeros(0)
    to_second, to_first = _nearest(a, b), _nearest(b, a)
    i = np.argsort(a, kind="stable")
    i = i[to_first[to_second[i]] == i]
    j = to_second[i]
    velocity = SPEED_OF_LIGHT * (b[j] / a[i] - 1.0)
    near = np.abs(velocity) <= width
    return i[near], j[near], velocity[near]


def _nearest(a, b):
    """Index of the element of `b` nearest to each of `a`."""
    order = np.argsort(b, kind="stable")
    right = np.clip(np.searchsorted(b[order], a), 1, max(b.size - 1, 1))
    left, right = order[right - 1], order[np.minimum(right, b.size - 1)]
    return np.where(np.abs(b[left] - a) <= np.abs(b[right] - a), left, right)


class _Pairs:
    """Lines [Angstrom, at rest] and their candidates; `native` and `strength` by increasing wavelength."""

    def __init__(self, rest, error, native, strength, width):
        self.width, self.strength = width, strength
        first, last = self._range(native, rest, width)
        count = last - first
        self.line = np.repeat(np.arange(rest.size), count)
        self.native = np.arange(self.line.size) + np.repeat(first - np.cumsum(count) + count, count)
        self.separation = SPEED_OF_LIGHT * (rest[self.line] / native[self.native] - 1.0)
        self.variance = error[self.line] ** 2
        self.n_lines = rest.size
        if strength is not None:
            edges = np.stack(self._range(native, native, width), axis=1).ravel()
            self.blend = np.add.reduceat(np.append(strength, 0.0), edges)[::2]
        self.size = native.size
        self.around = [edge[self.line] for edge in self._range(native, rest, NEIGHBOURHOOD * width)]

    @staticmethod
    def _range(native, center, width):
        half = width / SPEED_OF_LIGHT
        return np.searchsorted(native, center / (1 + half)), np.searchsorted(native, center / (1 - half), "right")

    def share(self):
        """Part that each candidate has of the strength of those which are nearest to its line, shape (n_pairs,)."""
        own = np.ones(self.line.size) if self.strength is None else self.strength[self.native]
        distance, least = np.abs(self.separation), np.full(self.size, np.inf)
        np.minimum.at(least, self.native, distance)
        others = np.where(distance <= least[self.native], own, 0.0)
        total = np.bincount(self.line, others)[self.line] + np.where(others > 0.0, 0.0, own)
        return own / np.maximum(total, np.finfo(float).tiny)

    def best(self, probability):
        """Index of the most probable pair of each line that has any."""
        order = np.lexsort((-probability, self.line))
        return order[np.r_[True, np.diff(self.line[order]) > 0]]

    def solve(self):
        """Scatter [km/s], fraction of the lines that are in the list, and probability of each pair (n_pairs,)."""
        size = 2 if self.strength is None else 3
        options = {"xatol": 1e-2, "fatol": 1e-3, "initial_simplex": np.eye(size + 1, size)}
        found = minimize(self._cost, np.zeros(size), method="Nelder-Mead", options=options)
        scatter, fraction, ratio = self._ratios(found.x)
        total = np.bincount(self.line, ratio)[self.line]
        return scatter, fraction, fraction * ratio / (1.0 - fraction + fraction * total)

    def _cost(self, place):
        """Minus ln of the posterior; every parameter has a standard normal prior."""
        _, fraction, ratio = self._ratios(place)
        total = np.bincount(self.line, ratio, minlength=self.n_lines)
        return 0.5 * place @ place - np.log1p(fraction * (total - 1.0)).sum()

    def _ratios(self, place):
        """Likelihood of each pair over that of a chance coincidence, with the prior."""
        scatter = SCATTER * self.width * np.exp(SCATTER_SPREAD * place[0])
        fraction = expit(SHARE_SPREAD * place[1])
        if self.strength is None:
            prior = np.ones(self.size)
        else:
            faintest = np.median(self.blend) * np.exp(FAINTEST_SPREAD * place[2])
            prior = self.strength / (self.blend + faintest)
        running = np.concatenate([[0.0], np.cumsum(prior)])
        own = prior[self.native]
        # a candidate is in the neighbourhood itself, whatever rounding says of weak ones beside strong ones
        density = np.maximum(running[self.around[1]] - running[self.around[0]], own)
        density /= 2.0 * NEIGHBOURHOOD * self.width
        variance = self.variance + scatter**2
        gauss = np.exp(-0.5 * self.separation**2 / variance) / np.sqrt(2.0 * np.pi * variance)
        with np.errstate(invalid="ignore"):  # strengths that are too small for a float
            return scatter, fraction, np.where(own > 0.0, own * gauss / density, 0.0)


def _center_errors(lines, width):
    """Standard deviations [km/s] of the centres, shape (n_lines,)."""
    if "line_center_err" not in lines.colnames:
        return np.zeros(len(lines))
    error = lines["line_center_err"]
    if not getattr(error, "unit", None) or not error.unit.is_equivalent(lines["line_center"].unit):
        raise u.UnitsError(explain('lines["line_center_err"]', "have the kind of unit that line_center has",
                                   f"{getattr(error, 'unit', None)}", "correct the unit of the column"))  # fmt: skip
    error, center = (column_numbers(lines[name]) * lines[name].unit for name in ("line_center_err", "line_center"))
    relative = np.abs(error / center).to_value(u.one)
    # where nothing is known of a centre it lies somewhere in the window
    return np.where(np.isfinite(relative), np.minimum(SPEED_OF_LIGHT * relative, width), width)


def _expected(native, temperature, strength):
    """Expected strengths of the transitions, shape (n_native,), or None."""
    if temperature is not None and strength is not None:
        raise ValueError(explain("strength", "be None where temperature is given", repr(strength), "give one of them"))
    if temperature is not None:
        log = log_strength(native, quantity_value(temperature, u.K, "temperature", positive=True))
        return np.exp(log - log.max(initial=-np.inf))
    if strength is None:
        return None
    if strength not in native.colnames:
        raise ValueError(explain("strength", f"name a column of native, among {native.colnames}", repr(strength),
                                 "e.g. central_depth of a stellar extract of VALD"))  # fmt: skip
    values = column_numbers(native[strength])
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if bad.size:
        raise ValueError(explain(f'native["{strength}"]', "be positive in every row",
                                 f"{bad.size} rows that are not, the first {bad[0]}", "remove these rows"))  # fmt: skip
    return values


def column_numbers(column):
    """Numbers of a column, NaN where they are masked."""
    values = getattr(column, "unmasked", column)
    values = np.asarray(getattr(values, "value", values), dtype=np.float64)
    return np.where(getattr(column, "mask", False), np.nan, values)


def _matched(lines, native, native_row, native_center, row):
    """The lines with what the native list has of the transitions `native_row` of the lines `row`."""
    table = QTable(lines, copy=True)
    wave = native_center[native_row]
    _add(table, row, laboratory_wavelength=wave * u.AA)
    if "air" in (native.meta.get("source_medium"), native.meta.get("wavelength_medium")):
        _add(table, row, laboratory_wavelength_air=misread_wavelengths(wave, "vacuum") * u.AA)
    for name in native.colnames:
        if name not in NOT_OF_THE_TRANSITION:
            _add(table, row, **{name: native[name][native_row]})
            table[name].info.description = native[name].info.description
    _add(table, row, native_row=native_row)
    return table


def _add(table, row, **columns):
    """Columns whose values belong in these rows and are masked in the others."""
    mask = np.ones(len(table), dtype=bool)
    mask[row] = False
    for name, values in columns.items():
        unit = getattr(values, "unit", None)
        plain = np.asarray(getattr(getattr(values, "unmasked", values), "value", values))
        known = ~np.asarray(getattr(values, "mask", np.zeros(len(row), dtype=bool)), dtype=bool)
        plain = plain.astype(str) if plain.dtype.kind == "S" else plain
        full, hidden = np.zeros(len(table), dtype=plain.dtype), mask.copy()
        full[row], hidden[row] = plain, ~known
        table[name] = Masked(full, hidden) * unit if unit is not None else MaskedColumn(full, mask=hidden)
