"""Loading of large libraries without what costs time and gives nothing."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def without_collection() -> Iterator[None]:
    """A context without garbage collection, to load modules in: all that they make stays, and looking through it again
    and again takes a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def load_torchmetrics() -> None:
    """Loads torchmetrics, which Lightning imports, without scipy.signal: it takes a second, and torchmetrics only adds
    an old name (hamming) to it, for another package. Whoever imports scipy.signal later gets it."""
    if "torchmetrics" in sys.modules or "scipy.signal" in sys.modules:
        return
    standing_in = ModuleType("scipy.signal")
    standing_in.hamming = None  # type: ignore[attr-defined]
    sys.modules["scipy.signal"] = standing_in
    try:
        import torchmetrics  # noqa: F401
    finally:
        del sys.modules["scipy.signal"]
        names = vars(sys.modules.get("scipy", standing_in))  # getattr would load it
        if names.get("signal") is standing_in:
            del names["signal"]
