"""Registries of classes that a setting names: a built-in name, or `module:Class` for one's own.

A class loads when it is asked for, so a registry can be checked against before anything heavy is imported, and a
built-in class may need a package that is not installed. (Splitters have a registry of their own: `splitters.registry`.)
"""

import difflib
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from aunet_lightning.numbers import show


class Registry:
    """The classes that one setting can name.

    setting: the key in YAML, for errors
    base: `module:Class` that all of them inherit from
    built_in: `module:Class` by name
    """

    def __init__(self, setting: str, base: str, built_in: Mapping[str, str]) -> None:
        self.setting, self.base, self.built_in = setting, base, dict(built_in)

    def check(self, name: Any) -> None:
        """Raises ValueError as `get` does. A built-in class is not loaded."""
        if name not in self.built_in:
            self.get(name)

    def get(self, name: Any) -> type[Any]:
        """Returns the class of a name. Raises ValueError for an unknown name, and for a class that cannot be imported,
        does not inherit from the base, or leaves methods abstract."""
        path = self.built_in.get(name, name) if isinstance(name, str) else ""
        if ":" not in path:
            near = difflib.get_close_matches(str(name), self.built_in, n=1)
            known = f"choose one of {', '.join(self.built_in)}, or " if self.built_in else ""
            hint = f". Did you mean {near[0]}?" if near else ""
            raise ValueError(f"{self.setting} is {show(name)}: {known}name your own class as module:Class{hint}")
        try:
            found = _imported(path)
        except Exception as error:  # a user's module can raise anything
            raise ValueError(
                f"{self.setting} is {show(name)}, which cannot be imported: {type(error).__name__}: {error}"
            ) from error
        if not (inspect.isclass(found) and issubclass(found, _imported(self.base))):
            wanted = self.base.replace(":", ".")
            raise ValueError(f"{self.setting} is {show(name)}, it must be a class that inherits from {wanted}")
        if missing := sorted(getattr(found, "__abstractmethods__", ())):
            raise ValueError(f"{self.setting} is {show(name)}, which lacks {', '.join(missing)}")
        return found


def _imported(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
