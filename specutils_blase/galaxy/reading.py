"""Galaxies in whatever holds their spectra, as arrays; and arrays back as what they came in."""

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.nddata import InverseVariance, UnknownUncertainty
from specutils import Spectrum, SpectrumCollection, SpectrumList

from specutils_blase.adapters import read_spectrum
from specutils_blase.errors import NoPixelsError, explain
from specutils_blase.galaxy.continuum import FLUX_UNIT, density_factor, is_cameras, redshifts, same_galaxies
from specutils_blase.instrument import BandedLSF, as_lsf
from specutils_blase.orders import check_rows, members
from specutils_blase.solvers.galaxies import CameraArrays, Group

__all__ = ["FEWEST", "Galaxies", "pixels_of", "read_galaxies", "read_surveys"]

# A galaxy needs this many pixels that can be used.
FEWEST = 100
# Inverse variances of a galaxy are no more than this many times their median: sums over pixels have sixteen digits.
HEAVIEST = 1e12


@dataclass(frozen=True, eq=False)
class Galaxies:
    """
    Galaxies as arrays.

    Attributes
    ----------
    groups : list of Group
    n : int
        Galaxies.
    sources : list of list
        For each group, of each camera, or of each galaxy of a list: what its spectra get, (is_reversed, pixels,
        Spectrum).
    kind : "one", "rows", "cameras" or "list"
        What the spectra came in.
    whole : Spectrum, SpectrumCollection, SpectrumList or list
        That itself.
    """

    groups: list
    n: int
    sources: list
    kind: str
    whole: object

    def spectra(self, values):
        """
        Spectra in the form, with the axes and units, of the input.

        Parameters
        ----------
        values : list of list of (flux, mask)
            For each group and camera, of shape (n_group, n_pix) [1e-17 erg / (s cm2 Angstrom)].
        """
        if self.kind in ("one", "rows", "cameras"):
            made = [_like(*pair, keep_row=self.kind == "one") for pair in zip(self.sources[0], values[0], strict=True)]
            return SpectrumList(made) if self.kind == "cameras" else made[0]
        out = [None] * self.n
        for group, sources, some in zip(self.groups, self.sources, values, strict=True):
            for k, (number, source) in enumerate(zip(group.numbers, sources, strict=True)):
                out[number] = _like(source, [array[k : k + 1] for array in some[0]], keep_row=True)
        return _collected(out, self.whole) if isinstance(self.whole, SpectrumCollection) else SpectrumList(out)


def read_galaxies(spectra, lsf=None, name="spectrum"):
    """
    Arrays of galaxies.

    Parameters
    ----------
    spectra : Spectrum, SpectrumCollection, SpectrumList or list of Spectrum
        One galaxy; rows of galaxies; a list of galaxies; or a list of spectra of two dimensions, the cameras with which
        the galaxies in their rows were observed, as the loaders of DESI return them.
    lsf : LSF, list of LSF with one for each camera, or None
        None takes ``meta["resolution_data"]`` where there is one, else the pixels alone.
    name : str
        Of the argument, for messages.

    Returns
    -------
    Galaxies
    """
    if isinstance(spectra, Spectrum) and spectra.flux.ndim <= 2:
        kind = "one" if spectra.flux.ndim == 1 else "rows"
        blocks = [(np.arange(1 if kind == "one" else len(spectra.flux)), [spectra])]
    elif is_cameras(spectra):
        kind, blocks = "cameras", [(np.arange(len(spectra[0].flux)), list(spectra))]
        same_galaxies(spectra, name)
    else:
        kind = "list"
        blocks = [(np.array([k]), [one]) for k, one in enumerate(members(spectra, name)[0])]
        for k, (_, [one]) in enumerate(blocks):
            if one.flux.ndim != 1:
                raise ValueError(explain(
                    f"{name}[{k}]", "have one dimension, or all of the list two, as cameras have",
                    f"flux of shape {one.flux.shape}", "make a list of galaxies or one of cameras"))  # fmt: skip
    n = 1 + max(int(numbers.max(initial=-1)) for numbers, _ in blocks)
    if n == 0:
        raise ValueError(explain(name, "have one galaxy at least", "none", "look at what selected them"))
    lsfs = lsf if isinstance(lsf, list | tuple) and kind == "cameras" else [lsf] * len(blocks[0][1])
    if len(lsfs) != len(blocks[0][1]):
        raise ValueError(explain("lsf", f"have one for each of {len(blocks[0][1])} cameras", f"{len(lsfs)}",
                                 "give a list in the order of the cameras"))  # fmt: skip
    read = [(numbers, [_camera(one, some, f"{name}[{numbers[0]}]" if kind == "list" else name)
                       for one, some in zip(cameras, lsfs, strict=True)]) for numbers, cameras in blocks]  # fmt: skip
    groups, sources = _joined(read)
    _check_pixels(groups, n, name)
    _check_weights(groups, name)
    return Galaxies(groups, n, sources, kind, spectra)


