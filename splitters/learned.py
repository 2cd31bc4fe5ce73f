"""The contract of a learned splitter: it reads the hidden states of a stage, inside the model, and trains with it.

Importing this loads no torch; a splitter's network is made when a model asks for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from splitters.contract import Splitter
    from splitters.predictors import Predictor
    from splitters.teachers import Teacher


class LearnedSplitter(ABC):
    """Places boundaries by a small network on the hidden states of the stage below.

    It stands between two stages of a model and has no `split`: without the model there are no hidden
    states (`aunet split --checkpoint` shows what it does in a trained one).
    """

    source: ClassVar[str] = ""  # where it comes from, for `aunet splitters`
    kind: ClassVar[str] = "learned"
    bytes_per_unit: float | None = None  # the mean length that it aims at, where it is told one
    teacher_steps = 0  # training steps in which the model pools at the teacher's boundaries

    @property
    def teacher(self) -> Splitter | Teacher | None:
        """The splitter or teacher whose boundaries it is trained to predict, if there is one."""
        return None

    @abstractmethod
    def predictor(self, dim: int) -> Predictor:
        """Returns its network, for hidden states of width `dim`."""
