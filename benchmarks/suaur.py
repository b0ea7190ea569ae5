"""SU Aur with the tellurics of its night learned from HR 1237, against division by the spectrum of that A star.

    python benchmarks/suaur.py [--figure PATH]

The A star has no template: its broad hydrogen lines are followed by the spline that is its continuum. Its tellurics,
scaled as a whole, then stand before SU Aur, a G star that rotates fast.
"""

import argparse
import warnings

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from common import Timer, read, require, show
from numpy.polynomial.legendre import legfit, legval
from scipy.optimize import minimize
from specutils import Spectrum, SpectrumList

from specutils_blase import BlaseWarning, GaussianPrior, ResolvingPower, clone_spectrum, fit_spectrum
from specutils_blase.io import read_igrins

# Orders within the only model at hand of a star nearly as hot, 15,879 to 16,657 Angstrom.
ORDERS = (11, 12, 13, 14)
STAR = {"teff": 5300, "logg": 4.0, "feh": 0.0}  # the hottest there is: SU Aur has about 5700 K
# Vacuum wavelengths of the Brackett lines among them [Angstrom], and how near a pixel is one of theirs.
HYDROGEN, NEAR = (16113.7, 16411.7), 12.0
# An order is used from its first to its last pixel with this share of its flux: what is cut, others have.
LEAST_FLUX = 0.3
# Windows of this length [Angstrom] without lines of the star: once a cubic is taken off, as it is from the data, the
# rotating star varies by no more than this, and the tellurics, which are not saturated, by as much as possible.
LENGTH, MOST_STAR, DEEPEST, CUBIC = 20.0, 0.005, 0.3, 3
# Where it is more than this the transmission counts as clear.
CLEAR = 0.99
SPEED_OF_LIGHT = 299792.458
SETTINGS = {"continuum": "spline", "wavelength_degree": 1, "progress": False}


def orders(*paths):
    """The same pixels of the orders of every file, in the middle; the files have no uncertainties."""
    files, out = [read_igrins(path) for path in paths], [SpectrumList() for _ in paths]
    for number in ORDERS:
        wholes = [file[number] for file in files]
        share = np.min([whole.flux.value / np.nanpercentile(whole.flux.value, 95) for whole in wholes], axis=0)
        bright = np.flatnonzero(share > LEAST_FLUX)
        part = slice(bright[0], bright[-1] + 1)
        for some, whole in zip(out, wholes, strict=True):
            some.append(Spectrum(flux=whole.flux[part], spectral_axis=whole.spectral_axis[part], mask=whole.mask[part]))
    return out


def templates(star_path, sky_path):
    """The clones of a star of 5300 K and of a line-by-line model of the atmosphere."""
    grid, sky = np.load(star_path), read(sky_path)
    place = tuple(int(np.flatnonzero(grid[name] == wanted)[0]) for name, wanted in STAR.items())
    flux, wave = grid["flux_u16"][place] * float(grid["scale"]), grid["wave_vac_AA"]
    star = Spectrum(flux=flux * u.one, spectral_axis=wave * u.AA)
    near = (sky.spectral_axis.value > wave[0] - 20.0) & (sky.spectral_axis.value < wave[-1] + 20.0)
    sky = Spectrum(flux=sky.flux[near], spectral_axis=sky.spectral_axis[near])
    return clone_spectrum(star, teff=5300 * u.K, progress=False), clone_spectrum(sky, progress=False)


def learned(standard, sky):
    """The fit of the A star, and a table of how much its lines may change."""
    rows = []
    for free in ((), ("strength",), ("strength", "fwhm"), ("strength", "fwhm", "x_0")):
        with Timer() as timer:
            fit = fit_spectrum(standard, None, sky, lsf=ResolvingPower(45_000, free=True), free=free, **SETTINGS)
        power, column = (f"{a:.{n}f} +- {b:.{n}f}" for (a, b), n in
                         ((value(fit, "resolving_power"), 0), (value(fit, "telluric_scale"), 3)))  # fmt: skip
        rows.append((", ".join(free) or "none", f"{fit.fit_info['rms']:.2%}", f"{hydrogen(fit):.2%}", power, column,
                     f"{timer.wall:.0f}", fit.fit_info["n_iterations"], fit.fit_info["status"]))  # fmt: skip
    show(f"HR 1237, {len(standard)} orders, {len(fit.lines):,} telluric lines",
         ("free", "rms", "of hydrogen", "resolving power", "column", "seconds", "steps", "status"), rows)  # fmt: skip
    return fit


