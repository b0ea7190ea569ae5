"""The continuum of galaxies in bins of the rest frame, which emission lines and pixels that are missing leave alone."""

import numpy as np
from astropy import units as u
from astropy.utils.masked import Masked
from specutils import Spectrum

from specutils_blase.adapters import read_spectrum
from specutils_blase.errors import NoPixelsError, explain
from specutils_blase.functional.galaxies import BINS, EMISSION_LINES, top_hat_means
from specutils_blase.orders import members

__all__ = ["BINS", "EMISSION_LINES", "FLUX_UNIT", "per_wavelength", "redshifts", "top_hat_continuum"]

FLUX_UNIT = u.Unit("1e-17 erg / (s cm2 AA)")


def top_hat_continuum(spectrum, redshift):
    r"""
    Mean flux density of galaxies in twelve bins of the rest frame, 3400 to 7000 Angstrom, 300 each.

    A pixel counts by the width of it that lies in the bin, and not in a window of 800 km/s to either side of one of
    22 emission lines: with :math:`f_i` constant over pixel i and :math:`w_{ij}` its part of bin j,

    .. math:: F_j = \sum_i w_{ij} f_i / \sum_i w_{ij} ,

    over all pixels that can be used. Khederlarian et al. (2024, MNRAS 531, 1454) predict emission lines from it.

    Parameters
    ----------
    spectrum : Spectrum, SpectrumCollection, SpectrumList, or list of Spectrum
        One galaxy, rows of galaxies, or a list of n, each with its own pixels; or a list of spectra of two dimensions,
        the cameras with which the galaxies in their rows were observed, as the loaders of DESI return them: where two
        cameras overlap, each counts to the middle. A flux density per wavelength or frequency, in the frame of the
        observer.
    redshift : float, or array of shape (n,)
        Not negative.

    Returns
    -------
    Quantity, shape (n, 12)
        Flux density per wavelength of the observer, 1e-17 erg / (s cm2 Angstrom); NaN where the pixels end within a
        bin, or less than half of what counts can be used.

    Raises
    ------
    TypeError, ValueError
        If a redshift is missing, negative or not finite.
    astropy.units.UnitsError
        If the flux is no flux density.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy import units as u
    >>> from specutils import Spectrum
    >>> from specutils_blase.galaxy import top_hat_continuum
    >>> wave = np.arange(3600.0, 7600.0, 2.0) * u.AA
    >>> galaxy = Spectrum(flux=(wave / (5000 * u.AA)) * u.Unit("1e-17 erg / (s cm2 AA)"), spectral_axis=wave)
    >>> continuum = top_hat_continuum(galaxy, 0.1)
    >>> print(continuum.shape, continuum[0, :3].round(2))
    (1, 12) [0.78 0.85 0.91] 1e-17 erg / (Angstrom s cm2)
    >>> print(np.isnan(continuum[0]).sum(), "bin lies beyond 7600 Angstrom")
    1 bin lies beyond 7600 Angstrom
    """
    galaxies = _galaxies(spectrum)
    z = redshifts(redshift, len(galaxies))
    out = np.full((len(galaxies), len(BINS) - 1), np.nan)
    for k, cameras in enumerate(galaxies):
        try:
            flux, edges, good = _pixels(cameras, f"spectrum[{k}]" if len(galaxies) > 1 else "spectrum")
        except NoPixelsError:
            if len(galaxies) == 1:
                raise
            continue
        out[k] = top_hat_means(flux[None], edges, good[None], z[k : k + 1]).numpy()
    return out * FLUX_UNIT


def is_cameras(spectra):
    """Whether spectra are those of several cameras, with the galaxies in their rows."""
    return (isinstance(spectra, list | tuple) and len(spectra) > 0
            and all(isinstance(one, Spectrum) and one.flux.ndim == 2 for one in spectra))  # fmt: skip


def same_galaxies(cameras, name):
    """Raise unless all cameras have as many rows."""
    rows = [len(camera.flux) for camera in cameras]
    if len(set(rows)) > 1:
        raise ValueError(explain(name, "have the same galaxies in all cameras", f"{rows} rows", "cut them alike"))


