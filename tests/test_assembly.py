"""Assembly of commands, without a parser: settings in, the trainer's parts out."""

from types import SimpleNamespace

import pytest

from aunet_lightning import AUNetModule, ByteDataModule
from aunet_lightning.assembly import Request, assemble, check_devices, end_fit, shown_settings, where_to_look
from aunet_lightning.checkpoints.lightning_io import AnyForm
from aunet_lightning.errors import UserError
from aunet_lightning.tracking.mlflow_logger import MLflowRunLogger
from aunet_lightning.tracking.run_folder import RunConfig, RunFolder
from aunet_lightning.training.access import say
from aunet_lightning.training.beginning import checkpoint_of, checkpoint_to_read
from aunet_lightning.training.budget import BudgetConfig
from aunet_lightning.training.definition import folder_of, options
from aunet_lightning.training.report_config import ReportConfig
from tests.helpers import tiny

TRAINER = {name: option.default for name, option in options()["trainer"].kind.items()} | {"max_steps": 4}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def request(command="fit", trainer=(), upper=("every",), **options):
    """A command on a model of three stages."""
    settings = {
        "seed_everything": 3, "splitter": "whitespace", "upper_splitters": [*upper],
        "model": {"net": {"stages": [{"dim": 8, "layers": 1}] * 3}}, "run": {"experiment": "e"},
    }  # fmt: skip
    data = ByteDataModule(splitter="whitespace", upper_splitters=[*upper])
    return Request(
        command, settings, TRAINER | dict(trainer), RunConfig(), ReportConfig(), AUNetModule(tiny(3), **options), data
    )


def kinds(parts):
    return [type(callback).__name__ for callback in parts.trainer["callbacks"]]


def test_what_each_command_needs():
    always = [
        "Throughput",
        "Outlook",
        "SpeedWarnings",
        "RunReport",
        "BoundaryPictures",
        "EndsAsStopped",
        "BpbProgressBar",
    ]
    always.append("Watchdog")
    fit = assemble(request())
    assert kinds(fit) == [*always, "TextRead", "ValidationWriter", "RunPage", "Checkpointing"]
    assert fit.trainer["enable_checkpointing"] is True
    assert fit.trainer["logger"] is fit.logger
    assert isinstance(fit.logger, MLflowRunLogger)
    assert [type(plugin) for plugin in fit.trainer["plugins"]] == [AnyForm]
    assert fit.folder.path == folder_of(request().settings).path
    assert fit.folder.path.name.startswith("whitespace-3stages-8-8-8-seed3-")
    assert not fit.folder.path.exists()  # nothing is begun
    assert kinds(assemble(request("validate"))) == always
    assert assemble(request("validate")).trainer["enable_checkpointing"] is False
    predict = assemble(request("predict"))
    assert kinds(predict) == [*always, "PredictionWriter"]
    assert (predict.trainer["logger"], predict.logger) == (False, None)


def test_what_is_switched_off():
    off = {"enable_progress_bar": False, "enable_checkpointing": False, "logger": False}
    parts = assemble(request(trainer=off))
    assert {"BpbProgressBar", "Checkpointing"}.isdisjoint(kinds(parts))
    assert (parts.trainer["logger"], parts.trainer["enable_checkpointing"]) == (False, False)
    trial = assemble(request(trainer={"fast_dev_run": 1}))
    assert (trial.folder, trial.logger, trial.checkpointing) == (None, None, None)
    assert (trial.trainer["logger"], trial.trainer["enable_checkpointing"]) == (False, False)
    assert "Watchdog" not in kinds(trial)


