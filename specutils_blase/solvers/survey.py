"""Observed galaxies as tensors, and the sums over their pixels that a Gaussian likelihood consists of."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from specutils_blase.nn.observation import Observation

__all__ = ["Camera", "Statistics", "rest_frame_rows", "statistics", "statistics_of_each"]

# Galaxies whose components are observed at once.
BATCH = 16


@dataclass(frozen=True, eq=False)
class Camera:
    """
    Pixels of n galaxies, all observed with the same instrument.

    Parameters
    ----------
    ln_wave : Tensor, shape (n_pix,)
        Logarithms of the centres of the pixels, increasing [ln Angstrom], float64.
    flux, ivar : Tensor, shape (n, n_pix)
        Inverse variances are zero where a pixel cannot be used, and the flux is finite everywhere.
    observation : Observation
        From the rest frame to these pixels.
    bands : Tensor, shape (n, n_diag, n_pix), or None
        Resolution matrices.
    """

    ln_wave: Tensor
    flux: Tensor
    ivar: Tensor
    observation: Observation
    bands: Tensor | None = None

    def rows(self, chosen) -> "Camera":
        """Some of the galaxies."""
        bands = None if self.bands is None else self.bands[chosen]
        return Camera(self.ln_wave, self.flux[chosen], self.ivar[chosen], self.observation, bands)


@dataclass(frozen=True, eq=False)
class Statistics:
    """
    All that the pixels say of the coefficients v of components: chi2 = total - 2 v . vector + v . matrix v.

    Parameters
    ----------
    matrix : Tensor, shape (n, k, k)
    vector : Tensor, shape (n, k)
    total : Tensor, shape (n,)
        Float64 from `statistics`: chi2 is a small difference of large sums.
    n_pix : Tensor, shape (n,)
        Pixels that were used.
    """

    matrix: Tensor
    vector: Tensor
    total: Tensor
    n_pix: Tensor

    def rows(self, chosen) -> "Statistics":
        """Some of the galaxies."""
        return Statistics(self.matrix[chosen], self.vector[chosen], self.total[chosen], self.n_pix[chosen])

    def single(self) -> "Statistics":
        """In float32: enough to learn from, not to fit one galaxy of a high S/N."""
        return Statistics(self.matrix.float(), self.vector.float(), self.total.float(), self.n_pix.float())

    @staticmethod
    def joined(parts: Sequence["Statistics"]) -> "Statistics":
        """Those of several surveys, one after the other."""
        names = ("matrix", "vector", "total", "n_pix")
        return Statistics(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def statistics(cameras: Sequence[Camera], redshift: Tensor, components: Tensor, report=None) -> Statistics:
    """
    Sums over the pixels of all cameras of each galaxy.

    Parameters
    ----------
    cameras : sequence of Camera
        Of the same n galaxies.
    redshift : Tensor, shape (n,)
    components : Tensor, shape (k, n_table)
        In the rest frame. Pixels that get light from beyond the table do not count.
    report : callable, optional
        Gets the part that is done.

    Returns
    -------
    Statistics
    """
    (out,) = statistics_of_each([cameras], redshift, components, report)
    return out


def statistics_of_each(
    versions: Sequence[Sequence[Camera]], redshift: Tensor, components: Tensor, report=None
) -> list[Statistics]:
    """
    The same of several versions of the galaxies, which differ by nothing but their inverse variances.

    What takes time, the components as pixels see them, is computed once for all versions.

    Parameters
    ----------
    versions : sequence of sequences of Camera
    redshift, components, report
        As for `statistics`.

    Returns
    -------
    list of Statistics
        One for each version.
    """
    n, k = len(redshift), len(components)
    shapes = (n, k, k), (n, k), (n,), (n,)
    sums = [Statistics(*(components.new_zeros(shape, dtype=torch.float64) for shape in shapes)) for _ in versions]
    for start in range(0, n, BATCH):
        some = slice(start, min(start + BATCH, n))
        for same in zip(*versions, strict=True):
            seen, covered = observed_components(same[0].rows(some), redshift[some], components)
            seen, flux = seen.double(), same[0].flux[some].double()
            for out, camera in zip(sums, same, strict=True):
                ivar = torch.where(covered, camera.ivar[some], 0.0).double()
                weighted = seen * ivar[:, None]
                out.matrix[some] += weighted @ seen.mT
                out.vector[some] += (weighted @ flux[..., None])[..., 0]
                out.total[some] += (ivar * flux**2).sum(-1)
                out.n_pix[some] += (ivar > 0).sum(-1)
        if report is not None:
            report(some.stop / n)
    return sums


def observed_components(camera: Camera, redshift: Tensor, components: Tensor) -> tuple[Tensor, Tensor]:
    """Components as each galaxy's pixels see them, (n, k, n_pix), and which pixels see the table alone, (n, n_pix)."""
    n, k = len(redshift), len(components)
    bands = None if camera.bands is None else camera.bands.repeat_interleave(k, 0)
    seen = camera.observation(components.repeat(n, 1), redshift.repeat_interleave(k), bands).unflatten(0, (n, k))
    n_diag = 1 if bands is None else bands.shape[1]
    return seen, camera.observation.covered(redshift, components.shape[-1], n_diag)


def rest_frame_rows(
    cameras: Sequence[Camera], redshift: Tensor, first: float, spacing: float, n_table: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """
    Flux and inverse variance of one galaxy after the other, interpolated linearly to a table in the rest frame.

    Parameters
    ----------
    first : float
        Wavelength of the first sample [Angstrom].
    spacing : float
        Of the samples in ln(wavelength).
    n_table : int

    Yields
    ------
    flux, ivar : Tensor, shape (n_table,)
        Inverse variances of samples, so that their sum over a pixel is that of the pixel.
    """
    table = math.log(first) + spacing * torch.arange(n_table, dtype=torch.float64, device=redshift.device)
    for i, z in enumerate(redshift):
        flux, ivar = cameras[0].flux.new_zeros(2, n_table)
        for camera in cameras:
            place = table + torch.log1p(z)
            right = torch.searchsorted(camera.ln_wave, place).clamp(1, len(camera.ln_wave) - 1)
            left = right - 1
            width = camera.ln_wave[right] - camera.ln_wave[left]
            part = (place - camera.ln_wave[left]) / width
            inside = (part >= 0.0) & (part <= 1.0) & (width < 5.0 * camera.ln_wave.diff().median())
            a, b = camera.ivar[i, left], camera.ivar[i, right]
            weight = torch.where(inside, (2.0 * a * b / (a + b).clamp_min(1e-30)) * (spacing / width).to(a), 0.0)
            part = part.to(a)
            value = (1.0 - part) * camera.flux[i, left] + part * camera.flux[i, right]
            flux, ivar = flux + weight * value, ivar + weight
        yield flux / ivar.clamp_min(1e-30), ivar
