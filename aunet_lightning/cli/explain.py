"""Errors in settings, in plain words, found by comparing the settings with the parser's types."""

import difflib
import types
from argparse import Action
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from aunet_lightning.lightning_private import link_sources, type_of
from aunet_lightning.numbers import listed, show

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
QUOTES = {
    False: " (YAML reads no, off and false as false: put quotes around the word)",
    True: " (YAML reads yes, on and true as true: put quotes around the word)",
}


class Fault(ValueError):
    """One error, in a sentence. ignored: jsonargparse continues as if the setting were absent."""

    def __init__(self, what: str, ignored: bool = False) -> None:
        super().__init__(what)
        self.ignored = ignored


class Explainer:
    """Finds errors in the settings of a command whose parser has these actions."""

    def __init__(self, actions: Sequence[Action]) -> None:
        settings = (action for action in actions if not action.dest.endswith((".help", "print_config")))
        self.actions = {action.dest: action for action in settings}

    def faults(self, sources: Sequence[tuple[str, Any]]) -> Iterator[Fault]:
        """Yields the errors in each source, as `sources.read` returns them."""
        for key, value in sources:
            if not key:
                yield from self._of_mapping(value, "")
            else:
                as_text, as_yaml = [*self._of_setting(key, value)], [*self._of_setting(key, loaded(value))]
                if as_text and as_yaml:
                    yield from as_yaml

    def _of_mapping(self, settings: Mapping[Any, Any], prefix: str) -> Iterator[Fault]:
        for name, value in settings.items():
            if not isinstance(name, str):
                yield Fault(f"{prefix}{show(name)} is not the name of a setting{hint(name)}")
            else:
                yield from self._of_setting(prefix + name.removesuffix("+"), value)

    def _of_setting(self, key: str, value: Any) -> Iterator[Fault]:
        action = self.actions.get(key)
        if action is not None and (sources := link_sources(action)):
            yield Fault(f"{key} cannot be set: it follows from {' and '.join(sources)}", True)
        elif action is not None and (kind := type_of(action)) is not None:
            yield from mismatches(kind, value, key)
        elif any(dest.startswith(f"{key}.") for dest in self.actions):
            if isinstance(value, Mapping):
                yield from self._of_mapping(value, f"{key}.")
            elif not isinstance(value, str) or not Path(value).is_file():
                inside = listed(self._beside(f"{key}.x"))
                yield Fault(f"{key} is {show(value)}, it must be a mapping of settings ({inside})", True)
        elif action is None and not any(key.startswith(f"{dest}.") for dest in self._of_classes()):
            yield Fault(unknown(key, self._beside(key), [*self.actions]))

    def _of_classes(self) -> list[str]:
        return [dest for dest, action in self.actions.items() if type_of(action) is not None]

    def _beside(self, key: str) -> list[str]:
        """Returns every setting in the same mapping."""
        inside = key.rpartition(".")[0]
        starts = f"{inside}." if inside else ""
        names = (dest[len(starts) :].partition(".")[0] for dest in self.actions if dest.startswith(starts))
        return [name for name in dict.fromkeys(names) if name not in ("help", "config", "")]


def unknown(key: str, beside: Sequence[str], everything: Sequence[str]) -> str:
    """Returns the sentence for an unknown key, with the one probably meant or the valid ones."""
    inside, _, name = key.rpartition(".")
    if near := difflib.get_close_matches(name, beside, n=1):
        return f"{key} is unknown. Did you mean {inside}{'.' * bool(inside)}{near[0]}?"
    elsewhere = [one for one in everything if one.rpartition(".")[2] == name]
    if near := elsewhere or difflib.get_close_matches(key, everything, n=1):
        return f"{key} is unknown. Did you mean {near[0]}?"
    return f"{key} is unknown. There are {listed(beside)}"


