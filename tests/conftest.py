"""Small models, small text, and every splitter: what the tests are parametrised with."""

import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # as `aunet` does: threads that spin are slow beside other work
os.environ["OMP_NUM_THREADS"] = "1"  # the suite's processes have a core each, and repeat each other's sums

import pytest
import torch
from hypothesis import settings

from aunet_lightning import AUNet, AUNetConfig, StageConfig
from splitters import Stack, available

settings.register_profile("suite", deadline=None)  # the first call compiles
settings.load_profile("suite")

ROOT = Path(__file__).parent.parent
UDHR = ROOT / "experiments" / "data" / "udhr"
GOLDEN = Path(__file__).parent / "golden"
UPPER = {"name": "every", "n": 2}
N_STAGES = (1, 2, 3, 4)
MIXED = "All human: 12345.\nคน 人々は、ABC. मनुष्य é̂ 자유 🤝🏽 x\r\n".encode()


def stack_of(splitter: str, stages: int) -> Stack:
    """The splitter with `every` above it, for a model of so many stages."""
    return Stack([splitter, UPPER, UPPER][: stages - 1])


def tiny(stages: int = 3, **options) -> AUNetConfig:
    """A model that a test can afford: windows shorter than the row, every stage of another width."""
    shapes = [(16, 2, 4), (24, 1, 3), (16, 1, 2), (8, 2, None)]
    made = [
        StageConfig(dim=dim, layers=layers, head_dim=8, window=window) for dim, layers, window in shapes[: stages - 1]
    ]
    deepest = shapes[stages - 1]
    return AUNetConfig(stages=[*made, StageConfig(dim=deepest[0], layers=2, head_dim=8)], **options)


def tiny_model(config: AUNetConfig, seed: int = 0) -> AUNet:
    torch.manual_seed(seed)
    return AUNet(config).eval()


@pytest.fixture(params=available("rule"))
def splitter(request) -> str:
    return request.param


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)  # some tests set another number: more threads than cores wait for each other


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


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
