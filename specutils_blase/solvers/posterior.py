"""From the mode of a transfer fit's posterior to its mean."""

from dataclasses import replace

import numpy as np

from .covariance import definite_factor, fenced

__all__ = ["posterior_mean"]

# Pairs of points at which the gradient is averaged, and steps to the mean.
PAIRS, STEPS = 8, 2
# After so many pairs a cost that is higher than the highest by this share is too high for certain.
EARLY, CLEARLY = 2, 0.5
# A mean lies no further than this from the mode, in standard deviations of a line's parameter: one difficult blend
# must not spoil all other lines.
LONGEST_STEP = 0.5
# Highest cost of the mean above the mode's, per parameter of a line (one standard deviation in each would cost a half,
# which the global ones may): beyond it the posterior is too skewed for its nearest Gaussian. With strengths and widths
# that scatter by 0.3 it is 0.1, and vsini is 13 standard deviations off instead of 4.
HIGHEST = 0.05
# The rise of the cost may be larger than that of the parabola at the mode by this factor, and by this much: beyond, the
# covariance of the mode is not that of the nearest Gaussian. By custom the factor is 0.98 to 1; with vsini and a free
# resolving power of a slow rotator, which cannot be told apart, it was 2.8, and vsini 16 standard deviations off.
AGREES, SLACK = 1.3, 0.5


def posterior_mean(problem, theta):
    """Mean of the Gaussian that is nearest to the posterior, its covariance being that at the mode.

    A weak line's depth is the exponential of its ln strength, so that the posterior is skewed, and the modes of a
    thousand lines add up to a biased continuum.  With U the negative logarithm of the posterior, the mean m of the
    nearest Gaussian (in the Kullback-Leibler divergence) makes the gradient vanish on average (Opper & Archambeau
    2009, Neural Computation 21, 786, eq. 12)::

        < grad U(m + z) > = 0,   z ~ N(0, H^-1)

    The average is over pairs +z and -z whose white noise is +1 or -1: exact to second order for parameters that are
    independent, with noise in the couplings alone.  Newton's method finds the root; its first step is the mean of
    Tierney & Kadane (1986, J. Am. Stat. Assoc. 81, 82).

    Parameters
    ----------
    problem : ObservedLines
    theta : ndarray
        The mode.

    Returns
    -------
    ndarray
        theta itself where the cost at the mean is too high for an expansion, as with widths that the prior leaves
        loose, or for the parabola at the mode.  No parameter of a line moves by more than `LONGEST_STEP`, and a global
        one that is at a limit stays there: the Gaussian would lie on the other side of it.
    """
    if problem.shape[0] == 0:
        return theta
    n_local = problem.shape[0] * problem.shape[1]
    gradient, matrix = problem.linearize(theta)
    still = problem.blocked(theta, gradient)
    still[:n_local] = False
    factor = definite_factor(fenced(matrix, still[n_local:]), 0.0)
    white = np.random.default_rng(0).choice([-1.0, 1.0], size=(len(theta), PAIRS))
    noise = factor.root(white).T
    noise[:, :n_local][:, problem.held.ravel()] = 0.0
    noise[:, still] = 0.0
    longest = LONGEST_STEP * np.sqrt(np.maximum(factor.inverse().local_diagonal, 0.0))
    alone = replace(factor, schur=None)  # the lines, the global parameters given
    highest = problem.cost(theta).sum() + HIGHEST * n_local + 0.5 * problem.shape[2]
    mean = theta
    for _ in range(STEPS):
        start, total = mean, np.zeros(len(theta))
        for pair, z in enumerate(noise, 1):
            for point in (problem.move(start, z), problem.move(start, -z)):  # inside the limits, maybe nearer than z
                total += problem.gradient(point) - matrix @ (point - start)
            if pair in (EARLY, PAIRS):
                step = start - factor.solve(np.where(still, 0.0, total / (2 * pair))) - theta
                step[still] = 0.0
                driven = alone.root(-factor.border @ step[n_local:, None])[:, 0]
                step[:n_local] = driven + np.clip(step[:n_local] - driven, -longest, longest)
                mean = problem.move(theta, step)
                margin = 0.0 if pair == PAIRS else CLEARLY * HIGHEST * n_local
                if problem.cost(mean).sum() > highest + margin:
                    return theta
    step = mean - theta
    rise, parabola = problem.cost(mean).sum() - problem.cost(theta).sum(), 0.5 * step @ (matrix @ step)
    return theta if rise > AGREES * parabola + SLACK else mean
