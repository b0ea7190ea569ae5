"""read_input: every way a spectrum can lie in a file gives the same numbers."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty
from astropy.table import QTable, Table
from specutils import Spectrum

from specutils_blase.reading import read_input

WAVE = np.linspace(5000.0, 5001.0, 11)
FLUX = np.linspace(1.0, 2.0, 11)
SIGMA = np.linspace(0.1, 0.2, 11)
FLUX_UNIT = u.Unit("erg / (s cm2 AA)")


def full_table():
    return QTable({"wavelength": WAVE * u.AA, "flux": FLUX * FLUX_UNIT, "uncertainty": SIGMA * FLUX_UNIT})


def bare_table(**more):
    return Table({"wavelength": WAVE, "flux": FLUX, **more})


def check(spectrum, flux_unit=FLUX_UNIT, wave=WAVE * u.AA):
    np.testing.assert_allclose(spectrum.spectral_axis.to_value(u.AA), wave.to_value(u.AA), rtol=1e-12)
    np.testing.assert_allclose(spectrum.flux.value, FLUX, rtol=1e-12)
    assert spectrum.flux.unit == flux_unit


@pytest.mark.parametrize("suffix", [".fits", ".fits.gz", ".ecsv"])
def test_table_with_units(tmp_path, suffix):
    path = tmp_path / f"spectrum{suffix}"
    full_table().write(path)
    spectrum = read_input(path)
    check(spectrum)
    assert isinstance(spectrum.uncertainty, StdDevUncertainty)
    np.testing.assert_allclose(spectrum.uncertainty.array, SIGMA)
    assert not spectrum.mask.any()


@pytest.mark.parametrize(("name", "format"), [("a.csv", "ascii.csv"), ("a.txt", "ascii.basic"), ("a.dat", "ascii.tab")])
def test_text_without_units(tmp_path, name, format):
    path = tmp_path / name
    bare_table().write(path, format=format)
    check(read_input(path, wavelength_unit="Angstrom"), u.dimensionless_unscaled)
    check(read_input(path, wavelength_unit="nm", flux_unit="Jy"), u.Jy, WAVE * u.nm)


def test_given_units_replace_those_of_the_file(tmp_path):
    path = tmp_path / "a.ecsv"
    full_table().write(path)
    spectrum = read_input(path, wavelength_unit="nm", flux_unit="Jy")
    check(spectrum, u.Jy, WAVE * u.nm)
    # the uncertainty is in the unit of the flux, whatever that is
    assert spectrum.uncertainty.unit == u.Jy
    np.testing.assert_allclose(spectrum.uncertainty.array, SIGMA)


def test_uncertainty_in_its_own_unit(tmp_path):
    path = tmp_path / "a.ecsv"
    table = full_table()
    table["uncertainty"] = SIGMA * 1e3 * u.Unit("1e-3 erg / (s cm2 AA)")
    table.write(path)
    np.testing.assert_allclose(read_input(path).uncertainty.quantity.to_value(FLUX_UNIT), SIGMA)


@pytest.mark.parametrize(
    ("name", "container"),
    [
        ("Error", StdDevUncertainty),
        ("SIGMA", StdDevUncertainty),
        ("ivar", InverseVariance),
        ("VAR", VarianceUncertainty),
    ],
)
def test_kinds_of_uncertainty(tmp_path, name, container):
    path = tmp_path / "a.csv"
    bare_table(**{name: SIGMA}).write(path)
    uncertainty = read_input(path, wavelength_unit="AA").uncertainty
    assert type(uncertainty) is container
    np.testing.assert_allclose(uncertainty.array, SIGMA)


def test_named_columns(tmp_path):
    path = tmp_path / "a.csv"
    Table({"x": WAVE, "y": FLUX, "flux": 0 * FLUX, "w_ivar": SIGMA, "Ivar": SIGMA}).write(path)
    check(read_input(path, wavelength_unit="AA", columns=["x", "y"]), u.dimensionless_unscaled)
    spectrum = read_input(path, wavelength_unit="AA", columns=["x", "y", "w_ivar"])
    assert type(spectrum.uncertainty) is StdDevUncertainty  # its name is not one that is known
    spectrum = read_input(path, wavelength_unit="AA", columns=["x", "y", "Ivar"])
    assert type(spectrum.uncertainty) is InverseVariance
    with pytest.raises(ValueError, match=r"--columns must be two or three columns of .*got x, z; it has \['x', 'y'"):
        read_input(path, columns=["x", "z"])
    with pytest.raises(ValueError, match="two or three"):
        read_input(path, columns=["x"])


def test_bad_pixels(tmp_path):
    path = tmp_path / "a.ecsv"
    table = Table(full_table(), masked=True)
    table["flux"].mask[2] = True
    table["uncertainty"].mask[3] = True
    table["flux"][4] = np.nan
    table["mask"] = np.arange(11) == 5
    table.write(path)
    np.testing.assert_array_equal(np.flatnonzero(read_input(path).mask), [2, 3, 4, 5])


def test_whole_spectrum_in_one_row(tmp_path):
    path = tmp_path / "eso.fits"
    columns = [
        fits.Column("WAVE", "11D", unit="Angstrom", array=WAVE[np.newaxis]),
        fits.Column("FLUX", "11D", unit="erg/s/cm2/Angstrom", array=FLUX[np.newaxis]),
        fits.Column("ERR", "11D", unit="erg/s/cm2/Angstrom", array=SIGMA[np.newaxis]),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(path)
    spectrum = read_input(path)
    check(spectrum)
    np.testing.assert_allclose(spectrum.uncertainty.array, SIGMA)


def test_choice_of_hdu(tmp_path):
    path = tmp_path / "a.fits"
    other = fits.BinTableHDU(QTable({"wavelength": WAVE * u.AA, "flux": 0 * FLUX}))
    fits.HDUList([fits.PrimaryHDU(), other, fits.BinTableHDU(full_table(), name="SCIENCE")]).writeto(path)
    assert not read_input(path).flux.value.any()  # the first table
    check(read_input(path, hdu="2"))
    check(read_input(path, hdu="SCIENCE"))
    for missing in ("99", "NONE"):
        with pytest.raises(ValueError, match="--hdu must be one of .*, which has PRIMARY, 1, SCIENCE, got"):
            read_input(path, hdu=missing)
    full_table().write(tmp_path / "a.ecsv")
    with pytest.raises(ValueError, match="--hdu must be left out for .*, which is no FITS file"):
        read_input(tmp_path / "a.ecsv", hdu=1)


def test_image_with_wavelengths_in_the_header(tmp_path):
    path = tmp_path / "image.fits"
    header = fits.Header({"CTYPE1": "WAVE", "CUNIT1": "Angstrom", "CRVAL1": 5000.0, "CDELT1": 0.1, "CRPIX1": 1.0})
    header["BUNIT"] = "Jy"
    fits.PrimaryHDU(FLUX, header).writeto(path)
    check(read_input(path), u.Jy)
    check(read_input(path, flux_unit="mJy"), u.mJy)
    with pytest.raises(ValueError, match=r"--wavelength-unit must be left out for .*which gives its own \(m\)"):
        read_input(path, wavelength_unit="nm")
    check(read_input(path, format="wcs1d-fits"), u.Jy)


def test_what_specutils_wrote(tmp_path):
    path = tmp_path / "a.fits"
    Spectrum(flux=FLUX * u.Jy, spectral_axis=WAVE * u.AA, uncertainty=StdDevUncertainty(SIGMA)).write(path)
    spectrum = read_input(path)
    check(spectrum, u.Jy)
    np.testing.assert_allclose(spectrum.uncertainty.array, SIGMA)


def test_medium(tmp_path):
    path, declared = tmp_path / "a.ecsv", tmp_path / "b.ecsv"
    full_table().write(path)
    table = full_table()
    table.meta["wavelength_medium"] = "air"
    table.write(declared)
    assert "wavelength_medium" not in read_input(path).meta
    assert read_input(path, medium="air").meta["wavelength_medium"] == "air"
    assert read_input(declared).meta["wavelength_medium"] == "air"
    assert read_input(declared, medium="vacuum").meta["wavelength_medium"] == "vacuum"


def test_frequencies(tmp_path):
    path = tmp_path / "a.ecsv"
    QTable({"frequency": (WAVE * u.AA).to(u.THz, u.spectral()), "flux": FLUX * u.Jy}).write(path)
    np.testing.assert_allclose(read_input(path).wavelength.to_value(u.AA), WAVE, rtol=1e-12)


def test_errors_say_what_to_do(tmp_path):
    no_unit, no_flux, text, words = (tmp_path / name for name in ("a.csv", "b.csv", "c.xyz", "d.csv"))
    bare_table().write(no_unit)
    Table({"wavelength": WAVE, "thing": FLUX}).write(no_flux)
    text.write_text("nothing that can be read")
    words.write_text("wavelength,flux\n5000,high\n5001,low\n")
    with pytest.raises(FileNotFoundError, match="nothing.fits does not exist"):
        read_input(tmp_path / "nothing.fits")
    with pytest.raises(FileNotFoundError, match="is a directory"):
        read_input(tmp_path)
    with pytest.raises(
        u.UnitsError, match=r"column 'wavelength' of .*a.csv must have a unit .*got 'none'.*--wavelength"
    ):
        read_input(no_unit)
    with pytest.raises(u.UnitsError, match="got 'Jy'"):
        read_input(no_unit, wavelength_unit="Jy")
    with pytest.raises(ValueError, match=r"its columns are \['wavelength', 'thing'\], name two with --columns"):
        read_input(no_flux, wavelength_unit="AA")
    with pytest.raises(
        ValueError, match=r"c.xyz cannot be read as a table \(.*\) nor as a spectrum \(.*\); give --form"
    ):
        read_input(text)
    with pytest.raises(TypeError, match="column 'flux' must hold numbers, got <U4; name another with --columns"):
        read_input(words, wavelength_unit="AA")


@pytest.mark.parametrize(
    ("name", "n_pix", "unit"),
    [
        ("stellar/wasp69_like.fits.gz", 24001, FLUX_UNIT),
        ("echelle/wasp69_hpf_order5.fits", 2048, u.dimensionless_unscaled),
        ("telluric/telfit_hband.fits.gz", 97424, u.dimensionless_unscaled),
        ("galaxy/sdss_gelato_spec-0295-51585-0596.fits", 3844, 1e-17 * FLUX_UNIT),
    ],
)
def test_real_files(shared_data, name, n_pix, unit):
    spectrum = read_input(shared_data / name)
    assert spectrum.flux.shape == (n_pix,)
    assert spectrum.flux.unit == unit
    assert spectrum.spectral_axis.unit == u.AA


@pytest.mark.parametrize("suffix", [".fits", ".ecsv"])
def test_metadata(tmp_path, suffix):
    table, path = full_table(), tmp_path / f"spectrum{suffix}"
    table.meta = {"FRAME": "barycentric", "BARYCENTRIC_VELOCITY": -12.5, "OBJECT": "WASP-69", "MEDIUM": "Air"}
    if suffix == ".fits":  # names of more than eight letters make astropy say so
        with pytest.warns(fits.verify.VerifyWarning):
            table.write(path)
    else:
        table.write(path)
    meta = read_input(path).meta
    assert (meta["frame"], meta["wavelength_medium"], meta["file"]) == ("barycentric", "air", path.name)
    assert meta["barycentric_velocity"] == -12.5 * u.km / u.s
    assert meta["header"]["OBJECT"] == "WASP-69"
    assert read_input(path, medium="vacuum").meta["wavelength_medium"] == "vacuum"


def test_metadata_of_others(tmp_path):
    table, path = full_table(), tmp_path / "spectrum.ecsv"
    table.meta = {"MEDIUM": "interstellar", "barycentric_velocity": 7000.0 * u.m / u.s}
    table.write(path)
    meta = read_input(path).meta
    assert "wavelength_medium" not in meta and "frame" not in meta
    assert meta["barycentric_velocity"] == 7 * u.km / u.s
    full_table().write(tmp_path / "bare.ecsv")
    assert read_input(tmp_path / "bare.ecsv").meta == {"file": "bare.ecsv"}
