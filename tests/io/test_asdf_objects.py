"""Templates, fits and the spectra and tables in them, through files of this package and through plain asdf."""

import subprocess
import sys
from dataclasses import replace
from importlib.metadata import entry_points

import asdf
import numpy as np
import pytest
import yaml
from astropy import units as u
from astropy.io.fits import Card, Header
from astropy.io.fits.verify import VerifyWarning
from astropy.nddata import InverseVariance, NDUncertainty, StdDevUncertainty, UnknownUncertainty, VarianceUncertainty
from astropy.table import Column, MaskedColumn, QTable
from astropy.time import Time
from astropy.utils.masked import Masked
from specutils import SpectralAxis, Spectrum

from specutils_blase.fitting import SpectrumFit
from specutils_blase.galaxy import EmissionLinePredictor, SpectrumAutoencoder
from specutils_blase.io.asdf.extension import BASE_URI, get_extensions, get_resource_mappings
from specutils_blase.io.asdf.tags import VERSIONS
from specutils_blase.io.files import read_asdf, write_asdf
from specutils_blase.lines import line_table
from specutils_blase.solvers.lines import Lines
from specutils_blase.template import LineTemplate

from .samples import (
    FLUX_UNIT,
    LINE_COLUMNS,
    assert_same,
    make_fit,
    make_forest,
    make_lines,
    make_spectrum,
    make_template,
)

pytestmark = pytest.mark.usefixtures("strict_asdf")

NO_LINES = {"continuum": 1 * u.one, "continuum_domain": None, "teff": None}


def through_file(value, tmp_path):
    path = tmp_path / "own.asdf"
    write_asdf(path, {"content": value}, overwrite=True)
    return read_asdf(path)


TEMPLATES = {
    "star": make_template(),
    "telluric": make_template(3, **NO_LINES),
    "one line": make_template(1),
    "emission": make_template(4, strength=-np.ones(4) * u.AA),
    "scaled flux unit": make_template(continuum=[1, 2] * u.Unit("1e-17 erg / (s cm2 AA)")),
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_template_comes_back_to_the_bit(template, tmp_path, roundtrip):
    assert_same(template, through_file(template, tmp_path))
    assert_same(template, roundtrip(template))  # in a file of the user's own making


FITS = {
    "star and telluric": make_fit(),
    "telluric list": make_fit(telluric=[make_template(2, 1, **NO_LINES), make_template(3, 2, **NO_LINES)]),
    "no telluric": make_fit(telluric=None, components={"star": make_spectrum()}),
    "no star": make_fit(template=None),
    "no lines": make_fit(lines=make_lines(make_forest())[:0]),
}


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS.keys())
def test_fit_comes_back_to_the_bit(fit, tmp_path):
    assert_same(fit, through_file(fit, tmp_path))


def test_fit_in_a_file_of_the_users_own_making(roundtrip):
    fit = make_fit()
    assert_same(fit, roundtrip(fit))


def axis(values, **changes):
    return SpectralAxis(values, **changes)


def uncertain(kind, unit, n=20):
    return kind(np.linspace(0.0, 1.0, n), unit=unit)


