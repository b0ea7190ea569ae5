"""Tutorials that take real files where they are run on simulated ones as well.

Pytest runs the pages themselves, on whichever files there are.
"""

import doctest
from pathlib import Path

import pytest
from matplotlib import pyplot

from tests import barnards_star, wasp69

TUTORIALS = Path(__file__).parents[1] / "docs/tutorials"
SOURCES = {"barnards_star": (barnards_star, barnards_star.BARNARDS_STAR), "wasp69": (wasp69, wasp69.WASP69)}


@pytest.fixture(params=SOURCES)
def source(request):
    return SOURCES[request.param]


@pytest.mark.parametrize(("page", "name"), [("from_raw_file", "barnards_star"), ("from_file_to_template", "wasp69")])
def test_page_without_the_real_files(page, name, tmp_path, monkeypatch):
    module, _ = SOURCES[name]
    monkeypatch.setattr(module, "SHARED_DATA", tmp_path / "nowhere")
    paths = module.real_or_simulated(tmp_path)
    assert {path.parent for path in paths} == {tmp_path}
    asked = []
    result = doctest.testfile(str(TUTORIALS / f"{page}.rst"), module_relative=False, encoding="utf-8",
                              globs={"getfixture": lambda name: asked.append(name) or paths},
                              optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)  # fmt: skip
    pyplot.close("all")
    assert result.failed == 0 and result.attempted > 50
    assert asked == [name]


def test_real_files_are_taken_where_they_are(source, shared_data, tmp_path):
    module, names = source
    assert module.real_or_simulated(tmp_path) == [shared_data / name for name in names] and not list(tmp_path.iterdir())


def test_one_missing_file_is_enough(source, tmp_path, monkeypatch):
    module, names = source
    for name in names[:-1]:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    monkeypatch.setattr(module, "SHARED_DATA", tmp_path)
    monkeypatch.setattr(module, "simulated_files", lambda folder: ["simulated", folder])
    assert module.real_or_simulated(tmp_path) == ["simulated", tmp_path]
