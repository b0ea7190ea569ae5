"""Lines find their transitions in a native list, with probabilities that are right as often as they say."""

import numpy as np
import pytest
from astropy import constants
from astropy import units as u
from astropy.table import QTable, Table
from specutils.utils.wcs_utils import vac_to_air

from specutils_blase import match_lines
from specutils_blase.matching import common_lines

C = 299792.458


def known_lists(seed, *, n=6000, error=0.1, scatter=0.3, spurious=0.1, seen=0.3):
    """Lines, the native list, and which transition each line is (-1: none); the weak transitions are not seen."""
    rng = np.random.default_rng(seed)
    wave, strength = np.sort(rng.uniform(6000, 6500, n)), rng.lognormal(0, 2.5, n)
    truth = np.flatnonzero(strength > np.quantile(strength, 1 - seen))
    center = wave[truth] * (1 + rng.normal(size=truth.size) * np.hypot(error, scatter) / C)
    n_spurious = int(spurious * truth.size)
    center = np.append(center, rng.uniform(6000, 6500, n_spurious))
    truth = np.append(truth, np.full(n_spurious, -1))
    order = rng.permutation(center.size)
    lines = QTable({"line_center": center[order] * u.AA, "line_center_err": center[order] * error / C * u.AA})
    native = QTable({"line_center": wave * u.AA, "species": np.full(n, "Fe I"), "expected": strength})
    return lines, native, truth[order]


def columns(table, name, fill=-5):
    return np.ma.filled(np.ma.asarray(table[name]), fill)


@pytest.mark.parametrize("strength", [None, "expected"])
@pytest.mark.parametrize(("seed", "spurious"), [(1, 0.1), (2, 0.4)])
def test_probabilities_are_right_as_often_as_they_say(strength, seed, spurious):
    lines, native, truth = known_lists(seed, spurious=spurious)
    matched = match_lines(lines, native, strength=strength, min_probability=0.0)
    assert matched.meta["match_scatter"] == pytest.approx(0.3, abs=0.03)
    assert matched.meta["match_fraction"] == pytest.approx(1 / (1 + spurious), abs=0.03)
    probability, right = columns(matched, "probability", np.nan), columns(matched, "native_row") == truth
    for low, high in [(0.0, 0.5), (0.5, 0.8), (0.8, 0.95), (0.95, 1.0)]:
        chosen = (probability >= low) & (probability < high)
        if chosen.sum() > 50:
            expected = probability[chosen].mean()
            tolerance = 3.5 * np.sqrt(max(expected * (1 - expected), 0.01) / chosen.sum())
            assert right[chosen].mean() == pytest.approx(expected, abs=tolerance)


def test_strengths_tell_more():
    lines, native, truth = known_lists(1)
    right = [np.mean(columns(match_lines(lines, native, strength=name), "native_row") == truth)
             for name in (None, "expected")]  # fmt: skip
    assert right[1] > right[0] + 0.04


def test_lines_at_a_wrong_velocity_are_unmatched():
    lines, native, _ = known_lists(3)
    for velocity in (-60, 45, 200):
        moved = QTable({"line_center": lines["line_center"] * (1 + velocity / C)})
        matched = match_lines(moved, native, strength="expected")
        assert np.mean(columns(matched, "probability", 0) > 0.5) < 0.01


def test_false_matches_among_true_ones():
    # half of the lines are moved by 60 km/s, so that what is found for them is chance
    lines, native, truth = known_lists(4, spurious=0.0)
    moved = np.arange(len(lines)) % 2 == 0
    lines["line_center"][moved] *= 1 + 60 / C
    matched = match_lines(lines, native, min_probability=0.9, strength="expected")
    found = ~np.ma.getmaskarray(matched["species"])
    promised = (1 - columns(matched, "probability", np.nan)[found]).sum()
    false = np.count_nonzero(found & (columns(matched, "native_row") != truth))
    assert np.count_nonzero(found & ~moved) > 250
    assert false < promised + 4 * np.sqrt(promised)


def test_probability_is_that_of_the_formula():
    rng = np.random.default_rng(5)
    wave = np.sort(rng.uniform(5000, 5100, 300))
    center = wave[::4] * (1 + rng.normal(size=75) * 0.3 / C)
    lines = QTable({"line_center": center * u.AA, "line_center_err": rng.uniform(1e-3, 4e-3, 75) * u.AA})
    strength = rng.lognormal(0, 1, 300)
    native = QTable({"line_center": wave * u.AA, "species": ["X"] * 300})
    matched = match_lines(lines, native, min_probability=0.0, window=4 * u.km / u.s)
    sigma, fraction = matched.meta["match_scatter"], matched.meta["match_fraction"]
    for i in range(75):
        velocity = C * (center[i] / wave - 1)
        near = np.abs(velocity) <= 4
        around = np.sum((wave >= center[i] / (1 + 200 / C)) & (wave <= center[i] / (1 - 200 / C)))
        spread = np.hypot(sigma, C * lines["line_center_err"][i].value / center[i])
        ratio = np.where(near, fraction * np.exp(-0.5 * (velocity / spread) ** 2) / spread / np.sqrt(2 * np.pi), 0)
        ratio /= around / 400
        expected = ratio / (1 - fraction + ratio.sum())
        assert matched["n_candidates"][i] == near.sum()
        if near.any():
            assert columns(matched, "native_row")[i] == np.argmax(expected)
            assert columns(matched, "probability")[i] == pytest.approx(expected.max(), rel=1e-9)
            assert matched["separation"].unmasked[i].value == pytest.approx(velocity[np.argmax(expected)], abs=1e-9)
    native["strength"] = strength
    assert (columns(match_lines(lines, native, strength="strength"), "share") <= 1).all()


