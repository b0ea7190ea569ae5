"""The LSF descriptions: what they accept, what they say, and the numbers they give."""

import numpy as np
import pytest
import scipy.sparse
from astropy import units as u
from astropy.io import fits

from specutils_blase.instrument import BandedLSF, GaussianLSF, MeasuredLSF, ResolvingPower, as_lsf, line_shapes

WAVE = np.array([5000.0, 8000.0, 12_500.0])
SPEED_OF_LIGHT = 299_792.458  # km/s


def desi_layout(matrix, n_diag):
    """Bands of a dense matrix, by hand and in DESI's order: highest offset (column - row) first."""
    n_pix = len(matrix)
    bands = np.zeros((n_diag, n_pix))
    for k in range(n_diag):
        offset = n_diag // 2 - k
        for j in range(n_pix):
            if 0 <= j - offset < n_pix:
                bands[k, j] = matrix[j - offset, j]
    return bands


@pytest.fixture
def matrix():
    """A band matrix without any symmetry."""
    rng = np.random.default_rng(3)
    row, col = np.indices((12, 12))
    return np.where(np.abs(row - col) <= 2, rng.uniform(0.1, 1.0, (12, 12)), 0.0)


# ------------------------------------------------------------------------------------------------ resolving power


@pytest.mark.parametrize(
    "value", [55_000, 55_000.0, np.float32(55_000), np.array(55_000), 55_000 * u.one, 55 * u.Unit(1000)]
)
def test_constant_resolving_power(value):
    lsf = ResolvingPower(value)
    assert type(lsf.R) is float
    np.testing.assert_array_equal(lsf.resolving_power(WAVE), [55_000.0] * 3)


@pytest.mark.parametrize(
    "function",
    [
        lambda wave: 5 * wave.to_value(u.AA),
        lambda wave: wave / (0.02 * u.nm),
        lambda wave: (wave / (0.2 * u.AA)).to(u.one),
    ],
    ids=["array", "nm", "dimensionless"],
)
def test_resolving_power_that_changes_with_wavelength(function):
    np.testing.assert_allclose(ResolvingPower(function).resolving_power(WAVE), [25_000, 40_000, 62_500], rtol=1e-14)


def test_callable_may_return_one_value():
    values = ResolvingPower(lambda wave: 3000).resolving_power(WAVE)
    values[0] = 1.0  # a fresh array, not one number seen three times
    np.testing.assert_array_equal(values, [1.0, 3000.0, 3000.0])


def test_fixed_unless_asked():
    assert not ResolvingPower(3000).free
    assert ResolvingPower(lambda wave: 3000, free=True).free
    assert GaussianLSF(1 * u.AA, free=True).free


def test_descriptions_with_equal_numbers_are_equal():
    assert ResolvingPower(3000) == ResolvingPower(3000.0)
    assert ResolvingPower(3000) != ResolvingPower(3000, free=True)


# --------------------------------------------------------------------------------------------------- constant width


@pytest.mark.parametrize("fwhm", [0.2 * u.AA, 0.02 * u.nm, 2e-5 * u.um])
def test_width_in_wavelength(fwhm):
    np.testing.assert_allclose(GaussianLSF(fwhm).resolving_power(WAVE), [25_000, 40_000, 62_500], rtol=1e-14)


@pytest.mark.parametrize("fwhm", [5 * u.km / u.s, 5000 * u.m / u.s])
def test_width_in_velocity(fwhm):
    np.testing.assert_allclose(GaussianLSF(fwhm).resolving_power(WAVE), [SPEED_OF_LIGHT / 5] * 3, rtol=1e-14)


# -------------------------------------------------------------------------------------------------- other profiles


def test_gauss_hermite_terms():
    lsf = ResolvingPower(50_000, h3=np.float32(0.25), h4=-0.3)
    assert type(lsf.h3) is float and (lsf.h3, lsf.h4) == (0.25, -0.3)
    assert not lsf.is_gaussian and not ResolvingPower(50_000, free_shape=True).is_gaussian
    assert ResolvingPower(50_000, free=True, degree=1).is_gaussian


def test_measured_profile_is_a_copy_with_the_integral_one():
    velocity, profile = np.array([-4000.0, -1000.0, 0.0, 1000.0, 5000.0]), np.array([0, 3, 8, 4, -1], dtype=">i2")
    lsf = MeasuredLSF(velocity * u.m / u.s, profile * u.adu)
    assert np.trapezoid(lsf.profile, lsf.velocity.to_value(u.km / u.s)) == pytest.approx(1.0, rel=1e-14)
    np.testing.assert_allclose(lsf.velocity.to_value(u.km / u.s), velocity / 1000, rtol=1e-14)
    np.testing.assert_allclose(lsf.profile / lsf.profile[2], profile / 8, rtol=1e-14)
    assert not np.shares_memory(lsf.profile, profile)
    with pytest.raises(ValueError, match="read-only"):
        lsf.profile[0] = 1.0
    assert as_lsf(lsf) is lsf


