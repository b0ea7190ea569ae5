"""Training with widths whose true distributions are known."""

import numpy as np
import pytest
import torch
from scipy import stats

from specutils_blase.functional import widths
from specutils_blase.nn.line_network import LineNetwork
from specutils_blase.solvers import line_training
from specutils_blase.solvers.line_prediction import quantiles
from specutils_blase.solvers.line_training import train_predictor

ONE_SIDED = 0.994457883
CORRELATION, NOISE_FACTOR = 0.6, 1.15


def simulate(n, seed):
    """Log-normal widths of two lines and a third of the first, correlated, with noise; a quarter is not listed."""
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(2, n, 2))
    z[:, 1] = CORRELATION * z[:, 0] + np.sqrt(1 - CORRELATION**2) * z[:, 1]
    median = np.stack([1.0 + 0.6 * x[:, 0], 0.3 - 0.5 * x[:, 0]], axis=1)
    scatter = np.stack([np.full(n, 0.4), 0.4 * np.exp(0.2 * x[:, 1])], axis=1)
    true = np.exp(median + scatter * z)
    true = np.column_stack([true, true[:, 0] / 3.0])
    noise = np.exp(rng.normal(np.log([0.4, 0.4, 0.3]), 0.8, (n, 3)))
    measured = cut_normal(true, noise * NOISE_FACTOR, rng.uniform(size=(n, 3)))
    measured[rng.uniform(size=(n, 3)) < 0.25] = np.nan
    return x, median, scatter, true, noise, measured


def cut_normal(mean, sigma, share):
    """Draws of normal distributions that are cut at zero and have this mean, by scipy."""
    start = np.concatenate([-np.geomspace(30.0, 1e-3, 3000), np.linspace(0.0, 8.0, 1000)])
    after = stats.truncnorm.mean(-start, np.inf, loc=start)
    start = np.where(mean / sigma < 8, np.interp(mean / sigma, after, start), mean / sigma)
    return sigma * stats.truncnorm.ppf(share, -start, np.inf, loc=start)


@pytest.fixture(scope="module")
def trained():
    x, _, _, true, noise, measured = simulate(4000, 1)
    assert (noise > true).mean() > 0.1 and np.isnan(measured).mean() > 0.2
    said = []
    network, info = train_predictor(x, measured, noise, [(2, 0, 3.0)], 2, said.append)
    return network, info, said


def test_distributions_are_those_of_the_true_widths(trained):
    x, median, scatter, true, *_ = simulate(4000, 3)
    found = quantiles(trained[0], x, (0.0, -ONE_SIDED, ONE_SIDED))[:, :2]
    middle, low, high = np.moveaxis(np.log(found), -1, 0)
    assert np.sqrt(np.mean((middle - median) ** 2)) < 0.12
    assert np.abs(np.mean(middle - median, axis=0)).max() < 0.05
    half = scatter * ONE_SIDED
    for ours, exact in ((low, median - half), (high, median + half)):
        assert np.abs(np.mean(ours - exact, axis=0)).max() < 0.09
    share = np.mean((np.log(true[:, :2]) > low) & (np.log(true[:, :2]) < high), axis=0)
    np.testing.assert_allclose(share, 0.68, atol=0.06)


def test_what_is_measured_is_where_it_should_be(trained):
    x, *_, noise, measured = simulate(4000, 4)
    probability = trained[0].probability(x, np.nan_to_num(measured, nan=1.0), noise)
    for k in range(3):
        seen = probability[np.isfinite(measured[:, k]), k]
        assert stats.kstest(seen, "uniform").statistic < 0.05
        assert np.mean((seen > 0.16) & (seen < 0.84)) == pytest.approx(0.68, abs=0.03)
        assert np.mean((seen > 0.025) & (seen < 0.975)) == pytest.approx(0.95, abs=0.015)


