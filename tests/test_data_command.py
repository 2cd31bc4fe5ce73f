"""`aunet data`: what files hold, and whether a run can train on them."""

import json

import pytest
import yaml

from aunet_lightning.data.documents import Report
from aunet_lightning.data.inspection import BARS, inspect
from aunet_lightning.data.sources import expand
from aunet_lightning.reports.pictures import script_of
from tests.helpers import UDHR, aunet, error_of

MIXED = [
    {"text": "All human beings", "lang": "en"}, {"text": "ทุกคน", "lang": "th"}, {"text": "人人", "lang": "en"},
    {"text": 7}, {"text": "a" * 5000, "lang": "en"},
]  # fmt: skip


@pytest.fixture
def mixed(tmp_path):
    path = tmp_path / "mixed.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in MIXED))
    return path


def test_every_document_is_counted_once(mixed):
    told = []
    found, report = inspect(expand([str(mixed)], "f"), script_of, told.append)
    plain = [d for source in expand([str(mixed)], "f") for d in source.documents(Report())]
    assert told == plain
    assert sum(len(text.lengths) for text in found.values()) == report.documents == 4
    assert sum(report.skipped.values()) == 1
    for language, text in found.items():
        mine = [document.text for document in plain if document.language == language]
        assert text.lengths.tolist() == [*map(len, mine)]
        assert text.characters == sum(len(one.decode()) for one in mine)
        assert sum(text.scripts.values()) == text.bytes == sum(map(len, mine))
        assert text.kept == mine
    assert found["en"].scripts == {"Latin": 5016, "Han": 6}
    assert found["en"].picture() == "  ▇ ▇       ▇".replace("▇", BARS[-1]).ljust(21)  # 6, 16 and 5000 bytes


def test_inspect_shows_languages_and_rates(mixed, capsys):
    assert aunet("data", "inspect", mixed, "--splitter", "whitespace") == 0
    shown = capsys.readouterr()
    assert "1 of 5 lines hold no usable document" in shown.err
    rows = [line.split() for line in shown.out.splitlines()]
    assert rows[1][:4] == ["en", "3", "5022", "99.7%"]
    assert rows[2][:4] == ["th", "1", "15", "0.3%"]
    assert "Latin 100%, Han 0%" in shown.out
    assert rows[-2:] == [["en", f"{5022 / 2:.2f}"], ["th", "–"]]  # units begin at "human" and "beings"


def test_check_says_what_a_run_would(mixed, tmp_path, capsys):
    settings = {"data": {"train_files": [str(UDHR / "th.jsonl")], "holdout_every": 10}, "splitter": "whitespace"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(settings))
    assert aunet("data", "check", "-c", tmp_path / "mine.yaml") == 0
    shown = capsys.readouterr()
    assert [line.split()[:3] for line in shown.out.splitlines()[1:3]] == [["train", "th", "28"], ["val", "th", "3"]]
    assert "no warnings: a run can train on this text" in shown.err
    assert aunet("data", "check", mixed) == 0
    assert "1 warning: a run can train on this text" in capsys.readouterr().err
    settings["data"]["val_files"] = settings["data"]["train_files"]
    (tmp_path / "same.yaml").write_text(yaml.safe_dump(settings))
    assert aunet("data", "check", "-c", tmp_path / "same.yaml") == 0
    assert "100.0% of the val text" in capsys.readouterr().err


def test_check_takes_settings_as_fit_does(tmp_path, capsys):
    settings = {"data": {"train_files": [str(UDHR / "th.jsonl")], "holdout_every": 10}, "splitter": "nothing"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(settings))
    given = ["--data.holdout_every", 4, "--splitter", "{name: fixed, n: 3}", f"--data.train_files=[{UDHR}/en.jsonl]"]
    assert aunet("data", "check", "-c", tmp_path / "mine.yaml", *given) == 0
    rows = [line.split()[:3] for line in capsys.readouterr().out.splitlines()[1:3]]
    assert rows == [["train", "en", "24"], ["val", "en", "7"]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check"], "no text is named"), (["inspect"], "no file is named"), (["inspect", "nowhere.jsonl"], "no file matches"),
        (["check", "-c", "list.yaml"], "has no settings of a run"), (["inspect", "empty.jsonl"], "there is no document: nothing is in empty.jsonl: name a file that holds text"),
        (["inspect", "other.jsonl"], "no line has the key 'text'"),
        (["check", "other.jsonl", "--data.languages", "[th"], "data.languages is '[th', it must be a list or null"),
        (["check", "-c", "typo.yaml"], "data.trian_files is unknown. Did you mean data.train_files?"),
    ],
)  # fmt: skip
def test_what_cannot_be_looked_at_is_said(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "typo.yaml").write_text("data: {trian_files: [other.jsonl], val_files: [other.jsonl]}")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "other.jsonl").write_text('{"content": "a"}\n')
    assert aunet("data", *arguments) == 1
    assert said in error_of(capsys)
