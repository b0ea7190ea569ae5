"""Spectra from files: tables with columns of wavelength and flux, and whatever specutils reads."""

import warnings
from pathlib import Path

import numpy as np
from astropy import nddata
from astropy import units as u
from astropy.io import fits
from astropy.io.registry import IORegistryError, get_formats
from astropy.table import QTable
from specutils import Spectrum

from specutils_blase.errors import explain

__all__ = ["read_input"]

# Names of table columns, in lower case, from which a spectrum is made unless others are named.
WAVE_COLUMNS = ("wavelength", "wave", "lambda", "lam", "wl", "wavelengths", "spectral_axis", "frequency", "energy")
FLUX_COLUMNS = ("flux", "flux_density", "intensity", "transmission", "transmittance")
UNCERTAINTY_COLUMNS = {
    "std": ("uncertainty", "error", "err", "sigma", "std", "unc", "flux_error", "flux_err", "e_flux"),
    "ivar": ("ivar", "inverse_variance", "flux_ivar"),
    "var": ("variance", "var", "flux_variance"),
}
# Text tables whose format astropy does not tell from the name.
TEXT_SUFFIXES = (".txt", ".dat", ".asc", ".ascii", ".tsv", ".tab")
# Metadata of this package's own, in whatever case a header has them.  MEDIUM stands for the first, whose name is too
# long for a FITS card; a velocity without a unit is in km/s.
OWN_META = ("wavelength_medium", "frame", "barycentric_velocity")
# What astropy and specutils raise when a file is not of the kind they try.
UNREADABLE = (IORegistryError, OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError)


