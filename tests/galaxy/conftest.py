"""What tests of galaxies share."""

import pytest
import torch

from specutils_blase.galaxy import EmissionLinePredictor
from specutils_blase.galaxy.line_predictor import LINES, PAIRS
from specutils_blase.nn import LineNetwork


@pytest.fixture(scope="session")
def predictor():
    """Untrained, in no time: widths that depend on colours and redshift, of 1 to 30 Angstrom."""
    names = list(LINES)
    ties = [(names.index(weak), names.index(strong), ratio) for weak, strong, ratio in PAIRS]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = LineNetwork(13, len(names), ties=ties, width=16)
    with torch.no_grad():
        network.weights[-1] *= 10.0
        network.scale.copy_(torch.linspace(3.0, 20.0, len(names)))
    network.center[11], network.spread[11] = 6.0, 1.0
    return EmissionLinePredictor(network, [[-2.0] * 11 + [-9.0, 0.0], [2.0] * 11 + [12.0, 1.0]], {"n_galaxies": 0})
