"""The report of a study: its page, its figures, and the same numbers in every form."""

import csv
import io
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from aunet_lightning.reports import figures
from aunet_lightning.reports.study import columns
from aunet_lightning.reports.study.report import as_csv, as_html, as_markdown, heatmap_png, write_report
from aunet_lightning.study.kept import read as read_results
from aunet_lightning.study.kept import write as write_results
from aunet_lightning.study.results import CellResult, DocumentBits, Example, Point, StudyResult, StudyText, Tuned
from splitters import Stack
from tests.helpers import UDHR, Balance, cell, study

RULES = {
    "whitespace": "whitespace",
    "script_aware": "script_aware",
    "grapheme": "grapheme",
    "every 4 bytes": "fixed",
    "syllable": "syllable",
    "sentence_end": "sentence_end",
    "cjk_character": "cjk_character",
    "bpe-8k": "spacelike",
}
AXES = ("Rates", "At equal rates", "As compute grows", "Factors")
LANGUAGES = ("en", "de", "ar", "th", "zh-Hans", "ja")


def sentence(language):
    return " ".join(json.loads((UDHR / f"{language}.jsonl").open().readlines()[1])["text"].split())[:110]


def synthetic(splitters=RULES, languages=LANGUAGES, seeds=(1, 2), examples=True):
    """A study with all there is: a failed cell, one off its budget, curves, parallel bits and real sentences."""
    random, cells = np.random.default_rng(0), []
    for i, (splitter, rule) in enumerate(dict(splitters).items()):
        for j, language in enumerate(languages):
            centre = 1.1 + 0.15 * j + 0.02 * ((3 * i + 5 * j) % 7)
            text = sentence(language if (UDHR / f"{language}.jsonl").exists() else "en")
            stack = Stack([rule, {"name": "every", "n": 2}])
            for seed in seeds:
                name = f"{splitter}-{language}-{seed}"
                if (splitter, language, seed) == ("syllable", "ar", 2):
                    error = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB <GPU 0>"
                    cells.append(CellResult(name, splitter, language, 3, seed, "failed", error, f"runs/study/{name}"))
                    continue
                bpb = centre + 0.008 * random.standard_normal()
                flops = 2e15 * (1.04 if (splitter, language) == ("grapheme", "th") else 1 + 0.001 * random.random())
                per_byte = 1e7 * (1 + 0.2 * i)
                steps = np.linspace(0.02, 1, 25)
                curve = [Point(int(100 * t), t * flops / per_byte, t * flops, bpb + 0.5 * (t**-0.5 - 1)) for t in steps]
                cells.append(
                    CellResult(
                        name, splitter, language, 3, seed, "done", folder=f"runs/study/{name}", bpb=bpb,
                        bpb_by_language={language: bpb}, curve=curve, bytes_per_unit=[2.1 + 0.9 * i, 4.2 + 1.8 * i],
                        bytes_per_second=123456.0 / (i + 1), bytes_seen=flops / per_byte, flops=flops,
                        flops_per_byte=per_byte, parameters=12_345_678,
                        parallel_bits={f"udhr-{d}": 1000 * (1 + 0.1 * j) * bpb + d for d in range(30)},
                        parallel_steps={f"udhr-{d}": 100.0 * (1 + j) for d in range(30)},
                        parallel_flops={f"udhr-{d}": 1e9 * (1 + 0.3 * j) for d in range(30)},
                        examples=[Example(text, stack.levels(text.encode()).tolist())] if examples else [],
                    )
                )  # fmt: skip
    return StudyResult(
        "Splitters of six scripts", "Which splitter is best for text without blanks?", cells, list(splitters), list(languages),
        "flops", 2e15, "bytes", reference="bpe-8k" if "bpe-8k" in splitters else "",
        equal=["Text: the same documents in the same order.", "Width 256 at stage 1, 512 at stage 2."],
        command="aunet compare experiments/compare/six.yaml", commit="a28845d", hardware="1 × H100, torch 2.9",
        date="2025-11-24", grid="study: six\nsplitters:\n  whitespace: {name: whitespace}\n",
    )  # fmt: skip


