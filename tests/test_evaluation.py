"""Evaluation: items in files, choices by bits per byte, answers that continue, and what a study says of them."""

import json
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aunet_lightning.evaluation import running
from aunet_lightning.evaluation.answers import Answered, Tally, answers, as_metrics, table, tallied
from aunet_lightning.evaluation.items import ANSWER, COPY, Item, read_items, write_items
from aunet_lightning.evaluation.language_text import LanguageText, characters
from aunet_lightning.evaluation.running import Asked, answered
from aunet_lightning.evaluation.shared_context import can_share
from aunet_lightning.evaluation.task import Question, Task
from aunet_lightning.reader.reader import ByteReader
from aunet_lightning.reports.study.evaluation import evaluation
from aunet_lightning.reports.study.statistics import Comparison
from aunet_lightning.scoring import Continuation, score
from aunet_lightning.study.cell_folder import CellFolder
from aunet_lightning.study.cell_process import CellTask, _run
from aunet_lightning.study.evaluating import as_metrics as group_metrics
from aunet_lightning.study.evaluating import commands, evaluations
from aunet_lightning.study.grid import StudyCell
from aunet_lightning.study.results import DocumentBits
from tests.helpers import MIXED, UDHR, cell, sentences, study, tiny, tiny_model
from tests.test_scoring import model

READER = ByteReader(["whitespace"])
ITEM = Item("spell", "th", "1", "ก = ".encode(), (b"yes", b"no", "ใช่".encode()), (COPY, ANSWER, "edit"))


def item(number: int, *choices: str) -> Item:
    return Item(
        "spell", "en", str(number), b"a: ", tuple(map(str.encode, choices)), (ANSWER, *["edit"] * (len(choices) - 1))
    )


@settings(max_examples=50)
@given(st.binary(max_size=12), st.lists(st.binary(min_size=1, max_size=9), min_size=2, max_size=4, unique=True))
def test_items_come_back_from_their_file_whatever_their_bytes(tmp_path_factory, context, choices):
    path = tmp_path_factory.getbasetemp() / "items.jsonl"
    made = Item("a", "xx", "1", context, tuple(choices), (ANSWER, *["edit"] * (len(choices) - 1)))
    assert write_items(path, [made, ITEM]) == 2
    assert list(read_items(path)) == [made, ITEM]
    line = json.loads(path.read_text().splitlines()[1])
    assert line["choices"][line["answer"]] == "no"


@pytest.mark.parametrize("change", [{"kinds": ["edit"] * 3}, {"choices": ["a", "a", "b"]}, {"context": None}], ids=str)
def test_a_line_that_is_no_item_is_named(tmp_path, change):
    path = tmp_path / "items.jsonl"
    path.write_text(ITEM.as_json() + "\n" + json.dumps(json.loads(ITEM.as_json()) | change) + "\n")
    with pytest.raises(ValueError, match=r"items.jsonl:2 is not an item"):
        list(read_items(path))


def test_a_choice_is_that_of_fewest_bits_per_byte():
    one = Answered(item(1, "ab", "abcd", "x"), (4.0, 6.0, 3.0))
    assert (one.chosen, one.chosen_by_bits) == (1, 2)
    assert Answered(item(1, "ab", "cd"), (4.0, 4.0)).chosen == 1  # equal: not the answer
    tally = Tally()
    for bits in [(1.0, 2.0)] * 7 + [(2.0, 1.0)] * 3:
        tally.add(Answered(item(1, "ab", "cd"), bits))
    assert (tally.accuracy, tally.chance / tally.n) == (0.7, 0.5)
    assert tally.interval == pytest.approx((0.3968, 0.8922), abs=1e-4)  # Wilson's, of 7 in 10


