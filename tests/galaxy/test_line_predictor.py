"""The predictor as it is used: kinds of input, what is missing, what is refused."""

import warnings

import numpy as np
import pytest
from astropy import units as u
from astropy.cosmology import FlatLambdaCDM
from astropy.utils.masked import Masked
from scipy import stats
from specutils import Spectrum

from specutils_blase.errors import BlaseWarning
from specutils_blase.galaxy import EmissionLinePredictor, line_predictor, top_hat_continuum, train_line_predictor
from specutils_blase.galaxy.line_predictor import LINES
from specutils_blase.report import describe_predictor
from specutils_blase.solvers import line_training
from tests.io.samples import make_predictor

UNIT = u.Unit("1e-17 erg / (s cm2 AA)")
N = 600


def galaxies(n=N, seed=0):
    """Continua whose slope says how strong all lines are; a third of H gamma is not listed."""
    rng = np.random.default_rng(seed)
    slope, level, redshift = rng.uniform(-1, 1, n), rng.lognormal(1, 0.7, n), rng.uniform(0.06, 0.3, n)
    flux = level[:, None] * np.geomspace(0.5, 2.0, 12) ** slope[:, None] * rng.lognormal(0, 0.01, (n, 12))
    width = np.exp(1.0 - slope[:, None] + 0.3 * rng.normal(size=(n, 1)) + 0.1 * np.arange(10))
    width[:, 3], width[:, 5] = width[:, 4] / 2.98, width[:, 7] / 2.96
    ivar = (width / rng.uniform(3, 30, (n, 10))) ** -2.0
    width = width + rng.normal(size=width.shape) * ivar**-0.5
    width[width <= 0] = np.nan
    width[rng.uniform(size=n) < 0.33, 1] = np.nan
    return flux * UNIT, redshift, width, ivar


@pytest.fixture(scope="module")
def data():
    return galaxies()


@pytest.fixture(scope="module")
def predictor(data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_training, "CORRECTION_STEPS", 10)
        return train_line_predictor(*data, seed=3)


def test_table_has_the_lines_in_order_of_size(predictor, data):
    assert predictor.lines == tuple(LINES) and str(N) in repr(predictor) and predictor.fit_info["seed"] == 3
    table = predictor.predict(*data[:2])
    assert table.colnames == ["extrapolated"] + [n + end for n in LINES for end in ("", "_p16", "_p84")]
    assert len(table) == N and not table["extrapolated"].any()
    for name in LINES:
        assert table[name].unit == u.AA
        assert (table[name + "_p16"] < table[name]).all() and (table[name] < table[name + "_p84"]).all()
    slope = np.log(data[0][:, -1] / data[0][:, 0]).value
    assert stats.spearmanr(slope, table["HALPHA"].value).statistic < -0.9


def test_quantiles_are_those_of_the_draws(predictor, data):
    table, drawn = predictor.predict(data[0][:20], data[1][:20]), predictor.sample(data[0][:20], data[1][:20], 4000)
    for name in LINES:
        assert drawn[name].shape == (20, 4000) and drawn[name].unit == u.AA
        found = np.quantile(drawn[name].value, [0.5, 0.16, 0.84], axis=1)
        for values, end in zip(found, ("", "_p16", "_p84"), strict=True):
            np.testing.assert_allclose(values, table[name + end].value, rtol=0.08)


@pytest.mark.parametrize(("weak", "strong"), [("OIII_4959", "OIII_5007"), ("NII_6548", "NII_6584")])
def test_pairs_from_one_level_have_one_ratio_in_every_draw(predictor, data, weak, strong):
    drawn = predictor.sample(data[0][:5], data[1][:5], 200)
    ratio = {"OIII_5007": 2.98, "NII_6584": 2.96}[strong]
    np.testing.assert_allclose((drawn[strong] / drawn[weak]).value, ratio, rtol=1e-5)
    table = predictor.predict(data[0][:5], data[1][:5])
    for end in ("", "_p16", "_p84"):
        np.testing.assert_allclose((table[strong + end] / table[weak + end]).value, ratio, rtol=1e-5)


