"""The trie of a vocabulary: where the walk dies, and which entries a tokenizers JSON has."""

import json
import random
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from aunet_lightning.reader.bpe import LONGEST_RUN, train_bpe
from splitters import Stack, build, check
from splitters.rules.trie import SHIPPED, entries
from tests.helpers import UDHR


def plain(vocabulary, data):
    """A boundary where no entry begins with the bytes since the last boundary and the byte at hand."""
    begin, expected = 0, []
    for t in range(len(data)):
        dies = not any(entry.startswith(data[begin : t + 1]) for entry in vocabulary) and t > begin
        begin = t if dies else begin
        expected.append(dies)
    return expected


def saved(tmp_path, vocabulary, **fields):
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps({"model": {"type": "BPE", "vocab": dict.fromkeys(vocabulary, 0)}, **fields}))
    return str(path)


LETTERS = {"pre_tokenizer": {"type": "ByteLevel"}}


@given(st.lists(st.text("abĠ", min_size=1, max_size=5), max_size=8), st.text("ab ", max_size=30))
def test_the_walk_equals_the_plain_one(tmp_path_factory, words, text):
    path = saved(tmp_path_factory.mktemp("v"), ["a", "b", "Ġ", *words], **LETTERS)
    vocabulary = [word.replace("Ġ", " ").encode() for word in ["a", "b", "Ġ", *words]]
    got = build("trie", vocabulary=path, align="byte").split(text.encode())
    assert got.tolist() == plain(vocabulary, text.encode())


def test_the_shipped_vocabulary_equals_the_plain_walk():
    vocabulary = entries(SHIPPED)
    assert {bytes([byte]) for byte in range(256)} <= set(vocabulary)
    data = "All human beings are born free. 人人生而自由 ทุกคน".encode()
    assert build("trie", align="byte").split(data).tolist() == plain(vocabulary, data)


def test_a_boundary_is_moved_to_the_end_of_its_character():
    data = "人人生而自由,在尊严和权利上一律平等".encode()
    fires, moved = build("trie", align="byte").split(data), build("trie").split(data)
    assert moved.sum() > 5
    ends = np.cumsum([len(c.encode()) for c in data.decode()]) - 1
    assert set(np.flatnonzero(moved)) <= set(ends)
    assert set(np.flatnonzero(moved)) == {ends[np.searchsorted(ends, t)] for t in np.flatnonzero(fires)}


def test_a_byte_that_no_entry_begins_with_is_a_piece_of_its_own(tmp_path):
    rule = build("trie", vocabulary=saved(tmp_path, ["a", "b", "ab"]), align="byte")
    check(rule)
    for text in (b"axa", b"xxab", b"abx"):
        assert rule.split(text).tolist() == plain([b"a", b"b", b"ab"], text)


def test_added_tokens_are_entries_unless_they_are_special(tmp_path):
    added = [{"content": "<s>", "special": True}, {"content": "ab cd", "special": False}]
    assert entries(tmp_path / saved(tmp_path, ["a", "<s>"], added_tokens=added, **LETTERS)) == [b"a", b"ab cd"]


def test_another_vocabulary_is_another_fingerprint(tmp_path):
    one = Stack([{"name": "trie", "vocabulary": saved(tmp_path, ["a", "b", "unlikelyword"])}]).fingerprint()
    nested = {"name": "cap", "of": {"name": "trie", "vocabulary": saved(tmp_path, ["a", "b", "unlikelyword"])}}
    inside = Stack([nested]).fingerprint()
    saved(tmp_path, ["a", "b", "otherword"])
    assert Stack([{"name": "trie", "vocabulary": str(tmp_path / "vocabulary.json")}]).fingerprint() != one
    assert Stack([nested]).fingerprint() != inside


