"""Names, wrong names, and plug-ins."""

import os
import subprocess
import sys

import numpy as np
import pytest

import splitters
from splitters import registry


@pytest.fixture
def clean_registry(monkeypatch):
    for kind in (registry.SPLITTERS, registry.TEACHERS):
        monkeypatch.setattr(kind, "registered", dict(kind.classes()))
        monkeypatch.setattr(kind, "loaded", set(kind.loaded))


class EveryVowel(splitters.Splitter):
    def split(self, data):
        return np.isin(np.frombuffer(data, np.uint8), list(b"aeiou"))

    def stepper(self):
        return _Vowels()


class _Vowels(splitters.Stepper):
    def push(self, byte):
        return byte in b"aeiou"


def test_built_in_names():
    assert {
        "whitespace", "aunet_word", "spacelike", "fixed", "utf8_character", "cjk_character", "grapheme", "syllable",
        "script_aware", "trie", "pattern", "every", "union", "cap", "sentence_end", "reset_at",
        "unicode_word", "at_least",
    } <= set(splitters.available())  # fmt: skip


def test_build_takes_what_yaml_takes():
    text = b"abcdefgh"
    wanted = splitters.build("fixed", n=4).split(text).tolist()
    assert splitters.build({"name": "fixed", "n": 4}).split(text).tolist() == wanted
    assert splitters.build({"name": "fixed", "n": 3}, n=4).split(text).tolist() == wanted
    assert splitters.build({"name": "fixed"}).split(text).tolist() == splitters.build("fixed").split(text).tolist()
    with pytest.raises(ValueError, match="has no name"):
        splitters.build({"n": 3})
    with pytest.raises(ValueError, match=r"'zzz'; its options are \(n: .*\)$"):  # like no other
        splitters.build("fixed", zzz=3)


def test_a_registered_splitter_is_available(clean_registry):
    splitters.register("every_vowel")(EveryVowel)
    assert "every_vowel" in splitters.available()
    splitters.check("every_vowel")


def test_a_name_is_registered_once(clean_registry):
    with pytest.raises(ValueError, match="'whitespace' is already"):
        splitters.register("whitespace")(EveryVowel)


def test_a_package_installed_meanwhile_is_available(clean_registry, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    os.utime(tmp_path, (0, 0))  # pip comes later, by the file system's clock
    assert "vowels_too" not in splitters.available()
    (told := tmp_path / "vowels-1.dist-info").mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: vowels\nVersion: 1\n")
    (told / "entry_points.txt").write_text("[aunet.splitters]\nvowels_too = tests.test_registry:EveryVowel\n")
    assert "vowels_too" in splitters.available()


class ManyTexts(EveryVowel):
    def split(self, data, texts):
        return []


class StepperOfData(EveryVowel):
    def stepper(self, data):
        return _Vowels()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (object, "must be a class that inherits from"),
        (lambda data: data, "must be a class that inherits from"),
        (type("Half", (splitters.Splitter,), {"split": lambda s, d: d}), "Half lacks stepper"),
        (ManyTexts, r"ManyTexts.split\(self, data, texts\) must be split\(self, data: bytes\)"),
        (StepperOfData, r"StepperOfData.stepper\(self, data\) must be stepper\(self\)"),
    ],
)
def test_a_broken_contract_fails_at_registration(wrong, words):
    with pytest.raises(TypeError, match=f"'wrong_one'.*{words}"):
        splitters.register("wrong_one")(wrong)


