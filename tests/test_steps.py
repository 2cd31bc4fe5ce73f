"""Non-finite steps, and what a run reports when it continues with other settings."""

import json
import math
import os
import shutil
import signal

import pytest
import torch
import yaml
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from aunet_lightning.checkpoints.forms import export, read
from aunet_lightning.checkpoints.optimizer_state import by_name, by_number, parameter_names
from aunet_lightning.cli.main import main
from aunet_lightning.distributed.sharding import ParallelConfig, build
from aunet_lightning.errors import UserError
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.training.definition import changes
from aunet_lightning.training.module import AUNetModule
from aunet_lightning.training.optimizer import OptimizerConfig, build_optimizer
from splitters import Stack
from tests.helpers import SETTINGS, fit, place_store, points, tiny

RUN = ["fit", "-c", "tiny.yaml", "--trainer.max_steps", "12", "--report.ngrams", "[]", "--report.sample_prompts", "[]"]
RECIPE = ["--model.optimizer.name", "muon", "--model.optimizer.matrix_every", "2", "--model.net.embedding", "ngrams",
          "--model.net.ngram_rows", "50", "--model.net.ngram_dropout", "0.5"]  # fmt: skip


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch, store_template):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place_store(store_template, tmp_path / "runs" / "mlflow.db"))
    monkeypatch.setenv("AUNET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS | {"data": SETTINGS["data"] | {"workers": 0}}))


def spoil(monkeypatch, steps, gradient=False):
    """Makes the loss (or only its gradient) of some steps infinite in one row."""
    usual = AUNetModule.nll

    def nll(self, batch, deciders=None):
        nats, output = usual(self, batch, deciders)
        if self.trainer.training and self.global_step in steps:
            zero = nats[:1] * 0
            bad = (zero.sqrt() if gradient else zero / zero.detach()).sum()  # the root of 0: slope infinite
            nats = nats + bad * (batch["sizes"] > 0)
        return nats, output

    monkeypatch.setattr(AUNetModule, "nll", nll)


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [False, True])
def test_a_step_that_is_not_finite_changes_nothing_and_is_told(gradient, tmp_path, monkeypatch, capsys):
    spoil(monkeypatch, {4, 5}, gradient)
    often = ["--run.checkpoint_every", "1", "--run.keep_last", "99", "--trainer.val_check_interval", "4"]
    with pytest.warns(UserWarning, match="is not finite") as told:
        assert main([*RUN, "--run.folder", "spoilt", *often]) == 0
    messages = [str(one.message) for one in told if "is not finite" in str(one.message)]
    assert len(messages) == 2
    what = "the gradient" if gradient else "the loss"
    assert messages[0].startswith(f"step 4: {what} is not finite")
    assert all(word in messages[0] for word in ("it read", "en ", "th ", "skipped (1 in a row"))
    logged = points(tmp_path / "spoilt")
    assert [logged[step, "train/skipped_steps"] for step in range(12)] == [0, 0, 0, 0, 1] + [2] * 7
    before, after = (read(tmp_path / "spoilt" / "checkpoints" / f"step-0000000{step}.ckpt") for step in (4, 6))
    assert all(torch.equal(before["state_dict"][name], tensor) for name, tensor in after["state_dict"].items())
    assert math.isfinite(logged[11, "val/bpb"])
    assert math.isfinite(logged[11, "train/loss"])


@pytest.mark.slow
def test_too_many_such_steps_end_the_run_with_a_checkpoint(tmp_path, monkeypatch, capsys):
    spoil(monkeypatch, set(range(5, 99)))
    with pytest.warns(UserWarning, match="is not finite"):
        assert main([*RUN, "--run.folder", "ended", "--model.optimizer.max_skipped", "2"]) == 1
    error = capsys.readouterr().err
    assert "step 7: the loss is not finite" in error
    assert "number 3 in a row, so the run stops" in error
    last = read(tmp_path / "ended" / "checkpoints" / "last.ckpt")
    assert last["global_step"] == 8
    assert all(tensor.isfinite().all() for tensor in last["state_dict"].values())
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs/mlflow.db")
    assert main([*RUN, "--run.folder", "ended", "--model.optimizer.max_skipped", "2"]) == 0
    assert (11, "train/bpb") in points(tmp_path / "ended")


