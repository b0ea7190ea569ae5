"""Settings shared by the tests of files."""

import asdf
import pytest


@pytest.fixture
def strict_asdf():
    """asdf as it should be: by itself it reads without validation and turns failed conversions into warnings."""
    with asdf.config_context() as config:
        config.validate_on_read = True
        if hasattr(config, "warn_on_failed_conversion"):
            config.warn_on_failed_conversion = False
        yield config


@pytest.fixture
def roundtrip(tmp_path, strict_asdf):
    """What comes back when an object goes through a plain ASDF file."""

    def go(value):
        path = tmp_path / "plain.asdf"
        asdf.AsdfFile({"m": value}).write_to(path, all_array_compression="zlib")
        with asdf.open(path) as file:
            return file["m"]

    return go
