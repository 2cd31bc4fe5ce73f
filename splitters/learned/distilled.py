"""A causal student of any other rule, even of one that looks ahead."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from splitters.contract import LearnedSplitter, Splitter, Teacher, flag, number, whole
from splitters.registry import Spec, register, resolve_teacher

if TYPE_CHECKING:
    from splitters.learned.networks import StudentNetwork


@register("distilled")
class Distilled(LearnedSplitter):
    """A boundary where a small network on the hidden states predicts one of the teacher, which may look ahead.

    Args:
        teacher: a splitter or teacher, by name or {name: …, option: …}
        alpha: weight of the cross-entropy against the teacher
        balance: exponent of the extra weight of boundaries, which are rarer: 0 none, 1 as much as all other positions
            together
        teacher_steps: training steps in which the model pools at the teacher's boundaries; if the teacher looks
            ahead, the training loss leaks during these steps
        detach: whether the network only reads the hidden states and sends them no gradient
    """

    source = "after the supervised boundary predictors of Nawrot et al., arXiv 2211.09761"

    def __init__(
        self,
        teacher: Spec | Teacher = "script_aware",
        alpha: float = 1.0,
        balance: float = 0.5,
        teacher_steps: int = 0,
        detach: bool = False,
    ) -> None:
        self.alpha = number("distilled", "alpha", alpha, 0, above=True)
        self.balance = number("distilled", "balance", balance, 0, most=1)
        self.detach = flag("distilled", "detach", detach)
        self._spec = teacher
        self.teacher_steps = whole("distilled", "teacher_steps", teacher_steps)

    @cached_property
    def teacher(self) -> Splitter | Teacher:
        """The teacher, resolved when training asks for it: a trained student does not need it."""
        return resolve_teacher(self._spec)

    def predictor(self, dim: int) -> StudentNetwork:
        from splitters.learned.networks import StudentNetwork

        return StudentNetwork(dim, self.alpha, self.balance, self.detach)
