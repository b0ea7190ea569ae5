"""The H band: observed tellurics re-learned from a model of them, and a spotted young star that rotates fast.

    python benchmarks/igrins.py [--tellurics] [--star] [--figure FILE.png]

The spectra of the star are corrected for tellurics, as their file says: a template of them should find nothing.
"""

import argparse
import warnings

import astropy.units as u
import numpy as np
from astropy.nddata import StdDevUncertainty
from astropy.table import QTable
from common import Timer, read, require, show
from matplotlib import pyplot
from specutils import Spectrum, SpectrumList

from specutils_blase import BlaseWarning, clone_spectrum, fit_spectrum

RUNS = {
    "columns": (),
    "strengths": ("strength",),
    "and widths": ("strength", "fwhm"),
    "and centres": ("strength", "fwhm", "x_0"),
}


def tellurics():
    """A line-by-line model of the atmosphere, cloned, and fitted to the transmission of Livingston & Wallace."""
    model, path = require("telluric/telfit_hband.fits.gz", "telluric/livingston_wallace_hband_observed.fits.gz")
    template, table, rows = clone_spectrum(read(model), progress=False), QTable.read(path), []
    observed = Spectrum(flux=np.asarray(table["flux"], dtype=float) * u.one, spectral_axis=table["wavelength"])
    for name, free in RUNS.items():
        with Timer() as timer:
            fit = fit_spectrum(observed, None, template, lsf=None, free=free, continuum_degree=5, progress=False)
        rows.append((name, f"{np.nanstd(fit.residual.flux.value):.3%}", f"{timer.wall:.1f}",
                     fit.fit_info["n_iterations"], fit.fit_info["status"]))  # fmt: skip
    show(f"Livingston & Wallace, {len(observed.flux):,} samples, {len(fit.lines):,} lines; required: half the rms of "
         "the columns", ("free", "rms", "seconds", "steps", "status"), rows)  # fmt: skip


def orders(path):
    """The orders of the file within the model of the star."""
    data, out = np.load(path), SpectrumList()
    for number in np.unique(data["order"]):
        mine = np.flatnonzero(data["order"] == number)
        mine = mine[np.argsort(data["wave_AA"][mine])]
        wave, flux, sigma = (data[name][mine].astype(float) for name in ("wave_AA", "flux", "sigma"))
        if wave[0] > 15150.0 and wave[-1] < 17000.0:
            out.append(Spectrum(flux=flux * u.one, spectral_axis=wave * u.AA, mask=data["mask"][mine] != 1,
                                uncertainty=StdDevUncertainty(sigma), meta={"order": int(number)}))  # fmt: skip
    return out


def star(figure):
    """LkCa 4 with a model that is 3800 K hot, its veiling free."""
    model, air, path = require("stellar/m3800_hband.fits.gz", "telluric/telfit_hband.fits.gz",
                               "echelle/igrins_lkca4_hk.npz")  # fmt: skip
    template, observed, rows = clone_spectrum(read(model), teff=3800 * u.K, progress=False), orders(path), []
    sky = clone_spectrum(read(air), progress=False)
    for name, free, telluric in (("none", (), None), ("strengths", ("strength",), None),
                                 ("with tellurics", ("strength",), sky)):  # fmt: skip
        with Timer() as timer:
            fit = fit_spectrum(observed, template, telluric, lsf=45_000, free={"star": free}, veiling=0,
                               continuum="spline", progress=False)  # fmt: skip
        found = {row["name"]: f"{row['value']:.3f} +- {row['std']:.3f}" for row in fit.parameters}
        rows.append((name, found["vsini"], found["radial_velocity"], found["veiling"], found.get("telluric_scale", ""),
                     f"{fit.fit_info['chi2'] / fit.fit_info['dof']:.2f}", f"{timer.wall:.0f}",
                     fit.fit_info["status"]))  # fmt: skip
    show(f"LkCa 4, {len(observed)} orders; required: vsini 25 to 31 km/s with veiling free",
         ("lines free", "vsini [km/s]", "velocity [km/s]", "veiling", "tellurics", "chi2", "seconds", "status"),
         rows)  # fmt: skip
    each = [(data.meta["order"], f"{data.spectral_axis[0].value:.0f}",
             f"{np.nanstd(left.flux.value / level.flux.value):.2%}",
             f"{np.nanmedian(data.uncertainty.array[~data.mask] / level.flux.value[~data.mask]):.2%}")
            for data, left, level in zip(observed, fit.residual, fit.components["continuum"], strict=True)]  # fmt: skip
    show("strengths free, order by order", ("order", "from [A]", "rms", "noise"), each)
    if figure:
        fit.plot()
        pyplot.savefig(figure, dpi=100)


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tellurics", action="store_true", help="only these")
    parser.add_argument("--star", action="store_true", help="only this")
    parser.add_argument("--figure", help="where to draw the star")
    args = parser.parse_args()
    warnings.simplefilter("ignore", BlaseWarning)
    if args.tellurics or not args.star:
        tellurics()
    if args.star or not args.tellurics:
        star(args.figure)


if __name__ == "__main__":
    main()
