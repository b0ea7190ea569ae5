"""The autoencoder of galaxies: reconstructions against their truth, latents, redshifts, speed, real galaxies, outliers.

    python benchmarks/galaxies.py [SCENARIO ...] [--train N] [--test N] [--latents N] [--seconds S] [--figure FILE.png]

Simulated galaxies as SDSS sees them, of a signal-to-noise ratio of 5 to 30 and redshifts to 0.5; those of the tests are
others than those learned from. Errors are of the reconstruction against the spectrum without noise, over the noise of
the pixel. Scenarios:

reconstruction  errors, beside a PCA of spectra in the rest frame with as many components, and one with weights
placed          latents of one galaxy at ten redshifts
extended        H alpha of galaxies whose redshift has moved it out of the spectrum
redshift        redshifts from the scan, their errors and uncertainties
speed           beside spender, which learns from the same galaxies for --seconds (as long as this one took)
real            galaxies of SDSS and DESI, with a model of simulated ones of both
outliers        spectra that something is wrong with, ranked by how badly they are reconstructed

Without a name, all of them.
"""

import argparse
import time
import warnings
from functools import lru_cache

import astropy.units as u
import numpy as np
from astropy.nddata import InverseVariance
from astropy.table import Table
from common import Timer, require, show
from galaxy_rivals import plain_pca, spender, spender_prediction, to_rest_frame, train_spender, weighted_pca
from matplotlib import pyplot
from scipy.spatial import KDTree
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from specutils import Spectrum, SpectrumList

from specutils_blase import BlaseWarning
from specutils_blase.galaxy import simulate_galaxies, train_autoencoder

# Of simulated galaxies: learned from, and not.
LEARNED, KEPT = 1, 2
REDSHIFTS = np.linspace(0.0, 0.5, 10)
# Those at which the coverage is shown: H alpha leaves the window between the last two.
SHOWN = (0, 4, 7, 8)
LIGHT = 299792.458
# Rest wavelengths of H alpha with [N II], and velocities between which its continuum is taken [Angstrom, km/s].
HALPHA, LINES, BESIDE = 6564.6, (6535.0, 6600.0), (1500.0, 4000.0)
# Widths from which on H alpha counts, and of what is not found [Angstrom].
LEAST, NOTHING = 3.0, 0.3
WIDTHS = ((LEAST, 10.0), (10.0, 30.0), (30.0, np.inf))
NEIGHBOURS = 10
REAL = (("sdss_firefly_spec-0266-51602-0001.fits", "SDSS-III/IV spec", 0.021275),
        ("sdss_gelato_spec-0295-51585-0596.fits", "SDSS-III/IV spec", 0.137877),
        ("desi_fastspecfit_coadd-4-80613.fits", "DESI coadd", "desi_fastspecfit_redrock-4-80613.fits"),
        ("desi_fastspecfit_coadd-special-dark-27247.fits", "DESI coadd",
         "desi_fastspecfit_redrock-special-dark-27247.fits"))  # fmt: skip


def simulated(n, seed, instrument="sdss", **settings):
    """Galaxies from the populations in the shared folder."""
    (path,) = require("galaxy/emiles_padova_chabrier_ssp_350.npz")
    return simulate_galaxies(n, seed, instrument, populations=path, **settings)


def arrays(galaxies):
    """Wavelengths, flux, inverse variance and truth of SDSS-like galaxies."""
    spectra = galaxies.spectra
    ivar = np.where(spectra.mask, 0.0, spectra.uncertainty.array)
    return spectra.spectral_axis.to_value(u.AA), spectra.flux.value, ivar, galaxies.truth.flux.value


def like(spectra, flux, ivar):
    """Spectra with other values; NaN is masked."""
    good = np.isfinite(flux) & (ivar > 0)
    return Spectrum(flux=np.where(good, flux, 0.0) * spectra.flux.unit, spectral_axis=spectra.spectral_axis,
                    uncertainty=InverseVariance(np.where(good, ivar, 0.0)), mask=~good)  # fmt: skip


