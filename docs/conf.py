"""Sphinx configuration: the shared astropy settings plus what is ours.

With ``SPHINX_OFFLINE=1`` the inventories of other projects are not fetched, and
references to them are not checked, so that ``sphinx-build -W`` also works without
a network.
"""

import os
from importlib.metadata import metadata

from sphinx_astropy.conf.v3 import *

project = "specutils_blase"
author = "the specutils_blase developers"
copyright = f"2026, {author}"
version = release = metadata("specutils-blase")["Version"]

if os.environ.get("SPHINX_OFFLINE"):
    intersphinx_mapping = {}
    nitpick_ignore_regex = [
        (r"py:.*", r"(asdf|astropy|collections|gwcs|matplotlib|numpy|scipy|specutils|torch)(\..*)?"),
    ]
else:
    intersphinx_mapping["specutils"] = ("https://specutils.readthedocs.io/en/stable/", None)
    intersphinx_mapping["asdf"] = ("https://asdf.readthedocs.io/en/stable/", None)
    intersphinx_mapping["torch"] = ("https://docs.pytorch.org/docs/stable/", None)

exclude_patterns.append("_build")
html_title = f"specutils_blase {release}"
html_static_path = []
# Every reference must lead somewhere; names of arguments stand in double backticks.
nitpicky = True
# Members are listed in source order: the order in which a reader needs them.
automodapi_inheritance_diagram = False
automodsumm_inherited_members = False
