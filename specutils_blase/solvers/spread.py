"""How far lines scatter about where they start: the width of their prior, from the lines themselves.

With thousands of lines the standard deviation of the starting values need not be guessed.  It is the one for which the
data are most likely, all lines integrated out as if their posterior were Gaussian (MacKay 1992, Neural Comput. 4, 415,
equation 4.9): for every kind of parameter::

    factor = sum_i w_i x_i^2 / sum_i (1 - p_i v_i)

of the variances 1/p of the prior, with the changes x in units of its standard deviation, their posterior variances v,
and the share 1 - p v that the data determine of each.  The weights w are one but for lines in the tail of the prior.
Two lines more that scatter as the prior said keep it from vanishing where the data hardly determine any.

This holds for starting values that know nothing of the data.  Those that were found from them, by a first fit, say,
have not moved because they are there already, and not because lines do not scatter.
"""

from dataclasses import replace

import numpy as np

from .covariance import definite_factor

__all__ = ["MANY", "learnable", "learned"]

# Lines, in such that are determined well, that can tell how they scatter; and lines that scatter as the prior says.
MANY, BELIEVED = 10, 2.0
# Of kinds of which the data determine a smaller share, standard deviations are not felt.
UNFELT = 0.02
# Mean square of the changes in units of their own noise below which the start is from these data.
KNOWN = 0.2
# Limits of a standard deviation in units of the parameters (logarithms, or widths of the line).
SMALLEST, LARGEST = 1e-3, 2.0


def learnable(problem, theta, kind):
    """
    Whose standard deviation can be learned.

    Parameters
    ----------
    problem : ObservedLines
        With a `QuadraticPenalty`, whose mean knows nothing of the data.
    theta : ndarray
        At or near its minimum.
    kind : ndarray of int, shape (n_lines,)
        Lines of one kind have one standard deviation for each parameter; those of a kind below zero keep theirs.

    Returns
    -------
    list of (ndarray of bool, int)
        The lines and the parameter.
    """
    local, variance, share = _determined(problem, theta)
    square = (local - problem.penalty.mean) ** 2 / np.maximum(variance, 1e-300)
    groups = [((kind == number) & ~problem.held[:, k], k)
              for number in np.unique(kind[kind >= 0]) for k in range(local.shape[1])]  # fmt: skip
    return [(mine, k) for mine, k in groups if (share[mine, k] ** 2).sum() >= MANY
            and square[mine, k].sum() >= KNOWN * share[mine, k].sum()]  # fmt: skip


def learned(problem, theta, groups, believed):
    """
    The penalty with standard deviations learned, and how much they change where that is felt.

    Parameters
    ----------
    problem, theta
        As in `learnable`.
    groups : list
        Of `learnable`.
    believed : ndarray
        The precision of the prior before anything was learned, shape of theta.

    Returns
    -------
    penalty : QuadraticPenalty
    change : float
        The largest, of a logarithm.
    """
    local, _, share = _determined(problem, theta)
    square = problem.penalty.curvature(local) * (local - problem.penalty.mean) ** 2
    precision, change = problem.penalty.precision.copy(), 0.0
    for mine, k in groups:
        before = precision[mine, k]
        extra = BELIEVED * np.mean(before / believed[mine, k])
        # from one to the next a standard deviation may fall by a factor of five
        factor = (square[mine, k].sum() + extra) / (share[mine, k].sum() + BELIEVED)
        precision[mine, k] = np.clip(before / max(factor, 0.04), LARGEST**-2.0, SMALLEST**-2.0)
        if share[mine, k].mean() > UNFELT:
            change = max(change, 0.5 * float(np.abs(np.log(precision[mine, k] / before)).max()))
    return replace(problem.penalty, precision=precision), change


def _determined(problem, theta):
    """theta of the lines, their posterior variances, and the share that the data determine; (n_lines, q) each."""
    local = problem.split(theta)[0]
    variance = definite_factor(problem.linearize(theta)[1], 0.0).inverse().local_diagonal.reshape(local.shape)
    return local, variance, np.clip(1.0 - problem.penalty.curvature(local) * variance, 0.0, 1.0)
