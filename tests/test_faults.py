"""What users do to runs: other text under the old name, older checkpoints, cut files. Each input has one right value."""

import gzip
import os
import shutil
import warnings
from pathlib import Path

import pytest
import torch

from aunet_lightning.checkpoints.forms import export, read
from aunet_lightning.errors import UserError
from tests.helpers import data_of, error_of, fit, points, sentences, write

pytestmark = pytest.mark.usefixtures("here")


# Identity by contents


def keep_stamp(path, change):
    """Changes a file, and leaves its size and the time it shows as they were."""
    status = path.stat()
    change(path)
    assert path.stat().st_size == status.st_size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_file_changed_under_equal_size_and_time_is_read_anew(here):
    path = write(here / "a.jsonl", ["before"])
    assert data_of(path).texts("train") == [("a", b"before")]
    keep_stamp(path, lambda file: write(file, ["after!"]))
    assert data_of(path).texts("train") == [("a", b"after!")]


def test_a_file_moved_or_compressed_is_the_same_text(here):
    first = data_of(write(here / "a.jsonl", sentences(1))).digests
    (here / "other").mkdir()
    shutil.copy(here / "a.jsonl", here / "other" / "a.jsonl")
    (here / "other" / "a.jsonl.gz").write_bytes(gzip.compress((here / "a.jsonl").read_bytes()))
    assert data_of(here / "other" / "a.jsonl").digests == first == data_of(here / "other" / "a.jsonl.gz").digests
    assert data_of(write(here / "a.jsonl", sentences(2))).digests != first


def spoil(path):
    """Puts zero bytes into the middle of a file, and leaves its size and time as they were."""

    def zero(file):
        data = bytearray(file.read_bytes())
        middle, n = len(data) // 2, min(2000, len(data) // 4)
        data[middle : middle + n] = bytes(n)
        file.write_bytes(data)

    keep_stamp(path, zero)


@pytest.mark.parametrize("name", ["text.bin", "index.npz", "meta.json", "names.json"])
def test_a_damaged_cached_text_is_made_again(name, here):
    path = here / "en.jsonl"
    whole = data_of(path).texts("train")
    (kept,) = (here / "cache").glob(f"en-*/{name}")
    spoil(kept)
    with pytest.warns(UserWarning, match="is damaged: it is made again"):
        assert data_of(path).texts("train") == whole
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert data_of(path).texts("train") == whole


def test_one_real_file_is_one_source(here):
    (here / "link.jsonl").symlink_to("en.jsonl")
    os.link(here / "en.jsonl", here / "hard.jsonl")
    (here / ".en.jsonl.swp.jsonl").write_bytes((here / "en.jsonl").read_bytes())
    (here / ".hidden").mkdir()
    shutil.copy(here / "en.jsonl", here / ".hidden" / "en.jsonl")
    one = len(data_of("en.jsonl").documents["train"])
    with pytest.warns(UserWarning, match="more than once"):
        assert len(data_of("en.jsonl", "*.jsonl", "**/*.jsonl").documents["train"]) == one
    assert len(data_of(".hidden/*.jsonl").documents["train"]) == one
    assert data_of({"path": "en.jsonl", "lang": "xx"}, "link.jsonl").language_names("train") == ["xx"]
    with pytest.raises(ValueError, match="the languages 'xx' and 'yy'"):
        data_of({"path": "en.jsonl", "lang": "xx"}, {"path": "link.jsonl", "lang": "yy"})


def test_equal_files_and_held_out_text_that_is_trained_on_are_told(here):
    shutil.copy("en.jsonl", "copy.jsonl")
    with pytest.warns(UserWarning, match=r"en\.jsonl and .*copy\.jsonl hold the same documents"):
        data_of({"path": "en.jsonl", "lang": "x"}, {"path": "copy.jsonl", "lang": "x"})
    write(here / "half.jsonl", sentences(1)[:10] + sentences(2)[:10])
    with pytest.warns(UserWarning, match=r"\(10 of 20 documents\) is in the training text too") as told:
        data_of("en.jsonl", val_files=["half.jsonl"])
    assert any(str(one.message).startswith(("49.", "50.", "51.")) for one in told)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data_of("en.jsonl", val_files=[str(write(here / "apart.jsonl", sentences(2)))])


def test_a_run_does_not_continue_on_other_text(here, capsys):
    assert fit("--run.folder", "x") == 0
    write(here / "en.jsonl", sentences(2))
    capsys.readouterr()
    assert fit("--run.folder", "x", "--trainer.max_steps", 9) == 1
    assert "documents of train are not those the run in x began with (30 then, 30 now)" in error_of(capsys)
    assert fit("--run.folder", "y", "--ckpt_path", "x/checkpoints/last.ckpt") == 1
    assert "documents of data.train_files are not those the checkpoint was trained on" in error_of(capsys)
    export(Path("x/checkpoints/last.ckpt"), Path("w.safetensors"))
    assert fit("--run.folder", "y", "--ckpt_path", "w.safetensors") == 0  # its weights alone
    assert (5, "train/bpb") in points(here / "y")
    write(here / "en.jsonl", sentences(1))
    assert fit("--run.folder", "x", "--trainer.max_steps", 9) == 0
    assert fit("--run.folder", "x", command="validate") == 0


