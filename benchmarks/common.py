"""What the benchmarks share: where the test spectra are, how they are read, how a table is printed."""

import os
import resource
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.nddata import StdDevUncertainty
from astropy.table import QTable
from specutils import Spectrum

from specutils_blase.flags import BLENDED, OUTSIDE_WINDOW

__all__ = ["SHARED", "Timer", "line", "load", "peak_memory", "pull_row", "read", "require", "show",
           "strength_pulls", "true_continuum"]  # fmt: skip

# A line is called measured if its error is below this share of the prior's.
STRONG = 0.5
SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def require(*names):
    """Paths of test spectra; ends the program with a message and success if they are not there."""
    paths = [SHARED / name for name in names]
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        print("skipped, not here: " + ", ".join(missing))
        sys.exit(0)
    return paths


def read(path, hdu=1):
    """A table of wavelength, flux and perhaps uncertainty as a Spectrum; a flux without unit is dimensionless."""
    table = QTable.read(path, hdu=hdu)
    flux = u.Quantity(table["flux"], dtype=float)
    uncertainty = None
    if "uncertainty" in table.colnames:
        uncertainty = StdDevUncertainty(np.asarray(getattr(table["uncertainty"], "value", table["uncertainty"]), float))
    return Spectrum(flux=flux, spectral_axis=u.Quantity(table["wavelength"]), uncertainty=uncertainty)


def true_continuum(path, wave):
    """Continuum of a synthetic star at wavelengths [Angstrom], in the unit of its flux."""
    table = QTable.read(path, hdu=2)
    return np.interp(wave, table["wavelength"].to_value(u.AA), table["flux"].value)


@contextmanager
def Timer():
    """Wall clock and CPU seconds of a block: `with Timer() as t: ...; t.wall, t.cpu`."""

    class Seconds:
        wall = cpu = 0.0

    seconds, wall, cpu = Seconds(), time.perf_counter(), time.process_time()
    yield seconds
    seconds.wall, seconds.cpu = time.perf_counter() - wall, time.process_time() - cpu


def peak_memory():
    """Largest resident memory of this process [GB]; on Linux since /proc/self/clear_refs was last written."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(next(row for row in status.read_text().splitlines() if row.startswith("VmHWM")).split()[1]) / 1e6
    unit = 1e9 if sys.platform == "darwin" else 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def load():
    """How busy the machine is, as text."""
    if not hasattr(os, "getloadavg"):
        return f"{os.cpu_count()} processors"
    return f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"


def line(*cells, widths):
    """One line of a table: numbers are given as text."""
    return "  ".join(f"{cell:<{w}}" if i == 0 else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(cells, widths,
                     strict=True)))  # fmt: skip


def show(title, heading, rows):
    """Print a table with a title and the load of the machine."""
    rows = [tuple(str(cell) for cell in row) for row in rows]
    widths = [max(len(cells[i]) for cells in (heading, *rows)) for i in range(len(heading))]
    print(f"\n{title} ({load()})")
    print(line(*heading, widths=widths))
    for row in rows:
        print(line(*row, widths=widths))


def pull_row(name, pulls):
    """(name, number, mean, its error, width, its error, verdict) for a table of pulls."""
    pulls = np.asarray(pulls, dtype=float)
    n, mean, width = pulls.size, pulls.mean(), pulls.std(ddof=1)
    ok = abs(mean) < 0.15 and 0.9 < width < 1.1
    return (name, n, f"{mean:+.3f}", f"{width / np.sqrt(n):.3f}", f"{width:.3f}", f"{width / np.sqrt(2 * (n - 1)):.3f}",
            "holds" if ok else "short")  # fmt: skip


def strength_pulls(lines, center, strength, spread):
    """Pulls of ln strength by how much is known about the lines, a mapping of arrays.

    Parameters: some rows of ``fit.lines``; centres [Angstrom], increasing, and strengths of the true lines, which are
    more; the standard deviation of the prior.
    """
    # the centres are fixed: the lines of the fit are some of those of the template
    index = np.searchsorted(center, lines["line_center"].value * (1 - 1e-12))
    error = (lines["strength_err"] / lines["strength"]).value
    pull = np.log(lines["strength"].value / strength[index]) / error
    flags = np.asarray(lines["flags"])
    seen = (flags & OUTSIDE_WINDOW) == 0
    measured, blended = seen & (error < STRONG * spread), (flags & BLENDED) > 0
    return {
        "ln strength, measured, unblended": pull[measured & ~blended],
        "ln strength, measured, blended": pull[measured & blended],
        "ln strength, held by the prior": pull[seen & ~measured],
    }
