"""Arrays of observed galaxies on one side, their latents on the other; unit-free."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specutils_blase.functional import FWHM_PER_SIGMA, SPEED_OF_LIGHT
from specutils_blase.functional.resampling import MIN_SIGMA
from specutils_blase.nn.instrument import Instrument
from specutils_blase.nn.latent_space import LatentSpace
from specutils_blase.nn.observation import Observation
from specutils_blase.solvers.components import fit_components, sharpened
from specutils_blase.solvers.fine_tuning import moved_components
from specutils_blase.solvers.latent_training import train_latent_space
from specutils_blase.solvers.redshifts import Scanner, latents_at, refine
from specutils_blase.solvers.survey import Camera, Statistics, rest_frame_rows, statistics, statistics_of_each

__all__ = ["CameraArrays", "GalaxyModel", "Group", "train_galaxy_model"]

# Spacing of the table by that of the pixels, and its limits [km/s].
FINER, STEPS = 2.0 / 3.0, (30.0, 200.0)
# Part of the galaxies that may lack either end of the table.
LACKING = 0.02
# Galaxies that the components are fitted to, at most; all are learned from.
ENOUGH = 20_000
# Galaxies whose latents are fitted at once.
BATCH = 1000
# Redshifts that differ by less, by 1 + z, are one.
SAME = 1e-3
# Galaxies, at most, whose redshifts are compared with the known ones.
COMPARED = 600
# Part of a normal distribution within one standard deviation.
ONE_SIGMA = 0.6827
# Beyond this many standard deviations of the line spread function nothing reaches a pixel.
REACH = 7.0


@dataclass(frozen=True, eq=False)
class CameraArrays:
    """
    What one camera saw of n galaxies.

    Parameters
    ----------
    edges : ndarray, shape (n_pix, 2)
        Of the pixels, in vacuum [Angstrom], increasing.
    flux, ivar : ndarray, shape (n, n_pix)
        Flux density per wavelength; the inverse variance is zero where a pixel cannot be used.
    power : ndarray, shape (n_pix,), or None
        Resolving power.
    bands : ndarray, shape (n, n_diag, n_pix), or None
        Resolution matrices in the layout of DESI.
    """

    edges: np.ndarray
    flux: np.ndarray
    ivar: np.ndarray
    power: np.ndarray | None = None
    bands: np.ndarray | None = None

    def rows(self, chosen) -> "CameraArrays":
        """Some of the galaxies."""
        bands = None if self.bands is None else self.bands[chosen]
        return CameraArrays(self.edges, self.flux[chosen], self.ivar[chosen], self.power, bands)


@dataclass(frozen=True, eq=False)
class Group:
    """
    Galaxies that were observed with the same pixels.

    Parameters
    ----------
    numbers : ndarray of int, shape (n,)
        Their places among all galaxies.
    cameras : sequence of CameraArrays
    """

    numbers: np.ndarray
    cameras: Sequence[CameraArrays]

    def levels(self) -> np.ndarray:
        """Weighted mean of the flux of each galaxy, or a little of its noise, (n,): its sign does not matter."""
        weight = sum(camera.ivar.sum(1) for camera in self.cameras)
        flux = sum((camera.ivar * camera.flux).sum(1) for camera in self.cameras)
        square = sum((camera.ivar * camera.flux**2).sum(1) for camera in self.cameras)
        number = sum((camera.ivar > 0).sum(1) for camera in self.cameras)
        weight = np.maximum(weight, 1e-300)
        return np.maximum(np.abs(flux / weight), 1e-3 * np.sqrt(np.maximum(square, number) / weight) + 1e-300)


class GalaxyModel:
    """
    A trained `LatentSpace` and the instruments that galaxies are observed with.

    Parameters
    ----------
    space : LatentSpace
    whiten : callable, optional
        The prior of the latents, as for `LatentSpace.fit`.
    """

    def __init__(self, space: LatentSpace, whiten: Callable[[Tensor], Tensor] | None = None) -> None:
        self.space, self.whiten, self._observations = space, whiten, {}

    @property
    def wave(self) -> np.ndarray:
        """The table, in the rest frame [Angstrom]."""
        n = self.space.components.shape[1]
        return self.space.first * np.exp(np.arange(n) * (self.space.step / SPEED_OF_LIGHT))

    def cameras(self, group: Group) -> tuple[list[Camera], np.ndarray]:
        """Tensors of a group, scaled, and the levels that they were divided by."""
        levels = group.levels()
        return [self._camera(camera, levels[:, None]) for camera in group.cameras], levels

    def _camera(self, arrays, levels):
        flux = torch.from_numpy(np.where(arrays.ivar > 0, arrays.flux / levels, 0.0).astype(np.float32))
        ivar = torch.from_numpy((arrays.ivar * levels**2).astype(np.float32))
        bands = None if arrays.bands is None else torch.from_numpy(np.ascontiguousarray(arrays.bands, np.float32))
        ln_wave = torch.from_numpy(np.log(arrays.edges).mean(1))
        return Camera(ln_wave, flux, ivar, self.observation(arrays.edges, arrays.power, bands), bands)

    def observation(self, edges: np.ndarray, power: np.ndarray | None, bands: Tensor | None = None) -> Observation:
        """The way to pixels; kept, for it is the same for all galaxies of a survey."""
        key = edges.tobytes(), None if power is None else power.tobytes(), bands is None
        if key not in self._observations:
            if len(self._observations) > 64:
                self._observations.clear()
            self._check_power(power)
            widest = 0.0 if power is None else SPEED_OF_LIGHT / FWHM_PER_SIGMA / float(np.min(power))
            instrument = Instrument(torch.from_numpy(edges), step=self.space.step,
                                    resolving_power=None if power is None else torch.from_numpy(power),
                                    margin=REACH * widest + 2.0 * self.space.step)  # fmt: skip
            found = self._observations[key] = Observation(instrument, self.space.first)
            if bands is not None:
                found.blur = _blur(found, bands)
        return self._observations[key]

    def _check_power(self, power):
        highest = SPEED_OF_LIGHT / (FWHM_PER_SIGMA * MIN_SIGMA * self.space.step)
        if power is not None and np.max(power) > highest:
            raise ValueError(
                f"lsf must have a resolving power of no more than {highest:.0f}, for which the decoder's table of "
                f"{self.space.step:.0f} km/s is fine enough, got {np.max(power):.0f}; use lsf=None for the pixels "
                "alone, or train with spectra of such pixels"
            )

    def statistics(self, group: Group, redshift: np.ndarray, report=None) -> tuple[Statistics, np.ndarray]:
        """Sums over the pixels of each galaxy, and the levels that the fluxes were divided by."""
        cameras, levels = self.cameras(group)
        with torch.no_grad():
            return statistics(cameras, torch.from_numpy(redshift), self.space.components, report), levels

    def coverage(self, groups: Sequence[Group], redshift: np.ndarray, latents: np.ndarray) -> np.ndarray:
        """
        How much of what each latent does to the rest-frame spectrum falls on pixels that can be used, (n, n_latents).

        The part of the square of the change, over the whole table: whatever the noise is, it falls when wavelengths
        leave the window.
        """
        out = np.zeros(latents.shape)
        for group in groups:
            for numbers in np.array_split(np.arange(len(group.numbers)), len(group.numbers) // 64 + 1):
                rows = group.numbers[numbers]
                with torch.no_grad():
                    slopes = torch.func.vmap(torch.func.jacrev(self.space.coefficients))(
                        torch.from_numpy(latents[rows]).float())  # fmt: skip
                    change = torch.einsum("nkp,kt->npt", slopes, self.space.components).numpy() ** 2
                observed = (1.0 + redshift[rows, None]) * self.wave
                seen = np.zeros(observed.shape, dtype=bool)
                for camera in group.cameras:
                    pixel = (np.searchsorted(camera.edges[:, 0], observed, side="right") - 1).clip(0)
                    inside = (observed >= camera.edges[pixel, 0]) & (observed < camera.edges[pixel, 1])
                    seen |= inside & (np.take_along_axis(camera.ivar[numbers], pixel, axis=1) > 0)
                out[rows] = (change * seen[:, None]).sum(-1) / change.sum(-1).clip(1e-30)
        return out

    def encode(self, groups: Sequence[Group], redshift: np.ndarray):
        """Latents (n, n_latents), their covariances, factors of the spectra, pixels on the table, chi2."""
        n, n_latents = len(redshift), self.space.to_latents.weight.shape[0]
        latents, covariance = np.zeros((n, n_latents)), np.zeros((n, n_latents, n_latents))
        factor, n_pix, chi2 = np.zeros(n), np.zeros(n), np.zeros(n)
        for group in groups:
            whole, levels = self.statistics(group, redshift[group.numbers])
            for some in np.array_split(np.arange(len(levels)), len(levels) // BATCH + 1):
                sums, rows = whole.rows(some), group.numbers[some]
                with torch.no_grad():
                    found, errors, factors = self.space.fit(sums.matrix, sums.vector, self.whiten)
                    reduction = self.space.reduction(found, sums.matrix, sums.vector)
                latents[rows], covariance[rows], factor[rows] = found, errors, factors.numpy() * levels[some]
                n_pix[rows], chi2[rows] = sums.n_pix, sums.total - reduction
        return latents, covariance, factor, n_pix, chi2

    def rest(self, latents: np.ndarray, factor: np.ndarray) -> np.ndarray:
        """Spectra on the table, (n, n_table)."""
        with torch.no_grad():
            return (torch.from_numpy(factor[:, None]) * self.space(torch.from_numpy(latents).float())).numpy()

    def observe(self, latents, factor, redshift, camera: CameraArrays) -> tuple[np.ndarray, np.ndarray]:
        """Spectra in the pixels of a camera, (n, n_pix), and which pixels the table covers."""
        bands = None if camera.bands is None else torch.from_numpy(np.ascontiguousarray(camera.bands, np.float32))
        observation = self.observation(camera.edges, camera.power, bands)
        z = torch.from_numpy(redshift)
        with torch.no_grad():
            seen = observation(self.space(torch.from_numpy(latents).float()), z, bands).numpy()
            covered = observation.covered(z, self.space.components.shape[1], 1 if bands is None else bands.shape[1])
        return seen * factor[:, None], covered.numpy()

    def fine_tune(self, groups: Sequence[Group], redshift: np.ndarray, seed: int, report) -> tuple[LatentSpace, dict]:
        """A space whose components have moved to galaxies, and what that was like."""
        observed = [(self.cameras(group)[0], torch.from_numpy(redshift[group.numbers])) for group in groups]
        components, deviations = moved_components(
            self.space, observed, seed=seed, report=lambda done: report(f"fine-tuning: {100 * done:.0f} %"),
            whiten=self.whiten)  # fmt: skip
        space = copy.deepcopy(self.space)
        space.components.copy_(components)
        chi2 = []
        for model in (self, GalaxyModel(space, self.whiten)):
            *_, n_pix, total = model.encode(groups, redshift)
            chi2.append(float(np.mean(total / np.maximum(n_pix, 1.0))))
        return space, {"deviations": deviations, "chi2_per_pixel": chi2}

    def redshift_factor(
        self, groups: Sequence[Group], redshift: np.ndarray, chosen: np.ndarray, report
    ) -> tuple[float, int]:
        """
        By how much errors of redshifts are larger than their uncertainties.

        Of galaxies that neither components nor networks were learned from; the prior knows their latents.

        Parameters
        ----------
        groups : sequence of Group
        redshift : ndarray, shape (n,)
            As it is known.
        chosen : ndarray of int
            Galaxies to compare; of more than `COMPARED` as many.
        report : callable
            Gets the part that is done.

        Returns
        -------
        float
            What 68 % of the errors are smaller than, over their uncertainties, and at least one: a model is no better
            than its components.
        int
            Galaxies that were compared.
        """
        some = np.random.default_rng(0).permutation(chosen)[:COMPARED]
        pulls = []
        for group in groups:
            if not len(mine := np.flatnonzero(np.isin(group.numbers, some))):
                continue
            cameras, _ = self.cameras(Group(group.numbers[mine], [camera.rows(mine) for camera in group.cameras]))
            for k, z in enumerate(redshift[group.numbers[mine]]):
                one = [camera.rows(slice(k, k + 1)) for camera in cameras]
                found, error, *_ = refine(self.space, one, z, self.whiten)
                pulls.append((found - z) / error if error > 0.0 else math.nan)
                report(len(pulls) / len(some))
        known = np.abs(pulls)[np.isfinite(pulls)]
        return max(float(np.quantile(known, ONE_SIGMA)), 1.0) if len(known) else 1.0, len(known)

    def fit_redshift(self, group: Group, lower: float, upper: float, report=None) -> dict[str, Any]:
        """Redshifts of the galaxies of a group, with their uncertainties, chi2 and the scans."""
        cameras, _ = self.cameras(group)
        scanner = Scanner(self.space, cameras, lower, upper)
        rows = {"redshift": [], "uncertainty": [], "chi2": [], "second": [], "scan": []}
        for k in range(len(group.numbers)):
            with torch.no_grad():
                chi2, share = scanner.scan(cameras, k)
            one = [camera.rows(slice(k, k + 1)) for camera in cameras]
            starts = scanner.candidates(chi2, share)
            latents = latents_at(self.space, one, starts, self.whiten) if starts else ()
            found, best = [], math.inf
            for z, some in zip(starts, latents, strict=True):
                found.append(refine(self.space, one, z, self.whiten, some, best))
                best = min(best, found[-1][2] + found[-1][3])
            for name, value in zip(rows, (*_best(found), chi2), strict=True):
                rows[name].append(value)
            if report is not None:
                report((k + 1) / len(group.numbers))
        scan = torch.stack(rows.pop("scan")).numpy()
        return {**{name: np.array(values) for name, values in rows.items()}, "grid": scanner.redshift.numpy(),
                "scan": scan}  # fmt: skip


def _best(found):
    """Redshift, uncertainty and chi2 of the best of refined minima, and how much worse the second one is."""
    if not found:
        return math.nan, math.nan, math.nan, math.nan
    merits = [chi2 + outside for _, _, chi2, outside, _ in found]
    z, error, *_ = found[int(np.argmin(merits))]
    # Two minima may lead to one redshift.
    others = [merit for merit, (other, *_) in zip(merits, found, strict=True) if abs(other - z) > SAME * (1.0 + z)]
    return z, error, min(merits), min(others, default=math.inf) - min(merits)


def _blur(observation, bands):
    """Standard deviation of the response with resolution matrices, in samples of the table."""
    half = bands.shape[-2] // 2
    offset = torch.arange(-half, half + 1, dtype=torch.float32)[:, None]
    some = bands.reshape(-1, *bands.shape[-2:])[0].clamp_min(0.0)
    pixels = float((some * offset**2).sum() / some.sum().clamp_min(1e-30))
    return math.hypot(1.0 / math.sqrt(12.0), math.sqrt(pixels)) * float(observation.place.diff().median())


def train_galaxy_model(
    groups: Sequence[Group], redshift: np.ndarray, *, n_latents: int, n_components: int, epochs: int,
    validation: float, seed: int, report, checkpoint: Path | None, identity: dict[str, str],
) -> tuple[GalaxyModel, dict[str, Any]]:  # fmt: skip
    """
    Components of the galaxies, the sums over their pixels, and the maps between coefficients and latents.

    Parameters
    ----------
    groups : sequence of Group
    redshift : ndarray, shape (n,)
    n_latents, n_components, epochs, seed : int
    validation : float
        Part of the galaxies that decides when to stop.
    report : callable
        Gets a short text.
    checkpoint, identity
        See `train_latent_space`.

    Returns
    -------
    GalaxyModel, dict
    """
    first, last, step = _table(groups, redshift)
    n_table = int(math.log(last / first) * SPEED_OF_LIGHT / step) + 1
    with torch.random.fork_rng(devices=[]):  # these weights are not used
        space = LatentSpace(n_components, n_latents, first=first, step=step, n_table=n_table)
    model = GalaxyModel(space)
    random = np.random.default_rng(seed)
    order = random.permutation(len(redshift))
    kept = np.zeros(len(redshift), dtype=bool)
    kept[order[: max(int(validation * len(redshift)), 1)]] = True
    cameras = [model.cameras(group)[0] for group in groups]
    learned = random.permutation(np.flatnonzero(~kept))[:ENOUGH]
    space.components.copy_(_components(groups, cameras, redshift, learned, space, seed, report))
    sums, part = _sums(groups, cameras, redshift, random, space.components, report)
    numbers = np.concatenate([group.numbers for group in groups])
    validates = torch.from_numpy(kept[numbers])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = LatentSpace(**space.config)
        fresh.components.copy_(space.components)
        info = train_latent_space(
            fresh, sums.rows(~validates), part.rows(~validates), sums.rows(validates), epochs=epochs, seed=seed,
            checkpoint=checkpoint, identity=identity,
            report=lambda done, merit: report(f"training: {100 * done:.0f} %, validation: chi2 per pixel {merit:.4f}"),
        )  # fmt: skip
        with torch.no_grad():
            some = map(sums.rows, torch.arange(len(numbers)).split(BATCH))
            latents = torch.cat([fresh.fit(rows.matrix, rows.vector)[0] for rows in some]).double().numpy()
    trained = GalaxyModel(fresh)
    trained._observations = model._observations
    return trained, {**info, "latents": latents[np.argsort(numbers)], "kept": np.flatnonzero(kept)}


def _sums(groups, cameras, redshift, random, components, report):
    """Statistics of all galaxies, group by group, and of the pixels that they would show at others' redshifts."""
    other = random.permutation(redshift)
    whole, part = [], []
    for group, some in zip(groups, cameras, strict=True):
        z, there = torch.from_numpy(redshift[group.numbers]), torch.from_numpy(other[group.numbers])
        with torch.no_grad():
            both = statistics_of_each([some, _as_at(some, z, there)], z, components,
                                      lambda done: report(f"pixels summed: {100 * done:.0f} %"))  # fmt: skip
        for parts, sums in zip((whole, part), both, strict=True):
            parts.append(sums.single())
    return Statistics.joined(whole), Statistics.joined(part)


