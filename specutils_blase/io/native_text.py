"""Text files in formats of others: their lines, and numbers in them with errors that name the line."""


import numpy as np
from astropy.utils.data import get_readable_fileobj

from specutils_blase.errors import explain
from specutils_blase.io.whole import as_path

__all__ = ["check_not_empty", "check_positive", "float_or_nan", "read_lines", "read_numbers", "shown"]

# How files begin that are not such texts, and what to do with them.
OTHER_FILES = {
    b"SIMPLE  =": ("a FITS file", "read it with astropy.table.QTable.read"),
    b"# %ECSV": ("an ECSV table", "read it with astropy.table.QTable.read"),
    b"#ASDF": ("an ASDF file", "read it with LineTemplate.read or SpectrumFit.read"),
    b"<?xml": ("an XML file", "if it is a VOTable, read it with astropy.table.QTable.read"),
}


def read_lines(path):
    """
    The lines of a text file.

    Parameters
    ----------
    path : str or path-like
        The file, which may be compressed.

    Returns
    -------
    path : Path
    lines : list of str
        Without empty ones at the end.
    """
    path = as_path(path)
    if path.is_dir():
        raise IsADirectoryError(explain("path", "name a file", f"the directory {path}", "add the name of a line list"))
    if not path.is_file():
        raise FileNotFoundError(explain("path", "name a file", f"{path}, which does not exist", "check the name"))
    try:
        with get_readable_fileobj(str(path), encoding="binary") as stream:
            content = stream.read()
    except EOFError as error:
        got = "a compressed file that ends too early"
        raise ValueError(explain(str(path), "be whole", got, "fetch it again")) from error
    for begin, (kind, remedy) in OTHER_FILES.items():
        if content.startswith(begin):
            raise ValueError(explain(str(path), "be a line list in its native text format", kind, remedy))
    if b"\0" in content:
        remedy = "check that it is the file you meant"
        raise ValueError(explain(str(path), "be a text file", "binary data", remedy))
    # VALD quotes names of authors in whatever encoding they came; nothing else is beyond ASCII
    text = content.decode("utf-8-sig", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    check_not_empty(path, text.strip(), "with lines in it")
    return path, text.rstrip("\n").split("\n")


def read_numbers(path, where, texts, name, *, blank=None, remedy="correct or remove the line"):
    """
    The numbers in some texts, all of which have to be finite.

    Parameters
    ----------
    path : path-like
        The file, for messages.
    where : sequence of int
        Number of the line that each text is from.
    texts : sequence of str
    name : str
        What the numbers are, for messages.
    blank : float, optional
        What a blank text stands for; by default it is an error.
    remedy : str
        What helps if a text is no number.

    Returns
    -------
    ndarray of float64
    """
    is_blank = np.array([blank is not None and not text.strip() for text in texts], dtype=bool)
    filled = ["0" if skip else text for skip, text in zip(is_blank, texts, strict=True)]
    try:
        values = np.array(filled).astype(np.float64)
    except ValueError:
        values = np.array([float_or_nan(text) for text in filled])
    bad = ~np.isfinite(values)
    if bad.any():
        k = int(np.argmax(bad))
        got = repr(texts[k].strip())
        raise ValueError(explain(f"{path}, line {where[k]}", f"have a number as {name}", got, remedy))
    values[is_blank] = np.nan if blank is None else blank
    return values


def float_or_nan(text):
    """The number in a text, NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return np.nan


def check_positive(path, where, values, name):
    """Raise unless all values, read from the lines numbered ``where``, are positive."""
    if not (values > 0).all():
        k = int(np.argmin(values > 0))
        remedy = "correct or remove the line"
        raise ValueError(explain(f"{path}, line {where[k]}", f"have a positive {name}", f"{values[k]:g}", remedy))


def check_not_empty(path, content, expected):
    """Raise if there is no content, where a file ``expected`` was wanted."""
    if not content:
        raise ValueError(explain(str(path), f"be a file {expected}", "none", "check how it was made"))


def shown(text):
    """A text in quotes for a message, cut where it is long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
