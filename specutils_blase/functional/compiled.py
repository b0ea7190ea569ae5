"""The compiled twin of `functional.profiles` and `functional.forest`: exact Voigt lines on flat arrays, CPU, numba.

The torch functions are the reference; these kernels give the same numbers (tests hold them together) some forty
times faster, with the four derivatives that the banded solver needs.  Arrays are plain float64 numpy arrays in the
package's internal units (vacuum Angstrom).  Every line is worked on over a contiguous window of pixels, which is
split into the core |x| < 10 (Weideman 1994, SIAM J. Numer. Anal. 31, 1497, N = 32, error 4e-14 of the peak) and two
wings (asymptotic series of w(z), nine terms: relative error about 1e-11, and 1e-9 in the derivatives).
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from numba import njit

__all__ = ["half_width", "line_windows", "optical_depth", "product_transmission", "line_terms", "line_projections"]

_SQRT2 = math.sqrt(2.0)
_SQRT2PI = math.sqrt(2.0 * math.pi)
_RSQRTPI = 1.0 / math.sqrt(math.pi)
_CORE = 10.0  # |x| and y below which the rational expansion is used
# (2k - 1)!!/2^k, the coefficients of the asymptotic series
_A1, _A2, _A3, _A4, _A5, _A6, _A7, _A8 = (math.prod(range(1, 2 * k, 2)) / 2.0**k for k in range(1, 9))
MAX_DEPTH = 1.0 - 1e-6  # a product-form line may not absorb more than this
# Work arrays are longer than a line by so many pixels that it can be worked on in whole vectors.
PAD = 4
SERIAL = 30_000  # (line, pixel) pairs below which a second thread costs more than it saves
# error_model "numpy": the check for division by zero would keep the loops from being vectorised.
# No "nnan"/"ninf" in fastmath: a NaN in must be a NaN out.
FAST = {"fastmath": {"contract", "reassoc", "nsz", "arcp"}, "error_model": "numpy", "nogil": True, "cache": True}
# Of functions that compiled ones alone call: nothing that Python could call is compiled.
INNER = {**FAST, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def _weideman(order=32):
    """Coefficients of Weideman's expansion: w(z) = 2 p(Z)/(L - iz)^2 + (1/sqrt(pi))/(L - iz), Z = (L + iz)/(L - iz)."""
    size = 2 * order
    k = np.arange(-size + 1, size)
    scale = math.sqrt(order / _SQRT2)
    t = scale * np.tan(k * np.pi / size / 2)
    f = np.append(0.0, np.exp(-(t**2)) * (scale**2 + t**2))
    a = np.real(np.fft.fft(np.fft.fftshift(f))) / (2 * size)
    return scale, np.ascontiguousarray(a[1 : order + 1][::-1])


_SCALE, _COEFFICIENTS = _weideman()
_C = tuple(_COEFFICIENTS.tolist())  # constants of the compiled code


