"""Lines that the user gives to a clone: where they start, which of their parameters move, what they share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from astropy import units as u
from astropy.table import Table

from specutils_blase.adapters import wavelength_values
from specutils_blase.errors import explain
from specutils_blase.functional.constants import FWHM_PER_SIGMA
from specutils_blase.lines import DEEPEST, GAUSSIAN_SHARE, LORENTZIAN_SHARE, pick
from specutils_blase.solvers.lines import CENTER, GAMMA, SIGMA, STRENGTH, Lines, peak_profile
from specutils_blase.solvers.ties import Ties

__all__ = ["GivenLines", "column_lengths", "free_rows", "given_lines", "line_centers"]

# Line parameters by the names that users give them.
ROWS = {"strength": (STRENGTH,), "fwhm": (SIGMA, GAMMA), "x_0": (CENTER,)}
COLUMNS = ("strength", "fwhm_gauss", "fwhm_lorentz")
# Full width in pixels where the spectrum has no peak to show one.
FEW_PIXELS = 5.0
# Lines outside the spectrum are left out if they are further away than so many full widths.
MARGIN = 2.0
# Optical depth from which a line that is not seen starts.
UNSEEN = 1e-3
# Flux over continuum from which a line of unknown strength is one of emission.
EMISSION = 1.05
# Lines of a tie, the strongest, from which its factor on strengths starts.
STRONGEST = 10


@dataclass(frozen=True)
class GivenLines:
    """
    Lines by increasing centre and what is known about them.

    Attributes
    ----------
    lines : Lines
    row : ndarray of int, shape (n_lines,)
        In the user's table.
    free : tuple of int
        Parameters that each line has for itself, among STRENGTH, SIGMA, GAMMA, CENTER.
    ties : Ties or None
    names : tuple of (str, str)
        Name of the parameter and of the group of lines for every tie.
    n_outside : int
        Lines of the table outside the spectrum.
    begin : ndarray, shape (n_ties,)
        What the ties have done to `lines` already.
    species : ndarray of str, shape (n_lines,), or None
    """

    lines: Lines
    row: np.ndarray
    free: tuple
    ties: Ties | None
    names: tuple
    n_outside: int
    begin: np.ndarray
    species: np.ndarray | None = None

    def take(self, index):
        """The same for the lines at `index`."""
        ties = None if self.ties is None else Ties(self.ties.member[index])
        species = None if self.species is None else self.species[index]
        return replace(self, lines=self.lines.take(index), row=self.row[index], ties=ties, species=species)

    def describe(self, table):
        """Add the columns that lead back to the user's table."""
        table["list_row"] = self.row
        table["list_row"].info.description = "row of the list of lines that was given"
        if self.species is not None:
            table["species"] = self.species

    def tied_table(self, values, std):
        """Every tie as [factor or velocity in km/s, standard deviation], by parameter and group."""
        out = {}
        for (name, label), value, error in zip(self.names, self.begin + values, std, strict=True):
            shown = (value, error) if name == "x_0" else (np.exp(value), np.exp(value) * error)
            out.setdefault(name, {})[label] = [float(number) for number in shown]
        return out


def free_rows(free):
    """Rows of the solver's parameters for names among "strength", "fwhm" and "x_0"."""
    names = (free,) if isinstance(free, str) or not isinstance(free, Iterable) else tuple(free)
    if not set(names) <= set(ROWS):
        raise ValueError(explain("free", f"hold names among {tuple(ROWS)}", names,
                                 'write e.g. ("strength",), or () for none'))  # fmt: skip
    return tuple(row for key, rows in ROWS.items() if key in names for row in rows)


