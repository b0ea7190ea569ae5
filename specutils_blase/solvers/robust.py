"""A robust loss by iterated weights: pixels that the model does not reach pull with bounded force, or not at all."""

import numpy as np

from .levenberg_marquardt import levenberg_marquardt

__all__ = ["robust_fit"]

# Standard deviations beyond which a pixel pulls no stronger (of Gaussian noise 0.3 % are affected), from which on it
# pulls less, and beyond which it does not pull.
CORNERS = 3.0, 6.0, 9.0
# Fits with new weights, and the change of every weight that ends them.
ROUNDS, SETTLED = 8, 0.02


def robust_fit(problem, theta, **options):
    """
    Minimise the sum of a robust function of the residuals instead of that of their squares.

    First Huber's (1964, Ann. Math. Stat. 35, 73), which has one minimum: a square up to the first corner, then linear.
    Then from there Hampel's (1974, J. Am. Stat. Assoc. 69, 383), whose slope falls to zero between the second and the
    third corner: rays all have the same sign, and a few that pull with three standard deviations each still move a
    continuum by one.  Where the residuals of an order are wider than its errors, because the model has errors of its
    own, the standard deviation is that of the residuals (from their median absolute value).

    Parameters
    ----------
    problem : ObservedLines
    theta : ndarray
        Where to start: a minimum of the squares.
    **options
        Of `levenberg_marquardt`.

    Returns
    -------
    problem : ObservedLines
        With the weights of the solution.
    solution : Solution
    share : ndarray, shape (n_pix,)
        Of the weight (inverse variance) that each pixel keeps; 1 where it is ignored anyway.
    """
    scene, share = problem.scene, np.ones(problem.scene.weight.size)
    for number in range(ROUNDS):
        state = problem.evaluate(theta)
        pull = np.abs((state.pixels * state.continuum - scene.data) * scene.weight)
        spread = np.ones(scene.n_parts)
        for part in range(scene.n_parts):
            own = pull[(scene.part == part) & (scene.weight > 0)]
            spread[part] = max(1.0, 1.4826 * float(np.median(own)))
        before, share = share, kept(pull / spread[scene.part], descends=number > 0)
        problem = problem.reweighted(scene.weight * np.sqrt(share))
        solution = levenberg_marquardt(problem, theta, **options)
        theta = solution.theta
        if number > 0 and np.max(np.abs(share - before)) < SETTLED:
            break
    return problem, solution, share


def kept(pull, *, descends):
    """Share of its weight that a pixel keeps, by its residual in standard deviations (n_pix,)."""
    first, second, third = CORNERS
    force = np.minimum(pull, first)
    if descends:
        force = force * np.clip((third - pull) / (third - second), 0.0, 1.0)
    return np.where(pull > first, force / np.maximum(pull, first), 1.0)