def learned(spectra, redshift, lsf, n_latents):
    """An autoencoder, and the seconds of each part of its training: of the clock, and of the processors."""
    start, ends = clocks(), {}

    def heard(text):
        if text:
            ends[text.split(":")[0]] = clocks() - start

    autoencoder = train_autoencoder(spectra, redshift, lsf=lsf, n_latents=n_latents, progress=heard)
    ends[list(ends)[-1]] = clocks() - start
    parts = np.diff([np.zeros(2), *ends.values()], axis=0)
    return autoencoder, {**dict(zip(ends, parts, strict=True)), "all": parts.sum(axis=0)}


def clocks():
    """Seconds of the clock and of the processors."""
    return np.array([time.perf_counter(), time.process_time()])


@lru_cache
def trained(n, n_latents):
    """An autoencoder of SDSS-like galaxies, and these."""
    galaxies = simulated(n, LEARNED)
    autoencoder, seconds = learned(galaxies.spectra, galaxies.table["redshift"], galaxies.lsf, n_latents)
    show(f"training with {n} galaxies, {autoencoder.fit_info['epochs']} epochs",
         ("part", "minutes", "of processors", "required"),
         [(name, *(f"{some / 60:.1f}" for some in spent), "60" if name == "all" else "")
          for name, spent in seconds.items()])  # fmt: skip
    return autoencoder, galaxies


def rms(model, truth, ivar):
    """Root of the mean square of errors over the noise, of each galaxy, over pixels where all is known."""
    pull = np.where(ivar > 0, (model - truth) * np.sqrt(ivar), np.nan)
    return np.sqrt(np.nanmean(pull**2, axis=1))


def mean(values):
    """The same of many galaxies."""
    return np.sqrt(np.mean(values**2))


