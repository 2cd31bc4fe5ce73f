"""The splitter `entropy`: a boundary where a small byte model is uncertain about the next byte."""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aunet_lightning.entropy import byte_model
from aunet_lightning.entropy.byte_model import REMEDY, ByteModel, device, load
from aunet_lightning.entropy.kept import KeptEntropies, text_key
from aunet_lightning.entropy.threshold import Bounds, find, fires
from aunet_lightning.vocabulary import BOS
from splitters.contract import Knob, Splitter, Stepper, number
from splitters.engine.script_runs import ScriptRuns

if TYPE_CHECKING:
    from aunet_lightning.model.state import State


DEFAULT = "default"
FOLLOW = 0.2  # bits per boundary too many
MOST_BITS = 8.0


class Entropy(Splitter):
    """A boundary where the entropy of a small byte model's next-byte distribution passes a threshold.

    The decision on byte t uses H_t, the entropy in bits over the 256 bytes and the end of the text (EOS) once the
    model has read byte t, so the pooled vector serves the uncertain byte t + 1. `checkpoint`: a one-stage model with
    a window, trained by `aunet fit`. `threshold`: a boundary where H_t > threshold. `rise`: where
    H_t - H_{t-1} > rise (H after BOS precedes the first byte). With both, where both hold. Each is a number or one per
    script, {Han: 1.2, Thai: 0.8, default: 1}: that of the script that byte t is in (see `ScriptRuns`).

    With `bytes_per_unit` (likewise a number, or one per script) the bounds follow the text so that it gets this rate:
    see `Bounds`. They begin anew with each text; `follow`: bits per boundary too many.

    Raises ValueError for a checkpoint of any other model, and where both bounds are missing.
    """

    source = "Byte Latent Transformer (arXiv 2412.09871), entropy patching"
    kind = "model"
    knob = Knob("threshold", 0, 8.01, whole=False)
    files = ("checkpoint",)

    def __init__(
        self,
        checkpoint: str | None = None,
        threshold: float | Mapping[str, float] | None = None,
        rise: float | Mapping[str, float] | None = None,
        bytes_per_unit: float | Mapping[str, float] | None = None,
        follow: float = FOLLOW,
    ) -> None:
        if not isinstance(checkpoint, str) or not checkpoint:
            raise ValueError(f"entropy: checkpoint is {checkpoint!r}, it must be a file: {REMEDY}")
        given = {"threshold": threshold, "rise": rise, "bytes_per_unit": bytes_per_unit}
        by_script = {option: per_script(option, value) for option, value in given.items() if value is not None}
        if threshold is None and rise is None:
            raise ValueError(
                "entropy: neither threshold nor rise is set, give one of them (in bits): "
                f"aunet entropy {checkpoint} TEXT.jsonl --bytes_per_unit 6 finds it"
            )
        number("entropy", "follow", follow, 0, above=True, most=MOST_BITS)
        self.checkpoint, self.threshold, self.rise = checkpoint, threshold, rise
        self.bytes_per_unit, self.follow = bytes_per_unit, follow
        self.scripts = script_runs(*by_script.values())
        self.bounds = bounds_of(by_script, self.scripts, follow)
        self.digest = load(checkpoint).digest  # the process holds the model itself: this object is small to pickle
        self._kept: list[KeptEntropies] = []

    @property
    def model(self) -> ByteModel:
        """The model of this process: inherited, or loaded on first use. Raises ValueError if its file has changed."""
        model = byte_model.loaded.get(self.digest) or load(self.checkpoint)
        if model.digest != self.digest:
            raise ValueError(
                f"entropy: {self.checkpoint} has changed since this splitter was made: "
                "restore it, or name a copy that no run overwrites"
            )
        return model

    def identity(self) -> bytes:
        return bytes.fromhex(self.digest) + self.scripts.identity()

    def bits(self, data: bytes) -> np.ndarray:
        """Returns float32 [len(data) + 1]: H after BOS, then after each byte; read from disk for a prepared text."""
        key = text_key(data)
        for kept in self._kept:
            if (found := kept.find(key, len(data))) is not None:
                return found
        return next(self.model.entropies([np.frombuffer(data, np.uint8)]))[1]

    @classmethod
    def at_rate(
        cls, options: Mapping[str, Any], texts: Sequence[bytes], bytes_per_unit: float
    ) -> tuple[dict[str, Any], float]:
        """Finds the bounds that the options name, or the threshold where they name none."""
        if not (checkpoint := options.get("checkpoint")):
            raise ValueError(f"entropy: checkpoint is {checkpoint!r}, it must be a file: {REMEDY}")
        by = {(True, True): "both", (False, True): "rise"}.get(("threshold" in options, "rise" in options), "global")
        arrays = [np.frombuffer(text, np.uint8) for text in texts]
        bits = [of_text for _, of_text in load(checkpoint).entropies(arrays, device())]
        bounds = find(bits, bytes_per_unit, by)
        found = sum(int(fires(of_text, bounds.get("threshold"), bounds.get("rise")).sum()) for of_text in bits)
        return {**options, **bounds}, sum(map(len, texts)) / found

    def split(self, data: bytes) -> np.ndarray:
        return self.bounds.fires(self.bits(data), self.scripts.groups(data))

    def stepper(self) -> Stepper:
        return _EntropyStepper(self)

    def prepare(self, folder: Path, texts: Sequence[np.ndarray]) -> None:
        """Computes the entropies of these documents and keeps them in `folder`, unless they are already there.

        They serve every threshold. Raises ValueError where the folder is not writable.
        """
        kept = KeptEntropies(folder, self.digest)
        if len(texts) and not kept.is_complete():
            size = sum(map(len, texts)) / 1e6
            what = f"{len(texts)} documents, {size:.2f} MB, of {kept.folder.name}"
            print(f"entropy: {what} through {self.checkpoint}, on {device()}:", end=" ", file=sys.stderr, flush=True)
            start = time.perf_counter()
            try:
                kept.write(self.model, texts)
            except OSError as error:
                raise ValueError(
                    f"entropy: cannot write to {folder} ({error}): name a writable data.cache_dir with enough space"
                ) from None
            print(f"{time.perf_counter() - start:.1f} s", file=sys.stderr)
        if kept.folder not in [other.folder for other in self._kept]:
            self._kept.append(kept)


