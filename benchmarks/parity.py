"""Single against double precision, and a GPU against the CPU where there is one: values, gradients and time.

    python benchmarks/parity.py [number of lines]
"""

import sys
import time

import astropy.units as u
import numpy as np
import torch
from common import show

from specutils_blase import functional
from specutils_blase.functional import FWHM_PER_SIGMA
from specutils_blase.nn import ForwardModel, Instrument, LineForest
from specutils_blase.simulation import simulate_star

# The range and the lines of a clone of a K dwarf; samples [km/s], pixels, and what the instrument needs at the ends.
LOWER, UPPER, N_LINES = 8_000.0, 14_000.0, 15_000
STEP, N_PIXELS, MARGIN = 0.5, 57_344, 100.0
RESOLVING_POWER, VELOCITY, VSINI = 55_000.0, 12.3, 4.0
TOLERANCE, REPEAT = 1e-6, 7
# What is held in which precision: coordinates (wavelengths and centres), all else.
SINGLE, DOUBLE = torch.float32, torch.float64
PRECISIONS = {"float64": (DOUBLE, DOUBLE), "float32, coordinates float64": (DOUBLE, SINGLE),
              "float32": (SINGLE, SINGLE)}  # fmt: skip
LINES = ("center", "log_strength", "log_sigma", "log_gamma")


def lines(n_lines):
    """Lines of a simulated star: centres, strengths, sigma, gamma, shape (n_lines,) [Angstrom]."""
    star = simulate_star(1, lower=LOWER * u.AA, upper=UPPER * u.AA, n_lines=n_lines).model
    values = (star.x_0.value, star.strength.value, star.fwhm_G.value / FWHM_PER_SIGMA, star.fwhm_L.value / 2)
    return [torch.from_numpy(np.array(value)) for value in values]


class Forest(torch.nn.Module):
    """`functional.transmission` of a forest; differences to a centre are formed in the precision of the coordinates."""

    def __init__(self, columns, coordinates, rest):
        super().__init__()
        center, *others = columns
        wave = functional.velocity_grid(LOWER, UPPER, STEP)
        self.pairs = functional.line_pixel_pairs(wave, center, functional.half_width(*others, TOLERANCE))
        self.register_buffer("wave", wave.to(coordinates))
        self.center = torch.nn.Parameter(center.to(coordinates))
        for name, values in zip(LINES[1:], others, strict=True):
            setattr(self, name, torch.nn.Parameter(values.log().to(rest)))

    def forward(self):
        line, sample = (index.to(self.wave.device) for index in self.pairs)
        delta = (self.wave[sample] - self.center[line]).to(self.log_sigma.dtype)
        profile = functional.voigt(delta, sigma=self.log_sigma.exp()[line], gamma=self.log_gamma.exp()[line])
        depth = self.log_strength.exp()[line] * profile
        return functional.transmission(depth.new_zeros(len(self.wave)).index_add(0, sample, depth))


def forward_model(columns, coordinates, rest):
    """`nn.ForwardModel` of a rotating star; lines in the precision of the rest, or all of it in single precision."""
    ends = LOWER * np.exp(2 * MARGIN / 3e5), UPPER * np.exp(-2 * MARGIN / 3e5)
    bounds = torch.from_numpy(np.geomspace(*ends, N_PIXELS + 1))
    instrument = Instrument(torch.stack([bounds[:-1], bounds[1:]], dim=1), resolving_power=RESOLVING_POWER, step=STEP,
                            margin=MARGIN)  # fmt: skip
    model = ForwardModel(LineForest(*columns, tolerance=TOLERANCE), instrument, radial_velocity=VELOCITY, vsini=VSINI)
    if coordinates == rest:
        return model.to(rest)
    for name in LINES[1:]:
        setattr(model.star, name, torch.nn.Parameter(getattr(model.star, name).detach().to(rest)))
    model.star.sign = model.star.sign.to(rest)
    return model


def run(model, device):
    """Value, {parameter: gradient} for white noise as the residual, seconds of the forward and of both passes."""
    model = model.to(device)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    seconds = []
    for _ in range(REPEAT):
        model.zero_grad()
        wait()
        start = time.perf_counter()
        value = model()
        wait()
        middle = time.perf_counter()
        noise = torch.from_numpy(np.random.default_rng(3).normal(size=len(value))).to(value)
        value.backward(noise)
        wait()
        seconds.append((middle - start, time.perf_counter() - start))
    gradients = {name: p.grad.double().cpu() for name, p in model.named_parameters()}
    return value.detach().double().cpu(), gradients, np.min(seconds, axis=0)


def difference(ours, theirs):
    """Norm of the difference over the norm."""
    return float((ours - theirs).norm() / theirs.norm())


def compare(title, build, devices):
    """Print one table; the reference is float64 on the CPU."""
    rows, reference = [], None
    for device in devices:
        for name, precision in PRECISIONS.items():
            value, gradients, (forward, both) = run(build(*precision), device)
            reference = reference or (value, gradients)
            errors = {k: difference(g, reference[1][k]) for k, g in gradients.items()}
            of_lines = max(error for k, error in errors.items() if k.split(".")[-1] in LINES)
            others = [error for k, error in errors.items() if k.split(".")[-1] not in LINES]
            rows.append((device, name, f"{(value - reference[0]).abs().max():.1e}", f"{of_lines:.1e}",
                         f"{max(others):.1e}" if others else "none", f"{forward:.2f}", f"{both:.2f}"))  # fmt: skip
    heading = ("device", "precision", "flux", "gradient, lines", "gradient, others", "forward [s]", "with gradient [s]")
    show(title, heading, rows)


def main():
    """Print the tables."""
    n_lines = int(sys.argv[1]) if sys.argv[1:] else N_LINES
    columns = lines(n_lines)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    n_pairs = len(Forest(columns, DOUBLE, DOUBLE).pairs[0])
    samples, gpu = len(functional.velocity_grid(LOWER, UPPER, STEP)), "no GPU"
    if devices[1:]:
        gpu = torch.cuda.get_device_name()
    print(f"{n_lines:,} lines, {samples:,} samples, {n_pairs:,} pairs, torch {torch.__version__}, "
          f"{torch.get_num_threads()} threads, {gpu}")  # fmt: skip
    compare("functional.transmission", lambda *p: Forest(columns, *p), devices)
    compare(f"nn.ForwardModel, {N_PIXELS:,} pixels", lambda *p: forward_model(columns, *p), devices)


if __name__ == "__main__":
    main()
