"""A few latents in place of many coefficients: nonlinear maps to components of spectra, and from observed ones."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LatentSpace"]

# Lengths of a step that are tried: the best of them is taken, the first where chi2 differs by less than its rounding,
# as many roundings of the latents.
STEPS, ROUNDING = (1.0, 0.3, 0.05), 1e4
# Steps end when chi2 would gain less than this in every galaxy.
SETTLED = 1e-9


class LatentSpace(nn.Module):
    r"""
    Rest-frame spectra :math:`a (\mu + \sum_k c_k(s) b_k)` of latents s, and the latents of observed ones.

    Both maps are a linear one plus a network with two hidden layers. In the population latents have the mean zero, no
    correlations, and the variances ``variance``.

    Parameters
    ----------
    n_components, n_latents : int
    first : float
        First wavelength of the table [Angstrom].
    step : float
        Spacing of the table [km/s].
    n_table : int
    hidden : int
        Units in each hidden layer.

    Attributes
    ----------
    components : buffer, shape (1 + n_components, n_table)
        The mean spectrum and the components, as the decoder knows them: before any instrument.
    variance : buffer, shape (n_latents,)

    Examples
    --------
    The ``space`` of a `specutils_blase.galaxy.SpectrumAutoencoder` is one; what an instrument makes of its spectra is
    an `Observation`, and gradients flow from pixels to latents. One that has learned nothing:

    >>> space = LatentSpace(4, 2, first=4000.0, step=60.0, n_table=1500)
    >>> space(torch.zeros(3, 2)).shape
    torch.Size([3, 1500])
    """

    def __init__(self, n_components: int, n_latents: int, *, first: float, step: float, n_table: int,
                 hidden: int = 256) -> None:  # fmt: skip
        super().__init__()
        self.first, self.step, self.hidden = first, step, hidden
        self.register_buffer("components", torch.zeros(1 + n_components, n_table))
        self.register_buffer("variance", torch.ones(n_latents))
        self.to_latents, self.from_latents = nn.Linear(n_components, n_latents), nn.Linear(n_latents, n_components)
        self.encoder = _network(n_components, hidden, n_latents)
        self.decoder = _network(n_latents, hidden, n_components)
        with torch.no_grad():
            # The strongest components are the first latents.
            for linear in (self.to_latents, self.from_latents):
                linear.bias.zero_()
                linear.weight.copy_(torch.eye(*linear.weight.shape))

    @property
    def config(self) -> dict[str, Any]:
        """What the constructor takes, for files."""
        n_latents, n_components = self.to_latents.weight.shape
        return {"n_components": n_components, "n_latents": n_latents, "first": self.first, "step": self.step,
                "n_table": self.components.shape[1], "hidden": self.hidden}  # fmt: skip

    def coefficients(self, latents: Tensor) -> Tensor:
        """Coefficients of the mean, which is one, and of the components, (n, 1 + n_components)."""
        some = self.from_latents(latents) + self.decoder(latents)
        return torch.cat([torch.ones_like(some[..., :1]), some], -1)

    def forward(self, latents: Tensor) -> Tensor:
        """Spectra on the table, (n, n_table), of latents (n, n_latents)."""
        return self.coefficients(latents) @ self.components

    def guess(self, matrix: Tensor, vector: Tensor) -> Tensor:
        """
        Latents by the encoder alone, from the most likely coefficients under their prior.

        The inverse variances of the pixels are the weights with which each component attends to the spectrum.

        Parameters
        ----------
        matrix, vector : Tensor, shapes (n, k, k) and (n, k)
            Sums over pixels of the components (``solvers.survey.Statistics``); in float64, for a difference of chi2
            is small against their size.
        """
        k = vector.shape[-1]
        level = (vector[:, 0] / matrix[:, 0, 0].clamp_min(1e-30)).abs()[:, None, None]
        one = torch.eye(k, dtype=vector.dtype, device=vector.device)
        prior = one.clone()
        prior[0, 0] = 0.0
        # So that what no pixel sees can be solved for as well.
        tiny = 1e-6 * matrix.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None].clamp_min(1e-30) * one
        solved = torch.linalg.solve(matrix + prior / level.clamp_min(1e-15) ** 2 + tiny, vector[..., None])[..., 0]
        scale = torch.where(solved[:, :1].abs() > 1e-12, solved[:, :1], 1e-12)
        found = (solved[:, 1:] / scale).clamp(-20.0, 20.0).to(self.to_latents.weight)
        return self.to_latents(found) + self.encoder(found)

    def fit(
        self, matrix: Tensor, vector: Tensor, whiten: Callable[[Tensor], Tensor] | None = None, steps: int = 8
    ) -> tuple[Tensor, Tensor, Tensor]:
        """
        Latents with the least chi2 and prior, by Gauss-Newton steps from those of the encoder.

        Parameters
        ----------
        matrix, vector : Tensor
            As for `guess`.
        whiten : callable, optional
            From latents (n, n_latents) to as many numbers that have a standard normal prior, differentiable: they are
            residuals of the fit like those of pixels. None: latents over the roots of their ``variance``.
        steps : int
            At most. Gradients of the latents come nearer to those of the minimum with each: a latent that is hardly
            known has them to some per cent after eight.

        Returns
        -------
        latents : Tensor, shape (n, n_latents)
        covariance : Tensor, shape (n, n_latents, n_latents)
            Of the latents, the factor of the spectrum marginalised.
        factor : Tensor, shape (n,)
        """
        latents = self.guess(matrix, vector)
        for _ in range(steps):
            hessian, gradient = self._expansion(latents, matrix, vector, whiten)
            step = torch.linalg.solve(hessian, gradient[..., None])[..., 0]
            # By how much a parabola would fall. Gradients are those of the steps that were taken: with them take all.
            if not step.requires_grad and not ((step * gradient).sum(-1) > SETTLED).any():
                break
            step = step.to(latents)
            trials = torch.stack([latents, *(latents + size * step for size in STEPS)])
            with torch.no_grad():
                merit = self._merits(trials, matrix, vector, whiten)
            merit[1] -= ROUNDING * torch.finfo(latents.dtype).eps
            best = merit.argmin(0)
            latents = trials[best, torch.arange(len(latents), device=latents.device)]
        hessian, _ = self._expansion(latents, matrix, vector, whiten)
        return latents, torch.linalg.inv(hessian), self.factor(latents, matrix, vector)

    def whitened(self, latents: Tensor, whiten: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """
        Residuals of the prior, (n, n_latents), and their derivatives by latents, (n, n_latents, n_latents).

        Parameters
        ----------
        latents : Tensor, shape (n, n_latents)
        whiten : callable, optional
            As for `fit`.
        """
        if whiten is None:
            root = self.variance.rsqrt()
            return latents * root, torch.diag(root).expand(len(latents), -1, -1)
        # A row for each residual of each galaxy: one step back through all of them is ten times as fast as vmap
        # through the many small operations of a spline flow.
        n, n_latents = latents.shape
        graph = latents.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            rows = (latents if graph else latents.detach()).repeat_interleave(n_latents, 0)
            rows = rows if graph else rows.requires_grad_()
            values = whiten(rows).unflatten(0, (n, n_latents))
            own = values.diagonal(dim1=1, dim2=2)
            (slopes,) = torch.autograd.grad(own.sum(), rows, create_graph=graph)
        values = values[:, 0] if graph else values[:, 0].detach()
        return values, slopes.unflatten(0, (n, n_latents))

    def factor(self, latents: Tensor, matrix: Tensor, vector: Tensor) -> Tensor:
        """The factor of the spectrum that fits best, (n,)."""
        some = self.coefficients(latents).to(matrix)
        return (some * vector).sum(-1) / torch.einsum("nk,nkl,nl->n", some, matrix, some).clamp_min(1e-30)

    def reduction(self, latents: Tensor, matrix: Tensor, vector: Tensor) -> Tensor:
        """By how much the model lowers chi2 from that of no model, at the best factor, (n,)."""
        some = self.coefficients(latents).to(matrix)
        return (some * vector).sum(-1) ** 2 / torch.einsum("nk,nkl,nl->n", some, matrix, some).clamp_min(1e-30)

    def _merits(self, trials, matrix, vector, whiten=None):
        """Chi2 and prior of several latents for each galaxy, (m, n), from (m, n, n_latents): less that of no model."""
        some = trials.flatten(0, 1)
        normal = (some * self.variance.rsqrt() if whiten is None else whiten(some)).reshape(trials.shape)
        return (normal**2).sum(-1) - torch.stack([self.reduction(some, matrix, vector) for some in trials])

    def _expansion(self, latents, matrix, vector, whiten=None):
        """Half of the second derivatives of chi2 and the prior by latents, and minus half of the first."""
        some = self.coefficients(latents).to(matrix)
        slopes = torch.func.vmap(torch.func.jacrev(self.coefficients))(latents).to(matrix)
        factor = self.factor(latents, matrix, vector)[:, None]
        seen = matrix @ slopes
        full = slopes.mT @ seen
        # The factor is solved for with the latents: its row and column are eliminated.
        cross = torch.einsum("nk,nkp->np", some, seen)
        norm = torch.einsum("nk,nkl,nl->n", some, matrix, some).clamp_min(1e-30)[:, None]
        hessian = factor[..., None] ** 2 * (full - cross[:, :, None] * cross[:, None] / norm[..., None])
        residual = vector - factor * torch.einsum("nkl,nl->nk", matrix, some)
        gradient = factor * torch.einsum("nkp,nk->np", slopes, residual)
        normal, turn = (some.to(matrix) for some in self.whitened(latents, whiten))
        return hessian + turn.mT @ turn, gradient - (turn.mT @ normal[..., None])[..., 0]

    def normalize(self, latents: Tensor, matrix: Tensor, vector: Tensor) -> None:
        """
        Turn, scale and shift the latents, without a change of any spectrum.

        Afterwards they are uncorrelated in the population, the ones that change spectra most come first, and a step of
        one length in any of them changes chi2 alike, on average over the galaxies; the mean of their variances is one.

        Parameters
        ----------
        latents : Tensor, shape (n, n_latents)
            Of the population.
        matrix, vector : Tensor
            Of the same galaxies, as for `guess`.
        """
        hessian, _ = self._expansion(latents, matrix, vector)
        metric = (hessian - torch.diag(1.0 / self.variance)).mean(0).double()
        mean, covariance = latents.mean(0), torch.atleast_2d(torch.cov(latents.T)).double()
        values, vectors = torch.linalg.eigh(covariance)
        root = (vectors * values.clamp_min(1e-12).sqrt()) @ vectors.T
        strength, turn = torch.linalg.eigh(root @ metric @ root)
        strength, turn = strength.flip(0).clamp_min(1e-12 * float(strength[-1])), turn.flip(1)
        variance = strength / strength.mean()
        # Columns of back are the steps of one standard deviation each, divided by it.
        back = ((root @ turn) / variance.sqrt()).to(latents)
        there = torch.linalg.inv(back.double()).to(latents)
        with torch.no_grad():
            self.variance.copy_(variance)
            for layer, center in ((self.to_latents, mean), (self.encoder[-1], 0.0)):
                layer.weight.copy_(there @ layer.weight)
                layer.bias.copy_(there @ (layer.bias - center))
            for layer in (self.from_latents, self.decoder[0]):
                layer.bias.add_(layer.weight @ mean)
                layer.weight.copy_(layer.weight @ back)


def _network(n_in, hidden, n_out):
    network = nn.Sequential(nn.Linear(n_in, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(),
                            nn.Linear(hidden, n_out))  # fmt: skip
    with torch.no_grad():
        network[-1].weight.mul_(0.1)
    return network
