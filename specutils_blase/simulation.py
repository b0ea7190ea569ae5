"""
Made-up stars, skies and echelle orders whose truth is known: for the demonstration, benchmarks and tests.

The chain from a star to the pixels is computed here by brute force in numpy, on purpose without anything from
``functional``, ``nn`` or ``fitting``, so that it can be used to test them. Only the lines of
`specutils_blase.VoigtForest1D` are shared.
"""

from dataclasses import dataclass, field

import numpy as np
from astropy import constants
from astropy import units as u
from astropy.nddata import StdDevUncertainty
from astropy.table import QTable
from scipy.interpolate import CubicSpline
from scipy.special import jv, spherical_jn, voigt_profile
from specutils import Spectrum

from specutils_blase.modeling import VoigtForest1D

__all__ = [
    "SimulatedOrder",
    "SimulatedSource",
    "equivalent_width",
    "scatter_lines",
    "simulate_order",
    "simulate_star",
    "simulate_telluric",
]

_C = constants.c.to_value(u.km / u.s)
_FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))

# Sampling of the native spectra [Angstrom] and of the grid of the forward chain [km/s].
NATIVE_STEP = 0.01
GRID_STEP = 0.1

# Elements and molecules of a cool star in the near infrared, as atomic masses [u]: C, Si, CN, Ca, Ti, Cr, Fe, FeH.
_STELLAR_MASSES = np.array([12.0, 28.0, 26.0, 40.0, 48.0, 52.0, 56.0, 57.0])
_MICROTURBULENCE = 1.0  # [km/s]
# Damping of a dwarf's photosphere, mostly van der Waals [rad/s].
_STELLAR_DAMPING = 3e9
_WATER_MASS = 18.0  # [u]
_AIR_TEMPERATURE = 270.0  # [K]
# Half width of a water line in the lower atmosphere [1/cm].
_PRESSURE_BROADENING = 0.05


@dataclass(frozen=True, eq=False)
class SimulatedSource:
    """
    A noise-free spectrum at native resolution and what it is made of.

    Attributes
    ----------
    spectrum : Spectrum
        Vacuum wavelengths in Angstrom; monochromatic flux, not broadened.
    lines : QTable
        Every line: ``line_center``, ``strength``, ``fwhm_gauss``, ``fwhm_lorentz``, ``depth``, ``equivalent_width``.
    model : VoigtForest1D
        The model that ``spectrum`` samples.

    Examples
    --------
    >>> from astropy import units as u
    >>> from specutils_blase.simulation import simulate_star
    >>> star = simulate_star(1, lower=10500 * u.AA, upper=10520 * u.AA, n_lines=300)
    >>> print(len(star.spectrum.flux), star.spectrum.flux.unit)
    2001 erg / (Angstrom s cm2)
    >>> star.lines.colnames
    ['line_center', 'strength', 'fwhm_gauss', 'fwhm_lorentz', 'depth', 'equivalent_width']
    >>> bool(u.allclose(star.spectrum.flux, star.model(star.spectrum.spectral_axis)))
    True
    """

    spectrum: Spectrum
    lines: QTable
    model: VoigtForest1D


@dataclass(frozen=True, eq=False)
class SimulatedOrder:
    """
    A noisy echelle order and the truth behind it.

    Attributes
    ----------
    spectrum : Spectrum
        On bin edges, with `~astropy.nddata.StdDevUncertainty` and a mask. Half of the bad pixels are masked and hold a
        wild value, the others are NaN and not masked.
    truth : dict
        The keyword arguments of `simulate_order` by name, as floats in km/s where they are velocities.
    noiseless : Spectrum
        The same pixels without noise and bad pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy import units as u
    >>> from specutils_blase.simulation import simulate_order, simulate_star
    >>> star = simulate_star(1, lower=10500 * u.AA, upper=10520 * u.AA, n_lines=300)
    >>> order = simulate_order(star.model, seed=2, lower=10505 * u.AA, upper=10515 * u.AA, n_pix=200, bad_pixels=6)
    >>> print(np.count_nonzero(order.spectrum.mask), "masked,", np.count_nonzero(np.isnan(order.spectrum.flux)), "NaN")
    3 masked, 3 NaN
    >>> print(order.truth["vsini"], order.truth["resolving_power"])
    3.0 55000.0
    >>> pull = (order.spectrum.flux - order.noiseless.flux) / order.spectrum.uncertainty.quantity
    >>> print(f"{np.nanstd(pull[~order.spectrum.mask]):.1f}")  # the noise is what the uncertainties say
    1.0
    """

    spectrum: Spectrum
    truth: dict = field(repr=False)
    noiseless: Spectrum = field(repr=False)


