"""Settings of `aunet fit` as plain mappings: how they are merged, and how one value is placed in them."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from splitters.registry import class_of, name_and_options, signature

Settings = dict[str, Any]
EACH = "*"  # in a path: each entry of a list


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Settings:
    """Returns `base` overridden by `over`: mappings key by key, everything else replaced."""
    merged = dict(copy.deepcopy(dict(base)))
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        # A splitter is replaced as a unit, so that no option of another one is left.
        if both and key != "splitter":
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def place(settings: Mapping[str, Any], path: Sequence[str], value: Any) -> Settings | None:
    """Returns settings with a value at a path, such as (model, net, stages, *, conv); None where it means nothing to
    them: an option that the splitter does not have, or a splitter where there is none."""
    if path[0] != "splitter" or len(path) == 1:
        return _placed(settings, path, value)
    if settings.get("splitter") is None:
        return None
    name, options = name_and_options("splitter", settings["splitter"])
    if path[1] not in signature(class_of(name)).parameters:
        return None
    return merge(settings, {"splitter": {"name": name, **_placed(options, path[1:], value)}})


def _placed(within: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return copy.deepcopy(value)
    key, *rest = path
    if isinstance(within, list):
        numbers = range(len(within)) if key == EACH else [int(key)]
        return [_placed(one, rest, value) if i in numbers else copy.deepcopy(one) for i, one in enumerate(within)]
    within = {} if within is None else dict(within)
    return copy.deepcopy(within) | {key: _placed(within.get(key), rest, value)}
