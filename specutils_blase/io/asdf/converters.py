"""
Converters between objects of this package and ASDF nodes.

asdf imports this module whenever it opens any file, so that specutils, torch and this package's own classes are
imported inside the methods only.
"""

import warnings
from functools import cached_property

import numpy as np
from asdf.extension import Converter
from asdf_astropy.converters.transform.core import TransformConverterBase

from .lsf import lsf_from_node, lsf_node
from .nodes import (
    array_node,
    meta_from_node,
    meta_node,
    own_array,
    table_from_node,
    table_node,
)
from .spectra import spectra_from_node, spectra_node
from .tags import tags_of

__all__ = ["LineTemplateConverter", "SpectrumFitConverter", "VoigtForest1DConverter"]


class VoigtForest1DConverter(TransformConverterBase):
    """The model: parameters, continuum, exact constraints, and the standard deviations of a fit."""

    tags = tags_of("voigt_forest_1d")
    types = ["specutils_blase.modeling.VoigtForest1D"]

    def to_yaml_tree_transform(self, model, tag, ctx):
        node = {"wavelength_medium": "vacuum", "form": model.form, "tolerance": model.tolerance}
        node.update({name: _parameter_node(getattr(model, name), ctx) for name in model.param_names})
        if model.continuum_domain is not None:
            node["continuum_domain"] = _domain_node(model.continuum_domain, ctx)
        if model.teff is not None:
            node["teff"] = _kelvin(model.teff)
        std = {name: getattr(model, name).std for name in model.param_names}
        if std := {name: _std_node(value, ctx) for name, value in std.items() if value is not None}:
            node["std"] = std
        if model.line_errors is not None:
            node["line_errors"] = {name: array_node(array, ctx) for name, array in vars(model.line_errors).items()}
        if model.meta:
            node["meta"] = meta_node(model.meta)
        return node

    def to_yaml_tree(self, model, tag, ctx):
        node = super().to_yaml_tree(model, tag, ctx)
        # The base class leaves out False, which the continuum needs, and bounds of (0, None).
        node["fixed"] = dict(model.fixed)
        if bounds := {name: list(pair) for name, pair in model.bounds.items() if tuple(pair) != (None, None)}:
            node["bounds"] = bounds
        if model.input_units_equivalencies is type(model).input_units_equivalencies:
            del node["input_units_equivalencies"]
        if any(model.tied.values()):
            from specutils_blase.errors import BlaseWarning

            warnings.warn("the tied constraints of a model are functions, which no file holds: set them again after "
                          "reading", BlaseWarning, stacklevel=2)  # fmt: skip
        return node

    def from_yaml_tree_transform(self, node, tag, ctx):
        from specutils_blase.forest_tables import LineErrors
        from specutils_blase.modeling import VoigtForest1D

        if node["wavelength_medium"] != "vacuum":  # asdf need not have checked the schema
            raise ValueError(f"wavelength_medium of a forest must be vacuum, got {node['wavelength_medium']!r}")
        domain = node.get("continuum_domain")
        model = VoigtForest1D(
            **{name: own_array(node[name]) for name in VoigtForest1D.param_names},
            continuum_domain=tuple(domain) if isinstance(domain, list) else own_array(domain),
            teff=node.get("teff"),
            form=node["form"],
            tolerance=node["tolerance"],
        )
        for name, std in node.get("std", {}).items():
            getattr(model, name).std = own_array(std)
        if "line_errors" in node:
            model.line_errors = LineErrors(**{name: own_array(array) for name, array in node["line_errors"].items()})
        model.meta.update(meta_from_node(node.get("meta")))
        return model


class LineTemplateConverter(Converter):
    """The template: model, line table, how the clone went, provenance."""

    tags = tags_of("line_template")
    types = ["specutils_blase.template.LineTemplate"]

    def to_yaml_tree(self, obj, tag, ctx):
        return {
            "model": obj.model,
            "lines": table_node(obj.lines, ctx),
            "fit_info": meta_node(obj.fit_info),
            "meta": meta_node(obj.meta),
            **_covariance_node(obj.line_covariance, ctx),
        }

    def from_yaml_tree(self, node, tag, ctx):
        from specutils_blase.template import LineTemplate

        return LineTemplate(
            model=node["model"],
            lines=table_from_node(node["lines"]),
            fit_info=meta_from_node(node["fit_info"]),
            meta=meta_from_node(node["meta"]),
            line_covariance=_covariance(node),
        )