def read_surveys(spectra, redshift, lsf):
    """
    Groups of the galaxies of all surveys, numbered through, and their redshifts.

    Parameters
    ----------
    spectra, redshift, lsf
        As for `train_autoencoder`.

    Returns
    -------
    groups : list of Group
    redshift : ndarray, shape (n,)
    """
    # Tables of two surveys look like two cameras of one: redshifts tell which they are.
    listed = isinstance(redshift, list | tuple) and all(np.ndim(one) == 1 for one in redshift)
    several = (type(spectra) in (list, tuple) and len(spectra) > 0
               and (listed or not all(isinstance(one, Spectrum) for one in spectra)))  # fmt: skip
    if not several:
        spectra, redshift, lsf = [spectra], [redshift], [lsf]
    lsf = [None] * len(spectra) if lsf is None else lsf
    for name, values in (("redshift", redshift), ("lsf", lsf)):
        if not isinstance(values, list | tuple) or len(values) != len(spectra):
            raise ValueError(explain(name, f"be a list with one for each of {len(spectra)} surveys", f"{values!r:.60}",
                                     "give them in the order of the spectra"))  # fmt: skip
    groups, z = [], []
    for k, (some, values, one) in enumerate(zip(spectra, redshift, lsf, strict=True)):
        galaxies = read_galaxies(some, one, f"spectra[{k}]" if several else "spectra")
        before = sum(len(part) for part in z)
        groups += [Group(group.numbers + before, group.cameras) for group in galaxies.groups]
        z.append(np.array(redshifts(values, galaxies.n), dtype=float))
    return groups, np.concatenate(z)


def _camera(spectrum, lsf, name):
    """Arrays of the rows of a spectrum, and its axis."""
    check_rows(spectrum, name)
    edges, wave, axis = pixels_of(spectrum, name)
    flux = np.atleast_2d(np.asarray(spectrum.flux.value, dtype=np.float64))
    ivar = _inverse_variance(spectrum, flux.shape, name)
    factor = density_factor(spectrum.flux.unit, wave, name)
    if axis[0]:
        flux, ivar = flux[:, ::-1], ivar[:, ::-1]
    good = np.isfinite(flux) & np.isfinite(ivar) & (ivar > 0)
    flux = np.where(good, flux, 0.0) * factor
    ivar = np.where(good, ivar, 0.0) / factor**2
    power, bands = _response(spectrum, lsf, wave, len(flux), axis[0], name)
    return CameraArrays(edges, flux, ivar, power, bands), (*axis, spectrum)


def pixels_of(spectrum, name="spectrum"):
    """Edges (n_pix, 2) and centres of the pixels in vacuum [Angstrom], whether they run down, and the medium."""
    axis = spectrum.spectral_axis
    ones = Spectrum(flux=np.ones(len(axis)) * u.one, spectral_axis=axis, meta=dict(spectrum.meta or {}))
    pixels = read_spectrum(ones, name, weights=None, report=False)
    return pixels.edges, pixels.wave, (pixels.is_reversed, pixels)


def _inverse_variance(spectrum, shape, name):
    if spectrum.uncertainty is None or isinstance(spectrum.uncertainty, UnknownUncertainty):
        got = "none" if spectrum.uncertainty is None else "an UnknownUncertainty"
        raise ValueError(explain(name, "have uncertainties", got, "give InverseVariance or StdDevUncertainty"))
    mask = np.zeros(1, dtype=bool) if spectrum.mask is None else np.asarray(spectrum.mask, dtype=bool)
    given = np.where(mask, 0.0, spectrum.uncertainty.array)
    if (given < 0).any():
        raise ValueError(explain(name, "have uncertainties that are not negative", f"{given[given < 0][0]:g}",
                                 "mask these pixels"))  # fmt: skip
    with np.errstate(divide="ignore", invalid="ignore"):
        known = spectrum.uncertainty.represent_as(InverseVariance)
    ivar = np.array(known.array, dtype=np.float64).reshape(shape)
    # Its unit may be another one than that of the flux.
    ivar = ivar * known.unit.to(spectrum.flux.unit**-2)
    ivar[~np.isfinite(ivar)] = 0.0
    if spectrum.mask is not None:
        ivar[np.asarray(spectrum.mask, dtype=bool).reshape(shape)] = 0.0
    return ivar


