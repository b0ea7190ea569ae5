"""Wavelengths from sky lines, and the subtraction of a sky fibre, on simulated orders and on a real blank sky."""

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import StdDevUncertainty
from astropy.table import QTable
from scipy.integrate import quad
from scipy.special import erf
from scipy.stats import norm
from specutils import Spectrum, SpectrumCollection, SpectrumList

from specutils_blase import BlaseWarning, GaussianLSF, MeasuredLSF, ResolvingPower, fit_airglow, subtract_sky
from specutils_blase.io import read_airglow, read_hpf
from specutils_blase.solvers.emission import EmissionLines

C = 299792.458
POWER = 55_000.0
PIXELS = 900
EDGES = 10000.0 * np.exp(np.linspace(0.0, 0.006, PIXELS + 1))
WAVE = 0.5 * (EDGES[1:] + EDGES[:-1])
CENTER = np.array([10004.1, 10010.32, 10010.40, 10017.7, 10023.05, 10030.9, 10038.2, 10044.44, 10051.3, 10056.6])
INTENSITY = np.array([3.0, 5.0, 5.0, 1.0, 8.0, 2.0, 20.0, 4.0, 6.0, 3.0])
LIST = QTable({"line_center": CENTER * u.AA, "intensity": INTENSITY})
SIGMA = 0.02


def seen(offset=0.0, slope=0.0, power=POWER, center=CENTER, intensity=INTENSITY, edges=EDGES, factor=1.0):
    """Mean fluxes of the pixels: the wavelengths of the file lack `offset + slope x`."""
    x = 2.0 * (center - WAVE[0]) / (WAVE[-1] - WAVE[0]) - 1.0
    place = center / (1.0 + (offset + slope * x) / C)
    scale = np.sqrt(4.0 * np.log(2.0)) * power / place
    area = erf((edges[1:, None] - place) * scale) - erf((edges[:-1, None] - place) * scale)
    rate = 0.05 * factor * intensity * (0.5 * area / np.diff(edges)[:, None])
    return 0.1 + 0.05 * np.linspace(-1.0, 1.0, len(edges) - 1) ** 2 + rate.sum(axis=1)


def spectrum(flux, seed=None, wave=WAVE, sigma=SIGMA, **options):
    noise = 0.0 if seed is None else sigma * np.random.default_rng(seed).normal(size=len(flux))
    return Spectrum(flux=(flux + noise) * u.electron, spectral_axis=wave * u.AA,
                    uncertainty=StdDevUncertainty(np.broadcast_to(sigma, len(flux)).copy()), **options)  # fmt: skip


class TestProfiles:
    def test_pixel_means_are_those_of_quadrature(self):
        lines = EmissionLines(np.stack([EDGES[:-1], EDGES[1:]], axis=1), CENTER[:2], np.array([0, 1]), np.ones(2),
                              np.ones((PIXELS, 1)), 1, np.full(2, np.nan))  # fmt: skip
        theta = np.array([0.7, -0.3, np.log(POWER)])
        profile = lines.profiles(theta)
        middle = np.argmax(profile[:, 1])
        place = CENTER[1] * (1.0 + lines.velocity(theta, CENTER[1]) / C)
        sigma = place / (np.sqrt(8.0 * np.log(2.0)) * POWER)
        for pixel in range(middle - 4, middle + 5):
            low, high = EDGES[pixel], EDGES[pixel + 1]
            area = quad(lambda w: np.exp(-0.5 * ((w - place) / sigma) ** 2), low, high, epsabs=1e-14)[0]
            expected = area / (np.sqrt(2.0 * np.pi) * sigma * (high - low))
            assert profile[pixel, 1] == pytest.approx(expected, rel=1e-9, abs=1e-12)
        np.testing.assert_allclose((profile * np.diff(EDGES)[:, None]).sum(axis=0), 1.0, rtol=1e-9)


