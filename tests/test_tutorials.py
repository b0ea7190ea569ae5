"""A tutorial that takes real files where they are runs on simulated ones as well.

Pytest runs the page itself, on whichever files there are.
"""

import doctest
from pathlib import Path

from matplotlib import pyplot

from tests import barnards_star

PAGE = Path(__file__).parents[1] / "docs/tutorials/from_raw_file.rst"


def test_from_raw_file_without_the_real_files(tmp_path, monkeypatch):
    monkeypatch.setattr(barnards_star, "SHARED_DATA", tmp_path / "nowhere")
    paths = barnards_star.real_or_simulated(tmp_path)
    assert {path.parent for path in paths} == {tmp_path}
    asked = []
    result = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8",
                              globs={"getfixture": lambda name: asked.append(name) or paths},
                              optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)  # fmt: skip
    pyplot.close("all")
    assert result.failed == 0 and result.attempted > 50
    assert asked == ["barnards_star"]


def test_real_files_are_taken_where_they_are(shared_data, tmp_path):
    paths = barnards_star.real_or_simulated(tmp_path)
    assert paths == [shared_data / name for name in barnards_star.BARNARDS_STAR] and not list(tmp_path.iterdir())


def test_one_missing_file_is_enough(tmp_path, monkeypatch):
    for name in barnards_star.BARNARDS_STAR[:2]:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    monkeypatch.setattr(barnards_star, "SHARED_DATA", tmp_path)
    monkeypatch.setattr(barnards_star, "simulated_files", lambda folder: ["simulated", folder])
    assert barnards_star.real_or_simulated(tmp_path) == ["simulated", tmp_path]
