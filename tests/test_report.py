"""Texts for the terminal."""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable

from specutils_blase.flags import OUTSIDE_WINDOW
from specutils_blase.report import (
    deepest_lines,
    describe_lines,
    describe_orders,
    format_pairs,
    format_table,
    with_error,
)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (-9.25371, 0.0123, "-9.254 ± 0.012"),
        (2.2, 0.4, "2.20 ± 0.40"),
        (0.0, 0.012, "0.000 ± 0.012"),
        (90512.3, 41.7, "90512 ± 42"),
        (90512.3, 4170.0, "90512 ± 4170"),
        (0.0012345, 0.000098, "0.001234 ± 0.000098"),
        (1.65023e-14, 2.1e-17, "(1.6502 ± 0.0021)e-14"),
        (1e-14, 3e-14, "(1.0 ± 3.0)e-14"),  # an error that is larger than its value
        (7.25, 0.0, "7.25"),
        (7.25, float("nan"), "7.25"),
        (55000.0, float("inf"), "55000"),
    ],
)
def test_with_error(value, error, text):
    assert with_error(value, error) == text


def test_with_error_and_unit():
    assert with_error(-9.25371, 0.0123, "km / s") == "-9.254 ± 0.012 km / s"


def test_columns_are_aligned():
    text = format_table([("name", "value"), ("radial_velocity", 1), ("x", 12.5)])
    assert text.splitlines() == ["  name             value", "  radial_velocity      1", "  x                 12.5"]
    assert format_pairs({"a": 1, "long": "two"}).splitlines() == ["  a     1", "  long  two"]


def test_lines_by_depth_and_wavelength():
    lines = QTable(
        {
            "line_center": [5003.0, 5001.0, 5002.0] * u.AA,
            "depth": [0.3, 0.2, 0.1],
            "equivalent_width": [0.03, 0.02, 0.01] * u.AA,
            "equivalent_width_err": [0.001, 0.001, 0.001] * u.AA,
            "component": ["star", "star", "telluric"],
        }
    )
    text = describe_lines(lines, n_shown=2).splitlines()
    assert text[0] == "  lines  2 star, 1 telluric"
    assert text[1] == "  range  5001.00 to 5003.00 Angstrom, vacuum"
    assert [row.split()[0] for row in text[3:]] == ["5001.000", "5003.000"]
    assert "30.0 ± 1.0" in text[4]
    assert deepest_lines(lines, n_shown=2).splitlines() == text[2:]
    assert describe_lines(lines[:0]).splitlines()[0] == "  lines  none"
    lines["flags"] = [OUTSIDE_WINDOW, 0, 0]  # a fit says nothing about a line that it has not seen
    assert [row.split()[0] for row in deepest_lines(lines, n_shown=3).splitlines()[1:]] == ["5001.000", "5002.000"]


def table_of_orders(ratios):
    n, ratio = len(ratios), np.array(ratios, dtype=float)
    return QTable({"order": np.arange(n), "wavelength_min": 10_000.0 + 100.0 * np.arange(n) << u.AA,
                   "wavelength_max": 10_090.0 + 100.0 * np.arange(n) << u.AA, "n_pixels": np.full(n, 2040),
                   "rms": 0.002 * np.nan_to_num(ratio, nan=1.0), "noise": np.full(n, 0.002), "ratio": ratio,
                   "remark": ["why" if value > 1.5 else "" for value in ratio]})  # fmt: skip


def test_orders_are_a_short_table():
    heading, *rows = describe_orders(table_of_orders([1.0, 2.5, float("nan")])).splitlines()
    assert heading.split() == ["order", "wavelengths", "[Angstrom]", "pixels", "rms", "[%]", "noise", "[%]", "ratio",
                               "remark"]  # fmt: skip
    assert rows[1].split() == ["1", "10100.0", "to", "10190.0", "2040", "0.500", "0.200", "2.50", "why"]
    assert rows[2].split() == ["2", "10200.0", "to", "10290.0", "2040", "0.200", "0.200"] and len(rows) == 3
    table = table_of_orders([1.0, float("nan")])
    table["noise"] = np.nan
    assert "nan" not in describe_orders(table)


def test_orders_of_a_file_and_those_that_matter():
    text = describe_orders(table_of_orders([1.0, 3.0, 2.0]), numbers=[5, 7, 9])
    assert [row.split()[:2] for row in text.splitlines()[1:]] == [["0", "5"], ["1", "7"], ["2", "9"]]
    heading, *rows, last = describe_orders(table_of_orders([1.0, 3.0, 2.0, 1.2]), n_shown=2).splitlines()
    assert [row.split()[0] for row in rows] == ["1", "2"]
    assert last == "  and 2 with smaller ratios"
