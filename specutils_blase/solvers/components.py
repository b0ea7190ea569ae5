r"""Components of galaxy spectra in the rest frame, from noisy spectra that each cover a part of it.

A spectrum is :math:`y = a (\mu + \sum_k c_k b_k)` plus noise of known variance, with coefficients that have the mean
zero and the variance one in the population: probabilistic principal components with missing data, fitted by expectation
and maximisation (Tipping & Bishop 1999, J. R. Stat. Soc. B 61, 611; Bailey 2012, PASP 124, 1015 for spectra).
"""

import math

import torch
from torch import Tensor

__all__ = ["fit_components", "sharpened"]

ITERATIONS = 6
# Galaxies at once.
BATCH = 1000
# Of the sums of squares that the light of one sample has, so that samples with few galaxies stay bounded.
RIDGE = 1e-2


def fit_components(flux: Tensor, ivar: Tensor, n_components: int, *, seed: int, report=None) -> Tensor:
    """
    Mean spectrum and components.

    Parameters
    ----------
    flux, ivar : Tensor, shape (n, n_table)
        In the rest frame. Scaled in place so that the models of all galaxies have the same mean.
    n_components : int
    seed : int
        Of the start of the iterations.
    report : callable, optional
        Gets the part that is done.

    Returns
    -------
    Tensor, shape (1 + n_components, n_table)
        The mean first.
    """
    n, generator = len(flux), torch.Generator().manual_seed(seed)
    mean = (ivar * flux).sum(0) / ivar.sum(0).clamp_min(1e-30)
    components = torch.cat([mean[None], _start(flux, ivar, mean, n_components, generator)])
    k = len(components)
    upper = torch.triu_indices(k, k)
    for iteration in range(ITERATIONS):
        sums, right = flux.new_zeros(flux.shape[1], upper.shape[1]), flux.new_zeros(flux.shape[1], k)
        moments = flux.new_zeros(k, k, dtype=torch.float64)
        for start in range(0, n, BATCH):
            some = slice(start, start + BATCH)
            _scale(flux[some], ivar[some], components)
            second, first = _expected(flux[some], ivar[some], components)
            sums += ivar[some].T @ second[:, upper[0], upper[1]]
            right += (ivar[some] * flux[some]).T @ first
            moments += second.sum(0)
        solved = torch.linalg.solve(_symmetric(sums, k).double() + RIDGE * torch.eye(k, device=flux.device),
                                    right.double()[..., None])[..., 0].T  # fmt: skip
        # Rotated and scaled so that the coefficients have unit variance, the strongest first.
        values, vectors = torch.linalg.eigh(moments[1:, 1:] / n)
        turned = (vectors * values.clamp_min(1e-8).sqrt()).T @ solved[1:]
        components = torch.cat([solved[:1], turned[turned.norm(dim=1).argsort(descending=True)]]).to(flux.dtype)
        if report is not None:
            report((iteration + 1) / ITERATIONS)
    return components / components[0].mean()


def _start(flux, ivar, mean, n_components, generator):
    """Components of the spectra with zeros where nothing is known, by random projections (Halko et al. 2011)."""
    centered = torch.where(ivar > 0, flux - mean, 0.0)
    found = centered.T @ torch.randn(len(flux), n_components + 10, generator=generator).to(flux)
    for _ in range(3):
        found = torch.linalg.qr(centered.T @ (centered @ found))[0]
    _, size, rotation = torch.linalg.svd(centered @ found, full_matrices=False)
    return (rotation @ found.T * size[:, None] / math.sqrt(len(flux)))[:n_components]


def _scale(flux, ivar, components):
    """Scale spectra, in place, so that their models have the mean that the first component has."""
    _, first = _expected(flux, ivar, components)
    level = (first @ components.mean(1) / components[0].mean()).clamp(0.2, 5.0)[:, None]
    flux /= level
    ivar *= level**2


def _expected(flux, ivar, components):
    """Second and first moments of (1, coefficients) of every galaxy, given its spectrum."""
    k = len(components)
    upper = torch.triu_indices(k, k)
    matrix = _symmetric(ivar @ (components[upper[0]] * components[upper[1]]).T, k)
    right = (ivar * flux) @ components.T
    precision = matrix[:, 1:, 1:] + torch.eye(k - 1, device=flux.device)
    variance = torch.linalg.inv(precision)
    first = torch.cat([flux.new_ones(len(flux), 1),
                       (variance @ (right - matrix[:, 0])[:, 1:, None])[..., 0]], dim=1)  # fmt: skip
    second = first[:, :, None] * first[:, None]
    second[:, 1:, 1:] += variance
    return second, first


def _symmetric(values, k):
    """Symmetric matrices from the elements of their upper triangles."""
    upper = torch.triu_indices(k, k)
    out = values.new_empty(len(values), k, k)
    out[:, upper[0], upper[1]] = values
    out[:, upper[1], upper[0]] = values
    return out


def sharpened(components: Tensor, sigma: float, noise: float = 3e-3) -> Tensor:
    """
    Components before an instrument has blurred them: Wiener's filter.

    Parameters
    ----------
    components : Tensor, shape (k, n_table)
    sigma : float
        Standard deviation of a pixel's response, line spread function and pixel together, in samples.
    noise : float
        Power of the noise by that of the light: frequencies that the instrument lets pass by less than its square root
        are not brought back.

    Returns
    -------
    Tensor, shape (k, n_table)
    """
    n = components.shape[-1]
    frequency = torch.fft.rfftfreq(2 * n, device=components.device)
    passed = torch.exp(-0.5 * (2.0 * math.pi * frequency * sigma) ** 2)
    raised = passed / (passed**2 + noise) * (1.0 + noise)
    # Mirrored at its end, so that it is periodic without a step.
    mirrored = torch.cat([components, components.flip(-1)], -1)
    return torch.fft.irfft(torch.fft.rfft(mirrored) * raised.to(components.dtype), n=2 * n)[..., :n]
