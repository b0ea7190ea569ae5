"""A `VoigtForest1D` as a table of lines or as `Voigt1D` models, and of these; the estimate of a line of a spectrum."""

from dataclasses import dataclass, fields

import numpy as np
from astropy import units as u
from astropy.modeling.fitting import Covariance
from astropy.modeling.functional_models import Voigt1D

from specutils_blase.adapters import read_spectrum, wavelength_values
from specutils_blase.errors import explain
from specutils_blase.functional.constants import FWHM_PER_SIGMA
from specutils_blase.line_input import column_lengths, line_centers
from specutils_blase.lines import line_table, pick, starting_lines
from specutils_blase.solvers.lines import Lines

__all__ = ["LineErrors", "forest_columns", "forest_lines", "forest_table", "line_estimate", "voigt1d_columns",
           "voigt1d_models"]  # fmt: skip

# Parameters of the model and columns of a table.
COLUMNS = {"x_0": "line_center", "strength": "strength", "fwhm_G": "fwhm_gauss", "fwhm_L": "fwhm_lorentz"}
# Parameters of Voigt1D, in its order.
VOIGT1D = ("x_0", "amplitude_L", "fwhm_L", "fwhm_G")


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


def voigt1d_models(model):
    """The lines of a model as models of their own, list of Voigt1D; see `VoigtForest1D.to_voigt1d`."""
    parameters = (model.x_0, model.strength, model.fwhm_L, model.fwhm_G)
    x_0, strength, fwhm_L, fwhm_G = (np.ravel(p.value if p.unit is None else p.quantity) for p in parameters)
    amplitude = 2.0 * strength / (np.pi * fwhm_L)
    amplitude = amplitude.to_value(u.one) if isinstance(amplitude, u.Quantity) else amplitude
    fixed = {"x_0": model.x_0.fixed, "amplitude_L": model.strength.fixed and model.fwhm_L.fixed,
             "fwhm_L": model.fwhm_L.fixed, "fwhm_G": model.fwhm_G.fixed}  # fmt: skip
    out = [Voigt1D(*row, fixed=fixed) for row in zip(x_0, amplitude, fwhm_L, fwhm_G, strict=True)]
    if model.line_errors is None and all(p.std is None for p in parameters):
        return out
    free = [k for k, name in enumerate(VOIGT1D) if not fixed[name]]
    covariance = _voigt1d_covariance(model, amplitude, u.Quantity(fwhm_L).value, u.Quantity(fwhm_G).value)
    for voigt, matrix in zip(out, covariance, strict=True):
        voigt.cov_matrix = Covariance(matrix[np.ix_(free, free)], [VOIGT1D[k] for k in free])
    return out


def _voigt1d_covariance(model, amplitude, fwhm_L, fwhm_G):
    """Covariances of the parameters of Voigt1D, (n_lines, 4, 4) in their units; 0 where they are not known."""
    matrix, known = _independent(model, forest_lines(model)), model.line_errors
    matrix[:, 3] /= (model.x_0.unit or u.AA).to(u.AA) ** 2
    held = [p.fixed and p.std is None for p in (model.strength, model.fwhm_G, model.fwhm_L, model.x_0)]
    lost = ~np.isfinite(np.einsum("jaa->ja", matrix)) & ~np.array(held)
    matrix = np.nan_to_num(matrix if known is None else known.covariance, posinf=0.0)
    slope = np.zeros_like(matrix)  # of what Voigt1D has by what the forest has
    slope[:, 0, 3], slope[:, 1, 0], slope[:, 1, 2] = 1.0, amplitude, -amplitude
    slope[:, 2, 2], slope[:, 3, 1] = fwhm_L, fwhm_G
    out = slope @ matrix @ slope.swapaxes(1, 2)
    unknown = (np.abs(slope) @ lost[:, :, None])[:, :, 0] > 0
    out[unknown], out.swapaxes(1, 2)[unknown] = 0.0, 0.0
    return out


def voigt1d_columns(models):
    """
    What makes a forest of models of astropy.

    Parameters
    ----------
    models : Voigt1D or iterable of Voigt1D

    Returns
    -------
    values, errors : dict
        Quantities or arrays, and arrays in their units, shape (n_lines,), by the names of the model's parameters;
        errors where any is known.
    fixed : list of str
        Names of the parameters that are.
    """
    models = [models] if isinstance(models, Voigt1D) else list(models)
    other = [type(model).__name__ for model in models if not isinstance(model, Voigt1D)]
    if other:
        raise TypeError(explain("models", "be Voigt1D", other[0], "fit sums of other models with astropy"))
    if not models:
        raise ValueError(explain("models", "hold lines", "an empty list", "give one Voigt1D or more"))
    fixed = [name for name in VOIGT1D if _is_fixed(models, name)]
    x_0, amplitude, fwhm_L, fwhm_G = (_joined([getattr(model, name) for model in models]) for name in VOIGT1D)
    amplitude = amplitude.to_value(u.one) if isinstance(amplitude, u.Quantity) else amplitude
    values = {"x_0": x_0, "strength": amplitude * fwhm_L * (np.pi / 2), "fwhm_G": fwhm_G, "fwhm_L": fwhm_L}
    targets = [getattr(value, "unit", u.one) for value in (x_0, amplitude, fwhm_L, fwhm_G)]
    covariance = np.array([_covariance_of(model, targets) for model in models])
    std = np.sqrt(np.einsum("jaa->ja", covariance))
    slope = np.stack([u.Quantity(fwhm_L).value, amplitude], axis=1) * (np.pi / 2)
    strength = np.sqrt(np.maximum(np.einsum("ja,jab,jb->j", slope, covariance[:, 1:3, 1:3], slope), 0.0))
    errors = {"x_0": std[:, 0], "strength": strength, "fwhm_L": std[:, 2], "fwhm_G": std[:, 3]}
    strengths = ["strength"] if {"amplitude_L", "fwhm_L"} <= set(fixed) else []
    fixed = [name for name in fixed if name in values] + strengths
    return values, {name: e for name, e in errors.items() if name not in fixed and not np.isnan(e).all()}, fixed


def _is_fixed(models, name):
    """Whether all models have a parameter fixed; an error if some have."""
    count = sum(bool(model.fixed[name]) for model in models)
    if 0 < count < len(models):
        raise ValueError(explain("models", f"have {name} fixed in all or in none", f"{count} of {len(models)}",
                                 "free it, and hold lines by free_lines of SparseLineFitter"))  # fmt: skip
    return count > 0


def _covariance_of(model, units):
    """Covariance of the parameters of a Voigt1D, (4, 4); 0 for fixed ones, NaN for variances that are not known."""
    parameters, known, out = [getattr(model, name) for name in VOIGT1D], model.cov_matrix, np.zeros((4, 4))
    if known is not None:
        index = [VOIGT1D.index(name) for name in known.param_names]
        out[np.ix_(index, index)] = known.cov_matrix
    np.fill_diagonal(out, [0.0 if p.fixed else np.nan if p.std is None else p.std**2 for p in parameters])
    scale = np.array([(p.unit or u.one).to(unit) for p, unit in zip(parameters, units, strict=True)])
    return out * scale * scale[:, None]


def _joined(parameters):
    """Scalar parameters of several models as one array or Quantity."""
    if not any(parameter.unit for parameter in parameters):
        return np.array([float(parameter.value) for parameter in parameters])
    return u.Quantity([parameter.value * (parameter.unit or u.one) for parameter in parameters])
