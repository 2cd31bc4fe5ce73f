"""Tables, yardsticks, pictures and samples."""

import csv
import io
import json
import math
import re
from collections import Counter, defaultdict

import pytest
import regex
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounter

from aunet_lightning.generation import generate
from aunet_lightning.reader.reader import ByteReader
from aunet_lightning.reports.ngram import ByteNGram, bpb_by_language
from aunet_lightning.reports.pictures import (
    as_colours,
    as_html,
    as_line,
    clusters,
    inside_clusters,
    one_per_script,
    script_of,
)
from aunet_lightning.reports.table import TOTAL, BpbTable
from aunet_lightning.vocabulary import BOS, EOS
from splitters import Stack
from splitters.edge_texts import SCRIPTS, short_texts
from tests.helpers import UDHR, stack_of, tiny, tiny_model

STACK = Stack(["whitespace", {"name": "every", "n": 2}])


def plain_bits(order, train, document):
    """Witten–Bell back-off as the formula has it, with dictionaries."""
    followers = defaultdict(Counter)
    for text in train:
        for t in range(len(text)):
            for n in range(min(order - 1, t) + 1):
                followers[text[t - n : t]][text[t]] += 1
    bits = 0.0
    for t in range(len(document)):
        p = 1 / 256
        for n in range(min(order - 1, t) + 1):
            seen = followers.get(document[t - n : t])
            if seen:
                p = (seen[document[t]] + len(seen) * p) / (seen.total() + len(seen))
        bits -= math.log2(p)
    return bits


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=20), max_size=4), st.binary(max_size=20), st.integers(1, 5))
def test_ngram_equals_the_plain_form(train, document, order):
    assert ByteNGram(order, train).bits(document) == pytest.approx(
        plain_bits(order, train, document), rel=1e-9, abs=1e-9
    )


def test_ngram_on_real_text():
    texts = [json.loads(line)["text"].encode() for line in (UDHR / "th.jsonl").open()]
    assert ByteNGram(4, texts[:20]).bits(texts[25]) == pytest.approx(plain_bits(4, texts[:20], texts[25]), rel=1e-9)
    by_language = bpb_by_language(3, [("th", t) for t in texts[:20]], [("th", texts[25]), ("x", texts[26])])
    sizes = {"th": len(texts[25]), "x": len(texts[26])}
    assert by_language[TOTAL] == pytest.approx(sum(by_language[k] * n for k, n in sizes.items()) / sum(sizes.values()))


def test_a_gram_probability_is_a_distribution():
    model = ByteNGram(3, [b"abracadabra", b"banana"])
    total = sum(2 ** -(model.bits(b"ab" + bytes([b])) - model.bits(b"ab")) for b in range(256))
    assert total == pytest.approx(1)


def test_table_in_three_forms():
    table = BpbTable({"AU-Net": {TOTAL: 1.5, "th": 1.25}, "3-gram": {TOTAL: 1.25, "th": 2.0, "en": 3.0}})
    text = table.as_text("title").splitlines()
    assert text[1].split() == ["language", "AU-Net", "3-gram"]
    assert text[2].split() == [TOTAL, "1.500", "1.250*"]
    assert text[3].split() == ["en", "–", "3.000*"]
    assert text[4].split() == ["th", "1.250*", "2.000"]
    assert "| th | 1.250 | 2.000 |" in table.as_markdown()
    assert list(csv.reader(io.StringIO(table.as_csv())))[1] == [TOTAL, "1.5", "1.25"]


def test_a_language_may_be_called_all():
    found = bpb_by_language(2, [("all", b"aaa")], [("all", b"aaa"), ("en", b"zzz")])
    assert found["all"] < found[TOTAL] < found["en"]


def test_a_line_shows_units_of_every_stage():
    assert as_line(b"one two three. Four\n", STACK) == "one│ two║ three│.║ Four║⏎\n"
    assert as_line("人人".encode(), Stack(["cjk_character"])) == "│人│人"


@pytest.mark.parametrize("name", sorted(short_texts()))
def test_clusters_keep_every_character_and_boundary(name):
    data = short_texts()[name]
    found, levels = clusters(data, STACK), STACK.levels(data)
    text = "".join("\ufffd" if "\udc80" <= c <= "\udcff" else c for c in data.decode("utf-8", "surrogateescape"))
    pictures = {code: 0x2400 + code for code in range(32) if code not in b"\t\n\r"} | {127: 0x2421}
    pictures |= {code: f"\\x{code:02x}" for code in range(0x80, 0xA0)}  # terminals obey these too
    assert "".join(cluster.text for cluster in found) == text.translate(pictures)
    assert sum(cluster.bytes for cluster in found) == len(data)
    assert sum(cluster.boundaries for cluster in found) == int((levels > 0).sum())
    assert max((cluster.level for cluster in found), default=0) == levels.max(initial=0)
    assert as_html([(name, data)], {"a": STACK, "b": STACK}).count("<tr>") == 2


