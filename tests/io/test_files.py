"""Writing is all or nothing; reading refuses what is not a whole file of this package, and says why."""

import os
import stat

import asdf
import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable
from astropy.time import Time
from specutils import Spectrum

from specutils_blase import BlaseWarning, __version__
from specutils_blase.fitting import SpectrumFit
from specutils_blase.io.files import BLOCK_INDEX, read_asdf, write_asdf
from specutils_blase.template import LineTemplate

from .samples import assert_same, make_fit, make_forest, make_template


@pytest.fixture(scope="module")
def template():
    return make_template()


@pytest.fixture(scope="module")
def content(template, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "t.asdf"
    template.write(path)
    return path.read_bytes()


@pytest.fixture
def damaged(content, tmp_path):
    """A file with some bytes of its tree replaced by others."""

    def make(old, new, count=1):
        old, new = (text if isinstance(text, bytes) else text.encode() for text in (old, new))
        assert content.count(old) >= 1, f"{old} is not in the file"
        path = tmp_path / "damaged.asdf"
        path.write_bytes(content.replace(old, new, count))
        return path

    return make


# ------------------------------------------------------------------------------------------------------------ writing


def test_existing_file_is_kept_unless_told(template, tmp_path):
    path = tmp_path / "t.asdf"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match=r"path must name a new file, got .*t\.asdf.*overwrite=True"):
        template.write(path)
    assert path.read_text() == "precious"
    template.write(path, overwrite=True)
    assert_same(template, LineTemplate.read(path))
    assert os.listdir(tmp_path) == ["t.asdf"]


