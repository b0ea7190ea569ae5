"""Fixtures and settings shared by all tests."""

import os
from pathlib import Path

import pytest
import torch
from astropy.utils import iers
from hypothesis import settings

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

settings.register_profile("local", deadline=None)
# The same examples in every run, so that a red run can be repeated.
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")

# The tensors of tests are small: on a busy machine threads wait for each other far longer than they work.
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def bundled_earth_rotation():
    """Tests have no network, where astropy 7 would look for tables of the Earth that are newer than those installed."""
    with iers.conf.set_temp("auto_download", False):
        yield


@pytest.fixture(scope="module", params=["avx512", "avx2", "base"])
def every_target(request):
    """The compiled kernels for every kind of processor that this one can stand in for."""
    from specutils_blase.functional.compiled import kernels  # torch comes with it

    if request.param not in kernels.targets():
        pytest.skip(f"this processor has no {request.param}")
    before = kernels.select_target(request.param)
    yield request.param
    kernels.select_target(before)


@pytest.fixture(scope="session")
def shared_data():
    """Folder of real and computed spectra, which are too large for the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the test spectra are not here: no folder {SHARED_DATA}")
    return SHARED_DATA
