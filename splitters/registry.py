"""Names of splitters and teachers: built in, from installed plug-ins, registered, or `module:Class` for your own.

Built-in modules load when they are asked for by name. Plug-ins are announced in the entry-point groups
`aunet.splitters` and `aunet.teachers`, or call `register` before they are used.
"""

import difflib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from splitters.contract import LearnedSplitter, Splitter, Teacher

BUILT_IN = {  # splitters, by room
    "rules": (
        "aunet_word", "cjk_character", "fixed", "grapheme", "pattern", "script_aware", "sentence_end", "spacelike",
        "syllable", "trie", "unicode_word", "utf8_character", "whitespace",
    ),
    "combinators": ("at_least", "cap", "every", "refresh", "reset_at", "union"),
    "learned": ("distilled", "router"),
}  # fmt: skip
BUILT_IN_TEACHERS = {"teachers": ("bpe_merged", "regex", "tokenizer", "unicode_words", "words", "zero_width_space")}
DEFAULT = "script_aware"  # for text in any script

AnySplitter = Splitter | LearnedSplitter
Spec = str | Mapping[str, Any] | AnySplitter  # a name, `{name: …, option: …}`, or an object
Class = TypeVar("Class", bound=type[AnySplitter | Teacher])
Made = TypeVar("Made")
_METHODS: dict[type, dict[str, int]] = {  # of each base class: its methods, and how many arguments each takes
    Splitter: {"split": 1, "stepper": 0, "select": 2, "unit_stepper": 0},
    LearnedSplitter: {"predictor": 1},
    Teacher: {"split": 1},
}


class Registry(Generic[Made]):
    """The classes of one kind of plug-in, by name.

    Args:
        kind: the word for it in messages and in its entry-point group
        bases: import paths of the classes that it may inherit from
        built_in: names by room; each is registered by the module `splitters.<room>.<name>`
        beside: a registry whose classes may be named here as well
    """

    def __init__(
        self,
        kind: str,
        bases: Mapping[str, type],
        built_in: Mapping[str, tuple[str, ...]],
        beside: "Registry | None" = None,
    ) -> None:
        self.kind, self.bases, self.built_in, self.beside = kind, bases, built_in, beside
        self.group = f"aunet.{kind}s"
        self.registered: dict[str, type[Made]] = {}
        self.loaded: set[EntryPoint] = set()

    def add(self, name: str, cls: Any) -> None:
        """Names a class. Raises TypeError (it breaks the contract) or ValueError (the name is taken)."""
        self._check_contract(name, cls, self.bases)
        taken = self.registered.get(name)
        if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(
                f"{self.kind} {name!r} is already {taken.__module__}.{taken.__qualname__}: choose another name"
            )
        self.registered[name] = cls

    def classes(self) -> dict[str, type[Made]]:
        """Returns all classes by name. Raises ValueError for a plug-in that cannot be registered."""
        for room, names in self.built_in.items():
            for name in names:
                importlib.import_module(f"splitters.{room}.{name}")
        for point in _announced(self.group):
            if point not in self.loaded:
                self._load_plug_in(point)
                self.loaded.add(point)
        return self.registered

    def class_of(self, name: str) -> type[Made]:
        """Returns a class by name or `module:Class`. Raises ValueError for an unknown name, listing the known ones."""
        found = self._import_class(name) if ":" in name else self.classes().get(name)
        if found is None and self.beside is not None:
            found = self.beside.classes().get(name)
        if found is None:
            raise ValueError(self._unknown(name))
        return found

    def build(self, name: str, options: Mapping[str, Any]) -> Made:
        """Returns the class of `name` with its options. Raises ValueError for an unknown name or wrong options."""
        cls = self.class_of(name)
        try:
            signature(cls).bind(**options)
        except TypeError as error:
            problem = f"{self.kind} {name!r}: {error}; its options are {_options(cls)}"
            raise ValueError(problem + _nearest_option(cls, options)) from None
        try:
            shared = _shared(cls)
            made: Any = cls(**{option: value for option, value in options.items() if option not in shared})
            for option in (option for option in shared if option in options):
                made = shared[option](name, made, options[option])
            return made
        except ValueError:
            raise
        except Exception as error:  # a plug-in can raise anything
            raise ValueError(f"{self.kind} {name!r} cannot be built: {type(error).__name__}: {error}") from error

    def _check_contract(self, name: str, cls: Any, bases: Mapping[str, type]) -> None:
        base = next((base for base in bases.values() if inspect.isclass(cls) and issubclass(cls, base)), None)
        if base is None:
            raise TypeError(f"{self.kind} {name!r}: {cls!r} must be a class that inherits from {' or '.join(bases)}")
        if missing := sorted(getattr(cls, "__abstractmethods__", ())):
            raise TypeError(f"{self.kind} {name!r}: {cls.__name__} lacks {', '.join(missing)}")
        knob = getattr(cls, "knob", None)
        if knob is not None and getattr(knob, "option", None) not in inspect.signature(cls).parameters:
            raise TypeError(
                f"{self.kind} {name!r}: {cls.__name__}.knob is {knob!r}, it must be a splitters.Knob that names one of "
                f"its options, {_options(cls)}"
            )
        for method, n_arguments in _METHODS[base].items():
            try:
                inspect.signature(getattr(cls, method)).bind(*[None] * (n_arguments + 1))
            except TypeError as error:
                found = f"{method}{inspect.signature(getattr(cls, method))}"
                wanted = f"{method}{inspect.signature(getattr(base, method))}"
                raise TypeError(f"{self.kind} {name!r}: {cls.__name__}.{found} must be {wanted} ({error})") from None

    def _unknown(self, name: str) -> str:
        beside = self.beside.registered if self.beside else {}
        near = difflib.get_close_matches(name, [*self.registered, *beside], n=1)
        more = f", every {self.beside.kind} (aunet {self.beside.kind}s lists them)" if self.beside else ""
        return (
            f"unknown {self.kind} {name!r}: known are {', '.join(sorted(self.registered))}{more}, "
            f"or module:Class for your own.{f' Did you mean {near[0]!r}?' if near else ''}"
        )

    def _load_plug_in(self, point: EntryPoint) -> None:
        package = point.dist.name if point.dist else "an unnamed package"
        try:
            self.add(point.name, point.load())
        except Exception as error:  # the package's module can raise anything
            raise ValueError(
                f"the {self.kind} {point.name!r} of package {package!r} ({point.value}) cannot be registered: "
                f"{type(error).__name__}: {error}. Repair the package, or remove it: pip uninstall {package}"
            ) from error

    def _import_class(self, path: str) -> type[Made]:
        module, _, attribute = path.partition(":")
        try:
            cls = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # the user's module can raise anything
            raise ValueError(f"{self.kind} {path!r} cannot be imported: {type(error).__name__}: {error}") from error
        try:
            self._check_contract(path, cls, {**self.bases, **(self.beside.bases if self.beside else {})})
        except TypeError as error:
            raise ValueError(str(error)) from None
        return cls


