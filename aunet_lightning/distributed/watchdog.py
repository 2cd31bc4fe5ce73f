"""Notices that a process of the run is gone, says which, and ends this one: none waits for it in vain.

Each process gives a sign of life through the store by which the processes found each other, and looks after the one
before it; what it finds, it tells all. This is no way to end a process that lives and hangs: that is what the
strategy's time-out is for.
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

SIGNS = 10  # of life in a time-out
DONE = "done"
# How the libraries put it that somebody else is gone.
OF_OTHERS = re.compile(r"gloo|NCCL|nccl|[Cc]onnection (closed|reset|refused)|[Bb]roken pipe|[Tt]imed out|process group")


class Watchdog(Callback):
    """Watches from the setup of a trainer to its teardown. Does nothing where there is one process."""

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
    """The signs of life of one process, and its look at another's.

    store: of torch.distributed; a connection of its own is made to it. end: what to do with the news that another
    process is gone.
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
        """Tells the others that this process ends by an error of its own; where the error is that another is gone,
        waits until it is known which."""
        text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
        if isinstance(error, RuntimeError) and OF_OTHERS.search(str(error)):
            self.thread.join(2 * self.timeout)  # `end` ends this process
        elif not getattr(error, "agreed", False):  # else all stop by that
            self.failed = True
            self._set("gone", f"rank {self.rank} (host {socket.gethostname()}) failed: {text}")

    def stop(self) -> None:
        """Ends the watch: whoever looks after this process knows that it is done."""
        self.stopped.set()
        self.thread.join(self.timeout)
        self._set(f"beat{self.rank}", DONE)

    def _set(self, key: str, value: str) -> None:
        try:
            self.store.set(key, value)
        except RuntimeError:  # rank 0, which holds the store, is done
            return

    def _watch(self) -> None:
        seen, since, beat = "", time.monotonic(), 0
        while not self.stopped.wait(self.timeout / SIGNS):
            beat += 1
            try:
                self.store.set(f"beat{self.rank}", str(beat))
                if self.store.check(["gone"]) and not self.failed:
                    return self.end(self.store.get("gone").decode())
                if not self.store.check([f"beat{self.watched}"]):
                    continue  # it has not begun
                now = self.store.get(f"beat{self.watched}").decode()
            except RuntimeError as error:
                if self.stopped.is_set():
                    return None
                return self.end(
                    f"rank 0 is gone: its store does not answer ({(str(error).splitlines() or [''])[0][:100]})"
                )
            if now != seen:
                seen, since = now, time.monotonic()
            elif now != DONE and time.monotonic() - since > self.timeout:
                who = self.store.get(f"who{self.watched}").decode()
                gone = f"{who} has given no sign of life for {self.timeout:.0f} s: it was killed, or its host is gone"
                self._set("gone", gone)
                return self.end(gone)
        return None
