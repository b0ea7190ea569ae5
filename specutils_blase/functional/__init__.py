"""Pure, unit-free functions on tensors: vacuum Angstrom, km/s, K.

Everything here follows the dtype and the device of its input, owns no state, and is differentiable in every continuous
argument. The mathematics of the package lives in these modules and nowhere else.
"""

from specutils_blase.functional.broadening import kernel_half_size, rotation_kernel, rotational_broadening
from specutils_blase.functional.constants import FWHM_PER_SIGMA, HC_OVER_K, SPEED_OF_LIGHT
from specutils_blase.functional.continuum import blackbody, continuum_basis, legendre, scaled_coordinate
from specutils_blase.functional.forest import (
    half_width,
    line_pixel_pairs,
    optical_depth,
    pixel_depth,
    product_transmission,
    transmission,
)
from specutils_blase.functional.galaxies import (
    emission,
    line_levels,
    luminosity_distance,
    predictor_inputs,
    top_hat_means,
)
from specutils_blase.functional.grid import doppler_factor, pixel_edges, rest_wavelength, velocity_grid
from specutils_blase.functional.original import original_profile, original_transmission
from specutils_blase.functional.profiles import faddeeva, pseudo_voigt, voigt, voigt_derivatives
from specutils_blase.functional.resampling import pixel_overlap, pixel_response
from specutils_blase.functional.sparse import apply

__all__ = [
    "FWHM_PER_SIGMA",
    "HC_OVER_K",
    "SPEED_OF_LIGHT",
    "apply",
    "blackbody",
    "continuum_basis",
    "doppler_factor",
    "emission",
    "faddeeva",
    "half_width",
    "kernel_half_size",
    "legendre",
    "line_levels",
    "line_pixel_pairs",
    "luminosity_distance",
    "optical_depth",
    "original_profile",
    "original_transmission",
    "pixel_depth",
    "pixel_edges",
    "pixel_overlap",
    "pixel_response",
    "predictor_inputs",
    "product_transmission",
    "pseudo_voigt",
    "rest_wavelength",
    "rotation_kernel",
    "rotational_broadening",
    "scaled_coordinate",
    "top_hat_means",
    "transmission",
    "velocity_grid",
    "voigt",
    "voigt_derivatives",
]
