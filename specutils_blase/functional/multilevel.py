"""Optical depth of many lines whose wings reach far: every part of a line on the coarsest grid that resolves it.

A line is split at radii W_0 < W_1 < ... into V = (V - G_0) + (G_0 - G_1) + ...: G_l is the line itself outside W_l and
inside it a polynomial that continues V with five derivatives.  V - G_0 ends at W_0 and is evaluated at the pixels;
G_(l-1) - G_l ends at W_l and is smooth on the scale of W_(l-1), so that a grid l levels coarser, from which it is
interpolated, resolves it.  A line costs a few dozen samples per level, however far it reaches, and the error of the
interpolation is part of the tolerance: the radii follow from it.
"""

import math

import numpy as np
from numba import njit

from .compiled import FAST, INNER, PAD, _first_above, _value_line, chunked, half_width, shared

__all__ = ["optical_depth"]

# Ratio of the spacings of neighbouring levels, and intervals that a level must have at least.
RATIO, FEWEST = 4.0, 32
# Share of the tolerance that the interpolation may use.
SHARE = 0.1
# Error of the interpolation of A/x^2 continued inside W: CONTINUATION (h/W)^6 A/W^2 (measured for six points).
CONTINUATION = 100.0
# The series is used for |z|^2 above FAR; its first missing term is MISSING |z|^-12 of the leading one.
FAR = 36.0
TERMS, POWERS, DERIVATIVES = 6, 11, 6
MISSING = 13.0 * math.prod(range(1, 12, 2)) / 2.0**TERMS


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


@njit(**FAST)
def _far_series(strength, sigma, gamma, series):
    """Coefficients b of tau = sum_n b[n] r^-(n + 1), r = dx^2 + gamma^2 [Angstrom^2], far from the centre."""
    square = 2.0 * sigma * sigma
    power = strength * gamma / math.pi
    for n in range(POWERS):
        total, factor = 0.0, 1.0
        for k in range(TERMS):
            total += _SERIES[n, k] * factor
            factor *= gamma * gamma / square
        series[n] = power * total
        power *= square


@njit(**FAST)
def _continuation(series, radius, polynomial):
    """Coefficients p of sum_j p[j] (1 - r/radius)^j, which continues the series with five derivatives."""
    for j in range(DERIVATIVES):
        polynomial[j] = 0.0
    power = 1.0 / radius
    for n in range(POWERS):
        for j in range(DERIVATIVES):
            polynomial[j] += series[n] * power * _BINOMIAL[n, j]
        power /= radius


@njit(**FAST)
def _add_series(first, last, x, step, gamma, series, out):
    """out[first:last] += the series at dx = x + i step."""
    b0, b1, b2, b3, b4, b5 = series[0], series[1], series[2], series[3], series[4], series[5]
    b6, b7, b8, b9, b10 = series[6], series[7], series[8], series[9], series[10]
    square = gamma * gamma
    for i in range(first, last):
        dx = x + i * step
        rho = 1.0 / (dx * dx + square)
        total = ((((b10 * rho + b9) * rho + b8) * rho + b7) * rho + b6) * rho + b5
        out[i] += (((((total * rho + b4) * rho + b3) * rho + b2) * rho + b1) * rho + b0) * rho


@njit(**FAST)
def _add_polynomial(first, last, x, step, gamma, radius, polynomial, sign, out):
    """out[first:last] += sign times the continuation at dx = x + i step."""
    p0, p1, p2, p3, p4, p5 = polynomial[0], polynomial[1], polynomial[2], polynomial[3], polynomial[4], polynomial[5]
    top, inverse = 1.0 - gamma * gamma / radius, 1.0 / radius
    for i in range(first, last):
        dx = x + i * step
        s = top - dx * dx * inverse
        out[i] += sign * (((((p5 * s + p4) * s + p3) * s + p2) * s + p1) * s + p0)


@njit(**FAST)
def _far(strength, sigma, gamma, error):
    """r = dx^2 + gamma^2 [Angstrom^2] beyond which the series gives the line to within `error`."""
    square = 2.0 * sigma * sigma
    head = MISSING * abs(strength) * gamma / math.pi / error
    return max(FAR * square, square ** (6.0 / 7.0) * head ** (1.0 / 7.0))


@njit(**INNER)
def _radius(strength, gamma, spacing, far, error):
    """r beyond which, besides, a grid of this spacing resolves the line to within `error`."""
    head = CONTINUATION * abs(strength) * gamma / math.pi / error * spacing**6
    return max(math.sqrt(math.sqrt(head)), far, 16.0 * spacing * spacing)


@njit(**INNER)
def _index(position, start, step, size):
    """Index of the first grid point that is not below `position`, within 0..size."""
    place = math.ceil((position - start) / step)
    return int(min(max(place, 0.0), float(size)))


