"""LineTemplate: what it checks, and what its model says at given wavelengths."""

import numpy as np
import pytest
from astropy import constants
from astropy import units as u
from astropy.table import QTable, Table
from scipy.special import voigt_profile
from specutils import SpectralAxis, Spectrum

import specutils_blase
from specutils_blase import CoverageError, LineTemplate, VoigtForest1D

FLUX_UNIT = u.Unit("erg / (s cm2 AA)")
CENTER, STRENGTH, FWHM_G, FWHM_L = (np.array(v) for v in ([5001.0, 5004.0], [0.1, -0.03], [0.1, 0.2], [0.05, 0.02]))
COEFFICIENTS, DOMAIN, TEFF = (2e-13, 3e-14), (4998.0, 5008.0), 4715.0
META = {"coverage": [4998.0, 5008.0]}


def make_model(**changes):
    lines = {"x_0": CENTER * u.AA, "strength": STRENGTH * u.AA, "fwhm_G": FWHM_G * u.AA, "fwhm_L": FWHM_L * u.AA}
    smooth = {"continuum": COEFFICIENTS * FLUX_UNIT, "continuum_domain": DOMAIN * u.AA, "teff": TEFF * u.K}
    return VoigtForest1D(**{**lines, **smooth, "tolerance": 1e-12, **changes})


def make_template(meta=META, **changes):
    return LineTemplate(make_model(**changes), QTable({"line_center": CENTER * u.AA}), {"status": "converged"}, meta)


def expected_flux(wave):
    """The formula of the class, from scipy and astropy's constants."""
    sigma, gamma = FWHM_G / np.sqrt(8 * np.log(2)), FWHM_L / 2
    tau = np.sum(STRENGTH * voigt_profile(wave[:, None] - CENTER, sigma, gamma), axis=1)
    x = (2 * wave - DOMAIN[0] - DOMAIN[1]) / (DOMAIN[1] - DOMAIN[0])
    hc_over_kt = (constants.h * constants.c / constants.k_B / (TEFF * u.K)).to_value(u.AA)
    planck = [1 / (w**5 * np.expm1(hc_over_kt / w)) for w in (wave, sum(DOMAIN) / 2)]
    return (COEFFICIENTS[0] + COEFFICIENTS[1] * x) * planck[0] / planck[1] * np.exp(-tau)


WAVE = np.linspace(4998.0, 5008.0, 1001)


def test_flux_is_continuum_times_lines():
    spectrum = make_template().evaluate(WAVE * u.AA)
    assert type(spectrum) is Spectrum
    assert spectrum.flux.unit == FLUX_UNIT
    np.testing.assert_allclose(spectrum.flux.value, expected_flux(WAVE), rtol=1e-9)


@pytest.mark.parametrize("convert", [lambda w: w.to("nm"), lambda w: w.to("THz", u.spectral()),
                                     lambda w: w.to("eV", u.spectral()), lambda w: w.to("1/cm", u.spectral()),
                                     lambda w: w[::-1]], ids=["nm", "THz", "eV", "1/cm", "decreasing"])  # fmt: skip
def test_any_axis_gives_the_same_flux_on_it(convert):
    axis = convert(WAVE * u.AA)
    spectrum = make_template().evaluate(axis)
    assert spectrum.spectral_axis.unit == axis.unit
    assert np.array_equal(spectrum.spectral_axis.value, axis.value)
    order = slice(None, None, -1 if axis[0] == WAVE[-1] * u.AA else 1)
    np.testing.assert_allclose(spectrum.flux.value[order], expected_flux(WAVE), rtol=1e-9)


def test_axis_of_a_spectrum_keeps_its_bin_edges():
    edges = np.linspace(4998, 5008, 41) * u.AA
    spectrum = make_template().evaluate(SpectralAxis(edges, bin_specification="edges"))
    assert np.array_equal(spectrum.spectral_axis.bin_edges.value, edges.value)


def test_air_wavelengths_are_taken_to_vacuum():
    vacuum = WAVE[1:-1]
    inverse = (1e4 / vacuum) ** 2  # Morton (2000), as in VALD [1/um^2]
    index = 1 + 8.34254e-5 + 2.406147e-2 / (130 - inverse) + 1.5998e-4 / (38.9 - inverse)
    air = vacuum / index * u.AA
    spectrum = make_template().evaluate(air, medium="air")
    np.testing.assert_allclose(spectrum.flux.value, expected_flux(vacuum), rtol=1e-6)
    assert np.array_equal(spectrum.spectral_axis.value, air.value)
    assert spectrum.meta["wavelength_medium"] == "air"
    with pytest.raises(ValueError, match="medium must be"):
        make_template().evaluate(air, medium="water")