@pytest.mark.parametrize(
    ("token", "fields", "expected"),
    [
        ("Ġthe", LETTERS, b" the"),
        ("ä¸Ń", LETTERS, "中".encode()),
        ("ä¸Ń", {"decoder": {"type": "ByteLevel"}}, "中".encode()),
        ("▁the", {"decoder": {"type": "Metaspace"}}, b" the"),
        ("_the", {"decoder": {"type": "Metaspace", "replacement": "_"}}, b" the"),
        ("Ġthe", {"normalizer": {"type": "ByteLevel"}}, b" the"),
        ("<0x0A>", {}, b"\n"),
        ("<0xZZ>", {}, b"<0xZZ>"),
        ("中文", {}, "中文".encode()),
    ],
)
def test_entries_are_bytes(tmp_path, token, fields, expected):
    special = [{"content": "<s>", "special": True}]
    assert entries(tmp_path / saved(tmp_path, ["<s>", token], added_tokens=special, **fields)) == [expected]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "not a tokenizers JSON"),
        ("{}", "model"),
        ('{"model": {"type": "Unigram", "vocab": [["a", 0.5]]}}', "Unigram, not a BPE"),
        ('{"model": {"type": "BPE", "vocab": {}}}', "is empty"),
        ("{", "not a tokenizers JSON"),
        ('{"model": {"vocab": {"##a": 0}}}', "WordPiece, not a BPE"),
        (
            '{"model": {"type": "BPE", "vocab": {"a</w>": 0}, "end_of_word_suffix": "</w>"}}',
            "end_of_word_suffix '</w>'",
        ),
    ],
)
def test_an_invalid_vocabulary_is_named(tmp_path, content, words):
    path = tmp_path / "wrong.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=words) as error:
        build("trie", vocabulary=str(path))
    assert "wrong.json" in str(error.value)


def test_a_trained_vocabulary_is_a_tokenizer_of_the_library(tmp_path):
    text = "the cat sat on the mat, the cat sat. 人人生而自由 人人生而平等".encode()
    path = tmp_path / "trained.json"
    path.write_text(train_bpe([text] * 3, 300))
    tokenizer = Tokenizer.from_file(str(path))
    assert tokenizer.decode(tokenizer.encode(text.decode()).ids) == text.decode()
    assert tokenizer.get_vocab_size() <= 300
    assert b" the" in entries(path)
    check({"name": "trie", "vocabulary": str(path)})


@pytest.mark.parametrize("size", [200, 10**9, 300.0, True])
def test_an_impossible_vocabulary_size_is_refused(size):
    with pytest.raises(ValueError, match=f"size of a vocabulary is {size}, it must be a whole number from 257"):
        train_bpe([b"a"], size)


RUNS = {
    "letters": "abcdefghij",
    "one letter": "a",
    "Thai": "กขคงจชซาิี",
    "digits": "0123456789",
    "marks": "!?.-",
    "blanks": " \n\t",
}


@pytest.mark.parametrize("kind", RUNS)
def test_training_reads_a_long_run_in_time(kind):
    """Half a megabyte without a break: minutes, where time grows with the square of its length."""
    text = "".join(random.Random(0).choices(RUNS[kind], k=500_000 // len(RUNS[kind][0].encode())))
    begin = time.process_time()
    train_bpe([text.encode()], 700)
    assert time.process_time() - begin < 20


@pytest.mark.parametrize("letter", ["a", "ก", "!", " "])
def test_entries_are_learned_from_runs_of_the_bound_and_no_longer(tmp_path, letter):
    path = tmp_path / "runs.json"
    path.write_text(train_bpe([letter.encode() * 20_000] * 2, 300))
    assert max(map(len, entries(path))) == LONGEST_RUN * len(letter.encode())


def test_the_shipped_vocabulary_has_not_seen_what_the_quickstart_holds_out():
    texts = []
    for path in sorted(UDHR.glob("*.jsonl")):
        lines = path.open().readlines()
        texts += [json.loads(line)["text"].encode() for number, line in enumerate(lines, 1) if number % 10]
    assert json.loads(train_bpe(texts, 4096)) == json.loads(SHIPPED.read_text())
