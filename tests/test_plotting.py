"""What the figures show, read back from their artists, and that files are written whole."""

from types import SimpleNamespace

import astropy.units as u
import matplotlib
import numpy as np
import pytest
from astropy.nddata import StdDevUncertainty
from astropy.table import QTable
from matplotlib import pyplot as plt
from specutils import Spectrum, SpectrumList
from specutils.utils.wcs_utils import vac_to_air

from specutils_blase import SpectrumFit
from specutils_blase.modeling import VoigtForest1D
from specutils_blase.plotting import plot_autocorrelation, plot_comparison, plot_fit, plot_template, save_figure

matplotlib.use("agg")

N_PIX = 400
CENTERS = np.array([5003.0, 5003.4, 5003.9, 5009.0])
VELOCITY = -30.0
FACTOR = np.sqrt((1 + VELOCITY / 299792.458) / (1 - VELOCITY / 299792.458))
FLUX_UNIT = u.Unit("erg / (s cm2 AA)")
# ignored by the fit: two neighbours and a lone one
IGNORED = np.isin(np.arange(N_PIX), [50, 51, 300])


@pytest.fixture(autouse=True)
def no_window(monkeypatch):
    def show(*args, **kwargs):
        raise AssertionError("a library must not open windows")

    monkeypatch.setattr(plt, "show", show)
    yield
    plt.close("all")


def make_template(scale=3e-14):
    model = VoigtForest1D(
        x_0=CENTERS * u.AA,
        strength=[0.1, 0.05, 0.08, 0.01] * u.AA,
        fwhm_G=[0.06] * 4 * u.AA,
        fwhm_L=[0.01] * 4 * u.AA,
        continuum=[scale, 0.2 * scale] * FLUX_UNIT,
        continuum_domain=(4999, 5012) * u.AA,
    )
    lines = QTable({"line_center": model.x_0.quantity, "depth": [0.7, 0.5, 0.6, 0.1], "component": ["star"] * 4})
    return SimpleNamespace(
        model=model, lines=lines, fit_info={"rms": 0.0012}, meta={"frame": "rest"}, coverage=[4999, 5012] * u.AA
    )


def make_fit(*, axis=None, uncertainty=True, medium="vacuum", telluric=True):
    axis = np.linspace(5000, 5011, N_PIX) * u.AA if axis is None else axis
    rng = np.random.default_rng(1)
    template = make_template()
    wave = axis.to_value(u.AA, u.spectral())
    model = template.model
    star = model.transmission(wave / FACTOR, *(getattr(model, name).value for name in model.param_names[:4]))
    sky = 1 - 0.2 * np.exp(-0.5 * ((wave - 5007) / 0.1) ** 2) if telluric else np.ones(N_PIX)
    level = 2e-14 * (1 + 0.01 * (wave - 5005))
    sigma = 1e-16 * np.linspace(1, 2, N_PIX)
    data = star * sky * level + sigma * rng.standard_normal(N_PIX)
    data[51], data[300] = np.nan, 1e-10
    residual = np.where(IGNORED, np.nan, data - star * sky * level)

    def spectrum(values, unit=FLUX_UNIT, **kwargs):
        return Spectrum(flux=values * unit, spectral_axis=axis, meta={"wavelength_medium": medium}, **kwargs)

    components = {"star": spectrum(star, u.one), "continuum": spectrum(level)}
    if telluric:
        components["telluric"] = spectrum(sky, u.one)
    return SimpleNamespace(
        observed=spectrum(data, uncertainty=StdDevUncertainty(sigma) if uncertainty else None, mask=IGNORED),
        template=template,
        telluric=None,
        lines=template.lines,
        model_spectrum=spectrum(star * sky * level),
        residual=spectrum(residual),
        components=components,
        parameters=QTable(
            {"name": ["radial_velocity", "vsini"], "value": [VELOCITY, 2.5], "std": [0.012, 0.3],
             "unit": ["km / s"] * 2, "fixed": [False] * 2}
        ),
        fit_info={"rms": 0.0042, "chi2": 412.0, "dof": 397},
    )  # fmt: skip


