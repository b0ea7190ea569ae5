"""Training of a LineNetwork with few galaxies."""

import numpy as np

from specutils_blase.solvers.line_training import train_predictor


def test_few_galaxies_are_trained_with_enough_steps():
    # one step for each of the epochs would leave the medians where they started
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(1000, 4))
    median = np.exp(1.0 + inputs[:, :1] + [0.0, 0.5])
    true = median * rng.lognormal(0.0, 0.2, median.shape)
    noise = np.full(true.shape, 0.1)
    measured = np.abs(rng.normal(true, noise))
    network, info = train_predictor(inputs[:500], measured[:500], noise[:500], [], 0, lambda text: None)
    ratio = np.log(network.quantiles(inputs[500:], (0.0,))[:, :, 0] / median[500:])
    for part in np.array_split(np.argsort(inputs[500:, 0]), 3):
        assert np.abs(np.median(ratio[part], axis=0)).max() < 0.1
    assert np.std(ratio) < 0.15 and info["epochs"] == 20
