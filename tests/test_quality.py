"""How good every order of a fit is: against loops, processes whose autocorrelation is known, and planted errors."""

from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import StdDevUncertainty, VarianceUncertainty
from astropy.table import QTable
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter
from specutils import Spectrum, SpectrumList

from specutils_blase import SpectrumFit
from specutils_blase.quality import autocorrelation, has_light, scaled_residual

N_PIX = 2000
NOISE = 0.01


class TestAutocorrelation:
    @settings(max_examples=20)
    @given(seed=st.integers(0, 2**32 - 1), missing=st.sampled_from([0.0, 0.3]))
    def test_white_noise_has_none(self, seed, missing):
        rng = np.random.default_rng(seed)
        values = rng.standard_normal(4000) * 7.0
        values[rng.random(values.size) < missing] = np.nan
        correlation, n_pairs = autocorrelation(values, 60)
        sigmas = correlation[1:] * np.sqrt(n_pairs[1:])
        assert np.mean(np.abs(sigmas) < 2.0) > 0.8  # 57 of 60 on average, a standard deviation of 1.7
        assert np.mean(sigmas**2) < 2.0  # 1 with a standard deviation of 0.18
        assert correlation[0] == pytest.approx(1.0)

    @pytest.mark.parametrize("phi", [0.9, 0.5, -0.4])
    def test_first_order_autoregression(self, phi):
        values = lfilter([1.0], [1.0, -phi], np.random.default_rng(3).standard_normal(300_000))
        correlation, _ = autocorrelation(values[1000:], 8)
        np.testing.assert_allclose(correlation, phi ** np.arange(9), atol=0.015)

    @given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), n_lags=st.integers(0, 12))
    def test_pairs_are_those_of_a_loop(self, seed, n, n_lags):
        rng = np.random.default_rng(seed)
        values, run = rng.standard_normal(n), np.cumsum(rng.random(n) < 0.1)
        values[rng.random(n) < 0.2] = np.nan
        correlation, n_pairs = autocorrelation(values, n_lags, run)
        for lag in range(n_lags + 1):
            pairs = [(values[i], values[i + lag]) for i in range(n - lag)
                     if run[i] == run[i + lag] and not np.isnan(values[i] + values[i + lag])]  # fmt: skip
            assert n_pairs[lag] == len(pairs)
            if pairs:
                product, first, second = (sum(x * y for x, y in pairs), sum(x * x for x, _ in pairs),
                                          sum(y * y for _, y in pairs))  # fmt: skip
                assert correlation[lag] == pytest.approx(product / np.sqrt(first * second), abs=1e-12)
            else:
                assert np.isnan(correlation[lag])


def spectrum(values, axis, unit=u.one, **kwargs):
    return Spectrum(flux=values * unit, spectral_axis=axis, **kwargs)


def make_fit(residuals, *, axes=None, star=True, telluric=1.0, uncertainty=StdDevUncertainty, level=50.0, info=None,
             coverage=None):  # fmt: skip
    """A fit of orders with given residuals in units of the noise; of one spectrum if there is one that is no list."""
    many = isinstance(residuals, list)
    parts = {name: SpectrumList() for name in ("observed", "model", "residual", "continuum", "star", "telluric")}
    for k, values in enumerate(residuals if many else [residuals]):
        wave = (10_000.0 + 200.0 * k + 0.05 * np.arange(values.size)) * u.AA if axes is None else axes[k]
        continuum = level * np.linspace(0.5, 1.5, values.size)
        lines = 1.0 - 0.3 * (np.arange(values.size) % 50 < 10) * star
        sky = np.broadcast_to(telluric, values.shape)
        left, model = values * NOISE * continuum, continuum * lines * sky
        sigma = NOISE * continuum
        given = {} if uncertainty is None else {
            "uncertainty": uncertainty(sigma if uncertainty is StdDevUncertainty else sigma**2)}  # fmt: skip
        flux = np.where(np.isnan(left), 0.0, left) + model
        for name, row in (("observed", flux), ("model", model), ("residual", left), ("continuum", continuum)):
            parts[name].append(spectrum(row, wave, u.electron, **(given if name == "observed" else {})))
        parts["star"].append(spectrum(lines, wave))
        parts["telluric"].append(spectrum(sky, wave))
    parts = parts if many else {name: pieces[0] for name, pieces in parts.items()}
    return SpectrumFit(
        observed=parts["observed"], telluric=None,
        template=None if coverage is None else SimpleNamespace(meta={"coverage": coverage}),
        parameters=QTable({"name": ["radial_velocity"], "value": [30.0]}),
        lines=QTable({"order": [0]}), model_spectrum=parts["model"], residual=parts["residual"],
        components={name: parts[name] for name in ("continuum", "star", "telluric")}, fit_info=info or {},
    )  # fmt: skip


