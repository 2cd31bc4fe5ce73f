"""Words where blanks separate them, and every character elsewhere."""

from splitters.registry import register
from splitters.rules.scripts import UNSPACED
from splitters.rules.whitespace import Whitespace


@register("cjk_character")
class CjkCharacter(Whitespace):
    """As `whitespace`, plus a boundary at every character of Han, kana, Hangul and the other unspaced scripts.

    It falls on the last byte of the character. Marks count as characters.
    """

    source = "this project"
    classes = (*Whitespace.classes[:2], ("unspaced", UNSPACED), *Whitespace.classes[2:])

    def step(self, state, kind):
        if kind == "unspaced":
            return "letter", True
        return super().step(state, kind)