@njit(**INNER)
def _core(x, y, re, im):
    """w(x + iy) for |x|, y of order 10 and less; a real-coefficient Horner scheme (two multiply-adds per term)."""
    # written out, because only then does the compiler keep it in registers, four or eight pixels at a time
    plus, minus = _SCALE + y, _SCALE - y
    for i in range(x.size):
        q = 1.0 / (plus * plus + x[i] * x[i])
        ir, ii = plus * q, x[i] * q
        zr, zi = (minus * plus - x[i] * x[i]) * q, (plus + minus) * ii
        s, n = 2.0 * zr, zr * zr + zi * zi
        r = _C[0]
        p = _C[1] + s * r
        r = _C[2] + s * p - n * r
        p = _C[3] + s * r - n * p
        r = _C[4] + s * p - n * r
        p = _C[5] + s * r - n * p
        r = _C[6] + s * p - n * r
        p = _C[7] + s * r - n * p
        r = _C[8] + s * p - n * r
        p = _C[9] + s * r - n * p
        r = _C[10] + s * p - n * r
        p = _C[11] + s * r - n * p
        r = _C[12] + s * p - n * r
        p = _C[13] + s * r - n * p
        r = _C[14] + s * p - n * r
        p = _C[15] + s * r - n * p
        r = _C[16] + s * p - n * r
        p = _C[17] + s * r - n * p
        r = _C[18] + s * p - n * r
        p = _C[19] + s * r - n * p
        r = _C[20] + s * p - n * r
        p = _C[21] + s * r - n * p
        r = _C[22] + s * p - n * r
        p = _C[23] + s * r - n * p
        r = _C[24] + s * p - n * r
        p = _C[25] + s * r - n * p
        r = _C[26] + s * p - n * r
        p = _C[27] + s * r - n * p
        r = _C[28] + s * p - n * r
        p = _C[29] + s * r - n * p
        r = _C[30] + s * p - n * r
        p = _C[31] + s * r - n * p
        pr, pi = p - zr * r, zi * r
        sr = 2.0 * (pr * ir - pi * ii) + _RSQRTPI
        si = 2.0 * (pr * ii + pi * ir)
        re[i] = sr * ir - si * ii
        im[i] = sr * ii + si * ir


@njit(**INNER)
def _wing_value(x, y, re):
    """Re w by the asymptotic series w = i/(sqrt(pi) z) sum_k (2k-1)!!/(2 z^2)^k, nine terms, in real arithmetic."""
    for i in range(x.size):
        xi = x[i]
        x2 = xi * xi
        q = 1.0 / (x2 + y * y)
        n = q * q  # |u|^2 with u = 1/z^2
        s = 2.0 * (x2 - y * y) * n  # 2 Re u
        b0 = _A8
        b1 = _A7 + s * b0
        b0, b1 = b1, _A6 + s * b1 - n * b0
        b0, b1 = b1, _A5 + s * b1 - n * b0
        b0, b1 = b1, _A4 + s * b1 - n * b0
        b0, b1 = b1, _A3 + s * b1 - n * b0
        b0, b1 = b1, _A2 + s * b1 - n * b0
        b0, b1 = b1, _A1 + s * b1 - n * b0
        b0, b1 = b1, 1.0 + s * b1 - n * b0
        r, m = b1 - 0.5 * s * b0, -2.0 * xi * y * n * b0
        re[i] = _RSQRTPI * q * (r * y - m * xi)


@njit(**INNER)
def _wing_terms(x, y, inv, factor, w0, w1, w2, w3, t0, t1, t2, t3):
    """What `_terms_line` returns, by the same series written as w = i/(sqrt(pi) z) (1 + u C), C = 1/2 + u G.

    Then w' = -2i/sqrt(pi) u C and w'' = 2i/sqrt(pi) u/z (2 G - C), in which nothing cancels at large |z|.
    """
    w0, w1, w2, w3 = -w0 * _RSQRTPI, -w1 * _RSQRTPI, 2.0 * y * w2 * _RSQRTPI, -2.0 * inv * w3 * _RSQRTPI
    for i in range(x.size):
        xi, f = x[i], factor[i]
        q = 1.0 / (xi * xi + y * y)
        vr, vi = xi * q, -y * q  # 1/z
        ur, ui = vr * vr - vi * vi, 2.0 * vr * vi
        s, n = 2.0 * ur, q * q
        g0, g1 = _A8, _A7 + s * _A8
        g0, g1 = g1, _A6 + s * g1 - n * g0
        g0, g1 = g1, _A5 + s * g1 - n * g0
        g0, g1 = g1, _A4 + s * g1 - n * g0
        g0, g1 = g1, _A3 + s * g1 - n * g0
        g0, g1 = g1, _A2 + s * g1 - n * g0
        gr, gi = g1 - ur * g0, ui * g0
        cr, ci = _A1 + ur * gr - ui * gi, ur * gi + ui * gr
        br, bi = ur * cr - ui * ci, ur * ci + ui * cr  # u C
        hr, hi = 2.0 * gr - cr, 2.0 * gi - ci
        kr, ki = ur * hr - ui * hi, ur * hi + ui * hr
        t0[i] = w0 * f * (vr * bi + vi * (1.0 + br))
        t1[i] = w1 * f * (vr * ki + vi * kr)
        t2[i] = w2 * f * br
        t3[i] = w3 * f * bi


