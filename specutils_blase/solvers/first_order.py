"""First-order optimisation of any differentiable model with a torch optimiser."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

__all__ = ["minimize"]


def minimize(
    model: nn.Module,
    flux: Tensor,
    sigma: Tensor,
    *,
    steps: int = 500,
    lr: float = 1e-2,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    parameters: Iterable[nn.Parameter] | None = None,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """
    Minimise half the chi-square of ``model()`` against ``flux``, plus a penalty; the parameters change in place.

    Parameters
    ----------
    model : nn.Module
        ``model()`` returns the predicted flux.
    flux : Tensor, shape (n_pix,)
        Data, in the unit of the model.
    sigma : Tensor, shape (n_pix,)
        Standard deviation of the data. Pixels whose flux or sigma is not finite, or whose sigma is not positive, are
        ignored.
    steps : int
        Number of steps.
    lr : float
        Learning rate.
    optimizer : callable
        ``optimizer(parameters, lr=lr)`` returns a :class:`torch.optim.Optimizer`; all those of torch qualify.
    parameters : iterable of nn.Parameter, optional
        What to optimise; by default all parameters of the model that require a gradient.
    penalty : callable, optional
        ``penalty(model)`` returns a scalar that is added: minus the logarithm of a prior.
    progress : callable, optional
        Called as ``progress(step, loss)`` after every step.

    Returns
    -------
    list of float
        Loss before each step.

    Raises
    ------
    FloatingPointError
        When the loss is no longer finite.

    Examples
    --------
    >>> class Constant(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.level = nn.Parameter(torch.tensor(0.0))
    ...
    ...     def forward(self):
    ...         return self.level.expand(3)
    >>> model = Constant()
    >>> losses = minimize(model, torch.tensor([1.0, 2.0, 3.0]), torch.ones(3), steps=300, lr=0.1)
    >>> print(f"{model.level.detach():.2f} {losses[0]:.2f} {losses[-1]:.2f}")
    2.00 7.00 1.00
    """
    good = torch.isfinite(flux) & torch.isfinite(sigma) & (sigma > 0.0)
    if not bool(good.any()):
        raise ValueError("flux and sigma must have at least one pixel with finite flux and positive, finite sigma")
    chosen = [p for p in model.parameters() if p.requires_grad] if parameters is None else list(parameters)
    stepper = optimizer(chosen, lr=lr)
    losses: list[float] = []

    def closure() -> Tensor:
        pull = (flux[good] - model()[good]) / sigma[good]
        loss = 0.5 * (pull**2).sum()
        if penalty is not None:
            loss = loss + penalty(model)
        for parameter, gradient in zip(chosen, torch.autograd.grad(loss, chosen, allow_unused=True), strict=True):
            parameter.grad = gradient
        return loss

    for step in range(steps):
        loss = float(stepper.step(closure).detach())
        if not math.isfinite(loss):
            raise FloatingPointError(f"loss is {loss} at step {step}; use a smaller lr than {lr}")
        losses.append(loss)
        if progress is not None:
            progress(step, loss)
    return losses
