"""The page of a run: what it says is what the run logged and the model does, and it costs the run nothing."""

import json
import math
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from aunet_lightning.checkpoints.load import load
from aunet_lightning.generation import generate
from aunet_lightning.reader.levels import FixedLevels
from aunet_lightning.reader.model_units import ModelUnits
from aunet_lightning.reader.reader import ByteReader
from aunet_lightning.reports.page import Table, as_html
from aunet_lightning.reports.pictures import as_spans
from aunet_lightning.reports.run import callback, report
from aunet_lightning.reports.run.attention import attended, plain_weights, unit_names
from aunet_lightning.reports.run.callback import RunPage
from aunet_lightning.reports.run.kept import CloseLook, Look, Reading, read_looks, write_close_look, write_looks
from aunet_lightning.reports.run.known import Known, spaced, thinned
from aunet_lightning.reports.study.report import as_markdown
from aunet_lightning.study.results import Point
from aunet_lightning.terminal import printable
from aunet_lightning.tracking.run_folder import RunFolder
from aunet_lightning.training.report_config import ReportConfig
from aunet_lightning.vocabulary import BOS
from splitters import Stack
from tests.helpers import TINY, UDHR, Balance, assert_same, aunet, cell, place_store, points, study, tiny, tiny_model

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROMPT = "All "
SETTINGS = TINY | {
    "splitter": {"name": "router", "bytes_per_unit": 4},
    "upper_splitters": [],
    "data": TINY["data"] | {"train_files": [str(UDHR / f"{name}.jsonl") for name in ("en", "th")], "row_bytes": 128},
    "report": {"ngrams": [2], "generated_bytes": 0, "sample_prompts": [PROMPT], "sample_bytes": 9, "page": True},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, store_template):
    """Runs of six steps, one of them without a page, another one that was continued from three."""
    place = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("MLFLOW_TRACKING_URI", place_store(store_template, place / "runs" / "mlflow.db"))
        patch.setenv("AUNET_CACHE", str(place / "cache"))
        Path("tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
        for name, more in {"continued": [], "bare": ["--report.page", "false"]}.items():
            assert aunet("fit", "-c", "tiny.yaml", "--run.folder", name, *more) == 0
        shutil.copytree("continued", "page")
        assert aunet("fit", "-c", "continued/config.yaml", "--trainer.max_steps", "9") == 0
    return place


@pytest.fixture
def page(runs):
    return (runs / "page" / "report.html").read_text(encoding="utf-8")


def known(folder, state="finished"):
    return Known(RunFolder(folder), state, {})


def check_form(html):
    """A page is well formed, and loads nothing."""
    read = Balance(html)
    assert (read.open, read.wrong) == ([], [])
    assert all(link.startswith("#") for link in read.links)
    assert len(read.ids) == len(set(read.ids))
    assert {link[1:] for link in read.links} <= set(read.ids)
    assert "<script" not in html
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    return read


def test_the_page_stands_alone_and_has_its_sections(page):
    check_form(page)
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", page) == [
        "Languages", "Curves", "Samples", "Boundaries", "Surprisal", "Lengths of units", "What is read", "Time",
        "Settings that differ from the defaults", "Continue",
    ]  # fmt: skip
    assert "<svg" in page


def test_its_numbers_are_those_that_were_logged(runs, page):
    logged, bits = points(runs / "page"), points(runs / "page")[5, "val/bpb"]
    answer = re.search(r'<p class="answer">(.*?)</p>', page)[1]
    assert answer.startswith("Finished at step 6 of 6 (")
    assert f"After 6 steps ({logged[5, 'bytes_seen'] / 1000:.3g} kB of text" in answer
    assert f"the model needs {bits:.3f} bits per byte of held-out text. That is" in answer
    assert re.search(r"(more|less) than the best yardstick, a 2-gram of the same text \(\d\.\d{3}\)\.", answer)
    rows = dict(re.findall(r'<th scope="row">(\w+)</th><td[^>]*>(?:<b>)?(\d\.\d{3})', page))
    assert rows == {name: f"{logged[5, f'val/bpb_{name}']:.3f}" for name in ("en", "th")}
    sizes = json.loads((runs / "page" / "data.json").read_text())["train"]["bytes_by_language"]
    times = logged[5, "bytes_seen"] / sum(sizes.values())
    for name, size in sizes.items():
        assert f"<td>{size / 1000:.3g} kB × {times:.3g}</td>" in page, name
    curve = known(runs / "page").curves["val/bpb"]
    assert curve == [(3.0, logged[2, "val/bpb"]), (6.0, bits)]


def test_the_page_changes_no_number(runs):
    assert_same(runs / "page", runs / "bare")
    assert not any((runs / "bare" / name).exists() for name in ("report.html", "looks.jsonl", "close_look.json"))


