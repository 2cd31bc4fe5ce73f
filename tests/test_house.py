"""The order of the house: imports point down, in no circle; files and functions stay short."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    str(path.relative_to(ROOT))[:-3].replace("/", ".").removesuffix(".__init__"): ast.parse(path.read_text("utf-8"))
    for package in ("aunet_lightning", "splitters")
    for path in (ROOT / package).rglob("*.py")
    if "starter" not in path.parts  # files that `aunet init` copies
}
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


def imported(tree):
    """Names of our modules that a module imports, at any place but under TYPE_CHECKING."""
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in typing:
            names = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            yield from names or {node.module} & MODULES.keys()


IMPORTS = {module: set(imported(tree)) - {module} for module, tree in MODULES.items()}


def place(module):
    return PLACE.get(".".join(module.split(".")[:2]))


def test_imports_point_down():
    assert len(MODULES) > 150
    assert {module for module in MODULES if "." in module and place(module) is None} == set()
    for module, names in IMPORTS.items():
        for name in names:
            if place(module) is not None and place(name) is not None:
                assert place(name) <= place(module), f"{module} imports {name}"


@pytest.mark.parametrize("depth", [2, 9], ids=["folders", "files"])
def test_no_imports_run_in_a_circle(depth):
    graph: dict = {}
    for module, names in IMPORTS.items():
        at = ".".join(module.split(".")[:depth])
        graph.setdefault(at, set()).update({".".join(name.split(".")[:depth]) for name in names} - {at})
    while leaves := {node for node, below in graph.items() if not below}:
        graph = {node: below - leaves for node, below in graph.items() if node not in leaves}
    assert {node: below & graph.keys() for node, below in graph.items()} == {}


def test_files_and_functions_are_short():
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            lines = getattr(node, "end_lineno", None) or 0
            assert lines <= 400, module
            if isinstance(node, ast.FunctionDef):
                assert lines - node.lineno < 60, f"{module}.{node.name}"
