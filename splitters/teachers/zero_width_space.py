"""Words as the text marks them."""

import numpy as np

from splitters.registry import register
from splitters.rules.whitespace import BLANK
from splitters.teachers.spans import At, SpanTeacher, are


@register("zero_width_space")
class ZeroWidthSpace(SpanTeacher):
    """Words as the text itself marks them: by zero-width spaces (U+200B) and by blanks.

    A mark has no boundary of its own. With `at: end` the student learns the last character of a word before it sees
    the mark; with `at: start`, the first character after it, nothing looks ahead.
    """

    source = "zero-width spaces in the text, as Khmer has them"

    def __init__(self, at: At = "end") -> None:
        super().__init__("zero_width_space", at)
        self.looks_ahead = at == "end"

    def spans(self, text: str) -> np.ndarray:
        inside = np.concatenate([[False], ~are(BLANK, text), [False]])
        return np.flatnonzero(inside[1:] != inside[:-1]).reshape(-1, 2)
