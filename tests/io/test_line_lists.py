"""Native line lists: what is in them comes out in vacuum, sorted and with units, and what is damaged is refused."""

import gzip
import subprocess
import sys
import warnings

import numpy as np
import pytest
from astropy import units as u
from astropy.io.fits.verify import VerifyWarning
from astropy.table import QTable
from specutils import SpectralRegion

from specutils_blase import BlaseWarning
from specutils_blase.io import read_hitran, read_moog, read_vald, relative_strength

# Wavelengths in air (NIST) of Fe I, Na I and Ca II lines; those of Na I also in vacuum (NIST).
IRON = (6301.4997, 6302.4932)
SODIUM, SODIUM_VACUUM = (5889.9509, 5895.9242), (5891.5833, 5897.5581)
CALCIUM = (8498.023, 8542.091, 8662.141)

SHORT_ALL = """\
                                             Damping parameters   Lande
Elm Ion       WL_air(A) Excit(eV) log gf*   Rad.  Stark    Waals  factor   References
'Ca 2',      8542.09100,   1.7000, -0.463, 8.200,-5.700,-7.590,  1.100,'   1 wl:T   1 T   1 gf:T   1 T   1 T    Ca+'
'Na 1',      5889.95090,   0.0000,  0.108, 7.790,-5.640,407.273,  1.333,'   2 wl:NIST10   2 NIST10, with a comma    Na'
'Fe 1',      6302.49320,   3.6864, -0.973, 7.990,-6.150, 0.000,  2.500,'   3 wl:N94   3 N94   4 gf:BKK    Fe'
* oscillator strengths were scaled by the solar isotopic ratios.
 References:
  1. Theodosiou
  2. Barklem, Anstee & O'Mara broadening
"""
LONG_ALL = """\
                                                                     Lande factors        Damping parameters
Elm Ion       WL_air(A)  log gf* E_low(eV) J lo  E_up(eV) J up   lower   upper    mean   Rad.  Stark    Waals
'Fe 1',      6301.49970,  -0.718,  3.6537,  2.0,  5.6207,  2.0,  1.500,  1.500,  1.670, 7.990,-6.150,-7.540,
'  LS                                                                       3d6.4s4p z5P*'
'  LS                                                                          3d6.4s.5s e5D'
'_          Kurucz 2014        1 wl:K14   2 gf:BKK   1 K14   1 K14   1 K14   1 K14   1 K14   1 K14   1 K14     Fe'
'(48)TiO 1', 7054.18900,  -0.600,  0.0000,  2.0,  1.7570,  3.0, 99.000, 99.000, 99.000, 7.000, 0.000, 0.000,
  LS                                                                                 X3D

'_          Plez 2012          3 wl:P12   3 gf:P12   3 P12   3 P12   3 P12   3 P12   3 P12   3 P12   3 P12     TiO'
'Fe 2',      1999.00000,  -1.500,  2.8070,  2.5,  9.0000,  2.5,  1.500,  1.500,  1.670, 0.000,-6.150,-7.880,
  LS                                                                       3d6.(5D).4s a4D
  LS                                                                          3d5.4s4p y4F*
'_      B   Kurucz 2013        1 wl:K13   1 gf:K13   1 K13   1 K13   1 K13   1 K13   1 K13   1 K13   1 K13     Fe+'
 References:
  1. Kurucz
"""
LONG_WAVENUMBERS = """\
                                                                            Lande factors       Damping parameters
Elm Ion       WL_vac(cm^-1)  log gf* E_low(cm^-1) J lo E_up(cm^-1)  J up  lower   upper    mean    Rad.  Stark  Waals
'Na 1',      16956.17025,  -0.194,      0.000,   0.5,  16956.170,   0.5,  2.000,  0.670,  1.333, 7.790,-5.640,-7.590,
'  LS                                                                                2p6.3s 2S'
'  LS                                                                                2p6.3p 2P*'
'_          NIST               1 wl:NIST   1 gf:NIST   1 NIST   1 NIST   1 NIST   1 NIST   1 NIST   1 NIST   1 NIST  Na'
"""
SHORT_STELLAR = """\
 6301.00000, 6303.00000, 2, 3097, 1.0 Wavelength region, lines selected, lines processed, Vmicro
                                                 Damping parameters   Lande  Central
Spec Ion       WL_vac(A) Excit(eV) Vmic log gf*  Rad.   Stark  Waals  factor  depth  Reference
'Fe 1',        6304.2370,  3.6864, 1.0, -0.973, 7.990,-6.150,-7.540,  2.490, 0.732, '   1 wl:N94   1 N94   2 gf:BKK Fe'
'Fe 1',        6303.2433,  3.6537, 1.0, -0.718, 7.990,-6.150,-7.540,  1.670, 0.789, '   1 wl:N94   1 N94   2 gf:BKK Fe'
'19000G50.KRZ',
'H :  0.92','He: -1.11',
'Es:-20.00','END'
"""

