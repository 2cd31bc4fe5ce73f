"""Warnings where a choice costs time: each comes where it does, once, and nothing is said where it does not."""

import time
import warnings
from types import SimpleNamespace

import pytest
import torch

from aunet_lightning import StageConfig
from aunet_lightning.data.loader import EpochLoader
from aunet_lightning.training import speed_warnings
from aunet_lightning.training.speed_warnings import FIRST, STEPS, SpeedWarnings, cores, instructions, wide_windows
from tests.helpers import fit


def said(loader=None, units=(4, 4), waits=0.0, depth=1, steps=FIRST + STEPS + 9, **trainer):
    """What the callback says in a run of such batches, each of which is waited for `waits` times as long as trained on."""
    options = {"precision": "32-true", "num_devices": 1, "device": "cpu"} | trainer
    device = SimpleNamespace(root_device=torch.device(options["device"]))
    data = SimpleNamespace(workers=2, reader=SimpleNamespace(stack=SimpleNamespace(depth=depth)))
    loader = EpochLoader([0], 0)
    trainer = SimpleNamespace(**options, strategy=device, datamodule=data, train_dataloader=loader)
    callback, clock = SpeedWarnings(), SimpleNamespace(now=0.0)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        patch.setattr(speed_warnings, "time", SimpleNamespace(perf_counter=lambda: clock.now))
        callback.on_train_start(trainer, None)
        for step in range(steps):
            waited = 50 if step == 0 else waits  # workers begin
            loader.waited, clock.now = loader.waited + waited, clock.now + waited
            callback.on_train_batch_start(trainer, None, {"n_units": [[*units]] if units else []}, step)
            clock.now += 1
    return [str(warning.message) for warning in caught]


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    """A machine of four cores, all of them used, without bf16."""
    monkeypatch.setattr(speed_warnings, "cores", lambda: 4)
    monkeypatch.setattr(speed_warnings, "instructions", lambda: {"avx2"})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)


def test_nothing_is_said_of_a_run_that_is_as_fast_as_it_can_be():
    assert said() == []


@pytest.mark.parametrize("known", [{"avx2"}, {"avx2", "avx512_bf16"}, {"amx_bf16"}, {"bf16"}, None], ids=[*"abcde"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_bf16_on_a_cpu_without_it(monkeypatch, known, precision, device):
    monkeypatch.setattr(speed_warnings, "instructions", lambda: known)
    found = said(precision=precision, device=device)
    if known == {"avx2"} and precision != "32-true" and device == "cpu":
        assert len(found) == 1
        assert f"trainer.precision is {precision}, but this CPU" in found[0]
        assert "set it to 32-true" in found[0]
    else:
        assert found == []


@pytest.mark.parametrize(("threads", "processes", "fits"), [(4, 1, True), (5, 1, False), (2, 2, True), (4, 2, False)])
def test_more_threads_than_cores(monkeypatch, threads, processes, fits):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    found = said(num_devices=processes)
    assert len(found) == (not fits)
    assert all(f"OMP_NUM_THREADS to {4 // processes}" in sentence for sentence in found)


@pytest.mark.parametrize(("waits", "workers"), [(0.2, None), (0.3, 3), (3, 8)])
def test_a_loader_that_cannot_keep_up(waits, workers):
    found = said(waits=waits)
    assert len(found) == (workers is not None)
    assert all("data.workers (2)" in sentence and f"set it to {workers}" in sentence for sentence in found)
    assert said(waits=waits, steps=FIRST + STEPS) == []  # not known yet


@pytest.mark.parametrize(("units", "share"), [((10, 10), None), ((10, 1, 4), None), ((10, 1, 3), "53%"), ((), None)])
def test_a_trunk_that_is_mostly_padding(units, share):
    found = said(units=units)
    assert len(found) == (share is not None)
    assert all(f"{share} of the trunk's positions are padding" in sentence for sentence in found)
    assert said(units=units, depth=2) == []  # a learned splitter makes the trunk's units


def test_a_window_larger_than_the_row():
    stages = [StageConfig(dim=8, layers=1, head_dim=8, window=window) for window in (64, 16, None)]
    assert wide_windows(stages, (64.0, 16.0, 9.0)) is None
    sentence = wide_windows(stages, (63.0, 15.0, 9.0))
    assert "stages[0].window is 64, where a row has 63 positions, and model.net.stages[1].window is 16" in sentence
    assert "stages[2]" not in sentence


def test_it_is_said_before_a_run_trains(here):
    with pytest.warns(UserWarning, match=r"stages\[0\].window is 16, where a row has 8 positions"):
        assert fit("--data.row_bytes", "8", "--trainer.max_steps", "1") == 0


def test_a_loader_knows_how_long_it_was_waited_for():
    class Slow(list):
        def __getitem__(self, at):
            time.sleep(0.02)
            return at

    loader, begin = EpochLoader(Slow([0] * 5), 0), time.perf_counter()
    for _ in loader:
        time.sleep(0.05)
    assert 5 * 0.02 <= loader.waited <= time.perf_counter() - begin - 5 * 0.05


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8), ({"cpu.max": "max 100000\n"}, 8), ({"cpu.max": "300000 100000\n"}, 3), ({"cpu.max": "9000000 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)  # fmt: skip
def test_cores_are_those_of_the_container(tmp_path, monkeypatch, files, expected):
    monkeypatch.setattr(speed_warnings, "Path", lambda path: tmp_path / path.lstrip("/"))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8), raising=False)
    (tmp_path / "sys/fs/cgroup/cpu").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / "sys/fs/cgroup" / name).write_text(text)
    assert cores() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512_bf16\n\nprocessor\t: 1\n", {"fpu", "avx2", "avx512_bf16"}),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", {"fp", "asimd", "bf16"}),
        ("processor\t: 0\n", None), (None, None),
    ],
)  # fmt: skip
def test_instructions_are_those_that_linux_names(tmp_path, monkeypatch, text, expected):
    monkeypatch.setattr(speed_warnings, "Path", lambda path: tmp_path / path.lstrip("/"))
    (tmp_path / "proc").mkdir()
    if text is not None:
        (tmp_path / "proc/cpuinfo").write_text(text)
    assert instructions() == expected
