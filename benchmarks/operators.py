"""Rotation, pixel integration and line spread function: time and error, against scipy and brute force in one run."""

import time

import numpy as np
import torch
from common import load, show
from scipy.ndimage import convolve1d
from scipy.sparse import csr_array
from scipy.special import erf

from specutils_blase import functional

SAMPLES, STEP = 338_651, 0.5  # of a spectrum; km/s
ORDERS, PIXELS = 28, 2048
VSINI, LIMB_DARKENING = (2.0, 10.0, 50.0, 150.0), 0.6
RESOLVING_POWER = 55_000.0
CHECKED = 1009  # every so many pixels are compared with brute force
REPEAT = 30


def timed(function):
    """(milliseconds of the fastest of several calls, of the median one, value of the last)."""
    value, seconds = function(), []
    for _ in range(REPEAT):
        start = time.perf_counter()
        value = function()
        seconds.append(time.perf_counter() - start)
    return 1e3 * min(seconds), 1e3 * float(np.median(seconds)), value


def spectrum(n):
    """White noise around 1: the worst that interpolation and rounding can meet."""
    return np.random.default_rng(1).uniform(0.5, 1.5, n)


def row(name, ours, theirs, error):
    """One line of a table from two results of `timed`."""
    return (name, f"{ours[0]:.2f}", f"{ours[1]:.2f}", f"{theirs[0]:.2f}", f"{theirs[0] / ours[0]:.1f}", f"{error:.1e}")


HEADING = ("scenario", "best [ms]", "median [ms]", "baseline, best [ms]", "baseline / ours", "worst error")


def rotation():
    """Kernel and convolution; the baseline is the direct sum of scipy.ndimage with a kernel that it finds made."""
    flux = spectrum(SAMPLES)
    tensor, rows = torch.from_numpy(flux), []
    for vsini in VSINI:
        half_size = functional.kernel_half_size(vsini, STEP)

        def ours(vsini=vsini, half_size=half_size):
            kernel = functional.rotation_kernel(vsini, LIMB_DARKENING, STEP, half_size)
            return functional.rotational_broadening(tensor, kernel)

        kernel = functional.rotation_kernel(vsini, LIMB_DARKENING, STEP, half_size).numpy()
        result, direct = timed(ours), timed(lambda kernel=kernel: convolve1d(flux, kernel, mode="nearest"))
        error = np.abs(result[2].numpy() / direct[2] - 1.0).max()
        rows.append(row(f"vsini = {vsini:g} km/s, {kernel.size} weights", result, direct, error))
    show(f"rotation of {SAMPLES:,} samples, kernel included; baseline: scipy.ndimage.convolve1d", HEADING, rows)


def orders():
    """A grid, and the edges of pixels that cover nine tenths of it in orders with gaps."""
    grid = functional.velocity_grid(8000.0, 8000.0 * np.exp((SAMPLES - 1) * STEP / functional.SPEED_OF_LIGHT), STEP)
    bounds = np.geomspace(grid[60].item(), grid[-60].item(), ORDERS + 1)
    cuts = np.linspace(bounds[:-1], bounds[:-1] + 0.9 * np.diff(bounds), PIXELS + 1, axis=1)
    return grid, torch.from_numpy(np.stack([cuts[:, :-1], cuts[:, 1:]], axis=-1).reshape(-1, 2))


def overlap_of_one(grid, flux, lower, upper):
    """Mean of the broken line over one pixel, as trapezoids in extended precision."""
    first, last = np.searchsorted(grid, lower, side="right") - 1, np.searchsorted(grid, upper)
    x, y = (values[first : last + 1].astype(np.longdouble) for values in (grid, flux))
    knots = np.unique(np.clip(x, lower, upper))
    left = np.clip(np.searchsorted(x, knots, side="right") - 1, 0, len(x) - 2)
    at_knots = y[left] + (y[left + 1] - y[left]) * (knots - x[left]) / (x[left + 1] - x[left])
    return np.sum(np.diff(knots) * (at_knots[1:] + at_knots[:-1])) / 2 / (np.longdouble(upper) - np.longdouble(lower))


def response_of_one(grid, flux, lower, upper):
    """Sum over the whole neighbourhood of the Gaussian that was integrated over one pixel."""
    sigma = 0.5 * (lower + upper) / (RESOLVING_POWER * functional.FWHM_PER_SIGMA)
    near = slice(*np.searchsorted(grid, (lower - 10.0 * sigma, upper + 10.0 * sigma)))
    scale = 1.0 / (np.sqrt(2.0) * sigma)
    bell = 0.5 * (erf((upper - grid[near]) * scale) - erf((lower - grid[near]) * scale)) / (upper - lower)
    return np.sum(bell * flux[near] * grid[near]) * STEP / functional.SPEED_OF_LIGHT


def pixels():
    """Matrix and its product; the baseline of a product is that of scipy.sparse with the same matrix."""
    grid, edges = orders()
    sigma = edges.mean(dim=1) / (RESOLVING_POWER * functional.FWHM_PER_SIGMA)
    flux = spectrum(len(grid))
    tensor, rows = torch.from_numpy(flux), []
    scenarios = [
        ("exact overlap", lambda: functional.pixel_overlap(grid, edges), overlap_of_one),
        (f"R = {RESOLVING_POWER:,.0f}", lambda: functional.pixel_response(grid, edges, sigma), response_of_one),
    ]
    for name, build, one in scenarios:
        building = timed(build)
        matrix = building[2]
        sparse = csr_array((matrix[2].numpy(), (matrix[0].numpy(), matrix[1].numpy())), shape=(len(edges), len(grid)))
        product = timed(lambda matrix=matrix: functional.apply(*matrix, tensor, n_pix=len(edges)))
        theirs = timed(lambda sparse=sparse: sparse @ flux)
        checked = range(0, len(edges), CHECKED)
        truth = [float(one(grid.numpy(), flux, *edges[p].tolist())) for p in checked]
        error = np.abs(product[2].numpy()[checked] / truth - 1.0).max()
        rows.append((f"{name}: matrix", f"{building[0]:.2f}", f"{building[1]:.2f}", "", "", ""))
        rows.append(row(f"{name}: product, {len(matrix[0]):,} weights", product, theirs, error))
    show(f"{len(edges):,} pixels from {len(grid):,} samples; baseline: scipy.sparse, its matrix ready", HEADING, rows)


def main():
    """Print the tables."""
    print(f"float64, torch threads: {torch.get_num_threads()}, {load()}")
    rotation()
    pixels()


if __name__ == "__main__":
    main()
