"""Galaxies whose truth is known, as two surveys would see them."""

from dataclasses import dataclass, field

import numpy as np
from astropy import units as u
from astropy.nddata import InverseVariance
from astropy.table import QTable
from specutils import Spectrum, SpectrumList

from specutils_blase.conf import conf
from specutils_blase.errors import check_whole, explain
from specutils_blase.functional.constants import SPEED_OF_LIGHT
from specutils_blase.instrument import BandedLSF, ResolvingPower, TabulatedPower

from .cameras import MARGIN, SDSS_POWER, WRONG_SKY, sdss_pixels, survey_cameras
from .nebula import COMPONENTS, NAMES, WAVE, continuum_at, draw_gas, equivalent_widths
from .stars import draw_histories, extinction, read_populations, stream

__all__ = ["SimulatedGalaxies", "simulate_galaxies"]

FLUX_UNIT = u.Unit("1e-17 erg / (s cm2 AA)")
# Galaxies that are computed at a time.
BATCH = 200
# Rest wavelengths between which the brightness is measured [Angstrom].
BRIGHT = (5450.0, 5550.0)
# Which share of pixels is bad, how many cosmic rays a camera has at most and how many pixels they spoil at most, and
# which share of cameras has a stretch without data, of how many pixels.
BAD_PIXELS, N_COSMICS, COSMIC_WIDTH, STRETCHES, STRETCH_WIDTH = 0.003, 4, 4, 0.1, 100
# Units of the columns of the table that have one.
UNITS = {"age": u.Gyr, "onset": u.Gyr, "tau": u.Gyr, "burst_age": u.Gyr, "specific_rate": u.yr**-1, "a_v": u.mag,
         "a_v_gas": u.mag, "velocity_dispersion": u.km / u.s, "gas_dispersion": u.km / u.s,
         "brightness": FLUX_UNIT}  # fmt: skip
COLUMNS = ("log_mass", "age", "onset", "tau", "burst_age", "burst_factor", "specific_rate", "metallicity", "a_v",
           "a_v_gas", "velocity_dispersion", "gas_dispersion", "oxygen_abundance", "brightness")  # fmt: skip


@dataclass(frozen=True, eq=False)
class SimulatedGalaxies:
    """
    Galaxies and the truth behind them.

    Attributes
    ----------
    spectra : Spectrum of shape (n, n_pix), or SpectrumList
        With noise, its `~astropy.nddata.InverseVariance` and a mask; for DESI one for each camera.
    truth : Spectrum or SpectrumList
        The same pixels without noise; NaN, and masked, where the populations end.
    table : QTable
        A row for each galaxy, see `simulate_galaxies`.
    lsf : ResolvingPower, or list of BandedLSF
        What fits take as ``lsf``; for DESI one for each camera.

    Examples
    --------
    A galaxy in the three cameras of DESI, with black bodies instead of stars:

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from specutils_blase.galaxy import simulate_galaxies
    >>> wave, age = np.arange(3000.0, 10500.0, 0.9), np.array([0.06, 0.3, 1.0, 4.0, 12.0])
    >>> flux = 1e15 * wave**-5.0 / np.expm1(1.43878e8 / wave / 5000 * age[:, None] ** 0.15) / age[:, None]
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "black_bodies.npz"
    ...     np.savez(path, wave_vac_AA=wave, flux=flux, mh=np.zeros(5), age_gyr=age)
    ...     galaxies = simulate_galaxies(1, 1, "desi", populations=path, redshift=[0.2], snr=[10.0])
    >>> for camera, lsf in zip(galaxies.spectra, galaxies.lsf):
    ...     print(camera.meta["band"], camera.shape, lsf.bands.shape)
    b (1, 2751) (11, 2751)
    r (1, 2326) (11, 2326)
    z (1, 2881) (11, 2881)
    """

    spectra: Spectrum | SpectrumList = field(repr=False)
    truth: Spectrum | SpectrumList = field(repr=False)
    table: QTable = field(repr=False)
    lsf: ResolvingPower | list = field(repr=False)


