"""Text as tokens of a BPE vocabulary, for the baseline that reads them in place of bytes.

Byte ids stay what they are: a token of one byte has that byte's id, BOS and EOS theirs, and tokens of several
bytes follow from 258. A token predicts all of its bytes at once, so bits of tokens ÷ bytes of text are the bits per
byte of the same text.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from aunet_lightning.data.bpe import train_bpe
from aunet_lightning.data.corpus import Corpus
from aunet_lightning.vocabulary import N_BYTES, VOCABULARY
from splitters.trie import token_bytes

TokenizerSpec = str | dict[str, int]  # a tokenizers JSON, or {vocab_size: n} to train one on the training text
AT_ONCE = 1000  # documents


def check_tokenizer(spec: TokenizerSpec | None) -> None:
    """Raises ValueError for what is neither a file nor a size."""
    if isinstance(spec, dict) and (set(spec) != {"vocab_size"} or spec["vocab_size"] < N_BYTES + 1):
        raise ValueError(
            f"tokenizer: {spec} is not understood: give {{vocab_size: 4096}} ({N_BYTES + 1} or more, the 256 bytes "
            "among them), to be trained on the training text, or the path of a tokenizers JSON"
        )
    if isinstance(spec, str) and not Path(spec).is_file():
        raise ValueError(f"tokenizer: there is no file {spec!r}: name a tokenizers JSON, or {{vocab_size: 4096}}")


def vocabulary_size(spec: TokenizerSpec | None) -> int:
    """Returns how many ids a model of these tokens has: bytes, BOS, EOS and tokens of several bytes."""
    check_tokenizer(spec)
    if spec is None:
        return VOCABULARY
    if isinstance(spec, str):
        return Tokenizer(Path(spec).read_text(encoding="utf-8"), spec).size
    return spec["vocab_size"] - N_BYTES + VOCABULARY


class Tokenizer:
    """A byte-complete BPE as ids of ours. Raises ValueError where the JSON is no such tokenizer.

    `fields` is the tokenizers JSON; `name` is how errors call it.
    """

    def __init__(self, fields: str, name: str = "the trained vocabulary") -> None:
        self.fields, self.name = fields, name
        self.ids: dict[int, int] = {}  # theirs → ours
        self.bytes: list[bytes] = [*(bytes([byte]) for byte in range(N_BYTES)), b"", b""]  # of ours
        single: set[bytes] = set()
        for token, data in sorted(token_bytes(fields, name)):
            if len(data) == 1 and data not in single:
                self.ids[token] = data[0]
                single.add(data)
            else:
                self.ids[token] = len(self.bytes)
                self.bytes.append(data)

    @property
    def size(self) -> int:
        """The number of ids, BOS and EOS among them."""
        return len(self.bytes)

    @cached_property
    def sizes(self) -> np.ndarray:
        """int16 [size]: bytes of text of each id, 0 for BOS and EOS."""
        return np.array([len(data) for data in self.bytes], np.int16)

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.fields.encode()).hexdigest()[:16]

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer as HuggingFace

        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # data workers are forked
        return HuggingFace.from_str(self.fields)

    def encode(self, texts: Sequence[bytes]) -> list[np.ndarray]:
        """Returns the ids of each text, int32. Raises ValueError where they do not spell the text out again."""
        found = []
        given = [text.decode("utf-8") for text in texts]
        for text, encoding in zip(texts, self._tokenizer.encode_batch(given, add_special_tokens=False), strict=True):
            ids = np.array([self.ids.get(token, -1) for token in encoding.ids], np.int32)
            if (ids < 0).any() or self.decode(ids) != text:
                raise ValueError(
                    f"tokenizer: {self.name} loses text ({text[:40].decode('utf-8', 'ignore')!r}… comes back as "
                    f"{self.decode(ids[ids >= 0])[:40].decode('utf-8', 'replace')!r}…), so its bits are not those of "
                    "the text: take a byte-level BPE without a normalizer (aunet vocabulary trains one)"
                )
            found.append(ids)
        return found

    def decode(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """Returns the text of some ids; BOS and EOS are none."""
        return b"".join(self.bytes[int(i)] for i in ids)

    # As `reports.boundaries.Levels`, so that pictures show tokens as they show units.

    @property
    def depth(self) -> int:
        return 1

    def levels(self, data: bytes) -> np.ndarray:
        """Returns uint8 [len(data)]: 1 where a token begins."""
        levels = np.zeros(len(data), np.uint8)
        ids = self.encode([data])[0]
        sizes = self.sizes[ids].astype(np.int64)
        levels[np.cumsum(sizes) - sizes] = 1
        return levels


class TokenCorpus(Corpus):
    """A corpus whose documents are ids of tokens; `lengths` int64 [n] are in tokens."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer) -> None:
        self.__dict__ |= corpus.__dict__
        self._texts, self.tokenizer = {}, tokenizer
        lengths = [
            np.load(prepare_tokens(folder, tokenizer) / f"tokens-{tokenizer.digest}.npy") for folder in self.folders
        ]
        self.lengths = np.concatenate(lengths) if lengths else np.zeros(0, np.int64)
        self._starts = (
            np.concatenate([np.cumsum(of_file) - of_file for of_file in lengths]) if lengths else np.zeros(0, np.int64)
        )

    def text(self, document: int) -> np.ndarray:
        """Returns the ids of a document's tokens, int32."""
        file, start = int(self._files[document]), int(self._starts[document])
        if file not in self._texts:
            self._texts[file] = np.memmap(self.folders[file] / f"tokens-{self.tokenizer.digest}.bin", np.int32, "r")
        return self._texts[file][start : start + int(self.lengths[document])]


def prepare_tokens(folder: Path, tokenizer: Tokenizer) -> Path:
    """Writes the tokens of a prepared source beside its text unless they are there; returns the folder."""
    lengths_file, tokens_file = (folder / f"tokens-{tokenizer.digest}.{kind}" for kind in ("npy", "bin"))
    if lengths_file.exists():  # written last
        return folder
    corpus = Corpus([folder])
    lengths = np.zeros(len(corpus), np.int64)
    with tempfile.TemporaryDirectory(dir=folder) as part:
        with (Path(part) / "bin").open("wb") as file:
            for first in range(0, len(corpus), AT_ONCE):
                documents = range(first, min(first + AT_ONCE, len(corpus)))
                for d, ids in zip(
                    documents, tokenizer.encode([corpus.text(d).tobytes() for d in documents]), strict=True
                ):
                    file.write(ids.tobytes())
                    lengths[d] = len(ids)
        np.save(Path(part) / "npy.npy", lengths)
        os.replace(Path(part) / "bin", tokens_file)
        os.replace(Path(part) / "npy.npy", lengths_file)
    return folder


def trained(corpus: Corpus, documents: np.ndarray, vocab_size: int, cache: Path) -> Tokenizer:
    """Returns a vocabulary trained on these documents, and keeps it: the same text gives the same file."""
    key = [vocab_size, *(folder.name for folder in corpus.folders), hashlib.sha256(documents.tobytes()).hexdigest()]
    kept = cache / f"bpe-{vocab_size}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.json"
    if not kept.exists():
        fields = train_bpe((corpus.text(int(d)).tobytes() for d in documents), vocab_size)
        with tempfile.NamedTemporaryFile("w", dir=cache, delete=False, encoding="utf-8") as part:
            part.write(fields)
        os.replace(part.name, kept)
    return Tokenizer(kept.read_text(encoding="utf-8"))