@pytest.mark.parametrize("name", ["bytes", "whitespace", "router", "refresh", "tokens"])
def test_answers_are_scores_of_the_choices(name, monkeypatch):
    """A context is read once, unless a row has no room for it or tokens have bytes of it and of a choice."""
    net, reader = model(name)
    drawn, whole = random.Random(0), MIXED + " ".join(sentences(3, 4)).encode()
    monkeypatch.setattr("aunet_lightning.evaluation.answers.AT_ONCE", 5)
    monkeypatch.setattr("aunet_lightning.evaluation.shared_context.BATCH", 200)
    items = []
    for number in range(13):
        context = whole[drawn.randrange(30) :][: drawn.choice([0, 1, 9, 40, 80])]
        others = {" ".join(sentences(drawn.randrange(99), 1))[: drawn.randint(1, 30)].encode() for _ in range(9)}
        choices = sorted(others)[: drawn.randint(2, 4)]
        items.append(Item("spell", "en", str(number), context, (*choices,), (ANSWER, *["edit"] * (len(choices) - 1))))
    if name == "tokens":  # which are of whole text
        items = [replace(one, context=one.context.decode(errors="ignore").encode()) for one in items]
    shared = [can_share(net, reader, one, 64) for one in items]
    assert (True in shared, False in shared) == (name != "tokens", True)
    for one, asked in zip(answers(net, reader, items, 64), items, strict=True):
        assert one.item == asked
        expected = [x.bits for x in score(net, reader, [Continuation(asked.context, c) for c in asked.choices], 64)]
        assert one.bits == pytest.approx(expected, rel=1e-4)


def test_metrics_are_of_groups_and_the_table_of_tasks():
    net = tiny_model(tiny(2), 0, READER.stack)
    items = [item(number, "one", "a longer text", "z") for number in range(3)]
    found = list(answers(net, READER, items, 64))
    others = [Answered(replace(one.item, task=task), one.bits) for task in ("swap_words", "odd") for one in found]
    metrics, rows = as_metrics(tallied([*found, *others])), table(tallied([*found, *others]))
    right = sum(one.chosen == 0 for one in found) / 3
    assert metrics == {"eval/spelling_en": right, "eval/odd_en": right}  # a group is one chart, whatever it has
    assert [row[:4] for row in rows[1:]] == [
        [name, "en", "3", f"{right:.1%}"] for name in ("odd", "spell", "swap_words")
    ]


def test_a_stopped_evaluation_continues(tmp_path, monkeypatch):
    net = tiny_model(tiny(2), 0, READER.stack)
    items = [item(number, f"one {number}", "another") for number in range(7)]
    asked, out = Asked(net, READER, "model", 64), tmp_path / "new" / "answers.jsonl"
    whole = list(answered(asked, items, None))
    monkeypatch.setattr(running, "AT_ONCE", 2)
    first = answered(asked, items, out)
    for _ in range(3):
        next(first)
    first.close()
    out.write_text(out.read_text()[:-9])  # a line that was cut
    read = Counter()

    def counted(net, reader, new, row):
        read.update(one.id for one in new)
        return answers(net, reader, new, row)

    monkeypatch.setattr(running, "answers", counted)
    np.testing.assert_allclose(
        [one.bits for one in answered(asked, items, out)], [one.bits for one in whole], rtol=1e-5
    )
    assert sorted(read.elements()) == ["3", "4", "5", "6"]
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()[1:]] == [one.id for one in items]
    with pytest.raises(ValueError, match="results of another model"):
        list(answered(asked._replace(model="another"), items, out))


class Doubling(Task):
    """Which word is written twice?"""

    group, choices = "spelling", 2

    def question(self, text: LanguageText, rng: random.Random, number: int) -> Question | None:
        word, other = rng.choice(list(text.words)), rng.choice(list(text.words))
        return Question(f"{word} = ", word * 2, {COPY: word, "edit": other * 2})


def test_a_task_makes_different_items_from_its_seed():
    text = LanguageText("km", [json.loads(line)["text"] for line in (UDHR / "km.jsonl").open(encoding="utf-8")])
    one, again, other = (list(Doubling().items("double", text, 40, seed)) for seed in (1, 1, 2))
    assert one == again
    assert one != other
    assert len({(x.context, x.choices) for x in one}) == 40
    assert all(x.choices[x.answer] == 2 * x.context.removesuffix(b" = ") for x in one)
    assert 5 < sum(x.answer == 0 for x in one) < 35
    few = LanguageText("en", ["Only these words."])
    assert len(list(Doubling().items("double", few, 40, 0))) == 3  # none twice


