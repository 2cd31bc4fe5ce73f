"""Fields of a tokenizers JSON outside its vocabulary change nothing, for any reader; invalid files are named."""

import json
import os

import numpy as np
import pytest

from aunet_lightning.reader.bpe import train_bpe
from aunet_lightning.reader.reader import vocabulary_size
from aunet_lightning.reader.tokens import Tokenizer
from aunet_lightning.vocabulary import VOCABULARY
from splitters import build
from splitters.registry import resolve_teacher
from splitters.rules.trie import entries
from tests.helpers import UDHR

TEXT = "the end of the garden, <|end|> and <x>, the<|end|>the  <x> <unk> ทุกคน 中国 Ġthe ▁ <0x41>"
TEXTS = [TEXT.encode(), b"<|end|>", b"<x>", b" ", " \U0010ffff<|end|>".encode(), b""]
PLAIN = json.loads(train_bpe([b"the end of the garden and the end of the other garden"] * 3, 290))
VOCAB = PLAIN["model"]["vocab"]
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<|end|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
    "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [len(VOCAB)], "tokens": ["<|end|>"]}},
}
PADDING = {
    "strategy": {"Fixed": 99}, "direction": "Right", "pad_to_multiple_of": None,
    "pad_id": 0, "pad_type_id": 0, "pad_token": "!",
}  # fmt: skip


def token(content, id_=None, **flags):
    common = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": len(VOCAB) if id_ is None else id_, "content": content, **common, **flags}


def edited(model=None, vocab=(), **fields):
    """The plain tokenizer with other fields, other ones of its model, and more entries."""
    more = {entry: len(VOCAB) + place for place, entry in enumerate(vocab)}
    return {**PLAIN, **fields, "model": {**PLAIN["model"], "vocab": VOCAB | more, **(model or {})}}


def saved(folder, content, name="tokenizer.json"):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def boundaries(folder, fields, text=TEXTS[0]):
    return resolve_teacher({"name": "tokenizer", "file": saved(folder, fields)}).split(text).tolist()


