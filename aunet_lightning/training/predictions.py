"""predictions.jsonl: bits of every test document, from `aunet predict`."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from aunet_lightning.distributed.gather import gather_objects
from aunet_lightning.training.access import data_of, say


class PredictionWriter(Callback):
    """Writes a line per document: its language, bytes, bits and BPB."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sums: dict[int, list[float]] = {}  # document → bits, bytes

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        scored = outputs["sizes"] > 0
        scores = (outputs[key][scored].tolist() for key in ("documents", "bits", "sizes"))
        for document, bits, n_bytes in zip(*scores, strict=True):
            self._add(document, bits, n_bytes)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        of_ranks, self.sums = gather_objects(self.sums), {}
        for document, (bits, n_bytes) in chain.from_iterable(sums.items() for sums in of_ranks):
            self._add(document, bits, n_bytes)
        if not trainer.is_global_zero:
            return
        corpus = data_of(trainer).corpora["test"]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", encoding="utf-8") as file:
            for document, (bits, n_bytes) in sorted(self.sums.items()):
                line = {"id": corpus.name(document), "lang": corpus.language(document), "bytes": int(n_bytes)}
                line |= {"bits": round(bits, 3), "bpb": round(bits / n_bytes, 5)}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        say(f"Bits of {len(self.sums)} documents: {self.path}")

    def _add(self, document: int, bits: float, n_bytes: float) -> None:
        sums = self.sums.setdefault(document, [0.0, 0])
        sums[0] += bits
        sums[1] += n_bytes