def white(seed=0, n=N_PIX):
    return np.random.default_rng(seed).standard_normal(n)


def smooth(values, width):
    """White noise that was averaged over pixels, of the same variance."""
    return np.convolve(values, np.ones(width) / np.sqrt(width), mode="same")


class TestTable:
    def test_numbers_are_those_of_the_residual(self):
        gone, bad = np.full(N_PIX, np.nan), white(1)
        bad[:100] = np.nan
        bad[700] = np.nan
        table = make_fit([white(0), gone, 2.0 * bad]).orders
        assert table["order"].tolist() == [0, 2]  # the second was skipped
        assert table["n_pixels"].tolist() == [N_PIX, N_PIX - 101]
        np.testing.assert_allclose(table["wavelength_min"].to_value(u.AA), [10_000.0, 10_405.0])
        np.testing.assert_allclose(table["wavelength_max"].to_value(u.AA), [10_099.95, 10_499.95])
        good = 2.0 * bad[~np.isnan(bad)]
        assert table["rms"][1] == pytest.approx(NOISE * np.sqrt(np.mean(good**2)))
        np.testing.assert_allclose(table["noise"], NOISE)
        np.testing.assert_allclose(table["ratio"], table["rms"] / NOISE)
        assert table["chi2"][1] == pytest.approx(np.mean(good**2))
        first, second = 2.0 * bad[:-1], 2.0 * bad[1:]
        assert table["autocorrelation"][1] == pytest.approx(np.nansum(first * second) / np.sum(good**2), abs=2e-3)
        assert table["remark"][0] == "" and table["remark"][1] != ""
        assert all(table[name].info.description for name in table.colnames)

    def test_one_spectrum_is_one_row(self):
        table = make_fit(white()).orders
        assert (len(table), table["order"][0]) == (1, 0)
        assert table["ratio"][0] == pytest.approx(1.0, abs=0.05)

    def test_without_uncertainties(self):
        (row,) = make_fit(5.0 * white(), uncertainty=None).orders
        assert row["rms"] == pytest.approx(5.0 * NOISE, rel=0.05)
        assert np.isnan([row["noise"], row["ratio"], row["chi2"]]).all() and row["remark"] == ""
        assert abs(row["autocorrelation"]) < 0.1

    def test_kinds_of_uncertainty(self):
        kinds = (StdDevUncertainty, VarianceUncertainty)
        std, variance = (make_fit(white(), uncertainty=kind).orders for kind in kinds)
        for name in ("noise", "chi2", "autocorrelation"):
            assert variance[name][0] == pytest.approx(std[name][0], rel=1e-12)

    @pytest.mark.parametrize("axis", [np.linspace(1001.0, 1000.0, 500) * u.nm,
                                      np.linspace(299.7, 299.4, 500) * u.THz])  # fmt: skip
    def test_other_axes(self, axis):
        (row,) = make_fit(smooth(white(n=500), 4), axes=[axis]).orders
        bounds = np.sort(axis[[0, -1]].to_value(u.AA, u.spectral()))
        np.testing.assert_allclose([row["wavelength_min"].value, row["wavelength_max"].value], bounds)
        assert row["autocorrelation"] == pytest.approx(0.75, abs=0.1)

    def test_wavelengths_in_air(self):
        axis = np.linspace(10_000.0, 10_100.0, 500) * u.AA
        (row,) = make_fit(white(n=500), axes=[axis], info={"wavelength_medium": "air"}).orders
        # the index of refraction at one micron is 1.000274
        assert row["wavelength_min"].value == pytest.approx(10_002.74, abs=0.01)

    def test_neighbours_are_not_on_two_sides_of_a_gap(self):
        # three pixels of ten are not in the spectrum: what lies beside the holes is the same, what is together is not
        keep = np.arange(5000) % 10 < 7
        values = white(4, 5000)
        after, before = (np.flatnonzero(keep & (np.arange(5000) % 10 == digit)) for digit in (0, 6))
        values[after[1:]] = values[before[:-1]]
        axis = (10_000.0 + 0.05 * np.arange(5000))[keep] * u.AA
        fit = make_fit(values[keep], axes=[axis])
        assert len(np.unique(scaled_residual(fit)[1])) == 500
        assert abs(fit.orders["autocorrelation"][0]) < 0.05
        together = make_fit(values[keep])  # the same without holes
        assert together.orders["autocorrelation"][0] > 0.1


