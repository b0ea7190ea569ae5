"""
A spectrum as a ledger of spectral lines: clone a synthetic spectrum into Voigt profiles, fit the clone to real data.

Public names are imported on first use, so that importing the package loads neither torch nor specutils nor astropy.
"""

import importlib
import sys
import types

_HOME = {
    "find_lines": "lines",
    "clone_spectrum": "cloning",
    "fit_spectrum": "fitting",
    "find_new_lines": "new_lines",
    "injection_recovery": "recovery",
    "fit_airglow": "airglow",
    "subtract_sky": "airglow",
    "match_lines": "matching",
    "LineTemplate": "template",
    "SpectrumFit": "fitting",
    "AirglowFit": "airglow",
    "VoigtForest1D": "modeling",
    "SparseLineFitter": "modeling",
    "ExactOverlapResampler": "resampler",
    "GaussianPrior": "priors",
    "L1Prior": "priors",
    "ResolvingPower": "instrument",
    "GaussianLSF": "instrument",
    "MeasuredLSF": "instrument",
    "BandedLSF": "instrument",
    "CoverageError": "errors",
    "BlaseWarning": "errors",
}

__all__ = ["__version__", "conf", *_HOME]


def __getattr__(name):
    if name == "__version__":
        value = _installed_version()
    elif name in _HOME:
        value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})


def _installed_version():
    from importlib import metadata

    try:
        return metadata.version("specutils-blase")
    except metadata.PackageNotFoundError:
        # A source tree on the path that was never installed has no version of its own.
        return "0+unknown"


class _Package(types.ModuleType):
    """Keeps ``specutils_blase.conf`` the settings, although importing the submodule of that name would replace it."""

    @property
    def conf(self):
        return importlib.import_module(".conf", __name__).conf

    @conf.setter
    def conf(self, value):
        if not isinstance(value, types.ModuleType):
            raise AttributeError("conf cannot be replaced; set its items instead, e.g. specutils_blase.conf.device")


sys.modules[__name__].__class__ = _Package
