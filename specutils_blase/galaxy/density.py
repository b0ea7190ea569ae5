"""How dense galaxies lie among the latents: a normalizing flow."""

from typing import Any

import numpy as np
import torch
import zuko
from torch import Tensor, nn

__all__ = ["LatentDensity", "train_density"]

EPOCHS, BATCH, RATE = 40, 512, 3e-3
# Part that decides which epoch was the best.
KEPT = 0.1
# Latents have noise of this part of their standard deviations added in training, new in every epoch, so that no
# galaxy becomes a spike.
SMOOTH = 0.05


class LatentDensity(nn.Module):
    """
    Neural spline flow (Durkan et al. 2019, NeurIPS 32) over standardised latents, by the package zuko.

    Parameters
    ----------
    n_latents : int
    transforms, hidden : int
        Autoregressive transforms, and units in the two hidden layers of each.
    """

    def __init__(self, n_latents: int, *, transforms: int = 3, hidden: int = 64) -> None:
        super().__init__()
        self._config = {"n_latents": n_latents, "transforms": transforms, "hidden": hidden}
        self.register_buffer("mean", torch.zeros(n_latents))
        self.register_buffer("spread", torch.ones(n_latents))
        self.flow = zuko.flows.NSF(n_latents, transforms=transforms, hidden_features=(hidden, hidden))

    @property
    def config(self) -> dict[str, Any]:
        """What the constructor takes, for files."""
        return dict(self._config)

    def forward(self, latents: Tensor) -> Tensor:
        """Natural logarithm of the density, (n,), of latents (n, n_latents)."""
        return self.flow().log_prob((latents - self.mean) / self.spread) - self.spread.log().sum()

    def whiten(self, latents: Tensor) -> Tensor:
        """The numbers, (n, n_latents), that are standard normal where latents (n, n_latents) are those of galaxies."""
        return self.flow().transform(((latents - self.mean) / self.spread).to(self.mean))

    def log_probability(self, latents: np.ndarray) -> np.ndarray:
        """The same of arrays."""
        with torch.no_grad():
            return self(torch.as_tensor(latents, dtype=torch.float32)).double().numpy()

    def sample(self, n: int, seed: int) -> np.ndarray:
        """Draws of latents, (n, n_latents)."""
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return (self.mean + self.spread * self.flow().sample((n,))).double().numpy()


def train_density(latents: np.ndarray, *, seed: int, report) -> LatentDensity:
    """
    Fit the density of latents, shape (n, n_latents), by its likelihood; the weights of the best epoch are kept.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        density = LatentDensity(latents.shape[1])
        values = torch.as_tensor(latents, dtype=torch.float32)[torch.randperm(len(latents))]
        density.mean.copy_(values.mean(0))
        density.spread.copy_(values.std(0).clamp_min(1e-6))
        kept, seen = values[: int(KEPT * len(values)) + 1], values[int(KEPT * len(values)) + 1 :]
        optimizer = torch.optim.Adam(density.parameters(), RATE)
        n_steps = max(len(seen) // BATCH, 1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * n_steps)
        best = -np.inf, None
        for epoch in range(EPOCHS):
            order = torch.randperm(len(seen))
            for k in range(n_steps):
                some = seen[order[k * BATCH : (k + 1) * BATCH]]
                loss = -density(some + SMOOTH * density.spread * torch.randn_like(some)).mean()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(density.parameters(), 1.0)
                optimizer.step()
                schedule.step()
            with torch.no_grad():
                merit = float(density(kept).mean())
            if merit > best[0]:
                best = merit, {name: value.clone() for name, value in density.state_dict().items()}
            report(f"density of the latents: {100 * (epoch + 1) / EPOCHS:.0f} %")
        density.load_state_dict(best[1])
    return density.eval()
