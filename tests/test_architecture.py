"""The rules of docs/development/design.rst, read off the source with ``ast``.

Every rule is a function from a module to the list of its violations. The package must have none, and every rule is
also shown a small module that breaks it, so that no rule passes because it sees nothing.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

PACKAGE = "specutils_blase"
ROOT = Path(__file__).parents[1] / PACKAGE

# Third-party packages a layer may import, at any depth. Layers not named here are bound by the other rules alone.
THIRD_PARTY = {
    "functional": {"torch", "numpy"},
    "nn": {"torch", "numpy"},
    "solvers": {"torch", "numpy", "scipy"},
    "conf": {"astropy"},
    "errors": {"astropy"},
    "progress": {"astropy"},
    "instrument": {"astropy", "numpy"},
    "regions": {"astropy", "numpy", "specutils"},
}
# Layers of this package that a layer may import, itself included.
INTERNAL = {
    "functional": {"functional", "_kernels"},
    "nn": {"functional", "nn"},
    "solvers": {"functional", "nn", "solvers"},
    "conf": {"conf"},
    "errors": {"errors"},
    "progress": {"conf", "errors", "progress"},
    "instrument": {"errors", "instrument"},
    "regions": {"errors", "regions"},
    "adapters": {"functional", "conf", "errors", "regions", "adapters"},
}
# The compiled twin of the layer functional.
COMPILED = ("functional.compiled", "functional.equivalent_widths", "functional.multilevel")
# The one function of torch that is compiled inside, where its tensors can be.
BOTH = "functional.sparse"
# The one module with files of torch: the state of an unfinished run, which is no product.
CHECKPOINTS = "solvers.checkpoint"
# Loaded by astropy at the end of every import of its fitters, through an entry point.
LEAVES = {"modeling", "fitter"}
LEAF_IMPORTS = {"astropy", "numpy"}
ADAPTERS_USERS = {"lines", "line_input", "forest_tables", "matching", "template", "cloning", "fitting", "priors",
                  "orders", "quality", "plotting", "cli", "io", "galaxy", *LEAVES}  # fmt: skip
LAZY_IMPORTERS = {"plotting", "cli", "cli_galaxy", "galaxy.pictures"} | LEAVES  # besides __init__.py files and io.asdf

MAX_MODULE_LINES = 500
MAX_FUNCTION_LINES = 60
# Overrides whose contract is that of the class they override.
INHERITED_CONTRACT = {"forward", "backward", "setup_context", "jvp", "evaluate", "extra_repr"}
INHERITED_CONTRACT |= {"to_yaml_tree", "from_yaml_tree", "to_yaml_tree_transform", "from_yaml_tree_transform"}
UNNAMED = {"utils", "helpers", "common", "misc", "base"}


@dataclass(frozen=True)
class Import:
    """One imported module, as an absolute dotted name."""

    name: str
    line: int
    in_function: bool

    @property
    def top(self):
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Module:
    """One source file; ``name`` is relative to the package, with ``""`` for its ``__init__``."""

    name: str
    source: str
    is_package: bool = False

    @cached_property
    def tree(self):
        return ast.parse(self.source)

    @property
    def layer(self):
        return self.name.partition(".")[0]

    @cached_property
    def imports(self):
        return list(_imports(self, self.tree.body, in_function=False))

    @property
    def third_party(self):
        return [i for i in self.imports if i.top not in sys.stdlib_module_names and i.top != PACKAGE]

    @property
    def internal(self):
        """Imports from this package, named relative to it."""
        prefix = PACKAGE + "."
        return [Import(i.name.removeprefix(prefix), i.line, i.in_function) for i in self.imports if i.top == PACKAGE]

    @cached_property
    def definitions(self):
        """Every function and class with the classes around it: (node, qualified name, public)."""
        return list(_definitions(self.tree.body, (), public=True))


def _imports(module, body, in_function):
    for node in body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, in_function)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, in_function)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from _imports(module, node.orelse, in_function)
        else:
            inner = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(module, ast.iter_child_nodes(node), inner)


def _absolute(module, node):
    if not node.level:
        return node.module
    here = [PACKAGE, *module.name.split(".")] if module.name else [PACKAGE]
    parents = here[: len(here) - node.level + module.is_package]
    return ".".join([*parents, node.module] if node.module else parents)


def _definitions(body, outer, public):
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            visible = public and not node.name.startswith("_")
            yield node, ".".join([*outer, node.name]), visible
            if isinstance(node, ast.ClassDef):
                yield from _definitions(node.body, (*outer, node.name), visible)
        elif isinstance(node, ast.If | ast.Try):
            yield from _definitions(ast.iter_child_nodes(node), outer, public)


def read_package(root=ROOT):
    modules = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules.append(Module(name, path.read_text(encoding="utf-8"), is_package))
    return modules


MODULES = read_package()


# --------------------------------------------------------------------------------------------------------------- rules


def third_party_of_layer(module):
    """A layer imports only the packages it is built on."""
    allowed = THIRD_PARTY.get(module.layer)
    if allowed is None:
        return []
    return [f"line {i.line}: {i.name}" for i in module.third_party if i.top not in allowed]


def arrows(module):
    """Imports inside the package point down."""
    allowed = INTERNAL.get(module.layer)
    if allowed is None:
        return []
    return [f"line {i.line}: {i.name}" for i in module.internal if i.name.partition(".")[0] not in allowed]


def adapters_used_by_the_surface(module):
    """Only the public verbs, modeling and io.asdf cross the boundary."""
    if module.layer in ADAPTERS_USERS | {"adapters"}:
        return []
    return [f"line {i.line}: {i.name}" for i in module.internal if i.name.partition(".")[0] == "adapters"]


def units_and_torch_meet_in_adapters(module):
    """A file that imports torch does not import astropy.units; adapters.py apart, and calls of the leaves."""
    if module.layer == "adapters":
        return []
    seen = [i for i in module.imports if not (module.name in LEAVES and i.in_function)]
    torch = any(i.top == "torch" for i in seen)
    units = any(f"{i.name}.".startswith("astropy.units.") for i in seen)
    return ["imports both torch and astropy.units"] if torch and units else []


def kernels_come_through_one_door(module):
    """The compiled module is imported where the error says what to do if it is missing."""
    if module.name == COMPILED[0]:
        return []
    return [f"line {i.line}: {i.name}" for i in module.internal if i.name.startswith("_kernels")]


def reference_stands_alone(module):
    """The torch functions do not import their compiled twin."""
    if module.layer != "functional" or module.name in (*COMPILED, BOTH):
        return []
    return [f"line {i.line}: {i.name}" for i in module.internal if i.name.startswith(COMPILED)]


def leaves_are_light(module):
    """What astropy loads through an entry point imports astropy, numpy and other leaves only."""
    if module.name not in LEAVES:
        return []
    outside = [i for i in module.third_party if i.top not in LEAF_IMPORTS]
    outside += [i for i in module.internal if i.name.partition(".")[0] not in LEAVES]
    return [f"line {i.line}: {i.name} at import" for i in outside if not i.in_function]


def package_root_is_light(module):
    """``import specutils_blase`` imports nothing but the standard library."""
    if module.name:
        return []
    return [f"line {i.line}: {i.name} at import" for i in [*module.third_party, *module.internal] if not i.in_function]


def imports_at_the_top(module):
    """Imports inside functions are for the few modules that others import unasked."""
    if module.is_package or module.name in LAZY_IMPORTERS or module.name.startswith("io.asdf"):
        return []
    return [f"line {i.line}: {i.name}" for i in module.imports if i.in_function]


def no_pickle(module):
    """Files are ASDF; nothing is pickled. A checkpoint is what torch reads without running code from the file."""
    pickles = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "torch.save", "torch.load"}
    found = [f"line {i.line}: {i.name}" for i in module.imports if {i.top, i.name} & pickles]
    safe = {n.func for n in ast.walk(module.tree) if module.name == CHECKPOINTS and _is_safe(n)}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in pickles and node not in safe:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


def _is_safe(node):
    if not isinstance(node, ast.Call):
        return False
    options = [ast.unparse(k) for k in node.keywords]
    name = ast.unparse(node.func)
    return name == "torch.save" or (name == "torch.load" and "weights_only=True" in options)


def no_print(module):
    """Only the command line prints."""
    if module.name in ("cli", "cli_galaxy"):
        return []
    return [f"line {n.lineno}" for n in ast.walk(module.tree) if isinstance(n, ast.Name) and n.id == "print"]


def no_assert(module):
    """Input is checked with errors that say what to do, and python -O removes asserts."""
    return [f"line {n.lineno}" for n in ast.walk(module.tree) if isinstance(n, ast.Assert)]


def no_bare_except(module):
    """An except clause names what it expects."""
    blind = (None, "Exception", "BaseException")
    handlers = [n for n in ast.walk(module.tree) if isinstance(n, ast.ExceptHandler)]
    return [
        f"line {n.lineno}"
        for n in handlers
        if (n.type and ast.unparse(n.type)) in blind and not any(isinstance(m, ast.Raise) for m in ast.walk(n))
    ]


def nothing_left_to_do(module):
    """Open ends are issues, not comments."""
    pattern = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    tokens = tokenize.generate_tokens(io.StringIO(module.source).readline)
    return [
        f"line {t.start[0]}: {t.string.strip()[:60]}"
        for t in tokens
        if t.type in (tokenize.COMMENT, tokenize.STRING) and pattern.search(t.string)
    ]


def documented(module):
    """Modules, public functions and classes, and the public methods of those say what they do."""
    missing = [] if ast.get_docstring(module.tree) or not module.tree.body else ["the module"]
    for node, name, public in module.definitions:
        if not public or ast.get_docstring(node) or "setter" in {getattr(d, "attr", "") for d in node.decorator_list}:
            continue
        if "." in name and node.name in INHERITED_CONTRACT:
            continue
        missing.append(name)
    return missing


def parameters_documented(module):
    """A pure function names every argument in its docstring; the compiled twins refer to the functions they mirror."""
    if module.layer != "functional" or module.name == "functional.compiled":
        return []
    missing = []
    for node, name, public in module.definitions:
        if not public or "." in name or not isinstance(node, ast.FunctionDef):
            continue
        text = ast.get_docstring(node) or ""
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        missing += [f"{name}: {a.arg}" for a in arguments if not re.search(rf"\b{a.arg}\b", text)]
    return missing


def small(module):
    """Modules and functions stay readable; docstrings do not count for functions, nor their examples for modules."""
    nodes = [node for node in ast.walk(module.tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    # each with the empty line and the title above them
    examples = ["".join((ast.get_docstring(node) or "").partition("\nExamples\n")[1:]) for node in nodes]
    lines = module.source.count("\n") - sum(len(text.splitlines()) for text in examples)
    found = [f"{lines} lines"] if lines > MAX_MODULE_LINES else []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            if length > MAX_FUNCTION_LINES:
                found.append(f"{node.name}: {length} lines")
    return found


def named_for_its_content(module):
    """No module that grows by accretion; in the numerics no private file names."""
    stem = module.name.rpartition(".")[2]
    private = module.layer in {"functional", "nn"} and stem.startswith("_")
    return [module.name] if stem in UNNAMED or private else []


# A module that breaks each rule, and how often.
BROKEN = [
    (third_party_of_layer, Module("functional.a", "import astropy.units as u\nimport torch, scipy\n"), 2),
    (third_party_of_layer, Module("nn.a", "def f():\n    from specutils import Spectrum\n"), 1),
    (third_party_of_layer, Module("solvers.a", "from astropy import units\n"), 1),
    (arrows, Module("functional.a", "from ..nn import forest\nfrom . import grid\n"), 1),
    (arrows, Module("nn.a", "from specutils_blase.solvers.banded import solve\nfrom .forest import LineForest\n"), 1),
    (arrows, Module("solvers", "from ..adapters import read_spectrum\nfrom . import banded\n", True), 1),
    (arrows, Module("solvers.a", "from .. import fitting\n"), 1),
    (arrows, Module("adapters", "from .fitting import SpectrumFit\nfrom .conf import conf\n"), 1),
    (adapters_used_by_the_surface, Module("instrument", "from .adapters import quantity_value\n"), 1),
    (adapters_used_by_the_surface, Module("nn.a", "from .. import adapters\n"), 1),
    (units_and_torch_meet_in_adapters, Module("cloning", "import torch\nfrom astropy import units as u\n"), 1),
    (units_and_torch_meet_in_adapters, Module("fitting", "import astropy.units\nfrom torch import nn\n"), 1),
    (units_and_torch_meet_in_adapters, Module("lines", "from astropy.units import AA\ndef f():\n    import torch"), 1),
    (units_and_torch_meet_in_adapters, Module("modeling", "import astropy.units\ndef f():\n    import torch"), 0),
    (kernels_come_through_one_door, Module("solvers.banded", "from .. import _kernels\n"), 1),
    (reference_stands_alone, Module("functional", "from .compiled import voigt\n", True), 1),
    (reference_stands_alone, Module("functional.forest", "from . import compiled\n"), 1),
    (leaves_are_light, Module("modeling", "import scipy\nfrom .errors import E\ndef f():\n    import torch\n"), 2),
    (leaves_are_light, Module("modeling", "class A:\n    import specutils\n"), 1),
    (package_root_is_light, Module("", "from .lines import find_lines\nimport astropy\nimport sys\n", True), 2),
    (imports_at_the_top, Module("lines", "def f():\n    if 1:\n        import scipy\n"), 1),
    (imports_at_the_top, Module("fitting", "class A:\n    def f(self):\n        from .lines import g\n"), 1),
    (no_pickle, Module("template", "import pickle\nimport torch\ntorch.save(1, 'f')\n"), 2),
    (no_pickle, Module(CHECKPOINTS, "torch.save(s, 'f')\ntorch.load('f', weights_only=True)\nimport pickle\n"), 1),
    (no_pickle, Module(CHECKPOINTS, "torch.load('f')\ntorch.load('f', weights_only=False)\nf = torch.load\n"), 3),
    (no_print, Module("fitting", "print('done')\nprogress = print\n"), 2),
    (no_assert, Module("lines", "def f(x):\n    assert x > 0\n"), 1),
    (no_bare_except, Module("lines", "try:\n    f()\nexcept:\n    pass\n"), 1),
    (no_bare_except, Module("lines", "try:\n    f()\nexcept Exception as e:\n    g(e)\n"), 1),
    (nothing_left_to_do, Module("lines", "x = 1  # TODO: two\n"), 1),
    (documented, Module("lines", "def f():\n    pass\nclass A:\n    'a'\n    def g(self):\n        pass\n"), 3),
    (documented, Module("nn.a", "'m'\nclass A:\n    'a'\n    def forward(self):\n        pass\n"), 0),
    (parameters_documented, Module("functional.a", "def f(wave, *, sigma):\n    'Of wave.'\n"), 1),
    (small, Module("lines", "x = 1\n" * (MAX_MODULE_LINES + 1)), 1),
    (small, Module("lines", "'''m\n\nExamples\n--------\n" + ">>> 1\n" * MAX_MODULE_LINES + "'''\nx = 1\n"), 0),
    (small, Module("lines", "'''m\n\nExamples\n--------\n>>> 1\n'''\n" + "x = 1\n" * (MAX_MODULE_LINES - 2)), 0),
    (small, Module("lines", "'''m\n\nExamples\n--------\n>>> 1\n'''\n" + "x = 1\n" * (MAX_MODULE_LINES - 1)), 1),
    (small, Module("lines", "def f():\n    'd'\n" + "    x = 1\n" * (MAX_FUNCTION_LINES + 1)), 1),
    (named_for_its_content, Module("io.utils", ""), 1),
    (named_for_its_content, Module("nn._forest", ""), 1),
]
RULES = list(dict.fromkeys(rule for rule, _, _ in BROKEN))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_package_obeys(rule):
    violations = {module.name or "__init__": found for module in MODULES if (found := rule(module))}
    assert not violations, f"{rule.__doc__} {violations}"


@pytest.mark.parametrize(
    ("rule", "module", "expected"), BROKEN, ids=[f"{rule.__name__}-{k}" for k, (rule, _, _) in enumerate(BROKEN)]
)
def test_rule_sees_a_violation(rule, module, expected):
    assert len(rule(module)) == expected


def test_whole_package_was_read():
    names = {module.name for module in MODULES}
    assert {"", "adapters", "functional", "functional.grid", "nn", "solvers", "modeling"} <= names


def import_graph(modules):
    """Edges between the package's own modules that are followed at import."""
    names = {module.name for module in modules}
    graph = {}
    for module in modules:
        targets = set()
        for i in module.internal:
            if i.in_function:
                continue
            parts = i.name.split(".")
            # "functional.grid.velocity_grid" is an attribute of the longest prefix that is a module.
            known = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
            targets |= {next((name for name in known if name in names), "")} - {module.name}
        graph[module.name] = targets
    return graph


