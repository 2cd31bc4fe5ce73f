"""The reader of a run: how text becomes ids and levels, and ids become text.

Made once from the settings `splitter`, `upper_splitters` and `tokenizer`, and handed to data, model, generation and
reports. Ids 0–255 are bytes, then BOS and EOS; a reader of tokens has further ids for entries of several bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from aunet_lightning.reader.bpe import MERGES
from aunet_lightning.reader.levels import of_document
from aunet_lightning.reader.tokens import Tokenizer, TokenizerSpec, check_tokenizer
from aunet_lightning.vocabulary import BYTES, N_BYTES, SIZES, VOCABULARY
from splitters import Stack

Rule = str | dict[str, Any]  # a splitter in YAML


class Reader(ABC):
    """How a run reads text. `rules` are the splitters as the settings name them, `stack` what they are built into."""

    rules: list[Rule]
    stack: Stack  # one splitter per stage transition of the model
    tokenizer: Tokenizer | None = None
    size: int = VOCABULARY  # ids of a model that reads so

    @property
    @abstractmethod
    def bytes_of(self) -> Sequence[bytes]:
        """The text of each id; of BOS and EOS, none."""

    @property
    @abstractmethod
    def sizes(self) -> np.ndarray:
        """int16 [ids]: bytes of text of each id."""

    @abstractmethod
    def encode(self, texts: Sequence[bytes]) -> list[np.ndarray]:
        """Returns the ids of each text, without BOS and EOS."""

    def decode(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """Returns the text of some ids."""
        return b"".join(self.bytes_of[int(i)] for i in ids)

    def document_levels(self, ids: np.ndarray) -> np.ndarray:
        """Returns uint8 [len + 2]: the levels of a document's ids with BOS and EOS, as far as bytes determine them."""
        return of_document(self.stack.levels(ids.astype(np.uint8).tobytes()), self.stack.depth)

    @property
    def tokenizer_json(self) -> str | None:
        """The tokenizers JSON, as checkpoints keep it; None where bytes are read."""
        return self.tokenizer.fields if self.tokenizer is not None else None

    def reads_as(self, tokenizer_json: str | None) -> bool:
        """Returns whether its ids are those of a checkpoint's vocabulary. (A model of bytes has no other.)"""
        return self.tokenizer is None or self.tokenizer.same_as(tokenizer_json)

    # As `Levels`, so that pictures show any reader's units.

    @property
    @abstractmethod
    def depth(self) -> int:
        """The highest level of `levels`: of a stack its transitions, of tokens 1."""

    @abstractmethod
    def levels(self, data: bytes) -> np.ndarray:
        """Returns uint8 [len(data)], of a text without BOS and EOS."""

    def fit(self, train: Callable[[int, str], Tokenizer]) -> None:  # noqa: B027 (bytes need nothing)
        """Once the training text is known: has a vocabulary of so many entries, and such merges, trained by `train`."""


class ByteReader(Reader):
    """Bytes, with one splitter per stage transition."""

    def __init__(self, rules: Sequence[Any]) -> None:
        self.rules = list(rules)
        self.stack = Stack(rules)

    @property
    def bytes_of(self) -> Sequence[bytes]:
        return BYTES

    @property
    def sizes(self) -> np.ndarray:
        return np.array(SIZES, np.int16)

    def encode(self, texts: Sequence[bytes]) -> list[np.ndarray]:
        return [np.frombuffer(text, np.uint8) for text in texts]

    @property
    def depth(self) -> int:
        return self.stack.depth

    def levels(self, data: bytes) -> np.ndarray:
        return self.stack.levels(data)


class TokenReader(Reader):
    """Tokens of a BPE, for the baseline: a model of one stage reads them in place of bytes.

    spec: the path of a tokenizers JSON, {vocab_size: n, merges: …} to train one on the training text, or a `Tokenizer`.
    """

    def __init__(self, spec: TokenizerSpec | Tokenizer) -> None:
        self.rules, self.stack = [], Stack([])
        self.vocab_size, self.merges = 0, MERGES[0]
        if isinstance(spec, dict):
            self.vocab_size, self.merges = int(spec["vocab_size"]), str(spec.get("merges", self.merges))
            self.size = self.vocab_size - N_BYTES + VOCABULARY
        else:
            self.tokenizer = spec if isinstance(spec, Tokenizer) else Tokenizer.from_file(spec)
            self.size = self.tokenizer.size

    def fit(self, train: Callable[[int, str], Tokenizer]) -> None:
        self.tokenizer = self.tokenizer or train(self.vocab_size, self.merges)

    @property
    def _tokens(self) -> Tokenizer:
        if self.tokenizer is None:
            raise ValueError("tokenizer: its vocabulary is not trained yet: set up the data first")
        return self.tokenizer

    @property
    def bytes_of(self) -> Sequence[bytes]:
        return self._tokens.bytes

    @property
    def sizes(self) -> np.ndarray:
        return self._tokens.sizes

    def encode(self, texts: Sequence[bytes]) -> list[np.ndarray]:
        return self._tokens.encode(texts)

    def document_levels(self, ids: np.ndarray) -> np.ndarray:
        return np.zeros(len(ids) + 2, np.uint8)  # tokens are not pooled

    @property
    def depth(self) -> int:
        return 1

    def levels(self, data: bytes) -> np.ndarray:
        """Returns uint8 [len(data)]: 1 where a token begins."""
        levels = np.zeros(len(data), np.uint8)
        sizes = self.sizes[self.encode([data])[0]].astype(np.int64)
        levels[np.cumsum(sizes) - sizes] = 1
        return levels


def reader_of(
    splitter: Rule | None, upper_splitters: Sequence[Rule] | None = None, tokenizer: TokenizerSpec | None = None
) -> Reader:
    """Returns the reader of these settings. Raises ValueError where they contradict each other or cannot be built."""
    if splitter is None and upper_splitters:
        raise ValueError("upper_splitters needs a splitter below it: name one, or leave both out for one stage")
    check_tokenizer(tokenizer)
    if tokenizer is None:
        return ByteReader([] if splitter is None else [splitter, *(upper_splitters or [])])
    if splitter is not None:
        raise ValueError(f"tokenizer: tokens are not pooled, so splitter must be null and not {splitter!r}")
    return TokenReader(tokenizer)


def reader_from(rules: Sequence[Any], tokenizer_json: str | None, name: str) -> Reader:
    """Returns the reader that a checkpoint describes; `name` is what errors call it."""
    return TokenReader(Tokenizer(tokenizer_json, name)) if tokenizer_json else ByteReader(rules)


def vocabulary_size(tokenizer: TokenizerSpec | None) -> int:
    """Returns how many ids a model has that reads so: bytes, BOS, EOS and tokens of several bytes."""
    return reader_of(None, None, tokenizer).size
