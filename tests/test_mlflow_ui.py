"""A study as a user sees it: the real MLflow server on its store, in a real browser."""

import contextlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from aunet_lightning.study.mlflow_study import begin, finish
from aunet_lightning.tracking.mlflow_logger import MLflowRunLogger
from aunet_lightning.tracking.run_folder import RunFolder
from tests.helpers import place_store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
STUDY = "seen"
SPLITTERS, LANGUAGES, SEEDS = ("whitespace", "router", "bpe"), ("th", "en"), (1, 2)
CELLS = {f"{lang}-{rule}-seed{seed}" for rule, lang, seed in itertools.product(SPLITTERS, LANGUAGES, SEEDS)}
assert len(CELLS) > 10  # as many as MLflow draws unasked
PATIENCE = 60_000  # ms, on a busy machine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (apt install chromium)"),
]


def make_study(folder: str) -> str:
    """Logs the cells of a study as runs do; returns the link that `aunet compare` prints."""
    root, uri = Path(folder), f"sqlite:///{folder}/mlflow.db"
    where = begin(uri, STUDY, "flops 1e+12")
    for name in sorted(CELLS):
        language, splitter, seed = name.replace("seed", "").split("-")
        tags = {"study": STUDY, "splitter": splitter, "language": language, "stages": "2", "match": "flops 1e+12"}
        run = RunFolder(root / "cells" / name)
        run.checkpoints.mkdir(parents=True)
        logger = MLflowRunLogger(
            run, STUDY, name, uri, {"splitter": splitter, "lr": 0.1}, tags | {"seed": seed}, f"about {name}"
        )
        logger.start()
        for step in range(1, 6):
            bpb = 2 + len(splitter) / 10 + int(seed) / 100 + 3 / step
            found = {"val/bpb": bpb, "val/bpb_th": bpb, "val/bpb_en": bpb + 1, "train/lr": 0.1, "cost/parameters": 7.0}
            found |= {
                "val/bytes_per_unit_stage2": 5.0,
                "val_stage2/bytes_per_unit_th": 6.0,
                "perf/bytes_per_second": 3.0,
            }
            logger.log_metrics(found | {"bytes_seen": step * 1e6, "flops": step * 2e11 + int(seed) * 1e9}, step)
        logger.finalize("success")
    for name in ("report.md", "table.csv", "table.tex", "heatmap.png", "grid.yaml"):
        (root / name).write_text(name)
    (root / "report.html").write_text("<!doctype html><title>x</title><h1>The report of a study</h1>")
    finish(uri, STUDY, folder, True)
    return where


@pytest.fixture(scope="module")
def link(tmp_path_factory, store_template):
    """The printed link, on a server that `make ui` would start."""
    folder = tmp_path_factory.mktemp("study")
    place_store(store_template, folder / "mlflow.db")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # what MLflow opens stays there
        printed = pool.submit(make_study, str(folder)).result()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"],
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                break
            time.sleep(0.1)
        yield printed.partition("open ")[2].replace(":5000", f":{port}")
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = opened.new_context(viewport={"width": 1700, "height": 1000})  # whose pages share what is loaded
        context.set_default_timeout(PATIENCE)
        yield context
        opened.close()


@pytest.fixture
def page(browser):
    opened = browser.new_page()
    yield opened
    for one in browser.pages:
        one.close()


def of_training(page):
    """The sidebar is that of model training, and not that of GenAI, which MLflow shows unasked."""
    page.get_by_role("link", name="Model registry").first.wait_for()


def matching(page, n):
    page.get_by_text(re.compile(rf"^{n} matching runs?$")).wait_for()


def listed(page):
    """Names of cells in the list of runs."""
    return names_in("\n".join(page.get_by_role("row").all_inner_texts()))


def names_in(text):
    return set(re.findall(rf"(?:{'|'.join(LANGUAGES)})-(?:{'|'.join(SPLITTERS)})-seed\d", text))


def card_of(page, metric):
    return page.get_by_test_id("experiment-view-compare-runs-card").filter(has_text=metric).first


def drawn(card, points=5):
    """How many lines have as many points as were logged."""
    return card.locator(".scatterlayer .trace").evaluate_all(
        f"lines => lines.filter(line => line.querySelectorAll('.point').length == {points}).length"
    )


