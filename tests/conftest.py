"""The fixtures of all tests. (What they import is in helpers.py.)"""

import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # as `aunet` does: threads that spin are slow beside other work
os.environ["OMP_NUM_THREADS"] = "1"  # the suite's processes have a core each, and repeat each other's sums

# Processes that a test starts import this tree, too.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH")])
)

import pytest
import torch
import yaml
from hypothesis import settings

from splitters import available
from tests.helpers import SETTINGS, TINY, place_store, sentences, write

settings.register_profile("suite", deadline=None)  # the first call compiles
settings.load_profile("suite")


@pytest.fixture(params=available("rule"))
def splitter(request) -> str:
    return request.param


@pytest.fixture(autouse=True)
def _as_a_new_process():
    """What PyTorch keeps for a whole process, and an earlier test may have set."""
    torch.set_num_threads(1)  # more threads than cores wait for each other
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def store_template(pytestconfig):
    """An empty MLflow store, made by MLflow itself once per version: its 60 migrations take seconds."""
    path = Path(pytestconfig.cache.mkdir("mlflow")) / f"{version('mlflow')}.db"
    if not path.exists():
        from mlflow.tracking import MlflowClient

        part = path.with_suffix(f".{os.getpid()}")
        MlflowClient(f"sqlite:///{part}").search_experiments(max_results=1)
        part.replace(path)
    return path


@pytest.fixture
def uri(tmp_path, store_template):
    """The URI of an empty MLflow store."""
    return place_store(store_template, tmp_path / "store" / "mlflow.db")


@pytest.fixture
def here(tmp_path, monkeypatch, store_template):
    """The folder to run in, with the settings TINY, a text and an MLflow store of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place_store(store_template, tmp_path / "runs" / "mlflow.db"))
    monkeypatch.setenv("AUNET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    write(tmp_path / "en.jsonl", sentences(1))
    return tmp_path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder to run in, with the settings in it."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS, sort_keys=False))
    return folder


@pytest.fixture
def _in_place(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("AUNET_CACHE", str(place / "cache"))


# Of half a minute and more each: they come first, so that no process is left with one at the end.
LONGEST = (
    "distributed", "runs", "compare", "splitter_laws", "state", "generation", "plan", "optimizer", "steps", "learned",
    "tutorial", "own_project", "study_report",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    place = {f"test_{name}": i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
