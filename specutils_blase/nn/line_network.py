"""A network from numbers about galaxies to the distributions of the widths of their lines."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from specutils_blase.functional import widths

__all__ = ["LineNetwork"]

# What the network says about a line: m, ln g, skewness e, ln d, each scaled. The fifth number, ln of the factor on the
# noise, is one for all galaxies: one for each could as well be a part of the width.
N_OUTPUTS, N_PARAMETERS = 4, 5
# Strengths between which the correction is interpolated, in standard deviations of the population.
KNOTS = (-1.5, -0.75, 0.0, 0.75, 1.5)
# Inputs are cut at this many standard deviations of those that were trained with.
REACH = 6.0


class LineNetwork(nn.Module):
    """
    Three hidden layers, for several members at once that see different galaxies; then a correction by strength.

    Parameters
    ----------
    n_inputs, n_lines : int
        Numbers that go in, and lines that come out.
    ties : sequence of (int, int, float)
        Lines whose width is that of another line, divided by a number; their noise is their own.
    width : int
        Units in each layer.
    members : int
        Networks side by side.

    Examples
    --------
    The median width of one line for two galaxies, as a network says that has not been trained:

    >>> network = LineNetwork(13, 1)
    >>> parameters = network(torch.zeros(2, 13))
    >>> parameters.shape
    torch.Size([1, 2, 1, 5])
    >>> widths.log_width(parameters, 0.0).shape
    torch.Size([1, 2, 1])
    """

    def __init__(self, n_inputs: int, n_lines: int, *, ties=(), width: int = 128, members: int = 1) -> None:
        super().__init__()
        self.ties = [tuple(tie) for tie in ties]
        partner = {line: other for line, other, _ in self.ties}
        free = [line for line in range(n_lines) if line not in partner]
        # The line, and the place in the last layer, that says what is true of each line.
        self.says = [partner.get(line, line) for line in range(n_lines)]
        self.places = [free.index(line) for line in self.says]
        sizes = [n_inputs, width, width, width, N_OUTPUTS * len(free)]
        last = len(sizes) - 2
        self.weights = nn.ParameterList(
            torch.randn(members, a, b) * (a**-0.5 * (0.1 if k == last else 1.0))
            for k, (a, b) in enumerate(zip(sizes[:-1], sizes[1:], strict=True))
        )
        self.biases = nn.ParameterList(torch.zeros(members, 1, size) for size in sizes[1:])
        self.noise = nn.Parameter(torch.zeros(members, 1, n_lines))
        self.register_buffer("center", torch.zeros(n_inputs))
        self.register_buffer("spread", torch.ones(n_inputs))
        self.register_buffer("scale", torch.ones(n_lines))
        self.register_buffer("strength", torch.stack([torch.zeros(n_lines), torch.ones(n_lines)]))
        self.register_buffer("correction", torch.zeros(n_lines, len(KNOTS), N_PARAMETERS - 1))
        self.register_buffer("correlation", torch.eye(n_lines))

    def forward(self, inputs: Tensor) -> Tensor:
        """Parameters of the distributions, shape (members, n, n_lines, 5), from inputs of shape (n, n_inputs)."""
        return self.corrected(self.numbers(inputs))

    def numbers(self, inputs: Tensor) -> Tensor:
        """What the last layer says, and the noise, shape (members, n, n_lines, 5)."""
        out = ((inputs - self.center) / self.spread).clamp(-REACH, REACH).expand(len(self.weights[0]), -1, -1)
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            out = torch.baddbmm(bias, out, weight)
            if k < len(self.weights) - 1:
                out = nn.functional.silu(out)
        noise = self.noise.expand(-1, out.shape[1], -1)
        return torch.cat([out.unflatten(-1, (-1, N_OUTPUTS))[..., self.places, :], noise[..., None]], -1)

    def knot_weights(self, numbers: Tensor) -> Tensor:
        """Linear interpolation between the knots at the strength of each line, (..., n_lines, n_knots)."""
        level = ((numbers[..., 0] - self.strength[0]) / self.strength[1]).clamp(KNOTS[0], KNOTS[-1])
        away = (level[..., None] - numbers.new_tensor(KNOTS)).abs() / (KNOTS[1] - KNOTS[0])
        return (1.0 - away).clamp_min(0.0)

    def corrected(self, numbers: Tensor) -> Tensor:
        """Numbers of the last layer, (..., n_lines, 5), as m, g, e, d and ln of the noise factor."""
        shift = torch.einsum("...kb,kbp->...kp", self.knot_weights(numbers), self.correction)
        ln_g, e, ln_d = (numbers[..., 1:4] + shift[..., self.says, :3]).unbind(-1)
        ln_noise = numbers[..., 4] + shift[..., 3]
        scale = self.scale.clone()
        for line, partner, ratio in self.ties:
            scale[line] = self.scale[partner] / ratio
        return torch.stack([numbers[..., 0].clamp(-10.0, 8.0) + torch.log(scale),
                            torch.exp(ln_g.clamp(-4.0, 1.5) - 0.3), 0.5 * e.clamp(-3.0, 3.0),
                            torch.exp(0.3 * ln_d.clamp(-3.0, 3.0)), ln_noise.clamp(-1.5, 0.25)], -1)  # fmt: skip

    def probability(self, inputs: np.ndarray, width: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Probability that a measured width is smaller than this one; all of shape (n, n_lines)."""
        with torch.inference_mode():
            width, noise = (torch.as_tensor(values, dtype=torch.float32) for values in (width, noise))
            return widths.measured_probability(self._of_arrays(inputs), width, noise).numpy()

    def draws(self, inputs: np.ndarray, n: int, seed: int, noise: np.ndarray | None = None,
              scatter: bool = True) -> np.ndarray:  # fmt: skip
        """Widths drawn for all lines together, (n_galaxies, n_lines, n), or medians; as measured, if noise is given."""
        generator = torch.Generator().manual_seed(seed)
        with torch.inference_mode():
            parameters = self._of_arrays(inputs)
            root = torch.linalg.cholesky(self.correlation.double()).float()
            z = root @ torch.randn(len(inputs), len(root), n, generator=generator) * scatter
            for line, partner, _ in self.ties:
                z[:, line] = z[:, partner]
            true = torch.exp(widths.log_width(parameters[..., None, :], z))
            if noise is None:
                return true.numpy()
            noise = torch.as_tensor(noise, dtype=torch.float32) * torch.exp(parameters[..., 4])
            uniform = torch.rand(true.shape, generator=generator).clamp(1e-7, 1.0 - 1e-7)
            return widths.measured_draws(true, noise[..., None], uniform).numpy()

    def _of_arrays(self, inputs):
        return self(torch.as_tensor(inputs, dtype=torch.float32))[0]

    @property
    def config(self) -> dict[str, Any]:
        """What the constructor takes, for files."""
        members, n_inputs, width = self.weights[0].shape
        return {"n_inputs": n_inputs, "n_lines": len(self.scale), "ties": [list(tie) for tie in self.ties],
                "width": width, "members": members}  # fmt: skip
