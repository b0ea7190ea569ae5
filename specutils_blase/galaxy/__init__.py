"""Galaxies: their spectra in the rest frame. Redshifts are those of the wavelengths as they are in the spectrum."""

from .autoencoder import Latents, RedshiftFit, SpectrumAutoencoder, train_autoencoder
from .continuum import top_hat_continuum
from .emission import add_emission_lines
from .line_predictor import EmissionLinePredictor, train_line_predictor
from .pictures import plot_embedding, plot_predictions, plot_reconstructions
from .simulation import SimulatedGalaxies, simulate_galaxies

__all__ = [
    "EmissionLinePredictor",
    "Latents",
    "RedshiftFit",
    "SimulatedGalaxies",
    "SpectrumAutoencoder",
    "add_emission_lines",
    "plot_embedding",
    "plot_predictions",
    "plot_reconstructions",
    "simulate_galaxies",
    "top_hat_continuum",
    "train_autoencoder",
    "train_line_predictor",
]
