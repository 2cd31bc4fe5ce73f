"""What a study tells apart: false alarms, coverage and power by simulation, and each step against a plain form."""

import math
from dataclasses import replace

import numpy as np
import pytest

from aunet_lightning.reports.study.inference import LEVEL, Runs, holm, judge, resample, student
from aunet_lightning.reports.study.report import as_markdown
from aunet_lightning.reports.study.scaling import fit_laws, interval, multiplier
from aunet_lightning.reports.study.statistics import Comparison
from aunet_lightning.reports.study.verdicts import Verdicts
from aunet_lightning.study.results import DocumentBits, Example
from tests.helpers import cell, study

SPREAD, PLANTED = 0.004, 0.02  # of a run's residual; bits per byte
STUDIES = 3000


def simulated(arms, seeds, spreads=1.0, means=0.0, documents=200, studies=STUDIES, number=0):
    """Studies of runs whose seeds move all arms alike, on documents of heavy tails in lengths and in differences."""
    random = np.random.default_rng([number, arms, seeds])
    sizes = random.lognormal(6, 1, documents).round() + 1
    residuals = SPREAD * (np.ones(arms) * spreads)[:, None] * random.standard_normal((studies, arms, seeds))
    of_seeds = residuals + 5 * SPREAD * random.standard_normal((studies, 1, seeds))
    level = 1.5 * random.lognormal(0, 0.3, (studies, 1, documents)) + np.reshape(means * np.ones(arms), (arms, 1))
    bits = sizes * (level + 0.02 * random.standard_t(3, (studies, arms, documents)))
    bpb = (bits.sum(-1) / sizes.sum())[..., None] + of_seeds
    return Runs(bpb, np.arange(arms), bits, sizes)


def most(rate, n):
    """What so many draws of something that happens at this rate do not exceed."""
    return rate + 3 * math.sqrt(rate * (1 - rate) / n)


SIZES = pytest.mark.parametrize(("arms", "seeds"), [(arms, seeds) for arms in (2, 8) for seeds in (2, 3, 5)])


@SIZES
@pytest.mark.parametrize("uneven", [False, True], ids=["even", "one twice as wide"])
def test_at_most_one_study_in_twenty_has_a_false_alarm(arms, seeds, uneven):
    """In any of its comparisons; of documents that are a sample, and of fixed ones (seeds alone)."""
    runs = simulated(arms, seeds, np.array([2.0] + [1.0] * (arms - 1)) if uneven else 1.0)
    assert judge(runs).apart.any(-1).mean() <= most(LEVEL, STUDIES)
    fixed = replace(runs, bpb=runs.bpb - (runs.bits.sum(-1) / runs.bytes.sum())[..., None], bits=None, bytes=None)
    alarms = judge(fixed).apart.any(-1).mean()
    assert alarms <= most(LEVEL, STUDIES)
    if arms == 2:  # the paired t-test, which is exact
        assert alarms >= LEVEL - 3 * math.sqrt(LEVEL / STUDIES)


def test_runs_that_are_nearly_alike_count_as_one():
    """Rules that differ at few places, with the same seed: as many rows of them as there are tell no more."""
    runs = simulated(5, 2)
    alike = runs.bpb[:, [0, 0, 0, 0, 4]] + 1e-6 * np.arange(5)[:, None]
    near = np.array([0, 0, 0, 0, 4])
    for near_to, least, highest in ((near, 0.0, most(LEVEL, STUDIES)), (None, 0.08, 1.0)):
        alarms = judge(Runs(alike, np.arange(5), near_to=near_to)).apart.any(-1).mean()
        assert least <= alarms <= highest
    assert Runs(alike[:, :2], np.arange(2), near_to=near[:2]).freedom == 1  # there are no others


@SIZES
def test_intervals_cover_the_difference(arms, seeds):
    """That of the means, over studies with documents and seeds of their own."""
    means = np.linspace(0, 0.1, arms)
    runs = simulated(arms, seeds, means=means)
    for last in (1, arms - 1):
        pair = np.array([last]), np.array([0])
        error = np.abs(runs.differences[..., *pair] - (means[last] - means[0]))
        assert (error <= runs.half_width(LEVEL, *pair)).mean() >= 1 - most(LEVEL, STUDIES)