def _response(spectrum, lsf, wave, n, is_reversed, name):
    """Resolving power (n_pix,) or None, and resolution matrices (n, n_diag, n_pix) or None."""
    lsf = as_lsf(lsf)
    if lsf is None:
        data = (spectrum.meta or {}).get("resolution_data")
        if data is None:
            return None, None
        data = np.asarray(data)
        data = data[None] if data.ndim == 2 else data
        if data.shape[0] != n or data.shape[2] != len(wave):
            raise ValueError(explain(f'{name}.meta["resolution_data"]', f"have the shape ({n}, n_diag, {len(wave)})",
                                     data.shape, "cut it as the flux was cut"))  # fmt: skip
        # Rows and columns of the matrix are in the order of the pixels of the spectrum.
        return None, data[:, ::-1, ::-1] if is_reversed else data
    if isinstance(lsf, BandedLSF):
        wanted = np.arange(len(lsf.offsets) // 2, -(len(lsf.offsets) // 2) - 1, -1)
        if lsf.bands.shape[1] != len(wave) or not np.array_equal(lsf.offsets, wanted):
            raise ValueError(explain("lsf", f"have {len(wave)} pixels, and the diagonals {wanted[0]} to {wanted[-1]}",
                                     f"{lsf.bands.shape[1]}, {lsf.offsets.tolist()}",
                                     "give the resolution matrix of these spectra"))  # fmt: skip
        return None, np.broadcast_to(lsf.bands, (n, *lsf.bands.shape))
    return np.asarray(lsf.resolving_power(wave), dtype=np.float64) * np.ones(len(wave)), None


def _joined(read):
    """Groups of galaxies with the same pixels, and the sources of their cameras."""
    if len(read) == 1:  # of several cameras, or one
        return [Group(numbers, [arrays for arrays, _ in cameras]) for numbers, cameras in read], [
            [source for _, source in cameras] for _, cameras in read]  # fmt: skip
    found = {}
    for numbers, [(arrays, source)] in read:
        power = None if arrays.power is None else arrays.power.tobytes()
        bands = None if arrays.bands is None else arrays.bands.shape
        found.setdefault((arrays.edges.tobytes(), power, bands), []).append((numbers, arrays, source))
    groups, sources = [], []
    for some in found.values():
        first = some[0][1]
        bands = None if first.bands is None else np.concatenate([arrays.bands for _, arrays, _ in some])
        joined = CameraArrays(first.edges, np.concatenate([arrays.flux for _, arrays, _ in some]),
                              np.concatenate([arrays.ivar for _, arrays, _ in some]), first.power, bands)  # fmt: skip
        groups.append(Group(np.concatenate([numbers for numbers, _, _ in some]), [joined]))
        sources.append([source for *_, source in some])
    return groups, sources


def _check_pixels(groups, n, name):
    count = np.zeros(n, dtype=int)
    for group in groups:
        count[group.numbers] = sum((camera.ivar > 0).sum(axis=1) for camera in group.cameras)
    if (bad := np.flatnonzero(count < FEWEST)).size:
        raise NoPixelsError(explain(name, f"have at least {FEWEST} pixels with flux, inverse variance and no mask",
                                    f"{count[bad[0]]} in galaxy number {bad[0]} ({bad.size} of {n} have fewer)",
                                    "leave these galaxies out"))  # fmt: skip


def _check_weights(groups, name):
    """Beside a pixel of absurd weight the sums over pixels lose all others."""
    for group in groups:
        most = np.max([camera.ivar.max(axis=1) for camera in group.cameras], axis=0)
        usual = np.array([np.median(np.concatenate([row[row > 0] for row in rows]))
                          for rows in zip(*(camera.ivar for camera in group.cameras), strict=True)])  # fmt: skip
        if (bad := np.flatnonzero(most > HEAVIEST * usual)).size:
            k = bad[0]
            raise ValueError(explain(
                name, f"have inverse variances that are no more than {HEAVIEST:g} times their median",
                f"{most[k] / usual[k]:g} times in galaxy number {group.numbers[k]}",
                "mask that pixel"))  # fmt: skip


def _like(source, values, keep_row):
    """A spectrum on the axis of `source`, in its unit of flux."""
    is_reversed, pixels, spectrum = source
    flux, mask = values
    unit = spectrum.flux.unit
    flux = (flux * FLUX_UNIT).to_value(unit, u.spectral_density(pixels.wave * u.AA))
    if is_reversed:
        flux, mask = flux[:, ::-1], mask[:, ::-1]
    if keep_row:
        flux, mask = flux[0], mask[0]
    return Spectrum(flux=flux * unit, spectral_axis=spectrum.spectral_axis, mask=mask,
                    spectral_axis_index=flux.ndim - 1,
                    meta={**{k: v for k, v in (spectrum.meta or {}).items() if k != "resolution_data"},
                          "wavelength_medium": pixels.medium})  # fmt: skip


def _collected(spectra, source):
    """The collection whose rows are some spectra, without values where it has no pixels."""
    meta = dict(source.meta) if isinstance(source.meta, dict) else {}
    flux = np.full(source.flux.shape, np.nan)
    mask = np.ones(source.flux.shape, dtype=bool)
    for row, spectrum, keep in zip(range(len(flux)), spectra, members(source, "spectrum")[1], strict=True):
        flux[row, keep], mask[row, keep] = spectrum.flux.value, spectrum.mask
    return SpectrumCollection(flux=flux * source.flux.unit, spectral_axis=source.spectral_axis, mask=mask, meta=meta)
