"""Pictures of predicted lines: what is drawn is what went in, and panels say what independent figures say."""

import sys
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from astropy import units as u
from matplotlib import pyplot as plt
from scipy.stats import spearmanr

from specutils_blase import BlaseWarning
from specutils_blase.galaxy import plot_embedding, plot_predictions
from specutils_blase.galaxy.line_predictor import LINES

matplotlib.use("agg")
N = 600


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def galaxies(predictor):
    """Continua of three colours and a half, redshifts, widths with some scatter and noise, inverse variances."""
    rng = np.random.default_rng(4)
    z, slope = rng.uniform(0.05, 0.2, N), rng.uniform(-2, 2, N)
    flux = (np.arange(3550.0, 7000.0, 300.0) / 5500.0) ** slope[:, None] * np.exp(0.02 * rng.normal(size=(N, 12)))
    continuum = flux * u.Unit("1e-17 erg / (s cm2 AA)")
    drawn = predictor.sample(continuum, z, seed=1)
    ivar = np.full((N, len(LINES)), 100.0)
    width = np.stack([drawn[name][:, 0].value for name in LINES], axis=1) + 0.1 * rng.normal(size=(N, len(LINES)))
    width[width <= 0] = np.nan
    width[:50, 6], ivar[:50, 6] = np.nan, 0.0
    return continuum, z, width, ivar


def test_predictions(predictor, galaxies):
    continuum, z, width, _ = galaxies
    axes = plot_predictions(predictor, continuum, z, width * u.AA)
    assert axes.shape == (2, 5)
    predicted = predictor.predict(continuum, z)
    for ax, name, observed in zip(axes.flat, LINES, width.T, strict=True):
        known = np.isfinite(observed)
        x, y = predicted[name].value[known], observed[known]
        text = ax.texts[0].get_text()
        assert f"{known.sum()} galaxies\nSpearman {spearmanr(x, y).statistic:.3f}\n" in text
        assert f"scatter {1.4826 * np.median(np.abs(x - y)):#.2g}" in text
        assert ax.get_xlim() == ax.get_ylim() and ax.get_xscale() == ax.get_yscale() == "log"
        equal, middle, below, above = (line.get_xydata() for line in ax.lines)
        assert np.array_equal(equal[:, 0], equal[:, 1])
        assert (below[:, 1] < middle[:, 1]).all() and (middle[:, 1] < above[:, 1]).all()
        inside = np.interp(np.log(x), np.log(below[:, 0]), np.log(below[:, 1])) < np.log(y)
        inside &= np.interp(np.log(x), np.log(above[:, 0]), np.log(above[:, 1])) > np.log(y)
        assert 0.6 < inside.mean() < 0.76
        assert ax.collections[0].get_array().sum() <= known.sum()


def test_a_line_that_was_never_measured(predictor, galaxies):
    continuum, z, width, _ = galaxies
    width = width.copy()
    width[:, 3] = np.nan
    axes = plot_predictions(predictor, continuum, z, width)
    assert axes[0, 3].texts[0].get_text() == "not measured" and len(axes[0, 2].lines) == 4


def test_embedding(predictor, galaxies):
    continuum, z, width, ivar = galaxies
    axes = plot_embedding(predictor, continuum, z, width, ivar, line="HALPHA")
    assert axes.shape == (4,)
    observed, predicted, noisy, drawn = (ax.collections[0] for ax in axes)
    assert len(observed.get_array()) == np.isfinite(width[:, 6]).sum() <= N - 50
    places = observed.get_offsets()
    for dots in (predicted, noisy, drawn):
        np.testing.assert_array_equal(dots.get_offsets(), places)
        assert dots.norm.vmin == observed.norm.vmin and dots.norm.vmax == observed.norm.vmax
    assert set(observed.get_array()) <= set(width[:, 6])
    assert set(predicted.get_array()) <= set(predictor.predict(continuum, z)["HALPHA"].value)
    # noise moves the medians by about its standard deviation, draws much more
    center, *others = (np.ma.getdata(dots.get_array()) for dots in (predicted, noisy, drawn))
    moved = [np.median(np.abs(values - center)) for values in others]
    assert moved[0] < 0.5 * moved[1]
    # the components are uncorrelated, and the first has the most variance
    covariance = np.cov(places.T)
    assert abs(covariance[0, 1]) < 0.05 * covariance[0, 0] and covariance[0, 0] > covariance[1, 1]
    scatter = [float(ax.get_title().split()[-2]) for ax in axes]
    assert scatter[1] < scatter[0] and scatter[3] == pytest.approx(scatter[0], rel=0.2)


def test_embedding_warns_once(predictor, galaxies):
    continuum, z, width, ivar = galaxies
    with pytest.warns(BlaseWarning, match="galaxies lie beyond") as caught:
        plot_embedding(predictor, 1e20 * continuum, z, width, ivar)
    assert len(caught) == 1


def test_umap_where_it_is_installed(predictor, galaxies, monkeypatch):
    class UMAP:
        def __init__(self, random_state, n_jobs):
            assert (random_state, n_jobs) == (3, 1)

        def fit_transform(self, inputs):
            np.testing.assert_allclose(inputs.std(axis=0), 1.0)
            return inputs[:, :2] * [1.0, -1.0]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=UMAP))
    axes = plot_embedding(predictor, *galaxies, method="umap", seed=3)
    assert axes[0].get_xlabel() == "UMAP 1" and axes[0].get_ylabel() == "UMAP 2"
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ImportError, match=r'method must be "pca" where umap-learn is not installed, got .*\[umap\]'):
        plot_embedding(predictor, *galaxies, method="umap")


@pytest.mark.parametrize(("options", "text"), [
    ({"line": "LYALPHA"}, "line must be one of OII_DOUBLET, HGAMMA, .* got 'LYALPHA'"),
    ({"method": "tsne"}, 'method must be "pca" or "umap", got \'tsne\''),
])  # fmt: skip
def test_bad_options(predictor, galaxies, options, text):
    with pytest.raises(ValueError, match=text):
        plot_embedding(predictor, *galaxies, **options)


def test_too_few_measurements(predictor, galaxies):
    continuum, z, width, ivar = (values[:60] for values in galaxies)
    with pytest.raises(ValueError, match="equivalent_width must have more than 16 measurements of HALPHA"):
        plot_embedding(predictor, continuum, z, width, ivar)


def test_medians_with_noise_alone(predictor, galaxies):
    continuum, z, _, ivar = galaxies
    medians = predictor.predict(continuum, z)
    still = predictor.sample(continuum, z, 3, scatter=False)
    for name in LINES:
        np.testing.assert_allclose(still[name], np.repeat(medians[name][:, None], 3, axis=1), rtol=1e-5)
    noisy = predictor.sample(continuum, z, 400, scatter=False, ivar=ivar)
    bright = medians["SII_6731"] > 5 * u.AA  # cut at zero where they are not
    np.testing.assert_allclose(noisy["SII_6731"][bright].mean(axis=1), medians["SII_6731"][bright], rtol=0.02)
    assert np.isnan(noisy["HALPHA"][:50]).all() and np.isfinite(noisy["HALPHA"][50:]).all()
