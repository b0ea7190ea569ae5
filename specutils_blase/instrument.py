"""
Line spread functions (LSF) as the user describes them.

These objects hold numbers and units only; the matrices and modules that apply them are built from them by the verbs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from astropy import constants
from astropy import units as u

from specutils_blase.errors import explain

__all__ = ["BandedLSF", "GaussianLSF", "ResolvingPower", "as_lsf"]


@dataclass(frozen=True)
class ResolvingPower:
    """
    Gaussian LSF of resolving power R = wavelength / FWHM.

    Parameters
    ----------
    R : float or callable
        A positive number, or a function ``R(wavelength)`` that takes vacuum wavelengths (a Quantity of shape (n_pix,))
        and returns positive dimensionless values of the same shape, or one value.
    free : bool
        Whether a fit may scale R by a factor.
    degree : int
        Of the Legendre polynomial in wavelength, over all orders, that the logarithm of that factor is: 0 makes it one
        number.
    per_order : bool
        Whether every order has a factor of its own instead.
    """

    R: float | Callable
    free: bool = False
    degree: int = 0
    per_order: bool = False

    def __post_init__(self):
        if not callable(self.R):
            object.__setattr__(self, "R", _positive_number(self.R, "R"))
        _check_flag(self.free)
        _check_flag(self.per_order, "per_order")
        if isinstance(self.degree, bool) or not (isinstance(self.degree, int | np.integer) and self.degree >= 0):
            raise ValueError(explain("degree", "be a whole number, not negative", repr(self.degree), "use 0 or 1"))
        if (self.degree or self.per_order) and not self.free:
            raise ValueError(explain("free", "be True for a degree or a factor per order", "False", "write free=True"))
        if self.degree and self.per_order:
            raise ValueError(explain("degree", "be 0 with per_order=True", self.degree, "choose one of the two"))

    def resolving_power(self, wave):
        """
        Resolving power at each wavelength.

        Parameters
        ----------
        wave : ndarray, shape (n_pix,) [Angstrom]
            Vacuum wavelength.

        Returns
        -------
        ndarray, shape (n_pix,)
            Wavelength / FWHM, dimensionless.
        """
        wave = np.asarray(wave, dtype=np.float64)
        if callable(self.R):
            return _evaluate(self.R, wave)
        return np.full(wave.shape, self.R)


@dataclass(frozen=True)
class GaussianLSF:
    """
    Gaussian LSF of constant width.

    Parameters
    ----------
    fwhm : Quantity
        Full width at half maximum (not the standard deviation), a length (the same width in wavelength everywhere) or a
        speed (the same resolving power everywhere).
    free : bool
        Whether a fit may scale the width by one common factor.
    """

    fwhm: u.Quantity
    free: bool = False

    def __post_init__(self):
        if not isinstance(self.fwhm, u.Quantity):
            remedy = "write e.g. fwhm=0.2 * u.AA or fwhm=5 * u.km / u.s, or use ResolvingPower"
            raise TypeError(explain("fwhm", "be a Quantity, a length or a speed", repr(self.fwhm), remedy))
        if not any(self.fwhm.unit.is_equivalent(unit) for unit in (u.AA, u.km / u.s)):
            got = f"the unit {str(self.fwhm.unit)!r}"
            raise u.UnitsError(explain("fwhm", "be a length or a speed", got, "convert it, e.g. to u.AA"))
        _positive_number(self.fwhm.value, "fwhm", unit=self.fwhm.unit)
        _check_flag(self.free)

    def resolving_power(self, wave):
        """
        Resolving power at each wavelength.

        Parameters
        ----------
        wave : ndarray, shape (n_pix,) [Angstrom]
            Vacuum wavelength.

        Returns
        -------
        ndarray, shape (n_pix,)
            Wavelength / FWHM, dimensionless.
        """
        wave = np.asarray(wave, dtype=np.float64)
        if self.fwhm.unit.is_equivalent(u.AA):
            return wave / self.fwhm.to_value(u.AA)
        return np.full(wave.shape, (constants.c / self.fwhm).to_value(u.one))


@dataclass(frozen=True, eq=False)
class BandedLSF:
    """
    LSF given as a banded resolution matrix, (observed pixels) = A (model integrated over the same pixels).

    Parameters
    ----------
    bands : array, shape (n_diag, n_pix)
        The diagonals of A in the layout of `scipy.sparse.dia_matrix` (and of DESI):
        ``bands[k, j] = A[j - offsets[k], j]``. Pixels are ordered by increasing wavelength.
    offsets : array of int, shape (n_diag,), optional
        Column minus row of each diagonal. By default n_diag // 2 down to -(n_diag // 2), as DESI orders them.
    """

    bands: np.ndarray
    offsets: np.ndarray | None = None

    def __post_init__(self):
        bands = np.array(self.bands, dtype=np.float64, order="C")
        if bands.ndim != 2 or bands.size == 0 or bands.shape[0] > bands.shape[1]:
            remedy = "choose one spectrum of several, or transpose the array"
            raise ValueError(explain("bands", "have the shape (n_diag, n_pix), n_diag <= n_pix", bands.shape, remedy))
        if not np.isfinite(bands).all():
            got = f"{np.count_nonzero(~np.isfinite(bands))} other values"
            raise ValueError(explain("bands", "be finite", got, "set the columns of unusable pixels to zero"))
        offsets = self._checked_offsets(bands.shape)
        for name, array in (("bands", bands), ("offsets", offsets)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def _checked_offsets(self, shape):
        n_diag, n_pix = shape
        if self.offsets is None:
            if n_diag % 2 == 0:
                raise ValueError(explain("bands", "have an odd number of diagonals", n_diag, "or give offsets"))
            return np.arange(n_diag // 2, -(n_diag // 2) - 1, -1)
        given = np.asarray(self.offsets)
        if given.shape != (n_diag,) or given.dtype.kind not in "iu":
            got = f"shape {given.shape} of {given.dtype}"
            raise ValueError(explain("offsets", f"be {n_diag} integers", got, "give one for each row of bands"))
        offsets = given.astype(np.int64)
        if np.unique(offsets).size != n_diag or np.abs(offsets).max() >= n_pix:
            expected = f"differ from each other and lie inside +-{n_pix - 1}"
            raise ValueError(explain("offsets", expected, offsets.tolist(), "correct them"))
        return offsets

    @classmethod
    def from_desi(cls, resolution_data):
        """
        From the ``resolution_data`` of one DESI spectrum and camera.

        Parameters
        ----------
        resolution_data : array, shape (n_diag, n_pix) or (1, n_diag, n_pix)
            As in a DESI file, or ``spectrum.meta["resolution_data"][i]`` after reading one with specutils.

        Returns
        -------
        BandedLSF
        """
        data = np.asarray(resolution_data)
        if data.ndim == 3 and data.shape[0] == 1:
            data = data[0]
        if data.ndim != 2:
            remedy = "choose one spectrum, e.g. resolution_data[i]"
            raise ValueError(explain("resolution_data", "have the shape (n_diag, n_pix)", data.shape, remedy))
        return cls(data)

    def triplets(self):
        """
        The entries of the matrix, ordered by row.

        Returns
        -------
        rows, cols : ndarray of int64, shape (n_entries,)
            Observed pixel and model pixel.
        values : ndarray, shape (n_entries,)
            ``A[rows, cols]``.
        """
        n_pix = self.bands.shape[1]
        cols = np.broadcast_to(np.arange(n_pix), self.bands.shape)
        rows = cols - self.offsets[:, np.newaxis]
        # The corners of the layout lie outside the matrix; DESI fills them with numbers that mean nothing.
        inside = (rows >= 0) & (rows < n_pix)
        rows, cols, values = rows[inside], cols[inside], self.bands[inside]
        order = np.lexsort((cols, rows))
        return rows[order], cols[order], values[order]


def as_lsf(lsf, name="lsf"):
    """
    The LSF object for what a user gave.

    Parameters
    ----------
    lsf : float, callable, 2-D array, `scipy.sparse.dia_matrix`, LSF object, or None
        A number or a callable is a resolving power, an array the bands of a resolution matrix.
    name : str
        Name of the argument, for messages.

    Returns
    -------
    ResolvingPower, GaussianLSF, BandedLSF, or None
        None means no LSF: the spectrum is only integrated over the pixels.
    """
    if lsf is None or isinstance(lsf, ResolvingPower | GaussianLSF | BandedLSF):
        return lsf
    if isinstance(lsf, type):
        raise TypeError(explain(name, "be an LSF, not its class", lsf.__name__, "call the class with its arguments"))
    if callable(lsf):
        return ResolvingPower(lsf)
    if getattr(lsf, "format", None) == "dia":
        return BandedLSF(lsf.data, lsf.offsets)
    if np.ndim(lsf) == 2 and not isinstance(lsf, u.Quantity):
        return BandedLSF(lsf)
    return ResolvingPower(_positive_number(lsf, name))


def _evaluate(function, wave):
    """Values of ``function`` at ``wave`` (n_pix,) [Angstrom], checked."""
    name = "lsf as a function R(wavelength)"
    try:
        values = function(wave * u.AA)
    except u.UnitsError as error:
        remedy = "it gets a Quantity in Angstrom: take wavelength.value where only numbers will do"
        raise u.UnitsError(explain(name, "take wavelengths with their unit", str(error), remedy)) from error
    if isinstance(values, u.Quantity):
        if not values.unit.is_equivalent(u.one):
            got = f"the unit {str(values.unit)!r}"
            raise u.UnitsError(explain(name, "return dimensionless values", got, "return wavelength / FWHM"))
        values = values.to_value(u.one)
    try:
        given = np.asarray(values)
    except ValueError:  # rows of different lengths
        given = np.asarray(values, dtype=object)
    if given.dtype.kind not in "iuf":
        got = f"{' '.join(repr(values).split()):.60}"
        raise TypeError(explain(name, "return real numbers", got, "return wavelength / FWHM for each wavelength"))
    if given.shape not in ((), wave.shape):
        expected = f"return one value or one for each wavelength, shape {wave.shape}"
        raise ValueError(explain(name, expected, f"shape {given.shape}", "write it with array operations"))
    values = np.broadcast_to(given, wave.shape).astype(np.float64)
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        got = f"{values[bad][0]} at {wave[bad][0]:.8g} Angstrom"
        raise ValueError(explain(name, "return finite positive values", got, "define it over the whole spectrum"))
    return values


def _positive_number(value, name, unit=None):
    """``value`` as a float if it is one finite positive number."""
    if unit is None and isinstance(value, u.Quantity):
        if not value.unit.is_equivalent(u.one):
            raise u.UnitsError(explain(name, "be dimensionless", value, "for a width use GaussianLSF(fwhm)"))
        value = value.to_value(u.one)
    if np.ndim(value) != 0 or np.asarray(value).dtype.kind not in "iuf":
        remedy = "if it changes with wavelength give a function R(wavelength), or a resolution matrix (n_diag, n_pix)"
        got = repr(value) if np.ndim(value) == 0 else f"an array of shape {np.shape(value)}"
        raise TypeError(explain(name, "be one positive number", got, remedy))
    if not 0 < float(value) < np.inf:
        remedy = "correct the number, or give lsf=None for the pixels alone"
        raise ValueError(explain(name, "be finite and positive", f"{value} {unit or ''}".strip(), remedy))
    return float(value)


def _check_flag(value, name="free"):
    if not isinstance(value, bool | np.bool_):
        raise TypeError(explain(name, "be True or False", repr(value), f"write {name}=True to fit it"))