def test_a_planted_difference_is_found_with_its_sign():
    means = np.array([0.0, 0.0, PLANTED, 0.1, 0.1, 0.2, 0.2, 0.3])
    runs = simulated(8, 3, means=means, documents=400, studies=500)
    verdicts = judge(runs)
    pair = np.flatnonzero((verdicts.first == 1) & (verdicts.second == 2))[0]
    found = verdicts.apart[:, pair] & (runs.differences[:, 2, 1] > 0)
    assert found.mean() >= 0.8
    equal = means[verdicts.first] == means[verdicts.second]
    assert verdicts.apart[:, equal].any(-1).mean() <= most(LEVEL, 500)  # beside true differences too


@pytest.mark.parametrize(
    ("freedom", "quantiles"),
    [(1, (12.7062, 63.6567)), (2, (4.3027, 9.9248)), (7, (2.3646, 3.4995)), (30, (2.0423, 2.7500)), (10**6, (1.959964, 2.575829))],
)  # fmt: skip
def test_student_is_that_of_the_tables(freedom, quantiles):
    assert student(np.array([0.05, 0.01]), freedom) == pytest.approx(quantiles, abs=6e-5)


@pytest.mark.parametrize("seed", range(20))
def test_holm_is_that_of_the_plain_form(seed):
    p = np.random.default_rng(seed).uniform(0, 1, 9) ** 4
    accepted, left = [False] * 9, 9
    for i in sorted(range(9), key=lambda i: p[i]):
        if p[i] > LEVEL / left:
            break
        accepted[i], left = True, left - 1
    found, tried = holm(np.minimum(np.floor(LEVEL / p), 9).astype(int), 9)
    assert found.tolist() == accepted
    assert [p[i] <= LEVEL / tried[i] for i in range(9)] == accepted  # zero is outside of an interval tried there
    assert set(tried[~found]) <= {left}


def test_variances_are_those_of_a_two_way_analysis():
    bpb = np.random.default_rng(0).normal(1, 0.1, (4, 3))
    residuals = bpb - bpb.mean(1, keepdims=True) - bpb.mean(0) + bpb.mean()
    runs = Runs(bpb, np.arange(4))
    pooled = (residuals**2).sum() / (3 * 2)
    own = (residuals**2).sum(1) * 4 / (3 * 2)
    assert runs.freedom == 6
    assert runs.variances == pytest.approx(np.maximum(pooled, own))
    assert runs.differences == pytest.approx(bpb.mean(1)[:, None] - bpb.mean(1))
    twin = Runs(np.concatenate([bpb, bpb[:1]]), np.array([0, 1, 2, 3, 0]))
    assert twin.freedom == 6  # a run under another name is no further one
    assert twin.variances[:4] == pytest.approx(runs.variances)
    pairs = zip(judge(twin).first.tolist(), judge(twin).second.tolist(), strict=True)
    assert (0, 4) not in pairs


def test_differences_are_over_common_seeds():
    bpb = np.array([[1.0, 1.2, np.nan], [1.1, 1.4, 1.9], [np.nan, np.nan, 2.0]])
    runs = Runs(bpb, np.arange(3))
    assert runs.differences[0, 1] == pytest.approx(-0.15)
    assert np.isnan(runs.differences[0, 2])
    assert list(zip(judge(runs).first, judge(runs).second, strict=True)) == [(0, 1)]
    assert runs.freedom == 1
    assert judge(Runs(bpb[:, :1], np.arange(3))).apart.shape == (0,)  # one seed: nothing is judged
    with pytest.raises(ValueError, match="two common seeds"):
        resample(Runs(bpb[:, :1], np.arange(3)), 2, np.random.default_rng(0))