def test_draws_repeat_with_their_seed_and_are_positive_with_noise(predictor, data):
    some = data[0][:30], data[1][:30]
    first, again, other = (predictor.sample(*some, 3, seed=seed)["HBETA"] for seed in (1, 1, 2))
    assert (first == again).all() and not (first == other).any()
    measured = predictor.sample(*some, 500, ivar=np.full((30, 10), 0.01) * u.AA**-2)
    assert measured["HBETA"].min() > 0
    quiet = predictor.sample(*some, 500)
    assert (measured["HBETA"].std(axis=1) > 1.5 * quiet["HBETA"].std(axis=1)).all()


def test_probability_is_uniform_and_nan_where_nothing_was_measured(predictor):
    flux, redshift, width, ivar = galaxies(2000, 5)
    ivar[:50] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BlaseWarning)  # some lie beyond the 600 of the training
        table = predictor.probability(flux, redshift, width * u.AA, ivar)
    for k, name in enumerate(LINES):
        known = np.isfinite(table[name])
        assert (known == np.isfinite(width[:, k]) & (ivar[:, k] > 0)).all()
        assert stats.kstest(table[name][known], "uniform").statistic < 0.15
    assert np.isnan(table["HGAMMA"]).mean() > 0.3


def test_what_is_not_covered_is_not_beyond(predictor, data):
    flux = data[0][:3].value.copy()
    flux[1, 4] = np.nan
    with pytest.warns(BlaseWarning, match="1 of 3 galaxies do not cover") as said:
        table = predictor.predict(flux * UNIT, data[1][:3])
    assert len(said) == 1 and not table["extrapolated"].any()
    assert np.isnan(table["HALPHA"]).tolist() == [False, True, False]


def test_inputs_beyond_single_precision(predictor, data):
    with pytest.warns(BlaseWarning, match="1 of 1 galaxies lie beyond"):
        table = predictor.predict(data[0][:1], 1e39)
    assert np.isfinite(table["HALPHA"].value).all()


def test_inputs_are_those_of_the_paper(data):
    flux, redshift = data[0][:7].value, data[1][:7]
    inputs, covered = line_predictor.network_inputs(flux * UNIT, redshift)
    distance = FlatLambdaCDM(70, 0.3).luminosity_distance(redshift).to_value("Mpc")
    np.testing.assert_allclose(inputs[:, :11], np.log10(flux[:, 1:] / flux[:, :-1]), rtol=1e-12)
    np.testing.assert_allclose(inputs[:, 11], np.log10(flux[:, 8] * (1 + redshift) * distance**2), atol=1e-8)
    np.testing.assert_array_equal(inputs[:, 12], redshift)
    assert covered.all()


def test_spectra_and_their_continua_give_the_same(predictor):
    wave = np.linspace(3500.0, 9500.0, 3000)
    flux = np.stack([2 + np.sin(wave / 900), 3 + np.cos(wave / 700)])
    per_length = Spectrum(flux=flux * UNIT, spectral_axis=wave * u.AA)
    per_frequency = Spectrum(flux=per_length.flux.to(u.Jy, u.spectral_density(wave * u.AA)), spectral_axis=wave * u.AA)
    redshift = np.array([0.1, 0.2])
    with pytest.warns(BlaseWarning, match="lie beyond"):
        tables = [predictor.predict(given, redshift) for given in
                  (top_hat_continuum(per_length, redshift), per_length, per_frequency,
                   top_hat_continuum(per_length, redshift).to("W / (m2 um)"))]  # fmt: skip
    for other in tables[1:]:
        for name in LINES:
            np.testing.assert_allclose(other[name].value, tables[0][name].value, rtol=1e-5)
    with pytest.warns(BlaseWarning, match="lie beyond"):
        one = predictor.predict(Spectrum(flux=flux[0] * UNIT, spectral_axis=wave * u.AA), 0.1)
    np.testing.assert_allclose(one["HALPHA"].value, tables[0]["HALPHA"].value[:1], rtol=1e-5)


