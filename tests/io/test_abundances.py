"""Equivalent widths for MOOG and Korg: columns where they belong, numbers that come back, and which lines."""

import csv
import re
import warnings

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable
from specutils import SpectralRegion

from specutils_blase import BlaseWarning, match_lines
from specutils_blase.io import read_moog, read_vald, write_korg, write_moog
from specutils_blase.io.species import ion_stage, moog_code, moog_species

# By species, then by wavelength, as the driver abfind of MOOG wants them
MOOG_LINES = [
    " 1999.0000      26.0    2.8070    -1.500    -7.880              20.000",
    " 6301.4997      26.0    3.6537    -0.718    -7.540             112.500",
    " 6302.4932      26.1    3.6864    -0.973     2.200              52.250",
    " 4883.6821      39.1    1.0840     0.070                         7.125",
    " 4300.1230 106.00112    1.2000    -1.700               3.465     9.000",
]


@pytest.fixture
def matched(tmp_path):
    """Lines at laboratory wavelengths, matched with a list that MOOG could have."""
    rows = ["a list"] + [line[:60] for line in MOOG_LINES]
    path = tmp_path / "native.moog"
    path.write_text("\n".join(rows) + "\n")
    native = read_moog(path)
    lines = QTable({"line_center": native["line_center"]})
    widths = {1999: 20, 6301: 112.5, 6302: 52.25, 4883: 7.125, 4300: 9}
    centers = lines["line_center"].to_value(u.AA)
    lines["equivalent_width"] = [next(w for at, w in widths.items() if 0 <= c - at < 3) for c in centers] * u.mAA
    lines["equivalent_width"] = lines["equivalent_width"].to(u.AA)
    lines["flags"] = np.zeros(len(lines), dtype=int)
    return match_lines(lines, native)


def test_moog_columns(matched, tmp_path):
    write_moog(matched, tmp_path / "lines.moog")
    title, *rows = (tmp_path / "lines.moog").read_text().splitlines()
    assert rows == MOOG_LINES
    assert {len(row) for row in rows} == {70}
    assert title.startswith("5 lines")


def test_moog_reads_back(matched, tmp_path):
    write_moog(matched, tmp_path / "lines.moog")
    back = read_moog(tmp_path / "lines.moog")
    order = np.argsort(matched["laboratory_wavelength"].unmasked)
    np.testing.assert_allclose(back["line_center"].value, matched["laboratory_wavelength"].unmasked.value[order],
                               rtol=0, atol=6e-5)  # fmt: skip
    for name in ("species", "isotopologue"):
        assert list(back[name]) == list(matched[name][order])
    for name in ("log_gf", "excitation_potential", "log_gamma_vdw", "unsold_factor", "dissociation_energy",
                 "equivalent_width"):  # fmt: skip
        expected = getattr(matched[name], "unmasked", matched[name])[order]
        np.testing.assert_allclose(np.asarray(back[name].value), np.asarray(expected.value, dtype=float), atol=5e-7)