class _EntropyStepper(Stepper):
    def __init__(self, rule: Entropy) -> None:
        self.rule = rule
        self.state: State | None = None  # None: BOS has not been read yet
        self.bits = 0.0  # H after the latest byte
        self.script = rule.scripts.start()
        self.counts = ((0, 0),) * len(rule.bounds.threshold)  # bytes and boundaries of each group

    def push(self, byte: int) -> bool:
        model, bounds = self.rule.model, self.rule.bounds
        if self.state is None:
            self.bits, self.state = model.step(BOS, model.net.initial_state(1))
        before = self.bits
        self.bits, self.state = model.step(byte, self.state)
        self.script = self.rule.scripts.push(self.script, byte)
        group = self.script[1]
        read, found = self.counts[group]
        shift = bounds.shift(group, read, found)
        passed = self.bits > bounds.threshold[group] + shift and self.bits - before > bounds.rise[group] + shift
        self.counts = (*self.counts[:group], (read + 1, found + bool(passed)), *self.counts[group + 1 :])
        return bool(passed)

    def __deepcopy__(self, memo: dict) -> _EntropyStepper:
        return copy.copy(self)  # what it holds are values, so copies may share them


def per_script(option: str, value: float | Mapping[str, float]) -> dict[str, float]:
    """Returns an option as numbers by script, `default` last. Raises ValueError for anything else."""
    least, unit = (1.0, "bytes, 1 or more") if option == "bytes_per_unit" else (-math.inf, "bits")
    numbers = dict(value) if isinstance(value, Mapping) else {DEFAULT: value}
    if DEFAULT not in numbers:
        raise ValueError(f"entropy: {option} is {value!r}, it must have a {DEFAULT}: text may be in any script")
    for script, one in numbers.items():
        right = isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) and one >= least
        if not right or not isinstance(script, str):
            where = f" of {script!r}" if isinstance(value, Mapping) else ""
            raise ValueError(f"entropy: {option}{where} is {one!r}, it must be a number of {unit}")
    return {script: float(one) for script, one in numbers.items() if script != DEFAULT} | {
        DEFAULT: float(numbers[DEFAULT])
    }


def script_runs(*by_script: Mapping[str, float]) -> ScriptRuns:
    """Returns the scripts that options name. Raises ValueError for a name that is not a script."""
    try:
        return ScriptRuns(tuple(dict.fromkeys(name for option in by_script for name in option if name != DEFAULT)))
    except ValueError as error:
        raise ValueError(f"entropy: {error}") from None


def bounds_of(by_script: Mapping[str, Mapping[str, float]], scripts: ScriptRuns, follow: float) -> Bounds:
    """Returns the bounds of each group of `scripts`, from options as `per_script` returns them."""

    def of(option: str) -> np.ndarray:
        numbers = by_script.get(option, {DEFAULT: -math.inf})
        return np.array([numbers.get(name, numbers[DEFAULT]) for name in (*scripts.names, DEFAULT)])

    rates = of("bytes_per_unit") if "bytes_per_unit" in by_script else None
    return Bounds(of("threshold"), of("rise"), rates, follow)