@pytest.mark.parametrize("ends", [(4997.999, 5000), (5007, 5008.001), (4000, 6000), (6000, 6001)])
def test_outside_the_coverage(ends):
    with pytest.raises(CoverageError, match="within the template, 4998 to 5008 Angstrom.*got .*cut it") as caught:
        make_template().evaluate(np.linspace(*ends, 11) * u.AA)
    caught.match(f"{ends[0]:.8g} to {ends[1]:.8g} Angstrom")


def test_ends_of_the_coverage_belong_to_it_in_every_unit():
    template = make_template()
    for unit in ("AA", "nm", "um", "m", "THz", "eV", "1/cm", "Hz"):
        ends = (template.coverage * (1 + 1e-16)).to(unit, u.spectral())
        assert template.evaluate(ends).flux.shape == (2,)


@pytest.mark.parametrize(
    ("axis", "error", "message"),
    [
        (WAVE, TypeError, "spectral_axis must be a Quantity"),
        (WAVE * u.Jy, u.UnitsError, "spectral_axis must have"),
        (5000 * u.AA, ValueError, r"spectral_axis must have the shape \(n_pix,\)"),
        ([] * u.AA, ValueError, r"spectral_axis must have the shape \(n_pix,\)"),
        ([5000, np.nan] * u.AA, ValueError, "finite"),
    ],
)
def test_bad_axis(axis, error, message):
    with pytest.raises(error, match=message):
        make_template().evaluate(axis)


def test_meta_has_every_key_and_the_callers_dict_is_left_alone():
    meta, fit_info = dict(META), {}
    template = LineTemplate(make_model(), QTable(), fit_info, meta)
    assert meta == META and fit_info == {}
    assert template.fit_info == {"status": "unknown"}
    assert template.meta == {"wavelength_medium": "vacuum", "frame": "rest", "coverage": [4998.0, 5008.0],
                             "package_version": specutils_blase.__version__, "source_medium": "vacuum",
                             "error_scale": "unknown"}  # fmt: skip
    assert LineTemplate(make_model(), QTable(), {}, {**META, "frame": "observatory"}).meta["frame"] == "observatory"


def test_coverage_is_a_quantity():
    coverage = make_template().coverage
    assert isinstance(coverage, u.Quantity) and coverage.unit == u.AA and list(coverage.value) == [4998.0, 5008.0]


def test_repr_is_short():
    assert repr(make_template()) == "<LineTemplate: 2 lines, 4998 to 5008 Angstrom (vacuum), rest frame>"


def in_seconds():
    model = make_model()
    model.fwhm_L = FWHM_L * u.s
    return model


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": None}, TypeError, "model must be a VoigtForest1D .* units of length, got a NoneType; give x_0"),
        ({"model": VoigtForest1D([5000.0], [0.1], [0.1], [0.1])}, TypeError, "got one with the units x_0: None"),
        ({"model": in_seconds()}, TypeError, "got one with the units .*fwhm_L: s"),
        ({"lines": Table()}, TypeError, "lines must be a QTable, got Table"),
        ({"meta": {}}, ValueError, 'meta."coverage".* must be the first and last'),
        ({"meta": {"coverage": [5008.0, 4998.0]}}, ValueError, 'meta."coverage"'),
        ({"meta": {"coverage": [np.nan, 5008.0]}}, ValueError, 'meta."coverage"'),
        ({"meta": {**META, "frame": "moon"}}, ValueError, 'meta."frame".* must be one of'),
        ({"meta": {**META, "wavelength_medium": "air"}}, ValueError, 'meta."wavelength_medium"'),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        LineTemplate(**{"model": make_model(), "lines": QTable(), "meta": META, **arguments})


def test_written_and_read_template_gives_the_same_flux(tmp_path):
    template = make_template()
    template.write(tmp_path / "t.asdf")
    back = LineTemplate.read(tmp_path / "t.asdf")
    assert np.array_equal(back.evaluate(WAVE * u.AA).flux, template.evaluate(WAVE * u.AA).flux)


def test_plot_draws_on_the_given_axes():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert make_template().plot(ax=ax) is ax
    drawn = np.concatenate([line.get_xdata() for line in ax.lines])
    assert drawn.size > 0
