"""clone_spectrum(lines=...): lines that are given come back, what is fixed stays, what is tied moves together."""

import warnings

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import StdDevUncertainty
from astropy.table import MaskedColumn, QTable, Table
from astropy.utils.masked import Masked
from scipy.optimize import least_squares
from scipy.special import voigt_profile
from specutils import Spectrum
from specutils.utils.wcs_utils import vac_to_air

from specutils_blase import BlaseWarning, LineTemplate, clone_spectrum
from specutils_blase.flags import BLENDED, OUTSIDE_WINDOW
from specutils_blase.io import read_hitran, read_moog, read_vald, relative_strength

C = 299792.458
FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
WAVE = np.arange(5000.0, 5016.0, 0.02)
CENTER = np.array([5002.01, 5004.503, 5006.9, 5007.16, 5010.05, 5013.2])
STRENGTH = np.array([0.03, 0.08, 0.05, 0.02, 0.12, 0.04])
GAUSS, LORENTZ = np.full(6, 0.16), np.full(6, 0.06)
SPECIES = np.array(["Fe I", "Ti I", "Fe I", "Ti I", "Fe I", "CN"])
COLUMNS = ("line_center", "strength", "fwhm_gauss", "fwhm_lorentz")
KINDS = {"strength": ("strength",), "fwhm": ("fwhm_gauss", "fwhm_lorentz"), "x_0": ("line_center",)}


def flux_of(center=CENTER, strength=STRENGTH, gauss=GAUSS, lorentz=LORENTZ, wave=WAVE):
    profile = voigt_profile(wave[:, None] - center, gauss / FWHM_PER_SIGMA, lorentz / 2.0)
    return np.exp(-(strength * profile).sum(axis=1))


def spectrum(flux=None, wave=WAVE * u.AA, **options):
    return Spectrum(flux=(flux_of() if flux is None else flux) * u.Jy, spectral_axis=wave, **options)


def noisy(seed, sigma, **changes):
    flux = flux_of(**changes) + sigma * np.random.default_rng(seed).normal(size=WAVE.size)
    return spectrum(flux, uncertainty=StdDevUncertainty(np.full(WAVE.size, sigma)))


def line_list(**changes):
    columns = {"line_center": CENTER, "strength": STRENGTH, "fwhm_gauss": GAUSS, "fwhm_lorentz": LORENTZ, **changes}
    table = QTable({name: values * u.AA for name, values in columns.items()})
    table["species"] = SPECIES
    return table


def clone(source, lines, **options):
    return clone_spectrum(source, lines=lines, **{"continuum_degree": 0, "progress": False, **options})


def assert_near_truth(template, rtol=2e-3, truth=(CENTER, STRENGTH, GAUSS, LORENTZ)):
    row = template.lines["list_row"]
    for name, values in zip(COLUMNS, truth, strict=True):
        tolerance = {"atol": 1e-4, "rtol": 0} if name == "line_center" else {"rtol": rtol}
        np.testing.assert_allclose(template.lines[name].to_value(u.AA), values[row], **tolerance, err_msg=name)


