"""docs/troubleshooting.rst quotes messages as the source has them, and every warning is there."""

import ast
import itertools
import re
from pathlib import Path

import pytest

from specutils_blase.errors import explain

HERE = Path(__file__).parents[1]
QUOTES = re.findall(r"^``(.+)``$", (HERE / "docs" / "troubleshooting.rst").read_text(encoding="utf-8"), re.MULTILINE)


def written(node):
    """The text of an expression, with ``...`` for what is known at run time."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(written(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return written(node.left) + written(node.right)
    return "..."


def texts(tree):
    """All that a module can say: its strings, and those of `explain` put together."""
    values = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = (zip(target.elts, node.value.elts, strict=True)
                         if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
                         else [(target, node.value)])  # fmt: skip
                for name, value in pairs:
                    if isinstance(name, ast.Name):
                        values.setdefault(name.id, []).append(written(value))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr | ast.Constant):
            yield written(node)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "explain":
            known = [values.get(a.id, ["..."]) if isinstance(a, ast.Name) else [written(a)] for a in node.args]
            for parts in itertools.product({*known[0], "..."}, *known[1:]):
                yield explain(*parts)


def is_said(quote, text):
    """Whether a text is the quote, whose ``...`` stand for anything."""
    place = 0
    for part in quote.split("..."):
        place = text.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return True


def modules():
    for path in sorted((HERE / "specutils_blase").rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


SAID = [text for _, tree in modules() for text in texts(tree) if len(text) > 10]


def literal_warnings():
    for path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn":
                text = written(node.args[0])
                if "BlaseWarning" in ast.unparse(node) and text != "...":
                    yield pytest.param(text, id=f"{path.stem}-{node.lineno}")


@pytest.mark.parametrize("quote", QUOTES)
def test_quoted_message_is_in_the_source(quote):
    assert max(map(len, quote.split("..."))) >= 10
    assert any(is_said(quote, text) for text in SAID)


@pytest.mark.parametrize("text", list(literal_warnings()))
def test_warning_is_on_the_page(text):
    assert any(is_said(quote, text) for quote in QUOTES)


def test_a_changed_message_is_seen():
    said = list(texts(ast.parse('explain("a", f"be at most {b} long", c, "cut it")\nf"{n} of {m} lines are lost"')))
    assert any(is_said("a must be at most ... long, got ...; cut it", text) for text in said)
    assert any(is_said("... lines are lost", text) for text in said)
    assert not any(is_said("... lines were lost", text) for text in said)
    assert not any(is_said("a must be at most ... long, got ...; cut them", text) for text in said)
