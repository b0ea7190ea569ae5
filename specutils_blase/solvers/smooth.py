"""Smooth continua: splines whose coefficients are held together, as closely as the data themselves ask for."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.interpolate import BSpline

from .covariance import definite_factor
from .jitter import jitter_fit, with_jitter
from .levenberg_marquardt import levenberg_marquardt
from .robust import robust_fit

__all__ = ["Smoothness", "effective_continuum", "smooth_fit", "solved", "spline_columns"]

CUBIC = 3
# Order of the differences that are held together: what they leave alone is a cubic.  With the second, of which a blaze
# is full, an order without ripples is worth 19 parameters instead of 5.
ORDER = 4
# Solutions with another smoothness, the change of the number of effective parameters that ends them, steps towards the
# smoothness in between, how much longer these are than the fixed point says, which is approached slowly, and the
# longest in the logarithm.
ROUNDS, SETTLED, INNER, RELAXATION, LONGEST = 8, 0.1, 60, 1.5, 5.0
# Limits of the strength of a penalty: differences of 10 and of 1e-6 of the continuum.
WEAKEST, STRONGEST = 1e-2, 1e12


def spline_columns(wave, n_intervals, domain):
    """Cubic B-splines on equal intervals, shape (n_pix, n_intervals + 3)."""
    step = (domain[1] - domain[0]) / n_intervals
    knots = domain[0] + step * np.arange(-CUBIC, n_intervals + CUBIC + 1)
    inside = np.clip(wave, knots[CUBIC], np.nextafter(knots[-CUBIC - 1], -np.inf))  # where rounding has put the ends
    return BSpline.design_matrix(inside, knots, CUBIC).toarray()


@dataclass(frozen=True)
class Smoothness:
    """Penalty on the fourth differences of the continua's coefficients (Eilers & Marx 1996, Stat. Sci. 11, 89).

    Half of strength[p] sum_k (D c[p])_k^2 for part p: the prior of a random walk that is integrated three times, whose
    steps have the standard deviation strength^-1/2.  It leaves cubic polynomials alone.

    Attributes
    ----------
    strength : ndarray, shape (n_parts,)
    """

    strength: np.ndarray

    @staticmethod
    def matrix(size):
        """D'D for `size` coefficients."""
        differences = np.diff(np.eye(size), ORDER, axis=0)
        return differences.T @ differences

    def cost(self, continuum):
        """Per difference, shape (n_parts, m - ORDER), for coefficients (n_parts, m)."""
        return 0.5 * self.strength[:, None] * np.diff(continuum, ORDER, axis=1) ** 2

    def gradient(self, continuum):
        """Shape of `continuum`."""
        return self.strength[:, None] * (continuum @ self.matrix(continuum.shape[1]))


def effective_continuum(problem, corner):
    """Number of parameters of every continuum that the data determine, shape (n_parts,).

    ``corner`` is the covariance matrix of the global parameters.
    """
    m = problem.scene.basis.shape[1]
    penalty = Smoothness.matrix(m)
    traces = np.array([np.sum(penalty * corner[own, own]) for own in problem.continuum_places()])
    return m - problem.smoothness.strength * traces


def smooth_fit(problem, solution, **options):
    """
    Find the smoothness of each continuum for which the data are most likely, and the solution with it.

    The strength of a penalty has the largest marginal likelihood (all parameters integrated out, their posterior
    Gaussian) where it does not change in::

        strength <- noise (rank(S) - strength tr(S V)) / (c' S c)

    with the covariance V of the coefficients c and S = D'D (Wood & Fasiolo 2017, Biometrics 73, 1071, eq. 4).  The
    noise is one, or, where the residuals of an order are wider than its errors because the model has errors of its own,
    the square of their width (from the median): a continuum must not follow the errors of the lines.

    Parameters
    ----------
    problem : ObservedLines
        With a smoothness to start from.
    solution : Solution
        Of that problem.
    **options
        Of `levenberg_marquardt`.

    Returns
    -------
    problem : ObservedLines
        With the smoothness found.
    solution : Solution
    """
    before = np.inf
    for _ in range(ROUNDS):
        factor = definite_factor(problem.linearize(solution.theta)[1], 0.0)
        smoothness, now = _most_likely(problem, factor.schur.matrix, solution.theta)
        if np.max(np.abs(now - before)) < SETTLED:
            break
        before, problem = now, problem.smoothed(smoothness)
        again = levenberg_marquardt(problem, solution.theta, **options)
        solution = replace(again, n_iterations=solution.n_iterations + again.n_iterations)
    return problem, solution


