"""What importing the package does, and does not do, to a fresh interpreter."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import specutils_blase

SOURCE = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "specutils", "astropy", "numpy", "scipy", "specutils_blase._kernels", "matplotlib", "asdf")


def run(code):
    """Output of ``code`` in a new interpreter in which every warning is an error."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_import_loads_nothing_heavy():
    assert run(f"import sys, specutils_blase; print([name for name in {HEAVY} if name in sys.modules])") == "[]"


def test_import_is_fast():
    code = "import time; start = time.process_time(); import specutils_blase; print(time.process_time() - start)"
    assert min(float(run(code)) for _ in range(3)) < 0.1


def test_dir_lists_public_names_without_importing_them():
    code = f"""
import sys, specutils_blase
print(set(specutils_blase.__all__) <= set(dir(specutils_blase)), [name for name in {HEAVY} if name in sys.modules])
"""
    assert run(code) == "True []"


def test_light_names_do_not_load_torch_or_specutils():
    code = """
import sys
from specutils_blase import BandedLSF, BlaseWarning, CoverageError, GaussianLSF, MeasuredLSF, ResolvingPower, conf
print('torch' in sys.modules, 'specutils' in sys.modules)
"""
    assert run(code) == "False False"


def test_reading_a_spectrum_does_not_load_torch():
    code = """
import sys, warnings
with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of other packages at import
    import specutils_blase.adapters, specutils_blase.reading, specutils_blase.template
print([name for name in ('torch', 'specutils_blase._kernels') if name in sys.modules])
"""
    assert run(code) == "[]"


@pytest.mark.parametrize(
    "first",
    ["import specutils_blase.conf", "from specutils_blase import conf", "import specutils_blase.conf as conf"],
)
def test_conf_is_the_settings_whatever_was_imported_first(first):
    # importing a submodule normally replaces the attribute of that name on the package
    code = f"""
{first}
import specutils_blase
from specutils_blase.conf import conf
print(specutils_blase.conf is conf, specutils_blase.conf.device)
"""
    assert run(code) == "True auto"


def test_conf_cannot_be_replaced_by_accident():
    with pytest.raises(AttributeError, match="set its items"):
        specutils_blase.conf = "cuda"


def test_unknown_name():
    with pytest.raises(AttributeError, match="'specutils_blase' has no attribute 'fit_spectra'"):
        _ = specutils_blase.fit_spectra


def test_version_of_a_source_tree_that_is_not_installed(tmp_path):
    # in isolation from site-packages and from the metadata that a build leaves beside the sources
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(SOURCE / "specutils_blase", tmp_path / "specutils_blase", ignore=ignored)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import specutils_blase as b; print(b.__version__)"
    result = subprocess.run(
        [sys.executable, "-S", "-I", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, timeout=60
    )
    assert result.stdout.strip() == "0+unknown"
