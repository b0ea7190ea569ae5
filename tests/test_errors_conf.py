"""The warning, the error, and the settings."""

import subprocess
import sys
import warnings

import pytest
from astropy.config import ConfigNamespace
from astropy.utils.exceptions import AstropyUserWarning

from specutils_blase.conf import conf
from specutils_blase.errors import BlaseWarning, CoverageError, explain
from specutils_blase.progress import reporter


def test_warning_can_be_silenced_as_an_astropy_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)
        warnings.warn("26 pixels", BlaseWarning, stacklevel=1)


def test_coverage_error_is_caught_as_a_value_error():
    with pytest.raises(ValueError, match="template"):
        raise CoverageError("template covers less")


def test_explain_names_argument_expectation_input_and_remedy():
    text = explain("vsini", "be positive", "-2 km/s", "drop the sign")
    assert text == "vsini must be positive, got -2 km/s; drop the sign"


def test_defaults():
    assert isinstance(conf, ConfigNamespace)
    expected = {"device": "auto", "progress": "auto", "populations": ""}
    assert {name: getattr(conf, name) for name in conf} == expected


@pytest.mark.parametrize("name", ["device", "progress", "populations"])
def test_every_setting_is_documented_and_filed_under_the_package(name):
    item = type(conf).__dict__[name]
    assert len(item.description) > 40
    assert item.module == "specutils_blase"


def test_temporary_setting_is_restored():
    with conf.set_temp("device", "cpu"):
        assert conf.device == "cpu"
    assert conf.device == "auto"


@pytest.mark.parametrize(("name", "value"), [("progress", "sometimes"), ("device", 3)])
def test_impossible_setting_is_refused(name, value):
    with pytest.raises(TypeError), conf.set_temp(name, value):
        pass
    assert getattr(conf, name) == type(conf).__dict__[name].defaultvalue


def test_setting_is_read_from_the_configuration_folder_of_astropy(tmp_path):
    # in a new interpreter, because astropy reads the file once
    code = f"""
from pathlib import Path
from astropy.config import get_config_dir, set_temp_config
with set_temp_config({str(tmp_path)!r}):
    Path(get_config_dir()).mkdir(exist_ok=True)
    Path(get_config_dir(), "specutils_blase.cfg").write_text("progress = off")
    import specutils_blase
    print(specutils_blase.conf.progress)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "off"


@pytest.mark.parametrize("value", ["off", "yes", 3])
def test_progress_is_true_false_none_or_callable(value):
    with pytest.raises(TypeError, match=f"progress must be True, False, None or a callable, got {value!r}"):
        reporter(value)
