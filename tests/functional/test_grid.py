import numpy as np
import pytest
import torch
from astropy import units as u
from hypothesis import given, settings
from hypothesis import strategies as st
from specutils import Spectrum

from specutils_blase.adapters import read_spectrum
from specutils_blase.functional import SPEED_OF_LIGHT, doppler_factor, pixel_edges, rest_wavelength, velocity_grid


def tensor(values):
    return torch.as_tensor(values, dtype=torch.float64)


class TestVelocityGrid:
    @settings(max_examples=50, deadline=None)
    @given(lower=st.floats(100.0, 5e4), width=st.floats(1e-4, 0.02), step=st.floats(0.2, 5.0))
    def test_uniform_in_velocity_and_covers(self, lower, width, step):
        upper = lower * (1.0 + width)
        wave = velocity_grid(lower, upper, step)
        assert wave.dtype == torch.float64
        assert wave[0].item() == pytest.approx(lower, rel=1e-15)
        assert upper * (1.0 - 1e-11) <= wave[-1].item() < upper * np.exp(1.01 * step / SPEED_OF_LIGHT)
        spacing = np.diff(np.log(wave.numpy())) * SPEED_OF_LIGHT
        np.testing.assert_allclose(spacing, step, atol=1e-9)

    @pytest.mark.parametrize("arguments", [(0.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.0, 2.0, 0.0), (1.0, float("inf"), 1.0)])
    def test_bad_arguments(self, arguments):
        with pytest.raises(ValueError, match="lower and upper|step"):
            velocity_grid(*arguments)


class TestDoppler:
    @pytest.mark.parametrize("velocity", [-120_000.0, -9.0, 0.0, 33.0, 250_000.0])
    def test_agrees_with_astropy(self, velocity):
        rest = 10_000.0 * u.AA
        observed = (velocity * u.km / u.s).to_value(u.AA, u.doppler_relativistic(rest))
        assert (10_000.0 * doppler_factor(velocity)).item() == pytest.approx(observed, rel=1e-13)
        assert rest_wavelength(tensor([observed]), velocity).item() == pytest.approx(10_000.0, rel=1e-13)

    def test_float32_velocity_keeps_float64_wavelengths(self):
        assert rest_wavelength(tensor([10_000.0]), torch.tensor(30.0)).dtype == torch.float64

    def test_gradcheck(self):
        velocity = tensor(-9.0).requires_grad_()
        assert torch.autograd.gradcheck(lambda v: rest_wavelength(tensor([8000.0, 9000.0]), v), velocity, rtol=1e-6)


class TestPixelEdges:
    def test_midpoints_of_a_smooth_grid(self):
        centers = 8000.0 * np.exp(np.arange(50) * 1e-5)
        edges = pixel_edges(tensor(centers)).numpy()
        middle = 0.5 * (centers[1:] + centers[:-1])
        np.testing.assert_array_equal(edges[1:, 0], middle)
        np.testing.assert_array_equal(edges[:-1, 1], middle)
        assert edges[0, 0] == pytest.approx(centers[0] - 0.5 * (centers[1] - centers[0]))
        assert edges[-1, 1] == pytest.approx(centers[-1] + 0.5 * (centers[-1] - centers[-2]))

    @settings(max_examples=100, deadline=None)
    @given(
        lengths=st.lists(st.integers(7, 12), min_size=1, max_size=4),
        gaps=st.lists(st.floats(1.9, 1000.0), min_size=3, max_size=3),
    )
    def test_no_pixel_reaches_into_a_gap(self, lengths, gaps):
        spacings = [1.0] * (lengths[0] - 1)
        for length, gap in zip(lengths[1:], gaps, strict=False):
            spacings += [gap] + [1.0] * (length - 1)
        centers = 5000.0 + np.concatenate([[0.0], np.cumsum(spacings)])
        edges = pixel_edges(tensor(centers)).numpy()
        np.testing.assert_allclose(edges[:, 0], centers - 0.5, atol=1e-8)
        np.testing.assert_allclose(edges[:, 1], centers + 0.5, atol=1e-8)

    @pytest.mark.parametrize("right_spacing", [0.7, 1.4])
    def test_pixel_beside_a_gap_is_as_wide_as_its_other_side_says(self, right_spacing):
        left, right = np.arange(9.0), 20.0 + right_spacing * np.arange(9.0)
        edges = pixel_edges(tensor(np.concatenate([left, right]))).numpy()
        assert edges[8].tolist() == [7.5, 8.5]
        np.testing.assert_allclose(edges[9], [20.0 - 0.5 * right_spacing, 20.0 + 0.5 * right_spacing])

    def test_isolated_pixels_between_gaps(self):
        centers = np.concatenate([np.arange(8.0), [20.0, 30.0], np.arange(40.0, 48.0)])
        edges = pixel_edges(tensor(centers)).numpy()
        np.testing.assert_allclose(edges[:, 1] - edges[:, 0], 1.0)

    def test_single_missing_pixel_is_a_gap(self):
        centers = np.delete(np.arange(20.0), 9)
        edges = pixel_edges(tensor(centers)).numpy()
        np.testing.assert_allclose(edges, np.stack([centers - 0.5, centers + 0.5], axis=1))

    def test_wider_binning_from_some_pixel_on_is_no_gap(self):
        centers = np.concatenate([np.arange(0.0, 20.0), np.arange(21.0, 61.0, 2.0)])
        edges = pixel_edges(tensor(centers)).numpy()
        np.testing.assert_allclose(edges[1:, 0], edges[:-1, 1])

    def test_two_pixels(self):
        np.testing.assert_array_equal(pixel_edges(tensor([1.0, 3.0])).numpy(), [[0.0, 2.0], [2.0, 4.0]])

    @pytest.mark.parametrize(
        ("centers", "message"), [([1.0], "n >= 2"), ([1.0, 1.0], "increasing"), ([2.0, 1.0], "increasing")]
    )
    def test_bad_centers(self, centers, message):
        with pytest.raises(ValueError, match=message):
            pixel_edges(tensor(centers))

    @settings(max_examples=100, deadline=None)
    @given(
        spacing=st.lists(
            st.one_of(st.floats(0.5, 4.0), st.sampled_from([1.0, 1.0, 2.0, 30.0])), min_size=1, max_size=40
        )
    )
    def test_same_rule_as_for_a_spectrum(self, spacing):
        centers = 5000.0 + np.concatenate([[0.0], np.cumsum(spacing)])
        spectrum = Spectrum(flux=np.ones(centers.size) * u.Jy, spectral_axis=centers * u.AA)
        np.testing.assert_allclose(pixel_edges(tensor(centers)).numpy(), read_spectrum(spectrum).edges, rtol=1e-14)

    def test_device_follows(self, device):
        assert pixel_edges(torch.arange(9.0, device=device)).device.type == device.type