def _most_likely(problem, matrix, theta):
    """The `Smoothness`, and the number of parameters, where the problem is what its linearisation at theta says.

    ``matrix`` is that of the global parameters, those of the lines eliminated.
    """
    scene, places, m = problem.scene, problem.continuum_places(), problem.scene.basis.shape[1]
    penalty, strength = Smoothness.matrix(m), problem.smoothness.strength
    pull, noise = np.abs(problem.evaluate(theta).residual), np.ones(scene.n_parts)
    for p in range(scene.n_parts):
        noise[p] = max(1.0, 1.4826 * float(np.median(pull[(scene.part == p) & (scene.weight > 0)]))) ** 2
    rhs, plain, before = matrix @ problem.split(theta)[1], matrix.copy(), np.inf
    for own, value in zip(places, strength, strict=True):
        plain[own, own] -= value * penalty
    for _ in range(INNER):
        matrix = plain.copy()
        for own, value in zip(places, strength, strict=True):
            matrix[own, own] += value * penalty
        covariance = np.linalg.inv(matrix)
        best = covariance @ rhs
        now = m - strength * np.array([np.sum(penalty * covariance[own, own]) for own in places])
        if np.max(np.abs(now - before)) < 0.1 * SETTLED:
            break
        rough, before = np.array([best[own] @ penalty @ best[own] for own in places]), now
        target = noise * np.maximum(now - ORDER, 1e-3) / np.maximum(rough, 1e-30)
        change = np.clip(np.log(target / strength), -LONGEST, LONGEST)
        strength = np.clip(strength * np.exp(RELAXATION * change), WEAKEST, STRONGEST)
    return Smoothness(strength), now


def solved(problem, robust, noisy=None, kind=None, **options):
    """
    Solve the problem of a fit: its parameters, and what the data themselves say about their weights and its continua.

    Parameters
    ----------
    problem : ObservedLines
    robust : bool
    noisy : ndarray of bool, shape (n_pix,), optional
        The pixels with a jitter, see `jitter_fit`.
    kind : ndarray of int, shape (n_lines,), optional
        Of lines whose prior is learned beside the jitter.
    **options
        Of `levenberg_marquardt`.

    Returns
    -------
    problem : ObservedLines
        With the weights, the jitter and the smoothness of the solution.
    solution : Solution
    share : ndarray, shape (n_pix,), or None
        Of `robust_fit`.
    """
    noise, share = problem, None
    if noisy is None or problem.smoothness is not None:
        solution = levenberg_marquardt(problem, problem.start(), **options)
    if noisy is not None and problem.smoothness is not None:  # a stiff continuum would pass for errors of the model
        noise, solution = smooth_fit(problem, solution, **options)
        problem, solution = jitter_fit(noise, solution.theta, noisy, kind=kind, **options)
    elif noisy is not None:
        problem, solution = jitter_fit(problem, problem.start(), noisy, kind=kind, **options)
    if problem.smoothness is not None:
        problem, solution = smooth_fit(problem, solution, **options)
    if robust:
        problem, solution, share = robust_fit(problem, solution.theta, **options)
    if robust and noisy is not None:  # rays have made the jitter larger, and it has hidden smaller ones
        noise = noise.smoothed(problem.smoothness)
        problem, solution = jitter_fit(noise, solution.theta, noisy, share, kind, **options)
        noise.penalty = problem.penalty
        problem = with_jitter(noise, noise.scene.weight, solution.theta, noisy, problem.jitter)
        problem, solution, share = robust_fit(problem, solution.theta, **options)
    if robust and problem.smoothness is not None:
        problem, solution = smooth_fit(problem, solution, **options)
    return problem, solution, share