MOOG = """\
lines near the D doublet and others
 6302.4932      26.0    3.6864    -0.973    -7.540                52.1   Fe I after column 70
 6301.4997      26.0    3.6537    -0.718     2.200                       1 2 3
-5889.9509      11.0    0.0000     0.108   1.0E-31
  8542.091      20.1    1.7000    -0.463
  6707.764    3.0007    0.0000    -0.002
  4215.524   38.1087    0.0000    -0.170
  4129.708   63.1151    0.0000     0.220
  7054.189  822.0164    0.0000    -0.600               6.870
  4300.123 106.00112    1.2000    -1.700               3.465     -12.0
  3883.444     607.0    0.5000    -1.300               7.760
  1999.000      26.1    2.8070    -1.500
"""

# Records of HITRAN: two of water as they are in the database, others with CO wavenumbers and invented intensities.
WATER = (
    " 11 2000.395383 9.745E-29 7.551E-01.03250.281 4265.97640.37-.005240          0 2 0          0 1 0"
    " 11  9  2       11  8  3      434233807294713152    69.0   69.0",
    " 11 2000.411407 1.980E-30 6.537E-09.06860.333  982.91170.620.000000          0 1 0          0 0 0"
    "  9  4  6        8  2  6     q5322308079917122 0    19.0   17.0",
)
# quantum numbers, codes of uncertainty and reference, weights
TAIL = f"{1:>15}{0:>15}{'':15}{'R  0':>10}{'':5}457665 5 8 2 2 1 7 {3.0:7.1f}{1.0:7.1f}"
CARBON_MONOXIDE = (
    " 51 2147.081134 9.473E-20 1.193E+01.07970.087    0.00000.76-.002800" + TAIL,
    " 52 2099.709900 1.030E-21 1.090E+01.07970.087    0.00000.76-.002800" + TAIL,
    " 50 2139.426100 9.120E-30 3.571E+01.0797        -1.00000.76-.002800" + TAIL,
    " 5A 2150.856000 1.830E-29 1.150E+01.0756.0860    3.84500.75-.002900" + TAIL,
)
HITRAN = "\n".join([*WATER, *CARBON_MONOXIDE]) + "\n"


def vacuum(air):
    """The standard of the IAU (Edlen 1953, in Morton 1991, ApJS 77, 119), solved for the wave number in vacuum."""
    wave = np.array(air, dtype=float)
    for _ in range(5):
        square = (1e4 / wave) ** 2
        wave = air * (1 + 6.4328e-5 + 2.94981e-2 / (146 - square) + 2.5540e-4 / (41 - square))
    return wave


