"""Emission lines predicted from the continuum: distributions of their true equivalent widths."""

import copy
import warnings

import numpy as np
from astropy import units as u
from astropy.table import QTable
from specutils import Spectrum

from specutils_blase.errors import BlaseWarning, check_whole, explain
from specutils_blase.functional.galaxies import BINS, predictor_inputs
from specutils_blase.galaxy.continuum import FLUX_UNIT, redshifts, top_hat_continuum, unmasked
from specutils_blase.io.files import read_asdf, write_asdf
from specutils_blase.nn.emission import EmissionLines
from specutils_blase.progress import reporter
from specutils_blase.solvers.line_prediction import quantiles
from specutils_blase.solvers.line_training import train_predictor

__all__ = ["LINES", "EmissionLinePredictor", "measured_widths", "network_inputs", "train_line_predictor"]

# Names of the lines, and their wavelengths in vacuum [Angstrom]: that of a doublet is the middle of its two.
LINES = {"OII_DOUBLET": 3728.48, "HGAMMA": 4341.692, "HBETA": 4862.71, "OIII_4959": 4960.295, "OIII_5007": 5008.240,
         "NII_6548": 6549.861, "HALPHA": 6564.60, "NII_6584": 6585.273, "SII_6716": 6718.294,
         "SII_6731": 6732.674}  # fmt: skip
# The weaker line of a pair from one upper level, the stronger one, and the ratio of their fluxes
# (Storey & Zeippen 2000, MNRAS 312, 813; Storey, Sochi & Badnell 2014 have 2.96 for [N II]).
PAIRS = (("OIII_4959", "OIII_5007", 2.98), ("NII_6548", "NII_6584", 2.96))
# Lines of a doublet, and the share of its flux that each has: 3729 is 1.41 times 3727, that of 30 electrons per cm3,
# as nearby galaxies have (Sanders et al. 2016, ApJ 816, 23, equation 6).
DOUBLETS = {"OII_DOUBLET": ((3727.10, 1.0 / 2.41), (3729.86, 1.41 / 2.41))}
# Standard normal number below which 16 % lie.
ONE_SIDED = 0.994457883
FEWEST = 500
# Colours, luminosity, redshift.
N_INPUTS = len(BINS)


