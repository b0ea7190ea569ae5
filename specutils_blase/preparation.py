"""From a spectrum and templates to the least-squares problem of `fit_spectrum`: grid, starting point, priors."""

from dataclasses import dataclass, replace

import numpy as np
from astropy import units as u
from astropy.table import QTable

from specutils_blase.errors import CoverageError, explain
from specutils_blase.functional.compiled import half_width
from specutils_blase.functional.constants import FWHM_PER_SIGMA, SPEED_OF_LIGHT
from specutils_blase.instrument import BandedLSF
from specutils_blase.solvers.lines import AbsolutePenalty, LineLayout, Lines, QuadraticPenalty, continuum_columns
from specutils_blase.solvers.observed import (
    STAR,
    Globals,
    ObservedLines,
    Scene,
    convolve,
    line_depth,
    relativistic_factor,
    rotation_weights,
    uniform_grid,
)
from specutils_blase.solvers.response import banded_response
from specutils_blase.template import LineTemplate

__all__ = ["Search", "Setup", "line_priors", "velocity_and_rotation"]

# The grid: 0.5 km/s as in Gully-Santiago & Morley (2022), finer for a sharp LSF or sharp lines.
LARGEST_STEP, SMALLEST_STEP = 0.5, 0.05
# Above this the finest grid undersamples the line spread function.
LARGEST_POWER = 2e6
# The grid reaches this far beyond the pixels [km/s], besides the line spread function.
MARGIN = 60.0
# Range and spacing of the search for the velocity, and the rotations that are tried [km/s].
SEARCH_RANGE, SEARCH_STEP = 600.0, 1.0
# Pixels that the search looks at: more would not decide better.
SEARCH_PIXELS = 4096
# Template samples held at a time in the search.
CHUNK = 2_000_000
ROTATIONS = (1.5, 3.0, 5.0, 8.0, 13.0, 20.0, 32.0, 50.0, 80.0, 125.0, 200.0)


