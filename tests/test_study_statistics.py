"""The statistics of a study, and what its report says and does not say."""

import math
import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest

from aunet_lightning.reports.study import sentences
from aunet_lightning.reports.study.report import as_html, as_markdown
from aunet_lightning.reports.study.statistics import (
    FALSE_ALARMS,
    Arm,
    Comparison,
    Group,
    mean_curve,
    off_budget,
    parallel,
    separated,
)
from aunet_lightning.study.results import Point
from tests.helpers import cell, study


def group(*values):
    return Group(Arm("a", 2), "en", [cell(seed=i, bpb=value) for i, value in enumerate(values)])


@pytest.mark.parametrize("seed", range(20))
def test_spread_is_that_of_the_plain_form(seed):
    random = np.random.default_rng(seed)
    a, b = random.normal(1, 0.01, size=3).tolist(), random.normal(1.01, 0.01, size=2).tolist()
    limit = ((max(a) - min(a)) + (max(b) - min(b))) / 2
    assert separated(group(*a), group(*b)) == (abs(sum(a) / 3 - sum(b) / 2) > limit)
    assert group(*a).mean == pytest.approx(sum(a) / 3)
    assert separated(group(*a), group(b[0])) is None


def test_within_the_spread_includes_its_edge():
    assert separated(group(1.0, 1.5), group(1.5, 2.0)) is False  # 0.5 apart, with ranges of 0.5 each
    assert separated(group(1.0, 1.5), group(1.75, 2.0)) is True
    assert separated(group(1.0, 1.0), group(1.0, 1.0)) is False


@pytest.mark.parametrize("seeds", sorted(FALSE_ALARMS))
def test_how_often_the_rule_errs(seeds):
    a, b = np.random.default_rng(seeds).standard_normal((2, 400_000, seeds))
    errs = np.abs(a.mean(1) - b.mean(1)) > (np.ptp(a, 1) + np.ptp(b, 1)) / 2
    assert errs.mean() == pytest.approx(FALSE_ALARMS[seeds], abs=0.003)


def test_marks_within_the_spread():
    cells = [
        cell(s, seed=i, bpb=b)
        for s, two in {"a": (1.0, 1.02), "b": (1.01, 1.03), "c": (1.5, 1.51)}.items()
        for i, b in enumerate(two)
    ]
    rows = {line.split(" | ")[0][2:]: line for line in as_markdown(study(cells)).splitlines() if line.startswith("| ")}
    found = as_markdown(study(cells)).split("## BPB by")[1].split("## Parallel")[0]
    rows = dict(re.findall(r"^\| (\w) \| (.*) \|$", found, re.MULTILINE))
    assert rows == {
        "a": "**1.010** · ±0.010 n=2 · best",
        "b": "1.020 · ±0.010 n=2 · +0.99 % ≈",
        "c": "1.505 · ±0.005 n=2 · +49.0 %",
    }
    text = sentences.in_language(Comparison(study(cells)), "en")
    assert "b, is 0.99 % above it: within the seeds' spread." in text
    assert "Also within" not in text
    assert (
        sentences.headline(Comparison(study(cells)))
        == "Lowest mean BPB: a in en (within the seeds' spread of the second)."
    )


def test_a_difference_beyond_the_spread_is_said_with_the_reference():
    cells = [cell(s, seed=i, bpb=b + 0.001 * i) for s, b in {"a": 1.0, "bpe": 1.25, "c": 1.1}.items() for i in (0, 1)]
    comparison = Comparison(study(cells, reference="bpe"))
    assert sentences.headline(comparison) == "Lowest mean BPB: a in en (by more than the seeds' spread)."
    text = sentences.in_language(comparison, "en")
    assert "c, is 10.0 % above it: more than the seeds' spread." in text
    assert "Against bpe: −20.0 %, more than the seeds' spread." in text
    assert "in 33 % of pairs" in " ".join(sentences.rule(comparison))


def test_one_seed_claims_nothing():
    one = study([cell("a", bpb=1.0), cell("b", bpb=2.0), cell("bpe", bpb=3.0)], reference="bpe")
    for text in (as_html(one), as_markdown(one)):
        assert "With one seed per cell the spread is unknown" in text
        assert not re.search(r"\d %( ref)? ≈", text)
        assert not re.search(r"(within|more than) the seeds['’]", unescape(text).split("Each cell:")[0])
        assert "n=1" in text