class EmissionLinePredictor:
    """
    Distributions of the true equivalent widths of ten emission lines, given the continuum and the redshift.

    Made by `train_line_predictor`, or read from a file. One network gives all lines; the widths of [O III] 4959 and
    [N II] 6548 are those of their stronger partners over the ratios of the fluxes, 2.98 and 2.96: that the continuum is
    not the same at both lines changes the latter by a percent.

    Attributes
    ----------
    lines : tuple of str
        Names of the lines, which are those of the columns of all tables.
    network : LineNetwork
        What predicts.
    limits : ndarray, shape (2, 13)
        Least and greatest of what went into the network in the training.
    fit_info : dict
        Of the training: galaxies, epochs, seed, figure of merit, wall time; and ``noise_factors``, one for each line,
        by which the errors of the measured widths are multiplied where noise is folded in: below one, the catalogue
        quotes more noise than its widths have.

    Examples
    --------
    A predictor in a file is made of numbers alone, and gives the same to the bit. This one has learned nothing:

    >>> import numpy as np
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from astropy import units as u
    >>> from specutils_blase.galaxy import EmissionLinePredictor
    >>> from specutils_blase.nn.line_network import LineNetwork
    >>> network = LineNetwork(13, 10, width=4)
    >>> predictor = EmissionLinePredictor(network, [[-9.0] * 13, [9.0] * 13], {"n_galaxies": 0})
    >>> with TemporaryDirectory() as folder:
    ...     predictor.write(Path(folder) / "predictor.asdf")
    ...     same = EmissionLinePredictor.read(Path(folder) / "predictor.asdf")
    >>> continuum = np.ones((1, 12)) * u.Unit("1e-17 erg / (s cm2 AA)")
    >>> same.predict(continuum, 0.1)["HALPHA"] == predictor.predict(continuum, 0.1)["HALPHA"]
    array([ True])
    """

    def __init__(self, network, limits, fit_info):
        if (shape := np.shape(limits)) != (2, N_INPUTS) or not np.isfinite(limits).all():
            raise ValueError(explain("limits", f"be finite and have the shape (2, {N_INPUTS})", shape, "train it anew"))
        config = network.config
        if (size := (config["n_inputs"], config["n_lines"], config["members"])) != (N_INPUTS, len(LINES), 1):
            raise ValueError(explain("network", f"have {N_INPUTS} inputs, {len(LINES)} lines and 1 member", size,
                                     "train it anew"))  # fmt: skip
        if other := [list(tie) for tie in network.ties if tuple(tie) not in _ties()]:
            raise ValueError(explain("network", f"have no ties but {_ties()}", other, "train it anew"))
        self.network, self.limits, self.fit_info = network, np.asarray(limits, dtype=float), fit_info

    def __repr__(self):
        return f"<EmissionLinePredictor of {len(LINES)} lines, trained with {self.fit_info['n_galaxies']} galaxies>"

    @property
    def lines(self):
        """Names of the lines."""
        return tuple(LINES)

    def module(self):
        """
        The way from a continuum to one with lines as a module of torch, through which gradients flow.

        Returns
        -------
        `specutils_blase.nn.EmissionLines`
            With a copy of the network, in float32.
        """
        profiles = [(name, *part) for name, wave in LINES.items() for part in DOUBLETS.get(name, ((wave, 1.0),))]
        names, wave, share = zip(*profiles, strict=True)
        return EmissionLines(copy.deepcopy(self.network), self.limits, wave=wave, share=share,
                             line=[list(LINES).index(name) for name in names])  # fmt: skip

    def predict(self, continuum, redshift):
        """
        Median and central 68 % of the true equivalent widths in the rest frame.

        Parameters
        ----------
        continuum : Quantity of shape (n, 12), or Spectrum and what else `top_hat_continuum` takes
            Mean flux densities from `top_hat_continuum`, or the spectra themselves.
        redshift : float, or array of shape (n,)

        Returns
        -------
        QTable
            For every line the columns ``NAME``, ``NAME_p16`` and ``NAME_p84`` [Angstrom], positive in emission; a row
            per galaxy, NaN where a bin of the continuum is not covered; and ``extrapolated``: whether a colour, the
            luminosity or the redshift lies beyond what the network was trained with, where it is held at the end.

        Raises
        ------
        ValueError
            If a flux is not positive, or a redshift missing, negative or not finite.
        """
        inputs, covered = network_inputs(continuum, redshift)
        inputs, beyond = self._held(inputs, covered)
        values = quantiles(self.network, inputs, (0.0, -ONE_SIDED, ONE_SIDED))
        values[~covered] = np.nan
        return QTable({"extrapolated": beyond} | {
            name + suffix: u.Quantity(values[:, k, j], u.AA, copy=False)
            for k, name in enumerate(LINES) for j, suffix in enumerate(("", "_p16", "_p84"))}, copy=False)  # fmt: skip

    def sample(self, continuum, redshift, n=1, *, seed=0, ivar=None, scatter=True):
        """
        Equivalent widths drawn for all lines together, with the correlations that the lines of galaxies have.

        Parameters
        ----------
        continuum, redshift
            As for `predict`.
        n : int
            Draws for each galaxy.
        seed : int
        ivar : array of shape (n_galaxies, 10), optional
            Inverse variances [1 / Angstrom2] of measurements. Given, what is drawn is what would be measured: noise
            as the training found it is added, and widths are positive (NaN where an inverse variance is zero).
        scatter : bool
            False puts the medians in place of draws of the true widths, so that what is drawn is the noise alone.

        Returns
        -------
        QTable
            For every line a column ``NAME`` of shape (n_galaxies, n) [Angstrom].
        """
        inputs, covered = network_inputs(continuum, redshift)
        check_whole("n", n, 1, "give the number of draws")
        check_whole("seed", seed, 0, "another makes other draws")
        noise = None if ivar is None else _noise(_ivar(ivar, len(inputs)))
        inputs, beyond = self._held(inputs, covered)
        values = self.network.draws(inputs, int(n), int(seed), noise, scatter)
        values[~covered] = np.nan
        return QTable({"extrapolated": beyond} | {
            name: u.Quantity(np.ascontiguousarray(values[:, k]), u.AA, copy=False) for k, name in enumerate(LINES)},
            copy=False)  # fmt: skip

    def probability(self, continuum, redshift, equivalent_width, ivar):
        """
        Probability that a measurement of a line would have come out smaller than it did: uniform if all is well.

        The noise of a measured width e > 0 is that of a normal distribution cut at zero, with the mean of the true
        width; its standard deviation is the quoted one times a factor that the training found.

        Parameters
        ----------
        continuum, redshift
            As for `predict`.
        equivalent_width, ivar : array or Quantity of shape (n, 10)
            Measured widths [Angstrom], NaN where there is none, and their inverse variances.

        Returns
        -------
        QTable
            For every line a column ``NAME``, from 0 to 1; NaN where there is no measurement.
        """
        inputs, covered = network_inputs(continuum, redshift)
        width, ivar = measured_widths(equivalent_width, len(inputs)), _ivar(ivar, len(inputs))
        known = np.isfinite(width) & (width > 0) & (ivar > 0) & covered[:, None]
        width, noise = np.where(known, width, 1.0), np.where(known, ivar, 1.0) ** -0.5
        inputs, beyond = self._held(inputs, covered)
        values = self.network.probability(inputs, width, noise)
        return QTable({"extrapolated": beyond} | {
            name: np.where(known[:, k], values[:, k], np.nan) for k, name in enumerate(LINES)})  # fmt: skip

    def write(self, path, overwrite=False):
        """
        Write the predictor to an ASDF file.

        Parameters
        ----------
        path : str or path-like
            Name of the file, by custom ending in ``.asdf``. It appears when it is complete.
        overwrite : bool
            Whether an existing file is replaced.
        """
        write_asdf(path, self, overwrite)

    @classmethod
    def read(cls, path):
        """
        Read a predictor from an ASDF file.

        Parameters
        ----------
        path : str or path-like
            Name of the file.

        Returns
        -------
        EmissionLinePredictor
        """
        return read_asdf(path, "emission_line_predictor")

    def _held(self, inputs, covered):
        """Inputs within those of the training, and which galaxies were beyond, (n,); a warning says how many."""
        with np.errstate(over="ignore"):
            inputs = inputs.astype(np.float32)
        held = np.clip(inputs, *self.limits.astype(np.float32))
        beyond = _with_any(held != inputs) & covered
        if beyond.any():
            warnings.warn(f"{beyond.sum()} of {len(beyond)} galaxies lie beyond those that the network was trained "
                          "with in colour, luminosity or redshift: see the column extrapolated", BlaseWarning,
                          stacklevel=3)  # fmt: skip
        return held, beyond


