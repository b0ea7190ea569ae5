"""Galaxies: their spectra in the rest frame. Redshifts are those of the wavelengths as they are in the spectrum."""

from .continuum import top_hat_continuum

__all__ = ["top_hat_continuum"]
