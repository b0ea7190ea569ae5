"""The page of a fit: whole, well formed, escaped, without anything from elsewhere, and true."""

import base64
import io
import re
from html.parser import HTMLParser

import astropy.units as u
import matplotlib
import numpy as np
import pytest
from matplotlib import image
from matplotlib import pyplot as plt
from specutils import Spectrum, SpectrumList

from specutils_blase import SpectrumFit, page
from specutils_blase.flags import PRIOR_DOMINATED
from specutils_blase.report import with_error
from specutils_blase.simulation import simulate_star, simulate_telluric

from .test_fitting import COVERAGE, LOWER, LSF, UPPER, fit_near, make_template, observe

matplotlib.use("agg")
HOSTILE = """<script>alert("x")</script> & 'HD 1' </title><img src=http://evil.example/x.png onerror=alert(1)>"""
VOID = {"meta", "img", "br"}


@pytest.fixture(scope="module")
def star():
    low, high = COVERAGE * u.AA
    return make_template(simulate_star(5, lower=low, upper=high, n_lines=90).model)


@pytest.fixture(scope="module")
def sky():
    low, high = COVERAGE * u.AA
    return make_template(simulate_telluric(6, lower=low, upper=high, n_lines=16).model, frame="observatory")


def with_bump(spectrum, pixels, height):
    """The spectrum with pixels that are so many sigma too high."""
    flux = spectrum.flux.value.copy()
    flux[pixels] += height * spectrum.uncertainty.array[pixels]
    return Spectrum(flux=flux * spectrum.flux.unit, spectral_axis=spectrum.spectral_axis,
                    uncertainty=spectrum.uncertainty, meta={"object": HOSTILE, "instrument": "<b>HPF</b>"})  # fmt: skip


@pytest.fixture(scope="module")
def fit(star, sky):
    return fit_near(with_bump(observe(star, sky).spectrum, slice(200, 203), 30.0), star, sky, lsf=LSF, free=())


@pytest.fixture(scope="module")
def many(star, sky):
    bounds = np.linspace(LOWER, UPPER, 7)
    orders = [observe(star, sky, seed=k, lower=a * u.AA, upper=b * u.AA, n_pix=60).spectrum
              for k, (a, b) in enumerate(zip(bounds, bounds[1:], strict=False))]  # fmt: skip
    return fit_near(SpectrumList(orders), star, sky, lsf=LSF, free=(), continuum_degree=1)


