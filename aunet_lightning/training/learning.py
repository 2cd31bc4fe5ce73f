"""How learned splitters train: their losses, where they begin, whom they follow at first, and when they collapse."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from aunet_lightning.data.packing import Batch, marked
from aunet_lightning.model.aunet import AUNet, Gather, Output
from aunet_lightning.model.boundaries import deferred
from splitters.learned.predictor import Predictor
from splitters.learned.teachers import peeks

PATIENCE = 20  # steps
NEARLY_ALL = 0.9  # share of positions that are boundaries
NEARLY_NONE = 0.1  # of the boundaries wanted


class Learning:
    """The learned splitters of a network, in training. Without any, all of it does nothing."""

    def __init__(self, net: AUNet) -> None:
        self.net = net
        self.rules = net.stack.learned if net.stack is not None else {}
        self.predictors = {s: cast(Predictor, net.predictors[str(s)]) for s in self.rules}
        self.teachers = {s: rule.teacher for s, rule in self.rules.items() if rule.teacher is not None}
        self.logged: dict[str, float] = {}  # of the last step
        self._totals: dict[int, tuple[Tensor, float]] = {}  # of the last step: sums, bytes
        self.told_of_target: set[int] = set()
        self.collapsed = dict.fromkeys(self.rules, 0)  # steps in a row

    def announce(self, step: int) -> None:
        """Says in the log where training pools at a teacher's boundaries, and whether its loss leaks."""
        for s, rule in self.rules.items():
            if step < rule.teacher_steps:
                leaks = (
                    "; this teacher looks ahead, so train/loss and train/bpb leak until then and are too low"
                    if s in self.teachers and peeks(self.teachers[s])
                    else ""
                )
                rank_zero_warn(
                    f"stage {s + 2} is pooled at the boundaries of its teacher for the first {rule.teacher_steps} "
                    f"training steps, and in validation at its own{leaks}"
                )

    def pool_at(self, batch: Batch, step: int) -> dict[int, Tensor] | None:
        """Returns the teachers' boundaries, bool [B, L] by transition, where training still pools at them."""
        for s, rule in self.rules.items():
            if rule.teacher_steps and step == rule.teacher_steps:
                rank_zero_info(f"step {step}: from here on stage {s + 2} is pooled at its own boundaries")
        found = {s: marked(batch, s) for s, rule in self.rules.items() if step < rule.teacher_steps}
        return found or None

    def calibrate(self, batch: Batch, gather: Gather) -> None:
        """Sets biases by the first batch, that of all devices (`gather` joins what each has)."""
        if self.predictors:
            self.net.calibrate(batch["ids"], batch["levels"], {s: marked(batch, s) for s in self.teachers}, gather)

    def sums(self, batch: Batch, output: Output) -> dict[int, Tensor]:
        """Returns each predictor's sums over this device's part of the batch, some with a gradient."""
        found = {}
        for s, predictor in self.predictors.items():
            transition = output.transitions[s]
            assert transition.log_odds is not None
            taught = None
            if s in self.teachers:
                taught = deferred(marked(batch, s), transition.at, transition.valid)[transition.open]
            log_odds = transition.log_odds[transition.open]
            forced = (transition.forced & transition.valid).sum()
            found[s] = predictor.sums(log_odds, log_odds > 0, taught, forced)
        return found

    def loss(self, local: Mapping[int, Tensor], totals: Sequence[float], n_bytes: float) -> Tensor:
        """Returns this device's part of the predictors' losses, and notes what is to be logged.

        totals: the sums of all devices, one predictor after the other; n_bytes: what all devices read.
        """
        loss, at = torch.zeros((), device=self.net.head.weight.device), 0
        self.logged = {}
        for s, sums in local.items():
            total = sums.new_tensor(totals[at : at + len(sums)])
            at += len(sums)
            predictor = self.predictors[s]
            self._totals[s] = total, n_bytes
            loss = loss + predictor.loss(sums, total, n_bytes)
            named = predictor.report(total) | {"splitter_loss": float(predictor.loss(total, total, n_bytes).detach())}
            named |= {"splitter_bias": float(predictor.bias.detach()), "collapsed": self._watch(s, total, n_bytes)}
            self.logged |= {f"{name}_stage{s + 2}": value for name, value in named.items()}
        return loss

    def adjust(self) -> None:
        """After a step: lets each predictor correct what no gradient does."""
        for s, (total, n_bytes) in self._totals.items():
            self.predictors[s].adjust(total, n_bytes)

    def _watch(self, s: int, total: Tensor, n_bytes: float) -> float:
        """Warns where a splitter has made nearly all or nothing a boundary for a while; returns whether, as 0 or 1."""
        predictor = self.predictors[s]
        n, found = predictor.decided(total)
        wanted = predictor.wanted(total, n_bytes)
        if wanted > NEARLY_ALL * n > 0 and s not in self.told_of_target:
            self.told_of_target.add(s)
            rank_zero_warn(
                f"the splitter below stage {s + 2} is to make {wanted:.0f} of {n:.0f} positions boundaries, so units "
                "of hardly more than one: name longer units (bytes_per_unit), or shorter ones in the stage below"
            )
        all_, none = found > NEARLY_ALL * n and wanted <= NEARLY_ALL * n, found < NEARLY_NONE * wanted
        self.collapsed[s] = self.collapsed[s] + 1 if all_ or none else 0
        if self.collapsed[s] == PATIENCE:
            what = "nearly every position" if all_ else "almost no position"
            costs = "nothing is pooled, and it is slow" if all_ else "the stages above see next to nothing"
            rank_zero_warn(
                f"the splitter below stage {s + 2} has collapsed: for {PATIENCE} steps it has made {what} a boundary "
                f"({found:.0f} of {n:.0f}), so {costs}. Raise its alpha, lower optimizer.lr or optimizer.splitter_lr, "
                "or take a longer warm-up"
            )
        return float(self.collapsed[s] >= PATIENCE)
