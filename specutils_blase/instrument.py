"""
Line spread functions (LSF) as the user describes them.

These objects hold numbers and units only; the matrices and modules that apply them are built from them by the verbs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from astropy import constants
from astropy import units as u

from specutils_blase.errors import check_whole, explain

__all__ = ["BandedLSF", "GaussianLSF", "MeasuredLSF", "ResolvingPower", "TabulatedPower", "as_lsf", "line_shapes"]

# Largest h3 and h4, as a fit has it (`solvers.observed`), and how far a measured profile may reach [km/s].
LARGEST_HERMITE, FARTHEST = 0.3, 20_000.0
KMS = u.km / u.s


@dataclass(frozen=True)
class ResolvingPower:
    """
    LSF of resolving power R = wavelength / FWHM: Gaussian, or disturbed by Gauss-Hermite terms.

    With these it is a Gaussian of the resolving power R times 1 + h3 H3(w) + h4 H4(w), where w is the offset in units
    of its standard deviation, with the polynomials of van der Marel & Franx (1993, ApJ 407, 525, eq. 9). Positive h3
    is a tail to longer wavelengths (and below zero far out on the other side), positive h4 a sharper peak with broader
    wings. The whole is divided by its integral, 1 + 0.612 h4. Velocities are those of the Gaussian: the mean of the LSF
    lies at 1.73 h3 / (1 + 0.612 h4) standard deviations from it, and its FWHM is not quite wavelength / R.

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
    h3, h4 : float
        Coefficients of the Gauss-Hermite terms, from -0.3 to 0.3.
    free_shape : bool
        Whether a fit changes h3 and h4, the same in all orders, whatever becomes of R.

    Examples
    --------
    As a number, or as a function of wavelength:

    >>> from astropy import units as u
    >>> from specutils_blase import ResolvingPower, clone_spectrum, fit_spectrum
    >>> rising = ResolvingPower(lambda wavelength: 50_000 * (wavelength / (10000 * u.AA)).value)
    >>> print(rising.resolving_power([10000.0, 11000.0]))
    [50000. 55000.]

    Measured from telluric lines, starting at a wrong one:

    >>> from specutils_blase.simulation import simulate_order, simulate_telluric
    >>> sky = simulate_telluric(2, n_lines=8, lower=10500 * u.AA, upper=10512 * u.AA)
    >>> telluric = clone_spectrum(sky.spectrum, prominence=0.005, continuum_degree=1)
    >>> order = simulate_order(None, sky.model, seed=2, resolving_power=50_000, snr=1000, bad_pixels=0,
    ...                        lower=10502 * u.AA, upper=10510 * u.AA, n_pix=150)
    >>> fit = fit_spectrum(order.spectrum, None, telluric, lsf=ResolvingPower(40_000, free=True))
    >>> name, value, std = fit.parameters["name", "value", "std"][0]
    >>> print(f"{name}: {value / 1000:.0f} +- {std / 1000:.0f} thousand")
    resolving_power: 49 +- 1 thousand
    """

    R: float | Callable
    free: bool = False
    degree: int = 0
    per_order: bool = False
    h3: float = 0.0
    h4: float = 0.0
    free_shape: bool = False

    def __post_init__(self):
        if not callable(self.R):
            object.__setattr__(self, "R", _positive_number(self.R, "R"))
        _check_flag(self.free)
        _check_flag(self.per_order, "per_order")
        _check_flag(self.free_shape, "free_shape")
        for name in ("h3", "h4"):
            object.__setattr__(self, name, _hermite(getattr(self, name), name))
        check_whole("degree", self.degree, 0, "use 0 or 1")
        if (self.degree or self.per_order) and not self.free:
            raise ValueError(explain("free", "be True for a degree or a factor per order", "False", "write free=True"))
        if self.degree and self.per_order:
            raise ValueError(explain("degree", "be 0 with per_order=True", self.degree, "choose one of the two"))

    @property
    def is_gaussian(self):
        """Whether there are no Gauss-Hermite terms, and none are fitted."""
        return not (self.h3 or self.h4 or self.free_shape)

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


@dataclass(frozen=True, eq=False)
class TabulatedPower:
    """
    A resolving power R(wavelength) that is linear between samples and constant outside them; what files hold of one.

    Parameters
    ----------
    wavelength : ndarray, shape (n,) [Angstrom]
        In vacuum, increasing.
    power : ndarray, shape (n,)
    """

    wavelength: np.ndarray
    power: np.ndarray

    def __call__(self, wavelength):
        """The resolving power at vacuum wavelengths, a Quantity."""
        return np.interp(wavelength.to_value(u.AA), self.wavelength, self.power)


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

    Examples
    --------
    >>> from astropy import units as u
    >>> from specutils_blase import GaussianLSF
    >>> print(GaussianLSF(fwhm=0.2 * u.AA).resolving_power([10000.0, 12000.0]))
    [50000. 60000.]
    >>> print(GaussianLSF(fwhm=6 * u.km / u.s).resolving_power([10000.0, 12000.0]).round())
    [49965. 49965.]

    It is the ``lsf`` of a fit, as in ``fit_spectrum(observed, template, lsf=GaussianLSF(0.2 * u.AA))``.
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
class MeasuredLSF:
    """
    LSF given by samples, of the lines of a lamp for instance: the same in velocity at all wavelengths.

    It is linear between the samples, zero outside them and divided by its integral. Its mean is not moved to zero: a
    profile whose mean is 1 km/s makes all wavelengths longer by that. The integrals over the pixels are exact.

    Parameters
    ----------
    velocity : Quantity, shape (n,)
        Increasing; positive where light is found at longer wavelengths than it has.
    profile : array, shape (n,)
        In any unit. Noise may make some of it negative.

    Examples
    --------
    The profile of a lamp, with a tail to longer wavelengths:

    >>> import numpy as np
    >>> from astropy import units as u
    >>> from specutils_blase import MeasuredLSF
    >>> velocity = np.arange(-15.0, 16.0) * u.km / u.s
    >>> counts = np.exp(-0.5 * (velocity.value / 2.5) ** 2) * (1 + 0.02 * velocity.value)
    >>> lsf = MeasuredLSF(velocity, counts)
    >>> print(f"{lsf.resolving_power([10500.0])[0]:.0f}")
    50840

    Wavelengths are longer by its mean, unless the velocities are measured from there:

    >>> mean = np.trapezoid(lsf.profile * velocity, velocity) / (u.km / u.s)
    >>> print(f"{mean:.3f}")
    0.125 km / s
    >>> centred = MeasuredLSF(velocity - mean, counts)

    Either is the ``lsf`` of a fit, as in ``fit_spectrum(observed, template, lsf=centred)``.
    """

    velocity: u.Quantity
    profile: np.ndarray

    def __post_init__(self):
        if not isinstance(self.velocity, u.Quantity):
            raise TypeError(explain("velocity", "be a Quantity, a speed", type(self.velocity).__name__,
                                    "write e.g. np.linspace(-9, 9, 37) * u.km / u.s"))  # fmt: skip
        if not self.velocity.unit.is_equivalent(KMS):
            raise u.UnitsError(explain("velocity", "be a speed", f"the unit {str(self.velocity.unit)!r}",
                                       "divide offsets in wavelength by it, and multiply by c"))  # fmt: skip
        velocity = np.array(self.velocity.to_value(KMS), dtype=np.float64)
        if velocity.ndim != 1 or velocity.size < 2:
            raise ValueError(explain("velocity", "have the shape (n,), n at least 2", velocity.shape,
                                     "for a profile of each order give a list of LSFs"))  # fmt: skip
        if not (np.diff(velocity) > 0).all():  # nor if any is not finite
            raise ValueError(explain("velocity", "increase from each sample to the next", "others",
                                     "sort it, with the profile, and drop what is repeated or not finite"))  # fmt: skip
        if np.abs(velocity).max() > FARTHEST:
            raise ValueError(explain("velocity", f"be within {FARTHEST:g} km / s of zero", self.velocity,
                                     "check its unit"))  # fmt: skip
        profile = np.array(getattr(self.profile, "value", self.profile))
        if profile.dtype.kind not in "iuf":
            raise TypeError(explain("profile", "be an array of numbers", type(self.profile).__name__,
                                    "give its value at each velocity"))  # fmt: skip
        profile = profile.astype(np.float64)
        if profile.shape != velocity.shape or not np.isfinite(profile).all():
            got = f"shape {profile.shape}" if profile.shape != velocity.shape else "other values"
            raise ValueError(explain("profile", f"have a finite value for each velocity, shape {velocity.shape}", got,
                                     "give both from the same samples"))  # fmt: skip
        area = np.trapezoid(profile, velocity)
        if not area > 0:
            raise ValueError(explain("profile", "have a positive integral", f"{area:.3g} km / s times its unit",
                                     "subtract the right background, and turn absorption upside down"))  # fmt: skip
        profile /= area
        for name, array in (("velocity", velocity * KMS), ("profile", profile)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def resolving_power(self, wave):
        """
        Resolving power at each wavelength: the speed of light over the full width at half of the highest sample.

        Parameters
        ----------
        wave : ndarray, shape (n_pix,) [Angstrom]
            Vacuum wavelength.

        Returns
        -------
        ndarray, shape (n_pix,)
            Dimensionless.
        """
        velocity, profile = self.velocity.value, self.profile
        half = 0.5 * profile.max()
        first, last = np.flatnonzero(profile >= half)[[0, -1]]
        lower = _crossing(velocity, profile, half, first, first - 1)
        upper = _crossing(velocity, profile, half, last, last + 1)
        return np.full(np.shape(wave), constants.c.to_value(KMS) / (upper - lower))


def _crossing(velocity, profile, level, inside, outside):
    """Where the profile falls to a level between two samples; the inner one itself where there is no other."""
    if not 0 <= outside < len(profile):
        return velocity[inside]
    share = (profile[inside] - level) / (profile[inside] - profile[outside])
    return velocity[inside] + share * (velocity[outside] - velocity[inside])


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

    Examples
    --------
    Every pixel gives a fifth of its light to each of its neighbours. The zeros lie outside the matrix:

    >>> from scipy.sparse import coo_array
    >>> from specutils_blase import BandedLSF
    >>> lsf = BandedLSF([[0.0, 0.2, 0.2, 0.2],
    ...                  [0.8, 0.6, 0.6, 0.8],
    ...                  [0.2, 0.2, 0.2, 0.0]])
    >>> print(lsf.offsets)
    [ 1  0 -1]
    >>> rows, cols, values = lsf.triplets()
    >>> print(coo_array((values, (rows, cols))).toarray())
    [[0.8 0.2 0.  0. ]
     [0.2 0.6 0.2 0. ]
     [0.  0.2 0.6 0.2]
     [0.  0.  0.2 0.8]]
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
    ResolvingPower, GaussianLSF, MeasuredLSF, BandedLSF, or None
        None means no LSF: the spectrum is only integrated over the pixels.
    """
    if lsf is None or isinstance(lsf, ResolvingPower | GaussianLSF | MeasuredLSF | BandedLSF):
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


