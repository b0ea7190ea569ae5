"""The starlight of simulated galaxies: stellar populations summed over a star-formation history, dust, motion."""

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy import units as u
from dust_extinction.parameter_averages import G23
from scipy.fft import irfft, next_fast_len, rfft
from scipy.interpolate import CubicSpline

from specutils_blase.errors import explain
from specutils_blase.functional.constants import SPEED_OF_LIGHT

__all__ = ["STEP", "Populations", "draw_histories", "extinction", "read_populations", "stream"]

# Spacing of the rest frame [km/s]: E-MILES has a standard deviation of 60 km/s where it is sharpest.
STEP = 20.0
# Younger populations than this are as bright as at this age [Gyr]: their most massive stars have not died yet.
MAIN_SEQUENCE = 0.005
# Of the logarithm of brightness with that of age, where it is continued below the youngest population.
STEEPEST = -1.5
# Stars within this are young enough to ionise [Gyr].
IONISING = 0.01
# Of a population that ends early: samples at its end that the smoothing of the library has spoiled, and samples before
# them by which its continuation is scaled.
SPOILED, LAST = 20, 60
# Rest wavelengths that populations must cover [Angstrom]: those of the emission lines.
REACH = (3650.0, 9700.0)
KEYS = ("wave_vac_AA", "flux", "mh", "age_gyr")


