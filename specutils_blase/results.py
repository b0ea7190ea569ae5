"""The solution of a transfer fit as astropy objects: spectra on the user's pixels, tables with errors, templates."""

import numpy as np
from astropy import units as u
from astropy.table import QTable, vstack

from specutils_blase.covariance import TableCovariance
from specutils_blase.flags import AT_BOUND, BLENDED, OUTSIDE_WINDOW, PRIOR_DOMINATED
from specutils_blase.lines import blended_widths, line_table, original_index
from specutils_blase.solvers.covariance import LineCovariance, definite_factor
from specutils_blase.solvers.lines import COUPLED, STRENGTH, Lines
from specutils_blase.solvers.observed import LARGEST_VSINI, SMALLEST_VSINI, STAR

__all__ = ["Result"]

ERRORS = "standard deviations from the flux uncertainties and the prior"
ERRORS_SCALED = "the spectrum has no uncertainties: standard deviations from the scatter of the residual, and the prior"


class Result:
    """Puts a solution into astropy objects."""

    def __init__(self, setup, problem, solution, theta, template, tellurics, telluric):
        self.setup, self.problem, self.solution, self.theta = setup, problem, solution, theta
        self.template, self.tellurics, self.given = template, tellurics, telluric
        self.arrays = setup.arrays
        self.state = problem.evaluate(theta)
        _, self.matrix = problem.linearize(theta, neighbours=COUPLED)
        self.factor = definite_factor(self.matrix, 0.0)
        self.inverse = self.factor.inverse()
        self.chi2 = float(np.sum(self.state.residual**2))
        self.dof = np.count_nonzero(setup.weight) - self.effective_parameters()
        self.scale = 1.0 if setup.has_sigma else self.chi2 / max(self.dof, 1.0)
        self.lines, self.covariance = self.seen_lines()

    def effective_parameters(self):
        """Number of parameters that the data, not the prior, determine: the trace of (data curvature x covariance)."""
        problem = self.problem
        held = 0.0
        if problem.penalty is not None and problem.shape[0]:
            curvature = problem.penalty.curvature(problem.split(self.theta)[0])
            held = float(np.sum(curvature.ravel() * self.inverse.local_diagonal))
        return problem.shape[0] * problem.shape[1] + problem.shape[2] - held

    def pieces(self):
        """The attributes of the `SpectrumFit`."""
        tables = self.line_tables()
        templates = enumerate([self.template, *self.tellurics], start=STAR)
        updated = [self.update(template, table, k) for (k, template), table in zip(templates, tables, strict=True)]
        star, tellurics = updated[0], updated[1:]
        many = isinstance(self.given, list | tuple)
        present = [table for table in tables if table is not None]
        lines = vstack(present, metadata_conflicts="silent") if len(present) > 1 else present[0]
        spectra = self.spectra()
        rows = np.argsort(self.problem.scene.species, kind="stable")
        return {
            "observed": self.arrays.source, "template": star,
            "telluric": tellurics if many else (tellurics or [None])[0],
            "parameters": self.parameters(), "lines": lines, "model_spectrum": spectra.pop("model"),
            "residual": spectra.pop("residual"), "components": spectra, "fit_info": self.fit_info(len(lines)),
            "line_covariance": TableCovariance(self.covariance, self.lines, self.line_form(), rows),
        }  # fmt: skip

    def spectra(self):
        """Model, residual and components on the user's pixels."""
        arrays, used, state = self.arrays, self.setup.used, self.state
        response, scale = self.problem._response, self.setup.scale

        def full(values):
            out = np.full(arrays.wave.size, np.nan)
            out[used] = values
            return out

        model = full(state.pixels * state.continuum * scale)
        residual = np.where(arrays.good, arrays.flux - model, np.nan)
        one = u.dimensionless_unscaled
        out = {"model": arrays.to_spectrum(model), "residual": arrays.to_spectrum(residual),
               "continuum": arrays.to_spectrum(full(state.continuum * scale))}  # fmt: skip
        if self.template is not None:
            out["star"] = arrays.to_spectrum(full(response @ state.rotated), unit=one)
        if self.tellurics:
            out["telluric"] = arrays.to_spectrum(full(response @ state.telluric), unit=one)
        return out

    def parameters(self):
        """The table of the global parameters."""
        problem, glob = self.problem, self.state.globals
        std = np.sqrt(np.maximum(np.diag(self.inverse.corner), 0.0) * self.scale)
        named = dict(zip(problem.names, std, strict=False))
        std_rest = std[len(problem.names) :]
        rows = []
        if self.template is not None:
            rows.append(("radial_velocity", glob.velocity, named["radial_velocity"], "km / s", False))
            rows.append(("vsini", glob.vsini, named["vsini"] / (2.0 * glob.vsini), "km / s", False))
            rows.append(("limb_darkening", self.setup.scene.limb_darkening, 0.0, "", True))
        if self.setup.scene.resolving_power is not None:
            power = float(np.mean(self.setup.scene.resolving_power) * np.exp(glob.log_scale))
            error = power * named.get("resolving_power", 0.0)
            rows.append(("resolving_power", power, error, "", not problem.free_scale))
        n_species = problem.scene.n_species
        for k, (value, error) in enumerate(zip(glob.column, std_rest, strict=False)):
            name = "telluric_scale" if n_species == 1 else f"telluric_scale_{k}"
            rows.append((name, np.exp(value), np.exp(value) * error, "", False))
        unit, scale = str(self.arrays.flux_unit), self.setup.scale
        for k, (value, error) in enumerate(zip(glob.continuum, std_rest[n_species:], strict=True)):
            rows.append((f"continuum_{k}", value * scale, error * scale, unit, False))
        table = QTable(rows=rows, names=("name", "value", "std", "unit", "fixed"),
                       dtype=(str, float, float, str, bool))  # fmt: skip
        table.meta["errors"] = ERRORS if self.setup.has_sigma else ERRORS_SCALED
        # an error bar about a limit says nothing
        inside = SMALLEST_VSINI < glob.vsini < LARGEST_VSINI
        table.meta["at_bound"] = [] if self.template is None or inside else ["vsini"]
        return table

    def seen_lines(self):
        """The lines as they were seen, telluric ones with the column scale in their strength, and their covariance.

        ln strength' = ln strength + ln column; a product of lines to a power is no product, and stays without.
        """
        problem = self.problem
        lines, species = problem.lines(self.theta), problem.scene.species
        shared, strength, given = np.full((len(lines), 4), -1), lines.strength.copy(), []
        for k, log_column in enumerate(self.state.globals.column):
            mine = (species == k) & (problem.scene.form[k + 1] == "opacity")
            strength[mine] *= np.exp(log_column)
            shared[mine, STRENGTH] = len(problem.names) + k
            given += [len(problem.names) + k] * (problem.scene.form[k + 1] == "opacity")
        covariance = LineCovariance(self.factor, problem.layout, matrix=self.matrix, inverse=self.inverse,
                                    held=problem.held,
                                    shared=shared, given=given, scale=np.sqrt(self.scale))  # fmt: skip
        return Lines(lines.center, strength, lines.sigma, lines.gamma), covariance

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
        nearest = np.clip(np.searchsorted(self.arrays.wave, centers), 1, self.arrays.wave.size - 1)
        nearest -= centers - self.arrays.wave[nearest - 1] < self.arrays.wave[nearest] - centers
        index = original_index(self.arrays, nearest)
        tables = []
        for k in range(STAR, scene.n_species):
            mine = scene.species == k
            if k == STAR and self.template is None:
                tables.append(None)
                continue
            tables.append(line_table(
                lines.take(mine), covariance[mine], index=index[mine], flags=flags[mine],
                blends=tuple(part[mine] for part in blends), component="star" if k == STAR else "telluric",
                form=scene.form[k + 1], error_scale=ERRORS if self.setup.has_sigma else ERRORS_SCALED,
            ))  # fmt: skip
        return tables

    def update(self, template, table, species):
        """The template with the fitted lines in the places of the old ones."""
        if template is None:
            return None
        rows = self.setup.rows[self.problem.scene.species == species]
        return self.setup.updated_template(template, table, rows, self.fit_info(len(table)))

    def fit_info(self, n_lines):
        """How it went."""
        state, setup, solution = self.state, self.setup, self.solution
        good = setup.weight > 0
        relative = (state.pixels * state.continuum - setup.scene.data)[good] / state.continuum[good]
        return {
            "status": solution.status, "message": solution.message, "rms": float(np.std(relative)),
            "chi2": self.chi2, "dof": float(self.dof), "condition": self.factor.condition(), "n_lines": n_lines,
            "n_pixels": int(np.count_nonzero(good)), "n_ignored": self.arrays.n_ignored,
            "n_iterations": solution.n_iterations, "wavelength_medium": self.arrays.medium,
        }  # fmt: skip
