"""Levenberg-Marquardt for bordered banded problems, with a damping of its own for every line."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from scipy.ndimage import binary_dilation

__all__ = ["Problem", "Solution", "levenberg_marquardt"]

CONVERGED = "converged"
NOT_CONVERGED = "not_converged"
STALLED = "stalled"
# Least Marquardt scale of a line's parameters, as a share of the one its line feels most.
INSENSITIVE = 1e-2
# Neighbours move each other: a group whose cost rises by less than this share has not been harmed.
TOLERATED = 1e-2
# Marquardt factors rise by RISE where a step has hurt, and FALL again, but not in the next PATIENCE iterations: a group
# that is let loose at once overshoots again.
RISE, FALL, PATIENCE = 4.0, 0.25, 5
# Least curvature of any parameter, as a share of the largest in the problem.
UNFELT = 1e-16
# Curvature, in units of its own, that keeps a parameter at its limit.
FENCE = 1e8


class Problem(Protocol):
    """A sum of squares whose parameters are n_lines blocks of q local ones, then the global ones.

    The lines fall into groups of neighbours, and every residual belongs to one group.
    """

    shape: tuple[int, int, int]  # n_lines, q, n_global
    group: np.ndarray  # (n_lines,) of int, increasing: the group of each line

    def cost(self, theta):
        """Half the sum of squares of every group, shape (n_groups,)."""

    def linearize(self, theta):
        """(gradient, BorderedBanded matrix) at theta."""

    def coupling(self, theta):
        """(k global parameters, (k, n_lines * q) changes of the lines that a unit of each equals to the data)."""

    def held_by(self, theta):
        """Curvature of all that holds the lines besides the data, a diagonal (n_lines * q,)."""

    def blocked(self, theta, gradient):
        """True for parameters that are at a limit and would go beyond it, shape of theta."""

    def move(self, theta, step):
        """theta + step, shortened where the step leaves the region in which the linearisation can be trusted."""


@dataclass(frozen=True)
class Solution:
    """Where the iteration ended and why."""

    theta: np.ndarray
    cost: float
    status: str
    message: str
    n_iterations: int


def levenberg_marquardt(problem, theta, *, max_iterations=50, rtol=1e-4, atol=0.0, ridge=0.0, callback=None):
    """Minimise a `Problem`.

    Every group of lines has a Marquardt factor of its own, and where a step makes the fit of a group worse the step
    of that group is shortened: one difficult blend does not slow down ten thousand easy lines.

    Parameters
    ----------
    problem : Problem
    theta : ndarray, shape (n_lines * q + n_global,)
    max_iterations : int
    rtol, atol : float
        The iteration has converged when two steps in a row lower the cost by less than ``rtol * cost + atol``.
    ridge : float
        Constant added to the diagonal besides the Marquardt term (it damps parameters the data do not feel).
    callback : callable, optional
        Called after every iteration with (iteration, cost).

    Returns
    -------
    Solution
    """
    costs = problem.cost(theta)
    damping = _Damping(problem, len(costs), ridge)
    small = 0
    for iteration in range(1, max_iterations + 1):
        gradient, matrix = problem.linearize(theta)
        before = costs.sum()
        theta, costs, expected = _descend(problem, damping, theta, costs, gradient, matrix)
        cost = costs.sum()
        if not cost < before:
            # at the minimum to within rounding, or the linearisation does not describe the problem
            near = expected <= rtol * before + atol + 1e-9 * before
            status, text = (CONVERGED, "at the minimum to rounding") if near else (STALLED, "no step lowers the cost")
            return Solution(theta, cost, status, text, iteration)
        if callback is not None:
            callback(iteration, cost)
        small = small + 1 if before - cost <= rtol * before + atol else 0
        if small == 2:
            return Solution(theta, cost, CONVERGED, "the cost no longer falls", iteration)
    message = f"the cost was still falling after {max_iterations} iterations"
    return Solution(theta, cost, NOT_CONVERGED, message, max_iterations)


class _Damping:
    """Marquardt factors of the groups and of the global parameters."""

    def __init__(self, problem, n_groups, ridge):
        self.n_lines, self.q, self.n_global = problem.shape
        self.group, self.ridge = problem.group, ridge
        self.local, self.glob = np.full(n_groups, 1e-2), 1e-4
        self.wait = np.zeros(n_groups, dtype=int)

    def __call__(self, diagonal, data):
        """Marquardt terms of all parameters from the diagonal of the matrix and the part of it that data make."""
        n_local = self.n_lines * self.q
        (local, data), glob = (a.reshape(self.n_lines, self.q) for a in (diagonal[:n_local], data)), diagonal[n_local:]
        # a parameter that its line hardly feels is damped as if it were felt a little
        scale = np.maximum(local, INSENSITIVE * data.max(axis=1, initial=0.0, keepdims=True))
        return np.concatenate([(scale * self.local[self.group, None]).ravel(), glob * self.glob])

    def floor(self, diagonal):
        """Least curvature: a parameter that no datum feels, as a line whose window has shrunk, must not be singular."""
        return max(self.ridge, UNFELT * float(diagonal.max(initial=0.0)))

    def spread(self, share):
        """A number per group as one per parameter of the lines."""
        return np.repeat(share[self.group], self.q)

    def update(self, bad):
        """More damping for the groups in `bad`, less for the others."""
        self.wait = np.where(bad, PATIENCE, np.maximum(self.wait - 1, 0))
        change = np.where(self.wait > 0, 1.0, FALL)
        self.local = np.clip(np.where(bad, RISE * np.maximum(self.local, 1e-3), change * self.local), 1e-9, 1e4)

    def after_failure(self, bad, attempt):
        """More damping where a step hurt, and in ever wider surroundings: the cause may be a broad line next door."""
        bad = binary_dilation(bad, iterations=2**attempt) if bad.any() else np.ones_like(bad)
        self.local = np.where(bad, np.clip(8.0 * self.local, 1e-3, 1e9), self.local)
        self.glob = min(8.0 * max(self.glob, 1e-4), 1e9)


class _Felt:
    """Steps as the data feel them.

    A column of tellurics that rises and strengths that fall by as much change nothing but the prior.  Were steps of
    strengths damped, none would go along such a valley: what is damped and shortened is what the data feel of them.
    Lines that the prior holds are not in a valley: they stay, and the column would be held with them.
    """

    def __init__(self, problem, theta, diagonal):
        self.n = problem.shape[0] * problem.shape[1]
        self.data = np.maximum(diagonal[: self.n] - problem.held_by(theta), 0.0)
        self.index, rows = problem.coupling(theta)
        self.rows = rows * (self.data / np.maximum(diagonal[: self.n], 1e-300))

    def of(self, step):
        """Of every parameter of the lines, as far as the data hold it, (n_lines * q,)."""
        return step[: self.n] + step[self.n :][self.index] @ self.rows

    def back(self, felt, step):
        """The step whose lines are felt so, its global part that of `step`."""
        return np.concatenate([felt - step[self.n :][self.index] @ self.rows, step[self.n :]])

    def damped(self, matrix, damping):
        """The matrix with damping (n_lines * q + n_global,), and the damping that is left for its local diagonal."""
        local, border, corner = damping[: self.n], matrix.border, matrix.corner + np.diag(damping[self.n :])
        if len(self.index):
            weighted, border = self.rows * local, border.copy()
            border[:, self.index] += weighted.T
            corner[np.ix_(self.index, self.index)] += weighted @ self.rows.T
        return replace(matrix, border=border, corner=corner), np.concatenate([local, np.zeros(len(corner))])


def _share(damping, felt, gradient, rise):
    """Share of its own step at which the cost of every group is least, by the parabola through its slope and its rise.

    Between nothing and a half where the cost rises, all of it elsewhere.
    """
    gain = (gradient * felt).reshape(damping.n_lines, damping.q).sum(axis=1)
    slope = np.minimum(np.bincount(damping.group, gain, minlength=len(rise)), 0.0)
    return np.where(rise > 0, slope / (2.0 * (slope - np.where(rise > 0, rise, 1.0))), 1.0)


def _consistent_move(problem, theta, step, gradient, matrix, damping):
    """theta moved by the step; where that had to be shortened, the other parameters are solved for once more."""
    trial = problem.move(theta, step)
    moved = trial - theta
    short = np.abs(moved - step) > 1e-6 * np.abs(step) + 1e-12 * np.abs(theta)  # more than rounding
    if not short.any():
        return trial
    spring = np.where(short, FENCE * (matrix.diagonal + damping), 0.0)
    factor = matrix.factor(damping + spring)
    return trial if factor is None else problem.move(theta, factor.solve(spring * moved - gradient))


def _descend(problem, damping, theta, costs, gradient, matrix):
    """The point after a step that lowers the cost (or the point itself), its costs, and the gain promised."""
    diagonal, before, felt = matrix.diagonal, costs.sum(), _Felt(problem, theta, matrix.diagonal)
    blocked = problem.blocked(theta, gradient)
    gradient = np.where(blocked, 0.0, gradient)
    fence = np.where(blocked, FENCE * (diagonal + damping.ridge), 0.0) + damping.floor(diagonal)
    expected = np.inf
    for attempt in range(12):
        damped, local = felt.damped(matrix, damping(diagonal, felt.data))
        factor = damped.factor(local + fence)
        if factor is None:
            damping.after_failure(np.ones(len(costs), dtype=bool), attempt)
            continue
        step = np.where(blocked, 0.0, -factor.solve(gradient))
        if expected == np.inf:
            expected = -0.5 * float(gradient @ step)
        trial = _consistent_move(problem, theta, step, gradient, damped, local + fence)
        new = problem.cost(trial)
        # where all in all the cost rises, every rise counts
        bad = new > costs * (1.0 + (TOLERATED if new.sum() < before else 0.0))
        if bad.any() and not bad.all():
            # shorten the step where it hurt, and see which of the two is better
            moved = felt.of(trial - theta)
            share = np.where(bad, _share(damping, moved, gradient[: felt.n], new - costs), 1.0)
            partial = problem.move(theta, felt.back(damping.spread(share) * moved, trial - theta))
            partial_new = problem.cost(partial)
            if partial_new.sum() < new.sum():
                trial, new = partial, partial_new
        if new.sum() < before:
            damping.update(bad)
            damping.glob = max(damping.glob / 4.0, 1e-12)
            return trial, new, expected
        damping.after_failure(bad, attempt)
    return theta, costs, expected
