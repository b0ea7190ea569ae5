"""Continua of galaxies in bins of the rest frame, and emission lines on them.

Pixels are constants between edges, with gaps between them or none. Gradients flow from the flux,
the redshift and the velocity dispersion, not from the choice of the pixels that count.
"""

import numpy as np
import torch
from torch import Tensor

from specutils_blase.functional.constants import SPEED_OF_LIGHT
from specutils_blase.functional.forest import line_pixel_pairs, pixel_depth

__all__ = ["emission", "line_levels", "luminosity_distance", "predictor_inputs", "top_hat_means"]

# Edges of the bins in the rest frame [Angstrom], those of Khederlarian et al. (2024).
BINS = np.linspace(3400.0, 7000.0, 13)
# Rest wavelengths in vacuum of what is left out [Angstrom]: [Ne V], [O II] (two), [Ne III] (two), H zeta to H alpha,
# [O III] (three), He II, He I, [O I] (two), [N II] (two), [S II] (two).  NIST and Chianti, as fastspecfit lists them.
EMISSION_LINES = np.array([
    3426.85, 3727.10, 3729.86, 3869.86, 3890.166, 3968.59, 3971.198, 4102.892, 4341.692, 4364.436, 4687.02, 4862.71,
    4960.295, 5008.240, 5877.249, 6302.046, 6365.536, 6549.861, 6564.60, 6585.273, 6718.294, 6732.674,
])  # fmt: skip
# Half of the window around each of them [km/s]: narrow lines are within, at the resolving power of a survey.
HALF_WINDOW = 800.0
# A bin is known if at least this share of what no emission line covers is.
LEAST_COVERED = 0.5
# The flux density that goes with the redshift into the luminosity, bin number 8 (5800 to 6100 Angstrom).
REFERENCE_BIN = 8
# The continuum of a line is that of pixels so near to it [km/s]: wider than the Balmer lines of stars.
HALF_BAND = 4000.0
# A Gaussian is cut where 1e-16 of its area is beyond [standard deviations].
REACH = 8.3
# H0 [km/s/Mpc] and Om0 of a flat universe without radiation, and the quadrature of its distances up to redshift 20.
HUBBLE, MATTER = 70.0, 0.3
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(14)


def _pieces():
    """Edges of the pieces that bins and windows cut each other into, and which pieces count for which bin."""
    half = HALF_WINDOW / SPEED_OF_LIGHT
    windows = np.stack([EMISSION_LINES * (1 - half), EMISSION_LINES * (1 + half)], axis=1)
    edges = np.unique(np.concatenate([BINS, windows.ravel()]))
    edges = edges[(edges >= BINS[0]) & (edges <= BINS[-1])]
    middle = edges[1:] / 2 + edges[:-1] / 2
    in_window = ((middle[:, None] > windows[:, 0]) & (middle[:, None] < windows[:, 1])).any(axis=1)
    in_bin = (middle[:, None] > BINS[:-1]) & (middle[:, None] < BINS[1:])
    return edges, (in_bin & ~in_window[:, None]).astype(float)


_EDGES, _COUNTED = _pieces()


def top_hat_means(flux: Tensor, edges: Tensor, good: Tensor, redshift: Tensor) -> Tensor:
    r"""
    Mean flux density in twelve bins of the rest frame from 3400 to 7000 Angstrom, without windows about emission lines.

    The integral of the flux over all pixels below a wavelength is evaluated at the ends of every piece of a bin that
    no window covers. Khederlarian et al. (2024, MNRAS 531, 1454).

    Parameters
    ----------
    flux : Tensor, shape (n, n_pix)
        Flux densities per wavelength of the observer, any unit.
    edges : Tensor, shape (n_pix, 2)
        Lower and upper edges of the pixels, increasing [Angstrom].
    good : Tensor of bool, shape (n, n_pix)
        Which pixels can be used; the flux of others may be NaN.
    redshift : Tensor, shape (n,)

    Returns
    -------
    Tensor, shape (n, 12)
        NaN where pixels end within a bin, or less than half of what counts can be used.

    Examples
    --------
    >>> edges = torch.arange(3400.0, 7100.0, 2.0, dtype=torch.float64)
    >>> edges = torch.stack([edges[:-1], edges[1:]], dim=1)
    >>> flux = edges.mean(dim=1)[None] / 1000.0
    >>> top_hat_means(flux, edges, flux > 0, torch.zeros(1, dtype=torch.float64))[0, 4:8]
    tensor([4.7446, 5.0641, 5.3500, 5.6500], dtype=torch.float64)
    """
    flux, edges, good, redshift = (torch.as_tensor(values) for values in (flux, edges, good, redshift))
    lower, upper = (values.contiguous() for values in edges.unbind(1))
    stretch = (1.0 + redshift)[:, None]
    pieces, counted = (torch.as_tensor(values, dtype=flux.dtype, device=flux.device) for values in (_EDGES, _COUNTED))
    at = stretch * pieces
    pixel = (torch.searchsorted(lower, at.detach().contiguous(), right=True) - 1).clamp(min=0)
    inside = torch.minimum((at - lower[pixel]).clamp(min=0.0), (upper - lower)[pixel])

    def sums(values):
        """Over each bin; values (n, n_pix) are constant over the pixels."""
        before = torch.nn.functional.pad((values * (upper - lower)).cumsum(1), (1, 0))
        return (before.gather(1, pixel) + values.gather(1, pixel) * inside).diff(dim=1) @ counted

    width, area = sums(good.to(flux.dtype)), sums(torch.where(good, flux, 0.0))
    known = width >= LEAST_COVERED * (at.diff(dim=1) @ counted)
    bins = stretch * torch.as_tensor(BINS, dtype=flux.dtype, device=flux.device)
    known &= (bins[:, :-1] >= lower[0] * (1 - 1e-12)) & (bins[:, 1:] <= upper[-1] * (1 + 1e-12))
    return torch.where(known, area / torch.where(known, width, 1.0), torch.nan)


