"""Sending to MLflow in a background thread. A refused name costs one metric."""

import errno
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from aunet_lightning.tracking.store import is_refusal

_OF_NAMES = (errno.ENAMETOOLONG, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EILSEQ)


class Sender:
    """Makes calls one after another in a daemon thread: a server that hangs delays neither a run nor its end."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, call: Callable[[], Any]) -> "Future[Any]":
        """Queues a call and returns the future of its result."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
            self._thread.start()
        future: Future[Any] = Future()
        self._calls.put((call, future))
        return future

    def _work(self) -> None:
        while True:
            call, future = self._calls.get()
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)


def send_metrics(client: Any, run_id: str, metrics: Sequence[Any], refused: Callable[[str, Exception], None]) -> None:
    """Sends metrics in one request, or name by name where MLflow refuses that; calls `refused` for each refused name.

    Raises all other errors. Any of the metrics may then have arrived; sending them again adds no points.
    """
    try:
        client.log_batch(run_id, metrics=metrics)
        return
    except Exception as error:
        if not is_refusal(error):
            raise
    named: dict[str, list[Any]] = {}
    for metric in metrics:
        named.setdefault(metric.key, []).append(metric)
    faults: dict[str, Exception] = {}
    for name, of_name in named.items():
        try:
            client.log_batch(run_id, metrics=of_name)
        except Exception as error:
            if not is_refusal(error):
                raise
            faults[name] = error
    # A damaged database answers like a bad request, but to every request.
    vague = [fault for fault in faults.values() if getattr(fault, "error_code", "") != "INVALID_PARAMETER_VALUE"]
    if vague and len(faults) == len(named):
        raise vague[0]
    for name, fault in faults.items():
        refused(name, fault)


def is_refused_artifact(error: Exception) -> bool:
    """Returns whether an artifact was refused for its name or its text, and so would be refused again."""
    if isinstance(error, OSError):
        return error.errno in _OF_NAMES
    return isinstance(error, ValueError) or is_refusal(error)