def test_the_best_may_be_the_reference_or_alone_or_none():
    alone = Comparison(study([cell("bpe"), cell("b", bpb=None, status="failed")], reference="bpe"))
    assert sentences.in_language(alone, "en") == "bpe, 1.000 BPB. It is the only one with a result. No result: b."
    assert "nothing to compare" in sentences.headline(alone)
    two = Comparison(study([cell("bpe"), cell("b", bpb=2.0)], reference="bpe"))
    assert "It is the reference itself." in sentences.in_language(two, "en")
    lost = Comparison(study([cell("b"), cell("c"), cell("bpe", bpb=math.nan)], reference="bpe"))
    assert "There is no result of bpe to compare it with. No result: bpe." in sentences.in_language(lost, "en")
    assert "no splitter has a result" in sentences.in_language(
        Comparison(study([cell(bpb=None, status="waiting")])), "en"
    )


def test_the_reference_has_as_many_stages_or_is_the_only_one():
    cells = [cell("a", stages=2), cell("a", stages=3, bpb=1.1), cell("bpe", stages=1, bpb=2.0)]
    comparison = Comparison(study(cells, reference="bpe"))
    assert [comparison.label(arm) for arm in comparison.arms] == ["a · 2 stages", "a · 3 stages", "bpe"]
    assert all(comparison.reference(g).arm == Arm("bpe", 1) for g in comparison.groups.values())
    several = Comparison(study([*cells, cell("bpe", stages=3, bpb=3.0)], reference="bpe"))
    assert several.reference(several.groups[Arm("a", 3), "en"]).mean == 3.0
    assert several.reference(several.groups[Arm("a", 2), "en"]) is None


def test_off_budget():
    matched = study([], budget=100.0)
    assert off_budget(cell(flops=103.0), matched) == pytest.approx(3)
    assert off_budget(cell(bytes_seen=50.0), replace(matched, match_by="bytes")) == pytest.approx(-50)
    assert off_budget(
        cell(bytes_seen=900.0, bytes_per_second=10.0), replace(matched, match_by="seconds")
    ) == pytest.approx(-10)
    assert off_budget(cell(), matched) is None
    far = study([cell(flops=103.0), cell("b", flops=101.0)], budget=100.0)
    assert "**Warning:** More than 2 % off the budget: a in en (+3.0 %)." in as_markdown(far)


def test_parallel_bits_are_of_common_documents():
    cells = [
        cell("a", "en", 1, parallel_bits={"x": 10.0, "y": 20.0, "only": 99.0}),
        cell("a", "th", 1, parallel_bits={"y": 30.0, "x": 15.0, "other": 7.0}),
        cell("a", "en", 2, parallel_bits={"x": 10.0}),
        cell("a", "th", 2, parallel_bits={"x": 25.0}),
        cell("b", "th", 1, parallel_bits={"x": 25.0}),
    ]
    (row,) = parallel(Comparison(study(cells)))
    assert row.documents == [2, 1]
    assert row.english == [30.0, 10.0]
    assert row.ratios == {"en": [1.0, 1.0], "th": [1.5, 2.5]}
    assert "2.000 · ±0.500 n=2" in as_markdown(study(cells))
    assert "None: they need" in as_markdown(study(cells[4:]))


def test_mean_curves_are_over_common_steps():
    a = [Point(1, 0, 10.0, 3.0), Point(2, 0, 20.0, 2.0), Point(3, 0, 30.0, math.nan)]
    b = [Point(2, 0, 40.0, 4.0), Point(3, 0, 60.0, 1.0)]
    assert mean_curve([a, b]) == [(30.0, 3.0)]
    assert mean_curve([]) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.00 %"), (-0.004, "0.00 %"), (0.5, "+0.50 %"), (-0.999, "−1.0 %"), (12.34, "+12.3 %"), (math.nan, "–")],
)
def test_percent(value, text):
    assert sentences.percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.2e15, "1.20 PFLOPs"), (999.96, "1.00 kFLOPs"), (12.3, "12.3 FLOPs"), (None, "–"), (math.nan, "–")],
)
def test_number(value, text):
    assert sentences.number(value, "FLOPs") == text
