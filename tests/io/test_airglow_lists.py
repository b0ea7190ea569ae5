"""Lists of airglow lines as two pipelines write them."""

import numpy as np
import pytest

from specutils_blase.io import read_airglow

COLUMNS = "6141.146 6.512e-01\n\n6138.239 1.258e-01\n6138.265 0.0\n"
TABLE = """|      wave | amplitude | ion |
|  9505.418 |      16.1 |  OH |
|  9479.561 |      53.8 |  OH |
"""


@pytest.fixture
def write(tmp_path):
    def writer(text):
        path = tmp_path / "lines.dat"
        path.write_text(text)
        return path

    return writer


def test_two_columns(write):
    lines = read_airglow(write(COLUMNS))
    np.testing.assert_array_equal(lines["line_center"].to_value("nm"), [613.8239, 614.1146])
    np.testing.assert_array_equal(lines["intensity"], [0.1258, 0.6512])
    assert lines.meta == {"source": "lines.dat", "wavelength_medium": "vacuum"}


def test_table(write):
    lines = read_airglow(write("# a comment\n" + TABLE))
    np.testing.assert_array_equal(lines["line_center"].value, [9479.561, 9505.418])
    np.testing.assert_array_equal(lines["intensity"], [53.8, 16.1])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("6141.146\n", "line 1 must have a wavelength and an intensity, got 1 numbers"),
        ("6141.146 x\n", "line 1 must have a number as intensity, got 'x'"),
        ("6141.146 1\n-3 1\n", "line 2 must have a positive wavelength, got -3"),
        ("| lambda | amplitude |\n| 1 | 2 |\n", "must have the columns wave and amplitude, got"),
        ("| wave | amplitude |\n| 9000.1 |\n", "line 2 must have a wavelength and an intensity"),
        ("# nothing\n", "must be a file with lines of airglow, got none"),
        ("| wave | amplitude |\n", "must be a file with lines of airglow, got none"),
        ("", "must be a file with lines in it, got none"),
    ],
)
def test_bad_files(write, text, match):
    with pytest.raises(ValueError, match=match):
        read_airglow(write(text))


@pytest.mark.parametrize(("name", "count", "first"), [("igrins_plp_ohlines.dat", 4648, 6138.239),
                                                      ("pypeit_OH_R24000_lines.dat", 584, 9479.561)])  # fmt: skip
def test_real_lists(shared_data, name, count, first):
    lines = read_airglow(shared_data / "linelists" / name)
    assert len(lines) == count and lines["line_center"][0].value == first
    assert np.all(np.diff(lines["line_center"].value) >= 0)