def simulate_star(seed, *, lower=10500 * u.AA, upper=10700 * u.AA, n_lines=3000, teff=4700 * u.K):
    """
    A cool dwarf at native resolution.

    Line positions are uniform, strengths lognormal: most lines are far too weak to be seen on their own, some hundred
    are deeper than a per cent, a few are saturated. Gaussian widths follow from the temperature, the mass of one of
    eight species and a microturbulence of 1 km/s.

    Parameters
    ----------
    seed : int or `numpy.random.Generator`
        The same seed gives the same star.
    lower, upper : Quantity
        Range in vacuum; sampled every 0.01 Angstrom.
    n_lines : int
        Number of lines.
    teff : Quantity [K]
        Temperature of the continuum and of the line widths.

    Returns
    -------
    SimulatedSource
        Surface flux in erg / (s cm2 Angstrom).

    Examples
    --------
    >>> from astropy import units as u
    >>> from specutils_blase.simulation import simulate_star
    >>> star = simulate_star(1, lower=10500 * u.AA, upper=10520 * u.AA, n_lines=300)
    >>> deep = star.lines["depth"] > 0.01
    >>> bool(deep.mean() < 0.3)  # the others are too weak to be seen
    True
    >>> warmer = simulate_star(1, lower=10500 * u.AA, upper=10520 * u.AA, n_lines=300, teff=6000 * u.K)
    >>> bool((warmer.lines["fwhm_gauss"] > star.lines["fwhm_gauss"]).all())  # of the same lines
    True
    """
    rng = np.random.default_rng(seed)
    low, high, kelvin = lower.to_value(u.AA), upper.to_value(u.AA), teff.to_value(u.K)
    center = np.sort(rng.uniform(low, high, n_lines))
    doppler = np.hypot(_thermal_speed(kelvin, rng.choice(_STELLAR_MASSES, n_lines)), _MICROTURBULENCE)
    fwhm_gauss = center * doppler / _C * _FWHM_PER_SIGMA / np.sqrt(2.0)
    damping = _STELLAR_DAMPING * rng.lognormal(0.0, 0.6, n_lines)
    fwhm_lorentz = center**2 * damping / (2.0 * np.pi * constants.c.to_value(u.AA / u.s))
    strength = _strengths(rng, fwhm_gauss, fwhm_lorentz, median_depth=2e-3, scatter=2.0)
    middle = 0.5 * (low + high)
    model = VoigtForest1D(
        x_0=center * u.AA,
        strength=strength * u.AA,
        fwhm_G=fwhm_gauss * u.AA,
        fwhm_L=fwhm_lorentz * u.AA,
        # Not quite a blackbody, as in a real star.
        continuum=_surface_flux(middle, kelvin) * np.array([1.0, 0.01, -0.004]) * u.Unit("erg / (s cm2 AA)"),
        continuum_domain=(low, high) * u.AA,
        teff=teff,
    )
    return _source(model, low, high)