class TestGivenLines:
    def test_come_back_from_starts_that_are_off(self):
        off = np.exp(0.2 * np.array([1, -1, 1, -1, 1, -1]))
        table = line_list(strength=STRENGTH * off, fwhm_gauss=GAUSS / off, line_center=CENTER + 0.03 * (off - 1))
        template = clone(spectrum(), table)
        assert template.fit_info["status"] == "converged" and template.fit_info["rms"] < 1e-5
        assert_near_truth(template)

    @pytest.mark.parametrize("names", [(), ("line_center",), ("line_center", "strength"), ("fwhm_lorentz",)])
    def test_columns_that_are_not_known_are_seen_in_the_spectrum(self, names):
        table = line_list()[list({"line_center", *names})]
        assert_near_truth(clone(spectrum(), table))

    @pytest.mark.parametrize("kind", ["NaN", "masked", "Masked"])
    @pytest.mark.parametrize("name", COLUMNS[1:])
    def test_values_that_are_not_known(self, kind, name):
        table, unknown = line_list(), np.arange(6) == 4
        values = table[name].value
        if kind == "NaN":
            table[name] = np.where(unknown, np.nan, values) * u.AA
        elif kind == "masked":
            table = Table(table)
            table[name] = MaskedColumn(np.where(unknown, -99.0, values), mask=unknown, unit=u.AA)
        else:
            table[name] = Masked(np.where(unknown, -99.0, values) * u.AA, mask=unknown)
        assert_near_truth(clone(spectrum(), table))

    def test_no_line_is_searched_for_or_dropped(self):
        table = line_list()[[1, 4]]
        template = clone(spectrum(), table, prominence=0.5, passes=9)
        assert len(template.lines) == 2
        # a line that is not there stays, noisy or not
        table = line_list()
        table.add_row((5011.5 * u.AA, 1e-3 * u.AA, 0.16 * u.AA, 0.06 * u.AA, "CN"))
        for source in (spectrum(), noisy(1, 0.01)):
            lines = clone(source, table, free="strength").lines
            assert sorted(lines["list_row"]) == list(range(7))
            assert lines["strength"][5].value < 5e-3

    def test_emission(self):
        strength = STRENGTH * [1, -1, 1, 1, -1, 1]
        for table in (line_list(strength=0.8 * strength), line_list()["line_center",]):
            template = clone(spectrum(flux_of(strength=strength)), table)
            assert_near_truth(template, truth=(CENTER, strength, GAUSS, LORENTZ))
            assert (np.asarray(template.lines["line_type"]) == "emission").tolist() == (strength < 0).tolist()

    def test_order_of_the_list_does_not_matter(self):
        order = np.array([3, 0, 5, 1, 4, 2])
        first, second = (clone(spectrum(), table) for table in (line_list(), line_list()[order]))
        assert (np.diff(second.lines["line_center"]) > 0).all()
        np.testing.assert_array_equal(first.lines["strength"], second.lines["strength"])
        np.testing.assert_array_equal(order[second.lines["list_row"]], np.arange(6))
        np.testing.assert_array_equal(second.lines["species"], line_list()[order]["species"][second.lines["list_row"]])
        assert "list of lines" in second.lines["list_row"].info.description

    def test_lines_that_change_places(self):
        shift = {"Fe I": 0.15, "Ti I": -0.15, "CN": 0.0}
        center = CENTER * (1 + np.array([shift[name] for name in SPECIES]) / 5007)
        assert center[2] > center[3]
        template = clone(noisy(9, 1e-5), line_list(line_center=center), free="x_0", tied={"x_0": "species"})
        assert template.lines["list_row"].tolist() == [0, 1, 2, 3, 4, 5]
        assert template.lines["species"].tolist() == SPECIES.tolist()
        assert_near_truth(template)
        for name, (velocity, std) in template.fit_info["tied"]["x_0"].items():
            assert velocity == pytest.approx(C / (1 + shift[name] / 5007) - C, abs=5 * std + 1e-4)
            mine = template.lines[template.lines["species"] == name]
            np.testing.assert_allclose(mine["line_center_err"] / mine["line_center"], std / C, rtol=1e-2)

    def test_units_and_frequencies(self):
        table, reference = line_list(), clone(spectrum(), line_list())
        table["line_center"] = table["line_center"].to(u.THz, u.spectral())
        table["strength"], table["fwhm_gauss"] = table["strength"].to(u.mAA), table["fwhm_gauss"].to(u.nm)
        template = clone(spectrum(), table)
        np.testing.assert_allclose(template.lines["strength"], reference.lines["strength"], rtol=1e-6)

    def test_in_air(self):
        table = line_list(line_center=vac_to_air(CENTER * u.AA).value)
        table.meta["wavelength_medium"] = "air"
        template = clone(spectrum(), table, free="strength")
        np.testing.assert_allclose(template.lines["line_center"].value, CENTER, rtol=1e-9)
        assert template.fit_info["rms"] < 1e-4
        # the medium of the spectrum is another matter
        air = spectrum(wave=vac_to_air(WAVE * u.AA), meta={"wavelength_medium": "air"})
        template = clone(air, line_list(), free="strength")
        assert template.fit_info["rms"] < 1e-4

    def test_lines_outside_are_left_out_with_one_warning(self):
        center = CENTER.copy()
        center[[0, 5]] = 4990.0, 5017.0
        flux = flux_of(strength=STRENGTH * [0, 1, 1, 1, 1, 0])
        with pytest.warns(BlaseWarning, match="2 of 6 lines lie outside the spectrum and are left out") as caught:
            template = clone(spectrum(flux), line_list(line_center=center))
        assert len(caught) == 1 and caught[0].filename == __file__
        assert template.lines["list_row"].tolist() == [1, 2, 3, 4]
        assert_near_truth(template)

    @pytest.mark.parametrize("free", ["strength", ("strength", "fwhm", "x_0")])
    def test_lines_in_a_gap_have_the_flag(self, free):
        mask = (WAVE > 5008.5) & (WAVE < 5011.6)
        with pytest.warns(BlaseWarning, match="pixels"):
            template = clone(spectrum(mask=mask), line_list(), free=free)
        flagged = (np.asarray(template.lines["flags"]) & OUTSIDE_WINDOW) > 0
        assert flagged.tolist() == [False, False, False, False, True, False]
        seen = ~flagged
        np.testing.assert_allclose(template.lines["strength"].value[seen], STRENGTH[seen], rtol=2e-3)
        relative = (template.lines["strength_err"] / template.lines["strength"]).value
        assert relative[4] > 1e3 * relative[seen].max()

    def test_a_list_without_species(self):
        table = line_list()
        del table["species"]
        assert "species" not in clone(spectrum(), table, free="strength").lines.colnames
        # and a blind clone has neither column
        blind = clone_spectrum(spectrum(), continuum_degree=0)
        assert not {"species", "list_row"} & set(blind.lines.colnames)

    @pytest.mark.parametrize("tied", [None, {"strength": "species", "x_0": "species"}])
    def test_file(self, tied, tmp_path):
        template = clone(spectrum(), line_list(), tied=tied)
        template.write(tmp_path / "given.asdf")
        back = LineTemplate.read(tmp_path / "given.asdf")
        assert back.lines.colnames == template.lines.colnames
        for name in ("list_row", "species", "blend", "blend_equivalent_width", "blend_equivalent_width_err"):
            np.testing.assert_array_equal(back.lines[name], template.lines[name])
        assert back.lines["list_row"].dtype.kind == "i" and back.lines["list_row"].info.description
        assert back.fit_info.get("tied") == template.fit_info.get("tied")
        assert ("tied" in back.fit_info) == (tied is not None)


