"""From a star to the pixels of a spectrograph."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from specutils_blase import functional
from specutils_blase.nn.instrument import Instrument

__all__ = ["ForwardModel"]


class ForwardModel(nn.Module):
    """
    The observed spectrum: velocity, rotation, a stage of your own, tellurics, instrument, continuum, in physical order.

    Parameters
    ----------
    star : nn.Module or None
        Anything with ``forward(wave_rest) -> flux`` on increasing rest-frame wavelengths of shape (n_grid,), such as
        :class:`LineForest`. None: no star, a flux of one.
    instrument : Instrument
        Defines the grid on which everything is evaluated, and the pixels.
    telluric : nn.Module, sequence of nn.Module or None
        Transmissions in the frame of the observatory, one for each species; each gets a column scale: T**scale.
    radial_velocity : float
        Starting value [km/s], positive when receding.
    vsini : float or None
        Starting value [km/s], positive. None: no rotation.
    limb_darkening : float
        Linear coefficient, fixed.
    continuum : sequence of float
        Starting values of the Legendre coefficients over the range of the pixels.
    between : nn.Module or None
        A stage of your own between the rotated star and all that follows it: ``forward(wave, flux) -> flux`` on
        ``instrument.wave`` [Angstrom] in the frame of the observatory, shape (n_grid,), before the tellurics and the
        line spread function. Veiling by a disc is one. What belongs to the frame of the star, or rotates with it,
        belongs into ``star``.

    Attributes
    ----------
    radial_velocity : nn.Parameter, shape ()
        [km/s].
    log_vsini : nn.Parameter, shape ()
        Natural logarithm of vsini [km/s]; None without rotation.
    telluric_log_scale : nn.Parameter, shape (n_telluric,)
        Natural logarithms of the column scales, 0 at first; None without tellurics.
    continuum : nn.Parameter, shape (degree + 1,)

    Notes
    -----
    The star is *evaluated* at rest wavelengths, nothing is shifted. On a grid uniform in ln(wavelength) a Doppler shift
    commutes with the rotation kernel, so rotation may follow it.

    Examples
    --------
    >>> from specutils_blase.nn import LineForest
    >>> centers = torch.arange(5000.0, 5002.0, 0.05, dtype=torch.float64)
    >>> instrument = Instrument(functional.pixel_edges(centers), resolving_power=50_000.0)
    >>> star = LineForest(center=[5000.9], strength=[0.1], sigma=[0.05], gamma=[0.01])
    >>> model = ForwardModel(star, instrument, radial_velocity=6.0, vsini=2.0)
    >>> print(f"{centers[model().argmin()]:.2f}")
    5001.00
    """

    def __init__(
        self,
        star: nn.Module | None,
        instrument: Instrument,
        *,
        telluric: nn.Module | Sequence[nn.Module] | None = None,
        radial_velocity: float = 0.0,
        vsini: float | None = None,
        limb_darkening: float = 0.6,
        continuum: Sequence[float] = (1.0,),
        between: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if vsini is not None and not 0.0 < vsini < math.inf:
            raise ValueError(f"vsini must be positive, got {vsini} km/s; None means no rotation")
        tellurics = [telluric] if isinstance(telluric, nn.Module) else list(telluric or ())
        scalar = instrument.wave.new_tensor
        self.star = star
        self.between = between
        self.instrument = instrument
        self.telluric = nn.ModuleList(tellurics)
        self.radial_velocity = nn.Parameter(scalar(float(radial_velocity)))
        self.log_vsini = None if vsini is None else nn.Parameter(scalar(math.log(vsini)))
        self.telluric_log_scale = nn.Parameter(scalar([0.0] * len(tellurics))) if tellurics else None
        self.continuum = nn.Parameter(scalar([float(c) for c in continuum]))
        self.register_buffer("limb_darkening", scalar(float(limb_darkening)))

    def forward(self, pixels: Tensor | None = None) -> Tensor:
        """
        Model of the observation.

        Parameters
        ----------
        pixels : Tensor of int64, shape (n_chosen,), optional
            Indices of the pixels that are wanted, in any order; None: all. Star and tellurics are evaluated on the
            whole grid in any case, the instrument for these pixels alone.

        Returns
        -------
        Tensor, shape (n_pix,) or (n_chosen,)
            Mean flux of each pixel, in units of the continuum coefficients.
        """
        flux = self.rotated_star()
        if self.between is not None:
            flux = self.between(self.instrument.wave, flux)
        level = self.continuum_level()
        return self.instrument(flux * self.transmission(), pixels) * (level if pixels is None else level[pixels])

    def rotated_star(self) -> Tensor:
        """
        Shifted and rotationally broadened star.

        Returns
        -------
        Tensor, shape (n_grid,)
            On ``instrument.wave``.
        """
        wave = self.instrument.wave
        if self.star is None:
            return torch.ones_like(wave)
        flux = self.star(functional.rest_wavelength(wave, self.radial_velocity))
        if self.log_vsini is None:
            return flux
        step, vsini = self.instrument.step, torch.exp(self.log_vsini)
        half_size = functional.kernel_half_size(float(vsini.detach()), step)
        return functional.rotational_broadening(
            flux, functional.rotation_kernel(vsini, self.limb_darkening, step, half_size)
        )

    def transmission(self) -> Tensor:
        """
        Product of the telluric transmissions, each to the power of its column scale.

        Returns
        -------
        Tensor, shape (n_grid,)
            On ``instrument.wave``.
        """
        wave = self.instrument.wave
        product = torch.ones_like(wave)
        for k, telluric in enumerate(self.telluric):
            # A saturated pixel may be exactly zero, where the derivative of the power is not a number.
            base = telluric(wave).clamp(min=torch.finfo(wave.dtype).tiny)
            product = product * base ** torch.exp(self.telluric_log_scale[k])
        return product

    def continuum_level(self) -> Tensor:
        """
        Legendre polynomial over the range of the pixels.

        Returns
        -------
        Tensor, shape (n_pix,)
            At the centres of the pixels.
        """
        edges = self.instrument.edges
        coordinate = functional.scaled_coordinate(self.instrument.centers, float(edges.min()), float(edges.max()))
        return functional.legendre(coordinate, len(self.continuum) - 1) @ self.continuum