def _announced(group: str) -> tuple[EntryPoint, ...]:
    """Returns the plug-ins of installed packages. Reading takes 15 ms, so it is done again only after a change: pip
    makes a folder, or deletes one, beside the other packages."""
    folders = filter(os.path.isdir, (folder or os.curdir for folder in sys.path))
    return _announced_in(group, tuple((folder, os.stat(folder).st_mtime_ns) for folder in folders))


@lru_cache(maxsize=4)
def _announced_in(group: str, folders: tuple[tuple[str, int], ...]) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))


_SPLITTER_BASES = {"splitters.Splitter": Splitter, "splitters.LearnedSplitter": LearnedSplitter}
SPLITTERS: Registry[AnySplitter] = Registry("splitter", _SPLITTER_BASES, BUILT_IN)
TEACHERS: Registry[AnySplitter | Teacher] = Registry(
    "teacher", {"splitters.teachers.Teacher": Teacher}, BUILT_IN_TEACHERS, beside=SPLITTERS
)


def register(name: str) -> Callable[[Class], Class]:
    """Names a class of `Splitter`, `LearnedSplitter` or `Teacher`; one that breaks the contract fails here.

    Raises TypeError (another base class, abstract methods left, a wrong signature) or ValueError (name taken).
    """

    def decorate(cls: Class) -> Class:
        registry = TEACHERS if inspect.isclass(cls) and issubclass(cls, Teacher) else SPLITTERS
        registry.add(name, cls)
        return cls

    return decorate


def available(kind: str | None = None) -> list[str]:
    """Returns the sorted names of all splitters: built in, from plug-ins, and registered.

    kind: only `rule` (reads bytes), `model` (reads bytes, by means of another model) or `learned` (reads hidden
    states, inside the model).
    """
    return sorted(name for name, cls in SPLITTERS.classes().items() if kind in (None, cls.kind))