SAME = {
    "dropout": edited({"dropout": 0.5}),
    "dropout of all": edited({"dropout": 1.0}),
    "truncation": edited(truncation={"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}),
    "padding": edited(padding=PADDING),
    "post-processor": edited(post_processor=BYTE_LEVEL),
    "template": edited(added_tokens=[token("<|end|>")], post_processor=TEMPLATE),
    "special": edited(added_tokens=[token("<|end|>", lstrip=True, rstrip=True, normalized=True)]),
    "special far beyond": edited(added_tokens=[token("<|end|>", 5000)]),
    "special in the vocabulary": edited(vocab=["<|end|>"], added_tokens=[token("<|end|>")]),
    "special before it": {
        **edited({"vocab": {"<|end|>": 0} | {entry: id_ + 1 for entry, id_ in VOCAB.items()}}),
        "added_tokens": [token("<|end|>", 0)],
    },
    "special word": edited(added_tokens=[token("the", VOCAB["the"])]),
    "special letter": edited(added_tokens=[token("t", VOCAB["t"])]),
    "added word": edited(added_tokens=[token("the", VOCAB["the"], special=False, lstrip=True, rstrip=True)]),
    "added nothing": edited(added_tokens=[token("", special=False)]),
    "added null": edited(added_tokens=None),
    "unknown": edited({"unk_token": "<unk>"}, vocab=["<unk>"], added_tokens=[token("<unk>")]),
    "cache": edited({"cache_capacity": 1}),
    "merges as text": edited({"merges": [" ".join(merge) for merge in PLAIN["model"]["merges"]]}),
    "ids of its own": edited({"vocab": {entry: 7 * id_ + 3 for entry, id_ in reversed(VOCAB.items())}}),
    "no type": {**PLAIN, "model": {key: value for key, value in PLAIN["model"].items() if key != "type"}},
    "no more than a model": {key: PLAIN[key] for key in ("model", "pre_tokenizer", "decoder")},
}


@pytest.mark.parametrize("name", SAME)
def test_fields_outside_the_vocabulary_change_nothing(tmp_path, name):
    plain, other = Tokenizer(json.dumps(PLAIN)), Tokenizer(json.dumps(SAME[name]))
    for one, same in zip(plain.encode(TEXTS), other.encode(TEXTS), strict=True):
        assert same.tolist() == one.tolist()
    assert (other.size, other.bytes, other.digest) == (plain.size, plain.bytes, plain.digest)
    assert other.same_as(plain.fields)
    assert plain.same_as(other.fields)
    assert boundaries(tmp_path, SAME[name]) == boundaries(tmp_path, PLAIN)
    path = saved(tmp_path, SAME[name])
    assert vocabulary_size(path) == other.size
    words = saved(tmp_path, PLAIN, "plain.json")
    assert (
        build("trie", vocabulary=path).split(TEXTS[0]).tolist()
        == build("trie", vocabulary=words).split(TEXTS[0]).tolist()
    )


def test_these_fields_do_change_the_library():
    from tokenizers import Tokenizer as HuggingFace

    def ids(fields):
        return HuggingFace.from_str(json.dumps(fields)).encode(TEXT).ids

    for name in ("dropout of all", "truncation", "padding", "template", "special", "special in the vocabulary"):
        assert ids(SAME[name]) != ids(PLAIN), name


def flags():
    for flag in ("lstrip", "rstrip", "single_word", "normalized"):
        for id_ in (len(VOCAB), 5000):
            yield token("<x>", id_, special=False, **{flag: True})
    yield {"content": "<x>", "special": False}
    yield token("Ġthe", special=False)  # spells another text than the letters of an entry
    yield token(" ", special=False)
    yield token("中国", special=False)


@pytest.mark.parametrize("added", list(flags()), ids=str)
def test_added_tokens_extend_the_vocabulary_and_lose_nothing(tmp_path, added):
    fields = edited(added_tokens=[added, added])
    tokenizer = Tokenizer(json.dumps(fields))
    for text, ids in zip(TEXTS, tokenizer.encode(TEXTS), strict=True):
        assert tokenizer.decode(ids) == text
    inside = added["content"] in VOCAB  # then it is off
    assert tokenizer.size == vocabulary_size(saved(tmp_path, fields)) == VOCABULARY + len(VOCAB) - 256 + (not inside)
    assert (added["content"].encode() in [tokenizer.bytes[i] for i in tokenizer.encode(TEXTS)[0]]) != inside
    assert tokenizer.same_as(json.dumps(PLAIN)) == inside
    assert len(boundaries(tmp_path, fields)) == len(TEXTS[0])


@pytest.mark.parametrize("added", [[], [token("<|end|>")]])
def test_no_text_is_read_as_a_special_entry(tmp_path, added):
    """Also where the model looks for whole words in its vocabulary first."""
    fields = edited({"ignore_merges": True}, vocab=["<|end|>"], added_tokens=added, pre_tokenizer=BYTE_LEVEL | {
        "use_regex": False, "add_prefix_space": False,
    })  # fmt: skip
    tokenizer = Tokenizer(json.dumps(fields))
    assert tokenizer.decode(tokenizer.encode([b"<|end|>"])[0]) == b"<|end|>"
    assert (len(tokenizer.encode([b"<|end|>"])[0]) == 1) == (not added)
    assert (sum(boundaries(tmp_path, fields, b"<|end|>")) == 1) == (not added)


def test_a_special_word_of_a_unigram_is_text(tmp_path):
    pieces = [["<unk>", 0.0], ["<s>", 0.0], *([letter, -3.0] for letter in "<s>ab")]
    model = {"type": "Unigram", "unk_id": 0, "vocab": pieces}
    assert boundaries(tmp_path, {"model": model}, b"a<s>b") == [True, False, False, True, True]
    special = {"model": model, "added_tokens": [token("<s>", 1), token("<unk>", 0)]}
    assert boundaries(tmp_path, special, b"a<s>b") == [True] * 5


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = {
    "version": "1.0",
    "added_tokens": [token("<unk>", 0), token("<s>", 1)],
    "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
    "model": {
        "type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "merges": [["▁", "a"]],
        "vocab": {entry: id_ for id_, entry in enumerate(["<unk>", "<s>", *BYTES, "▁", "a", "b", "▁a"])},
    },
}  # fmt: skip


@pytest.mark.parametrize("text", ["a b  a", "<s>a<unk>", "中国 a", "<0x41>", ""])
def test_pieces_with_a_byte_fallback_lose_nothing(text):
    tokenizer = Tokenizer(json.dumps(PIECES))
    assert tokenizer.decode(tokenizer.encode([text.encode()])[0]) == text.encode()


PREPEND = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, PIECES["normalizer"]]}
LOSES = {
    "lower case": (edited(normalizer={"type": "Lowercase"}), "abC", 2),
    "composition": (edited(normalizer={"type": "NFC"}), "the e\u0301", 4),
    "stripped": (edited(normalizer={"type": "Strip", "strip_left": True, "strip_right": True}), "the ", 3),
    "a blank before": (edited(pre_tokenizer=BYTE_LEVEL), "the", 0),
    "a blank before a piece": (PIECES | {"normalizer": PREPEND}, "a", 0),
    "a blank that is none": (PIECES, "a b▁a", 3),
    "blanks left out": (edited(pre_tokenizer={"type": "WhitespaceSplit"}), "the end", 3),
    "a byte that it lacks": (edited({"vocab": {k: v for k, v in VOCAB.items() if k != "z"}}), "the zoo", 4),
    "an unknown token": (
        edited({"unk_token": "a", "vocab": {k: v for k, v in VOCAB.items() if k != "z"}}), "the zoo", 4
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSES)
def test_lost_text_is_named_with_its_place_and_a_remedy(name):
    fields, text, byte = LOSES[name]
    with pytest.raises(ValueError, match=rf"x\.json loses text.* in text 1, at byte {byte}, .* comes back as .*Take a"):
        Tokenizer(json.dumps(fields), "x.json").encode([b"", text.encode()])


WRONG = {
    "empty": ("", "is empty"),
    "blank": (" \n", "is empty"),
    "cut short": ('{"model": {', "is not a tokenizers JSON"),
    "a list": ("[]", r"not a tokenizers JSON \(it holds a list\)"),
    "null": ("null", r"not a tokenizers JSON \(it holds a NoneType\)"),
    "of something else": ('{"text": "a"}', r"not a tokenizers JSON \(it has no model\)"),
    "no vocab": ('{"model": {"type": "BPE"}}', "its model has no vocab"),
    "no ids": ('{"model": {"type": "BPE", "vocab": {"a": "0"}, "merges": []}}', "id of its entry 'a' is '0'"),
    "added tokens of another form": (json.dumps(edited(added_tokens=["<s>"])), "is not a tokenizers JSON"),
    "nested": ('{"model": ' * 100_000, "is not a tokenizers JSON"),
}
NO_BPE = {
    "word pieces": ({"model": {"type": "WordPiece", "unk_token": "a", "vocab": {"a": 0}}}, "is a WordPiece, not a BPE"),
    "words": ({"model": {"type": "WordLevel", "unk_token": "a", "vocab": {"a": 0}}}, "is a WordLevel, not a BPE"),
    "unigram": ({"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", -1.0]]}}, "is a Unigram, not a BPE"),
    "a list of entries": ({"model": {"type": "BPE", "vocab": [["a", -1.0]]}}, "has no ids"),
    "a suffix": (edited({"end_of_word_suffix": "</w>"}), "end_of_word_suffix '</w>'"),
}
READERS = {
    "baseline": vocabulary_size,
    "teacher": lambda path: resolve_teacher({"name": "tokenizer", "file": path}),
    "trie": lambda path: build("trie", vocabulary=path),
}