@pytest.fixture
def file(tmp_path):
    """A file with some text in it."""

    def write(text, name="lines.txt"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def assert_centers(table, expected, atol=2e-4):
    # the formulae of the IAU and of VALD differ by 1e-8
    assert table["line_center"].unit == u.AA
    np.testing.assert_allclose(table["line_center"].value, expected, rtol=0, atol=atol)


# --------------------------------------------------------------------------------------------------------------- VALD


def test_vald_short(file):
    table = read_vald(file(SHORT_ALL, "short.vald"))
    assert table.colnames == ["line_center", "species", "log_gf", "excitation_potential", "log_gamma_rad",
                              "log_gamma_stark", "log_gamma_vdw", "abo_sigma", "abo_alpha"]  # fmt: skip
    assert_centers(table, [SODIUM_VACUUM[0], vacuum(IRON[1]), vacuum(CALCIUM[1])])
    assert list(table["species"]) == ["Na I", "Fe I", "Ca II"]
    np.testing.assert_array_equal(table["log_gf"], [0.108, -0.973, -0.463])
    assert table["excitation_potential"].unit == u.eV
    np.testing.assert_array_equal(table["excitation_potential"].value, [0.0, 3.6864, 1.7])
    np.testing.assert_array_equal(table["log_gamma_rad"], [7.79, 7.99, 8.2])
    np.testing.assert_array_equal(table["log_gamma_stark"], [-5.64, -6.15, -5.7])
    np.testing.assert_array_equal(table["log_gamma_vdw"], [np.nan, np.nan, -7.59])
    np.testing.assert_array_equal(table["abo_sigma"], [407, np.nan, np.nan])
    np.testing.assert_allclose(table["abo_alpha"], [0.273, np.nan, np.nan], atol=1e-12)
    assert table.meta == {"wavelength_medium": "vacuum", "source_medium": "air", "format": "VALD short",
                          "source": "short.vald"}  # fmt: skip
    assert table["line_center"].info.description == "vacuum wavelength"


def test_vald_long(file):
    table = read_vald(file(LONG_ALL))
    # up to 2000 Angstrom VALD is in vacuum whatever the header says
    assert_centers(table, [1999.0, vacuum(IRON[0]), vacuum(7054.189)])
    assert list(table["species"]) == ["Fe II", "Fe I", "TiO"]
    assert list(table["isotopologue"]) == ["", "", "48TiO"]
    np.testing.assert_array_equal(table["log_gf"], [-1.5, -0.718, -0.6])
    np.testing.assert_array_equal(table["excitation_potential"].to_value("eV"), [2.807, 3.6537, 0])
    np.testing.assert_array_equal(table["log_gamma_rad"], [np.nan, 7.99, 7.0])
    np.testing.assert_array_equal(table["log_gamma_vdw"], [-7.88, -7.54, np.nan])
    assert "abo_sigma" not in table.colnames
    assert table.meta["format"] == "VALD long"


def test_vald_wavenumbers(file):
    table = read_vald(file(LONG_WAVENUMBERS))
    assert_centers(table, SODIUM_VACUUM[1], atol=1e-3)
    assert table.meta["source_medium"] == "vacuum"
    with pytest.raises(ValueError, match="must be \"vacuum\" for a list of wavenumbers, got 'air'; leave it out"):
        read_vald(file(LONG_WAVENUMBERS), wavelength_medium="air")
    nonzero = read_vald(file(LONG_WAVENUMBERS.replace("     0.000,   0.5", " 16956.170,   0.5")))
    np.testing.assert_allclose(nonzero["excitation_potential"].to_value("eV"), 2.102297, rtol=1e-6)  # NIST


def test_vald_stellar(file):
    table = read_vald(file(SHORT_STELLAR))
    # declared to be in vacuum: the numbers of the file
    np.testing.assert_array_equal(table["line_center"].value, [6303.2433, 6304.2370])
    np.testing.assert_array_equal(table["central_depth"], [0.789, 0.732])
    np.testing.assert_array_equal(table["log_gf"], [-0.718, -0.973])
    assert "isotopologue" not in table.colnames
    cut = "\n".join(SHORT_STELLAR.splitlines()[:4])
    with pytest.warns(BlaseWarning, match=r"lines\.txt says that 2 lines were selected and holds 1"):
        assert len(read_vald(file(cut))) == 1


@pytest.mark.parametrize(("unit", "scale"), [("nm", 10), ("A", 1)])
def test_vald_units_of_the_header(file, unit, scale):
    text = SHORT_ALL.replace("WL_air(A)", f"WL_vac({unit})")
    np.testing.assert_allclose(read_vald(file(text))["line_center"].value[0], 5889.9509 * scale)


def test_vald_medium_that_the_header_does_not_say(file):
    path = file(SHORT_ALL.replace("WL_air(A)", "WL(A)").replace("log gf*", "log(gf)"))
    with pytest.raises(ValueError, match="wavelength_medium must be given, got None; the header of .*lines.txt"):
        read_vald(path)
    assert_centers(read_vald(path, "air")[:1], SODIUM_VACUUM[0])
    np.testing.assert_array_equal(read_vald(path, wavelength_medium="vacuum")["line_center"].value[0], SODIUM[0])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (" -0.463, 8.200", " -0.4x3, 8.200", r"line 3 must have a number as log_gf, got '-0.4x3'; correct or remove"),
        (" -0.463, 8.200", " nan, 8.200", r"line 3 must have a number as log_gf, got 'nan'"),
        (" -0.463, 8.200", " , 8.200", r"line 3 must have a number as log_gf, got ''"),
        ("  1.333,", "  1.3.3,", r"line 4 must have a number as mean Lande factor, got '1.3.3'"),
        ("-0.973, 7.990,", "-0.973,", r"line 5 must have 9 values, separated by commas, as the header says, got 8"),
        ("5889.95090", "-5889.9509", r"line 4 must have a positive wavelength, got -5889.95; correct"),
        ("'Na 1', ", "Na 1, ", r"line 4 must hold a transition that begins with its species in quotes.*got 'Na 1, "),
        ("'Na 1', ", "'Na',", r"line 4 must hold a transition that begins with its species in quotes"),
        ("WL_air(A)", "WL_ether(A)", r"line 2 must name the columns of VALD, got 'WL_ether\(A\) Excit"),
        (" log gf* ", " ", r"line 2 must name columns of .*log_gf.*; add log_gf"),
        ("Elm Ion", "Element", r"must have a header that begins with .Elm Ion. or .Spec Ion.*, got none; it begins"),
        (" References:\n", "'Fe 1', 1\n", r"line 7 must hold no transition after the notes, got .*read joined files"),
    ],
)
def test_vald_damaged(file, old, new, message):
    assert SHORT_ALL.count(old) >= 1
    with pytest.raises(ValueError, match=rf"lines\.txt,? {message}"):
        read_vald(file(SHORT_ALL.replace(old, new, 1)))