def train_line_predictor(continuum, redshift, equivalent_width, ivar, seed=0, *, progress=None):
    r"""
    Learn the distribution of true equivalent widths of ten emission lines, given continuum and redshift.

    The network gets the eleven colours :math:`\log_{10} f_{j+1} / f_j`, the luminosity
    :math:`\log_{10} f_8 (1 + z) D_L^2` with f_8 from 5800 to 6100 Angstrom (Khederlarian et al. 2024, MNRAS 531,
    1454, section 3), and the redshift. It minimises the negative logarithm of the likelihood of the measured widths,
    in which the true ones are integrated out: the noise broadens what is seen, not what is predicted. Measured widths
    are positive, as catalogues list them: their noise is normal, cut at zero, and unbiased. Widths of the
    distributions are corrected with galaxies that the network had not seen.

    Parameters
    ----------
    continuum : Quantity, shape (n, 12)
        From `top_hat_continuum`; positive.
    redshift : array, shape (n,)
    equivalent_width : array or Quantity, shape (n, 10)
        In the rest frame [Angstrom], in the order of `EmissionLinePredictor.lines`, positive in emission; NaN where a
        line was not measured.
    ivar : array or Quantity, shape (n, 10)
        Inverse variances [1 / Angstrom2].
    seed : int
        Of all that is random; the same seed gives the same predictor on the same machine.
    progress : bool, callable, optional
        As in `specutils_blase.fit_spectrum`.

    Returns
    -------
    EmissionLinePredictor

    Raises
    ------
    ValueError
        If there are fewer than 500 galaxies, or a line has fewer than 100 measurements; if shapes differ; if a flux is
        not positive.

    Examples
    --------
    Blue galaxies with strong lines and red ones with weak ones, too few to learn more:

    >>> import numpy as np
    >>> from astropy import units as u
    >>> from specutils_blase.galaxy import train_line_predictor
    >>> rng = np.random.default_rng(1)
    >>> slope = rng.uniform(-1, 1, 600)
    >>> continuum = np.geomspace(0.5, 2, 12) ** slope[:, None] * u.Unit("1e-17 erg / (s cm2 AA)")
    >>> measured = rng.lognormal(1 - slope[:, None], 0.2, (600, 10)) * u.AA
    >>> predictor = train_line_predictor(continuum, 0.1, measured, ivar=np.full((600, 10), 25) / u.AA**2)
    >>> predictor
    <EmissionLinePredictor of 10 lines, trained with 600 galaxies>
    >>> lines = predictor.predict(continuum[[slope.argmin(), slope.argmax()]], 0.1)
    >>> lines["HALPHA"][0] > 3 * lines["HALPHA"][1]
    np.True_
    >>> predictor.sample(continuum[:2], 0.1, n=100)["HALPHA"].shape
    (2, 100)
    """
    check_whole("seed", seed, 0, "another makes another network")
    inputs, covered = network_inputs(continuum, redshift)
    width, ivar = measured_widths(equivalent_width, len(inputs)), _ivar(ivar, len(inputs))
    noise = np.where(np.isfinite(width), _noise(ivar), np.nan)
    inputs, width, noise = inputs[covered], width[covered], noise[covered]
    _check_enough(inputs, width, noise)
    network, fit_info = train_predictor(inputs, width, noise, _ties(), int(seed), reporter(progress))
    fit_info["noise_factors"] = dict(zip(LINES, fit_info["noise_factors"], strict=True))
    limits = [inputs.min(axis=0), inputs.max(axis=0)]
    return EmissionLinePredictor(network, limits, {**fit_info, "n_galaxies": len(inputs), "seed": int(seed)})


