"""Translation into English: questions that are the same in all languages, choices by likelihood, chrF of what is written."""

import json
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from aunet_lightning.errors import UserError
from aunet_lightning.evaluation.answers import Tally, answers, tallied
from aunet_lightning.evaluation.items import ANSWER, read_items, write_items
from aunet_lightning.evaluation.translation import (
    GENERATED,
    LENGTHS,
    Generated,
    Translation,
    as_metrics,
    chrf,
    generated,
    questions,
    sentences,
    table,
    trained_languages,
    translation,
)
from aunet_lightning.generation import generate
from aunet_lightning.reader.reader import ByteReader
from aunet_lightning.reports.table import aligned
from aunet_lightning.scoring import Continuation, score
from aunet_lightning.vocabulary import BOS
from tests.helpers import ROOT, UDHR, tiny, tiny_model

READER = ByteReader(["whitespace"])


def udhr(*languages):
    found = {}
    for language in languages:
        lines = (UDHR / f"{language}.jsonl").read_text(encoding="utf-8").splitlines()
        found[language] = [json.loads(line)["text"].encode() for line in lines]
    return found


@pytest.fixture(scope="module")
def parallel():
    return sentences(udhr("en", "th", "fr"))


@pytest.fixture(scope="module")
def net():
    return tiny_model(tiny(2), stack=READER.stack)


def test_sentences_are_lines_that_correspond():
    texts = {
        "en": [b"A line that is long enough.\nShort", b"One line, and another\nA second line of it", b"Same in both languages", b"A line that is long enough.", b"Nothing on the other side\n"],
        "de": [b"Eine Zeile, lang genug.\nKurz", b"Eine Zeile", b"Same in both languages", b"Eine Zeile.", b" "],
    }  # fmt: skip
    found, left_out = sentences(texts)
    assert [(one.document, one.texts) for one in found] == [
        (0, {"en": "A line that is long enough.", "de": "Eine Zeile, lang genug."})
    ]
    assert sorted(left_out.values()) == [1, 1, 1, 2]
    assert left_out["documents with another number of lines in a language"] == 1
    assert left_out["lines that a language does not translate"] == 2


def test_a_question_asks_the_same_in_every_language(parallel):
    made = questions(parallel.found, 30, shots=3, seed=1)
    assert made == questions(parallel.found, 30, shots=3, seed=1)
    assert made != questions(parallel.found, 30, shots=3, seed=2)
    assert len({one.sentence.english for one in made}) == 30
    for one in made:
        others = [choice for choice in one.choices if choice is not one.sentence]
        assert len(others) == 3
        sentences_of = [one.sentence, *others, *one.examples]
        assert len({each.english for each in sentences_of}) == 7
        assert one.sentence.document not in {each.document for each in sentences_of[1:]}
        assert all(len(each.english.encode()) in LENGTHS for each in sentences_of)
        for language in ("th", "fr"):
            *examples, last = one.context(language).decode().split("\n")
            assert examples == [f"{each.texts[language]} = {each.english}" for each in one.examples]
            assert last == f"{one.sentence.texts[language]} ="
            item = one.item(language)
            assert (item.task, item.language) == ("translation", language)
            assert item.choices[item.answer] == f" {one.sentence.english}\n".encode()
            assert item.choices == one.item("th").choices
    assert len({one.item("th").answer for one in made}) == 4


def test_other_choices_are_as_long_as_the_answer_and_none_is_it_more_often(parallel):
    made = questions(parallel.found, 1000)
    difference = [len(other.english) - len(one.sentence.english) for one in made for other in one.choices]
    assert abs(sum(difference) / len(difference)) < 10
    assert len(made) == len(parallel.found) > 30


def test_items_are_items_of_eval(parallel, tmp_path):
    items = [one.item("th") for one in questions(parallel.found, 5)]
    write_items(tmp_path / "translation_th.jsonl", items)
    assert list(read_items(tmp_path / "translation_th.jsonl")) == items


