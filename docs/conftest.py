"""What pages that are run as tests ask for with ``getfixture``."""

import pytest

from tests import barnards_star as barnards_star_files
from tests import wasp69 as wasp69_files
from tests.conftest import bundled_earth_rotation

__all__ = ["barnards_star", "bundled_earth_rotation", "wasp69"]


@pytest.fixture(scope="session")
def barnards_star(tmp_path_factory):
    """Paths of the exposure, the synthetic spectrum and the optical depths of ``tutorials/from_raw_file.rst``."""
    return barnards_star_files.real_or_simulated(tmp_path_factory.mktemp("barnards_star"))


@pytest.fixture(scope="session")
def wasp69(tmp_path_factory):
    """Paths of the order and the synthetic spectrum of ``tutorials/from_file_to_template.rst``."""
    return wasp69_files.real_or_simulated(tmp_path_factory.mktemp("wasp69"))
