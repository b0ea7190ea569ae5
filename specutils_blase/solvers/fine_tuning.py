r"""Components that have moved to galaxies which a trained model does not describe.

With the coefficients :math:`c_g` that the maps give a galaxy (the first is one, of the mean), what is left of its
spectrum is :math:`\sum_k c_{gk} \Delta_k` plus noise. The changes :math:`\Delta` of the components have a normal prior
with one variance for the mean and one for all others, so that a galaxy teaches those that are like it, and all of them
what they share. Both variances are the most likely ones around each wavelength (empirical Bayes; Rasmussen & Williams
2006, section 5.4), so that a line may change where the continuum stays.
"""

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from specutils_blase.functional import SPEED_OF_LIGHT
from specutils_blase.nn.latent_space import LatentSpace
from specutils_blase.solvers.survey import Camera, rest_frame_rows, statistics

__all__ = ["moved_components"]

# Latents are fitted anew after each change.
ITERATIONS = 3
# Standard deviations, of the mean and of the others, that are tried: in parts of the mean spectrum.
DEVIATIONS = (0.0, 3e-3, 0.01, 0.03, 0.1, 0.3)
# Galaxies whose coefficients are multiplied at once.
BATCH = 256
# Chi2 per pixel, by its median, from which on a galaxy has the weight that would make it so.
HOPELESS = 3.0
# Samples from one to the next that the prior is learned from, how many of these share it, as how many samples more all
# of them together count, and what part of them: lines that change by much say nothing of the continuum.
THINNED, SHARED, COMMON, PART = 3, 7, 100.0, 0.9
# Logarithm of the odds, twice, that a change is of all galaxies: a single one cannot tell, and teaches its like alone.
ODDS = -4.0


def moved_components(
    space: LatentSpace, groups: Sequence[tuple[Sequence[Camera], Tensor]], *, seed: int, report,
    whiten: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, list[float]]:  # fmt: skip
    """
    Components as the galaxies have them, as near to those of a model as noise leaves open.

    Parameters
    ----------
    space : LatentSpace
        Of which the maps between coefficients and latents stay.
    groups : sequence of (cameras, redshift)
        Galaxies of each survey, and their redshifts, of shape (n,).
    seed : int
        Of the noise that tells how far samples in the rest frame depend on each other.
    report : callable
        Gets the part that is done.
    whiten : callable, optional
        As for `LatentSpace.fit`.

    Returns
    -------
    components : Tensor, shape (k, n_table)
    deviations : list of two floats
        Of the prior, for the mean and for the others, in parts of the mean spectrum: root mean squares over the
        samples that were seen.
    """
    model = copy.deepcopy(space).requires_grad_(False)
    groups = _tempered(model, groups, whiten)
    change, found = torch.zeros_like(space.components), None
    generator = torch.Generator().manual_seed(seed)
    for iteration in range(ITERATIONS):
        matrix, vector, spread = _sums(model, groups, change, generator, whiten)
        if found is None:
            found = _most_likely(matrix / spread, vector / spread)
        change = _solved(matrix, vector, *found)[0].T.to(change)
        model.components.copy_(space.components + change)
        report((iteration + 1) / ITERATIONS)
    seen = matrix[:, 0, 0] > 0
    return model.components, [float((values[seen] ** 2).mean().sqrt()) if seen.any() else 0.0 for values in found]


def _tempered(model, groups, whiten):
    """Groups in which galaxies that nothing describes count as little as those that are `HOPELESS` times the median."""
    misfit = []
    for cameras, redshift in groups:
        sums = statistics(cameras, redshift, model.components)
        left = []
        for part in map(sums.rows, torch.arange(len(redshift)).split(BATCH)):
            latents = model.fit(part.matrix, part.vector, whiten)[0]
            left.append(part.total - model.reduction(latents, part.matrix, part.vector))
        misfit.append(torch.cat(left) / sums.n_pix.clamp_min(1.0))
    most = HOPELESS * float(torch.cat(misfit).median())
    out = []
    for (cameras, redshift), one in zip(groups, misfit, strict=True):
        weight = torch.where(one > most, most / one, 1.0)[:, None]
        out.append(([replace(camera, ivar=camera.ivar * weight.to(camera.ivar)) for camera in cameras], redshift))
    return out


