"""Equivalent widths with their transitions, for programs that derive abundances: MOOG and Korg."""

import warnings

import numpy as np
from astropy import units as u

from specutils_blase.adapters import misread_wavelengths
from specutils_blase.errors import BlaseWarning, explain
from specutils_blase.flags import AT_BOUND, BLENDED, OUTSIDE_WINDOW, PRIOR_DOMINATED
from specutils_blase.io.species import ion_stage, moog_code
from specutils_blase.io.whole import written_whole

__all__ = ["write_korg", "write_moog"]

# Of a blend of transitions, one that has less than this share of the expected strength has not made the width alone.
ALONE = 0.9
NEEDED = ("laboratory_wavelength", "species", "excitation_potential", "log_gf", "equivalent_width")
FLAGS = ((AT_BOUND, "with a parameter at its limit"), (BLENDED, "in a blend"),
         (PRIOR_DOMINATED, "dominated by the prior"), (OUTSIDE_WINDOW, "without data"))  # fmt: skip
KORG_HEADER = """\
                                           Damping parameters    Lande
Elm Ion      WL_vac(A)  Excit(eV) log gf*  Rad.   Stark  Waals   factor  References
"""
KORG_FOOTER = "* oscillator strengths were scaled by whatever the native list scaled them by\n"


def write_moog(lines, path, *, overwrite=False):
    """
    Write a line list with equivalent widths for the driver ``abfind`` of MOOG.

    After a title, seven columns of ten characters (format 7e10.3 of MOOG): wavelength [Angstrom; in air, above
    2000 Angstrom], species, excitation potential [eV], log gf, van der Waals damping, dissociation energy [eV] and
    equivalent width [milli-Angstrom], by species and wavelength as ``abfind`` wants them.  Values that are not known
    are blank.  `read_moog` reads it back.

    Lines are left out, counted and announced in a warning that are unmatched, have no positive equivalent width, have
    any of the ``flags``, share their transition with another line, have less than 90 % of the ``share`` of a blend of
    transitions, have a species without code (molecules of three atoms and more), or are of a molecule without
    dissociation energy.

    Parameters
    ----------
    lines : QTable
        From `specutils_blase.match_lines`, with ``equivalent_width``, ``excitation_potential`` and ``log_gf``.
    path : str or path-like
        The file is whole or not there.
    overwrite : bool
        Whether an existing file is replaced.

    Raises
    ------
    ValueError
        If the table lacks a column, or no line is left.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from astropy import units as u
    >>> from astropy.table import QTable
    >>> from specutils_blase import match_lines
    >>> from specutils_blase.io import write_moog
    >>> native = QTable({"line_center": [6303.242, 6304.236] * u.AA, "species": ["Fe I", "Fe I"],
    ...                  "log_gf": [-0.718, -0.973], "excitation_potential": [3.6537, 3.6864] * u.eV})
    >>> measured = QTable({"line_center": [6303.240, 6304.235] * u.AA, "line_center_err": [3, 3] * u.mAA,
    ...                    "equivalent_width": [127.1, 96.3] * u.mAA})
    >>> matched = match_lines(measured, native)
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "iron.moog"
    ...     write_moog(matched, path)
    ...     print(path.read_text())
    2 lines by specutils_blase, wavelengths in air
     6301.4992      26.0    3.6537    -0.718                       127.100
     6302.4930      26.0    3.6864    -0.973                        96.300
    <BLANKLINE>
    """
    code = [moog_code(*pair) for pair in zip(_texts(lines, "species"), _texts(lines, "isotopologue"), strict=True)]
    energy = _numbers(lines, "dissociation_energy", u.eV)
    is_molecule = np.array([ion_stage(name) is None for name in _texts(lines, "species")], dtype=bool)
    refused = {"of a species without code": np.array([c is None for c in code], dtype=bool),
               "of a molecule without dissociation energy": is_molecule & ~np.isfinite(energy)}  # fmt: skip
    row = _usable(lines, "MOOG", refused)
    damping = np.full(len(lines), np.nan)
    for name in ("unsold_factor", "log_c6", "log_gamma_vdw"):
        known = _numbers(lines, name)
        damping = np.where(np.isfinite(known), known, damping)
    wave = misread_wavelengths(_numbers(lines, "laboratory_wavelength", u.AA), "vacuum")  # where they are in air
    excitation, log_gf = _numbers(lines, "excitation_potential", u.eV), _numbers(lines, "log_gf")
    width = _numbers(lines, "equivalent_width", u.mAA)
    row = sorted(row, key=lambda k: (float(code[k]), wave[k]))
    with written_whole(path, overwrite) as part, open(part, "w", encoding="ascii") as stream:
        stream.write(f"{len(row)} lines by specutils_blase, wavelengths in air\n")
        for k in row:
            stream.write(f"{wave[k]:10.4f}{code[k]:>10}{excitation[k]:10.4f}{log_gf[k]:10.3f}")
            stream.writelines(f"{x:10.3f}" if np.isfinite(x) else " " * 10 for x in (damping[k], energy[k]))
            stream.write(f"{width[k]:10.3f}\n")


