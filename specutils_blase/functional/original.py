"""What the code of Gully-Santiago & Morley (2022) computes: neither Voigt profiles nor the usual pseudo-Voigt."""

import math

import torch
from torch import Tensor

from specutils_blase.functional.forest import half_width, line_pixel_pairs

__all__ = ["original_profile", "original_transmission"]

# The numbers as that code has them. The second replaces sqrt(2 pi) and changes fluxes by up to 1e-5.
FWHM_PER_SIGMA = 2.3548
ROOT_TWO_PI = 2.5066
# A factor of the product form is at least 1 minus this.
DEEPEST = 0.999999999
# Below these a Gaussian is left out, and a wing is so weak that the logarithm of 1 - wing is - wing.
FAINT_GAUSSIAN, FAINT_WING = 1e-12, 1e-5
# (wavelength, line) pairs of wings that are summed together: small enough to stay in cache.
BLOCK = 32_768


def original_profile(delta, *, sigma, gamma) -> Tensor:
    r"""
    Profile of the original code: :math:`\eta L(\gamma) + (1 - \eta) G(\sigma)`.

    :math:`\eta` is that of Thompson, Cox & Hastings (1987, J. Appl. Cryst. 20, 79), but Lorentzian and Gaussian keep
    their own widths where :func:`pseudo_voigt` gives both the total one. At the centre it is up to 1.93 times
    :func:`voigt` of the same widths, so that its parameters are not those of a Voigt profile.

    Parameters
    ----------
    delta : Tensor or array, any shape
        Distance from the line centre [Angstrom].
    sigma : Tensor or array, broadcastable with ``delta``
        Standard deviation (not FWHM) of the Gaussian [Angstrom], positive.
    gamma : Tensor or array, broadcastable with ``delta``
        Half width at half maximum (not FWHM) of the Lorentzian [Angstrom], positive.

    Returns
    -------
    Tensor, broadcast shape
        Profile [1 / Angstrom], of unit area but for the rounding of the constants, 1e-5.

    Examples
    --------
    >>> one = torch.tensor(1.0, dtype=torch.float64)
    >>> delta = torch.tensor([0.0, 0.1, 1.0], dtype=torch.float64)
    >>> original_profile(delta, sigma=0.1 * one, gamma=0.02 * one)
    tensor([6.3919e+00, 2.0556e+00, 1.2819e-03], dtype=torch.float64)
    """
    delta, sigma, gamma = (torch.as_tensor(values) for values in (delta, sigma, gamma))
    mixing = _mixing(sigma, gamma)
    return _lorentzian(delta, mixing, gamma) + _gaussian(delta, 1.0 - mixing, sigma)


def original_transmission(wave, center, strength, sigma, gamma, form="product") -> Tensor:
    """
    Product of all lines with the profile of the original code, every line at every wavelength, to 1e-8.

    Parameters
    ----------
    wave : Tensor or array, shape (n_pix,)
        Wavelengths [Angstrom].
    center, strength, sigma, gamma : Tensor or array, shape (n_lines,)
        Centres, factors of the profiles, and widths as in :func:`original_profile` [Angstrom].
    form : {"product", "opacity"}
        The product of 1 - strength profile, or exp(-sum of strength profile).

    Returns
    -------
    Tensor, shape (n_pix,)

    Examples
    --------
    >>> original_transmission([5000.0, 5001.0], [5000.0], [0.1], [0.1], [0.02])
    tensor([0.3608, 0.9999], dtype=torch.float64)
    """
    wave, center, strength, sigma, gamma = (
        torch.as_tensor(values, dtype=torch.float64) for values in (wave, center, strength, sigma, gamma)
    )
    wave, order = wave.sort()
    mixing = _mixing(sigma, gamma)
    wing, core = strength * mixing, strength * (1.0 - mixing)
    depth = torch.cat([_wings(part, center, wing, gamma) for part in wave.split(max(BLOCK // len(center), 1))])
    reach = half_width(core, sigma, torch.zeros_like(gamma), FAINT_GAUSSIAN)
    line, pixel = line_pixel_pairs(wave, center, reach + torch.sqrt(wing * gamma / (math.pi * FAINT_WING)))
    delta = wave[pixel] - center[line]
    more = _gaussian(delta, core[line], sigma[line])
    if form == "product":
        lorentzian = _lorentzian(delta, wing[line], gamma[line])
        more = -torch.log1p(-(lorentzian + more).clamp(max=DEEPEST)) - lorentzian
    depth.index_add_(0, pixel, more)
    return torch.exp(-depth)[order.argsort()]


def _mixing(sigma: Tensor, gamma: Tensor) -> Tensor:
    gauss, lorentz = FWHM_PER_SIGMA * sigma, 2.0 * gamma
    fifth = gauss**5 + 2.69269 * gauss**4 * lorentz + 2.42843 * gauss**3 * lorentz**2
    fifth = fifth + 4.47163 * gauss**2 * lorentz**3 + 0.07842 * gauss * lorentz**4 + lorentz**5
    ratio = lorentz / fifth**0.2
    return 1.36603 * ratio - 0.47719 * ratio**2 + 0.11116 * ratio**3


def _lorentzian(delta: Tensor, area: Tensor, gamma: Tensor) -> Tensor:
    return area * gamma / math.pi / (delta**2 + gamma**2)


def _gaussian(delta: Tensor, area: Tensor, sigma: Tensor) -> Tensor:
    return area / (ROOT_TWO_PI * sigma) * torch.exp(-0.5 * (delta / sigma) ** 2)


def _wings(wave: Tensor, center: Tensor, area: Tensor, gamma: Tensor) -> Tensor:
    """Sum of the Lorentzian parts of all lines, shape of wave."""
    delta = wave[:, None] - center
    return torch.addcmul(gamma**2, delta, delta).reciprocal_() @ (area * gamma / math.pi)
