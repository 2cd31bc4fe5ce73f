"""Scores: what they count, on what they depend, and the command aunet score."""

import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from aunet_lightning.generation import generate
from aunet_lightning.model.aunet import AUNet
from aunet_lightning.reader.bpe import train_bpe
from aunet_lightning.reader.model_units import units_of
from aunet_lightning.reader.reader import ByteReader, TokenReader
from aunet_lightning.reader.tokens import Tokenizer
from aunet_lightning.reports import surprisal
from aunet_lightning.scoring import Continuation, score
from aunet_lightning.vocabulary import BOS
from tests.helpers import (
    MIXED,
    ROOT,
    SETTINGS,
    UDHR,
    UPPER,
    WORDS,
    Balance,
    as_trained,
    aunet,
    error_of,
    sentences,
    tiny,
    write,
)

KEPT = ROOT / "tests" / "kept_run" / "checkpoints" / "last.ckpt"
ROUTER = {"name": "router", "bytes_per_unit": 3}
REFRESH = {"name": "refresh", "of": {"name": "fixed", "n": 6}, "by": {"name": "fixed", "n": 2}}
SHORT = "All human: 12.\nคน 人々は、ABC. é̂ 🤝🏽 xyz abc".encode()
TEXTS = [MIXED, b"a", *(text.encode() for text in sentences(2, 3)), MIXED * 2, b""]


def model(name):
    """A network with drawn weights that often finds BOS the most likely, and its reader."""
    torch.manual_seed(0)
    net, reader = drawn(name)
    with torch.no_grad():
        net.head.weight[BOS] *= 9
    return net, reader


def drawn(name):
    if name == "tokens":
        reader = TokenReader(Tokenizer(train_bpe([MIXED, *TEXTS], 280)))
        return as_trained(AUNet(tiny(1, vocabulary=reader.size))), reader
    rules = {"bytes": [], "whitespace": ["whitespace", UPPER], "router": [ROUTER, UPPER], "refresh": [REFRESH]}[name]
    reader = ByteReader(rules)
    return as_trained(AUNet(tiny(len(rules) + 1), reader.stack)), reader


@pytest.fixture(scope="module", params=["bytes", "whitespace", "router", "refresh", "tokens"])
def made(request):
    return model(request.param)


def by_id(found, reader, text):
    """Bits of each id."""
    sizes = reader.sizes[reader.encode([text])[0]].astype(int)
    return found.surprisal[np.cumsum(sizes) - sizes]


def plain(net, reader, text, row=10**6, context=0, before=b""):
    """Bits of each id, by a forward of what it sees (from the beginning of its row to the id before it), and whether it
    is the most likely one."""
    ids = np.concatenate(reader.encode([before, text])).astype(np.int64)
    levels, inside = reader.document_levels(ids), reader.stack.refreshes
    inside = None if inside is None else np.concatenate([[False], inside.split(before + text)]).astype(bool)
    stream, bits, best = torch.tensor([BOS, *ids]), [], []
    for i in range(len(reader.encode([before])[0]), len(ids)):
        number = max(i - row, -1) // (row - context) + 1
        seen = slice(number * (row - context), i + 1)
        refreshes = None if inside is None else torch.from_numpy(inside[seen])[None]
        with torch.no_grad():
            logits = net(stream[None, seen], torch.from_numpy(levels[seen])[None], refreshes=refreshes).logits[0, -1]
        bits.append(-float(logits.double().log_softmax(-1)[ids[i]]) / math.log(2))
        logits[BOS] = -torch.inf
        best.append(int(logits.argmax()) == ids[i])
    return np.array(bits), np.array(best)


@pytest.mark.parametrize(("row", "context"), [(10**6, 0), (24, 7), (9, 8)])
def test_each_id_is_scored_once_given_what_its_row_has_before_it(made, row, context):
    net, reader = made
    (found,) = score(net, reader, [SHORT], row, context)
    bits, best = plain(net, reader, SHORT, row, context)
    np.testing.assert_allclose(by_id(found, reader, SHORT), bits, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found.greedy, best)
    assert found.bits == pytest.approx(bits.sum(), rel=1e-5)
    assert len(found.surprisal) == len(found.levels) == len(SHORT)


def test_a_score_depends_on_no_other_document(made):
    net, reader = made
    alone = [next(score(net, reader, [text], 40, 9)) for text in TEXTS]
    for batch in (1, 50, 400, None):
        for one, other in zip(alone, score(net, reader, TEXTS, 40, 9, batch), strict=True):
            np.testing.assert_allclose(other.surprisal, one.surprisal, rtol=1e-4, atol=1e-4)
            np.testing.assert_array_equal(other.levels, one.levels)
            np.testing.assert_array_equal(other.greedy, one.greedy)


