"""The solution of a transfer fit as astropy objects: spectra on the user's pixels, tables with errors, templates."""

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.table import QTable, vstack

from specutils_blase.covariance import TableCovariance
from specutils_blase.flags import AT_BOUND, BLENDED, OUTSIDE_WINDOW, PRIOR_DOMINATED
from specutils_blase.lines import blended_widths, line_table, original_index
from specutils_blase.preparation import Setup
from specutils_blase.quality import has_light
from specutils_blase.solvers.covariance import LineCovariance, definite_factor
from specutils_blase.solvers.exposures import Exposure
from specutils_blase.solvers.jitter import SMALLEST, jitter_errors
from specutils_blase.solvers.limits import one_sided
from specutils_blase.solvers.lines import COUPLED, STRENGTH, Lines
from specutils_blase.solvers.observed import (
    LARGEST_HERMITE,
    LARGEST_VEIL,
    LARGEST_VSINI,
    SMALLEST_VEIL,
    SMALLEST_VSINI,
    ObservedLines,
)
from specutils_blase.solvers.scene import STAR, added_velocities, relativistic_factor, veil_series
from specutils_blase.solvers.smooth import effective_continuum
from specutils_blase.template import new_rows

__all__ = ["Origin", "Result", "with_columns"]

ERRORS = "standard deviations from the flux uncertainties and the prior"
ERRORS_SCALED = "the spectrum has no uncertainties: standard deviations from the scatter of the residual, and the prior"


@dataclass(frozen=True, eq=False)
class Origin:
    """
    How a fit was made.

    Attributes
    ----------
    setup : Setup
    problem : ObservedLines
        With the weights and priors with which the fit ended.
    theta : ndarray
        The values that the fit reports.
    arguments : dict
        Of `fit_spectrum`.
    """

    setup: Setup
    problem: ObservedLines
    theta: np.ndarray
    arguments: dict


