"""Lines as least-squares parameters: their layout in the solver's vector, priors on them, and the sampled problem."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import erfcx

from ..functional import compiled, multilevel
from ..functional.continuum import continuum_basis
from .assembly import assemble, near_windows, project

__all__ = [
    "COUPLED",
    "STRENGTH",
    "SIGMA",
    "GAMMA",
    "CENTER",
    "Lines",
    "LineLayout",
    "QuadraticPenalty",
    "AbsolutePenalty",
    "SampledLines",
]

STRENGTH, SIGMA, GAMMA, CENTER = range(4)
# Longest steps of one iteration: a factor e in strength and widths, half a line width in the centre.
MAX_LOG_STEP = 1.0
MAX_CENTER_STEP = 0.5
# Optical depth at which a line's derivatives are cut (its value goes on to the model's own tolerance).  In a clone
# the gradient is cut too: a line is learned where it matters, and cannot be drawn into the part of a continuum.
DERIVATIVE_TOLERANCE = 1e-3
# So near to a limit a parameter is at it: what is as good as nothing has hardly a gradient that could take it there.
LIMIT_MARGIN = 1e-4
# Lines couple with this many others at most, of which half precede: more than overlap in any stellar spectrum.
COUPLED = 256
# Lines that share one damping factor in the solver.
GROUP_SIZE = 8
# Share of the lines up to which it pays to take their old optical depth away and to add the new one.
FEW = 0.3
# Width of the round bottom of an L1 penalty.
ROUNDING = 1e-3


@dataclass(frozen=True)
class Lines:
    """Line parameters [Angstrom], each of shape (n_lines,), sorted by centre; strength is signed."""

    center: np.ndarray
    strength: np.ndarray
    sigma: np.ndarray
    gamma: np.ndarray

    def __len__(self):
        return len(self.center)

    def __iter__(self):
        return iter((self.center, self.strength, self.sigma, self.gamma))

    def take(self, index):
        """The lines at `index` (mask or integers)."""
        return Lines(*(a[index] for a in self))

    def sorted(self):
        """The same lines by increasing centre."""
        return self.take(np.argsort(self.center, kind="stable"))

    def join(self, other):
        """These lines and `other`, sorted."""
        return Lines(*(np.concatenate(pair) for pair in zip(self, other, strict=True))).sorted()

    @property
    def width(self):
        """sigma + gamma, a half width that neither part can make small alone."""
        return self.sigma + self.gamma

    @property
    def peak(self):
        """Optical depth at the centre, signed."""
        return self.strength * peak_profile(self.sigma, self.gamma)


def peak_profile(sigma, gamma):
    """V(0; sigma, gamma) [1/Angstrom]: erfcx of the damping parameter."""
    return erfcx(gamma / (sigma * np.sqrt(2.0))) / (sigma * np.sqrt(2.0 * np.pi))


@dataclass(frozen=True)
class LineLayout:
    """Which parameters of which lines are free, and how they lie in the solver's vector.

    The local part of theta has shape (n_lines, q) with columns among ln |strength|, ln sigma, ln gamma and
    (centre - starting centre)/(sigma + gamma at the start), in this order.

    Attributes
    ----------
    start : Lines
    free : tuple of int
        Among STRENGTH, SIGMA, GAMMA, CENTER, increasing.
    lower, upper : ndarray, shape (4,) or (n_lines, 4)
        Limits of ln |strength|, ln sigma, ln gamma and of the centre's shift in units of the starting width.
    """

    start: Lines
    free: tuple
    lower: np.ndarray
    upper: np.ndarray

    @property
    def shape(self):
        """(n_lines, q)."""
        return len(self.start), len(self.free)

    def pack(self):
        """theta of the starting lines, inside the limits, shape (n_lines, q)."""
        free = list(self.free)
        return np.clip(self._columns()[:, free], self.lower[..., free], self.upper[..., free])

    def _columns(self):
        s = self.start
        with np.errstate(divide="ignore"):
            logs = (np.log(np.abs(s.strength)), np.log(s.sigma), np.log(s.gamma))
        return np.stack([*logs, np.zeros(len(s))], axis=1)

    def unpack(self, theta):
        """The lines at theta (n_lines, q); what is not free stays as it was, bit by bit."""
        s, out = self.start, list(self.start)
        for parameter, value in zip(self.free, theta.T, strict=True):
            if parameter == CENTER:
                out[0] = s.center + value * s.width
            else:
                sign = np.where(s.strength < 0, -1.0, 1.0) if parameter == STRENGTH else 1.0
                out[parameter + 1] = sign * np.exp(value)  # `Lines` begin with the centre
        return Lines(*out)

    def move(self, theta, step):
        """theta + step (n_lines, q) with long steps shortened and the limits kept."""
        free = list(self.free)
        longest = np.array([MAX_LOG_STEP, MAX_LOG_STEP, MAX_LOG_STEP, MAX_CENTER_STEP])[free]
        return np.clip(theta + np.clip(step, -longest, longest), self.lower[..., free], self.upper[..., free])

    def blocked(self, theta, gradient):
        """True where a parameter is at its limit and descends beyond it; all (n_lines, q)."""
        free = list(self.free)
        return ((theta <= self.lower[..., free]) & (gradient > 0)) | ((theta >= self.upper[..., free]) & (gradient < 0))

    def at_bound(self, theta, held=False):
        """True where a line has a parameter at its limit that is not `held` (n_lines, q), shape (n_lines,)."""
        free = list(self.free)
        lower, upper = self.lower[..., free] + LIMIT_MARGIN, self.upper[..., free] - LIMIT_MARGIN
        return (((theta <= lower) | (theta >= upper)) & ~np.asarray(held)).any(axis=1)

    def project(self, sums):
        """Sums of `compiled.line_terms`, shape (4, n_lines), as derivatives with respect to theta (n_lines, q)."""
        return np.ascontiguousarray((sums[list(self.free)] * self.units()).T)

    def units(self):
        """What turns `compiled.line_terms` into derivatives with respect to theta, shape (q, n_lines)."""
        units = np.ones((len(self.free), len(self.start)))
        if CENTER in self.free:
            units[self.free.index(CENTER)] = self.start.width
        return units


@dataclass(frozen=True)
class QuadraticPenalty:
    """Half of sum(precision (theta - mean)^2), added to the cost; shapes of theta, zero precision for none.

    Beyond `tail` standard deviations, a number or one for each line (n_lines, 1), it goes on along its tangent (Huber
    1964, Ann. Math. Stat. 35, 73).
    """

    mean: np.ndarray
    precision: np.ndarray
    tail: float | np.ndarray = np.inf

    def _within(self, theta):
        # the part of theta - mean that lies within the tail
        longest = np.divide(self.tail, np.sqrt(self.precision), out=np.full(self.precision.shape, np.inf),
                            where=self.precision > 0.0)  # fmt: skip
        return np.clip(theta - self.mean, -longest, longest)

    def cost(self, theta):
        """Per parameter."""
        within = self._within(theta)
        return self.precision * within * (theta - self.mean - 0.5 * within)

    def gradient(self, theta):
        """Per parameter."""
        return self.precision * self._within(theta)

    def curvature(self, theta):
        """Per parameter: of the parabola that touches the penalty from above (iteratively reweighted squares)."""
        length, within = np.abs(theta - self.mean), np.abs(self._within(theta))
        return self.precision * np.divide(within, length, out=np.ones(np.shape(length)), where=within < length)


@dataclass(frozen=True)
class AbsolutePenalty:
    """Sum of precision |theta - mean|, rounded off within ROUNDING of the mean; shapes of theta."""

    mean: np.ndarray
    precision: np.ndarray

    def _length(self, theta):
        return np.sqrt((theta - self.mean) ** 2 + ROUNDING**2)

    def cost(self, theta):
        """Per parameter."""
        return self.precision * (self._length(theta) - ROUNDING)

    def gradient(self, theta):
        """Per parameter."""
        return self.precision * (theta - self.mean) / self._length(theta)

    def curvature(self, theta):
        """Per parameter: of the parabola that touches the penalty from above (iteratively reweighted squares)."""
        return self.precision / self._length(theta)


class RunningDepth:
    """Optical depth of lines; of a few that have changed since the last call, only theirs is computed.

    Parameters
    ----------
    compute : callable
        The optical depth (n_pix,) of `Lines`, a sum over the lines.
    """

    def __init__(self, compute):
        self.compute, self.lines, self.depth = compute, None, None

    def __call__(self, lines):
        """The optical depth, shape (n_pix,)."""
        few = self.lines is not None and len(self.lines) == len(lines) and np.isfinite(self.depth).all()
        if few:
            changed = np.any([a != b for a, b in zip(self.lines, lines, strict=True)], axis=0)
            few = np.count_nonzero(changed) <= FEW * len(lines)
        if few:
            self.depth = self.depth + (self.compute(lines.take(changed)) - self.compute(self.lines.take(changed)))
        else:
            self.depth = self.compute(lines)
        self.lines = lines
        return self.depth


class SampledLines:
    """Lines sampled at points, times a linear continuum, against data: the problem of a clone and of `fit_lines`.

    Parameters
    ----------
    wave : ndarray, shape (n_pix,) [Angstrom], increasing
    data, weight : ndarray, shape (n_pix,)
        The data in units of order one, and 1/sigma (0: ignored).
    basis : ndarray, shape (n_pix, m)
        The continuum is basis @ coefficients; the coefficients are the global parameters.
    layout : LineLayout
    continuum : ndarray, shape (n_pix,), optional
        A fixed continuum that multiplies the transmission if m = 0.
    form : {"opacity", "product"}
    tolerance : float
    exact_gradient : bool
        Whether only the matrix is cut where derivatives are below their tolerance, and the gradient no sooner than the
        model: where residuals are coherent, over a wrong continuum, wings that are cut off add up, and the minimum
        would lie elsewhere.
    neighbours : int, optional
        Lines couple in the solver with this many following lines at most (default: all that overlap).
    penalty : object with cost, gradient and curvature of theta, optional
    coefficients : ndarray, shape (m,), optional
        Where the continuum starts.
    ties : Ties, optional
        What lines share; these global parameters follow the coefficients.
    """

    def __init__(self, wave, data, weight, basis, layout, *, continuum=None, form="opacity", tolerance=1e-6,
                 derivative_tolerance=DERIVATIVE_TOLERANCE, exact_gradient=False, neighbours=None, penalty=None,
                 coefficients=None, ties=None):  # fmt: skip
        self.wave, self.data, self.weight, self.basis, self.layout = wave, data, weight, basis, layout
        self.continuum, self.form, self.tolerance = continuum, form, tolerance
        self.derivative_tolerance, self.neighbours, self.penalty = derivative_tolerance, neighbours, penalty
        self.coefficients = np.zeros(0) if coefficients is None else coefficients
        self.exact_gradient = exact_gradient
        self.ties, self.n_ties = ties, 0 if ties is None else len(ties)
        self.rows = np.ascontiguousarray(basis.T)
        n_lines, q = layout.shape
        self.shape = (n_lines if q else 0, q, basis.shape[1] + self.n_ties)
        self.group, self.bounds = group_lines(layout.start.center[: self.shape[0]], wave)
        self._depth = RunningDepth(lambda lines: multilevel.optical_depth(wave, *lines, tolerance))
        self._last, self._memory = None, compiled.Memory()

    def start(self):
        """theta of the starting lines and coefficients."""
        local = self.layout.pack() if self.shape[0] else np.zeros(0)
        return np.concatenate([local.ravel(), self.coefficients, np.zeros(self.n_ties)])

    def split(self, theta):
        """(lines' theta (n_lines, q), continuum coefficients (m,), ties)."""
        n, q, _ = self.shape
        coefficients, ties = np.split(theta[n * q :], [self.basis.shape[1]])
        return theta[: n * q].reshape(n, q), coefficients, ties

    def transmission(self, lines):
        """exp(-tau) or the product, shape (n_pix,)."""
        if self.form == "opacity":
            return np.exp(-self._depth(lines))
        return compiled.product_transmission(self.wave, *lines, self.tolerance)

    def evaluate(self, theta):
        """(lines, transmission, continuum, weighted residual model - data)."""
        if self._last is None or self._last[0] is not theta:
            local, coefficients, ties = self.split(theta)
            lines = self.layout.unpack(local) if self.shape[0] else self.layout.start
            lines = self.ties.apply(lines, ties) if self.n_ties else lines
            transmission = self.transmission(lines)
            # einsum, not BLAS, whose idle threads would go on spinning beside the compiled kernels
            continuum = np.einsum("mp,m->p", self.rows, coefficients) if coefficients.size else self.continuum
            residual = (transmission * continuum - self.data) * self.weight
            self._last = theta, (lines, transmission, continuum, residual)
        return self._last[1]

    def lines(self, theta):
        """The lines at theta."""
        return self.evaluate(theta)[0]

    def cost(self, theta):
        """See `levenberg_marquardt.Problem`."""
        return group_costs(self, theta, self.evaluate(theta)[-1])

    def linearize(self, theta):
        """See `levenberg_marquardt.Problem`."""
        lines, transmission, continuum, residual = self.evaluate(theta)
        dense = self.rows * (transmission * self.weight)
        if self.shape[0] == 0 and not self.n_ties:
            return dense @ residual, assemble_globals(dense)
        reach = np.maximum(compiled.half_width(lines.strength, lines.sigma, lines.gamma, self.derivative_tolerance),
                           2 * lines.width)  # fmt: skip
        lo, hi = compiled.line_windows(self.wave, lines.center, reach)
        q, units, free = self.shape[1], self.layout.units(), self.layout.free
        if self.n_ties:
            free = (*free, *self.ties.rows)
            units = np.concatenate([units, self.ties.units(lines.center).T[list(self.ties.rows)]])
        offset, columns = compiled.line_terms(
            self.wave, *lines, lo, hi, rows=free, factor=-transmission * continuum * self.weight,
            weight=units, product=np.full(len(lines), self.form == "product"), memory=self._memory,
        )  # fmt: skip
        if self.n_ties:
            dense = np.concatenate([dense, self.ties.columns(columns[q:], offset, lo, hi, self.wave.size)])
        if q == 0:
            return dense @ residual, assemble_globals(dense)
        columns = columns[:q]
        near = neighbour_windows(self.wave, lines.center, lo, hi, self.neighbours)
        matrix = assemble(columns, offset, lo, hi, dense, near)
        gradient = np.concatenate([project(columns, offset, lo, hi, residual), np.einsum("mp,p->m", dense, residual)])
        if self.exact_gradient:
            sums = self._projected(lines, -transmission * continuum * self.weight * residual)
            gradient[: len(lines) * q] = (sums[list(self.layout.free)] * units[:q]).T.ravel()
        if self.penalty is not None:
            local = self.split(theta)[0]
            gradient[: local.size] += self.penalty.gradient(local).ravel()
            matrix.add_to_diagonal(self.held_by(theta))
        return gradient, matrix

    def _projected(self, lines, vector):
        """Sums of the lines' derivatives times a vector (n_pix,), as far as the model reaches, (4, n_lines)."""
        reach = compiled.half_width(lines.strength, lines.sigma, lines.gamma, self.tolerance)
        lo, hi = compiled.line_windows(self.wave, lines.center, reach)
        return compiled.line_projections(self.wave, *lines, lo, hi, vector,
                                         np.full(len(lines), self.form == "product"))  # fmt: skip

    def coupling(self, theta):
        """See `levenberg_marquardt.Problem`."""
        return [], np.zeros((0, self.shape[0] * self.shape[1]))

    def held_by(self, theta):
        """See `levenberg_marquardt.Problem`."""
        return held_by(self, theta)

    def blocked(self, theta, gradient):
        """See `levenberg_marquardt.Problem`."""
        local = self.split(theta)[0]
        blocked = self.layout.blocked(local, self.split(gradient)[0]) if self.shape[0] else np.zeros(0, dtype=bool)
        return np.concatenate([blocked.ravel(), np.zeros(self.shape[2], dtype=bool)])

    def move(self, theta, step):
        """See `levenberg_marquardt.Problem`."""
        local, coefficients, ties = self.split(theta)
        step_local, step_coefficients, step_ties = self.split(step)
        local = self.layout.move(local, step_local) if self.shape[0] else local
        ties = self.ties.move(ties, step_ties) if self.n_ties else ties
        return np.concatenate([local.ravel(), coefficients + step_coefficients, ties])


def neighbour_windows(points, center, lo, hi, neighbours):
    """Windows lo..hi on increasing points, cut so that a line overlaps at most `neighbours` following ones."""
    if neighbours is None or len(center) <= neighbours // 2:
        return None
    half = neighbours // 2
    before = np.concatenate([np.full(half, -np.inf), center[:-half]])
    after = np.concatenate([center[half:], np.full(half, np.inf)])
    return near_windows(lo, hi, np.searchsorted(points, before), np.searchsorted(points, after))


def group_lines(center, points, size=GROUP_SIZE):
    """Groups of `size` neighbouring lines, and where each group's part of the increasing `points` begins.

    Returns
    -------
    group : ndarray of int, shape (n_lines,)
    bounds : ndarray of int, shape (n_groups + 1,)
        points[bounds[g]:bounds[g + 1]] belong to group g; the borders lie midway between lines.
    """
    n_groups = max(len(center) // size, 1)
    group = np.minimum(np.arange(len(center)) // size, n_groups - 1)
    first = np.arange(1, n_groups) * size
    inner = np.searchsorted(points, 0.5 * (center[first - 1] + center[first]))
    return group, np.concatenate([[0], inner, [len(points)]])


def group_costs(problem, theta, residual):
    """Half the sum of squares of each group, with the penalty on its lines."""
    running = np.concatenate([[0.0], np.cumsum(residual**2)])
    costs = 0.5 * np.diff(running[problem.bounds])
    if problem.penalty is not None and len(problem.group):
        extra = problem.penalty.cost(problem.split(theta)[0]).sum(axis=1)
        costs += np.bincount(problem.group, extra, minlength=len(costs))
    return costs


def assemble_globals(dense, own=None):
    """`assemble` without lines."""
    none = np.zeros(0, dtype=np.int64)
    return assemble(np.zeros((1, 0)), np.zeros(1, dtype=np.int64), none, none, dense, own=own)


def held_by(problem, theta):
    """Curvature of the penalty on the lines' theta, shape (n_lines * q,)."""
    if problem.penalty is None:
        return np.zeros(problem.shape[0] * problem.shape[1])
    return problem.penalty.curvature(problem.split(theta)[0]).ravel()


def continuum_columns(wave, degree, teff=None, domain=None):
    """`functional.continuum_basis` on numpy arrays, shape (n_pix, degree + 1); default domain: the whole axis."""
    domain = (wave[0], wave[-1]) if domain is None else domain
    return continuum_basis(torch.from_numpy(wave), degree, teff, domain).numpy()