def simulate_galaxies(n, seed=0, instrument="sdss", *, populations=None, redshift=(0.0, 0.5), snr=(5.0, 30.0)):
    """
    Spectra of galaxies whose truth is known: stars, dust, emission lines, motion, and a survey that observes them.

    The history of star formation (a delayed exponential, with a burst or its contrary) gives every population of the
    library its mass. Dust dims stars, and lines by more. The light of young stars makes lines with the ratios that gas
    of their oxygen abundance has; old stars and, in some, a Seyfert nucleus add theirs. Then follow the velocity
    dispersions, the redshift, the line spread function, the pixels, noise as the survey has it, and bad pixels.

    The physical galaxy k of a seed is the same whatever ``n``, ``redshift``, ``snr`` and ``instrument`` are.

    Parameters
    ----------
    n : int
        How many.
    seed : int
        Of all random numbers, not negative.
    instrument : str
        "sdss" (3800 to 9200 Angstrom, 1e-4 in log10 of the wavelength per pixel, one spectrum) or "desi" (three
        cameras, 3600 to 9824 Angstrom, 0.8 Angstrom per pixel). Wavelengths are those of vacuum.
    populations : str or path-like, optional
        An npz file with ``wave_vac_AA`` (n_wave,) [Angstrom], ``flux`` (n_ssp, n_wave) [L_sun / (M_sun Angstrom)],
        ``mh`` (n_ssp,) and ``age_gyr`` (n_ssp,); None: ``specutils_blase.conf.populations``. Made for E-MILES (Vazdekis
        et al. 2016, MNRAS 463, 3409), smoothed to a FWHM of 5 Angstrom, to which the velocity dispersion is added.
    redshift, snr : tuple, or array of shape (n,)
        A range (low, high), in which redshifts are uniform and signal-to-noise ratios log-uniform, or values. The
        signal-to-noise ratio is the median over the pixels in which the populations are known.

    Returns
    -------
    SimulatedGalaxies

    Raises
    ------
    ValueError, TypeError
        If an argument is not what is described here, or the populations do not reach the middle of the spectrum.
    FileNotFoundError
        If there is no file of that name.

    Notes
    -----
    Columns of ``table``: ``redshift``, ``snr``; ``log_mass``, the decimal logarithm of the mass that others depend on
    (the flux does not); the mean ``age`` of the stars, the ``onset`` and ``tau`` of their formation, the
    ``burst_factor`` of the rate in the last ``burst_age``; the ``specific_rate`` that makes the lines; [M/H] of the
    stars, ``metallicity``, and 12 + log(O/H) of the gas, ``oxygen_abundance``; A(V) of stars and lines, ``a_v`` and
    ``a_v_gas``; the standard deviations ``velocity_dispersion`` and ``gas_dispersion``; ``brightness``, the flux
    density at 5500 Angstrom if the redshift were zero; and the equivalent width of each emission line in the rest
    frame, positive, against the mean starlight 1500 to 4000 km/s to either side.

    Flux density times (1 + redshift), at a rest wavelength, does not depend on the redshift: galaxies do not grow
    fainter with distance. Stars younger than the youngest population follow a power law of age. There are no broad
    lines. Lines of the sky are subtracted imperfectly, for which the inverse variance allows.

    Examples
    --------
    With a file of black bodies instead of stars:

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from specutils_blase.galaxy import simulate_galaxies
    >>> wave, age = np.arange(3000.0, 10500.0, 0.9), np.array([0.06, 0.3, 1.0, 4.0, 12.0])
    >>> kelvin = 5000.0 * age[:, None] ** -0.15
    >>> flux = 1e15 * wave**-5.0 / np.expm1(1.43878e8 / wave / kelvin) / age[:, None]
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "black_bodies.npz"
    ...     np.savez(path, wave_vac_AA=wave, flux=flux, mh=np.zeros(5), age_gyr=age)
    ...     galaxies = simulate_galaxies(4, 1, populations=path, redshift=[0.05, 0.1, 0.2, 0.3])
    >>> print(galaxies.spectra.shape, galaxies.spectra.flux.unit)
    (4, 3841) 1e-17 erg / (Angstrom s cm2)
    >>> print(galaxies.table.colnames[:3], "HALPHA" in galaxies.table.colnames)
    ['redshift', 'snr', 'log_mass'] True
    >>> pull = (galaxies.spectra.flux - galaxies.truth.flux).value * np.sqrt(galaxies.spectra.uncertainty.array)
    >>> print(f"{pull[~galaxies.spectra.mask].std():.1f}")
    1.0
    """
    _check_choice(n, seed, instrument)
    library = read_populations(conf.populations if populations is None else populations)
    redshift = _per_galaxy(redshift, "redshift", n, stream(seed, "redshift").random(n), np.interp)
    snr = _per_galaxy(snr, "snr", n, stream(seed, "snr").random(n), _log_interp)
    lsf, cameras = _instrument(instrument)
    _check_redshift(redshift, library, cameras)
    history = draw_histories(seed, n)
    gas = draw_gas(seed, history)
    sky = _Sky(seed, cameras)
    beside, at_lines, dust = continuum_at(library.wave), extinction(WAVE), extinction(library.wave)
    weights = library.weights(history)
    outputs = [[np.empty((n, len(camera.wave)), dtype) for camera in cameras] for dtype in ("f4", "f4", "f4", bool)]
    widths = np.empty((n, len(NAMES)))
    for start in range(0, n, BATCH):
        rows = slice(start, start + BATCH)
        light = library.starlight(weights[rows], history["a_v"][rows], dust)
        bright = (library.wave > BRIGHT[0]) & (library.wave < BRIGHT[1])
        continuum = light @ beside
        widths[rows] = equivalent_widths(history, gas, continuum, at_lines, rows)
        scale = (history["brightness"][rows] / light[:, bright].mean(axis=1) / (1.0 + redshift[rows]))[:, None]
        lines = _lines(widths[rows] * continuum * scale, redshift[rows], gas["gas_dispersion"][rows])
        fluxes = []
        for camera in cameras:
            seen = library.seen(light * scale, history["velocity_dispersion"][rows], redshift[rows], *camera.grid)
            flux = camera.observe(seen, *lines)
            flux[~camera.covered(library.wave[0], library.wave[-1], redshift[rows])] = np.nan
            fluxes.append(flux)
        for arrays, values in zip(outputs, (fluxes, *sky.observed(fluxes, snr[rows])), strict=True):
            for array, value in zip(arrays, values, strict=True):
                array[rows] = value
    truth, flux, ivar, mask = outputs
    spectra = [_spectrum(*parts) for parts in zip(cameras, flux, mask, ivar, strict=True)]
    truth = [_spectrum(camera, part, np.isnan(part)) for camera, part in zip(cameras, truth, strict=True)]
    if instrument == "sdss":
        spectra, truth = spectra[0], truth[0]
    else:
        spectra, truth = SpectrumList(spectra), SpectrumList(truth)
    ages = np.tile(library.age, len(library.metallicity))
    history["age"] = weights @ ages
    return SimulatedGalaxies(spectra, truth, _table(redshift, snr, history | gas, widths), lsf)


