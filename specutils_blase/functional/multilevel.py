"""Optical depth of many lines whose wings reach far: every part of a line on the coarsest grid that resolves it.

A line is split at radii W_0 < W_1 < ... into V = (V - G_0) + (G_0 - G_1) + ...: G_l is the line itself outside W_l and
inside it a polynomial that continues V with five derivatives.  V - G_0 ends at W_0 and is evaluated at the pixels;
G_(l-1) - G_l ends at W_l and is smooth on the scale of W_(l-1), so that a grid l levels coarser, from which it is
interpolated, resolves it.  A line costs a few dozen samples per level, however far it reaches, and the error of the
interpolation is part of the tolerance: the radii follow from it.
"""

import math

import numpy as np

from .compiled import chunked, half_width, kernels, lines_arrays, shared

__all__ = ["optical_depth"]

# Ratio of the spacings of neighbouring levels, and intervals that a level must have at least.
RATIO, FEWEST = 4.0, 32
# Share of the tolerance that the interpolation may use.
SHARE = 0.1
POWERS, TERMS, DERIVATIVES = kernels.POWERS, kernels.TERMS, kernels.DERIVATIVES


def _series():
    """Coefficients of Re w = y/sqrt(pi) sum_nk c[n, k] y^(2 k) r^-(n + 1), r = |z|^2, from the asymptotic series.

    w = i/(sqrt(pi) z) sum_k (2k-1)!!/(2 z^2)^k and sin((2k+1) t)/sin t = sum_i (-4 sin^2 t)^i (2k+1)/(2i+1) C(k+i, 2i).
    """
    out = np.zeros((POWERS, TERMS))
    for k in range(TERMS):
        head = math.prod(range(1, 2 * k, 2)) / 2.0**k
        for i in range(k + 1):
            out[k + i, i] += head * (-4.0) ** i * (2 * k + 1) / (2 * i + 1) * math.comb(k + i, 2 * i)
    return out


_SERIES = _series()
_BINOMIAL = np.array([[float(math.comb(n + j, j)) for j in range(DERIVATIVES)] for n in range(POWERS)])


def optical_depth(wave, center, strength, sigma, gamma, tolerance):
    """Sum of the lines' optical depths, shape (n_pix,); each line as far as |tau_j| >= tolerance.

    Parameters
    ----------
    wave : ndarray, shape (n_pix,) [Angstrom], increasing
    center, strength, sigma, gamma : ndarray, shape (n_lines,) [Angstrom]
        strength is signed (negative for emission); sigma is a standard deviation, gamma a half width at half maximum.
    tolerance : float
        Also bounds the error of a line anywhere.
    """
    center, strength, sigma, gamma = lines_arrays(center, strength, sigma, gamma)
    reach = half_width(strength, sigma, gamma, (1.0 - SHARE) * tolerance)  # the rest is for the interpolation
    if np.isnan(center + reach).any():  # seen everywhere, so that it is seen
        return np.full(wave.size, np.nan)
    span, step, spacing = 0.0, np.ones(1), np.diff(wave)
    spacing = spacing[spacing > 0]  # exposures may share wavelengths
    if spacing.size:
        some = np.linspace(0, spacing.size - 1, min(spacing.size, 1000)).astype(np.int64)
        span = wave[-1] - wave[0]
        step = RATIO * np.median(spacing[some]) * RATIO ** np.arange(16)
    step = step[step * FEWEST <= span]
    start, size = wave[:1] - 3.0 * step, np.ceil(span / step).astype(np.int64) + 8
    offset = np.concatenate([[wave.size], wave.size + np.cumsum(size)]).astype(np.int64)

    def work(first, last):
        out = np.zeros(offset[-1])
        kernels.add_multilevel(wave, center, strength, sigma, gamma, reach, start, step, size, offset, _SERIES,
                               _BINOMIAL, SHARE * tolerance, first, last, out)  # fmt: skip
        return out

    out = sum(chunked(work, np.full(len(center), 100)))
    for level in range(len(step) - 1, -1, -1):
        points, own = wave, out[: wave.size]
        if level:
            points = start[level - 1] + step[level - 1] * np.arange(size[level - 1])
            own = out[offset[level - 1] : offset[level]]
        coarse = out[offset[level] : offset[level + 1]]

        def fill(a, b):
            kernels.add_interpolated(points, coarse, start[level], step[level], a, b, own)  # noqa: B023

        shared(points.size, fill)
    return out[: wave.size]
