"""A simulated echelle of 28 orders with everything free at once: are the values and errors right?

    python benchmarks/echelle_recovery.py [--draws 12] [--seed 1] [--pixels 512] [--without veiling wavelengths ...]

One star under two telluric species, in orders with gaps and overlaps, blazes and bad pixels of their own.  Every draw
has its own noise, velocity, rotation, resolving power, veiling, two columns, a shift and a stretch of the wavelengths
of every order, and its own strengths of star *and* tellurics, which scatter about the templates as the prior says.
Nothing is given to the fit but the templates and a resolving power that is off.  "--without" leaves an effect out, of
the data and of the fit.
"""

import argparse
import warnings

import astropy.units as u
import numpy as np
from common import Timer, peak_memory, pull_row, show, strength_pulls
from specutils import Spectrum, SpectrumList

from specutils_blase import GaussianPrior, ResolvingPower, clone_spectrum, fit_spectrum
from specutils_blase.simulation import scatter_lines, simulate_order, simulate_star, simulate_telluric

KMS = u.km / u.s
EFFECTS = ("veiling", "wavelengths", "resolution", "strengths", "tellurics")
# A Gaussian throughout, the same for star and tellurics: the truth is drawn from it.
PRIOR = GaussianPrior(strength=0.3)
RESOLVING_POWER = 55_000.0
LOWER, UPPER = 8_000 * u.AA, 12_900 * u.AA
N_STAR, N_WATER = 12_000, 1_500
# Oxygen has one band, in the two last orders.
OXYGEN = {"lower": 12_330 * u.AA, "upper": 12_760 * u.AA, "n_lines": 150}
# Orders have their middle at GRATING / number; of 2,048 pixels the first ones overlap and the last ones leave gaps.
NUMBERS, GRATING = range(77, 49, -1), 632_500.0
PIXEL = 1 / (2.8 * RESOLVING_POWER)
# Every seventh order begins before its neighbour ends, by this share of its length.
OVERLAP = 0.1
# True continua are no better known than the fit can tell: coefficients drawn about a blaze.
BLAZE = (1.0, 0.1, -0.15, 0.03)


def ranges(n_pix):
    """Outer edges of every order [Angstrom]."""
    out = []
    for k, number in enumerate(NUMBERS):
        middle = GRATING / number
        length = middle * PIXEL * n_pix
        lower = out[-1][1] - OVERLAP * length if k % 7 == 6 else middle - 0.5 * length
        out.append((lower, lower + length))
    return out


def templates(seed):
    """Clones of the star, water and oxygen."""
    span = {"lower": LOWER, "upper": UPPER}
    star = simulate_star([seed, 1], n_lines=N_STAR, **span).spectrum
    water = simulate_telluric([seed, 2], n_lines=N_WATER, **span).spectrum
    oxygen = simulate_telluric([seed, 3], **OXYGEN).model
    oxygen = Spectrum(flux=oxygen(water.spectral_axis), spectral_axis=water.spectral_axis, meta=dict(water.meta))
    return [clone_spectrum(star, teff=4700 * u.K, progress=False),
            *(clone_spectrum(sky, continuum_degree=1, progress=False) for sky in (water, oxygen))]  # fmt: skip


def observe(star, sky, rng, n_pix, without):
    """Orders and the truth by the names of the parameters."""
    shared = {
        "radial_velocity": rng.uniform(-80.0, 80.0) * KMS, "vsini": rng.uniform(3.0, 9.0) * KMS,
        "resolving_power": RESOLVING_POWER * (1.0 if "resolution" in without else rng.lognormal(0.0, 0.05)),
        "telluric_scale": () if "tellurics" in without else rng.lognormal(0.0, 0.3, 2),
        "veiling": 0.0 if "veiling" in without else rng.uniform(0.2, 0.5),
    }  # fmt: skip
    spectra, truth = SpectrumList(), {}
    for k, (lower, upper) in enumerate(ranges(n_pix)):
        shift = () if "wavelengths" in without else rng.normal(0.0, 0.2, 2)
        order = simulate_order(star, sky, seed=rng, lower=lower * u.AA, upper=upper * u.AA, n_pix=n_pix,
                               snr=rng.uniform(200.0, 300.0), bad_pixels=n_pix // 80, wavelength_shift=shift,
                               continuum=np.array(BLAZE) * rng.lognormal(0.0, 0.1, len(BLAZE)), **shared)  # fmt: skip
        spectra.append(order.spectrum)
        for name in ("continuum", "wavelength_shift"):
            own = between_good_pixels(order.spectrum, order.truth[name])
            truth.update({f"order_{k}_{name}_{i}": value for i, value in enumerate(own)})
    columns = {f"telluric_scale_{i}": scale for i, scale in enumerate(order.truth["telluric_scale"])}
    return spectra, {**truth, **order.truth, **columns}


