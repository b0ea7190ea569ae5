"""From the mode of a transfer fit's posterior to its mean."""

import numpy as np

from .lines import STRENGTH, definite_factor

__all__ = ["posterior_mean"]

# Variances of ln strength up to which the expansion is trusted; larger ones count as this.
LARGEST_VARIANCE = 0.1
# Longest step in ln strength for which the mean is believed.
LONGEST_STEP = 0.5
# Step of the differences in the global parameters, in standard deviations.
DIFFERENCE = 0.3


def posterior_mean(problem, theta):
    """Mean of the posterior, to second order in the logarithms of the strengths.

    A weak line's depth is the exponential of its ln strength, so that the posterior is skewed, and the modes of a
    thousand lines add up to a biased continuum.  With U the negative logarithm of the posterior and C the covariance
    of the strengths (Tierney & Kadane 1986, J. Am. Stat. Assoc. 81, 82, to this order)::

        mean = mode - H^-1 t/2,   t_j = sum_kl (d3U/d theta_j d theta_k d theta_l) C_kl

    The second derivatives of an exponential are its first ones, which leaves t = J'J diag(C) + d tr(C J'J)/d theta;
    the derivative of the trace is twice a row sum of C * J'J for a strength, and a difference for a global parameter.

    Parameters
    ----------
    problem : ObservedLines
    theta : ndarray
        The mode.

    Returns
    -------
    ndarray
        theta itself where anything but strengths is free in the lines, whose skewness this expansion does not hold,
        and where the step is too long for an expansion.
    """
    if problem.shape[0] == 0 or problem.layout.free != (STRENGTH,):
        return theta
    n_local = problem.shape[0] * problem.shape[1]
    _, matrix = problem.linearize(theta)
    factor = definite_factor(matrix, 0.0)
    inverse = factor.inverse()
    covariance = _strength_covariance(problem, inverse.band)
    prior = problem.penalty.curvature(problem.split(theta)[0]).ravel()
    variance = np.concatenate([covariance[:, 0], np.zeros(problem.shape[2])])
    skewness = matrix @ variance
    product = covariance * matrix.band
    product[:, 0] -= prior * covariance[:, 0]
    skewness[:n_local] += 2.0 * _row_sums(product) - prior * variance[:n_local]
    for k, step in enumerate(DIFFERENCE * np.sqrt(np.diag(inverse.corner)), start=n_local):
        shift = np.zeros(len(theta))
        shift[k] = step
        up, down = problem.move(theta, shift), problem.move(theta, -shift)  # inside the limits
        upper, lower = (_trace(covariance, problem.linearize(point)[1].band) for point in (up, down))
        skewness[k] += (upper - lower) / (up[k] - down[k])
    step = -0.5 * factor.solve(skewness)
    mean = problem.move(theta, step)
    # the cost of a step of one standard deviation in every strength, twice over, is the number of strengths
    rise = problem.cost(mean).sum() - problem.cost(theta).sum()
    is_small = np.abs(step[:n_local]).max() <= LONGEST_STEP and rise <= n_local
    return mean if is_small else theta


def _strength_covariance(problem, band):
    """The band of the inverse, zero but between free strengths, with large variances reduced."""
    column = problem.layout.free.index(STRENGTH)
    mine = np.zeros(problem.shape[:2])
    mine[:, column] = ~problem.held[:, column]
    scale = mine.ravel() * np.sqrt(np.minimum(LARGEST_VARIANCE / np.maximum(band[:, 0], 1e-300), 1.0))
    out = band.copy()
    for d in range(out.shape[1]):
        out[: len(scale) - d, d] *= scale[: len(scale) - d] * scale[d:]
    return out


def _row_sums(band):
    """Row sums of the symmetric matrix whose lower band this is."""
    out = band.sum(axis=1)
    for d in range(1, band.shape[1]):
        out[d:] += band[: len(out) - d, d]
    return out


def _trace(a, b):
    """tr(A B) of two symmetric matrices from their lower bands, which may differ in width."""
    width = min(a.shape[1], b.shape[1])
    product = a[:, :width] * b[:, :width]
    return 2.0 * product.sum() - product[:, 0].sum()