def with_axes(seeds=(1, 2, 3)):
    """Two rules at four rates and three budgets with a factor: trie is best at 6 bytes and needs 0.6 of bpe's FLOPs."""
    random, cells = np.random.default_rng(0), []
    for seed in seeds:
        shift = 0.02 * random.standard_normal()
        for rule, rate, align in (
            (r, b, a) for r in ("trie", "bpe") for b in (3, 4.5, 6, 9) for a in ("last", "first")
        ):
            for budget in (5e11, 2e12, 8e12):
                cost = budget / (0.6 if rule == "trie" else 1.0) / 8e12
                bpb = 1 + cost**-0.25 + 0.3 * math.log(rate / 6) ** 2 - 0.05 * (align == "first") + shift
                name = f"{rule} {rate:g} B align {align}"
                cells.append(
                    CellResult(
                        f"{name}-{seed}-{budget:g}", name, "th", 2, seed, "done", bpb=bpb + 0.002 * random.standard_normal(),
                        bytes_per_unit=[rate * 1.02], budget=budget, rule=rule, rate=rate, levels={"align": align},
                        flops=budget,
                    )
                )  # fmt: skip
    rows = list(dict.fromkeys(one.splitter for one in cells))
    return StudyResult("axes", "", cells, rows, ["th"], "flops", 8e12, "bytes", reference="bpe")


def test_axes_say_what_was_planted(tmp_path):
    page = as_markdown(with_axes())
    tables = {title: text.split("\n#")[0] for title in AXES for text in [page.partition(f"# {title}\n")[2]]}
    best = [float(line.split("|")[3].split()[0]) for line in tables["Rates"].splitlines() if line.startswith("| trie")]
    assert best[:2] == pytest.approx([6.12, 6.12], rel=0.05)
    assert "not told apart" not in tables["At equal rates"]
    needed = [line.split("|")[5] for line in tables["As compute grows"].splitlines() if line.startswith("| trie")]
    assert len(needed) == 8
    for entry in needed:
        value, low, high = (float(number) for number in re.findall(r"([\d.]+) ×", entry))
        assert low - 0.01 < 0.6 < high + 0.01
        assert value == pytest.approx(0.6, rel=0.1)
    (effect,) = (line for line in tables["Factors"].splitlines() if line.startswith("| align"))
    assert re.search(r"first, not last \| −0.0[45]\d+ · −0.05\d+ to −0.04\d+ \| 8 ", effect), effect
    assert as_html(with_axes()).count("<svg") >= 2
    write_report(with_axes(), tmp_path)
    picture = (tmp_path / "figures" / "budgets-th.svg").read_text(encoding="utf-8")
    assert "mathdefault" not in picture  # labels of ticks between decades
    assert all(f">{budget}<" in picture for budget in ("500G", "2T", "8T"))


def test_the_first_screen_answers_in_two_sentences_and_has_a_picture_per_claim(tmp_path):
    """Planted: trie has the BPB of 0.6 times the compute, so 1 − 0.6^0.25 = 0.12 less than bpe at every rate."""
    write_report(with_axes(), tmp_path)
    answer = (tmp_path / "report.md").read_text().split("\n\n")[1]
    first, second, seeds = re.fullmatch(r"(Lowest [^.]*\.) (Against .*\.) (Means .*)", answer).groups()
    assert first == "Lowest mean BPB: trie 6 B align first in th (told apart from the second)."
    assert seeds == "Means are over 3 seeds."
    number = r"(−?[\d.]+)"
    found = re.fullmatch(
        rf"Against bpe: each at its best rate, the lowest, in BPB, is {number} \({number} to {number}\) in th; at equal rates \(3.1, 4.5, 6, 9 B\), in the mean: trie "
        rf"align \w+ {number} \({number} to {number}\) in th; compute for its BPB: trie 6 B align first {number} × "
        rf"\({number} to {number}\) in th.",
        second,
    )
    numbers = [float(text.replace("−", "-")) for text in found.groups()]
    for (value, low, high), planted, key in zip(
        np.reshape(numbers, (3, 3)), (-0.12, -0.12, 0.6), ("reference", "rates", "compute"), strict=True
    ):
        assert low <= planted <= high
        assert value == pytest.approx(planted, abs=0.01)
        rows = list(csv.DictReader((tmp_path / "figures" / f"claims-{key}.csv").open()))
        assert f"{float(list(rows[0].values())[2]):.2f}" == f"{value:.2f}"
        assert {(row["language"], row["told apart"]) for row in rows} == {("th", "True")}
    equal = [replace(one, bpb=one.bpb + (0.12 if one.rule == "trie" else 0.0)) for one in with_axes().cells]
    answer = as_markdown(replace(with_axes(), cells=equal)).split("\n\n")[1]
    assert re.search(
        r"is itself in th; at equal rates .*, in the mean: trie .*, not told apart\) in th; compute", answer
    )
    assert "not told apart) in th. Means" in answer
    alone = as_markdown(replace(with_axes(), reference="")).split("\n\n")[1]
    assert "Against" not in alone


