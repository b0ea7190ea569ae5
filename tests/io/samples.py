"""Templates, fits and spectra to write and read, and what it means that two of them are the same."""

from dataclasses import fields

import numpy as np
import torch
from astropy import units as u
from astropy.io.fits import Header
from astropy.nddata import StdDevUncertainty
from astropy.table import QTable
from specutils import SpectralAxis, Spectrum

from specutils_blase.covariance import TableCovariance
from specutils_blase.fitting import SpectrumFit
from specutils_blase.galaxy import EmissionLinePredictor
from specutils_blase.modeling import VoigtForest1D
from specutils_blase.nn.line_network import LineNetwork
from specutils_blase.template import LineTemplate

FLUX_UNIT = u.Unit("erg / (s cm2 AA)")
LINE_COLUMNS = {"x_0": "line_center", "strength": "strength", "fwhm_G": "fwhm_gauss", "fwhm_L": "fwhm_lorentz"}


def make_forest(n_lines=5, seed=3, **changes):
    rng = np.random.default_rng(seed)
    arguments = {
        "x_0": np.sort(rng.uniform(5000, 5010, n_lines)) * u.AA,
        "strength": rng.lognormal(-3, 0.5, n_lines) * rng.choice([1, 1, -1], n_lines) * u.AA,
        "fwhm_G": rng.uniform(0.05, 0.2, n_lines) * u.AA,
        "fwhm_L": rng.uniform(0.01, 0.1, n_lines) * u.AA,
        "continuum": np.array([2.5e-13, 1e-14 / 3, -2e-15]) * FLUX_UNIT,
        "continuum_domain": [4999.5, 5010.5] * u.AA,
        "teff": 4715 * u.K,
    }
    return VoigtForest1D(**{**arguments, **changes})


def make_lines(forest, seed=4, component="star"):
    """A line table for the forest, with an error in every quantity and some NaN."""
    rng = np.random.default_rng(seed)
    n = forest.n_lines
    table = QTable(meta={"wavelength_medium": "vacuum", "errors": "formal", "form": forest.form})
    columns = {column: np.atleast_1d(getattr(forest, name).quantity) for name, column in LINE_COLUMNS.items()}
    columns["depth"] = rng.uniform(0, 1, n)
    columns["equivalent_width"] = rng.uniform(0, 1, n) * u.AA
    for name, values in columns.items():
        table[name] = values
        table[f"{name}_err"] = rng.uniform(0, 0.1, n) * getattr(values, "unit", 1)
    table["equivalent_width_err"][0] = np.nan
    table["line_type"] = np.where(table["strength"] < 0, "emission", "absorption")
    table["line_center_index"] = rng.integers(0, 1000, n)
    table["flags"] = rng.integers(0, 15, n)
    table["component"] = np.full(n, component, dtype="U16")
    table["line_center"].info.description = "vacuum wavelength of the line"
    table["flags"].info.description = "bit mask"
    table["depth"].info.format = ".3f"
    return table


def make_template(n_lines=5, seed=3, component="star", **changes):
    forest = make_forest(n_lines, seed, **changes)
    lines = make_lines(forest, seed, component)
    for name, column in LINE_COLUMNS.items():
        getattr(forest, name).std = lines[f"{column}_err"].to_value(u.AA)
    fit_info = {"status": "converged", "message": "done", "rms": 1 / 3, "n_lines": n_lines, "n_ignored": 0,
                "wall_time": 0.25, "device": "cpu", "history": [0.5, 0.25], "exact": False}  # fmt: skip
    meta = {"coverage": [4999.0, 5011.0], "frame": "rest", "source_medium": "air", "error_scale": "as the residual"}
    return LineTemplate(model=forest, lines=lines, fit_info=fit_info, meta=meta)


