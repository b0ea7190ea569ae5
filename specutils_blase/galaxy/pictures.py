"""Pictures of galaxies and of their predicted lines; matplotlib is imported when the first one is drawn."""

import warnings

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import spearmanr
from specutils import Spectrum, SpectrumCollection

from specutils_blase.drawing import DATA, MODEL, TELLURIC
from specutils_blase.errors import BlaseWarning, check_whole, explain
from specutils_blase.galaxy.line_predictor import LINES, measured_widths, network_inputs
from specutils_blase.orders import members

__all__ = ["plot_embedding", "plot_predictions", "plot_reconstructions"]

# Of the meta of a reconstruction, what a panel tells.
SAID = ("redshift", "chi2", "n_pixels")
# Names for readers.
LABELS = {"OII_DOUBLET": "[O II] 3727, 3729", "HGAMMA": r"H$\gamma$", "HBETA": r"H$\beta$", "OIII_4959": "[O III] 4959",
          "OIII_5007": "[O III] 5007", "NII_6548": "[N II] 6548", "HALPHA": r"H$\alpha$", "NII_6584": "[N II] 6584",
          "SII_6716": "[S II] 6716", "SII_6731": "[S II] 6731"}  # fmt: skip
# Levels of the running curves [%], and galaxies in each of their steps, at least.
LEVELS, FEWEST_IN_STEP, STEPS = (16, 50, 84), 25, 24
# Points of an embedding, at most, and the neighbours that its scatter is that about.
MOST_POINTS, NEIGHBOURS = 12_000, 16


def plot_reconstructions(spectrum, reconstruction, most=6):
    """
    Draw galaxies and what an autoencoder makes of them: a panel for each.

    Parameters
    ----------
    spectrum : Spectrum, SpectrumCollection, SpectrumList or list of Spectrum
        What `SpectrumAutoencoder.reconstruct` was given.
    reconstruction : Spectrum, SpectrumCollection or SpectrumList
        What it returned.
    most : int
        Of panels; the first galaxies are drawn.

    Returns
    -------
    ndarray of Axes, shape (n_panels,)

    Examples
    --------
    >>> import numpy as np
    >>> import matplotlib.pyplot as plt
    >>> from astropy import units as u
    >>> from specutils import Spectrum
    >>> from specutils_blase.galaxy import plot_reconstructions
    >>> wave = np.arange(4000, 5000, 2.0) * u.AA
    >>> flux = np.random.default_rng(1).normal(1, 0.1, (2, 500)) * u.Unit("1e-17 erg / (s cm2 AA)")
    >>> galaxies = Spectrum(flux=flux, spectral_axis=wave)
    >>> found = Spectrum(flux=np.ones((2, 500)) * flux.unit, spectral_axis=wave, meta={"redshift": [0.1, 0.2]})
    >>> axes = plot_reconstructions(galaxies, found)
    >>> print(len(axes), axes[0].get_title(loc="left"))
    2 z = 0.10000
    >>> plt.close(axes[0].figure)
    """
    from matplotlib import pyplot as plt

    if isinstance(spectrum, SpectrumCollection):
        rows, kept = members(spectrum, "spectrum")
        found = [Spectrum(flux=flux[keep], spectral_axis=row.spectral_axis,
                          meta={name: values[k] for name, values in reconstruction.meta.items() if name in SAID})
                 for k, (row, keep, flux) in enumerate(zip(rows, kept, reconstruction.flux, strict=True))]  # fmt: skip
        spectrum, reconstruction = rows, found
    panels = _panels(spectrum, reconstruction)[:most]
    figure, axes = plt.subplots(len(panels), 1, figsize=(11, 2.4 * len(panels) + 0.4), squeeze=False,
                                layout="constrained")  # fmt: skip
    axes = axes[:, 0]
    for ax, (pairs, title) in zip(axes, panels, strict=True):
        for wave, flux, found in pairs:
            ax.plot(wave, flux, color=DATA, lw=0.6, label="observed" if wave is pairs[0][0] else None)
            ax.plot(wave, found, color=MODEL, lw=0.9, label="reconstructed" if wave is pairs[0][0] else None)
        values = np.concatenate([found[np.isfinite(found)] for _, _, found in pairs])
        top, bottom = np.percentile(values, 99.9), np.percentile(values, 0.1)
        ax.set_ylim(min(bottom, 0.0) - 0.1 * (top - bottom), top + 0.35 * (top - bottom))
        ax.set_title(title, loc="left", fontsize="medium")
        ax.margins(x=0.01)
    one = spectrum[0] if isinstance(spectrum, list) else spectrum
    axes[-1].set_xlabel(f"Wavelength [{one.spectral_axis.unit:latex_inline}]")
    figure.supylabel(f"Flux [{one.flux.unit:latex_inline}]", fontsize="medium")
    axes[0].legend(loc="upper right", frameon=False, ncols=2, fontsize="small")
    return axes