def _galaxies(spectrum):
    """A list of galaxies, each of which is a list of its cameras."""
    if is_cameras(spectrum):
        same_galaxies(spectrum, "spectrum")
        return list(zip(*(members(camera, "spectrum")[0] for camera in spectrum), strict=True))
    return [[one] for one in members(spectrum, "spectrum")[0]]


def _pixels(cameras, name):
    """Flux per wavelength, edges and goodness of the pixels of one galaxy, which no longer overlap."""
    read, missing = [], None
    for camera in cameras:
        try:
            read.append(read_spectrum(camera, name, report=False))
        except NoPixelsError as error:
            missing = error
    if not read:
        raise missing
    read.sort(key=lambda pixels: pixels.edges[0, 0])
    parts = [(per_wavelength(pixels), pixels.edges, pixels.good) for pixels in read]
    for k in range(len(parts) - 1):
        (_, before, _), (_, after, _) = parts[k : k + 2]
        if (end := before[-1, 1]) <= (start := after[0, 0]):
            continue
        middle = 0.5 * (start + end)
        left, right = before[:, 0] < middle, after[:, 1] > middle
        parts[k], parts[k + 1] = ([values[some] for values in part]
                                  for part, some in zip(parts[k : k + 2], (left, right), strict=True))  # fmt: skip
        # The pixel in which the middle lies counts on its own side of it alone.
        parts[k][1], parts[k + 1][1] = np.minimum(parts[k][1], middle), np.maximum(parts[k + 1][1], middle)
    return (np.concatenate(values) for values in zip(*parts, strict=True))


def unmasked(values):
    """An array or Quantity of floats with NaN in place of what is masked; anything else as it came."""
    if isinstance(values, np.ma.MaskedArray):
        plain = np.ma.filled(np.ma.asarray(values).astype(float), np.nan)
        return plain if getattr(values, "unit", None) is None else plain * values.unit
    if isinstance(values, Masked):
        return (values * 1.0).filled(np.nan)
    return values


def redshifts(redshift, n):
    """Redshifts of n galaxies, (n,)."""
    try:
        given = unmasked(redshift)
        if np.asanyarray(redshift).dtype.kind in "bc":
            raise TypeError("no real number")
        values = np.asarray(u.Quantity(np.asanyarray(given) * 1.0).to_value(u.one), dtype=float)
    except (TypeError, ValueError, u.UnitsError) as error:
        raise TypeError(explain("redshift", "be a number, or one for each galaxy", f"{redshift!r:.60}",
                                "give z = wavelength / rest wavelength - 1")) from error  # fmt: skip
    if values.shape not in ((), (n,)):
        raise ValueError(explain("redshift", f"have one value for each of {n} galaxies", f"the shape {values.shape}",
                                 "give them in the order of the spectra"))  # fmt: skip
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        got = f"{values[bad].ravel()[0]:g}"
        raise ValueError(explain("redshift", "be finite and not negative",
                                 f"{got} or a masked one" if got == "nan" and given is not redshift else got,
                                 "leave those galaxies out"))  # fmt: skip
    return np.array(np.broadcast_to(values, (n,)))


def per_wavelength(pixels):
    """Flux density per wavelength, with zero in pixels that cannot be used, (n_pix,) [FLUX_UNIT]."""
    return np.where(pixels.good, pixels.flux, 0.0) * density_factor(pixels.flux_unit, pixels.wave, "spectrum")


def density_factor(unit, wave, name):
    """By what flux densities of a unit are multiplied to be per wavelength [FLUX_UNIT], (n_pix,)."""
    try:
        if unit.is_equivalent("erg / (s cm2)"):  # nu f_nu, which astropy would convert: it may as well be a flux
            raise u.UnitConversionError("no density")
        return (1.0 * unit).to_value(FLUX_UNIT, u.spectral_density(wave * u.AA)) * np.ones(len(wave))
    except u.UnitConversionError as error:
        raise u.UnitsError(explain(name, "have a flux density per wavelength or frequency", f"the unit {str(unit)!r}",
                                   "calibrate it")) from error  # fmt: skip
