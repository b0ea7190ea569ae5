"""Templates in ASDF files: their size and the time of writing and reading, with and without covariances.

    python benchmarks/files.py

The clone is that of the model of 4700 K; asked of 15,000 lines without covariances: 1.5 MB, 0.2 s.
"""

import tempfile
import time
from functools import partial
from pathlib import Path

import asdf
import astropy.units as u
from common import read, require, show

from specutils_blase import LineTemplate, clone_spectrum

HEADING = ("covariances", "lines", "MB", "write [s]", "read [s]", "asdf.open [s]")


def best(function, repeats=7):
    """The shortest of some times [s]; the first of a process, which imports, is not the shortest."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def opened(path):
    """The template through asdf alone."""
    with asdf.open(path) as file:
        return file["template"].model


def main():
    """Print the table."""
    (path,) = require("stellar/k4700_hpf.fits.gz")
    template, rows = clone_spectrum(read(path), teff=4700 * u.K, progress=False), []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "template.asdf"
        for covariance in (False, True):
            seconds = [best(function) for function in (
                partial(template.write, file, overwrite=True, covariance=covariance),
                partial(LineTemplate.read, file), partial(opened, file),
            )]  # fmt: skip
            size = f"{file.stat().st_size / 1e6:.2f}"
            rows.append((covariance, len(template.lines), size, *(f"{value:.2f}" for value in seconds)))
    show("templates in files", HEADING, rows)


if __name__ == "__main__":
    main()
