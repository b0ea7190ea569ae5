"""The compiled twin of `functional.profiles` and `functional.forest`: exact Voigt lines on flat arrays, on the CPU.

The torch functions are the reference; these kernels give the same numbers (tests hold them together) a hundred
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
import torch

__all__ = ["half_width", "line_windows", "optical_depth", "product_transmission", "line_terms", "line_projections",
           "sparse_product"]  # fmt: skip

try:
    from .. import _kernels as kernels
except ImportError as error:
    raise ImportError(
        f"the compiled kernels of specutils_blase cannot be loaded ({error}); in a source tree they are built by "
        '"python -m pip install -e ."'
    ) from error

_SQRT2 = math.sqrt(2.0)
_SQRT2PI = math.sqrt(2.0 * math.pi)
# Work arrays are longer than a line by so many pixels that it can be worked on in whole vectors.
PAD = kernels.PAD
SERIAL = 30_000  # (line, pixel) pairs, points or galaxies below which a second thread costs more than it saves


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


def _after_fork():
    # Threads do not survive a fork: a child process makes its own.  Those of torch cannot be made again, and it waits
    # for them for ever.
    _pool.cache_clear()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def lines_arrays(*columns):
    """Columns of line parameters as the kernels read them, contiguous float64 of one length.

    Raises
    ------
    ValueError
        If their shapes differ: a kernel would read beyond the shorter ones.
    """
    columns = [np.ascontiguousarray(column, dtype=float) for column in columns]
    if columns[0].ndim != 1 or len({column.shape for column in columns}) > 1:
        shapes = ", ".join(str(column.shape) for column in columns)
        raise ValueError(f"the parameters of lines must be one-dimensional and of one length, got {shapes}")
    return columns


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
    center, strength, sigma, gamma = lines_arrays(center, strength, sigma, gamma)
    lo, hi = line_windows(wave, center, half_width(strength, sigma, gamma, tolerance))

    def work(first, last):
        tau = np.zeros(wave.size)
        kernels.depth_lines(wave, center, strength, sigma, gamma, lo, hi, first, last, tau)
        return tau

    return sum(chunked(work, hi - lo))


def product_transmission(wave, center, strength, sigma, gamma, tolerance):
    """Product over the lines of (1 - strength V), clipped at 0 (Gully-Santiago & Morley 2022, eq. 2)."""
    center, strength, sigma, gamma = lines_arrays(center, strength, sigma, gamma)
    lo, hi = line_windows(wave, center, half_width(strength, sigma, gamma, tolerance))

    def work(first, last):
        out = np.ones(wave.size)
        kernels.product_lines(wave, center, strength, sigma, gamma, lo, hi, first, last, out)
        return out

    return np.prod(chunked(work, hi - lo), axis=0)


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
    center, strength, sigma, gamma = lines_arrays(center, strength, sigma, gamma)
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
        kernels.terms_lines(wave, center, strength, sigma, gamma, lo, hi, offset, place, factor, weights, product,
                            first, last, out)  # fmt: skip

    chunked(work, hi - lo)
    return offset, out


def line_projections(wave, center, strength, sigma, gamma, lo, hi, vector, product):
    """Sums over every line's window of its `line_terms` times `vector` (n_pix,), without keeping the terms.

    Returns
    -------
    ndarray, shape (4, n_lines)
    """
    center, strength, sigma, gamma = lines_arrays(center, strength, sigma, gamma)
    out, vector = np.empty((4, len(lo))), np.append(vector, np.zeros(PAD))

    def work(first, last):
        kernels.project_lines(wave, center, strength, sigma, gamma, lo, hi, vector, product, first, last, out)

    chunked(work, hi - lo)
    return out


def sparse_product(rows, cols, values, vectors, n_rows):
    """The sparse matrix ``(rows, cols, values)`` times vectors, shape (n_vectors, n_cols): shape (n_vectors, n_rows).

    Raises
    ------
    IndexError
        If a row or a column lies outside the matrix.
    """
    rows, cols = (np.ascontiguousarray(index, dtype=np.int64) for index in (rows, cols))
    out = np.zeros((len(vectors), n_rows))
    if not kernels.sparse_multiply(rows, cols, np.ascontiguousarray(values), np.ascontiguousarray(vectors), out):
        raise IndexError(f"rows and cols must be indices into a matrix of {n_rows} rows and {vectors.shape[1]} columns")
    return out