@njit(**INNER)
def _core_terms(x, y, inv, factor, w0, w1, w2, w3, t0, t1, t2, t3):
    """What `_terms_line` returns, for |x|, y of order 10 and less."""
    _core(x, y, t0, t2)
    w1, w2, w3 = -w1, -y * w2, -inv * w3
    for i in range(x.size):
        wr, wi, xi, f = t0[i], t2[i], x[i], factor[i]
        dr = -2.0 * (xi * wr - y * wi)
        di = -2.0 * (xi * wi + y * wr) + 2.0 * _RSQRTPI
        t0[i] = w0 * f * wr
        t1[i] = w1 * f * (wr + (xi * dr - y * di))  # sigma dV/dsigma = sigma^2 d2V/dx2
        t2[i] = w2 * f * di  # dV/dgamma = -Im w'
        t3[i] = w3 * f * dr


@njit(**INNER)
def _first_above(wave, lo, hi, value):
    """First pixel of lo..hi whose wavelength is not below value (np.searchsorted would take a second to compile)."""
    while lo < hi:
        middle = (lo + hi) // 2
        if wave[middle] < value:
            lo = middle + 1
        else:
            hi = middle
    return lo


@njit(**INNER)
def _place(wave, lo, hi, center, inv, y, x):
    """x = (wave - center) inv on pixels lo..hi, continued by PAD pixels; where the core begins and ends in it."""
    n = hi - lo
    for i in range(n):
        x[i] = (wave[lo + i] - center) * inv
    for i in range(n, n + PAD):
        x[i] = _CORE
    first, last = 0, 0
    if y < _CORE and n > 0:
        last = n
        if x[0] < -_CORE:
            first = _first_above(wave, lo, hi, center - _CORE / inv) - lo
        if x[n - 1] >= _CORE:
            last = _first_above(wave, lo, hi, center + _CORE / inv) - lo
    return first, last


@njit(**INNER)
def _whole(first, last):
    """The end of a stretch first..last made as long as whole vectors: with the rest pixel by pixel it takes longer."""
    return first + (last - first + PAD - 1) // PAD * PAD


@njit(**INNER)
def _value_line(wave, lo, hi, center, sigma, gamma, x, value, scratch):
    """V on pixels lo..hi into value[: hi - lo]; x, value and scratch are longer than that by PAD."""
    inv = 1.0 / (sigma * _SQRT2)
    y = gamma * inv
    n = hi - lo
    core0, core1 = _place(wave, lo, hi, center, inv, y, x)
    # a stretch may run into the one that follows, which then overwrites it
    if core0 > 0:
        end = _whole(0, core0)
        _wing_value(x[:end], y, value[:end])
    if core1 > core0:
        end = _whole(core0, core1)
        _core(x[core0:end], y, value[core0:end], scratch[core0:end])
    if n > core1:
        end = _whole(core1, n)
        _wing_value(x[core1:end], y, value[core1:end])
    norm = inv * _RSQRTPI
    for i in range(n):
        value[i] *= norm


