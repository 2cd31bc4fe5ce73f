"""What users do to runs: other text under the old name, older checkpoints, cut files, strange labels and encodings.

A kind of fault to a section; each input has one right value.
"""

import bz2
import errno
import gzip
import json
import lzma
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
import yaml
import zstandard

from aunet_lightning import ByteDataModule
from aunet_lightning.checkpoints.forms import export, read
from aunet_lightning.cli.main import main
from aunet_lightning.errors import UserError
from aunet_lightning.reports.pictures import as_colours, as_line
from aunet_lightning.reports.table import TOTAL, BpbTable, row_of
from aunet_lightning.training.module import AUNetModule
from splitters import Stack
from tests.helpers import ROOT, TINY, place_store, points, sentences, write
from tests.ranks import Ranks, logged, until


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, store_template):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place_store(store_template, tmp_path / "runs" / "mlflow.db"))
    monkeypatch.setenv("AUNET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    write(tmp_path / "en.jsonl", sentences(1))
    return tmp_path


def fit(*options, command="fit"):
    """Runs the command in this process; returns its exit code."""
    try:
        return main([command, "-c", "tiny.yaml", *map(str, options)])
    except SystemExit as done:
        return done.code


def data_of(*files, **options) -> ByteDataModule:
    options = {"workers": 0, "row_bytes": 32, "batch_rows": 2} | options
    made = ByteDataModule([file if isinstance(file, dict) else str(file) for file in files], **options)
    made.prepare_data()
    made.setup()
    return made


def error_of(capsys) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1, lines
    assert "Traceback" not in lines[0]
    return lines[0]


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


# Splitting by language


def test_every_nth_document_of_each_language_is_held_out(here):
    names = ["en", "th", "ru", "zh"]
    mixed = [{"text": text, "lang": names[i % 4]} for i, text in enumerate(sentences(3, 44))]
    data = data_of(write(here / "four.jsonl", mixed), holdout_every=4)
    for part, each in (("train", 9), ("val", 2)):
        languages = [language for language, _ in data.texts(part)]
        assert {name: languages.count(name) for name in names} == dict.fromkeys(names, each)
    single = data_of("en.jsonl", holdout_every=4)
    assert [text for _, text in single.texts("val")] == [text.encode() for text in sentences(1)[3::4]]
    rare = [{"text": "one only", "lang": "tlh"}]
    with pytest.warns(UserWarning, match="no document of tlh is held out"):
        data_of(write(here / "rare.jsonl", mixed + rare), holdout_every=4)


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


# Encodings


def read_texts(path):
    return [text.decode() for _, text in data_of(path).texts("train")]


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        (".GZ", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".Zst", zstandard.compress),
        ("", gzip.compress), (".txt", zstandard.compress),
    ],
)  # fmt: skip
def test_files_are_decompressed_as_their_first_bytes_say(suffix, pack, here):
    path = here / f"a.jsonl{suffix}"
    path.write_bytes(pack((here / "en.jsonl").read_bytes()))
    assert read_texts(path) == sentences(1)


def test_a_long_window_of_zstd_is_read(here):
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=28, enable_ldm=True)
    path = here / "long.jsonl.zst"
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    with path.open("wb") as file, compressor.stream_writer(file) as out:
        out.write((here / "en.jsonl").read_bytes())
    assert read_texts(path) == sentences(1)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le", "utf-16-be"])
def test_text_in_another_encoding_is_not_guessed(encoding, here):
    path = here / "a.jsonl"
    path.write_bytes("".join(f'{{"text": "{text}"}}\n' for text in ("größer", "ไทย", "word", "more")).encode(encoding))
    with pytest.raises(ValueError, match=r"is UTF-(16|32), not UTF-8: convert it|no document is left for train"):
        data_of(path)


def test_lone_surrogates_and_null_fields(here):
    path = here / "th.jsonl"
    lines = [
        '{"text": "a", "id": "\\ud83d"}', '{"text": "b", "lang": "\\udc00"}', '{"text": "c", "lang": null, "id": null}',
        '{"text": "d", "lang": ""}', '{"text": "e", "id": 7}', '\ufeff{"text": "f"}',
    ]  # fmt: skip
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.warns(UserWarning, match=r"2 of 6 lines .* lone surrogate in 'id' \(.*th\.jsonl:1\)"):
        data = data_of(path)
    assert data.texts("train") == [("th", b"c"), ("th", b"d"), ("th", b"e"), ("th", b"f")]
    assert [data.corpora["train"].name(i) for i in range(4)] == ["3", "4", "7", "6"]


def test_a_file_name_that_is_not_utf8_is_read(here):
    path = os.fsdecode(b"caf\xe9.jsonl")
    shutil.copy("en.jsonl", path)
    assert data_of("caf*.jsonl").language_names("train") == ["caf\\xe9"]


