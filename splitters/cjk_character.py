"""Words where blanks part them, and every character where nothing does."""

from splitters.registry import register
from splitters.whitespace import Whitespace

# Scripts written without blanks between words. Yi, Tangut, Nushu and Khitan are syllabic or
# logographic like Han; the rest are those whose line breaks need a dictionary, with Tibetan and
# scripts of Indonesia.
UNSPACED_SCRIPTS = (
    "Han", "Hiragana", "Katakana", "Hangul", "Bopomofo", "Yi", "Tangut", "Nushu", "Khitan_Small_Script",
    "Thai", "Lao", "Khmer", "Myanmar", "Tibetan", "Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet", "Ahom",
    "Balinese", "Javanese", "Batak", "Buginese", "Makasar", "Kawi",
)  # fmt: skip

# By script, and by script extensions for letters that several scripts share (the kana length mark).
UNSPACED = "[{}[{}&&[\\p{{L}}\\p{{M}}\\p{{N}}]]]".format(
    "".join(rf"\p{{Script={name}}}" for name in UNSPACED_SCRIPTS),
    "".join(rf"\p{{Script_Extensions={name}}}" for name in UNSPACED_SCRIPTS),
)


@register("cjk_character")
class CjkCharacter(Whitespace):
    """As `whitespace`, and a boundary at the last byte of every Han, kana and Hangul character and of
    every character, marks included, of the other scripts written without blanks."""

    classes = (*Whitespace.classes[:2], ("unspaced", UNSPACED), *Whitespace.classes[2:])

    def step(self, state, kind):
        if kind == "unspaced":
            return "letter", True
        return super().step(state, kind)