def hydrogen(fit):
    """The rms of the residual over the continuum near the lines of hydrogen."""
    left = [(residual.flux / level.flux).value[np.abs(residual.spectral_axis.value - line) < NEAR]
            for residual, level in zip(fit.residual, fit.components["continuum"], strict=True)
            for line in HYDROGEN]  # fmt: skip
    return float(np.nanstd(np.concatenate(left)))


def observed(target, star, night):
    """The fit of SU Aur, and a table of its rotation."""
    rows = []
    for free, prior in (((), 0.3), (("strength",), 0.1)):
        with Timer() as timer:
            fit = fit_spectrum(target, star, night.telluric, lsf=value(night, "resolving_power")[0], veiling=0,
                               free={"star": free}, prior=GaussianPrior(strength=prior), **SETTINGS)  # fmt: skip
        found = [f"{a:.2f} +- {b:.2f}" for a, b in (value(fit, name) for name in
                 ("vsini", "radial_velocity", "veiling"))]  # fmt: skip
        rows.append((", ".join(free) or "none", *found, f"{value(fit, 'telluric_scale')[0]:.3f}",
                     f"{fit.fit_info['rms']:.2%}", f"{timer.wall:.0f}", fit.fit_info["status"]))  # fmt: skip
    show("SU Aur; published vsini 60 to 66 km/s", ("free", "vsini [km/s]", "velocity [km/s]", "veiling", "column",
                                                   "rms", "seconds", "status"), rows)  # fmt: skip
    return fit


def value(fit, name):
    """(value, standard deviation) of a global parameter."""
    row = fit.parameters[fit.parameters["name"] == name][0]
    return float(row["value"]), float(row["std"])


def flat(values):
    """Values over their own cubic, minus one."""
    x, good = np.linspace(-1.0, 1.0, len(values)), np.isfinite(values)
    return values / legval(x, legfit(x[good], values[good], CUBIC)) - 1.0


def noise(left):
    """White noise from third differences: less than there is, for the pipeline mixes neighbours."""
    return 1.4826 * float(np.nanmedian(np.abs(np.diff(left, 3)))) / np.sqrt(20.0)


def windows(fit, count=3):
    """(number of the order, pixels) of the windows by the rule above, none overlapping another."""
    found = []
    for k, (data, star, sky) in enumerate(zip(fit.observed, fit.components["star"], fit.components["telluric"],
                                              strict=True)):  # fmt: skip
        wave = data.spectral_axis.value
        for lower in np.arange(wave[0], wave[-1] - LENGTH, 1.0):
            part = slice(*np.searchsorted(wave, (lower, lower + LENGTH)))
            seen = sky.flux.value[part]
            if np.std(flat(star.flux.value[part])) < MOST_STAR and seen.min() > DEEPEST:
                found.append((np.std(seen), lower, k, part))
    chosen = []
    for item in sorted(found, key=lambda item: -item[0]):
        if all(abs(item[1] - other[1]) >= LENGTH for other in chosen):
            chosen.append(item)
    return [item[2:] for item in chosen[:count]]


