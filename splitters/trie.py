"""The pieces of a BPE vocabulary, found by walking a trie of bytes.

A tokenizer decides by what comes later; a walk does not. It goes down the trie, greedily, as long as
some entry goes on like the text, and where it dies a boundary falls, and it starts again at the root
with the same byte. (So a unit can be the beginning of an entry: nothing is taken back.) As entries are
bytes, it can die inside a character, or at the first byte of one: the boundary falls on that
character's last byte, unless `align: byte` leaves it there.
"""

import hashlib
import json
import re
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from splitters.compiled import compiled, walk_trie
from splitters.contract import Splitter, Stepper, one_of
from splitters.registry import register
from splitters.utf8_character import AtLastByte

PARTS = ("normalizer", "pre_tokenizer", "decoder")  # of a tokenizers JSON
SHIPPED = Path(__file__).parent / "vocabularies" / "udhr-4096.json"
Edges = dict[int, int]  # node · 256 + byte → node, the root is 0


@register("trie")
class Trie(Splitter):
    """A boundary where the walk on the byte trie of a BPE vocabulary dies, as no entry goes on like the text.

    It falls on the last byte of the character at which the walk dies, with `align: byte` on the very byte.
    `vocabulary`: a Hugging Face tokenizers JSON, such as `aunet vocabulary` trains; left out, a small one of 24
    languages. Raises ValueError for a file that cannot be read as one.
    """

    source = "byte-trie BPE"

    def __init__(self, vocabulary: str | None = None, align: Literal["byte", "character"] = "character") -> None:
        if not isinstance(vocabulary, str | None):
            raise ValueError(f"trie: vocabulary is {vocabulary!r}, it must be the path of a tokenizers JSON")
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
        self.entries = frozenset(entries(vocabulary))
        self.edges = edges_of(self.entries)

    def identity(self) -> bytes:
        return hashlib.sha256(repr(sorted(self.entries)).encode()).digest()

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The trie as `compiled.walk_trie` reads it."""
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
        self.node = self.edges.get(byte, self.lost)  # lost: no entry begins with this byte, so it is a piece of its own
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

    Raises ValueError for what `token_bytes` does not read, naming the file.
    """
    try:
        fields = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"trie: the vocabulary {str(path)!r} cannot be read ({error})") from None
    except ValueError as error:
        raise ValueError(f"trie: {str(path)!r} is no text ({error})") from None
    return [entry for _, entry in token_bytes(fields, str(path), "trie")]


def token_bytes(fields: str, name: str, what: str = "tokenizer") -> list[tuple[int, bytes]]:
    """Returns (id, bytes) of each token of a tokenizers JSON, without special tokens and empty ones.

    Reads what a byte-level BPE writes (GPT-2's letters for bytes) and what a SentencePiece BPE does
    (▁ for a blank, <0x0A> for a byte). Raises ValueError for anything else, which `name` calls.
    """
    try:
        parsed = json.loads(fields)
        model, added = dict(parsed["model"]), parsed.get("added_tokens") or []
        if model.get("type", "BPE" if "merges" in model else "WordPiece") != "BPE":
            raise ValueError(f"its model is a {model.get('type', 'WordPiece')}, not a BPE")
        for affix in ("end_of_word_suffix", "continuing_subword_prefix"):
            if model.get(affix):
                raise ValueError(f"its {affix} {model[affix]!r} marks what is no text")
        special = {token["content"] for token in added if token.get("special", True)}
        read = _from_letters if _is_byte_level(parsed) else partial(_from_piece, blank=_blank_of(parsed))
        found = [(id_, read(token)) for token, id_ in dict(model["vocab"]).items() if token not in special]
        found += [(token.get("id"), token["content"].encode()) for token in added if not token.get("special", True)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{what}: {name!r} is no tokenizers JSON with a BPE model ({type(error).__name__}: {error}): "
            "train one with aunet vocabulary, or save one with Tokenizer.save"
        ) from None
    found = [(id_, entry) for id_, entry in found if entry]
    if not found:
        raise ValueError(f"{what}: the vocabulary of {name!r} is empty")
    return found


def _is_byte_level(fields: dict[str, Any]) -> bool:
    return any('"ByteLevel"' in json.dumps(fields.get(part)) for part in PARTS)


def _blank_of(fields: dict[str, Any]) -> str:
    """Returns what stands for a blank: ▁, or the Metaspace's own replacement."""
    found = re.search(r'"Metaspace"[^{}]*"replacement": "(.)"', json.dumps(fields, ensure_ascii=False))
    return found[1] if found else "▁"


@lru_cache(maxsize=1)
def _byte_letters() -> dict[str, int]:
    """GPT-2's letters for bytes: printable Latin-1 stands for itself, the rest is moved past U+0100 in its order."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(0x100 + i): byte for i, byte in enumerate(hidden)}


def _from_letters(token: str) -> bytes:
    letters = _byte_letters()
    return bytes(letters[letter] for letter in token) if all(letter in letters for letter in token) else b""


def _from_piece(token: str, blank: str) -> bytes:
    if byte := re.fullmatch("<0x([0-9A-Fa-f]{2})>", token):
        return bytes([int(byte[1], 16)])
    return token.replace(blank, " ").encode()
