"""Smooth components: Legendre polynomials and the blackbody."""

import torch
from torch import Tensor

from specutils_blase.functional.constants import HC_OVER_K

__all__ = ["blackbody", "continuum_basis", "legendre", "scaled_coordinate"]

# Wavelength at which the blackbody is of order one [Angstrom].
REFERENCE_WAVELENGTH = 10_000.0


def legendre(x: Tensor, degree: int) -> Tensor:
    """
    Legendre polynomials P_0 ... P_degree.

    Parameters
    ----------
    x : Tensor, shape (n,)
        Coordinate in [-1, 1], see :func:`scaled_coordinate`.
    degree : int
        Highest degree, not negative.

    Returns
    -------
    Tensor, shape (n, degree + 1)

    Examples
    --------
    >>> legendre(torch.tensor([-1.0, 0.0, 0.5]), 2)
    tensor([[ 1.0000, -1.0000,  1.0000],
            [ 1.0000,  0.0000, -0.5000],
            [ 1.0000,  0.5000, -0.1250]])
    """
    if degree < 0:
        raise ValueError(f"degree must not be negative, got {degree}")
    terms = [torch.ones_like(x), x]
    for k in range(1, degree):
        terms.append(((2 * k + 1) * x * terms[k] - k * terms[k - 1]) / (k + 1))
    return torch.stack(terms[: degree + 1], dim=-1)


def scaled_coordinate(wave: Tensor, lower: float, upper: float) -> Tensor:
    """
    Map [lower, upper] linearly onto [-1, 1].

    Parameters
    ----------
    wave : Tensor, shape (n,)
        Wavelengths [Angstrom].
    lower, upper : float
        Wavelengths that become -1 and 1 [Angstrom].

    Returns
    -------
    Tensor, shape (n,)

    Examples
    --------
    >>> scaled_coordinate(torch.tensor([5000.0, 5005.0, 5010.0]), 5000.0, 5010.0)
    tensor([-1.,  0.,  1.])
    """
    if not lower < upper:
        raise ValueError(f"lower must be below upper, got {lower} and {upper}")
    return (2.0 * wave - (lower + upper)) / (upper - lower)


def blackbody(wave: Tensor, teff: Tensor | float) -> Tensor:
    r"""
    Shape of Planck's law per unit wavelength, :math:`x^{-5} / (\exp(hc / \lambda k T) - 1)`, x = wave / 10000 Angstrom.

    Parameters
    ----------
    wave : Tensor, shape (n,)
        Wavelengths [Angstrom].
    teff : Tensor or float
        Effective temperature [K]. Differentiable.

    Returns
    -------
    Tensor, shape (n,)
        Spectral radiance up to a constant factor.

    Examples
    --------
    >>> blackbody(torch.tensor([5000.0, 10_000.0], dtype=torch.float64), 5772.0)
    tensor([0.2203, 0.0901], dtype=torch.float64)
    """
    exponent = HC_OVER_K / (wave * teff)
    # exp(-u) / (1 - exp(-u)) is 1 / (exp(u) - 1) without the overflow of exp(u) at short wavelengths.
    return (wave / REFERENCE_WAVELENGTH) ** -5 * torch.exp(-exponent) / -torch.expm1(-exponent)


def continuum_basis(wave: Tensor, degree: int, teff: float | None, domain: tuple[float, float]) -> Tensor:
    """
    Blackbody, scaled to 1 at the middle of the domain, times each Legendre polynomial.

    Parameters
    ----------
    wave : Tensor, shape (n,)
        Wavelengths [Angstrom].
    degree : int
        Highest degree of the polynomials.
    teff : float or None
        Temperature of the blackbody [K]; None for the polynomials alone.
    domain : pair of float
        Wavelengths that the polynomials map to -1 and 1 [Angstrom].

    Returns
    -------
    Tensor, shape (n, degree + 1)

    Examples
    --------
    >>> continuum_basis(torch.tensor([5000.0, 6000.0], dtype=torch.float64), 1, 5772.0, (5000.0, 7000.0))
    tensor([[ 1.0744, -1.0744],
            [ 1.0000,  0.0000]], dtype=torch.float64)
    """
    lower, upper = domain
    basis = legendre(scaled_coordinate(wave, lower, upper), degree)
    if teff is None:
        return basis
    middle = wave.new_tensor(0.5 * (lower + upper))
    return basis * (blackbody(wave, teff) / blackbody(middle, teff))[:, None]
