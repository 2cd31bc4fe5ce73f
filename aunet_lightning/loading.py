"""Loading of libraries: without what nothing here uses, and without looking for garbage, of which there is none."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def quick_loading() -> Iterator[None]:
    """A context to import Lightning or MLflow in: takes three quarters of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        _load_torchmetrics()
        yield
    finally:
        if enabled:
            gc.enable()


def _load_torchmetrics() -> None:
    """Loads torchmetrics, which Lightning imports, without scipy.signal, to which it only adds an old name (hamming)
    for another package. Whoever imports scipy.signal later gets it."""
    if "torchmetrics" in sys.modules or "scipy.signal" in sys.modules:
        return
    standing_in = ModuleType("scipy.signal")
    standing_in.hamming = None  # type: ignore[attr-defined]
    sys.modules["scipy.signal"] = standing_in
    try:
        import torchmetrics  # noqa: F401
    finally:
        del sys.modules["scipy.signal"]
        scipy = sys.modules.get("scipy")
        if getattr(scipy, "signal", None) is standing_in:
            del scipy.signal  # type: ignore[union-attr]
