"""Extended grapheme clusters, which readers perceive as characters (Unicode Standard Annex #29, rules GB3–GB13).

The rules decide whether a cluster ends before a character, from that character and the ones before it. So the rule is
causal if the boundary falls on the character that begins the next cluster.
"""

from splitters.engine.automaton import CharacterRule
from splitters.engine.characters import INVALID
from splitters.registry import register

_BREAK = r"\p{{Grapheme_Cluster_Break={}}}"
_CONJUNCT = r"\p{{Indic_Conjunct_Break={}}}"
EXTENDING = ("linker", "linked", "extend", "zwj", "spacing")  # GB9, GB9a: never begin a cluster
AFTER = {"l": ("l",), "v": ("l", "v"), "lv": ("l",), "lvt": ("l",), "t": ("v", "t")}  # Hangul, GB6–GB8
HANGUL = {"l": "l", "v": "v", "lv": "v", "lvt": "t", "t": "t"}  # the state after a jamo or syllable


@register("grapheme")
class Grapheme(CharacterRule):
    """A boundary at the first character of every extended grapheme cluster."""

    source = "UAX #29"
    classes = (
        ("cr", r"\r"),
        ("lf", r"\n"),
        ("control", _BREAK.format("Control")),
        ("linker", rf"[{_BREAK.format('Extend')}&&{_CONJUNCT.format('Linker')}]"),
        ("lone linker", _CONJUNCT.format("Linker")),
        ("zwj", r"\u200d"),
        ("linked", rf"[{_BREAK.format('Extend')}&&{_CONJUNCT.format('Extend')}]"),
        ("extend", _BREAK.format("Extend")),
        ("spacing", _BREAK.format("SpacingMark")),
        ("prepend", _BREAK.format("Prepend")),
        ("flag", _BREAK.format("Regional_Indicator")),
        *((kind, _BREAK.format(kind.upper())) for kind in HANGUL),
        ("pictograph", r"\p{Extended_Pictographic}"),
        ("consonant", _CONJUNCT.format("Consonant")),
    )
    # The class before; an emoji sequence (1: pictograph, 2: and a joiner); whether a linker waits for a consonant.
    start = ("control", 0, False)

    def step(self, state, kind):
        before, emoji, linked = state
        if kind in ("cr", "lf", "control", INVALID):
            return ("cr" if kind == "cr" else "control", 0, False), not (before == "cr" and kind == "lf")
        inside = before not in ("cr", "control")
        if kind in EXTENDING:
            emoji = {"zwj": 2, "spacing": 0}.get(kind, 1) if emoji == 1 else 0
            linked = kind == "linker" or (linked and kind in ("linked", "zwj"))
            return ("other", emoji, linked), not inside
        joined = inside and (
            before == "prepend"
            or before in AFTER.get(kind, ())
            or (kind == "flag" and before == "flag")
            or (kind == "pictograph" and emoji == 2)
            or (kind == "consonant" and linked)
        )
        now = HANGUL.get(kind, kind if kind in ("prepend", "flag") else "other")
        if kind == "flag" and before == "flag":
            now = "other"  # a pair is complete
        return (now, int(kind == "pictograph"), kind == "lone linker"), not joined