def test_what_the_user_adds_comes_first_and_stays_as_it_is():
    mine, plugin = object(), object()
    asked = request(trainer={"callbacks": [mine], "plugins": plugin})
    given = dict(asked.trainer)
    parts = assemble(asked)
    assert parts.trainer["callbacks"][0] is mine
    assert parts.trainer["plugins"][0] is plugin
    assert asked.trainer == given
    assert given["callbacks"] == [mine]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda: request(upper=()), r"has 3 stages, which takes 2 splitters, but .* name 1"),
        (lambda: request(trainer={"max_steps": -1}), r"trainer\.max_steps is not set"),
    ],
)
def test_settings_that_contradict_each_other(asked, message):
    with pytest.raises(UserError, match=message):
        assemble(asked())


def test_a_budget_is_an_end():
    assemble(request(trainer={"max_steps": -1}, budget=BudgetConfig(bytes=1e6)))
    assemble(request("validate", trainer={"max_steps": -1}))


def test_devices_divide_a_batch_and_are_those_of_torchrun(monkeypatch):
    data = ByteDataModule(batch_rows=6)
    check_devices(SimpleNamespace(num_devices=3, num_nodes=2), data)
    with pytest.raises(UserError, match=r"batch_rows is 6: it must be a multiple of the devices \(4\)"):
        check_devices(SimpleNamespace(num_devices=4, num_nodes=1), data)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "6")
    with pytest.raises(UserError, match=r"torchrun has started 6 processes, .* set trainer\.devices to 3"):
        check_devices(SimpleNamespace(num_devices=1, num_nodes=2), data)


def test_mlflow_shows_a_dozen_settings():
    shown = shown_settings(request())
    assert (shown["splitter"], shown["upper_splitters"], shown["widths"]) == ("whitespace", "every", "16-24-16")
    assert (shown["seed"], shown["max_steps"], shown["precision"]) == (3, 4, "32-true")
    assert 10 <= len(shown) <= 16


def saved(folder, *steps):
    folder.make()
    for step in steps:
        folder.step(step).write_bytes(b"")
    folder.last.symlink_to(folder.step(max(steps)).name)


def test_the_checkpoint_of_a_command(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert checkpoint_of(folder, None) is None
    with pytest.raises(UserError, match=r"ckpt_path is missing, and .*run has no checkpoint: run aunet fit"):
        checkpoint_to_read(folder, None)
    with pytest.raises(UserError, match=r"with fast_dev_run there is no run folder"):
        checkpoint_to_read(None, "last")
    saved(folder, 2, 4)
    assert checkpoint_of(folder, "last") == folder.step(4)
    with pytest.raises(UserError, match=r"ckpt_path is best, but .*run has no best\.ckpt"):
        checkpoint_of(folder, "best")
    with pytest.raises(UserError, match=r"last\.ckpt"):
        checkpoint_to_read(folder, "best")  # takes last, which is empty


def test_the_end_of_a_run(tmp_path, capsys):
    asked = request()
    parts, trainer = assemble(asked), SimpleNamespace(global_step=4)
    saved(parts.folder, 4)
    parts.logger.experiment_id = "7"
    lines = end_fit(asked, parts, trainer)
    assert lines == where_to_look(parts.folder, parts.logger)
    say(*lines)
    shown = capsys.readouterr().out
    assert f"The run is in {parts.folder.path}\nIts weights: aunet validate --ckpt_path {parts.folder.last}" in shown
    assert "make ui, then open\n  http://127.0.0.1:5000/#/experiments/7/runs" in shown
    asked.module.continues, asked.module.steps_trained = True, 4
    parts.folder.table.write_text("| 1.5 |")
    assert end_fit(asked, parts, trainer)[:2] == [
        "\nThis run was finished before, at step 4: nothing was left to train.", "| 1.5 |",
    ]  # fmt: skip
    parts.checkpointing.lost = "step 4 could not be written (no space left on the disk)"
    with pytest.raises(UserError, match=r"training is done, but step 4 could not .*; the newest checkpoint is .*00004"):
        end_fit(asked, parts, trainer)
    asked.module.failure = "step 3: the loss is not finite"
    with pytest.raises(UserError, match=r"^step 3: the loss is not finite$"):
        end_fit(asked, parts, trainer)
