"""Galaxies: their spectra in the rest frame. Redshifts are those of the wavelengths as they are in the spectrum.

What is here is imported on first use: the networks need torch.
"""

import importlib

_HOME = {
    "EmissionLinePredictor": "line_predictor",
    "Latents": "autoencoder",
    "RedshiftFit": "autoencoder",
    "SimulatedGalaxies": "simulation",
    "SpectrumAutoencoder": "autoencoder",
    "add_emission_lines": "emission",
    "plot_embedding": "pictures",
    "plot_predictions": "pictures",
    "plot_reconstructions": "pictures",
    "simulate_galaxies": "simulation",
    "top_hat_continuum": "continuum",
    "train_autoencoder": "training",
    "train_line_predictor": "line_predictor",
}

__all__ = list(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
