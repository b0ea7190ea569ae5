"""The cameras of two galaxy surveys: their pixels, line spread functions, noise and sky."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from specutils_blase import functional
from specutils_blase.functional.constants import FWHM_PER_SIGMA, SPEED_OF_LIGHT
from specutils_blase.nn import Instrument

from .stars import STEP

__all__ = ["Camera", "SDSS_POWER", "survey_cameras"]

# Resolving power of SDSS at wavelengths [Angstrom], of two arms; from ``wdisp`` of two spectra of its first years.
SDSS_POWER = np.array([
    (3800, 1650), (4300, 1890), (4800, 2040), (5300, 2170), (5750, 2260), (5950, 1920), (6300, 1950), (6800, 2060),
    (7300, 2170), (7800, 2270), (8300, 2350), (8800, 2430), (9200, 2490)], dtype=float)  # fmt: skip
# Standard deviation of the noise between the lines of the sky [1e-17 erg / (s cm2 Angstrom)] at wavelengths, up to a
# factor: means of the inverse variances of two SDSS galaxies, and those of a DESI galaxy.
SDSS_NOISE = np.array([
    (3800, 2.6), (4050, 2.1), (4300, 1.85), (4800, 1.6), (5300, 1.5), (5800, 1.4), (6300, 1.2), (7000, 1.15),
    (7500, 1.2), (8000, 1.3), (8500, 1.55), (8800, 1.75), (9200, 2.1)])  # fmt: skip
DESI_NOISE = {
    "b": np.array([(3600, 1.5), (3740, 1.0), (4010, 0.61), (4290, 0.46), (4560, 0.39), (4840, 0.32), (5110, 0.29),
                   (5390, 0.27), (5700, 0.26), (5800, 0.35)]),
    "r": np.array([(5760, 0.4), (5800, 0.21), (6110, 0.18), (6340, 0.16), (6570, 0.15), (7040, 0.13), (7560, 0.13),
                   (7620, 0.2)]),
    "z": np.array([(7520, 0.2), (7570, 0.12), (7950, 0.11), (8240, 0.10), (9100, 0.09), (9400, 0.11), (9824, 0.12)]),
}  # fmt: skip
# Standard deviation of the line spread function, from the moments of resolution matrices [Angstrom].
DESI_SIGMA = {"b": (0.685, 0.695), "r": (0.632, 0.648), "z": (0.725, 0.765)}
# First pixel, number and width of the pixels, and how many diagonals a resolution matrix has.
DESI_PIXELS = {"b": (3600.0, 2751), "r": (5760.0, 2326), "z": (7520.0, 2881)}
DESI_WIDTH, N_DIAGONALS = 0.8, 11
# Where the sky is so bright that the noise rises by a factor: wavelength [Angstrom], factor (a DESI galaxy again).
SKY_LINES = np.array([
    (5578.9, 3.0), (5891.6, 1.7), (5897.6, 1.5), (6302.0, 3.1), (6365.5, 2.2), (6865.7, 1.8), (6951.0, 1.7),
    (7246.0, 2.0), (7277.9, 2.5), (7318.1, 2.3), (7342.4, 2.3), (7371.1, 2.2), (7525.6, 2.0), (7573.5, 1.8),
    (7715.0, 2.2), (7719.7, 2.2), (7752.6, 2.6), (7796.0, 2.3), (7823.5, 2.5), (7855.3, 2.7), (7872.4, 2.0),
    (7891.8, 2.0), (7915.5, 3.0), (7922.9, 2.1), (7966.8, 2.7), (7995.7, 2.8), (8027.8, 2.4), (8064.5, 1.9),
    (8290.7, 2.6), (8301.3, 2.7), (8346.6, 4.5), (8355.0, 2.5), (8384.7, 2.2), (8401.6, 3.8), (8417.5, 2.4),
    (8432.7, 4.1), (8454.7, 2.3), (8467.6, 3.4), (8507.0, 2.5), (8764.0, 3.1), (8770.1, 3.5), (8780.5, 3.8),
    (8793.5, 2.2), (8829.6, 6.2), (8838.2, 3.2), (8869.9, 2.6), (8888.0, 5.2), (8905.6, 2.9), (8922.0, 5.2),
    (8945.6, 2.6), (8960.6, 4.7), (8990.5, 2.9), (9003.6, 3.4), (9052.1, 2.3), (9310.3, 4.6), (9316.2, 5.5),
    (9326.2, 7.6), (9340.5, 3.3), (9378.7, 9.7), (9404.4, 2.3), (9421.8, 3.2), (9442.1, 8.7), (9461.8, 4.7),
    (9479.2, 7.2), (9505.0, 4.3), (9521.6, 4.8), (9555.0, 3.4), (9569.8, 4.9), (9623.0, 2.8), (9702.0, 3.2),
    (9722.4, 3.6), (9740.6, 2.3), (9793.7, 6.5), (9802.3, 3.4)])  # fmt: skip
# Light of the sky in a fibre, dark and without its lines [1e-17 erg / (s cm2 Angstrom)]: 21 mag / arcsec2 in r, fibres
# of 3 and 1.5 arcsec. A source as bright doubles the variance.
SKY_LIGHT = {"sdss": 8.0, "desi": 2.0}
# Part of the variance that lines of the sky add by which they are subtracted wrongly, all pixels of a line alike.
WRONG_SKY = 0.3
# Beyond this many standard deviations a line has no light.
REACH = 6.0
# Velocity within which everything that reaches a pixel comes from, but 1e-7 of it [km/s]: dispersion and resolution.
MARGIN = 2400.0


@dataclass(frozen=True, eq=False)
class Camera:
    """
    Pixels and what blurs and disturbs them.

    Parameters
    ----------
    band : str
    wave : ndarray, shape (n_pix,) [Angstrom]
        Centres of the pixels, in vacuum.
    instrument : Instrument
        From its grid to the pixels.
    resolution : ndarray, shape (N_DIAGONALS, n_pix), or None
        DESI's matrix, which acts on pixels; None where the instrument has the line spread function.
    noise : ndarray, shape (n_pix,)
        Standard deviation of the noise between lines of the sky, up to a factor.
    sky : ndarray, shape (n_sky, n_pix)
        The same of each line of the sky.
    sky_light : float
        Flux of a source that doubles the variance between lines of the sky.
    """

    band: str
    wave: np.ndarray
    instrument: Instrument
    resolution: np.ndarray | None
    noise: np.ndarray
    sky: np.ndarray
    sky_light: float

    @property
    def grid(self):
        """First wavelength and number of samples of what `observe` takes, STEP apart."""
        return float(self.instrument.wave[0]), len(self.instrument.wave)

    def covered(self, lower, upper, redshift):
        """Whether pixels lie within rest wavelengths with a margin, (n, n_pix)."""
        edges = self.instrument.edges.numpy() / (1.0 + redshift[:, None, None])
        margin = math.exp(MARGIN / SPEED_OF_LIGHT)
        return (edges[..., 0] > lower * margin) & (edges[..., 1] < upper / margin)

    def observe(self, starlight, centres, widths, fluxes):
        """
        Mean flux density of the pixels.

        Parameters
        ----------
        starlight : ndarray, shape (n, n_grid)
            On the grid of the instrument.
        centres, widths, fluxes : ndarray, shape (n, n_lines)
            Wavelength and standard deviation [Angstrom] of emission lines, and their integrals.

        Returns
        -------
        ndarray, shape (n, n_pix)
        """
        with torch.no_grad():
            seen = self.instrument(torch.from_numpy(starlight)).numpy()
        self._add_lines(seen, centres, widths, fluxes)
        if self.resolution is None:
            return seen
        blurred = np.zeros_like(seen)
        n_pix, half = seen.shape[1], N_DIAGONALS // 2
        for k, offset in enumerate(range(half, -half - 1, -1)):  # column minus row
            rows = slice(max(0, -offset), n_pix - max(0, offset))
            cols = slice(max(0, offset), n_pix + min(0, offset))
            blurred[:, rows] += self.resolution[k, cols] * seen[:, cols]
        return blurred

    def _add_lines(self, seen, centres, widths, fluxes):
        """Add Gaussians that are blurred and integrated over each pixel exactly."""
        edges = self.instrument.edges.numpy()
        sigma = self.instrument.sigma
        sigma = np.zeros(len(edges)) if sigma is None else sigma.detach().numpy()
        near = np.searchsorted(edges[:, 0], centres).clip(1, len(edges)) - 1
        reach = REACH * np.hypot(widths, sigma[near])
        first = np.searchsorted(edges[:, 1], centres - reach)
        last = np.searchsorted(edges[:, 0], centres + reach)  # exclusive
        count = np.maximum(last - first, 0).ravel()
        line = np.repeat(np.arange(count.size), count)
        pixel = np.arange(count.sum()) + np.repeat(first.ravel() - (np.cumsum(count) - count), count)
        scale = 1.0 / np.hypot(widths.ravel()[line], sigma[pixel]) / math.sqrt(2.0)
        lower, upper = ((edges[pixel, k] - centres.ravel()[line]) * scale for k in (0, 1))
        area = 0.5 * (torch.erf(torch.from_numpy(upper)) - torch.erf(torch.from_numpy(lower))).numpy()
        area *= fluxes.ravel()[line] / (edges[pixel, 1] - edges[pixel, 0])
        galaxy = line // centres.shape[1]
        seen += np.bincount(galaxy * len(edges) + pixel, area, seen.size).reshape(seen.shape)


def survey_cameras(survey, power=None):
    """
    Cameras of a survey.

    Parameters
    ----------
    survey : str
        "sdss" or "desi".
    power : ndarray, shape (n_pix,)
        Resolving power of the pixels of SDSS, at `sdss_pixels`.

    Returns
    -------
    list of Camera
    """
    if survey == "sdss":
        wave = sdss_pixels()
        # Edges halfway in the logarithm, as the survey has them.
        half = 10**0.5e-4
        edges = torch.from_numpy(np.stack([wave / half, wave * half], axis=1))
        instrument = Instrument(edges, resolving_power=torch.from_numpy(power), step=STEP, margin=MARGIN)
        return [_camera("sdss", wave, instrument, None, SDSS_NOISE, wave / FWHM_PER_SIGMA / power, SKY_LIGHT["sdss"])]
    cameras = []
    for band, (first, n_pix) in DESI_PIXELS.items():
        wave = first + DESI_WIDTH * np.arange(n_pix)
        edges = functional.pixel_edges(torch.from_numpy(wave))
        sigma = np.linspace(*DESI_SIGMA[band], n_pix)
        instrument = Instrument(edges, step=STEP, margin=MARGIN)
        bands = _resolution(sigma)
        cameras.append(_camera(band, wave, instrument, bands, DESI_NOISE[band], sigma, SKY_LIGHT["desi"]))
    return cameras


def sdss_pixels():
    """Wavelengths of the pixels of SDSS, 3800 to 9200 Angstrom, 1e-4 apart in their decimal logarithm."""
    return 10 ** (np.arange(35798, 39639) * 1e-4)


def _resolution(sigma):
    """A resolution matrix in the layout of DESI: Gaussians that conserve flux, (N_DIAGONALS, n_pix)."""
    half = N_DIAGONALS // 2
    offset = np.arange(half, -half - 1, -1)[:, None]
    bands = np.exp(-0.5 * (offset * DESI_WIDTH / sigma) ** 2)
    row = np.arange(len(sigma)) - offset
    # Each row has the sum 1, so that a constant stays one; what lies outside the matrix is zero.
    inside = (row >= 0) & (row < len(sigma))
    bands = np.where(inside, bands, 0.0)
    sums = np.bincount(row[inside], bands[inside], len(sigma))
    return bands / sums[row.clip(0, len(sigma) - 1)]


def _camera(band, wave, instrument, resolution, noise, sigma, sky_light):
    level = np.exp(np.interp(wave, noise[:, 0], np.log(noise[:, 1])))
    offset = (wave - SKY_LINES[:, :1]) / sigma
    sky = level * np.sqrt((SKY_LINES[:, 1:] ** 2 - 1.0) * np.exp(-0.5 * offset**2))
    sky = sky[(np.abs(offset) < REACH).any(axis=1)]
    return Camera(band, wave, instrument, resolution, level, sky, sky_light)
