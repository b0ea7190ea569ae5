"""simulate_galaxies against brute force, its own table, and real spectra."""

import numpy as np
import pytest
from astropy import constants
from astropy import units as u
from astropy.nddata import InverseVariance
from scipy.interpolate import CubicSpline
from scipy.special import erf
from scipy.stats import spearmanr
from specutils import Spectrum, SpectrumList

from specutils_blase import BandedLSF, conf
from specutils_blase.galaxy import simulate_galaxies
from specutils_blase.galaxy.cameras import sdss_pixels, survey_cameras
from specutils_blase.galaxy.nebula import NAMES, WAVE
from specutils_blase.galaxy.stars import draw_histories, extinction, read_populations

C = constants.c.to_value("km/s")
UNIT = u.Unit("1e-17 erg / (s cm2 AA)")
AGES, METALS = np.array([0.06, 0.12, 0.5, 2.0, 8.0, 13.0]), np.array([-0.7, 0.0, 0.2])


def write_populations(path, **changes):
    """Populations that are made of hot and cool black bodies with a few lines of absorption."""
    wave = np.arange(3000.0, 10500.0, 0.9)
    metal, age = (values.ravel() for values in np.meshgrid(METALS, AGES, indexing="ij"))
    kelvin = 5000.0 * age[:, None] ** -0.15 * 10 ** (-0.05 * metal[:, None])
    flux = 1e12 * wave**-4.0 / np.expm1(1.43878e8 / wave / kelvin) * 1e3 * age[:, None] ** -0.7 / kelvin**4
    flux *= 1.0 - 0.4 * sum(np.exp(-0.5 * ((wave - line) / 3.0) ** 2) for line in (3969.0, 5177.0, 5895.0, 8544.0))
    arrays = {"wave_vac_AA": wave, "flux": flux, "mh": metal, "age_gyr": age} | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


@pytest.fixture(scope="module")
def populations(tmp_path_factory):
    return write_populations(tmp_path_factory.mktemp("populations") / "black_bodies.npz")


@pytest.fixture(scope="module")
def emiles(shared_data):
    return shared_data / "galaxy" / "emiles_padova_chabrier_ssp_350.npz"


@pytest.fixture(scope="module")
def galaxies(emiles):
    return simulate_galaxies(300, 1, populations=emiles)


@pytest.fixture(scope="module")
def desi(emiles):
    return simulate_galaxies(60, 1, "desi", populations=emiles)


def test_layout_of_sdss(galaxies):
    spectra, wave = galaxies.spectra, galaxies.spectra.spectral_axis.to_value("AA")
    assert type(spectra) is Spectrum and spectra.shape == galaxies.truth.shape == (300, wave.size)
    assert spectra.flux.unit == UNIT and isinstance(spectra.uncertainty, InverseVariance)
    assert abs(wave[0] - 3800) < 1 and abs(wave[-1] - 9200) < 1
    np.testing.assert_allclose(np.diff(np.log10(wave)), 1e-4, rtol=1e-8)
    assert np.isfinite(spectra.flux.value).all() and (spectra.uncertainty.array[spectra.mask] == 0).all()
    assert (spectra.uncertainty.array[~spectra.mask] > 0).all()


def test_layout_of_desi_is_that_of_the_loader(desi, shared_data):
    path = shared_data / "galaxy" / "desi_fastspecfit_coadd-4-80613.fits"
    real = SpectrumList.read(path, format="DESI coadd")
    assert type(desi.spectra) is SpectrumList
    for ours, theirs, lsf in zip(desi.spectra, real, desi.lsf, strict=True):
        assert ours.meta["band"] == theirs.meta["band"] and ours.flux.unit == theirs.flux.unit
        assert ours.shape[1:] == theirs.shape[1:] and type(ours.uncertainty) is type(theirs.uncertainty)
        np.testing.assert_allclose(ours.spectral_axis.value, theirs.spectral_axis.value, rtol=1e-12)
        bands, measured = ours.meta["resolution_data"], theirs.meta["resolution_data"]
        assert bands.shape == (60, *measured.shape[1:])
        np.testing.assert_allclose(BandedLSF.from_desi(bands[7]).bands, lsf.bands, atol=1e-7)
        assert np.abs(bands[0, :, 20:-20] - measured[0, :, 20:-20]).mean() < 0.015  # of 0.44 in the middle