def test_levels_are_those_of_the_text_wherever_rows_begin(made):
    net, reader = made
    units = units_of(net, reader)
    learned = bool(net.predictors)  # it decides by what a row has
    for text, one in zip(TEXTS, score(net, reader, TEXTS, 1000 if learned else 16), strict=True):
        np.testing.assert_array_equal(one.levels, units.levels(text) if text else [])


@pytest.mark.parametrize("name", ["bytes", "router", "refresh"])
def test_greedy_ids_are_those_that_generate_takes(name):
    net, reader = model(name)
    prompts = [b"All ", b"one, ", MIXED[:9]]
    made_of = generate(net, reader, prompts, 12, temperature=0, valid_utf8=False)
    pieces = [Continuation(p, whole[len(p) :]) for p, whole in zip(prompts, made_of, strict=True)]
    assert sum(len(piece.text) for piece in pieces) > 12
    assert all(one.greedy.all() for one in score(net, reader, pieces))
    other = [Continuation(context, text[:-1] + bytes([text[-1] ^ 1])) for context, text in pieces if text]
    assert not any(one.greedy[-1] for one in score(net, reader, other))


def test_a_continuation_has_the_bits_that_its_bytes_have_in_the_whole(made):
    net, reader = made
    whole = " ".join(sentences(4, 2)).encode()
    (all_of_it,) = score(net, reader, [whole])
    starts = np.flatnonzero(all_of_it.levels) if reader.tokenizer is not None else np.arange(len(whole))
    for cut in starts[[1, 30, -1]]:
        (found,) = score(net, reader, [Continuation(whole[:cut], whole[cut:])])
        np.testing.assert_allclose(found.surprisal, all_of_it.surprisal[cut:], rtol=1e-4, atol=1e-4)
        assert found.unread == 0


@pytest.mark.parametrize("least", [1, 20], ids=["the first", "a later one"])
def test_a_token_with_bytes_of_context_and_text_is_cut(least):
    net, reader = model("tokens")
    first = next(word for word in WORDS if not reader.levels(word.encode())[1])
    whole = f"{first} {sentences(2, 1)[0]}".encode()
    cut = next(i for i in range(least, len(whole)) if not reader.levels(whole)[i])
    (found,) = score(net, reader, [Continuation(whole[:cut], whole[cut:])])
    expected, _ = plain(net, reader, whole[cut:], before=whole[:cut])
    np.testing.assert_allclose(by_id(found, reader, whole[cut:]), expected, rtol=1e-4, atol=1e-4)
    assert found.greedy.shape == expected.shape


@pytest.mark.parametrize(("size", "row", "context", "kept"), [(8, 30, 0, 23), (25, 30, 0, 16), (25, 30, 20, 21)])
def test_a_context_that_is_too_long_keeps_its_end(size, row, context, kept):
    net, reader = model("bytes")
    before, text = (" ".join(sentences(6, 2)).encode()[at : at + n] for at, n in ((0, 90), (90, size)))
    (found,) = score(net, reader, [Continuation(before, text)], row, context)
    assert found.unread == 90 - kept
    ids = torch.tensor([[*before[-kept:], *text]])
    with torch.no_grad():
        nats = -net(ids).logits.double().log_softmax(-1)[0, kept - 1 : -1]
    first = min(row - kept + 1, size)
    expected = nats[torch.arange(size), torch.tensor([*text])].numpy() / math.log(2)
    np.testing.assert_allclose(found.surprisal[:first], expected[:first], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"row_ids": 0}, "row_ids is 0, it must be 1 or more"),
        ({"context_ids": -1}, "context_ids is -1, it must be 0 or more"),
        ({"batch_ids": 1.5}, "batch_ids is 1.5, it must be a whole number"),
        ({"row_ids": 8, "context_ids": 8}, "which leaves a row no new ids to score: give less context, such as 4"),
    ],
)
def test_rows_that_cannot_be_are_refused(options, error):
    with pytest.raises(ValueError, match=error):
        score(*model("bytes"), [b"text"], **options)


STAGES = SETTINGS["model"]["net"]["stages"]
RUNS = {
    "rules": {},
    "router": {"splitter": ROUTER},
    "tokens": {"splitter": None, "upper_splitters": [], "tokenizer": {"vocab_size": 400}, "stages": STAGES[1:2]},
}


