"""Whatever has a page in the reference shows in its docstring how it is used, in code that runs with the tests."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
DIRECTIVE = re.compile(r"^\.\. automodapi:: (?P<module>\S+)\n(?P<options>(?: +:.*\n)*)", re.MULTILINE)


def pages():
    """Module and name of everything that ``automodapi`` makes a page of."""
    found = set()
    for path in REFERENCE.glob("*.rst"):
        for directive in DIRECTIVE.finditer(path.read_text(encoding="utf-8")):
            module = importlib.import_module(directive["module"])
            skipped, included = (
                set(re.findall(r"\w+", " ".join(re.findall(rf":{option}:(.*)", directive["options"]))))
                for option in ("skip", "include")
            )
            for name in set(module.__all__) - skipped:
                value = getattr(module, name)
                if name in (included or {name}) and (inspect.isclass(value) or inspect.isroutine(value)):
                    found.add((directive["module"], name))
    return sorted(found)


def has_example(text):
    """Whether a docstring has a statement that runs and is no import."""
    statements = re.findall(r"^ *>>> (?!from |import )(.*)", text or "", re.MULTILINE)
    return any("+SKIP" not in statement for statement in statements)


def test_pages_are_found():
    found = {f"{module}.{name}" for module, name in pages()}
    pages_of_all = ("clone_spectrum", "VoigtForest1D", "io.read_vald", "nn.LineForest", "functional.voigt",
                    "simulation.simulate_star", "solvers.first_order.MinimizeResult")  # fmt: skip
    assert {f"specutils_blase.{page}" for page in pages_of_all} <= found
    assert not {"specutils_blase.conf", "specutils_blase.functional.SPEED_OF_LIGHT"} & found


@pytest.mark.parametrize(("module", "name"), pages())
def test_example(module, name):
    assert has_example(getattr(importlib.import_module(module), name).__doc__), f"{module}.{name} has no example"


@pytest.mark.parametrize("text", [
    None, "No code.", "Import only.\n\n    >>> import numpy\n    >>> from astropy import units",
    "Not run.\n\n    >>> read('file')  # doctest: +SKIP",
])  # fmt: skip
def test_none_is_seen(text):
    assert not has_example(text)


def test_one_is_seen():
    assert has_example("A sum.\n\n    >>> import math\n    >>> math.fsum([1, 1])\n    2.0")