def stream(seed, name):
    """Random numbers of one quantity, whatever else is drawn; the first k of n are those of k."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def extinction(wave):
    """Extinction A(wave) / A(V) of the Milky Way, R(V) = 3.1, at wavelengths in vacuum [Angstrom]."""
    return np.asarray(G23(Rv=3.1)(1.0 / (np.asarray(wave) * u.AA)))  # Gordon et al. (2023, ApJ 950, 86)


@dataclass(frozen=True, eq=False)
class Populations:
    """
    Simple stellar populations on a grid uniform in ln(wavelength).

    Parameters
    ----------
    wave : ndarray, shape (n_wave,) [Angstrom]
        In vacuum, neighbours differ by STEP.
    flux : ndarray, shape (n_metal, n_age, n_wave) [L_sun / (M_sun Angstrom)]
    metallicity : ndarray, shape (n_metal,)
        [M/H], increasing.
    age : ndarray, shape (n_age,) [Gyr]
        Increasing.
    """

    wave: np.ndarray
    flux: np.ndarray
    metallicity: np.ndarray
    age: np.ndarray

    def weights(self, history):
        """Mass of every population in galaxies of mass 1, (n, n_metal * n_age)."""
        edges = np.concatenate([[0.0], np.sqrt(self.age[1:] * self.age[:-1])])
        formed = np.stack([_older(edge, history) for edge in edges] + [np.zeros(len(history["onset"]))], axis=1)
        in_age = -np.diff(formed, axis=1) / formed[:, :1]
        nodes = np.arange(len(self.metallicity))
        place = np.interp(history["metallicity"], self.metallicity, nodes)
        in_metal = np.clip(1.0 - np.abs(place[:, None] - nodes), 0.0, None)
        return (in_metal[:, :, None] * in_age[:, None, :]).reshape(len(place), -1)

    def starlight(self, weights, a_v, dust):
        """Sum of populations behind dust, not moving, (n, n_wave) [L_sun / (M_sun Angstrom)]."""
        total = weights @ self.flux.reshape(-1, len(self.wave))
        return total * np.exp(-0.4 * np.log(10.0) * a_v[:, None] * dust)

    def seen(self, starlight, dispersion, redshift, first, count):
        """
        Moving starlight at ``count`` wavelengths of the observer from ``first`` on, STEP apart, (n, count).

        The Doppler shift by a part of a step and the Gaussian of the velocity dispersion are factors of the Fourier
        transform: nothing is interpolated. Beyond the ends the value at the end is repeated.
        """
        place = (np.log(first / self.wave[0]) - np.log1p(redshift)) * (SPEED_OF_LIGHT / STEP)
        whole = np.floor(place).astype(int)
        n_wave = len(self.wave)
        n_all = next_fast_len(n_wave + 512, real=True)
        # A bridge from the end back to the start, so that the period has no edge that would ring.
        bridge = np.linspace(0.0, 1.0, n_all - n_wave + 2)[1:-1]
        bridge = starlight[:, -1:] * (1.0 - bridge) + starlight[:, :1] * bridge
        frequency = 2.0 * np.pi * np.arange(n_all // 2 + 1) / n_all
        factor = np.exp(1j * frequency * (place - whole)[:, None] - 0.5 * (frequency * dispersion[:, None] / STEP) ** 2)
        moved = irfft(rfft(np.concatenate([starlight, bridge], axis=1)) * factor, n_all)
        index = np.clip(whole[:, None] + np.arange(count), 0, n_wave - 1)
        return np.take_along_axis(moved, index, axis=1)


def read_populations(path):
    """
    Simple stellar populations from a file, see `simulate_galaxies`.

    Parameters
    ----------
    path : str or path-like
        Of an npz file with ``wave_vac_AA`` (n_wave,), ``flux`` (n, n_wave), ``mh`` (n,) and ``age_gyr`` (n,), every
        metallicity with the same ages.

    Returns
    -------
    Populations
    """
    wave, flux, metal, age = _read(path)
    metals, ages = np.unique(metal), np.unique(age)
    if len(age) != len(metals) * len(ages) or len(np.unique(np.stack([metal, age]), axis=1).T) != len(age):
        raise ValueError(explain("populations", "have every age once at every metallicity",
                                 f"{len(age)} of {len(metals)} metallicities and {len(ages)} ages",
                                 "leave out what the others lack"))  # fmt: skip
    if len(ages) < 2:
        raise ValueError(explain("populations", "have two ages or more", len(ages), "give the whole library"))
    flux = flux[np.lexsort((age, metal))].reshape(len(metals), len(ages), -1)
    if wave[0] > REACH[0] or wave[-1] < REACH[1]:
        raise ValueError(explain("populations", f"reach from {REACH[0]:.0f} to {REACH[1]:.0f} Angstrom, over all lines",
                                 f"{wave[0]:.0f} to {wave[-1]:.0f}", "give the whole library"))  # fmt: skip
    flux = _completed(flux)
    flux[:, 0] = _younger(flux, ages)
    n_steps = int(np.log(wave[-1] / wave[0]) * SPEED_OF_LIGHT / STEP)
    grid = wave[0] * np.exp(np.arange(n_steps + 1) * (STEP / SPEED_OF_LIGHT))
    return Populations(grid, CubicSpline(wave, flux, axis=-1)(grid), metals, ages)


def _read(path):
    """The arrays of the file, checked."""
    remedy = "give the path of the E-MILES populations, or set specutils_blase.conf.populations to it"
    if not isinstance(path, str | Path) or not str(path):
        raise ValueError(explain("populations", f"be the path of an npz file with {', '.join(KEYS)}",
                                 repr(path) if path else "none, and conf.populations is empty", remedy))  # fmt: skip
    try:
        with np.load(path) as file:
            missing = [key for key in KEYS if key not in file]
            arrays = [np.asarray(file[key], dtype=float) for key in KEYS if key in file]
    except FileNotFoundError as error:
        raise FileNotFoundError(explain("populations", "be a file", f"{str(path)!r}, where none is", remedy)) from error
    except (ValueError, OSError, TypeError, AttributeError, EOFError) as error:
        raise ValueError(explain("populations", "be an npz file of numbers", f"{str(path)!r}", remedy)) from error
    if missing:
        raise ValueError(explain("populations", f"have {', '.join(KEYS)}", f"no {missing[0]} in {str(path)!r}", remedy))
    wave, flux, metal, age = arrays
    shapes = wave.ndim == metal.ndim == 1 and age.shape == metal.shape and flux.shape == (metal.size, wave.size)
    if not shapes or wave.size < 4 or not (np.diff(wave) > 0).all() or not (wave[0] > 0 and (age > 0).all()):
        raise ValueError(explain("populations", "have increasing wavelengths, positive ages and a flux for each pair",
                                 f"the shapes {', '.join(str(a.shape) for a in arrays)}", remedy))  # fmt: skip
    if not all(np.isfinite(a).all() for a in arrays):
        raise ValueError(explain("populations", "be finite", "other values", remedy))
    return wave, flux, metal, age


def _completed(flux):
    """
    Populations that end early (they are zero from there on) continued as the next older one, scaled to their end.

    In E-MILES those of the hottest stars, younger than 0.1 Gyr at solar metallicity, end at 8960 Angstrom.
    """
    flux = flux.copy()
    if not (flux[:, -1] > 0).all(axis=-1).all() or not (flux[..., 0] > 0).all():
        raise ValueError(explain("populations", "be positive at their start, and everywhere at the oldest age",
                                 "others", "leave those wavelengths out"))  # fmt: skip
    for metal in flux:
        for age in range(len(metal) - 2, -1, -1):
            known = metal[age] > 0
            if not known.all():
                end = max(1, int(np.argmin(known)) - SPOILED)
                last = slice(max(0, end - LAST), end)
                metal[age, end:] = metal[age + 1, end:] * (metal[age, last].sum() / metal[age + 1, last].sum())
    return flux


def _younger(flux, ages):
    """
    Mean over all ages of the youngest bin; below the youngest population its brightness is continued as a power law.

    E-MILES begins at 63 Myr, when the stars that give young galaxies most of their blue light are dead. The slope is
    that of the ages up to twice the youngest, at each wavelength.
    """
    later = int(np.clip(np.searchsorted(ages, 2.0 * ages[0]), 1, len(ages) - 1))
    ratio = np.maximum(flux[:, 0], 1e-300) / np.maximum(flux[:, later], 1e-300)
    slope = np.clip(np.log(ratio) / np.log(ages[0] / ages[later]), STEEPEST, 0.0)
    middle = (np.arange(400) + 0.5) / 400 * np.sqrt(ages[0] * ages[1])
    mean = sum((max(age, min(MAIN_SEQUENCE, ages[0])) / ages[0]) ** slope for age in middle) / len(middle)
    return flux[:, 0] * mean


def _older(age, history):
    """Mass that formed before an age [Gyr], (n,), of galaxies whose mass would be 1 without a burst or its contrary."""
    recent = history["burst_age"]
    before = _delayed(np.maximum(age, recent), history)
    return before + history["burst_factor"] * (_delayed(age, history) - before)


def _delayed(age, history):
    """Part of the mass that formed before an age, at rates t exp(-t / tau) from the onset on."""
    since = np.clip(history["onset"] - age, 0.0, None) / history["tau"]
    return -np.expm1(-since) - since * np.exp(-since)


def draw_histories(seed, n):
    """
    What the stars and the dust of n galaxies are, about as in a sample that is limited by its magnitude.

    Where no source is named, constants are such that colours and emission lines are distributed as those of 54,000
    bright galaxies of DESI at redshifts of 0.06 to 0.3.

    Returns
    -------
    dict of ndarray, shape (n,)
    """
    normal = {name: stream(seed, name).standard_normal(n) for name in (
        "log_mass", "tau", "burst", "metallicity", "a_v", "dispersion", "rate", "brightness")}  # fmt: skip
    uniform = {name: stream(seed, name).random(n) for name in ("passive", "onset", "burst_age", "burst_kind")}
    history = {"log_mass": np.clip(10.6 + 0.5 * normal["log_mass"], 8.5, 12.0)}
    above = history["log_mass"] - 10.5
    # The share of passive galaxies grows with mass (Peng et al. 2010, ApJ 721, 193).
    passive = uniform["passive"] < 1.0 / (1.0 + np.exp(-(above - 0.08) / 0.4))
    history["passive"] = passive
    history["onset"] = np.where(passive, 8.0 + 5.0 * uniform["onset"], 5.0 + 8.0 * uniform["onset"])
    tau = np.where(passive, 1.0, 3.2 * 10 ** (-0.12 * above)) * 10 ** (0.17 * normal["tau"])
    history["tau"] = np.clip(tau, 0.3, 20.0)
    history["burst_age"] = 10 ** (-1.5 + 1.5 * uniform["burst_age"])
    # One in ten has a burst, or has stopped; passive galaxies have little to do either with.
    burst = normal["burst"] * np.where(uniform["burst_kind"] < 0.1, 0.7, 0.2)
    history["burst_factor"] = 10 ** np.clip(burst, -1.5, 1.5)
    history["metallicity"] = np.clip(-0.05 + 0.3 * above + 0.05 * passive + 0.13 * normal["metallicity"], -2.0, 0.22)
    a_v = np.where(passive, 0.15, 0.8 * 10 ** (0.25 * np.clip(above, -2.0, 0.5))) * 10 ** (0.2 * normal["a_v"])
    # The lines suffer more than the stars (Calzetti et al. 2000, ApJ 533, 682, eq. 3).
    history["a_v_gas"], history["a_v"] = a_v, 0.44 * a_v
    # After Gallazzi et al. (2006, MNRAS 370, 1106), roughly.
    dispersion = 10 ** (2.03 + 0.28 * above + 0.06 * passive + 0.08 * normal["dispersion"])
    history["velocity_dispersion"] = np.clip(dispersion, 30.0, 300.0)
    total = _older(0.0, history)
    recent = (total - _older(IONISING, history)) / (total * IONISING * 1e9)
    # Stars form in spurts that are shorter than what the history resolves.
    history["specific_rate"] = recent * 10 ** (0.25 * normal["rate"])
    history["brightness"] = 8.0 * 10 ** (0.35 * normal["brightness"])
    return history