def test_vald_without_lines(file):
    with pytest.raises(ValueError, match="must be a file with transitions in it, got none"):
        read_vald(file("\n".join(SHORT_ALL.splitlines()[:2])))


@pytest.mark.parametrize("n_lines", [4, 5])
def test_vald_long_cut_off(file, n_lines):
    with pytest.raises(ValueError, match="line 3 must be followed by two lines of levels and a quoted one"):
        read_vald(file("\n".join(LONG_ALL.splitlines()[:n_lines])))
    lines = LONG_ALL.splitlines(keepends=True)
    del lines[n_lines]
    with pytest.raises(ValueError, match="line 3 must be followed by two lines of levels and a quoted one"):
        read_vald(file("".join(lines)))


# --------------------------------------------------------------------------------------------------------------- MOOG


def test_moog(file):
    table = read_moog(file(MOOG))
    assert table.colnames == ["line_center", "species", "isotopologue", "log_gf", "excitation_potential",
                              "log_gamma_vdw", "log_c6", "unsold_factor", "dissociation_energy",
                              "equivalent_width"]  # fmt: skip
    expected = {
        "Fe II": (1999.0, "", -1.5),
        "CN": (vacuum(3883.444), "", -1.3),
        "Eu II": (vacuum(4129.708), "151Eu", 0.22),
        "Sr II": (vacuum(4215.524), "87Sr", -0.17),
        "CH": (vacuum(4300.123), "12C1H", -1.7),
        "Na I": (SODIUM_VACUUM[0], "", 0.108),
        "Fe I": (vacuum(IRON[0]), "", -0.718),
        "Fe I ": (vacuum(IRON[1]), "", -0.973),
        "Li I": (vacuum(6707.764), "7Li", -0.002),
        "TiO": (vacuum(7054.189), "", -0.6),
        "Ca II": (vacuum(CALCIUM[1]), "", -0.463),
    }
    del expected["TiO"]
    tio = table["species"] == "TiO"
    assert list(table["isotopologue"][tio]) == ["40Ti16O"]
    assert_centers(table[tio], vacuum(7054.189))
    table = table[~tio]
    assert list(table["species"]) == [name.strip() for name in expected]
    centers, isotopologues, log_gf = zip(*expected.values(), strict=True)
    assert_centers(table, centers)
    assert list(table["isotopologue"]) == list(isotopologues)
    np.testing.assert_array_equal(table["log_gf"], log_gf)


def test_moog_optional_columns(file):
    table = read_moog(file(MOOG))
    first, second = table[table["species"] == "Fe I"]
    assert first["unsold_factor"] == 2.2 and np.isnan(first["log_gamma_vdw"]) and np.isnan(first["equivalent_width"])
    assert second["log_gamma_vdw"] == -7.54 and np.isnan(second["unsold_factor"])
    assert second["equivalent_width"] == 0.0521 * u.AA
    assert second["excitation_potential"] == 3.6864 * u.eV and np.isnan(second["dissociation_energy"])
    assert table["log_c6"][table["species"] == "Na I"][0] == pytest.approx(-31)
    methylidyne = table[table["species"] == "CH"][0]
    assert methylidyne["dissociation_energy"] == 3.465 * u.eV and np.isnan(methylidyne["equivalent_width"])
    assert table.meta == {"wavelength_medium": "vacuum", "source_medium": "air", "format": "MOOG",
                          "source": "lines.txt", "title": "lines near the D doublet and others"}  # fmt: skip
    bare = read_moog(file(" 6301.4997      26.0    3.6537    -0.718\n"))
    assert bare.colnames == ["line_center", "species", "log_gf", "excitation_potential"]
    assert "title" not in bare.meta


def test_moog_in_vacuum(file):
    table = read_moog(file(MOOG), wavelength_medium="vacuum")
    assert 5889.9509 in table["line_center"].value
    assert table.meta["source_medium"] == "vacuum"


