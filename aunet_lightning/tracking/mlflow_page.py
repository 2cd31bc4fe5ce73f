"""What MLflow's pages show of a run beside its metrics: a description, its text, who ran it and how, the machine's
load, and the experiment's charts (`views`)."""

import getpass
import importlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from aunet_lightning.tracking import views

LONGEST_COMMAND = 1000  # characters
COLOURS = (  # of Okabe and Ito, then Tol: told apart by the colour blind, too
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f5a3c", "#332288", "#117733", "#882255",
    "#999933", "#44aa99",
)  # fmt: skip
COLOUR, COLOURED = "mlflow.runColor", "colours"  # tags: of a run; of an experiment, by splitter
MONITORS = {  # MLflow's, each with what it needs
    "cpu_monitor": "CPUMonitor", "disk_monitor": "DiskMonitor", "network_monitor": "NetworkMonitor",
    "gpu_monitor": "GPUMonitor", "rocm_monitor": "ROCMMonitor",
}  # fmt: skip
SWITCH = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
NOTE = "mlflow.note.content"


def source_tags() -> dict[str, str]:
    """Returns the tags from which MLflow shows who runs what. It shows of a source what follows the last slash."""
    command = shlex.join(["aunet", *sys.argv[1:]]).encode("utf-8", "replace").decode()
    source = " ".join(["aunet", *sys.argv[1:2]]).encode("utf-8", "replace").decode()
    tags = {"command": command[:LONGEST_COMMAND], "mlflow.source.name": source, "mlflow.source.type": "LOCAL"}
    with suppress(OSError, KeyError, ImportError):  # a user without a name
        tags["mlflow.user"] = getpass.getuser()
    return tags


class MLflowPage:
    """The pages of a run and of its experiment. Methods raise what MLflow's client raises."""

    def __init__(self, client: Any, experiment_id: str, run_id: str, about: str, splitter: str) -> None:
        self._client, self._experiment, self._run = client, experiment_id, run_id
        self._about, self._splitter = about, splitter
        self._arranged: set[str] = set()
        self._monitors: list[Any] | None = None

    def begin(self, described: Path) -> None:
        """Describes a new run, and names its text, as the file `data.json` tells it."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        self._client.set_tag(self._run, NOTE, self._about)
        self._client.set_tag(self._run, COLOUR, self._colour())
        if not described.exists():
            return
        inputs = []
        for part, text in json.loads(described.read_text(encoding="utf-8")).items():
            languages = ", ".join(text["languages"])
            label = languages if len(text["languages"]) < 4 else f"{len(text['languages'])} languages"
            profile = {"documents": text["documents"], "bytes": text["bytes"], "languages": languages}
            if "mix" in text:
                profile["mix"] = ", ".join(f"{name} {share:.1%}" for name, share in text["mix"].items())
            source = json.dumps({"files": text["files"]})
            dataset = Dataset(
                f"{part}: {label}"[:500], text["digest"][:36], "local", source, profile=json.dumps(profile)
            )
            inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", part)]))
        self._client.log_inputs(self._run, inputs)

    def _colour(self) -> str:
        """The colour of the experiment's runs with this splitter; of a new one the next colour."""
        known = json.loads(self._client.get_experiment(self._experiment).tags.get(COLOURED, "{}"))
        if self._splitter not in known:
            known[self._splitter] = COLOURS[len(known) % len(COLOURS)]
            if len(text := json.dumps(known)) <= views.LONGEST:
                self._client.set_experiment_tag(self._experiment, COLOURED, text)
        return str(known[self._splitter])

    def grow(self, keys: Collection[str]) -> None:
        """Arranges the charts of the experiment, once there are new metrics."""
        if not self._arranged.issuperset(keys):
            views.arrange(self._client, self._experiment, keys)
            self._arranged |= set(keys)

    def end(self, last: Mapping[str, float], step: int) -> None:
        """Adds the result to the description."""
        bpb, best = last.get("val/bpb"), last.get("best/val_bpb")
        if bpb is not None:
            lowest = f", lowest {best:.3f}" if best is not None and best < bpb else ""
            self._client.set_tag(
                self._run, NOTE, f"{self._about}\n\n**{bpb:.3f} bits per byte** at step {step}{lowest}"
            )

    def load(self, step: int) -> list[Any]:
        """Returns the machine's load since the last call, as MLflow names and measures it; nothing where
        $MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is false."""
        from mlflow.entities import Metric

        if self._monitors is None:
            self._monitors = [] if os.environ.get(SWITCH, "").lower() in ("false", "0") else _monitors()
            self._measure()
            return []
        now = int(time.time() * 1000)
        return [Metric(f"system/{name}", value, now, step) for name, value in self._measure().items()]

    def _measure(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for monitor in self._monitors or []:
            monitor.collect_metrics()
            found |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return found


def _monitors() -> list[Any]:
    """The monitors for which this machine has what they need."""
    found = []
    for module, name in MONITORS.items():
        with suppress(Exception):  # a library or a driver that is not there
            found.append(getattr(importlib.import_module(f"mlflow.system_metrics.metrics.{module}"), name)())
    return found


def commit() -> str:
    """Returns the commit of the running code, with `-dirty` where files differ from it, or `unknown`."""
    here = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--match="],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip()