def eventually(page, seen, expected):
    for _ in range(PATIENCE // 100):
        if seen() == expected:
            break
        page.wait_for_timeout(100)
    assert seen() == expected


def groups(page):
    rows = "\n".join(page.get_by_role("row").all_inner_texts())
    return set(re.findall(r"Group: (.+)\s*\n\s*(\d+)", rows))


@pytest.mark.parametrize("metric", ["best/val_bpb", "val/bpb"])
def test_all_runs_are_in_charts_without_a_click(link, page, metric):
    page.goto(link)
    matching(page, len(CELLS))  # the summary is not among them
    card = card_of(page, metric)
    card.scroll_into_view_if_needed()
    eventually(page, lambda: drawn(card), len(CELLS))
    assert names_in(card.inner_text()) == listed(page) == CELLS
    assert card.locator(".xtitle").text_content() == "flops"
    assert page.get_by_text("No charts").count() <= 1  # of system metrics


def test_charts_and_columns_are_where_one_looks(link, page):
    page.goto(link)
    matching(page, len(CELLS))
    of_training(page)
    sections = page.get_by_text(re.compile(r"^\w+ ?\(\d+\)$"))
    sections.first.wait_for()
    found = [re.match(r"\w+", text)[0] for text in sections.all_inner_texts()]
    assert found[:4] == ["val", "best", "train", "units"]
    assert not {"cost", "bytes_seen", "flops"} & {*found}
    together = card_of(page, "val/bpb by language")
    together.scroll_into_view_if_needed()
    eventually(page, lambda: {f"val/bpb_{one}" in together.inner_text() for one in ("th", "en")}, {True})
    assert page.get_by_text("val_stage2/bytes_per_unit_th").count() == 0  # its section is folded
    page.goto(link.replace("CHART", "TABLE"))
    for title in ("best/val_bpb", "val/bpb", "flops"):
        page.get_by_role("columnheader", name=title, exact=True).first.wait_for(state="attached")
    table = page.locator(".ag-body-horizontal-scroll-viewport")  # columns that are not in sight are not drawn
    table.first.evaluate("one => { one.scrollLeft = one.scrollWidth }")
    for title in ("splitter", "language", "stages"):
        page.get_by_role("columnheader", name=title, exact=True).first.wait_for(state="attached")


def test_a_run_says_what_it_is(link, page):
    page.goto(link)
    matching(page, len(CELLS))
    colours = {}
    for row in page.get_by_role("row").filter(has_text="seed").all():
        shown = row.locator("[data-testid='experiment-view-table-run-color'], label, span").evaluate_all(
            "all => all.map(one => getComputedStyle(one).backgroundColor).filter(c => c.startsWith('rgb('))"
        )
        for splitter in SPLITTERS:
            if f"-{splitter}-" in row.inner_text():
                colours.setdefault(splitter, set()).update(shown[:1])
    assert len(colours) == len(SPLITTERS)
    assert all(len(of) == 1 for of in colours.values()), colours
    page.get_by_role("link", name="th-bpe-seed1").first.click()
    page.get_by_text("about th-bpe-seed1").first.wait_for()
    page.get_by_text(re.compile(r"bits per byte")).first.wait_for()


@pytest.mark.parametrize(("tag", "value"), [("splitter", "router"), ("language", "th")])
def test_runs_are_filtered_by_what_they_are(link, page, tag, value):
    page.goto(link)
    matching(page, len(CELLS))
    page.get_by_test_id("search-box").fill(f'tags.{tag} = "{value}"')
    page.get_by_test_id("search-box").press("Enter")
    expected = {name for name in CELLS if value in name.split("-")}
    assert 0 < len(expected) < len(CELLS)
    matching(page, len(expected))
    card = card_of(page, "best/val_bpb")
    eventually(page, lambda: names_in(card.inner_text()), expected)
    eventually(page, lambda: drawn(card), len(expected))
    assert listed(page) == expected


@pytest.mark.parametrize(("tag", "values"), [("splitter", SPLITTERS), ("language", LANGUAGES)])
def test_runs_are_grouped_by_what_they_are(link, page, tag, values):
    page.goto(link)
    matching(page, len(CELLS))
    page.get_by_role("button", name="Group by").click()
    page.get_by_role("menuitemcheckbox", name=tag, exact=True).first.click()  # tags stand before parameters
    page.keyboard.press("Escape")
    eventually(page, lambda: groups(page), {(value, str(len(CELLS) // len(values))) for value in values})


def test_means_over_seeds_are_a_link_away(link, page):
    page.goto(link)
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="means over seeds").click()
    means = opened.value
    means.set_default_timeout(PATIENCE)
    matching(means, len(CELLS))
    same = {f"splitter: {rule}, language: {lang}, stages: 2" for rule in SPLITTERS for lang in LANGUAGES}
    eventually(means, lambda: groups(means), {(group, str(len(SEEDS))) for group in same})
    card = card_of(means, "best/val_bpb")
    eventually(means, lambda: drawn(card), len(same))
    assert all(group in card.inner_text() for group in same)


def test_runs_are_compared(link, page):
    page.goto(link)
    matching(page, len(CELLS))
    for name in ("th-bpe-seed1", "th-router-seed1", "th-whitespace-seed2"):
        row = page.get_by_role("row").filter(has_text=name).first
        row.get_by_role("checkbox", name="toggle row selection").click()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text("Comparing 3 Runs").wait_for()
    page.locator(".js-plotly-plot svg .trace, .js-plotly-plot svg .parcoords").first.wait_for(state="attached")


def test_the_report_is_a_link_away(link, page):
    page.goto(link)
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="report", exact=True).click()
    opened.value.set_default_timeout(PATIENCE)
    opened.value.frame_locator("iframe").get_by_role("heading", name="The report of a study").wait_for()
    of_training(opened.value)


def test_the_report_is_in_the_summary(link, page):
    page.goto(link)
    matching(page, len(CELLS))
    page.get_by_test_id("search-box").fill("")
    page.get_by_test_id("search-box").press("Enter")
    matching(page, len(CELLS) + 1)
    page.get_by_role("link", name="summary", exact=True).first.click()
    page.get_by_role("tab", name="Artifacts").or_(page.get_by_text("Artifacts", exact=True)).first.click()
    page.get_by_text("report.html").first.click()
    page.frame_locator("iframe").get_by_role("heading", name="The report of a study").wait_for()


def test_bytes_can_be_the_axis(link, page):
    page.goto(link)
    matching(page, len(CELLS))
    card = card_of(page, "best/val_bpb")
    card.get_by_test_id("experiment-view-compare-runs-card-menu").click()
    page.get_by_text("Configure").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("radio", name="Metric").or_(dialog.get_by_text("Metric", exact=True)).first.click()
    dialog.get_by_role("combobox").first.click(force=True)
    page.locator(".du-bois-light-select-item-option").filter(has_text=re.compile("^bytes_seen$")).click()
    dialog.get_by_role("button", name="Save changes").click()
    card.locator(".xtitle").filter(has_text="bytes_seen").wait_for(state="attached")
    eventually(page, lambda: drawn(card), len(CELLS))
