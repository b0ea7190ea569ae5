"""Mean and standard deviations of a fit against samples of its posterior (Hamiltonian Monte Carlo), one order.

    python benchmarks/posterior_hmc.py [--seed 2] [--draw 2] [--samples 600]

The order is one of those of `injection_recovery`.  Cost and gradient are those of the fit, so that this judges the
step from the cost function to means and errors, and `injection_recovery` the cost function too.
"""

import argparse
import warnings

import injection_recovery
import numpy as np
from common import show

from specutils_blase import fitting
from specutils_blase.demo import clone_sources
from specutils_blase.solvers.covariance import definite_factor
from specutils_blase.solvers.posterior import posterior_mean

STEP, STEPS = 0.17, (8, 14)  # of the leapfrog, in standard deviations, and their number
WARM_UP = 20


class Posterior:
    """The problem of a fit with the inverse of its Gauss-Newton matrix as metric."""

    def __init__(self, problem, theta):
        self.problem = problem
        self.fixed = np.zeros(theta.size, dtype=bool)
        self.fixed[: problem.held.size] = problem.held.ravel()
        _, self.matrix = problem.linearize(theta)
        self.factor = definite_factor(self.matrix, 0.0)

    def velocity(self, rng):
        """A random velocity, whose covariance is the inverse of the matrix."""
        return np.where(self.fixed, 0.0, self.factor.root(rng.standard_normal((self.fixed.size, 1)))[:, 0])

    def force(self, theta):
        """The acceleration at theta."""
        return np.where(self.fixed, 0.0, -self.factor.solve(np.where(self.fixed, 0.0, self.problem.gradient(theta))))

    def energy(self, theta, velocity):
        """Potential and kinetic."""
        return self.problem.cost(theta).sum() + 0.5 * velocity @ (self.matrix @ velocity)

    def sample(self, theta, number, rng):
        """Samples (number, n) that start at theta, and the share of trajectories that were accepted."""
        samples, accepted = [], 0
        for _ in range(number):
            velocity = self.velocity(rng)
            before, new = self.energy(theta, velocity), theta.copy()
            step = STEP * rng.uniform(0.8, 1.2)
            velocity = velocity + 0.5 * step * self.force(new)
            for _ in range(rng.integers(*STEPS)):
                new = new + step * velocity
                force = self.force(new)
                velocity = velocity + step * force
            velocity = velocity - 0.5 * step * force
            if np.log(rng.uniform()) < before - self.energy(new, velocity):
                theta, accepted = new, accepted + 1
            samples.append(theta)
        return np.array(samples), accepted / number


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--draw", type=int, default=2)
    parser.add_argument("--samples", type=int, default=600)
    args = parser.parse_args()
    star, sky = (cloned.template for cloned in clone_sources(args.seed, progress=False))
    kept = {}

    def spy(problem, theta):
        kept.update(problem=problem, mode=theta, mean=posterior_mean(problem, theta))
        return kept["mean"]

    fitting.posterior_mean = spy
    warnings.simplefilter("ignore")  # the bad pixels
    injection_recovery.draw(star, sky, [args.seed, 100, args.draw], 300.0, bool(args.draw % 2))
    problem, mode, mean = kept["problem"], kept["mode"], kept["mean"]
    posterior = Posterior(problem, mean)
    samples, share = posterior.sample(mean, args.samples, np.random.default_rng(1))
    samples = samples[WARM_UP:]
    inverse = posterior.factor.inverse()
    std = np.sqrt(np.concatenate([inverse.local_diagonal, np.diag(inverse.corner)]))
    true_mean, true_std = samples.mean(axis=0), samples.std(axis=0)
    n_local = problem.held.size
    names = [*problem.names, *["column"] * problem.scene.n_species,
             *(f"continuum_{k}" for k in range(problem.scene.basis.shape[1]))]  # fmt: skip
    groups = {name: [n_local + k] for k, name in enumerate(names)}
    groups["measured strengths"] = np.flatnonzero(~posterior.fixed[:n_local] & (true_std[:n_local] < 0.15))
    rows = []
    for name, index in groups.items():
        off = [(value - true_mean)[index] / true_std[index] for value in (mode, mean)]
        rows.append((name, len(index), *(f"{o.mean():+.3f}" for o in off), f"{np.sqrt(np.mean(off[1] ** 2)):.3f}",
                     f"{np.mean(std[index] / true_std[index]):.3f}"))  # fmt: skip
    show(f"{len(samples)} samples of {mode.size} parameters, {share:.0%} of the trajectories accepted; differences "
         "from their mean in their standard deviations",
         ("parameter", "number", "mode", "reported", "reported, rms", "std / theirs"), rows)  # fmt: skip


if __name__ == "__main__":
    main()
