"""Clones that the code of Gully-Santiago & Morley (2022) has trained, from the states that it saves."""

import numpy as np
from astropy import units as u
from astropy.table import QTable
from numpy.polynomial.legendre import legval
from specutils import Spectrum

from specutils_blase.adapters import wavelength_values
from specutils_blase.errors import CoverageError, explain
from specutils_blase.functional.constants import FWHM_PER_SIGMA
from specutils_blase.functional.original import original_profile, original_transmission
from specutils_blase.io.whole import as_path
from specutils_blase.modeling import FORMS
from specutils_blase.solvers.checkpoint import read_tensors

__all__ = ["blase_spectrum", "read_blase_state"]

LINES = ("lam_centers", "amplitudes", "sigma_widths", "gamma_widths")
# Not in the states of all versions: coefficients of 1, x and x^2, x = (wavelength - 10500) / 2500, and a velocity.
GLOBALS = {"a_coeff": 1.0, "b_coeff": 0.0, "c_coeff": 0.0, "radial_velocity": 0.0}
CONTINUUM_DOMAIN = (8000.0, 13000.0)
# Of a strength or width [Angstrom]; fifth powers of widths must be finite.
LARGEST_LOG = 100.0
PROFILE = "pseudo-Voigt of blase"
LENGTHS = ("line_center", "strength", "fwhm_gauss", "fwhm_lorentz")
DESCRIPTIONS = {
    "line_center": "vacuum wavelength of the line",
    "strength": "factor of the profile, the area of the line",
    "fwhm_gauss": "full width at half maximum of the Gaussian part",
    "fwhm_lorentz": "full width at half maximum of the Lorentzian part",
    "depth": "1 - transmission of this line alone at its centre",
}


