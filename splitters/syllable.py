"""Syllables, or what comes nearest to them without a dictionary and without looking ahead.

Scripts that write clusters (Thai, Lao, Khmer, Burmese, the Indic ones): a cluster is a letter with
the signs around it, and whatever a virama or coeng stacks under it. It begins at its first character
(in Thai and Lao often a vowel that is written first). A final consonant begins a cluster of its own,
since only what follows tells that it was one, except where the spelling demands it (Thai ◌ั).
"""

from typing import ClassVar

from splitters.automaton import State
from splitters.characters import Classes
from splitters.registry import register
from splitters.scripts import IDEOGRAPHIC, KANA, SYLLABLE_SEPARATOR, UNSPACED_CLUSTERS, any_of
from splitters.whitespace import Whitespace, in_word

# Conjuncts. Tamil's pulli and Sinhala's al-lakuna only silence a vowel (unless a joiner follows).
_STACKERS = r"[[\p{InSC=Virama}\p{InSC=Invisible_Stacker}]--[\u0bcd\u0dca]]"
# What never begins a cluster. Many of these signs count as letters (all of Thai's and Lao's vowels).
_SIGNS = "[{}[{}&&\\p{{InSC=Other}}]]".format(
    r"\p{M}\p{Cf}"
    + "".join(
        rf"\p{{InSC={name}}}"
        for name in (
            "Vowel_Dependent",
            "Vowel",
            "Consonant_Medial",
            "Consonant_Subjoined",
            "Consonant_Final",
            "Tone_Letter",
        )
    ),
    any_of(UNSPACED_CLUSTERS),
)


def cluster_classes(letters: str) -> Classes:
    """Returns the classes that `step_cluster` knows; `letters`: the set of the letters that form clusters."""
    return (
        ("stacker", _STACKERS),
        ("joiner", r"\u200d"),
        ("nonjoiner", r"\u200c"),
        ("vowel before", r"\p{InPC=Visual_Order_Left}"),
        ("short a", r"[\u0e31\u0eb1\u0ebb]"),  # ◌ั ◌ັ ◌ົ: a consonant must follow
        ("long ue", r"[\u0e37\u0eb7]"),  # ◌ื ◌ື: อ after it is a vowel
        ("long i", r"\u0e35"),  # ◌ี: ย after it is a vowel if เ stands before
        ("sign", rf"[{_SIGNS}&&[\p{{M}}\p{{Cf}}{letters}]&&[\p{{L}}\p{{M}}\p{{Cf}}]]"),
        ("o", r"[\u0e2d\u0ead]"),
        ("yo", r"\u0e22"),
        ("base", rf"[{letters}&&\p{{L}}--\p{{InSC=Other}}]"),
    )


# States inside a cluster: what it ends with so far.
_TAKES_ANY = ("stacked", "vowel before", "short a")  # the next letter belongs to it
CLUSTER = ("cluster", "vowel around", *_TAKES_ANY, "long ue", "long ia")


def step_cluster(state: State, kind: str) -> tuple[State, bool] | None:
    """Returns the state after a character of one of the cluster classes and whether a cluster begins at it, or
    None if `kind` is of another class."""
    if kind in ("base", "o", "yo"):
        joined = state in _TAKES_ANY or (state, kind) in (("long ue", "o"), ("long ia", "yo"))
        return ("vowel around" if state == "vowel before" else "cluster"), not joined
    if kind == "vowel before":
        return kind, state != "stacked"
    if kind not in ("stacker", "joiner", "nonjoiner", "short a", "long ue", "long i", "sign"):
        return None
    if state not in CLUSTER:  # a mark on something else goes with it
        return state if in_word(state) else "letter", False
    if kind in ("stacker", "joiner"):
        return "stacked", False
    if kind == "nonjoiner":
        return "cluster", False
    if kind == "long i":
        return "long ia" if state == "vowel around" else "cluster", False
    return state if kind == "sign" else kind, False


# Every character a syllable of its own, but for what kana write smaller or lengthen, ん and marks.
_SMALL_KANA = r"[ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶㇰ-ㇿー゛゜んンｧ-ｯｰﾝﾞﾟ]"
_WHOLE = rf"[{any_of((*IDEOGRAPHIC, *KANA))}--\p{{M}}]"
_JAMO = r"\p{{Hangul_Syllable_Type={}}}"


@register("syllable")
class Syllable(Whitespace):
    """As `whitespace`, and a boundary at each syllable of the scripts that show them.

    These are orthographic clusters in Thai, Lao, Khmer, Burmese and the Indic scripts, Han characters, kana with the
    small ones after them and Hangul blocks, with the boundary at their first character; and what stands between
    tsheg (Tibetan, Dzongkha) or Ethiopic wordspaces.
    """

    source = "this project"
    classes: ClassVar[Classes] = (
        Whitespace.classes[0],
        ("blank", rf"[{SYLLABLE_SEPARATOR}{Whitespace.classes[1][1]}]"),
        ("small kana", _SMALL_KANA),
        ("whole", _WHOLE),
        ("first jamo", _JAMO.format("L")),
        ("further jamo", rf"[{_JAMO.format('V')}{_JAMO.format('T')}]"),
        ("block", r"[\p{Script=Hangul}&&\p{L}]"),
        *cluster_classes(r"\P{Script=Tibetan}"),
        *Whitespace.classes[2:],
    )

    def step(self, state, kind):
        if (moved := step_cluster(state, kind)) is not None:
            return moved
        if kind == "small kana":
            return "whole", state != "whole"
        if kind in ("whole", "block"):
            return kind, True
        if kind == "first jamo":
            return kind, state != kind
        if kind == "further jamo":
            return "block", state not in ("first jamo", "block")
        return super().step(state, kind)