def given_lines(table, free, tied, wave, flat):
    """
    Read the user's table for a spectrum.

    Parameters
    ----------
    table : Table
        With `line_center` and any of `strength`, `fwhm_gauss`, `fwhm_lorentz`, NaN where not known.
    free : str or tuple of str
        What moves.
    tied : mapping
        What moves together: names as in `free`, and the column whose equal values make a group.
    wave : ndarray, shape (n_pix,) [Angstrom]
    flat : ndarray, shape (n_pix,)
        The spectrum over its continuum.

    Returns
    -------
    GivenLines
    """
    center = line_centers(table)
    # a line just outside is felt inside
    width = _typical_width(wave, flat)
    own = [column_lengths(table, name, np.arange(len(table))) for name in COLUMNS[1:]]
    _check_widths(center, own)
    reach = MARGIN * np.where(np.isnan(own).any(axis=0), width, np.nansum(own, axis=0))
    inside = (center >= wave[0] - reach) & (center <= wave[-1] + reach)
    if not inside.any():
        got = "none" if not center.size else f"{np.min(center):.6g} to {np.max(center):.6g} Angstrom"
        raise ValueError(explain("lines", f"have lines within {wave[0]:.6g} to {wave[-1]:.6g} Angstrom (vacuum)", got,
                                 'check the units and meta["wavelength_medium"] of the table'))  # fmt: skip
    row = np.flatnonzero(inside)
    row = row[np.argsort(center[row], kind="stable")]
    rows = free_rows(free)
    member, names = _members(table, rows, tied, row)
    seen = np.interp(center[row], wave, flat)
    start, begin = _start(table, row, center[row], seen, width, member[:, STRENGTH], len(names))
    own = tuple(p for p in rows if not (member[:, p] >= 0).any())
    species = np.asarray(table["species"])[row].astype(str) if "species" in table.colnames else None
    ties = Ties(member) if names else None
    return GivenLines(start, row, own, ties, names, int(np.count_nonzero(~inside)), begin, species)


def line_centers(table):
    """Vacuum wavelengths [Angstrom] of all lines of a Table, ordered as they are."""
    if not isinstance(table, Table) or "line_center" not in table.colnames:
        got = f"columns {table.colnames}" if isinstance(table, Table) else f"a {type(table).__name__}"
        raise TypeError(explain("lines", "be a Table with a column line_center", got,
                                "read one with a function of specutils_blase.io, or make a QTable"))  # fmt: skip
    medium = table.meta.get("wavelength_medium", "vacuum")
    if medium not in ("vacuum", "air"):
        raise ValueError(explain('lines.meta["wavelength_medium"]', 'be "vacuum" or "air"', repr(medium), "correct it"))
    center = _quantity(table, "line_center")
    if not center.unit.is_equivalent(u.AA, u.spectral()):
        raise u.UnitsError(explain('lines["line_center"]', "be wavelengths, frequencies, energies or wavenumbers",
                                   f"the unit {str(center.unit)!r}", "correct the unit of the column"))  # fmt: skip
    unknown = np.flatnonzero(~np.isfinite(center))
    if unknown.size:
        got = f"{unknown.size} without, the first in row {unknown[0]}"
        raise ValueError(explain('lines["line_center"]', "be known in every row", got, "remove these rows"))
    return wavelength_values(center, 'lines["line_center"]', wavelength_medium=medium)


def _quantity(table, name):
    """A column as a Quantity without mask."""
    column = table[name]
    if getattr(column, "unit", None) is None:
        raise u.UnitsError(explain(f'lines["{name}"]', "have a unit", "none", "e.g. table[name] * u.AA"))
    values = np.ma.filled(np.ma.asarray(getattr(column, "value", column), dtype=float), np.nan)
    return values * column.unit


def column_lengths(table, name, row):
    """Values [Angstrom] of a column in these rows, NaN where not known."""
    if name not in table.colnames:
        return np.full(len(row), np.nan)
    values = _quantity(table, name)[row]
    if not values.unit.is_equivalent(u.AA):
        raise u.UnitsError(explain(f'lines["{name}"]', "be lengths", f"the unit {str(values.unit)!r}",
                                   "strengths and widths are in units of wavelength"))  # fmt: skip
    values = values.to_value(u.AA)
    wrong = ~np.isnan(values) & (~np.isfinite(values) | (values == 0 if name == "strength" else values <= 0))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        expected = "be finite and not zero" if name == "strength" else "be finite and positive"
        raise ValueError(explain(f'lines["{name}"]', expected, f"{values[first]:g} Angstrom in row {row[first]}",
                                 "drop that line, or give NaN for a value that is not known"))  # fmt: skip
    return values


