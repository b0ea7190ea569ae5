"""fit.covariance and template.covariance, and the sums over blends in the line tables."""

from dataclasses import replace

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import StdDevUncertainty
from astropy.table import QTable
from scipy.optimize import least_squares
from scipy.special import voigt_profile
from specutils import SpectralRegion, Spectrum

from specutils_blase import BlaseWarning, LineTemplate, SpectrumFit, clone_spectrum, fit_spectrum
from specutils_blase.flags import BLENDED
from specutils_blase.priors import GaussianPrior
from specutils_blase.simulation import simulate_order, simulate_star, simulate_telluric

KMS = u.km / u.s
FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
QUANTITIES = {"line_center": u.AA, "strength": u.AA, "fwhm_gauss": u.AA, "fwhm_lorentz": u.AA, "depth": u.one,
              "equivalent_width": u.AA}  # fmt: skip
# a lone line and two that can hardly be told apart
WAVE = np.arange(5000.0, 5010.0, 0.02)
CENTER, STRENGTH = np.array([5002.0, 5006.0, 5006.11]), np.array([0.06, 0.08, 0.05])
GAUSS, LORENTZ, NOISE = 0.18, 0.05, 0.004


def flux_of(center=CENTER, strength=STRENGTH):
    return np.exp(-strength @ voigt_profile(WAVE - center[:, None], GAUSS / FWHM_PER_SIGMA, LORENTZ / 2))


def clone(seed=0, free=("strength", "x_0"), **options):
    flux = flux_of() + NOISE * np.random.default_rng(seed).normal(size=WAVE.size)
    lines = QTable({"line_center": CENTER, "strength": STRENGTH, "fwhm_gauss": np.full(3, GAUSS),
                    "fwhm_lorentz": np.full(3, LORENTZ)})  # fmt: skip
    source = Spectrum(flux=flux * u.Jy, spectral_axis=WAVE * u.AA,
                      uncertainty=StdDevUncertainty(np.full(WAVE.size, NOISE)))  # fmt: skip
    lines = QTable({name: column * u.AA for name, column in lines.items()})
    return clone_spectrum(source, lines=lines, free=free, continuum_degree=0, progress=False, **options)


@pytest.fixture(scope="module")
def template():
    return clone()


@pytest.fixture(scope="module")
def parts():
    window = {"lower": 10500 * u.AA, "upper": 10524 * u.AA}
    star, sky = simulate_star(1, n_lines=150, **window), simulate_telluric(2, n_lines=16, **window)
    order = simulate_order(star.model, sky.model, seed=3, lower=10504 * u.AA, upper=10519 * u.AA, n_pix=250,
                           radial_velocity=5 * KMS, vsini=4 * KMS, telluric_scale=0.8, bad_pixels=0)  # fmt: skip
    return (order.spectrum, clone_spectrum(star.spectrum, continuum_degree=1, teff=4700 * u.K),
            clone_spectrum(sky.spectrum, prominence=0.005, continuum_degree=1))  # fmt: skip


def fit_parts(parts, **options):
    start = {"radial_velocity": 5 * KMS, "vsini": 4 * KMS, "progress": False}
    return fit_spectrum(*parts, **{**start, **options})


@pytest.fixture(scope="module")
def fit(parts):
    free = {"star": ("strength", "fwhm", "x_0"), "telluric": ("strength",)}
    return fit_parts(parts, free=free, prior=GaussianPrior(strength=0.5))


def components(fit):
    return np.asarray(fit.lines["component"])


class TestDiagonal:
    @pytest.mark.parametrize("quantity", QUANTITIES)
    def test_of_a_fit(self, fit, quantity):
        matrix = fit.covariance(slice(None), quantity)
        n, error = len(fit.lines), u.Quantity(fit.lines[f"{quantity}_err"])
        assert set(components(fit)) == {"star", "telluric"}
        assert matrix.shape == (n, n) and matrix.unit == QUANTITIES[quantity] ** 2
        np.testing.assert_allclose(np.sqrt(np.diag(matrix)), error, rtol=1e-6, atol=1e-12 * error.max())
        np.testing.assert_allclose(matrix.value, matrix.value.T, atol=1e-8 * np.diag(matrix.value).max())
        eigenvalues = np.linalg.eigvalsh(matrix.value)
        assert eigenvalues[0] > -1e-8 * eigenvalues[-1]

    @pytest.mark.parametrize("quantity", QUANTITIES)
    def test_of_a_clone(self, template, parts, quantity):
        for clone in (template, parts[1], parts[2]):
            matrix, error = clone.covariance(slice(None), quantity), u.Quantity(clone.lines[f"{quantity}_err"])
            assert matrix.unit == QUANTITIES[quantity] ** 2
            np.testing.assert_allclose(np.sqrt(np.diag(matrix)), error, rtol=1e-6, atol=1e-12 * error.max())

    def test_equivalent_width_is_the_default(self, fit, template):
        for result in (fit, template):
            np.testing.assert_array_equal(result.covariance([0, 1]), result.covariance([0, 1], "equivalent_width"))


