"""The error and the warning that are special to this package, and the one form of their text."""

from numbers import Integral

from astropy.utils.exceptions import AstropyUserWarning

__all__ = ["BlaseWarning", "CoverageError", "check_whole", "explain"]


class CoverageError(ValueError):
    """
    A template or grid does not reach over the wavelengths that are asked for; the message holds both ranges.

    Examples
    --------
    >>> from astropy import units as u
    >>> from specutils_blase import CoverageError, clone_spectrum
    >>> from specutils_blase.simulation import simulate_star
    >>> star = simulate_star(1, n_lines=60, lower=10500 * u.AA, upper=10512 * u.AA)
    >>> template = clone_spectrum(star.spectrum, continuum_degree=2)
    >>> try:
    ...     template.evaluate([10510, 10520] * u.AA)
    ... except CoverageError as error:
    ...     print(error)
    spectral_axis must lie within the template, 10499.995 to 10512.005 Angstrom in vacuum,
    got 10510 to 10520 Angstrom; cut it, or clone a wider spectrum
    """


class NoPixelsError(ValueError):
    """No pixel of a spectrum can be used; of several orders such a one is skipped."""


class BlaseWarning(AstropyUserWarning):
    """
    Something was left out or did not finish: ignored pixels, unused uncertainties, a fit that did not converge.

    Examples
    --------
    Python shows a warning once; here all are collected, and ``"ignore"`` or ``"error"`` would silence them
    or stop at them:

    >>> import warnings
    >>> import numpy as np
    >>> from astropy import units as u
    >>> from specutils import Spectrum
    >>> from specutils_blase import BlaseWarning, find_lines
    >>> wave = np.arange(5000, 5010, 0.02) * u.AA
    >>> flux = 1 - 0.5 * np.exp(-0.5 * ((wave.value - 5005) / 0.1) ** 2)
    >>> flux[:10] = np.nan
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always", BlaseWarning)
    ...     lines = find_lines(Spectrum(flux=flux * u.Jy, spectral_axis=wave))
    >>> print(len(lines), "line:", caught[0].message)
    1 line: spectrum: 10 of 500 pixels are ignored (flux not finite: 10, masked: 0, no finite positive
    uncertainty: 0); exclude them to avoid this warning
    """


def explain(name, expected, got, remedy):
    """
    Text of an error about an argument.

    Parameters
    ----------
    name : str
        The argument, as the user wrote it.
    expected, got, remedy : str
        What it must be or do, what came, and what to do about it.

    Returns
    -------
    str

    Examples
    --------
    >>> explain("teff", "be positive", -4700, "drop the sign")
    'teff must be positive, got -4700; drop the sign'
    """
    return f"{name} must {expected}, got {got}; {remedy}"


def check_whole(name, value, least, remedy):
    """
    Raise unless an argument is a whole number that is large enough.

    Parameters
    ----------
    name : str
        The argument, as the user wrote it.
    value : object
    least : int
    remedy : str

    Raises
    ------
    ValueError
        Also if it is True or False, or a float without a fraction.

    Examples
    --------
    >>> check_whole("seed", 3, 0, "another gives other noise")
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(explain(name, f"be a whole number, {least} or more", repr(value), remedy))
    if value >= 2**63:
        raise ValueError(explain(name, "be less than 2**63", repr(value), remedy))