def test_a_run_that_goes_on_otherwise_says_what_changed_and_what_it_means():
    kept = {"trainer": {"devices": 4, "max_steps": 9, "precision": "32-true"}, "run": {"keep_last": 1}, "seed": 1}
    here = {"trainer": {"devices": 2, "max_steps": 12, "precision": "32-true"}, "run": {"keep_last": 3}, "seed": 1}
    assert changes(kept, kept) == []
    told = "\n".join(changes(kept, here))
    assert "trainer.devices (there 4, here 2): the same batches; sums are made in another order" in told
    assert "trainer.max_steps (there 9, here 12): the learning rate ends elsewhere" in told
    assert "run.keep_last (there 1, here 3): no training number changes" in told


@pytest.fixture
def fake_world():
    """Makes this process a rank of a world whose other ranks only seem to be there."""

    def of(rank, world):
        torch.distributed.init_process_group("fake", rank=rank, world_size=world, store=FakeStore())
        return init_device_mesh("cpu", (world,), mesh_dim_names=("data_parallel",))

    yield of
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(("rank", "world"), [(0, 2), (1, 2), (2, 3), (6, 7)])
def test_shards_are_parts_of_the_same_weights(rank, world, fake_world):
    rules = ["router", {"name": "distilled", "teacher": "whitespace"}]
    config = tiny(3)
    whole = dict(build(config, rules, 5, ParallelConfig()).named_parameters())
    net = build(config, rules, 5, ParallelConfig(), fake_world(rank, world))
    for name, parameter in net.named_parameters():
        parts = whole[name].chunk(world)
        expected = parts[rank] if rank < len(parts) else whole[name][:0]
        assert torch.equal(parameter.to_local(), expected), name
        with torch.no_grad():
            parameter.to_local().fill_(torch.nan)
    assert not any(buffer.isnan().any() for buffer in net.buffers())
    net.init_weights_drawn(5)
    left = [name for name, p in net.named_parameters() if p.to_local().isnan().any()]
    assert all(name.startswith("predictors.") for name in left)  # theirs are drawn before they are cut


def test_the_weights_are_not_the_same_in_every_part(fake_world):
    net = build(tiny(2), ["whitespace"], 5, ParallelConfig(), fake_world(0, 2))
    part, whole = net.head.weight.to_local(), build(tiny(2), ["whitespace"], 5, ParallelConfig()).head.weight
    assert not torch.equal(part, whole[len(part) :])


@pytest.mark.parametrize("options", [{"wrap": ["block"]}, {"wrap": "layer"}, {"param_dtype": "half"}])
def test_wrong_settings_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        AUNetModule(tiny(3), splitters=["whitespace", "whitespace"], parallel=options)


def test_settings_that_contradict_each_other(fake_world):
    mesh = fake_world(0, 4)
    with pytest.raises(UserError, match="shard_size is 3, it must divide the devices"):
        build(tiny(2), ["whitespace"], 0, ParallelConfig(shard_size=3), mesh)
    with pytest.raises(UserError, match="param_dtype"):
        build(tiny(2), ["whitespace"], 0, ParallelConfig(param_dtype="bfloat16"), mesh, "bf16-mixed")


@pytest.mark.parametrize(
    "kinds", [["bfloat16"] * 3, ["float32", "bfloat16", "bfloat16"], ["bfloat16", "float32", "bfloat16"]]
)
def test_stages_compute_in_the_types_that_are_named(kinds):
    rules = ["whitespace", {"name": "every", "n": 2}]
    ids = torch.tensor([list(b"All human beings are born free and equal in dignity and rights. " * 8)])
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    try:
        mesh = init_device_mesh("cpu", (1,), mesh_dim_names=("data_parallel",))
        net = build(tiny(3), rules, 5, ParallelConfig(param_dtype=kinds), mesh)
        plain = build(tiny(3), rules, 5, ParallelConfig())
        state = streamed = net.initial_state(1, Stack(rules))
        with torch.no_grad():
            logits = net(ids, state=state).logits
            parts = []
            for part in ids.split([1, 200, 1, *[1] * 20, ids.shape[1] - 222], 1):
                output = net(part, state=streamed)
                streamed = output.state
                parts.append(output.logits)
            if len(set(kinds)) == 1:
                assert torch.equal(logits, plain.bfloat16()(ids, state=state).logits)
        for stage, kind in zip(streamed.stages, kinds, strict=True):
            assert {keys.dtype for keys, _ in stage.cache.tape.layers} == {getattr(torch, kind)}
        assert (torch.cat(parts, 1) - logits).abs().max() < 0.02 * logits.abs().max()
    finally:
        torch.distributed.destroy_process_group()


