import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import voigt_profile, wofz

from specutils_blase.functional import FWHM_PER_SIGMA, faddeeva, pseudo_voigt, voigt, voigt_derivatives

# On both sides of the line |x| + y = 8 where the algorithm changes, in the trough between core and wing, and far out.
HARD_POINTS = [
    (0.0, 0.0),
    (1e-9, 1e-12),
    (0.3, 2.0),
    (2.6, 1e-5),
    (5.4, 1e-6),
    (5.4, 0.0),
    (-6.1, 1e-4),
    (7.999999, 1e-9),
    (8.000001, 1e-9),
    (-4.0, 3.999999),
    (4.0, 4.000001),
    (0.0, 7.999999),
    (0.0, 8.000001),
    (12.0, 1e-3),
    (300.0, 1e-5),
    (1e5, 1e-8),
    (1e5, 1e4),
    (3.0, 1e4),
]


def tensor(values):
    return torch.as_tensor(values, dtype=torch.float64)


def contract_violation(re, x, y):
    """Error of Re w over the allowed one: 1e-9 of the value or 1e-12 of the line's peak."""
    expected = wofz(x + 1j * y).real
    peak = wofz(1j * y).real
    return np.abs(re - expected) / np.maximum(1e-9 * expected, 1e-12 * peak)


def exact(x, y):
    """w, w' and w'' with 60 digits."""
    with mpmath.workdps(60):
        z = mpmath.mpc(x, y)
        w = mpmath.exp(-z * z) * mpmath.erfc(-1j * z) if abs(z) < 20 else exact_far(z)
        w1 = -2 * z * w + 2j / mpmath.sqrt(mpmath.pi)
        return complex(w), complex(w1), complex(-2 * w - 2 * z * w1)


def exact_far(z):
    """Asymptotic series, where exp(-z^2) would need thousands of digits; its 20th term is below 1e-30 for |z| > 20."""
    terms = [mpmath.fac2(2 * k - 1) / (2 * z * z) ** k for k in range(1, 20)]
    return 1j / (mpmath.sqrt(mpmath.pi) * z) * (1 + mpmath.fsum(terms))


