"""Fixtures and settings shared by all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

settings.register_profile("local", deadline=None)
# The same examples in every run, so that a red run can be repeated.
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session")
def shared_data():
    """Folder of real and computed spectra, which are too large for the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the test spectra are not here: no folder {SHARED_DATA}")
    return SHARED_DATA