def test_recomputed_blocks_have_the_same_gradients_and_keep_less():
    from aunet_lightning.costs.memory import Kept

    ids, levels = torch.randint(0, 256, (2, 64)), torch.randint(0, 3, (2, 64))
    found = []
    for parallel in (ParallelConfig(), ParallelConfig(activation_checkpointing=[True, False, True])):
        net = build(tiny(3), ["whitespace", "whitespace"], 3, parallel)
        assert [block.recompute for block in net.stages[1].blocks] == [False, False]
        with Kept(net) as kept:
            loss = net(ids, levels).logits.logsumexp(-1).sum()
        loss.backward()
        found.append((kept.bytes, [parameter.grad for parameter in net.parameters()]))
    (usual, expected), (less, got) = found
    assert less < 0.7 * usual
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(expected, got, strict=True))


def test_an_optimizer_state_by_name_is_the_same_by_number():
    net = AUNet(tiny(3), Stack(["router", "every"]))
    optimizer = build_optimizer(net, OptimizerConfig())
    net(torch.randint(0, 256, (2, 64))).logits.sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    named = by_name(state, parameter_names(net, optimizer))
    assert set(named["state"]) <= {f"net.{name}" for name, _ in net.named_parameters()}
    for name, parameter in net.named_parameters():
        if f"net.{name}" in named["state"]:
            assert named["state"][f"net.{name}"]["exp_avg"].shape == parameter.shape
    other = build_optimizer(net, OptimizerConfig())
    other.load_state_dict(named)
    assert str(other.state_dict()) == str(state)
    with pytest.raises(UserError, match="optimizer groups do not match"):
        by_number(named, ["net.head.weight"])