@pytest.mark.parametrize(
    ("velocity", "profile", "width"),
    [
        ([-3, 0, 3], [0, 1, 0], 3.0),
        ([-3, 0, 3], [0, 1, 1], 4.5),
        ([0, 4], [1, 1], 4.0),
        ([0, 1, 2, 3, 4, 6], [0, 1, 0.4, 0.9, 0.1, 0.1], 3.5 - 0.5),  # between the outermost halves
    ],
)
def test_resolving_power_of_a_measured_profile(velocity, profile, width):
    found = MeasuredLSF(velocity * u.km / u.s, profile).resolving_power(WAVE)
    np.testing.assert_allclose(found, np.full(3, SPEED_OF_LIGHT / width), rtol=1e-12)


def test_shapes_of_gaussians_are_none():
    part = np.array([0, 1, 1])
    assert line_shapes([ResolvingPower(5e4), GaussianLSF(1 * u.AA)], part) == {}
    assert line_shapes([None, None], part) == {}
    shapes = line_shapes([ResolvingPower(5e4), ResolvingPower(5e4, h4=0.1)], part)
    np.testing.assert_array_equal(shapes["hermite"], [[0, 0], [0, 0.1], [0, 0.1]])
    assert shapes["free_hermite"] is False


# ------------------------------------------------------------------------------------------------- resolution matrix


def test_triplets_rebuild_the_matrix(matrix):
    rows, cols, values = BandedLSF(desi_layout(matrix, 5)).triplets()
    dense = np.zeros_like(matrix)
    np.add.at(dense, (rows, cols), values)
    np.testing.assert_array_equal(dense, matrix)
    assert (np.diff(rows) >= 0).all()
    assert rows.dtype == cols.dtype == np.int64


def test_layout_is_that_of_scipy(matrix):
    lsf = BandedLSF(desi_layout(matrix, 5))
    dia = scipy.sparse.dia_matrix((lsf.bands, lsf.offsets), shape=matrix.shape)
    np.testing.assert_array_equal(dia.toarray(), matrix)
    np.testing.assert_array_equal(lsf.offsets, [2, 1, 0, -1, -2])


def test_any_set_of_offsets(matrix):
    lower = np.tril(matrix)
    dia = scipy.sparse.dia_matrix(lower)
    rows, cols, values = BandedLSF(dia.data, dia.offsets).triplets()
    np.testing.assert_array_equal(scipy.sparse.coo_matrix((values, (rows, cols)), lower.shape).toarray(), lower)


def test_meaningless_corners_are_left_out(matrix):
    bands = desi_layout(matrix, 5)
    bands[0, :2] = bands[4, -2:] = 99.0
    assert BandedLSF(bands).triplets()[2].max() < 1.0


def test_bands_are_kept_apart_from_the_input(matrix):
    bands = desi_layout(matrix, 5).astype(">f4")
    lsf = BandedLSF(bands)
    bands[:] = 0
    assert lsf.bands.dtype == np.float64
    assert lsf.bands.any()
    with pytest.raises(ValueError, match="read-only"):
        lsf.bands[0, 0] = 1.0


def test_from_desi_takes_one_spectrum(matrix):
    data = desi_layout(matrix, 5)[np.newaxis].astype(">f4")
    np.testing.assert_array_equal(BandedLSF.from_desi(data).bands, data[0])
    np.testing.assert_array_equal(BandedLSF.from_desi(data[0]).bands, data[0])
    with pytest.raises(ValueError, match=r"resolution_data must .* got \(2, 5, 12\); choose one spectrum"):
        BandedLSF.from_desi(np.concatenate([data, data]))


def test_real_desi_matrix(shared_data):
    with fits.open(shared_data / "galaxy" / "desi_fastspecfit_coadd-special-dark-27247.fits") as hdus:
        lsf = BandedLSF.from_desi(hdus["R_RESOLUTION"].data)
        wave = hdus["R_WAVELENGTH"].data.astype(float)
    rows, cols, values = lsf.triplets()
    total = np.bincount(rows, values)
    # Every row sums to one: a constant stays a constant. With rows and columns swapped 0.2 would be missing in places.
    np.testing.assert_allclose(total[20:-20], 1.0, atol=0.002)
    variance = np.bincount(rows, values * (wave[cols] - wave[rows]) ** 2) / total
    resolving = wave / (2.354820045 * np.sqrt(variance))
    assert 2500 < np.median(resolving) < 5500  # DESI collaboration 2022: about 3000 to 5000 in the red camera


