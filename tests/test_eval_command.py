"""`aunet eval make`, `run`, `robustness`, `translation` and `tasks`, from files to files and tables."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml

from aunet_lightning.checkpoints.load import load
from aunet_lightning.evaluation import robustness as of_changes
from aunet_lightning.evaluation import running
from aunet_lightning.evaluation.answers import answers
from aunet_lightning.evaluation.items import read_items
from aunet_lightning.evaluation.language_text import Evenly
from aunet_lightning.evaluation.task import TASKS
from aunet_lightning.scoring import score
from tests.helpers import ROOT, UDHR, aunet, error_of, sentences, write

pytest.importorskip("icu4py")

KEPT = ROOT / "tests" / "kept_run" / "checkpoints" / "last.ckpt"
ROW = 128  # ids, of its training
SOME = [part for name in ("spell", "insert_word", "characters_exchanged", "broken_bytes") for part in ("--task", name)]


def rows_of(table: str) -> list[list[str]]:
    """The cells of a printed table, without its header."""
    return [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()[1:]]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of items of English and Thai."""
    folder = tmp_path_factory.mktemp("items")
    files = UDHR / "en.jsonl", UDHR / "th.jsonl"
    assert aunet("eval", "make", *files, "--out", folder, "--items", 6, "--seed", 1, *SOME) == 0
    return folder