class Reader(HTMLParser):
    """Tags must be closed in order; their attributes and the text of every section are kept."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.tables, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def table(self, first):
        """Rows of the table whose heading begins so."""
        return next(rows[1:] for rows in self.tables if rows[0][0] == first)


def read(fit, path):
    fit.report(path, overwrite=True)
    return Reader(path.read_text(encoding="utf-8"))


def figures(reader):
    sources = [attributes["src"] for tag, attributes in reader.tags if tag == "img"]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    return [image.imread(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources]


def test_page_is_self_contained_and_escaped(fit, tmp_path):
    reader = read(fit, tmp_path / "fit.html")
    tags = {tag for tag, _ in reader.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form", "a", "b"}
    attributes = {name for _, given in reader.tags for name in given}
    assert not any(name.startswith("on") for name in attributes) and "href" not in attributes
    assert len([tag for tag, _ in reader.tags if tag == "img"]) == 1  # ours, not that of the name
    assert ("html", {"lang": "en"}) in reader.tags and tags >= {"header", "main", "section", "h1", "h2", "table", "dl"}
    text = (tmp_path / "fit.html").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|src=[\"']?(?!data:)http", text.replace("&lt;img src=http", ""))
    policy = next(given["content"] for tag, given in reader.tags if given.get("http-equiv"))
    assert "default-src 'none'" in policy and "script" not in policy
    assert text.count("<title>") == 1 and HOSTILE in "".join(reader.text) and "<b>HPF</b>" in "".join(reader.text)


def test_numbers_are_those_of_the_fit(fit, tmp_path):
    reader = read(fit, tmp_path / "fit.html")
    rows = {row[0]: row[1:] for row in reader.table("parameter")}
    assert list(rows) == fit.parameters["name"].tolist()
    row = fit.parameters[1]
    assert rows["vsini"][:2] == [with_error(row["value"], row["std"]), "km / s"]
    assert rows["resolving_power"] == ["55000", "", "fixed"]
    text = "".join(reader.text)
    for piece in (f"{fit.fit_info['chi2']:.1f} / {fit.fit_info['dof']:.0f}", "the mode of the posterior", "observatory",
                  fit.template.meta["package_version"], "10.3847/1538-4357/aca0a2", "chi2 is "):  # fmt: skip
        assert piece in text
    order = reader.table("order")[0]
    assert order[0] == "order 0" and order[2] == str(fit.orders["n_pixels"][0])
    flags = {row[0]: int(row[1]) for row in reader.table("flag")}
    assert flags["prior_dominated"] == np.count_nonzero(fit.lines["flags"] & PRIOR_DOMINATED)


def test_worst_residual_is_found_with_its_lines(fit, tmp_path):
    rows = read(fit, tmp_path / "fit.html").table("vacuum wavelengths [Å]")
    wave = fit.observed.spectral_axis.to_value(u.AA)
    assert rows[0][0] == f"{wave[200]:.3f} to {wave[202]:.3f}" and rows[0][2] == "3"
    scaled = fit.residual.flux.value / fit.observed.uncertainty.array
    assert rows[0][3] == f"{scaled[200:203].max():+.1f}" and float(rows[0][3]) > 20
    sizes = [abs(float(row[3])) for row in rows]
    assert sizes == sorted(sizes, reverse=True) and len(rows) == page.WORST
    velocity = fit.parameters["value"][0]
    factor = np.where(fit.lines["component"] == "star", 1 + velocity / 299792.458, 1.0)
    nearest = np.sort(np.abs(fit.lines["line_center"].value * factor - wave[201]))[:2]
    said = [abs(float(text)) for text in re.findall(r"\(([+-][0-9.]+) Å", rows[0][5])]
    assert np.allclose(said, nearest, atol=2e-3)


def test_places_are_apart_and_ignored_pixels_are_none():
    scaled = np.zeros(60)
    scaled[[10, 11, 12, 13]], scaled[30], scaled[31] = [5.0, 9.0, 8.0, 1.0], -7.0, np.nan
    assert page._places(scaled) == [(10, 12, 9.0), (30, 30, -7.0)]
    assert page._places(np.full(5, np.nan)) == []


def test_figures_can_be_read_and_none_stays(fit, many, tmp_path):
    before = plt.get_fignums()
    (one,) = figures(read(fit, tmp_path / "fit.html"))
    assert one.shape[1] > 1000 and np.std(one[..., :3]) > 0.05
    assert len(figures(read(many, tmp_path / "many.html"))) == 1 + page.ORDER_FIGURES
    assert plt.get_fignums() == before


def test_several_orders(many, tmp_path):
    reader = read(many, tmp_path / "many.html")
    assert [row[0] for row in reader.table("order")] == [f"order {k}" for k in range(6)]
    own = [rows for rows in reader.tables if rows[0][0] == "parameter"][1]
    assert len(own) - 1 == 12 and "12 of single orders" in "".join(reader.text)
    assert "6 fitted, 0 skipped" in "".join(reader.text) and "Fit of a spectrum" in "".join(reader.text)


def test_a_fit_that_was_read_from_a_file(fit, tmp_path):
    fit.write(tmp_path / "fit.asdf")
    again = read(SpectrumFit.read(tmp_path / "fit.asdf"), tmp_path / "again.html")
    first = read(fit, tmp_path / "fit.html")
    assert again.table("parameter") == first.table("parameter")
    assert "Arguments of fit_spectrum" in "".join(first.text) and "Arguments of" not in "".join(again.text)


def test_without_uncertainties_and_tellurics_and_with_new_lines(star, sky, tmp_path):
    order = observe(star, sky).spectrum
    bare = Spectrum(flux=order.flux, spectral_axis=order.spectral_axis)
    new = fit_near(bare, star, sky, lsf=LSF, free=()).lines[:2]
    new = new["line_center", "strength", "fwhm_gauss", "fwhm_lorentz", "component"]
    new["line_center"] = [10598.3, 10601.1] * u.AA
    fit = fit_near(bare, star, sky, lsf=LSF, new_lines=new)
    text = "".join(read(fit, tmp_path / "fit.html").text)
    assert "2 lines that the templates did not have" in text and "10598.3000" in text
    alone = read(fit_near(order, None, sky, lsf=LSF, radial_velocity=None, vsini=None), tmp_path / "sky.html")
    assert "Template of the star" not in "".join(alone.text)


def test_fits_that_failed_say_so(fit, tmp_path):
    meta = dict(fit.parameters.meta)
    fit.parameters.meta.update(at_bound=["vsini"], veiling_correlation=0.99)
    info = {**fit.fit_info, "status": "max_iterations", "message": "too many", "down_weighted": {"pixel": [1, 2]}}
    try:
        failed = SpectrumFit(**{**vars(fit), "fit_info": info})
        text = "".join(read(failed, tmp_path / "fit.html").text)
    finally:
        fit.parameters.meta.clear()
        fit.parameters.meta.update(meta)
    for piece in ("did not converge (too many)", "vsini ended at its limit", "veiling and the lines", "2 pixels were"):
        assert piece in text


def test_file_is_whole_or_not_there(fit, tmp_path, monkeypatch):
    path = tmp_path / "fit.html"
    path.write_text("before")
    with pytest.raises(FileExistsError, match="path must name a new file"):
        fit.report(path)
    with pytest.raises(FileNotFoundError, match="path must lie in a directory that exists"):
        fit.report(tmp_path / "nowhere" / "fit.html")
    with pytest.raises(IsADirectoryError, match="path must name a file"):
        fit.report(tmp_path)
    with pytest.raises(TypeError, match="path must be the name of a file"):
        fit.report(3)
    with pytest.raises(ValueError, match="path must end like the name of a page, got '.pdf'"):
        fit.report(tmp_path / "fit.pdf")

    def broken(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(page, "_page", broken)
    with pytest.raises(KeyboardInterrupt):
        fit.report(path, overwrite=True)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_lines_of_barycentric_spectra_are_where_they_are_seen(star, sky, tmp_path):
    order, velocity = observe(star, sky).spectrum, 25.0
    factor = np.sqrt((1 + velocity / 299792.458) / (1 - velocity / 299792.458))
    moved = Spectrum(flux=order.flux, spectral_axis=order.spectral_axis * factor, uncertainty=order.uncertainty,
                     meta={"frame": "barycentric", "barycentric_velocity": velocity * u.km / u.s})  # fmt: skip
    fit = fit_near(moved, star, sky, lsf=LSF, free=(), radial_velocity=5 * u.km / u.s)
    center, component, _ = page._seen_lines(fit)
    ground = fit.lines["line_center"].value[component == "telluric"]
    assert np.allclose(center[component == "telluric"], ground * factor, rtol=1e-9)