def blend(**more):
    wave = 6000 * np.array([1 - 0.5 / C, 1 + 0.5 / C])
    native = QTable({"line_center": wave * u.AA, "species": ["Fe I", "Ni I"], **more})
    return QTable({"line_center": [6000.0] * u.AA, "line_center_err": [0.006] * u.AA}), native


def test_of_equally_distant_transitions_the_stronger_is_taken():
    lines, native = blend(expected=[1.0, 9.0])
    matched = match_lines(lines, native, strength="expected")
    assert (matched["species"][0], matched["n_candidates"][0]) == ("Ni I", 2)
    assert matched["share"][0] == pytest.approx(0.9)
    alone = match_lines(lines, native, strength="expected", min_probability=0.0)["probability"][0]
    native["expected"] = native["expected"][::-1]
    swapped = match_lines(lines, native, strength="expected", min_probability=0.0)
    assert (swapped["species"][0], swapped["probability"][0]) == ("Fe I", pytest.approx(alone, rel=1e-4))
    assert match_lines(lines, native, min_probability=0.0)["share"][0] == 0.5


def test_transitions_of_other_lines_are_no_share_of_a_blend():
    wave = 6000 * (1 + np.array([0.0, 1.0, 3.0]) / C)
    native = QTable({"line_center": wave * u.AA, "species": ["Fe I", "V I", "Ni I"], "expected": [6.0, 2.0, 6.0]})
    lines = QTable({"line_center": wave[[0, 2]] * u.AA, "line_center_err": [0.002, 0.002] * u.AA})
    matched = match_lines(lines, native, strength="expected")
    assert list(matched["species"]) == ["Fe I", "Ni I"]
    np.testing.assert_array_equal(matched["n_candidates"], [3, 3])
    np.testing.assert_allclose(columns(matched, "share"), [0.75, 1.0])


def test_temperature_weighs_by_gf_and_boltzmann():
    lines, native = blend(log_gf=[-1.0, -1.5], excitation_potential=[3.0, 1.0] * u.eV)
    for kelvin in (3000, 6000, 20000):
        level = (native["excitation_potential"] / constants.k_B).to_value(u.K)
        weight = 10.0 ** native["log_gf"] * np.exp(-level / kelvin)
        matched = match_lines(lines, native, temperature=kelvin * u.K, min_probability=0.0)
        assert matched["share"][0] == pytest.approx(weight.max() / weight.sum(), rel=1e-4)
        assert matched["species"][0] == ("Ni I", "Fe I")[int(weight[0] > weight[1])]


def test_rows_order_columns_and_masks():
    native = QTable({"line_center": [630.4236, 630.3242] * u.nm, "species": ["Fe II", "Fe I"], "log_gf": [-0.9, -0.7],
                     "excitation_potential": [3.7, 3.6] * u.eV, "equivalent_width": [1, 2] * u.AA},
                    meta={"source_medium": "air"})  # fmt: skip
    native["log_gf"].info.description = "of the list"
    lines = QTable({"line_center": [6304.236, 6303.9, 6303.245] * u.AA, "equivalent_width": [50, 20, 100] * u.mAA,
                    "species": ["?"] * 3, "flags": [0, 2, 0]}, meta={"form": "opacity"})  # fmt: skip
    matched = match_lines(lines, native)
    assert list(matched["species"]) == ["Fe II", np.ma.masked, "Fe I"]
    np.testing.assert_array_equal(matched["line_center"].value, lines["line_center"].value)
    np.testing.assert_array_equal(matched["equivalent_width"].value, [50, 20, 100])
    np.testing.assert_array_equal(matched["native_row"].mask, [False, True, False])
    for name in ("laboratory_wavelength", "laboratory_wavelength_air", "excitation_potential", "separation"):
        np.testing.assert_array_equal(matched[name].mask, [False, True, False])
    assert matched["excitation_potential"].unit == u.eV
    np.testing.assert_array_equal(matched["n_candidates"], [1, 0, 1])
    air = vac_to_air(native["line_center"].to(u.AA)).value
    np.testing.assert_allclose(matched["laboratory_wavelength_air"].unmasked.value[[0, 2]], air, rtol=1e-9)
    assert matched["log_gf"].info.description == "of the list"
    assert "separation" not in lines.colnames and matched.meta["form"] == "opacity"
    assert "laboratory_wavelength_air" not in match_lines(lines, QTable(native, meta={})).colnames