class TestOffDiagonal:
    def test_of_a_clone_against_scipy(self, template):
        def residual(p):
            return p[6] * flux_of(CENTER + p[3:6], STRENGTH * np.exp(p[:3])) / NOISE

        best = np.concatenate([np.log(template.lines["strength"].value / STRENGTH),
                               template.lines["line_center"].value - CENTER,
                               np.ravel(template.model.continuum.value)])  # fmt: skip
        jacobian = least_squares(residual, best, jac="3-point", max_nfev=1).jac
        dense = np.linalg.inv(jacobian.T @ jacobian)
        strength = template.lines["strength"].value
        for name, expected in (("strength", dense[:3, :3] * np.outer(strength, strength)),
                               ("line_center", dense[3:6, 3:6])):  # fmt: skip
            ours, scale = template.covariance(slice(None), name).value, np.sqrt(np.diag(expected))
            # the derivatives are cut far out in the wings
            np.testing.assert_allclose(ours / np.outer(scale, scale), expected / np.outer(scale, scale), atol=2e-3)
            assert abs(ours[1, 2]) > 0.5 * scale[1] * scale[2]

    def test_of_a_clone_against_draws(self, template):
        width = np.array([clone(seed, free="strength").lines["equivalent_width"].value for seed in range(80)])
        ours = clone(free="strength").covariance(slice(None)).to_value(u.AA**2)
        seen = np.cov(width.T)
        error = np.sqrt(np.diag(ours))
        np.testing.assert_allclose(np.sqrt(np.diag(seen)), error, rtol=4 / np.sqrt(160))
        correlation = (seen / np.outer(error, error))[1, 2]
        assert correlation == pytest.approx((ours / np.outer(error, error))[1, 2], abs=0.3)
        assert correlation < -0.3

    def test_of_a_fit_against_draws(self, parts):
        spectrum, star, sky = parts
        fit = fit_parts(parts, prior=GaussianPrior(strength=1.0))
        strength = fit.lines["strength"].value
        logs = fit.covariance(slice(None), "strength").value / np.outer(strength, strength)
        # the data, not the prior, say what they are
        measured = np.sqrt(np.diag(logs)) < 0.2
        assert measured.sum() > 8
        inverse, chi2, rng = np.linalg.inv(logs[np.ix_(measured, measured)]), [], np.random.default_rng(4)
        for _ in range(8):
            noise = rng.normal(size=len(spectrum.flux)) * spectrum.uncertainty.quantity
            moved = Spectrum(flux=fit.model_spectrum.flux + noise, spectral_axis=spectrum.spectral_axis,
                             uncertainty=spectrum.uncertainty)  # fmt: skip
            again = fit_parts((moved, star, sky), prior=GaussianPrior(strength=1.0))
            off = np.log(again.lines["strength"].value / strength)[measured]
            chi2.append(off @ inverse @ off / measured.sum())
        assert np.mean(chi2) == pytest.approx(1.0, abs=4 * np.sqrt(2 / (8 * measured.sum())))

    def test_lines_of_one_species_share_its_column(self, parts):
        fit = fit_parts(parts, free=())
        telluric = np.flatnonzero(components(fit) == "telluric")
        matrix = fit.covariance(telluric, "strength").value
        error = np.sqrt(np.diag(matrix))
        np.testing.assert_allclose(matrix / np.outer(error, error), 1.0, rtol=1e-9)
        assert np.all(fit.covariance(components(fit) == "star", "strength").value == 0)


