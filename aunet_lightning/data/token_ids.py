"""Ids of documents as a reader has them: bytes as they are, or tokens that are kept on disk beside the text."""

import hashlib
import json
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from lightning_utilities.core.rank_zero import rank_zero_warn

from aunet_lightning.data.contents import is_whole, seal
from aunet_lightning.data.corpus import Corpus
from aunet_lightning.reader.bpe import LONGEST_RUN, MERGES, WORDS, train_bpe, train_parity
from aunet_lightning.reader.reader import Reader
from aunet_lightning.reader.tokens import Tokenizer
from aunet_lightning.vocabulary import N_BYTES, VOCABULARY

AT_ONCE = 1000  # documents


class Ids(Protocol):
    """Documents as ids, without BOS and EOS."""

    lengths: np.ndarray
    """int64 [documents], in ids"""

    def ids(self, document: int) -> np.ndarray:
        """Returns the ids of a document."""


def ids_of(corpus: Corpus, reader: Reader) -> Ids:
    """Returns the documents of a corpus as the reader's ids. Raises ValueError where its vocabulary loses text."""
    return corpus if reader.tokenizer is None else TokenIds(corpus, reader.tokenizer)


class TokenIds:
    """The documents of a corpus as ids of tokens, from the files beside its text."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer) -> None:
        self.corpus, self.tokenizer = corpus, tokenizer
        self._open: dict[int, np.ndarray] = {}
        lengths = [
            np.load(prepare_tokens(folder, tokenizer) / f"tokens-{tokenizer.digest}.npy") for folder in corpus.folders
        ]
        self.lengths = np.concatenate(lengths) if lengths else np.zeros(0, np.int64)
        self._starts = (
            np.concatenate([np.cumsum(of_file) - of_file for of_file in lengths]) if lengths else np.zeros(0, np.int64)
        )

    def ids(self, document: int) -> np.ndarray:
        """Returns the ids of a document's tokens, int32."""
        file, start = self.corpus.file_of(document), int(self._starts[document])
        if file not in self._open:
            path = self.corpus.folders[file] / f"tokens-{self.tokenizer.digest}.bin"
            self._open[file] = np.memmap(path, np.int32, "r").view(np.ndarray)
        return self._open[file][start : start + int(self.lengths[document])]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_open": {}}  # each worker maps the files for itself


def prepare_tokens(folder: Path, tokenizer: Tokenizer) -> Path:
    """Writes the tokens of a prepared source beside its text unless they are there and intact; returns the folder.

    Raises ValueError where the vocabulary loses text, naming the document and the place.
    """
    lengths_file, tokens_file = (f"tokens-{tokenizer.digest}.{kind}" for kind in ("npy", "bin"))
    if (folder / lengths_file).exists():  # written last
        if is_whole(folder, lengths_file) and is_whole(folder, tokens_file):
            return folder
        _warn_damaged(folder / tokens_file)
    corpus = Corpus([folder])
    lengths = np.zeros(len(corpus), np.int64)

    def called(first: int, place: int) -> str:
        document = first + place
        source = folder.name.rpartition("-")[0]
        return f"document {corpus.name(document)!r} of {source} (language {corpus.language(document)})"

    with tempfile.TemporaryDirectory(dir=folder) as name:
        part = Path(name)
        with (part / tokens_file).open("wb") as file:
            for first in range(0, len(corpus), AT_ONCE):
                documents = range(first, min(first + AT_ONCE, len(corpus)))
                texts = [corpus.text(d).tobytes() for d in documents]
                for d, ids in zip(documents, tokenizer.encode(texts, partial(called, first)), strict=True):
                    file.write(ids.tobytes())
                    lengths[d] = len(ids)
        np.save(part / lengths_file, lengths)
        seal(part, lengths_file, tokens_file)
        _move(part, folder, last=lengths_file)
    return folder


def trained(corpus: Corpus, documents: np.ndarray, vocab_size: int, cache: Path, merges: str = MERGES[0]) -> Tokenizer:
    """Returns a vocabulary trained on these documents, and keeps it: the same text gives the same file."""
    key = [vocab_size, WORDS, LONGEST_RUN, *(folder.name for folder in corpus.folders)]
    key.append(hashlib.sha256(documents.tobytes()).hexdigest())
    by_language = merges == "parity"
    if by_language:
        if len(np.unique(corpus.languages[documents])) < 2:
            rank_zero_warn(
                "tokenizer: merges: parity is as merges: frequency here, since the training text has one language: "
                "give lines a language (data.language_key), or files a lang"
            )
        key += [merges, corpus.language_names, hashlib.sha256(corpus.languages[documents].tobytes()).hexdigest()]
    kept = cache / f"bpe-{vocab_size}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.json"
    if not is_whole(cache, kept.name):
        if kept.exists():
            _warn_damaged(kept)
        texts = ((corpus.language(d), corpus.text(d).tobytes()) for d in documents.tolist())
        fields = train_parity(texts, vocab_size) if by_language else train_bpe((text for _, text in texts), vocab_size)
        with tempfile.TemporaryDirectory(dir=cache) as part:
            (Path(part) / kept.name).write_text(fields, encoding="utf-8")
            seal(Path(part), kept.name)
            _move(Path(part), cache, last=kept.name)
    tokenizer = Tokenizer(kept.read_text(encoding="utf-8"))
    if (entries := tokenizer.size - VOCABULARY + N_BYTES) < vocab_size:
        rank_zero_warn(
            f"tokenizer: the training text has no more than {entries} entries in it, and vocab_size is {vocab_size}: "
            f"{vocab_size - entries} ids of the model are never seen"
        )
    return tokenizer


def _warn_damaged(path: Path) -> None:
    rank_zero_warn(f"{path} is damaged or truncated: it is made again")


def _move(part: Path, folder: Path, last: str) -> None:
    """Moves all files, with their seals, into a folder; whoever finds the last finds them all."""
    for path in sorted(part.iterdir(), key=lambda path: path.name == last):
        os.replace(path, folder / path.name)
