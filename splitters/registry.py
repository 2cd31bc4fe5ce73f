"""Names for splitters: the built-in ones, those of installed plug-ins, and `module:Class` for one's own.

Built-in modules load when they are asked for by name. Plug-ins announce themselves in the
entry-point group `aunet.splitters`, or call `register` before they are used.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from splitters.contract import Splitter, UnitRule

BUILT_IN = ("aunet_word", "cjk_character", "every", "fixed", "whitespace")
ENTRY_POINT_GROUP = "aunet.splitters"

Rule = Splitter | UnitRule
Class = TypeVar("Class", bound=type[Rule])
_classes: dict[str, type[Rule]] = {}
_loaded: set[str] = set()


def register(name: str) -> Callable[[Class], Class]:
    """Gives a `Splitter` or `UnitRule` class its name; a class that breaks the contract fails here.

    Raises TypeError (not such a class, or abstract methods left) or ValueError (name taken).
    """

    def decorate(cls: Class) -> Class:
        if not (inspect.isclass(cls) and issubclass(cls, Splitter | UnitRule)):
            raise TypeError(f"splitter {name!r}: {cls!r} must subclass splitters.Splitter or splitters.UnitRule")
        if missing := sorted(getattr(cls, "__abstractmethods__", ())):
            raise TypeError(f"splitter {name!r}: {cls.__name__} lacks {', '.join(missing)}")
        taken = _classes.get(name)
        if taken is not None and taken.__qualname__ != cls.__qualname__:
            raise ValueError(
                f"splitter {name!r} is already {taken.__module__}.{taken.__qualname__}: choose another name"
            )
        _classes[name] = cls
        return cls

    return decorate


def available() -> list[str]:
    """Returns the sorted names of all byte splitters that can be built: built-in, plug-in and registered."""
    return sorted(name for name, cls in _all_classes().items() if issubclass(cls, Splitter))


def available_unit_rules() -> list[str]:
    """Returns the sorted names of the rules that group units of the stage below."""
    return sorted(name for name, cls in _all_classes().items() if issubclass(cls, UnitRule))


def class_of(name: str) -> type[Rule]:
    """Returns the class of a name, or of `module:Class`. Raises ValueError for an unknown one, listing the known."""
    cls = _import_class(name) if ":" in name else _all_classes().get(name)
    if cls is None:
        near = difflib.get_close_matches(name, _classes, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"unknown splitter {name!r}: known are {', '.join(sorted(_classes))}, or module:Class for your own.{hint}"
        )
    return cls


def build(name: str, **options: Any) -> Any:
    """Builds the splitter `name`, or the class `module:Class`, with its options.

    Raises ValueError for an unknown name (listing the known ones) or options the rule does not take.
    """
    cls = class_of(name)
    try:
        inspect.signature(cls).bind(**options)
    except TypeError as error:
        raise ValueError(f"splitter {name!r}: {error}; its options are {inspect.signature(cls)}") from None
    return cls(**options)


def resolve(spec: "str | Mapping[str, Any] | Rule") -> Any:
    """Builds a splitter from what stands in a YAML file: a name, or `{name: …, option: …}`.

    Objects pass through. Raises ValueError as `build` does.
    """
    if isinstance(spec, str):
        return build(spec)
    if isinstance(spec, Mapping):
        if not isinstance(spec.get("name"), str):
            raise ValueError(f"splitter {dict(spec)!r} has no name: write {{name: fixed, n: 4}}")
        return build(**spec)
    if isinstance(spec, Splitter | UnitRule):
        return spec
    raise ValueError(f"splitter {spec!r}: expected a name, a mapping with a name, or a splitter object")


def _all_classes() -> dict[str, type[Rule]]:
    for name in BUILT_IN:
        importlib.import_module(f"splitters.{name}")
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name not in _loaded:
            _loaded.add(point.name)
            register(point.name)(point.load())
    return _classes


def _import_class(path: str) -> type[Rule]:
    module, _, attribute = path.partition(":")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the user's module can raise anything
        raise ValueError(f"splitter {path!r} cannot be imported: {type(error).__name__}: {error}") from error
    return register(path)(cls)