def test_a_bin_that_is_missing_is_announced(predictor, data):
    flux, redshift = data[0][:4].copy(), data[1][:4]
    flux[2, 0] = np.nan
    with pytest.warns(BlaseWarning, match="1 of 4 galaxies do not cover all bins"):
        table = predictor.predict(flux, redshift)
    assert np.isnan(table["OII_DOUBLET"]).tolist() == [False, False, True, False]
    with pytest.warns(BlaseWarning, match="do not cover"):
        assert np.isnan(predictor.sample(flux, redshift, 2)["HBETA"][2]).all()


def test_extrapolation_is_flagged_and_held(predictor, data):
    flux = data[0][:3].copy()
    flux[1] *= np.geomspace(1, 1e4, 12)
    with pytest.warns(BlaseWarning, match="2 of 3 galaxies lie beyond .* the column extrapolated"):
        table = predictor.predict(flux, [0.1, 0.1, 5.0])
    assert table["extrapolated"].tolist() == [False, True, True]
    assert all(np.isfinite(table[name]).all() for name in LINES)


def test_redshift_zero():
    inputs, _ = line_predictor.network_inputs(np.ones((1, 12)) * UNIT, 0.0)
    assert np.isfinite(inputs).all()


FLUX = np.ones((3, 12)) * UNIT
PREDICT = {
    "no unit": (FLUX.value, 0.1, TypeError, "continuum must have a unit, got plain numbers"),
    "no density": (FLUX.value * u.Jy, 0.1, u.UnitsError, "continuum must be a flux density per wavelength, got Jy"),
    "counts": (FLUX.value * u.ct, 0.1, u.UnitsError, "continuum must be a flux density per wavelength, got ct"),
    "bins": (FLUX[:, :11], 0.1, ValueError, r"continuum must have the shape \(n, 12\), got \(3, 11\)"),
    "axes": (FLUX[None], 0.1, ValueError, r"continuum must have the shape \(n, 12\)"),
    "zero": (FLUX * np.eye(12)[:3], 0.1, ValueError, "continuum must be positive.* in 3 of 3 galaxies"),
    "negative": (FLUX * [[1], [-1], [1]], 0.1, ValueError, "continuum must be positive.* the first is number 1"),
    "infinite": (FLUX * np.inf, 0.1, ValueError, "continuum must be positive"),
    "redshift missing": (FLUX, None, TypeError, "redshift must be a number"),
    "redshift negative": (FLUX, -0.1, ValueError, "redshift must be finite and not negative, got -0.1"),
    "redshift NaN": (FLUX, [0.1, np.nan, 0.2], ValueError, "redshift must be finite and not negative, got nan"),
    "redshifts": (FLUX, [0.1, 0.2], ValueError, "redshift must have one value for each of 3 galaxies"),
    "kind": (None, 0.1, TypeError, "spectrum must be"),
}  # fmt: skip


@pytest.mark.parametrize(("continuum", "redshift", "error", "message"), PREDICT.values(), ids=PREDICT)
def test_bad_input_of_a_prediction(continuum, redshift, error, message):
    predictor = make_predictor()
    for method in (predictor.predict, predictor.sample):
        with pytest.raises(error, match=message):
            method(continuum, redshift)


@pytest.mark.filterwarnings("ignore::specutils_blase.errors.BlaseWarning")
def test_bad_numbers_of_lines():
    predictor, ones = make_predictor(), np.ones((3, 10))
    for n in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="n must be a whole number, 1 or more"):
            predictor.sample(FLUX, 0.1, n)
    with pytest.raises(ValueError, match="seed must be a whole number, 0 or more, got None"):
        predictor.sample(FLUX, 0.1, seed=None)
    with pytest.raises(ValueError, match=r"ivar must have the shape \(3, 10\), got \(3, 9\)"):
        predictor.sample(FLUX, 0.1, ivar=ones[:, :9])
    with pytest.raises(ValueError, match="equivalent_width must be finite, and NaN where a line was not measured"):
        predictor.probability(FLUX, 0.1, np.inf * ones, ones)
    with pytest.raises(ValueError, match="ivar must be finite and not negative, got inf"):
        predictor.sample(FLUX, 0.1, ivar=np.inf * ones)
    with pytest.raises(ValueError, match="ivar must be finite and not negative, got -1"):
        predictor.probability(FLUX, 0.1, ones, -ones)
    with pytest.raises(ValueError, match=r"equivalent_width must have the shape \(3, 10\)"):
        predictor.probability(FLUX, 0.1, ones[0], ones)
    with pytest.raises(u.UnitsError, match="equivalent_width must be numbers in Angstrom"):
        predictor.probability(FLUX, 0.1, ones * u.s, ones)
    with pytest.raises(u.UnitsError, match="ivar must be numbers in 1 / Angstrom2"):
        predictor.probability(FLUX, 0.1, ones, ones * u.AA)


