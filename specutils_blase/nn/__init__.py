"""Modules that own parameters and buffers and call :mod:`specutils_blase.functional` for the mathematics."""

from specutils_blase.nn.forest import LineForest
from specutils_blase.nn.instrument import Instrument
from specutils_blase.nn.model import ForwardModel

__all__ = ["ForwardModel", "Instrument", "LineForest"]
