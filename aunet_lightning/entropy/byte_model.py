"""A small byte model, run in float64, and the entropy of its next-byte distribution.

The model is a one-stage AUNet of this project (a flat byte transformer). A text in chunks and a stream byte by byte
run the same forward with a state; the two differ by rounding of about 1e-13 bits. Entropies are rounded to float32,
so that this difference does not decide a boundary.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aunet_lightning.data import contents
from aunet_lightning.paths import user_path
from aunet_lightning.vocabulary import BOS, EOS, VOCABULARY

if TYPE_CHECKING:  # at run time torch loads with the first model: `splitters.available()` loads this module
    import torch

    from aunet_lightning.model.aunet import AUNet
    from aunet_lightning.model.state import State

FORMAT = 1  # changes when the same weights give other entropies
CHUNK = 128  # bytes of a text per call of the model
ROWS = {"cpu": 8, "cuda": 512}  # texts per call, at most
SCORES = 1 << 27  # attention scores per call and layer, at most: 1 GiB of float64
REMEDY = (
    "train a small byte model with aunet fit, splitter: null, upper_splitters: [] and one entry in model.net.stages, "
    "such as {dim: 64, layers: 4, head_dim: 16, window: 64}, and name its checkpoints/last.ckpt"
)


class ByteModel:
    """A one-stage model in float64 on the CPU, with a digest of everything its entropies depend on."""

    def __init__(self, net: AUNet) -> None:
        stage, config = net.config.stages[0], net.config
        what = [FORMAT, stage.head_dim, stage.window, float(config.rope_theta), float(config.norm_eps)]
        digest = hashlib.sha256(repr(what).encode())
        for name, tensor in sorted(net.state_dict().items()):
            digest.update(name.encode() + tensor.float().contiguous().numpy().tobytes())
        self.digest = digest.hexdigest()[:32]
        self.net = net.double().requires_grad_(False)

    def entropies(self, texts: Sequence[np.ndarray], on: str = "cpu") -> Iterator[tuple[int, np.ndarray]]:
        """Yields (index of the text, float32 [len + 1] bits: after BOS and after each byte), the longest text first.

        texts: uint8 each; texts of similar length share a batch. `on`: the device.
        """
        import copy

        stage = self.net.config.stages[0]
        scores = CHUNK * (CHUNK + (stage.window or 0)) * (stage.dim // stage.head_dim)
        net = self.net if on == "cpu" else copy.deepcopy(self.net).to(on)
        for numbers in _batches([len(text) for text in texts], max(min(ROWS[on], SCORES // scores), 1)):
            rows = [texts[number] for number in numbers]
            for number, row, bits in zip(numbers, rows, _read(net, rows), strict=True):
                yield number, bits[: len(row) + 1]

    def step(self, byte: int, state: State) -> tuple[float, State]:
        """Returns H in bits after reading `byte` (or BOS), rounded to float32, and the new state."""
        import torch

        with torch.inference_mode():
            out = self.net(torch.tensor([[byte]]), None, state)
            return float(_bits(out.logits)[0, 0]), out.state


def _batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Yields the indices of up to `most` texts at a time, the longest first; none is padded to twice its length."""
    batch: list[int] = []
    for number in np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist():
        if batch and (len(batch) == most or lengths[batch[0]] > max(2 * lengths[number], CHUNK)):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _read(net: AUNet, texts: Sequence[np.ndarray]) -> np.ndarray:
    """Returns float32 [texts, longest + 1]: H in bits after BOS and after each byte; arbitrary past a text's end."""
    import torch

    ids = np.full((len(texts), 1 + max(map(len, texts))), EOS, np.int16)  # padded on the right, where no byte attends
    ids[:, 0] = BOS
    for row, text in zip(ids, texts, strict=True):
        row[1 : 1 + len(text)] = text
    bits = np.empty(ids.shape, np.float32)
    with torch.inference_mode():
        state = net.initial_state(len(ids))
        for at in range(0, ids.shape[1], CHUNK):
            chunk = torch.from_numpy(ids[:, at : at + CHUNK]).to(net.head.weight.device, torch.long)
            out = net(chunk, None, state)
            bits[:, at : at + CHUNK] = _bits(out.logits).cpu().numpy()
            state = out.state
    return bits


def _bits(logits: torch.Tensor) -> torch.Tensor:
    """logits [..., 258] → the entropy in bits over bytes and EOS, float32 [...]. (BOS never follows.)"""
    import torch

    known = torch.cat([logits[..., :BOS], logits[..., EOS:]], dim=-1)
    return (torch.special.entr(known.softmax(-1)).sum(-1) / math.log(2)).float()


loaded: dict[str, ByteModel] = {}  # of this process, by digest; forked workers inherit it


def load(checkpoint: str) -> ByteModel:
    """Returns the model of a checkpoint, one object per process while the file is unchanged.

    Raises ValueError, with the remedy, if the file is missing, is not a checkpoint, or holds a model that reads
    tokens, has several stages or has no window.
    """
    path = user_path(checkpoint, "entropy: checkpoint")
    try:
        stamp = contents.stamp(path)
    except OSError:
        raise ValueError(f"entropy: there is no file {checkpoint!r} (looked from {Path.cwd()}): {REMEDY}") from None
    return _load(str(path.absolute()), *stamp)


@cache
def _load(path: str, *stamp: int) -> ByteModel:
    from aunet_lightning.checkpoints.load import load as load_checkpoint

    try:
        net, _ = load_checkpoint(path)
    except Exception as error:  # torch.load may raise anything on a foreign file
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(
            f"entropy: {path} cannot be read as a checkpoint of aunet fit ({kind}{error}): {REMEDY}"
        ) from None
    stages = net.config.stages
    if net.config.vocabulary > VOCABULARY:
        raise ValueError(f"entropy: the model of {path} reads tokens, it must read bytes: {REMEDY}")
    if len(stages) > 1:
        raise ValueError(f"entropy: the model of {path} has {len(stages)} stages, it must have one: {REMEDY}")
    if stages[0].window is None:
        raise ValueError(
            f"entropy: the model of {path} has no window, so its entropies would drift on texts longer than its "
            f"training rows: {REMEDY}"
        )
    model = ByteModel(net)
    return loaded.setdefault(model.digest, model)


def device() -> str:
    """Returns the device that reads many texts: `cuda` where there is one, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
