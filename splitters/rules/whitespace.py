"""Words, by blanks: AU-Net's rule (arXiv 2506.14761) without its look-ahead."""

from typing import ClassVar

from splitters.engine.automaton import CharacterRule
from splitters.engine.characters import Classes
from splitters.registry import register

LINE_BREAK = r"[\n\v\f\x85\u2028\u2029]"  # not \r: in \r\n it is a blank before the \n
BLANK = r"[\s\u200b]"  # U+200B separates words in Khmer and is not in \s
LETTER = r"\p{L}"
MARK = r"[\p{M}\p{Cf}]"  # combining marks and format characters (joiners) belong to the character before
DIGIT = r"\p{N}"
DIGITS_IN_GROUP = 3


@register("whitespace")
class Whitespace(CharacterRule):
    """A boundary at the first blank after a word, at line breaks, punctuation and groups of digits.

    A run of punctuation, or a group of up to three digits, has its boundary at its first character.
    """

    source = "AU-Net, arXiv 2506.14761, without its look ahead"
    classes: ClassVar[Classes] = (
        ("break", LINE_BREAK),
        ("blank", BLANK),
        ("mark", MARK),
        ("letter", LETTER),
        ("digit", DIGIT),
    )
    start = "blank"

    def step(self, state, kind):
        if kind == "mark":
            return "letter" if state == "blank" else state, False
        if kind == "break":
            return "blank", True
        if kind == "blank":
            return "blank", state != "blank"
        if kind == "digit":
            grouped = state[1] if state[0] == "digit" else 0
            return ("digit", grouped % DIGITS_IN_GROUP + 1), grouped % DIGITS_IN_GROUP == 0
        if kind == "rest":
            return "punctuation", state != "punctuation"
        return "letter", False  # letters, and invalid bytes