@njit(**INNER)
def _terms_line(wave, lo, hi, center, strength, sigma, gamma, factor, w0, w1, w2, w3, x, t0, t1, t2, t3):
    """d tau / d (ln strength, ln sigma, ln gamma, center) on pixels lo..hi into t0..t3; the first is tau itself.

    They are multiplied by `factor` (which begins with pixel lo) and each by its w.  All these arrays are longer than
    that by PAD, and contiguous: rows of a matrix would not be vectorised.
    """
    inv = 1.0 / (sigma * _SQRT2)
    y = gamma * inv
    n, norm = hi - lo, strength * inv * _RSQRTPI
    w0, w1, w2, w3 = norm * w0, norm * w1, norm * w2, norm * w3
    core0, core1 = _place(wave, lo, hi, center, inv, y, x)
    if core0 > 0:
        end = _whole(0, core0)
        _wing_terms(x[:end], y, inv, factor[:end], w0, w1, w2, w3, t0[:end], t1[:end], t2[:end], t3[:end])
    if core1 > core0:
        end = _whole(core0, core1)
        _core_terms(x[core0:end], y, inv, factor[core0:end], w0, w1, w2, w3,
                    t0[core0:end], t1[core0:end], t2[core0:end], t3[core0:end])  # fmt: skip
    if n > core1:
        end = _whole(core1, n)
        _wing_terms(x[core1:end], y, inv, factor[core1:end], w0, w1, w2, w3,
                    t0[core1:end], t1[core1:end], t2[core1:end], t3[core1:end])  # fmt: skip


@njit(**INNER)
def _divide_product(n, factor, one, t0, t1, t2, t3):
    """Terms of tau, computed with factor one, as those of -ln(1 - tau), times factor."""
    for i in range(n):
        one[i] = factor[i] / (1.0 - min(t0[i], MAX_DEPTH))
    for i in range(n):
        t0[i] *= one[i]
        t1[i] *= one[i]
        t2[i] *= one[i]
        t3[i] *= one[i]
        one[i] = 1.0


@njit(**INNER)
def _longest(lo, hi, first, last):
    """Length of the work arrays for lines first..last."""
    longest = 0
    for j in range(first, last):
        longest = max(longest, hi[j] - lo[j])
    return longest + PAD


@njit(**FAST)
def _depth_lines(wave, center, strength, sigma, gamma, lo, hi, first, last, tau):
    size = _longest(lo, hi, first, last)
    x, value, scratch = np.empty(size), np.empty(size), np.empty(size)
    for j in range(first, last):
        _value_line(wave, lo[j], hi[j], center[j], sigma[j], gamma[j], x, value, scratch)
        for i in range(lo[j], hi[j]):
            tau[i] += strength[j] * value[i - lo[j]]


@njit(**FAST)
def _product_lines(wave, center, strength, sigma, gamma, lo, hi, first, last, out):
    size = _longest(lo, hi, first, last)
    x, value, scratch = np.empty(size), np.empty(size), np.empty(size)
    for j in range(first, last):
        _value_line(wave, lo[j], hi[j], center[j], sigma[j], gamma[j], x, value, scratch)
        for i in range(lo[j], hi[j]):
            out[i] *= max(1.0 - strength[j] * value[i - lo[j]], 0.0)


def half_width(strength, sigma, gamma, tolerance):
    """Half-width [Angstrom] outside which |strength| V < tolerance; see `functional.forest.half_width`."""
    strength = np.abs(strength)
    lorentz = np.sqrt(strength * gamma / (np.pi * tolerance))
    gauss = sigma * np.sqrt(2.0 * np.log(np.maximum(strength / (sigma * _SQRT2PI * tolerance), 1.0)))
    return lorentz + gauss


def line_windows(wave, center, reach):
    """Pixel ranges lo, hi (int64, hi exclusive) within reach of each centre; wave is increasing.

    A line with a NaN parameter is felt everywhere, so that it is seen.
    """
    lo = np.searchsorted(wave, center - reach)
    return np.where(np.isnan(center + reach), 0, lo), np.searchsorted(wave, center + reach, side="right")


