r"""How a `LatentSpace` learns: from the sums of every galaxy over its pixels, which hold the whole likelihood.

A step costs what the networks cost and no spectrum is looked at again. The losses are those of Liang et al. (2023, AJ
166, 75): fidelity, chi2 per pixel; similarity, that distances between latents are like those between spectra; and
consistency, that a galaxy has the same latents wherever it is placed: the spectrum that was found is observed with the
pixels, the noise and the redshift of another galaxy, and encoded again.

That is a spectrum without what the decoder lacks and without noise of its own. What ties the ends of the table to each
other are real spectra of which a part is shown: the latents of that part must be those of the whole, and their spectrum
must fit the pixels that were not shown.
"""

import copy
import math
from pathlib import Path

import torch

from specutils_blase.nn.latent_space import LatentSpace
from specutils_blase.solvers.checkpoint import read_checkpoint, write_checkpoint
from specutils_blase.solvers.survey import Statistics

__all__ = ["train_latent_space"]

BATCH = 256
RATE, DECAY = 3e-3, 1e-3
# Chi2 per pixel grows with its logarithm from here on, so that spectra that fit nothing do not lead.
ROBUST = 10.0
SIMILARITY, CONSISTENCY, PRIOR = 0.02, 0.02, 1e-4
PART_FIDELITY, PART_CONSISTENCY = 1.0, 1.0
# Epochs between two looks at the validation, and how many of these that find nothing better end the training.
LOOK, PATIENCE = 5, 6
# Galaxies, at most, from which the scales of the latents are taken.
ENOUGH = 5000


def train_latent_space(
    space: LatentSpace, seen: Statistics, part: Statistics, kept: Statistics, *, epochs: int, seed: int, report,
    checkpoint: Path | None, identity: dict[str, str],
) -> dict:  # fmt: skip
    """
    Train the two maps of `space`, in place; the weights that are best on `kept` stay.

    Parameters
    ----------
    space : LatentSpace
        With its components.
    seen, part : Statistics
        Of the galaxies to learn from: of all their pixels, and of some of them.
    kept : Statistics
        Of the galaxies that validate.
    epochs : int
    seed : int
    report : callable
        Gets the part that is done, and the chi2 per pixel of the validation.
    checkpoint : Path or None
        Where the state is written after each look at the validation, and from where a run goes on.
    identity : dict of str to str
        What a checkpoint must agree with.

    Returns
    -------
    dict
        ``epochs`` that were run, ``validation`` and ``training``: chi2 per pixel at every look.
    """
    torch.manual_seed(seed)
    n = len(seen.total)
    batch = min(BATCH, n)
    n_steps = max(n // batch, 1)
    parameters = [*space.to_latents.parameters(), *space.from_latents.parameters(), *space.encoder.parameters(),
                  *space.decoder.parameters()]  # fmt: skip
    optimizer = torch.optim.AdamW(parameters, RATE, weight_decay=DECAY)
    # Ten steps in all, of which the rate rises for one, divide by zero.
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=max(epochs * n_steps, 11),
                                                   pct_start=0.1)  # fmt: skip
    epoch, best, worse = 0, (math.inf, None), 0
    history = {"validation": [], "training": []}
    if checkpoint is not None and checkpoint.exists():
        state = read_checkpoint(checkpoint, identity)
        epoch, worse, history = state["epoch"], state["worse"], state["history"]
        best = state["best"], state["best_weights"]
        space.load_state_dict(state["weights"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["random"])
    while epoch < epochs and worse < PATIENCE:
        total = 0.0
        order = torch.randperm(n)
        for k in range(n_steps):
            chosen = order[k * batch : (k + 1) * batch].to(seen.total.device)
            loss, fidelity = _loss(space, seen.rows(chosen), part.rows(chosen))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            total += fidelity.item()
        epoch += 1
        if epoch % LOOK and epoch < epochs:
            continue
        merit = _validation(space, kept)
        history["validation"].append(merit)
        history["training"].append(total / n_steps)
        worse = 0 if merit < best[0] else worse + 1
        if worse == 0:
            best = merit, copy.deepcopy(space.state_dict())
        if checkpoint is not None:
            write_checkpoint(checkpoint, {
                "identity": identity, "epoch": epoch, "worse": worse, "history": history, "best": best[0],
                "best_weights": best[1], "weights": space.state_dict(), "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(), "random": torch.get_rng_state()})  # fmt: skip
        report(epoch / epochs, merit)
    if best[1] is None:
        raise ValueError("training found no weights with a finite chi2: spectra must have finite fluxes and inverse "
                         "variances of sizes that belong together; look for a galaxy that has others and leave it out")
    space.load_state_dict(best[1])
    with torch.no_grad():
        some = seen.rows(torch.randperm(n)[:ENOUGH].to(seen.total.device))
        space.normalize(space.guess(some.matrix, some.vector), some.matrix, some.vector)
    return {"epochs": epoch, **history}


def _loss(space, seen, part):
    """Weighted sum of all losses, and the fidelity alone."""
    latents = space.guess(seen.matrix, seen.vector)
    fidelity = _fidelity(space, latents, seen)
    less = space.guess(part.matrix, part.vector)
    of_part = PART_FIDELITY * _fidelity(space, less, seen) + PART_CONSISTENCY * ((less - latents) ** 2).mean()
    # The spectra that were found, with the factor one, as the next galaxy of the batch would be seen.
    found = space.coefficients(latents)
    other = seen.matrix.roll(1, 0)
    again = space.guess(other, torch.einsum("nkl,nl->nk", other, found))
    consistency = ((again - latents) ** 2).mean()
    inner = ((latents - latents.roll(1, 0)) ** 2).mean(1)
    outer = ((found - found.roll(1, 0)).detach()[:, 1:] ** 2).mean(1)
    difference = inner / inner.detach().mean().clamp_min(1e-6) - outer / outer.mean().clamp_min(1e-6)
    similarity = (torch.sigmoid(5.0 * difference - 2.5) + torch.sigmoid(-5.0 * difference - 2.5)).mean()
    prior = (latents**2).mean()
    return fidelity + of_part + SIMILARITY * similarity + CONSISTENCY * consistency + PRIOR * prior, fidelity


def _fidelity(space, latents, seen):
    """Chi2 per pixel, robust."""
    chi2 = (seen.total - space.reduction(latents, seen.matrix, seen.vector)).clamp_min(0.0) / seen.n_pix.clamp_min(1.0)
    return ROBUST * torch.log1p(chi2 / ROBUST).mean()


@torch.no_grad()
def _validation(space, kept: Statistics) -> float:
    """Chi2 per pixel of galaxies that were not learned from."""
    return float(_fidelity(space, space.guess(kept.matrix, kept.vector), kept))