def line_of(ax, label):
    (line,) = (line for line in ax.lines if line.get_label() == label)
    return line.get_ydata()


def shaded_spans(ax):
    """Lower and upper bounds of the shaded parts."""
    spans = [p for p in ax.patches if p.get_facecolor()[:3] == pytest.approx(matplotlib.colors.to_rgb("0.88"))]
    return np.array([(p.get_x(), p.get_x() + p.get_width()) for p in spans])


def test_fit_shows_data_model_and_parts():
    fit = make_fit()
    axes = plot_fit(fit)
    assert axes.shape == (3,)
    top = axes[0]
    np.testing.assert_array_equal(np.isnan(line_of(top, "data")), IGNORED)
    np.testing.assert_allclose(line_of(top, "data")[~IGNORED], fit.observed.flux.value[~IGNORED])
    np.testing.assert_allclose(line_of(top, "model"), fit.model_spectrum.flux.value)
    level = fit.components["continuum"].flux.value
    np.testing.assert_allclose(line_of(top, "continuum"), level)
    np.testing.assert_allclose(line_of(top, "telluric"), level * fit.components["telluric"].flux.value)
    # the wild value of an ignored pixel does not set the scale
    assert top.get_ylim()[1] < 3e-14
    assert [text.get_text() for text in top.get_legend().get_texts()] == ["data", "continuum", "telluric", "model"]


def test_fit_residual_in_standard_deviations():
    fit = make_fit()
    middle = plot_fit(fit)[1]
    expected = fit.residual.flux.value / fit.observed.uncertainty.array
    shown = middle.lines[-1].get_ydata()
    np.testing.assert_allclose(shown[~IGNORED], expected[~IGNORED])
    assert np.isnan(shown[IGNORED]).all()
    assert "sigma" in middle.get_ylabel()
    low, high = middle.get_ylim()
    assert -low == high and 2 < high < 6


@pytest.mark.parametrize("is_flipped", [False, True])
def test_residuals_beyond_the_panel_are_marked(is_flipped):
    axis = np.linspace(5000, 5011, N_PIX)
    fit = make_fit(axis=(axis[::-1] if is_flipped else axis) * u.AA)
    values = fit.residual.flux.value.copy()
    sigma = fit.observed.uncertainty.array
    values[60], values[200] = 15 * sigma[60], -90 * sigma[200]
    fit.residual = Spectrum(flux=values * FLUX_UNIT, spectral_axis=fit.observed.spectral_axis)
    middle = plot_fit(fit)[1]
    low, high = middle.get_ylim()
    marks = {line.get_marker(): line for line in middle.lines if line.get_label() == "beyond the panel"}
    for marker, pixel, edge in (("^", 60, high), ("v", 200, low)):
        assert marks[marker].get_xdata().tolist() == [fit.observed.spectral_axis.value[pixel]]
        assert 0.85 < marks[marker].get_ydata()[0] / edge < 1
    assert [text.get_text() for text in middle.get_legend().get_texts()] == ["beyond the panel"]
    # every point is either inside the panel or marked
    shown = np.count_nonzero(np.abs(values / sigma) < high)
    assert shown + sum(len(line.get_xdata()) for line in marks.values()) == np.count_nonzero(np.isfinite(values))
    assert plot_fit(make_fit())[1].get_legend() is None


def test_fit_residual_in_per_cent_without_uncertainty():
    fit = make_fit(uncertainty=False)
    middle = plot_fit(fit)[1]
    expected = 100 * fit.residual.flux.value / fit.components["continuum"].flux.value
    np.testing.assert_allclose(middle.lines[-1].get_ydata()[~IGNORED], expected[~IGNORED])
    assert "%" in middle.get_ylabel()


def test_fit_shades_ignored_pixels():
    top = plot_fit(make_fit())[0]
    spans = shaded_spans(top)
    step = 11 / (N_PIX - 1)
    expected = 5000 + step * np.array([[49.5, 51.5], [299.5, 300.5]])
    np.testing.assert_allclose(spans, expected, rtol=1e-9)


