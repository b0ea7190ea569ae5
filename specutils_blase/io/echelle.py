"""Orders from the files of echelle spectrographs: HPF (its own pipeline and Goldilocks) and IGRINS (plp).

The readers are formats of `SpectrumList.read` as well, "HPF" and "IGRINS".
"""

import io
import os
import warnings
from contextlib import contextmanager

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import StdDevUncertainty
from astropy.utils.data import get_readable_fileobj
from astropy.utils.exceptions import AstropyUserWarning
from specutils import Spectrum, SpectrumList
from specutils.io.registers import data_loader

from specutils_blase.errors import explain

__all__ = ["read_hpf", "read_igrins", "reader_of"]

# The fibres of HPF, and what their extensions begin with.
FIBERS = {"science": "Sci", "sky": "Sky", "calibration": "Cal"}
# What astropy says of files that are cut, for which there are errors here.
CUT_WARNINGS = "File may have been truncated|Error validating header for HDU"
# How the first and any other header of a FITS file begin.
FIRST, EXTENSION = b"SIMPLE  =", b"XTENSION"


def read_hpf(path, fiber="science"):
    """
    The 28 orders of a file of the Habitable-zone Planet Finder.

    Parameters
    ----------
    path : str or path-like
        As written by the HPF pipeline (with variances) or by Goldilocks (with errors).
    fiber : {"science", "sky", "calibration"}

    Returns
    -------
    SpectrumList
        In the sequence of the file.  Wavelengths are in vacuum and as observed on the ground; pixels without a finite
        flux and a positive variance are masked.  ``meta`` holds ``order`` (its number), ``fiber``, ``header``,
        ``wavelength_medium``, ``frame`` ("observatory") and, where the header has it, ``barycentric_velocity``: what
        has to be added to a velocity that is measured here to give that against the barycentre of the solar system.

    Raises
    ------
    ValueError
        If the file is none of HPF, or is cut short.

    Examples
    --------
    A small file as Goldilocks writes them, of two orders:

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from astropy.io import fits
    >>> from specutils_blase.io import read_hpf
    >>> wave = np.stack([np.linspace(8100, 8110, 50), np.linspace(8170, 8180, 50)])
    >>> hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.full((2, 50), 900.0), name="Sci Flux"),
    ...                      fits.ImageHDU(np.full((2, 50), 30.0), name="Sci Error"),
    ...                      fits.ImageHDU(wave, name="Sci Wavl")])
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "Goldilocks_20210212T072837.spectra.fits"
    ...     hdus.writeto(path)
    ...     orders = read_hpf(path)
    >>> for order in orders:
    ...     print(order.meta["order"], order.spectral_axis[[0, -1]], order.flux[0], order.uncertainty.array[0])
    0 [8100. 8110.] Angstrom 900.0 electron 30.0
    1 [8170. 8180.] Angstrom 900.0 electron 30.0
    """
    if fiber not in FIBERS:
        raise ValueError(explain("fiber", f"be one of {tuple(FIBERS)}", repr(fiber), '"science" is the default'))
    name = FIBERS[fiber]
    with _opened(path) as hdus:
        names = {hdu.name.upper() for hdu in hdus}
        kind = "Error" if f"{name} Error".upper() in names else "Variance"
        needed = [f"{name} Flux", f"{name} {kind}", f"{name} Wavl"]
        if missing := [item for item in needed if item.upper() not in names]:
            if _begins_like_hpf(hdus):  # cut between two extensions, or in the header of one
                raise _cut_short(path)
            raise ValueError(explain("path", "name a file of HPF", f"{path}, which has no extension {missing[0]!r}",
                                     "files of other instruments have other readers"))  # fmt: skip
        flux, error, wave = (_array(path, hdus[item]) for item in needed)
        header = hdus[0].header.copy()
    with np.errstate(invalid="ignore"):
        sigma = error if kind == "Error" else np.sqrt(np.where(error > 0, error, np.nan))
    meta = {"fiber": fiber, "header": header, "instrument": "HPF"}
    if "BRVCORR" in header:
        meta["barycentric_velocity"] = float(header["BRVCORR"]) * u.m / u.s
    return _orders(path, wave * u.AA, flux * u.electron, sigma, meta)


