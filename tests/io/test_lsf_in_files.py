"""The line spread function of a fit survives in its file, whatever it was given as."""

from dataclasses import fields, replace

import numpy as np
import pytest
from astropy import units as u

from specutils_blase import (
    BandedLSF,
    GaussianLSF,
    MeasuredLSF,
    ResolvingPower,
    SpectrumFit,
    clone_spectrum,
    fit_spectrum,
)
from specutils_blase.simulation import simulate_order, simulate_star

from .samples import assert_same, make_fit

KMS = u.km / u.s
LSFS = {
    "number": ResolvingPower(55_000),
    "free": ResolvingPower(4.5e4, free=True, degree=2, h3=0.05, h4=-0.1, free_shape=True),
    "for each order": ResolvingPower(np.float32(3e4), free=True, per_order=True),
    "speed": GaussianLSF(5.5 * KMS, free=True),
    "length": GaussianLSF(u.Quantity(0.2, u.AA, dtype=np.float32)),
    "matrix": BandedLSF(np.outer([0.25, 0.5, 0.25], np.linspace(0.9, 1.0, 40))),
    "other diagonals": BandedLSF(np.ones((2, 40)), offsets=[3, -1]),
    "lamp": MeasuredLSF([-6, -2, 0, 2, 6] * KMS, [0, 0.5, 1.0, 0.6, 0]),
}


def through_file(fit, tmp_path):
    fit.write(tmp_path / "fit.asdf", overwrite=True)
    return SpectrumFit.read(tmp_path / "fit.asdf")


def assert_same_lsf(first, second):
    assert type(first) is type(second)
    for name in (field.name for field in fields(first)):
        a, b = getattr(first, name), getattr(second, name)
        if isinstance(a, np.ndarray) and a.shape:
            # A measured profile is divided by its integral once more.
            np.testing.assert_allclose(u.Quantity(b).value, u.Quantity(a).value, rtol=4e-16)
            assert u.Quantity(a).unit == u.Quantity(b).unit and not b.flags.writeable
        else:
            assert a == b


@pytest.mark.parametrize("lsf", LSFS.values(), ids=LSFS.keys())
def test_every_kind(lsf, tmp_path, strict_asdf):
    assert_same_lsf(lsf, through_file(make_fit(lsf=lsf), tmp_path).lsf)


def test_one_for_each_order(tmp_path, strict_asdf):
    lsfs = [LSFS["matrix"], LSFS["lamp"], LSFS["number"]]
    for a, b in zip(lsfs, through_file(make_fit(lsf=lsfs), tmp_path).lsf, strict=True):
        assert_same_lsf(a, b)


def test_files_without_one(tmp_path, strict_asdf):
    fit = through_file(make_fit(), tmp_path)
    assert fit.lsf is None
    assert_same(make_fit(), fit)


def rising(wave):
    """A resolving power that changes with wavelength."""
    return 4e4 * (wave / (10510 * u.AA)) ** 3


@pytest.fixture(scope="module")
def fitted():
    star = simulate_star(1, n_lines=150, lower=10500 * u.AA, upper=10524 * u.AA)
    template = clone_spectrum(star.spectrum, continuum_degree=1, teff=4700 * u.K)
    orders = [simulate_order(star.model, None, seed=3 + k, lower=lower * u.AA, upper=(lower + 8) * u.AA, n_pix=140,
                             radial_velocity=5 * KMS, vsini=4 * KMS, bad_pixels=0).spectrum
              for k, lower in enumerate((10504, 10511))]  # fmt: skip
    return orders, template


def refitted(orders, template, lsf):
    return fit_spectrum(orders, template, lsf=lsf, radial_velocity=5 * KMS, vsini=4 * KMS, free=(), progress=False)


def test_a_function_is_what_it_was_where_the_data_are(fitted, tmp_path):
    orders, template = fitted
    first = refitted(orders, template, rising)
    assert first.lsf == ResolvingPower(rising)
    back = through_file(first, tmp_path)
    wave = np.concatenate([order.spectral_axis.to_value(u.AA) for order in orders])
    np.testing.assert_allclose(back.lsf.resolving_power(wave), rising(wave * u.AA), rtol=1e-6)
    second = refitted(orders, template, back.lsf)
    np.testing.assert_allclose(second.parameters["value"], first.parameters["value"], rtol=1e-5)
    assert second.order(1).lsf is back.lsf


def test_functions_for_each_order(fitted, tmp_path):
    orders, template = fitted
    fit = refitted(orders, template, [rising, lambda wave: 5e4 * np.ones(wave.shape)])
    lsfs = through_file(fit, tmp_path).lsf
    assert len(lsfs) == 2 and lsfs[1].resolving_power([10515.0]) == 5e4
    # Where an order was not fitted nobody knows what its function gives.
    other = through_file(replace(fit, residual=[fit.residual[0] * np.nan, fit.residual[1]]), tmp_path)
    assert other.lsf[0] is None and other.lsf[1].resolving_power([10515.0]) == 5e4
    assert other.order(1).lsf is other.lsf[1]


def test_tampered_files_are_refused(tmp_path):
    path = tmp_path / "fit.asdf"
    make_fit(lsf=LSFS["number"]).write(path)
    content = path.read_bytes()
    assert content.count(b"kind: ResolvingPower") == 1
    path.write_bytes(content.replace(b"kind: ResolvingPower", b"kind: RenderingPower"))
    with pytest.raises(ValueError, match="breaks the schema"):
        SpectrumFit.read(path)
