"""A few numbers in place of a galaxy's spectrum: in the rest frame, whatever the redshift and the instrument."""

import copy
import warnings
from typing import NamedTuple

import numpy as np
from astropy import units as u
from astropy.table import QTable
from specutils import Spectrum

from specutils_blase.adapters import spectrum_from_wave, wavelength_values
from specutils_blase.errors import BlaseWarning, CoverageError, check_whole, explain
from specutils_blase.galaxy.continuum import FLUX_UNIT, redshifts
from specutils_blase.galaxy.reading import FEWEST, Galaxies, pixels_of, read_galaxies, read_surveys
from specutils_blase.instrument import BandedLSF, as_lsf
from specutils_blase.io.files import read_asdf, write_asdf
from specutils_blase.progress import reporter
from specutils_blase.solvers.galaxies import CameraArrays, GalaxyModel

__all__ = ["Latents", "RedshiftFit", "SpectrumAutoencoder"]

# Chi2 by which a second redshift must be worse, or a redshift is called ambiguous.
AMBIGUOUS = 9.0


class Latents(np.ndarray):
    """
    Latents of galaxies: an array of shape (n, n_latents), with what is known of them.

    Attributes
    ----------
    covariance : ndarray, shape (n, n_latents, n_latents)
        Of the latents, from the inverse variances of the pixels and the prior, which is the density of the galaxies
        that were learned from. None of a part or of a result of arithmetic.
    coverage : ndarray, shape (n, n_latents)
        Of what each latent does to the rest-frame spectrum, over the whole table of the decoder, the part that falls on
        pixels that could be used (of its square). It falls when lines leave the window, whatever the noise: a latent
        may then be another one than at a redshift at which they are seen, by more than its covariance.
    redshift : ndarray, shape (n,)
        At which they were found.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy import units as u
    >>> from astropy.nddata import InverseVariance
    >>> from specutils import Spectrum
    >>> from specutils_blase.galaxy import train_autoencoder
    >>> rng = np.random.default_rng(3)
    >>> z, slope, line = rng.uniform(0, 0.2, 100), rng.uniform(-1, 1, 100), rng.uniform(-1, 1, 100)
    >>> wave = np.arange(5000, 8000, 8.0)
    >>> rest = wave / (1 + z[:, None])
    >>> flux = (rest / 6000) ** slope[:, None] + np.exp(line[:, None] - 0.5 * ((rest - 6000) / 15) ** 2)
    >>> flux = (flux + rng.normal(0, 0.05, flux.shape)) * u.Unit("1e-17 erg / (s cm2 AA)")
    >>> ivar = InverseVariance(np.full(flux.shape, 400.0))
    >>> galaxies = Spectrum(flux=flux, spectral_axis=wave * u.AA, uncertainty=ivar)
    >>> galaxy = train_autoencoder(galaxies, z, n_latents=2, n_components=4, epochs=5, progress=False)
    >>> latents = galaxy.encode(galaxies[:3], z[:3])
    >>> latents.shape, latents.covariance.shape, bool((latents.coverage > 0.4).all())
    ((3, 2), (3, 2, 2), True)
    >>> print((latents - latents.mean(axis=0)).coverage)
    None
    """

    covariance = coverage = redshift = None

    def __array_finalize__(self, origin):
        """Parts and results of arithmetic are arrays without these attributes."""

    def copy(self, order="C"):
        """The same latents, with what is known of them."""
        same = super().copy(order)
        vars(same).update(copy.deepcopy(vars(self)))
        return same

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def __reduce__(self):
        make, arguments, state = super().__reduce__()
        return make, arguments, (state, vars(self))

    def __setstate__(self, state):
        super().__setstate__(state[0])
        vars(self).update(state[1])


