"""Modules that own parameters and buffers and call :mod:`specutils_blase.functional` for the mathematics."""

from specutils_blase.nn.emission import EmissionLines
from specutils_blase.nn.forest import LineForest
from specutils_blase.nn.instrument import Instrument
from specutils_blase.nn.line_network import LineNetwork
from specutils_blase.nn.model import ForwardModel

__all__ = ["EmissionLines", "ForwardModel", "Instrument", "LineForest", "LineNetwork"]
