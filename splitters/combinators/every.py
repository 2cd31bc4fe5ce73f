"""Groups of units: the stages above words (AU-Net's word pairs and groups of four)."""

import numpy as np

from splitters.contract import Knob, Splitter, Stepper, UnitStepper, flag, positive
from splitters.registry import Spec, register, resolve_part
from splitters.rules.sentence_end import SentenceEnd


@register("every")
class Every(Splitter):
    """A boundary at every `n`-th boundary of the stage below, or of the splitter `of`.

    With `sentence_end`, also at the first such boundary at or after the end of a sentence, where the count restarts.
    As the first splitter, without `of`, it counts bytes: there is no stage below.
    """

    source = "AU-Net's word pairs and quads, arXiv 2506.14761"
    knob = Knob("n", 1, 4096)

    def __init__(self, n: int = 2, sentence_end: bool = True, of: Spec | None = None) -> None:
        self.n = positive("every", "n", n)
        self.sentences = SentenceEnd() if flag("every", "sentence_end", sentence_end) else None
        self.of = None if of is None else resolve_part("every", of)
        self.groups_units = of is None

    def split(self, data: bytes) -> np.ndarray:
        return self._group(data, np.ones(len(data), bool) if self.of is None else self.of.split(data))

    def stepper(self) -> Stepper:
        return _OfStepper(None if self.of is None else self.of.stepper(), self._group_stepper())

    def select(self, data: bytes, units: np.ndarray) -> np.ndarray:
        return self._group(data, units) if self.of is None else super().select(data, units)

    def unit_stepper(self) -> UnitStepper:
        return self._group_stepper() if self.of is None else super().unit_stepper()

    def _group(self, data: bytes, units: np.ndarray) -> np.ndarray:
        ends = np.flatnonzero(units)
        index = np.arange(len(ends))
        restarts = np.zeros(len(ends), bool)
        if self.sentences is not None:
            ended = np.cumsum(self.sentences.split(data))[ends]  # sentences ended so far, at each unit
            restarts = np.diff(ended, prepend=0) > 0
        since = index - np.maximum.accumulate(np.where(restarts, index, -1)) if len(ends) else index
        selected = np.zeros(len(units), bool)
        selected[ends] = restarts | (since % self.n == 0)
        return selected

    def _group_stepper(self) -> "_EveryStepper":
        return _EveryStepper(self.n, self.sentences.stepper() if self.sentences is not None else None)


class _EveryStepper(UnitStepper):
    def __init__(self, n: int, sentences: Stepper | None) -> None:
        self.n, self.sentences = n, sentences
        self.count, self.ended = 0, False

    def push(self, byte: int, unit: bool) -> bool:
        if self.sentences is not None:
            self.ended |= self.sentences.push(byte)
        if not unit:
            return False
        self.count += 1
        fires = self.count == self.n or self.ended
        self.count, self.ended = (0 if fires else self.count), False
        return fires


class _OfStepper(Stepper):
    def __init__(self, of: Stepper | None, group: _EveryStepper) -> None:
        self.of, self.group = of, group

    def push(self, byte: int) -> bool:
        return self.group.push(byte, True if self.of is None else self.of.push(byte))