SPECTRA = {
    "edges, mask, NaN, header": make_spectrum(),
    "no mask, no uncertainty": make_spectrum(flux=np.ones(20) * u.Jy, mask=None, uncertainty=None),
    "NaN masked by itself": Spectrum(flux=[1, np.nan, 3] * u.Jy, spectral_axis=[1, 2, 3] * u.um),
    "variance": make_spectrum(uncertainty=uncertain(VarianceUncertainty, u.mJy**2)),
    "inverse variance": make_spectrum(uncertainty=uncertain(InverseVariance, u.mJy**-2)),
    "unit left to the flux": make_spectrum(uncertainty=uncertain(StdDevUncertainty, None)),
    "unknown uncertainty": make_spectrum(uncertainty=uncertain(UnknownUncertainty, None)),
    "integer mask": make_spectrum(mask=np.arange(20) % 3),
    "float32": make_spectrum(flux=np.linspace(0, 1, 20, dtype="f4") * FLUX_UNIT, uncertainty=None),
    "centres": make_spectrum(spectral_axis=np.linspace(5000, 5010, 20) ** 1.01 * u.AA),
    "decreasing": make_spectrum(spectral_axis=np.linspace(5010, 5000, 20) * u.AA),
    "frequency": make_spectrum(spectral_axis=np.geomspace(500, 600, 20) * u.THz),
    "decreasing edges": make_spectrum(spectral_axis=axis(np.linspace(9, 8, 21) * u.nm, bin_specification="edges")),
    "velocity": make_spectrum(
        spectral_axis=np.linspace(-30, 30, 20) * u.km / u.s, rest_value=5005.5 * u.AA, velocity_convention="optical"
    ),
    "radial velocity": make_spectrum(
        spectral_axis=axis(np.linspace(5000, 5010, 20) * u.AA, radial_velocity=-9.25 * u.km / u.s)
    ),
    "not contiguous": make_spectrum(
        flux=np.arange(40.0)[::2] * u.Jy, spectral_axis=np.arange(5000.0, 5080)[::-4] * u.AA, uncertainty=None
    ),
    "broadcast": make_spectrum(flux=np.broadcast_to(2.0, 20) * u.Jy),
    "empty meta": make_spectrum(meta={}),
    "two dimensions": make_spectrum(
        flux=np.arange(400.0).reshape(20, 20) * u.Jy, spectral_axis=np.arange(20.0) * u.um,
        spectral_axis_index=0, mask=np.eye(20, dtype=bool), uncertainty=None,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def spectra_back(tmp_path_factory):
    """All of them in one file, which takes a twentieth of the time."""
    return through_file(make_fit(components=SPECTRA), tmp_path_factory.mktemp("spectra")).components


@pytest.mark.parametrize("name", SPECTRA)
def test_spectrum_comes_back_to_the_bit(name, spectra_back):
    assert_same(SPECTRA[name], spectra_back[name])


def test_big_endian_values_come_back_native(tmp_path):
    swapped = Spectrum(
        flux=np.linspace(0, 1, 20).astype(">f4") * u.Jy,
        spectral_axis=np.linspace(5000, 5010, 20).astype(">f8") * u.AA,
        uncertainty=StdDevUncertainty(np.linspace(1, 2, 20).astype(">f4")),
        mask=np.arange(20).astype(">i2"),
    )
    assert swapped.flux.dtype.byteorder == ">"
    table = QTable({"a": Column(np.arange(3).astype(">i4")), "b": np.arange(3.0).astype(">f8") * u.m})
    back = through_file(make_fit(observed=swapped, parameters=table), tmp_path)
    for array in (back.observed.flux, back.observed.spectral_axis, back.observed.uncertainty.array, back.observed.mask,
                  back.parameters["a"], back.parameters["b"]):  # fmt: skip
        assert array.dtype.isnative
    assert_same(swapped, back.observed)
    assert_same(table, back.parameters)


def test_subclass_comes_back_as_spectrum(tmp_path):
    class Echelle(Spectrum):
        pass

    echelle = Echelle(flux=[1, 2] * u.Jy, spectral_axis=[1, 2] * u.um)
    assert type(through_file(make_fit(observed=echelle), tmp_path).observed) is Spectrum


def test_uncertainty_without_meaning_is_left_out(tmp_path):
    class Odd(NDUncertainty):
        uncertainty_type = "odd"

        def _data_unit_to_uncertainty_unit(self, value):
            return value

        _propagate_add = _propagate_subtract = _propagate_multiply = _propagate_divide = None

    spectrum = make_spectrum(uncertainty=Odd(np.ones(20)))
    assert through_file(make_fit(observed=spectrum), tmp_path).observed.uncertainty is None


def test_parts_of_a_fit_do_not_share_memory(tmp_path):
    """In the file one axis and one header serve six spectra; in memory a change of one must not reach the others."""
    back = through_file(make_fit(), tmp_path)
    before = back.residual.spectral_axis.value.copy()
    back.model_spectrum.meta["orders"].append(3)
    back.model_spectrum.meta["header"]["OBJECT"] = "another"
    back.model_spectrum.spectral_axis.value[:] = 0
    back.template.lines["line_center"][:] = 0 * u.AA
    assert back.residual.meta["orders"] == [1, 2]
    assert back.residual.meta["header"]["OBJECT"] == "WASP-69"
    assert np.array_equal(back.residual.spectral_axis.value, before)
    assert (back.template.model.x_0.value > 0).all() and (back.lines["line_center"].value > 0).all()


METAS = {
    "base": {"a": np.arange(3.0), "b": 1 * u.m, "c": 1, "d": [1, 2]},
    "value": {"a": np.arange(3.0) + 1e-9, "b": 1 * u.m, "c": 1, "d": [1, 2]},
    "shape": {"a": np.arange(4.0), "b": 1 * u.m, "c": 1, "d": [1, 2]},
    "dtype": {"a": np.arange(3), "b": 1 * u.m, "c": 1, "d": [1, 2]},
    "unit": {"a": np.arange(3.0), "b": 100 * u.cm, "c": 1, "d": [1, 2]},
    "type": {"a": np.arange(3.0), "b": 1 * u.m, "c": True, "d": [1, 2]},
    "float": {"a": np.arange(3.0), "b": 1 * u.m, "c": 1.0, "d": [1, 2]},
    "length": {"a": np.arange(3.0), "b": 1 * u.m, "c": 1, "d": [1, 2, 3]},
    "key": {"a": np.arange(3.0), "b": 1 * u.m, "c": 1, "e": [1, 2]},
    "same": {"a": np.arange(3.0), "b": 1 * u.m, "c": 1, "d": [1, 2]},
}


def test_only_equal_metadata_are_written_once(tmp_path):
    spectra = {name: make_spectrum(meta=meta) for name, meta in METAS.items()}
    path = tmp_path / "fit.asdf"
    write_asdf(path, make_fit(components=spectra))
    back = read_asdf(path).components
    for name, meta in METAS.items():
        assert_same(meta, dict(back[name].meta), name)
    parts = asdf.util.load_yaml(path)["fit"]["components"]
    assert parts["same"]["meta"] is parts["base"]["meta"]


def test_equal_arrays_are_stored_once(tmp_path):
    write_asdf(tmp_path / "shared.asdf", {"template": make_template(5000)})
    shared = make_template(5000)
    for name in ("line_center", "strength", "fwhm_gauss", "fwhm_lorentz"):
        shared.lines[name] *= 1.0 + 1e-12
    write_asdf(tmp_path / "apart.asdf", {"template": shared})
    difference = (tmp_path / "apart.asdf").stat().st_size - (tmp_path / "shared.asdf").stat().st_size
    assert difference > 3 * 5000 * 8


def test_view_of_a_large_array_is_stored_without_the_rest(tmp_path):
    large = np.random.default_rng(1).uniform(size=200_000)
    flux, sigma = u.Quantity(large[:20], u.Jy, copy=False), StdDevUncertainty(large[20:40], copy=False)
    spectrum = make_spectrum(flux=flux, uncertainty=sigma)
    assert np.shares_memory(spectrum.flux.value, large) and np.shares_memory(spectrum.uncertainty.array, large)
    write_asdf(tmp_path / "fit.asdf", {"fit": make_fit(observed=spectrum)})
    assert (tmp_path / "fit.asdf").stat().st_size < 100_000


def test_masked_columns_come_back(tmp_path):
    table = QTable(
        {
            "number": MaskedColumn([1.0, 2.0, np.nan], mask=[True, False, False]),
            "text": MaskedColumn(["a", "bc", "d"], mask=[False, True, False]),
            "length": Masked([1.0, 2.0, 3.0] * u.AA, mask=[False, False, True]),
        }
    )
    table["length"].info.description = "in Angstrom"
    back = through_file(make_fit(parameters=table), tmp_path).parameters
    assert back["length"].info.description == "in Angstrom"
    for name in table.colnames:
        assert type(back[name]) is type(table[name])
        assert np.array_equal(back[name].mask, table[name].mask)
    assert np.array_equal(back["number"].filled(0), table["number"].filled(0), equal_nan=True)
    assert list(back["text"].filled("-")) == ["a", "-", "d"]
    assert_same(table["length"].filled(0 * u.AA), back["length"].filled(0 * u.AA))


@pytest.mark.parametrize(
    ("column", "kind"), [(Time(["2024-01-01"] * 3), "Time"), (np.array([None] * 3), "Column")], ids=["Time", "object"]
)
def test_column_without_numbers_is_refused(column, kind, tmp_path):
    table = QTable({"value": [1.0, 2.0, 3.0], "odd": column})
    with pytest.raises(ValueError, match=f"column 'odd' of a table cannot be written: it holds {kind} objects"):
        write_asdf(tmp_path / "fit.asdf", {"fit": make_fit(parameters=table)})
    assert not list(tmp_path.iterdir())


def test_file_tells_foreign_readers_what_it_holds(tmp_path):
    """The plain YAML: version, medium, units, continuum, status, without any of our code."""
    write_asdf(tmp_path / "fit.asdf", {"fit": make_fit()})
    fit = asdf.util.load_yaml(tmp_path / "fit.asdf")["fit"]
    assert fit["package_version"]
    assert fit["fit_info"]["values"]["status"] == "converged"
    assert fit["observed"]["meta"]["values"]["wavelength_medium"] == "air"
    assert fit["observed"]["flux"]["unit"] == "Jy" and fit["observed"]["uncertainty"]["unit"] == "mJy"
    template = fit["template"]
    assert template["meta"]["values"].items() >= {"wavelength_medium": "vacuum", "frame": "rest"}.items()
    assert template["meta"]["values"]["package_version"]
    assert template["fit_info"]["values"]["status"] == "converged"
    model = template["model"]
    assert model["wavelength_medium"] == "vacuum" and model["x_0"]["unit"] == "Angstrom"
    assert u.Unit(model["continuum"]["unit"]) == FLUX_UNIT and model["teff"]["unit"] == "K"
    assert model["continuum"]["value"]["shape"] == [3]


def test_arrays_are_compressed_and_the_extension_is_named(tmp_path):
    path = tmp_path / "template.asdf"
    write_asdf(path, {"template": make_template(500)})
    content = path.read_bytes()
    assert content.count(b"\xd3BLK") == content.count(b"zlib") > 10
    with asdf.open(path) as file:
        named = {entry["extension_uri"]: entry.get("software", {}) for entry in file["history"]["extensions"]}
    assert named[f"{BASE_URI}/extensions/specutils_blase-1.0.0"]["name"] == "specutils-blase"


def test_size_of_a_large_template(tmp_path):
    """With the columns of a clone: 1.1 MB."""
    rng = np.random.default_rng(3)
    lines = Lines(np.sort(rng.uniform(8000, 12_000, 15_000)), *rng.lognormal(-3, 0.5, (3, 15_000)))
    blends = rng.integers(0, 4000, 15_000), *rng.uniform(0, 1, (2, 15_000))
    covariance = np.eye(4) * rng.lognormal(-5, 1, (15_000, 4))[:, None]
    table = line_table(lines, covariance, index=np.arange(15_000) * 21, flags=blends[0] % 5, blends=blends)
    template = make_template(15_000)
    for name, column in LINE_COLUMNS.items():
        setattr(template.model, name, table[column])
        getattr(template.model, name).std = table[f"{column}_err"].to_value(u.AA)
    template = replace(template, lines=table)
    template.write(tmp_path / "t.asdf")
    assert_same(template, LineTemplate.read(tmp_path / "t.asdf"))
    assert (tmp_path / "t.asdf").stat().st_size < 1.5e6


# ------------------------------------------------------------------------------------------------- the extension itself


def test_entry_points_are_those_of_this_module():
    for group, function in (("asdf.extensions", get_extensions), ("asdf.resource_mappings", get_resource_mappings)):
        (point,) = (p for p in entry_points(group=group) if p.name == "specutils_blase")
        assert point.load() is function


def test_resources_are_named_for_what_they_hold():
    resources = {uri: mapping[uri] for mapping in get_resource_mappings() for uri in mapping}
    assert resources
    for uri, content in resources.items():
        assert yaml.safe_load(content)["id"] == uri
    extension_uris = [extension.extension_uri for extension in get_extensions()]
    assert len(set(extension_uris)) == len(extension_uris)


def test_every_tag_has_a_schema_a_converter_and_a_version():
    (extension,) = get_extensions()
    tags = {tag.tag_uri: tag.schema_uris for tag in extension.tags}
    assert set(tags) == {f"{BASE_URI}/tags/{name}-{v}" for name, versions in VERSIONS.items() for v in versions}
    assert set(tags) == {tag for converter in extension.converters for tag in converter.tags}
    manager = asdf.get_config().resource_manager
    for tag, (schema,) in tags.items():
        assert schema == tag.replace("/tags/", "/schemas/") and manager[schema]


def test_types_exist_where_the_converters_say():
    types = {name for extension in get_extensions() for converter in extension.converters for name in converter.types}
    classes = (LineTemplate, SpectrumFit, EmissionLinePredictor, SpectrumAutoencoder, type(make_forest()))
    known = {f"{cls.__module__}.{cls.__qualname__}" for cls in classes}
    assert types == known


def test_loading_the_extension_is_light():
    code = (
        "import sys; from specutils_blase.io.asdf import converters, extension, networks; "
        "converters.SpectrumFitConverter(); networks.EmissionLinePredictorConverter(); "
        "heavy = {'torch', 'specutils', 'specutils_blase.template', 'specutils_blase.galaxy'}; "
        "print(*sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "", "")


def test_headers_of_any_kind_come_back(tmp_path):
    header = Header()
    header["OBJECT"] = ("O'Neill " + "x" * 100, "a long string and its comment")
    header["FLAG"] = True
    header["HIERARCH ESO DET WIN1"] = 4
    header["BLANK"] = None
    header.add_blank()
    header["COMMENT"] = "y" * 100
    spectrum = make_spectrum(meta={"header": header, "other": 1})
    assert_same(spectrum, through_file(make_fit(observed=spectrum), tmp_path).observed)


def test_header_that_breaks_the_standard_is_repaired(tmp_path):
    broken = Header.fromstring("lower   = 3".ljust(80) + "EXPTIME = 1.5e".ljust(80) + "GOOD    = 4".ljust(80))
    back = through_file(make_fit(observed=make_spectrum(meta={"header": broken})), tmp_path).observed.meta["header"]
    assert dict(back) == {"LOWER": 3, "EXPTIME": "1.5e", "GOOD": 4}


def test_header_that_no_file_can_hold_is_left_out_and_named(tmp_path):
    with pytest.warns(VerifyWarning, match="HIERARCH"):
        header = Header([Card("x" * 75, 123456789)])
    path = tmp_path / "fit.asdf"
    write_asdf(path, make_fit(observed=make_spectrum(meta={"header": header, "other": 1})))
    assert dict(read_asdf(path).observed.meta) == {"other": 1}
    assert asdf.util.load_yaml(path)["fit"]["observed"]["meta"]["not_stored"] == ["header"]
