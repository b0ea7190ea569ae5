"""After a fit that converged: is there evidence that it did so at a wrong minimum?  After a clone: what is open?

Chi-square alone is none, because the errors of real spectra are often small against those of the model. What counts is
that the same problem has a much lower minimum elsewhere. Where to look is found on part of the pixels and without
fitting lines, in a tenth of a second; only what looks better there is tried with the lines, in a few steps.
"""

import warnings
from dataclasses import replace

import numpy as np

from specutils_blase.errors import BlaseWarning
from specutils_blase.preparation import scene_parts
from specutils_blase.search import ROTATIONS, Search, gaussian_kernel, sky_pixels, thinned, vertex
from specutils_blase.solvers.levenberg_marquardt import levenberg_marquardt
from specutils_blase.solvers.scene import added_velocities

__all__ = ["clone_doubts", "doubt", "warn_of_double_use", "warn_of_errors"]

# Chi-square elsewhere, times this, is below the one of the fit: so much is not due to errors of the model.
CLEAR_RATIO = 1.25
# The gain in chi-square must also be above this many times that of a pixel, or it may be the noise of few pixels.
CLEAR_GAIN = 50.0
# The first look: pixels, every how many velocities of the search, rotations [km/s], columns of the tellurics.
LOOK_PIXELS, LOOK_STRIDE, LOOK_ROTATIONS = 500, 3, (8.0, 40.0)
LOOK_COLUMNS = (0.0, *np.geomspace(0.1, 10.0, 11))
# Tellurics with less than this share of the column of their template are hardly seen where they were looked for.
VANISHED = 0.5
# Iterations with the lines.
STEPS = 10
# Multiple correlation of the veiling with the lines that is told: its error is three times what it would be without.
DEGENERATE = 0.95
# Rms residual above which a clone warns: as a share of the prominence, in a noisy spectrum in standard deviations.
TOLERATED, TOLERATED_EXCESS = 0.2, 1.5
# Continua outside this range, in units of the upper envelope of the flux, come from nowhere; stars have 0.98 to 1.01.
DARKEST, BRIGHTEST = 0.2, 5.0
# So many emission lines brighter than the continuum, and so many more lines in all than the first pass found, make the
# other form worth a try.
BRIGHT_LINES, MANY = 3, 3.0
# Where the median transmission is below this, hardly any place is free of lines.
FREE = 0.95


def doubt(setup, misread, problem, solution, free, priors, *, is_searched, shift=0.0):
    """
    Why the minimum of a fit is a wrong one, and what to do about it.

    Parameters
    ----------
    setup : Setup
        As fitted.
    misread : list of (Setup, str)
        With the tellurics where they are seen if a medium is not what was declared, and what to do about it.
    problem, solution : ObservedLines, Solution
    free, priors
        As in `Setup.problem`.
    is_searched : bool
        Whether the fit started where the search found its best start.
    shift : float [km/s]
        What is added to a velocity for the user, whose wavelengths may be barycentric.

    Returns
    -------
    str, or None if there is no doubt
    """
    found, chi2 = problem.globals(solution.theta), 2.0 * solution.cost
    starts = []
    if setup.template is not None and not is_searched:
        starts.append((setup, None, _better_start(setup, setup, found)))
    for other, remedy in misread:
        start = None
        if setup.template is not None and found.column.min() < np.log(VANISHED):
            start = _better_start(other, setup, found)  # the star may have taken the place of the tellurics
        if start is None and _sees_better_tellurics(setup, other, problem, solution.theta):
            start = found.velocity, found.vsini
        starts.append((other, remedy, start))
    rivals = []
    for other, remedy, start in starts:
        if start is not None:
            there = replace(other).problem(*start, free, priors)  # a copy, because this leaves its rows in the setup
            rival = levenberg_marquardt(there, there.start(), max_iterations=STEPS)
            rivals.append((2.0 * float(rival.cost), remedy, start))
    better, remedy, start = min(rivals, key=lambda rival: rival[0], default=(np.inf, None, None))
    if not _is_clear(better, chi2, setup):
        return None
    text = f"chi2 is {better:.4g} instead of {chi2:.4g} "
    if remedy is not None:
        return text + remedy
    velocity = added_velocities(start[0], shift)
    return (text + f"near radial_velocity={velocity:.0f} km/s, vsini={start[1]:g} km/s; start it there, "
            "or leave both to the search")  # fmt: skip


def warn_of_double_use(setup, problem):
    """Say which templates were learned from the data of a fit that frees their lines."""
    species = problem.scene.species
    names = [name for k, name in setup.fitted_before.items() if not problem.held[species == k].all()]
    if names:
        warnings.warn(f"{' and '.join(names)} was learned from these data, which now count twice: errors of its lines "
                      "are too small; give the template with which the first fit began",
                      BlaseWarning, stacklevel=3)  # fmt: skip