def test_figures_are_files_too_and_the_table_is_latex(tmp_path):
    study = replace(with_axes(), name="50% & more")
    texts = [StudyText("th", "train", ["a.jsonl"], 12, 3456, ["CC-BY-4.0"])]
    write_report(replace(study, texts=texts), tmp_path)
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {f"{name}-th.{form}" for name in ("units", "rates", "budgets") for form in ("svg", "csv")} | {
        f"claims-{name}.{form}" for name in ("reference", "rates", "compute") for form in ("svg", "csv")
    }
    rows = list(csv.DictReader((tmp_path / "figures" / "rates-th.csv").open()))
    assert len(rows) == 4 * 4
    at = {(row["row"], row["bytes per unit"]): float(row["BPB"]) for row in rows}
    shown = re.search(r"trie align first \| 3.06: ([\d.]+)", (tmp_path / "report.md").read_text())[1]
    assert f"{at['trie align first', '3.06']:.3f}" == shown
    assert "| th | train | 12 | 3,456 | CC-BY-4.0 | a.jsonl |" in (tmp_path / "report.md").read_text()
    table = (tmp_path / "table.tex").read_text()
    assert table.count(r"\\") == 1 + 16
    assert re.findall(r"(.*) & \\textbf{(.*)}", table) == [("trie 6 B align first", shown_best(tmp_path))]


@pytest.mark.parametrize("study", [synthetic, with_axes], ids=["cells", "axes"])
def test_a_report_is_drawn_again_from_kept_results(study, tmp_path):
    """The same to the letter, where bits of documents are rounded as they are kept."""
    random, made = np.random.default_rng(0), study()
    n_bytes = random.integers(50, 300, 40).astype(float)

    def of_documents(cell):
        bits = np.rint(n_bytes * cell.bpb * random.uniform(0.8, 1.2, 40))
        wrong = (random.random(40) < 0.3).astype(float)
        asked = {"spelling": DocumentBits("items", wrong, np.ones(40))}
        metrics = {"eval/spelling": 1 - wrong.mean(), "val/chance_stage2": math.nan}
        of = DocumentBits("text", bits, n_bytes)
        parallel = {key: float(f"{value:.5g}") for key, value in cell.parallel_bits.items()}
        return replace(cell, document_bits=of, evaluations=asked, metrics=metrics, folder="", parallel_bits=parallel)

    made = replace(
        made, cells=[of_documents(cell) for cell in made.cells if cell.status == "done"], plan="A plan.",
        texts=[StudyText("th", "val", ["th.jsonl"], 40, 7000, ["CC0"])],
        tuned=[Tuned("trie", 2, {0.5: 2.0, 1.0: 1.9, 2.0: 2.1})],
    )  # fmt: skip
    write_results(made, tmp_path / "a" / "study.csv.xz")
    again = read_results(tmp_path / "a" / "study.csv.xz")
    assert as_html(again) == as_html(made)
    assert as_csv(again) == as_csv(made)
    write_results(again, tmp_path / "b.csv.xz")
    assert (tmp_path / "b.csv.xz").read_bytes() == (tmp_path / "a" / "study.csv.xz").read_bytes()


def shown_best(folder):
    return re.search(r"th: trie 6 B align first, ([\d.]+) BPB", (folder / "report.md").read_text().replace("*", ""))[1]


