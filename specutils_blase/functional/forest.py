"""Many lines at once: windows, flat (line, pixel) pairs, and the two ways to combine the lines.

A line is evaluated only where its optical depth exceeds a tolerance. All pairs of a line and a pixel inside its window
are kept in two flat index tensors, so that a forest is one call of :func:`~specutils_blase.functional.voigt` and one
``index_add``, without loops and without padding.
"""

import math

import torch
from torch import Tensor

from specutils_blase.functional.profiles import voigt

__all__ = ["half_width", "line_pixel_pairs", "optical_depth", "pixel_depth", "product_transmission", "transmission"]


@torch.no_grad()
def half_width(strength: Tensor, sigma: Tensor, gamma: Tensor, tolerance: float) -> Tensor:
    r"""
    Distance from the centre beyond which a line's optical depth stays below ``tolerance``.

    Sum of the distance where a Gaussian, and of that where the far wing of a Lorentzian, of the same strength falls
    to the tolerance t; a window, so it carries no gradient.

    .. math:: \sigma \sqrt{2 \ln \max(a / (\sqrt{2\pi} \sigma t), 1)} + \sqrt{a \gamma / (\pi t)}

    Parameters
    ----------
    strength : Tensor, shape (n_lines,)
        Absolute value of the integrated optical depth [Angstrom].
    sigma : Tensor, shape (n_lines,)
        Standard deviation (not FWHM) of the Gaussian [Angstrom].
    gamma : Tensor, shape (n_lines,)
        Half width at half maximum (not FWHM) of the Lorentzian [Angstrom].
    tolerance : float
        Optical depth, positive.

    Returns
    -------
    Tensor, shape (n_lines,)
        Half-width [Angstrom].

    Examples
    --------
    >>> half_width(torch.tensor([0.1]), torch.tensor([0.05]), torch.tensor([0.01]), 1e-6)
    tensor([18.1019])
    """
    peak_ratio = strength / (sigma * (math.sqrt(2.0 * math.pi) * tolerance))
    gauss = sigma * torch.sqrt(2.0 * torch.log(peak_ratio.clamp(min=1.0)))
    return gauss + torch.sqrt(strength * gamma / (math.pi * tolerance))


def line_pixel_pairs(wave: Tensor, center: Tensor, half_width: Tensor) -> tuple[Tensor, Tensor]:
    """
    All pairs of a line and a pixel with ``|wave - center| <= half_width``, ordered by line, then by pixel.

    Parameters
    ----------
    wave : Tensor, shape (n_pix,)
        Wavelengths, increasing [Angstrom].
    center, half_width : Tensor, shape (n_lines,)
        Line centres, in any order, and half-widths of their windows [Angstrom].

    Returns
    -------
    line_index, pixel_index : Tensor, shape (n_pairs,)
        int64.

    Examples
    --------
    >>> wave = torch.arange(5, dtype=torch.float64)
    >>> center = torch.tensor([1.0, 3.2], dtype=torch.float64)
    >>> line_pixel_pairs(wave, center, torch.tensor([1.0, 0.5], dtype=torch.float64))
    (tensor([0, 0, 0, 1]), tensor([0, 1, 2, 3]))
    """
    wave = wave.contiguous()
    start = torch.searchsorted(wave, center - half_width)
    counts = torch.searchsorted(wave, center + half_width, right=True) - start
    line_index = torch.repeat_interleave(torch.arange(len(center), device=wave.device), counts)
    first_pair = counts.cumsum(0) - counts
    pixel_index = torch.arange(len(line_index), device=wave.device) + (start - first_pair)[line_index]
    return line_index, pixel_index


def optical_depth(
    wave: Tensor,
    *,
    center: Tensor,
    log_strength: Tensor,
    log_sigma: Tensor,
    log_gamma: Tensor,
    sign: Tensor,
    pairs: tuple[Tensor, Tensor],
) -> Tensor:
    r"""
    Optical depth of all lines together, :math:`\tau = \sum_j \pm a_j V(\lambda - \lambda_j; \sigma_j, \gamma_j)`.

    Gully-Santiago & Morley (2022), appendix A.

    Parameters
    ----------
    wave : Tensor, shape (n_pix,)
        Wavelengths [Angstrom].
    center : Tensor, shape (n_lines,)
        Line centres [Angstrom].
    log_strength : Tensor, shape (n_lines,)
        Natural logarithm of the integrated optical depth a [Angstrom].
    log_sigma, log_gamma : Tensor, shape (n_lines,)
        Natural logarithms of Gaussian standard deviation and Lorentzian half width at half maximum [Angstrom].
    sign : Tensor, shape (n_lines,)
        1 for absorption, -1 for emission.
    pairs : tuple of Tensor, shape (n_pairs,)
        Line and pixel indices, see :func:`line_pixel_pairs`.

    Returns
    -------
    Tensor, shape (n_pix,)

    Examples
    --------
    >>> wave = torch.tensor([4999.9, 5000.0, 5000.1], dtype=torch.float64)
    >>> line = torch.tensor([1.0], dtype=torch.float64)
    >>> pairs = line_pixel_pairs(wave, 5000.0 * line, 1.0 * line)
    >>> lines = dict(log_strength=(0.2 * line).log(), log_sigma=(0.1 * line).log(), log_gamma=(0.02 * line).log())
    >>> optical_depth(wave, center=5000.0 * line, **lines, sign=line, pairs=pairs)
    tensor([0.4492, 0.6850, 0.4492], dtype=torch.float64)
    """
    depth = _pair_depth(wave, center, log_strength, log_sigma=log_sigma, log_gamma=log_gamma, sign=sign, pairs=pairs)
    return depth.new_zeros(len(wave)).index_add(0, pairs[1], depth)