def test_the_variance_over_documents_is_that_of_resampling():
    runs = simulated(3, 2, means=[0.0, 0.2, 0.4], documents=300, studies=1)
    bits, sizes, random = runs.bits[0], runs.bytes, np.random.default_rng(1)
    drawn = random.integers(300, size=(4000, 300))
    means = bits[:, drawn].sum(-1) / sizes[drawn].sum(-1)
    for i, j in ((0, 1), (2, 1)):
        assert runs.by_documents[0, i, j] == pytest.approx((means[i] - means[j]).var(), rel=0.15)


@pytest.mark.parametrize(("seeds", "documents", "near"), [(2, False, 0.05), (5, False, 0.05), (3, True, 0.1)])
def test_draws_agree_with_intervals(seeds, documents, near):
    of_many = simulated(6, seeds, studies=1, number=4)
    runs = Runs(of_many.bpb[0], of_many.same_as, *((of_many.bits[0], of_many.bytes) if documents else ()))
    draws = resample(runs, 4000, np.random.default_rng(0))
    assert (draws == resample(runs, 4000, np.random.default_rng(0))).all()
    for i, j in ((0, 1), (4, 2)):
        low, high = np.quantile(draws[:, i] - draws[:, j], [LEVEL / 2, 1 - LEVEL / 2])
        half = runs.half_width(LEVEL, np.array([i]), np.array([j]))[0]
        assert (high - low) / 2 == pytest.approx(half, rel=near)
        assert (high + low) / 2 == pytest.approx(runs.differences[i, j], abs=near * half)


@pytest.mark.parametrize("kinship", [0.0, 0.9])
def test_ratios_of_compute_are_covered_and_no_wider_than_they_need_be(kinship):
    """Four rules that need the same compute, at three budgets that branch from one run or, without kinship, do not."""
    budgets, rules, seeds, studies = np.array([1.0, 2.0, 4.0]), 4, 3, 250
    random, families = np.random.default_rng(0), np.repeat(np.arange(rules), 3)
    law, covered = 1 + (budgets / 4) ** -0.3, []
    for _ in range(studies):
        of_run, alone = random.standard_normal((rules, 1, seeds)), random.standard_normal((rules, 3, seeds))
        residuals = SPREAD * (math.sqrt(kinship) * of_run + math.sqrt(1 - kinship) * alone)
        bpb = (law[:, None] + 5 * SPREAD * random.standard_normal((3, seeds)) + residuals).reshape(rules * 3, seeds)
        runs = Runs(bpb, np.arange(rules * 3), families=families, blocks=np.tile(np.arange(3), rules))
        draws = resample(runs, 200, np.random.default_rng(1))
        low, high = interval(np.log(multiplier(*(fit_laws(budgets, draws[:, families == i]) for i in (0, 1)))))
        covered.append(low <= 0 <= high)
    assert 1 - most(LEVEL, studies) <= np.mean(covered) <= 1 - LEVEL + 3 * math.sqrt(LEVEL / studies)


def documents_of(bpb, text="x", n=50, seed=0):
    sizes = np.random.default_rng(0).integers(100, 300, n).astype(float)
    bits = sizes * bpb * np.random.default_rng([seed, 1]).normal(1, 0.01, n)
    return DocumentBits(text, bits * bpb * sizes.sum() / bits.sum(), sizes)


def results(rows, **more):
    """Cells of two seeds for each row (name → BPB)."""
    return [
        cell(name, seed=seed, bpb=bpb + 0.001 * seed, document_bits=documents_of(bpb + 0.001 * seed, seed=seed + k), **more)
        for k, (name, bpb) in enumerate(rows.items()) for seed in (1, 2)
    ]  # fmt: skip


