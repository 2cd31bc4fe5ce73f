"""Finds in the checkout what has no stable name, and calls its command."""

import contextlib
import importlib
import io
import os
import re
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def config_class() -> Any:
    """AUNetConfig is no stable name, so it is looked for where it was and where it may be."""
    return _first(("aunet_lightning", "AUNetConfig"), ("aunet_lightning.model.config", "AUNetConfig"),
                  ("aunet_lightning.model", "AUNetConfig"), ("aunet_lightning.interop", "AUNetConfig"))  # fmt: skip


def edge_texts() -> dict[str, dict[str, bytes]]:
    module = None
    for name in ("splitters.laws.edge_texts", "splitters.edge_texts"):
        with contextlib.suppress(ImportError):
            module = importlib.import_module(name)
            break
    if module is None:
        raise ImportError("the edge texts are in none of the places that this script knows: add theirs")
    return {"short": module.short_texts(), "long": module.long_texts(), "block": module.block_texts()}


def _first(*places: tuple[str, str]) -> Any:
    for module, name in places:
        with contextlib.suppress(ImportError, AttributeError):
            return getattr(importlib.import_module(module), name)
    raise ImportError(f"{places[0][1]} is in none of {', '.join(module for module, _ in places)}: add where it is")


def main_of_tree() -> Callable[[list[str]], int]:
    """Returns what the command `aunet` calls, by the checkout's pyproject.toml."""
    project = tomllib.loads((Path(os.environ["SAME_TREE"]) / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["scripts"]["aunet"].partition(":")
    found: Callable[[list[str]], int] = getattr(importlib.import_module(module), name)
    return found


def aunet(*arguments: Any) -> str:
    """Runs the command in this process; returns what it printed. Raises RuntimeError with it where it fails."""
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown):
            code = main_of_tree()([str(argument) for argument in arguments])
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 1
    if code:
        raise RuntimeError(f"aunet {' '.join(map(str, arguments))}: exit code {code}\n{shown.getvalue()[-3000:]}")
    return shown.getvalue()


def lines(shown: str) -> list[str]:
    """Returns printed lines without those that hold this machine's paths, MLflow's pages and times."""
    left_out = re.compile(r"MLflow|http://|mlruns|mlflow|\d+(\.\d)? s\b|seconds|" + re.escape(tempfile.gettempdir()))
    return [line.rstrip() for line in shown.splitlines() if line.strip() and not left_out.search(line)]