def mismatches(kind: Any, value: Any, key: str) -> Iterator[Fault]:
    """Yields where a value does not match a type, as deep inside it as possible. Classes check their own arguments."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        tries = [[*mismatches(one, value, key)] for one in inner]
        if all(tries):
            deep = [found for one, found in zip(inner, tries, strict=True) if _of_one_shape(one, value)]
            yield from deep[0] if deep else [mismatch(kind, value, key)]
    elif origin in (list, tuple) and isinstance(value, list | tuple):
        kinds = list(inner) if origin is tuple and ... not in inner else [inner[0]] * len(value)
        if len(kinds) != len(value):
            yield mismatch(kind, value, key)
        else:
            for number, (one_kind, one) in enumerate(zip(kinds, value, strict=True)):
                yield from mismatches(one_kind, one, f"{key}[{number}]")
    elif origin in (dict, Mapping) and isinstance(value, Mapping):
        for name, one in value.items():
            if inner[0] is str and not isinstance(name, str):
                yield Fault(f"{key} has the key {show(name)}, it must be text{hint(name)}")
            yield from mismatches(inner[1], one, f"{key}.{name}")
    elif is_dataclass(kind) and isinstance(value, Mapping):
        yield from _of_dataclass(kind, value, key)
    elif not _fits(kind, value):
        yield mismatch(kind, value, key)


def _of_dataclass(kind: Any, value: Mapping[Any, Any], key: str) -> Iterator[Fault]:
    there = {field.name: field for field in fields(kind)}
    for name, one in value.items():
        if name in there:
            yield from mismatches(there[name].type, one, f"{key}.{name}")
        else:
            near = difflib.get_close_matches(str(name), there, n=1)
            which = f"Did you mean {near[0]}?" if near else f"There are {listed([*there])}"
            yield Fault(f"{key}.{name} is unknown. {which}")
    for name, field in there.items():
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            yield Fault(f"{key} lacks {name}")


def _of_one_shape(kind: Any, value: Any) -> bool:
    shape = get_origin(kind) or kind
    if isinstance(value, Mapping):
        return shape in (dict, Mapping) or is_dataclass(kind)
    return isinstance(value, list) and shape in (list, tuple)


def _fits(kind: Any, value: Any) -> bool:
    """Returns whether a value matches a type, or a type that is not checked here."""
    if get_origin(kind) is Literal:
        return any(value == one and type(value) is type(one) for one in get_args(kind))
    if kind is float:
        return (isinstance(value, int | float) and not isinstance(value, bool)) or _reads_as(value, float)
    if kind is int:
        return (isinstance(value, int) and not isinstance(value, bool)) or _reads_as(value, int)
    if kind in WORDS:
        return isinstance(value, kind)
    if get_origin(kind) in (list, tuple, dict, Mapping) or is_dataclass(kind):
        return False
    if isinstance(kind, type) and issubclass(kind, timedelta):
        return isinstance(value, str | Mapping)
    return kind is Any or isinstance(value, str) or (isinstance(value, Mapping) and "class_path" in value)


def _reads_as(value: Any, kind: type) -> bool:
    if not isinstance(value, str):
        return False
    try:
        kind(value)
    except ValueError:
        return False
    return True


def mismatch(kind: Any, value: Any, key: str) -> Fault:
    """Returns the sentence for a value that does not match a type."""
    text = hint(value) if _takes_text(kind) else ""
    words = " or ".join(dict.fromkeys(_words(kind)))
    return Fault(f"{key} is {show(value)}, it must be {words}{text}", value is None)


def _words(kind: Any) -> Iterator[str]:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        parts = [part for one in inner for part in _words(one)]
        yield from sorted(parts, key="null".__eq__)
    elif origin is Literal:
        yield from map(str, inner)
    elif origin is tuple and ... not in inner:
        yield f"a list of {len(inner)} values"
    elif origin in (list, tuple):
        yield "a list"
    elif kind in WORDS:
        yield WORDS[kind]
    elif origin in (dict, Mapping) or is_dataclass(kind):
        yield "a mapping"
    else:
        yield f"a {getattr(kind, '__name__', 'value').strip('_')}"


def _takes_text(kind: Any) -> bool:
    return kind is str or str in get_args(kind) or any(map(_takes_text, get_args(kind)))


def hint(value: Any) -> str:
    """Returns how to write text that YAML reads as something else."""
    if isinstance(value, bool):
        return QUOTES[value]
    return "" if value is None or isinstance(value, str | list | Mapping) else " (put quotes around it)"


def loaded(text: str) -> Any:
    """Returns what an option's text is in YAML; the text where it is none."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
