"""Writes values down to the last bit."""

import contextlib
import hashlib
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from same.settings import Record


def exact(value: Any) -> Any:
    """Returns a value as JSON keeps it to the last bit."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        raw = value.detach().cpu().contiguous()
        data = raw.reshape(-1).view(torch.uint8).numpy().tobytes() if raw.numel() else b""
        return f"{str(raw.dtype).removeprefix('torch.')} {[*raw.shape]} {sha(data)}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {[*value.shape]} {sha(np.ascontiguousarray(value).tobytes())}"
    if isinstance(value, bool | int | str | None):
        return value
    if isinstance(value, float):
        return f"{value.hex()} ({value:.9g})"
    if isinstance(value, list | tuple):
        return [exact(one) for one in value]
    if isinstance(value, Mapping):
        return {str(key): exact(one) for key, one in value.items()}
    return repr(value)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yields (path, leaf) of nested mappings and of lists of mappings or tensors."""
    import torch

    nested = isinstance(value, list | tuple) and any(isinstance(one, Mapping | torch.Tensor) for one in value)
    if isinstance(value, Mapping) and value:
        for key, one in value.items():
            yield from flat(one, f"{prefix}/{key}")
    elif nested:
        for i, one in enumerate(value):
            yield from flat(one, f"{prefix}/{i}")
    else:
        yield prefix, exact(value)


class Recorder:
    """Adds to a record part by part; a part that fails is an entry of the record too."""

    def __init__(self) -> None:
        self.found: Record = {}

    def add(self, key: str, value: Any) -> None:
        n = 1
        while (name := key if n == 1 else f"{key} #{n}") in self.found:
            n += 1
        self.found[name] = exact(value)

    def add_flat(self, key: str, value: Any) -> None:
        for name, one in flat(value, key):
            self.add(name, one)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        begin = time.monotonic()
        try:
            yield
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            traceback.print_exc()
            self.add(f"FAILED/{name}", f"{type(error).__name__}: {str(error)[:300]}")
        print(f"{time.monotonic() - begin:6.1f} s  {name}", file=sys.stderr, flush=True)
