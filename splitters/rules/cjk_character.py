"""Words where blanks part them, and every character where nothing does."""

from splitters.registry import register
from splitters.rules.scripts import UNSPACED
from splitters.rules.whitespace import Whitespace


@register("cjk_character")
class CjkCharacter(Whitespace):
    """As `whitespace`, and a boundary at every character of Han, kana, Hangul and the other unspaced scripts.

    It falls on the last byte of the character; marks are characters too.
    """

    source = "this project"
    classes = (*Whitespace.classes[:2], ("unspaced", UNSPACED), *Whitespace.classes[2:])

    def step(self, state, kind):
        if kind == "unspaced":
            return "letter", True
        return super().step(state, kind)