def make_spectrum(n_pixels=20, seed=5, **changes):
    """A spectrum with NaN, a mask, an uncertainty in a unit of its own, bin edges and a FITS header."""
    rng = np.random.default_rng(seed)
    flux = rng.uniform(0.5, 1, n_pixels)
    flux[3] = np.nan
    edges = (5000 + 10 * np.linspace(0, 1, n_pixels + 1) ** 1.1) * u.AA
    header = Header([("OBJECT", "WASP-69", "a star"), ("EXPTIME", 1 / 3), ("LONGKEY", "x" * 150)])
    header["HISTORY"] = "reduced"
    header["HISTORY"] = "twice"
    arguments = {
        "flux": flux * u.Jy,
        "spectral_axis": SpectralAxis(edges, bin_specification="edges"),
        "uncertainty": StdDevUncertainty(rng.uniform(1, 2, n_pixels), unit=u.mJy),
        "mask": rng.uniform(size=n_pixels) < 0.2,
        "meta": {"wavelength_medium": "air", "header": header, "airmass": 1.5, "orders": [1, 2], "site": None,
                 "resolution": np.linspace(5e4, 6e4, 4), "exposure": 30 * u.s, "offsets": [1.0, np.nan] * u.arcsec},
    }
    return Spectrum(**{**arguments, **changes})


def make_fit(seed=6, **changes):
    observed = make_spectrum()

    def part(scale):
        meta = {**observed.meta, "wavelength_medium": "air"}
        flux = scale * np.arange(1.0, observed.flux.size + 1) * u.Jy
        return Spectrum(flux=flux, spectral_axis=observed.spectral_axis, meta=meta)

    parameters = QTable()
    parameters["name"] = ["radial_velocity", "vsini", "continuum_0"]
    parameters["value"] = [-9.25, 2.2, 1 / 3]
    parameters["std"] = [0.05, np.nan, 1e-3]
    parameters["unit"] = ["km / s", "km / s", ""]
    parameters["fixed"] = [False, True, False]
    parameters["std"].info.description = "standard deviation"
    template = make_template()
    arguments = {
        "observed": observed,
        "template": template,
        "telluric": make_template(3, 9, "telluric", continuum=1 * u.one, continuum_domain=None, teff=None),
        "parameters": parameters,
        "lines": make_lines(template.model),
        "model_spectrum": part(1.0),
        "residual": part(-0.1),
        "components": {"star": part(2.0), "telluric": part(0.5), "continuum": part(1 / 3)},
        "fit_info": {"status": "converged", "chi2": 5.2, "dof": 1987, "condition": 1e7, "message": "fine"},
    }
    return SpectrumFit(**{**arguments, **changes})


def make_predictor(width=4):
    """A predictor whose numbers are as wild as those of a trained one, and the same everywhere."""
    network = LineNetwork(13, 10, ties=[(3, 4, 2.98), (5, 7, 2.96)], width=width)
    state = {}
    for name, value in network.state_dict().items():
        place = np.arange(value.numel(), dtype=float)
        numbers = 0.8 * (place * 0.6180339887 % 1.0 - 0.5) + (name in ("spread", "scale"))
        state[name] = torch.from_numpy(numbers.reshape(value.shape).astype(np.float32))
    state["strength"][1], state["correlation"] = 0.4, 0.5 * torch.eye(10) + 0.5
    network.load_state_dict(state)
    limits = [-0.5 - np.arange(13) / 7, 1.0 + np.arange(13) / 3]
    fit_info = {"n_galaxies": 700, "epochs": 20, "seed": 1, "wall_time": 1 / 3}
    return EmissionLinePredictor(network.eval(), limits, fit_info)


def assert_same(a, b, where="it"):
    """`b` is of the same type as `a` and holds the same bits."""
    b = getattr(b, "loaded", b)  # what is read from an open file when it is asked for
    assert type(b) is type(a), f"{where}: {type(a)} became {type(b)}"
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for k, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{k}]")
    else:
        _PARTS.get(type(a), _assert_equal)(a, b, where)


def _assert_arrays(a, b, where):
    assert a.shape == b.shape and a.dtype.newbyteorder("=") == b.dtype, where
    assert getattr(a, "unit", None) == getattr(b, "unit", None), where
    assert np.asarray(a).astype(b.dtype).tobytes() == np.asarray(b).tobytes(), where
    assert b.flags.writeable or b.shape == (), where


def _assert_equal(a, b, where):
    assert a == b or (a != a and b != b), f"{where}: {a!r} became {b!r}"


