"""Redshifts of galaxies: a scan with linear components at all shifts at once, then the latents and the redshift."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from specutils_blase.functional import SPEED_OF_LIGHT
from specutils_blase.nn.latent_space import LatentSpace
from specutils_blase.solvers.survey import Camera, rest_frame_rows, statistics

__all__ = ["Scanner", "latents_at", "refine"]

# Linear components of the scan, and draws of latents that they are made from.
N_COMPONENTS, N_DRAWS = 12, 500
# Minima of the scan that are refined, and how far apart they are at least [km/s].
N_CANDIDATES, APART = 4, 1500.0
# Pixels over which a continuum is smooth.
SMOOTH = 101
# Part of the data's weight that the table has to cover.
LEAST_SHARE = 0.3
# Steps of the refinement; it ends when chi2 gains less than this, a tenth of a standard deviation, or less than this
# part of what it is worse than another redshift.
STEPS, SETTLED = 12, 1e-2
# Half of the difference by which the slope in ln(1 + z) is found: a fortieth of a pixel.
DIFFERENCE = 5e-6
# The same for the second derivatives, which the interpolation makes rough within a pixel: an eighth of one.
WIDER = 3e-5
# A step in ln(1 + z) is no longer than this.
LONGEST = 1e-3


class Scanner:
    """
    Chi2 of a galaxy at every redshift of a grid, with the best linear components at each.

    With weights w and flux y on a grid uniform in ln(wavelength), the sums over pixels of w b_k b_l and w y b_k, for
    components b shifted by any number of samples, are correlations: each is one Fourier transform for all redshifts.

    Parameters
    ----------
    space : LatentSpace
    camera : Sequence of Camera
        Whose resolution and pixels the components get, on average.
    lower, upper : float
        Range of redshifts.
    """

    def __init__(self, space: LatentSpace, cameras: Sequence[Camera], lower: float, upper: float) -> None:
        self.first, self.spacing = space.first, space.step / SPEED_OF_LIGHT
        self.n_table = space.components.shape[1]
        begin = min(float(camera.ln_wave[0]) for camera in cameras)
        end = max(float(camera.ln_wave[-1]) for camera in cameras)
        # The grid of the data lies whole samples from the table.
        self.offset = math.ceil((begin - math.log(self.first)) / self.spacing)
        self.n_data = int((end - math.log(self.first)) / self.spacing) - self.offset + 1
        low, high = (math.floor(math.log1p(z) / self.spacing) for z in (lower, upper))
        self.shifts = torch.arange(low, high + 2)
        self.redshift = torch.expm1(self.shifts.double() * self.spacing)
        self.length = 2 ** math.ceil(math.log2(self.n_data + self.n_table))
        self._transform(self._components(space, cameras))

    def _components(self, space, cameras):
        """Mean and principal components of spectra of the population, blurred, (1 + N_COMPONENTS, n_table)."""
        generator = torch.Generator().manual_seed(0)
        n_latents = space.to_latents.weight.shape[0]
        with torch.no_grad():
            draws = torch.randn(N_DRAWS, n_latents, generator=generator).to(space.components)
            spectra = space(draws * space.variance.sqrt())
        mean = spectra.mean(0)
        away = (spectra - mean).double()
        # Of as many numbers as there are draws: a tenth of the time of a decomposition of the spectra.
        _, turn = torch.linalg.eigh(away @ away.T)
        found = torch.cat([mean[None], (turn[:, -N_COMPONENTS:].T @ away).flip(0).to(mean) / math.sqrt(N_DRAWS)])
        sigma = float(np.mean([float(camera.observation.blur) for camera in cameras]))
        frequency = torch.fft.rfftfreq(2 * self.n_table)
        passed = torch.exp(-0.5 * (2.0 * math.pi * frequency * sigma) ** 2)
        mirrored = torch.cat([found, found.flip(-1)], -1)
        return torch.fft.irfft(torch.fft.rfft(mirrored) * passed, n=2 * self.n_table)[:, : self.n_table]

    def _transform(self, components):
        k, components = len(components), components.double()
        self.upper = torch.triu_indices(k, k)
        rows = torch.cat([components[self.upper[0]] * components[self.upper[1]], components,
                          torch.ones_like(components[:1])])  # fmt: skip
        self.transforms = torch.fft.rfft(rows, n=self.length).conj()
        self.k = k

    def scan(self, cameras: Sequence[Camera], row: int) -> tuple[Tensor, Tensor]:
        """
        Chi2 at the redshifts of the grid, and how many pixels of the grid the table covers there.

        Parameters
        ----------
        cameras : sequence of Camera
        row : int
            Number of the galaxy.

        Returns
        -------
        chi2 : Tensor, shape (n_redshifts,)
            Samples that the table does not cover count with that of a smooth continuum: lines there stay unexplained.
        share : Tensor, shape (n_redshifts,)
            Part of the weight of the data that the table covers.
        """
        one = slice(row, row + 1)
        first = self.first * math.exp(self.offset * self.spacing)
        some = [camera.rows(one) for camera in cameras]
        here = torch.zeros(1, dtype=torch.float64)
        flux, weight = next(rest_frame_rows(some, here, first, self.spacing, self.n_data))
        flux, weight = flux.double(), weight.double()
        level = (weight * flux).sum() / weight.sum().clamp_min(1e-30)
        k, n_products = self.k, self.upper.shape[1]
        smooth = weight * (flux - smoothed(flux, weight)) ** 2
        of_weight = torch.fft.rfft(torch.stack([weight, weight * flux, weight * flux**2, smooth]), n=self.length)
        # A sample i of the data lies on i + offset - shift of the table.
        lag = self.shifts - self.offset
        index = lag % self.length
        # Farther apart than the period of the transforms nothing overlaps, whatever they say.
        near = (lag > -self.n_table) & (lag < self.n_data)
        sums = torch.fft.irfft(of_weight[0] * self.transforms[:n_products], n=self.length)[:, index] * near
        right = torch.fft.irfft(of_weight[1] * self.transforms[n_products:-1], n=self.length)[:, index] * near
        total, replaced, on_table = (
            torch.fft.irfft(of_weight[[2, 3, 0]] * self.transforms[-1], n=self.length)[:, index] * near)  # fmt: skip
        matrix = torch.empty(len(index), k, k, dtype=torch.float64)
        matrix[:, self.upper[0], self.upper[1]] = matrix[:, self.upper[1], self.upper[0]] = sums.T
        # Without light, no component is larger than the noise of the mean.
        level = torch.maximum(level.abs(), weight.sum().clamp_min(1e-30) ** -0.5)
        prior = torch.eye(k, dtype=torch.float64) / level**2
        prior[0, 0] = 1e-9 * weight.sum()
        solved = torch.linalg.solve(matrix + prior, right.T[..., None])[..., 0]
        share = (on_table / weight.sum().clamp_min(1e-30)).clamp(0.0, 1.0)
        return total - (right.T * solved).sum(-1) + smooth.sum() - replaced, share

    def candidates(self, chi2: Tensor, share: Tensor) -> list[float]:
        """Redshifts of the deepest minima, the deepest first."""
        values = torch.where(share >= LEAST_SHARE, chi2, math.inf).numpy()
        apart = max(int(APART / (self.spacing * SPEED_OF_LIGHT)), 1)
        padded = np.concatenate([[math.inf], values, [math.inf]])
        minima = np.flatnonzero((values <= padded[:-2]) & (values <= padded[2:]))
        found = []
        for k in minima[np.argsort(values[minima])]:
            if not math.isfinite(values[k]) or len(found) == N_CANDIDATES:
                break
            if all(abs(k - other) > apart for other in found):
                found.append(k)
        return [float(self.redshift[k]) for k in found]


def smoothed(flux: Tensor, ivar: Tensor) -> Tensor:
    """Weighted means of flux over `SMOOTH` pixels or samples about each, shape (n,)."""
    above, below = (torch.nn.functional.avg_pool1d(values[None], SMOOTH, 1, SMOOTH // 2)[0] for values in (
        ivar * flux, ivar))  # fmt: skip
    return above / below.clamp_min(1e-30)


@torch.no_grad()
def latents_at(space: LatentSpace, cameras: Sequence[Camera], redshifts: Sequence[float], whiten=None) -> Tensor:
    """Latents (n, n_latents) that fit one galaxy best at each of n redshifts."""
    same = [camera.rows(torch.zeros(len(redshifts), dtype=torch.int64)) for camera in cameras]
    sums = statistics(same, torch.tensor(redshifts, dtype=torch.float64), space.components)
    return space.fit(sums.matrix, sums.vector, whiten)[0]


@torch.no_grad()
def refine(
    space: LatentSpace, cameras: Sequence[Camera], redshift: float, whiten: Callable[[Tensor], Tensor] | None = None,
    latents: Tensor | None = None, best: float = math.inf,
) -> tuple[float, float, float, float, Tensor]:  # fmt: skip
    """
    Redshift and latents of one galaxy together, by Gauss-Newton steps from a redshift close to the right one.

    Parameters
    ----------
    space : LatentSpace
    cameras : sequence of Camera
        Of one galaxy.
    redshift : float
    whiten : callable, optional
        As for `LatentSpace.fit`.
    latents : Tensor, shape (n_latents,), optional
        To begin with; None: `latents_at` that redshift.
    best : float
        Sum of chi2 and ``outside`` at another redshift.

    Returns
    -------
    redshift, uncertainty, chi2 : float
        The uncertainty is marginal over the latents and the factor; chi2 has the prior of the latents in it, and is of
        the pixels that the table covers there and 300 km/s from there.
    outside : float
        Chi2 of a smooth continuum in the other pixels.
    latents : Tensor, shape (n_latents,)
    """
    place = math.log1p(redshift)
    latents = latents_at(space, cameras, [redshift], whiten)[0] if latents is None else latents
    weights = _weights(space, cameras, place)
    beyond = torch.cat([camera.ivar[0].double() * (camera.flux[0] - smoothed(camera.flux[0], camera.ivar[0])) ** 2
                        for camera in cameras])[weights == 0]  # fmt: skip
    outside = float(beyond.sum())
    damping, kept = 1e-3, None
    for _ in range(STEPS):
        hessian, gradient, chi2 = _expansion(space, cameras, weights, place, latents, whiten)
        if kept is None or chi2 <= kept[4]:
            gain = math.inf if kept is None else kept[4] - chi2
            kept, damping = (place, latents, hessian, gradient, chi2), 0.1 * damping
            if gain < SETTLED * max(chi2 + outside - best, 1.0):
                break
        else:
            damping = max(10.0 * damping, 0.1)
        place, latents, hessian, gradient, *_ = kept
        step = torch.linalg.solve(hessian + damping * torch.diag(hessian.diagonal()), gradient)
        place = place + float(step[-1].clamp(-LONGEST, LONGEST))
        latents = latents + step[:-1].to(latents)
    place, latents, _, _, chi2 = kept
    stretch = math.exp(place)
    error = stretch * _uncertainty(space, cameras, weights, *kept[:3], whiten)
    return stretch - 1.0, error, chi2, outside, latents


def _weights(space, cameras, place):
    """Inverse variances of all cameras; those of the same pixels at all steps, so that chi2 has no jumps."""
    ends = torch.expm1(torch.tensor([place - LONGEST, place + LONGEST], dtype=torch.float64))
    found = []
    for camera in cameras:
        n_diag = 1 if camera.bands is None else camera.bands.shape[1]
        covered = camera.observation.covered(ends, space.components.shape[1], n_diag).all(0)
        found.append(torch.where(covered, camera.ivar[0], 0.0).double())
    return torch.cat(found)


def _uncertainty(space, cameras, weights, place, latents, hessian, whiten):
    """
    Standard deviation of ln(1 + z).

    Where lines are hardly seen, the noise decides how strong they are and with it how well they tell the redshift: the
    second derivatives by the redshift have the residuals in them, without which errors are a tenth too small.
    """
    before, after = (
        _expansion(space, cameras, weights, place + step, latents, whiten)[1] for step in (-WIDER, WIDER))
    row = (before - after) / (2.0 * WIDER)
    full = hessian.clone()
    full[-1], full[:, -1] = row, row
    full[-1, -1] += 1e-12 * hessian.diagonal().max()
    variance = [float(torch.linalg.inv(some)[-1, -1]) for some in (full, hessian)]
    return math.sqrt(max(variance[0] if variance[0] > 0.0 else variance[1], 0.0))


def _expansion(space, cameras, weight, place, latents, whiten):
    """Half the second derivatives of chi2 by latents and ln(1 + z), minus half the first, and chi2; the factor out."""
    slopes = torch.func.jacrev(space.coefficients)(latents).T @ space.components
    rows = torch.cat([space(latents)[None], slopes])
    n = len(rows)
    z = torch.expm1(torch.tensor([place], dtype=torch.float64))
    shifted = torch.expm1(torch.tensor([place - DIFFERENCE, place + DIFFERENCE], dtype=torch.float64))
    seen = []
    for camera in cameras:
        bands = camera.bands
        pixels = camera.observation(rows, z.expand(n), bands)
        both = camera.observation(rows[:1].expand(2, -1), shifted, bands)
        pixels = torch.cat([pixels, (both[1:] - both[:1]) / (2.0 * DIFFERENCE)]).double()
        seen.append(pixels)
    seen, flux = torch.cat(seen, -1), torch.cat([camera.flux[0].double() for camera in cameras])
    model = seen[0]
    norm = (weight * model**2).sum().clamp_min(1e-30)
    factor = (weight * model * flux).sum() / norm
    design = factor * seen[1:]
    cross = (design * weight) @ model
    hessian = (design * weight) @ design.T - cross[:, None] * cross / norm
    residual = flux - factor * model
    gradient = (design * weight) @ residual
    normal, turn = (some[0].double() for some in space.whitened(latents[None], whiten))
    # A redshift that nothing determines stays where it is.
    hessian = hessian + (1e-12 * hessian.diagonal().abs().max() + 1e-12) * torch.eye(n, dtype=torch.float64)
    hessian[:-1, :-1] += turn.T @ turn
    gradient[:-1] -= turn.T @ normal
    chi2 = float((weight * residual**2).sum() + (normal**2).sum())
    return hessian, gradient, chi2
