"""Emission lines put on the continuum of a galaxy."""

import contextlib
import copy

import numpy as np
from astropy import units as u
from astropy.table import QTable
from specutils import Spectrum

from specutils_blase.adapters import read_spectrum
from specutils_blase.errors import NoPixelsError, explain
from specutils_blase.galaxy.continuum import FLUX_UNIT, per_wavelength, redshifts
from specutils_blase.galaxy.line_predictor import EmissionLinePredictor
from specutils_blase.orders import members

__all__ = ["add_emission_lines"]

# Velocity dispersion that no gas has [km/s].
FASTEST = 20_000.0


def add_emission_lines(spectrum, predictor, redshift, velocity_dispersion, *, seed=None):
    r"""
    A continuum of a galaxy with the emission lines that go with it.

    The flux of a line is :math:`W (1 + z) C`, with its equivalent width W in the rest frame as the predictor says and
    the continuum C there: the straight line between the medians of the pixels that no emission line reaches within
    4000 km/s to either side. Its profile is a Gaussian, of which every pixel has the exact mean; that of
    [O II] is two, 3729 having 1.41 times the flux of 3727 (30 electrons per cm3: Sanders et al. 2016, ApJ 816, 23).
    Lines outside the spectrum are left out.

    Parameters
    ----------
    spectrum : Spectrum
        One galaxy, or rows of galaxies; a flux density per wavelength or frequency in the frame of the observer. The
        flux matters and not the shape alone, since luminosity is one of the things that lines are predicted from.
    predictor : EmissionLinePredictor
    redshift : float, or array of shape (n,)
    velocity_dispersion : Quantity [speed], one or of shape (n,)
        Standard deviation of the lines as they are to be seen, with the line spread function of the spectrograph.
    seed : int, optional
        Given, the widths are drawn from their distributions, for all lines of a galaxy together; else they are the
        medians.

    Returns
    -------
    Spectrum
        With the unit, axis, mask, uncertainty and meta of the input, and in ``meta["emission_lines"]`` a table with a
        row for every galaxy: ``redshift``, ``velocity_dispersion``, ``extrapolated`` as in
        `EmissionLinePredictor.predict`, and for every line the equivalent width ``NAME`` in the rest frame and the
        flux ``NAME_flux``, NaN where the line was left out.

    Raises
    ------
    TypeError, ValueError
        If redshift or velocity dispersion are missing, negative or not finite.
    astropy.units.UnitsError
        If the flux is no flux density, or the velocity dispersion no velocity.

    Examples
    --------
    A predictor of galaxies whose lines are the stronger the bluer they are, and a blue continuum:

    >>> import numpy as np
    >>> from astropy import units as u
    >>> from specutils import Spectrum
    >>> from specutils_blase.galaxy import add_emission_lines, train_line_predictor
    >>> rng = np.random.default_rng(1)
    >>> z, slope = rng.uniform(0.05, 0.2, 500), rng.uniform(-1, 1, 500)
    >>> unit = u.Unit("1e-17 erg / (s cm2 AA)")
    >>> continuum = 5 * (np.arange(3550, 7000, 300) / 5500) ** slope[:, None] * unit
    >>> width = np.exp(1.5 - 2 * slope[:, None] + 0.2 * rng.normal(size=(500, 10)))
    >>> predictor = train_line_predictor(continuum, z, width, np.full((500, 10), 100.0), progress=False)
    >>> wave = np.arange(3600.0, 8000.0, 1.0) * u.AA
    >>> blue = Spectrum(flux=5 * (wave / (5500 * u.AA)) ** -0.8 * unit, spectral_axis=wave)
    >>> galaxy = add_emission_lines(blue, predictor, 0.1, 120 * u.km / u.s)
    >>> lines = galaxy.meta["emission_lines"]
    >>> bool(10 < lines["HALPHA"][0].value < 40), lines["HALPHA_flux"].unit
    (True, Unit("1e-17 erg / (s cm2)"))
    >>> added = (galaxy.flux - blue.flux).sum() * u.AA
    >>> total = sum(lines[f"{name}_flux"][0] for name in predictor.lines)
    >>> bool(abs(added / total - 1) < 1e-6)
    True
    """
    if not isinstance(spectrum, Spectrum):
        raise TypeError(explain("spectrum", "be a specutils Spectrum", type(spectrum).__name__, "give them one by one"))
    if not isinstance(predictor, EmissionLinePredictor):
        raise TypeError(explain("predictor", "be an EmissionLinePredictor", type(predictor).__name__,
                                "train one with train_line_predictor"))  # fmt: skip
    galaxies = members(spectrum, "spectrum")[0]
    z = redshifts(redshift, len(galaxies))
    dispersion = _dispersions(velocity_dispersion, len(galaxies))
    table = predictor.predict(spectrum, z) if seed is None else predictor.sample(spectrum, z, seed=seed)
    width = np.stack([table[name].to_value(u.AA).reshape(len(z)) for name in predictor.lines], axis=1)
    flux = np.array(np.atleast_2d(spectrum.flux.value), dtype=float)
    module, line_flux = predictor.module(), np.full(width.shape, np.nan)
    for k, galaxy in enumerate(galaxies):
        with contextlib.suppress(NoPixelsError):  # of one row: nothing to add lines to
            lines, line_flux[k] = _lines(galaxy, module, z[k : k + 1], dispersion[k : k + 1], width[k : k + 1])
            flux[k] += lines
    table = QTable({"redshift": z, "velocity_dispersion": dispersion * u.km / u.s,
                    "extrapolated": table["extrapolated"]})  # fmt: skip
    for j, name in enumerate(predictor.lines):
        table[name] = np.where(np.isfinite(line_flux[:, j]), width[:, j], np.nan) * u.AA
        table[f"{name}_flux"] = line_flux[:, j] * FLUX_UNIT * u.AA
    meta = {**(spectrum.meta or {}), "emission_lines": table}
    # An absent mask is not passed at all, because only then does Spectrum mask NaN; the axis itself keeps its edges.
    mask = {} if spectrum.mask is None else {"mask": np.array(spectrum.mask)}
    return Spectrum(flux=flux.reshape(spectrum.flux.shape) * spectrum.flux.unit, spectral_axis=spectrum.spectral_axis,
                    spectral_axis_index=spectrum.flux.ndim - 1,
                    uncertainty=copy.deepcopy(spectrum.uncertainty), meta=meta, **mask)  # fmt: skip