def test_fit_title_tells_the_numbers():
    title = plot_fit(make_fit())[0].get_title(loc="left")
    for text in ("RV −30.000 ± 0.012 km/s", "2.50 ± 0.30 km/s", "rms 0.42 %", "1.04"):
        assert text in title


def test_zoom_holds_the_lines_and_the_moved_native_star():
    fit = make_fit()
    zoom = plot_fit(fit)[2]
    low, high = zoom.get_xlim()
    moved = CENTERS * FACTOR
    assert low < moved[0] and moved[2] < high
    (native,) = (line for line in zoom.lines if "native" in line.get_label())
    # the deepest point of the native star is its first line, half a velocity step of the drawing at most away
    deepest = native.get_xdata()[np.argmin(native.get_ydata())]
    assert deepest == pytest.approx(moved[0], abs=2 * (high - low) / 4000)
    marks = np.concatenate(
        [[segment[0, 0] for segment in c.get_segments()] for c in zoom.collections[-2:] if len(c.get_segments())]
    )
    np.testing.assert_allclose(marks, moved[(moved > low) & (moved < high)], rtol=1e-12)
    assert zoom.get_ylim()[1] < 3e-14


@pytest.mark.parametrize(
    ("axis", "medium", "label"),
    [
        (None, "vacuum", "Vacuum wavelength ["),
        (None, "air", "Air wavelength ["),
        (np.linspace(501.1, 500.0, N_PIX) * u.nm, "vacuum", "Vacuum wavelength [$\\mathrm{nm}$]"),
        (np.linspace(599.58, 598.27, N_PIX) * u.THz, "vacuum", "Frequency [$\\mathrm{THz}$]"),
    ],
)
def test_axes_say_unit_and_medium(axis, medium, label):
    axes = plot_fit(make_fit(axis=axis, medium=medium))
    for ax in axes[1:]:
        assert ax.get_xlabel().startswith(label)
    assert "erg" in axes[0].get_ylabel() and "10^{-15}" in axes[0].get_ylabel()
    low, high = axes[2].get_xlim()
    assert low < high
    # the lines are in the zoom, whatever the direction and the unit of the axis
    unit = u.AA if axis is None else axis.unit
    moved = (CENTERS[:3] * FACTOR * u.AA).to_value(unit, u.spectral())
    assert ((low < moved) & (moved < high)).all()


def test_fit_without_telluric_and_star():
    fit = make_fit(telluric=False)
    fit.template = None
    fit.lines = fit.lines[:0]
    fit.parameters = fit.parameters[:0]
    axes = plot_fit(fit)
    assert "telluric" not in [line.get_label() for line in axes[0].lines]
    assert axes[0].get_title(loc="left").startswith("rms")


def test_given_axes_are_used_alone():
    figure, ax = plt.subplots()
    assert plot_fit(make_fit(), ax=ax) is ax
    assert plot_template(make_template(), ax=ax) is ax
    assert plt.get_fignums() == [figure.number]
    assert figure.axes == [ax]


def test_template_is_the_model():
    template = make_template()
    ax = plot_template(template)
    for panel in ax.figure.axes:
        (flux,) = (line for line in panel.lines if line.get_label() == "template")
        wave = flux.get_xdata()
        np.testing.assert_allclose(flux.get_ydata(), template.model(wave * u.AA).value, rtol=1e-12)
        continuum = 3e-14 * (1 + 0.2 * (2 * (wave - 4999) / 13 - 1))
        np.testing.assert_allclose(line_of(panel, "continuum"), continuum, rtol=1e-9)
        assert "Vacuum wavelength" in panel.get_xlabel()
    np.testing.assert_allclose(ax.get_xlim(), [4999, 5012])
    # narrow lines are sampled: the deepest pixel is as deep as the line
    assert line_of(ax, "template").min() == pytest.approx(template.model(CENTERS[:1] * u.AA).value[0], rel=0.03)
    assert "4 lines" in ax.get_title(loc="left") and "0.12 %" in ax.get_title(loc="left")


def test_transmission_has_no_flux_unit():
    template = make_template()
    template.model = VoigtForest1D(*(getattr(template.model, name) for name in template.model.param_names[:4]))
    assert plot_template(template).get_ylabel() == "Flux"


