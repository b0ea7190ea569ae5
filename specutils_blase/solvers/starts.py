"""What starting values are worth: how far they lie from the truth, learned in the fit, and errors that know it.

Lines that overlap are determined by the data and by where they start together.  With a prior of precision P on the way
from there, the matrix H = F + P of the fit and starts that scatter with variances T about the truth, estimates have
the mean square error (Hoerl & Kennard 1970, Technometrics 12, 55, equation 4.3)::

    E = H^-1 (F + P T P) H^-1 = H^-1 - H^-1 (P - P T P) H^-1

noise and what is left of the errors of the starts: H^-1 if the prior says how they scatter, T = 1/P, and less if they
are better than that.  The ways d of the lines tell T, one number for every kind of parameter (`start_scatter`): their
mean squares are those of noise and of what the fit has mended::

    <d d'> = H^-1 F H^-1 + (1 - H^-1 P) T (1 - P H^-1)

So a prior that is too wide costs iterations, but neither the estimates nor their errors depend much on it.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import nnls

from .covariance import definite_factor
from .levenberg_marquardt import CONVERGED, levenberg_marquardt
from .lines import QuadraticPenalty

__all__ = ["StartedFit", "fit_from_starts", "expected_error"]

# Standard deviation of the prior to begin with, in logarithms and in widths of a line, and how many times that of the
# starts it is to be: an estimate of theirs must not be what holds lines that start far off.
FIRST, WIDER = 0.3, 2.0
# Priors that are as wide as wanted to this share are; rounds of widening them.
CLOSE, ROUNDS = 0.1, 4
# Lines, in such that are determined well, that can tell how far starts are off.
MANY = 10
# Mean square of the ways in units of the noise below which the starts have seen the data.
SEEN = 0.5
# Ways are clipped at so many standard deviations: a start that is plainly wrong says nothing about the others.
CLIP = 3.0
# Lines that are known better than this do not count for more.
WELL_KNOWN = 0.05
# Step of the derivative of an inverse: its error, a share as large, makes errors larger.
STEP = 1e-4


@dataclass(frozen=True)
class StartedFit:
    """Where a fit ended and what was learned of its starts; standard deviations of shape (q,)."""

    solution: object
    prior: np.ndarray
    scatter: np.ndarray  # that of the prior where nothing was learned
    learned: np.ndarray  # of bool


def fit_from_starts(problem, weak, *, unit=1.0, **options):
    """
    Fit lines with a prior that is as wide as their starts need.

    It begins with `FIRST` and becomes wider where the starts are worse than that; it is `weak` where there are too few
    lines that could tell, so that a few lines are fitted by least squares.

    Parameters
    ----------
    problem : SampledLines
        Its penalty is replaced.
    weak : ndarray, shape (q,)
        Largest standard deviations, of logarithms and widths of the line.
    unit : float
        Variance of the residual's noise.
    **options
        Of `levenberg_marquardt`, in every round.

    Returns
    -------
    StartedFit
    """
    theta, prior, n_iterations = problem.start(), np.minimum(FIRST, weak), 0
    if not problem.layout.free:
        return StartedFit(levenberg_marquardt(problem, theta, **options), prior, prior, np.zeros(0, dtype=bool))
    mean = problem.layout.pack()
    for _ in range(ROUNDS):
        problem.penalty = QuadraticPenalty(mean, np.broadcast_to(unit * prior**-2.0, mean.shape))
        solution = levenberg_marquardt(problem, theta, **options)
        theta, n_iterations = solution.theta, n_iterations + solution.n_iterations
        scatter, many, seen = start_scatter(problem, theta, prior, unit)
        wanted = np.where(many, np.where(seen, prior, np.clip(WIDER * scatter, prior, weak)), weak)
        if np.all(wanted < (1.0 + CLOSE) * prior) or solution.status != CONVERGED:
            break
        prior = wanted
    learned = many & ~seen
    solution = replace(solution, n_iterations=n_iterations)
    return StartedFit(solution, prior, np.where(learned, np.minimum(scatter, prior), prior), learned)


def start_scatter(problem, theta, prior, unit=1.0):
    """
    How far the starts of lines lie from the truth.

    Parameters
    ----------
    problem : SampledLines
    theta : ndarray
        The minimum with the prior.
    prior : ndarray, shape (q,)
        Its standard deviations.
    unit : float
        As in `fit_from_starts`.

    Returns
    -------
    scatter : ndarray, shape (q,)
        Standard deviations about the truth, one standard error up.
    many : ndarray of bool, shape (q,)
        Whether there are enough lines to tell.
    seen : ndarray of bool, shape (q,)
        Whether the lines have moved less than the noise alone would have moved them: the starts are from these data.
    """
    n, q, _ = problem.shape
    precision = prior**-2.0
    _, matrix = problem.linearize(theta)
    _, inverse, is_definite = _inverted(matrix)
    variance = unit * inverse.local_diagonal.reshape(n, q)
    # of every kind of parameter what its prior takes off the variances: H^-1 P_k H^-1
    kinds = unit * np.diag(precision)
    reliefs = [_relief(matrix, inverse, kind * is_definite, n) for kind in kinds]
    taken = unit * np.stack([relief.local_diagonal.reshape(n, q) for relief in reliefs])
    noise = np.maximum(variance - taken.sum(axis=0), 0.0)
    share = np.clip(1.0 - precision * variance, 0.0, 1.0)
    mended = taken * precision[:, None, None]  # [k]: what a variance of one of the starts of kind k adds to the squares
    mended[np.arange(q), :, np.arange(q)] += 1.0 - 2.0 * precision[:, None] * variance.T
    square = (problem.split(theta)[0] - problem.layout.pack()) ** 2
    weight = share**2 / np.maximum(noise, WELL_KNOWN**2)
    total = np.maximum(weight.sum(axis=0), 1e-300)
    slopes = np.einsum("ja,kja->ak", weight, mended) / total[:, None]
    clipped, scatter = square, np.zeros(q)
    for _ in range(4):
        scatter = nnls(slopes, np.maximum((weight * (clipped - noise)).sum(axis=0) / total, 0.0))[0]
        expected = noise + np.einsum("k,kja->ja", scatter, mended)
        clipped = np.minimum(square, CLIP**2 * expected)
    error = np.sqrt(2.0 * ((weight * expected) ** 2).sum(axis=0)) / total / np.maximum(np.diag(slopes), 1e-300)
    seen = (share**2 * np.minimum(square, CLIP**2 * noise)).sum(axis=0) < SEEN * (share**2 * noise).sum(axis=0)
    return np.sqrt(scatter + error), (share**2).sum(axis=0) >= MANY, seen


def expected_error(problem, theta, started, unit=1.0):
    """
    The mean square error of a fit near the band, in units of the residual's noise.

    Parameters
    ----------
    problem : SampledLines
    theta : ndarray
    started : StartedFit
    unit : float
        As in `fit_from_starts`.

    Returns
    -------
    matrix : BorderedBanded
        Of the fit.
    factor : Factor
        Its own.
    error : BorderedBanded
        In place of its inverse.
    n_parameters : float
        That the data, not the prior, determine.
    """
    _, matrix = problem.linearize(theta)
    (factor, inverse, is_definite), precision = _inverted(matrix), started.prior**-2.0
    excess = unit * precision * (1.0 - precision * started.scatter**2)
    relief = _relief(matrix, inverse, excess * is_definite, problem.shape[0])
    held = unit * np.sum(precision * inverse.local_diagonal.reshape(problem.layout.shape)) if len(precision) else 0.0
    error = _combined(inverse, relief, lambda inverse, relief: inverse - relief)
    return matrix, factor, error, len(inverse.local_diagonal) + len(inverse.corner) - held


def _inverted(matrix):
    """(factor, inverse, whether that needed no ridge): with one, as for exact data, the inverse has no derivative."""
    factor = matrix.factor()
    is_definite = factor is not None
    factor = factor if is_definite else definite_factor(matrix, 0.0)
    return factor, factor.inverse(), is_definite


def _relief(matrix, inverse, values, n_lines):
    """H^-1 D H^-1 near the band, of a matrix, its inverse, and the values (q,) of a diagonal D; never too large."""
    added = STEP * np.concatenate([np.tile(values, n_lines), np.zeros(len(matrix.corner))])
    if not added.any():
        return _combined(inverse, inverse, lambda a, b: np.zeros_like(a))
    return _combined(inverse, matrix.factor(added).inverse(), lambda before, after: (before - after) / STEP)


def _combined(first, second, function):
    """The same function of two matrices' elements."""
    names = ("tiles", "border", "corner")
    return replace(first, **{name: function(getattr(first, name), getattr(second, name)) for name in names})