def darkened(fit, first=300):
    """The first pixels of every order have a continuum of hardly anything, zero or less, and bad residuals."""
    for level, left in zip(fit.components["continuum"], fit.residual, strict=True):
        level.flux[:first] = np.resize([0.0, 1e-9, -0.2, 2.0], first) * u.electron  # the median is 50
        left.flux[:first] = 100.0 * u.electron
    return fit


class TestLight:
    def test_it_is_a_tenth_of_the_median_of_the_used_pixels(self):
        level = np.array([np.nan, -5.0, 0.0, 0.99, 1.01, 10.0, 10.0, 10.0, 1e4, 1e4, 1e4])
        used = (level > 0.0) & (level < 100.0)
        for sign in (1.0, -1.0):  # a continuum that is negative throughout has light where it is
            assert has_light(sign * level, used).tolist() == [False] * 4 + [True] * 7

    @pytest.mark.parametrize("uncertainty", [StdDevUncertainty, None])
    def test_dark_pixels_have_no_part_in_what_is_relative(self, uncertainty):
        values = [white(0), 2.0 * smooth(white(1), 4)]
        whole, dark = (make_fit(values, uncertainty=uncertainty) for _ in range(2))
        dark = darkened(dark).orders
        for k, table in enumerate((whole.orders, dark)):
            for row, value in zip(table, values, strict=True):
                lit = value[300 * k :]
                assert row["n_pixels"] == N_PIX
                assert row["rms"] == pytest.approx(NOISE * np.sqrt(np.mean(lit**2)), rel=1e-12)
        if uncertainty is None:  # residuals over the continuum are what is correlated
            assert dark["autocorrelation"][1] == pytest.approx(0.75, abs=0.05)
        else:
            np.testing.assert_allclose(dark["noise"], NOISE)
            assert dark["chi2"][0] > 10.0  # which is not relative

    def test_the_noise_of_a_fit_without_uncertainties(self):
        fit, known = (make_fit([2.0 * smooth(white(k), 4) for k in range(2)], uncertainty=kind)
                      for kind in (None, StdDevUncertainty))  # fmt: skip
        fit.components["noise"] = SpectrumList([
            spectrum(order.uncertainty.array, order.spectral_axis, u.electron) for order in known.observed
        ])  # fmt: skip
        for mine, other in zip(fit.orders, known.orders, strict=True):
            assert [*mine] == [*other]
            assert "errors of the model" in mine["remark"]
        white_noise = make_fit([3.0 * white()], uncertainty=None)
        white_noise.components["noise"] = fit.components["noise"][:1]
        assert white_noise.orders["remark"][0] == "residuals are white: there is more noise than was estimated"