class Window:
    """SU Aur over its tellurics, minus one, in one window: fitted, divided by the A star, and divided at its best."""

    def __init__(self, fit, night, standard, k, part):
        self.wave = fit.observed[k].spectral_axis.value[part]
        pieces = (fit.observed[k], fit.components["continuum"][k], fit.components["star"][k],
                  fit.components["telluric"][k])  # fmt: skip
        self.data, level, self.star, self.sky = (piece.flux.value[part] for piece in pieces)
        self.a_star, self.blaze = standard[k].flux.value[part], night.components["continuum"][k].flux.value[part]
        self.fitted = self.data / (level * self.star * self.sky) - 1.0
        self.divided = self.division((1.0, 0.0))
        start = [(1.0, 0.0), (1.05, 0.0), (1.0, 0.3)]
        best = minimize(lambda x: np.nanstd(self.division(x)), start[0], method="Nelder-Mead",
                        options={"initial_simplex": start})  # fmt: skip
        self.best, self.optimised = best.x, self.division(best.x)

    def division(self, airmass_and_shift):
        """Over the A star to a power and shifted [km/s], and over the star of the fit, which division cannot know."""
        power, shift = airmass_and_shift
        other = np.interp(self.wave * (1.0 + shift / SPEED_OF_LIGHT), self.wave, self.a_star / self.blaze)
        return flat(self.data / (self.blaze * other**power * self.star))

    def between(self, left):
        """The rms of a residual where there are next to no tellurics."""
        return float(np.nanstd(left[self.sky > CLEAR]))

    def coherent(self, left):
        """The rms of what is telluric in a residual: wrong depth, place and width; and of the same from its noise."""
        depth, good = np.log(self.sky), np.isfinite(left)
        slope = np.gradient(depth)
        columns = np.stack([np.ones_like(depth), depth, slope, np.gradient(slope)], axis=1)
        coefficients = np.linalg.lstsq(columns[good], left[good], rcond=None)[0]
        model = columns[:, 1:] @ coefficients[1:]
        noise = np.std((left - columns @ coefficients)[good])
        return float(np.std(model[good])), float(noise * np.sqrt(3.0 / np.count_nonzero(good)))


def residuals(fit, night, standard):
    """The windows, and the table of what is left in them."""
    seen = [Window(fit, night, standard, *place) for place in windows(fit)]
    rows = []
    for each in seen:
        names = {"joint fit": each.fitted, "A star": each.divided, "at its best": each.optimised}
        plain, together = np.nanstd(each.divided), each.coherent(each.divided)[0]
        for name, left in names.items():
            of_sky, by_chance = each.coherent(left)
            rows.append((f"{each.wave[0]:.0f}", name, f"{np.nanstd(left):.2%}", f"{np.nanstd(left) / plain:.2f}",
                         f"{noise(left):.2%}", f"{each.between(left):.2%}", f"{of_sky:.2%}", f"{of_sky / together:.2f}",
                         f"{by_chance:.2%}"))  # fmt: skip
        print(f"{each.wave[0]:.0f}: transmission down to {each.sky.min():.2f}; divided best with the power "
              f"{each.best[0]:.3f} and {each.best[1]:+.2f} km/s")  # fmt: skip
    show("SU Aur over its tellurics; required: half of what division by the A star leaves",
         ("from [A]", "tellurics by", "rms", "share", "noise", "between lines", "telluric", "share", "by chance"),
         rows)  # fmt: skip
    return seen


def draw(seen, path):
    """The data and what is left, window by window."""
    fig, axes = plt.subplots(len(seen), 1, figsize=(10, 3.5 * len(seen)), layout="constrained")
    for ax, each in zip(axes, seen, strict=True):
        ax.plot(each.wave, each.data / np.nanpercentile(each.data, 95), "k", lw=0.8, label="SU Aur")
        for place, (name, left) in enumerate({"joint fit": each.fitted, "divided by the A star": each.divided,
                                              "at its best": each.optimised}.items()):  # fmt: skip
            ax.plot(each.wave, 5.0 * left + 1.25 + 0.2 * place, lw=0.8, label=f"{name}, times 5")
        ax.set(xlabel="vacuum wavelength [Angstrom]", ylabel="relative flux", ylim=(None, 2.0))
    axes[0].legend(ncols=4, loc="upper center", fontsize="small")
    fig.savefig(path, dpi=100)


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", help="write one to this file")
    args = parser.parse_args()
    *paths, target, standard = require("later/phoenix_aces_igrinsH_grid_15879-16657A.npz",
                                       "telluric/telfit_hband.fits.gz", "echelle/igrins_suaur_h.fits",
                                       "echelle/igrins_hr1237_a0v_h.fits")  # fmt: skip
    warnings.simplefilter("ignore", BlaseWarning)
    star, sky = templates(*paths)
    target, standard = orders(target, standard)
    night = learned(standard, sky)
    fit = observed(target, star, night)
    seen = residuals(fit, night, standard)
    if args.figure:
        draw(seen, args.figure)


if __name__ == "__main__":
    main()
