"""The splitter `entropy`: a boundary where a small byte model does not know what comes next.

The small model is a one-stage AUNet of this project (a flat byte transformer), run in float64: over a text
in chunks and over a stream byte by byte it is the same forward with a state, and the two differ by rounding
of some 1e-13 bits, which does not meet a threshold. What is kept, and compared, is rounded to float32.
Entropies of the training documents are worked out once and kept beside them.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aunet_lightning.data import contents
from aunet_lightning.paths import user_path
from aunet_lightning.vocabulary import BOS, EOS, VOCABULARY
from splitters.contract import Splitter, Stepper

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


class Entropy(Splitter):
    """A boundary where the entropy of a small byte model's next-byte distribution passes a threshold.

    On byte t it is decided from H_t, the entropy in bits over the 256 bytes and the end of the text (EOS) once the
    model has read byte t, so that the pooled vector serves the uncertain byte t + 1. `checkpoint`: of a one-stage
    model with a window, trained by `aunet fit`. `threshold`: a boundary where H_t > threshold. `rise`: where
    H_t - H_{t-1} > rise (before the first byte: after BOS). With both, where both hold. Raises ValueError for a
    checkpoint that is no such model, and where both bounds are missing.
    """

    source = "Byte Latent Transformer (arXiv 2412.09871), entropy patching"
    kind = "model"

    def __init__(
        self, checkpoint: str | None = None, threshold: float | None = None, rise: float | None = None
    ) -> None:
        if not isinstance(checkpoint, str) or not checkpoint:
            raise ValueError(f"entropy: checkpoint is {checkpoint!r}, it must be a file: {REMEDY}")
        for option, value in (("threshold", threshold), ("rise", rise)):
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if value is not None and not number:
                raise ValueError(f"entropy: {option} is {value!r}, it must be a number of bits")
        if threshold is None and rise is None:
            raise ValueError(
                "entropy: neither threshold nor rise is set, give one of them (in bits): "
                f"aunet entropy {checkpoint} TEXT.jsonl --bytes_per_unit 6 finds it"
            )
        self.checkpoint, self.threshold, self.rise = checkpoint, threshold, rise
        self.digest = load(checkpoint).digest  # the model itself is the process's: this object is small to pickle
        self._kept: list[_Kept] = []

    @property
    def model(self) -> ByteModel:
        """The model of this process: inherited, or loaded when first needed. Raises ValueError if its file changed."""
        model = _models.get(self.digest) or load(self.checkpoint)
        if model.digest != self.digest:
            raise ValueError(
                f"entropy: {self.checkpoint} has changed since this splitter was made: "
                "restore it, or copy a checkpoint to where no run writes"
            )
        return model

    def identity(self) -> bytes:
        return bytes.fromhex(self.digest)

    def bits(self, data: bytes) -> np.ndarray:
        """Returns float32 [len(data) + 1]: H after BOS, then after each byte; kept ones where the text is known."""
        key = _key(data)
        for kept in self._kept:
            if (found := kept.find(key, len(data))) is not None:
                return found
        return next(self.model.entropies([np.frombuffer(data, np.uint8)]))[1]

    def split(self, data: bytes) -> np.ndarray:
        return fires(self.bits(data), self.threshold, self.rise)

    def stepper(self) -> Stepper:
        return _EntropyStepper(self)

    def prepare(self, folder: Path, texts: Sequence[np.ndarray]) -> None:
        """Works out the entropies of these documents and keeps them in `folder`, unless they are there.

        They serve every threshold. Raises ValueError where the folder cannot be written to.
        """
        kept = _Kept(folder, self.digest)
        if len(texts) and not kept.is_whole():
            size = sum(map(len, texts)) / 1e6
            what = f"{len(texts)} documents, {size:.2f} MB, of {kept.folder.name}"
            print(f"entropy: {what} through {self.checkpoint}, on {device()}:", end=" ", file=sys.stderr, flush=True)
            start = time.perf_counter()
            try:
                kept.write(self.model, texts)
            except OSError as error:
                raise ValueError(
                    f"entropy: cannot write to {folder} ({error}): name a data.cache_dir that can be written, with room"
                ) from None
            print(f"{time.perf_counter() - start:.1f} s", file=sys.stderr)
        if kept.folder not in [other.folder for other in self._kept]:
            self._kept.append(kept)


def fires(bits: np.ndarray, threshold: float | None, rise: float | None) -> np.ndarray:
    """From H after BOS and after each byte, float32 [n + 1], returns bool [n]: where every given bound is passed."""
    exact = bits.astype(np.float64)  # numpy would round the bounds to float32
    passed = np.ones(len(bits) - 1, dtype=bool)
    if threshold is not None:
        passed &= exact[1:] > threshold
    if rise is not None:
        passed &= np.diff(exact) > rise
    return passed


class _EntropyStepper(Stepper):
    def __init__(self, rule: Entropy) -> None:
        self.rule = rule
        self.state: State | None = None  # None: not even BOS was read
        self.bits = 0.0  # of the byte before

    def push(self, byte: int) -> bool:
        model = self.rule.model
        if self.state is None:
            self.bits, self.state = model.step(BOS, model.net.initial_state(1))
        before = self.bits
        self.bits, self.state = model.step(byte, self.state)
        return bool(fires(np.array([before, self.bits]), self.rule.threshold, self.rule.rise)[0])

    def __deepcopy__(self, memo: dict) -> _EntropyStepper:
        copy = _EntropyStepper(self.rule)
        copy.state, copy.bits = self.state, self.bits  # a state is a value: shared, never changed
        return copy


class ByteModel:
    """A one-stage model in float64 on the CPU, and a digest of its weights and of what else its entropies depend on."""

    def __init__(self, net: AUNet) -> None:
        stage, config = net.config.stages[0], net.config
        what = [FORMAT, stage.head_dim, stage.window, float(config.rope_theta), float(config.norm_eps)]
        digest = hashlib.sha256(repr(what).encode())
        for name, tensor in sorted(net.state_dict().items()):
            digest.update(name.encode() + tensor.float().contiguous().numpy().tobytes())
        self.digest = digest.hexdigest()[:32]
        self.net = net.double().requires_grad_(False)

    def entropies(self, texts: Sequence[np.ndarray], on: str = "cpu") -> Iterator[tuple[int, np.ndarray]]:
        """Yields (number of the text, float32 [len + 1] bits: after BOS and after each byte), the longest text first.

        texts: uint8 each; those of similar length are read together, `on` a device.
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
        """Returns H in bits once `byte` (or BOS) is read too, rounded to float32, and the state after."""
        import torch

        with torch.inference_mode():
            out = self.net(torch.tensor([[byte]]), None, state)
            return float(_bits(out.logits)[0, 0]), out.state


