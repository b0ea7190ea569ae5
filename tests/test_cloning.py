"""clone_spectrum: known forests come back, real spectra are matched, bad input is told."""

import numpy as np
import pytest
from astropy import constants
from astropy import units as u
from astropy.nddata import InverseVariance, StdDevUncertainty
from astropy.table import QTable
from scipy.special import voigt_profile
from specutils import SpectralRegion, Spectrum
from specutils.utils.wcs_utils import vac_to_air

from specutils_blase import BlaseWarning, CoverageError, LineTemplate, clone_spectrum, find_lines
from specutils_blase.simulation import simulate_star

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
FLUX = u.Unit("erg / (s cm2 AA)")
# every wavelength is a multiple of 1/64 Angstrom: exact in float32
WAVE = 5000.0 + np.arange(0, 20 * 64) / 64.0
CENTER = np.array([5002.003, 5004.5, 5007.111, 5009.52, 5012.4, 5014.95, 5017.307])
STRENGTH = np.array([0.05, 0.2, 0.01, 0.1, 0.6, 0.03, 0.08])
SIGMA = np.array([0.06, 0.07, 0.08, 0.06, 0.08, 0.05, 0.07])
GAMMA = np.array([0.02, 0.03, 0.01, 0.05, 0.06, 0.02, 0.03])


def transmission(wave=WAVE, strength=STRENGTH, form="opacity"):
    depth = strength * voigt_profile(wave[:, None] - CENTER, SIGMA, GAMMA)
    return np.exp(-depth.sum(axis=1)) if form == "opacity" else np.prod(1.0 - depth, axis=1)


def planck(wave, teff):
    exponent = (constants.h * constants.c / constants.k_B / (teff * u.K)).to_value(u.AA)
    return 1.0 / (wave**5 * np.expm1(exponent / wave))


def spectrum(flux=None, axis=WAVE * u.AA, unit=u.dimensionless_unscaled, **options):
    return Spectrum(flux=(transmission() if flux is None else flux) * unit, spectral_axis=axis, **options)


def assert_lines_found(template, strength=STRENGTH, rtol=0.02):
    """Every true line has a line of the template at its place, and what else there is carries nothing."""
    table = template.lines
    nearest = np.abs(table["line_center"].to_value(u.AA)[:, None] - CENTER).argmin(axis=0)
    np.testing.assert_allclose(table["line_center"].to_value(u.AA)[nearest], CENTER, atol=2e-3)
    np.testing.assert_allclose(table["strength"].to_value(u.AA)[nearest], strength, rtol=rtol)
    rest = np.setdiff1d(np.arange(len(table)), nearest)
    assert np.abs(table["depth"][rest]).max(initial=0.0) < 0.01


@pytest.fixture(scope="module")
def reference():
    return clone_spectrum(spectrum(), continuum_degree=0)


