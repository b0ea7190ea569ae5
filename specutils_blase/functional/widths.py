r"""Distributions of positive widths that are known from noisy measurements.

The true width t of a line is a function of one standard normal number z, the sinh-arcsinh transformation of
Jones & Pewsey (2009, Biometrika 96, 761, equation 1), which has closed quantiles:

.. math:: \ln t = m + g \, [\sinh(d (\mathrm{arcsinh} z + e)) - \sinh(d e)] / (d \cosh(d e)) .

A width is measured as e > 0, from a normal distribution that is cut at zero and has the mean t: what a catalogue lists
that has no widths below zero. Its standard deviation before the cut is the quoted one times a factor. Parameters of a
line are the last axis of a tensor: m, g, e, d and the logarithm of that factor.
"""

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["log_width", "measured_draws", "measured_probability", "negative_log_likelihood", "score"]

HALF_LOG_2PI, HALF_ROOT = 0.5 * math.log(2.0 * math.pi), math.sqrt(0.5)
# Gauss-Hermite quadrature of 24 points, less those without weight.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(24)
_NODES, _WEIGHTS = (values[_WEIGHTS > 1e-9 * _WEIGHTS.sum()] for values in (_NODES, _WEIGHTS / _WEIGHTS.sum()))
# Means before the cut, in standard deviations, between which `_cut` interpolates; below them an expansion does.
_CUT = torch.linspace(-60.0, 12.0, 7201, dtype=torch.float64)


def log_width(parameters: Tensor, z: Tensor | float) -> Tensor:
    """
    Natural logarithm of true widths.

    Parameters
    ----------
    parameters : Tensor, shape (..., 5)
    z : float, or Tensor that goes with the shape of ``parameters`` less the last axis
        Standard normal numbers.

    Returns
    -------
    Tensor
    """
    m, g, e, d, _ = parameters.unbind(-1)
    z = torch.as_tensor(z, dtype=m.dtype, device=m.device)
    half = 0.5 * d * torch.asinh(z)
    # The difference of the two sinh as a product, which loses no digits.
    return m + g * 2.0 * torch.cosh(half + d * e) * torch.sinh(half) / (d * torch.cosh(d * e))


def score(parameters: Tensor, ln_width: Tensor) -> tuple[Tensor, Tensor]:
    """
    The z of widths: the inverse of `log_width`.

    Parameters
    ----------
    parameters : Tensor, shape (..., 5)
    ln_width : Tensor, shape (..., n)
        Natural logarithms of n true widths for each set of parameters.

    Returns
    -------
    z, log_slope : Tensor, shape (..., n)
        And the logarithm of dz / d ln(width).
    """
    m, g, e, d, _ = (values[..., None] for values in parameters.unbind(-1))
    slope = d * torch.cosh(d * e) / g
    inner = (ln_width - m) * slope + torch.sinh(d * e)
    angle = torch.asinh(inner) / d - e
    z = torch.sinh(angle)
    # cosh(angle) is the root of 1 + z**2
    return z, 0.5 * (torch.log1p(z**2) - torch.log1p(inner**2)) + torch.log(slope / d)


def _cut(mean: Tensor) -> tuple[Tensor, Tensor]:
    """
    Of unit normal distributions that have these means after a cut at zero; differentiable.

    Returns their means before the cut, s, and the logarithm of what is left: of Phi(s) where s is positive, else of
    Phi(s) exp(s**2 / 2), which does not underflow.
    """
    first, last, spacing, table = _cut_table(mean.dtype, mean.device)
    place = (torch.log(mean).clamp(first, last) - first) / spacing
    index = place.detach().long().clamp(0, len(table) - 2)
    low, high = table[index], table[index + 1]
    between = low + (high - low) * (place - index)[..., None]
    least, many = mean.clamp(1e-6, 0.02), mean > 10.0
    small = mean < 0.02
    start = torch.where(small, 2.0 * least - 1.0 / least, torch.where(many, mean, between[..., 0]))
    # The first terms of the expansion of erfcx.
    left = torch.where(small, torch.log(least) + least**2 - HALF_LOG_2PI, torch.where(many, 0.0, between[..., 1]))
    return start, left


_tables = {}


def _cut_table(dtype, device):
    """First and last ln(mean), spacing, and what `_cut` interpolates, (n, 2)."""
    if (dtype, device) not in _tables:
        negative = _CUT.clamp(max=0.0)
        mean = _CUT + torch.exp(-HALF_LOG_2PI - 0.5 * (_CUT**2 - negative**2) - _left(_CUT))
        at = torch.linspace(float(mean[0].log()), float(mean[-1].log()), 4001, dtype=torch.float64)
        start = torch.as_tensor(np.interp(at.numpy(), mean.log().numpy(), _CUT.numpy()))
        values = torch.stack([start, _left(start)], -1)
        _tables[dtype, device] = float(at[0]), float(at[-1]), float(at[1] - at[0]), values.to(device, dtype)
    return _tables[dtype, device]


def _left(start: Tensor) -> Tensor:
    """Logarithm of what a cut at zero leaves of a unit normal distribution, as `_cut` has it."""
    below = torch.log(0.5 * torch.special.erfcx(-start.clamp(max=0.0) * HALF_ROOT))
    return torch.where(start > 0.0, torch.special.log_ndtr(start), below)


