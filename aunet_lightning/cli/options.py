"""Options that several commands share, under one name in each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import yaml

from aunet_lightning.numbers import show
from aunet_lightning.terminal import one_line

if TYPE_CHECKING:
    import torch

UPPER = {"name": "every", "n": 2}  # above the first splitter, where no others are given


def add_option(parser: argparse.ArgumentParser, name: str, older: Sequence[str] = (), **settings: Any) -> None:
    """Adds an option; its older spellings keep working, and `--help` does not list them."""
    dest = parser.add_argument(name, **settings).dest
    for spelling in older:
        parser.add_argument(spelling, **{**settings, "dest": dest, "help": argparse.SUPPRESS})


def add_upper_splitters(parser: argparse.ArgumentParser) -> None:
    add_option(
        parser, "--upper_splitters", ["--upper"], nargs="*", action="extend", metavar="RULE",
        help="one rule per further stage (default {name: every, n: 2})",
    )  # fmt: skip


def rule_of(option: str, text: str) -> Any:
    """Returns the rule that an option names, as plain data. Raises ValueError for YAML that cannot be read."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"{option} is {show(text)}, it must be a name, or YAML like {{name: fixed, n: 4}}") from None


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda, cuda:1, mps")


def device_of(name: str) -> torch.device:
    """Returns the device that an option names. Raises ValueError for one that cannot be used."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = (str(error).splitlines() or [""])[0][:100]
        raise ValueError(f"--device is {name!r}, which cannot be used ({why}): give auto or cpu") from None
    return found


def warn(text: str | None) -> None:
    """Prints a warning, if there is one."""
    if text:
        print(f"aunet: warning: {one_line(text)}", file=sys.stderr)


def print_table(rows: Sequence[Sequence[str]], left: Sequence[str]) -> None:
    """Prints a line per row, the first of which is the header; columns headed by `left` are aligned on the left."""
    from aunet_lightning.reports.table import aligned

    print("\n".join(line.rstrip() for line in aligned(rows, left=left)))
