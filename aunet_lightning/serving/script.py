"""The code of a model in MLflow, which copies this file beside the exported folder and runs it there."""

from pathlib import Path

from mlflow.models import set_model

from aunet_lightning.serving.model import Served

set_model(Served(Path(__file__).parent / "model"))