def test_noise_is_that_of_the_inverse_variance(galaxies, desi):
    pairs = [(galaxies.spectra, galaxies.truth), *zip(desi.spectra, desi.truth, strict=True)]
    for spectra, truth in pairs:
        pull = (spectra.flux.value - truth.flux.value) * np.sqrt(spectra.uncertainty.array)
        pull = pull[~spectra.mask]
        assert abs(np.mean(pull**2) - 1.0) < 0.01 and abs(pull.mean()) < 0.01
        assert abs(np.mean(pull**4) - 3.0) < 0.1  # a Gaussian's


def test_signal_to_noise_ratio_is_that_of_the_table(galaxies, desi):
    def ratio(spectra, truth):
        good = ~spectra.mask
        return np.where(good, truth.flux.value * np.sqrt(spectra.uncertainty.array), np.nan)

    sdss = np.nanmedian(ratio(galaxies.spectra, galaxies.truth), axis=1)
    np.testing.assert_allclose(sdss, galaxies.table["snr"], rtol=0.08)  # with the pixels of stretches masked
    assert abs(np.median(sdss / galaxies.table["snr"]) - 1) < 1e-3
    all_cameras = np.concatenate([ratio(*pair) for pair in zip(desi.spectra, desi.truth, strict=True)], axis=1)
    np.testing.assert_allclose(np.nanmedian(all_cameras, axis=1), desi.table["snr"], rtol=0.08)
    assert 5 <= galaxies.table["snr"].min() < 7 and 25 < galaxies.table["snr"].max() <= 30


def test_pixels_are_masked_where_the_populations_end(galaxies, emiles):
    wave, redshift = galaxies.spectra.spectral_axis.value, galaxies.table["redshift"][:, None]
    outside = np.isnan(galaxies.truth.flux.value)
    first = np.load(emiles)["wave_vac_AA"][0] * np.exp(2400 / C)
    np.testing.assert_array_equal(outside, wave * 10**-0.5e-4 / (1 + redshift) <= first)
    assert galaxies.spectra.mask[outside].all() and galaxies.truth.mask[outside].all()
    bad = galaxies.spectra.mask & ~outside
    assert 0.002 < bad.mean() < 0.02
    # about half of the others hold nonsense
    far = np.abs(galaxies.spectra.flux.value - galaxies.truth.flux.value)[bad]
    assert 0.2 < np.mean(far > 0.7 * np.nanmedian(galaxies.truth.flux.value)) < 0.6


