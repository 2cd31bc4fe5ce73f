"""Parallel text in a run: what the same content takes in each language, the measure that compares languages fairly."""

import math
from collections.abc import Mapping, Sequence
from typing import cast

from lightning.pytorch import Callback, LightningModule, Trainer

from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.scoring import score
from aunet_lightning.tracking.names import metric_name
from aunet_lightning.training.access import data_of, say
from aunet_lightning.training.module import AUNetModule

PART = "parallel"
ENGLISH = "en"  # to which other languages are compared


def aligned(texts: Mapping[str, Mapping[str, bytes]]) -> dict[str, list[bytes]]:
    """Returns the documents that every language has, in the same order. texts: by language, then by name.

    Raises ValueError where there is no English, no other language, or no document that all have.
    """
    if ENGLISH not in texts or len(texts) < 2:
        raise ValueError(
            f"data.parallel_files has text in {', '.join(sorted(texts))}: it needs {ENGLISH}, to which others are "
            "compared, and another language: name them, {path: …, lang: …}"
        )
    shared = [name for name in texts[ENGLISH] if all(name in of for of in texts.values())]
    if not shared:
        raise ValueError(
            "data.parallel_files: no document has the same id (or the same line) in all of "
            f"{', '.join(sorted(texts))}, so nothing can be compared"
        )
    return {language: [of[name] for name in shared] for language, of in texts.items()}


def relative(bits: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Returns the bits of each language's documents ÷ those of the English ones."""
    english = math.fsum(bits[ENGLISH])
    return {language: math.fsum(of) / english for language, of in bits.items()}


class ParallelBits(Callback):
    """Logs bits per document of parallel text by language, and their ratio to English, at each validation."""

    def __init__(self) -> None:
        self._texts: dict[str, list[bytes]] = {}
        self._ratios: dict[str, float] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._texts = aligned(named_texts(data_of(trainer)))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        module, data = cast(AUNetModule, pl_module), data_of(trainer)
        bits = {
            language: [one.bits for one in score(module.net, data.reader, texts, data.longest_row_ids)]
            for language, texts in self._texts.items()
        }
        self._ratios = relative(bits)
        for language, of in bits.items():
            pl_module.log(f"parallel/bits_{metric_name(language)}", math.fsum(of) / len(of))
            pl_module.log(f"parallel/ratio_{metric_name(language)}", self._ratios[language])

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._ratios:
            shown = sorted((item for item in self._ratios.items() if item[0] != ENGLISH), key=lambda item: item[1])
            say(
                f"\nParallel text, {len(self._texts[ENGLISH])} documents: bits relative to English "
                + ", ".join(f"{language} {ratio:.2f}" for language, ratio in shown)
            )


def named_texts(data: ByteDataModule) -> dict[str, dict[str, bytes]]:
    """Returns the parallel text by language and by name; of two documents with one name the first."""
    corpus, found = data.corpora[PART], dict[str, dict[str, bytes]]()
    for document in data.documents[PART].tolist():
        found.setdefault(corpus.language(document), {}).setdefault(
            corpus.name(document), corpus.text(document).tobytes()
        )
    return found
