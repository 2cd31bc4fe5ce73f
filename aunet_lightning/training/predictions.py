"""Bits of every document: of the test text from `aunet predict`, and of the validation text from the last validation
of `aunet fit`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from aunet_lightning.distributed.gather import gather_objects
from aunet_lightning.training.access import data_of, say
from aunet_lightning.training.module import AUNetModule

FORWARD = 3  # FLOPs of training ÷ those of reading: the backward pass costs twice the forward one


class DocumentWriter(Callback):
    """Adds up the bits of each document of a part, and writes a line per document: its language, bytes, bits and BPB.

    Documents come in their order in the files, so line k is the same document in every run on the same text.
    """

    def __init__(self, path: Path, part: str) -> None:
        self.path, self.part = path, part
        self.numbers = np.zeros(0, int)  # of the part's documents in their corpus, ascending
        self.sums = np.zeros((0, 2))  # bits and bytes of each, and what is `further` counted

    def begin(self, trainer: Trainer, further: int = 0) -> None:
        """Forgets what was added, before a pass over the part."""
        self.numbers = data_of(trainer).documents[self.part]
        self.sums = np.zeros((len(self.numbers), 2 + further))

    def add(self, outputs: Mapping[str, Any], further: Sequence[Tensor] = ()) -> None:
        """Adds a batch: `bits`, `documents` and `sizes` (bytes; 0 where nothing is scored), each [B, L]."""
        bits = outputs["bits"].where(outputs["sizes"] > 0, 0)
        inside = (outputs["documents"] >= 0).cpu().numpy()
        documents, of = np.unique(outputs["documents"].cpu().numpy()[inside], return_inverse=True)
        columns = [values.cpu().double().numpy()[inside] for values in (bits, outputs["sizes"], *further)]
        summed = np.stack([np.bincount(of, values, len(documents)) for values in columns], axis=1)
        self.sums[np.searchsorted(self.numbers, documents)] += summed

    def write(self, trainer: Trainer) -> int:
        """Writes the file, completely or not at all; returns the number of documents."""
        corpus, total = data_of(trainer).corpora[self.part], np.sum(gather_objects(self.sums), axis=0)
        seen = np.flatnonzero(total[:, 1])
        if trainer.is_global_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)  # those of an earlier pass
            part = self.path.with_name(f"{self.path.name}.part")
            with part.open("w", encoding="utf-8") as file:
                for document, (bits, n_bytes, *more) in zip(
                    self.numbers[seen].tolist(), total[seen].tolist(), strict=True
                ):
                    line = {"id": corpus.name(document), "lang": corpus.language(document), "bytes": int(n_bytes)}
                    line |= {"bits": round(bits, 3), "bpb": round(bits / n_bytes, 5)} | self.told(trainer, more)
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
            part.replace(self.path)
        return len(seen)

    def told(self, trainer: Trainer, further: Sequence[float]) -> dict[str, Any]:
        """Returns what else a document's line says, from what was `further` counted."""
        return {}


class PredictionWriter(DocumentWriter):
    """Writes the documents that `aunet predict` has read, with the positions of each stage (bytes or tokens, units, …;
    without BOS) and the FLOPs of reading them."""

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begin(trainer, len(cast(AUNetModule, pl_module).net.stages) + 1)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        levels, n_stages = outputs["levels"], len(cast(AUNetModule, pl_module).net.stages)
        self.add(outputs, [*(levels >= stage for stage in range(n_stages)), outputs["refreshes"]])

    def told(self, trainer: Trainer, further: Sequence[float]) -> dict[str, Any]:
        *positions, refreshes = further
        flops = cast(AUNetModule, trainer.lightning_module).cost.row_flops(torch.tensor(positions), refreshes)
        return {"positions": [int(n) - 1 for n in positions], "flops": float(flops) / FORWARD}

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        n_documents = self.write(trainer)
        say(f"Bits of {n_documents} documents: {self.path}")


class ValidationWriter(DocumentWriter):
    """Writes the validation documents after each validation, over those of the one before."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begin(trainer)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self.add(outputs)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        try:
            self.write(trainer)
        except OSError as error:  # a full disk ends no run
            rank_zero_warn(f"{self.path} cannot be written ({error.strerror}): it has the documents of no validation")
