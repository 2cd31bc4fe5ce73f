"""Metrics to a file first and to MLflow after: a run never waits for a server, nor dies with it.

Every point is a line of the run's metrics.jsonl before it is sent, in batches. What could not be sent
is sent later, or by the next command on the same run. A resumed run repeats some steps to the last
digit; points that are already there are not logged again.
"""

import fcntl
import json
import logging
import math
import os
import re
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from aunet_lightning.errors import UserError
from aunet_lightning.tracking.run_folder import RunFolder

SEND_EVERY = 10.0  # seconds between sends
BATCH = 500  # points per request; MLflow takes 1000
DEFAULT_STORE = Path("runs") / "mlflow.db"
_NOT_IN_NAMES = re.compile(r"[^/\w.\- :]")  # what MLflow refuses in the name of a metric (a language such as sr@latin)
AXES = ("bytes_seen", "flops")  # what other metrics are plotted over
BEST = {"val/bpb": "best/val_bpb"}  # the lowest value so far of one metric, under another name


def tracking_uri(configured: str | None) -> str:
    """Returns where runs are tracked: as configured, as $MLFLOW_TRACKING_URI says, or runs/mlflow.db."""
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{DEFAULT_STORE}"


class MLflowRunLogger(Logger):
    """Logs one run folder to one MLflow run, and goes on with both."""

    def __init__(
        self, folder: RunFolder, experiment: str, run_name: str, uri: str, params: dict[str, Any], tags: dict[str, str]
    ) -> None:
        super().__init__()
        self.folder, self.experiment, self.run_name, self.uri = folder, experiment, run_name, uri
        self.params, self.tags = params, tags
        self.run_id: str | None = None
        self.experiment_id = ""
        self._client: Any = None
        self._points: list[dict[str, Any]] = []  # of this run, all: the first `_sent` are in MLflow
        self._sent = 0
        self._last: dict[str, int] = {}
        self._lowest: dict[str, float] = {}
        self._next_send = 0.0
        self._told: set[str] = set()  # what has been warned of, since it last worked
        self._unwritten: list[str] = []  # lines that are not in the file yet
        self._texts: dict[str, str] = {}  # artifacts that are not in MLflow yet
        self._sender = ThreadPoolExecutor(1, "mlflow")  # a server that hangs holds up nobody
        self._sending: Future[bool] | None = None
        self.ends_as: str | None = None  # the status of a run that ends before it is done; None: FAILED

    @property
    def name(self) -> str:
        return self.experiment

    @property
    def version(self) -> str | None:
        return self.run_id

    @rank_zero_only
    def start(self) -> None:
        """Opens the MLflow run of the folder, or begins one. Raises UserError if the server does not answer."""
        try:
            self._client = open_store(self.uri)
            self._open()
        except UserError:
            raise
        except Exception as error:  # the client raises what its store raises
            raise UserError(f"run.tracking_uri: MLflow at {self.uri} does not answer ({_short(error)})") from None
        self._read_points()

    def _open(self) -> None:
        known = json.loads(self.folder.mlflow.read_text(encoding="utf-8")) if self.folder.mlflow.exists() else {}
        if known.get("tracking_uri") == self.uri:
            self.run_id, self.experiment_id = known["run_id"], known["experiment_id"]
            self._sent = known.get("sent", 0)
            self._client.update_run(self.run_id, status="RUNNING")
        else:
            self.experiment_id = experiment_id(self._client, self.uri, self.experiment)
            tags = {"mlflow.source.git.commit": commit(), "commit": commit(), "run_folder": str(self.folder.path)}
            run = self._client.create_run(self.experiment_id, run_name=self.run_name, tags=tags | self.tags)
            self.run_id, self._sent = run.info.run_id, 0
        logged = self._client.get_run(self.run_id).data.params
        for key, value in self.params.items():
            text = str(value)[:500]
            if key not in logged:
                self._client.log_param(self.run_id, key, text)
            elif logged[key] != text:  # MLflow does not change parameters
                self._client.set_tag(self.run_id, f"changed.{key}", text)
        self._keep_state()

    def _read_points(self) -> None:
        if self.folder.metrics.exists():
            # A kill can cut the last line short: it ends here, and its point is logged anew.
            whole, _, cut = self.folder.metrics.read_text(encoding="utf-8").rpartition("\n")
            if cut:
                self.folder.metrics.write_text(whole + "\n" if whole else "", encoding="utf-8")
            for line in whole.splitlines():
                self._remember(json.loads(line))

    def _remember(self, point: dict[str, Any]) -> None:
        self._points.append(point)
        for key, value in point["metrics"].items():
            self._last[key] = point["step"]
            if key in BEST:
                self._lowest[key] = min(value, self._lowest.get(key, math.inf))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keeps the metrics that have a section (`train/…`) or are axes, and are not there yet; sends now and then."""
        step = step or 0
        kept = {key: value for key, value in metrics.items() if "/" in key or key in AXES}
        named = {_NOT_IN_NAMES.sub("_", key): float(value) for key, value in kept.items()}
        fresh = {key: value for key, value in named.items() if step > self._last.get(key, -1)}
        for key in BEST.keys() & fresh.keys():
            fresh[BEST[key]] = min(fresh[key], self._lowest.get(key, math.inf))
        if not fresh:
            return
        point = {"step": step, "time": int(time.time() * 1000), "metrics": fresh}
        self._unwritten.append(json.dumps(point) + "\n")
        self._write()
        self._remember(point)
        if time.monotonic() >= self._next_send and (self._sending is None or self._sending.done()):
            self._sending = self._sender.submit(self._send)

    def _write(self) -> None:
        """Writes what is not in the file yet, all of it or nothing."""
        begin = 0
        try:
            with self.folder.metrics.open("ab", buffering=0) as file:
                begin = file.tell()
                written = file.write(text := "".join(self._unwritten).encode())
                if written != len(text):
                    file.truncate(begin)
                    raise OSError("no space left")
        except OSError as error:
            self._warn("file", f"{self.folder.metrics} cannot be written ({_short(error)}): its points wait in memory")
        else:
            self._told.discard("file")
            self._unwritten.clear()

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: a run's parameters are chosen ones, logged at its start; all settings are in config.yaml."""

    @rank_zero_only
    def log_text(self, text: str, artifact: str) -> None:
        """Keeps a text beside the run and as an artifact of it."""
        path = self.folder.path / artifact
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            self._warn("file", f"{path} cannot be written ({_short(error)})")
        self._texts[artifact] = text

    @rank_zero_only
    def send(self) -> bool:
        """Sends what is not yet sent, and waits. Returns whether all of it arrived."""
        return self._sender.submit(self._send).result()

    def _send(self) -> bool:
        """In the sender's thread: a failure is told once and tried later."""
        from mlflow.entities import Metric

        self._next_send = time.monotonic() + SEND_EVERY
        while self._sent < len(self._points):
            end, metrics = self._sent, list[Metric]()
            while end < len(self._points) and len(metrics) < BATCH:
                point = self._points[end]
                metrics += [Metric(key, value, point["time"], point["step"]) for key, value in point["metrics"].items()]
                end += 1
            if not self._try(lambda batch=metrics: self._client.log_batch(self.run_id, metrics=batch)):
                return False
            self._sent = end
            self._keep_state()
        for artifact, text in [*self._texts.items()]:
            if not self._try(lambda text=text, name=artifact: self._client.log_text(self.run_id, text, name)):
                return False
            if self._texts.get(artifact) is text:
                del self._texts[artifact]
        return True

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self.run_id is None:
            return
        if self._unwritten:
            self._write()
        if not self.send():
            rank_zero_warn(
                f"{len(self._points) - self._sent} points and {len(self._texts)} artifacts did not reach MLflow; they "
                f"are in {self.folder.path}, and the same command sends the points"
            )
        ended = "FINISHED" if status == "success" else self.ends_as or "FAILED"
        self._try(lambda: self._client.set_terminated(self.run_id, ended))

    def _try(self, call: Any) -> bool:
        try:
            call()
        except Exception as error:  # whatever the store raises, the run goes on
            self._warn(
                "mlflow",
                f"MLflow at {self.uri} does not answer ({_short(error)}); metrics wait in {self.folder.metrics}",
            )
            self._next_send = time.monotonic() + 3 * SEND_EVERY
            return False
        self._told.discard("mlflow")
        return True

    def _warn(self, what: str, text: str) -> None:
        """Warns once, until it has worked again."""
        if what not in self._told:
            self._told.add(what)
            rank_zero_warn(text)

    def _keep_state(self) -> None:
        state = {
            "run_id": self.run_id,
            "experiment_id": self.experiment_id,
            "tracking_uri": self.uri,
            "sent": self._sent,
        }
        part = self.folder.mlflow.with_suffix(".part")
        try:
            part.write_text(json.dumps(state), encoding="utf-8")
            part.replace(self.folder.mlflow)
        except OSError as error:
            self._warn("file", f"{self.folder.mlflow} cannot be written ({_short(error)})")


