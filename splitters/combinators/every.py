"""Groups of units: the stages above words (AU-Net's word pairs and groups of four)."""

from typing import Literal

import numpy as np

from splitters.combinators.grouping import Grouping
from splitters.contract import Knob, Stepper, UnitStepper, flag, one_of, positive
from splitters.registry import Spec, register
from splitters.rules.sentence_end import SentenceEnd


@register("every")
class Every(Grouping):
    """A boundary at every `n`-th boundary of the stage below, or of the splitter `of`.

    With `sentence_end`, also at the first such boundary at or after the end of a sentence, where the count restarts.
    As the first splitter, without `of`, it counts bytes: there is no stage below.

    These boundaries fall on the first unit of the next group. With `closes: full` they fall on the group's `n`-th unit,
    which has begun there; the first group's first unit is that of BOS.
    """

    source = "AU-Net's word pairs and quads, arXiv 2506.14761"
    knob = Knob("n", 1, 4096)

    def __init__(
        self, n: int = 2, sentence_end: bool = True, of: Spec | None = None, closes: Literal["next", "full"] = "next"
    ) -> None:
        super().__init__("every", of)
        self.n = positive("every", "n", n)
        self.sentences = SentenceEnd() if flag("every", "sentence_end", sentence_end) else None
        self.full = one_of("every", "closes", closes, ("next", "full")) == "full"

    def group(self, data: bytes, units: np.ndarray) -> np.ndarray:
        ends = np.flatnonzero(units)
        index = np.arange(len(ends))
        restarts = np.zeros(len(ends), bool)
        if self.sentences is not None:
            ended = np.cumsum(self.sentences.split(data))[ends]  # sentences ended so far, at each unit
            restarts = np.diff(ended, prepend=0) > 0
        since = index - np.maximum.accumulate(np.where(restarts, index, -1)) if len(ends) else index
        place = since % self.n  # of each unit in its group
        selected = np.zeros(len(units), bool)
        if self.full:
            was_full = np.concatenate([[0], place])[: len(ends)] == self.n - 1
            selected[ends] = (place == self.n - 1) | (restarts & ~was_full)
        else:
            selected[ends] = place == 0
        return selected

    def group_stepper(self) -> UnitStepper:
        return _EveryStepper(self.n, self.full, self.sentences.stepper() if self.sentences is not None else None)


class _EveryStepper(UnitStepper):
    def __init__(self, n: int, full: bool, sentences: Stepper | None) -> None:
        self.n, self.full, self.sentences = n, full, sentences
        self.count, self.ended = 1, False  # units of the group so far: that of BOS

    def push(self, byte: int, unit: bool) -> bool:
        if self.sentences is not None:
            self.ended |= self.sentences.push(byte)
        if not unit:
            return False
        was_full = self.count == self.n
        begins = was_full or self.ended
        self.count, self.ended = (1 if begins else self.count + 1), False
        return (self.count == self.n or (begins and not was_full)) if self.full else begins