def test_moog_wavenumbers(file):
    table = read_moog(file(" 6301.4997      26.0 29469.024    -0.718\n 5889.9509      11.0     0.000     0.108\n"))
    np.testing.assert_allclose(table["excitation_potential"].to_value("eV"), [0, 3.6537], atol=1e-4)


def test_moog_freeform(file):
    text = "title\n6301.4997 26.0 3.6537 -0.718 0 0 45.5 and a comment\n5889.9509 11.0 0 0.108\n"
    with pytest.raises(ValueError, match=r"line 2 must have a number .*; columns are ten char.* give freeform=True"):
        read_moog(file(text))
    table = read_moog(file(text), freeform=True)
    assert_centers(table, [SODIUM_VACUUM[0], vacuum(IRON[0])])
    np.testing.assert_array_equal(table["equivalent_width"].to_value("mAA"), [np.nan, 45.5])
    with pytest.raises(ValueError, match=r"line 2 must have a number as damping, got 'Fe'; correct it"):
        read_moog(file("title\n6301.4997 26.0 3.6537 -0.718 Fe\n"), freeform=True)


@pytest.mark.parametrize(
    ("code", "species", "isotopologue"),
    [
        ("26", "Fe I", None),
        ("26.00000", "Fe I", None),
        ("92.1", "U II", None),
        ("40.009", "Zr I", "90Zr"),
        ("42.0100", "Mo I", "100Mo"),
        ("101.0", "H2", None),
        ("108.00116", "OH", "16O1H"),
        ("112.00124", "MgH", "24Mg1H"),
        ("114.0", "SiH", None),
        ("126.0", "FeH", None),
        ("606.01213", "C2", "12C13C"),
        ("608.01316", "CO", "13C16O"),
        ("822.0165", "TiO", "50Ti16O"),
        ("10108.0", "H2O", None),
        ("10607.0", "HCN", None),
        ("60808.0", "CO2", None),
        ("106.1", "CH+", None),
    ],
)
def test_moog_species(file, code, species, isotopologue):
    row = read_moog(file(f"title\n  6301.500{code:>10}     3.654    -0.718\n"))[0]
    assert row["species"] == species
    assert ("isotopologue" in row.colnames) == (isotopologue is not None)
    assert isotopologue is None or row["isotopologue"] == isotopologue


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("  6301.500      Fe I     3.654    -0.718", "have the code of a species, got 'Fe I'; write Fe II as 26.1"),
        ("  6301.500     120.5     3.654    -0.7O8", "have a number as log_gf, got '-0.7O8'; columns are ten char"),
        ("  6301.500       0.0     3.654    -0.718", "have the code of a species, got '0.0'"),
        ("  6301.500     100.0     3.654    -0.718", "have the code of a species, got '100.0'"),
        ("  6301.500     60.01     3.654    -0.718", "have mass numbers that fit the atomic numbers, got '60.01'"),
        ("  6301.500   26.0100     3.654    -0.718", "have mass numbers that fit the atomic numbers, got '26.0100'"),
        ("  6301.500 606.01299     3.654    -0.718", "have mass numbers that fit the atomic numbers"),
        ("  6301.500      26.0              -0.718", "have a number as excitation_potential, got ''"),
        ("  6301.500      26.0     3.654", "have a number as log_gf, got ''"),
        ("     0.000      26.0     3.654    -0.718", "have a positive wavelength, got 0"),
        ("  6301.500      26.0     3.654    -0.718     -7.5x", "have a number as damping, got '-7.5x'"),
        ("  6301.500      26.0     3.654    -0.718                          inf", "have a number as equivalent_width"),
    ],
)
def test_moog_damaged(file, row, message):
    with pytest.raises(ValueError, match=rf"lines\.txt, line 3 must {message}"):
        read_moog(file(f"title\n  6301.500      26.0     3.654    -0.718\n{row}\n"))


def test_moog_without_lines(file):
    with pytest.raises(ValueError, match="must be a file with a line list for MOOG in it|with a line list for MOOG"):
        read_moog(file("only a title\n"))


# ------------------------------------------------------------------------------------------------------------- HITRAN


def test_hitran_rows_have_the_layout_of_the_format():
    assert {len(row) for row in (*WATER, *CARBON_MONOXIDE)} == {160}


