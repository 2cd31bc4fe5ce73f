"""The pieces of a BPE vocabulary, found by walking a trie of bytes.

A tokenizer depends on later text; a walk does not. It descends the trie greedily while the text continues some entry.
Where it dies, a boundary falls, and the walk restarts at the root with the same byte. It never backtracks, so a unit
can be the beginning of an entry that the text does not complete. Entries are bytes, so the walk can die inside a
character, or at its first byte: the boundary moves to that character's last byte, unless `align: byte` leaves it.
"""

import hashlib
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from splitters.contract import Knob, Splitter, Stepper
from splitters.engine.compiled import compiled, walk_trie
from splitters.registry import register
from splitters.rules.utf8_character import align_bytes
from splitters.tokenizer_json import plain, read_file, token_bytes

SHIPPED = Path(__file__).parents[1] / "vocabularies" / "udhr-4096.json"
Edges = dict[int, int]  # node · 256 + byte → node, the root is 0


@register("trie")
class Trie(Splitter):
    """A boundary where the walk on the byte trie of a BPE vocabulary dies, because the text continues no entry.

    It falls on the last byte of the character at which the walk dies, with `align: byte` on the byte at which it dies,
    with `first` on the first byte of the next character.
    `vocabulary`: a Hugging Face tokenizers JSON, such as `aunet vocabulary` trains; the default is a small one of 24
    languages. Raises ValueError for a file that cannot be read as a tokenizers JSON.
    """

    source = "byte-trie BPE"
    knob = Knob("vocabulary", 257, 1 << 17, entries=True)
    files = ("vocabulary",)

    def __init__(self, vocabulary: str | None = None, align: Literal["byte", "last", "first"] = "last") -> None:
        if not isinstance(vocabulary, str | None):
            raise ValueError(f"trie: vocabulary is {vocabulary!r}, it must be the path of a tokenizers JSON")
        self.vocabulary = vocabulary
        walk = _Walk(Path(vocabulary) if vocabulary is not None else SHIPPED)
        self.rule = align_bytes("trie", walk, align)

    def split(self, data: bytes) -> np.ndarray:
        return self.rule.split(data)

    def stepper(self) -> Stepper:
        return self.rule.stepper()


class _Walk(Splitter):
    def __init__(self, vocabulary: Path) -> None:
        self.entries = frozenset(entries(vocabulary))
        self.edges = edges_of(self.entries)

    def identity(self) -> bytes:
        return hashlib.sha256(repr(sorted(self.entries)).encode()).digest()

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The trie in the form of `compiled.walk_trie`."""
        keys = np.array(sorted(self.edges), np.int64)
        children = np.array([self.edges[key] for key in keys.tolist()], np.int32)
        first = np.searchsorted(keys >> 8, np.arange(len(keys) + 3)).astype(np.int32)  # nodes, `lost`, and an end
        return first, (keys & 255).astype(np.uint8), children

    def split(self, data: bytes) -> np.ndarray:
        return compiled(walk_trie)(np.frombuffer(data, np.uint8), *self._arrays)

    def stepper(self) -> Stepper:
        return _WalkStepper(self.edges)


class _WalkStepper(Stepper):
    def __init__(self, edges: Edges) -> None:
        self.edges, self.node, self.lost = edges, 0, len(edges) + 1

    def push(self, byte: int) -> bool:
        before = self.node
        node = self.edges.get(before << 8 | byte)
        if node is not None:
            self.node = node
            return False
        self.node = self.edges.get(byte, self.lost)  # lost: no entry begins with this byte, so it is its own piece
        return before != 0

    def __deepcopy__(self, memo: dict) -> "_WalkStepper":
        copy = _WalkStepper(self.edges)  # edges are shared, only the node is copied
        copy.node = self.node
        return copy


@lru_cache(maxsize=4)
def edges_of(vocabulary: frozenset[bytes]) -> Edges:
    """Returns the edges of the trie of all entries."""
    edges: Edges = {}
    for entry in sorted(vocabulary):
        node = 0
        for byte in entry:
            node = edges.setdefault(node << 8 | byte, len(edges) + 1)
    return edges


def entries(path: str | Path) -> list[bytes]:
    """Returns the vocabulary of a tokenizers JSON as bytes, without special tokens.

    Raises ValueError, naming the file, if it is not a tokenizers JSON with a BPE model.
    """
    fields = plain(read_file(path, "trie"), str(path), "trie")
    return [entry for _, entry in token_bytes(fields, str(path), "trie")]
