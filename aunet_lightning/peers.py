"""Published byte models of others, for a comparison in the same tools: `aunet score`, `aunet_lightning.scoring`.

BLT (arXiv 2412.09871) is read through its class in `transformers`, from a folder with its configuration and
safetensors. Its weights have a licence of their own. Shapes: B rows, L ids, V vocabulary.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from aunet_lightning.errors import UserError
from aunet_lightning.reader.reader import ByteReader, Reader
from aunet_lightning.vocabulary import N_BYTES

# Ids of BLT, in the order of ours: bytes, BOS, EOS; then those that no text has.
BLT_IDS = (*range(4, 4 + N_BYTES), 1, 2, 0, 3)


class PeerOutput(NamedTuple):
    """What scores need of a call."""

    logits: Tensor  # [B, L, V], by our ids
    levels: Tensor  # uint8 [B, L]: 1 where a unit begins


class Peer(nn.Module):
    """A model of others that reads bytes and is called as `AUNet` is, on whole rows."""

    refreshes = False
    sharded = False

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def config(self) -> Any:
        return SimpleNamespace(vocabulary=len(BLT_IDS), depth=1)

    @property
    def head(self) -> Any:
        return self.model.lm_head

    def forward(self, ids: Tensor, levels: Tensor | None = None, refreshes: Tensor | None = None) -> PeerOutput:
        """ids [B, L] of ours. levels and refreshes are not read: it has units of its own."""
        model: Any = self.model
        theirs = torch.tensor(BLT_IDS, device=ids.device)
        found, config = theirs[ids], model.config
        _, lengths, _ = model.model.patcher(
            found, patch_size=config.patch_size, threshold=config.patching_threshold,
            max_patch_length=config.max_patch_length, patching_batch_size=config.patching_batch_size,
        )  # fmt: skip
        logits = model(input_ids=found, patch_lengths=lengths, use_cache=False).logits
        ends = lengths.cumsum(1).long()
        begins = torch.zeros(len(ids), ids.shape[1] + 1, dtype=torch.uint8, device=ids.device)
        begins.scatter_(1, ends.clamp(max=ids.shape[1]), 1)
        return PeerOutput(logits[..., theirs], begins[:, :-1])


def is_peer(path: str | Path) -> bool:
    """Whether path is a folder with the configuration of such a model."""
    config = Path(path) / "config.json"
    return config.is_file() and json.loads(config.read_text(encoding="utf-8")).get("model_type") == "blt"


def load_peer(path: str | Path) -> tuple[Peer, Reader]:
    """Returns the model of a folder (evaluation mode, on the CPU, float32), and a reader of its text.

    Raises UserError where `transformers` is missing, or the folder has no weights as safetensors, and for a BLT that
    does not cut by entropy, or has other ids.
    """
    try:
        from transformers import BltForCausalLM
    except ImportError:
        raise UserError(
            f"{path} is a BLT, which needs transformers: pip install 'aunet-lightning[transformers]'"
        ) from None
    try:
        model = BltForCausalLM.from_pretrained(path, use_safetensors=True, dtype=torch.float32).eval()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a BLT ({error}): it needs config.json and safetensors") from None
    if model.config.patching_mode != "entropy" or model.config.vocab_size != len(BLT_IDS):
        raise UserError(
            f"{path} has {model.config.vocab_size} ids and cuts by {model.config.patching_mode}: only a BLT of "
            f"{len(BLT_IDS)} ids that cuts by entropy is read, as those that are published"
        )
    return Peer(model), ByteReader([])