def test_hitran(file):
    table = read_hitran(file(HITRAN, "05.par"))
    assert table.colnames == ["line_center", "species", "isotopologue", "intensity", "einstein_a", "gamma_air",
                              "gamma_self", "lower_energy", "temperature_exponent", "pressure_shift"]  # fmt: skip
    wavenumbers = [2150.856, 2147.081134, 2139.4261, 2099.7099, 2000.411407, 2000.395383]
    assert_centers(table, 1e8 / np.array(wavenumbers), atol=1e-9)
    assert list(table["species"]) == ["CO"] * 4 + ["H2O"] * 2
    assert list(table["isotopologue"]) == [11, 1, 10, 2, 1, 1]
    np.testing.assert_array_equal(table["intensity"].to_value("cm"),
                                  [1.83e-29, 9.473e-20, 9.12e-30, 1.03e-21, 1.98e-30, 9.745e-29])  # fmt: skip
    np.testing.assert_array_equal(table["einstein_a"].to_value("1/s"), [11.5, 11.93, 35.71, 10.9, 6.537e-9, 0.7551])
    atmosphere = u.def_unit("atmosphere", 101325 * u.Pa)
    per_atmosphere = 1 / (u.cm * atmosphere)
    np.testing.assert_allclose(table["gamma_air"].to_value(per_atmosphere),
                               [0.0756, 0.0797, 0.0797, 0.0797, 0.0686, 0.0325], rtol=1e-12)  # fmt: skip
    np.testing.assert_allclose(table["gamma_self"].to_value(per_atmosphere),
                               [0.086, 0.087, np.nan, 0.087, 0.333, 0.281], rtol=1e-12)  # fmt: skip
    np.testing.assert_allclose(table["pressure_shift"].to_value(per_atmosphere),
                               [-0.0029, -0.0028, -0.0028, -0.0028, 0, -0.00524], rtol=1e-12)  # fmt: skip
    np.testing.assert_array_equal(table["lower_energy"].to_value("1/cm"), [3.845, 0, np.nan, 0, 982.9117, 4265.9764])
    np.testing.assert_array_equal(table["temperature_exponent"], [0.75, 0.76, 0.76, 0.76, 0.62, 0.37])
    assert table.meta == {"wavelength_medium": "vacuum", "source_medium": "vacuum",
                          "format": "HITRAN 160-character", "source": "05.par"}  # fmt: skip


def test_hitran_isotopologue(file):
    path = file(HITRAN)
    table = read_hitran(path, isotopologue=1)
    assert list(table["species"]) == ["CO", "H2O", "H2O"] and set(table["isotopologue"]) == {1}
    with pytest.raises(ValueError, match=r"isotopologue must be an isotopologue in .* \(1, 2, 10, 11\), got 7"):
        read_hitran(path, isotopologue=7)


def test_hitran_molecule_without_a_name(file):
    assert read_hitran(file("61" + CARBON_MONOXIDE[0][2:]))["species"][0] == "HITRAN 61"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (CARBON_MONOXIDE[0][:66], "have 160 characters, got 66: ' 51 2147.*; use the 160-character format"),
        (CARBON_MONOXIDE[0] + " 1", "have 160 characters, got 162"),
        (CARBON_MONOXIDE[0].replace("9.473E-20", "9.473F-20"), "have a number as intensity, got '9.473F-20'"),
        (CARBON_MONOXIDE[0].replace("9.473E-20", "         "), "have a number as intensity, got ''"),
        (CARBON_MONOXIDE[0].replace("9.473E-20", "0.000E+00"), "have a positive intensity, got 0"),
        (CARBON_MONOXIDE[0].replace(" 2147.081134", "-2147.081134"), "have a positive wavenumber, got -2147.08"),
        (CARBON_MONOXIDE[0].replace("    0.0000", "   zero   "), "have a number as lower_energy, got 'zero'"),
        ("CO1" + CARBON_MONOXIDE[0][3:], "begin with the numbers of the molecule .*, got 'CO1'"),
        (" 01" + CARBON_MONOXIDE[0][3:], "begin with the numbers of the molecule .*, got ' 01'"),
    ],
)
def test_hitran_damaged(file, row, message):
    with pytest.raises(ValueError, match=rf"lines\.txt, line 2 must {message}"):
        read_hitran(file(f"{WATER[0]}\n{row}\n"))


# ------------------------------------------------------------------------------------------------------------ any file

READERS = [(read_vald, SHORT_ALL), (read_vald, LONG_ALL), (read_moog, MOOG), (read_hitran, HITRAN)]
ids = [f"{reader.__name__}-{k}" for k, (reader, _) in enumerate(READERS)]
every_reader = pytest.mark.parametrize(("reader", "text"), READERS, ids=ids)


def assert_equal(table, expected):
    assert table.colnames == expected.colnames
    for name in table.colnames:
        np.testing.assert_array_equal(np.asarray(table[name]), np.asarray(expected[name]))
        assert getattr(table[name], "unit", None) == getattr(expected[name], "unit", None)


