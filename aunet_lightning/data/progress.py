"""Bars on a terminal while files of text are read, where that takes more than a moment; none in files and pipes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from aunet_lightning.terminal import one_line

if TYPE_CHECKING:
    from aunet_lightning.data.documents import Document
    from aunet_lightning.data.sources import Source

MOMENT = 1.0  # seconds


def each_file(sources: Sequence[Source]) -> Iterator[Source]:
    """Yields the files, and shows how many are read, where there are several."""
    hidden = None if len(sources) > 1 else True  # None: hidden but on a terminal
    yield from tqdm(sources, "files", unit="", leave=False, disable=hidden, delay=MOMENT)


def each_document(documents: Iterable[Document], name: str) -> Iterator[Document]:
    """Yields the documents of a file, and shows how much text of it is read."""
    with tqdm(desc=one_line(name), unit="B", unit_scale=True, leave=False, disable=None, delay=MOMENT) as bar:
        for document in documents:
            yield document
            bar.update(len(document.text))
