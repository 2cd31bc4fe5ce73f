"""Options that several commands share, under one name in each."""

import argparse
from collections.abc import Sequence
from typing import Any

import yaml

from aunet_lightning.numbers import show

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