def read_input(path, *, wavelength_unit=None, flux_unit=None, medium=None, format=None, hdu=None, columns=None):
    """
    A spectrum from any file that astropy reads as a table or specutils as a spectrum.

    Parameters
    ----------
    path : str or path-like
        A table with columns of wavelength, flux and perhaps uncertainty or mask, or any format of ``Spectrum.read``.
    wavelength_unit, flux_unit : str, optional
        For columns of a table and for flux: used instead of what the file says, if anything. A flux without unit is
        dimensionless.
    medium : {"vacuum", "air"}, optional
        What the wavelengths are; by default what the file says, else vacuum.
    format : str, optional
        Name of a specutils or a table format, when it cannot be told from the file.
    hdu : int or str, optional
        Which HDU of a FITS file; by default the first that fits.
    columns : sequence of str, optional
        Names of the wavelength, flux and, if there is a third, uncertainty columns.

    Returns
    -------
    Spectrum
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path} {'is a directory' if path.is_dir() else 'does not exist'}; name a spectrum")
    wavelength_unit, flux_unit = _unit("--wavelength-unit", wavelength_unit), _unit("--flux-unit", flux_unit)
    select = {} if hdu is None else {"hdu": _hdu(path, int(hdu) if str(hdu).isdigit() else hdu)}
    table, why_not = _read_table(path, format, select)
    chosen = None if table is None else _choose_columns(path, table, columns)
    if chosen is not None:
        spectrum = _spectrum_from_table(path, table, chosen, wavelength_unit, flux_unit)
    else:
        why_not = why_not or f"its columns are {table.colnames[:6]}, name two with --columns"
        spectrum = _with_units(path, _read_spectrum(path, format, select, why_not), wavelength_unit, flux_unit)
        spectrum.meta.setdefault("file", path.name)
    if medium is not None:
        spectrum.meta["wavelength_medium"] = medium
    return spectrum


def _unit(name, text):
    try:
        return None if text is None else u.Unit(text)
    except (ValueError, TypeError) as error:
        raise ValueError(explain(name, "be a unit of astropy", repr(text), "write e.g. Angstrom, nm or Jy")) from error


def _hdu(path, wanted):
    """The HDU that is wanted, if there is one: some readers go on without a word."""
    try:
        with fits.open(path) as hdus:
            names = [hdu.name or str(k) for k, hdu in enumerate(hdus)]
            hdus[wanted]
    except OSError as error:
        raise ValueError(f"--hdu must be left out for {path}, which is no FITS file; remove it") from error
    except (IndexError, KeyError) as error:
        raise ValueError(explain("--hdu", f"be one of {path}, which has {', '.join(names)}", repr(wanted),
                                 "give a number or a name")) from error  # fmt: skip
    return wanted


def _read_table(path, format, select):
    """(table, None), or (None, why not)."""
    if format in set(get_formats(Spectrum, readwrite="Read")["Format"]):
        return None, f"{format!r} is a format of spectra"
    if format is None and path.suffix.lower() in TEXT_SUFFIXES:
        format = "ascii"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about units and HDUs: what matters of it is checked below
        try:
            return QTable.read(path, **({} if format is None else {"format": format}), **select), None
        except UNREADABLE as error:
            return None, _first_line(error)


def _read_spectrum(path, format, select, not_a_table):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Spectrum.read(path, **({} if format is None else {"format": format}), **select)
        except UNREADABLE as error:
            reasons = f"as a table ({not_a_table}) nor as a spectrum ({_first_line(error)})"
            remedy = "give --format or --hdu, or convert it to a table of wavelength, flux and uncertainty"
            raise ValueError(f"{path} cannot be read {reasons}; {remedy}") from error


def _with_units(path, spectrum, wavelength_unit, flux_unit):
    """The same numbers in other units."""
    if wavelength_unit is None and flux_unit is None:
        return spectrum
    unit = spectrum.spectral_axis.unit
    if wavelength_unit is not None and unit.is_equivalent(u.AA, u.spectral()):
        # readers convert, so that these need not be the numbers in the file
        raise ValueError(f"--wavelength-unit must be left out for {path}, which gives its own ({unit}); remove it")
    uncertainty = spectrum.uncertainty
    return Spectrum(
        flux=_with_unit(spectrum.flux, flux_unit),
        spectral_axis=_with_unit(spectrum.spectral_axis, wavelength_unit),
        uncertainty=None if uncertainty is None else type(uncertainty)(uncertainty.array),
        mask=spectrum.mask,
        meta=dict(spectrum.meta),
    )


def _choose_columns(path, table, columns):
    """Names of the wavelength, flux and uncertainty (or None) columns, and its kind; None if they cannot be told."""
    kinds = {name: kind for kind, names in UNCERTAINTY_COLUMNS.items() for name in names}
    if columns is not None:
        if len(columns) not in (2, 3) or not set(columns) <= set(table.colnames):
            got = ", ".join(columns)
            raise ValueError(f"--columns must be two or three columns of {path}, got {got}; it has {table.colnames}")
        uncertainty = columns[2] if len(columns) == 3 else None
        return columns[0], columns[1], uncertainty, kinds.get(str(uncertainty).lower(), "std")
    by_name = {name.lower(): name for name in reversed(table.colnames)}
    wave, flux, sigma = (next(filter(by_name.get, names), None) for names in (WAVE_COLUMNS, FLUX_COLUMNS, kinds))
    if wave is None or flux is None:
        return None
    return by_name[wave], by_name[flux], by_name.get(sigma), kinds.get(sigma)


def _spectrum_from_table(path, table, chosen, wavelength_unit, flux_unit):
    wave_name, flux_name, uncertainty_name, kind = chosen
    wave, bad = _column(table, wave_name)
    if bad.any():
        raise ValueError(f"column {wave_name!r} of {path} must be complete, got {bad.sum()} empty rows; remove them")
    wave = u.Quantity(_with_unit(wave, wavelength_unit))
    if not wave.unit.is_equivalent(u.AA, u.spectral()):
        got = f"{str(wave.unit) or 'none'!r}; give the right one, e.g. --wavelength-unit Angstrom"
        raise u.UnitsError(f"column {wave_name!r} of {path} must have a unit of wavelength or frequency, got {got}")
    flux, bad = _column(table, flux_name)
    flux = u.Quantity(_with_unit(flux, flux_unit))  # without any unit it is dimensionless
    uncertainty = None
    if uncertainty_name is not None:
        values, no_value = _column(table, uncertainty_name)
        container = {"std": nddata.StdDevUncertainty, "var": nddata.VarianceUncertainty, "ivar": nddata.InverseVariance}
        unit = getattr(values, "unit", None) if flux_unit is None else None
        uncertainty = container[kind](getattr(values, "value", values), unit=unit)
        bad = bad | no_value
    if "mask" in table.colnames:
        bad = bad | np.asarray(table["mask"], dtype=bool)
    meta = _meta(path, table)
    # specutils masks what is not finite only when it is given no mask
    return Spectrum(
        flux=flux, spectral_axis=wave, uncertainty=uncertainty, mask=bad | ~np.isfinite(flux.value), meta=meta
    )


def _meta(path, table):
    """Metadata of a spectrum: what the fit asks for, and the header as it is."""
    known = {key.lower(): value for key, value in table.meta.items()}
    if (medium := str(known.get("medium", "")).strip().lower()) in ("vacuum", "air"):
        known.setdefault("wavelength_medium", medium)
    meta = {key: known[key] for key in OWN_META if known.get(key) is not None}
    if isinstance(velocity := meta.get("barycentric_velocity"), int | float):
        meta["barycentric_velocity"] = velocity * u.km / u.s
    header = {key: value for key, value in table.meta.items() if not key.startswith("__")}
    return meta | {"file": path.name} | ({"header": header} if header else {})


def _column(table, name):
    """Values of a column, with its unit if it has one, as float64, and where they are masked."""
    column = table[name]
    if getattr(column, "ndim", 1) == 2 and len(table) == 1:
        column = column[0]  # a whole spectrum in one row, as ESO writes them
    mask = np.array(np.broadcast_to(getattr(column, "mask", False), np.shape(column)))
    column = getattr(column, "unmasked", column)
    unit = getattr(column, "unit", None)
    if not np.issubdtype(column.dtype, np.number):
        raise TypeError(f"column {name!r} must hold numbers, got {column.dtype}; name another with --columns")
    values = np.array(getattr(column, "value", column), dtype=np.float64)
    return (values if unit is None else u.Quantity(values, unit, copy=False)), mask


def _with_unit(values, unit):
    return values if unit is None else u.Quantity(getattr(values, "value", values), u.Unit(unit))


def _first_line(error):
    lines = str(error).strip().splitlines()
    return lines[0][:160].rstrip(" .,:;") if lines else type(error).__name__
