"""Line spread functions as ASDF nodes."""

from dataclasses import fields

import numpy as np

from .nodes import array_node, own_array

__all__ = ["lsf_from_node", "lsf_node"]

KINDS = ("ResolvingPower", "GaussianLSF", "MeasuredLSF", "BandedLSF")
# Samples of a resolving power that is given as a function, between the first and the last pixel that it was used for.
SAMPLES = 1025


def lsf_node(lsf, orders, ctx):
    """
    The LSF of a fit, or those of its orders.

    Parameters
    ----------
    lsf : LSF object or list of them
    orders : QTable
        `SpectrumFit.orders`. A function R(wavelength) is sampled where they lie; that of an order without a row there,
        which was not fitted, is None.
    ctx : asdf.extension.SerializationContext

    Returns
    -------
    dict, or list of dict or None
    """
    if isinstance(lsf, list):
        return [_node(one, orders[orders["order"] == k], ctx) for k, one in enumerate(lsf)]
    return _node(lsf, orders, ctx)


def lsf_from_node(node):
    """
    What `lsf_node` was made of.

    Parameters
    ----------
    node : dict, list or None

    Returns
    -------
    LSF object, list of LSF object or None, or None
    """
    from specutils_blase import instrument

    if node is None:
        return None
    if not hasattr(node, "keys"):
        return [lsf_from_node(one) for one in node]
    values = {name: own_array(value) for name, value in node.items() if name != "kind"}
    if hasattr(values.get("R"), "keys"):
        values["R"] = instrument.TabulatedPower(**{name: own_array(value) for name, value in values["R"].items()})
    return getattr(instrument, node["kind"])(**values)


def _node(lsf, orders, ctx):
    from astropy import units as u

    values = {field.name: getattr(lsf, field.name) for field in fields(lsf)}
    if callable(values.get("R")):
        if len(orders) == 0:
            return None
        bounds = orders["wavelength_min"].to_value(u.AA).min(), orders["wavelength_max"].to_value(u.AA).max()
        wave = np.linspace(*bounds, SAMPLES)
        values["R"] = {"wavelength": array_node(wave, ctx), "power": array_node(lsf.resolving_power(wave), ctx)}
    return {"kind": type(lsf).__name__, **{name: _value(value, ctx) for name, value in values.items()}}


def _value(value, ctx):
    return array_node(value, ctx) if isinstance(value, np.ndarray) else value
