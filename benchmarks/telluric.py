"""Telluric models: clones of all of them and of saturated bands, and columns recovered from an order of a hot star."""

import astropy.units as u
import numpy as np
from astropy.table import QTable
from common import Timer, pull_row, require, show
from scipy.interpolate import CubicSpline
from specutils import Spectrum

from specutils_blase import clone_spectrum, fit_spectrum
from specutils_blase.modeling import VoigtForest1D
from specutils_blase.simulation import simulate_order

LOWER, UPPER = 8600.0, 9000.0
ORDER = {"lower": 8920 * u.AA, "upper": 8990 * u.AA, "n_pix": 2048, "bad_pixels": 0}
SATURATED = ((9300.0, 9400.0), (11150.0, 11500.0))
DRAWS = 20


def main():
    """Print the tables."""
    path, hband = require("telluric/h2o_o2_optical_depth_8038_12849.npz", "telluric/telfit_hband.fits.gz")
    with np.load(path) as data:
        depth = {name: data[key].astype(float) for name, key in (("H2O", "tau_h2o_pwv5mm"), ("O2", "tau_o2_airmass1"))}
    wave = 8038 + 0.01 * np.arange(depth["H2O"].size)
    inside = (wave >= LOWER) & (wave <= UPPER)
    both = depth["H2O"] + depth["O2"]
    rows = [clone("H2O + O2", wave, np.exp(-both))[1], clone("H2O + O2, twice", wave, np.exp(-2.0 * both))[1]]
    for lower, upper in SATURATED:
        band = (wave >= lower) & (wave <= upper)
        rows.append(clone("H2O + O2, twice", wave[band], np.exp(-2.0 * both[band]))[1])
    table = QTable.read(hband, hdu=1)
    rows.append(clone("TelFit, H band", table["wavelength"].to_value(u.AA), np.asarray(table["flux"], dtype=float))[1])
    template, row = clone("H2O + O2", wave[inside], np.exp(-both[inside]))
    rows.append(row)
    show("telluric clones, required: rms 0.1 %",
         ("model", "from", "to [Angstrom]", "samples", "median flux", "lines", "rms", "99th percentile", "seconds",
          "status"), rows)  # fmt: skip
    columns(template, wave, both)


def clone(name, wave, flux):
    """A template, and its row of the table."""
    spectrum = Spectrum(flux=flux * u.dimensionless_unscaled, spectral_axis=wave * u.AA)
    with Timer() as timer:
        template = clone_spectrum(spectrum, progress=False)
    residual = template.evaluate(spectrum.spectral_axis).flux.value - flux
    return template, (name, f"{wave[0]:.0f}", f"{wave[-1]:.0f}", wave.size, f"{np.median(flux):.2f}",
                      len(template.lines), f"{residual.std():.3%}", f"{np.percentile(np.abs(residual), 99):.3%}",
                      f"{timer.wall:.1f}", template.fit_info["status"])  # fmt: skip


def columns(template, wave, tau):
    """Columns recovered from orders made of the table itself (not of the clone), and of the clone."""
    pulls, errors, values = {"clone": [], "table": []}, {"clone": [], "table": []}, {"clone": [], "table": []}
    for kind in pulls:
        model = template.model if kind == "clone" else Table(template.model, wave, tau)
        for seed in range(DRAWS):
            scale = float(np.random.default_rng([seed, 7]).uniform(0.5, 2.0))
            order = simulate_order(None, model, seed=seed, telluric_scale=scale, resolving_power=55_000.0, **ORDER)
            fit = fit_spectrum(order.spectrum, None, template, lsf=55_000, free=(), progress=False)
            row = fit.parameters[fit.parameters["name"] == "telluric_scale"]
            values[kind].append(float(row["value"][0]) / scale - 1)
            errors[kind].append(float(row["std"][0]) / scale)
            pulls[kind].append(values[kind][-1] / errors[kind][-1])
    rows = [(*pull_row(f"order made of the {kind}", pulls[kind])[:-1], f"{np.mean(values[kind]):+.3%}",
             f"{np.mean(errors[kind]):.3%}") for kind in pulls]  # fmt: skip
    show(f"column scale, {DRAWS} orders, S/N 300: pulls",
         ("", "number", "mean", "+-", "width", "+-", "mean error", "std"), rows)  # fmt: skip


class Table:
    """A tabulated optical depth with the one method of `VoigtForest1D` that the simulator calls.

    A cubic spline: straight lines between samples that are a tenth of a line apart would bias the column by 0.08 %.
    """

    def __init__(self, forest, wave, tau):
        assert isinstance(forest, VoigtForest1D)
        self.x_0, self.strength, self.fwhm_G, self.fwhm_L = (getattr(forest, name) for name in forest.param_names[:4])
        self.tau = CubicSpline(wave, tau)

    def transmission(self, wave, *_):
        """exp(-tau) at wavelengths [Angstrom]."""
        return np.exp(-self.tau(wave))


if __name__ == "__main__":
    main()