@pytest.mark.filterwarnings("ignore::specutils_blase.errors.BlaseWarning")
def test_what_is_masked_was_not_measured(predictor, data):
    flux, redshift, width, ivar = (values[:40] for values in data)
    missing = ~np.isfinite(width)
    hidden = np.where(missing, 999.0, width)
    expected = predictor.probability(flux, redshift, width, ivar)
    kinds = [(np.ma.array(hidden, mask=missing), ivar), (Masked(hidden * u.AA, mask=missing), ivar),
             (hidden, np.ma.array(ivar, mask=missing)), (hidden, Masked(ivar / u.AA**2, mask=missing))]  # fmt: skip
    for one in kinds:
        table = predictor.probability(flux, redshift, *one)
        assert all(np.array_equal(table[name], expected[name], equal_nan=True) for name in LINES)
    gone = np.zeros((40, 12), dtype=bool)
    gone[7, 3] = True
    assert np.isnan(predictor.predict(Masked(flux, mask=gone), redshift)["HBETA"]).nonzero()[0].tolist() == [7]


def test_noise_factors_are_told(predictor, tmp_path):
    factors = predictor.fit_info["noise_factors"]
    assert list(factors) == list(LINES) and all(0.5 < factor < 1.5 for factor in factors.values())
    predictor.write(tmp_path / "p.asdf")
    said = describe_predictor(EmissionLinePredictor.read(tmp_path / "p.asdf"))  # files sort names
    assert ", ".join(f"{name} {factors[name]:.2f}" for name in LINES) in said


def test_bad_input_of_a_training(data):
    flux, redshift, width, ivar = data
    with pytest.raises(ValueError, match="seed must be a whole number, 0 or more, got 1.5"):
        train_line_predictor(flux, redshift, width, ivar, seed=1.5)
    with pytest.raises(ValueError, match="continuum must have at least 500 galaxies that cover all bins, got 499"):
        train_line_predictor(flux[:499], redshift[:499], width[:499], ivar[:499])
    few = width.copy()
    few[99:, 4] = np.nan
    with pytest.raises(ValueError, match="at least 100 measurements of each line, got 99 of OIII_5007"):
        train_line_predictor(flux, redshift, few, ivar)
    few[:, 4] = width[:, 4]
    few[3, 2] = -1.0
    with pytest.raises(ValueError, match="equivalent_width must be positive where it was measured, got 1 that are not"):
        train_line_predictor(flux, redshift, few, ivar)
    with pytest.raises(ValueError, match=r"ivar must have the shape \(600, 10\), got \(599, 10\)"):
        train_line_predictor(flux, redshift, width, ivar[1:])
    with pytest.raises(TypeError, match="redshift must be a number"):
        train_line_predictor(flux, None, width, ivar)


def test_same_seed_same_predictor(data, monkeypatch, tmp_path):
    monkeypatch.setattr(line_training, "EPOCHS", 1)
    monkeypatch.setattr(line_training, "CORRECTION_STEPS", 1)
    said = []
    first, again, other = (train_line_predictor(*data, seed=s, progress=said.append) for s in (1, 1, 2))
    assert said and "training: 100 %" in str(said)
    first.write(tmp_path / "p.asdf")
    tables = [p.predict(*data[:2]) for p in (first, again, EmissionLinePredictor.read(tmp_path / "p.asdf"), other)]
    for name in LINES:
        assert (tables[0][name] == tables[1][name]).all() and (tables[0][name] == tables[2][name]).all()
        assert (tables[0][name] != tables[3][name]).any()
