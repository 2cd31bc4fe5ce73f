"""Merges of a BPE that is fair to languages: each is chosen for the language whose text is compressed worst so far.

The rule is that of parity-aware BPE (arXiv 2508.04796, its base form): among the pairs of neighbours in the text of the
worst language, the most frequent one is merged, in the text of all languages. The worst is the one with the most tokens
per byte of its text, or, where a parallel text is given, with the most tokens for it: a byte carries different amounts
of meaning in each script, so only a parallel text compares languages by what they say. A language whose best pair
occurs once waits for all others. Of equally frequent pairs that of the smaller ids is merged, as in `tokenizers`.

Counts are kept up as merges are made. Shapes: N bytes of the distinct words of each language, M places of a merge.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from splitters.tokenizer_json import byte_letters

Words = Mapping[bytes, int]  # how often each occurs
ID_BITS = 21  # of an id in a key: language, left id, right id
ID, PAIR = (1 << ID_BITS) - 1, (1 << 2 * ID_BITS) - 1
NONE = -1  # the symbol of a place that is merged into the one before, and of the place outside of all words
OFTEN = 2  # how often a pair occurs from which there is something to learn


class Learned(NamedTuple):
    """A vocabulary as letters for bytes: entry → id, and the pairs of entries that were merged, in order."""

    entries: dict[str, int]
    merges: list[tuple[str, str]]


def learn(words: Mapping[str, Words], size: int, parallel: Mapping[str, Words] | None = None) -> Learned:
    """Returns a vocabulary of `size` entries, or as many as the words of these languages give.

    Raises ValueError where a language has no parallel text.
    """
    languages = sorted(words)
    if missing := [name for name in languages if parallel is not None and not parallel.get(name)]:
        raise ValueError(
            f"the parallel text has none of {', '.join(missing)}: give all languages of the text, or no parallel text"
        )
    text = _Text([words[name] for name in languages], None if parallel is None else [parallel[n] for n in languages])
    letters = sorted(byte_letters())
    entries = {letter: id_ for id_, letter in enumerate(letters)}
    names, merges = [*letters], list[tuple[str, str]]()
    with tqdm(total=size, initial=len(entries), desc="entries", unit="", leave=False, disable=None) as bar:
        while len(entries) < size and (pair := text.best()) is not None:
            left, right = names[pair[0]], names[pair[1]]
            id_ = entries.setdefault(left + right, len(names))
            if id_ == len(names):
                names.append(left + right)
                bar.update()
            merges.append((left, right))
            text.merge(*pair, id_)
    return Learned(entries, merges)


class _Text:
    """The distinct words of each language as symbols, and how often each pair of neighbours occurs in a language.

    A place is a number from 0 to N - 1; place N stands for what is before and after a word.
    """

    def __init__(self, words: Sequence[Words], parallel: Sequence[Words] | None) -> None:
        rows = [(one, word, n, n) for one, of in enumerate(words) for word, n in of.items()]
        if parallel is not None:
            rows = [(one, word, n, 0) for one, word, n, _ in rows]
            rows += [(one, word, 0, n) for one, of in enumerate(parallel) for word, n in of.items()]
        language, texts, learned, measured = zip(*rows, strict=True) if rows else ((), (), (), ())
        lengths = np.array([len(word) for word in texts], np.int64)
        ends, n = np.cumsum(lengths), int(lengths.sum())
        self.language, self.learned, self.measured = (np.array(of, np.int64) for of in (language, learned, measured))
        self.word = np.append(np.repeat(np.arange(len(rows), dtype=np.int32), lengths), np.int32(0))  # [N + 1]
        ids = np.empty(256, np.int32)
        ids[[byte_letters()[letter] for letter in sorted(byte_letters())]] = np.arange(256)
        self.symbol = np.append(ids[np.frombuffer(b"".join(texts), np.uint8)], np.int32(NONE))
        self.before, self.after = np.arange(-1, n, dtype=np.int32), np.arange(1, n + 2, dtype=np.int32)
        self.before[ends - lengths] = n
        self.after[ends - 1] = n
        self.none = n
        self.tokens = np.bincount(self.language, self.measured * lengths, len(words))
        # A parallel text says the same in all languages; of other text, tokens are counted per byte.
        self.scale = np.ones(len(words)) if parallel is not None else np.maximum(self.tokens, 1)
        self.count: dict[int, int] = {}
        self.places: dict[int, list[np.ndarray]] = {}  # where each pair began to be; it may be no more
        self.waiting: list[list[tuple[int, int]]] = [
            [] for _ in words
        ]  # heaps of (-count, pair), of at least now's count
        self._add(np.flatnonzero(self.after[:n] != n).astype(np.int32))

    def best(self) -> tuple[int, int] | None:
        """Returns the pair to merge, or None where no words have one."""
        once = None
        for language in np.argsort(-self.tokens / self.scale, kind="stable").tolist():
            if (found := self._most(language)) is not None:
                count, pair = found
                if count >= OFTEN:
                    return pair >> ID_BITS, pair & ID
                once = pair if once is None else once
        return None if once is None else (once >> ID_BITS, once & ID)

    def _most(self, language: int) -> tuple[int, int] | None:
        """Returns the count and the pair that is most frequent in a language; of several, that of the smaller ids."""
        heap = self.waiting[language]
        while heap:
            count, pair = -heap[0][0], heap[0][1]
            now = self.count.get(_key(language, pair), 0)
            if now == count:
                return count, pair
            heapq.heappop(heap)
            if 0 < now < count:  # else it stands elsewhere in the heap
                heapq.heappush(heap, (-now, pair))
        return None

    def merge(self, left: int, right: int, into: int) -> None:
        """Replaces each occurrence of a pair by one symbol, from the left in each word."""
        at = self._occurrences(left, right)  # [M]
        second, first = self.after[at], self.before[at]
        third = self.after[second]
        follows = np.append(third[:-1] == at[1:], False)  # the next one, at once
        alone = np.roll(~follows, 1)  # it follows none
        self._remove(first[alone])
        self._remove(second)
        self.tokens -= np.bincount(self.language[self.word[at]], self.measured[self.word[at]], len(self.tokens))
        self.symbol[at], self.symbol[second] = into, NONE
        self.after[at], self.before[third] = third, at
        for language in range(len(self.waiting)):
            self.count.pop(_key(language, left << ID_BITS | right), None)
        self._add(np.concatenate([first[alone], at[third != self.none]]))

    def _occurrences(self, left: int, right: int) -> np.ndarray:
        """Returns the places where a pair begins, in order; of those that overlap, every other one."""
        pair = left << ID_BITS | right
        found = [part for one in range(len(self.waiting)) for part in self.places.pop(_key(one, pair), ())]
        at = np.sort(np.concatenate(found))
        at = at[(self.symbol[at] == left) & (self.symbol[self.after[at]] == right)]
        if left == right:
            overlaps = np.append(False, self.after[at[:-1]] == at[1:])
            runs = np.flatnonzero(~overlaps)
            at = at[(np.arange(len(at)) - np.repeat(runs, np.diff(np.append(runs, len(at))))) % 2 == 0]
        return at

    def _add(self, at: np.ndarray) -> None:
        """Counts the pairs that begin at these places, and remembers the places."""
        keys, at, bounds, counts = self._grouped(at[at != self.none])
        for key, (begin, end), count in zip(keys, pairwise(bounds), counts, strict=True):
            self.places.setdefault(key, []).append(at[begin:end])
            if count:
                self.count[key] = count = self.count.get(key, 0) + count
                heapq.heappush(self.waiting[key >> 2 * ID_BITS], (-count, key & PAIR))

    def _remove(self, at: np.ndarray) -> None:
        """Counts the pairs that begin at these places no more."""
        at = at[at != self.none]
        keys, _, _, counts = self._grouped(at[self.after[at] != self.none])
        for key, count in zip(keys, counts, strict=True):
            self.count[key] = self.count.get(key, 0) - count

    def _grouped(self, at: np.ndarray) -> tuple[list[int], np.ndarray, list[int], list[int]]:
        """Returns the keys of the pairs that begin at places [n], in order; the places, sorted by them; the bounds
        [keys + 1] of the places of each key; and how often each pair occurs there in the text that is learned from."""
        if not len(at):
            return [], at, [0], []
        keys = self.language[self.word[at]] << 2 * ID_BITS
        keys |= self.symbol[at].astype(np.int64) << ID_BITS
        keys |= self.symbol[self.after[at]]
        order = np.argsort(keys, kind="stable")
        keys, at = keys[order], at[order]
        begins = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        counts = np.add.reduceat(self.learned[self.word[at]], begins)
        return keys[begins].tolist(), at, [*begins.tolist(), len(at)], counts.tolist()


def gini(costs: Sequence[float]) -> float:
    """Returns the Gini coefficient of what each language pays: 0 where all pay the same, near 1 where one pays all."""
    paid = np.sort(np.array(costs, float))
    ranks = 2 * np.arange(1, len(paid) + 1) - len(paid) - 1
    return float((ranks * paid).sum() / (len(paid) * paid.sum()))


def _key(language: int, pair: int) -> int:
    return language << 2 * ID_BITS | pair