class RedshiftFit(NamedTuple):
    """
    Redshifts from `SpectrumAutoencoder.fit_redshift`.

    Attributes
    ----------
    redshift, uncertainty : float, or ndarray of shape (n,)
        And the standard deviation, marginal over the latents, times ``fit_info["redshift_factor"]``.
    scan : QTable
        ``redshift`` and ``chi2``, with a row per trial; of several galaxies, ``chi2`` has a column for each.
    second : float, or ndarray of shape (n,)
        By how much chi2 is larger at the second redshift that fits best.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy import units as u
    >>> from astropy.nddata import InverseVariance
    >>> from specutils import Spectrum
    >>> from specutils_blase.galaxy import train_autoencoder
    >>> rng = np.random.default_rng(3)
    >>> z, slope, line = rng.uniform(0, 0.2, 100), rng.uniform(-1, 1, 100), rng.uniform(-1, 1, 100)
    >>> wave = np.arange(5000, 8000, 8.0)
    >>> rest = wave / (1 + z[:, None])
    >>> flux = (rest / 6000) ** slope[:, None] + np.exp(line[:, None] - 0.5 * ((rest - 6000) / 15) ** 2)
    >>> flux = (flux + rng.normal(0, 0.05, flux.shape)) * u.Unit("1e-17 erg / (s cm2 AA)")
    >>> ivar = InverseVariance(np.full(flux.shape, 400.0))
    >>> galaxies = Spectrum(flux=flux, spectral_axis=wave * u.AA, uncertainty=ivar)
    >>> galaxy = train_autoencoder(galaxies, z, n_latents=2, n_components=4, epochs=20, progress=False)
    >>> redshift, uncertainty, scan, second = galaxy.fit_redshift(galaxies[:4])
    >>> bool((abs(redshift - z[:4]) < 0.005).all()), bool((uncertainty < 0.001).all())
    (True, True)
    >>> scan.colnames, scan["chi2"].shape[1]
    (['redshift', 'chi2'], 4)
    """

    redshift: np.ndarray
    uncertainty: np.ndarray
    scan: QTable
    second: np.ndarray


