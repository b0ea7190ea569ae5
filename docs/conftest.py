"""What pages that are run as tests ask for with ``getfixture``."""

import pytest

from tests.barnards_star import real_or_simulated
from tests.conftest import bundled_earth_rotation

__all__ = ["barnards_star", "bundled_earth_rotation"]


@pytest.fixture(scope="session")
def barnards_star(tmp_path_factory):
    """Paths of the exposure, the synthetic spectrum and the optical depths of ``tutorials/from_raw_file.rst``."""
    return real_or_simulated(tmp_path_factory.mktemp("barnards_star"))