def _check_widths(center, widths):
    for name, values in zip(COLUMNS[1:], widths, strict=True):
        wide = np.flatnonzero(values >= center)
        if wide.size:
            got = f"{values[wide[0]]:g} at {center[wide[0]]:g} Angstrom in row {wide[0]}"
            raise ValueError(explain(f'lines["{name}"]', "be narrower than the wavelength of the line", got,
                                     "check the unit of the column"))  # fmt: skip


def _members(table, rows, tied, row):
    """`Ties.member` (n_lines, 4) and the names of the ties."""
    if tied is not None and not isinstance(tied, Mapping):
        raise TypeError(explain("tied", "be a mapping", type(tied).__name__, 'e.g. {"strength": "species"}'))
    member, names = np.full((len(row), 4), -1), []
    for name, column in (tied or {}).items():
        if name not in ROWS:
            raise ValueError(explain("tied", f"have keys among {tuple(ROWS)}", repr(name), "correct the name"))
        if not isinstance(column, str) or column not in table.colnames:
            raise ValueError(explain(f'tied["{name}"]', f"name a column of lines, among {table.colnames}",
                                     repr(column), "a column of equal values ties all lines"))  # fmt: skip
        if not set(ROWS[name]) <= set(rows):
            raise ValueError(explain("tied", "hold names that free holds", repr(name), "add it to free"))
        if name == "strength" and np.isnan(column_lengths(table, "strength", row)).any():
            raise ValueError(explain("tied", "tie strengths that are given", 'lines without "strength"',
                                     "add the column, see specutils_blase.io.relative_strength"))  # fmt: skip
        labels, group = np.unique(np.asarray(table[column])[row], return_inverse=True)
        for parameter in ROWS[name]:
            member[:, parameter] = len(names) + group
            names += [(_NAMES[parameter], str(label)) for label in labels]
    return member, tuple(names)


_NAMES = {STRENGTH: "strength", SIGMA: "fwhm_gauss", GAMMA: "fwhm_lorentz", CENTER: "x_0"}


def _start(table, row, center, seen, width, group, n_ties):
    """The lines as they start: what the table says, else what the spectrum shows; and the start of the ties."""
    strength, gauss, lorentz = (column_lengths(table, name, row) for name in COLUMNS)
    width = width * center / np.median(center)
    sigma = np.where(np.isnan(gauss), GAUSSIAN_SHARE * width, gauss) / FWHM_PER_SIGMA
    gamma = np.where(np.isnan(lorentz), LORENTZIAN_SHARE * width, lorentz) / 2.0
    depth = -np.log(np.maximum(seen, 1.0 - DEEPEST))
    depth = np.where(seen > EMISSION, depth, np.maximum(depth, UNSEEN))
    # lines that lie together share what is seen there
    sharing = np.searchsorted(center, center + 0.5 * width) - np.searchsorted(center, center - 0.5 * width)
    depth = np.where(np.abs(depth) < UNSEEN, UNSEEN, depth) / np.maximum(sharing, 1)
    shown = depth / peak_profile(sigma, gamma)
    strength = np.where(np.isnan(strength), shown, strength)
    begin = np.zeros(n_ties)
    for tie in np.unique(group[group >= 0]):
        mine = np.flatnonzero(group == tie)
        strongest = mine[np.argsort(-np.abs(strength[mine]), kind="stable")[:STRONGEST]]
        begin[tie] = np.median(np.log(np.abs(shown[strongest] / strength[strongest])))
        strength[mine] *= np.exp(begin[tie])
    return Lines(center, strength, sigma, gamma), begin


def _typical_width(wave, flat):
    """Full width of a line [Angstrom]: the median over the peaks."""
    peaks = [pick(wave, height, 0.01)["width"] for height in (1.0 - np.minimum(flat, 1.0), np.maximum(flat, 1.0) - 1.0)]
    widths = np.concatenate(peaks)
    return np.median(widths) if widths.size else FEW_PIXELS * np.median(np.diff(wave))
