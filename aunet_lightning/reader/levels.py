"""Levels of text: per byte, how many stages up its vector goes."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

AROUND = 2  # ids around a document's text: BOS and EOS


class Levels(Protocol):
    """Gives levels: a stack of rules, a reader, or a trained model."""

    @property
    def depth(self) -> int:
        """The highest level."""

    def levels(self, data: bytes) -> np.ndarray:
        """Returns uint8 [len(data)]."""


class FixedLevels:
    """Levels of some texts, as they were recorded. Raises KeyError for other texts."""

    def __init__(self, depth: int, by_text: Mapping[str, Sequence[int]]) -> None:
        self.depth, self.by_text = depth, by_text

    def levels(self, data: bytes) -> np.ndarray:
        return np.array(self.by_text[data.decode("utf-8", "surrogateescape")], np.uint8)


def at_start(levels: np.ndarray, depth: int) -> np.ndarray:
    """levels uint8 [n] of a row → the same with the highest at its first position: a stream begins at every stage."""
    return np.where(np.arange(len(levels)) == 0, depth, levels)


def of_document(levels: np.ndarray, depth: int) -> np.ndarray:
    """levels uint8 [n] of a document's text → uint8 [n + 2] with BOS and EOS: a document begins at every stage, so BOS
    has the highest level; EOS begins nothing."""
    around = np.zeros(len(levels) + AROUND, np.uint8)
    around[0], around[1:-1] = depth, levels
    return around
