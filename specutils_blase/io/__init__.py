"""Files: what this package writes and reads. The readers are imported on first use.

Those of spectrographs are formats of ``SpectrumList.read`` once a reader here or a verb of the package has been used,
or this module imported after specutils.
"""

import importlib
import sys

_HOME = {
    "read_vald": "line_lists",
    "read_moog": "line_lists",
    "read_hitran": "line_lists",
    "relative_strength": "line_lists",
    "write_korg": "abundances",
    "write_moog": "abundances",
    "read_airglow": "airglow",
    "read_hpf": "echelle",
    "read_igrins": "echelle",
    "read_blase_state": "blase_state",
    "blase_spectrum": "blase_state",
}

__all__ = list(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})


if "specutils" in sys.modules:  # asdf imports this package too, and need not import specutils for it
    importlib.import_module(".echelle", __name__)
