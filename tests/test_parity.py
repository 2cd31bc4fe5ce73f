"""Merges that are fair to languages: those of the plain definition, of `tokenizers` at one language, and more even."""

import json
from collections import Counter
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library

from aunet_lightning.cli.main import main
from aunet_lightning.data.corpus import Corpus, prepare
from aunet_lightning.data.sources import expand
from aunet_lightning.data.token_ids import trained
from aunet_lightning.reader import parity
from aunet_lightning.reader.bpe import train_bpe, train_parity
from aunet_lightning.reader.tokens import Tokenizer
from splitters.rules.trie import entries
from splitters.tokenizer_json import byte_letters
from tests.helpers import UDHR

LANGUAGES = sorted(path.stem for path in UDHR.glob("*.jsonl"))
LETTERS = {byte: letter for letter, byte in byte_letters().items()}


def texts_of(*languages):
    return [(name, json.loads(line)["text"].encode()) for name in languages for line in (UDHR / f"{name}.jsonl").open()]


def defined(words, n_merges, parallel=None):
    """The definition: all pairs are counted again before each merge."""
    ids = {letter: i for i, letter in enumerate(sorted(LETTERS.values()))}
    read = {n: [([LETTERS[b] for b in w], k) for w, k in of.items()] for n, of in words.items()}
    measured = {n: [([LETTERS[b] for b in w], k) for w, k in of.items()] for n, of in (parallel or words).items()}
    n_bytes = {n: 1 if parallel else sum(len(w) * k for w, k in measured[n]) for n in words}
    merges = []
    while len(merges) < n_merges:
        best = {}
        for name, of in read.items():
            pairs = Counter()
            for word, k in of:
                for pair in pairwise(word):
                    pairs[pair] += k
            if pairs:
                best[name] = min(pairs.items(), key=lambda item: (-item[1], ids[item[0][0]], ids[item[0][1]]))
        often = {name: found for name, found in best.items() if found[1] > 1} or best
        if not often:
            break
        worst = max(sorted(often), key=lambda name: sum(len(w) * k for w, k in measured[name]) / n_bytes[name])
        merges.append(pair := often[worst][0])
        ids.setdefault("".join(pair), len(ids))
        for word, _ in (one for of in (*read.values(), *measured.values()) for one in of):
            for i in range(len(word)):
                if tuple(word[i : i + 2]) == pair:
                    word[i : i + 2] = ["".join(pair)]
    return merges


WORDS = st.dictionaries(st.text("ab c", min_size=1, max_size=7).map(str.encode), st.integers(1, 4), max_size=6)
MANY = st.lists(st.tuples(WORDS, WORDS.filter(bool)), min_size=1, max_size=3)


@settings(max_examples=60)
@given(MANY, st.booleans())
def test_merges_are_those_of_the_definition(drawn, compared):
    words = {f"l{i}": own for i, (own, _) in enumerate(drawn)}
    if not compared and not all(words.values()):
        words = {name: own or {b"z": 1} for name, own in words.items()}
    parallel = {f"l{i}": other for i, (_, other) in enumerate(drawn)} if compared else None
    found = parity.learn(words, 256 + 30, parallel)
    assert found.merges == defined(words, len(found.merges), parallel)
    assert len(found.entries) == 286 or defined(words, len(found.merges) + 1, parallel) == found.merges


@pytest.mark.parametrize("compared", [False, True], ids=["by bytes", "by parallel text"])
def test_merges_of_text_are_those_of_the_definition(compared):
    words = {}
    for name, text in texts_of("en", "my", "zh-Hans"):
        words.setdefault(name, Counter()).update(text[:3000].split())
    words = {name: dict(list(of.items())[:60]) for name, of in words.items()}
    parallel = {name: dict(list(of.items())[::2]) for name, of in words.items()} if compared else None
    assert parity.learn(words, 256 + 40, parallel).merges == defined(words, 40, parallel)


