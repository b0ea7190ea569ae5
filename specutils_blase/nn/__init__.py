"""Modules that own parameters and buffers and call :mod:`specutils_blase.functional` for the mathematics."""

from specutils_blase.nn.emission import EmissionLines
from specutils_blase.nn.forest import LineForest
from specutils_blase.nn.instrument import Instrument
from specutils_blase.nn.latent_space import LatentSpace
from specutils_blase.nn.line_network import LineNetwork
from specutils_blase.nn.model import ForwardModel
from specutils_blase.nn.observation import Observation

__all__ = ["EmissionLines", "ForwardModel", "Instrument", "LatentSpace", "LineForest", "LineNetwork", "Observation"]