# -------------------------------------------------------------------------------------------------- what users write


def test_as_lsf():
    assert as_lsf(None) is None
    assert as_lsf(55_000) == ResolvingPower(55_000)
    assert as_lsf(55_000 * u.one) == ResolvingPower(55_000)

    def resolving_power(wave):
        return wave / (0.2 * u.AA)

    assert as_lsf(resolving_power) == ResolvingPower(resolving_power)
    assert isinstance(as_lsf(np.ones((3, 9))), BandedLSF)
    assert isinstance(as_lsf(np.ones((3, 9)).tolist()), BandedLSF)


@pytest.mark.parametrize("lsf", [ResolvingPower(3000, free=True), GaussianLSF(2 * u.AA), BandedLSF(np.ones((3, 9)))])
def test_as_lsf_keeps_objects(lsf):
    assert as_lsf(lsf) is lsf


def test_as_lsf_takes_scipy_diagonals(matrix):
    lsf = as_lsf(scipy.sparse.dia_matrix(np.triu(matrix)))
    rows, cols, values = lsf.triplets()
    np.testing.assert_array_equal(
        scipy.sparse.coo_matrix((values, (rows, cols)), matrix.shape).toarray(), np.triu(matrix)
    )


# -------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("value", [0, -55_000, np.nan, np.inf])
def test_number_must_be_positive(value):
    for name, make in (("R", ResolvingPower), ("lsf", as_lsf), ("fwhm", lambda v: GaussianLSF(v * u.AA))):
        with pytest.raises(ValueError, match=rf"^{name} must be finite and positive, got {value}.*; correct.*lsf=None"):
            make(value)


@pytest.mark.parametrize("value", ["55000", [55_000, 60_000], np.ones(5), True, None])
def test_resolving_power_must_be_one_number(value):
    with pytest.raises(TypeError, match="^R must be one positive number, got .*; .* function R"):
        ResolvingPower(value)


@pytest.mark.parametrize("value", ["55000", np.ones(5), True, {}])
def test_as_lsf_names_its_argument(value):
    with pytest.raises(TypeError, match="^lsf must be one positive number, got "):
        as_lsf(value)


def test_quantity_is_no_resolving_power():
    with pytest.raises(u.UnitsError, match="^lsf must be dimensionless, got 0.2 Angstrom; .*GaussianLSF"):
        as_lsf(0.2 * u.AA)
    with pytest.raises(u.UnitsError, match="^lsf must be dimensionless"):
        as_lsf(np.ones((3, 9)) * u.AA)


@pytest.mark.parametrize(
    ("function", "error", "text"),
    [
        (lambda wave: wave, u.UnitsError, "dimensionless values, got the unit 'Angstrom'; return"),
        (lambda wave: np.ones(2), ValueError, r"one value or one for each .* \(3,\), got shape \(2,\); write"),
        (lambda wave: np.ones((2, 3)), ValueError, r"one value or one for each .* \(3,\), got shape \(2, 3\); write"),
        (lambda wave: [1, np.nan, 1], ValueError, "finite positive values, got nan at 8000 Angstrom; define"),
        (lambda wave: [1, 1, 0], ValueError, "finite positive values, got 0.0 at 12500 Angstrom; define"),
        (lambda wave: -wave.value, ValueError, "finite positive values, got -5000.0 at 5000 Angstrom; define"),
        (lambda wave: "55000", TypeError, "real numbers, got '55000'; return wavelength / FWHM"),
        (lambda wave: ["a", "b", "c"], TypeError, r"real numbers, got \['a', 'b', 'c'\]; return"),
        (lambda wave: None, TypeError, "real numbers, got None; return"),
        (lambda wave: wave > 0, TypeError, r"real numbers, got array\(\[ True, True, True\]\); return"),
        (lambda wave: 5e4 + 1j * wave.value, TypeError, r"real numbers, got array\(\[50000.{,60}; return"),
        (lambda wave: [[1], [1, 2], [3]], TypeError, r"real numbers, got \[\[1\], \[1, 2\], \[3\]\]; return"),
    ],
)
def test_callable_is_checked(function, error, text):
    for lsf in (ResolvingPower(function), as_lsf(function)):
        with pytest.raises(error, match=rf"^lsf as a function R\(wavelength\) must return {text}"):
            lsf.resolving_power(WAVE)


@pytest.mark.parametrize(
    ("fwhm", "error", "text"),
    [
        (0.2, TypeError, "fwhm must be a Quantity, a length or a speed, got 0.2; write"),
        (3 * u.GHz, u.UnitsError, "fwhm must be a length or a speed, got the unit 'GHz'; convert"),
        ([1, 2] * u.AA, TypeError, "fwhm must be one positive number"),
    ],
)
def test_width_is_checked(fwhm, error, text):
    with pytest.raises(error, match=text):
        GaussianLSF(fwhm)