def test_keys_that_no_line_has_are_named_with_those_that_are_there(here):
    path = write(here / "a.jsonl", [{"content": "x", "url": "y"}] * 3)
    with pytest.raises(ValueError, match=r"no line has the key 'text' \(data\.text_key\); lines have 'content', 'url'"):
        data_of(path)
    with pytest.raises(ValueError, match=r"no line has the key 'language' \(data\.language_key\); lines have 'text'"):
        data_of("en.jsonl", language_key="language")
    assert len(data_of(path, text_key="content").documents["train"]) == 3


def test_files_whose_names_begin_alike_share_a_language_with_a_word(here):
    for language in ("th", "lo"):
        write(here / f"mc4.{language}.jsonl", ["abc " + language])
    with pytest.warns(UserWarning, match=r"mc4\.lo\.jsonl, mc4\.th\.jsonl share the language 'mc4'"):
        assert data_of("mc4.*.jsonl").language_names("train") == ["mc4"]


def aunet(*arguments, **env):
    command = [sys.executable, "-m", "aunet_lightning.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)} | env)


@pytest.mark.slow
def test_no_locale_and_no_file_of_the_working_folder_breaks_a_command(here):
    """All at once: a folder and a language that ASCII cannot spell, a terminal of latin-1, files named like modules."""
    for name in ("random.py", "regex.py", "numpy.py", "types.py"):
        (here / name).write_text("raise SystemExit('a file of the user was taken for a module')")
    (here / "ไทย").mkdir()
    write(here / "ไทย" / "ไทย.jsonl", sentences(1))
    settings = ["--data.train_files", "[ไทย/*.jsonl]", "--run.folder", "ผล", "--report.sample_prompts", "[ทุกคน]"]
    locale = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "latin-1"}
    done = aunet("fit", "-c", "tiny.yaml", *settings, **locale)
    assert done.returncode == 0, done.stderr
    assert rb"\u0e44\u0e17\u0e22" in done.stdout  # the table's row of ไทย
    assert (here / "ผล" / "checkpoints" / "last.ckpt").exists()
    shown = aunet("split", b"a\xff b", "--splitter", "whitespace")
    assert shown.returncode == 0
    assert "2 boundaries" in shown.stdout.decode() or "boundaries in 4 bytes" in shown.stdout.decode()
    refused = aunet("fit", "-c", "tiny.yaml", "--run.name", b"\xff")
    assert refused.returncode == 1
    assert b"is not UTF-8" in refused.stderr
    assert b"Traceback" not in refused.stderr


# Labels


def test_a_language_called_like_the_total_has_a_row_of_its_own():
    labels = [TOTAL, f'"{TOTAL}"', "all", ""]
    assert len({row_of(label) for label in labels} | {TOTAL}) == 5
    table = BpbTable({"AU-Net": {TOTAL: 1.0} | {row_of(label): 2.0 for label in labels}})
    assert len(table.rows()) == 5
    assert table.rows()[0] == (TOTAL, [1.0])


STRANGE = ["zh//x", "en/", "a/../b", "l" * 260, "a@b", "a_b", TOTAL, "en\x1b[31m", "new\nline", "\x00", "🤝", "..", " "]


@pytest.mark.slow
def test_every_label_arrives_in_mlflow(here, capsys):
    from mlflow.tracking import MlflowClient

    documents = [
        {"text": text, "lang": STRANGE[i % len(STRANGE)]} for i, text in enumerate(sentences(5, 4 * len(STRANGE)))
    ]
    write(here / "strange.jsonl", documents)
    run = ["--data.train_files", "[strange.jsonl]", "--data.holdout_every", "3", "--run.folder", "x"]
    assert fit(*run) == 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    logged = {key for _, key in points(here / "x")}
    known = json.loads((here / "x" / "mlflow.json").read_text())
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    assert set(client.get_run(known["run_id"]).data.metrics) >= logged
    assert sum(key.startswith("val/bpb_") for key in logged) == len(STRANGE)
    assert {artifact.path for artifact in client.list_artifacts(known["run_id"])} >= {"config.yaml", "val_bpb.md"}
    assert fit(*run, "--trainer.val_check_interval", "3", command="predict") == 0


# Terminals


def test_no_control_character_of_data_reaches_a_terminal(here, capsys):
    nasty = "".join(map(chr, [*range(1, 32), 127, *range(128, 160)])) + "word"
    write(here / "esc.jsonl", [{"text": f"red {nasty}", "lang": f"en{nasty}", "id": f"\x1b]0;t\x07{nasty}"}] * 2)
    for extra in (["--splitter", "whitespace", "--splitter", "grapheme"], ["--stats"]):
        assert main(["split", "esc.jsonl", *extra]) == 0
        shown = capsys.readouterr()
        assert not set(shown.out + shown.err) & set(nasty.replace("\n", "").replace("\t", "").removesuffix("word"))
    picture = as_colours(nasty.encode(), Stack(["whitespace"]))
    assert "\r" not in picture + as_line(nasty.encode(), Stack(["whitespace"]))