def test_a_continued_run_has_the_whole(runs):
    looks = read_looks(runs / "continued" / "looks.jsonl")
    assert [look.step for look in looks] == [3, 6, 9]
    assert looks[:2] == read_looks(runs / "page" / "looks.jsonl")
    assert [step for step, _ in known(runs / "continued").curves["val/bpb"]] == [3.0, 6.0, 9.0]
    spent = [sum(known(runs / name).close.seconds.values()) for name in ("page", "continued")]
    assert spent[1] > spent[0] > 0
    html = (runs / "continued" / "report.html").read_text(encoding="utf-8")
    assert "aunet fit -c continued/config.yaml" in html  # which is how it was continued
    assert all(f"step {step}<" in html for step in (3, 6, 9))


def test_an_abandoned_line_is_not_shown(tmp_path):
    folder = RunFolder(tmp_path)
    write_looks(folder.looks, [Look(step) for step in (3, 6, 9)])
    of = RunPage(folder, ReportConfig())
    module = SimpleNamespace(continues=True, steps_trained=6)
    of.on_train_start(SimpleNamespace(is_global_zero=True), module)
    assert [*of.looks] == [3, 6]
    anew = RunPage(folder, ReportConfig())
    anew.on_train_start(SimpleNamespace(is_global_zero=True), SimpleNamespace(continues=False, steps_trained=0))
    assert not anew.looks


def test_samples_and_sentences_are_what_the_weights_make_of_them(runs):
    net, reader = load(runs / "page" / "checkpoints" / "last.ckpt")
    look, close = known(runs / "page").looks[-1], known(runs / "page").close
    (text,) = generate(net, reader, [PROMPT.encode()], 9, 0.8, valid_utf8=False)
    assert [*map(tuple, look.samples)] == [(PROMPT, printable(text.decode("utf-8", "replace")))]
    assert [one.name for one in close.readings] == ["Latin", "Latin 2", "Thai", "Thai 2"]
    for one in close.readings:
        data = one.text.encode()
        levels = ModelUnits(net, reader).levels(data)
        assert one.levels == levels.tolist() == [*look.levels[one.text]]
        ids = torch.tensor([[BOS, *data]])
        with torch.no_grad():
            logits = net(ids, torch.tensor([[1, *levels]])).logits[0, :-1]
        bits = torch.nn.functional.cross_entropy(logits.double(), ids[0, 1:], reduction="none") / math.log(2)
        assert one.bits == pytest.approx(bits.tolist(), abs=2e-3)


def test_lengths_are_those_that_were_measured(runs):
    logged = points(runs / "page")
    for name, counts in known(runs / "page").close.lengths["stage2"].items():
        median = np.searchsorted(np.cumsum(counts), sum(counts) / 2)
        assert median == logged[5, f"val_stage2/length_p50_{name}"]


@pytest.mark.parametrize("options", [{}, {"qk_norm": True}], ids=["plain", "normed"])
def test_weights_drawn_are_those_attended_with(options):
    """The weights times the values, through the last matrix, are what the block's attention returns."""
    net, reader = tiny_model(tiny(3, **options)), ByteReader(["whitespace", {"name": "every", "n": 2}])
    text, found, hooks = " ".join(["Alle Menschen sind frei"] * 3).encode(), [], []
    for stage in net.stages:
        for block in stage.blocks:

            def keep(module, given, out, window=stage.config.window):
                x, norm, context, _ = given
                weights = plain_weights(module, x, norm, context, window)
                value = context.by_row(module.value(norm(x))).unflatten(-1, (-1, module.head_dim)).transpose(1, 2)
                again = module.out(context.as_given((weights @ value).transpose(1, 2).flatten(2)))
                found.append((again - out[0]).abs().max().item())

            hooks.append(block.attention.register_forward_hook(keep))
    with torch.no_grad():
        net(torch.tensor([[BOS, *text]]), state=net.initial_state(1, reader.stack))
    for hook in hooks:
        hook.remove()
    assert len(found) == sum(len(stage.blocks) for stage in net.stages)
    assert max(found) < 1e-5


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_what_is_read_is_named_and_nothing_ahead(stages):
    rules = ["whitespace", {"name": "every", "n": 2}][: stages - 1]
    net, reader = tiny_model(tiny(stages)), ByteReader(rules)
    text = "Alle Menschen sind frei, คน é̂ 人".encode()
    shown = attended(net, reader, text)
    assert len(shown) == min(stages, 2)
    for one in shown:
        weights = np.array(one.weights)
        assert weights.shape == (len(one.rows), len(one.columns))
        assert weights.sum(1) == pytest.approx(1, abs=0.02)
        read, there = ("".join(names).removeprefix("⟨BOS⟩") for names in (one.rows, one.columns))
        assert text.decode() == read == there
        if len(one.rows) == len(one.columns):
            assert not np.triu(weights, 1).any()
    assert not any(stage.blocks[-1].attention._forward_pre_hooks for stage in net.stages)