class TestFit:
    def test_noiseless_truth(self):
        fit = fit_airglow(spectrum(seen(0.8, -0.5)), LIST, lsf=ResolvingPower(50_000, free=True))
        row = fit.orders[0]
        # the velocity is linear in the wavelength of the list for us, and in that of the pixels for the test
        assert row["offset"].value == pytest.approx(0.8, abs=1e-4)
        assert row["slope"].value == pytest.approx(-0.5, abs=1e-3)
        assert row["resolving_power"] == pytest.approx(POWER, rel=1e-4)
        assert row["n_seen"] == 9 and len(fit.lines) == 9  # the pair is one
        flux = 0.05 * np.array([3.0, 10.0, 1.0, 8.0, 2.0, 20.0, 4.0, 6.0, 3.0])
        np.testing.assert_allclose(fit.lines["flux"].value, flux, rtol=1e-3)
        assert fit.lines["flux"].unit == u.electron * u.AA
        x = 2.0 * (fit.lines["line_center"].value - WAVE[0]) / (WAVE[-1] - WAVE[0]) - 1.0
        np.testing.assert_allclose(fit.lines["velocity"].value, -(0.8 - 0.5 * x), atol=2e-3)
        assert np.nanmax(np.abs(fit.residual.flux.value)) < 1e-3

    def test_errors_are_calibrated(self):
        names, pulls, own = ("offset", "slope", "resolving_power"), [], []
        truth = {"offset": -1.1, "slope": 0.4, "resolving_power": POWER}
        for seed in range(60):
            fit = fit_airglow(spectrum(seen(-1.1, 0.4), seed), LIST, lsf=ResolvingPower(POWER, free=True))
            row = fit.orders[0]
            found, error = ([u.Quantity(row[name + end]).value for name in names] for end in ("", "_err"))
            pulls.append((np.array(found) - list(truth.values())) / error)
            x = 2.0 * (fit.lines["line_center"].value - WAVE[0]) / (WAVE[-1] - WAVE[0]) - 1.0
            own.append((fit.lines["velocity"].value + (-1.1 + 0.4 * x)) / fit.lines["velocity_err"].value)
        pulls, own = np.array(pulls), np.array(own)
        assert np.all(np.abs(pulls.mean(axis=0)) < 4.0 / np.sqrt(60))
        assert np.all(np.abs(pulls.std(axis=0) - 1.0) < 4.0 / np.sqrt(120))
        # every line alone too
        assert abs(own.std() - 1.0) < 4.0 / np.sqrt(2 * own.size)
        assert abs(own.mean()) < 4.0 / np.sqrt(own.size)

    def test_lines_that_are_not_listed_and_rays_do_not_pull(self):
        flux = seen(0.3, 0.0)
        flux += seen(0.0, 0.0, center=np.array([10035.5, 10030.7]), intensity=np.array([10.0, 1.0])) - seen(
            center=np.array([10035.5]), intensity=np.zeros(1))  # fmt: skip
        flux[[100, 400, 523]] += 5.0
        row = fit_airglow(spectrum(flux, 3), LIST, lsf=POWER).orders[0]
        assert abs(row["offset"].value - 0.3) < 4.0 * row["offset_err"].value
        assert row["offset_err"].value < 0.1

    @pytest.mark.parametrize("seed", range(3))
    def test_lines_at_a_wrong_place_do_not_pull(self, seed):
        moved = CENTER.copy()
        moved[[4, 8]] += [0.06, -0.09]  # 1.8 and 2.7 km/s
        row = fit_airglow(spectrum(seen(0.3, center=moved), seed), LIST, lsf=POWER).orders[0]
        assert abs(row["offset"].value - 0.3) < 4.0 * row["offset_err"].value and row["offset_err"].value < 0.1
        assert abs(row["slope"].value) < 4.0 * row["slope_err"].value

    def test_a_line_that_is_off_by_little_is_told_and_has_no_part(self):
        moved = CENTER.copy()
        moved[4] *= 1.0 + 0.25 / C
        fit = fit_airglow(spectrum(seen(0.3, center=moved)), LIST, lsf=POWER)
        assert np.flatnonzero(fit.lines["apart"]).tolist() == [3]
        assert fit.lines["velocity"][3].value == pytest.approx(-0.05, abs=0.02)
        assert fit.orders["offset"][0].value == pytest.approx(0.3, abs=0.002)

    def test_orders_of_every_kind(self):
        orders = SpectrumList([spectrum(seen(0.5), 1), spectrum(seen(-0.2), 2)])
        fit = fit_airglow(orders, LIST)
        assert isinstance(fit.residual, SpectrumList) and isinstance(fit.model_spectrum, SpectrumList)
        np.testing.assert_allclose(fit.orders["offset"].value, [0.5, -0.2], atol=0.15)
        assert fit.lines["order"].tolist() == [0] * 9 + [1] * 9
        together = SpectrumCollection(flux=np.stack([s.flux.value for s in orders]) * u.electron,
                                      spectral_axis=np.stack([WAVE, WAVE]) * u.AA,
                                      uncertainty=StdDevUncertainty(np.full((2, PIXELS), SIGMA)))  # fmt: skip
        again = fit_airglow(together, LIST)
        assert isinstance(again.residual, SpectrumCollection)
        np.testing.assert_allclose(again.orders["offset"].value, fit.orders["offset"].value)
        assert "2 of 2 orders" in repr(fit)
        axes = fit.plot()
        assert len(axes.lines) >= 2

    def test_directions_units_masks_and_air(self):
        plain = fit_airglow(spectrum(seen(0.5), 1), LIST).orders[0]["offset"].value
        flux, mask = seen(0.5) + SIGMA * np.random.default_rng(1).normal(size=PIXELS), np.zeros(PIXELS, dtype=bool)
        mask[600:603], flux[601] = True, np.nan
        backward = Spectrum(flux=flux[::-1] * u.electron, spectral_axis=(WAVE * u.AA).to(u.um)[::-1], mask=mask[::-1],
                            uncertainty=StdDevUncertainty(np.full(PIXELS, SIGMA)))  # fmt: skip
        with pytest.warns(BlaseWarning, match="ignored"):
            masked = fit_airglow(backward, LIST).orders[0]["offset"].value
        assert masked == pytest.approx(plain, abs=0.03)

    def test_without_uncertainties_the_scatter_is_the_noise(self):
        offsets, errors = [], []
        for seed in range(20):
            flux = seen(0.5) + SIGMA * np.random.default_rng(seed).normal(size=PIXELS)
            row = fit_airglow(Spectrum(flux=flux * u.electron, spectral_axis=WAVE * u.AA), LIST).orders[0]
            offsets.append(row["offset"].value)
            errors.append(row["offset_err"].value)
        assert np.std(offsets) == pytest.approx(np.mean(errors), rel=4.0 / np.sqrt(40))

    def test_too_few_lines(self):
        two = LIST[[0, 4]]
        with pytest.warns(BlaseWarning, match=r"1 of 1 orders have fewer than 3 lines that are seen.*\(numbers 0\)"):
            row = fit_airglow(spectrum(seen(), 1), two).orders[0]
        assert np.isnan(row["offset"]) and row["n_seen"] == 2
        assert row["lower"].value == pytest.approx(EDGES[0], abs=1e-3)
        five = LIST[[0, 4, 5, 6, 8]]
        flux = seen(0.4, center=CENTER[[0, 4, 5, 6, 8]], intensity=INTENSITY[[0, 4, 5, 6, 8]])
        row = fit_airglow(spectrum(flux), five).orders[0]
        assert row["slope"] == 0 and row["offset"].value == pytest.approx(0.4, abs=1e-3)

    def test_lsf_of_one_width(self):
        width = 10030.0 / POWER
        row = fit_airglow(spectrum(seen(0.4)), LIST, lsf=GaussianLSF(fwhm=width * u.AA)).orders[0]
        assert row["offset"].value == pytest.approx(0.4, abs=1e-3)

    @pytest.mark.parametrize(
        ("options", "error", "match"),
        [
            ({"lines": LIST["line_center"]}, TypeError, "lines must be a Table"),
            ({"lines": QTable({"wave": CENTER})}, TypeError, "lines must be a Table with a column line_center"),
            ({"lines": QTable({"line_center": CENTER})}, u.UnitsError, 'lines\\["line_center"\\] must have a unit'),
            ({"lines": QTable({"line_center": CENTER * u.AA, "intensity": -INTENSITY})}, ValueError,
             'lines\\["intensity"\\] must be finite and positive'),
            ({"lines": QTable({"line_center": 2.0 * CENTER * u.AA})}, ValueError, "lines must have lines within the"),
            ({"wavelength_degree": 2}, ValueError, "wavelength_degree must be 0 or 1, got 2"),
            ({"continuum_degree": -1}, ValueError, "continuum_degree must be a whole number, 0 or more, got -1"),
            ({"lsf": None}, TypeError, "lsf must be a resolving power or a width"),
            ({"lsf": MeasuredLSF([-9, 0, 9] * u.km / u.s, [0, 1, 0])}, TypeError,
             "lsf must be a resolving power or a width, got MeasuredLSF"),
            ({"lsf": ResolvingPower(50_000, h3=0.1)}, ValueError, "lsf must be Gaussian for lines of the sky"),
            ({"lsf": ResolvingPower(50_000, free_shape=True)}, ValueError, "lsf must be Gaussian for lines of the sky"),
            ({"observed": 3}, TypeError, "observed must be a Spectrum"),
        ],
    )
    def test_bad_input(self, options, error, match):
        with pytest.raises(error, match=match):
            fit_airglow(**{"observed": spectrum(seen(), 1), "lines": LIST} | options)


