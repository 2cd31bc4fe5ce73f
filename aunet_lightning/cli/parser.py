"""The parser of fit, validate, test and predict: what is wrong in one sentence, without a page of usage."""

import difflib
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from aunet_lightning.model.config import StageConfig


class ShortErrorParser(LightningArgumentParser):
    """Says what is wrong in one sentence, without a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        print(f"aunet: error: {short_error(message, self._known())}", file=sys.stderr)
        sys.exit(2)

    def _known(self) -> list[str]:
        """Every key that can be set, of this parser and of its commands."""
        parsers = [self, *(p for a in self._actions if isinstance(a.choices, dict) for p in a.choices.values())]
        in_lists = [field.name for field in fields(StageConfig)]
        return [*in_lists, *dict.fromkeys(action.dest for parser in parsers for action in parser._actions)]


def short_error(message: str, keys: Sequence[str] = ()) -> str:
    """Returns a parser's message on one line, in plain words, with the nearest of `keys` for an unknown one."""
    text = re.sub(r"\s+", " ", message).strip()
    text = re.sub(r'Parser key "([^"]+)"', r"\1", text)
    wrong = re.match(r"(\S+): Does not validate .* Subtypes: \[(.*)\] Errors: .* Given value: (.*)", text)
    if wrong:
        kinds = re.sub(r"typing\.Literal\[([^]]*)\]", r"\1", wrong[2]).replace("<class 'NoneType'>", "null")
        return f"{wrong[1]} is {wrong[3]}, but must be one of: {kinds}"
    if text.startswith("Unexpected config:"):
        return f"the configuration holds no settings: {text}"
    text = re.sub(r"Expected a typing.Literal\[([^]]+)\]", r"choose one of \1", text)
    text = re.sub(r"Expected a <class '(\w+)'>", r"expected \1", text)
    text = text.replace("required: fit.", "required, for example from a file (-c experiments/quickstart.yaml): ")
    if unknown := re.search(r"(?:unrecognized arguments: --|does not accept option '|Option ')([\w.]+)", text):
        inside = unknown[1].rpartition(".")[0]
        beside = [key for key in keys if key.rpartition(".")[0] == inside]
        near = difflib.get_close_matches(unknown[1], keys, n=1)
        text += f". Did you mean {near[0]}?" if near else f". There are {', '.join(beside)}"
    return text