class TestKnownForest:
    def test_lines_come_back(self, reference):
        assert isinstance(reference, LineTemplate)
        assert_lines_found(reference)
        flux = reference.evaluate(WAVE * u.AA).flux
        assert flux.unit == u.dimensionless_unscaled
        np.testing.assert_allclose(flux.value, transmission(), atol=1e-3)
        assert np.std(flux.value - transmission()) < 5e-7 and reference.fit_info["rms"] < 5e-7

    def test_widths_and_equivalent_widths_come_back(self, reference):
        table = reference.lines
        nearest = np.abs(table["line_center"].value[:, None] - CENTER).argmin(axis=0)
        np.testing.assert_allclose(table["fwhm_gauss"].value[nearest], SIGMA * FWHM_PER_SIGMA, rtol=0.06)
        np.testing.assert_allclose(table["fwhm_lorentz"].value[nearest], 2 * GAMMA, rtol=0.25)
        fine = np.linspace(-400.0, 400.0, 2_000_001)
        for j in (1, 4):
            width = np.trapezoid(-np.expm1(-STRENGTH[j] * voigt_profile(fine, SIGMA[j], GAMMA[j])), fine)
            assert table["equivalent_width"][nearest[j]].to_value(u.AA) == pytest.approx(width, rel=0.02)

    def test_template_holds_what_the_contract_says(self, reference):
        info, meta, model, table = reference.fit_info, reference.meta, reference.model, reference.lines
        assert {"status", "message", "rms", "n_lines", "n_pixels", "n_ignored", "n_iterations", "wall_time",
                "device"} <= set(info)  # fmt: skip
        assert info["status"] == "converged" and info["n_pixels"] == WAVE.size and info["n_ignored"] == 0
        assert info["n_lines"] == len(table) == model.n_lines
        assert info["wall_time"] > 0 and info["device"] == "cpu" and info["n_iterations"] >= 1
        half = 0.5 / 64
        np.testing.assert_allclose(reference.coverage.to_value(u.AA), [WAVE[0] - half, WAVE[-1] + half], rtol=1e-12)
        assert meta["wavelength_medium"] == meta["source_medium"] == "vacuum" and meta["frame"] == "rest"
        assert "residual" in meta["error_scale"] and table.meta["errors"] == meta["error_scale"]
        assert (np.diff(model.x_0.value) > 0).all()
        for name, column in (("x_0", "line_center"), ("strength", "strength"), ("fwhm_G", "fwhm_gauss"),
                             ("fwhm_L", "fwhm_lorentz")):  # fmt: skip
            parameter = getattr(model, name)
            np.testing.assert_allclose(parameter.quantity.to_value(u.AA), table[column].to_value(u.AA), rtol=1e-12)
            np.testing.assert_array_equal(parameter.std, table[f"{column}_err"].to_value(u.AA))
        for name in table.colnames:
            if name.endswith("_err"):
                assert np.all(u.Quantity(table[name]).value > 0) and np.isfinite(u.Quantity(table[name])).all(), name
        distance = np.abs(WAVE[table["line_center_index"]] - table["line_center"].value)
        assert (distance <= 1 / 64 + 1e-9).all()

    @pytest.mark.parametrize("scale", [1e-14, 1.0, 1e7])
    def test_blackbody_and_polynomial_in_the_unit_of_the_input(self, scale):
        x = (WAVE - 5010.0) / 10.0
        continuum = scale * planck(WAVE, 4700) / planck(5010.0, 4700) * (1.0 + 0.1 * x - 0.05 * x**2)
        template = clone_spectrum(spectrum(continuum * transmission(), unit=FLUX), teff=4700 * u.K, continuum_degree=2)
        assert template.model.continuum.unit == FLUX and template.model.teff == 4700.0
        flux = template.evaluate(WAVE * u.AA).flux
        assert flux.unit == FLUX
        np.testing.assert_allclose(flux.value / continuum, transmission(), atol=1e-3)
        assert_lines_found(template, rtol=0.03)
        # the continuum itself, and not only its product with the lines
        fitted = template.model.copy()
        fitted.strength = np.full(fitted.n_lines, 1e-30) * u.AA
        np.testing.assert_allclose(fitted(WAVE * u.AA).to_value(FLUX) / continuum, 1.0, atol=1e-3)

    def test_window_and_exclusions(self):
        template = clone_spectrum(spectrum(), continuum_degree=0, window=SpectralRegion(5003 * u.AA, 5016 * u.AA),
                                  exclude_regions=[SpectralRegion(5009 * u.AA, 5010 * u.AA)])  # fmt: skip
        first, last = template.coverage.to_value(u.AA)
        assert first == pytest.approx(5003, abs=0.02) and last == pytest.approx(5016, abs=0.02)
        used = (WAVE >= 5003) & (WAVE <= 5016) & ~((WAVE >= 5009) & (WAVE < 5010))
        assert template.fit_info["n_pixels"] == used.sum()
        with pytest.raises(CoverageError):
            template.evaluate(WAVE * u.AA)
        found = template.lines["line_center"].value
        for center in CENTER[[1, 2, 4, 5]]:
            assert np.abs(found - center).min() < 2e-3

    def test_product_form(self):
        strength = 0.5 * STRENGTH
        strength[4] = 0.1
        template = clone_spectrum(spectrum(transmission(strength=strength, form="product")), continuum_degree=0,
                                  form="product")  # fmt: skip
        assert template.model.form == "product"
        assert_lines_found(template, strength)
        flux = template.evaluate(WAVE * u.AA).flux.value
        np.testing.assert_allclose(flux, transmission(strength=strength, form="product"), atol=1e-3)
        np.testing.assert_allclose(template.lines["equivalent_width"], template.lines["strength"])

    def test_emission_lines(self):
        strength = STRENGTH * [1, -1, 1, 1, -0.2, 1, 1]
        template = clone_spectrum(spectrum(transmission(strength=strength)), continuum_degree=0)
        flux = template.evaluate(WAVE * u.AA).flux.value
        np.testing.assert_allclose(flux, transmission(strength=strength), atol=3e-3)
        table = template.lines
        for center in CENTER[[1, 4]]:
            nearest = np.abs(table["line_center"].value - center).argmin()
            assert table["line_type"][nearest] == "emission"
            assert table["strength"][nearest] < 0 and table["equivalent_width"][nearest] < 0

    @pytest.mark.parametrize("n_lines", [12, 30, 60])
    def test_emission_lines_everywhere(self, n_lines):
        # more than half of the bins in which the continuum is looked for hold a line
        rng = np.random.default_rng(n_lines)
        wave = np.arange(8000.0, 8100.0, 0.02)
        center, height = np.sort(rng.uniform(8003, 8097, n_lines)), rng.uniform(0.05, 0.8, n_lines)
        level = 1.0 + 0.3 * (wave - 8050) / 50
        flux = level * (1.0 + (height * np.exp(-0.5 * ((wave[:, None] - center) / 0.06) ** 2)).sum(axis=1))
        source = Spectrum(flux=flux * u.Jy, spectral_axis=wave * u.AA)
        assert set(find_lines(source, continuum_degree=1)["line_type"]) == {"emission"}
        template = clone_spectrum(source, continuum_degree=1)
        np.testing.assert_allclose(template.evaluate(wave * u.AA).flux.value, flux, atol=5e-3)

    @pytest.mark.parametrize(("n_lines", "share", "seed"), [(40, 0.9, 1), (80, 0.5, 0), (80, 0.5, 1), (100, 0.3, 1)])
    def test_emission_and_absorption_mixed(self, n_lines, share, seed):
        rng = np.random.default_rng(seed)
        wave = np.arange(8000.0, 8100.0, 0.02)
        center, strength = rng.uniform(8002.0, 8098.0, n_lines), rng.uniform(0.05, 0.5, n_lines)
        strength = np.where(rng.random(n_lines) < share, -strength, strength)
        level = 1.0 + 0.1 * np.sin(0.03 * (wave - 8000.0))
        flux = level * np.exp(-(strength * voigt_profile(wave[:, None] - center, 0.08, 0.04)).sum(axis=1))
        template = clone_spectrum(Spectrum(flux=flux * u.Jy, spectral_axis=wave * u.AA), progress=False)
        assert np.std(template.evaluate(wave * u.AA).flux.value - flux) < 1e-3
        assert set(template.lines["line_type"]) == {"emission", "absorption"}

    @pytest.mark.parametrize("gap", [1.3, 1.5, 1.8])
    def test_light_between_black_lines(self, gap):
        # where the model is black no derivative says that the spectrum is not
        center = np.array([4995.0, 5005.0, 5005.0 + gap, 5005.0 + 2.0 * gap, 5015.0])
        strength = np.array([0.1, 8.0, 20.0, 8.0, 0.1])
        flux = np.exp(-(strength * voigt_profile(WAVE[:, None] - center, 0.06, 0.02)).sum(axis=1))
        template = clone_spectrum(spectrum(flux), continuum_degree=0)
        assert np.abs(template.evaluate(WAVE * u.AA).flux.value - flux).max() < 5e-3

    def test_a_clone_that_is_far_off_says_so(self):
        steps = np.where(np.sin(WAVE) > 0, 1.0, 0.5)  # no continuum of degree 0
        with pytest.warns(BlaseWarning, match="differs from the spectrum by .*the prominence of 0.01.*check teff"):
            clone_spectrum(spectrum(steps), continuum_degree=0, passes=1)

    def test_a_continuum_from_nowhere_is_named(self):
        rng = np.random.default_rng(0)
        wave = np.arange(5000.0, 5020.0, 0.01)
        center, strength = np.sort(rng.uniform(5000, 5020, 100)), 10 ** rng.uniform(-1.0, 0.5, 100)
        flux = np.exp(-(strength * voigt_profile(wave[:, None] - center, 0.06, 0.03)).sum(axis=1))
        assert flux.max() < 0.7
        with pytest.warns(BlaseWarning) as caught:
            template = clone_spectrum(spectrum(flux, axis=wave * u.AA))
        assert any("the continuum runs from" in str(warning.message) for warning in caught)
        continuum = template.model.continuum_basis(wave, u.AA) @ np.ravel(template.model.continuum.value)
        assert continuum.min() < 0.0

    @pytest.mark.parametrize("slope", [50.0, 200.0])
    def test_steep_continua_are_no_cause_for_doubt(self, slope):
        continuum = slope ** ((WAVE - WAVE[0]) / (WAVE[-1] - WAVE[0]))
        flux = continuum * np.exp(-0.05 * voigt_profile(WAVE[:, None] - [5005.0, 5015.0], 0.06, 0.03).sum(axis=1))
        assert clone_spectrum(spectrum(flux)).fit_info["rms"] < 2e-3

    def test_a_cool_blackbody_may_fall_by_any_factor(self):
        wave = np.arange(4000.0, 9000.0, 0.5)
        continuum = planck(wave, 2500.0)
        flux = continuum / continuum.max() * np.exp(-2.0 * voigt_profile(wave - 6000.0, 3.0, 0.5))
        assert continuum.max() > 50 * continuum.min()
        template = clone_spectrum(spectrum(flux, axis=wave * u.AA), teff=2500 * u.K, continuum_degree=0)
        assert template.fit_info["rms"] < 1e-3

    def test_bright_emission_that_explodes_names_the_other_form(self):
        center = np.arange(5002.0, 5019.0, 2.0)
        flux = 1.0 + 20.0 * np.exp(-0.5 * ((WAVE[:, None] - center) / 0.1) ** 2).sum(axis=1)
        with pytest.warns(BlaseWarning, match='9 lines became [0-9]+, because .*try form="product"'):
            exploded = clone_spectrum(spectrum(flux), continuum_degree=0)
        product = clone_spectrum(spectrum(flux), continuum_degree=0, form="product")
        assert len(product.lines) == 9 < 3 * len(exploded.lines)

    def test_more_parameters_than_pixels_are_named(self):
        wave = 5000.0 + 0.02 * np.arange(28)
        flux = np.exp(-(0.02 * voigt_profile(wave[:, None] - wave[3:28:5], 0.01, 0.005)).sum(axis=1))
        with pytest.warns(BlaseWarning, match="parameters for 28 pixels.*raise prominence"):
            template = clone_spectrum(Spectrum(flux=flux * u.Jy, spectral_axis=wave * u.AA), continuum_degree=5)
        assert 4 * len(template.lines) + 6 > 28

    def test_blends_are_separated_by_later_passes(self):
        strength, center = np.array([0.1, 0.06]), np.array([5010.0, 5010.13])
        flux = np.exp(-(strength * voigt_profile(WAVE[:, None] - center, 0.06, 0.02)).sum(axis=1))
        with pytest.warns(BlaseWarning, match="differs from the spectrum"):
            first = clone_spectrum(spectrum(flux), continuum_degree=0, passes=1)
        single = first.fit_info["rms"]
        assert np.std(first.evaluate(WAVE * u.AA).flux.value - flux) == pytest.approx(single, rel=1e-3)
        rms = clone_spectrum(spectrum(flux), continuum_degree=0).fit_info["rms"]
        assert rms < 1e-3 and rms < single

    def test_same_answer_twice(self, reference):
        again = clone_spectrum(spectrum(), continuum_degree=0)
        for name in ("x_0", "strength", "fwhm_G", "fwhm_L"):
            np.testing.assert_array_equal(getattr(again.model, name).value, getattr(reference.model, name).value)

    def test_input_is_not_changed(self):
        source = spectrum()
        before = source.flux.value.copy(), source.spectral_axis.value.copy()
        clone_spectrum(source, continuum_degree=0, passes=1)
        np.testing.assert_array_equal(source.flux.value, before[0])
        np.testing.assert_array_equal(source.spectral_axis.value, before[1])


