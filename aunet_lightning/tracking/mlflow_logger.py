"""Metrics to a file first and to MLflow after: a run never waits for a server, nor dies with it.

Every point is a line of the run's metrics.jsonl before it is sent, in batches. What could not be sent
is sent later, or by the next command on the same run. A resumed run repeats some steps to the last
digit; points that are already there are not logged again.
"""

import json
import math
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from aunet_lightning.errors import UserError
from aunet_lightning.tracking import points
from aunet_lightning.tracking.lock import holder
from aunet_lightning.tracking.run_folder import RunFolder
from aunet_lightning.tracking.sender import Sender, is_refused_artifact, send_metrics
from aunet_lightning.tracking.settling import abandon, settle_dead_runs, whereabouts
from aunet_lightning.tracking.store import (
    DEFAULT_STORE,
    experiment_id,
    explained,
    is_gone,
    is_refusal,
    open_store,
    restore_command,
    same_store,
    short,
    shown,
    store_uri,
    tracking_uri,
    ui_command,
    ui_path,
)

__all__ = [
    "DEFAULT_STORE", "MLflowRunLogger", "abandon", "commit", "experiment_id", "open_store", "settle_dead_runs",
    "tracking_uri", "ui_command", "ui_path",
]  # fmt: skip

SEND_EVERY = 10.0  # seconds between sends
LAST_SEND = 25.0  # seconds that the end of a run waits for MLflow
BATCH = 500  # points per request; MLflow takes 1000
LONGEST_PARAM = 500  # characters of a parameter
AXES = ("bytes_seen", "flops")  # what other metrics are plotted over
BEST = {"val/bpb": "best/val_bpb"}  # the lowest value so far of one metric, under another name


