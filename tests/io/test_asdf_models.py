"""VoigtForest1D through plain asdf, as users of astropy models store them."""

import warnings

import asdf
import numpy as np
import pytest
from astropy import units as u
from astropy.modeling.models import Const1D, RedshiftScaleFactor

from specutils_blase.errors import BlaseWarning
from specutils_blase.flags import BLENDED
from specutils_blase.forest_tables import LineErrors
from specutils_blase.modeling import SparseLineFitter, VoigtForest1D

from .samples import FLUX_UNIT, assert_same, make_forest

pytestmark = pytest.mark.usefixtures("strict_asdf")

PLAIN = {
    "x_0": [5001.0, 5002.0, 1 / 3],
    "strength": [0.1, -0.2, 1e-310],
    "fwhm_G": [0.1, 0.2, 0.3],
    "fwhm_L": [0.3, 0.1, 0.0],
}


def with_constraints(forest):
    forest.continuum.fixed = False
    forest.x_0.fixed = True
    forest.strength.bounds = (0, None)
    forest.fwhm_G.bounds = (None, 0)
    forest.fwhm_L.bounds = (0.1, 1 / 3)
    return forest


def with_std(forest):
    forest.x_0.std = np.array([np.nan, *np.full(forest.n_lines - 1, 1 / 3)])
    forest.strength.std = np.ones(forest.n_lines) * u.mAA
    forest.continuum.std = 0.25
    return forest


def with_meta(forest):
    nested = {"a": [1, 2.5, "x", None, True], "flux": [1.0, np.nan] * u.Jy, 3: {"deep": [np.arange(3)]}}
    forest.meta.update(fit_info=nested, note="", medium=None)
    forest.name = "star"
    forest.bounding_box = (4990 * u.AA, 5020 * u.AA)
    return forest


def with_errors_of_a_fit(forest):
    n, rng = forest.n_lines, np.random.default_rng(3)
    flags, blend = rng.integers(0, 99, n), np.arange(n) - 1
    forest.line_errors = LineErrors(rng.normal(size=(n, 4, 4)), flags, blend, rng.normal(size=n), rng.normal(size=n))
    return forest


FORESTS = {
    "complete": make_forest(),
    "product": make_forest(form="product", tolerance=1e-5),
    "one line": make_forest(1),
    "one coefficient": make_forest(continuum=[2.0] * u.Jy),
    "scalar continuum": make_forest(continuum=2.0 * u.Jy, continuum_domain=None, teff=None),
    "dimensionless": make_forest(continuum=1.0 * u.one),
    "nm": make_forest(x_0=np.linspace(500, 501, 5) * u.nm, continuum_domain=[499, 502] * u.nm),
    "domain of floats": make_forest(continuum_domain=(4999.5, 5010.5)),
    "scaled unit": make_forest(continuum=[1, 2] * u.Unit("1e-17 erg / (s cm2 AA)")),
    "unit VOUnit lacks": make_forest(continuum=[1, 2] * u.electron / u.s),
    "no units": VoigtForest1D(**PLAIN),
    "no units, continuum": VoigtForest1D(**PLAIN, continuum=[1, 2.0], continuum_domain=(4999.0, 5005.0), teff=4000),
    "defaults": VoigtForest1D(),
    "constraints": with_constraints(make_forest()),
    "std": with_std(make_forest()),
    "meta": with_meta(make_forest()),
    "errors of a fit": with_errors_of_a_fit(make_forest()),
}


@pytest.mark.parametrize("forest", FORESTS.values(), ids=FORESTS.keys())
def test_forest_comes_back_to_the_bit(forest, roundtrip):
    back = roundtrip(forest)
    assert_same(forest, back)
    x = np.linspace(4999.6, 5010, 101)
    x = x if forest.x_0.unit is None else x * u.AA
    with np.errstate(divide="ignore", invalid="ignore"):
        assert_same(forest(x), back(x))


def test_bounding_box_comes_back(roundtrip):
    forest = FORESTS["meta"]
    assert roundtrip(forest).bounding_box.bounding_box() == forest.bounding_box.bounding_box()


def test_many_lines_are_compressed(tmp_path):
    forest = make_forest(4000)
    path = tmp_path / "m.asdf"
    asdf.AsdfFile({"m": forest}).write_to(path, all_array_compression="zlib")
    assert path.stat().st_size < 4000 * 4 * 8
    with asdf.open(path) as file:
        assert_same(forest, file["m"])


def test_copy_outlives_the_file_and_is_writable(tmp_path):
    path = tmp_path / "m.asdf"
    asdf.AsdfFile({"m": make_forest()}).write_to(path)
    with asdf.open(path, memmap=True) as file:
        back = file["m"]
    path.unlink()
    back.x_0 = back.x_0.quantity + 1 * u.AA
    assert back.x_0.value[0] > 5000