class TestCrowds:
    """Lists with more lines than can be told apart, as those of hyperfine structure are."""

    @staticmethod
    def crowd(count, distance, seed=3, sigma=0.003):
        rng = np.random.default_rng(seed)
        wave = np.arange(5000.0, 5020.0, 0.02)
        center = np.append(5005.0 + distance * (np.arange(count) - (count - 1) / 2), 5015.0)
        lines = QTable({"line_center": center * u.AA, "strength": np.append(np.full(count, 0.2 / count), 0.1) * u.AA,
                        "fwhm_gauss": np.full(count + 1, 0.3) * u.AA,
                        "fwhm_lorentz": np.full(count + 1, 0.05) * u.AA})  # fmt: skip
        profile = voigt_profile(wave[:, None] - center, 0.3 / np.sqrt(8 * np.log(2)), 0.025)
        flux = np.exp(-profile @ lines["strength"].value) + sigma * rng.normal(size=wave.size)
        source = Spectrum(flux=flux * u.one, spectral_axis=wave * u.AA,
                          uncertainty=StdDevUncertainty(np.full(wave.size, sigma)))  # fmt: skip
        template = clone_spectrum(source, lines=lines, free=("strength",), continuum_degree=1)
        # the derivatives of the flux, by hand
        model = template.evaluate(wave * u.AA).flux.value
        columns = [-model[:, None] * profile * template.lines["strength"].value, model[:, None],
                   (model * (wave - wave.mean()))[:, None]]  # fmt: skip
        jacobian = np.concatenate(columns, axis=1) / sigma
        return template, np.linalg.pinv(jacobian.T @ jacobian, hermitian=True)

    @pytest.mark.parametrize(("count", "distance"), [(4, 0.1), (8, 0.15), (16, 0.15), (16, 0.1), (30, 0.2), (30, 0.1)])
    def test_errors_are_those_of_the_dense_matrix(self, count, distance):
        template, covariance = self.crowd(count, distance)
        expected = template.lines["strength"].value * np.sqrt(np.diag(covariance)[: count + 1])
        np.testing.assert_allclose(template.lines["strength_err"].value, expected, rtol=0.02)

    @pytest.mark.parametrize(("count", "distance"), [(3, 0.0), (4, 0.0), (8, 0.02), (16, 0.03), (30, 0.01)])
    def test_what_cannot_be_told_apart_is_one_blend(self, count, distance):
        table = self.crowd(count, distance)[0].lines
        assert np.all(table["flags"][:count] == BLENDED) and table["flags"][count] == 0
        assert np.all(table["blend"][:count] == 0)
        total, error = table["blend_equivalent_width"][0].value, table["blend_equivalent_width_err"][0].value
        assert error < 0.1 * table["equivalent_width_err"][:count].value.min()
        if distance == 0.0:  # the sum of widths on the linear part of the curve of growth, and a little less
            assert total == pytest.approx(0.19, abs=0.01) and error < 0.001


