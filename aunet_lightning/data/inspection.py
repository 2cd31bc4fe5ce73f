"""What files of text hold, without training: documents, languages, scripts, lengths, and what is skipped."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from aunet_lightning.data.documents import Document, Report
from aunet_lightning.data.progress import each_file
from aunet_lightning.data.sources import Source

BARS = " ▁▂▃▄▅▆▇█"
READ = 2_000_000  # bytes of each language that are kept, for bytes per unit


@dataclass
class LanguageText:
    """The text of one language."""

    lengths: array[int] = field(default_factory=lambda: array("Q"))  # bytes of each document
    characters: int = 0
    scripts: Counter[str] = field(default_factory=Counter)  # bytes of documents, by their script
    kept: list[bytes] = field(default_factory=list)  # the first documents
    kept_bytes: int = 0

    def add(self, text: bytes, script_of: Callable[[str], str]) -> None:
        decoded = text.decode("utf-8", "replace")
        self.lengths.append(len(text))
        self.characters += len(decoded)
        self.scripts[script_of(decoded)] += len(text)
        if self.kept_bytes < READ:
            self.kept.append(text)
            self.kept_bytes += len(text)

    @property
    def bytes(self) -> int:
        return sum(self.lengths)

    def picture(self) -> str:
        """Returns a bar for each power of two, from 1 to 2^20 bytes and more, as high as documents are many."""
        counts = np.bincount(np.minimum(np.log2(np.maximum(self.lengths, 1)).astype(int), 20), minlength=21)
        heights = np.ceil(counts / max(counts.max(), 1) * (len(BARS) - 1)).astype(int)
        return "".join(BARS[height] for height in heights)


def inspect(
    sources: Sequence[Source], script_of: Callable[[str], str], told: Callable[[Document], object] = lambda _: None
) -> tuple[dict[str, LanguageText], Report]:
    """Returns the text of each language, and what of the files was skipped. told: is called with each document.

    Memory grows by 8 bytes a document. Raises ValueError for a file that cannot be read to its end.
    """
    found: dict[str, LanguageText] = {}
    report = Report()
    for source in each_file(sources):
        for document in source.documents(report):
            found.setdefault(document.language, LanguageText()).add(document.text, script_of)
            told(document)
    return found, report