def test_tick_labels_match_the_power_in_the_label():
    ax = plot_template(make_template())
    low, high = ax.get_ylim()
    ticks = [tick for tick in ax.get_yticks() if low <= tick <= high]
    shown = [float(ax.yaxis.get_major_formatter()(tick, None)) for tick in ticks]
    assert "10^{-15}" in ax.get_ylabel()
    np.testing.assert_allclose(shown, np.array(ticks) * 1e15, rtol=1e-5, atol=1e-9)


def test_continuum_above_the_data_is_in_the_panel():
    fit = make_fit()
    level = fit.components["continuum"].flux
    for factor, is_inside in ((1.3, True), (5.0, False)):
        fit.components["continuum"] = Spectrum(flux=factor * level, spectral_axis=fit.observed.spectral_axis)
        top = plot_fit(fit)[0]
        assert (np.max(line_of(top, "continuum")) < top.get_ylim()[1]) == is_inside


def make_orders(n=5, skipped=(3,), *, uncertainty=True):
    """A fit of orders from long to short wavelengths, whose noise is larger by one share from each to the next."""
    parts = {name: SpectrumList() for name in ("observed", "model", "residual", "continuum", "star", "telluric")}
    for k in range(n):
        one = make_fit(axis=np.linspace(5000 - 20 * k, 5011 - 20 * k, N_PIX) * u.AA, uncertainty=uncertainty)
        level = one.components["continuum"].flux.value
        left = 0.002 * (k + 1) * level * np.random.default_rng(k).standard_normal(N_PIX)
        left = np.full(N_PIX, np.nan) if k in skipped else np.where(IGNORED, np.nan, left)
        one.observed = Spectrum(
            flux=one.model_spectrum.flux + np.nan_to_num(left) * FLUX_UNIT, spectral_axis=one.observed.spectral_axis,
            uncertainty=StdDevUncertainty(0.002 * level) if uncertainty else None)  # fmt: skip
        one.residual = Spectrum(flux=left * FLUX_UNIT, spectral_axis=one.observed.spectral_axis)
        for name in parts:
            part = one.components.get(name, one.model_spectrum if name == "model" else None)
            parts[name].append(getattr(one, name) if part is None else part)
    lines = make_fit().lines
    lines["order"] = 0
    return SpectrumFit(
        observed=parts["observed"], template=make_template(), telluric=None, parameters=make_fit().parameters,
        lines=lines, model_spectrum=parts["model"], residual=parts["residual"],
        components={name: parts[name] for name in ("continuum", "star", "telluric")},
        fit_info={"rms": 0.0042, "chi2": 412.0, "dof": 397},
    )  # fmt: skip


