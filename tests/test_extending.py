"""docs/extending.md: its examples, as a package of one's own, used by YAML through `aunet fit` and `aunet split`."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml

import splitters
from aunet_lightning import AUNet, AUNetConfig
from aunet_lightning.checkpoints.forms import read
from aunet_lightning.data.corpus import Corpus, prepare
from aunet_lightning.data.sources import Source, expand
from aunet_lightning.evaluation.language_text import LanguageText
from aunet_lightning.evaluation.task import TASKS
from aunet_lightning.model.embedding import coefficient, preceding
from aunet_lightning.registry import Registry
from aunet_lightning.reports.study.columns import columns_of
from aunet_lightning.reports.study.report import as_csv, as_html
from aunet_lightning.study.evaluating import make_items
from aunet_lightning.study.grid import Match, Study
from aunet_lightning.study.results import CellResult, StudyResult
from aunet_lightning.study.settings import merge
from aunet_lightning.training.optimizer import OptimizerConfig
from aunet_lightning.vocabulary import BOS, EOS
from tests.helpers import (
    ROOT,
    TINY,
    as_trained,
    aunet,
    place_store,
    points,
    sentences,
    stack_of,
    stepped_levels,
    tiny,
    write,
)

PAGE = (ROOT / "docs" / "extending.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.S | re.M))
SEAMS = ("upsampling", "embedding of bytes", "data source", "optimizer", "metric of a run")  # any number at once


def settings_of(seam):
    (section,) = (text for title, text in SECTIONS.items() if title.endswith(seam))
    return yaml.safe_load(re.search(r"```yaml\n(.*?)```", section, re.S)[1])


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The page's examples in a package, each in the file that its first line names."""
    folder = tmp_path_factory.mktemp("package")
    blocks = re.findall(r"```python\n# (my_package/\w+\.py)\n(.*?)```", PAGE, re.S)
    assert len(blocks) == len(SECTIONS)  # one file each
    for name, code in blocks:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code)
    return folder


