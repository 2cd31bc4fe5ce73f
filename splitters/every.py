"""Groups of units: the stages above words (AU-Net's word pairs and groups of four)."""

import numpy as np

from splitters.automaton import CharacterRule
from splitters.contract import Stepper, UnitRule, UnitStepper, positive
from splitters.registry import register

FULL_STOP = r"[.!?]"  # ends a sentence only if a blank follows: not in 3.14
SENTENCE_END = r"[\p{Sentence_Break=STerm}\u0f0d\u0f0e\u0f14]"  # ends one by itself; Tibetan has its own strokes


@register("every")
class Every(UnitRule):
    """A boundary at every `n`-th unit of the stage below, or (with `sentence_end`) at the first unit
    at or after the end of a sentence, where the count starts again.

    A sentence ends at a line break, at a full stop of a script that has its own (。 ។ ། ። ।), and at
    the blank after . ! ?
    """

    def __init__(self, n: int = 2, sentence_end: bool = True) -> None:
        self.n = positive("every", "n", n)
        self.sentences = _SentenceEnd() if sentence_end else _Never()

    def select(self, data: bytes, units: np.ndarray) -> np.ndarray:
        selected = np.zeros(len(units), dtype=bool)
        ends = np.flatnonzero(units)
        ended = np.cumsum(self.sentences.split(data))[ends]  # sentences ended so far, at each unit
        count = before = 0
        for position, sentences in zip(ends.tolist(), ended.tolist(), strict=True):
            count += 1
            if count == self.n or sentences > before:
                selected[position] = True
                count = 0
            before = sentences
        return selected

    def stepper(self) -> UnitStepper:
        return _EveryStepper(self.n, self.sentences.stepper())


class _EveryStepper(UnitStepper):
    def __init__(self, n: int, sentences: Stepper) -> None:
        self.n, self.sentences = n, sentences
        self.count, self.ended = 0, False

    def push(self, byte: int, unit: bool) -> bool:
        self.ended |= self.sentences.push(byte)
        if not unit:
            return False
        self.count += 1
        fires = self.count == self.n or self.ended
        self.count, self.ended = (0 if fires else self.count), False
        return fires


class _SentenceEnd(CharacterRule):
    classes = (
        ("break", r"[\n\v\f\x85\u2028\u2029]"),
        ("blank", r"\s"),
        ("full_stop", FULL_STOP),
        ("end", SENTENCE_END),
    )
    start = "in_sentence"

    def step(self, state, kind):
        if kind == "full_stop":
            return "full_stop", False
        return "in_sentence", kind in ("break", "end") or (kind == "blank" and state == "full_stop")


class _Never(CharacterRule):
    classes = ()
    start = None

    def step(self, state, kind):
        return None, False
