"""Equivalent widths of single Voigt lines with their derivatives: Gauss-Legendre quadrature, compiled.

Half a profile is integrated in panels that are even in t, dx = scale sinh t, as far as its wing is a Lorentzian's of
small optical depth, and from there to infinity in one panel that is even in 1/dx.  A saturated profile has an edge,
the steeper the more saturated it is: the number of panels follows the optical depth at the centre.
"""

import numpy as np

from .compiled import chunked, kernels, lines_arrays

__all__ = ["equivalent_width"]

_NODE, _WEIGHT = (np.ascontiguousarray(a) for a in np.polynomial.legendre.leggauss(16))
_NODE, _WEIGHT = 0.5 * (_NODE + 1.0), 0.5 * _WEIGHT
PANELS = 4  # of a line that is not saturated: the measure of the work


def equivalent_width(strength, sigma, gamma, form="opacity"):
    """Equivalent width of every line alone, and its derivatives.

    Parameters
    ----------
    strength, sigma, gamma : ndarray, shape (n_lines,) [Angstrom]
        As in `compiled.optical_depth`.
    form : {"opacity", "product"}

    Returns
    -------
    width : ndarray, shape (n_lines,) [Angstrom]
        Integral of 1 - exp(-strength V), or of min(strength V, 1): positive for absorption.
    gradient : ndarray, shape (n_lines, 3)
        Derivatives with respect to ln |strength|, ln sigma, ln gamma.
    """
    strength, sigma, gamma = lines_arrays(strength, sigma, gamma)
    out = np.empty((4, len(strength)))

    def work(first, last):
        kernels.integrate(strength, sigma, gamma, form == "product", _NODE, _WEIGHT, first, last, out)

    chunked(work, np.full(len(strength), PANELS * _NODE.size))
    return out[0], np.ascontiguousarray(out[1:].T)
