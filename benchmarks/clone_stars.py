"""Clones of native-resolution model spectra: time, memory and how far the clone is from its input.

    python benchmarks/clone_stars.py [NAME ...]

Without names all stars, each in a process of its own; a star may be named by the beginning of its file name.
The residual is (clone - input)/true continuum, without the first and last 3000 samples.
"""

import subprocess
import sys
from pathlib import Path

import astropy.units as u
import numpy as np
from common import Timer, peak_memory, read, require, show, true_continuum
from specutils import Spectrum

from specutils_blase import clone_spectrum

STARS = {
    "k4700_hpf.fits.gz": 4700,
    "wasp69_like.fits.gz": 4715,
    "m3300_9800_11000.fits.gz": 3300,
    "m3800_hband.fits.gz": 3800,
    "g5777_optical.fits.gz": 5777,
}
HEADING = ("star", "samples", "lines", "rms", "median", "99th percentile", "seconds", "GB", "status")
EDGE = 3000
SCRIPT = str(Path(__file__).resolve())


def clone(name):
    """One row of the table."""
    (path,) = require(f"stellar/{name}")
    spectrum = read(path)
    teff = STARS[name] * u.K
    small = Spectrum(flux=spectrum.flux[:20000], spectral_axis=spectrum.spectral_axis[:20000])
    clone_spectrum(small, teff=teff, progress=False)  # the compiled kernels are loaded
    with Timer() as timer:
        template = clone_spectrum(spectrum, teff=teff, progress=False)
    memory = peak_memory()
    wave = spectrum.spectral_axis
    difference = template.evaluate(wave).flux.to_value(spectrum.flux.unit) - spectrum.flux.value
    residual = (difference / true_continuum(path, wave.to_value(u.AA)))[EDGE:-EDGE]
    p50, p99 = np.percentile(np.abs(residual), [50, 99])
    return (name.split(".")[0], wave.size, len(template.lines), f"{residual.std():.3%}", f"{p50:.3%}", f"{p99:.3%}",
            f"{timer.wall:.1f}", f"{memory:.2f}", template.fit_info["status"])  # fmt: skip


def main():
    """Print the table."""
    if sys.argv[1:2] == ["--one"]:
        print("\t".join(str(cell) for cell in clone(sys.argv[2])))
        return
    names = [name for name in STARS if not sys.argv[1:] or name.startswith(tuple(sys.argv[1:]))]
    require(*(f"stellar/{name}" for name in names))
    rows = []
    for name in names:
        run = subprocess.run([sys.executable, SCRIPT, "--one", name], capture_output=True, text=True, check=True)
        rows.append(run.stdout.strip().split("\t"))
    show("clone, required of k4700: rms 0.10 %, 99th percentile 0.4 %, 60 s, 3 GB", HEADING, rows)


if __name__ == "__main__":
    main()
