"""Tokens merged until their mean length is the wanted one."""

from heapq import heappop, heappush

import numpy as np

from splitters.contract import number
from splitters.engine.compiled import compiled
from splitters.registry import register
from splitters.rules.trie import SHIPPED
from splitters.teachers.spans import At, SpanTeacher
from splitters.teachers.tokenizer import TokenTeacher


@register("bpe_merged")
class BpeMerged(SpanTeacher):
    """Tokens of a tokenizers JSON, merged as BPE merges until units have `bytes_per_unit` bytes in the mean of a text.

    The most frequent pair of neighbours in the text is merged first; among pairs as frequent, the one of fewest bytes,
    then the one that comes first. The last pair is merged from the left until there are few enough units. A text whose
    tokens are that long already keeps them. `file` is the path of the tokenizers JSON; the default is the small one of
    24 languages that comes along. Raises ValueError as the teacher `tokenizer` does.
    """

    source = "Bolmo, arXiv 2512.15586"

    def __init__(self, bytes_per_unit: float = 8, file: str | None = None, at: At = "end") -> None:
        super().__init__("bpe_merged", at)
        self.bytes_per_unit = number("teacher bpe_merged", "bytes_per_unit", bytes_per_unit, least=1)
        self.tokens = TokenTeacher(str(SHIPPED) if file is None else file, at)

    def spans(self, text: str) -> np.ndarray:
        spans = self.tokens.spans(text)
        places = spans[:, 0] if self.at == "start" else spans[:, 1] - 1
        spans = spans[np.unique(places, return_index=True)[1]]  # one of the tokens inside a character
        n_units = max(round(len(text.encode()) / self.bytes_per_unit), 1)
        if len(spans) <= n_units:
            return spans
        pieces = [text[begin:end] for begin, end in spans.tolist()]
        numbers = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
        symbols = np.array([numbers[piece] for piece in pieces], np.int64)
        sizes = np.array([len(piece.encode()) for piece in pieces], np.int64)
        begins = np.flatnonzero(compiled(merge_pairs)(symbols, sizes, n_units))
        ends = np.append(begins[1:], len(spans)) - 1
        return np.stack([spans[begins, 0], spans[ends, 1]], axis=1)


def merge_pairs(symbols: np.ndarray, sizes: np.ndarray, n_units: int) -> np.ndarray:
    """Merges neighbours, the most frequent pair of `symbols` first, until `n_units` units are left.

    symbols, sizes: int64 [n], numbers below n and the bytes of each. Returns bool [n]: whether a unit begins there.
    """
    n = len(symbols)
    symbol, size, left = symbols.copy(), sizes.copy(), n
    begins = np.ones(n, np.bool_)
    before, after = np.arange(-1, n - 1), np.arange(1, n + 1)  # the unit on either side
    pair = np.full(n, -1)  # what each unit and the next one make, by its number
    numbers = {np.int64(-1): 0}  # of pairs, by their symbols; none has 0
    count, length, first, last = np.zeros((4, 3 * n), np.int64)  # of each pair; where its places begin and end:
    place, link = np.zeros((2, 3 * n), np.int64)  # in `place`, and from each to the next one. 0 is none
    n_places = 1
    heap: list = [(np.int64(0), np.int64(0), np.int64(0), np.int64(0))][:0]  # pairs, the best first, as `now` below
    changed = list(range(n))
    while True:
        known = len(numbers)
        for at in changed:
            if begins[at] and pair[at] < 0 and after[at] < n:
                which = numbers.setdefault(symbol[at] * 4 * n + symbol[after[at]], len(numbers))
                if not first[which]:
                    first[which], length[which] = n_places, size[at] + size[after[at]]
                pair[at], place[n_places] = which, at
                link[last[which]], last[which] = n_places, n_places
                count[which] += 1
                n_places += 1
        for new in range(known, len(numbers)):
            heappush(heap, (-count[new], length[new], place[first[new]], np.int64(new)))
        while True:  # what has changed since it was put in goes back
            key = heappop(heap)
            which = key[3]
            while count[which] and pair[place[first[which]]] != which:
                first[which] = link[first[which]]
            now = (-count[which], length[which], place[first[which]], which)
            if now == key:
                break
            if count[which]:
                heappush(heap, now)
        changed.clear()
        at_place = first[which]
        while at_place:
            at = place[at_place]
            at_place = link[at_place]
            if pair[at] == which:
                for other in (before[at], at, after[at]):
                    if other >= 0 and pair[other] >= 0:
                        count[pair[other]] -= 1
                        pair[other] = -1
                begins[after[at]] = False
                symbol[at], size[at] = n + which, size[at] + size[after[at]]
                after[at] = after[after[at]]
                if after[at] < n:
                    before[after[at]] = at
                changed.append(max(before[at], 0))
                changed.append(at)
                left -= 1
                if left == n_units:
                    return begins
