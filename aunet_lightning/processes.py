"""What a process asks of the system: to end together with the one that started it, and to keep its memory."""

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import wait

GRACE = 10.0  # seconds between SIGTERM and the forced end
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # options of mallopt (malloc.h)


def end_with_parent(grace: float = GRACE) -> None:
    """Ends this process once the process that started it is gone, however that ended; first by SIGTERM, unless
    `grace` (seconds) is 0.

    Processes of a fork server need this: to the system the server is their parent, and it lives as long as they do.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel, grace), name="end with parent", daemon=True).start()


def _watch(sentinel: int, grace: float) -> None:
    wait([sentinel])
    if grace:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
    os._exit(1)


def keep_freed_memory() -> None:
    """Lets the C library keep what tensors free. By default it gives large ones back to the system, which fills each
    new one with zeros, page by page: a tenth of a training step on a CPU, and a fifth of one of small tensors.

    Does nothing where the library is not glibc, or where MALLOC_MMAP_THRESHOLD_ in the environment says otherwise.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