def warn_of_errors(fit):
    """Say where the errors of a `SpectrumFit` mean little."""
    if (correlation := fit.parameters.meta.get("veiling_correlation", 0.0)) > DEGENERATE:
        warnings.warn(f"veiling and the lines can hardly be told apart (correlation {correlation:.3f}): both follow "
                      "the prior; hold the strengths or tighten their prior", BlaseWarning, stacklevel=3)  # fmt: skip


def _better_start(setup, fitted, found):
    """Velocity and rotation [km/s] where a template fits clearly better than it did where the fit ended, or None."""
    search, place = Search(thinned(setup, LOOK_PIXELS)), np.array([found.velocity])
    velocities = search.velocities[::LOOK_STRIDE]
    if not velocities.size:
        return None
    curves = np.array([search.chi2(velocities, rotation) for rotation in LOOK_ROTATIONS])
    there = (search if setup is fitted else Search(thinned(fitted, LOOK_PIXELS))).chi2(place, found.vsini)[0]
    if not _is_clear(curves.min(), there, search.setup):
        return None
    velocity = vertex(velocities, curves[np.argmin(curves.min(axis=1))])
    return velocity, min(ROTATIONS, key=lambda rotation: search.chi2(np.array([velocity]), rotation)[0])


def _sees_better_tellurics(setup, other, problem, theta):
    """Whether other tellurics beside the fitted star explain more than noise."""
    scene, kernel = setup.scene, gaussian_kernel(setup.scene)
    star = problem._response @ problem.evaluate(theta).rotated
    best = []
    for item in (setup, other):
        sky = sky_pixels(item, kernel)
        best.append(min(_continuum_chi2(scene, star * sky**column) for column in LOOK_COLUMNS))
    # the star has taken over part of what the tellurics do, so that little may be left for them here
    return best[1] * (1.0 + CLEAR_GAIN / np.count_nonzero(scene.weight)) < best[0]


def _continuum_chi2(scene, flux):
    """Chi-square of a flux in the pixels times the best continua."""
    total = 0.0
    for mine in scene_parts(scene):
        columns = scene.basis[mine] * (flux * scene.weight)[mine][:, None]
        target = (scene.data * scene.weight)[mine]
        fit = np.linalg.lstsq(columns.T @ columns, columns.T @ target, rcond=None)[0]
        total += float(np.sum((target - columns @ fit) ** 2))
    return total


def _is_clear(chi2, other, setup):
    """Whether `chi2` is clearly below `other`."""
    return chi2 * (CLEAR_RATIO + CLEAR_GAIN / np.count_nonzero(setup.weight)) < other


def clone_doubts(job, rms):
    """What a spectrum leaves open about its clone, in words.

    Parameters
    ----------
    job : cloning._Clone
        Finished.
    rms : float
        Of the residual, as a share of the continuum.

    Yields
    ------
    str
    """
    excess = job.rms(job.solution.cost)
    if job.noisy and excess > TOLERATED_EXCESS:
        yield (f"the clone differs from the spectrum by {excess:.2g} of its uncertainties (rms): lines on this "
               "continuum do not describe it, or the uncertainties are too small; check them, prominence, teff, "
               "continuum_degree and given lines")  # fmt: skip
    elif not job.noisy and rms > TOLERATED * job.prominence:
        yield (f"the clone differs from the spectrum by {rms:.2g} of the continuum (rms), much for the prominence of "
               f"{job.prominence:g}: lines on this continuum do not describe it; check teff, continuum_degree, window "
               "and given lines")  # fmt: skip
    ratio = (job.basis @ job.coefficients) / job.envelope
    crowded = np.median(job.model()[0]) < FREE
    if crowded and not (DARKEST < ratio.min() and ratio.max() < BRIGHTEST):
        yield (f"the continuum runs from {ratio.min():.2g} to {ratio.max():.2g} times the upper envelope of the "
               "flux: hardly any place is free of lines, so the spectrum does not determine it; lower "
               "continuum_degree, or clone a wider window")
    bright = np.count_nonzero(job.lines.peak < -np.log(2.0))
    if job.form == "opacity" and bright >= BRIGHT_LINES and len(job.lines) > MANY * job.n_first:
        yield (f"{job.n_first} lines became {len(job.lines)}, because many emission lines are brighter than the "
               'continuum: where light is added they are no exponentials of Voigt lines; try form="product"')
    if job.solution.theta.size > job.wave.size:
        yield (f"the clone has {job.solution.theta.size} parameters for {job.wave.size} pixels: it describes "
               "them, but single lines mean little; raise prominence, or give a finer sampled spectrum")