@every_reader
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "   \n").encode(),
        lambda text: (text + "\n  \n\n").encode(),
        lambda text: text.rstrip("\n").encode(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: gzip.compress(text.encode()),
    ],
    ids=["windows", "trailing-blanks", "blank-lines", "no-last-newline", "byte-order-mark", "gzip"],
)
def test_same_lines_however_the_text_is_stored(file, reader, text, change):
    assert_equal(reader(file(change(text))), reader(file(text)))


def test_foreign_letters_in_the_references(file):
    expected = read_vald(file(SHORT_ALL))
    assert_equal(read_vald(file(SHORT_ALL.replace("Theodosiou", "Th\xe9odosiou").encode("latin-1"))), expected)


@pytest.mark.parametrize("reader", [read_vald, read_moog, read_hitran])
class TestNoLineList:
    def test_missing(self, reader, tmp_path):
        with pytest.raises(TypeError, match="path must be the name of a file, got 3; give"):
            reader(3)
        with pytest.raises(FileNotFoundError, match="path must name a file, got .*none.txt, which does not exist"):
            reader(tmp_path / "none.txt")

    def test_directory(self, reader, tmp_path):
        with pytest.raises(IsADirectoryError, match="path must name a file, got the directory"):
            reader(str(tmp_path))

    @pytest.mark.parametrize("content", ["", "\n  \n"])
    def test_empty(self, reader, file, content):
        with pytest.raises(ValueError, match="lines.txt must be a file with lines in it, got none"):
            reader(file(content))

    @pytest.mark.parametrize("format", ["fits", "ascii.ecsv", "votable"])
    def test_other_table(self, reader, tmp_path, format):
        path = tmp_path / "table"
        QTable({"line_center": [589.0, 589.6] * u.nm}).write(path, format=format)
        kind = {"fits": "a FITS file", "ascii.ecsv": "an ECSV table", "votable": "an XML file"}[format]
        with pytest.raises(ValueError, match=f"must be a line list in its native text format, got {kind}; .*QTable"):
            reader(path)

    def test_binary(self, reader, file):
        with pytest.raises(ValueError, match="must be a text file, got binary data"):
            reader(file(b"1\0\0\0"))

    def test_compressed_and_cut(self, reader, file):
        with pytest.raises(ValueError, match="must be whole, got a compressed file that ends too early"):
            reader(file(gzip.compress(MOOG.encode())[:-20]))

    def test_list_of_another_format(self, reader, file):
        for other, text in READERS:
            if other is not reader:
                with pytest.raises(ValueError, match="must .* got .*; "):
                    reader(file(text))


@pytest.mark.parametrize(("reader", "text"), READERS[:3], ids=ids[:3])
def test_unknown_medium(file, reader, text):
    with pytest.raises(ValueError, match='wavelength_medium must be "air" or "vacuum", got \'water\''):
        reader(file(text), wavelength_medium="water")


@every_reader
@pytest.mark.parametrize("format", ["ascii.ecsv", "fits"])
def test_round_trip(file, tmp_path, reader, text, format):
    table = reader(file(text))
    path = tmp_path / "table"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VerifyWarning)  # names in meta are longer than FITS has them
        table.write(path, format=format)
    back = QTable.read(path, format=format)
    back.convert_bytestring_to_unicode()
    assert back.colnames == table.colnames
    for name in table.colnames:
        column = getattr(back[name], "unmasked", back[name])
        values = np.ma.filled(column.value, "" if table[name].dtype.kind == "U" else np.nan)
        np.testing.assert_array_equal(values, table[name].value, err_msg=name)
        unit = getattr(table[name], "unit", None)
        assert unit is None or (1 * column.unit).to_value(unit) == pytest.approx(1, rel=1e-15)
    assert {str(k).lower(): v for k, v in back.meta.items()} == table.meta


@every_reader
def test_table_makes_regions(file, reader, text):
    table = reader(file(text))
    regions = SpectralRegion.from_line_list(table, width=1 * u.AA)
    assert len(regions) == len(table)
    assert regions[0].lower < table["line_center"][0] < regions[0].upper


# ----------------------------------------------------------------------------------------------------------- strengths


def test_strength_of_atoms(file):
    table = read_moog(file(MOOG))
    temperature = 4500.0
    strength = relative_strength(table, temperature * u.K)
    assert strength.unit == u.AA and strength.shape == (len(table),)
    weak, strong = np.flatnonzero(table["species"] == "Fe I")[::-1]
    assert strength[strong] == 1e-3 * u.AA
    # in eV, with the Boltzmann constant and h c of CODATA 2018
    kt = 8.617333262e-5 * temperature
    photon = 12398.41984 / table["line_center"].value
    expected = 10 ** (-0.973 + 0.718) * np.exp(-(3.6864 - 3.6537) / kt) * (photon[strong] / photon[weak]) ** 2
    expected *= (1 - np.exp(-photon[weak] / kt)) / (1 - np.exp(-photon[strong] / kt))
    assert strength[weak].value == pytest.approx(1e-3 * expected, rel=1e-9)
    for name in set(table["species"]):
        assert strength[table["species"] == name].max() == 1e-3 * u.AA