class TestPage:
    def test_orders_have_the_number_of_their_file_too(self):
        fit = make_orders()
        for number, order in enumerate(fit.observed):
            order.meta["order"] = number + 14
        assert plot_fit(fit)[0, 0].get_title(loc="left").startswith("order 4 (18 of the file), 4920 to")
        assert "order 2 (16 of the file), RV" in plot_fit(fit, order=2)[0].get_title(loc="left")

    def test_every_order_says_which_it_is_and_how_good(self):
        fit = make_orders()
        panels = plot_fit(fit)
        assert panels.shape == (4, 2)
        table = {row["order"]: row for row in fit.orders}
        for number, (ax, below) in zip((4, 2, 1, 0), panels, strict=True):  # by wavelength
            low = 5000 - 20 * number
            assert ax.get_title(loc="left") == f"order {number}, {low} to {low + 11} $\\mathrm{{\\AA}}$"
            assert ax.get_title(loc="right") == f"rms {100 * table[number]['rms']:#.2g} %, noise 0.20 %"
            used = np.isfinite(fit.residual[number].flux.value)
            level = fit.components["continuum"][number].flux.value
            np.testing.assert_allclose(line_of(ax, "data")[used], (fit.observed[number].flux.value / level)[used])
            np.testing.assert_allclose(line_of(ax, "model"), fit.model_spectrum[number].flux.value / level)
            np.testing.assert_allclose(line_of(ax, "telluric"), fit.components["telluric"][number].flux.value)
            np.testing.assert_allclose(line_of(below, "photon noise, 1 $\\sigma$")[used], 0.2)
            left = [line for line in below.lines if line.get_color() == "0.25" and len(line.get_xdata()) == N_PIX]
            np.testing.assert_allclose(left[0].get_ydata(), 100 * fit.residual[number].flux.value / level)
            assert below.get_xlim() == ax.get_xlim()
        text = " ".join(item.get_text() for item in panels[0, 0].figure.texts)
        for expected in ("skipped: 3", "RV", "Vacuum wavelength [", "% of the continuum"):
            assert expected in text

    def test_bold_is_what_is_worse_than_its_noise(self):
        weights = [ax._right_title.get_weight() for ax, _ in plot_fit(make_orders())]
        assert weights == ["bold", "bold", "bold", "normal"]  # 5, 3, 2 and 1 times the noise

    def test_without_uncertainties(self):
        ax, below = plot_fit(make_orders(uncertainty=False))[0]
        assert "noise" not in ax.get_title(loc="right") and len(below.get_yticks()) == 2

    def test_without_light(self):
        fit = make_orders(skipped=(), uncertainty=False)
        dark = np.arange(N_PIX) < 40
        for level, left in zip(fit.components["continuum"], fit.residual, strict=True):
            level.flux[dark] = np.resize([0.0, 1e-18, -1e-17], 40) * FLUX_UNIT  # 2e-14 elsewhere
            left.flux[dark] = np.where(IGNORED[dark], np.nan, 1e-14) * FLUX_UNIT
        fit.components["noise"] = SpectrumList([
            Spectrum(flux=np.maximum(0.002 * level.flux, 1e-18 * FLUX_UNIT), spectral_axis=level.spectral_axis)
            for level in fit.components["continuum"]
        ])  # fmt: skip
        for ax, below in plot_fit(fit):
            assert ax.get_ylim()[0] > -0.3 and ax.get_ylim()[1] < 1.2 and below.get_ylim()[1] < 5.0
            for label in ("data", "model", "telluric"):
                assert np.array_equal(np.isnan(line_of(ax, label)), dark | (IGNORED & (label == "data")))
            assert np.nanmax(line_of(below, "estimated noise, 1 $\\sigma$")) == pytest.approx(0.2)
            assert "noise 0.20 %" in ax.get_title(loc="right")
        single = fit.order(0)
        _, middle, zoom = plot_fit(single)
        assert middle.get_ylabel() == "Residual [%]" and middle.get_ylim()[1] < 5.0
        assert not np.any(dark & (single.observed.spectral_axis.value > zoom.get_xlim()[0]))
        assert len(shaded_spans(middle)) == 2  # pixels that are ignored, and not those without light

    @pytest.mark.parametrize(("count", "columns"), [(2, 1), (5, 2), (13, 3), (22, 4)])
    def test_nothing_overlaps(self, count, columns):
        panels = plot_fit(make_orders(count, skipped=()))
        figure = panels[0, 0].figure
        assert len({round(ax.get_position().x0, 3) for ax in panels[:, 0]}) == columns
        assert figure.get_size_inches()[0] == 11.7 and figure.get_size_inches()[1] < 9.0
        renderer = figure.canvas.get_renderer()
        boxes = [ax.get_tightbbox(renderer) for ax in panels.ravel()]
        boxes += [text.get_window_extent() for text in [*figure.texts, *figure.legends]]
        # labels of ticks may touch, by a pixel of a hundred in an inch
        inner = [matplotlib.transforms.Bbox.from_extents(b.x0 + 1, b.y0 + 1, b.x1 - 1, b.y1 - 1) for b in boxes]
        whole = figure.bbox
        assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= whole.x1 and box.y1 <= whole.y1 for box in inner)
        beside = [(i, k) for i, a in enumerate(inner) for k, b in enumerate(inner[:i]) if a.overlaps(b)]
        # the two panels of an order share an edge
        assert all(i < panels.size and i - k == 1 and i % 2 for i, k in beside), beside
        for ax in panels[:, 0]:
            ends = [item.get_window_extent() for item in (ax.title, ax._left_title, ax._right_title)
                    if item.get_text()]  # fmt: skip
            assert not ends[0].overlaps(ends[1])

    def test_residuals_beyond_their_panel_are_marked(self):
        fit = make_orders()
        fit.residual[1].flux[77] *= 1e4 / abs(fit.residual[1].flux[77]) * fit.components["continuum"][1].flux[77]
        below = plot_fit(fit)[2, 1]
        marks = [line for line in below.lines if line.get_label() == "beyond the panel"]
        assert any(fit.observed[1].spectral_axis.value[77] in line.get_xdata() for line in marks)
        assert below.get_ylim()[1] < 10.0

    def test_one_order(self):
        fit = make_orders()
        title = plot_fit(fit, order=-3)[0].get_title(loc="left")
        assert title.startswith("order 2, RV") and f"rms {100 * fit.orders['rms'][2]:.2f} %, noise 0.20 %" in title
        for draw in (plot_fit, plot_autocorrelation):
            with pytest.raises(ValueError, match="order must be one that was fitted, got 3, which was skipped"):
                draw(fit, order=3)
        with pytest.raises(ValueError, match="ax must be None for a page"):
            plot_fit(fit, ax=plt.gca())