def _lines(galaxy, module, z, dispersion, width):
    """What is added to one galaxy, (n_pix,) in its unit and order, and the fluxes of the lines, (n_lines,)."""
    pixels = read_spectrum(galaxy, report=False)
    fluxes = module.line_flux(per_wavelength(pixels)[None], pixels.edges, pixels.good[None], z, width)
    lines = module.lines(pixels.edges, z, dispersion, fluxes)[0].numpy() * FLUX_UNIT
    lines = lines.to_value(pixels.flux_unit, u.spectral_density(pixels.wave * u.AA))
    of_line = np.arange(width.shape[1])[:, None] == module.line.numpy()
    seen = of_line & np.isfinite(fluxes := fluxes[0].numpy())
    # Of a doublet one half may be outside.
    sums = np.where(seen.any(axis=1), np.where(seen, fluxes, 0.0).sum(axis=1), np.nan)
    return lines[::-1] if pixels.is_reversed else lines, sums


def _dispersions(value, n):
    """Velocity dispersions of n galaxies, (n,) [km/s]."""
    name, remedy = "velocity_dispersion", "write e.g. velocity_dispersion=100 * u.km / u.s"
    if not isinstance(value, u.Quantity):
        raise TypeError(explain(name, "be a Quantity in a unit like 'km / s'", repr(value), remedy))
    try:
        values = np.asarray(value.to_value(u.km / u.s), dtype=float)
    except u.UnitConversionError as error:
        raise u.UnitsError(explain(name, "have a unit like 'km / s'", repr(str(value.unit)), remedy)) from error
    if values.shape not in ((), (n,)):
        raise ValueError(explain(name, f"have one value, or one for each of {n} galaxies", f"the shape {values.shape}",
                                 "give them in the order of the spectra"))  # fmt: skip
    if (bad := ~((values > 0) & (values < FASTEST))).any():
        raise ValueError(explain(name, f"be positive and less than {FASTEST:g} km / s", f"{values[bad].ravel()[0]:g}",
                                 "give that of the gas and the spectrograph together"))  # fmt: skip
    return np.array(np.broadcast_to(values, (n,)))
