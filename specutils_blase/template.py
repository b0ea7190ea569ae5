"""LineTemplate: a spectrum at native resolution as a model of lines, and the table of these lines."""

from dataclasses import dataclass, field, replace

import numpy as np
from astropy import units as u
from astropy.table import QTable
from specutils import Spectrum

from specutils_blase import __version__
from specutils_blase.adapters import wavelength_values
from specutils_blase.errors import CoverageError, explain
from specutils_blase.io.files import read_asdf, write_asdf
from specutils_blase.modeling import VoigtForest1D
from specutils_blase.plotting import plot_template

__all__ = ["LineTemplate", "NO_COVARIANCE", "new_rows"]

FRAMES = ("rest", "observatory")
LENGTHS = ("x_0", "strength", "fwhm_G", "fwhm_L")
# Wavelengths outside the coverage by this fraction are rounding in a change of units: 3 mm/s.
ROUNDING = 1e-11
NO_COVARIANCE = ("covariances between lines are not known here: the templates of a fit, and files written without "
                 "covariance=True, hold standard deviations alone; ask what fit_spectrum or clone_spectrum returned")


@dataclass(eq=False, repr=False)
class LineTemplate:
    """
    A star or a telluric transmission as Voigt lines times a continuum, at native resolution and in vacuum.

    Made by `clone_spectrum` and, refined by data, by `fit_spectrum`.

    Attributes
    ----------
    model : VoigtForest1D
        An ordinary astropy model with units: lengths in Angstrom, the continuum in the unit of the input's flux.
    lines : QTable
        One row for each line, by increasing ``line_center``; each quantity with its standard deviation in
        ``<name>_err``. ``meta`` says what they mean.
    fit_info : dict
        How the fit went: ``status``, ``message``, ``rms``, ``n_lines``, ``n_pixels``, ...
    meta : dict
        ``wavelength_medium`` ("vacuum"), ``frame`` ("rest" or "observatory"), ``coverage`` (two floats [Angstrom],
        vacuum), ``package_version``, ``source_medium`` (what the input was in), ``error_scale`` (what ``_err`` means).
        ``coverage`` is required, the others have defaults.
    line_covariance : TableCovariance or None
        What `covariance` works with.
    """

    model: VoigtForest1D
    lines: QTable
    fit_info: dict = field(default_factory=dict)
    meta: dict = field(default_factory=dict)
    line_covariance: object = None

    def __post_init__(self):
        _check_model(self.model)
        if not isinstance(self.lines, QTable):
            raise TypeError(explain("lines", "be a QTable", type(self.lines).__name__, "convert it with QTable(lines)"))
        self.fit_info = {"status": "unknown", **self.fit_info}
        self.meta = {
            "wavelength_medium": "vacuum",
            "frame": "rest",
            "package_version": __version__,
            "source_medium": "vacuum",
            "error_scale": "unknown",
            **self.meta,
        }
        _check_meta(self.meta)

    def __repr__(self):
        first, last = self.meta["coverage"]
        return (f"<LineTemplate: {self.model.n_lines} lines, {first:.6g} to {last:.6g} Angstrom (vacuum), "
                f"{self.meta['frame']} frame>")  # fmt: skip

    @property
    def coverage(self):
        """First and last vacuum wavelength of the template, a Quantity of shape (2,) [Angstrom]."""
        return u.Quantity(self.meta["coverage"], u.AA)

    def evaluate(self, spectral_axis, *, medium="vacuum"):
        """
        The template at given wavelengths: neither shifted, nor broadened, nor averaged over pixels.

        Parameters
        ----------
        spectral_axis : Quantity, shape (n_pix,)
            Increasing or decreasing, in any spectral unit.
        medium : {"vacuum", "air"}
            What the wavelengths of ``spectral_axis`` are.

        Returns
        -------
        Spectrum
            On ``spectral_axis``, in the unit of the continuum.

        Raises
        ------
        CoverageError
            If a wavelength lies outside the template.
        """
        if medium not in ("vacuum", "air"):
            raise ValueError(explain("medium", 'be "vacuum" or "air"', repr(medium), "choose one of them"))
        wave = wavelength_values(spectral_axis, "spectral_axis", wavelength_medium=medium)
        if wave.ndim != 1 or wave.size == 0:
            raise ValueError(explain("spectral_axis", "have the shape (n_pix,)", str(wave.shape),
                                     "for one wavelength give an array of one"))  # fmt: skip
        self._check_coverage(wave)
        flux = u.Quantity(self.model(wave * u.AA))
        return Spectrum(flux=flux, spectral_axis=spectral_axis, meta={"wavelength_medium": medium})

    def covariance(self, lines, quantity="equivalent_width"):
        """
        The covariance matrix of a quantity of some lines of a clone; see `SpectrumFit.covariance`.

        Parameters
        ----------
        lines : int, array of int or bool, slice, or QTable
            Rows of `lines`.
        quantity : str
            "equivalent_width", "strength", "fwhm_gauss", "fwhm_lorentz", "depth" or "line_center".

        Returns
        -------
        Quantity, shape (k, k)

        Raises
        ------
        ValueError
            If the template was made by a fit, which knows the covariances itself, or read from a file without them.
        """
        if self.line_covariance is None:
            raise ValueError(NO_COVARIANCE)
        return self.line_covariance(self.lines, lines, quantity)

    def write(self, path, overwrite=False, covariance=False):
        """
        Write the template to an ASDF file.

        Parameters
        ----------
        path : str or path-like
            Name of the file, by custom ending in ``.asdf``. It appears when it is complete.
        overwrite : bool
            Whether an existing file is replaced.
        covariance : bool
            Whether the covariances between lines are in the file, which makes it several times as large.
        """
        write_asdf(path, self if covariance else replace(self, line_covariance=None), overwrite)

    @classmethod
    def read(cls, path):
        """
        Read a template from an ASDF file.

        Parameters
        ----------
        path : str or path-like
            Name of the file.

        Returns
        -------
        LineTemplate
        """
        return read_asdf(path, "line_template")

    def plot(self, ax=None):
        """
        Draw the template.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; None makes a figure.

        Returns
        -------
        matplotlib.axes.Axes
        """
        return plot_template(self, ax=ax)

    def _check_coverage(self, wave):
        first, last = self.meta["coverage"]
        if wave.min() < first * (1 - ROUNDING) or wave.max() > last * (1 + ROUNDING):
            raise CoverageError(
                explain("spectral_axis", f"lie within the template, {first:.8g} to {last:.8g} Angstrom in vacuum",
                        f"{wave.min():.8g} to {wave.max():.8g} Angstrom", "cut it, or clone a wider spectrum")
            )  # fmt: skip