def _log_measured(measured: Tensor, true: Tensor, noise: Tensor) -> Tensor:
    """Logarithm of the probability density of a measured width."""
    (start, left), x = _cut(true / noise), measured / noise
    # The square of a negative start is in what is left, so that no difference of large numbers is taken.
    positive = start.clamp(min=0.0)
    return x * (start - positive) - 0.5 * (x - positive) ** 2 - left - torch.log(noise) - HALF_LOG_2PI


def _below(measured: Tensor, true: Tensor, noise: Tensor) -> Tensor:
    """Probability that a measured width is smaller than this one."""
    (start, _), x = _cut(true / noise), measured / noise
    inside = start.clamp(min=0.0)
    above = torch.exp(torch.special.log_ndtr((inside - x).clamp(min=-12.0)) - torch.special.log_ndtr(inside))
    negative, x = start.clamp(max=0.0), x.clamp(max=1e6)
    ratio = torch.special.erfcx((x - negative) * HALF_ROOT) / torch.special.erfcx(-negative * HALF_ROOT)
    return 1.0 - torch.where(start > 0.0, above, torch.exp(x * (negative - 0.5 * x)) * ratio)


def negative_log_likelihood(parameters: Tensor, width: Tensor, noise: Tensor) -> Tensor:
    """
    Of measured widths, the true ones integrated out: over the noise where it is the narrower, over z where it is not.

    Parameters
    ----------
    parameters : Tensor, shape (..., n, n_lines, 5)
        From `LineNetwork`.
    width, noise : Tensor, shape (n, n_lines)
        Measured widths and their quoted standard deviations, positive.

    Returns
    -------
    Tensor, shape (..., n, n_lines)
    """
    s, width = torch.broadcast_tensors(noise * torch.exp(parameters[..., 4]), width)
    wide = _noise_is_wide(parameters, width, s, 0.5)
    out = torch.zeros_like(s)
    for chosen, likelihood in ((wide, _log_likelihood_over_z), (~wide, _log_likelihood_over_noise)):
        out = out.masked_scatter(chosen, likelihood(parameters[chosen], width[chosen][:, None], s[chosen][:, None]))
    return -out


def _log_likelihood_over_noise(parameters, e, s):
    """Nodes about the measured width; the weights make up for what the normal distribution of the nodes is not."""
    nodes, log_weights = _quadrature(e)
    fixed = s.detach()
    true = e + fixed * nodes
    least = 1e-4 * e
    clamped = torch.maximum(true, least)
    ln_width = torch.log(clamped)
    z, slope = score(parameters, ln_width)
    near = -0.5 * z**2 + slope - ln_width + _log_measured(e, clamped, s) + 0.5 * nodes**2 + torch.log(fixed)
    return torch.logsumexp(torch.where(true > least, near, near.new_tensor(-60.0)) + log_weights, -1)


def _log_likelihood_over_z(parameters, e, s):
    nodes, log_weights = _quadrature(e)
    true = torch.exp(log_width(parameters[..., None, :], nodes).clamp(-30.0, 14.0))
    return torch.logsumexp(_log_measured(e, true, s) + log_weights, -1)


def _quadrature(like):
    """Nodes, and logarithms of their weights."""
    return (torch.as_tensor(values, dtype=like.dtype, device=like.device) for values in (_NODES, np.log(_WEIGHTS)))


def _noise_is_wide(parameters: Tensor, width: Tensor, noise: Tensor, factor: float) -> Tensor:
    """Where the distribution of true widths is the narrower one near what was measured."""
    return noise > factor * parameters[..., 1] * width


def measured_probability(parameters: Tensor, width: Tensor, noise: Tensor) -> Tensor:
    """
    Probability that a measured width is smaller than this one.

    Parameters
    ----------
    parameters, width, noise : Tensor
        As for `negative_log_likelihood`.

    Returns
    -------
    Tensor, shape (..., n, n_lines)
    """
    s, width = torch.broadcast_tensors(noise * torch.exp(parameters[..., 4]), width)
    wide = _noise_is_wide(parameters, width, s, 0.3)
    out = torch.zeros_like(s)
    for chosen, probability in ((wide, _probability_over_z), (~wide, _probability_over_noise)):
        out = out.masked_scatter(chosen, probability(parameters[chosen], width[chosen][:, None], s[chosen][:, None]))
    return out


def _probability_over_noise(parameters, e, s):
    nodes, log_weights = _quadrature(e)
    z, _ = score(parameters, torch.log(torch.maximum(e - s * nodes, 1e-4 * e)))
    return (torch.special.ndtr(z) * torch.exp(log_weights)).sum(-1)


def _probability_over_z(parameters, e, s):
    nodes, log_weights = _quadrature(e)
    true = torch.exp(log_width(parameters[..., None, :], nodes).clamp(-30.0, 14.0))
    return (_below(e, true, s) * torch.exp(log_weights)).sum(-1)


def measured_draws(true: Tensor, noise: Tensor, uniform: Tensor) -> Tensor:
    """
    Widths as measured.

    Parameters
    ----------
    true, noise, uniform : Tensor, shape (...)
        True widths, standard deviations of the noise, and numbers between 0 and 1.

    Returns
    -------
    Tensor, shape (...)
    """
    mean = true / noise
    start, _ = _cut(mean)
    above = torch.exp(torch.special.log_ndtr(start.double().clamp(min=-20.0))) * uniform
    drawn = start - torch.special.ndtri(above).to(mean.dtype)
    return noise * torch.where(start < -20.0, -torch.log(uniform) * mean, drawn)
