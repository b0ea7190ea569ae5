"""Are the errors of clones of noisy spectra right?  Pulls (recovered - true)/err must be standard normal.

    python benchmarks/clone_calibration.py [--draws 40] [--seed 1] [--snr 300]

Every draw is two simulated spectra of 300 lines with noise of their own.  In the first, 100 lines stand alone and 100
pairs lie about half an Angstrom apart; it is cloned blind.  The second is a crowded forest, cloned twice from the list
of its lines: with starts that are off and everything free, and with strengths that are off and nothing else free.

A line whose table has the flag "blended" counts as blended; lines with the flag "at_bound" are counted only.
"""

import argparse
import warnings

import astropy.units as u
import numpy as np
from astropy.nddata import StdDevUncertainty
from astropy.table import QTable
from common import Timer, pull_row, show
from specutils import Spectrum

from specutils_blase import VoigtForest1D, clone_spectrum
from specutils_blase.flags import AT_BOUND, BLENDED
from specutils_blase.functional.constants import FWHM_PER_SIGMA
from specutils_blase.simulation import equivalent_width
from specutils_blase.solvers.lines import peak_profile

FIRST, STEP = 10_000.0, 0.02  # [Angstrom]
N_ALONE, N_PAIRS, SPACING = 100, 100, 2.0
# Distance of the lines of a pair [Angstrom].
SEPARATION = (0.4, 0.6)
# Mean and least distance of the lines of the forest [Angstrom].
N_CROWDED, CROWDED_SPACING, LEAST = 300, 0.6, 0.3
DEPTH, FWHM_GAUSS, FWHM_LORENTZ = (0.1, 0.7), (0.15, 0.25), (0.05, 0.15)
# Scatter of the starts of given lines: ln strength, ln widths, and the centre [Angstrom].
OFF = {"strength": 0.3, "fwhm_gauss": 0.1, "fwhm_lorentz": 0.1, "line_center": 0.02}
# A line of the clone is that of the truth if each is the other's nearest, and not farther than this [Angstrom].
NEAR = 0.12
COLUMNS = ("strength", "fwhm_gauss", "fwhm_lorentz", "line_center", "equivalent_width")


def draw_lines(center, rng):
    """The table of true lines at increasing centres [Angstrom]."""
    n = len(center)
    gauss, lorentz = rng.uniform(*FWHM_GAUSS, n), rng.uniform(*FWHM_LORENTZ, n)
    strength = -np.log1p(-rng.uniform(*DEPTH, n)) / peak_profile(gauss / FWHM_PER_SIGMA, lorentz / 2.0)
    table = QTable({"line_center": center, "strength": strength, "fwhm_gauss": gauss, "fwhm_lorentz": lorentz,
                    "equivalent_width": equivalent_width(strength, gauss, lorentz)})  # fmt: skip
    return QTable({name: column * u.AA for name, column in table.items()})


def alone_and_pairs(rng):
    """Centres of single lines and of pairs in a random order, each about `SPACING` from the next."""
    is_pair = rng.permutation(np.arange(N_ALONE + N_PAIRS) < N_PAIRS)
    place = FIRST + SPACING * (1.0 + np.arange(is_pair.size)) + rng.uniform(-0.1, 0.1, is_pair.size)
    half = 0.5 * rng.uniform(*SEPARATION, N_PAIRS)
    return np.sort(np.concatenate([place[~is_pair], place[is_pair] - half, place[is_pair] + half]))


def crowded(rng):
    """Centres of a forest."""
    return FIRST + 1.0 + np.cumsum(LEAST + rng.exponential(CROWDED_SPACING - LEAST, N_CROWDED))


def observe(truth, rng, snr):
    """The noisy spectrum of these lines."""
    wave = np.arange(FIRST, truth["line_center"][-1].value + 1.0, STEP) * u.AA
    model = VoigtForest1D(*(truth[name] for name in ("line_center", "strength", "fwhm_gauss", "fwhm_lorentz")),
                          tolerance=1e-9)  # fmt: skip
    flux = model(wave) + rng.normal(0.0, 1.0 / snr, wave.size)
    return Spectrum(flux=flux, spectral_axis=wave, uncertainty=StdDevUncertainty(np.full(wave.size, 1.0 / snr)))


def starts(truth, rng, names):
    """A list of the true lines in which these columns are off."""
    table = truth[list(OFF)]
    for name in names:
        noise = OFF[name] * rng.standard_normal(len(table))
        table[name] = table[name] + noise * u.AA if name == "line_center" else table[name] * np.exp(noise)
    return table