def write_korg(lines, path, *, overwrite=False):
    """
    Write a line list with equivalent widths for ``Korg.Fit.ews_to_abundances``.

    The file is a list as from VALD ("extract all", short format, in vacuum, by wavelength), which is what
    ``Korg.read_linelist(path)`` expects, and the equivalent widths in milli-Angstrom are where VALD has references,
    as ``EW=52.100``.  In Julia::

        linelist = Korg.read_linelist(path)
        EWs = [parse(Float64, m[1]) for m in eachmatch(r"EW=([0-9.]+)", read(path, String))]
        A = Korg.Fit.ews_to_abundances(atmosphere, linelist, A_X, EWs)

    Korg changes nothing in log gf then.  `read_vald` reads the file back, without the widths.

    Left out are lines as in `write_moog`, and what Korg does not take: molecules, hydrogen, and ions that are charged
    more than twice.

    Parameters
    ----------
    lines : QTable
        From `specutils_blase.match_lines`, with ``equivalent_width``, ``excitation_potential`` and ``log_gf``.
    path : str or path-like
        The file is whole or not there.
    overwrite : bool
        Whether an existing file is replaced.

    Raises
    ------
    ValueError
        If the table lacks a column, or no line is left.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from astropy import units as u
    >>> from astropy.table import QTable
    >>> from specutils_blase import match_lines
    >>> from specutils_blase.io import write_korg
    >>> native = QTable({"line_center": [6303.242, 6304.236] * u.AA, "species": ["Fe I", "Fe I"],
    ...                  "log_gf": [-0.718, -0.973], "excitation_potential": [3.6537, 3.6864] * u.eV})
    >>> measured = QTable({"line_center": [6303.240, 6304.235] * u.AA, "line_center_err": [3, 3] * u.mAA,
    ...                    "equivalent_width": [127.1, 96.3] * u.mAA})
    >>> matched = match_lines(measured, native)
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "iron.lin"
    ...     write_korg(matched, path)
    ...     print(path.read_text())
                                               Damping parameters    Lande
    Elm Ion      WL_vac(A)  Excit(eV) log gf*  Rad.   Stark  Waals   factor  References
    'Fe 1',     6303.24200,   3.6537,  -0.718,  0.000,  0.000,  0.000, 99.000,'EW=127.100'
    'Fe 1',     6304.23600,   3.6864,  -0.973,  0.000,  0.000,  0.000, 99.000,'EW=96.300'
    * oscillator strengths were scaled by whatever the native list scaled them by
    <BLANKLINE>
    """
    ion = [ion_stage(name) for name in _texts(lines, "species")]
    refused = np.array([pair is None or pair[0] == "H" or pair[1] > 3 for pair in ion], dtype=bool)
    row = _usable(lines, "Korg", {"of species that it does not take": refused})
    wave, width = _numbers(lines, "laboratory_wavelength", u.AA), _numbers(lines, "equivalent_width", u.mAA)
    excitation, log_gf = _numbers(lines, "excitation_potential", u.eV), _numbers(lines, "log_gf")
    damping = {name: _numbers(lines, name) for name in ("log_gamma_rad", "log_gamma_stark", "log_gamma_vdw")}
    packed = _numbers(lines, "abo_sigma") + _numbers(lines, "abo_alpha")
    damping["log_gamma_vdw"] = np.where(np.isfinite(packed), packed, damping["log_gamma_vdw"])
    with written_whole(path, overwrite) as part, open(part, "w", encoding="ascii") as stream:
        stream.write(KORG_HEADER)
        for k in row[np.argsort(wave[row], kind="stable")]:
            name = f"'{ion[k][0]} {ion[k][1]}',"
            broadening = "".join(f"{np.nan_to_num(values[k]):7.3f}," for values in damping.values())
            stream.write(f"{name:9}{wave[k]:13.5f},{excitation[k]:9.4f},{log_gf[k]:8.3f},{broadening} 99.000,"
                         f"'EW={width[k]:.3f}'\n")  # fmt: skip
        stream.write(KORG_FOOTER)


