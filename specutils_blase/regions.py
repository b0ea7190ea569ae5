"""
Spectral regions as masks of pixels.

Same meaning as in specutils, in any unit, but vectorised: specutils loops over sub-regions and pixels in Python.
"""

import numpy as np
from astropy import units as u
from specutils import SpectralRegion

from specutils_blase.errors import NoPixelsError, explain

__all__ = ["region_mask", "spectral_equivalencies", "wanted_pixels"]

_SPEED = u.km / u.s

# Bounds match pixels within this fraction, so that rounding in a change of units moves no pixel across.
_BOUND_TOLERANCE = 1e-14


def wanted_pixels(spectral_axis, name, window, exclude_regions):
    """
    Pixels inside a window and outside exclusions.

    Parameters
    ----------
    spectral_axis : Quantity, shape (n_pix,)
        Monotonic.
    name : str
        Name of the argument that holds the axis, for messages.
    window : region as in `region_mask`, or None
        Bounds included, as in `specutils.fitting.fit_lines`. None means all pixels.
    exclude_regions : region, list of regions, or None
        Lower bounds included and upper bounds not, as in specutils.

    Returns
    -------
    ndarray of bool, shape (n_pix,)
        At least one is True: ValueError otherwise.
    """
    wanted = np.ones(spectral_axis.shape, dtype=bool)
    if window is not None:
        wanted = region_mask(spectral_axis, window, closed=True, name="window")
        if not wanted.any():
            values, low, high, _, unit = _comparable(spectral_axis, window, "window")
            expected = f"contain pixels of {name} ({values.min():.10g} to {values.max():.10g} {unit})"
            got = f"{low.min():.10g} to {high.max():.10g} {unit}"
            raise NoPixelsError(explain("window", expected, got, "choose a window inside the data"))
    if exclude_regions is None:
        return wanted
    for region in exclude_regions if isinstance(exclude_regions, list) else [exclude_regions]:
        wanted &= ~region_mask(spectral_axis, region, closed=False, name="exclude_regions")
    if not wanted.any():
        raise NoPixelsError(explain("exclude_regions", f"leave pixels of {name} to use", "none", "exclude less"))
    return wanted


def region_mask(spectral_axis, region, closed, name="region"):
    """
    Which pixels lie in a region.

    Parameters
    ----------
    spectral_axis : Quantity, shape (n_pix,)
        Monotonic. A `~specutils.SpectralAxis` with a rest value also allows regions in velocity.
    region : SpectralRegion, (lower, upper) Quantities, or Quantity of shape (2,)
        Any spectral unit, or pixels, which are floor(lower) up to but without ceil(upper) as in specutils.
    closed : bool
        Whether the larger bound (in the unit of the region) belongs to the region; the smaller one does.
    name : str
        Name of the argument, for messages.

    Returns
    -------
    ndarray of bool, shape (n_pix,)
        True inside any of the sub-regions, ordered as `spectral_axis`.
    """
    values, low, high, is_swapped, unit = _comparable(spectral_axis, region, name)
    with_low, with_high = True, closed and unit != u.pix
    if is_swapped:
        with_low, with_high = with_high, with_low
    is_increasing = values.size == 0 or values[-1] >= values[0]
    increasing = values if is_increasing else values[::-1]
    slack_low, slack_high = (_BOUND_TOLERANCE * np.where(np.isfinite(b), np.abs(b), 0.0) for b in (low, high))
    low, side_low = (low - slack_low, "left") if with_low else (low + slack_low, "right")
    high, side_high = (high + slack_high, "right") if with_high else (high - slack_high, "left")
    start = np.searchsorted(increasing, low, side_low)
    stop = np.maximum(start, np.searchsorted(increasing, high, side_high))
    n_entered = np.bincount(start, minlength=values.size + 1) - np.bincount(stop, minlength=values.size + 1)
    inside = np.cumsum(n_entered[:-1]) > 0
    return inside if is_increasing else inside[::-1].copy()


def spectral_equivalencies(spectral_axis):
    """
    What a spectral axis can be converted with.

    Parameters
    ----------
    spectral_axis : Quantity
        With rest value and velocity convention, if it has them (`~specutils.SpectralAxis`).

    Returns
    -------
    Equivalency
    """
    rest = getattr(spectral_axis, "doppler_rest", None)
    convention = getattr(spectral_axis, "doppler_convention", None)
    if rest is None or convention is None:
        return u.spectral()
    return u.spectral() + getattr(u, f"doppler_{convention}")(rest)


def _comparable(spectral_axis, region, name):
    """Axis values (n,), lower and upper bounds (m,) in one unit, whether their order is swapped, and the unit."""
    bounds = _region_bounds(region, name)
    unit = u.pix if bounds.unit.is_equivalent(u.pix) else spectral_axis.unit
    if unit == u.pix:
        values = np.arange(spectral_axis.size, dtype=np.float64)
        bounds = np.stack([np.floor(bounds[:, 0].value), np.ceil(bounds[:, 1].value)], axis=1)
    else:
        values = np.array(spectral_axis.value, dtype=np.float64)
        bounds = _bounds_on_axis(bounds, spectral_axis, name)
    if np.isnan(bounds).any():
        raise ValueError(explain(name, "have bounds that are numbers", "nan", "use inf for an open side"))
    is_swapped = bool((bounds[:, 0] > bounds[:, 1]).any())
    return values, bounds.min(axis=1), bounds.max(axis=1), is_swapped, unit


def _bounds_on_axis(bounds, spectral_axis, name):
    """Values of bounds (m, 2) in the unit of the axis, in the order given."""
    unit = spectral_axis.unit
    if not bounds.unit.is_equivalent(_SPEED):
        # a negative bound means "from the end" and must not change sides when it is inverted
        bounds = np.maximum(bounds, 0 * bounds.unit)
    elif not unit.is_equivalent(_SPEED):
        # as Spectrum.velocity does, to which specutils compares: it adds the velocity stored in the axis
        bounds = bounds - getattr(spectral_axis, "radial_velocity", 0 * _SPEED)
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            return bounds.to_value(unit, spectral_equivalencies(spectral_axis))
    except u.UnitConversionError as error:
        remedy = "convert it, or give the Spectrum rest_value= and velocity_convention= to use velocities"
        got = repr(str(bounds.unit))
        raise u.UnitsError(explain(name, f"have a unit that fits the axis ({unit})", got, remedy)) from error


def _region_bounds(region, name):
    """Bounds of the sub-regions as one Quantity (m, 2), smaller value first."""
    if isinstance(region, SpectralRegion):
        pairs = region.subregions
    elif isinstance(region, tuple | list) or (isinstance(region, u.Quantity) and not region.isscalar):
        pairs = [tuple(region)]
    else:
        pairs = []
    if not pairs or [getattr(bound, "isscalar", False) for bound in pairs[0]] != [True, True]:
        remedy = "write e.g. SpectralRegion(5000 * u.AA, 5010 * u.AA)"
        raise TypeError(explain(name, "be a SpectralRegion or two Quantities (lower, upper)", repr(region), remedy))
    unit = pairs[0][0].unit
    bounds = np.array([[bound.to_value(unit, u.spectral()) for bound in pair] for pair in pairs], dtype=np.float64)
    return np.sort(bounds, axis=1) * unit