class TestAutocorrelationPlot:
    def test_orders_and_mean(self):
        fit = make_orders()
        ax = plot_autocorrelation(fit, lags=12)
        *thin, mean, _ = ax.lines
        assert len(thin) == 4 and mean.get_linewidth() > 2 * thin[0].get_linewidth()
        curves = np.array([line.get_ydata() for line in thin])
        assert curves.shape == (4, 13)
        np.testing.assert_allclose(mean.get_ydata(), curves.mean(axis=0))
        first = fit.residual[0].flux.value / fit.observed[0].uncertainty.array
        assert curves[0, 1] == pytest.approx(fit.orders["autocorrelation"][0])
        assert curves[0, 3] == pytest.approx(np.nansum(first[3:] * first[:-3]) / np.nansum(first**2), abs=0.01)
        one, all_of_them = (np.max(c.get_paths()[0].vertices[:, 1]) for c in ax.collections)
        # the fewest pairs are those of the last lag
        lost = 12 + 2 * 3
        assert one == pytest.approx(2 / np.sqrt(N_PIX - lost), rel=0.02)
        assert all_of_them == pytest.approx(one / 2)
        assert "pixels" in ax.get_xlabel()

    def test_one_order_and_one_spectrum(self):
        fit = make_orders()
        figure, ax = plt.subplots()
        assert plot_autocorrelation(fit, ax=ax, order=1) is ax and plt.get_fignums() == [figure.number]
        single = plot_autocorrelation(fit.order(1))
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), single.lines[0].get_ydata())
        assert len(ax.lines[0].get_ydata()) == 31 and len(ax.collections) == 1

    @pytest.mark.parametrize("lags", [0, 2.5, True, "9"])
    def test_bad_lags(self, lags):
        with pytest.raises(ValueError, match="lags must be a whole number"):
            plot_autocorrelation(make_orders(), lags=lags)