def test_given_lines_beside_the_spectrum_stay_by_their_own_width():
    center = np.array([4999.9, 4999.0, 5010.0])
    lines = QTable({"line_center": center * u.AA, "strength": [0.1, 0.1, 0.1] * u.AA,
                    "fwhm_gauss": [0.3, 0.3, 0.3] * u.AA, "fwhm_lorentz": [0.05, 0.05, 0.05] * u.AA})  # fmt: skip
    wave = np.arange(5000.0, 5020.0, 0.02)
    profile = voigt_profile(wave[:, None] - center, 0.3 / np.sqrt(8 * np.log(2)), 0.025)
    flux = np.exp(-0.1 * profile.sum(axis=1)) + 0.003 * np.random.default_rng(0).normal(size=wave.size)
    with pytest.warns(BlaseWarning, match="1 of 3 lines lie outside the spectrum"):
        source = Spectrum(flux=flux * u.one, spectral_axis=wave * u.AA,
                          uncertainty=StdDevUncertainty(np.full(wave.size, 0.003)))  # fmt: skip
        template = clone_spectrum(source, lines=lines, continuum_degree=1, free=("strength",))
    assert template.lines["list_row"].tolist() == [0, 2]


class TestFree:
    @pytest.mark.parametrize("free", [(), "strength", ("strength",), "fwhm", ("x_0", "strength"), ("strength", "fwhm"),
                                      ["fwhm", "x_0", "strength"]])  # fmt: skip
    def test_what_is_fixed_stays(self, free):
        table = line_list(strength=1.1 * STRENGTH, fwhm_gauss=0.95 * GAUSS, line_center=CENTER + 0.01)
        with warnings.catch_warnings():  # with little free it does not fit
            warnings.filterwarnings("ignore", "the clone differs from the spectrum", BlaseWarning)
            template = clone(noisy(2, 0.002), table, free=free)
        names = (free,) if isinstance(free, str) else free
        for kind, columns in KINDS.items():
            for name in columns:
                if kind in names:
                    assert np.all(template.lines[name] != table[name]) and np.all(template.lines[f"{name}_err"] > 0)
                else:
                    # to the bit, but for the conversion of a full width and back
                    ulp = 0 if name in ("strength", "line_center") else 2
                    np.testing.assert_array_max_ulp(template.lines[name].value, table[name].value, ulp)
                    assert np.all(template.lines[f"{name}_err"].value == 0)

    def test_nothing_free_fits_the_continuum(self):
        template = clone(spectrum(3.5 * flux_of()), line_list(), free=())
        assert template.model.continuum.value.item() == pytest.approx(3.5, rel=1e-5)
        assert np.all(template.lines["blend"] == -1)

    def test_progress_names_the_stage(self):
        seen = []
        clone(spectrum(), line_list(), progress=seen.append)
        assert any("given lines, 6 lines" in text for text in seen) and seen[-1] == ""


