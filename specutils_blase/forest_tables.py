"""A `VoigtForest1D` as a table of lines, and what makes one: a table of lines, or a line of a spectrum."""

from dataclasses import dataclass, fields

import numpy as np
from astropy import units as u

from specutils_blase.adapters import read_spectrum, wavelength_values
from specutils_blase.errors import explain
from specutils_blase.functional.constants import FWHM_PER_SIGMA
from specutils_blase.line_input import column_lengths, line_centers
from specutils_blase.lines import line_table, pick, starting_lines
from specutils_blase.solvers.lines import Lines

__all__ = ["LineErrors", "forest_columns", "forest_lines", "forest_table", "line_estimate"]

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


def line_estimate(spectrum, region=None):
    """
    The most prominent line of a region, absorption or emission, as `find_lines` starts it.

    The continuum is a straight line through the medians of the first and the last fifth of the region.

    Parameters
    ----------
    spectrum : Spectrum
        One-dimensional. Its wavelengths are taken as they are, in air or vacuum, for a model is fitted to these.
    region : SpectralRegion, (lower, upper) Quantities, or None
        None means all pixels.

    Returns
    -------
    dict of Quantity
        By the names of the model's parameters. Lengths are in the unit of the axis, or Angstrom where that is none of
        length; ``continuum``, in the unit of the flux, is that at the centre.
    """
    arrays = read_spectrum(spectrum, window=region, weights=None, wavelength_medium="vacuum", report=False)
    wave, flux = arrays.wave[arrays.good], arrays.flux[arrays.good]
    fifth = wave.size // 5
    if not fifth:
        raise ValueError(explain("region", "hold at least 5 usable pixels", wave.size, "widen it"))
    (x, y), (x_end, y_end) = (np.median([wave[k], flux[k]], axis=1) for k in (slice(fifth), slice(-fifth, None)))
    level = y + (y_end - y) * (wave - x) / (x_end - x)
    if level.min() <= 0:
        raise ValueError(explain("spectrum", "have a positive continuum on both sides of the line",
                                 f"{level.min():.3g} {arrays.flux_unit}", "strengths are relative to it: add it "
                                 "if it was subtracted, or choose another region"))  # fmt: skip
    depth = 1.0 - flux / level
    least = max(0.5 * np.abs(depth).max(), np.finfo(float).tiny)
    found = [(starting_lines(peaks, sign), peaks["prominence"])
             for sign in (1.0, -1.0) for peaks in [pick(wave, np.maximum(sign * depth, 0.0), least)]]  # fmt: skip
    lines, prominence = max(found, key=lambda pair: pair[1].max(initial=0.0))
    if not len(lines):
        raise ValueError(explain("region", "hold a line with its continuum on both sides", "none", "widen it"))
    line = lines.take([np.argmax(prominence)])
    axis_unit = spectrum.spectral_axis.unit
    unit = axis_unit if axis_unit.is_equivalent(u.AA) else u.AA
    values = {"x_0": line.center, "strength": line.strength, "fwhm_G": line.sigma * FWHM_PER_SIGMA,
              "fwhm_L": 2.0 * line.gamma}  # fmt: skip
    lengths = {name: (value * u.AA).to(unit) for name, value in values.items()}
    return {**lengths, "continuum": np.interp(line.center[0], wave, level) * arrays.flux_unit}


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