class Knows(torch.nn.Module):
    """A network that continues each prompt by its answer, and by nothing else."""

    refreshes, sharded = False, True  # so that it is not asked for a state
    config = SimpleNamespace(vocabulary=258)

    def __init__(self, pairs):
        super().__init__()
        self.head, self.pairs = torch.nn.Linear(1, 1), pairs

    def forward(self, ids, levels, refreshes=None):
        logits = torch.zeros(*ids.shape, 258)
        for row, line in zip(logits, ids.tolist(), strict=True):
            text = bytes(id_ for id_ in line if id_ < BOS)
            for prompt, answer in self.pairs:
                if text.startswith(prompt):
                    shared = next(
                        (
                            i
                            for i, pair in enumerate(zip(text[len(prompt) :], answer, strict=False))
                            if pair[0] != pair[1]
                        ),
                        len(answer),
                    )
                    for i, byte in enumerate(answer[: shared + 1]):
                        row[len(prompt) + i, byte] = 9.0
        return SimpleNamespace(logits=logits, levels=levels)


def test_a_model_that_knows_the_answers_is_right_and_one_that_knows_others_is_wrong(parallel):
    made = questions(parallel.found, 12)
    for right in (True, False):
        pairs = [
            (item.context, next(choice for choice, kind in zip(item.choices, item.kinds, strict=True) if (kind == ANSWER) == right))
            for language in ("th", "fr") for item in [one.item(language) for one in made]
        ]  # fmt: skip
        for one in translation(Knows(pairs), READER, made, ["fr"], generate=False, row_ids=4000):
            assert (one.choices.n, one.choices.right, one.choices.chance) == (12, 12 * right, 3)
            assert one.trained == (one.language == "fr")
            assert (one.shortened, one.generated) == (0, None)


def test_random_weights_are_at_chance(net, parallel):
    items = [one.item("fr") for seed in range(4) for one in questions(parallel.found, seed=seed)]
    tally = tallied(answers(net, READER, items))["translation", "fr"]
    assert abs(tally.accuracy - 0.25) < 3.3 * (0.25 * 0.75 / tally.n) ** 0.5


def test_questions_that_a_row_has_no_room_for_are_counted(net, parallel):
    made = questions(parallel.found, 6)
    items = [one.item("th") for one in made]
    row = sorted(len(one.context) + max(map(len, one.choices)) for one in items)[2] - 1  # the third lacks BOS alone
    (thai, _) = translation(net, READER, made, generate=False, row_ids=row)
    cut = [
        next(score(net, READER, [Continuation(one.context, max(one.choices, key=len))], row)).unread > 0
        for one in items
    ]
    assert thai.shortened == sum(cut)
    assert sum(cut) == 3
    assert thai.trained is None


def test_what_is_written_is_what_generate_writes_up_to_the_end_of_the_line(parallel):
    net = tiny_model(tiny(2), seed=1, stack=READER.stack)
    with torch.no_grad():
        net.head.weight[10] *= 1.5  # lines end now and then
    made = questions(parallel.found, 6)
    found = generated(net, READER, made, "fr")
    prompts = [one.context("fr") for one in made]
    texts = generate(net, READER, prompts, GENERATED, temperature=0)
    lines = [text[len(prompt) :].partition(b"\n") for text, prompt in zip(texts, prompts, strict=True)]
    assert found.texts == tuple(line.decode().strip() for line, _, _ in lines)
    assert 0 < found.ended == sum(bool(end) or len(line) < GENERATED - 3 for line, end, _ in lines) < 6
    wanted = [one.sentence.english for one in made]
    assert found.chrf == chrf(found.texts, wanted)[0]
    assert found.copied == chrf([one.sentence.texts["fr"] for one in made], wanted)[0] > found.chrf


def test_chrf_is_that_of_sacrebleu_and_of_its_definition():
    from sacrebleu import corpus_chrf

    written, wanted = ["The cat sat.", "on a mat", ""], ["The cat sits.", "on the mat", "Yes"]
    value, (low, high) = chrf(written, wanted)
    assert value == corpus_chrf(written, [wanted]).score
    assert 0 <= low < value < high <= 100
    narrow = chrf(written * 100, wanted * 100)
    assert narrow[0] == pytest.approx(value)
    assert narrow[1][1] - narrow[1][0] == pytest.approx((high - value) / 5, rel=0.2)
    assert chrf(written[:1], wanted[:1])[1] == (0, 100)
    assert chrf(wanted[:2], wanted[:2]) == (100, (100, 100))
    assert plain_chrf("abcd efgh", "abcd efxx") == pytest.approx(chrf(["abcd efgh"], ["abcd efxx"])[0])


