"""What the server of a study's processes does once, when it imports this module: imports, and a rehearsal.

What a process inherits it does not do again: modules, tables of splitters, compiled loops, what the parser keeps.
Nothing that is begun here may need a thread or a connection, neither of which survives a fork.
"""

import contextlib
import gc
import io
import os
import warnings
from pathlib import Path

from aunet_lightning.loading import load_torchmetrics, without_collection

with without_collection():
    load_torchmetrics()

    import alembic.command  # noqa: F401
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.tracking  # noqa: F401
    import numba  # noqa: F401
    import torch
    import yaml

    from aunet_lightning.cli.training import run
    from aunet_lightning.study.fork_server import REHEARSED
    from aunet_lightning.study.sizing import data_of, row_of


def rehearse(folder: Path) -> None:
    """Reads settings and text of each cell in a folder as `aunet fit` does. Errors are left to the cells."""
    for path in sorted(folder.glob("*.yaml")):
        printed = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            warnings.simplefilter("ignore")
            with contextlib.suppress(Exception, SystemExit):
                row_of(data_of(yaml.safe_load(path.read_text(encoding="utf-8"))))
                run(["fit", "-c", str(path), "--print_config"])


if REHEARSED in os.environ:
    torch.set_num_threads(1)
    environment = dict(os.environ)
    rehearse(Path(os.environ[REHEARSED]))
    os.environ.clear()
    os.environ.update(environment)
gc.collect()
gc.freeze()  # else each process would look through all of it for garbage, and so copy it
