"""A run's model in MLflow: a logged model (`pyfunc`, from code), and an entry of the registry where one is wanted."""

import json
import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aunet_lightning import __version__
from aunet_lightning.checkpoints.carried import export_folder
from aunet_lightning.checkpoints.forms import read_metadata
from aunet_lightning.paths import PART, remove
from aunet_lightning.reports.model_card import model_card
from aunet_lightning.tracking.store import VARIABLE, open_store, shown

NAME = "model"  # of the logged model, and of the exported folder in it
STEP, VERSIONS = "step", "mlflow.modelVersions"  # a parameter and a tag of a logged model
BESIDE = ("mlflow", "numpy", "safetensors", "torch")  # what the model needs beside this package, as it is installed


def save_model(checkpoint: Path, out: Path, **known: Any) -> None:
    """Writes a checkpoint as a folder that MLflow loads and serves. known: what its `MLmodel` is to say of a logged
    model. Raises UserError where `export_folder` does."""
    from mlflow.models import Model
    from mlflow.pyfunc import save_model

    from aunet_lightning.serving.model import EXAMPLE, SIGNATURE

    about = Model(**known)
    needs = [f"aunet-lightning=={__version__}", *(f"{name}=={version(name).partition('+')[0]}" for name in BESIDE)]
    with _quiet("mlflow"):
        save_model(
            out, python_model=Path(__file__).with_name("script.py"), mlflow_model=about, signature=SIGNATURE,
            input_example=EXAMPLE, pip_requirements=needs, streamable=True,
        )  # fmt: skip
    export_folder(checkpoint, out / NAME, model_card(checkpoint, NAME))
    about.model_size_bytes = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    about.save(out / "MLmodel")


def log_model(
    checkpoint: Path, run_id: str, experiment_id: str, uri: str, place: Path, register_as: str | None = None
) -> str:
    """Logs a checkpoint as the model of an MLflow run, in place of what an earlier checkpoint left there unless that is
    registered; does nothing where it is logged. Returns the model's id.

    place: a folder to write to meanwhile. Raises UserError and whatever the store raises.
    """
    from mlflow.entities import LoggedModelOutput

    client, step = open_store(uri), read_metadata(checkpoint)["global_step"]
    there = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    model = next((one for one in there if one.params.get(STEP) == str(step) and one.status == "READY"), None)
    if model is None:
        model = client.create_logged_model(experiment_id, NAME, run_id, params={STEP: str(step)})
        part = place / f"{NAME}{PART}"
        remove(part)
        try:
            save_model(
                checkpoint, part, artifact_path=model.artifact_location, model_uuid=model.model_id, run_id=run_id,
                model_id=model.model_id,
            )  # fmt: skip
            client.log_model_artifacts(model.model_id, str(part))
        except BaseException:  # a signal, too
            with suppress(Exception):
                client.delete_logged_model(model.model_id)
            raise
        finally:
            remove(part)
        client.finalize_logged_model(model.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
    versions = client.search_model_versions(f"run_id = '{run_id}'")
    registered = {one.source for one in versions}
    for other in there:
        if other is not model and STEP in other.params and other.artifact_location not in registered:
            client.delete_logged_model(other.model_id)
    if register_as is not None and (register_as, model.artifact_location) not in {(v.name, v.source) for v in versions}:
        _register(client, model, register_as)
    return str(model.model_id)


def serve_command(model: str, uri: str) -> str:
    """Returns the command that serves a logged model of a store."""
    return f"{VARIABLE}={shlex.quote(shown(uri))} mlflow models serve -m models:/{model} -p 5001 --env-manager local"


def _register(client: Any, model: Any, name: str) -> None:
    """Makes a logged model the newest version of a registered one, which is made where there is none."""
    try:
        client.create_registered_model(name)
    except Exception as error:
        if getattr(error, "error_code", None) != "RESOURCE_ALREADY_EXISTS":
            raise
    # A source models:/ID would be looked up in the store of the process, which need not be this client's.
    made = client.create_model_version(
        name, model.artifact_location, model.source_run_id, model_id=model.model_id, await_creation_for=0
    )
    listed = json.loads(client.get_logged_model(model.model_id).tags.get(VERSIONS, "[]"))
    own = {"name": made.name, "version": int(made.version)}
    if own not in listed:  # a server lists it itself
        client.set_logged_model_tags(model.model_id, {VERSIONS: json.dumps([*listed, own])})


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """A context without a library's remarks."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