@njit(**FAST)
def _add_lines(wave, center, strength, sigma, gamma, reach, start, step, size, offset, error, first, last, out):
    n_levels = step.size
    series, inner, outer = np.empty(POWERS), np.empty(DERIVATIVES), np.empty(DERIVATIVES)
    x, value, scratch = np.empty(wave.size + PAD), np.empty(wave.size + PAD), np.empty(wave.size + PAD)
    for j in range(first, last):
        s, w, g, c, end = strength[j], sigma[j], gamma[j], center[j], reach[j]
        far_enough = _far(s, w, g, error)
        radius = _radius(s, g, step[0], far_enough, error) if n_levels else np.inf
        cut = math.sqrt(max(radius - g * g, 0.0))
        near = min(cut, end)
        lo, hi = _first_above(wave, 0, wave.size, c - near), _first_above(wave, 0, wave.size, c + near)
        _value_line(wave, lo, hi, c, w, g, x, value, scratch)
        for i in range(lo, hi):
            out[i] += s * value[i - lo]
        if cut >= end:
            continue
        _far_series(s, w, g, series)
        _continuation(series, radius, outer)
        for i in range(lo, hi):
            dx = wave[i] - c
            t = 1.0 - (dx * dx + g * g) / radius
            out[i] -= ((((outer[5] * t + outer[4]) * t + outer[3]) * t + outer[2]) * t + outer[1]) * t + outer[0]
        for level in range(n_levels):
            inner, outer = outer, inner
            inside, radius_inside = cut, radius
            cut, is_last = end, True
            if level + 1 < n_levels:
                radius = _radius(s, g, step[level + 1], far_enough, error)
                cut = math.sqrt(max(radius - g * g, 0.0))
                is_last = cut >= end
            border = end if is_last else cut
            own = out[offset[level] : offset[level] + size[level]]
            h, origin = step[level], start[level] - c
            i0, i3 = _index(c - border, start[level], h, size[level]), _index(c + border, start[level], h, size[level])
            i1, i2 = _index(c - inside, start[level], h, size[level]), _index(c + inside, start[level], h, size[level])
            _add_series(i0, i1, origin, h, g, series, own)
            _add_polynomial(max(i0, i1), min(i2, i3), origin, h, g, radius_inside, inner, 1.0, own)
            _add_series(i2, i3, origin, h, g, series, own)
            if is_last:
                break
            _continuation(series, radius, outer)
            _add_polynomial(i0, i3, origin, h, g, radius, outer, -1.0, own)


@njit(**FAST)
def _add_interpolated(points, coarse, start, step, first, last, out):
    """out += coarse, which has spacing `step` from `start`, at points first..last: Lagrange's formula, six samples."""
    inverse = 1.0 / step
    for i in range(first, last):
        t = (points[i] - start) * inverse
        k = int(t)
        t -= k
        a, b, c, d, e = t + 2.0, t + 1.0, t - 1.0, t - 2.0, t - 3.0
        ab, de, bt, cd = a * b, d * e, b * t, c * d
        out[i] += (
            -coarse[k - 2] * bt * c * de / 120.0 + coarse[k - 1] * a * t * c * de / 24.0
            - coarse[k] * ab * c * de / 12.0 + coarse[k + 1] * ab * t * de / 12.0
            - coarse[k + 2] * ab * t * c * e / 24.0 + coarse[k + 3] * ab * t * cd / 120.0
        )  # fmt: skip


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
    reach = half_width(strength, sigma, gamma, (1.0 - SHARE) * tolerance)  # the rest is for the interpolation
    if np.isnan(center + reach).any():  # seen everywhere, so that it is seen
        return np.full(wave.size, np.nan)
    span, step = 0.0, np.ones(1)
    if wave.size > 1:
        some = np.linspace(0, wave.size - 2, min(wave.size - 1, 1000)).astype(np.int64)
        span = wave[-1] - wave[0]
        step = RATIO * np.median(wave[some + 1] - wave[some]) * RATIO ** np.arange(16)
    step = step[step * FEWEST <= span]
    start, size = wave[:1] - 3.0 * step, np.ceil(span / step).astype(np.int64) + 8
    offset = np.concatenate([[wave.size], wave.size + np.cumsum(size)]).astype(np.int64)

    def work(first, last):
        out = np.zeros(offset[-1])
        _add_lines(wave, center, strength, sigma, gamma, reach, start, step, size, offset, SHARE * tolerance,
                   first, last, out)  # fmt: skip
        return out

    out = sum(chunked(work, np.full(len(center), 100)))
    for level in range(len(step) - 1, -1, -1):
        points, own = wave, out[: wave.size]
        if level:
            points = start[level - 1] + step[level - 1] * np.arange(size[level - 1])
            own = out[offset[level - 1] : offset[level]]
        coarse = out[offset[level] : offset[level + 1]]
        shared(points.size, lambda a, b: _add_interpolated(points, coarse, start[level], step[level], a, b, own))  # noqa: B023
    return out[: wave.size]
