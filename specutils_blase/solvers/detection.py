"""Lines that a model lacks, found in the residual of its fit.

At a trial wavelength the score test (Rao 1948, Proc. Camb. Phil. Soc. 44, 50) asks whether a line of strength zero
would be stronger, if everything that is free in the fit could follow.  With the weighted residual r, its derivative c
with respect to the strength, the Jacobian J, the normal matrix H = J'J + priors and the gradient g of the fit::

    s = c'r - c'J H^-1 g,    v = c'c - c'J H^-1 J'c,    strength = -s / v  +-  v^-1/2,    S/N = -s / v^1/2

Noise alone makes the S/N along the trial wavelengths a Gaussian process of unit variance.  That it exceeds u anywhere
has the probability 1 - (1 - Q(u)) exp(-L / 2 pi exp(-u^2 / 2)) or less, with the tail Q of the normal distribution and
the length L of the curve that c / |c| draws on the unit sphere: Rice's rate of up-crossings, summed over wavelengths,
or the tube of Hotelling (1939, Am. J. Math. 61, 440; Davies 1987, Biometrika 74, 33).  Exposures of one star at several
velocities add up their s and v, once where the star's lines rest and once where those of the air do.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import maximum_filter1d, median_filter
from scipy.optimize import brentq
from scipy.stats import norm

from ..functional import SPEED_OF_LIGHT
from .exposures import Epoch, air_ratio, element, known_lines
from .lines import CENTER, Lines, peak_profile

__all__ = ["Found", "search"]

# Trial wavelengths in a resolution element; a peak is the highest within so many elements.
SAMPLING, APART = 3, 2
# A line is looked for where the free parameters leave this share of its information (not all: beyond that, rounding
# and couplings that are cut are felt), and the pixels see so much of what they see elsewhere (no black cores).
OWN, SEEN = 0.003, 0.05
# Found lines whose strength comes out below so many standard deviations are none: others have taken their place.
KEPT = 3.0
# Neighbouring lines from which the widths of a trial line are taken.
NEIGHBOURS = 31
# Searches, each after fits with what the one before found, and these fits at least, with centres in between.
ROUNDS, FITS = 4, 2
# ln of the likelihood ratio beyond which a frame is decided.
DECIDED = 3.0


@dataclass(frozen=True, eq=False)
class Found:
    """Lines that were found; arrays of shape (n_lines,).

    Attributes
    ----------
    lines : Lines
        At rest where they belong; strengths as seen in the first exposure.
    is_star : ndarray of bool
        Whose they are, or are taken to be.
    log_odds : ndarray
        ln of the likelihood ratio star : ground; NaN with one exposure.
    snr : ndarray
    n_epochs : ndarray of int
    """

    lines: Lines
    is_star: np.ndarray
    log_odds: np.ndarray
    snr: np.ndarray
    n_epochs: np.ndarray

    @classmethod
    def none(cls):
        """No line."""
        zero = np.zeros(0)
        return cls(Lines(zero, zero, zero, zero), zero.astype(bool), zero, zero, zero.astype(int))

    def __len__(self):
        return len(self.snr)

    def join(self, other):
        """These and `other`, one after the other."""
        lines = Lines(*(np.concatenate(pair) for pair in zip(self.lines, other.lines, strict=True)))
        names = ("is_star", "log_odds", "snr", "n_epochs")
        return Found(lines, *(np.concatenate([getattr(self, name), getattr(other, name)]) for name in names))

    def take(self, index):
        """Some of the lines."""
        names = ("is_star", "log_odds", "snr", "n_epochs")
        return Found(self.lines.take(index), *(getattr(self, name)[index] for name in names))

    @property
    def is_decided(self):
        """Whether the frame of a line is known."""
        return np.abs(np.nan_to_num(self.log_odds)) > DECIDED


def search(exposures, false_alarm):
    """
    Find the lines that the models of some exposures lack.

    Parameters
    ----------
    exposures : sequence of Exposure
        Of one star; several must have one.
    false_alarm : float
        Probability that noise alone gives a line.

    Returns
    -------
    found : Found
    errors : ndarray, shape (2, n_lines) [Angstrom]
        Standard deviations of strengths and centres.
    info : dict
        ``threshold`` of the S/N, ``n_places``: independent ones that exceed it as often, ``scale`` (list of arrays):
        factor on the noise of each part of every exposure, ``chance``: a function of the S/N.
    """
    epochs = [Epoch(exposure, exposures[0]) for exposure in exposures]
    has_star = exposures[0].problem.scene.has_star
    found, frames = Found.none(), (True, False) if len(epochs) > 1 else (has_star,)
    for _ in range(ROUNDS):
        curves = [_Curve.scan(epochs, is_star, keep_scale=k > 0) for k, is_star in enumerate(frames)]
        length = sum(curve.length for curve in curves)
        threshold = brentq(lambda u, length: chance(u, length) - false_alarm, -40.0, 40.0, (length,))
        more = _candidates(epochs, curves, threshold)
        if not len(more):
            break
        found = _fitted(epochs, found.join(more))
    strength, errors = _measured(epochs, found)
    found = replace(found, lines=replace(found.lines, strength=strength))
    found, errors_center = _centred(epochs, found)
    n_places = float(-np.log1p(-false_alarm) / norm.sf(threshold))
    info = {"threshold": threshold, "n_places": n_places, "scale": [epoch.scale for epoch in epochs],
            "chance": lambda snr: chance(snr, length)}  # fmt: skip
    return found, np.array([errors, errors_center]), info


def chance(snr, length):
    """Probability that noise exceeds a S/N anywhere along a curve of that length on the unit sphere."""
    return -np.expm1(norm.logcdf(snr) - length / (2.0 * np.pi) * np.exp(-0.5 * np.square(snr)))


@dataclass(frozen=True, eq=False)
class _Curve:
    """The statistic along trial wavelengths at rest in the star or on the ground; arrays of shape (n_trials,)."""

    lines: Lines
    is_star: bool
    snr: np.ndarray  # -inf where no line is looked for
    information: np.ndarray
    n_epochs: np.ndarray
    step: float  # between trials, of ln(wavelength)
    length: float

    @classmethod
    def scan(cls, epochs, is_star, *, keep_scale):
        """Search all epochs, with the noise of each order as it comes out or, `keep_scale`, as it was."""
        step = min(element(epoch.exposure, is_star) for epoch in epochs) / SPEED_OF_LIGHT / SAMPLING
        ends = [epoch.problem.scene.edges[[0, -1], [0, 1]] / epoch.factor_of(is_star) for epoch in epochs]
        lower, upper = np.min(ends), np.max(ends)
        wave = lower * np.exp(step * np.arange(int(np.log(upper / lower) / step) + 1))
        lines = _trials(epochs[0].exposure, wave, is_star)
        n = len(wave)
        sums, seen, overlap, count = np.zeros((2, n)), np.zeros(n), np.zeros(n - 1), np.zeros(n, dtype=int)
        for epoch in epochs:
            score, information, full, product = epoch.scores(lines, np.full(n, is_star))
            part, usual = epoch.part_of(wave * epoch.factor_of(is_star)), np.zeros(epoch.problem.scene.n_parts)
            for p in np.unique(part):
                usual[p] = np.median(full[(part == p) & (full > 0)]) if (full[part == p] > 0).any() else np.inf
            used = (information > OWN * full) & (full > SEEN * usual[part])
            pull = np.abs(score) / np.sqrt(np.where(used, information, 1.0))
            if not keep_scale:
                for p in np.unique(part[used]):
                    epoch.scale[p] = max(1.0, np.median(pull[used & (part == p)]) / norm.ppf(0.75))
            precision = epoch.scale[part] ** -2.0
            terms = np.stack([score, information]) * precision
            sums += np.where(used, terms, 0.0)
            seen += np.where(used, full * precision, 0.0)
            overlap += np.where(used[1:] & used[:-1], product * np.sqrt(precision[1:] * precision[:-1]), 0.0)
            count += used
        is_searched = count > 0
        snr = np.divide(-sums[0], np.sqrt(sums[1]), out=np.full(n, -np.inf), where=is_searched)
        both = is_searched[1:] & is_searched[:-1]
        cosine = overlap[both] / np.sqrt(seen[1:][both] * seen[:-1][both])
        length = float(np.sum(np.arccos(np.clip(cosine, -1.0, 1.0))))
        return cls(lines, is_star, snr, sums[1], count, step, length)

    def peaks(self, threshold):
        """Where peaks are that exceed the threshold: numbers of trials, wavelengths and heights of their vertices."""
        size = 2 * APART * SAMPLING + 1
        inside = np.arange(1, len(self.snr) - 1)
        top = self.snr[inside]
        is_peak = np.isfinite(top) & (top == maximum_filter1d(self.snr, size, mode="nearest")[inside])
        index = inside[is_peak]
        left, top, right = (self.snr[index + k] for k in (-1, 0, 1))
        left, right = (np.where(np.isfinite(side), side, top - 1.0) for side in (left, right))
        curvature = np.minimum(left - 2.0 * top + right, -1e-12)
        shift = np.clip(0.5 * (left - right) / curvature, -0.5, 0.5)
        height = top - 0.25 * (left - right) * shift
        high = height > threshold
        return index[high], (self.lines.center[index] * np.exp(shift * self.step))[high], height[high]

    def best(self, wave):
        """Highest S/N within a resolution element of wavelengths."""
        highest = maximum_filter1d(self.snr, 2 * SAMPLING + 1, mode="nearest")
        index = np.clip(np.searchsorted(self.lines.center, wave), 0, len(highest) - 1)
        return np.maximum(highest[index], 0.0)


def _trials(exposure, wave, is_star):
    """Lines of optical depth one at wavelengths (n,), with the median widths of those near in the model."""
    sigma, gamma = np.empty((2, len(wave)))
    for flag in (True, False):
        known, mine = known_lines(exposure, flag), np.broadcast_to(is_star, len(wave)) == flag
        nearest = np.clip(np.searchsorted(known.center, wave[mine]), 0, len(known) - 1)
        for target, width in ((sigma, known.sigma), (gamma, known.gamma)):
            target[mine] = median_filter(width / known.center, NEIGHBOURS, mode="nearest")[nearest] * wave[mine]
    return Lines(wave, 1.0 / peak_profile(sigma, gamma), sigma, gamma)


def _candidates(epochs, curves, threshold):
    """The peaks that no higher one could have made, in the frame in which each is higher, as a `Found`."""
    peaks = [curve.peaks(threshold) for curve in curves]
    owner = np.repeat(np.arange(len(curves)), [len(index) for index, *_ in peaks])
    index, wave, snr = (np.concatenate(a) for a in zip(*peaks, strict=True))
    factors = np.array([[epoch.factor_of(curve.is_star) for curve in curves] for epoch in epochs])
    seen, taken = np.log(wave * factors[:, owner]), []
    apart = APART * SAMPLING * max(curve.step for curve in curves)
    for k in np.argsort(-snr):
        if not taken or np.min(np.abs(seen[:, taken] - seen[:, [k]])) > apart:
            taken.append(k)
    index, wave, snr, owner = index[taken], wave[taken], snr[taken], owner[taken]
    is_star = np.array([curve.is_star for curve in curves])[owner]
    information, n_epochs = (np.array([getattr(curves[k], name)[i] for k, i in zip(owner, index, strict=True)])
                             for name in ("information", "n_epochs"))  # fmt: skip
    log_odds = np.full(len(wave), np.nan)
    if len(curves) > 1:
        # where an exposure sees the line, it would be seen in the other frame
        elsewhere = wave * factors[:, owner] / factors[:, 1 - owner]
        rival = np.array([curves[1 - k].best(row) for k, row in zip(owner, elsewhere.T, strict=True)])
        rival = rival.reshape(len(wave), len(epochs))
        odds = 0.5 * (snr**2 - np.max(rival, axis=1, initial=0.0) ** 2)
        log_odds = np.where(is_star, odds, -odds)
        moved = is_star != (log_odds >= -DECIDED)  # what is not decided goes to the star
        there = np.argmax(rival, axis=1)[None] if len(wave) else np.zeros((1, 0), dtype=int)
        wave = np.where(moved, np.take_along_axis(elsewhere, there, axis=0)[0], wave)
        is_star = is_star ^ moved
    lines = _trials(epochs[0].exposure, wave, is_star)
    return Found(replace(lines, strength=snr / np.sqrt(information)), is_star, log_odds, snr, n_epochs)


def _fitted(epochs, found):
    """The lines as they come out of fits with them and no others: what is none, or one with another, is left out."""
    fits = 0
    while True:
        for epoch in epochs:
            epoch.refit(found)
        strength, error = _measured(epochs, found)
        found = replace(found, lines=replace(found.lines, strength=strength))
        merged = _merged(epochs, found)
        if len(merged) < len(found):  # neither strengths nor centres of such lines are known
            found, fits = merged, 0
            continue
        fits, is_line = fits + 1, strength > KEPT * error
        if fits >= FITS and is_line.all():
            return found
        found = (_centred(epochs, found)[0] if fits < FITS else found).take(is_line)
        for epoch in epochs:  # missing lines had a part in it
            epoch.ratio = air_ratio(epoch.exposure, epochs[0].exposure)


def _elements(epochs, found):
    """Full width at half maximum [Angstrom] with which each line is seen where it is seen best."""
    width = [min(element(epoch.exposure, flag) for epoch in epochs) for flag in (False, True)]
    return found.lines.center * np.where(found.is_star, width[1], width[0]) / SPEED_OF_LIGHT


def _merged(epochs, found):
    """Lines of one frame within a resolution element of one that was seen better are one, with their sum."""
    if len(found) < 2:
        return found
    center, strength = found.lines.center, found.lines.strength
    size, owner = _elements(epochs, found), np.full(len(found), -1)
    for k in np.argsort(-found.snr):
        if owner[k] < 0:
            near = (found.is_star == found.is_star[k]) & (np.abs(center - center[k]) < size[k])
            owner[near & (owner < 0)] = k
    moved = strength * (center - center[owner])
    total, moment = (np.bincount(owner, values, len(found)) for values in (strength, moved))
    lines = replace(found.lines, strength=total, center=center + moment / np.maximum(total, 1e-300))
    return replace(found, lines=lines).take(np.unique(owner))


def _measured(epochs, found):
    """Strengths and their standard deviations, all exposures together, shape (2, n_lines)."""
    if not len(found):
        return np.zeros((2, 0))
    total = np.zeros((2, len(found)))
    for epoch in epochs:
        part = epoch.part_of(found.lines.center * epoch.factor_of(found.is_star))
        total += np.array(epoch.strengths()) * epoch.scale[part] ** -2.0
    information = np.maximum(total[0], 1e-300)
    return np.maximum(total[1], 1e-3 * np.sqrt(information)) / information, information**-0.5


def _centred(epochs, found):
    """The lines at the centres to which the residual moves them, and the standard deviations of these."""
    if not len(found):
        return found, np.zeros(0)
    total = np.zeros((2, len(found)))
    for epoch in epochs:
        part = epoch.part_of(found.lines.center * epoch.factor_of(found.is_star))
        total += np.array(epoch.scores(found.lines, found.is_star, CENTER)[:2]) * epoch.scale[part] ** -2.0
    information = np.maximum(total[1], 1e-300)
    longest = 0.5 * _elements(epochs, found)
    center = found.lines.center + np.clip(-total[0] / information, -longest, longest)
    return replace(found, lines=replace(found.lines, center=center)), information**-0.5