def _panels(spectrum, reconstruction):
    """For each galaxy its pieces (wavelengths, flux, reconstruction), and a title."""
    given = list(spectrum) if isinstance(spectrum, list) else [spectrum]
    found = list(reconstruction) if isinstance(reconstruction, list) else [reconstruction]
    panels = []
    if given[0].flux.ndim == 1:
        for one, other in zip(given, found, strict=True):
            panels.append(([_piece(one, one.flux, one.mask, other.flux)], _title(other.meta, ())))
        return panels
    for k in range(len(given[0].flux)):
        pieces = [_piece(one, one.flux[k], None if one.mask is None else one.mask[k], other.flux[k])
                  for one, other in zip(given, found, strict=True)]  # fmt: skip
        panels.append((pieces, _title(found[0].meta, (k,))))
    return panels


def _piece(spectrum, flux, mask, found):
    values = np.array(flux.value, dtype=float)
    if mask is not None:
        values[np.asarray(mask, dtype=bool)] = np.nan
    return spectrum.spectral_axis.value, values, found.value


def _title(meta, row):
    said = {name: np.ravel(np.asarray(meta[name]))[row[0] if row else 0] for name in SAID if name in meta}
    title = f"z = {said['redshift']:.5f}" if "redshift" in said else ""
    if "chi2" in said:
        title += rf",  $\chi^2$ / pixel = {said['chi2'] / said['n_pixels']:.3f}"
    return title


def plot_predictions(predictor, continuum, redshift, equivalent_width):
    """
    Draw the observed equivalent widths of all lines against those that were predicted: a panel for each line.

    The shade is the number of galaxies, the curves are median and central 68 % of the observed widths where the
    prediction is the same, the straight line is equality. A panel says Spearman's correlation and the scatter, 1.48
    times the median of absolute differences. Observed widths have noise, so that the curves widen where lines are weak.

    Parameters
    ----------
    predictor : EmissionLinePredictor
    continuum, redshift
        As for `EmissionLinePredictor.predict`.
    equivalent_width : array or Quantity of shape (n, 10)
        Measured in the rest frame [Angstrom], NaN where there is none; better of galaxies that the predictor has not
        seen.

    Returns
    -------
    ndarray of Axes, shape (2, 5)

    Examples
    --------
    >>> import numpy as np
    >>> from astropy import units as u
    >>> from specutils_blase.galaxy import plot_predictions, train_line_predictor
    >>> rng = np.random.default_rng(1)
    >>> z, slope = rng.uniform(0.05, 0.2, 500), rng.uniform(-1, 1, 500)
    >>> continuum = (np.arange(3550, 7000, 300) / 5500) ** slope[:, None] * u.Unit("1e-17 erg / (s cm2 AA)")
    >>> width = np.exp(1.5 - 2 * slope[:, None] + 0.2 * rng.normal(size=(500, 10)))
    >>> predictor = train_line_predictor(continuum, z, width, np.full((500, 10), 100.0), progress=False)
    >>> axes = plot_predictions(predictor, continuum, z, width)
    >>> axes.shape, axes[1, 1].get_title()
    ((2, 5), 'H$\\\\alpha$')
    >>> from matplotlib import pyplot as plt
    >>> plt.close(axes[0, 0].figure)
    """
    from matplotlib import pyplot as plt

    predicted = predictor.predict(continuum, redshift)
    observed = measured_widths(equivalent_width, len(predicted))
    figure, axes = plt.subplots(2, 5, figsize=(15, 6.5), layout="constrained")
    for ax, name, values in zip(axes.flat, LINES, observed.T, strict=True):
        _draw_prediction(ax, predicted[name].value, values)
        ax.set_title(LABELS[name])
    for ax in axes[:, 0]:
        ax.set_ylabel(r"Observed width [$\mathrm{\AA}$]")
    for ax in axes[1]:
        ax.set_xlabel(r"Predicted width [$\mathrm{\AA}$]")
    drawn = next((ax for ax in axes.flat if ax.get_legend_handles_labels()[0]), None)
    if drawn is not None:
        drawn.legend(loc="lower right", frameon=False, fontsize="small", handlelength=1.6)
    return axes