class TestSubtraction:
    OTHER = EDGES * (1.0 + 2.3 / C)  # the pixels of the sky fibre lie elsewhere

    def pair(self, seed, scale=0.8):
        rng = np.random.default_rng(seed)
        lines = np.exp(-0.5 * ((WAVE[:, None] - rng.uniform(10001, 10059, 12)) / 0.1) ** 2)
        star = 3.0 * (1.0 - 0.3 * lines.sum(axis=1))
        sky = spectrum(seen(edges=self.OTHER), seed + 1000, wave=0.5 * (self.OTHER[1:] + self.OTHER[:-1]))
        return star, spectrum(star + scale * seen(), seed), sky

    def test_scale_and_noise(self):
        pulls, left = [], []
        for seed in range(30):
            star, both, sky = self.pair(seed)
            out = subtract_sky(both, sky)
            pulls.append((out.meta["sky_scale"] - 0.8) / out.meta["sky_scale_err"])
            exact = subtract_sky(both, sky, scale=0.8)
            assert exact.meta["sky_scale"] == 0.8 and "sky_scale_err" not in exact.meta
            good = np.isfinite(exact.flux.value)
            # away from lines, which are broadened by the pixels of the sky
            off = np.abs(WAVE[:, None] - CENTER).min(axis=1) > 0.5
            left.append(((exact.flux.value - star) / exact.uncertainty.array)[good & off])
        assert abs(np.mean(pulls)) < 4.0 / np.sqrt(30)
        assert abs(np.std(pulls) - 1.0) < 4.0 / np.sqrt(60)
        assert np.std(np.concatenate(left)) == pytest.approx(1.0, abs=0.05)

    @pytest.mark.parametrize(("sky_flux", "object_flux"), [(800, 2000), (200, 300), (100, 100), (3000, 2000)])
    def test_scale_with_photon_noise(self, sky_flux, object_flux):
        """Neither noise of the sky nor that of a bright object draws the scale towards zero."""
        rng, found = np.random.default_rng(sky_flux), []
        factor = np.median(np.diff(EDGES)) / 0.05  # from means of pixels to electrons of a line
        for _ in range(40):
            center, own = np.sort(rng.uniform(10003.0, 10057.0, 12)), rng.uniform(10002.0, 10058.0)
            intensity = sky_flux * np.exp(rng.permutation(norm.ppf((np.arange(12) + 0.5) / 12)))
            sky = 5.0 + seen(center=center, intensity=intensity, factor=factor)
            star = object_flux * (1.0 - 0.3 * np.exp(-0.5 * ((WAVE - own) / 0.15) ** 2))
            pair = []
            for flux in (star + 0.85 * sky, sky):
                sigma = np.sqrt(flux + 9.0)
                pair.append(spectrum(flux + sigma * rng.standard_normal(PIXELS), sigma=sigma))
            meta = subtract_sky(*pair).meta
            found.append([meta["sky_scale"] - 0.85, meta["sky_scale_err"]])
        error, sigma = np.transpose(found)
        assert abs(np.mean(error)) < 3.0 * np.std(error) / np.sqrt(40)
        assert abs(np.std(error / sigma) - 1.0) < 4.0 / np.sqrt(80)

    def test_overlap_is_exact(self):
        flux = np.random.default_rng(3).uniform(1.0, 2.0, PIXELS)
        sky = spectrum(flux, wave=0.5 * (self.OTHER[1:] + self.OTHER[:-1]))
        out = subtract_sky(spectrum(np.zeros(PIXELS)), sky, scale=1.0)
        edges = np.concatenate([[1.5 * WAVE[0] - 0.5 * WAVE[1]], 0.5 * (WAVE[1:] + WAVE[:-1])])
        theirs = sky.spectral_axis.value
        their_edges = np.concatenate([[1.5 * theirs[0] - 0.5 * theirs[1]], 0.5 * (theirs[1:] + theirs[:-1])])
        for pixel in (10, 333, 800):
            fine = np.linspace(edges[pixel], edges[pixel + 1], 200_001)
            mean = flux[np.searchsorted(their_edges, 0.5 * (fine[1:] + fine[:-1])) - 1].mean()
            assert -out.flux.value[pixel] == pytest.approx(mean, abs=1e-4)
        assert np.isnan(out.flux.value[0]) and out.mask[0]  # the sky begins later

    def test_bad_pixels_of_the_sky_are_masked(self):
        _, both, sky = self.pair(1)
        mask = np.zeros(PIXELS, dtype=bool)
        mask[450] = True
        masked = Spectrum(flux=sky.flux, spectral_axis=sky.spectral_axis, uncertainty=sky.uncertainty, mask=mask)
        with pytest.warns(BlaseWarning, match="sky: 1 of 900 pixels"):
            out = subtract_sky(SpectrumList([both]), SpectrumList([masked]), scale=0.8)
        assert isinstance(out, SpectrumList)
        assert 2 <= np.count_nonzero(out[0].mask) <= 4

    def test_an_order_without_sky_is_masked(self):
        _, both, sky = self.pair(1)
        empty = Spectrum(flux=np.nan * sky.flux, spectral_axis=sky.spectral_axis, uncertainty=sky.uncertainty)
        with pytest.warns(BlaseWarning, match="sky: 1 of 2 orders have no pixel"):
            out = subtract_sky(SpectrumList([both, both]), SpectrumList([sky, empty]))
        assert np.all(out[1].mask) and np.all(np.isnan(out[1].flux.value))
        assert np.count_nonzero(out[0].mask) < 5

    def test_bad_input(self):
        _, both, sky = self.pair(1)
        counts = Spectrum(flux=sky.flux.value * u.ct, spectral_axis=sky.spectral_axis,
                          uncertainty=StdDevUncertainty(sky.uncertainty.array))  # fmt: skip
        with pytest.raises(u.UnitsError, match="sky must have the flux unit of observed, got ct and electron"):
            subtract_sky(both, counts)
        with pytest.raises(ValueError, match="sky must have 1 orders, as observed, got 2"):
            subtract_sky(SpectrumList([both]), SpectrumList([sky, sky]))
        with pytest.raises(ValueError, match="scale must be a number, not negative, got -1"):
            subtract_sky(both, sky, scale=-1)
        with pytest.raises(ValueError, match="observed and sky must have uncertainties"):
            subtract_sky(both, Spectrum(flux=sky.flux, spectral_axis=sky.spectral_axis))
        flat = spectrum(np.ones(PIXELS), 5)
        with pytest.raises(ValueError, match="scale must be given where no line of the sky stands out"):
            subtract_sky(flat, flat)