def test_draws_have_the_correlation_and_the_tie_of_the_truth(trained):
    network = trained[0]
    x, _, _, true, noise, _ = simulate(300, 5)
    drawn = network.draws(x, 300, 7)
    assert drawn.shape == (300, 3, 300)
    z = np.log(drawn) - np.log(drawn).mean(axis=-1, keepdims=True)
    found = np.corrcoef(z.swapaxes(0, 1).reshape(3, -1))
    assert found[0, 1] == pytest.approx(CORRELATION, abs=0.15)
    assert found[0, 2] == pytest.approx(1.0, abs=1e-3)
    ratio = drawn[:, 0] / drawn[:, 2]
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-4)
    assert ratio.mean() == pytest.approx(3.0, rel=0.05)
    np.testing.assert_allclose(np.median(drawn, axis=-1), quantiles(network, x, (0.0,))[..., 0], rtol=0.2)
    assert np.array_equal(drawn, network.draws(x, 300, 7)) and not np.array_equal(drawn, network.draws(x, 300, 8))
    measured = network.draws(x, 300, 7, noise)
    assert (measured > 0).all()
    share = [network.probability(x, measured[..., k], noise) for k in range(20)]
    assert stats.kstest(np.ravel(share), "uniform").statistic < 0.02


def test_what_the_training_says(trained):
    _, info, said = trained
    assert len(said) == info["epochs"] + 1 and said[-1] == ""
    assert said[-2].startswith("training: 100 %") and info["wall_time"] > 0


def test_correlation_where_the_distributions_are_known():
    n = 20_000
    x, median, scatter, _, noise, measured = simulate(n, 6)
    parameters = torch.zeros(n, 3, 5)
    parameters[:, :2, 0], parameters[:, :2, 1] = torch.tensor(median), torch.tensor(scatter)
    parameters[:, 2] = parameters[:, 0]
    parameters[:, 2, 0] -= np.log(3.0)
    parameters[..., 3], parameters[..., 4] = 1.0, np.log(NOISE_FACTOR)
    known = torch.tensor(np.isfinite(measured))
    width, noise = (torch.tensor(a, dtype=torch.float32) for a in (np.nan_to_num(measured, nan=1.0), noise))
    found = line_training._correlation(parameters, width, noise, known, [(2, 0, 3.0)])
    assert found[0, 1].item() == pytest.approx(CORRELATION, abs=0.06)
    assert found[0, 2].item() == pytest.approx(1.0, abs=1e-3) and torch.equal(found.diagonal(), torch.ones(3))