COMPOUND = {
    "redshifted": RedshiftScaleFactor(1e-4).inverse | make_forest(),
    "redshifted, no units": RedshiftScaleFactor(1e-4) | VoigtForest1D(**PLAIN),
    "times constant": make_forest() * Const1D(0.5 * u.one),
    "star times telluric": make_forest() * make_forest(3, 8, continuum=1 * u.one, continuum_domain=None, teff=None),
}


@pytest.mark.parametrize("model", COMPOUND.values(), ids=COMPOUND.keys())
def test_compound_model_comes_back(model, roundtrip):
    back = roundtrip(model)
    assert type(back) is type(model) and back.op == model.op
    for name in ("left", "right"):
        a, b = getattr(model, name), getattr(back, name)
        assert type(a) is type(b)
        assert np.array_equal(a.parameters, b.parameters)
    forest = model[0] if isinstance(model[0], VoigtForest1D) else model[1]
    x = u.Quantity(np.linspace(4999.6, 5010, 101), forest.x_0.unit) if forest.x_0.unit else np.linspace(0, 10, 101)
    assert_same(model(x), back(x))


def test_tied_constraints_are_announced_as_lost(tmp_path):
    forest = make_forest()
    forest.fwhm_L.tied = lambda model: model.fwhm_G
    with pytest.warns(BlaseWarning, match="tied.*set them again"):
        asdf.AsdfFile({"m": forest}).write_to(tmp_path / "m.asdf")


@pytest.mark.parametrize(
    "unit", [u.Unit(1.23456789e-17 * FLUX_UNIT), u.def_unit("counts_of_ours", 3.14159265 * u.Jy)], ids=str
)
def test_unit_that_asdf_would_change_is_refused(unit, tmp_path):
    forest = make_forest(continuum=[1.0, 2.0] * unit)
    with pytest.raises(ValueError, match="cannot be written to a file exactly.*convert to a unit"):
        asdf.AsdfFile({"m": forest}).write_to(tmp_path / "m.asdf")


def test_meta_that_no_file_can_hold_is_left_out_and_named(tmp_path):
    forest = make_forest()
    loop = []
    loop.append(loop)
    bad = {"function": print, "object": np.array([None]), "loop": loop, "large": 2**70, "time": np.datetime64("now")}
    bad |= {"unit": 1 * u.def_unit("ours", 3.14159265 * u.Jy), "keys": {(1, 2): 3}, True: 1}
    forest.meta.update({"good": 1, **bad})
    path = tmp_path / "m.asdf"
    asdf.AsdfFile({"m": forest}).write_to(path)
    with asdf.open(path) as file:
        assert dict(file["m"].meta) == {"good": 1}
    tree = asdf.util.load_yaml(path)
    assert tree["m"]["meta"]["not_stored"] == [str(name) for name in bad]


def test_numpy_scalars_and_tuples_become_plain(roundtrip):
    forest = make_forest()
    forest.meta.update(f=np.float32(0.1), i=np.int16(3), b=np.bool_(True), s=np.str_("x"), t=(1, (2.0,)))
    plain = {"f": float(np.float32(0.1)), "i": 3, "b": True, "s": "x", "t": [1, [2.0]]}
    assert_same(plain, dict(roundtrip(forest).meta))


def test_no_failure_hides_in_a_warning(tmp_path):
    """The default of asdf: what cannot be converted comes back as a dict, with a warning. Ours must not need it."""
    path = tmp_path / "m.asdf"
    asdf.AsdfFile({"m": make_forest()}).write_to(path)
    with asdf.config_context() as config, warnings.catch_warnings():
        warnings.simplefilter("error")
        if hasattr(config, "warn_on_failed_conversion"):
            config.warn_on_failed_conversion = True
        with asdf.open(path) as file:
            assert type(file["m"]) is VoigtForest1D


def test_line_list_of_a_fit_is_the_same_from_a_file(roundtrip):
    wave = np.linspace(5000.0, 5004.0, 400) * u.AA
    pair = VoigtForest1D([5002, 5002.12] * u.AA, [0.08, 0.06] * u.AA, [0.15, 0.15] * u.AA, [0.05, 0.05] * u.AA)
    flux = pair(wave).value + np.random.default_rng(1).normal(0, 0.01, 400)
    fitted = SparseLineFitter()(pair, wave, flux * u.one, weights=np.full(400, 100.0))
    ours, back = fitted.to_line_list(wave), roundtrip(fitted).to_line_list(wave)
    assert (ours["flags"] & BLENDED).all()
    assert_same(ours, back)


def test_wavelengths_in_air_are_refused_unchecked(tmp_path):
    path = tmp_path / "air.asdf"
    asdf.AsdfFile({"model": make_forest()}).write_to(path)
    path.write_bytes(path.read_bytes().replace(b"wavelength_medium: vacuum", b"wavelength_medium: air   "))
    asdf.get_config().validate_on_read = False
    with pytest.raises(ValueError, match="must be vacuum, got 'air'"), asdf.open(path) as file:
        file["model"]
