"""Galaxies: their spectra in the rest frame. Redshifts are those of the wavelengths as they are in the spectrum."""

from .autoencoder import Latents, RedshiftFit, SpectrumAutoencoder, train_autoencoder
from .continuum import top_hat_continuum
from .line_predictor import EmissionLinePredictor, train_line_predictor
from .simulation import SimulatedGalaxies, simulate_galaxies

__all__ = [
    "EmissionLinePredictor",
    "Latents",
    "RedshiftFit",
    "SimulatedGalaxies",
    "SpectrumAutoencoder",
    "simulate_galaxies",
    "top_hat_continuum",
    "train_autoencoder",
    "train_line_predictor",
]
