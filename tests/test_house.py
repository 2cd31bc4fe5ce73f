"""The order of the house: imports point down, in no circle; files and functions stay short; faults have their places."""

import ast
from pathlib import Path

import pytest

from tests.mutants.faults import FAULTS

ROOT = Path(__file__).parent.parent
FLOORS = (  # each may import from its own and from those before it
    ("contract", "edge_texts", "tokenizer_json", "registry", "engine"),
    ("rules", "combinators", "learned", "teachers", "predictors", "stack", "laws"),
    (
        "model",
        "numbers",
        "errors",
        "terminal",
        "paths",
        "processes",
        "vocabulary",
        "registry",
        "effects",
        "interop",
        "loading",
    ),
    ("lightning_private",),
    ("reader", "data"),
    ("costs", "checkpoints", "distributed", "generation", "scoring", "entropy", "peers"),
    ("tracking", "training", "planning", "hf", "evaluation"),
    ("study", "reports", "serving"),
    ("assembly",),
    ("cli", "harness"),
)
PLACE = {
    ("splitters" if i < 2 else "aunet_lightning") + f".{name}": i for i, floor in enumerate(FLOORS) for name in floor
}


@pytest.fixture(scope="module")
def modules():
    """Our modules as trees."""
    return {
        str(path.relative_to(ROOT))[:-3].replace("/", ".").removesuffix(".__init__"): ast.parse(path.read_text("utf-8"))
        for package in ("aunet_lightning", "splitters")
        for path in (ROOT / package).rglob("*.py")
        if "starter" not in path.parts  # files that `aunet init` copies
    }


@pytest.fixture(scope="module")
def imports(modules):
    """Names of our modules that each module imports, at any place but under TYPE_CHECKING."""
    found = {}
    for module, tree in modules.items():
        found[module] = set()
        for node in statements(tree, typing=False):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = {f"{node.module}.{alias.name}" for alias in node.names} & modules.keys()
                found[module] |= names or {node.module} & modules.keys()
        found[module] -= {module}
    return found


def statements(node, typing=True):
    """All statements of a tree; without `typing`, not those under TYPE_CHECKING."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.expr) or (not typing and is_typing(inner)):
            continue
        yield inner
        yield from statements(inner, typing)


def is_typing(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def place(module):
    return PLACE.get(".".join(module.split(".")[:2]))


def test_imports_point_down(imports):
    assert len(imports) > 150
    assert sum(map(len, imports.values())) > 3 * len(imports)
    assert {module for module in imports if "." in module and place(module) is None} == set()
    for module, names in imports.items():
        for name in names:
            if place(module) is not None and place(name) is not None:
                assert place(name) <= place(module), f"{module} imports {name}"


@pytest.mark.parametrize("depth", [2, 9], ids=["folders", "files"])
def test_no_imports_run_in_a_circle(imports, depth):
    graph: dict = {}
    for module, names in imports.items():
        at = ".".join(module.split(".")[:depth])
        graph.setdefault(at, set()).update({".".join(name.split(".")[:depth]) for name in names} - {at})
    while leaves := {node for node, below in graph.items() if not below}:
        graph = {node: below - leaves for node, below in graph.items() if node not in leaves}
    assert {node: below & graph.keys() for node, below in graph.items()} == {}


def test_files_and_functions_are_short(modules):
    for module, tree in modules.items():
        for node in statements(tree):
            lines = getattr(node, "end_lineno", None) or 0
            assert lines <= 400, module
            if isinstance(node, ast.FunctionDef):
                assert lines - node.lineno < 60, f"{module}.{node.name}"


def test_every_planted_fault_has_one_place():
    """Where code moves, the tables of tests/mutants move with it: else a fault is no longer planted."""
    places = {fault.what: (ROOT / fault.file).read_text(encoding="utf-8").count(fault.old) for fault in FAULTS}
    assert {what: n for what, n in places.items() if n != 1} == {}