def test_units_that_are_refreshed_are_left_out():
    """What a refresh sees is not what a position sees."""
    rules = [{"name": "refresh", "of": "whitespace", "by": {"name": "fixed", "n": 2}}]
    net = tiny_model(tiny(2), stack=Stack(rules))
    (shown,) = attended(net, ByteReader(rules), b"all human beings")
    assert shown.title.endswith("stage 1")


def test_a_second_boundary_on_a_character_has_a_mark():
    assert unit_names("né̂x".encode(), np.array([1, 0, 1, 1, 0, 0, 0, 0][: len("né̂x".encode()) + 1], bool)) == [
        "⟨BOS⟩n",
        "″",
        "é̂x",
    ]


def test_units_are_tinted_as_in_other_pictures(runs, page):
    for one in known(runs / "page").close.readings:
        data = one.text.encode()
        assert as_spans(data, FixedLevels(1, {one.text: one.levels})) in page


def test_what_goes_wrong_is_a_warning(runs, tmp_path, monkeypatch):
    trainer = SimpleNamespace(is_global_zero=True, loggers=[], global_step=1)
    of = RunPage(RunFolder(tmp_path), ReportConfig())
    of._draw(trainer, "running")
    check_form((tmp_path / "report.html").read_text())
    monkeypatch.setattr(report, "page_of", lambda *_: 1 / 0)
    with pytest.warns(match=r"report\.html could not be drawn \(.*division"):
        of._draw(trainer, "running")
    monkeypatch.setattr(callback, "sentences", lambda *_: 1 / 0)
    net = torch.nn.Dropout()
    net.sharded = False
    trainer = SimpleNamespace(is_global_zero=True, loggers=[], global_step=1, datamodule=None)
    with pytest.warns(match=r"could not be looked at \(.*division"):
        of._look(trainer, SimpleNamespace(net=net, steps_trained=0))
    assert net.training
    assert not of.looks


def test_what_is_costly_is_done_more_rarely(tmp_path):
    of = RunPage(RunFolder(tmp_path), ReportConfig())
    said = []
    trainer = SimpleNamespace(strategy=SimpleNamespace(broadcast=lambda due: said.append(due) or "said"))
    alone, sharded = (SimpleNamespace(net=SimpleNamespace(sharded=value)) for value in (False, True))
    assert of._is_due(trainer, alone)
    of._looked = of.clock.now()
    of._look_took = callback.COSTLY - 1
    assert of._is_due(trainer, alone)
    of._look_took = callback.COSTLY + 1
    assert not of._is_due(trainer, alone)
    assert of._is_due(trainer, sharded) == "said"  # so that all devices look, or none
    assert said == [False]
    of._looked -= callback.AS_LONG * of._look_took
    assert of._is_due(trainer, alone)


def test_other_devices_write_nothing(tmp_path):
    of = RunPage(RunFolder(tmp_path), ReportConfig())
    other = SimpleNamespace(is_global_zero=False)
    of._draw(other, "running")
    of._look(other, SimpleNamespace(net=SimpleNamespace(sharded=False)))
    assert not any(tmp_path.iterdir())


BAD = "<q>&\"'`$x$"


def test_names_are_escaped_and_odd_numbers_do_no_harm(tmp_path):
    folder = RunFolder(tmp_path / BAD)
    folder.path.mkdir()
    folder.config.write_text(yaml.safe_dump(SETTINGS | {"run": {"tags": {BAD: BAD}}}))
    folder.data.write_text(json.dumps({"val": {"languages": [BAD], "bytes": 1, "documents": 1}}))
    folder.columns.write_text(f'language,AU-Net\n(all),nan\n"{BAD.replace(chr(34), chr(34) * 2)}",nan\n')
    metrics = [{"train/bpb": math.nan, "val/bpb": math.inf}, {"train/bpb": 2.0, "val/bpb": math.nan}, {"val/bpb": 3.0}]
    lines = [json.dumps({"step": i, "time": 1, "metrics": of}) + "\n" for i, of in enumerate(metrics)]
    folder.metrics.write_text("".join(lines))
    n = len(BAD.encode())
    write_looks(folder.looks, [Look(1, [(BAD, BAD + BAD)], {BAD: [1] * n}), Look(2, [(BAD, "")], {BAD: [1]})])
    folder.looks.write_text(folder.looks.read_text() + '{"step": 3\nnull\n')
    readings = [Reading(BAD, BAD, [1] * n, [math.inf] + [0.0] * (n - 1)), Reading("", "", [], [])]
    write_close_look(folder.close_look, CloseLook(2, 1, readings, [], {"stage2": {BAD: [0, 3], "none": [0]}}))
    html = report.page_of(folder, f"failed: {BAD}", {"x": math.nan})
    assert "<q>" not in html
    assert check_form(html)
    folder.close_look.write_text('{"step": 3')
    check_form(report.page_of(folder, "stopped", {}))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt install chromium)")
