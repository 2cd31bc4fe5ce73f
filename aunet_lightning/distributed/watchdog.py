"""Detects a lost process of the run, names it, and ends the others, which would wait for it in vain.

Each process sends heartbeats through the store by which the processes found each other, watches those of the rank
before it, and reports a loss to all. A process that lives and hangs keeps sending: the strategy's time-out ends that.
"""

import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer

from aunet_lightning.errors import describe, first_line

BEATS = 10  # in a time-out
DONE = "done"
# How the libraries report that another process is gone.
OF_OTHERS = re.compile(r"gloo|NCCL|nccl|[Cc]onnection (closed|reset|refused)|[Bb]roken pipe|[Tt]imed out|process group")


class Watchdog(Callback):
    """Watches from a trainer's setup to its teardown; idle in a run of one process."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.pulse: Pulse | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.pulse is None and trainer.world_size > 1 and dist.is_available() and dist.is_initialized():
            store = dist.distributed_c10d._get_default_store()

            def end(message: str) -> None:
                print(f"aunet: error: {message}. Ending this process (rank {trainer.global_rank})", file=sys.stderr)
                sys.stderr.flush()
                if trainer.is_global_zero and (launcher := trainer.strategy.launcher) is not None:
                    launcher.kill(9)
                for logger in trainer.loggers:
                    threading.Thread(target=logger.finalize, args=("failed",), daemon=True).start()
                time.sleep(3.0 if trainer.is_global_zero else 0.0)  # for the loggers
                os._exit(1)

            self.pulse = Pulse(store, trainer.global_rank, trainer.world_size, self.timeout, end)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self.pulse is not None:
            self.pulse.fail(exception)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.pulse is not None:
            self.pulse.stop()
            self.pulse = None


class Pulse:
    """The heartbeats of one process, and its watch over another's.

    store: of torch.distributed; the pulse opens its own connection. end: called with a message once another process
    is lost.
    """

    def __init__(self, store: Any, rank: int, world: int, timeout: float, end: Callable[[str], None]) -> None:
        self.store = dist.PrefixStore("aunet-pulse", store.clone())
        self.rank, self.world, self.timeout, self.end = rank, world, timeout, end
        self.watched = (rank - 1) % world
        self.stopped = threading.Event()
        self.failed = False
        self.store.set(f"who{rank}", f"rank {rank} (host {socket.gethostname()}, process {os.getpid()})")
        self.store.set(f"beat{rank}", "0")
        self.thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.thread.start()

    def fail(self, error: BaseException) -> None:
        """Reports to the others that this process ends by an error of its own; where the error is that another is
        gone, waits until the watch knows which."""
        if isinstance(error, RuntimeError) and OF_OTHERS.search(str(error)):
            self.thread.join(2 * self.timeout)  # `end` ends this process
        elif not getattr(error, "agreed", False):  # else all stop by the same error
            self.failed = True
            self._set("gone", f"rank {self.rank} (host {socket.gethostname()}) failed: {describe(error, 300)}")

    def stop(self) -> None:
        """Ends the watch, and reports that this process is done."""
        self.stopped.set()
        self.thread.join(self.timeout)
        self._set(f"beat{self.rank}", DONE)

    def _set(self, key: str, value: str) -> None:
        try:
            self.store.set(key, value)
        except RuntimeError:  # rank 0 holds the store, and is done
            return

    def _watch(self) -> None:
        seen, since, beat = "", time.monotonic(), 0
        while not self.stopped.wait(self.timeout / BEATS):
            beat += 1
            try:
                self.store.set(f"beat{self.rank}", str(beat))
                if self.store.check(["gone"]) and not self.failed:
                    return self.end(self.store.get("gone").decode())
                if not self.store.check([f"beat{self.watched}"]):
                    continue  # not started yet
                now = self.store.get(f"beat{self.watched}").decode()
            except RuntimeError as error:
                if self.stopped.is_set():
                    return None
                return self.end(f"rank 0 is gone: its store does not answer ({first_line(error, 100)})")
            if now != seen:
                seen, since = now, time.monotonic()
            elif now != DONE and time.monotonic() - since > self.timeout:
                who = self.store.get(f"who{self.watched}").decode()
                gone = f"{who} has sent no heartbeat for {self.timeout:.0f} s: it was killed, or its host is gone"
                self._set("gone", gone)
                return self.end(gone)
        return None
