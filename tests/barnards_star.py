"""The files of ``docs/tutorials/from_raw_file.rst``: the real ones where they are, simulated ones elsewhere."""

import numpy as np
from astropy import units as u
from astropy.io import fits

from specutils_blase import VoigtForest1D
from specutils_blase.simulation import scatter_lines, simulate_order, simulate_star, simulate_telluric
from tests.conftest import SHARED_DATA

# Exposure, synthetic spectrum of the star, optical depths of the air.
BARNARDS_STAR = (
    "echelle/hpf_gj699_20181003.fits",
    "stellar/m3300_9800_11000.fits.gz",
    "telluric/h2o_o2_optical_depth_8038_12849.npz",
)
N_ORDERS, N_PIX, SNR = 28, 2048, 700.0
FITTED = range(14, 18)  # the orders that have lines in a simulated exposure
COLUMN = 5.0


def real_or_simulated(folder):
    """Paths of the real files, or of simulated ones, written to a folder, where one of them is missing."""
    paths = [SHARED_DATA / name for name in BARNARDS_STAR]
    return paths if all(path.exists() for path in paths) else simulated_files(folder)


def simulated_files(folder):
    """
    Write files as the real ones are, of a star at the velocity of Barnard's, and return their paths.

    The star differs from its synthetic spectrum, as the real one does: strengths by 50 %, widths by 30 %, and a
    quarter of its lines are not in there.  There is five times as much water as in the file of optical depths.
    """
    exposure, synthetic, depths = paths = [folder / name.rpartition("/")[2] for name in BARNARDS_STAR]
    limits = {"lower": 9900 * u.AA, "upper": 10_610 * u.AA}
    star = simulate_star(1, **limits, n_lines=6000, teff=3300 * u.K)
    water = simulate_telluric(2, **limits, n_lines=60)
    star.spectrum.write(synthetic, format="tabular-fits")
    wave = water.spectrum.spectral_axis.to_value(u.AA)
    np.savez(depths, wavelength_start=wave[0], wavelength_step=wave[1] - wave[0],
             tau_h2o_pwv5mm=-np.log(water.spectrum.flux.value) / COLUMN)  # fmt: skip
    real = scatter_lines(_with_more_lines(star.model, limits), 3, strength=0.5, fwhm=0.3)
    orders = [_order(k, real, water.model) for k in range(N_ORDERS)]
    _write_hpf(exposure, *(np.stack(arrays) for arrays in zip(*orders, strict=True)))
    return paths


def _with_more_lines(model, limits):
    """The lines of a star and a third as many others."""
    other = simulate_star(4, **limits, n_lines=model.n_lines // 3, teff=3300 * u.K).model
    return VoigtForest1D(**{name: np.concatenate([getattr(each, name).quantity for each in (model, other)])
                            for name in ("x_0", "strength", "fwhm_G", "fwhm_L")})  # fmt: skip


def _order(k, star, water):
    """Wavelength [Angstrom], flux and variance [electron] of an order of HPF, and flux and variance of its sky."""
    middle = 609_825.0 / (75 - k)
    lower, upper = middle * np.array([0.99364, 1.00636])
    star, water = (star, water) if k in FITTED else (None, None)
    order = simulate_order(star, water, seed=k, lower=lower * u.AA, upper=upper * u.AA, n_pix=N_PIX, snr=SNR,
                           radial_velocity=-84.6 * u.km / u.s, vsini=3 * u.km / u.s, bad_pixels=0).spectrum  # fmt: skip
    rng = np.random.default_rng([5, k])
    airglow = np.zeros(N_PIX)
    for pixel, height in zip(rng.uniform(20, N_PIX - 20, 8), rng.uniform(0.005, 0.02, 8), strict=True):
        airglow += height * SNR**2 * np.exp(-0.5 * ((np.arange(N_PIX) - pixel) / 1.3) ** 2)
    variance = order.uncertainty.array**2
    flux = order.flux.value + airglow
    sky_variance = airglow + 25.0
    sky = airglow + np.sqrt(sky_variance) * rng.standard_normal(N_PIX)
    for values in (flux, sky):
        values[:4] = values[-4:] = np.nan  # the reference pixels of the detector
    return order.spectral_axis.to_value(u.AA), flux, variance, sky, sky_variance


def _write_hpf(path, wave, flux, variance, sky, sky_variance):
    """A file as the HPF pipeline writes it."""
    primary = fits.PrimaryHDU()
    primary.header.update(INSTRUME="HPF", OBJECT="simulated", ITIME=330.15)
    primary.header["DATE-OBS"] = "2018-10-03T01:46:19.850591"
    hdus = [primary]
    for fiber, value, square in (("Sci", flux, variance), ("Sky", sky, sky_variance)):
        for name, data in (("Flux", value), ("Variance", square), ("Wavl", wave)):
            hdus.append(fits.ImageHDU(data, name=f"{fiber} {name}"))
    fits.HDUList(hdus).writeto(path)
