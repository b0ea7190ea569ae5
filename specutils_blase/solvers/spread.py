"""How far lines scatter about where they start: the width of their prior, from the lines themselves.

With thousands of lines the standard deviation of the starting values need not be guessed.  It is the one for which the
data are most likely, all lines integrated out as if their posterior were Gaussian (MacKay 1992, Neural Comput. 4, 415,
equation 4.9): for every kind of parameter::

    factor = sum_i w_i x_i^2 / sum_i (1 - p_i v_i)

of the variances 1/p of the prior, with the changes x in units of its standard deviation, their posterior variances v,
and the share 1 - p v that the data determine of each.  The weights w are one but for lines in the tail of the prior.
"""

from dataclasses import replace

import numpy as np

from .covariance import definite_factor
from .levenberg_marquardt import levenberg_marquardt

__all__ = ["MANY", "learned", "spread_fit"]

# Fewer lines do not know how they scatter.
MANY = 100
# Steps of the fit between two estimates, estimates, and the changes of ln(standard deviation) that end them: those of
# kinds of which the data determine less than a small share are not felt.
STEPS, ROUNDS, SETTLED, UNFELT = 4, 25, 0.02, 0.02
# Limits of a standard deviation in units of the parameters (logarithms, or widths of the line).
SMALLEST, LARGEST = 1e-3, 2.0


def learned(problem, theta, kind):
    """
    The penalty with standard deviations learned, and how much they change where that is felt.

    Parameters
    ----------
    problem : SampledLines or ObservedLines
        With a `QuadraticPenalty`.
    theta : ndarray
        At or near its minimum.
    kind : ndarray of int, shape (n_lines,)
        Lines of one kind have one standard deviation for each parameter; those of a kind below zero keep theirs.

    Returns
    -------
    penalty : QuadraticPenalty
    change : float
        The largest, of a logarithm.
    """
    penalty, local = problem.penalty, problem.split(theta)[0]
    curvature = penalty.curvature(local)
    variance = definite_factor(problem.linearize(theta)[1], 0.0).inverse().local_diagonal.reshape(local.shape)
    square, share = curvature * (local - penalty.mean) ** 2, np.clip(1.0 - curvature * variance, 0.0, 1.0)
    held = getattr(problem, "held", np.zeros(local.shape, dtype=bool))
    precision, change = penalty.precision.copy(), 0.0
    for number in np.unique(kind[kind >= 0]):
        for k in range(local.shape[1]):
            mine = (kind == number) & ~held[:, k]
            if np.count_nonzero(mine) < MANY:
                continue
            factor = square[mine, k].sum() / max(share[mine, k].sum(), 1e-3 * np.count_nonzero(mine))
            # from one to the next a standard deviation may fall by a factor of five
            before = precision[mine, k]
            precision[mine, k] = np.clip(before / max(factor, 0.04), LARGEST**-2.0, SMALLEST**-2.0)
            if share[mine, k].mean() > UNFELT:
                change = max(change, 0.5 * float(np.abs(np.log(precision[mine, k] / before)).max()))
    return replace(penalty, precision=precision), change


def spread_fit(problem, theta, kind, **options):
    """
    Minimise a problem whose prior is as wide as its lines scatter; see `learned`.

    Returns
    -------
    solution : Solution
        Of the problem, whose `penalty` is replaced.
    """
    n_steps = 0
    for number in range(ROUNDS):
        last = number == ROUNDS - 1
        solution = levenberg_marquardt(problem, theta, **(options if last else options | {"max_iterations": STEPS}))
        n_steps, theta = n_steps + solution.n_iterations, solution.theta
        if last:
            break
        problem.penalty, change = learned(problem, theta, kind)
        if change < SETTLED:
            solution = levenberg_marquardt(problem, theta, **options)
            n_steps += solution.n_iterations
            break
    return replace(solution, n_iterations=n_steps)
