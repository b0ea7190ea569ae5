import numpy as np
from astropy import constants
from astropy import units as u

from specutils_blase.functional import FWHM_PER_SIGMA, HC_OVER_K, SPEED_OF_LIGHT


def test_constants_agree_with_astropy():
    assert SPEED_OF_LIGHT == constants.c.to_value("km/s")
    hc_over_k = (constants.h * constants.c / constants.k_B).to_value(u.AA * u.K)
    np.testing.assert_allclose(HC_OVER_K, hc_over_k, rtol=1e-15)


def test_fwhm_per_sigma_is_where_a_gaussian_halves():
    np.testing.assert_allclose(np.exp(-0.5 * (0.5 * FWHM_PER_SIGMA) ** 2), 0.5, rtol=1e-15)
