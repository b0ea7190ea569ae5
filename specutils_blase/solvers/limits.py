"""Errors beside a limit: of a posterior that is cut off there."""

from dataclasses import replace

import numpy as np

from .covariance import definite_factor, fenced
from .levenberg_marquardt import FENCE

__all__ = ["one_sided"]

# A posterior is followed until its logarithm has fallen by this much, and integrated at so many points.
FAR, POINTS = 8.0, 33
# First step along it, as a share of what its slope and its curvature let expect; the longest way, in factors of two;
# and steps by which the other parameters follow.
FIRST, DOUBLINGS, FOLLOWING = 1e-2, 40, 3


def one_sided(problem, theta, matrix):
    """
    The normal matrix of a posterior that is cut off by limits of global parameters.

    A parameter x that ended at its limit is followed away from there, all others in its wake, until the posterior has
    fallen.  Its curvature becomes what gives the other global parameters, along the straight line that the matrix
    knows, the mean square way that they have gone, and so they have the errors that a value inside the limit would
    bring.  (A resolving power and a rotation that is too slow to be seen differ in the fourth order of vsini alone:
    the curvature at the limit tells nothing.)

    Parameters
    ----------
    problem : ObservedLines
    theta : ndarray
        The minimum.
    matrix : BorderedBanded
        There or near to it.

    Returns
    -------
    BorderedBanded
    """
    n_local = problem.shape[0] * problem.shape[1]
    gradient = problem.gradient(theta)
    blocked = np.flatnonzero(problem.blocked(theta, gradient)[n_local:]) + n_local
    if not blocked.size:
        return matrix
    place, lowest = np.arange(len(matrix.corner)) + n_local, problem.cost(theta).sum()
    follow = definite_factor(fenced(matrix, np.isin(place, blocked)), 0.0)
    added, others = np.zeros(len(place)), np.where(np.isin(place, blocked), 0.0, np.diag(matrix.corner))
    for k in blocked:
        alone = definite_factor(fenced(matrix, np.isin(place, blocked) & (place != k)), 0.0)
        wake = alone.solve(np.eye(1, theta.size, k)[0])
        if not wake[k] > 0.0:
            continue
        inward = np.sign(gradient[k]) * wake / wake[k]

        def along(way, inward=inward):
            point = problem.move(theta + way * inward, np.zeros(theta.size))  # inside all limits
            for _ in range(FOLLOWING):
                slope = problem.gradient(point)
                slope[blocked] = 0.0
                point = problem.move(point, -follow.solve(slope))
                if not np.isfinite(point).all():
                    return np.inf, 0.0
            return problem.cost(point).sum() - lowest, others @ (point - theta)[n_local:] ** 2

        way, weight, gone = _followed(along, FIRST / (np.abs(gradient[k]) + wake[k] ** -0.5))
        per_unit = others @ inward[n_local:] ** 2
        mean_square = np.sum(weight * (gone / per_unit if per_unit > 0 else way**2)) / np.sum(weight)
        added[k - n_local] = max(1.0 / mean_square - 1.0 / wake[k], 0.0) if mean_square > 0.0 else FENCE / wake[k]
    return replace(matrix, corner=matrix.corner + np.diag(added))


def _followed(along, step):
    """Ways x > 0, the weight exp(-rise(x)) of each in a mean, and the second value of `along`, (`POINTS`,) each."""
    last = step
    for _ in range(DOUBLINGS):
        if not along(last)[0] < FAR:
            break
        last *= 2.0
    way = np.linspace(0.0, last, POINTS)
    rise, gone = np.array([(0.0, 0.0), *(along(x) for x in way[1:])]).T
    weight = np.exp(-np.nan_to_num(rise, nan=1e3, posinf=1e3))
    weight[[0, -1]] *= 0.5
    return way, weight, np.where(weight > 0, gone, 0.0)
