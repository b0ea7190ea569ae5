"""Spectra that are fitted as one: the orders of an echelle, in whatever they came."""

import hashlib
import warnings
from dataclasses import dataclass, replace

import numpy as np
from astropy import units as u
from specutils import Spectrum, SpectrumCollection, SpectrumList

import specutils_blase.io.echelle  # noqa: F401  who fits orders can read them: it registers the formats
from specutils_blase.adapters import quantity_value, read_spectrum
from specutils_blase.errors import BlaseWarning, NoPixelsError, explain

__all__ = ["Motion", "Orders", "listed", "members", "motion", "one_of", "read_orders"]

# More than the orbit and the rotation of the Earth together [km/s].
FASTEST_EARTH = 40.0


@dataclass(frozen=True, eq=False)
class Orders:
    """
    One or several spectra as plain arrays.

    Attributes
    ----------
    arrays : list of SpectrumArrays or None
        One for each order, in the order of the input; None where no pixel can be used.
    members : list of Spectrum
        The orders, without pixels whose wavelength is not finite (only a `SpectrumCollection` can have any).
    kept : list of ndarray of bool
        Which pixels of the input the members hold.
    source : Spectrum, SpectrumCollection, SpectrumList or list
        The input.
    """

    arrays: list
    members: list
    kept: list
    source: object

    def __len__(self):
        return len(self.arrays)

    @property
    def is_single(self):
        """Whether the input was one spectrum."""
        return isinstance(self.source, Spectrum) and self.source.flux.ndim == 1

    @property
    def n_ignored(self):
        """Pixels that had to be left out, in all orders that can be used."""
        return sum(a.n_ignored for a in self.arrays if a is not None)

    @property
    def frame(self):
        """(whether the wavelengths are barycentric, barycentric velocity [km/s] or None), as the metadata say."""
        frames = {_frame(a.source.meta) for a in self.arrays if a is not None}
        if len(frames) > 1:
            expected = "be of one exposure: one frame and one barycentric velocity in the metadata of all orders"
            raise ValueError(explain("observed", expected, len(frames), "fit exposures one by one"))
        return frames.pop()

    @property
    def fingerprints(self):
        """Of the fluxes of every order that can be used, strings."""
        return [hashlib.sha1(np.nan_to_num(a.flux).tobytes()).hexdigest()[:16] for a in self.arrays if a is not None]

    def stretched(self, factor):
        """The same orders with all wavelengths times a factor; what comes back is on the axes of the input still."""
        arrays = [None if a is None else replace(a, wave=a.wave * factor, edges=a.edges * factor) for a in self.arrays]
        return replace(self, arrays=arrays)

    def collect(self, values, *, unit=None):
        """
        Spectra of the kind that was given.

        Parameters
        ----------
        values : list of ndarray, or None for an order without values
            Of each order, ordered as its arrays [unit].
        unit : Unit, optional
            By default the flux unit of the input.

        Returns
        -------
        Spectrum, SpectrumCollection or SpectrumList
        """
        spectra = []
        for arrays, member, row in zip(self.arrays, self.members, values, strict=True):
            if arrays is None:
                nothing = np.full(member.flux.size, np.nan) * (member.flux.unit if unit is None else unit)
                spectra.append(Spectrum(flux=nothing, spectral_axis=member.spectral_axis, meta=dict(member.meta)))
            else:
                spectra.append(arrays.to_spectrum(row if row is not None else np.full(arrays.wave.size, np.nan),
                                                  unit=unit))  # fmt: skip
        if self.is_single:
            return spectra[0]
        if not isinstance(self.source, Spectrum | SpectrumCollection):
            return SpectrumList(spectra)
        flux = np.full(self.source.flux.shape, np.nan)
        for out, kept, spectrum in zip(flux, self.kept, spectra, strict=True):
            out[kept] = spectrum.flux.value
        flux = u.Quantity(flux, spectra[0].flux.unit, copy=False)  # these kinds have one unit
        index = {"spectral_axis_index": 1} if isinstance(self.source, Spectrum) else {}
        return type(self.source)(flux=flux, spectral_axis=self.source.spectral_axis, mask=np.isnan(flux.value), **index,
                                 meta={} if self.source.meta is None else dict(self.source.meta))  # fmt: skip