class TestRows:
    """However lines are named, the same elements come back."""

    def test_numbers_masks_and_tables(self, fit):
        full, n = fit.covariance(slice(None)).value, len(fit.lines)
        index = np.array([n - 1, 2, 7, n - 3, 2])
        np.testing.assert_allclose(fit.covariance(index).value, full[np.ix_(index, index)], rtol=1e-9, atol=1e-20)
        np.testing.assert_allclose(fit.covariance(list(index)).value, fit.covariance(index).value)
        for one in (4, -3, np.int64(4)):
            assert fit.covariance(one).shape == (1, 1)
            assert fit.covariance(one).value == pytest.approx(full[one, one], rel=1e-9)
        mask = components(fit) == "telluric"
        np.testing.assert_allclose(fit.covariance(mask).value, full[np.ix_(mask, mask)], rtol=1e-9, atol=1e-20)
        np.testing.assert_allclose(fit.covariance(mask.tolist()).value, fit.covariance(mask).value)
        np.testing.assert_allclose(fit.covariance(slice(3, 30, 4)).value, full[3:30:4, 3:30:4], rtol=1e-9, atol=1e-20)
        for rows in (index[:4], mask, slice(3, 9)):
            np.testing.assert_allclose(fit.covariance(fit.lines[rows]).value, fit.covariance(rows).value, rtol=1e-9)

    def test_a_table_in_another_order_and_with_fewer_columns(self, template):
        rows = template.lines[[2, 0]]["line_center", "strength", "component"]
        np.testing.assert_array_equal(template.covariance(rows), template.covariance([2, 0]))

    def test_lines_at_one_wavelength(self):
        flux = Spectrum(flux=flux_of() * u.Jy, spectral_axis=WAVE * u.AA,
                        uncertainty=StdDevUncertainty(np.full(WAVE.size, NOISE)))  # fmt: skip
        lines = QTable({"line_center": [5002.0, 5002.0, 5006.0] * u.AA, "fwhm_gauss": [0.18, 0.3, 0.18] * u.AA})
        with pytest.warns(BlaseWarning, match="differs from the spectrum by .* of its uncertainties"):
            twice = clone_spectrum(flux, lines=lines, free="strength", continuum_degree=0)
        matrix = twice.covariance(twice.lines[:2])
        np.testing.assert_array_equal(matrix, twice.covariance([0, 1]))
        assert matrix[0, 1] < 0 < matrix[0, 0]

    @pytest.mark.parametrize(("error", "match", "lines"), [
        (IndexError, "lines must be numbers of rows, a mask or a slice for 3 lines, got 3; see", 3),
        (IndexError, "lines must be numbers of rows", [0, 5]),
        (IndexError, "lines must be numbers of rows", np.array([True, False])),
        (IndexError, "lines must be numbers of rows", 0.5),
        (IndexError, "lines must be numbers of rows, .*, got 'strongest'", "strongest"),
        (ValueError, "lines must name at least one line, in one dimension", []),
        (ValueError, "lines must name at least one line, in one dimension", slice(3, None)),
        (ValueError, "lines must name at least one line, in one dimension", np.zeros(3, dtype=bool)),
        (ValueError, "lines must name at least one line, in one dimension", np.zeros((2, 2), dtype=int)),
        (ValueError, "lines must name at least one line, in one dimension", None),
        (ValueError, r"got a table without \['component'\]; select rows", QTable({"line_center": [5002.0] * u.AA})),
        (ValueError, "got one at 5003.0000 Angstrom that it does not have",
         QTable({"line_center": [5003.0] * u.AA, "component": ["star"]})),
    ])  # fmt: skip
    def test_messages(self, template, error, match, lines):
        with pytest.raises(error, match=match):
            template.covariance(lines)

    @pytest.mark.parametrize("name", ["flags", "strength_err", None, ["strength"]])
    def test_quantity(self, template, name):
        with pytest.raises(ValueError, match=r"quantity must be one of \('line_center', .*; choose"):
            template.covariance(0, name)


class TestUnknown:
    def test_in_files_and_in_the_templates_of_a_fit(self, fit, template, tmp_path):
        fit.write(tmp_path / "fit.asdf")
        template.write(tmp_path / "template.asdf")
        back = SpectrumFit.read(tmp_path / "fit.asdf")
        for thing in (back, back.template, LineTemplate.read(tmp_path / "template.asdf"), fit.template, fit.telluric):
            with pytest.raises(ValueError, match="covariances between lines are not known here.*ask what fit_spectrum"):
                thing.covariance(0)