def test_nothing_is_cut_without_a_sign(runs, tmp_path):
    """Neither page is wider than its screen; what scrolls fades at its end, and nothing else does."""
    sync_api = pytest.importorskip("playwright.sync_api")
    wide, narrow = (Table(["row", *"a" * n], [["x", *["a number"] * n]]) for n in (12, 1))
    (tmp_path / "tables.html").write_text(as_html("tables", [wide, narrow]))
    fading = "all => all.map(one => [one.scrollWidth > one.clientWidth, getComputedStyle(one).maskImage != %r])"
    fading %= "linear-gradient(to left, rgba(0, 0, 0, 0), rgb(0, 0, 0) 0px)"
    letters = "all => Math.min(...all.map(one => one.getCTM().a * parseFloat(getComputedStyle(one).fontSize) || 99))"
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in (390, 1400):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.goto((runs / "page" / "report.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.locator(".matrix text[x]").evaluate_all(letters) >= 11
            page.goto((tmp_path / "tables.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            scrolls = width == 390
            assert page.locator(".scroll").evaluate_all(fading) == [[scrolls, scrolls], [False, False]]
            page.locator(".scroll").first.evaluate("one => { one.scrollLeft = one.scrollWidth }")
            page.wait_for_timeout(200)
            assert page.locator(".scroll").evaluate_all(fading) == [[scrolls, False], [False, False]]
            page.close()
        browser.close()


OVER = [(3, 2.0, 1.9), (6, 1.5, 1.6), (9, 1.6, 1.2)]  # step, BPB of held-out text, and of training text by then


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        (OVER, "held-out text takes 6.7% more than at its lowest (1.500, after 6 steps), while training text"),
        ([*OVER[:2], (9, math.nan, 1.4), (12, *OVER[2][1:])], "takes 6.7% more than at its lowest (1.500, after 6"),
        (OVER[:2], None),
        ([*OVER[:2], (9, 1.51, 1.2)], None),  # by less than 1 %
        ([*OVER[:2], (9, 1.6, 1.7)], None),  # training text is predicted worse, too
        ([*OVER[:2], (9, 1.6, math.nan)], None),
        ([], None),
    ],
)
def test_a_model_that_overfits_is_told(measured, told, tmp_path):
    folder = RunFolder(tmp_path)
    points = [(step - 1, {"val/bpb": held_out}) for step, held_out, _ in measured]
    points += [(step - 2 + i, {"train/bpb": value + (0.5, -0.5)[i]}) for step, _, value in measured for i in (0, 1)]
    lines = [json.dumps({"step": step, "time": 1, "metrics": of}) + "\n" for step, of in points]
    folder.metrics.write_text("".join(lines))
    html = report.page_of(folder, "finished", {})
    assert ("The model overfits" in html) == (told is not None)
    assert (told or "") in html
    curve = [Point(step, step, step, *values) for step, *values in measured]
    shown = as_markdown(study([cell(curve=curve), cell("b", curve=curve[:2])]))
    assert re.findall(r"Overfits, .*: (.*)\.", shown) == (["a in en (+6.7 %)"] if told else [])


@pytest.mark.parametrize("rate", [None, 2000.0])
def test_an_unknown_rate_is_explained(rate, tmp_path):
    folder = RunFolder(tmp_path)
    metrics = {"train/bpb": 2.0, "perf/training_seconds": 8.0} | ({"perf/bytes_per_second": rate} if rate else {})
    folder.metrics.write_text(json.dumps({"step": 3, "time": 1, "metrics": metrics}) + "\n")
    html = report.page_of(folder, "stopped", {"steps": 9.0}, 5)
    assert ("too few steps were logged" in html) == (rate is None)
    assert ("2 kB of text per second" in html) == (rate is not None)
    assert "2 seconds per step in the mean" in html  # of the steps that were logged


def test_thinned_and_spaced():
    line = [(float(i), 2.0 * i) for i in range(1000)]
    few = thinned(line, 10)
    assert len(few) == 10
    assert all(y == pytest.approx(2 * x) for x, y in few)
    assert thinned(line[:5], 10) == line[:5]
    assert spaced([*range(100)], 4) == [0, 33, 66, 99]
