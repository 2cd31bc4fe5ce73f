"""Private names of Lightning, jsonargparse and torch: present in what is installed, and missed in one sentence."""

import importlib
import re
from types import SimpleNamespace

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch.utils.data import DataLoader

from aunet_lightning import lightning_private as private


class Least(LightningModule):
    """Trains one number; calls `self.at_end` at the end of each batch."""

    def __init__(self, at_end=lambda trainer: None):
        super().__init__()
        self.weight, self.at_end = torch.nn.Parameter(torch.ones(1)), at_end

    def training_step(self, batch, index):
        self.log("a", float(index))
        return self.weight.sum()

    def validation_step(self, batch, index):
        pass

    def on_train_batch_end(self, *arguments):
        self.at_end(self.trainer)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trained(at_end, tmp_path, steps=4):
    """A trainer that has validated after every second step, without logger and checkpoints."""
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, val_check_interval=2, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, log_every_n_steps=1,
        default_root_dir=tmp_path,
    )  # fmt: skip
    loader = DataLoader(range(steps))
    trainer.fit(Least(at_end), loader, loader)
    return trainer


@pytest.mark.parametrize(("owner", "names"), private.IN_PLACE.items(), ids=str)
def test_private_names_that_are_used_in_place_exist(owner, names):
    place, _, name = owner.partition(":")
    found = importlib.import_module(place)
    if name:
        found = getattr(found, name)
    if name == "ModelParallelStrategy":  # some are set when it is made
        found = found()
    for one in names:
        private.need(found, one, place.partition(".")[0])


def test_a_name_that_is_gone_is_a_sentence():
    gone = re.escape("has no SimpleNamespace._gone, on which aunet_lightning.lightning_private relies")
    with pytest.raises(RuntimeError, match=f"^lightning [0-9.]+ {gone}: install an earlier lightning$"):
        private.need(SimpleNamespace(), "_gone")
    with pytest.raises(RuntimeError, match=r"^torch [0-9.+a-z]+ has no dict\.x, "):
        private.need({}, "x", "torch")


def test_a_validation_is_due_by_its_number_alone(tmp_path):
    due = []

    def ask(trainer):
        trainer.should_stop = trainer.global_step == 1
        due.append((private.validation_is_due(trainer), trainer.should_stop))
        trainer.should_stop = False

    trained(ask, tmp_path)
    assert due == [(False, True), (True, False), (False, False), (True, False)]


def test_metrics_of_a_step_are_sent_once(tmp_path):
    sent = []

    def send(trainer):
        connector = private.need(trainer, "_logger_connector")
        connector.log_metrics = lambda metrics, step=None: sent.append(trainer.global_step)
        private.log_step_metrics(trainer)

    trained(send, tmp_path)
    assert sent[0] == 1


def test_it_is_known_at_a_steps_end_whether_it_is_sent(tmp_path):
    due, sent = [], []

    def ask(trainer):
        trainer.log_every_n_steps, trainer.should_stop = 3, trainer.global_step == 5
        connector = private.need(trainer, "_logger_connector")
        connector.log_metrics = lambda metrics, step=None: sent.extend([trainer.global_step] * bool(metrics))
        due.append(private.logs_are_due(trainer))

    trained(ask, tmp_path, steps=6)
    assert [step for step, asked in enumerate(due, 1) if asked] == sent == [3, 5]


def test_a_checkpoint_can_be_marked(tmp_path):
    found = {}

    def save(trainer):
        found.update(trainer._checkpoint_connector.dump_checkpoint(weights_only=False))

    trainer = trained(save, tmp_path)
    private.set_logged_steps(found, 1)
    private.set_validation_begun(found)
    state = found["loops"]["fit_loop"]
    assert state["epoch_loop.state_dict"]["_batches_that_stepped"] == 1
    trainer.fit_loop.load_state_dict(state)
    progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    assert (progress.current.started, progress.current.completed) == (1, 0)
    with pytest.raises(RuntimeError, match=r"has no dict\._batches_that_stepped"):
        private.set_logged_steps({"loops": {"fit_loop": {"epoch_loop.state_dict": {}}}}, 1)
    with pytest.raises(RuntimeError, match=r"has no dict\.epoch_loop\.val_loop\.batch_progress"):
        private.set_validation_begun({"loops": {"fit_loop": {}}})


def test_a_module_knows_its_devices_and_its_trainer(tmp_path):
    module = Least()
    assert private.device_mesh(module) is None
    assert not private.has_trainer(module)
    module.trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    assert private.has_trainer(module)


def test_an_optimizer_is_unwrapped():
    inner = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1)
    assert private.inner_optimizer(LightningOptimizer(inner)) is inner is private.inner_optimizer(inner)


def test_a_parser_shows_its_options():
    inner, parser = ArgumentParser(), ArgumentParser()
    inner.add_argument("--a", type=int | None)
    inner.add_argument("--b", type=int)
    inner.link_arguments("a", "b")
    parser.add_subcommands().add_subcommand("run", inner)
    actions = {action.dest: action for action in private.parser_actions(private.subcommands(parser)["run"])}
    assert private.type_of(actions["a"]) == int | None
    private.set_type(actions["a"], int)
    assert private.type_of(actions["a"]) is int
    assert private.type_of(actions["help"]) is None
    assert private.link_sources(actions["b"]) == ["a"]
    assert private.link_sources(actions["a"]) == []
    assert private.subcommands(inner) == {}
    shown = private.help_of(inner, "me", {"One": [actions["a"]]})
    assert shown.startswith("usage: me\n\nOne:\n  --a A")
    assert "--help" not in shown


def test_workers_of_a_loader_are_ended():
    loader = DataLoader(range(3), num_workers=1, persistent_workers=True)
    private.end_workers(loader)  # none has begun
    next(iter(loader))
    workers = loader._iterator._workers
    private.end_workers(loader)
    assert not any(worker.is_alive() for worker in workers)
