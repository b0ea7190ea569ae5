"""The astropy.modeling side: a forest of Voigt lines as an ordinary model, and the fitter that can fit it.

A leaf module that imports astropy and numpy only; the numerical work is imported inside the calls.
"""

from functools import partial

import numpy as np
from astropy import units as u
from astropy.modeling.core import Fittable1DModel
from astropy.modeling.parameters import Parameter
from astropy.units import Quantity

from specutils_blase.fitter import SparseLineFitter

__all__ = ["VoigtForest1D", "SparseLineFitter"]

FORMS = ("opacity", "product")
# Lines are evaluated as far as their optical depth exceeds this.
WINDOW_TOLERANCE = 1e-6


class VoigtForest1D(Fittable1DModel):
    r"""
    Any number of absorption or emission lines with exact Voigt profiles, times a smooth continuum.

    .. math::

        f(\lambda) = C(\lambda) \exp\Big(-\sum_j a_j V(\lambda - \lambda_j; \sigma_j, \gamma_j)\Big)

    in the "opacity" form (Gully-Santiago & Morley 2022, ApJ 941, 200, appendix A), or
    :math:`C \prod_j (1 - a_j V_j)` in the "product" form (their eq. 2).  V has unit area, so that ``strength`` is the
    integrated optical depth: a length, which for a weak line is its equivalent width.

    Parameters
    ----------
    x_0 : array-like or `~astropy.units.Quantity`, shape (n_lines,)
        Line centres in vacuum, in any unit of length and no other; plain numbers are Angstrom.
    strength : array-like or `~astropy.units.Quantity`, shape (n_lines,)
        Integrated optical depth (length); negative for an emission line.
    fwhm_G, fwhm_L : array-like or `~astropy.units.Quantity`, shape (n_lines,)
        Full widths at half maximum of the Gaussian and the Lorentzian part (lengths), as in
        `~astropy.modeling.functional_models.Voigt1D`.
    continuum : array-like or `~astropy.units.Quantity`, optional
        Legendre coefficients of the continuum, lowest first; their unit is the unit of the flux.  Default 1.
        Fixed in a fit, and then in a unit of the flux, unless ``model.continuum.fixed = False``.
    continuum_domain : pair of float or `~astropy.units.Quantity`, optional
        Wavelengths that map to -1 and 1 of the Legendre polynomials; needed for more than one coefficient.
    teff : float or `~astropy.units.Quantity`, optional
        Temperature [K] of a blackbody that multiplies the polynomial; it is 1 at the middle of ``continuum_domain``.
    form : {"opacity", "product"}
    tolerance : float
        Every line is evaluated as far as its optical depth exceeds this.

    Notes
    -----
    ``estimate_line_parameters(spectrum, VoigtForest1D(), region)`` of `specutils.fitting` starts one line, absorption
    or emission: the most prominent of the region, on the continuum at its ends. That function gives every parameter
    one value; forests of several lines start with `from_line_list`, of what `find_lines` has found for example.

    Attributes
    ----------
    line_errors : LineErrors or None
        What a fit by `~specutils_blase.fitter.SparseLineFitter` knows of every line besides the ``std`` of its
        parameters.

    Examples
    --------
    >>> import astropy.units as u
    >>> from specutils_blase import VoigtForest1D
    >>> forest = VoigtForest1D(x_0=[5000, 5001] * u.AA, strength=[0.05, 0.02] * u.AA,
    ...                        fwhm_G=[0.1, 0.1] * u.AA, fwhm_L=[0.02, 0.02] * u.AA)
    >>> forest([4999.9, 5000.0] * u.AA).round(4)  # doctest: +FLOAT_CMP
    <Quantity [0.9513, 0.675 ]>
    >>> forest([499.99, 500.0] * u.nm).round(4)  # doctest: +FLOAT_CMP
    <Quantity [0.9513, 0.675 ]>
    """

    standard_broadcasting = False  # parameters of shape (n_lines,) do not broadcast with x
    n_inputs = 1
    n_outputs = 1
    fit_deriv = None  # the fitters of astropy cannot use it: see SparseLineFitter

    x_0 = Parameter(default=0.0, description="Line centre (vacuum)")
    strength = Parameter(default=1.0, description="Integrated optical depth")
    fwhm_G = Parameter(default=1.0, description="FWHM of the Gaussian part")
    fwhm_L = Parameter(default=1.0, description="FWHM of the Lorentzian part")
    # shape (n_coefficients, 1): it must broadcast with the (n_lines,) of the others
    continuum = Parameter(default=1.0, fixed=True, description="Legendre coefficients of the continuum")

    def __init__(
        self,
        x_0=x_0.default,
        strength=strength.default,
        fwhm_G=fwhm_G.default,
        fwhm_L=fwhm_L.default,
        continuum=continuum.default,
        *,
        continuum_domain=None,
        teff=None,
        form="opacity",
        tolerance=WINDOW_TOLERANCE,
        **kwargs,
    ):
        if form not in FORMS:
            raise ValueError(f"form must be one of {FORMS}, got {form!r}")
        _check_lengths(x_0=x_0, strength=strength, fwhm_G=fwhm_G, fwhm_L=fwhm_L)
        continuum = _column(continuum)
        if continuum_domain is None and (np.size(continuum) > 1 or teff is not None):
            raise ValueError("continuum_domain is needed for more than one continuum coefficient or a teff: give the "
                             "two wavelengths over which the continuum is defined")
        self.form = form
        self.tolerance = float(tolerance)
        self.continuum_domain = continuum_domain
        self.teff = None if teff is None else float(u.Quantity(teff, u.K).value)
        self.line_errors = None
        super().__init__(
            _row(x_0), _row(strength), _row(fwhm_G), _row(fwhm_L), continuum, **kwargs
        )
        for name in self.param_names:  # where estimate_line_parameters of specutils looks
            getattr(self, name).estimator = partial(_estimate, name)

    @property
    def n_lines(self):
        """Number of lines."""
        return np.size(self.x_0.value)

    @classmethod
    def from_line_list(cls, lines, **options):
        """
        The model of a table of lines.

        Parameters
        ----------
        lines : Table
            With ``line_center`` (vacuum), ``strength``, ``fwhm_gauss`` and ``fwhm_lorentz``, as those of the package
            have them; ``<name>_err`` become the ``std`` of the parameters. `~specutils_blase.clone_spectrum`
            takes lists that lack strengths and widths, as native ones do.
        **options
            Of the class. ``form`` is by default that of the table.

        Returns
        -------
        VoigtForest1D

        Examples
        --------
        >>> from astropy import units as u
        >>> from astropy.table import QTable
        >>> from specutils_blase import VoigtForest1D
        >>> lines = QTable({"line_center": [5000, 5001] * u.AA, "strength": [50, 20] * u.mAA,
        ...                 "fwhm_gauss": [0.1, 0.1] * u.AA, "fwhm_lorentz": [0.02, 0.02] * u.AA})
        >>> model = VoigtForest1D.from_line_list(lines)
        >>> print(model.n_lines, f"{model(5000 * u.AA):.3f}")
        2 0.675
        """
        from specutils_blase.forest_tables import forest_columns

        values, errors, form = forest_columns(lines)
        model = cls(**values, **{"form": form, **options})
        for name, error in errors.items():
            getattr(model, name).std = error
        return model

    def to_line_list(self, spectral_axis=None):
        """
        The lines as a table, with equivalent widths and all errors that are known.

        Parameters
        ----------
        spectral_axis : Quantity, shape (n_pix,), optional
            Of the spectrum to which ``line_center_index`` refers, in vacuum; -1 without.

        Returns
        -------
        QTable
            By increasing ``line_center``. After a fit by `~specutils_blase.fitter.SparseLineFitter` blends and flags
            are those of the fit; of a model that has no more than ``std``, the errors of its parameters are taken to
            be independent, and without these errors are NaN.

        Examples
        --------
        >>> from astropy import units as u
        >>> from specutils_blase import VoigtForest1D
        >>> model = VoigtForest1D(x_0=[5000, 5001] * u.AA, strength=[0.05, 0.02] * u.AA,
        ...                       fwhm_G=[0.1, 0.1] * u.AA, fwhm_L=[0.02, 0.02] * u.AA)
        >>> lines = model.to_line_list()
        >>> print(lines["equivalent_width"].to(u.mAA).round())
        [44. 19.] mAngstrom
        """
        from specutils_blase.forest_tables import forest_table

        return forest_table(self, spectral_axis)

    def select(self, region):
        """
        The lines in a part of the spectrum, as a model of their own.

        Parameters
        ----------
        region : SpectralRegion, (lower, upper) Quantities, or Quantity of shape (2,)
            Both bounds belong to it.

        Returns
        -------
        VoigtForest1D
            With the same continuum, and the errors of its lines; wings of others are no longer in it.

        Examples
        --------
        >>> from astropy import units as u
        >>> from specutils_blase import VoigtForest1D
        >>> model = VoigtForest1D(x_0=[5000, 5001] * u.AA, strength=[0.05, 0.02] * u.AA,
        ...                       fwhm_G=[0.1, 0.1] * u.AA, fwhm_L=[0.02, 0.02] * u.AA)
        >>> part = model.select((5000.5, 5002) * u.AA)
        >>> print(part.n_lines, part.x_0.quantity)
        1 5001.0 Angstrom
        """
        from specutils_blase.errors import explain
        from specutils_blase.regions import region_mask

        unit, center = self.x_0.unit or u.AA, np.ravel(self.x_0.value)
        order = np.argsort(center, kind="stable")
        inside = np.zeros(self.n_lines, dtype=bool)
        inside[order] = region_mask(center[order] * unit, region, closed=True)
        if not inside.any():
            raise ValueError(explain("region", "contain lines", "none", f"the model has {self.n_lines} from "
                                     f"{center.min():.8g} to {center.max():.8g} {unit}"))  # fmt: skip
        values = {name: getattr(self, name) for name in ("x_0", "strength", "fwhm_G", "fwhm_L", "continuum")}
        values = {name: p.value if p.unit is None else p.quantity for name, p in values.items()}
        values = {name: value if name == "continuum" else np.ravel(value)[inside] for name, value in values.items()}
        model = type(self)(**values, continuum_domain=self.continuum_domain, teff=self.teff, form=self.form,
                           tolerance=self.tolerance, name=self.name, meta=dict(self.meta))  # fmt: skip
        for name in values:
            old, new = getattr(self, name), getattr(model, name)
            new.fixed, new.bounds = old.fixed, old.bounds
            if old.std is not None:
                new.std = old.std if name == "continuum" else np.ravel(old.std)[inside]
        model.line_errors = None if self.line_errors is None else self.line_errors.take(inside)
        return model

    @classmethod
    def from_voigt1d(cls, models, **options):
        """
        One model of `~astropy.modeling.functional_models.Voigt1D`.

        Parameters
        ----------
        models : Voigt1D, or iterable of them
            Each the optical depth of a line, positive for absorption; or, for weak lines, what it takes from a
            continuum of one. Errors are taken over, with the covariances of a fit where there are any, and what is
            ``fixed`` in all: ``strength`` is where ``amplitude_L`` and ``fwhm_L`` both are. Bounds and ties are not.
        **options
            Of the class.

        Returns
        -------
        VoigtForest1D

        Examples
        --------
        >>> import numpy as np
        >>> from astropy.modeling.models import Voigt1D
        >>> from specutils_blase import VoigtForest1D
        >>> lines = [Voigt1D(5000, 0.5, fwhm_L=0.02, fwhm_G=0.1), Voigt1D(5001, 0.2, fwhm_L=0.02, fwhm_G=0.1)]
        >>> model = VoigtForest1D.from_voigt1d(lines)
        >>> wave = np.linspace(4999, 5002, 301)
        >>> print(np.abs(model(wave) - np.exp(-lines[0](wave) - lines[1](wave))).max() < 1e-4)
        True
        """
        from specutils_blase.forest_tables import voigt1d_columns

        values, errors, fixed = voigt1d_columns(models)
        model = cls(**values, **options)
        for name in fixed:
            getattr(model, name).fixed = True
        for name, error in errors.items():
            getattr(model, name).std = error
        return model

    def to_voigt1d(self):
        """
        The lines as a list of `~astropy.modeling.functional_models.Voigt1D`, the optical depth of each.

        Meant for small sets: astropy evaluates and fits a sum of n models in a time that grows as a power of n.

        Returns
        -------
        list of Voigt1D
            By the order of the lines; a sum of them is minus the logarithm of the flux over the continuum. Each has
            its ``cov_matrix`` and ``std``, as far as they are known and finite, and what is ``fixed`` here: their
            ``amplitude_L`` is where ``strength`` and ``fwhm_L`` both are. Bounds are not taken over.

        Examples
        --------
        >>> from astropy import units as u
        >>> from specutils_blase import VoigtForest1D
        >>> model = VoigtForest1D(x_0=[5000, 5001] * u.AA, strength=[0.05, 0.02] * u.AA,
        ...                       fwhm_G=[0.1, 0.1] * u.AA, fwhm_L=[0.02, 0.02] * u.AA)
        >>> lines = model.to_voigt1d()
        >>> print(len(lines), lines[0].x_0.quantity, f"{lines[0].amplitude_L.value:.3f}")
        2 5000.0 Angstrom 1.592
        >>> total = lines[0] + lines[1]     # the optical depth, an ordinary compound model
        """
        from specutils_blase.forest_tables import voigt1d_models

        return voigt1d_models(self)

    @property
    def input_units(self):
        """The unit of the line centres."""
        return None if self.x_0.unit is None else {self.inputs[0]: self.x_0.unit}

    # Any spectral axis is accepted: frequency, energy and wavenumber are converted.
    input_units_equivalencies = {"x": u.spectral()}

    @property
    def return_units(self):
        """The unit of the continuum."""
        if self.x_0.unit is None:
            return None
        return {self.outputs[0]: self.continuum.unit or u.dimensionless_unscaled}

    def without_units_for_data(self, **data):
        """As `~astropy.modeling.Model` has it; a fixed continuum must be in a unit of the flux."""
        from specutils_blase.errors import explain

        unit = getattr(data[self.outputs[0]], "unit", u.dimensionless_unscaled)
        own = self.continuum.unit or u.dimensionless_unscaled
        if self.continuum.fixed and not unit.is_equivalent(own):
            raise u.UnitsError(explain("continuum", f"be in a unit of the flux, '{unit}', where it is fixed",
                                       f"the unit '{own}'", "give continuum= with the unit, or let it be fitted: "
                                       "model.continuum.fixed = False"))  # fmt: skip
        return super().without_units_for_data(**data)

    def _parameter_units_for_data_units(self, inputs_unit, outputs_unit):
        length = inputs_unit[self.inputs[0]]
        lengths = dict.fromkeys(("x_0", "strength", "fwhm_G", "fwhm_L"), length)
        return {**lengths, "continuum": outputs_unit[self.outputs[0]]}

    def evaluate(self, x, x_0, strength, fwhm_G, fwhm_L, continuum):
        """Flux at ``x``: arrays or Quantities, any shape; see the class."""
        unit = x_0.unit if isinstance(x_0, Quantity) else None
        if unit is not None:
            x = x.to_value(unit, u.spectral())
            x_0, strength, fwhm_G, fwhm_L = (q.to_value(unit) for q in (x_0, strength, fwhm_G, fwhm_L))
        flux_unit = continuum.unit if isinstance(continuum, Quantity) else None
        coefficients = np.ravel(continuum.value if flux_unit is not None else continuum)
        wave = np.asarray(x, dtype=float)
        flat = self.transmission(wave, x_0, strength, fwhm_G, fwhm_L) * self._continuum(wave, coefficients, unit)
        if unit is None and flux_unit is None:
            return flat
        return Quantity(flat, flux_unit or u.dimensionless_unscaled, copy=False)

    def transmission(self, wave, x_0, strength, fwhm_G, fwhm_L):
        """exp(-tau) (or the product) at ``wave``, without the continuum; plain arrays in one unit of length."""
        from specutils_blase.functional import compiled
        from specutils_blase.functional.constants import FWHM_PER_SIGMA

        wave = np.asarray(wave, dtype=float)
        order = np.argsort(wave, axis=None, kind="stable")
        center, strength, fwhm_G, fwhm_L = (np.array(a, dtype=float).ravel() for a in (x_0, strength, fwhm_G, fwhm_L))
        by_center = np.argsort(center, kind="stable")
        lines = (center[by_center], strength[by_center], fwhm_G[by_center] / FWHM_PER_SIGMA, fwhm_L[by_center] / 2)
        grid = np.ascontiguousarray(wave.ravel()[order])
        if self.form == "opacity":
            values = np.exp(-compiled.optical_depth(grid, *lines, self.tolerance))
        else:
            values = compiled.product_transmission(grid, *lines, self.tolerance)
        values[np.isnan(grid)] = np.nan
        out = np.empty(grid.size)
        out[order] = values
        return out.reshape(wave.shape)

    def _continuum(self, wave, coefficients, unit):
        """Blackbody times Legendre polynomial; `wave` in `unit` (None: Angstrom)."""
        if self.continuum_domain is None:
            return coefficients[0]
        return (self.continuum_basis(np.ravel(wave), unit) @ coefficients).reshape(np.shape(wave))

    def continuum_basis(self, wave, unit=None):
        """Blackbody times each Legendre polynomial, shape (n_pix, n_coefficients); ``wave`` (n_pix,) in ``unit``."""
        if self.continuum_domain is None:
            return np.ones((wave.size, 1))
        import torch

        from specutils_blase.functional.continuum import continuum_basis

        factor = 1.0 if unit is None else unit.to(u.AA)
        domain = tuple(bound * factor for bound in self._domain(unit))
        points = torch.from_numpy(np.array(wave, dtype=float) * factor)
        return continuum_basis(points, np.size(self.continuum.value) - 1, self.teff, domain).numpy()

    def _domain(self, unit):
        domain = self.continuum_domain
        if isinstance(domain, Quantity):
            return domain.to_value(unit) if unit is not None else domain.value
        return domain


def _estimate(name, spectrum, region):
    from specutils_blase.forest_tables import line_estimate

    return line_estimate(spectrum, region)[name]


def _check_lengths(**parameters):
    """Raise unless all units are of length."""
    for name, values in parameters.items():
        unit = getattr(values, "unit", None)
        if unit is not None and not u.Unit(unit).is_equivalent(u.AA):
            from specutils_blase.errors import explain

            raise u.UnitsError(explain(name, "be a length", f"the unit '{unit}'",
                                       "give wavelengths and widths in wavelength"))  # fmt: skip


def _row(values):
    """Parameter values with shape (n_lines,)."""
    return values if isinstance(values, Parameter) else np.atleast_1d(values)


def _column(values):
    """Continuum coefficients with shape (n_coefficients, 1)."""
    if isinstance(values, Parameter):
        values = values.value if values.unit is None else values.quantity
    return np.reshape(values, (-1, 1)) if np.ndim(values) else values
