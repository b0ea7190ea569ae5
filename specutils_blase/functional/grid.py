"""Wavelength grids: uniform in velocity, Doppler shifts, pixel edges."""

import math

import torch
from torch import Tensor

from specutils_blase.functional.constants import SPEED_OF_LIGHT

__all__ = ["doppler_factor", "pixel_edges", "rest_wavelength", "velocity_grid"]

# A spacing this many times what is usual on both of its sides is a gap between pixels, not a wide pixel.
GAP_RATIO = 1.8
# Spacings on one side of which the smallest is the usual one.
GAP_REACH = 10


def velocity_grid(lower: float, upper: float, step: float) -> Tensor:
    """
    Wavelengths uniform in ln(wavelength), from ``lower`` to ``upper`` or just beyond.

    Parameters
    ----------
    lower, upper : float
        First wavelength and wavelength that must be covered [Angstrom], ``0 < lower < upper``.
    step : float
        Spacing [km/s]: neighbours differ by ``step / c`` in ln(wavelength).

    Returns
    -------
    Tensor, shape (n_grid,)
        Increasing wavelengths [Angstrom], float64.

    Examples
    --------
    >>> velocity_grid(10_000.0, 10_001.0, 10.0)
    tensor([10000.0000, 10000.3336, 10000.6672, 10001.0007], dtype=torch.float64)
    """
    if not 0.0 < lower < upper < math.inf:
        raise ValueError(f"lower and upper must satisfy 0 < lower < upper, got {lower} and {upper} Angstrom")
    if not 0.0 < step < math.inf:
        raise ValueError(f"step must be a positive velocity, got {step} km/s")
    n_steps = math.ceil(math.log(upper / lower) * SPEED_OF_LIGHT / step - 1e-6)
    return lower * torch.exp(torch.arange(n_steps + 1, dtype=torch.float64) * (step / SPEED_OF_LIGHT))


def doppler_factor(velocity: Tensor | float) -> Tensor:
    """
    Observed over rest wavelength of a source receding with ``velocity``: ``sqrt((1 + v/c) / (1 - v/c))``.

    Parameters
    ----------
    velocity : Tensor or float
        Radial velocity [km/s], positive when receding, any shape.

    Returns
    -------
    Tensor, shape of ``velocity``
        Relativistic Doppler factor, float64.

    Examples
    --------
    >>> doppler_factor(300.0)
    tensor(1.0010, dtype=torch.float64)
    """
    beta = torch.as_tensor(velocity, dtype=torch.float64) / SPEED_OF_LIGHT
    return torch.sqrt((1.0 + beta) / (1.0 - beta))


def rest_wavelength(wave: Tensor, velocity: Tensor | float) -> Tensor:
    """
    Wavelengths in the frame of a source that recedes with ``velocity``.

    A shifted spectrum is the rest spectrum *evaluated* at these wavelengths; nothing is interpolated.

    Parameters
    ----------
    wave : Tensor, shape (n,)
        Observed wavelengths [Angstrom].
    velocity : Tensor or float
        Radial velocity [km/s], positive when receding.

    Returns
    -------
    Tensor, shape (n,)
        Rest wavelengths [Angstrom].

    Examples
    --------
    >>> rest_wavelength(torch.tensor([10_010.0], dtype=torch.float64), 300.0)
    tensor([9999.9881], dtype=torch.float64)
    """
    return wave / doppler_factor(velocity).to(wave.device)


def pixel_edges(centers: Tensor) -> Tensor:
    """
    Lower and upper edge of every pixel, from the pixel centres alone.

    Edges are midpoints between neighbours. No pixel may reach into a gap (between detectors, orders, or where pixels
    were removed): the edge there lies at half the spacing of the pixel's other side. A spacing is a gap if it exceeds
    1.8 times the smallest among the ten before it, and the same for the ten after it: where the spacing changes for
    good, as from one arm to the next, is none.

    Parameters
    ----------
    centers : Tensor, shape (n,)
        Pixel centres, increasing, n >= 2 [Angstrom].

    Returns
    -------
    Tensor, shape (n, 2)
        Lower and upper edges [Angstrom].

    Examples
    --------
    >>> pixel_edges(torch.tensor([1.0, 2.0, 3.0, 7.0, 8.0, 9.0], dtype=torch.float64))[2:4]
    tensor([[2.5000, 3.5000],
            [6.5000, 7.5000]], dtype=torch.float64)
    """
    if centers.ndim != 1 or len(centers) < 2:
        raise ValueError(f"centers must have shape (n,) with n >= 2, got {tuple(centers.shape)}; pass edges instead")
    spacing = centers.diff()
    if not bool((spacing > 0).all()):
        raise ValueError("centers must be strictly increasing")
    typical = torch.maximum(_smallest_before(spacing), _smallest_before(spacing.flip(0)).flip(0))
    is_gap = spacing > GAP_RATIO * typical
    width = torch.where(is_gap, typical, spacing)
    # The end pixels are symmetric: their outer side repeats the inner one.
    left, right = torch.cat([width[:1], width]), torch.cat([width, width[-1:]])
    no_gap = is_gap.new_zeros(1)
    lower = centers - 0.5 * torch.where(torch.cat([no_gap, is_gap]), right, left)
    upper = centers + 0.5 * torch.where(torch.cat([is_gap, no_gap]), left, right)
    return torch.stack([lower, upper], dim=1)


def _smallest_before(spacing: Tensor) -> Tensor:
    """The smallest of the (up to) GAP_REACH values before each one, for the first of three after it; same shape."""
    padded = torch.nn.functional.pad(spacing, (GAP_REACH, 0), value=math.inf)
    smallest = padded.unfold(0, GAP_REACH, 1)[: len(spacing)].amin(dim=1)
    smallest[0] = spacing[1:4].min() if len(spacing) > 1 else math.inf
    return smallest
