"""
The boundary between specutils/astropy objects and plain arrays.

Units, masks, uncertainties, byte order, axis direction, medium and device are settled here and nowhere else. Inside the
package everything is float64, vacuum Angstrom, increasing wavelength.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.nddata import StdDevUncertainty
from specutils import Spectrum
from specutils.utils.wcs_utils import air_to_vac, vac_to_air

from specutils_blase.conf import conf
from specutils_blase.errors import BlaseWarning, NoPixelsError, explain
from specutils_blase.regions import region_mask, spectral_equivalencies, wanted_pixels

__all__ = [
    "SpectrumArrays",
    "gaps_between",
    "misread_wavelengths",
    "quantity_value",
    "read_spectrum",
    "region_mask",
    "resolve_device",
    "spectrum_from_wave",
    "wavelength_values",
]

# uncertainty = sigma ** power, for the uncertainties of astropy that have a meaning
_UNCERTAINTY_POWER = {"std": 1, "var": 2, "ivar": -2}

# A spacing this many times the smallest ones on both sides is a gap between pixels, not a wide pixel.
_GAP_RATIO = 1.8
# Spacings that make up a side: where half of the pixels are missing at random, one side in 2**10 shows no true one.
_GAP_REACH = 10

# Below this wavelength [Angstrom] air is opaque and the formulae for its index of refraction are singular.
_SHORTEST_AIR_WAVELENGTH = 2000.0


@dataclass(frozen=True, eq=False)
class SpectrumArrays:
    """
    A one-dimensional spectrum as plain arrays, ordered by increasing vacuum wavelength.

    Every array is a fresh, contiguous, writable copy in native byte order.

    Attributes
    ----------
    wave : ndarray, shape (n_pix,) [Angstrom]
        Pixel centres; the middle of the edges where the spectrum came with bin edges.
    edges : ndarray, shape (n_pix, 2) [Angstrom]
        Lower and upper edge of each pixel.
    flux : ndarray, shape (n_pix,) [flux_unit]
        Not scaled, and not cleaned: pixels that are not good may hold NaN.
    sigma : ndarray, shape (n_pix,) [flux_unit], or None
        Standard deviation of the flux, inf in pixels that cannot be used. None means no weighting.
    good : ndarray of bool, shape (n_pix,)
        Usable, inside the window and outside the exclusions.
    flux_unit : Unit
        Unit of `flux` and `sigma`, the one of the input.
    n_ignored : int
        Pixels inside the window and outside the exclusions that had to be left out (bad flux, mask or uncertainty).
    medium : str
        "vacuum" or "air": what the spectral axis of the input measures.
    is_reversed : bool
        Whether the input runs from long to short wavelengths.
    source : Spectrum
        The input.
    """

    wave: np.ndarray
    edges: np.ndarray
    flux: np.ndarray
    sigma: np.ndarray | None
    good: np.ndarray
    flux_unit: u.UnitBase
    n_ignored: int
    medium: str
    is_reversed: bool
    source: Spectrum

    def to_spectrum(self, values, uncertainty=None, mask=None, *, unit=None):
        """
        A spectrum on the axis of the input: its unit, order, bin edges and medium.

        Parameters
        ----------
        values, uncertainty : array, shape (n_pix,) [unit]
            Flux and (optional) standard deviation, ordered as `wave`.
        mask : array of bool, shape (n_pix,), optional
            True where a value is not to be used, ordered as `wave`. Without it NaN values are masked.
        unit : Unit, optional
            By default the flux unit of the input.

        Returns
        -------
        Spectrum
        """
        given = {"values": values, "uncertainty": uncertainty, "mask": mask}
        for name, array in given.items():
            if array is None:
                continue
            if np.shape(array) != self.wave.shape:
                remedy = "give all pixels of the spectrum"
                raise ValueError(explain(name, f"have the shape {self.wave.shape}", np.shape(array), remedy))
            given[name] = np.flip(array) if self.is_reversed else array
        return _build_spectrum(
            # the axis itself, because copies and slices of a SpectralAxis lose the bin edges it was given
            self.source.spectral_axis,
            *given.values(),
            unit=self.flux_unit if unit is None else unit,
            meta={**self.source.meta, "wavelength_medium": self.medium},
        )


def read_spectrum(
    spectrum, name="spectrum", *, window=None, exclude_regions=None, weights="unc", wavelength_medium=None, report=True
):
    """
    Plain arrays from a spectrum, with every decision about bad input taken and told.

    Pixels are ignored, counted, and reported in one `BlaseWarning` where the flux is not finite, the mask is true, or
    the uncertainty (or an explicit weight) gives no finite positive standard deviation.

    Parameters
    ----------
    spectrum : Spectrum
        One-dimensional, any subclass, any spectral axis unit. A redshift stored in its axis is not applied.
    name : str
        Name of the argument, for messages.
    window : SpectralRegion, (lower, upper) Quantities, or None
        Pixels to use, bounds included, as in `specutils.fitting.fit_lines`. None means all. In the medium of the axis.
    exclude_regions : SpectralRegion or list of SpectralRegion, optional
        Pixels not to use, lower bounds included and upper bounds not, as in specutils.
    weights : "unc", None, or array, shape (n_pix,)
        "unc": the uncertainty of the spectrum. None: no weighting. An array holds 1/sigma for all pixels in the order
        of the input, in the inverse flux unit if it has no unit. A bad uncertainty excludes a pixel in every case.
    wavelength_medium : "vacuum", "air", or None
        What the wavelengths are. None takes ``spectrum.meta["wavelength_medium"]``, else a FITS axis type AWAV in
        ``spectrum.meta["header"]`` or the WCS, else vacuum.
    report : bool
        Whether to warn of ignored pixels; the caller that does not want that does so itself.

    Returns
    -------
    SpectrumArrays

    Raises
    ------
    NoPixelsError
        If no pixel can be used.
    """
    _check_spectrum(spectrum, name)
    medium = _declared_medium(spectrum, name, wavelength_medium)
    wave, edges = _pixels(spectrum.spectral_axis, name, medium)
    flux = np.array(spectrum.flux.value, dtype=np.float64)
    wanted = wanted_pixels(spectrum.spectral_axis, name, window, exclude_regions)
    sigma, without_sigma = _read_sigma(spectrum, name, weights)
    bad = _report_ignored(spectrum, name, wanted, without_sigma, report)
    if sigma is not None:
        sigma[bad] = np.inf
    is_reversed = bool(wave[0] > wave[-1])
    if is_reversed:
        # copies, because torch takes no negative strides
        wave, flux, wanted, bad = (array[::-1].copy() for array in (wave, flux, wanted, bad))
        edges, sigma = (None if array is None else array[::-1].copy() for array in (edges, sigma))
    return SpectrumArrays(
        wave=wave,
        edges=_edges_between(wave, name) if edges is None else edges,
        flux=flux,
        sigma=sigma,
        good=wanted & ~bad,
        flux_unit=spectrum.flux.unit,
        n_ignored=int(np.count_nonzero(wanted & bad)),
        medium=medium,
        is_reversed=is_reversed,
        source=spectrum,
    )


def spectrum_from_wave(wave, flux, unit, *, uncertainty=None, mask=None, meta=None):
    """
    A spectrum on a monotonic vacuum wavelength axis ``wave`` (n_pix,) [Angstrom]; the rest as in `to_spectrum`.

    Returns
    -------
    Spectrum
    """
    axis = np.array(wave, dtype=np.float64) * u.AA
    meta = {**(meta or {}), "wavelength_medium": "vacuum"}
    return _build_spectrum(axis, flux, uncertainty, mask, unit=unit, meta=meta)


def wavelength_values(spectral_axis, name="spectral_axis", *, wavelength_medium="vacuum"):
    """
    Vacuum wavelengths of a spectral axis.

    Parameters
    ----------
    spectral_axis : Quantity, any shape
        Wavelength, frequency, energy or wavenumber; velocity when it knows its rest value and convention.
    name : str
        Name of the argument, for messages.
    wavelength_medium : "vacuum" or "air"
        What the values are; only wavelengths can be in air.

    Returns
    -------
    ndarray of float64, same shape and order [Angstrom]
        A copy.
    """
    if not isinstance(spectral_axis, u.Quantity):
        got, remedy = type(spectral_axis).__name__, "multiply it by its unit, e.g. values * u.AA"
        raise TypeError(explain(name, "be a Quantity with a spectral unit", got, remedy))
    equivalencies = spectral_equivalencies(spectral_axis)
    return _angstrom(spectral_axis.value, spectral_axis.unit, equivalencies, name, wavelength_medium)


def misread_wavelengths(wave, medium):
    """
    Where light of given vacuum wavelengths seems to be in a spectrum that is taken for one in `medium`, but is not.

    Parameters
    ----------
    wave : ndarray [Angstrom]
    medium : "vacuum" or "air"

    Returns
    -------
    ndarray, same shape [Angstrom]
        The same values below 2000 Angstrom, where air is opaque.
    """
    wave = np.array(wave, dtype=np.float64)
    long = wave > _SHORTEST_AIR_WAVELENGTH
    if long.any():  # specutils does not take empty arrays
        wave[long] = (vac_to_air if medium == "vacuum" else air_to_vac)(wave[long] * u.AA).value
    return wave


def quantity_value(value, unit, name, *, positive=False, allow_none=False, equivalencies=None):
    """
    The number in a scalar Quantity, for an argument called ``name``.

    Parameters
    ----------
    value : Quantity or None
        None is passed through if ``allow_none``.
    unit : Unit
        Unit of the result, reached with the ``equivalencies`` if any.
    name : str
        Name of the argument, for messages.
    positive : bool
        Whether zero and negative values are refused; values that are not finite always are.

    Returns
    -------
    float or None
    """
    if value is None and allow_none:
        return None
    unit = u.Unit(unit)
    remedy = f'write e.g. {name}=number * u.Unit("{unit}")'
    if not isinstance(value, u.Quantity):
        raise TypeError(explain(name, f"be a Quantity in a unit like {str(unit)!r}", repr(value), remedy))
    try:
        number = value.to_value(unit, equivalencies or [])
    except u.UnitConversionError as error:
        raise u.UnitsError(explain(name, f"have a unit like {str(unit)!r}", repr(str(value.unit)), remedy)) from error
    if np.ndim(number) != 0:
        raise ValueError(explain(name, "be one value", f"an array of shape {np.shape(number)}", "choose one element"))
    if not np.isfinite(number) or (positive and number <= 0):
        expected = "be finite and positive" if positive else "be finite"
        raise ValueError(explain(name, expected, value, "correct the number or its sign"))
    return float(number)


def resolve_device(device):
    """
    The torch device a verb runs on.

    Parameters
    ----------
    device : str, torch.device, or None
        None takes ``specutils_blase.conf.device``. The solver of this version runs on the CPU only, so that "auto" and
        "cpu" both mean the CPU.

    Returns
    -------
    str
        For ``torch.device``, which is not imported here so that reading a spectrum stays fast.
    """
    name, wish = ("specutils_blase.conf.device", conf.device) if device is None else ("device", device)
    if str(wish) not in ("auto", "cpu"):
        remedy = (
            "the solver of this version runs on the CPU only; to use another device, move modules of "
            "specutils_blase.nn there and train them with torch.optim"
        )
        raise ValueError(explain(name, 'be "auto" or "cpu"', repr(str(wish)), remedy))
    return "cpu"


def _check_spectrum(spectrum, name):
    if not isinstance(spectrum, Spectrum):
        remedy = "make one with Spectrum(flux=flux * unit, spectral_axis=wave * u.AA), or take one item of a list"
        raise TypeError(explain(name, "be a specutils Spectrum", type(spectrum).__name__, remedy))
    flux = spectrum.flux
    if flux.ndim != 1:
        remedy = f"take one spectrum, e.g. {name}[0]"
        raise ValueError(explain(name, "be one-dimensional", f"flux of shape {flux.shape}", remedy))
    if flux.size == 0:
        raise NoPixelsError(explain(name, "have pixels", "an empty spectrum", "check how it was read or cut"))
    if flux.unit.is_equivalent(u.dex):
        raise u.UnitsError(explain(name, "have a linear flux unit", repr(str(flux.unit)), "convert magnitudes to flux"))
    if np.iscomplexobj(flux):
        raise TypeError(explain(name, "have real flux", flux.dtype, "take the real part or the modulus"))


def _declared_medium(spectrum, name, wavelength_medium):
    """The medium of the wavelengths: the argument, else what the metadata says, else vacuum."""
    argument = "wavelength_medium"
    if wavelength_medium is None:
        argument = f'{name}.meta["wavelength_medium"]'
        wavelength_medium = spectrum.meta.get("wavelength_medium")
    if wavelength_medium is None:
        header = spectrum.meta.get("header")
        axis_types = [header.get(f"CTYPE{i}") for i in (1, 2, 3)] if hasattr(header, "get") else []
        # neither astropy nor specutils converts an AWAV axis: its values are air wavelengths as they stand
        axis_types += list(getattr(getattr(spectrum.wcs, "wcs", None), "ctype", []))
        return "air" if any(str(axis_type).startswith("AWAV") for axis_type in axis_types) else "vacuum"
    if wavelength_medium not in ("vacuum", "air"):
        raise ValueError(explain(argument, 'be "vacuum" or "air"', repr(wavelength_medium), "correct or remove it"))
    return wavelength_medium


def _pixels(spectral_axis, name, medium):
    """Centres (n,) and, if the axis was given as bin edges, edges (n, 2), both [Angstrom] in the order of the axis."""
    centers = wavelength_values(spectral_axis, name, wavelength_medium=medium)
    # The public bin_edges makes up midpoints where none were given, without saying so.
    bounds = getattr(spectral_axis, "_bin_edges", None)
    if bounds is None:
        _check_distinct(centers, name)
        return centers, None
    unit = getattr(bounds, "unit", spectral_axis.unit)
    bounds = _angstrom(np.asarray(bounds), unit, spectral_equivalencies(spectral_axis), name, medium)
    _check_distinct(bounds, name)
    edges = np.stack([np.minimum(bounds[:-1], bounds[1:]), np.maximum(bounds[:-1], bounds[1:])], axis=1)
    # The middle in wavelength, so that the same pixels in another unit have the same centres.
    return (bounds[:-1] + bounds[1:]) / 2, edges


def _check_distinct(wave, name):
    repeated = np.diff(wave) == 0
    if repeated.any():
        got = f"{np.count_nonzero(repeated)} repeated, the first at {wave[:-1][repeated][0]:.10g} Angstrom"
        remedy = "merge overlapping parts, or store the axis as float64 if rounding did it"
        raise ValueError(explain(name, "have a different wavelength in every pixel", got, remedy))


def _edges_between(wave, name):
    """
    Edges (n, 2) halfway between increasing centres (n,) [Angstrom].

    No pixel reaches into a gap (between detectors, orders, or where pixels were removed): the edge there lies at half
    the spacing of the pixel's other side. Where the spacing changes for good, as from one arm to the next, is no gap.
    """
    if wave.size == 1:
        remedy = 'give its two edges as spectral_axis and bin_specification="edges"'
        raise NoPixelsError(explain(name, "have bin edges or at least two pixels", "one pixel", remedy))
    spacing, (gaps, typical) = np.diff(wave), gaps_between(wave)
    spacing[gaps] = typical
    # the end pixels are symmetric
    middle = (wave[1:] + wave[:-1]) / 2
    edges = np.stack([np.append(wave[0], middle), np.append(middle, wave[-1])], axis=1)
    edges[[0, -1], [0, 1]] += np.array([-0.5, 0.5]) * spacing[[0, -1]]
    edges[gaps, 1] = wave[gaps] + spacing[np.maximum(gaps - 1, 0)] / 2
    edges[gaps + 1, 0] = wave[gaps + 1] - spacing[np.minimum(gaps + 1, spacing.size - 1)] / 2
    return edges


def gaps_between(wave):
    """Indices of the pixels before a gap, of increasing centres (n,), and the spacing that would be there without."""
    spacing = np.diff(wave)
    typical = np.maximum(_smallest_before(spacing), _smallest_before(spacing[::-1])[::-1])
    return (gaps := np.flatnonzero(spacing > _GAP_RATIO * typical)), typical[gaps]


def _smallest_before(spacing):
    """The smallest of the (up to) `_GAP_REACH` values before each one, for the first of three after it; same shape."""
    smallest = np.full_like(spacing, np.inf)
    smallest[:1] = spacing[1:4].min(initial=np.inf)
    for shift in range(1, min(_GAP_REACH + 1, spacing.size)):
        np.minimum(smallest[shift:], spacing[:-shift], out=smallest[shift:])
    return smallest


def _angstrom(values, unit, equivalencies, name, medium):
    """Vacuum wavelengths [Angstrom] for spectral values in any unit; same shape."""
    if medium == "air" and not unit.is_equivalent(u.AA):
        remedy = 'give a wavelength axis, or wavelength_medium="vacuum" if the values are true frequencies or energies'
        raise ValueError(explain(name, "have wavelengths to be in air", f"the unit {str(unit)!r}", remedy))
    is_masked = getattr(values, "mask", False)
    values = np.array(values, dtype=np.float64)
    try:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            wave = u.Quantity(values, unit, copy=False).to_value(u.AA, equivalencies)
    except u.UnitConversionError as error:
        got, remedy = f"the unit {str(unit)!r}", "give spectral_axis= in such a unit when the Spectrum is made"
        if unit.is_equivalent(u.km / u.s):
            got, remedy = "velocities alone", "give rest_value= and velocity_convention= when the Spectrum is made"
        expected = "have a spectral axis of wavelength, frequency, energy or wavenumber"
        raise u.UnitsError(explain(name, expected, got, remedy)) from error
    unphysical = ~(np.isfinite(wave) & (wave > 0)) | is_masked
    if unphysical.any():
        got = f"{np.count_nonzero(unphysical)} other, the first is {values[unphysical][0]} {unit}"
        raise ValueError(explain(name, "have finite positive spectral values", got, "remove these pixels"))
    if medium == "air":
        if wave.size and wave.min() < _SHORTEST_AIR_WAVELENGTH:
            expected = f"lie above {_SHORTEST_AIR_WAVELENGTH:g} Angstrom to be in air"
            remedy = 'shorter wavelengths are by convention in vacuum: give wavelength_medium="vacuum"'
            raise ValueError(explain(name, expected, f"{wave.min():.8g} Angstrom", remedy))
        # This scheme inverts vac_to_air to 3e-12; the default one only to 5e-8 (15 m/s) at 2000 Angstrom.
        wave = air_to_vac(wave * u.AA, scheme="piskunov").value
    return wave


def _read_sigma(spectrum, name, weights):
    """Standard deviation (n,) or None, and where (n,) the uncertainty or the weight makes a pixel unusable."""
    sigma = _standard_deviation(spectrum.uncertainty, spectrum.flux.unit)
    unusable = np.zeros(spectrum.flux.shape, dtype=bool) if sigma is None else ~(np.isfinite(sigma) & (sigma > 0))
    if weights is None:
        return None, unusable
    if isinstance(weights, str):
        if weights != "unc":
            raise ValueError(explain("weights", 'be "unc", None or 1/sigma', repr(weights), "choose one of them"))
        if sigma is None and spectrum.uncertainty is not None:
            text = (
                f"{name} has an uncertainty of unknown type ({type(spectrum.uncertainty).__name__}) that is not used; "
                "wrap it in astropy.nddata.StdDevUncertainty, VarianceUncertainty or InverseVariance"
            )
            warnings.warn(text, BlaseWarning, stacklevel=4)
        return sigma, unusable
    if isinstance(weights, u.Quantity):
        weights = weights.to_value(1 / spectrum.flux.unit)
    weights = np.array(weights, dtype=np.float64)
    if weights.shape != spectrum.flux.shape:
        expected = f"have one value for each pixel, shape {spectrum.flux.shape}"
        raise ValueError(explain("weights", expected, weights.shape, "do not cut them to the window"))
    with np.errstate(divide="ignore"):
        sigma = 1 / weights
    return sigma, unusable | ~(np.isfinite(sigma) & (sigma > 0))


def _standard_deviation(uncertainty, flux_unit):
    """Standard deviation (n,) in the flux unit, or None when there is none or its type has no meaning."""
    power = _UNCERTAINTY_POWER.get(getattr(uncertainty, "uncertainty_type", None))
    if power is None:
        return None
    values = np.array(uncertainty.array, dtype=np.float64) * uncertainty.unit.to(flux_unit**power)
    with np.errstate(divide="ignore", invalid="ignore"):
        return values ** (1 / power)


def _report_ignored(spectrum, name, wanted, without_sigma, report):
    """Unusable pixels (n,), after one warning about the wanted ones among them, or an error if no other is left."""
    causes = {
        "flux not finite": ~np.isfinite(spectrum.flux.value),
        "masked": np.zeros_like(wanted) if spectrum.mask is None else np.asarray(spectrum.mask).astype(bool),
        "no finite positive uncertainty": without_sigma,
    }
    bad = np.logical_or.reduce(list(causes.values()))
    n_bad, n_wanted = np.count_nonzero(bad & wanted), np.count_nonzero(wanted)
    if not n_bad:
        return bad
    counts, left = [], wanted
    for cause, where in causes.items():  # each pixel under its first cause, so that the counts add up
        counts.append(f"{cause}: {np.count_nonzero(where & left)}")
        left = left & ~where
    counts = ", ".join(counts)
    if n_bad == n_wanted:
        got = f"{n_wanted} pixels that are all bad ({counts})"
        raise NoPixelsError(explain(name, "have pixels to use", got, "check the mask, the uncertainty and the window"))
    if not report:
        return bad
    text = f"{name}: {n_bad} of {n_wanted} pixels are ignored ({counts}); exclude them to avoid this warning"
    warnings.warn(text, BlaseWarning, stacklevel=4)
    return bad


def _build_spectrum(spectral_axis, flux, uncertainty, mask, *, unit, meta):
    # An absent mask is not passed at all, because only then does Spectrum mask NaN.
    optional = {} if mask is None else {"mask": np.array(mask, dtype=bool)}
    if uncertainty is not None:
        optional["uncertainty"] = StdDevUncertainty(np.array(uncertainty, dtype=np.float64), unit=unit)
    flux = u.Quantity(np.array(flux, dtype=np.float64), unit, copy=False)
    return Spectrum(flux=flux, spectral_axis=spectral_axis, spectral_axis_index=flux.ndim - 1, meta=meta, **optional)