def plot_embedding(predictor, continuum, redshift, equivalent_width, ivar, line="HALPHA", *, method="pca", seed=0):
    """
    Draw galaxies with alike continua beside each other, coloured by the strength of a line: intrinsic scatter or noise?

    Four panels have the same places and colours: the observed widths; the predicted medians; these with the noise of
    the measurements; and widths drawn from the predicted distributions with the noise, which are to look like the
    observed ones. What the third has more of than the second is noise, what the fourth has more of than the third is
    scatter of the galaxies themselves. The number above a panel is the scatter of the widths about those of the 16
    nearest neighbours.

    Parameters
    ----------
    predictor : EmissionLinePredictor
    continuum, redshift
        As for `EmissionLinePredictor.predict`.
    equivalent_width, ivar : array or Quantity of shape (n, 10)
        Measured widths [Angstrom], NaN where there is none, and their inverse variances.
    line : str
        One of ``predictor.lines``.
    method : {"pca", "umap"}
        How what the network gets (colours, luminosity, redshift; each scaled) becomes two numbers: the first two
        principal components, or UMAP (McInnes et al. 2018, arXiv:1802.03426), for which umap-learn has to be installed.
    seed : int
        Of the noise and the draws, of the choice of galaxies if there are more than 12,000, and of UMAP.

    Returns
    -------
    ndarray of Axes, shape (4,)

    Raises
    ------
    ImportError
        If ``method`` is "umap" and umap-learn is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy import units as u
    >>> from specutils_blase.galaxy import plot_embedding, train_line_predictor
    >>> rng = np.random.default_rng(1)
    >>> z, slope = rng.uniform(0.05, 0.2, 500), rng.uniform(-1, 1, 500)
    >>> continuum = (np.arange(3550, 7000, 300) / 5500) ** slope[:, None] * u.Unit("1e-17 erg / (s cm2 AA)")
    >>> width = np.exp(1.5 - 2 * slope[:, None] + 0.2 * rng.normal(size=(500, 10)))
    >>> ivar = np.full((500, 10), 100.0)
    >>> predictor = train_line_predictor(continuum, z, width, ivar, progress=False)
    >>> axes = plot_embedding(predictor, continuum, z, width, ivar, line="HBETA")
    >>> [ax.get_title().splitlines()[0] for ax in axes]
    ['observed', 'predicted', 'predicted, with noise', 'drawn, with noise']
    >>> from matplotlib import pyplot as plt
    >>> plt.close(axes[0].figure)
    """
    from matplotlib import pyplot as plt
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import LogLocator

    if line not in LINES:
        raise ValueError(explain("line", f"be one of {', '.join(LINES)}", repr(line), "choose one"))
    if method not in ("pca", "umap"):
        raise ValueError(explain("method", 'be "pca" or "umap"', repr(method), "choose one"))
    check_whole("seed", seed, 0, "another draws other galaxies")
    inputs, _ = network_inputs(continuum, redshift)
    observed = measured_widths(equivalent_width, len(inputs))[:, list(LINES).index(line)]
    kinds = _strengths(predictor, (continuum, redshift), observed, ivar, line, seed)
    known = np.flatnonzero(np.isfinite(np.stack(list(kinds.values()))).all(axis=0))
    if known.size <= NEIGHBOURS:
        raise ValueError(explain("equivalent_width", f"have more than {NEIGHBOURS} measurements of {line}", known.size,
                                 "give more galaxies, or another line"))  # fmt: skip
    chosen = np.random.default_rng(seed).permutation(known)[:MOST_POINTS]
    places, names = _pca(inputs[chosen]) if method == "pca" else _umap(inputs[chosen], seed)
    _, near = cKDTree(places).query(places, NEIGHBOURS + 1)
    colors = LogNorm(*np.percentile(kinds["observed"][chosen], (2, 98)))
    figure, axes = plt.subplots(1, 4, figsize=(15, 4.4), layout="constrained", sharex=True, sharey=True)
    for ax, (title, values) in zip(axes, kinds.items(), strict=True):
        values = values[chosen]
        dots = ax.scatter(*places.T, c=values, norm=colors, cmap="viridis", s=min(12.0, 4.5e4 / chosen.size), lw=0,
                          rasterized=True)  # fmt: skip
        logs = np.log10(values)
        scatter = 1.4826 * np.median(np.abs(logs - np.median(logs[near[:, 1:]], axis=1)))
        ax.set_title(f"{title}\nscatter about neighbours {scatter:.2f} dex", fontsize="medium")
        ax.set_xlabel(names[0])
    limits = np.percentile(places, (0.3, 99.7), axis=0)
    limits += np.array([[-0.05], [0.05]]) * np.diff(limits, axis=0)
    axes[0].set(ylabel=names[1], xlim=limits[:, 0], ylim=limits[:, 1])
    bar = figure.colorbar(dots, ax=axes, extend="both", pad=0.01, ticks=LogLocator(subs=(1, 2, 5)), format="%g")
    bar.ax.minorticks_off()
    bar.set_label(f"Width of {LABELS[line]} [$\\mathrm{{\\AA}}$]")
    return axes


