"""The method of the paper against this package: the same samples, the same first lines, the same machine.

    python benchmarks/paper_method.py [--samples 30000] [--epochs 200] [--window 6000]

The method of Gully-Santiago & Morley (2022), written anew: lines found by their prominence, pseudo-Voigt profiles in
windows of 6000 samples, opacities added, gradients by automatic differentiation, all lines and the mean squared error
of all samples in every step of Adam.  Its learning rate is the best of three, found in a tenth of the epochs, which
are not counted.  It is float64 and vectorised; indices and distances to the centres at the start are computed once.

Both work on the first samples of the K dwarf after division by its true continuum, and both are judged by the rms of
the residual: the time is that until an iteration first reaches it, for this package with its search for lines, for Adam
without.  That of finished templates, with all errors, is given for one pass, two and four.  Memory is that of the
process, and that beyond what it holds after the imports.  Nothing is extrapolated.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import astropy.units as u
import numpy as np
from common import Timer, peak_memory, read, require, show, true_continuum
from specutils import Spectrum

STAR = "k4700_hpf.fits.gz"
RATES = (0.1, 0.03, 0.01)


def source(samples):
    """The flattened star."""
    (path,) = require(f"stellar/{STAR}")
    star = read(path)
    wave = star.spectral_axis[:samples]
    flux = star.flux.value[:samples] / true_continuum(path, wave.to_value(u.AA))
    return Spectrum(flux=np.asarray(flux, float) * u.one, spectral_axis=wave)


class Forest:
    """All lines in windows of fixed width, as tensors."""

    def __init__(self, spectrum, window):
        import torch

        from specutils_blase import find_lines

        table = find_lines(spectrum, 0.01, continuum_degree=0)
        wave = spectrum.spectral_axis.to_value(u.AA)
        column = {name: torch.tensor(table[name].to_value(u.AA)) for name in
                  ("line_center", "strength", "fwhm_gauss", "fwhm_lorentz")}  # fmt: skip
        self.parameters = [column["strength"].abs().log(), (column["fwhm_gauss"] / 2.3548).log(),
                           (column["fwhm_lorentz"] / 2.0).log(),
                           torch.zeros(len(table), dtype=torch.float64)]  # fmt: skip
        self.sign = column["strength"].sign()[:, None]
        first = np.clip(np.searchsorted(wave, table["line_center"].value) - window // 2, 0, max(wave.size - window, 0))
        pixel = first[:, None] + np.arange(min(window, wave.size))
        self.pixel = torch.from_numpy(pixel)
        self.delta = torch.from_numpy(wave[pixel]) - column["line_center"][:, None]
        self.flux = torch.from_numpy(spectrum.flux.value)

    def start(self):
        """Parameters to be optimised: ln strength, ln sigma, ln gamma, shift [0.01 Angstrom]."""
        return [p.clone().requires_grad_() for p in self.parameters]

    def loss(self, parameters):
        """Mean squared error of the model."""
        import torch

        from specutils_blase.functional import pseudo_voigt

        strength, sigma, gamma, shift = (p[:, None] for p in parameters)
        profile = pseudo_voigt(self.delta - 0.01 * shift, sigma=sigma.exp(), gamma=gamma.exp())
        depth = torch.zeros_like(self.flux)
        depth = depth.index_add(0, self.pixel.ravel(), (self.sign * strength.exp() * profile).ravel())
        return ((torch.exp(-depth) - self.flux) ** 2).mean()


def adam(samples, window, epochs):
    """(lines, learning rate, seconds per epoch, rms at 1/4, 1/2 and all of the epochs, GB, GB after the imports)."""
    import torch

    imported = peak_memory()
    forest = Forest(source(samples), window)

    def train(rate, steps):
        parameters, history = forest.start(), []
        optimiser = torch.optim.Adam(parameters, lr=rate)
        for _ in range(steps):
            optimiser.zero_grad()
            loss = forest.loss(parameters)
            loss.backward()
            optimiser.step()
            history.append(loss.item())
        return np.sqrt(np.array(history))

    rate = min(RATES, key=lambda r: train(r, max(epochs // 10, 10))[-1])
    with Timer() as timer:
        rms = train(rate, epochs)
    return (len(forest.sign), rate, timer.wall / epochs, *(rms[epochs * k // 4 - 1] for k in (1, 2, 4)), peak_memory(),
            imported)  # fmt: skip


def banded(samples, passes):
    """(lines, seconds, rms, GB, GB after the imports, then seconds and rms of every iteration) of a clone.

    It is the second one in its process.
    """
    from specutils_blase import clone_spectrum

    imported, history = peak_memory(), []

    def watch(message):
        if "rms" in message:
            history.extend((time.perf_counter() - begin, float(message.split()[-1].rstrip("%")) / 100.0))

    spectrum = source(samples)
    small = Spectrum(flux=spectrum.flux[:5000], spectral_axis=spectrum.spectral_axis[:5000])
    clone_spectrum(small, continuum_degree=0, progress=False)
    begin = time.perf_counter()
    with Timer() as timer:
        template = clone_spectrum(spectrum, continuum_degree=0, passes=passes, progress=watch)
    rms = np.std(template.evaluate(spectrum.spectral_axis).flux.value - spectrum.flux.value)
    return len(template.lines), timer.wall, rms, peak_memory(), imported, *history


def apart(*arguments):
    """The numbers that this script prints in a process of its own."""
    run = subprocess.run([sys.executable, str(Path(__file__).resolve()), *map(str, arguments)], capture_output=True,
                         text=True, check=True)  # fmt: skip
    return [float(x) for x in run.stdout.split()]


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=30_000)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--window", type=int, default=6000)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        result = banded(args.samples, args.one) if args.one else adam(args.samples, args.window, args.epochs)
        print(*map(float, result))
        return
    source(10)  # ends here if the star is not there
    common = ("--samples", args.samples, "--window", args.window, "--epochs", args.epochs)
    lines, rate, epoch, *rms, memory, imported = apart(*common, "--one", 0)
    show(f"the paper's method: {args.samples} samples, {lines:.0f} lines, windows of {args.window}, Adam at {rate:g}",
         ("epochs", "seconds", "rms", "GB", "GB beyond imports"),
         [(n, f"{n * epoch:.1f}", f"{r:.3%}", f"{memory:.2f}", f"{memory - imported:.2f}")
          for n, r in zip((args.epochs // 4, args.epochs // 2, args.epochs), rms, strict=True)])  # fmt: skip
    ours = [(passes, *apart(*common, "--one", passes)) for passes in (1, 2, 4)]
    show("this package, finished", ("passes", "lines", "seconds", "rms", "GB", "GB beyond imports"),
         [(p, f"{n:.0f}", f"{s:.2f}", f"{r:.3%}", f"{m:.2f}", f"{m - i:.2f}") for p, n, s, r, m, i, *_ in ours])
    _, _, _, best, own, own_imported, *history = ours[-1]
    reached = [(k, r, next(s for s, own_rms in zip(history[::2], history[1::2], strict=True) if own_rms <= r))
               for k, r in zip((args.epochs // 4, args.epochs // 2, args.epochs), rms, strict=True)]  # fmt: skip
    show("until an iteration first has the rms", ("rms", "Adam, s", "this package, s", "ratio"),
         [(f"{r:.3%}", f"{k * epoch:.1f}", f"{s:.2f}", f"{k * epoch / s:.0f}") for k, r, s in reached])
    print(f"\nMemory of the processes {memory / own:.1f} times, beyond the imports "
          f"{(memory - imported) / (own - own_imported):.1f} times.")
    print(f"The {best:.3%} of four passes are beyond the lines that Adam has; its rms falls as the power "
          f"{np.log(rms[-1] / rms[0]) / np.log(4.0):.2f} of the epochs.")


if __name__ == "__main__":
    main()