def test_strength_at_the_temperature_of_hitran(file):
    table = read_hitran(file("\n".join([*CARBON_MONOXIDE[:2], *WATER])))
    ratios = {"CO": 9.473e-20 / 1.03e-21, "H2O": 9.745e-29 / 1.98e-30}
    wavenumbers = {"CO": 2099.7099 / 2147.081134, "H2O": 2000.411407 / 2000.395383}
    for name, ratio in ratios.items():
        strength = relative_strength(table, 296 * u.K)[table["species"] == name].value
        assert strength.max() == pytest.approx(1e-3)
        assert strength.max() / strength.min() == pytest.approx(ratio * wavenumbers[name] ** 2, rel=1e-9)


def test_strength_of_molecules_at_another_temperature(file):
    table = read_hitran(file("\n".join(WATER)))
    first, second = relative_strength(table, 1500 * u.K).value  # by wavelength: 2000.411 before 2000.395
    c2, energy = 1.438776877, np.array([982.9117, 4265.9764])
    population = np.exp(-c2 * energy * (1 / 1500 - 1 / 296))
    expected = np.array([1.98e-30, 9.745e-29]) * population / np.array([2000.411407, 2000.395383]) ** 2
    # the factors of stimulated emission cancel to 1e-5 for neighbours
    assert first / second == pytest.approx(expected[0] / expected[1], rel=2e-5)
    hot = relative_strength(
        read_hitran(
            file(
                "\n".join(
                    [WATER[0], WATER[1].replace(" 2000.411407", " 4000.822814").replace("  982.9117", " 4265.9764")]
                )
            )
        ),
        3000 * u.K,
    )
    emission = [(1 - np.exp(-c2 * nu / 3000)) / (1 - np.exp(-c2 * nu / 296)) for nu in (4000.822814, 2000.395383)]
    ratio = 1.98e-30 / 9.745e-29 * (2000.395383 / 4000.822814) ** 2 * emission[0] / emission[1]
    assert (hot[0] / hot[1]).value == pytest.approx(ratio, rel=1e-9)


def test_strength_of_a_table_that_was_stored(file, tmp_path):
    table = read_hitran(file(HITRAN), isotopologue=1)
    table.write(tmp_path / "table.ecsv")
    back = QTable.read(tmp_path / "table.ecsv")
    np.testing.assert_array_equal(relative_strength(back, 500 * u.K), relative_strength(table, 500 * u.K))
    cold = relative_strength(table, 0.5 * u.K)  # exp(-E/kT) itself is no float any more
    assert np.isfinite(cold).all() and cold.max() == 1e-3 * u.AA


def test_strength_becomes_a_column(file):
    table = read_vald(file(SHORT_ALL))
    table["strength"] = relative_strength(table, 5772 * u.K)
    np.testing.assert_array_equal(table["strength"].to_value("mAA"), 1.0)  # one line of each species


def test_strength_of_bad_input(file):
    table = read_hitran(file(HITRAN))
    with pytest.raises(ValueError, match="table must have lower_energy in every row, got 1 without, .* in row 2"):
        relative_strength(table, 296 * u.K)
    with pytest.raises(ValueError, match="temperature must be finite and positive, got -1.0 K"):
        relative_strength(table, -1 * u.K)
    with pytest.raises(TypeError, match="temperature must be a Quantity"):
        relative_strength(table, 296)
    with pytest.raises(ValueError, match="table must have line_center, species, .*got none of intensity; read it"):
        relative_strength(table["line_center", "species", "lower_energy"], 296 * u.K)
    with pytest.raises(ValueError, match="got none of excitation_potential"):
        relative_strength(read_moog(file(MOOG))["line_center", "species", "log_gf"], 296 * u.K)


def test_import_is_light():
    code = (
        "import sys, specutils_blase.io as i; assert 'read_vald' in dir(i); "
        "print([n for n in ('numpy', 'astropy', 'specutils', 'torch') if n in sys.modules]); i.read_vald; "
        "print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.split("\n")[:2] == ["[]", "False"]
    import specutils_blase.io

    with pytest.raises(AttributeError, match="'specutils_blase.io' has no attribute 'read_kurucz'"):
        _ = specutils_blase.io.read_kurucz
