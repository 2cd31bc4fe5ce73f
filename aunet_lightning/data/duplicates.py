"""Near-duplicates: texts that share most of their shingles, in any language and of any length.

A shingle is a stretch of SHINGLE bytes of a text in small letters, with single blanks. MinHash makes a sketch of a
text, HASHES numbers: the share of them that is equal in two sketches estimates the Jaccard index of two sets of
shingles, ±0.04. Locality-sensitive hashing finds the pairs to compare: those with a band of the sketch in common.
"""

import unicodedata
from collections.abc import Iterator
from math import ceil
from typing import IO

import numpy as np

from splitters.engine.compiled import compiled

SHINGLE, HASHES = 16, 128
PIECE = 1 << 20  # bytes of a text in memory in another form
BLOCK = 4096  # shingles that are hashed together
MISSED = 0.01  # of the pairs at the threshold, the share that has no band in common
FACTORS = np.random.Generator(np.random.Philox(0)).integers(1 << 63, 1 << 64, HASHES, np.uint64) | np.uint64(1)
MISSING = "pip install 'aunet-lightning[dedup]'"


class Sketches:
    """Sketches of texts in a file, 512 bytes a text. Raises ValueError where datasketch is missing."""

    def __init__(self, file: IO[bytes]) -> None:
        try:
            from datasketch import MinHash
        except ModuleNotFoundError:
            raise ValueError(
                f"near-duplicates need datasketch: {MISSING}, or give --jaccard 1, which finds equal texts alone"
            ) from None
        self._sketch = MinHash(HASHES, hashfunc=int)
        self._file = file

    def add(self, text: bytes) -> None:
        self._sketch.clear()
        for hashes in shingles(text):
            self._sketch.update_batch(hashes.tolist())
        self._file.write(self._sketch.hashvalues.tobytes())

    def clusters(self, jaccard: float) -> np.ndarray:
        """Returns int64 [n]: of each text the first of its cluster. A cluster is what pairs at the threshold `jaccard`
        or above connect, whatever the order of texts.

        Memory grows by about 100 bytes a text.
        """
        self._file.flush()
        sketches = np.memmap(self._file, np.uint32, "r").view(np.ndarray).reshape(-1, HASHES)
        first = np.arange(len(sketches))
        rows = rows_of_band(jaccard)
        for start in range(0, HASHES - rows + 1, rows):
            band = (sketches[:, start : start + rows] * FACTORS[:rows]).sum(1)
            order = np.argsort(band)
            compiled(connect)(order, band[order], sketches, ceil(jaccard * HASHES), first)
        while np.any((further := first[first]) != first):
            first = further
        return first


def normal(text: bytes) -> bytes:
    """Returns a text without differences that do not count: of case, of blanks, and of forms of one character."""
    folded = unicodedata.normalize("NFKC", text.decode("utf-8", "ignore")).casefold()
    return " ".join(folded.split()).encode()


def shingles(text: bytes) -> Iterator[np.ndarray]:
    """Yields hashes of the shingles of a text, uint32 [n], a block at a time; a short text is one shingle."""
    for start in range(0, max(len(text), 1), PIECE):
        data = normal(text[start : start + PIECE]).ljust(SHINGLE, b"\0")
        words = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))  # one begins at each byte
        hashes = words[:-8] * FACTORS[0]
        hashes ^= hashes >> np.uint64(32)
        hashes += words[8:]
        hashes *= FACTORS[1]
        for block in range(0, len(hashes), BLOCK):
            yield (hashes[block : block + BLOCK] >> np.uint64(32)).astype(np.uint32)


def rows_of_band(jaccard: float) -> int:
    """Returns how many hashes a band has: as many as may be without missing more than MISSED of pairs at `jaccard`."""
    return max(rows for rows in range(1, HASHES) if rows == 1 or (1 - jaccard**rows) ** (HASHES // rows) <= MISSED)


def connect(order: np.ndarray, band: np.ndarray, sketches: np.ndarray, least: int, first: np.ndarray) -> None:
    """Joins clusters of texts with the same band and `least` or more hashes in common.

    order: int64 [n], the texts by `band` [n]. first: int64 [n], of each text an earlier one of its cluster, or itself;
    changed in place.
    """
    begin = 0
    while begin < len(order):
        end = begin + 1
        while end < len(order) and band[end] == band[begin]:
            end += 1
        for i in range(begin, end - 1):
            one = order[i]
            while first[one] != one:
                one = first[one]
            apart = 0
            for j in range(i + 1, end):
                other = order[j]
                while first[other] != other:
                    first[other] = first[first[other]]
                    other = first[other]
                if one == other:
                    continue
                equal = 0
                for k in range(sketches.shape[1]):
                    equal += sketches[order[i], k] == sketches[order[j], k]
                if equal >= least:
                    first[max(one, other)] = min(one, other)
                    one = min(one, other)
                else:
                    apart += 1
            if not apart:
                break
        begin = end
