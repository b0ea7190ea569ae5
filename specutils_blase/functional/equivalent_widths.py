"""Equivalent widths of single Voigt lines with their derivatives: Gauss-Legendre quadrature, compiled.

Half a profile is integrated in panels that are even in t, dx = scale sinh t, as far as its wing is a Lorentzian's of
small optical depth, and from there to infinity in one panel that is even in 1/dx.  A saturated profile has an edge,
the steeper the more saturated it is: the number of panels follows the optical depth at the centre.
"""

import math

import numpy as np
from numba import njit

from .compiled import FAST, INNER, PAD, _terms_line, _value_line, chunked

__all__ = ["equivalent_width"]

_NODE, _WEIGHT = (np.ascontiguousarray(a) for a in np.polynomial.legendre.leggauss(16))
_NODE, _WEIGHT = 0.5 * (_NODE + 1.0), 0.5 * _WEIGHT
# Panels of an unsaturated line, more for every factor e of its optical depth, and at most.
PANELS, MORE_PANELS, MOST_PANELS = 2, 0.85, 24
# exp(-GAUSSIAN_END) of the Gaussian's optical depth is nothing; so many gamma are far out in the Lorentzian.
GAUSSIAN_END, LORENTZIAN_END = 40.0, 3.0
BISECTIONS = 60
# Numba compiles a function anew for every literal number that it is called with.
_ZERO, _ONE = np.int64(0), np.int64(1)


@njit(**INNER)
def _edge(strength, sigma, gamma, end, x, value, scratch):
    """Where strength V falls to 1, between 0 and end [Angstrom]."""
    point, inner, outer = np.empty(1), 0.0, end
    for _ in range(BISECTIONS):
        point[0] = 0.5 * (inner + outer)
        _value_line(point, _ZERO, _ONE, 0.0, sigma, gamma, x, value, scratch)
        if strength * value[0] > 1.0:
            inner = point[0]
        else:
            outer = point[0]
    return 0.5 * (inner + outer)


@njit(**INNER)
def _place_nodes(node, weight, first, scale, end, n_panels, point, share):
    """Nodes and weights of the integral from `first` to infinity [Angstrom]; returns how many."""
    k, inner = 0, math.asinh(first / scale)
    step = (math.asinh(end / scale) - inner) / n_panels
    for panel in range(n_panels):
        for i in range(node.size):
            growth = math.exp(inner + (panel + node[i]) * step)
            point[k] = 0.5 * scale * (growth - 1.0 / growth)
            share[k] = 0.5 * scale * (growth + 1.0 / growth) * step * weight[i]
            k += 1
    for i in range(node.size - 1, -1, -1):
        point[k] = end / node[i]
        share[k] = weight[i] * end / (node[i] * node[i])
        k += 1
    return k


@njit(**FAST)
def _integrate(strength, sigma, gamma, is_product, node, weight, first, last, out):
    size = (MOST_PANELS + 1) * node.size
    point, share, x, one = np.empty(size), np.empty(size), np.empty(size + PAD), np.ones(size + PAD)
    t0, t1, t2, t3 = np.empty(size + PAD), np.empty(size + PAD), np.empty(size + PAD), np.empty(size + PAD)
    for j in range(first, last):
        a, s, g = strength[j], sigma[j], gamma[j]
        point[0] = 0.0
        _value_line(point, _ZERO, _ONE, 0.0, s, g, x, t0, t1)
        saturation = math.log(max(abs(a) * t0[0], 1.0))
        n_panels = min(PANELS + int(math.ceil(MORE_PANELS * saturation)), MOST_PANELS)
        gaussian = s * math.sqrt(2.0 * (GAUSSIAN_END + saturation))
        end = max(gaussian, LORENTZIAN_END * g, 2.0 * math.sqrt(abs(a) * g / math.pi))
        black = 0.0
        if is_product and a * t0[0] > 1.0:
            black = _edge(a, s, g, end, x, t0, t1)
        n = _place_nodes(node, weight, black, 3.0 * (math.sqrt(2.0) * s + g), end, n_panels, point, share)
        _terms_line(point, _ZERO, _ZERO + n, 0.0, a, s, g, one, 1.0, 1.0, 1.0, 1.0, x, t0, t1, t2, t3)
        width, d_strength, d_sigma, d_gamma = black, 0.0, 0.0, 0.0
        for i in range(n):
            tau, dark = t0[i], share[i]
            width += dark * (tau if is_product else -math.expm1(-tau))
            if not is_product:
                dark *= math.exp(-tau)
            d_strength += dark * tau
            d_sigma += dark * t1[i]
            d_gamma += dark * t2[i]
        out[0, j], out[1, j], out[2, j], out[3, j] = 2.0 * width, 2.0 * d_strength, 2.0 * d_sigma, 2.0 * d_gamma


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
    out = np.empty((4, len(strength)))

    def work(first, last):
        _integrate(strength, sigma, gamma, form == "product", _NODE, _WEIGHT, first, last, out)

    chunked(work, np.full(len(strength), (PANELS + 2) * _NODE.size))
    return out[0], np.ascontiguousarray(out[1:].T)
