"""`aunet --print_completion bash|zsh`: a script for the tab key, with every command, its options and their words."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NoReturn, get_args, get_origin

from aunet_lightning.cli.help import meaning
from aunet_lightning.lightning_private import link_sources, parser_actions, subcommands, type_of

SHELLS = ("bash", "zsh")
FILES = (  # options and arguments that name a file
    "config", "ckpt_path", "text", "files", "data", "parallel", "out", "html", "page", "csv", "plot",
    "train_files", "val_files", "test_files",
)  # fmt: skip
FOLDERS = ("folders", "folder", "cache_dir", "default_root_dir")
RULES = ("splitter", "upper_splitters")
PLAIN = str.maketrans(dict.fromkeys("`'\"$\\[]:", "’"))  # in descriptions, where shells would read them

Function = Callable[[list[str]], Any]


class _Found(Exception):
    """Carries the parser of a command out of it, in place of parsing."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def print_completion(shell: str, functions: Mapping[str, Function]) -> int:
    """Prints the script for a shell.

    functions: what runs each command. Returns the exit code.
    """
    if shell not in SHELLS:
        print(f"aunet: error: --print_completion {shell!r}: choose {' or '.join(SHELLS)}", file=sys.stderr)
        return 2
    try:
        import shtab
    except ModuleNotFoundError:
        print("aunet: error: --print_completion needs shtab: pip install shtab", file=sys.stderr)
        return 1
    parser = argparse.ArgumentParser("aunet", description="Autoregressive U-Nets on raw bytes")
    commands = parser.add_subparsers(dest="command")
    for command, function in functions.items():
        found = parser_of(command, function)
        _copy(found, commands.add_parser(command, help=_plain(found.description or command)), shtab)
    print(shtab.complete(parser, shell))
    return 0


def parser_of(command: str, function: Function) -> argparse.ArgumentParser:
    """Returns the parser that a command gives its arguments to, without running it."""
    from aunet_lightning.cli.parser import ShortErrorParser

    def found(self: Any, args: Any = None, *more: Any, **options: Any) -> NoReturn:
        inner = subcommands(self) if isinstance(self, ShortErrorParser) else {}
        raise _Found(inner.get(command, self))

    with _replaced(argparse.ArgumentParser, found), _replaced(ShortErrorParser, found):
        try:
            function([])
        except _Found as caught:
            return caught.parser
    raise RuntimeError(f"aunet {command} does not begin with its arguments")


@contextmanager
def _replaced(kind: Any, parse_args: Any) -> Iterator[None]:
    usual, kind.parse_args = kind.parse_args, parse_args
    try:
        yield
    finally:
        kind.parse_args = usual


def _copy(found: argparse.ArgumentParser, to: argparse.ArgumentParser, shtab: Any) -> None:
    """Gives a plain parser the options of a command's, with what completes each."""
    for action in parser_actions(found):
        if action.help == argparse.SUPPRESS or isinstance(action, argparse._HelpAction) or link_sources(action):
            continue
        if action.dest.endswith(".help"):
            continue
        names = [name for name in action.option_strings if not name.endswith("+")] or [action.dest]
        words = _words(action)
        given: dict[str, Any] = {"help": _plain(meaning(action))}
        if action.nargs == 0:
            given["action"] = "store_true"
        else:
            given |= {"nargs": action.nargs, "choices": words, "metavar": action.dest.rpartition(".")[2].upper()}
        added = to.add_argument(*names, **given)
        last = action.dest.rpartition(".")[2]
        if words is None and action.nargs != 0 and (kind := _kind(last)):
            added.complete = getattr(shtab, kind)  # type: ignore[attr-defined]


def _kind(name: str) -> str | None:
    return "FILE" if name in FILES else "DIRECTORY" if name in FOLDERS else None


def _words(action: argparse.Action) -> list[str] | None:
    """Returns the words that an option takes, or None where it takes any."""
    if action.dest in RULES:
        from splitters import available

        return available()
    if action.choices is not None:
        return [str(choice) for choice in action.choices]
    kinds = [inner for kind in (get_args(type_of(action)) or [type_of(action)]) for inner in (kind, *get_args(kind))]
    literals = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    words = [*literals, *(("true", "false") if bool in kinds else ())]
    return [str(word) for word in words] if words else None


def _plain(text: str) -> str:
    """Returns a description without what a shell would read in it."""
    return " ".join(text.translate(PLAIN).replace("%", "%%").split())