def _ties():
    """Lines whose width is that of another one, divided by a number, by their places."""
    names = list(LINES)
    return [(names.index(weak), names.index(strong), ratio) for weak, strong, ratio in PAIRS]


def network_inputs(continuum, redshift):
    """What goes into the network, (n, 13), and for which galaxies all bins are covered, (n,)."""
    if isinstance(continuum, Spectrum) or not isinstance(continuum, u.Quantity | np.ndarray):
        continuum = top_hat_continuum(continuum, redshift)
    continuum = unmasked(continuum)
    if not isinstance(continuum, u.Quantity):
        raise TypeError(explain("continuum", "have a unit", "plain numbers", f"multiply it with u.Unit('{FLUX_UNIT}')"))
    try:
        flux = np.atleast_2d(continuum.to_value(FLUX_UNIT).astype(float))
    except u.UnitConversionError as error:
        raise u.UnitsError(explain("continuum", "be a flux density per wavelength", str(continuum.unit),
                                   "take it from top_hat_continuum")) from error  # fmt: skip
    if flux.ndim != 2 or flux.shape[1] != len(BINS) - 1:
        raise ValueError(explain("continuum", "have the shape (n, 12)", flux.shape, "take it from top_hat_continuum"))
    z = redshifts(redshift, len(flux))
    if (bad := _with_any((flux <= 0) | np.isinf(flux))).any():
        raise ValueError(explain("continuum", "be positive, and NaN where it is not covered",
                                 f"other values in {bad.sum()} of {len(bad)} galaxies, the first is number "
                                 f"{bad.argmax()}", "leave those galaxies out"))  # fmt: skip
    covered = ~_with_any(np.isnan(flux))
    if not covered.all():
        flux = np.where(covered[:, None], flux, 1.0)
        warnings.warn(f"{(~covered).sum()} of {len(covered)} galaxies do not cover all bins from 3400 to 7000 "
                      "Angstrom in the rest frame, and nothing is known of their lines", BlaseWarning,
                      stacklevel=3)  # fmt: skip
    return predictor_inputs(flux, z).numpy(), covered