def assert_same(template, reference, rtol=1e-10):
    for name in ("x_0", "strength", "fwhm_G", "fwhm_L", "continuum"):
        ours, theirs = (getattr(t.model, name).value for t in (template, reference))
        np.testing.assert_allclose(ours, theirs, rtol=rtol, err_msg=name)
    for name in template.lines.colnames:
        if template.lines[name].dtype.kind == "f":
            ours, theirs = (u.Quantity(t.lines[name]).value for t in (template, reference))
            # errors: the square root of an inverse, which multiplies the rounding of a change of units
            tolerance = 1e-6 if rtol and name.endswith("_err") else rtol
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, err_msg=name)


# with a ripple that lines cannot describe
RIPPLED = transmission() * (1.0 + 2e-4 * np.sin(3.0 * WAVE))


@pytest.fixture(scope="module")
def rippled():
    return clone_spectrum(spectrum(RIPPLED), continuum_degree=0)


class TestSameAnswer:
    """Representations of one spectrum."""

    def test_decreasing(self, rippled):
        template = clone_spectrum(spectrum(RIPPLED[::-1], axis=WAVE[::-1] * u.AA), continuum_degree=0)
        assert_same(template, rippled)
        index = template.lines["line_center_index"]
        np.testing.assert_array_equal(index, WAVE.size - 1 - rippled.lines["line_center_index"])

    @pytest.mark.parametrize("unit", ["nm", "um", "THz", "eV", "1/cm"])
    def test_unit_of_the_axis(self, rippled, unit):
        # rounding in the conversion moves each wavelength by 1e-16, which the iteration must not amplify where the
        # data determine the lines; a width that they hardly determine follows its own condition number
        axis = (WAVE * u.AA).to(unit, u.spectral())
        assert_same(clone_spectrum(spectrum(RIPPLED, axis=axis), continuum_degree=0), rippled)

    def test_unit_of_the_axis_of_a_blended_spectrum(self):
        source = simulate_star(9, lower=10580 * u.AA, upper=10600 * u.AA, n_lines=150).spectrum
        in_nm = Spectrum(flux=source.flux, spectral_axis=source.spectral_axis.to(u.nm), meta=source.meta)
        first, second = (clone_spectrum(s, continuum_degree=0) for s in (source, in_nm))
        wave = source.spectral_axis
        np.testing.assert_allclose(first.evaluate(wave).flux, second.evaluate(wave).flux, rtol=1e-9)
        # widths that the blends leave open move by more than the rounding, but by nothing against their errors
        for name in ("line_center", "strength", "fwhm_gauss", "fwhm_lorentz"):
            moved = np.abs(first.lines[name] - second.lines[name])
            assert np.max((moved / first.lines[f"{name}_err"]).value) < 1e-3, name

    @pytest.mark.parametrize("dtype", [">f8", "<f8"])
    def test_byte_order_and_read_only(self, rippled, dtype):
        flux, axis = RIPPLED.astype(dtype), WAVE.astype(dtype)
        flux.flags.writeable = axis.flags.writeable = False
        source = Spectrum(flux=u.Quantity(flux, copy=False), spectral_axis=u.Quantity(axis, u.AA, copy=False))
        assert_same(clone_spectrum(source, continuum_degree=0), rippled, rtol=0)

    def test_float32_that_holds_the_same_numbers(self):
        flux = RIPPLED.astype(np.float32)
        axis = u.Quantity(WAVE, u.AA, dtype=np.float32)
        source = Spectrum(flux=u.Quantity(flux, dtype=np.float32), spectral_axis=axis)
        assert source.spectral_axis.dtype == np.float32
        assert_same(clone_spectrum(source, continuum_degree=0),
                    clone_spectrum(spectrum(flux.astype(float)), continuum_degree=0), rtol=0)  # fmt: skip

    def test_bin_edges(self, rippled):
        edges = np.append(WAVE - 0.5 / 64, WAVE[-1] + 0.5 / 64)
        source = Spectrum(flux=RIPPLED * u.dimensionless_unscaled, spectral_axis=edges * u.AA,
                          bin_specification="edges")  # fmt: skip
        assert_same(clone_spectrum(source, continuum_degree=0), rippled)

    def test_scale_of_the_flux(self, rippled):
        template = clone_spectrum(spectrum(1e-16 * RIPPLED, unit=FLUX), continuum_degree=0)
        np.testing.assert_allclose(template.model.strength.value, rippled.model.strength.value, rtol=1e-8)
        assert template.model.continuum.quantity.to_value(FLUX).item() == pytest.approx(
            1e-16 * np.ravel(rippled.model.continuum.value)[0], rel=1e-8)  # fmt: skip

    @pytest.mark.parametrize("how", ["keyword", "meta"])
    def test_air_when_declared(self, how):
        air = vac_to_air(WAVE * u.AA)
        meta = {"wavelength_medium": "air"} if how == "meta" else {}
        keyword = {"wavelength_medium": "air"} if how == "keyword" else {}
        template = clone_spectrum(spectrum(axis=air, meta=meta), continuum_degree=0, **keyword)
        assert template.meta["source_medium"] == "air" and template.meta["wavelength_medium"] == "vacuum"
        assert_lines_found(template)
        # undeclared means vacuum: the lines stay where they are in air, 1.4 Angstrom off
        undeclared = clone_spectrum(spectrum(axis=air), continuum_degree=0, passes=1)
        shift = CENTER[4] - undeclared.lines["line_center"].value[undeclared.lines["strength"].argmax()]
        assert shift == pytest.approx((WAVE[800] * u.AA - air[800]).to_value(u.AA), abs=0.01)
        assert shift > 1.0

    BAD = np.isin(np.arange(WAVE.size), [0, 5, 6, 7, 300, 555, 556, 800, 1279])

    @pytest.mark.parametrize("kind", ["nan", "inf", "mask", "ivar 0", "sigma 0", "sigma nan", "sigma inf"])
    def test_bad_pixels_are_as_if_removed(self, kind):
        flux, sigma = transmission(), np.full(WAVE.size, 0.01)
        with_sigma = "ivar" in kind or "sigma" in kind
        keep = ~self.BAD
        removed = spectrum(flux[keep], axis=WAVE[keep] * u.AA,
                           uncertainty=StdDevUncertainty(sigma[keep]) if with_sigma else None)  # fmt: skip
        options, spoiled = {}, np.where(self.BAD, -7.0, flux)
        if kind in ("nan", "inf"):
            spoiled[self.BAD] = float(kind)
        elif kind == "mask":
            options["mask"] = self.BAD
        elif kind == "ivar 0":
            options["uncertainty"] = InverseVariance(np.where(self.BAD, 0.0, sigma**-2))
        else:
            options["uncertainty"] = StdDevUncertainty(np.where(self.BAD, float(kind.split()[1]), sigma))
        with pytest.warns(BlaseWarning, match=f"spectrum: {self.BAD.sum()} of {WAVE.size} pixels") as caught:
            template = clone_spectrum(spectrum(spoiled, **options), continuum_degree=0)
        assert len(caught) == 1
        assert template.fit_info["n_ignored"] == self.BAD.sum()
        assert_same(template, clone_spectrum(removed, continuum_degree=0))


