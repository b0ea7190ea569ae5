"""Water and oxygen, 8600 to 9000 Angstrom: clones, and the columns recovered from a simulated order of a hot star."""

import astropy.units as u
import numpy as np
from common import Timer, pull_row, require, show
from scipy.interpolate import CubicSpline
from specutils import Spectrum

from specutils_blase import clone_spectrum, fit_spectrum
from specutils_blase.modeling import VoigtForest1D
from specutils_blase.simulation import simulate_order

LOWER, UPPER = 8600.0, 9000.0
ORDER = {"lower": 8920 * u.AA, "upper": 8990 * u.AA, "n_pix": 2048, "bad_pixels": 0}
DRAWS = 20


def main():
    """Print the tables."""
    (path,) = require("telluric/h2o_o2_optical_depth_8038_12849.npz")
    with np.load(path) as data:
        depth = {name: data[key] for name, key in (("H2O", "tau_h2o_pwv5mm"), ("O2", "tau_o2_airmass1"))}
    wave = 8038 + 0.01 * np.arange(depth["H2O"].size)
    inside = (wave >= LOWER) & (wave <= UPPER)
    templates, rows = {}, []
    for name, tau in {"H2O + O2": depth["H2O"] + depth["O2"], **depth}.items():
        flux = np.exp(-tau[inside])
        spectrum = Spectrum(flux=flux * u.dimensionless_unscaled, spectral_axis=wave[inside] * u.AA)
        if 1 - flux.min() < 0.01:
            rows.append((name, inside.sum(), "-", "-", "-", f"{1 - flux.min():.1%}", "-", "no line of 1 %"))
            continue
        with Timer() as timer:
            template = clone_spectrum(spectrum, continuum_degree=1, progress=False)
        residual = template.evaluate(spectrum.spectral_axis).flux.value - flux
        templates[name] = template
        rows.append((name, inside.sum(), len(template.lines), f"{residual.std():.3%}",
                     f"{np.percentile(np.abs(residual), 99):.3%}", f"{1 - flux.min():.1%}", f"{timer.wall:.1f}",
                     template.fit_info["status"]))  # fmt: skip
    show("telluric clone, required: rms 0.1 %",
         ("species", "samples", "lines", "rms", "99th percentile", "deepest", "seconds", "status"), rows)  # fmt: skip
    columns(templates["H2O + O2"], wave, depth["H2O"] + depth["O2"])


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
