"""Predictors in files: to the bit, by shapes that fit, and nothing else."""

import subprocess
import sys

import asdf
import numpy as np
import pytest
import torch

from specutils_blase import LineTemplate
from specutils_blase.errors import BlaseWarning
from specutils_blase.galaxy import EmissionLinePredictor
from specutils_blase.io.files import read_asdf, write_asdf
from specutils_blase.solvers.line_prediction import quantiles

from .samples import assert_same, make_predictor, make_template


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "predictor.asdf"
    make_predictor().write(path)
    return path


@pytest.fixture
def damaged(tmp_path):
    """A file in which something is not as the converter writes it."""

    def write(change):
        predictor = make_predictor()
        change(predictor)
        write_asdf(tmp_path / "damaged.asdf", predictor)
        return tmp_path / "damaged.asdf"

    return write


@pytest.mark.parametrize("width", [1, 4, 128])
def test_predictor_comes_back_to_the_bit(width, tmp_path, roundtrip):
    predictor = make_predictor(width)
    predictor.write(tmp_path / "p.asdf")
    for back in (EmissionLinePredictor.read(tmp_path / "p.asdf"), read_asdf(tmp_path / "p.asdf"), roundtrip(predictor)):
        assert_same(predictor, back)
        assert not back.network.training
        inputs = np.random.default_rng(1).normal(size=(50, 13))
        np.testing.assert_array_equal(*(quantiles(p.network, inputs, (0.0, 1.0)) for p in (predictor, back)))
        np.testing.assert_array_equal(*(p.network.draws(inputs, 3, 5) for p in (predictor, back)))


def test_arrays_of_what_was_read_are_its_own(path):
    one, other = (EmissionLinePredictor.read(path) for _ in range(2))
    with torch.no_grad():
        one.network.scale += 1.0
    assert_same(make_predictor(), other)


def test_existing_file_is_kept_unless_told(path):
    with pytest.raises(FileExistsError):
        make_predictor().write(path)
    make_predictor(5).write(path, overwrite=True)
    assert EmissionLinePredictor.read(path).network.config["width"] == 5


def test_kinds_are_told_apart(path, tmp_path):
    with pytest.raises(ValueError, match="with a LineTemplate, got .* with an EmissionLinePredictor; use EmissionLine"):
        LineTemplate.read(path)
    make_template().write(tmp_path / "t.asdf")
    with pytest.raises(ValueError, match="with an EmissionLinePredictor, got .* with a LineTemplate; use LineTemplate"):
        EmissionLinePredictor.read(tmp_path / "t.asdf")


def replaced(name, values):
    def change(predictor):
        state = {**predictor.network.state_dict(), name: torch.as_tensor(values, dtype=torch.float32)}
        predictor.network.state_dict = lambda: {key: value for key, value in state.items() if value.numel()}

    return change


def config(**values):
    def change(predictor):
        predictor.network.__class__ = type("Other", (type(predictor.network),), {"config": values})

    return change


CONFIG = make_predictor().network.config
LIMITS = np.zeros((2, 13))
WRONG = {
    "NaN": (replaced("scale", [np.nan] * 10), "scale must be finite, got NaN or infinity"),
    "infinite": (replaced("correlation", np.full((10, 10), np.inf)), "correlation must be finite"),
    "shape": (replaced("weights.0", np.zeros((1, 12, 4))), r"weights.0 must have the shape \(1, 13, 4\), got"),
    "missing": (replaced("center", []), "network must have the arrays of its configuration, got none named 'center'"),
    "surplus": (replaced("colour", [1.0]), "network must have the arrays of its configuration, got one named 'colour'"),
    "width": (config(**{**CONFIG, "width": 8}), r"biases.0 must have the shape \(1, 1, 8\), got \(1, 1, 4\)"),
    "argument": (config(**CONFIG, depth=8), "unexpected keyword argument 'depth'"),
    "members": (config(**{**CONFIG, "members": 2}), r"biases.0 must have the shape \(2, 1, 4\)"),
    "ties": (config(**{**CONFIG, "ties": [[3, 4, 2.98], [5, 7, -2.96]]}), "network must have no ties but .*, got"),
    "lines": (lambda p: setattr(type(p), "lines", ["HALPHA"]), "lines must be OII_DOUBLET, .*, got HALPHA; use"),
    "limits": (lambda p: setattr(p, "limits", LIMITS[:, 1:]), r"limits must be finite and have the shape \(2, 13\)"),
    "NaN limits": (lambda p: setattr(p, "limits", LIMITS / 0.0), "limits must be finite"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")
@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_other_content_is_refused(change, message, damaged, monkeypatch):
    monkeypatch.setattr(EmissionLinePredictor, "lines", EmissionLinePredictor.lines)
    path = damaged(change)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=message):
        EmissionLinePredictor.read(path)


def test_networks_of_another_size_are_no_predictors():
    network = make_predictor().network
    with pytest.raises(ValueError, match="limits must be finite and have the shape"):
        EmissionLinePredictor(network, LIMITS[:, :5], {})
    other = type(network)(12, 10)
    with pytest.raises(ValueError, match=r"network must have 13 inputs, 10 lines and 1 member, got \(12, 10, 1\)"):
        EmissionLinePredictor(other, LIMITS, {})


def test_newer_versions(path):
    content = path.read_bytes()
    tag = b"tags/emission_line_predictor-1.0.0"
    path.write_bytes(content.replace(tag, b"tags/emission_line_predictor-2.0.0"))
    with pytest.raises(ValueError, match="emission_line_predictor version 2.0.0 from a newer .* update specutils"):
        EmissionLinePredictor.read(path)
    path.write_bytes(content.replace(tag, b"tags/emission_line_predictor-1.1.0"))
    with pytest.warns(BlaseWarning, match="emission_line_predictor version 1.1.0 .* ignores what has been added"):
        assert_same(make_predictor(), EmissionLinePredictor.read(path))


def test_schema(path):
    content = path.read_bytes()
    path.write_bytes(content.replace(b"n_galaxies:", b"n_galaxyes:"))
    with pytest.raises(ValueError, match="fit_info.values breaks the schema, 'n_galaxies' is a required property"):
        EmissionLinePredictor.read(path)


def test_file_is_plain(path):
    """Numbers, strings and arrays of single precision: nothing that a reader would have to run."""
    code = f"""
import asdf
with asdf.open({str(path)!r}, _force_raw_types=True) as file:
    node = file['predictor']
    kinds = {{str(array['datatype']) for array in node['network']['arrays'].values()}}
    print(sorted(node), node['network']['config']['ties'], kinds)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    names = ["fit_info", "limits", "lines", "network", "package_version"]
    assert result.stdout.strip() == f"{names} [[3, 4, 2.98], [5, 7, 2.96]] {{'float32'}}", result.stderr
    with asdf.open(path) as file:
        assert type(file["predictor"]) is EmissionLinePredictor