def test_korg_reads_its_list_and_widths(matched, tmp_path):
    with pytest.warns(BlaseWarning, match="1 of 5 lines are not in the list for Korg: 1 of species that it does not"):
        write_korg(matched, tmp_path / "lines.vald")
    lines = (tmp_path / "lines.vald").read_text().splitlines()
    # what parse_vald_linelist of Korg asks for: extract all, short, vacuum, scaled
    assert not re.match(r"\s+\d", lines[0])
    assert "eV" in lines[1] and "vac" in lines[1] and "air" not in lines[1] and "cm" not in lines[1]
    assert lines[-1].startswith("* oscillator strengths were scaled ")
    body = [text for text in lines[2:] if re.match(r"'[A-Z]", text)]
    assert len(body) == len(lines) - 3 == 4
    records = list(csv.reader(body, quotechar="'", skipinitialspace=True))
    assert {len(record) for record in records} == {9}
    wave = [float(record[1]) for record in records]
    assert wave == sorted(wave) and [record[0] for record in records] == ["Fe 1", "Y 2", "Fe 1", "Fe 2"]
    widths = [float(match[1]) for match in re.finditer(r"EW=([0-9.]+)", "\n".join(lines))]
    assert widths == [20, 7.125, 112.5, 52.25]
    back = read_vald(tmp_path / "lines.vald")
    atoms = matched[[str(name) != "CH" for name in matched["species"]]]
    atoms = atoms[np.argsort(atoms["laboratory_wavelength"].unmasked)]
    laboratory = atoms["laboratory_wavelength"].unmasked.value
    np.testing.assert_allclose(back["line_center"].value, laboratory, rtol=0, atol=6e-6)
    for name in ("log_gf", "log_gamma_vdw"):
        np.testing.assert_allclose(back[name], np.ma.filled(atoms[name], np.nan))
    np.testing.assert_allclose(back["excitation_potential"].value, atoms["excitation_potential"].unmasked.value)


def test_korg_takes_damping_of_vald(tmp_path):
    table = known("Na I", abo_sigma=[407.0], abo_alpha=[0.273], log_gamma_rad=[7.79], log_gamma_stark=[-5.64])
    write_korg(table, tmp_path / "lines.vald")
    back = read_vald(tmp_path / "lines.vald")
    for name in ("abo_sigma", "abo_alpha", "log_gamma_rad", "log_gamma_stark"):
        assert back[name][0] == pytest.approx(table[name][0], abs=1e-9)


def known(*species, **columns):
    n = len(species)
    wave = 5000.0 + np.arange(n)
    return QTable({"line_center": wave * u.AA, "laboratory_wavelength": wave * u.AA, "species": list(species),
                   "excitation_potential": np.ones(n) * u.eV, "log_gf": -np.ones(n),
                   "equivalent_width": np.full(n, 0.05) * u.AA, **columns})  # fmt: skip


