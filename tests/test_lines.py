"""Finding lines, equivalent widths, the line table."""

import itertools

import mpmath
import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad_vec
from scipy.special import voigt_profile
from specutils import SpectralRegion, Spectrum
from specutils.analysis import equivalent_width as specutils_width

from specutils_blase import find_lines
from specutils_blase.functional.constants import FWHM_PER_SIGMA
from specutils_blase.lines import equivalent_width, line_table, peak_depth
from specutils_blase.solvers.lines import Lines

WAVE = np.arange(5000.0, 5060.0, 0.02)
CENTERS = np.array([5005.013, 5013.5, 5020.117, 5031.9, 5044.0, 5054.321])
DEPTHS = np.array([0.5, 0.2, 0.9, 0.03, 0.35, 0.05])
SIGN = np.array([1, 1, 1, 1, -1, -1])
SIGMA = 0.08


def make_flux(continuum=1.0, sign=1):
    shape = np.exp(-0.5 * ((WAVE[:, None] - CENTERS) / SIGMA) ** 2)
    return continuum * (1.0 - shape @ (sign * DEPTHS))


def make_spectrum(axis=WAVE * u.AA, flux=None, unit=u.Jy, **options):
    return Spectrum(flux=(make_flux() if flux is None else flux) * unit, spectral_axis=axis, **options)