class Stop(BaseException):
    """What a user's Ctrl-C, or a worse end, looks like."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stop, OSError("no space left"), MemoryError], ids=str)
@pytest.mark.parametrize("exists", [False, True], ids=["new", "overwrite"])
def test_interrupted_write_leaves_what_was_there(error, exists, template, tmp_path, monkeypatch):
    path = tmp_path / "t.asdf"
    if exists:
        path.write_text("precious")
    whole = asdf.AsdfFile.write_to
    written = []

    def half(self, stream, **options):
        whole(self, stream, **options)
        stream.truncate(stream.tell() // 2)
        written.append(os.listdir(tmp_path))
        raise error

    monkeypatch.setattr(asdf.AsdfFile, "write_to", half)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        template.write(path, overwrite=True)
    assert len(written[0]) == 1 + exists, "the write went to a file of its own"
    assert os.listdir(tmp_path) == (["t.asdf"] if exists else [])
    assert not exists or path.read_text() == "precious"


def test_content_that_breaks_the_schema_is_not_written(tmp_path):
    template = make_template()
    template.meta["frame"] = "moon"
    with pytest.raises(ValueError, match=r"t\.asdf was not written: meta\.values\.frame breaks.*moon"):
        write_asdf(tmp_path / "t.asdf", template)
    with pytest.raises(ValueError, match="frame.*moon"):
        template.write(tmp_path / "t.asdf")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["t.pkl", "t.fits", "t.FITS", "t.ecsv"])
def test_names_of_other_kinds_of_files(template, tmp_path, name):
    with pytest.raises(ValueError, match="path must not end like the name of another kind of file, got .*asdf"):
        template.write(tmp_path / name)
    assert not os.listdir(tmp_path)


def test_no_name_of_a_file(template):
    for call in (template.write, type(template).read):
        with pytest.raises(TypeError, match="path must be the name of a file, got 3; give a str or a Path"):
            call(3)


def test_directories_are_told_apart(template, tmp_path):
    with pytest.raises(IsADirectoryError, match="path must name a file, got the directory.*add the name of the file"):
        read_asdf(tmp_path)
    with pytest.raises(IsADirectoryError, match="path must name a file, got the directory.*add a file name"):
        template.write(tmp_path, overwrite=True)
    with pytest.raises(FileNotFoundError, match="directory that exists, got .*create .*missing first"):
        template.write(tmp_path / "missing" / "t.asdf")
    with pytest.raises(IsADirectoryError):
        LineTemplate.read(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"^path must name a file that exists, got .*\.asdf; check its"):
        LineTemplate.read(tmp_path / "missing.asdf")


def test_file_has_the_permissions_of_any_new_file(template, tmp_path):
    (tmp_path / "other").write_text("")
    template.write(tmp_path / "t.asdf")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_link_is_written_through(template, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "t.asdf").write_text("old")
    (tmp_path / "link.asdf").symlink_to(tmp_path / "real" / "t.asdf")
    template.write(tmp_path / "link.asdf", overwrite=True)
    assert (tmp_path / "link.asdf").is_symlink()
    assert_same(template, LineTemplate.read(tmp_path / "real" / "t.asdf"))


def test_home_and_strings_are_understood(template, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    template.write("~/t.asdf")
    assert_same(template, LineTemplate.read(str(tmp_path / "t.asdf")))
    assert_same(template, LineTemplate.read("~/t.asdf"))


def test_settings_of_the_user_do_not_reach_the_file(template, content, tmp_path):
    with asdf.config_context() as config:
        config.array_inline_threshold = 1000
        config.all_array_storage = "inline"
        config.all_array_compression = "bzp2"
        template.write(tmp_path / "t.asdf")
        back = LineTemplate.read(tmp_path / "t.asdf")
    assert (tmp_path / "t.asdf").read_bytes().count(b"zlib") == content.count(b"zlib")
    assert_same(template, back)


# ------------------------------------------------------------------------------------------------------------ reading


def test_truncated_file(content, template, tmp_path):
    path = tmp_path / "t.asdf"
    blocks_end = content.rindex(BLOCK_INDEX)
    tree_end = content.index(b"\n...\n")
    block = content.rindex(b"\xd3BLK")
    cuts = [5, 20, 300, tree_end // 2, tree_end, tree_end + 6, tree_end + 30, tree_end + 500, block - 1, block + 2,
            block + 10, block + 54, blocks_end - 1, blocks_end + 3, blocks_end + 30, len(content) - 5]  # fmt: skip
    for cut in cuts:
        path.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=r"t\.asdf is truncated or damaged \(.*(end|End).*\); write it again or"):
            LineTemplate.read(path)
    path.write_bytes(content[:blocks_end])  # the index is optional: nothing of the content is missing
    assert_same(template, LineTemplate.read(path))


def test_flipped_bit_in_an_array(content, tmp_path):
    position = content.index(b"\xd3BLK") + 80
    path = tmp_path / "t.asdf"
    path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
    with pytest.raises(ValueError, match=r"t\.asdf is truncated or damaged"):
        LineTemplate.read(path)


def raw(content):
    return lambda path: path.write_bytes(content)


def tree(**content):
    return lambda path: asdf.AsdfFile(content).write_to(path)


def write_fits(path):
    fits.PrimaryHDU(np.zeros(3)).writeto(path)


SPECTRUM = Spectrum(flux=[1, 2] * u.Jy, spectral_axis=[1, 2] * u.um)
PYTHON = b"#ASDF 1.0.0\n#ASDF_STANDARD 1.6.0\n%YAML 1.1\n---\ntemplate: !!python/object/apply:os.getcwd []\n...\n"
FOREIGN = {
    "empty": (raw(b""), "is empty"),
    "text": (raw(b"wave flux\n1 2\n"), "begins with b'wave '"),
    "FITS": (write_fits, "is a FITS file.*Spectrum.read"),
    "header of ASDF alone": (raw(b"#ASDF 1.0.0\n"), "truncated or damaged"),
    "other tree": (tree(a=np.arange(3)), "an ASDF file of another origin"),
    "empty tree": (tree(), "an ASDF file of another origin"),
    "spectrum": (tree(template=SPECTRUM), "an ASDF file of another origin.*asdftool info"),
    "forest": (tree(m=make_forest()), "with a voigt_forest_1d; use asdf.open"),
    "a list": (raw(b"#ASDF 1.0.0\n%YAML 1.1\n---\n- 1\n...\n"), "it has no tree"),
    "python object": (raw(PYTHON), "an ASDF file of another origin"),
}


@pytest.mark.parametrize(("make", "message"), FOREIGN.values(), ids=FOREIGN.keys())
def test_foreign_file(make, message, tmp_path):
    path = tmp_path / "foreign.asdf"
    make(path)
    with pytest.raises(ValueError, match=r"foreign\.asdf") as caught:
        LineTemplate.read(path)
    caught.match(message)


def test_wrong_kind_names_both(tmp_path):
    write_asdf(tmp_path / "fit.asdf", {"fit": make_fit()})
    with pytest.raises(ValueError, match="with a LineTemplate, got .* with a SpectrumFit; use SpectrumFit.read"):
        LineTemplate.read(tmp_path / "fit.asdf")
    make_template().write(tmp_path / "template.asdf")
    with pytest.raises(ValueError, match="with a SpectrumFit, got .* with a LineTemplate; use LineTemplate.read"):
        read_asdf(tmp_path / "template.asdf", "spectrum_fit")


def test_kind_is_a_class_a_name_or_left_out(tmp_path):
    write_asdf(tmp_path / "fit.asdf", make_fit())
    write_asdf(tmp_path / "template.asdf", make_template())
    for kind in (SpectrumFit, "spectrum_fit", None):
        assert type(read_asdf(tmp_path / "fit.asdf", kind)) is SpectrumFit
    for kind in (LineTemplate, "line_template", None):
        assert type(read_asdf(tmp_path / "template.asdf", kind)) is LineTemplate
    for kind in ("LineTemplate", dict):
        with pytest.raises(ValueError, match="kind must be one of line_template, spectrum_fit"):
            read_asdf(tmp_path / "template.asdf", kind)


def test_object_gets_a_key_of_its_own(tmp_path):
    write_asdf(tmp_path / "fit.asdf", make_fit())
    make_template().write(tmp_path / "template.asdf")
    with asdf.open(tmp_path / "fit.asdf") as file:
        assert type(file["fit"]) is SpectrumFit
    with asdf.open(tmp_path / "template.asdf") as file:
        assert type(file["template"]) is LineTemplate
    with pytest.raises(TypeError, match="be a LineTemplate, a SpectrumFit, an Emission.* or a dict, got a Voigt"):
        write_asdf(tmp_path / "forest.asdf", make_forest())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tags/line_template-1.0.0", "tags/line_template-2.0.0", "line_template version 2.0.0 .* up to 1.0.0"),
        ("tags/voigt_forest_1d-1.0.0", "tags/voigt_forest_1d-3.0.1", "voigt_forest_1d version 3.0.1 .* up to 1.0.0"),
        ("tags/voigt_forest_1d-1.0.0", "tags/voigt_forest_2d-1.0.0", "forest_2d version 1.0.0 .* no version of it"),
    ],
)
def test_newer_file_names_both_versions(old, new, message, damaged):
    with pytest.raises(ValueError, match=message) as caught:
        LineTemplate.read(damaged(old, new))
    caught.match(f"newer specutils_blase.*this one \\({__version__}\\).*update specutils_blase")


@pytest.mark.parametrize("version", ["1.1.0", "1.0.1", "1.12.0"])
@pytest.mark.parametrize("name", ["line_template", "voigt_forest_1d"])
def test_newer_minor_version_is_read_with_a_warning(name, version, damaged, template):
    path = damaged(f"tags/{name}-1.0.0>", f"tags/{name}-{version}>")
    with pytest.warns(BlaseWarning, match=f"{name} version {version} .* reads up to 1.0.0 and ignores") as caught:
        back = LineTemplate.read(path)
    assert caught[0].filename == __file__
    assert_same(template, back)


def test_what_a_newer_minor_version_added_is_ignored(damaged, template):
    path = damaged("line_template-1.0.0>\n", "line_template-1.1.0>\n  later: {deep: [1, 2]}\n")
    with pytest.warns(BlaseWarning, match="ignores what has been added since"):
        assert_same(template, LineTemplate.read(path))
    with pytest.raises(ValueError, match="breaks the schema"):
        LineTemplate.read(damaged("line_template-1.0.0>\n", "line_template-1.0.0>\n  later: {deep: [1, 2]}\n"))


def test_file_of_newer_asdf(damaged):
    with pytest.raises(ValueError, match="quantity-1.99.0, which the installed asdf .* do not know.*update"):
        LineTemplate.read(damaged("unit/quantity-1.1.0", "unit/quantity-1.99.0"))
    with pytest.raises(ValueError, match="standard 1.99.0, which the installed asdf .* do not know.*update"):
        LineTemplate.read(damaged("ASDF_STANDARD 1.5.0", "ASDF_STANDARD 1.99.0"))


def test_newer_package_with_the_same_format_is_read_quietly(damaged, template):
    path = damaged("name: specutils-blase, version: ", "name: specutils-blase, version: 99.")
    assert_same(template, LineTemplate.read(path))


TAMPERED = {
    "form": ("form: opacity\n    fwhm_G", "form: opaque_\n    fwhm_G", "form breaks the schema.*opaque_"),
    "medium": ("wavelength_medium: vacuum\n    x_0", "wavelength_medium: airair\n    x_0", "medium breaks the schema"),
    "status": ("status: converged", "statos: converged", r"fit_info\.values breaks the schema, 'status' is a required"),
    "datatype": ("datatype: float64\n        byteorder: little\n", "datatype: int64\n        byteorder: little\n",
                 "breaks the schema"),
    "extra": ("fit_info:", "fit_info_:", "breaks the schema"),
    "tolerance": ("tolerance: 1.0e-06", "tolerance: 0.0e-06", "tolerance breaks the schema"),
    "teff": ("unit: !unit/unit-1.0.0 K", "unit: !unit/unit-1.0.0 m", "damaged"),
    "unit": ("unit: !unit/unit-1.0.0 Angstrom", "unit: !unit/unit-1.0.0 s       ", "x_0 must be a length, got"),
    "coverage": ("coverage: [4999.0, 5011.0]", "coverage: [5011.0, 4999.0]", "damaged .*must be the first and last"),
    "shape": ("shape: [5]", "shape: [9]", "damaged"),
    "source": ("source: 1\n", "source: 99\n", "damaged"),
    "other file": ("source: 1\n", "source: /etc/x.asdf\n", "refers to arrays in another file"),
}


@pytest.mark.filterwarnings("ignore")  # as a user's session, where asdf by itself would only warn
@pytest.mark.parametrize(("old", "new", "message"), TAMPERED.values(), ids=TAMPERED.keys())
def test_tampered_file(old, new, message, damaged):
    with pytest.raises(ValueError, match=r"damaged\.asdf") as caught:
        LineTemplate.read(damaged(old, new, count=-1 if old.startswith("unit") else 1))
    caught.match(message)


@pytest.mark.parametrize("strange", [Time("2024-01-01"), SPECTRUM], ids=["time", "spectrum"])
def test_only_what_belongs_in_the_file_is_converted(strange, tmp_path):
    path = tmp_path / "t.asdf"
    asdf.AsdfFile({"template": make_template(), "more": strange}).write_to(path)
    with pytest.raises(ValueError, match="t.asdf holds .*, which has no place in a file of this package.*asdf.open"):
        LineTemplate.read(path)


def test_unrelated_plain_content_is_ignored(tmp_path, template):
    path = tmp_path / "t.asdf"
    asdf.AsdfFile({"note": "mine", "x": np.arange(3), "t": QTable({"a": [1.0]}), "mine": template}).write_to(path)
    assert_same(template, LineTemplate.read(path))
