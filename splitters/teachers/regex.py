"""Matches of regular expressions that may look ahead."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import regex

from splitters.edge_texts import short_texts
from splitters.registry import register
from splitters.teachers.spans import At, SpanTeacher


@register("regex")
class Regex(SpanTeacher):
    """Matches of your own regular expressions, with all that the library `regex` accepts, look-ahead included.

    `patterns`: one or a list, each searched independently from the beginning of the text (version 1 of `regex`, as in
    the rule `pattern`). Empty matches are ignored. Raises ValueError for an invalid regular expression, and for one
    that `regex` runs out of memory on.
    """

    source = "pre-tokenizers such as GPT-2's"

    def __init__(self, patterns: str | Sequence[str], at: At = "end") -> None:
        super().__init__("regex", at)
        listed = [patterns] if isinstance(patterns, str) else patterns
        if not isinstance(listed, list | tuple) or not listed or not all(isinstance(each, str) for each in listed):
            raise ValueError(f"regex: patterns is {patterns!r}, it must be a regular expression or a list of some")
        self.patterns = [_expression(pattern) for pattern in listed]

    def spans(self, text: str) -> np.ndarray:
        found = [match.span() for pattern in self.patterns for match in pattern.finditer(text)]
        return np.array(found, np.int64)


def _expression(pattern: str) -> Any:
    try:
        expression = regex.compile(pattern, regex.V1)
        for data in short_texts().values():
            for _ in expression.finditer(data.decode("utf-8", "replace")):
                pass
    except (regex.error, ValueError) as error:
        raise ValueError(f"regex: {pattern!r} is not a regular expression: {error}") from None
    except (MemoryError, RecursionError):  # on patterns that call themselves, or are nested too deep
        raise ValueError(f"regex: {pattern[:80]!r} is nested too deep, or calls itself without end") from None
    return expression