def reconstruction(args):
    """Errors against the truth of three descriptions by as many numbers."""
    autoencoder, seen = trained(args.train, args.latents)
    kept = simulated(args.test, KEPT)
    z, snr = np.array(kept.table["redshift"]), np.array(kept.table["snr"])
    wave, flux, ivar, truth = arrays(kept)
    with Timer() as timer:
        ours = autoencoder.reconstruct(kept.spectra, z, lsf=kept.lsf).flux.value
    ends = autoencoder.spectral_axis.to_value(u.AA)[[0, -1]]
    sets = []
    for galaxies in (seen, kept):
        axis, *values, _ = arrays(galaxies)
        redshift = np.array(galaxies.table["redshift"])
        sets.append((axis, redshift, to_rest_frame(axis, *values, redshift, *ends)))
    plain, start = plain_pca(*sets, args.latents)
    models = {"autoencoder": ours, "PCA": plain, "PCA with weights": weighted_pca(*sets, start)}
    known = np.isfinite(np.sum(list(models.values()), axis=0)) & np.isfinite(truth) & (ivar > 0)
    errors = {name: rms(model, truth, np.where(known, ivar, 0.0)) for name, model in models.items()}
    print(f"\n{args.test} test galaxies; {known.sum() / (ivar > 0).sum():.1%} of the good pixels are compared; "
          f"{timer.wall / args.test * 1e3:.1f} ms each to reconstruct")  # fmt: skip
    all_of = {name: mean(error) for name, error in errors.items()}
    required = {"autoencoder": "0.25"}
    for name, part in (("PCA", 0.7), ("PCA with weights", 0.9)):
        required[name] = f"autoencoder / this {all_of['autoencoder'] / all_of[name]:.2f}, <= {part}"
    bins = ((5, 10), (10, 20), (20, 30))
    rows = [(name, f"{all_of[name]:.3f}", required[name], f"{np.median(error):.3f}", f"{np.quantile(error, 0.99):.3f}",
             *(f"{mean(error[(snr >= low) & (snr < high)]):.3f}" for low, high in bins))
            for name, error in errors.items()]  # fmt: skip
    show(f"error over noise, {args.latents} numbers and a factor", ("", "rms", "required", "median", "99 %",
         *(f"S/N {low}-{high}" for low, high in bins)), rows)  # fmt: skip
    if args.figure:
        order = np.argsort(errors["autoencoder"])
        chosen = order[[len(order) // 10, len(order) // 2, 9 * len(order) // 10, -1]]
        flux = np.where(ivar > 0, flux, np.nan)
        draw(args.figure, [(f"z = {z[k]:.3f}, S/N {snr[k]:.0f}, error {errors['autoencoder'][k]:.2f} of the noise",
                            wave, flux[k], ours[k], truth[k]) for k in chosen])  # fmt: skip


def draw(path, panels):
    """Spectra (title, wavelength, flux, model, truth or None) below each other."""
    figure, axes = pyplot.subplots(len(panels), 1, figsize=(14, 3.2 * len(panels)), squeeze=False)
    for ax, (title, wave, flux, model, truth) in zip(axes[:, 0], panels, strict=True):
        ax.plot(wave, flux, color="0.7", lw=0.5, label="observed")
        if truth is not None:
            ax.plot(wave, truth, color="k", lw=0.8, label="truth")
        ax.plot(wave, model, color="C3", lw=0.8, label="reconstruction")
        low, high = np.nanquantile(flux, (0.002, 0.998))
        high = max(high, 1.05 * np.nanmax(model))
        ax.set(title=title, ylim=(min(low, 0.0), high), xlabel="wavelength [Angstrom]", ylabel="flux")
        ax.legend(loc="upper right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def placed(args):
    """One galaxy at ten redshifts: how far its latents scatter."""
    autoencoder, _ = trained(args.train, args.latents)
    n, latents, variance, coverage = args.placed, {"without noise": [], "S/N 20": []}, [], []
    for z in REDSHIFTS:
        galaxies = simulated(n, KEPT, redshift=np.full(n, z), snr=(20.0, 20.0))
        _, flux, ivar, truth = arrays(galaxies)
        for name, values in (("without noise", truth), ("S/N 20", flux)):
            found = autoencoder.encode(like(galaxies.spectra, values, ivar), np.full(n, z), lsf=galaxies.lsf)
            latents[name].append(np.asarray(found))
        variance.append(np.diagonal(found.covariance, axis1=1, axis2=2))
        coverage.append(np.median(found.coverage, axis=0))
    population = np.var(latents["without noise"], axis=1, ddof=1).mean(axis=0)
    scatter = {name: np.var(values, axis=0, ddof=1).mean(axis=0) for name, values in latents.items()}
    scatter["by the covariance"] = np.mean(variance, axis=(0, 1))
    rows = []
    for k in (None, *range(args.latents)):
        part = slice(None) if k is None else [k]
        rows.append(("all" if k is None else k + 1, f"{np.sqrt(population[part].sum()):.3f}",
                     *(f"{np.sqrt(some[part].sum() / population[part].sum()):.1%}" for some in scatter.values()),
                     "10 %" if k is None else "",
                     *("" if k is None else f"{coverage[place][k]:.2f}" for place in SHOWN)))  # fmt: skip
    show(f"scatter of the latents of {n} galaxies at {len(REDSHIFTS)} redshifts, over that of the population",
         ("latent", "population", *scatter, "required", *(f"coverage at {REDSHIFTS[place]:.2f}" for place in SHOWN)),
         rows)  # fmt: skip


def halpha_width(wave, flux):
    """Equivalent width of H alpha with [N II] in the rest frame [Angstrom], (n,); absorption is negative."""
    velocity = np.abs(np.log(wave / HALPHA)) * LIGHT
    beside, inside = (velocity > BESIDE[0]) & (velocity < BESIDE[1]), (wave > LINES[0]) & (wave < LINES[1])
    continuum = np.nanmean(flux[:, beside], axis=1)
    return ((flux[:, inside] / continuum[:, None] - 1.0) * np.gradient(wave)[inside]).sum(axis=1)


def extended(args):
    """H alpha that no pixel has seen."""
    autoencoder, _ = trained(args.train, args.latents)
    n = args.extended
    far, near = simulated(n, KEPT, redshift=(0.42, 0.5)), simulated(n, KEPT, redshift=(0.05, 0.05))
    z = np.array(far.table["redshift"])
    rest = autoencoder.rest_frame(far.spectra, z, lsf=far.lsf)
    found = halpha_width(rest.spectral_axis.to_value(u.AA), rest.flux.value)
    wave, _, _, truth = arrays(near)
    true = halpha_width(wave / 1.05, truth)
    lines = sum(near.table[name].to_value(u.AA) for name in ("HALPHA", "NII_6548", "NII_6584"))
    strong = true > LEAST
    print(f"\n{strong.sum()} of {n} galaxies have more than {LEAST:g} Angstrom; on their noiseless spectra at redshift "
          f"0.05 the widths are those of the table less {np.median(lines - true):.2f} Angstrom of absorption "
          f"(scatter {np.std(lines - true):.2f})")  # fmt: skip
    log, guess = np.log10(true[strong]), np.log10(np.maximum(found[strong], NOTHING))
    latents = np.asarray(autoencoder.encode(far.spectra, z, lsf=far.lsf))[strong]
    _, index = KDTree(latents).query(latents, NEIGHBOURS + 1)
    near_by = (log - log[index[:, 1:]].mean(axis=1)) * np.sqrt(NEIGHBOURS / (NEIGHBOURS + 1))
    boosted = log - cross_val_predict(HistGradientBoostingRegressor(random_state=0), latents, log, cv=5)
    error, rows = guess - log, []
    for low, high in ((LEAST, np.inf), *WIDTHS):
        some = (true[strong] > low) & (true[strong] <= high)
        rows.append((f"more than {low:g}" if high == np.inf else f"{low:g} to {high:g}", some.sum(),
                     *(f"{form(values[some]):{sign}.3f}" for values, form, sign in (
                         (error, np.mean, "+"), (error, np.std, ""), (near_by, np.std, ""), (error, robust, ""),
                         (near_by, robust, ""), (boosted, np.std, ""), (log, np.std, "")))))  # fmt: skip
    show("log10 of the equivalent width of H alpha + [N II] outside the window [dex], errors; required is "
         f"the scatter about the mean of {NEIGHBOURS} neighbours in latents",
         ("width [A]", "galaxies", "mean", "rms", "required", "68 % half width", "required", "rms of regression",
          "population"), rows)  # fmt: skip


def robust(values):
    """Half of the width of the middle 68 %."""
    return np.diff(np.quantile(values, (0.16, 0.84)))[0] / 2


def redshift(args):
    """Redshifts from the scan against the truth."""
    autoencoder, _ = trained(args.train, args.latents)
    rows = []
    for low, high, n, required in ((10.0, 30.0, args.redshifts, "98 %"), (5.0, 10.0, args.redshifts // 4, "")):
        galaxies = simulated(n, KEPT, snr=(low, high))
        z = np.array(galaxies.table["redshift"])
        with Timer() as timer:
            found = autoencoder.fit_redshift(galaxies.spectra, lsf=galaxies.lsf)
        error = (found.redshift - z) / (1 + z)
        right = np.abs(error) < 1e-3
        pull = (found.redshift - z)[right] / found.uncertainty[right]
        rows.append((f"{low:.0f}-{high:.0f}", n, f"{right.mean():.1%}", required, (found.second < 9).sum(),
                     f"{robust(error[right]) * LIGHT:.1f}", f"{pull.mean():+.2f}", f"{pull.std():.2f}",
                     f"{np.mean(np.abs(pull) < 1.0):.1%}", f"{np.mean(np.abs(pull) < 1.96):.1%}",
                     f"{timer.wall / n:.2f}"))  # fmt: skip
    show("redshifts", ("S/N", "galaxies", "right", "required", "ambiguous", "error [km/s]", "mean pull", "width",
                       "in 68 %", "in 95 %", "seconds each"), rows)  # fmt: skip


def speed(args):
    """Steps of the training, and errors after the same time, of this package and of spender."""
    galaxies, kept = simulated(args.speed, LEARNED), simulated(min(args.test, 500), KEPT)
    z, there = np.array(galaxies.table["redshift"]), np.array(kept.table["redshift"])
    wave, flux, ivar, _ = arrays(galaxies)
    _, seen, weight, truth = arrays(kept)
    autoencoder, seconds = learned(galaxies.spectra, z, galaxies.lsf, args.latents)
    epochs = autoencoder.fit_info["epochs"]
    models = [autoencoder.reconstruct(kept.spectra, there, lsf=kept.lsf).flux.value]
    rows = [(f"autoencoder, {name}", epochs, seconds[part] / epochs / len(z), seconds[part], 0)
            for name, part in (("all", "all"), ("the latents alone", "training"))]  # fmt: skip
    if spender is None:
        print("\nspender is not installed: pip install spender, or see galaxy_rivals.py")
    else:
        other, info = train_spender(wave, flux, ivar, z, args.latents, args.seconds or seconds["all"][0])
        models.append(spender_prediction(other, wave, seen, weight, there))
        rows.append((f"spender, {info['parameters'] / 1e6:.1f} million", info["epochs"], info["step"], info["seconds"],
                     1))  # fmt: skip
        print("\na step of the autoencoder takes {:.3f} of spender's time, {:.3f} of processors, required 0.25".format(
            *rows[0][2] / info["step"]))  # fmt: skip
    known = np.isfinite(np.sum(models, axis=0)) & np.isfinite(truth)
    errors = [mean(rms(model, truth, np.where(known, weight, 0.0))) for model in models]
    show(f"{args.speed} galaxies, {args.latents} latents; what is done once is shared by the epochs",
         ("", "epochs", "ms a galaxy and epoch", "of processors", "seconds", "of processors",
          f"error over noise, {len(there)} others"),
         [(name, f"{count:.0f}", *(f"{1e3 * one:.2f}" for one in step), *(f"{one:.0f}" for one in spent),
           f"{errors[k]:.3f}") for name, count, step, spent, k in rows])  # fmt: skip


def real(args):
    """Galaxies that were observed, with a model of simulated ones of both surveys; then with one fine-tuned to them."""
    surveys = [simulated(args.real, LEARNED, survey) for survey in ("sdss", "desi")]
    with Timer() as timer:
        autoencoder = train_autoencoder(
            [survey.spectra for survey in surveys], [np.array(survey.table["redshift"]) for survey in surveys],
            lsf=[survey.lsf for survey in surveys], n_latents=args.latents)  # fmt: skip
    print(f"\n{autoencoder}, in {timer.wall / 60:.1f} minutes")
    galaxies = [observed(name, loader, catalogue, surveys[0].lsf) for name, loader, catalogue in REAL]
    fits = [autoencoder.fit_redshift(spectra, lsf=lsf) for spectra, lsf, _ in galaxies]
    right = [abs(float(np.squeeze(fit.redshift)) - z) / (1 + z) < 1e-3
             for fit, (_, _, z) in zip(fits, galaxies, strict=True)]  # fmt: skip
    rows, panels = [], []
    for k, ((name, *_), (spectra, lsf, z), fit) in enumerate(zip(REAL, galaxies, fits, strict=True)):
        found = float(np.squeeze(fit.redshift))
        taught = [one for m, one in enumerate(galaxies) if right[m]]
        others = [one for m, one in enumerate(galaxies) if right[m] and m != k]
        models = [autoencoder, tuned(autoencoder, taught), tuned(autoencoder, others)]
        made = [as_list(model.reconstruct(spectra, z, lsf=lsf)) for model in models]
        made.append(as_list(autoencoder.reconstruct(spectra, found, lsf=lsf)))
        chi2 = [float(np.squeeze(one[0].meta["chi2"] / one[0].meta["n_pixels"])) for one in made]
        rows.append((name.split(".")[0], f"{z:.6f}", f"{found:.6f}", f"{float(np.squeeze(fit.uncertainty)):.6f}",
                     f"{abs(found - z) / (1 + z):.6f}", "0.001", *(f"{value:.2f}" for value in chi2)))  # fmt: skip
        cameras = as_list(spectra)
        wave, flux, *seen = (np.concatenate([np.atleast_2d(some)[0] for some in parts]) for parts in (
            [camera.spectral_axis.to_value(u.AA) for camera in cameras], [masked(camera) for camera in cameras],
            *([some.flux.value for some in one] for one in made[:2])))  # fmt: skip
        order = np.argsort(wave)
        for model, value, text in zip(seen, chi2, ("", " after fine-tuning"), strict=False):
            panels.append((f"{name}, z = {z:.6f}, chi2 per pixel {value:.2f}{text}", wave[order], flux[order],
                           model[order], None))  # fmt: skip
    show("observed galaxies; chi2 per pixel at the redshift of the catalogue, fine-tuned to those found at it, "
         "and to those but this one", ("file", "catalogue", "redshift", "error", "off / (1 + z)", "required",
         "chi2", "fine-tuned", "to others", "chi2 at the found redshift"), rows)  # fmt: skip
    if args.figure:
        draw(args.figure, panels)


def tuned(autoencoder, galaxies):
    """Fine-tuned to galaxies (spectra, line spread function, redshift)."""
    spectra, lsf, z = zip(*galaxies, strict=True)
    return autoencoder.fine_tune(list(spectra), [[one] for one in z], lsf=list(lsf), progress=False)


def as_list(spectra):
    """Cameras of a galaxy."""
    return spectra if isinstance(spectra, list) else [spectra]


def masked(spectrum):
    """Flux with NaN where it cannot be used."""
    ivar = spectrum.uncertainty.represent_as(InverseVariance).array
    bad = ~(np.isfinite(ivar) & (ivar > 0)) | (False if spectrum.mask is None else spectrum.mask)
    return np.where(bad, np.nan, spectrum.flux.value)


def observed(name, loader, catalogue, sdss):
    """Spectra in a file, their line spread function, and the redshift of the catalogue."""
    (path,) = require(f"galaxy/{name}")
    if loader != "DESI coadd":
        return Spectrum.read(path, format=loader), sdss, catalogue
    (other,) = require(f"galaxy/{catalogue}")
    cameras = SpectrumList.read(path, format=loader)
    return cameras, None, float(Table.read(other, hdu="REDSHIFTS")["Z"][0])


def spoiled(galaxies, z, seed):
    """Kinds of outliers: (spectra, redshift) of each, all from the same galaxies."""
    random, (wave, flux, ivar, _) = np.random.default_rng(seed), arrays(galaxies)
    n, spectra = len(flux), galaxies.spectra
    level = np.median(flux, axis=1)[:, None]
    wrong = np.where(z > 0.25, z - 0.05 - 0.2 * random.random(n), z + 0.05 + 0.2 * random.random(n))
    other = np.roll(flux, 1, axis=0)
    factor = level / np.roll(level, 1, axis=0) * random.uniform(0.3, 1.0, (n, 1))
    with np.errstate(divide="ignore"):
        both = 1.0 / (1.0 / ivar + factor**2 / np.roll(ivar, 1, axis=0))
    bent = 1.0 + random.uniform(0.15, 0.5, (n, 1)) * np.sin(
        2 * np.pi * (random.uniform(1.0, 4.0, (n, 1)) * (wave - wave[0]) / np.ptp(wave) + random.random((n, 1)))
    )
    # The red arm has another throughput, as when a fibre is not where it should be.
    bent *= np.where(wave > 6000.0, random.choice([0.7, 0.85, 1.2, 1.4], (n, 1)), 1.0)
    nucleus = active(wave, z, level, random)
    return {"wrong redshift": (spectra, wrong), "two spectra": (like(spectra, flux + factor * other, both), z),
            "broad lines": (like(spectra, flux + nucleus, ivar), z),
            "bad fibre": (like(spectra, flux * bent, ivar / bent**2), z)}  # fmt: skip


def active(wave, z, level, random):
    """Light of nuclei: a power law and broad Balmer lines, (n, n_pix)."""
    n, rest = len(z), wave / (1 + z[:, None])
    law = random.uniform(0.2, 1.0, (n, 1)) * (rest / 5500.0) ** random.uniform(-2.0, -0.5, (n, 1))
    sigma = random.uniform(3000.0, 8000.0, (n, 1)) / 2.3548 / LIGHT
    width = random.uniform(50.0, 300.0, (n, 1))
    for center, share in ((6564.6, 1.0), (4862.7, 0.35), (4341.7, 0.16)):
        line = np.exp(-0.5 * ((rest / center - 1.0) / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma * center)
        law = law + share * width * line
    return level * law


def outliers(args):
    """How often an outlier ranks above a galaxy."""
    autoencoder, seen = trained(args.train, args.latents)
    latents = np.asarray(autoencoder.encode(seen.spectra, np.array(seen.table["redshift"]), lsf=seen.lsf))
    center, inverse = latents.mean(axis=0), np.linalg.inv(np.cov(latents.T))
    galaxies = simulated(args.outliers, KEPT)
    z = np.array(galaxies.table["redshift"])

    def scores(spectra, redshift):
        """By each score, the higher the stranger."""
        found = autoencoder.reconstruct(spectra, redshift, lsf=galaxies.lsf)
        away = found.meta["latents"] - center
        return {"chi2 per pixel": found.meta["chi2"] / found.meta["n_pixels"],
                "latents, as Gaussian": np.einsum("nk,kl,nl->n", away, inverse, away),
                "density of latents": -autoencoder.log_probability(found.meta["latents"])}  # fmt: skip

    usual, label, rows = scores(galaxies.spectra, z), np.repeat([0, 1], len(z)), []
    for kind, (spectra, redshift) in spoiled(galaxies, z, KEPT).items():
        strange = scores(spectra, redshift)
        areas = (roc_auc_score(label, np.concatenate([usual[name], strange[name]])) for name in usual)
        rows.append((kind, *(f"{area:.3f}" for area in areas), f"{np.median(strange['chi2 per pixel']):.2f}"))
    show(f"area under the ROC curve, {args.outliers} galaxies and as many of each kind; their median chi2 per pixel is "
         f"{np.median(usual['chi2 per pixel']):.2f}", ("", *usual, "median chi2 per pixel"), rows)  # fmt: skip


SCENARIOS = {scenario.__name__: scenario
             for scenario in (reconstruction, placed, extended, redshift, speed, real, outliers)}  # fmt: skip


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    for name, default, text in (
            ("train", 12_000, "galaxies to learn from"), ("test", 5000, "others, of the reconstruction"),
            ("latents", 10, "numbers that describe a galaxy"), ("placed", 200, "galaxies at ten redshifts"),
            ("extended", 2000, "galaxies without H alpha"), ("redshifts", 1000, "galaxies of which they are found"),
            ("speed", 2000, "galaxies for that scenario"), ("real", 3000, "simulated galaxies of either survey"),
            ("outliers", 500, "galaxies, and of each kind of outlier")):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} ({default})")
    parser.add_argument("--seconds", type=float, help="how long spender is trained")
    parser.add_argument("--figure", help="where to draw the spectra of reconstruction or real; give one of the two")
    args = parser.parse_args()
    if unknown := set(args.scenarios) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    warnings.filterwarnings("ignore", "Sparse CSR")
    warnings.simplefilter("ignore", BlaseWarning)  # redshifts that are ambiguous are counted
    for name in args.scenarios or SCENARIOS:
        SCENARIOS[name](args)


if __name__ == "__main__":
    main()
