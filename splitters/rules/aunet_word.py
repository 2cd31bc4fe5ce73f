"""The published rules `word`, `pair` and `quad` of AU-Net.

They equal the released ones on text whose white space is single blanks. Elsewhere they obey the prefix law, which the
released ones break: those match `\\s` runs and line breaks with patterns that wait for the next byte.
"""

from splitters.contract import Knob, positive
from splitters.engine.automaton import CharacterRule
from splitters.registry import register

GROUP = 3  # characters at most in a group of digits or of punctuation


@register("aunet_word")
class AUNetWord(CharacterRule):
    """A boundary at the blank after every `words`-th word, at groups of digits and of punctuation, at line breaks.

    A word is a run of non-blanks. The boundary of a group of 1–3 digits, or of 1–3 characters that are neither
    blank, letter nor digit, is at its first character. Line breaks after punctuation belong to it.
    Letters do not include combining marks, as published.

    `words`: 1 (`word`), 2 (`pair`), 4 (`quad`), or any other positive number.
    """

    source = "AU-Net, arXiv 2506.14761, as released"
    knob = Knob("words", 1, 256)
    classes = (("break", r"[\r\n]"), ("blank", r"\s"), ("letter", r"\p{L}"), ("digit", r"\p{N}"))
    start = ("blank", 0, 0)  # the class before, the size of its group, words since the last word boundary

    def __init__(self, words: int = 1) -> None:
        self.words = positive("aunet_word", "words", words)

    def step(self, state, kind):
        before, grouped, words = state
        if kind in ("blank", "break"):
            ends_word = before not in ("blank", "closed")
            words += ends_word
            fires = ends_word and words == self.words
            words %= self.words
            if kind == "break":
                if before in ("rest", "closed"):  # the break belongs to the punctuation before it
                    return ("closed", 0, words), fires
                fires = True
            return ("blank", 0, words), fires
        if kind in ("digit", "rest"):
            grouped = grouped % GROUP if kind == before else 0
            return (kind, grouped + 1, words), grouped == 0
        return ("letter", 0, words), False  # letters, and invalid bytes
