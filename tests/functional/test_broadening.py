import numpy as np
import pytest
import torch
from astropy import units as u
from scipy.integrate import quad

from specutils_blase.functional import (
    SPEED_OF_LIGHT,
    doppler_factor,
    kernel_half_size,
    rotation_kernel,
    rotational_broadening,
    velocity_grid,
)

LIMB_DARKENING = 0.6


def tensor(values):
    return torch.as_tensor(values, dtype=torch.float64)


def gaussian_line(wave, center, sigma):
    """A line of depth 0.7; sigma in km/s at the centre."""
    return 1.0 - 0.7 * np.exp(-0.5 * ((wave / center - 1.0) * SPEED_OF_LIGHT / sigma) ** 2)


def gray_profile(v, vsini, epsilon):
    x2 = min((v / vsini) ** 2, 1.0)
    numerator = 2.0 * (1.0 - epsilon) * np.sqrt(1.0 - x2) + 0.5 * np.pi * epsilon * (1.0 - x2)
    return numerator / (np.pi * vsini * (1.0 - epsilon / 3.0))


def brute_force(wave, center, sigma, vsini):
    """Integral over the disc of the exactly Doppler-shifted line, by adaptive quadrature at one wavelength."""

    def integrand(angle):
        v = vsini * np.sin(angle)
        shifted = gaussian_line(wave / doppler_factor(v).item(), center, sigma)
        return shifted * gray_profile(v, vsini, LIMB_DARKENING) * vsini * np.cos(angle)

    line = (wave / center - 1.0) * SPEED_OF_LIGHT
    breaks = np.arcsin(np.clip([line - 5.0 * sigma, line, line + 5.0 * sigma], -vsini, vsini) / vsini)
    return quad(integrand, -0.5 * np.pi, 0.5 * np.pi, points=np.unique(breaks), limit=200, epsabs=1e-10)[0]


def broaden(flux, vsini, step, epsilon=LIMB_DARKENING):
    return rotational_broadening(flux, rotation_kernel(vsini, epsilon, step, kernel_half_size(vsini, step)))


class TestAgainstQuadrature:
    # A line of sigma = 2 km/s on the default grid of 0.5 km/s; the error is that of interpolating the line.
    @pytest.mark.parametrize("center", [4000.0, 8500.0, 24_000.0])
    @pytest.mark.parametrize(("vsini", "tolerance"), [(0.3, 1e-5), (2.2, 1e-5), (30.0, 1e-6), (150.0, 1e-6)])
    def test_gaussian_line(self, center, vsini, tolerance):
        step, sigma = 0.5, 2.0
        stretch = np.exp(2.0 * (vsini + 10.0) / SPEED_OF_LIGHT)
        grid = velocity_grid(center / stretch, center * stretch, step)
        out = broaden(tensor(gaussian_line(grid.numpy(), center, sigma)), vsini, step).numpy()
        middle = len(grid) // 2
        velocities = np.array([0.0, 1.0, 2.0, 4.0, 0.5 * vsini, vsini - 1.0, vsini, vsini + 3.0])
        for k in middle + np.unique(np.round(velocities / step)).astype(int):
            assert out[k] == pytest.approx(brute_force(grid[k].item(), center, sigma, vsini), abs=tolerance)

    @pytest.mark.parametrize("vsini", [2.2, 30.0])
    def test_error_falls_with_the_sixth_power_of_the_step(self, vsini):
        errors = []
        for step in (1.0, 0.5):
            v = np.arange(-200, 201) * step
            flux = np.exp(-0.5 * (v / 2.5) ** 2)
            out = broaden(tensor(flux), vsini, step).numpy()
            fine_step = step / 16
            fine = np.exp(-0.5 * (np.arange(-3200, 3201) * fine_step / 2.5) ** 2)
            errors.append(np.abs(out - broaden(tensor(fine), vsini, fine_step).numpy()[::16]).max())
        assert errors[0] / errors[1] > 2**5.5
        assert errors[1] < 2e-6


