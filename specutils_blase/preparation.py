"""From spectra and templates to the least-squares problem of `fit_spectrum`: grid, starting point, priors."""

from dataclasses import dataclass, replace

import numpy as np
from astropy import units as u
from astropy.table import QTable

from specutils_blase.errors import CoverageError, check_whole, explain
from specutils_blase.functional.compiled import half_width
from specutils_blase.functional.constants import FWHM_PER_SIGMA, SPEED_OF_LIGHT
from specutils_blase.instrument import BandedLSF, line_shapes
from specutils_blase.orders import Orders
from specutils_blase.solvers.lines import AbsolutePenalty, LineLayout, Lines, QuadraticPenalty, continuum_columns
from specutils_blase.solvers.observed import ObservedLines
from specutils_blase.solvers.response import banded_response, joined
from specutils_blase.solvers.scene import (
    STAR,
    Globals,
    Scene,
    convolve,
    line_depth,
    relativistic_factor,
    rotation_weights,
    uniform_grid,
    veil_columns,
)
from specutils_blase.solvers.smooth import Smoothness, spline_columns
from specutils_blase.template import LineTemplate, new_rows

__all__ = ["Setup", "fewest_pixels", "line_priors", "prior_widths"]

# The grid: 0.5 km/s as in Gully-Santiago & Morley (2022), finer for a sharp LSF or sharp lines.
LARGEST_STEP, SMALLEST_STEP = 0.5, 0.05
# Above this the finest grid undersamples the line spread function.
LARGEST_POWER = 2e6
# The grid reaches this far beyond the pixels [km/s], besides the line spread function.
MARGIN = 60.0
# Pixels of an interval of a spline continuum: fewer would follow lines.  Its smoothness starts from steps of 5 % from
# knot to knot: one that is too stiff leaves residuals that look like errors of the model.
KNOT, FEWEST_KNOTS, MOST_KNOTS, FIRST_STRENGTH = 64, 8, 64, 400.0
# Degree of the polynomials with which velocities are searched for beside splines, if each has so many pixels.
BLAZE_DEGREE, FEWEST_PER_DEGREE = 10, 50
# Where a free veiling starts.
FIRST_VEILING = 0.1
# Standard deviation of ln strength of new lines at least: of 20 % errors it changes 0.5 %.
NEW_STRENGTH = 2.0


