"""First-order optimisation of any differentiable model with a torch optimiser."""

import copy
import hashlib
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from .checkpoint import read_checkpoint, write_checkpoint

__all__ = ["MinimizeResult", "minimize"]

CONVERGED = "converged"
STOPPED = "stopped"
NOT_CONVERGED = "not_converged"
# What a checkpoint takes from a run as it is, beside the states of model, optimiser, schedule and generator.
SIMPLE_STATE = ("loss", "validation_loss", "learning_rate", "order", "best_state", "best_step", "best_loss")
SIMPLE_STATE += ("monitored", "evaluated_step", "reference_loss", "reference_step")


@dataclass(frozen=True, eq=False)
class MinimizeResult:
    """
    How a minimisation went. The model itself holds the best state that was met.

    Attributes
    ----------
    status : {"converged", "stopped", "not_converged"}
        "converged": the training loss no longer fell. "stopped": the validation loss no longer fell, whether or not the
        training loss did. "not_converged": the steps ran out, or nobody asked, with ``patience=None``.
    message : str
        The same in words, with a remedy.
    n_steps : int
        Steps made.
    best_step : int
        Number of steps after which the best state was met; 0 is the start.
    best_loss : float
        Loss of the best state: the validation loss if pixels are held out, else the training loss.
    n_ignored : int
        Pixels without a finite flux and a finite, positive sigma.
    held_out : ndarray of int, shape (n_held_out,)
        Indices of the pixels of the validation set, increasing.
    loss : ndarray, shape (n_steps,)
        Training loss before each step. With ``batch_size`` it is estimated from the batch of the step.
    validation_loss : ndarray, shape (n_steps,)
        Half the chi-square of the held-out pixels before each step, NaN where it was not computed.
    learning_rate : ndarray, shape (n_steps,)
        Learning rate of each step, of the first group of parameters.

    Examples
    --------
    >>> class Constant(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.level = nn.Parameter(torch.tensor(0.0))
    ...
    ...     def forward(self):
    ...         return self.level.expand(3)
    >>> result = minimize(Constant(), torch.tensor([1.0, 2.0, 3.0]), torch.ones(3), steps=10, lr=0.1)
    >>> print(result.status, result.n_steps, result.best_step)
    not_converged 10 10
    >>> result.message
    'the steps ran out; make more, or give patience to see when they are enough; the model holds the state after 10
    of 10 steps'
    >>> bool(result.best_loss < result.loss[-1] < result.loss[0])  # each from before its step
    True
    """

    status: str
    message: str
    n_steps: int
    best_step: int
    best_loss: float
    n_ignored: int
    held_out: np.ndarray
    loss: np.ndarray
    validation_loss: np.ndarray
    learning_rate: np.ndarray


