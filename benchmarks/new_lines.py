"""Lines that templates lack, over simulated orders: false alarms, completeness, pulls, and the frames of two exposures.

    python benchmarks/new_lines.py [--draws 100]

The strengths of all lines scatter by 0.3 in ln, as the prior says, and are free. Lines that the templates lack have
strengths that give the S/N named, by the curvature of the fit without them, and widths that scatter by a fifth. A line
counts as found if a row lies within half a resolution element.
"""

import argparse
import warnings

import astropy.units as u
import numpy as np
from common import Timer, show

from specutils_blase import BlaseWarning, LineTemplate, VoigtForest1D, find_new_lines, fit_spectrum
from specutils_blase.lines import line_table
from specutils_blase.preparation import model_lines
from specutils_blase.simulation import scatter_lines, simulate_order, simulate_star, simulate_telluric
from specutils_blase.solvers.exposures import Epoch
from specutils_blase.solvers.lines import Lines, peak_profile

KMS = u.km / u.s
LOWER, UPPER, COVERAGE = 10590.0, 10631.0, (10575.0, 10645.0)
VELOCITIES = (-20.0, 0.0)
LEVELS = (3.0, 4.0, 5.0, 6.0, 7.0, 10.0, 20.0)
NEAR = 0.1  # [Angstrom]


def template_of(model, frame):
    """A template without errors."""
    zero, lines = np.zeros(model.n_lines, dtype=int), model_lines(model)
    table = line_table(lines, np.zeros((len(zero), 4, 4)), index=zero, flags=zero)
    return LineTemplate(model, table, meta={"coverage": list(COVERAGE), "frame": frame})


def with_lines(model, lines):
    """A forest with more lines."""
    joint = model_lines(model).join(lines)
    values = (joint.center, joint.strength, joint.sigma * 2.0 * np.sqrt(2.0 * np.log(2.0)), 2.0 * joint.gamma)
    return VoigtForest1D(*(value * u.AA for value in values))


def observe(star, sky, seed, velocity):
    """One exposure."""
    return simulate_order(star, sky, seed=seed, lower=LOWER * u.AA, upper=UPPER * u.AA, n_pix=700, bad_pixels=0,
                          radial_velocity=velocity * KMS, vsini=4 * KMS).spectrum  # fmt: skip


class Draw:
    """Templates, and a star and a sky whose strengths differ from them."""

    def __init__(self, seed):
        low, high = COVERAGE * u.AA
        self.rng = np.random.default_rng(seed)
        self.models = simulate_star(5, lower=low, upper=high, n_lines=350).model, simulate_telluric(
            6, lower=low, upper=high, n_lines=35).model  # fmt: skip
        self.templates = template_of(self.models[0], "rest"), template_of(self.models[1], "observatory")
        self.truth = [scatter_lines(model, self.rng, strength=0.3) for model in self.models]
        self.seed = seed

    def fit(self, truth, velocity, epoch=0):
        """A fit of one exposure of (star, sky)."""
        spectrum = observe(*truth, [self.seed, epoch], velocity)
        return fit_spectrum(spectrum, *self.templates, radial_velocity=velocity * KMS, vsini=4 * KMS, progress=False)

    def missing(self, snr, fits):
        """Lines of star and sky that no template has, where a line can be looked for, and whose each is."""
        center = np.arange(LOWER + 4.0, UPPER - 4.0, 4.0)
        center += self.rng.uniform(-1.2, 1.2, center.size)
        is_star = np.arange(center.size) % 2 == 0 if len(fits) > 1 else np.ones(center.size, dtype=bool)
        near = [model_lines(model) for model in self.models]
        sigma, gamma = (np.where(is_star, *(np.median(getattr(lines, name)) for lines in near))
                        * np.exp(0.2 * self.rng.standard_normal(center.size))
                        for name in ("sigma", "gamma"))  # fmt: skip
        lines = Lines(center, 1.0 / peak_profile(sigma, gamma), sigma, gamma)
        information, seen = np.sum([Epoch(fit.exposure, fits[0].exposure).scores(lines, is_star)[1:3] for fit in fits],
                                   axis=0)  # fmt: skip
        clear = information > 0.3 * seen
        return Lines(center, snr / np.sqrt(information), sigma, gamma).take(clear), is_star[clear]


def false_alarms(draws):
    """Share of orders without missing lines in which some are found."""
    rows, counts = [], np.zeros(3)
    levels = (0.02, 0.1, 0.5)
    for seed in range(draws):
        draw = Draw([1, seed])
        fit = draw.fit(draw.truth, VELOCITIES[0])
        counts += [len(find_new_lines(fit, false_alarm=level)) > 0 for level in levels]
    for level, count in zip(levels, counts, strict=True):
        rows.append((f"{level:.2f}", f"{count / draws:.3f}", f"{np.sqrt(level * (1 - level) / draws):.3f}"))
    show(f"false alarms in {draws} orders", ("asked for", "seen", "scatter"), rows)


def recovery(draws, n_epochs):
    """Completeness, pulls and frames at every S/N."""
    rows = []
    for level in LEVELS:
        n, hits, right, wrong, spurious, pulls, seconds = 0, 0, 0, 0, 0, [], 0.0
        for seed in range(draws):
            draw = Draw([2, seed])
            velocities = VELOCITIES[:n_epochs]
            lines, is_star = draw.missing(level, [draw.fit(draw.truth, v, k) for k, v in enumerate(velocities)])
            truth = [with_lines(model, lines.take(is_star == flag))
                     for model, flag in zip(draw.truth, (True, False), strict=True)]  # fmt: skip
            fits = [draw.fit(truth, v, k + 10) for k, v in enumerate(velocities)]
            with Timer() as timer:
                table = find_new_lines(*fits)
            seconds += timer.wall / draws
            center = table["line_center"].value
            distance = np.abs(center[:, None] - lines.center)
            n, spurious = n + len(lines), spurious + np.count_nonzero((distance > NEAR).all(axis=1))
            for k in range(len(lines)):
                near = np.flatnonzero(distance[:, k] < NEAR)
                if near.size:
                    row = table[near[np.argmin(distance[near, k])]]
                    hits += 1
                    right += row["component"] == ("star" if is_star[k] else "telluric")
                    wrong += row["component"] == ("telluric" if is_star[k] else "star")
                    pulls.append([(row["line_center"].value - lines.center[k]) / row["line_center_err"].value,
                                  (row["strength"].value - lines.strength[k]) / row["strength_err"].value])  # fmt: skip
        pulls = np.array(pulls).reshape(-1, 2)
        rows.append((f"{level:g}", n, f"{hits / n:.2f}", f"{spurious / draws:.2f}",
                     *(f"{np.mean(p):+.2f} {np.std(p):.2f}" if hits else "" for p in pulls.T),
                     f"{right / max(hits, 1):.2f}", f"{wrong / max(hits, 1):.2f}", f"{seconds:.2f}"))  # fmt: skip
    show(f"{n_epochs} exposure(s), {draws} draws", ("S/N", "lines", "found", "others per draw", "centres: mean std",
                                                    "strengths: mean std", "right frame", "wrong frame", "seconds"),
         rows)  # fmt: skip


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=100)
    draws = parser.parse_args().draws
    warnings.simplefilter("ignore", BlaseWarning)
    false_alarms(2 * draws)
    for n_epochs in (1, 2):
        recovery(max(draws // 10, 2), n_epochs)


if __name__ == "__main__":
    main()