def open_store(uri: str) -> Any:
    """Returns MLflow's client of a store, which is made where it is a file that is not there."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    if not uri.startswith("sqlite:///"):
        return MlflowClient(uri)
    folder = Path(uri.removeprefix("sqlite:///")).parent
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{Path(uri).name}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = MlflowClient(uri)
        client.search_experiments(max_results=1)  # now, as the store is opened when it is first asked
        return client


def experiment_id(client: Any, uri: str, name: str) -> str:
    """Returns the id of an experiment, which is made if there is none of this name."""
    existing = client.get_experiment_by_name(name)
    if existing is not None:
        return str(existing.experiment_id)
    location = None
    if uri.startswith("sqlite:///"):  # beside the store, wherever the UI is opened
        location = (Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()
    note = "Bits per byte: `val/bpb` (lower is better), `best/val_bpb` the lowest. Filter by `params.splitter`."
    try:
        return str(client.create_experiment(name, location, tags={"mlflow.note.content": note}))
    except Exception:  # another run has just made it
        existing = client.get_experiment_by_name(name)
        if existing is None:
            raise
        return str(existing.experiment_id)


def ui_path(experiment_id: str) -> str:
    """Returns the part of an MLflow address that opens an experiment's charts at once."""
    return f"/#/experiments/{experiment_id}/runs?compareRunsMode=CHART&workflowType=machine_learning"


def ui_command(uri: str) -> str:
    """Returns the command that opens the UI of a store that is no server."""
    return "make ui" if uri == f"sqlite:///{DEFAULT_STORE}" else f"mlflow ui --backend-store-uri {uri}"


def commit() -> str:
    """Returns the commit of the code that runs, with `-dirty` where files differ from it, or `unknown`."""
    here = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--match="],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip()


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