def test_lines_are_left_out_and_counted(tmp_path):
    table = known(*["Fe I"] * 12, "CH", "H2O")
    table["native_row"] = [0, 1, 2, 3, 4, 5, 6, 6, 8, 9, 10, 11, 12, 13]
    table["flags"] = [0, 1, 2, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    table["share"] = [1, 1, 1, 1, 1, 0.5, 1, 1, 1, 1, 1, 1, 1, 1]
    table["equivalent_width"][8] = -0.05 * u.AA
    table["equivalent_width"][9] = np.nan * u.AA
    table["log_gf"][10] = np.nan
    with pytest.warns(BlaseWarning) as caught:
        write_moog(table, tmp_path / "lines.moog")
    text = str(caught[0].message)
    assert text.startswith("12 of 14 lines are not in the list for MOOG: ")
    assert text.partition(": ")[2].split(", ") == [
        "1 without log gf or excitation potential", "2 without a positive equivalent width",
        "1 with a parameter at its limit", "1 in a blend", "1 dominated by the prior", "1 without data",
        "2 that share a transition with another line", "1 in a blend of transitions", "1 of a species without code",
        "1 of a molecule without dissociation energy"]  # fmt: skip
    assert caught[0].filename == __file__
    np.testing.assert_allclose(read_moog(tmp_path / "lines.moog", "vacuum")["line_center"].value, [4998.6, 5009.6],
                               atol=1.1)  # fmt: skip


def test_unmatched_lines_are_left_out(tmp_path):
    lines = QTable({"line_center": [6303.2420, 6310.0] * u.AA, "equivalent_width": [0.1, 0.1] * u.AA})
    native = QTable({"line_center": [6303.242] * u.AA, "species": ["Fe I"], "log_gf": [-0.7],
                     "excitation_potential": [3.6] * u.eV})  # fmt: skip
    table = match_lines(lines, native)
    for write in (write_moog, write_korg):
        with pytest.warns(BlaseWarning, match="1 of 2 lines .* 1 unmatched"):
            write(table, tmp_path / write.__name__)


@pytest.mark.parametrize("write", [write_moog, write_korg])
def test_refusals(write, tmp_path):
    table = known("Fe I")
    for name in ("species", "log_gf", "laboratory_wavelength", "equivalent_width", "excitation_potential"):
        with pytest.raises(ValueError, match=f"lines must have a column {name}"):
            write(table[[other for other in table.colnames if other != name]], tmp_path / "no")
    for name in ("H2O",) if write is write_moog else ("H2O", "H I", "Fe IV"):
        with pytest.raises(ValueError, match="1 of (a )?species"):
            write(known(name), tmp_path / "no")
    with pytest.raises(u.UnitsError, match="have a unit"):
        write(known("Fe I", equivalent_width=[0.05]), tmp_path / "no")
    assert not (tmp_path / "no").exists()
    write(table, tmp_path / "yes")
    with pytest.raises(OSError, match="overwrite"):
        write(table, tmp_path / "yes")
    write(table, tmp_path / "yes", overwrite=True)


@pytest.mark.parametrize("code", ["26.0", "26.1", "3.0007", "56.1137", "607.0", "607.01214", "106.00112", "606.0",
                                  "101.0", "822.01648", "108.0", "112.1"])  # fmt: skip
def test_codes_of_moog_return(code):
    assert moog_code(*moog_species("f", 1, code)) == code


def test_names_without_code():
    assert [moog_code(name) for name in ("H2O", "", "??", "Fe", "TiOH")] == [None] * 5
    assert moog_code("CN", "12C") is None
    assert [ion_stage(name) for name in ("Fe I", "Fe IX", "Fe XIV", "CN", "Fe", "")] == [
        ("Fe", 1), ("Fe", 9), ("Fe", 14), None, None, None]  # fmt: skip


# -------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("format", ["ascii.ecsv", "fits", "parquet"])
def test_round_trip_of_matched_lines(matched, tmp_path, format):
    if format == "parquet":
        pytest.importorskip("pyarrow")
    matched["species"][2] = np.ma.masked
    matched["separation"][2] = np.ma.masked
    matched.meta["match_scatter"] = 0.25
    path = tmp_path / "table"
    options = {"serialize_method": "data_mask"} if format == "ascii.ecsv" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of FITS, about names of meta
        matched.write(path, format=format, **options)
    back = QTable.read(path, format=format)
    back.convert_bytestring_to_unicode()
    assert back.colnames == matched.colnames
    for name in matched.colnames:
        mask, back_mask = (np.broadcast_to(getattr(t[name], "mask", False), len(t)) for t in (matched, back))
        values, back_values = (np.asarray(getattr(getattr(t[name], "unmasked", t[name]), "value", t[name]))
                               for t in (matched, back))  # fmt: skip
        if values.dtype.kind == "U":  # in FITS an empty text is none
            mask = mask | ((values == "") & back_mask)
        np.testing.assert_array_equal(back_mask & (values == values), mask & (values == values), err_msg=name)
        np.testing.assert_array_equal(back_values[~back_mask], values[~back_mask], err_msg=name)
        unit = getattr(matched[name], "unit", None)
        assert unit is None or (1 * back[name].unit).to_value(unit) == pytest.approx(1, rel=1e-15)
        assert back[name].info.description == matched[name].info.description
    assert {str(key).lower(): value for key, value in back.meta.items()} == matched.meta
    assert len(SpectralRegion.from_line_list(back, width=1 * u.AA)) == len(matched)
    with pytest.warns(BlaseWarning, match="1 of 5 lines"):
        write_moog(back, tmp_path / "lines.moog")
    with pytest.warns(BlaseWarning, match="1 of 5 lines"):
        write_moog(matched, tmp_path / "same.moog")
    assert (tmp_path / "lines.moog").read_text() == (tmp_path / "same.moog").read_text()