class TestFindLines:
    @pytest.mark.parametrize("degree", [0, 5])
    def test_absorption_and_emission(self, degree):
        # emission must not lift the continuum
        table = find_lines(make_spectrum(flux=make_flux(sign=SIGN)), prominence=0.01, continuum_degree=degree)
        assert isinstance(table, QTable)
        assert table["line_center"].unit == u.AA
        np.testing.assert_allclose(table["line_center"].value, CENTERS, atol=2e-3)
        assert table["line_type"].tolist() == ["absorption"] * 4 + ["emission"] * 2
        np.testing.assert_allclose(np.abs(table["depth"]), DEPTHS, rtol=0.03, atol=2e-3)
        assert (np.sign(table["depth"]) == SIGN).all()
        assert (np.sign(table["strength"].value) == SIGN).all()
        np.testing.assert_array_equal(np.abs(WAVE[table["line_center_index"]] - CENTERS) <= 0.0101, True)

    def test_emission_alone(self):
        table = find_lines(make_spectrum(flux=make_flux(sign=-1)), continuum_degree=1)
        assert set(table["line_type"]) == {"emission"}
        np.testing.assert_allclose(table["line_center"].value, CENTERS, atol=2e-3)
        np.testing.assert_allclose(table["depth"], -DEPTHS, rtol=0.03, atol=2e-3)

    def test_absorption_alone(self):
        table = find_lines(make_spectrum(), prominence=0.01)
        np.testing.assert_allclose(table["line_center"].value, CENTERS, atol=2e-3)
        np.testing.assert_allclose(table["depth"], DEPTHS, rtol=0.01, atol=1e-3)
        assert set(table["line_type"]) == {"absorption"}

    def test_starting_values_are_as_documented(self):
        table = find_lines(make_spectrum(), prominence=0.01)
        fwhm = SIGMA * np.sqrt(8 * np.log(2))
        np.testing.assert_allclose(table["fwhm_gauss"].to_value(u.AA), 0.6 * fwhm, rtol=0.05)
        np.testing.assert_allclose(table["fwhm_lorentz"].to_value(u.AA), 0.3 * fwhm, rtol=0.05)
        peak = table["strength"].value * voigt_profile(
            0.0, table["fwhm_gauss"].value / FWHM_PER_SIGMA, table["fwhm_lorentz"].value / 2.0
        )
        np.testing.assert_allclose(peak, -np.log1p(-table["depth"]), rtol=1e-8)

    @pytest.mark.parametrize("convert", [lambda w: w.to("nm"), lambda w: w.to("THz", u.spectral()),
                                         lambda w: w.to("eV", u.spectral())], ids=["nm", "THz", "eV"])  # fmt: skip
    def test_any_axis(self, convert):
        reference = find_lines(make_spectrum())
        table = find_lines(make_spectrum(convert(WAVE * u.AA)))
        assert table.colnames == reference.colnames
        np.testing.assert_array_equal(table["line_center_index"], reference["line_center_index"])
        for name in ("line_center", "strength", "fwhm_gauss", "fwhm_lorentz"):
            np.testing.assert_allclose(table[name].to_value(u.AA), reference[name].to_value(u.AA), rtol=1e-8)

    def test_decreasing_axis_counts_pixels_as_the_user_does(self):
        table = find_lines(Spectrum(flux=make_flux()[::-1] * u.Jy, spectral_axis=WAVE[::-1] * u.AA))
        reference = find_lines(make_spectrum())
        np.testing.assert_allclose(table["line_center"].value, reference["line_center"].value, rtol=1e-12)
        np.testing.assert_array_equal(table["line_center_index"], WAVE.size - 1 - reference["line_center_index"])

    def test_index_counts_ignored_pixels_and_those_outside_the_window(self):
        reference = find_lines(make_spectrum())
        mask = np.zeros(WAVE.size, dtype=bool)
        mask[10:400:7] = True  # before the second line
        mask[np.abs(WAVE[:, None] - CENTERS).min(axis=1) < 1.0] = False
        with pytest.warns(match="pixels are ignored"):
            table = find_lines(make_spectrum(mask=mask), window=SpectralRegion(5002 * u.AA, 5050 * u.AA))
        np.testing.assert_array_equal(table["line_center_index"], reference["line_center_index"][:5])

    def test_window_and_exclusions(self):
        table = find_lines(make_spectrum(), window=SpectralRegion(5010 * u.AA, 5050 * u.AA),
                           exclude_regions=[SpectralRegion(5019 * u.AA, 5021 * u.AA)])  # fmt: skip
        np.testing.assert_allclose(table["line_center"].value, CENTERS[[1, 3, 4]], atol=5e-3)

    def test_prominence_selects(self):
        for prominence in (0.04, 0.1, 0.4):
            table = find_lines(make_spectrum(), prominence=prominence)
            assert len(table) == np.sum(DEPTHS > prominence)
            assert (table["prominence"] >= prominence).all()

    def test_blackbody_continuum_of_any_scale(self):
        bb = 1.0 / (WAVE**5 * np.expm1(1.438776877e8 / (WAVE * 4000.0)))
        scale = 1e-13 / bb[0]
        unit = u.Unit("erg / (s cm2 AA)")
        table = find_lines(make_spectrum(flux=make_flux(scale * bb), unit=unit), teff=4000 * u.K, continuum_degree=1)
        np.testing.assert_allclose(np.abs(table["depth"]), DEPTHS, rtol=0.03, atol=2e-3)

    @pytest.mark.parametrize("prominence", [0.0, -0.1, 1.0, 2, np.nan, "0.1", [0.1, 0.2], None, 0.1 * u.AA])
    def test_bad_prominence(self, prominence):
        with pytest.raises((ValueError, TypeError), match="prominence must"):
            find_lines(make_spectrum(), prominence=prominence)

    def test_no_line(self):
        with pytest.raises(ValueError, match=r"prominence .*0\.95.*none"):
            find_lines(make_spectrum(), prominence=0.95)
        with pytest.raises(ValueError, match="prominence"):
            find_lines(make_spectrum(flux=np.ones(WAVE.size)))

    @pytest.mark.parametrize("options", [{"continuum_degree": -1}, {"continuum_degree": 1.5}], ids=str)
    def test_bad_degree(self, options):
        with pytest.raises(ValueError, match="continuum_degree must"):
            find_lines(make_spectrum(), **options)

    @pytest.mark.parametrize("teff", [0 * u.K, -4700 * u.K, np.nan * u.K, np.inf * u.K])
    def test_bad_teff(self, teff):
        with pytest.raises(ValueError, match="teff must"):
            find_lines(make_spectrum(), teff=teff)

    def test_teff_without_or_with_wrong_unit(self):
        with pytest.raises(TypeError, match="teff must"):
            find_lines(make_spectrum(), teff=4700)
        with pytest.raises(u.UnitsError, match="teff must"):
            find_lines(make_spectrum(), teff=4700 * u.AA)

    def test_regions_of_specutils(self):
        # the documented use: the table of lines makes the regions of specutils' own functions
        table = find_lines(make_spectrum())
        regions = SpectralRegion.from_line_list(table, width=0.6 * u.AA)
        assert len(regions) == len(table)
        np.testing.assert_allclose([(r.lower + r.upper).to_value(u.AA) / 2 for r in regions], CENTERS, atol=2e-3)