@pytest.mark.parametrize(("language", "size"), [("en", 300), ("th", 4096), ("zh-Hans", 600)])
def test_with_one_language_a_vocabulary_is_that_of_the_library(language, size):
    """To the letter: of equally frequent pairs both merge the one of the smaller ids."""
    texts = texts_of(language)
    assert train_parity(texts, size) == train_bpe([text for _, text in texts], size)


def test_the_same_text_in_any_order_gives_the_same_vocabulary(tmp_path):
    texts = texts_of("en", "th", "zh-Hans")
    fields = train_parity(texts, 500)
    assert train_parity(texts[::-1], 500) == fields
    path = tmp_path / "parity.json"
    path.write_text(fields)
    library, ours = Library.from_file(str(path)), Tokenizer(fields)
    text = texts[40][1]
    assert library.decode(library.encode(text.decode()).ids) == text.decode()
    assert len(library.encode(text.decode()).ids) == len(ours.encode([text])[0])
    assert {*entries(path)} >= {data for data in ours.bytes if len(data) > 1}
    assert ours.size == 502


def test_it_is_more_even_than_the_most_frequent_pair():
    """On the 24 languages of the shipped parallel text."""
    texts = texts_of(*LANGUAGES)
    costs = []
    for fields in (train_bpe([text for _, text in texts], 2048), train_parity(texts, 2048, texts)):
        tokenizer, count = Tokenizer(fields), Counter()
        for language, text in texts:
            count[language] += len(tokenizer.encode([text])[0])
        costs.append([*count.values()])
    plain, fair = map(parity.gini, costs)
    assert fair < plain / 3
    assert max(costs[1]) < max(costs[0])
    assert sum(costs[1]) < 1.2 * sum(costs[0])


@pytest.mark.parametrize(("paid", "expected"), [([1, 1, 1], 0), ([0, 0, 0, 4], 0.75), ([1, 3], 0.25)])
def test_gini(paid, expected):
    assert parity.gini(paid) == pytest.approx(expected)
    pairs = [abs(a - b) for a in paid for b in paid]
    assert parity.gini(paid) == pytest.approx(sum(pairs) / (2 * len(paid) * sum(paid)))


def prepared(tmp_path, *languages):
    sources = expand([str(UDHR / f"{one}.jsonl") for one in languages], "x", text_key="text", language_key="lang")
    return Corpus([prepare(source, tmp_path) for source in sources])


def test_a_vocabulary_is_kept_and_an_interrupted_one_is_not(tmp_path):
    corpus = prepared(tmp_path, "en", "th")
    documents = np.arange(len(corpus))
    with mock.patch.object(parity._Text, "merge", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        trained(corpus, documents, 400, tmp_path, "parity")
    assert not list(tmp_path.glob("bpe-*"))
    one = trained(corpus, documents, 400, tmp_path, "parity")
    assert one.digest != trained(corpus, documents, 400, tmp_path).digest
    with mock.patch.object(parity, "learn", side_effect=AssertionError):
        assert trained(corpus, documents, 400, tmp_path, "parity").digest == one.digest
    with pytest.warns(UserWarning, match="the training text has one language"):
        trained(corpus, documents[corpus.languages == 0], 300, tmp_path, "parity")


def test_the_command_trains_and_compares(tmp_path, capsys):
    files, out = [str(UDHR / f"{one}.jsonl") for one in ("en", "my")], str(tmp_path / "v.json")
    command = ["vocabulary", *files, "--size", "400", "--out", out]
    assert main([*command, "--merges", "parity", "--parallel", *files]) == 0
    said = capsys.readouterr().out
    assert "400 entries" in said
    assert "Gini coefficient over languages of tokens for the parallel text: 0." in said
    assert main([*command, "--merges", "parity", "--parallel", files[0]]) == 1
    assert "the parallel text has none of my" in capsys.readouterr().err
    one = tmp_path / "my.jsonl"
    one.write_text((UDHR / "my.jsonl").read_text().splitlines()[0] + "\n")
    assert main([*command, "--parallel", files[0], str(one)]) == 1
    assert "--parallel has 31 documents in en and 1 in my" in capsys.readouterr().err
    assert main(command) == 0
    assert "tokens per byte: 0." in capsys.readouterr().out
