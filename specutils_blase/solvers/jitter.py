"""Errors of the model itself: how far each order is, beyond its noise, from what its lines can describe."""

from dataclasses import replace

import numpy as np
from scipy.optimize import brentq

from .covariance import definite_factor
from .levenberg_marquardt import levenberg_marquardt
from .spread import learnable, learned

__all__ = ["SMALLEST", "jitter_errors", "jitter_fit", "with_jitter"]

# Steps of the fit between two estimates, estimates, and the change in ln(jitter) that ends them.
STEPS, ROUNDS, SETTLED = 4, 20, 0.01
# Limits of a jitter, as a share of the continuum: below the first there is none.
SMALLEST, LARGEST = 1e-6, 10.0
# A hot pixel where a blaze has ended is any number of times the continuum: below this share of its median over the
# order pixels have no part in the estimate (as in ``quality``, which is not loaded here).
LEAST_LIGHT = 0.1


def jitter_fit(problem, theta, noisy, share=1.0, kind=None, **options):
    """
    Find the jitter of every part for which the data are most likely, and the solution with it.

    The variance of a pixel is that of its noise plus (jitter of its part x its continuum)^2.  At a maximum of the
    marginal likelihood, all other parameters integrated out as if their posterior were Gaussian::

        sum_i c_i^2 (r_i^2 / v_i^2 - (1 - h_i) / v_i) = 0

    over the pixels of a part, with the residuals r, the variances v, the continuum c, and the share h that the
    parameters take of a pixel (Patterson & Thompson 1971, Biometrika 58, 545): their number, distributed over all
    pixels of the part like c^2 / v.

    Parameters
    ----------
    problem : ObservedLines
        Weighted by the noise alone.
    theta : ndarray
        Where to start.
    noisy : ndarray of bool, shape (n_pix,)
        The pixels that have a jitter.
    share : ndarray, shape (n_pix,), optional
        Of its weight (inverse variance) that a pixel keeps.  Those that do not keep all of it have no part in the
        estimate.
    kind : ndarray of int, shape (n_lines,), optional
        Of lines whose prior is to be as wide as they scatter, see `learnable`.
    **options
        Of `levenberg_marquardt`.

    Returns
    -------
    problem : ObservedLines
        With the weights and the prior found, and the `jitter` (n_parts,): NaN where a part has none of these pixels.
    solution : Solution
    """
    scene, jitter, n_steps, moved, groups = problem.scene, None, 0, 0.0, []
    believed = getattr(problem.penalty, "precision", None)
    counted = noisy & (scene.weight > 0) & (share == 1.0)
    for number in range(ROUNDS):
        state = problem.evaluate(theta)
        taken = _determined(problem, theta, is_first=jitter is None)
        before, jitter = jitter, _most_likely(problem, scene.weight, state, counted, taken)
        problem = with_jitter(problem, scene.weight, theta, noisy, jitter, share)
        least = 0 if kind is None else 1  # what is learned is so after the second round
        last = number == ROUNDS - 1 or (number > least and max(_change(before, jitter), 0.5 * moved) < SETTLED)
        now = options if last else options | {"max_iterations": STEPS}
        solution = levenberg_marquardt(problem, theta, **now)
        n_steps, theta = n_steps + solution.n_iterations, solution.theta
        if last:
            break
        if kind is not None:
            # the first jitters are those of a model that does not fit yet
            groups = learnable(problem, theta, kind) if number > 0 and not groups else groups
            problem.penalty, moved = learned(problem, theta, groups, believed)
    return problem, replace(solution, n_iterations=n_steps)


def with_jitter(problem, weight, theta, noisy, jitter, share=1.0):
    """The problem with this jitter beside the noise of `weight`, for the continua at theta; see `jitter_fit`."""
    level = np.nan_to_num(jitter)[problem.scene.part] * problem.evaluate(theta).continuum
    extra = np.where(noisy, np.square(weight * level), 0.0)
    return problem.reweighted(weight * np.sqrt(share / (1.0 + extra)), jitter)


def _change(before, after):
    """The largest change in ln(jitter) of parts that have one."""
    has = np.nan_to_num(np.maximum(before, after)) > 10.0 * SMALLEST
    return float(np.max(np.abs(np.log(after[has] / before[has])), initial=0.0))


def _most_likely(problem, weight, state, counted, taken):
    """The jitter of every part, NaN where no pixel is counted, whose parameters are so many (n_parts,)."""
    scene, jitter = problem.scene, np.full(problem.scene.n_parts, np.nan)
    residual = state.pixels * state.continuum - scene.data
    total = np.bincount(scene.part, np.square(scene.weight * state.continuum), minlength=scene.n_parts)
    for p in np.unique(scene.part[counted]):
        mine = counted & (scene.part == p)
        mine &= state.continuum >= LEAST_LIGHT * np.median(state.continuum[mine])
        noise, level, square = weight[mine] ** -2.0, state.continuum[mine] ** 2, residual[mine] ** 2
        # of the information on the parameters, what lies in these pixels
        number = taken[p] * np.sum(np.square(scene.weight[mine]) * level) / total[p]

        def slope(log_jitter, noise=noise, level=level, square=square, number=number):
            variance = noise + np.exp(2.0 * log_jitter) * level
            share = number * (level / variance) / np.sum(level / variance)
            return float(np.sum(level / variance * (square / variance - np.maximum(1.0 - share, 0.01))))

        low, high = np.log([SMALLEST, LARGEST])
        if slope(low) <= 0.0:
            jitter[p] = SMALLEST
        else:
            jitter[p] = LARGEST if slope(high) >= 0.0 else np.exp(brentq(slope, low, high, xtol=1e-4))
    return jitter


def _determined(problem, theta, *, is_first):
    """Number of parameters that the data of each part determine, shape (n_parts,); nothing fits at first."""
    scene, (n, q, _) = problem.scene, problem.shape
    number = np.full(scene.n_parts, float(scene.n_own))
    if n and not is_first:
        factor = definite_factor(problem.linearize(theta)[1], 0.0)
        held = problem.penalty.curvature(problem.split(theta)[0]) * factor.inverse().local_diagonal.reshape(n, q)
        determined = np.where(problem.held, 0.0, 1.0 - held).sum(axis=1)
        nearest = np.searchsorted(scene.edges.mean(axis=1), problem.evaluate(theta).observed.center)
        part = scene.part[np.clip(nearest, 0, len(scene.part) - 1)]
        number += np.bincount(part, determined, minlength=scene.n_parts)
    return number


def jitter_errors(problem, theta, noisy):
    """
    Standard deviations of the jitters (n_parts,), from the information in Gaussian residuals about their variance.

    Of a jitter that can hardly be told from none it is the one that would be as likely.
    """
    scene, level = problem.scene, problem.evaluate(theta).continuum
    information = np.bincount(scene.part, noisy * (scene.weight * level) ** 4, minlength=scene.n_parts)
    with np.errstate(divide="ignore"):
        return np.minimum(1.0 / (problem.jitter * np.sqrt(2.0 * information)), (0.5 * information) ** -0.25)
