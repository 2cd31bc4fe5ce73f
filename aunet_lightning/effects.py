"""The effect of a setting on a run's numbers, declared by each class of settings, and the settings of a run by key."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T", bound=type)
REQUIRED = object()  # the default of an option without one


class Effect(Enum):
    """What it means to change a setting of a run that already has checkpoints."""

    DEFINES = "another run"
    LENGTH = "the learning rate ends elsewhere, so numbers from here on match no run of a single length"
    ROUNDING = "other rounding from here on"
    ORDER = "the same batches; sums are made in another order, so numbers differ in their last digits"
    VALIDATION = "validations at other steps or on other text: val/… before and after are not comparable"
    NONE = "no training number changes"


@dataclass(frozen=True)
class Option:
    """One option: its default (REQUIRED: none), its type where that has options of its own, and its effect."""

    default: Any = REQUIRED
    kind: Any = None
    effect: Effect = Effect.DEFINES


Options = Mapping[str, Option]


class Setting(NamedTuple):
    """One option's value in a run, as plain data, beside its default."""

    value: Any
    default: Any
    effect: Effect

    @property
    def is_default(self) -> bool:
        return _same(self.value, self.default)


_DECLARED: dict[type, tuple[Effect, Mapping[str, Effect]]] = {}


def effects(of_all: Effect = Effect.DEFINES, **of_some: Effect) -> Callable[[T], T]:
    """Declares the effect of a class's options: of all, and of `some` by name. Undeclared options define the run."""

    def declare(kind: T) -> T:
        _DECLARED[kind] = of_all, of_some
        return kind

    return declare


def settings_of(kind: Any, given: Mapping[str, Any], key: str = "") -> Iterator[tuple[str, Setting]]:
    """Yields every option of a class (or of a table of Options) with its key and setting, nested ones in full:
    ('model.net.upsampling', …). An option absent from `given` has its default; one that only `given` has (of another
    version) defaults to null.
    """
    yield from _settings(kind, given, key, Effect.DEFINES)


def _settings(kind: Any, given: Mapping[str, Any], prefix: str, effect: Effect) -> Iterator[tuple[str, Setting]]:
    known, (of_all, of_some) = options_of(kind, effect), _declared(kind, effect)
    for name in dict.fromkeys([*known, *given]):
        option = known.get(name, Option(None, effect=of_some.get(name, of_all)))
        key = f"{prefix}.{name}" if prefix else name
        value = given.get(name, None if option.default is REQUIRED else option.default)
        if option.kind is None:
            yield key, Setting(_plain(value), _plain(option.default), option.effect)
        elif get_origin(option.kind) is list:
            for number, one in enumerate(value or []):
                yield from _settings(get_args(option.kind)[0], one, f"{key}[{number}]", option.effect)
        else:
            yield from _settings(option.kind, value or {}, key, option.effect)


def options_of(kind: Any, effect: Effect = Effect.DEFINES) -> Options:
    """Returns the options of a class by name. effect: that of options whose class declares none."""
    if isinstance(kind, Mapping):
        return kind
    of_all, of_some = _declared(kind, effect)
    hints = get_type_hints(kind if is_dataclass(kind) else kind.__init__)
    return {
        name: Option(default, _nested(hints.get(name)), of_some.get(name, of_all)) for name, default in _defaults(kind)
    }


def _declared(kind: Any, effect: Effect) -> tuple[Effect, Mapping[str, Effect]]:
    bases = kind.__mro__ if isinstance(kind, type) else ()
    return next((_DECLARED[base] for base in bases if base in _DECLARED), (effect, {}))


def _defaults(kind: Any) -> Iterator[tuple[str, Any]]:
    if is_dataclass(kind):
        for field in fields(kind):
            made = field.default_factory() if field.default_factory is not MISSING else field.default
            yield field.name, REQUIRED if made is MISSING else made
    else:
        for name, parameter in inspect.signature(kind).parameters.items():
            default = REQUIRED if parameter.default is parameter.empty else parameter.default
            yield name, asdict(default) if is_dataclass(default) and not isinstance(default, type) else default


def _nested(hint: Any) -> Any:
    """Returns a type that is a dataclass or a list of one, else None."""
    return hint if is_dataclass(get_args(hint)[0] if get_origin(hint) is list else hint) else None


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every value inside a setting with its key: ('data.train_files[0].path', …)."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from flat(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple) and any(isinstance(inner, Mapping) for inner in value):
        for number, inner in enumerate(value):
            yield from flat(inner, f"{key}[{number}]")
    else:
        yield key, _plain(value)


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)  # true is not 1