@dataclass(eq=False)
class Setup:
    """Everything about a fit that does not depend on its starting point."""

    arrays: object
    used: slice
    template: LineTemplate | None
    tellurics: list
    scene: Scene
    scale: float
    has_sigma: bool
    free_scale: bool
    rows: np.ndarray | None = None

    @property
    def weight(self):
        """1/sigma of the used pixels in units of `scale`, 0 where ignored."""
        return self.scene.weight

    @classmethod
    def build(cls, arrays, template, tellurics, lsf, limb_darkening, continuum_degree):
        """Choose the pixels, the units of the flux and the grid."""
        inside = np.flatnonzero(arrays.good)
        used = slice(inside[0], inside[-1] + 1)
        good, flux = arrays.good[used], arrays.flux[used]
        scale = float(np.median(flux[good]))
        if not scale > 0:
            raise ValueError(explain("observed", "have positive flux in most pixels", f"the median {scale:.4g}",
                                     "check how it was read and its background subtracted"))  # fmt: skip
        n_others = 2 * (template is not None) + len(tellurics) + bool(getattr(lsf, "free", False))
        check_degree(continuum_degree, np.count_nonzero(good), n_others)
        if isinstance(lsf, BandedLSF) and lsf.bands.shape[1] != arrays.wave.size:
            raise ValueError(explain("lsf", f"have a column for each of the {arrays.wave.size} pixels of observed",
                                     lsf.bands.shape[1], "give the resolution matrix of this spectrum"))  # fmt: skip
        has_sigma = arrays.sigma is not None
        sigma = arrays.sigma[used] if has_sigma else np.full(good.size, noise_level(flux[good]))
        weight = np.where(good, scale / sigma, 0.0)
        edges = np.ascontiguousarray(arrays.edges[used])
        middle = edges.mean(axis=1)
        power = None if lsf is None or isinstance(lsf, BandedLSF) else checked_power(lsf, middle, edges)
        step = grid_step(power, template)
        margin = MARGIN + (0.0 if power is None else 3.0 * SPEED_OF_LIGHT / power.min())
        reach = margin / SPEED_OF_LIGHT
        grid = uniform_grid(edges.min() * (1.0 - reach), edges.max() * (1.0 + reach), step)
        matrix = None
        if isinstance(lsf, BandedLSF):
            matrix = banded_response(grid, np.ascontiguousarray(arrays.edges), lsf.triplets(), used)
        scene = Scene(
            grid=grid, step=step, edges=edges, resolving_power=power, matrix=matrix,
            basis=continuum_columns(middle, int(continuum_degree), domain=(edges.min(), edges.max())),
            data=np.where(good, flux / scale, 0.0), weight=weight, species=np.zeros(0, dtype=np.int64),
            n_species=len(tellurics), limb_darkening=limb_darkening,
            form=("opacity" if template is None else template.model.form, *(t.model.form for t in tellurics)),
        )  # fmt: skip
        return cls(arrays, used, template, tellurics, scene, scale, has_sigma, bool(getattr(lsf, "free", False)))

    def check_coverage(self, velocity):
        """Raise unless every template covers the used pixels."""
        edges = self.scene.edges
        shift = relativistic_factor(velocity)
        frames = [("template", self.template, shift)] * (self.template is not None)
        for name, template, factor in [*frames, *(("telluric", t, 1.0) for t in self.tellurics)]:
            lower, upper = template.meta["coverage"]
            need = edges.min() / factor, edges.max() / factor
            if need[0] < lower * (1 - 1e-9) or need[1] > upper * (1 + 1e-9):
                raise CoverageError(explain(
                    name, f"cover the data, {need[0]:.2f} to {need[1]:.2f} Angstrom"
                    + (f" at rest for {velocity:.1f} km/s" if name == "template" else ""),
                    f"{lower:.2f} to {upper:.2f} Angstrom", "clone a wider spectrum or choose a window",
                ))  # fmt: skip

    def joint_lines(self, velocity):
        """Lines of all templates that are felt in the used pixels, by observed wavelength, their species and rows."""
        parts, species, rows = [], [], []
        lower, upper = self.scene.grid[[0, -1]]
        for k, template in enumerate([self.template, *self.tellurics], start=STAR):
            if template is None:
                continue
            lines = model_lines(template.model)
            factor = relativistic_factor(velocity) if k == STAR else 1.0
            reach = half_width(lines.strength, lines.sigma, lines.gamma, 1e-6)
            felt = (lines.center + reach > lower / factor) & (lines.center - reach < upper / factor)
            parts.append(lines.take(felt))
            species.append(np.full(np.count_nonzero(felt), k))
            rows.append(np.flatnonzero(felt))
        lines = Lines(*(np.concatenate(a) for a in zip(*parts, strict=True)))
        species = np.concatenate(species)
        seen = lines.center * np.where(species == STAR, relativistic_factor(velocity), 1.0)
        order = np.argsort(seen, kind="stable")
        return lines.take(order), species[order], np.concatenate(rows)[order]

    def problem(self, velocity, rotation, free, prior):
        """The `ObservedLines` of a starting point."""
        lines, species, self.rows = self.joint_lines(velocity)
        rows = {k: free["star" if k == STAR else "telluric"] for k in np.unique(species)}
        union = tuple(sorted(set().union(*rows.values()))) if rows else ()
        lower, upper = np.array([-30.0, -20.0, -20.0, -20.0]), np.array([10.0, 5.0, 5.0, 20.0])
        layout = LineLayout(lines, union, lower, upper)
        penalty = line_priors(layout, prior) if union else None
        held = np.array([[parameter not in rows[k] for parameter in union] for k in species])
        scene = replace(self.scene, species=species)
        start = Globals(velocity, rotation, 0.0, np.zeros(scene.n_species), np.zeros(0))
        start = replace(start, continuum=self.first_continuum(replace(scene), lines, start))
        return ObservedLines(scene, layout, start, free_scale=self.free_scale, penalty=penalty, held=held)

    def first_continuum(self, scene, lines, start):
        """Weighted linear fit of the continuum to the data over the model, twice: the second time without outliers."""
        flux = first_flux(scene, lines, start)
        columns = scene.basis * (scene.response() @ flux)[:, None]
        weight = scene.weight
        for _ in range(2):
            coefficients = np.linalg.lstsq(columns * weight[:, None], scene.data * weight, rcond=None)[0]
            residual = (scene.data - columns @ coefficients) * scene.weight
            spread = 5.0 * np.median(np.abs(residual[scene.weight > 0])) / 0.6745
            weight = np.where(np.abs(residual) < max(spread, 1e-12), scene.weight, 0.0)
        return coefficients

    def has_data(self, observed):
        """True for lines with a usable pixel within their width, shape (n_lines,)."""
        points = self.scene.edges.mean(axis=1)
        count = np.concatenate([[0], np.cumsum(self.scene.weight > 0)])
        pixel = np.max(np.diff(self.scene.edges, axis=1))
        lo = np.searchsorted(points, observed.center - observed.width - pixel)
        hi = np.searchsorted(points, observed.center + observed.width + pixel)
        return count[hi] > count[lo]

    def updated_template(self, template, table, rows, info):
        """`template` with the lines of `table` in its own rows `rows`, sorted again."""
        model, lines = template.model.copy(), QTable(template.lines, copy=True)
        values, errors = {}, {}
        for parameter, column in COLUMNS.items():
            target = getattr(model, parameter)
            values[parameter] = target.quantity.to_value(u.AA)
            std = np.nan if target.std is None else target.std
            errors[parameter] = np.broadcast_to(np.asarray(std, dtype=float), model.n_lines).copy()
            values[parameter][rows] = table[column].to_value(u.AA)
            errors[parameter][rows] = table[f"{column}_err"].to_value(u.AA)
        for column in set(lines.colnames) & set(table.colnames) - {"line_center_index", "component"}:
            new = lines[column].copy()
            if column == "blend":  # the lines that the fit does not have keep their blends, under other numbers
                new[new >= 0] += table["blend"].max(initial=-1) + 1
            new[rows] = table[column]
            lines[column] = new
        order = np.argsort(values["x_0"], kind="stable")
        for parameter in COLUMNS:
            setattr(model, parameter, values[parameter][order] * u.AA)
            getattr(model, parameter).std = errors[parameter][order]
        lines = lines[order]
        lines.meta["errors"] = "lines of the fit: " + table.meta["errors"]
        meta = {**template.meta, "error_scale": lines.meta["errors"]}
        return LineTemplate(model=model, lines=lines, fit_info=info, meta=meta)


