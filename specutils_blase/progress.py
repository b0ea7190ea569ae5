"""One line of progress for long work."""

import sys

from specutils_blase.conf import conf
from specutils_blase.errors import explain

__all__ = ["reporter"]


def reporter(progress):
    """
    A function that shows a short text, or does nothing.

    Parameters
    ----------
    progress : bool, callable or None
        A callable gets every text itself.  True and False switch the line on stderr; None does what
        ``specutils_blase.conf.progress`` says: by default on in a terminal or a notebook, off elsewhere.

    Returns
    -------
    callable
        Takes the text; an empty text ends the line.
    """
    if callable(progress):
        return progress
    if progress not in (True, False, None):
        raise TypeError(explain("progress", "be True, False, None or a callable", repr(progress), "None is usual"))
    if progress is None:
        interactive = sys.stderr.isatty() or "ipykernel" in sys.modules
        progress = conf.progress == "on" or (conf.progress == "auto" and interactive)
    return _show if progress else _ignore


def _show(text):
    sys.stderr.write(f"\r{text:<79}" if text else "\n")
    sys.stderr.flush()


def _ignore(text):
    pass