def _sums(model, groups, change, generator, whiten=None):
    """
    Over the galaxies, of what is left of them and what the change so far explains, at every sample of the table.

    Returns
    -------
    matrix, vector : Tensor, shapes (n_table, k, k) and (n_table, k)
        Float64.
    spread : float
        Mean square of noise in the rest frame by what its inverse variance says: interpolation smooths it.
    """
    k, n_table = model.components.shape
    matrix, vector = (change.new_zeros(n_table, *shape, dtype=torch.float64) for shape in ((k, k), (k,)))
    square = weight = 0.0
    table = model.first, model.step / SPEED_OF_LIGHT, n_table
    for cameras, redshift in groups:
        for begin in range(0, len(redshift), BATCH):
            mine, z = [camera.rows(slice(begin, begin + BATCH)) for camera in cameras], redshift[begin : begin + BATCH]
            coefficients, left = _left(model, mine, z, whiten)
            noise = [replace(camera, flux=torch.randn(camera.flux.shape, generator=generator).to(camera.flux)
                             * camera.ivar.clamp_min(1e-30).rsqrt()) for camera in left]  # fmt: skip
            flux, ivar = map(torch.stack, zip(*rest_frame_rows(left, z, *table), strict=True))
            drawn, _ = map(torch.stack, zip(*rest_frame_rows(noise, z, *table), strict=True))
            square, weight = square + float((ivar * drawn**2).sum()), weight + float((ivar > 0).sum())
            flux = flux + coefficients @ change
            pairs = (coefficients[:, :, None] * coefficients[:, None]).flatten(1)
            matrix += (ivar.T @ pairs).unflatten(1, (k, k))
            vector += (ivar * flux).T @ coefficients
    return matrix, vector, square / weight if weight and square else 1.0


def _left(model, cameras, redshift, whiten=None):
    """Coefficients of galaxies, (n, k), and cameras with what is left of their flux, by the factor of the galaxy."""
    sums = statistics(cameras, redshift, model.components)
    latents, _, factor = model.fit(sums.matrix, sums.vector, whiten)
    factor = factor.to(latents)[:, None]
    spectra, left = model(latents), []
    for camera in cameras:
        n_diag = 1 if camera.bands is None else camera.bands.shape[1]
        covered = camera.observation.covered(redshift, spectra.shape[1], n_diag) & (factor.abs() > 1e-6)
        flux = camera.flux / factor - camera.observation(spectra, redshift, camera.bands)
        left.append(replace(camera, flux=torch.where(covered, flux, 0.0),
                            ivar=torch.where(covered, camera.ivar * factor**2, 0.0)))  # fmt: skip
    return model.coefficients(latents), left


def _most_likely(matrix, vector):
    """Standard deviations for mean and others, two of shape (n,), with which what is left is the most likely."""
    some = torch.arange(0, len(matrix), THINNED)
    choices = list(itertools.product(DEVIATIONS, DEVIATIONS))
    merit = matrix.new_empty(len(choices), len(some))
    for row, deviations in zip(merit, choices, strict=True):
        _, reduction, volume = _solved(matrix[some], vector[some], *deviations)
        row.copy_(reduction - volume)
    asked, seen = merit.max(0).values, matrix[some, 0, 0] > 0
    usual = seen & (asked <= asked[seen].quantile(PART)) if seen.any() else seen
    common = COMMON * merit[:, usual].mean(1, keepdim=True).nan_to_num()
    # Sums over neighbours; beyond the ends there is nothing.
    merit = SHARED * torch.nn.functional.avg_pool1d(merit[:, None], SHARED, 1, SHARED // 2)[:, 0]
    choices = torch.tensor(choices, dtype=matrix.dtype)
    best = choices[(merit + common + ODDS * (choices[:, :1] > 0)).argmax(0)]
    return best[torch.arange(len(matrix)) // THINNED].unbind(-1)


def _solved(matrix, vector, mean, others):
    """Most likely changes, (n, k), by how much they lower chi2 and its prior, and ln |1 + prior / noise|, (n,)."""
    deviation = torch.as_tensor(others, dtype=vector.dtype).reshape(-1, 1).expand_as(vector).clone()
    deviation[:, 0] = torch.as_tensor(mean)
    one = torch.eye(vector.shape[1]).to(matrix)
    root = torch.linalg.cholesky(one + deviation[:, :, None] * matrix * deviation[:, None])
    right = deviation * vector
    solved = torch.cholesky_solve(right[..., None], root)[..., 0]
    return deviation * solved, (right * solved).sum(-1), 2.0 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