def n_threads():
    """Threads used by the compiled kernels: the processors this process may run on, four at most."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return min(count, 4)


@cache
def _pool():
    return ThreadPoolExecutor(n_threads(), thread_name_prefix="specutils_blase")


# Threads do not survive a fork: a child process makes its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def chunked(work, sizes):
    """Results of work(first, last) on contiguous chunks of lines with about equal sums of `sizes`, in threads."""
    total = np.cumsum(sizes)
    threads = n_threads()
    if threads == 1 or total.size == 0 or total[-1] < SERIAL:
        return [work(0, len(sizes))]
    inner = np.searchsorted(total, np.arange(1, threads) * (total[-1] / threads)).tolist()
    edges = [0, *inner, len(sizes)]
    return list(_pool().map(work, edges[:-1], edges[1:]))


def shared(size, work):
    """Call work(first, last) on equal parts of range(size), in threads."""
    threads = n_threads() if size >= SERIAL else 1
    edges = [size * k // threads for k in range(threads + 1)]
    if threads == 1:
        work(0, size)
    else:
        list(_pool().map(work, edges[:-1], edges[1:]))


def optical_depth(wave, center, strength, sigma, gamma, tolerance):
    """Sum of the lines' optical depths, shape (n_pix,); each line as far as |tau_j| >= tolerance.

    Parameters
    ----------
    wave : ndarray, shape (n_pix,) [Angstrom], increasing
    center, strength, sigma, gamma : ndarray, shape (n_lines,) [Angstrom]
        strength is signed (negative for emission); sigma is a standard deviation, gamma a half width at half maximum.
    tolerance : float
    """
    lo, hi = line_windows(wave, center, half_width(strength, sigma, gamma, tolerance))

    def work(first, last):
        tau = np.zeros(wave.size)
        _depth_lines(wave, center, strength, sigma, gamma, lo, hi, first, last, tau)
        return tau

    return sum(chunked(work, hi - lo))


def product_transmission(wave, center, strength, sigma, gamma, tolerance):
    """Product over the lines of (1 - strength V), clipped at 0 (Gully-Santiago & Morley 2022, eq. 2)."""
    lo, hi = line_windows(wave, center, half_width(strength, sigma, gamma, tolerance))

    def work(first, last):
        out = np.ones(wave.size)
        _product_lines(wave, center, strength, sigma, gamma, lo, hi, first, last, out)
        return out

    return np.prod(chunked(work, hi - lo), axis=0)


@njit(**FAST)
def _terms_lines(wave, center, strength, sigma, gamma, lo, hi, offset, place, factor, weight, product, first, last,
                 out):  # fmt: skip
    size = _longest(lo, hi, first, last)
    x, one, spare = np.empty(size), np.ones(size), np.empty((4, size))
    for j in range(first, last):
        begin, n = offset[j], hi[j] - lo[j]
        end = begin + n + PAD
        t0 = out[place[0], begin:end] if place[0] >= 0 else spare[0, : n + PAD]
        t1 = out[place[1], begin:end] if place[1] >= 0 else spare[1, : n + PAD]
        t2 = out[place[2], begin:end] if place[2] >= 0 else spare[2, : n + PAD]
        t3 = out[place[3], begin:end] if place[3] >= 0 else spare[3, : n + PAD]
        own = factor[lo[j] : hi[j] + PAD]
        w0, w1, w2, w3 = weight[0, j], weight[1, j], weight[2, j], weight[3, j]
        if product[j]:
            _terms_line(wave, lo[j], hi[j], center[j], strength[j], sigma[j], gamma[j], one, 1.0, 1.0, 1.0, 1.0,
                        x, t0, t1, t2, t3)  # fmt: skip
            _divide_product(n, own, one, t0, t1, t2, t3)
            for i in range(n):
                t0[i] *= w0
                t1[i] *= w1
                t2[i] *= w2
                t3[i] *= w3
        else:
            _terms_line(wave, lo[j], hi[j], center[j], strength[j], sigma[j], gamma[j], own, w0, w1, w2, w3,
                        x, t0, t1, t2, t3)  # fmt: skip


class Memory:
    """Memory that is used again and again: fresh pages cost as much time as what is computed into them."""

    def __init__(self):
        self.flat = np.empty(0)

    def array(self, *shape):
        """An array that is good until the next call."""
        size = math.prod(shape)
        if self.flat.size < size:
            self.flat = np.empty(size + size // 4)
        return self.flat[:size].reshape(shape)


def line_terms(wave, center, strength, sigma, gamma, lo, hi, *, rows=(0, 1, 2, 3), factor=None, weight=None,
               product=None, memory=None):  # fmt: skip
    """Every line's tau and its derivatives on its own window, flat.

    Parameters
    ----------
    wave : ndarray, shape (n_pix,) [Angstrom], increasing
    center, strength, sigma, gamma : ndarray, shape (n_lines,) [Angstrom]
    lo, hi : ndarray of int, shape (n_lines,)
        Windows.
    rows : sequence of int
        Which of d tau_j / d (ln |strength|, ln sigma, ln gamma, center [1/Angstrom]); number 0 is tau_j.
    factor : ndarray, shape (n_pix,), optional
    weight : ndarray, shape (len(rows), n_lines), optional
        Factors on all of them.
    product : ndarray of bool, shape (n_lines,), optional
        Lines that are factors 1 - tau of a product, whose logarithm has the derivatives of tau divided by 1 - tau.
    memory : Memory, optional
        Where the terms are put; None takes new memory.

    Returns
    -------
    offset : ndarray of int, shape (n_lines,)
        Line j owns columns offset[j]:offset[j] + hi[j] - lo[j], which are its pixels lo[j]:hi[j].
    terms : ndarray, shape (len(rows), n)
        What lies between the columns of two lines means nothing.
    """
    offset = np.concatenate([[0], np.cumsum(hi - lo + PAD)])
    place, weights = np.full(4, -1), np.ones((4, len(lo)))
    place[list(rows)] = np.arange(len(rows))
    if weight is not None:
        weights[list(rows)] = weight
    factor = np.ones(wave.size + PAD) if factor is None else np.append(factor, np.ones(PAD))
    product = np.zeros(len(lo), dtype=bool) if product is None else product
    out = (memory or Memory()).array(len(rows), int(offset[-1]))
    offset = offset[:-1]

    def work(first, last):
        _terms_lines(wave, center, strength, sigma, gamma, lo, hi, offset, place, factor, weights, product, first,
                     last, out)  # fmt: skip

    chunked(work, hi - lo)
    return offset, out


@njit(**FAST)
def _project_lines(wave, center, strength, sigma, gamma, lo, hi, vector, product, first, last, out):
    size = _longest(lo, hi, first, last)
    x, one, spare = np.empty(size), np.ones(size), np.empty((4, size))
    t0, t1, t2, t3 = spare[0], spare[1], spare[2], spare[3]
    for j in range(first, last):
        n, own = hi[j] - lo[j], vector[lo[j] : hi[j] + PAD]
        _terms_line(wave, lo[j], hi[j], center[j], strength[j], sigma[j], gamma[j], one if product[j] else own,
                    1.0, 1.0, 1.0, 1.0, x, t0, t1, t2, t3)  # fmt: skip
        if product[j]:
            _divide_product(n, own, one, t0, t1, t2, t3)
        s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
        for i in range(n):
            s0 += t0[i]
            s1 += t1[i]
            s2 += t2[i]
            s3 += t3[i]
        out[0, j], out[1, j], out[2, j], out[3, j] = s0, s1, s2, s3


def line_projections(wave, center, strength, sigma, gamma, lo, hi, vector, product):
    """Sums over every line's window of its `line_terms` times `vector` (n_pix,), without keeping the terms.

    Returns
    -------
    ndarray, shape (4, n_lines)
    """
    out, vector = np.empty((4, len(lo))), np.append(vector, np.zeros(PAD))

    def work(first, last):
        _project_lines(wave, center, strength, sigma, gamma, lo, hi, vector, product, first, last, out)

    chunked(work, hi - lo)
    return out