def simulate_telluric(seed, *, lower=10500 * u.AA, upper=10700 * u.AA, n_lines=150):
    """
    Transmission of an atmosphere with one absorber, at native resolution.

    Parameters
    ----------
    seed : int or `numpy.random.Generator`
        The same seed gives the same sky.
    lower, upper : Quantity
        Range in vacuum; sampled every 0.01 Angstrom.
    n_lines : int
        Number of lines; their widths are those of water vapour.

    Returns
    -------
    SimulatedSource
        Dimensionless, 1 without absorption.

    Examples
    --------
    >>> from astropy import units as u
    >>> from specutils_blase.simulation import simulate_telluric
    >>> sky = simulate_telluric(2, lower=10500 * u.AA, upper=10520 * u.AA, n_lines=20)
    >>> print(len(sky.lines), bool(((0 < sky.spectrum.flux) & (sky.spectrum.flux < 1)).all()))
    20 True
    """
    rng = np.random.default_rng(seed)
    low, high = lower.to_value(u.AA), upper.to_value(u.AA)
    center = np.sort(rng.uniform(low, high, n_lines))
    fwhm_gauss = center * _thermal_speed(_AIR_TEMPERATURE, _WATER_MASS) / _C * _FWHM_PER_SIGMA / np.sqrt(2.0)
    wavenumber_width = 2.0 * _PRESSURE_BROADENING * rng.lognormal(0.0, 0.2, n_lines)
    fwhm_lorentz = center**2 * 1e-8 * wavenumber_width
    strength = _strengths(rng, fwhm_gauss, fwhm_lorentz, median_depth=0.02, scatter=1.6)
    model = VoigtForest1D(
        x_0=center * u.AA, strength=strength * u.AA, fwhm_G=fwhm_gauss * u.AA, fwhm_L=fwhm_lorentz * u.AA
    )
    return _source(model, low, high)


def scatter_lines(model, seed, *, strength=0.0, fwhm=0.0):
    """
    The same forest with lines of other strengths and widths, as a real star differs from a synthetic one.

    Parameters
    ----------
    model : VoigtForest1D
        Not changed.
    seed : int or `numpy.random.Generator`
        The same seed gives the same lines.
    strength, fwhm : float
        Standard deviations of the changes of ln strength, ln fwhm_G and ln fwhm_L, independent for every line.

    Returns
    -------
    VoigtForest1D
        Lines in the same order.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy import units as u
    >>> from specutils_blase.simulation import scatter_lines, simulate_star
    >>> star = simulate_star(1, lower=10500 * u.AA, upper=10520 * u.AA, n_lines=1000)
    >>> real = scatter_lines(star.model, 3, strength=0.3)
    >>> print(f"{np.log(real.strength / star.model.strength).std():.1f}")
    0.3
    >>> bool((real.x_0 == star.model.x_0).all() and (real.fwhm_G == star.model.fwhm_G).all())
    True
    """
    rng = np.random.default_rng(seed)
    changed = model.copy()
    for name, scatter in (("strength", strength), ("fwhm_G", fwhm), ("fwhm_L", fwhm)):
        parameter = getattr(model, name)
        values = parameter.value if parameter.unit is None else parameter.quantity
        setattr(changed, name, values * np.exp(scatter * rng.standard_normal(model.n_lines)))
    return changed