def _check_choice(n, seed, instrument):
    check_whole("n", n, 1, "say how many galaxies to make")
    check_whole("seed", seed, 0, "another makes other galaxies")
    if instrument not in ("sdss", "desi"):
        raise ValueError(explain("instrument", 'be "sdss" or "desi"', repr(instrument), "choose one of the two"))


def _log_interp(x, _, ends):
    return np.exp(np.interp(x, (0.0, 1.0), np.log(ends)))


def _per_galaxy(given, name, n, uniform, between):
    """Values for n galaxies: of an array, or drawn from the range that a tuple is."""
    try:
        values = np.asarray(u.Quantity(given).to_value(u.one), dtype=float)
    except (TypeError, ValueError, u.UnitsError) as error:
        raise TypeError(explain(name, "be a tuple (low, high), or an array of a number for each galaxy",
                                f"{given!r:.60}", "give numbers")) from error  # fmt: skip
    ranged = isinstance(given, tuple)
    if values.shape != ((2,) if ranged else (n,)):
        raise ValueError(explain(name, f"be a tuple (low, high), or an array of {n} values",
                                 f"{type(given).__name__} of shape {values.shape}", "give (z, z) for one value"
                                 if name == "redshift" else "give (s, s) for one value"))  # fmt: skip
    least = 0.0 if name == "redshift" else np.nextafter(0.0, 1.0)
    bad = ~(np.isfinite(values) & (values >= least))
    if bad.any():
        expected = "be finite and not negative" if name == "redshift" else "be finite and positive"
        raise ValueError(explain(name, expected, f"{values[bad][0]:g}", "correct it"))
    if ranged and values[0] > values[1]:
        raise ValueError(explain(name, "have the lower end first", f"{given}", "exchange the two"))
    return between(uniform, (0.0, 1.0), values) if ranged else values


def _check_redshift(redshift, library, cameras):
    lower, upper = cameras[0].wave[0], cameras[-1].wave[-1]
    first, last = library.wave[0] * (1 + MARGIN / SPEED_OF_LIGHT), library.wave[-1] * (1 - MARGIN / SPEED_OF_LIGHT)
    middle = np.sqrt(lower * upper)
    bad = (middle / (1.0 + redshift) < first) | (middle / (1.0 + redshift) > last)
    if bad.any():
        raise ValueError(explain(
            "redshift", f"leave the middle of the spectrum, {middle:.0f} Angstrom, within the populations, that is be "
            f"{max(0.0, middle / last - 1):.3f} to {middle / first - 1:.3f}", f"{redshift[bad][0]:g}",
            "the stars are not known there"))  # fmt: skip


def _instrument(name):
    """What the survey looks like to fits, and its cameras."""
    if name == "sdss":
        lsf = ResolvingPower(TabulatedPower(*SDSS_POWER.T))
        return lsf, survey_cameras(name, lsf.resolving_power(sdss_pixels()))
    cameras = survey_cameras(name)
    return [BandedLSF.from_desi(camera.resolution) for camera in cameras], cameras