def refuses(reader, path, words):
    with pytest.raises(ValueError, match=words) as error:
        READERS[reader](path)
    said = str(error.value)
    assert repr(path)[1:-1] in said
    assert "\n" not in said
    assert "aunet vocabulary" in said or "{vocab_size: 4096}" in said


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", WRONG)
def test_an_invalid_tokenizer_is_named(tmp_path, reader, name):
    content, words = WRONG[name]
    refuses(reader, saved(tmp_path, content), words)


@pytest.mark.parametrize("reader", ["baseline", "trie"])
@pytest.mark.parametrize("name", NO_BPE)
def test_another_model_than_a_bpe_is_named(tmp_path, reader, name):
    content, words = NO_BPE[name]
    refuses(reader, saved(tmp_path, content), words)


NOT_TAKEN = [
    edited({"merges": [["zz", "y"]]}),
    edited(pre_tokenizer={"type": "Nonsense"}),
    edited(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),  # a panic, and not an Exception
]


@pytest.mark.parametrize("fields", NOT_TAKEN)
@pytest.mark.parametrize("reader", ["baseline", "teacher"])
def test_a_tokenizer_that_the_library_refuses_is_named(tmp_path, reader, fields):
    refuses(reader, saved(tmp_path, fields), "is not a tokenizers JSON")