def read_orders(observed, name="observed", *, window=None, exclude_regions=None, weights="unc",
                wavelength_medium=None):  # fmt: skip
    """
    Plain arrays of one or several spectra; see `read_spectrum`, which takes the same arguments.

    Orders without a usable pixel are skipped with one warning, and all ignored pixels are counted in another.

    Parameters
    ----------
    observed : Spectrum, SpectrumCollection, SpectrumList, or list of Spectrum
        One spectrum, a two-dimensional one whose rows are orders, or orders in any sequence.
    name : str
        Name of the argument, for messages.
    window, exclude_regions, wavelength_medium
        For all orders.
    weights : "unc", None, or array
        For several spectra a sequence of arrays, or one with two dimensions.

    Returns
    -------
    Orders
    """
    if isinstance(observed, Spectrum) and observed.flux.ndim == 1:
        arrays = read_spectrum(observed, name, window=window, exclude_regions=exclude_regions, weights=weights,
                               wavelength_medium=wavelength_medium)  # fmt: skip
        return Orders([arrays], [observed], [np.ones(arrays.wave.size, dtype=bool)], observed)
    spectra, kept = members(observed, name)
    own_weights = weights is not None and not isinstance(weights, str)
    if own_weights and len(weights) != len(spectra):
        raise ValueError(explain("weights", f"hold an array for each of the {len(spectra)} orders", len(weights),
                                 "give them in the same sequence"))  # fmt: skip
    arrays, skipped = [], []
    for k, (member, pixels) in enumerate(zip(spectra, kept, strict=True)):
        weight = np.asarray(weights[k])[pixels] if own_weights else weights
        try:
            arrays.append(read_spectrum(member, f"{name}[{k}]", window=window, exclude_regions=exclude_regions,
                                        weights=weight, wavelength_medium=wavelength_medium, report=False))  # fmt: skip
        except NoPixelsError:
            arrays.append(None)
            skipped.append(k)
    used = [a for a in arrays if a is not None]
    if not used:
        raise NoPixelsError(explain(name, "have pixels to use", f"{len(spectra)} orders in which none can be used",
                                    "check their masks and uncertainties, and the window"))  # fmt: skip
    _check_same(arrays, name)
    number = sum(a.n_ignored for a in used) + sum(int(np.count_nonzero(~k)) for k in kept)
    if skipped and window is None:
        warnings.warn(f"{name}: {len(skipped)} of {len(spectra)} orders have no pixel that can be used and are skipped "
                      f"(numbers {listed(skipped)})", BlaseWarning, stacklevel=3)  # fmt: skip
    if number:
        total = sum(pixels.size for pixels in kept)
        warnings.warn(f"{name}: {number} of {total} pixels in {len(spectra)} orders are ignored (flux not finite, "
                      "masked, or no finite positive uncertainty); exclude them to avoid this warning",
                      BlaseWarning, stacklevel=3)  # fmt: skip
    return Orders(arrays, spectra, kept, observed)


@dataclass(frozen=True)
class Motion:
    """The velocity of the Earth towards the star [km/s] or None, and whether the wavelengths are corrected for it."""

    velocity: float | None
    is_removed: bool


def motion(orders, given, tellurics):
    """The `Motion` of an exposure with telluric templates, whose barycentric velocity may be `given` (a Quantity)."""
    is_barycentric, velocity = orders.frame
    given = quantity_value(given, u.km / u.s, "barycentric_velocity", allow_none=True)
    velocity = velocity if given is None else given
    if is_barycentric and tellurics and velocity is None:
        raise ValueError(explain("barycentric_velocity", "be given for tellurics in wavelengths that are barycentric",
                                 'none, nor meta["barycentric_velocity"]', "give what was added to the velocities, "
                                 'or set meta["frame"] = "observatory"'))  # fmt: skip
    if velocity is not None and abs(velocity) > FASTEST_EARTH:
        raise ValueError(explain("barycentric_velocity", f"be at most {FASTEST_EARTH:g} km / s", f"{velocity:g} km / s",
                                 "check its unit"))  # fmt: skip
    return Motion(velocity, is_barycentric and bool(tellurics))


def one_of(spectra, number):
    """One of several spectra, without the pixels of a collection whose wavelength is not finite."""
    if not isinstance(spectra, SpectrumCollection):
        return spectra[number]
    axis = spectra.spectral_axis[number]
    keep = np.isfinite(axis.value) & (axis.value > 0)
    return _row(spectra, number, axis[keep], keep)