def plain_chrf(written, wanted):
    """F2 of the mean precision and recall of 1 to 6 characters without blanks."""
    precision, recall = [], []
    for n in range(1, 7):
        a, b = (
            Counter(s[i : i + n] for i in range(len(s) - n + 1))
            for s in (written.replace(" ", ""), wanted.replace(" ", ""))
        )
        precision.append((a & b).total() / a.total())
        recall.append((a & b).total() / b.total())
    p, r = sum(precision) / 6, sum(recall) / 6
    return 100 * 5 * p * r / (4 * p + r)


def test_without_sacrebleu_the_extra_is_named_before_anything_is_read(parallel, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    made = questions(parallel.found, 2)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'aunet-lightning\[evaluation\]'"):
        next(translation(Knows([]), READER, made))
    assert next(translation(Knows([]), READER, made, generate=False)).choices.n == 2


def test_languages_that_training_never_saw_are_a_row_of_their_own():
    text = Generated(("a", "b"), 1, 40.0, (30.0, 50.0), 20.0, 10.0)
    results = [
        Translation("de", True, Tally(10, 8, chance=2.5), 1, text),
        Translation("km", False, Tally(10, 3, chance=2.5), 0, Generated(("", ""), 0, 10.0, (9.0, 11.0), 5.0, 10.0)),
        Translation("th", False, Tally(10, 4, chance=2.5), 2, Generated(("", ""), 2, 20.0, (9.0, 31.0), 5.0, 10.0)),
    ]
    titles, *rows = table(results)
    shown = {row[0]: dict(zip(titles, row, strict=True)) for row in rows}
    assert [row[0] for row in rows] == ["de", "km", "th", "(all)", "(in training)", "(never in training)"]
    assert [shown[name]["in training"] for name in ("de", "km", "(all)")] == ["yes", "never", ""]
    assert [shown[name]["right"] for name in shown] == ["0.800", "0.300", "0.400", "0.500", "0.800", "0.350"]
    assert [shown[name]["chrF"] for name in shown] == ["40.0", "10.0", "20.0", "23.3", "40.0", "15.0"]
    assert [shown[name]["cut"] for name in shown] == ["1", "0", "2", "3", "1", "2"]
    assert shown["(never in training)"]["ended"] == "0.50"
    assert len(aligned([titles, *rows], left=titles[:2])) == 7
    assert as_metrics(results)["eval/translation_km"] == 0.3
    assert as_metrics(results)["eval/chrf_th"] == 20.0
    unknown = table([Translation("de", None, Tally(10, 8, chance=2.5), 0, None)])
    assert [row[:2] for row in unknown[1:]] == [["de", "unknown"], ["(all)", ""]]
    assert "chrF" not in unknown[0]


def test_a_run_folder_tells_the_languages_of_its_training(tmp_path):
    kept = ROOT / "tests" / "kept_run" / "checkpoints"
    assert trained_languages(kept / "last.ckpt") == trained_languages(kept / "best.ckpt") == {"en", "th"}
    (tmp_path / "checkpoints").mkdir()
    alone = tmp_path / "checkpoints" / "last.ckpt"
    assert trained_languages(alone) is None
    (tmp_path / "data.json").write_text("{}")
    assert trained_languages(tmp_path / "exported" / "model.safetensors") is None  # whatever lies around it
    with pytest.raises(UserError, match=r"data\.json is damaged"):
        trained_languages(alone)


def test_too_little_parallel_text_is_told(parallel):
    for texts in ({"th": [b"a"], "fr": [b"b"]}, {"en": [b"a"]}):
        with pytest.raises(ValueError, match="it needs en, into which others are translated, and another language"):
            sentences(texts)
    with pytest.raises(ValueError, match="has no sentence of 20 to 200 bytes"):
        questions([])
    of_one = [one for one in parallel.found if one.document == parallel.found[0].document]
    with pytest.raises(
        ValueError, match="needs 5 sentences of other documents than its own, and the parallel text has 0"
    ):
        questions(of_one)
