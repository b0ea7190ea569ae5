"""
How a `LineNetwork` learns: members that leave a part of the galaxies out, and what these say of its errors.

One network stays, which has learned what the members say on average (Hinton, Vinyals & Dean 2015, arXiv:1503.02531).
"""

import math
import time
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from specutils_blase.functional import widths
from specutils_blase.nn.line_network import LineNetwork

__all__ = ["train_line_network", "train_predictor"]

# Every galaxy is left out by one of this many members; one more sees all of them.
FOLDS = 4
EPOCHS = 12
BATCH = 512
RATE = 8e-3
DECAY = 0.01
# The one network that learns from all members: units in a layer, epochs, and the rate. Half the units of a member are
# enough for what they say on average, at a quarter of the operations.
TAUGHT_WIDTH, TAUGHT, TAUGHT_RATE = 64, 400, 1e-2
# Measured widths are taken to be at least this many standard deviations: fits of lines that are bounded at zero pile up
# just above it (2 % of [S II] 6731 within 0.001 in a catalogue), which is no sign of tiny widths with tiny errors.
LEAST = 0.1
# Levels of the distribution at which the correction makes as many measured widths be below as there should.
LEVELS = (0.025, 0.16, 0.5, 0.84, 0.975)
CORRECTION_STEPS = 200
# Galaxies, at most, from which the correction and the correlations are learned: they settle long before.
ENOUGH = 30_000


def train_line_network(inputs: Tensor, width: Tensor, noise: Tensor, *, ties, seed: int, report) -> LineNetwork:
    """
    Learn the distributions of the true widths.

    Parameters
    ----------
    inputs : Tensor, shape (n, n_inputs)
    width, noise : Tensor, shape (n, n_lines)
        Positive; NaN where a line was not measured.
    ties : sequence of (int, int, float)
        As `LineNetwork` takes them.
    seed : int
        Of the first weights, the order of the galaxies and the parts that are left out.
    report : callable
        Gets the part of the work that is done, and a figure of merit, after each epoch.

    Returns
    -------
    LineNetwork
        With one member.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        known = torch.isfinite(width) & torch.isfinite(noise)
        network = LineNetwork(inputs.shape[1], width.shape[1], ties=ties, members=FOLDS + 1).to(inputs)
        network.center.copy_(inputs.mean(0))
        network.spread.copy_(inputs.std(0).clamp_min(1e-6))
        network.scale.copy_(torch.nanmedian(width, 0).values)
        width, noise = torch.where(known, width, network.scale), torch.where(known, noise, network.scale)
        fold = torch.randint(FOLDS, (len(inputs),))
        with _one_thread():
            _descend(network, inputs, torch.maximum(width, LEAST * noise), noise, known, fold, report)
        some = torch.randperm(len(inputs))[:ENOUGH]
        with torch.no_grad():
            numbers = network.numbers(inputs[some])[fold[some], torch.arange(len(some))]
        with _one_thread():
            network = _one_of_all(network, inputs)
        network.strength.copy_(torch.stack([numbers[..., 0].mean(0), numbers[..., 0].std(0).clamp_min(1e-3)]))
        network.correction.copy_(_correction(network, numbers, width[some], noise[some], known[some]))
        with torch.no_grad():
            parameters = network.corrected(numbers)
            network.correlation.copy_(_correlation(parameters, width[some], noise[some], known[some], network.ties))
    return network.eval()


@contextmanager
def _one_thread():
    """Threads of torch gain nothing in steps so small, and wait for each other where the processors are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _descend(network, inputs, width, noise, known, fold, report):
    """Minimise the negative log likelihood; each member by the galaxies that it does not leave out."""
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    batch = _batch(len(inputs))
    n_steps = len(inputs) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=EPOCHS * n_steps)
    for epoch in range(EPOCHS):
        order, total = torch.randperm(len(inputs)), 0.0
        for k in range(n_steps):
            chosen = order[k * batch : (k + 1) * batch]
            seen = fold[chosen] != torch.arange(FOLDS + 1)[:, None]
            counted = seen[..., None] & known[chosen]
            parameters, member = network(inputs[chosen])[counted], counted.nonzero()[:, 0]
            each = widths.negative_log_likelihood(
                parameters, *(values[chosen].expand(counted.shape)[counted] for values in (width, noise)))
            total_each = each.new_zeros(FOLDS + 1).index_add(0, member, each)
            loss = total_each / member.bincount(minlength=FOLDS + 1).clamp_min(1)
            optimizer.zero_grad()
            loss.sum().backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), math.sqrt(FOLDS + 1))
            optimizer.step()
            schedule.step()
            total += loss[-1].item()
        report((epoch + 1) / EPOCHS, total / n_steps)


