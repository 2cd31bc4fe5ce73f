"""The parser of fit, validate, test and predict: what is wrong in one sentence, without a page of usage."""

import functools
import operator
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, Union, get_args, get_origin

from lightning.pytorch.cli import LightningArgumentParser

from aunet_lightning.cli import sources
from aunet_lightning.cli.explain import Explainer, unknown
from aunet_lightning.lightning_private import parser_actions, set_type, subcommands, type_of

LONGEST = 380  # characters of a sentence
UNION = (
    r"^(?P<key>\S+:)?.*?Does not validate .*? Errors: - (?P<errors>.*) Given value type: .* Given value: ?(?P<value>.*)"
)
INTERNAL = (  # what messages of jsonargparse and of Python have, and what a user may read
    (r"<class 'NoneType'>", "null"), (r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1"), (r"typing\.", ""),
    (r"<[^<>]* object at 0x\w+>", "…"), (r"Problem with given class_path", "class_path"),
)  # fmt: skip


class Refused(Exception):
    """What a parser says of its arguments; jsonargparse catches other kinds of errors, and tries on."""


class ShortErrorParser(LightningArgumentParser):
    """Says what is wrong in one sentence, without a page of usage."""

    def parse_args(self, args: Any = None, *more: Any, **options: Any) -> Any:
        """As its parent. Refuses, besides, files that are no settings, keys that stand twice, and null where there
        must be something, which the parent takes for what was not said."""
        commands = subcommands(self)
        if not args or args[0] not in commands:
            return super().parse_args(args, *more, **options)
        command = commands[args[0]]
        actions = parser_actions(command)
        for action in actions:
            if (kind := type_of(action)) is not None:
                set_type(action, whole_first(kind))
        explainer = Explainer(actions)
        given: list[tuple[str, Any]] = []
        try:
            given += sources.read(args[1:])
            parsed = super().parse_args(args, *more, **options)
        except Refused as refused:
            faults = [*explainer.faults(given)]
            _tell(str(faults[0]) if faults else short_error(str(refused), [*explainer.actions]))
        except (ValueError, TypeError, OSError, RecursionError, AttributeError, ImportError) as error:
            _tell(short_error(str(error)))
        for fault in explainer.faults(given):
            if fault.passed_over:
                _tell(str(fault))
        return parsed

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise Refused(message) from ex


def whole_first(kind: Any) -> Any:
    """Returns a union of types with int before float. typing gives back the first union of the same types that was
    ever made, in its order, and with float first a limit of 1 batch is read as 1.0, which is all of them."""
    inner = list(get_args(kind))
    if get_origin(kind) is not Union or not {int, float} <= {*inner}:
        return kind
    return functools.reduce(operator.or_, sorted(inner, key=lambda one: one is not int))


def _tell(sentence: str) -> NoReturn:
    print(f"aunet: error: {sentence}", file=sys.stderr)
    sys.exit(2)


def short_error(message: str, keys: Sequence[str] = ()) -> str:
    """Returns a parser's message on one line, in plain words, with the nearest of `keys` for an unknown one."""
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
            text = f"{key} {value} is not a class that is known: write its path, package.module.Class"
    if found := re.match(r"(\S+): .*(?:Got|Given) value: (\S*nan|\S*inf)$", text, re.I):
        return f"{found[1]} is {found[2]}, it must be a finite number"
    for pattern, plain in INTERNAL:
        text = re.sub(pattern, plain, text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
