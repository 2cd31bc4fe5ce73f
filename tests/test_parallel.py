"""Parallel text in a run: aligned files or a TSV, and bits relative to English that are those of `score`."""

import math

import pytest

from aunet_lightning.checkpoints.load import load
from aunet_lightning.scoring import score
from aunet_lightning.training.parallel import aligned, named_texts, relative
from tests.helpers import data_of, error_of, fit, points, write

ROWS = [("All are equal.", "ทุกคนเสมอกัน", "人人平等"), ("No one.", "ไม่มีใคร", ""), ("Yes", "ใช่", "是"), ("odd",)]


@pytest.fixture
def files(here):
    lines = ["en\tth\tzh", *("\t".join(row) for row in ROWS)]
    (here / "pairs.tsv").write_text("\n".join(lines), encoding="utf-8")
    for column, language in enumerate(("en", "th", "zh")):
        texts = "\n".join(row[column] for row in ROWS if len(row) == 3)
        (here / f"{language}.txt").write_text(texts, encoding="utf-8")
    return here


def test_a_tsv_and_aligned_files_give_the_same_documents(files):
    told = data_of("en.jsonl", parallel_files=[{"path": "pairs.tsv", "format": "tsv_parallel"}])
    lines = data_of(
        "en.jsonl", parallel_files=[{"path": f"{one}.txt", "format": "text_lines"} for one in ("en", "th", "zh")]
    )
    expected = {one: [row[i].encode() for row in (ROWS[0], ROWS[2])] for i, one in enumerate(("en", "th", "zh"))}
    assert aligned(named_texts(told)) == aligned(named_texts(lines)) == expected
    skipped = told.corpora["parallel"].report
    assert skipped.skipped == {"not 3 fields, as in the header": 1, "empty text": 1}
    assert skipped.examples["empty text"] == ["pairs.tsv:3, zh"] or skipped.examples["empty text"][0].endswith(":3, zh")


def test_a_run_logs_what_score_says(files, capsys):
    parallel = "[{path: pairs.tsv, format: tsv_parallel}]"
    options = ["--data.parallel_files", parallel, "--trainer.max_steps", "4", "--run.folder", "r"]
    options += ["--trainer.val_check_interval", "2", "--trainer.check_val_every_n_epoch", "null"]
    assert fit(*options) == 0
    net = load(files / "r" / "checkpoints" / "last.ckpt")[0]
    data = data_of("en.jsonl", parallel_files=[{"path": "pairs.tsv", "format": "tsv_parallel"}])
    bits = {
        language: [one.bits for one in score(net.eval(), net.reader, texts, 64)]
        for language, texts in aligned(named_texts(data)).items()
    }
    logged = {key: value for (_, key), value in points(files / "r").items() if key.startswith("parallel/")}
    for language, ratio in relative(bits).items():
        assert logged[f"parallel/ratio_{language}"] == pytest.approx(ratio, rel=1e-5)
        assert logged[f"parallel/bits_{language}"] == pytest.approx(math.fsum(bits[language]) / 2, rel=1e-5)
    assert logged["parallel/ratio_en"] == 1
    shown = sorted((ratio, language) for language, ratio in relative(bits).items() if language != "en")
    line = ", ".join(f"{language} {ratio:.2f}" for ratio, language in shown)
    assert f"Parallel text, 2 documents: bits relative to English {line}" in capsys.readouterr().out


def test_text_that_cannot_be_compared_is_told(files, capsys):
    write(files / "de.jsonl", [{"text": "Ja", "id": "a", "lang": "de"}, {"text": "Yes", "id": "b", "lang": "en"}])
    for given, says in (
        ("[th.txt]", "it needs en, to which others are compared"),
        ("[de.jsonl]", "no document has the same id"),
        ("[{path: en.txt, format: tsv_parallel}]", "names a language for each of two columns"),
    ):
        assert fit("--data.parallel_files", given, "--trainer.max_steps", "1", "--run.folder", "q") == 1
        assert says in error_of(capsys)
