"""The files of ``docs/tutorials/from_file_to_template.rst``: the real ones where they are, simulated ones elsewhere."""

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable

from specutils_blase import VoigtForest1D
from specutils_blase.simulation import scatter_lines, simulate_order, simulate_star
from tests.conftest import SHARED_DATA

# One order of an exposure, synthetic spectrum of the star.
WASP69 = ("echelle/wasp69_hpf_order5.fits", "stellar/wasp69_like.fits.gz")
N_PIX, N_BAD, SNR = 2048, 26, 420.0


def real_or_simulated(folder):
    """Paths of the real files, or of simulated ones, written to a folder, where one of them is missing."""
    paths = [SHARED_DATA / name for name in WASP69]
    return paths if all(path.exists() for path in paths) else simulated_files(folder)


def simulated_files(folder):
    """
    Write files as the real ones are, of a star at the velocity of WASP-69, and return their paths.

    The star differs from its synthetic spectrum, as the real one does: strengths by 50 %, widths by 20 %, and a
    twentieth of its lines are not in there.
    """
    exposure, synthetic = paths = [folder / name.rpartition("/")[2] for name in WASP69]
    limits = {"lower": 8600 * u.AA, "upper": 8840 * u.AA, "teff": 4715 * u.K}
    star = simulate_star(1, **limits, n_lines=2000)
    _write(synthetic, {"MEDIUM": "vacuum"}, wavelength=u.Quantity(star.spectrum.spectral_axis),
           flux=star.spectrum.flux)  # fmt: skip
    more = simulate_star(2, **limits, n_lines=100).model
    both = VoigtForest1D(**{name: np.concatenate([getattr(model, name).quantity for model in (star.model, more)])
                            for name in ("x_0", "strength", "fwhm_G", "fwhm_L")})  # fmt: skip
    order = simulate_order(scatter_lines(both, 3, strength=0.5, fwhm=0.2), seed=4, lower=8656.14 * u.AA,
                           upper=8768.07 * u.AA, n_pix=N_PIX, snr=SNR, radial_velocity=-9.3 * u.km / u.s,
                           vsini=2.2 * u.km / u.s, bad_pixels=0).spectrum  # fmt: skip
    flux, error = order.flux.value / SNR**2, order.uncertainty.array / SNR**2
    for values in (flux, error):
        values[-N_BAD:] = np.nan  # the end of the order
    _write(exposure, {"OBJECT": "simulated", "MEDIUM": "vacuum", "FRAME": "barycentric"},
           wavelength=u.Quantity(order.spectral_axis), flux=flux, uncertainty=error)  # fmt: skip
    return paths


def _write(path, header, **columns):
    """A table in the first extension of a FITS file."""
    hdu = fits.table_to_hdu(QTable(columns))
    hdu.header.update(header)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
