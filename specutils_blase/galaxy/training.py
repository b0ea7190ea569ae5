"""How a `SpectrumAutoencoder` is learned from galaxies of known redshifts."""

import hashlib
import time
import warnings

import numpy as np

from specutils_blase.errors import BlaseWarning, check_whole, explain
from specutils_blase.galaxy.autoencoder import SpectrumAutoencoder
from specutils_blase.galaxy.density import train_density
from specutils_blase.galaxy.reading import read_surveys
from specutils_blase.io.whole import as_path
from specutils_blase.progress import reporter
from specutils_blase.solvers.checkpoint import read_checkpoint
from specutils_blase.solvers.galaxies import GalaxyModel, train_galaxy_model

__all__ = ["train_autoencoder"]

# Errors of redshifts over their uncertainties that a good catalogue and enough galaxies never have.
SUSPICIOUS = 5.0


def train_autoencoder(spectra, redshift, *, lsf=None, n_latents=8, n_components=48, epochs=100, validation=0.1, seed=0,
                      checkpoint=None, progress=None):  # fmt: skip
    """
    Learn a `SpectrumAutoencoder` from galaxies of known redshifts.

    Components of rest-frame spectra are fitted to all spectra (probabilistic principal components with missing data)
    and freed of the line spread function. The sums of each galaxy over its pixels, through its instrument, then hold
    all that its spectrum says of the components; from these the maps between coefficients and latents are learned,
    with the losses of Liang et al. (2023, AJ 166, 75): fidelity, similarity and consistency. Each galaxy is also shown
    with only those pixels that it would show at the redshift of another one; these must lead to the same latents, and
    to a spectrum that fits all pixels. The density of the latents is learned last, and redshifts of galaxies of the
    validation are compared with the known ones: ``fit_info["redshift_factor"]`` is what uncertainties of redshifts are
    multiplied by, from ``fit_info["redshifts_compared"]`` galaxies.

    Parameters
    ----------
    spectra : Spectrum, SpectrumCollection, SpectrumList, list of Spectrum; or list of several of these
        Galaxies as for `SpectrumAutoencoder.encode`, with uncertainties. A list of tables of galaxies of different
        surveys trains one model together: ``[sdss, desi]``, where each has two dimensions or is a list of cameras.
    redshift : array of shape (n,), or list of arrays
        One for each survey.
    lsf : LSF, list of LSF with one for each camera, or list with one of these for each survey
    n_latents : int
    n_components : int
        Components that the decoder's spectra consist of.
    epochs : int
        At most: training ends when six looks at the validation, each after five epochs, find nothing better.
    validation : float
        Part of the galaxies that are not learned from, and decide that.
    seed : int
        Of all that is random: the same galaxies and seed give the same weights on the same machine.
    checkpoint : path, optional
        A file from which an interrupted training goes on, to the same weights; it stays.
    progress : bool, callable, optional
        As in `specutils_blase.fit_spectrum`.

    Returns
    -------
    SpectrumAutoencoder

    Raises
    ------
    ValueError
        If there are fewer galaxies than ten times the components, or arguments do not fit together.

    Examples
    --------
    Galaxies that differ by the slope of their continuum and by the strength of a line, at several redshifts:

    >>> import numpy as np
    >>> from astropy import units as u
    >>> from astropy.nddata import InverseVariance
    >>> from specutils import Spectrum
    >>> from specutils_blase.galaxy import train_autoencoder
    >>> rng = np.random.default_rng(3)
    >>> z, slope, line = rng.uniform(0, 0.2, 600), rng.uniform(-1, 1, 600), rng.uniform(-1, 1, 600)
    >>> wave = np.arange(5000, 8000, 4.0)
    >>> rest = wave / (1 + z[:, None])
    >>> flux = (rest / 6000) ** slope[:, None] + np.exp(line[:, None] - 0.5 * ((rest - 6000) / 15) ** 2)
    >>> flux = (flux + rng.normal(0, 0.05, flux.shape)) * u.Unit("1e-17 erg / (s cm2 AA)")
    >>> ivar = InverseVariance(np.full(flux.shape, 400.0))
    >>> galaxies = Spectrum(flux=flux, spectral_axis=wave * u.AA, uncertainty=ivar)
    >>> galaxy = train_autoencoder(galaxies, z, n_latents=2, n_components=6, epochs=60, progress=False)
    >>> found = galaxy.reconstruct(galaxies[:50], z[:50])
    >>> print(f"{np.mean(found.meta['chi2'] / found.meta['n_pixels']):.1f}")
    1.0

    It was told neither slope nor line; its latents are these two:

    >>> latents = galaxy.encode(galaxies, z)
    >>> abs(np.corrcoef(latents[:, 0], slope)[0, 1]).round(1), abs(np.corrcoef(latents[:, 1], line)[0, 1]).round(1)
    (np.float64(1.0), np.float64(1.0))
    """
    surveys, z = read_surveys(spectra, redshift, lsf)
    n = len(z)
    _check_numbers(n, n_latents, n_components, epochs, validation, seed)
    seed = int(seed)
    report = reporter(progress)
    identity = {"n_galaxies": str(n), "n_latents": str(n_latents), "n_components": str(n_components),
                "epochs": str(epochs), "validation": str(validation), "seed": str(seed),
                "data": _fingerprint(surveys, z)}  # fmt: skip
    if checkpoint is not None:
        checkpoint = _checked(as_path(checkpoint, "checkpoint"), identity)
    start = time.monotonic()
    model, info = train_galaxy_model(
        surveys, z, n_latents=n_latents, n_components=n_components, epochs=epochs, validation=validation, seed=seed,
        checkpoint=checkpoint, identity=identity, report=report,
    )  # fmt: skip
    density = train_density(info.pop("latents"), seed=seed, report=report)
    factor, compared = GalaxyModel(model.space, density.whiten).redshift_factor(
        surveys, z, info.pop("kept"), lambda done: report(f"redshifts compared: {100 * done:.0f} %"))  # fmt: skip
    report("")
    if factor > SUSPICIOUS:
        warnings.warn(f"errors of redshifts of {compared} galaxies that were not learned from are {factor:.1f} times "
                      "what noise makes them, and uncertainties of fit_redshift have that factor: too few galaxies "
                      "were learned from, or the known redshifts are not as good as that", BlaseWarning,
                      stacklevel=2)  # fmt: skip
    info |= {"n_galaxies": n, "redshift_factor": factor, "redshifts_compared": compared}
    info |= {"seed": seed, "redshifts": [float(z.min()), float(z.max())]}
    return SpectrumAutoencoder(model.space, density, {**info, "wall_time": time.monotonic() - start})


