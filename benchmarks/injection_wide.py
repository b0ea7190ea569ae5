"""A transfer fit of ten thousand lines with all their parameters free: are the errors right?

    python benchmarks/injection_wide.py [--draws 20] [--seed 1] [--snr 300]

One wide simulated spectrum per draw.  Strengths, both widths and centres of the true lines scatter about the template
by the standard deviations of the prior; every draw has its own noise, velocity, rotation and continuum.
"""

import argparse
import warnings

import astropy.units as u
import numpy as np
from common import Timer, peak_memory, pull_row, show

from specutils_blase import GaussianPrior, clone_spectrum, fit_spectrum
from specutils_blase.flags import AT_BOUND, BLENDED, OUTSIDE_WINDOW
from specutils_blase.functional.constants import SPEED_OF_LIGHT
from specutils_blase.simulation import scatter_lines, simulate_order, simulate_star

KMS = u.km / u.s
PRIOR = GaussianPrior(strength=0.1, fwhm=0.1, x_0=0.3 * KMS)
LOWER, UPPER = 10_400 * u.AA, 12_800 * u.AA
N_LINES, N_PIXELS = 36_000, 48_000
MARGIN = 10 * u.AA
SPREAD = PRIOR.x_0.to_value(KMS) / SPEED_OF_LIGHT
# A line is called measured if the data say at least as much about it as the prior.
STRONG = np.sqrt(0.5)


def draw(star, seed, snr):
    """(kind of pull -> values, seconds, lines, status) of one simulated spectrum."""
    rng = np.random.default_rng(seed)
    truth = scatter_lines(star.model, rng, strength=PRIOR.strength, fwhm=PRIOR.fwhm)
    truth.x_0 = truth.x_0.quantity * (1.0 + SPREAD * rng.standard_normal(truth.n_lines))
    order = simulate_order(truth, None, seed=rng, snr=snr, radial_velocity=rng.uniform(-5.0, 5.0) * KMS,
                           vsini=rng.uniform(2.0, 5.0) * KMS, lower=LOWER + MARGIN, upper=UPPER - MARGIN,
                           n_pix=N_PIXELS, continuum=(1.0, *rng.normal(0.0, 0.05, 3)))  # fmt: skip
    with Timer() as timer:
        fit = fit_spectrum(order.spectrum, star, free=("strength", "fwhm", "x_0"), prior=PRIOR, progress=False)
    true = {**order.truth, **{f"continuum_{k}": c for k, c in enumerate(order.truth["continuum"])}}
    pulls = {name: [(value - true[name]) / std]
             for name, value, std, fixed in fit.parameters.iterrows("name", "value", "std", "fixed") if not fixed}
    pulls.update(line_pulls(fit.lines, star.model, truth))
    return pulls, timer.wall, len(fit.lines), fit.fit_info["status"]


def line_pulls(lines, template, truth):
    """Pulls of the lines' parameters, by how much is known about them."""
    # the lines of the fit are those of the template but for some at either end, in its order
    center, n = lines["line_center"].value, len(lines)
    first = min(range(truth.n_lines - n + 1), key=lambda k: np.abs(template.x_0.value[k : k + n] - center).sum())
    mine, flags = slice(first, first + n), np.asarray(lines["flags"])
    seen, blended = (flags & (OUTSIDE_WINDOW | AT_BOUND)) == 0, (flags & BLENDED) > 0
    error = lines["line_center_err"].value
    found = {"centre": ((center - truth.x_0.value[mine]) / error, error / (SPREAD * center))}
    for name, column, spread in (("strength", "strength", PRIOR.strength), ("fwhm_G", "fwhm_gauss", PRIOR.fwhm),
                                 ("fwhm_L", "fwhm_lorentz", PRIOR.fwhm)):  # fmt: skip
        error = (lines[f"{column}_err"] / lines[column]).value
        found[f"ln {column}"] = np.log(lines[column].value / getattr(truth, name).value[mine]) / error, error / spread
    out = {}
    for name, (pull, share) in found.items():
        out[f"{name}, measured, unblended"] = pull[seen & ~blended & (share < STRONG)]
        out[f"{name}, measured, blended"] = pull[seen & blended & (share < STRONG)]
        out[f"{name}, all"] = pull[seen]
    return out


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--snr", type=float, default=300.0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # the bad pixels of every spectrum
    source = simulate_star(args.seed, lower=LOWER, upper=UPPER, n_lines=N_LINES)
    star = clone_spectrum(source.spectrum, teff=4700 * u.K, progress=False)
    pulls, seconds, status, n_lines = {}, [], [], 0
    for number in range(args.draws):
        new, wall, n_lines, how = draw(star, [args.seed, 200, number], args.snr)
        seconds.append(wall), status.append(how)
        for name, values in new.items():
            pulls.setdefault(name, []).extend(values)
    title = (f"{n_lines} lines with all parameters free on {N_PIXELS} pixels, S/N {args.snr:g}: {args.draws} spectra, "
             f"{status.count('converged')} converged, {np.median(seconds):.1f} s each, {peak_memory():.2f} GB")
    rows = [pull_row(name, values) for name, values in pulls.items() if len(values) > 1]
    show(title, ("pull of", "number", "mean", "+-", "width", "+-", "0 +- 0.15, 0.9 to 1.1"), rows)


if __name__ == "__main__":
    main()
