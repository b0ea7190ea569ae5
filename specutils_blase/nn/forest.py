"""A forest of spectral lines as a module."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from specutils_blase import functional

__all__ = ["LineForest"]

FORMS = ("opacity", "product")


class LineForest(nn.Module):
    """
    Transmission of many Voigt lines, with their strengths, widths and centres as parameters.

    The windows follow the parameters and the wavelengths at every call, so no line is ever lost to a velocity shift.

    Parameters
    ----------
    center : Tensor or sequence, shape (n_lines,)
        Line centres, rest frame [Angstrom].
    strength : Tensor or sequence, shape (n_lines,)
        Integrated optical depth [Angstrom]: positive for absorption, negative for emission, never zero. The sign stays.
    sigma : Tensor or sequence, shape (n_lines,)
        Standard deviation (not FWHM) of the Gaussian [Angstrom], positive.
    gamma : Tensor or sequence, shape (n_lines,)
        Half width at half maximum (not FWHM) of the Lorentzian [Angstrom], positive.
    form : {"opacity", "product"}
        ``exp(-sum a V)`` or ``prod(1 - a V)``: :func:`~specutils_blase.functional.transmission` or
        :func:`~specutils_blase.functional.product_transmission`.
    tolerance : float
        Optical depth below which a line is left out of a pixel.

    Attributes
    ----------
    center, log_strength, log_sigma, log_gamma : nn.Parameter, shape (n_lines,)
        float64; logarithms are natural.
    sign : buffer, shape (n_lines,)
        1 for absorption, -1 for emission.

    Examples
    --------
    >>> forest = LineForest(center=[5000.0], strength=[0.2], sigma=[0.1], gamma=[0.02])
    >>> forest(torch.tensor([4999.0, 5000.0], dtype=torch.float64)).detach()
    tensor([0.9987, 0.5041], dtype=torch.float64)
    """

    def __init__(
        self,
        center: Tensor | Sequence[float],
        strength: Tensor | Sequence[float],
        sigma: Tensor | Sequence[float],
        gamma: Tensor | Sequence[float],
        *,
        form: str = "opacity",
        tolerance: float = 1e-6,
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"form must be one of {FORMS}, got {form!r}")
        if not tolerance > 0.0:
            raise ValueError(f"tolerance must be a positive optical depth, got {tolerance}")
        center, strength, sigma, gamma = _columns(center=center, strength=strength, sigma=sigma, gamma=gamma)
        self.form = form
        self.tolerance = tolerance
        self.center = nn.Parameter(center.clone())
        self.log_strength = nn.Parameter(strength.abs().log())
        self.log_sigma = nn.Parameter(sigma.log())
        self.log_gamma = nn.Parameter(gamma.log())
        self.register_buffer("sign", strength.sign())

    def forward(self, wave_rest: Tensor) -> Tensor:
        """
        Transmission at rest-frame wavelengths.

        Parameters
        ----------
        wave_rest : Tensor, shape (n_pix,)
            Increasing wavelengths in the frame of the lines [Angstrom].

        Returns
        -------
        Tensor, shape (n_pix,)
            1 where there is no line.
        """
        if self.form == "opacity":
            return functional.transmission(self.optical_depth(wave_rest))
        return functional.product_transmission(wave_rest, **self._lines(wave_rest))

    def optical_depth(self, wave_rest: Tensor) -> Tensor:
        """
        Summed optical depth of the lines, whichever the form.

        Parameters
        ----------
        wave_rest : Tensor, shape (n_pix,)
            Increasing wavelengths in the frame of the lines [Angstrom].

        Returns
        -------
        Tensor, shape (n_pix,)
        """
        return functional.optical_depth(wave_rest, **self._lines(wave_rest))

    def extra_repr(self) -> str:
        """Summary for ``repr``."""
        return f"n_lines={len(self.center)}, form={self.form!r}, tolerance={self.tolerance}"

    def _lines(self, wave: Tensor) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
        widths = (values.detach().exp() for values in (self.log_strength, self.log_sigma, self.log_gamma))
        reach = functional.half_width(*widths, self.tolerance)
        return {
            "center": self.center,
            "log_strength": self.log_strength,
            "log_sigma": self.log_sigma,
            "log_gamma": self.log_gamma,
            "sign": self.sign,
            "pairs": functional.line_pixel_pairs(wave.detach(), self.center.detach(), reach),
        }


def _columns(**columns: Tensor | Sequence[float]) -> list[Tensor]:
    """float64 tensors of one shape (n_lines,), checked by name."""
    tensors = {name: torch.as_tensor(values, dtype=torch.float64) for name, values in columns.items()}
    shapes = {name: tuple(values.shape) for name, values in tensors.items()}
    if len(set(shapes.values())) != 1 or tensors["center"].ndim != 1:
        raise ValueError(f"center, strength, sigma and gamma must share one shape (n_lines,), got {shapes}")
    for name, values in tensors.items():
        allowed = values != 0.0 if name == "strength" else values > 0.0
        if not bool((allowed & values.isfinite()).all()):
            kind = "nonzero" if name == "strength" else "positive"
            raise ValueError(f"{name} must be finite and {kind} for every line [Angstrom]")
    return list(tensors.values())
