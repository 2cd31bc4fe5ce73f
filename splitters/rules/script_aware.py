"""The rule for mixed text: units that suit how each script is written."""

from typing import ClassVar, Literal

from splitters.contract import Knob, one_of, positive
from splitters.engine.automaton import State
from splitters.engine.characters import Classes
from splitters.registry import register
from splitters.rules.scripts import IDEOGRAPHIC, SYLLABLE_SEPARATOR, UNSPACED_CLUSTERS, any_of, with_shared
from splitters.rules.syllable import CLUSTER, cluster_classes, step_cluster
from splitters.rules.whitespace import Whitespace

RUNS = ("han", "hiragana", "katakana")


@register("script_aware")
class ScriptAware(Whitespace):
    """Spaced scripts by words, Han and kana in groups of `n` characters, South-East Asia and Tibet by syllables.

    Words are those of `whitespace`, syllables those of `syllable` (clusters in Thai, Lao, Khmer, Burmese and the like,
    tsheg in Tibetan). A group ends where the script changes (漢字|かな|ABC), also between a cluster and a word.
    The boundary falls on the first character of each group or cluster. With `closes: full`, that between a full group
    of Han or kana and what follows falls on the group's `n`-th character, and so does not wait for the next one.
    """

    source = "this project"
    knob = Knob("n", 1, 64)
    classes: ClassVar[Classes] = (
        Whitespace.classes[0],
        ("blank", rf"[{SYLLABLE_SEPARATOR}{Whitespace.classes[1][1]}]"),
        ("voicing", r"[\u3099\u309a\uff9e\uff9f]"),  # part of the kana before it
        ("tone letter", r"[ˇˊˋ˙˪˫]"),  # of Bopomofo, and of other scripts
        ("kana mark", r"[ー゛゜ｰ〱-〵]"),  # lengthens or repeats the kana before it
        ("han", rf"[{with_shared(IDEOGRAPHIC)}--\p{{M}}]"),
        ("hiragana", r"[\p{Script=Hiragana}&&\p{L}]"),
        ("katakana", r"[\p{Script=Katakana}&&\p{L}]"),
        *cluster_classes(any_of(UNSPACED_CLUSTERS)),
        *Whitespace.classes[2:],
    )

    def __init__(self, n: int = 2, closes: Literal["next", "full"] = "next") -> None:
        self.n = positive("script_aware", "n", n, most=1000)
        self.closes = one_of("script_aware", "closes", closes, ("next", "full"))

    def step(self, state, kind):
        after, begins = self._begins(state, kind)
        if self.closes == "next":
            return after, begins
        was_full, is_full = self._is_full(state), self._is_full(after)
        return after, begins and is_full if was_full else begins or is_full

    def _is_full(self, state: State) -> bool:
        return isinstance(state, tuple) and state[0] in RUNS and state[1] == self.n

    def _begins(self, state, kind):
        """Returns the state after a character, and whether a group, word or cluster begins at it."""
        if kind in ("voicing", "tone letter") and state[0] in RUNS:
            return state, False
        if (moved := step_cluster(state, kind)) is not None:
            return moved
        if kind in ("voicing", "kana mark"):
            kind = state[0] if state[0] in RUNS else "katakana"
        if kind in RUNS:
            before, size = state if state[0] in RUNS else (None, 0)
            begins = before != kind or size == self.n
            return (kind, 1 if begins else size + 1), begins
        if kind in ("letter", "tone letter"):
            return "letter", state in CLUSTER or state[0] in RUNS
        return super().step(state, kind)
