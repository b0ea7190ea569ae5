"""An exposure that is searched for lines: scores of lines that are not in its model, and fits with more lines."""

import copy
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csc_array, csr_array, vstack

from ..functional import FWHM_PER_SIGMA, SPEED_OF_LIGHT, compiled
from .covariance import definite_factor
from .levenberg_marquardt import levenberg_marquardt
from .lines import CENTER, COUPLED, STRENGTH, LineLayout, Lines, QuadraticPenalty
from .observed import ObservedLines
from .scene import STAR, relativistic_factor

__all__ = ["Epoch", "Exposure", "air_ratio", "element", "known_lines"]

# Standard deviation of ln strength of added lines while they are fitted; it is taken out again.
SPREAD = 2.0
# As in a fit, but from nearby.
STEPS = {"max_iterations": 10, "rtol": 1e-5, "atol": 0.01}
# Numbers that are worked on at a time; overlaps with lines that correlate less are nothing.
CHUNK, NOTHING = 2**23, 1e-3


@dataclass(frozen=True, eq=False)
class Exposure:
    """A finished fit of one exposure.

    Attributes
    ----------
    problem : ObservedLines
    theta : ndarray
    ground : float
        By what wavelengths at rest on the ground are multiplied to be those of the problem.
    numbers : ndarray of int, shape (n_parts,), optional
        Which of the orders of the input, `n_orders` in all, are fitted.
    n_orders : int
    """

    problem: ObservedLines
    theta: np.ndarray
    ground: float = 1.0
    numbers: np.ndarray | tuple = (0,)
    n_orders: int = 1

    @classmethod
    def kept(cls, problem, theta, **options):
        """Without what the problem remembers to be fast."""
        problem = copy.copy(problem)
        problem._last, problem._memory, problem._seen = None, compiled.Memory(), compiled.Memory()
        return cls(problem, theta, **options)

    def spread(self, values):
        """Values of the parts as those of all orders, NaN where none is fitted."""
        out = np.full(self.n_orders, np.nan)
        out[np.asarray(self.numbers)] = values
        return out

    @property
    def velocity(self):
        """Of the star [km/s]."""
        return self.problem.globals(self.theta).velocity

    def factor(self, is_star):
        """By what wavelengths at rest, in the star or on the ground, are multiplied to be those of the problem."""
        return np.where(is_star, relativistic_factor(self.velocity), self.ground)


def element(exposure, is_star):
    """Full width at half maximum [km/s] with which a typical line of star or air is seen."""
    problem = exposure.problem
    state, response, step = problem.evaluate(exposure.theta), problem._response, problem.scene.step
    grid = np.arange(response.pointer[-1]) - np.repeat(response.pointer[:-1], np.diff(response.pointer))
    sums = [np.add.reduceat(response.values * grid**k, response.pointer[:-1]) for k in range(3)]
    used = (problem.scene.weight > 0) & (sums[0] > 0)
    mean, square = (row[used] / sums[0][used] for row in sums[1:])
    variance = np.median(square - mean**2) * step**2
    if is_star:
        offset = np.arange(len(state.kernel)) - len(state.kernel) // 2
        variance += step**2 * np.sum(state.kernel * offset**2)
    lines = known_lines(exposure, is_star)
    return FWHM_PER_SIGMA * np.sqrt(variance + np.median(SPEED_OF_LIGHT * lines.width / lines.center) ** 2)


def known_lines(exposure, is_star):
    """The lines of star or air that are in the model, those of the other where there are none."""
    lines = exposure.problem.lines(exposure.theta)
    mine = (exposure.problem.scene.species == STAR) == is_star
    return lines.take(mine).sorted() if mine.any() else lines.sorted()


