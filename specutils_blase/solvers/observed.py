"""Lines seen through a spectrograph: the least-squares problem of a transfer fit.

The physics in the order it happens: every star line moves with the velocity (an exact relativistic factor on its
wavelength scale), the star rotates, its light passes the tellurics, then the line spread function and the pixels, and
a Legendre continuum multiplies the result.  Lines are the local parameters; velocity, vsini, resolving power, telluric
columns and continuum are the global ones.  The pixels may be those of several echelle orders: then each order has a
continuum of its own, and where asked a resolving power and a wavelength polynomial, and all share the rest.
"""

import copy
from dataclasses import dataclass, replace

import numpy as np

from ..functional import SPEED_OF_LIGHT, compiled, kernel_half_size, rotation_kernel
from .assembly import PartColumns, assemble
from .lines import (
    CENTER,
    DERIVATIVE_TOLERANCE,
    STRENGTH,
    LineLayout,
    Lines,
    RunningDepth,
    assemble_globals,
    group_costs,
    group_lines,
    held_by,
    neighbour_windows,
)
from .scene import (
    MODEL_TOLERANCE,
    STAR,
    Globals,
    convolve,
    correlate,
    line_depth,
    log_derivative,
    relativistic_factor,
    rotation_weights,
)
from .smooth import ORDER

__all__ = ["ObservedLines"]

# Derivatives of lines are cut at this share of the noise, but not below the tolerance of the model.
BELOW_NOISE, FINEST_DERIVATIVE = 0.1, MODEL_TOLERANCE
# Longest steps of one iteration in velocity [km/s], ln(vsini^2 + 1), ln of the scales.
MAX_VELOCITY_STEP, MAX_LOG_STEP = 5.0, 0.5
# ln(1 + r) of the least and the largest veiling: less cannot be told from none, more leaves nothing of the star.
SMALLEST_VEIL, LARGEST_VEIL = np.log1p(1e-4), np.log1p(1e2)
# Smallest vsini [km/s]: below a tenth of any resolution element it cannot be told from zero.
SMALLEST_VSINI = 0.05
# Largest vsini [km/s]: beyond the speed at which any star breaks up.
LARGEST_VSINI = 1000.0
# Largest h3 and h4, and the longest step of one iteration: beyond them the line spread function is far from the
# Gaussian that they disturb.  `instrument` has the same limit.
LARGEST_HERMITE, MAX_HERMITE_STEP = 0.3, 0.1