def minimize(
    model: nn.Module,
    flux: Tensor,
    sigma: Tensor,
    *,
    steps: int = 500,
    lr: float = 1e-2,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    schedule: Callable[[torch.optim.Optimizer], LRScheduler] | None = None,
    parameters: Iterable[nn.Parameter] | None = None,
    penalty: Callable[[nn.Module], Tensor] | None = None,
    batch_size: int | None = None,
    validation: float = 0.0,
    patience: int | None = None,
    rtol: float = 1e-4,
    seed: int = 0,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_every: int = 100,
    progress: Callable[[int, float], None] | None = None,
) -> MinimizeResult:
    """
    Minimise half the chi-square of ``model()`` against ``flux``, plus a penalty; the parameters change in place.

    However the run ends, by itself, by an error or by an interrupt, the model is left in the best state that was met:
    the one with the lowest validation loss if pixels are held out, else with the lowest training loss. That loss is
    evaluated in every step, with ``batch_size`` before every pass through the pixels only, and at the end.

    Parameters
    ----------
    model : nn.Module
        ``model()`` returns the predicted flux of all pixels, shape (n_pix,). With ``batch_size`` it is called as
        ``model(pixels)`` instead, with indices (int64, on the device of ``flux``, in any order), and returns the flux
        of those pixels; :class:`~specutils_blase.nn.ForwardModel` does both. A model that draws random numbers must
        own a generator if its runs are to be repeated.
    flux : Tensor, shape (n_pix,)
        Data, in the unit of the model.
    sigma : Tensor, shape (n_pix,)
        Standard deviation of the data. Pixels whose flux or sigma is not finite, or whose sigma is not positive, are
        ignored.
    steps : int
        Largest number of steps.
    lr : float
        Learning rate, at first.
    optimizer : callable
        ``optimizer(parameters, lr=lr)`` returns a :class:`torch.optim.Optimizer`; all those of torch qualify. LBFGS
        compares the loss at several points and cannot be used with ``batch_size``.
    schedule : callable, optional
        ``schedule(optimizer)`` returns a scheduler of :mod:`torch.optim.lr_scheduler`. It is advanced after every step,
        not every pass; :class:`~torch.optim.lr_scheduler.ReduceLROnPlateau` whenever the loss has been evaluated.
    parameters : iterable of nn.Parameter, optional
        What to optimise; by default all parameters of the model that require a gradient.
    penalty : callable, optional
        ``penalty(model)`` returns a scalar that is added to the training loss: minus the logarithm of a prior.
    batch_size : int, optional
        Pixels of a step, drawn without replacement until all have had their turn; their half chi-square is scaled to
        that of all training pixels. None: all pixels in every step.
    validation : float
        Fraction of the usable pixels that is drawn at random and held out: they are not trained on. The line spread
        function ties neighbouring pixels together, so that this guards against fitting the noise, and says little
        about wavelengths without data.
    patience : int, optional
        Stop when that loss has not fallen by more than ``rtol`` within this many steps. None: make all steps.
    rtol : float
        Share of its size by which the loss must fall.
    seed : int
        Of the held-out pixels and the batches. The global random numbers of torch are neither used nor changed.
    checkpoint : path-like, optional
        File for the state of the run. If it exists, the run goes on from there instead of starting: repeat the call
        that was interrupted, on the same machine with the same number of threads, and the result is the same to the
        last bit on a CPU. ``steps``, ``patience``, ``rtol`` and ``progress`` may change; of ``penalty`` and of
        functions within the schedule nothing is recorded. The file is no product: read results off the model.
    checkpoint_every : int
        Steps between two writings. It is also written at the start, at the end, and at a `KeyboardInterrupt`.
    progress : callable, optional
        Called as ``progress(step, loss)`` after every step, counted from 0, with the loss before it.

    Returns
    -------
    MinimizeResult

    Raises
    ------
    FloatingPointError
        When the loss is no longer finite.
    ValueError
        When an argument is out of range, no pixel is usable, or the checkpoint is that of another run.

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
    >>> result = minimize(model, torch.tensor([1.0, 2.0, 3.0]), torch.ones(3), lr=0.1, patience=20)
    >>> print(f"{model.level.detach():.2f} {result.loss[0]:.2f} {result.best_loss:.2f} {result.status}")
    2.00 7.00 1.00 converged
    """
    _check_counts(steps=(steps, 0), checkpoint_every=(checkpoint_every, 1))
    _check_counts(allow_none=True, batch_size=(batch_size, 1), patience=(patience, 1))
    _check_kinds(model, flux, sigma, optimizer=optimizer, schedule=schedule, penalty=penalty, progress=progress)
    for name, value in (("lr", lr), ("rtol", rtol)):
        if not (isinstance(value, Real) and math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a finite number, not negative, got {value!r}")
    if not isinstance(seed, Integral):
        raise TypeError(f"seed must be a whole number, got {seed!r}")
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed must have at most 64 bits, got {seed}")
    if not (checkpoint is None or isinstance(checkpoint, str | os.PathLike)):
        raise TypeError(f"checkpoint must be the name of a file, got {checkpoint!r}")
    if checkpoint is not None and Path(checkpoint).expanduser().is_dir():
        raise IsADirectoryError(f"checkpoint must be the name of a file, got a folder, {str(checkpoint)!r}; add a name")
    if checkpoint is not None and not Path(checkpoint).expanduser().parent.is_dir():
        raise FileNotFoundError(f"checkpoint must lie in a folder that exists, got {str(checkpoint)!r}; make it first")
    generator = torch.Generator().manual_seed(int(seed))
    training, held_out = _split(flux, sigma, validation, generator)
    chosen = _trained(model, parameters)
    stepper = optimizer(chosen, lr=lr)
    if not isinstance(stepper, torch.optim.Optimizer):
        raise TypeError(f"optimizer must return a torch.optim.Optimizer, got {type(stepper).__name__}; give a class")
    if batch_size is not None and isinstance(stepper, torch.optim.LBFGS):
        raise ValueError("optimizer must not be LBFGS with batch_size; leave batch_size out, or use Adam")
    scheduler = None if schedule is None else schedule(stepper)
    if not (scheduler is None or isinstance(scheduler, LRScheduler | ReduceLROnPlateau)):
        raise TypeError(f"schedule must return a scheduler of torch.optim.lr_scheduler, got {scheduler!r}")
    objective = _Objective(model, flux, sigma, penalty, training, held_out, batch_size)
    run = _Run(objective, chosen, stepper, scheduler, generator, rtol)
    keeper = _Keeper(checkpoint, run, {"seed": str(seed), "validation": str(validation)})
    try:
        while run.n_steps < steps and not run.exhausted(patience):
            if run.n_steps % checkpoint_every == 0:
                keeper.write()
            run.advance()
            keeper.keep(run)
            if progress is not None:
                progress(run.n_steps - 1, run.loss[-1])
        keeper.write()
        exhausted = run.exhausted(patience)
        run.observe(objective.monitored())
    except KeyboardInterrupt:
        keeper.write()
        raise
    finally:
        model.load_state_dict(run.best_state)
    return _result(run, exhausted)


class _Objective:
    """Half the chi-square of a model and a penalty."""

    def __init__(self, model, flux, sigma, penalty, training, held_out, batch_size):
        self.model, self.flux, self.sigma, self.penalty = model, flux, sigma, penalty
        self.training, self.held_out, self.batch_size = training, held_out, batch_size

    def __call__(self, pixels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Training loss, estimated from `pixels` or of all with None, and with None the loss to be monitored."""
        if pixels is not None:
            share = len(pixels) / len(self.training)
            return self._penalized(self._half_chi_square(self._predict(pixels), pixels) / share), None
        predicted = self._predict(None)
        loss = self._penalized(self._half_chi_square(predicted[self.training], self.training))
        if not len(self.held_out):
            return loss, loss.detach()
        return loss, self._half_chi_square(predicted.detach()[self.held_out], self.held_out)

    @torch.no_grad()
    def monitored(self) -> float:
        """The loss to be monitored: of the held-out pixels, or of all training pixels if there are none."""
        if self.batch_size is None:
            return float(self(None)[1])
        if len(self.held_out):
            return float(self._half_chi_square(self._predict(self.held_out), self.held_out))
        return float(self(self.training)[0])

    def _predict(self, pixels):
        predicted = self.model() if pixels is None else self.model(pixels)
        if not isinstance(predicted, Tensor):
            raise TypeError(f"model must return a Tensor, got {type(predicted).__name__}; return the pixels' flux")
        expected = tuple(self.flux.shape) if pixels is None else tuple(pixels.shape)
        if tuple(predicted.shape) != expected:
            raise ValueError(f"model must return shape {expected}, a flux for each pixel, got {tuple(predicted.shape)}")
        return predicted

    def _half_chi_square(self, predicted, pixels):
        pull = (self.flux[pixels] - predicted) / self.sigma[pixels]
        return 0.5 * (pull**2).sum()

    def _penalized(self, loss):
        if self.penalty is None:
            return loss
        extra = self.penalty(self.model)
        if not (isinstance(extra, Tensor | Real) and torch.as_tensor(extra).ndim == 0):
            raise TypeError(f"penalty must return a scalar, got {extra!r}; sum its terms")
        return loss + extra


class _Run:
    """All that changes from step to step, and so all that a checkpoint holds."""

    def __init__(self, objective, chosen, stepper, scheduler, generator, rtol):
        self.objective, self.chosen, self.rtol = objective, chosen, rtol
        self.stepper, self.scheduler, self.generator = stepper, scheduler, generator
        self.loss, self.validation_loss, self.learning_rate = [], [], []
        self.order = objective.training[:0]  # of the pixels in this pass
        self.best_state, self.best_step, self.best_loss = self._model_state(), 0, math.inf
        # The last evaluation, and the loss that the next one must undercut by rtol to count as a fall.
        self.monitored, self.evaluated_step = math.nan, -1
        self.reference_loss, self.reference_step = math.inf, 0

    @property
    def n_steps(self) -> int:
        return len(self.loss)

    @property
    def rate(self) -> float:
        return float(self.stepper.param_groups[0]["lr"])

    def exhausted(self, patience: int | None) -> bool:
        return patience is not None and self.evaluated_step - self.reference_step >= patience

    def observe(self, monitored: float) -> None:
        """Take note of the loss of the present state."""
        self._require_finite(monitored)
        self.monitored, self.evaluated_step = monitored, self.n_steps
        if monitored < self.best_loss:
            self.best_state, self.best_step, self.best_loss = self._model_state(), self.n_steps, monitored
        fall = self.rtol * abs(self.reference_loss) if math.isfinite(self.reference_loss) else 0.0
        if monitored < self.reference_loss - fall:
            self.reference_loss, self.reference_step = monitored, self.n_steps

    def advance(self) -> None:
        """Make one step."""
        pixels = self._next_batch()
        before = []

        def closure() -> Tensor:
            loss, monitored = self.objective(pixels)
            if not before:  # later calls are trial points within the step
                before.append(float(loss.detach()))
                self._require_finite(before[0])
                if monitored is not None:
                    self.observe(float(monitored))
            if not loss.requires_grad:
                raise ValueError("model must depend on its parameters, got a flux without gradient; do not detach it")
            gradients = torch.autograd.grad(loss, self.chosen, allow_unused=True)
            for parameter, gradient in zip(self.chosen, gradients, strict=True):
                parameter.grad = gradient
            return loss

        rate = self.rate
        self.stepper.step(closure)
        evaluated = self.evaluated_step == self.n_steps
        if isinstance(self.scheduler, ReduceLROnPlateau):
            if evaluated:
                self.scheduler.step(self.monitored)
        elif self.scheduler is not None:
            self.scheduler.step()
        held_out = len(self.objective.held_out) > 0
        self.validation_loss.append(self.monitored if evaluated and held_out else math.nan)
        self.learning_rate.append(rate)
        self.loss.append(before[0])

    def state(self) -> dict:
        """A copy from which `restore` goes on."""
        changing = {"model": self.objective.model.state_dict(), "optimizer": self.stepper.state_dict()}
        if self.scheduler is not None:
            changing["schedule"] = self.scheduler.state_dict()
        state = copy.deepcopy(changing) | {"generator": self.generator.get_state()}
        for name in SIMPLE_STATE:  # lists grow, everything else is replaced and not changed
            value = getattr(self, name)
            state[name] = value.copy() if isinstance(value, list) else value
        return state

    def restore(self, state: dict) -> None:
        self.objective.model.load_state_dict(state["model"])
        self.stepper.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        for name in SIMPLE_STATE:
            setattr(self, name, state[name])
        self.order = self.order.to(self.objective.training.device)

    def _next_batch(self) -> Tensor | None:
        training, size = self.objective.training, self.objective.batch_size
        if size is None:
            return None
        start = self.n_steps % math.ceil(len(training) / size) * size
        if start == 0:
            self.observe(self.objective.monitored())
            self.order = training[torch.randperm(len(training), generator=self.generator).to(training.device)]
        return self.order[start : start + size]

    def _require_finite(self, loss):
        if not math.isfinite(loss):
            first, later = "start where model and penalty are finite", f"use a smaller lr than {self.rate:g}"
            raise FloatingPointError(f"loss is {loss} at step {self.n_steps}; {later if self.n_steps else first}")

    def _model_state(self):
        return copy.deepcopy(self.objective.model.state_dict())


class _Keeper:
    """The state after the last whole step, for an interrupt may come within one, and its file; idle without path."""

    def __init__(self, path, run, options):
        self.path = None if path is None else Path(path).expanduser()
        if self.path is None:
            return
        self.identity = options | _identity(run)
        if self.path.exists():
            run.restore(read_checkpoint(self.path, self.identity))
        self.keep(run)

    def keep(self, run):
        if self.path is not None:
            self.state = {"identity": self.identity} | run.state()

    def write(self):
        if self.path is not None:
            write_checkpoint(self.path, self.state)


def _identity(run) -> dict[str, str]:
    """What must agree for a run to go on, by name: data, parameters, optimiser and schedule, all as at the start."""
    objective, scheduler = run.objective, run.scheduler
    identity = {"number of pixels": str(len(objective.flux)), "batch_size": str(objective.batch_size)}
    for name, values in (("flux", objective.flux), ("sigma", objective.sigma)):
        content = values.detach().cpu().double().numpy().tobytes()
        identity[name] = f"SHA-256 {hashlib.sha256(content).hexdigest()[:12]}"
    position = {id(parameter): k for k, parameter in enumerate(run.chosen)}
    for name, value in objective.model.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor):
            use = f"trained as number {position[id(value)]}" if id(value) in position else "not trained"
            identity[f"model {name}"] = f"shape {tuple(value.shape)}, {value.dtype}, {use}"
    identity["optimizer"] = type(run.stepper).__name__
    for k, group in enumerate(run.stepper.param_groups):
        identity |= {f"optimizer {name} {k}": repr(value) for name, value in group.items() if name != "params"}
    identity["schedule"] = type(scheduler).__name__
    if scheduler is not None:
        identity |= {f"schedule {name}": repr(value) for name, value in scheduler.state_dict().items()}
    return identity


def _split(flux, sigma, validation, generator) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the held-out pixels, increasing, int64."""
    if flux.ndim != 1 or flux.shape != sigma.shape:
        raise ValueError(
            f"flux and sigma must both have shape (n_pix,), got {tuple(flux.shape)} and {tuple(sigma.shape)}"
        )
    usable = torch.nonzero(torch.isfinite(flux) & torch.isfinite(sigma) & (sigma > 0.0)).squeeze(1)
    if len(usable) == 0:
        expected = "at least one pixel with finite flux and positive, finite sigma"
        found = f"{int(flux.isfinite().sum())} finite fluxes and {int((sigma > 0.0).sum())} positive sigmas"
        raise ValueError(f"flux and sigma must have {expected}, got {found} of {len(flux)}; replace NaN and zeros")
    if not (isinstance(validation, Real) and 0.0 <= validation < 1.0):
        expected = "a fraction of the pixels, 0 <= validation < 1"
        raise ValueError(f"validation must be {expected}, got {validation!r}; 0.1 is usual")
    if validation == 0.0:
        return usable, usable[:0]
    count = max(1, round(validation * len(usable)))
    if count == len(usable):
        raise ValueError(f"validation must leave a pixel to train on, got {validation} of {len(usable)} pixels")
    order = usable[torch.randperm(len(usable), generator=generator).to(usable.device)]
    return order[count:].sort().values, order[:count].sort().values


def _trained(model, parameters) -> list[nn.Parameter]:
    """The parameters to optimise, which must be those of the model: no others could be restored."""
    own = list(model.parameters())
    if parameters is None:
        parameters = [parameter for parameter in own if parameter.requires_grad]
    if not isinstance(parameters, Iterable):
        raise TypeError(f"parameters must be a list of parameters of the model, got {parameters!r}")
    chosen = list(parameters)
    if not {id(parameter) for parameter in chosen} <= {id(parameter) for parameter in own}:
        raise ValueError("parameters must be parameters of the model; make what else is trained a part of the model")
    if not chosen:
        raise ValueError("parameters must hold something to train, got none; give the model an nn.Parameter")
    return chosen


def _check_kinds(model, flux, sigma, **functions):
    """Raise unless the arguments are a module, tensors, and functions or None."""
    for name, value, kind in (("model", model, nn.Module), ("flux", flux, Tensor), ("sigma", sigma, Tensor)):
        if not isinstance(value, kind):
            remedy = "use torch.as_tensor" if kind is Tensor else "derive a class from torch.nn.Module"
            raise TypeError(f"{name} must be a {kind.__name__}, got {type(value).__name__}; {remedy}")
    for name, value in functions.items():
        if not (callable(value) or (value is None and name != "optimizer")):
            raise TypeError(f"{name} must be a function or a class, got {value!r}; see the example")


def _check_counts(allow_none=False, **counts):
    for name, (value, lowest) in counts.items():
        whole = isinstance(value, Integral) and not isinstance(value, bool) and value >= lowest
        if not (whole or (value is None and allow_none)):
            allowed = f"at least {lowest}, or None for no such limit" if allow_none else f"at least {lowest}"
            raise ValueError(f"{name} must be a whole number of {allowed}, got {value!r}")


def _result(run, exhausted) -> MinimizeResult:
    objective = run.objective
    held_out = objective.held_out.cpu().numpy()
    if not exhausted:
        status, message = NOT_CONVERGED, "the steps ran out; make more, or give patience to see when they are enough"
    elif len(held_out):
        status, message = STOPPED, "the validation loss no longer falls; this is where to stop"
    else:
        status, message = CONVERGED, "the training loss no longer falls"
    return MinimizeResult(
        status=status,
        message=f"{message}; the model holds the state after {run.best_step} of {run.n_steps} steps",
        n_steps=run.n_steps,
        best_step=run.best_step,
        best_loss=run.best_loss,
        n_ignored=len(objective.flux) - len(objective.training) - len(held_out),
        held_out=held_out,
        loss=np.array(run.loss),
        validation_loss=np.array(run.validation_loss),
        learning_rate=np.array(run.learning_rate),
    )