class Epoch:
    """An exposure that is searched: its linearisation, and the lines that were added."""

    def __init__(self, exposure, first):
        self.exposure, self.problem, self.theta = exposure, exposure.problem, exposure.theta
        self.ratio = air_ratio(exposure, first)
        self.scale = np.ones(self.problem.scene.n_parts)
        self.linearize()

    def linearize(self):
        """What `scores` needs."""
        problem, n_pix = self.problem, len(self.problem.scene.data)
        self.state = problem.evaluate(self.theta)
        gradient, self.matrix = problem.linearize(self.theta, neighbours=COUPLED)
        self.factor = definite_factor(self.matrix, 0.0)
        self.inverse = self.factor.inverse()
        self.step = self.factor.solve(gradient)
        self.columns = csc_array((n_pix, 0))
        if problem.shape[0]:
            self.columns = sparse_columns(*problem._columns(self.state), n_pix)
        common, own = problem._dense(self.state)
        pixels = np.arange(n_pix)
        parts = [csr_array((row, (own.part * len(own.values) + k, pixels)),
                           shape=(own.n_parts * len(own.values), n_pix))
                 for k, row in enumerate(own.values)]  # fmt: skip
        self.shared = csr_array(vstack([csr_array(common), sum(parts)]))

    def factor_of(self, is_star):
        """See `Exposure.factor`."""
        return np.where(is_star, relativistic_factor(self.state.globals.velocity), self.exposure.ground)

    def scores(self, lines, is_star, parameter=STRENGTH):
        """
        Scores of one parameter of lines that need not be in the model.

        Parameters
        ----------
        lines : Lines
            As in `Found`.
        is_star : ndarray of bool, shape (n_lines,)
        parameter : {STRENGTH, CENTER}

        Returns
        -------
        score, information, seen : ndarray, shape (n_lines,)
            s, v and c'c.
        overlap : ndarray, shape (n_lines - 1,)
            Products of the derivatives of neighbours.
        """
        ratio = np.where(is_star, 1.0, self.ratio)
        length = np.where(is_star, 1.0, self.exposure.ground)
        own = Lines(lines.center * length, lines.strength * ratio * length, lines.sigma * length, lines.gamma * length)
        terms = self.problem.trial_columns(self.state, own, np.where(is_star, STAR, 0), parameter)
        columns = sparse_columns(*terms, len(self.problem.scene.data))
        columns.data /= np.repeat(lines.width if parameter == CENTER else lines.strength, np.diff(columns.indptr))
        seen = np.asarray((columns**2).sum(axis=0))
        overlap = np.asarray((columns[:, :-1] * columns[:, 1:]).sum(axis=0))
        score, information = columns.T @ self.state.residual, seen.copy()
        place = np.searchsorted(self.state.observed.center, lines.center * self.factor_of(is_star))
        size = max(CHUNK // (len(self.inverse.corner) + 1), 1)
        for first in range(0, len(lines), size):
            some = slice(first, first + size)
            taken, moved = self._absorbed(columns[:, some], seen[some], place[some])
            information[some] -= taken
            score[some] -= moved
        return score, information, seen, overlap

    def _absorbed(self, columns, seen, place):
        """c'J H^-1 J'c and c'J H^-1 g for columns (n_pix, k) at `place` among the lines."""
        n = self.columns.shape[1]
        shared = (self.shared @ columns).toarray().T
        moved = shared @ self.step[n:]
        taken = np.sum(shared @ self.inverse.corner * shared, axis=1)
        if n == 0:
            return taken, moved
        overlap = (self.columns.T @ columns).tocsc()
        overlap.sort_indices()
        column = np.repeat(np.arange(len(seen)), np.diff(overlap.indptr))
        row, weight = overlap.indices, overlap.data
        near = np.abs(row // self.problem.shape[1] - place[column]) <= COUPLED // 2
        near &= weight**2 > NOTHING**2 * self.matrix.local_diagonal[row] * seen[column]
        row, weight, column = row[near].astype(np.int64), weight[near], column[near]
        moved += np.bincount(column, weight * self.step[row], minlength=len(seen))
        felt, first = np.unique(column, return_index=True)
        if felt.size:
            taken[felt] = self.factor.group_variances(self.inverse, row, weight, np.append(first, len(row)),
                                                      np.ascontiguousarray(shared[felt]))  # fmt: skip
        return taken, moved

    def part_of(self, wave):
        """The order whose used pixel is nearest to wavelengths of the problem."""
        scene = self.problem.scene
        used = scene.weight > 0
        points, part = scene.edges.mean(axis=1)[used], scene.part[used]
        right = np.clip(np.searchsorted(points, wave), 1, len(points) - 1)
        return part[right - (wave - points[right - 1] < points[right] - wave)]

    def refit(self, found):
        """Fit everything with the lines that were found."""
        is_sky = ~found.is_star & (self.problem.scene.n_species > 0)
        ratio = np.where(found.is_star, 1.0, self.ratio)
        column = np.exp(self.state.globals.column[0]) if is_sky.any() else 1.0
        # without tellurics a line of the air is one of the star, at the wavelength where it is seen
        length = self.factor_of(found.is_star) / self.factor_of(~is_sky)
        self.unit = ratio * length / np.where(is_sky, column, 1.0)  # of strengths
        own = Lines(found.lines.center * length, found.lines.strength * self.unit, found.lines.sigma * length,
                    found.lines.gamma * length)  # fmt: skip
        base = self.exposure.problem
        problem, theta, self.places = extended(base, self.exposure.theta, own, np.where(is_sky, 0, STAR))
        solution = levenberg_marquardt(problem, theta, **STEPS)
        self.problem, self.theta = problem, solution.theta
        old = np.setdiff1d(np.arange(problem.shape[0]), self.places)
        local = np.zeros((0, 0))
        if base.shape[0]:
            kept = [problem.layout.free.index(parameter) for parameter in base.layout.free]
            local = problem.split(self.theta)[0][np.ix_(old, kept)]
        theta = base.join(local, problem.globals(self.theta))
        self.exposure = replace(self.exposure, theta=theta)
        self.linearize()

    def strengths(self):
        """Of the lines that were added, by the data alone: information v and v times strength, shape (n_lines,)."""
        problem, place = self.problem, self.problem.layout.free.index(STRENGTH)
        local = problem.split(self.theta)[0]
        strength = problem.lines(self.theta).strength[self.places] / self.unit
        gradient, curvature = (f(local)[self.places, place]
                               for f in (problem.penalty.gradient, problem.penalty.curvature))  # fmt: skip
        variance = self.inverse.local_diagonal[self.places * problem.shape[1] + place]
        # of ln strength; where the prior pulls by -gradient the data pull the other way
        information = np.maximum(1.0 / variance - curvature, 0.0)
        return information / strength**2, (information + gradient) / strength


def air_ratio(exposure, first):
    """How much stronger the lines of the air are in one exposure than in another, by those that both have."""
    strengths = []
    for item in (exposure, first):
        problem, species = item.problem, item.problem.scene.species
        column = np.concatenate([[1.0], np.exp(problem.globals(item.theta).column)])[species + 1]
        seen = column * problem.lines(item.theta).strength
        # strengths and columns are free and known together
        strengths.append(dict(zip(problem.layout.start.center[species != STAR], seen[species != STAR], strict=True)))
    both = strengths[0].keys() & strengths[1].keys()
    sums = [sum(known[center] for center in both) for known in strengths]
    return float(sums[0] / sums[1]) if both else 1.0


def sparse_columns(values, offset, lo, hi, n_pix):
    """Flat columns (q, n_pairs) of `assemble` as a sparse matrix, shape (n_pix, n_lines * q)."""
    q, width = values.shape
    length = np.repeat(hi - lo, q)
    pointer = np.concatenate([[0], np.cumsum(length)])
    within = np.arange(pointer[-1]) - np.repeat(pointer[:-1], length)
    first = np.repeat(offset[: len(lo)], q) + np.tile(np.arange(q) * width, len(lo))
    data, rows = values.ravel()[np.repeat(first, length) + within], np.repeat(np.repeat(lo, q), length) + within
    return csc_array((data, rows, pointer), shape=(n_pix, len(lo) * q))


def extended(problem, theta, lines, species):
    """
    A problem with more lines, whose strengths are free and hardly held by a prior.

    Parameters
    ----------
    problem : ObservedLines
    theta : ndarray
    lines : Lines
    species : ndarray of int, shape (k,)

    Returns
    -------
    problem : ObservedLines
    theta : ndarray
    places : ndarray of int, shape (k,)
        Of the new lines.
    """
    before, n = problem.layout, len(problem.layout.start)
    free = tuple(sorted({*before.free, STRENGTH}))
    start = Lines(*(np.concatenate(pair) for pair in zip(before.start, lines, strict=True)))
    species = np.concatenate([problem.scene.species, species])
    glob = problem.globals(theta)
    seen = start.center * np.where(species == STAR, relativistic_factor(glob.velocity), 1.0)
    order = np.argsort(seen, kind="stable")
    local = LineLayout(start, free, before.lower, before.upper).pack()
    mean, precision, held = local.copy(), np.ones(local.shape), np.ones(local.shape, dtype=bool)
    for k, parameter in enumerate(before.free):
        place = free.index(parameter)
        local[:n, place], held[:n, place] = problem.split(theta)[0][:, k], problem.held[:, k]
        mean[:n, place], precision[:n, place] = problem.penalty.mean[:, k], problem.penalty.precision[:, k]
    held[n:, free.index(STRENGTH)] = False
    penalty = problem.penalty or QuadraticPenalty(mean, precision)
    precision[n:] = 1.0 / SPREAD
    if isinstance(penalty, QuadraticPenalty):
        precision[n:] = SPREAD**-2.0
        tail = [np.broadcast_to(penalty.tail, (n, 1)), np.full((len(mean) - n, 1), np.inf)]
        penalty = replace(penalty, tail=np.concatenate(tail)[order])
    layout = LineLayout(start.take(order), free, before.lower, before.upper)
    other = ObservedLines(
        replace(problem.scene, species=species[order]), layout, glob, free_scale=problem.free_scale,
        penalty=replace(penalty, mean=mean[order], precision=precision[order]), held=held[order],
        neighbours=problem.neighbours, smoothness=problem.smoothness,
    )  # fmt: skip
    return other, other.join(local[order], glob), np.argsort(order)[n:]
