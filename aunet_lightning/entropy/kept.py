"""Entropies of the training documents, computed once and kept beside them."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aunet_lightning.data import contents
from aunet_lightning.entropy.byte_model import ByteModel, device


class KeptEntropies:
    """Entropies of a folder's documents, looked up by text: a flat file, and an index sorted by hash.

    The index is uint64 [4, documents]: 128 bits of hash, the offset of its entropies, and the text's length.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self.folder = Path(folder).absolute()
        self.flat = self.folder / f"entropy-{digest}.f32"
        self.index = self.folder / f"entropy-{digest}.index.npy"
        self._maps: tuple[np.ndarray, np.ndarray] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": None}  # each worker maps the files itself

    def is_complete(self) -> bool:
        """Returns whether both files exist, are intact, and belong together."""
        intact = all(contents.is_whole(self.folder, path.name) for path in (self.flat, self.index))
        return intact and self._open() is not None

    def find(self, key: tuple[np.uint64, np.uint64], length: int) -> np.ndarray | None:
        """Returns float32 [length + 1] of the prepared text with this hash and length, or None."""
        if (maps := self._open()) is None:
            return None
        index, flat = maps
        at = int(np.searchsorted(index[0], key[0]))
        while at < index.shape[1] and index[0, at] == key[0]:
            if index[1, at] == key[1] and index[3, at] == length:
                begin = int(index[2, at])
                return np.array(flat[begin : begin + length + 1])
            at += 1
        return None

    def write(self, model: ByteModel, texts: Sequence[np.ndarray]) -> None:
        """Reads the texts (at least one) with the model and writes both files, each complete or not at all."""
        lengths = np.array([len(text) for text in texts], np.int64)
        ends = np.cumsum(lengths + 1)
        keys = np.array([text_key(text) for text in texts], np.uint64)
        index = np.stack([keys[:, 0], keys[:, 1], (ends - lengths - 1).astype(np.uint64), lengths.astype(np.uint64)])
        part = self.folder / f".entropy-{uuid.uuid4().hex}"
        try:
            flat = np.memmap(part, np.float32, "w+", shape=(int(ends[-1]),))
            for number, bits in model.entropies(texts, device()):
                flat[ends[number] - len(bits) : ends[number]] = bits
            flat.flush()
            del flat
            os.replace(part, self.flat)
            with part.open("wb") as file:
                np.save(file, np.ascontiguousarray(index[:, np.lexsort(index[1::-1])]))
            os.replace(part, self.index)
            contents.seal(self.folder, self.flat.name, self.index.name)
            self._maps = None
        finally:
            part.unlink(missing_ok=True)

    def _open(self) -> tuple[np.ndarray, np.ndarray] | None:
        if self._maps is None:
            try:
                index = np.load(self.index, mmap_mode="r")
                flat = np.memmap(self.flat, np.float32, "r")
            except (OSError, ValueError):  # missing, or truncated
                return None
            if len(flat) == int(index[3].sum()) + index.shape[1]:
                self._maps = index, flat
        return self._maps


def text_key(text: bytes | np.ndarray) -> tuple[np.uint64, np.uint64]:
    """Returns a 128-bit hash of the text, as two words."""
    first, second = np.frombuffer(hashlib.blake2b(bytes(text), digest_size=16).digest(), np.uint64)
    return first, second