def least_squares_of(model, start, source):
    """Solution and standard deviations by scipy, with derivatives by finite differences."""
    sigma = source.uncertainty.array
    solved = least_squares(lambda p: (model(p) - source.flux.value) / sigma, start, jac="3-point", xtol=1e-12,
                           ftol=1e-12, gtol=1e-12)  # fmt: skip
    return solved.x, np.sqrt(np.diag(np.linalg.inv(solved.jac.T @ solved.jac)))


class TestTied:
    """By species: Fe I, Ti I, CN are groups 0, 2, 1 in the order of `np.unique`."""

    GROUP = np.unique(SPECIES, return_inverse=True)[1]
    FACTOR, BROADER, SPEED = np.array([0.7, 1.5, 1.2]), np.array([1.2, 0.9, 1.0]), np.array([1.5, -0.8, 0.3])

    def test_factors_come_back(self):
        table = line_list(strength=STRENGTH / self.FACTOR[self.GROUP])
        template = clone(spectrum(), table, free="strength", tied={"strength": "species"})
        tied = template.fit_info["tied"]
        assert list(tied) == ["strength"] and sorted(tied["strength"]) == ["CN", "Fe I", "Ti I"]
        for value, name in zip(self.FACTOR, np.unique(SPECIES), strict=True):
            assert tied["strength"][name][0] == pytest.approx(value, rel=1e-5)
        assert_near_truth(template, rtol=1e-5)

    def test_far_away_factors_come_back(self):
        table = line_list(strength=1e4 * STRENGTH)
        table["all"] = "x"
        template = clone(spectrum(), table, free="strength", tied={"strength": "all"})
        assert template.fit_info["tied"]["strength"]["x"][0] == pytest.approx(1e-4, rel=1e-4)

    def test_everything_tied(self):
        moved = {"center": CENTER * (1 + self.SPEED[self.GROUP] / C), "strength": STRENGTH * self.FACTOR[self.GROUP],
                 "gauss": GAUSS * self.BROADER[self.GROUP], "lorentz": LORENTZ / self.BROADER[self.GROUP]}  # fmt: skip
        template = clone(spectrum(flux_of(**moved)), line_list(),
                         tied={"strength": "species", "fwhm": "species", "x_0": "species"})  # fmt: skip
        assert_near_truth(template, truth=list(moved.values()))
        tied = template.fit_info["tied"]
        assert set(tied) == {"strength", "fwhm_gauss", "fwhm_lorentz", "x_0"}
        for k, name in enumerate(np.unique(SPECIES)):
            expected = {"strength": self.FACTOR[k], "fwhm_gauss": self.BROADER[k],
                        "fwhm_lorentz": 1 / self.BROADER[k], "x_0": self.SPEED[k]}  # fmt: skip
            for kind, value in expected.items():
                assert tied[kind][name][0] == pytest.approx(value, rel=2e-3), (kind, name)

    def test_groups_have_other_columns(self):
        table = line_list()
        table["even"], table["all"] = np.arange(6) % 2 == 0, 1
        template = clone(noisy(3, 0.003), table, tied={"strength": "even", "x_0": "all"})
        tied = template.fit_info["tied"]
        assert sorted(tied["strength"]) == ["False", "True"] and list(tied["x_0"]) == ["1"]
        ratio = template.lines["strength"].value / STRENGTH
        np.testing.assert_allclose(ratio[::2], ratio[0], rtol=1e-12)
        assert abs(ratio[1] / ratio[0] - 1) > 1e-4
        velocity = (template.lines["line_center"].value / CENTER - 1) * C
        np.testing.assert_allclose(velocity, velocity[0], rtol=1e-6)
        # what is not tied moves on its own
        assert np.unique(np.round(template.lines["fwhm_gauss"].value, 6)).size == 6

    def test_solution_and_errors_are_those_of_scipy(self):
        source, table = noisy(4, 0.004, strength=STRENGTH * self.FACTOR[self.GROUP]), line_list()
        template = clone(source, table, free=("strength", "x_0"), tied={"strength": "species", "x_0": "species"})

        def model(p):
            return p[6] * flux_of(CENTER * (1 + p[3:6][self.GROUP] / C), STRENGTH * p[:3][self.GROUP])

        value, std = least_squares_of(model, np.concatenate([self.FACTOR, np.zeros(3), [1.0]]), source)
        tied = template.fit_info["tied"]
        for k, name in enumerate(np.unique(SPECIES)):
            for place, kind in ((k, "strength"), (3 + k, "x_0")):
                ours, error = tied[kind][name]
                assert abs(ours - value[place]) < 0.02 * std[place]
                assert error == pytest.approx(std[place], rel=0.01)
        # the errors of the lines are those of their ties
        mine = self.GROUP[template.lines["list_row"]]
        np.testing.assert_allclose(template.lines["strength_err"].value, STRENGTH * std[:3][mine], rtol=0.01)
        np.testing.assert_allclose(template.lines["line_center_err"].value, CENTER * std[3:6][mine] / C, rtol=0.01)
        # lines of one species are known only together
        covariance = template.covariance(np.flatnonzero(mine == 1), "strength").value
        scale = np.sqrt(np.diag(covariance))
        np.testing.assert_allclose(covariance / np.outer(scale, scale), 1.0, rtol=1e-6)

    def test_errors_of_mixed_ties_are_those_of_scipy(self):
        source, table = noisy(5, 0.004), line_list()
        table["all"] = 1
        template = clone(source, table, tied={"fwhm": "all"})

        def model(p):
            return p[14] * flux_of(CENTER + p[6:12], STRENGTH * np.exp(p[:6]), GAUSS * p[12], LORENTZ * p[13])

        start = np.concatenate([np.zeros(12), np.ones(3)])
        value, std = least_squares_of(model, start, source)
        lines = template.lines
        np.testing.assert_allclose(lines["strength"].value, STRENGTH * np.exp(value[:6]), rtol=2e-3)
        np.testing.assert_allclose(lines["strength_err"].value, lines["strength"].value * std[:6], rtol=0.02)
        np.testing.assert_allclose(lines["line_center_err"].value, std[6:12], rtol=0.02)
        tied = template.fit_info["tied"]
        for place, kind in ((12, "fwhm_gauss"), (13, "fwhm_lorentz")):
            assert tied[kind]["1"][0] == pytest.approx(value[place], abs=0.03 * std[place])
            assert tied[kind]["1"][1] == pytest.approx(std[place], rel=0.03)

    def test_pulls_of_ties(self):
        pulls = []
        for seed in range(40):
            template = clone(noisy([6, seed], 0.01), line_list(), free=("strength", "x_0"),
                             tied={"strength": "species", "x_0": "species"})  # fmt: skip
            for kind, truth in (("strength", 1.0), ("x_0", 0.0)):
                pulls += [(value - truth) / std for value, std in template.fit_info["tied"][kind].values()]
        # 240 numbers
        assert abs(np.mean(pulls)) < 4 / np.sqrt(240)
        assert np.std(pulls) == pytest.approx(1, abs=4 / np.sqrt(480))

    def test_product_form(self):
        depth = STRENGTH / 2 * voigt_profile(WAVE[:, None] - CENTER, GAUSS / FWHM_PER_SIGMA, LORENTZ / 2)
        template = clone(spectrum(np.prod(1 - depth, axis=1)), line_list(), form="product",
                         tied={"strength": "species", "x_0": "species"})  # fmt: skip
        for value, _ in template.fit_info["tied"]["strength"].values():
            assert value == pytest.approx(0.5, rel=1e-4)