def find_cycle(graph):
    done, path = set(), []

    def visit(name):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done or name not in graph:
            return None
        path.append(name)
        for target in sorted(graph[name]):
            if cycle := visit(target):
                return cycle
        done.add(path.pop())
        return None

    return next((cycle for name in graph if (cycle := visit(name))), None)


def test_no_import_cycle():
    assert find_cycle(import_graph(MODULES)) is None


def test_import_cycle_is_seen():
    sources = {"lines": "from .cloning import f\n", "cloning": "from . import fitting\n", "fitting": "import numpy\n"}
    modules = [Module(name, source) for name, source in sources.items()]
    assert find_cycle(import_graph(modules)) is None
    modules[-1] = Module("fitting", "from .lines import g\n")
    assert find_cycle(import_graph(modules)) == ["lines", "cloning", "fitting", "lines"]


def test_picture_in_the_documentation_is_that_of_the_imports():
    from tests.draw_layout import PICTURE, layers  # which imports this module

    drawn = set(re.findall(r'<g id="(\w+)&gt;(\w+)"', PICTURE.read_text(encoding="utf-8")))
    assert drawn == layers()[1], "draw it anew: python -m tests.draw_layout"
    assert PICTURE.stat().st_size < 150_000


# ------------------------------------------------------------------------------------------------------- at run time


def run_python(code):
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "first",
    [
        "import astropy.modeling",
        "import specutils",
        "import gwcs",
        "import specutils_blase",
        "import specutils_blase.modeling",
        "from specutils_blase import VoigtForest1D",
        "from specutils_blase import SparseLineFitter",
    ],
)
def test_fitter_is_registered_whatever_comes_first(first):
    # astropy turns an entry point that fails to load into a warning and goes on without the fitter.
    code = f"{first}; import sys, astropy.modeling.fitting as f; f.SparseLineFitter; print('torch' in sys.modules)"
    result = run_python(code)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "False", "")


@pytest.mark.parametrize("name", __import__(PACKAGE).__all__)
def test_public_name_resolves(name):
    package = __import__(PACKAGE)
    assert name in dir(package)
    assert getattr(package, name).__doc__
