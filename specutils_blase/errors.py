"""The error and the warning that are special to this package, and the one form of their text."""

from astropy.utils.exceptions import AstropyUserWarning

__all__ = ["BlaseWarning", "CoverageError", "explain"]


class CoverageError(ValueError):
    """A template or grid does not reach over the wavelengths that are asked for; the message holds both ranges."""


class NoPixelsError(ValueError):
    """No pixel of a spectrum can be used; of several orders such a one is skipped."""


class BlaseWarning(AstropyUserWarning):
    """Something was left out or did not finish: ignored pixels, unused uncertainties, a fit that did not converge."""


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