@pytest.mark.parametrize("name", RUNS)
def test_predict_and_score_agree(name, here, capsys):
    """On documents of which most are longer than a row."""
    settings = json.loads(json.dumps(SETTINGS)) | {key: value for key, value in RUNS[name].items() if key != "stages"}
    settings["model"]["net"]["stages"] = RUNS[name].get("stages", STAGES)
    settings["trainer"] |= {"max_steps": 3, "val_check_interval": 3, "limit_val_batches": 1}
    settings["data"] |= {"train_files": [str(UDHR / "en.jsonl")], "workers": 0}
    settings["report"] = {"ngrams": [], "sample_prompts": [], "generated_bytes": 0, "page": False}
    Path("run.yaml").write_text(yaml.safe_dump(settings))
    texts = UDHR / "th.jsonl"
    assert aunet("fit", "-c", "run.yaml", "--run.folder", "run") == 0
    checkpoint = Path("run/checkpoints/last.ckpt")
    assert (
        aunet(
            "predict", "-c", "run.yaml", "--run.folder", "run", f"--data.test_files={texts}", "--ckpt_path", checkpoint
        )
        == 0
    )
    predicted = [json.loads(line) for line in Path("run/predictions.jsonl").read_text().splitlines()]
    assert sum(line["bytes"] > 2 * settings["data"]["row_bytes"] for line in predicted) > 20
    if name == "tokens":
        assert aunet("export", checkpoint, "--out", "w.safetensors") == 0
        checkpoint = Path("w.safetensors")
    shutil.rmtree("cache")  # it needs the checkpoint alone
    capsys.readouterr()
    assert aunet("score", checkpoint, texts) == 0
    scored = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for one, other in zip(scored, predicted, strict=True):
        assert {key: one[key] for key in ("id", "lang", "bytes")} == {
            key: other[key] for key in ("id", "lang", "bytes")
        }
        assert one["bits"] == pytest.approx(other["bits"], rel=1e-4)
        assert one["bpb"] == pytest.approx(other["bpb"], rel=1e-4)


LINES = [
    {"text": "All human beings", "lang": "en", "id": "a"},
    {"text": "ทุกคน", "lang": "th", "id": "b", "context": "มนุษย์"},
    {"text": "are born", "lang": "en"},
]


@pytest.fixture
def _lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", LINES)
    (tmp_path / "de.txt").write_text("Alle Menschen", encoding="utf-8")


@pytest.mark.usefixtures("_lines")
@pytest.mark.parametrize("out", [None, "s.jsonl", "folder/s.jsonl.gz", "s.parquet"])
def test_the_command_writes_what_python_gives(out, capsys):
    import gzip

    from aunet_lightning.checkpoints.load import load

    assert aunet("score", KEPT, "a.jsonl", "de.txt", "--bytes", *(["--out", out] if out else [])) == 0
    shown = capsys.readouterr()
    if out and out.endswith("parquet"):
        rows = pytest.importorskip("pyarrow.parquet").read_table(out).to_pylist()
        assert [row.pop("greedy") for row in rows] == [None, False, None, None]
    else:
        read = gzip.open if out and out.endswith("gz") else open
        lines = read(out, "rt", encoding="utf-8").read() if out else shown.out
        rows = [json.loads(line) for line in lines.splitlines()]
        assert [row.pop("greedy", None) for row in rows] == [None, False, None, None]
    assert [(row["id"], row["lang"]) for row in rows] == [("a", "en"), ("b", "th"), ("3", "en"), ("de.txt", "de")]
    documents = [(line["text"].encode(), line.get("context", "").encode()) for line in LINES] + [
        (b"Alle Menschen", b"")
    ]
    found = list(score(*load(KEPT), [Continuation(context, text) for text, context in documents]))
    for row, one in zip(rows, found, strict=True):
        assert row["bytes"] == len(row["surprisal"]) == len(row["levels"])
        assert row["bits"] == pytest.approx(one.bits, abs=1e-3)
        assert row["bpb"] == pytest.approx(one.bits / row["bytes"], abs=1e-4)
        np.testing.assert_allclose(row["surprisal"], one.surprisal, atol=1e-4)
        np.testing.assert_array_equal(row["levels"], one.levels)
    assert ("(all)" in shown.err, "(all)" in shown.out, bool(shown.out)) == (True, False, not out)
    line = next(line.split() for line in shown.err.splitlines() if line.startswith("en "))
    assert line == ["en", "2", "24", f"{(found[0].bits + found[2].bits) / 24:.4f}"]