def test_without_several_seeds_axes_have_no_intervals():
    page = as_markdown(with_axes(seeds=(1,)))
    assert re.search(r"\| trie .*\| 0\.\d\d × \|", page)
    assert "to −" not in page.partition("# Factors")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def page():
    return as_html(synthetic())


@pytest.mark.parametrize("seed", range(10))
def test_labels_are_spread(seed):
    wanted = np.random.default_rng(seed).uniform(0, 2, size=12)
    places = np.array(figures.spread(wanted, 2.0, 0.15))
    assert (np.argsort(places) == np.argsort(wanted)).all()
    assert np.diff(np.sort(places)).min() >= 0.15 - 1e-9
    assert places.min() >= 0
    assert places.max() <= 2 + 1e-9
    assert figures.spread([0.2, 1.0, 1.8], 2.0, 0.15) == pytest.approx([0.2, 1.0, 1.8])


def test_numbers_stand_out_from_their_colours():
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        return sum(
            w * (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4)
            for w, p in zip((0.2126, 0.7152, 0.0722), parts, strict=True)
        )

    shades = [figures.shade(d, 10.0) for d in np.linspace(0, 12, 200)]
    for colour in [*shades, figures.NO_RESULT]:
        low, high = sorted([luminance(colour), luminance(figures.ink(colour))])
        assert (high + 0.05) / (low + 0.05) >= 4.5
    light = [luminance(colour) for colour in shades]
    assert light == sorted(light, reverse=True)  # so the order survives grey print


def test_failed_and_missing_cells_are_shown():
    cells = [
        cell("a", seed=1), cell("a", seed=2, bpb=None, status="failed", error="CUDA <out> of memory"),
        cell("b", bpb=None, status="waiting"), cell("c", bpb=math.inf), cell("a", "th"),
    ]  # fmt: skip
    some = study(cells)
    some = replace(some, splitters=["a", "b", "c", "idle"])
    html = as_html(some)
    for text in (
        "1 of 2 failed",
        ">waiting<",
        ">no BPB<",
        ">not run<",
        "CUDA &lt;out&gt; of memory",
        "3 of 5 cells have no result",
    ):
        assert text in html
    assert html.count(">not run<") >= 3  # b and c in th, idle in both
    assert "CUDA &lt;out&gt; of memory" in as_markdown(some)
    assert "CUDA <out> of memory" in as_csv(some)
    assert heatmap_png(some).startswith(b"\x89PNG")


def test_pages_are_well_formed_and_stand_alone(page):
    read = Balance(page)
    assert read.open == []
    assert read.wrong == []
    assert all(link.startswith("#") for link in read.links)
    assert len(read.ids) == len(set(read.ids))
    assert {link[1:] for link in read.links} <= set(read.ids)
    assert "<script" not in page
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert '<meta charset="utf-8">' in page
    assert 'dir="auto" lang="ar"' in page
    assert page.count("<svg ") == 1 + 2 * len(LANGUAGES)


def test_balance_finds_what_is_wrong():
    assert Balance("<p><b></p>").wrong
    assert Balance("<p>").open == ["p"]


def test_sentences_keep_their_text(page):
    text = "".join(Balance(page).text)
    for language in LANGUAGES:
        assert text.count(sentence(language)) == len(RULES)
    marked = as_markdown(synthetic()).replace("\\", "")
    assert Stack(["whitespace"]).levels(sentence("en").encode()).any()
    assert re.sub("[│║]", "", marked).count(sentence("th")) == len(RULES)


def test_levels_that_do_not_fit_are_said():
    assert "1 levels do not fit a text of 2 bytes" in as_html(study([cell(examples=[Example("ab", [0])])]))