class TestFaddeeva:
    def test_real_part_over_the_whole_plane(self):
        y = np.concatenate([[0.0], np.logspace(-15, 4, 120)])[:, None]
        x = np.concatenate([[0.0], np.logspace(-6, 5, 300), np.linspace(0.0, 12.0, 400)])
        re, _ = faddeeva(tensor(x), tensor(y))
        assert contract_violation(re.numpy(), x, y).max() < 0.01

    def test_both_parts_are_accurate_to_rounding_of_the_modulus(self):
        y = np.concatenate([[0.0], np.logspace(-15, 4, 60)])[:, None]
        x = np.concatenate([-np.logspace(-3, 5, 200), np.linspace(-10.0, 10.0, 301)])
        re, im = faddeeva(tensor(x), tensor(y))
        expected = wofz(x + 1j * y)
        np.testing.assert_allclose((re + 1j * im).numpy(), expected, rtol=1e-12)

    @settings(max_examples=300, deadline=None)
    @given(x=st.floats(-1e5, 1e5), log_y=st.floats(-20.0, 4.0))
    def test_any_point(self, x, log_y):
        y = 10.0**log_y
        re, im = faddeeva(tensor(x), tensor(y))
        assert contract_violation(re.item(), x, y) < 0.01
        assert abs(im.item() - wofz(x + 1j * y).imag) <= 1e-12 * abs(wofz(x + 1j * y))

    @settings(max_examples=100, deadline=None)
    @given(y=st.floats(0.0, 8.0), side=st.sampled_from([-1.0, 1.0]), gap=st.floats(-1e-9, 1e-9))
    def test_no_seam_where_the_algorithm_changes(self, y, side, gap):
        x = side * (8.0 - y) + gap
        re, _ = faddeeva(tensor(x), tensor(y))
        assert contract_violation(re.item(), x, y) < 0.01

    @pytest.mark.parametrize(("x", "y"), HARD_POINTS)
    def test_value_at_hard_points(self, x, y):
        re, im = faddeeva(tensor(x), tensor(y))
        w, _, _ = exact(x, y)
        peak = exact(0.0, y)[0].real
        assert abs(re.item() - w.real) <= max(1e-11 * w.real, 3e-16 * peak)
        assert abs(im.item() - w.imag) <= 1e-12 * abs(w)

    @pytest.mark.parametrize(("x", "y"), HARD_POINTS)
    def test_derivatives_at_hard_points(self, x, y):
        x, y = tensor(x).requires_grad_(), tensor(y).requires_grad_()
        _, w1, w2 = exact(x.item(), y.item())
        re, im = faddeeva(x, y)
        re_x, re_y = torch.autograd.grad(re, (x, y), create_graph=True)
        im_x, im_y = torch.autograd.grad(im, (x, y))
        first = [re_x.item(), re_y.item(), im_x.item(), im_y.item()]
        np.testing.assert_allclose(first, [w1.real, -w1.imag, w1.imag, w1.real], atol=1e-11 * abs(w1))
        second = torch.autograd.grad(re_x, (x, y))
        np.testing.assert_allclose(second, [w2.real, -w2.imag], atol=1e-10 * abs(w2))

    def test_gradcheck(self):
        x = tensor([-9.0, -3.0, 0.0, 0.5, 6.5, 7.0, 20.0]).requires_grad_()
        y = tensor([0.1, 4.0, 0.3, 1e-3, 1.0, 2.0, 5.0]).requires_grad_()
        assert torch.autograd.gradcheck(faddeeva, (x, y))
        assert torch.autograd.gradgradcheck(faddeeva, (x, y))

    # torch itself warns when its forward mode is first used.
    @pytest.mark.filterwarnings("ignore:.*torch.jit.script")
    def test_forward_mode(self):
        x, y = tensor([-9.0, 0.0, 0.5, 6.5]), tensor([0.1, 0.3, 1e-3, 2.0])
        direction = 0.6 + 0.8j
        tangents = (torch.full_like(x, direction.real), torch.full_like(y, direction.imag))
        _, (re, im) = torch.func.jvp(faddeeva, (x, y), tangents)
        w1 = np.array([exact(*point)[1] for point in zip(x.tolist(), y.tolist(), strict=True)])
        np.testing.assert_allclose((re + 1j * im).numpy(), w1 * direction, rtol=1e-11)

    # forward modes of a torch.autograd.Function lose the mixed term when they are nested
    @pytest.mark.filterwarnings("ignore:.*torch.jit.script")
    @pytest.mark.parametrize("outer", [torch.func.jacfwd, torch.func.jacrev])
    @pytest.mark.parametrize("inner", [torch.func.jacfwd, torch.func.jacrev])
    @pytest.mark.parametrize(("x", "y"), [(0.0, 0.3), (0.5, 1e-3), (-3.0, 4.0), (6.5, 2.0), (20.0, 0.0), (1e3, 5.0)])
    def test_nested_transforms(self, outer, inner, x, y):
        hessian = outer(inner(lambda v: torch.stack(faddeeva(*v))))(tensor([x, y]))
        _, w1, w2 = exact(x, y)
        # w is analytic: d/dy = i d/dx
        expected = [[[w2.real, -w2.imag], [-w2.imag, -w2.real]], [[w2.imag, w2.real], [w2.real, -w2.imag]]]
        np.testing.assert_allclose(hessian.numpy(), expected, rtol=0, atol=1e-9 * abs(w2) + 1e-13)

    def test_vmap(self):
        x, y = tensor(np.linspace(-20.0, 20.0, 30)).reshape(5, 6), tensor(np.linspace(0.01, 3.0, 6))
        for in_dims in ((0, None), (1, 0)):
            batched = torch.func.vmap(faddeeva, in_dims)(x, y)
            for ours, plain in zip(batched, faddeeva(x, y), strict=True):
                expected = plain if in_dims[0] == 0 else plain.T
                torch.testing.assert_close(ours, expected, rtol=1e-13, atol=1e-15)

    def test_third_derivative_says_so(self):
        x = tensor(1.0).requires_grad_()
        slope = faddeeva(x, tensor(1.0))[0]
        for _ in range(2):
            (slope,) = torch.autograd.grad(slope, x, create_graph=True)
        with pytest.raises(NotImplementedError, match="twice"):
            torch.autograd.grad(slope, x)

    def test_gradients_are_finite_everywhere(self):
        x, y = np.meshgrid([0.0, 1e-300, 1e-9, 4.0, 8.0, 1e3, 1e5, 1e8], [0.0, 1e-300, 1e-9, 4.0, 8.0, 1e4])
        x, y = tensor(x).requires_grad_(), tensor(y).requires_grad_()
        re, im = faddeeva(x, y)
        (re + im).sum().backward()
        assert torch.isfinite(x.grad).all()
        assert torch.isfinite(y.grad).all()

    def test_odd_and_even_symmetry(self):
        x, y = tensor(np.linspace(0.0, 20.0, 50)), tensor(0.3)
        re, im = faddeeva(x, y)
        mirrored_re, mirrored_im = faddeeva(-x, y)
        torch.testing.assert_close(mirrored_re, re, rtol=1e-13, atol=0.0)
        torch.testing.assert_close(mirrored_im, -im, rtol=1e-13, atol=0.0)

    def test_many_blocks_equal_one_at_a_time(self):
        x = tensor(np.linspace(-20.0, 20.0, 40_001))
        re, _ = faddeeva(x, tensor(0.01))
        picked = [0, 16_383, 16_384, 20_000, 40_000]
        for k in picked:
            assert re[k].item() == pytest.approx(faddeeva(x[k], tensor(0.01))[0].item(), rel=1e-14)

    def test_dtype_and_device_follow(self, device):
        x = torch.linspace(-20.0, 20.0, 101, device=device)
        re, im = faddeeva(x, torch.tensor(0.5, dtype=torch.float64))
        assert re.dtype == im.dtype == torch.float32
        assert re.device.type == device.type
        np.testing.assert_allclose(re.cpu(), wofz(x.cpu().double().numpy() + 0.5j).real, atol=2e-6)