@pytest.mark.parametrize("velocity", [-80.0, 35_000.0])
def test_radial_velocity(velocity):
    lines, native, truth = known_lists(6, n=500, seen=0.9)
    moved = lines.copy()
    moved["line_center"] *= np.sqrt((1 + velocity / C) / (1 - velocity / C))
    matched = match_lines(moved, native, radial_velocity=velocity * u.km / u.s)
    at_rest = match_lines(lines, native)
    np.testing.assert_array_equal(columns(matched, "native_row"), columns(at_rest, "native_row"))
    assert np.mean(columns(at_rest, "native_row") == truth) > 0.9


def test_media_are_read_from_meta():
    lines, native, _ = known_lists(7, n=500, seen=0.9)
    expected = columns(match_lines(lines, native), "native_row")
    in_air = lines.copy()
    in_air["line_center"] = vac_to_air(lines["line_center"])
    assert np.mean(columns(match_lines(in_air, native), "native_row") == expected) < 0.2  # 80 km/s off
    in_air.meta["wavelength_medium"] = "air"
    np.testing.assert_array_equal(columns(match_lines(in_air, native), "native_row"), expected)
    frequencies = lines.copy()
    frequencies["line_center"] = lines["line_center"].to(u.THz, u.spectral())
    frequencies["line_center_err"] = lines["line_center_err"] / lines["line_center"] * frequencies["line_center"]
    np.testing.assert_array_equal(columns(match_lines(frequencies, native), "native_row"), expected)


def test_centers_that_are_not_known_and_plain_tables():
    lines, native, _ = known_lists(8)
    lines["line_center_err"][:5] = np.inf
    lines["line_center_err"][5] = np.nan
    matched = match_lines(lines, native, min_probability=0.0)
    known = columns(matched, "probability", 0.0)
    assert np.median(known[:6]) < 0.5 and known[:6].max() < 0.8 < np.median(known)
    plain = match_lines(Table(lines), Table(native), min_probability=0.0)
    np.testing.assert_allclose(columns(plain, "probability", 0.0), known)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"window": 3}, TypeError, "window must be a Quantity"),
        ({"window": -3 * u.km / u.s}, ValueError, "window must be finite and positive"),
        ({"window": 3 * u.AA}, u.UnitsError, "window must have a unit"),
        ({"radial_velocity": 4e5 * u.km / u.s}, ValueError, "below the speed of light"),
        ({"radial_velocity": 900 * u.km / u.s}, ValueError, "native must have transitions within 5.0 km / s"),
        ({"min_probability": 2}, ValueError, "min_probability must lie between 0 and 1"),
        ({"temperature": 5000 * u.K, "strength": "expected"}, ValueError, "strength must be None"),
        ({"temperature": 5000}, TypeError, "temperature must be a Quantity"),
        ({"temperature": 5000 * u.K}, ValueError, "table must have line_center"),
        ({"strength": "depth"}, ValueError, "strength must name a column of native"),
        ({"strength": "zero"}, ValueError, r'native\["zero"\] must be positive in every row'),
        ({"native": QTable({"line_center": [6000.0] * u.AA})}, ValueError, "native must have a column species"),
        ({"lines": QTable({"line_center": [] * u.AA})}, ValueError, "lines must hold lines, got an empty table"),
        ({"native": QTable({"line_center": [] * u.AA})}, ValueError, "native must hold lines, got an empty table"),
        ({"lines": 3}, TypeError, "lines must be a Table"),
        ({"lines": QTable({"line_center": [6e3] * u.AA, "line_center_err": [1.0]})}, u.UnitsError, "line_center_err"),
    ],
)
def test_bad_input(changes, error, message):
    lines, native = blend(expected=[1.0, 9.0], zero=[1.0, 0.0])
    with pytest.raises(error, match=message):
        match_lines(**{"lines": lines, "native": native, **changes})


def test_common_lines_are_nearest_both_ways():
    rng = np.random.default_rng(9)
    a, b = rng.uniform(5000, 5010, 60), rng.uniform(5000, 5010, 50)
    i, j, velocity = common_lines(QTable({"line_center": a * u.AA}), QTable({"line_center": b * u.AA}), 3 * u.km / u.s)
    distance = np.abs(a[:, None] - b)
    nearest = [(p, distance[p].argmin()) for p in range(60)]
    expected = {(p, q) for p, q in nearest if distance[:, q].argmin() == p and distance[p, q] / a[p] * C <= 3}
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == expected and len(expected) > 5
    np.testing.assert_allclose(velocity, C * (b[j] / a[i] - 1))
    assert (np.diff(a[i]) > 0).all()
    empty = QTable({"line_center": [] * u.AA})
    assert all(x.size == 0 for x in common_lines(empty, QTable({"line_center": a * u.AA}), 3 * u.km / u.s))