def _with_any(flags):
    """Rows in which anything is true: where that is seldom, thirty times as fast as ``any(axis=1)``."""
    rows = np.zeros(len(flags), dtype=bool)
    rows[np.flatnonzero(flags) // flags.shape[1]] = True
    return rows


def measured_widths(values, n):
    """Equivalent widths [Angstrom], (n, 10), NaN where a line was not measured."""
    width = _numbers_of_lines(values, n, "equivalent_width", u.AA)
    if np.isinf(width).any():
        raise ValueError(explain("equivalent_width", "be finite, and NaN where a line was not measured",
                                 f"{width[np.isinf(width)][0]:g}", "give NaN there"))  # fmt: skip
    return width


def _ivar(values, n):
    ivar = _numbers_of_lines(values, n, "ivar", u.AA**-2)
    if (bad := (ivar < 0) | np.isinf(ivar)).any():
        raise ValueError(explain("ivar", "be finite and not negative", f"{ivar[bad][0]:g}",
                                 "give zero where nothing is known"))  # fmt: skip
    return np.nan_to_num(ivar)


def _noise(ivar):
    """Standard deviations, NaN where nothing is known."""
    return np.where(ivar > 0, ivar, np.nan) ** -0.5


def _numbers_of_lines(values, n, name, unit):
    values = unmasked(values)
    try:
        values = u.Quantity(values, unit).value if not isinstance(values, u.Quantity) else values.to_value(unit)
    except (TypeError, ValueError, u.UnitsError) as error:
        raise type(error)(explain(name, f"be numbers in {unit}", f"{values!r:.60}", "give an array")) from error
    values = np.atleast_2d(np.asarray(values, dtype=float))
    if values.shape != (n, len(LINES)):
        raise ValueError(explain(name, f"have the shape ({n}, {len(LINES)})", values.shape,
                                 f"give a column for each of {', '.join(LINES)}"))  # fmt: skip
    return values


def _check_enough(inputs, width, noise):
    if len(inputs) < FEWEST:
        raise ValueError(explain("continuum", f"have at least {FEWEST} galaxies that cover all bins", len(inputs),
                                 "give more"))  # fmt: skip
    known = (np.isfinite(width) & np.isfinite(noise)).sum(axis=0)
    if known.min() < FEWEST // 5:
        raise ValueError(explain("equivalent_width", f"have at least {FEWEST // 5} measurements of each line",
                                 f"{known.min()} of {list(LINES)[known.argmin()]}", "give more galaxies"))  # fmt: skip
    if (bad := (width <= 0) & np.isfinite(noise)).any():
        raise ValueError(explain("equivalent_width", "be positive where it was measured", f"{bad.sum()} that are not",
                                 "give NaN for lines that were not found"))  # fmt: skip
