"""Results that a command finds of a run after it has ended, kept with it."""

import json
from collections.abc import Mapping
from types import MappingProxyType

from lightning_utilities.core.rank_zero import rank_zero_warn

from aunet_lightning.tracking.mlflow_logger import MLflowRunLogger
from aunet_lightning.tracking.run_folder import RunFolder
from aunet_lightning.tracking.store import short


def keep_results(
    folder: RunFolder, metrics: Mapping[str, float], step: int, texts: Mapping[str, str] = MappingProxyType({})
) -> bool:
    """Adds metrics to a run's `metrics.jsonl` and to its MLflow run, and texts to its files and artifacts; returns
    whether the folder has one.

    A store that cannot be reached is a warning: the next command on the run sends what is missing.
    """
    if not folder.mlflow.exists():
        return False
    try:
        uri = json.loads(folder.mlflow.read_text(encoding="utf-8"))["tracking_uri"]
        logger = MLflowRunLogger(folder, "", "", uri, {}, {})
        logger.start(training=False)
        logger.log_metrics(metrics, step)
        for artifact, text in texts.items():
            logger.log_text(text, artifact)
        logger.finalize("success")
    except (OSError, ValueError, KeyError) as error:
        rank_zero_warn(f"the results are not kept in {folder.path} ({short(error)})")
        return False
    return True
