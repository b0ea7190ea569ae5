"""Templates, predictors and autoencoders are read without this package, by the scripts in the documentation."""

import subprocess
import sys
import textwrap
from pathlib import Path

import asdf
import numpy as np
import pytest
import torch
from astropy import units as u

from specutils_blase.galaxy import SpectrumAutoencoder
from specutils_blase.galaxy.density import LatentDensity
from specutils_blase.nn import LatentSpace
from specutils_blase.solvers.line_prediction import quantiles

from .samples import make_predictor, make_template

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "files.rst"
# An environment with asdf, numpy and scipy alone: asdf finds the entry points of the others and cannot load them.
ALONE = """
import importlib.abc
import sys
import warnings

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"specutils_blase", "astropy", "asdf_astropy", "specutils", "torch", "gwcs"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
warnings.filterwarnings("ignore", message=".* plugin from package .* failed to load")
"""
# The same where astropy and its converters are there.
WITH_ASTROPY = ALONE.replace('"astropy", "asdf_astropy", ', "")


def script(key="template"):
    """The block of the page that opens a template, a predictor or an autoencoder."""
    blocks = PAGE.read_text(encoding="utf-8").split(".. code-block:: python\n\n")[1:]
    (block,) = (block for block in blocks if f'file["{key}"]' in block)
    lines = []
    for line in block.splitlines():
        if line and not line.startswith("    "):
            break
        lines.append(line)
    return textwrap.dedent("\n".join(lines))


@pytest.mark.parametrize(("key", "most"), [("template", 24), ("predictor", 29), ("autoencoder", 18)])
def test_script_is_short(key, most):
    assert sum(bool(line.strip()) for line in script(key).splitlines()) <= most
    assert not any(name in script(key) for name in ("specutils", "astropy", "torch"))


def saved_by(code, folder):
    """Arrays that a program saves in out.npz."""
    result = subprocess.run([sys.executable, "-W", "error", "-I", "-c", code], cwd=folder, capture_output=True,
                            text=True, timeout=120)  # fmt: skip
    assert result.returncode == 0, result.stderr
    with np.load(folder / "out.npz") as out:
        return [out[name] for name in out]


PRECISE = {"tolerance": 1e-14}
PLAIN = {"continuum": 2.0 * u.Jy, "continuum_domain": None, "teff": None}
TEMPLATES = {
    "opacity": make_template(200, **PRECISE),
    "product": make_template(200, form="product", **PRECISE),
    "no blackbody": make_template(20, teff=None, **PRECISE),
    "constant continuum": make_template(20, **PRECISE, **PLAIN),
    "one line": make_template(1, **PRECISE),
}


@pytest.mark.parametrize(
    ("name", "world"), [*((name, ALONE) for name in TEMPLATES), ("opacity", WITH_ASTROPY)],
    ids=[*TEMPLATES, "with astropy"],
)  # fmt: skip
def test_script_gives_the_flux(name, world, tmp_path):
    template = TEMPLATES[name]
    template.write(tmp_path / "template.asdf")
    code = world + script() + '\nassert "specutils_blase" not in sys.modules\nnp.savez("out.npz", wave, flux)\n'
    wave, flux = saved_by(code, tmp_path)
    expected = template.model(wave * u.AA).value
    assert np.ptp(expected) > 0.05 * expected.max()
    np.testing.assert_allclose(flux, expected, rtol=0, atol=1e-9 * expected.max())


@pytest.mark.parametrize("width", [4, 128])
def test_script_gives_the_widths(width, tmp_path):
    predictor = make_predictor(width)
    predictor.write(tmp_path / "predictor.asdf")
    inputs = np.random.default_rng(1).normal(0.0, 1.5, (40, 13))
    np.save(tmp_path / "inputs.npy", inputs)
    code = f'{ALONE}\nimport numpy as np\ninputs = np.load("inputs.npy")\n{script("predictor")}\n'
    code += 'assert not {"specutils_blase", "torch"} & set(sys.modules)\nnp.savez("out.npz", median, p16, p84)\n'
    found = saved_by(code, tmp_path)
    one = 0.994457883
    expected = quantiles(predictor.network, np.clip(inputs, *predictor.limits), (0.0, -one, one))
    for k, values in enumerate(found):
        np.testing.assert_allclose(values, expected[..., k], rtol=2e-4)
    assert np.ptp(np.log(expected)) > 0.5


def test_script_gives_the_spectra(tmp_path):
    torch.manual_seed(0)
    space = LatentSpace(5, 3, first=4000.0, step=80.0, n_table=200, hidden=7)
    space.components.copy_(torch.randn(6, 200))
    with torch.no_grad():
        space.decoder[-1].weight *= 20.0
    model = SpectrumAutoencoder(space, LatentDensity(3, transforms=1, hidden=4), {"n_galaxies": 5})
    model.write(tmp_path / "autoencoder.asdf")
    latents = np.random.default_rng(1).normal(0.0, 1.5, (8, 3))
    np.save(tmp_path / "latents.npy", latents)
    code = f'{ALONE}\nimport numpy as np\nlatents = np.load("latents.npy")\n{script("autoencoder")}\n'
    code += 'assert not {"specutils_blase", "torch"} & set(sys.modules)\nnp.savez("out.npz", wave, flux)\n'
    wave, flux = saved_by(code, tmp_path)
    np.testing.assert_allclose(wave, model.spectral_axis.to_value("AA"), rtol=1e-12)
    with torch.no_grad():
        np.testing.assert_allclose(flux, space(torch.as_tensor(latents).float()), atol=1e-4)


@pytest.mark.parametrize("compression", [None, "zlib", "bzp2"])
def test_any_compression_of_the_standard_is_read(compression, tmp_path):
    template = make_template(30)
    path = tmp_path / "t.asdf"
    asdf.AsdfFile({"template": template}).write_to(path, all_array_compression=compression)
    back = type(template).read(path)
    assert np.array_equal(back.model.x_0.value, template.model.x_0.value)
