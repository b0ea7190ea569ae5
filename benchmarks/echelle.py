"""Whole echelle spectra: telluric standards fitted with water and oxygen, one night predicted by another, and growth.

    python benchmarks/echelle.py [--orders 2] [--all] [--each]

Two A stars observed with HPF in nights of different humidity, without a star's template. "Columns" are fits that scale
the templates and shift the wavelengths of each order, "learned" those that change the lines as well; the templates of
one night are then scaled to the other. The rms is that of the residual over the continuum, the photon noise that of
the file's errors. --all fits all 28 orders, and 7 and 14 of them for the growth of time and memory. --each fits every
order for itself, with the light of the sky fibre subtracted, and again with the lines that the templates lack.
"""

import argparse
import subprocess
import sys
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
from common import Timer, peak_memory, require, show
from specutils import Spectrum

from specutils_blase import BlaseWarning, clone_spectrum, fit_spectrum, subtract_sky
from specutils_blase.io import read_hpf

NIGHTS = ("20210212", "20210517")
# The continuum of an order of an A star has broad lines and the rest of the blaze in it.
SETTINGS = {"lsf": 55_000, "continuum": "spline", "wavelength_degree": 1, "progress": False}


def tellurics(lower, upper, least=0.02, **settings):
    """Templates of water and oxygen between two wavelengths [Angstrom], of what is deeper than `least`."""
    (path,) = require("telluric/h2o_o2_optical_depth_8038_12849.npz")
    data, out = np.load(path), []
    wave = data["wavelength_start"] + data["wavelength_step"] * np.arange(data["tau_h2o_pwv5mm"].size)
    inside = (wave > lower) & (wave < upper)
    for name in ("tau_h2o_pwv5mm", "tau_o2_airmass1"):
        depth = data[name][inside].astype(float)
        if depth.max() > least:
            out.append(clone_spectrum(Spectrum(flux=np.exp(-depth) * u.one, spectral_axis=wave[inside] * u.AA),
                                      progress=False, **settings))  # fmt: skip
    return out


def night(name, first, last):
    """The orders of a standard star."""
    (path,) = require(f"echelle/hpf_a0v_{name}.fits")
    return read_hpf(path)[first:last]


def residuals(fit):
    """Rms of every order over its continuum, and its photon noise."""
    orders = fit.orders
    return np.array(orders["rms"]), np.array(orders["noise"])


def nights(n_orders):
    """Both nights, and each predicted by the other."""
    templates = tellurics(8060.0, 8300.0 if n_orders <= 2 else 12849.0)
    spectra = {name: night(name, 0, n_orders) for name in NIGHTS}
    scaled, learned = {}, {}
    for name, orders in spectra.items():
        scaled[name] = fit_spectrum(orders, None, templates, free=(), **SETTINGS)
        with Timer() as timer:
            learned[name] = fit_spectrum(orders, None, templates, free=("strength", "fwhm"), **SETTINGS)
        print(f"{name}: {len(learned[name].lines)} lines, {timer.wall:.1f} s, {learned[name].fit_info['status']}")
    rows = []
    for name, other in zip(NIGHTS, NIGHTS[::-1], strict=True):
        predicted = fit_spectrum(spectra[name], None, learned[other].telluric, free=(), **SETTINGS)
        kinds = [residuals(fit)[0] for fit in (scaled[name], learned[name], predicted)]
        noise = residuals(learned[name])[1]
        for k in range(n_orders):
            a, b, c = (kind[k] for kind in kinds)
            rows.append((name, k, f"{noise[k]:.3%}", f"{a:.3%}", f"{b:.3%}", f"{b / noise[k]:.2f}", f"{c:.3%}",
                         f"{c / a:.2f}"))  # fmt: skip
    show("telluric standards", ("night", "order", "photon noise", "columns", "learned", "over noise",
                                "predicted by the other", "over columns"), rows)  # fmt: skip


def each():
    """Every order for itself: how far it is above its noise, and why."""
    for name in NIGHTS:
        (path,) = require(f"echelle/hpf_a0v_{name}.fits")
        clean = subtract_sky(read_hpf(path), read_hpf(path, fiber="sky"))
        rows = []
        for k, order in enumerate(clean):
            ends = order.spectral_axis.value[[0, -1]] + [-20.0, 20.0]
            templates, settings = tellurics(max(ends[0], 8060.0), min(ends[1], 12849.0)), {"free": ("strength", "fwhm")}
            if not templates:
                continue
            with Timer() as timer:
                fits = [fit_spectrum(clean[k : k + 1], None, templates, new_lines=new, **settings, **SETTINGS)
                        for new in (None, True)]  # fmt: skip
            (before,), (after,) = (fit.orders for fit in fits)
            rows.append((k, f"{ends[0] + 20:.0f}", f"{after['noise']:.3%}", f"{before['ratio']:.2f}",
                         len(fits[1].new_lines), f"{after['ratio']:.2f}", f"{after['saturated']:.1%}",
                         f"{timer.wall:.1f}", after["remark"]))  # fmt: skip
        scale, error = (clean[0].meta[key] for key in ("sky_scale", "sky_scale_err"))
        show(f"every order of {name}, {scale:.2f} +- {error:.2f} times the sky fibre subtracted",
             ("order", "from [A]", "noise", "rms/noise", "new lines", "rms/noise", "saturated", "seconds", "remark"),
             rows)  # fmt: skip


def growth(count):
    """(lines, seconds, GB) of the first `count` orders with strengths free."""
    templates, orders = tellurics(8060.0, 12849.0), night(NIGHTS[0], 0, count)
    with Timer() as timer:
        fit = fit_spectrum(orders, None, templates, free=("strength",), **SETTINGS)
    return len(fit.lines), timer.wall, peak_memory(), fit.fit_info["n_iterations"]


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--orders", type=int, default=2)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--each", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore", BlaseWarning)  # bad pixels
    if args.one:
        print(*map(float, growth(args.one)))
        return
    if args.each:
        each()
        return
    nights(28 if args.all else args.orders)
    if args.all:
        rows = []
        for count in (7, 14, 28):
            run = subprocess.run([sys.executable, str(Path(__file__).resolve()), "--one", str(count)], check=True,
                                 capture_output=True, text=True)  # fmt: skip
            lines, seconds, memory, steps = map(float, run.stdout.split())
            rows.append((count, f"{lines:.0f}", f"{seconds:.1f}", f"{steps:.0f}", f"{seconds / steps / count:.3f}",
                         f"{memory:.2f}"))  # fmt: skip
        show("growth", ("orders", "lines", "seconds", "steps", "seconds a step and order", "GB"), rows)


if __name__ == "__main__":
    main()
