"""A spectrograph as a module: from a fine grid to its pixels."""

import math

import torch
from torch import Tensor, nn

from specutils_blase import functional
from specutils_blase.functional import FWHM_PER_SIGMA, SPEED_OF_LIGHT

__all__ = ["Instrument"]


class Instrument(nn.Module):
    """
    Gaussian line spread function and exact integration over the pixels, from a grid that the instrument itself builds.

    Parameters
    ----------
    edges : Tensor, shape (n_pix, 2)
        Lower and upper edge of each pixel [Angstrom]; pixels may leave gaps.
    resolving_power : None, float or Tensor of shape (n_pix,)
        Wavelength over FWHM of the line spread function, for all pixels or for each. None: pixel integration only.
    step : float
        Spacing of the grid [km/s].
    margin : float
        Velocity by which the grid reaches beyond the outermost edges [km/s]. It should hold the wings of the line
        spread function and of the rotation; beyond the grid, spectra continue with their end value.

    Attributes
    ----------
    wave : buffer, shape (n_grid,)
        The grid, uniform in ln(wavelength) [Angstrom]: where ``forward`` wants the flux.
    log_scale : nn.Parameter, shape ()
        Natural logarithm of a factor on ``resolving_power``, 0 at first; None without line spread function.

    Examples
    --------
    >>> centers = torch.arange(5000.0, 5001.0, 0.05, dtype=torch.float64)
    >>> instrument = Instrument(functional.pixel_edges(centers), resolving_power=50_000.0)
    >>> flux = instrument(torch.ones_like(instrument.wave))
    >>> print(tuple(flux.shape), f"{flux.min():.8f}")
    (20,) 1.00000000
    """

    def __init__(
        self,
        edges: Tensor,
        *,
        resolving_power: Tensor | float | None = None,
        step: float = 0.5,
        margin: float = 100.0,
    ) -> None:
        super().__init__()
        edges = torch.as_tensor(edges, dtype=torch.float64)
        if edges.ndim != 2 or edges.shape[1] != 2 or len(edges) == 0 or not bool((edges[:, 0] < edges[:, 1]).all()):
            raise ValueError(f"edges must have shape (n_pix, 2) with lower < upper, got shape {tuple(edges.shape)}")
        if not margin >= 0.0:
            raise ValueError(f"margin must be a velocity and not negative, got {margin} km/s")
        self.step = step
        self.register_buffer("edges", edges)
        stretch = math.exp((margin + step) / SPEED_OF_LIGHT)
        lower, upper = float(edges.min()) / stretch, float(edges.max()) * stretch
        self.register_buffer("wave", functional.velocity_grid(lower, upper, step).to(edges.device))
        self.register_buffer("resolving_power", _resolving_power(resolving_power, edges))
        self.log_scale = None if resolving_power is None else nn.Parameter(edges.new_zeros(()))

    @property
    def centers(self) -> Tensor:
        """Centres of the pixels, shape (n_pix,) [Angstrom]."""
        return self.edges.mean(dim=1)

    @property
    def sigma(self) -> Tensor | None:
        """Standard deviation of the line spread function at each pixel, shape (n_pix,) [Angstrom], or None."""
        if self.resolving_power is None:
            return None
        return self.centers / (FWHM_PER_SIGMA * self.resolving_power * torch.exp(self.log_scale))

    def response(self, pixels: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """
        Sparse matrix from the grid to the pixels.

        Parameters
        ----------
        pixels : Tensor of int64, shape (n_chosen,), optional
            Indices of the pixels that become the rows, in any order; None: all.

        Returns
        -------
        rows, cols, values : Tensor, shape (n_weights,)
            See :func:`specutils_blase.functional.pixel_response`.
        """
        chosen = slice(None) if pixels is None else pixels
        sigma = self.sigma
        if sigma is None:
            return functional.pixel_overlap(self.wave, self.edges[chosen])
        return functional.pixel_response(self.wave, self.edges[chosen], sigma[chosen])

    def forward(self, flux: Tensor, pixels: Tensor | None = None) -> Tensor:
        """
        Observe spectra.

        Parameters
        ----------
        flux : Tensor, shape (..., n_grid)
            Spectra on ``wave``.
        pixels : Tensor of int64, shape (n_chosen,), optional
            Indices of the pixels that are wanted, in any order; None: all. Only their rows of the response are built.

        Returns
        -------
        Tensor, shape (..., n_pix) or (..., n_chosen)
            Mean flux of each pixel.
        """
        n_pix = len(self.edges) if pixels is None else len(pixels)
        return functional.apply(*self.response(pixels), flux, n_pix=n_pix)

    def extra_repr(self) -> str:
        """Summary for ``repr``."""
        return f"n_pix={len(self.edges)}, n_grid={len(self.wave)}, step={self.step}"


def _resolving_power(value: Tensor | float | None, edges: Tensor) -> Tensor | None:
    """Resolving power of every pixel, shape (n_pix,), or None."""
    if value is None:
        return None
    try:
        values = torch.as_tensor(value, dtype=torch.float64, device=edges.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            "resolving_power must be a number or a Tensor, that of a Gaussian line spread function, got "
            f"{type(value).__name__}; take its numbers, and fit other profiles with fit_spectrum"
        ) from error
    if values.ndim > 1 or (values.ndim == 1 and len(values) != len(edges)):
        raise ValueError(
            f"resolving_power must be a number or have shape ({len(edges)},), one per pixel, got {tuple(values.shape)}"
        )
    if not bool((values.isfinite() & (values > 0.0)).all()):
        raise ValueError("resolving_power must be finite and positive")
    return values.expand(len(edges)).clone()