def test_same_seed_same_numbers(monkeypatch):
    monkeypatch.setattr(line_training, "EPOCHS", 2)
    monkeypatch.setattr(line_training, "CORRECTION_STEPS", 3)
    x, *_, noise, measured = simulate(800, 8)
    state = torch.random.get_rng_state()
    first, again, other = (train_predictor(x, measured, noise, [], seed, str)[0] for seed in (1, 1, 2))
    assert torch.equal(state, torch.random.get_rng_state())
    states = [network.state_dict() for network in (first, again, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["weights.0"], states[2]["weights.0"])


def test_network_says_what_its_numbers_are():
    """The corrections, limits and ties, one number at a time."""
    network = LineNetwork(3, 2, ties=[(1, 0, 3.0)], width=8, members=2)
    assert LineNetwork(**network.config).config == network.config
    assert network(torch.randn(7, 3)).shape == (2, 7, 2, 5)
    network.scale.copy_(torch.tensor([2.0, 0.5]))
    says = network.numbers(torch.randn(7, 3))
    assert torch.equal(says[:, :, 1, :4], says[:, :, 0, :4])  # the last layer has no numbers of the tied line
    numbers = torch.zeros(1, 2, 5)
    np.testing.assert_allclose(network.corrected(numbers)[0, 0], [np.log(2.0), np.exp(-0.3), 0.0, 1.0, 0.0], rtol=1e-6)
    assert network.corrected(numbers)[0, 1, 0].item() == pytest.approx(np.log(2.0 / 3.0))
    numbers[..., 0] = 0.75
    network.strength.copy_(torch.tensor([[0.0, 0.0], [2.0, 2.0]]))
    network.correction[0, :, 0] = torch.tensor([-1.5, -0.75, 0.0, 0.75, 1.5])  # whose interpolation is the level
    out = network.corrected(numbers)[0]
    assert out[0, 1].item() == pytest.approx(np.exp(0.375 - 0.3))
    assert torch.equal(out[1, 1:4], out[0, 1:4])  # the tied line has the shape of its partner
    assert (out[0, 0] - out[1, 0]).item() == pytest.approx(np.log(3.0))
    for wild in (1e6, -1e6):
        assert torch.isfinite(widths.log_width(network.corrected(torch.full((1, 2, 5), wild)), torch.tensor(3.0))).all()


def test_one_network_says_what_all_members_say_on_average():
    torch.manual_seed(0)
    network = LineNetwork(3, 2, width=16, members=4)
    with torch.no_grad():
        network.noise.copy_(torch.arange(8.0).reshape(4, 1, 2))
    inputs, others = torch.randn(6000, 3), torch.randn(500, 3)
    alone = line_training._one_of_all(network, inputs)
    with torch.no_grad():
        before = network.numbers(others)
        wanted, got = before.mean(0), alone.numbers(others)[0]
    assert alone.noise.flatten().tolist() == [3.0, 4.0]
    left = lambda numbers: ((numbers - wanted)[..., :4] ** 2).mean().item()  # noqa: E731
    assert left(got) < 5e-4 * min(left(one) for one in before)


def test_correction_puts_measurements_where_they_should_be():
    """Of a network whose distributions are too narrow for strong lines, too wide for weak ones, and not skewed."""
    n = 6000
    rng = np.random.default_rng(11)
    network = LineNetwork(1, 2, ties=[(1, 0, 2.0)], width=4)
    strength, z = rng.normal(size=n), rng.normal(size=n)
    true = np.exp(strength + np.exp(0.4 * strength.clip(-1.5, 1.5) - 0.8) * np.expm1(0.25 * z) / 0.25)
    noise = np.full((n, 2), 0.02)
    width = np.stack([true, true / 2.0], axis=1)
    known = rng.uniform(size=(n, 2)) < 0.8
    numbers = torch.zeros(n, 2, 5)
    numbers[..., 0] = torch.tensor(strength)[:, None]
    width, noise = (torch.tensor(values, dtype=torch.float32) for values in (width, noise))

    def shares(k, part):
        with torch.no_grad():
            found = widths.measured_probability(network.corrected(numbers), width, noise).numpy()[known[:, k] & part, k]
        return [np.mean(found < level) for level in line_training.LEVELS]

    parts = [strength < -0.6, abs(strength) <= 0.6, strength > 0.6]
    before = max(np.abs(np.subtract(shares(k, part), line_training.LEVELS)).max() for k in range(2) for part in parts)
    buffer = network.correction
    shift = line_training._correction(network, numbers, width, noise, torch.tensor(known))
    assert network.correction is buffer and not buffer.any() and not shift.requires_grad
    buffer.copy_(shift)
    for k in range(2):
        for part in parts:
            np.testing.assert_allclose(shares(k, part), line_training.LEVELS, atol=0.025)
    assert before > 0.1


def test_inputs_far_away_are_held():
    network = LineNetwork(2, 1, width=8)
    network.center.copy_(torch.tensor([1.0, 2.0]))
    near, far = network(torch.tensor([[7.0, 8.0]])), network(torch.tensor([[1e9, 1e9]]))
    assert torch.equal(near, far)


def test_few_galaxies_are_trained_with_enough_steps():
    # one step for each of the epochs would leave the medians where they started
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(1000, 4))
    median = np.exp(1.0 + inputs[:, :1] + [0.0, 0.5])
    true = median * rng.lognormal(0.0, 0.2, median.shape)
    noise = np.full(true.shape, 0.1)
    measured = np.abs(rng.normal(true, noise))
    network, info = train_predictor(inputs[:500], measured[:500], noise[:500], [], 0, lambda text: None)
    ratio = np.log(quantiles(network, inputs[500:], (0.0,))[:, :, 0] / median[500:])
    for part in np.array_split(np.argsort(inputs[500:, 0]), 3):
        assert np.abs(np.median(ratio[part], axis=0)).max() < 0.1
    assert np.std(ratio) < 0.15 and info["epochs"] == 12