def members(observed, name):
    """
    Several spectra in whatever they came as a list.

    Parameters
    ----------
    observed : Spectrum of one or two dimensions, SpectrumCollection, SpectrumList or list of Spectrum
    name : str
        Name of the argument, for messages.

    Returns
    -------
    spectra : list of Spectrum
        Of one dimension.
    kept : list of ndarray of bool
        Which pixels of the input each holds.
    """
    if isinstance(observed, SpectrumCollection):
        kept = [np.isfinite(axis.value) & (axis.value > 0) for axis in observed.spectral_axis]
        return [one_of(observed, k) for k in range(len(kept))], kept
    if isinstance(observed, Spectrum):
        check_rows(observed, name)
        if observed.flux.ndim == 1:
            return [observed], [np.ones(observed.flux.size, dtype=bool)]
        everything = np.ones(observed.flux.shape[1], dtype=bool)
        # the axis itself, because slices of it lose the bin edges it was given
        rows = [_row(observed, k, observed.spectral_axis, slice(None)) for k in range(len(observed.flux))]
        return rows, [everything] * len(rows)
    if not isinstance(observed, list | tuple):
        raise TypeError(explain(name, "be a Spectrum, a SpectrumCollection, a SpectrumList or a list of Spectrum",
                                type(observed).__name__, "put the spectra into a list"))  # fmt: skip
    for k, member in enumerate(observed):
        if not isinstance(member, Spectrum):
            raise TypeError(explain(f"{name}[{k}]", "be a specutils Spectrum", type(member).__name__,
                                    "make one with Spectrum(flux=flux * unit, spectral_axis=wave * u.AA)"))  # fmt: skip
    if not observed:
        raise NoPixelsError(explain(name, "hold spectra", "an empty list", "check how it was read"))
    return list(observed), [np.ones(member.flux.size, dtype=bool) for member in observed]


def check_rows(observed, name):
    """Raise unless a Spectrum has spectra in its rows, or is one."""
    if observed.flux.ndim > 2:
        raise ValueError(explain(name, "have one or two dimensions", f"flux of shape {observed.flux.shape}",
                                 f"take a part, e.g. {name}[0]"))  # fmt: skip
    if observed.spectral_axis_index != observed.flux.ndim - 1:  # nothing else tells the two axes of a square one apart
        raise ValueError(explain(name, "have the spectral axis last", "it first",
                                 "transpose flux, uncertainty and mask"))  # fmt: skip


def _row(observed, k, axis, keep):
    """One row of a collection or of a two-dimensional spectrum."""
    uncertainty = observed.uncertainty
    optional = {} if observed.mask is None else {"mask": np.asarray(observed.mask)[k][keep]}
    if uncertainty is not None:
        optional["uncertainty"] = type(uncertainty)(uncertainty.array[k][keep], unit=uncertainty.unit)
    meta = observed.meta[k] if isinstance(observed.meta, list | tuple) else observed.meta  # one each, by from_spectra
    return Spectrum(flux=observed.flux[k][keep], spectral_axis=axis, meta=dict(meta or {}), **optional)


def _frame(meta):
    """`Orders.frame` of one order."""
    header = meta.get("header")
    system = str(header.get("SPECSYS", "")) if hasattr(header, "get") else ""
    # whatever it is, at rest is the air on the ground alone: the local standard of rest needs a velocity as well
    is_barycentric = not str(meta.get("frame", system) or "observatory").lower().startswith(("obs", "topo", "geo"))
    velocity = meta.get("barycentric_velocity")
    return is_barycentric, quantity_value(velocity, u.km / u.s, "barycentric_velocity", allow_none=True)


def _check_same(arrays, name):
    """Raise unless all orders have an uncertainty, or none; warn of two media, which is seldom meant."""
    used = {k: a for k, a in enumerate(arrays) if a is not None}
    if len({a.medium for a in used.values()}) > 1:
        in_air = [k for k, a in used.items() if a.medium == "air"]
        warnings.warn(f"{name}: {len(in_air)} of {len(used)} orders say that their wavelengths are in air (numbers "
                      f"{listed(in_air)}), the others vacuum, and all are taken at their word; if one is wrong, "
                      "give wavelength_medium", BlaseWarning, stacklevel=4)  # fmt: skip
    if len({a.sigma is None for a in used.values()}) > 1:
        raise ValueError(explain(name, "have uncertainties in all orders or in none", "some without",
                                 "add them, or give weights=None"))  # fmt: skip


def listed(numbers, most=8):
    """The first of some numbers as text."""
    text = ", ".join(map(str, numbers[:most]))
    return text + (", ..." if len(numbers) > most else "")
