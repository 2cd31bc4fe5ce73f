"""The runs of some tests in MLflow: begin one, and read its status and its points."""

from mlflow.tracking import MlflowClient

from aunet_lightning.tracking.mlflow_logger import MLflowRunLogger
from aunet_lightning.tracking.run_folder import RunFolder


def logger(tmp_path, uri, training=True, tags=None, **params):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir(parents=True, exist_ok=True)
    made = MLflowRunLogger(folder, "test", "a run", uri, {"lr": 0.1, **params}, {"splitter": "fixed"} | (tags or {}))
    made.start(training)
    return made


def status(uri, run_id):
    return MlflowClient(uri).get_run(run_id).info.status


def history(uri, run_id, key):
    return [(point.step, point.value) for point in MlflowClient(uri).get_metric_history(run_id, key)]