class TestVoigt:
    @pytest.mark.parametrize("ratio", [1e-5, 1e-2, 0.3, 1.0, 30.0, 1e3])
    def test_agrees_with_scipy(self, ratio):
        sigma = 0.05
        delta = np.concatenate([np.linspace(-1.0, 1.0, 401), np.logspace(0.0, 3.0, 50)])
        value = voigt(tensor(delta), sigma=tensor(sigma), gamma=tensor(ratio * sigma)).numpy()
        expected = voigt_profile(delta, sigma, ratio * sigma)
        assert (np.abs(value - expected) <= np.maximum(1e-9 * expected, 1e-12 * expected.max())).all()

    @pytest.mark.parametrize(("sigma", "gamma"), [(0.1, 0.001), (0.05, 0.05), (0.02, 0.3)])
    def test_area_is_one(self, sigma, gamma):
        def profile(delta):
            return voigt(tensor(delta), sigma=tensor(sigma), gamma=tensor(gamma)).item()

        area = 2.0 * (quad(profile, 0.0, 1.0, epsabs=1e-10)[0] + quad(profile, 1.0, np.inf, epsabs=1e-10)[0])
        assert area == pytest.approx(1.0, abs=1e-8)

    def test_widths_mean_what_they_say(self):
        half_gauss = voigt(tensor([0.0, 0.5 * FWHM_PER_SIGMA * 0.1]), sigma=tensor(0.1), gamma=tensor(0.0))
        assert (half_gauss[1] / half_gauss[0]).item() == pytest.approx(0.5, rel=1e-12)
        half_lorentz = voigt(tensor([0.0, 0.1]), sigma=tensor(1e-6), gamma=tensor(0.1))
        assert (half_lorentz[1] / half_lorentz[0]).item() == pytest.approx(0.5, rel=1e-8)

    @pytest.mark.parametrize("gamma", [1e-4, 0.07, 2.0])
    @pytest.mark.parametrize("delta", [-0.01, 0.3, 0.561, 4.0, 90.0])
    def test_derivatives_agree_with_mpmath(self, delta, gamma):
        def profile(d, s, g):
            z = (d + 1j * g) / (s * mpmath.sqrt(2))
            w = mpmath.exp(-z * z) * mpmath.erfc(-1j * z) if abs(z) < 20 else exact_far(z)
            return mpmath.re(w) / (s * mpmath.sqrt(2 * mpmath.pi))

        at = (delta, 0.1, gamma)
        result = voigt_derivatives(tensor(delta), sigma=tensor(0.1), gamma=tensor(gamma))
        with mpmath.workdps(40):
            orders = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
            expected = [float(mpmath.diff(profile, at, order)) for order in orders]
        for got, want in zip(result, expected, strict=True):
            # Rounding: 1e-15 of what the derivative is where the profile is steep, 1 / sigma^2 = 100.
            assert got.item() == pytest.approx(want, rel=1e-9, abs=1e-12)

    def test_derivatives_are_those_of_autograd(self):
        delta = tensor(np.linspace(-3.0, 3.0, 41)).requires_grad_()
        sigma, gamma = (torch.full_like(delta, value).requires_grad_() for value in (0.11, 0.04))
        value = voigt(delta, sigma=sigma, gamma=gamma)
        gradients = torch.autograd.grad(value.sum(), (delta, sigma, gamma))
        analytic = voigt_derivatives(delta.detach(), sigma=sigma.detach(), gamma=gamma.detach())
        for got, want in zip(analytic, (value, *gradients), strict=True):
            torch.testing.assert_close(got, want.detach(), rtol=1e-9, atol=1e-11)