def simulate_order(
    star,
    telluric=None,
    *,
    seed,
    radial_velocity=0 * u.km / u.s,
    vsini=3 * u.km / u.s,
    limb_darkening=0.6,
    resolving_power=55_000.0,
    h3=0.0,
    h4=0.0,
    telluric_scale=1.0,
    veiling=0.0,
    wavelength_shift=(),
    lower=10537 * u.AA,
    upper=10663 * u.AA,
    n_pix=2048,
    snr=300.0,
    continuum=(1.0, 0.1, -0.15, 0.03),
    read_noise=5.0,
    bad_pixels=26,
):
    """
    One order of an echelle spectrum.

    Star (moved, rotating, veiled) times telluric transmission, line spread function, mean over the pixels, continuum,
    noise: in this order. The continuum of ``star`` is not used; it is part of ``continuum``, together with the
    blaze.

    Parameters
    ----------
    star, telluric : VoigtForest1D or None
        In the frame of the star and of the observatory; a list as ``telluric`` has one for each species.
    seed : int or `numpy.random.Generator`
        Of the noise and the bad pixels.
    radial_velocity : Quantity [km/s]
        Positive when receding; relativistic.
    vsini : Quantity [km/s]
        Zero means no rotation.
    limb_darkening : float
        Linear coefficient.
    resolving_power : float
        Wavelength over FWHM of the Gaussian line spread function, the same everywhere.
    h3, h4 : float
        Its Gauss-Hermite terms, see `specutils_blase.ResolvingPower`.
    telluric_scale : float, or sequence of float
        Factor on the optical depth of ``telluric``, or of each in the list.
    veiling : float
        Light without lines in units of the continuum of the star, the same at all wavelengths;
        see `specutils_blase.fit_spectrum`.
    wavelength_shift : sequence of float
        Legendre coefficients between the outer edges [km/s]: by so much longer than those of the spectrum are the true
        wavelengths.
    lower, upper : Quantity
        Outer edges of the first and the last pixel. Pixels widen by a third along the order.
    n_pix : int
        Number of pixels.
    snr : float
        Signal over photon noise where the continuum is 1; the flux there is ``snr**2`` electrons.
    continuum : sequence of float
        Legendre coefficients between the outer edges.
    read_noise : float
        [electron].
    bad_pixels : int
        How many pixels are masked or NaN.

    Returns
    -------
    SimulatedOrder
        Flux in electrons.

    Examples
    --------
    >>> from astropy import units as u
    >>> from specutils_blase.simulation import simulate_order, simulate_star, simulate_telluric
    >>> limits = {"lower": 10500 * u.AA, "upper": 10520 * u.AA}
    >>> star, sky = simulate_star(1, **limits, n_lines=300), simulate_telluric(2, **limits, n_lines=20)
    >>> order = simulate_order(star.model, sky.model, seed=3, radial_velocity=-30 * u.km / u.s, snr=200,
    ...                        lower=10505 * u.AA, upper=10515 * u.AA, n_pix=256)
    >>> print(order.spectrum.shape, order.spectrum.flux.unit, order.truth["radial_velocity"])
    (256,) electron -30.0

    The same order without an atmosphere, as a fit with a perfect telluric correction would have it:

    >>> dry = simulate_order(star.model, seed=3, radial_velocity=-30 * u.km / u.s, snr=200,
    ...                      lower=10505 * u.AA, upper=10515 * u.AA, n_pix=256)
    >>> bool((dry.noiseless.flux > order.noiseless.flux).all())
    True
    """
    velocity, rotation = radial_velocity.to_value(u.km / u.s), vsini.to_value(u.km / u.s)
    edges = _pixel_edges(lower.to_value(u.AA), upper.to_value(u.AA), n_pix)
    spread = resolving_power, h3, h4
    rotating = star, velocity, rotation, limb_darkening, veiling
    tellurics = list(telluric) if isinstance(telluric, list | tuple) else [telluric] * (telluric is not None)
    sky = list(zip(tellurics, np.broadcast_to(telluric_scale, len(tellurics)), strict=True))
    place = 2.0 * (edges - edges[0]) / (edges[-1] - edges[0]) - 1.0
    shift = np.polynomial.legendre.legval(place, list(wavelength_shift) or [0.0])
    pixels = _pixel_means(edges * _doppler_factor(shift), rotating, sky, spread)
    shape = np.polynomial.legendre.legval(0.5 * (place[:-1] + place[1:]), continuum)
    electrons = snr**2 * shape * pixels
    sigma = np.sqrt(np.maximum(electrons, 0.0) + read_noise**2)
    rng = np.random.default_rng(seed)
    flux, mask = _with_bad_pixels(rng, electrons + sigma * rng.standard_normal(n_pix), bad_pixels)
    truth = {
        "radial_velocity": velocity,
        "vsini": rotation,
        "limb_darkening": limb_darkening,
        "resolving_power": resolving_power,
        "h3": h3,
        "h4": h4,
        "telluric_scale": telluric_scale,
        "veiling": veiling,
        "wavelength_shift": tuple(wavelength_shift),
        "continuum": tuple(snr**2 * np.asarray(continuum, dtype=float)),
        "snr": snr,
    }
    return SimulatedOrder(
        spectrum=_order_spectrum(edges, flux, sigma, mask),
        truth=truth,
        noiseless=_order_spectrum(edges, electrons, sigma, np.zeros(n_pix, dtype=bool)),
    )


