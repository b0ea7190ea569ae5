"""Physical and mathematical constants in the internal units of the package: Angstrom, km/s, K."""

import math

__all__ = ["FWHM_PER_SIGMA", "HC_OVER_K", "SPEED_OF_LIGHT"]

SPEED_OF_LIGHT = 299_792.458
"""Speed of light in vacuum [km/s] (exact)."""

FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
"""Full width at half maximum of a Gaussian over its standard deviation."""

HC_OVER_K = 1.4387768775039337e8
"""Second radiation constant h c / k [Angstrom K] (exact in the SI of 2019)."""