LINES = Lines(
    center=np.full(9, 5000.0),
    # weak, medium, saturated, damped and saturated, almost Lorentzian, wide Gaussian, narrow, emission, strong emission
    strength=np.array([1e-4, 0.1, 3.0, 20.0, 1.0, 0.5, 0.01, -0.05, -0.3]),
    sigma=np.array([0.05, 0.05, 0.05, 0.03, 1e-3, 1.0, 1e-3, 0.1, 0.1]),
    gamma=np.array([0.01, 0.03, 0.001, 0.1, 0.5, 1e-3, 1e-6, 0.02, 0.05]),
)


def exact_width(a, s, g, form="opacity"):
    """Integral of 1 - exp(-a V), or of min(a V, 1), over all delta, by adaptive quadrature; arrays of lines."""
    a, s, g = np.broadcast_arrays(*(np.asarray(v, dtype=float) for v in (a, s, g)))

    def tau(delta):
        return a * voigt_profile(delta, s, g)

    inner, outer = np.zeros(a.shape), 10.0 * (s + g) + np.sqrt(np.abs(a) * g)
    if form == "product":
        for _ in range(200):  # the edge of what is cut, by bisection
            middle = 0.5 * (inner + outer)
            inner, outer = np.where(tau(middle) > 1.0, middle, inner), np.where(tau(middle) > 1.0, outer, middle)
    scale = s + g

    def dark(t):
        delta = inner + scale * np.sinh(t)
        return (tau(delta) if form == "product" else -np.expm1(-tau(delta))) * scale * np.cosh(t)

    marks = [0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 9.0, 14.0, 40.0]
    parts = (quad_vec(dark, *pair, epsabs=0, epsrel=1e-11, norm="max")[0] for pair in itertools.pairwise(marks))
    return 2.0 * (inner + sum(parts))


def exact_gradient(a, s, g, form, step=2e-3):
    """Derivatives of `exact_width` by ln |a|, ln s, ln g: finite differences of the fourth order."""
    moved = np.exp(step * np.multiply.outer([-2, -1, 1, 2], np.eye(3)))  # (4, of which, what)
    width = exact_width(a * moved[..., 0], s * moved[..., 1], g * moved[..., 2], form)
    return np.array([1.0, -8.0, 8.0, -1.0]) @ width / (12.0 * step)


def one_line(peak, y, sigma=0.05):
    """(strength, sigma, gamma) of a line by its optical depth at the centre and its damping parameter."""
    gamma = y * np.sqrt(2.0) * sigma
    return peak / voigt_profile(0.0, sigma, gamma), sigma, gamma


peaks = st.floats(-4.0, 5.0).map(lambda x: 10.0**x) | st.floats(-3.0, -1e-4)
dampings = st.floats(-4.0, 3.0).map(lambda x: 10.0**x)
forms = pytest.mark.parametrize("form", ["opacity", "product"])


def widths_of(a, s, g, form):
    return equivalent_width(Lines(*(np.atleast_1d(v) for v in (5000.0, a, s, g))), form)


