"""specutils-blase galaxy: what it prints and writes is what the models say."""

import asdf
import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import StdDevUncertainty
from astropy.table import QTable
from specutils import Spectrum

from specutils_blase import cli
from specutils_blase.galaxy import EmissionLinePredictor, SpectrumAutoencoder
from tests.io.samples import make_predictor

WAVE = np.linspace(3600.0, 9200.0, 2000) * u.AA
UNIT = u.Unit("1e-17 erg / (s cm2 AA)")


@pytest.fixture
def folder(tmp_path):
    """A predictor and two galaxies."""
    make_predictor().write(tmp_path / "p.asdf")
    for k in range(2):
        flux = (2 + k + np.sin(WAVE.value / 800)) * UNIT
        QTable({"wavelength": WAVE, "flux": flux}).write(tmp_path / f"g{k}.ecsv")
    return tmp_path


def call(*arguments):
    return cli.main([str(argument) for argument in arguments])


def predicted(folder, redshift):
    tables = [QTable.read(folder / f"g{k}.ecsv") for k in range(len(redshift))]
    spectra = [Spectrum(flux=table["flux"], spectral_axis=table["wavelength"]) for table in tables]
    return EmissionLinePredictor.read(folder / "p.asdf").predict(spectra, redshift)


@pytest.mark.filterwarnings("ignore::specutils_blase.errors.BlaseWarning")
@pytest.mark.parametrize(("given", "redshift"), [((0.1, 0.2), [0.1, 0.2]), ((0.15,), [0.15, 0.15])])
def test_table(folder, capsys, given, redshift):
    files, out = [folder / f"g{k}.ecsv" for k in range(2)], folder / "lines.ecsv"
    arguments = "--predictor", folder / "p.asdf", "--redshift", ",".join(map(str, given)), "-o", out
    assert call("galaxy", "lines", *files, *arguments) == 0
    table, expected = QTable.read(out), predicted(folder, redshift)
    assert list(table["galaxy"]) == [str(path) for path in files] and table["redshift"].tolist() == redshift
    assert table.colnames == ["galaxy", "redshift", *expected.colnames]
    for name in expected.colnames[1:]:
        np.testing.assert_allclose(table[name].value, expected[name].value, rtol=1e-6)
    said = capsys.readouterr().out
    assert f"wrote {out}" in said and f"{files[1]}, redshift {redshift[1]:g}: equivalent widths" in said
    row = next(line.split() for line in said.splitlines() if line.startswith("  HALPHA"))
    exact = [expected["HALPHA" + end][0].value for end in ("", "_p16", "_p84")]
    np.testing.assert_allclose([float(text) for text in row[1:]], exact, atol=6e-4)


@pytest.mark.filterwarnings("ignore::specutils_blase.errors.BlaseWarning")
def test_options_before_spectra_and_many_galaxies_in_a_file(folder, tmp_path, capsys):
    flux = [2 + np.sin(WAVE.value / 800), 3 + np.sin(WAVE.value / 800)] * UNIT
    Spectrum(flux=flux, spectral_axis=WAVE).write(tmp_path / "many.fits", format="tabular-fits")
    QTable({"redshift": [0.1, 0.2]}).write(tmp_path / "z.ecsv")
    out = tmp_path / "lines.ecsv"
    for given in ("0.1,0.2", tmp_path / "z.ecsv"):
        arguments = ["--redshift", given, "--overwrite", "-o", out, tmp_path / "many.fits"]
        assert call("galaxy", "lines", "--predictor", folder / "p.asdf", *arguments) == 0
        table, expected = QTable.read(out), predicted(folder, [0.1, 0.2])
        assert list(table["galaxy"]) == [f"{tmp_path / 'many.fits'}, {k}" for k in range(2)]
        np.testing.assert_allclose(table["HBETA"].value, expected["HBETA"].value, rtol=1e-5)


def test_without_output_nothing_is_written(folder, capsys):
    before = sorted(folder.iterdir())
    assert call("galaxy", "lines", folder / "g0.ecsv", "--predictor", folder / "p.asdf", "--redshift", 0.1) == 0
    assert sorted(folder.iterdir()) == before and "wrote" not in capsys.readouterr().out


def test_what_the_spectrum_does_not_reach(folder, capsys):
    assert call("galaxy", "lines", folder / "g0.ecsv", "--predictor", folder / "p.asdf", "--redshift", 0.5) == 0
    out, err = capsys.readouterr()
    assert "specutils-blase: warning: 1 of 1 galaxies do not cover all bins" in err and "nan" in out


def test_info(folder, capsys):
    assert call("info", folder / "p.asdf") == 0
    out = capsys.readouterr().out
    for text in ("a predictor of emission lines", "OIII_5007", "700", "-2.214 to 5", "epochs"):
        assert text in out