def _assert_tables(a, b, where):
    assert a.colnames == b.colnames, where
    assert_same(dict(a.meta), dict(b.meta), f"{where}.meta")
    for name in a.colnames:
        assert_same(a[name].info.description, b[name].info.description, f"{where}[{name!r}] description")
        assert_same(a[name].info.format, b[name].info.format, f"{where}[{name!r}] format")
        assert type(a[name]) is type(b[name])
        kind = u.Quantity if isinstance(a[name], u.Quantity) else np.ndarray
        _assert_arrays(a[name].view(kind), b[name].view(kind), f"{where}[{name!r}]")


def _assert_forests(a, b, where):
    for name in a.param_names:
        p, q = getattr(a, name), getattr(b, name)
        assert p.shape == q.shape and p.unit == q.unit, f"{where}.{name}"
        _assert_arrays(np.asarray(p.value), np.array(q.value), f"{where}.{name}")
        assert_same(p.std, q.std, f"{where}.{name}.std")
        assert (p.fixed, p.bounds) == (q.fixed, q.bounds), f"{where}.{name}"
    for name in ("form", "tolerance", "teff", "continuum_domain", "name", "meta", "inputs", "outputs"):
        x, y = getattr(a, name), getattr(b, name)
        assert_same(dict(x) if name == "meta" else x, dict(y) if name == "meta" else y, f"{where}.{name}")
    if a.line_errors is None or b.line_errors is None:
        assert a.line_errors is b.line_errors, where
    else:
        assert_same(vars(a.line_errors), vars(b.line_errors), f"{where}.line_errors")


def _assert_spectra(a, b, where):
    _assert_arrays(a.flux, b.flux, f"{where}.flux")
    axes = a.spectral_axis, b.spectral_axis
    _assert_arrays(*(u.Quantity(axis) for axis in axes), f"{where}.spectral_axis")
    assert_same(*(getattr(axis, "_bin_edges", None) for axis in axes), f"{where}.bin_edges")
    assert_same(*(axis.doppler_rest for axis in axes), f"{where}.rest_value")
    assert_same(*(axis.doppler_convention for axis in axes), f"{where}.velocity_convention")
    np.testing.assert_allclose(axes[1].radial_velocity.to_value("km/s"), axes[0].radial_velocity.to_value("km/s"))
    assert a.spectral_axis_index == b.spectral_axis_index
    assert_same(a.mask, b.mask, f"{where}.mask")
    assert type(a.uncertainty) is type(b.uncertainty), where
    if a.uncertainty is not None:
        assert a.uncertainty.unit == b.uncertainty.unit, where
        _assert_arrays(a.uncertainty.array, b.uncertainty.array, f"{where}.uncertainty")
    assert_same(dict(a.meta), dict(b.meta), f"{where}.meta")


def _assert_headers(a, b, where):
    assert [tuple(card) for card in a.cards] == [tuple(card) for card in b.cards], where


def _assert_predictors(a, b, where):
    assert a.network.config == b.network.config, where
    states = ({name: value.numpy() for name, value in p.network.state_dict().items()} for p in (a, b))
    assert_same(*states, f"{where}.network")
    assert_same(a.limits, b.limits, f"{where}.limits")
    assert_same(a.fit_info, b.fit_info, f"{where}.fit_info")


def _assert_covariances(a, b, where):
    first, second = a.arrays(), b.arrays()
    assert_same({**first, "n_common": int(first["n_common"])}, {**second, "n_common": int(second["n_common"])}, where)


def _assert_fields(a, b, where):
    for field in fields(a):
        assert_same(getattr(a, field.name), getattr(b, field.name), f"{where}.{field.name}")


_PARTS = {
    np.ndarray: _assert_arrays,
    u.Quantity: _assert_arrays,
    QTable: _assert_tables,
    VoigtForest1D: _assert_forests,
    Spectrum: _assert_spectra,
    Header: _assert_headers,
    TableCovariance: _assert_covariances,
    EmissionLinePredictor: _assert_predictors,
    LineTemplate: _assert_fields,
    SpectrumFit: _assert_fields,
}
