"""Galaxies shown as at other redshifts, and the factor on the uncertainties of redshifts, against brute force."""

import math

import numpy as np
import pytest
import torch

from specutils_blase.solvers import galaxies
from specutils_blase.solvers.galaxies import CameraArrays, GalaxyModel, Group
from specutils_blase.solvers.survey import Camera

WAVES = np.arange(4000.0, 6000.0, 2.0), np.arange(5900.0, 8000.0, 2.0)


def cameras(n):
    return [Camera(torch.from_numpy(np.log(wave)), torch.ones(n, len(wave)), torch.ones(n, len(wave)), None)
            for wave in WAVES]  # fmt: skip


@pytest.mark.parametrize(("z", "there"), [(0.1, 0.1), (0.1, 0.3), (0.3, 0.1), (0.0, 0.05)])
def test_pixels_as_at_another_redshift(z, there):
    """Rest wavelengths that stay are those that the pixels see at both redshifts."""
    shown = galaxies._as_at(cameras(2), torch.tensor([z, 0.2]), torch.tensor([there, 0.2]))
    for wave, camera in zip(WAVES, shown, strict=True):
        rest = wave / (1.0 + z)
        moved = rest * (1.0 + there)
        wanted = (moved >= WAVES[0][0] * (1.0 - 1e-9)) & (moved <= WAVES[1][-1] * (1.0 + 1e-9))
        np.testing.assert_array_equal(camera.ivar[0].numpy() > 0, wanted)
        assert bool((camera.ivar[1] > 0).all())


@pytest.mark.parametrize(("z", "there"), [(0.0, 9.0), (9.0, 0.0)])
def test_half_of_the_window_stays(z, there):
    shown = galaxies._as_at(cameras(1), torch.tensor([z]), torch.tensor([there]))
    middle = math.sqrt(WAVES[0][0] * WAVES[1][-1])
    for wave, camera in zip(WAVES, shown, strict=True):
        np.testing.assert_array_equal(camera.ivar[0].numpy() > 0, wave > middle if there < z else wave < middle)


@pytest.mark.parametrize(("true", "wanted"), [(2.5, 2.5), (1.0, 1.0), (0.4, 1.0)])
def test_redshift_factor_is_the_width_of_pulls(monkeypatch, true, wanted):
    random, n = np.random.default_rng(0), 2000
    redshift = random.uniform(0.0, 0.5, n)
    uncertainty = np.exp(random.normal(-9.0, 0.5, n))
    found = redshift + true * uncertainty * random.standard_normal(n)
    chosen = random.permutation(n)[:1200]
    found[np.setdiff1d(np.arange(n), chosen)] = np.nan  # none of the others counts
    found[chosen[::50]] += 0.1  # catalogues are wrong sometimes
    asked = []

    def refined(space, one, z, whiten):
        k = int(np.flatnonzero(redshift == z)[0])
        asked.append(k)
        assert float(one[0].flux[0, 0]) == k  # the galaxy whose redshift it is
        return found[k], uncertainty[k], 0.0, 0.0, None

    monkeypatch.setattr(galaxies, "refine", refined)
    monkeypatch.setattr(GalaxyModel, "cameras", lambda self, group: (
        [Camera(torch.zeros(1), torch.from_numpy(group.numbers[:, None] + 0.0), torch.ones(len(group.numbers), 1),
                None)], None))  # fmt: skip
    arrays = lambda size: [CameraArrays(np.zeros((1, 2)), np.zeros((size, 1)), np.zeros((size, 1)))]  # noqa: E731
    numbers = random.permutation(n)
    groups = [Group(numbers[:1200], arrays(1200)), Group(numbers[1200:], arrays(800))]
    done = []
    factor, compared = GalaxyModel(None).redshift_factor(groups, redshift, chosen, done.append)
    assert factor == pytest.approx(wanted, rel=0.12) and factor >= 1.0
    assert len(set(asked)) == len(asked) == galaxies.COMPARED and set(asked) <= set(chosen)
    assert done[-1] == 1.0 and compared == galaxies.COMPARED
    # Of one galaxy, and of one whose uncertainty is not known.
    factor, compared = GalaxyModel(None).redshift_factor(groups, redshift, chosen[1:2], done.append)
    pull = abs(found[chosen[1]] - redshift[chosen[1]]) / uncertainty[chosen[1]]
    assert compared == 1 and factor == pytest.approx(max(pull, 1.0))
    unknown = np.flatnonzero(np.isnan(found))[:3]
    assert GalaxyModel(None).redshift_factor(groups, redshift, unknown, done.append) == (1.0, 0)
