"""Galaxies: their spectra in the rest frame. Redshifts are those of the wavelengths as they are in the spectrum."""

from .continuum import top_hat_continuum
from .emission import add_emission_lines
from .line_predictor import EmissionLinePredictor, train_line_predictor
from .pictures import plot_embedding, plot_predictions

__all__ = ["EmissionLinePredictor", "add_emission_lines", "plot_embedding", "plot_predictions", "top_hat_continuum",
           "train_line_predictor"]  # fmt: skip