class TestComparison:
    N = 300

    @pytest.fixture
    def lists(self):
        """Two measurements of the same lines, the second in another order and 0.4 km/s redder; two are emission."""
        rng = np.random.default_rng(4)
        wave = 8000.0 + 2.0 * np.arange(self.N)
        width = rng.lognormal(3.5, 1.0, self.N)
        width[:2] *= -1.0
        error = 0.5 + 0.02 * np.abs(width)
        out = []
        for velocity in (0.0, 0.4):
            table = QTable({"line_center": wave * (1 + velocity / 299792.458) * u.AA})
            table["line_center_err"] = np.full(self.N, 0.1 / 299792.458 * 8000) * u.AA
            table["equivalent_width"] = ((width + error * rng.normal(size=self.N)) * u.mAA).to(u.AA)
            table["equivalent_width_err"] = (error * u.mAA).to(u.AA)
            table["flags"] = np.where(np.arange(self.N) % 10 == 0, 2, 0)
            out.append(table)
        order = rng.permutation(self.N)
        return out[0], out[1][order], order

    def test_shows_the_pairs(self, lists):
        first, second, order = lists
        widths, differences, velocities = plot_comparison(first, second, names=("a", "b"))
        clear = np.arange(self.N) % 10 != 0
        back = np.argsort(order)
        x, y = first["equivalent_width"].to_value(u.mAA), second["equivalent_width"][back].to_value(u.mAA)
        points = [line for line in widths.lines if line.get_linestyle() == "None"][0]
        shown = clear & (x > 0) & (y > 0)
        np.testing.assert_allclose(points.get_xdata(), x[shown])
        np.testing.assert_allclose(points.get_ydata(), y[shown])
        assert widths.get_xscale() == widths.get_yscale() == "log"
        assert tuple(line_of(widths, "equal")) == widths.get_xlim() == widths.get_ylim()
        assert widths.get_xlabel().startswith("Equivalent width, a [")
        error = np.hypot(first["equivalent_width_err"], second["equivalent_width_err"][back]).to_value(u.mAA)
        heights = sum(patch.get_height() for patch in differences.patches)
        assert heights == self.N
        median = np.median(((y - x) / error)[clear])
        assert f"median {median:+.2f}, width" in differences.get_title(loc="left")
        assert "[$\\sigma$]" in differences.get_xlabel()
        assert line_of(velocities, "median +0.400 km / s")[0] == pytest.approx(0.4, rel=1e-6)
        assert widths.figure.get_suptitle() == f"{self.N} lines in common, of {self.N} and {self.N}"

    def test_errors_that_are_not_known(self, lists):
        first, second, _ = (table[["line_center", "equivalent_width"]] if isinstance(table, QTable) else table
                            for table in lists)  # fmt: skip
        panels = plot_comparison(first, second)
        assert panels.shape == (3,) and "[%]" in panels[1].get_xlabel()
        assert panels[0].get_legend_handles_labels()[1] == ["equal", "lines"]

    def test_formal_errors_are_no_unit(self, lists):
        lists[1].meta["errors"] = "the spectrum has no noise: formal errors scaled by the rms residual near each line"
        assert "[%]" in plot_comparison(*lists[:2])[1].get_xlabel()

    def test_given_axes_have_the_widths_alone(self, lists):
        ax = plt.subplots()[1]
        assert plot_comparison(*lists[:2], ax) is ax
        assert "Equivalent width, second" in ax.get_ylabel() and len(ax.figure.axes) == 1

    def test_air_wavelengths_are_compared_in_vacuum(self, lists):
        first, second, _ = lists
        first["line_center"] = vac_to_air(first["line_center"])
        with pytest.raises(ValueError, match="second must share lines with first within 2.0 km / s"):
            plot_comparison(first, second)
        first.meta["wavelength_medium"] = "air"
        velocities = plot_comparison(first, second)[2]
        assert line_of(velocities, "median +0.400 km / s")[0] == pytest.approx(0.4, abs=1e-3)
        assert velocities.lines[0].get_xdata().min() == pytest.approx(8002.0, abs=0.01)  # the first is flagged

    def test_lists_without_widths(self, lists):
        first, second, _ = lists
        with pytest.raises(ValueError, match="second must have equivalent widths"):
            plot_comparison(first, second[["line_center"]])


def test_save_figure(tmp_path):
    figure = plot_template(make_template()).figure
    path = tmp_path / "a.png"
    assert save_figure(figure, path) == path
    assert path.read_bytes().startswith(b"\x89PNG")
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_figure(figure, path)
    assert path.read_bytes() == b"old"
    save_figure(figure, str(path), overwrite=True)
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"must end in one of .*'pdf'.*got 'a.xyz'"):
        save_figure(figure, tmp_path / "a.xyz")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_save_figure_is_all_or_nothing(tmp_path, monkeypatch):
    figure = plt.figure()
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def interrupted(target, **kwargs):
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_figure(figure, path, overwrite=True)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"old")]
