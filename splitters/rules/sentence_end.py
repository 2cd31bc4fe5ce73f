"""Ends of sentences, for high stages or for a `union` with another rule."""

from splitters.engine.automaton import CharacterRule
from splitters.registry import register
from splitters.rules.whitespace import LINE_BREAK

FULL_STOP = r"[.!?]"  # ends a sentence only if a blank follows: not in 3.14
SENTENCE_END = r"[\p{Sentence_Break=STerm}\u0f0d\u0f0e\u0f14]"  # ends a sentence by itself; Tibetan has its own strokes


@register("sentence_end")
class SentenceEnd(CharacterRule):
    """A boundary at line breaks, at full stops such as 。 ។ ། ।, and at the blank after one of . ! ?"""

    source = "Unicode's Sentence_Break, without its look ahead"
    classes = (("break", LINE_BREAK), ("blank", r"\s"), ("full_stop", FULL_STOP), ("end", SENTENCE_END))
    start = "in_sentence"

    def step(self, state, kind):
        if kind == "full_stop":
            return "full_stop", False
        return "in_sentence", kind in ("break", "end") or (kind == "blank" and state == "full_stop")