def test_markdown_and_csv_hold_the_same_numbers():
    some = synthetic(examples=False)
    rows = list(csv.DictReader(io.StringIO(as_csv(some))))
    assert len(rows) == len(some.cells)
    assert [float(row["bpb"]) if row["bpb"] else None for row in rows] == [one.bpb for one in some.cells]
    heat = as_markdown(some).split("## BPB by")[1].split("## Differences")[0]
    html = as_html(some)
    table = {
        line.split(" | ")[0][2:]: line.strip("| ").split(" | ")[1:]
        for line in heat.splitlines()
        if line.startswith("| ")
    }
    for splitter in RULES:
        for j, language in enumerate(LANGUAGES):
            values = [
                float(r["bpb"]) for r in rows if (r["splitter"], r["language"]) == (splitter, language) and r["bpb"]
            ]
            mean = f"{sum(values) / len(values):.3f}"
            assert table[splitter][j].startswith((mean, f"**{mean}**"))
            assert f">{mean}<" in html
    assert float(rows[0]["off_budget_percent"]) == pytest.approx(100 * (float(rows[0]["flops"]) / 2e15 - 1))


def test_the_share_of_embeddings_is_told_where_it_is_known():
    some = study([cell(seed=1, parameters=400, embedding_parameters=100), cell("b", parameters=400)])
    html, (one, other) = as_html(some), csv.DictReader(io.StringIO(as_csv(some)))
    assert "<td>25 %</td>" in html
    assert (one["embedding_parameters"], one["embedding_percent"]) == ("100", "25.0")
    assert other["embedding_percent"] == ""
    assert "of BPE, which has no units, bytes per token" in html


def test_a_new_column_is_one_entry_and_appears_in_every_form():
    class Share(columns.Column):
        name, title = "share", "share of text"

        def value(self, cell, study):
            return None if cell.bytes_seen is None else cell.bytes_seen / 100

        def shown(self, values):
            return f"{max(values, default=0):.1%}"

        def note(self, study):
            return "Share of text: of the best seed."

    some = study(
        [cell(seed=i, bytes_seen=10.0 * i, metrics={"perf/x": 3.0}) for i in (1, 2)]
        + [cell("b", bpb=None, status="failed")]
    )
    before = as_html(some), as_markdown(some), as_csv(some)
    columns.COLUMNS += [Share(), columns.Measured("perf/x", "x of runs")]
    try:
        html, markdown, table = as_html(some), as_markdown(some), as_csv(some)
    finally:
        del columns.COLUMNS[-2:]
    assert (as_html(some), as_markdown(some), as_csv(some)) == before
    assert '<th scope="col">share of text</th><th scope="col">x of runs</th>' in html
    assert "<td>20.0%</td><td>3.00</td>" in html
    assert "| share of text | x of runs |" in markdown
    assert "| 20.0% | 3.00 |" in markdown
    assert all("Share of text: of the best seed." in text for text in (html, markdown))
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [(row["share"], row["perf/x"]) for row in rows] == [("0.1", "3.0"), ("0.2", "3.0"), ("", "")]


def test_boundaries_have_a_table_where_runs_measured_them():
    metrics = {"val/start_surprisal_stage2": 0.25, "val/word_kappa_stage2": 0.5, "generated/valid_utf8": 0.875}
    some = study([cell(seed=1, metrics=metrics), cell("bpe", metrics={"val/length_cv_token": 0.75}), cell("c")])
    markdown = as_markdown(some)
    header, _, *rows = (line for line in markdown.split("## Boundaries")[1].splitlines() if line.startswith("|"))
    assert header == "| splitter | bits at starts | words (κ) | spread | valid UTF-8 |"
    assert [row.strip("| ").split(" | ")[1:] for row in rows[1:4]] == [
        ["+0.25", "0.50", "–", "87.5%"], ["–", "–", "0.75", "–"], ["–"] * 4,
    ]  # fmt: skip
    assert "Words: Cohen's kappa" in markdown
    assert "One word:" not in markdown  # no run knows it
    first = next(csv.DictReader(io.StringIO(as_csv(some))))
    assert (first["word_kappa"], first["valid_utf8"], first["one_word"]) == ("0.5", "0.875", "")
    assert "Boundaries" not in as_html(study([cell()]))


