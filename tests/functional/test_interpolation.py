"""Shifts of tabulated spectra, against polynomials of scipy and signals whose shift is known."""

import numpy as np
import pytest
import torch
from scipy.interpolate import BarycentricInterpolator, lagrange

from specutils_blase.functional.interpolation import shifted


def shifted_array(values, position, n):
    return shifted(torch.as_tensor(values), torch.as_tensor(position, dtype=torch.float64), n).numpy()


@pytest.mark.parametrize("position", [3.0, 3.25, 5.5, 7.999])
def test_polynomial_through_four_samples(position):
    values = np.random.default_rng(1).standard_normal(16)
    got = shifted_array(values, [position], 4)[0]
    for k, where in enumerate(position + np.arange(4)):
        nodes = np.floor(where) + np.arange(-1, 3)
        four = values[nodes.astype(int)]
        assert got[k] == pytest.approx(float(BarycentricInterpolator(nodes, four)(where)), abs=1e-12)
        assert got[k] == pytest.approx(lagrange(nodes - nodes[0], four)(where - nodes[0]), abs=1e-10)


def test_cubic_polynomials_are_exact():
    x = np.arange(30.0)
    table = np.stack([np.ones(30), x, x**2, (x - 7.3) ** 3])
    position = np.array([1.7, 4.2, 9.999, 12.5])
    got = shifted_array(table, position, 12)
    where = position[:, None] + np.arange(12)
    wanted = np.stack([np.ones(12), where[1], where[2] ** 2, (where[3] - 7.3) ** 3])
    np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize("fraction", [0.0, 0.13, 0.5, 0.87])
def test_against_the_shift_theorem(fraction):
    # Waves that are long against the spacing, periodic on the table; error by the bound in the docstring.
    n, random = 256, np.random.default_rng(2)
    amplitude, omega = np.zeros(n // 2 + 1, dtype=complex), 2 * np.pi * np.arange(n // 2 + 1) / n
    amplitude[1:20] = random.standard_normal(19) + 1j * random.standard_normal(19)
    signal = np.fft.irfft(amplitude, n)
    exact = np.fft.irfft(amplitude * np.exp(1j * omega * fraction), n)
    got = shifted_array(signal, [10.0 + fraction], 200)[0]
    bound = 3 / 128 * 2 / n * (np.abs(amplitude) * omega**4).sum()
    assert np.abs(got - exact[10:210]).max() <= bound + 1e-14
    if fraction == 0.5:
        assert np.abs(got - exact[10:210]).max() > 0.05 * bound


def test_error_of_a_narrow_line():
    x = np.arange(60.0)
    shifts = np.linspace(0.0, 1.0, 21)
    got = shifted_array(np.exp(-0.5 * ((x - 30) / 2) ** 2), 10 + shifts, 40)
    error = got - np.exp(-0.5 * ((shifts[:, None] + np.arange(40) + 10 - 30) / 2) ** 2)
    assert 0.002 < np.abs(error).max() < 0.0045


def test_ends_are_continued():
    values = np.array([2.0, 5.0, -1.0, 4.0, 3.0])
    got = shifted_array(values, [-6.4], 20)[0]
    np.testing.assert_array_equal(got[:4], 2.0)  # samples -6.4 to -3.4
    np.testing.assert_allclose(got[13:], 3.0, rtol=1e-12)
    longer = np.concatenate([np.full(10, 2.0), values, np.full(20, 3.0)])
    np.testing.assert_allclose(got, shifted_array(longer, [3.6], 20)[0], rtol=1e-12, atol=1e-12)


def test_rows_are_independent_and_one_table_serves_all():
    random = np.random.default_rng(3)
    table, position = random.standard_normal((5, 40)), random.uniform(-3, 25, 5)
    together = shifted_array(table, position, 17)
    for k in range(5):
        np.testing.assert_array_equal(together[k], shifted_array(table[k], position[k : k + 1], 17)[0])
    one = shifted_array(table[2], position, 17)
    np.testing.assert_array_equal(one, shifted_array(np.tile(table[2], (5, 1)), position, 17))


def test_gradients():
    random = torch.Generator().manual_seed(0)
    values = torch.randn(3, 12, dtype=torch.float64, generator=random, requires_grad=True)
    position = torch.tensor([-1.3, 2.4, 8.71], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, p: shifted(v, p, 6), (values, position))
    assert torch.autograd.gradgradcheck(lambda v, p: shifted(v, p, 6), (values, position))


def test_position_keeps_its_digits_in_single_precision():
    # A table of 10,000 samples in float32: the place within a sample is still known to 1e-7.
    table = torch.arange(10_000, dtype=torch.float32)
    place = torch.tensor([9000.123456], dtype=torch.float64)
    double = shifted(table.double(), place, 5)
    assert float((shifted(table, place, 5) - double).abs().max()) < 1.5e-3  # eps of 9000 is 1e-3
    assert float((shifted(table - 9000, place, 5) - (double - 9000)).abs().max()) < 1e-5