@pytest.mark.parametrize("name", sorted(SCRIPTS))
@pytest.mark.parametrize("rule", ["utf8_character", "fixed", "script_aware"])
def test_colours_keep_the_text_and_tear_no_cluster_apart(name, rule):
    text, stack = SCRIPTS[name], Stack([rule, "every", "every"])
    coloured = as_colours(text.encode(), stack)
    text = text.replace("\r\n", "\n").translate({0x0B: "␋", 0x0C: "␌", 0x0D: "␍", 0x85: "\\x85"})
    assert re.sub("\x1b\\[[0-9;]*m", "", coloured) == text
    begins = {match.start() for match in regex.finditer(r"\X", text)} | {len(text)}
    at = 0
    for piece in re.split("(\x1b\\[[0-9;]*m)", coloured):
        assert not piece.startswith("\x1b") or at in begins
        at += 0 if piece.startswith("\x1b") else len(piece)


def test_neighbouring_units_differ_in_colour_at_every_stage():
    styles = re.findall("\x1b\\[(48;[0-9;]*)m", as_colours(b"a b c d e f g h", Stack(["whitespace", "every", "every"])))
    assert len(styles) == 8  # every unit of stage 2 another style than the one before
    assert len({style.split(";")[2] for style in styles}) == 4
    assert sum(style.endswith(";4") for style in styles) == 4  # half of stage 4's are underlined


def test_boundaries_on_one_cluster_are_counted():
    data = "a\u0301\u0302b".encode()
    assert inside_clusters(data, Stack(["utf8_character"])) == 2
    assert inside_clusters(data, Stack(["grapheme"])) == 0


def test_html_is_escaped_and_nested():
    page = as_html([("<b>", b"<i> a b")], {"<rule>": STACK})
    assert "&lt;b&gt;" in page
    assert "&lt;rule&gt;" in page
    assert "<i>" not in page
    assert '<span class="u2 a"><span class="u1 a"' in page


@pytest.mark.parametrize(
    ("name", "script"),
    [("Latin", "Latin"), ("Thai", "Thai"), ("Khmer", "Khmer"), ("Chinese", "Han"), ("Japanese", "Japanese"),
     ("Korean", "Hangul"), ("Amharic", "Ethiopic"), ("Tibetan", "Tibetan"), ("Devanagari", "Devanagari"), ("blanks", "Latin")],
)  # fmt: skip
def test_scripts_are_told_apart(name, script):
    assert script_of(SCRIPTS[name]) == script


def test_one_line_per_script_of_the_shipped_text():
    texts = [(p.stem, json.loads(p.open().readline())["text"].encode()) for p in sorted(UDHR.glob("*.jsonl"))]
    scripts = [script for script, _ in one_per_script(texts)]
    assert len(scripts) == len(set(scripts)) == 13
    assert "other" not in scripts


def test_a_sample_continues_prompts_of_any_length():
    model, stack = tiny_model(tiny(3)), stack_of("cjk_character", 3)
    prompts = [b"", "人人生而".encode(), b"a much longer prompt than the others"]
    texts = generate(model, ByteReader(stack.rules), prompts, 20, seed=3)
    assert all(
        text.startswith(prompt) and len(text) <= len(prompt) + 20 for text, prompt in zip(texts, prompts, strict=True)
    )
    assert texts == generate(model, ByteReader(stack.rules), prompts, 20, seed=3)
    assert texts != generate(model, ByteReader(stack.rules), prompts, 20, seed=4)
    likely = generate(model, ByteReader(stack.rules), prompts, 20, temperature=0)
    assert likely == [generate(model, ByteReader(stack.rules), [prompt], 20, temperature=0)[0] for prompt in prompts]


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_samples_have_the_frequencies_of_their_temperature(temperature):
    model, stack = tiny_model(tiny(2)), stack_of("whitespace", 2)
    n, prompt = 2000, b"some text. "
    with torch.no_grad():
        model.head.weight *= 3  # so that bytes differ
        logits = model(torch.tensor([[BOS, *prompt]]), torch.tensor([[1, *stack.levels(prompt)]])).logits[0, -1]
    logits[BOS] = -torch.inf
    expected = (logits / temperature).softmax(-1)[:256]
    likely = expected > expected.median()
    share = float(expected[likely].sum())
    drawn = [
        text[len(prompt)]
        for text in generate(model, ByteReader(stack.rules), [prompt] * n, 1, temperature, valid_utf8=False)
        if text != prompt
    ]
    assert likely[drawn].sum() / n == pytest.approx(share, abs=4 * (share * (1 - share) / n) ** 0.5)


def test_a_compiled_network_is_not_compiled_for_each_step_of_a_stream():
    stack, model = stack_of("whitespace", 2), tiny_model(tiny(2))
    expected = generate(model, ByteReader(stack.rules), [b"some text. "], 9, temperature=0)
    compiled = CompileCounter()
    model.compile(backend=compiled)
    assert generate(model, ByteReader(stack.rules), [b"some text. "], 9, temperature=0) == expected
    assert compiled.frame_count == 0


def test_the_most_likely_byte_is_that_of_the_full_forward():
    model, stack = tiny_model(tiny(3)), stack_of("whitespace", 3)
    (text,) = generate(model, ByteReader(stack.rules), [b"some text. "], 15, temperature=0, valid_utf8=False)
    ids = torch.tensor([[BOS, *text]])
    levels = torch.tensor([[2, *stack.levels(text)]])
    with torch.no_grad():
        logits = model(ids, levels).logits[0]
    logits[:, BOS] = -torch.inf
    likely = logits.argmax(-1).tolist()
    for t in range(len(b"some text. "), len(text)):
        assert text[t] == likely[t]
    if len(text) < len(b"some text. ") + 15:
        assert likely[len(text)] == EOS