class TestSplineContinuum:
    """Of 35 coefficients in 2000 pixels, with knots 62.5 pixels apart."""

    TEXT = "the continuum wants more freedom than the knots of its spline have, one every 62 pixels"

    def fit(self, values, worth):
        fit = make_fit(values, info={"continuum_parameters": worth})
        names = [f"order_{k}_continuum_{i}" for k in range(len(values)) for i in range(35)]
        fit.parameters = QTable({"name": ["radial_velocity", *names], "value": np.full(1 + len(names), 30.0)})
        return fit

    def test_the_orders_that_have_used_theirs_up(self):
        gone = np.full(N_PIX, np.nan)
        fit = self.fit([white(0), gone, 2.0 * smooth(white(1), 9), white(2)], [31.4, 31.6, 34.9])
        first, second, third = fit.orders["remark"]
        assert first == "" and third == self.TEXT
        assert second.startswith("errors of the model") and second.endswith(f"; {self.TEXT}")

    def test_a_part_does_not_know_its_place(self):
        fit = self.fit([white(0), white(1)], [34.9, 5.0])
        assert fit.orders["remark"].tolist() == [self.TEXT, ""]
        assert fit.order(1).orders["remark"][0] == fit.order(0).orders["remark"][0] == ""


class TestRemarks:
    """What was planted is named, and nothing else."""

    def remark(self, values, **kwargs):
        (row,) = make_fit(values, **kwargs).orders
        assert row["ratio"] > 1.5
        return row["remark"]

    def test_nothing_is_said_of_a_good_order(self):
        assert make_fit(1.4 * smooth(white(), 3)).orders["remark"][0] == ""

    def test_no_lines_of_the_star(self):
        assert self.remark(5.0 * smooth(white(), 5), star=False) == "the template of the star has no lines here"

    @pytest.mark.parametrize(("upper", "text"), [
        (9_000.0, "the template of the star does not reach it"),
        (9_999.0 + 0.05 * 0.3 * N_PIX, "the template of the star reaches 30 % of the pixels"),
    ])  # fmt: skip
    def test_beyond_the_template(self, upper, text):
        # at rest the first pixel, at 10000 Angstrom, is at 9999.0 for 30 km/s
        assert self.remark(5.0 * smooth(white(), 5), coverage=[8_000.0, upper]).split(";")[0] == text

    def test_correlated(self):
        # a boxcar of 9 has the autocorrelation 1 - k / 9: that of neighbours is halved at k = 5
        text = self.remark(2.0 * smooth(white(n=40_000), 9))
        assert text == "errors of the model: residuals are correlated over 5 pixels"

    def test_correlated_over_everything(self):
        text = self.remark(5.0 + white())
        assert text == "errors of the model: residuals are correlated over more than 100 pixels"

    def test_few_pixels(self):
        values = white()
        values[[30, 500, 501, 1200]] = 80.0
        share = 4 * 80.0**2 / np.sum(values**2)
        assert self.remark(values) == f"few pixels far off (0.2 % beyond 5 sigma carry {100 * share:.0f} % of chi2)"

    def test_saturated(self):
        sky = np.ones(N_PIX)
        sky[400:600] = 0.01
        values = np.where(sky < 0.05, 6.0, 1.0) * smooth(white(), 4)
        share = np.sum(values[400:600] ** 2) / np.sum(values**2)
        fit = make_fit(values, telluric=sky)
        assert fit.orders["saturated"][0] == pytest.approx(0.1)
        first, second = fit.orders["remark"][0].split("; ")
        assert first == f"10 % of the pixels are saturated and carry {100 * share:.0f} % of chi2"
        assert second.startswith("errors of the model")

    def test_saturated_pixels_that_are_as_good_as_others_are_not_blamed(self):
        sky = np.where(np.arange(N_PIX) < 800, 0.01, 1.0)
        assert "saturated" not in self.remark(3.0 * smooth(white(), 4), telluric=sky)

    def test_white(self):
        assert self.remark(2.0 * white()) == "residuals are white: there is more noise than the uncertainties say"

    def test_neighbours_that_differ(self):
        assert self.remark(3.0 * np.diff(white(n=N_PIX + 1))) == ""