@dataclass(eq=False)
class Setup:
    """Everything about a fit that does not depend on its starting point.

    Attributes
    ----------
    orders : Orders
    numbers : ndarray of int, shape (n_parts,)
        Which of the orders are fitted: those of `Scene.part`.
    used : list of slice, one for each part
        Its pixels from the first to the last good one.
    place : ndarray of int, shape (n_pix,)
        Where the pixels of the scene, sorted by wavelength, lie among those of all parts one after the other.
    template : LineTemplate or None
    tellurics : list of LineTemplate
    scene : Scene
    scale : ndarray, shape (n_parts,)
        Flux unit of the scene.
    has_sigma, free_scale : bool
    splines : ndarray, shape (n_pix, m), optional
        Columns of the continua of the fit, if they are not those of the scene, with which velocities are searched for.
    smoothness : Smoothness, optional
        Where that of the splines starts.
    noisy : ndarray of bool, shape (n_pix,), optional
        Pixels with a jitter.
    rows, kind : ndarray of int, shape (n_lines,), optional
        Of the last `problem`: rows of its lines in their templates, and the number of the template, -1 for new lines.
    """

    orders: Orders
    numbers: np.ndarray
    used: list
    place: np.ndarray
    template: LineTemplate | None
    tellurics: list
    scene: Scene
    scale: np.ndarray
    has_sigma: bool
    free_scale: bool
    rows: np.ndarray | None = None
    splines: np.ndarray | None = None
    smoothness: Smoothness | None = None
    noisy: np.ndarray | None = None
    kind: np.ndarray | None = None

    @property
    def weight(self):
        """1/sigma of the used pixels in units of `scale`, 0 where ignored."""
        return self.scene.weight

    @property
    def arrays(self):
        """The arrays of every part."""
        return [self.orders.arrays[k] for k in self.numbers]

    @property
    def medium(self):
        """The declared medium of the wavelengths."""
        return self.arrays[0].medium

    @classmethod
    def build(cls, orders, template, tellurics, lsf, limb_darkening, continuum_degree, wavelength_degree=None,
              veiling=None, continuum="polynomial"):  # fmt: skip
        """Choose the pixels, the units of the flux and the grid."""
        numbers = np.array([k for k, a in enumerate(orders.arrays) if a is not None])
        parts = [orders.arrays[k] for k in numbers]
        inside = [np.flatnonzero(a.good) for a in parts]
        used = [slice(i[0], i[-1] + 1) for i in inside]
        n_shared = 2 * (template is not None) + len(tellurics)
        lsfs = [lsf[k] for k in numbers] if isinstance(lsf, list) else [lsf] * len(numbers)
        lsf = lsfs[0]  # what may be free is the same for all
        n_own = own_parameters(lsf, wavelength_degree)
        fewest = min(i.size for i in inside)
        if continuum == "spline":  # the search must follow a blaze, or it takes rotation for it
            continuum_degree = max(continuum_degree, min(BLAZE_DEGREE, fewest // FEWEST_PER_DEGREE))
        check_degree(continuum_degree, fewest, n_own + (n_shared if orders.is_single else 0))
        name = "observed" if orders.is_single else "observed[{}]"
        scale = np.array([_flux_scale(a.flux[a.good], name.format(k)) for k, a in zip(numbers, parts, strict=True)])
        has_sigma = parts[0].sigma is not None
        pieces = []
        for p, (a, some, level) in enumerate(zip(parts, used, scale, strict=True)):
            good, flux, edges = a.good[some], a.flux[some], a.edges[some]
            sigma = a.sigma[some] if has_sigma else np.full(good.size, noise_level(flux[good]))
            middle = edges.mean(axis=1)
            shift = np.zeros((middle.size, 0))
            if wavelength_degree is not None:
                shift = continuum_columns(middle, wavelength_degree, domain=(edges.min(), edges.max()))
            pieces.append({
                "edges": edges, "data": np.where(good, flux / level, 0.0), "weight": np.where(good, level / sigma, 0.0),
                "basis": continuum_columns(middle, int(continuum_degree), domain=(edges.min(), edges.max())),
                "part": np.full(middle.size, p), "shift_basis": shift,
            })  # fmt: skip
        joint = {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
        place = np.argsort(joint["edges"].mean(axis=1), kind="stable")
        joint = {key: np.ascontiguousarray(values[place]) for key, values in joint.items()}
        edges = joint["edges"]
        banded = banded_lsfs(lsfs, parts)
        if banded and wavelength_degree is not None:
            raise ValueError(explain("wavelength_degree", "be None with resolution matrices", wavelength_degree,
                                     "they belong to the wavelengths of their pixels"))  # fmt: skip
        power = None if lsf is None or banded else checked_power(lsfs, joint["part"], edges)
        step = grid_step(power, template)
        shapes = line_shapes(lsfs, joint["part"])
        reach = (MARGIN + farthest(power, shapes)) / SPEED_OF_LIGHT
        grid = uniform_grid(edges.min() * (1.0 - reach), edges.max() * (1.0 + reach), step)
        matrix = None
        if banded:
            matrix = joined([banded_response(grid, np.ascontiguousarray(a.edges), item.triplets(), some)
                             for a, item, some in zip(parts, banded, used, strict=True)]).take(place)  # fmt: skip
        free, own_power = bool(getattr(lsf, "free", False)), bool(getattr(lsf, "per_order", False))
        span = (edges.min(), edges.max())
        scene = Scene(
            grid=grid, step=step, resolving_power=power, matrix=matrix, **joint, **shapes, n_parts=len(parts),
            power_basis=continuum_columns(edges.mean(axis=1), getattr(lsf, "degree", 0), domain=span),
            own_power=own_power, veil_basis=None if veiling is None else veil_columns(grid, veiling, span),
            species=np.zeros(0, dtype=np.int64), n_species=len(tellurics), limb_darkening=limb_darkening,
            form=("opacity" if template is None else template.model.form, *(t.model.form for t in tellurics)),
        )  # fmt: skip
        splines = smoothness = None
        if continuum == "spline":
            splines, smoothness = all_splines(scene), Smoothness(np.full(scene.n_parts, FIRST_STRENGTH))
        return cls(orders, numbers, used, place, template, tellurics, scene, scale, has_sigma, free and not own_power,
                   splines=splines, smoothness=smoothness)  # fmt: skip

    def spread(self, values):
        """Values of the scene on all pixels of every order, for `Orders.collect`; NaN where there are none."""
        flat = np.empty(self.place.size)
        flat[self.place] = values
        parts = np.split(flat, np.cumsum([some.stop - some.start for some in self.used])[:-1])
        out = [None] * len(self.orders)
        for k, some, a, part in zip(self.numbers, self.used, self.arrays, parts, strict=True):
            out[k] = np.full(a.wave.size, np.nan)
            out[k][some] = part
        return out

    def down_weighted(self, share):
        """Pixels that keep only a share (n_pix,) of their weight: lists of order, pixel (the user's) and share."""
        out = {"order": [], "pixel": [], "share": []}
        for k, row in enumerate(self.spread(np.where(self.weight > 0, share, 1.0))):
            if row is None:
                continue
            a = self.orders.arrays[k]
            row = row[::-1] if a.is_reversed else row
            pixels = np.flatnonzero(row < 1.0)
            out["order"] += [k] * len(pixels)
            out["pixel"] += pixels.tolist()
            out["share"] += row[pixels].tolist()
        return out

    def check_coverage(self, velocity):
        """Raise unless every template covers the used pixels."""
        edges = self.scene.edges
        for name, template, factor in self.frames(velocity):
            lower, upper = template.meta["coverage"]
            need = edges.min() / factor, edges.max() / factor
            if need[0] < lower * (1 - 1e-9) or need[1] > upper * (1 + 1e-9):
                raise CoverageError(explain(
                    name, f"cover the data, {need[0]:.2f} to {need[1]:.2f} Angstrom"
                    + (f" at rest for {velocity:.1f} km/s" if name == "template" else ""),
                    f"{lower:.2f} to {upper:.2f} Angstrom", "clone a wider spectrum or choose a window",
                ))  # fmt: skip

    def pixels_with_jitter(self, velocity, *, everywhere):
        """True for pixels where the model has an error of its own (n_pix,): all, or those without the star; or None."""
        noisy = np.full(len(self.scene.edges), everywhere)
        if self.template is not None:
            lower, upper = np.array(self.template.meta["coverage"]) * relativistic_factor(velocity)
            noisy |= (self.scene.edges[:, 0] < lower * (1 - 1e-9)) | (self.scene.edges[:, 1] > upper * (1 + 1e-9))
        noisy &= self.weight > 0
        return noisy if noisy.any() else None

    def frames(self, velocity):
        """(name, template, factor on its wavelengths) of every template."""
        shift = relativistic_factor(velocity)
        star = [("template", self.template, shift)] * (self.template is not None)
        return [*star, *(("telluric", t, 1.0) for t in self.tellurics)]

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

    def problem(self, velocity, rotation, free, priors):
        """The `ObservedLines` of a starting point."""
        lines, species, self.rows = self.joint_lines(velocity)
        rows = {k: free["star" if k == STAR else "telluric"] for k in np.unique(species)}
        union = tuple(sorted(set().union(*rows.values()))) if rows else ()
        lower, upper = np.array([-30.0, -20.0, -20.0, -20.0]), np.array([10.0, 5.0, 5.0, 20.0])
        layout = LineLayout(lines, union, lower, upper)
        new = new_rows([self.template, *self.tellurics], species, self.rows)
        self.kind = np.where(new | np.isin(species, list(self.fitted_before)), -1, species - STAR)
        penalty = line_priors(layout, [priors[k - STAR] for k in species], new) if union else None
        held = np.array([[parameter not in rows[k] for parameter in union] for k in species])
        scene = replace(self.scene, species=species)
        shift = np.zeros((scene.n_parts, scene.shift_basis.shape[1]))
        veil = np.full(scene.veil_basis.shape[1], np.log1p(FIRST_VEILING))
        hermite = scene.hermite[0] if scene.free_hermite else None
        start = Globals(velocity, rotation, np.zeros(scene.power_basis.shape[1]), np.zeros(scene.n_species),
                        np.zeros(0), np.zeros(scene.n_parts), shift, veil, hermite)  # fmt: skip
        continuum = self.first_continuum(scene, lines, start)
        if self.splines is not None:
            level = np.einsum("pm,pm->p", scene.basis, continuum[scene.part])
            scene = replace(scene, basis=self.splines)
            continuum = np.stack([np.linalg.lstsq(scene.basis[mine], level[mine], rcond=None)[0]
                                  for mine in scene_parts(scene)])  # fmt: skip
        return ObservedLines(scene, layout, replace(start, continuum=continuum), free_scale=self.free_scale,
                             penalty=penalty, held=held, smoothness=self.smoothness)  # fmt: skip

    def first_continuum(self, scene, lines, start):
        """Weighted linear fits of the continua to the data over the model, shape (n_parts, m)."""
        columns = scene.basis * (scene.response(start) @ first_flux(scene, lines, start))[:, None]
        return np.stack([robust_fit(columns[mine], scene.data[mine], scene.weight[mine])
                         for mine in scene_parts(scene)])  # fmt: skip

    @property
    def fitted_before(self):
        """{species: name} of the templates that were learned from these data."""
        names = {STAR: "template", **{k: f"telluric[{k}]" for k in range(len(self.tellurics))}}
        data = set(self.orders.fingerprints)
        return {k: names[k] for k, item in enumerate([self.template, *self.tellurics], start=STAR)
                if item is not None and data & set(item.meta.get("learned_from", ()))}  # fmt: skip

    def has_data(self, observed):
        """True for lines with a usable pixel within their width, shape (n_lines,)."""
        points = self.scene.edges.mean(axis=1)
        count = np.concatenate([[0], np.cumsum(self.scene.weight > 0)])
        pixel = np.max(np.diff(self.scene.edges, axis=1))
        lo = np.searchsorted(points, observed.center - observed.width - pixel)
        hi = np.searchsorted(points, observed.center + observed.width + pixel)
        return count[hi] > count[lo]

    def updated_template(self, template, table, rows, info, is_learned):
        """`template` with the lines of `table` in its own rows `rows`, sorted again."""
        model, lines = template.model.copy(), QTable(template.lines, copy=True)
        lines.keep_columns([name for name in lines.colnames if name != "new"])
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
        if is_learned:
            meta["learned_from"] = sorted({*meta.get("learned_from", ()), *self.orders.fingerprints})
        return LineTemplate(model=model, lines=lines, fit_info=info, meta=meta)


COLUMNS = {"x_0": "line_center", "strength": "strength", "fwhm_G": "fwhm_gauss", "fwhm_L": "fwhm_lorentz"}


def _flux_scale(flux, name):
    """A level of the flux: what the scene calls one."""
    scale = float(np.median(flux))
    if not scale > 0:
        raise ValueError(explain(name, "have positive flux in most pixels", f"the median {scale:.4g}",
                                 "check how it was read and its background subtracted"))  # fmt: skip
    return scale


def banded_lsfs(lsfs, parts):
    """The resolution matrix of each part, or nothing."""
    if not isinstance(lsfs[0], BandedLSF):
        return []
    for a, lsf in zip(parts, lsfs, strict=True):
        if lsf.bands.shape[1] != a.wave.size:
            raise ValueError(explain("lsf", f"have a column for each of the {a.wave.size} pixels of observed",
                                     lsf.bands.shape[1], "give the resolution matrix of this spectrum"))  # fmt: skip
    return lsfs


def scene_parts(scene):
    """The pixels of every part, as slices or indices."""
    if scene.n_parts == 1:
        return [slice(None)]
    order = np.argsort(scene.part, kind="stable")
    return np.split(order, np.cumsum(np.bincount(scene.part, minlength=scene.n_parts))[:-1])


def all_splines(scene):
    """Columns of splines for the continua of all parts, shape (n_pix, m); the longest has an interval for KNOT pixels.

    There are FEWEST_KNOTS to MOST_KNOTS of them, and an interval is no shorter than three pixels of any part.
    """
    size = np.bincount(scene.part, minlength=scene.n_parts)
    n_intervals = int(np.clip(round(size.max() / KNOT), FEWEST_KNOTS, MOST_KNOTS))
    n_intervals = max(2, min(n_intervals, int(size.min()) // 3))
    columns = np.empty((len(scene.part), len(spline_columns(np.zeros(1), n_intervals, (0.0, 1.0))[0])))
    wave = scene.edges.mean(axis=1)
    for mine in scene_parts(scene):
        columns[mine] = spline_columns(wave[mine], n_intervals, (scene.edges[mine].min(), scene.edges[mine].max()))
    return columns


def robust_fit(columns, data, weight):
    """Weighted linear fit, twice: the second time without outliers."""
    trusted = weight
    for _ in range(2):
        coefficients = np.linalg.lstsq(columns * trusted[:, None], data * trusted, rcond=None)[0]
        residual = (data - columns @ coefficients) * weight
        spread = 5.0 * np.median(np.abs(residual[weight > 0])) / 0.6745
        trusted = np.where(np.abs(residual) < max(spread, 1e-12), weight, 0.0)
    return coefficients


def model_lines(model):
    """Lines of a `VoigtForest1D` [Angstrom], sorted."""
    center, strength, fwhm_gauss, fwhm_lorentz = (np.array(getattr(model, n).quantity.to_value(u.AA), dtype=float)
                                                  for n in ("x_0", "strength", "fwhm_G", "fwhm_L"))  # fmt: skip
    return Lines(center, strength, fwhm_gauss / FWHM_PER_SIGMA, fwhm_lorentz / 2.0).sorted()


def own_parameters(lsf, wavelength_degree):
    """Number of the parameters of one order besides its continuum."""
    n_powers = getattr(lsf, "free", False) * (1 + getattr(lsf, "degree", 0)) + 2 * getattr(lsf, "free_shape", False)
    return n_powers + (0 if wavelength_degree is None else wavelength_degree + 1)


def fewest_pixels(lsf, wavelength_degree, continuum_degree, continuum):
    """Usable pixels that an order needs for parameters of its own, and one more; see `check_degree`."""
    lsf = lsf[0] if isinstance(lsf, list) else lsf
    degree = continuum_degree if isinstance(continuum_degree, int | np.integer) else 0
    fewest = degree + own_parameters(lsf, wavelength_degree) + 2
    return max(fewest, 3 * FEWEST_KNOTS) if continuum == "spline" else fewest


def check_degree(degree, n_pixels, n_others):
    """Raise unless a continuum of that degree leaves a pixel more than there are parameters that no prior holds."""
    name, remedy = "continuum_degree", "use more pixels (a wider window, fewer exclusions)"
    check_whole(name, degree, 0, "3 is the default")
    largest = n_pixels - n_others - 2
    if largest < 0:
        expected = f"have more usable pixels than the fit has global parameters ({n_others + 1} or more)"
        raise ValueError(explain("observed", expected, n_pixels, remedy))
    if degree > largest:
        expected = f"be at most {largest} for {n_pixels} usable pixels"
        if n_others:
            expected += f" and {n_others} other global parameters"
        raise ValueError(explain(name, expected, degree, f"lower it, or {remedy}"))


def checked_power(lsfs, part, edges):
    """Resolving power of every pixel (n_pix,), refused where it is too low for the data or too high for the grid."""
    wave, power = edges.mean(axis=1), np.empty(len(edges))
    for p, lsf in enumerate(lsfs):
        power[part == p] = lsf.resolving_power(wave[part == p])
    lowest = 2.0 * edges.max() / (edges.max() - edges.min())
    if power.min() < lowest or power.max() > LARGEST_POWER:
        raise ValueError(explain("lsf", f"have a resolving power between {lowest:.0f} (two elements in the data) and "
                                 f"{LARGEST_POWER:.0f}", f"{power.min():.6g} to {power.max():.6g}",
                                 "correct it, or use lsf=None for the pixels alone"))  # fmt: skip
    return power


def farthest(power, shapes):
    """How far the line spread functions reach [km/s]."""
    ends = [np.abs(velocity).max() for velocity, _ in shapes.get("profiles", ())]
    return max(0.0 if power is None else 3.0 * SPEED_OF_LIGHT / power.min(), *ends, 0.0)


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


def line_priors(layout, priors, new):
    """The penalty on the lines' theta, of each line by its own prior; `new` lines (n_lines,) start from a measurement,
    which is no prior."""
    strength, fwhm, tail, velocity = np.array([
        (prior.strength, prior.fwhm, getattr(prior, "tail", np.inf), prior.x_0.to_value(u.km / u.s)) for prior in priors
    ]).T  # fmt: skip
    width_scale = velocity / SPEED_OF_LIGHT * layout.start.center / layout.start.width
    strength = np.where(new, np.maximum(strength, NEW_STRENGTH), strength)
    scales = np.stack([strength, fwhm, fwhm, width_scale], axis=1)[:, list(layout.free)]
    if priors[0].quadratic:
        return QuadraticPenalty(layout.pack(), scales**-2.0, tail[:, None])
    return AbsolutePenalty(layout.pack(), 1.0 / scales)


def prior_widths(problem):
    """Standard deviations of the prior of a problem, {component: {parameter: number}}; of centres in km/s."""
    start, names = problem.layout.start, ("strength", "fwhm_gauss", "fwhm_lorentz", "x_0")
    speed = SPEED_OF_LIGHT * start.width / start.center
    out = {}
    for k in np.unique(problem.scene.species):
        component = "star" if k == STAR else "telluric" if problem.scene.n_species == 1 else f"telluric_{k}"
        for place, row in enumerate(problem.layout.free):
            mine = (problem.scene.species == k) & ~problem.held[:, place]
            if mine.any():
                std = problem.penalty.precision[mine, place] ** -0.5 * (speed[mine] if names[row] == "x_0" else 1.0)
                out.setdefault(component, {})[names[row]] = float(np.median(std))
    return out


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