COLUMNS = {"x_0": "line_center", "strength": "strength", "fwhm_G": "fwhm_gauss", "fwhm_L": "fwhm_lorentz"}


def model_lines(model):
    """Lines of a `VoigtForest1D` [Angstrom], sorted."""
    center, strength, fwhm_gauss, fwhm_lorentz = (np.array(getattr(model, n).quantity.to_value(u.AA), dtype=float)
                                                  for n in ("x_0", "strength", "fwhm_G", "fwhm_L"))  # fmt: skip
    return Lines(center, strength, fwhm_gauss / FWHM_PER_SIGMA, fwhm_lorentz / 2.0).sorted()


def check_degree(degree, n_pixels, n_others):
    """Raise unless a continuum of that degree leaves a pixel more than there are parameters that no prior holds."""
    name, remedy = "continuum_degree", "use more pixels (a wider window, fewer exclusions)"
    if not (isinstance(degree, int | np.integer) and degree >= 0):
        raise ValueError(explain(name, "be a whole number, not negative", repr(degree), "3 is the default"))
    largest = n_pixels - n_others - 2
    if largest < 0:
        expected = f"have more usable pixels than the fit has global parameters ({n_others + 1} or more)"
        raise ValueError(explain("observed", expected, n_pixels, remedy))
    if degree > largest:
        expected = f"be at most {largest} for {n_pixels} usable pixels"
        if n_others:
            expected += f" and {n_others} other global parameters"
        raise ValueError(explain(name, expected, degree, f"lower it, or {remedy}"))


def checked_power(lsf, wave, edges):
    """Resolving power at `wave` (n_pix,), refused where it is too low for the data or too high for the grid."""
    power = lsf.resolving_power(wave)
    lowest = 2.0 * edges.max() / (edges.max() - edges.min())
    if power.min() < lowest or power.max() > LARGEST_POWER:
        raise ValueError(explain("lsf", f"have a resolving power between {lowest:.0f} (two elements in the data) and "
                                 f"{LARGEST_POWER:.0f}", f"{power.min():.6g} to {power.max():.6g}",
                                 "correct it, or use lsf=None for the pixels alone"))  # fmt: skip
    return power


def noise_level(flux):
    """Standard deviation of white noise from second differences, robust against lines."""
    if flux.size < 3:
        return float(np.std(flux)) or 1.0
    second = flux[2:] - 2.0 * flux[1:-1] + flux[:-2]
    return float(1.4826 * np.median(np.abs(second)) / np.sqrt(6.0)) or 1e-6 * float(np.median(np.abs(flux)))


def grid_step(power, template):
    """Spacing of the grid [km/s]: fine enough for the line spread function and for all but the sharpest lines."""
    limits = [LARGEST_STEP]
    if power is not None:
        limits.append(SPEED_OF_LIGHT / power.max() / FWHM_PER_SIGMA / 1.5)
    if template is not None:
        lines = model_lines(template.model)
        limits.append(0.8 * SPEED_OF_LIGHT * float(np.percentile(lines.width / lines.center, 1)))
    return max(min(limits), SMALLEST_STEP)


def line_priors(layout, prior):
    """The penalty on the lines' theta."""
    width_scale = prior.x_0.to_value(u.km / u.s) / SPEED_OF_LIGHT * layout.start.center / layout.start.width
    scales = np.stack([np.full(len(layout.start), prior.strength), *[np.full(len(layout.start), prior.fwhm)] * 2,
                       width_scale], axis=1)[:, list(layout.free)]  # fmt: skip
    kind = QuadraticPenalty if prior.quadratic else AbsolutePenalty
    precision = scales**-2.0 if kind is QuadraticPenalty else 1.0 / scales
    return kind(layout.pack(), precision)


