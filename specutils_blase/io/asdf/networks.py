"""Networks, and what predicts with them, as ASDF nodes: what the constructor takes, and the arrays by name."""

import numpy as np
from asdf.extension import Converter

from .nodes import array_node, meta_from_node, meta_node, own_array
from .tags import tags_of

__all__ = ["EmissionLinePredictorConverter", "SpectrumAutoencoderConverter", "network_from_node", "network_node"]


def network_node(network, ctx):
    """
    A network as plain arrays.

    Parameters
    ----------
    network : torch.nn.Module
        With ``config``, the arguments of its class.
    ctx : asdf.extension.SerializationContext

    Returns
    -------
    dict
        ``config`` and ``arrays``, parameters and buffers by their names.
    """
    arrays = {name: array_node(value.detach().cpu().numpy(), ctx) for name, value in network.state_dict().items()}
    return {"config": network.config, "arrays": arrays}


def network_from_node(node, kind):
    """
    A network from what `network_node` made.

    Parameters
    ----------
    node : dict
    kind : type
        Class of the network.

    Returns
    -------
    torch.nn.Module
        In ``eval`` mode.

    Raises
    ------
    ValueError
        If arrays are missing, of other shapes than the configuration says, or hold numbers that are not finite.
    """
    import torch

    from specutils_blase.errors import explain

    arrays = {name: np.asarray(own_array(values)) for name, values in node["arrays"].items()}
    remedy = "the file was edited, or is of a network of another configuration"
    with torch.random.fork_rng(devices=[]):  # first weights are random, and not kept
        network = kind(**_plain(node["config"]))
    state = network.state_dict()
    if arrays.keys() != state.keys():
        name = min(arrays.keys() ^ state.keys())
        raise ValueError(explain("network", "have the arrays of its configuration",
                                 f"{'none' if name in state else 'one'} named {name!r}", remedy))  # fmt: skip
    for name, values in arrays.items():
        if values.shape != tuple(state[name].shape):
            raise ValueError(explain(name, f"have the shape {tuple(state[name].shape)}", values.shape, remedy))
        if not np.isfinite(values).all():
            raise ValueError(explain(name, "be finite", "NaN or infinity", "the file was edited; fetch another copy"))
    network.load_state_dict({name: torch.from_numpy(values) for name, values in arrays.items()})
    return network.eval()


def _plain(config):
    """Mappings and lists of asdf as those of Python."""
    if hasattr(config, "items"):
        return {name: _plain(value) for name, value in config.items()}
    return config if isinstance(config, str) or not hasattr(config, "__iter__") else [_plain(v) for v in config]


class EmissionLinePredictorConverter(Converter):
    """The predictor: its lines, its network, the limits of what went into the training, and how that went."""

    tags = tags_of("emission_line_predictor")
    types = ["specutils_blase.galaxy.line_predictor.EmissionLinePredictor"]

    def to_yaml_tree(self, obj, tag, ctx):
        from specutils_blase import __version__

        return {
            "package_version": __version__,
            "lines": list(obj.lines),
            "limits": array_node(obj.limits, ctx),
            "network": network_node(obj.network, ctx),
            "fit_info": meta_node(obj.fit_info),
        }

    def from_yaml_tree(self, node, tag, ctx):
        from specutils_blase.errors import explain
        from specutils_blase.galaxy.line_predictor import LINES, EmissionLinePredictor
        from specutils_blase.nn.line_network import LineNetwork

        if list(node["lines"]) != list(LINES):
            raise ValueError(explain("lines", f"be {', '.join(LINES)}", ", ".join(map(str, node["lines"])),
                                     "use the version of specutils_blase that wrote the file"))  # fmt: skip
        network = network_from_node(node["network"], LineNetwork)
        return EmissionLinePredictor(network, own_array(node["limits"]), meta_from_node(node["fit_info"]))


class SpectrumAutoencoderConverter(Converter):
    """The autoencoder: components and networks, the density of the latents, and how the training went."""

    tags = tags_of("spectrum_autoencoder")
    types = ["specutils_blase.galaxy.autoencoder.SpectrumAutoencoder"]

    def to_yaml_tree(self, obj, tag, ctx):
        from specutils_blase import __version__

        return {
            "package_version": __version__,
            "space": network_node(obj.space, ctx),
            "density": network_node(obj.density, ctx),
            "fit_info": meta_node(obj.fit_info),
        }

    def from_yaml_tree(self, node, tag, ctx):
        from specutils_blase.errors import explain
        from specutils_blase.galaxy.autoencoder import SpectrumAutoencoder
        from specutils_blase.galaxy.density import LatentDensity
        from specutils_blase.nn.latent_space import LatentSpace

        space = network_from_node(node["space"], LatentSpace)
        density = network_from_node(node["density"], LatentDensity)
        if density.config["n_latents"] != space.config["n_latents"]:
            wanted, got = (network.config["n_latents"] for network in (space, density))
            remedy = "the file was edited; fetch another copy"
            raise ValueError(explain("density", f"have {wanted} latents, like the space", got, remedy))
        return SpectrumAutoencoder(space, density, meta_from_node(node["fit_info"]))
