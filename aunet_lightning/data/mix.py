"""A mix of languages: how much text there is of each, and how long its units are, measured on part of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from aunet_lightning.data.documents import Report
from aunet_lightning.data.places import Place
from aunet_lightning.data.sources import expand
from aunet_lightning.reader.levels import AROUND
from splitters import Stack


@dataclass
class Mix:
    """Text by language: its size, and the positions of each stage in the part that was split."""

    bytes: dict[str, int] = field(default_factory=dict)
    positions: dict[str, np.ndarray] = field(default_factory=dict)  # [S], in the part that was split, stage 1 first
    documents: dict[Path | Place, int] = field(default_factory=dict)

    def rates(self, language: str | None = None) -> list[float]:
        """Returns bytes per unit of stages 2 … S, of a language or of all text; the bytes include BOS and EOS."""
        if language is not None:
            per_byte = self.positions[language] / self.positions[language][0]
        else:
            weights = np.array([*self.bytes.values()], float)
            shares = np.stack([counts / counts[0] for counts in self.positions.values()])  # [languages, S]
            per_byte = weights @ shares / weights.sum()
        return (1 / per_byte[1:]).tolist()


def measure(files: Sequence[str], stack: Stack, n_bytes: float, option: str) -> tuple[Mix, str | None]:
    """Returns the mix of all documents, as `aunet fit` reads them, and a warning about skipped ones.

    Splits up to `n_bytes` of each language. Raises ValueError, naming `option`, for files that do not exist.
    """
    mix, report = Mix(), Report()
    for source in expand(list(files), option, text_key="text", language_key="lang"):
        for document in source.documents(report):
            language, size = document.language, len(document.text) + AROUND
            mix.bytes[language] = mix.bytes.get(language, 0) + size
            mix.documents[source.path] = mix.documents.get(source.path, 0) + 1
            counts = mix.positions.setdefault(language, np.zeros(stack.depth + 1))
            if counts[0] < n_bytes:
                levels = stack.levels(document.text)
                begins = [1 + np.count_nonzero(levels > s) for s in range(stack.depth)]  # BOS begins a unit of each
                counts += [size, *begins]
    return mix, report.warning()