def equivalent_width(strength, fwhm_gauss, fwhm_lorentz):
    """
    Equivalent widths of Voigt lines in the opacity form, integrated numerically.

    Parameters
    ----------
    strength, fwhm_gauss, fwhm_lorentz : array, shape (n_lines,)
        One unit of length.

    Returns
    -------
    ndarray, shape (n_lines,)
        Same unit, positive for absorption.

    Examples
    --------
    The width of a weak line is its strength, that of a saturated one is less, and that of an emission line more:

    >>> from specutils_blase.simulation import equivalent_width
    >>> print(equivalent_width([0.001, 0.2, -0.2], [0.1, 0.1, 0.1], [0.02, 0.02, 0.02]).round(3))
    [ 0.001  0.129 -0.368]
    """
    strength, fwhm_gauss, fwhm_lorentz = (
        np.asarray(a, dtype=float)[:, np.newaxis] for a in (strength, fwhm_gauss, fwhm_lorentz)
    )
    # Half a line; equidistant in t with x = sinh(t): fine in the core, and few points reach the far wings.
    t = np.linspace(0.0, 10.0, 201)
    width = 0.5 * (fwhm_gauss + fwhm_lorentz)
    tau = strength * voigt_profile(width * np.sinh(t), fwhm_gauss / _FWHM_PER_SIGMA, 0.5 * fwhm_lorentz)
    # W = a - integral of (tau - 1 + exp(-tau)), which converges faster in the wings than that of 1 - exp(-tau).
    lost = 2.0 * np.trapezoid((tau + np.expm1(-tau)) * width * np.cosh(t), t, axis=1)
    return strength[:, 0] - lost


def _thermal_speed(temperature, mass):
    """sqrt(2 k T / m) [km/s] for temperature [K] and mass [u]."""
    return np.sqrt(2.0 * constants.k_B * temperature * u.K / (mass * u.u)).to_value(u.km / u.s)


def _surface_flux(wave, temperature):
    """pi B_lambda [erg / (s cm2 Angstrom)] at a wavelength [Angstrom]."""
    wave = wave * u.AA
    exponent = (constants.h * constants.c / (wave * constants.k_B * temperature * u.K)).to_value(u.one)
    flux = 2.0 * np.pi * constants.h * constants.c**2 / wave**5 / np.expm1(exponent)
    return flux.to_value("erg / (s cm2 AA)")


def _strengths(rng, fwhm_gauss, fwhm_lorentz, *, median_depth, scatter):
    """Lognormal strengths [Angstrom] whose median central optical depth is given."""
    peak = voigt_profile(0.0, fwhm_gauss / _FWHM_PER_SIGMA, 0.5 * fwhm_lorentz)
    return median_depth * rng.lognormal(0.0, scatter, peak.size) / peak


def _source(model, low, high):
    """The native spectrum and the table of lines of a model, between two wavelengths [Angstrom]."""
    wave = np.linspace(low, high, round((high - low) / NATIVE_STEP) + 1) * u.AA
    spectrum = Spectrum(flux=model(wave), spectral_axis=wave, meta={"wavelength_medium": "vacuum"})
    return SimulatedSource(spectrum=spectrum, lines=_line_table(model), model=model)


def _line_table(model):
    lines = QTable()
    lines["line_center"] = model.x_0.quantity
    lines["strength"] = model.strength.quantity
    lines["fwhm_gauss"] = model.fwhm_G.quantity
    lines["fwhm_lorentz"] = model.fwhm_L.quantity
    shape = [column.to_value(u.AA) for column in lines.columns.values()][1:]
    peak = voigt_profile(0.0, shape[1] / _FWHM_PER_SIGMA, 0.5 * shape[2])
    lines["depth"] = -np.expm1(-shape[0] * peak) * u.dimensionless_unscaled
    lines["equivalent_width"] = equivalent_width(*shape) * u.AA
    lines.meta["wavelength_medium"] = "vacuum"
    return lines


def _pixel_edges(lower, upper, n_pix):
    """Edges (n_pix + 1,) [Angstrom] of pixels whose width grows linearly, by a third, along the order."""
    t = np.linspace(0.0, 1.0, n_pix + 1)
    return lower + (upper - lower) * (t + t**2 / 6.0) / (1.0 + 1.0 / 6.0)


def _doppler_factor(velocity):
    """Observed over emitted wavelength of a source that recedes with a velocity [km/s]."""
    return np.sqrt((1.0 + velocity / _C) / (1.0 - velocity / _C))