def _draw_prediction(ax, predicted, observed):
    """Observed against predicted widths of one line."""
    from matplotlib.ticker import LogLocator, NullFormatter

    known = np.isfinite(predicted) & np.isfinite(observed) & (observed > 0)
    x, y = np.log10(predicted[known]), np.log10(observed[known])
    if not x.size:
        ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, ha="center", color=DATA)
        return
    # Noise makes some widths as good as zero, which are left to the lower edge.
    low = min(np.percentile(x, 0.1), np.percentile(y, 3.0)) - 0.1
    high = max(np.percentile(x, 99.9), np.percentile(y, 99.7)) + 0.1
    ax.hexbin(10**x, 10**y, gridsize=int(np.clip(4 * x.size**0.28, 15, 60)), xscale="log", yscale="log", bins="log",
              mincnt=1, extent=(low, high, low, high), cmap="Greys", lw=0.1, vmin=0.5, rasterized=True)  # fmt: skip
    ends = 10.0 ** np.array([low, high])
    ax.plot(ends, ends, color=TELLURIC, lw=1.0, ls="--", label="equal")
    steps = np.array_split(np.argsort(x), int(np.clip(x.size // FEWEST_IN_STEP, 1, STEPS)))
    place = [10 ** np.median(x[step]) for step in steps]
    below, middle, above = 10 ** np.array([np.percentile(y[step], LEVELS) for step in steps]).T
    ax.plot(place, middle, color=MODEL, lw=1.8, label="median")
    ax.plot(place, below, color=MODEL, lw=0.9, label="central 68 %")
    ax.plot(place, above, color=MODEL, lw=0.9)
    ax.set(xlim=ends, ylim=ends, aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 3) if high - low < 3 else (1,)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    scatter = 1.4826 * np.median(np.abs(10**y - 10**x))
    text = f"{x.size:,} galaxies\nSpearman {spearmanr(x, y).statistic:.3f}\nscatter {scatter:#.2g} $\\mathrm{{\\AA}}$"
    ax.text(0.04, 0.96, text, transform=ax.transAxes, va="top", fontsize="small", linespacing=1.3,
            bbox={"color": "white", "alpha": 0.8, "pad": 1.5, "lw": 0})  # fmt: skip


def _strengths(predictor, galaxies, observed, ivar, line, seed):
    """Widths of a line [Angstrom] by where they come from."""
    kinds = {"observed": observed, "predicted": predictor.predict(*galaxies)[line].value}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BlaseWarning)  # what predict has said
        for name, scatter in (("predicted, with noise", False), ("drawn, with noise", True)):
            kinds[name] = predictor.sample(*galaxies, seed=seed, ivar=ivar, scatter=scatter)[line][:, 0].value
    return {name: np.where(values > 0, values, np.nan) for name, values in kinds.items()}


def _scaled(inputs):
    return (inputs - inputs.mean(axis=0)) / np.maximum(inputs.std(axis=0), 1e-12)


def _pca(inputs):
    """First two principal components, (n, 2), and what to call them."""
    left, values, _ = np.linalg.svd(_scaled(inputs), full_matrices=False)
    share = 100 * values**2 / (values**2).sum()
    return left[:, :2] * values[:2], [f"Principal component {k + 1} ({share[k]:.0f} %)" for k in range(2)]


def _umap(inputs, seed):
    """Places by UMAP, (n, 2), and what to call them."""
    try:
        from umap import UMAP
    except ImportError as error:
        raise ImportError(explain("method", 'be "pca" where umap-learn is not installed', "'umap'",
                                  "pip install specutils-blase[umap]")) from error  # fmt: skip
    # One job, because only then is a seed obeyed, and nothing is said about it.
    return UMAP(random_state=seed, n_jobs=1).fit_transform(_scaled(inputs)), ["UMAP 1", "UMAP 2"]