class TestKernel:
    @pytest.mark.parametrize("epsilon", [0.0, 0.6, 1.0])
    @pytest.mark.parametrize("vsini", [1e-9, 0.3, 0.5, 2.2, 30.0, 150.0])
    def test_moments_are_those_of_the_profile(self, vsini, epsilon):
        step = 0.5
        half_size = kernel_half_size(vsini, step)
        kernel = rotation_kernel(vsini, epsilon, step, half_size).numpy()
        v = np.arange(-half_size, half_size + 1) * step
        norm = np.pi * (1.0 - epsilon / 3.0)
        # Integrals of x^m sqrt(1 - x^2) and x^m (1 - x^2) over [-1, 1].
        second = (2.0 * (1.0 - epsilon) * np.pi / 8.0 + 0.5 * np.pi * epsilon * 4.0 / 15.0) / norm
        fourth = (2.0 * (1.0 - epsilon) * np.pi / 16.0 + 0.5 * np.pi * epsilon * 4.0 / 35.0) / norm
        assert kernel.sum() == pytest.approx(1.0, abs=1e-13)
        assert (kernel * v).sum() == pytest.approx(0.0, abs=1e-13 * max(vsini, 1.0))
        assert (kernel * v**2).sum() == pytest.approx(vsini**2 * second, rel=1e-10, abs=1e-13)
        assert (kernel * v**4).sum() == pytest.approx(vsini**4 * fourth, rel=1e-10, abs=1e-12)

    def test_symmetric(self):
        kernel = rotation_kernel(7.3, 0.6, 0.5, 20)
        assert torch.equal(kernel, kernel.flip(0))

    def test_larger_half_size_only_pads(self):
        small, large = rotation_kernel(2.2, 0.6, 0.5, 7), rotation_kernel(2.2, 0.6, 0.5, 12)
        torch.testing.assert_close(large[5:-5], small, rtol=1e-14, atol=1e-16)
        assert (large[:5] == 0.0).all()

    def test_no_rotation_is_the_identity(self):
        flux = tensor(np.random.default_rng(0).normal(size=50))
        torch.testing.assert_close(broaden(flux, 0.0, 0.5), flux, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(broaden(flux, 1e-8, 0.5), flux, rtol=0.0, atol=1e-7)

    @pytest.mark.parametrize("vsini", [0.3, 1.23, 14.2])
    def test_gradcheck(self, vsini):
        vsini, epsilon = tensor(vsini).requires_grad_(), tensor(0.6).requires_grad_()
        assert torch.autograd.gradcheck(lambda v, e: rotation_kernel(v, e, 0.5, 32), (vsini, epsilon))

    @pytest.mark.parametrize("vsini", [0.0, 0.5, 1.0])
    def test_gradient_is_finite_on_the_grid_points(self, vsini):
        vsini = tensor(vsini).requires_grad_()
        (rotation_kernel(vsini, 0.6, 0.5, 8) * torch.arange(17)).sum().backward()
        assert torch.isfinite(vsini.grad)

    @pytest.mark.parametrize(("change", "message"), [
        ({"step": 0.0}, "step must be finite and positive, got 0.0 km/s"),
        ({"step": float("nan")}, "step must be finite and positive"),
        ({"limb_darkening": 2.0}, "limb_darkening must lie between 0 and 1, got 2.0"),
    ])  # fmt: skip
    def test_arguments_out_of_range(self, change, message):
        with pytest.raises(ValueError, match=message):
            rotation_kernel(**{"vsini": 2.0, "limb_darkening": 0.6, "step": 0.5, "half_size": 9} | change)

    @pytest.mark.parametrize("name", ["vsini", "limb_darkening", "step"])
    @pytest.mark.parametrize("value", ["2", 2000 * u.m / u.s, torch.tensor([2.0, 2.0]), 2j])
    def test_no_numbers(self, name, value):
        with pytest.raises(TypeError, match=f"{name} must be a number or a scalar tensor, .* got .*2"):
            rotation_kernel(**{"vsini": 2.0, "limb_darkening": 0.6, "step": 0.5, "half_size": 9} | {name: value})

    @pytest.mark.parametrize("half_size", ["9", 9.0, None])
    def test_half_sizes_that_are_none(self, half_size):
        with pytest.raises(TypeError, match="half_size must be a whole number, got "):
            rotation_kernel(2.0, 0.6, 0.5, half_size)

    @pytest.mark.parametrize("vsini", [float("nan"), float("inf"), -5.0])
    def test_half_size_of_no_speed(self, vsini):
        with pytest.raises(ValueError, match="vsini must be finite and not negative, got"):
            kernel_half_size(vsini, 0.5)

    def test_arrays(self):
        with pytest.raises(TypeError, match="flux must be a Tensor of a floating-point type, got ndarray"):
            rotational_broadening(np.ones(9), torch.ones(3) / 3)

    def test_whole_numbers(self):
        with pytest.raises(TypeError, match="flux must be a Tensor of a floating-point type, got torch.int64"):
            rotational_broadening(torch.ones(9, dtype=torch.int64), torch.ones(3) / 3)

    def test_even_kernel(self):
        with pytest.raises(ValueError, match=r"kernel must have shape \(2 \* half_size \+ 1,\), got \(4,\)"):
            rotational_broadening(torch.ones(50), torch.full((4,), 0.25))

    @pytest.mark.parametrize(("vsini", "half_size"), [(-1.0, 9), (float("nan"), 9), (float("inf"), 9), (150.0, 300)])
    def test_bad_arguments(self, vsini, half_size):
        with pytest.raises(ValueError, match="vsini|half_size must be at least 302"):
            rotation_kernel(vsini, 0.6, 0.5, half_size)


class TestConvolution:
    # Within one block of the transform, over several, just filling them, and with a kernel longer than a block.
    @pytest.mark.parametrize("n_grid", [1, 150, 2048, 5000, 3 * 1988])
    @pytest.mark.parametrize("half_size", [0, 1, 30, 200, 1500])
    def test_agrees_with_numpy(self, half_size, n_grid):
        rng = np.random.default_rng(half_size)
        flux, kernel = rng.normal(size=n_grid), rng.normal(size=2 * half_size + 1)
        kernel += kernel[::-1]
        expected = np.convolve(np.pad(flux, half_size, mode="edge"), kernel, mode="valid")
        np.testing.assert_allclose(rotational_broadening(tensor(flux), tensor(kernel)).numpy(), expected, atol=1e-11)

    @pytest.mark.parametrize("vsini", [2.2, 150.0])
    def test_flat_stays_flat_up_to_the_ends(self, vsini):
        out = broaden(torch.full((400,), 3.0, dtype=torch.float64), vsini, 0.5)
        torch.testing.assert_close(out, torch.full_like(out, 3.0), rtol=1e-12, atol=0.0)

    def test_gradcheck_through_the_convolution(self):
        vsini = tensor(7.3).requires_grad_()
        flux = tensor(np.random.default_rng(2).normal(size=12)).requires_grad_()
        assert torch.autograd.gradcheck(
            lambda f, v: rotational_broadening(f, rotation_kernel(v, 0.6, 0.5, 20)), (flux, vsini)
        )

    def test_batch_is_a_loop(self):
        flux = tensor(np.random.default_rng(1).normal(size=(2, 3, 40)))
        out = broaden(flux, 3.0, 0.5)
        for i in range(2):
            for j in range(3):
                torch.testing.assert_close(out[i, j], broaden(flux[i, j], 3.0, 0.5), rtol=1e-13, atol=1e-14)

    def test_dtype_and_device_follow(self, device):
        kernel = rotation_kernel(torch.tensor(3.0, device=device), 0.6, 0.5, 9)
        out = rotational_broadening(torch.ones(40, device=device), kernel)
        assert out.dtype == torch.float32
        assert out.device.type == kernel.device.type == device.type