def _pixel_means(edges, rotating, sky, spread):
    """Star and sky, pairs of a model and its scale, as the detector sees them without continuum, shape (n_pix,)."""
    star, velocity, vsini, limb_darkening, veiling = rotating
    sigma = _C / (spread[0] * _FWHM_PER_SIGMA)
    # Beyond the order by more than any kernel reaches; the Fourier transforms wrap around inside this margin.
    margin = vsini + 10.0 * sigma + 50.0
    first, last = np.log(edges[0]) - margin / _C, np.log(edges[-1]) + margin / _C
    n_grid = int(np.ceil((last - first) * _C / GRID_STEP)) + 1
    grid, step = np.linspace(first, last, n_grid, retstep=True)
    frequency = 2.0 * np.pi * np.fft.rfftfreq(n_grid, d=step * _C)
    flux = np.ones(n_grid)
    if star is not None:
        flux = _transmission(star, np.exp(grid) / _doppler_factor(velocity))
        flux = _filtered(flux, _rotation_transform(frequency, vsini, limb_darkening))
        flux = (flux + veiling) / (1.0 + veiling)
    for telluric, scale in sky:
        flux = flux * _transmission(telluric, np.exp(grid)) ** scale
    flux = _filtered(flux, _hermite_transform(frequency * sigma, *spread[1:]))
    return _means_between(edges, grid, flux)


def _transmission(model, wave):
    """The lines of a model without its continuum at wavelengths [Angstrom]."""
    parameters = (getattr(model, name) for name in ("x_0", "strength", "fwhm_G", "fwhm_L"))
    return model.transmission(wave, *(p.value if p.unit is None else p.quantity.to_value(u.AA) for p in parameters))


def _rotation_transform(frequency, vsini, limb_darkening):
    """
    Fourier transform of the rotation profile at angular frequencies [s/km], 1 at zero.

    A strip of the disc at x = v / vsini is as bright as the integral of 1 - eps + eps mu along it, that is
    2 (1 - eps) sqrt(1 - x^2) + (pi / 2) eps (1 - x^2), whose transform is known (Gray, The Observation and Analysis of
    Stellar Photospheres, chapter 18).
    """
    phase = np.maximum(frequency * vsini, 1e-8)  # both quotients have a limit at zero
    uniform = 2.0 * np.pi * jv(1, phase) / phase
    darkened = 2.0 * np.pi * spherical_jn(1, phase) / phase
    mixed = (1.0 - limb_darkening) * uniform + limb_darkening * darkened
    return mixed / (np.pi * (1.0 - limb_darkening / 3.0))


def _hermite_transform(phase, h3, h4):
    """
    Fourier transform of a Gauss-Hermite profile of sigma 1, 1 at zero.

    A Gaussian times a Hermite polynomial is its own transform but for a power of -i.
    """
    third = (2.0 * phase**3 - 3.0 * phase) / np.sqrt(3.0)
    fourth = (4.0 * phase**4 - 12.0 * phase**2 + 3.0) / np.sqrt(24.0)
    return np.exp(-0.5 * phase**2) * (1.0 + 1j * h3 * third + h4 * fourth) / (1.0 + h4 * np.sqrt(6.0) / 4.0)


def _filtered(flux, transform):
    """Convolution on the uniform grid with a kernel given by its Fourier transform; 1 beyond the ends."""
    return 1.0 + np.fft.irfft(np.fft.rfft(flux - 1.0) * transform, n=flux.size)


def _means_between(edges, grid, flux):
    """Mean over wavelength between consecutive edges [Angstrom] of a flux on a grid of ln(wavelength)."""
    integral = CubicSpline(grid, flux * np.exp(grid)).antiderivative()
    return np.diff(integral(np.log(edges))) / np.diff(edges)


def _with_bad_pixels(rng, flux, count):
    """Flux and mask with `count` bad pixels: half masked and wild, half NaN and not masked."""
    mask = np.zeros(flux.size, dtype=bool)
    bad = rng.choice(flux.size, size=count, replace=False)
    wild, dead = bad[: count // 2], bad[count // 2 :]
    flux[wild] *= rng.uniform(2.0, 10.0, wild.size)
    flux[dead] = np.nan
    mask[wild] = True
    return flux, mask


def _order_spectrum(edges, flux, sigma, mask):
    return Spectrum(
        flux=flux * u.electron,
        spectral_axis=edges * u.AA,
        bin_specification="edges",
        uncertainty=StdDevUncertainty(sigma),
        mask=mask,
        meta={"wavelength_medium": "vacuum"},
    )
