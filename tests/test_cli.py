"""The command line: what it writes and says, and one line and exit code 2 for everything that can go wrong."""

import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable

from specutils_blase import BlaseWarning, LineTemplate, SpectrumFit, __version__, cli, demo
from specutils_blase.simulation import simulate_order, simulate_star, simulate_telluric

KMS = u.km / u.s
LOWER, UPPER = 10560 * u.AA, 10600 * u.AA
VELOCITY, RESOLVING_POWER = 12.3, 50_000.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A star, a sky, an order, and the templates that the command line made of them."""
    folder = tmp_path_factory.mktemp("cli")
    star = simulate_star(11, lower=LOWER, upper=UPPER, n_lines=300)
    sky = simulate_telluric(12, lower=LOWER, upper=UPPER, n_lines=20)
    order = simulate_order(
        star.model,
        sky.model,
        seed=13,
        radial_velocity=VELOCITY * KMS,
        vsini=4 * KMS,
        resolving_power=RESOLVING_POWER,
        lower=10565 * u.AA,
        upper=10595 * u.AA,
        n_pix=500,
        bad_pixels=6,
    )
    for name, spectrum in (("star", star.spectrum), ("sky", sky.spectrum), ("order", order.spectrum)):
        table = QTable({"wavelength": u.Quantity(spectrum.spectral_axis), "flux": spectrum.flux})
        if spectrum.uncertainty is not None:
            table["uncertainty"] = spectrum.uncertainty.quantity
            table["mask"] = spectrum.mask
        table.write(folder / f"{name}.ecsv")
    run("clone", folder / "star.ecsv", "-o", folder / "star.asdf", "--teff", 4700, "--passes", 2,
        "--lines", folder / "lines.ecsv", "--plot", folder / "star.png", "--continuum-degree", 2)  # fmt: skip
    run("clone", folder / "sky.ecsv", "-o", folder / "sky.asdf", "--passes", 2, "--continuum-degree", 1)
    return folder


@pytest.fixture(scope="module")
def fitted(folder):
    run("fit", folder / "order.ecsv", folder / "star.asdf", "--telluric", folder / "sky.asdf", "--lsf", RESOLVING_POWER,
        "--vsini", 3, "--rv", 10, "--free", "strength", "-o", folder / "fit.asdf", "--plot", folder / "fit.png",
        "--lines", folder / "fit.ecsv")  # fmt: skip
    return folder


def call(*arguments):
    return cli.main([str(argument) for argument in arguments])


def run(*arguments):
    """A call that must succeed; its warnings do not end it."""
    assert call(*arguments) == 0


def refused(capsys, *arguments):
    """The only line, warnings apart, that a failing call prints."""
    assert call(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    *others, line = err.splitlines()
    assert all(other.startswith("specutils-blase: warning: ") for other in others)
    assert line.startswith("specutils-blase: error: ")
    return line.removeprefix("specutils-blase: error: ")



def test_fit_writes_a_page(folder, tmp_path, capsys):
    page = tmp_path / "fit.html"
    arguments = ("fit", folder / "order.ecsv", folder / "star.asdf", "--lsf", RESOLVING_POWER, "--vsini", 3, "--rv", 10,
                 "--free", "none", "--report", page)  # fmt: skip
    run(*arguments, "-o", tmp_path / "fit.asdf")
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>") and f"wrote {page}" in capsys.readouterr().out
    text = refused(capsys, *arguments, "-o", tmp_path / "other.asdf")
    assert text.startswith("output must name a new file") and not (tmp_path / "other.asdf").exists()


def unparsable(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        call(*arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("specutils-blase: error: ")


# ---------------------------------------------------------------------------------------------------------- it is light


def test_help_is_immediate():
    code = (
        "import sys, time; started = time.perf_counter(); from specutils_blase.cli import main\n"
        "try:\n    main(['fit', '--help'])\n"
        "except SystemExit as stop:\n    print(stop.code, sorted({'torch', 'specutils', 'numpy'} & set(sys.modules)))\n"
        "print(time.perf_counter() - started)"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    *page, state, seconds = result.stdout.splitlines()
    assert (result.returncode, result.stderr, state) == (0, "", "0 []")
    assert "--telluric" in "\n".join(page)
    assert float(seconds) < 0.5


@pytest.mark.parametrize("command", [[], ["demo"], ["clone"], ["fit"], ["galaxy"], ["galaxy", "lines"],
                                     ["info"]])  # fmt: skip
def test_every_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0
    page = capsys.readouterr().out
    assert page.startswith("usage: specutils-blase")
    assert len(page.splitlines()) > 5


@pytest.mark.parametrize("command", [
    "demo", "clone", "fit", "galaxy train", "galaxy reconstruct", "galaxy lines", "info",
])
def test_every_option_is_in_the_documentation(capsys, command):
    with pytest.raises(SystemExit):
        cli.main([*command.split(), "--help"])
    page = (Path(__file__).parents[1] / "docs/reference/command_line.rst").read_text(encoding="utf-8")
    shown = re.search(rf"\$ specutils-blase {command} --help\n((    .*)?\n)+", page)[0]
    said, written = (set(re.findall(r"--[a-z][a-z-]+", text)) for text in (capsys.readouterr().out + "--help", shown))
    assert said == written


# ------------------------------------------------------------------------------------------------------- clone and fit


def test_clone_writes_template_lines_and_picture(folder):
    template = LineTemplate.read(folder / "star.asdf")
    assert template.model.teff == 4700
    assert template.model.continuum.size == 3
    assert 30 < len(template.lines) <= 300
    lines = QTable.read(folder / "lines.ecsv")
    np.testing.assert_array_equal(lines["line_center"], template.lines["line_center"])
    assert lines["equivalent_width_err"].unit == u.AA
    assert (folder / "star.png").read_bytes().startswith(b"\x89PNG")
    star = QTable.read(folder / "star.ecsv")
    inside = (star["wavelength"] > 10561 * u.AA) & (star["wavelength"] < 10599 * u.AA)
    ratio = template.evaluate(star["wavelength"][inside]).flux / star["flux"][inside]
    assert np.std(ratio.value) < 0.003


def test_clone_of_a_window(folder, tmp_path):
    run("clone", folder / "star.ecsv", "-o", tmp_path / "a.asdf", "--window", 10570, 10575, "--passes", 1,
        "--continuum-degree", 0)  # fmt: skip
    coverage = LineTemplate.read(tmp_path / "a.asdf").coverage.value
    np.testing.assert_allclose(coverage, [10570, 10575], atol=0.011)


def test_fit_finds_the_velocity(fitted, capsys):
    fit = SpectrumFit.read(fitted / "fit.asdf")
    row = fit.parameters[list(fit.parameters["name"]).index("radial_velocity")]
    assert abs(row["value"] - VELOCITY) < 4 * row["std"] < 0.5
    assert fit.fit_info["n_ignored"] == 6
    lines = QTable.read(fitted / "fit.ecsv")
    assert set(lines["component"]) == {"star", "telluric"}
    assert (fitted / "fit.png").read_bytes().startswith(b"\x89PNG")


def test_fit_passes_its_options_on(folder, tmp_path, monkeypatch):
    seen = {}

    def fit_spectrum(spectrum, template, **options):
        seen.update(options, spectrum=spectrum, template=template)
        raise ValueError("enough")

    monkeypatch.setattr("specutils_blase.fit_spectrum", fit_spectrum, raising=False)
    sky = folder / "sky.asdf"
    code = call("fit", folder / "order.ecsv", folder / "star.asdf", "-o", tmp_path / "a.asdf", "--telluric", sky,
                "--telluric", sky, "--lsf", 40000, "--free-lsf", "--rv", -5, "--vsini", 7,
                "--limb-darkening", 0.3, "--medium", "air",
                "--continuum-degree", 2, "--free", "strength,x_0", "--window", 10570, 10580)  # fmt: skip
    assert code == 2
    assert len(seen["telluric"]) == 2 and len(seen["template"].lines) > 30
    assert (seen["lsf"].R, seen["lsf"].free) == (40000, True)
    assert (seen["radial_velocity"], seen["vsini"]) == (-5 * KMS, 7 * KMS)
    assert (seen["limb_darkening"], seen["continuum_degree"], seen["free"]) == (0.3, 2, ("strength", "x_0"))
    assert seen["spectrum"].meta["wavelength_medium"] == "air"
    assert seen["window"] == (10570 * u.AA, 10580 * u.AA)
    call("fit", folder / "order.ecsv", "-o", tmp_path / "a.asdf", "--telluric", sky, "--free", "none")
    assert seen["template"] is None and isinstance(seen["telluric"], LineTemplate)
    assert (seen["lsf"], seen["radial_velocity"], seen["vsini"], seen["free"]) == (55000, None, None, ())
    assert seen["window"] is None


def test_barycentric_wavelengths_move_the_tellurics(folder, tmp_path, capsys):
    table = QTable.read(folder / "order.ecsv")
    table["wavelength"] *= 1 + 15.0 / 299_792.458
    table.meta["frame"] = "barycentric"
    table.write(tmp_path / "order.ecsv")
    asked = ["fit", tmp_path / "order.ecsv", folder / "star.asdf", "--telluric", folder / "sky.asdf", "--rv", 25,
             "--vsini", 3, "--lsf", RESOLVING_POWER, "-o", tmp_path / "fit.asdf", "--overwrite"]  # fmt: skip
    assert "barycentric_velocity must be given" in refused(capsys, *asked)
    results = []
    for meta, more in (({}, ("--barycentric-velocity", 15)), ({"barycentric_velocity": 15.0}, ())):
        table.meta.update(meta)
        table.write(tmp_path / "order.ecsv", overwrite=True)
        run(*asked, *more)
        fit = SpectrumFit.read(tmp_path / "fit.asdf")
        assert fit.observed.meta["file"] == "order.ecsv"
        results.append(dict(zip(fit.parameters["name"], fit.parameters["value"], strict=True)))
        assert abs(results[-1]["radial_velocity"] - VELOCITY - 15.0) < 0.1
        assert fit.fit_info["chi2"] / fit.fit_info["dof"] < 1.3
    assert results[0] == results[1]


# ---------------------------------------------------------------------------------------------------------------- info


@pytest.mark.parametrize(("meta", "text"), [({"MEDIUM": "air"}, "in vacuum (medium: air)"),
                                            ({}, "in vacuum (medium not said, taken as: vacuum)")])  # fmt: skip
def test_info_of_the_medium(folder, tmp_path, capsys, meta, text):
    table = QTable.read(folder / "star.ecsv")
    table.meta.update(meta)
    table.write(tmp_path / "star.ecsv")
    run("info", tmp_path / "star.ecsv")
    assert text in capsys.readouterr().out


def test_who_reads_the_output_may_stop(folder, tmp_path):
    command = f"{sys.executable} -m specutils_blase.cli info {folder / 'star.asdf'} | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")


def test_info(fitted, capsys):
    for name, expected in {
        "star.asdf": ["a template", "lines", "10559.99 to 10600.01", "blackbody of 4700 K", "converged"],
        "fit.asdf": ["a fit", "radial_velocity", "km / s", "chi2 / dof", "494 used, 6 ignored", "telluric"],
        "lines.ecsv": ["a line table", "equivalent width [mA]", "star"],
        "star.ecsv": ["a spectrum", "4001, 0 of them", "10560.00 to 10600.00", "erg / (Angstrom s cm2)"],
    }.items():
        run("info", fitted / name)
        out = capsys.readouterr().out
        for text in expected:
            assert text in out, (name, text)


def test_info_as_a_program(folder):
    command = [sys.executable, "-m", "specutils_blase.cli", "info", str(folder / "order.ecsv")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0
    assert re.search(r"pixels +500, 6 of them not usable", result.stdout)
    (warning,) = result.stderr.splitlines()
    assert warning.startswith("specutils-blase: warning: FILE: 6 of 500 pixels are ignored")


# --------------------------------------------------------------------------------------------------------------- errors


def test_unusable_input(folder, tmp_path, capsys):
    out = tmp_path / "out.asdf"
    (tmp_path / "bare.csv").write_text("wavelength,flux\n5000,1\n5001,1\n5002,1\n")
    (tmp_path / "cut.asdf").write_bytes((folder / "star.asdf").read_bytes()[:3000])
    order, star = folder / "order.ecsv", folder / "star.asdf"
    cases = {
        ("clone", "nothing.fits", "-o", out): "nothing.fits does not exist; name a spectrum",
        ("info", "nothing.fits"): "nothing.fits does not exist",
        ("clone", tmp_path / "bare.csv", "-o", out): "--wavelength-unit",
        ("fit", order, order, "-o", out): "ASDF",
        ("fit", order, tmp_path / "cut.asdf", "-o", out): "truncated or damaged",
        ("info", tmp_path / "cut.asdf"): "truncated or damaged",
        ("fit", order, tmp_path / "none.asdf", "-o", out): "none.asdf; check its folder and its name",
        ("fit", order, "-o", out): "TEMPLATE or --telluric must be given",
        ("fit", order, star, "-o", out, "--lsf", "none", "--free-lsf"): "--lsf must be a number to be free",
        ("fit", order, star, "-o", out, "--vsini", 0): "vsini must be",
        ("fit", order, star, "-o", out, "--rv", 3000): "cover",
        ("clone", folder / "star.ecsv", "-o", out, "--teff", -4700): "teff must be",
        ("clone", folder / "star.ecsv", "-o", out, "--prominence", 0.99): "prominence",
        ("clone", folder / "star.ecsv", "-o", out, "--window", 3, 4): "window must contain pixels",
        ("clone", folder / "star.ecsv", "-o", tmp_path / "no" / "a.asdf"): "must lie in a directory that exists",
        ("clone", folder / "star.ecsv", "-o", tmp_path): "got the directory",
        ("clone", folder / "star.ecsv", "-o", out, "--plot", tmp_path / "a.bmp"): "a picture must end in one of",
        ("fit", order, star, "-o", out, "--format", "nonsense"): "cannot be read",
        ("fit", order, star, "-o", out, "--flux-unit", "parsnip"): "--flux-unit must be a unit of astropy",
    }
    for arguments, message in cases.items():
        assert message in refused(capsys, *arguments), arguments
    assert not out.exists()


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"specutils-blase {__version__}\n"


def test_unusable_arguments(capsys):
    assert "required: -o/--output" in unparsable(capsys, "clone", "a.fits")
    assert "invalid choice: 'fly'" in unparsable(capsys, "fly")
    said = unparsable(capsys, "fit", "a", "b", "-o", "c", "--free", "sigma")
    assert "must be names among strength, fwhm, x_0 joined by commas, or none, got 'sigma'" in said
    assert "invalid whole number >= 1 value: '0'" in unparsable(capsys, "clone", "a", "-o", "b", "--passes", "0")
    for value in ("abc", "-5", "0", "nan", "inf", "None"):
        message = f"--lsf: must be a resolving power, a positive number like 55000, or none, got '{value}'; see"
        assert message in unparsable(capsys, "fit", "a", "b", "-o", "c", "--lsf", value)
    assert "invalid float value: 'hot'" in unparsable(capsys, "clone", "a", "-o", "b", "--teff", "hot")


@pytest.mark.parametrize("option", ["-o", "--lines", "--plot"])
def test_outputs_are_refused_before_the_work(folder, tmp_path, capsys, monkeypatch, option):
    def never(*args, **kwargs):
        raise AssertionError("the work began")

    monkeypatch.setattr("specutils_blase.clone_spectrum", never)
    monkeypatch.setattr("specutils_blase.reading.read_input", never)
    path = tmp_path / "existing.png"
    path.write_bytes(b"old")
    outputs = {"-o": tmp_path / "a.asdf", option: path}
    arguments = ["clone", folder / "star.ecsv", *(text for pair in outputs.items() for text in pair)]
    assert f"output must name a new file, got {path}, which exists; give --overwrite" in refused(capsys, *arguments)
    assert path.read_bytes() == b"old"


def test_overwrite(folder, tmp_path):
    paths = [tmp_path / name for name in ("a.asdf", "a.ecsv", "a.png")]
    for path in paths:
        path.write_bytes(b"old")
    run("clone", folder / "sky.ecsv", "-o", paths[0], "--lines", paths[1], "--plot", paths[2], "--overwrite",
        "--passes", 1, "--continuum-degree", 0)  # fmt: skip
    assert len(LineTemplate.read(paths[0]).lines) == len(QTable.read(paths[1]))
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_demo_refuses_to_overwrite(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "clone_sources", None)  # would fail if it were called
    (tmp_path / "fit.png").write_bytes(b"old")
    assert "fit.png, which exists; give --overwrite" in refused(capsys, "demo", "--output", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["fit.png"]


def test_debug_shows_where(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        call("info", tmp_path / "nothing.fits", "--debug")
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert "Traceback" in err and "read_input" in err
    assert "error: " in err.splitlines()[0]


def test_interrupt(folder, tmp_path, capsys, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("specutils_blase.clone_spectrum", interrupted)
    assert call("clone", folder / "star.ecsv", "-o", tmp_path / "a.asdf") == 130
    assert capsys.readouterr().err.splitlines() == [
        "specutils-blase: interrupted; every file is either complete or not written"
    ]
    assert list(tmp_path.iterdir()) == []


def test_interrupt_while_writing_lines(tmp_path, monkeypatch):
    def interrupted(self, path, **kwargs):
        path.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(QTable, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cli._write_lines(QTable({"a": [1]}), tmp_path / "a.ecsv")
    assert list(tmp_path.iterdir()) == []


def test_warnings_are_one_line_each(capsys):
    with cli._short_warnings():
        for text in ("two\n  lines", "two\n  lines", "another"):
            warnings.warn(text, BlaseWarning, stacklevel=1)
    # what is said again and again is shown once
    assert capsys.readouterr().err == "specutils-blase: warning: two lines\nspecutils-blase: warning: another\n"


# ----------------------------------------------------------------------------------------------------------------- demo


def test_demo(tmp_path, capsys):
    folder = tmp_path / "new" / "folder"
    started = time.perf_counter()
    run("demo", "--output", folder, "--seed", 4)
    assert time.perf_counter() - started < 60
    out, err = capsys.readouterr()
    assert all(line.startswith("specutils-blase: warning: ") for line in err.splitlines())
    written = {path.name for path in folder.iterdir()}
    assert written == {"template.asdf", "lines.ecsv", "fit.asdf", "fit.png"}
    for name in written:
        assert f"wrote {folder / name}" in out
    fit = SpectrumFit.read(folder / "fit.asdf")
    assert fit.fit_info["status"] == "converged"
    for name in ("radial_velocity", "vsini"):
        injected, recovered, _, pull, _ = re.search(rf"^  {name} +(.*)$", out, re.MULTILINE)[1].split(maxsplit=4)
        assert abs(float(pull)) < 4
        assert float(injected) == pytest.approx(float(recovered), abs=0.5)
    number, mean, width = re.search(r"ln strength, all lines +(\d+) +(\S+) +(\S+)", out).groups()
    assert int(number) > 300
    assert abs(float(mean)) < 0.25 and 0.85 < float(width) < 1.15
    assert len(QTable.read(folder / "lines.ecsv")) == len(fit.lines)


@pytest.fixture(scope="module")
def raw(folder):
    """A file of a spectrograph with three orders, beside the templates."""
    orders = [simulate_order(simulate_star(11, lower=LOWER, upper=UPPER, n_lines=300).model, seed=k,
                             radial_velocity=VELOCITY * KMS, vsini=4 * KMS, resolving_power=RESOLVING_POWER,
                             lower=low * u.AA, upper=(low + 10) * u.AA, n_pix=200, bad_pixels=0).spectrum
              for k, low in enumerate((10565, 10574, 10584))]  # fmt: skip
    hdus = [fits.PrimaryHDU()]
    hdus[0].header["INSTRUME"] = "HPF"
    for name, rows in (("Flux", [o.flux.value for o in orders]), ("Error", [o.uncertainty.array for o in orders]),
                       ("Wavl", [o.spectral_axis.value for o in orders])):  # fmt: skip
        hdus.append(fits.ImageHDU(np.array(rows), name=f"Sci {name}"))
    fits.HDUList(hdus).writeto(folder / "raw.fits")
    return folder


class TestEchelle:
    """Files of a spectrograph are fitted as they are."""

    def test_all_orders(self, raw, capsys):
        run("fit", raw / "raw.fits", raw / "star.asdf", "--lsf", RESOLVING_POWER, "--vsini", 4, "--rv", 12, "--robust",
            "-o", raw / "raw.asdf", "--plot", raw / "raw.png", "--lines", raw / "raw.ecsv")  # fmt: skip
        fit = SpectrumFit.read(raw / "raw.asdf")
        assert len(fit.residual) == 3 and "down_weighted" in fit.fit_info
        assert set(QTable.read(raw / "raw.ecsv")["order"]) == {0, 1, 2}
        assert (raw / "raw.png").stat().st_size > 10_000
        out = capsys.readouterr().out
        assert "and 12 of single orders" in out and "order_2_continuum_0" not in out
        rows = re.findall(r"^  ([0-2]) +(\d+\.\d) to (\d+\.\d) +200 +(\S+) +(\S+) +(\S+)", out, re.MULTILINE)
        assert [(int(row[0]), float(row[1]) // 1) for row in rows] == [(0, 10565), (1, 10574), (2, 10584)]
        np.testing.assert_allclose([float(row[5]) for row in rows], fit.orders["ratio"], atol=0.006)
        assert "in the file" not in out

    def test_some_orders(self, raw, capsys):
        run("fit", raw / "raw.fits", raw / "star.asdf", "--vsini", 4, "--rv", 12, "--orders", "0,2-2", "--free", "none",
            "--wavelength-degree", 0, "-o", raw / "some.asdf")  # fmt: skip
        fit = SpectrumFit.read(raw / "some.asdf")
        assert [order.meta["order"] for order in fit.observed] == [0, 2]
        assert "order_1_wavelength_shift_0" in set(fit.parameters["name"])  # the second of those that were fitted
        assert re.search(r"order  in the file.*\n  0 +0 +10565.*\n  1 +2 +10584", capsys.readouterr().out)

    @pytest.mark.parametrize(("file", "text", "message"), [
        ("raw.fits", "1-7", "--orders must be among 0 to 2, got 3; correct it"),
        ("order.ecsv", "1", "--orders must be left out for .*order.ecsv, no file of HPF or IGRINS"),
    ])  # fmt: skip
    def test_orders_that_are_not_there(self, raw, capsys, file, text, message):
        code = call("fit", raw / file, raw / "star.asdf", "--orders", text, "-o", raw / "none.asdf")
        assert code == 2
        assert re.search(message, capsys.readouterr().err)
        assert not (raw / "none.asdf").exists()

    def test_info(self, raw, capsys):
        run("info", raw / "raw.fits")
        first, *lines = capsys.readouterr().out.splitlines()
        assert first.endswith("raw.fits: a file of HPF")
        text = "\n".join(lines)
        with fits.open(raw / "raw.fits") as hdus:
            ratio, wave = hdus["Sci Flux"].data / hdus["Sci Error"].data, hdus["Sci Wavl"].data
        for expected in ("HPF, science fibre", "orders           3", "600, 0 of them masked", "observatory\n",
                         f"{wave.min():.2f} to {wave.max():.2f} Angstrom in vacuum"):  # fmt: skip
            assert expected in text
        assert f"signal to noise  {np.median(ratio):.4g} (median)" in text
        assert [row.split() for row in lines[-3:]] == [
            [str(k), f"{wave[k, 0]:.1f}", "to", f"{wave[k, -1]:.1f}", "200", "0", f"{np.median(ratio[k]):.4g}"]
            for k in range(3)
        ]  # fmt: skip

    def test_info_of_a_state_of_blase(self, shared_data, capsys):
        run("info", shared_data / "stellar" / "blase_emulator_T4700g4p5_prom0p01_HPF.pt")
        out = capsys.readouterr().out
        assert "a state of blase" in out and "9028" in out and "8068.23 to 12818.90 Angstrom" in out
        assert "velocity" not in out

    def test_info_of_real_files(self, shared_data, capsys):
        run("info", shared_data / "echelle" / "hpf_a0v_20210212.fits")
        out = capsys.readouterr().out
        assert "observatory; -14.199 km / s are added" in out and len(out.splitlines()) == 9 + 28
        run("info", shared_data / "echelle" / "igrins_suaur_h.fits")
        out = capsys.readouterr().out
        assert "not known without uncertainties" in out and "nan" not in out

    @pytest.mark.parametrize("cut", [200, 4000, 9000])
    def test_files_that_are_cut_short(self, raw, capsys, cut):
        (raw / "cut.fits").write_bytes((raw / "raw.fits").read_bytes()[:cut])
        for arguments in (("info",), ("fit", raw / "star.asdf", "-o", raw / "none.asdf")):
            line = refused(capsys, arguments[0], raw / "cut.fits", *arguments[1:])
            assert line.endswith("cut.fits, which is cut short; fetch it again")

    @pytest.mark.parametrize("text", ["a", "3-1", "-1", "1-2-3", ""])
    def test_orders_that_are_no_numbers(self, raw, capsys, text):
        with pytest.raises(SystemExit):
            call("fit", raw / "raw.fits", raw / "star.asdf", f"--orders={text}", "-o", raw / "none.asdf")
        assert "must be numbers and ranges like 0-6,9" in capsys.readouterr().err