def test_errors(folder, capsys):
    galaxy, predictor = folder / "g0.ecsv", folder / "p.asdf"
    counts = folder / "counts.ecsv"
    QTable({"wavelength": WAVE, "flux": np.ones(WAVE.size)}).write(counts)
    (folder / "old.ecsv").write_text("old")
    cases = {
        (galaxy, "--predictor", predictor, "--redshift", -0.1): "redshift must be finite and not negative",
        (galaxy, "--predictor", predictor, "--redshift", "nan"): "redshift must be finite and not negative",
        (galaxy, "--predictor", predictor, "--redshift", "0.1,0.2"): "redshift must have one value for each of 1 ",
        (galaxy, "--predictor", predictor, "--redshift", "0.1,a"): "--redshift must be a number, numbers with commas",
        (galaxy, "--predictor", galaxy, "--redshift", 0.1): "name an ASDF file",
        (galaxy, "--predictor", folder / "no.asdf", "--redshift", 0.1): "name a file that exists",
        (counts, "--predictor", predictor, "--redshift", 0.1): "spectrum must have a flux density",
        (galaxy, "--predictor", predictor, "--redshift", 0.1, "-o", folder / "old.ecsv"): "give --overwrite",
    }
    for arguments, message in cases.items():
        assert call("galaxy", "lines", *arguments) == 2
        assert message in capsys.readouterr().err, arguments
    assert (folder / "old.ecsv").read_text() == "old"
    for arguments in ([galaxy, "--predictor", predictor], [galaxy, "--redshift", "0.1"]):
        with pytest.raises(SystemExit) as stop:
            call("galaxy", "lines", *arguments)
        assert stop.value.code == 2 and "required" in capsys.readouterr().err


def redshifted(k, z):
    """A galaxy in a table: a slope, a line, noise."""
    rest = WAVE.value[:1200] / (1 + z)
    flux = (2 + k % 3) * (rest / 5000) ** (k % 5 / 4 - 0.5) + (k % 7) * np.exp(-0.5 * ((rest - 5000) / 15) ** 2)
    noise = np.random.default_rng(k).normal(0, 0.1, rest.size)
    error = np.full(rest.size, 0.1) * UNIT
    return QTable({"wavelength": WAVE[:1200], "flux": (flux + noise) * UNIT, "uncertainty": error})


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    z = np.random.default_rng(0).uniform(0.0, 0.2, 60)
    for k in range(60):
        redshifted(k, z[k]).write(folder / f"g{k:02}.ecsv")
    QTable({"redshift": z}).write(folder / "z.ecsv")
    files = sorted(folder.glob("g*.ecsv"))
    options = "--components", 4, "--latents", 2, "--epochs", 20, "-o", folder / "m.asdf"
    assert call("galaxy", "train", *options, "--redshift", folder / "z.ecsv", *files) == 0
    return folder, files, z


@pytest.mark.filterwarnings("ignore::specutils_blase.errors.BlaseWarning")
def test_train_and_reconstruct(survey, tmp_path, capsys):
    folder, files, z = survey
    model = SpectrumAutoencoder.read(folder / "m.asdf")
    assert model.fit_info["n_galaxies"] == 60 and model.n_latents == 2
    outputs = "-o", tmp_path / "t.ecsv", "--spectra", tmp_path / "s.asdf", "--figure", tmp_path / "f.png"
    assert call("galaxy", "reconstruct", "--model", folder / "m.asdf", *outputs, *files[:3]) == 0
    said = capsys.readouterr().out
    table = QTable.read(tmp_path / "t.ecsv")
    spectra = [Spectrum(flux=(one := QTable.read(path))["flux"], spectral_axis=one["wavelength"],
                        uncertainty=StdDevUncertainty(one["uncertainty"])) for path in files[:3]]  # fmt: skip
    found = model.fit_redshift(spectra)
    np.testing.assert_allclose(table["redshift"], found.redshift, atol=1e-6)
    np.testing.assert_allclose(table["second"], found.second, rtol=1e-3)
    np.testing.assert_allclose(table["redshift_err"], found.uncertainty, rtol=1e-3)
    assert np.abs(table["redshift"] - z[:3]).max() < 0.003
    assert list(table["galaxy"]) == [str(path) for path in files[:3]] and str(files[2]) in said
    latents = model.encode(spectra, found.redshift)
    np.testing.assert_allclose(table["latents"], latents, atol=1e-3)
    np.testing.assert_allclose(table["coverage"], latents.coverage, atol=1e-3)
    made = model.reconstruct(spectra, found.redshift)
    with asdf.open(tmp_path / "s.asdf") as file:
        for one, other in zip(file["reconstruction"], made, strict=True):
            np.testing.assert_allclose(one.flux.value, other.flux.value, rtol=1e-3)
            assert one.flux.unit == other.flux.unit and np.array_equal(one.mask, other.mask)
    assert (tmp_path / "f.png").stat().st_size > 1000
    for name in ("t.ecsv", "s.asdf", "f.png"):
        assert f"wrote {tmp_path / name}" in said
    for option, path in (("-o", "t.ecsv"), ("--spectra", "s.asdf"), ("--figure", "f.png")):
        assert call("galaxy", "reconstruct", "--model", folder / "m.asdf", option, tmp_path / path, files[0]) == 2
        assert "give --overwrite" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::specutils_blase.errors.BlaseWarning")
def test_how_to_read_is_obeyed(survey, tmp_path, capsys):
    """Every option, by itself, changes what is read or is refused."""
    folder, files, z = survey
    first = ["galaxy", "reconstruct", "--model", folder / "m.asdf", "--redshift", z[0], "-o", tmp_path / "t.ecsv"]

    def latents(*options):
        assert call(*first, "--overwrite", files[0], *options) == 0
        return QTable.read(tmp_path / "t.ecsv")["latents"][0]

    usual = latents()
    np.testing.assert_array_equal(latents("--medium", "vacuum"), usual)
    assert np.abs(latents("--medium", "air") - usual).max() > 1e-4
    np.testing.assert_allclose(latents("--columns", "wavelength", "flux", "uncertainty"), usual, rtol=1e-4, atol=1e-4)
    for option in (("--columns", "no", "such"), ("--hdu", 99), ("--wavelength-unit", "um"), ("--flux-unit", "nm")):
        assert call(*first, "--overwrite", files[0], *option) == 2
        assert "error" in capsys.readouterr().err
