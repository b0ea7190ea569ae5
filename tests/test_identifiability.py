"""Every flag of a line table, by construction of its case: in clones and in fits, of stars and of tellurics."""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable
from scipy.special import voigt_profile
from specutils import SpectralRegion, Spectrum

from specutils_blase import LineTemplate, VoigtForest1D, clone_spectrum, fit_spectrum
from specutils_blase.flags import AT_BOUND, BLENDED, FLAG_MEANING, OUTSIDE_WINDOW, PRIOR_DOMINATED
from specutils_blase.lines import line_table
from specutils_blase.priors import GaussianPrior
from specutils_blase.simulation import simulate_order
from specutils_blase.solvers.lines import Lines

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
WAVE = 5000.0 + np.arange(0, 20 * 64) / 64.0
ALONE = (5004.0, 0.1, 0.07, 0.03)  # centre, strength, sigma, gamma


def flags_of_clone(*lines, **options):
    """(flags of the lines within 0.4 Angstrom of 5010, flags of the others) in a clone of these lines and ALONE."""
    tau = sum(a * voigt_profile(WAVE - c, s, g) for c, a, s, g in (*lines, ALONE))
    source = Spectrum(flux=np.exp(-tau) * u.one, spectral_axis=WAVE * u.AA)
    table = clone_spectrum(source, continuum_degree=0, **options).lines
    near = np.abs(table["line_center"].value - 5010.0) < 0.4
    assert near.any() and not near.all()
    return table["flags"][near], table["flags"][~near]


@pytest.mark.parametrize(
    ("lines", "options", "flag"),
    [
        ([(5010.0, 0.1, 0.07, 0.03)], {}, 0),
        ([(5010.0, 0.1, 0.06, 1e-9)], {}, AT_BOUND),  # its Lorentzian becomes as narrow as it may
        ([(5009.95, 0.1, 0.06, 0.03), (5010.05, 0.08, 0.06, 0.03)],
         {"lines": QTable({"line_center": [5004.0, 5009.95, 5010.05] * u.AA})}, BLENDED),
        ([(5010.0, 2.0, 0.06, 0.1)],
         {"exclude_regions": [SpectralRegion(5009.0 * u.AA, 5011.0 * u.AA)]}, OUTSIDE_WINDOW),
    ],
    ids=["none", "at_bound", "blended", "outside_window"],
)  # fmt: skip
def test_flags_of_a_clone(lines, options, flag):
    near, others = flags_of_clone(*lines, **options)
    assert set(near) == {flag} and set(others) == {0}


# One line for each case; strengths are chosen so that the lines are deep, but for the hidden one.
CASES = {"alone": 10593.0, "blend": 10596.0, "partner": 10596.06, "hidden": 10599.0, "masked": 10602.0,
         "still": 10605.0}  # fmt: skip
CENTER = np.array(list(CASES.values()))
PEAK = np.array([0.6, 0.4, 0.4, 1e-4, 0.6, 0.6])
SIGMA = np.full(CENTER.size, 0.05)
GAMMA = np.array([0.02, 0.02, 0.02, 0.02, 1e-4, 0.0])
STRENGTH = PEAK / voigt_profile(0.0, SIGMA, GAMMA)
COVERAGE = [10580.0, 10620.0]


def make_template(frame):
    zero = np.zeros(CENTER.size, dtype=int)
    table = line_table(Lines(CENTER, STRENGTH, SIGMA, GAMMA), np.zeros((CENTER.size, 4, 4)), index=zero, flags=zero)
    model = VoigtForest1D(CENTER * u.AA, STRENGTH * u.AA, SIGMA * FWHM_PER_SIGMA * u.AA, 2 * GAMMA * u.AA)
    return LineTemplate(model, table, meta={"coverage": COVERAGE, "frame": frame})


def flags_of_fit(component, free, prior):
    """{case: flag} of the lines in a fit in which they are the star's or the sky's, with a hole in the data."""
    template = make_template("rest" if component == "star" else "observatory")
    models = (template.model, None) if component == "star" else (None, template.model)
    source = simulate_order(*models, seed=1, lower=10590 * u.AA, upper=10608 * u.AA, n_pix=290, bad_pixels=0, snr=400,
                            continuum=(1.0,)).spectrum  # fmt: skip
    hole = [SpectralRegion(10601.5 * u.AA, 10602.5 * u.AA)]
    templates = (template, None) if component == "star" else (None, template)
    start = {"radial_velocity": 0 * u.km / u.s, "vsini": 3 * u.km / u.s} if component == "star" else {}
    fit = fit_spectrum(source, *templates, free=free, prior=prior, exclude_regions=hole, continuum_degree=0, **start)
    assert set(fit.lines["component"]) == {component} and len(fit.lines) == CENTER.size
    return dict(zip(CASES, fit.lines["flags"].tolist(), strict=True))


@pytest.mark.parametrize("component", ["star", "telluric"])
@pytest.mark.parametrize("sigma", [1.0, 1e-4])
def test_flags_of_a_fit(component, sigma):
    flags = flags_of_fit(component, ("strength",), GaussianPrior(strength=sigma))
    if sigma < 1e-3:  # nothing can be learned beside such a prior, and nothing is correlated
        assert set(flags.values()) == {PRIOR_DOMINATED, PRIOR_DOMINATED | OUTSIDE_WINDOW}
        return
    assert flags == {"alone": 0, "blend": BLENDED, "partner": BLENDED, "hidden": PRIOR_DOMINATED,
                     "masked": PRIOR_DOMINATED | OUTSIDE_WINDOW, "still": 0}  # fmt: skip


@pytest.mark.parametrize("component", ["star", "telluric"])
@pytest.mark.parametrize("free", ["fwhm", "strength"])
def test_a_limit_is_flagged_where_the_parameter_is_free(component, free):
    flags = flags_of_fit(component, (free,), GaussianPrior())
    at_bound = {name for name, flag in flags.items() if flag & AT_BOUND}
    assert at_bound == ({"still"} if free == "fwhm" else set())


def test_a_limit_of_the_other_component_is_none():
    star, sky = make_template("rest"), make_template("observatory")
    speed = 90 * u.km / u.s  # far from the sky's lines
    wide = [5000.0, 20000.0]
    star.meta["coverage"] = sky.meta["coverage"] = wide
    source = simulate_order(star.model, sky.model, seed=2, lower=10590 * u.AA, upper=10610 * u.AA, n_pix=320,
                            bad_pixels=0, radial_velocity=speed, continuum=(1.0,)).spectrum  # fmt: skip
    fit = fit_spectrum(source, star, sky, free={"star": ("strength", "fwhm"), "telluric": ("strength",)},
                       radial_velocity=speed, vsini=3 * u.km / u.s, continuum_degree=0)  # fmt: skip
    bound = fit.lines[(fit.lines["flags"] & AT_BOUND) > 0]
    assert set(bound["component"]) == {"star"} and len(bound) == 1


def test_the_table_says_what_its_flags_mean():
    for flag, name in ((AT_BOUND, "at_bound"), (BLENDED, "blended"), (PRIOR_DOMINATED, "prior_dominated"),
                       (OUTSIDE_WINDOW, "outside_window")):  # fmt: skip
        assert f"{flag} {name}:" in FLAG_MEANING