def _batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Yields the numbers of up to `most` texts at a time, the longest first; none is padded to twice its length."""
    batch: list[int] = []
    for number in np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist():
        if batch and (len(batch) == most or lengths[batch[0]] > max(2 * lengths[number], CHUNK)):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _read(net: AUNet, texts: Sequence[np.ndarray]) -> np.ndarray:
    """Returns float32 [texts, longest + 1]: H in bits after BOS and after each byte; past a text's end, anything."""
    import torch

    ids = np.full((len(texts), 1 + max(map(len, texts))), EOS, np.int16)  # padded on the right, which no byte sees
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


_models: dict[str, ByteModel] = {}  # of this process, by digest; forked workers inherit it


def load(checkpoint: str) -> ByteModel:
    """Returns the model of a checkpoint, one object per process as long as the file stays the same.

    Raises ValueError, with the remedy, where it is missing, no checkpoint, of several stages, or has no window.
    """
    path = user_path(checkpoint, "entropy: checkpoint")
    try:
        its = contents.stamp(path)
    except OSError:
        raise ValueError(f"entropy: there is no file {checkpoint!r} (looked from {Path.cwd()}): {REMEDY}") from None
    return _load(str(path.absolute()), *its)


@cache
def _load(path: str, *its: int) -> ByteModel:
    from aunet_lightning.checkpoints.load import load as load_checkpoint

    try:
        net, _ = load_checkpoint(path)
    except Exception as error:  # torch.load and a foreign file: anything
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
            f"entropy: the model of {path} has no window, so entropies would drift where a text is longer than the "
            f"rows it was trained on: {REMEDY}"
        )
    model = ByteModel(net)
    return _models.setdefault(model.digest, model)


def device() -> str:
    """Returns where many texts are read: the GPU, if it has float64."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


class _Kept:
    """Entropies of a folder's documents, found by the text: a flat file, and an index sorted by hash.

    The index is uint64 [4, documents]: 128 bits of hash, where its entropies begin, and the text's length.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self.folder = Path(folder).absolute()
        self.flat = self.folder / f"entropy-{digest}.f32"
        self.index = self.folder / f"entropy-{digest}.index.npy"
        self._maps: tuple[np.ndarray, np.ndarray] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": None}  # each worker maps the files for itself

    def is_whole(self) -> bool:
        """Whether both files are there, hold what was written, and belong together."""
        whole = all(contents.is_whole(self.folder, path.name) for path in (self.flat, self.index))
        return whole and self._open() is not None

    def find(self, key: tuple[np.uint64, np.uint64], length: int) -> np.ndarray | None:
        """Returns float32 [length + 1] of the prepared text with this hash and length, else None."""
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
        """Reads the texts (at least one) with the model and writes both files, each whole or not at all."""
        lengths = np.array([len(text) for text in texts], np.int64)
        ends = np.cumsum(lengths + 1)
        keys = np.array([_key(text) for text in texts], np.uint64)
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
            except (OSError, ValueError):  # not there, or cut off
                return None
            if len(flat) == int(index[3].sum()) + index.shape[1]:
                self._maps = index, flat
        return self._maps


def _key(text: bytes | np.ndarray) -> tuple[np.uint64, np.uint64]:
    """Returns 128 bits of a hash of the text."""
    first, second = np.frombuffer(hashlib.blake2b(bytes(text), digest_size=16).digest(), np.uint64)
    return first, second