def line_shapes(lsfs, part):
    """
    What LSFs are besides Gaussian, as a fit takes it.

    Parameters
    ----------
    lsfs : list
        One for each part, all of one kind.
    part : ndarray of int, shape (n_pix,)

    Returns
    -------
    dict
        ``hermite`` (n_pix, 2), ``free_hermite`` and ``profiles`` of `solvers.scene.Scene`.
    """
    if isinstance(lsfs[0], MeasuredLSF):
        return {"profiles": tuple((lsf.velocity.value, lsf.profile) for lsf in lsfs)}
    if all(getattr(lsf, "is_gaussian", True) for lsf in lsfs):
        return {}
    hermite = np.array([(getattr(lsf, "h3", 0.0), getattr(lsf, "h4", 0.0)) for lsf in lsfs])
    return {"hermite": hermite[part], "free_hermite": bool(getattr(lsfs[0], "free_shape", False))}


def _hermite(value, name):
    """``value`` as a float if it is one number that leaves the LSF close to a Gaussian."""
    if np.ndim(value) != 0 or np.asarray(value).dtype.kind not in "iuf":
        raise TypeError(explain(name, "be one number", repr(value), "0 is a Gaussian"))
    if not abs(float(value)) <= LARGEST_HERMITE:
        raise ValueError(explain(name, f"lie between -{LARGEST_HERMITE} and {LARGEST_HERMITE}", value,
                                 "give a profile further from a Gaussian as MeasuredLSF"))  # fmt: skip
    return float(value)


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