@pytest.mark.parametrize("instrument", ["sdss", "desi"])
def test_galaxy_is_the_same_whatever_surrounds_it(populations, instrument):
    alone = simulate_galaxies(1, 7, populations=populations, redshift=[0.1], snr=[10.0])
    among = simulate_galaxies(230, 7, instrument, populations=populations)
    physical = [name for name in alone.table.colnames if name not in ("redshift", "snr")]
    assert len(physical) > 30
    for name in physical:
        np.testing.assert_allclose(u.Quantity(alone.table[name])[0].value, u.Quantity(among.table[name])[0].value)
    again = simulate_galaxies(230, 7, instrument, populations=populations)
    first, second = (g.spectra[-1] if instrument == "desi" else g.spectra for g in (among, again))
    np.testing.assert_array_equal(first.flux.value, second.flux.value)
    other = simulate_galaxies(1, 8, populations=populations)
    assert other.table["HALPHA"][0] != alone.table["HALPHA"][0]
    if instrument == "sdss":
        fewer = simulate_galaxies(3, 7, populations=populations, redshift=among.table["redshift"][:3],
                                  snr=among.table["snr"][:3])  # fmt: skip
        np.testing.assert_allclose(fewer.spectra.flux.value, among.spectra.flux.value[:3], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(fewer.spectra.mask, among.spectra.mask[:3])


def test_energy_is_conserved_from_redshift_to_redshift(emiles):
    redshift = np.array([0.1, 0.3, 0.45])
    shapes = [simulate_galaxies(1, 4, populations=emiles, redshift=[z]).truth for z in redshift]
    energy = []
    for z, truth in zip(redshift, shapes, strict=True):
        rest = truth.spectral_axis.value / (1 + z)
        width = np.gradient(truth.spectral_axis.value)
        flux = np.where((rest > 3600) & (rest < 6150), truth.flux.value[0], 0.0)
        energy.append((flux * width).sum())
    np.testing.assert_allclose(energy, energy[0], rtol=1e-3)


@pytest.mark.parametrize("redshift", [0.031, 0.25])
def test_starlight_seen_by_sdss_against_brute_force(emiles, redshift):
    file = np.load(emiles)
    wave, flux = file["wave_vac_AA"], file["flux"][(file["mh"] == 0) & (np.abs(file["age_gyr"] - 3.9811) < 1e-3)][0]
    curve = CubicSpline(wave, flux)
    library = read_populations(emiles)
    weights = np.zeros((1, library.flux.shape[0] * library.flux.shape[1]))
    metal, age = np.argmin(np.abs(library.metallicity)), np.argmin(np.abs(library.age - 3.9811))
    weights[0, metal * len(library.age) + age] = 1.0
    a_v, dispersion = 0.7, 150.0
    light = library.starlight(weights, np.array([a_v]), extinction(library.wave))
    power = np.linspace(1700.0, 2500.0, sdss_pixels().size)
    (camera,) = survey_cameras("sdss", power)
    seen = library.seen(light, np.array([dispersion]), np.array([redshift]), *camera.grid)
    ours = camera.observe(seen, *np.zeros((3, 1, 0)))[0]
    for pixel in (900, 1700, 2600, 3500):
        centre = sdss_pixels()[pixel]
        lower, upper = centre * 10**-0.5e-4, centre * 10**0.5e-4
        # light of rest wavelength w, blurred by its speed and by the spectrograph, falls into the pixel
        w = np.linspace(centre - 60, centre + 60, 120_001) / (1 + redshift)
        dimmed = curve(w) * 10 ** (-0.4 * a_v * extinction(w))
        sigma = np.hypot(w * (1 + redshift) * dispersion / C, centre / power[pixel] / 2.354820045)
        share = 0.5 * (erf((upper - w * (1 + redshift)) / sigma / 2**0.5)
                       - erf((lower - w * (1 + redshift)) / sigma / 2**0.5))  # fmt: skip
        expected = np.trapezoid(share * dimmed, w * (1 + redshift)) / (upper - lower)
        assert abs(ours[pixel] / expected - 1) < 5e-4


@pytest.mark.parametrize("instrument", ["sdss", "desi"])
def test_widths_measured_on_the_spectra_are_those_of_the_table(emiles, instrument):
    n, redshift = 12, 0.15
    ours = simulate_galaxies(n, 2, instrument, populations=emiles, redshift=(redshift, redshift))
    parts = [ours.truth] if instrument == "sdss" else ours.truth
    table, found = ours.table, 0
    for name in ("HBETA", "OIII_5007", "OII_DOUBLET", "SIII_9069"):
        centre = WAVE[NAMES.index(name)] * (1 + redshift)
        for part in parts:
            wave = part.spectral_axis.value
            if not wave[0] + 100 < centre < wave[-1] - 100:
                continue
            speed = C * np.abs(wave / centre - 1)
            for k in np.flatnonzero(table["gas_dispersion"] < 120 * u.km / u.s):
                width, flux = table[name][k].to_value("AA"), part.flux.value[k]
                if width < 8:
                    continue
                beside = (speed > 1500) & (speed < 4000)
                beside &= (np.abs(wave / (1 + redshift) - 4960.3) > 25) & (np.abs(wave / (1 + redshift) - 5008.2) > 25)
                level = np.median(flux[beside])
                line = speed < 1100
                measured = ((flux - level) * np.gradient(wave))[line].sum() / level / (1 + redshift)
                # stars have absorption there, of some Angstrom
                assert abs(measured - width) < 0.06 * width + (7.0 if name in ("HBETA", "OII_DOUBLET") else 1.5)
                found += 1
    assert found > 4


def test_flux_of_lines_is_conserved_by_both_surveys():
    line = [np.array([[6000.0, 7000.3]]), np.array([[2.0, 3.5]]), np.array([[10.0, 20.0]])]
    (sdss,), desi = survey_cameras("sdss", np.full(3841, 2000.0)), survey_cameras("desi")
    for camera in (sdss, desi[1]):
        flux = camera.observe(np.zeros((1, camera.grid[1])), *line)[0]
        edges = camera.instrument.edges.numpy()
        area = flux * (edges[:, 1] - edges[:, 0])
        near = np.abs(camera.wave - 6000.0) < 40
        assert abs(area[near].sum() - 10.0) < 1e-3 and abs(area.sum() - 30.0) < 2e-3
        mean = (area * camera.wave)[near].sum() / area[near].sum()
        variance = (area * (camera.wave - mean) ** 2)[near].sum() / area[near].sum()
        blur = 6000 / 2000 / 2.354820045 if camera is sdss else np.interp(6000, (5760, 7620), (0.632, 0.648))
        pixel = (6000 * 1e-4 * np.log(10) if camera is sdss else 0.8) ** 2 / 12
        assert abs(mean - 6000.0) < 0.01
        np.testing.assert_allclose(variance, 4.0 + blur**2 + pixel, rtol=2e-3)


def test_history_against_numerical_integration(populations):
    library, history = read_populations(populations), draw_histories(5, 20)
    weights = library.weights(history).reshape(20, len(METALS), len(AGES))
    np.testing.assert_allclose(weights.sum(axis=(1, 2)), 1.0, rtol=1e-10)
    edges = np.concatenate([[0.0], np.sqrt(AGES[1:] * AGES[:-1]), [20.0]])
    age = np.linspace(0.0, 14.0, 1_400_001)
    for k in range(20):
        since = np.clip(history["onset"][k] - age, 0.0, None)
        rate = since * np.exp(-since / history["tau"][k])
        rate *= np.where(age < history["burst_age"][k], history["burst_factor"][k], 1.0)
        expected = np.histogram(age, edges, weights=rate)[0] / rate.sum()
        np.testing.assert_allclose(weights[k].sum(axis=0), expected, atol=2e-5)
        mean = weights[k].sum(axis=1) @ library.metallicity
        assert abs(mean - np.clip(history["metallicity"][k], -0.7, 0.2)) < 1e-10


def test_populations_that_end_early_are_continued(emiles):
    library = read_populations(emiles)
    assert (library.flux > 0).all()
    # young ones end at 8960 Angstrom, smoothed; no step larger than those of the complete ones, per 20 km/s
    there = np.diff(np.log(library.flux[..., (library.wave > 8880) & (library.wave < 8970)]), axis=-1)
    assert np.abs(there[:, :17]).max() < 1.05 * np.abs(there[:, 17:]).max()


def test_widths_are_distributed_as_those_of_real_galaxies(emiles, shared_data):
    real = np.load(shared_data / "desi_lines" / "desi_bgs_continuum_and_ew.npz")
    table = simulate_galaxies(1500, 3, populations=emiles, redshift=(0.06, 0.3)).table
    names = [str(name) for name in real["lines"]]
    ours = np.stack([table[name].to_value("AA") for name in names], axis=1)
    # what is measured has the errors of the real ones, and only positive widths are given
    pick = np.random.default_rng(0).integers(0, len(real["ew"]), len(ours))
    sigma = np.where(real["ew_ivar"][pick] > 0, 1 / np.sqrt(np.maximum(real["ew_ivar"][pick], 1e-3)), 0.0)
    ours = ours + sigma * np.random.default_rng(1).standard_normal(ours.shape)
    ours, theirs = (np.where(ew > 0.02, ew, np.nan) for ew in (ours, real["ew"]))
    ratio = np.nanmedian(ours, axis=0) / np.nanmedian(theirs, axis=0)
    assert (ratio > 1 / 1.6).all() and (ratio < 1.6).all(), dict(zip(names, ratio.round(2), strict=True))
    difference = spearmanr(ours, nan_policy="omit").statistic - spearmanr(theirs, nan_policy="omit").statistic
    doublets = np.isin(names, ["OIII_4959", "NII_6548"])  # given in a fixed ratio to their partners there
    assert np.abs(difference[~doublets][:, ~doublets]).max() < 0.25


def test_ratios_of_lines_that_atoms_fix(galaxies):
    table = galaxies.table
    # of widths, whose continua differ by some per cent over 50 Angstrom
    assert abs(np.median(table["OIII_5007"] / table["OIII_4959"]) - 2.98) < 0.1
    assert abs(np.median(table["NII_6584"] / table["NII_6548"]) - 2.96) < 0.1
    assert (table["HALPHA"] > table["HBETA"] * 1.5).all()


def test_path_comes_from_the_settings(populations):
    with conf.set_temp("populations", str(populations)):
        assert len(simulate_galaxies(2).table) == 2
    with pytest.raises(ValueError, match="conf.populations"):
        simulate_galaxies(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be a whole number"),
        ({"n": 2.0}, "n must be a whole number"),
        ({"n": True}, "n must be a whole number"),
        ({"seed": -1}, "seed must be"),
        ({"instrument": "boss"}, "instrument must be"),
        ({"redshift": (-0.1, 0.2)}, "redshift must be finite and not negative"),
        ({"redshift": [0.1, np.nan]}, "redshift must be finite and not negative"),
        ({"redshift": (0.3, 0.1)}, "redshift must have the lower end first"),
        ({"redshift": (0.0, 2.0)}, "redshift must leave the middle"),
        ({"redshift": [0.1, 0.2, 0.3]}, "redshift must be a tuple"),
        ({"redshift": 0.1}, "redshift must be a tuple"),
        ({"redshift": "far"}, "redshift must be a tuple"),
        ({"snr": (0.0, 5.0)}, "snr must be finite and positive"),
        ({"snr": [5.0, -1.0]}, "snr must be finite and positive"),
    ],
)
def test_bad_argument_is_named(populations, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        simulate_galaxies(**{"n": 2, "populations": populations} | arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mh": None}, "no mh"),
        ({"mh": METALS}, "the shapes"),
        ({"age_gyr": np.repeat(1.0, 18)}, "every age once"),
        ({"wave_vac_AA": np.arange(4000.0, 11500.0, 0.9)}, "reach from"),
        ({"flux": np.full((18, 8334), np.nan)}, "finite"),
        ({"flux": np.zeros((18, 8334))}, "positive"),
    ],
)
def test_bad_file_is_described(tmp_path, changes, message):
    path = write_populations(tmp_path / "populations.npz", **changes)
    with pytest.raises(ValueError, match=message):
        simulate_galaxies(2, populations=path)


def test_file_that_is_missing_or_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="conf.populations"):
        simulate_galaxies(2, populations=tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("wavelength flux")
    with pytest.raises(ValueError, match="be an npz file"):
        simulate_galaxies(2, populations=tmp_path / "text.npz")
