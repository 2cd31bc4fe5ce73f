"""The record beside a checkpoint's tensors: written, read and compared here alone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aunet_lightning.errors import UserError
from aunet_lightning.model.config import AUNetConfig
from aunet_lightning.reader.reader import Reader, reader_from
from splitters import Stack
from splitters.registry import Spec

# Keys that an export keeps. Weights mean nothing without the first four.
EXPORTED = (
    "hyper_parameters", "splitters", "boundaries", "tokenizer", "row_ids", "global_step", "pytorch-lightning_version",
)  # fmt: skip
# Settings of the optimizer that its saved state brings along, so that others would be overruled in silence.
IN_OPTIMIZER_STATE = (
    "name", "lr", "matrix_lr", "matrix_every", "weight_decay", "betas", "eps", "stage_lr", "splitter_lr",
)  # fmt: skip
IN_TRAINING = ("residual_init", "dropout", "ngram_dropout")  # of a network: they change nothing of a trained one
WEIGHTS_ALONE = "take its weights alone: aunet export CKPT --out w.safetensors, then --ckpt_path w.safetensors"


@dataclass(frozen=True)
class Contents:
    """What a checkpoint records about its run: the network, how it reads text, and how far training has come."""

    net: AUNetConfig
    splitters: Sequence[Spec]
    """one per stage transition, as the settings name them"""
    fingerprint: str | None = None  # the key `boundaries`
    """of the boundaries that the splitters place (`Stack.fingerprint`); None in the oldest checkpoints"""
    tokenizer: str | None = None
    """the tokenizers JSON of a BPE baseline"""
    documents: Mapping[str, str] = field(default_factory=dict)  # the key `data`
    """digests of the documents of each part; empty in older checkpoints and in exports"""
    packing: Mapping[str, Any] = field(default_factory=dict)
    """settings that say which bytes are in which batch; empty in older checkpoints and in exports"""
    row_ids: int | None = None
    """ids that a row of its training reads; None in older checkpoints of a BPE baseline, and in older exports"""
    spent: Mapping[str, float] = field(default_factory=dict)
    """FLOPs, bytes and seconds so far"""
    skipped: int = 0
    """steps that were skipped because they were not finite"""
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    """settings of the optimizer"""
    global_step: int = 0
    continues: bool = False
    """whether training continues from it (an export has weights alone)"""

    @classmethod
    def from_dict(cls, checkpoint: Mapping[str, Any]) -> "Contents":
        """Returns the contents of a checkpoint as Lightning has one, by this version or an older one.

        Raises KeyError where `missing_keys` finds some, and UserError for a network that this version does not know.
        """
        settings = checkpoint["hyper_parameters"]
        try:
            net = AUNetConfig(**settings["net"])
        except (TypeError, ValueError) as error:
            raise UserError(f"the checkpoint is of a network that this version cannot build ({error})") from None
        return cls(
            net=net,
            splitters=checkpoint["splitters"],
            fingerprint=checkpoint.get("boundaries"),
            tokenizer=checkpoint.get("tokenizer"),
            documents=checkpoint.get("data") or {},
            packing=checkpoint.get("packing") or {},
            row_ids=checkpoint.get("row_ids") or _older_row(checkpoint),
            spent=checkpoint.get("spent") or {},
            skipped=checkpoint.get("skipped", 0),
            optimizer=settings.get("optimizer") or {},
            global_step=checkpoint.get("global_step", 0),
            continues=checkpoint.get("loops") is not None,
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint needs beside Lightning's own keys (which hold the network, the optimizer's
        settings, the step and the loops), as plain data, so that it loads with weights_only."""
        return {
            "splitters": list(self.splitters),
            "boundaries": self.fingerprint,
            "tokenizer": self.tokenizer,
            "data": dict(self.documents),
            "packing": dict(self.packing),
            "row_ids": self.row_ids,
            "spent": dict(self.spent),
            "skipped": self.skipped,
        }

    def check_length(self, path: Path, max_steps: int) -> None:
        """Raises UserError for a checkpoint from after the end of the run (max_steps 0 or less: it has none)."""
        if self.continues and 0 < max_steps < self.global_step:
            raise UserError(
                f"trainer.max_steps is {max_steps}, but {path} is of step {self.global_step}: raise "
                "trainer.max_steps, or name an earlier checkpoint as ckpt_path"
            )

    def check_network(self, net: AUNetConfig) -> None:
        """Raises UserError where the checkpoint's network is not this one."""
        there, here = asdict(self.net), asdict(net)
        if different := _differences({name: (there[name], here[name]) for name in here if name not in IN_TRAINING}):
            raise UserError(
                f"ckpt_path: the checkpoint's network differs in {different}. Use the config.yaml of its run folder"
            )

    def reader(self, name: str) -> Reader:
        """Returns the reader of the training; `name` is what errors call the checkpoint."""
        return reader_from(self.splitters, self.tokenizer, name)

    def check_reader(self, reader: Reader) -> str | None:
        """Returns a warning where text is split otherwise than in training, or None.

        Raises UserError where the network cannot read such text: other learned splitters, the same rules with other
        boundaries, or another vocabulary.
        """
        warning, rules = None, reader.rules
        if self.splitters == rules:
            self.check_boundaries(reader.stack)
        elif reader.stack.learned or Stack(self.splitters).learned:
            raise UserError(
                f"ckpt_path: the checkpoint was trained with splitters {self.splitters}, not {rules}, and a learned "
                "splitter is part of the network. Use the config.yaml of its run folder"
            )
        else:
            warning = f"the checkpoint was trained with splitters {self.splitters}, and is used with {rules}"
        if not reader.reads_as(self.tokenizer):
            raise UserError(
                "tokenizer: the checkpoint was trained with another vocabulary. Name the one it was trained with, or "
                "train on the same data.train_files"
            )
        return warning

    def check_boundaries(self, stack: Stack) -> None:
        """Raises UserError where the checkpoint's splitters, now built as `stack`, place other boundaries than in
        training."""
        if self.fingerprint not in (None, stack.fingerprint()):
            raise UserError(
                f"splitter: {self.splitters} no longer places the boundaries that the checkpoint was trained with. "
                "A vocabulary file, the code of a splitter or the Unicode tables of regex have changed: restore them"
            )

    def check_documents(self, digests: Mapping[str, str]) -> None:
        """Raises UserError where the checkpoint's training has read other documents than those with these digests."""
        then = self.documents.get("train")
        if then is not None and digests.get("train", then) != then:
            raise UserError(
                "ckpt_path: the documents of data.train_files are not those the checkpoint was trained on, and its "
                f"place in them means nothing here. Restore the files; or {WEIGHTS_ALONE}"
            )

    def check_continued(self, optimizer: Mapping[str, Any], packing: Mapping[str, Any]) -> None:
        """Raises UserError where training would continue with the checkpoint's settings, and others are given."""
        if not self.continues:
            return
        there = {"name": "adamw"} | dict(self.optimizer)  # older ones do not record it
        recorded = [name for name in IN_OPTIMIZER_STATE if name in there]
        pairs = {f"model.optimizer.{name}": (there[name], optimizer[name]) for name in recorded}
        pairs |= {name: (self.packing.get(name, here), here) for name, here in packing.items()}
        if different := _differences(pairs):
            raise UserError(
                "ckpt_path: the checkpoint was trained with other settings, and training continues with its own: "
                f"{different}. Give the same; or {WEIGHTS_ALONE}"
            )


def missing_keys(checkpoint: Mapping[str, Any]) -> list[str]:
    """Returns the keys that every checkpoint of aunet fit has, and this one has not."""
    found = [key for key in ("hyper_parameters", "splitters") if key not in checkpoint]
    settings = checkpoint.get("hyper_parameters")
    return found or ([] if isinstance(settings, Mapping) and "net" in settings else ["hyper_parameters.net"])


def _older_row(checkpoint: Mapping[str, Any]) -> int | None:
    """Returns the ids of a row where they are the bytes that the settings name, as they are but for tokens."""
    packing = checkpoint.get("packing") or {}
    return None if checkpoint.get("tokenizer") else packing.get("data.row_bytes")


def _differences(pairs: Mapping[str, tuple[Any, Any]]) -> str:
    """Returns the names whose two values (there, here) differ, with both; tuples and lists are the same."""
    return "; ".join(
        f"{name} (there {there}, here {here})"
        for name, (there, here) in pairs.items()
        if _listed(there) != _listed(here)
    )


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