def first_flux(scene, lines, start):
    """The star times the tellurics on the grid at a starting point, before the line spread function."""
    star, sky = scene.species == STAR, scene.species != STAR
    factor = relativistic_factor(start.velocity)
    shifted = Lines(*(a[star] * factor for a in lines))
    kernel = rotation_weights(start.vsini, scene.limb_darkening, scene.step) if star.any() else np.ones(1)
    flux = convolve(np.exp(-line_depth(scene.grid, shifted, scene.form[0])), kernel)
    for k in np.unique(scene.species[sky]):
        flux = flux * np.exp(-line_depth(scene.grid, lines.take(scene.species == k), scene.form[k + 1]))
    return flux


def velocity_and_rotation(setup, velocity, rotation):
    """Starting velocity and vsini [km/s]; what is None is searched for.

    The search is a cross-correlation with the continuum projected out: for every velocity the chi-square of the
    broadened template times the best Legendre continuum, on the lines of the template at one width.
    """
    if setup.template is None or (velocity is not None and rotation is not None):
        return velocity or 0.0, rotation or 1.0
    search = Search(thinned(setup, SEARCH_PIXELS))
    best = (np.inf, 0.0, ROTATIONS[0])
    for trial in ROTATIONS if rotation is None else (rotation,):
        velocities = search.velocities if velocity is None else np.array([velocity])
        chi2 = search.chi2(velocities, trial)
        if chi2.size and chi2.min() < best[0]:
            best = chi2.min(), vertex(velocities, chi2), trial
    return best[1], best[2]


def thinned(setup, n_pixels):
    """A setup with every k-th pixel, about `n_pixels` of them; all of them if there are fewer."""
    scene = setup.scene
    part = slice(None, None, max(1, round(len(scene.edges) / n_pixels)))
    few = {name: getattr(scene, name)[part] for name in ("edges", "basis", "data", "weight")}
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
        velocities = np.arange(-SEARCH_RANGE, SEARCH_RANGE + 0.5 * SEARCH_STEP, SEARCH_STEP)
        factor = relativistic_factor(velocities)
        # velocities that the template covers in part only are tried too: a chance alignment elsewhere must not win
        seen = np.minimum(edges.max() / factor, upper) - np.maximum(edges.min() / factor, lower)
        self.velocities = velocities[seen > 0.5 * (edges.max() - edges.min()) / factor]
        reach = (SEARCH_RANGE + 3.0 * ROTATIONS[-1]) / SPEED_OF_LIGHT
        self.grid = uniform_grid(edges.min() * (1.0 - reach), edges.max() * (1.0 + reach), scene.step)
        lines = model_lines(setup.template.model)
        near = (lines.center > self.grid[0]) & (lines.center < self.grid[-1])
        self.star = np.exp(-line_depth(self.grid, lines.take(near), scene.form[0]))
        middle = edges.mean(axis=1)
        self.points, self.kernel = np.log(middle), gaussian_kernel(scene)
        self.sky = sky_pixels(setup, self.kernel)

    def chi2(self, velocities, rotation):
        """Chi-square at each velocity, shape of `velocities`."""
        scene = self.setup.scene
        star = convolve(self.star, rotation_weights(rotation, scene.limb_darkening, scene.step))
        star = convolve(star, self.kernel)
        step = np.log(self.grid[1] / self.grid[0])
        place = (self.points - np.log(self.grid[0])) / step
        shift = np.log(relativistic_factor(velocities)) / step
        target = scene.data * scene.weight
        columns = scene.basis * (self.sky * scene.weight)[:, None]
        products = (columns[:, :, None] * columns[:, None, :]).reshape(len(columns), -1)
        out = np.empty(len(velocities))
        size = max(CHUNK // place.size, 1)
        for chunk in (slice(k, k + size) for k in range(0, len(velocities), size)):
            # beyond the grid, at a velocity that a user gives, it goes on as it ends
            seen = np.clip(place - shift[chunk, None], 0.0, star.size - 2)
            left = seen.astype(np.int32)
            seen -= left
            flux = star[left]
            flux += seen * (star[left + 1] - flux)
            moments = flux @ (columns * target[:, None])
            normal = (flux**2 @ products).reshape(len(flux), columns.shape[1], -1)
            gain = np.einsum("vi,vij,vj->v", moments, np.linalg.pinv(normal, hermitian=True), moments)
            out[chunk] = target @ target - gain
        return out


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