def transmission(optical_depth: Tensor) -> Tensor:
    """
    Transmitted fraction ``exp(-tau)``: the opacity form (Gully-Santiago & Morley 2022, appendix A).

    Parameters
    ----------
    optical_depth : Tensor, any shape
        Negative where emission dominates.

    Returns
    -------
    Tensor, shape of ``optical_depth``

    Examples
    --------
    >>> transmission(torch.tensor([0.0, 1.0]))
    tensor([1.0000, 0.3679])
    """
    return torch.exp(-optical_depth)


def product_transmission(
    wave: Tensor,
    *,
    center: Tensor,
    log_strength: Tensor,
    log_sigma: Tensor,
    log_gamma: Tensor,
    sign: Tensor,
    pairs: tuple[Tensor, Tensor],
) -> Tensor:
    r"""
    Product of the lines, :math:`\prod_j (1 \mp a_j V_j)`: the product form (Gully-Santiago & Morley 2022, eq. 2).

    A factor that would be negative is cut at zero (to rounding); its line has no gradient at that pixel.

    Parameters
    ----------
    wave, center, log_strength, log_sigma, log_gamma, sign, pairs
        As for :func:`optical_depth`.

    Returns
    -------
    Tensor, shape (n_pix,)

    Examples
    --------
    >>> wave = torch.tensor([4999.9, 5000.0, 5000.1], dtype=torch.float64)
    >>> line = torch.tensor([1.0], dtype=torch.float64)
    >>> pairs = line_pixel_pairs(wave, 5000.0 * line, 1.0 * line)
    >>> lines = dict(log_strength=(0.2 * line).log(), log_sigma=(0.1 * line).log(), log_gamma=(0.02 * line).log())
    >>> product_transmission(wave, center=5000.0 * line, **lines, sign=line, pairs=pairs)
    tensor([0.5508, 0.3150, 0.5508], dtype=torch.float64)
    """
    depth = _pair_depth(wave, center, log_strength, log_sigma=log_sigma, log_gamma=log_gamma, sign=sign, pairs=pairs)
    log_factor = torch.log1p(-depth.clamp(max=1.0 - torch.finfo(depth.dtype).eps))
    return torch.exp(depth.new_zeros(len(wave)).index_add(0, pairs[1], log_factor))


def pixel_depth(
    edges: Tensor, *, center: Tensor, strength: Tensor, sigma: Tensor, pairs: tuple[Tensor, Tensor]
) -> Tensor:
    r"""
    Mean over each pixel of the optical depth of Gaussian lines, integrated exactly.

    .. math:: \bar\tau = \sum_j \frac{a_j}{2 (b - a)} \left[\mathrm{erf}\frac{b - \lambda_j}{\sqrt{2} \sigma_j}
              - \mathrm{erf}\frac{a - \lambda_j}{\sqrt{2} \sigma_j}\right]

    It is linear in the strengths, so that it is the mean flux density of lines as well, if they have fluxes.

    Parameters
    ----------
    edges : Tensor, shape (n_pix, 2)
        Lower edge a and upper edge b of each pixel [Angstrom].
    center : Tensor, shape (n_lines,)
        Line centres [Angstrom].
    strength : Tensor, shape (n_lines,)
        Integrated optical depth a_j [Angstrom], negative for emission.
    sigma : Tensor, shape (n_lines,)
        Standard deviation (not FWHM) of the Gaussian [Angstrom].
    pairs : tuple of Tensor, shape (n_pairs,)
        Line and pixel indices, see :func:`line_pixel_pairs`.

    Returns
    -------
    Tensor, shape (n_pix,)

    Examples
    --------
    A line that is much narrower than its pixel:

    >>> edges = torch.tensor([[4999.0, 5001.0], [5001.0, 5003.0]], dtype=torch.float64)
    >>> line = torch.tensor([1.0], dtype=torch.float64)
    >>> pairs = line_pixel_pairs(edges.mean(dim=1), 5000.5 * line, 3.0 * line)
    >>> pixel_depth(edges, center=5000.5 * line, strength=0.2 * line, sigma=0.01 * line, pairs=pairs)
    tensor([0.1000, 0.0000], dtype=torch.float64)
    """
    line, pixel = pairs
    lower, upper = edges.unbind(1)
    scale = 1.0 / (math.sqrt(2.0) * sigma)
    below, above = (torch.erf((ends[pixel] - center[line]) * scale[line]) for ends in (lower, upper))
    depth = 0.5 * strength[line] * (above - below) / (upper - lower)[pixel]
    return depth.new_zeros(len(edges)).index_add(0, pixel, depth)


def _pair_depth(
    wave: Tensor,
    center: Tensor,
    log_strength: Tensor,
    *,
    log_sigma: Tensor,
    log_gamma: Tensor,
    sign: Tensor,
    pairs: tuple[Tensor, Tensor],
) -> Tensor:
    """Signed optical depth of every (line, pixel) pair, shape (n_pairs,)."""
    line, pixel = pairs
    delta = wave[pixel] - center[line]
    profile = voigt(delta, sigma=torch.exp(log_sigma)[line], gamma=torch.exp(log_gamma)[line])
    return (sign * torch.exp(log_strength))[line] * profile
