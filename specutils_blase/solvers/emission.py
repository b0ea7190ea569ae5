"""Unresolved emission lines on a smooth background: where they are seen, and how wide and bright."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve
from scipy.optimize import least_squares
from scipy.special import erf

from ..functional import FWHM_PER_SIGMA, SPEED_OF_LIGHT
from .robust import kept

__all__ = ["EmissionLines", "EmissionSolution", "fit_emission"]

# Velocities that are tried first [km/s], and the longest way in ln(resolving power).
SEARCH = np.arange(-12.0, 12.01, 0.5)
FARTHEST = np.log(3.0)
# Rounds of robust weights.
ROUNDS = 6
# Standard deviations from a line at which it ends.
REACH = 7.0
# Differences for derivatives with respect to the velocity [km/s] and ln(resolving power).
STEP = 1e-3


@dataclass(frozen=True)
class EmissionLines:
    """
    Lines as the pixels of one order see them: the mean over each pixel of a Gaussian line spread function.

    Attributes
    ----------
    edges : ndarray, shape (n_pix, 2) [Angstrom]
    center : ndarray, shape (n_lines,) [Angstrom]
    member : ndarray of int, shape (n_lines,)
        The component each line belongs to; those of one component keep the ratios of `share`.
    share : ndarray, shape (n_lines,)
        Part of the component's flux, sum 1.
    basis : ndarray, shape (n_pix, m)
        Of the background.
    degree : int
        Of the Legendre polynomial in velocity.
    held : ndarray, shape (n_components,)
        Velocity [km/s] of components that do not follow the polynomial, NaN for those that do.
    """

    edges: np.ndarray
    center: np.ndarray
    member: np.ndarray
    share: np.ndarray
    basis: np.ndarray
    degree: int
    held: np.ndarray

    @property
    def n_components(self):
        """Numbers of fluxes."""
        return int(self.member[-1]) + 1

    def velocity(self, theta, wave):
        """Velocity [km/s] at which lines are seen at these wavelengths."""
        return np.polynomial.legendre.legval(self.scaled(wave), theta[:-1])

    def scaled(self, wave):
        """Wavelength as -1 to 1 across the order."""
        low, high = self.edges.min(), self.edges.max()
        return (2.0 * wave - low - high) / (high - low)

    def profiles(self, theta, own=0.0):
        """Every component in every pixel, for a flux of 1 [1/Angstrom], shape (n_pix, n_components).

        theta has the coefficients of the velocity [km/s] and ln of the resolving power; `own` is a velocity of each
        component besides.
        """
        held = self.held[self.member]
        velocity = np.where(np.isnan(held), self.velocity(theta, self.center), held)
        velocity = velocity + np.broadcast_to(own, self.n_components)[self.member]
        seen = self.center * (1.0 + velocity / SPEED_OF_LIGHT)
        sigma = seen / (FWHM_PER_SIGMA * np.exp(theta[-1]))
        first = np.searchsorted(self.edges[:, 1], seen - REACH * sigma)
        count = np.maximum(np.searchsorted(self.edges[:, 0], seen + REACH * sigma) - first, 0)
        line = np.repeat(np.arange(len(seen)), count)
        pixel = np.arange(len(line)) - np.repeat(np.cumsum(count) - count - first, count)
        lower, upper = ((edge[pixel] - seen[line]) / (np.sqrt(2.0) * sigma[line]) for edge in self.edges.T)
        out = np.zeros((len(self.edges), self.n_components))
        area = 0.5 * self.share[line] * (erf(upper) - erf(lower))
        np.add.at(out, (pixel, self.member[line]), area / np.diff(self.edges, axis=1)[pixel, 0])
        return out

    def design(self, theta):
        """What the fluxes and the background are multiplied by, shape (n_pix, n_components + m)."""
        return np.concatenate([self.profiles(theta), self.basis], axis=1)


@dataclass(frozen=True)
class EmissionSolution:
    """Result of `fit_emission`; errors grow with the square root of the reduced chi-square where that is above 1.

    Attributes
    ----------
    theta, theta_covariance : ndarray
        Coefficients of the velocity [km/s] and ln(resolving power).
    flux, flux_error : ndarray, shape (n_components,)
    own, own_error : ndarray, shape (n_components,)
        Velocity of each component alone beyond that of all, or beyond the one it is held at [km/s].
    model : ndarray, shape (n_pix,)
    share : ndarray, shape (n_pix,)
        Of the weight that each pixel keeps.
    chi2 : float
        Reduced.
    """

    theta: np.ndarray
    theta_covariance: np.ndarray
    flux: np.ndarray
    flux_error: np.ndarray
    own: np.ndarray
    own_error: np.ndarray
    model: np.ndarray
    share: np.ndarray
    chi2: float


def fit_emission(lines, data, weight, resolving_power, free_power):
    """
    Fit velocity, resolving power, fluxes and background of one order to `data` (n_pix,) with `weight` = 1 / sigma.

    Fluxes and background are solved for at every trial of the others (variable projection, Golub & Pereyra 1973, SIAM
    J. Numer. Anal. 10, 413).  Pixels that the model does not reach pull with bounded force, see `robust_fit`.

    Returns
    -------
    EmissionSolution
    """
    share = np.ones(len(data))
    start = np.zeros(lines.degree + 2)
    start[-1] = np.log(resolving_power)

    def linear(theta):
        by = weight * np.sqrt(share)
        design = by[:, None] * lines.design(theta)
        normal = design.T @ design
        # a line outside the good pixels has no flux
        normal[np.diag_indices_from(normal)] += 1e-12 * max(normal.diagonal().max(), 1e-300)
        return solve(normal, design.T @ (by * data), assume_a="pos")

    def full(free):
        return np.append(free, start[-1]) if len(free) < len(start) else free

    def residual(free):
        theta = full(free)
        return weight * np.sqrt(share) * (lines.design(theta) @ linear(theta) - data)

    costs = [np.sum(np.minimum(np.abs(residual(np.append(v, start[1:]))), 5.0) ** 2) for v in SEARCH]
    start[0] = SEARCH[np.argmin(costs)]
    free = start.copy() if free_power else start[:-1].copy()
    low, high = np.full(len(free), -np.inf), np.full(len(free), np.inf)
    if free_power:
        low[-1], high[-1] = start[-1] - FARTHEST, start[-1] + FARTHEST
    for number in range(ROUNDS):
        free = least_squares(residual, free, bounds=(low, high), x_scale="jac").x
        theta = full(free)
        pull = np.abs(weight * (lines.design(theta) @ linear(theta) - data))
        spread = max(1.0, 1.4826 * float(np.median(pull[weight > 0])))
        before, share = share, kept(pull / spread, descends=number > 0)
        if number > 0 and np.max(np.abs(share - before)) < 0.02:
            break
    return _solution(lines, data, weight * np.sqrt(share), theta, linear(theta), free_power, share)


def _solution(lines, data, weight, theta, linear, free_power, share):
    """The numbers at the minimum, with errors from the derivatives there."""
    design, n = lines.design(theta), lines.n_components
    model = design @ linear
    steps = np.eye(len(theta))[: len(theta) - (not free_power)] * STEP
    slopes = [(lines.profiles(theta + d) - lines.profiles(theta - d)) @ linear[:n] / (2.0 * STEP) for d in steps]
    jacobian = weight[:, None] * np.column_stack([*slopes, design])
    used = int(np.count_nonzero(weight))
    chi2 = float(np.sum((weight * (model - data)) ** 2)) / max(used - jacobian.shape[1], 1)
    covariance = np.linalg.pinv(jacobian.T @ jacobian, hermitian=True) * max(chi2, 1.0)
    k = len(slopes)
    errors = np.sqrt(np.diag(covariance))
    by_theta = np.zeros((len(theta), len(theta)))
    by_theta[:k, :k] = covariance[:k, :k]
    # one step from here with a velocity for every component instead of one for all
    alone = (lines.profiles(theta, STEP) - lines.profiles(theta, -STEP)) * linear[:n] / (2.0 * STEP)
    jacobian = weight[:, None] * np.column_stack([alone, *slopes[lines.degree + 1 :], design])
    inverse = np.linalg.pinv(jacobian.T @ jacobian, hermitian=True)
    own = (inverse @ (jacobian.T @ (weight * (data - model))))[:n]
    own_error = np.sqrt(np.diag(inverse)[:n] * max(chi2, 1.0))
    return EmissionSolution(theta, by_theta, linear[:n], errors[k : k + n], own, own_error, model, share, chi2)