def test_names_are_escaped():
    bad = "<q>&\"'|`*$x$"  # a tag that the page has no use for
    odd = replace(
        study([cell(bad, bad, error=bad, examples=[Example("<i>&", [0, 1, 0, 0])]), cell("b", bad, bpb=None, status="failed", error=bad)]),
        name=bad, description=bad, equal=[bad], command=bad, grid="</pre>```" + bad, reference=bad,
    )  # fmt: skip
    html, markdown = as_html(odd), as_markdown(odd)
    assert Balance(html).wrong == []
    assert "<q>" not in html
    assert "<i>" not in html
    outside = markdown.split("````")[0]
    assert "<q>" not in outside
    assert all(
        line.count("|") - line.count("\\|") == markdown.splitlines()[i + 1].count("|")
        for i, line in enumerate(markdown.splitlines())
        if line.startswith("| splitter")
    )
    assert heatmap_png(odd).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "some",
    [
        study([]),
        study([cell(bpb=None, status="waiting")]),
        study([cell("a"), cell("a"), cell("b", bpb=math.nan)], reference="not there", budget=0.0),
        study([cell(bpb=0.0), cell("b", bpb=1.0)]),
        study([cell(curve=[Point(1, 1.0, 1e12, math.nan), Point(2, 2.0, 2e12, 3.0)], bytes_per_unit=[math.nan], flops=math.nan)]),
        study([cell(language="en+th", bpb_by_language={"en": 1.0, "th": 1.5})]),
        replace(with_axes(), cells=[replace(one, status="waiting", bpb=None) for one in with_axes().cells]),
        replace(with_axes(), cells=with_axes().cells[:5]),
        study([*(cell(name, bpb=1.5, seed=seed) for name in "ab" for seed in (1, 2)), cell(language="th", bpb=None, status="waiting")]),
    ],
    ids=["empty", "waiting", "repeated", "zero", "nan", "mix", "axes waiting", "axes begun", "half"],
)  # fmt: skip
def test_odd_studies_have_a_report(some, tmp_path):
    write_report(some, tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "figures",
        "heatmap.png",
        "report.html",
        "report.md",
        "table.csv",
        "table.tex",
    ]
    read = Balance((tmp_path / "new" / "report.html").read_text(encoding="utf-8"))
    assert read.wrong == read.open == []


def test_what_was_repeated_and_mixed_is_said():
    assert "1 cells repeat" not in as_markdown(study([cell("a", seed=1), cell("a", seed=2)]))
    assert "repeat the splitter" in as_markdown(study([cell("a"), cell("a")]))
    assert "| a | 1.000 · n=1 | 1.500 · n=1 |" in as_markdown(
        study([cell(language="mix", bpb_by_language={"en": 1.0, "th": 1.5})])
    )


@pytest.mark.slow
def test_a_large_study():
    large = synthetic(
        {f"splitter-{i}": "whitespace" for i in range(30)}, [f"l{chr(97 + i)}" for i in range(8)], (1,), examples=False
    )
    read = Balance(as_html(large))
    assert read.wrong == []
    assert heatmap_png(large).startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("chromium") or shutil.which("google-chrome")), reason="no chromium on PATH")
@pytest.mark.parametrize("wide", [False, True])
def test_the_page_does_not_scroll_sideways_on_a_phone(page, tmp_path, wide):
    """A window may not be as narrow as a phone, but a frame may: its document tells how wide it would like to be."""
    body = page.replace("</body>", f"<p style='width:500px'>{'x' * 9}</p></body>") if wide else page
    (tmp_path / "report.html").write_text(body, encoding="utf-8")
    script = "const d = document.querySelector('iframe').contentDocument.documentElement; document.title = d.scrollWidth + ' of ' + d.clientWidth"
    (tmp_path / "phone.html").write_text(
        f'<!doctype html><title>-</title><body style="margin:0" onload="{script}">'
        '<iframe src="report.html" style="border:0;width:390px;height:844px"></iframe>'
    )
    command = [shutil.which("chromium") or shutil.which("google-chrome"), "--headless", "--no-sandbox", "--disable-gpu",
               "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]  # fmt: skip
    done = subprocess.run([*command, (tmp_path / "phone.html").as_uri()], capture_output=True, text=True, timeout=120)
    found = re.search(r"<title>(\d+) of (\d+)</title>", done.stdout)
    assert found, done.stderr[-500:]
    assert (int(found[1]) > int(found[2])) is wide  # the second case proves that the first can fail