UNITS = {"val/bytes_per_unit_stage2": 5.0, "val/boundary_share_stage2": 0.2, "val_stage2/length_cv_en": 0.6}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"metrics": UNITS | {"val/bpb": 1.5, "val/start_surprisal_stage2": 0.3}}, True),  # of the model, not of units
        ({"metrics": UNITS | {"val/boundary_share_stage2": 0.21}}, False),
        ({"metrics": UNITS | {"val_stage2/length_cv_en": 0.61}}, False),
        ({"metrics": UNITS | {"val/refreshes_per_byte_stage2": 0.1}}, False),
        ({"examples": [Example("ab", [1, 0])]}, False),
        ({"other_settings": "other"}, False),
        ({"other_settings": ""}, False),
        ({"parameters": 5}, False),
    ],
)
def test_rows_with_the_same_units_are_marked_and_not_compared(change, same):
    given = {"metrics": UNITS, "other_settings": "given"}
    other = given | {"metrics": UNITS | {"val/bytes_per_unit_stage2": 9.0}}
    some = study([*results({"a": 1.0}, **given), *results({"b": 1.1}, **given | change), *results({"c": 1.5}, **other)])
    comparison, page = Comparison(some), as_markdown(some)
    a, b, _ = (comparison.groups[arm, "en"] for arm in comparison.arms)
    assert comparison.difference(a, b).same_units is same
    assert (comparison.difference(a, b).apart is None) is same
    assert comparison.verdicts("en").comparisons == 3 - same
    assert f"corrected for {3 - same} comparisons" in page
    assert ("1.102 · same units as a" in page) is same
    assert ("+10.0 % =" in page) is same
    assert ("Same units, so not compared with it: b. The second, c, is" in page) is same


@pytest.mark.parametrize(("share", "near"), [(0.2, True), (0.2015, True), (0.22, False)])
def test_rows_with_nearly_the_same_units_are_compared_and_count_as_one(share, near):
    given = {"metrics": UNITS | {"val/longest_unit_stage2": 9.0}, "other_settings": "given"}
    other = given | {"metrics": UNITS | {"val/boundary_share_stage2": share, "val/longest_unit_stage2": 30.0}}
    cells = [*results({"a": 1.0}, **given), *results({"b": 1.1}, **other), *results({"c": 1.5})]
    verdicts = Comparison(study(cells)).verdicts("en")
    assert verdicts.comparisons == 3
    assert verdicts.runs.freedom == (1 if near else 2)


def test_one_rule_under_two_names_is_not_told_apart():
    """Whether its runs are alike to the last bit, or differ in it: which is no difference between the rules."""
    given = {"metrics": UNITS, "other_settings": "given"}
    for off in (0.0, 1e-9):
        some = study([*results({"a": 1.0}, **given), *results({"b": 1.0 + off}, **given)])
        assert Comparison(some).verdicts("en").comparisons == 0
        assert "Lowest mean BPB: a in en (not judged)" in as_markdown(some)
    unknown = study([*results({"a": 1.0}), *results({"b": 1.0}), *results({"c": 1.5})])  # of an earlier version
    a, b, c = (Comparison(unknown).groups[arm, "en"] for arm in Comparison(unknown).arms)
    assert Comparison(unknown).difference(a, b).apart is False
    assert Comparison(unknown).difference(a, c).apart is True


def test_what_the_intervals_are_over_is_said():
    cells = results({"a": 1.0, "b": 1.1})
    assert "intervals over 50 documents and seeds, corrected for 1 comparison** |" in as_markdown(study(cells))
    assert "Seeds alone" not in as_markdown(study(cells))
    for without in (None, documents_of(1.1, text="y")):  # of an earlier version; of other text
        page = as_markdown(study([*cells[:-1], replace(cells[-1], document_bits=without)]))
        assert "intervals over seeds alone, corrected for 1 comparison** |" in page
        assert "do not cover other documents" in page


def test_the_table_has_the_differences_of_the_cells():
    cells = results({"a": 1.0, "b": 1.1, "c": 1.102})
    verdicts = Verdicts({name: [one for one in cells if one.splitter == name] for name in "abc"})
    low, high = verdicts.difference("b", "a").interval
    assert low + high == pytest.approx(2 * 0.1)
    wanted = f"| b | 1.102 | +0.1000 · {low:+.4f} to {high:+.4f} · told apart | −0.0020 · "
    page = as_markdown(study(cells, reference="c"))
    assert wanted in page
    assert page.count("| reference |") == 1
    draws = verdicts.resample(500, np.random.default_rng(0))
    assert list(draws) == ["a", "b", "c"]
    assert draws["b"].mean() == pytest.approx(1.1015, abs=0.002)
