"""Are the errors right?  Many simulated orders are fitted; pulls (recovered - true)/std must be standard normal.

    python benchmarks/injection_recovery.py [--draws 100] [--seed 1] [--snr 300]

Every draw has its own noise, bad pixels, velocity, rotation, water column and strengths: the true strengths scatter
about those of the template by the standard deviation of the prior.  Orders with an odd number also have a resolving
power of their own, which is then free in the fit.  The simulator shares nothing with the fit but the Voigt profile.
"""

import argparse
import warnings

import astropy.units as u
import numpy as np
from common import Timer, pull_row, show, strength_pulls

from specutils_blase import fit_spectrum
from specutils_blase.demo import clone_sources
from specutils_blase.instrument import ResolvingPower
from specutils_blase.priors import GaussianPrior
from specutils_blase.simulation import scatter_lines, simulate_order

KMS = u.km / u.s
PRIOR = GaussianPrior(strength=0.3, tail=3.0)  # the default
RESOLVING_POWER = 55_000.0
# True continua are no better known than the fit can tell: coefficients drawn about a blaze.
BLAZE = (1.0, 0.1, -0.15, 0.03)


def draw(star, sky, seed, snr, free_resolution):
    """(kind of pull -> values, seconds, chi2/dof) of one simulated order."""
    rng = np.random.default_rng(seed)
    truth = scatter_lines(star.model, rng, strength=PRIOR.strength)
    power = RESOLVING_POWER * rng.lognormal(0.0, 0.05) if free_resolution else RESOLVING_POWER
    order = simulate_order(
        truth, sky.model, seed=rng, snr=snr, resolving_power=power,
        radial_velocity=rng.uniform(-80.0, 80.0) * KMS, vsini=rng.uniform(3.0, 9.0) * KMS,
        telluric_scale=rng.lognormal(0.0, 0.3), continuum=np.array(BLAZE) * rng.lognormal(0.0, 0.1, len(BLAZE)),
    )  # fmt: skip
    with Timer() as timer:
        fit = fit_spectrum(order.spectrum, star, telluric=sky, lsf=ResolvingPower(RESOLVING_POWER, free_resolution),
                           free={"star": ("strength",), "telluric": ()}, prior=PRIOR, progress=False)  # fmt: skip
    true = {**order.truth, **{f"continuum_{k}": c for k, c in enumerate(order.truth["continuum"])}}
    pulls = {}
    for name, value, std, fixed in fit.parameters.iterrows("name", "value", "std", "fixed"):
        if not fixed:
            name_of = f"{name} ({'R free' if free_resolution else 'R known'})" if name == "vsini" else name
            pulls[name_of] = [(value - true[name]) / std]
    lines = fit.lines[np.asarray(fit.lines["component"]) == "star"]
    pulls.update(strength_pulls(lines, truth.x_0.value, truth.strength.value, PRIOR.strength))
    return pulls, timer.wall, fit.fit_info["chi2"] / fit.fit_info["dof"], fit.fit_info["status"]


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--snr", type=float, default=300.0)
    args = parser.parse_args()
    star, sky = (cloned.template for cloned in clone_sources(args.seed, progress=False))
    pulls, seconds, chi2, status = {}, [], [], []
    warnings.simplefilter("ignore")  # the bad pixels of every order
    for number in range(args.draws):
        new, wall, reduced, how = draw(star, sky, [args.seed, 100, number], args.snr, bool(number % 2))
        seconds.append(wall), chi2.append(reduced), status.append(how)
        for name, values in new.items():
            pulls.setdefault(name, []).extend(values)
    title = (f"injection and recovery: {args.draws} orders at S/N {args.snr:g}, {np.median(seconds):.2f} s each, "
             f"chi2/dof {np.mean(chi2):.3f}, {status.count('converged')} converged")  # fmt: skip
    rows = [pull_row(name, values) for name, values in pulls.items() if len(values) > 1]
    show(title, ("pull of", "number", "mean", "+-", "width", "+-", "0 +- 0.15, 0.9 to 1.1"), rows)


if __name__ == "__main__":
    main()
