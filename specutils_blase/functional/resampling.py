"""From a grid uniform in ln(wavelength) to detector pixels: line spread function and exact pixel integration.

Both operators are sparse matrices in coordinate form ``(rows, cols, values)``, applied with :func:`sparse.apply`.
"""

import math

import torch
from torch import Tensor

__all__ = ["pixel_overlap", "pixel_response"]

# The response is cut this many standard deviations outside the pixel; 8e-11 of its area lies beyond.
REACH = 6.5
# Below this many grid spacings a Gaussian is undersampled: the area of its sum is wrong by more than 1e-5.
MIN_SIGMA = 0.8


def pixel_response(grid: Tensor, edges: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""
    Weights of every grid point in every pixel: Gaussian line spread function, then the mean over the pixel.

    The Gaussian and the pixel are convolved analytically; for pixel [a, b] and grid point :math:`\lambda_i`

    .. math:: w_i = \frac{1}{2} \left[\mathrm{erf}\frac{b - \lambda_i}{\sqrt{2} \sigma}
                    - \mathrm{erf}\frac{a - \lambda_i}{\sqrt{2} \sigma}\right] \frac{\lambda_i h}{b - a} ,

    with h the spacing of the grid in ln(wavelength). The sum over i is the trapezoidal rule of a smooth bell, whose
    error falls as ``exp(-2 (pi sigma / spacing)**2)``. Where the response leaves the grid, the spectrum is continued
    with its end value.

    Parameters
    ----------
    grid : Tensor, shape (n_grid,)
        Increasing wavelengths, uniform in ln(wavelength) [Angstrom].
    edges : Tensor, shape (n_pix, 2)
        Lower and upper edge of each pixel, inside the grid [Angstrom]. Differentiable.
    sigma : Tensor, shape (n_pix,) or ()
        Standard deviation (not FWHM) of the line spread function at the pixel [Angstrom]. Differentiable.

    Returns
    -------
    rows, cols : Tensor, shape (n_weights,)
        Pixel and grid index of each weight, int64; rows are sorted.
    values : Tensor, shape (n_weights,)
        Weights, sum 1 in each row.

    Examples
    --------
    >>> grid = 5000.0 * torch.exp(torch.arange(41, dtype=torch.float64) * 2e-6)
    >>> edges = torch.tensor([[5000.18, 5000.22]], dtype=torch.float64)
    >>> rows, cols, values = pixel_response(grid, edges, torch.tensor([0.02], dtype=torch.float64))
    >>> print(len(rows), f"{values.sum():.9f}")
    30 1.000000000
    """
    _check_kinds(grid=grid, edges=edges, sigma=sigma)
    _check_edges(grid.detach(), edges.detach())
    log_step = _log_step(grid)
    sigma = sigma.expand(len(edges))
    _check_sigma(edges.detach(), sigma.detach(), log_step)
    reach = REACH * sigma.detach()
    first = torch.ceil(torch.log((edges[:, 0] - reach) / grid[0]) / log_step)
    last = torch.floor(torch.log((edges[:, 1] + reach) / grid[0]) / log_step)
    rows, index = _ranges(first.long(), last.long())
    # Grid points beyond the ends are virtual: they carry the flux of the end point.
    wave = grid[0] * torch.exp(index.to(grid.dtype) * log_step)
    lower, upper = (edge.index_select(0, rows) for edge in edges.unbind(dim=1))
    scale = (1.0 / (math.sqrt(2.0) * sigma)).index_select(0, rows)
    area = 0.5 * (torch.erf((upper - wave) * scale) - torch.erf((lower - wave) * scale))
    return rows, index.clamp(0, len(grid) - 1), area * wave * log_step / (upper - lower)


def pixel_overlap(grid: Tensor, edges: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""
    Weights of every grid point in every pixel: exact mean over the pixel of the piecewise linear interpolant.

    In the cell from grid point :math:`\lambda_i` to the next, of width h, of which [a, b] lies in the pixel, the
    interpolant integrates to :math:`(b - a) [(1 - t) f_i + t f_{i+1}]` with
    :math:`t = [(a - \lambda_i) + (b - \lambda_i)] / 2h`: differences of neighbouring wavelengths only, so that the
    mean is exact to rounding. The matrix depends on the geometry alone: build it once for many spectra.

    Parameters
    ----------
    grid : Tensor, shape (n_grid,)
        Increasing wavelengths, any spacing [Angstrom].
    edges : Tensor, shape (n_pix, 2)
        Lower and upper edge of each pixel, inside the grid [Angstrom]. Differentiable.

    Returns
    -------
    rows, cols : Tensor, shape (n_weights,)
        Pixel and grid index of each weight, int64; rows are sorted.
    values : Tensor, shape (n_weights,)
        Weights, not negative, sum 1 in each row.

    Examples
    --------
    >>> grid = torch.arange(4, dtype=torch.float64)
    >>> rows, cols, values = pixel_overlap(grid, torch.tensor([[0.5, 2.0]], dtype=torch.float64))
    >>> cols, values
    (tensor([0, 1, 2]), tensor([0.0833, 0.5833, 0.3333], dtype=torch.float64))
    """
    _check_kinds(grid=grid, edges=edges)
    _check_edges(grid.detach(), edges.detach())
    lower, upper = edges.T.contiguous()
    points = grid.detach().contiguous()
    first = torch.searchsorted(points, lower.detach(), right=True) - 1
    last = torch.searchsorted(points, upper.detach())
    rows, cols = _ranges(first, last)
    # Every weight first takes the cell on the right of its grid point; the last one of a pixel finds none there.
    start = grid.index_select(0, cols)
    length = torch.nn.functional.pad(grid.diff(), (0, 1), value=1.0).index_select(0, cols)
    # Both ends of the part of the cell inside the pixel, measured from the start of the cell.
    begin = (lower.index_select(0, rows) - start).clamp(min=0.0)
    end = torch.minimum(upper.index_select(0, rows) - start, length)
    width = (end - begin).clamp(min=0.0)
    to_right = 0.5 * width * (begin + end) / length
    from_left = torch.nn.functional.pad(to_right, (1, 0))[:-1]
    return rows, cols, (width - to_right + from_left) / (upper - lower).index_select(0, rows)


def _log_step(grid: Tensor) -> float:
    """Spacing of the grid in ln(wavelength)."""
    return math.log(float(grid[-1]) / float(grid[0])) / (len(grid) - 1)


def _ranges(first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Concatenate the integer ranges ``first[i] .. last[i]`` (inclusive): number of the range, and its members."""
    counts = last - first + 1
    rows = torch.repeat_interleave(torch.arange(len(first), device=first.device), counts)
    start = counts.cumsum(0) - counts
    return rows, torch.arange(len(rows), device=first.device) + (first - start).index_select(0, rows)


def _check_kinds(**tensors: Tensor) -> None:
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a Tensor, got {type(value).__name__}; use torch.as_tensor")


def _check_edges(grid: Tensor, edges: Tensor) -> None:
    if not bool((grid.diff() > 0).all()):
        raise ValueError("grid must increase from each wavelength to the next; sort it, and drop repeated ones")
    if edges.ndim != 2 or edges.shape[1] != 2 or not bool((edges[:, 0] < edges[:, 1]).all()):
        raise ValueError(f"edges must have shape (n_pix, 2) with lower < upper, got shape {tuple(edges.shape)}")
    if len(edges) and (float(edges.min()) < float(grid[0]) or float(edges.max()) > float(grid[-1])):
        raise ValueError(
            f"edges must lie inside the grid: pixels cover {float(edges.min()):.3f} to {float(edges.max()):.3f} "
            f"Angstrom, the grid {float(grid[0]):.3f} to {float(grid[-1]):.3f} Angstrom; build it with more margin"
        )


def _check_sigma(edges: Tensor, sigma: Tensor, log_step: float) -> None:
    in_spacings = sigma / (edges.mean(dim=1) * log_step)
    if not bool((in_spacings >= MIN_SIGMA).all()):
        raise ValueError(
            f"sigma must be at least {MIN_SIGMA} grid spacings for every pixel, got {float(in_spacings.min()):.3g}; "
            "use a grid with a smaller step, or pixel_overlap for no line spread function"
        )
    if not bool((REACH * sigma < edges[:, 0]).all()):
        raise ValueError(f"sigma must be small against the wavelength, got up to {float(sigma.max()):.3g} Angstrom")
