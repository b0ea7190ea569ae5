"""Tags of this package: names and versions."""

__all__ = ["TAG_BASE", "VERSIONS", "tags_of"]

TAG_BASE = "asdf://specutils-blase.readthedocs.io/tags/"
# Versions of each tag that this package reads; it writes the last one.
VERSIONS = {
    "voigt_forest_1d": ("1.0.0",),
    "line_template": ("1.0.0",),
    "spectrum_fit": ("1.0.0",),
    "emission_line_predictor": ("1.0.0",),
    "spectrum_autoencoder": ("1.0.0",),
}


def tags_of(name):
    """
    The tags of one kind of object, of all versions.

    Parameters
    ----------
    name : str

    Returns
    -------
    list of str
    """
    return [f"{TAG_BASE}{name}-{version}" for version in VERSIONS[name]]
