"""Ends a process together with the one that started it."""

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import wait

GRACE = 10.0  # seconds between SIGTERM and the forced end


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
