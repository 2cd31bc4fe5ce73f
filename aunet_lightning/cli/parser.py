"""The parser of fit, validate, test and predict: one sentence for an error, without a page of usage."""

import functools
import operator
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, Union, get_args, get_origin

from lightning.pytorch.cli import LightningArgumentParser

from aunet_lightning.cli import sources
from aunet_lightning.cli.explain import Explainer, unknown
from aunet_lightning.cli.help import asked, help_text
from aunet_lightning.lightning_private import parser_actions, set_type, subcommands, type_of

LONGEST = 380  # characters of a sentence
UNION = (
    r"^(?P<key>\S+:)?.*?Does not validate .*? Errors: - (?P<errors>.*) Given value type: .* Given value: ?(?P<value>.*)"
)
INTERNAL = (  # internals in messages of jsonargparse and Python, and what a user reads instead
    (r"<class 'NoneType'>", "null"), (r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1"), (r"typing\.", ""),
    (r"<[^<>]* object at 0x\w+>", "…"), (r"Problem with given class_path", "class_path"),
)  # fmt: skip


class Refused(Exception):
    """A parser's error. (jsonargparse catches errors of other kinds, and continues.)"""


class ShortErrorParser(LightningArgumentParser):
    """Reports an error in one sentence, without a page of usage."""

    def parse_args(self, args: Any = None, *more: Any, **options: Any) -> Any:
        """Parses like its parent, but also refuses files that are not settings, repeated keys, and null for a required
        value, which the parent treats as absent."""
        commands = subcommands(self)
        if not args or args[0] not in commands:
            return super().parse_args(args, *more, **options)
        command = commands[args[0]]
        actions = parser_actions(command)
        if (part := asked(args)) is not None:
            try:
                print(help_text(str(args[0]), command, part))
            except ValueError as error:
                _fail(str(error))
            sys.exit(0)
        for action in actions:
            if (kind := type_of(action)) is not None:
                set_type(action, int_first(kind))
        explainer = Explainer(actions)
        given: list[tuple[str, Any]] = []
        try:
            given += sources.read(args[1:])
            parsed = super().parse_args(args, *more, **options)
        except Refused as refused:
            faults = [*explainer.faults(given)]
            _fail(str(faults[0]) if faults else short_error(str(refused), [*explainer.actions]))
        except (ValueError, TypeError, OSError, RecursionError, AttributeError, ImportError) as error:
            _fail(short_error(str(error)))
        for fault in explainer.faults(given):
            if fault.ignored:
                _fail(str(fault))
        return parsed

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise Refused(message) from ex


def int_first(kind: Any) -> Any:
    """Returns a union of types with int before float. (typing reuses the first union of the same types, in its order;
    with float first, a limit of 1 batch is parsed as 1.0, which means all of them.)"""
    inner = list(get_args(kind))
    if get_origin(kind) is not Union or not {int, float} <= {*inner}:
        return kind
    return functools.reduce(operator.or_, sorted(inner, key=lambda one: one is not int))


def _fail(sentence: str) -> NoReturn:
    print(f"aunet: error: {sentence}", file=sys.stderr)
    sys.exit(2)


def short_error(message: str, keys: Sequence[str] = ()) -> str:
    """Returns a parser's message on one line in plain words, with the nearest of `keys` for an unknown key."""
    text = re.sub(r"\s+", " ", message).strip()
    text = re.sub(r"Call to compute_fn of link '.*?' with args \(.*?\) failed: ", "", text)
    text = text.replace("required: fit.", "required, for example from a file (-c experiments/quickstart.yaml): ")
    text = re.sub(
        r"required: (?:validate|test|predict)\.", "required, from -c CONFIG or a --ckpt_path in a run's folder: ", text
    )
    if found := re.search(r"unrecognized arguments: --([^\s=]+)", text):
        inside = found[1].rpartition(".")[0]
        return unknown(found[1], [key.rpartition(".")[2] for key in keys if key.rpartition(".")[0] == inside], keys)
    text = re.sub(r'Parser key "([^"]+)":(?: -)?', r"\1:", text)
    if found := re.search(UNION, text):
        tries = [one for one in re.split(" - ", found["errors"]) if not re.match("Expected a <class", one)]
        text = f"{found['key'] or ''} {(tries or [found['errors']])[0]}".strip()
        if "Expected a dot import path string" in text:
            key, value = found["key"] or "", found["value"]
            text = f"{key} {value} is not a known class: write its path, package.module.Class"
    if found := re.match(r"(\S+): .*(?:Got|Given) value: (\S*nan|\S*inf)$", text, re.I):
        return f"{found[1]} is {found[2]}, it must be a finite number"
    for pattern, plain in INTERNAL:
        text = re.sub(pattern, plain, text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
