"""Covariances between the lines of a line table, for users."""

import numpy as np
from astropy import units as u
from astropy.table import QTable, Row, Table

from specutils_blase.errors import explain
from specutils_blase.lines import QUANTITIES, quantity
from specutils_blase.solvers.covariance import StoredCovariance
from specutils_blase.solvers.lines import Lines

__all__ = ["TableCovariance"]

LENGTHS = ("center", "strength", "sigma", "gamma")
# Columns besides the centre by which rows are known.
KEYS = ("component", "list_row", "strength")


class TableCovariance:
    """
    Covariances between any lines of a fit or a template.

    Parameters
    ----------
    covariance : StoredCovariance
    lines : Lines
    form : {"opacity", "product"}, or ndarray of str, shape (n_lines,)
    rows : ndarray of int, shape (n_rows,)
        The line that every row of the user's table shows.
    """

    def __init__(self, covariance, lines, form, rows):
        self.covariance, self.lines, self.form, self.rows = covariance, lines, form, rows

    def arrays(self):
        """All of it as arrays by name, for files."""
        lines = dict(zip(LENGTHS, self.lines, strict=True))
        product = np.broadcast_to(np.asarray(self.form) == "product", len(self.lines))
        return {**self.covariance.arrays(), **lines, "product": np.array(product), "rows": self.rows}

    @classmethod
    def from_arrays(cls, *, rows, product, **arrays):
        """What `arrays` were made of."""
        lines = Lines(*(arrays.pop(name) for name in LENGTHS))
        return cls(StoredCovariance.from_arrays(**arrays), lines, np.where(product, "product", "opacity"), rows)

    def __call__(self, table, lines, name):
        """
        The covariance matrix of one column of some lines.

        Parameters
        ----------
        table : QTable
            All lines.
        lines : int, array of int or bool, slice, or QTable
            Which rows; a table holds rows of `table`.
        name : str
            A column with errors.

        Returns
        -------
        Quantity, shape (k, k)
        """
        if name not in QUANTITIES:
            raise ValueError(explain("quantity", f"be one of {QUANTITIES}", repr(name), "choose one of them"))
        index = self.rows[_row_numbers(table, lines)]
        _, gradient = quantity(self.lines, name, self.form)
        unit = u.one if name == "depth" else u.AA
        return self.covariance.between(gradient, index) * unit**2


def _row_numbers(table, lines):
    """Numbers of the rows of `table` that `lines` names."""
    if isinstance(lines, Row):
        lines = lines.table[lines.index : lines.index + 1]
    if isinstance(lines, Table):
        return _found_rows(table, QTable(lines))
    try:
        index = np.atleast_1d(np.arange(len(table))[lines])
    except IndexError as error:
        raise IndexError(explain("lines", f"be numbers of rows, a mask or a slice for {len(table)} lines", repr(lines),
                                 "see the rows of the table of lines")) from error  # fmt: skip
    if index.ndim != 1 or index.size == 0:
        raise ValueError(explain("lines", "name at least one line, in one dimension", repr(lines), "give row numbers"))
    return index


def _found_rows(table, lines):
    missing = {"line_center", "component"} - set(lines.colnames)
    if missing:
        raise ValueError(explain("lines", "be rows of the table of lines", f"a table without {sorted(missing)}",
                                 "select rows of it, or give row numbers"))  # fmt: skip
    names = [name for name in KEYS if name in lines.colnames and name in table.colnames]
    place = {key: row for row, key in enumerate(_keys(table, names))}
    wanted = _keys(lines, names)
    strange = [key for key in wanted if key not in place]
    if strange:
        raise ValueError(explain("lines", "be rows of the table of lines", f"one at {strange[0][0]:.4f} Angstrom that "
                                 "it does not have", "select rows of it, or give row numbers"))  # fmt: skip
    return np.array([place[key] for key in wanted], dtype=np.int64)


def _keys(table, names):
    """What tells the rows apart: lines of a list may lie at one wavelength."""
    columns = [table["line_center"].to_value(u.AA), *(np.asarray(table[name]) for name in names)]
    return list(zip(*(column.tolist() for column in columns), strict=True))