def between_good_pixels(spectrum, coefficients):
    """Legendre coefficients between the outermost good pixels, where those of a fit are, of some between the edges."""
    edges = spectrum.spectral_axis.bin_edges.to_value(u.AA)
    good = np.flatnonzero(np.isfinite(spectrum.flux.value) & ~spectrum.mask)
    polynomial = np.polynomial.Legendre(list(coefficients) or [0.0], domain=edges[[0, -1]])
    return polynomial.convert(domain=edges[[good[0], good[-1] + 1]]).coef


def draw(clones, seed, n_pix, without):
    """(kind of pull -> values, the fit, seconds) of one simulated exposure."""
    rng = np.random.default_rng(seed)
    star, *sky = [c.model if "strengths" in without else scatter_lines(c.model, rng, strength=PRIOR.strength)
                  for c in clones]  # fmt: skip
    sky = [] if "tellurics" in without else sky
    spectra, truth = observe(star, sky, rng, n_pix, without)
    with Timer() as timer:
        fit = fit_spectrum(spectra, clones[0], clones[1:] if sky else None, prior=PRIOR, progress=False,
                           lsf=ResolvingPower(RESOLVING_POWER, free="resolution" not in without),
                           free=() if "strengths" in without else ("strength",),
                           wavelength_degree=None if "wavelengths" in without else 1,
                           veiling=None if "veiling" in without else 0)  # fmt: skip
    pulls = {}
    for name, value, std, fixed in fit.parameters.iterrows("name", "value", "std", "fixed"):
        if not fixed:
            kind = name.split("_", 2)[2] if name.startswith("order_") else name
            pulls.setdefault(kind, []).append((value - truth[name]) / std)
    if "strengths" not in without:
        for component, models in (("star", [star]), ("telluric", sky)):
            if models:
                pulls.update(pulls_of_lines(fit, component, models, truth))
    return pulls, fit, timer.wall


def pulls_of_lines(fit, component, models, truth):
    """Pulls of the strengths of star or tellurics; those of tellurics are reported with their column."""
    scales = [1.0] if component == "star" else truth["telluric_scale"]
    center = np.concatenate([model.x_0.value for model in models])
    strength = np.concatenate([model.strength.value * scale for model, scale in zip(models, scales, strict=True)])
    order = np.argsort(center)
    lines = fit.lines[np.asarray(fit.lines["component"]) == component]
    pulls = strength_pulls(lines, center[order], strength[order], PRIOR.strength)
    return {f"{component}'s {name}": values for name, values in pulls.items()}


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pixels", type=int, default=512, help="of every order")
    parser.add_argument("--without", nargs="+", choices=EFFECTS, default=())
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # the bad pixels of every order
    clones = templates(args.seed)
    pulls, seconds, fits = {}, [], []
    for number in range(args.draws):
        new, fit, wall = draw(clones, [args.seed, 300, number], args.pixels, args.without)
        seconds.append(wall), fits.append({**fit.fit_info, **fit.parameters.meta})
        for name, values in new.items():
            pulls.setdefault(name, []).extend(values)
    steps = sorted(info["n_iterations"] for info in fits)
    title = (f"{len(NUMBERS)} orders of {args.pixels} pixels, {fits[-1]['n_lines']} lines: {args.draws} exposures, "
             f"{sum(info['status'] == 'converged' for info in fits)} converged, {np.median(seconds):.1f} s each, "
             f"{steps[0]} to {steps[-1]} steps, chi2/dof {np.mean([i['chi2'] / i['dof'] for i in fits]):.3f}, "
             f"{sum(info['estimate'] == 'mean' for info in fits)} means, {peak_memory():.2f} GB")  # fmt: skip
    rows = [pull_row(name, values) for name, values in pulls.items() if len(values) > 1]
    show(title, ("pull of", "number", "mean", "+-", "width", "+-", "0 +- 0.15, 0.9 to 1.1"), rows)


if __name__ == "__main__":
    main()
