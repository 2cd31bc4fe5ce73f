"""The teacher `tokenizer`: its boundaries beside the tokens of the plain one, for each kind of model."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aunet_lightning.reader.bpe import train_bpe
from splitters.tokenizer_json import _from_letters
from tests.teaching import THAI, last_bytes, marked, places, teacher


def saved(folder, model, fields):
    """The path of a tokenizers JSON."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({"added_tokens": [], "model": model, **fields}))
    return str(path)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    """A tokenizer whose tokens end and begin inside characters."""
    path = tmp_path_factory.mktemp("tokenizer") / "thai.json"
    path.write_text(train_bpe([THAI.encode()], 300))
    return str(path)


@settings(max_examples=80)
@given(text=st.text(THAI + "é👍🏽 \n▁Ġ", max_size=24), at=st.sampled_from(["start", "end"]))
def test_tokens_equal_the_plain_ones(byte_level, text, at):
    from tokenizers import Tokenizer

    sizes = [len(_from_letters(token)) for token in Tokenizer.from_file(byte_level).encode(text).tokens]
    ends = np.cumsum([0, *sizes])
    cuts = ends[:-1] if at == "start" else ends[1:] - 1  # of a token's first or last byte
    expected = set(np.searchsorted(last_bytes(text), cuts).tolist())
    assert places(teacher("tokenizer", file=byte_level, at=at), text) == expected


def test_the_tokens_of_the_plain_ones_do_end_inside_characters(byte_level):
    from tokenizers import Tokenizer

    tokens = [_from_letters(token) for token in Tokenizer.from_file(byte_level).encode(THAI).tokens]
    assert any(token.decode("utf-8", "ignore").encode() != token for token in tokens)


METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
METASPACE_WORDS = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, METASPACE]}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
BERT = {
    "type": "BertNormalizer",
    "clean_text": True,
    "handle_chinese_chars": True,
    "strip_accents": True,
    "lowercase": True,
}
TWO_TOKENS = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
TWENTY_TOKENS = {
    "strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": None,
    "pad_id": 0, "pad_type_id": 0, "pad_token": "[UNK]",
}  # fmt: skip

PIECES = ["▁", "世", "界", "世界", "▁b", "o", "é", "f", "i", ","]
UNIGRAM = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], *([piece, -2.0] for piece in PIECES)]}
WORD_PIECE = {
    "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
    "vocab": {"[UNK]": 0, "hell": 1, "##o": 2, "中": 3, "e": 4, "!": 5},
}  # fmt: skip
BPE = {"type": "BPE", "merges": [["a", "b"]], "unk_token": "<unk>", "dropout": 0.5}
BPE["vocab"] = {"<unk>": 0, "a": 1, "b": 2, "Ġ": 3, "ab": 4, ",": 5}


@pytest.mark.parametrize(
    ("model", "fields", "expected"),
    [
        (UNIGRAM, {"pre_tokenizer": METASPACE}, "世界│,│ │世界│ b│o│\u200b│"),
        (UNIGRAM, {"pre_tokenizer": METASPACE_WORDS, "normalizer": {"type": "NFC"}}, "世界│ 世│  b│o│e│\u0301"),
        (UNIGRAM, {"normalizer": {"type": "NFKC"}}, "ﬁ│世界│▁│"),
        (
            WORD_PIECE,
            {"normalizer": BERT, "pre_tokenizer": {"type": "BertPreTokenizer"}},
            "Hell│O│  中│国│!│ e│\u0301 É│ zzz│",
        ),
        (
            WORD_PIECE,
            {"truncation": TWO_TOKENS, "padding": TWENTY_TOKENS, "pre_tokenizer": {"type": "Whitespace"}},
            "hell│o│ e│ !│ e│",
        ),
        (BPE, {"pre_tokenizer": BYTE_LEVEL, "post_processor": BYTE_LEVEL}, "ab│,│ │ │ab│ab│ab│ab│ab│ab│"),
    ],
)
def test_tokens_of_each_kind_of_model(tmp_path, model, fields, expected):
    subject = teacher("tokenizer", file=saved(tmp_path, model, fields))
    assert marked(subject, expected.replace("│", "")) == expected


@pytest.mark.parametrize(("model", "unknown"), [(UNIGRAM, "<unk>"), (WORD_PIECE, "[UNK]"), (BPE, "<unk>")])
def test_an_unknown_token_stays_where_it_is_special(tmp_path, model, unknown):
    text, pre = "hello 世界 ab ☃ b " + unknown, {"pre_tokenizer": {"type": "WhitespaceSplit"}}
    special = {"content": unknown, "id": 0, "special": True}
    without, with_ = (
        teacher("tokenizer", file=saved(tmp_path, model, fields)).split(text.encode())
        for fields in (pre, {"added_tokens": [special], **pre})
    )
    snowman = len("hello 世界 ab ☃".encode()) - 1
    assert with_[snowman]
    assert without[: snowman + 4].tolist() == with_[: snowman + 4].tolist()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not a tokenizers JSON"),
        ("[]", "is not a tokenizers JSON"),
        ("{}", "is not a tokenizers JSON"),
        ('{"model": {"type": "WordPiece", "vocab": {"a": 0}}}', "is not a tokenizers JSON|cannot encode every text"),
        (
            json.dumps({"added_tokens": [], "model": {"type": "Unigram", "vocab": [["a", -1.0]], "unk_id": None}}),
            "cannot encode every text",
        ),
    ],
)
def test_an_invalid_tokenizer_is_named(tmp_path, content, words):
    path = tmp_path / "wrong.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=words) as error:
        teacher("tokenizer", file=str(path))
    assert "wrong.json" in str(error.value)


def test_a_missing_tokenizer_is_named():
    with pytest.raises(ValueError, match=r"there is no file 'missing.json'"):
        teacher("tokenizer", file="missing.json")
    with pytest.raises(ValueError, match="file is 3"):
        teacher("tokenizer", file=3)
