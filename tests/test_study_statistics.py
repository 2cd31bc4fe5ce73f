"""The statistics of a study, and what its report says and does not say."""

import math
import re
from dataclasses import replace
from html import unescape

import pytest

from aunet_lightning.reports.study import sentences
from aunet_lightning.reports.study.report import as_html, as_markdown
from aunet_lightning.reports.study.statistics import (
    Arm,
    Comparison,
    mean_curve,
    off_budget,
    parallel,
)
from aunet_lightning.study.results import Point
from tests.helpers import cell, study


def results(**rows):
    """Cells of a seed for each of a row's values."""
    return [cell(name, seed=i, bpb=bpb) for name, values in rows.items() for i, bpb in enumerate(values)]


def test_marks_what_is_not_told_apart():
    cells = results(a=(1.0, 1.02), b=(1.03, 1.008), c=(1.5, 1.51))
    found = as_markdown(study(cells)).split("## BPB by")[1].split("## Differences")[0]
    rows = dict(re.findall(r"^\| (\w) \| ([^|]*·[^|]*) \|$", found, re.MULTILINE))
    assert rows == {
        "a": "**1.010** · ±0.010 n=2 · best",
        "b": "1.019 · ±0.011 n=2 · +0.89 % ≈",
        "c": "1.505 · ±0.005 n=2 · +49.0 %",
    }
    text = sentences.in_language(Comparison(study(cells)), "en")
    assert re.search(r"b, is 0.89 % above it \(\+0.0090 BPB, −0.\d{4} to \+0.\d{4}\): not told apart\.", text)
    assert "Also not" not in text
    assert sentences.headline(Comparison(study(cells))) == "Lowest mean BPB: a in en (not told apart from the second)."
    wide = Comparison(study([*cells, *results(d=(1.01, 1.031))]))
    assert "Also not told apart from it: d." in sentences.in_language(wide, "en")


def test_a_difference_told_apart_is_said_with_the_reference():
    comparison = Comparison(study(results(a=(1.0, 1.001), bpe=(1.25, 1.2512), c=(1.1, 1.101)), reference="bpe"))
    assert sentences.headline(comparison) == "Lowest mean BPB: a in en (told apart from the second)."
    text = sentences.in_language(comparison, "en")
    assert re.search(r"c, is 10.0 % above it \(\+0.1000 BPB, \+0.\d{4} to \+0.\d{4}\): told apart\.", text)
    assert re.search(r"Against bpe: −20.0 % \(−0.2501 BPB, −0.\d{4} to −0.\d{4}\): told apart\.", text)


def test_one_seed_claims_nothing():
    one = study([cell("a", bpb=1.0), cell("b", bpb=2.0), cell("bpe", bpb=3.0)], reference="bpe")
    for text in (as_html(one), as_markdown(one)):
        assert "With one seed per cell the spread is unknown" in text
        assert not re.search(r"\d %( ref)? ≈", text)
        assert not re.search(r"(?<!no two )told apart", unescape(text).split("Each cell:")[0])
        assert "en: nothing is judged" in text
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


def test_mean_curves_are_at_equal_shares_of_what_was_spent():
    a = [Point(1, 0, 10.0, 3.0), Point(2, 0, 20.0, 2.0), Point(3, 0, 30.0, math.nan)]
    b = [Point(2, 0, 20.0, 4.0), Point(3, 0, 30.0, 3.5), Point(4, 0, 40.0, 1.0)]
    assert mean_curve([a, b]) == [(15.0, 3.5), (30.0, 1.5)]
    assert mean_curve([b, b]) == [(point.flops, pytest.approx(point.bpb)) for point in b]
    assert mean_curve([]) == mean_curve([a, []]) == []


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
