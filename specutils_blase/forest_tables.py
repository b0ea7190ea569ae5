"""A `VoigtForest1D` as a table of lines, and a table of lines as a forest."""

from dataclasses import dataclass, fields

import numpy as np
from astropy import units as u

from specutils_blase.adapters import wavelength_values
from specutils_blase.errors import explain
from specutils_blase.functional.constants import FWHM_PER_SIGMA
from specutils_blase.line_input import column_lengths, line_centers
from specutils_blase.lines import line_table
from specutils_blase.solvers.lines import Lines

__all__ = ["LineErrors", "forest_columns", "forest_lines", "forest_table"]

# Parameters of the model and columns of a table.
COLUMNS = {"x_0": "line_center", "strength": "strength", "fwhm_G": "fwhm_gauss", "fwhm_L": "fwhm_lorentz"}


@dataclass(frozen=True)
class LineErrors:
    """What a fit knows of the lines of a forest besides their standard deviations; ordered as they are.

    Lengths are in the unit of the centres.
    """

    covariance: np.ndarray  # (n_lines, 4, 4) of (ln |strength|, ln sigma, ln gamma, centre)
    flags: np.ndarray  # (n_lines,)
    blend: np.ndarray  # (n_lines,), -1: in none
    blend_width: np.ndarray  # (n_lines,), equivalent width of the whole blend
    blend_error: np.ndarray

    def take(self, index):
        """Those of some lines."""
        return LineErrors(*(getattr(self, field.name)[index] for field in fields(self)))


def forest_lines(model):
    """The lines of a model in its own order, `Lines` [Angstrom]; numbers without units are Angstrom."""
    center, strength, fwhm_G, fwhm_L = (
        np.array(p.value if p.unit is None else p.quantity.to_value(u.AA), dtype=float).ravel()
        for p in (model.x_0, model.strength, model.fwhm_G, model.fwhm_L))  # fmt: skip
    return Lines(center, strength, fwhm_G / FWHM_PER_SIGMA, fwhm_L / 2.0)


def forest_columns(table):
    """
    What makes a forest of a table of lines.

    Parameters
    ----------
    table : Table
        See `VoigtForest1D.from_line_list`.

    Returns
    -------
    values, errors : dict
        Quantities and arrays, shape (n_lines,) [Angstrom], by the names of the model's parameters; errors where known.
    form : str
    """
    values, errors = {"x_0": line_centers(table) * u.AA}, {}
    if not len(table):
        raise ValueError(explain("lines", "hold lines", "an empty table", "find them with a lower prominence"))
    rows = np.arange(len(table))
    for name, column in COLUMNS.items():
        if name != "x_0":
            lengths = column_lengths(table, column, rows)
            if np.isnan(lengths).any():
                got = f"{np.isnan(lengths).sum()} of {len(table)} without a value"
                raise ValueError(explain(f'lines["{column}"]', "be known for every line", got,
                                         "clone_spectrum(spectrum, lines=lines) starts what is not known"))
            values[name] = lengths * u.AA
        if f"{column}_err" in table.colnames:
            errors[name] = u.Quantity(np.ma.filled(np.ma.asarray(table[f"{column}_err"]), np.nan)).to_value(u.AA)
    return values, errors, table.meta.get("form", "opacity")


def forest_table(model, spectral_axis=None):
    """
    The lines of a model as a table.

    Parameters
    ----------
    model : VoigtForest1D
    spectral_axis : Quantity, shape (n_pix,), optional

    Returns
    -------
    QTable
        See `VoigtForest1D.to_line_list`.
    """
    lines, known = forest_lines(model), model.line_errors
    order = np.argsort(lines.center, kind="stable")
    index = np.full(len(lines), -1)
    if spectral_axis is not None:
        wave = wavelength_values(spectral_axis, "spectral_axis", wavelength_medium="vacuum")
        by_wave = np.argsort(wave)
        middle = (wave[by_wave][1:] + wave[by_wave][:-1]) / 2.0
        index = by_wave[np.searchsorted(middle, lines.center[order])]
    if known is not None:
        known, factor = known.take(order), (model.x_0.unit or u.AA).to(u.AA)
        unit = np.array([1.0, 1.0, 1.0, factor])
        blends = known.blend, known.blend_width * factor, known.blend_error * factor
        return line_table(lines.take(order), known.covariance * unit * unit[:, None], index=index, form=model.form,
                          flags=known.flags, blends=blends,
                          error_scale="root mean square errors of a fit by SparseLineFitter")  # fmt: skip
    alone = _independent(model, lines)[order]
    return line_table(lines.take(order), alone, index=index, form=model.form,
                      flags=np.zeros(len(lines), dtype=int),
                      error_scale="from standard deviations of the parameters, taken to be independent")  # fmt: skip


def _independent(model, lines):
    """Covariances from the ``std`` of the parameters alone; NaN where there are none."""
    widths = {"fwhm_G": lines.sigma * FWHM_PER_SIGMA, "fwhm_L": 2.0 * lines.gamma}
    scale = {"strength": lines.strength, **widths, "x_0": 1.0}
    out = np.zeros((len(lines), 4, 4))
    for k, (name, value) in enumerate(scale.items()):
        parameter = getattr(model, name)
        std = np.nan if parameter.std is None else u.Quantity(parameter.std, parameter.unit or u.AA).to_value(u.AA)
        out[:, k, k] = np.square(np.asarray(std, dtype=float) / value)
    return out