def test_a_file_of_another_program_is_not_an_export(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="not written by aunet export"):
        read(tmp_path / "other.safetensors")
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "other.safetensors").read_bytes()[:20])
    with pytest.raises(UserError, match="is incomplete"):
        export(tmp_path / "half.safetensors", tmp_path / "out.safetensors")
    (tmp_path / "half.ckpt").mkdir()
    (tmp_path / "half.ckpt" / "meta.pt").write_text(json.dumps({}))
    with pytest.raises(UserError, match="is incomplete"):
        read(tmp_path / "half.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize(("every", "recipe"), [(4, []), (3, RECIPE)])
def test_a_run_resumes_from_any_checkpoint_as_if_unbroken(every, recipe, tmp_path):
    """From one before a validation, after one (the best), between them, and from the end of a shorter run."""
    run = [*RUN, *recipe, "--trainer.val_check_interval", "4", "--trainer.max_steps"]
    keep = ["--run.keep_last", "99", "--run.keep_best", "99", "--run.checkpoint_every", str(every)]
    long = [*keep, "--model.budget.bytes", "20000"]
    assert main([*run, "14", "--run.folder", "straight", *long]) == 0
    expected = points(tmp_path / "straight")
    steps = {int(path.stem[5:]) for path in (tmp_path / "straight" / "checkpoints").glob("step-*.ckpt")}
    ends = max(steps)
    assert 4 < ends < 14  # the budget ends it
    assert steps >= {4, 8}
    for step in sorted(steps - {ends}):
        (tmp_path / "again" / "checkpoints").mkdir(parents=True)
        name = f"step-{step:08}.ckpt"
        shutil.copy(tmp_path / "straight" / "checkpoints" / name, tmp_path / "again" / "checkpoints" / name)
        assert main([*run, "14", "--run.folder", "again", *long]) == 0
        got = points(tmp_path / "again")
        wanted = {key for key in expected if key[0] >= step or (key[0] == 0 and "/" in key[1])}
        assert {key for key in got if key[0] >= step} == {key for key in wanted if key[0] >= step}, step
        assert all(got[key] == expected[key] for key in got if key[0] >= step and not key[1].startswith("best")), step
        shutil.rmtree(tmp_path / "again")


@pytest.mark.slow
@pytest.mark.parametrize("first", [8, 10])
def test_a_finished_run_continues_without_a_gap(first, tmp_path):
    run = [*RUN, "--trainer.val_check_interval", "4", "--run.folder", "longer", "--trainer.max_steps"]
    assert main([*run, str(first)]) == 0
    with pytest.warns(UserWarning, match="the learning rate ends elsewhere"):
        assert main([*run, "14"]) == 0
    logged = points(tmp_path / "longer")
    assert [step for step, key in logged if key == "train/bpb"] == list(range(14))
    assert [step for step, key in logged if key == "val/bpb"] == [3, 7, 11]


@pytest.mark.slow
def test_a_signal_in_a_validation_loses_nothing(tmp_path, monkeypatch):
    """The validation is made up for; and this run is saved by the clock alone."""
    run = [*RUN, "--trainer.val_check_interval", "4"]
    assert main([*run, "--run.folder", "straight"]) == 0
    clock = ["--run.folder", "told", "--run.checkpoint_every", "999", "--run.checkpoint_minutes", "1e-9",
             "--run.keep_last", "99"]  # fmt: skip
    usual = AUNetModule.validation_step

    def told(self, batch, batch_index):
        if self.global_step == 8 and batch_index == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return usual(self, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(AUNetModule, "validation_step", told)
        assert main([*run, *clock]) == 128 + signal.SIGTERM
    saved = sorted(path.name for path in (tmp_path / "told" / "checkpoints").glob("step-*"))
    assert saved == [f"step-{step:08}.ckpt" for step in range(2, 9)]
    assert (7, "val/bpb") not in points(tmp_path / "told")
    assert main([*run, *clock]) == 0
    assert points(tmp_path / "told") == points(tmp_path / "straight")


@pytest.mark.slow
def test_a_step_of_one_batch_at_an_epochs_end_has_its_whole_gradient(tmp_path):
    run = [*RUN, "--trainer.limit_train_batches", "5", "--model.optimizer.lr", "1e-30", "--trainer.max_steps"]
    assert main([*run, "2", "--trainer.accumulate_grad_batches", "4", "--run.folder", "four"]) == 0
    assert main([*run, "5", "--run.folder", "each"]) == 0
    alone, same = points(tmp_path / "four")[1, "train/grad_norm"], points(tmp_path / "each")[4, "train/grad_norm"]
    assert alone == pytest.approx(same, rel=1e-5)


def test_what_is_logged_seldom_is_what_is_logged_always(here):
    """The last step of a budget is logged, whatever its number, and a checkpoint's beside it loses nothing."""
    options = ("--model.budget.bytes", "900", "--trainer.max_steps", "-1", "--run.checkpoint_every", "4")
    for every in (1, 5):
        assert fit("--run.folder", f"every{every}", "--trainer.log_every_n_steps", str(every), *options) == 0
    always, seldom = points(here / "every1"), points(here / "every5")
    last = max(step for step, _ in always)
    assert last % 5 != 4
    assert {step for step, name in seldom if name == "train/grad_norm"} == {*range(4, last, 5), last}
    assert seldom == {key: value for key, value in always.items() if key in seldom}
    of_steps = {name for _, name in always if name.startswith("train/")} | {"bytes_seen", "flops"}
    assert {name for step, name in seldom if step == last} >= of_steps


def test_a_run_that_stays_branches_into_budgets(tmp_path):
    run = [*RUN, "--model.optimizer.cooldown", "0.5", "--model.optimizer.name", "muon", "--run.checkpoint_every", "4"]
    assert main([*run, "--trainer.max_steps", "12", "--run.folder", "long", "--run.keep_last", "9"]) == 0
    assert main([*run, "--trainer.max_steps", "8", "--run.folder", "short"]) == 0
    begin = ["--ckpt_path", "long/checkpoints/step-00000004.ckpt", "--run.folder", "branch"]
    assert main([*run, "--trainer.max_steps", "8", *begin]) == 0
    short, branch = points(tmp_path / "short"), points(tmp_path / "branch")
    later = {key: value for key, value in short.items() if key[0] >= 4 and not key[1].startswith("perf")}
    assert later
    assert {key: branch[key] for key in later} == later