class Result:
    """Puts a solution into astropy objects."""

    def __init__(self, setup, problem, solution, theta, template, tellurics, arguments, motion):
        self.motion = motion
        self.setup, self.problem, self.solution, self.theta = setup, problem, solution, theta
        self.template, self.tellurics, self.arguments = template, tellurics, arguments
        self.orders = setup.orders
        self.state = problem.evaluate(theta)
        self.matrix = one_sided(problem, solution.theta, problem.linearize(theta, neighbours=COUPLED)[1])
        self.factor = definite_factor(self.matrix, 0.0)
        self.inverse = self.factor.inverse()
        self.chi2 = float(np.sum(self.state.residual**2))
        self.dof = np.count_nonzero(problem.scene.weight) - self.effective_parameters()
        self.scale = 1.0 if setup.has_sigma else self.chi2 / max(self.dof, 1.0)
        self.lines, self.covariance = self.seen_lines()

    def effective_parameters(self):
        """Number of parameters that the data, not the prior, determine: the trace of (data curvature x covariance)."""
        problem = self.problem
        held = 0.0
        if problem.penalty is not None and problem.shape[0]:
            curvature = problem.penalty.curvature(problem.split(self.theta)[0])
            held = float(np.sum(curvature.ravel() * self.inverse.local_diagonal))
        if problem.smoothness is not None:
            held += problem.scene.basis.shape[1] * problem.scene.n_parts
            held -= effective_continuum(problem, self.inverse.corner).sum()
        return problem.shape[0] * problem.shape[1] + problem.shape[2] - held

    def pieces(self):
        """The attributes of the `SpectrumFit`."""
        tables = self.line_tables()
        templates = enumerate([self.template, *self.tellurics], start=STAR)
        updated = [self.update(template, table, k) for (k, template), table in zip(templates, tables, strict=True)]
        star, tellurics = updated[0], updated[1:]
        many = isinstance(self.arguments["telluric"], list | tuple)
        present = [table for table in tables if table is not None]
        lines = vstack(present, metadata_conflicts="silent") if len(present) > 1 else present[0]
        spectra, exposure = self.spectra(), self.exposure()
        rows = np.argsort(self.problem.scene.species, kind="stable")
        return {
            "observed": self.orders.source, "template": star,
            "telluric": tellurics if many else (tellurics or [None])[0],
            "parameters": self.parameters(), "lines": lines, "model_spectrum": spectra.pop("model"),
            "residual": spectra.pop("residual"), "components": spectra, "fit_info": self.fit_info(len(lines)),
            "line_covariance": TableCovariance(self.covariance, self.lines, self.line_form(), rows),
            "exposure": exposure, "origin": Origin(self.setup, exposure.problem, self.theta, self.arguments),
        }  # fmt: skip

    def exposure(self):
        """What lines are looked for in: the minimum itself, and where lines rest on the ground."""
        is_barycentric, velocity = self.orders.frame[0], self.motion.velocity or 0.0
        moved = is_barycentric and not self.motion.is_removed
        return Exposure.kept(self.problem, self.solution.theta, numbers=self.setup.numbers, n_orders=len(self.orders),
                             ground=float(relativistic_factor(velocity if moved else 0.0)))  # fmt: skip

    def spectra(self):
        """Model, residual and components on the user's pixels."""
        orders, setup, state = self.orders, self.setup, self.state
        response = self.problem._response
        # the flux unit of every pixel of the scene
        level = setup.scale[setup.scene.part]
        model = setup.spread(state.pixels * state.continuum * level)
        residual = [None if row is None else np.where(a.good, a.flux - row, np.nan)
                    for a, row in zip(orders.arrays, model, strict=True)]  # fmt: skip
        one = u.dimensionless_unscaled
        out = {"model": orders.collect(model), "residual": orders.collect(residual),
               "continuum": orders.collect(setup.spread(state.continuum * level))}  # fmt: skip
        if self.template is not None:
            out["star"] = orders.collect(setup.spread(response @ state.rotated), unit=one)
            if self.problem.veils:
                middle, grid = setup.scene.edges.mean(axis=1), setup.scene.grid
                veiling = np.interp(middle, grid, setup.scene.veiling(state.globals))
                out["veiling"] = orders.collect(setup.spread(veiling), unit=one)
        if self.tellurics:
            out["telluric"] = orders.collect(setup.spread(response @ state.telluric), unit=one)
        if not setup.has_sigma:
            with np.errstate(divide="ignore"):
                sigma = np.where(setup.weight > 0, level / setup.weight, np.nan)
            out["noise"] = orders.collect(setup.spread(sigma))
        return out

    def parameters(self):
        """The table of the global parameters."""
        problem, glob, scene = self.problem, self.state.globals, self.problem.scene
        std = np.sqrt(np.maximum(np.diag(self.inverse.corner), 0.0) * self.scale)
        named = dict(zip(problem.names, std, strict=False))
        std_columns, std_own = np.split(std[len(problem.names) :], [scene.n_species])
        rows = []
        if self.template is not None:
            velocity = glob.velocity
            if self.motion.is_removed:
                velocity = added_velocities(velocity, self.motion.velocity)
            rows.append(("radial_velocity", velocity, named["radial_velocity"], "km / s", False))
            rows.append(("vsini", glob.vsini, named["vsini"] / (2.0 * glob.vsini), "km / s", False))
            rows.append(("limb_darkening", scene.limb_darkening, 0.0, "", True))
            rows.extend((name, value, error, "", False) for name, value, error in self.veiling())
        if self.motion.velocity is not None:
            rows.append(("barycentric_velocity", self.motion.velocity, 0.0, "km / s", True))
        if scene.resolving_power is not None:
            power = float(np.mean(scene.resolving_power) * np.exp(np.atleast_1d(glob.log_scale)[0]))
            error = power * named.get("resolving_power", 0.0)
            if not scene.own_power:  # else each order has one
                rows.append(("resolving_power", power, error, "", not problem.free_scale))
            for k, value in enumerate(np.atleast_1d(glob.log_scale)[1:], 1):
                rows.append((f"resolving_power_{k}", value, named[f"resolving_power_{k}"], "", False))
        rows.extend((name, value, named.get(name, 0.0), "", not scene.free_hermite)
                    for name, value in self.hermite().items())  # fmt: skip
        for k, (value, error) in enumerate(zip(glob.column, std_columns, strict=True)):
            name = "telluric_scale" if scene.n_species == 1 else f"telluric_scale_{k}"
            rows.append((name, np.exp(value), np.exp(value) * error, "", False))
        for p, errors in enumerate(std_own.reshape(scene.n_parts, scene.n_own)):
            rows.extend(self.own_parameters(p, errors))
            rows.extend(self.own_jitter(p))
        table = QTable(rows=rows, names=("name", "value", "std", "unit", "fixed"),
                       dtype=(str, float, float, str, bool))  # fmt: skip
        table.meta["errors"] = ERRORS if self.setup.has_sigma else ERRORS_SCALED
        table.meta["at_bound"] = self.at_bound()
        table["std"][np.isin(table["name"], table.meta["at_bound"])] = np.nan  # the curvature is that beside the limit
        if problem.veils:
            table.meta["veiling_correlation"] = self.veiling_correlation()
        return table

    def at_bound(self):
        """Names of the global parameters that ended at a limit."""
        glob, out = self.state.globals, []
        if self.template is not None and not SMALLEST_VSINI < glob.vsini < LARGEST_VSINI:
            out.append("vsini")
        if np.any((glob.veil <= SMALLEST_VEIL) | (glob.veil >= LARGEST_VEIL)):
            out += self.problem.veils
        if self.problem.scene.free_hermite:
            out += [name for name, value in self.hermite().items() if abs(value) >= LARGEST_HERMITE]
        return out

    def hermite(self):
        """h3 and h4 of the line spread function, where they are given the mean of the orders; none for a Gaussian."""
        scene, glob = self.problem.scene, self.state.globals
        if scene.hermite is None:
            return {}
        values = glob.hermite if scene.free_hermite else scene.hermite.mean(axis=0)
        return dict(zip(("h3", "h4"), values, strict=True))

    def veiling(self):
        """(name, value, error) of the mean of ln(1 + r), as r, and of its other Legendre coefficients."""
        names = self.problem.veils
        if not names:
            return ()
        series = veil_series(len(names))
        index = [self.problem.names.index(name) for name in names]
        values = series @ self.state.globals.veil
        covariance = self.scale * self.inverse.corner[np.ix_(index, index)]
        errors = np.sqrt(np.einsum("ka,ab,kb->k", series, covariance, series))
        slopes = np.where(np.arange(len(names)) == 0, np.exp(values), 1.0)
        return zip(names, np.append(np.expm1(values[:1]), values[1:]), errors * slopes, strict=True)

    def veiling_correlation(self):
        """The multiple correlation of the veiling with all free parameters of the lines, the largest of its terms.

        The share of its variance that is left where these are held is one minus its square.
        """
        index = [self.problem.names.index(name) for name in self.problem.veils]
        held, free = np.diag(np.linalg.inv(self.matrix.corner))[index], np.diag(self.inverse.corner)[index]
        return float(np.sqrt(np.max(1.0 - held / free, initial=0.0)))

    def own_parameters(self, p, errors):
        """Rows of the table for what part p has for itself; their names say which of several orders it is."""
        scene, glob, m = self.problem.scene, self.state.globals, self.problem.scene.basis.shape[1]
        level = self.setup.scale[p]
        prefix = "" if self.orders.is_single else f"order_{self.setup.numbers[p]}_"
        unit = str(self.setup.arrays[p].flux_unit)
        for k, (value, error) in enumerate(zip(glob.continuum[p], errors, strict=False)):
            yield f"{prefix}continuum_{k}", value * level, error * level, unit, False
        if scene.own_power:
            power = float(np.mean(scene.resolving_power[scene.part == p]) * np.exp(glob.power[p]))
            yield f"{prefix}resolving_power", power, power * errors[m], "", False
        for k, (value, error) in enumerate(zip(glob.shift[p], errors[m + scene.own_power :], strict=True)):
            yield f"{prefix}wavelength_shift_{k}", value, error, "km / s", False

    def own_jitter(self, p):
        """The row of the table for the jitter of part p, if it has one."""
        problem, jitter = self.problem, self.problem.jitter
        if jitter is not None and np.isfinite(jitter[p]):
            error = jitter_errors(problem, self.theta, self.setup.noisy)[p]
            value = jitter[p] if jitter[p] > SMALLEST else 0.0
            prefix = "" if self.orders.is_single else f"order_{self.setup.numbers[p]}_"
            yield f"{prefix}jitter", value, error, "", False

    def seen_lines(self):
        """The lines as they were seen, telluric ones with the column scale in their strength, and their covariance.

        ln strength' = ln strength + ln column; a product of lines to a power is no product, and stays without.
        """
        problem = self.problem
        lines, species = problem.lines(self.theta), problem.scene.species
        shared, given = np.full((len(lines), 4), -1), []
        for k in range(problem.scene.n_species):
            mine = (species == k) & (problem.scene.form[k + 1] == "opacity")
            shared[mine, STRENGTH] = len(problem.names) + k
            given += [len(problem.names) + k] * (problem.scene.form[k + 1] == "opacity")
        covariance = LineCovariance(self.factor, problem.layout, matrix=self.matrix, inverse=self.inverse,
                                    held=problem.held,
                                    shared=shared, given=given, scale=np.sqrt(self.scale))  # fmt: skip
        return with_columns(lines, problem, self.theta), covariance

    def line_form(self):
        """Opacity or product, shape (n_lines,)."""
        return np.array(self.problem.scene.form)[self.problem.scene.species + 1]

    def flags(self):
        """Of every line."""
        problem, layout = self.problem, self.problem.layout
        flags = OUTSIDE_WINDOW * ~self.setup.has_data(self.state.observed)
        if problem.shape[0]:
            local = problem.split(self.theta)[0]
            flags = flags | AT_BOUND * layout.at_bound(local, problem.held)
            if STRENGTH in layout.free:
                place = layout.free.index(STRENGTH)
                curvature = np.where(problem.held[:, place], 0.0, problem.penalty.curvature(local)[:, place])
                # strengths are reported with the column, so that they need not be known without it
                flags = flags | PRIOR_DOMINATED * (self.covariance.strength_variances()[0] * curvature > 0.5)
        return flags

    def line_tables(self):
        """One table for each of star and species (None without star)."""
        scene, lines, flags, form = self.problem.scene, self.lines, self.flags(), self.line_form()
        covariance, blends = self.covariance.blocks(), blended_widths(lines, self.covariance, form)
        flags |= BLENDED * (blends[0] >= 0)
        centers = self.state.observed.center
        new = new_rows([self.template, *self.tellurics], scene.species, self.setup.rows)
        index, order = self.nearest_pixels(centers)
        tables = []
        for k in range(STAR, scene.n_species):
            mine = scene.species == k
            if k == STAR and self.template is None:
                tables.append(None)
                continue
            table = line_table(
                lines.take(mine), covariance[mine], index=index[mine], flags=flags[mine],
                blends=tuple(part[mine] for part in blends), component="star" if k == STAR else "telluric",
                form=scene.form[k + 1], error_scale=ERRORS if self.setup.has_sigma else ERRORS_SCALED,
            )  # fmt: skip
            table["new"] = new[mine]
            table["new"].info.description = "whether the line was added to the template"
            if not self.orders.is_single:
                table["order"] = order[mine]
                table["order"].info.description = "spectrum whose pixel line_center_index is"
            tables.append(table)
        return tables

    def nearest_pixels(self, wave):
        """The pixel nearest to each wavelength in the user's sequence, and the number of its order."""
        parts = self.setup.arrays
        pixels = np.concatenate([a.wave for a in parts])
        part = np.repeat(np.arange(len(parts)), [a.wave.size for a in parts])
        own = np.concatenate([original_index(a, np.arange(a.wave.size)) for a in parts])
        by_wave = np.argsort(pixels, kind="stable")
        pixels = pixels[by_wave]
        nearest = np.clip(np.searchsorted(pixels, wave), 1, pixels.size - 1)
        nearest -= wave - pixels[nearest - 1] < pixels[nearest] - wave
        return own[by_wave][nearest], self.setup.numbers[part[by_wave][nearest]]

    def update(self, template, table, species):
        """The template with the fitted lines in the places of the old ones."""
        if template is None:
            return None
        mine = self.problem.scene.species == species
        rows, is_learned = self.setup.rows[mine], not self.problem.held[mine].all()
        return self.setup.updated_template(template, table, rows, self.fit_info(len(table)), is_learned)

    def fit_info(self, n_lines):
        """How it went."""
        state, setup, solution = self.state, self.setup, self.solution
        good, lit = setup.weight > 0, np.zeros(setup.weight.size, dtype=bool)
        for p in range(setup.scene.n_parts):
            mine = setup.scene.part == p
            lit[mine] = good[mine] & has_light(state.continuum[mine], good[mine])
        relative = (state.pixels * state.continuum - setup.scene.data)[lit] / state.continuum[lit]
        return {
            "status": solution.status, "message": solution.message, "rms": float(np.std(relative)),
            "chi2": self.chi2, "dof": float(self.dof), "condition": self.factor.condition(), "n_lines": n_lines,
            "n_pixels": int(np.count_nonzero(good)), "n_ignored": self.orders.n_ignored,
            "n_iterations": solution.n_iterations, "wavelength_medium": setup.medium,
            "frame": "barycentric" if self.motion.is_removed else "as observed",
            **self.continuum_info(),
        }  # fmt: skip

    def continuum_info(self):
        """What is chosen for continua that are splines: a number for every order that is fitted."""
        if self.problem.smoothness is None:
            return {}
        effective = effective_continuum(self.problem, self.inverse.corner)
        return {"continuum": "spline", "continuum_parameters": effective.tolist(),
                "continuum_roughness": (self.problem.smoothness.strength**-0.5).tolist()}  # fmt: skip


def with_columns(lines, problem, theta):
    """Lines of a problem as they are reported: telluric ones in opacity form have the column at theta in strength."""
    log_column = np.append(problem.globals(theta).column, 0.0)  # the star is the last of them
    is_opacity = np.array(problem.scene.form)[problem.scene.species + 1] == "opacity"
    strength = lines.strength * np.exp(np.where(is_opacity, log_column[problem.scene.species], 0.0))
    return Lines(lines.center, strength, lines.sigma, lines.gamma)