class TestNoise:
    def test_errors_of_strengths_are_calibrated(self):
        # isolated lines: the pulls of strength, centre and equivalent width must be standard normal
        noise, pulls = 0.003, []
        strength = np.array([0.05, 0.1, 0.03, 0.08, 0.15, 0.04, 0.06])
        for seed in range(20):
            flux = transmission(strength=strength) + noise * np.random.default_rng(seed).normal(size=WAVE.size)
            source = spectrum(flux, uncertainty=StdDevUncertainty(np.full(WAVE.size, noise)))
            template = clone_spectrum(source, continuum_degree=0, passes=2, prominence=0.05)
            assert "uncertainties" in template.meta["error_scale"]
            table = template.lines
            assert len(table) == len(CENTER)
            pulls.append([(table["strength"].value - strength) / table["strength_err"].value,
                          (table["line_center"].value - CENTER) / table["line_center_err"].value])  # fmt: skip
        pulls = np.array(pulls).swapaxes(0, 1).reshape(2, -1)
        # 140 numbers: the width is known to 6 per cent
        width = pulls.std(axis=1)
        assert ((0.9 - 0.06 < width) & (width < 1.1 + 0.06)).all(), width
        assert (np.abs(pulls.mean(axis=1)) < 0.3).all(), pulls.mean(axis=1)

    def test_noise_makes_no_lines(self):
        noise = 0.02
        flux = transmission() + noise * np.random.default_rng(3).normal(size=WAVE.size)
        template = clone_spectrum(spectrum(flux, uncertainty=StdDevUncertainty(np.full(WAVE.size, noise))),
                                  continuum_degree=0)  # fmt: skip
        assert len(template.lines) <= len(CENTER) + 2
        pull = (template.evaluate(WAVE * u.AA).flux.value - flux) / noise
        assert 0.9 < np.mean(pull**2) < 1.1


