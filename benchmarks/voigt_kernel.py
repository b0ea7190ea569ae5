"""Voigt profiles: pairs per second and error, against scipy.special.wofz, for the compiled and the torch kernels."""

import time

import numpy as np
import torch
from common import show
from scipy.special import wofz

from specutils_blase import functional
from specutils_blase.functional import compiled

PAIRS = 1_000_000
LINES, WIDTH = 2000, 500  # lines and pixels of each


def best(function, repeat=5):
    """(seconds of the fastest of several calls, value of the last)."""
    value = function()
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        value = function()
        seconds.append(time.perf_counter() - start)
    return min(seconds), value


def problem():
    """Wavelengths, lines and windows with exactly PAIRS pairs."""
    rng = np.random.default_rng(1)
    wave = np.arange(10000.0, 10000.0 + 0.01 * (LINES * 10 + WIDTH), 0.01)
    lo = np.arange(LINES) * 10
    center = wave[lo + WIDTH // 2] + 1e-3
    return wave, center, rng.uniform(0.01, 0.1, LINES), rng.uniform(0.03, 0.08, LINES), rng.uniform(
        0.003, 0.05, LINES), lo, lo + WIDTH  # fmt: skip


def main():
    """Print the tables."""
    wave, center, strength, sigma, gamma, lo, hi = problem()
    line, pixel = np.repeat(np.arange(LINES), WIDTH), (lo[:, None] + np.arange(WIDTH)).ravel()
    delta, s, g = wave[pixel] - center[line], sigma[line], gamma[line]

    def truth():
        return wofz((delta + 1j * g) / (s * np.sqrt(2))).real / (s * np.sqrt(2 * np.pi))

    def value_of(result):
        offset, terms = result
        return terms[0][(offset[:, None] + np.arange(WIDTH)).ravel()] / strength[line]

    memory = compiled.Memory()
    tensors = [torch.from_numpy(a) for a in (delta, s, g)]
    runs = [
        ("scipy wofz, value", truth, lambda v: v),
        ("torch eager, value", lambda: functional.voigt(tensors[0], sigma=tensors[1], gamma=tensors[2]), np.asarray),
        ("torch eager, value and 3 derivatives",
         lambda: functional.voigt_derivatives(tensors[0], sigma=tensors[1], gamma=tensors[2]), lambda v: v[0].numpy()),
        ("compiled, value and 4 derivatives, fresh memory",
         lambda: compiled.line_terms(wave, center, strength, sigma, gamma, lo, hi), value_of),
    ]  # fmt: skip

    def terms_of(target):
        compiled.kernels.select_target(target)
        return compiled.line_terms(wave, center, strength, sigma, gamma, lo, hi, memory=memory)

    targets = compiled.kernels.targets()
    runs += [(f"the same, memory used again as in a fit, {t}", lambda t=t: terms_of(t), value_of) for t in targets]
    rows, base, exact = [], None, truth()
    peak = exact.reshape(LINES, WIDTH).max(axis=1)[line]
    for name, function, values in runs:
        seconds, value = best(function)
        base = base or seconds
        error = np.abs(values(value) - exact)
        compiled.kernels.select_target(targets[0])
        rows.append((name, f"{PAIRS / seconds / 1e6:.1f}", f"{seconds / PAIRS * 1e9:.1f}", f"{base / seconds:.1f}",
                     f"{np.max(error / exact):.1e}", f"{np.max(error / peak):.1e}"))  # fmt: skip
    show(f"{PAIRS:,} line-pixel pairs, threads: {compiled.n_threads()}, torch threads: {torch.get_num_threads()}",
         ("kernel", "million pairs/s", "ns/pair", "times wofz", "worst error / value", "/ peak"), rows)  # fmt: skip
    accuracy()


def accuracy():
    """Worst relative error of one line's optical depth where it exceeds 1e-6, over the ratio of the widths."""
    x = np.concatenate([-np.logspace(-3, 2, 400)[::-1], np.logspace(-3, 2, 400)])
    rows = []
    for ratio in (1e-5, 1e-3, 0.1, 1.0, 10.0, 1e3):
        worst = 0.0
        for sigma in (0.003, 0.03, 0.3):
            gamma = sigma * ratio
            exact = wofz((x + 1j * gamma) / (sigma * np.sqrt(2))).real / (sigma * np.sqrt(2 * np.pi))
            strength = 0.1 / exact.max()
            tau = compiled.optical_depth(6000 + x, *(np.array([v]) for v in (6000.0, strength, sigma, gamma)), 1e-6)
            keep = strength * exact > 1e-6
            worst = max(worst, np.max(np.abs(tau[keep] / (strength * exact[keep]) - 1)))
        rows.append((f"{ratio:g}", f"{worst:.1e}", "holds" if worst < 1e-7 else "short"))
    show("optical depth against wofz where it exceeds 1e-6", ("fwhm_L / fwhm_G", "worst relative error", "< 1e-7"),
         rows)  # fmt: skip


if __name__ == "__main__":
    main()