class SpectrumFitConverter(Converter):
    """The fit: what was observed, what was fitted, and the parts of the model on the observed pixels."""

    tags = tags_of("spectrum_fit")
    types = ["specutils_blase.fitting.SpectrumFit"]
    spectra = ("observed", "model_spectrum", "residual")
    tables = ("parameters", "lines")

    def to_yaml_tree(self, obj, tag, ctx):
        from specutils_blase import __version__

        node = {"package_version": __version__, "fit_info": meta_node(obj.fit_info)}
        node.update({name: getattr(obj, name) for name in ("template", "telluric") if getattr(obj, name) is not None})
        node.update({name: table_node(getattr(obj, name), ctx) for name in self.tables})
        node.update({name: spectra_node(getattr(obj, name), ctx) for name in self.spectra})
        parts = {name: part for name, part in obj.components.items() if part is not None}
        node["components"] = {name: spectra_node(part, ctx) for name, part in parts.items()}
        if obj.lsf is not None:
            node["lsf"] = lsf_node(obj.lsf, obj.orders, ctx)
        return node | _covariance_node(obj.line_covariance, ctx)

    def from_yaml_tree(self, node, tag, ctx):
        from specutils_blase.fitting import SpectrumFit

        telluric = node.get("telluric")
        return SpectrumFit(
            template=node.get("template"),
            telluric=list(telluric) if isinstance(telluric, list) else telluric,
            components={name: spectra_from_node(part) for name, part in node["components"].items()},
            fit_info=meta_from_node(node["fit_info"]),
            lsf=lsf_from_node(node.get("lsf")),
            line_covariance=_covariance(node),
            **{name: spectra_from_node(node[name]) for name in self.spectra},
            **{name: table_from_node(node[name]) for name in self.tables},
        )


def _covariance_node(covariance, ctx):
    if covariance is None:
        return {}
    arrays = covariance.arrays()
    number = arrays.pop("n_common")
    return {"covariance": {"n_common": int(number), **{name: array_node(a, ctx) for name, a in arrays.items()}}}


class FiledCovariance:
    """A `TableCovariance` in a file, which is read when it is first asked for: it is most of the file."""

    def __init__(self, node):
        self._node = node

    @cached_property
    def loaded(self):
        """The `TableCovariance`."""
        from specutils_blase.covariance import TableCovariance

        try:
            arrays = {name: own_array(value) for name, value in self._node.items()}
        except OSError as error:
            raise OSError("the covariances of lines must be read while the file is open, got one that is closed; read "
                          "with LineTemplate.read or SpectrumFit.read, or keep it open") from error  # fmt: skip
        return TableCovariance.from_arrays(**arrays)

    def __reduce__(self):  # copies are of what is in the file
        return _itself, (self.loaded,)

    def arrays(self):
        """See `TableCovariance`."""
        return self.loaded.arrays()

    def __call__(self, table, lines, name):
        return self.loaded(table, lines, name)


def _itself(value):
    return value


def _covariance(node):
    return FiledCovariance(node["covariance"]) if "covariance" in node else None


def _parameter_node(parameter, ctx):
    """Quantity, array or number; a flat list of continuum coefficients, although the model keeps them in a column."""
    from astropy import units as u

    # Parameter.value turns an array of one element into a number.
    values = parameter.value if parameter.shape == () else array_node(np.ravel(parameter.value), ctx)
    if parameter.unit is None:
        return float(values) if parameter.shape == () else values
    return array_node(u.Quantity(values, parameter.unit, copy=None), ctx)


def _std_node(std, ctx):
    from astropy import units as u

    return array_node(std, ctx) if np.ndim(std) or isinstance(std, u.Quantity) else float(std)


def _domain_node(domain, ctx):
    from astropy import units as u

    return array_node(domain, ctx) if isinstance(domain, u.Quantity) else [float(bound) for bound in domain]


def _kelvin(teff):
    from astropy import units as u

    return u.Quantity(teff, u.K)
