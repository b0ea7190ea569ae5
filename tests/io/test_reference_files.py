"""
Files written by released versions are read for ever.

``tests/data`` holds one file for each tag and version, written by the version of the package that introduced it with
the functions below. They are never written again; a new version of a tag adds a file and a function.
"""

from dataclasses import replace
from pathlib import Path

import asdf
import numpy as np
import pytest
from astropy import units as u
from astropy.io.fits import Header
from astropy.nddata import StdDevUncertainty
from astropy.table import QTable
from specutils import SpectralAxis, Spectrum

from specutils_blase.covariance import TableCovariance
from specutils_blase.fitting import SpectrumFit
from specutils_blase.io.files import read_asdf, write_asdf
from specutils_blase.modeling import VoigtForest1D
from specutils_blase.template import LineTemplate

from .samples import assert_same, make_predictor

DATA = Path(__file__).parents[1] / "data"


def voigt_forest_1d_1_0_0():
    forest = VoigtForest1D(
        x_0=[5001.0, 5004.25, 5006.125] * u.AA,
        strength=[0.1, -0.03, 1 / 3] * u.AA,
        fwhm_G=[0.1, 0.2, 0.05] * u.AA,
        fwhm_L=[0.05, 0.02, 0.0] * u.AA,
        continuum=[2e-13, 1e-14 / 3] * u.Unit("erg / (s cm2 AA)"),
        continuum_domain=[4998.0, 5008.0] * u.AA,
        teff=4715 * u.K,
        form="product",
        tolerance=1e-5,
        name="reference",
    )
    forest.x_0.std = np.array([1e-4, np.nan, 3e-4])
    forest.fwhm_L.bounds = (0, None)
    forest.continuum.fixed = False
    forest.meta["note"] = "é"
    return forest


def line_template_1_0_0():
    lines = QTable(meta={"wavelength_medium": "vacuum"})
    lines["line_center"] = [5001.0, 5004.25, 5006.125] * u.AA
    lines["line_center_err"] = [1e-4, np.nan, 3e-4] * u.AA
    lines["line_type"] = ["absorption", "emission", "absorption"]
    lines["line_center_index"] = [10, 20, 30]
    lines["depth"] = [0.25, -0.125, 1 / 3]
    lines["line_center"].info.description = "vacuum wavelength of the line"
    lines["depth"].info.format = ".3f"
    fit_info = {"status": "converged", "rms": 1 / 3, "n_lines": 3, "exact": True, "history": [1.5, 2]}
    meta = {"wavelength_medium": "vacuum", "frame": "observatory", "coverage": [4998.0, 5008.0], "source_medium": "air",
            "package_version": "0.1", "error_scale": "formal"}  # fmt: skip
    return LineTemplate(voigt_forest_1d_1_0_0(), lines, fit_info, meta)


def covariance_1_0_0():
    """Two lines that share a number, of five: a Cholesky factor in three tiles and a corner."""
    tiles = np.zeros((3, 4, 4))
    tiles[0], tiles[1], tiles[2] = np.triu(np.arange(1.0, 17.0).reshape(4, 4)), 0.25, np.diag([2.0, 1.0, 1.0, 1.0])
    tiles[1, :, 1:] = 0.0  # the matrix ends within the second tile
    place = np.array([[[0, -1, -1, 1], [2, 3, -1, -1], [4, -1, -1, -1]], [[5, -1, -1, -1], [5, -1, -1, -1], [-1] * 4]])
    lines = {"center": [5001.0, 5004.25, 5006.125], "strength": [0.1, -0.03, 1 / 3], "sigma": [0.04, 0.08, 0.02],
             "gamma": [0.025, 0.01, 0.0]}  # fmt: skip
    return TableCovariance.from_arrays(
        tiles=tiles, start=np.array([0, 2, 3]), border=np.array([[0.5], [0.0], [0.25], [0.0], [1 / 3]]),
        corner=np.array([[2.0]]), n_common=-1, place=place, unit=np.where(place < 0, 1.0, 0.5),
        scale=np.array([1.0, 2.0, 1 / 3]), product=np.array([True, True, True]), rows=np.arange(3),
        **{name: np.array(values) for name, values in lines.items()},
    )  # fmt: skip


def spectrum_fit_1_0_0():
    header = Header([("OBJECT", "WASP-69"), ("EXPTIME", 1 / 3, "seconds")])
    axis = SpectralAxis(np.array([5000.0, 5001.0, 5002.5, 5004.0]) * u.AA, bin_specification="edges")

    def part(flux, **more):
        meta = {"wavelength_medium": "air", "header": header}
        return Spectrum(flux=flux * u.Jy, spectral_axis=axis, meta=meta, **more)

    observed = part(
        np.array([1.0, np.nan, 0.5], dtype="f4"),
        uncertainty=StdDevUncertainty([10.0, 20.0, 30.0], unit=u.mJy),
        mask=np.array([False, True, False]),
    )
    parameters = QTable({"name": ["radial_velocity", "vsini"], "value": [-9.25, 2.2], "std": [0.05, np.nan],
                         "unit": ["km / s", "km / s"], "fixed": [False, True]})  # fmt: skip
    template = line_template_1_0_0()
    return SpectrumFit(
        observed=observed,
        template=template,
        telluric=[line_template_1_0_0()],
        parameters=parameters,
        lines=template.lines.copy(),
        model_spectrum=part(np.array([1.0, 0.75, 0.5])),
        residual=part(np.array([0.0, np.nan, 1 / 3])),
        components={"star": part(np.array([0.5, 0.25, 0.125])), "continuum": part(np.ones(3))},
        fit_info={"status": "max_iterations", "chi2": 5.2, "dof": 1987},
    )


def covariance_in_template_1_0_0():
    return replace(line_template_1_0_0(), line_covariance=covariance_1_0_0())


REFERENCES = {
    "covariance-1.0.0": covariance_in_template_1_0_0,
    "voigt_forest_1d-1.0.0": voigt_forest_1d_1_0_0,
    "line_template-1.0.0": line_template_1_0_0,
    "spectrum_fit-1.0.0": spectrum_fit_1_0_0,
    "emission_line_predictor-1.0.0": make_predictor,
}


def write_reference(name):
    """How the file of a new version is made, once."""
    write_asdf(DATA / f"{name}.asdf", {"reference": REFERENCES[name]()})


@pytest.mark.filterwarnings("ignore::asdf.exceptions.AsdfPackageVersionWarning")  # an older asdf may read them
@pytest.mark.parametrize("name", REFERENCES)
def test_reference_file_is_read(name, strict_asdf):
    with asdf.open(DATA / f"{name}.asdf") as file:
        assert_same(REFERENCES[name](), file["reference"])


@pytest.mark.parametrize("name", ["covariance-1.0.0", "line_template-1.0.0", "spectrum_fit-1.0.0",
                                  "emission_line_predictor-1.0.0"])  # fmt: skip
def test_reference_file_is_read_by_the_package(name):
    assert_same(REFERENCES[name](), read_asdf(DATA / f"{name}.asdf"))


def test_every_file_has_its_test_and_is_small():
    assert {path.stem for path in DATA.glob("*.asdf")} == set(REFERENCES)
    assert max(path.stat().st_size for path in DATA.glob("*.asdf")) < 20_000
