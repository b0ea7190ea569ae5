"""The search for the velocity and the rotation of the star: a cross-correlation."""

from dataclasses import replace

import numpy as np

from specutils_blase.functional.constants import FWHM_PER_SIGMA, SPEED_OF_LIGHT
from specutils_blase.preparation import model_lines, scene_parts
from specutils_blase.solvers.scene import convolve, line_depth, relativistic_factor, rotation_weights, uniform_grid

__all__ = ["Search", "velocity_and_rotation"]

# Range and spacing of the search for the velocity, and the rotations that are tried [km/s].
SEARCH_RANGE, SEARCH_STEP = 600.0, 1.0
# Pixels that the search looks at: more would not decide better.
SEARCH_PIXELS = 4096
# Template samples held at a time in the search.
CHUNK = 2_000_000
ROTATIONS = (1.5, 3.0, 5.0, 8.0, 13.0, 20.0, 32.0, 50.0, 80.0, 125.0, 200.0)
# Columns of the tellurics, in those of their templates, that are tried at one of the rotations.
COLUMNS, MIDDLING = (1.0, 0.03, 0.1, 0.3, 3.0, 10.0), 5.0
# Veilings that are tried where there may be any: shallow lines would pass for a fast rotation.
VEILINGS = (0.0, 0.3, 1.0, 3.0, 10.0)
# Keeps the normal equations of a continuum definite, as a share of their trace.
RIDGE = 1e-12


def velocity_and_rotation(setup, velocity, rotation):
    """Starting velocity and vsini [km/s]; what is None is searched for.

    The search is a cross-correlation with the continuum projected out: for every velocity the chi-square of the
    broadened template, veiled if the fit has a veiling, times the best Legendre continuum, on the lines of the template
    at one width.
    """
    if setup.template is None or (velocity is not None and rotation is not None):
        return velocity or 0.0, rotation or 1.0
    search = Search(thinned(setup, SEARCH_PIXELS, velocity or 0.0))
    if setup.tellurics:  # a star that rotates fast would make up for columns that are far off
        sky, velocities = search.sky, search.velocities if velocity is None else np.array([velocity])
        lowest = {}
        for column in COLUMNS if velocities.size else ():
            search.sky = sky**column
            lowest[column] = search.chi2(velocities, MIDDLING if rotation is None else rotation).min()
        search.sky = sky ** min(lowest, key=lowest.get, default=1.0)
    best = (np.inf, 0.0, ROTATIONS[0])
    for trial in ROTATIONS if rotation is None else (rotation,):
        velocities = search.velocities if velocity is None else np.array([velocity])
        chi2 = search.chi2(velocities, trial)
        if chi2.size and chi2.min() < best[0]:
            best = chi2.min(), vertex(velocities, chi2), trial
    return best[1], best[2]


def thinned(setup, n_pixels, velocity=0.0):
    """A setup with every k-th pixel that the star can reach near a velocity, about `n_pixels` of them, or all."""
    scene = setup.scene
    lower, upper = setup.template.meta["coverage"] * relativistic_factor(velocity + np.array([-1, 1]) * SEARCH_RANGE)
    part = np.flatnonzero((scene.edges[:, 1] > lower) & (scene.edges[:, 0] < upper))
    part = np.arange(len(scene.edges)) if part.size == 0 else part
    part = part[:: max(1, round(part.size / n_pixels))]
    few = {name: getattr(scene, name)[part]
           for name in ("edges", "basis", "data", "weight", "part", "power_basis", "shift_basis")}  # fmt: skip
    return replace(setup, scene=replace(scene, **few))


def vertex(x, y):
    """Minimum of the parabola through the lowest sample and its neighbours."""
    i = int(np.argmin(y))
    if not 0 < i < len(x) - 1:
        return float(x[i])
    left, mid, right = y[i - 1 : i + 2]
    curvature = left - 2.0 * mid + right
    return float(x[i] + 0.5 * (x[i + 1] - x[i]) * ((left - right) / curvature if curvature > 0 else 0.0))