class SpectrumAutoencoder:
    """
    A galaxy spectrum as a rest-frame spectrum of few latents, seen at a redshift through an instrument.

    Made by `train_autoencoder`. The encoder solves for the coefficients of components of rest-frame spectra, each of
    which attends to the pixels by their inverse variance, at the redshift of the galaxy and through its instrument, and
    maps them to latents; a few Gauss-Newton steps with the decoder follow, so that latents are the most likely ones,
    under the density that galaxies have among them, and have a covariance. It holds no instrument: another survey is
    another ``lsf``.

    Attributes
    ----------
    space : LatentSpace
        Components of rest-frame spectra, and the maps between their coefficients and the latents: a module. With
        `specutils_blase.nn.Observation` gradients flow from pixels to latents and redshift.
    density : LatentDensity
        Of the galaxies among the latents: a module.
    fit_info : dict
        Of the training: galaxies, epochs, seed, chi2 per pixel of training and validation, redshifts, wall time; and
        ``redshift_factor``, by which errors of redshifts that `fit_redshift` finds are larger than noise and latents
        make them, as ``redshifts_compared`` galaxies of the validation have it, and at least one.

    Examples
    --------
    A galaxy somewhere else, and one that has never been:

    >>> import numpy as np
    >>> from astropy import units as u
    >>> from astropy.nddata import InverseVariance
    >>> from specutils import Spectrum
    >>> from specutils_blase.galaxy import train_autoencoder
    >>> rng = np.random.default_rng(3)
    >>> z, slope, line = rng.uniform(0, 0.2, 100), rng.uniform(-1, 1, 100), rng.uniform(-1, 1, 100)
    >>> wave = np.arange(5000, 8000, 8.0)
    >>> rest = wave / (1 + z[:, None])
    >>> flux = (rest / 6000) ** slope[:, None] + np.exp(line[:, None] - 0.5 * ((rest - 6000) / 15) ** 2)
    >>> flux = (flux + rng.normal(0, 0.05, flux.shape)) * u.Unit("1e-17 erg / (s cm2 AA)")
    >>> ivar = InverseVariance(np.full(flux.shape, 400.0))
    >>> galaxies = Spectrum(flux=flux, spectral_axis=wave * u.AA, uncertainty=ivar)
    >>> galaxy = train_autoencoder(galaxies, z, n_latents=2, n_components=4, epochs=5, progress=False)
    >>> print(galaxy)
    <SpectrumAutoencoder of 2 latents, 4188 to 7913 Angstrom in the rest frame, trained with 100 galaxies>
    >>> far = galaxy.decode(galaxy.encode(galaxies[:1], z[:1]), 0.5, np.arange(7000, 9000, 5.0) * u.AA, lsf=600)
    >>> new = galaxy.decode(galaxy.sample(1), 0.1, np.arange(5000, 8000, 5.0) * u.AA)
    >>> far.flux.shape, new.flux.unit
    ((1, 400), Unit(dimensionless))
    """

    def __init__(self, space, density, fit_info):
        self.space, self.density, self.fit_info = space, density, fit_info
        self._model = GalaxyModel(space, density.whiten)

    def __repr__(self):
        wave = self._model.wave
        return (f"<SpectrumAutoencoder of {self.n_latents} latents, {wave[0]:.0f} to {wave[-1]:.0f} Angstrom in the "
                f"rest frame, trained with {self.fit_info.get('n_galaxies')} galaxies>")  # fmt: skip

    def __reduce__(self):
        # Of copies and pickles: the instruments that were met are no part of it.
        return SpectrumAutoencoder, (self.space, self.density, self.fit_info)

    @property
    def n_latents(self):
        """Number of latents."""
        return self.space.to_latents.weight.shape[0]

    @property
    def spectral_axis(self):
        """Wavelengths of the decoder in the rest frame, in vacuum: shape (n_table,) [Angstrom]."""
        return self._model.wave * u.AA

    def write(self, path, overwrite=False):
        """
        Write an ASDF file of numbers alone: what it held before stays until the new content is complete.

        Parameters
        ----------
        path : str or path-like
        overwrite : bool
            Whether an existing file is replaced.
        """
        write_asdf(path, self, overwrite)

    @classmethod
    def read(cls, path):
        """
        Read what `write` wrote.

        Parameters
        ----------
        path : str or path-like

        Returns
        -------
        SpectrumAutoencoder
            Which gives the same to the bit.

        Raises
        ------
        ValueError
            If the file is damaged, of another kind or configuration, or in a format with a newer major version.
        """
        return read_asdf(path, "spectrum_autoencoder")

    def encode(self, spectrum, redshift=None, *, lsf=None):
        """
        Latents of galaxies: the most likely ones under the density of those that were learned from.

        The flow of ``density`` whitens latents to numbers with a standard normal distribution; latents are where chi2
        plus the sum of the squares of these is least: the most likely ones are meant among these numbers. What the
        pixels do not tell is what it is in galaxies that are alike in what they tell. The factor of the spectrum is
        free, its sign too.

        Parameters
        ----------
        spectrum : Spectrum, SpectrumCollection, SpectrumList or list of Spectrum
            One galaxy, or rows of galaxies, or a list of galaxies; cameras of the same galaxies are a list of spectra
            of two dimensions, as the loaders of DESI return them. With uncertainties.
        redshift : float, or array of shape (n,), optional
            None: `fit_redshift` finds it first, and warns if it is ambiguous.
        lsf : LSF, or list of LSF with one for each camera, optional
            As in `specutils_blase.fit_spectrum`. None takes ``meta["resolution_data"]`` where there is one, else the
            pixels alone.

        Returns
        -------
        Latents
            Shape (n, n_latents), with ``covariance``, ``coverage`` and ``redshift``.

        Raises
        ------
        CoverageError
            If no pixel of a galaxy lies on the decoder's table at its redshift.
        """
        return self._encode(spectrum, redshift, lsf)[1]

    def _encode(self, spectrum, redshift, lsf):
        """Arrays of the galaxies, their latents, factors of the spectra, pixels on the table, and chi2."""
        galaxies = read_galaxies(spectrum, lsf)
        if redshift is None:
            redshift = self._fit_redshift(galaxies, (0.0, self._highest(galaxies)), None, stacklevel=4)["redshift"]
        z = np.array(redshifts(redshift, galaxies.n), dtype=float)
        self._check_covered(galaxies.groups, z)
        values, covariance, factor, n_pix, chi2 = self._model.encode(galaxies.groups, z)
        latents = values.view(Latents)
        latents.covariance, latents.redshift = covariance, z
        latents.coverage = self._model.coverage(galaxies.groups, z, values)
        return galaxies, latents, factor, n_pix, chi2

    def _check_covered(self, groups, z):
        wave, inside = self._model.wave, np.zeros(len(z), dtype=int)
        for group in groups:
            stretch = 1.0 + z[group.numbers, None]
            for camera in group.cameras:
                rest = camera.edges.mean(axis=1) / stretch
                inside[group.numbers] += ((rest > wave[0]) & (rest < wave[-1]) & (camera.ivar > 0)).sum(axis=1)
        if (bad := np.flatnonzero(inside < FEWEST)).size:
            k = bad[0]
            group = next(group for group in groups if k in group.numbers)
            ends = [camera.edges[edge] for camera in group.cameras for edge in ((0, 0), (-1, 1))]
            stretch = 1.0 + z[k]
            got = (f"{z[k]:g} for galaxy number {k}, whose pixels are then at {min(ends) / stretch:.0f} to "
                   f"{max(ends) / stretch:.0f} Angstrom")  # fmt: skip
            raise CoverageError(explain("redshift", f"bring {FEWEST} pixels onto the decoder's table, {wave[0]:.0f} to "
                                        f"{wave[-1]:.0f} Angstrom in the rest frame", got,
                                        "correct it, or train with such galaxies"))  # fmt: skip

    def reconstruct(self, spectrum, redshift=None, *, lsf=None):
        """
        Galaxies as the decoder knows them, on their pixels.

        Parameters
        ----------
        spectrum, redshift, lsf
            As for `encode`.

        Returns
        -------
        Spectrum, SpectrumCollection or SpectrumList
            In the form and the unit of the input; masked where pixels lie beyond the decoder's table.
            ``meta["latents"]``, ``meta["redshift"]``, ``meta["chi2"]`` and ``meta["n_pixels"]`` have a row, or a
            number, for each galaxy.
        """
        galaxies, latents, factor, n_pix, chi2 = self._encode(spectrum, redshift, lsf)
        values = []
        for group in galaxies.groups:
            rows = group.numbers
            seen = [self._model.observe(np.asarray(latents)[rows], factor[rows], latents.redshift[rows], camera)
                    for camera in group.cameras]  # fmt: skip
            values.append([(np.where(covered, flux, np.nan), ~covered) for flux, covered in seen])
        out = galaxies.spectra(values)
        whole = {"latents": np.asarray(latents), "redshift": latents.redshift, "chi2": chi2, "n_pixels": n_pix}
        is_list = isinstance(out, list)
        for k, one in enumerate(out if is_list else [out]):
            one.meta.update({name: array[k] for name, array in whole.items()} if is_list and galaxies.kind == "list"
                            else whole)  # fmt: skip
        return out

    def rest_frame(self, spectrum, redshift=None, *, lsf=None):
        """
        Galaxies in the rest frame, over the whole table of the decoder and before any instrument.

        Parameters
        ----------
        spectrum, redshift, lsf
            As for `encode`.

        Returns
        -------
        Spectrum, flux of shape (n, n_table), or (n_table,) of a single galaxy
            Flux density per wavelength as it would be seen at redshift zero from the same distance in the sense
            that nothing is dimmed: f(rest wavelength) = f(observed wavelength).
        """
        galaxies, latents, factor, *_ = self._encode(spectrum, redshift, lsf)
        flux = self._model.rest(np.asarray(latents), factor)
        return spectrum_from_wave(self._model.wave, flux[0] if galaxies.kind == "one" else flux, FLUX_UNIT)

    def decode(self, latents, redshift, spectral_axis, lsf=None):
        """
        Spectra of latents, as an instrument sees them.

        Parameters
        ----------
        latents : array, shape (n, n_latents) or (n_latents,)
        redshift : float, or array of shape (n,)
        spectral_axis : Quantity, or SpectralAxis with bin edges
            Of the pixels; in vacuum.
        lsf : LSF, optional
            As for `encode`; a resolution matrix is that of all galaxies.

        Returns
        -------
        Spectrum
            Relative flux density per wavelength, on the average of the population about one: without a unit.

        Raises
        ------
        CoverageError
            If pixels lie beyond the decoder's table at a redshift.
        """
        values = self._checked(latents)
        if len(values) == 1 and np.ndim(redshift) == 1:
            values = np.repeat(values, len(redshift), axis=0)
        z = np.array(redshifts(redshift, len(values)), dtype=float)
        wavelength_values(spectral_axis, "spectral_axis")
        template = Spectrum(flux=np.ones(len(spectral_axis)) * u.one, spectral_axis=spectral_axis)
        edges, wave, (is_reversed, _) = pixels_of(template, "spectral_axis")
        lsf, bands, power = as_lsf(lsf), None, None
        if isinstance(lsf, BandedLSF):
            bands = np.broadcast_to(lsf.bands, (len(values), *lsf.bands.shape))
        elif lsf is not None:
            power = np.asarray(lsf.resolving_power(wave), dtype=float) * np.ones(len(wave))
        camera = CameraArrays(edges, np.zeros((0, len(wave))), np.zeros((0, len(wave))), power, bands)
        flux, covered = self._model.observe(values, np.ones(len(values)), z, camera)
        if not covered.all():
            table, (k, j) = self._model.wave, np.argwhere(~covered)[0]
            beyond = f"{(~covered).any(0).sum()} of {len(wave)} pixels"
            got = f"{wave[j] / (1 + z[k]):.0f} Angstrom at redshift {z[k]:g} ({beyond})"
            raise CoverageError(explain("spectral_axis", f"lie within the decoder's table, {table[0]:.0f} to "
                                        f"{table[-1]:.0f} Angstrom in the rest frame, with a margin for the line "
                                        "spread function", got, "cut it"))  # fmt: skip
        flux = flux[:, ::-1] if is_reversed else flux
        flux = flux[0] if np.ndim(latents) == 1 and np.ndim(redshift) == 0 else flux
        return Spectrum(flux=flux * u.one, spectral_axis=template.spectral_axis, spectral_axis_index=flux.ndim - 1)

    def log_probability(self, latents):
        """
        Natural logarithm of the density that galaxies have at latents: low for what is unusual.

        Parameters
        ----------
        latents : array, shape (n, n_latents) or (n_latents,)
            From `encode`. With little noise in the spectrum: noise moves latents away from where galaxies are.

        Returns
        -------
        ndarray, shape (n,)
        """
        return self.density.log_probability(self._checked(latents))

    def sample(self, n, seed=0):
        """
        Latents of new galaxies, drawn from the density of those that the training saw.

        Parameters
        ----------
        n : int
        seed : int

        Returns
        -------
        ndarray, shape (n, n_latents)
            For `decode`.
        """
        check_whole("n", n, 1, "give the number of galaxies")
        check_whole("seed", seed, 0, "another draws other galaxies")
        return self.density.sample(int(n), int(seed))

    def _checked(self, latents):
        values = np.atleast_2d(np.asarray(latents, dtype=float))
        if values.ndim != 2 or values.shape[1] != self.n_latents or not np.isfinite(values).all():
            raise ValueError(explain("latents", f"be finite and have the shape (n, {self.n_latents})",
                                     np.shape(latents), "take them from encode or sample"))  # fmt: skip
        return values

    def fit_redshift(self, spectrum, *, lsf=None, bounds=None, progress=None):
        """
        Redshifts of galaxies.

        Linear components are fitted at every redshift of a grid of the spacing of the decoder; the deepest minima are
        refined with the latents, and the best one is taken. One galaxy after the other, in some tenths of a second.

        Parameters
        ----------
        spectrum, lsf
            As for `encode`.
        bounds : (float, float), optional
            Lowest and highest redshift that is tried; None: from zero to where half of the table has left the pixels.
        progress : bool, callable, optional
            As in `specutils_blase.fit_spectrum`.

        Returns
        -------
        RedshiftFit
            ``redshift, uncertainty, scan, second``. Redshifts whose ``second`` is below 9 are ambiguous, of which
            a warning tells.

        Raises
        ------
        CoverageError
            If at no redshift between the bounds a third of the pixels lies on the decoder's table.
        """
        galaxies = read_galaxies(spectrum, lsf)
        if bounds is None:
            bounds = (0.0, self._highest(galaxies))
        try:
            lower, upper = (float(bound) for bound in bounds)
        except (TypeError, ValueError):
            lower = upper = np.nan
        if not -0.1 <= lower < upper <= 20.0:
            raise ValueError(explain("bounds", "be (lowest, highest) redshift", f"{bounds}", "give e.g. (0, 1)"))
        found = self._fit_redshift(galaxies, (lower, upper), progress)
        scan = QTable({"redshift": found["grid"], "chi2": found["scan"].T})
        if galaxies.kind == "one":
            scan["chi2"] = found["scan"][0]
            return RedshiftFit(*(float(found[name][0]) for name in ("redshift", "uncertainty")), scan,
                               float(found["second"][0]))  # fmt: skip
        return RedshiftFit(found["redshift"], found["uncertainty"], scan, found["second"])

    def _fit_redshift(self, galaxies: Galaxies, bounds, progress, stacklevel=3):
        """Redshifts and scans of all groups, in the order of the galaxies."""
        report = reporter(progress)
        out = {}
        for group in galaxies.groups:
            found = self._model.fit_redshift(group, *bounds, lambda part: report(f"redshifts: {100 * part:.0f} %"))
            grid = found.pop("grid")
            for name, values in found.items():
                out.setdefault(name, np.full((galaxies.n, *values.shape[1:]), np.nan))[group.numbers] = values
        report("")
        if (bad := np.flatnonzero(np.isnan(out["redshift"]))).size:
            wave, got = self._model.wave, f"({bounds[0]:g}, {bounds[1]:g}), with none for galaxy number {bad[0]}"
            raise CoverageError(explain("bounds", "hold redshifts at which the spectra lie on the decoder's table, "
                                        f"{wave[0]:.0f} to {wave[-1]:.0f} Angstrom in the rest frame", got,
                                        "give others, or train with such galaxies"))  # fmt: skip
        if (weak := out["second"] < AMBIGUOUS).any():
            warnings.warn(f"{weak.sum()} of {galaxies.n} redshifts are ambiguous: another one has a chi2 that is "
                          f"higher by less than {AMBIGUOUS:g}; see second, from fit_redshift", BlaseWarning,
                          stacklevel=stacklevel)  # fmt: skip
        out["uncertainty"] *= self.fit_info.get("redshift_factor", 1.0)
        # Steps may lead a little beyond.
        return {**out, "redshift": np.clip(out["redshift"], *bounds), "grid": grid}

    def _highest(self, galaxies):
        """The redshift at which the longest pixels are in the middle of the table."""
        wave = self._model.wave
        longest = max(camera.edges.max() for group in galaxies.groups for camera in group.cameras)
        return max(float(longest / np.sqrt(wave[0] * wave[-1])) - 1.0, 0.01)

    def fine_tune(self, spectra, redshift, *, lsf=None, seed=0, progress=None):
        """
        An autoencoder whose spectra have moved to those of these galaxies.

        What the latents leave of them is a change of the components of the decoder's spectra, plus noise. The change
        has a normal prior, of which the variances are the most likely ones around each wavelength (empirical Bayes;
        Rasmussen & Williams 2006, section 5.4): a few galaxies teach what they share and those that are like them,
        and may harm those that are not; many teach all. A galaxy that fits much worse than the others counts little.
        Latents keep their meaning and their density, and redshifts the factor on their uncertainties.

        Parameters
        ----------
        spectra, redshift, lsf
            As for `train_autoencoder`: galaxies of one survey, or of several; one galaxy is enough.
        seed : int
        progress : bool, callable, optional
            As in `specutils_blase.fit_spectrum`.

        Returns
        -------
        SpectrumAutoencoder
            Another one; this one stays as it is. The last entry of ``fit_info["fine_tuning"]`` has ``n_galaxies``,
            ``chi2_per_pixel`` of all of them before and after, and ``deviations``: standard deviations of the prior
            for the mean and for the other components, in parts of the mean spectrum (root mean squares).

        Raises
        ------
        CoverageError
            If no pixel of a galaxy lies on the decoder's table at its redshift.

        Examples
        --------
        Simulated galaxies lack a line that observed ones have:

        >>> import numpy as np
        >>> from astropy import units as u
        >>> from astropy.nddata import InverseVariance
        >>> from specutils import Spectrum
        >>> from specutils_blase.galaxy import train_autoencoder
        >>> rng = np.random.default_rng(3)
        >>> z, slope = rng.uniform(0, 0.2, 100), rng.uniform(-1, 1, 100)
        >>> wave = np.arange(5000, 8000, 8.0)
        >>> rest = wave / (1 + z[:, None])
        >>> line = np.exp(-0.5 * ((rest - 6000) / 15) ** 2)
        >>> def observed(flux):
        ...     flux = (flux + rng.normal(0, 0.05, flux.shape)) * u.Unit("1e-17 erg / (s cm2 AA)")
        ...     ivar = InverseVariance(np.full(flux.shape, 400.0))
        ...     return Spectrum(flux=flux, spectral_axis=wave * u.AA, uncertainty=ivar)
        >>> flux = (rest / 6000) ** slope[:, None]
        >>> simulated, real = observed(flux), observed(flux + line)
        >>> galaxy = train_autoencoder(simulated, z, n_latents=1, n_components=3, epochs=20, progress=False)
        >>> better = galaxy.fine_tune(real[:20], z[:20], progress=False)
        >>> for model in (galaxy, better):  # galaxies that neither has seen
        ...     found = model.reconstruct(real[20:], z[20:]).meta
        ...     print(f"{np.mean(found['chi2'] / found['n_pixels']):.0f}")
        5
        1
        """
        surveys, z = read_surveys(spectra, redshift, lsf)
        self._check_covered(surveys, z)
        check_whole("seed", seed, 0, "another draws other noise")
        report = reporter(progress)
        space, info = self._model.fine_tune(surveys, z, int(seed), report)
        report("")
        history = [*self.fit_info.get("fine_tuning", []), {"n_galaxies": len(z), "seed": int(seed), **info}]
        return SpectrumAutoencoder(space, self.density, {**self.fit_info, "fine_tuning": history})
