"""Wavelengths of HPF against the airglow in a blank sky, and what of the sky its sky fibre leaves.

    python benchmarks/airglow.py
"""

import warnings

import numpy as np
from common import Timer, require, show

from specutils_blase import BlaseWarning, ResolvingPower, fit_airglow, subtract_sky
from specutils_blase.io import read_airglow, read_hpf


def main():
    """Print the tables."""
    listed, path = require("linelists/igrins_plp_ohlines.dat", "echelle/hpf_blanksky_20210825.fits")
    warnings.simplefilter("ignore", BlaseWarning)  # bad pixels, orders without lines
    orders = read_hpf(path)
    with Timer() as timer:
        fit = fit_airglow(orders, read_airglow(listed), ResolvingPower(55_000, free=True))
    rows = [(row["order"], f"{orders[row['order']].spectral_axis[0].value:.0f}", row["n_seen"],
             f"{row['offset'].value:+.3f} +- {row['offset_err'].value:.3f}",
             f"{row['slope'].value:+.3f} +- {row['slope_err'].value:.3f}", f"{row['scatter'].value:.3f}",
             f"{row['resolving_power']:.0f} +- {row['resolving_power_err']:.0f}", f"{row['chi2']:.1f}")
            for row in fit.orders if np.isfinite(row["offset"])]  # fmt: skip
    show(f"blank sky, {timer.wall:.0f} s; required: offsets within 0.3 km/s, scatter of single lines given",
         ("order", "from [A]", "lines", "offset [km/s]", "slope [km/s]", "scatter", "R", "chi2"), rows)  # fmt: skip
    clean = subtract_sky(orders, read_hpf(path, fiber="sky"))
    rows = []
    for k in (6, 15, 18, 24):
        used = np.isfinite(clean[k].flux.value)
        before, after = (np.std(spectra[k].flux.value[used]) for spectra in (orders, clean))
        rows.append((k, f"{before:.3f}", f"{after:.3f}", f"{np.median(clean[k].uncertainty.array[used]):.3f}"))
    show(f"sky fibre subtracted, scale {clean[0].meta['sky_scale']:.4f} +- {clean[0].meta['sky_scale_err']:.4f}",
         ("order", "rms before", "rms after", "noise"), rows)  # fmt: skip


if __name__ == "__main__":
    main()
