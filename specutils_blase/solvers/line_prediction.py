"""Quantiles of true widths for many galaxies: the compiled twin of `LineNetwork` and of `functional.widths`."""

import numpy as np

from specutils_blase.functional.compiled import kernels, shared
from specutils_blase.nn.line_network import KNOTS, REACH, LineNetwork

__all__ = ["quantiles"]


def quantiles(network: LineNetwork, inputs: np.ndarray, z: tuple[float, ...]) -> np.ndarray:
    """
    True widths at standard normal numbers: the exponential of `functional.widths.log_width`, in single precision.

    Parameters
    ----------
    network : LineNetwork
        With one member.
    inputs : ndarray, shape (n, n_inputs)
    z : tuple of float

    Returns
    -------
    ndarray of float32, shape (n, n_lines, n_z)
        In memory, a column is in one piece. As far as single precision reaches, some 1e-38 to 1e38.

    Raises
    ------
    ValueError
        If there are more or fewer inputs than the network takes.
    """
    array = {name: values.numpy(force=True) for name, values in network.state_dict().items()}
    layers = [_single(array[f"{kind}.{k}"][0]) for k in range(4) for kind in ("weights", "biases")]
    free = sorted(set(network.says))
    center, spread = array["strength"][:, free]
    step = KNOTS[1] - KNOTS[0]
    levels = np.stack([center + KNOTS[0] * spread, 1.0 / (step * spread), np.log(array["scale"][free])], axis=1)
    factor = np.ones(len(network.says))
    for line, _, ratio in network.ties:
        factor[line] = 1.0 / ratio
    places = np.asarray(network.places, dtype=np.int64)
    if np.shape(inputs)[1:] != array["center"].shape:
        raise ValueError(f"inputs must have the shape (n, {len(array['center'])}), got {np.shape(inputs)}")
    inputs, out = _single(inputs), np.empty((len(z), len(factor), len(inputs)), dtype=np.float32)
    given = (inputs, _single([array["center"], array["spread"]]), *layers, _single(levels),
             _single(array["correction"][free]), _single(0.5 * np.arcsinh(z)), places, _single(factor))
    shared(len(inputs), lambda first, last: kernels.line_widths(*given, first, last, REACH, out))
    return out.transpose(2, 1, 0)


def _single(values):
    """As the kernel reads numbers."""
    return np.ascontiguousarray(values, dtype=np.float32)
