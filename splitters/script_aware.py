"""The rule for mixed text: each script is cut in the way that suits how it is written."""

from typing import ClassVar

from splitters.characters import Classes
from splitters.contract import positive
from splitters.registry import register
from splitters.scripts import IDEOGRAPHIC, SYLLABLE_SEPARATOR, UNSPACED_CLUSTERS, any_of
from splitters.syllable import CLUSTER, cluster_classes, step_cluster
from splitters.whitespace import Whitespace

RUNS = ("han", "hiragana", "katakana")


@register("script_aware")
class ScriptAware(Whitespace):
    """Spaced scripts by words, Han and kana in groups of `n` characters, South-East Asia and Tibet by syllables.

    Words are those of `whitespace`, syllables those of `syllable` (clusters in Thai, Lao, Khmer, Burmese and the like,
    tsheg in Tibetan). A group ends where the script changes (漢字|かな|ABC), also from a cluster to a word.
    The boundary falls on the first character of each group or cluster.
    """

    source = "this project"
    classes: ClassVar[Classes] = (
        Whitespace.classes[0],
        ("blank", rf"[{SYLLABLE_SEPARATOR}{Whitespace.classes[1][1]}]"),
        ("kana mark", r"[ー゛゜ｰﾞﾟ\u3099\u309a]"),  # of the script that stands before
        ("han", rf"[{any_of(IDEOGRAPHIC)}&&[\p{{L}}\p{{N}}]]"),
        ("hiragana", r"[\p{Script=Hiragana}&&\p{L}]"),
        ("katakana", r"[\p{Script=Katakana}&&\p{L}]"),
        *cluster_classes(any_of(UNSPACED_CLUSTERS)),
        *Whitespace.classes[2:],
    )

    def __init__(self, n: int = 2) -> None:
        self.n = positive("script_aware", "n", n)

    def step(self, state, kind):
        if (moved := step_cluster(state, kind)) is not None:
            return moved
        if kind == "kana mark":
            kind = state[0] if state[0] in RUNS else "katakana"
        if kind in RUNS:
            before, size = state if state[0] in RUNS else (None, 0)
            begins = before != kind or size == self.n
            return (kind, 1 if begins else size + 1), begins
        if kind == "letter":
            return kind, state in CLUSTER or state[0] in RUNS
        return super().step(state, kind)
