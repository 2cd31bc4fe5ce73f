"""Words by Unicode's default word boundaries, from the complete text."""

import numpy as np
import regex

from splitters.registry import register
from splitters.rules.unicode_word import DIGIT, IGNORED, SLASH, UnicodeWord
from splitters.teachers.spans import At, SpanTeacher, characters

_NO_FRACTION = regex.compile(f"(?<={DIGIT}{IGNORED}*){SLASH}(?!{IGNORED}*{DIGIT})", regex.V1)


@register("unicode_words")
class UnicodeWords(SpanTeacher):
    """The units of the rule `unicode_word`, and a fraction slash without a fraction stands alone, as in UAX #29.

    With `at: end` the student learns the last character of a unit before it sees the next one.
    """

    source = "UAX #29 as in HAT, arXiv 2501.10322"

    def __init__(self, at: At = "end") -> None:
        super().__init__("unicode_words", at)
        self.rule = UnicodeWord()

    def spans(self, text: str) -> np.ndarray:
        data = text.encode()
        begin = self.rule.split(data)[characters(data)[1]]
        begin[[match.start() for match in _NO_FRACTION.finditer(text)]] = True
        begins = np.flatnonzero(begin)
        return np.stack([begins, np.append(begins, len(text))[1:]], axis=1)
