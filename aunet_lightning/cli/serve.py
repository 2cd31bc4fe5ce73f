"""The command aunet serve."""

import argparse
import tempfile
from pathlib import Path

from aunet_lightning.numbers import Range, check
from aunet_lightning.paths import user_path


def serve(arguments: list[str]) -> int:
    """aunet serve: answers requests for generation, streams and scores over HTTP."""
    parser = argparse.ArgumentParser(
        "aunet serve",
        description="Serve a model over HTTP: what mlflow models serve answers, and streams at /stream.",
    )
    parser.add_argument(
        "ckpt_path", metavar="MODEL",
        help="a checkpoint of a run, what aunet export wrote, or a model in MLflow (models:/NAME/1, models:/m-…)",
    )  # fmt: skip
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1: this machine alone)"
    )
    parser.add_argument("--port", type=int, default=5001, help="port to listen at (default 5001)")
    options = parser.parse_args(arguments)
    check("--port", options.port, Range(least=1, most=65535))
    import mlflow
    import uvicorn

    from aunet_lightning.errors import UserError
    from aunet_lightning.serving.app import app_of
    from aunet_lightning.tracking.store import short, store_uri, tracking_uri

    with tempfile.TemporaryDirectory(prefix="aunet-serve-") as folder:
        if ":/" in options.ckpt_path:
            mlflow.set_tracking_uri(store_uri(tracking_uri(None)))
            place = options.ckpt_path
        else:
            place = _saved(user_path(options.ckpt_path, "the model"), Path(folder))
        try:
            model = mlflow.pyfunc.load_model(place)
        except mlflow.MlflowException as error:
            raise UserError(f"MLflow cannot load {options.ckpt_path} ({short(error)}): name another model") from None
    print(f"Serving {options.ckpt_path} at http://{options.host}:{options.port}", flush=True)
    uvicorn.run(app_of(model), host=options.host, port=options.port, log_level="warning")
    return 0


def _saved(path: Path, folder: Path) -> str:
    """Returns the place of a model that MLflow loads, which is in the folder where the path is of a checkpoint."""
    if (path / "MLmodel").is_file():
        return str(path)
    from aunet_lightning.checkpoints.forms import check_complete
    from aunet_lightning.serving.logged import save_model

    check_complete(path)
    save_model(path, folder / "model")
    return str(folder / "model")