def read_igrins(path, error_path=None, wavelength_path=None):
    """
    The orders of one band of a file of the IGRINS pipeline (plp).

    Parameters
    ----------
    path : str or path-like
        A ``.spec.fits`` file: the flux, and in its second extension the wavelengths in micron.
    error_path : str or path-like, optional
        The ``.variance.fits`` file, or the ``.sn.fits`` file of the ratio of signal to noise.
    wavelength_path : str or path-like, optional
        The ``.wave.fits`` file (nanometre), where ``path`` has no wavelengths.

    Returns
    -------
    SpectrumList
        In the sequence of the file, without uncertainties unless ``error_path`` is given; ``meta`` as in `read_hpf`.

    Raises
    ------
    ValueError
        If a file is none of IGRINS, or is cut short.

    Examples
    --------
    Small files as the pipeline writes them, of two orders:

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from astropy.io import fits
    >>> from specutils_blase.io import read_igrins
    >>> header = fits.Header({"INSTRUME": "IGRINS"})
    >>> wave = np.stack([np.linspace(1.60, 1.61, 50), np.linspace(1.62, 1.63, 50)])
    >>> flux, variance = np.full((2, 50), 900.0), np.full((2, 50), 625.0)
    >>> with TemporaryDirectory() as folder:
    ...     path, error_path = (Path(folder) / f"SDCH_20141123_0078.{kind}.fits" for kind in ("spec", "variance"))
    ...     fits.HDUList([fits.PrimaryHDU(flux, header), fits.ImageHDU(wave)]).writeto(path)
    ...     fits.PrimaryHDU(variance, header).writeto(error_path)
    ...     orders = read_igrins(path, error_path)
    >>> for order in orders:
    ...     print(order.meta["order"], order.spectral_axis[[0, -1]], order.flux[0], order.uncertainty.array[0])
    0 [16000. 16100.] Angstrom 900.0 ct 25.0
    1 [16200. 16300.] Angstrom 900.0 ct 25.0
    """
    with _opened(path) as hdus:
        if _instrument(hdus[0].header) != "IGRINS" or hdus[0].data is None:
            raise ValueError(explain("path", "name a file of IGRINS", f"{path}, which is another",
                                     "its header has INSTRUME = IGRINS, and its first extension the flux"))  # fmt: skip
        flux, header = _array(path, hdus[0]), hdus[0].header.copy()
        wave = _array(path, hdus[1]) * u.um if len(hdus) > 1 and wavelength_path is None else None
    if wave is None:
        if wavelength_path is None:
            raise ValueError(explain("wavelength_path", "be given", "a file without wavelengths",
                                     "name the .wave.fits file of the same band"))  # fmt: skip
        with _opened(wavelength_path) as hdus:
            wave = _array(wavelength_path, hdus[0]) * u.nm
    sigma = None
    if error_path is not None:
        with _opened(error_path) as hdus:
            values = _array(error_path, hdus[0])
        with np.errstate(invalid="ignore", divide="ignore"):
            sigma = np.abs(flux) / values if ".sn" in str(error_path) else np.sqrt(values)
    return _orders(path, wave.to(u.AA), flux * u.ct, sigma, {"header": header, "instrument": "IGRINS"})


def _orders(path, wave, flux, sigma, meta):
    """The rows of arrays as spectra; rows without two finite wavelengths are left out."""
    for name, values in (("wavelengths", wave), ("errors", sigma)):
        if values is not None and values.shape != flux.shape:
            raise ValueError(explain("path", f"have as many {name} as fluxes, {flux.shape}", values.shape,
                                     f"fetch {path} again, or the file that belongs to it"))  # fmt: skip
    out = SpectrumList()
    for k in range(len(flux)):
        # an echelle spectrum may be padded at its ends
        good = np.isfinite(wave[k].value) & (wave[k].value > 0)
        if np.count_nonzero(good) < 2:
            continue
        value, own_meta = flux[k][good], {**meta, "order": k, "wavelength_medium": "vacuum", "frame": "observatory"}
        bad, optional = ~np.isfinite(value.value), {}
        if sigma is not None:
            error = sigma[k][good]
            bad |= ~(np.isfinite(error) & (error > 0))
            optional["uncertainty"] = StdDevUncertainty(error)
        out.append(Spectrum(flux=value, spectral_axis=wave[k][good], mask=bad, meta=own_meta, **optional))
    return out