class TestEquivalentWidth:
    @forms
    @settings(max_examples=150, deadline=None)
    @given(peak=peaks, y=dampings)
    def test_is_the_integral(self, form, peak, y):
        line = one_line(peak, y)
        assert widths_of(*line, form)[0][0] == pytest.approx(exact_width(*line, form), rel=1e-8)

    @pytest.mark.parametrize(("peak", "y"), [(0.3, 0.1), (1e5, 1e-3), (-3.0, 0.1)])
    def test_is_the_integral_in_twenty_digits(self, peak, y):
        a, s, g = (mpmath.mpf(v) for v in one_line(peak, y))
        with mpmath.workdps(20):

            def dark(x):
                z = mpmath.mpc(x, g) / (s * mpmath.sqrt(2))
                far = abs(z) > 30  # where exp(-z^2) erfc(-iz) is an infinite times a zero
                w = 1j / mpmath.sqrt(mpmath.pi) / z * sum(mpmath.fac2(2 * k - 1) / (2 * z * z) ** k for k in range(12)
                                                         ) if far else mpmath.exp(-z * z) * mpmath.erfc(-1j * z)
                return -mpmath.expm1(-a * w.real / (s * mpmath.sqrt(2 * mpmath.pi)))

            extent = s + g + mpmath.sqrt(abs(a) * g)
            marks = [0, *(extent * m for m in (0.2, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5, 7, 10, 30)), mpmath.inf]
            expected = 2 * mpmath.quad(dark, marks, maxdegree=4)
        assert widths_of(*(float(v) for v in (a, s, g)), "opacity")[0][0] == pytest.approx(float(expected), rel=1e-9)

    @forms
    @settings(max_examples=60, deadline=None)
    @given(peak=peaks, y=dampings)
    def test_gradient_is_that_of_the_integral(self, form, peak, y):
        assume(form == "opacity" or abs(peak - 1.0) > 0.05)  # where the cut begins the second derivative jumps
        line = one_line(peak, y)
        width, gradient = widths_of(*line, form)
        np.testing.assert_allclose(gradient[0], exact_gradient(*line, form), rtol=0, atol=2e-7 * abs(width[0]))

    def test_weak_lines_have_their_strength(self):
        weak = Lines(np.full(3, 5000.0), np.array([1e-9, -1e-9, 2e-9]), np.full(3, 0.1), np.array([1e-3, 0.1, 1.0]))
        np.testing.assert_allclose(equivalent_width(weak)[0], weak.strength, rtol=1e-8)

    def test_product_form_has_its_strength_where_no_line_is_cut(self):
        lines = LINES.take(LINES.peak < 1.0)
        assert 3 < len(lines) < len(LINES)
        width, gradient = equivalent_width(lines, "product")
        np.testing.assert_allclose(width, lines.strength, rtol=1e-10)
        expected = np.stack([lines.strength, 0 * width, 0 * width], axis=1)
        np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-8 * np.abs(lines.strength).max())

    @forms
    def test_is_that_of_specutils_on_an_isolated_line(self, form):
        line = one_line(3.0, 1e-6)  # practically no wings beyond the spectrum
        exact = widths_of(*line, form)[0][0]
        for step in (0.1, 0.05, 0.025):
            values = []
            for shift in (0.0, 0.25, 0.5, 0.75):
                wave = np.arange(4990.0, 5010.0, step) + shift * step
                tau = line[0] * voigt_profile(wave - 5000.0, *line[1:])
                flux = np.maximum(1.0 - tau, 0.0) if form == "product" else np.exp(-tau)
                source = Spectrum(flux=flux * u.Jy, spectral_axis=wave * u.AA)
                values.append(specutils_width(source, continuum=1 * u.Jy).to_value(u.AA))
            # pixels sample the profile: what they measure depends on where they lie
            pixel_error = np.ptp(values)
            np.testing.assert_allclose(values, exact, rtol=1e-7, atol=pixel_error)
        assert pixel_error < 0.03 * exact

    def test_many_lines_are_those_one_by_one(self):
        n = 5000  # enough for several threads
        rng = np.random.default_rng(0)
        lines = Lines(np.sort(rng.uniform(5000, 5100, n)), rng.lognormal(-3, 1, n), rng.lognormal(-3, 0.5, n),
                      rng.lognormal(-4, 1, n))  # fmt: skip
        width, gradient = equivalent_width(lines)
        assert width.shape == (n,) and gradient.shape == (n, 3)
        for j in (0, n // 2 - 1, n // 2, n - 1):
            single = equivalent_width(lines.take(slice(j, j + 1)))
            assert width[j] == pytest.approx(single[0][0], rel=1e-12)
            np.testing.assert_allclose(gradient[j], single[1][0], rtol=1e-12)

    @forms
    def test_nan_stays_with_its_line(self, form):
        for place in range(1, 4):
            values = [np.array([5000.0, 5001.0]), np.full(2, 3.0), np.full(2, 0.05), np.full(2, 0.02)]
            values[place][1] = np.nan
            width, gradient = equivalent_width(Lines(*values), form)
            assert np.isfinite(width[0]) and np.isfinite(gradient[0]).all()
            assert np.isnan(width[1])

    def test_no_lines(self):
        width, gradient = equivalent_width(LINES.take(slice(0, 0)))
        assert width.shape == (0,) and gradient.shape == (0, 3)


class TestPeakDepth:
    @pytest.mark.parametrize("form", ["opacity", "product"])
    def test_value_and_gradient(self, form):
        def depth(a, s, g):
            tau = np.sign(LINES.strength) * np.exp(a) * voigt_profile(0.0, np.exp(s), np.exp(g))
            return np.minimum(tau, 1.0) if form == "product" else -np.expm1(-tau)

        point = [np.log(np.abs(LINES.strength)), np.log(LINES.sigma), np.log(LINES.gamma)]
        value, gradient = peak_depth(LINES, form)
        np.testing.assert_allclose(value, depth(*point), rtol=1e-9)
        for k in range(3):
            up, down = ([v + m * 1e-5 * (i == k) for i, v in enumerate(point)] for m in (1, -1))
            numeric = (depth(*up) - depth(*down)) / 2e-5
            np.testing.assert_allclose(gradient[:, k], numeric, rtol=1e-5, atol=1e-8 * np.abs(value).max())


class TestLineTable:
    @staticmethod
    def make(**options):
        rng = np.random.default_rng(1)
        root = rng.normal(0, 0.05, (9, 4, 4))
        covariance = root @ root.transpose(0, 2, 1)
        table = line_table(LINES, covariance, index=np.arange(9), flags=np.arange(9) % 4, error_scale="a sentence",
                           **options)  # fmt: skip
        return table, covariance

    def test_columns_as_in_the_design(self):
        table, _ = self.make()
        quantities = ["line_center", "strength", "fwhm_gauss", "fwhm_lorentz", "depth", "equivalent_width"]
        assert set(table.colnames) == {*quantities, *(f"{q}_err" for q in quantities), "line_type",
                                       "line_center_index", "flags", "component", "blend",
                                       "blend_equivalent_width", "blend_equivalent_width_err"}  # fmt: skip
        for name in quantities:
            unit = u.dimensionless_unscaled if name == "depth" else u.AA
            assert u.Quantity(table[name]).unit == u.Quantity(table[f"{name}_err"]).unit == unit, name
            assert table[name].info.description
        assert table["line_center_index"].dtype.kind == table["flags"].dtype.kind == "i"
        assert set(table["component"]) == {"star"}
        assert table["line_type"].tolist() == ["absorption"] * 7 + ["emission"] * 2
        assert table.meta["errors"] == "a sentence"
        assert all(isinstance(v, str) for v in table.meta.values())
        assert set(self.make(component="telluric")[0]["component"]) == {"telluric"}

    @pytest.mark.parametrize("form", ["opacity", "product"])
    def test_errors_are_those_of_many_draws(self, form):
        table, covariance = self.make(form=form)
        rng = np.random.default_rng(2)
        n = 40_000
        for j in (0, 1, 2, 3, 7):
            draws = rng.multivariate_normal(np.zeros(4), 1e-4 * covariance[j], n)  # small: the linear regime
            lines = Lines(5000.0 + draws[:, 3], LINES.strength[j] * np.exp(draws[:, 0]),
                          LINES.sigma[j] * np.exp(draws[:, 1]), LINES.gamma[j] * np.exp(draws[:, 2]))  # fmt: skip
            depth = lines.strength * voigt_profile(0.0, lines.sigma, lines.gamma)
            depth = np.minimum(depth, 1.0) if form == "product" else -np.expm1(-depth)
            width = exact_width(*(v[:4000] for v in (lines.strength, lines.sigma, lines.gamma)), form)
            found = {
                "line_center": lines.center, "strength": lines.strength, "fwhm_gauss": FWHM_PER_SIGMA * lines.sigma,
                "fwhm_lorentz": 2.0 * lines.gamma, "depth": depth, "equivalent_width": width,
            }  # fmt: skip
            for name, values in found.items():
                error = u.Quantity(table[f"{name}_err"]).value[j]
                assert 1e2 * np.std(values) == pytest.approx(error, rel=0.06), name

    def test_ecsv_round_trip(self, tmp_path):
        table, _ = self.make()
        table.write(tmp_path / "lines.ecsv")
        back = QTable.read(tmp_path / "lines.ecsv")
        assert back.colnames == table.colnames
        assert back.meta == table.meta
        for name in table.colnames:
            assert back[name].info.description == table[name].info.description
            assert u.Quantity(back[name]).unit == u.Quantity(table[name]).unit if back[name].dtype.kind == "f" else True
            np.testing.assert_array_equal(np.asarray(back[name]), np.asarray(table[name]))