@pytest.fixture
def here(package, tmp_path, monkeypatch, store_template):
    """A folder to run in, with text."""
    monkeypatch.syspath_prepend(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place_store(store_template, tmp_path / "mlflow.db"))
    monkeypatch.setenv("AUNET_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "en.jsonl", sentences(1))
    (tmp_path / "my.txt").write_text("\n\n".join([*sentences(2), " ", "The end."]))
    return tmp_path


def fit(*settings, options=(), **trainer):
    merged = TINY
    for one in (*settings, {"trainer": trainer}):
        merged = merge(merged, one)
    with open("run.yaml", "w") as file:
        yaml.safe_dump(merged, file)
    return aunet("fit", "-c", "run.yaml", "--run.folder", "r", *options)


def last(logged):
    """The step of the last validation."""
    return max(step for step, key in logged if key == "val/bpb")


@pytest.mark.parametrize("seam", ["rule", "combinator"])
def test_a_splitter_of_ones_own_is_lawful(seam, here, capsys):
    spec = settings_of(seam)["splitter"]
    splitters.check(spec)
    assert aunet("split", "Il PARLA. Oui", "--splitter", json.dumps(spec)) == 0
    assert (splitters.registry.class_of(spec["name"]).knob is not None) == (seam == "rule")
    shown = {"rule": "Il│ │PA│RL│A.│ Oui"}
    assert capsys.readouterr().out.startswith(shown.get(seam, "Il"))


def test_a_run_of_ones_own_parts_continues(here):
    """A rule, an upsampling, an embedding, a data source, an optimizer and a metric in one run, resumed at step 4."""
    every = [settings_of("rule"), *map(settings_of, SEAMS), {"run": {"keep_last": 9}}]
    assert fit(*every, max_steps=9) == 0
    once = points(here / "r")
    assert 0 <= once[last(once), "val/accuracy"] <= 1
    assert {key for step, key in once if step == last(once)} >= {"val/bpb", "val/bpb_en", "val/bytes_per_unit_stage2"}
    state = read(here / "r" / "checkpoints" / "last.ckpt")["optimizer_states"][0]["state"]
    assert set(state["net.embedding.trigrams.weight"]) == {"momentum_buffer"}
    assert state["net.upsamplings.0.gain"]["momentum_buffer"].shape == (16, 1)
    (here / "r").rename(here / "once")
    assert fit(*every, options=("--ckpt_path", "once/checkpoints/step-00000004.ckpt"), max_steps=9) == 0
    resumed = points(here / "r")
    assert len(resumed) > 20
    assert resumed.items() <= once.items()


@pytest.mark.parametrize("seam", ["learned splitter", "teacher"])
def test_what_learns_boundaries(seam, here):
    assert fit(settings_of(seam)) == 0
    logged = points(here / "r")
    if seam == "teacher":
        assert (last(logged), "val/teacher_f1_stage2") in logged
    else:
        weight = read(here / "r" / "checkpoints" / "last.ckpt")["state_dict"]["net.predictors.0.score.weight"]
        assert weight.shape == (1, 32)
        assert logged[last(logged), "val/bytes_per_unit_stage2"] > 1


def test_documents_of_ones_own_format(here):
    (source,) = expand(settings_of("data source")["data"]["train_files"], "data.train_files")
    corpus = Corpus([prepare(source, here / "cache")])
    assert [corpus.text(d).tobytes().decode() for d in range(len(corpus))] == [*sentences(2), "The end."]
    assert corpus.language_names == ["en"]
    assert corpus.report.skipped == {"empty paragraph": 1}
    assert corpus.report.examples["empty paragraph"][0].endswith(":41")
    plain = Source(source.path, "en")
    assert plain.folder(here / "cache") != source.folder(here / "cache")


def test_the_cached_text_of_json_lines_keeps_its_name(here):
    """A cache made before there were formats is found again."""
    (here / "x.jsonl").write_text('{"text": "a"}\n')
    assert Source(here / "x.jsonl", "x").folder(here / "cache").name == "x-668f54ab0ea54f27"


@pytest.fixture(params=["my_package.trigrams:Trigrams", "ngrams"])
def trigrams(here, request):
    torch.manual_seed(0)
    return as_trained(AUNet(tiny(3, embedding=request.param, ngram_rows=97))), stack_of("whitespace", 3)


@torch.no_grad()
def logits(net, stack, row):
    return net(torch.tensor([row]), torch.tensor([stepped_levels(stack, row)])).logits[0]


ROW = [BOS, *b"one two", EOS, BOS, *b"three four five"]


@torch.no_grad()
@pytest.mark.parametrize("sizes", [[1] * 25, [7, 1, 2, 15], [10, 15]], ids=str)
def test_an_embedding_that_reads_ids_before_steps_as_it_reads_at_once(sizes, trigrams):
    net, stack = trigrams
    ids, state, parts = torch.tensor([ROW, ROW[9:] + ROW[:9]]), net.initial_state(2, stack), []
    whole = net(ids, state=net.initial_state(2, stack)).logits
    for chunk in ids.split(sizes, 1):
        out = net(chunk, state=state)
        state = out.state
        parts.append(out.logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)


def test_an_embedding_that_reads_ids_before_looks_at_no_later_one(trigrams):
    net, stack = trigrams
    before = logits(net, stack, ROW)
    for at in range(1, len(ROW)):
        if ROW[at] < 256:
            changed = [*ROW[:at], ord("x"), *ROW[at + 1 :]]
            torch.testing.assert_close(logits(net, stack, changed)[:at], before[:at], atol=1e-6, rtol=1e-6)


def test_an_embedding_of_ids_before_gets_them_in_order():
    ids = torch.tensor([[EOS, BOS, 1, 2, BOS, 3]])
    before, recent = preceding(ids, torch.tensor([[8, 9]]), 2, masked=False)
    assert before[0].tolist() == [[8, 9], [9, EOS], [EOS, BOS], [BOS, 1], [1, 2], [2, BOS]]
    assert recent.tolist() == [[BOS, 3]]
    before, recent = preceding(ids, None, 2, masked=True)
    assert before[0].tolist() == [[EOS, EOS], [EOS, EOS], [EOS, BOS], [BOS, 1], [EOS, EOS], [EOS, BOS]]
    assert recent.tolist() == [[BOS, 3]]


@pytest.mark.parametrize("ids", [[*b"some text"], [69_999, 300, 0, 65, 40_000]], ids=["bytes", "tokens"])
def test_hashed_ngrams_are_those_of_the_plain_form(ids):
    options = {"embedding": "ngrams", "ngrams": [5, 2], "ngram_rows": 11, "document_masking": False}
    net = as_trained(AUNet(tiny(1, vocabulary=70_000, **options)))
    row, embedding = [BOS, *ids, EOS], net.embedding
    for at, found in enumerate(embedding(torch.tensor([row]), preceding(torch.tensor([row]), None, 4, False)[0])[0]):
        expected = embedding.weight[row[at]]
        for i, n in enumerate((2, 5)):
            last = ([EOS] * n + row[: at + 1])[-n:]
            key = sum((id_ + 1) * coefficient(n - 1 - j) for j, id_ in enumerate(last)) % (2**31 - 1)
            expected = expected + embedding.ngrams.weight[i * 11 + key % 11]
        torch.testing.assert_close(found, expected)


def test_dropout_of_ngrams_leaves_out_those_longer_than_some_n():
    torch.manual_seed(0)
    net = as_trained(AUNet(tiny(1, embedding="ngrams", ngrams=[2, 3, 5], ngram_rows=11, ngram_dropout=0.6)))
    ids = torch.randint(0, 256, (30, 40))
    before, embedding, tables = preceding(ids, None, 4, False)[0], net.embedding.train(), net.embedding.ngrams
    of_each = tables(embedding.rows(torch.cat([before, ids[..., None]], -1)))  # [B, L, 3, D]
    added = embedding(ids, before) - torch.nn.functional.embedding(ids, embedding.weight)
    sums = torch.cat([torch.zeros_like(of_each[..., :1, :]), of_each.cumsum(-2)], -2)
    known = (sums - added[..., None, :]).abs().amax(-1).argmin(-1)
    torch.testing.assert_close(sums.gather(2, known[..., None, None].expand(-1, -1, 1, 16))[:, :, 0], added)
    shares = known.flatten().bincount(minlength=4) / known.numel()
    torch.testing.assert_close(shares, torch.tensor([0.2, 0.2, 0.2, 0.4]), atol=0.05, rtol=0)


@pytest.mark.parametrize("kind", ["my_package.trigrams:Trigrams", "ngrams"])
@pytest.mark.parametrize("masked", [True, False])
def test_an_embedding_that_reads_ids_before_sees_no_masked_document(masked, kind, here):
    torch.manual_seed(0)
    options = {"embedding": kind, "document_masking": masked}
    net = as_trained(AUNet(AUNetConfig(stages=[{"dim": 16, "layers": 1, "head_dim": 8, "window": 1}], **options)))
    # A window of one position: only the embedding can see the document before.
    alone, after = (logits(net, splitters.Stack([]), row)[-2:] for row in ([BOS, ord("a")], [ord("z"), BOS, ord("a")]))
    assert torch.allclose(alone, after, rtol=0, atol=1e-6) == masked  # products of two and of three rows


def test_a_column_of_ones_own(here):
    columns = settings_of("column of a study's report")["columns"]
    metrics = {"perf/training_seconds": 90.0, "val/accuracy": 0.25}
    cells = [CellResult(f"c{i}", "a", "en", 2, i, "done", bpb=1.0, metrics=metrics if i else {}) for i in (0, 1)]
    study = StudyResult("s", "", cells, ["a"], ["en"], "flops", 1e9, "bytes", columns=columns)
    page = as_html(study)
    assert '<th scope="col">minutes</th><th scope="col">val/accuracy</th>' in page
    assert "<td>1.50</td><td>0.25</td>" in page
    assert "Minutes: of training, without validation." in page
    header, *rows = (line.split(",") for line in as_csv(study).splitlines())
    assert header[-2:] == ["minutes", "val/accuracy"]
    assert [row[-2:] for row in rows] == [["", ""], ["1.5", "0.25"]]
    with pytest.raises(ValueError, match="columns is 'minutes': name your own class as module:Class"):
        columns_of(["minutes"])


def test_a_task_of_ones_own(here):
    pytest.importorskip("icu4py")
    (name,) = settings_of("task")["evaluate"]
    text = LanguageText("en", sentences(1) + sentences(2))
    items = list(TASKS.get(name)().items(name, text, 5, seed=0))
    assert len(items) == 5
    for item in items:
        asked = item.context.decode().splitlines()[-1].removesuffix(" =")
        assert item.choices[item.answer].decode() == asked[::-1] + "\n"
        assert item.kinds.count("copy") == 1
    lines = write(Path("mine.jsonl"), [{"text": text, "lang": "en"} for text in sentences(1)])
    languages, texts = {"en": ["en"]}, {"train": str(lines), "val": str(lines)}
    mine = Study("mine", {}, languages, Match(1e9), texts, evaluate=[name], evaluate_items=7)
    make_items(mine, lambda arguments: aunet(*arguments))
    (made,) = Path("runs/mine/items/en").glob("*.jsonl")
    assert [json.loads(line)["task"] for line in made.read_text().splitlines()] == [name] * 7


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("repaet", "net is 'repaet': choose one of repeat, copy, or name your own class as module:Class. Did you mean repeat"),
        (3, "net is 3: choose one of repeat"),
        (None, "net is null: choose one of repeat"),
        ("no.module:X", "net is 'no.module:X', which cannot be imported: ModuleNotFoundError"),
        ("my_package.gains:Gain", "net is 'my_package.gains:Gain', which cannot be imported: AttributeError"),
        ("my_package.gains:take", "must be a class that inherits from aunet_lightning.model.upsampling.Upsampling"),
        ("my_package.both:Both", "must be a class that inherits from aunet_lightning.model.upsampling.Upsampling"),
        ("aunet_lightning.model.upsampling:Upsampling", "which lacks spread"),
    ],
)  # fmt: skip
def test_a_wrong_name_is_refused(name, words, here):
    base = "aunet_lightning.model.upsampling"
    registry = Registry("net", f"{base}:Upsampling", {"repeat": f"{base}:Repeat", "copy": f"{base}:Copy"})
    with pytest.raises(ValueError, match=re.escape(words)):
        registry.check(name)
    assert registry.get("copy") is registry.get(f"{base}:Copy")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": {"net": {"upsampling": "my_package.gone:X"}}}, "model.net.upsampling is 'my_package.gone:X', which cannot"),
        ({"model": {"net": {"embedding": "bytes"}}}, "model.net.embedding is 'bytes': choose one of byte, ngrams"),
        ({"model": {"optimizer": {"name": "adam"}}}, "model.optimizer.name is 'adam': choose one of adamw"),
        ({"model": {"metrics": ["bpb"]}}, "model.metrics is 'bpb': name your own class as module:Class"),
        ({"data": {"train_files": [{"path": "my.txt", "format": "txt"}]}}, "data.train_files: format is 'txt': choose one of jsonl"),
    ],
)  # fmt: skip
def test_a_wrong_name_in_yaml_is_one_sentence(settings, words, here, capsys):
    assert fit(settings) in (1, 2)
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("aunet")
    assert words in error


def test_another_optimizer_does_not_take_over_the_state(here):
    """A checkpoint from before optimizers had names is one of AdamW."""
    from aunet_lightning.checkpoints.contents import Contents
    from aunet_lightning.errors import UserError

    settings = vars(OptimizerConfig()) | {}
    older = {name: value for name, value in settings.items() if name != "name"}
    contents = Contents(tiny(2), ["whitespace"], optimizer=older, continues=True)
    contents.check_continued(settings, {})
    with pytest.raises(UserError, match=r"optimizer.name \(there adamw, here my_package.momentum:Momentum\)"):
        contents.check_continued(settings | {"name": "my_package.momentum:Momentum"}, {})