class Search:
    """Chi-square of the template against velocity and rotation."""

    def __init__(self, setup):
        scene, self.setup = setup.scene, setup
        lower, upper = setup.template.meta["coverage"]
        edges = scene.edges
        # only what lies where the template can be counts: beyond there are other orders
        inside = edges[(edges[:, 1] > lower) & (edges[:, 0] < upper)] if scene.n_parts > 1 else edges
        velocities = np.arange(-SEARCH_RANGE, SEARCH_RANGE + 0.5 * SEARCH_STEP, SEARCH_STEP)
        factor = relativistic_factor(velocities)
        # velocities that the template covers in part only are tried too: a chance alignment elsewhere must not win
        seen = np.minimum(inside.max() / factor, upper) - np.maximum(inside.min() / factor, lower)
        self.velocities = velocities[seen > 0.5 * (inside.max() - inside.min()) / factor]
        reach = (SEARCH_RANGE + 3.0 * ROTATIONS[-1]) / SPEED_OF_LIGHT
        self.grid = uniform_grid(edges.min() * (1.0 - reach), edges.max() * (1.0 + reach), scene.step)
        lines = model_lines(setup.template.model)
        near = (lines.center > self.grid[0]) & (lines.center < self.grid[-1])
        self.star = np.exp(-line_depth(self.grid, lines.take(near), scene.form[0]))
        middle = edges.mean(axis=1)
        self.points, self.kernel = np.log(middle), gaussian_kernel(scene)
        self.sky = sky_pixels(setup, self.kernel)
        self.veilings = np.array(VEILINGS if scene.veil_basis.shape[1] else VEILINGS[:1])

    def chi2(self, velocities, rotation):
        """Chi-square at each velocity for the best of the veilings, shape of `velocities`."""
        scene = self.setup.scene
        star = convolve(self.star, rotation_weights(rotation, scene.limb_darkening, scene.step))
        star = convolve(star, self.kernel)
        step = np.log(self.grid[1] / self.grid[0])
        place = (self.points - np.log(self.grid[0])) / step
        shift = np.log(relativistic_factor(velocities)) / step
        out = np.zeros((len(self.veilings), len(velocities)))
        for mine in scene_parts(scene):
            if scene.data[mine].size == 0:  # an order that the star does not reach
                continue
            target = scene.data[mine] * scene.weight[mine]
            columns = scene.basis[mine] * (self.sky[mine] * scene.weight[mine])[:, None]
            products = (columns[:, :, None] * columns[:, None, :]).reshape(len(columns), -1)
            toward, size = columns * target[:, None], max(CHUNK // target.size, 1)
            for chunk in (slice(k, k + size) for k in range(0, len(velocities), size)):
                # beyond the grid, at a velocity that a user gives, it goes on as it ends
                seen = np.clip(place[mine] - shift[chunk, None], 0.0, star.size - 2)
                left = seen.astype(np.int32)
                seen -= left
                flux = star[left]
                flux += seen * (star[left + 1] - flux)
                moments, normal = flux @ toward, flux**2 @ products
                mixed = flux @ products if len(self.veilings) > 1 else 0.0
                for k, r in enumerate(self.veilings):  # of (star + r), the factor 1 / (1 + r) being in the continuum
                    veiled = normal + 2.0 * r * mixed + r**2 * products.sum(axis=0)
                    out[k, chunk] += target @ target - gain(moments + r * toward.sum(axis=0), veiled)
        return out.min(axis=0)


def gain(moments, normal):
    """What linear fits with these moments (n, m) and normal equations (n, m * m) take of the squares, shape (n,)."""
    m = moments.shape[1]
    normal = normal.reshape(-1, m, m)
    ridge = RIDGE * np.trace(normal, axis1=1, axis2=2) + 1e-300
    normal = normal + ridge[:, None, None] * np.eye(m)
    return np.einsum("vi,vi->v", moments, np.linalg.solve(normal, moments[:, :, None])[:, :, 0])


def sky_pixels(setup, kernel):
    """Transmission of the tellurics in the pixels, shape (n_pix,), their columns as in the templates."""
    scene = setup.scene
    middle = scene.edges.mean(axis=1)
    sky = np.ones(middle.size)
    for template, form in zip(setup.tellurics, scene.form[1:], strict=True):
        depth = line_depth(scene.grid, model_lines(template.model), form)
        sky *= np.interp(middle, scene.grid, convolve(np.exp(-depth), kernel))
    return sky


def gaussian_kernel(scene):
    """The line spread function of the middle pixel on the grid; one pixel wide without one."""
    pixel = SPEED_OF_LIGHT * float(np.median(np.diff(scene.edges, axis=1)[:, 0] / scene.edges[:, 0]))
    sigma = pixel / FWHM_PER_SIGMA
    if scene.resolving_power is not None:
        sigma = np.hypot(sigma, SPEED_OF_LIGHT / float(np.median(scene.resolving_power)) / FWHM_PER_SIGMA)
    half = int(np.ceil(5.0 * sigma / scene.step))
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) * scene.step / sigma) ** 2)
    return kernel / kernel.sum()