def _begins_like_hpf(hdus):
    """Whether extensions of HPF are all that there is, or there are none where some should follow."""
    header, names = hdus[0].header, [hdu.name.upper() for hdu in hdus[1:]]
    known = tuple(f"{fiber} ".upper() for fiber in FIBERS.values())
    return _instrument(header) == "HPF" and header["NAXIS"] == 0 and all(name.startswith(known) for name in names)


def _opened(path):
    """The HDUs of a file that is there to its end."""
    _first_header(path)
    with _stream(path) as stream:
        content = stream.read()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", CUT_WARNINGS, AstropyUserWarning)
            hdus = fits.open(io.BytesIO(content), lazy_load_hdus=False)
    except OSError as error:
        raise ValueError(explain("path", "name a FITS file", f"{path}, which cannot be read ({error})",
                                 "fetch it again")) from error  # fmt: skip
    last = hdus[-1].fileinfo()
    end = last["datLoc"] + last["datSpan"]
    begun = content[end : end + len(EXTENSION)]  # of a header that astropy leaves out because it does not end
    if len(content) < end or (begun and EXTENSION.startswith(begun)):
        raise _cut_short(path)
    return hdus


def _first_header(path):
    """The first header of a FITS file, which has to end, None of another file."""
    with _stream(path) as stream:
        if stream.read(len(FIRST)) != FIRST:
            return None
        stream.seek(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AstropyUserWarning)
                return fits.Header.fromfile(stream)
        except (OSError, ValueError) as error:
            raise _cut_short(path) from error


@contextmanager
def _stream(path):
    """The bytes of a file, unpacked if they are packed."""
    name = path.name if isinstance(path, io.IOBase) else path  # astropy hands on what it has opened, and closed
    try:
        with get_readable_fileobj(os.path.expanduser(name), encoding="binary") as stream:
            yield stream
    except EOFError as error:
        raise _cut_short(path) from error


def _cut_short(path):
    return ValueError(explain("path", "name a whole file", f"{path}, which is cut short", "fetch it again"))


def _instrument(header):
    return str(header.get("INSTRUME", "")).strip().upper()


def _array(path, hdu):
    """The data of an extension as float64 in native byte order."""
    data = hdu.data
    if data is None or data.ndim != 2:
        raise ValueError(explain("path", f"have orders and pixels in {hdu.name or 'its first extension'}",
                                 "nothing" if data is None else f"shape {data.shape}", "check its kind"))  # fmt: skip
    return np.array(data, dtype=np.float64)


def reader_of(path):
    """
    The reader for a file, by ``INSTRUME`` in its header.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    callable, or None
        None for files of other instruments, and for what is no FITS file.

    Raises
    ------
    ValueError
        If the file ends in its first header, so that no reader could read it.
    """
    readers = {"HPF": read_hpf, "IGRINS": read_igrins}
    if not str(path).lower().endswith((".fits", ".fits.gz", ".fit")):
        return None
    try:
        header = _first_header(path)
    except OSError:
        return None
    return None if header is None else readers.get(_instrument(header))


def _is_hpf(origin, *args, **kwargs):
    return _reader(args) is read_hpf


def _is_igrins(origin, *args, **kwargs):
    return _reader(args) is read_igrins


def _reader(args):
    """The reader for the file that astropy asks about."""
    path = next((a for a in args if isinstance(a, str)), None)
    return None if path is None else reader_of(path)


data_loader("HPF", identifier=_is_hpf, dtype=SpectrumList, extensions=["fits"], priority=10)(read_hpf)
data_loader("IGRINS", identifier=_is_igrins, dtype=SpectrumList, extensions=["fits"], priority=10)(read_igrins)