# What ends a run


def status_of(folder):
    from mlflow.tracking import MlflowClient

    known = json.loads((folder / "mlflow.json").read_text())
    return MlflowClient(os.environ["MLFLOW_TRACKING_URI"]).get_run(known["run_id"]).info.status


@pytest.mark.slow
def test_ctrl_c_saves_and_a_second_command_meanwhile_is_refused(here, capsys):
    """Ctrl-C reaches all processes of a terminal, those that read data too."""
    long = [
        "--trainer.max_steps",
        "100000",
        "--data.workers",
        "1",
        "--run.folder",
        "x",
        "--run.checkpoint_every",
        "9999",
    ]
    run = Ranks(1, here, "fit", "-c", "tiny.yaml", *long, session=True)
    pid = run.processes[0].pid
    try:
        until(logged(here / "x", 20), run)
        assert fit(*long) == 1
        assert f"x is being trained by process {pid}" in error_of(capsys)
        os.killpg(pid, signal.SIGINT)
    finally:
        (code,) = run.wait(60)
    shown = run.output()
    assert code == 130, shown
    step = int(re.search(r"stopped by SIGINT after step (\d+), which is saved: the same command continues", shown)[1])
    assert (here / "x" / "checkpoints" / "last.ckpt").resolve().name == f"step-{step:08}.ckpt"
    assert "Traceback" not in shown
    assert status_of(here / "x") == "KILLED"
    assert fit("--trainer.max_steps", step + 2, "--run.folder", "x") == 0
    assert {at for at, key in points(here / "x") if key == "train/bpb"} == set(range(step + 2))


def test_a_stop_inside_a_validation_moves_no_step(here, monkeypatch):
    """Where nothing was saved in that step before."""
    usual = AUNetModule.validation_step

    def told(self, batch, index):
        if self.global_step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return usual(self, batch, index)

    rare = ["--run.checkpoint_every", 9999]
    assert fit("--run.folder", "straight", *rare) == 0
    with monkeypatch.context() as patch:
        patch.setattr(AUNetModule, "validation_step", told)
        assert fit("--run.folder", "x", *rare) == 130
    assert fit("--run.folder", "x", *rare) == 0
    assert points(here / "x") == points(here / "straight")