class TestProgress:
    def test_callable_gets_texts_and_the_end(self):
        seen = []
        clone_spectrum(spectrum(), continuum_degree=0, passes=2, progress=seen.append)
        assert any("pass 1/2" in text for text in seen) and any("pass 2/2" in text for text in seen)
        assert seen[-1] == ""

    def test_keyboard_interrupt_gets_out(self):
        def stop(text):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            clone_spectrum(spectrum(), continuum_degree=0, progress=stop)

    def test_true_writes_a_line_and_false_does_not(self, capsys):
        clone_spectrum(spectrum(), continuum_degree=0, passes=1, progress=False)
        assert capsys.readouterr() == ("", "")
        clone_spectrum(spectrum(), continuum_degree=0, passes=1, progress=True)
        captured = capsys.readouterr()
        assert captured.out == "" and "pass 1/1" in captured.err and captured.err.endswith("\n")


def message_of(error, call):
    with pytest.raises(error) as caught:
        call()
    return str(caught.value)


class TestBadInput:
    """Every message names the argument, what it must be, what came, and what to do."""

    @pytest.mark.parametrize("thing", [transmission(), None, "file.fits", (WAVE, transmission())],
                             ids=["array", "None", "str", "tuple"])  # fmt: skip
    def test_not_a_spectrum(self, thing):
        message = message_of(TypeError, lambda: clone_spectrum(thing))
        assert "spectrum must" in message and type(thing).__name__ in message and "; " in message

    def test_axis_without_a_spectral_unit(self):
        source = Spectrum(flux=transmission() * u.Jy, spectral_axis=np.arange(WAVE.size) * u.pix)
        message = message_of(u.UnitsError, lambda: clone_spectrum(source))
        assert "spectrum must" in message and "pix" in message

    def test_two_dimensional(self):
        source = Spectrum(flux=np.ones((3, WAVE.size)) * u.Jy, spectral_axis=WAVE * u.AA)
        message = message_of(ValueError, lambda: clone_spectrum(source))
        assert "one-dimensional" in message and "(3, 1280)" in message and "spectrum[0]" in message

    def test_all_masked(self):
        message = message_of(ValueError, lambda: clone_spectrum(spectrum(mask=np.ones(WAVE.size, dtype=bool))))
        assert "spectrum must" in message and "1280" in message and "mask" in message

    def test_all_nan(self):
        message = message_of(ValueError, lambda: clone_spectrum(spectrum(np.full(WAVE.size, np.nan))))
        assert "spectrum must" in message and "not finite: 1280" in message

    def test_no_flux(self):
        message = message_of(ValueError, lambda: clone_spectrum(spectrum(np.zeros(WAVE.size))))
        assert "spectrum must have flux" in message

    def test_negative_flux(self):
        message = message_of(ValueError, lambda: clone_spectrum(spectrum(-transmission())))
        assert "spectrum must" in message

    @pytest.mark.parametrize("value", [0, -4700, np.nan, np.inf])
    def test_teff(self, value):
        message = message_of(ValueError, lambda: clone_spectrum(spectrum(), teff=value * u.K))
        assert "teff must" in message and str(value) in message

    @pytest.mark.parametrize("value", [1e9, 1.0])
    def test_teff_of_nothing_that_shines(self, value):
        message = message_of(ValueError, lambda: clone_spectrum(spectrum(), teff=value * u.K))
        assert "teff must be the temperature of something that shines" in message and f"{value:g} K" in message

    def test_teff_without_or_with_wrong_unit(self):
        assert "teff must" in message_of(TypeError, lambda: clone_spectrum(spectrum(), teff=4700))
        assert "teff must" in message_of(u.UnitsError, lambda: clone_spectrum(spectrum(), teff=4700 * u.m))

    @pytest.mark.parametrize("prominence", [0, -0.01, 1.0, 5, np.nan, "0.01"])
    def test_prominence(self, prominence):
        message = message_of(ValueError, lambda: clone_spectrum(spectrum(), prominence=prominence))
        assert "prominence must" in message and repr(prominence) in message

    def test_prominence_that_finds_no_line(self):
        weak = transmission(strength=0.01 * STRENGTH)
        message = message_of(ValueError, lambda: clone_spectrum(spectrum(weak), prominence=0.5, continuum_degree=0))
        assert "prominence" in message and "0.5" in message and "lower it" in message

    def test_window_outside_the_data(self):
        window = SpectralRegion(6000 * u.AA, 6010 * u.AA)
        message = message_of(ValueError, lambda: clone_spectrum(spectrum(), window=window))
        assert "window must" in message and "6000" in message and "5000" in message

    @pytest.mark.parametrize("options", [{"form": "gauss"}, {"passes": 0}, {"passes": 1.5}, {"passes": "2"},
                                         {"continuum_degree": -1}, {"continuum_degree": True},
                                         {"continuum_degree": 0.5}, {"device": "cuda"},
                                         {"wavelength_medium": "water"}], ids=str)  # fmt: skip
    def test_options(self, options):
        (name, value), = options.items()
        message = message_of(ValueError, lambda: clone_spectrum(spectrum(), **options))
        assert f"{name} must" in message and str(value) in message and "; " in message

    @pytest.mark.parametrize("degree", ["5", None, np.nan])
    def test_degree_that_is_no_number(self, degree):
        message = message_of((ValueError, TypeError), lambda: clone_spectrum(spectrum(), continuum_degree=degree))
        assert "continuum_degree must" in message

    def test_too_few_pixels(self):
        source = Spectrum(flux=transmission()[:10] * u.Jy, spectral_axis=WAVE[:10] * u.AA)
        message = message_of(ValueError, lambda: clone_spectrum(source))
        assert "spectrum must" in message and "10" in message and "continuum_degree" in message

    def test_air_frequencies(self):
        source = spectrum(axis=(WAVE * u.AA).to(u.THz, u.spectral()))
        message = message_of(ValueError, lambda: clone_spectrum(source, wavelength_medium="air"))
        assert "spectrum must" in message and "THz" in message

    def test_not_converged_is_one_warning_with_a_remedy(self, monkeypatch):
        import specutils_blase.cloning as cloning

        real = cloning.levenberg_marquardt
        monkeypatch.setattr(cloning, "levenberg_marquardt",
                            lambda *a, **k: real(*a, **{**k, "max_iterations": 1, "rtol": 0.0}))  # fmt: skip
        with pytest.warns(BlaseWarning, match="did not converge.*passes") as caught:
            template = clone_spectrum(spectrum(), continuum_degree=0, passes=1)
        assert len(caught) == 1
        assert template.fit_info["status"] == "not_converged" and template.fit_info["message"]