def new_rows(templates, species, rows):
    """
    Which lines were added to their templates before a fit.

    Parameters
    ----------
    templates : list of LineTemplate or None
        The star's, then those of the species.
    species, rows : ndarray of int, shape (n_lines,)
        -1 or the number of the species, and the row of its template.

    Returns
    -------
    ndarray of bool, shape (n_lines,)
    """
    new = np.zeros(len(rows), dtype=bool)
    for k, template in enumerate(templates, start=-1):
        if template is not None and "new" in template.lines.colnames:
            new[species == k] = template.lines["new"][rows[species == k]]
    return new


def _check_model(model):
    got = f"a {type(model).__name__}"
    if isinstance(model, VoigtForest1D):
        units = {name: getattr(model, name).unit for name in LENGTHS}
        if all(unit is not None and unit.is_equivalent(u.AA) for unit in units.values()):
            return
        got = f"one with the units {', '.join(f'{name}: {unit}' for name, unit in units.items())}"
    raise TypeError(explain("model", "be a VoigtForest1D whose lines are in units of length", got,
                            "give x_0, strength, fwhm_G and fwhm_L as Quantities"))  # fmt: skip


def _check_meta(meta):
    coverage = np.asarray(meta.get("coverage", ()), dtype=float)
    if coverage.shape != (2,) or not 0 < coverage[0] <= coverage[1] < np.inf:
        raise ValueError(explain('meta["coverage"]', "be the first and last wavelength in Angstrom",
                                 repr(meta.get("coverage")), "e.g. [5000.0, 5100.0]"))  # fmt: skip
    meta["coverage"] = [float(bound) for bound in coverage]
    for name, choices in (("wavelength_medium", ("vacuum",)), ("frame", FRAMES)):
        if meta[name] not in choices:
            raise ValueError(explain(f'meta["{name}"]', f"be one of {choices}", repr(meta[name]), "correct it"))
