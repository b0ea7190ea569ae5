"""What asdf loads through the entry points of this package."""

from importlib.resources import files

from asdf.extension import ManifestExtension
from asdf.resource import DirectoryResourceMapping

__all__ = ["get_extensions", "get_resource_mappings"]

BASE_URI = "asdf://specutils-blase.readthedocs.io"
# Newest first: asdf writes with the first extension that knows a type.
MANIFESTS = ("specutils_blase-1.0.0",)


def get_resource_mappings():
    """
    Where asdf finds the schemas and manifests.

    Returns
    -------
    list of asdf.resource.DirectoryResourceMapping
    """
    root = files(__package__)
    return [DirectoryResourceMapping(root / name, f"{BASE_URI}/{name}/") for name in ("schemas", "manifests")]


def get_extensions():
    """
    The extensions, one for each manifest, newest first.

    Returns
    -------
    list of asdf.extension.ManifestExtension
    """
    from .converters import LineTemplateConverter, SpectrumFitConverter, VoigtForest1DConverter
    from .networks import EmissionLinePredictorConverter, SpectrumAutoencoderConverter

    converters = [VoigtForest1DConverter(), LineTemplateConverter(), SpectrumFitConverter(),
                  EmissionLinePredictorConverter(), SpectrumAutoencoderConverter()]  # fmt: skip
    return [ManifestExtension.from_uri(f"{BASE_URI}/manifests/{name}", converters=converters) for name in MANIFESTS]