class ObservedLines:
    """The least-squares problem of a transfer fit, see `levenberg_marquardt.Problem`.

    Parameters
    ----------
    scene : Scene
    layout : LineLayout
        All lines, the star's in its rest frame, sorted by observed wavelength.
    start : Globals
    free_scale : bool
        Whether the resolving power is free.
    penalty : object with cost, gradient and curvature of the lines' theta, optional
    held : ndarray of bool, shape (n_lines, q), optional
        Parameters that keep their value: free in the layout for other species only.
    neighbours : int, optional
        Lines couple with this many following lines at most.
    smoothness : Smoothness, optional
        Of the continua, whose columns are then splines.
    """

    def __init__(self, scene, layout: LineLayout, start: Globals, *, free_scale=False, penalty=None, held=None,
                 neighbours=64, smoothness=None):  # fmt: skip
        self.scene, self.layout, self.first, self.free_scale = scene, layout, start, free_scale
        self.penalty, self.neighbours, self.jitter = penalty, neighbours, None
        self.held = np.zeros(layout.shape, dtype=bool) if held is None else held
        powers = ["resolving_power", *(f"resolving_power_{k}" for k in range(1, scene.power_basis.shape[1]))]
        self.veils = [f"veiling_{k}" if k else "veiling" for k in range(scene.veil_basis.shape[1])]
        self.names = (["radial_velocity", "vsini"] if scene.has_star else []) + powers * free_scale + self.veils
        self.names += ["h3", "h4"] * scene.free_hermite
        n_lines, q = layout.shape
        n_local = n_lines if q else 0
        self.shape = (n_local, q, len(self.names) + scene.n_species + scene.n_parts * scene.n_own)
        doppler = np.where(scene.species == STAR, relativistic_factor(start.velocity), 1.0)
        centers = layout.start.center * doppler
        self.group, self.bounds = group_lines(centers[:n_local], scene.edges.mean(axis=1))
        self.smoothness, self._home = smoothness, None if smoothness is None else self._homes()
        self._response = scene.response(self.globals(self.start()))
        self._depths = [RunningDepth(lambda lines, form=form: line_depth(scene.grid, lines, form))
                        for form in scene.form]  # fmt: skip
        self._last, self._memory, self._seen = None, compiled.Memory(), compiled.Memory()

    def reweighted(self, weight, jitter=None):
        """The same problem with other weights (n_pix,), and the jitter of every part that is in them, if it is new."""
        other = copy.copy(self)
        other.scene, other._last = replace(self.scene, weight=weight), None
        other.jitter = self.jitter if jitter is None else jitter
        return other

    def smoothed(self, smoothness):
        """The same problem with another smoothness of the continua."""
        other = copy.copy(self)
        other.smoothness = smoothness
        return other

    def _homes(self):
        """The group in which every difference of a continuum lies, shape (n_parts, m - ORDER)."""
        scene, homes = self.scene, []
        for p in range(scene.n_parts):
            pixels = np.flatnonzero(scene.part == p)
            middle = pixels[np.argmax(scene.basis[pixels, ORDER // 2 : -(ORDER // 2)], axis=0)]
            homes.append(np.searchsorted(self.bounds, middle, side="right") - 1)
        return np.array(homes)

    def start(self):
        """theta of the starting point."""
        return self.join(self.layout.pack() if self.shape[0] else np.zeros((0, 0)), self.first)

    def join(self, local, glob):
        """The solver's vector."""
        scene = self.scene
        named = {"radial_velocity": glob.velocity, "vsini": glob.vsini**2}
        powers = np.atleast_1d(glob.log_scale) if self.free_scale else []
        veil = glob.veil if self.veils else []
        hermite = glob.hermite if scene.free_hermite else []
        n = scene.n_parts
        own = [glob.continuum.reshape(n, -1)]
        if scene.own_power:
            own.append(np.zeros((n, 1)) if glob.power is None else glob.power[:, None])
        if scene.shift_basis.shape[1]:
            own.append(np.zeros((n, scene.shift_basis.shape[1])) if glob.shift is None else glob.shift)
        return np.concatenate([local.ravel(), [named[name] for name in self.names if name in named], powers, veil,
                               hermite, glob.column, np.concatenate(own, axis=1).ravel()])  # fmt: skip

    def split(self, theta):
        """(lines' theta (n_lines, q), global part)."""
        n, q, _ = self.shape
        return theta[: n * q].reshape(n, q), theta[n * q :]

    def globals(self, theta):
        """The `Globals` at theta."""
        _, values = self.split(theta)
        scene, m = self.scene, self.scene.basis.shape[1]
        named = dict(zip(self.names, values, strict=False))
        powers = [named[name] for name in self.names if name.startswith("resolving_power")]
        column, own = np.split(values[len(self.names) :], [scene.n_species])
        own = own.reshape(scene.n_parts, scene.n_own)
        return Globals(
            named.get("radial_velocity", self.first.velocity), np.sqrt(named.get("vsini", self.first.vsini**2)),
            np.array(powers) if powers else self.first.log_scale, column, own[:, :m],
            own[:, m] if scene.own_power else None, own[:, m + scene.own_power :],
            np.array([named[name] for name in self.veils]),
            np.array([named["h3"], named["h4"]]) if scene.free_hermite else None,
        )  # fmt: skip

    def lines(self, theta):
        """The lines at theta, the star's at rest."""
        return self.layout.unpack(self.split(theta)[0]) if self.shape[0] else self.layout.start

    def evaluate(self, theta):
        """Everything the derivatives need, at theta: a `_State`."""
        if self._last is None or self._last[0] is not theta:
            self._last = theta, _State.build(self, self.lines(theta), self.globals(theta))
        return self._last[1]

    def cost(self, theta):
        """See `levenberg_marquardt.Problem`."""
        state = self.evaluate(theta)
        costs = group_costs(self, theta, state.residual)
        if self.smoothness is not None:
            extra = self.smoothness.cost(state.globals.continuum)
            costs += np.bincount(self._home.ravel(), extra.ravel(), minlength=len(costs))
        return costs

    def linearize(self, theta, neighbours=None):
        """See `levenberg_marquardt.Problem`; errors want more couplings than steps do."""
        state = self.evaluate(theta)
        dense, own = self._dense(state)
        n, q, _ = self.shape
        if n == 0:
            return self.gradient(theta, (dense, own)), self._held_together(assemble_globals(dense, own))
        columns, offset, lo, hi = self._columns(state)
        points = self.scene.edges.mean(axis=1)
        near = neighbour_windows(points, state.observed.center, lo, hi, neighbours or self.neighbours)
        index, rows = self.coupling(theta)
        matrix = assemble(columns, offset, lo, hi, self._without_lines(state, dense, index), near, own)
        matrix = matrix.sheared(index, rows)
        matrix.add_to_diagonal(self.held_by(theta))
        return self.gradient(theta, (dense, own)), self._held_together(matrix)

    def held_by(self, theta):
        """See `levenberg_marquardt.Problem`."""
        return held_by(self, theta)

    def continuum_places(self):
        """Where the coefficients of each continuum are among the global parameters, slices."""
        first, n_own = len(self.names) + self.scene.n_species, self.scene.n_own
        return [slice(first + p * n_own, first + p * n_own + self.scene.basis.shape[1])
                for p in range(self.scene.n_parts)]  # fmt: skip

    def _held_together(self, matrix):
        """`matrix` with the smoothness of the continua added to its corner, in place."""
        if self.smoothness is not None:
            penalty = self.smoothness.matrix(self.scene.basis.shape[1])
            for own, strength in zip(self.continuum_places(), self.smoothness.strength, strict=True):
                matrix.corner[own, own] += strength * penalty
        return matrix

    def gradient(self, theta, dense=None):
        """Of the cost at theta, exact to the tolerance of the model: the residual carried back to the lines.

        ``dense`` are the derivatives with respect to the global parameters, if they are known.
        """
        scene, state = self.scene, self.evaluate(theta)
        common, own = self._dense(state) if dense is None else dense
        by_order = own.project(state.residual)
        if self.smoothness is not None:
            continuum = by_order.reshape(scene.n_parts, -1)[:, : scene.basis.shape[1]]  # a view
            continuum += self.smoothness.gradient(state.globals.continuum)
        glob = np.concatenate([common @ state.residual, by_order])
        n, q, _ = self.shape
        if n == 0:
            return glob
        lines = state.observed
        pulled = self._response.adjoint(state.residual * scene.weight * state.continuum, scene.grid.size)
        star = -state.star * correlate(pulled * state.telluric * state.dilution, state.kernel)
        telluric = -pulled * state.rotated * state.telluric
        reach = compiled.half_width(lines.strength, lines.sigma, lines.gamma, MODEL_TOLERANCE)
        lo, hi = compiled.line_windows(scene.grid, lines.center, reach)
        product = np.array([form == "product" for form in scene.form])[scene.species + 1]
        sums = np.empty((4, n))
        for mine, vector in ((scene.species == STAR, star), (scene.species != STAR, telluric)):
            sums[:, mine] = compiled.line_projections(scene.grid, *lines.take(mine), lo[mine], hi[mine], vector,
                                                      product[mine])  # fmt: skip
        sums[CENTER] *= state.doppler
        local = self.layout.project(sums * state.scale)
        local[self.held] = 0.0
        if self.penalty is not None:
            local += self.penalty.gradient(self.split(theta)[0])
        return np.concatenate([local.ravel(), glob])

    def _derivative_tolerance(self, center):
        """Optical depth at which the derivatives of each line are cut (n_lines,): far below the noise of its order.

        A hundred wings of a thousandth are a tenth.  Were they cut off, steps would miss the minimum, because columns
        and continua, which make up for all lines together, could not, and errors would be too small.
        """
        scene, noise = self.scene, np.zeros(self.scene.n_parts)
        for p in range(scene.n_parts):
            weight = scene.weight[(scene.part == p) & (scene.weight > 0)]
            noise[p] = 1.0 / np.median(weight) if weight.size else 1.0
        nearest = np.clip(np.searchsorted(scene.edges.mean(axis=1), center), 0, len(scene.part) - 1)
        return np.clip(BELOW_NOISE * noise, FINEST_DERIVATIVE, DERIVATIVE_TOLERANCE)[scene.part[nearest]]

    def _columns(self, state):
        """Derivatives of the weighted residual with respect to the lines' theta, flat over pixels."""
        scene, lines = self.scene, state.observed
        reach = compiled.half_width(lines.strength, lines.sigma, lines.gamma, self._derivative_tolerance(lines.center))
        lo, hi = compiled.line_windows(scene.grid, lines.center, np.maximum(reach, 3.0 * lines.width))
        weight = self.layout.units() * state.scale * ~self.held.T
        if CENTER in self.layout.free:
            weight[self.layout.free.index(CENTER)] *= state.doppler
        product = np.array([form == "product" for form in scene.form])[scene.species + 1]
        offset, columns = compiled.line_terms(scene.grid, *lines, lo, hi, rows=self.layout.free, weight=weight,
                                              product=product, memory=self._memory)  # fmt: skip
        is_star = scene.species == STAR
        half = np.where(is_star, len(state.kernel) // 2, 0)
        response = self._response
        # where orders overlap the pixels alternate between wide and narrow ones
        stop, start = np.maximum.accumulate(response.stop), np.minimum.accumulate(response.start[::-1])[::-1]
        p_lo = np.searchsorted(stop, lo - half, side="right")
        p_hi = np.maximum(np.searchsorted(start, hi + half), p_lo)
        p_offset = np.concatenate([[0], np.cumsum(p_hi - p_lo)])
        out = self._seen.array(len(columns), int(p_offset[-1]))
        level = state.continuum * scene.weight
        by_star, by_telluric, by_flux = -state.star, state.telluric * state.dilution, -state.rotated * state.telluric

        def work(first, last):
            compiled.kernels.push(columns, offset, lo, hi, is_star, state.kernel, by_star, by_telluric, by_flux,
                                  response.start, response.pointer, response.values, level, p_lo, p_hi, p_offset,
                                  first, last, out)  # fmt: skip

        compiled.chunked(work, hi - lo)
        return out, p_offset, p_lo, p_hi

    def trial_columns(self, state, lines, species, parameter):
        """`_columns` of one parameter of lines (the star's at rest) that need not be in the model, in opacity form.

        Tellurics have the strength that is seen, without the column.
        """
        other = copy.copy(self)
        other.layout, other.held = LineLayout(lines, (parameter,), None, None), np.zeros((len(lines), 1), dtype=bool)
        other.scene = replace(self.scene, species=species, form=("opacity",) * (species.max(initial=STAR) + 2))
        other._memory, other._seen = compiled.Memory(), compiled.Memory()
        doppler = np.where(species == STAR, relativistic_factor(state.globals.velocity), 1.0)
        observed = Lines(*(a * doppler for a in lines))
        return other._columns(replace(state, observed=observed, doppler=doppler, scale=np.ones(len(lines))))

    def _dense(self, state):
        """Derivatives of the weighted residual with respect to the global parameters.

        Of those that all pixels feel, shape (m, n_pix), and of those of the orders, `PartColumns`.
        """
        scene, response, glob = self.scene, self._response, state.globals
        level = state.continuum * scene.weight
        flux = state.rotated * state.telluric
        columns, by_power = [], None
        if self.free_scale or scene.own_power:
            up, down = (scene.response(glob, e) @ flux for e in (1e-3, -1e-3))
            by_power = level * (up - down) / 2e-3
        for name in self.names:
            if name == "radial_velocity":
                beta = glob.velocity / SPEED_OF_LIGHT
                slope = log_derivative(state.bare, scene.step / SPEED_OF_LIGHT) * state.dilution
                columns.append(level * (response @ (-slope * state.telluric)) / (SPEED_OF_LIGHT * (1.0 - beta**2)))
            elif name == "vsini":
                slope = self._rotation_slope(state) * state.dilution
                columns.append(level * (response @ (slope * state.telluric)))
        if self.free_scale:
            columns.extend(scene.power_basis.T * by_power)
        if self.veils:
            by_veil = (1.0 - state.bare) * state.dilution * state.telluric
            columns.extend(level * (response @ (by_veil * row)) for row in scene.veil_basis.T)
        if scene.free_hermite:
            columns.extend(level * (slope @ flux) for slope in scene.hermite_slopes(glob))
        columns.extend(level * (response @ (-depth * flux)) for depth in state.depths)
        own = [scene.basis.T * (state.pixels * scene.weight)]
        if scene.own_power:
            own.append(by_power[None])
        if scene.shift_basis.shape[1]:
            slope = log_derivative(flux, scene.step / SPEED_OF_LIGHT)
            own.append(scene.shift_basis.T * (level * (response @ slope) / SPEED_OF_LIGHT))
        common = np.ascontiguousarray(columns) if columns else np.zeros((0, len(level)))
        return common, PartColumns(np.ascontiguousarray(np.concatenate(own)), scene.part, scene.n_parts)

    def _rotation_slope(self, state):
        """Derivative of the rotated star with respect to vsini^2."""
        scene, vsini = self.scene, state.globals.vsini
        change = 1e-3 * max(vsini, scene.step)
        upper, lower = vsini + change, max(vsini - change, 0.0)
        half = kernel_half_size(upper, scene.step)
        kernels = [rotation_kernel(v, scene.limb_darkening, scene.step, half).numpy() for v in (upper, lower)]
        return convolve(state.star, kernels[0] - kernels[1]) / (upper**2 - lower**2)

    def coupling(self, theta):
        """See `levenberg_marquardt.Problem`: columns and veiling act like all strengths, the velocity like all centres.

        The veiling does where lines are weak.  None of them does where one of these lines is held, as those of a
        template are to which lines are added.
        """
        scene, layout, glob, (n, q, _) = self.scene, self.layout, self.globals(theta), self.shape
        star, units = scene.species == STAR, []
        if n and STRENGTH in layout.free:
            place = layout.free.index(STRENGTH)
            units += [(len(self.names) + k, place, scene.species == k) for k in range(scene.n_species)
                      if scene.form[k + 1] == "opacity"]  # fmt: skip
            if scene.form[0] == "opacity":  # strengths in products add up to something else
                units += [(self.names.index(name), place, star * -at_lines)
                          for name, at_lines in zip(self.veils, self._veil_at_lines(glob.velocity), strict=True)]
        if n and CENTER in layout.free and scene.has_star:
            width = layout.start.width * (1.0 - (glob.velocity / SPEED_OF_LIGHT) ** 2)
            shift = star * layout.start.center / width / SPEED_OF_LIGHT
            units.append((self.names.index("radial_velocity"), layout.free.index(CENTER), shift))
        rows = np.zeros((len(units), n, q))
        for row, (_, place, values) in zip(rows, units, strict=True):
            row[:, place] = 0.0 if self.held[values != 0.0, place].any() else values
        moves = [k for k, row in enumerate(rows) if row.any()]
        return [units[k][0] for k in moves], rows[moves].reshape(len(moves), n * q)

    def _veil_at_lines(self, velocity):
        """The terms of the veiling at the lines of the layout, shape (k, n_lines)."""
        center = self.layout.start.center * relativistic_factor(velocity)
        return [np.interp(center, self.scene.grid, column) for column in self.scene.veil_basis.T]

    def _without_lines(self, state, dense, index):
        """Derivatives (m, n_pix) of the parameters `index` without what they do as lines, see `coupling`.

        All of it is on the grid at hand, while the derivatives of single lines are cut: nothing is left for columns
        and the velocity.
        """
        out, scene = dense.copy(), self.scene
        out[index] = 0.0
        star = self.scene.species == STAR
        for name, at_lines in zip(self.veils, self._veil_at_lines(state.globals.velocity), strict=True):
            if (k := self.names.index(name)) in index:
                lines = state.observed.take(star)
                depth = line_depth(scene.grid, replace(lines, strength=lines.strength * at_lines[star]), scene.form[0])
                through = convolve(state.star * depth, state.kernel) * state.dilution * state.telluric
                out[k] = dense[k] - state.continuum * scene.weight * (self._response @ through)
        return out

    def blocked(self, theta, gradient):
        """See `levenberg_marquardt.Problem`."""
        local, values = self.split(theta)
        step_local, step = self.split(gradient)
        at_limit = np.zeros(values.size, dtype=bool)
        if "vsini" in self.names:
            i = self.names.index("vsini")
            at_limit[i] = step[i] > 0 if values[i] <= SMALLEST_VSINI**2 else (
                values[i] >= LARGEST_VSINI**2 and step[i] < 0)  # fmt: skip
        for i in map(self.names.index, self.veils):
            at_limit[i] = (values[i] <= SMALLEST_VEIL and step[i] > 0) or (values[i] >= LARGEST_VEIL and step[i] < 0)
        for i, name in enumerate(self.names):
            if name in ("h3", "h4"):
                at_limit[i] = abs(values[i]) >= LARGEST_HERMITE and values[i] * step[i] < 0
        blocked = self.layout.blocked(local, step_local).ravel() if self.shape[0] else np.zeros(0, dtype=bool)
        return np.concatenate([blocked, at_limit])

    def move(self, theta, step):
        """See `levenberg_marquardt.Problem`."""
        local, values = self.split(theta)
        step_local, change = self.split(step)
        change = change.copy()
        for i, name in enumerate(self.names):
            limit = {"radial_velocity": MAX_VELOCITY_STEP, "vsini": 0.75 * values[i] + 2.0, "h3": MAX_HERMITE_STEP,
                     "h4": MAX_HERMITE_STEP}.get(name, MAX_LOG_STEP)  # fmt: skip
            change[i] = np.clip(change[i], -limit, limit)
        n, m = len(self.names) + self.scene.n_species, self.scene.basis.shape[1]
        change[len(self.names) : n] = np.clip(change[len(self.names) : n], -MAX_LOG_STEP, MAX_LOG_STEP)
        own = change[n:].reshape(self.scene.n_parts, self.scene.n_own)  # a view
        own[:, m : m + self.scene.own_power] = np.clip(own[:, m : m + self.scene.own_power],
                                                       -MAX_LOG_STEP, MAX_LOG_STEP)  # fmt: skip
        own[:, m + self.scene.own_power :] = np.clip(own[:, m + self.scene.own_power :],
                                                     -MAX_VELOCITY_STEP, MAX_VELOCITY_STEP)  # fmt: skip
        values = values + change
        if "vsini" in self.names:
            i = self.names.index("vsini")
            values[i] = np.clip(values[i], SMALLEST_VSINI**2, LARGEST_VSINI**2)
        for i in map(self.names.index, self.veils):
            values[i] = np.clip(values[i], SMALLEST_VEIL, LARGEST_VEIL)
        if self.scene.free_hermite:
            i = self.names.index("h3")
            values[i : i + 2] = np.clip(values[i : i + 2], -LARGEST_HERMITE, LARGEST_HERMITE)
        local = self.layout.move(local, step_local) if self.shape[0] else local
        return np.concatenate([local.ravel(), values])


@dataclass(frozen=True)
class _State:
    """The forward model at one point; arrays on the grid unless said otherwise."""

    globals: Globals
    observed: Lines  # as seen: the star's lines Doppler shifted
    doppler: np.ndarray  # factor on each line's wavelength scale
    scale: np.ndarray  # factor on each line's optical depth, 1 for the star
    star: np.ndarray
    kernel: np.ndarray
    bare: np.ndarray  # the rotated star without veiling
    dilution: np.ndarray  # by which veiling makes its lines weaker, (n_grid,) or (1,)
    rotated: np.ndarray
    depths: list  # optical depth of each species
    telluric: np.ndarray
    pixels: np.ndarray  # (n_pix,) before the continuum
    continuum: np.ndarray  # (n_pix,)
    residual: np.ndarray  # (n_pix,) weighted, model - data

    @classmethod
    def build(cls, problem, lines, glob):
        scene = problem.scene
        doppler = np.where(scene.species == STAR, relativistic_factor(glob.velocity), 1.0)
        scale = np.concatenate([[1.0], np.exp(glob.column)])[scene.species + 1]
        observed = Lines(*(a * doppler for a in lines))
        factors = [1.0, *np.exp(glob.column)]
        depths = [factors[k + 1] * depth(observed.take(scene.species == k))
                  for k, depth in zip(range(STAR, scene.n_species), problem._depths, strict=True)]  # fmt: skip
        star = np.exp(-depths[0])
        kernel = np.ones(1)
        if scene.has_star:
            kernel = rotation_weights(glob.vsini, scene.limb_darkening, scene.step)
        bare, veil = convolve(star, kernel), scene.veiling(glob)
        dilution = 1.0 / (1.0 + veil)
        rotated = (bare + veil) * dilution if problem.veils else bare
        telluric = np.exp(-sum(depths[1:], np.zeros(scene.grid.size)))
        if problem.free_scale or scene.own_power or scene.shift_basis.shape[1] or scene.free_hermite:
            problem._response = scene.response(glob)
        pixels = problem._response @ (rotated * telluric)
        continuum = np.einsum("pm,pm->p", scene.basis, glob.continuum[scene.part])
        residual = (pixels * continuum - scene.data) * scene.weight
        return cls(glob, observed, doppler, scale, star, kernel, bare, dilution, rotated, depths[1:], telluric, pixels,
                   continuum, residual)  # fmt: skip
