"""Strange labels, encodings, names and control characters in text: each input has one right value."""

import bz2
import gzip
import json
import lzma
import os
import shutil
import subprocess
import sys

import pytest
import zstandard

from aunet_lightning.cli.main import main
from aunet_lightning.reports.pictures import as_colours, as_line
from aunet_lightning.reports.table import TOTAL, BpbTable, row_of
from splitters import Stack
from tests.helpers import ROOT, data_of, fit, points, sentences, write

pytestmark = pytest.mark.usefixtures("here")


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


def test_null_fields(here):
    path = here / "th.jsonl"
    lines = ['{"text": "c", "lang": null, "id": null}', '{"text": "d", "lang": ""}', '{"text": "e", "id": 7}']
    path.write_text("\n".join(lines), encoding="utf-8")
    data = data_of(path)
    assert data.texts("train") == [("th", b"c"), ("th", b"d"), ("th", b"e")]
    assert [data.corpora["train"].name(i) for i in range(3)] == ["1", "2", "7"]


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