def read_blase_state(path, form="product"):
    r"""
    Read the lines of a clone made by *blase*, the code of Gully-Santiago & Morley (2022, ApJ 941, 200).

    The states of its emulators (``LinearEmulator``, ``SparseLinearEmulator``, ``SparseLogEmulator``) hold natural
    logarithms: of the factor :math:`a` of the profile, of the standard deviation :math:`\sigma` of a Gaussian, and of
    the half width at half maximum :math:`\gamma` of a Lorentzian, in Angstrom. Their profile is
    :math:`\eta L(\gamma) + (1 - \eta) G(\sigma)`, see `specutils_blase.functional.original_profile`, which no Voigt
    profile equals: with these widths Voigt profiles are up to a factor of two shallower (flux off by 1.9 % rms in the
    state for 4700 K), with the nearest ones it is still off by 0.5 % rms. Therefore the result is a table of what the
    state holds and neither a `specutils_blase.LineTemplate` nor a `specutils_blase.VoigtForest1D`. `blase_spectrum`
    gives its flux, of which `specutils_blase.clone_spectrum` makes a template, with the errors and the coverage that a
    state lacks.

    Parameters
    ----------
    path : str or path-like
        What ``torch.save(emulator.state_dict(), path)`` wrote, on any device. No code in it is run.
    form : {"product", "opacity"}
        How the lines combine, which the state does not say: "opacity" for a ``SparseLogEmulator``, "product" for the
        others.

    Returns
    -------
    QTable
        One row for each line, by increasing ``line_center`` (vacuum, at rest): ``strength`` (:math:`a`), ``fwhm_gauss``
        and ``fwhm_lorentz`` of the two parts, ``depth`` of the line alone at its centre, ``line_type``. In ``meta``:
        ``wavelength_medium``, ``form``, ``profile``, ``continuum`` (Legendre coefficients on ``continuum_domain``),
        ``radial_velocity`` (which moves the lines in a state that was fitted to data and is not applied here),
        ``source``.

        States know neither the temperature nor the wavelengths of the model, nor any error. The code does not train
        the outermost 30 Angstrom: lines there have the values they started with.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no state of blase; the message says what it lacks.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> import torch
    >>> from specutils_blase.io import read_blase_state
    >>> emulator = {"lam_centers": np.array([8542.0, 8498.0]), "amplitudes": np.log([0.02, 0.01]),
    ...             "sigma_widths": np.log([0.05, 0.04]), "gamma_widths": np.log([0.03, 0.02])}
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "emulator.pt"
    ...     torch.save({name: torch.as_tensor(values) for name, values in emulator.items()}, path)
    ...     lines = read_blase_state(path)
    >>> for name in ("strength", "fwhm_gauss", "fwhm_lorentz", "depth"):
    ...     lines[name].info.format = ".3f"
    >>> print(lines["line_center", "strength", "fwhm_gauss", "fwhm_lorentz", "depth"])
    line_center strength fwhm_gauss fwhm_lorentz depth
      Angstrom  Angstrom  Angstrom    Angstrom
    ----------- -------- ---------- ------------ -----
         8498.0    0.010      0.094        0.040 0.124
         8542.0    0.020      0.118        0.060 0.184
    """
    path = as_path(path)
    if form not in FORMS:
        raise ValueError(explain("form", f"be one of {FORMS}", repr(form), '"opacity" is for a SparseLogEmulator'))
    if path.is_dir():
        raise IsADirectoryError(explain("path", "name a file", f"the directory {path}", "add the name of the file"))
    if not path.is_file():
        raise FileNotFoundError(explain("path", "name a file that exists", str(path), "check its folder and its name"))
    state = read_tensors(path)
    _check_state(path, state)
    order = np.argsort(state["lam_centers"], kind="stable")
    center, *logs = (state[name][order] for name in LINES)
    strength, sigma, gamma = np.exp(logs)
    peak = strength * original_profile(np.zeros(len(center)), sigma=sigma, gamma=gamma).numpy()
    constant, slope, square, velocity = (float(state.get(name, default)) for name, default in GLOBALS.items())
    table = QTable({"line_center": center, "line_type": np.full(len(center), "absorption"), "strength": strength,
                    "fwhm_gauss": FWHM_PER_SIGMA * sigma, "fwhm_lorentz": 2.0 * gamma,
                    "depth": np.minimum(peak, 1.0) if form == "product" else -np.expm1(-peak)},
                   units=dict.fromkeys(LENGTHS, u.AA))  # fmt: skip
    for name, text in DESCRIPTIONS.items():
        table[name].info.description = text
    # 1, x and x^2 are P_0, P_1 and (P_0 + 2 P_2) / 3
    table.meta = {"wavelength_medium": "vacuum", "form": form, "profile": PROFILE,
                  "continuum": [constant + square / 3.0, slope, 2.0 * square / 3.0],
                  "continuum_domain": list(CONTINUUM_DOMAIN), "radial_velocity": velocity * u.km / u.s,
                  "source": path.name}  # fmt: skip
    return table