def _check_numbers(n, n_latents, n_components, epochs, validation, seed):
    for name, value, least in (("n_latents", n_latents, 1), ("n_components", n_components, 2), ("epochs", epochs, 1),
                               ("seed", seed, 0)):  # fmt: skip
        check_whole(name, value, least, "give another")
    if n_latents > n_components:
        raise ValueError(explain("n_latents", f"be no more than n_components = {n_components}", n_latents, "lower it"))
    if n < 10 * n_components:
        raise ValueError(explain("spectra", f"have at least {10 * n_components} galaxies for {n_components} components",
                                 n, "give more, or lower n_components"))  # fmt: skip
    if not 0.0 < validation < 0.9:
        raise ValueError(explain("validation", "be a part between 0 and 0.9", validation, "0.1 is usual"))


def _checked(checkpoint, identity):
    """The path, if a run can go on from there or begin to write there."""
    if not checkpoint.parent.is_dir():
        raise FileNotFoundError(explain("checkpoint", "lie in a folder that exists", checkpoint, "make the folder"))
    if checkpoint.exists():
        read_checkpoint(checkpoint, identity)
    return checkpoint


def _fingerprint(groups, z):
    """Of the data of a training, so that a checkpoint of another one is refused."""
    digest = hashlib.sha256(z.tobytes())
    for group in groups:
        for camera in group.cameras:
            # Of resolution matrices the first, for they are many.
            power, bands = camera.power, None if camera.bands is None else camera.bands[0]
            for array in (camera.edges, camera.flux.sum(axis=1), camera.ivar.sum(axis=1), power, bands):
                digest.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
