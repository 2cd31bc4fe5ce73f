"""The pieces of a BPE vocabulary, found by walking a trie of bytes.

A tokenizer decides by what comes later; a walk does not. It goes down the trie as long as some entry
goes on like the text (greedy longest match), and where it dies a boundary falls, and it starts again
at the root with the same byte. As entries are bytes, it can die inside a character, or at the first
byte of one: the boundary falls on that character's last byte, unless `align: byte` leaves it there.
"""

import json
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from splitters.compiled import compiled, walk_trie
from splitters.contract import Splitter, Stepper, one_of
from splitters.registry import register
from splitters.utf8_character import AtLastByte

SHIPPED = Path(__file__).parent / "vocabularies" / "udhr-4096.json"
Edges = dict[int, int]  # node · 256 + byte → node, the root is 0


@register("trie")
class Trie(Splitter):
    """A boundary where the walk on the byte trie of a BPE vocabulary dies: greedy longest match.

    It falls on the last byte of the character at which the walk dies, with `align: byte` on the very byte.
    `vocabulary`: a Hugging Face tokenizers JSON, such as `aunet vocabulary` trains; left out, a small one of 24
    languages. Raises ValueError for a file that cannot be read as one.
    """

    source = "byte-trie BPE"

    def __init__(self, vocabulary: str | None = None, align: Literal["byte", "character"] = "character") -> None:
        self.vocabulary = vocabulary
        self.align = one_of("trie", "align", align, ("byte", "character"))
        walk = _Walk(Path(vocabulary) if vocabulary is not None else SHIPPED)
        self.rule = AtLastByte(walk) if align == "character" else walk

    def split(self, data: bytes) -> np.ndarray:
        return self.rule.split(data)

    def stepper(self) -> Stepper:
        return self.rule.stepper()


class _Walk(Splitter):
    def __init__(self, vocabulary: Path) -> None:
        self.edges = edges_of(frozenset(entries(vocabulary)))

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The trie as `compiled.walk_trie` reads it."""
        keys = np.array(sorted(self.edges), np.int64)
        children = np.array([self.edges[key] for key in keys.tolist()], np.int32)
        first = np.searchsorted(keys >> 8, np.arange(len(keys) + 2)).astype(np.int32)
        return first, (keys & 255).astype(np.uint8), children

    def split(self, data: bytes) -> np.ndarray:
        return compiled(walk_trie)(np.frombuffer(data, np.uint8), *self._arrays)

    def stepper(self) -> Stepper:
        return _WalkStepper(self.edges)


class _WalkStepper(Stepper):
    def __init__(self, edges: Edges) -> None:
        self.edges, self.node = edges, 0

    def push(self, byte: int) -> bool:
        before = self.node
        node = self.edges.get(before << 8 | byte)
        if node is not None:
            self.node = node
            return False
        self.node = self.edges.get(byte, 0)
        return before != 0

    def __deepcopy__(self, memo: dict) -> "_WalkStepper":
        copy = _WalkStepper(self.edges)  # shared: only the place moves
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


def entries(path: Path) -> list[bytes]:
    """Returns the vocabulary of a tokenizers JSON as bytes, without special tokens.

    Reads what a byte-level BPE writes (GPT-2's letters for bytes) and what a SentencePiece BPE does
    (▁ for a blank, <0x0A> for a byte). Raises ValueError for anything else, naming the file.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = list(fields["model"]["vocab"])
        special = {token["content"] for token in fields.get("added_tokens", []) if token.get("special", True)}
    except OSError as error:
        raise ValueError(f"trie: the vocabulary {str(path)!r} cannot be read ({error})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"trie: {str(path)!r} is no tokenizers JSON with a model.vocab ({type(error).__name__}: {error}): "
            "train one with aunet vocabulary, or save one with Tokenizer.save"
        ) from None
    if fields["model"].get("type", "BPE") != "BPE" or not all(isinstance(token, str) for token in vocabulary):
        raise ValueError(f"trie: {str(path)!r} holds a model of type {fields['model'].get('type')!r}, not a BPE")
    tokens = [token for token in vocabulary if token not in special]
    found = [_from_letters(token) for token in tokens] if _is_byte_level(fields) else [*map(_from_piece, tokens)]
    if not any(found):
        raise ValueError(f"trie: the vocabulary of {str(path)!r} is empty")
    return [entry for entry in found if entry]


def _is_byte_level(fields: dict[str, Any]) -> bool:
    return any('"ByteLevel"' in json.dumps(fields.get(part)) for part in ("pre_tokenizer", "decoder"))


@lru_cache(maxsize=1)
def _byte_letters() -> dict[str, int]:
    """GPT-2's letters for bytes: printable Latin-1 stands for itself, the rest is moved past U+0100 in its order."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(0x100 + i): byte for i, byte in enumerate(hidden)}


def _from_letters(token: str) -> bytes:
    letters = _byte_letters()
    return bytes(letters[letter] for letter in token) if all(letter in letters for letter in token) else b""


def _from_piece(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()