def luminosity_distance(redshift: Tensor) -> Tensor:
    r"""
    Luminosity distance [Mpc] in a flat universe with H0 = 70 km/s/Mpc and Om0 = 0.3.

    :math:`D = (1 + z) \frac{c}{H_0} \int_s^1 2 / \sqrt{\Omega_0 + (1 - \Omega_0) t^6} \, dt` with
    :math:`s = (1 + z)^{-1/2}`: the integral of Hogg (1999, arXiv:astro-ph/9905116, equation 15) in a variable in which
    a short quadrature is good to 1e-10 up to a redshift of 20.

    Parameters
    ----------
    redshift : Tensor, any shape

    Returns
    -------
    Tensor, shape of ``redshift``

    Examples
    --------
    >>> luminosity_distance(torch.tensor([0.1, 1.0], dtype=torch.float64))
    tensor([ 460.3003, 6607.6576], dtype=torch.float64)
    """
    redshift = torch.as_tensor(redshift)
    # Half of 1 - 1 / root(1 + z), without the loss of digits at small redshifts.
    root = torch.sqrt(1.0 + redshift)
    half = 0.5 * redshift / (root * (1.0 + root))
    # One node after the other: what is added up stays in the cache.
    one, matter, integral = torch.ones_like(half), torch.full_like(half, MATTER), torch.zeros_like(half)
    for node, weight in zip(_NODES.tolist(), _WEIGHTS.tolist(), strict=True):
        cube = torch.sub(one, half, alpha=1.0 + node) ** 3
        integral = integral.add(torch.rsqrt(torch.addcmul(matter, cube, cube, value=1.0 - MATTER)), alpha=weight)
    return (1.0 + redshift) * (SPEED_OF_LIGHT / HUBBLE) * 2.0 * half * integral


def predictor_inputs(continuum: Tensor, redshift: Tensor) -> Tensor:
    r"""
    What the network that predicts emission lines gets: eleven colours, a luminosity, the redshift.

    Colours are :math:`\log_{10} f_{j+1} / f_j`, the luminosity is :math:`\log_{10} f_8 (1 + z) D_L^2` with f_8 from
    5800 to 6100 Angstrom: Khederlarian et al. (2024, MNRAS 531, 1454), section 3.

    Parameters
    ----------
    continuum : Tensor, shape (n, 12)
        From `top_hat_means`, positive [1e-17 erg / (s cm2 Angstrom)].
    redshift : Tensor, shape (n,)

    Returns
    -------
    Tensor, shape (n, 13)

    Examples
    --------
    >>> inputs = predictor_inputs(torch.full((1, 12), 10.0), torch.tensor([0.1]))
    >>> inputs.shape, inputs[0, -2:]
    (torch.Size([1, 13]), tensor([6.3675, 0.1000]))
    """
    continuum, redshift = torch.as_tensor(continuum), torch.as_tensor(redshift)
    logs = torch.log10(continuum)
    distance = luminosity_distance(redshift.clamp(min=1e-6))
    luminosity = logs[:, REFERENCE_BIN] + torch.log10(1.0 + redshift) + 2.0 * torch.log10(distance)
    return torch.cat([logs.diff(dim=1), luminosity[:, None], redshift[:, None]], dim=1)