VALD = """\
                                             Damping parameters   Lande
Elm Ion       WL_air(A) Excit(eV) log gf*   Rad.  Stark    Waals  factor   References
'Fe 1',      6301.49970,   3.6537, -0.718, 7.990,-6.150,-7.540,  1.670,'   1 wl:K14   1 K14   1 gf:K14   1 K14    Fe'
'Fe 1',      6302.49320,   3.6864, -0.973, 7.990,-6.150,-7.540,  2.490,'   1 wl:K14   1 K14   1 gf:K14   1 K14    Fe'
'Ti 1',      6303.75600,   1.4430, -1.580, 7.990,-6.150,-7.540,  1.000,'   1 wl:K14   1 K14   1 gf:K14   1 K14    Ti'
'Ti 1',      6304.50000,   1.4600, -1.280, 7.990,-6.150,-7.540,  1.000,'   1 wl:K14   1 K14   1 gf:K14   1 K14    Ti'
"""
MOOG = """\
iron and titanium
 6301.4997      26.0    3.6537    -0.718    -7.540
 6302.4932      26.0    3.6864    -0.973    -7.540
 6303.7560      22.0    1.4430    -1.580    -7.540
 6304.5000      22.0    1.4600    -1.280    -7.540
"""
HITRAN = "".join(
    f" {molecule}{wavenumber:12.6f}{intensity:10.3E}{0.1:10.3E}{'.0700'}{'0.400'}{energy:10.4f}{'0.70'}{'-.003000'}"
    + " " * 93 + "\n"
    for molecule, wavenumber, intensity, energy in [
        ("11", 15865.0, 2e-25, 136.76), ("11", 15862.5, 1e-25, 79.5), ("71", 15860.0, 4e-26, 44.2),
        ("71", 15858.5, 8e-26, 79.6),
    ]
)  # fmt: skip


