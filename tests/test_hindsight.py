"""A fit that converged at a wrong minimum says so and how to find the right one; a good fit says nothing.

Warnings are errors in these tests, so that every fit outside of `doubt_of` is also a test that nothing is said.
"""

import re
import time
from dataclasses import replace

import astropy.units as u
import numpy as np
import pytest
from astropy.nddata import StdDevUncertainty
from specutils import Spectrum

from specutils_blase import LineTemplate, fit_spectrum, fitting
from specutils_blase.errors import BlaseWarning
from specutils_blase.functional import FWHM_PER_SIGMA
from specutils_blase.lines import line_table
from specutils_blase.simulation import scatter_lines, simulate_order, simulate_star, simulate_telluric
from specutils_blase.solvers.lines import Lines

KMS = u.km / u.s
COVERAGE = (10_560.0, 10_640.0)
LSF = 55_000.0
VELOCITY, VSINI = -23.4, 5.0


def make_template(model, frame):
    """A template of a forest, as if cloned without error."""
    values = [getattr(model, name).quantity.to_value(u.AA) for name in model.param_names[:4]]
    lines = Lines(values[0], values[1], values[2] / FWHM_PER_SIGMA, values[3] / 2)
    zero = np.zeros(len(lines), dtype=int)
    component = "star" if frame == "rest" else "telluric"
    table = line_table(lines, np.zeros((len(lines), 4, 4)), index=zero, flags=zero, component=component,
                       form=model.form)  # fmt: skip
    return LineTemplate(model, table, meta={"coverage": list(COVERAGE), "frame": frame})


@pytest.fixture(scope="module")
def star():
    low, high = COVERAGE * u.AA
    return make_template(simulate_star(5, lower=low, upper=high, n_lines=300).model, "rest")


@pytest.fixture(scope="module")
def sky():
    low, high = COVERAGE * u.AA
    return make_template(simulate_telluric(6, lower=low, upper=high, n_lines=60).model, "observatory")


def observe(star, sky, seed=1, **kwargs):
    """An order of a star whose lines differ from those of the template."""
    true = None if star is None else scatter_lines(star.model, np.random.default_rng(seed), strength=0.2)
    options = {"radial_velocity": VELOCITY * KMS, "vsini": VSINI * KMS, "lower": 10_584 * u.AA, "upper": 10_616 * u.AA,
               "n_pix": 520, "bad_pixels": 0, "resolving_power": LSF, **kwargs}  # fmt: skip
    return simulate_order(true, None if sky is None else sky.model, seed=seed, **options).spectrum


def fit(spectrum, star, sky=None, **kwargs):
    return fit_spectrum(spectrum, star, sky, **{"lsf": LSF, "free": {"star": "strength"}, "progress": False, **kwargs})


def doubt_of(*arguments, **kwargs):
    """The converged fit and the one warning it gave."""
    with pytest.warns(BlaseWarning) as caught:
        result = fit(*arguments, **kwargs)
    assert [warning.filename for warning in caught] == [__file__]
    assert result.fit_info["status"] == "converged"
    return result, str(caught[0].message)


def value(result, name):
    return float(result.parameters["value"][list(result.parameters["name"]).index(name)])


@pytest.mark.parametrize(
    "start",
    [
        {"radial_velocity": (VELOCITY + 30) * KMS, "vsini": 4 * KMS},
        {"radial_velocity": (VELOCITY - 40) * KMS, "vsini": 4 * KMS},
        {"radial_velocity": (VELOCITY + 100) * KMS, "vsini": 4 * KMS},
        {"radial_velocity": VELOCITY * KMS, "vsini": 400 * KMS},
    ],
    ids=["near", "on the other side", "far", "huge vsini"],
)
def test_a_wrong_start_is_told_and_the_advice_is_right(star, sky, start):
    spectrum = observe(star, sky)
    wrong, text = doubt_of(spectrum, star, sky, **start)
    pattern = r"fit_spectrum converged, but chi2 is (\S+) instead of (\S+) near radial_velocity=(\S+) km/s, vsini=(\S+)"
    lower, higher, velocity, rotation = (float(number) for number in re.match(pattern, text).groups())
    assert text.endswith("km/s; start it there, or leave both to the search")
    assert velocity == pytest.approx(VELOCITY, abs=1.5) and 3 <= rotation <= 8
    right = fit(spectrum, star, sky, radial_velocity=velocity * KMS, vsini=rotation * KMS)
    searched = fit(spectrum, star, sky)
    for result in (right, searched):
        assert value(result, "radial_velocity") == pytest.approx(VELOCITY, abs=0.2)
        assert result.fit_info["chi2"] / result.fit_info["dof"] < 1.3
    # both numbers are chi-square with the prior's share, which is small in the good one
    assert right.fit_info["chi2"] <= lower * 1.01 and higher > 3 * lower
    assert wrong.fit_info["chi2"] / wrong.fit_info["dof"] > 3


@pytest.mark.parametrize("offset", [-6.0, 0.0, 4.0])
@pytest.mark.parametrize("snr", [15.0, 300.0, 5000.0])
@pytest.mark.parametrize("has_sky", [True, False])
def test_nothing_is_said_of_a_good_fit(star, sky, offset, snr, has_sky):
    sky = sky if has_sky else None
    spectrum = observe(star, sky, seed=2, snr=snr)
    result = fit(spectrum, star, sky, radial_velocity=(VELOCITY + offset) * KMS)
    assert value(result, "radial_velocity") == pytest.approx(VELOCITY, abs=0.2 if snr > 100 else 2)


