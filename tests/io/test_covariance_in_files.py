"""Covariances between lines survive in files that were asked to hold them, and nowhere else."""

import copy
import pickle

import asdf
import numpy as np
import pytest
from astropy import units as u

from specutils_blase import LineTemplate, SpectrumFit, clone_spectrum, fit_spectrum
from specutils_blase.priors import GaussianPrior
from specutils_blase.simulation import simulate_order, simulate_star, simulate_telluric
from specutils_blase.solvers.banded import BandedCorner

KMS = u.km / u.s
QUANTITIES = ("equivalent_width", "strength", "fwhm_gauss", "depth", "line_center")


@pytest.fixture(scope="module")
def clones():
    window = {"lower": 10500 * u.AA, "upper": 10524 * u.AA}
    star, sky = simulate_star(1, n_lines=150, **window), simulate_telluric(2, n_lines=16, **window)
    return (star, sky, clone_spectrum(star.spectrum, continuum_degree=1, teff=4700 * u.K),
            clone_spectrum(sky.spectrum, prominence=0.005, continuum_degree=1))  # fmt: skip


def fit_orders(clones, n_orders):
    star, sky, template, telluric = clones
    lowers = np.linspace(10504, 10511, n_orders)
    orders = [simulate_order(star.model, sky.model, seed=3 + k, lower=lower * u.AA, upper=(lower + 8) * u.AA, n_pix=140,
                             radial_velocity=5 * KMS, vsini=4 * KMS, bad_pixels=0).spectrum
              for k, lower in enumerate(lowers)]  # fmt: skip
    return fit_spectrum(orders[0] if n_orders == 1 else orders, template, telluric, radial_velocity=5 * KMS,
                        vsini=4 * KMS, free=("strength", "fwhm"), prior=GaussianPrior(strength=0.5),
                        progress=False)  # fmt: skip


@pytest.fixture(scope="module", params=[1, 2], ids=["one order", "two orders"])
def fit(request, clones):
    return fit_orders(clones, request.param)


def same(a, b, rows):
    for name in QUANTITIES:
        np.testing.assert_allclose(b.covariance(rows, name), a.covariance(rows, name), rtol=1e-12, atol=1e-300)


def test_of_a_template(clones, tmp_path):
    template = clones[2]
    template.write(tmp_path / "with.asdf", covariance=True)
    back = LineTemplate.read(tmp_path / "with.asdf")
    same(template, back, slice(None))
    errors = np.sqrt(np.diag(back.covariance(slice(None), "strength")))
    np.testing.assert_allclose(errors, back.lines["strength_err"], rtol=1e-6, atol=1e-12 * errors.max())
    back.write(tmp_path / "again.asdf", covariance=True)
    same(template, LineTemplate.read(tmp_path / "again.asdf"), back.lines[3:9])


def test_of_a_fit(fit, tmp_path):
    fit.write(tmp_path / "with.asdf", covariance=True)
    back = SpectrumFit.read(tmp_path / "with.asdf")
    rows = slice(None, None, 3)
    assert set(fit.lines["component"][rows]) == {"star", "telluric"}
    same(fit, back, rows)
    if isinstance(fit.observed, list):
        assert isinstance(back.line_covariance.covariance.factor.schur, BandedCorner)
    with asdf.open(tmp_path / "with.asdf") as file:
        same(fit, file["fit"], [0, 5])


def test_only_where_they_are_asked_for(clones, fit, tmp_path):
    for kind, whole in ((LineTemplate, clones[2]), (SpectrumFit, fit)):
        whole.write(tmp_path / "without.asdf", overwrite=True)
        back = kind.read(tmp_path / "without.asdf")
        with pytest.raises(ValueError, match="files written without covariance=True"):
            back.covariance([0])
        back.write(tmp_path / "without.asdf", overwrite=True, covariance=True)  # there are none
        assert b"n_common" not in (tmp_path / "without.asdf").read_bytes()


BROKEN = {
    "start": lambda a: {"start": a["start"] + 1},
    "columns": lambda a: {"start": a["start"][::2]},
    "ends": lambda a: {"start": np.append(0, np.arange(len(a["tiles"]) - len(a["start"]) + 2, len(a["tiles"])) + 1)},
    "tiles": lambda a: {"tiles": a["tiles"][:-1]},
    "shape": lambda a: {"tiles": a["tiles"][:, :2]},
    "border": lambda a: {"border": a["border"][:-8]},
    "corner": lambda a: {"corner": a["corner"][:-1, :-1]},
    "n_common": lambda a: {"n_common": len(a["corner"])},
    "place": lambda a: {"place": a["place"] + len(a["border"]) + len(a["corner"])},
    "negative": lambda a: {"place": a["place"] - 2},
    "unit": lambda a: {"unit": a["unit"][:, :-1]},
}  # fmt: skip


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN.keys())
def test_arrays_that_do_not_fit_together(change, clones, tmp_path, monkeypatch):
    """No tampered file reaches the compiled kernels."""
    template = clones[2]
    arrays = template.line_covariance.arrays()
    monkeypatch.setattr(template.line_covariance, "arrays", lambda: {**arrays, **change(arrays)}, raising=False)
    template.write(tmp_path / "bad.asdf", covariance=True)
    with pytest.raises(ValueError, match="bad.asdf is truncated or damaged .*covariance"):
        LineTemplate.read(tmp_path / "bad.asdf")


def test_of_an_open_file_is_read_when_it_is_asked_for(clones, tmp_path):
    template = clones[2]
    template.write(tmp_path / "with.asdf", covariance=True)
    with asdf.open(tmp_path / "with.asdf") as file:
        lazy = file["template"]
        assert "loaded" not in vars(lazy.line_covariance)
        same(template, lazy, slice(2, 8))
        assert "loaded" in vars(lazy.line_covariance)
        lazy.write(tmp_path / "copy.asdf", covariance=True)
        copies = copy.deepcopy(file["template"]), pickle.loads(pickle.dumps(file["template"]))
    for one in copies:
        same(template, one, slice(2, 8))
    same(template, lazy, slice(2, 8))  # what has been read stays
    same(template, LineTemplate.read(tmp_path / "copy.asdf"), slice(2, 8))
    with asdf.open(tmp_path / "with.asdf") as file:
        unread = file["template"]
    with pytest.raises(OSError, match="closed"):
        unread.covariance(slice(2, 8))
