"""Readers of echelle files: against files made here, against the real ones, and of files that are broken."""

import contextlib
import gzip
import subprocess
import sys

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from specutils import SpectrumList

from specutils_blase.io import read_hpf, read_igrins
from specutils_blase.io.echelle import reader_of

CUT = "path must name a whole file, got .*a.fits(.gz)?, which is cut short; fetch it again"
N_ORDERS, N_PIX = 3, 40
RNG = np.random.default_rng(0)
WAVE = 8100.0 + 100.0 * np.arange(N_ORDERS)[:, None] + 0.05 * np.arange(N_PIX)
FLUX = RNG.uniform(90, 110, WAVE.shape)
SIGMA = RNG.uniform(1, 2, WAVE.shape)


def hpf_file(path, kind="Error", header=(("BRVCORR", -14198.9),), flux=FLUX, sigma=SIGMA, wave=WAVE):
    hdus = [fits.PrimaryHDU()]
    hdus[0].header.extend([("INSTRUME", "HPF"), *header])
    for fiber, factor in (("Sci", 1.0), ("Sky", 0.1), ("Cal", 0.2)):
        error = factor * sigma if kind == "Error" else (factor * sigma) ** 2
        for name, data in (("Flux", factor * flux), (kind, error)):
            hdus.append(fits.ImageHDU(data.astype(">f4"), name=f"{fiber} {name}"))
        hdus.append(fits.ImageHDU(wave.astype(">f8"), name=f"{fiber} Wavl"))
    fits.HDUList(hdus).writeto(path)
    return path


def igrins_file(path, data, wave=WAVE / 1e4, instrument="IGRINS"):
    hdus = [fits.PrimaryHDU(data.astype(">f4"))]
    hdus[0].header["INSTRUME"] = instrument
    if wave is not None:
        hdus.append(fits.ImageHDU(wave))
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.mark.parametrize("kind", ["Error", "Variance"])
@pytest.mark.parametrize(("fiber", "factor"), [("science", 1.0), ("sky", 0.1)])
def test_hpf(tmp_path, kind, fiber, factor):
    orders = read_hpf(hpf_file(tmp_path / "a.fits", kind), fiber)
    assert isinstance(orders, SpectrumList) and len(orders) == N_ORDERS
    for k, order in enumerate(orders):
        np.testing.assert_allclose(order.spectral_axis.to_value(u.AA), WAVE[k], rtol=1e-14)
        np.testing.assert_allclose(order.flux.value, factor * FLUX[k], rtol=1e-6)
        np.testing.assert_allclose(order.uncertainty.array, factor * SIGMA[k], rtol=1e-6)
        assert order.meta["order"] == k and order.meta["fiber"] == fiber
        assert order.meta["wavelength_medium"] == "vacuum" and order.meta["frame"] == "observatory"
        assert order.meta["barycentric_velocity"].to_value(u.km / u.s) == pytest.approx(-14.1989)
        assert not order.mask.any()


def test_bad_pixels_are_masked(tmp_path):
    flux, sigma = FLUX.copy(), SIGMA.copy()
    flux[0, 3], sigma[0, 5], sigma[0, 7], sigma[0, 9] = np.nan, 0.0, np.nan, -1.0
    order = read_hpf(hpf_file(tmp_path / "a.fits", flux=flux, sigma=sigma, header=()))[0]
    assert np.flatnonzero(order.mask).tolist() == [3, 5, 7, 9]
    assert "barycentric_velocity" not in order.meta


@pytest.mark.parametrize("error", ["variance", "sn", None])
def test_igrins(tmp_path, error):
    path, other = igrins_file(tmp_path / "a.spec.fits", FLUX), None
    if error is not None:
        other = tmp_path / f"a.{error}.fits"
        igrins_file(other, SIGMA**2 if error == "variance" else FLUX / SIGMA, wave=None)
    orders = read_igrins(path, other)
    np.testing.assert_allclose(orders[1].spectral_axis.to_value(u.AA), WAVE[1], rtol=1e-12)
    assert orders[1].flux.unit == u.ct
    if error is None:
        assert orders[1].uncertainty is None
    else:
        np.testing.assert_allclose(orders[1].uncertainty.array, SIGMA[1], rtol=1e-5)


def test_igrins_wavelengths_of_another_file(tmp_path):
    path = igrins_file(tmp_path / "a.spec.fits", FLUX, wave=None)
    with pytest.raises(ValueError, match="wavelength_path must be given, got a file without wavelengths"):
        read_igrins(path)
    other = tmp_path / "a.wave.fits"
    fits.PrimaryHDU(WAVE / 10).writeto(other)
    np.testing.assert_allclose(read_igrins(path, None, other)[2].spectral_axis.to_value(u.AA), WAVE[2], rtol=1e-12)


def test_orders_without_wavelengths_are_left_out(tmp_path):
    wave = WAVE / 1e4
    wave[1], wave[2, :4] = 0.0, np.nan
    orders = read_igrins(igrins_file(tmp_path / "a.fits", FLUX, wave=wave))
    assert [order.meta["order"] for order in orders] == [0, 2]
    assert orders[1].flux.size == N_PIX - 4