def test_words_and_characters_of_languages_without_blanks():
    text = LanguageText("th", ["ประชาชนมีสิทธิ 12 ข้อ", "สิทธิ\u200bประชาชน"])
    assert text.pieces("ประชาชนมีสิทธิ") == ["ประชาชน", "มี", "สิทธิ"]
    assert text.words["สิทธิ"] == 2
    assert "12" not in text.words
    assert characters("กี่") == ["กี่"]
    made = str(text.made_up(4, random.Random(0)))
    assert len(characters(made)) == 4
    assert made not in text.words


# In a study


def asked_cell(name, seed, wrong, **more):
    values = np.array(wrong, float)
    found = {"minimal_pairs": DocumentBits("same", values, np.ones(len(values)))}
    return cell(name, seed=seed, evaluations=found, metrics=group_metrics(found), **more)


def test_a_study_tells_shares_of_right_answers_with_the_statistics_of_bpb():
    rng = np.random.default_rng(0)
    cells = [asked_cell("good", seed, rng.random(400) < 0.2) for seed in (1, 2, 3)]
    cells += [asked_cell("bad", seed, rng.random(400) < 0.5) for seed in (1, 2, 3)]
    result = study(cells)
    table = next(block for block in evaluation(Comparison(result)) if hasattr(block, "rows"))
    shown = {row[0]: row[1].lines[0] for row in table.rows}
    for name in ("good", "bad"):
        mean = np.mean([1 - c.evaluations["minimal_pairs"].bits.mean() for c in cells if c.splitter == name])
        assert shown[name].startswith(f"{mean:.1%} ±")
    assert "≈" not in shown["bad"]
    comparison = Comparison(result.evaluated("minimal_pairs"))
    assert comparison.difference(*comparison.ranking("en")).apart
    assert evaluation(Comparison(study([cell()]))) == []
    assert cells[0].metrics["eval/minimal_pairs"] == 1 - cells[0].evaluations["minimal_pairs"].bits.mean()
    assert replace(cells[0], evaluations={}).bpb == 1.0


def asking(**evaluate):
    settings = {"data": {"val_files": ["val.jsonl"]}}
    return StudyCell("a", "whitespace", "en", 2, 1, settings, 1e8, "whitespace", evaluate=evaluate)


def test_a_cell_that_is_asked_later_keeps_what_its_training_told(tmp_path):
    files, asked = CellFolder(tmp_path / "cells" / "a"), []
    files.path.mkdir(parents=True)
    told = {"seconds": 9.0, "commit": "older", "waited": 0.5}
    files.done.write_text(json.dumps(told | {"evaluate": {}}))
    task = CellTask(files.path, asking(robustness=5.0))
    assert _run(files, task, lambda arguments: asked.append(arguments) or 0, 0) == 0
    assert json.loads(files.done.read_text()) == told | {"evaluate": {"robustness": 5.0}}
    assert [one[:2] for one in asked] == [["fit", "-c"], ["eval", "robustness"]]
    assert asked[-1][3:6] == ["val.jsonl", "--megabytes", "0.005"]


def test_answers_to_items_that_a_study_no_longer_has_do_not_count(tmp_path):
    files, items = CellFolder(tmp_path / "cells" / "a"), [item(number, "one", "another") for number in range(5)]
    for folder in (files.path, tmp_path / "items" / "en"):
        folder.mkdir(parents=True)
    assert commands(asking(parts=5), files) == []  # of which a language has none
    net = tiny_model(tiny(2), 0, READER.stack)
    list(answered(Asked(net, READER, "model", 64), items, files.answers))
    for n in (5, 2):
        write_items(tmp_path / "items" / "en" / "spell_en.jsonl", items[:n])
        found = evaluations(asking(spelling=n, spell=n, robustness=1), files)
        assert {name: len(one.bits) for name, one in found.items()} == {"spelling": n, "spell": n}