@pytest.mark.parametrize(("free", "lsf", "snr", "off"), [((), LSF, 5000, 0.3), (("strength",), 0.8 * LSF, 2000, 0.5)])
def test_nothing_is_said_of_a_good_fit_with_a_bad_chi2(star, sky, free, lsf, snr, off):
    """Errors of the model: held lines that are not those of the template, or a wrong line spread function."""
    spectrum = observe(star, sky, seed=3, snr=snr)
    start = {"radial_velocity": (VELOCITY + 2) * KMS, "vsini": 4 * KMS}
    result = fit(spectrum, star, sky, free=free, lsf=lsf, **start)
    assert result.fit_info["chi2"] / result.fit_info["dof"] > 10
    # with the wrong line spread function minima lie up to 0.4 km/s off, the lowest ones the farthest
    assert value(result, "radial_velocity") == pytest.approx(VELOCITY, abs=off)
    from_truth = fit(spectrum, star, sky, free=free, lsf=lsf, radial_velocity=VELOCITY * KMS, vsini=VSINI * KMS)
    assert result.fit_info["chi2"] < 1.01 * from_truth.fit_info["chi2"]


def test_nothing_is_said_of_few_pixels(star):
    """Where noise decides, a lower chi-square elsewhere is no evidence."""
    order = observe(star, None, seed=4, snr=20)
    for first in range(0, 500, 50):
        part = slice(first, first + 15)
        few = Spectrum(flux=order.flux[part], spectral_axis=order.spectral_axis[part].value * u.AA,
                       uncertainty=StdDevUncertainty(order.uncertainty.array[part]))  # fmt: skip
        fit(few, star, radial_velocity=VELOCITY * KMS, vsini=VSINI * KMS, lsf=None, continuum_degree=1, free=())


def in_air(spectrum):
    """The same light with the wavelengths of its edges in air (Morton 2000, as in VALD)."""
    edges = spectrum.spectral_axis.bin_edges.to_value(u.AA)
    inverse = (1e4 / edges) ** 2
    index = 1 + 8.34254e-5 + 2.406147e-2 / (130 - inverse) + 1.5998e-4 / (38.9 - inverse)
    return Spectrum(flux=spectrum.flux, spectral_axis=edges / index * u.AA, bin_specification="edges",
                    uncertainty=spectrum.uncertainty)  # fmt: skip


@pytest.mark.parametrize("free", [{"star": "strength"}, ("strength",)], ids=["stars lines", "all lines"])
@pytest.mark.parametrize("column", [0.7, 1.5])
def test_undeclared_air_is_told_by_the_tellurics(star, sky, free, column):
    spectrum = in_air(observe(star, sky, telluric_scale=column))
    wrong, text = doubt_of(spectrum, star, sky, free=free)
    assert abs(value(wrong, "radial_velocity") - VELOCITY) > 50
    assert re.match(r"fit_spectrum converged, but chi2 is \S+ instead of \S+ with the tellurics where", text)
    assert text.endswith('the wavelengths of the spectrum are in air; give wavelength_medium="air" if so')
    right = fit(spectrum, star, sky, wavelength_medium="air")
    assert value(right, "radial_velocity") == pytest.approx(VELOCITY, abs=0.2)


def test_air_declared_in_error_is_told_too(star, sky):
    spectrum = observe(star, sky)
    _, text = doubt_of(spectrum, star, sky, wavelength_medium="air")
    assert text.endswith('the wavelengths of the spectrum are in vacuum; give wavelength_medium="vacuum" if so')


def test_undeclared_air_with_tellurics_alone(sky):
    spectrum = in_air(observe(None, sky))
    _, text = doubt_of(spectrum, None, sky, free=())
    assert 'give wavelength_medium="air"' in text
    right = fit(spectrum, None, sky, free=(), wavelength_medium="air")
    assert value(right, "telluric_scale") == pytest.approx(1, abs=0.1)


def test_a_good_fit_is_not_held_up(star, sky, monkeypatch):
    times, original = [], fitting.doubt

    def timed(*arguments, **kwargs):
        start = time.process_time()
        text = original(*arguments, **kwargs)
        times.append(time.process_time() - start)
        return text

    monkeypatch.setattr(fitting, "doubt", timed)
    spectrum = observe(star, sky, n_pix=2048)
    for _ in range(3):
        fit(spectrum, star, sky, radial_velocity=VELOCITY * KMS, vsini=VSINI * KMS)
    assert min(times) < 0.2


@pytest.mark.parametrize("free", [(), ("strength",)])
def test_a_telluric_template_in_undeclared_air_is_told(star, sky, free):
    model = sky.model.copy()
    inverse = (1e4 / model.x_0.value) ** 2
    index = 1 + 8.34254e-5 + 2.406147e-2 / (130 - inverse) + 1.5998e-4 / (38.9 - inverse)
    model.x_0 = model.x_0.value / index * u.AA
    _, text = doubt_of(observe(star, sky), star, replace(sky, model=model), free=free)
    assert text.endswith('if those of the template are in air; clone it with wavelength_medium="air" if so')
