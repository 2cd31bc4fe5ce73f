"""Names for splitters: the built-in ones, those of installed plug-ins, and `module:Class` for one's own.

Built-in modules load when they are asked for by name. Plug-ins announce themselves in the
entry-point group `aunet.splitters`, or call `register` before they are used.
"""

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from splitters.contract import LearnedSplitter, Splitter

BUILT_IN = {  # by room
    "rules": (
        "aunet_word", "cjk_character", "fixed", "grapheme", "pattern", "script_aware", "sentence_end", "spacelike",
        "syllable", "trie", "utf8_character", "whitespace",
    ),
    "combinators": ("cap", "every", "reset_at", "union"),
    "learned": ("distilled", "router"),
}  # fmt: skip
DEFAULT = "script_aware"  # for text in any script
ENTRY_POINT_GROUP = "aunet.splitters"

AnySplitter = Splitter | LearnedSplitter
Class = TypeVar("Class", bound=type[AnySplitter])
Made = TypeVar("Made")
_classes: dict[str, type[AnySplitter]] = {}
_loaded: set[EntryPoint] = set()


def register(name: str) -> Callable[[Class], Class]:
    """Gives a `Splitter` or `LearnedSplitter` class its name; a class that breaks the contract fails here.

    Raises TypeError (no such class, abstract methods left, a wrong signature) or ValueError (name taken).
    """

    def decorate(cls: Class) -> Class:
        _check_contract(name, cls)
        taken = _classes.get(name)
        if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(
                f"splitter {name!r} is already {taken.__module__}.{taken.__qualname__}: choose another name"
            )
        _classes[name] = cls
        return cls

    return decorate


def _check_contract(name: str, cls: Any) -> None:
    if not (inspect.isclass(cls) and issubclass(cls, AnySplitter)):
        raise TypeError(
            f"splitter {name!r}: {cls!r} must be a class that inherits from splitters.Splitter or LearnedSplitter"
        )
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise TypeError(f"splitter {name!r}: {cls.__name__} lacks {', '.join(missing)}")
    base = Splitter if issubclass(cls, Splitter) else LearnedSplitter
    for method, arguments in _METHODS[base].items():
        try:
            inspect.signature(getattr(cls, method)).bind(*[None] * (arguments + 1))
        except TypeError as error:
            found = f"{method}{inspect.signature(getattr(cls, method))}"
            wanted = f"{method}{inspect.signature(getattr(base, method))}"
            raise TypeError(f"splitter {name!r}: {cls.__name__}.{found} must be {wanted} ({error})") from None


_METHODS: dict[type, dict[str, int]] = {  # and how many arguments each takes
    Splitter: {"split": 1, "stepper": 0, "select": 2, "unit_stepper": 0},
    LearnedSplitter: {"predictor": 1},
}


def available(kind: str | None = None) -> list[str]:
    """Returns the sorted names of all splitters: built-in, plug-in and registered.

    kind: only these: `rule` (reads bytes), `model` (reads bytes, by means of another model), `learned` (reads
    hidden states, inside the model).
    """
    return sorted(name for name, cls in _all_classes().items() if kind in (None, cls.kind))


def class_of(name: str) -> type[AnySplitter]:
    """Returns the class of a name, or of `module:Class`. Raises ValueError for an unknown one, listing the known."""
    cls = _import_class(name) if ":" in name else _all_classes().get(name)
    if cls is None:
        near = difflib.get_close_matches(name, _classes, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"unknown splitter {name!r}: known are {', '.join(sorted(_classes))}, or module:Class for your own.{hint}"
        )
    return cls


def build(name: str, **options: Any) -> AnySplitter:
    """Builds the splitter `name`, or the class `module:Class`, with its options.

    Raises ValueError for an unknown name (listing the known ones) or options the rule does not take.
    """
    return construct("splitter", name, class_of(name), options)


def construct(kind: str, name: str, cls: type[Made], options: Mapping[str, Any]) -> Made:
    """Returns cls(**options). Raises ValueError for options that it does not take, and for whatever it raises."""
    try:
        inspect.signature(cls).bind(**options)
    except TypeError as error:
        raise ValueError(f"{kind} {name!r}: {error}; its options are {_options(cls)}") from None
    try:
        return cls(**options)
    except ValueError:
        raise
    except Exception as error:  # a plug-in can raise anything
        raise ValueError(f"{kind} {name!r} cannot be built: {type(error).__name__}: {error}") from error


def _options(cls: type) -> str:
    """Returns the signature in words that YAML has too."""
    text = str(inspect.signature(cls)).removesuffix(" -> None")
    return re.sub(r"(?:\w+\.)?Literal\[([^]]*)\]", lambda found: found[1].replace(", ", " | "), text)


Spec = str | Mapping[str, Any] | AnySplitter  # a name, `{name: …, option: …}`, or an object


def resolve(spec: Spec) -> AnySplitter:
    """Builds a splitter from what stands in a YAML file: a name, or `{name: …, option: …}`.

    Objects pass through. Raises ValueError as `build` does.
    """
    if isinstance(spec, str):
        return build(spec)
    if isinstance(spec, Mapping):
        if not isinstance(spec.get("name"), str):
            raise ValueError(f"splitter {dict(spec)!r} has no name: write {{name: fixed, n: 4}}")
        return build(**{str(key): value for key, value in spec.items()})
    if isinstance(spec, AnySplitter):
        return spec
    raise ValueError(f"splitter {spec!r}: expected a name, a mapping with a name, or a splitter object")


def resolve_part(combinator: str, spec: Spec) -> Splitter:
    """Builds a rule for a combinator. Raises ValueError as `build` does, and for one that groups units or learns."""
    part = resolve(spec)
    if isinstance(part, LearnedSplitter):
        raise ValueError(
            f"{combinator}: {spec!r} reads the hidden states of a stage, so it stands alone between two stages: "
            "name it as splitter or in upper_splitters"
        )
    if part.groups_units:
        raise ValueError(
            f"{combinator}: {spec!r} groups the units of a stage below, and here is none: name what it groups, "
            "for example {name: every, n: 2, of: whitespace}"
        )
    return part


def _all_classes() -> dict[str, type[AnySplitter]]:
    for room, names in BUILT_IN.items():
        for name in names:
            importlib.import_module(f"splitters.{room}.{name}")
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point not in _loaded:
            _load_plug_in(point)
            _loaded.add(point)
    return _classes


def _load_plug_in(point: EntryPoint) -> None:
    package = point.dist.name if point.dist else "an unnamed package"
    try:
        register(point.name)(point.load())
    except Exception as error:  # the package's module can raise anything
        raise ValueError(
            f"the splitter {point.name!r} of package {package!r} ({point.value}) cannot be registered: "
            f"{type(error).__name__}: {error}. Repair the package, or remove it: pip uninstall {package}"
        ) from error


def _import_class(path: str) -> type[AnySplitter]:
    module, _, attribute = path.partition(":")
    try:
        cls = getattr(importlib.import_module(module), attribute)
        _check_contract(path, cls)
    except Exception as error:  # the user's module can raise anything
        raise ValueError(f"splitter {path!r} cannot be imported: {type(error).__name__}: {error}") from error
    return cls