def _batch(n):
    """Galaxies of a step: few galaxies need as many steps as many do, 16 in an epoch at least."""
    return min(BATCH, max(32, n // 16))


def _one_of_all(network, inputs):
    """A small network that says what all members say on average: as good as they are together."""
    alone = LineNetwork(len(network.center), len(network.scale), ties=network.ties, width=TAUGHT_WIDTH).to(inputs)
    with torch.no_grad():
        # In parts, for the layers of all members are large.
        wanted = torch.cat([network.numbers(part)[..., :-1].mean(0) for part in inputs.split(BATCH)])
        alone.noise.copy_(network.noise.mean(0))
        for name in ("center", "spread", "scale"):
            getattr(alone, name).copy_(getattr(network, name))
    spread = wanted.std(0).clamp_min(1e-6)
    parameters = [*alone.weights.parameters(), *alone.biases.parameters()]
    optimizer = torch.optim.Adam(parameters, TAUGHT_RATE)
    batch = _batch(len(inputs))
    n_steps = len(inputs) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, TAUGHT_RATE, total_steps=TAUGHT * n_steps)
    for _ in range(TAUGHT):
        for chosen in torch.randperm(len(inputs))[: n_steps * batch].split(batch):
            loss = (((alone.numbers(inputs[chosen])[0, ..., :-1] - wanted[chosen]) / spread) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            # Else a step that is far too long, one in thousands, may ruin the network.
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
    return alone


def _correction(network, numbers, width, noise, known):
    """
    Shifts of ln g, e, ln d and ln noise by strength, with which galaxies that were left out are where they should be.

    For every line and knot, the share of measured widths below each of LEVELS becomes the level: the squared
    difference, with steps of 0.02 instead of sharp ones, is minimised.
    """
    shift = torch.zeros_like(network.correction, requires_grad=True)
    optimizer = torch.optim.Adam([shift], 0.05)
    levels = numbers.new_tensor(LEVELS)
    hats = network.knot_weights(numbers) * known[..., None]
    share = hats / hats.sum(0).clamp_min(1.0)
    slow = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, CORRECTION_STEPS)
    buffer = network.correction
    for _ in range(CORRECTION_STEPS):
        network.correction = shift
        below = widths.measured_probability(network.corrected(numbers), width, noise)
        steps = torch.sigmoid((levels - below[..., None]) / 0.02)
        found = torch.einsum("ikb,ikl->kbl", share, steps)
        wanted = torch.sigmoid((levels - torch.linspace(0.0005, 0.9995, 1000)[:, None]) / 0.02).mean(0)
        loss = ((found - wanted) ** 2).sum() + 1e-5 * (shift**2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        slow.step()
    network.correction = buffer
    return shift.detach()


def _correlation(parameters, width, noise, known, ties):
    """
    Correlation matrix of the z of the lines, (n_lines, n_lines): for every pair the most likely one.

    The probability of a measured width, as a standard normal number, is one part z and one part noise: their sizes are
    those at the median, so that what was measured does not select. Galaxies of which z is more than half count.
    """
    score = torch.special.ndtri(widths.measured_probability(parameters, width, noise).clamp(1e-6, 1.0 - 1e-6))
    part = 1.0 + (noise * torch.exp(parameters[..., 4] - parameters[..., 0]) / parameters[..., 1]) ** 2
    use = known & (part < 2.0)
    grid = torch.linspace(-0.98, 0.98, 99)
    n_lines = width.shape[1]
    out = torch.eye(n_lines)
    for a in range(n_lines):
        for b in range(a):
            both = use[:, a] & use[:, b]
            if both.sum() < 50:
                continue
            x, y = score[both, a, None], score[both, b, None]
            seen = grid * (part[both, a, None] * part[both, b, None]) ** -0.5
            determinant = 1.0 - seen**2
            chi2 = (x**2 + y**2 - 2.0 * seen * x * y) / determinant
            out[a, b] = out[b, a] = grid[(chi2 + torch.log(determinant)).sum(0).argmin()]
    for line, partner, _ in ties:
        out[line], out[:, line] = out[partner], out[:, partner].clone()
        out[line, line] = out[line, partner] = out[partner, line] = 1.0
    values, vectors = torch.linalg.eigh(out.double())
    out = (vectors * values.clamp_min(1e-4)) @ vectors.T
    spread = out.diagonal().sqrt()
    return (out / spread / spread[:, None]).to(width.dtype)


def train_predictor(inputs: np.ndarray, width: np.ndarray, noise: np.ndarray, ties, seed: int, show):
    """As `train_line_network`, from arrays of numpy; with a dict of what the training was like."""
    start = time.monotonic()
    seen = []

    def report(part, loss):
        seen.append(loss)
        show(f"training: {100 * part:.0f} %, -ln likelihood of a width {loss:.4f}")

    tensors = (torch.as_tensor(values, dtype=torch.float32) for values in (inputs, width, noise))
    network = train_line_network(*tensors, ties=ties, seed=seed, report=report)
    show("")
    with torch.inference_mode():
        some = torch.as_tensor(inputs[:: 1 + len(inputs) // ENOUGH], dtype=torch.float32)
        factors = torch.exp(network(some)[0, ..., 4].mean(0)).tolist()
    return network, {"epochs": EPOCHS, "negative_log_likelihood": seen[-1], "noise_factors": factors,
                     "wall_time": time.monotonic() - start}  # fmt: skip