def _lines(fluxes, redshift, dispersion):
    """Centres, standard deviations and fluxes of all components, (n, n_components) each, as the observer has them."""
    share = np.array([share for _, _, share in COMPONENTS])
    index = [NAMES.index(name) for name, _, _ in COMPONENTS]
    centres = np.array([wave for _, wave, _ in COMPONENTS]) * (1.0 + redshift[:, None])
    # Widths are those of the rest frame: their flux densities are given per wavelength of the observer.
    return centres, centres * dispersion[:, None] / SPEED_OF_LIGHT, fluxes[:, index] * share * (1.0 + redshift[:, None])


class _Sky:
    """Noise, lines of the sky and bad pixels; each camera has its own random numbers, used galaxy by galaxy."""

    def __init__(self, seed, cameras):
        self.cameras = cameras
        self.streams = [{name: stream(seed, f"{name} {camera.band}") for name in ("noise", "sky", "mask", "nonsense")}
                        for camera in cameras]  # fmt: skip

    def observed(self, fluxes, snr):
        """Flux, inverse variance and mask in the pixels of each camera, (n, n_pix) each, for noiseless fluxes."""
        covered = [np.isfinite(flux) for flux in fluxes]
        fluxes = [np.where(good, flux, 0.0) for good, flux in zip(covered, fluxes, strict=True)]
        variances = [camera.noise**2 * (1.0 + np.clip(flux, 0.0, None) / camera.sky_light) + (camera.sky**2).sum(axis=0)
                     for camera, flux in zip(self.cameras, fluxes, strict=True)]  # fmt: skip
        ratio = [np.where(good, flux / np.sqrt(variance), np.nan)
                 for good, flux, variance in zip(covered, fluxes, variances, strict=True)]  # fmt: skip
        scale = (np.nanmedian(np.concatenate(ratio, axis=1), axis=1) / snr)[:, None]
        out = [self._camera(*parts, scale) for parts in
               zip(self.cameras, self.streams, covered, fluxes, variances, strict=True)]  # fmt: skip
        return zip(*out, strict=True)

    def _camera(self, camera, streams, covered, flux, variance, scale):
        n, n_pix = flux.shape
        wrong = np.sqrt(WRONG_SKY) * camera.sky
        noise = streams["noise"].standard_normal((n, n_pix)) * np.sqrt(variance - (wrong**2).sum(axis=0))
        noise += streams["sky"].standard_normal((n, len(wrong))) @ wrong
        bad = _bad_pixels(streams["mask"], n, n_pix)
        sigma = scale * np.sqrt(variance)
        flux = flux + scale * noise
        nonsense = streams["nonsense"].random((n, 2, n_pix))
        wild = bad & (nonsense[:, 0] < 0.5)
        flux[wild] += (sigma * 10 ** (4.0 * nonsense[:, 1]))[wild]
        good = covered & ~bad
        return np.where(covered, flux, 0.0), np.where(good, 1.0 / sigma**2, 0.0), ~good


def _bad_pixels(random, n, n_pix):
    """Single pixels, cosmic rays and stretches, (n, n_pix) of bool."""
    bad, events = np.empty((n, n_pix), dtype=bool), N_COSMICS + 1
    pixel = np.arange(n_pix)
    for k in range(n):
        bad[k] = random.random(n_pix) < BAD_PIXELS
        there, where, long = random.random((3, events))
        there = there < np.array([0.5] * N_COSMICS + [STRETCHES])
        start = (where * n_pix).astype(int)
        stop = start + 1 + (long * np.array([COSMIC_WIDTH] * N_COSMICS + [STRETCH_WIDTH])).astype(int)
        for first, last in zip(start[there], stop[there], strict=True):
            bad[k, pixel[first:last]] = True
    return bad


def _spectrum(camera, flux, mask, ivar=None):
    meta = {}
    if camera.resolution is not None:
        # The same for all galaxies, and kept once.
        bands = np.broadcast_to(camera.resolution.astype("f4"), (len(flux), *camera.resolution.shape))
        meta = {"band": camera.band, "resolution_data": bands}
    uncertainty = None if ivar is None else InverseVariance(ivar, unit=FLUX_UNIT**-2)
    return Spectrum(flux=flux * FLUX_UNIT, spectral_axis=camera.wave * u.AA, uncertainty=uncertainty, mask=mask,
                    spectral_axis_index=flux.ndim - 1, meta=meta)  # fmt: skip


def _table(redshift, snr, parameters, widths):
    table = QTable({"redshift": redshift, "snr": snr})
    for name in COLUMNS:
        table[name] = parameters[name] * UNITS[name] if name in UNITS else parameters[name]
    for name, values in zip(NAMES, widths.T, strict=True):
        table[name] = values * u.AA
    return table
