"""Syllables, as nearly as possible without a dictionary and without looking ahead.

In scripts that write clusters (Thai, Lao, Khmer, Burmese, the Indic ones), a cluster is a letter with the signs
around it, and whatever a virama or coeng stacks under it. It begins at its first character (in Thai and Lao often a
vowel that is written first). A final consonant begins a cluster of its own, because only the next characters show
that it was final; the exception is where the spelling demands one (Thai ◌ั).
"""

from typing import ClassVar

from splitters.engine.automaton import State
from splitters.engine.characters import Classes
from splitters.registry import register
from splitters.rules.scripts import IDEOGRAPHIC, KANA, SYLLABLE_SEPARATOR, UNSPACED_CLUSTERS, any_of, with_shared
from splitters.rules.whitespace import Whitespace

# These form conjuncts. Tamil's pulli and Sinhala's al-lakuna only silence a vowel (unless a joiner follows).
_STACKERS = r"[[\p{InSC=Virama}\p{InSC=Invisible_Stacker}]--[\u0bcd\u0dca]]"
_TONES = r"[\p{InSC=Tone_Mark}\p{InSC=Tone_Letter}]"
# What never begins a cluster. Many of these signs count as letters (all of Thai's and Lao's vowels).
_SIGNS = "[{}[{}&&\\p{{InSC=Other}}]\ua9cf]".format(
    r"\p{M}\p{Cf}\p{InSC=Vowel_Dependent}\p{InSC=Vowel}"
    r"\p{InSC=Consonant_Medial}\p{InSC=Consonant_Subjoined}\p{InSC=Consonant_Final}",
    any_of(UNSPACED_CLUSTERS),
)
_BEFORE = r"[\p{InPC=Visual_Order_Left}\p{InSC=Consonant_Prefixed}\p{InSC=Consonant_Preceding_Repha}]"


def cluster_classes(letters: str) -> Classes:
    """Returns the classes of `step_cluster`; `letters`: the set of letters that form clusters."""
    inside = rf"[\p{{M}}\p{{Cf}}[{letters}&&\p{{L}}]\ua9cf]"
    return (
        ("stacker", _STACKERS),
        ("joiner", r"\u200d"),
        ("nonjoiner", r"\u200c"),
        ("before", rf"[{_BEFORE}&&{letters}]"),
        ("short a", r"[\u0e31\u0eb1\u0ebb]"),  # ◌ั ◌ັ ◌ົ: a consonant or another vowel must follow
        ("long ue", r"[\u0e37\u0eb7]"),  # ◌ื ◌ື: อ after it is a vowel
        ("long i", r"\u0e35"),  # ◌ี: ย after it is a vowel if เ stands before
        ("tone", rf"[{_TONES}&&{inside}]"),
        ("sign", rf"[{_SIGNS}&&{inside}]"),
        ("o", r"[\u0e2d\u0ead]"),
        ("yo", r"\u0e22"),
        ("base", rf"[{letters}&&\p{{L}}--\p{{InSC=Other}}]"),
    )


# States inside a cluster: its end so far. "around" and "second" are the one or two consonants that a vowel written
# before them may enclose (เรี, เปลี).
_TAKES_ANY = ("stacked", "before", "short a")  # the next letter belongs to it
CLUSTER = ("cluster", "around", "second", *_TAKES_ANY, "long ue", "long ia")


def step_cluster(state: State, kind: str) -> tuple[State, bool] | None:
    """Returns the state after a character of a cluster class, and whether a cluster begins at it.

    Returns None for other classes.
    """
    if kind in ("base", "o", "yo"):
        joined = state in _TAKES_ANY or (state, kind) in (("long ue", "o"), ("long ia", "yo"))
        return {"before": "around", "around": "second"}.get(str(state), "cluster"), not joined
    if kind == "before":
        return kind, state != "stacked"
    if kind not in ("stacker", "joiner", "nonjoiner", "short a", "long ue", "long i", "tone", "sign"):
        return None
    if state not in CLUSTER:  # a mark on something else goes with it
        return "letter" if state == "blank" else state, False
    if kind in ("stacker", "joiner"):
        return "stacked", False
    if kind in ("short a", "long ue"):
        return kind, False
    if kind == "long i":
        return "long ia" if state in ("around", "second") else "cluster", False
    if kind == "tone" or state == "before":
        return state, False
    return "cluster", False


# Each character is a syllable of its own, except small kana, length marks, ん and combining marks.
_SMALL_KANA = r"[ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶㇰ-ㇿー゛゜んンｧ-ｯｰﾝﾞﾟ]"
_SYLLABIC = rf"[{with_shared((*IDEOGRAPHIC, *KANA))}--\p{{M}}]"
_JAMO = r"\p{{Hangul_Syllable_Type={}}}"


@register("syllable")
class Syllable(Whitespace):
    """As `whitespace`, and a boundary at each syllable of the scripts that show them.

    Syllables are orthographic clusters in Thai, Lao, Khmer, Burmese and the Indic scripts, Han characters, kana with
    the small ones after them, and Hangul blocks, with the boundary at their first character; and the stretches between
    tsheg (Tibetan, Dzongkha) or Ethiopic wordspaces.
    """

    source = "this project"
    classes: ClassVar[Classes] = (
        Whitespace.classes[0],
        ("blank", rf"[{SYLLABLE_SEPARATOR}{Whitespace.classes[1][1]}]"),
        ("small kana", _SMALL_KANA),
        ("syllabic", _SYLLABIC),
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
            return "syllabic", state != "syllabic"
        if kind in ("syllabic", "block"):
            return kind, True
        if kind == "first jamo":
            return kind, state != kind
        if kind == "further jamo":
            return "block", state not in ("first jamo", "block")
        return super().step(state, kind)
