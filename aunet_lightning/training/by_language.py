"""Sums of a learned splitter by language, where it has a target of its own for some.

Shapes: B rows, L bytes of the batch, N positions of a stage, M positions on one device, G groups of text: each of the
splitter's languages, and all others.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from splitters.learned.predictor import Predictor


class ByLanguage(NamedTuple):
    """What a predictor sums up, and bytes of text: each tensors [G]."""

    sums: Any
    bytes: Tensor


def groups_of(predictor: Predictor, names: Sequence[str], languages: Tensor) -> Tensor:
    """Returns the group of each target's language (int64 of any shape, an index into `names`), -1 where it has none."""
    known = {name: number for number, name in enumerate(predictor.languages)}
    table = [*(known.get(name, len(known)) for name in names), -1]  # the last: of language -1
    return languages.new_tensor(table)[languages]


def sums_of(
    predictor: Predictor, group: Tensor, log_odds: Tensor, boundary: Tensor, taught: Tensor | None, forced: Tensor
) -> Any:
    """Returns `Predictor.sums` of each group, their tensors stacked to [G].

    group [M]: of each position where it decides; log_odds, boundary, taught [M], as there; forced [G].
    """
    parts = []
    for g in range(len(predictor.languages) + 1):
        mine = group == g
        of_mine = taught[mine] if taught is not None else None
        parts.append(predictor.sums(log_odds[mine], boundary[mine], of_mine, forced[g]))
    return pytree.tree_map(lambda *of_groups: torch.stack(of_groups), *parts)


def count(predictor: Predictor, group: Tensor, what: Tensor) -> Tensor:
    """Returns the sum of `what` over the positions of each group, [G]; group: of the same shape."""
    found = what.new_zeros(len(predictor.languages) + 1, dtype=torch.long)
    return found.index_add(0, group[group >= 0], what[group >= 0].long())
