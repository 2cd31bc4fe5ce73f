"""Decisions in float64, so that they are the same everywhere.

A learned boundary is where a score passes 0, and in float32 a score differs in the seventh digit with the shape of a
call: with the rows beside it, and between reading at once and stepping. One boundary in a million then flips, and the
text after it is another. In float64 the difference is 1e9 times smaller. Training decides in the type of its weights.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import TypeVar, cast

from torch import nn

M = TypeVar("M", bound=nn.Module)


class Exact:
    """float64 copies of modules, made anew when their weights have changed. A fused optimizer changes them unnoticed,
    so the network says when it trains: `forget`."""

    def __init__(self) -> None:
        self._copies: dict[nn.Module, tuple[list[tuple[int, int]], nn.Module]] = {}

    def __deepcopy__(self, memo: object) -> Exact:
        return Exact()

    def forget(self) -> None:
        self._copies.clear()

    def of(self, module: M) -> M:
        now = [(t.data_ptr(), t._version) for t in chain(module.parameters(), module.buffers())]
        known = self._copies.get(module)
        if known is None or known[0] != now:
            known = self._copies[module] = (now, copy.deepcopy(module).double().requires_grad_(False))
        return cast(M, known[1])
