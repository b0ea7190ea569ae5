"""Spectra that are tabulated on a grid uniform in ln(wavelength), elsewhere on that grid: what a redshift asks for."""

import torch
from torch import Tensor

__all__ = ["shifted"]


def shifted(values: Tensor, position: Tensor, n: int) -> Tensor:
    r"""
    Samples of tabulated spectra, one spacing apart from a position between the samples of the table on.

    On a grid uniform in ln(wavelength) a redshift is such a shift. With t the fraction of the position, the four
    samples around it have the weights of the cubic polynomial through them (Lagrange):

    .. math:: -t (t-1) (t-2) / 6, \quad (t+1)(t-1)(t-2) / 2, \quad -(t+1) t (t-2) / 2, \quad (t+1) t (t-1) / 6 .

    The error is :math:`0.02 h^4 f''''`: for a Gaussian line of two spacings in standard deviation 0.004 of its height.

    Parameters
    ----------
    values : Tensor, shape (m, n_grid) or (n_grid,)
        Tabulated spectra; beyond their ends they continue with the end values. Differentiable.
    position : Tensor, shape (m,)
        Place of the first sample, in spacings from the first of the table; float64. Differentiable.
    n : int
        Number of samples.

    Returns
    -------
    Tensor, shape (m, n)

    Examples
    --------
    >>> table = torch.arange(6, dtype=torch.float64) ** 2
    >>> shifted(table, torch.tensor([1.5], dtype=torch.float64), 3)
    tensor([[ 2.2500,  6.2500, 12.2500]], dtype=torch.float64)
    """
    start = torch.floor(position.detach())
    t = (position - start).to(values.dtype)[:, None]
    index = start.long()[:, None] + torch.arange(-1, n + 2, device=values.device)
    samples = values.expand(len(position), -1).gather(1, index.clamp(0, values.shape[-1] - 1))
    weights = (-t * (t - 1) * (t - 2) / 6, (t + 1) * (t - 1) * (t - 2) / 2, -(t + 1) * t * (t - 2) / 2,
               (t + 1) * t * (t - 1) / 6)  # fmt: skip
    return sum(weight * samples[:, k : k + n] for k, weight in enumerate(weights))