def _usable(lines, program, refused):
    """Rows of the lines that made a width alone; announces how many others there are and why."""
    matched = np.isfinite(_numbers(lines, "laboratory_wavelength", u.AA))
    known = np.isfinite(_numbers(lines, "log_gf")) & np.isfinite(_numbers(lines, "excitation_potential", u.eV))
    width = _numbers(lines, "equivalent_width", u.mAA)
    reasons = {"unmatched": ~matched, "without log gf or excitation potential": ~known}
    reasons["without a positive equivalent width"] = ~(width > 0)
    if "flags" in lines.colnames:
        reasons |= {text: (np.asarray(lines["flags"]) & bit) > 0 for bit, text in FLAGS}
    if "native_row" in lines.colnames:
        transition = np.ma.filled(np.ma.asarray(lines["native_row"]), -1)
        _, group, count = np.unique(transition, return_inverse=True, return_counts=True)
        reasons["that share a transition with another line"] = count[group] > 1
    if "share" in lines.colnames:
        reasons["in a blend of transitions"] = _numbers(lines, "share") < ALONE
    left, parts = np.ones(len(lines), dtype=bool), []
    for text, wrong in (reasons | refused).items():
        if count := np.count_nonzero(left & wrong):
            parts.append(f"{count} {text}")
        left &= ~wrong
    if not left.any():
        raise ValueError(explain("lines", f"have lines that {program} can use", ", ".join(parts) or "an empty table",
                                 "match another list, or unset flags that you know better"))  # fmt: skip
    if parts:
        text = f"{np.count_nonzero(~left)} of {len(lines)} lines are not in the list for {program}: {', '.join(parts)}"
        warnings.warn(text, BlaseWarning, stacklevel=3)
    return np.flatnonzero(left)


def _numbers(lines, name, unit=None):
    """Numbers of a column in a unit, NaN where they are masked or there is no such column."""
    if name not in lines.colnames:
        if name in NEEDED:
            raise ValueError(explain("lines", f"have a column {name}", lines.colnames,
                                     "give what match_lines returns for lines with equivalent_width"))  # fmt: skip
        return np.full(len(lines), np.nan)
    column = lines[name]
    values = getattr(column, "unmasked", column)
    values = np.asarray(getattr(values, "value", values), dtype=np.float64)
    if unit is not None:
        if getattr(column, "unit", None) is None:
            raise u.UnitsError(explain(f'lines["{name}"]', "have a unit", "none", f"multiply it by {unit}"))
        values = (values * column.unit).to_value(unit)
    return np.where(getattr(column, "mask", False), np.nan, values)


def _texts(lines, name):
    """Texts of a column, empty where they are masked or there is no such column."""
    if name not in lines.colnames:
        _numbers(lines, name)
        return [""] * len(lines)
    column = np.ma.asarray(lines[name])
    return [str(text) for text in np.ma.filled(column.astype(str), "")]