def assert_sums(result):
    """The columns of the blends are what the covariance says."""
    lines, blend = result.lines, np.asarray(result.lines["blend"])
    flags = np.asarray(lines["flags"])
    np.testing.assert_array_equal(blend >= 0, (flags & BLENDED) > 0)
    alone = blend < 0
    np.testing.assert_array_equal(lines["blend_equivalent_width"][alone], lines["equivalent_width"][alone])
    np.testing.assert_allclose(lines["blend_equivalent_width_err"][alone], lines["equivalent_width_err"][alone],
                               rtol=1e-9, atol=1e-18 * u.AA)  # fmt: skip
    numbers = np.unique(blend[~alone])
    np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
    for number in numbers:
        mine = np.flatnonzero(blend == number)
        assert mine.size > 1
        total, error = (u.Quantity(lines[name][mine]) for name in ("blend_equivalent_width",
                                                                  "blend_equivalent_width_err"))  # fmt: skip
        np.testing.assert_allclose(total, lines["equivalent_width"][mine].sum(), rtol=1e-12)
        variance = result.covariance(mine, "equivalent_width").sum()
        np.testing.assert_allclose(error, np.sqrt(variance), rtol=1e-4)
    return len(numbers)


class TestBlends:
    def test_of_a_fit_and_of_its_clones(self, fit, parts):
        assert assert_sums(fit) > 1
        for clone in parts[1:]:
            assert_sums(clone)

    def test_the_sum_is_known_better_than_its_parts(self, template):
        assert assert_sums(template) == 1
        lines = template.lines
        assert lines["blend"].tolist() == [-1, 0, 0]
        assert lines["blend_equivalent_width_err"][1] < 0.5 * lines["equivalent_width_err"][1:].min()
        truth = sum(clone_truth(k) for k in (1, 2))
        off = abs(lines["blend_equivalent_width"][1].value - truth)
        assert off < 4 * lines["blend_equivalent_width_err"][1].value

    def test_pulls_of_the_sum(self):
        pulls = []
        for seed in range(60):
            lines = clone(seed).lines
            off = lines["blend_equivalent_width"].value - [clone_truth(0), *[clone_truth(1) + clone_truth(2)] * 2]
            assert lines["blend"].tolist() == [-1, 0, 0]
            pulls.append((off / lines["blend_equivalent_width_err"].value)[:2])
        assert np.all(np.abs(np.mean(pulls, axis=0)) < 4 / np.sqrt(60))
        np.testing.assert_allclose(np.std(pulls, axis=0), 1.0, atol=4 / np.sqrt(120))

    def test_lines_that_are_fixed_are_in_none(self):
        lines = clone(free="fwhm").lines
        assert lines["blend"].tolist() == [-1] * 3

    def test_numbers_in_the_updated_template(self, parts):
        """Lines outside of the order keep the blends of the clone, and no number is used twice."""
        spectrum, star, sky = parts
        options = {"free": {"star": ("strength", "fwhm", "x_0"), "telluric": ("strength",)},
                   "window": SpectralRegion(10510 * u.AA, 10519 * u.AA),
                   "prior": GaussianPrior(strength=0.5)}  # fmt: skip
        first = fit_parts(parts, **options).lines["line_center"].value
        lines = star.lines.copy()
        center = lines["line_center"].value
        outside = np.flatnonzero(np.abs(center[:, None] - first).min(axis=1) > 0.3)[:2]
        lines["blend"] = np.where(np.isin(np.arange(len(lines)), outside), 0, -1)
        fit = fit_parts((spectrum, replace(star, lines=lines), sky), **options)
        blend, center = np.asarray(fit.template.lines["blend"]), fit.template.lines["line_center"].value
        fitted = np.isin(center, fit.lines["line_center"].value)
        far = np.isin(center, star.lines["line_center"].value[outside])
        assert far.sum() == 2 and not fitted[far].any()
        of_fit = np.asarray(fit.lines["blend"])[components(fit) == "star"]
        np.testing.assert_array_equal(blend[fitted], of_fit)
        assert of_fit.max() >= 0 and np.unique(blend[far]).size == 1 and blend[far][0] > of_fit.max()


def clone_truth(k):
    """Equivalent width [Angstrom] of the line k of the truth, by quadrature."""
    fine = np.arange(-60.0, 60.0, 0.002)
    return np.sum(-np.expm1(-STRENGTH[k] * voigt_profile(fine, GAUSS / FWHM_PER_SIGMA, LORENTZ / 2))) * 0.002
