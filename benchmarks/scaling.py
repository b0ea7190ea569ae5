"""Time and memory of a clone against its number of lines, at a constant density of lines; each size in a process.

    python benchmarks/scaling.py [10000 100000 1000000]
"""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import astropy.units as u
import numpy as np
from common import Timer, peak_memory, show

SIZES = (3_000, 10_000, 30_000, 100_000)
# Lines per Angstrom, as in the demonstration, and of a piece.  Lines of one star grow broader with the wavelength;
# pieces that differ in nothing but their random numbers follow each other instead.
DENSITY, PIECE = 15.0, 1_000
LOWER = 10_000.0


def clone(n_lines):
    """(samples, lines found, seconds, CPU seconds, GB above the imports, rms)."""
    from specutils import Spectrum

    from specutils_blase import VoigtForest1D, clone_spectrum
    from specutils_blase.simulation import simulate_star

    warm = simulate_star(1, lower=LOWER * u.AA, upper=(LOWER + 20.0) * u.AA, n_lines=300)
    clone_spectrum(warm.spectrum, teff=4700 * u.K, progress=False)
    lines, span = [], PIECE / DENSITY
    for piece in range(n_lines // PIECE):
        star = simulate_star([2, piece], lower=LOWER * u.AA, upper=(LOWER + span) * u.AA, n_lines=PIECE).model
        lines.append([getattr(star, name).value for name in star.param_names[:4]])
        lines[-1][0] = lines[-1][0] + piece * span
    model = VoigtForest1D(*(np.concatenate(values) * u.AA for values in zip(*lines, strict=True)))
    wave = np.arange(LOWER, LOWER + span * len(lines), 0.01)
    spectrum = Spectrum(flux=model(wave * u.AA) * u.one, spectral_axis=wave * u.AA)
    before = forget_peak()
    with Timer() as timer:
        template = clone_spectrum(spectrum, progress=False)
    after = peak_memory()
    rms = np.std(template.evaluate(spectrum.spectral_axis).flux.value - spectrum.flux.value)
    return spectrum.flux.size, len(template.lines), timer.wall, timer.cpu, before, after, rms


def forget_peak():
    """Start a new measurement of the peak where the system can (Linux); the memory in use, or the old peak [GB]."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_memory()


def main():
    """Print the table and the slopes."""
    if sys.argv[1:2] == ["--one"]:
        print(*clone(int(sys.argv[2])))
        return
    rows, results = [], []
    for size in [int(argument) for argument in sys.argv[1:]] or SIZES:
        command = [sys.executable, str(Path(__file__).resolve()), "--one", str(size)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        samples, lines, wall, cpu, before, after, rms = (float(x) for x in run.stdout.split()[-7:])
        results.append((size, wall, cpu, after - before))
        rows.append((f"{size:,}", f"{samples:,.0f}", f"{lines:,.0f}", f"{wall:.2f}", f"{cpu:.2f}", f"{after:.2f}",
                     f"{after - before:.3f}", f"{rms:.3%}"))  # fmt: skip
    show("clone against size", ("lines", "samples", "found", "seconds", "CPU s", "peak GB", "own GB", "rms"), rows)
    size, *columns = np.log(np.maximum(np.array(results), 1e-6)).T
    for name, column in zip(("wall time", "CPU time", "own memory"), columns, strict=True):
        slope = np.polyfit(size, column, 1)[0]
        print(f"log-log slope of {name}: {slope:.2f} ({'holds' if slope <= 1.05 else 'short'}: at most 1.05)")


if __name__ == "__main__":
    main()