def class_of(name: str) -> type[AnySplitter]:
    """Returns the class of a splitter, as `Registry.class_of` does."""
    return SPLITTERS.class_of(name)


def signature(cls: type) -> inspect.Signature:
    """Returns the options that YAML can set: those of `__init__`, and those shared by the classes of its base."""
    own = inspect.signature(cls)
    shared = [inspect.signature(make).parameters[option] for option, make in _shared(cls).items()]
    return own.replace(parameters=sorted([*own.parameters.values(), *shared], key=lambda parameter: parameter.kind))


def _shared(cls: type) -> dict[str, Callable[..., Splitter]]:
    shared = cls.shared_options if issubclass(cls, Splitter) else {}
    return {option: make for option, make in shared.items() if option not in inspect.signature(cls).parameters}


def build(name: str | Mapping[str, Any], **options: Any) -> AnySplitter:
    """Builds the splitter `name`, or the class `module:Class`, with its options; or what YAML names,
    `{name: …, option: …}`, in which further options replace those of the same name.

    Raises ValueError for an unknown name (listing the known ones) and for options that it does not take.
    """
    named, given = name_and_options("splitter", name)
    return SPLITTERS.build(named, given | options)


def resolve(spec: Spec) -> AnySplitter:
    """Builds a splitter from its form in YAML: a name, or `{name: …, option: …}`.

    Objects pass through. Raises ValueError as `build` does.
    """
    return spec if isinstance(spec, AnySplitter) else SPLITTERS.build(*name_and_options("splitter", spec))


def resolve_part(owner: str, spec: Spec) -> Splitter:
    """Builds a rule inside `owner`. Raises ValueError as `build` does, and for one that groups units, refreshes them
    or is learned."""
    part = resolve(spec)
    if isinstance(part, LearnedSplitter):
        raise ValueError(
            f"{owner}: {spec!r} reads the hidden states of a stage, so it stands alone between two stages: "
            "name it as splitter or in upper_splitters"
        )
    if part.groups_units:
        raise ValueError(
            f"{owner}: {spec!r} groups the units of a stage below, and there is none here: name what it groups, "
            "for example {name: every, n: 2, of: whitespace}"
        )
    if part.refreshes is not None:
        raise ValueError(
            f"{owner}: {spec!r} refreshes units, so it stands alone between bytes and stage 2: name it as splitter, "
            "and what is combined as its of"
        )
    return part


def resolve_teacher(spec: Spec | Teacher) -> Splitter | Teacher:
    """Builds a teacher from its form in YAML: a name, or `{name: …, option: …}`, of a teacher or of a splitter.

    Objects pass through. Raises ValueError for an unknown name (listing the teachers), for options that it does not
    take, and for a splitter that groups units or is learned.
    """
    if isinstance(spec, Teacher):
        return spec
    if not isinstance(spec, AnySplitter):
        name, options = name_and_options("teacher", spec)
        if issubclass(TEACHERS.class_of(name), Teacher):
            return TEACHERS.build(name, options)  # type: ignore[return-value]
    return resolve_part("distilled", spec)


def name_and_options(kind: str, spec: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the parts of a spec in YAML's form. Raises ValueError for anything else."""
    if isinstance(spec, str):
        return spec, {}
    if not isinstance(spec, Mapping):
        raise ValueError(f"{kind} {spec!r}: expected a name, a mapping with a name, or a {kind} object")
    options = {str(key): value for key, value in spec.items()}
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"{kind} {dict(spec)!r} has no name: write {{name: fixed, n: 4}}")
    return name, options


def _nearest_option(cls: type, options: Mapping[str, Any]) -> str:
    """Returns a hint at the option that is most like the first one that a class does not take; "" without any."""
    known = [*signature(cls).parameters]
    unknown = next((option for option in options if option not in known), "")
    near = difflib.get_close_matches(unknown, [name for name in known if name not in options], n=1)
    return f". Did you mean {near[0]!r}?" if near else ""


def _options(cls: type) -> str:
    """Returns the signature as YAML writes it."""
    text = re.sub(r"\b(?:typing|collections\.abc|splitters\.contract)\.", "", str(signature(cls))).removesuffix(
        " -> None"
    )
    return re.sub(r"(?:\w+\.)?Literal\[([^]]*)\]", lambda found: found[1].replace(", ", " | "), text)
