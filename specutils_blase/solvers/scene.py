"""What is observed: pixels, grid and spectrograph, and the operators that lines pass on their way there."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.polynomial.legendre import legvander
from scipy.ndimage import convolve1d
from scipy.special import comb

from ..functional import (
    FWHM_PER_SIGMA,
    SPEED_OF_LIGHT,
    compiled,
    doppler_factor,
    kernel_half_size,
    multilevel,
    rotation_kernel,
    rotational_broadening,
    velocity_grid,
)
from .response import Response, build_response, hermite_slopes, hermite_terms, measured_response, with_hermite

__all__ = ["STAR", "Globals", "Scene", "added_velocities", "convolve", "correlate", "line_depth", "log_derivative",
           "relativistic_factor", "rotation_weights", "uniform_grid", "veil_columns", "veil_series"]  # fmt: skip

STAR = -1
# Kernels up to this length are faster as a sum than by Fourier transforms.
SHORT = 64
# Optical depth at which the model itself cuts a line's wings.
MODEL_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Scene:
    """What does not change during a fit.

    Attributes
    ----------
    grid : ndarray, shape (n_grid,) [Angstrom]
        Uniform in ln(wavelength).
    step : float [km/s]
    edges : ndarray, shape (n_pix, 2) [Angstrom]
    resolving_power : ndarray, shape (n_pix,), or None
        Of the Gaussian line spread function.
    matrix : Response, optional
        A given response that replaces the Gaussian one.
    basis : ndarray, shape (n_pix, m)
        Legendre polynomials of the continuum, over the order of each pixel.
    data, weight : ndarray, shape (n_pix,)
    species : ndarray of int, shape (n_lines,)
        STAR, or the number of the telluric species of each line.
    n_species : int
    form : tuple of str
        "opacity" or "product": of the star, then of every species.
    limb_darkening : float
    part : ndarray of int, shape (n_pix,), optional
        The order of each pixel.  Pixels are sorted by their centres: overlapping orders interleave.
    n_parts : int
    power_basis : ndarray, shape (n_pix, k), optional
        Terms of ln(resolving power) that may be free, default one constant.
    shift_basis : ndarray, shape (n_pix, k), optional
        Terms of each order's wavelength polynomial, default none.
    own_power : bool
        Whether every order has a factor of its own on the resolving power.
    veil_basis : ndarray, shape (n_grid, k), optional
        Terms of ln(1 + r), not negative: the veiling r is light without lines in units of the star's continuum, which
        makes the star (S + r) / (1 + r).  Default none.
    hermite : ndarray, shape (n_pix, 2), optional
        h3 and h4 of the line spread function, see `response.hermite_terms`.
    free_hermite : bool
        Whether those of `Globals` take their place.
    profiles : sequence, optional
        Line spread functions by their samples, one for each part, that replace the Gaussian one of the (equally wide)
        resolving power: see `response.measured_response`.
    """

    grid: np.ndarray
    step: float
    edges: np.ndarray
    resolving_power: np.ndarray | None
    matrix: Response | None
    basis: np.ndarray
    data: np.ndarray
    weight: np.ndarray
    species: np.ndarray
    n_species: int
    form: tuple
    limb_darkening: float
    part: np.ndarray | None = None
    n_parts: int = 1
    power_basis: np.ndarray | None = None
    shift_basis: np.ndarray | None = None
    own_power: bool = False
    veil_basis: np.ndarray | None = None
    hermite: np.ndarray | None = None
    free_hermite: bool = False
    profiles: tuple | None = None
    _kept: list = field(default_factory=list, init=False, repr=False)

    def __post_init__(self):
        n_pix = len(self.edges)
        given = {"part": np.zeros(n_pix, dtype=np.int64), "power_basis": np.ones((n_pix, 1)),
                 "shift_basis": np.zeros((n_pix, 0)), "veil_basis": np.zeros((self.grid.size, 0))}  # fmt: skip
        for name, default in given.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)

    @property
    def has_star(self):
        """Whether there is a star."""
        return bool(np.any(self.species == STAR))

    def veiling(self, glob):
        """The veiling at each grid point, 0 without."""
        return np.expm1(self.veil_basis @ glob.veil) if self.veil_basis.shape[1] else np.zeros(1)

    @property
    def n_own(self):
        """Number of parameters that every order has for itself."""
        return self.basis.shape[1] + self.own_power + self.shift_basis.shape[1]

    def response(self, glob, change=0.0):
        """The `Response` for the resolving power and the wavelengths of `Globals`; its ln R changed by `change`."""
        if self.matrix is not None:
            return self.matrix
        edges, sigma = self._blurred(glob, change)
        if self.profiles is not None:
            return measured_response(self.grid, edges, self.part, self.profiles)
        if self.hermite is None:
            return build_response(self.grid, edges, sigma)
        shape = glob.hermite if self.free_hermite else self.hermite
        return with_hermite(*self._gaussian_and_terms(edges, sigma), shape)

    def hermite_slopes(self, glob):
        """Derivatives of the `Response` with respect to h3 and h4."""
        return hermite_slopes(*self._gaussian_and_terms(*self._blurred(glob)), glob.hermite)

    def _gaussian_and_terms(self, edges, sigma):
        """`build_response` and `hermite_terms`, kept: often h3 and h4 change alone."""
        if not self._kept or not all(map(np.array_equal, self._kept[0], (edges, sigma))):
            made = build_response(self.grid, edges, sigma), hermite_terms(self.grid, edges, sigma)
            self._kept[:] = (edges, sigma), made
        return self._kept[1]

    def _blurred(self, glob, change=0.0):
        """Edges of the pixels and sigma of the line spread function [Angstrom], None without."""
        edges = self.edges
        if self.shift_basis.shape[1]:
            velocity = np.einsum("pk,pk->p", self.shift_basis, glob.shift[self.part])
            edges = np.ascontiguousarray(edges * relativistic_factor(velocity)[:, None])
        if self.resolving_power is None:
            return edges, None
        log_power = self.power_basis @ np.atleast_1d(glob.log_scale) + change
        if self.own_power:
            log_power = log_power + glob.power[self.part]
        return edges, edges.mean(axis=1) / (self.resolving_power * np.exp(log_power) * FWHM_PER_SIGMA)


@dataclass(frozen=True)
class Globals:
    """Global parameters in natural units; which are free is a property of the problem.

    Attributes
    ----------
    velocity : float [km/s]
    vsini : float [km/s]
    log_scale : float or ndarray, shape (k,)
        ln of the factor on the resolving power, coefficients of `Scene.power_basis`.
    column : ndarray, shape (n_species,)
        ln of the factor on each species' optical depth (its transmission to the power of the factor).
    continuum : ndarray, shape (n_parts, m)
    power : ndarray, shape (n_parts,), optional
        ln of the factor on the resolving power of each order, besides.
    shift : ndarray, shape (n_parts, k) [km/s], optional
        Coefficients of `Scene.shift_basis`: by so much longer are the wavelengths of the pixels than was said.
    veil : ndarray, shape (k,), optional
        Coefficients of `Scene.veil_basis`, not negative.
    hermite : ndarray, shape (2,), optional
        h3 and h4 of the line spread function, if they are free.
    """

    velocity: float
    vsini: float
    log_scale: float | np.ndarray
    column: np.ndarray
    continuum: np.ndarray
    power: np.ndarray | None = None
    shift: np.ndarray | None = None
    veil: np.ndarray | None = None
    hermite: np.ndarray | None = None


def line_depth(grid, lines, form):
    """Optical depth of lines on the grid; for the product form -ln of the product."""
    lines = lines.sorted()
    if form == "opacity" or len(lines) == 0:
        return multilevel.optical_depth(grid, *lines, MODEL_TOLERANCE) if len(lines) else np.zeros(grid.size)
    return -np.log(np.maximum(compiled.product_transmission(grid, *lines, MODEL_TOLERANCE), 1e-12))


def relativistic_factor(velocity):
    """`functional.doppler_factor` on numpy arrays and floats."""
    return doppler_factor(torch.as_tensor(velocity)).numpy()[()]


def added_velocities(first, second):
    """The velocity [km/s] whose Doppler factor is the product of those of two."""
    a, b = first / SPEED_OF_LIGHT, second / SPEED_OF_LIGHT
    return SPEED_OF_LIGHT * (a + b) / (1.0 + a * b)


def uniform_grid(lower, upper, step):
    """`functional.velocity_grid` as a numpy array."""
    return velocity_grid(float(lower), float(upper), step).numpy()


def rotation_weights(vsini, limb_darkening, step):
    """`functional.rotation_kernel` of the smallest sufficient size as a numpy array."""
    return rotation_kernel(vsini, limb_darkening, step, kernel_half_size(vsini, step)).numpy()


def convolve(flux, kernel):
    """`functional.rotational_broadening` on numpy arrays: the ends continue with their own value."""
    if len(kernel) <= SHORT:
        return convolve1d(flux, kernel, mode="nearest")
    return rotational_broadening(torch.from_numpy(flux), torch.from_numpy(kernel)).numpy()


def correlate(flux, kernel):
    """The transpose of `convolve`, its ends aside; the kernel is symmetric."""
    half = len(kernel) // 2
    return convolve(np.pad(flux, half), kernel)[half : flux.size + half]


def log_derivative(flux, step):
    """d flux / d ln(wavelength) on a grid of spacing `step`, by the five-point formula; flat beyond the ends."""
    f = np.pad(flux, 2, mode="edge")
    return (8.0 * (f[3:-1] - f[1:-3]) - (f[4:] - f[:-4])) / (12.0 * step)


def veil_columns(points, degree, domain):
    """Bernstein polynomials, which are not negative and add up to one, shape (n, degree + 1); ends as beyond them.

    A polynomial with such coefficients is not negative either (Farouki 2012, Comput. Aided Geom. Design 29, 379).
    """
    x = np.clip((points - domain[0]) / (domain[1] - domain[0]), 0.0, 1.0)[:, None]
    k = np.arange(degree + 1)
    return comb(degree, k) * x**k * (1.0 - x) ** (degree - k)


def veil_series(size):
    """What turns coefficients of `veil_columns` into those of Legendre polynomials, shape (size, size)."""
    x = np.linspace(-1.0, 1.0, size)
    return np.linalg.solve(legvander(x, size - 1), veil_columns(x, size - 1, (-1.0, 1.0)))