def test_they_are_formats_of_specutils(tmp_path):
    hpf, igrins = hpf_file(tmp_path / "a.fits"), igrins_file(tmp_path / "b.fits", FLUX)
    assert len(SpectrumList.read(str(hpf))) == N_ORDERS
    assert SpectrumList.read(hpf, format="HPF", fiber="sky")[0].meta["fiber"] == "sky"
    assert SpectrumList.read(str(igrins))[0].meta["instrument"] == "IGRINS"


@pytest.mark.parametrize("lines", [
    "import specutils; import specutils_blase.io",
    "import specutils_blase.io; specutils_blase.io.read_hpf",
    "from specutils_blase import fit_spectrum",
])  # fmt: skip
def test_registered_in_any_sequence_of_imports(lines):
    code = (f"{lines}; from specutils import SpectrumList; from astropy.io.registry import get_formats; "
            "assert {'HPF', 'IGRINS'} <= set(get_formats(SpectrumList)['Format'])")  # fmt: skip
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_the_files_of_asdf_do_not_need_specutils():
    code = "import sys, specutils_blase.io.asdf.extension; assert 'specutils' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


class TestBrokenFiles:
    def test_cut_short(self, tmp_path):
        """Wherever it is: in the first header, after it, in and after the headers and the data of extensions."""
        path = hpf_file(tmp_path / "a.fits")
        content = path.read_bytes()
        with fits.open(path) as hdus:
            places = [hdu.fileinfo() for hdu in hdus]
        ends = [(place["hdrLoc"], place["datLoc"], place["datLoc"] + place["datSpan"]) for place in places]
        cuts = {81, 500, len(content) - 1}
        for start, data, end in ends:
            cuts |= {start + 1, start + 2000, data, data + 100, end - 1}
        cuts |= {end for _, _, end in ends[:3]}  # the wavelengths of the science fibre are the third extension
        for cut in sorted(cuts - {1, len(content)}):
            path.write_bytes(content[:cut])
            with pytest.raises(ValueError, match=CUT):
                read_hpf(path)
            with contextlib.suppress(ValueError):  # of a first header that does not end
                assert reader_of(path) is read_hpf

    @pytest.mark.parametrize("cut", [100, 2000, 2900, 5770, 6000, 9000, -1])
    def test_cut_short_of_igrins(self, tmp_path, cut):
        path = igrins_file(tmp_path / "a.fits", FLUX)
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(ValueError, match=CUT):
            read_igrins(path)

    def test_cut_short_and_packed(self, tmp_path):
        content = gzip.compress(hpf_file(tmp_path / "a.fits").read_bytes())
        path = tmp_path / "a.fits.gz"
        for cut in (200, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:cut])
            with pytest.raises(ValueError, match=CUT):
                read_hpf(path)
        path.write_bytes(content)
        assert len(read_hpf(path)) == N_ORDERS

    def test_a_file_of_hpf_that_is_not_reduced_is_not_cut(self, tmp_path):
        frame = fits.PrimaryHDU(FLUX)
        frame.header["INSTRUME"] = "HPF"
        frame.writeto(tmp_path / "a.fits")
        with pytest.raises(ValueError, match="has no extension 'Sci Flux'; files of other instruments"):
            read_hpf(tmp_path / "a.fits")

    def test_of_something_else(self, tmp_path):
        igrins, text = igrins_file(tmp_path / "b.fits", FLUX), tmp_path / "c.fits"
        text.write_text("not a FITS file")
        with pytest.raises(ValueError, match="path must name a file of HPF, got .*b.fits, which has no extension"):
            read_hpf(igrins)
        with pytest.raises(ValueError, match="path must name a file of IGRINS, got .*d.fits, which is another"):
            read_igrins(igrins_file(tmp_path / "d.fits", FLUX, instrument="iSHELL"))
        with pytest.raises(ValueError, match="path must name a FITS file"):
            read_hpf(text)
        with pytest.raises(FileNotFoundError):
            read_hpf(tmp_path / "none.fits")
        with pytest.raises(ValueError, match='fiber must be one of .* got "star"|fiber must be one of .* got .star.'):
            read_hpf(igrins, fiber="star")

    def test_of_different_shapes(self, tmp_path):
        with pytest.raises(ValueError, match=r"path must have as many wavelengths as fluxes, \(3, 40\), got \(3, 39\)"):
            read_igrins(igrins_file(tmp_path / "a.fits", FLUX, wave=WAVE[:, 1:] / 1e4))


class TestRealFiles:
    def test_hpf(self, shared_data):
        for name in ("hpf_a0v_20210212", "hpf_gj699_20181003", "hpf_blanksky_20210825"):
            orders = read_hpf(shared_data / "echelle" / f"{name}.fits")
            assert len(orders) == 28 and all(order.flux.size == 2048 for order in orders)
            assert 8070 < orders[0].spectral_axis[0].value < 8090 < 12_780 < orders[27].spectral_axis[-1].value

    def test_igrins(self, shared_data):
        orders = read_igrins(shared_data / "echelle" / "igrins_suaur_h.fits")
        ranges = [order.spectral_axis.to_value(u.AA) for order in orders]
        assert len(orders) == 28 and 14_000 < min(r.min() for r in ranges) < max(r.max() for r in ranges) < 19_000