def test_a_signal_while_samples_are_made_ends_the_run(here, monkeypatch, capsys):
    from aunet_lightning.reports import run_report

    def generate(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(run_report, "generate", generate)
    assert fit("--run.folder", "x", "--report.sample_prompts", "[a]") == 128 + signal.SIGTERM
    assert "stopped by SIGTERM: the same command continues" in capsys.readouterr().out
    assert (here / "x" / "checkpoints" / "last.ckpt").exists()
    assert status_of(here / "x") == "KILLED"


def test_a_last_save_that_fails_ends_with_an_error(here, monkeypatch, capsys):
    """And says of a full disk that it is full, and names what is there."""
    usual = torch.save

    def save(checkpoint, file, *arguments):
        if checkpoint.get("global_step") == 6:
            raise RuntimeError("PytorchStreamWriter failed writing file") from OSError(
                errno.ENOSPC, "No space left on device"
            )
        usual(checkpoint, file, *arguments)

    monkeypatch.setattr(torch, "save", save)
    with pytest.warns(UserWarning, match="could not be written"):
        assert fit("--run.folder", "x", "--run.keep_best", 0) == 1
    error = error_of(capsys)
    assert "x/checkpoints/step-00000006.ckpt could not be written (no space left on the disk)" in error
    assert "the newest checkpoint is x/checkpoints/step-00000004.ckpt" in error
    assert status_of(here / "x") == "FAILED"


def test_a_run_that_cannot_fit_is_refused_before_it_begins(here, monkeypatch, capsys):
    shutil.rmtree(here / "runs")
    monkeypatch.setattr("aunet_lightning.training.expectation.host_memory", lambda: 1e6)
    assert fit("--run.folder", "x") == 1
    assert "the run does not fit: training takes about 0.0 GB" in error_of(capsys)
    assert not (here / "x").exists()
    assert not (here / "runs").exists()  # and nothing stands as running in MLflow
    assert fit("--run.folder", "x", "--run.check_memory", "false") == 0


@pytest.mark.parametrize(
    "options",
    [
        {"max_steps": -1, "max_epochs": 2, "limit_train_batches": 5},
        {"max_steps": -1, "max_epochs": 3, "limit_train_batches": 0.5, "accumulate_grad_batches": 3},
        {"max_steps": -1, "max_epochs": 2, "overfit_batches": 3},
        {"max_steps": 100, "max_epochs": 1, "limit_train_batches": 7, "accumulate_grad_batches": 2},
        {"max_steps": 4, "max_epochs": 9},
    ],
    ids=str,
)
def test_the_cosine_ends_with_the_run(options, here):
    given = [part for key, value in options.items() for part in (f"--trainer.{key}", value)]
    assert fit("--run.folder", "x", *given, "--trainer.limit_val_batches", 0) == 0
    rates = {step: value for (step, key), value in points(here / "x").items() if key == "train/lr"}
    last = max(rates)
    total = last + 1
    expected = 0.1 + 0.9 * (1 + math.cos(math.pi * (last - 2) / (total - 2))) / 2
    assert rates[last] == pytest.approx(0.003 * expected, rel=1e-5)


def test_held_out_text_that_is_never_used_is_told(here):
    with pytest.warns(UserWarning, match=r"before its first validation \(after 50\), so the 10 held-out documents"):
        assert fit("--run.folder", "x", "--trainer.val_check_interval", 50) == 0
    with pytest.warns(UserWarning, match="held-out documents are never used"):
        assert (
            fit("--run.folder", "y", "--trainer.val_check_interval", "1.0", "--trainer.check_val_every_n_epoch", 1) == 0
        )


def test_a_documents_score_depends_on_its_neighbours_only_where_that_is_said(here, capsys):
    assert fit("--run.folder", "x") == 0
    texts = sentences(7, 6)
    found = []
    for order in (texts, texts[::-1]):
        write(here / "test.jsonl", [{"text": text, "id": text} for text in order])
        capsys.readouterr()
        assert fit("--run.folder", "x", "--data.test_files", "[test.jsonl]", command="predict") == 0
        assert "document_masking is off" not in capsys.readouterr().out
        lines = [json.loads(line) for line in (here / "x" / "predictions.jsonl").read_text().splitlines()]
        found.append({line["id"]: line["bits"] for line in lines})
    assert found[0] == pytest.approx(found[1], abs=2e-3)
    assert fit("--run.folder", "y", "--model.net.document_masking", "false") == 0
    assert fit("--run.folder", "y", command="predict") == 0
    assert "document_masking is off: a document's bits depend on those before it" in capsys.readouterr().out


def test_a_fault_of_ours_says_where_to_report_it(here, monkeypatch, capsys):
    monkeypatch.setattr("aunet_lightning.assembly.expect", None)
    assert fit("--run.folder", "x") == 1
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "this is a fault of aunet-lightning" in told
    assert "README.md, 'When something is wrong'" in told
    assert "When something is wrong" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data.train_files", "[{path: en.jsonl, lang: no}]"], "YAML reads no"),
        (["--data.languages", "[no]"], "YAML reads no"),
        (["--data.train_files", '[""]'], "data.train_files is '', which is not a path"),
        (["--run.name", "n" * 300], "run.name"),
        (["--seed_everything", str(2**40)], "seed_everything"),
        (["--model.optimizer.lr", "nan"], "model.optimizer.lr"),
        (["--trainer.val_check_interval", 999, "--trainer.check_val_every_n_epoch", 1], "val_check_interval"),
        (["--data.cache_dir", "/proc/none"], "data.cache_dir: cannot write"),
        (["--run.folder", "en.jsonl"], "run.folder: cannot write to en.jsonl"),
        (["--ckpt_path", ""], "ckpt_path"),
        (["--ckpt_path", "hpc"], "there is no checkpoint hpc"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_wrong_setting_gets_one_sentence(arguments, words, capsys):
    assert fit(*arguments) in (1, 2)
    assert words in error_of(capsys)


def test_a_single_path_needs_no_brackets(here):
    assert fit("--data.train_files", "en.jsonl", "--run.folder", "x") == 0


@pytest.mark.parametrize("text", [b"a: [b", b"\0\0\0", b"- 1", b"", b"\xff"])
def test_a_damaged_configuration_is_named(text, here, capsys):
    (here / "x").mkdir()
    (here / "x" / "config.yaml").write_bytes(text)
    assert fit("--run.folder", "x") == 1
    assert "x/config.yaml is damaged" in error_of(capsys)


def test_a_binary_file_is_not_split(here, capsys):
    torch.save([1], here / "model.txt")
    for command in (
        ["split", "model.txt"],
        ["split", "model.txt", "--stats"],
        ["vocabulary", "model.txt", "--out", "v.json"],
    ):
        assert main(command) == 1
        assert "model.txt is not text in UTF-8" in error_of(capsys)