@pytest.mark.parametrize(
    ("piped", "ids"), [("Alle Menschen", ["standard input"]), (json.dumps(LINES[0]) + "\n", ["a"])]
)
def test_standard_input_is_a_text_or_json_lines(piped, ids, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(piped.encode()), encoding="utf-8"))
    assert aunet("score", KEPT, "-") == 0
    assert [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()] == ids


@pytest.mark.usefixtures("_lines")
@pytest.mark.parametrize(
    ("arguments", "content", "error"),
    [
        (["none.jsonl"], "", "'none.jsonl' is not a file (looked from "),
        (["x.txt"], "", "x.txt is empty: there is no text to score"),
        (["x.jsonl"], "\n", "x.jsonl is empty: it has no line with a text to score"),
        (["x.jsonl"], '{"text": "a"}\n{"text": b}\n', "x.jsonl:2: invalid JSON; each line is an object such as"),
        (["x.jsonl"], '{"text": "a", "context": 3}\n', "x.jsonl:1: 'context' is not a string; each line"),
        (["a.jsonl", "--out", "s.csv"], "", "--out is s.csv: end its name in .jsonl, .jsonl.gz or .parquet"),
        (["a.jsonl", "--out", "a.jsonl"], "", "--out is a.jsonl, which is also read: name another file"),
        (["a.jsonl", "--row_ids", "8", "--context_ids", "8"], "", "--context_ids is 8 and --row_ids 8, which leaves"),
        (["a.jsonl", "--row_ids", "0"], "", "--row_ids is 0, it must be 1 or more"),
        (["a.jsonl", "--device", "gpu"], "", "--device is 'gpu', which cannot be used"),
    ],
)
def test_what_cannot_be_scored_is_named_and_nothing_written(arguments, content, error, tmp_path, capsys):
    (tmp_path / arguments[0]).write_text(content) if arguments[0].startswith("x") else None
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    out = [] if "--out" in arguments else ["--out", "s.jsonl"]
    assert aunet("score", KEPT, *arguments, *out) == 1
    assert error in error_of(capsys)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.usefixtures("_lines")
@pytest.mark.parametrize("out", ["s.jsonl", "s.parquet"])
def test_an_output_is_written_completely_or_not_at_all(out, tmp_path, monkeypatch):
    def failing(*_):
        raise OSError("no space left on device")
        yield

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr("aunet_lightning.scoring._scores", failing)
    assert aunet("score", KEPT, "a.jsonl", "--out", out) == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.usefixtures("_lines")
def test_the_page_shows_the_first_texts_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(surprisal, "DOCUMENTS", 2)
    monkeypatch.setattr(surprisal, "BYTES", 10)
    assert aunet("score", KEPT, "a.jsonl", "--page", "p.html", "--out", "s.jsonl", "--bytes") == 0
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    page = Balance(text)
    assert (page.open, page.wrong) == ([], [])
    assert "The first 2 of 3 documents, of each at most 10 bytes." in text
    shown = "".join(page.text)
    assert "All human " in shown
    assert "All human b" not in shown
    assert "ทุก" in shown
    assert "ทุกค" not in shown  # ten bytes end inside it
    first, second = (json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()[:2])
    assert f'title="{first["surprisal"][0]:.1f} bits">A</span>' in text
    of_bytes = " + ".join(f"{bits:.1f}" for bits in second["surprisal"][:6])
    assert f'title="{of_bytes} bits">ทุ</span>' in text


def test_bits_of_a_token_are_shown_on_all_of_its_bytes():
    bits, begins = np.array([6.0, 0, 0, 1, 4, 0]), np.array([1, 0, 0, 1, 1, 0])
    np.testing.assert_array_equal(surprisal._spread(bits, begins), [2, 2, 2, 1, 2, 2])


@pytest.mark.usefixtures("_lines")
def test_a_bpe_model_reads_utf8_and_says_where_a_text_is_not(tmp_path, capsys, monkeypatch):
    from aunet_lightning.checkpoints import load as loading

    _, _, contents = loading.load_with_contents(KEPT)
    monkeypatch.setattr(loading, "load_with_contents", lambda _: (*model("tokens"), contents))
    (tmp_path / "x.txt").write_bytes(b"All human \xff beings and more of it, as much as a text has")
    assert aunet("score", KEPT, "x.txt") == 1
    assert "x.txt is not UTF-8 at byte 10, and a BPE model reads nothing else" in error_of(capsys)