@pytest.mark.parametrize("make", [lambda: ResolvingPower(3000, free=1), lambda: GaussianLSF(1 * u.AA, free="yes")])
def test_free_is_a_flag(make):
    with pytest.raises(TypeError, match="free must be True or False"):
        make()


@pytest.mark.parametrize(
    ("shape", "error", "text"),
    [
        ({"h3": 0.31}, ValueError, "h3 must lie between -0.3 and 0.3, got 0.31; .*MeasuredLSF"),
        ({"h4": np.nan}, ValueError, "h4 must lie between -0.3 and 0.3, got nan"),
        ({"h3": [0.1, 0.1]}, TypeError, "h3 must be one number"),
        ({"h4": True}, TypeError, "h4 must be one number, got True"),
        ({"free_shape": 1}, TypeError, "free_shape must be True or False"),
    ],
)
def test_gauss_hermite_terms_are_checked(shape, error, text):
    with pytest.raises(error, match=text):
        ResolvingPower(50_000, **shape)


@pytest.mark.parametrize(
    ("velocity", "profile", "error", "text"),
    [
        ([-1, 0, 1], [0, 1, 0], TypeError, "velocity must be a Quantity, a speed, got list"),
        ([-1, 0, 1] * u.AA, [0, 1, 0], u.UnitsError, "velocity must be a speed, got the unit 'Angstrom'"),
        ([[-1, 0, 1]] * u.km / u.s, [[0, 1, 0]], ValueError, r"velocity must have the shape \(n,\).*got \(1, 3\)"),
        ([0] * u.km / u.s, [1], ValueError, r"velocity must have the shape \(n,\), n at least 2, got \(1,\)"),
        ([-1, 1, 0] * u.km / u.s, [0, 1, 0], ValueError, "velocity must increase from each sample to the next"),
        ([-1, 0, np.nan] * u.km / u.s, [0, 1, 0], ValueError, "velocity must increase"),
        ([-1, 0, 1e5] * u.km / u.s, [0, 1, 0], ValueError, "velocity must be within 20000 km / s of zero"),
        ([-1, 0, 1] * u.km / u.s, [0, 1], ValueError, r"profile must have a finite value .*\(3,\), got shape \(2,\)"),
        ([-1, 0, 1] * u.km / u.s, [0, 1, np.inf], ValueError, "profile must have a finite value .* got other values"),
        ([-1, 0, 1] * u.km / u.s, [0, -1, 0], ValueError, "profile must have a positive integral, got -1 km / s"),
        ([-1, 0, 1] * u.km / u.s, "010", TypeError, "profile must be an array of numbers, got str"),
    ],
)
def test_measured_profile_is_checked(velocity, profile, error, text):
    with pytest.raises(error, match=text):
        MeasuredLSF(velocity, profile)


@pytest.mark.parametrize(
    ("bands", "offsets", "text"),
    [
        (np.ones(9), None, r"bands must have the shape \(n_diag, n_pix\)"),
        (np.ones((2, 3, 9)), None, r"got \(2, 3, 9\); choose one"),
        (np.ones((9, 3)), None, r"got \(9, 3\); .* transpose"),
        (np.ones((0, 3)), None, r"got \(0, 3\)"),
        (np.full((3, 9), np.nan), None, "bands must be finite, got 27"),
        (np.ones((4, 9)), None, "odd number of diagonals, got 4; or give offsets"),
        (np.ones((3, 9)), [0, 1], r"offsets must be 3 integers, got shape \(2,\)"),
        (np.ones((3, 9)), [0.0, 1.0, 2.0], "offsets must be 3 integers, got .* float64"),
        (np.ones((3, 9)), [0, 1, 1], "offsets must differ"),
        (np.ones((3, 9)), [0, 1, 9], r"lie inside \+-8"),
    ],
)
def test_matrix_is_checked(bands, offsets, text):
    with pytest.raises(ValueError, match=text):
        BandedLSF(bands, offsets)


def test_a_class_is_no_lsf():
    with pytest.raises(TypeError, match="lsf must be an LSF, not its class, got GaussianLSF; call the class"):
        as_lsf(GaussianLSF)


def test_a_function_that_cannot_take_units_is_explained():
    with pytest.raises(u.UnitsError, match=r"lsf as a function R\(wavelength\) must take wavelengths with their unit"):
        as_lsf(lambda wave: 5e4 + wave).resolving_power(np.array([5000.0]))


def test_an_array_is_not_printed_whole():
    with pytest.raises(TypeError, match=r"got an array of shape \(400,\)"):
        as_lsf(np.full(400, 55_000.0))
