"""Every way to sum lines against the dense sum of exact profiles, with wings that reach across the whole grid."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import wofz

from specutils_blase import VoigtForest1D
from specutils_blase.functional import compiled, forest, multilevel
from specutils_blase.functional.constants import FWHM_PER_SIGMA

pytestmark = pytest.mark.usefixtures("every_target")

LOWER, UPPER = 8450.0, 8700.0


def power(low, high):
    return st.floats(low, high).map(lambda x: 10.0**x)


def lines_of(strength, gamma):
    """(centre, signed strength, sigma, gamma): some of the centres lie beyond the grid."""
    signed = st.tuples(st.sampled_from([1.0, 1.0, -1.0]), strength).map(np.prod)
    return st.tuples(st.floats(LOWER - 30.0, UPPER + 30.0), signed, power(-3.0, 0.0), gamma)


weak = lines_of(power(-5.0, 0.0), power(-6.0, 0.0))
# as the lines of hydrogen, of ionised calcium and of the alkalis in cool stars
broad = lines_of(power(0.0, 3.0), power(-2.0, 0.8))
many = st.lists(weak | broad, min_size=1, max_size=6).map(lambda rows: np.array(rows).T.copy())
tolerances = power(-9.0, -3.0)


@st.composite
def grids(draw):
    """Irregular pixels in one to four orders with gaps between them."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    edges = np.sort(rng.uniform(LOWER, UPPER, 2 * draw(st.integers(1, 4))))
    parts = [rng.uniform(low, high, draw(st.sampled_from([1, 30, 3000]))) for low, high in edges.reshape(-1, 2)]
    return np.unique(np.concatenate(parts))


def dense(wave, lines):
    """Optical depth of every line at every pixel, and what the profiles may be off, shapes (n_lines, n_pix)."""
    center, strength, sigma, gamma = (row[:, None] for row in lines)
    root, norm = sigma * np.sqrt(2.0), strength / (sigma * np.sqrt(2.0 * np.pi))
    depth = norm * wofz(((wave - center) + 1j * gamma) / root).real
    return depth, np.maximum(1e-9 * np.abs(depth), 1e-12 * np.abs(norm * wofz(1j * gamma / root).real))


def by_torch(wave, lines, tolerance, function=forest.optical_depth):
    center, strength, sigma, gamma = (torch.from_numpy(row) for row in lines)
    pixels = torch.from_numpy(wave)
    pairs = forest.line_pixel_pairs(pixels, center, forest.half_width(strength.abs(), sigma, gamma, tolerance))
    return function(pixels, center=center, log_strength=strength.abs().log(), log_sigma=sigma.log(),
                    log_gamma=gamma.log(), sign=strength.sign(), pairs=pairs).numpy()  # fmt: skip


DEPTHS = {
    "compiled": lambda wave, lines, tolerance: compiled.optical_depth(wave, *lines, tolerance),
    "multilevel": lambda wave, lines, tolerance: multilevel.optical_depth(wave, *lines, tolerance),
    "torch": by_torch,
}


@pytest.mark.parametrize("way", DEPTHS)
@settings(max_examples=80, deadline=None)
@given(wave=grids(), lines=many, tolerance=tolerances)
def test_depth_is_the_dense_one_to_the_tolerance_of_each_line(way, wave, lines, tolerance):
    depth, inexact = dense(wave, lines)
    error = np.abs(DEPTHS[way](wave, lines, tolerance) - depth.sum(axis=0))
    assert (error <= len(depth) * tolerance + inexact.sum(axis=0)).all()


@pytest.mark.parametrize("way", DEPTHS)
@pytest.mark.parametrize("seed", range(5))
def test_the_tolerance_holds_where_a_line_is_cut_and_interpolated(way, seed):
    wave = np.sort(np.random.default_rng(seed).uniform(LOWER, UPPER, 20_000))
    lines = np.array([[UPPER - 2.0], [1.7], [0.026], [0.064]])
    tolerance = 9.3e-7  # reaches 194 Angstrom
    depth, inexact = dense(wave, lines)
    error = np.abs(DEPTHS[way](wave, lines, tolerance) - depth[0])
    assert 0.9 * tolerance < error.max()
    assert (error <= tolerance + inexact[0]).all()


def model_of(lines, tolerance, form):
    center, strength, sigma, gamma = lines
    return VoigtForest1D(center, strength, FWHM_PER_SIGMA * sigma, 2 * gamma, tolerance=tolerance, form=form)


TRANSMISSIONS = {
    "model": lambda wave, lines, tolerance, form: model_of(lines, tolerance, form)(wave),
    "torch": lambda wave, lines, tolerance, form: (
        np.exp(-by_torch(wave, lines, tolerance)) if form == "opacity" else
        by_torch(wave, lines, tolerance, forest.product_transmission)
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", ["opacity", "product"])
@pytest.mark.parametrize("way", TRANSMISSIONS)
@settings(max_examples=60, deadline=None)
@given(wave=grids(), lines=many, tolerance=tolerances)
def test_transmission_is_the_dense_one_to_the_tolerance_of_each_line(way, form, wave, lines, tolerance):
    lines[1] = np.maximum(lines[1], -0.1 * lines[2])  # emission that does not overflow
    depth, inexact = dense(wave, lines)
    factor = np.exp(-depth) if form == "opacity" else np.maximum(1.0 - depth, 0.0)
    expected = factor.prod(axis=0)
    flux = TRANSMISSIONS[way](wave, lines, tolerance, form)
    brightest = np.maximum(factor, 1.0).prod(axis=0)  # what multiplies the error of a factor
    allowed = (len(depth) * tolerance + inexact.sum(axis=0)) * brightest + 1e-15
    if form == "opacity":
        allowed = np.expm1(len(depth) * tolerance + inexact.sum(axis=0)) * expected + 1e-15
    assert (np.abs(flux - expected) <= allowed).all()