def match(found, true):
    """Rows of `found` (k,) and `true` (n,) [Angstrom] that are each other's nearest, and near."""
    distance = np.abs(found[:, None] - true)
    row = distance.argmin(axis=0)
    same = (distance.argmin(axis=1)[row] == np.arange(true.size)) & (distance.min(axis=0) < NEAR)
    return row[same], np.flatnonzero(same)


def add_pulls(pulls, scene, lines, truth):
    """Append to `pulls` those of the lines of a clone, which are in the order of the truth."""
    flags, blend = np.asarray(lines["flags"]), np.asarray(lines["blend"])
    for label, mine in (("unblended", flags & BLENDED == 0), ("blended", flags & BLENDED > 0)):
        mine = mine & (flags & AT_BOUND == 0)
        for name in COLUMNS:
            if np.any(lines[f"{name}_err"] > 0):
                pull = ((lines[name] - truth[name]) / lines[f"{name}_err"]).value[mine]
                pulls.setdefault(f"{scene}, {label}: {name}", []).extend(pull)
    for number in np.unique(blend[blend >= 0]):
        mine = blend == number
        off = lines["blend_equivalent_width"][mine][0] - truth["equivalent_width"][mine].sum()
        pull = (off / lines["blend_equivalent_width_err"][mine][0]).value
        pulls.setdefault(f"{scene}, sum of a blend: equivalent_width", []).append(pull)


class Tally:
    """Pulls, times and numbers of lines over the draws."""

    def __init__(self, snr):
        self.snr, self.pulls, self.status, self.seconds = snr, {}, [], {}
        self.count = dict.fromkeys(("true lines", "missed", "spurious", "at a limit"), 0)

    def clone(self, scene, source, **options):
        """A clone, counted."""
        with Timer() as timer:
            template = clone_spectrum(source, continuum_degree=0, progress=False, **options)
        self.seconds.setdefault(scene, []).append(timer.wall)
        self.status.append(template.fit_info["status"])
        return template.lines

    def blind(self, rng):
        """Single lines and pairs."""
        truth = draw_lines(alone_and_pairs(rng), rng)
        lines = self.clone("blind", observe(truth, rng, self.snr), prominence=max(0.01, 5.0 / self.snr))
        center = truth["line_center"].value
        row, true = match(lines["line_center"].value, center)
        # what is found in the place of both lines of a pair is neither of them
        missed = np.setdiff1d(np.arange(center.size), true)
        whole = ~(np.abs(center[true][:, None] - center[missed]) < 2.0 * SEPARATION[1]).any(axis=1)
        add_pulls(self.pulls, "blind", lines[row[whole]], truth[true[whole]])
        limited = np.count_nonzero(np.asarray(lines["flags"]) & AT_BOUND)
        for name, more in zip(self.count, (center.size, missed.size, len(lines) - row.size, limited), strict=True):
            self.count[name] += int(more)

    def given(self, rng):
        """The forest."""
        truth = draw_lines(crowded(rng), rng)
        source = observe(truth, rng, self.snr)
        lines = self.clone("all free", source, lines=starts(truth, rng, OFF))
        add_pulls(self.pulls, "all free", lines, truth[lines["list_row"]])
        lines = self.clone("strengths free", source, lines=starts(truth, rng, ["strength"]), free="strength")
        add_pulls(self.pulls, "strengths free", lines, truth[lines["list_row"]])

    def show(self):
        """Print the tables."""
        times = ", ".join(f"{scene} {np.median(wall):.1f} s" for scene, wall in self.seconds.items())
        converged = f"{self.status.count('converged')} of {len(self.status)} converged"
        rows = [pull_row(name, values) for name, values in self.pulls.items() if len(values) > 1]
        show(f"clones at S/N {self.snr:g}, {times}, {converged}",
             ("pull of", "number", "mean", "+-", "width", "+-", "0 +- 0.15, 0.9 to 1.1"), rows)  # fmt: skip
        show("lines of the blind clones", tuple(self.count), [tuple(self.count.values())])


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--snr", type=float, default=300.0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # clones that did not converge are counted
    tally = Tally(args.snr)
    for number in range(args.draws):
        rng = np.random.default_rng([args.seed, number])
        tally.blind(rng), tally.given(rng)
    tally.show()


if __name__ == "__main__":
    main()
