"""Files: what this package writes and reads. The readers of line lists are imported on first use."""

import importlib

_HOME = {
    "read_vald": "line_lists",
    "read_moog": "line_lists",
    "read_hitran": "line_lists",
    "relative_strength": "line_lists",
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
