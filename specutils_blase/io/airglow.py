"""Lists of the emission lines of the night sky, as pipelines of echelle spectrographs have them."""

import numpy as np
from astropy import units as u
from astropy.table import QTable

from specutils_blase.errors import explain
from specutils_blase.io.native_text import check_not_empty, check_positive, read_lines, read_numbers

__all__ = ["read_airglow"]


def read_airglow(path):
    r"""
    Read a list of airglow lines.

    Parameters
    ----------
    path : str or path-like
        Two columns, wavelength [Angstrom] and intensity, as ``ohlines.dat`` of the IGRINS pipeline; or a table with
        ``|`` between its columns and with ``wave`` and ``amplitude`` in its header, as the lists of PypeIt.
        Wavelengths are in vacuum.

    Returns
    -------
    QTable
        ``line_center`` and ``intensity`` (relative), by increasing wavelength.  Lines without intensity are left out.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from specutils_blase.io import read_airglow
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "ohlines.dat"
    ...     size = path.write_text("15432.156 0.8\n15332.402 0.7\n")
    ...     lines = read_airglow(path)
    >>> print(lines)
    line_center intensity
      Angstrom
    ----------- ---------
      15332.402       0.7
      15432.156       0.8
    """
    path, texts = read_lines(path)
    numbered = [(k, text) for k, text in enumerate(texts, start=1) if text.strip() and not text.startswith("#")]
    check_not_empty(path, numbered, "with lines of airglow")
    if "|" in numbered[0][1]:
        names = _cells(numbered[0][1])
        if not {"wave", "amplitude"} <= set(names):
            raise ValueError(explain(str(path), "have the columns wave and amplitude", names, "name a list of PypeIt"))
        wanted, rows = [names.index("wave"), names.index("amplitude")], [(k, _cells(text)) for k, text in numbered[1:]]
    else:
        wanted, rows = [0, 1], [(k, text.split()) for k, text in numbered]
    check_not_empty(path, rows, "with lines of airglow")
    for k, cells in rows:
        if len(cells) <= max(wanted):
            raise ValueError(explain(f"{path}, line {k}", "have a wavelength and an intensity", f"{len(cells)} numbers",
                                     "correct or remove the line"))  # fmt: skip
    where = [k for k, _ in rows]
    wave, intensity = (read_numbers(path, where, [cells[column] for _, cells in rows], name)
                       for column, name in zip(wanted, ("wavelength", "intensity"), strict=True))  # fmt: skip
    check_positive(path, where, wave, "wavelength")
    order = np.argsort(wave, kind="stable")
    order = order[intensity[order] > 0]
    meta = {"source": path.name, "wavelength_medium": "vacuum"}
    return QTable({"line_center": wave[order] * u.AA, "intensity": intensity[order]}, meta=meta)


def _cells(text):
    return [cell.strip() for cell in text.strip().strip("|").split("|")]
