"""MLflow logger that writes metrics to a file first: a run neither waits for a server nor dies with it.

Every point is a line of the run's metrics.jsonl before it is sent, in batches. Points that could not be sent are sent
later, or by the next command on the same run. A resumed run repeats some steps to the last digit; points already
logged are not logged again.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from aunet_lightning.errors import UserError
from aunet_lightning.paths import replace_text
from aunet_lightning.tracking import points
from aunet_lightning.tracking.lock import holder
from aunet_lightning.tracking.mlflow_page import MLflowPage, commit, source_tags
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
BATCH = 500  # points per request; MLflow allows 1000
LONGEST_PARAM = 500  # characters of a parameter
AXES = ("bytes_seen", "flops")  # over which other metrics are plotted
BEST = {"val/bpb": "best/val_bpb"}  # metric: the name of its lowest value so far


class MLflowRunLogger(Logger):
    """Logs one run folder to one MLflow run, and continues both.

    Names of metrics are not changed here: `names.metric_name` makes those that contain labels.
    """

    def __init__(
        self,
        folder: RunFolder,
        experiment: str,
        run_name: str,
        uri: str,
        params: dict[str, Any],
        tags: dict[str, str],
        about: str = "",  # the run in a sentence, for people
    ) -> None:
        super().__init__()
        self._about = about
        self._page: MLflowPage | None = None
        self.folder, self.experiment, self.run_name, self.uri = folder, experiment, run_name, uri
        self.params, self.tags = params, tags
        self.run_id: str | None = None
        self.experiment_id = ""
        self._client: Any = None
        self._points: list[points.Point] = []  # all of this run; the first `_sent` are in MLflow
        self._sent = 0
        self._last: dict[str, int] = {}
        self._lowest: dict[str, float] = {}
        self._next_send = 0.0
        self._warned: set[str] = set()  # subjects of warnings, until they work again
        self._unwritten: list[str] = []  # lines not yet in the file
        self._texts: dict[str, str] = {}  # artifacts not yet in MLflow
        self._refused: set[str] = set()  # names of metrics that MLflow refuses
        self._sender = Sender()
        self._sending: Future[bool] | None = None
        self._sets_status = True  # false: validation keeps the status of an ended run
        self._waited = 0.0  # seconds that the end of the run has waited for MLflow
        self.ends_as: str | None = None  # status of a run that ends early; None: FAILED

    @property
    def name(self) -> str:
        return self.experiment

    @property
    def version(self) -> str | None:
        return self.run_id

    @rank_zero_only
    def start(self, training: bool = True) -> None:
        """Opens the folder's MLflow run. Without mlflow.json, begins one and sends it all points of metrics.jsonl.
        Unless `training`, an existing run keeps its status and its parameters.

        Raises UserError for a store that cannot be opened, for a deleted run or experiment, and for a damaged
        mlflow.json.
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
        self._page = MLflowPage(
            self._client, self.experiment_id, str(self.run_id), self._about, self.tags.get("splitter", "")
        )
        if not known:
            self._try(partial(self._page.begin, self.folder.data))
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
        """Returns the run that mlflow.json names. Raises UserError where it was deleted."""
        anew = f"remove {self.folder.mlflow} to send all points of metrics.jsonl to a new run"
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
        version = commit()
        tags = {"mlflow.source.git.commit": version, "commit": version, "run_folder": str(self.folder.path)}
        tags |= source_tags() | whereabouts(self.folder.path) | self.tags
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
        # Points are known by count, which is uncertain past a damaged line. Points sent twice are stored once.
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
        """Keeps new metrics that have a section (`train/…`) or are axes; sends from time to time."""
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
        """Appends the unwritten lines to the file, all or none."""
        try:
            points.append(self.folder.metrics, "".join(self._unwritten))
        except OSError as error:
            self._warn("file", f"{self.folder.metrics} cannot be written ({short(error)}): its points wait in memory")
        else:
            self._warned.discard("file")
            self._unwritten.clear()

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: selected parameters are logged at the start of a run; config.yaml has all settings."""

    @rank_zero_only
    def log_text(self, text: str, artifact: str) -> None:
        """Keeps a text in the run's folder and as an artifact."""
        path = self.folder.path / artifact
        part = path.with_name(path.name + ".part")  # other ranks may be reading config.yaml
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(text, encoding="utf-8")
            part.replace(path)
        except (OSError, ValueError) as error:
            self._warn(f"file {artifact}", f"{path} cannot be written ({short(error)})")
            with suppress(OSError, ValueError):
                part.unlink()
        self._texts[artifact] = text

    @rank_zero_only
    def send(self) -> bool:
        """Sends everything unsent, and waits. Returns whether all of it arrived."""
        return bool(self._sender.submit(self._send).result())

    def _send(self) -> bool:
        """Runs in the sender's thread. A failure is reported once, and the rest is tried later."""
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
        if self._page is not None and not self._show(self._page):
            return False
        return all(self._send_text(artifact, text) for artifact, text in [*self._texts.items()])

    def _show(self, page: MLflowPage) -> bool:
        """Sends what changes on the run's pages while it runs."""
        load = page.load(max(self._last.values(), default=0))
        return self._try(partial(page.grow, self._last.keys())) and (
            not load or self._try(partial(self._client.log_batch, self.run_id, metrics=load))
        )

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
        """Sends what is left and sets the status of the run. Raises nothing, and waits at most LAST_SEND seconds."""
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
        if self._page is not None:
            last = {key: value for point in self._points for key, value in point["metrics"].items()}
            self._try(partial(self._page.end, last, max(self._last.values(), default=0)))
        if self._sets_status:
            self._try(lambda: self._client.set_terminated(self.run_id, status))
        return arrived

    def _try(self, call: Callable[[], Any]) -> bool:
        try:
            call()
        except Exception as error:  # whatever the store raises, the run continues
            what = "no longer has this run" if is_gone(error) else "does not answer"
            problem = f"MLflow at {shown(self.uri)} {what} ({short(error)})"
            self._warn("mlflow", f"{problem}; metrics wait in {self.folder.metrics}")
            self._next_send = time.monotonic() + 3 * SEND_EVERY
            return False
        self._warned.discard("mlflow")
        return True

    def _warn(self, what: str, text: str) -> None:
        """Warns once, until the subject works again."""
        if what not in self._warned:
            self._warned.add(what)
            rank_zero_warn(text)

    def _keep_state(self) -> None:
        state = {
            "run_id": self.run_id,
            "experiment_id": self.experiment_id,
            "tracking_uri": self.uri,
            "sent": self._sent,
        }
        try:
            replace_text(self.folder.mlflow, json.dumps(state))
        except OSError as error:
            self._warn("state", f"{self.folder.mlflow} cannot be written ({short(error)})")


def read_state(path: Path) -> dict[str, Any]:
    """Returns the contents of mlflow.json, or {} without one. Raises UserError where it is damaged."""
    if not path.exists():
        return {}
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        texts = [state[key] for key in ("run_id", "experiment_id", "tracking_uri")]
        intact = all(isinstance(text, str) and text for text in texts)
        intact = intact and type(state.get("sent", 0)) is int and state.get("sent", 0) >= 0
    except (ValueError, KeyError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise UserError(
            f"{path} is damaged: restore it, or remove it to send all points of metrics.jsonl to a new MLflow run"
        )
    return dict(state)