def test_bytes_that_changed_inside_a_checkpoint_are_noticed(here, capsys):
    assert fit("--run.folder", "x") == 0
    path = here / "x" / "checkpoints" / "step-00000006.ckpt"
    whole = path.read_bytes()
    for place in range(2000, len(whole) - 2000, len(whole) // 7):
        data = bytearray(whole)
        data[place : place + 2000] = bytes(2000)
        if data == whole:
            continue
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"is damaged|not a checkpoint"):
            read(path)
    capsys.readouterr()
    assert fit("--run.folder", "x", "--trainer.max_steps", 9) == 1
    assert "step-00000006.ckpt is damaged" in error_of(capsys)
    path.write_bytes(whole)
    export(path, Path("w.safetensors"))
    spoil(Path("w.safetensors"))
    with pytest.raises(UserError, match="damaged"):
        read("w.safetensors")
    torch.save([1, 2], "list.pt")
    torch.save({"state_dict": {}}, "dict.pt")
    for name, words in (("list.pt", "it holds a list"), ("dict.pt", "it has no hyper_parameters")):
        assert fit("--run.folder", "x", "--ckpt_path", name, command="validate") == 1
        assert words in error_of(capsys)


# The line of descent


def checkpoints(folder):
    return sorted(path.name for path in (folder / "checkpoints").glob("step-*"))


def test_a_run_taken_back_to_an_older_checkpoint_is_that_of_an_unbroken_one(here, capsys):
    keep = ["--run.keep_last", 9, "--run.checkpoint_every", 2]
    for folder, steps in (("x", 6), ("straight", 8)):
        assert fit("--run.folder", folder, *keep, "--trainer.max_steps", steps) == 0
    assert (
        fit("--run.folder", "x", *keep, "--trainer.max_steps", 8, "--ckpt_path", "x/checkpoints/step-00000002.ckpt")
        == 0
    )
    shown = capsys.readouterr().out
    assert "What this run had after step 2 (" in shown
    assert "set aside in x/set_aside/01" in shown
    assert {p.name for p in (here / "x" / "set_aside" / "01").iterdir()} == {
        "metrics.jsonl", "mlflow.json", *(f"step-0000000{step}.ckpt" for step in (3, 4, 6))
    }  # fmt: skip
    went, straight = points(here / "x"), points(here / "straight")
    assert {k: v for k, v in went.items() if k[0] >= 2} == {k: v for k, v in straight.items() if k[0] >= 2}
    assert (here / "x" / "checkpoints" / "last.ckpt").resolve().name == "step-00000008.ckpt"


def test_the_newest_is_that_of_the_line_and_not_the_highest_number(here):
    keep = ["--run.folder", "x", "--run.keep_last", 9]
    assert fit(*keep) == 0
    assert fit(*keep, "--trainer.max_steps", 5, "--ckpt_path", "x/checkpoints/step-00000002.ckpt") == 0
    assert checkpoints(here / "x")[-1] == "step-00000005.ckpt"
    assert fit(*keep, "--trainer.max_steps", 8) == 0
    assert {step for step, key in points(here / "x") if key == "train/bpb"} == set(range(8))
    assert checkpoints(here / "x")[-3:] == ["step-00000005.ckpt", "step-00000006.ckpt", "step-00000008.ckpt"]


@pytest.mark.parametrize("word", ["last", "best"])
def test_lightnings_words_for_checkpoints_are_answered(word, here, capsys):
    first = fit("--run.folder", "x", "--ckpt_path", word)
    assert first == (0 if word == "last" else 1)
    if first:
        assert "has no best.ckpt" in error_of(capsys)
        assert fit("--run.folder", "x") == 0
    assert fit("--run.folder", "x", "--trainer.max_steps", 9, "--ckpt_path", word) == 0
    assert "Continuing" not in capsys.readouterr().out
    assert {step for step, key in points(here / "x") if key == "train/bpb"} == set(range(9))


def test_a_checkpoint_from_after_the_end_is_named(here, capsys):
    assert fit("--run.folder", "x") == 0
    assert fit("--run.folder", "x", "--trainer.max_steps", 4) == 1
    assert "max_steps is 4, but x/checkpoints/step-00000006.ckpt is of step 6" in error_of(capsys)


def test_what_is_not_a_number_is_never_best(here, monkeypatch):
    from aunet_lightning.training.metrics import BitsPerByte

    usual, calls = BitsPerByte.compute, []

    def compute(self):
        calls.append(1)
        return {name: value * (float("nan") if len(calls) == 1 else 1) for name, value in usual(self).items()}

    monkeypatch.setattr(BitsPerByte, "compute", compute)
    assert fit("--run.folder", "x", "--trainer.val_check_interval", 2) == 0
    state = read(here / "x" / "checkpoints" / "last.ckpt")["callbacks"]
    (scores,) = (of["scores"] for of in state.values() if isinstance(of, dict) and "scores" in of)
    assert sorted(scores) == [4, 6]
    assert (here / "x" / "checkpoints" / "best.ckpt").exists()