class TestRealSpectra:
    def test_star(self, shared_data):
        path = shared_data / "stellar" / "wasp69_like.fits.gz"
        table, smooth = QTable.read(path, hdu=1), QTable.read(path, hdu=2)
        flux = u.Quantity(np.asarray(table["flux"].value, dtype=float), table["flux"].unit)
        source = Spectrum(flux=flux, spectral_axis=u.Quantity(table["wavelength"]))
        template = clone_spectrum(source, teff=4715 * u.K)
        wave = table["wavelength"].to_value(u.AA)
        continuum = np.interp(wave, smooth["wavelength"].to_value(u.AA), smooth["flux"].value)
        residual = (template.evaluate(source.spectral_axis).flux.to_value(flux.unit) - flux.value) / continuum
        assert np.sqrt(np.mean(residual**2)) <= 1e-3
        assert np.percentile(np.abs(residual), 99) <= 4e-3
        assert template.fit_info["status"] == "converged"
        assert template.fit_info["rms"] == pytest.approx(np.std(residual), rel=0.2)

    @pytest.mark.parametrize(("lower", "upper", "columns"), [
        (8600, 9000, 1), (9300, 9400, 1), (9340, 9370, 2), (11150, 11500, 1), (11150, 11500, 2)])  # fmt: skip
    def test_tellurics(self, shared_data, lower, upper, columns):
        data = np.load(shared_data / "telluric" / "h2o_o2_optical_depth_8038_12849.npz")
        depth = columns * (data["tau_h2o_pwv5mm"] + data["tau_o2_airmass1"]).astype(float)
        wave = data["wavelength_start"] + data["wavelength_step"] * np.arange(depth.size)
        keep = (wave >= lower) & (wave <= upper)
        wave, truth = wave[keep], np.exp(-depth[keep])
        template = clone_spectrum(spectrum(truth, axis=wave * u.AA))
        flux = template.evaluate(wave * u.AA).flux
        assert flux.unit == u.dimensionless_unscaled
        assert np.sqrt(np.mean((flux.value - truth) ** 2)) <= 1e-3
        assert truth.min() < 0.1  # the window has deep lines

    @pytest.mark.filterwarnings("ignore:the continuum runs from")
    @pytest.mark.parametrize(("first", "last"), [(89073, 89194), (88257, 88378), (86288, 86532), (3298, 3472)])
    def test_windows_in_which_little_is_free_of_lines(self, shared_data, first, last):
        table = QTable.read(shared_data / "telluric" / "telfit_hband.fits.gz", hdu=1)[first:last]
        wave, truth = table["wavelength"].to(u.AA), np.asarray(table["flux"], dtype=float)
        template = clone_spectrum(spectrum(truth, axis=wave))
        assert np.sqrt(np.mean((template.evaluate(wave).flux.value - truth) ** 2)) <= 1e-3

    def test_all_of_a_telluric_model(self, shared_data):
        table = QTable.read(shared_data / "telluric" / "telfit_hband.fits.gz", hdu=1)
        wave, truth = table["wavelength"].to(u.AA), np.asarray(table["flux"], dtype=float)
        template = clone_spectrum(spectrum(truth, axis=wave))
        assert np.sqrt(np.mean((template.evaluate(wave).flux.value - truth) ** 2)) <= 1e-3
        assert template.fit_info["status"] == "converged"
