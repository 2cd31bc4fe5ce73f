"""Training of learned splitters: losses, calibration, teachers, and warnings of a collapse."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils import _pytree as pytree

from aunet_lightning.data.packing import Batch, context_of, marked
from aunet_lightning.model.aunet import AUNet, Output
from aunet_lightning.model.deciders import Decider
from aunet_lightning.model.units import deferred
from aunet_lightning.training.by_language import ByLanguage, count, groups_of, sums_of
from aunet_lightning.training.calibration import Gather, Taught, calibrate

PATIENCE = 20  # steps
NEARLY_ALL = 0.9  # share of positions that are boundaries
NEARLY_NONE = 0.1  # of the boundaries wanted


class Learning:
    """The learned splitters of a network, in training. Without any, it does nothing."""

    def __init__(self, net: AUNet) -> None:
        self.net = net
        self.rules = net.stack.learned if net.stack is not None else {}
        self.predictors = {stage.s: stage.predictor for stage in net.stages if stage.predictor is not None}
        self.teachers = net.stack.teachers if net.stack is not None else {}
        self.languages: Sequence[str] = ()  # that those of a batch are indices into
        self.logged: dict[str, float] = {}  # of the last step
        self._totals: dict[int, tuple[Any, Any]] = {}  # of the last step: sums, bytes
        self.warned_of_target: set[int] = set()
        self.collapsed = dict.fromkeys(self.rules, 0)  # steps in a row

    def announce(self, step: int, languages: Sequence[str] = ()) -> None:
        """Warns where training pools at a teacher's boundaries, and whether its loss leaks.

        languages: of the training text.
        """
        self.languages = languages
        for s, rule in self.rules.items():
            if step < rule.teacher_steps:
                leaks = (
                    "; this teacher looks ahead, so train/loss and train/bpb leak until then and are too low"
                    if s in self.teachers and self.teachers[s].looks_ahead
                    else ""
                )
                rank_zero_warn(
                    f"stage {s + 2} is pooled at the boundaries of its teacher for the first {rule.teacher_steps} "
                    f"training steps, and in validation at its own{leaks}"
                )

    def begin(self, step: int) -> None:
        """Tells predictors the step that comes."""
        for predictor in self.predictors.values():
            predictor.begin(step)

    def deciders(self, batch: Batch, step: int) -> dict[int, Decider]:
        """Returns what pools at the teachers' boundaries, by transition, where training still does."""
        for s, rule in self.rules.items():
            if rule.teacher_steps and step == rule.teacher_steps:
                rank_zero_info(f"step {step}: from here on stage {s + 2} is pooled at its own boundaries")
        still = (s for s, rule in self.rules.items() if step < rule.teacher_steps)
        return {s: Taught(self.predictors[s], marked(batch, s)) for s in still}

    def calibrate(self, batch: Batch, gather: Gather) -> None:
        """Sets biases by the first batch, that of all devices (`gather` joins the parts)."""
        if self.predictors:
            taught = {s: marked(batch, s) for s in self.teachers}
            groups = {
                s: groups_of(predictor, self.languages, batch["languages"])
                for s, predictor in self.predictors.items()
                if predictor.languages
            }
            calibrate(self.net, batch["ids"], batch["levels"], taught, gather, groups, context_of(batch))

    def sums(self, batch: Batch, output: Output) -> dict[int, Any]:
        """Returns each predictor's sums over this device's part of the batch, some with a gradient."""
        found, context = {}, context_of(batch)
        for s, predictor in self.predictors.items():
            decision = output.decisions[s]
            assert decision.log_odds is not None
            taught, open_, forced = None, decision.open, decision.forced & decision.valid
            if context is not None:  # which does not count
                own = ~context.gather(1, decision.at)
                open_, forced = open_ & own, forced & own
            if s in self.teachers:
                taught = deferred(marked(batch, s), decision.at, decision.valid)[open_]
            log_odds = decision.log_odds[open_]
            if predictor.languages:
                group = groups_of(predictor, self.languages, batch["languages"])
                here = group.gather(1, decision.at)
                sums = sums_of(predictor, here[open_], log_odds, log_odds > 0, taught, count(predictor, here, forced))
                found[s] = ByLanguage(sums, count(predictor, group, batch["sizes"]))
            else:
                found[s] = predictor.sums(log_odds, log_odds > 0, taught, forced.sum())
        return found

    def loss(self, local: Mapping[int, Any], totals: Mapping[int, Any], n_bytes: float) -> Tensor:
        """Returns this device's part of the predictors' losses, and notes what is to be logged.

        local, totals: by transition, the sums of this device and of all; n_bytes: read by all devices.
        """
        loss = torch.zeros((), device=self.net.head.weight.device)
        self.logged = {}
        for s, sums in local.items():
            total = pytree.tree_map(lambda all_, own: all_.to(own.detach()), totals[s], sums)
            predictor = self.predictors[s]
            read: Any = n_bytes
            if isinstance(total, ByLanguage):
                sums, (total, read) = sums.sums, total
            self._totals[s] = total, read
            loss = loss + predictor.loss(sums, total, read)
            named = predictor.report(total) | {"splitter_loss": float(predictor.loss(total, total, read).detach())}
            named |= {"splitter_bias": float(predictor.bias.detach()), "collapsed": self._watch(s, total, read)}
            self.logged |= {f"{name}_stage{s + 2}": value for name, value in named.items()}
        return loss

    def adjust(self) -> None:
        """After a step: lets each predictor correct what no gradient does."""
        for s, (total, n_bytes) in self._totals.items():
            self.predictors[s].adjust(total, n_bytes)

    def _watch(self, s: int, total: Any, n_bytes: Any) -> float:
        """Returns whether a splitter has collapsed to nearly all or no positions, as 0 or 1, and warns of it."""
        predictor = self.predictors[s]
        n, found = predictor.decided(total)
        wanted = predictor.wanted(total, n_bytes)
        if wanted > NEARLY_ALL * n > 0 and s not in self.warned_of_target:
            self.warned_of_target.add(s)
            rank_zero_warn(
                f"the splitter below stage {s + 2} targets {wanted:.0f} boundaries among {n:.0f} positions, so almost "
                "every position becomes its own unit: ask for longer units (bytes_per_unit), or shorter ones in the "
                "stage below"
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