def blase_spectrum(lines, spectral_axis, *, medium="vacuum"):
    """
    The flux of a clone made by blase, in its own profile, at rest.

    Every line reaches over all wavelengths. The sparse emulators cut them after 500 samples of the spectrum that they
    were trained on, which a state does not hold; for the state for 4700 K that is 5 to 10 Angstrom, and its flux is
    up to 0.5 % higher where it was cut (2e-4 on average).

    Parameters
    ----------
    lines : QTable
        What `read_blase_state` returned.
    spectral_axis : Quantity, shape (n_pix,)
        In any spectral unit, between the first and the last of the lines.
    medium : {"vacuum", "air"}
        What the wavelengths of ``spectral_axis`` are.

    Returns
    -------
    Spectrum
        On ``spectral_axis``, relative to the continuum that was divided out before the training.

    Raises
    ------
    CoverageError
        If a wavelength lies outside the lines, where the state says nothing.

    Examples
    --------
    Two lines, in a state as the emulators of that code save them:

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> import torch
    >>> from astropy import units as u
    >>> from specutils_blase.io import blase_spectrum, read_blase_state
    >>> emulator = {"lam_centers": np.array([8498.0, 8502.0]), "amplitudes": np.log([0.02, 0.01]),
    ...             "sigma_widths": np.log([0.05, 0.04]), "gamma_widths": np.log([0.03, 0.02])}
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "emulator.pt"
    ...     torch.save({name: torch.as_tensor(values) for name, values in emulator.items()}, path)
    ...     lines = read_blase_state(path)
    >>> star = blase_spectrum(lines, np.linspace(8498, 8502, 401) * u.AA)
    >>> print(star.flux[[0, 200, 400]].round(3))
    [0.816 1.    0.876]

    `specutils_blase.clone_spectrum` makes a template of such a spectrum.
    """
    if getattr(lines, "meta", {}).get("profile") != PROFILE:
        raise ValueError(explain("lines", "be what read_blase_state returned", f"a {type(lines).__name__} of another "
                                 "origin", "evaluate templates with template.evaluate"))  # fmt: skip
    if medium not in ("vacuum", "air"):
        raise ValueError(explain("medium", 'be "vacuum" or "air"', repr(medium), "choose one of them"))
    wave = wavelength_values(spectral_axis, "spectral_axis", wavelength_medium=medium)
    center, strength, gauss, lorentz = (lines[name].to_value(u.AA) for name in LENGTHS)
    if wave.ndim != 1 or wave.size == 0:
        raise ValueError(explain("spectral_axis", "have the shape (n_pix,)", str(wave.shape),
                                 "for one wavelength give an array of one"))  # fmt: skip
    if not (center.min() <= wave.min() and wave.max() <= center.max()):
        raise CoverageError(
            explain("spectral_axis", f"lie between the first and the last line, {center.min():.8g} to "
                    f"{center.max():.8g} Angstrom", f"{wave.min():.8g} to {wave.max():.8g} Angstrom", "cut it")
        )  # fmt: skip
    flux = original_transmission(wave, center, strength, gauss / FWHM_PER_SIGMA, lorentz / 2.0, lines.meta["form"])
    low, high = lines.meta["continuum_domain"]
    flux = flux.numpy() * legval((2.0 * wave - low - high) / (high - low), lines.meta["continuum"])
    return Spectrum(flux=flux * u.one, spectral_axis=spectral_axis, meta={"wavelength_medium": medium})


def _check_state(path, state):
    """Raise if this is not the state of an emulator with at least one line."""
    expected = "hold the state of an emulator of blase"
    if missing := [name for name in LINES if name not in state]:
        raise ValueError(explain("path", expected, f"{path} without {', '.join(missing)}",
                                 "states of its instrumental and extrinsic models hold no lines"))  # fmt: skip
    if strange := sorted(set(state) - set(LINES) - set(GLOBALS)):
        raise ValueError(explain("path", expected, f"{path}, which also holds {strange[0]}",
                                 "it is of a version or a model that is not known here"))  # fmt: skip
    shapes = {name: state[name].shape for name in state}
    shape = shapes["lam_centers"]
    for name, found in shapes.items():
        wanted = shape if name in LINES else ()
        if len(shape) != 1 or 0 in shape or found != wanted:
            shown = ", ".join(f"{key}: {value}" for key, value in shapes.items())
            raise ValueError(explain("path", f"{expected}, one number for every line in each of {', '.join(LINES)}",
                                     f"{path} with the shapes {shown}", "save its state_dict anew"))  # fmt: skip
        limit = LARGEST_LOG if name in LINES[1:] else np.inf
        if not (np.abs(state[name]) < limit).all() or (name == "lam_centers" and state[name].min() <= 0):
            raise ValueError(explain("path", f"{expected}, finite and with positive wavelengths",
                                     f"{path}, which is not in {name}", "train it anew, it diverged"))  # fmt: skip
