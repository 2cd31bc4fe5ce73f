"""The settings of a command line as plain data: its files and options, before they are interpreted."""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from aunet_lightning.errors import first_line
from aunet_lightning.numbers import show


class _Loader(yaml.SafeLoader):
    """YAML without repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode) and key.value != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value} appears twice", key.start_mark
                )
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read(arguments: Sequence[str]) -> list[tuple[str, Any]]:
    """Returns the settings of each file as ('', mapping), and those of each option as (key, text).

    Raises ValueError for a file that cannot be read as settings.
    """
    found: list[tuple[str, Any]] = []
    for option, value in _options(arguments):
        if option in ("-c", "--config"):
            found.append(("", _settings(value)))
        elif option.startswith("--"):
            found.append((option[2:].removesuffix("+"), value))
    return found


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        option, equals, value = argument.partition("=")
        is_option = re.match(r"-+[a-zA-Z]", following) is not None
        if option.startswith("-"):
            yield option, value if equals or is_option else following


def _settings(where: str) -> dict[Any, Any]:
    """Returns the settings in a file, or in a text given in its place."""
    name = where if len(where) <= 80 else f"{where[:77]}…"
    if not where.strip():
        raise ValueError("-c is empty: name a YAML file")
    inline = where.lstrip().startswith("{") or "\n" in where
    try:
        text = where if inline else Path(where).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"-c {name}: the file is not text in UTF-8: save it as UTF-8") from None
    except FileNotFoundError:
        raise ValueError(f"-c {name} does not exist") from None
    except IsADirectoryError:
        raise ValueError(f"-c {name} is a folder: name a YAML file") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"-c {name}: {getattr(error, 'strerror', None) or 'not the name of a file'}") from None
    try:
        settings = yaml.load(text, _Loader)
        json.dumps(settings, default=str, skipkeys=True)  # refuses recursive data, which has no end
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"-c {name}{line}: {error.problem or 'not valid YAML'}") from None
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise ValueError(f"-c {name}: not YAML that can hold settings ({first_line(error, 100)})") from None
    if settings is None:
        raise ValueError(f"-c {name} holds no settings: it is empty")
    if not isinstance(settings, dict):
        raise ValueError(f"-c {name} holds {show(settings)}, which is not settings: write KEY: VALUE lines")
    return settings