class TestRealSky:
    """A blank sky of HPF, whose wavelengths are known to better than a tenth of a km/s from its comb."""

    def test_offsets_of_a_blank_sky(self, shared_data):
        lines = read_airglow(shared_data / "linelists/igrins_plp_ohlines.dat")
        orders = read_hpf(shared_data / "echelle/hpf_blanksky_20210825.fits")[13:20]
        with pytest.warns(BlaseWarning, match="ignored"):
            fit = fit_airglow(orders, lines, ResolvingPower(55_000, free=True))
        offset = np.abs(fit.orders["offset"].value)
        assert np.all(offset < 0.3) and np.all(offset[1:] < 0.1)
        assert np.all(fit.orders["n_seen"] >= 10) and np.all(fit.orders["scatter"].value < 0.3)
        assert np.all(np.abs(fit.orders["resolving_power"] - 58_000) < 4_000)
        # in the first of them a bright pair is 1.3 km/s from where the list has it
        assert np.any(np.abs(fit.lines["line_center"].value[fit.lines["apart"]] - 9793.8) < 0.1)

    def test_sky_fibre(self, shared_data):
        path = shared_data / "echelle/hpf_blanksky_20210825.fits"
        with pytest.warns(BlaseWarning, match="ignored"):
            out = subtract_sky(read_hpf(path)[14:20], read_hpf(path, fiber="sky")[14:20])
        assert out[0].meta["sky_scale"] == pytest.approx(0.94, abs=0.02)
        for before, after in zip(read_hpf(path)[14:20], out, strict=True):
            assert np.nanstd(after.flux.value) < 0.15 * np.nanstd(before.flux.value[np.isfinite(before.flux.value)])

    @pytest.mark.parametrize("night", [20210212, 20210517])
    def test_sky_fibre_beside_a_bright_star(self, shared_data, night):
        """The ratio of the fibres is that of the blank sky, to the accuracy that an A star leaves."""
        path = shared_data / "echelle" / f"hpf_a0v_{night}.fits"
        with pytest.warns(BlaseWarning, match="ignored"):
            out = subtract_sky(read_hpf(path)[14:18], read_hpf(path, fiber="sky")[14:18])
        scale, error = (out[0].meta[name] for name in ("sky_scale", "sky_scale_err"))
        assert abs(scale - 0.936) < 2.0 * error < 0.25


def test_lines_of_a_bright_star_are_no_sky(shared_data):
    """HPF, Barnard's star at S/N 800: its own lines would be sky lines seen -16 +- 1.5 times."""
    path = shared_data / "echelle" / "hpf_gj699_20181003.fits"
    with (pytest.warns(BlaseWarning, match="are ignored"),
          pytest.raises(ValueError, match="observed must show the lines of the sky fibre, got -16")):  # fmt: skip
        subtract_sky(read_hpf(path), read_hpf(path, fiber="sky"))
