"""Processes that end with the one that started them."""

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import wait

GRACE = 10.0  # seconds between being told to end and being ended


def end_with_parent(grace: float = GRACE) -> None:
    """Ends this process as soon as that which started it is gone, however it ended; by SIGTERM, unless `grace` is 0.

    Those that a fork server makes need this: it is their parent for the system, and lives as long as they do.
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
