"""The product form beside the opacity form: as good on unsaturated spectra, and as faithful in a file."""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable
from specutils import Spectrum

from specutils_blase import LineTemplate, clone_spectrum
from specutils_blase.simulation import simulate_star

FORMS = ("opacity", "product")


def rms_of(source, **options):
    """{form: rms} of clones, in the unit of the continuum."""
    templates = {form: clone_spectrum(source, form=form, **options) for form in FORMS}
    assert all(template.model.form == form for form, template in templates.items())
    return {form: template.fit_info["rms"] for form, template in templates.items()}


@pytest.mark.parametrize("seed", range(1, 6))
def test_the_same_rms_on_an_unsaturated_spectrum(seed):
    star = simulate_star(seed, lower=10580 * u.AA, upper=10600 * u.AA, n_lines=100)
    strength = 0.5 * star.model.strength.quantity  # no line deeper than about a half
    star.model.strength = strength
    wave = star.spectrum.spectral_axis
    source = Spectrum(flux=star.model(wave) / star.model.continuum.quantity.ravel()[0], spectral_axis=wave)
    assert source.flux.min() > 0.4
    rms = rms_of(source, continuum_degree=0, prominence=0.005)
    assert max(rms.values()) < 5e-4
    assert 0.6 < rms["product"] / rms["opacity"] < 1.5  # each finds its own lines in the residual


@pytest.mark.parametrize(("name", "lower"), [("wasp69_like", 8635.0), ("m3800_hband", 15345.0)])
def test_the_same_rms_where_a_computed_star_is_unsaturated(shared_data, name, lower):
    table, smooth = (QTable.read(shared_data / "stellar" / f"{name}.fits.gz", hdu=k) for k in (1, 2))
    wave = table["wavelength"].to_value(u.AA)
    keep = (wave >= lower) & (wave < lower + 25.0)
    continuum = np.interp(wave, smooth["wavelength"].to_value(u.AA), smooth["flux"].value)
    flat = (np.asarray(table["flux"].value, dtype=float) / continuum)[keep]
    assert flat.min() > 0.6
    source = Spectrum(flux=flat * u.one, spectral_axis=wave[keep] * u.AA)
    rms = rms_of(source, continuum_degree=2, prominence=0.005)
    assert max(rms.values()) < 5e-4
    assert rms["product"] < 1.1 * rms["opacity"]


@pytest.mark.parametrize("form", FORMS)
def test_read_back_identically(form, tmp_path):
    star = simulate_star(1, lower=10590 * u.AA, upper=10600 * u.AA, n_lines=60)
    template = clone_spectrum(star.spectrum, continuum_degree=1, form=form)
    template.write(tmp_path / "star.asdf")
    back = LineTemplate.read(tmp_path / "star.asdf")
    wave = star.spectrum.spectral_axis
    assert back.model.form == back.lines.meta["form"] == form
    np.testing.assert_array_equal(back.evaluate(wave).flux, template.evaluate(wave).flux)
    assert back.lines.colnames == template.lines.colnames
    for name in template.lines.colnames:
        np.testing.assert_array_equal(back.lines[name], template.lines[name])
