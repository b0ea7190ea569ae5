"""
Spectra as ASDF nodes.

Not the converter of specutils, which leaves out metadata, bin edges, velocities and the unit of the uncertainty.
"""

import numpy as np

from .nodes import array_node, check_unit, meta_from_node, own_array, shared_meta

__all__ = ["spectra_from_node", "spectra_node", "spectrum_from_node", "spectrum_node"]

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
    node |= _optional_nodes(spectrum, ctx)
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
    return Spectrum(
        flux=own_array(node["flux"]),
        spectral_axis=axis,
        spectral_axis_index=node["spectral_axis_index"],
        meta=meta_from_node(node["meta"]),
        **_optional(node),
    )


def spectra_node(spectra, ctx):
    """
    One spectrum, or the orders of an echelle in what they came in.

    Parameters
    ----------
    spectra : Spectrum, SpectrumCollection or SpectrumList
    ctx : asdf.extension.SerializationContext

    Returns
    -------
    dict
    """
    from specutils import Spectrum, SpectrumCollection

    if isinstance(spectra, Spectrum):
        return spectrum_node(spectra, ctx)
    if not isinstance(spectra, SpectrumCollection):
        return {"kind": "list", "orders": [spectrum_node(spectrum, ctx) for spectrum in spectra]}
    node = {"kind": "collection", "flux": array_node(spectra.flux, ctx),
            "spectral_axis": array_node(spectra.spectral_axis, ctx),
            "meta": shared_meta(dict(spectra.meta or {}), ctx)}  # fmt: skip
    return node | _optional_nodes(spectra, ctx)


def spectra_from_node(node):
    """
    What `spectra_node` was made of.

    Parameters
    ----------
    node : dict

    Returns
    -------
    Spectrum, SpectrumCollection or SpectrumList
    """
    from specutils import SpectrumCollection, SpectrumList

    if "kind" not in node:
        return spectrum_from_node(node)
    if node["kind"] == "list":
        return SpectrumList([spectrum_from_node(order) for order in node["orders"]])
    return SpectrumCollection(flux=own_array(node["flux"]), spectral_axis=own_array(node["spectral_axis"]),
                              meta=meta_from_node(node["meta"]), **_optional(node))  # fmt: skip


def _optional(node):
    """Mask and uncertainty as keyword arguments, where there are any."""
    from astropy import nddata

    optional = {}
    if "mask" in node:
        optional["mask"] = own_array(node["mask"])
    if "uncertainty" in node:
        uncertainty = node["uncertainty"]
        kind = getattr(nddata, _UNCERTAINTIES[uncertainty["type"]])
        optional["uncertainty"] = kind(own_array(uncertainty["array"]), unit=uncertainty.get("unit"))
    return optional


def _optional_nodes(spectra, ctx):
    """Mask and uncertainty as nodes, where there are any."""
    node = {}
    if spectra.mask is not None:
        node["mask"] = array_node(np.asarray(spectra.mask), ctx)
    kind = getattr(spectra.uncertainty, "uncertainty_type", None)
    if kind in _UNCERTAINTIES:
        node["uncertainty"] = {"type": kind, "array": array_node(spectra.uncertainty.array, ctx)}
        if spectra.uncertainty.unit is not None:
            check_unit(spectra.uncertainty.unit)
            node["uncertainty"]["unit"] = spectra.uncertainty.unit
    return node
