"""
Spectra as ASDF nodes.

Not the converter of specutils, which leaves out metadata, bin edges, velocities and the unit of the uncertainty.
"""

import numpy as np

from .nodes import array_node, check_unit, meta_from_node, own_array, shared_meta

__all__ = ["spectrum_from_node", "spectrum_node"]

_UNCERTAINTIES = {
    "std": "StdDevUncertainty",
    "var": "VarianceUncertainty",
    "ivar": "InverseVariance",
    "unknown": "UnknownUncertainty",
}


def spectrum_node(spectrum, ctx):
    """
    A spectrum with its uncertainty and unit, mask, bin edges, rest value, velocity and metadata.

    Parameters
    ----------
    spectrum : Spectrum
    ctx : asdf.extension.SerializationContext

    Returns
    -------
    dict
    """
    from astropy import units as u

    axis = spectrum.spectral_axis
    node = {
        "flux": array_node(spectrum.flux, ctx),
        "spectral_axis": array_node(u.Quantity(axis), ctx),
        "spectral_axis_index": int(spectrum.spectral_axis_index),
        "meta": shared_meta(spectrum.meta, ctx),
    }
    # The public bin_edges makes up midpoints where none were given.
    if (edges := getattr(axis, "_bin_edges", None)) is not None:
        node["bin_edges"] = array_node(u.Quantity(edges, axis.unit), ctx)
    if spectrum.mask is not None:
        node["mask"] = array_node(np.asarray(spectrum.mask), ctx)
    kind = getattr(spectrum.uncertainty, "uncertainty_type", None)
    if kind in _UNCERTAINTIES:
        node["uncertainty"] = {"type": kind, "array": array_node(spectrum.uncertainty.array, ctx)}
        if spectrum.uncertainty.unit is not None:
            check_unit(spectrum.uncertainty.unit)
            node["uncertainty"]["unit"] = spectrum.uncertainty.unit
    if axis.doppler_rest is not None:
        node["rest_value"] = u.Quantity(axis.doppler_rest)
    if axis.doppler_convention is not None:
        node["velocity_convention"] = axis.doppler_convention
    if axis.radial_velocity.value != 0:
        node["radial_velocity"] = u.Quantity(axis.radial_velocity)
    return node


def spectrum_from_node(node):
    """
    A spectrum from what `spectrum_node` made.

    Parameters
    ----------
    node : dict

    Returns
    -------
    Spectrum
    """
    from astropy import nddata
    from specutils import SpectralAxis, Spectrum

    axis = SpectralAxis(
        own_array(node["spectral_axis"]),
        doppler_rest=node.get("rest_value"),
        doppler_convention=node.get("velocity_convention"),
        radial_velocity=node.get("radial_velocity"),
    )
    if "bin_edges" in node:
        # Built from edges alone the axis would compute its centres anew, in another order of rounding.
        axis._bin_edges = own_array(node["bin_edges"])
    optional = {}
    if "mask" in node:
        optional["mask"] = own_array(node["mask"])
    if "uncertainty" in node:
        uncertainty = node["uncertainty"]
        kind = getattr(nddata, _UNCERTAINTIES[uncertainty["type"]])
        optional["uncertainty"] = kind(own_array(uncertainty["array"]), unit=uncertainty.get("unit"))
    return Spectrum(
        flux=own_array(node["flux"]),
        spectral_axis=axis,
        spectral_axis_index=node["spectral_axis_index"],
        meta=meta_from_node(node["meta"]),
        **optional,
    )