@pytest.fixture
def here(tmp_path, tmp_path_factory, monkeypatch, made):
    """A folder to run in, with items of two languages, an item that is broken, and a checkpoint outside of a run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUNET_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    shutil.copytree(made, "items")
    shutil.copy(KEPT, "model.ckpt")
    write(tmp_path / "en.jsonl", sentences(1, 9))
    (tmp_path / "odd.jsonl").write_text('{"task": "spell"}\n')
    return tmp_path


def test_tasks_are_listed_with_their_group(capsys):
    assert aunet("eval", "tasks") == 0
    assert [row[:2] for row in rows_of(capsys.readouterr().out)] == [[n, TASKS.get(n).group] for n in TASKS.built_in]


def test_items_are_those_of_the_tasks_and_what_is_left_out_has_its_reason(here, made, capsys):
    assert aunet("eval", "make", UDHR / "*.jsonl", "--language", "th", "--out", "th", "--items", 6, "--seed", 1) == 0
    rows = rows_of(capsys.readouterr().out)
    assert [row[:2] for row in rows] == [["th", name] for name in TASKS.built_in]
    without = {row[1]: row[3] for row in rows if row[2] == "0"}
    assert without == {
        "jamo": "the text has no Hangul syllables",
        "components": "the text has no Han characters",
        "blank_moved": "there are no blanks between its words",
        "blank_missing": "there are no blanks between its words",
    }
    assert {row[1]: row[2:] for row in rows if row[1] not in without} == {
        name: ["6"] for name in TASKS.built_in if name not in without
    }
    assert {path.stem for path in Path("th").glob("*.jsonl")} == {f"{n}_th" for n in TASKS.built_in if n not in without}
    for path in made.glob("*_th.jsonl"):  # made beside English ones, of the same seed
        assert path.read_bytes() == Path("th", path.name).read_bytes()
        assert len({item.id for item in read_items(path)}) == 6
    of_one = yaml.safe_load(Path("th", "spell_th.yaml").read_text(encoding="utf-8"))
    assert of_one["task"] == "aunet_spell_th"
    assert not Path("th", "broken_bytes_th.yaml").exists()  # which lm_eval cannot read


def test_a_text_that_is_too_short_says_so(here, capsys):
    write(here / "few.jsonl", [{"text": "These are only a few words.", "lang": "en"}])
    assert aunet("eval", "make", "few.jsonl", "--out", "few", *SOME) == 0
    n, *reason = next(row[2:] for row in rows_of(capsys.readouterr().out) if row[1] == "spell")
    assert 0 < int(n) < 100
    assert reason == ["the text has no more that differ"]


def test_answers_are_those_of_the_model_and_continue(here, capsys, monkeypatch):
    assert aunet("eval", "run", "model.ckpt", "items", "--out", "new/answers.jsonl") == 0
    shown = capsys.readouterr().out
    out = Path("new/answers.jsonl")
    lines = out.read_text().splitlines()
    items = [item for path in sorted(Path("items").glob("*.jsonl")) for item in read_items(path)]
    expected = list(answers(*load(KEPT), items, ROW))
    assert [json.loads(line)["id"] for line in lines[1:]] == [one.id for one in items]
    for line, one in zip(map(json.loads, lines[1:]), expected, strict=True):
        assert line["bits"] == pytest.approx(one.bits, rel=1e-5)
        assert (line["right"], line["chosen"]) == (one.chosen == one.item.answer, one.item.kinds[one.chosen])
    right = Counter((one.item.task, one.item.language) for one in expected if one.chosen == one.item.answer)
    table = {(row[0], row[1]): row[2:] for row in rows_of(shown)}
    assert {key: row[0] for key, row in table.items()} == dict.fromkeys(
        {(one.task, one.language) for one in items}, "6"
    )
    assert {key: row[1] for key, row in table.items()} == {key: f"{right[key] / 6:.1%}" for key in table}

    text = out.read_text()
    out.write_text(text[: len(text) // 2])  # as a process leaves it that is killed
    kept = out.read_text().count("\n") - 1
    asked = []

    def counted(net, reader, new, row):
        asked.extend(one.id for one in new)
        return answers(net, reader, new, row)

    monkeypatch.setattr(running, "answers", counted)
    assert aunet("eval", "run", "model.ckpt", "items", "--out", out) == 0
    assert len(asked) == len(items) - kept
    assert 0 < kept < len(items)
    assert capsys.readouterr().out == shown
    for line, old in zip(out.read_text().splitlines()[1:], lines[1:], strict=True):
        new, before = json.loads(line), json.loads(old)
        assert new | {"bits": 0} == before | {"bits": 0}
        assert new["bits"] == pytest.approx(before["bits"], rel=1e-5)


def test_changed_text_has_the_bits_that_score_finds(here, capsys, monkeypatch):
    arguments = ["--change", "upper", "--change", "nfc", "--out", "new/changed.jsonl"]
    assert aunet("eval", "robustness", "model.ckpt", "en.jsonl", *arguments) == 0
    texts = [json.loads(line)["text"] for line in Path("en.jsonl").read_text().splitlines()]
    net, reader = load(KEPT)
    before = [one.bits for one in score(net, reader, [text.encode() for text in texts], ROW)]
    after = [one.bits for one in score(net, reader, [text.upper().encode() for text in texts], ROW)]
    kept = Path("new/changed.jsonl").read_text().splitlines(keepends=True)
    lines = [json.loads(line) for line in kept[1:]]
    assert [(line["change"], line["id"]) for line in lines] == [("upper", str(i)) for i in range(9)]  # nfc: as they are
    assert [line["bits"] for line in lines] == pytest.approx(after, rel=1e-5)
    assert [line["bytes"] for line in lines] == [len(text) for text in texts]
    shown = capsys.readouterr().out
    table = shown.splitlines()
    assert table[1].split() == ["language", "upper", "nfc"]
    assert table[2].split() == ["en", f"{sum(after) / sum(before):.3f}", "–"]
    # Killed while it wrote the fifth line, it reads what is missing, and finds the same.
    Path("new/changed.jsonl").write_text("".join(kept[:5]) + kept[5][:20])
    read = []
    monkeypatch.setattr(of_changes, "score", lambda *given: read.append(given) or score(*given))
    assert aunet("eval", "robustness", "model.ckpt", "en.jsonl", *arguments) == 0
    assert capsys.readouterr().out == shown
    assert [len(texts) for _, _, texts, _ in read] == [9, 5, 0]  # before the change, changed, as nfc leaves it
    assert [json.loads(line)["id"] for line in Path("new/changed.jsonl").read_text().splitlines()[1:]] == [*"012345678"]
    assert aunet("eval", "robustness", "model.ckpt", "en.jsonl", *arguments, "--seed", 5) == 1
    assert "has results of another model or another row ids or another seed: name another --out" in error_of(capsys)


def test_of_much_text_documents_are_taken_evenly(here, capsys):
    sizes = [len(json.loads(line)["text"]) for line in Path("en.jsonl").read_text().splitlines()]
    most = sum(sizes[::2]) + 1
    given = ["model.ckpt", "en.jsonl", "--change", "upper", "--out", "o.jsonl"]
    for bound, expected in (
        (["--megabytes", most / 1e6], sizes[::2]),
        ([], sizes),
        (["--megabytes", most / 1e6], sizes[::2]),
    ):
        assert aunet("eval", "robustness", *given, *bound) == 0
        assert [json.loads(line)["bytes"] for line in Path("o.jsonl").read_text().splitlines()[1:]] == expected


@pytest.mark.parametrize("most", [1, 7, 10, 95, 1000])
def test_documents_that_are_taken_are_even_and_no_more_than_asked(most):
    documents = [f"{i:02}éก".encode() for i in range(40)]  # of 7 bytes
    taken = Evenly(most)
    for one in documents:
        taken.add(one)
    every = taken.every
    assert [one[:2] for one in taken.documents] == [f"{i:02}"[:most] for i in range(0, 40, every)]
    assert taken.bytes <= most
    assert every == 1 or 7 * len(documents[:: every // 2]) > most  # no fewer than it must
    assert most < 7 or all(one.encode() in documents for one in taken.documents)


def test_translation_tells_languages_and_what_was_left_out(here, capsys):
    files = [UDHR / f"{name}.jsonl" for name in ("en", "de", "th")]
    assert aunet("eval", "translation", "model.ckpt", *files, "--items", 5, "--no_generation") == 0
    shown = capsys.readouterr()
    rows = rows_of(shown.out)
    assert [row[:3] for row in rows[:2]] == [["de", "unknown", "5"], ["th", "unknown", "5"]]
    assert rows[2][:2] == ["(all)", "10"]
    assert "lines of less than 20 or more than 200 bytes in English left out" in shown.err


def test_translation_writes_sentences_and_rates_them(here, capsys, monkeypatch):
    pytest.importorskip("sacrebleu")
    monkeypatch.setattr("aunet_lightning.evaluation.translation.GENERATED", 9)
    files = [UDHR / f"{name}.jsonl" for name in ("en", "de")]
    given = ["eval", "translation", KEPT, *files, "--items", 2, "--out", "t.jsonl"]
    assert aunet(*given) == 0
    (de, *means) = rows_of(shown := capsys.readouterr().out)
    assert de[:3] == ["de", "never", "2"]  # which its run's data.json tells
    assert [row[0] for row in means] == ["(all)", "(never in training)"]
    assert 0 <= float(de[7]) <= 100
    monkeypatch.setattr("aunet_lightning.evaluation.running.answers", lambda net, reader, new, row_ids: iter([*new]))
    monkeypatch.setattr("aunet_lightning.evaluation.translation.continued", lambda net, reader, new, of: [*new])
    assert aunet(*given) == 0  # all of it is kept
    assert capsys.readouterr().out == shown


def test_answers_belong_to_the_weights_and_not_to_their_file(here, capsys):
    """A run that has ended writes its checkpoint anew where it is continued."""
    command = ["eval", "run", "model.ckpt", "items/spell_en.jsonl", "--out", "answers.jsonl", "--row_ids", "64"]
    assert aunet(*command) == 0
    items = [*read_items(Path("items/spell_en.jsonl"))]
    cut = sum(len(one.context) + max(map(len, one.choices)) > 64 + 1 for one in items)
    assert cut > 0
    assert f"{cut} of {len(items)} items do not fit into a row of 64 ids" in capsys.readouterr().err
    contents = torch.load("model.ckpt", weights_only=True)
    torch.save(contents | {"odd": "another file"}, "model.ckpt")
    before = Path("answers.jsonl").read_text()
    assert aunet(*command) == 0
    assert aunet("export", "model.ckpt", "--out", "model.safetensors") == 0
    assert aunet(*[part.replace(".ckpt", ".safetensors") for part in command]) == 0
    assert Path("answers.jsonl").read_text() == before
    contents["state_dict"]["net.head.weight"][0] += 1
    torch.save(contents, "model.ckpt")
    capsys.readouterr()
    assert aunet(*command) == 1
    assert "answers.jsonl has results of another model or another row ids: name another" in error_of(capsys)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["make", "en.jsonl", "--out", "o", "--task", "spel"], "task is 'spel': choose one of spell, "),
        (["make", "en.jsonl", "--out", "o", "--language", "xx"], "--language: no document is in xx; the files have en"),
        (["make", "en.jsonl", "--out", "o", "--items", 0], "--items is 0, it must be 1 or more"),
        (["make", "none.jsonl", "--out", "o"], "no file matches 'none.jsonl' (looked from "),
        (["make", "en.jsonl", "--out", "en.jsonl"], "--out is en.jsonl, which is a file: name a folder"),
        (["run", "none.ckpt", "items"], "there is no checkpoint none.ckpt: runs keep theirs in"),
        (["run", "model.ckpt", "none"], "none is neither a file of items nor a folder with some: aunet eval make"),
        (["run", "model.ckpt", "odd.jsonl"], "odd.jsonl:1 is not an item of aunet eval make"),
        (["run", "model.ckpt", "items", "--out", "items"], "--out is items, which is a folder: name a file in it"),
        (["run", "model.ckpt", "items", "--out", "en.jsonl"], "en.jsonl has results of another model or another row"),
        (["run", "model.ckpt", "items", "--row_ids", 0], "--row_ids is 0, it must be 1 or more"),
        (["robustness", "model.ckpt", "en.jsonl", "--change", "uper"], "'uper' is no change of a text: choose among"),
        (["robustness", "model.ckpt", "en.jsonl", "--megabytes", 0], "--megabytes is 0, it must be above 0"),
        (["robustness", "model.ckpt", "en.jsonl", "--out", "items"], "--out is items, which is a folder"),
        (["robustness", "model.ckpt", "en.jsonl", "--device", "gpu"], "--device is 'gpu', which cannot be used"),
        (["translation", "model.ckpt", "en.jsonl"], "data.parallel_files has text in en: it needs en, to which"),
        (["translation", "model.ckpt", "en.jsonl", "--items", 0], "--items is 0, it must be 1 or more"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_named_and_nothing_written(arguments, error, here, capsys):
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    assert aunet("eval", *arguments) == 1
    assert error in error_of(capsys)
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before