class MLflowRunLogger(Logger):
    """Logs one run folder to one MLflow run, and continues with both.

    Names of metrics arrive as they are: what is made of a label is made by `names.metric_name`.
    """

    def __init__(
        self, folder: RunFolder, experiment: str, run_name: str, uri: str, params: dict[str, Any], tags: dict[str, str]
    ) -> None:
        super().__init__()
        self.folder, self.experiment, self.run_name, self.uri = folder, experiment, run_name, uri
        self.params, self.tags = params, tags
        self.run_id: str | None = None
        self.experiment_id = ""
        self._client: Any = None
        self._points: list[points.Point] = []  # of this run, all: the first `_sent` are in MLflow
        self._sent = 0
        self._last: dict[str, int] = {}
        self._lowest: dict[str, float] = {}
        self._next_send = 0.0
        self._told: set[str] = set()  # what has been warned of, since it last worked
        self._unwritten: list[str] = []  # lines that are not in the file yet
        self._texts: dict[str, str] = {}  # artifacts that are not in MLflow yet
        self._refused: set[str] = set()  # names of metrics that MLflow does not take
        self._sender = Sender()
        self._sending: Future[bool] | None = None
        self._sets_status = True  # a run that has ended keeps its status when it is only validated
        self._waited = 0.0  # seconds that the end of the run has waited for MLflow
        self.ends_as: str | None = None  # the status of a run that ends before it is done; None: FAILED

    @property
    def name(self) -> str:
        return self.experiment

    @property
    def version(self) -> str | None:
        return self.run_id

    @rank_zero_only
    def start(self, training: bool = True) -> None:
        """Opens the MLflow run of the folder, or begins one where mlflow.json is not there, to which all points of
        metrics.jsonl are sent. Unless `training`, a run that is there keeps its status and its parameters.

        Raises UserError for a store that cannot be opened, and for a run, an experiment or an mlflow.json that is
        deleted or damaged.
        """
        self.uri = store_uri(self.uri)
        known = read_state(self.folder.mlflow)
        self._client = open_store(self.uri)
        self._read_points(known.get("sent", 0), mend=training or holder(self.folder.path) is None)
        try:
            if known and same_store(known["tracking_uri"], self.uri):
                self._continue(known, training)
            else:
                self._begin()
        except Exception as error:  # the client raises what its store raises
            names = "run.experiment, run.name or run.tags" if is_refusal(error) else None
            raise explained(error, self.uri, names) from None
        self._keep_state()
        settle_dead_runs(self._client, self.experiment_id, self.run_id if self._sets_status else None)

    def _continue(self, known: Mapping[str, Any], training: bool) -> None:
        self.run_id, self.experiment_id, self._sets_status = known["run_id"], known["experiment_id"], training
        run = self._run_there()
        if not training:
            return
        self._client.update_run(self.run_id, status="RUNNING")
        for key, tag in whereabouts(self.folder.path).items():
            self._client.set_tag(self.run_id, key, tag)
        if "died" in run.data.tags:
            self._client.delete_tag(self.run_id, "died")
        for key, text in self._param_texts().items():
            if key not in run.data.params:
                self._client.log_param(self.run_id, key, text)
            elif run.data.params[key] != text:  # MLflow does not change parameters
                self._client.set_tag(self.run_id, f"changed.{key}", text)

    def _run_there(self) -> Any:
        """The run that mlflow.json names. Raises UserError where it was deleted."""
        anew = f"remove {self.folder.mlflow} to log into a new run, to which all points of metrics.jsonl are sent"
        where = f"{self.folder.mlflow}: its run {self.run_id}"
        try:
            run = self._client.get_run(self.run_id)
        except Exception as error:
            if is_gone(error):
                store = f"MLflow at {shown(self.uri)}"
                raise UserError(f"{where} is not in {store}: name the right store, or {anew}") from None
            raise
        if self._client.get_experiment(self.experiment_id).lifecycle_stage == "deleted":
            back = restore_command(self.uri, "experiments", "--experiment-id", self.experiment_id)
            raise UserError(f"{where} is of an experiment that was deleted: bring it back ({back}), or {anew}")
        if run.info.lifecycle_stage == "deleted":
            back = restore_command(self.uri, "runs", "--run-id", str(self.run_id))
            raise UserError(f"{where} was deleted from MLflow: bring it back ({back}), or {anew}")
        return run

    def _begin(self) -> None:
        from mlflow.entities import Param

        self.experiment_id = experiment_id(self._client, self.uri, self.experiment)
        tags = {"mlflow.source.git.commit": commit(), "commit": commit(), "run_folder": str(self.folder.path)}
        tags |= whereabouts(self.folder.path) | self.tags
        run = self._client.create_run(self.experiment_id, run_name=self.run_name, tags=tags)
        self.run_id, self._sent, self._sets_status = run.info.run_id, 0, True
        self._keep_state()
        self._client.log_batch(self.run_id, params=[Param(key, text) for key, text in self._param_texts().items()])
        if before := self.tags.get("continues"):
            self._try(lambda: self._client.set_tag(before, "continued_by", self.run_id))

    def _param_texts(self) -> dict[str, str]:
        return {key: str(value)[:LONGEST_PARAM] for key, value in self.params.items()}

    def _read_points(self, sent: int, mend: bool) -> None:
        try:
            read = points.read_points(self.folder.metrics, mend)
        except OSError as error:
            raise UserError(
                f"{self.folder.metrics} cannot be read ({error.strerror}): allow it, or choose another run.folder"
            ) from None
        for point in read.points:
            self._remember(point)
        # Points are counted: past a damaged line the count is not sure. What is sent twice is there once.
        lost = sent > len(read.points)
        self._sent = min(sent, len(read.points) if read.sure is None else read.sure) if not lost else read.sure or 0

    def _remember(self, point: points.Point) -> None:
        self._points.append(point)
        for key, value in point["metrics"].items():
            self._last[key] = point["step"]
            if key in BEST and math.isfinite(value):
                self._lowest[key] = min(value, self._lowest.get(key, math.inf))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keeps the metrics that have a section (`train/…`) or are axes, and are not there yet; sends now and then."""
        step = step or 0
        named = {key: float(value) for key, value in metrics.items() if "/" in key or key in AXES}
        fresh = {key: value for key, value in named.items() if step > self._last.get(key, -1)}
        for key in BEST.keys() & fresh.keys():
            values = [value for value in (fresh[key], self._lowest.get(key, math.inf)) if math.isfinite(value)]
            if values:
                fresh[BEST[key]] = min(values)
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
        try:
            points.append(self.folder.metrics, "".join(self._unwritten))
        except OSError as error:
            self._warn("file", f"{self.folder.metrics} cannot be written ({short(error)}): its points wait in memory")
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
        except (OSError, ValueError) as error:
            self._warn(f"file {artifact}", f"{path} cannot be written ({short(error)})")
        self._texts[artifact] = text

    @rank_zero_only
    def send(self) -> bool:
        """Sends what is not yet sent, and waits. Returns whether MLflow answered all of it."""
        return bool(self._sender.submit(self._send).result())

    def _send(self) -> bool:
        """In the sender's thread: a failure is told once and tried later."""
        from mlflow.entities import Metric

        self._next_send = time.monotonic() + SEND_EVERY
        while self._sent < len(self._points):
            end, metrics = self._sent, list[Metric]()
            while end < len(self._points) and len(metrics) < BATCH:
                point = self._points[end]
                metrics += [
                    Metric(key, value, point["time"], point["step"])
                    for key, value in point["metrics"].items()
                    if key not in self._refused
                ]
                end += 1
            send = partial(send_metrics, self._client, str(self.run_id), metrics, self._refuse)
            if not self._try(send):
                return False
            self._sent = end
            self._keep_state()
        return all(self._send_text(artifact, text) for artifact, text in [*self._texts.items()])

    def _send_text(self, artifact: str, text: str) -> bool:
        def call() -> None:
            try:
                self._client.log_text(self.run_id, text, artifact)
            except Exception as error:
                if not is_refused_artifact(error):
                    raise
                self._warn(
                    f"artifact {artifact}",
                    f"MLflow at {shown(self.uri)} refuses the artifact {artifact!r} ({short(error)}): it is only in "
                    f"{self.folder.path}",
                )

        if not self._try(call):
            return False
        if self._texts.get(artifact) is text:
            del self._texts[artifact]
        return True

    def _refuse(self, name: str, error: Exception) -> None:
        self._refused.add(name)
        self._warn(
            f"metric {name}",
            f"MLflow at {shown(self.uri)} refuses the metric {name!r} ({short(error)}): its points are only in "
            f"{self.folder.metrics}",
        )

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Sends what is left, and lets MLflow show how the run ended. Raises nothing, and waits for LAST_SEND."""
        if self.run_id is None:
            return
        if self._unwritten:
            self._write()
        ended = "FINISHED" if status == "success" else self.ends_as or "FAILED"
        begin, arrived = time.monotonic(), False
        try:
            arrived = self._sender.submit(lambda: self._end(ended)).result(max(LAST_SEND - self._waited, 0.1))
        except Late:
            self._warn("mlflow", f"MLflow at {shown(self.uri)} does not answer within {LAST_SEND:.0f} seconds")
        except Exception as error:
            self._warn("mlflow", f"MLflow at {shown(self.uri)} does not answer ({short(error)})")
        self._waited += time.monotonic() - begin
        if not arrived:
            rank_zero_warn(
                f"{len(self._points) - self._sent} points and {len(self._texts)} artifacts did not reach MLflow; they "
                f"are in {self.folder.path}, and the same command sends the points"
            )

    def _end(self, status: str) -> bool:
        arrived = self._send()
        if self._sets_status:
            self._try(lambda: self._client.set_terminated(self.run_id, status))
        return arrived

    def _try(self, call: Callable[[], Any]) -> bool:
        try:
            call()
        except Exception as error:  # whatever the store raises, the run continues
            what = "no longer has this run" if is_gone(error) else "does not answer"
            told = f"MLflow at {shown(self.uri)} {what} ({short(error)})"
            self._warn("mlflow", f"{told}; metrics wait in {self.folder.metrics}")
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
            self._warn("state", f"{self.folder.mlflow} cannot be written ({short(error)})")


def read_state(path: Path) -> dict[str, Any]:
    """Returns what mlflow.json says, or {} where it is not there. Raises UserError where it is damaged."""
    if not path.exists():
        return {}
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        texts = [state[key] for key in ("run_id", "experiment_id", "tracking_uri")]
        whole = all(isinstance(text, str) and text for text in texts)
        whole = whole and type(state.get("sent", 0)) is int and state.get("sent", 0) >= 0
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise UserError(
            f"{path} is damaged: restore it, or remove it to log into a new MLflow run, to which all points of "
            "metrics.jsonl are sent"
        )
    return dict(state)


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