def test_module_and_class_name_your_own_splitter(clean_registry):
    assert isinstance(splitters.build("tests.test_registry:EveryVowel"), EveryVowel)
    with pytest.raises(ValueError, match=r"tests\.nowhere:Rule.*cannot be imported"):
        splitters.build("tests.nowhere:Rule")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("whitespac", ["whitespac", "known are", "Did you mean 'whitespace'"]),
        ({"name": "fixed", "m": 3}, ["fixed", "'m'", "n: int"]),
        ({"name": "fixed", "n": 0}, ["n is 0", "1 or more"]),
        ({"name": "fixed", "n": "four"}, ["n is 'four'", "whole number"]),
        ({"name": "every", "n": 2.5}, ["every", "n is 2.5"]),
        ({"name": "fixed", "of": "words"}, ["of is 'words'", "characters"]),
        ({"name": "spacelike", "align": "word"}, ["align is 'word'", "'byte' or 'last' or 'first'"]),
        ({"name": "whitespace", "align": "byte"}, ["whitespace: align is 'byte'", "'last' or 'first'"]),
        (
            {"name": "whitespace", "allign": "last"},
            ["'allign'", "its options are (align: 'last' | 'first' = 'last')", "Did you mean 'align'?"],
        ),
        (
            {"name": "cap", "max_byte": 3},
            ["'max_byte'", "of: str | Mapping[str, Any] | Splitter", "Did you mean 'max_bytes'?"],
        ),
        ({"name": "pattern", "align": 3}, ["pattern: align is 3", "'last' or 'first'"]),
        ({"name": "fixed", "align": "first"}, ["fixed: align is 'first'", "of characters", "closes: next"]),
        ({"name": "fixed", "closes": "last"}, ["fixed: closes is 'last'", "'full' or 'next'"]),
        ({"name": "script_aware", "closes": 2}, ["script_aware: closes is 2", "'next' or 'full'"]),
        ({"name": "every", "closes": True}, ["every: closes is True", "'next' or 'full'"]),
        ({"name": "script_aware", "n": True}, ["script_aware", "n is True"]),
        ({"name": "cap", "max_bytes": 0}, ["cap", "max_bytes is 0"]),
        ({"name": "cap", "max_bytes": 10**20}, ["cap", "1000000000 or less"]),
        ({"name": "fixed", "n": 20_001, "of": "characters"}, ["fixed", "n is 20001", "10000 or less"]),
        ({"name": "cap", "of": "every"}, ["cap: 'every' groups the units", "of: whitespace"]),
        ({"name": "union", "of": [{"name": "every", "n": 4}]}, ["union", "groups the units"]),
        ({"name": "trie", "vocabulary": 5}, ["vocabulary is 5", "path"]),
        ({"name": "pattern", "patterns": 5}, ["patterns is 5"]),
        (
            {"name": "pattern", "patterns": [r"(?s).{31}", r"(?s).{37}", r"(?s).{29}"]},
            ["more than 20000 states", "union"],
        ),
        ({"name": "pattern", "patterns": "(?:a{1000}){1000}b"}, ["so many repetitions"]),
        ({"name": "pattern", "patterns": "(?R)"}, ["not supported"]),
        ({"name": "pattern", "patterns": "(?:" * 900 + "a" + ")" * 900}, ["nested too deep"]),
        ({"name": "cap", "of": "whitespac"}, ["unknown splitter 'whitespac'", "Did you mean 'whitespace'"]),
        ({"name": "union", "of": "whitespace"}, ["union", "must be a list"]),
        ({"name": "union", "of": []}, ["union", "must be a list"]),
        ({"name": "trie", "vocabulary": "nowhere.json"}, ["there is no file 'nowhere.json'"]),
        ({"name": "trie", "vocabulary": "pyproject.toml"}, ["'pyproject.toml'", "aunet vocabulary"]),
        ({"name": "pattern", "patterns": []}, ["patterns is []", "regular expression"]),
        ({"name": "pattern", "patterns": "[a"}, ["'[a'", "not a regular expression"]),
        ({"name": "pattern", "at": "middle"}, ["at is 'middle'", "'end' or 'start'"]),
        ({"n": 3}, ["no name"]),
        (3, ["3", "expected a name"]),
    ],
)
def test_errors_name_the_value_and_the_remedy(spec, words):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the words are the match)
        splitters.resolve(spec)
    assert all(word in str(error.value) for word in words), error.value


HEAVY = ("numba", "tokenizers", "torch", "lightning", "mlflow", "aunet_lightning")


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split() if name in HEAVY}


def test_splitters_load_nothing_heavy():
    names = "[*splitters.available('rule'), *splitters.available('learned')]"
    assert loaded_by("import splitters") == set()
    # The name `entropy` is aunet_lightning's, which is light itself.
    assert loaded_by(f"import splitters; [splitters.build(n) for n in {names}]") <= {"aunet_lightning"}


def test_the_test_above_can_fail():
    assert loaded_by("import aunet_lightning.model") == {"aunet_lightning"}
    assert "torch" in loaded_by("import splitters, aunet_lightning.model.aunet")