class TestPseudoVoigt:
    @pytest.mark.parametrize("ratio", [1e-3, 0.1, 0.5, 1.0, 3.0, 100.0])
    def test_close_to_the_exact_profile(self, ratio):
        delta = np.linspace(-2.0, 2.0, 801)
        value = pseudo_voigt(tensor(delta), sigma=tensor(0.1), gamma=tensor(0.1 * ratio)).numpy()
        expected = voigt_profile(delta, 0.1, 0.1 * ratio)
        assert np.abs(value - expected).max() < 0.013 * expected.max()

    def test_differs_from_the_exact_profile(self):
        delta = np.linspace(-2.0, 2.0, 801)
        value = pseudo_voigt(tensor(delta), sigma=tensor(0.1), gamma=tensor(0.1)).numpy()
        assert np.abs(value - voigt_profile(delta, 0.1, 0.1)).max() > 1e-3

    @pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0, 3.0])
    def test_has_the_width_of_the_exact_profile(self, ratio):
        sigma, gamma = 0.1, 0.1 * ratio
        peak = voigt_profile(0.0, sigma, gamma)
        half = brentq(lambda d: voigt_profile(d, sigma, gamma) - 0.5 * peak, 0.0, 5.0)
        value = pseudo_voigt(tensor([0.0, half]), sigma=tensor(sigma), gamma=tensor(gamma))
        # The formula for the total FWHM is good to 0.5 %.
        assert (value[1] / value[0]).item() == pytest.approx(0.5, abs=3e-3)

    def test_pure_limits(self):
        delta = np.linspace(-1.0, 1.0, 101)
        gaussian = pseudo_voigt(tensor(delta), sigma=tensor(0.1), gamma=tensor(0.0)).numpy()
        np.testing.assert_allclose(gaussian, voigt_profile(delta, 0.1, 0.0), rtol=1e-12)
        lorentzian = pseudo_voigt(tensor(delta), sigma=tensor(1e-12), gamma=tensor(0.1)).numpy()
        np.testing.assert_allclose(lorentzian, voigt_profile(delta, 0.0, 0.1), rtol=1e-9)