@pytest.mark.parametrize(("reader", "text"), [(read_vald, VALD), (read_moog, MOOG), (read_hitran, HITRAN)],
                         ids=["vald", "moog", "hitran"])  # fmt: skip
def test_native_lists_from_file_to_abundances(reader, text, tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text(text)
    table = reader(path)
    table["strength"] = relative_strength(table, 4500 * u.K)
    assert len(table) == 4 and table.meta["wavelength_medium"] == "vacuum"
    # 40 and 90 times the strongest line of each species, 1 mA
    names = np.unique(table["species"])
    factor = dict(zip(names.tolist(), (40.0, 90.0), strict=True))
    strength = table["strength"].to_value(u.AA) * [factor[name] for name in table["species"]]
    wave = np.arange(6302.0, 6307.5, 0.015)
    flux = flux_of(table["line_center"].value, strength, 0.12, 0.04, wave)
    sigma = np.full(wave.size, 0.003)
    source = Spectrum(flux=(flux + sigma * np.random.default_rng(8).normal(size=wave.size)) * u.Jy,
                      spectral_axis=wave * u.AA, uncertainty=StdDevUncertainty(sigma))  # fmt: skip
    table["all"] = "all"
    template = clone(source, table, free=("strength", "fwhm"), tied={"strength": "species", "fwhm": "all"})
    for name, (value, std) in template.fit_info["tied"]["strength"].items():
        assert abs(value - factor[name]) < 4 * std and std < 0.1 * value
    assert template.fit_info["tied"]["fwhm_gauss"].keys() == {"all"}
    assert np.median(template.lines["fwhm_gauss"].value) == pytest.approx(0.12, rel=0.15)
    np.testing.assert_array_equal(template.lines["line_center"], table["line_center"])
    np.testing.assert_array_equal(template.lines["species"], table["species"])


def changed(**columns):
    table = line_list()
    for name, values in columns.items():
        table[name] = values
    return table


def with_value(name, value):
    table = line_list()
    table[name][1] = value * u.AA
    return table


class TestMessages:
    @pytest.mark.parametrize(("error", "match", "table"), [
        (TypeError, "lines must be a Table with a column line_center, got a list; read one", [5003.0]),
        (TypeError, r"lines must be a Table with a column line_center, got columns \['x'\]", QTable({"x": [1.0]})),
        (u.UnitsError, r'lines\["line_center"\] must have a unit, got none', changed(line_center=CENTER)),
        (u.UnitsError, r'lines\["line_center"\] must be wavelengths.*, got the unit \'kg\'',
         changed(line_center=CENTER * u.kg)),
        (ValueError, r'lines\["line_center"\] must be known in every row, got 1 without, the first in row 1; remove',
         with_value("line_center", np.nan)),
        (u.UnitsError, r'lines\["strength"\] must have a unit, got none', changed(strength=STRENGTH)),
        (u.UnitsError, r'lines\["fwhm_gauss"\] must be lengths, got the unit \'s\'', changed(fwhm_gauss=GAUSS * u.s)),
        (ValueError, r'lines\["strength"\] must be finite and not zero, got 0 Angstrom in row 1; drop that line',
         with_value("strength", 0.0)),
        (ValueError, r'lines\["strength"\] must be finite and not zero, got inf', with_value("strength", np.inf)),
        (ValueError, r'lines\["fwhm_gauss"\] must be finite and positive, got -1 Ang', with_value("fwhm_gauss", -1.0)),
        (ValueError, r'lines\["fwhm_lorentz"\] must be finite and positive, got 0 A', with_value("fwhm_lorentz", 0.0)),
        (ValueError, r'lines\["fwhm_gauss"\] must be narrower than the wavelength.*1e\+09 at 50.*; check the unit',
         with_value("fwhm_gauss", 1e9)),
        (ValueError, "lines must have lines within 5000 to 5015.98 Angstrom .vacuum., got none", line_list()[:0]),
        (ValueError, "lines must have lines within .*, got 6002.01 to 6013.2 Angstrom; check the units",
         changed(line_center=(CENTER + 1000) * u.AA)),
    ])  # fmt: skip
    def test_tables(self, error, match, table):
        with pytest.raises(error, match=match):
            clone(spectrum(), table)

    @pytest.mark.parametrize(("error", "match", "options"), [
        (ValueError, r"free must hold names among .*, got \('depth',\); write", {"free": "depth"}),
        (ValueError, "free must hold names among", {"free": None}),
        (TypeError, "tied must be a mapping, got list", {"tied": ["strength"]}),
        (ValueError, r"tied must have keys among .*, got 'depth'; correct", {"tied": {"depth": "species"}}),
        (ValueError, r'tied\["strength"\] must name a column of lines, among .*, got \'no\'',
         {"tied": {"strength": "no"}}),
        (ValueError, r'tied\["strength"\] must name a column of lines, .*, got 3', {"tied": {"strength": 3}}),
        (ValueError, "tied must hold names that free holds, got 'fwhm'; add it to free",
         {"free": "strength", "tied": {"fwhm": "species"}}),
    ])  # fmt: skip
    def test_options(self, error, match, options):
        with pytest.raises(error, match=match):
            clone(spectrum(), line_list(), **options)

    def test_strengths_that_are_not_known_cannot_be_tied(self):
        for table in (line_list()["line_center", "species"], with_value("strength", np.nan)):
            with pytest.raises(ValueError, match='tied must tie strengths .*, got lines without "strength"; add'):
                clone(spectrum(), table, tied={"strength": "species"})

    def test_medium(self):
        table = line_list()
        table.meta["wavelength_medium"] = "water"
        with pytest.raises(ValueError, match=r'lines.meta\["wavelength_medium"\] must be .*, got \'water\'; correct'):
            clone(spectrum(), table)

    @pytest.mark.parametrize("options", [{"free": "strength"}, {"free": ()}, {"tied": {"strength": "species"}},
                                         {"tied": {}}], ids=str)  # fmt: skip
    def test_free_and_tied_without_lines(self, options):
        with pytest.raises(ValueError, match="free and tied must be given with lines alone, got no lines"):
            clone_spectrum(spectrum(), **options)

    def test_free_without_lines_that_holds_no_names(self):
        with pytest.raises(ValueError, match="free must hold names among"):
            clone_spectrum(spectrum(), free=None)

    def test_not_converged(self, monkeypatch):
        import specutils_blase.cloning as cloning

        real = cloning.levenberg_marquardt
        monkeypatch.setattr(cloning, "levenberg_marquardt",
                            lambda *a, **k: real(*a, **{**k, "max_iterations": 1, "rtol": 0.0}))  # fmt: skip
        with pytest.warns(BlaseWarning, match="did not converge.*free less, tie more or start closer"):
            clone(spectrum(), line_list(strength=1.2 * STRENGTH))