def test_a_panic_of_the_library_is_named(tmp_path):
    fields = edited(pre_tokenizer={"type": "FixedLength", "length": 0})
    with pytest.raises(ValueError, match=r"x\.json cannot encode text .*chunk size"):
        Tokenizer(json.dumps(fields), "x.json").encode([b"a"])
    with pytest.raises(ValueError, match=r"tokenizer\.json' cannot encode every text .*chunk size"):
        boundaries(tmp_path, fields)


@pytest.mark.parametrize("reader", READERS)
def test_an_unreadable_file_is_named(tmp_path, reader):
    folder, binary, pipe = tmp_path / "folder", tmp_path / "binary", tmp_path / "pipe"
    folder.mkdir()
    binary.write_bytes(bytes(range(256)))
    os.mkfifo(pipe)
    refuses(reader, str(folder), "'.*folder' is a folder")
    refuses(reader, str(binary), r"is not text \(invalid start byte at byte 128\)")
    refuses(reader, str(pipe), "is not a regular file")
    refuses(reader, str(tmp_path / "nowhere"), "there is no file '.*nowhere'")
    refuses(reader, "~nobody-at-all/x.json", "cannot be read|there is no file")
    refuses(reader, "a\0b", "cannot be read|there is no file")
    if os.geteuid():
        binary.chmod(0)
        refuses(reader, str(binary), "cannot be read .*Permission")


@pytest.mark.parametrize("reader", READERS)
def test_a_path_may_begin_at_home(tmp_path, monkeypatch, reader):
    monkeypatch.setenv("HOME", str(tmp_path))
    saved(tmp_path, PLAIN)
    READERS[reader]("~/tokenizer.json")


def test_the_udhr_is_encoded_as_the_library_does(tmp_path):
    """What worked before has the same ids: those of the library, counted on from the bytes."""
    from tokenizers import Tokenizer as HuggingFace

    texts = [json.loads(line)["text"] for line in (UDHR / "th.jsonl").open()][:20]
    tokenizer, library = Tokenizer(json.dumps(PLAIN)), HuggingFace.from_str(json.dumps(PLAIN))
    for text, ids in zip(texts, tokenizer.encode([text.encode() for text in texts]), strict=True):
        assert ids.tolist() == [tokenizer.ids[id_] for id_ in library.encode(text).ids]
    assert len(set(entries(saved(tmp_path, PLAIN)))) == len(VOCAB)
    assert np.array_equal(np.sort(list(tokenizer.ids.values())), np.r_[:256, VOCABULARY : tokenizer.size])