def line_levels(flux: Tensor, edges: Tensor, good: Tensor, redshift: Tensor, wave: Tensor) -> Tensor:
    """
    Continuum of one galaxy at its emission lines: the straight line between the medians of the two sides.

    A side is made of the pixels within 4000 km/s of the line that no window of 800 km/s about an emission line covers,
    so that absorption lines, noise and lines that are there already hardly matter. Where one side has no pixels the
    other is taken alone.

    Parameters
    ----------
    flux : Tensor, shape (n_pix,)
    edges : Tensor, shape (n_pix, 2)
        As for `top_hat_means`.
    good : Tensor of bool, shape (n_pix,)
    redshift : Tensor, shape ()
    wave : Tensor, shape (n_lines,)
        Wavelengths of the lines in the rest frame [Angstrom].

    Returns
    -------
    Tensor, shape (n_lines,)
        In the unit of the flux; NaN for lines that are not between the first and the last pixel that can be used, or
        have no such pixels.

    Examples
    --------
    >>> edges = torch.arange(4500.0, 5200.0, 2.0, dtype=torch.float64)
    >>> edges = torch.stack([edges[:-1], edges[1:]], dim=1)
    >>> flux = edges.mean(dim=1) / 1000.0
    >>> wave = torch.tensor([4862.71, 6564.60], dtype=torch.float64)
    >>> line_levels(flux, edges, flux > 0, torch.tensor(0.0), wave)
    tensor([4.8627,    nan], dtype=torch.float64)
    """
    middle = edges.detach().mean(1)
    rest = middle / (1.0 + redshift.detach())
    lines = torch.as_tensor(EMISSION_LINES, dtype=rest.dtype, device=rest.device)
    near = (rest - lines[:, None]).abs() < HALF_WINDOW / SPEED_OF_LIGHT * lines[:, None]
    usable = good & ~near.any(0)
    distance = rest - wave[:, None]
    band = usable & (distance.abs() < HALF_BAND / SPEED_OF_LIGHT * wave[:, None])
    sides = torch.stack([band & (distance < 0), band & (distance > 0)])
    level, place = (torch.where(sides, v, torch.nan).nanquantile(0.5, dim=-1) for v in (flux, middle.to(flux)))
    center = wave * (1.0 + redshift)
    known = torch.isfinite(level.detach())
    # A side without pixels has the level of the other, and the line through both is flat.
    level = torch.where(known, level, torch.where(known, level, 0.0).flip(0))
    place = torch.where(known.all(0), place, torch.stack([center.detach() - 1.0, center.detach() + 1.0]))
    level = level[0] + (level[1] - level[0]) * (center - place[0]) / (place[1] - place[0])
    ends = edges.detach()[good]
    inside = (center >= ends.min()) & (center <= ends.max()) if len(ends) else torch.zeros_like(known[0])
    return torch.where(inside & known.any(0), level, torch.nan)


def emission(edges: Tensor, redshift: Tensor, dispersion: Tensor, line_flux: Tensor, wave: Tensor) -> Tensor:
    r"""
    Mean flux density over each pixel of the Gaussian emission lines of one galaxy.

    Lines have the standard deviation :math:`\lambda (1 + z) \sigma_v / c`, and are integrated exactly: `pixel_depth`,
    with the other sign.

    Parameters
    ----------
    edges : Tensor, shape (n_pix, 2)
        Lower and upper edges of the pixels, increasing [Angstrom].
    redshift : Tensor, shape ()
    dispersion : Tensor, shape ()
        Standard deviation of the velocities [km/s], positive.
    line_flux : Tensor, shape (n_lines,)
        Flux density times Angstrom; lines where it is zero or NaN are left out.
    wave : Tensor, shape (n_lines,)
        Wavelengths of the lines in the rest frame [Angstrom].

    Returns
    -------
    Tensor, shape (n_pix,)

    Examples
    --------
    >>> edges = torch.arange(4500.0, 5200.0, 2.0, dtype=torch.float64)
    >>> edges = torch.stack([edges[:-1], edges[1:]], dim=1)
    >>> z, dispersion, flux, wave = torch.tensor([[0.05], [100.0], [20.0], [4862.71]], dtype=torch.float64)
    >>> (emission(edges, z[0], dispersion[0], flux, wave) * edges.diff(dim=1)[:, 0]).sum()
    tensor(20.0000, dtype=torch.float64)
    """
    # What is left out is not computed with: zero times NaN would be NaN in the gradients.
    seen = line_flux.detach() > 0
    center = wave[seen] * (1.0 + redshift)
    sigma = center * (dispersion / SPEED_OF_LIGHT)
    middle, width = edges.detach().mean(1), edges.detach().diff(dim=1)
    pairs = line_pixel_pairs(middle, center.detach(), REACH * sigma.detach() + 0.5 * width.max())
    return -pixel_depth(edges, center=center, strength=-line_flux[seen], sigma=sigma, pairs=pairs)
