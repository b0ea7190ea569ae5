"""Emission lines that follow from the continuum, from pixels to pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from specutils_blase import functional
from specutils_blase.functional.widths import log_width
from specutils_blase.nn.line_network import LineNetwork

__all__ = ["EmissionLines"]


class EmissionLines(nn.Module):
    """
    Continua of galaxies with the emission lines that a network predicts from them.

    Bins of the continuum, network, continuum at the lines and profiles: gradients go all the way, from flux, redshift
    and dispersion. `~specutils_blase.galaxy.EmissionLinePredictor.module` makes one of a trained network.

    Parameters
    ----------
    network : LineNetwork
        With one member. Its precision is that of the widths; ``.double()`` makes it that of the flux.
    limits : Tensor, shape (2, 13)
        Smallest and largest input that the network knows; it is held there, where gradients end.
    wave, share : sequence of float, shape (n_profiles,)
        Wavelengths in the rest frame [Angstrom], and the part of the flux of its line that each profile has.
    line : sequence of int, shape (n_profiles,)
        Which line of the network a profile belongs to.

    Examples
    --------
    >>> network = LineNetwork(13, 1)
    >>> lines = EmissionLines(network, [[-20.0] * 13, [20.0] * 13], wave=[6564.60], share=[1.0], line=[0])
    >>> edges = torch.arange(3000.0, 8000.0, 2.0, dtype=torch.float64)
    >>> edges = torch.stack([edges[:-1], edges[1:]], dim=1)
    >>> flux = torch.ones(1, len(edges), dtype=torch.float64, requires_grad=True)
    >>> z, dispersion = torch.tensor([[0.1], [150.0]], dtype=torch.float64)
    >>> with_lines = lines(flux, edges, torch.ones_like(flux, dtype=torch.bool), z, dispersion)
    >>> with_lines.shape, bool(torch.autograd.grad(with_lines.sum(), flux)[0].isfinite().all())
    (torch.Size([1, 2499]), True)
    """

    def __init__(self, network: LineNetwork, limits: Tensor | Sequence, *, wave: Sequence[float],
                 share: Sequence[float], line: Sequence[int]) -> None:  # fmt: skip
        super().__init__()
        self.network = network
        self.register_buffer("limits", torch.as_tensor(limits, dtype=torch.float64))
        self.register_buffer("wave", torch.as_tensor(wave, dtype=torch.float64))
        self.register_buffer("share", torch.as_tensor(share, dtype=torch.float64))
        self.register_buffer("line", torch.as_tensor(line))

    def forward(self, flux: Tensor, edges: Tensor, good: Tensor, redshift: Tensor, dispersion: Tensor) -> Tensor:
        """
        The flux with the lines at their median widths.

        Parameters
        ----------
        flux : Tensor, shape (n, n_pix)
            Flux densities per wavelength of the observer [1e-17 erg / (s cm2 Angstrom)].
        edges : Tensor, shape (n_pix, 2)
            Lower and upper edges of the pixels, increasing [Angstrom].
        good : Tensor of bool, shape (n, n_pix)
            Which pixels can be used.
        redshift : Tensor, shape (n,)
        dispersion : Tensor, shape (n,)
            Standard deviation of the velocities of the gas, with the instrument's [km/s].

        Returns
        -------
        Tensor, shape (n, n_pix)
        """
        widths = self.widths(flux, edges, good, redshift)
        return flux + self.lines(edges, redshift, dispersion, self.line_flux(flux, edges, good, redshift, widths))

    def widths(self, flux: Tensor, edges: Tensor, good: Tensor, redshift: Tensor) -> Tensor:
        """
        Median equivalent widths in the rest frame [Angstrom], shape (n, n_lines); arguments as for ``forward``.

        NaN for galaxies that do not cover all bins.
        """
        continuum = functional.top_hat_means(flux, edges, good, redshift)
        covered = (continuum.detach() > 0).all(1, keepdim=True)
        inputs = functional.predictor_inputs(torch.where(covered, continuum, 1.0), redshift)
        inputs = torch.maximum(torch.minimum(inputs, self.limits[1]), self.limits[0])
        parameters = self.network(inputs.to(self.network.center))[0]
        return torch.where(covered, torch.exp(log_width(parameters, 0.0)).to(flux), torch.nan)

    def line_flux(self, flux: Tensor, edges: Tensor, good: Tensor, redshift: Tensor, width: Tensor) -> Tensor:
        """
        Fluxes of the profiles of lines of given equivalent widths, shape (n, n_profiles); arrays are taken as well.

        The widths have the shape (n, n_lines) [Angstrom], the rest is as for ``forward``. What is not known, or not in
        the spectrum, or on a continuum that is not positive, is NaN.
        """
        flux, edges, good, redshift, width = (torch.as_tensor(v) for v in (flux, edges, good, redshift, width))
        level = torch.stack([functional.line_levels(*of_one, self.wave)
                             for of_one in zip(flux, edges.expand(len(flux), -1, -1), good, redshift, strict=True)])
        width = width[:, self.line]
        known = (level.detach() > 0) & torch.isfinite(level.detach()) & torch.isfinite(width.detach())
        # What is not known is not computed with: zero times NaN would be NaN in the gradients.
        level, width = (torch.where(known, values, 0.0) for values in (level, width))
        return torch.where(known, level * width * self.share * (1.0 + redshift[:, None]), torch.nan)

    def lines(self, edges: Tensor, redshift: Tensor, dispersion: Tensor, line_flux: Tensor) -> Tensor:
        """Mean flux densities of the profiles over each pixel, shape (n, n_pix); arrays are taken as well."""
        edges, redshift, dispersion = (torch.as_tensor(values) for values in (edges, redshift, dispersion))
        return torch.stack([functional.emission(edges, *of_one, self.wave)
                            for of_one in zip(redshift, dispersion, line_flux, strict=True)])  # fmt: skip
