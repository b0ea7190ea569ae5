"""What is known of lines before they are fitted."""

from dataclasses import dataclass

import numpy as np
from astropy import units as u

from specutils_blase.adapters import quantity_value
from specutils_blase.errors import explain

__all__ = ["GaussianPrior", "L1Prior", "checked_prior"]

# Tail of the default prior: of lines that scatter like a Gaussian 0.3 % are affected.  One order of WASP-69 is fitted
# to 0.499 % instead of 0.506 %.  With 2.0 it is 0.488 %, but where the errors of the model are many times the noise
# (a wrong line spread function at S/N 2000), lines drift, and the velocity with them, by 0.5 km/s.
TAIL = 3.0


@dataclass(frozen=True)
class GaussianPrior:
    """
    Gaussian prior that holds lines near their template.

    Parameters
    ----------
    strength : float
        Standard deviation of ln(strength).
    fwhm : float
        Standard deviation of ln(fwhm), for both widths.
    x_0 : Quantity
        Standard deviation of the centres, a velocity.
    tail : float
        Beyond so many standard deviations the probability falls exponentially (Huber 1964, Ann. Math. Stat. 35, 73)
        for lines that are plainly wrong in the template. The default, ``inf``, is a Gaussian throughout, which holds
        lines whatever the data say; that of `fit_spectrum` has a tail.
    """

    strength: float = 0.3
    fwhm: float = 0.3
    x_0: u.Quantity = 0.5 * u.km / u.s
    tail: float = np.inf

    quadratic = True

    def __post_init__(self):
        _check_scales(self.strength, self.fwhm, self.x_0)
        if not (np.isscalar(self.tail) and np.isreal(self.tail) and self.tail > 0):
            raise ValueError(explain("tail", "be a positive number or inf", repr(self.tail), "3 lets wrong lines go"))


@dataclass(frozen=True)
class L1Prior:
    """
    The prior of Gully-Santiago & Morley (2022): the sum of (absolute change)/scale over the free line parameters.

    Parameters
    ----------
    strength, fwhm : float
        Scales of the absolute changes of ln(strength) and ln(fwhm).
    x_0 : Quantity
        Scale of the change of the centres, a velocity.
    """

    strength: float = 0.3
    fwhm: float = 0.3
    x_0: u.Quantity = 0.5 * u.km / u.s

    quadratic = False

    def __post_init__(self):
        _check_scales(self.strength, self.fwhm, self.x_0)


def _check_scales(strength, fwhm, x_0):
    for name, value in (("strength", strength), ("fwhm", fwhm)):
        if not (np.isscalar(value) and np.isreal(value) and value > 0 and np.isfinite(value)):
            raise ValueError(explain(name, "be a positive number", repr(value), "0.3 is the default"))
    quantity_value(x_0, u.km / u.s, "x_0", positive=True)


def checked_prior(prior):
    """The prior of a fit, or an error."""
    if prior is None:
        return GaussianPrior(tail=TAIL)
    if not isinstance(prior, GaussianPrior | L1Prior):
        raise TypeError(explain("prior", "be a GaussianPrior, an L1Prior or None", type(prior).__name__,
                                "write e.g. GaussianPrior(strength=0.5)"))  # fmt: skip
    return prior
