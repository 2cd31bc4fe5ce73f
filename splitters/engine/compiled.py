"""Loops over bytes, compiled by numba on first use. Each is also a plain Python function, the reference in tests."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np


@lru_cache(maxsize=8)
def compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `loop` compiled. The machine code is cached beside this file, or in the user's cache directory."""
    import numba  # on demand: loading it takes as long as everything else together

    try:
        return numba.njit(nogil=True, cache=True)(loop)
    except RuntimeError:  # no writable directory for the cache
        return numba.njit(nogil=True)(loop)


def run_tables(
    data: np.ndarray, next_byte: np.ndarray, symbol: np.ndarray, next_rule: np.ndarray, fires: np.ndarray
) -> np.ndarray:
    """Runs two automata in a row: bytes to symbols, symbols to boundaries. Returns bool [len(data)]."""
    out = np.empty(len(data), np.bool_)
    byte_state = rule_state = 0
    for i in range(len(data)):
        at = byte_state + data[i]
        byte_state = next_byte[at]
        at = rule_state + symbol[at]
        rule_state = next_rule[at]
        out[i] = fires[at]
    return out


def walk_trie(data: np.ndarray, first: np.ndarray, byte: np.ndarray, child: np.ndarray) -> np.ndarray:
    """Walks a trie from node 0 (the root) and restarts where the walk dies. Returns bool [len(data)], True there.

    The children of node v are `child[first[v]:first[v + 1]]`, reached by the sorted `byte` of the same slice. The
    last node has no children: bytes for which the root has no child lead there.
    """
    out = np.zeros(len(data), np.bool_)
    node = 0
    for i in range(len(data)):
        while True:
            low, high = first[node], first[node + 1]
            end = high
            while low < high:
                middle = (low + high) // 2
                if byte[middle] < data[i]:
                    low = middle + 1
                else:
                    high = middle
            if low < end and byte[low] == data[i]:
                node = child[low]
                break
            if node == 0:
                node = len(first) - 2
                break
            node = 0
            out[i] = True
    return out


def keep_at_least(units: np.ndarray, least: int, mean: bool) -> np.ndarray:
    """Keeps the `units` [L] that end at least `least` bytes (or so many in the mean). Returns bool [L]."""
    out = np.zeros(len(units), np.bool_)
    length = 0
    for i in range(len(units)):
        length += 1
        if units[i] and length >= least:
            out[i] = True
            length = length - least if mean else 0
    return out


def cut_characters(fires: np.ndarray, ends: np.ndarray, most: int) -> np.ndarray:
    """Adds to the boundaries `fires` those at characters that a unit of `most` bytes has no room for.

    ends: bool [L], the last byte of each character. Returns bool [L].
    """
    out = fires.copy()
    length = size = 0  # of the open unit and of the character
    for i in range(len(fires)):
        size += 1
        if ends[i]:
            out[i] |= length + size > most
            length = size if out[i] else length + size
            size = 0
    return out