def _as_at(cameras, redshift, there):
    """Galaxies without the pixels that would leave at other redshifts, (n,): half of the window in ln(wave) stays."""
    begin = min(float(camera.ln_wave[0]) for camera in cameras)
    end = max(float(camera.ln_wave[-1]) for camera in cameras)
    half = 0.5 * (end - begin)
    moved = (torch.log1p(redshift) - torch.log1p(there)).clamp(-half, half)[:, None]
    out = []
    for camera in cameras:
        shown = (camera.ln_wave >= begin + moved) & (camera.ln_wave <= end + moved)
        out.append(replace(camera, ivar=torch.where(shown, camera.ivar, 0.0)))
    return out


def _table(groups, redshift):
    """First and last wavelength of the table [Angstrom], and its step [km/s]."""
    lowest, highest, widths = np.full(len(redshift), np.inf), np.zeros(len(redshift)), []
    for group in groups:
        for camera in group.cameras:
            good = camera.ivar > 0
            some = good.any(axis=1)
            rows = group.numbers[some]
            begin = camera.edges[good[some].argmax(axis=1), 0]
            end = camera.edges[::-1][good[some][:, ::-1].argmax(axis=1), 1]
            lowest[rows], highest[rows] = np.minimum(lowest[rows], begin), np.maximum(highest[rows], end)
            widths.append(SPEED_OF_LIGHT * np.diff(np.log(camera.edges), axis=1).ravel())
    step = float(np.clip(FINER * np.median(np.concatenate(widths)), *STEPS))
    stretch = 1.0 + redshift
    return float(np.quantile(lowest / stretch, LACKING)), float(np.quantile(highest / stretch, 1 - LACKING)), step


def _components(groups, cameras, redshift, learned, space, seed, report):
    """Components as they are before any instrument, (1 + n_components, n_table)."""
    spacing, n_table = space.step / SPEED_OF_LIGHT, space.components.shape[1]
    flux, ivar = torch.empty(len(learned), n_table), torch.empty(len(learned), n_table)
    wanted = np.zeros(len(redshift), dtype=bool)
    wanted[learned] = True
    row, blur = 0, []
    for group, some in zip(groups, cameras, strict=True):
        chosen = np.flatnonzero(wanted[group.numbers])
        mine = [camera.rows(torch.from_numpy(chosen)) for camera in some]
        z = torch.from_numpy(redshift[group.numbers[chosen]])
        for values in rest_frame_rows(mine, z, space.first, spacing, n_table):
            flux[row], ivar[row] = values
            row += 1
            if row % 500 == 0:
                report(f"spectra in the rest frame: {100 * row / len(learned):.0f} %")
        blur += [camera.observation.blur for camera in some for _ in chosen]
    components = fit_components(flux, ivar, space.components.shape[0] - 1, seed=seed,
                                report=lambda done: report(f"components: {100 * done:.0f} %"))  # fmt: skip
    return sharpened(components, float(np.median(blur)))
